//! Rows that the real receiver, in its legacy manners, refuses or cannot hold: they alone are parked, and nothing when it is the server that is at
//! fault. Counted by SQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use packhorse::{
    domain::{Rows, Stream},
    outbox::{Outbox, Reason},
};
use support::{Scene, Schema, assert_exit, gateway::Gateway};
use tokio::time::{Instant, sleep};

/// The refused rows of a gateway that has ended, with their reasons.
async fn parked(gateway: &Gateway) -> Vec<(String, Rows)> {
    let path = gateway.data_dir().join("central");
    let outbox = tokio::task::spawn_blocking(move || Outbox::open_existing(&path).unwrap().unwrap()).await.unwrap();
    let chunks = outbox.parked(usize::MAX).await.unwrap();
    let found = chunks.into_iter().map(|chunk| match chunk.parked.reason {
        Reason::Refused(why) => (why, chunk.rows),
        Reason::Held(what) => panic!("held for {what}"),
    });
    let found = found.collect();
    tokio::task::spawn_blocking(move || drop(outbox)).await.unwrap();
    found
}

fn count(parked: &[(String, Rows)], stream: Stream) -> i64 {
    parked.iter().filter(|(_, rows)| rows.stream() == stream).map(|(_, rows)| rows.len() as i64).sum()
}

/// Makes the central database refuse what a condition says.
async fn refuse(scene: &mut Scene, table: &str, condition: &str) {
    let trigger = format!(
        "CREATE TRIGGER refuse{table} BEFORE INSERT ON {table} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
    );
    scene.central_sql(&trigger).await;
}

