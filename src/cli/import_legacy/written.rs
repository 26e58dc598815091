//! The packhorse.toml that an old configuration becomes. Pure.
//!
//! The one rule: every value says where it was taken from, and no secret is in the text.

use std::{
    fmt::Write as _,
    path::{self, Path, PathBuf},
    time::Duration,
};

use crate::{
    cli::CliError,
    config::{
        legacy::{Legacy, LegacyLocation},
        units,
    },
};

/// Where files stand when nobody says.
const HOME: &str = "/etc/packhorse";
const PASSWORD_FILE: &str = "db-password";
const POLL_MIN: Duration = Duration::from_millis(10);
const POLL_MAX: Duration = Duration::from_hours(24);

/// What is going to be written.
pub(super) struct Written<'a> {
    conf: String,
    old: &'a Legacy,
    /// Where the files of secrets stand.
    home: PathBuf,
    start: &'a str,
    data_dir: Option<PathBuf>,
}

impl<'a> Written<'a> {
    pub(super) fn new(
        conf: &Path,
        old: &'a Legacy,
        output: Option<&Path>,
        start: &'a str,
        data_dir: Option<&Path>,
    ) -> Result<Self, CliError> {
        // Relative paths would count from wherever packhorse is started.
        let absolute = |path: &Path| {
            path::absolute(path).map_err(|cause| CliError::Failed {
                what: format!("cannot tell where {} is", path.display()),
                cause: Some(cause.into()),
            })
        };
        let home = match output {
            Some(output) => absolute(output)?.parent().map_or_else(PathBuf::new, Path::to_owned),
            None => PathBuf::from(HOME),
        };
        let conf = absolute(conf)?.display().to_string();
        Ok(Self { conf, old, home, start, data_dir: data_dir.map(absolute).transpose()? })
    }

    /// Every file with its content and mode, the configuration last.
    pub(super) fn files(&self, output: &Path) -> Vec<(PathBuf, String, u32)> {
        let mut files = Vec::new();
        if let Some(password) = &self.old.source.password {
            files.push((self.home.join(PASSWORD_FILE), format!("{}\n", password.expose()), 0o600));
        }
        for location in &self.old.locations {
            if let Some((_, password)) = &location.login {
                files.push((self.login_file(location), format!("{}\n", password.expose()), 0o600));
            }
        }
        files.push((output.to_owned(), self.text(), 0o644));
        files
    }

    fn login_file(&self, location: &LegacyLocation) -> PathBuf {
        self.home.join(format!("{}-password", location.name))
    }

    /// The configuration.
    pub(super) fn text(&self) -> String {
        self.render(true)
    }

    /// The same without the keys that name files of secrets, which are not there yet.
    pub(super) fn without_secrets(&self) -> String {
        self.render(false)
    }

    fn render(&self, secrets: bool) -> String {
        let mut text = Lines::default();
        text.comment(&format!("Made by packhorse import-legacy from {}.", self.conf));
        text.comment("Every key with its default stands in docs/configuration.md; `packhorse check` looks at all of it.");
        if let Some(limit) = &self.old.pushlimit {
            text.comment(&format!("pushlimit ({limit}) is not taken over: packhorse finds the size of its requests itself."));
        }
        text.section("[gateway]");
        text.comment("id is the host's name, as the old script reported it.");
        if let Some(data_dir) = &self.data_dir {
            text.key("data_dir", &quoted(&data_dir.to_string_lossy()), "");
        }
        self.source(&mut text, secrets);
        for location in &self.old.locations {
            self.destination(&mut text, location, secrets);
        }
        text.0
    }

    fn source(&self, text: &mut Lines, secrets: bool) {
        let source = &self.old.source;
        text.section("[source]");
        text.key("url", &quoted(source.url.as_str()), &format!("localurl, line {}", source.line));
        if source.was_socket {
            text.comment("The old driver took localhost for the server's Unix socket; where TCP is off, add ?socket=/run/mysqld/mysqld.sock");
        }
        if secrets && source.password.is_some() {
            let file = self.home.join(PASSWORD_FILE);
            text.key("password_file", &quoted(&file.to_string_lossy()), "holds the password of localurl alone, chmod 600");
        }
        if let Some(minutes) = self.old.synctime_minutes {
            let wanted = Duration::try_from_secs_f64(minutes * 60.0).unwrap_or(POLL_MAX);
            let interval = units::show_duration(wanted.clamp(POLL_MIN, POLL_MAX));
            text.key(
                "poll_interval",
                &quoted(&interval),
                &format!("synctime, {minutes} minutes; it may be shorter: a look costs little"),
            );
        }
    }

