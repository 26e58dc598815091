//! What the source hands over: every row once, in order, exactly as it is stored.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use packhorse::{
    domain::{Column, Micros, Position, Rows, Stream},
    mysql::{MysqlSource, Options},
    ports::{Order, PageRequest, Source, SourceError},
};
use support::{Database, Mariadb, Schema, greenhouse::load_catalog};

fn source(db: &Database) -> MysqlSource {
    MysqlSource::new(Options::new(db.url())).unwrap()
}

fn ask(stream: Stream, after: Position, limit: u32) -> PageRequest {
    PageRequest { stream, after, before: None, limit }
}

/// All rows of a stream, in pages of `limit`.
async fn all(source: &mut MysqlSource, stream: Stream, limit: u32) -> Rows {
    let mut rows = Rows::empty(stream);
    let mut after = Position::Start;
    loop {
        let page = source.page(&ask(stream, after.clone(), limit)).await.unwrap();
        assert!(page.len() <= limit as usize);
        let Some(last) = page.len().checked_sub(1) else { return rows };
        after = support::position(&page, last).unwrap();
        let short = page.len() < limit as usize;
        rows.extend(page);
        if short {
            return rows;
        }
    }
}

fn schemas() -> Vec<Schema> {
    let classic = Schema::classic();
    let newest = Schema::newest();
    vec![
        classic,
        newest,
        Schema { fraction: true, double_value: true, ..classic },
        Schema { seq_num: false, rssi: false, reading_location: false, ..classic },
        Schema { fraction: true, rssi: false, ..newest },
    ]
}

/// Ties: three seconds, five nodes, three types; and node states of the same second.
async fn fill_ties(db: &Database) {
    load_catalog(db).await;
    let schema = db.schema();
    for second in 0..3 {
        for node in [1, 2, 3, 10, 11] {
            for kind in [0, 2, 6] {
                let location = if schema.reading_location { ", locationId = 509" } else { "" };
                db.run(&format!(
                    "INSERT INTO Reading SET time = '2013-01-01 00:00:0{second}', nodeId = {node}, type = {kind}, value = {node}.5{location}"
                ))
                .await;
            }
            let seq_num = if schema.seq_num { format!(", seq_num = {}", 7 - second) } else { String::new() };
            db.run(&format!(
                "INSERT INTO NodeState SET time = '2013-01-01', nodeId = {node}, parent = 1, `localtime` = 4294967296{seq_num}"
            ))
            .await;
        }
    }
}

#[tokio::test]
async fn pages_cover_every_row_exactly_once_whatever_the_schema_and_the_page_size() {
    for schema in schemas() {
        let db = Database::create(Mariadb::shared(), schema).await;
        fill_ties(&db).await;
        let mut source = source(&db);
        let found = source.connect().await.unwrap();
        let order = if schema.nodestate_id { Order::Id } else { Order::Key };
        assert_eq!(found.streams.iter().map(|s| s.order).collect::<Vec<_>>(), [Order::Key, order], "{schema:?}");
        assert!(found.version.contains("MariaDB"), "{}", found.version);

        let (readings, states) = (all(&mut source, Stream::Reading, 1000).await, all(&mut source, Stream::NodeState, 1000).await);
        assert_eq!((readings.len(), states.len()), (45, 15), "{schema:?}");
        for limit in [1, 2, 7, 15, 45] {
            assert_eq!(all(&mut source, Stream::Reading, limit).await, readings, "{limit} {schema:?}");
            assert_eq!(all(&mut source, Stream::NodeState, limit).await, states, "{limit} {schema:?}");
        }
        let keys: Vec<_> = (0..45).map(|row| (readings.time(row), readings.int(1, row), readings.int(2, row))).collect();
        assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
        assert_eq!(readings.int(3, 0), schema.reading_location.then_some(509));
        assert_eq!(states.int(0, 0).is_some(), schema.nodestate_id);
        assert_eq!(states.int(4, 0), Some(4_294_967_296));
        assert_eq!(states.int(5, 0).is_some(), schema.seq_num);
        assert_eq!(source.last(Stream::Reading, None).await.unwrap(), support::position(&readings, 44).unwrap());
        assert_eq!(source.last(Stream::NodeState, None).await.unwrap(), support::position(&states, 14).unwrap());
    }
}

