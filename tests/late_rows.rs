//! Every committed row arrives, however late it was committed: the real program on a real MariaDB, both ends compared by SQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use support::{
    Comparison, Database, Mariadb, Proxy, Scene, Schema, assert_exit,
    gateway::{Central, Gateway},
    greenhouse::load_catalog,
};
use tokio::time::{Instant, sleep};

/// Four hundred days in steps of eight hours, and the last day in steps of five minutes: two nodes, two types, and their states, in order.
async fn scene(schema: Schema, manner: &'static str) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let source = Database::create(Mariadb::shared(), schema).await;
    load_catalog(&source).await;
    let central = Central::start(dir.path(), manner).await;
    let proxy = Proxy::start(central.addr).await;
    let scene = Scene { dir, source, central, proxy };
    scene.source.run("CREATE TABLE begun AS SELECT UTC_TIMESTAMP() AS at").await;
    rows(&scene, "seq_1_to_1200", "INTERVAL (1201 - seq) * 8 + 24 HOUR").await;
    rows(&scene, "seq_1_to_288", "INTERVAL (289 - seq) * 300 SECOND").await;
    scene
}

/// Rows of two nodes at these times before now, one a step.
async fn rows(scene: &Scene, steps: &str, ago: &str) {
    rows_of(scene, "1 UNION SELECT 2", steps, ago).await;
}

async fn rows_of(scene: &Scene, nodes: &str, steps: &str, ago: &str) {
    let from = format!("FROM {steps}, begun, (SELECT id AS node FROM Node WHERE id IN (SELECT {nodes})) AS nodes");
    let sql = format!(
        "INSERT IGNORE INTO Reading (time, nodeId, type, locationId, value) \
         SELECT at - {ago}, node, kind, 509, node + seq / 7 {from}, (SELECT 0 AS kind UNION SELECT 2) AS kinds"
    );
    scene.source.run(&sql).await;
    let sql = format!(
        "INSERT IGNORE INTO NodeState (time, nodeId, parent, `localtime`, seq_num) SELECT at - {ago}, node, 1, seq, seq % 256 {from} ORDER BY 1"
    );
    scene.source.run(&sql).await;
}

/// Audits every second.
fn gateway(scene: &Scene) -> Gateway {
    scene.gateway().with_source("poll_interval", "200ms").with_source("audit_interval", "1s")
}

async fn states_arrived(scene: &Scene) -> i64 {
    let mut file = SqliteConnectOptions::new().filename(scene.central.database()).read_only(true).connect().await.unwrap();
    sqlx::query_scalar("SELECT COUNT(*) FROM NodeState").fetch_one(&mut file).await.unwrap()
}

