//! What stands in a `synchronise.conf`, checked.

use std::collections::BTreeSet;

use url::Url;

use super::{
    super::{
        as_written::variable_name,
        problem::{Place, Problem, quoted},
        secret::Secret,
    },
    Legacy, LegacyLocation, LegacySource,
    ini::{self, Entry, Section},
    percent_decoded, same_url,
};

/// Keys that the old script knew, in this version of it or an earlier one, and that nothing needs any more.
const FORGOTTEN: [&str; 7] = ["url", "dbstring", "lastupdate", "sshuser", "sshkey", "sshfolder", "sshport"];
/// Names in data_dir that are not a destination's.
const TAKEN: [&str; 2] = ["lock", "source-id"];
const NAME_CHARS_MAX: usize = 64;

pub(super) fn read(root: &Section, problems: &mut Vec<Problem>) -> Option<Legacy> {
    let mut reader = Reader { root, problems, notes: Vec::new() };
    for entry in &root.entries {
        reader.problem(Place::Line(entry.line), &entry.key, "it stands in no section", "write it below [general]");
    }
    reader.refuse_same_sections();
    let general = reader.section("general", "write [general] with localurl below it");
    let (mut source, mut synctime_minutes, mut pushlimit) = (None, None, None);
    if let Some(general) = general {
        for entry in ini::unique(general, "general", reader.problems) {
            match entry.key.to_ascii_lowercase().as_str() {
                "localurl" => source = reader.source(entry),
                "synctime" => synctime_minutes = reader.synctime(entry),
                "pushlimit" => pushlimit = Some(entry.value.text.clone()),
                _ => reader.unknown("general", entry),
            }
        }
        if !general.entries.iter().any(|entry| entry.key.eq_ignore_ascii_case("localurl")) {
            let write = "write localurl = mysql://user@host/database";
            reader.problem(Place::Line(general.line), "general.localurl", "it is missing", write);
        }
    }
    let locations = match reader.section("locations", "write [locations] with name = 1 for each server below it") {
        Some(section) => reader.locations(section),
        None => Vec::new(),
    };
    let notes = reader.notes;
    Some(Legacy { source: source?, synctime_minutes, pushlimit, locations, notes })
}

