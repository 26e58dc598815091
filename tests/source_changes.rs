//! A source that is restored, emptied, replaced or whose clock goes wrong: nothing is lost, and nothing lands in a wrong room.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use sqlx::{ConnectOptions as _, Row as _, sqlite::SqliteConnectOptions};
use support::{
    Database, Mariadb, Proxy, Scene, Schema, assert_exit,
    gateway::{Central, Gateway},
    greenhouse::load_catalog,
};
use tokio::time::{Instant, sleep};

async fn scene_on(server: &Mariadb, schema: Schema, manner: &'static str) -> Scene {
    let dir = tempfile::tempdir().unwrap();
    let source = Database::create(server, schema).await;
    load_catalog(&source).await;
    let central = Central::start(dir.path(), manner).await;
    let proxy = Proxy::start(central.addr).await;
    source.run("CREATE TABLE begun AS SELECT UTC_TIMESTAMP() AS at").await;
    Scene { dir, source, central, proxy }
}

async fn scene(schema: Schema, manner: &'static str) -> Scene {
    scene_on(Mariadb::shared(), schema, manner).await
}

/// A row a minute of two nodes in location 509, these minutes before now, in order.
async fn rows(scene: &Scene, from_minutes: u32, to_minutes: u32, mark: u32) {
    let from = format!(
        "FROM (SELECT {from_minutes} - seq AS ago FROM seq_0_to_{}) AS steps, begun, (SELECT 1 AS node UNION SELECT 2) AS nodes",
        from_minutes - to_minutes
    );
    scene
        .source
        .run(&format!(
            "INSERT INTO Reading (time, nodeId, type, locationId, value) \
             SELECT at - INTERVAL ago MINUTE + INTERVAL {mark} SECOND, node, kind, 509, {mark} + ago {from}, (SELECT 0 AS kind UNION SELECT 2) AS kinds;
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num) SELECT at - INTERVAL ago MINUTE + INTERVAL {mark} SECOND, node, {mark}, ago, ago % 256 {from} ORDER BY 1"
        ))
        .await;
}

fn gateway(scene: &Scene) -> Gateway {
    scene.gateway().with_source("poll_interval", "200ms").with_source("audit_interval", "1s")
}

async fn once(gateway: &Gateway) {
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
}

/// Rows of the source that are not at the centre, are there twice, or in a wrong room.
async fn assert_nothing_lost_or_doubled(scene: &Scene) -> (i64, i64) {
    let it = scene.compare().await;
    assert_eq!(
        (
            it.readings.lost,
            it.node_states.lost,
            it.readings.duplicated,
            it.node_states.duplicated,
            it.wrong_rooms,
            it.wrong_values
        ),
        (0, 0, 0, 0, 0, 0),
        "{it}"
    );
    (it.readings.foreign, it.node_states.foreign)
}

