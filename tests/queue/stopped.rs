//! On an outbox whose daemon is stopped.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_look_at_a_stopped_outbox_is_right_and_changes_nothing() {
    let mut scene = Scene::captured().await;
    every_look_is_right(&scene).await;
    let status = scene.json(&["queue", "status", "--json"]).await;
    assert_eq!(status["destinations"][0]["state"], "stopped");
    let told = scene.says(&["queue", "status", "--critical-age", "1s"], 2, "CRITICAL central").await;
    assert!(told.starts_with("CRITICAL"), "monitoring shows the first line: {told}");
    scene.says(&["queue", "flush"], 3, "packhorse is stopped").await;
    scene.says(&["queue", "repair"], 0, "is whole").await;

    // A pause stays through the start of a daemon, and a run with an end ends.
    scene.says(&["queue", "pause"], 0, "paused when packhorse runs").await;
    assert_eq!(scene.json(&["queue", "status", "--json"]).await["destinations"][0]["state"], "paused");
    scene.central.restart().await;
    scene.says(&["run", "--once"], 1, "0 readings delivered so far, 300 wait").await;
    scene.says(&["queue", "resume"], 0, "goes on when packhorse runs").await;
    scene.says(&["run", "--once"], 0, "0 wait").await;
    scene.comparison().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_is_captured_again_and_arrives_once_in_effect() {
    let mut scene = Scene::captured().await;
    scene.central.restart().await;
    code(&scene.gateway.output(&["run", "--once"]).await, 0);
    scene.says(&["queue", "rewind", "--since", "2026-01-01T04:00:00", "--yes"], 0, "61 rows since 2026-01-01T04:00:00").await;
    let status = scene.json(&["queue", "status", "--json"]).await;
    assert_eq!(status["destinations"][0]["pending"], 61, "{status}");
    let shown = scene.json(&["queue", "show", "reading", "300", "--json"]).await;
    assert_eq!(shown["freshness"], "repeat");
    // What the central server has lost is there again; what it has is not doubled.
    code(&scene.gateway.output(&["run", "--once"]).await, 0);
    scene.says(&["queue", "rewind", "--since", "beginning", "--yes"], 0, "360 rows since the beginning").await;
    code(&scene.gateway.output(&["run", "--once"]).await, 0);
    scene.comparison().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_to_a_full_stick_fails_and_leaves_no_half_file() {
    let scene = Scene::set().await;
    // It opens the outbox, so that the command writes nothing but the export.
    let _daemon = scene.daemon().await;
    scene.says(&["queue", "export", "--output", "/dev/full/x"], 1, "failed, and left no file").await;
    // A file that cannot grow: the limit stands for a full stick.
    let file = scene.dir.path().join("stick.jsonl");
    let mut command = std::process::Command::new("bash");
    let packhorse = scene.gateway.command(&["queue", "export", "--output", file.to_str().unwrap()]);
    command.args(["-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""]).arg(packhorse.get_program()).args(packhorse.get_args());
    let output = command.output().unwrap();
    code(&output, 1);
    assert!(text(&output.stderr).contains("failed, and left no file"), "{}", text(&output.stderr));
    let left: Vec<_> = scene.dir.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("stick.jsonl")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_when_nothing_is_meant_and_when_nothing_has_ever_run() {
    let scene = Scene::set().await;
    let none = "central: no outbox yet";
    scene.says(&["-qq", "queue", "list"], 0, none).await;
    scene.says(&["-qq", "queue", "parked", "show"], 0, none).await;
    scene.says(&["-qq", "queue", "status", "--alarm-age", "1h"], 0, none).await;
    scene.says(&["-qq", "queue", "show", "reading", "1"], 1, none).await;
    assert!(scene.lines(&["-qq", "queue", "list", "--json"]).await.is_empty());
    code(&scene.gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    scene.says(&["-qq", "queue", "list", "--node", "424242"], 0, "central: no rows that wait are meant by this").await;
    scene.says(&["-qq", "queue", "parked", "show"], 0, "central: no rows that are parked are meant by this").await;
    assert!(scene.lines(&["-qq", "queue", "list", "--json", "--node", "424242"]).await.is_empty());
}
