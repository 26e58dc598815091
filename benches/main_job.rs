//! How fast the main job is, on real parts: a private MariaDB, the outbox on the disk, the real receiver over loopback.
//!
//! ```sh
//! cargo bench --bench main_job                          # 1,000,000 readings, three rounds
//! cargo bench --bench main_job -- --readings 100000 --rounds 1
//! ```
//!
//! The one rule: nothing here fails for being slow. The figures are for docs/performance.md and for comparing before and after.

#![allow(clippy::unwrap_used, reason = "a measurement ends where something fails")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use packhorse::{
    capture::{self, Until},
    codec::{self, CHUNK_BYTES_MAX, Run},
    domain::{Entity, Epoch, Freshness, Generation, Micros, Outcome, Position, RemoteId, Retry, Rows, Seq, SourceId, Stream},
    mysql::{
        self, MysqlSource,
        datagen::{DatagenOptions, Houses, Shape, datagen},
    },
    outbox::{OpenOptions, Outbox},
    ports::{Ask, Delivered, Delivery, Keeping, PageRequest, Presence, PushStatus, RemoteEntity, Sink, Source as _, Traffic},
    rest::{self, RestSink},
    sender,
    wire::{self, Manner},
};
use support::{
    Database, Mariadb, Schema,
    gateway::{Central, Gateway},
    load_greenhouse,
};
use tokio_util::sync::CancellationToken;

/// Readings of real data, for bytes a reading.
const GREENHOUSE_READINGS: usize = 200_000;
/// Rows in a page and in a request, as the daemon has them.
const ROWS_MAX: u32 = 10_000;
const ID: SourceId = SourceId(7);

fn main() {
    let (readings, rounds) = (argument("--readings", 1_000_000), argument("--rounds", 3));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Mariadb::private();
        let mut table = Table::default();
        generated(&server, readings, rounds, &mut table).await;
        greenhouse(&server, &mut table).await;
        table.print();
    });
}

/// The number after a flag of the command line.
fn argument(flag: &str, default: u64) -> u64 {
    let mut args = std::env::args().skip_while(|arg| arg != flag).skip(1);
    args.next().map_or(default, |number| number.parse().unwrap_or_else(|_| panic!("{flag} takes a number, not {number}")))
}

/// Readings as a gateway makes them, and nothing beside them.
async fn generated(server: &Mariadb, readings: u64, rounds: u64, table: &mut Table) {
    let source = Database::create(server, Schema::classic()).await;
    let houses = Houses { houses: 10, rooms: 4, sensors: 4, ..Houses::default() };
    let days = (readings as f64 / 160.0).ceil() * houses.interval.as_secs_f64() / 86_400.0;
    let options = DatagenOptions { create_tables: false, shape: Shape::Houses(Houses { days, ..houses }) };
    datagen(&server.url("root", "", source.name()), &options, |_| {}).await.unwrap();
    source.run("TRUNCATE NodeState").await;
    let readings = source.number("SELECT COUNT(*) FROM Reading").await as u64;
    let count = readings as f64;
    eprintln!("{count} readings of 40 nodes in 10 houses");

    let (mut captured, mut delivered) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let job = Job::run(&source).await;
        captured.push(count / job.capture.as_secs_f64());
        delivered.push(count / job.delivery.as_secs_f64());
        eprintln!("captured in {:?}, delivered in {:?}", job.capture, job.delivery);
        table.bytes = vec![
            ("body, a reading", job.body_bytes as f64 / count),
            ("outbox chunks, a reading", job.chunk_bytes as f64 / count),
            ("outbox on the disk, a reading", job.disk_bytes as f64 / count),
        ];
        assert_eq!(job.delivered, readings, "every reading was delivered");
    }
    table.rates.push(("captured into the outbox", captured));
    table.rates.push(("delivered from the outbox to the receiver", delivered));
    let (mut whole, mut peak) = (Vec::new(), 0);
    for _ in 0..rounds {
        let (took, bytes) = whole_program(&source).await;
        whole.push(count / took.as_secs_f64());
        peak = peak.max(bytes);
    }
    table.rates.push(("packhorse run --once, both at once", whole));
    table.peak_bytes = peak;
    let rows = first_rows(&source, 200_000).await;
    table.rates.extend(coding(&rows, rounds));
}

