//! Every key of the configuration: where it stands, what it holds, its default, its meaning.
//!
//! The one rule: a key exists when it stands here. Both stages, the environment's overrides and docs/configuration.md follow this table.

/// A section of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `[gateway]`
    Gateway,
    /// `[source]`
    Source,
    /// `[[destination]]`, once for each destination.
    Destination,
    /// `[status]`
    Status,
    /// `[log]`
    Log,
    /// `[receiver]`
    Receiver,
}

impl Section {
    /// Every section, in the order of the documentation.
    pub const ALL: [Self; 6] = [Self::Gateway, Self::Source, Self::Destination, Self::Status, Self::Log, Self::Receiver];

    /// Its name in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Status => "status",
            Self::Log => "log",
            Self::Receiver => "receiver",
        }
    }
}

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A number with a unit of time.
    Duration,
    /// A number of bytes, with or without a unit.
    Size,
    /// The path of a file or directory.
    Path,
    /// An IP address and a port.
    Address,
    /// A URL. Never quoted: it may hold a password.
    Url,
    /// `beginning`, `now`, or a time.
    Start,
    /// A level of the log.
    Level,
}

impl Kind {
    /// Its name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Bool => "true or false",
            Self::Duration => "duration",
            Self::Size => "size",
            Self::Path => "path",
            Self::Address => "IP address:port",
            Self::Url => "URL",
            Self::Start => "`beginning`, `now` or a time",
            Self::Level => "`error`, `warn`, `info`, `debug` or `trace`",
        }
    }
}

/// What happens when a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// It must be written where its section is used.
    Required,
    /// Nothing: the feature is off.
    Absent,
    /// The host's name.
    HostName,
    /// This text, read as if it were written.
    Text(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Where it stands.
    pub section: Section,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What happens when it is not written.
    pub default: Unwritten,
    /// What it means, for the documentation.
    pub meaning: &'static str,
}

const fn key(section: Section, name: &'static str, kind: Kind, default: Unwritten, meaning: &'static str) -> Key {
    Key { section, name, kind, default, meaning }
}

use Kind::{Address, Bool, Duration, Level, Path, Size, Start, Text, Url};
use Section::{Destination, Gateway, Log, Receiver, Source, Status};
use Unwritten::{Absent, HostName, Required, Text as Is};

