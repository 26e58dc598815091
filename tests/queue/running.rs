//! Beside a running daemon.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
};

use super::*;

fn socket(scene: &Scene) -> PathBuf {
    scene.dir.path().join("gateway/packhorse.sock")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_look_beside_a_running_daemon_is_right() {
    let scene = Scene::set().await;
    let mut daemon = scene.daemon().await;
    every_look_is_right(&scene).await;
    let status = scene.until(&["queue", "status", "--json"], |status| status["destinations"][0]["state"] == "waiting").await;
    let sentence = status["destinations"][0]["sentence"].as_str().unwrap();
    assert!(
        sentence.starts_with("waiting for the link since ") && sentence.contains("300 readings and 60 node states"),
        "{sentence}"
    );
    scene.says(&["queue", "status", "--alarm-depth", "359"], 1, "ALARM central: 360 records wait").await;
    scene.says(&["queue", "repair", "--yes"], 1, "stop it first").await;
    assert!(daemon.terminate().await.0.success());
    assert!(!socket(&scene).exists(), "the socket goes with the daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_keeps_rows_here_until_resumed_and_a_flush_skips_the_backoff() {
    let mut scene = Scene::set().await;
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let slow = config
        .replace("backoff_min = \"100ms\"", "backoff_min = \"10min\"")
        .replace("backoff_max = \"1s\"", "backoff_max = \"1h\"");
    std::fs::write(scene.gateway.config(), slow).unwrap();
    let _daemon = scene.daemon().await;
    scene.until(&["queue", "status", "--json"], |status| status["destinations"][0]["next_try_seconds"].as_u64().is_some()).await;
    scene.says(&["queue", "pause"], 0, "sending is paused").await;
    scene.says(&["queue", "flush"], 1, "resume` first").await;
    scene.central.restart().await;
    scene.says(&["queue", "resume"], 0, "sending goes on").await;
    let began = Instant::now();
    scene.says(&["queue", "flush"], 0, "tried now").await;
    scene.arrives().await;
    assert!(began.elapsed() < Duration::from_mins(1));

    // Paused while nothing waits: new rows stay.
    scene.says(&["queue", "pause"], 0, "sending is paused").await;
    scene.source.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2026-02-01', 1, 0, 5)").await;
    scene.until(&["queue", "status", "--json"], |status| status["destinations"][0]["pending"] == 1).await;
    sleep(Duration::from_secs(1)).await;
    let status = scene.json(&["queue", "status", "--json"]).await;
    assert_eq!((&status["destinations"][0]["pending"], &status["destinations"][0]["state"]), (&1.into(), &"paused".into()));
    scene.says(&["queue", "resume"], 0, "sending goes on").await;
    scene.arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_is_captured_again_beside_a_running_daemon() {
    let mut scene = Scene::set().await;
    scene.central.restart().await;
    let mut daemon = scene.gateway.spawn(&["-qq", "run"]);
    scene.arrives().await;
    scene.says(&["queue", "rewind", "--since", "beginning", "--yes"], 0, "360 rows since the beginning were queued again").await;
    let status = scene.until(&["queue", "status", "--json"], |status| status["destinations"][0]["pending"] == 0).await;
    assert_eq!(status["destinations"][0]["streams"][0]["acked"], 2 * READINGS, "{status}");
    daemon.terminate().await;
    scene.comparison().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_made_smaller_beside_a_running_daemon_and_a_disabled_destination_is_left_out() {
    let mut scene = Scene::set().await;
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let more = "\n[[destination]]\nname = \"later\"\nurl = \"http://127.0.0.1:1/rest/\"\nenabled = false\n";
    std::fs::write(scene.gateway.config(), config + more).unwrap();
    let _daemon = scene.daemon().await;
    let generation = || std::fs::read_to_string(scene.gateway.data_dir().join("central/CURRENT")).unwrap();
    let before = generation();
    let told = scene.says(&["queue", "compact"], 0, " before, ").await;
    assert!(told.contains("central: ") && !told.contains("later"), "{told}");
    assert_ne!(generation(), before, "other files are in use now");
    scene.says(&["queue", "verify"], 0, "360 records read").await;
    assert_eq!(scene.lines(&["queue", "list", "--json", "--limit", "100000"]).await.len() as u64, READINGS + STATES);
    scene.says(&["queue", "list", "--destination", "later"], 2, "does not serve destination 'later'").await;
    let told = scene.says(&["queue", "status"], 0, "later: disabled in the configuration, and it has no outbox").await;
    assert!(!told.contains("no outbox yet"), "{told}");
    std::fs::create_dir_all(scene.gateway.data_dir().join("later/gen-000001")).unwrap();
    std::fs::copy(scene.gateway.data_dir().join("central/CURRENT"), scene.gateway.data_dir().join("later/CURRENT")).unwrap();
    scene.says(&["queue", "status"], 0, "later: disabled in the configuration; its outbox keeps what is in it").await;
    let status = scene.json(&["queue", "status", "--json"]).await;
    assert_eq!(status["disabled"], serde_json::json!([{ "destination": "later", "has_outbox": true }]), "{status}");
    assert_eq!(status["without_outbox"], serde_json::json!([]), "{status}");
    scene.central.restart().await;
    scene.arrives().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_is_refused_and_a_socket_left_over_is_replaced() {
    let scene = Scene::set().await;
    let mut daemon = scene.daemon().await;
    assert_eq!(std::fs::metadata(socket(&scene)).unwrap().permissions().mode() & 0o777, 0o600);
    scene.says(&["run"], 1, "is in use by another packhorse").await;
    every_look_is_right(&scene).await;
    daemon.kill();
    assert!(socket(&scene).exists(), "a crash leaves it");
    scene.says(&["queue", "status"], 0, "packhorse is stopped").await;
    let _daemon = scene.gateway.spawn(&["-qq", "run"]);
    let began = Instant::now();
    while UnixStream::connect(socket(&scene)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "the socket is not replaced");
        sleep(Duration::from_millis(20)).await;
    }
    scene.until(&["queue", "status", "--json"], |status| status["destinations"][0]["state"] == "waiting").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_told_so_and_capture_and_delivery_go_on() {
    let mut scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    let path = socket(&scene);
    let talk = |bytes: Vec<u8>| {
        let mut line = UnixStream::connect(&path).unwrap();
        line.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = line.write_all(&bytes);
        let mut answer = String::new();
        let _ = line.read_to_string(&mut answer);
        answer
    };
    let call = |version: u16, data_dir: &str, destination: &str, request: &str| {
        format!("{{\"version\":{version},\"data_dir\":\"{data_dir}\",\"destination\":\"{destination}\",\"request\":{request}}}\n")
            .into_bytes()
    };
    let data_dir = scene.gateway.data_dir().display().to_string();
    for (garbled, words) in [
        (b"\n".to_vec(), "this is not a request"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "this is not a request"),
        (vec![0xff; 100_000], "this is not a request"),
        (vec![b'x'; 200_000], "this is not a request"),
        (call(9, &data_dir, "central", "\"status\""), "restart the daemon"),
        (call(1, "/elsewhere", "central", "\"status\""), "give each its own status.socket"),
        (call(1, &data_dir, "other", "\"status\""), "does not serve destination 'other'"),
        (call(1, &data_dir, "central", "\"explode\""), "this is not a request"),
        (call(1, &data_dir, "central", "{\"list\":[{\"color\":1},5]}"), "this is not a request"),
    ] {
        let answer = talk(garbled.clone());
        // A sender of too much may be cut off before it can read.
        assert!(answer.contains(words) || (garbled.len() > 70_000 && answer.is_empty()), "{answer}");
    }
    // Many that say nothing, and one that does not read.
    let silent: Vec<_> = (0..10).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let mut deaf = UnixStream::connect(&path).unwrap();
    deaf.write_all(&call(1, &data_dir, "central", "{\"list\":[{},100000]}")).unwrap();
    scene.says(&["queue", "status"], 0, "360 records").await;
    scene.central.restart().await;
    scene.arrives().await;
    drop((silent, deaf));
}
