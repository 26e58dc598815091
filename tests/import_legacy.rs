//! An old installation of the push script becomes a packhorse: the real program on its real files, with a source full of readings and a
//! central server that the old script filled with gaps.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};
use support::{
    Database, Mariadb, Schema, compare,
    gateway::{Central, free_port, packhorse},
    load_greenhouse,
};

/// Runs the program in a directory.
async fn run(dir: &Path, args: &[&str]) -> Output {
    let mut command = packhorse();
    command.current_dir(dir).args(args);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One request; its answer as JSON.
fn call(server: SocketAddr, method: &str, target: &str, body: &str) -> Value {
    let mut line = TcpStream::connect(server).unwrap();
    let length = body.len();
    let head =
        format!("{method} /rest/{target} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    line.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut answer = String::new();
    line.read_to_string(&mut answer).unwrap();
    let (head, json) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 20"), "{method} {target} {body}: {answer}");
    serde_json::from_str(json).unwrap()
}

/// Creates an object; its id.
fn post(server: SocketAddr, table: &str, mut object: Value) -> i64 {
    object["__table__"] = table.into();
    let made = call(server, "POST", &format!("{}/", table.to_lowercase()), &object.to_string());
    made["id"].as_i64().unwrap()
}

/// Under which ids the old script found or made things at the centre.
struct Old {
    deployment: i64,
    /// The first house, and its double, to which the old script sent its rows.
    house: i64,
    double: i64,
    other_house: i64,
    bedroom: i64,
    /// Of the first house's double.
    location: i64,
}

/// Fills a central server as the old script would have done: other ids than here, a house made twice, and then a part of the rows.
async fn fill(server: SocketAddr, source: &Database) -> Old {
    let strangers = post(server, "Deployment", json!({"name": "Strangers"}));
    let deployment =
        post(server, "Deployment", json!({"name": "Greenhouse", "description": "pilot", "startDate": "2015-08-01T00:00:00"}));
    post(server, "House", json!({"address": "Elsewhere", "deploymentId": strangers}));
    let house_of = |address| json!({"address": address, "deploymentId": deployment, "startDate": "2015-08-01T00:00:00"});
    let house = post(server, "House", house_of("1 Greenhouse Row"));
    let double = post(server, "House", house_of("1 Greenhouse Row"));
    let other_house = post(server, "House", house_of("2 Greenhouse Row"));
    let wet = post(server, "RoomType", json!({"name": "Wet"}));
    let living = post(server, "RoomType", json!({"name": "Living"}));
    let bathroom = post(server, "Room", json!({"name": "Bathroom", "roomTypeId": wet}));
    let bedroom = post(server, "Room", json!({"name": "Bedroom", "roomTypeId": living}));
    let location = post(server, "Location", json!({"houseId": double, "roomId": bedroom}));
    let other = post(server, "Location", json!({"houseId": other_house, "roomId": bathroom}));
    for (id, name, code, units) in
        [(0, "Temperature", "T", "deg.C"), (2, "Humidity", "H", "%RH"), (6, "Battery Voltage", "BAT", "V")]
    {
        post(server, "SensorType", json!({"id": id, "name": name, "code": code, "units": units}));
    }
    post(server, "Node", json!({"id": 1, "locationId": location, "nodeTypeId": null}));
    post(server, "Node", json!({"id": 3, "locationId": other, "nodeTypeId": null}));

    // Two rows of three arrived, those of node 1 from the middle on alone.
    let rows = "SELECT DATE_FORMAT(time, '%Y-%m-%dT%H:%i:%s'), CAST(nodeId AS SIGNED), CAST(type AS SIGNED), CAST(locationId AS SIGNED), CAST(value AS DOUBLE) \
                FROM Reading WHERE nodeId IN (1, 3) AND type IN (0, 2, 6) AND locationId IN (507, 509) AND SECOND(time) % 3 > 0 ORDER BY time DESC LIMIT 4000";
    let rows = sqlx::query(AssertSqlSafe(rows)).fetch_all(source.admin()).await.unwrap();
    let readings: Vec<Value> = rows
        .iter()
        .map(|row| {
            let central = if row.get::<i64, _>(3) == 509 { location } else { other };
            let (node, kind, value) = (row.get::<i64, _>(1), row.get::<i64, _>(2), row.get::<f64, _>(4));
            json!({"__table__": "Reading", "time": row.get::<String, _>(0), "nodeId": node, "type": kind, "locationId": central, "value": value})
        })
        .collect();
    assert!(readings.len() > 500, "{}", readings.len());
    let rows = "SELECT DATE_FORMAT(time, '%Y-%m-%dT%H:%i:%s'), CAST(nodeId AS SIGNED), CAST(parent AS SIGNED), CAST(`localtime` AS SIGNED), CAST(seq_num AS SIGNED), CAST(rssi AS SIGNED) \
                FROM NodeState WHERE nodeId IN (1, 3) AND SECOND(time) % 3 > 0 ORDER BY time LIMIT 1000";
    let rows = sqlx::query(AssertSqlSafe(rows)).fetch_all(source.admin()).await.unwrap();
    let int = |row: &sqlx::mysql::MySqlRow, at: usize| row.get::<Option<i64>, _>(at);
    let states: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({"__table__": "NodeState", "id": null, "time": row.get::<String, _>(0), "nodeId": int(row, 1), "parent": int(row, 2),
                   "localtime": int(row, 3), "seq_num": int(row, 4), "rssi": int(row, 5)})
        })
        .collect();
    assert!(states.len() > 100, "{}", states.len());
    for bulk in [readings, states] {
        assert_eq!(call(server, "POST", "bulk/", &Value::from(bulk).to_string()), json!([]));
    }
    Old { deployment, house, double, other_house, bedroom, location }
}

