//! The daemon, the database and the receiver are killed with -9 at random while rows come in that are made to be missed: in order, late,
//! many in one second, out of id order, in transactions that stay open or are rolled back. Answers are lost before and after the commit at
//! the centre. Some kills wait for the daemon to be within append, sync, ack or compaction. In the end both sides are equal.
//!
//! `PACKHORSE_TEST_SEED` repeats the choices (not the timing); `PACKHORSE_STORM_KILLS` sets the number of kills.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use packhorse::edge;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection, mysql::MySqlConnectOptions};
use support::{
    Comparison, Database, Mariadb, Schema, assert_exit, compare,
    gateway::{Central, Gateway, Running},
    greenhouse,
    link::{Conditions, Fault, Link, Rate},
};
use tokio::{task::JoinSet, time::sleep};

/// Where a kill is to meet the daemon: the edge after which it is held up for a while, as `fail` takes it.
const WITHIN: &[&str] = &["append:encoded", "commit:flushed", "ack:encoded", "compact:filled", "compact:current"];

fn kills_wanted() -> usize {
    let asked = std::env::var("PACKHORSE_STORM_KILLS").ok().and_then(|kills| kills.parse().ok());
    asked.unwrap_or(if std::env::var_os("PACKHORSE_LONG").is_some() { 500 } else { 15 })
}

fn seed() -> u64 {
    let seed = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PACKHORSE_TEST_SEED={seed}");
    seed
}

/// One way in which rows come in.
#[derive(Clone, Copy, Debug)]
enum Habit {
    /// As a healthy gateway does.
    InOrder,
    /// Seconds to a week behind.
    Late,
    /// As many as one second holds.
    OneSecond,
    /// Ids that go down, and ids that are never used.
    OutOfIdOrder,
    /// Committed seconds after they were written, or not at all.
    LongTransactions,
}

const HABITS: [Habit; 5] = [Habit::InOrder, Habit::Late, Habit::OneSecond, Habit::OutOfIdOrder, Habit::LongTransactions];

/// Writes rows until told to stop. That the database is killed under it is part of the game: whether the last rows were committed shows in
/// the comparison of both ends, which asks the database.
struct Writer {
    options: MySqlConnectOptions,
    habit: Habit,
    random: StdRng,
    /// Nodes of its own, so that no two writers make the same key.
    node: u32,
    made: u64,
    /// Where it counts down from.
    top: i64,
    written: Arc<AtomicU64>,
    stop: tokio_util::sync::CancellationToken,
}

