//! `packhorse check`: looks at everything once and says, one line each, what is well, what is not, and what to do.

use std::fmt::{self, Write as _};

use clap::Args;
use serde::Serialize;

use super::{CliError, Context, Exit, logging, say};
use crate::{
    chain,
    config::{Config, ConfigError, LogLevel, Problem},
};

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

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
}

impl Finding {
    /// Something that is well.
    pub fn ok(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject: subject.into(), text: text.into(), advice: None }
    }

    /// Something that works but should be looked at.
    pub fn warning(subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self { level: Level::Warning, subject: subject.into(), text: text.into(), advice: None }
    }

    /// Something that does not work.
    pub fn problem(subject: impl Into<String>, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Problem, subject: subject.into(), text: text.into(), advice: Some(advice.into()) }
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
fn as_text(findings: &[Finding]) -> String {
    findings.iter().fold(String::new(), |mut text, finding| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{finding}");
        text
    })
}

/// The findings as one JSON object.
fn as_json(findings: &[Finding]) -> String {
    let ok = findings.iter().all(|finding| finding.level != Level::Problem);
    format!("{}\n", serde_json::json!({ "ok": ok, "findings": findings }))
}

/// A problem of the configuration is 2, any other is 1.
fn exit(findings: &[Finding]) -> Exit {
    let mut problems = findings.iter().filter(|finding| finding.level == Level::Problem).peekable();
    if problems.peek().is_none() {
        Exit::Done
    } else if problems.any(|finding| finding.subject == CONFIG) {
        Exit::Usage
    } else {
        Exit::Left
    }
}

const CONFIG: &str = "config";

/// Looks and reports.
pub fn run(args: &CheckArgs, context: &Context) -> Result<Exit, CliError> {
    // What the engines log on the way stands in the findings as well.
    logging::start(logging::level(&context.global, LogLevel::Error), context.global.log_format);
    let findings = match context.config() {
        Ok(config) => {
            let mut findings = config_findings(&config);
            findings.extend(outside_findings(&config, context)?);
            findings
        }
        Err(CliError::Config(error)) => error_findings(&error),
        Err(other) => return Err(other),
    };
    say(&if args.json { as_json(&findings) } else { as_text(&findings) })?;
    Ok(exit(&findings))
}

/// ENGINE: the findings about the source, the data directory and each destination are added here. Commands of the receiver alone have
/// neither source nor destinations: what is not configured is not looked at.
#[expect(clippy::unnecessary_wraps, reason = "looking outside needs a runtime, which may not start")]
fn outside_findings(_config: &Config, _context: &Context) -> Result<Vec<Finding>, CliError> {
    Ok(Vec::new())
}

fn config_findings(config: &Config) -> Vec<Finding> {
    let mut parts = vec![format!("gateway {}", config.gateway.id)];
    parts.extend(config.source.as_ref().map(|source| format!("source {}", source.url)));
    for destination in &config.destinations {
        let state = if destination.enabled { "" } else { " (disabled)" };
        parts.push(format!("destination {} {}{state}", destination.name, destination.url));
    }
    parts.extend(config.receiver.as_ref().map(|receiver| format!("receiver {}", receiver.database)));
    let mut findings = vec![Finding::ok(CONFIG, format!("{}: {}", config.origin, parts.join(", ")))];
    findings.extend(config.warnings.iter().map(|warning| Finding::warning(CONFIG, warning)));
    match (&config.source, config.destinations.is_empty(), &config.receiver) {
        (Some(_), false, _) | (None, true, Some(_)) => {}
        (Some(_), true, _) => findings.push(Finding::warning(CONFIG, "there is no [[destination]]: `packhorse run` needs one")),
        (None, _, _) => findings.push(Finding::warning(CONFIG, "there is no [source]: `packhorse run` needs one")),
    }
    findings
}

fn error_findings(error: &ConfigError) -> Vec<Finding> {
    match error {
        ConfigError::Problems { origin, problems } => {
            let finding =
                |problem: &Problem| Finding::problem(CONFIG, format!("{origin}: {}", problem.what()), problem.write.clone());
            problems.iter().map(finding).collect()
        }
        ConfigError::NotFound | ConfigError::Unreadable { .. } | ConfigError::Missing { .. } => {
            vec![Finding::problem(CONFIG, chain(error), "see docs/configuration.md")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_of_the_configuration_outweighs_others() {
        let ok = Finding::ok(CONFIG, "fine");
        let warning = Finding::warning(CONFIG, "look at it");
        let source = Finding::problem("source", "cannot reach it", "start it");
        let config = Finding::problem(CONFIG, "no such key", "remove it");
        assert_eq!(exit(&[ok.clone(), warning.clone()]), Exit::Done);
        assert_eq!(exit(&[ok.clone(), source.clone()]), Exit::Left);
        assert_eq!(exit(&[source, config, warning]), Exit::Usage);
    }

    #[test]
    fn findings_are_lines_and_json() {
        let findings = [Finding::ok(CONFIG, "fine"), Finding::problem("source", "cannot reach it", "start it")];
        assert_eq!(as_text(&findings), "ok       config: fine\nproblem  source: cannot reach it; start it\n");
        let json: serde_json::Value = serde_json::from_str(&as_json(&findings)).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["findings"][0], serde_json::json!({"level": "ok", "subject": "config", "text": "fine"}));
        assert_eq!(json["findings"][1]["advice"], "start it");
    }
}
