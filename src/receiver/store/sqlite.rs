//! The database as a file.
//!
//! The one rule: WAL with synchronous=FULL, and the file's own directory entry is synced when it is made. There is one writer connection.

use std::{fs::File as OsFile, io, path::Path, str::FromStr as _, time::Duration};

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{ACQUIRE_TIMEOUT, migrations};
use crate::receiver::{Manner, ReceiverError};

/// How long a statement waits for another program that holds the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How many requests may read at once.
const READERS_MAX: u32 = 3;

/// The open file.
#[derive(Debug)]
pub(in crate::receiver) struct File {
    /// One connection.
    pub(super) writer: SqlitePool,
    /// Some more, which cannot write.
    pub(super) readers: SqlitePool,
}

pub(super) async fn open(url: &str, manner: Manner) -> Result<File, ReceiverError> {
    let fail = |cause| ReceiverError::Database { url: url.to_owned(), cause };
    let options = SqliteConnectOptions::from_str(url)
        .map_err(fail)?
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT);
    let path = options.get_filename().to_owned();
    if url.contains(":memory:") || url.contains("mode=memory") || path.as_os_str().is_empty() {
        return Err(ReceiverError::NotADatabase);
    }
    let created = path.clone();
    tokio::task::spawn_blocking(move || create(&created))
        .await
        .map_err(io::Error::other)
        .and_then(|done| done)
        .map_err(|cause| ReceiverError::Create { path, cause })?;
    let keep = || {
        SqlitePoolOptions::new()
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .acquire_slow_threshold(ACQUIRE_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
    };
    let writer = keep().max_connections(1).connect_with(options.clone()).await.map_err(fail)?;
    migrations::sqlite().run(&writer).await.map_err(|cause| ReceiverError::Migrate { url: url.to_owned(), cause })?;
    prepare(&writer, url, manner).await?;
    let readers = keep().max_connections(READERS_MAX).connect_with(options.pragma("query_only", "ON")).await.map_err(fail)?;
    Ok(File { writer, readers })
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
    match OsFile::create_new(path) {
        Ok(file) => file.sync_all()?,
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(cause) => return Err(cause),
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    OsFile::open(directory)?.sync_all()
}
