//! Many gateways at once against the real receiver over MariaDB, and `kill -9` of it under that load: what it answered with 201 is there, and
//! nothing is there twice.
//!
//! ```sh
//! PACKHORSE_LONG=1 cargo nextest run --release --test receiver_load --no-capture   # 200 gateways, the figures of docs/performance.md
//! ```

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/central.rs"]
mod central;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use central::{Answer, on, zlib};
use mariadb::Mariadb;
use packhorse::wire::RunAnswer;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, Row as _};

/// How much load.
#[derive(Clone, Copy)]
struct Load {
    gateways: u64,
    /// Runs that each gateway sends, and readings in each.
    runs: u64,
    rows: u64,
    kills: u32,
}

const SMALL: Load = Load { gateways: 12, runs: 6, rows: 100, kills: 2 };
const LARGE: Load = Load { gateways: 200, runs: 5, rows: 500, kills: 5 };

/// `packhorse receiver` as a process of its own, on a port that it keeps.
struct Receiver {
    child: Child,
    address: SocketAddr,
    url: String,
}

impl Receiver {
    fn start(url: String) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut receiver = Self { child: Self::spawn(address, &url), address, url };
        receiver.wait();
        receiver
    }

    fn spawn(address: SocketAddr, url: &str) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_packhorse"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PACKHORSE_")) {
            command.env_remove(name);
        }
        command.args(["-q", "--config", "/dev/null", "receiver", "--listen", &address.to_string(), "--database", url]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
    }

    fn wait(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(began.elapsed() < Duration::from_mins(1) && self.child.try_wait().unwrap().is_none(), "it does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill_and_start(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = Self::spawn(self.address, &self.url);
        self.wait();
    }

    /// How long it has had a processor, in seconds: unlike the time that passes, what else runs here does not change it much.
    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let ticks: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2).map(|text| text.parse().unwrap()).collect();
        ticks.iter().sum::<u64>() as f64 / 100.0
    }

    /// The most memory that it ever had, KiB.
    fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Requests that ended with a 201, and how long each took.
#[derive(Default)]
struct Seen {
    took: Mutex<Vec<Duration>>,
    rows: AtomicU64,
    again: AtomicU64,
}

