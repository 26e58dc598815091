//! What an error of the database means, and what to do about it.
//!
//! The one rule: an advice says what to do and never holds a password; the server's own words are safe to repeat, the URL is not.

use std::{error::Error, io, time::Duration};

use crate::ports::SourceError;

/// Where the database is, for messages; without secrets.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// `host:port` or the path of a socket.
    pub server: String,
    /// Who we are there.
    pub user: String,
    /// Which database.
    pub database: String,
}

/// Anything that ends a query early.
#[derive(Debug)]
pub(super) enum Trouble {
    /// As the driver says it.
    Sql(sqlx::Error),
    /// As we say it.
    Ours(SourceError),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        Self::Ours(error)
    }
}

impl Trouble {
    /// The same, as capture wants it.
    pub(super) fn told(self, place: &Place) -> SourceError {
        match self {
            Self::Sql(error) => tell(error, place),
            Self::Ours(error) => error,
        }
    }

    /// The server's error number, when it is the server that complains.
    pub(super) fn number(&self) -> Option<u16> {
        match self {
            Self::Sql(error) => number(error),
            Self::Ours(_) => None,
        }
    }
}

/// No answer in time.
pub(super) fn too_slow(place: &Place, deadline: Duration, what: &str) -> SourceError {
    SourceError::Unreachable {
        advice: format!(
            "{} gave no answer within {deadline:?} while {what}; is a table locked, or the machine overloaded? SHOW PROCESSLIST tells",
            place.server
        ),
        cause: None,
    }
}

fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error.as_database_error()?;
    error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>().map(sqlx::mysql::MySqlDatabaseError::number)
}

fn tell(error: sqlx::Error, place: &Place) -> SourceError {
    if let Some(number) = number(&error) {
        let message = error.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
        return refused(number, &message, place, Some(Box::new(error)));
    }
    let advice = match &error {
        sqlx::Error::Io(error) => unreachable_because(error, place),
        sqlx::Error::Tls(_) => format!("no TLS with {}; check ssl-ca, or set ssl-mode=DISABLED for a local server", place.server),
        sqlx::Error::Protocol(text) if text.contains("authentication plugin") => {
            let advice = format!(
                "user '{}' is set to log in by a plugin that packhorse does not speak; \
                 give it a password: ALTER USER ... IDENTIFIED VIA mysql_native_password USING PASSWORD('...')",
                place.user
            );
            return SourceError::Denied { advice, cause: Some(Box::new(error)) };
        }
        sqlx::Error::Protocol(_) => format!("{} does not answer as MySQL does; is the port right?", place.server),
        _ => {
            let advice = format!("the driver says: {error}");
            return SourceError::Query { advice, cause: Some(Box::new(error)) };
        }
    };
    SourceError::Unreachable { advice, cause: Some(Box::new(error)) }
}

fn unreachable_because(error: &io::Error, place: &Place) -> String {
    let server = &place.server;
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("nothing listens at {server}; is the database server running?"),
        io::ErrorKind::NotFound => format!("there is no socket {server}; is the database server running?"),
        io::ErrorKind::PermissionDenied => format!("no right to open the socket {server}"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            format!("{server} closed the connection; was the server restarted?")
        }
        _ => format!("no connection to {server}: {error}"),
    }
}

