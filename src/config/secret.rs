//! Passwords, tokens and keys: held so that no log line, error or status page can show them by accident.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use url::Url;

/// The longest secret file that is read, in bytes: a chain of certificates fits.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// A text that is shown as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a secret in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL that may hold a password; it is shown without it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl {
    whole: String,
    shown: String,
}

impl SecretUrl {
    /// From a URL, with its password if it has one.
    pub fn new(url: &Url) -> Self {
        let mut shown = url.clone();
        if url.password().is_some() {
            // Fails only for URLs that cannot have a password.
            let _ = shown.set_password(Some("***"));
        }
        Self { whole: url.to_string(), shown: shown.to_string() }
    }

    /// From a text that cannot hold a password, such as the name of an SQLite file.
    pub fn without_password(text: impl Into<String>) -> Self {
        let whole = text.into();
        Self { shown: whole.clone(), whole }
    }

    /// The URL with its password, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.whole
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, f)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Reads a secret file whole. Only regular files: a pipe or a device could block or never end.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

/// Whether every user of the machine can read the file.
pub(super) fn world_readable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret} {secret:?}"), "*** ***");
        let url = SecretUrl::new(&Url::parse("mysql://chuser:hunter2@localhost/ch").unwrap());
        assert_eq!(format!("{url} {url:?}"), "mysql://chuser:***@localhost/ch \"mysql://chuser:***@localhost/ch\"");
        assert_eq!(url.expose(), "mysql://chuser:hunter2@localhost/ch");
    }

    #[test]
    fn a_device_is_not_read() {
        assert!(read_file(Path::new("/dev/zero")).is_err());
    }
}
