//! Every kind of bad answer and broken connection, first each alone and then mixed at random, between the daemon and a server in each
//! manner, while rows come in. In the end both sides are equal and nothing is parked: no row was at fault.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use support::{
    Database, Mariadb, Schema, assert_exit, compare,
    gateway::{Central, Gateway},
    greenhouse,
    link::{Conditions, Fault, Link},
};
use tokio::time::sleep;

fn answer(status: &str, head: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{head}\r\n{body}", body.len())
}

const HTML: &str = "Content-Type: text/html\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

/// What may stand in the place of an answer, whether or not the server has seen the request.
fn answers() -> Vec<String> {
    let page = "<html><body>Please accept the terms of use.</body></html>";
    let mut all: Vec<String> = [
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ]
    .iter()
    .flat_map(|status| {
        [answer(status, HTML, page), answer(status, "Connection: close\r\nContent-Type: text/plain\r\n", "trouble")]
    })
    .collect();
    all.extend([
        // Retry-After in seconds, as a date, absurd, garbled.
        answer("503 Service Unavailable", "Retry-After: 1\r\n", ""),
        answer("503 Service Unavailable", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT\r\n", ""),
        answer("429 Too Many Requests", "Retry-After: -7\r\n", ""),
        answer("429 Too Many Requests", "Retry-After: soon\r\n", ""),
        // Captive portals.
        answer("200 OK", HTML, page),
        answer("302 Found", "Location: http://portal.example/login\r\n", ""),
        answer("307 Temporary Redirect", "Location: /elsewhere/\r\n", ""),
        answer("511 Network Authentication Required", HTML, page),
        answer("401 Unauthorized", "WWW-Authenticate: Basic\r\n", ""),
        answer("403 Forbidden", HTML, page),
        answer("404 Not Found", HTML, page),
        answer("407 Proxy Authentication Required", "", ""),
        // JSON that is not what was asked for.
        answer("200 OK", JSON, "[]"),
        answer("201 Created", JSON, "{\"ok\": true}"),
        answer("201 Created", JSON, "[1, 2"),
        answer("201 Created", HTML, "[]"),
        answer("200 OK", JSON, "null"),
        answer("204 No Content", "", ""),
        // Cut short, and not HTTP at all.
        "HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n[]".to_owned(),
        "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(),
        "HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n[]".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        String::new(),
    ]);
    all
}

/// Each kind of fault.
fn faults(random: &mut StdRng) -> Vec<Fault> {
    let mut all = vec![
        Fault::CutUp(0),
        Fault::CutUp(1),
        Fault::CutUp(random.random_range(2..100)),
        Fault::CutUp(random.random_range(100..3_000)),
        Fault::BlackHole,
        Fault::CutDown(0),
        Fault::CutDown(random.random_range(1..150)),
        Fault::Truncate(0),
        Fault::Truncate(random.random_range(1..150)),
        Fault::SlowAnswer(Duration::from_millis(3)),
    ];
    // A server that has stored something does not call it too large.
    all.push(Fault::Instead(answer("413 Payload Too Large", HTML, "")));
    for answer in answers() {
        all.push(Fault::Instead(answer.clone()));
        all.push(Fault::AfterCommit(answer));
    }
    all
}

struct Trial {
    dir: tempfile::TempDir,
    source: Database,
    central: Central,
    link: Link,
    made: u32,
}

impl Trial {
    async fn set(manner: &'static str, schema: Schema) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Database::create(Mariadb::shared(), schema).await;
        greenhouse::load_catalog(&source).await;
        let central = Central::start(dir.path(), manner).await;
        let (delay, jitter) = (Duration::from_millis(2), Duration::from_millis(4));
        let link = Link::start(central.addr, Conditions { delay, jitter, ..Conditions::ideal() });
        Self { dir, source, central, link, made: 0 }
    }

    /// Rows in order, one node state to six readings.
    async fn insert(&mut self, packets: u32) {
        let first = self.made;
        self.made += packets;
        self.source
            .run(&format!(
                "INSERT INTO Reading (time, nodeId, type, locationId, value)
                    SELECT '2024-01-01' + INTERVAL {first} + seq SECOND, 1, type.id, 509, {first} + seq / 8 FROM seq_0_to_{last}, SensorType type;
                 INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                    SELECT '2024-01-01' + INTERVAL {first} + seq SECOND, 1, 0, {first} + seq, seq % 200, -70 FROM seq_0_to_{last}",
                last = packets - 1
            ))
            .await;
    }

    /// Packets whose readings and node state are there.
    async fn arrived(&self) -> i64 {
        let options = SqliteConnectOptions::new().filename(self.central.database()).read_only(true);
        let mut central = options.connect().await.unwrap();
        let packets = "SELECT min((SELECT count(DISTINCT time) FROM NodeState), (SELECT count(*) / 6 FROM Reading))";
        let arrived = sqlx::query_scalar(packets).fetch_one(&mut central).await;
        // The receiver may be writing.
        arrived.unwrap_or(-1)
    }

    /// Whose answer deadline is short, so that a black hole costs little time.
    fn gateway(&self) -> Gateway {
        let gateway = Gateway::new(&self.dir.path().join("gateway"), self.source.url(), self.link.addr());
        gateway.with_env("PACKHORSE_TEST_ANSWER_DEADLINE_SECONDS", "4")
    }

    /// Where the daemon's log goes.
    fn log(&self, manner: &str) -> PathBuf {
        let dir = std::env::var_os("PACKHORSE_TEST_LOG_DIR").map_or_else(|| self.dir.path().to_owned(), PathBuf::from);
        dir.join(format!("chaos-{manner}.log"))
    }

    async fn drain(&self, gateway: &Gateway, log: &Path) {
        let deadline = if is_long() { "30min" } else { "300s" };
        let mut command = gateway.command(&["-v", "--log-format", "json", "run", "--once", "--deadline", deadline]);
        command.stderr(File::options().append(true).create(true).open(log).unwrap());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert_exit(&output, 0);
    }

    async fn end(&self) {
        let comparison = compare(&self.source, self.central.database()).await;
        println!("{} faults met a request\n{comparison}", self.link.faults_met());
        comparison.assert_equal();
    }
}

fn is_long() -> bool {
    std::env::var_os("PACKHORSE_LONG").is_some_and(|long| !long.is_empty())
}

/// What a log says of requests: how many, of how many rows, how long they took.
fn requests(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let (mut rows, mut took, mut refused) = (Vec::new(), 0, 0);
    for line in lines.filter(|line| line["message"] == "request") {
        took += line["took_ms"].as_u64().unwrap();
        if line["outcome"].as_str().unwrap().starts_with("accepted") {
            rows.push(line["rows"].as_u64().unwrap());
        } else {
            refused += 1;
        }
    }
    rows.sort_unstable();
    let middle = rows.get(rows.len() / 2).copied().unwrap_or_default();
    let sum: u64 = rows.iter().sum();
    format!("{} requests accepted, {sum} rows, {middle} in the middle one; {refused} not accepted; {took} ms in all", rows.len())
}

fn seed() -> u64 {
    let seed = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PACKHORSE_TEST_SEED={seed}");
    seed
}

/// Storms, in which nearly every request meets a fault, with calm between them, for a third of a minute, or for ten. Most faults meet a bulk, the
/// others anything.
async fn mixed_at_random(manner: &'static str, schema: Schema) {
    let mut random = StdRng::seed_from_u64(seed());
    let mut trial = Trial::set(manner, schema).await;
    let gateway = trial.gateway().with_request_max("4KiB");
    let log = trial.log(manner);
    let mut daemon = gateway.spawn_logging(&["-v", "--log-format", "json", "run"], &log);
    // In ten minutes as many rows as such small requests carry.
    let (lasts, packets, phase) = if is_long() { (600, 1..15, 10) } else { (20, 1..60, 4) };
    let began = Instant::now();
    while began.elapsed().as_secs() < lasts {
        trial.insert(random.random_range(packets.clone())).await;
        let is_calm = began.elapsed().as_secs() / phase % 3 == 2;
        if !is_calm && trial.link.faults_waiting() < 2 {
            let fault = faults(&mut random).choose(&mut random).unwrap().clone();
            trial.link.aim(if random.random_bool(0.8) { "POST /rest/bulk/" } else { "/rest/" }, fault);
        }
        sleep(Duration::from_millis(random.random_range(20..200))).await;
    }
    assert!(!daemon.ended(), "the daemon never ends by itself");
    daemon.terminate().await;
    println!("{manner}: {} rows came in", u64::from(trial.made) * 7);
    println!("with faults: {}", requests(&log));
    // What waits, which is nearly all of it, goes in requests of the usual size.
    let (began, drain_log) = (Instant::now(), log.with_extension("drain.log"));
    trial.drain(&trial.gateway(), &drain_log).await;
    println!("drained in {:?}: {}", began.elapsed(), requests(&drain_log));
    trial.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_double_and_park_nothing_at_the_receiver() {
    mixed_at_random("packhorse", Schema::classic()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_double_and_park_nothing_at_a_legacy_server() {
    mixed_at_random("legacy", Schema::newest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_at_random_lose_double_and_park_nothing_at_an_older_legacy_server() {
    mixed_at_random("legacy-old", Schema::classic()).await;
}

/// Every kind once, each with rows of its own that must pass it.
async fn each_alone(manner: &'static str, schema: Schema) {
    let mut trial = Trial::set(manner, schema).await;
    // What comes in meets its fault at once.
    let gateway = trial.gateway().with_source("poll_interval", "100ms");
    let daemon = gateway.spawn(&["-q", "run"]);
    let mut random = StdRng::seed_from_u64(seed());
    for fault in faults(&mut random) {
        let met = trial.link.faults_met();
        trial.link.aim("POST /rest/bulk/", fault.clone());
        trial.insert(20).await;
        let began = Instant::now();
        loop {
            if trial.link.faults_met() > met && trial.arrived().await == i64::from(trial.made) {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_mins(3),
                "{} of {} arrived after {fault:?}",
                trial.arrived().await,
                trial.made
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
    drop(daemon);
    trial.drain(&gateway, &trial.log("each")).await;
    trial.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_alone_is_got_over_at_the_receiver() {
    each_alone("packhorse", Schema::classic()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_alone_is_got_over_at_a_legacy_server() {
    each_alone("legacy", Schema::newest()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_alone_is_got_over_at_an_older_legacy_server() {
    each_alone("legacy-old", Schema::classic()).await;
}
