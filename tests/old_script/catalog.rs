//! What rows point to: nothing of it stops other rows, and none comes into another room.

use super::*;

/// The nodes of the houses in which the node with the type does not stand come after it.
async fn rows_of_all_houses(source: &Database) {
    add_readings(source, 0, 480).await;
    add_states(source, 0, 80).await;
    let more = "INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES ('2026-01-01', 11, 0, 501, 1), ('2026-01-02', 11, 0, 501, 2)";
    source.run(more).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_node_type_that_the_server_lacks_stops_no_house() {
    for manner in ["legacy", "legacy-old"] {
        let scene = Scene::without_rows(Schema::classic(), manner).await;
        scene.source.run("INSERT INTO NodeType (id, name, seq) VALUES (9, 'CurrentCost', 1); UPDATE Node SET nodeTypeId = 9 WHERE id IN (1, 3)").await;
        rows_of_all_houses(&scene.source).await;
        send_all(&scene.gateway()).await;
        scene.compare().await.assert_equal();
    }
}

/// Its own rows are held until the conflict is mended; all others arrive.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_type_is_another_one_at_the_server_stops_no_house() {
    let mut scene = legacy().await;
    let typed = "INSERT INTO NodeType (id, name, seq) VALUES (9, 'CurrentCost', 1); UPDATE Node SET nodeTypeId = 9 WHERE id = 1";
    scene.source.run(typed).await;
    scene.central_sql("INSERT INTO NodeType (id, name, seq) VALUES (9, 'Base', 4)").await;
    rows_of_all_houses(&scene.source).await;
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "60s"]).await, 1);
    let held = scene.source.number("SELECT COUNT(*) FROM Reading WHERE nodeId = 1").await;
    let comparison = scene.compare().await;
    assert_eq!((comparison.readings.lost, comparison.wrong_rooms), (held, 0), "{comparison}");
    scene.central_sql("UPDATE NodeType SET name = 'CurrentCost', seq = 1 WHERE id = 9").await;
    send_all(&gateway).await;
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_location_are_sent() {
    let scene = legacy().await;
    let rows = "INSERT INTO Reading (time, nodeId, type, locationId, value)
                    SELECT '2026-01-01' + INTERVAL seq MINUTE, IF(seq % 2, 1, 100), 0, NULL, seq FROM seq_1_to_50;
                INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                    SELECT '2026-01-01' + INTERVAL seq MINUTE, 100, 1, seq, seq, -70 FROM seq_1_to_50";
    scene.source.run(rows).await;
    send_all(&scene.gateway()).await;
    let comparison = scene.compare().await;
    comparison.assert_equal();
    assert_eq!((comparison.readings.arrived, comparison.node_states.arrived), (50, 50));
}

/// The centre has the same names, each under an id that means something else here: a mapping by number puts every row into another room.
#[tokio::test(flavor = "multi_thread")]
async fn names_equal_on_both_sides_under_different_ids_put_no_row_into_another_room() {
    let mut scene = legacy().await;
    let rotated = "INSERT INTO Deployment (id, name) VALUES (41, 'Elsewhere'), (43, 'Greenhouse');
         INSERT INTO House (id, deploymentId, address) VALUES (207, 43, '2 Greenhouse Row'), (203, 41, '3 Other Street'), (211, 43, '1 Greenhouse Row');
         INSERT INTO RoomType (id, name) VALUES (17, 'Wet'), (13, 'Living');
         INSERT INTO Room (id, roomTypeId, name) VALUES (31, 17, 'Kitchen'), (37, 17, 'Bathroom'), (33, 13, 'Bedroom');
         INSERT INTO Location (id, houseId, roomId) VALUES (509, 211, 31), (503, 211, 33), (521, 207, 37), (507, 207, 33), (533, 207, 31), (501, 203, 33)";
    scene.central_sql(rotated).await;
    rows_of_all_houses(&scene.source).await;
    send_all(&scene.gateway()).await;
    scene.compare().await.assert_equal();
    // All of it was there: nothing was made a second time.
    assert_eq!(scene.proxy.requests_of("POST /rest/house/") + scene.proxy.requests_of("POST /rest/room/"), 0);
    assert_eq!(scene.proxy.requests_of("POST /rest/location/"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_house_whose_server_row_is_not_there_is_made_all_the_same() {
    let scene = Scene::without_rows(Schema { house_serverid: true, ..Schema::classic() }, "legacy").await;
    scene.source.run("INSERT INTO Server (id, hostname) VALUES (77, 'gateway'); UPDATE House SET serverid = 77").await;
    rows_of_all_houses(&scene.source).await;
    send_all(&scene.gateway()).await;
    scene.compare().await.assert_equal();
}
