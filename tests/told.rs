//! What a packhorse receiver tells beside its verdicts, and gateways that are not what they were: a receiver that is put back from a backup or emptied,
//! an older image of a gateway, clones of one, rows that are refused by place. Real parts, counted by SQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{AssertSqlSafe, ConnectOptions as _, sqlite::SqliteConnectOptions};
use support::{
    Database, Mariadb, Scene, Schema, assert_exit, compare,
    gateway::{Central, Gateway},
    greenhouse::load_catalog,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, sleep},
};

/// Rows of a node in location 509, one a minute of 2026 from one minute to another: two readings and a node state each.
async fn rows(source: &Database, node: u32, minutes: std::ops::Range<u32>) {
    let location = if node == 1 { "509" } else { "NULL" };
    let steps = format!("FROM seq_{}_to_{}", minutes.start, minutes.end - 1);
    source
        .run(&format!(
            "INSERT INTO Reading (time, nodeId, type, locationId, value)
                 SELECT '2026-01-01' + INTERVAL seq MINUTE, {node}, kind, {location}, seq + kind {steps}, (SELECT 0 AS kind UNION SELECT 2) AS kinds;
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                 SELECT '2026-01-01' + INTERVAL seq MINUTE, {node}, 0, seq, seq % 256, -70 {steps} ORDER BY seq"
        ))
        .await;
}

