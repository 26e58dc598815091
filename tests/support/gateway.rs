//! The real programs: a gateway with its configuration in a directory of its own, and a central receiver on a port that it keeps.

use std::{
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use tokio::time::{Instant, sleep};

/// The program under test.
pub fn packhorse() -> Command {
    let path = std::env::var_os("PACKHORSE_BIN").map_or_else(built, PathBuf::from);
    let mut command = Command::new(path);
    // Settings of whoever runs the tests must not reach the program under test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PACKHORSE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn built() -> PathBuf {
    option_env!("CARGO_BIN_EXE_packhorse").map_or_else(
        || {
            // An example lies in `target/<profile>/examples`.
            let own = std::env::current_exe().unwrap();
            own.parent().and_then(Path::parent).unwrap().join("packhorse")
        },
        PathBuf::from,
    )
}

/// A program that is killed when it goes out of scope.
pub struct Running(pub Child);

impl Running {
    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGTERM, and how long it took to end.
    pub async fn terminate(&mut self) -> (std::process::ExitStatus, Duration) {
        let began = Instant::now();
        assert!(Command::new("kill").arg(self.0.id().to_string()).status().unwrap().success());
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return (status, began.elapsed());
            }
            assert!(began.elapsed() < Duration::from_mins(1), "it does not end");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `packhorse receiver` over SQLite. The configuration of a packhorse that is installed here does not reach it.
pub fn receiver(addr: SocketAddr, database: &Path) -> Command {
    let mut command = packhorse();
    let database = format!("sqlite://{}", database.display());
    command.args(["-q", "--config", "/dev/null", "receiver", "--listen", &addr.to_string(), "--database", &database]);
    command
}

/// A central server: `packhorse receiver` over SQLite, in a manner.
pub struct Central {
    manner: &'static str,
    database: PathBuf,
    pub addr: SocketAddr,
    running: Running,
}

impl Central {
    pub async fn start(dir: &Path, manner: &'static str) -> Self {
        let addr = free_port();
        let database = dir.join(format!("central-{manner}.db"));
        let running = Self::spawn(addr, &database, manner);
        let central = Self { manner, database, addr, running };
        central.wait_until_up().await;
        central
    }

    fn spawn(addr: SocketAddr, database: &Path, manner: &str) -> Running {
        let mut command = receiver(addr, database);
        command.args(["--manner", manner]);
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    }

    async fn wait_until_up(&self) {
        let began = Instant::now();
        while tokio::net::TcpStream::connect(self.addr).await.is_err() {
            assert!(began.elapsed() < Duration::from_secs(30), "the receiver does not come up");
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn kill(&mut self) {
        self.running.kill();
    }

    pub async fn restart(&mut self) {
        self.kill();
        self.running = Self::spawn(self.addr, &self.database, self.manner);
        self.wait_until_up().await;
    }

    /// Another server in its place, with all that the old one had.
    pub async fn replace_by(&mut self, manner: &'static str) {
        self.manner = manner;
        self.restart().await;
    }

    pub fn pid(&self) -> u32 {
        self.running.0.id()
    }

    /// Its SQLite file.
    pub fn database(&self) -> &Path {
        &self.database
    }
}

/// An address on which nothing listens (for now).
pub fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A gateway: its configuration and its data directory.
pub struct Gateway {
    dir: PathBuf,
    env: Vec<(&'static str, String)>,
}

impl Gateway {
    /// With one destination, waits cut short.
    pub fn new(dir: &Path, source_url: &str, destination: SocketAddr) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let config = format!(
            r#"
[gateway]
id = "house-17"
data_dir = "{data}"

[source]
url = "{source_url}"
poll_interval = "500ms"
settle = "200ms"
disk_reserve = "1MiB"

[[destination]]
name = "central"
url = "http://{destination}/rest/"
backoff_min = "100ms"
backoff_max = "1s"
linger = "0s"

[status]
listen = "127.0.0.1:0"
socket = "{socket}"
"#,
            data = dir.join("data").display(),
            socket = dir.join("packhorse.sock").display(),
        );
        let path = dir.join("packhorse.toml");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        // A server that an earlier life left at work is not waited out for as long as one that is not known.
        // A slow machine may take its time to stop.
        let env = [("PACKHORSE_TEST_PATIENCE_MS", "200"), ("PACKHORSE_TEST_STOP_MAX_SECONDS", "300")];
        Self { dir: dir.into(), env: env.map(|(name, value)| (name, value.to_owned())).into() }
    }

    /// With smaller requests than it would make by itself, to every destination.
    #[must_use]
    pub fn with_request_max(self, size: &str) -> Self {
        let config = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), config.replace("linger = ", &format!("request_max = \"{size}\"\nlinger = "))).unwrap();
        self
    }

    /// With a key of `[source]` in place of its default.
    #[must_use]
    pub fn with_source(self, key: &str, value: &str) -> Self {
        let config = std::fs::read_to_string(self.config()).unwrap();
        let kept: Vec<&str> = config.lines().filter(|line| !line.starts_with(&format!("{key} = "))).collect();
        let config = kept.join("\n").replace("[source]", &format!("[source]\n{key} = \"{value}\""));
        std::fs::write(self.config(), config).unwrap();
        self
    }

    /// One more destination beside the first.
    #[must_use]
    pub fn and_destination(self, name: &str, addr: SocketAddr) -> Self {
        let more = format!(
            "\n[[destination]]\nname = \"{name}\"\nurl = \"http://{addr}/rest/\"\nbackoff_min = \"100ms\"\nbackoff_max = \"1s\"\nlinger = \"0s\"\n"
        );
        let config = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), config + &more).unwrap();
        self
    }

    #[must_use]
    pub fn with_env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.set_env(name, value);
        self
    }

    /// For programs started from now on.
    pub fn set_env(&mut self, name: &'static str, value: impl Into<String>) {
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.into()));
    }

    pub fn config(&self) -> PathBuf {
        self.dir.join("packhorse.toml")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// `packhorse --config .. ARGS`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = packhorse();
        command.arg("--config").arg(self.config()).args(args).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The daemon, or `run --once`, in the background.
    pub fn spawn(&self, args: &[&str]) -> Running {
        Running(self.command(args).stdout(Stdio::null()).spawn().unwrap())
    }

    /// The same, with what it says at the end of this file.
    pub fn spawn_logging(&self, args: &[&str], log: &Path) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        Running(self.command(args).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    /// Runs a command to its end.
    pub async fn output(&self, args: &[&str]) -> Output {
        let mut command = self.command(args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }
}
