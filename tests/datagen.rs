//! Sample data: what it looks like, and that it only adds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

#[path = "datagen/csv.rs"]
mod csv;
#[path = "datagen/houses.rs"]
mod houses;

use std::time::{Duration, Instant};

use packhorse::{
    domain::{Position, Stream},
    mysql::{
        MysqlSource, Options,
        datagen::{DatagenError, DatagenOptions, Houses, Pace, Ramps, Shape, datagen},
    },
    ports::{PageRequest, Source, SourceError},
};
use support::{Database, Mariadb, Schema, gateway::packhorse};

async fn writable(bare: bool) -> Database {
    let server = Mariadb::shared();
    let db =
        if bare { Database::bare(server, Schema::classic()).await } else { Database::create(server, Schema::classic()).await };
    db.run(&format!("GRANT ALL ON {}.* TO {}", db.name(), db.reader())).await;
    db
}

fn ramps(count: u64) -> DatagenOptions {
    DatagenOptions { create_tables: true, shape: Shape::Ramps(Ramps { pace: Pace::Backlog { count }, ..Ramps::default() }) }
}

#[tokio::test]
async fn ramps_rise_and_fall_and_end_now() {
    let db = writable(true).await;
    let report = datagen(db.url(), &ramps(300), |_| {}).await.unwrap();
    assert_eq!((report.readings, report.node_states), (600, 2 * (11 + 11 + 10)));
    let of = |node: u32| format!("SELECT CAST(SUM(value * POW(2, 0)) AS SIGNED) FROM Reading WHERE nodeId = {node}");
    assert_eq!(db.number(&of(37)).await + db.number(&of(38)).await, 300 * 100);
    let wrong = "SELECT COUNT(*) FROM (SELECT value - LAG(value) OVER (ORDER BY time) AS step, value FROM Reading WHERE nodeId = 37) AS s \
                 WHERE step <> 1 AND NOT (step = -100 AND value = 0)";
    assert_eq!(db.number(wrong).await, 0);
    assert_eq!(
        db.number("SELECT COUNT(*) FROM Reading WHERE time > UTC_TIMESTAMP() OR time < UTC_TIMESTAMP() - INTERVAL 400 SECOND")
            .await,
        0
    );
    assert_eq!(db.number("SELECT MAX(seq_num) FROM NodeState").await, 10);
    // Again: there is no room between the last row and now, nothing is doubled, nothing lies in the future.
    let again = datagen(db.url(), &ramps(300), |_| {}).await.unwrap();
    assert!(again.readings < 60, "{again:?}");
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE time > UTC_TIMESTAMP()").await, 0);
}

#[tokio::test]
async fn live_ramps_write_as_time_goes() {
    let db = writable(false).await;
    let pace = Pace::Live { count: Some(2) };
    let options = DatagenOptions {
        create_tables: false,
        shape: Shape::Ramps(Ramps { gap: Duration::from_millis(300), states_every: 1, pace }),
    };
    let mut heard = 0;
    let report = datagen(db.url(), &options, |rows| heard = rows).await.unwrap();
    assert_eq!((report.readings, report.node_states, heard), (4, 4, 8));
}

#[tokio::test]
async fn houses_are_made_fast_read_whole_and_gone_on_with() {
    let db = writable(true).await;
    let houses = Houses { houses: 4, rooms: 3, sensors: 4, days: 10.0, ..Houses::default() };
    let options = DatagenOptions { create_tables: true, shape: Shape::Houses(houses) };
    let begin = Instant::now();
    let report = datagen(db.url(), &options, |_| {}).await.unwrap();
    println!(
        "{} readings in {:?}: {:.0}/s",
        report.readings,
        begin.elapsed(),
        report.readings as f64 / begin.elapsed().as_secs_f64()
    );
    assert_eq!((report.readings, report.node_states), (4 * 3 * 4 * 2881, 4 * 3 * 2881));
    let mut source = MysqlSource::new(Options::new(db.url())).unwrap();
    source.connect().await.unwrap();
    assert_eq!(source.catalog().await.unwrap().len(), 6 + 3 + 3 + 1 + 4 + 12 + 12 + 48);
    let all = PageRequest { stream: Stream::Reading, after: Position::Start, before: None, limit: u32::MAX };
    assert_eq!(source.count_after(&all, u64::MAX).await.unwrap(), report.readings);
    assert_eq!(
        db.number(
            "SELECT COUNT(*) FROM Reading LEFT JOIN Node ON Node.id = nodeId WHERE NOT (Node.locationId <=> Reading.locationId)"
        )
        .await,
        0
    );
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE time > UTC_TIMESTAMP()").await, 0);
    let again = datagen(db.url(), &options, |_| {}).await.unwrap();
    assert!(again.readings <= 48, "{again:?}");
    assert_eq!(db.number("SELECT COUNT(*) FROM House").await, 4);
}

#[tokio::test]
async fn a_user_who_may_only_read_is_told() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    let error = datagen(db.url(), &DatagenOptions { create_tables: false, ..ramps(1) }, |_| {}).await.unwrap_err();
    assert!(
        matches!(error, DatagenError::Database(SourceError::Denied { .. })) && error.to_string().contains("GRANT"),
        "{error}"
    );
}

