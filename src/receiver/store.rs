//! The database file: how it is opened, who writes, who reads.
//!
//! The one rule: a commit is on the disk before anyone hears of it (I2): WAL with synchronous=FULL, and the file's own directory entry
//! is synced when it is opened. There is one writer connection, so a look and the store that follows it are one step.

use std::{
    fs::File,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use sqlx::{
    AssertSqlSafe, Sqlite, SqliteConnection, SqlitePool, Transaction,
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

/// What cannot be a file may be another database's URL, with a password in it.
fn without_secrets(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, _)) if scheme != "sqlite" => format!("{scheme}://..."),
        Some(_) | None => url.to_owned(),
    }
}

impl Store {
    /// Opens the database, creates it where it is missing, and brings its tables up to date.
    pub(super) async fn open(url: &str, manner: Manner) -> Result<Self, ReceiverError> {
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|cause| ReceiverError::Database { url: url.to_owned(), cause })?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let path = options.get_filename().to_owned();
        if !url.starts_with("sqlite:") || url.contains(":memory:") || url.contains("mode=memory") || path.as_os_str().is_empty() {
            return Err(ReceiverError::NotAFile { url: without_secrets(url) });
        }
        let fail = |cause| ReceiverError::Database { url: url.to_owned(), cause };
        let keep = || SqlitePoolOptions::new().acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(None).max_lifetime(None);
        let writer = keep().max_connections(1).connect_with(options.clone()).await.map_err(fail)?;
        sqlx::migrate!("src/receiver/migrations")
            .run(&writer)
            .await
            .map_err(|cause| ReceiverError::Migrate { url: url.to_owned(), cause })?;
        prepare(&writer, url, manner).await?;
        let synced = path.clone();
        tokio::task::spawn_blocking(move || sync_entry(&synced))
            .await
            .map_err(std::io::Error::other)
            .and_then(|done| done)
            .map_err(|cause| ReceiverError::Sync { path, cause })?;
        let readers = keep().max_connections(READERS_MAX).connect_with(options.pragma("query_only", "ON")).await.map_err(fail)?;
        Ok(Self { writer, readers })
    }

    /// Begins a change. It is undone unless it is committed; while it lasts no other change begins.
    pub(super) async fn change(&self) -> Result<Transaction<'static, Sqlite>, Refusal> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Begins a look at one unchanging state of the database.
    pub(super) async fn look(&self) -> Result<Transaction<'static, Sqlite>, Refusal> {
        Ok(self.readers.begin().await?)
    }

    /// Waits for the last change and closes the file.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
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

/// Makes the file and its name in the directory survive a loss of power. SQLite syncs contents, and the names of its journals only.
fn sync_entry(path: &Path) -> std::io::Result<()> {
    let path: PathBuf = path.canonicalize()?;
    File::open(&path)?.sync_all()?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
