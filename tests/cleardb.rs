//! `packhorse cleardb` on a real MariaDB and on a receiver's file.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::process::Output;

use sqlx::{ConnectOptions as _, Connection as _};
use support::{Database, Mariadb, Schema, gateway::packhorse, load_greenhouse};

fn cleardb(args: &[&str]) -> Output {
    packhorse().arg("cleardb").args(args).output().unwrap()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// A user who may do everything in this database.
async fn writer(db: &Database) -> String {
    db.run(&format!("GRANT ALL ON {}.* TO {}", db.name(), db.reader())).await;
    db.url().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_with_its_exact_name_a_database_is_emptied() {
    for schema in [Schema::classic(), Schema::newest()] {
        let db = Database::create(Mariadb::shared(), schema).await;
        if load_greenhouse(&db, 2_000).await.is_none() {
            return;
        }
        // All the pointing in circles that a real database has.
        db.run("INSERT INTO Server (id, hostname, baseid) VALUES (1, 'base', 1)").await;
        if schema.house_serverid {
            db.run("UPDATE House SET serverid = 1").await;
        }
        let url = writer(&db).await;
        let rows = db.number("SELECT COUNT(*) FROM Reading").await;
        for wrong in [&["--name", "other"][..], &["--name", ""], &["--name", &db.name().to_uppercase()], &[]] {
            assert_exit(&cleardb(&[&["--source", &url], wrong].concat()), 2);
        }
        assert_exit(&cleardb(&["--source", &url, "--central", &url, "--name", db.name()]), 2);
        assert_eq!(db.number("SELECT COUNT(*) FROM Reading").await, rows);

        let said = assert_exit(&cleardb(&["--source", &url, "--name", db.name()]), 0);
        assert!(said.contains("Reading") && said.contains(&format!("{rows} rows deleted")), "{said}");
        for table in ["Reading", "NodeState", "Node", "House", "Server", "SensorType", "Deployment"] {
            assert_eq!(db.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
        }
        assert_exit(&cleardb(&["--central", &url, "--name", db.name()]), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_points_here_from_outside_keeps_everything_as_it_was() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    db.run(
        "INSERT INTO Node (id) VALUES (7); INSERT INTO Deployment (name) VALUES ('d');
         CREATE TABLE Notes (nodeId INT, FOREIGN KEY (nodeId) REFERENCES Node (id)) ENGINE=InnoDB; INSERT INTO Notes VALUES (7)",
    )
    .await;
    let url = writer(&db).await;
    let said = assert_exit(&cleardb(&["--source", &url, "--name", db.name()]), 1);
    assert!(said.contains("nothing was deleted") && said.contains("Notes"), "{said}");
    assert_eq!(db.number("SELECT (SELECT COUNT(*) FROM Node) + (SELECT COUNT(*) FROM Deployment)").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receivers_file_is_emptied_by_the_name_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let central = support::gateway::Central::start(dir.path(), "packhorse").await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(central.database());
    let mut file = options.connect().await.unwrap();
    let rows = "INSERT INTO Deployment (id, name) VALUES (1, 'd'); INSERT INTO House (id, deploymentId) VALUES (2, 1); INSERT INTO Node (id) VALUES (7);
        INSERT INTO SensorType (id) VALUES (0); INSERT INTO Server (id, baseid) VALUES (3, 7); UPDATE House SET serverid = 3;
        INSERT INTO Reading (time, nodeId, type, value) VALUES ('2015-08-01T00:00:00', 7, 0, 1.5)";
    sqlx::raw_sql(rows).execute(&mut file).await.unwrap();
    let url = format!("sqlite://{}", central.database().display());
    assert_exit(&cleardb(&["--central", &url, "--name", "central"]), 2);
    assert_exit(&cleardb(&["--central", &format!("{url}x"), "--name", "central-packhorse.dbx"]), 3);
    assert!(!dir.path().join("central-packhorse.dbx").exists());
    let count = "SELECT (SELECT count(*) FROM Reading) + (SELECT count(*) FROM House) + (SELECT count(*) FROM Server)";
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut file).await.unwrap(), 3);
    assert_exit(&cleardb(&["--central", &url, "--name", "central-packhorse.db"]), 0);
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut file).await.unwrap(), 0);
    file.close().await.unwrap();
}

#[test]
fn nobody_there_is_3_and_no_database_named_2() {
    let nobody = "mysql://u:hush@127.0.0.1:1/test";
    let said = assert_exit(&cleardb(&["--source", nobody, "--name", "test"]), 3);
    assert!(!said.contains("hush"), "{said}");
    assert_exit(&cleardb(&["--name", "test"]), 2);
    assert_exit(&cleardb(&["--source", "sqlite:x.db", "--name", "x.db"]), 2);
}
