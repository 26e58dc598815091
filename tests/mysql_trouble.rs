//! What the source says, and does afterwards, when something is wrong.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::{Duration, Instant};

use packhorse::{
    domain::{Position, Stream},
    mysql::{MysqlSource, Options},
    ports::{PageRequest, Source, SourceError},
};
use support::{Database, Mariadb, Schema, greenhouse::load_catalog};

fn source(url: &str) -> MysqlSource {
    MysqlSource::new(Options {
        deadline: Duration::from_millis(700),
        connect_deadline: Duration::from_secs(5),
        ..Options::new(url)
    })
    .unwrap()
}

fn first(stream: Stream) -> PageRequest {
    PageRequest { stream, after: Position::Start, before: None, limit: 10 }
}

/// The error in full, with its causes, as it would be logged.
fn chain(error: &SourceError) -> String {
    let first: &dyn std::error::Error = error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn a_bad_url_is_told_without_its_password() {
    for url in [
        "postgres://u:hunter2@h/ch",
        "mysql://u:hunter2@h:99999/ch",
        "mysql://u:hun#ter2@h/ch",
        "mysql://u:hunter2@h",
        "hunter2",
        "mysql://u:hunter2@h/ch?ssl-mode=hunter2",
    ] {
        let error = MysqlSource::new(Options::new(url)).unwrap_err();
        assert!(error.to_string().contains("mysql://user:password@"), "{error}");
        assert!(!chain(&error).contains("ter2"), "{}", chain(&error));
        assert!(!format!("{error:?} {:?}", Options::new(url)).contains("ter2"));
    }
}

#[tokio::test]
async fn a_wrong_password_is_denied_and_not_repeated() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    let mut source = source(&db.url().replace("secret", "hunter2"));
    let error = source.connect().await.unwrap_err();
    assert!(matches!(error, SourceError::Denied { .. }), "{error}");
    assert!(error.to_string().contains("check the user and the password"), "{error}");
    assert!(!chain(&error).contains("hunter2") && !format!("{source:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_missing_right_is_told_with_the_grant_that_mends_it() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    let (name, reader) = (db.name(), db.reader());
    load_catalog(&db).await;
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()")
            .fetch_all(db.admin())
            .await
            .unwrap();
    for denied in ["Reading", "House"] {
        db.run(&format!("REVOKE ALL PRIVILEGES, GRANT OPTION FROM {reader}")).await;
        for table in tables.iter().filter(|table| *table != denied) {
            db.run(&format!("GRANT SELECT ON {name}.{table} TO {reader}")).await;
        }
        let mut source = source(db.url());
        let error = source.connect().await.unwrap_err();
        assert!(matches!(error, SourceError::Denied { .. }), "{error}");
        let text = error.to_string();
        let (_, grant) = text.split_once("run as an administrator: ").unwrap_or_else(|| panic!("{text}"));
        assert!(grant.starts_with(&format!("GRANT SELECT ON `{name}`.`{denied}` TO ")), "{grant}");
        // The same source works once it was run. (The account is the one that the server saw, by address.)
        db.run(&format!("GRANT SELECT ON {name}.{denied} TO {reader}")).await;
        source.connect().await.unwrap();
    }
    // A hidden column must not be taken for one that is not there.
    db.run(&format!(
        "REVOKE SELECT ON {name}.Reading FROM {reader}; GRANT SELECT (time, nodeId, type, value) ON {name}.Reading TO {reader}"
    ))
    .await;
    let error = source(db.url()).connect().await.unwrap_err();
    assert!(matches!(error, SourceError::Denied { .. }) && error.to_string().contains("locationId"), "{error}");
}

#[tokio::test]
async fn what_is_missing_or_of_another_type_is_named() {
    let cases = [
        ("DROP TABLE Reading", "no table Reading"),
        ("DROP TABLE NodeState", "no table NodeState"),
        ("SET foreign_key_checks = 0; DROP TABLE SensorType", "no table SensorType"),
        ("ALTER TABLE Reading DROP value", "Reading has no column value"),
        ("ALTER TABLE NodeState DROP parent", "NodeState has no column parent"),
        ("ALTER TABLE Reading MODIFY value VARCHAR(20)", "Reading.value is of type varchar"),
        ("ALTER TABLE NodeState MODIFY `localtime` DATETIME", "NodeState.localtime is of type datetime"),
        ("RENAME TABLE Reading TO reading", "one named reading"),
    ];
    for (change, words) in cases {
        let db = Database::create(Mariadb::shared(), Schema::classic()).await;
        db.run(change).await;
        let mut source = source(db.url());
        let error = source.connect().await.unwrap_err();
        assert!(matches!(error, SourceError::Schema { .. }) && error.to_string().contains(words), "{change}: {error}");
        let again = source.page(&first(Stream::Reading)).await.unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
    }
    let db = Database::create(Mariadb::shared(), Schema { seq_num: false, ..Schema::classic() }).await;
    db.run("ALTER TABLE NodeState DROP id").await;
    let error = source(db.url()).connect().await.unwrap_err();
    assert!(error.to_string().contains("NodeState has no column seq_num"), "{error}");
}

#[tokio::test]
async fn an_unknown_database_is_told() {
    let server = Mariadb::shared();
    let db = Database::create(server, Schema::classic()).await;
    let error = source(&db.url().replace(&format!("/{}?", db.name()), "/nowhere?")).connect().await.unwrap_err();
    assert!(matches!(error, SourceError::Denied { .. }) && error.to_string().contains("no such database"), "{error}");
    db.run(&format!("GRANT SELECT ON *.* TO {}", db.reader())).await;
    let error = source(&db.url().replace(&format!("/{}?", db.name()), "/nowhere?")).connect().await.unwrap_err();
    assert!(matches!(error, SourceError::Schema { .. }) && error.to_string().contains("nowhere"), "{error}");
}

#[tokio::test]
async fn an_unreachable_server_is_told_within_the_deadline() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = (silent.local_addr().unwrap(), silent);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (format!("mysql://u:hunter2@{closed}/ch"), "is the database server running"),
        (format!("mysql://u:hunter2@{}/ch", silent.0), "gave no answer within"),
        ("mysql://u:hunter2@localhost/ch?socket=/nowhere/mysqld.sock".to_owned(), "no socket /nowhere/mysqld.sock"),
    ];
    for (url, words) in cases {
        let mut source =
            MysqlSource::new(Options { connect_deadline: Duration::from_millis(500), ..Options::new(&url) }).unwrap();
        let begin = Instant::now();
        let error = source.connect().await.unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
        assert!(matches!(error, SourceError::Unreachable { .. }) && error.to_string().contains(words), "{error}");
        assert!(!chain(&error).contains("hunter2"));
    }
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back_is_read_on() {
    let server = Mariadb::private();
    let db = Database::create(&server, Schema::classic()).await;
    load_catalog(&db).await;
    db.run("INSERT INTO Reading SET time = '2013-01-01', nodeId = 1, type = 0, value = 18.04").await;
    let mut source = MysqlSource::new(Options::new(db.url())).unwrap();
    assert_eq!(source.page(&first(Stream::Reading)).await.unwrap().len(), 1);
    // Killed in the middle of a query: one that waits for a lock.
    let mut locker = db.admin().acquire().await.unwrap();
    sqlx::raw_sql("LOCK TABLES Reading WRITE").execute(&mut *locker).await.unwrap();
    let request = first(Stream::Reading);
    let waiting = source.page(&request);
    let kill = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
    };
    let (answer, ()) = tokio::join!(waiting, kill);
    let error = answer.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }) && error.to_string().contains("closed the connection"), "{error}");
    let error = source.page(&first(Stream::Reading)).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Unreachable { .. }) && error.to_string().contains("is the database server running"),
        "{error}"
    );
    server.start();
    source.page(&first(Stream::Reading)).await.unwrap();
    source.connect().await.unwrap();
}

