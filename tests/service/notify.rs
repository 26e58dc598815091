//! A socket in a service manager's place.

use std::{
    os::unix::net::UnixDatagram,
    path::Path,
    sync::{Arc, Mutex},
};

use super::*;

/// Everything that was said, in its order.
#[derive(Clone)]
struct Manager(Arc<Mutex<Vec<String>>>);

impl Manager {
    fn listen(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                into.lock().unwrap().push(String::from_utf8(bytes[..length].to_vec()).unwrap());
            }
        });
        Self(heard)
    }

    fn heard(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, what: &str) -> usize {
        self.heard().iter().filter(|said| said.lines().any(|line| line.starts_with(what))).count()
    }

    async fn hears(&self, what: &str, times: usize) {
        until(&format!("{what} is said {times} times"), async || self.count(what) >= times).await;
    }
}

/// A gateway under a manager that wants a word every 200 ms.
fn under(scene: &Scene) -> (Manager, Gateway) {
    let path = scene.dir.path().join("notify.sock");
    let manager = Manager::listen(&path);
    let gateway = scene.gateway().with_env("NOTIFY_SOCKET", path.to_str().unwrap()).with_env("WATCHDOG_USEC", "400000");
    (manager, gateway)
}

fn hang_up(daemon: &Running) {
    assert!(std::process::Command::new("kill").args(["-HUP", &daemon.0.id().to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manager_hears_ready_alive_reloading_and_stopping() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let (manager, gateway) = under(&scene);
    let mut daemon = gateway.spawn(&["run"]);
    manager.hears("READY=1", 1).await;
    assert!(pending(&gateway).await.is_some(), "who waited for the start may ask at once");
    readings(&scene, 10).await;
    arrives(&scene).await;
    manager.hears("STATUS=central: 0 rows wait", 1).await;
    let before = manager.count("WATCHDOG=1");
    manager.hears("WATCHDOG=1", before + 5).await;

    hang_up(&daemon);
    manager.hears("READY=1", 2).await;
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    std::fs::write(gateway.config(), good.replace("linger", "lingre")).unwrap();
    hang_up(&daemon);
    // It goes on with the old one, so it is as ready as before.
    manager.hears("READY=1", 3).await;
    let heard = manager.heard();
    let reloads: Vec<&String> = heard.iter().filter(|said| said.starts_with("RELOADING=1\n")).collect();
    assert_eq!(reloads.len(), 2, "{heard:?}");
    for said in reloads {
        let at = said.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).and_then(|at| at.parse::<u64>().ok());
        assert!(at.is_some_and(|at| at > 0), "{said:?}");
    }
    let words = |said: &String| said.lines().next().filter(|line| ["READY=1", "RELOADING=1"].contains(line)).map(str::to_owned);
    let order: Vec<String> = heard.iter().filter_map(words).collect();
    assert_eq!(order, ["READY=1", "RELOADING=1", "READY=1", "RELOADING=1", "READY=1"]);

    assert_eq!(manager.count("STOPPING=1"), 0);
    let (ended, _) = daemon.terminate().await;
    assert!(ended.success());
    assert_eq!(manager.count("STOPPING=1"), 1, "{:?}", manager.heard());
}

/// A disk that never comes back from a write: the process lives, its runtime too, and yet nothing goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_is_stuck_is_not_called_alive_and_a_stop_does_not_wait_for_it() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    readings(&scene, 100).await;
    let (manager, gateway) = under(&scene);
    let blocked =
        gateway.with_env("FAILPOINTS", "append:committed=sleep(3600000)").with_env("PACKHORSE_TEST_STEP_MAX_MS", "3000");
    let mut daemon = blocked.spawn(&["run"]);
    manager.hears("WATCHDOG=1", 1).await;
    manager.hears("STATUS=stuck: central: capturing: no step for more than 3 s", 1).await;
    let alive = manager.count("WATCHDOG=1");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(manager.count("WATCHDOG=1"), alive, "it says that it is alive while it is stuck");

    // What hangs was not committed, so nothing is left undone.
    assert!(daemon.terminate().await.0.success());
    assert_eq!(manager.count("STOPPING=1"), 1);
    let mut daemon = scene.gateway().spawn(&["run"]);
    arrives(&scene).await;
    assert!(daemon.terminate().await.0.success());
}

/// While it is well it is called so for longer than a step may take: each question to the source is a step.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_stays_alive() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let (manager, gateway) = under(&scene);
    let mut daemon = gateway.with_env("PACKHORSE_TEST_STEP_MAX_MS", "5000").spawn(&["run"]);
    manager.hears("WATCHDOG=1", 60).await;
    assert!(daemon.terminate().await.0.success());
}

/// One that cannot be set up has no loop that could be stuck: the others are not ended because of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_cannot_be_set_up_does_not_look_stuck() {
    let scene = Scene::without_rows(Schema::classic(), "packhorse").await;
    let (manager, gateway) = under(&scene);
    let gateway = gateway.with_env("PACKHORSE_TEST_STEP_MAX_MS", "3000").and_destination("other", scene.proxy.addr());
    let ca = scene.dir.path().join("ca.pem");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let config = std::fs::read_to_string(gateway.config()).unwrap();
    std::fs::write(gateway.config(), format!("{}\nca_file = \"{}\"\n", config.trim_end(), ca.display())).unwrap();
    let mut daemon = gateway.spawn(&["run"]);
    manager.hears("WATCHDOG=1", 1).await;
    // Longer than a step may take here.
    sleep(Duration::from_secs(5)).await;
    let before = manager.count("WATCHDOG=1");
    manager.hears("WATCHDOG=1", before + 5).await;
    assert_eq!(manager.count("STATUS=stuck"), 0, "{:?}", manager.heard());
    daemon.terminate().await;
}