#[tokio::test]
async fn rows_at_or_after_the_horizon_stay_where_they_are() {
    let db = Database::create(Mariadb::shared(), Schema { fraction: true, ..Schema::classic() }).await;
    load_catalog(&db).await;
    db.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2013-01-01 00:00:00.5', 1, 0, 1), ('2013-01-01 00:00:00.500001', 1, 0, 2), ('2013-01-01 00:00:01', 1, 0, 3)").await;
    db.run("INSERT INTO NodeState (time, nodeId) VALUES ('2099-01-01', 1)").await;
    let mut source = source(&db);
    let horizon: Micros = "2013-01-01T00:00:00.500001".parse().unwrap();
    let request = PageRequest { before: Some(horizon), ..ask(Stream::Reading, Position::Start, 10) };
    assert_eq!(source.page(&request).await.unwrap().len(), 1);
    assert_eq!(source.count_after(&request, 10).await.unwrap(), 1);
    let last = source.last(Stream::Reading, Some(horizon)).await.unwrap();
    assert_eq!(last, Position::Key { time: Micros(horizon.0 - 1), rest: vec![1, 0] });
    assert_eq!(source.last(Stream::Reading, Some(Micros(0))).await.unwrap(), Position::Start);
    // By id the time plays no part.
    let request = PageRequest { before: Some(horizon), ..ask(Stream::NodeState, Position::Start, 10) };
    assert_eq!(source.page(&request).await.unwrap().len(), 1);
    // But a beginning at a time leaves out no row of that time or later, whatever its id.
    db.run("INSERT INTO NodeState (id, time, nodeId) VALUES (20, '2012-01-01', 1), (21, '2014-01-01', 1), (22, '2012-01-01', 1), (23, '2015-01-01', 1)")
        .await;
    db.run("DELETE FROM NodeState WHERE time = '2099-01-01'").await;
    let begin =
        async |source: &mut MysqlSource, time: &str| source.last(Stream::NodeState, Some(time.parse().unwrap())).await.unwrap();
    assert_eq!(begin(&mut source, "2013-01-01").await, Position::Id(20));
    assert_eq!(begin(&mut source, "2016-01-01").await, Position::Id(23));
    // Counting stops at the cap.
    let counted = source.count_after(&ask(Stream::Reading, Position::Start, 1), 2).await.unwrap();
    assert_eq!(counted, 2);
}

#[tokio::test]
async fn values_come_bit_for_bit() {
    let floats = ["16777216", "16777217", "0.1", "18.04", "1e-7", "3.4e38", "0.0", "1.17549435e-38", "-273.15"];
    for double_value in [false, true] {
        let db = Database::create(Mariadb::shared(), Schema { double_value, ..Schema::classic() }).await;
        load_catalog(&db).await;
        for (at, text) in floats.iter().enumerate() {
            let insert = "INSERT INTO Reading SET time = '2013-01-01' + INTERVAL ? SECOND, nodeId = 1, type = 0, value = ?";
            let value: f64 = text.parse().unwrap();
            sqlx::query(insert).bind(at as u32).bind(value).execute(db.admin()).await.unwrap();
        }
        db.run("INSERT INTO Reading SET time = '2014-01-01', nodeId = 1, type = 0, value = NULL").await;
        let rows = all(&mut source(&db), Stream::Reading, 100).await;
        let expected = if double_value {
            Column::Double(floats.iter().map(|text| Some(text.parse().unwrap())).chain([None]).collect())
        } else {
            Column::Float(floats.iter().map(|text| Some(text.parse().unwrap())).chain([None]).collect())
        };
        assert_eq!(rows.columns()[4], expected);
    }
}

#[tokio::test]
async fn every_date_comes_exactly() {
    let dates = [
        "0001-01-01T00:00:00",
        "1000-01-01T00:00:00",
        "1969-12-31T23:59:59.999999",
        "1970-01-01T00:00:00",
        "2038-01-19T03:14:08",
        "9999-12-31T23:59:59.999999",
    ];
    let db = Database::create(Mariadb::shared(), Schema { fraction: true, ..Schema::newest() }).await;
    load_catalog(&db).await;
    for date in dates {
        db.run(&format!("INSERT INTO Reading SET time = '{date}', nodeId = 1, type = 0, value = 1")).await;
        db.run(&format!("INSERT INTO NodeState SET time = '{date}', nodeId = 1, seq_num = 0")).await;
    }
    let mut source = source(&db);
    for stream in Stream::ALL {
        let rows = all(&mut source, stream, 1).await;
        let times: Vec<_> = (0..rows.len()).map(|row| rows.time(row).unwrap().to_string()).collect();
        assert_eq!(times, dates);
    }
    let now = source.now().await.unwrap();
    let here = Micros(i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap());
    assert!(now.since(here).max(here.since(now)).as_secs() < 60, "{now} {here}");
}

