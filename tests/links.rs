//! What a poor link carries, between the real programs: everything arrives, and the share of the link's bytes that is used while it is up, beside
//! one large upload by curl through the same link. Recorded links are replayed faster than they were, and all of the program's own times with them.
//!
//! ```sh
//! PACKHORSE_LONG=1 cargo nextest run --release --features failpoints --test links --no-capture   # the figures of docs/performance.md
//! ```

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use sqlx::{ConnectOptions as _, sqlite::SqliteConnectOptions};
use support::{
    Database, Mariadb, Schema, assert_exit,
    gateway::{Central, Gateway, Running},
    greenhouse,
    link::{Conditions, Link, Rate},
};
use tokio::{
    io::AsyncReadExt as _,
    net::TcpListener,
    time::{Instant, sleep},
};

/// A link, in the time of life.
struct Uplink {
    name: String,
    rate: Rate,
    round_trip: Duration,
    seconds: u64,
    speed_up: u64,
}

/// What a transfer made of a link.
#[derive(Debug)]
struct Used {
    capacity: u64,
    carried: u64,
    /// Bytes of bodies that arrived.
    useful: u64,
    /// Seconds that bodies which arrived were on their way, and that their answers took from then on.
    uploading: f64,
    answering: f64,
}

impl Uplink {
    fn steady(bytes_per_second: u64, seconds: u64, speed_up: u64) -> Self {
        let rate = Rate::Steady(bytes_per_second);
        let name = format!("{} kbit/s, round trip 600 ms", bytes_per_second * 8 / 1_000);
        Self { name, rate, round_trip: Duration::from_millis(600), seconds, speed_up }
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            up: self.rate.clone(),
            down: self.rate.clone(),
            delay: self.round_trip / 2 / self.speed_up as u32,
            jitter: self.round_trip / 10 / self.speed_up as u32,
            speed_up: self.speed_up,
        }
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs(self.seconds) / self.speed_up as u32
    }

    /// Bytes that it can carry.
    fn bytes(&self) -> u64 {
        match &self.rate {
            Rate::Steady(rate) => rate * self.seconds,
            Rate::Trace(bytes) => bytes.iter().cycle().take(self.seconds as usize).sum(),
        }
    }
}

fn is_long() -> bool {
    std::env::var_os("PACKHORSE_LONG").is_some_and(|long| !long.is_empty())
}

/// A recording from a second on; `None`, with a message, where the data for tests is not there.
fn recorded(name: &str, from: usize, seconds: u64, speed_up: u64) -> Option<Uplink> {
    let path = shared(&format!("data/uplink/{name}.csv.xz"))?;
    let Rate::Trace(bytes) = Rate::trace(&path) else { unreachable!("a recording") };
    let part: Vec<u64> = bytes.iter().copied().skip(from).take(seconds as usize).collect();
    let outages = part.windows(2).filter(|pair| pair[0] > 0 && pair[1] == 0).count();
    let name = format!("{name}, seconds {from} to {}, {outages} outages", from as u64 + seconds);
    Some(Uplink { name, rate: Rate::Trace(Arc::new(part)), round_trip: Duration::from_millis(120), seconds, speed_up })
}

/// 128 kbit/s between the recorded outages of up to a quarter of an hour, five minutes each time.
fn outages() -> Option<Uplink> {
    let text = std::fs::read_to_string(shared("data/uplink/smokeping_rs_outages.csv")?).unwrap();
    let lasts = text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap().parse::<usize>().unwrap());
    let mut short: Vec<usize> = lasts.filter(|seconds| *seconds <= 900).collect();
    short.truncate(5);
    let seconds: Vec<u64> = short.iter().flat_map(|outage| [vec![16_000; 300], vec![0; *outage]].concat()).collect();
    let name = format!("128 kbit/s, every five minutes one of {} outages of 5 to 15 minutes", short.len());
    let lasts = seconds.len() as u64;
    Some(Uplink {
        name,
        rate: Rate::Trace(Arc::new(seconds)),
        round_trip: Duration::from_millis(600),
        seconds: lasts,
        speed_up: 10,
    })
}

