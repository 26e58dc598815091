//! The daemon under a service manager: what that is told, when it ends, and what it logs.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "service/log.rs"]
mod log;
#[path = "service/notify.rs"]
mod notify;
#[path = "service/owner.rs"]
mod owner;
#[path = "service/stop.rs"]
mod stop;
#[path = "service/unit.rs"]
mod unit;

use std::time::Duration;

use support::{
    Scene, Schema,
    gateway::{Gateway, Running},
};
use tokio::time::{Instant, sleep};

/// Until it is so; whoever waits in vain is told what for.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_mins(3), "this does not come about: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// So many readings of a node.
async fn readings(scene: &Scene, rows: u64) {
    let rows = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT '2025-01-01' + INTERVAL seq MINUTE, 1, 0, 509, seq FROM seq_1_to_{rows}"
    );
    scene.source.run(&rows).await;
}

/// What waits, as a running daemon says it; `None` while it does not answer.
async fn pending(gateway: &Gateway) -> Option<u64> {
    let output = gateway.output(&["queue", "status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    (output.status.code() == Some(0)).then(|| status["destinations"][0]["pending"].as_u64())?
}

/// Everything is at the other end, once and right.
async fn arrives(scene: &Scene) {
    until("everything has arrived", async || scene.compare().await.is_equal()).await;
}
