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
