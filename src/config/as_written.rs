//! The first stage: the file and the environment as texts, each with its place. Finds what is unknown or of another type.
//!
//! The one rule: go on after a problem. A derived reader would stop at the first; here the parsed document is walked against the table of
//! [`keys`](super::keys), so that one look at the answer is enough to mend a file.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    keys::{self, Key, Kind, Section},
    problem::{Place, Problem, quoted},
};

/// A value as it was given.
#[derive(Clone, Debug)]
pub(super) struct Value {
    /// Its text, whatever its type was.
    pub text: String,
    /// Where it was given.
    pub place: Place,
}

/// A section as it was given.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// Which one.
    pub section: Section,
    /// The place of its head.
    pub place: Place,
    /// What its keys' paths begin with: `source`, `destination.cogentee`, `destination[2]`.
    pub path: String,
    /// Its known keys that were given.
    pub values: BTreeMap<&'static str, Value>,
}

/// The whole configuration as it was given.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// Sections in the order of the file; at most one of each but destinations.
    pub tables: Vec<Table>,
}

impl Written {
    /// The section, where it was given.
    pub(super) fn table(&self, section: Section) -> Option<&Table> {
        self.tables.iter().find(|table| table.section == section)
    }

    /// The destinations in the order of the file.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &Table> {
        self.tables.iter().filter(|table| table.section == Section::Destination)
    }
}

/// Reads a text and the environment's overrides. A text that is not TOML gives its syntax errors and nothing else.
pub(super) fn read(text: &str, env: impl IntoIterator<Item = (String, String)>) -> (Written, Vec<Problem>) {
    let line_ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect();
    let mut reader = Reader { line_ends, problems: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // The first error of a line is the one to mend; those behind it follow from it. The library's own rendering shows the line,
        // which may hold a password: only its message is used.
        for error in errors {
            let place = error.span().map_or(Place::Nowhere, |span| reader.line(span.start));
            if reader.problems.last().is_none_or(|last| last.place != place) {
                let wrong = error.message().lines().collect::<Vec<_>>().join(", ");
                reader.problem(place, "", wrong, "this is not TOML, see https://toml.io");
            }
        }
        return (Written::default(), reader.problems);
    }
    let mut written = Written { tables: reader.document(document.get_ref()) };
    reader.environment(&mut written, env);
    (written, reader.problems)
}

