//! Empties a test receiver's tables.
//!
//! The one rule: nothing is deleted unless the file's name was said beside its URL, and then everything or nothing.

use std::{str::FromStr as _, time::Duration};

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::tables::TABLES;

/// How long another program that holds the file is waited for.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The URL names no file.
    #[error("'{0}' is not a file: write sqlite:///path/to/central.db")]
    NotAFile(String),
    /// The name that was said is another one.
    #[error(
        "the url leads to the file '{found}', and the name given is '{given}': nothing was deleted; give the name of the file to empty"
    )]
    OtherName {
        /// The file in the URL.
        found: String,
        /// What was given.
        given: String,
    },
    /// The file cannot be opened or changed; nothing was deleted.
    #[error("nothing was deleted; the file must be there, be a receiver's database, and not be in use for longer than 10 s")]
    Database(#[from] sqlx::Error),
}

/// The name that a database is called by: its file's.
pub fn database_name(url: &str) -> Result<String, ClearError> {
    options(url).map(|(_, name)| name)
}

fn options(url: &str) -> Result<(SqliteConnectOptions, String), ClearError> {
    let not_a_file = || ClearError::NotAFile(url.to_owned());
    let options = SqliteConnectOptions::from_str(url).map_err(|_| not_a_file())?;
    let name = options.get_filename().file_name().and_then(|name| name.to_str()).ok_or_else(not_a_file)?.to_owned();
    let options = options.create_if_missing(false).foreign_keys(true).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
    Ok((options, name))
}

/// Deletes every row of the receiver's tables in one transaction. Gives the tables that are there, with how many rows each had.
pub async fn clear(url: &str, name: &str) -> Result<Vec<(&'static str, u64)>, ClearError> {
    let (options, found) = options(url)?;
    if found != name {
        return Err(ClearError::OtherName { found, given: name.to_owned() });
    }
    let mut connection = options.connect().await?;
    let deleted = empty(&mut connection).await?;
    let _ = connection.close().await;
    Ok(deleted)
}

async fn empty(connection: &mut SqliteConnection) -> Result<Vec<(&'static str, u64)>, sqlx::Error> {
    // Dropped without a commit, it is undone.
    let mut change = connection.begin_with("BEGIN IMMEDIATE").await?;
    // Servers point to nodes and houses to servers: what is whole at the end may be broken on the way.
    change.execute("PRAGMA defer_foreign_keys = ON").await?;
    let mut deleted = Vec::new();
    // With the rows go the receipts: what is sent again must be stored again.
    for table in TABLES.iter().rev().map(|table| table.name).chain(["Server", "packhorse_receipt", "packhorse_run"]) {
        let done = change.execute(AssertSqlSafe(format!("DELETE FROM \"{table}\""))).await?;
        deleted.push((table, done.rows_affected()));
    }
    change.commit().await?;
    Ok(deleted)
}
