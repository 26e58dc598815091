//! SIGHUP, and the log file.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_what_can_change_and_a_bad_configuration_keeps_the_old_one() {
    let mut scene = Scene::set().await;
    scene.central.restart().await;
    let log = scene.dir.path().join("log/packhorse.log");
    scene.gateway.set_env("PACKHORSE_LOG_FILE", log.to_str().unwrap());
    let mut daemon = scene.gateway.spawn(&["run"]);
    scene.arrives().await;
    let says = async |words: &str| {
        let began = Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains(words) {
            assert!(began.elapsed() < Duration::from_mins(1), "the log file does not say {words:?}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    let good = std::fs::read_to_string(scene.gateway.config()).unwrap();

    std::fs::write(scene.gateway.config(), good.replace("linger", "lingre")).unwrap();
    signal("-HUP", &daemon);
    says("the new configuration has problems: the old one stays").await;
    scene.source.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2026-02-01', 1, 0, 5)").await;
    scene.arrives().await;

    let mut other = Central::start(&scene.dir.path().join("gateway"), "packhorse").await;
    std::fs::write(scene.gateway.config(), good).unwrap();
    let Scene { dir, source, central, gateway } = scene;
    let gateway = gateway.and_destination("other", other.addr);
    let scene = Scene { dir, source, central, gateway };
    signal("-HUP", &daemon);
    says("the configuration was reloaded").await;
    let status = scene
        .until(&["queue", "status", "--json"], |status| {
            let names = ["central", "other"];
            (0..2).all(|place| {
                let found = &status["destinations"][place];
                found["destination"] == names[place]
                    && found["streams"][0]["acked"] == 301
                    && found["streams"][1]["acked"] == 60
                    && found["pending"] == 0
            })
        })
        .await;
    assert_eq!(status["destinations"][1]["state"], "idle", "{status}");
    compare(&scene.source, other.database()).await.assert_equal();
    other.kill();
    let (ended, took) = daemon.terminate().await;
    assert!(ended.success() && took < Duration::from_secs(10), "{ended} after {took:?}");
}

/// A certificate that is none costs its own destination, and that only until the next reload.
#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_set_up_is_shown_and_is_served_after_a_reload_that_mends_it() {
    let mut scene = Scene::set().await;
    scene.central.restart().await;
    let Scene { dir, source, central, gateway } = scene;
    let mut other = Central::start(&dir.path().join("gateway"), "packhorse").await;
    let gateway = gateway.and_destination("other", other.addr);
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let bad = format!("{}\nca_file = \"{}\"\n", good.trim_end(), ca.display());
    std::fs::write(gateway.config(), &bad).unwrap();
    let mut scene = Scene { dir, source, central, gateway };
    let log = scene.dir.path().join("packhorse.log");
    scene.gateway.set_env("PACKHORSE_LOG_FILE", log.to_str().unwrap());
    let mut daemon = scene.gateway.spawn(&["run"]);
    let hang_up = || signal("-HUP", &daemon);
    scene.arrives().await;
    let shown = scene.until(&["queue", "status", "--json"], |status| status["destinations"][1]["state"] == "closed").await;
    let sentence = shown["destinations"][1]["sentence"].as_str().unwrap();
    assert!(sentence.contains("it cannot be set up") && sentence.contains("certificate"), "{sentence}");

    std::fs::write(scene.gateway.config(), &good).unwrap();
    hang_up();
    let served = |status: &Value| {
        [(0, 300), (1, 60)].iter().all(|(stream, rows)| status["destinations"][1]["streams"][stream]["acked"] == *rows)
    };
    scene.until(&["queue", "status", "--json"], served).await;
    compare(&scene.source, other.database()).await.assert_equal();

    // Settings of no use do not end what is served with the old ones.
    std::fs::write(scene.gateway.config(), &bad).unwrap();
    hang_up();
    let began = Instant::now();
    while !std::fs::read_to_string(&log).unwrap_or_default().contains("it goes on with the old ones") {
        assert!(began.elapsed() < Duration::from_mins(1), "the refusal is not told");
        sleep(Duration::from_millis(50)).await;
    }
    scene.source.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2026-02-01', 1, 0, 5)").await;
    let served = |status: &Value| status["destinations"][1]["streams"][0]["acked"] == 301;
    scene.until(&["queue", "status", "--json"], served).await;
    compare(&scene.source, other.database()).await.assert_equal();
    other.kill();
    daemon.terminate().await;
}

/// A destination that is taken out and put back by reloads one upon the other, while rows come and go.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_disabled_and_enabled_again_at_once_loses_and_doubles_nothing() {
    let mut scene = Scene::set().await;
    scene.central.restart().await;
    let Scene { dir, source, central, gateway } = scene;
    // It stores a repeated node state twice.
    let mut other = Central::start(&dir.path().join("gateway"), "legacy-old").await;
    let gateway = gateway.and_destination("other", other.addr);
    let enabled = std::fs::read_to_string(gateway.config()).unwrap();
    let disabled = format!("{}\nenabled = false\n", enabled.trim_end());
    let scene = Scene { dir, source, central, gateway };
    let mut daemon = scene.gateway.spawn(&["run"]);
    let reload = |text: &str| {
        std::fs::write(scene.gateway.config(), text).unwrap();
        signal("-HUP", &daemon);
    };
    let insert = async |round: i64| {
        scene
            .source
            .run(&format!(
                "INSERT INTO Reading (time, nodeId, type, value) SELECT '2026-02-01' + INTERVAL {round} * 100 + seq SECOND, 1, 0, seq FROM seq_1_to_90;
                 INSERT INTO NodeState (time, nodeId, `localtime`) SELECT '2026-02-01' + INTERVAL {round} * 100 + seq SECOND, 1, seq FROM seq_1_to_90"
            ))
            .await;
    };
    scene.arrives().await;
    for round in 0..12 {
        insert(round).await;
        reload(&disabled);
        // In some rounds the second comes before the first was taken, in some in the middle of what the first set going.
        sleep(Duration::from_millis(round as u64 % 6 * 40)).await;
        reload(&enabled);
        sleep(Duration::from_millis(round as u64 % 5 * 50)).await;
    }
    let all = |status: &Value| {
        let found = &status["destinations"][1];
        found["pending"] == 0 && found["streams"][0]["acked"] == 300 + 12 * 90 && found["streams"][1]["acked"] == 60 + 12 * 90
    };
    scene.until(&["queue", "status", "--json"], all).await;
    compare(&scene.source, other.database()).await.assert_equal();
    scene.arrives().await;
    other.kill();
    daemon.terminate().await;
}