async fn a_node_is_refused(manner: &'static str, schema: Schema) {
    let Some(mut scene) = Scene::set(schema, manner, 4_000).await else { return };
    let node = scene.source.number("SELECT nodeId FROM Reading GROUP BY nodeId ORDER BY COUNT(*) DESC, nodeId LIMIT 1").await;
    refuse(&mut scene, "Reading", &format!("NEW.nodeId = {node}")).await;
    refuse(&mut scene, "NodeState", &format!("NEW.nodeId = {node}")).await;
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "120s"]).await, 1);
    let requests = scene.proxy.requests_of("/rest/bulk/");
    let parked = parked(&gateway).await;
    let comparison = scene.compare().await;
    println!("{manner}: {requests} bulk requests");
    for (table, counts, stream) in
        [("Reading", &comparison.readings, Stream::Reading), ("NodeState", &comparison.node_states, Stream::NodeState)]
    {
        let bad = scene.source.number(&format!("SELECT COUNT(*) FROM {table} WHERE nodeId = {node}")).await;
        assert!(bad > 50, "{bad}");
        assert_eq!((counts.lost, counts.duplicated, counts.foreign, count(&parked, stream)), (bad, 0, 0, bad), "{table}");
    }
    for (why, rows) in &parked {
        assert!(why.contains("status 500") && why.contains("server error occurred"), "{why}");
        assert!((0..rows.len()).all(|row| rows.bucket(row).unwrap().0 == node));
    }
    assert!(requests <= 45, "{requests} bulk requests for both streams and the sensors");
    // When the cause is gone an operator has them tried again.
    scene.central_sql("DROP TRIGGER refuseReading; DROP TRIGGER refuseNodeState").await;
    assert_exit(&gateway.output(&["queue", "parked", "retry", "--all", "--yes"]).await, 0);
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "120s"]).await, 0);
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_node_that_the_newer_legacy_server_refuses_are_parked_and_the_rest_is_delivered() {
    a_node_is_refused("legacy", Schema::newest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_node_that_the_older_legacy_server_refuses_are_parked_and_the_rest_is_delivered() {
    a_node_is_refused("legacy-old", Schema::classic()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_rows_that_the_source_has_pruned_meanwhile_are_kept() {
    for schema in [Schema::classic(), Schema::newest()] {
        let mut scene = Scene::without_rows(schema, "legacy").await;
        let rows = "INSERT INTO Reading (time, nodeId, type, locationId, value) SELECT '2024-01-01' + INTERVAL seq * 600 SECOND, node, 0, 509, seq FROM seq_1_to_300, (SELECT 1 AS node UNION SELECT 2) AS nodes;
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num) SELECT '2024-01-01' + INTERVAL seq * 600 SECOND, node, 0, seq, 0 FROM seq_1_to_300, (SELECT 1 AS node UNION SELECT 2) AS nodes ORDER BY 1";
        scene.source.run(rows).await;
        for table in ["Reading", "NodeState"] {
            refuse(&mut scene, table, "NEW.nodeId = 2 AND NEW.time < '2024-01-02'").await;
        }
        let gateway = scene.gateway().with_env("PACKHORSE_TEST_WALK_OFTEN", "1");
        assert_exit(&gateway.output(&["run", "--once", "--deadline", "280s"]).await, 1);
        let before = parked(&gateway).await;
        let refused = scene.source.number("SELECT COUNT(*) FROM Reading WHERE nodeId = 2 AND time < '2024-01-02'").await;
        assert_eq!([Stream::Reading, Stream::NodeState].map(|stream| count(&before, stream)), [refused, refused]);
        // Pruned, with an hour that only loses some of them; then everything is emptied.
        for prune in ["time < '2024-01-01 20:30:00'", "time < '2024-01-02 12:00:00'", "TRUE"] {
            scene.source.run(&format!("DELETE FROM Reading WHERE {prune}; DELETE FROM NodeState WHERE {prune}")).await;
            assert_exit(&gateway.output(&["run", "--once", "--deadline", "280s"]).await, 1);
            let still: Vec<_> = parked(&gateway).await;
            assert_eq!(still, before, "{prune}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_database_that_takes_nothing_gets_nothing_parked() {
    let Some(mut scene) = Scene::set(Schema::classic(), "legacy-old", 3_000).await else { return };
    refuse(&mut scene, "Reading", "1").await;
    refuse(&mut scene, "NodeState", "1").await;
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "15s"]).await, 1);
    assert_eq!(parked(&gateway).await.len(), 0);
    scene.central_sql("DROP TRIGGER refuseReading; DROP TRIGGER refuseNodeState").await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "120s"]).await, 0);
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_in_the_middle_of_isolation_lose_and_double_nothing() {
    let Some(mut scene) = Scene::set(Schema::classic(), "legacy-old", 6_000).await else { return };
    refuse(&mut scene, "NodeState", "NEW.rowid % 1 = 0 AND NEW.localtime % 7 = 0").await;
    let bad = scene.source.number("SELECT COUNT(*) FROM NodeState WHERE `localtime` % 7 = 0").await;
    let gateway = scene.gateway();
    for kill in 0..12_usize {
        let mut running = gateway.spawn(&["-q", "run"]);
        let (bulks, began) = (scene.proxy.requests_of("/rest/bulk/"), Instant::now());
        let (first, mut requests, mut quiet_since) = (scene.proxy.requests_of("/rest/"), 0, began);
        while scene.proxy.requests_of("/rest/bulk/") < bulks + 3 + kill * 5 && began.elapsed() < Duration::from_secs(8) {
            sleep(Duration::from_millis(3)).await;
            let now = scene.proxy.requests_of("/rest/") - first;
            if now != requests {
                (requests, quiet_since) = (now, Instant::now());
            } else if requests > 0 && quiet_since.elapsed() > Duration::from_secs(3) {
                // It has nothing more to ask.
                break;
            }
        }
        running.kill();
        while scene.proxy.is_at_work() {
            sleep(Duration::from_millis(3)).await;
        }
    }
    // Later states come, so that something can be accepted after the last refusals.
    scene.source.run("INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) VALUES ('2025-01-01', 100, 1, 1, 1, -70), ('2025-01-02', 100, 1, 2, 2, -70)").await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "200s"]).await, 1);
    let parked = parked(&gateway).await;
    let comparison = scene.compare().await;
    assert_eq!((comparison.node_states.duplicated, comparison.node_states.foreign), (0, 0), "{comparison}");
    assert_eq!((comparison.node_states.lost, count(&parked, Stream::NodeState)), (bad, bad), "{comparison}");
    assert_eq!((comparison.readings.lost, comparison.readings.duplicated), (0, 0), "{comparison}");
}