fn shared(path: &str) -> Option<PathBuf> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let path = std::env::var_os("PACKHORSE_SHARED").map_or(beside, PathBuf::from).join(path);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: there is no {} (set PACKHORSE_SHARED)", path.display());
    None
}

/// More rows than a link can carry in its time, of values that compress badly: a node state takes some 25 bytes of a body.
async fn fill(source: &Database, bytes: u64) -> u64 {
    let rows = bytes / 20 + 2_000;
    for first in (0..rows).step_by(100_000) {
        let last = 100_000.min(rows - first) - 1;
        source
            .run(&format!(
                "INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                    SELECT '2020-01-01' + INTERVAL {first} + seq SECOND, 1, 4294967296 * rand() - 2147483648,
                           9007199254740992 * rand(), ({first} + seq) % 256, -100 * rand() FROM seq_0_to_{last}"
            ))
            .await;
    }
    rows
}

struct Trial {
    dir: tempfile::TempDir,
    source: Database,
    rows: u64,
    central: Central,
}

impl Trial {
    async fn set(bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Database::create(Mariadb::shared(), Schema::classic()).await;
        greenhouse::load_catalog(&source).await;
        let central = Central::start(dir.path(), "packhorse").await;
        // The catalog is brought over before: 145 requests, once in a gateway's life, are not what is measured.
        let link = Link::start(central.addr, Conditions::ideal());
        let mut trial = Self { dir, source, rows: 0, central };
        assert_exit(&trial.gateway(&link, 10).output(&["run", "--once", "--deadline", "120s"]).await, 0);
        trial.rows = fill(&trial.source, bytes).await;
        trial
    }

    fn gateway(&self, link: &Link, speed_up: u64) -> Gateway {
        let gateway = Gateway::new(&self.dir.path().join("gateway"), self.source.url(), link.addr());
        let config = std::fs::read_to_string(gateway.config()).unwrap();
        let kept: Vec<&str> = config.lines().filter(|line| !line.starts_with("backoff_")).collect();
        std::fs::write(gateway.config(), kept.join("\n")).unwrap();
        gateway.with_env("PACKHORSE_TEST_SPEED_UP", speed_up.to_string())
    }