/// What one of the server's errors means: its number decides. Pure.
fn refused(number: u16, message: &str, place: &Place, cause: Option<Box<dyn Error + Send + Sync>>) -> SourceError {
    let Place { server, user, database } = place;
    match number {
        1045 => SourceError::Denied {
            advice: format!(
                "{message}; check the user and the password, and whether this user may log in from there \
                 (GRANT SELECT ON {database}.* TO 'user'@'host')"
            ),
            cause,
        },
        1698 => SourceError::Denied {
            advice: format!(
                "{message}; this user may log in only through the operating system: \
                 make a user with a password (CREATE USER ... IDENTIFIED BY ...) and GRANT SELECT ON {database}.* to it"
            ),
            cause,
        },
        1044 => SourceError::Denied {
            advice: format!(
                "{message}; either there is no such database, or run as an administrator: GRANT SELECT ON `{database}`.* TO {}",
                account(message, user)
            ),
            cause,
        },
        1142 | 1143 => SourceError::Denied {
            advice: format!(
                "{message}; run as an administrator: GRANT SELECT ON `{database}`.{} TO {}",
                table(message),
                account(message, user)
            ),
            cause,
        },
        // MariaDB's number and MySQL's.
        4151 | 3118 => SourceError::Denied {
            advice: format!("{message}; run as an administrator: ALTER USER {} ACCOUNT UNLOCK", account(message, user)),
            cause,
        },
        1129 | 1130 => SourceError::Denied { advice: format!("{message}; {server} does not accept this host"), cause },
        1227 | 1370 | 1820 | 1862 => SourceError::Denied { advice: format!("{message}; user '{user}' lacks a right"), cause },
        1049 => SourceError::Schema { advice: format!("{message}; check the database name in the url") },
        1146 => SourceError::Schema { advice: format!("{message}; is `{database}` the cogent-house database?") },
        1054 => SourceError::Schema { advice: format!("{message}; the table was changed, or is of an unknown version") },
        1356 => SourceError::Schema { advice: format!("{message}; mend the view") },
        1040 | 1203 | 1226 => SourceError::Unreachable { advice: format!("{server} is full: {message}"), cause },
        1053 | 1077 | 1079 | 1152 | 1159 | 1161 | 1184 | 1927 | 2006 | 2013 | 4031 => {
            SourceError::Unreachable { advice: format!("{server} ended the connection: {message}"), cause }
        }
        1317 => SourceError::Query { advice: format!("{message}: somebody killed it"), cause },
        1969 | 3024 => SourceError::Unreachable { advice: format!("{server} gave no answer in time: {message}"), cause },
        1033..=1035 | 1194 | 1195 | 1712 => SourceError::Query {
            advice: format!("{message}; the table is damaged: REPAIR TABLE, or restore it from a backup"),
            cause,
        },
        1205 => SourceError::Query { advice: format!("{message}; somebody holds a lock: SHOW PROCESSLIST tells who"), cause },
        _ => SourceError::Query { advice: format!("error {number}: {message}"), cause },
    }
}

/// The account in the server's words (`... to user 'x'@'localhost' for ...`), else our own.
fn account(message: &str, user: &str) -> String {
    let named = message.split("user ").nth(1).and_then(|rest| rest.split_whitespace().next());
    named.filter(|named| named.contains('@')).map_or_else(|| format!("'{user}'"), str::to_owned)
}

/// The table in the server's words (`... for table 'x'`, `... for table `db`.`x``), else all of them.
fn table(message: &str) -> String {
    let named =
        message.rsplit("table ").next().filter(|rest| rest.len() < message.len()).and_then(|rest| rest.split('.').next_back());
    let name = named.unwrap_or_default().trim_matches(['\'', '`', ' ']);
    if name.is_empty() { "*".to_owned() } else { format!("`{name}`") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { server: "127.0.0.1:3306".into(), user: "chuser".into(), database: "ch".into() }
    }

    #[test]
    fn a_missing_right_is_told_with_the_grant_that_mends_it() {
        for message in [
            "SELECT command denied to user 'chuser'@'localhost' for table `ch`.`Reading`",
            "SELECT command denied to user 'chuser'@'localhost' for table 'Reading'",
            "SELECT command denied to user 'chuser'@'localhost' for column 'value' in table 'Reading'",
        ] {
            let error = refused(1142, message, &place(), None);
            assert!(matches!(error, SourceError::Denied { .. }), "{error}");
            assert!(error.to_string().ends_with("GRANT SELECT ON `ch`.`Reading` TO 'chuser'@'localhost'"), "{error}");
        }
        let error = refused(1142, "denied", &place(), None).to_string();
        assert!(error.ends_with("GRANT SELECT ON `ch`.* TO 'chuser'"), "{error}");
    }

    #[test]
    fn the_number_decides() {
        let variant = |number| match refused(number, "words", &place(), None) {
            SourceError::Unreachable { .. } => "unreachable",
            SourceError::Denied { .. } => "denied",
            SourceError::Schema { .. } => "schema",
            SourceError::Row { .. } => "row",
            SourceError::Query { .. } => "query",
        };
        for number in [1044, 1045, 1130, 1142, 1143, 1698, 3118, 4151] {
            assert_eq!(variant(number), "denied", "{number}");
        }
        for number in [1049, 1054, 1146] {
            assert_eq!(variant(number), "schema", "{number}");
        }
        for number in [1040, 1053, 1927, 1969, 3024] {
            assert_eq!(variant(number), "unreachable", "{number}");
        }
        for number in [1205, 1213, 1194, 1317, 9999] {
            assert_eq!(variant(number), "query", "{number}");
        }
    }

    #[test]
    fn a_broken_connection_is_unreachable_and_says_why() {
        for (kind, words) in [
            (io::ErrorKind::ConnectionRefused, "is the database server running"),
            (io::ErrorKind::UnexpectedEof, "closed the connection"),
            (io::ErrorKind::NotFound, "no socket"),
            (io::ErrorKind::Other, "no connection"),
        ] {
            let error = tell(sqlx::Error::Io(kind.into()), &place());
            assert!(matches!(error, SourceError::Unreachable { .. }) && error.to_string().contains(words), "{error}");
        }
    }
}
