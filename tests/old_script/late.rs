//! Rows that are committed when later ones have been sent already.

use super::*;

/// The daemon looks at the recent past every poll, at the whole horizon every audit interval.
fn often(scene: &Scene) -> Gateway {
    let gateway = scene.gateway();
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    std::fs::write(gateway.config(), config.replace("settle = ", "audit_interval = \"1s\"\nsettle = ")).unwrap();
    gateway
}

/// Rows up to an hour ago have been sent when `late` is committed; it arrives.
async fn arrives_though_late(late: &str) {
    let scene = legacy().await;
    let gateway = often(&scene);
    let rows = "INSERT INTO Reading (time, nodeId, type, locationId, value)
                    SELECT UTC_TIMESTAMP() - INTERVAL 60 + seq MINUTE, 1, 0, 509, seq FROM seq_0_to_200;
                INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                    SELECT UTC_TIMESTAMP() - INTERVAL 60 + seq MINUTE, 1, 0, seq, seq, -70 FROM seq_0_to_200";
    scene.source.run(rows).await;
    let mut daemon = gateway.spawn(&["-q", "run"]);
    all_arrives(&scene, &mut daemon).await;
    scene.source.run(late).await;
    all_arrives(&scene, &mut daemon).await;
    daemon.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_committed_late_with_an_older_time_arrives() {
    arrives_though_late(
        "INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES (UTC_TIMESTAMP() - INTERVAL 150 MINUTE, 2, 0, 503, 1)",
    )
    .await;
}

/// The same second as one that was sent, and before it in the order of the key.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_committed_late_in_the_same_second_with_a_lower_key_arrives() {
    // Node 1 of the rows that were sent is the lowest: this one comes before it.
    arrives_though_late(
        "INSERT INTO Node (id) VALUES (0);
         INSERT INTO Reading (time, nodeId, type, locationId, value) SELECT MAX(time), 0, 0, NULL, 1 FROM Reading",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_node_with_48_older_readings_arrives() {
    arrives_though_late(
        "INSERT INTO Node (id, locationId) VALUES (12, 521);
         INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT UTC_TIMESTAMP() - INTERVAL 2 HOUR - INTERVAL 5 * seq MINUTE, 12, 0, 521, seq FROM seq_1_to_48",
    )
    .await;
}
