//! A receiver in this process, on a file or a database of its own, spoken to over a bare socket: what is sent is exactly what the test wrote.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    fmt::Write as _,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use packhorse::receiver::{Manner, Options, Receiver, ReceiverError, Reload};
use sqlx::{
    AssertSqlSafe, Connection as _, MySqlConnection, MySqlPool, Row as _, SqlitePool,
    mysql::{MySqlConnectOptions, MySqlPoolOptions},
    sqlite::SqliteConnectOptions,
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A running receiver; it stops when dropped.
pub struct Central {
    pub address: SocketAddr,
    pub path: PathBuf,
    runtime: Option<Runtime>,
    reload: Reload,
    database: Database,
    stop: CancellationToken,
    running: Option<JoinHandle<Result<(), ReceiverError>>>,
    dir: Option<tempfile::TempDir>,
}

/// The database behind it, for a look behind its back. References are not checked there: a test may seed a row without all that it
/// points to.
enum Database {
    Sqlite(SqlitePool),
    Mysql(MySqlPool),
}

/// Runs statements on a server.
pub fn on(server: &MySqlConnectOptions, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut line = MySqlConnection::connect_with(server).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut line).await.unwrap();
        line.close().await.unwrap();
    });
}

/// An answer as it came over the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|cause| panic!("{cause}: {self:?}"))
    }
}

impl Central {
    pub fn start(manner: Manner) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut central = Self::open(&dir.path().join("central.db"), manner);
        central.dir = Some(dir);
        central
    }

    pub fn open(path: &Path, manner: Manner) -> Self {
        let mut central = Self::serve(&format!("sqlite://{}", path.display()), manner, |runtime| {
            let options = SqliteConnectOptions::new().filename(path).foreign_keys(false);
            Database::Sqlite(runtime.block_on(SqlitePool::connect_with(options)).unwrap())
        });
        path.clone_into(&mut central.path);
        central
    }

    /// On a database of a server; `admin` is for looks behind its back.
    pub fn on_server(url: &str, admin: MySqlConnectOptions) -> Self {
        Self::serve(url, Manner::Packhorse, |runtime| {
            let pool = MySqlPoolOptions::new().max_connections(2).after_connect(|line, _| {
                Box::pin(async move { sqlx::query("SET foreign_key_checks = 0").execute(line).await.map(drop) })
            });
            Database::Mysql(runtime.block_on(pool.connect_with(admin)).unwrap())
        })
    }

    /// As the options say, on a file below a directory of its own.
    pub fn with(options: impl FnOnce(Options) -> Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("central.db");
        let database = format!("sqlite://{}", path.display());
        let asked = options(Options::open("127.0.0.1:0".parse().unwrap(), database, Manner::Packhorse));
        let mut central = Self::serve_as(asked, |runtime| {
            let options = SqliteConnectOptions::new().filename(&path).foreign_keys(false);
            Database::Sqlite(runtime.block_on(SqlitePool::connect_with(options)).unwrap())
        });
        central.path = path;
        central.dir = Some(dir);
        central
    }

    /// Reads tokens and certificate again.
    pub fn reload(&self) -> Result<(), ReceiverError> {
        self.reload.reload()
    }

    fn serve(database: &str, manner: Manner, look: impl FnOnce(&Runtime) -> Database) -> Self {
        Self::serve_as(Options::open("127.0.0.1:0".parse().unwrap(), database, manner), look)
    }

    fn serve_as(options: Options, look: impl FnOnce(&Runtime) -> Database) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let receiver = runtime.block_on(Receiver::bind(options)).unwrap();
        let address = receiver.local_addr();
        let stop = CancellationToken::new();
        let reload = receiver.reload();
        let running = runtime.spawn(receiver.run(stop.clone()));
        let database = look(&runtime);
        Self { reload, address, path: PathBuf::new(), runtime: Some(runtime), database, stop, running: Some(running), dir: None }
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            self.runtime().block_on(running).unwrap().unwrap();
        }
    }

    /// Ends it at once, without a word to it.
    pub fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    pub fn sql(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Sqlite(pool) => self.runtime().block_on(sqlx::raw_sql(sql).execute(pool)).map(drop).unwrap(),
            Database::Mysql(pool) => self.runtime().block_on(sqlx::raw_sql(sql).execute(pool)).map(drop).unwrap(),
        }
    }

    pub fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Sqlite(pool) => self.runtime().block_on(sqlx::query_scalar(sql).fetch_one(pool)).unwrap(),
            Database::Mysql(pool) => {
                let row = self.runtime().block_on(sqlx::query(sql).fetch_one(pool)).unwrap();
                row.get_unchecked::<i64, _>(0)
            }
        }
    }

    pub fn real(&self, sql: &str) -> f64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Sqlite(pool) => self.runtime().block_on(sqlx::query_scalar(sql).fetch_one(pool)).unwrap(),
            Database::Mysql(pool) => self.runtime().block_on(sqlx::query_scalar(sql).fetch_one(pool)).unwrap(),
        }
    }

    /// A text, or a time as JSON writes it.
    pub fn string(&self, sql: &str) -> String {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.database {
            Database::Sqlite(pool) => self.runtime().block_on(sqlx::query_scalar(sql).fetch_one(pool)).unwrap(),
            Database::Mysql(pool) => {
                let row = self.runtime().block_on(sqlx::query(sql).fetch_one(pool)).unwrap();
                row.try_get::<String, _>(0).unwrap_or_else(|_| {
                    let time: chrono::NaiveDateTime = row.get(0);
                    packhorse::domain::Micros::from_datetime(time).to_string()
                })
            }
        }
    }

    pub fn connect(&self) -> TcpStream {
        let line = TcpStream::connect(self.address).unwrap();
        line.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        line
    }

    pub fn get(&self, target: &str) -> Answer {
        self.call("GET", target, &[], None)
    }

    pub fn post(&self, target: &str, body: impl AsRef<[u8]>) -> Answer {
        self.call("POST", target, &[], Some(body.as_ref()))
    }

    pub fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let mut line = self.connect();
        send(&mut line, self.address, method, target, headers, body);
        receive(&mut line)
    }
}

impl Drop for Central {
    fn drop(&mut self) {
        if self.runtime.is_some() {
            self.stop();
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Writes one request.
pub fn send(
    line: &mut TcpStream,
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) {
    try_send(line, address, method, target, headers, body).unwrap();
}

/// The same where the connection may break.
pub fn try_send(
    line: &mut TcpStream,
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> std::io::Result<()> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    if let Some(body) = body {
        write!(head, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    head.push_str("\r\n");
    line.write_all(head.as_bytes())?;
    line.write_all(body.unwrap_or_default())
}

/// Reads one answer; its body must have a length.
pub fn receive(line: &mut TcpStream) -> Answer {
    try_receive(line).expect("the connection ended before the answer did")
}

/// The same where the connection may break: `None`.
pub fn try_receive(line: &mut TcpStream) -> Option<Answer> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        line.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.trim_end().lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> =
        lines.map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()).collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
    answer.body.resize(length, 0);
    line.read_exact(&mut answer.body).ok()?;
    Some(answer)
}

/// zlib (RFC 1950).
pub fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
