//! A stop at any moment: it ends well, and nothing is lost or duplicated.

use super::*;

/// Stops it, and lets another life deliver everything.
async fn stops_well(scene: &Scene, gateway: Gateway, mut daemon: Running) {
    let (ended, _) = daemon.terminate().await;
    assert!(ended.success(), "{ended}");
    scene.proxy.restore().await;
    let mut daemon = gateway.with_env("FAILPOINTS", "").spawn(&["run"]);
    arrives(scene).await;
    assert!(daemon.terminate().await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_large_table_is_captured() {
    const ROWS: u64 = 60_000;
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, ROWS).await;
    scene.proxy.cut().await;
    // A disk that takes its time.
    let gateway = scene.gateway().with_env("FAILPOINTS", "append:committed=sleep(700)");
    let daemon = gateway.spawn(&["run"]);
    until("some of it is captured", async || pending(&gateway).await.is_some_and(|rows| rows > 0)).await;
    let captured = pending(&gateway).await.unwrap();
    assert!(captured < ROWS, "it is captured before it could be stopped");
    stops_well(&scene, gateway, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_request_hangs() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, 1_000).await;
    scene.proxy.stall_next_of("/bulk");
    let gateway = scene.gateway();
    let daemon = gateway.spawn(&["run"]);
    until("a request hangs", async || scene.proxy.tricks_played() > 0).await;
    stops_well(&scene, gateway, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_query_hangs() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, 1_000).await;
    let mut lock = scene.source.admin().acquire().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("LOCK TABLES {}.Reading WRITE", scene.source.name())))
        .execute(&mut *lock)
        .await
        .unwrap();
    let gateway = scene.gateway();
    let mut daemon = gateway.spawn(&["run"]);
    let waiting = format!(
        "SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{}' AND state LIKE 'Waiting for table%'",
        scene.source.name()
    );
    until("a query waits for the table", async || scene.source.number(&waiting).await > 0).await;
    assert!(daemon.terminate().await.0.success());
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut *lock).await.unwrap();
    let mut daemon = gateway.spawn(&["run"]);
    arrives(&scene).await;
    assert!(daemon.terminate().await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_waits_for_the_outbox() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, 1_000).await;
    for (place, held) in [("make:store", "being made"), ("commit:flushed", "written"), ("ack:encoded", "acked")] {
        let edges = scene.dir.path().join("edges");
        let gateway = scene
            .gateway()
            .with_env("FAILPOINTS", format!("{place}=sleep(3000)"))
            .with_env("PACKHORSE_TEST_EDGES", edges.to_str().unwrap());
        let _ = std::fs::remove_dir_all(gateway.data_dir());
        let daemon = gateway.spawn(&["run"]);
        until(&format!("the outbox is {held}"), async || std::fs::read_to_string(&edges).is_ok_and(|edge| edge.contains(place)))
            .await;
        stops_well(&scene, gateway, daemon).await;
        std::fs::remove_file(edges).unwrap();
    }
}

/// A disk that hangs while the outbox is opened, which cannot be broken off.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_cut_off_and_told() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, 100).await;
    let edges = scene.dir.path().join("edges");
    let log = scene.dir.path().join("packhorse.log");
    let gateway = scene
        .gateway()
        .with_env("FAILPOINTS", "make:store=sleep(3600000)")
        .with_env("PACKHORSE_TEST_STOP_MAX_SECONDS", "2")
        .with_env("PACKHORSE_LOG_FILE", log.to_str().unwrap())
        .with_env("PACKHORSE_TEST_EDGES", edges.to_str().unwrap());
    let mut daemon = gateway.spawn(&["run"]);
    until("the outbox is being made", async || std::fs::read_to_string(&edges).is_ok_and(|edge| edge.contains("make:store")))
        .await;
    let (ended, _) = daemon.terminate().await;
    assert_eq!(ended.code(), Some(1), "{ended}");
    let told = std::fs::read_to_string(&log).unwrap();
    assert!(told.contains("it does not end in time, and is cut off"), "{told}");
    let mut daemon = scene.gateway().spawn(&["run"]);
    arrives(&scene).await;
    assert!(daemon.terminate().await.0.success());
}