/// Every key, in the order of the documentation.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key(Gateway, "id", Text, HostName, "A label that people see. The identity is a random source id kept in `data_dir`."),
    key(Gateway, "data_dir", Path, Is("/var/lib/packhorse"), "Where the outboxes live; one directory for each destination."),

    key(Source, "url", Url, Required, "The local database: `mysql://user@host/database`. The password stands here or in `password_file`."),
    key(Source, "password_file", Path, Absent, "A file that holds the database password alone."),
    key(Source, "poll_interval", Duration, Is("10s"), "How often new rows are looked for (10ms to 1d)."),
    key(Source, "settle", Duration, Is("2s"), "How old a row must be before it is captured, so that slower transactions are not overtaken (0s to 1h)."),
    key(Source, "audit_horizon", Duration, Is("30d"), "How far back late rows are looked for often (1h to 3650d)."),
    key(Source, "audit_interval", Duration, Is("1h"), "How often that whole horizon is audited; the recent past at every poll or so (1s to 30d)."),
    key(Source, "disk_reserve", Size, Is("64MiB"), "Capture pauses when less than this is free on the disk of `data_dir`."),

    key(Destination, "name", Text, Required, "Its name on the command line, and of its directory in `data_dir`: letters, digits, `-`, `_` and `.`, at most 64."),
    key(Destination, "url", Url, Required, "The REST server's base: `https://central.example/rest/`."),
    key(Destination, "enabled", Bool, Is("true"), "`false` leaves the destination alone and keeps its outbox. So does taking it out of the file, until `packhorse queue drop`."),
    key(Destination, "sent_before", Bool, Is("false"), "`true` where another program may have sent rows of this database there: the node states that a new outbox finds are asked for before they are sent."),
    key(Destination, "start", Start, Is("beginning"), "Which rows a new outbox begins with: all, those from now on, or those from a time (UTC)."),
    key(Destination, "token_file", Path, Absent, "A file that holds a bearer token alone."),
    key(Destination, "user", Text, Absent, "The user of HTTP basic authentication; needs `password_file`."),
    key(Destination, "password_file", Path, Absent, "A file that holds the password of `user` alone."),
    key(Destination, "client_cert_file", Path, Absent, "A PEM file with the TLS client certificate; needs `client_key_file`."),
    key(Destination, "client_key_file", Path, Absent, "A PEM file with the private key of `client_cert_file`."),
    key(Destination, "ca_file", Path, Absent, "A PEM file with certificate authorities to trust; default: the system's."),
    key(Destination, "proxy", Url, Absent, "An HTTP proxy: `http://[user:password@]host:port`; without it the one that the environment names."),
    key(Destination, "outbox_max", Size, Is("256MiB"), "Capture pauses when the rows that wait take more than this (from 64KiB)."),
    key(Destination, "backoff_min", Duration, Is("1s"), "The first wait after a failure (1ms to 1d)."),
    key(Destination, "backoff_max", Duration, Is("5min"), "The longest wait between tries (1ms to 1d); not below `backoff_min`. Where nobody answers, it is asked each half minute or so whether somebody does."),
    key(Destination, "request_max", Size, Is("4MiB"), "Upper bound of a request body (1KiB to 1GiB); the size in use adapts below it to link and server."),
    key(Destination, "linger", Duration, Is("10s"), "How long a trickle of rows is gathered before it is sent (0s to 1h)."),
    key(Destination, "pushstatus_interval", Duration, Is("10min"), "How often host name and version are reported (1s to 30d)."),

    key(Status, "listen", Address, Is("127.0.0.1:9130"), "Where the status page, `/metrics`, `/healthz` and `/status.json` are served. Beyond the loopback address it needs `token_file`; without one it answers only to addresses and `localhost`."),
    key(Status, "token_file", Path, Absent, "A file that holds a token alone: whoever asks must show it, as a bearer or as the password in a browser."),
    key(Status, "stall_after", Duration, Is("15min"), "`/healthz` fails when there is work and no progress for so long (1s to 30d). A source that cannot be read counts as that."),
    key(Status, "socket", Path, Is("/run/packhorse/packhorse.sock"), "The Unix socket over which commands reach a running daemon."),

    key(Log, "level", Level, Is("info"), "What is logged; `-v` and `-q` go before it."),
    key(Log, "file", Path, Absent, "The daemon's log file, begun anew at 5 MiB, with five before it kept; without it the log goes to standard error."),

    key(Receiver, "listen", Address, Is("127.0.0.1:6543"), "Where `packhorse receiver` listens; without `tokens_file` on the loopback address only."),
    key(Receiver, "database", Url, Is("sqlite:///var/lib/packhorse/central.db"), "Its database: `sqlite:///path/to/file` or `mysql://user:password@host/database`."),
    key(Receiver, "tokens_file", Path, Absent, "A file with one token for each gateway: a name and a token a line."),
    key(Receiver, "cert_file", Path, Absent, "A PEM file with the receiver's TLS certificate and its chain; needs `key_file`."),
    key(Receiver, "key_file", Path, Absent, "A PEM file with the private key of `cert_file`."),
];

/// The keys of a section.
pub fn of(section: Section) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// The key's row in docs/configuration.md.
pub fn docs_row(key: &Key) -> String {
    let default = match key.default {
        Required => "required".to_owned(),
        Absent => "none".to_owned(),
        HostName => "the host's name".to_owned(),
        Is(text) => format!("`{text}`"),
    };
    format!("| `{}.{}` | {} | {default} | {} |", key.section.name(), key.name, key.kind.name(), key.meaning)
}