async fn once(gateway: &Gateway) -> String {
    let output = gateway.output(&["run", "--once", "--deadline", "300s"]).await;
    assert_exit(&output, 0);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The files of a receiver that is not running.
fn files(central: &Central) -> Vec<PathBuf> {
    ["", "-wal", "-shm"].iter().map(|end| PathBuf::from(format!("{}{end}", central.database().display()))).collect()
}

/// Copies the database of a receiver aside.
async fn back_up(central: &mut Central, to: &Path) {
    central.kill();
    std::fs::create_dir_all(to).unwrap();
    for file in files(central).iter().filter(|file| file.exists()) {
        std::fs::copy(file, to.join(file.file_name().unwrap())).unwrap();
    }
    central.restart().await;
}

/// Puts it back; nothing of it is left without a backup.
async fn put_back(central: &mut Central, from: Option<&Path>) {
    central.kill();
    for file in files(central) {
        let _ = std::fs::remove_file(&file);
        let kept = from.map(|from| from.join(file.file_name().unwrap())).filter(|kept| kept.exists());
        if let Some(kept) = kept {
            std::fs::copy(kept, &file).unwrap();
        }
    }
    central.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_put_back_or_emptied_gets_again_what_it_lost() {
    let mut scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let gateway = scene.gateway().with_request_max("4KiB");
    let backup = scene.dir.path().join("backup");
    rows(&scene.source, 1, 0..1_500).await;
    once(&gateway).await;
    back_up(&mut scene.central, &backup).await;
    rows(&scene.source, 1, 1_500..4_000).await;
    once(&gateway).await;
    scene.compare().await.assert_equal();
    for (from, answers_lost) in [(Some(backup.as_path()), 0), (Some(backup.as_path()), 1), (None, 0), (None, 1)] {
        put_back(&mut scene.central, from).await;
        let next = scene.source.number("SELECT MAX(`localtime`) + 1 FROM NodeState").await as u32;
        rows(&scene.source, 1, next..next + 20).await;
        for _ in 0..answers_lost {
            scene.proxy.lose_next_answer_of("/rest/bulk/");
        }
        let told = once(&gateway).await;
        assert!(told.contains("the receiver has lost readings") && told.contains("the receiver has lost node states"), "{told}");
        scene.compare().await.assert_equal();
        // And then it is well.
        rows(&scene.source, 1, next + 20..next + 30).await;
        let told = once(&gateway).await;
        assert!(!told.contains("has lost"), "{told}");
        scene.compare().await.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_daemon_brings_back_what_a_receiver_lost_in_spite_of_kills() {
    let mut scene = Scene::without_rows(Schema::newest(), "packhorse").await;
    let gateway = scene.gateway().with_request_max("2KiB").with_source("poll_interval", "200ms");
    let backup = scene.dir.path().join("backup");
    rows(&scene.source, 1, 0..1_000).await;
    once(&gateway).await;
    back_up(&mut scene.central, &backup).await;
    rows(&scene.source, 1, 1_000..6_000).await;
    once(&gateway).await;
    put_back(&mut scene.central, Some(&backup)).await;
    rows(&scene.source, 1, 6_000..6_010).await;
    for kill in 0..6 {
        let mut daemon = gateway.spawn(&["-q", "run"]);
        let (bulks, began) = (scene.proxy.requests_of("/rest/bulk/"), Instant::now());
        while scene.proxy.requests_of("/rest/bulk/") < bulks + 1 + kill && began.elapsed() < Duration::from_mins(1) {
            sleep(Duration::from_millis(3)).await;
        }
        daemon.kill();
    }
    let mut daemon = gateway.spawn(&["-q", "run"]);
    let began = Instant::now();
    while !scene.compare().await.is_equal() {
        assert!(began.elapsed() < Duration::from_mins(5), "what was lost does not come back");
        sleep(Duration::from_millis(500)).await;
    }
    daemon.terminate().await;
}

/// A gateway that talks to a receiver and to both kinds of legacy servers.
struct Many {
    dir: tempfile::TempDir,
    source: Database,
    centrals: Vec<Central>,
    gateway: Gateway,
}

impl Many {
    async fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Database::create(Mariadb::shared(), Schema::classic()).await;
        load_catalog(&source).await;
        let mut centrals = Vec::new();
        for manner in ["packhorse", "legacy", "legacy-old"] {
            centrals.push(Central::start(dir.path(), manner).await);
        }
        let gateway = Gateway::new(&dir.path().join("gateway"), source.url(), centrals[0].addr)
            .and_destination("newer", centrals[1].addr)
            .and_destination("older", centrals[2].addr);
        Self { dir, source, centrals, gateway }
    }

    fn stop_centrals(&mut self) {
        self.centrals.iter_mut().for_each(Central::kill);
    }

    async fn start_centrals(&mut self) {
        for central in &mut self.centrals {
            central.restart().await;
        }
    }

    /// Lets the gateway go on from an image, taken with rows that waited, when those and more had arrived.
    async fn overtake(&mut self) {
        let (data_dir, image) = (self.gateway.data_dir(), self.dir.path().join("image"));
        rows(&self.source, 1, 0..300).await;
        once(&self.gateway).await;
        self.stop_centrals();
        rows(&self.source, 1, 300..500).await;
        assert_exit(&self.gateway.output(&["run", "--once", "--deadline", "8s"]).await, 1);
        copy(&data_dir, &image);
        self.start_centrals().await;
        rows(&self.source, 1, 500..900).await;
        once(&self.gateway).await;
        std::fs::remove_dir_all(&data_dir).unwrap();
        copy(&image, &data_dir);
        rows(&self.source, 1, 900..950).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_image_of_a_gateway_doubles_nothing_at_a_receiver_and_at_legacy_servers() {
    let mut many = Many::set().await;
    many.overtake().await;
    let told = once(&many.gateway).await;
    assert!(told.contains("were never sent from here"), "{told}");
    for central in &many.centrals {
        let comparison = compare(&many.source, central.database()).await;
        println!("{}\n{comparison}", central.database().display());
        comparison.assert_equal();
    }
    // And it goes on as any other.
    rows(&many.source, 1, 950..1_000).await;
    let told = once(&many.gateway).await;
    assert!(!told.contains("were never sent from here"), "{told}");
    for central in &many.centrals {
        compare(&many.source, central.database()).await.assert_equal();
    }
}

/// The negative control.
#[tokio::test(flavor = "multi_thread")]
async fn without_asking_an_older_image_shows_doubles_at_the_older_table() {
    let mut many = Many::set().await;
    many.gateway.set_env("PACKHORSE_TEST_SEND_BLIND", "1");
    many.overtake().await;
    once(&many.gateway).await;
    let older = compare(&many.source, many.centrals[2].database()).await;
    assert!(older.node_states.duplicated > 0, "the control must fail:\n{older}");
}

/// How many rows of a table the receiver has, in all and of a node.
async fn count(central: &Central, sql: &str) -> i64 {
    let mut file = SqliteConnectOptions::new().filename(central.database()).read_only(true).connect().await.unwrap();
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&mut file).await.unwrap()
}

/// The receiver's page of gateways.
async fn page(central: &Central) -> String {
    let mut line = tokio::net::TcpStream::connect(central.addr).await.unwrap();
    line.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    line.read_to_string(&mut page).await.unwrap();
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_cloned_from_one_image_both_deliver_all_rows_and_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let central = Central::start(dir.path(), "packhorse").await;
    let mut gateways = Vec::new();
    for name in ["one", "other"] {
        // The image holds the database too: what was captured before is the same.
        let source = Database::create(Mariadb::shared(), Schema::classic()).await;
        load_catalog(&source).await;
        rows(&source, 1, 0..200).await;
        let gateway = Gateway::new(&dir.path().join(name), source.url(), central.addr);
        gateways.push((source, gateway));
    }
    once(&gateways[0].1).await;
    copy(&gateways[0].1.data_dir(), &gateways[1].1.data_dir());
    assert!(!page(&central).await.contains("two machines"));
    // From now on each has rows of its own, under the same ids and in the same numbers.
    let mut told = [String::new(), String::new()];
    for round in 0..4 {
        for (number, (source, gateway)) in gateways.iter().enumerate() {
            let from = 200 + round * 100;
            rows(source, [1, 100][number], from..from + 100).await;
            told[number] += &once(gateway).await;
        }
    }
    for (table, each) in [("Reading", 2), ("NodeState", 1)] {
        for node in [1, 100] {
            let own = if node == 1 { 600 } else { 400 };
            let there = count(&central, &format!("SELECT COUNT(*) FROM {table} WHERE nodeId = {node}")).await;
            assert_eq!(there, own * each, "{table} of node {node}");
        }
        let doubles = format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM {table} GROUP BY time, nodeId, {} HAVING COUNT(*) > 1)",
            ["seq_num", "type"][each as usize - 1]
        );
        assert_eq!(count(&central, &doubles).await, 0, "{table}");
    }
    assert_eq!(
        count(
            &central,
            "SELECT COUNT(*) FROM Reading WHERE value <> (strftime('%s', time) - strftime('%s', '2026-01-01')) / 60 + type"
        )
        .await,
        0
    );
    assert!(told[1].contains("a copy of it runs elsewhere"), "{}", told[1]);
    let page = page(&central).await;
    assert!(page.contains("two machines send under this source id"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_receiver_refuses_are_parked_alone_and_arrive_when_they_are_tried_again_after_the_cause_is_gone() {
    let mut scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let gateway = scene.gateway();
    rows(&scene.source, 1, 0..10).await;
    once(&gateway).await;
    // A node that the centre loses as soon as it has it.
    let trigger = "CREATE TRIGGER lose AFTER INSERT ON Node WHEN NEW.id = 100 BEGIN DELETE FROM Node WHERE id = 100; END; DELETE FROM Sensor WHERE nodeId = 100; DELETE FROM Node WHERE id = 100";
    scene.central_sql(trigger).await;
    rows(&scene.source, 1, 10..1_010).await;
    rows(&scene.source, 100, 10..1_010).await;
    let before = scene.proxy.requests_of("/rest/bulk/");
    let output = gateway.output(&["-vv", "run", "--once", "--deadline", "120s"]).await;
    assert_exit(&output, 1);
    let requests = scene.proxy.requests_of("/rest/bulk/") - before;
    let of_rows = String::from_utf8_lossy(&output.stderr).matches(" request stream=").count();
    println!("{requests} bulk requests, {of_rows} of them with rows");
    // A batch is sent and sent again, and a slow machine may cut it in some; a search for 3,000 rows one by one would take thousands. The rest are
    // the six sensors of that node, told apart whenever the catalog is looked at.
    assert!((4..=20).contains(&of_rows) && requests <= 100, "{requests} bulk requests, {of_rows} of them with rows");
    let comparison = scene.compare().await;
    let lost = (comparison.readings.lost, comparison.node_states.lost);
    assert_eq!((lost, comparison.readings.arrived, comparison.node_states.arrived), ((2_000, 1_000), 2_020, 1_010));
    let parked = gateway.output(&["queue", "parked", "list", "--json"]).await;
    let groups: serde_json::Value = serde_json::from_slice(&parked.stdout).unwrap();
    let groups: Vec<_> =
        groups["groups"].as_array().unwrap().iter().map(|group| (group["rows"].as_i64(), group.to_string())).collect();
    assert_eq!(groups.iter().map(|(rows, _)| rows.unwrap()).sum::<i64>(), 3_000, "{groups:?}");
    assert!(groups.iter().all(|(_, text)| text.contains("status 207: there is no Node 100 here")), "{groups:?}");
    // They stay where they are until somebody has them tried again.
    scene.central_sql("DROP TRIGGER lose").await;
    rows(&scene.source, 1, 1_010..1_020).await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "120s"]).await, 1);
    assert_exit(&gateway.output(&["queue", "parked", "retry", "--all", "--yes"]).await, 0);
    once(&gateway).await;
    scene.compare().await.assert_equal();
}
