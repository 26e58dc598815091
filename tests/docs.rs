//! Every example of the command line in docs/cli.md and docs/operations.md runs as it stands there, but for places of the machine: a folder, a database and
//! a port of the test's own.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use support::{
    Database, Mariadb, Schema, compare,
    gateway::{Central, Gateway, Running, free_port, packhorse},
    greenhouse, is_equal,
};
use tokio::time::{Instant, sleep};

/// Beside a stopped daemon whose destination is away, and which had one called `former` before; each ends with this code.
const STOPPED: &[(&str, i32)] = &[
    ("packhorse queue status --alarm-age 1h --alarm-depth 100000", 0),
    ("packhorse queue status --alarm-age 30min --critical-age 6h", 0),
    ("packhorse queue list --node 37 --since 2026-01-31T12:00:00 --limit 20", 0),
    ("packhorse queue export --format csv --stream reading --since 2026-01-31 --output /tmp/waiting.csv", 0),
    ("packhorse queue export --output /tmp/waiting.jsonl", 0),
    ("packhorse queue show reading 1200 --json", 0),
    ("packhorse queue parked list", 0),
    ("packhorse queue parked retry --reason \"House 3\"", 0),
    ("packhorse queue parked discard --node 99 --dry-run", 0),
    ("packhorse queue verify", 0),
    ("packhorse queue rewind --since 2026-01-31T00:00:00 --yes", 0),
    ("packhorse queue compact --destination central", 0),
    ("packhorse queue drop --name former --yes", 0),
    ("packhorse queue pause --destination central", 0),
    ("packhorse queue resume", 0),
];

/// When the destination is there again.
const ARRIVES: &[(&str, i32)] = &[
    ("packhorse run --once --deadline 60s", 0),
    ("packhorse run --once", 0),
    ("packhorse reconcile --since 2015-08-01 --mend --yes", 0),
    ("packhorse reconcile --since 2012-01-01 --mend", 0),
    ("packhorse check", 0),
];

/// On other databases and files.
const ELSEWHERE: &[(&str, i32)] = &[
    ("packhorse datagen --url mysql://chuser:secret@localhost/ch_test --create-tables --houses 3 --days 7", 0),
    ("packhorse datagen --url mysql://chuser:secret@localhost/ch_test --from-csv readings.csv.xz", 0),
    ("packhorse import-legacy /opt/cogent-house/synchronise.conf --output /etc/packhorse/packhorse.toml", 0),
    ("packhorse import-legacy /opt/cogent-house/synchronise.conf --output /etc/packhorse/packhorse.toml --start now", 0),
    ("packhorse completions bash > /tmp/packhorse.bash", 0),
    ("packhorse man /tmp/man", 0),
];

/// These go on until they are stopped, and then end with 0.
const UNTIL_STOPPED: &[&str] = &[
    "packhorse run",
    "packhorse receiver --listen 127.0.0.1:6543 --database sqlite:///tmp/central.db",
    "packhorse datagen --url mysql://chuser:secret@localhost/ch_test --houses 10 --rate 100",
    "packhorse queue status --watch",
];

/// When the receiver among them has made its database.
const AFTERWARDS: &[(&str, i32)] = &[("packhorse cleardb --central sqlite:///tmp/central.db --name central.db", 0)];

/// The lines of shell blocks that call us.
fn examples() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for text in [include_str!("../docs/cli.md"), include_str!("../docs/operations.md")] {
        for block in text.split("```sh\n").skip(1) {
            let lines = block.split("```").next().unwrap().lines().map(str::trim);
            found.extend(lines.filter(|line| line.starts_with("packhorse ")).map(str::to_owned));
        }
    }
    found
}

#[test]
fn every_example_is_run_and_every_one_that_is_run_is_in_the_documentation() {
    let ending = [STOPPED, ARRIVES, ELSEWHERE, AFTERWARDS].concat();
    let run: BTreeSet<String> =
        ending.iter().map(|(line, _)| *line).chain(UNTIL_STOPPED.iter().copied()).map(str::to_owned).collect();
    assert_eq!(examples(), run);
}

/// A machine of the examples' own.
struct Machine<'t> {
    dir: &'t Path,
    gateway: &'t Gateway,
    sample: &'t str,
    port: String,
}

