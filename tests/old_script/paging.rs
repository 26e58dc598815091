//! Where a page or a request ends among rows of one second.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_in_the_same_second_as_the_last_one_sent_arrives() {
    let scene = legacy().await;
    let gateway = scene.gateway();
    scene.source.run("INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES ('2026-01-01', 1, 0, 509, 1)").await;
    send_all(&gateway).await;
    // Of the same node by another sensor, and of another node.
    let same = "INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES ('2026-01-01', 1, 2, 509, 2), ('2026-01-01', 2, 0, 503, 3)";
    scene.source.run(same).await;
    send_all(&gateway).await;
    let comparison = scene.compare().await;
    comparison.assert_equal();
    assert_eq!(comparison.readings.arrived, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_1_s_after_the_last_one_sent_arrives() {
    let scene = legacy().await;
    let gateway = scene.gateway();
    for second in 0..3 {
        let next = format!(
            "INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES ('2026-01-01 00:00:0{second}', 1, 0, 509, {second});
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) VALUES ('2026-01-01 00:00:0{second}', 1, 0, 1, {second}, 1)"
        );
        scene.source.run(&next).await;
        send_all(&gateway).await;
    }
    let comparison = scene.compare().await;
    comparison.assert_equal();
    assert_eq!((comparison.readings.arrived, comparison.node_states.arrived), (3, 3));
}

/// The old script asked for 500 rows a page. Here a request of 2 KiB holds some hundreds.
#[tokio::test(flavor = "multi_thread")]
async fn of_9120_readings_and_9120_node_states_in_small_requests_none_is_lost() {
    for schema in [Schema::classic(), Schema::newest()] {
        let scene = Scene::without_rows(schema, "legacy").await;
        add_readings(&scene.source, 0, 9_120).await;
        add_states(&scene.source, 0, 9_120).await;
        send_all(&scene.gateway().with_request_max("2KiB")).await;
        let comparison = scene.compare().await;
        comparison.assert_equal();
        assert_eq!((comparison.readings.arrived, comparison.node_states.arrived), (9_120, 9_120));
        assert!(scene.proxy.requests_of("/rest/bulk/") >= 36, "{}", scene.proxy.requests_of("/rest/bulk/"));
    }
}

/// Several pages of capture each, and requests as large as they come. With PACKHORSE_LONG 400,000 and 80,000.
#[tokio::test(flavor = "multi_thread")]
async fn of_400_000_readings_and_80_000_node_states_all_arrive() {
    let scale = if std::env::var_os("PACKHORSE_LONG").is_some() { 1 } else { 10 };
    let (readings, states) = (400_000 / scale, 80_000 / scale);
    let scene = legacy().await;
    add_readings(&scene.source, 0, readings).await;
    add_states(&scene.source, 0, states).await;
    send_all(&scene.gateway()).await;
    let comparison = scene.compare().await;
    comparison.assert_equal();
    assert_eq!((comparison.readings.arrived, comparison.node_states.arrived), (i64::from(readings), i64::from(states)));
}
