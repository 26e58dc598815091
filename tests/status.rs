//! What the daemon serves over HTTP, on the real program: page, JSON, metrics, health; hostile visitors; the page in Chromium.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;
#[path = "status/truth.rs"]
mod truth;

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use support::{
    Database, Mariadb, Schema, compare,
    gateway::{Central, Gateway, Running, free_port},
    greenhouse,
};
use tokio::time::{Instant, sleep};

struct Scene {
    dir: tempfile::TempDir,
    source: Database,
    central: Central,
    gateway: Gateway,
    page: SocketAddr,
}

impl Scene {
    async fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Database::create(Mariadb::shared(), Schema::classic()).await;
        greenhouse::load_catalog(&source).await;
        source
            .run(
                "SET FOREIGN_KEY_CHECKS = 0;
                 INSERT INTO Reading (time, nodeId, type, locationId, value)
                     SELECT '2026-01-01' + INTERVAL seq MINUTE, IF(seq % 100, 1, 4242), 0, NULL, seq / 7 FROM seq_1_to_5000;
                 INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                     SELECT '2026-01-01' + INTERVAL seq MINUTE, 1, 0, seq, seq, -70 FROM seq_1_to_60",
            )
            .await;
        let central = Central::start(dir.path(), "packhorse").await;
        let page = free_port();
        let gateway = Gateway::new(&dir.path().join("gateway"), source.url(), central.addr)
            .with_env("PACKHORSE_STATUS_LISTEN", page.to_string());
        Self { dir, source, central, gateway, page }
    }

    async fn daemon(&self) -> Running {
        let daemon = self.gateway.spawn(&["-qq", "run"]);
        let began = Instant::now();
        while TcpStream::connect(self.page).is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the page does not come up");
            sleep(Duration::from_millis(20)).await;
        }
        daemon
    }

    fn get(&self, path: &str, header: &str) -> (u16, String) {
        self.get_as("localhost", path, header)
    }

    fn get_as(&self, host: &str, path: &str, header: &str) -> (u16, String) {
        let mut line = TcpStream::connect(self.page).unwrap();
        line.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(line, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        line.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.get("/status.json", "").1).unwrap()
    }

    async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.json();
            if is_so(&status) {
                return status;
            }
            assert!(began.elapsed() < Duration::from_mins(3), "{status}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn figure(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{metrics}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn page_json_and_metrics_say_the_same_and_tell_what_is_held() {
    let scene = Scene::set().await;
    let mut daemon = scene.daemon().await;
    let status = scene
        .until(|status| {
            status["destinations"][0]["parked"] == 50
                && status["destinations"][0]["pending"] == 0
                && status["destinations"][0]["streams"][1]["acked"] == 60
        })
        .await;
    assert_eq!((&status["healthy"], &status["destinations"][0]["streams"][0]["acked"]), (&true.into(), &4950.into()), "{status}");
    let (code, metrics) = scene.get("/metrics", "");
    assert_eq!(code, 200);
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for (name, expected) in [
        ("packhorse_outbox_parked_rows{destination=\"central\",stream=\"reading\"}", 50.0),
        ("packhorse_outbox_pending_rows{destination=\"central\",stream=\"reading\"}", 0.0),
        ("packhorse_outbox_oldest_age_seconds{destination=\"central\"}", 0.0),
        ("packhorse_delivered_rows_total{destination=\"central\",stream=\"reading\"}", 4950.0),
        ("packhorse_delivered_rows_total{destination=\"central\",stream=\"nodestate\"}", 60.0),
        ("packhorse_healthy", 1.0),
    ] {
        assert!((figure(&metrics, name) - expected).abs() < 0.5, "{name} in\n{metrics}");
    }
    assert!(figure(&metrics, "packhorse_requests_total{destination=\"central\",verdict=\"accepted\"}") >= 2.0, "{metrics}");
    assert!(figure(&metrics, "packhorse_request_body_bytes_total{destination=\"central\"}") > 1000.0);
    assert!(metrics.contains("# UNIT packhorse_outbox_oldest_age_seconds seconds"), "{metrics}");
    assert_eq!(scene.get("/healthz", ""), (200, "ok\n".to_owned()));
    let (code, page) = scene.get("/", "");
    assert_eq!(code, 200);
    for words in [
        "packhorse on house-17",
        "nothing waits, last delivery at",
        "4,950",
        "held until Node 4242 is mapped",
        "prefers-color-scheme",
    ] {
        assert!(page.contains(words), "no {words:?} in\n{page}");
    }
    assert_eq!(scene.get("/elsewhere", "").0, 404);
    assert!(daemon.terminate().await.1 < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_fails_when_there_is_work_and_no_progress_and_not_before() {
    let mut scene = Scene::set().await;
    scene.gateway.set_env("PACKHORSE_STATUS_STALL_AFTER", "6s");
    scene.central.kill();
    let _daemon = scene.daemon().await;
    scene.until(|status| status["destinations"][0]["pending"].as_u64() > Some(5_000)).await;
    assert_eq!(scene.get("/healthz", "").0, 200, "it has only begun");
    scene.until(|status| status["healthy"] == false).await;
    let (code, told) = scene.get("/healthz", "");
    assert_eq!(code, 503);
    assert!(told.contains("central: no progress for") && told.contains("waiting for the link since"), "{told}");
    assert!(scene.get("/", "").1.contains("Not healthy: central: no progress"));
    scene.central.restart().await;
    scene.until(|status| status["healthy"] == true).await;
    assert_eq!(scene.get("/healthz", "").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_loopback_a_token_is_needed() {
    let mut scene = Scene::set().await;
    scene.gateway.set_env("PACKHORSE_STATUS_LISTEN", format!("0.0.0.0:{}", scene.page.port()));
    let refused = scene.gateway.output(&["run"]).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("without a token anybody could look"));
    let file = scene.dir.path().join("token");
    std::fs::write(&file, "let-me-in\n").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    scene.gateway.set_env("PACKHORSE_STATUS_TOKEN_FILE", file.to_str().unwrap());
    let _daemon = scene.daemon().await;
    for path in ["/", "/metrics", "/status.json", "/healthz", "/elsewhere"] {
        assert_eq!(scene.get(path, "").0, 401, "{path}");
        assert_eq!(scene.get(path, "Authorization: Bearer let-me-out\r\n").0, 401, "{path}");
    }
    assert_eq!(scene.get("/healthz", "Authorization: Bearer let-me-in\r\n").0, 200);
    assert_eq!(scene.get("/", "Authorization: Basic YW55Ym9keTpsZXQtbWUtaW4=\r\n").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_somebody_else_had_resolve_to_this_machine_reads_nothing() {
    let scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    for path in ["/", "/metrics", "/status.json", "/healthz"] {
        let (code, said) = scene.get_as(&format!("rebind.example:{}", scene.page.port()), path, "");
        assert!(code == 421 && said.contains("ask for the address itself"), "{code} {said}");
        assert_eq!(scene.get_as(&scene.page.to_string(), path, "").0, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_taken_at_start_is_served_when_it_is_free() {
    let scene = Scene::set().await;
    let other = std::net::TcpListener::bind(scene.page).unwrap();
    let log = scene.dir.path().join("log");
    let _daemon = scene.gateway.spawn_logging(&["run"], &log);
    let says = async |words: &str| {
        let began = Instant::now();
        while !std::fs::read_to_string(&log).unwrap_or_default().contains(words) {
            assert!(began.elapsed() < Duration::from_mins(2), "it does not say {words:?}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    says("the status page cannot be served: it is tried again").await;
    drop(other);
    says("the status page is served").await;
    assert_eq!(scene.get("/healthz", "").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_of_10_mb_and_500_open_connections_hold_up_nothing() {
    let scene = Scene::set().await;
    let _daemon = scene.daemon().await;
    let mut line = TcpStream::connect(scene.page).unwrap();
    line.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    line.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n").unwrap();
    let header = format!("X-Long: {}\r\n", "x".repeat(1_000));
    let mut written = 0;
    while written < 10 << 20 && line.write_all(header.as_bytes()).is_ok() {
        written += header.len();
    }
    assert!(written < 10 << 20, "it is cut off early, after {written} bytes");
    let open: Vec<_> = (0..500)
        .map(|number| {
            let mut line = TcpStream::connect(scene.page).unwrap();
            if number % 2 == 0 {
                let _ = line.write_all(b"GET / HTTP/1.1\r\nHost");
            }
            line
        })
        .collect();
    assert_eq!(scene.get("/healthz", "").0, 200, "the newest is served");
    scene.until(|status| status["destinations"][0]["pending"] == 0 && status["destinations"][0]["parked"] == 50).await;
    let comparison = compare(&scene.source, scene.central.database()).await;
    assert_eq!(comparison.readings.duplicated, 0);
    drop(open);
    // And 500 that want the whole page, and are in no hurry to read it.
    let asked: Vec<_> = (0..500)
        .map(|_| {
            let mut line = TcpStream::connect(scene.page).unwrap();
            let _ = line.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
            line
        })
        .collect();
    scene.source.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2026-02-01', 1, 0, 5)").await;
    scene.until(|status| status["destinations"][0]["streams"][0]["acked"] == 4_951).await;
    drop(asked);
    for bad in [
        "DELETE / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "\0\u{1}\u{2}\r\n\r\n",
    ] {
        let mut line = TcpStream::connect(scene.page).unwrap();
        line.write_all(bad.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = line.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
}

/// Pictures go where `PACKHORSE_TEST_PICTURES` says, for whoever wants to look at them.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_in_chromium_holds_what_it_should_and_nothing_is_wider_than_the_screen() {
    if std::process::Command::new("chromium").arg("--version").output().is_err() {
        println!("SKIPPED: there is no chromium here (Debian: apt-get install chromium), so nobody has looked at the page");
        return;
    }
    let mut scene = Scene::set().await;
    let folder = std::env::var_os("PACKHORSE_TEST_PICTURES").map_or_else(|| scene.dir.path().join("pictures"), PathBuf::from);
    std::fs::create_dir_all(&folder).unwrap();
    history(&scene.gateway.data_dir().join("central"));
    let _daemon = scene.daemon().await;
    scene.until(|status| status["destinations"][0]["parked"] == 50).await;
    scene.central.kill();
    scene.source.run("INSERT INTO Reading (time, nodeId, type, value) SELECT '2026-02-01' + INTERVAL seq MINUTE, 1, 0, seq FROM seq_1_to_12403").await;
    scene.until(|status| status["destinations"][0]["state"] == "waiting").await;
    let frame = Frame::serve(scene.page);
    for (width, scheme) in [(360, "light"), (360, "dark"), (768, "light"), (1280, "light"), (1280, "dark")] {
        let picture = folder.join(format!("page-{width}-{scheme}.png"));
        let dark: &[&str] = if scheme == "dark" { &["--blink-settings=preferredColorScheme=0"] } else { &[] };
        let url = format!("http://{}/frame?{width}", frame.addr);
        let shot = [format!("--window-size={},3200", width.max(600)), format!("--screenshot={}", picture.display())];
        chromium(&url, dark, &[&shot[0], &shot[1], "--virtual-time-budget=3000"]);
        assert!(std::fs::metadata(&picture).unwrap().len() > 20_000, "{} is empty", picture.display());
        let dom = chromium(&url, dark, &["--dump-dom", "--virtual-time-budget=3000"]);
        assert!(dom.contains(&format!("data-width=\"{width}\" data-content=\"{width}\"")), "wider than {width}: {dom:.600}");
        // A table for whoever hears it, however its cells are laid out: what is written, and what the browser makes of it.
        let roles = "table table table, thead rowgroup rowgroup, tr row row, th columnheader columnheader, tbody rowgroup rowgroup, td cell cell";
        assert!(dom.contains(&format!("data-roles=\"{roles}\"")), "{width}: {dom:.900}");
    }
    let page = format!("http://{}/", scene.page);
    let dom = chromium(&page, &[], &["--dump-dom", "--virtual-time-budget=12000"]);
    assert!(dom.contains("waiting for the link since") && dom.contains("12,403 readings"), "{dom}");
    assert_eq!(dom.matches("<main").count(), 1, "the newest content took the place of the old");
    let dom = chromium(&format!("http://{}/keys", frame.addr), &[], &["--dump-dom", "--virtual-time-budget=15000"]);
    assert!(dom.contains("data-at=\"true true status \""), "nothing is news, and who has come somewhere stays there: {dom}");
    let dom = chromium(&page, &[], &["--dump-dom", "--virtual-time-budget=12000"]);
    // Who does not see it: each picture has words, each table heads, each part a name.
    let pictures = dom.matches("<svg").count();
    assert!(pictures >= 15 && dom.matches("role=\"img\" aria-label=\"").count() == pictures, "{pictures} pictures");
    assert!(dom.contains("<html lang=\"en\"") && dom.contains("scope=\"col\"") && dom.contains("href=\"#content\""));
    let parts = dom.matches("<section").count();
    assert_eq!(dom.matches("<section aria-labelledby=").count(), parts);
}

fn chromium(url: &str, flags: &[&str], more: &[&str]) -> String {
    let profile = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new("chromium");
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]);
    // Tells what a screen reader is told.
    command.arg("--enable-blink-features=ComputedAccessibilityInfo").args(flags).args(more);
    command.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Serves the page within a frame of any width, because a browser's window is not as narrow as a phone, and writes into the document how wide
/// the page's content came out. The page itself forbids frames and scripts that are not its own: here it comes without its head.
struct Frame {
    addr: SocketAddr,
}

impl Frame {
    fn serve(page: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for line in listener.incoming() {
                let Ok(line) = line else { return };
                // Whoever connects and says nothing must not hold up the next.
                std::thread::spawn(move || Self::answer(line, page));
            }
        });
        Self { addr }
    }

    fn answer(mut line: TcpStream, page: SocketAddr) {
        let mut head = [0; 4096];
        let read = line.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let path = head.split(' ').nth(1).unwrap_or("/");
        let body = match path.split_once('?') {
            Some(("/frame", width)) => format!(
                "<!doctype html><meta name=\"color-scheme\" content=\"light dark\"><body style=\"margin:0\">\
                 <iframe src=\"/page\" style=\"border:0;width:{width}px;height:3200px\" onload=\"\
                 const root = this.contentDocument.documentElement;\
                 document.body.dataset.width = root.clientWidth; document.body.dataset.content = root.scrollWidth;\
                 const parts = [...this.contentDocument.querySelectorAll('table, thead, tbody, tr, th, td')];\
                 const roles = parts.map((part) => [part.localName, part.getAttribute('role'), part.computedRole].join(' '));\
                 document.body.dataset.roles = [...new Set(roles)].join(', ');\"></iframe>"
            ),
            // Somebody has come to the second chart by the keyboard: where are they when the content has been replaced?
            None if path == "/keys" => "<!doctype html><body><iframe src=\"/page\" onload=\"\
                 const page = this.contentDocument; const second = page.querySelectorAll('details')[1];\
                 page.querySelector('main').dataset.old = 'yes'; second.open = true; second.querySelector('summary').focus();\
                 const timer = setInterval(() => { if (page.querySelector('main').dataset.old) return; clearInterval(timer);\
                 const at = page.activeElement.parentElement; const news = page.querySelector('#news');\
                 document.body.dataset.at = [at.id === second.id, at.open, news.getAttribute('role'), news.textContent].join(' '); }, 100);\
                 \"></iframe>"
                .to_owned(),
            None if path == "/page" || path == "/" => {
                let mut up = TcpStream::connect(page).unwrap();
                up.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
                let mut answer = String::new();
                up.read_to_string(&mut answer).unwrap();
                answer.split_once("\r\n\r\n").unwrap().1.to_owned()
            }
            _ => String::new(),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let _ = line.write_all(head.as_bytes()).and_then(|()| line.write_all(body.as_bytes()));
    }
}

/// A day of figures with an outage in it.
fn history(folder: &Path) {
    use packhorse::status::history::{Minute, write};
    std::fs::create_dir_all(folder).unwrap();
    let now = u32::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 60).unwrap();
    for ago in 1..1_500_u32 {
        let is_down = (300..420).contains(&ago) || (20..35).contains(&ago);
        let captured = 80 + u64::from(ago * 37 % 41);
        let minute = Minute {
            at: now - ago,
            pending: if is_down { u64::from(420 - ago.min(419)) * 100 } else { u64::from(ago % 7) * 12 },
            captured,
            delivered: if is_down { 0 } else { captured },
            bytes: if is_down { 0 } else { captured * 6 },
            requests: 1,
            errors: u32::from(is_down),
            round_trip_ms: if is_down { 0 } else { 90 + ago % 50 },
            up_s: if is_down { 0 } else { 60 },
            down_s: if is_down { 60 } else { 0 },
            paused_s: 0,
        };
        write(folder, &minute).unwrap();
    }
}
