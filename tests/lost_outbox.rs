//! The real program after its store is gone: rows that only the outbox had arrive all the same, and nothing arrives twice.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{path::PathBuf, process::Output};

use sqlx::{ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};
use support::{Scene, Schema, assert_exit, gateway::Gateway};

/// Readings of the sensor type that the destination takes for something else.
const HELD: i64 = 60;

async fn insert(scene: &Scene, days_ago: u32, sensor_type: i64, rows: u32) {
    scene
        .source
        .run(&format!(
            "INSERT INTO Reading (time, nodeId, type, value)
                SELECT UTC_TIMESTAMP() - INTERVAL {days_ago} DAY + INTERVAL seq SECOND, 100, {sensor_type}, seq FROM seq_1_to_{rows};
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                SELECT UTC_TIMESTAMP() - INTERVAL {days_ago} DAY + INTERVAL seq SECOND, 100, 0, {days_ago} * 1000 + seq, seq, -70
                FROM seq_1_to_{rows}"
        ))
        .await;
}

async fn once(gateway: &Gateway) -> Output {
    gateway.output(&["run", "--once", "--deadline", "120s"]).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What has arrived of a sensor type: rows, and distinct ones.
async fn arrived(scene: &Scene, sensor_type: i64) -> (i64, i64) {
    let options = SqliteConnectOptions::new().filename(scene.central.database()).read_only(true);
    let mut file = options.connect().await.unwrap();
    let query = "SELECT COUNT(*), COUNT(DISTINCT time) FROM Reading WHERE type = ?";
    let counts = sqlx::query_as(query).bind(sensor_type).fetch_one(&mut file).await.unwrap();
    file.close().await.unwrap();
    counts
}

fn store(gateway: &Gateway) -> PathBuf {
    let outbox = gateway.data_dir().join("central");
    let name = std::fs::read_to_string(outbox.join("CURRENT")).unwrap();
    outbox.join(name.trim())
}

/// A type in conflict holds rows for months; the source has pruned them, and then the card breaks under the store.
async fn held_rows_outlive_the_store(manner: &'static str) {
    let mut scene = Scene::without_rows(Schema::classic(), manner).await;
    let gateway = scene.gateway();
    insert(&scene, 300, 0, 20).await;
    assert_exit(&once(&gateway).await, 0);
    scene.central_sql("UPDATE SensorType SET name = 'Something else' WHERE id = 60").await;
    insert(&scene, 200, HELD, 50).await;
    insert(&scene, 2, 0, 30).await;
    assert_exit(&once(&gateway).await, 1);
    assert_eq!(arrived(&scene, HELD).await, (0, 0), "they are held");
    scene.source.run("DELETE FROM Reading WHERE time < UTC_TIMESTAMP() - INTERVAL 100 DAY").await;
    insert(&scene, 1, 0, 10).await;

    let db = store(&gateway).join("db");
    let bytes = std::fs::metadata(&db).unwrap().len() as usize;
    std::fs::write(&db, vec![0x5a; bytes]).unwrap();
    let rebuilt = once(&gateway).await;
    assert_exit(&rebuilt, 1);
    assert!(said(&rebuilt).contains("is set aside") && !said(&rebuilt).contains("panicked"), "{}", said(&rebuilt));
    assert_eq!(arrived(&scene, HELD).await, (0, 0), "they are held in the new life too");

    scene.central_sql("UPDATE SensorType SET name = 'Black bulb' WHERE id = 60").await;
    assert_exit(&once(&gateway).await, 0);
    assert_eq!(arrived(&scene, HELD).await, (50, 50), "each once, though the source has them no more");
    let comparison = scene.compare().await;
    for counts in [&comparison.readings, &comparison.node_states] {
        assert_eq!((counts.lost, counts.duplicated), (0, 0), "{comparison}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_rows_that_the_source_has_pruned_outlive_the_store_before_a_receiver() {
    held_rows_outlive_the_store("packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn held_rows_that_the_source_has_pruned_outlive_the_store_before_a_legacy_server() {
    held_rows_outlive_the_store("legacy").await;
}

/// Nothing is left but signs of a former life: told as an error, and everything goes from the first row on, where most has arrived already.
async fn without_store_and_sidecar(manner: &'static str) {
    let scene = Scene::without_rows(Schema::classic(), manner).await;
    let gateway = scene.gateway();
    insert(&scene, 30, 0, 200).await;
    insert(&scene, 20, HELD, 100).await;
    assert_exit(&once(&gateway).await, 0);
    scene.proxy.cut().await;
    insert(&scene, 1, 0, 150).await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "5s"]).await, 1);
    scene.proxy.restore().await;

    std::fs::remove_dir_all(store(&gateway)).unwrap();
    for name in ["CURRENT", "sidecar"] {
        std::fs::remove_file(gateway.data_dir().join("central").join(name)).unwrap();
    }
    let rebuilt = once(&gateway).await;
    assert_exit(&rebuilt, 0);
    let said = said(&rebuilt);
    assert!(said.contains("ERROR") && said.contains("its store and its sidecar are gone"), "{said}");
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_of_which_nothing_is_left_is_told_and_nothing_is_lost_or_doubled_at_a_receiver() {
    without_store_and_sidecar("packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_of_which_nothing_is_left_is_told_and_nothing_is_lost_or_doubled_at_a_legacy_server() {
    without_store_and_sidecar("legacy").await;
}

/// An outbox that began 10 days ago, with older rows in the source that nobody wants.
async fn begun_later() -> (Scene, Gateway) {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let gateway = scene.gateway();
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    let start = (chrono::Utc::now() - chrono::TimeDelta::days(10)).format("%Y-%m-%dT%H:%M:%S");
    std::fs::write(gateway.config(), config.replace("linger = ", &format!("start = \"{start}\"\nlinger = "))).unwrap();
    insert(&scene, 30, 0, 200).await;
    insert(&scene, 1, 0, 150).await;
    assert_exit(&once(&gateway).await, 0);
    assert_eq!(arrived(&scene, 0).await, (150, 150), "those from `start` on");
    (scene, gateway)
}

/// Nobody knows any more what waited, so that rows from before `start` go as well.
#[tokio::test(flavor = "multi_thread")]
async fn without_store_and_sidecar_start_is_not_obeyed() {
    let (scene, gateway) = begun_later().await;
    std::fs::remove_dir_all(store(&gateway)).unwrap();
    for name in ["CURRENT", "sidecar"] {
        std::fs::remove_file(gateway.data_dir().join("central").join(name)).unwrap();
    }
    assert_exit(&once(&gateway).await, 0);
    assert_eq!(arrived(&scene, 0).await, (350, 350));
    scene.compare().await.assert_equal();
}

/// What an operator does who does not want that.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_whole_folder_start_is_obeyed_again() {
    let (scene, gateway) = begun_later().await;
    std::fs::remove_dir_all(gateway.data_dir().join("central")).unwrap();
    let begun = once(&gateway).await;
    assert_exit(&begun, 0);
    assert!(!said(&begun).contains("ERROR"), "{}", said(&begun));
    assert_eq!(arrived(&scene, 0).await, (150, 150), "no more, and none twice");
}