#[tokio::test]
async fn a_unix_socket_in_the_url_is_used() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    let socket: String = sqlx::query_scalar("SELECT @@socket").fetch_one(db.admin()).await.unwrap();
    let url = format!("mysql://nobody_listens.invalid/{}?socket={socket}", db.name());
    let url = url.replace("mysql://", db.url().split_inclusive('@').next().unwrap());
    source(&url).connect().await.unwrap();
}

#[tokio::test]
async fn a_query_that_hangs_ends_at_the_deadline_and_the_next_one_works() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    let mut source = source(db.url());
    source.connect().await.unwrap();
    let mut locker = db.admin().acquire().await.unwrap();
    sqlx::raw_sql("LOCK TABLES Reading WRITE").execute(&mut *locker).await.unwrap();
    let begin = Instant::now();
    let error = source.page(&first(Stream::Reading)).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert!(matches!(error, SourceError::Unreachable { .. }) && error.to_string().contains("is a table locked"), "{error}");
    source.page(&first(Stream::NodeState)).await.unwrap();
    sqlx::raw_sql("UNLOCK TABLES").execute(&mut *locker).await.unwrap();
    assert_eq!(source.page(&first(Stream::Reading)).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_call_that_is_dropped_half_way_leaves_the_source_usable() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    db.run("SET foreign_key_checks = 0; INSERT INTO Reading (time, nodeId, type, value) SELECT '2013-01-01' + INTERVAL seq SECOND, 1, 0, seq FROM seq_1_to_20000").await;
    let mut source = source(db.url());
    source.connect().await.unwrap();
    for micros in [1, 100, 1_000, 3_000, 10_000] {
        let request = PageRequest { limit: 20_000, ..first(Stream::Reading) };
        let _ = tokio::time::timeout(Duration::from_micros(micros), source.page(&request)).await;
        let _ = tokio::time::timeout(Duration::from_micros(micros), source.catalog()).await;
        assert_eq!(source.page(&first(Stream::Reading)).await.unwrap().len(), 10);
    }
}

#[tokio::test]
async fn the_session_cannot_write() {
    // A gateway's user often may do everything; ours must not, whatever it may.
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    load_catalog(&db).await;
    db.run(&format!("GRANT ALL ON {}.* TO {}", db.name(), db.reader())).await;
    db.run("CREATE FUNCTION meddle() RETURNS INT MODIFIES SQL DATA BEGIN DELETE FROM Sensor; RETURN 1; END").await;
    db.run("DROP TABLE Reading; CREATE VIEW Reading AS SELECT NOW() AS time, meddle() AS nodeId, 1 AS type, 1 AS locationId, CAST(1 AS FLOAT) AS value").await;
    let error = source(db.url()).page(&first(Stream::Reading)).await.unwrap_err();
    assert!(error.to_string().contains("READ ONLY"), "{error}");
    assert_eq!(db.number("SELECT COUNT(*) FROM Sensor").await, 36);
}
