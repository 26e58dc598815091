//! Several destinations, each a pipeline of its own: whatever is wrong with some of them, the others are served, and each of them ends complete
//! when what was wrong is mended.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use support::{
    Database, Scene, Schema, assert_exit, compare,
    front::{Face, Front},
    gateway::{Central, Gateway, Running},
    is_equal,
    link::{Conditions, Fault, Link},
};
use tokio::time::{Duration, Instant, sleep};

const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\nnot found";

async fn add(source: &Database, from: u32, until: u32) {
    let rows = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT '2026-01-01' + INTERVAL seq DIV 4 MINUTE, ELT(1 + seq % 4, 1, 2, 3, 10), 0, ELT(1 + seq % 4, 509, 503, 507, 533), RAND(seq)
             FROM seq_{from}_to_{last};
         INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
             SELECT '2026-01-01' + INTERVAL seq DIV 4 MINUTE, ELT(1 + seq % 4, 1, 2, 3, 10), 0, seq, seq % 256, -70 FROM seq_{from}_to_{last}",
        last = until - 1
    );
    source.run(&rows).await;
}

async fn becomes_equal(name: &str, daemon: &mut Running, source: &Database, central: &Central) {
    let began = Instant::now();
    while !is_equal(source, central.database()).await {
        assert!(!daemon.ended(), "the daemon never ends by itself");
        assert!(began.elapsed() < Duration::from_mins(4), "{name} is not served:\n{}", compare(source, central.database()).await);
        sleep(Duration::from_millis(100)).await;
    }
    println!("{name} is complete");
}

/// A legacy server in a folder of its own.
async fn server(dir: &Path, name: &str) -> Central {
    let own = dir.join(name);
    fs::create_dir(&own).unwrap();
    Central::start(&own, "legacy").await
}

fn outbox(gateway: &Gateway, name: &str) -> PathBuf {
    gateway.data_dir().join(name)
}

/// One is served while another is dead, another so long that its outbox is full, another silent, another behind a wrong address, and another's
/// outbox cannot be opened.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_a_full_a_silent_a_misplaced_and_a_damaged_one_hold_up_no_other_and_end_complete() {
    let scene = Scene::without_rows(Schema::classic(), "legacy").await;
    add(&scene.source, 0, 30_000).await;
    let dir = scene.dir.path();
    let (mut dead, mut full) = (server(dir, "dead").await, server(dir, "full").await);
    let (silent, misplaced, damaged) =
        (server(dir, "silent").await, server(dir, "misplaced").await, server(dir, "damaged").await);
    dead.kill();
    full.kill();
    let silent_front = Front::start(silent.addr, Face::Silent).await;
    let misplaced_front = Front::start(misplaced.addr, Face::Canned(NOT_FOUND)).await;
    let gateway = scene
        .gateway()
        .and_destination("dead", dead.addr)
        .and_destination("silent", silent_front.addr())
        .and_destination("misplaced", misplaced_front.addr())
        .and_destination("damaged", damaged.addr)
        .and_destination("full", full.addr)
        .with_env("PACKHORSE_TEST_ANSWER_DEADLINE_SECONDS", "3");
    // The last one is the full one.
    let config = fs::read_to_string(gateway.config()).unwrap();
    fs::write(gateway.config(), config.trim_end().to_owned() + "\noutbox_max = \"64KiB\"\n").unwrap();
    // Where its outbox should be stands a file.
    fs::create_dir(gateway.data_dir()).unwrap();
    fs::write(outbox(&gateway, "damaged"), "not an outbox").unwrap();

    let mut daemon = gateway.spawn(&["-qq", "run"]);
    becomes_equal("central", &mut daemon, &scene.source, &scene.central).await;
    add(&scene.source, 30_000, 30_400).await;
    becomes_equal("central", &mut daemon, &scene.source, &scene.central).await;
    for (name, other) in [("dead", &dead), ("full", &full), ("silent", &silent), ("misplaced", &misplaced), ("damaged", &damaged)]
    {
        let comparison = compare(&scene.source, other.database()).await;
        assert_eq!(comparison.readings.arrived + comparison.node_states.arrived, 0, "{name}\n{comparison}");
    }
    daemon.terminate().await;
    // The dead one's outbox holds all of it, the full one's no more than it may, with a page that was begun.
    let status = gateway.output(&["queue", "status", "--json", "--destination", "dead"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["destinations"][0]["pending"], 60_800);
    let status = gateway.output(&["queue", "status", "--json", "--destination", "full"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let pending = status["destinations"][0]["pending"].as_u64().unwrap();
    assert!(pending > 0 && pending < 60_800, "{pending}");

    let mut daemon = gateway.spawn(&["-qq", "run"]);
    dead.restart().await;
    full.restart().await;
    silent_front.turn(Face::Real);
    misplaced_front.turn(Face::Real);
    fs::remove_file(outbox(&gateway, "damaged")).unwrap();
    for (name, other) in [("dead", &dead), ("full", &full), ("silent", &silent), ("misplaced", &misplaced), ("damaged", &damaged)]
    {
        becomes_equal(name, &mut daemon, &scene.source, other).await;
    }
    daemon.terminate().await;
    scene.compare().await.assert_equal();
}

/// The configuration looks right, and only who builds the connection finds that the certificate in it is none.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_set_up_holds_up_no_other() {
    let scene = Scene::without_rows(Schema::classic(), "legacy").await;
    add(&scene.source, 0, 100).await;
    let other = server(scene.dir.path(), "other").await;
    let gateway = scene.gateway().and_destination("other", other.addr);
    let good = fs::read_to_string(gateway.config()).unwrap();
    let ca = scene.dir.path().join("ca.pem");
    fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    fs::write(gateway.config(), format!("{}\nca_file = \"{}\"\n", good.trim_end(), ca.display())).unwrap();
    let once = gateway.output(&["run", "--once", "--deadline", "60s"]).await;
    assert_exit(&once, 1);
    let said = String::from_utf8(once.stdout).unwrap();
    assert!(said.contains("other: it cannot be set up: ") && said.contains("certificate"), "{said}");
    scene.compare().await.assert_equal();
    fs::write(gateway.config(), good).unwrap();
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "60s"]).await, 0);
    compare(&scene.source, other.database()).await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_one_keeps_its_outbox_and_goes_on_where_it_stood() {
    let scene = Scene::without_rows(Schema::classic(), "legacy").await;
    add(&scene.source, 0, 200).await;
    let mut other = server(scene.dir.path(), "other").await;
    other.kill();
    let gateway = scene.gateway().and_destination("other", other.addr);
    let enabled = fs::read_to_string(gateway.config()).unwrap();
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "5s"]).await, 1);
    fs::write(gateway.config(), enabled.replace("name = \"other\"", "name = \"other\"\nenabled = false")).unwrap();
    add(&scene.source, 200, 400).await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "60s"]).await, 0);
    scene.compare().await.assert_equal();
    // What waited in it is still there; what came meanwhile is not in it yet.
    let status = gateway.output(&["queue", "status", "--json", "--destination", "other"]).await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["destinations"][0]["pending"], 400);
    fs::write(gateway.config(), enabled).unwrap();
    other.restart().await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "60s"]).await, 0);
    compare(&scene.source, other.database()).await.assert_equal();
}