    /// The daemon works as long as the link lasts.
    async fn work(&self, uplink: &Uplink) -> (Link, Gateway, Used) {
        let link = Link::start(self.central.addr, uplink.conditions());
        let gateway = self.gateway(&link, uplink.speed_up);
        let kept = std::env::var_os("PACKHORSE_TEST_LOG_DIR")
            .map(|dir| PathBuf::from(dir).join(format!("links-{}.log", std::process::id())));
        let log = kept.unwrap_or_else(|| self.dir.path().join("log"));
        let mut command = gateway.command(&["-v", "--log-format", "json", "run"]);
        let mut daemon = Running(command.stdout(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap());
        sleep(uplink.lasts()).await;
        assert!(!daemon.ended(), "the daemon never ends by itself");
        let (capacity, carried) = (link.capacity(), link.carried());
        daemon.terminate().await;
        (link, gateway, accepted(&log, capacity, carried))
    }

    /// The rest over an ideal link; then everything is there, once.
    async fn drain(&self, link: &Link, gateway: &Gateway) {
        link.set(Conditions::ideal());
        assert_exit(&gateway.output(&["run", "--once", "--deadline", "280s"]).await, 0);
        let options = SqliteConnectOptions::new().filename(self.central.database()).read_only(true);
        let counted = "SELECT count(*), count(DISTINCT time), sum(localtime % 1000003) FROM NodeState";
        let there: (i64, i64, i64) = sqlx::query_as(counted).fetch_one(&mut options.connect().await.unwrap()).await.unwrap();
        let sum = self.source.number("SELECT CAST(sum(`localtime` % 1000003) AS SIGNED) FROM NodeState").await;
        assert_eq!(there, (self.rows as i64, self.rows as i64, sum), "rows, seconds and a sum");
    }
}

/// What was accepted, by the daemon's log.
fn accepted(log: &Path, capacity: u64, carried: u64) -> Used {
    let text = std::fs::read_to_string(log).unwrap();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let requests =
        lines.filter(|line| line["message"] == "request" && line["outcome"].as_str().unwrap_or("").starts_with("accepted"));
    let figures = ["rows", "body_bytes", "uploaded_ms", "took_ms"];
    let mut used = Used { capacity, carried, useful: 0, uploading: 0.0, answering: 0.0 };
    for request in requests {
        let figure = |name: &str| request[name].as_u64().unwrap();
        used.useful += figure("body_bytes");
        used.uploading += figure("uploaded_ms") as f64 / 1_000.0;
        used.answering += (figure("took_ms") - figure("uploaded_ms")) as f64 / 1_000.0;
        if std::env::var_os("PACKHORSE_TEST_SHOW_REQUESTS").is_some() {
            println!("  {} {}", request["timestamp"], figures.map(|figure| format!("{figure} {}", request[figure])).join(", "));
        }
    }
    used
}

/// One upload that lasts longer than the link.
async fn curl(uplink: &Uplink) -> Used {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let reading = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut piece = vec![0; 1 << 16];
        while stream.read(&mut piece).await.is_ok_and(|count| count > 0) {}
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("upload");
    File::create(&path).unwrap().write_all(&vec![b'x'; uplink.bytes() as usize * 11 / 10 + 100_000]).unwrap();
    let link = Link::start(addr, uplink.conditions());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-o", "/dev/null", "-H", "Expect:", "-T"]).arg(&path).arg(format!("http://{}/", link.addr()));
    let running = Running(curl.stdin(Stdio::null()).spawn().expect("curl runs (package curl)"));
    sleep(uplink.lasts()).await;
    let carried = link.carried();
    let used =
        Used { capacity: link.capacity(), carried, useful: carried, uploading: uplink.lasts().as_secs_f64(), answering: 0.0 };
    drop(running);
    reading.abort();
    used
}

async fn show(uplink: &Uplink) {
    let trial = Trial::set(uplink.bytes()).await;
    // Beside it, each over a link of its own.
    let beside = async { if is_long() { Some(curl(uplink).await) } else { None } };
    let ((link, gateway, used), curl) = tokio::join!(trial.work(uplink), beside);
    let share = |used: &Used| format!("{:.1} %", used.useful as f64 * 100.0 / used.capacity as f64);
    let carried = used.carried as f64 * 100.0 / used.capacity as f64;
    println!("{}, {} times as fast", uplink.name, uplink.speed_up);
    println!("  packhorse: bodies that arrived {}, carried {carried:.1} % ({used:?})", share(&used));
    assert!(used.useful > 0, "something arrives while the link is like that");
    if let Some(curl) = curl {
        println!("  curl: {} ({curl:?})", share(&curl));
    }
    let began = Instant::now();
    trial.drain(&link, &gateway).await;
    println!("  the rest of {} rows in {:?}", trial.rows, began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_link_with_a_long_round_trip_carries_what_it_can() {
    // The figure for this one is taken as fast as in life: a machine's own time would count ten times.
    let (seconds, speed_up) = if is_long() { (240, 1) } else { (150, 10) };
    show(&Uplink::steady(16_000, seconds, speed_up)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_kilobytes_a_second_are_enough() {
    let (seconds, speed_up) = if is_long() { (600, 2) } else { (150, 10) };
    show(&Uplink::steady(2_000, seconds, speed_up)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_through_the_country_is_got_over() {
    // The poorest half hour of two, with outages of up to 196 s.
    let (from, seconds, speed_up) = if is_long() { (3_000, 1_800, 6) } else { (4_000, 150, 10) };
    let Some(uplink) = recorded("riiser_car.aarnes-elverum", from, seconds, speed_up) else { return };
    show(&uplink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_uplink_in_a_moving_car_is_got_over() {
    if !is_long() {
        return;
    }
    let Some(uplink) = recorded("mahimahi_ATT-LTE-driving.up", 0, 400, 5) else { return };
    show(&uplink).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_of_minutes_are_got_over() {
    if !is_long() {
        return;
    }
    let Some(uplink) = outages() else { return };
    show(&uplink).await;
}