/// The old script's files in a directory: its configuration, and a map with wrong entries.
fn write_old_files(dir: &Path, source: &Database, server: SocketAddr, old: &Old) {
    let url = source.url().split('?').next().unwrap();
    let conf = format!(
        "#Configuration file for synchronisation\n[general]\n#localurl = mysql://chuser@localhost/ch\n localurl={url}?charset=utf8\r\n\
         pushlimit = 5000\nsynctime : 10  # minutes\n\n[locations]\nlocal = 1  #For testing\nretired = 0\n\n\
         [local]\nresturl = http://{server}/rest\n[retired]\nresturl = http://{}/rest/\n",
        free_port()
    );
    fs::write(dir.join("synchronise.conf"), conf).unwrap();
    let Old { deployment, house: _, double, other_house, bedroom, location } = old;
    let map = format!(
        "[http://{server}/rest]\n[[lastupdate]]\n207 = 2015-09-01 00:00:00\n[[deployment]]\n41 = {deployment}\n43 = 1\n\
         [[house]]\n207 = {double}\n203 = {other_house}\n211 = 1\n[[room]]\n31 = {bedroom}\n37 = 37\n33 = 2\n\
         [[location]]\n509 = {location}\n507 = {location}\n501 = 501\n999 = 1\n"
    );
    let name = url.rsplit('@').next().unwrap().replace('/', "-");
    fs::write(dir.join(format!("{name}?charset=utf8_map.conf")), map).unwrap();
}

/// Where the old script's map lies.
#[derive(PartialEq, Eq)]
enum MapFile {
    /// Beside its configuration, where it is found.
    Beside,
    /// Elsewhere, named with `--map`.
    Named,
}

