//! Passwords, tokens and keys: held so that no log line, error or status page can show them by accident.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
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

/// The folder of the package whose files systemd hands over to the service, which then need be readable by root alone.
const HANDED_OVER: &str = "/etc/packhorse/secrets";

/// Where a secret file is to be read: systemd's copy of it, if it is one of those that are handed over and there is a copy.
fn handed_over(path: &Path, credentials: Option<PathBuf>) -> PathBuf {
    let copy = || {
        let name = path.strip_prefix(HANDED_OVER).ok()?.to_str()?;
        // As the unit's LoadCredential= calls it.
        Some(credentials?.join(format!("secret_{name}"))).filter(|copy| copy.is_file())
    };
    copy().unwrap_or_else(|| path.to_owned())
}

/// Reads a secret file whole. Only regular files: a pipe or a device could block or never end.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    let path = &handed_over(path, std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from));
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

/// Whether every user of the machine can read the file: they may, and they get to it.
pub(super) fn world_readable(path: &Path) -> bool {
    const OTHERS_READ: u32 = 0o004;
    const OTHERS_ENTER: u32 = 0o001;
    let allows = |path: &Path, right: u32| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & right != 0);
    let Ok(path) = fs::canonicalize(path) else { return false };
    path.is_file() && allows(&path, OTHERS_READ) && path.ancestors().skip(1).all(|folder| allows(folder, OTHERS_ENTER))
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
    fn systemds_copy_of_a_secret_goes_before_the_file_of_the_packages_folder_alone() {
        let copies = tempfile::tempdir().unwrap();
        fs::write(copies.path().join("secret_token"), "from systemd").unwrap();
        let from = |path: &str| handed_over(Path::new(path), Some(copies.path().to_owned()));
        assert_eq!(from("/etc/packhorse/secrets/token"), copies.path().join("secret_token"));
        for other in ["/etc/packhorse/secrets/password", "/srv/token", "secrets/token", "/etc/packhorse/secrets"] {
            assert_eq!(from(other), Path::new(other));
        }
        let file = Path::new("/etc/packhorse/secrets/token");
        assert_eq!(handed_over(file, None), file);
    }

    #[test]
    fn a_device_is_not_read() {
        assert!(read_file(Path::new("/dev/zero")).is_err());
    }
    #[test]
    fn a_file_in_a_folder_that_others_cannot_enter_is_not_theirs_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        fs::write(&file, "hunter2\n").unwrap();
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        for (folder, of_file, readable) in
            [(0o755, 0o644, true), (0o2750, 0o644, false), (0o755, 0o640, false), (0o711, 0o604, true), (0o700, 0o666, false)]
        {
            mode(dir.path(), folder);
            mode(&file, of_file);
            assert_eq!(world_readable(&file), readable, "{folder:o} {of_file:o}");
        }
    }
}
