//! The database file: how it is opened, who writes, who reads.
//!
//! The one rule: a commit is on the disk before anyone hears of it (I2): WAL with synchronous=FULL, and the file's own directory entry
//! is synced when it is made. There is one writer connection, so a look and the store that follows it are one step.

use std::{fs::File, io, path::Path, str::FromStr as _, time::Duration};

use sqlx::{
    AssertSqlSafe, Sqlite, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous},
};

use super::{Manner, ReceiverError, cell::Cell, refusal::Refusal};

/// How long a statement waits for another program that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);
/// How many requests may read at once.
const READERS_MAX: u32 = 3;

/// The open database.
#[derive(Debug)]
pub(super) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    /// Opens the database, creates it where it is missing, and brings its tables up to date.
    pub(super) async fn open(url: &str, manner: Manner) -> Result<Self, ReceiverError> {
        // Before anything is quoted: another kind of URL may hold a password.
        if !url.starts_with("sqlite:") {
            return Err(ReceiverError::NotAFile);
        }
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|cause| ReceiverError::Database { url: url.to_owned(), cause })?
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let path = options.get_filename().to_owned();
        if url.contains(":memory:") || url.contains("mode=memory") || path.as_os_str().is_empty() {
            return Err(ReceiverError::NotAFile);
        }
        let created = path.clone();
        tokio::task::spawn_blocking(move || create(&created))
            .await
            .map_err(io::Error::other)
            .and_then(|done| done)
            .map_err(|cause| ReceiverError::Create { path, cause })?;
        let fail = |cause| ReceiverError::Database { url: url.to_owned(), cause };
        let keep = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(None).max_lifetime(None);
        let writer = keep().max_connections(1).connect_with(options.clone()).await.map_err(fail)?;
        sqlx::migrate!("src/receiver/migrations")
            .run(&writer)
            .await
            .map_err(|cause| ReceiverError::Migrate { url: url.to_owned(), cause })?;
        prepare(&writer, url, manner).await?;
        let readers = keep().max_connections(READERS_MAX).connect_with(options.pragma("query_only", "ON")).await.map_err(fail)?;
        Ok(Self { writer, readers })
    }

    /// Begins a change. While it lasts no other change begins.
    pub(super) async fn change(&self) -> Result<Step, Refusal> {
        Step::begin(&self.writer, "BEGIN IMMEDIATE").await
    }

    /// Begins a look at one unchanging state of the database.
    pub(super) async fn look(&self) -> Result<Step, Refusal> {
        Step::begin(&self.readers, "BEGIN").await
    }

    /// Waits for the last change and closes the file.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A transaction. Unless it is ended it is undone, and its connection is closed with it.
///
/// SQLite itself ends a transaction on a full disk or an I/O error; sqlx's own type goes on counting it as open, and its connection would
/// refuse every later one. A connection that saw a failure is therefore never used again.
pub(super) struct Step {
    connection: Option<PoolConnection<Sqlite>>,
}

impl Step {
    async fn begin(pool: &SqlitePool, statement: &'static str) -> Result<Self, Refusal> {
        let mut step = Self { connection: Some(pool.acquire().await?) };
        sqlx::query(statement).execute(step.open()?).await?;
        Ok(step)
    }

    /// The connection, within the transaction.
    pub(super) fn open(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        self.connection.as_deref_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// Ends it well; a change is on the disk afterwards. After an error nothing of it is.
    pub(super) async fn end(mut self) -> Result<(), Refusal> {
        sqlx::query("COMMIT").execute(self.open()?).await?;
        self.connection = None;
        Ok(())
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}

/// The rows that a statement answers.
pub(super) async fn fetch(
    connection: &mut SqliteConnection,
    sql: String,
    cells: impl IntoIterator<Item = Cell>,
) -> Result<Vec<SqliteRow>, sqlx::Error> {
    let query = cells.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, cell| cell.bind(query));
    query.fetch_all(connection).await
}

/// The legacy-old manner takes a repeated node state as one more row; the others need the index that forbids it.
async fn prepare(writer: &SqlitePool, url: &str, manner: Manner) -> Result<(), ReceiverError> {
    let fail = |cause| ReceiverError::Database { url: url.to_owned(), cause };
    let mut connection = writer.acquire().await.map_err(fail)?;
    if manner == Manner::LegacyOldNodeState {
        sqlx::query("DROP INDEX IF EXISTS NodeState_natural").execute(&mut *connection).await.map_err(fail)?;
        return Ok(());
    }
    let found: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = 'NodeState_natural'")
        .fetch_one(&mut *connection)
        .await
        .map_err(fail)?;
    if found == 0 { Err(ReceiverError::OtherManner { url: url.to_owned() }) } else { Ok(()) }
}

/// Makes an empty file where there is none, and its name in the directory durable: SQLite syncs contents, not the name of its main file.
///
/// Only here, before SQLite has it open, may the file be opened otherwise: closing any handle of it drops the locks that SQLite holds.
fn create(path: &Path) -> io::Result<()> {
    match File::create_new(path) {
        Ok(file) => file.sync_all()?,
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(cause) => return Err(cause),
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}