/// Sends all runs of a gateway in their order, each until it is accepted, over one connection as long as it lasts.
fn gateway(number: u64, load: Load, address: SocketAddr, seen: &Seen) {
    let mut line = None;
    for run in 0..load.runs {
        let first = run * load.rows;
        let rows: Value = (first..first + load.rows)
            .map(|at| {
                let time = format!("2013-01-{:02}T{:02}:{:02}:{:02}", at / 86_400 + 1, at / 3_600 % 24, at / 60 % 60, at % 60);
                json!({"__table__": "Reading", "time": time, "nodeId": number, "type": 0, "locationId": null, "value": at as f64 / 8.0})
            })
            .collect();
        let body = zlib(rows.to_string().as_bytes());
        let (first, end) = (first.to_string(), (first + load.rows).to_string());
        let headers = [
            ("packhorse-source", format!("{number:032x}")),
            ("packhorse-generation", "0".to_owned()),
            ("packhorse-epoch", "00000000000000aa".to_owned()),
            ("packhorse-stream", "reading".to_owned()),
            ("packhorse-first", first.clone()),
            ("packhorse-end", end),
            ("packhorse-cursor", first),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let deadline = Instant::now() + Duration::from_mins(3);
        loop {
            let began = Instant::now();
            match attempt(&mut line, address, &headers, &body) {
                Some(answer) if answer.status == 201 => {
                    let told: RunAnswer = serde_json::from_slice(&answer.body).unwrap();
                    let had: u64 = told.had.iter().map(|(from, to)| to - from).sum();
                    assert_eq!(told.stored + had, load.rows);
                    seen.took.lock().unwrap().push(began.elapsed());
                    seen.rows.fetch_add(load.rows, Ordering::Relaxed);
                    break;
                }
                Some(answer) => assert!(matches!(answer.status, 500 | 503), "{}: {}", answer.status, answer.text()),
                None => line = None,
            }
            seen.again.fetch_add(1, Ordering::Relaxed);
            assert!(Instant::now() < deadline, "gateway {number} is not served");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// One request; `None` when the connection broke.
fn attempt(line: &mut Option<TcpStream>, address: SocketAddr, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
    if line.is_none() {
        let fresh = TcpStream::connect(address).ok()?;
        fresh.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        *line = Some(fresh);
    }
    let line = line.as_mut()?;
    central::try_send(line, address, "POST", "/rest/bulk/", headers, Some(body)).ok()?;
    central::try_receive(line)
}

#[test]
fn nothing_is_lost_or_doubled_by_killing_the_receiver_under_the_load_of_many_gateways() {
    let is_long = std::env::var_os("PACKHORSE_LONG").is_some_and(|long| !long.is_empty());
    let load = if is_long { LARGE } else { SMALL };
    // A server of its own where it is measured: what else runs on a shared one would be in the figures.
    let own;
    let server = if is_long {
        own = Mariadb::private();
        &own
    } else {
        Mariadb::shared()
    };
    let name = format!("phl_{}", std::process::id());
    on(
        &server.admin("mysql"),
        &format!("SET GLOBAL innodb_flush_log_at_trx_commit = 1; DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name}"),
    );
    let mut receiver = Receiver::start(server.url("root", "", &name));
    let nodes: Vec<String> = (0..load.gateways).map(|number| format!("({number})")).collect();
    on(
        &server.admin(&name),
        &format!("INSERT INTO SensorType (id) VALUES (0); INSERT INTO Node (id) VALUES {}", nodes.join(",")),
    );

    let all = load.gateways * load.runs * load.rows;
    let storm = |kills: u32, receiver: &mut Receiver| {
        let seen = Seen::default();
        let began = Instant::now();
        let mut killed = 0;
        std::thread::scope(|scope| {
            let address = receiver.address;
            let running: Vec<_> = (0..load.gateways)
                .map(|number| {
                    scope.spawn({
                        let seen = &seen;
                        move || gateway(number, load, address, seen)
                    })
                })
                .collect();
            // Killed at equal shares of what has been accepted, so that it is always in the middle of it.
            while killed < kills && !running.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                let due = all * u64::from(killed + 1) / u64::from(kills + 1);
                if seen.rows.load(Ordering::Relaxed) >= due {
                    receiver.kill_and_start();
                    killed += 1;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            for gateway in running {
                gateway.join().unwrap();
            }
        });
        (seen, began.elapsed(), killed)
    };

    let (seen, took, killed) = storm(load.kills, &mut receiver);
    assert_eq!(killed, load.kills, "the load was over before the receiver was killed");
    assert!(seen.again.load(Ordering::Relaxed) > 0, "no request met a kill");
    assert_eq!(seen.rows.load(Ordering::Relaxed), all);
    let (rows, distinct, sum) = stored(server, &name);
    let expected_sum = load.gateways as f64 * (0..load.runs * load.rows).map(|at| at as f64 / 8.0).sum::<f64>();
    assert_eq!((rows, distinct), (all, load.gateways), "rows and gateways that are there");
    assert!((sum - expected_sum).abs() < 1e-3, "the values: {sum}, expected {expected_sum}");
    println!("with {killed} kills: {all} readings in {took:?}, {} requests sent again", seen.again.load(Ordering::Relaxed));

    if is_long {
        on(&server.admin(&name), "DELETE FROM Reading; DELETE FROM packhorse_receipt");
        let mut receiver = receiver;
        receiver.kill_and_start();
        let (seen, took, _) = storm(0, &mut receiver);
        let mut each = seen.took.into_inner().unwrap();
        each.sort_unstable();
        let at = |share: f64| each[((each.len() - 1) as f64 * share) as usize];
        println!(
            "undisturbed: {} gateways, {} readings a request: {:.1} requests/s, {:.0} readings/s, p50 {:?}, p99 {:?}, max {:?}, peak memory {} KiB, \
             {:.1} us of processor a reading",
            load.gateways,
            load.rows,
            each.len() as f64 / took.as_secs_f64(),
            all as f64 / took.as_secs_f64(),
            at(0.5),
            at(0.99),
            at(1.0),
            receiver.peak_kib(),
            receiver.cpu_seconds() * 1e6 / all as f64,
        );
        assert_eq!(stored(server, &name).0, all);
    }
    on(&server.admin("mysql"), &format!("DROP DATABASE {name}"));
}

/// Readings, nodes that have some, and the sum of the values.
fn stored(server: &Mariadb, name: &str) -> (u64, u64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut line = MySqlConnection::connect_with(&server.admin(name)).await.unwrap();
        let sql = "SELECT count(*), count(DISTINCT nodeId), sum(value) FROM Reading";
        let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut line).await.unwrap();
        let (rows, nodes): (i64, i64) = (row.get(0), row.get(1));
        (rows as u64, nodes as u64, row.get(2))
    })
}
