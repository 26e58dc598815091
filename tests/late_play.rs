//! Random operations on the source against the real program: rows on time, late, very late, in long transactions, out of id order, dated ahead; old
//! rows deleted, ids burnt, connections and the program killed. In the end every row of the source is at the centre once, counted by SQL.
//!
//! `PACKHORSE_TEST_SEED` repeats the choices (not the timing). With `PACKHORSE_LONG` each schema is played with for thirty seconds, or
//! for as many as `PACKHORSE_PLAY_SECONDS` says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use sqlx::{AssertSqlSafe, MySql, Transaction};
use support::{
    Scene, Schema, assert_exit,
    gateway::{Gateway, Running},
};
use tokio::time::{Instant, sleep};

fn lasts() -> Duration {
    let asked = std::env::var("PACKHORSE_PLAY_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let usual = if std::env::var_os("PACKHORSE_LONG").is_some() { 30 } else { 6 };
    Duration::from_secs(asked.unwrap_or(usual))
}

/// What is done to the source or to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Move {
    OnTime,
    LateBySeconds,
    LateByHours,
    LateByWeeks,
    LateByYears,
    /// Ids that go down, far above the highest.
    OutOfIdOrder,
    /// Rows of some hours, in order.
    Backlog,
    OpenTransaction,
    CommitTransaction,
    RollBackTransaction,
    /// A bulk insert that is rolled back.
    BurnIds,
    StepOfTwo,
    DatedAhead,
    DeleteOldest,
    DeleteAnHour,
    KillConnection,
    KillProgram,
    EndProgram,
}

const MOVES: [(Move, u32); 18] = [
    (Move::OnTime, 30),
    (Move::LateBySeconds, 8),
    (Move::LateByHours, 8),
    (Move::LateByWeeks, 5),
    (Move::LateByYears, 3),
    (Move::OutOfIdOrder, 4),
    (Move::Backlog, 3),
    (Move::OpenTransaction, 6),
    (Move::CommitTransaction, 4),
    (Move::RollBackTransaction, 2),
    (Move::BurnIds, 3),
    (Move::StepOfTwo, 3),
    (Move::DatedAhead, 2),
    (Move::DeleteOldest, 2),
    (Move::DeleteAnHour, 2),
    (Move::KillConnection, 3),
    (Move::KillProgram, 2),
    (Move::EndProgram, 1),
];

struct Play {
    scene: Scene,
    gateway: Gateway,
    program: Running,
    random: StdRng,
    /// Makes each row another one.
    made: u32,
    open: Vec<Transaction<'static, MySql>>,
    moves: BTreeMap<Move, u32>,
}

impl Play {
    async fn begin(schema: Schema, manner: &'static str) -> Self {
        let seed = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
        println!("PACKHORSE_TEST_SEED={seed}");
        let scene = Scene::without_rows(schema, manner).await;
        // What was deleted may have been sent before.
        scene.source.run("CREATE TABLE gone_Reading LIKE Reading; CREATE TABLE gone_NodeState LIKE NodeState").await;
        let gateway = scene
            .gateway()
            .with_source("poll_interval", "200ms")
            .with_source("audit_interval", "1s")
            .with_env("PACKHORSE_TEST_WALK_OFTEN", "1");
        let program = gateway.spawn(&["-q", "run"]);
        let random = StdRng::seed_from_u64(seed);
        Self { scene, gateway, program, random, made: 0, open: Vec::new(), moves: BTreeMap::new() }
    }

    /// Rows of random nodes, so long ago, a step apart.
    fn insert(&mut self, ago: &str, count: u32, step_seconds: u32) -> [String; 2] {
        let first = self.made + 1;
        self.made += count;
        let schema = self.scene.source.schema();
        let fraction = if schema.fraction { " - INTERVAL seq % 7 * 100003 MICROSECOND" } else { "" };
        let now = if schema.fraction { "UTC_TIMESTAMP(6)" } else { "UTC_TIMESTAMP()" };
        let node = self.random.random_range(1..5);
        // In order where they are several.
        let time = format!("{now} - INTERVAL {ago} SECOND - INTERVAL ({} - seq) * {step_seconds} SECOND{fraction}", self.made);
        let nodes = format!("(SELECT id AS node FROM Node ORDER BY id LIMIT {node}) AS nodes");
        let from = format!("FROM seq_{first}_to_{}, {nodes}", self.made);
        [
            format!(
                "INSERT IGNORE INTO Reading (time, nodeId, type, locationId, value) SELECT {time}, node, kind, 509, seq / 8 {from}, (SELECT 0 AS kind UNION SELECT 2) AS kinds ORDER BY 1"
            ),
            format!(
                "INSERT IGNORE INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) SELECT {time}, node, 1, seq, seq, -70 {from} ORDER BY 1"
            ),
        ]
    }

