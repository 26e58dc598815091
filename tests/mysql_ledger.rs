//! What the source answers to audits: the tallies that the rows themselves give, at the cost of the span that was asked for.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Instant;

use packhorse::{
    domain::{Order, Position, Rows, Stream, Tallies, ledger},
    mysql::{MysqlSource, Options},
    ports::{PageRequest, SlotRequest, Source, Span, TallyRequest},
};
use support::{Database, Mariadb, Schema, greenhouse::load_catalog};

fn source(db: &Database) -> MysqlSource {
    MysqlSource::new(Options::new(db.url())).unwrap()
}

/// Three days of five nodes, with NULLs where they may be, and far times.
async fn fill(db: &Database) {
    load_catalog(db).await;
    let schema = db.schema();
    let (fraction, seq_num) =
        (if schema.fraction { " + INTERVAL seq MICROSECOND" } else { "" }, if schema.seq_num { "seq % 256" } else { "NULL" });
    let nodes = "(SELECT id AS node FROM Node WHERE id IN (1, 2, 3, 10, 11)) AS nodes";
    db.run(&format!(
        "INSERT INTO Reading (time, nodeId, type, value) SELECT '2013-01-01' + INTERVAL seq * 11 MINUTE{fraction}, node, kind, seq \
         FROM seq_1_to_400, {nodes}, (SELECT 0 AS kind UNION SELECT 2) AS kinds"
    ))
    .await;
    let columns = if schema.seq_num { "time, nodeId, parent, `localtime`, seq_num" } else { "time, nodeId, parent, `localtime`" };
    let seq_num = if schema.seq_num { format!(", {seq_num}") } else { String::new() };
    db.run(&format!(
        "INSERT INTO NodeState ({columns}) SELECT '2013-01-01' + INTERVAL seq * 11 MINUTE{fraction}, node, 1, IF(seq % 7 = 0, NULL, seq){seq_num} \
         FROM seq_1_to_400, {nodes}"
    ))
    .await;
    for time in ["0001-01-01", "1969-12-31 23:59:59", "9999-12-31 23:59:59"] {
        db.run(&format!("INSERT INTO Reading (time, nodeId, type, value) VALUES ('{time}', 1, 0, 1)")).await;
    }
    if schema.nodestate_id {
        db.run("INSERT INTO NodeState (time, nodeId) VALUES (NULL, 1), ('2013-01-01', NULL), (NULL, NULL)").await;
    }
}

async fn all(source: &mut MysqlSource, stream: Stream) -> Rows {
    source.page(&PageRequest { stream, after: Position::Start, before: None, limit: 100_000 }).await.unwrap()
}

fn span(stream: Stream, from: i64, to: i64) -> Span {
    Span { stream, from, to, floor: Position::Start, upto: None }
}

