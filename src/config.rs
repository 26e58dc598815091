//! The configuration: read as it is written, checked into what is meant, refused with every problem at once.
//!
//! Two stages: `as_written` turns the file and the environment into texts that know where they stand; `as_meant` turns these into
//! checked types. What a key is called, holds and defaults to stands once, in [`keys`], for both stages and for the documentation.
//!
//! The one rule: no secret leaves this room as plain text. Passwords and tokens live in [`Secret`] and [`SecretUrl`], and no problem
//! ever quotes a value that may hold one.

mod as_meant;
mod as_written;
pub mod keys;
pub mod legacy;
mod problem;
mod secret;
#[cfg(test)]
mod tests;
pub mod units;

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

pub use as_meant::{Auth, Config, Destination, Gateway, Log, LogLevel, Receiver, Source, Start, Status, database_url, mysql_url};
pub use problem::{Place, Problem};
pub use secret::{Secret, SecretUrl};

/// Where the configuration is looked for when no file is named, in this order.
pub const SEARCH: [&str; 2] = ["/etc/packhorse/packhorse.toml", "config/packhorse.toml"];

/// The longest configuration file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What to do about a file that cannot be read.
fn advice(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied => "; run this as root or as packhorse's user",
        _ => "",
    }
}

/// Why there is no usable configuration. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file was named and none is at the usual places.
    #[error("there is no configuration: looked for {}; write one, or name one with --config FILE", SEARCH.join(" and "))]
    NotFound,
    /// The file cannot be read.
    #[error("cannot read the configuration {}{}", path.display(), advice(cause))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file or the environment says something that cannot be meant.
    #[error("{}", list(origin, problems))]
    Problems {
        /// The file, for people.
        origin: String,
        /// Everything that is wrong, in the order of the file.
        problems: Vec<Problem>,
    },
    /// A command needs a section that is not there.
    #[error("the configuration {origin} has no {section} section; {write}")]
    Missing {
        /// The file, for people.
        origin: String,
        /// The section as it is written.
        section: &'static str,
        /// What to write.
        write: &'static str,
    },
}

/// One problem on the same line, several each on a line of its own.
fn list(origin: &str, problems: &[Problem]) -> String {
    if let [problem] = problems {
        return format!("the configuration {origin} has a problem: {problem}");
    }
    let mut text = format!("the configuration {origin} has {} problems:", problems.len());
    for problem in problems {
        // Writing to a String does not fail.
        let _ = write!(text, "\n  {problem}");
    }
    text
}

impl Config {
    /// Reads the named file, or the first that is there of [`SEARCH`], with the environment's overrides.
    ///
    /// Reads the secret files that it names as well. Changes nothing.
    pub fn load(path: Option<&Path>, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let path = match path {
            Some(path) => path,
            None => SEARCH.iter().map(Path::new).find(|path| path.exists()).ok_or(ConfigError::NotFound)?,
        };
        let text = read(path).map_err(|cause| ConfigError::Unreadable { path: path.to_owned(), cause })?;
        let mut config = Self::from_text(&text, &path.display().to_string(), env)?;
        if !config.passwords.is_empty() && secret::world_readable(path) {
            config.warnings.push(format!(
                "{}: a password stands here and every user of this machine can read the file; chmod o-r it",
                config.passwords.join(", ")
            ));
        }
        Ok(config)
    }

    /// The configuration that a text means; `origin` is what errors call it.
    pub fn from_text(text: &str, origin: &str, env: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let (written, mut problems) = as_written::read(text, env);
        let config = as_meant::check(&written, origin, &host_name(), &mut problems);
        if problems.is_empty() {
            return Ok(config);
        }
        problems.sort_by_key(|problem| problem.place.clone());
        Err(ConfigError::Problems { origin: origin.to_owned(), problems })
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB; this is not a configuration"));
    }
    Ok(text)
}

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "gateway".to_owned() } else { name }
}
