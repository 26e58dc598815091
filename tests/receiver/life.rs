//! Connections, stops, failures of the disk, and what survives them; the measurement.

use std::io::Write as _;
use std::time::{Duration, Instant};

use packhorse::receiver::Manner;
use serde_json::{Value, json};

use super::{
    SEED, assert_refused, assert_stored, bulk,
    central::{Central, receive, send, zlib},
    reading, readings, seeded,
};

#[test]
fn pipelined_requests_and_a_chunked_body_are_answered_in_order() {
    let central = seeded(Manner::Packhorse);
    let mut line = central.connect();
    let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0)]).to_string();
    let chunked = format!(
        "POST /rest/bulk/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{rows}\r\n0\r\n\r\n",
        rows.len()
    );
    line.write_all(chunked.as_bytes()).unwrap();
    send(&mut line, central.address, "GET", "/rest/reading/", &[], None);
    send(&mut line, central.address, "GET", "/rest/lastnodesync/?node=11", &[], None);
    assert_stored(&receive(&mut line));
    assert_eq!(receive(&mut line).json().as_array().unwrap().len(), 1);
    assert_eq!(receive(&mut line).text(), "\"2013-01-01T00:05:00\"");
}

#[test]
fn rows_are_there_after_the_receiver_was_ended_in_the_middle_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("central.db");
    for round in 0..3 {
        let central = Central::open(&path, Manner::Packhorse);
        if round == 0 {
            central.sql(SEED);
        }
        assert_eq!(readings(&central), round);
        assert_stored(&bulk(&central, &json!([reading(&format!("2013-01-01T00:0{round}:00"), 11, 0, 1.0)])));
        central.kill();
    }
    let central = Central::open(&path, Manner::Packhorse);
    assert_eq!(readings(&central), 3);
}

#[test]
fn a_client_that_leaves_within_its_request_leaves_all_of_it_or_nothing() {
    let central = seeded(Manner::Packhorse);
    let rows: Vec<Value> = (0..3_000)
        .map(|at| reading(&format!("2013-01-01T{:02}:{:02}:00", at / 60 % 24, at % 60), 11 + at / 1440, 0, 1.0))
        .collect();
    let body = zlib(Value::from(rows).to_string().as_bytes());
    for pause in 0..20 {
        let mut line = central.connect();
        send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(&body));
        std::thread::sleep(Duration::from_millis(pause * 3));
        drop(line);
        let count = readings(&central);
        assert!(count == 0 || count == 3_000, "{count} readings");
        central.sql("DELETE FROM Reading");
    }
}

#[test]
fn a_database_that_another_program_holds_is_503_and_serves_again_afterwards() {
    let central = seeded(Manner::Packhorse);
    let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let holder = runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&central.path);
        let mut holder = sqlx::ConnectOptions::connect(&options).await.unwrap();
        sqlx::query("BEGIN IMMEDIATE").execute(&mut holder).await.unwrap();
        holder
    });
    assert_refused(&bulk(&central, &rows), 503, "locked");
    assert_eq!(central.get("/rest/reading/").json(), json!([]));
    runtime.block_on(async { sqlx::Connection::close(holder).await.unwrap() });
    assert_stored(&bulk(&central, &rows));
}

/// 5,000 readings, others for each number.
fn many(number: i64) -> Value {
    let row = |at: i64| {
        let time = format!("20{:02}-01-{:02}T{:02}:{:02}:00", number, at / 1_440 + 1, at / 60 % 24, at % 60);
        reading(&time, 11, 0, 1.5)
    };
    (0..5_000).map(row).collect()
}

#[test]
fn a_database_that_fails_in_the_middle_of_a_bulk_is_503_and_only_what_was_acknowledged_is_there() {
    let central = seeded(Manner::Packhorse);
    assert_stored(&bulk(&central, &many(10)));
    central.sql(
        "CREATE TRIGGER late BEFORE INSERT ON Reading WHEN NEW.time = '2011-01-03T20:00:00' BEGIN SELECT RAISE(FAIL, 'late'); END",
    );
    assert_refused(&bulk(&central, &many(11)), 503, "late");
    assert_eq!(readings(&central), 5_000);
    central.sql("DROP TRIGGER late");
    assert_stored(&bulk(&central, &many(11)));
    assert_eq!(readings(&central), 10_000);
}