/// It answers everything, at a rate that takes a minute and more for what the other gets at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_one_holds_up_no_other_and_ends_complete() {
    let scene = Scene::without_rows(Schema::classic(), "legacy").await;
    add(&scene.source, 0, 20_000).await;
    let slow = server(scene.dir.path(), "slow").await;
    let link = Link::start(slow.addr, Conditions::steady(16_000, Duration::from_millis(600)));
    let gateway = scene.gateway().and_destination("slow", link.addr());
    let mut daemon = gateway.spawn(&["-qq", "run"]);
    becomes_equal("central", &mut daemon, &scene.source, &scene.central).await;
    add(&scene.source, 20_000, 20_400).await;
    becomes_equal("central", &mut daemon, &scene.source, &scene.central).await;
    let behind = compare(&scene.source, slow.database()).await;
    assert!(!behind.is_equal(), "the control: it is slow\n{behind}");
    link.set(Conditions::ideal());
    becomes_equal("slow", &mut daemon, &scene.source, &slow).await;
    daemon.terminate().await;
}

/// Each answer of the catalog in turn is cut: before it, in its head, in the middle of its JSON, and where only the end is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_answer_that_is_cut_in_the_middle_disturbs_nobody_and_nothing_is_doubled() {
    let scene = Scene::without_rows(Schema::classic(), "legacy").await;
    add(&scene.source, 0, 200).await;
    let other = server(scene.dir.path(), "cut").await;
    let link = Link::start(other.addr, Conditions::ideal());
    let tables = ["deployment", "house", "room", "roomtype", "location", "node", "nodetype", "sensortype", "sensor"];
    for table in tables {
        for fault in [Fault::CutDown(0), Fault::CutDown(40), Fault::Truncate(0), Fault::Truncate(1), Fault::Truncate(60)] {
            link.aim(&format!("/rest/{table}/"), fault);
        }
    }
    let gateway = scene.gateway().and_destination("cut", link.addr());
    let mut daemon = gateway.spawn(&["-qq", "run"]);
    becomes_equal("central", &mut daemon, &scene.source, &scene.central).await;
    becomes_equal("cut", &mut daemon, &scene.source, &other).await;
    daemon.terminate().await;
    println!("{} answers were cut, {} cuts met none", link.faults_met(), link.faults_waiting());
    assert!(link.faults_met() > 20, "{}", link.faults_met());
    // What was made although its answer was cut was found again, not made twice.
    let database = SqliteConnectOptions::new().filename(other.database()).read_only(true);
    let mut file = database.connect().await.unwrap();
    for (table, key) in [("Deployment", "name"), ("House", "address"), ("Room", "name"), ("Location", "houseId || ' ' || roomId")]
    {
        let doubled = format!("SELECT COUNT(*) - COUNT(DISTINCT COALESCE({key}, '')) FROM {table}");
        let doubled: i64 = sqlx::query_scalar(AssertSqlSafe(doubled)).fetch_one(&mut file).await.unwrap();
        assert_eq!(doubled, 0, "{table}");
    }
    file.close().await.unwrap();
}