#[tokio::test]
async fn integers_of_any_width_and_sign_are_read() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    let cases = [
        ("TINYINT", -128),
        ("TINYINT UNSIGNED", 255),
        ("SMALLINT", -32_768),
        ("SMALLINT UNSIGNED", 65_535),
        ("MEDIUMINT", -8_388_608),
        ("MEDIUMINT UNSIGNED", 16_777_215),
        ("INT", -2_147_483_648),
        ("INT UNSIGNED", 4_294_967_295),
        ("BIGINT", i64::MIN),
        ("BIGINT UNSIGNED", i64::MAX),
        ("TINYINT(1)", -5),
    ];
    for (kind, value) in cases {
        db.run(&format!("DELETE FROM NodeState; ALTER TABLE NodeState MODIFY parent {kind}; INSERT INTO NodeState SET time = '2013-01-01', nodeId = 1, parent = {value}")).await;
        let rows = all(&mut source(&db), Stream::NodeState, 10).await;
        assert_eq!(rows.int(3, 0), Some(value), "{kind}");
    }
    db.run("DELETE FROM NodeState; ALTER TABLE NodeState MODIFY parent BIGINT UNSIGNED; INSERT INTO NodeState SET id = 77, time = '2013-01-01', nodeId = 1, parent = 9223372036854775808").await;
    let error = source(&db).page(&ask(Stream::NodeState, Position::Start, 10)).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Row { .. }) && error.to_string().contains("id 77") && error.to_string().contains("parent"),
        "{error}"
    );
}

#[tokio::test]
async fn a_timestamp_is_read_as_utc_whatever_the_zone_of_the_server() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    db.run("ALTER TABLE Reading MODIFY time TIMESTAMP NOT NULL DEFAULT '2000-01-01'").await;
    db.run("SET time_zone = '+02:00'; INSERT INTO Reading SET time = '2013-07-01 02:00:00', nodeId = 1, type = 0, value = 1")
        .await;
    let rows = all(&mut source(&db), Stream::Reading, 1).await;
    assert_eq!(rows.time(0).unwrap().to_string(), "2013-07-01T00:00:00");
}

#[tokio::test]
async fn a_decimal_value_is_read_as_a_double() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    db.run("ALTER TABLE Reading MODIFY value DECIMAL(10,3); INSERT INTO Reading SET time = '2013-01-01', nodeId = 1, type = 0, value = 18.04").await;
    let rows = all(&mut source(&db), Stream::Reading, 10).await;
    assert_eq!(rows.columns()[4], Column::Double(vec![Some(18.04)]));
}

