//! A bulk that is refused once was not stored, and a server that stalls is not waited for for ever.

use super::*;

/// One of several requests is answered so, by something in front of the server.
async fn one_bulk_is_answered(status: u16) {
    let scene = legacy().await;
    add_readings(&scene.source, 0, 5_030).await;
    add_states(&scene.source, 0, 500).await;
    let gateway = scene.gateway().with_request_max("4KiB");
    let mut daemon = gateway.spawn(&["-q", "run"]);
    requests(&scene, 3).await;
    scene.proxy.refuse_next_of("/rest/bulk/", status);
    let comparison = all_arrives(&scene, &mut daemon).await;
    assert_eq!((comparison.readings.arrived, comparison.node_states.arrived), (5_030, 500));
    assert_eq!(scene.proxy.tricks_played(), 1, "a request was refused");
    daemon.terminate().await;
    // Nothing was set aside either, and nothing is left.
    send_all(&gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_answered_503_once_is_sent_again() {
    one_bulk_is_answered(503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_answered_502_once_is_sent_again() {
    one_bulk_is_answered(502).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_answered_400_once_is_sent_again() {
    one_bulk_is_answered(400).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_answered_413_once_is_sent_again() {
    one_bulk_is_answered(413).await;
}

async fn one_request_is_stalled(path: &str) {
    let scene = legacy().await;
    add_readings(&scene.source, 0, 240).await;
    add_states(&scene.source, 0, 40).await;
    scene.proxy.stall_next_of(path);
    let gateway = scene.gateway().with_env("PACKHORSE_TEST_ANSWER_DEADLINE_SECONDS", "2");
    let mut daemon = gateway.spawn(&["-q", "run"]);
    all_arrives(&scene, &mut daemon).await;
    assert_eq!(scene.proxy.tricks_played(), 1, "{path}: a request was stalled");
    daemon.terminate().await;
}

/// The wait for an answer, a minute, is made short (debug builds only). Both while rows go out and while the catalog is asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_is_asked_again() {
    tokio::join!(one_request_is_stalled("/rest/bulk/"), one_request_is_stalled("/rest/house/"));
}

/// As it is delivered: no answer within the minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stalls_is_asked_again_after_the_real_deadline() {
    if std::env::var_os("PACKHORSE_LONG").is_none() {
        println!("SKIPPED: takes more than a minute; PACKHORSE_LONG=1 runs it");
        return;
    }
    let scene = legacy().await;
    add_readings(&scene.source, 0, 240).await;
    scene.proxy.stall_next_of("/rest/bulk/");
    let mut daemon = scene.gateway().spawn(&["-q", "run"]);
    all_arrives(&scene, &mut daemon).await;
    assert_eq!(scene.proxy.tricks_played(), 1);
}