/// Rows of one second, of whole seconds and with a fraction, in two runs of the program.
async fn rows_of_one_second(manner: &'static str) -> Option<(Scene, Vec<(String, Rows)>)> {
    let schema = Schema { fraction: true, ..Schema::classic() };
    let scene = Scene::set(schema, manner, 1_000).await?;
    let gateway = scene.gateway();
    scene
        .source
        .run(
            "INSERT INTO Reading (time, nodeId, type, value) VALUES
                ('2025-01-01 00:00:05', 100, 0, 1), ('2025-01-01 00:00:05.25', 100, 0, 2), ('2025-01-01 00:00:05.5', 100, 0, 3),
                ('2025-01-01 00:00:05.5', 100, 2, 4), ('2025-01-01 00:00:06.25', 100, 0, 5);
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) VALUES
                ('2025-01-01 00:00:05', 100, 1, 1, 7, -70), ('2025-01-01 00:00:05', 100, 1, 2, 7, -71),
                ('2025-01-01 00:00:06', 100, 1, 3, NULL, -72), ('2025-01-01 00:00:06', 100, 1, 4, NULL, -73),
                ('2025-01-01 00:00:06', 100, 1, 5, 8, -74)",
        )
        .await;
    gateway.output(&["run", "--once", "--deadline", "60s"]).await;
    scene
        .source
        .run(
            "INSERT INTO Reading (time, nodeId, type, value) VALUES
                ('2025-01-01 00:00:06.75', 100, 0, 6), ('2025-01-01 00:00:07.75', 100, 0, 7);
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) VALUES
                ('2025-01-01 00:00:06.5', 100, 1, 6, 8, -75), ('2025-01-01 00:00:07', 100, 1, 7, 9, -76)",
        )
        .await;
    let output = gateway.output(&["run", "--once", "--deadline", "60s"]).await;
    let parked = parked(&gateway).await;
    assert_exit(&output, i32::from(!parked.is_empty()));
    Some((scene, parked))
}

/// Source rows, those that differ by the destination's key, parked and arrived; printed.
async fn figures(scene: &Scene, parked: &[(String, Rows)], stream: Stream) -> [i64; 4] {
    let (table, key) = match stream {
        Stream::Reading => ("Reading", "nodeId, type"),
        Stream::NodeState => ("NodeState", "nodeId, IFNULL(seq_num, 0)"),
    };
    let distinct =
        format!("SELECT COUNT(*) FROM (SELECT 1 FROM {table} GROUP BY DATE_FORMAT(time, '%Y-%m-%d %H:%i:%s'), {key}) AS d");
    scene.compare().await;
    let figures = [
        scene.source.number(&format!("SELECT COUNT(*) FROM {table}")).await,
        scene.source.number(&distinct).await,
        count(parked, stream),
        scene.source.number(&format!("SELECT COUNT(*) FROM central_{table}")).await,
    ];
    println!(
        "{table}: source {}, distinct by the destination's key {}, parked {}, arrived {}",
        figures[0], figures[1], figures[2], figures[3]
    );
    figures
}

/// The values of the readings that arrived.
async fn first_values(scene: &Scene) -> i64 {
    scene.source.number("SELECT CAST(SUM(value) AS SIGNED) FROM central_Reading WHERE time >= '2025-01-01'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rows_of_one_second_the_newer_legacy_server_gets_the_first_and_the_others_are_parked() {
    let Some((scene, parked)) = rows_of_one_second("legacy").await else { return };
    for stream in Stream::ALL {
        let [source, distinct, parked, arrived] = figures(&scene, &parked, stream).await;
        assert_eq!((source - distinct, arrived), (parked, distinct), "{stream}");
        assert_eq!(parked, 3, "{stream}");
    }
    assert_eq!(first_values(&scene).await, 1 + 4 + 5 + 7, "the first of each second");
    let first = scene.source.number("SELECT CAST(SUM(rssi) AS SIGNED) FROM central_NodeState WHERE time >= '2025-01-01'").await;
    assert_eq!(first, -70 - 72 - 74 - 76);
    assert!(parked.iter().all(|(why, _)| why.contains("cannot hold both")), "{parked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_rows_of_one_second_the_older_legacy_server_gets_the_first_reading_and_every_node_state() {
    let Some((scene, parked)) = rows_of_one_second("legacy-old").await else { return };
    let [source, distinct, of_readings, arrived] = figures(&scene, &parked, Stream::Reading).await;
    assert_eq!((source - distinct, arrived, of_readings), (of_readings, distinct, 3));
    assert_eq!(first_values(&scene).await, 1 + 4 + 5 + 7);
    let [source, _, of_states, arrived] = figures(&scene, &parked, Stream::NodeState).await;
    assert_eq!((of_states, arrived), (0, source));
}

#[tokio::test(flavor = "multi_thread")]
async fn our_receiver_holds_all_rows_of_one_second() {
    let Some((scene, parked)) = rows_of_one_second("packhorse").await else { return };
    assert!(parked.is_empty());
    scene.compare().await.assert_equal();
}