    /// All of it or nothing; a lock that an open transaction holds is one of the things that happen.
    async fn run(&self, sql: &[String]) {
        let mut all = self.scene.source.admin().begin().await.unwrap();
        for sql in sql {
            let each = format!("SET innodb_lock_wait_timeout = 1; {sql}");
            if sqlx::raw_sql(AssertSqlSafe(each)).execute(&mut *all).await.is_err() {
                return all.rollback().await.unwrap();
            }
        }
        all.commit().await.unwrap();
    }

    async fn late(&mut self, seconds: std::ops::Range<u32>) {
        let (ago, count, step) =
            (self.random.random_range(seconds), self.random.random_range(1..8), self.random.random_range(0..40));
        let sql = self.insert(&ago.to_string(), count, step);
        self.run(&sql).await;
    }

    async fn make(&mut self, what: Move) {
        match what {
            Move::OnTime => {
                let count = self.random.random_range(1..4);
                let sql = self.insert("0", count, 0);
                self.run(&sql).await;
            }
            Move::LateBySeconds => self.late(3..120).await,
            Move::LateByHours => self.late(120..40_000).await,
            Move::LateByWeeks => self.late(40_000..2_400_000).await,
            Move::LateByYears => self.late(2_400_000..100_000_000).await,
            Move::Backlog => {
                let count = self.random.random_range(100..600);
                let sql = self.insert("0", count, 61);
                self.run(&sql).await;
            }
            Move::OutOfIdOrder => {
                if !self.scene.source.schema().nodestate_id {
                    return;
                }
                let top = self.scene.source.number("SELECT COALESCE(MAX(id), 0) + 60 FROM NodeState").await;
                for down in 0..self.random.random_range(2..20) {
                    self.made += 1;
                    let made = self.made;
                    self.run(&[format!(
                        "INSERT IGNORE INTO NodeState (id, time, nodeId, parent, `localtime`, seq_num, rssi) VALUES ({top} - {down}, UTC_TIMESTAMP(), 1, 1, {made}, {made}, -60)"
                    )])
                    .await;
                }
            }
            Move::OpenTransaction => {
                // One connection is left for everything else.
                if self.open.len() >= 2 {
                    return self.end_transaction(true).await;
                }
                let mut transaction = self.scene.source.admin().begin().await.unwrap();
                let ago = self.random.random_range(0..30);
                for sql in self.insert(&ago.to_string(), 3, 1) {
                    let _ = sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await;
                }
                self.open.push(transaction);
            }
            Move::CommitTransaction => self.end_transaction(true).await,
            Move::RollBackTransaction => self.end_transaction(false).await,
            Move::BurnIds => {
                let mut transaction = self.scene.source.admin().begin().await.unwrap();
                for sql in self.insert("0", 300, 0) {
                    let _ = sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await;
                }
                transaction.rollback().await.unwrap();
            }
            Move::StepOfTwo => {
                let [readings, states] = self.insert("1", 20, 0);
                let states = format!("SET auto_increment_increment = 2; {states}; SET auto_increment_increment = 1");
                self.run(&[readings, states]).await;
            }
            Move::DatedAhead => {
                let seconds = [7_300, 90_000, 2_000_000, 360_000_000].choose(&mut self.random).unwrap();
                let sql = self.insert(&format!("-{seconds}"), 2, 5);
                self.run(&sql).await;
            }
            Move::DeleteOldest => {
                for table in ["Reading", "NodeState"] {
                    self.delete(
                        table,
                        &format!("time <= (SELECT t FROM (SELECT time AS t FROM {table} ORDER BY time LIMIT 10, 1) AS old)"),
                    )
                    .await;
                }
            }
            Move::DeleteAnHour => {
                let ago = self.random.random_range(2..12);
                for table in ["Reading", "NodeState"] {
                    self.delete(
                        table,
                        &format!("time >= UTC_TIMESTAMP() - INTERVAL {ago} HOUR AND time < UTC_TIMESTAMP() - INTERVAL {ago} HOUR + INTERVAL 1 HOUR AND nodeId = 1"),
                    )
                    .await;
                }
            }
            Move::KillConnection => {
                let user = self.scene.source.reader().split('\'').nth(1).unwrap().to_owned();
                let ids: Vec<u64> =
                    sqlx::query_scalar("SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist WHERE user = ?")
                        .bind(user)
                        .fetch_all(self.scene.source.admin())
                        .await
                        .unwrap();
                for id in ids {
                    self.run(&[format!("KILL {id}")]).await;
                }
            }
            Move::KillProgram | Move::EndProgram => {
                assert!(!self.program.ended(), "the program never ends by itself");
                if what == Move::KillProgram {
                    self.program.kill();
                } else {
                    self.program.terminate().await;
                }
                self.program = self.gateway.spawn(&["-q", "run"]);
            }
        }
    }