/// What real values take: they compress less well than made ones.
async fn greenhouse(server: &Mariadb, table: &mut Table) {
    let source = Database::create(server, Schema::classic()).await;
    if load_greenhouse(&source, GREENHOUSE_READINGS).await.is_none() {
        return;
    }
    source.run("TRUNCATE NodeState").await;
    let count = source.number("SELECT COUNT(*) FROM Reading").await as f64;
    let job = Job::run(&source).await;
    table.bytes.extend([
        ("body, a reading of the greenhouse", job.body_bytes as f64 / count),
        ("outbox chunks, a reading of the greenhouse", job.chunk_bytes as f64 / count),
    ]);
}

/// The two halves of the main job, one after the other.
struct Job {
    capture: Duration,
    delivery: Duration,
    body_bytes: u64,
    chunk_bytes: u64,
    disk_bytes: u64,
    delivered: u64,
}

impl Job {
    async fn run(source: &Database) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let central = Central::start(dir.path(), "packhorse").await;
        let open = OpenOptions { destination: "central".into(), source: ID, epoch: Epoch(1) };
        let outbox = Outbox::open(&dir.path().join("outbox"), &open).unwrap();
        let stop = CancellationToken::new();

        let began = Instant::now();
        let mut from = MysqlSource::new(mysql::Options::new(source.url())).unwrap();
        let report = capture::run(&mut from, &outbox, &capture_options(), Until::CaughtUp, retry(), &stop).await.unwrap();
        let capture = began.elapsed();
        assert!(report.complete, "everything was captured");
        let (chunk_bytes, disk_bytes) = (outbox.snapshot().live_bytes(), outbox.disk_bytes());

        let sink = Counted { sink: RestSink::new(rest_options(&central)).unwrap(), body_bytes: AtomicU64::new(0) };
        let captured = CancellationToken::new();
        captured.cancel();
        let began = Instant::now();
        sender::run(&outbox, &sink, &sender_options(), Some(&captured), retry(), &stop).await.unwrap();
        let delivery = began.elapsed();
        assert_eq!(outbox.snapshot().pending(), 0, "everything was delivered");
        let delivered = outbox.snapshot().stream(Stream::Reading).acked;
        Self { capture, delivery, body_bytes: sink.body_bytes.into_inner(), chunk_bytes, disk_bytes, delivered }
    }
}

