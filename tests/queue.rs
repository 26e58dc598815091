//! `packhorse queue ..` on the real program: beside a running daemon, on a stopped outbox, on a damaged one; and what reaches the daemon's windows
//! that should not.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "queue/callers.rs"]
mod callers;
#[path = "queue/damaged.rs"]
mod damaged;
#[path = "queue/million.rs"]
mod million;
#[path = "queue/parked.rs"]
mod parked;
#[path = "queue/reload.rs"]
mod reload;
#[path = "queue/running.rs"]
mod running;
#[path = "queue/stopped.rs"]
mod stopped;
#[path = "queue/watch.rs"]
mod watch;

use std::{process::Output, time::Duration};

use serde_json::Value;
use support::{
    Comparison, Database, Mariadb, Schema, compare,
    gateway::{Central, Gateway, Running},
    greenhouse,
};
use tokio::time::{Instant, sleep};

const READINGS: u64 = 300;
const STATES: u64 = 60;

/// A source with rows, a receiver that is down, and a gateway between them.
struct Scene {
    dir: tempfile::TempDir,
    source: Database,
    central: Central,
    gateway: Gateway,
}

impl Scene {
    async fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Database::create(Mariadb::shared(), Schema::classic()).await;
        greenhouse::load_catalog(&source).await;
        let rows = format!(
            "INSERT INTO Reading (time, nodeId, type, locationId, value)
                 SELECT '2026-01-01' + INTERVAL seq MINUTE, IF(seq % 2, 1, 100), IF(seq % 3, 0, 2), IF(seq % 2, 509, NULL), seq / 7
                 FROM seq_1_to_{READINGS};
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                 SELECT '2026-01-01' + INTERVAL seq MINUTE, 1, 0, seq, seq, -70 FROM seq_1_to_{STATES}"
        );
        source.run(&rows).await;
        let mut central = Central::start(dir.path(), "packhorse").await;
        central.kill();
        let gateway = Gateway::new(&dir.path().join("gateway"), source.url(), central.addr);
        Self { dir, source, central, gateway }
    }

    /// With everything captured and nothing delivered, and nobody running.
    async fn captured() -> Self {
        let scene = Self::set().await;
        code(&scene.gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
        scene
    }

    async fn daemon(&self) -> Running {
        let socket = self.dir.path().join("gateway/packhorse.sock");
        let _ = std::fs::remove_file(&socket);
        let daemon = self.gateway.spawn(&["-qq", "run"]);
        while !socket.exists() {
            sleep(Duration::from_millis(20)).await;
        }
        self.until(&["queue", "status", "--json"], |status| {
            status["destinations"][0]["pending"].as_u64() == Some(READINGS + STATES)
        })
        .await;
        daemon
    }

    async fn json(&self, args: &[&str]) -> Value {
        let output = self.gateway.output(args).await;
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    async fn lines(&self, args: &[&str]) -> Vec<Value> {
        let output = self.gateway.output(args).await;
        code(&output, 0);
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Asks again and again until the answer is as it should be.
    async fn until(&self, args: &[&str], is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.json(args).await;
            if is_so(&answer) {
                return answer;
            }
            assert!(began.elapsed() < Duration::from_mins(3), "{args:?} stays {answer}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn says(&self, args: &[&str], exit: i32, words: &str) -> String {
        let output = self.gateway.output(args).await;
        code(&output, exit);
        let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(all.contains(words), "{args:?} does not say {words:?}:\n{all}");
        all
    }

    async fn comparison(&self) -> Comparison {
        compare(&self.source, self.central.database()).await
    }

    async fn arrives(&self) {
        let began = Instant::now();
        while !self.comparison().await.is_equal() {
            assert!(began.elapsed() < Duration::from_mins(3), "{}", self.comparison().await);
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn signal(name: &str, to: &Running) {
    assert!(std::process::Command::new("kill").args([name, &to.0.id().to_string()]).status().unwrap().success());
}

#[track_caller]
fn code(output: &Output, expected: i32) {
    let all = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(expected), "{all}");
}

/// Everything that only looks must say the same whether a daemon is asked or the files are opened.
async fn every_look_is_right(scene: &Scene) {
    let list = scene.lines(&["queue", "list", "--json", "--limit", "100000"]).await;
    assert_eq!(list.len() as u64, READINGS + STATES);
    for (filter, expected) in [
        (&["--stream", "nodestate"][..], 60),
        (&["--node", "100"], 150),
        (&["--type", "2"], 100),
        (&["--since", "2026-01-01T04:00:00", "--before", "2026-01-01T04:10:00Z"], 10),
        (&["--node", "1", "--type", "2", "--since", "2026-01-01T04:00:00"], 10),
        (&["--node", "7"], 0),
    ] {
        let args = [&["queue", "list", "--json", "--limit", "100000"], filter].concat();
        assert_eq!(scene.lines(&args).await.len(), expected, "{filter:?}");
    }
    let csv = scene.gateway.output(&["queue", "export", "--format", "csv", "--stream", "reading"]).await;
    code(&csv, 0);
    let csv = text(&csv.stdout);
    assert_eq!(csv.lines().next(), Some("destination,stream,seq,parked_at,reason,time,nodeId,type,locationId,value"));
    assert_eq!(csv.lines().nth(2), Some("central,reading,1,,,2026-01-01T00:02:00,100,0,,0.2857143"));
    assert_eq!(csv.lines().count() as u64, READINGS + 1);
    let file = scene.dir.path().join("export.jsonl");
    code(&scene.gateway.output(&["-q", "queue", "export", "--output", file.to_str().unwrap()]).await, 0);
    let exported: Vec<Value> =
        std::fs::read_to_string(&file).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(exported, list);

    let shown = scene.json(&["queue", "show", "reading", "0", "--json"]).await;
    assert_eq!((shown["record"]["nodeId"].as_i64(), shown["freshness"].as_str()), (Some(1), Some("new")), "{shown}");
    assert!(shown["refers"].as_array().unwrap().iter().any(|refers| refers["entity"] == "Node 1"), "{shown}");
    scene.says(&["queue", "show", "nodestate", "59"], 0, "seq_num").await;
    scene.says(&["queue", "show", "reading", "300"], 2, "there is no reading 300 yet").await;
    scene.says(&["queue", "verify"], 0, "360 records read: every checksum, seq and count is right").await;
    scene.says(&["queue", "parked", "list"], 0, "nothing is parked").await;
    assert_eq!(scene.json(&["queue", "parked", "list", "--json"]).await, serde_json::json!({"groups": []}));
    for bad in [
        &["queue", "list", "--stream", "weather"][..],
        &["queue", "list", "--since", "yesterday"],
        &["queue", "list", "--node", "seven"],
        &["queue", "parked", "retry"],
        &["queue", "parked", "discard", "--all", "--reason", "x"],
        &["queue", "parked", "discard", "--all"],
        &["queue", "rewind", "--since", "2026-01-01"],
        &["queue", "rewind", "--since", "soon", "--yes"],
        &["queue", "status", "--destination", "other"],
    ] {
        let output = scene.gateway.output(bad).await;
        // Without a terminal and without --yes nothing that changes rows is done; with nothing parked nothing is asked.
        code(&output, 2);
    }
}
