//! Sample data: what it looks like, and that it only adds.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use packhorse::{
    domain::{Position, Stream},
    mysql::{
        MysqlSource, Options,
        datagen::{DatagenOptions, Houses, Pace, Ramps, Shape, datagen},
    },
    ports::{PageRequest, Source, SourceError},
};
use support::{Database, Mariadb, Schema};

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
    assert!(matches!(error, SourceError::Denied { .. }) && error.to_string().contains("GRANT"), "{error}");
}
