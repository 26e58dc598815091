//! The log: to standard error, as text for people and the journal or as JSON for machines.
//!
//! The one rule: at our levels only our own words; libraries are heard only when something is wrong.

use std::io::{self, IsTerminal as _};

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::Global;
use crate::config::LogLevel;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// The level: `-v` and `-q` go before the configuration.
pub fn level(global: &Global, configured: LogLevel) -> LogLevel {
    match (global.verbose, global.quiet) {
        (0, 0) => configured,
        (1, _) => LogLevel::Debug,
        (_, 1) => LogLevel::Warn,
        (0, _) => LogLevel::Error,
        (_, _) => LogLevel::Trace,
    }
}

/// What passes: our own lines from `level` on; of libraries warnings, and only errors of sled, which warns about what we recover from.
fn filter(level: LogLevel) -> String {
    let libraries = level.min(LogLevel::Warn);
    format!("{libraries},sled=error,packhorse={level}")
}

/// Starts the log. Once for a process: later calls change nothing.
pub fn start(level: LogLevel, format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(filter(level)));
    let started = match format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log runs already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(verbose: u8, quiet: u8) -> Global {
        Global { config: None, verbose, quiet, log_format: LogFormat::Text }
    }

    #[test]
    fn flags_go_before_the_configuration() {
        for (verbose, quiet, expected) in [
            (0, 0, LogLevel::Info),
            (1, 0, LogLevel::Debug),
            (2, 0, LogLevel::Trace),
            (9, 0, LogLevel::Trace),
            (0, 1, LogLevel::Warn),
            (0, 3, LogLevel::Error),
        ] {
            assert_eq!(level(&global(verbose, quiet), LogLevel::Info), expected, "-v {verbose} -q {quiet}");
        }
    }

    #[test]
    fn libraries_are_never_louder_than_warnings() {
        assert_eq!(filter(LogLevel::Trace), "warn,sled=error,packhorse=trace");
        assert_eq!(filter(LogLevel::Error), "error,sled=error,packhorse=error");
        for level in LogLevel::ALL {
            assert!(EnvFilter::try_new(filter(level)).is_ok());
        }
    }
}
