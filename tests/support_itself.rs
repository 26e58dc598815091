//! The tests' own instruments: each must be able to fail.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{path::Path, process::Command, time::Duration};

use sqlx::{AssertSqlSafe, ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};
use support::{
    Comparison, Database, Mariadb, Proxy, Schema, compare,
    greenhouse::load_catalog,
    link::{Conditions, Fault, Link, Rate},
    load_greenhouse,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

async fn central(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(path).create_if_missing(true).disable_statement_logging().connect().await.unwrap()
}

async fn run(central: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(central).await.unwrap();
}

/// A centre that holds what the source of `small` holds, under other ids.
const CENTRAL: &str = "
    CREATE TABLE House (id INTEGER PRIMARY KEY, address TEXT);
    CREATE TABLE Room (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE Location (id INTEGER PRIMARY KEY, houseId INTEGER, roomId INTEGER);
    CREATE TABLE Reading (time TEXT, nodeId INTEGER, type INTEGER, locationId INTEGER, value REAL);
    CREATE TABLE NodeState (time TEXT, nodeId INTEGER, parent INTEGER, localtime INTEGER, seq_num INTEGER, rssi INTEGER);
    INSERT INTO House VALUES (1, '1 Greenhouse Row'), (2, '2 Greenhouse Row');
    INSERT INTO Room VALUES (1, 'Kitchen'), (2, 'Bedroom');
    INSERT INTO Location VALUES (1, 1, 2), (2, 1, 1), (3, 2, 1);
    INSERT INTO Reading VALUES ('2013-01-01T00:00:00', 1, 0, 1, 18.04), ('2013-01-01T00:05:00', 1, 0, 1, 0.1), ('2013-01-01T00:05:00', 2, 0, 2, NULL), ('2013-01-01T00:05:00', 100, 0, NULL, -1.5e-7);
    INSERT INTO NodeState VALUES ('2013-01-01T00:00:00', 1, 2, 77, 1, -60), ('2013-01-01T00:00:00', 1, 2, 77, 1, -60), ('2013-01-01T00:00:00', 2, NULL, NULL, 3, NULL);
";

async fn small(schema: Schema) -> Database {
    let db = Database::create(Mariadb::shared(), schema).await;
    load_catalog(&db).await;
    db.run("INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES ('2013-01-01 00:00:00', 1, 0, 509, 18.04), ('2013-01-01 00:05:00', 1, 0, 509, 0.1), ('2013-01-01 00:05:00', 2, 0, 503, NULL), ('2013-01-01 00:05:00', 100, 0, NULL, -1.5e-7)").await;
    db.run("INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) VALUES ('2013-01-01', 1, 2, 77, 1, -60), ('2013-01-01', 1, 2, 77, 1, -60), ('2013-01-01', 2, NULL, NULL, 3, NULL)").await;
    db
}

#[tokio::test]
async fn equal_ends_are_equal() {
    for double_value in [false, true] {
        let db = small(Schema { double_value, ..Schema::classic() }).await;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("central.db");
        run(&mut central(&path).await, CENTRAL).await;
        let comparison = compare(&db, &path).await;
        comparison.assert_equal();
        assert_eq!((comparison.readings.source, comparison.node_states.source), (4, 3));
    }
}

#[tokio::test]
async fn every_kind_of_difference_is_seen_and_counted() {
    type Seen = fn(&Comparison) -> i64;
    let cases: [(&str, Seen); 10] = [
        ("DELETE FROM Reading WHERE nodeId = 2", |c| c.readings.lost),
        ("INSERT INTO Reading SELECT * FROM Reading WHERE nodeId = 2", |c| c.readings.duplicated),
        ("UPDATE Reading SET value = 18.040002 WHERE value = 18.04", |c| c.wrong_values),
        ("UPDATE Reading SET value = 0 WHERE value IS NULL", |c| c.wrong_values),
        ("UPDATE Reading SET locationId = 3 WHERE nodeId = 2", |c| c.wrong_rooms),
        ("UPDATE Reading SET locationId = 3 WHERE nodeId = 100", |c| c.wrong_rooms),
        ("INSERT INTO Reading VALUES ('2013-01-02T00:00:00', 1, 0, 1, 1)", |c| c.readings.foreign),
        ("DELETE FROM NodeState WHERE rowid = 1", |c| c.node_states.lost),
        ("INSERT INTO NodeState SELECT * FROM NodeState WHERE nodeId = 2", |c| c.node_states.duplicated),
        ("INSERT INTO NodeState VALUES ('2013-01-01T00:00:00', 1, 2, 78, 1, -60)", |c| c.node_states.foreign),
    ];
    let db = small(Schema::classic()).await;
    for (damage, seen) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("central.db");
        let mut sqlite = central(&path).await;
        run(&mut sqlite, CENTRAL).await;
        run(&mut sqlite, damage).await;
        drop(sqlite);
        let comparison = compare(&db, &path).await;
        assert_eq!(seen(&comparison), 1, "{damage}:\n{comparison}");
        assert!(!comparison.is_equal(), "{damage}");
    }
}

#[tokio::test]
async fn the_greenhouse_fits_every_schema_and_one_node_moves() {
    for schema in [Schema::classic(), Schema::newest(), Schema { fraction: true, ..Schema::classic() }] {
        let db = Database::create(Mariadb::shared(), schema).await;
        let Some(loaded) = load_greenhouse(&db, 30_000).await else { return };
        assert!(loaded.readings > 29_900 && loaded.readings <= 30_006, "{loaded:?}");
        assert_eq!(db.number("SELECT COUNT(*) FROM Reading").await, i64::try_from(loaded.readings).unwrap());
        assert_eq!(db.number("SELECT COUNT(*) FROM NodeState").await, i64::try_from(loaded.node_states).unwrap());
        assert_eq!(db.number("SELECT COUNT(DISTINCT locationId) FROM Reading WHERE nodeId = 3").await, 2);
        let fractions = db.number("SELECT COUNT(*) FROM Reading WHERE MICROSECOND(time) <> 0").await;
        assert_eq!(fractions > 0, schema.fraction);
    }
}

#[tokio::test]
async fn a_private_server_ends_with_its_parent_even_when_that_is_killed() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/mariadb.sh");
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("server");
    // A parent that holds the pipe and waits, to be killed.
    let run = format!("sleep 1000 | exec '{}' start '{}' & wait", script.display(), place.display());
    let mut parent = Command::new("bash").args(["-c", &run]).stdout(std::process::Stdio::null()).spawn().unwrap();
    let pid_file = place.join("pid");
    wait_until("the server is up", || std::fs::read_to_string(&pid_file).is_ok_and(|text| text.trim().parse::<u32>().is_ok()))
        .await;
    let server = std::fs::read_to_string(&pid_file).unwrap().trim().to_owned();
    // The pipe's only writer is the sleep, a child of the parent.
    let children = Command::new("pgrep").args(["-P", &parent.id().to_string(), "-x", "sleep"]).output().unwrap();
    let sleep = String::from_utf8(children.stdout).unwrap().trim().to_owned();
    assert!(Command::new("kill").args(["-9", &sleep]).status().unwrap().success());
    wait_until("the directory is gone", || !place.exists()).await;
    assert!(!Path::new("/proc").join(server).exists());
    let _ = parent.kill();
    let _ = parent.wait();
}

