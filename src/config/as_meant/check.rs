//! What each section must fulfil.

use std::{collections::BTreeMap, time::Duration};

use url::Url;

use super::{
    super::{
        as_written::{Written, variable_name},
        keys::Section,
        problem::{Problem, quoted},
        secret::{Secret, SecretUrl},
        units,
    },
    Auth, Config, Destination, Gateway, Log, LogLevel, Receiver, Source, Start, Status,
    reader::{MYSQL_SCHEMES, Notes, Reader, is_sqlite},
};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// What the written configuration means. Whether it may be used is told by the problems alone.
pub(in crate::config) fn check(written: &Written, origin: &str, host_name: &str, problems: &mut Vec<Problem>) -> Config {
    let mut notes = Notes { problems, warnings: Vec::new(), passwords: Vec::new(), secret_files: Vec::new() };
    let gateway = notes.reader(Section::Gateway, written.table(Section::Gateway)).gateway(host_name);
    let source = written.table(Section::Source).map(|table| notes.reader(Section::Source, Some(table)).source());
    let destinations =
        written.destinations().map(|table| notes.reader(Section::Destination, Some(table)).destination()).collect();
    let status = notes.reader(Section::Status, written.table(Section::Status)).status();
    let log = notes.reader(Section::Log, written.table(Section::Log)).log();
    let receiver = written.table(Section::Receiver).map(|table| notes.reader(Section::Receiver, Some(table)).receiver());
    refuse_same_names(written, notes.problems);
    let Notes { warnings, passwords, secret_files, .. } = notes;
    Config { origin: origin.to_owned(), gateway, source, destinations, status, log, receiver, warnings, passwords, secret_files }
}

/// What an empty `[receiver]` means.
pub(super) fn receiver_of_defaults() -> Receiver {
    Notes { problems: &mut Vec::new(), warnings: Vec::new(), passwords: Vec::new(), secret_files: Vec::new() }
        .reader(Section::Receiver, None)
        .receiver()
}

/// Names that differ only in case or punctuation are one name in variables, and look like one to people.
fn refuse_same_names(written: &Written, problems: &mut Vec<Problem>) {
    let mut seen = BTreeMap::new();
    for table in written.destinations() {
        let Some(name) = table.values.get("name") else { continue };
        if let Some(first) = seen.insert(variable_name(&name.text), name.text.clone()) {
            problems.push(Problem {
                place: name.place.clone(),
                key: format!("{}.name", table.path),
                wrong: format!("{} is too much like an earlier destination's name, {}", quoted(&name.text), quoted(&first)),
                write: "give each destination a name of its own; case and punctuation do not count".to_owned(),
            });
        }
    }
}

impl Reader<'_, '_> {
    fn gateway(&mut self, host_name: &str) -> Gateway {
        let id = self.given("id").map_or_else(|| host_name.to_owned(), |value| value.text);
        if id.trim().is_empty() || id.chars().count() > 64 || id.chars().any(char::is_control) {
            self.problem("id", format!("{} is not a label", quoted(&id)), "write 1 to 64 characters on one line");
        }
        Gateway { id, data_dir: self.path("data_dir").unwrap_or_default() }
    }

    fn source(&mut self) -> Source {
        let url = self.url("url", MYSQL_SCHEMES, "write mysql://user@host/database");
        let password = self.secret("password_file");
        if url.as_ref().is_some_and(|url| url.password().is_some()) && password.is_some() {
            self.problem("password_file", "there is a password in url as well", "keep one of the two");
        }
        let url = url.map(|mut url| {
            if url.path().len() < 2 {
                self.problem("url", "no database is named", "write mysql://user@host/database");
            }
            if let Some(password) = password
                && url.set_password(Some(&password.expose().replace('%', "%25"))).is_err()
            {
                self.problem("url", "there is no host that a password could be for", "write mysql://user@host/database");
            }
            SecretUrl::new(&url)
        });
        Source {
            url: url.unwrap_or_else(|| SecretUrl::without_password("")),
            poll_interval: self.duration("poll_interval", 10 * MILLI, DAY),
            settle: self.duration("settle", Duration::ZERO, HOUR),
            audit_horizon: self.duration("audit_horizon", HOUR, 3650 * DAY),
            audit_interval: self.duration("audit_interval", SECOND, 30 * DAY),
            disk_reserve_bytes: self.size("disk_reserve", 0, u64::MAX),
        }
    }

