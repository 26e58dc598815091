//! On an outbox that does not open as it should.

use std::path::PathBuf;

use super::*;

fn store(scene: &Scene) -> PathBuf {
    scene.gateway.data_dir().join("central/gen-000001")
}

/// What holds rows; a snapshot is only sled's shortcut, and is set aside when it does not open with it.
fn contents(scene: &Scene) -> Vec<(PathBuf, Vec<u8>)> {
    ["db", "conf"].map(|name| store(scene).join(name)).map(|path| (path.clone(), std::fs::read(path).unwrap())).into()
}

/// Asserts that what can be read is shown, with the damage, and that nothing changes.
async fn is_looked_at_as_a_copy(scene: &Scene, at_least: usize) {
    let before = contents(scene);
    let status = scene.gateway.output(&["queue", "status", "--json"]).await;
    code(&status, 1);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let central = &status["destinations"][0];
    assert_eq!(central["state"], "closed");
    assert!(central["sentence"].as_str().unwrap().contains("is damaged"), "{central}");
    assert!(central["pending"].as_u64().unwrap() as usize >= at_least, "{central}");
    let export = scene.gateway.output(&["queue", "export", "--stream", "reading"]).await;
    code(&export, 1);
    assert!(text(&export.stderr).contains("what can still be read of a copy was shown"), "{}", text(&export.stderr));
    let rows: Vec<Value> = text(&export.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() >= at_least, "{} rows", rows.len());
    assert!(rows.iter().all(|row| row["stream"] == "reading" && row["time"].as_str().unwrap().starts_with("2026-01-01T")));
    scene.says(&["queue", "verify"], 1, "is damaged").await;
    scene.says(&["queue", "parked", "retry", "--all"], 1, "is damaged").await;
    assert!(contents(scene) == before, "the damaged files were only read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_does_not_open_is_searched_for_what_is_left_and_repaired() {
    let mut scene = Scene::captured().await;
    let db = store(&scene).join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    // The first segment alone: the chunks lie behind it or in it, its head does not.
    for byte in bytes.iter_mut().take(64) {
        *byte ^= 0x5a;
    }
    let conf = std::fs::read(store(&scene).join("conf")).unwrap();
    std::fs::write(store(&scene).join("conf"), &conf[..conf.len() / 2]).unwrap();
    std::fs::write(&db, bytes).unwrap();
    is_looked_at_as_a_copy(&scene, READINGS as usize).await;
    scene.says(&["queue", "repair", "--yes"], 0, "aside").await;
    assert!(scene.gateway.data_dir().join("central/aside").read_dir().unwrap().next().is_some());
    scene.central.restart().await;
    code(&scene.gateway.output(&["run", "--once"]).await, 0);
    scene.comparison().await.assert_equal();
}

/// A copy of a folder's files.
fn copied(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        std::fs::copy(&entry, to.join(entry.file_name().unwrap())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_opens_as_what_it_was_an_hour_ago_does_not_pass_for_whole() {
    let scene = Scene::captured().await;
    let before = scene.dir.path().join("before");
    copied(&store(&scene), &before);
    scene.source.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2026-02-01', 1, 0, 5)").await;
    code(&scene.gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    scene.says(&["queue", "verify"], 0, "361 records read").await;
    // As sled opens a log whose end is damaged.
    copied(&before, &store(&scene));
    scene.says(&["queue", "verify"], 1, "the sidecar knows of 301").await;
    let export = scene.gateway.output(&["queue", "export"]).await;
    code(&export, 1);
    assert_eq!(text(&export.stdout).lines().count() as u64, READINGS + STATES, "what there is is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_without_its_current_is_found_and_one_without_a_store_is_not_a_new_one() {
    let scene = Scene::captured().await;
    let folder = scene.gateway.data_dir().join("central");
    std::fs::remove_file(folder.join("CURRENT")).unwrap();
    scene.says(&["queue", "status"], 0, "300 readings and 60 node states").await;
    scene.says(&["queue", "verify"], 0, "360 records read").await;
    assert!(!folder.join("CURRENT").exists(), "a look changes nothing");
    std::fs::remove_dir_all(store(&scene)).unwrap();
    scene.says(&["queue", "status"], 1, "there is a sidecar and no store").await;
    scene.says(&["queue", "verify"], 1, "there is a sidecar and no store").await;
    scene.says(&["queue", "export"], 1, "there is a sidecar and no store").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_damaged_outbox_is_exported_into_a_file_and_the_next_destination_is_not_held_up() {
    let mut scene = Scene::set().await;
    scene.gateway = scene.gateway.and_destination("second", support::gateway::free_port());
    code(&scene.gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    std::fs::write(scene.gateway.data_dir().join("central/CURRENT"), "garbled").unwrap();
    let file = scene.dir.path().join("left.jsonl");
    let output = scene.gateway.output(&["queue", "export", "--output", file.to_str().unwrap()]).await;
    code(&output, 1);
    assert!(text(&output.stderr).contains("CURRENT does not name a store"), "{}", text(&output.stderr));
    let of = |name: &str| {
        let exported = std::fs::read_to_string(&file).unwrap();
        exported.lines().filter(|line| line.contains(&format!("\"destination\":\"{name}\""))).count() as u64
    };
    assert_eq!((of("central"), of("second")), (READINGS + STATES, READINGS + STATES));
    for args in [&["queue", "list", "--limit", "1"][..], &["queue", "parked", "list"], &["queue", "verify"], &["queue", "status"]]
    {
        let output = scene.gateway.output(args).await;
        code(&output, 1);
        assert!(text(&output.stdout).contains("second"), "{args:?}: {}", text(&output.stdout));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_does_not_cut_a_log_that_is_damaged_in_its_middle() {
    const MORE: u64 = 20_000;
    let scene = Scene::captured().await;
    let more = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT '2026-02-01' + INTERVAL seq SECOND, 1, 0, 509, seq / 7 FROM seq_1_to_{MORE}"
    );
    scene.source.run(&more).await;
    code(&scene.gateway.output(&["run", "--once", "--deadline", "10s"]).await, 1);
    let all = READINGS + STATES + MORE;
    scene.says(&["queue", "verify"], 0, &format!("{all} records read")).await;
    let db = store(&scene).join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 3] ^= 0x5a;
    std::fs::write(&db, bytes).unwrap();
    let before = contents(&scene);
    for _ in 0..2 {
        scene.says(&["queue", "verify"], 1, "is damaged").await;
        let export = scene.gateway.output(&["queue", "export"]).await;
        code(&export, 1);
        let rows = text(&export.stdout).lines().count() as u64;
        assert!(rows > all / 2, "{rows} of {all} rows could be read");
        assert!(contents(&scene) == before, "the damaged files were only read");
    }
    let left = std::env::temp_dir().read_dir().unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let pid_of_a_look = |name: &String| Some(name.strip_prefix("packhorse-look-")?.split_once('-')?.0.to_owned());
    let orphans: Vec<_> =
        left.filter(|name| pid_of_a_look(name).is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists())).collect();
    assert!(orphans.is_empty(), "copies were left behind: {orphans:?}");
}