    fn destination(&self, text: &mut Lines, location: &LegacyLocation, secrets: bool) {
        text.section("[[destination]]");
        text.key("name", &quoted(&location.name), &format!("[locations], line {}: {:?}", location.line, location.old_name));
        text.key("url", &quoted(location.url.as_str()), &format!("resturl, line {}", location.url_line));
        text.key("enabled", if location.enabled { "true" } else { "false" }, "its flag in [locations]");
        if secrets && let Some((user, _)) = &location.login {
            text.key("user", &quoted(user), "stood in resturl");
            let file = self.login_file(location);
            text.key("password_file", &quoted(&file.to_string_lossy()), "holds the password of resturl alone, chmod 600");
        }
        let why = match self.start {
            "beginning" => "the old script lost rows in the middle: only from the beginning is none missing",
            _ => "as import-legacy was told; what is missing before stays so",
        };
        text.key("start", &quoted(self.start), why);
        text.key("sent_before", "true", "the old script has sent most of them: what is there is asked for before it is sent");
    }
}

/// A text in the making.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn section(&mut self, head: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "\n{head}");
    }

    fn key(&mut self, key: &str, value: &str, comment: &str) {
        let line = format!("{key} = {value}");
        let _ = match comment {
            "" => writeln!(self.0, "{line}"),
            _ => writeln!(self.0, "{line:<50} # {}", one_line(comment)),
        };
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.0, "# {}", one_line(text));
    }
}

/// A comment ends with its line, and TOML allows no control characters in it.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A TOML string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::{Auth, Config, Start, legacy::conf_from_text};

    const OLD: &str = "[general]\nlocalurl = mysql+mysqldb://ch:p%41\"ss@h:3307/ch?charset=utf8\nsynctime = 10\npushlimit = 500\n\
                       [locations]\nInner = 1\ncogentee = 0\n[Inner]\nresturl = http://u:hush@127.0.0.1:6543/rest\n\
                       [cogentee]\nresturl = https://central.example/rest/\n";

    /// Writes the files as the command would, and loads them.
    fn loaded(old: &str, start: &str) -> (tempfile::TempDir, String, Config) {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("packhorse.toml");
        let old = conf_from_text(old, "old").unwrap();
        let written = Written::new(Path::new("/x\ny"), &old, Some(&output), start, Some(Path::new("/d\"\\\u{7f}"))).unwrap();
        Config::from_text(&written.without_secrets(), "new", []).unwrap();
        for (path, text, mode) in written.files(&output) {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let config = Config::load(Some(&output), []).unwrap();
        let text = std::fs::read_to_string(output).unwrap();
        (dir, text, config)
    }

    #[test]
    fn what_is_written_loads_and_means_what_the_old_file_meant() {
        let (_dir, text, config) = loaded(OLD, "beginning");
        let source = config.need_source().unwrap();
        assert_eq!(source.url.expose(), "mysql://ch:pA%22ss@h:3307/ch");
        assert_eq!(source.poll_interval, Duration::from_mins(10));
        assert_eq!(config.gateway.data_dir, Path::new("/d\"\\\u{7f}"));
        let [inner, cogentee] = config.need_destinations().unwrap() else { panic!("two destinations in {text}") };
        assert_eq!((inner.name.as_str(), inner.url.as_str(), inner.enabled), ("Inner", "http://127.0.0.1:6543/rest/", true));
        assert!(matches!(&inner.auth, Auth::Basic { user, password } if user == "u" && password.expose() == "hush"));
        assert_eq!((cogentee.name.as_str(), cogentee.enabled, cogentee.start), ("cogentee", false, Start::Beginning));
        assert!(config.warnings.iter().all(|warning| warning.contains("http:")), "{:?}", config.warnings);
        for told in ["localurl, line 2", "synctime, 10 minutes", "pushlimit (500)", "resturl, line 9", "line 7: \"cogentee\""] {
            assert!(text.contains(told), "{told} in\n{text}");
        }
        assert!(!text.contains("hush") && !text.contains("pA") && !text.contains("p%41"), "{text}");
    }

    #[test]
    fn another_start_is_written_as_it_was_told() {
        let (_dir, text, config) = loaded(OLD, "2015-08-01T00:00:00");
        assert!(matches!(config.need_destinations().unwrap()[0].start, Start::At(_)), "{text}");
    }

    #[test]
    fn a_password_with_a_percent_sign_reaches_the_driver_as_it_is() {
        let (_dir, _, config) = loaded(&OLD.replace("p%41\"ss", "50%25%41"), "now");
        assert_eq!(config.need_source().unwrap().url.expose(), "mysql://ch:50%25A@h:3307/ch");
        let (_dir, _, config) = loaded(&OLD.replace("p%41\"ss", "50%2541"), "now");
        assert_eq!(config.need_source().unwrap().url.expose(), "mysql://ch:50%2541@h:3307/ch");
    }
}
