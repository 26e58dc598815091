//! The log file.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_file_is_begun_anew_when_it_is_full_and_five_before_it_are_kept() {
    const FULL: usize = (5 << 20) + 1;
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let folder = scene.dir.path().join("log");
    let file = folder.join("packhorse.log");
    let gateway = scene.gateway().with_env("PACKHORSE_LOG_FILE", file.to_str().unwrap());
    for round in 0..7 {
        // As another life left it: full.
        std::fs::create_dir_all(&folder).unwrap();
        let mut text = format!("life {round}\n");
        text.push_str(&" ".repeat(FULL - text.len()));
        std::fs::write(&file, text).unwrap();
        support::assert_exit(&gateway.output(&["--log-format", "json", "run", "--once"]).await, 0);
    }
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let kept = ["packhorse.log", "packhorse.log.1", "packhorse.log.2", "packhorse.log.3", "packhorse.log.4", "packhorse.log.5"];
    assert_eq!(names, kept);
    for (place, life) in [(1, 6), (5, 2)] {
        let old = std::fs::read_to_string(folder.join(format!("packhorse.log.{place}"))).unwrap();
        assert!(old.starts_with(&format!("life {life}\n")), "{place}: {}", &old[..20]);
    }
    let line = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(line.lines().last().unwrap()).unwrap();
    assert!(line["level"] == "INFO" && line["timestamp"].is_string() && line["message"].is_string(), "{line}");
}
