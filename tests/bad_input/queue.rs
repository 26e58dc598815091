//! `queue status` and `queue list` in every state of an outbox.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::{READINGS, STATES, Scene, documented, keys, stdout, told};

async fn json(scene: &Scene, args: &[&str], code: i32) -> Value {
    let output = scene.gateway.output(args).await;
    told(&output, code, &[]);
    assert_eq!(stdout(&output).lines().count(), 1, "{}", stdout(&output));
    serde_json::from_str(&stdout(&output)).unwrap_or_else(|error| panic!("{error} in {}", stdout(&output)))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_data_dir_there_is_nothing_and_nothing_is_made() {
    let scene = Scene::set().await;
    told(&scene.gateway.output(&["queue", "status"]).await, 0, &["central: no outbox yet, `packhorse run` makes it"]);
    let status = json(&scene, &["queue", "status", "--json"], 0).await;
    assert_eq!(status["without_outbox"], serde_json::json!(["central"]));
    assert_eq!(status["destinations"], serde_json::json!([]));
    told(&scene.gateway.output(&["queue", "list"]).await, 0, &["no outbox yet"]);
    assert_eq!(stdout(&scene.gateway.output(&["queue", "list", "--json"]).await), "", "what a program reads holds records alone");
    assert!(!scene.gateway.data_dir().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_stopped_daemon_with_rows_that_wait() {
    let mut scene = Scene::set().await;
    scene.central.kill();
    told(&scene.once().await, 1, &[]);
    sleep(Duration::from_secs(2)).await;

    told(&scene.gateway.output(&["queue", "status"]).await, 0, &["waiting", "360 records", "the oldest for"]);
    told(&scene.gateway.output(&["queue", "status"]).await, 0, &["last error", "nobody listens at that address and port"]);
    let status = json(&scene, &["queue", "status", "--json"], 0).await;
    assert_eq!(keys(&status), keys(&documented("queue status", "json")[0]));
    let central = &status["destinations"][0];
    assert_eq!((central["destination"].as_str(), central["pending"].as_i64()), (Some("central"), Some(READINGS + STATES)));
    assert!(central["oldest_age_seconds"].as_i64().is_some_and(|age| age >= 2), "{status}");
    assert_eq!(central["streams"][0]["stream"], "reading");
    assert_eq!(
        (central["streams"][0]["pending"].as_i64(), central["streams"][0]["behind_source"].as_i64()),
        (Some(READINGS), Some(0))
    );
    assert_eq!(status["alarms"], serde_json::json!([]));

    for (alarm, code) in [
        (&["--alarm-depth", "359"][..], 1),
        (&["--alarm-depth", "360"], 0),
        (&["--alarm-age", "1s"], 1),
        (&["--alarm-age", "1h"], 0),
        (&["--alarm-age", "1h", "--alarm-depth", "1"], 1),
        (&["--alarm-age", "soon"], 2),
        (&["--alarm-depth", "-1"], 2),
        (&["--destination", "other"], 2),
    ] {
        let args = [&["queue", "status"], alarm].concat();
        let words: &[&str] = if code == 1 { &["ALARM central: "] } else { &[] };
        told(&scene.gateway.output(&args).await, code, words);
    }
    let alarmed = json(&scene, &["queue", "status", "--json", "--alarm-depth", "359"], 1).await;
    assert_eq!(alarmed["alarms"], serde_json::json!(["central: 360 records wait, more than 359"]));

    let list = scene.gateway.output(&["queue", "list", "--json", "--limit", "7"]).await;
    told(&list, 0, &[]);
    let records: Vec<Value> = stdout(&list).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records.len(), 14);
    let first = serde_json::json!({"destination": "central", "stream": "reading", "seq": 0, "time": "2026-01-01T00:01:00", "nodeId": 1,
        "type": 0, "locationId": 509, "value": 0.142_857_15});
    assert_eq!(records[0], first);
    assert_eq!([&records[0], &records[7]], *documented("queue status", "jsonl").iter().collect::<Vec<_>>());
    let list = scene.gateway.output(&["queue", "list", "--limit", "1000", "--stream", "nodestate"]).await;
    told(&list, 0, &["central: node states that wait"]);
    assert_eq!(stdout(&list).lines().count() as i64, STATES + 2);
    for (args, words) in [
        (["--destination", "other"], "no destination is called \"other\"; there is central"),
        (["--stream", "weather"], "no stream 'weather': it is one of reading, nodestate"),
    ] {
        told(&scene.gateway.output(&[&["queue", "list"][..], &args].concat()).await, 2, &[words]);
    }

    // What was looked at is still there, and arrives.
    scene.central.restart().await;
    scene.all_is_well().await;
    told(
        &scene.gateway.output(&["queue", "status", "--alarm-depth", "0", "--alarm-age", "1s"]).await,
        0,
        &["waiting", "0 records"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_source_the_lag_is_unknown_and_the_rest_is_told() {
    let scene = Scene::set().await;
    told(&scene.once().await, 0, &[]);
    scene.source.run("RENAME TABLE Reading TO Reading_away").await;
    let status = scene.gateway.output(&["queue", "status", "--json"]).await;
    told(&status, 0, &["the source does not say what it still has", "there is no table Reading"]);
    let status: Value = serde_json::from_str(&stdout(&status)).unwrap();
    assert_eq!(status["destinations"][0]["streams"][0]["behind_source"], Value::Null);
    assert_eq!(status["destinations"][0]["streams"][0]["acked"], READINGS);
    told(&scene.gateway.output(&["-q", "queue", "status"]).await, 0, &["reading", " ? "]);
}

#[tokio::test(flavor = "multi_thread")]
async fn compacting_keeps_what_waits() {
    let mut scene = Scene::set().await;
    told(&scene.gateway.output(&["queue", "compact"]).await, 0, &["central: no outbox yet, `packhorse run` makes it"]);
    scene.central.kill();
    told(&scene.once().await, 1, &[]);
    told(&scene.gateway.output(&["queue", "compact"]).await, 0, &["central: ", " before, ", " now"]);
    let names = || {
        let entries = std::fs::read_dir(scene.gateway.data_dir().join("central")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).filter(|name| name.starts_with("gen-"))
    };
    assert_eq!(names().collect::<Vec<_>>(), ["gen-000002"]);
    told(&scene.gateway.output(&["queue", "status"]).await, 0, &["waiting", "360 records"]);
    scene.central.restart().await;
    scene.all_is_well().await;
}
