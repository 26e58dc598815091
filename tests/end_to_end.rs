//! The main job on real parts: MariaDB, the real program, the real receiver in every manner, real readings; with kills and lost answers.
//! Losses and duplicates are counted by SQL in `support::compare`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use support::{
    Scene, Schema, assert_exit, compare,
    gateway::{Central, Gateway},
};
use tokio::time::sleep;

async fn everything_arrives(schema: Schema, manner: &'static str) {
    let Some(scene) = Scene::set(schema, manner, 200_000).await else { return };
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    let comparison = scene.compare().await;
    assert!(comparison.readings.source > 199_000 && comparison.node_states.source > 33_000, "{comparison}");
    comparison.assert_equal();

    // Nothing is left, and a second run sends nothing again.
    let sent = scene.proxy.requests_of("/rest/bulk/");
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    assert_eq!(scene.proxy.requests_of("/rest/bulk/"), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_arrives_once_in_the_right_room_with_the_same_bits_at_the_receiver() {
    everything_arrives(Schema::classic(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_arrives_once_in_the_right_room_with_the_same_bits_at_a_legacy_server() {
    everything_arrives(Schema::newest(), "legacy").await;
}

/// Kills the program at random moments: `early` times while it captures and makes the catalog, `late` times while requests go out; an
/// answer after a committed bulk is lost now and then. Then lets it finish.
async fn storm(scene: &Scene, gateway: &Gateway, early: usize, late: usize) {
    let seed = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PACKHORSE_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let bulks = || scene.proxy.requests_of("/rest/bulk/");
    let kills = early + late;
    let mut ended = 0;
    for kill in 0..kills {
        let mut running = gateway.spawn(&["-q", "run"]);
        if kill < early {
            sleep(Duration::from_millis(random.random_range(20..900))).await;
        } else {
            if kill % 4 == 0 {
                scene.proxy.lose_next_answer_of("/rest/bulk/");
            }
            // Some requests, and a little into the next one.
            let until = bulks() + random.random_range(1..6);
            let began = std::time::Instant::now();
            while bulks() < until && began.elapsed() < Duration::from_secs(20) {
                sleep(Duration::from_millis(5)).await;
            }
            sleep(Duration::from_millis(random.random_range(0..60))).await;
        }
        ended += usize::from(running.ended());
        running.kill();
    }
    assert_eq!(ended, 0, "the daemon never ends by itself");
    let status = gateway.output(&["queue", "status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let [acked, pending] = ["acked", "pending"].map(|figure| {
        let streams = status["destinations"][0]["streams"].as_array().unwrap();
        streams.iter().map(|stream| stream[figure].as_u64().unwrap()).sum::<u64>()
    });
    println!("after {kills} kills: {acked} acked, {pending} pending");
    if late > 0 {
        assert!(acked > 0 && pending > 0, "the kills fell among the requests: {status}");
        assert!(scene.proxy.answers_lost() > 0, "an answer was lost");
    }
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "300s"]).await, 0);
}

async fn kills_lose_and_double_nothing(schema: Schema, manner: &'static str) {
    let Some(scene) = Scene::set(schema, manner, 200_000).await else { return };
    storm(&scene, &scene.gateway().with_request_max("12KiB"), 6, 14).await;
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_and_lost_answers_lose_and_double_nothing_at_the_receiver() {
    kills_lose_and_double_nothing(Schema::classic(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_and_lost_answers_lose_and_double_nothing_at_a_legacy_server() {
    kills_lose_and_double_nothing(Schema::newest(), "legacy").await;
}

/// The negative control of the two tests above: kills while it captures are enough. Without audits, which would find what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn with_the_watermark_saved_apart_from_the_rows_the_same_kills_lose_rows() {
    let Some(scene) = Scene::set(Schema::classic(), "packhorse", 200_000).await else { return };
    let gateway = scene
        .gateway()
        .with_request_max("12KiB")
        .with_env("PACKHORSE_TEST_WATERMARK_APART", "1")
        .with_env("PACKHORSE_TEST_NO_AUDIT", "1");
    storm(&scene, &gateway, 20, 0).await;
    let comparison = scene.compare().await;
    assert!(comparison.readings.lost + comparison.node_states.lost > 0, "the control must fail:\n{comparison}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_house_that_a_legacy_server_cannot_have_return_once_each_through_kills_when_another_stands_there() {
    let Some(mut scene) = Scene::set(Schema::classic(), "legacy", 100_000).await else { return };
    scene.source.run("UPDATE House SET address = '1 Gewächshaus Row' WHERE id = 207").await;
    let gateway = scene.gateway().with_request_max("12KiB");
    assert_exit(&gateway.output(&["run", "--once"]).await, 1);
    let before = scene.compare().await;
    assert!(before.readings.lost > 25_000 && before.node_states.lost == 0, "its readings are held, and nothing else: {before}");
    assert_eq!((before.readings.duplicated, before.wrong_rooms), (0, 0), "{before}");

    scene.central.replace_by("packhorse").await;
    let bulks = || scene.proxy.requests_of("/rest/bulk/");
    for kill in 0..6 {
        let mut running = gateway.spawn(&["-q", "run"]);
        // The first kills fall into the return itself, the others among its requests.
        let until = bulks() + usize::from(kill > 2);
        let began = std::time::Instant::now();
        while bulks() < until && began.elapsed() < Duration::from_secs(6) {
            sleep(Duration::from_millis(5)).await;
        }
        sleep(Duration::from_millis(40 + 60 * kill)).await;
        running.kill();
    }
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "300s"]).await, 0);
    scene.compare().await.assert_equal();
}

/// Two gateways' worth of trouble with types: the same numbers mean something else at the centre.
#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_types_are_in_conflict_are_held_with_advice_and_arrive_when_one_side_is_mended() {
    for mend_here in [true, false] {
        let Some(mut scene) = Scene::set(Schema::classic(), "packhorse", 20_000).await else { return };
        scene.source.run("INSERT INTO NodeType (id, name) VALUES (7, 'CO2'); UPDATE Node SET nodeTypeId = 7 WHERE id = 10").await;
        scene.central_sql("INSERT INTO NodeType (id, name) VALUES (7, 'VOC'); INSERT INTO SensorType (id, name, code, units) VALUES (60, 'Black bulb', 'BB', 'mV')").await;
        let gateway = scene.gateway();
        let output = gateway.output(&["run", "--once"]).await;
        assert_exit(&output, 1);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(told.contains("units 'V' here, 'mV' there") && told.contains("name 'CO2' here, 'VOC' there"), "{told}");
        let held = scene.compare().await;
        assert!(held.readings.lost > 0 && held.node_states.lost > 0 && held.wrong_rooms == 0, "{held}");
        if mend_here {
            scene.source.run("UPDATE NodeType SET name = 'VOC'; UPDATE SensorType SET units = 'mV' WHERE id = 60").await;
        } else {
            scene.central_sql("UPDATE NodeType SET name = 'co2 '; UPDATE SensorType SET units = 'V' WHERE id = 60").await;
        }
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        scene.compare().await.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_clean_within_seconds_also_in_a_backoff_and_in_a_slow_request() {
    let Some(scene) = Scene::set(Schema::classic(), "packhorse", 5_000).await else { return };
    let gateway = scene.gateway();
    scene.proxy.cut().await;
    let mut in_backoff = gateway.spawn(&["-q", "run"]);
    sleep(Duration::from_secs(2)).await;
    let (status, took) = in_backoff.terminate().await;
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");

    // A server that takes the connection and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = Gateway::new(&scene.dir.path().join("other"), scene.source.url(), silent.local_addr().unwrap());
    let mut in_request = gateway.spawn(&["-q", "run"]);
    let _connection = silent.accept().await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let (status, took) = in_request.terminate().await;
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_with_a_deadline_ends_with_1_while_rows_wait_and_loses_none() {
    let Some(scene) = Scene::set(Schema::classic(), "packhorse", 5_000).await else { return };
    let gateway = scene.gateway();
    scene.proxy.cut().await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    scene.proxy.restore().await;
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_inserted_while_the_daemon_runs_arrive() {
    let Some(scene) = Scene::set(Schema::classic(), "packhorse", 1_000).await else { return };
    let gateway = scene.gateway();
    let mut daemon = gateway.spawn(&["-q", "run"]);
    for second in 0..10 {
        let insert = format!(
            "INSERT INTO Reading (time, nodeId, type, value) VALUES (UTC_TIMESTAMP() - INTERVAL {} SECOND, 100, 0, {second}.25);
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) VALUES (UTC_TIMESTAMP(), 100, 1, {second}, {second}, -70)",
            20 - second
        );
        scene.source.run(&insert).await;
        sleep(Duration::from_millis(150)).await;
    }
    sleep(Duration::from_secs(2)).await;
    daemon.terminate().await;
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_dead_all_the_time_does_not_hold_up_another_and_drains_when_it_comes_up() {
    let Some(scene) = Scene::set(Schema::classic(), "packhorse", 20_000).await else { return };
    let mut other = Central::start(scene.dir.path(), "legacy").await;
    other.kill();
    let gateway = scene.gateway().and_destination("other", other.addr);
    let daemon = gateway.spawn(&["-q", "run"]);
    let began = std::time::Instant::now();
    while !scene.compare().await.is_equal() {
        assert!(began.elapsed() < Duration::from_mins(2), "the living one is served");
        sleep(Duration::from_millis(300)).await;
    }
    drop(daemon);
    other.restart().await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "120s"]).await, 0);
    let comparison = compare(&scene.source, other.database()).await;
    assert!(comparison.readings.lost == 0 && comparison.readings.duplicated == 0 && comparison.wrong_rooms == 0, "{comparison}");
    scene.compare().await.assert_equal();
}