async fn restored_from_a_backup(schema: Schema, manner: &'static str) {
    let scene = scene(schema, manner).await;
    let gateway = gateway(&scene);
    rows(&scene, 3_000, 1_000, 1).await;
    once(&gateway).await;
    scene
        .source
        .run("CREATE TABLE reading_backup AS SELECT * FROM Reading; CREATE TABLE state_backup AS SELECT * FROM NodeState")
        .await;
    rows(&scene, 999, 500, 2).await;
    once(&gateway).await;
    scene.compare().await.assert_equal();
    // Restored, and other rows took the ids of those that are lost.
    scene
        .source
        .run("TRUNCATE Reading; TRUNCATE NodeState; INSERT INTO Reading SELECT * FROM reading_backup; INSERT INTO NodeState SELECT * FROM state_backup")
        .await;
    rows(&scene, 450, 20, 3).await;
    once(&gateway).await;
    let (readings, states) = assert_nothing_lost_or_doubled(&scene).await;
    assert_eq!((readings, states), (2_000, 1_000), "what the source lost stays at the centre");
    // And life goes on.
    rows(&scene, 19, 1, 4).await;
    once(&gateway).await;
    assert_nothing_lost_or_doubled(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_restored_from_a_backup_loses_nothing_and_doubles_nothing() {
    restored_from_a_backup(Schema::classic(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_node_states_have_no_id_and_at_a_legacy_server() {
    restored_from_a_backup(Schema::newest(), "legacy").await;
}

/// Such a server knows neither generations nor ids of ours: it is asked for each state that may be there, by what is in it.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_at_a_legacy_server_that_stores_a_repeat_twice() {
    restored_from_a_backup(Schema::classic(), "legacy-old").await;
    restored_from_a_backup(Schema::newest(), "legacy-old").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_was_emptied_and_filled_again_while_packhorse_was_off_loses_nothing() {
    for (schema, manner) in [
        (Schema::classic(), "packhorse"),
        (Schema::newest(), "packhorse"),
        (Schema::classic(), "legacy-old"),
        (Schema::newest(), "legacy"),
    ] {
        let scene = scene(schema, manner).await;
        let gateway = gateway(&scene);
        rows(&scene, 3_000, 1_000, 1).await;
        once(&gateway).await;
        scene.source.run("TRUNCATE Reading; TRUNCATE NodeState").await;
        // More than there were, older ones among them, with the ids of the old ones.
        rows(&scene, 9_000, 3_001, 2).await;
        rows(&scene, 900, 10, 3).await;
        once(&gateway).await;
        assert_eq!(assert_nothing_lost_or_doubled(&scene).await, (8_004, 4_002));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_is_not_taken_for_another_database() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene);
    rows(&scene, 3_000, 1_000, 1).await;
    once(&gateway).await;
    for minutes in [2_900, 2_000, 1_010] {
        let prune = format!(
            "DELETE FROM Reading WHERE time < (SELECT at - INTERVAL {minutes} MINUTE FROM begun); DELETE FROM NodeState WHERE time < (SELECT at - INTERVAL {minutes} MINUTE FROM begun)"
        );
        scene.source.run(&prune).await;
        let log = gateway.output(&["run", "--once"]).await;
        let log = String::from_utf8_lossy(&log.stderr).into_owned();
        assert!(!log.contains("new generation"), "{log}");
    }
    assert_nothing_lost_or_doubled(&scene).await;
}

/// The program is running all the while: it must not first read on where it stood.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_emptied_and_filled_again_under_the_running_program_loses_nothing() {
    for schema in [Schema::classic(), Schema::newest()] {
        let scene = scene(schema, "packhorse").await;
        let gateway = gateway(&scene);
        let mut daemon = gateway.spawn(&["-q", "run"]);
        rows(&scene, 3_000, 1_000, 1).await;
        scene.wait_until_equal("the rows that were there").await;
        let kept = "CREATE TABLE kept_Reading AS SELECT * FROM Reading; CREATE TABLE kept_NodeState AS SELECT * FROM NodeState; TRUNCATE Reading; TRUNCATE NodeState";
        scene.source.run(kept).await;
        rows(&scene, 9_000, 3_001, 2).await;
        rows(&scene, 900, 10, 3).await;
        let began = Instant::now();
        loop {
            let it = scene.compare().await;
            if it.readings.lost + it.node_states.lost == 0 {
                break;
            }
            assert!(began.elapsed() < Duration::from_mins(3), "{it}");
            sleep(Duration::from_millis(300)).await;
        }
        daemon.terminate().await;
        assert_eq!(assert_nothing_lost_or_doubled(&scene).await, (8_004, 4_002));
    }
}

/// How many readings the centre has in each house.
async fn houses(scene: &Scene) -> Vec<(String, i64)> {
    let mut file = SqliteConnectOptions::new().filename(scene.central.database()).read_only(true).connect().await.unwrap();
    let sql = "SELECT House.address, COUNT(*) FROM Reading JOIN Location ON Location.id = Reading.locationId JOIN House ON House.id = Location.houseId GROUP BY 1 ORDER BY 1";
    let rows = sqlx::query(sql).fetch_all(&mut file).await.unwrap();
    rows.into_iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_houses_database_in_its_place_puts_no_row_into_a_wrong_room() {
    for (schema, manner) in [(Schema::classic(), "packhorse"), (Schema::newest(), "legacy"), (Schema::classic(), "legacy-old")] {
        let mut scene = scene(schema, manner).await;
        let gateway = gateway(&scene);
        rows(&scene, 3_000, 2_000, 1).await;
        once(&gateway).await;
        let first = houses(&scene).await;
        assert_eq!(first.len(), 1);
        // Some rows wait when the database is replaced.
        scene.proxy.cut().await;
        rows(&scene, 1_999, 1_000, 2).await;
        assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
        replace(&scene).await;
        assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
        scene.proxy.restore().await;
        once(&gateway).await;
        assert_in_the_houses_that_they_are_of(&scene, &first[0].0).await;
        scene.central.kill();
    }
}

/// Puts another house's database in the place of this one.
async fn replace(scene: &Scene) {
    scene
        .source
        .run("TRUNCATE Reading; TRUNCATE NodeState; UPDATE House SET address = CONCAT('9 Other Street ', id); UPDATE Room SET name = CONCAT('other ', id)")
        .await;
    rows(scene, 2_500, 5, 3).await;
}

/// The rows of the house of before and of the one in its place, and every one of them.
async fn assert_in_the_houses_that_they_are_of(scene: &Scene, before: &str) {
    let comparison = scene.compare().await;
    assert_eq!((comparison.readings.lost, comparison.node_states.lost, comparison.wrong_rooms), (0, 0, 0), "{comparison}");
    let houses = houses(scene).await;
    let other: i64 = houses.iter().filter(|(address, _)| address.starts_with("9 Other")).map(|(_, count)| count).sum();
    let old: i64 = houses.iter().filter(|(address, _)| address == before).map(|(_, count)| count).sum();
    assert_eq!((other, old), (2_496 * 4, 2_001 * 4), "{houses:?}");
}

/// Rows of it up to the watermarks of the one before would be taken for that one's, and its rooms for those of what waits.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_another_database_is_queued_again_or_mended_into_what_waits_of_the_one_before() {
    let scene = scene(Schema::classic(), "packhorse").await;
    let gateway = gateway(&scene);
    rows(&scene, 3_000, 2_000, 1).await;
    once(&gateway).await;
    let first = houses(&scene).await;
    scene.proxy.cut().await;
    rows(&scene, 1_999, 1_000, 2).await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    replace(&scene).await;
    scene.proxy.restore().await;
    for command in [&["queue", "rewind", "--since", "beginning", "--yes"][..], &["reconcile", "--mend", "--yes"]] {
        let refused = gateway.output(command).await;
        assert_exit(&refused, 1);
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(text.contains("the database is not the one that"), "{command:?}: {text}");
    }
    once(&gateway).await;
    assert_in_the_houses_that_they_are_of(&scene, &first[0].0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_dated_1970_tomorrow_2038_and_null_arrive_once() {
    for schema in [Schema::classic(), Schema::newest()] {
        let scene = scene(schema, "packhorse").await;
        let gateway = gateway(&scene);
        rows(&scene, 300, 10, 1).await;
        let mut daemon = gateway.spawn(&["-q", "run"]);
        scene.wait_until_equal("the rows that were there").await;
        for time in
            ["'1970-01-01 00:00:01'", "UTC_TIMESTAMP() + INTERVAL 1 DAY", "'2038-01-19 03:14:08'", "'9999-12-31 23:59:59'"]
        {
            scene
                .source
                .run(&format!(
                    "INSERT INTO Reading (time, nodeId, type, value) VALUES ({time}, 1, 0, 1); \
                     INSERT INTO NodeState (time, nodeId, seq_num) VALUES ({time}, 1, 0)"
                ))
                .await;
        }
        if schema.nodestate_id {
            scene
                .source
                .run("INSERT INTO NodeState (time, nodeId, seq_num) VALUES (NULL, 1, 0), (UTC_TIMESTAMP(), NULL, 0)")
                .await;
        }
        scene
            .source
            .run("INSERT INTO Reading (time, nodeId, type, value) VALUES (UTC_TIMESTAMP(), 2, 0, 1); INSERT INTO NodeState (time, nodeId, seq_num) VALUES (UTC_TIMESTAMP(), 2, 0)")
            .await;
        let began = Instant::now();
        while scene.compare().await.readings.lost > 0 {
            assert!(began.elapsed() < Duration::from_mins(1), "readings");
            sleep(Duration::from_millis(300)).await;
        }
        sleep(Duration::from_secs(2)).await;
        daemon.terminate().await;
        let comparison = scene.compare().await;
        // A state without a time or a node cannot be at a server: it is set aside or refused, and told.
        let odd = if schema.nodestate_id { 2 } else { 0 };
        assert!(comparison.node_states.lost <= odd && comparison.node_states.duplicated == 0, "{comparison}");
        assert_eq!((comparison.readings.duplicated, comparison.readings.foreign), (0, 0), "{comparison}");
    }
}