async fn an_old_installation_goes_on(
    manner: &'static str,
    map: MapFile,
) -> Option<(tempfile::TempDir, Database, Central, String)> {
    let dir = tempfile::tempdir().unwrap();
    let source = Database::create(Mariadb::shared(), Schema::newest()).await;
    load_greenhouse(&source, 20_000).await?;
    let central = Central::start(dir.path(), manner).await;
    let old = fill(central.addr, &source).await;
    write_old_files(dir.path(), &source, central.addr, &old);
    let before = compare(&source, central.database()).await;
    println!("{before}");
    assert!(
        before.readings.lost > 0 && before.node_states.lost > 0 && before.wrong_rooms == 0,
        "the old script left gaps:\n{before}"
    );

    let mut import = vec!["import-legacy", "synchronise.conf", "--output", "packhorse.toml", "--data-dir", "data"];
    if map == MapFile::Named {
        let beside = names(dir.path()).into_iter().find(|path| path.to_string_lossy().ends_with("_map.conf")).unwrap();
        fs::create_dir(dir.path().join("kept")).unwrap();
        fs::rename(beside, dir.path().join("kept/old map.conf")).unwrap();
        import.extend(["--map", "kept/old map.conf"]);
    }
    let output = run(dir.path(), &import).await;
    let report = text(&output.stdout);
    println!("{report}");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for told in [
        "local: 5 of 12 old mappings are right",
        "Room 37 = 37: Room 37 is \"Kitchen\" here; there is no 37 there; it is made there when it is needed",
        "Room 33 = 2: Room 33 is \"Bathroom\" here; there 2 is \"Bedroom\"; it is 1 there",
        "House 211 = 1: House 211 is \"3 Other Street\" here; there 1 is \"Elsewhere\"; if it was renamed, rename it on one side",
        "Deployment 43 = 1: Deployment 43 is \"Elsewhere\" here; there 1 is \"Strangers\"; if it was renamed",
        "Location 507 = ",
        "Location 501 = 501: Location 501 is \"Bedroom\" of \"3 Other Street\" here",
        "Location 999 = 1: the local database has no such Location",
        "retired: it is off, so it was not asked",
        "local: 5 mappings are taken over into ",
        "readings and ",
    ] {
        assert!(report.contains(told), "{told} is missing in\n{report}");
    }
    let config = fs::read_to_string(dir.path().join("packhorse.toml")).unwrap();
    assert!(config.contains("poll_interval = \"10m\"") && !config.contains("secret"), "{config}");
    let password = dir.path().join("db-password");
    assert_eq!(fs::read_to_string(&password).unwrap(), "secret\n");
    assert_eq!(fs::metadata(&password).unwrap().permissions().mode() & 0o777, 0o600);

    // What is there is not overwritten, and what was taken over is left as it is.
    let again = run(dir.path(), &import).await;
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("is there already; --yes overwrites it"), "{}", text(&again.stderr));
    let again = run(dir.path(), &[&import[..], &["--yes"]].concat()).await;
    assert!(
        text(&again.stdout).contains("local: its outbox has mappings of its own; it is left as it is"),
        "{}",
        text(&again.stdout)
    );

    let ran = run(dir.path(), &["--config", "packhorse.toml", "run", "--once", "--deadline", "200s"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));

    // Rows of the house that is there twice went on to where the old script had sent them.
    let locations = |house| call(central.addr, "GET", &format!("location/?houseId={house}"), "").as_array().unwrap().len();
    assert_eq!((locations(old.house), locations(old.double)), (0, 2));
    Some((dir, source, central, report))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_installation_with_gaps_and_wrong_mappings_ends_with_both_sides_equal() {
    let Some((_dir, source, central, report)) = an_old_installation_goes_on("legacy", MapFile::Beside).await else { return };
    assert!(!report.contains("warning"), "{report}");
    let after = compare(&source, central.database()).await;
    println!("{after}");
    after.assert_equal();
}