#[tokio::test]
async fn a_zero_date_is_counted_and_never_taken_for_null() {
    for schema in [Schema::classic(), Schema::newest()] {
        let db = Database::create(Mariadb::shared(), schema).await;
        load_catalog(&db).await;
        let mut one = db.admin().acquire().await.unwrap();
        for sql in [
            "SET sql_mode = ''",
            "INSERT INTO Reading (time, nodeId, type, value) VALUES ('0000-00-00', 1, 0, 1), ('0000-00-00', 1, 2, 1), ('2013-01-01', 1, 0, 2)",
            "INSERT INTO NodeState (time, nodeId, seq_num) VALUES ('2013-01-01', 1, 1), ('0000-00-00', 1, 2)",
        ] {
            sqlx::raw_sql(sql).execute(&mut *one).await.unwrap();
        }
        let mut source = source(&db);
        assert_eq!(source.unreadable(Stream::Reading).await.unwrap(), 2);
        assert_eq!(all(&mut source, Stream::Reading, 1).await.len(), 1);
        assert_eq!(source.unreadable(Stream::NodeState).await.unwrap(), 1);
        let page = source.page(&ask(Stream::NodeState, Position::Start, 10)).await;
        if schema.nodestate_id {
            let error = page.unwrap_err().to_string();
            assert!(error.contains("id 2") && error.contains("time is 0000-00-00"), "{error}");
            // The row before it can be had, and the one after a mended date too.
            assert_eq!(source.page(&ask(Stream::NodeState, Position::Start, 1)).await.unwrap().len(), 1);
            db.run("UPDATE NodeState SET time = '2013-01-02' WHERE id = 2").await;
            assert_eq!(all(&mut source, Stream::NodeState, 10).await.len(), 2);
        } else {
            assert_eq!(page.unwrap().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_null_in_the_key_of_a_table_without_one_is_an_error_and_a_null_time_is_counted() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    db.run("DROP TABLE Reading; CREATE TABLE Reading (time DATETIME, nodeId INT, type INT, value FLOAT) ENGINE=MyISAM").await;
    db.run("INSERT INTO Reading VALUES ('2013-01-01', 1, 0, 1), ('2013-01-02', NULL, 0, 1), (NULL, 1, 0, 1)").await;
    db.run("INSERT INTO Node (id) VALUES (1); INSERT INTO NodeState (nodeId, time) VALUES (1, NULL)").await;
    let mut source = source(&db);
    let error = source.page(&ask(Stream::Reading, Position::Start, 10)).await.unwrap_err();
    assert!(matches!(error, SourceError::Row { .. }) && error.to_string().contains("nodeId is NULL"), "{error}");
    assert_eq!(source.page(&ask(Stream::Reading, Position::Start, 1)).await.unwrap().len(), 1);
    assert_eq!(source.unreadable(Stream::Reading).await.unwrap(), 1);
    // A node state is found by its id, so that its time may be NULL.
    let states = all(&mut source, Stream::NodeState, 10).await;
    assert_eq!((states.len(), states.time(0)), (1, None));
}

#[tokio::test]
async fn an_id_that_is_not_a_key_is_not_paged_by() {
    let db = Database::create(Mariadb::shared(), Schema::newest()).await;
    load_catalog(&db).await;
    db.run("ALTER TABLE NodeState ADD id INT DEFAULT 5; INSERT INTO NodeState (time, nodeId, seq_num) VALUES ('2013-01-01', 1, 1), ('2013-01-01', 1, 2)").await;
    let mut source = source(&db);
    assert_eq!(source.connect().await.unwrap().streams[1].order, Order::Key);
    assert_eq!(all(&mut source, Stream::NodeState, 1).await.len(), 2);
}

#[tokio::test]
async fn a_page_reads_the_primary_key_from_where_it_stands() {
    // The general log is the server's, so it must be a server of our own.
    let server = Mariadb::private();
    let db = Database::create(&server, Schema::newest()).await;
    load_catalog(&db).await;
    db.run("SET foreign_key_checks = 0; INSERT INTO Reading (time, nodeId, type, value) SELECT '2013-01-01' + INTERVAL seq DIV 10 SECOND, seq % 10, 0, seq FROM seq_1_to_120000").await;
    db.run("SET foreign_key_checks = 0; INSERT INTO NodeState (time, nodeId, seq_num) SELECT '2013-01-01' + INTERVAL seq DIV 10 SECOND, seq % 10, 0 FROM seq_1_to_120000").await;
    db.run("ANALYZE TABLE Reading, NodeState").await;
    let mut source = source(&db);
    source.connect().await.unwrap();
    let time: Micros = "2013-01-01T03:00:00".parse().unwrap();
    db.run("SET GLOBAL log_output = 'TABLE', GLOBAL general_log = 1").await;
    let before = Some(Micros(time.0 + 86_400_000_000));
    for stream in Stream::ALL {
        for after in [Position::Start, Position::Key { time, rest: vec![4, 0] }] {
            let request = PageRequest { before, ..ask(stream, after, 500) };
            assert_eq!(source.page(&request).await.unwrap().len(), 500);
        }
        source.last(stream, before).await.unwrap();
    }
    db.run("SET GLOBAL general_log = 0").await;
    let asked: Vec<String> = sqlx::query_scalar(
        "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE command_type = 'Execute' AND argument LIKE '%ORDER BY%' AND argument NOT LIKE '%general_log%'",
    )
    .fetch_all(db.admin())
    .await
    .unwrap();
    assert_eq!(asked.len(), 6, "{asked:?}");
    for sql in asked {
        use sqlx::Row as _;
        let plan = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("EXPLAIN {sql}"))).fetch_one(db.admin()).await.unwrap();
        let text = |name: &str| plan.get::<Option<String>, _>(name).unwrap_or_default();
        assert_eq!((text("type").as_str(), text("key").as_str()), ("range", "PRIMARY"), "{sql}");
        assert!(!text("Extra").contains("filesort"), "{sql}: {}", text("Extra"));
        let mut one = db.admin().acquire().await.unwrap();
        sqlx::raw_sql("FLUSH STATUS").execute(&mut *one).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *one).await.unwrap();
        let status = "SELECT CAST(SUM(variable_value) AS SIGNED) FROM information_schema.session_status WHERE variable_name LIKE 'Handler_read%'";
        let read: i64 = sqlx::query_scalar(status).fetch_one(&mut *one).await.unwrap();
        assert!(read < 600, "{read} rows were read for 500");
    }
}
