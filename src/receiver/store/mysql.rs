//! The database as a MySQL or MariaDB server.
//!
//! The one rule: the server must put each commit on the disk before it answers; one that does not is refused at the start.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    ConnectOptions as _, Executor as _, MySqlPool,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions},
};

use super::{ACQUIRE_TIMEOUT, migrations};
use crate::receiver::ReceiverError;

/// How many requests may change the database at once. The server commits what comes together with one fsync.
const WRITERS_MAX: u32 = 12;
/// How many requests may read at once.
const READERS_MAX: u32 = 6;
/// How long the server is waited for at the start.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// What every session is told: names in `"`, nothing cut or bent to fit a column, and no long wait for somebody else's lock.
const SESSION: &str = "SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE', \
     time_zone = '+00:00', innodb_lock_wait_timeout = 10, foreign_key_checks = 1, unique_checks = 1, autocommit = 1";

/// The open server.
#[derive(Debug)]
pub(in crate::receiver) struct Server {
    /// Connections that change.
    pub(super) writers: MySqlPool,
    /// Connections that look: a long list must not keep rows out.
    pub(super) readers: MySqlPool,
}

pub(super) async fn open(url: &str) -> Result<Server, ReceiverError> {
    let options = MySqlConnectOptions::from_str(url).map_err(|_| ReceiverError::NotADatabase)?.disable_statement_logging();
    let place = place(&options);
    let fail = |cause| ReceiverError::Server { place: place.clone(), cause };
    // Each statement sees what is committed by then: an upsert locks the rows that it touches, and no gaps between them.
    let writers = pool(WRITERS_MAX, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    let writers = tokio::time::timeout(START_TIMEOUT, writers.connect_with(options.clone()))
        .await
        .map_err(|_| fail(sqlx::Error::PoolTimedOut))?
        .map_err(fail)?;
    let flush: i64 = sqlx::query_scalar("SELECT CAST(@@GLOBAL.innodb_flush_log_at_trx_commit AS SIGNED)")
        .fetch_one(&writers)
        .await
        .map_err(fail)?;
    if flush != 1 {
        return Err(ReceiverError::NotDurable { place, flush });
    }
    let foreign: i64 = sqlx::query_scalar(
        "SELECT CAST(COUNT(*) AS SIGNED) FROM information_schema.tables WHERE table_schema = DATABASE() \
         AND NOT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '_sqlx_migrations')",
    )
    .fetch_one(&writers)
    .await
    .map_err(fail)?;
    if foreign > 0 {
        return Err(ReceiverError::Foreign { place });
    }
    migrations::mysql().run(&writers).await.map_err(|cause| ReceiverError::Migrate { url: place.clone(), cause })?;
    let readers = pool(READERS_MAX, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ");
    Ok(Server { writers, readers: readers.connect_with(options).await.map_err(fail)? })
}

fn pool(connections: u32, isolation: &'static str) -> MySqlPoolOptions {
    MySqlPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .acquire_slow_threshold(ACQUIRE_TIMEOUT)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                connection.execute(SESSION).await?;
                connection.execute(isolation).await?;
                Ok(())
            })
        })
}

/// The server and database, without the password.
fn place(options: &MySqlConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    match options.get_socket() {
        Some(socket) => format!("{}@{} ({database})", options.get_username(), socket.display()),
        None => format!("mysql://{}@{}:{}/{database}", options.get_username(), options.get_host(), options.get_port()),
    }
}

/// Whether a change failed because it met another one: a deadlock, a lock that was held too long, a row that changed since. Nothing of it
/// is there, and it can be made again.
pub(super) fn is_contention(error: &sqlx::Error) -> bool {
    const NUMBERS: [u16; 3] = [1205, 1213, 1020];
    let server = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    server.is_some_and(|error| NUMBERS.contains(&error.number()))
}