async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain: {what}");
}

/// A server that answers every request with its number, after reading its body.
async fn counting_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let served = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let served = std::sync::Arc::clone(&served);
            tokio::spawn(async move {
                let mut request = Vec::new();
                while stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {
                    while let Some(at) = request.windows(4).position(|bytes| bytes == b"body") {
                        request.drain(..at + 4);
                        let number = served.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                        let body = format!("n{number}");
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                }
            });
        }
    });
    addr
}

async fn post(stream: &mut TcpStream, path: &str) -> Option<String> {
    let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    loop {
        if stream.read_buf(&mut answer).await.ok()? == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, body)) = text.split_once("\r\n\r\n").filter(|(_, body)| body.len() >= 2) {
            return Some(body.to_owned());
        }
    }
}

#[tokio::test]
async fn a_link_is_cut_restored_and_loses_the_answer_that_it_was_told_to() {
    let proxy = Proxy::start(counting_server().await).await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(post(&mut stream, "/rest/bulk/").await.as_deref(), Some("n1"));
    assert_eq!(post(&mut stream, "/rest/bulk/").await.as_deref(), Some("n2"));
    proxy.cut().await;
    assert_eq!(post(&mut stream, "/rest/bulk/").await, None);
    assert!(TcpStream::connect(proxy.addr()).await.is_err());
    proxy.restore().await;
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.lose_next_answer_of("/rest/bulk/");
    assert_eq!(post(&mut stream, "/rest/node/").await.as_deref(), Some("n3"));
    assert_eq!(post(&mut stream, "/rest/bulk/").await, None);
    let mut stream = TcpStream::connect(proxy.addr()).await.unwrap();
    // The fourth was carried out all the same.
    assert_eq!(post(&mut stream, "/rest/bulk/").await.as_deref(), Some("n5"));
    assert_eq!((proxy.requests(), proxy.requests_of("/rest/bulk/"), proxy.answers_lost()), (5, 4, 1));
}

