//! Reading a section's keys by their kind; what cannot be read is noted with its place.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use super::super::{
    as_written::{Table, Value},
    keys::{self, Section},
    problem::{Place, Problem, quoted},
    secret::{self, Secret, SecretUrl},
    units,
};

pub(super) const MYSQL_SCHEMES: &[&str] = &["mysql", "mariadb"];

/// What the checks have to say.
pub(super) struct Notes<'p> {
    pub(super) problems: &'p mut Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) passwords: Vec<String>,
    pub(super) secret_files: Vec<(String, PathBuf)>,
}

impl<'p> Notes<'p> {
    pub(super) fn reader<'a>(&'a mut self, section: Section, table: Option<&'a Table>) -> Reader<'a, 'p> {
        Reader { section, table, notes: self }
    }
}

/// Reads one section; with no table everything is the default.
pub(super) struct Reader<'a, 'p> {
    pub(super) section: Section,
    pub(super) table: Option<&'a Table>,
    pub(super) notes: &'a mut Notes<'p>,
}

impl Reader<'_, '_> {
    pub(super) fn given(&self, key: &str) -> Option<Value> {
        self.table.and_then(|table| table.values.get(key)).cloned()
    }

    pub(super) fn is_given(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.values.contains_key(key))
    }

    /// What was given, or the default; `None` for a key without either.
    pub(super) fn value(&self, key: &str) -> Option<Value> {
        self.given(key).or_else(|| match keys::of(self.section).find(|known| known.name == key)?.default {
            keys::Unwritten::Text(text) => Some(Value { text: text.to_owned(), place: Place::Nowhere }),
            keys::Unwritten::Required | keys::Unwritten::Absent | keys::Unwritten::HostName => None,
        })
    }

    pub(super) fn key_path(&self, key: &str) -> String {
        self.table.map_or_else(|| format!("{}.{key}", self.section.name()), |table| format!("{}.{key}", table.path))
    }

    /// Notes a problem of a key, at the key's place or else at its section's.
    pub(super) fn problem(&mut self, key: &str, wrong: impl Into<String>, write: impl Into<String>) {
        let place = self.given(key).map(|value| value.place).or_else(|| self.table.map(|table| table.place.clone()));
        let key = self.key_path(key);
        let place = place.unwrap_or(Place::Nowhere);
        self.notes.problems.push(Problem { place, key, wrong: wrong.into(), write: write.into() });
    }

    pub(super) fn warn(&mut self, key: &str, text: &str) {
        let warning = format!("{}: {text}", self.key_path(key));
        self.notes.warnings.push(warning);
    }

    pub(super) fn required(&mut self, key: &str, write: &str) -> Option<String> {
        let text = self.given(key).map(|value| value.text).filter(|text| !text.trim().is_empty());
        // A value of another type has its own problem already.
        let told = self.notes.problems.iter().any(|problem| problem.key == self.key_path(key));
        if text.is_none() && !told {
            self.problem(key, "it is missing", write);
        }
        text
    }

    pub(super) fn duration(&mut self, key: &str, min: Duration, max: Duration) -> Duration {
        let Some(value) = self.value(key) else { return min };
        match units::duration(&value.text) {
            Ok(duration) if duration >= min && duration <= max => duration,
            Ok(_) => {
                let write = format!("write {} to {}", units::show_duration(min), units::show_duration(max));
                self.problem(key, format!("{} is out of bounds", quoted(&value.text)), write);
                min
            }
            Err(_) => {
                let write = "write a number with a unit, such as \"250ms\", \"10s\", \"5min\", \"1h\" or \"30d\"";
                self.problem(key, format!("{} is not a duration", quoted(&value.text)), write);
                min
            }
        }
    }

    pub(super) fn size(&mut self, key: &str, min: u64, max: u64) -> u64 {
        let Some(value) = self.value(key) else { return min };
        match units::size_bytes(&value.text) {
            Ok(bytes) if bytes >= min && bytes <= max => bytes,
            Ok(_) => {
                let write = format!("write {} to {}", units::show_bytes(min), units::show_bytes(max));
                self.problem(key, format!("{} is out of bounds", quoted(&value.text)), write);
                min
            }
            Err(_) => {
                let write = "write a number with a unit, such as \"512KiB\", \"64MiB\" or \"1GiB\", or plain bytes";
                self.problem(key, format!("{} is not a size", quoted(&value.text)), write);
                min
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.value(key)?.text.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            text => {
                self.problem(key, format!("{} is neither true nor false", quoted(text)), "write true or false");
                None
            }
        }
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let value = self.value(key)?;
        if value.text.is_empty() || value.text.contains('\0') {
            self.problem(key, format!("{} is not a path", quoted(&value.text)), "write the path of a file");
            return None;
        }
        Some(PathBuf::from(value.text))
    }

    pub(super) fn address(&mut self, key: &str) -> SocketAddr {
        let fallback = SocketAddr::from(([127, 0, 0, 1], 0));
        let Some(value) = self.value(key) else { return fallback };
        value.text.trim().parse().unwrap_or_else(|_| {
            let write = "write an IP address and a port, such as \"127.0.0.1:9130\" or \"[::1]:9130\"";
            self.problem(key, format!("{} is not an address", quoted(&value.text)), write);
            fallback
        })
    }

    /// A URL with a host, of one of the schemes. It is never quoted.
    pub(super) fn url(&mut self, key: &str, schemes: &[&str], write: &str) -> Option<Url> {
        let text = self.value(key).map(|value| value.text);
        let text = match text {
            Some(text) if !text.trim().is_empty() => text,
            Some(_) | None => self.required(key, write)?,
        };
        match parse_url(&text, schemes) {
            Ok(url) => {
                let in_file = self.given(key).is_some_and(|value| matches!(value.place, Place::Line(_)));
                if in_file && url.password().is_some() {
                    let path = self.key_path(key);
                    self.notes.passwords.push(path);
                }
                Some(url)
            }
            Err(wrong) => {
                self.problem(key, wrong, write);
                None
            }
        }
    }

    /// The content of a secret file: one line, without its end.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let text = self.secret_file(key)?;
        let line = text.trim_end_matches(['\r', '\n']);
        if line.is_empty() || line.chars().any(char::is_control) {
            self.problem(key, "the file does not hold one line", "write the secret alone into it");
            return None;
        }
        Some(Secret::new(line))
    }

    pub(super) fn pem(&mut self, key: &str, label: &str) -> Option<Secret> {
        let text = self.secret_file(key)?;
        let begins = text.lines().any(|line| line.starts_with("-----BEGIN ") && line.contains(label));
        if !begins {
            self.problem(key, format!("there is no {label} in the file"), format!("it is PEM: -----BEGIN {label}-----"));
            return None;
        }
        Some(Secret::new(text))
    }

    pub(super) fn secret_file(&mut self, key: &str) -> Option<String> {
        self.given(key)?;
        let path = self.path(key)?;
        match secret::read_file(&path) {
            Ok(text) => {
                // Certificates are public.
                if !matches!(key, "ca_file" | "client_cert_file") {
                    self.note_secret_file(key, &path);
                }
                Some(text)
            }
            Err(error) => {
                self.unreadable(key, &path, &error);
                None
            }
        }
    }

    pub(super) fn check_secret_file(&mut self, key: &str, path: &Path) {
        match secret::read_file(path) {
            Ok(_) => self.note_secret_file(key, path),
            Err(error) => self.unreadable(key, path, &error),
        }
    }

    pub(super) fn unreadable(&mut self, key: &str, path: &Path, error: &std::io::Error) {
        // Somebody may have written the secret itself where its file belongs: only what is certainly a path is quoted.
        let shown = if path.is_absolute() { quoted(&path.to_string_lossy()) } else { "the file".to_owned() };
        self.problem(key, format!("cannot read {shown} ({error})"), "write the path of a file that this user can read");
    }

    pub(super) fn note_secret_file(&mut self, key: &str, path: &Path) {
        self.notes.secret_files.push((self.key_path(key), path.to_owned()));
        if secret::world_readable(path) {
            self.warn(key, "every user of this machine can read the file; chmod o-r it");
        }
    }
}

/// Reads a MySQL URL; the error says what is wrong and never quotes it.
pub fn mysql_url(text: &str) -> Result<SecretUrl, String> {
    parse_url(text, MYSQL_SCHEMES).map(|url| SecretUrl::new(&url))
}

/// Reads the URL of a receiver's database, MySQL or SQLite; the error says what is wrong and never quotes it.
pub fn database_url(text: &str) -> Result<SecretUrl, String> {
    if is_sqlite(text) { Ok(SecretUrl::without_password(text)) } else { mysql_url(text) }
}

/// Such names are read by the driver, by a rule of its own; there is no place for a password in them.
pub(super) fn is_sqlite(text: &str) -> bool {
    text.strip_prefix("sqlite:").is_some_and(|rest| !rest.trim_start_matches('/').is_empty())
}

fn parse_url(text: &str, schemes: &[&str]) -> Result<Url, String> {
    match Url::parse(text.trim()) {
        Err(error) => Err(format!("this is not a URL ({error})")),
        Ok(url) if !schemes.contains(&url.scheme()) => Err(format!("this does not begin with {}://", schemes[0])),
        Ok(url) if url.host_str().is_none_or(str::is_empty) => Err("no host is named".to_owned()),
        Ok(url) => Ok(url),
    }
}
