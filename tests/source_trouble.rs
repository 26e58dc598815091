//! A database that restarts, is read-only, kills what is asked of it, locks its tables, alters them or does not answer, while the real program
//! captures from it: nothing is lost or doubled, it is told, and it passes by itself. Both ends are counted by SQL.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sqlx::{ConnectOptions as _, Row as _, sqlite::SqliteConnectOptions};
use support::{Mariadb, Scene, Schema, gateway::Gateway};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep},
};

fn random() -> StdRng {
    let seed = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PACKHORSE_TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// What a connection that is to be killed is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtWork {
    /// A query is under way.
    Surely,
    /// Whatever it is.
    Perhaps,
}

/// Polls all the time, gives a query two seconds, and has a log.
struct Trial {
    scene: Scene,
    gateway: Gateway,
    log: PathBuf,
    /// So many steps of rows were written.
    steps: u32,
}

impl Trial {
    fn of(scene: Scene) -> Self {
        let gateway = scene
            .gateway()
            .with_source("poll_interval", "200ms")
            .with_source("audit_interval", "1s")
            .with_env("PACKHORSE_TEST_QUERY_DEADLINE_SECONDS", "2");
        let log = scene.dir.path().join("log");
        Self { scene, gateway, log, steps: 0 }
    }

    async fn set(schema: Schema) -> Self {
        Self::of(Scene::without_rows(schema, "packhorse").await)
    }

    /// So many steps, a second and two node states and eight readings each, from two years ago on.
    async fn rows(&mut self, steps: u32) {
        let first = self.steps;
        self.steps += steps;
        let from = format!("FROM seq_{first}_to_{}, (SELECT 1 AS node UNION SELECT 2) AS nodes", self.steps - 1);
        // Where there is no id, the key holds seq_num.
        let (seq_num, zero) = if self.scene.source.schema().nodestate_id { ("", "") } else { (", seq_num", ", 0") };
        let location = if self.scene.source.schema().reading_location { "509" } else { "NULL" };
        self.scene
            .source
            .run(&format!(
                "INSERT INTO Reading (time, nodeId, type, locationId, value)
                    SELECT UTC_DATE() - INTERVAL 700 DAY + INTERVAL seq SECOND, node, kind, {location}, seq / 7 {from}, (SELECT 0 AS kind UNION SELECT 2 UNION SELECT 6) AS kinds;
                 INSERT INTO NodeState (time, nodeId, parent, `localtime`{seq_num}) SELECT UTC_DATE() - INTERVAL 700 DAY + INTERVAL seq SECOND, node, 1, seq{zero} {from} ORDER BY 1"
            ))
            .await;
    }

    fn says(&self, words: &str) -> bool {
        std::fs::read_to_string(&self.log).unwrap_or_default().contains(words)
    }

