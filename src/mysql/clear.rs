//! Empties the cogent-house tables of a test database.
//!
//! The one rule: nothing is deleted unless the database's name was said beside its URL, and then everything or nothing.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, MySqlConnection};
use tokio::time::timeout;

use super::{
    fault::{self, Trouble},
    link::destination,
    query::quoted,
};
use crate::ports::SourceError;

/// Tables in the order in which they can be emptied: none is pointed to by a later one, once houses point to no server.
const TABLES: [&str; 18] = [
    "NodeState",
    "Reading",
    "NodeBoot",
    "Sensor",
    "Occupier",
    "HouseMetadata",
    "Server",
    "Node",
    "NodeType",
    "SensorType",
    "Location",
    "Room",
    "RoomType",
    "House",
    "Deployment",
    "Pushstatus",
    // A receiver's: with the rows go their receipts, so that what is sent again is stored again.
    "packhorse_receipt",
    "packhorse_run",
];
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a lock that somebody else holds is waited for.
const LOCK_WAIT_SECONDS: u32 = 10;

/// Why nothing was deleted.
#[derive(Debug, thiserror::Error)]
pub enum ClearError {
    /// The name that was said is another one.
    #[error(
        "the url leads to database '{found}', and the name given is '{given}': nothing was deleted; give the name of the database to empty"
    )]
    OtherName {
        /// The database in the URL.
        found: String,
        /// What was given.
        given: String,
    },
    /// The database cannot be reached or does not let us; nothing was deleted.
    #[error("nothing was deleted")]
    Database(#[source] SourceError),
}

/// The database that a URL leads to.
pub fn database_name(url: &str) -> Result<String, SourceError> {
    destination(url).map(|(_, place)| place.database)
}

/// Deletes every row of the cogent-house tables in one transaction. Gives the tables that are there, with how many rows each had.
pub async fn clear(url: &str, name: &str) -> Result<Vec<(&'static str, u64)>, ClearError> {
    let (options, place) = destination(url).map_err(ClearError::Database)?;
    if place.database != name {
        return Err(ClearError::OtherName { found: place.database, given: name.to_owned() });
    }
    let told = |trouble: Trouble| ClearError::Database(trouble.told(&place));
    let connected = timeout(CONNECT_DEADLINE, options.connect()).await;
    let connected =
        connected.map_err(|_| ClearError::Database(fault::too_slow(&place, CONNECT_DEADLINE, "being connected to")))?;
    let mut connection = connected.map_err(|error| told(error.into()))?;
    let deleted = empty(&mut connection).await.map_err(told)?;
    // What was committed stays so, however the connection ends.
    let _ = connection.close().await;
    Ok(deleted)
}

async fn empty(connection: &mut MySqlConnection) -> Result<Vec<(&'static str, u64)>, Trouble> {
    let waits = format!("SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}, lock_wait_timeout = {LOCK_WAIT_SECONDS}");
    connection.execute(sqlx::AssertSqlSafe(waits)).await?;
    let present: Vec<String> = sqlx::query_scalar(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE' LIMIT 10000",
    )
    .fetch_all(&mut *connection)
    .await?;
    let points_to_servers: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'House' AND column_name = 'serverid'",
    )
    .fetch_one(&mut *connection)
    .await?;
    // Dropped without a commit, it is undone.
    let mut change = connection.begin().await?;
    if points_to_servers > 0 {
        change.execute("UPDATE `House` SET `serverid` = NULL WHERE `serverid` IS NOT NULL").await?;
    }
    let mut deleted = Vec::new();
    for table in TABLES {
        if present.iter().any(|name| name.eq_ignore_ascii_case(table)) {
            let done = change.execute(sqlx::AssertSqlSafe(format!("DELETE FROM {}", quoted(table)))).await?;
            deleted.push((table, done.rows_affected()));
        }
    }
    change.commit().await?;
    Ok(deleted)
}
