//! Houses as in the field: what befalls their packets shows in the tables, and the same seed makes the same tables.

use super::*;

const PERIOD: [&str; 6] = ["--days", "40", "--until", "2026-01-31T12:00:00", "--gap", "10min"];

async fn houses(seed: &str) -> Database {
    let db = writable(true).await;
    let args = [&["--create-tables", "--houses", "4", "--seed", seed][..], &PERIOD].concat();
    let (code, out, error) = command(db.url(), &args).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.ends_with(" to 2026-01-31T11:59:59\n") || out.contains(" to 2026-01-31T1"), "{out}");
    db
}

async fn sum(db: &Database) -> String {
    let sql = "SELECT CONCAT_WS(' ', (SELECT SUM(CRC32(CONCAT_WS(',', time, nodeId, type, value))) FROM Reading),
                   (SELECT SUM(CRC32(CONCAT_WS(',', id, time, nodeId, parent, `localtime`, seq_num, rssi))) FROM NodeState))";
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db.admin()).await.unwrap()
}

#[tokio::test]
async fn what_befalls_packets_in_the_field_shows_in_the_tables() {
    let db = houses("1").await;
    let full = 16 * (40 * 144 + 1);
    let packets = db.number("SELECT COUNT(*) FROM NodeState").await;
    assert!(packets > full * 8 / 10 && packets < full * 98 / 100, "{packets} of {full}");
    assert!(db.number("SELECT COUNT(DISTINCT type) FROM Reading").await == 5);
    // Hours without a packet of a node, dates of 1970, counters that begin anew, clocks that are minutes behind.
    for (what, sql) in [
        (
            "silence",
            "SELECT COUNT(*) FROM (SELECT TIMESTAMPDIFF(MINUTE, LAG(time) OVER (PARTITION BY nodeId ORDER BY time), time) AS gap \
                     FROM NodeState WHERE time > '2000-01-01') AS g WHERE gap > 60",
        ),
        ("1970", "SELECT COUNT(*) FROM Reading WHERE time < '1970-01-02'"),
        ("restarts", "SELECT COUNT(*) - 16 FROM NodeState WHERE `localtime` = 0"),
        (
            "late",
            "SELECT COUNT(*) FROM (SELECT time, LAG(time) OVER (PARTITION BY nodeId ORDER BY id) AS before_it FROM NodeState \
                  WHERE time > '2000-01-01') AS s WHERE time < before_it",
        ),
        ("through another node", "SELECT COUNT(*) FROM NodeState JOIN Node ON Node.id = parent"),
    ] {
        assert!(db.number(sql).await > 0, "{what}");
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE time > '2026-01-31 12:00:00'").await, 0);
    assert_eq!(
        db.number("SELECT COUNT(*) FROM NodeState WHERE seq_num NOT BETWEEN 0 AND 255 OR rssi NOT BETWEEN -100 AND -40").await,
        0
    );
    // A day in a bedroom: people at night.
    let co2 = |hours: &str| {
        format!("SELECT CAST(AVG(value) AS SIGNED) FROM Reading WHERE nodeId = 1002 AND type = 8 AND HOUR(time) IN ({hours})")
    };
    assert!(db.number(&co2("1,2,3")).await > db.number(&co2("12,13,14")).await + 200);
}

#[tokio::test]
async fn the_same_seed_makes_the_same_rows_and_another_one_others() {
    let (one, same, other) = tokio::join!(houses("7"), houses("7"), houses("8"));
    assert_eq!(sum(&one).await, sum(&same).await);
    assert_ne!(sum(&one).await, sum(&other).await);
    // Again: it all is there.
    let before = sum(&one).await;
    let args = [&["--houses", "4", "--seed", "7"][..], &PERIOD].concat();
    let (code, out, error) = command(one.url(), &args).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.contains("nothing to add") || sum(&one).await != before, "{out}");
    assert_eq!(one.number("SELECT COUNT(*) FROM Node").await, 16);
}

/// Runs it for a while, then asks it to stop.
async fn until_stopped(db: &Database, args: &[&str], while_: impl AsyncFn() -> bool) -> String {
    let mut command = packhorse();
    command.args(["-q", "datagen", "--url", db.url(), "--create-tables"]).args(args);
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut running = support::gateway::Running(child);
    let began = Instant::now();
    while while_().await {
        assert!(!running.ended() && began.elapsed() < Duration::from_mins(1), "{args:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (status, _) = running.terminate().await;
    assert!(status.success(), "{status}");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut running.0.stdout.take().unwrap(), &mut said).unwrap();
    said
}

#[tokio::test]
async fn at_a_rate_rows_come_dated_now_until_it_is_stopped() {
    let db = writable(true).await;
    let rows = async || {
        let there = db
            .number(
                "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'Pushstatus'",
            )
            .await;
        if there == 0 { 0 } else { db.number("SELECT COUNT(*) FROM Reading").await }
    };
    let said = until_stopped(&db, &["--houses", "3", "--rate", "36"], async || rows().await < 120).await;
    assert!(said.starts_with("stopped after about "), "{said}");
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE time > UTC_TIMESTAMP()").await, 0);
    // 36 rows a second are 6 packets of 6 rows; some get lost, none more comes.
    let most =
        "SELECT CAST(MAX(n) AS SIGNED) FROM (SELECT COUNT(*) AS n FROM NodeState WHERE time > '2000-01-01' GROUP BY time) AS s";
    assert!((1..=12).contains(&db.number(most).await));
    // It goes on beside what is there.
    let before = rows().await;
    until_stopped(&db, &["--houses", "3", "--live", "--gap", "3s"], async || rows().await < before + 60).await;
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE time > UTC_TIMESTAMP()").await, 0);
}
