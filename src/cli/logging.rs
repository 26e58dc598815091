//! The log: to standard error, or the daemon's to a file that is rotated, as text for people and the journal or as JSON for machines.
//!
//! The one rule: at our levels only our own words; libraries are heard only when something is wrong.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    path::Path,
    sync::{Mutex, OnceLock},
};

use clap::ValueEnum;
use file_rotate::{ContentLimit, FileRotate, compression::Compression, suffix::AppendCount};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt::writer::BoxMakeWriter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

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

/// A log file is begun anew at this length, and so many before it are kept: a log that goes wrong does not fill the disk (I7).
const FILE_BYTES_MAX: usize = 5 << 20;
const FILES_BEFORE_MAX: usize = 5;

/// Where the log goes.
fn target(file: Option<&Path>) -> (BoxMakeWriter, bool, Option<io::Error>) {
    let to_stderr = || (BoxMakeWriter::new(io::stderr), io::stderr().is_terminal());
    let Some(path) = file else {
        let (writer, ansi) = to_stderr();
        return (writer, ansi, None);
    };
    // Tried before, because the library that rotates it panics where there is no folder for it.
    let tried = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    match tried.and_then(|()| File::options().create(true).append(true).open(path)) {
        Ok(_) => {
            let (before, limit) = (AppendCount::new(FILES_BEFORE_MAX), ContentLimit::BytesSurpassed(FILE_BYTES_MAX));
            let file = FileRotate::new(path, before, limit, Compression::None, None);
            (BoxMakeWriter::new(Mutex::new(file)), false, None)
        }
        Err(error) => {
            let (writer, ansi) = to_stderr();
            (writer, ansi, Some(error))
        }
    }
}

/// Starts the log to standard error. Once for a process: later calls change nothing.
pub fn start(level: LogLevel, format: LogFormat) {
    start_in(None, level, format);
}

/// The same into a file, where one is named.
pub fn start_in(file: Option<&Path>, level: LogLevel, format: LogFormat) {
    // What the page shows is kept whatever the log leaves out.
    let kept = Keep { clock: daemon::clock }.with_filter(EnvFilter::new(filter(LogLevel::Info)));
    let (filter, handle) = reload::Layer::new(EnvFilter::new(filter(level)));
    let (writer, ansi, failed) = target(file);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(ansi);
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    if tracing_subscriber::registry().with(lines.with_filter(filter)).with(kept).try_init().is_err() {
        tracing::debug!("the log runs already");
        return;
    }
    let _ = FILTER.set(handle);
    if let (Some(error), Some(path)) = (failed, file) {
        tracing::warn!(file = %path.display(), %error, "the log file cannot be written: the log goes to standard error");
    }
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