/// `packhorse datagen ARGS`: exit code, standard output and standard error.
async fn command(url: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = packhorse();
    command.args(["datagen", "--url", url]).args(args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// One text of a whole column, in the order of time.
async fn column(db: &Database, expression: &str, table: &str, node: u32) -> String {
    let sql = format!("SELECT GROUP_CONCAT({expression} ORDER BY time) FROM {table} WHERE nodeId = {node}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(db.admin()).await.unwrap()
}

fn joined(values: impl Iterator<Item = u64>) -> String {
    values.map(|value| value.to_string()).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn the_command_writes_one_ramp_each_way_unless_told_otherwise() {
    let db = writable(true).await;
    let (code, out, error) = command(db.url(), &["--create-tables"]).await;
    assert_eq!(code, Some(0), "{error}");
    assert!(out.starts_with("202 readings and 202 node states, from "), "{out}");
    assert_eq!(column(&db, "value", "Reading", 37).await, joined(0..=100));
    assert_eq!(column(&db, "value", "Reading", 38).await, joined((0..=100).rev()));
    for node in [37, 38] {
        assert_eq!(column(&db, "seq_num", "NodeState", node).await, joined(0..=100));
    }
    assert_eq!(db.number("SELECT TIMESTAMPDIFF(SECOND, MIN(time), MAX(time)) FROM Reading").await, 100 * 300);
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE time > UTC_TIMESTAMP()").await, 0);
}

#[tokio::test]
async fn the_command_minds_gap_and_states_and_counts_anew_with_each_ramp() {
    let db = writable(false).await;
    db.run("INSERT INTO Node (id) VALUES (37), (7); INSERT INTO SensorType (id, name) VALUES (0, 'Mine')").await;
    db.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2013-01-01', 7, 0, 1), ('2013-01-01', 37, 0, -1)").await;
    let (code, _, error) = command(db.url(), &["--count", "205", "--gap", "7s", "--states-every", "40"]).await;
    assert_eq!(code, Some(0), "{error}");
    let rising = format!("-1,{},{},0,1,2", joined(0..=100), joined(0..=100));
    assert_eq!(column(&db, "value", "Reading", 37).await, rising);
    assert_eq!(column(&db, "seq_num", "NodeState", 38).await, "0,1,2,0,1,2,0");
    let gaps = "SELECT COUNT(DISTINCT gap) * 100 + MAX(gap) FROM \
                (SELECT TIMESTAMPDIFF(SECOND, LAG(time) OVER (ORDER BY time), time) AS gap FROM Reading WHERE nodeId = 38) AS g";
    assert_eq!(db.number(gaps).await, 107);
    // What was there stays as it was.
    assert_eq!(db.number("SELECT COUNT(*) FROM Reading WHERE time = '2013-01-01' AND ABS(value) = 1").await, 2);
    assert_eq!(db.number("SELECT COUNT(*) FROM SensorType WHERE name = 'Mine'").await, 1);
}

#[tokio::test]
async fn the_command_makes_houses() {
    let db = writable(true).await;
    let (code, out, error) =
        command(db.url(), &["--create-tables", "--houses", "2", "--days", "3", "--flaws", "none", "--sensors", "4"]).await;
    assert_eq!(code, Some(0), "{error}");
    let packets = 3 * 288 + 1;
    assert!(out.starts_with(&format!("{} readings and {} node states", packets * 32, packets * 8)), "{out}");
    assert_eq!(db.number("SELECT COUNT(*) FROM House").await, 2);
}

#[tokio::test]
async fn the_command_says_what_is_wrong() {
    let db = writable(true).await;
    let (code, out, error) = command(db.url(), &[]).await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(error.starts_with("error: cannot write samples: ") && error.contains("Node"), "{error}");
    let nobody = db.url().replace("secret", "guess");
    let (code, _, error) = command(&nobody, &[]).await;
    assert_eq!(code, Some(3));
    assert!(error.contains("check the user and the password") && !error.contains("guess"), "{error}");
    let (code, _, error) = command("mysql://u@127.0.0.1:1/ch", &[]).await;
    assert_eq!(code, Some(3));
    assert!(error.contains("nothing listens at 127.0.0.1:1"), "{error}");
    for (args, words) in [
        (&["--count", "0"][..], "0 never ends, which needs --live"),
        (&["--gap", "10ms"], "write 1s or more"),
        (&["--gap", "soon"], "soon"),
        (&["--days", "3"], "--houses"),
        (&["--houses", "1", "--count", "5"], "cannot be used with"),
        (&["--houses", "1", "--days", "4000000000"], "is not in"),
        (&["--houses", "-1"], "unexpected argument"),
        (&["--houses", "1", "--sensors", "7"], "7 is not in 1..=6"),
        (&["--houses", "1", "--flaws", "some"], "'some'"),
        (&["--houses", "1", "--until", "tomorrow"], "tomorrow"),
        (&["--houses", "1", "--live", "--days", "3"], "cannot be used with"),
        (&["--houses", "3", "--rate", "500"], "3 houses give 72 rows a second at most; write --houses 21"),
        (&["--houses", "3", "--rate", "0"], "0 is not in"),
        (&["--rate", "5"], "it needs --houses N or --from-csv FILE"),
        (&["--from-csv", "x.csv", "--houses", "1"], "cannot be used with"),
        (&["--from-csv", "/nowhere/x.csv", "--create-tables"], "cannot read /nowhere/x.csv: No such file"),
    ] {
        let (code, out, error) = command(db.url(), args).await;
        assert_eq!((code, out.as_str()), (Some(2), ""), "{args:?} {error}");
        assert!(error.contains(words), "{args:?} {error}");
    }
}
