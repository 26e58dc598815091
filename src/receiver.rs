//! The reference receiver: the contract's REST calls over a SQLite file or a MySQL server.
//!
//! ```text
//!  socket ── serve ── routes ──┬── query, catalog ──┐
//!                              └── body, bulk, upsert ── store ── SQLite, MySQL
//! ```
//!
//! The one rule: a 201 means that the rows are on the disk, and any other answer that nothing of the request was stored. Rows are stored
//! by their identity (I6): whatever is sent again changes nothing.
//!
//! The legacy manners answer as the real legacy server does, for tests; `tests/legacy_contract.rs` holds them to its recorded calls.

mod answer;
mod body;
mod bulk;
mod catalog;
mod cell;
mod central;
pub mod clear;
mod gateways;
mod metrics;
mod page;
mod places;
mod query;
mod receipt;
mod refusal;
mod routes;
mod serve;
mod store;
mod tables;
mod take;
mod time;
mod tls;
mod tokens;
mod upsert;

use std::{fmt, io, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use tls::{TlsError, TlsFiles};
pub use tokens::TokensError;

/// Where to listen, what to keep the rows in, how to answer.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen at; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The database: `sqlite:///absolute/path` or `sqlite:relative/path`, created where it is missing; or `mysql://user:password@host/database`,
    /// an empty database at first.
    pub database: String,
    /// How to answer.
    pub manner: Manner,
    /// One token for each gateway: a name and a token a line. Without the file nobody is asked for one.
    pub tokens_file: Option<PathBuf>,
    /// Where the certificate stands; without it there is no TLS.
    pub tls: Option<TlsFiles>,
}

impl Options {
    /// For whoever can reach the address: without tokens and without TLS.
    pub fn open(listen: SocketAddr, database: impl Into<String>, manner: Manner) -> Self {
        Self { listen, database: database.into(), manner, tokens_file: None, tls: None }
    }
}

/// How the receiver answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As packhorse's own receiver.
    #[default]
    Packhorse,
    /// As a legacy server with the newer NodeState table: no id, key (time, nodeId, seq_num). For tests.
    Legacy,
    /// As a legacy server with the older NodeState table: its own id, so that a repeat is one more row. For tests.
    LegacyOldNodeState,
}

impl Manner {
    fn is_legacy(self) -> bool {
        match self {
            Self::Packhorse => false,
            Self::Legacy | Self::LegacyOldNodeState => true,
        }
    }

    fn zone(self) -> time::Zone {
        if self.is_legacy() { time::Zone::Ignored } else { time::Zone::Utc }
    }
}

impl fmt::Display for Manner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Packhorse => "packhorse",
            Self::Legacy => "legacy",
            Self::LegacyOldNodeState => "legacy-old",
        })
    }
}

impl FromStr for Manner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "packhorse" => Ok(Self::Packhorse),
            "legacy" => Ok(Self::Legacy),
            "legacy-old" => Ok(Self::LegacyOldNodeState),
            _ => Err(format!("no manner '{text}': it is one of packhorse, legacy, legacy-old")),
        }
    }
}

