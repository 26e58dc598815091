//! Root among the files of the daemon's user.

use std::os::unix::{
    fs::{MetadataExt as _, PermissionsExt as _, chown},
    process::CommandExt as _,
};

use super::*;

const NOBODY: u32 = 65_534;

fn everything(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![dir.to_owned()];
    let mut next = 0;
    while next < all.len() {
        if all[next].is_dir() {
            let inside: Vec<_> = std::fs::read_dir(&all[next]).unwrap().map(|entry| entry.unwrap().path()).collect();
            all.extend(inside);
        }
        next += 1;
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_root_does_leaves_every_file_to_the_owner_of_the_data_directory() {
    if std::env::var_os("USER").is_some_and(|user| user != "root") || std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("only root can do this: skipped");
        return;
    }
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, 100).await;
    scene.proxy.cut().await;
    let gateway = scene.gateway();
    support::assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    chown(scene.dir.path(), Some(NOBODY), None).unwrap();
    chown(gateway.config().parent().unwrap(), Some(NOBODY), None).unwrap();
    for path in everything(&gateway.data_dir()) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    for args in [
        &["queue", "status"][..],
        &["queue", "list"],
        &["queue", "pause"],
        &["queue", "resume"],
        &["queue", "compact"],
        &["queue", "rewind", "--since", "beginning", "--yes"],
    ] {
        support::assert_exit(&gateway.output(args).await, 0);
    }
    scene.proxy.restore().await;
    support::assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    for path in everything(&gateway.data_dir()) {
        let found = std::fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (NOBODY, NOBODY), "{}", path.display());
    }
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_of_somebody_elses_daemon_hinders_nobody_who_owns_the_data_directory() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("only root can do this: skipped");
        return;
    }
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let theirs = tempfile::tempdir().unwrap();
    let socket = theirs.path().join("socket");
    let _daemon = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let gateway = scene.gateway();
    support::assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    chown(scene.dir.path(), Some(NOBODY), None).unwrap();
    chown(gateway.config().parent().unwrap(), Some(NOBODY), None).unwrap();
    for path in everything(&gateway.data_dir()) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let gateway = gateway.with_env("PACKHORSE_STATUS_SOCKET", socket.display().to_string());
    let status = gateway.output(&["queue", "status"]).await;
    support::assert_exit(&status, 0);
    assert!(String::from_utf8_lossy(&status.stdout).contains("packhorse is stopped"), "{status:?}");
}

/// What a user who may not, is told.
#[test]
fn another_user_is_told_whose_it_is_and_once() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("only root can do this: skipped");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &std::path::Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(dir.path(), 0o755);
    // Where that user gets to it, wherever it was built.
    let program = dir.path().join("packhorse");
    std::fs::copy(env!("CARGO_BIN_EXE_packhorse"), &program).unwrap();
    let (config, data_dir) = (dir.path().join("packhorse.toml"), dir.path().join("data"));
    std::fs::create_dir(&data_dir).unwrap();
    mode(&data_dir, 0o750);
    let check = |text: &str, of_config| {
        std::fs::write(&config, text).unwrap();
        mode(&config, of_config);
        let mut command = std::process::Command::new(&program);
        let command = command.uid(NOBODY).gid(NOBODY).current_dir(dir.path()).args(["--config", "packhorse.toml", "check"]);
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let told = check("", 0o640);
    assert!(told.contains("cannot read the configuration packhorse.toml; run this as root or as packhorse's user"), "{told}");
    let text = "[gateway]\ndata_dir = \"data\"\n[source]\nurl = \"mysql://u@127.0.0.1:1/ch\"\n";
    let told = check(text, 0o644);
    let of_data_dir: Vec<_> = told.lines().filter(|line| line.contains(" data_dir: ")).collect();
    assert!(
        matches!(of_data_dir[..], [line] if line.contains("run check as root or as the user that packhorse runs as")),
        "{told}"
    );
}
