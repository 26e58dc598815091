//! What a command that is interrupted leaves behind: nothing.
//!
//! The one rule: only files that are this command's own and half done are removed; what was committed to an outbox stands.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, Once, PoisonError},
};

use tokio::signal::unix::{SignalKind, signal};

use super::progress;

/// What would be left behind now.
static UNDONE: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
static WATCHED: Once = Once::new();

/// A file or folder that goes when this does, or when the command is interrupted before.
#[derive(Debug)]
pub struct Undone(PathBuf);

impl Undone {
    /// Before it is made.
    pub fn new(path: PathBuf) -> Self {
        WATCHED.call_once(|| {
            // A command that cannot be told of signals is ended by them as ever.
            std::thread::spawn(watch);
        });
        UNDONE.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Undone {
    fn drop(&mut self) {
        let mut undone = UNDONE.lock().unwrap_or_else(PoisonError::into_inner);
        undone.retain(|path| *path != self.0);
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    // It may never have been made, or have got its name.
    let _ = gone;
}

/// Ends the program at the first signal, with the exit code that a shell shows then: 128 and the signal's number.
fn watch() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let number = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut hangup = signal(SignalKind::hangup())?;
            Ok(tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hangup.recv() => SignalKind::hangup(),
            })
        })
    });
    let Ok(number) = number else { return };
    // Held to the end: nothing is made any more.
    let undone = UNDONE.lock().unwrap_or_else(PoisonError::into_inner);
    undone.iter().for_each(|path| remove(path));
    progress::clear();
    std::process::exit(128 + number.as_raw_value());
}