/// Why the receiver cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// The database is neither a SQLite file nor a MySQL server.
    #[error(
        "the receiver's database is neither a SQLite file nor a MySQL server: write sqlite:///path/to/central.db or mysql://user@host/database"
    )]
    NotADatabase,
    /// The legacy manners are kept for tests.
    #[error("the legacy manners are for tests, over a SQLite file only")]
    LegacyOnServer,
    /// The server cannot be reached, or does not let us.
    #[error("cannot use the receiver's database {place}: check that the server runs, and the user's password and rights")]
    Server {
        /// Where, without the password.
        place: String,
        /// The cause.
        #[source]
        cause: sqlx::Error,
    },
    /// The server would answer a commit that is not on its disk.
    #[error(
        "{place} has innodb_flush_log_at_trx_commit = {flush}: it answers commits that a power loss takes away again; set it to 1 \
         (SET GLOBAL innodb_flush_log_at_trx_commit = 1, and in the server's configuration)"
    )]
    NotDurable {
        /// Where, without the password.
        place: String,
        /// The value.
        flush: i64,
    },
    /// The server's database is another program's.
    #[error("{place} has tables that are not the receiver's: give it a database of its own, empty at first")]
    Foreign {
        /// Where, without the password.
        place: String,
    },
    /// The database does not open.
    #[error(
        "cannot open the receiver's database '{url}': check that its directory exists and may be written, and that it is SQLite"
    )]
    Database {
        /// As configured.
        url: String,
        /// The cause.
        #[source]
        cause: sqlx::Error,
    },
    /// The database's tables cannot be brought up to date.
    #[error("cannot bring the tables of '{url}' up to date: it may be of a newer packhorse, or of another program")]
    Migrate {
        /// As configured.
        url: String,
        /// The cause.
        #[source]
        cause: sqlx::migrate::MigrateError,
    },
    /// The database was kept in a manner that allows doubles.
    #[error("the database '{url}' was kept in the manner legacy-old, which stores doubles: use that manner or another file")]
    OtherManner {
        /// As configured.
        url: String,
    },
    /// The database cannot be created, or not durably.
    #[error("cannot create '{}': check that its directory exists and may be written", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The tokens file is of no use.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The certificate is of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address cannot be listened at.
    #[error("cannot listen at {listen}: check that the port is free and the address is this machine's")]
    Listen {
        /// As configured.
        listen: SocketAddr,
        /// The cause.
        #[source]
        cause: io::Error,
    },
}

/// A receiver that listens, with its database open.
#[derive(Debug)]
pub struct Receiver {
    listener: TcpListener,
    address: SocketAddr,
    central: Arc<central::Central>,
}

/// Reads tokens and certificate again, while the receiver runs.
#[derive(Clone, Debug)]
pub struct Reload(Arc<central::Central>);

impl Reload {
    /// Reads them. After an error the old ones go on.
    pub fn reload(&self) -> Result<(), ReceiverError> {
        self.0.reload()
    }
}

impl Receiver {
    /// Opens or creates the database, brings its tables up to date, and listens. Requests wait until [`run`](Self::run).
    pub async fn bind(options: Options) -> Result<Self, ReceiverError> {
        let Options { listen, database, manner, tokens_file, tls } = options;
        let tls = tls.map(tls::Tls::open).transpose()?;
        let store = store::Store::open(&database, manner).await?;
        let listener = TcpListener::bind(listen).await.map_err(|cause| ReceiverError::Listen { listen, cause })?;
        let address = listener.local_addr().map_err(|cause| ReceiverError::Listen { listen, cause })?;
        let central = Arc::new(central::Central::new(store, manner, address.to_string(), tokens_file, tls)?);
        Ok(Self { listener, address, central })
    }

    /// For whoever is told that the files have changed.
    pub fn reload(&self) -> Reload {
        Reload(self.central.clone())
    }

    /// The address that it listens at.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`; then open requests are answered, and after at most 5 seconds it is over and the database closed.
    pub async fn run(self, stop: CancellationToken) -> Result<(), ReceiverError> {
        let central = self.central;
        tracing::info!(address = %self.address, manner = %central.manner, tls = central.tls.is_some(), "the receiver listens");
        let router = axum::Router::new().fallback(routes::serve).with_state(central.clone());
        serve::serve(self.listener, router, &central, stop).await;
        if tokio::time::timeout(serve::STOP_MAX, central.store.close()).await.is_err() {
            tracing::warn!("the receiver's database was still busy at the stop; it mends that at the next opening");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manner_is_read_as_it_is_written() {
        for manner in [Manner::Packhorse, Manner::Legacy, Manner::LegacyOldNodeState] {
            assert_eq!(manner.to_string().parse(), Ok(manner));
        }
        assert!("Legacy".parse::<Manner>().is_err());
        assert_eq!(Manner::default(), Manner::Packhorse);
    }
}
