//! What is wrong in the configuration: every command refuses it with 2, and names the line.

use std::os::unix::fs::PermissionsExt as _;

use super::{Scene, told};

#[tokio::test(flavor = "multi_thread")]
async fn is_told_with_its_line_by_every_command() {
    let scene = Scene::set().await;
    let good = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let source = format!("url = \"{}\"", scene.source.url());
    for (from, to, words) in [
        (source.as_str(), "url = \"mysql://chuser:hunter2@localhost:port/ch\"", "line 7: source.url: this is not a URL"),
        (&source, "url = \"postgres://chuser:hunter2@localhost/ch\"", "line 7: source.url: this does not begin with mysql://"),
        (&source, "url = \"mysql://chuser:hunter2@localhost\"", "line 7: source.url: no database is named"),
        ("http://", "htp://", "destination.central.url: this does not begin with https://"),
        ("backoff_min", "backof_min", "there is no such key; did you mean backoff_min?"),
        ("\"100ms\"", "\"soon\"", "\"soon\" is not a duration"),
    ] {
        let wrong = good.replace(from, to);
        assert_ne!(wrong, good);
        std::fs::write(scene.gateway.config(), wrong).unwrap();
        for args in [&["check"][..], &["run"], &["run", "--once"], &["queue", "status"], &["queue", "list"]] {
            told(&scene.gateway.output(args).await, 2, &[words]);
        }
    }
    assert!(!scene.gateway.data_dir().exists(), "nothing was touched");
    std::fs::write(scene.gateway.config(), good).unwrap();
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_of_files_are_told() {
    let scene = Scene::set().await;
    let token = scene.dir.path().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    std::fs::write(
        scene.gateway.config(),
        config.replace("linger =", &format!("token_file = \"{}\"\nlinger =", token.display())),
    )
    .unwrap();
    let mode = |path: &std::path::Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for (of_config, of_token, level, words) in [
        (0o600, 0o600, "ok ", "the configuration, "),
        (0o600, 0o640, "ok ", "the file of destination.central.token_file, "),
        (0o600, 0o644, "warning ", "every user of this machine can read the file; chmod o-r it"),
        (0o644, 0o600, "warning ", "source.url: a password stands here and every user of this machine can read the file"),
        (0o602, 0o600, "warning ", "has mode 0602: every user of this machine can change it; chmod o-w it"),
    ] {
        // Others get to the files only where they may enter the folders above.
        mode(scene.dir.path(), 0o755);
        mode(&scene.gateway.config(), of_config);
        mode(&token, of_token);
        told(&scene.check().await, 0, &[level, words]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_no_header_can_carry_are_told() {
    let scene = Scene::set().await;
    let token = scene.dir.path().join("token");
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    std::fs::write(
        scene.gateway.config(),
        config.replace("linger =", &format!("token_file = \"{}\"\nlinger =", token.display())),
    )
    .unwrap();
    for (content, words) in [
        (&b"hunter2\nhunter2\n"[..], "the file does not hold one line"),
        (b"", "the file does not hold one line"),
        (b"hunter2\xff", "cannot read"),
    ] {
        std::fs::write(&token, content).unwrap();
        told(&scene.check().await, 2, &["problem ", words]);
        told(&scene.once().await, 2, &[words]);
    }
}
