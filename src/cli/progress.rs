//! How far long work has come: a bar on a terminal, a line now and then elsewhere, on standard error.

use std::{
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// The pause between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows a growing number of rows.
#[derive(Debug)]
pub struct Progress {
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { expected: Option<u64>, last: Instant },
    Nothing,
}

impl Progress {
    /// Of so many rows, where that is known. `quiet` shows nothing but the answer at the end.
    pub fn new(expected: Option<u64>, verbosity: Verbosity) -> Self {
        let shown = match (verbosity, io::stderr().is_terminal()) {
            (Verbosity::Quiet, _) => Shown::Nothing,
            (Verbosity::Usual, true) => Shown::Bar(bar(expected)),
            (Verbosity::Usual, false) => Shown::Lines { expected, last: Instant::now() },
        };
        Self { shown }
    }

    /// It is going to be so many, as is known by now.
    pub fn expect(&mut self, rows: Option<u64>) {
        match &mut self.shown {
            Shown::Bar(shown) => {
                if let Some(rows) = rows.filter(|rows| shown.length() != Some(*rows)) {
                    if shown.length().is_none() {
                        shown.finish_and_clear();
                        *shown = bar(Some(rows));
                    }
                    shown.set_length(rows);
                }
            }
            Shown::Lines { expected, .. } => *expected = rows,
            Shown::Nothing => {}
        }
    }

    /// Makes room for the answer.
    pub fn clear(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// So many rows are done.
    pub fn at(&mut self, rows: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(rows),
            Shown::Lines { expected, last } => {
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    match expected {
                        Some(expected) => eprintln!("{rows} of about {expected} rows"),
                        None => eprintln!("{rows} rows"),
                    }
                }
            }
            Shown::Nothing => {}
        }
    }
}

/// Whether progress is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verbosity {
    /// Only the answer.
    Quiet,
    /// Progress as well.
    Usual,
}

impl Verbosity {
    /// As `-q` wants it.
    pub fn of(global: &super::Global) -> Self {
        if global.quiet > 0 { Self::Quiet } else { Self::Usual }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(expected: Option<u64>) -> ProgressBar {
    let (bar, template) = match expected {
        Some(rows) => (ProgressBar::new(rows), "{bar:40} {human_pos} of about {human_len} rows, {per_sec}, {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {human_pos} rows, {elapsed} (Ctrl-C ends)"),
    };
    bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
}
