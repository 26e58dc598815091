//! The log: to standard error, as text for people and the journal or as JSON for machines.
//!
//! The one rule: at our levels only our own words; libraries are heard only when something is wrong.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use clap::ValueEnum;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _};

use super::Global;
use crate::{config::LogLevel, daemon, status::lines::Keep};

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

/// Where the filter of the running log can be changed.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts the log. Once for a process: later calls change nothing.
pub fn start(level: LogLevel, format: LogFormat) {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(filter(level)));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    if tracing_subscriber::registry().with(filter).with(lines).with(Keep { clock: daemon::clock }).try_init().is_err() {
        tracing::debug!("the log runs already");
        return;
    }
    let _ = FILTER.set(handle);
}

/// Logs from another level on.
pub fn change(level: LogLevel) {
    if let Some(handle) = FILTER.get()
        && let Err(error) = handle.reload(EnvFilter::new(filter(level)))
    {
        tracing::warn!(%error, "the level of the log could not be changed");
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
