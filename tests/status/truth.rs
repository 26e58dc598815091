//! That what is shown is so: a source, a destination or a disk that is away never looks like a quiet day.

use super::*;

/// A daemon that has delivered everything and counts as stalled soon.
async fn quiet() -> (Scene, Running) {
    let mut scene = Scene::set().await;
    scene.gateway.set_env("PACKHORSE_STATUS_STALL_AFTER", "6s");
    let daemon = scene.daemon().await;
    scene.until(|status| is_quiet(&status["destinations"][0])).await;
    (scene, daemon)
}

fn is_quiet(status: &Value) -> bool {
    let first = [&status["pending"], &status["streams"][0]["acked"], &status["streams"][1]["acked"]];
    first == [&Value::from(0), &4950.into(), &60.into()] && status["capture"]["state"] == "running"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_whose_password_was_changed_is_told_everywhere_until_it_is_mended() {
    let (scene, _daemon) = quiet().await;
    let well = scene.get("/metrics", "").1;
    let up = "packhorse_source_up{destination=\"central\"}";
    assert!((figure(&well, up) - 1.0).abs() < 0.1, "{well}");
    let page = scene.get("/", "").1;
    assert!(
        page.contains("Healthy: there is progress wherever there is work") && page.contains("nothing waits, last delivery"),
        "{page}"
    );

    let reader = scene.source.reader();
    scene.source.run(&format!("ALTER USER {reader} ACCOUNT LOCK")).await;
    scene.source.run(&format!("KILL USER {reader}")).await;
    let status = scene.until(|status| status["destinations"][0]["capture"]["state"] == "stuck").await;
    let central = &status["destinations"][0];
    let sentence = central["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("the source cannot be read since ") && sentence.contains("; nothing waits, last"), "{sentence}");
    assert_eq!((&central["state"], central["capture"]["since"].is_string()), (&"idle".into(), true), "{status}");
    let page = scene.get("/", "").1;
    for words in ["the source cannot be read since", "class=\"state bad\"", "packhorse check says what is wrong with the source"]
    {
        assert!(page.contains(words), "no {words:?} in\n{page}");
    }
    assert!(!page.contains("Healthy: there is progress"), "{page}");

    let status = scene.until(|status| status["healthy"] == false).await;
    assert!(status["sick"][0].as_str().unwrap().contains("central: no progress for"), "{status}");
    let (code, told) = scene.get("/healthz", "");
    assert!(code == 503 && told.contains("the source cannot be read since"), "{code} {told}");
    let metrics = scene.get("/metrics", "").1;
    assert!(figure(&metrics, up).abs() < 0.1 && figure(&metrics, "packhorse_healthy").abs() < 0.1, "{metrics}");
    assert!(figure(&metrics, "packhorse_capture_halted_seconds{destination=\"central\"}") >= 6.0, "{metrics}");
    for (age, code, words) in
        [("--alarm-age", 1, "ALARM central: the source could not be read for"), ("--critical-age", 2, "CRITICAL central: ")]
    {
        let output = scene.gateway.output(&["queue", "status", age, "1s"]).await;
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.code() == Some(code) && told.starts_with(words), "{:?} {told}", output.status);
    }
    let output = scene.gateway.output(&["queue", "status", "--alarm-age", "1h"]).await;
    assert_eq!(output.status.code(), Some(0), "it has not lasted as long as that");

    scene.source.run(&format!("ALTER USER {reader} ACCOUNT UNLOCK")).await;
    let status = scene.until(|status| status["healthy"] == true && is_quiet(&status["destinations"][0])).await;
    assert_eq!(status["destinations"][0]["capture"]["why"], Value::Null, "{status}");
    assert_eq!(scene.get("/healthz", "").0, 200);
}
