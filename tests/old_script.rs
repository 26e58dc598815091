//! What the old push script loses, doubles, misplaces or hangs on (the contract's section 4): a test for each, on the real program, a real
//! source and the receiver in legacy manner. Losses and duplicates are counted by SQL in `support::compare`.
//!
//! The one rule: a test's name is the sentence that the old script breaks.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "old_script/catalog.rs"]
mod catalog;
#[path = "old_script/interruptions.rs"]
mod interruptions;
#[path = "old_script/late.rs"]
mod late;
#[path = "old_script/paging.rs"]
mod paging;
#[path = "old_script/refusals.rs"]
mod refusals;

use support::{
    Comparison, Database, Scene, Schema, assert_exit,
    gateway::{Gateway, Running},
};
use tokio::time::{Duration, Instant, sleep};

/// Readings of four nodes in four rooms, six types of each, all of a packet in one second, a packet a minute.
async fn add_readings(source: &Database, from: u32, until: u32) {
    let sql = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
         SELECT '2026-01-01' + INTERVAL seq DIV 24 MINUTE, ELT(1 + seq % 4, 1, 2, 3, 10), ELT(1 + seq DIV 4 % 6, 0, 2, 6, 60, 61, 62),
                ELT(1 + seq % 4, 509, 503, 507, 533), seq / 7 FROM seq_{from}_to_{}",
        until - 1
    );
    assert_eq!(source.run(&sql).await, u64::from(until - from));
}

/// Node states of the same nodes, four a minute.
async fn add_states(source: &Database, from: u32, until: u32) {
    let sql = format!(
        "INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
         SELECT '2026-01-01' + INTERVAL seq DIV 4 MINUTE, ELT(1 + seq % 4, 1, 2, 3, 10), 0, seq, seq % 256, -70 FROM seq_{from}_to_{}",
        until - 1
    );
    assert_eq!(source.run(&sql).await, u64::from(until - from));
}

/// Sends what is there: everything, or the test fails.
async fn send_all(gateway: &Gateway) {
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "200s"]).await, 0);
}

/// Waits until both ends are equal, while a daemon runs.
async fn all_arrives(scene: &Scene, daemon: &mut Running) -> Comparison {
    let began = Instant::now();
    loop {
        let comparison = scene.compare().await;
        if comparison.is_equal() {
            return comparison;
        }
        assert!(!daemon.ended(), "the daemon never ends by itself");
        assert!(began.elapsed() < Duration::from_mins(2), "not everything arrives:\n{comparison}");
        sleep(Duration::from_millis(300)).await;
    }
}

/// Waits for so many requests for rows.
async fn requests(scene: &Scene, count: usize) {
    let began = Instant::now();
    while scene.proxy.requests_of("/rest/bulk/") < count {
        assert!(began.elapsed() < Duration::from_mins(1), "{} requests", scene.proxy.requests_of("/rest/bulk/"));
        sleep(Duration::from_millis(5)).await;
    }
}

/// With ids of node states, as most gateways have it, and a legacy server that merges a repeated one.
async fn legacy() -> Scene {
    Scene::without_rows(Schema::classic(), "legacy").await
}