/// A server that answers each request head with as many bytes as it asks for, and counts the bytes of bodies.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = vec![0; 65_536];
                while let Ok(length @ 1..) = client.read(&mut bytes).await {
                    if client.write_all(&bytes[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

/// Sends so many bytes, and reads until so many have come back or the connection has ended. `Err` when it was reset.
async fn there_and_back(link: &Link, begins: &str, length: usize, back: usize) -> std::io::Result<usize> {
    let (mut from, mut to) = TcpStream::connect(link.addr()).await?.into_split();
    let mut sent = begins.as_bytes().to_vec();
    sent.resize(length, b'.');
    let sending = tokio::spawn(async move {
        let _ = to.write_all(&sent).await;
        to
    });
    let (mut came, mut bytes) = (0, vec![0; 65_536]);
    while came < back {
        match from.read(&mut bytes).await? {
            0 => break,
            length => came += length,
        }
    }
    sending.abort();
    Ok(came)
}

#[tokio::test]
async fn a_slow_link_is_slow_and_a_long_one_late() {
    let link = Link::start(echo().await, Conditions::steady(400_000, Duration::from_millis(600)));
    let began = std::time::Instant::now();
    assert_eq!(there_and_back(&link, "", 50_000, 50_000).await.unwrap(), 50_000);
    // A second for the bytes, and the way there and back.
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert!(link.carried() == 50_000 && link.capacity() >= 50_000);
}

#[tokio::test]
async fn a_link_without_capacity_carries_nothing_until_it_has_some() {
    let trace = Rate::Trace(std::sync::Arc::new(vec![0, 0, 1 << 20]));
    let link = Link::start(echo().await, Conditions { up: trace, ..Conditions::ideal() });
    let began = std::time::Instant::now();
    assert_eq!(there_and_back(&link, "", 1_000, 1_000).await.unwrap(), 1_000);
    assert!(began.elapsed() >= Duration::from_millis(1_900), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_fault_meets_the_request_that_it_is_aimed_at_and_no_other() {
    let link = Link::start(echo().await, Conditions::ideal());
    let all = async |begins: &'static str| there_and_back(&link, begins, 10_000, 10_000).await;
    link.aim("POST /bulk", Fault::CutUp(4_000));
    assert_eq!(all("GET /other").await.unwrap(), 10_000);
    assert_eq!(link.faults_met(), 0);
    assert_eq!(all("POST /bulk").await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!((link.faults_met(), all("POST /bulk").await.unwrap()), (1, 10_000));

    link.aim("POST /bulk", Fault::CutDown(5_000));
    assert_eq!(all("POST /bulk").await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    link.aim("POST /bulk", Fault::Truncate(5_000));
    assert_eq!(all("POST /bulk").await.unwrap(), 5_000);
    link.aim("POST /bulk", Fault::Instead("HTTP/1.1 302 Found".into()));
    assert_eq!(all("POST /bulk").await.unwrap(), 18);
    link.aim("POST /bulk", Fault::AfterCommit("HTTP/1.1 502 Bad Gateway".into()));
    assert_eq!(all("POST /bulk").await.unwrap(), 24);
    link.aim("POST /bulk", Fault::SlowAnswer(Duration::from_millis(2)));
    let began = std::time::Instant::now();
    assert_eq!(there_and_back(&link, "POST /bulk", 500, 500).await.unwrap(), 500);
    assert!(began.elapsed() >= Duration::from_secs(1));
    link.aim("POST /bulk", Fault::BlackHole);
    assert!(tokio::time::timeout(Duration::from_millis(500), all("POST /bulk")).await.is_err());
    assert_eq!(all("POST /bulk").await.unwrap(), 10_000);
}