#[tokio::test]
async fn the_server_counts_what_the_rows_give_in_every_schema_and_every_width() {
    let classic = Schema::classic();
    let schemas = [
        classic,
        Schema::newest(),
        Schema { seq_num: false, rssi: false, ..classic },
        Schema { fraction: true, ..Schema::newest() },
    ];
    for schema in schemas {
        let db = Database::create(Mariadb::shared(), schema).await;
        fill(&db).await;
        let mut source = source(&db);
        for stream in source.connect().await.unwrap().streams {
            let (stream, order) = (stream.stream, stream.order);
            let rows = all(&mut source, stream).await;
            let expected = ledger::count(&rows, order);
            let (first, last) = (expected.keys().next().unwrap().place, expected.keys().next_back().unwrap().place + 1);
            assert_eq!(source.first_place(stream, None).await.unwrap(), Some(first));
            assert_eq!(source.first_place(stream, Some(first + 1)).await.unwrap().is_some(), last > first + 1);
            for unit in if order == Order::Id { vec![1] } else { vec![1, 24, 720] } {
                let mut wide = Tallies::new();
                for (slot, tally) in &expected {
                    let sum = wide.entry(ledger::Slot { place: slot.place.div_euclid(unit) * unit, ..*slot }).or_default();
                    *sum = sum.and(*tally);
                }
                let request = TallyRequest { span: span(stream, first - 1, last), unit };
                assert_eq!(source.tallies(&request).await.unwrap(), wide, "{stream} by {unit}: {schema:?}");
            }
            // Floor and watermark cut slots, and the pages of a slot make it up.
            let at = |row| if order == Order::Id { rows.id_position(row) } else { rows.key_position(row) }.unwrap();
            let cut = Span { floor: at(40), upto: Some(at(rows.len() - 40)), ..span(stream, first, last) };
            let within = rows.slice(41, rows.len() - 39);
            let counted = source.tallies(&TallyRequest { span: cut.clone(), unit: 1 }).await.unwrap();
            assert_eq!(counted, ledger::count(&within, order), "{stream}: {schema:?}");
            for (slot, tally) in counted.iter().take(5) {
                let narrow = Span { from: slot.place, to: slot.place + 1, ..cut.clone() };
                let mut request = SlotRequest { span: narrow, node: slot.node, after: Position::Start, limit: 3 };
                let mut paged = Rows::empty(stream);
                loop {
                    let page = source.slot_rows(&request).await.unwrap();
                    let Some(last) = page.len().checked_sub(1) else { break };
                    request.after = page.slot_position(last, order).unwrap();
                    paged.extend(page);
                }
                assert_eq!(ledger::count(&paged, order), [(*slot, *tally)].into(), "{stream}: {schema:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_audit_reads_the_primary_key_and_no_more_than_its_span() {
    // The general log is the server's, so it must be a server of our own.
    let server = Mariadb::private();
    for schema in [Schema::newest(), Schema::classic()] {
        let db = Database::create(&server, schema).await;
        load_catalog(&db).await;
        db.run("SET foreign_key_checks = 0; INSERT INTO Reading (time, nodeId, type, value) SELECT '2013-01-01' + INTERVAL seq DIV 10 SECOND, seq % 10, 0, seq FROM seq_1_to_120000").await;
        db.run("SET foreign_key_checks = 0; INSERT INTO NodeState (time, nodeId, seq_num) SELECT '2013-01-01' + INTERVAL seq DIV 10 SECOND, seq % 10, 0 FROM seq_1_to_120000").await;
        db.run("ANALYZE TABLE Reading, NodeState").await;
        let mut source = source(&db);
        let streams = source.connect().await.unwrap().streams;
        db.run("TRUNCATE mysql.general_log; SET GLOBAL log_output = 'TABLE', GLOBAL general_log = 1").await;
        let mut asked_for = 0;
        for stream in streams {
            let (from, width) = if stream.order == Order::Id { (50, 2) } else { (376_945, 1) };
            let upto = source.last(stream.stream, None).await.unwrap();
            let span = Span { upto: Some(upto), ..span(stream.stream, from, from + width) };
            source.tallies(&TallyRequest { span: span.clone(), unit: 1 }).await.unwrap();
            let request = SlotRequest { span, node: 3, after: Position::Start, limit: 500 };
            assert_eq!(source.slot_rows(&request).await.unwrap().len(), 500, "{:?}", stream.stream);
            source.first_place(stream.stream, Some(from)).await.unwrap();
            asked_for += 4;
            if stream.order == Order::Id {
                source.count_ids(stream.stream, &[(5, 5), (60_000, 60_100), (100_000, 100_001)]).await.unwrap();
                asked_for += 1;
            }
        }
        db.run("SET GLOBAL general_log = 0").await;
        let asked: Vec<String> = sqlx::query_scalar(
            "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log WHERE command_type = 'Execute' AND argument LIKE 'SELECT%FROM `%' AND argument NOT LIKE '%general_log%'",
        )
        .fetch_all(db.admin())
        .await
        .unwrap();
        assert_eq!(asked.len(), asked_for, "{asked:?}");
        for sql in asked {
            use sqlx::Row as _;
            let plan = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("EXPLAIN {sql}"))).fetch_one(db.admin()).await.unwrap();
            let text = |name: &str| plan.get::<Option<String>, _>(name).unwrap_or_default();
            assert!(matches!(text("key").as_str(), "PRIMARY" | "nodeId"), "{}: {sql}", text("key"));
            assert_ne!(text("type"), "ALL", "{sql}");
            let mut one = db.admin().acquire().await.unwrap();
            sqlx::raw_sql("FLUSH STATUS").execute(&mut *one).await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql.clone())).execute(&mut *one).await.unwrap();
            let status = "SELECT CAST(SUM(variable_value) AS SIGNED) FROM information_schema.session_status WHERE variable_name IN ('Handler_read_key', 'Handler_read_next', 'Handler_read_prev', 'Handler_read_rnd_next') ";
            let read: i64 = sqlx::query_scalar(status).fetch_one(&mut *one).await.unwrap();
            // An hour has 36,000 rows here, and each is looked up once more to be grouped; the whole table has 120,000.
            assert!(read < 80_000, "{read} rows were read: {sql}");
        }
    }
}

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_audits() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    db.run("SET foreign_key_checks = 0; INSERT INTO Reading (time, nodeId, type, value) SELECT '2025-01-01' + INTERVAL (seq DIV 400) * 300 SECOND, (seq DIV 8) % 50, seq % 8, seq FROM seq_0_to_2999999").await;
    db.run("SET foreign_key_checks = 0; INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num) SELECT '2025-01-01' + INTERVAL (seq DIV 50) * 300 SECOND, seq % 50, 1, seq, seq % 256 FROM seq_0_to_374999").await;
    let mut source = source(&db);
    source.connect().await.unwrap();
    for (stream, from, places) in [
        (Stream::Reading, 482_136, 4),
        (Stream::Reading, 482_136, 10),
        (Stream::Reading, 482_136, 625),
        (Stream::NodeState, 100, 4),
        (Stream::NodeState, 100, 50),
        (Stream::NodeState, 0, 366),
    ] {
        let began = Instant::now();
        let tallies = source.tallies(&TallyRequest { span: span(stream, from, from + places), unit: 1 }).await.unwrap();
        let rows: u64 = tallies.values().map(|tally| tally.rows).sum();
        println!("{rows} {} in {places} places: {:?}", stream.plural(), began.elapsed());
    }
}