/// The control of the mappings that are taken over: without them the rows of the house that is there twice go to the older of both.
#[tokio::test(flavor = "multi_thread")]
async fn with_no_mapping_taken_over_both_sides_end_equal_too_but_in_the_older_double() {
    let dir = tempfile::tempdir().unwrap();
    let source = Database::create(Mariadb::shared(), Schema::newest()).await;
    if load_greenhouse(&source, 20_000).await.is_none() {
        return;
    }
    let central = Central::start(dir.path(), "legacy").await;
    let old = fill(central.addr, &source).await;
    write_old_files(dir.path(), &source, central.addr, &old);
    let import = ["import-legacy", "synchronise.conf", "--output", "packhorse.toml", "--data-dir", "data", "--offline"];
    assert_eq!(run(dir.path(), &import).await.status.code(), Some(0));
    let ran = run(dir.path(), &["--config", "packhorse.toml", "run", "--once", "--deadline", "200s"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
    let made = call(central.addr, "GET", &format!("location/?houseId={}", old.house), "");
    assert_eq!(made.as_array().unwrap().len(), 2);
    compare(&source, central.database()).await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_ends_equal_too_for_what_is_there_is_asked_for() {
    let Some((dir, source, central, report)) = an_old_installation_goes_on("legacy-old", MapFile::Named).await else { return };
    assert!(
        report.contains("local: this server stores a repeated node state as one more row, so each one is asked for"),
        "{report}"
    );
    compare(&source, central.database()).await.assert_equal();
    // Rows that are committed late after it: into hours that the old script had sent, and before everything.
    for time in ["(SELECT MAX(time) FROM Reading) - INTERVAL seq MINUTE + INTERVAL 1 SECOND", "'2014-01-01' + INTERVAL seq HOUR"]
    {
        let late = format!(
            "INSERT IGNORE INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) SELECT {time}, 1, 1, seq, 999, -70 FROM seq_1_to_90;
             INSERT IGNORE INTO Reading (time, nodeId, type, locationId, value) SELECT {time}, 1, 0, 509, seq FROM seq_1_to_90"
        );
        assert!(source.run(&late).await > 80);
    }
    let ran = run(dir.path(), &["--config", "packhorse.toml", "run", "--once", "--deadline", "200s"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
    compare(&source, central.database()).await.assert_equal();
}

/// The control: such a server stores a repeat twice when it is not asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_that_is_not_said_to_have_rows_gets_node_states_twice() {
    let dir = tempfile::tempdir().unwrap();
    let source = Database::create(Mariadb::shared(), Schema::newest()).await;
    if load_greenhouse(&source, 20_000).await.is_none() {
        return;
    }
    let central = Central::start(dir.path(), "legacy-old").await;
    let old = fill(central.addr, &source).await;
    write_old_files(dir.path(), &source, central.addr, &old);
    let import = ["import-legacy", "synchronise.conf", "--output", "packhorse.toml", "--data-dir", "data"];
    assert_eq!(run(dir.path(), &import).await.status.code(), Some(0));
    let config = dir.path().join("packhorse.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("sent_before = true", "sent_before = false")).unwrap();
    run(dir.path(), &["--config", "packhorse.toml", "run", "--once", "--deadline", "200s"]).await;
    let after = compare(&source, central.database()).await;
    assert!(after.node_states.duplicated > 0, "the control must fail:\n{after}");
}

/// Such a server stores a repeat twice: nothing is sent again, and only what is missing is queued.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_ends_equal_too_when_it_begins_now_and_reconcile_mends_the_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let source = Database::create(Mariadb::shared(), Schema::newest()).await;
    if load_greenhouse(&source, 20_000).await.is_none() {
        return;
    }
    let central = Central::start(dir.path(), "legacy-old").await;
    let old = fill(central.addr, &source).await;
    write_old_files(dir.path(), &source, central.addr, &old);
    let import = ["import-legacy", "synchronise.conf", "--output", "packhorse.toml", "--data-dir", "data", "--start", "now"];
    let imported = run(dir.path(), &import).await;
    assert_eq!(imported.status.code(), Some(0));
    assert!(!text(&imported.stdout).contains("warning"), "nothing is sent again: {}", text(&imported.stdout));
    assert!(text(&imported.stdout).contains("0 readings and 0 node states are to be sent"), "{}", text(&imported.stdout));
    let once = ["--config", "packhorse.toml", "run", "--once", "--deadline", "200s"];
    let reconcile = ["--config", "packhorse.toml", "reconcile", "--since", "2015-08-01", "--mend", "--yes"];
    for (args, code) in [(&once[..], 0), (&reconcile, 0), (&once, 0), (&reconcile, 0)] {
        let ran = run(dir.path(), args).await;
        assert_eq!(ran.status.code(), Some(code), "{args:?} {}{}", text(&ran.stdout), text(&ran.stderr));
    }
    compare(&source, central.database()).await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let source = Database::create(Mariadb::shared(), Schema::newest()).await;
    if load_greenhouse(&source, 2_000).await.is_none() {
        return;
    }
    let mut central = Central::start(dir.path(), "legacy").await;
    let old = Old { deployment: 1, house: 1, double: 1, other_house: 1, bedroom: 1, location: 1 };
    write_old_files(dir.path(), &source, central.addr, &old);
    central.kill();
    let output =
        run(dir.path(), &["import-legacy", "synchronise.conf", "--output", "packhorse.toml", "--data-dir", "data"]).await;
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{report}{}", text(&output.stderr));
    assert!(report.contains("local: not stored: ") && report.contains("of its 12 old mappings none is taken over"), "{report}");
    assert!(!dir.path().join("data").exists());
    central.restart().await;
    let ran = run(dir.path(), &["--config", "packhorse.toml", "run", "--once"]).await;
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
    compare(&source, central.database()).await.assert_equal();
}

const CONF: &str = "[general]\nlocalurl = mysql://chuser:hush@127.0.0.1:1/ch\nsynctime = 5\n[locations]\na = 1\n[a]\nresturl = http://127.0.0.1:1/rest/\n";

fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_with_2_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    file("good.conf", CONF.as_bytes());
    file("empty.conf", b"");
    file("binary.conf", b"\x7fELF\x02\x01\0\0");
    file("no-locations.conf", CONF.split("[locations]").next().unwrap().as_bytes());
    file("two.conf", CONF.replace("= 1\n", "= perhaps\n").replace("http:", "gopher:").as_bytes());
    file("foreign_map.conf", b"[http://other.example/rest/]\n[[house]]\n1 = 2\n");
    fs::create_dir(dir.path().join("directory.conf")).unwrap();
    let before = names(dir.path());
    for (args, word) in [
        (&["missing.conf"][..], "cannot read the configuration missing.conf: No such file"),
        (&["directory.conf"], "directory"),
        (&["empty.conf"], "[general]: there is no such section"),
        (&["binary.conf"], "it is not a text file"),
        (&["no-locations.conf"], "[locations]: there is no such section; write [locations] with name = 1"),
        (&["two.conf"], "two.conf has 2 problems:\n  line 5: locations.a: \"perhaps\" is neither on nor off"),
        (&["good.conf", "--map", "foreign_map.conf"], "holds mappings for other servers"),
        (&["good.conf", "--map", "missing"], "No such file"),
        (&["good.conf", "--map", "binary.conf"], "it is not a text file"),
        (&["good.conf", "--map", "empty.conf"], "there is no section in it"),
        (&["good.conf", "--start", "yesterday"], "write beginning, now, or a time"),
        (&[], "<FILE>"),
    ] {
        let args: Vec<&str> =
            ["import-legacy", "--output", "packhorse.toml", "--data-dir", "data"].iter().chain(args).copied().collect();
        let output = run(dir.path(), &args).await;
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""), "{args:?}: {error}");
        assert!(error.contains(word) && !error.contains("hush"), "{args:?}: {error}");
        assert_eq!(names(dir.path()), before, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_output_the_configuration_is_printed_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("synchronise.conf"), CONF).unwrap();
    // A map that the script was cut off in is told, and in nobody's way.
    fs::write(dir.path().join("127.0.0.1:1-ch_map.conf"), b"\0\0\0").unwrap();
    let before = names(dir.path());
    for args in
        [&["import-legacy", "synchronise.conf"][..], &["import-legacy", "synchronise.conf", "--offline", "--start", "now"]]
    {
        let output = run(dir.path(), args).await;
        let (config, report) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{report}");
        assert!(
            config.contains("[[destination]]") && config.contains("password_file = \"/etc/packhorse/db-password\""),
            "{config}"
        );
        assert!(!format!("{config}{report}").contains("hush"), "{config}{report}");
        assert!(report.contains("no mapping is taken from 127.0.0.1:1-ch_map.conf"), "{report}");
        assert!(report.contains("nothing outside was asked") || report.contains("cannot reach the source database"), "{report}");
        assert_eq!(names(dir.path()), before);
    }
}
