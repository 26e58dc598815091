//! One thing that was looked at, as a line and as JSON.
//!
//! The one rule: what is found and what to do about it are told apart, and neither holds a secret.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::cli::Exit;

/// How a thing that was looked at stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is well.
    Ok,
    /// It works but should be looked at.
    Warning,
    /// It does not work.
    Problem,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How it stands.
    pub level: Level,
    /// What was looked at: `config`, `source`, `destination cogentee`.
    pub subject: String,
    /// What was found, without secrets.
    pub text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What a problem makes of the exit code.
    #[serde(skip)]
    pub exit: Exit,
}

impl Finding {
    /// Something that is well.
    pub fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), text: text.into(), advice: None, exit: Exit::Done }
    }

    /// Something that works but should be looked at; the text may go on with advice after a semicolon.
    pub fn warning(subject: impl Into<String>, text: impl AsRef<str>) -> Self {
        let (text, advice) = split(text.as_ref());
        Self { level: Level::Warning, advice, ..Self::ok(subject, text) }
    }

    /// Something that does not work, and what to do about it.
    pub fn problem(subject: impl Into<String>, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, advice: Some(advice.into()), exit: Exit::Left, ..Self::ok(subject, text) }
    }

    /// Something that does not work, as an error tells it: what, a semicolon, and what to do.
    pub fn trouble(subject: impl Into<String>, error: impl AsRef<str>) -> Self {
        let (text, advice) = split(error.as_ref());
        Self { level: Level::Problem, advice, exit: Exit::Left, ..Self::ok(subject, text) }
    }

    /// The same problem with another exit code.
    #[must_use]
    pub fn exiting(self, exit: Exit) -> Self {
        Self { exit, ..self }
    }
}

/// Errors say what is wrong, and after the first semicolon what to do.
fn split(told: &str) -> (String, Option<String>) {
    match told.split_once("; ") {
        Some((text, advice)) => (text.to_owned(), Some(advice.to_owned())),
        None => (told.to_owned(), None),
    }
}

/// One line: `problem  config: line 3: ...; write ...`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {}: {}", self.level, self.subject, self.text)?;
        match &self.advice {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

/// The findings as lines.
pub fn as_text(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut text, finding| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{finding}");
        text
    })
}

/// The findings as one JSON object.
pub fn as_json(findings: &[Finding]) -> String {
    let ok = findings.iter().all(|finding| finding.level != Level::Problem);
    format!("{}\n", serde_json::json!({ "ok": ok, "findings": findings }))
}

/// The exit code: that of the worst problem; a configuration's goes before an unreachable database's, and that before any other's.
pub fn exit(findings: &[Finding]) -> Exit {
    let problems = findings.iter().filter(|finding| finding.level == Level::Problem);
    let rank = |exit: &Exit| match exit {
        Exit::Done => 0,
        Exit::Left => 1,
        Exit::Unreachable => 2,
        Exit::Usage => 3,
    };
    problems.map(|finding| finding.exit).max_by_key(rank).unwrap_or(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_problem_decides_the_exit_code() {
        let ok = Finding::ok("config", "fine");
        let warning = Finding::warning("config", "look at it");
        let destination = Finding::problem("destination", "nobody there", "start it");
        let source = Finding::problem("source", "cannot reach it", "start it").exiting(Exit::Unreachable);
        let config = Finding::problem("config", "no such key", "remove it").exiting(Exit::Usage);
        assert_eq!(exit(&[ok.clone(), warning.clone()]), Exit::Done);
        assert_eq!(exit(&[ok, destination.clone()]), Exit::Left);
        assert_eq!(exit(&[source.clone(), destination.clone()]), Exit::Unreachable);
        assert_eq!(exit(&[source, config, warning, destination]), Exit::Usage);
    }

    #[test]
    fn an_error_is_split_into_what_is_wrong_and_what_to_do() {
        let told = Finding::trouble("source", "nothing listens there; is it running; is it there?");
        assert_eq!((told.text.as_str(), told.advice.as_deref()), ("nothing listens there", Some("is it running; is it there?")));
        assert_eq!(Finding::warning("config", "hm").advice, None);
    }

    #[test]
    fn findings_are_lines_and_json() {
        let findings = [Finding::ok("config", "fine"), Finding::problem("source", "cannot reach it", "start it")];
        assert_eq!(as_text(&findings), "ok       config: fine\nproblem  source: cannot reach it; start it\n");
        let json: serde_json::Value = serde_json::from_str(&as_json(&findings)).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["findings"][0], serde_json::json!({"level": "ok", "subject": "config", "text": "fine"}));
        assert_eq!(json["findings"][1]["advice"], "start it");
    }
}