struct Reader<'a> {
    root: &'a Section,
    problems: &'a mut Vec<Problem>,
    notes: Vec<String>,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, place: Place, key: &str, wrong: impl Into<String>, write: impl Into<String>) {
        self.problems.push(Problem { place, key: key.to_owned(), wrong: wrong.into(), write: write.into() });
    }

    fn find(&self, name: &str) -> Option<&'a Section> {
        let exact = self.root.sections.iter().find(|section| section.name == name);
        exact.or_else(|| self.root.sections.iter().find(|section| section.name.eq_ignore_ascii_case(name)))
    }

    fn section(&mut self, name: &str, write: &str) -> Option<&'a Section> {
        let found = self.find(name);
        if found.is_none() {
            self.problem(Place::Nowhere, &format!("[{name}]"), "there is no such section", write);
        }
        found
    }

    fn refuse_same_sections(&mut self) {
        let sections = &self.root.sections;
        for (index, section) in sections.iter().enumerate() {
            if let Some(first) = sections[..index].iter().find(|first| first.name == section.name) {
                let wrong = format!("this section stands on line {} too", first.line);
                self.problem(Place::Line(section.line), &format!("[{}]", section.name), wrong, "make one of the two");
            }
            if let Some(nested) = section.sections.first() {
                let wrong = "a section within a section belongs into a map file";
                self.problem(Place::Line(nested.line), &format!("[[{}]]", nested.name), wrong, "write one pair of brackets");
            }
        }
    }

    fn unknown(&mut self, section: &str, entry: &Entry) {
        let why =
            if FORGOTTEN.contains(&entry.key.to_ascii_lowercase().as_str()) { "is not needed any more" } else { "is not known" };
        self.notes.push(format!("line {}: {} in [{section}] {why}; it is left out", entry.line, quoted(&entry.key)));
    }

    /// A value that is used: one text, not `None`, without references to other values.
    fn text<'e>(&mut self, path: &str, entry: &'e Entry, write: &str) -> Option<&'e str> {
        let text = entry.value.text.trim();
        let wrong = if text.is_empty() || text == "None" {
            "it is empty"
        } else if entry.value.is_list {
            "a comma makes it a list of several values"
        } else if text.contains("%(") {
            "references to other values, %(...)s, are not followed"
        } else {
            return Some(text);
        };
        self.problem(Place::Line(entry.line), path, wrong, write);
        None
    }

    /// `mysql+driver://user:password@host:port/database?charset=utf8`, as SQLAlchemy reads it: a password may hold any character.
    fn source(&mut self, entry: &Entry) -> Option<LegacySource> {
        const PATH: &str = "general.localurl";
        const WRITE: &str = "write localurl = mysql://user@host/database, in quotes where there is a comma or a # in it";
        let text = self.text(PATH, entry, WRITE)?;
        let place = Place::Line(entry.line);
        let Some((scheme, rest)) = text.split_once("://") else {
            self.problem(place, PATH, "this is not a URL", WRITE);
            return None;
        };
        let dialect = scheme.split('+').next().unwrap_or_default().to_ascii_lowercase();
        if !matches!(dialect.as_str(), "mysql" | "mariadb") {
            self.problem(place, PATH, format!("{} is not MySQL", quoted(&dialect)), "packhorse reads MySQL and MariaDB alone");
            return None;
        }
        let (login, rest) = rest.rsplit_once('@').map_or((None, rest), |(login, rest)| (Some(login), rest));
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, database) = address.split_once('/').unwrap_or((address, ""));
        if database.is_empty() {
            self.problem(place, PATH, "no database is named", WRITE);
            return None;
        }
        let host = if host.is_empty() { "localhost" } else { host };
        let Ok(mut url) = Url::parse(&format!("mysql://{host}/")) else {
            self.problem(place, PATH, "its host or port cannot be understood", WRITE);
            return None;
        };
        url.set_path(&format!("/{database}"));
        let (user, password) = login.map_or(("", None), |login| match login.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (login, None),
        });
        // Fails only for a URL without a host.
        let _ = url.set_username(&percent_decoded(user).replace('%', "%25"));
        let password = password.filter(|password| !password.is_empty()).map(percent_decoded);
        if password.as_ref().is_some_and(|password| password.chars().any(char::is_control)) {
            self.problem(place, PATH, "there is a control character in the password", "choose another password");
            return None;
        }
        let has_socket = self.parameters(entry.line, query, &mut url);
        let was_socket = !has_socket && host.eq_ignore_ascii_case("localhost");
        // The script named its map by what stands behind the last @ of the whole text.
        let behind = text.rsplit('@').next().unwrap_or(text);
        let map_name = format!("{}_map.conf", behind.replace('/', "-"));
        Some(LegacySource { line: entry.line, url, password: password.map(Secret::new), was_socket, map_name })
    }

    /// Takes over what means something to us. Gives whether a socket is named.
    fn parameters(&mut self, line: usize, query: &str, url: &mut Url) -> bool {
        let mut socket = false;
        let mut left_out = BTreeSet::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "unix_socket" | "socket" => {
                    url.query_pairs_mut().append_pair("socket", &value);
                    socket = true;
                }
                "ssl_ca" | "ssl-ca" => {
                    url.query_pairs_mut().append_pair("ssl-ca", &value);
                }
                "ssl-mode" => {
                    url.query_pairs_mut().append_pair("ssl-mode", &value);
                }
                // packhorse speaks utf8mb4, whatever the tables are stored in.
                "charset" | "use_unicode" => {}
                _ => {
                    left_out.insert(quoted(&key));
                }
            }
        }
        if !left_out.is_empty() {
            let names: Vec<_> = left_out.into_iter().collect();
            self.notes.push(format!("line {line}: {} of localurl means nothing to packhorse; it is left out", names.join(", ")));
        }
        socket
    }

    fn synctime(&mut self, entry: &Entry) -> Option<f64> {
        let minutes: Option<f64> = entry.value.text.trim().parse().ok();
        let usable = minutes.filter(|minutes| minutes.is_finite() && *minutes > 0.0);
        if usable.is_none() {
            let shown = quoted(&entry.value.text);
            self.notes.push(format!("line {}: synctime {shown} is not a number of minutes; the default is used", entry.line));
        }
        usable
    }

    fn locations(&mut self, section: &Section) -> Vec<LegacyLocation> {
        let entries = ini::unique(section, "locations", self.problems);
        if entries.is_empty() {
            self.problem(Place::Line(section.line), "[locations]", "it is empty", "write name = 1 for each server");
        }
        let mut found: Vec<LegacyLocation> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut names = BTreeSet::new();
        for entry in entries {
            if let Some(mut location) = self.location(entry) {
                location.name = self.safe_name(&location, &mut names);
                let same = found.iter().find(|first| first.url == location.url);
                if let Some(first) = same {
                    let (name, first) = (quoted(&location.old_name), quoted(&first.old_name));
                    self.notes.push(format!(
                        "line {}: {name} is the same server as {first}: every row would go there twice",
                        entry.line
                    ));
                }
                found.push(location);
            }
            seen.insert(entry.key.to_ascii_lowercase());
        }
        for section in &self.root.sections {
            let name = section.name.to_ascii_lowercase();
            if !seen.contains(&name) && name != "general" && name != "locations" {
                let shown = quoted(&section.name);
                self.notes.push(format!(
                    "line {}: [locations] does not name {shown}, so the old script took no notice of it; it is left out",
                    section.line
                ));
            }
        }
        found
    }

    fn location(&mut self, entry: &Entry) -> Option<LegacyLocation> {
        let flag = match entry.value.text.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => {
                let wrong = format!("{} is neither on nor off", quoted(&entry.value.text));
                self.problem(Place::Line(entry.line), &format!("locations.{}", entry.key), wrong, "write 1 or 0");
                None
            }
        };
        let write = format!("write [{}] with resturl = https://server/rest/ below it", entry.key);
        let section = self.find(&entry.key).filter(|section| !["general", "locations"].contains(&section.name.as_str()));
        let urls = section.map(|section| ini::unique(section, &section.name, self.problems)).unwrap_or_default();
        let (url, others): (Vec<_>, Vec<_>) = urls.into_iter().partition(|entry| entry.key.eq_ignore_ascii_case("resturl"));
        for other in others {
            self.unknown(&entry.key, other);
        }
        let Some(url_entry) = url.first() else {
            let (place, wrong) = match section {
                Some(section) => (Place::Line(section.line), "there is no resturl in it"),
                None => (Place::Line(entry.line), "it has no section of its own"),
            };
            if flag == Some(false) {
                self.notes.push(format!("line {}: {} is off and {wrong}; it is left out", entry.line, quoted(&entry.key)));
            } else {
                self.problem(place, &format!("[{}]", entry.key), wrong, write);
            }
            return None;
        };
        let (url, login) = self.resturl(&entry.key, url_entry)?;
        let name = String::new();
        let old_name = entry.key.clone();
        Some(LegacyLocation { line: entry.line, old_name, name, enabled: flag?, url_line: url_entry.line, url, login })
    }

    fn resturl(&mut self, name: &str, entry: &Entry) -> Option<(Url, Option<(String, Secret)>)> {
        const WRITE: &str = "write resturl = https://server/rest/";
        let path = format!("{name}.resturl");
        let text = self.text(&path, entry, WRITE)?;
        let place = Place::Line(entry.line);
        let parsed = Url::parse(text);
        let url = match parsed {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
            Ok(_) | Err(_) => {
                self.problem(place, &path, "this is not the URL of a web server", WRITE);
                return None;
            }
        };
        if url.query().is_some() || url.fragment().is_some() {
            self.problem(place, &path, "there is a ? or # in it", WRITE);
            return None;
        }
        let user = percent_decoded(url.username());
        let password = url.password().map(percent_decoded).filter(|password| !password.is_empty());
        let login = match (user.is_empty(), password) {
            (true, None) => None,
            (false, Some(password)) if !format!("{user}{password}").chars().any(char::is_control) && !user.contains(':') => {
                Some((user, Secret::new(password)))
            }
            (_, _) => {
                self.problem(
                    place,
                    &path,
                    "its credentials are not a user and a password",
                    "write user:password@ before the server, or neither",
                );
                return None;
            }
        };
        // It was a URL a moment ago.
        Url::parse(&same_url(text)).ok().map(|url| (url, login))
    }

    /// A name that is safe as a directory's and that no other destination has.
    fn safe_name(&mut self, location: &LegacyLocation, names: &mut BTreeSet<String>) -> String {
        let old = &location.old_name;
        let replaced: String =
            old.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' }).collect();
        let trimmed = replaced.trim_start_matches(|c: char| !c.is_ascii_alphanumeric()).trim_end_matches('-');
        let base = if trimmed.is_empty() { "server" } else { trimmed };
        let mut number = 1;
        let name = loop {
            let end = if number == 1 { String::new() } else { format!("-{number}") };
            let name = format!("{}{end}", &base[..base.len().min(NAME_CHARS_MAX - end.len())]);
            if !TAKEN.contains(&name.as_str()) && names.insert(variable_name(&name)) {
                break name;
            }
            number += 1;
        };
        if name != *old {
            let (shown, line) = (quoted(old), location.line);
            self.notes.push(format!(
                "line {line}: {shown} is called {name} from now on, which is safe as a directory's name and like no other"
            ));
        }
        name
    }
}
