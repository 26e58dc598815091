//! The main job on real parts, for people to watch; `./demo` builds and runs it.
//!
//! A private MariaDB full of sample rows, the real daemon, a link, the real receiver; then a lost answer, a cut link, a kill -9, new rows
//! meanwhile, and `run --once`. In the end SQL counts what was lost, doubled or changed.
//!
//! The one rule: every number that is shown was counted, and whatever ends the demo, it leaves nothing behind.

mod show;
#[path = "../support/mod.rs"]
mod support;

use std::{
    error::Error,
    io::{BufRead as _, BufReader},
    process::{ExitCode, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use show::Show;
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};
use support::{
    Comparison, Database, Mariadb, Proxy, Schema, compare,
    gateway::{Central, Gateway, Running, packhorse},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const HOUSES: &str = "6";
const DAYS: &str = "14";
const CUT: Duration = Duration::from_secs(5);
const DEAD: Duration = Duration::from_secs(2);
/// Nothing takes longer than this unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> ExitCode {
    let show = Arc::new(Show::begin());
    let ended = tokio::select! {
        ended = story(&show) => ended,
        stopped = stopped() => Err(stopped.unwrap_or_else(Into::into)),
    };
    show.end();
    match ended {
        Ok(comparison) if comparison.is_equal() => {
            show.line("Nothing was lost, nothing was duplicated, nothing arrived wrong.");
            ExitCode::SUCCESS
        }
        Ok(_) => {
            show.line("THE CENTRE DIFFERS FROM THE SOURCE: this must not be.");
            ExitCode::FAILURE
        }
        Err(error) => {
            show.line(&format!("The demo did not get to its end: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Waits until somebody wants the demo to end.
async fn stopped() -> std::io::Result<Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let name = tokio::select! {
        _ = interrupt.recv() => "interrupted",
        _ = terminate.recv() => "terminated",
        _ = hang_up.recv() => "the terminal is gone",
    };
    Ok(name.into())
}

async fn story(show: &Arc<Show>) -> Result<Comparison> {
    let mut scene = Scene::set(show).await?;
    let began = Instant::now();
    let mut down = Duration::ZERO;
    let mut daemon = scene.start_daemon("The daemon starts: packhorse run.")?;

    scene.arrived(20).await?;
    scene.proxy.lose_next_answer_of("/rest/bulk/");
    scene.until("an answer is lost", |scene| scene.proxy.answers_lost() == 1).await?;
    show.say("A bulk was committed at the centre, and its answer was lost on the way: packhorse cannot know that it arrived.");

    scene.arrived(40).await?;
    let at = Instant::now();
    scene.proxy.cut().await;
    show.say(&format!("The link is cut for {} s.", CUT.as_secs()));
    scene.add_rows("New rows come in meanwhile").await?;
    scene.watch_for(CUT).await?;
    scene.proxy.restore().await;
    down += at.elapsed();
    show.say("The link is back.");

    scene.arrived(65).await?;
    let at = Instant::now();
    daemon.running.kill();
    show.say("The daemon is killed with -9, in the middle of its work.");
    scene.add_rows("New rows come in while nobody forwards").await?;
    scene.watch_for(DEAD).await?;
    down += at.elapsed();
    drop(daemon);
    let mut daemon = scene.start_daemon("The daemon starts again.")?;

    scene.arrived(95).await?;
    let (status, took) = daemon.running.terminate().await;
    show.say(&format!("The daemon is told to stop (SIGTERM) and ends {:.1} s later, {}.", took.as_secs_f64(), told(status)));
    drop(daemon);
    scene.add_rows("The last rows come in").await?;
    show.say("packhorse run --once forwards what is left.");
    let mut once = Program::start(&scene.gateway, &["-q", "run", "--once", "--deadline", "60s"], show)?;
    scene.until("run --once ends", |_| once.running.ended()).await?;
    let status = once.running.0.wait()?;
    show.say(&format!("It ends, {}.", told(status)));
    let took = began.elapsed();

    let comparison = scene.compare().await?;
    let rows = comparison.readings.source + comparison.node_states.source;
    show.line(&format!(
        "{rows} rows in {:.1} s, {:.1} s of it without a link or a daemon: {:.0} rows a second, all in all.",
        took.as_secs_f64(),
        down.as_secs_f64(),
        rows as f64 / took.as_secs_f64()
    ));
    if !status.success() {
        return Err(format!("run --once ended with {status}").into());
    }
    Ok(comparison)
}

fn told(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

/// Both ends and the link. What is dropped first stands first: the server and the directory outlive what uses them.
struct Scene {
    show: Arc<Show>,
    central: Central,
    proxy: Proxy,
    gateway: Gateway,
    /// A look into the receiver's file.
    look: SqliteConnection,
    in_source: u64,
    source: Database,
    samples_url: String,
    _server: Mariadb,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn set(show: &Arc<Show>) -> Result<Self> {
        show.say("A private MariaDB starts; nothing that was running is touched.");
        let server = tokio::task::spawn_blocking(Mariadb::private).await?;
        let dir = tempfile::Builder::new().prefix("packhorse-demo-").tempdir()?;
        let source = Database::create(&server, Schema::classic()).await;
        let samples_url = server.url("root", "", source.name());
        let central = Central::start(dir.path(), "packhorse").await;
        let proxy = Proxy::start(central.addr).await;
        let gateway = Gateway::new(&dir.path().join("gateway"), source.url(), proxy.addr());
        let look = SqliteConnectOptions::new().filename(central.database()).read_only(true);
        let look = look.disable_statement_logging().connect().await?;
        let show = Arc::clone(show);
        let mut scene =
            Self { show, central, proxy, gateway, look, in_source: 0, source, samples_url, _server: server, _dir: dir };
        scene.show.say(&format!("Sample rows are written: {HOUSES} houses, {DAYS} days, and the two ramps of nodes 37 and 38."));
        // The ramps first: the houses' last rows are then the latest, and go on from there.
        scene.samples(&["--count", "1010", "--gap", "60s"]).await?;
        scene.samples(&["--houses", HOUSES, "--days", DAYS, "--flaws", "none"]).await?;
        scene.show.say(&format!("{} rows wait in the source; the centre knows nothing, not even the houses.", scene.in_source));
        Ok(scene)
    }

    /// Runs `packhorse datagen`.
    async fn samples(&mut self, args: &[&str]) -> Result<()> {
        let mut command = packhorse();
        command.args(["-q", "datagen", "--url", &self.samples_url]).args(args).stdout(Stdio::null());
        let mut running = Running(command.spawn()?);
        let began = Instant::now();
        while !running.ended() {
            if began.elapsed() > PATIENCE {
                return Err(format!("datagen did not end within {PATIENCE:?}").into());
            }
            sleep(LOOK).await;
            self.count_source().await;
            self.look().await?;
        }
        self.count_source().await;
        let status = running.0.wait()?;
        if status.success() { Ok(()) } else { Err(format!("datagen ended with {status}").into()) }
    }

    /// A packet of every node of the houses for each second since their last.
    async fn add_rows(&mut self, occasion: &str) -> Result<()> {
        let before = self.in_source;
        self.samples(&["--houses", HOUSES, "--gap", "1s", "--flaws", "none"]).await?;
        self.show.say(&format!("{occasion}: {}.", self.in_source - before));
        Ok(())
    }

    async fn count_source(&mut self) {
        let sql = "SELECT (SELECT COUNT(*) FROM Reading) + (SELECT COUNT(*) FROM NodeState)";
        self.in_source = self.source.number(sql).await as u64;
    }

    fn start_daemon(&self, sentence: &str) -> Result<Program> {
        self.show.say(sentence);
        Program::start(&self.gateway, &["run"], &self.show)
    }

    /// Counts what has arrived, and shows it.
    async fn look(&mut self) -> Result<u64> {
        let sql = "SELECT (SELECT count(*) FROM Reading) + (SELECT count(*) FROM NodeState)";
        let arrived: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.look).await?;
        self.show.rows(self.in_source, arrived as u64);
        Ok(arrived as u64)
    }

    /// Waits until so many of a hundred rows have arrived.
    async fn arrived(&mut self, percent: u64) -> Result<()> {
        let began = Instant::now();
        while self.look().await? * 100 < self.in_source * percent {
            if began.elapsed() > PATIENCE {
                return Err(format!("{percent} % of the rows did not arrive within {PATIENCE:?}").into());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until something holds.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Result<()> {
        let began = Instant::now();
        while !holds(self) {
            if began.elapsed() > PATIENCE {
                return Err(format!("waited {PATIENCE:?} until {what}").into());
            }
            self.look().await?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Shows for so long what arrives, or that nothing does.
    async fn watch_for(&mut self, duration: Duration) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < duration {
            self.look().await?;
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn compare(&mut self) -> Result<Comparison> {
        self.count_source().await;
        self.look().await?;
        self.show.say("Both ends are compared by SQL, row by row, which takes longer than forwarding them.");
        let comparison = compare(&self.source, self.central.database()).await;
        self.show.line("");
        self.show.line(&comparison.to_string());
        Ok(comparison)
    }
}

/// A packhorse whose log is part of the story.
struct Program {
    running: Running,
}

impl Program {
    fn start(gateway: &Gateway, args: &[&str], show: &Arc<Show>) -> Result<Self> {
        let mut child = gateway.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let log = child.stderr.take().ok_or("its log is not there")?;
        let show = Arc::clone(show);
        // It ends with the program that it listens to.
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(std::result::Result::ok) {
                // Without the time, which is the show's.
                show.quote(line.split_once('Z').map_or(line.as_str(), |(_, rest)| rest.trim()));
            }
        });
        Ok(Self { running: Running(child) })
    }
}