async fn sent(gateway: &Gateway) -> u64 {
    let status = gateway.output(&["queue", "status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let streams = status["destinations"][0]["streams"].as_array().unwrap();
    streams.iter().map(|stream| stream["acked"].as_u64().unwrap()).sum()
}

const AGES: [(&str, &str); 4] = [
    ("seconds", "INTERVAL 5 + seq SECOND"),
    ("hours", "INTERVAL 3 HOUR - INTERVAL 17 + seq SECOND"),
    ("20 days", "INTERVAL 20 DAY - INTERVAL 17 + seq SECOND"),
    ("a year", "INTERVAL 365 DAY - INTERVAL 17 + seq SECOND"),
];

async fn late_rows_arrive(schema: Schema, manner: &'static str) {
    let scene = scene(schema, manner).await;
    let gateway = gateway(&scene).with_env("PACKHORSE_TEST_WALK_OFTEN", "1");
    let mut daemon = gateway.spawn(&["-q", "run"]);
    scene.wait_until_equal("the rows that were there").await;
    for (age, ago) in AGES {
        rows(&scene, "seq_1_to_3", ago).await;
        scene.wait_until_equal(&format!("rows that were committed late by {age}")).await;
    }
    daemon.terminate().await;
    let there = scene.source.number("SELECT (SELECT COUNT(*) FROM Reading) + (SELECT COUNT(*) FROM NodeState)").await;
    assert_eq!(sent(&gateway).await, there as u64, "the late rows alone were sent, each once");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_committed_late_by_seconds_hours_20_days_and_a_year_arrive_and_nothing_else_is_sent_again() {
    late_rows_arrive(Schema::classic(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_node_states_have_no_id_and_at_a_legacy_server() {
    late_rows_arrive(Schema::newest(), "legacy").await;
}

/// The negative control of both: it is the audits that find them.
#[tokio::test(flavor = "multi_thread")]
async fn without_audits_late_rows_are_lost() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene).with_env("PACKHORSE_TEST_NO_AUDIT", "1");
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
    rows(&scene, "seq_1_to_3", AGES[1].1).await;
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    let comparison = scene.compare().await;
    assert_eq!((comparison.readings.lost, comparison.node_states.lost), (12, 0), "{comparison}");
    // With them a run with an end finds them as well.
    let gateway = Gateway::new(&scene.dir.path().join("gateway"), scene.source.url(), scene.proxy.addr());
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_an_hour_slow_costs_what_its_rows_cost() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene);
    let mut daemon = gateway.spawn(&["-q", "run"]);
    scene.wait_until_equal("the rows that were there").await;
    // Its buckets grow step by step, those of others lie around them.
    for step in 0..15 {
        rows_of(
            &scene,
            "3",
            &format!("seq_{0}_to_{1}", step * 20 + 1, step * 20 + 20),
            "INTERVAL 2 HOUR - INTERVAL seq * 7 SECOND",
        )
        .await;
        sleep(Duration::from_millis(400)).await;
    }
    scene.wait_until_equal("the slow node").await;
    daemon.terminate().await;
    let there = scene.source.number("SELECT (SELECT COUNT(*) FROM Reading) + (SELECT COUNT(*) FROM NodeState)").await;
    assert_eq!(sent(&gateway).await, there as u64, "each row was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_whose_new_rows_cannot_be_told_is_sent_again_in_proportion_to_its_rows() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene);
    let mut daemon = gateway.spawn(&["-q", "run"]);
    scene.wait_until_equal("the rows that were there").await;
    let before = sent_by(&scene, 3).await;
    assert_eq!(before, 0);
    // Each step lies between the rows of the steps before: no run of new rows.
    for step in 0..15 {
        rows_of(
            &scene,
            "3",
            &format!("seq_0_to_19, (SELECT {step} AS step) AS s"),
            "INTERVAL 2 HOUR - INTERVAL seq * 60 + step SECOND",
        )
        .await;
        sleep(Duration::from_millis(500)).await;
    }
    daemon.terminate().await;
    let rows = scene
        .source
        .number("SELECT (SELECT COUNT(*) FROM Reading WHERE nodeId = 3) + (SELECT COUNT(*) FROM NodeState WHERE nodeId = 3)")
        .await;
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
    let others = scene
        .source
        .number("SELECT (SELECT COUNT(*) FROM Reading WHERE nodeId <> 3) + (SELECT COUNT(*) FROM NodeState WHERE nodeId <> 3)")
        .await;
    let sent = sent(&gateway).await - others as u64;
    println!("{sent} rows were sent for {rows}");
    assert!(sent <= 4 * rows as u64, "{sent} rows were sent for {rows}");
}

async fn sent_by(scene: &Scene, node: u32) -> i64 {
    let _ = scene.compare().await;
    scene.source.number(&format!("SELECT COUNT(*) FROM central_Reading WHERE nodeId = {node}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_row_pruned_and_one_committed_late_in_the_same_hour_do_not_hide_each_other() {
    let scene = scene(Schema::newest(), "packhorse").await;
    let gateway = gateway(&scene);
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    // A grid goes and a grid comes, in one hour of one node: two times with two types each.
    let swap = "SET @hour = (SELECT DATE_FORMAT(at - INTERVAL 6 HOUR, '%Y-%m-%d %H:00:00') FROM begun);
         DELETE FROM Reading WHERE nodeId = 1 AND time >= @hour AND time < @hour + INTERVAL 10 MINUTE;
         DELETE FROM NodeState WHERE nodeId = 1 AND time >= @hour AND time < @hour + INTERVAL 10 MINUTE;
         INSERT INTO Reading (time, nodeId, type, value) SELECT @hour + INTERVAL seq * 13 SECOND, 1, kind.k, 0.5 FROM seq_1_to_2, (SELECT 0 AS k UNION SELECT 2) AS kind;
         INSERT INTO NodeState (time, nodeId, seq_num) SELECT @hour + INTERVAL seq * 13 SECOND, 1, 9 FROM seq_1_to_2";
    scene.source.run(swap).await;
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    let comparison = scene.compare().await;
    assert_eq!((comparison.readings.lost, comparison.node_states.lost), (0, 0), "{comparison}");
    assert_eq!(
        (comparison.readings.foreign, comparison.node_states.foreign),
        (4, 2),
        "what was pruned stays there: {comparison}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_sends_nothing_again_but_the_hour_it_cuts() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene);
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    let before = sent(&gateway).await;
    for table in ["Reading", "NodeState"] {
        scene.source.run(&format!("DELETE FROM {table} WHERE time < (SELECT at - INTERVAL 200 DAY FROM begun)")).await;
    }
    assert_exit(&gateway.with_env("PACKHORSE_TEST_WALK_OFTEN", "1").output(&["run", "--once"]).await, 0);
    let gateway = scene.gateway();
    assert_eq!(sent(&gateway).await, before);
    for table in ["Reading", "NodeState"] {
        scene.source.run(&format!("DELETE FROM {table} WHERE time < (SELECT at - INTERVAL 1430 MINUTE FROM begun)")).await;
    }
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    let sent = sent(&gateway).await - before;
    assert!(sent <= 60, "{sent} rows were sent again");
    let comparison: Comparison = scene.compare().await;
    assert_eq!(
        (comparison.readings.lost, comparison.node_states.lost, comparison.node_states.duplicated),
        (0, 0, 0),
        "{comparison}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_of_late_rows_lose_none() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene).with_request_max("2KiB");
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    for round in 0..6 {
        rows_of(
            &scene,
            "3",
            &format!("seq_0_to_900, (SELECT {round} AS round) AS r"),
            "INTERVAL 9 HOUR - INTERVAL seq * 11 + round SECOND",
        )
        .await;
        let mut daemon = gateway.spawn(&["-q", "run"]);
        sleep(Duration::from_millis(150 + 130 * round)).await;
        daemon.kill();
    }
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
}

/// A slot of three pages, of which every other row is late: it is captured again as a whole. The program ends right after each of its commits.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_each_page_of_a_slot_that_is_captured_again_loses_and_doubles_nothing() {
    let scene = Scene::without_rows(Schema { fraction: true, ..Schema::newest() }, "packhorse").await;
    let rows = async |odd: u32| {
        scene
            .source
            .run(&format!(
                "INSERT INTO Reading (time, nodeId, type, locationId, value) SELECT UTC_DATE() - INTERVAL 50 HOUR + INTERVAL (seq * 2 + {odd}) * 120000 MICROSECOND, 1, 0, 509, seq FROM seq_1_to_12500;
                 INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num) SELECT UTC_DATE() - INTERVAL 50 HOUR + INTERVAL (seq * 2 + {odd}) * 120000 MICROSECOND, 1, 0, seq, 0 FROM seq_1_to_12500"
            ))
            .await
    };
    let mut gateway = gateway(&scene);
    rows(0).await;
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
    rows(1).await;
    let mut crashes = 0;
    for pages in [0, 1, 2, 0, 1, 2] {
        gateway.set_env("FAILPOINTS", format!("append:committed={pages}*off->1*return"));
        crashes += u32::from(gateway.output(&["run", "--once"]).await.status.code().is_none());
    }
    assert!(crashes >= 5, "{crashes} crashes");
    gateway.set_env("FAILPOINTS", "");
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
    // And it is known for what it is: nothing is sent any more.
    let before = sent(&gateway).await;
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    assert_eq!(sent(&gateway).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn burnt_ids_an_increment_of_two_and_a_long_transaction_below_the_watermark_lose_nothing() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene);
    let mut daemon = gateway.spawn(&["-q", "run"]);
    scene.wait_until_equal("the rows that were there").await;
    // A transaction takes its ids now and commits last.
    let mut long = scene.source.admin().begin().await.unwrap();
    let insert = "INSERT INTO NodeState (time, nodeId, parent, `localtime`) VALUES (UTC_TIMESTAMP(), 1, 7, 77), (UTC_TIMESTAMP(), 1, 7, 78)";
    sqlx::query(insert).execute(&mut *long).await.unwrap();
    // Others roll back, and a bulk insert burns ids.
    for _ in 0..20 {
        let mut burnt = scene.source.admin().begin().await.unwrap();
        sqlx::query("INSERT INTO NodeState (time, nodeId) SELECT UTC_TIMESTAMP(), 1 FROM seq_1_to_100")
            .execute(&mut *burnt)
            .await
            .unwrap();
        burnt.rollback().await.unwrap();
    }
    scene.source.run("SET auto_increment_increment = 2; INSERT INTO NodeState (time, nodeId, parent, `localtime`) SELECT UTC_TIMESTAMP(), 2, 8, seq FROM seq_1_to_5000; SET auto_increment_increment = 1").await;
    // Comparing would wait for the open transaction.
    let there = scene.source.number("SELECT COUNT(*) FROM NodeState").await;
    let began = Instant::now();
    while states_arrived(&scene).await < there {
        assert!(began.elapsed() < Duration::from_mins(1), "ids with an increment of two");
        sleep(Duration::from_millis(100)).await;
    }
    long.commit().await.unwrap();
    scene.wait_until_equal("the long transaction").await;
    daemon.terminate().await;
    let there = scene.source.number("SELECT (SELECT COUNT(*) FROM Reading) + (SELECT COUNT(*) FROM NodeState)").await;
    assert_eq!(sent(&gateway).await, there as u64, "each row was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_before_the_start_is_not_missing_and_what_is_late_after_it_arrives() {
    for schema in [Schema::classic(), Schema::newest()] {
        let scene = scene(schema, "packhorse").await;
        let gateway = gateway(&scene);
        let config = std::fs::read_to_string(gateway.config()).unwrap();
        std::fs::write(gateway.config(), config.replace("linger = ", "start = \"now\"\nlinger = ")).unwrap();
        let gateway = gateway.with_env("PACKHORSE_TEST_WALK_OFTEN", "1");
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        assert_eq!(sent(&gateway).await, 0, "{schema:?}");
        // Rows from now on, and one late among them.
        scene.source.run("INSERT INTO Reading (time, nodeId, type, value) SELECT UTC_TIMESTAMP() + INTERVAL seq SECOND, 1, 0, 1 FROM seq_1_to_3; INSERT INTO NodeState (time, nodeId, seq_num) SELECT UTC_TIMESTAMP() + INTERVAL seq SECOND, 1, 0 FROM seq_1_to_3").await;
        sleep(Duration::from_millis(3_500)).await;
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        assert_eq!(sent(&gateway).await, 6, "{schema:?}");
        scene.source.run("INSERT INTO Reading (time, nodeId, type, value) SELECT MAX(time) - INTERVAL 1 SECOND, 2, 0, 1 FROM Reading; INSERT INTO Reading (time, nodeId, type, value) SELECT at - INTERVAL 90 MINUTE + INTERVAL 1 SECOND, 2, 2, 1 FROM begun").await;
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        assert_eq!(sent(&gateway).await, 7, "the late one, and not the one from before the start: {schema:?}");
    }
}

/// Makes the store unreadable.
fn destroy_store(gateway: &Gateway) {
    let outbox = gateway.data_dir().join("central");
    let current = std::fs::read_to_string(outbox.join("CURRENT")).unwrap();
    std::fs::write(outbox.join(current.trim()).join("db"), vec![0xAA; 100_000]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_from_before_while_and_after_a_rebuild_arrive() {
    for schema in [Schema::classic(), Schema::newest()] {
        let scene = scene(schema, "packhorse").await;
        let gateway = gateway(&scene).with_env("PACKHORSE_TEST_WALK_OFTEN", "1");
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        let before = sent(&gateway).await;
        // Opening brings the sidecar up to date, which else may be a minute old.
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        rows(&scene, "seq_1_to_3", AGES[2].1).await;
        destroy_store(&gateway);
        let mut daemon = gateway.spawn(&["-q", "run"]);
        rows(&scene, "seq_1_to_3", AGES[1].1).await;
        scene.wait_until_equal("late rows from before and while it was rebuilt").await;
        rows(&scene, "seq_1_to_3", AGES[3].1).await;
        scene.wait_until_equal("late rows after it was rebuilt").await;
        daemon.terminate().await;
        let again = sent(&gateway).await;
        assert!(again < before / 4, "the copy of the ledger proved the rest: {again} of {before} rows were sent again");
    }
}

/// Neither the store nor the copy of the ledger is there: everything that the table has is captured as a repeat.
#[tokio::test(flavor = "multi_thread")]
async fn late_rows_arrive_after_a_rebuild_without_any_ledger() {
    for (schema, manner) in [(Schema::classic(), "packhorse"), (Schema::newest(), "packhorse"), (Schema::classic(), "legacy-old")]
    {
        let scene = scene(schema, manner).await;
        let gateway = gateway(&scene).with_env("PACKHORSE_TEST_WALK_OFTEN", "1");
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        rows(&scene, "seq_1_to_3", AGES[2].1).await;
        destroy_store(&gateway);
        std::fs::remove_file(gateway.data_dir().join("central/ledger")).unwrap();
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        scene.compare().await.assert_equal();
        rows(&scene, "seq_1_to_3", AGES[3].1).await;
        rows(&scene, "seq_1_to_3", AGES[1].1).await;
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        scene.compare().await.assert_equal();
    }
}