    async fn wait_until_it_says(&self, words: &str) {
        let began = Instant::now();
        while !self.says(words) {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(began.elapsed() < Duration::from_mins(2), "'{words}' is not said:\n{log}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Forgets what was said so far.
    fn turn_the_page(&self) {
        std::fs::File::options().write(true).open(&self.log).unwrap().set_len(0).unwrap();
    }

    /// Rows at the centre.
    async fn arrived(&self) -> i64 {
        let file = SqliteConnectOptions::new().filename(self.scene.central.database()).read_only(true);
        let mut file = file.connect().await.unwrap();
        let count = sqlx::query_scalar("SELECT (SELECT COUNT(*) FROM Reading) + (SELECT COUNT(*) FROM NodeState)");
        // The receiver may be writing.
        count.fetch_one(&mut file).await.unwrap_or(0)
    }

    async fn wait_until_arrived(&self, rows: i64, what: &str) {
        let began = Instant::now();
        while self.arrived().await < rows {
            let log = std::fs::read_to_string(&self.log).unwrap();
            assert!(began.elapsed() < Duration::from_mins(3), "{what}: {} of {rows}\n{log}", self.arrived().await);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Rows that were sent by a program that has ended.
    async fn sent(&self) -> i64 {
        let status = self.gateway.output(&["queue", "status", "--json"]).await;
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        let streams = status["destinations"][0]["streams"].as_array().unwrap();
        streams.iter().map(|stream| stream["acked"].as_i64().unwrap()).sum()
    }

    async fn rows_there(&self) -> i64 {
        self.scene.source.number("SELECT (SELECT COUNT(*) FROM Reading) + (SELECT COUNT(*) FROM NodeState)").await
    }

    /// Kills a query or a connection of the program at a moment drawn by chance. The server itself looks for the moment, so that a query of a
    /// millisecond is found at work from a slow machine too.
    async fn kill_one(&self, wanted: AtWork, random: &mut StdRng) {
        let user = self.scene.source.reader().split('\'').nth(1).unwrap().to_owned();
        let is_wanted = if wanted == AtWork::Surely { "command <> 'Sleep'" } else { "TRUE" };
        let what = if random.random_bool(0.5) { "QUERY" } else { "CONNECTION" };
        let chance: f64 = random.random_range(0.05..0.5);
        let kill = format!(
            "BEGIN NOT ATOMIC
                 DECLARE victim BIGINT DEFAULT NULL;
                 DECLARE looks INT DEFAULT 0;
                 REPEAT
                     DO SLEEP(RAND() * 0.002);
                     SET looks = looks + 1;
                     SET victim = (SELECT MAX(id) FROM information_schema.processlist WHERE user = '{user}' AND {is_wanted} AND RAND() < {chance});
                 UNTIL victim IS NOT NULL OR looks > 60000 END REPEAT;
                 KILL {what} victim;
             END"
        );
        let began = Instant::now();
        // It may have gone by itself.
        while let Err(error) = sqlx::raw_sql(sqlx::AssertSqlSafe(kill.clone())).execute(self.scene.source.admin()).await {
            assert!(began.elapsed() < Duration::from_mins(3), "there is nothing to kill: {error}");
        }
    }

    /// Waits until a poll has come to its end: then the program asks nothing for a while.
    async fn wait_until_polled(&self) {
        let user = self.scene.source.reader().split('\'').nth(1).unwrap().to_owned();
        let rests = format!(
            "SELECT COALESCE(MIN(command = 'Sleep' AND time_ms > 100), 0) FROM information_schema.processlist WHERE user = '{user}'"
        );
        let began = Instant::now();
        while self.scene.source.number(&rests).await == 0 {
            assert!(began.elapsed() < Duration::from_mins(3), "no poll comes to its end");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// The connections of the program: id, and whether a query is under way.
    async fn connections(&self) -> Vec<(u64, bool)> {
        let user = self.scene.source.reader().split('\'').nth(1).unwrap().to_owned();
        let sql = "SELECT CAST(id AS UNSIGNED), command <> 'Sleep' FROM information_schema.processlist WHERE user = ?";
        let rows = sqlx::query(sql).bind(user).fetch_all(self.scene.source.admin()).await.unwrap();
        rows.into_iter().map(|row| (row.get(0), row.get::<i64, _>(1) != 0)).collect()
    }
}

/// The private server forgets up to a second when it is killed; here what it has committed must stay.
async fn keep_commits(trial: &Trial) {
    trial.scene.source.run("SET GLOBAL innodb_flush_log_at_trx_commit = 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_restarted_or_killed_while_rows_are_captured_is_waited_for() {
    let mut random = random();
    let server = Mariadb::private();
    let mut trial = Trial::of(Scene::on(&server, Schema::classic(), "packhorse").await);
    let mut daemon = trial.gateway.spawn_logging(&["run"], &trial.log);
    for round in 0..4 {
        keep_commits(&trial).await;
        trial.rows(2_000).await;
        sleep(Duration::from_millis(random.random_range(0..700))).await;
        if round % 2 == 0 {
            server.stop();
        } else {
            server.kill();
        }
        trial.wait_until_it_says("cannot reach the source database").await;
        server.start();
        trial.rows(500).await;
        trial.wait_until_it_says("the source is back").await;
        trial.turn_the_page();
    }
    trial.scene.wait_until_equal("after four restarts").await;
    assert!(!daemon.ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_and_one_under_a_global_read_lock_are_read_as_ever() {
    let server = Mariadb::private();
    let mut trial = Trial::of(Scene::on(&server, Schema::classic(), "packhorse").await);
    trial.rows(500).await;
    trial.scene.source.run("SET GLOBAL read_only = 1; SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = 1").await;
    let mut locker = trial.scene.source.admin().acquire().await.unwrap();
    sqlx::raw_sql("FLUSH TABLES WITH READ LOCK").execute(&mut *locker).await.unwrap();
    let mut daemon = trial.gateway.spawn_logging(&["run"], &trial.log);
    trial.wait_until_arrived(500 * 8, "under a read lock").await;
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut *locker).await.unwrap();
    drop(locker);
    trial.rows(500).await;
    trial.scene.wait_until_equal("read-only").await;
    daemon.terminate().await;
    assert!(!trial.says("capture waits"));
    // `super_read_only`, which only MySQL has, lets pass what does not write either.
    let user = trial.scene.source.reader().split('\'').nth(1).unwrap().to_owned();
    let asked: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT SUBSTRING_INDEX(TRIM(CONVERT(argument USING utf8mb4)), ' ', 1) FROM mysql.general_log \
         WHERE user_host LIKE CONCAT(?, '%') AND command_type IN ('Query', 'Execute', 'Prepare')",
    )
    .bind(user)
    .fetch_all(trial.scene.source.admin())
    .await
    .unwrap();
    assert!(asked.iter().any(|word| word == "SELECT"), "{asked:?}");
    let reads = ["SELECT", "SET", "START", "BEGIN", "COMMIT", "ROLLBACK"];
    assert!(asked.iter().all(|word| reads.contains(&word.to_uppercase().as_str())), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_connections_that_are_killed_at_any_moment_lose_and_double_nothing() {
    let mut random = random();
    let mut trial = Trial::set(Schema::newest()).await;
    trial.rows(20_000).await;
    let mut daemon = trial.gateway.spawn_logging(&["-q", "run"], &trial.log);
    // Each kill waits until the one before is got over, however slow the machine is: the pauses grow with every poll that fails, up to a minute, and
    // they were all that kills by the clock would meet in the end. Only at first some come in a row, within the same long poll.
    for kill in 0..14 {
        trial.kill_one(if kill % 3 == 2 { AtWork::Perhaps } else { AtWork::Surely }, &mut random).await;
        let arrived = trial.arrived().await;
        trial.rows(200).await;
        if kill < 3 {
            trial.wait_until_arrived(arrived + 1, "after a kill in the first poll").await;
        } else {
            trial.wait_until_arrived(i64::from(trial.steps) * 8, "after a kill").await;
            trial.wait_until_polled().await;
        }
    }
    trial.rows(200).await;
    trial.scene.wait_until_equal("after the kills").await;
    assert!(!daemon.ended());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_table_is_waited_for_and_told_and_locked_rows_are_no_obstacle() {
    let mut trial = Trial::set(Schema::classic()).await;
    trial.rows(300).await;
    // Whoever holds rows holds up nobody who reads.
    let mut holder = trial.scene.source.admin().begin().await.unwrap();
    for sql in ["UPDATE Reading SET value = value + 1", "UPDATE NodeState SET rssi = -1"] {
        sqlx::query(sql).execute(&mut *holder).await.unwrap();
    }
    let _daemon = trial.gateway.spawn_logging(&["run"], &trial.log);
    trial.wait_until_arrived(300 * 8, "rows are locked").await;
    holder.rollback().await.unwrap();
    trial.scene.wait_until_equal("rows were locked").await;
    assert!(!trial.says("capture waits"));

    let mut locker = trial.scene.source.admin().acquire().await.unwrap();
    sqlx::raw_sql("LOCK TABLES Reading WRITE, NodeState WRITE").execute(&mut *locker).await.unwrap();
    trial.wait_until_it_says("is a table locked").await;
    // Those that were given up are not left waiting at the server.
    for _ in 0..20 {
        sleep(Duration::from_millis(200)).await;
        let connections = trial.connections().await;
        assert!(connections.len() <= 2, "{connections:?}");
    }
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut *locker).await.unwrap();
    drop(locker);
    trial.rows(100).await;
    trial.scene.wait_until_equal("after the lock").await;
    assert!(trial.says("the source is back"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_altered_in_mid_flight_lose_nothing_and_send_nothing_again() {
    let mut trial = Trial::set(Schema { seq_num: false, rssi: false, ..Schema::classic() }).await;
    trial.rows(1_000).await;
    let mut daemon = trial.gateway.spawn_logging(&["run"], &trial.log);
    trial.scene.wait_until_equal("the rows that were there").await;
    let schema = trial.scene.source.schema();

    // A column that concerns nobody, and two that do: no row loses what it has of them.
    trial
        .scene
        .source
        .run("ALTER TABLE Reading ADD note VARCHAR(20) DEFAULT 'x'; ALTER TABLE NodeState ADD seq_num INT, ADD rssi INT DEFAULT -70;
              INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) SELECT UTC_TIMESTAMP(), 1, 9, seq, seq, -50 FROM seq_1_to_100")
        .await;
    trial.rows(100).await;
    // What was sent before is a fact: it had no rssi.
    let schema = Schema { seq_num: true, ..schema };
    trial.scene.source.altered_to(schema);
    trial.scene.wait_until_equal("columns were added").await;
    let of_rssi = "SELECT COUNT(*) FROM central_NodeState WHERE rssi = -50 AND seq_num = `localtime`";
    trial.scene.source.run("DROP TABLE IF EXISTS central_NodeState").await;
    trial.scene.source.altered_to(Schema { rssi: true, ..schema });
    let _ = trial.scene.compare().await;
    assert_eq!(trial.scene.source.number(of_rssi).await, 100, "states with the new columns");
    // What was NULL gets a default: states with an id are no others for it.
    trial
        .scene
        .source
        .run(
            "UPDATE NodeState SET seq_num = 0 WHERE seq_num IS NULL; ALTER TABLE NodeState MODIFY seq_num INT NOT NULL DEFAULT 0",
        )
        .await;
    let schema = Schema { seq_num: false, ..schema };
    trial.scene.source.altered_to(schema);

    // FLOAT becomes DOUBLE, and times get a fraction; the very next rows use it.
    trial.scene.source.run("ALTER TABLE Reading MODIFY value DOUBLE; INSERT INTO Reading (time, nodeId, type, locationId, value) SELECT UTC_TIMESTAMP() - INTERVAL seq SECOND, 1, 0, 509, 1 / 3e0 + seq FROM seq_100_to_199").await;
    let schema = Schema { double_value: true, ..schema };
    trial.scene.source.altered_to(schema);
    wait_until_nothing_is_lost(&trial, "FLOAT became DOUBLE").await;
    let exact = "SELECT COUNT(*) FROM Reading s JOIN central_Reading c ON c.time = s.time AND c.nodeId = s.nodeId AND c.type = s.type WHERE s.nodeId = 1 AND s.time > UTC_TIMESTAMP() - INTERVAL 1 DAY AND s.value = c.value";
    assert_eq!(trial.scene.source.number(exact).await, 100, "to the last bit");
    trial.scene.source.run("ALTER TABLE Reading MODIFY time DATETIME(6) NOT NULL; ALTER TABLE NodeState MODIFY time DATETIME(6); INSERT INTO Reading (time, nodeId, type, locationId, value) SELECT UTC_TIMESTAMP() - INTERVAL seq * 1000 MICROSECOND, 2, 0, 509, seq FROM seq_1_to_300; INSERT INTO NodeState (time, nodeId, parent, `localtime`) SELECT UTC_TIMESTAMP() - INTERVAL seq * 1000 MICROSECOND, 2, 3, seq FROM seq_1_to_300").await;
    trial.scene.source.altered_to(Schema { fraction: true, ..schema });
    wait_until_nothing_is_lost(&trial, "times got a fraction").await;
    assert!(
        !trial.says("capture waits") && !trial.says("not the database that it was"),
        "{}",
        std::fs::read_to_string(&trial.log).unwrap()
    );

    // A column that is needed goes, and comes back; it may have another name meanwhile.
    for (away, words, back) in [
        (
            "ALTER TABLE Reading RENAME COLUMN value TO measured",
            "table Reading has no column value",
            "ALTER TABLE Reading RENAME COLUMN measured TO value",
        ),
        (
            "CREATE TABLE kept AS SELECT id AS kept, parent AS p FROM NodeState; ALTER TABLE NodeState DROP COLUMN parent",
            "table NodeState has no column parent",
            "ALTER TABLE NodeState ADD parent INT; UPDATE NodeState JOIN kept ON kept = id SET parent = p",
        ),
        ("RENAME TABLE NodeState TO elsewhere", "there is no table NodeState", "RENAME TABLE elsewhere TO NodeState"),
    ] {
        trial.turn_the_page();
        trial.scene.source.run(away).await;
        trial.wait_until_it_says(words).await;
        assert!(!daemon.ended());
        trial.scene.source.run(back).await;
        trial.rows(50).await;
        wait_until_nothing_is_lost(&trial, back).await;
        trial.wait_until_it_says("the source is back").await;
    }
    // Both tables are made anew, with all their rows.
    trial
        .scene
        .source
        .run(
            "SET foreign_key_checks = 0;
             CREATE TABLE new_one LIKE Reading; INSERT INTO new_one SELECT * FROM Reading; DROP TABLE Reading; RENAME TABLE new_one TO Reading;
             CREATE TABLE new_one LIKE NodeState; INSERT INTO new_one SELECT * FROM NodeState; RENAME TABLE NodeState TO old_one, new_one TO NodeState; DROP TABLE old_one",
        )
        .await;
    trial.rows(50).await;
    wait_until_nothing_is_lost(&trial, "the tables were made anew").await;
    daemon.terminate().await;
    let comparison = trial.scene.compare().await;
    assert_eq!(
        (comparison.readings.duplicated, comparison.node_states.duplicated, comparison.wrong_rooms),
        (0, 0, 0),
        "{comparison}"
    );
    assert_eq!(trial.sent().await, trial.rows_there().await, "each row was sent once");
}

/// Values are left out: what was a FLOAT is not the DOUBLE that the table makes of it.
async fn wait_until_nothing_is_lost(trial: &Trial, what: &str) {
    let began = Instant::now();
    loop {
        let comparison = trial.scene.compare().await;
        if comparison.readings.lost == 0 && comparison.node_states.lost == 0 {
            return;
        }
        let log = std::fs::read_to_string(&trial.log).unwrap();
        assert!(began.elapsed() < Duration::from_mins(4), "{what}:\n{comparison}\n{log}");
        sleep(Duration::from_millis(300)).await;
    }
}

/// Connections through a proxy.
#[derive(Default)]
struct Connections {
    made: AtomicU32,
    open: AtomicU32,
}

/// A way to the database on which answers can be swallowed; a side that closes closes the other.
async fn swallowing_proxy(to: SocketAddr) -> (SocketAddr, watch::Sender<bool>, Arc<Connections>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let (swallow, _) = watch::channel(false);
    let swallows = swallow.clone();
    let connections = Arc::<Connections>::default();
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut swallows = swallows.subscribe();
            let counted = Arc::clone(&counted);
            counted.made.fetch_add(1, Ordering::Relaxed);
            counted.open.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(to).await else { return };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let down = async {
                    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
                    let mut bytes = vec![0; 65_536];
                    loop {
                        let read = from_server.read(&mut bytes).await.unwrap_or(0);
                        let _ = swallows.wait_for(|swallows| !*swallows).await;
                        if read == 0 || to_client.write_all(&bytes[..read]).await.is_err() {
                            return;
                        }
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    () = down => {}
                }
                counted.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    (addr, swallow, connections)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_never_comes_ends_at_the_deadline_and_its_connection_is_closed() {
    let mut trial = Trial::set(Schema::classic()).await;
    let port = trial.scene.source.url().rsplit_once(':').unwrap().1.split('/').next().unwrap().parse().unwrap();
    let (addr, swallow, through) = swallowing_proxy(SocketAddr::from(([127, 0, 0, 1], port))).await;
    let url = trial.scene.source.url().replace(&format!(":{port}/"), &format!(":{}/", addr.port()));
    let config = std::fs::read_to_string(trial.gateway.config()).unwrap();
    std::fs::write(trial.gateway.config(), config.replace(trial.scene.source.url(), &url)).unwrap();
    trial.rows(500).await;
    let mut daemon = trial.gateway.spawn_logging(&["run"], &trial.log);
    trial.scene.wait_until_equal("the rows that were there").await;
    let before = trial.connections().await;
    assert_eq!(before.len(), 1, "{before:?}");
    swallow.send_replace(true);
    trial.rows(500).await;
    trial.wait_until_it_says("gave no answer within").await;
    let began = Instant::now();
    while through.made.load(Ordering::Relaxed) < 4 {
        assert!(began.elapsed() < Duration::from_mins(3), "it does not try again");
        assert!(through.open.load(Ordering::Relaxed) <= 1, "one connection at a time");
        sleep(Duration::from_millis(5)).await;
    }
    while trial.connections().await.iter().any(|(id, _)| *id == before[0].0) {
        assert!(began.elapsed() < Duration::from_mins(3), "the server still has the first connection");
        sleep(Duration::from_millis(50)).await;
    }
    swallow.send_replace(false);
    trial.scene.wait_until_equal("answers come again").await;
    assert!(trial.says("the source is back") && !daemon.ended());
    assert!(trial.connections().await.len() <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_never_ends_is_ended_at_the_server_too() {
    let trial = Trial::set(Schema::classic()).await;
    // Work that looks neither at the clock nor at the connection.
    trial
        .scene
        .source
        .run("CREATE TABLE hang AS SELECT 0 AS rounds; RENAME TABLE Reading TO rows_of_reading;
              CREATE VIEW Reading AS SELECT time, nodeId, type, locationId, value FROM rows_of_reading WHERE BENCHMARK((SELECT rounds FROM hang), SHA2(value, 512)) = 0")
        .await;
    trial.scene.source.run("INSERT INTO rows_of_reading (time, nodeId, type, locationId, value) SELECT '2024-01-01' + INTERVAL seq SECOND, 1, 0, 509, seq FROM seq_1_to_300").await;
    let mut daemon = trial.gateway.spawn_logging(&["run"], &trial.log);
    trial.scene.wait_until_equal("the rows that were there").await;
    trial.scene.source.run("UPDATE hang SET rounds = 2000000000").await;
    trial.wait_until_it_says("gave no answer").await;
    let (mut seen, began) = (Vec::new(), Instant::now());
    while seen.len() < 3 {
        assert!(began.elapsed() < Duration::from_mins(3), "it does not try again: {seen:?}");
        let at_work: Vec<u64> = trial.connections().await.into_iter().filter(|(_, at_work)| *at_work).map(|(id, _)| id).collect();
        assert!(at_work.len() <= 2, "those that were given up go on at the server: {at_work:?}");
        seen.extend(at_work.into_iter().filter(|id| !seen.contains(id)).collect::<Vec<_>>());
        sleep(Duration::from_millis(50)).await;
    }
    trial.scene.source.run("UPDATE hang SET rounds = 0").await;
    trial.scene.wait_until_equal("queries end again").await;
    assert!(!daemon.ended());
}