    fn destination(&mut self) -> Destination {
        let name = self.required("name", "write a short name: its directory in data_dir is called so").unwrap_or_default();
        if !name.is_empty() && !is_directory_name(&name) {
            let write = "write 1 to 64 letters, digits, -, _ and ., beginning with a letter or digit: a directory is called so";
            self.problem("name", format!("{} is not safe as a directory's name", quoted(&name)), write);
        } else if ["lock", "source-id"].contains(&name.as_str()) {
            self.problem("name", format!("{} is a file of data_dir", quoted(&name)), "write another name");
        }
        let url = self.destination_url();
        let auth = self.auth();
        let enabled = self.flag("enabled").unwrap_or(true);
        if let Some(url) = &url
            && enabled
            && url.scheme() == "http"
            && !is_loopback(url)
        {
            let what = if auth == Auth::None { "rows travel" } else { "credentials and rows travel" };
            let advice = "and whoever is on the way can read and change them: use https, or a tunnel that begins on this machine";
            self.warn("url", &format!("{what} unencrypted over http, {advice}"));
        }
        let problems = self.notes.problems.len();
        let (backoff_min, backoff_max) = (self.duration("backoff_min", MILLI, DAY), self.duration("backoff_max", MILLI, DAY));
        if problems == self.notes.problems.len() && backoff_min > backoff_max {
            let (min, max) = (units::show_duration(backoff_min), units::show_duration(backoff_max));
            self.problem("backoff_min", format!("{min} is longer than backoff_max, {max}"), "write a shorter one");
        }
        Destination {
            url: url.unwrap_or_else(nowhere),
            enabled,
            start: self.start(),
            sent_before: self.flag("sent_before").unwrap_or(false),
            auth,
            ca_pem: self.pem("ca_file", "CERTIFICATE").map(|pem| pem.expose().to_owned()),
            client_identity_pem: self.client_identity(),
            proxy: self.proxy(),
            outbox_max_bytes: self.size("outbox_max", 64 << 10, u64::MAX),
            backoff_min,
            backoff_max,
            request_max_bytes: self.size("request_max", 1 << 10, 1 << 30),
            linger: self.duration("linger", Duration::ZERO, HOUR),
            pushstatus_interval: self.duration("pushstatus_interval", SECOND, 30 * DAY),
            name,
        }
    }

