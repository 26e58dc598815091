//! What is wrong in a configuration, where, and what to write instead.

use std::fmt;

/// Where a value was given. Ordered as problems are listed: the file from its top, then the environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// Nowhere: it is missing, or it is the default.
    Nowhere,
    /// An environment variable.
    Variable(String),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// The key's path, such as `source.poll_interval`.
    pub key: String,
    /// What is wrong, a lower-case fragment without secrets.
    pub wrong: String,
    /// What to write or do instead.
    pub write: String,
}

impl Problem {
    /// Where and what, without what to write instead: `line 3: source.settle: "2x" is not a duration`.
    pub fn what(&self) -> String {
        let place = match &self.place {
            Place::Line(line) => format!("line {line}: "),
            Place::Variable(name) => format!("{name}: "),
            Place::Nowhere => String::new(),
        };
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        format!("{place}{key}{}", self.wrong)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what(), self.write)
    }
}

/// A value as problems quote it: escaped and cut, so that it stays on one line.
pub(super) fn quoted(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().count() <= CHARS_MAX {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(CHARS_MAX).collect();
    format!("{start:?}...")
}