#[test]
#[ignore = "mounts a file system of 4 MiB: needs root"]
fn a_full_disk_is_503_and_what_was_acknowledged_is_there_when_it_has_room_again() {
    struct Mounted(tempfile::TempDir);
    impl Drop for Mounted {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
        }
    }
    let dir = Mounted(tempfile::tempdir().unwrap());
    let mount = |option: &str| {
        let mut command = std::process::Command::new("mount");
        assert!(command.args(["-t", "tmpfs", "-o", option, "tmpfs"]).arg(dir.0.path()).status().unwrap().success());
    };
    mount("size=4m");
    let path = dir.0.path().join("central.db");
    let central = Central::open(&path, Manner::Packhorse);
    central.sql(SEED);
    let mut acknowledged = 0;
    let refusal = loop {
        let answer = bulk(&central, &many(10 + acknowledged));
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 80, "the disk never fills");
    };
    assert_refused(&refusal, 503, "full");
    assert!(acknowledged > 0);
    assert_eq!(readings(&central), acknowledged * 5_000);
    mount("remount,size=64m");
    assert_stored(&bulk(&central, &many(10 + acknowledged)));
    central.kill();
    let central = Central::open(&path, Manner::Packhorse);
    assert_eq!(readings(&central), (acknowledged + 1) * 5_000);
}

#[test]
fn it_stops_within_seconds_although_a_request_hangs_and_a_connection_idles() {
    let mut central = seeded(Manner::Packhorse);
    let _idle = central.connect();
    let mut half = central.connect();
    send(&mut half, central.address, "POST", "/rest/bulk/", &[("Content-Length", "1000")], None);
    half.write_all(b"[").unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    central.stop();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[test]
fn what_cannot_be_opened_says_what_to_do() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bind = |database: String, manner| {
        let options = packhorse::receiver::Options::open("127.0.0.1:0".parse().unwrap(), database, manner);
        runtime.block_on(packhorse::receiver::Receiver::bind(options)).map(|_| ()).unwrap_err().to_string()
    };
    let dir = tempfile::tempdir().unwrap();
    assert!(bind("postgres://u@h/db".to_owned(), Manner::Packhorse).contains("sqlite:///"));
    assert!(bind("mysql://u@h/db".to_owned(), Manner::Legacy).contains("for tests"));
    assert!(bind("mysql://u:hush@127.0.0.1:1/db".to_owned(), Manner::Packhorse).contains("mysql://u@127.0.0.1:1/db"));
    assert!(bind("sqlite::memory:".to_owned(), Manner::Packhorse).contains("neither a SQLite file"));
    let absent = format!("sqlite://{}/absent/central.db", dir.path().display());
    assert!(bind(absent, Manner::Packhorse).contains("directory exists"));
    let path = dir.path().join("text.db");
    std::fs::write(&path, "this is no database, although it is long enough to be read as the head of one: ".repeat(30)).unwrap();
    assert!(bind(format!("sqlite://{}", path.display()), Manner::Packhorse).contains("SQLite"));
    let old = dir.path().join("old.db");
    drop(Central::open(&old, Manner::LegacyOldNodeState));
    assert!(bind(format!("sqlite://{}", old.display()), Manner::Packhorse).contains("legacy-old"));
}

/// `cargo test --release --test receiver -- --ignored --nocapture measured`
#[test]
#[ignore = "a measurement, for a release build on a quiet machine"]
fn measured_time_of_a_bulk_of_10_000_readings() {
    let central = seeded(Manner::Packhorse);
    let mut line = central.connect();
    for round in 0..10_i64 {
        let rows: Vec<Value> = (0..10_000)
            .map(|at| {
                let time = format!("20{:02}-01-{:02}T{:02}:{:02}:00", 10 + round, at / 1_440 + 1, at / 60 % 24, at % 60);
                reading(&time, 11, 0, 18.04 + f64::from(at) / 7.0)
            })
            .collect();
        let body = zlib(Value::from(rows).to_string().as_bytes());
        let began = Instant::now();
        send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(&body));
        assert_stored(&receive(&mut line));
        let first = began.elapsed();
        let began = Instant::now();
        send(&mut line, central.address, "POST", "/rest/bulk/", &[], Some(&body));
        assert_stored(&receive(&mut line));
        println!("round {round}: new {first:?}, the same again {:?}", began.elapsed());
    }
    assert_eq!(readings(&central), 100_000);
}
