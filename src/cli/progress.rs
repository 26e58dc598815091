//! How far long work has come: a bar on a terminal, a line now and then elsewhere, on standard error.
//!
//! The one rule: a bar and log lines share a terminal: who writes a line there goes through [`BesideTheBar`].

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// The pause between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The bar that is on the terminal now.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Standard error, for whole lines: a bar makes room for them.
#[derive(Clone, Copy, Debug)]
pub struct BesideTheBar;

impl Write for BesideTheBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bar {
            Some(bar) => bar.suspend(|| io::stderr().write(line)),
            None => io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Takes the bar away, where there is one: the program ends.
pub fn clear() {
    if let Some(bar) = BAR.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bar.finish_and_clear();
    }
}

/// Shows a growing number.
#[derive(Debug)]
pub struct Progress {
    /// What is done, with a colon behind it; may be empty.
    label: String,
    /// What is counted.
    unit: &'static str,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { expected: Option<u64>, began: Instant, last: Instant },
    Nothing,
}

impl Progress {
    /// Of so many rows, where that is known.
    pub fn new(expected: Option<u64>, verbosity: Verbosity) -> Self {
        Self::of(String::new(), "rows", expected, verbosity)
    }

    /// Of so many of something.
    pub fn of(label: String, unit: &'static str, expected: Option<u64>, verbosity: Verbosity) -> Self {
        let mut progress = Self { label, unit, shown: Shown::Nothing };
        progress.shown = match (verbosity, io::stderr().is_terminal()) {
            (Verbosity::Quiet, _) => Shown::Nothing,
            (Verbosity::Usual, true) => Shown::Bar(progress.bar(expected)),
            (Verbosity::Usual, false) => Shown::Lines { expected, began: Instant::now(), last: Instant::now() },
        };
        progress
    }

    /// It is going to be so many, as is known by now.
    pub fn expect(&mut self, count: Option<u64>) {
        match &mut self.shown {
            Shown::Bar(shown) => {
                if let Some(count) = count.filter(|count| shown.length() != Some(*count)) {
                    if shown.length().is_none() {
                        shown.finish_and_clear();
                        self.shown = Shown::Bar(self.bar(Some(count)));
                    } else {
                        shown.set_length(count);
                    }
                }
            }
            Shown::Lines { expected, .. } => *expected = count,
            Shown::Nothing => {}
        }
    }

    /// What it is about now.
    pub fn say(&mut self, words: &str) {
        if let Shown::Bar(bar) = &self.shown {
            bar.set_message(format!("{}{words}", self.label));
            bar.tick();
        }
    }

    /// Nothing happens, for this reason.
    pub fn waits(&mut self, what: &str, why: &str) {
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_message(format!("{what}: {why} "));
                bar.tick();
            }
            Shown::Lines { last, .. } => {
                *last = Instant::now();
                eprintln!("{what}: {why}");
            }
            Shown::Nothing => {}
        }
    }

    /// Makes room for the answer.
    pub fn clear(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
            *BAR.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// So many are done.
    pub fn at(&mut self, done: u64) {
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines { expected, began, last } => {
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    eprintln!("{}{}", self.label, line(done, *expected, self.unit, began.elapsed()));
                }
            }
            Shown::Nothing => {}
        }
    }

    fn bar(&self, expected: Option<u64>) -> ProgressBar {
        let unit = self.unit;
        let (bar, template) = match expected {
            Some(count) => (
                ProgressBar::new(count),
                format!("{{msg}}{{bar:30}} {{human_pos}} of about {{human_len}} {unit}, {{per_sec}}, {{eta}} left"),
            ),
            None => (ProgressBar::new_spinner(), format!("{{spinner}} {{msg}}{{human_pos}} {unit}, {{elapsed}} (Ctrl-C ends)")),
        };
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = bar.with_style(style).with_message(self.label.clone());
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        bar
    }
}

/// Where there is no terminal: how many, of how many, how fast, and how long that is going to take.
fn line(done: u64, expected: Option<u64>, unit: &str, since: Duration) -> String {
    let rate = done as f64 / since.as_secs_f64().max(0.001);
    match expected {
        Some(expected) if rate > 0.0 => {
            let left = Duration::from_secs_f64((expected.saturating_sub(done) as f64 / rate).min(1e9));
            format!("{done} of about {expected} {unit}, {rate:.0} a second, {} left", HumanDuration(left))
        }
        Some(expected) => format!("{done} of about {expected} {unit}"),
        None => format!("{done} {unit}, {rate:.0} a second"),
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
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_fast_and_how_long() {
        let seconds = Duration::from_secs(10);
        assert_eq!(line(500, Some(2_000), "rows", seconds), "500 of about 2000 rows, 50 a second, 30 seconds left");
        assert_eq!(line(500, None, "nodes", seconds), "500 nodes, 50 a second");
        assert_eq!(line(0, Some(7), "rows", seconds), "0 of about 7 rows");
    }
}
