//! The database's clock jumps, both ways and far, under the real program: a real MariaDB with a clock of its own (libfaketime). Nothing is lost or
//! doubled, and no row is sent more than once more for each jump back. Both ends are counted by SQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Duration;

use support::{Mariadb, Scene, Schema};
use tokio::time::{Instant, sleep};

/// Rows as nodes bring them that are told the time by this server: now, and a little before.
async fn rows(scene: &Scene, mark: u32) {
    rows_back(scene, mark, 29).await;
}

/// The same, so many steps of twenty seconds back.
async fn rows_back(scene: &Scene, mark: u32, steps: u32) {
    let now = if scene.source.schema().fraction { "UTC_TIMESTAMP(6)" } else { "UTC_TIMESTAMP()" };
    scene
        .source
        .run(&format!(
            "INSERT IGNORE INTO Reading (time, nodeId, type, locationId, value)
                SELECT {now} - INTERVAL seq * 20 SECOND, node, kind, 509, {mark} FROM seq_0_to_{steps}, (SELECT 1 AS node UNION SELECT 2) AS nodes, (SELECT 0 AS kind UNION SELECT 2) AS kinds;
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num)
                SELECT {now} - INTERVAL seq * 20 SECOND, node, {mark}, seq, {mark} FROM seq_0_to_{steps}, (SELECT 1 AS node UNION SELECT 2) AS nodes ORDER BY 1"
        ))
        .await;
}

/// Where the clock jumps to, one after the other: weeks, months and years ahead and back, a minute, and back to the truth each time.
const JUMPS: [&str; 12] = ["+3d", "+0", "-90d", "+0", "+5y", "-5y", "+0", "+90s", "+0", "-90s", "+40m", "+0"];

async fn the_clock_jumps(schema: Schema, manner: &'static str) {
    let Some(server) = Mariadb::with_clock() else { return };
    let scene = Scene::on(&server, schema, manner).await;
    let gateway = scene.gateway().with_source("poll_interval", "200ms").with_source("audit_interval", "1s");
    let log = scene.dir.path().join("log");
    let mut daemon = gateway.spawn_logging(&["run"], &log);
    let says = |words: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(words);
    rows(&scene, 1).await;
    scene.wait_until_equal("before the clock jumps").await;
    assert!(!says("the database's clock stands before"));
    for (place, by) in JUMPS.into_iter().enumerate() {
        let before = scene.source.number("SELECT UNIX_TIMESTAMP()").await;
        server.set_clock(by);
        let after = scene.source.number("SELECT UNIX_TIMESTAMP()").await;
        assert!(before.abs_diff(after) > 80, "the clock did not jump: {before}, {after}");
        let jumped = Instant::now();
        rows(&scene, 2 + place as u32).await;
        scene.wait_until_equal(&format!("the clock jumped to {by}")).await;
        println!("equal {:?} after the jump to {by}", jumped.elapsed());
        if place == 1 {
            assert!(says("the database's clock stands before what was captured"), "it is told");
        }
    }
    // With the clock in order everything goes its way again: a row now is there soon.
    rows_back(&scene, 99, 0).await;
    scene.wait_until_equal("the clock is in order").await;
    assert!(!daemon.ended());
    daemon.terminate().await;
    assert!(!says("not the database that it was"), "{}", std::fs::read_to_string(&log).unwrap());
    let status = gateway.output(&["queue", "status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let streams = status["destinations"][0]["streams"].as_array().unwrap();
    let sent: u64 = streams.iter().map(|stream| stream["acked"].as_u64().unwrap()).sum();
    let there = scene.source.number("SELECT (SELECT COUNT(*) FROM Reading) + (SELECT COUNT(*) FROM NodeState)").await;
    println!("{sent} rows were sent for {there}");
    // Once, and at most once more for each of the six jumps back.
    assert!(sent <= 7 * there as u64, "{sent} rows were sent for {there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_both_ways_loses_and_doubles_nothing() {
    the_clock_jumps(Schema::classic(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_where_node_states_have_no_id_and_times_a_fraction() {
    the_clock_jumps(Schema { fraction: true, ..Schema::newest() }, "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_at_a_legacy_server_that_stores_a_repeat_twice() {
    the_clock_jumps(Schema::newest(), "legacy-old").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_wakes_up_in_the_past_and_learns_the_time_later_loses_nothing() {
    let Some(server) = Mariadb::with_clock() else { return };
    let scene = Scene::on(&server, Schema::newest(), "packhorse").await;
    // As a Raspberry Pi does, which has no clock that survives: each time at the time of its last shutdown, or in 1970.
    let gateway = scene.gateway().with_source("poll_interval", "200ms").with_source("audit_interval", "1s");
    for (round, by) in ["-20y", "+0", "-2d", "+0", "-2d"].into_iter().enumerate() {
        server.set_clock(by);
        let mut daemon = gateway.spawn(&["-q", "run"]);
        rows(&scene, 10 + round as u32).await;
        scene.wait_until_equal(by).await;
        // The program ends in the middle of whatever it does.
        rows(&scene, 20 + round as u32).await;
        sleep(Duration::from_millis(300)).await;
        daemon.kill();
    }
    server.set_clock("+0");
    let began = Instant::now();
    let mut daemon = gateway.spawn(&["-q", "run"]);
    scene.wait_until_equal("the time is known").await;
    println!("equal after {:?}", began.elapsed());
    daemon.terminate().await;
}
