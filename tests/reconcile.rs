//! `packhorse reconcile` on real parts: MariaDB, the real program, the real receiver in every manner, gaps made by SQL.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "a part of it is used")]
mod scripted;
mod support;

use std::time::Duration;

use packhorse::{
    domain::{Micros, Position, Rows, Stream},
    mysql::{MysqlSource, Options},
    ports::{Bucket, BucketRequest, Buckets, PageRequest, Presence, Sink as _, Source as _},
    rest::RestSink,
};
use scripted::{Server, Step, answer, json};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use support::{Database, Mariadb, Scene, Schema, assert_exit, gateway::Gateway, load_greenhouse};

/// Runs `reconcile --json` and more; gives what it says of the one destination.
async fn reconcile(gateway: &Gateway, more: &[&str], code: i32) -> Value {
    let output = gateway.output(&[&["reconcile", "--json", "--yes"], more].concat()).await;
    assert_exit(&output, code);
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    all["destinations"][0].clone()
}

/// One figure of readings and of node states.
fn figures(report: &Value, name: &str) -> [u64; 2] {
    let of = |stream: &str| {
        let found = report["streams"].as_array().unwrap().iter().find(|it| it["stream"] == stream);
        found.unwrap_or_else(|| panic!("{report}"))[name].as_u64().unwrap()
    };
    [of("reading"), of("nodestate")]
}

/// The missing rows as texts, sorted.
fn missing(report: &Value) -> Vec<String> {
    let text = |row: &Value| {
        let third = if row["stream"] == "reading" { &row["type"] } else { &row["seq_num"] };
        format!("{} {} {} {third}", row["stream"].as_str().unwrap(), row["time"].as_str().unwrap(), row["nodeId"])
    };
    let mut rows: Vec<String> = report["missing"].as_array().unwrap().iter().map(text).collect();
    rows.sort();
    rows
}

/// Every hundred-and-first row or so, wherever the manner keeps its row ids.
const GAPS: &str = "
    CREATE TEMP TABLE gap AS SELECT time, nodeId, type FROM
        (SELECT time, nodeId, type, row_number() OVER (ORDER BY time, nodeId, type) AS n FROM Reading) WHERE n IN (17, 4711, 4712, 9000);
    DELETE FROM Reading WHERE (time, nodeId, type) IN (SELECT time, nodeId, type FROM gap);
    DELETE FROM NodeState WHERE id IN (SELECT id FROM
        (SELECT id, row_number() OVER (ORDER BY time, nodeId, id) AS n FROM NodeState) WHERE n IN (5, 6, 1200));";

async fn gaps_are_named_mended_and_gone(schema: Schema, manner: &'static str) {
    let Some(mut scene) = Scene::set(schema, manner, 20_000).await else { return };
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();

    let before = scene.proxy.requests();
    let report = reconcile(&gateway, &[], 0).await;
    let nodes = scene.source.number("SELECT COUNT(DISTINCT nodeId) FROM Reading").await
        + scene.source.number("SELECT COUNT(DISTINCT nodeId) FROM NodeState").await;
    assert_eq!(scene.proxy.requests() - before, u64::try_from(nodes).unwrap(), "equal sides: one count for each node and stream");
    assert_eq!(report["requests"], nodes);
    assert_eq!((figures(&report, "missing"), figures(&report, "surplus"), missing(&report).len()), ([0, 0], [0, 0], 0));
    assert_eq!(figures(&report, "source"), figures(&report, "there"));

    scene.central_sql(GAPS).await;
    let comparison = scene.compare().await;
    assert_eq!((comparison.readings.lost, comparison.node_states.lost), (4, 3), "{comparison}");
    let report = reconcile(&gateway, &[], 1).await;
    assert_eq!((figures(&report, "missing"), figures(&report, "surplus")), ([4, 3], [0, 0]), "{report}");
    assert_eq!(missing(&report), lost(&scene.source).await);
    let requests = report["requests"].as_u64().unwrap();
    assert!(requests < 200, "seven gaps cost {requests} requests");
    // It only looked.
    assert_eq!(reconcile(&gateway, &[], 1).await["missing"], report["missing"]);

    let report = reconcile(&gateway, &["--mend"], 0).await;
    assert_eq!((figures(&report, "missing"), figures(&report, "queued")), ([4, 3], [4, 3]), "{report}");
    // They wait now, and are queued once only.
    let report = reconcile(&gateway, &["--mend"], 0).await;
    assert_eq!((figures(&report, "waiting"), figures(&report, "queued")), ([4, 3], [0, 0]), "{report}");
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
    reconcile(&gateway, &[], 0).await;
}

