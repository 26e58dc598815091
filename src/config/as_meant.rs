//! The second stage: checked types. What stands here can be used without a further look.
//!
//! The one rule: no check stops another. Each problem is noted with its place and the default goes on in its stead; a configuration
//! with problems is never handed out.

mod check;
mod reader;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use url::Url;

pub(super) use check::check;
pub use reader::{database_url, mysql_url};

use super::{
    ConfigError,
    secret::{Secret, SecretUrl},
};
use crate::domain::Micros;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What errors call it: the file.
    pub origin: String,
    /// Who we are and where we keep things.
    pub gateway: Gateway,
    /// The local database; see [`Config::need_source`].
    pub source: Option<Source>,
    /// The destinations in the order of the file; see [`Config::need_destinations`].
    pub destinations: Vec<Destination>,
    /// The status page and socket.
    pub status: Status,
    /// The log.
    pub log: Log,
    /// The reference receiver, where the file has one; see [`Config::need_receiver`].
    pub receiver: Option<Receiver>,
    /// What works but should be looked at, for people; without secrets.
    pub warnings: Vec<String>,
    /// The keys of URLs in the file that hold a password.
    pub(super) passwords: Vec<String>,
    /// The files that hold secrets, each with the key that names it.
    pub secret_files: Vec<(String, PathBuf)>,
}

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// A label that people see; not an identity.
    pub id: String,
    /// Where the outboxes live.
    pub data_dir: PathBuf,
}

/// `[source]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The database, with its password.
    pub url: SecretUrl,
    /// How often new rows are looked for.
    pub poll_interval: Duration,
    /// How old a row must be before it is captured.
    pub settle: Duration,
    /// How far back late rows are looked for often.
    pub audit_horizon: Duration,
    /// How often that whole horizon is audited.
    pub audit_interval: Duration,
    /// Capture pauses when less is free on the disk of the data directory.
    pub disk_reserve_bytes: u64,
}

/// `[[destination]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its name; safe as a directory's.
    pub name: String,
    /// The REST server's base; ends in a slash, holds no password.
    pub url: Url,
    /// Whether it is served.
    pub enabled: bool,
    /// Which rows a new outbox begins with.
    pub start: Start,
    /// Another program may have sent rows of the source there before the outbox was new.
    pub sent_before: bool,
    /// How we show who we are.
    pub auth: Auth,
    /// Certificate authorities to trust instead of the system's, PEM.
    pub ca_pem: Option<String>,
    /// The TLS client certificate and then its key, PEM.
    pub client_identity_pem: Option<Secret>,
    /// The HTTP proxy, with its password.
    pub proxy: Option<SecretUrl>,
    /// Capture pauses when the rows that wait take more.
    pub outbox_max_bytes: u64,
    /// The first wait after a failure.
    pub backoff_min: Duration,
    /// The longest wait between tries.
    pub backoff_max: Duration,
    /// Upper bound of a request body.
    pub request_max_bytes: u64,
    /// How long a trickle is gathered.
    pub linger: Duration,
    /// How often host name and version are reported.
    pub pushstatus_interval: Duration,
}

/// Which rows a new outbox begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All that are there.
    Beginning,
    /// Those that come from now on.
    Now,
    /// Those from a time on, UTC.
    At(Micros),
}

/// How we show a destination who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Not at all, or by the client certificate alone.
    None,
    /// By a bearer token.
    Token(Secret),
    /// By HTTP basic authentication.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
}

/// `[status]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Where the status page is served.
    pub listen: SocketAddr,
    /// What whoever asks there must show.
    pub token: Option<Secret>,
    /// Work without progress for so long is unhealthy.
    pub stall_after: Duration,
    /// The Unix socket of the daemon.
    pub socket: PathBuf,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged.
    pub level: LogLevel,
    /// The log file; standard error without one.
    pub file: Option<PathBuf>,
}

/// A level of the log, from the quietest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// A human is needed.
    Error,
    /// It recovers alone.
    Warn,
    /// Life cycle and phase changes.
    Info,
    /// Each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// Every level, from the quietest.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `[receiver]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its database: `sqlite:` or `mysql:`.
    pub database: SecretUrl,
    /// One token for each gateway; without it only the loopback address is served.
    pub tokens_file: Option<PathBuf>,
    /// The TLS certificate and its key.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Receiver {
    /// Why this receiver must not listen there, if it must not: anybody could write to it.
    pub fn open_to_all(&self) -> Option<String> {
        let open = self.tokens_file.is_none() && !self.listen.ip().is_loopback();
        open.then(|| format!("{} is not a loopback address, and without tokens anybody could write", self.listen))
    }
}

impl Config {
    /// The source, or what is missing.
    pub fn need_source(&self) -> Result<&Source, ConfigError> {
        let write = "write it, with url = \"mysql://user@localhost/database\"";
        self.source.as_ref().ok_or_else(|| self.missing("[source]", write))
    }

    /// The destinations, at least one, disabled ones among them; or what is missing.
    pub fn need_destinations(&self) -> Result<&[Destination], ConfigError> {
        let write = "write one, with a name and url = \"https://central.example/rest/\"";
        if self.destinations.is_empty() { Err(self.missing("[[destination]]", write)) } else { Ok(&self.destinations) }
    }

    /// The receiver, or what is missing.
    pub fn need_receiver(&self) -> Result<&Receiver, ConfigError> {
        let write = "write it; it may be empty: its keys have defaults";
        self.receiver.as_ref().ok_or_else(|| self.missing("[receiver]", write))
    }

    /// The receiver as an empty section means it: for a `packhorse receiver` that is told everything by flags.
    pub fn default_receiver() -> Receiver {
        check::receiver_of_defaults()
    }

    fn missing(&self, section: &'static str, write: &'static str) -> ConfigError {
        ConfigError::Missing { origin: self.origin.clone(), section, write }
    }
}
