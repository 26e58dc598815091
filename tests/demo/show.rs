//! What one sees: two bars on a terminal, plain lines elsewhere, and in between the story in words.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The pause between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

pub struct Show {
    began: Instant,
    shown: Shown,
}

enum Shown {
    Bars { both: MultiProgress, source: ProgressBar, centre: ProgressBar },
    Lines { last: Mutex<Instant> },
}

impl Show {
    pub fn begin() -> Self {
        let shown = if io::stdout().is_terminal() {
            let both = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
            let bar = |name: &'static str| {
                let style = ProgressStyle::with_template("{msg:14} {bar:40} {human_pos:>9} rows").expect("a template of ours");
                both.add(ProgressBar::new(1).with_style(style).with_message(name))
            };
            let (source, centre) = (bar("in the source"), bar("at the centre"));
            Shown::Bars { both, source, centre }
        } else {
            Shown::Lines { last: Mutex::new(Instant::now()) }
        };
        Self { began: Instant::now(), shown }
    }

    /// A sentence of the story.
    pub fn say(&self, text: &str) {
        self.line(&format!("[{:5.1} s] {text}", self.began.elapsed().as_secs_f64()));
    }

    /// What a program says.
    pub fn quote(&self, text: &str) {
        self.line(&format!("          | {text}"));
    }

    /// A line as it is.
    pub fn line(&self, text: &str) {
        match &self.shown {
            Shown::Bars { both, .. } => both.suspend(|| println!("{text}")),
            // Whoever closed the pipe has seen enough; the demo goes on to its exit code.
            Shown::Lines { .. } => drop(writeln!(io::stdout(), "{text}")),
        }
    }

    /// So many rows are in the source, so many have arrived.
    pub fn rows(&self, in_source: u64, arrived: u64) {
        match &self.shown {
            Shown::Bars { source, centre, .. } => {
                source.set_length(in_source);
                source.set_position(in_source);
                centre.set_length(in_source);
                centre.set_position(arrived);
            }
            Shown::Lines { last } => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_INTERVAL {
                    *last = Instant::now();
                    self.say(&format!("  {arrived} of {in_source} rows are at the centre"));
                }
            }
        }
    }

    /// Takes the bars away.
    pub fn end(&self) {
        if let Shown::Bars { both, .. } = &self.shown {
            // A terminal that cannot be cleared keeps its bars.
            let _ = both.clear();
            both.set_draw_target(ProgressDrawTarget::hidden());
        }
    }
}