struct Reader {
    /// The offset of each line's end.
    line_ends: Vec<usize>,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, place: Place, key: impl Into<String>, wrong: impl Into<String>, write: impl Into<String>) {
        self.problems.push(Problem { place, key: key.into(), wrong: wrong.into(), write: write.into() });
    }

    fn line(&self, offset: usize) -> Place {
        Place::Line(1 + self.line_ends.partition_point(|end| *end < offset))
    }

    fn document(&mut self, document: &DeTable<'_>) -> Vec<Table> {
        let mut tables = Vec::new();
        for (name, value) in document {
            let place = self.line(name.span().start);
            let name = name.get_ref().as_ref();
            let Some(section) = Section::ALL.into_iter().find(|section| section.name() == name) else {
                self.unknown_section(place, name);
                continue;
            };
            match (section, value.get_ref()) {
                (Section::Destination, DeValue::Array(items)) => {
                    for (index, item) in items.iter().enumerate() {
                        let place = self.line(item.span().start);
                        if let DeValue::Table(table) = item.get_ref() {
                            tables.push(self.table(section, place, index, table));
                        } else {
                            let path = format!("destination[{}]", index + 1);
                            self.problem(place, path, "this is not a table", "write [[destination]] and its keys below it");
                        }
                    }
                }
                (Section::Destination, _) => {
                    self.problem(place, name, "there can be several", "write [[destination]], in double brackets");
                }
                (_, DeValue::Table(table)) => tables.push(self.table(section, place, 0, table)),
                (_, _) => self.problem(place, name, "this is not a table", format!("write [{name}] and its keys below it")),
            }
        }
        tables
    }

    fn table(&mut self, section: Section, place: Place, index: usize, table: &DeTable<'_>) -> Table {
        let path = match (section, table.get("name").map(Spanned::get_ref)) {
            (Section::Destination, Some(DeValue::String(name))) if is_word(name) => format!("destination.{name}"),
            (Section::Destination, _) => format!("destination[{}]", index + 1),
            (_, _) => section.name().to_owned(),
        };
        let mut values = BTreeMap::new();
        for (name, value) in table {
            let place = self.line(name.span().start);
            let name = name.get_ref().as_ref();
            match keys::of(section).find(|key| key.name == name) {
                Some(key) => {
                    if let Some(text) = self.scalar(key, &path, place.clone(), value.get_ref()) {
                        values.insert(key.name, Value { text, place });
                    }
                }
                None => self.unknown_key(place, section, &path, name),
            }
        }
        Table { section, place, path, values }
    }

    /// The text of a value of the right type.
    fn scalar(&mut self, key: &Key, path: &str, place: Place, value: &DeValue<'_>) -> Option<String> {
        let write = match (key.kind, value) {
            (Kind::Bool, DeValue::Boolean(value)) => return Some(value.to_string()),
            (Kind::Bool, _) => "write true or false, without quotes",
            (_, DeValue::String(text)) => return Some(text.to_string()),
            (Kind::Start, DeValue::Datetime(time)) => return Some(time.to_string()),
            (Kind::Size, DeValue::Integer(number)) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => return Some(number.to_string()),
                Err(_) => "write a size, such as \"64MiB\"",
            },
            (Kind::Duration, _) => "write a number with a unit in quotes, such as \"10s\"",
            (Kind::Size, _) => "write a size in quotes, such as \"64MiB\", or a number of bytes",
            (_, _) => "write it in quotes",
        };
        let wrong = format!("this is {} {}", article(value.type_str()), value.type_str());
        self.problem(place, format!("{path}.{}", key.name), wrong, write);
        None
    }

    fn unknown_section(&mut self, place: Place, name: &str) {
        let hint = match keys::KEYS.iter().find(|key| key.name == name) {
            Some(key) => format!("it belongs into a section: write it below [{}]", key.section.name()),
            None => suggestion(name, Section::ALL.into_iter().map(Section::name)),
        };
        self.problem(place, shown_key(name), "there is no such section", hint);
    }

    fn unknown_key(&mut self, place: Place, section: Section, path: &str, name: &str) {
        let known = keys::of(section).map(|key| key.name);
        let hint = match name {
            "password" | "token" if keys::of(section).any(|key| key.name == format!("{name}_file")) => {
                format!("secrets stand in files of their own: write {name}_file")
            }
            _ => suggestion(name, known),
        };
        self.problem(place, format!("{path}.{}", shown_key(name)), "there is no such key", hint);
    }

    /// Applies `PACKHORSE_<SECTION>_<KEY>` and `PACKHORSE_DESTINATION_<NAME>_<KEY>`. An empty variable counts as not set.
    fn environment(&mut self, written: &mut Written, env: impl IntoIterator<Item = (String, String)>) {
        // In a fixed order, so that problems come in one.
        let env: BTreeMap<String, String> = env.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        for (variable, text) in env {
            let Some(rest) = variable.strip_prefix("PACKHORSE_") else { continue };
            let section = Section::ALL.into_iter().find_map(|section| {
                let rest = rest.strip_prefix(&section.name().to_ascii_uppercase())?;
                Some((section, rest.strip_prefix('_')?))
            });
            // Variables of no known section belong to somebody else: test suites, packages.
            let Some((section, rest)) = section else { continue };
            let place = Place::Variable(variable.clone());
            let target = if section == Section::Destination {
                destination_key(written, rest)
            } else {
                key_of_variable(section, rest).map(|key| (single(written, section, &place), key))
            };
            match target {
                Some((index, key)) => {
                    written.tables[index].values.insert(key.name, Value { text, place });
                }
                None => self.unknown_variable(place, written, section, rest),
            }
        }
    }

    fn unknown_variable(&mut self, place: Place, written: &Written, section: Section, rest: &str) {
        if section != Section::Destination {
            let hint = suggestion(&rest.to_ascii_lowercase(), keys::of(section).map(|key| key.name));
            self.problem(place, "", format!("[{}] has no such key", section.name()), hint);
            return;
        }
        let names: Vec<_> = written.destinations().filter_map(name_of).map(|name| variable_name(&name)).collect();
        let hint = if names.is_empty() {
            "variables only override: write the [[destination]] and its name in the file".to_owned()
        } else {
            format!("write PACKHORSE_DESTINATION_<NAME>_<KEY>, where <NAME> is {}", names.join(" or "))
        };
        self.problem(place, "", "no destination has such a name and key", hint);
    }
}

/// The index of a section that exists once; it is made when it was not written.
fn single(written: &mut Written, section: Section, place: &Place) -> usize {
    written.tables.iter().position(|table| table.section == section).unwrap_or_else(|| {
        let path = section.name().to_owned();
        written.tables.push(Table { section, place: place.clone(), path, values: BTreeMap::new() });
        written.tables.len() - 1
    })
}

/// The destination and key that `<NAME>_<KEY>` means: the longest name that leaves a key.
fn destination_key(written: &Written, rest: &str) -> Option<(usize, &'static Key)> {
    let candidates = written.tables.iter().enumerate().filter(|(_, table)| table.section == Section::Destination);
    candidates
        .filter_map(|(index, table)| {
            let name = variable_name(&name_of(table)?);
            let key = key_of_variable(Section::Destination, rest.strip_prefix(&name)?.strip_prefix('_')?)?;
            Some((name.len(), index, key))
        })
        .max_by_key(|(length, ..)| *length)
        .map(|(_, index, key)| (index, key))
}

fn name_of(table: &Table) -> Option<String> {
    table.values.get("name").map(|value| value.text.clone())
}

fn key_of_variable(section: Section, rest: &str) -> Option<&'static Key> {
    // The name is what the variable is found by.
    keys::of(section).find(|key| key.name.to_ascii_uppercase() == rest && (section, key.name) != (Section::Destination, "name"))
}

/// A destination's name as it stands in variables: `central-2` is `CENTRAL_2`.
pub(super) fn variable_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// An unknown key as people see it: a plain word as it is, anything else quoted.
fn shown_key(name: &str) -> String {
    if is_word(name) { name.to_owned() } else { quoted(name) }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn suggestion(name: &str, known: impl Iterator<Item = &'static str>) -> String {
    let known: Vec<_> = known.collect();
    // Comparing takes time with the product of the lengths: a name longer than any key is near none.
    let near = match name.len() {
        0..=64 => known.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known)).min(),
        _ => None,
    };
    match near {
        Some((distance, near)) if distance <= 1 + near.len() / 4 => format!("did you mean {near}?"),
        _ => format!("known are {}", known.join(", ")),
    }
}