    fn destination_url(&mut self) -> Option<Url> {
        let mut url = self.url("url", &["https", "http"], "write https://central.example/rest/")?;
        if !url.username().is_empty() || url.password().is_some() {
            self.problem("url", "there are credentials in it", "write user and password_file, or token_file");
        }
        if url.query().is_some() || url.fragment().is_some() {
            self.problem("url", "there is a ? or # in it", "write the base of the server alone: https://central.example/rest/");
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Some(url)
    }

    fn auth(&mut self) -> Auth {
        let token = self.secret("token_file");
        let (user, password) = (self.given("user"), self.secret("password_file"));
        match (self.is_given("token_file"), user, self.is_given("password_file")) {
            (true, None, false) => token.map_or(Auth::None, Auth::Token),
            (false, Some(user), true) => {
                if user.text.is_empty() || user.text.contains(':') || user.text.chars().any(char::is_control) {
                    self.problem("user", "this cannot be a user of HTTP basic authentication", "write a name without a colon");
                }
                password.map_or(Auth::None, |password| Auth::Basic { user: user.text, password })
            }
            (false, None, false) => Auth::None,
            (true, _, _) => {
                self.problem("token_file", "there is a user or a password_file as well", "keep one way to authenticate");
                Auth::None
            }
            (false, Some(_), false) => {
                self.problem("user", "there is no password_file", "write one beside it");
                Auth::None
            }
            (false, None, true) => {
                self.problem("password_file", "there is no user", "write one beside it");
                Auth::None
            }
        }
    }

    fn client_identity(&mut self) -> Option<Secret> {
        let (cert, key) = (self.pem("client_cert_file", "CERTIFICATE"), self.pem("client_key_file", "PRIVATE KEY"));
        match (self.is_given("client_cert_file"), self.is_given("client_key_file")) {
            (true, false) => self.problem("client_cert_file", "there is no client_key_file", "write one beside it"),
            (false, true) => self.problem("client_key_file", "there is no client_cert_file", "write one beside it"),
            (true, true) | (false, false) => {}
        }
        // The file's last line may lack its end.
        Some(Secret::new(format!("{}\n{}", cert?.expose(), key?.expose())))
    }

    fn proxy(&mut self) -> Option<SecretUrl> {
        let write = "write http://host:port";
        if !self.is_given("proxy") {
            return None;
        }
        self.url("proxy", &["http", "https"], write).map(|url| SecretUrl::new(&url))
    }

    fn start(&mut self) -> Start {
        let Some(value) = self.value("start") else { return Start::Beginning };
        match value.text.trim() {
            "beginning" => Start::Beginning,
            "now" => Start::Now,
            // The database's times are UTC, so a Z says nothing new; another zone would.
            time => time.strip_suffix('Z').unwrap_or(time).parse().map_or_else(
                |_| {
                    let write = "write \"beginning\", \"now\", or a time in UTC such as \"2024-01-31T00:00:00\"";
                    self.problem("start", format!("{} is not a start", quoted(&value.text)), write);
                    Start::Beginning
                },
                Start::At,
            ),
        }
    }

    fn status(&mut self) -> Status {
        let (listen, token) = (self.address("listen"), self.secret("token_file"));
        if !listen.ip().is_loopback() && !self.is_given("token_file") {
            let wrong = format!("{listen} is not a loopback address, and without a token anybody could look");
            self.problem("listen", wrong, "write token_file, or listen on 127.0.0.1");
        }
        Status {
            listen,
            token,
            stall_after: self.duration("stall_after", SECOND, 30 * DAY),
            socket: self.path("socket").unwrap_or_default(),
        }
    }

    fn log(&mut self) -> Log {
        let text = self.value("level").map_or_else(String::new, |value| value.text);
        let level = LogLevel::ALL.into_iter().find(|level| level.name() == text).unwrap_or_else(|| {
            let known = LogLevel::ALL.map(LogLevel::name).join(", ");
            self.problem("level", format!("{} is not a level", quoted(&text)), format!("write one of {known}"));
            LogLevel::Info
        });
        Log { level, file: self.path("file") }
    }

    fn receiver(&mut self) -> Receiver {
        let tls = match (self.path("cert_file"), self.path("key_file")) {
            (Some(cert), Some(key)) => {
                self.check_secret_file("key_file", &key);
                Some((cert, key))
            }
            (None, None) => None,
            (Some(_), None) => {
                self.problem("cert_file", "there is no key for it".to_owned(), "write key_file as well");
                None
            }
            (None, Some(_)) => {
                self.problem("key_file", "there is no certificate for it".to_owned(), "write cert_file as well");
                None
            }
        };
        let tokens_file = self.path("tokens_file");
        let receiver = Receiver { listen: self.address("listen"), database: self.database(), tokens_file, tls };
        if !receiver.listen.ip().is_loopback() && receiver.tls.is_none() && receiver.tokens_file.is_some() {
            self.warn(
                "listen",
                "tokens travel unencrypted: write cert_file and key_file, unless a proxy on this machine brings TLS",
            );
        }
        if let Some(path) = &receiver.tokens_file {
            self.check_secret_file("tokens_file", path);
        }
        if let Some(wrong) = receiver.open_to_all() {
            self.problem("listen", wrong, "write tokens_file, or listen on 127.0.0.1");
        }
        receiver
    }

    fn database(&mut self) -> SecretUrl {
        let nothing = SecretUrl::without_password("");
        let Some(value) = self.value("database") else { return nothing };
        if is_sqlite(&value.text) {
            return SecretUrl::without_password(value.text);
        }
        let write = "write sqlite:///path/to/file or mysql://user:password@host/database";
        self.url("database", MYSQL_SCHEMES, write).map_or(nothing, |url| SecretUrl::new(&url))
    }
}

/// Stands in for a URL that has a problem; never handed out.
fn nowhere() -> Url {
    Url::parse("http://localhost/").expect("this constant is a URL")
}

fn is_directory_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}