impl Writer {
    async fn run(mut self) {
        let mut connection: Option<MySqlConnection> = None;
        while !self.stop.is_cancelled() {
            let Some(open) = &mut connection else {
                connection = MySqlConnection::connect_with(&self.options).await.ok();
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            if self.write(open).await.is_err() {
                connection = None;
            }
            sleep(Duration::from_millis(self.random.random_range(20..150))).await;
        }
    }

    async fn write(&mut self, connection: &mut MySqlConnection) -> sqlx::Result<()> {
        self.made += 1;
        let (node, made) = (self.node, self.made);
        let count = self.random.random_range(1..40);
        let behind_seconds: i64 = match self.habit {
            Habit::InOrder | Habit::OneSecond | Habit::LongTransactions | Habit::OutOfIdOrder => 0,
            Habit::Late => match self.random.random_range(0..3) {
                0 => self.random.random_range(5..60),
                1 => self.random.random_range(60..7_200),
                _ => self.random.random_range(7_200..604_800),
            },
        };
        // Equal times are made unlike by the type; what is there already is left as it is.
        let readings = match self.habit {
            Habit::OneSecond => format!(
                "INSERT IGNORE INTO Reading (time, nodeId, type, value)
                    SELECT UTC_TIMESTAMP(), node.id, type.id, {made} FROM Node node, SensorType type WHERE node.id BETWEEN {node} AND {node} + 9"
            ),
            _ => format!(
                "INSERT IGNORE INTO Reading (time, nodeId, type, locationId, value)
                    SELECT UTC_TIMESTAMP() - INTERVAL {behind_seconds} SECOND, {node} + seq % 10, type.id, 509, {made} + seq / 128
                    FROM seq_0_to_9, SensorType type WHERE seq < {count}"
            ),
        };
        let id = match self.habit {
            // Twenty at a time from the highest down; the hundred below them is never used.
            Habit::OutOfIdOrder => {
                if made % 20 == 1 {
                    let top = "SELECT COALESCE(MAX(id), 0) + 120 FROM NodeState";
                    self.top = sqlx::query_scalar(top).fetch_one(&mut *connection).await?;
                }
                (self.top - (made % 20) as i64).to_string()
            }
            Habit::InOrder | Habit::Late | Habit::OneSecond | Habit::LongTransactions => "NULL".to_owned(),
        };
        let states = format!(
            "INSERT IGNORE INTO NodeState (id, time, nodeId, parent, `localtime`, seq_num, rssi)
                VALUES ({id}, UTC_TIMESTAMP() - INTERVAL {behind_seconds} SECOND, {node}, 0, {made}, {made}, -60)"
        );
        let is_long = matches!(self.habit, Habit::LongTransactions);
        let run = async |connection: &mut MySqlConnection, sql: String| {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(|done| done.rows_affected())
        };
        if is_long {
            run(connection, "BEGIN".into()).await?;
        }
        let rows = run(connection, readings).await? + run(connection, states).await?;
        if is_long {
            sleep(Duration::from_millis(self.random.random_range(100..4_000))).await;
            let end = if self.random.random_bool(0.3) { "ROLLBACK" } else { "COMMIT" };
            run(connection, end.into()).await?;
        }
        self.written.fetch_add(rows, Ordering::Relaxed);
        Ok(())
    }
}

/// What can be killed, and what became of the kills.
struct Storm {
    dir: tempfile::TempDir,
    mariadb: Mariadb,
    source: Database,
    central: Central,
    link: Link,
    gateway: Gateway,
    daemon: Running,
    random: StdRng,
    /// Kills by what was killed, and of the daemon by where it stood.
    kills: BTreeMap<String, usize>,
}

impl Storm {
    async fn begin(manner: &'static str, schema: Schema, seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mariadb = Mariadb::private();
        let source = Database::create(&mariadb, schema).await;
        greenhouse::load_catalog(&source).await;
        source.run("INSERT INTO Node (id, locationId) SELECT seq, 503 FROM seq_1000_to_1099").await;
        keep_commits(&source).await;
        let central = Central::start(dir.path(), manner).await;
        let link = Link::start(central.addr, Conditions::ideal());
        let gateway = Gateway::new(&dir.path().join("gateway"), source.url(), link.addr())
            .with_request_max("8KiB")
            .with_env("PACKHORSE_TEST_EDGES", dir.path().join("edges").display().to_string());
        let daemon = gateway.spawn(&["-q", "run"]);
        Self { dir, mariadb, source, central, link, gateway, daemon, random: StdRng::seed_from_u64(seed), kills: BTreeMap::new() }
    }

    fn edges(&self) -> PathBuf {
        self.dir.path().join("edges")
    }

    fn count(&mut self, what: &str) {
        *self.kills.entry(what.to_owned()).or_default() += 1;
    }

    /// Kills something, and brings it up again.
    async fn kill(&mut self, number: usize) {
        match self.random.random_range(0..10) {
            _ if number < WITHIN.len() => self.kill_daemon_within(WITHIN[number]).await,
            0 | 1 => {
                self.mariadb.kill();
                self.count("database");
                sleep(Duration::from_millis(self.random.random_range(0..1_500))).await;
                self.mariadb.start();
                keep_commits(&self.source).await;
            }
            2 | 3 => {
                self.central.kill();
                self.count("receiver");
                sleep(Duration::from_millis(self.random.random_range(0..1_500))).await;
                self.central.restart().await;
            }
            _ => self.end_daemon(&[]),
        }
    }

    /// Lets the daemon dwell at an edge, and kills it there.
    async fn kill_daemon_within(&mut self, edge: &'static str) {
        let passes = self.random.random_range(0..4);
        self.end_daemon(&[("FAILPOINTS", format!("compact:wanted=return;{edge}={passes}*off->1*sleep(5000)->off"))]);
        let began = Instant::now();
        // It stands there when nothing else has been passed for a while.
        let mut stands = 0;
        while stands < 40 {
            assert!(began.elapsed() < Duration::from_mins(1), "the daemon is never held up at {edge}");
            stands = if passed_last(&self.edges()).iter().any(|passed| passed == edge) { stands + 1 } else { 0 };
            sleep(Duration::from_millis(1)).await;
        }
        self.end_daemon(&[]);
    }

