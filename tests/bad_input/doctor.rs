//! `check` where there is nothing to complain about, and what it tells apart.

use serde_json::Value;

use super::{Scene, documented, keys, stderr, stdout, told};
use crate::support::{
    Database, Mariadb, Schema,
    front::{Face, Front},
    gateway::{Central, Gateway},
    greenhouse,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_gateway_is_ok_throughout_in_lines_and_in_json() {
    let scene = Scene::set().await;
    told(&scene.once().await, 0, &[]);
    let lines = scene.check().await;
    told(&lines, 0, &[]);
    assert_eq!(stderr(&lines), "");
    let text = stdout(&lines);
    assert!(text.lines().all(|line| line.starts_with("ok       ")), "{text}");
    for words in [
        "config: the configuration, ",
        "data_dir: no packhorse runs on it now",
        "enough for source.disk_reserve, 1.0 MiB",
        "source: readings: table Reading can be read, in the order of its key (time, nodeId, type)",
        "source: node states: table NodeState can be read, in the order of its id",
        "source: catalog: ",
        "source: the database's clock agrees with this machine's",
        "takes connections",
        "destination central: GET sensortype/ brought 6 sensor types",
        "it is a packhorse receiver",
        "destination central: the server's clock agrees with this machine's",
    ] {
        told(&lines, 0, &["ok ", words]);
    }
    let json = scene.gateway.output(&["check", "--json"]).await;
    told(&json, 0, &[]);
    let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(json["ok"], true);
    let findings = json["findings"].as_array().unwrap();
    assert_eq!(findings.len(), text.lines().count());
    assert!(findings.iter().all(|finding| finding["level"] == "ok" && finding.get("advice").is_none()), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_servers_are_told_apart() {
    let scene = Scene::set().await;
    for (manner, before, after) in [
        ("legacy", "a legacy server; without a node state there it cannot be told which", "newer NodeState table"),
        ("legacy-old", "a legacy server; without a node state there it cannot be told which", "older NodeState table"),
    ] {
        let central = Central::start(scene.dir.path(), manner).await;
        let gateway = Gateway::new(&scene.dir.path().join(manner), scene.source.url(), central.addr);
        told(&gateway.output(&["check"]).await, 0, &["ok ", before]);
        told(&gateway.output(&["run", "--once"]).await, 0, &[]);
        told(&gateway.output(&["check"]).await, 0, &["ok ", after]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_with_less_is_told_and_no_problem() {
    let scene = Scene::set().await;
    let schema = Schema { rssi: false, reading_location: false, ..Schema::newest() };
    let source = Database::create(Mariadb::shared(), schema).await;
    greenhouse::load_catalog(&source).await;
    source.run("DROP TABLE NodeState; DROP TABLE Sensor; DROP TABLE Reading; DROP TABLE Node; DROP TABLE Location").await;
    source.run(&schema.ddl().replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS")).await;
    source.run("DROP TABLE Sensor").await;
    let gateway = Gateway::new(&scene.dir.path().join("less"), source.url(), scene.central.addr);
    let check = gateway.output(&["check"]).await;
    told(&check, 0, &["ok ", "in the order of its key (time, nodeId, seq_num); it has no rssi, which is sent as NULL"]);
    told(&check, 0, &["ok ", "in the order of its key (time, nodeId, type); it has no locationId, which is sent as NULL"]);
    told(&check, 0, &["warning ", "there is no table Sensor"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_troubles_are_told_at_once_and_an_unreachable_source_decides_the_code() {
    let mut scene = Scene::set().await;
    scene.source.run(&format!("ALTER USER {} IDENTIFIED BY 'changed'", scene.source.reader())).await;
    scene.central.kill();
    let check = scene.gateway.output(&["check", "--json"]).await;
    told(&check, 3, &[]);
    let json: Value = serde_json::from_str(&stdout(&check)).unwrap();
    assert_eq!(json["ok"], false);
    let problems: Vec<&Value> =
        json["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] == "problem").collect();
    let subjects: Vec<&str> = problems.iter().filter_map(|finding| finding["subject"].as_str()).collect();
    assert_eq!(subjects, ["source", "destination central"]);
    assert!(problems.iter().all(|finding| finding["advice"].is_string()), "{json}");
    assert_eq!(keys(&json), keys(&documented("check", "json")[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_ends_within_a_minute_when_everything_hangs() {
    let scene = Scene::set().await;
    let silent = Front::start(scene.central.addr, Face::Silent).await;
    let url = format!("mysql://chuser:hunter2@{}/ch?ssl-mode=DISABLED", silent.addr());
    let gateway = Gateway::new(&scene.dir.path().join("silent"), &url, silent.addr());
    let began = std::time::Instant::now();
    let check = gateway.output(&["check"]).await;
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    told(
        &check,
        3,
        &["problem ", "source: cannot reach the source database", "gave no answer within 10s while being connected to"],
    );
    told(&check, 3, &["problem ", "destination central: GET sensortype/: no answer within 12 s"]);
    told(&gateway.output(&["run", "--once", "--deadline", "2s"]).await, 1, &["the deadline is over"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_address_away_from_this_machine_is_a_warning() {
    let scene = Scene::set().await;
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let away = config.replace(&format!("http://{}/", scene.central.addr), "http://no-such-host.invalid/");
    std::fs::write(scene.gateway.config(), away).unwrap();
    told(&scene.check().await, 1, &["warning ", "http://no-such-host.invalid/rest/ is plain http", "use https"]);
}
