//! The files of the old push script: `synchronise.conf`, and the `*_map.conf` in which it kept its mappings.
//!
//! The one rule: all problems of a file come at once with their lines, and nothing that was understood otherwise than the old script
//! understood it goes untold. A problem or note never quotes a URL: there may be a password in it.

mod conf;
mod ini;
mod map;
#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use url::Url;

pub use self::map::{LegacyMap, MapSection};
use super::{ConfigError, Problem, Secret};

/// The longest file that is read, in bytes: a map of a thousand houses has a tenth of it.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a `synchronise.conf` means.
#[derive(Clone, Debug)]
pub struct Legacy {
    /// The local database.
    pub source: LegacySource,
    /// Minutes between two runs, where a usable number was given.
    pub synctime_minutes: Option<f64>,
    /// Rows in a request, as it was written; nothing needs it any more.
    pub pushlimit: Option<String>,
    /// The servers, in the order of `[locations]`.
    pub locations: Vec<LegacyLocation>,
    /// What an operator should know of the reading.
    pub notes: Vec<String>,
}

/// The local database as `localurl` gave it.
#[derive(Clone, Debug)]
pub struct LegacySource {
    /// The line of `localurl`.
    pub line: usize,
    /// Without its password.
    pub url: Url,
    /// Decoded.
    pub password: Option<Secret>,
    /// Whether the old driver reached it over a Unix socket, which a URL with `localhost` meant to it.
    pub was_socket: bool,
    /// What the file of its mappings is called.
    pub map_name: String,
}

/// A server of `[locations]`.
#[derive(Clone, Debug)]
pub struct LegacyLocation {
    /// Its line in `[locations]`.
    pub line: usize,
    /// As it was called there.
    pub old_name: String,
    /// Its name from now on: safe as a directory's, unlike every other.
    pub name: String,
    /// Its flag.
    pub enabled: bool,
    /// The line of its `resturl`.
    pub url_line: usize,
    /// With its last slash, without credentials.
    pub url: Url,
    /// What stood before the `@`, decoded.
    pub login: Option<(String, Secret)>,
}

/// Reads a `synchronise.conf`.
pub fn load_conf(path: &Path) -> Result<Legacy, ConfigError> {
    let (text, is_latin1) = text_of(path)?;
    let mut legacy = conf_from_text(&text, &path.display().to_string())?;
    if is_latin1 {
        legacy.notes.push("it is not UTF-8: it was read as Latin-1".to_owned());
    }
    Ok(legacy)
}

/// What a text means; `origin` is what errors call it.
pub fn conf_from_text(text: &str, origin: &str) -> Result<Legacy, ConfigError> {
    let mut problems = Vec::new();
    let read = conf::read(&ini::parse(text, &mut problems), &mut problems);
    match read {
        Some(legacy) if problems.is_empty() => Ok(legacy),
        Some(_) | None => Err(refused(origin, problems)),
    }
}

/// Reads a `*_map.conf`.
pub fn load_map(path: &Path) -> Result<LegacyMap, ConfigError> {
    let (text, _) = text_of(path)?;
    map_from_text(&text, &path.display().to_string())
}

/// What a text means; lines that mean nothing are among its notes, because the rest is still of use.
pub fn map_from_text(text: &str, origin: &str) -> Result<LegacyMap, ConfigError> {
    let mut problems = Vec::new();
    let root = ini::parse(text, &mut problems);
    if root.sections.is_empty() {
        problems.push(Problem {
            place: super::Place::Nowhere,
            key: String::new(),
            wrong: "there is no section in it".to_owned(),
            write: "a map has a section [resturl] for each server, with [[house]], [[room]] and so on below it".to_owned(),
        });
        return Err(refused(origin, problems));
    }
    Ok(map::read(&root, problems))
}

fn refused(origin: &str, mut problems: Vec<Problem>) -> ConfigError {
    problems.sort_by_key(|problem| problem.place.clone());
    ConfigError::Problems { origin: origin.to_owned(), problems }
}

fn text_of(path: &Path) -> Result<(String, bool), ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
    let bytes = read(path).map_err(unreadable)?;
    ini::decode(&bytes).map_err(|wrong| unreadable(io::Error::other(wrong)))
}

/// Only regular files: a pipe or a device could block or never end.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let meta = std::fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !meta.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 4 MiB; this is no file of the old script"));
    }
    Ok(bytes)
}

/// A server's address as both files name it: without credentials, with its last slash.
fn same_url(text: &str) -> String {
    let Ok(mut url) = Url::parse(text.trim()) else { return text.trim().to_owned() };
    // Fails only for URLs without a host, which have no credentials.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url.to_string()
}

/// A text without its `%XX`.
fn percent_decoded(text: &str) -> String {
    let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    let (bytes, mut decoded, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        if let (b'%', Some(high), Some(low)) = (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            decoded.push((high * 16 + low) as u8);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}