/// What the comparison by SQL calls lost, as texts.
async fn lost(source: &Database) -> Vec<String> {
    let readings =
        "SELECT CONCAT('reading ', DATE_FORMAT(s.time, '%Y-%m-%dT%H:%i:%s'), ' ', s.nodeId, ' ', s.type) FROM Reading s
        WHERE NOT EXISTS (SELECT 1 FROM central_Reading c WHERE c.time = s.time AND c.nodeId = s.nodeId AND c.type = s.type)";
    let states = "SELECT CONCAT('nodestate ', DATE_FORMAT(s.time, '%Y-%m-%dT%H:%i:%s'), ' ', s.nodeId, ' ', s.seq_num) FROM NodeState s
        WHERE NOT EXISTS (SELECT 1 FROM central_NodeState c WHERE c.time = s.time AND c.nodeId = s.nodeId AND c.seq_num = s.seq_num
            AND c.`localtime` = s.`localtime`)";
    let mut all: Vec<String> = sqlx::query_scalar(readings).fetch_all(source.admin()).await.unwrap();
    all.extend(sqlx::query_scalar::<_, String>(states).fetch_all(source.admin()).await.unwrap());
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_at_a_receiver_are_named_mended_and_gone() {
    gaps_are_named_mended_and_gone(Schema::classic(), "packhorse").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_at_a_legacy_server_are_named_mended_and_gone() {
    gaps_are_named_mended_and_gone(Schema::newest(), "legacy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_at_a_legacy_server_with_the_older_table_are_named_mended_and_gone_without_a_duplicate() {
    gaps_are_named_mended_and_gone(Schema::classic(), "legacy-old").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_or_whose_house_is_held_are_not_missing() {
    let Some(mut scene) = Scene::set(Schema::classic(), "legacy", 3_000).await else { return };
    // A legacy server can never be asked for this address.
    scene
        .source
        .run(
            "INSERT INTO House (id, deploymentId, address) VALUES (901, 41, 'Straße 5');
             INSERT INTO Location (id, houseId, roomId) VALUES (902, 901, 31); INSERT INTO Node (id, locationId) VALUES (903, 902);
             INSERT INTO Reading (time, nodeId, type, locationId, value) VALUES ('2015-08-20 10:00:00', 903, 0, 902, 1.5),
                ('2015-08-20 10:05:00', 903, 0, 902, 2.5)",
        )
        .await;
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "60s"]).await, 1);
    let report = reconcile(&gateway, &[], 0).await;
    assert_eq!((figures(&report, "parked"), figures(&report, "missing")), ([2, 0], [0, 0]), "{report}");

    scene.proxy.cut().await;
    scene
        .source
        .run(
            "INSERT INTO Reading (time, nodeId, type, value) VALUES (UTC_TIMESTAMP() - INTERVAL 8 SECOND, 100, 0, 1),
                (UTC_TIMESTAMP() - INTERVAL 7 SECOND, 100, 0, 2);
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num) VALUES (UTC_TIMESTAMP(), 100, 1, 1, 1)",
        )
        .await;
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    scene.proxy.restore().await;
    let report = reconcile(&gateway, &[], 0).await;
    assert_eq!((figures(&report, "waiting"), figures(&report, "missing")), ([2, 1], [0, 0]), "{report}");

    // A gap beside them is still found, and it alone.
    scene.central_sql("DELETE FROM Reading WHERE (time, nodeId, type) = (SELECT time, nodeId, type FROM Reading LIMIT 1)").await;
    let report = reconcile(&gateway, &["--mend"], 0).await;
    assert_eq!((figures(&report, "missing"), figures(&report, "queued")), ([1, 0], [1, 0]), "{report}");
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "60s"]).await, 1);
    let comparison = scene.compare().await;
    assert_eq!(
        (comparison.readings.lost, comparison.node_states.lost, comparison.node_states.duplicated),
        (2, 0, 0),
        "{comparison}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_the_destination_has_is_told_and_nothing_is_queued_for_it() {
    let Some(mut scene) = Scene::set(Schema::classic(), "legacy-old", 3_000).await else { return };
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene
        .central_sql(
            "INSERT INTO NodeState (time, nodeId, parent, localtime, seq_num, rssi)
                SELECT time, nodeId, parent, localtime, seq_num, rssi FROM NodeState ORDER BY id LIMIT 2 OFFSET 40;
             INSERT INTO Reading (time, nodeId, type, value) SELECT replace(time, ':', ':') || '.5', nodeId, type, value FROM Reading LIMIT 1",
        )
        .await;
    let report = reconcile(&gateway, &["--mend"], 1).await;
    assert_eq!((figures(&report, "surplus"), figures(&report, "missing")), ([1, 2], [0, 0]), "{report}");
    assert_eq!(figures(&report, "queued"), [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn states_without_a_number_and_two_of_one_second_are_told_apart_as_the_destination_does() {
    for (manner, merged) in [("packhorse", 0), ("legacy-old", 0), ("legacy", 1)] {
        let Some(mut scene) = Scene::set(Schema::classic(), manner, 500).await else { return };
        scene
            .source
            .run(
                "INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num) VALUES
                    ('2015-09-01 10:00:00', 100, 1, 1, NULL), ('2015-09-01 10:00:05', 100, 1, 2, 7), ('2015-09-01 10:00:05', 100, 1, 3, 7),
                    ('2015-09-01 10:00:05', 100, 1, 4, 8)",
            )
            .await;
        let gateway = scene.gateway();
        // What the server cannot hold is parked, which the program tells by its exit code.
        let parked = i32::from(merged > 0);
        assert_exit(&gateway.output(&["run", "--once"]).await, parked);
        let report = reconcile(&gateway, &[], 0).await;
        let [_, source] = figures(&report, "source");
        assert_eq!((figures(&report, "there")[1], figures(&report, "parked")[1]), (source - merged, merged), "{manner}");

        scene.central_sql("DELETE FROM NodeState WHERE nodeId = 100 AND (seq_num IS NULL OR seq_num IN (0, 8))").await;
        let report = reconcile(&gateway, &["--mend"], 0).await;
        assert_eq!((figures(&report, "missing")[1], figures(&report, "queued")[1]), (2, 2), "{manner}: {report}");
        assert_exit(&gateway.output(&["run", "--once"]).await, parked);
        let report = reconcile(&gateway, &[], 0).await;
        assert_eq!(figures(&report, "there")[1], source - merged, "{manner}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_centre_does_not_have_is_made_again_with_all_its_rows() {
    let Some(mut scene) = Scene::set(Schema::classic(), "legacy", 5_000).await else { return };
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    let node = scene.source.number("SELECT MIN(nodeId) FROM Reading").await;
    let tables = ["Reading", "NodeState", "Sensor"].map(|table| format!("DELETE FROM {table} WHERE nodeId = {node};"));
    scene.central_sql(&format!("{} DELETE FROM Node WHERE id = {node}", tables.concat())).await;
    let rows = scene.source.number(&format!("SELECT COUNT(*) FROM Reading WHERE nodeId = {node}")).await;
    let before = scene.proxy.requests();
    let report = reconcile(&gateway, &["--mend"], 0).await;
    assert_eq!(figures(&report, "queued")[0], u64::try_from(rows).unwrap(), "{report}");
    assert!(scene.proxy.requests() - before < 20, "where nothing is there, nothing more is asked");
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn since_leaves_earlier_hours_alone() {
    let Some(mut scene) = Scene::set(Schema::classic(), "packhorse", 5_000).await else { return };
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    scene.central_sql("DELETE FROM Reading WHERE time = (SELECT min(time) FROM Reading)").await;
    let second = scene.source.number("SELECT UNIX_TIMESTAMP(MIN(time)) + 7200 FROM Reading").await;
    let since = Micros(second * 1_000_000).to_string();
    assert_eq!(figures(&reconcile(&gateway, &["--since", &since], 0).await, "missing"), [0, 0]);
    assert!(figures(&reconcile(&gateway, &[], 1).await, "missing")[0] > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_cannot_be_trusted_is_an_error_and_changes_nothing() {
    let Some(scene) = Scene::set(Schema::classic(), "legacy", 1_000).await else { return };
    assert_exit(&scene.gateway().output(&["run", "--once"]).await, 0);
    let page = "<html>please log in</html>";
    let counted = |range: &str| answer("200 OK", "application/json", "[]", &format!("Content-Range: {range}\r\n"));
    let five_times = |step: Step| vec![step; 5];
    let foreign = r#"[{"__table__":"Reading","time":"1999-01-01T00:00:00","nodeId":5,"type":0}]"#;
    let cases = [
        (five_times(Step::Answer(answer("200 OK", "text/html", page, ""))), "page for people"),
        (five_times(Step::Answer(answer("500 Internal Server Error", "text/plain", "oops", ""))), "500"),
        (
            five_times(Step::Part("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n[".into())),
            "cut short",
        ),
        (five_times(Step::Answer(json("200 OK", "[]"))), "no Content-Range"),
        (five_times(Step::Answer(counted("items 7-3/9"))), "Content-Range"),
        (vec![Step::Answer(counted("items 0-1/9")); 40], "rows came where 1 match"),
        (
            vec![Step::Answer(answer("200 OK", "application/json", foreign, "Content-Range: items 0-1/9\r\n")); 40],
            "not asked for",
        ),
    ];
    for (script, word) in cases {
        let server = Server::start(script).await;
        let addr = server.url.trim_start_matches("http://").trim_end_matches("/rest/").parse().unwrap();
        let gateway = Gateway::new(&scene.dir.path().join("gateway"), scene.source.url(), addr);
        let output = gateway.output(&["reconcile", "--mend", "--yes"]).await;
        assert_exit(&output, 1);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(word) && said.lines().any(|line| line.starts_with("error: central: ")), "{word}: {said}");
    }
    let nobody = Gateway::new(&scene.dir.path().join("gateway"), scene.source.url(), support::gateway::free_port());
    assert_exit(&nobody.output(&["reconcile", "--mend", "--yes"]).await, 3);
    let status = scene.gateway().output(&["queue", "status", "--alarm-depth", "0"]).await;
    assert_exit(&status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_daemon_runs_it_is_3_and_without_an_outbox_1() {
    let Some(scene) = Scene::set(Schema::classic(), "packhorse", 500).await else { return };
    let gateway = scene.gateway();
    let output = gateway.output(&["reconcile"]).await;
    assert_exit(&output, 1);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no outbox yet"));
    let mut daemon = gateway.spawn(&["-q", "run"]);
    while !gateway.data_dir().join("central").exists() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = gateway.output(&["reconcile", "--mend", "--yes"]).await;
    assert_exit(&output, 3);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is running on"));
    daemon.terminate().await;
}

/// All rows of a stream.
async fn all_rows(source: &mut MysqlSource, stream: Stream) -> Rows {
    let mut all = Rows::empty(stream);
    let mut after = Position::Start;
    loop {
        let page = source.page(&PageRequest { stream, after, before: None, limit: 10_000 }).await.unwrap();
        let Some(last) = page.len().checked_sub(1) else { return all };
        after = page.id_position(last).or_else(|| page.key_position(last)).unwrap();
        all.extend(page);
    }
}

#[tokio::test]
async fn the_source_counts_and_sums_as_we_do_with_and_without_an_id() {
    let schemas = [
        Schema::classic(),
        Schema::newest(),
        Schema { fraction: true, ..Schema::classic() },
        Schema { seq_num: false, rssi: false, ..Schema::classic() },
    ];
    for schema in schemas {
        let db = Database::create(Mariadb::shared(), schema).await;
        if load_greenhouse(&db, 4_000).await.is_none() {
            return;
        }
        if schema.nodestate_id && schema.seq_num {
            let odd = "INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num) VALUES ('1969-12-31 23:59:59', 1, 1, NULL, NULL),
                ('2015-08-20 10:00:00', 1, 1, -5, NULL), (NULL, 1, 1, 1, 1), ('2015-08-20 10:00:00', NULL, 1, 1, 1)";
            db.run(odd).await;
        }
        let mut source = MysqlSource::new(Options::new(db.url())).unwrap();
        for stream in Stream::ALL {
            let rows = all_rows(&mut source, stream).await;
            let last = rows.len() - 1;
            let upto = rows.id_position(last).or_else(|| rows.key_position(last)).unwrap();
            let range = Buckets { from: None, to: Micros(i64::MAX), upto };
            let buckets = source.buckets(stream, &range).await.unwrap();
            let mut places: std::collections::BTreeMap<(i64, i64), Vec<usize>> = std::collections::BTreeMap::new();
            for row in 0..rows.len() {
                if let Some(place) = rows.bucket(row) {
                    places.entry(place).or_default().push(row);
                }
            }
            let ours: Vec<Bucket> = places
                .iter()
                .map(|((node, hour), rows_of)| Bucket {
                    node: *node,
                    hour: *hour,
                    rows: rows_of.len() as u64,
                    checksum: rows.pick(rows_of).key_checksum(),
                })
                .collect();
            assert_eq!(buckets, ours, "{schema:?} {stream}");

            // The same up to a position in the middle, and the rows of one bucket, page after page.
            let middle = rows.len() / 2;
            let upto = rows.id_position(middle).or_else(|| rows.key_position(middle)).unwrap();
            let first_half = source.buckets(stream, &Buckets { upto: upto.clone(), ..range.clone() }).await.unwrap();
            let half = (0..=middle).filter(|&row| rows.bucket(row).is_some()).count() as u64;
            assert_eq!(first_half.iter().map(|bucket| bucket.rows).sum::<u64>(), half, "{stream}");
            let busiest = buckets.iter().max_by_key(|bucket| bucket.rows).unwrap();
            let mut request = BucketRequest {
                stream,
                node: busiest.node,
                hour: busiest.hour,
                upto: range.upto,
                after: Position::Start,
                limit: 7,
            };
            let mut paged = Rows::empty(stream);
            loop {
                let page = source.bucket_rows(&request).await.unwrap();
                let Some(last) = page.len().checked_sub(1) else { break };
                request.after = page.bucket_position(last).unwrap();
                paged.extend(page);
            }
            assert_eq!((paged.len() as u64, paged.key_checksum()), (busiest.rows, busiest.checksum), "{stream}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_rows_are_found_among_many_and_hours_of_many_rows_are_compared_whole() {
    for manner in ["packhorse", "legacy"] {
        let Some(mut scene) = Scene::set(Schema::classic(), manner, 100).await else { return };
        // A reading a second for 45 minutes.
        let dense = "INSERT INTO Reading (time, nodeId, type, value)
            SELECT TIMESTAMP('2015-09-01 10:00:00') + INTERVAL seq SECOND, 100, 0, seq FROM seq_0_to_2699";
        scene.source.run(dense).await;
        let gateway = scene.gateway();
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        let lost = "DELETE FROM Reading WHERE nodeId = 100 AND time IN ('2015-09-01T10:13:20', '2015-09-01T10:30:00')";
        assert_eq!(scene.central_sql(lost).await, 2);

        let mut source = MysqlSource::new(Options::new(scene.source.url())).unwrap();
        let rows = all_rows(&mut source, Stream::Reading).await;
        let begin: Micros = "2015-09-01 10:00:00".parse().unwrap();
        let at = |second: i64| {
            let time = Micros(begin.0 + second * 1_000_000);
            (0..rows.len()).find(|&row| rows.time(row) == Some(time) && rows.bucket(row).unwrap().0 == 100).unwrap()
        };
        let sink = RestSink::new(rest_options(scene.proxy.addr())).unwrap();
        // What kind of server it is shows with the first answer.
        assert_eq!(sink.count(Stream::Reading, 100, begin, Micros::of_hour(begin.hour() + 1)).await.unwrap(), 2_698);
        let keys = rows.pick(&[at(2_400), at(0), at(800), at(1_600), at(1_800)]);
        let (absent, there) = (Presence::Absent, Presence::There);
        assert_eq!(sink.arrived(&keys).await.unwrap(), [there, there, absent, there, absent], "{manner}");
        assert!(sink.traffic().requests <= 8, "{:?}", sink.traffic());

        let report = reconcile(&gateway, &["--mend"], 0).await;
        assert_eq!(missing(&report), ["reading 2015-09-01T10:13:20 100 0", "reading 2015-09-01T10:30:00 100 0"]);
        assert_exit(&gateway.output(&["run", "--once"]).await, 0);
        scene.compare().await.assert_equal();
    }
}

fn rest_options(addr: std::net::SocketAddr) -> packhorse::rest::Options {
    packhorse::rest::Options {
        url: format!("http://{addr}/rest/"),
        auth: packhorse::rest::Auth::None,
        ca_pem: None,
        client_identity_pem: None,
        proxy: None,
        request_bytes_max: 1 << 20,
        connect_deadline: Duration::from_secs(5),
        answer_deadline: Duration::from_secs(20),
        stall_deadline: packhorse::rest::Options::STALL_DEADLINE,
        source: packhorse::domain::SourceId(1),
    }
}

#[tokio::test]
async fn a_narrow_range_never_reads_the_whole_table() {
    for schema in [Schema::classic(), Schema::newest()] {
        let db = Database::create(Mariadb::shared(), schema).await;
        if load_greenhouse(&db, 60_000).await.is_none() {
            return;
        }
        db.run("ANALYZE TABLE Reading; ANALYZE TABLE NodeState").await;
        db.run("SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = ON").await;
        let mut source = MysqlSource::new(Options::new(db.url())).unwrap();
        let middle = db.number("SELECT UNIX_TIMESTAMP(time) FROM Reading ORDER BY time LIMIT 1 OFFSET 20000").await;
        let hour = Micros(middle * 1_000_000).hour();
        for stream in Stream::ALL {
            let upto = source.last(stream, None).await.unwrap();
            let morning = Buckets { from: Some(Micros::of_hour(hour)), to: Micros::of_hour(hour + 6), upto: upto.clone() };
            assert!(!source.buckets(stream, &morning).await.unwrap().is_empty());
            let after = Position::Start;
            source.bucket_rows(&BucketRequest { stream, node: 1, hour, upto, after, limit: 10_000 }).await.unwrap();
            source.first_time(stream, Some(Micros::of_hour(hour))).await.unwrap();
        }
        let like = format!("%{}%", db.reader().trim_start_matches('\'').split('\'').next().unwrap());
        let log = "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log
            WHERE command_type = 'Execute' AND user_host LIKE ? AND argument LIKE '%WHERE `time` >= %' AND argument NOT LIKE '%DESC%'";
        db.run("SET GLOBAL general_log = OFF").await;
        let asked: Vec<String> = sqlx::query_scalar(log).bind(like).fetch_all(db.admin()).await.unwrap();
        assert_eq!(asked.len(), 6, "{asked:#?}");
        for sql in asked {
            let plan: Vec<(String, Option<String>, i64)> = explain(&db, &sql).await;
            let table = if sql.contains("`Reading`") { "Reading" } else { "NodeState" };
            let all = db.number(&format!("SELECT COUNT(*) FROM {table}")).await;
            let [(access, Some(key), rows)] = &plan[..] else { panic!("{plan:?} for {sql}") };
            // The key (or an index) that begins with the time, or the one on the node, which InnoDB continues by the primary key.
            assert!(access == "range" && ["PRIMARY", "time", "nodeId"].contains(&key.as_str()), "{plan:?} for {sql}");
            // For the first row from a time on the plan counts all that follow, and one is read.
            assert!(*rows < all / 4 || sql.contains("LIMIT 1"), "{plan:?} of {all} for {sql}");
        }
    }
}

/// Access type, key and estimated rows of each step of a plan.
async fn explain(db: &Database, sql: &str) -> Vec<(String, Option<String>, i64)> {
    use sqlx::Row as _;
    let rows = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN {sql}"))).fetch_all(db.admin()).await.unwrap();
    let step = |row: &sqlx::mysql::MySqlRow| {
        (
            row.try_get_unchecked("type").unwrap(),
            row.try_get_unchecked("key").unwrap(),
            row.try_get_unchecked::<String, _>("rows").unwrap().parse().unwrap(),
        )
    };
    rows.iter().map(step).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn what_a_comparison_of_200_000_readings_costs() {
    let Some(mut scene) = Scene::set(Schema::classic(), "legacy", 200_000).await else { return };
    let gateway = scene.gateway();
    assert_exit(&gateway.output(&["run", "--once"]).await, 0);
    let began = std::time::Instant::now();
    let equal = gateway.output(&["reconcile", "--yes"]).await;
    println!("{:?}\n{}{}", began.elapsed(), String::from_utf8_lossy(&equal.stderr), String::from_utf8_lossy(&equal.stdout));
    scene
        .central_sql(
            "DELETE FROM Reading WHERE (time, nodeId, type) IN (SELECT time, nodeId, type FROM
                (SELECT time, nodeId, type, row_number() OVER (ORDER BY time, nodeId, type) AS n FROM Reading) WHERE n IN (1000, 90000, 170000))",
        )
        .await;
    let began = std::time::Instant::now();
    let gaps = gateway.output(&["reconcile", "--yes"]).await;
    println!("{:?}\n{}{}", began.elapsed(), String::from_utf8_lossy(&gaps.stderr), String::from_utf8_lossy(&gaps.stdout));
}
