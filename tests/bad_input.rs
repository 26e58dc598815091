//! What people get wrong and what the world gets wrong, on the real program: each is told in one clear line that says what to do, without
//! a secret in it, with the right exit code; the daemon waits and goes on by itself when the cause is gone; and nothing is lost.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[path = "bad_input/configuration.rs"]
mod configuration;
#[path = "bad_input/destination.rs"]
mod destination;
#[path = "bad_input/disk.rs"]
mod disk;
#[path = "bad_input/doctor.rs"]
mod doctor;
#[path = "bad_input/dropping.rs"]
mod dropping;
#[path = "bad_input/queue.rs"]
mod queue;
#[path = "bad_input/source.rs"]
mod source;

use std::{collections::BTreeSet, fs::File, net::SocketAddr, path::PathBuf, process::Output, time::Duration};

use serde_json::Value;
use support::{
    Database, Mariadb, Schema, compare,
    gateway::{Central, Gateway, Running},
    greenhouse, is_equal,
};
use tokio::time::{Instant, sleep};

/// Readings of the scene.
const READINGS: i64 = 300;
/// Node states of the scene.
const STATES: i64 = 60;
/// What must be in no output: the database's password and what tests use as others.
const SECRETS: [&str; 3] = [":secret@", "'secret'", "hunter2"];

/// A source with rows, a receiver, and a gateway between them.
struct Scene {
    dir: tempfile::TempDir,
    source: Database,
    central: Central,
    gateway: Gateway,
}

impl Scene {
    async fn set() -> Self {
        Self::on(Mariadb::shared()).await
    }

    async fn on(server: &Mariadb) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Database::create(server, Schema::classic()).await;
        fill(&source).await;
        let central = Central::start(dir.path(), "packhorse").await;
        let gateway = Gateway::new(&dir.path().join("gateway"), source.url(), central.addr);
        Self { dir, source, central, gateway }
    }

    /// The same with somebody else in the destination's place.
    fn behind(self, front: SocketAddr) -> Self {
        let gateway = Gateway::new(&self.dir.path().join("gateway"), self.source.url(), front);
        Self { gateway, ..self }
    }

    /// `run --once`, which may wait so long for the destination.
    async fn once(&self) -> Output {
        self.gateway.output(&["run", "--once", "--deadline", "5s"]).await
    }

    async fn check(&self) -> Output {
        self.gateway.output(&["check"]).await
    }

    /// The daemon, with its log in a file.
    fn daemon(&self) -> Daemon {
        let path = self.dir.path().join("daemon.log");
        let log = File::create(&path).unwrap();
        let child = self.gateway.command(&["run"]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Daemon { running: Running(child), path }
    }

    /// Waits until every row has arrived.
    async fn arrives(&self) {
        let began = Instant::now();
        while !is_equal(&self.source, self.central.database()).await {
            assert!(
                began.elapsed() < Duration::from_mins(2),
                "not everything arrives:\n{}",
                compare(&self.source, self.central.database()).await
            );
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(self.source.number("SELECT COUNT(*) FROM Reading").await, READINGS);
    }

    /// After the trouble: nothing is left, nothing was lost or doubled, and check is content.
    async fn all_is_well(&self) {
        told(&self.once().await, 0, &[]);
        compare(&self.source, self.central.database()).await.assert_equal();
        let check = self.check().await;
        told(&check, 0, &[]);
        assert!(!stdout(&check).contains("problem "), "{}", stdout(&check));
    }

    /// One trouble through all commands: `check` and `run --once` tell it and end with their codes; the daemon tells it once and waits,
    /// and goes on when it is mended.
    async fn trouble(&self, words: &str, check: i32, once: i32, mend: impl AsyncFnOnce(&Self)) {
        told(&self.check().await, check, &["problem ", words]);
        told(&self.once().await, once, &[words]);
        let mut daemon = self.daemon();
        daemon.says(words).await;
        sleep(Duration::from_secs(3)).await;
        assert!(!daemon.running.ended(), "the daemon waits:\n{}", daemon.log());
        assert_eq!(daemon.lines(words).len(), 1, "it is told once:\n{}", daemon.log());
        mend(self).await;
        self.arrives().await;
        daemon.ends_well().await;
        self.all_is_well().await;
    }
}

/// The catalog, and rows of two nodes: one with a room, one without.
async fn fill(source: &Database) {
    greenhouse::load_catalog(source).await;
    let rows = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT '2026-01-01' + INTERVAL seq MINUTE, IF(seq % 2, 1, 100), 0, IF(seq % 2, 509, NULL), seq / 7 FROM seq_1_to_{READINGS};
         INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
             SELECT '2026-01-01' + INTERVAL seq MINUTE, 1, 0, seq, seq, -70 FROM seq_1_to_{STATES}"
    );
    source.run(&rows).await;
}

/// A daemon whose log is read.
struct Daemon {
    running: Running,
    path: PathBuf,
}

impl Daemon {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.path).unwrap()
    }

    fn lines(&self, words: &str) -> Vec<String> {
        self.log().lines().filter(|line| line.contains(words)).map(str::to_owned).collect()
    }

    async fn says(&mut self, words: &str) {
        let began = Instant::now();
        while self.lines(words).is_empty() {
            assert!(!self.running.ended(), "the daemon ended:\n{}", self.log());
            assert!(began.elapsed() < Duration::from_secs(40), "the daemon does not say {words:?}:\n{}", self.log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn ends_well(&mut self) {
        let (status, took) = self.running.terminate().await;
        assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}:\n{}", self.log());
        assert_no_secret(&self.log());
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_no_secret(text: &str) {
    for secret in SECRETS {
        assert!(!text.contains(secret), "a secret is told:\n{text}");
    }
}

/// Asserts the exit code, that exactly one line of all that was said holds the words, and that no secret is in any.
#[track_caller]
fn told(output: &Output, code: i32, words: &[&str]) {
    let all = format!("{}{}", stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert_no_secret(&all);
    if !words.is_empty() {
        let lines = all.lines().filter(|line| words.iter().all(|word| line.contains(word))).count();
        assert_eq!(lines, 1, "{words:?} is told in one line:\n{all}");
    }
}

/// A command's examples in docs/cli.md.
fn block(command: &str, kind: &str) -> &'static str {
    let section =
        include_str!("../docs/cli.md").split("\n## ").find(|section| section.starts_with(&format!("`packhorse {command}`")));
    section.unwrap().split(&format!("```{kind}\n")).nth(1).unwrap().split("```").next().unwrap()
}

/// The JSON of them.
fn documented(command: &str, kind: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(block(command, kind)).into_iter().map(Result::unwrap).collect()
}

#[test]
fn the_documentation_has_json_as_it_is_printed_but_for_its_layout() {
    for command in ["check", "queue status"] {
        let printed = documented(command, "json").iter().map(|value| format!("{value:#}\n")).collect::<Vec<_>>();
        assert_eq!(printed, [block(command, "json")]);
    }
}

/// The paths of all keys in a JSON value; the elements of a list count as one.
fn keys(value: &Value) -> BTreeSet<String> {
    let below = |name: &str, value: &Value| keys(value).into_iter().map(|path| format!("{name}.{path}")).collect::<Vec<_>>();
    match value {
        Value::Object(map) => map.iter().flat_map(|(name, value)| [below(name, value), vec![name.clone()]].concat()).collect(),
        Value::Array(list) => list.iter().flat_map(keys).collect(),
        _ => BTreeSet::new(),
    }
}