impl Machine<'_> {
    /// The line in a shell, with places of the machine replaced.
    fn shell(&self, line: &str) -> Command {
        let dir = self.dir.display().to_string();
        let program = packhorse().get_program().to_str().unwrap().to_owned();
        let us = format!("exec '{program}' --config '{}' ", self.gateway.config().display());
        let line = line
            .replacen("packhorse ", &us, 1)
            .replace(" /tmp/", &format!(" {dir}/"))
            .replace("sqlite:///tmp/", &format!("sqlite://{dir}/"))
            .replace("/etc/packhorse/", &format!("{dir}/etc/"))
            .replace("/opt/cogent-house/", &format!("{dir}/"))
            .replace("mysql://chuser:secret@localhost/ch_test", &format!("'{}'", self.sample))
            .replace("127.0.0.1:6543", &self.port);
        let mut command = Command::new("bash");
        command.current_dir(self.dir).args(["-c", &line]).stdin(Stdio::null()).env("PACKHORSE_TEST_STOP_MAX_SECONDS", "300");
        command
    }

    async fn output(&self, line: &str) -> Output {
        let mut command = self.shell(line);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn run(&self, examples: &[(&str, i32)]) {
        for (line, code) in examples {
            let output = self.output(line).await;
            println!("{line}\n{}", String::from_utf8_lossy(&output.stdout));
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert_eq!(output.status.code(), Some(*code), "{line}\n{said}");
        }
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is_so().await {
        assert!(began.elapsed() < Duration::from_mins(3), "this does not come about: {what}");
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_does_what_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let source = Database::create(Mariadb::shared(), Schema::classic()).await;
    greenhouse::load_catalog(&source).await;
    let rows = "INSERT INTO Reading (time, nodeId, type, value)
                    SELECT '2026-01-31' + INTERVAL seq MINUTE, 1, 0, seq FROM seq_1_to_1500";
    source.run(rows).await;
    let sample = Database::bare(Mariadb::shared(), Schema::classic()).await;
    let mut central = Central::start(dir, "packhorse").await;
    central.kill();
    // A destination that was once: an outbox is all that is left of it.
    let gateway = Gateway::new(&dir.join("gateway"), source.url(), central.addr);
    let good = std::fs::read_to_string(gateway.config()).unwrap();
    let gateway = gateway.and_destination("former", free_port());
    support::assert_exit(&gateway.output(&["run", "--once", "--deadline", "4s"]).await, 1);
    std::fs::write(gateway.config(), good).unwrap();
    sample.run(&format!("GRANT ALL ON {}.* TO {}", sample.name(), sample.reader())).await;
    let machine = Machine { dir, gateway: &gateway, sample: sample.url(), port: free_port().to_string() };

    machine.run(STOPPED).await;
    assert!(std::fs::read_to_string(dir.join("waiting.csv")).unwrap().lines().count() > 1_400);
    central.restart().await;
    machine.run(ARRIVES).await;
    compare(&source, central.database()).await.assert_equal();

    std::fs::write(dir.join("readings.csv"), "time,node,sensor,value\n2026-01-31T00:00:00,7,temperature,20.5\n").unwrap();
    assert!(Command::new("xz").arg(dir.join("readings.csv")).status().unwrap().success());
    let old = format!(
        "[general]\nlocalurl = {}\npushlimit = 10000\n\n[locations]\ncentral = 1\n\n[central]\nresturl = http://{}/rest/\n",
        source.url().split('?').next().unwrap(),
        central.addr
    );
    std::fs::write(dir.join("synchronise.conf"), old).unwrap();
    for (place, example) in ELSEWHERE.iter().enumerate() {
        // Each begins where nothing was written.
        let _ = std::fs::remove_dir_all(dir.join("etc"));
        std::fs::create_dir(dir.join("etc")).unwrap();
        machine.run(&ELSEWHERE[place..=place]).await;
        assert_eq!(dir.join("etc/packhorse.toml").exists(), example.0.contains("import-legacy"), "{}", example.0);
    }
    assert!(std::fs::read_to_string(dir.join("packhorse.bash")).unwrap().contains("import-legacy"));
    let pages = std::fs::read_dir(dir.join("man")).unwrap().count();
    assert!(pages > 25 && dir.join("man/packhorse-queue-parked-retry.1").exists(), "{pages} man pages");

    for line in UNTIL_STOPPED {
        let before = sample.number("SELECT COUNT(*) FROM Reading").await;
        let mut running = Running(machine.shell(line).stdout(Stdio::null()).spawn().unwrap());
        match line {
            line if line.contains("receiver") => {
                until(line, async || tokio::net::TcpStream::connect(&machine.port).await.is_ok()).await;
            }
            line if line.contains("datagen") => {
                until(line, async || sample.number("SELECT COUNT(*) FROM Reading").await > before).await;
            }
            line if line.ends_with(" run") => {
                source.run("INSERT INTO Reading (time, nodeId, type, value) VALUES ('2026-02-20', 1, 0, 5)").await;
                until(line, async || is_equal(&source, central.database()).await).await;
            }
            _ => sleep(Duration::from_secs(3)).await,
        }
        assert!(!running.ended(), "{line} has ended by itself");
        let (ended, _) = running.terminate().await;
        assert!(ended.success() || line.contains("--watch"), "{line}: {ended}");
    }
    machine.run(AFTERWARDS).await;
}
