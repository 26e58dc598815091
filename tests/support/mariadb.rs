//! A private server. All of its life is in `mariadb.sh`, which ends it when the pipe that this process holds is closed.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
};

use sqlx::{ConnectOptions as _, mysql::MySqlConnectOptions};

/// A database server that belongs to the tests.
pub struct Mariadb {
    admin: String,
    own: Option<Mutex<Own>>,
}

struct Own {
    script: Child,
    say: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl Mariadb {
    /// The server of this run: the one that `PACKHORSE_TEST_MYSQL` names (an administrator's mysql:// URL), else one of this process.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Mariadb> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var("PACKHORSE_TEST_MYSQL") {
            Ok(admin) if !admin.is_empty() => Self { admin, own: None },
            _ => Self::private(),
        })
    }

    /// A server for one test alone, which may kill it.
    pub fn private() -> Self {
        Self::launch(None)
    }

    /// One whose clock can be moved; `None`, with a message, where Debian's package libfaketime is not installed.
    pub fn with_clock() -> Option<Self> {
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let library = PathBuf::from(format!("/usr/lib/{triplet}/faketime/libfaketimeMT.so.1"));
        if !library.exists() {
            println!("SKIPPED: no {}; install the package libfaketime", library.display());
            return None;
        }
        Some(Self::launch(Some(library)))
    }

    fn launch(faketime: Option<PathBuf>) -> Self {
        let directory = tempfile::Builder::new().prefix("packhorse-mariadb-").tempdir().unwrap().keep();
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/mariadb.sh");
        let mut script = Command::new("bash")
            .envs(faketime.map(|library| ("PACKHORSE_TEST_FAKETIME", library)))
            .arg(script)
            .arg("start")
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C at a terminal is for us: the server ends when we do.
            .process_group(0)
            .spawn()
            .expect("bash runs");
        let say = script.stdin.take();
        let mut own = Own { say, hear: BufReader::new(script.stdout.take().unwrap()), script };
        let admin = own.line();
        assert!(admin.starts_with("mysql://"), "mariadb.sh did not start a server: {admin}");
        Self { admin, own: Some(Mutex::new(own)) }
    }

    /// The administrator's options for a database of this server.
    pub fn admin(&self, database: &str) -> MySqlConnectOptions {
        self.admin.parse::<MySqlConnectOptions>().unwrap().database(database).disable_statement_logging()
    }

    /// Where a user finds a database of this server.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        let admin: MySqlConnectOptions = self.admin.parse().unwrap();
        format!("mysql://{user}:{password}@{}:{}/{database}?ssl-mode=DISABLED", admin.get_host(), admin.get_port())
    }

    /// Ends the server as a power cut would.
    pub fn kill(&self) {
        assert_eq!(self.tell("kill"), "killed");
    }

    /// Ends it as the operating system does, and waits until it is gone.
    pub fn stop(&self) {
        assert_eq!(self.tell("stop"), "stopped");
    }

    /// Moves the clock of a server that [`with_clock`](Self::with_clock) gave: `+3d`, `-90m`, `+0` for the true time.
    pub fn set_clock(&self, by: &str) {
        assert_eq!(self.tell(&format!("clock {by}")), "set");
    }

    /// Starts it again on the same port and data.
    pub fn start(&self) {
        assert_eq!(self.tell("start"), "started");
    }

    fn tell(&self, word: &str) -> String {
        let mut own = self.own.as_ref().expect("a private server").lock().unwrap();
        writeln!(own.say.as_mut().unwrap(), "{word}").unwrap();
        own.line()
    }
}

impl Own {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.hear.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.say.take());
        let _ = self.script.wait();
    }
}