    /// Kills the daemon where it stands, and starts the next one with this environment.
    fn end_daemon(&mut self, env: &[(&'static str, String)]) {
        assert!(!self.daemon.ended(), "the daemon never ends by itself");
        self.daemon.kill();
        let stood = passed_last(&self.edges());
        self.count(&format!("daemon {}", within(&stood)));
        self.gateway.set_env("FAILPOINTS", "compact:wanted=10%return;copy:wanted=10%return");
        for (name, value) in env {
            self.gateway.set_env(name, value.clone());
        }
        std::fs::write(self.edges(), "").unwrap();
        self.daemon = self.gateway.spawn(&["-q", "run"]);
    }

    async fn trouble_on_the_link(&mut self) {
        match self.random.random_range(0..6) {
            // After the commit at the centre, and before it.
            0 => self.link.aim("POST /rest/bulk/", Fault::CutDown(0)),
            1 => self.link.aim("POST /rest/bulk/", Fault::CutUp(self.random.random_range(1..2_000))),
            2 => self.link.aim("/rest/", Fault::CutDown(0)),
            3 => {
                self.link.set(Conditions { up: Rate::Steady(0), down: Rate::Steady(0), ..Conditions::ideal() });
                sleep(Duration::from_millis(self.random.random_range(0..800))).await;
                self.link.set(Conditions::ideal());
            }
            _ => {}
        }
    }

    /// Lets everything settle, and compares.
    async fn end(mut self) -> Comparison {
        self.daemon.kill();
        self.gateway.set_env("FAILPOINTS", "");
        assert_exit(&self.gateway.output(&["run", "--once", "--deadline", "300s"]).await, 0);
        let comparison = compare(&self.source, self.central.database()).await;
        println!("{comparison}");
        println!("kills: {:?}; faults of the link: {}", self.kills, self.link.faults_met());
        comparison
    }
}

/// The edges that each operation passed last.
fn passed_last(edges: &Path) -> Vec<String> {
    let text = std::fs::read(edges).unwrap_or_default();
    let lines =
        text.chunks(edge::LINE_BYTES).map(|line| String::from_utf8_lossy(line).trim_matches(['\0', ' ', '\n']).to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// The operations that a daemon is in that passed these edges last.
fn within(edges: &[String]) -> String {
    let operations: Vec<&str> = edges
        .iter()
        .filter_map(|edge| match edge.as_str() {
            "append:encoded" => Some("append"),
            "commit:flushed" => Some("sync"),
            "ack:encoded" | "park:encoded" => Some("ack"),
            "deliver:sending" => Some("a request"),
            edge if edge.starts_with("compact:") && edge != "compact:removed" => Some("compaction"),
            _ => None,
        })
        .collect();
    if operations.is_empty() { "elsewhere".to_owned() } else { format!("within {}", operations.join(" and ")) }
}

/// The private server forgets up to a second when it is killed, to be fast; here what it has committed must stay.
async fn keep_commits(source: &Database) {
    source.run("SET GLOBAL innodb_flush_log_at_trx_commit = 2").await;
}

async fn storm(manner: &'static str, schema: Schema) {
    let seed = seed();
    let mut storm = Storm::begin(manner, schema, seed).await;
    let written = Arc::new(AtomicU64::new(0));
    let stop = tokio_util::sync::CancellationToken::new();
    let mut writers = JoinSet::new();
    for (place, habit) in HABITS.into_iter().enumerate() {
        let writer = Writer {
            options: storm.mariadb.admin(storm.source.name()),
            habit,
            random: StdRng::seed_from_u64(seed ^ place as u64),
            node: 1_000 + 20 * place as u32,
            made: 0,
            top: 0,
            written: Arc::clone(&written),
            stop: stop.clone(),
        };
        writers.spawn(writer.run());
    }
    let kills = kills_wanted();
    for number in 0..kills {
        storm.trouble_on_the_link().await;
        let wait = storm.random.random_range(100..2_500);
        sleep(Duration::from_millis(wait)).await;
        storm.kill(number).await;
    }
    stop.cancel();
    while writers.join_next().await.is_some() {}
    println!("{} rows written among {kills} kills", written.load(Ordering::Relaxed));
    for operation in ["append", "sync", "ack", "compaction"] {
        assert!(storm.kills.keys().any(|kill| kill.contains(operation)), "no kill within {operation}: {:?}", storm.kills);
    }
    storm.end().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_all_three_while_rows_come_in_any_order_lose_and_double_nothing() {
    storm("packhorse", Schema::classic()).await;
}