    /// Deletes rows, and keeps them.
    async fn delete(&mut self, table: &str, condition: &str) {
        let same = if table == "Reading" {
            "g.time = s.time AND g.nodeId = s.nodeId AND g.type = s.type"
        } else {
            "g.time <=> s.time AND g.nodeId <=> s.nodeId AND g.`localtime` <=> s.`localtime`"
        };
        self.run(&[
            format!("INSERT IGNORE INTO gone_{table} SELECT * FROM {table} WHERE {condition}"),
            format!("DELETE s FROM {table} s JOIN gone_{table} g ON {same}"),
        ])
        .await;
    }

    async fn end_transaction(&mut self, commit: bool) {
        if self.open.is_empty() {
            return;
        }
        let transaction = self.open.remove(0);
        // Whether it was a victim of a deadlock does not matter: what is there counts.
        let _ = if commit { transaction.commit().await } else { transaction.rollback().await };
    }

    async fn end(mut self) {
        while !self.open.is_empty() {
            self.end_transaction(true).await;
        }
        self.program.kill();
        let last = self.gateway.output(&["run", "--once", "--deadline", "280s"]).await;
        assert_exit(&last, 0);
        println!("{}", String::from_utf8_lossy(&last.stderr));
        let comparison = self.scene.compare().await;
        println!("{:?}", self.moves);
        let gone =
            self.scene.source.number("SELECT (SELECT COUNT(*) FROM gone_Reading) + (SELECT COUNT(*) FROM gone_NodeState)").await;
        assert_eq!(
            (
                comparison.readings.lost,
                comparison.node_states.lost,
                comparison.readings.duplicated,
                comparison.node_states.duplicated
            ),
            (0, 0, 0, 0),
            "{comparison}"
        );
        assert_eq!((comparison.wrong_values, comparison.wrong_rooms), (0, 0), "{comparison}");
        let foreign = comparison.readings.foreign + comparison.node_states.foreign;
        assert!(foreign <= gone, "{foreign} rows at the centre that the source never had, {gone} were deleted:\n{comparison}");
        assert!(comparison.readings.source > 100 && comparison.node_states.source > 50, "{comparison}");
    }
}

async fn play(schema: Schema, manner: &'static str) {
    let mut play = Play::begin(schema, manner).await;
    let began = Instant::now();
    while began.elapsed() < lasts() {
        let what = MOVES.choose_weighted(&mut play.random, |(_, weight)| *weight).unwrap().0;
        *play.moves.entry(what).or_default() += 1;
        play.make(what).await;
        let pause = play.random.random_range(0..60);
        sleep(Duration::from_millis(pause)).await;
    }
    play.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ids_every_row_arrives_once() {
    play(Schema::classic(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ids_and_fractions_every_row_arrives_once() {
    play(Schema { fraction: true, double_value: true, ..Schema::classic() }, "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ids_every_row_arrives_once() {
    play(Schema::newest(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ids_and_with_fractions_every_row_arrives_once() {
    play(Schema { fraction: true, ..Schema::newest() }, "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_ids_every_row_arrives_once_at_a_legacy_server_that_stores_a_repeat_twice() {
    play(Schema::classic(), "legacy-old").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_ids_every_row_arrives_once_at_a_legacy_server() {
    play(Schema::newest(), "legacy").await;
}
