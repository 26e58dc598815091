//! Parked rows: seen, tried again, discarded.

use super::*;

/// A deployment that the server refuses holds every row below it: the receiver is told to, by a name that it does not take.
async fn held() -> Scene {
    let mut scene = Scene::set().await;
    // Rows of a node that the catalog does not have are held for it.
    scene
        .source
        .run("SET FOREIGN_KEY_CHECKS = 0; INSERT INTO Reading (time, nodeId, type, value) SELECT '2026-03-01' + INTERVAL seq MINUTE, 4242, seq % 2 * 2, seq FROM seq_1_to_40")
        .await;
    scene.central.restart().await;
    scene
}

async fn sees_and_discards(scene: &Scene) {
    let groups = scene.until(&["queue", "parked", "list", "--json"], |groups| groups["groups"][0]["rows"] == 40).await;
    let group = &groups["groups"][0];
    assert_eq!((group["kind"].as_str(), group["stream"].as_str()), (Some("held"), Some("reading")), "{group}");
    assert_eq!(group["sample"]["nodeId"], 4242, "{group}");
    scene.says(&["queue", "parked", "list"], 0, "held until Node 4242 is mapped").await;
    let rows = scene.lines(&["queue", "parked", "show", "--json", "--limit", "7"]).await;
    assert_eq!(rows.len(), 7);
    scene.says(&["queue", "parked", "retry", "--all", "--dry-run"], 0, "40 parked rows would be tried again").await;
    scene.says(&["queue", "parked", "retry", "--reason", "HOUSE"], 0, "0 parked rows are tried again").await;
    scene.says(&["queue", "parked", "discard", "--node", "4242", "--dry-run"], 0, "40 parked rows would be exported").await;

    // Some of a chunk.
    scene.says(&["queue", "parked", "discard", "--type", "2", "--yes"], 0, "20 parked rows were discarded").await;
    let left = scene.lines(&["queue", "parked", "show", "--json"]).await;
    assert!(left.len() == 20 && left.iter().all(|row| row["type"] == 0), "{left:?}");
    let folder = scene.gateway.data_dir().join("central/discarded");
    let export = folder.read_dir().unwrap().next().unwrap().unwrap().path();
    let exported: Vec<Value> =
        std::fs::read_to_string(export).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(exported.len() == 20 && exported.iter().all(|row| row["type"] == 2 && row["nodeId"] == 4242), "{exported:?}");

    // Nor where it would take what capture needs.
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    if !scene.dir.path().join("gateway/packhorse.sock").exists() {
        std::fs::write(scene.gateway.config(), config.replace("disk_reserve = \"1MiB\"", "disk_reserve = \"8EiB\"")).unwrap();
        scene.says(&["queue", "parked", "discard", "--all", "--yes"], 1, "less than disk_reserve free, so nothing was").await;
        std::fs::write(scene.gateway.config(), config).unwrap();
        assert_eq!(folder.read_dir().unwrap().count(), 1);
    }

    // Without the export nothing is discarded (I5).
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "in the way").unwrap();
    scene.says(&["queue", "parked", "discard", "--all", "--yes"], 1, "so nothing was discarded").await;
    assert_eq!(scene.lines(&["queue", "parked", "show", "--json"]).await.len(), 20);
    std::fs::remove_file(&folder).unwrap();
    scene.says(&["queue", "verify"], 0, "is right").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_rows_are_seen_and_discarded_beside_a_running_daemon_and_return_when_tried_again() {
    let scene = held().await;
    let mut daemon = scene.gateway.spawn(&["-qq", "run"]);
    sees_and_discards(&scene).await;
    let before = scene.json(&["queue", "status", "--json"]).await["destinations"][0]["streams"][0]["next"].as_u64().unwrap();
    scene.says(&["queue", "parked", "retry", "--all"], 0, "20 parked rows are tried again").await;
    // They come to the end of the queue, and are held again there.
    scene
        .until(&["queue", "status", "--json"], |status| {
            let stream = &status["destinations"][0]["streams"][0];
            stream["next"].as_u64() == Some(before + 20) && stream["parked"] == 20
        })
        .await;
    daemon.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_rows_are_seen_and_discarded_while_it_is_stopped() {
    let scene = held().await;
    code(&scene.gateway.output(&["run", "--once"]).await, 1);
    sees_and_discards(&scene).await;
    scene.says(&["queue", "parked", "retry", "--all"], 0, "20 parked rows are tried again").await;
    let status = scene.json(&["queue", "status", "--json"]).await;
    assert_eq!((&status["destinations"][0]["pending"], &status["destinations"][0]["parked"]), (&20.into(), &0.into()));
}

#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn whoever_interrupts_a_discard_beside_a_daemon_leaves_no_half_export_and_every_row_parked() {
    for (edge, has_ended_writing) in [("discard:written", false), ("discard:renamed", true)] {
        let mut scene = held().await;
        let edges = scene.dir.path().join("edges");
        scene.gateway.set_env("PACKHORSE_TEST_EDGES", edges.to_str().unwrap());
        scene.gateway.set_env("FAILPOINTS", format!("{edge}=sleep(2000)"));
        let mut daemon = scene.gateway.spawn(&["-qq", "run"]);
        scene.until(&["queue", "parked", "list", "--json"], |groups| groups["groups"][0]["rows"] == 40).await;
        let mut asking = scene.gateway.spawn(&["-q", "queue", "parked", "discard", "--all", "--yes"]);
        let began = Instant::now();
        while !std::fs::read_to_string(&edges).unwrap_or_default().contains(edge) {
            assert!(began.elapsed() < Duration::from_mins(3), "it never comes to {edge}");
            sleep(Duration::from_millis(10)).await;
        }
        let folder = scene.gateway.data_dir().join("central/discarded");
        let names =
            || folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
        assert!(names()[0].ends_with(if has_ended_writing { ".partly.jsonl" } else { ".jsonl.part" }), "{:?}", names());
        let pid = asking.0.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        asking.0.wait().unwrap();
        while !names().is_empty() {
            assert!(began.elapsed() < Duration::from_mins(3), "{:?} stays", names());
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(scene.lines(&["queue", "parked", "show", "--json"]).await.len(), 40, "{edge}");
        daemon.terminate().await;
    }
}
