//! The one connection: made when it is needed, and given up after any error.
//!
//! The one rule: a connection is put back only after a call that succeeded. A call that failed, ran out of time or was dropped may have
//! left a query, half an answer or a transaction on it.

use std::time::Duration;

use sqlx::{ConnectOptions as _, Connection as _, Executor as _, MySqlConnection, mysql::MySqlConnectOptions};
use tokio::time::{error::Elapsed, timeout};

use super::{
    Options,
    fault::{self, Place, Trouble},
    schema::{self, Schema},
};
use crate::ports::{SourceError, SourceSchema};

/// A connection that is ready for a query, with what was found out on it.
pub(super) struct Live {
    pub connection: MySqlConnection,
    pub schema: Schema,
    /// Whether nobody was told of the schema yet: it was looked at just now.
    is_new: bool,
}

/// Connects, and remembers the connection between calls.
pub(super) struct Link {
    to: MySqlConnectOptions,
    place: Place,
    options: Options,
    live: Option<Live>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("place", &self.place).field("connected", &self.live.is_some()).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn new(options: Options) -> Result<Self, SourceError> {
        let (to, place) = destination(&options.url)?;
        Ok(Self { to, place, options, live: None })
    }

    /// How long one query may take.
    pub(super) fn deadline(&self) -> Duration {
        self.options.deadline
    }

    /// The schema, looked at again. A column that was added before a row was written is then seen before that row has settled: no row is captured
    /// without it.
    pub(super) async fn look(&mut self) -> Result<SourceSchema, SourceError> {
        let mut live = self.take().await?;
        if !std::mem::take(&mut live.is_new) {
            let outcome = timeout(self.options.connect_deadline, schema::look(&mut live.connection)).await;
            match outcome {
                Ok(Ok(schema)) => live.schema = schema,
                Ok(Err(trouble)) => return Err(trouble.told(&self.place)),
                Err(Elapsed { .. }) => {
                    return Err(fault::too_slow(&self.place, self.options.connect_deadline, "being asked for its tables"));
                }
            }
        }
        let found = live.schema.told();
        self.live = Some(live);
        Ok(found)
    }

    /// The live connection, or a new one.
    pub(super) async fn take(&mut self) -> Result<Live, SourceError> {
        if let Some(pulse) = &self.options.pulse {
            pulse.beat();
        }
        if let Some(live) = self.live.take() {
            return Ok(live);
        }
        match timeout(self.options.connect_deadline, self.open()).await {
            Ok(opened) => opened.map_err(|trouble| trouble.told(&self.place)),
            Err(Elapsed { .. }) => Err(fault::too_slow(&self.place, self.options.connect_deadline, "being connected to")),
        }
    }

    /// What a call came to; the connection is kept after a success only.
    pub(super) fn settle<T>(
        &mut self,
        live: Live,
        what: &str,
        outcome: Result<Result<T, Trouble>, Elapsed>,
    ) -> Result<T, SourceError> {
        match outcome {
            Ok(Ok(answer)) => {
                self.live = Some(live);
                Ok(answer)
            }
            Ok(Err(trouble)) => Err(trouble.told(&self.place)),
            Err(Elapsed { .. }) => Err(fault::too_slow(&self.place, self.options.deadline, what)),
        }
    }

    /// A connection that a look at the schema has still to follow.
    pub(super) async fn login(&self) -> Result<MySqlConnection, SourceError> {
        match timeout(self.options.connect_deadline, self.session()).await {
            Ok(opened) => opened.map_err(|trouble| trouble.told(&self.place)),
            Err(Elapsed { .. }) => Err(fault::too_slow(&self.place, self.options.connect_deadline, "being connected to")),
        }
    }

    /// What is known of the place, for messages.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    async fn open(&self) -> Result<Live, Trouble> {
        let mut connection = self.session().await?;
        let schema = schema::look(&mut connection).await?;
        Ok(Live { connection, schema, is_new: true })
    }

    /// Connects, logs in and sets the session up.
    async fn session(&self) -> Result<MySqlConnection, Trouble> {
        let mut connection = MySqlConnection::connect_with(&self.to).await?;
        // A query that we have given up must not wait for a lock for ever on the server's side either.
        let wait = self.options.deadline.as_secs().clamp(1, 3600);
        connection.execute(sqlx::AssertSqlSafe(format!("SET SESSION lock_wait_timeout = {wait}"))).await?;
        // Nor go on working at what nobody waits for: MariaDB counts in seconds, MySQL in milliseconds, old servers do not know it.
        for limit in [format!("max_statement_time = {}", wait + 1), format!("max_execution_time = {}", (wait + 1) * 1_000)] {
            if let Err(error) = connection.execute(sqlx::AssertSqlSafe(format!("SET SESSION {limit}"))).await
                && error.as_database_error().is_none()
            {
                return Err(error.into());
            }
        }
        // Before MySQL 5.6 a session cannot be made read-only; that is a safety net, not a need.
        let read_only = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
        if let Err(error) = connection.execute(read_only).await
            && error.as_database_error().is_none()
        {
            return Err(error.into());
        }
        Ok(connection)
    }
}

/// The URL as the driver wants it, and what may be said of it.
pub(super) fn destination(url: &str) -> Result<(MySqlConnectOptions, Place), SourceError> {
    // What the parser says may repeat parts of the URL, and a password with a stray character may be among them.
    let bad = |advice: &str| SourceError::Denied {
        advice: format!("{advice}; it should read mysql://user:password@host:3306/database, with special characters as %XX"),
        cause: None,
    };
    if !(url.starts_with("mysql://") || url.starts_with("mariadb://")) {
        return Err(bad("its URL does not begin with mysql://"));
    }
    let options: MySqlConnectOptions = url.parse().map_err(|_: sqlx::Error| bad("its URL cannot be understood"))?;
    let options = options.charset("utf8mb4").timezone(Some("+00:00".to_owned())).disable_statement_logging();
    let server = match options.get_socket() {
        Some(path) => path.display().to_string(),
        None => format!("{}:{}", options.get_host(), options.get_port()),
    };
    let place = Place {
        server,
        user: options.get_username().to_owned(),
        database: options.get_database().ok_or_else(|| bad("its URL names no database"))?.to_owned(),
    };
    Ok((options, place))
}