/// A wrong token is nobody's fault among the rows: they wait, with advice, and go on when the file is right and read again.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_parks_nothing_and_is_mended_by_its_file_and_a_reload() {
    let scene = Scene::set().await;
    let [tokens, token] = ["tokens", "token"].map(|name| scene.dir.path().join(name));
    std::fs::write(&tokens, "house-17 the-right-token-of-house-17\n").unwrap();
    let write = |text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(&token, text).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("a-token-that-nobody-knows\n");
    let (addr, database) = (scene.central.addr, scene.central.database().to_owned());
    let mut command = support::gateway::receiver(addr, &database);
    command.env("PACKHORSE_RECEIVER_TOKENS_FILE", &tokens);
    let _receiver = Running(command.spawn().unwrap());
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let with_token = format!("token_file = \"{}\"\nlinger =", token.display());
    std::fs::write(scene.gateway.config(), config.replace("linger =", &with_token)).unwrap();

    let mut daemon = scene.gateway.spawn(&["-q", "run"]);
    let refused = |status: &Value| {
        let found = &status["destinations"][0];
        let says = |field: &Value, words: &str| field.as_str().is_some_and(|text| text.contains(words));
        found["pending"] == READINGS + STATES
            && says(&found["sentence"], "needs a human")
            && says(&found["last_error"]["text"], "check the token")
    };
    let status = scene.until(&["queue", "status", "--json"], refused).await;
    assert!(!status.to_string().contains("nobody-knows"), "{status}");
    write("the-right-token-of-house-17\n");
    signal("-HUP", &daemon);
    scene.arrives().await;
    let status = scene.json(&["queue", "status", "--json"]).await;
    assert_eq!(status["destinations"][0]["parked"], 0, "{status}");
    daemon.terminate().await;
}

/// A rewind waits for room, which only the sender of the next life can make: it ends, and does not keep that life from its outbox.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_that_waits_for_room_says_so_and_ends_when_a_reload_closes_its_outbox() {
    let mut scene = Scene::captured().await;
    let good = std::fs::read_to_string(scene.gateway.config()).unwrap();
    let full = good.replace("disk_reserve = \"1MiB\"", "disk_reserve = \"8EiB\"");
    assert_ne!(full, good);
    std::fs::write(scene.gateway.config(), &full).unwrap();
    let daemon = scene.daemon().await;
    let said = scene.dir.path().join("rewind.log");
    let mut rewind = scene.gateway.spawn_logging(&["queue", "rewind", "--since", "beginning", "--yes"], &said);
    let says = async |words: &str| {
        let began = Instant::now();
        while !std::fs::read_to_string(&said).unwrap_or_default().contains(words) {
            assert!(began.elapsed() < Duration::from_mins(3), "it does not say {words:?}");
            sleep(Duration::from_millis(100)).await;
        }
    };
    says("waits for room").await;
    std::fs::write(scene.gateway.config(), &good).unwrap();
    signal("-HUP", &daemon);
    says("the outbox was closed before this was done").await;
    assert_eq!(rewind.0.wait().unwrap().code(), Some(1));
    scene.central.restart().await;
    scene.arrives().await;
}
