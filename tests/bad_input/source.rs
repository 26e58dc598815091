//! Trouble with the source.

use std::time::Duration;

use tokio::time::sleep;

use super::{Mariadb, Scene, stdout, told};

const TABLES: [&str; 11] =
    ["Deployment", "House", "RoomType", "Room", "Location", "NodeType", "Node", "SensorType", "Sensor", "Reading", "NodeState"];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password() {
    let scene = Scene::set().await;
    let reader = scene.source.reader();
    scene.source.run(&format!("ALTER USER {reader} IDENTIFIED BY 'changed'")).await;
    scene
        .trouble("check the user and the password, and whether this user may log in from there", 3, 3, async |scene| {
            scene.source.run(&format!("ALTER USER {reader} IDENTIFIED BY 'secret'")).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table() {
    let scene = Scene::set().await;
    scene.source.run("RENAME TABLE Reading TO Reading_away").await;
    scene
        .trouble("there is no table Reading; is this the cogent-house database?", 1, 1, async |scene| {
            scene.source.run("RENAME TABLE Reading_away TO Reading").await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_is_told_with_the_grant_that_mends_it() {
    let scene = Scene::set().await;
    let (reader, name) = (scene.source.reader(), scene.source.name().to_owned());
    let but_node_states: String =
        ["Deployment", "House", "RoomType", "Room", "Location", "NodeType", "Node", "SensorType", "Sensor", "Reading"]
            .map(|table| format!("GRANT SELECT ON {name}.{table} TO {reader};"))
            .concat();
    // A right to insert shows the table in information_schema, though it cannot be read.
    scene
        .source
        .run(&format!("REVOKE SELECT ON {name}.* FROM {reader}; {but_node_states} GRANT INSERT ON {name}.NodeState TO {reader}"))
        .await;
    let grant = format!("GRANT SELECT ON `{name}`.`NodeState` TO {reader}");
    let words = format!("run as an administrator: {}", grant.split(" TO ").next().unwrap());
    scene
        .trouble(&words, 3, 3, async |scene| {
            scene.source.run(&grant).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_database() {
    let scene = Scene::set().await;
    let (reader, name) = (scene.source.reader(), scene.source.name().to_owned());
    let late = format!("{name}_late");
    scene.source.run(&format!("DROP DATABASE IF EXISTS {late}; GRANT SELECT ON {late}.* TO {reader}")).await;
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    std::fs::write(scene.gateway.config(), config.replace(&format!("/{name}?"), &format!("/{late}?"))).unwrap();
    scene
        .trouble("check the database name in the url", 1, 1, async |scene| {
            // Until all is there, tables are missing: that is other trouble, told in its turn.
            let views = TABLES.map(|table| format!("CREATE VIEW {late}.{table} AS SELECT * FROM {name}.{table};")).concat();
            scene.source.run(&format!("CREATE DATABASE {late} CHARACTER SET utf8mb3; {views}")).await;
        })
        .await;
    scene.source.run(&format!("DROP DATABASE {late}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_host() {
    let server = Mariadb::private();
    let scene = Scene::on(&server).await;
    // The tests' server writes its log once a second.
    sleep(Duration::from_secs(3)).await;
    server.kill();
    scene.trouble("nothing listens at 127.0.0.1", 3, 3, async |_| server.start()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_time_is_no_date_are_counted_and_the_others_arrive() {
    let scene = Scene::set().await;
    scene.source.run("SET sql_mode = ''; INSERT INTO Reading (time, nodeId, type, value) VALUES ('0000-00-00', 1, 0, 5), ('0000-00-00', 1, 2, 5)").await;
    let once = scene.once().await;
    told(&once, 1, &["2 rows of the source have a time that is not a date"]);
    told(&once, 1, &["correct their time in the source", "stream=reading"]);
    assert!(stdout(&once).contains("300 readings delivered so far, 0 wait"), "{}", stdout(&once));
    told(&scene.check().await, 1, &["problem ", "2 rows of table Reading have a time that is not a date"]);
    scene.source.run("SET sql_mode = ''; DELETE FROM Reading WHERE time = '0000-00-00'").await;
    scene.all_is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_decoded_stops_its_stream_and_is_named_until_it_is_mended() {
    let scene = Scene::set().await;
    scene.source.run("SET sql_mode = ''; UPDATE NodeState SET time = '0000-00-00' WHERE id = 30").await;
    let words = "a row of the source cannot be read";
    let once = scene.once().await;
    told(&once, 1, &[words, "NodeState"]);
    assert!(stdout(&once).contains("300 readings delivered so far, 0 wait"), "{}", stdout(&once));
    assert!(stdout(&once).contains("29 node states delivered so far, 0 wait"), "{}", stdout(&once));
    let mut daemon = scene.daemon();
    daemon.says(words).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(daemon.lines(words).len(), 1, "{}", daemon.log());
    scene.source.run("SET sql_mode = ''; UPDATE NodeState SET time = '2026-01-01 00:30:00' WHERE id = 30").await;
    scene.arrives().await;
    daemon.ends_well().await;
    scene.all_is_well().await;
}
