//! Who calls at the daemon's socket, and what becomes of callers when the daemon hangs.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::Shutdown,
    os::unix::{net::UnixStream, process::ExitStatusExt as _},
    process::{Command, Stdio},
};

use super::*;

fn connect(scene: &Scene) -> UnixStream {
    let socket = UnixStream::connect(scene.dir.path().join("gateway/packhorse.sock")).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(3))).unwrap();
    socket
}

fn call(scene: &Scene, request: &Value) -> Vec<u8> {
    let data_dir = scene.gateway.data_dir();
    let call = serde_json::json!({"version": 1, "data_dir": data_dir, "destination": "central", "request": request});
    format!("{call}\n").into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_closes_its_half_after_asking_is_answered() {
    let scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    // As `echo .. | socat - UNIX-CONNECT:..` does.
    for request in [serde_json::json!("status"), serde_json::json!({"list": [{}, 5]}), serde_json::json!("verify")] {
        let mut socket = connect(&scene);
        socket.write_all(&call(&scene, &request)).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.lines().count() > 1 && answer.ends_with("\"end\"\n"), "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_callers_that_say_nothing_or_do_not_listen_hold_nobody_up_for_long() {
    let mut scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    let silent: Vec<_> = (0..500).map(|_| connect(&scene)).collect();
    // More than can be answered at once, and none of them reads.
    let deaf: Vec<_> = (0..40)
        .map(|_| {
            let mut socket = connect(&scene);
            socket.write_all(&call(&scene, &serde_json::json!({"list": [{}, 100_000]}))).unwrap();
            socket
        })
        .collect();
    scene.says(&["queue", "status"], 0, "360 records").await;
    scene.until(&["queue", "list", "--json", "--limit", "1", "--stream", "reading"], |line| line["seq"] == 0).await;
    scene.central.restart().await;
    scene.arrives().await;
    drop((silent, deaf));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_and_one_that_never_ends_are_cut_off() {
    let scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    let mut socket = connect(&scene);
    let part = vec![b'x'; 1 << 20];
    let sent = (0..100).take_while(|_| socket.write_all(&part).is_ok()).count();
    assert!(sent < 100, "100 MiB without a line's end were taken");
    scene.says(&["queue", "status"], 0, "360 records").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_told_from_one_that_is_stopped() {
    let scene = Scene::set().await;
    let daemon = scene.daemon().await;
    signal("-STOP", &daemon);
    let words = format!("packhorse (process {}) takes calls at ", daemon.0.id());
    let (status, verify, json) = tokio::join!(
        scene.says(&["queue", "status", "--alarm-age", "1h"], 3, &words),
        scene.says(&["queue", "verify"], 3, "has said nothing for 30 s"),
        scene.gateway.output(&["queue", "status", "--json"]),
    );
    assert!(status.contains("it hangs") && verify.contains("it hangs"));
    code(&json, 3);
    assert!(json.stdout.is_empty());
    signal("-CONT", &daemon);
    scene.says(&["queue", "status"], 0, "360 records").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_is_interrupted_leaves_nothing_and_the_file_that_was_there() {
    let scene = Scene::set().await;
    let daemon = scene.daemon().await;
    let folder = scene.dir.path().join("stick");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("export.jsonl");
    std::fs::write(&file, "the export of yesterday").unwrap();
    for (name, number) in [("-INT", 130), ("-TERM", 143)] {
        // It waits for the answer, with its file begun.
        signal("-STOP", &daemon);
        let mut export = scene.gateway.spawn(&["queue", "export", "--output", file.to_str().unwrap()]);
        let began = Instant::now();
        while folder.read_dir().unwrap().count() < 2 {
            assert!(began.elapsed() < Duration::from_mins(1), "it does not begin");
            sleep(Duration::from_millis(20)).await;
        }
        signal(name, &export);
        let ended = export.0.wait().unwrap();
        assert_eq!((ended.code(), ended.signal()), (Some(number), None));
        assert_eq!(folder.read_dir().unwrap().count(), 1, "something was left");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "the export of yesterday");
        signal("-CONT", &daemon);
    }
    code(&scene.gateway.output(&["queue", "export", "--output", file.to_str().unwrap()]).await, 0);
    assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count() as u64, READINGS + STATES);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_into_a_pipe_goes_through_it_and_a_folder_is_no_file() {
    let scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    let pipe = scene.dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _export = scene.gateway.spawn(&["queue", "export", "--output", pipe.to_str().unwrap()]);
    let path = pipe.clone();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path).unwrap());
    assert_eq!(read.await.unwrap().lines().count() as u64, READINGS + STATES);
    let kind = std::fs::symlink_metadata(&pipe).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind), "a file took the place of the pipe");
    scene.says(&["queue", "export", "--output", scene.dir.path().to_str().unwrap()], 2, "is a folder").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_read_enough_closes_the_pipe_and_that_is_no_error() {
    let scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    for args in [&["queue", "list", "--json", "--limit", "100000"][..], &["queue", "export"]] {
        let mut command = scene.gateway.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(command.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.contains("\"seq\":0"), "{first}");
        let output = command.wait_with_output().unwrap();
        code(&output, 0);
        assert_eq!(text(&output.stderr), "");
    }
}
