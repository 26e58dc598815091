//! On a terminal: a live view, and nothing wider than the screen. `script` (of Debian's essential packages) makes the terminal.

use std::{
    io::Read as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use super::*;

/// A command on a terminal of its own, and what it has written there.
struct Terminal {
    running: Running,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn open(scene: &Scene, columns: usize, args: &[&str]) -> Self {
        let packhorse = scene.gateway.command(args);
        let words = std::iter::once(packhorse.get_program()).chain(packhorse.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.to_str().unwrap())).collect();
        let mut command = Command::new("script");
        command.args(["-qefc", &format!("stty cols {columns} rows 40; exec {}", words.join(" ")), "/dev/null"]);
        command.envs(packhorse.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (screen, mut output) = (Arc::new(Mutex::new(String::new())), child.stdout.take().unwrap());
        let written = Arc::clone(&screen);
        // It ends with the terminal.
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut some) {
                written.lock().unwrap().push_str(&String::from_utf8_lossy(&some[..read]));
            }
        });
        Self { running: Running(child), screen }
    }

    fn screens(&self) -> Vec<String> {
        let all = self.screen.lock().unwrap().replace('\r', "");
        all.split("\x1b[H\x1b[2J").skip(1).map(str::to_owned).collect()
    }

    /// Waits for a screen that is as it should be.
    async fn until(&self, is_so: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            if let Some(screen) = self.screens().iter().rev().skip(1).find(|screen| is_so(screen)) {
                return screen.clone();
            }
            assert!(began.elapsed() < Duration::from_mins(3), "{:?}", self.screen.lock().unwrap());
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_view_follows_the_daemon_and_fits_the_terminal() {
    let mut scene = Scene::set().await;
    let mut daemon = scene.daemon().await;
    let mut terminal = Terminal::open(&scene, 50, &["queue", "status", "--watch", "200ms"]);
    let screen = terminal.until(|screen| screen.contains("waiting for the link since") && screen.contains("360 records")).await;
    assert!(screen.lines().all(|line| line.chars().count() <= 50), "{screen}");
    assert!(screen.contains("reading") && screen.contains("nodestate"), "{screen}");
    scene.says(&["queue", "pause"], 0, "sending is paused").await;
    terminal.until(|screen| screen.contains("paused")).await;
    // It outlives the daemon, and sees the next one.
    daemon.terminate().await;
    terminal.until(|screen| screen.contains("packhorse is stopped") || screen.contains("state         paused")).await;
    scene.central.restart().await;
    let _daemon = scene.gateway.spawn(&["-qq", "run"]);
    scene.until(&["queue", "status", "--json"], |status| status["destinations"][0]["state"] == "paused").await;
    scene.says(&["queue", "resume"], 0, "sending goes on").await;
    terminal.until(|screen| screen.contains("waiting       0 records")).await;
    assert!(!terminal.running.ended());
}

/// What a command that ends writes on a terminal.
async fn shown(scene: &Scene, args: &[&str]) -> String {
    let mut terminal = Terminal::open(scene, 80, args);
    let began = Instant::now();
    while !terminal.running.ended() {
        assert!(began.elapsed() < Duration::from_mins(3), "{args:?} does not end");
        sleep(Duration::from_millis(50)).await;
    }
    // What was written right before the end is still on its way.
    sleep(Duration::from_millis(200)).await;
    terminal.screen.lock().unwrap().replace('\r', "\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal_and_long_work_shows_a_bar() {
    let mut scene = Scene::captured().await;
    let status = shown(&scene, &["queue", "status"]).await;
    assert!(status.lines().all(|line| line.chars().count() <= 80), "{status}");
    assert!(status.lines().any(|line| line.starts_with("  reading ") && line.contains('/')), "the watermark has room: {status}");
    assert!(status.lines().any(|line| line.starts_with("  last error") && line.contains(" UTC: ")), "{status}");
    let list = shown(&scene, &["queue", "list", "--limit", "3"]).await;
    assert!(list.lines().all(|line| line.chars().count() <= 80) && list.contains("nodeId"), "{list}");
    scene.gateway.set_env("FAILPOINTS", "compact:filled=sleep(1500)");
    let compact = shown(&scene, &["queue", "compact"]).await;
    assert!(compact.contains("central: █") && compact.contains(" KiB, ") && compact.contains(" left"), "{compact}");
    assert!(compact.contains("central: ") && compact.contains(" before, "), "{compact}");
    scene.central.restart().await;
    // Long enough to be looked at.
    scene.gateway.set_env("FAILPOINTS", "deliver:sending=sleep(1500)");
    let once = shown(&scene, &["run", "--once"]).await;
    assert!(once.contains("of about 360 rows") && once.contains("left"), "{once}");
    assert!(once.contains("300 readings delivered so far, 0 wait"), "{once}");
    let again = shown(&scene, &["queue", "rewind", "--since", "beginning", "--yes"]).await;
    assert!(again.contains("of about 360 rows") && again.contains("360 rows since the beginning"), "{again}");
    let compared = shown(&scene, &["reconcile", "--yes"]).await;
    assert!(compared.contains("comparing counts") && compared.contains("nodes"), "{compared}");
}
