//! Kills and cut links among the node states: none is lost, and where the server merges a repeated one, none is doubled.

use super::*;

const READINGS: u32 = 240;
const STATES: u32 = 12_000;

async fn mostly_states(manner: &'static str) -> (Scene, Gateway) {
    let scene = Scene::without_rows(Schema::classic(), manner).await;
    add_readings(&scene.source, 0, READINGS).await;
    add_states(&scene.source, 0, STATES).await;
    let gateway = scene.gateway().with_request_max("4KiB");
    (scene, gateway)
}

/// Ends the program again and again, each time after some more requests.
async fn kills(scene: &Scene, gateway: &Gateway) {
    for kill in 0..4 {
        let mut daemon = gateway.spawn(&["-q", "run"]);
        requests(scene, scene.proxy.requests_of("/rest/bulk/") + 2 + kill).await;
        assert!(!daemon.ended());
        daemon.kill();
    }
    let comparison = scene.compare().await;
    let states = &comparison.node_states;
    assert!(states.arrived > 0 && states.lost > 0, "it was killed among the node states:\n{comparison}");
}

/// Cuts the link again and again, once with the answer to a stored request, while the program runs.
async fn cuts(scene: &Scene, gateway: &Gateway) -> Running {
    let mut daemon = gateway.spawn(&["-q", "run"]);
    for cut in 0..3 {
        requests(scene, scene.proxy.requests_of("/rest/bulk/") + 2 + cut).await;
        if cut == 1 {
            scene.proxy.lose_next_answer_of("/rest/bulk/");
            while scene.proxy.answers_lost() == 0 {
                sleep(Duration::from_millis(5)).await;
            }
        }
        scene.proxy.cut().await;
        sleep(Duration::from_millis(200)).await;
        assert!(!daemon.ended());
        scene.proxy.restore().await;
    }
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_among_the_node_states_loses_none_and_doubles_none() {
    let (scene, gateway) = mostly_states("legacy").await;
    kills(&scene, &gateway).await;
    send_all(&gateway).await;
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_dropped_among_the_node_states_loses_none_and_doubles_none() {
    let (scene, gateway) = mostly_states("legacy").await;
    let mut daemon = cuts(&scene, &gateway).await;
    all_arrives(&scene, &mut daemon).await;
    assert_eq!(scene.proxy.answers_lost(), 1);
}

/// No row lost, whatever becomes of repeats.
async fn none_is_lost_at_an_older_server(scene: &Scene, gateway: &Gateway) -> Comparison {
    send_all(gateway).await;
    let comparison = scene.compare().await;
    assert_eq!(
        (comparison.node_states.lost, comparison.readings.lost, comparison.readings.duplicated),
        (0, 0, 0),
        "{comparison}"
    );
    comparison
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_among_the_node_states_loses_none_at_an_older_server() {
    let (scene, gateway) = mostly_states("legacy-old").await;
    kills(&scene, &gateway).await;
    none_is_lost_at_an_older_server(&scene, &gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_among_the_node_states_doubles_none_at_an_older_server() {
    let (scene, gateway) = mostly_states("legacy-old").await;
    kills(&scene, &gateway).await;
    none_is_lost_at_an_older_server(&scene, &gateway).await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_dropped_among_the_node_states_doubles_none_at_an_older_server() {
    let (scene, gateway) = mostly_states("legacy-old").await;
    let mut daemon = cuts(&scene, &gateway).await;
    all_arrives(&scene, &mut daemon).await;
}