/// The real program from start to end, and the most memory that it held.
async fn whole_program(source: &Database) -> (Duration, u64) {
    let dir = tempfile::tempdir().unwrap();
    let central = Central::start(dir.path(), "packhorse").await;
    let gateway = Gateway::new(&dir.path().join("gateway"), source.url(), central.addr);
    let began = Instant::now();
    let mut running = gateway.spawn(&["-q", "run", "--once"]);
    let status = Path::new("/proc").join(running.0.id().to_string()).join("status");
    let mut peak_bytes = 0;
    while !running.ended() {
        peak_bytes = peak_bytes.max(peak(&std::fs::read_to_string(&status).unwrap_or_default()));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    assert!(running.0.wait().unwrap().success(), "run --once ends well");
    (took, peak_bytes)
}

/// `VmHWM:   12345 kB`.
fn peak(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1_024
}

async fn first_rows(source: &Database, count: usize) -> Rows {
    let mut from = MysqlSource::new(mysql::Options::new(source.url())).unwrap();
    let limit = u32::try_from(count).unwrap();
    from.page(&PageRequest { stream: Stream::Reading, after: Position::Start, before: None, limit }).await.unwrap()
}

/// What encoding and decoding alone can do, on one core.
fn coding(rows: &Rows, rounds: u64) -> Vec<(&'static str, Vec<f64>)> {
    let run =
        Run { epoch: Epoch(1), generation: Generation(0), first: Seq(0), captured_at: Micros(0), freshness: Freshness::New };
    let per_second = |began: Instant| rows.len() as f64 / began.elapsed().as_secs_f64();
    let (mut encoded, mut decoded, mut written) = (Vec::new(), Vec::new(), Vec::new());
    let pages: Vec<Rows> = (0..rows.len())
        .step_by(ROWS_MAX as usize)
        .map(|from| rows.slice(from, rows.len().min(from + ROWS_MAX as usize)))
        .collect();
    for _ in 0..rounds {
        let began = Instant::now();
        let chunks: Vec<_> = pages.iter().flat_map(|page| codec::encode(&run, page, CHUNK_BYTES_MAX)).collect();
        encoded.push(per_second(began));
        let began = Instant::now();
        let count: usize = chunks.iter().map(|chunk| codec::decode(&chunk.bytes).unwrap().1.len()).sum();
        decoded.push(per_second(began));
        assert_eq!(count, rows.len());
        let began = Instant::now();
        let bytes: usize = pages.iter().map(|page| wire::bulk_body(page, Manner::Packhorse).unwrap().len()).sum();
        written.push(per_second(began));
        assert!(bytes > 0);
    }
    vec![("chunks encoded", encoded), ("chunks decoded", decoded), ("bulk bodies written", written)]
}

fn capture_options() -> capture::Options {
    capture::Options {
        poll_interval: Duration::from_millis(100),
        settle: Duration::ZERO,
        page_rows_max: ROWS_MAX,
        outbox_bytes_max: u64::MAX,
        disk_reserve_bytes: 0,
        audit_horizon: Duration::from_hours(720),
        audit_interval: Duration::from_hours(1),
        start: capture::Start::Beginning,
        sent_before: false,
        sending: capture::Sending::On,
        intake: std::sync::Arc::default(),
        clock: || Micros(0),
    }
}

fn sender_options() -> sender::Options {
    sender::Options {
        request_rows_max: ROWS_MAX as usize,
        request_bytes_max: 4 << 20,
        backoff_max: Duration::from_secs(1),
        linger: Duration::ZERO,
        pushstatus_interval: Duration::from_mins(10),
        label: "bench".into(),
        clock: || Micros(0),
        new_epoch: || Epoch(2),
        helm: std::sync::Arc::default(),
    }
}

fn rest_options(central: &Central) -> rest::Options {
    rest::Options {
        url: format!("http://{}/rest/", central.addr),
        auth: rest::Auth::None,
        ca_pem: None,
        client_identity_pem: None,
        proxy: None,
        request_bytes_max: 4 << 20,
        connect_deadline: rest::Options::CONNECT_DEADLINE,
        answer_deadline: rest::Options::ANSWER_DEADLINE,
        stall_deadline: rest::Options::STALL_DEADLINE,
        source: ID,
    }
}

fn retry() -> Retry {
    Retry::new(Duration::from_millis(100), Duration::from_secs(1), Box::new(|| 0.5))
}

/// The REST sink, with its bodies' bytes counted.
struct Counted {
    sink: RestSink,
    body_bytes: AtomicU64,
}

#[async_trait]
impl Sink for Counted {
    async fn deliver(&self, delivery: &Delivery) -> Delivered {
        let delivered = self.sink.deliver(delivery).await;
        self.body_bytes.fetch_add(delivered.body_bytes, Ordering::Relaxed);
        delivered
    }

    async fn find(&self, ask: &Ask) -> Result<Vec<RemoteEntity>, Outcome> {
        self.sink.find(ask).await
    }

    async fn create(&self, id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Result<RemoteEntity, Outcome> {
        self.sink.create(id, entity).await
    }

    async fn update(&self, entity: &RemoteEntity) -> Result<(), Outcome> {
        self.sink.update(entity).await
    }

    async fn put_sensors(&self, sensors: &[Entity<RemoteId>]) -> Result<(), Outcome> {
        self.sink.put_sensors(sensors).await
    }

    async fn push_status(&self, status: &PushStatus) -> Result<(), Outcome> {
        self.sink.push_status(status).await
    }

    async fn count(&self, stream: Stream, node: i64, from: Micros, to: Micros) -> Result<u64, Outcome> {
        self.sink.count(stream, node, from, to).await
    }

    async fn arrived(&self, keys: &Rows) -> Result<Vec<Presence>, Outcome> {
        self.sink.arrived(keys).await
    }

    async fn keeping(&self, stream: Stream) -> Result<Keeping, Outcome> {
        self.sink.keeping(stream).await
    }

    fn traffic(&self) -> Traffic {
        self.sink.traffic()
    }

    fn is_packhorse(&self) -> bool {
        self.sink.is_packhorse()
    }
}

/// All figures of a run.
#[derive(Default)]
struct Table {
    /// Readings a second, one figure a round.
    rates: Vec<(&'static str, Vec<f64>)>,
    bytes: Vec<(&'static str, f64)>,
    peak_bytes: u64,
}

impl Table {
    fn print(mut self) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!("\n{cores} cores, load {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
        println!("{:44} {:>11} {:>11} {:>11}", "readings a second", "middle", "least", "most");
        for (name, figures) in &mut self.rates {
            figures.sort_by(f64::total_cmp);
            let [Some(least), Some(middle), Some(most)] = [figures.first(), figures.get(figures.len() / 2), figures.last()]
            else {
                continue;
            };
            println!("{name:44} {middle:11.0} {least:11.0} {most:11.0}");
        }
        println!("{:44} {:>11}", "bytes", "");
        for (name, bytes) in &self.bytes {
            println!("{name:44} {bytes:11.2}");
        }
        println!("{:44} {:8.1} MB", "peak memory of packhorse run --once", self.peak_bytes as f64 / 1e6);
    }
}
