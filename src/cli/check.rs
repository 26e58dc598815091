//! `packhorse check`: looks at everything once and says, one line each, what is well, what is not, and what to do.
//!
//! The one rule: a look changes nothing, and hinders nobody: no outbox is opened, the data directory's owner stays its owner, and
//! whatever hangs is a finding, within a minute.

mod config;
mod data_dir;
mod destination;
mod finding;
mod source;

use clap::Args;
use futures_util::future::join_all;

pub use self::finding::{Finding, Level};
use super::{CliError, Context, Exit, logging, say};
use crate::config::{Config, LogLevel};

/// Flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Looks and reports.
pub fn run(args: &CheckArgs, context: &Context) -> Result<Exit, CliError> {
    // What the engines log on the way stands in the findings as well.
    logging::start(logging::level(&context.global, LogLevel::Error), context.global.log_format);
    let findings = match context.config() {
        Ok(config) => {
            let mut findings = config::findings(&config);
            findings.extend(context.block_on(outside(&config))?);
            findings
        }
        Err(CliError::Config(error)) => config::errors(&error),
        Err(other) => return Err(other),
    };
    say(&if args.json { finding::as_json(&findings) } else { finding::as_text(&findings) })?;
    Ok(finding::exit(&findings))
}

/// What is found outside of the configuration, all at once. Commands of the receiver alone have neither source nor destinations: what is
/// not configured is not looked at.
async fn outside(config: &Config) -> Result<Vec<Finding>, CliError> {
    let data_dir = async {
        if config.source.is_none() && config.destinations.is_empty() { Vec::new() } else { data_dir::findings(config).await }
    };
    let source = async {
        match &config.source {
            Some(source) => source::findings(source).await,
            None => Vec::new(),
        }
    };
    let destinations = join_all(config.destinations.iter().map(destination::findings));
    let (mut found, source, destinations) = tokio::join!(data_dir, source, destinations);
    found.extend(source);
    found.extend(destinations.into_iter().flatten());
    Ok(found)
}

/// A clock that differs from ours by so many seconds is told, and from so many on it is a problem: rows get a wrong time, or are taken for
/// rows of the future.
const CLOCK_WARNING_SECONDS: u64 = 5;
const CLOCK_PROBLEM_SECONDS: u64 = 600;

/// How another clock stands to ours.
fn clock_finding(subject: &str, whose: &str, ahead_seconds: i64) -> Finding {
    let seconds = ahead_seconds.unsigned_abs();
    let side = if ahead_seconds < 0 { "behind" } else { "ahead of" };
    let text = format!("{whose} clock is {seconds} s {side} this machine's");
    let advice = "set both by NTP: timedatectl tells how this one stands";
    match seconds {
        0..=1 => Finding::ok(subject, format!("{whose} clock agrees with this machine's")),
        2..=CLOCK_WARNING_SECONDS => Finding::ok(subject, text),
        _ if seconds <= CLOCK_PROBLEM_SECONDS => Finding::warning(subject, format!("{text}; {advice}")),
        _ => Finding::problem(subject, text, advice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_off_is_a_warning_and_then_a_problem() {
        for (seconds, level, words) in [
            (0, Level::Ok, "agrees"),
            (-1, Level::Ok, "agrees"),
            (5, Level::Ok, "5 s ahead of"),
            (-6, Level::Warning, "6 s behind"),
            (600, Level::Warning, "600 s ahead of"),
            (-601, Level::Problem, "601 s behind"),
            (i64::MIN, Level::Problem, "behind"),
        ] {
            let found = clock_finding("source", "the database's", seconds);
            assert!(found.level == level && found.text.contains(words), "{seconds}: {found}");
        }
    }
}
