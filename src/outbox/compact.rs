//! Compaction: sled's files never shrink, so what is live is copied into a store of its own, which takes the place of the old one.
//!
//! ```text
//! gen-N+1.making/ is filled ─▶ renamed to gen-N+1/ ─▶ opened and checked ─▶ CURRENT names it ─▶ gen-N/ is removed
//! ```
//!
//! Everything is copied key by key, whatever it is: compaction knows no prefix. The new store carries a file `replaces` with the name of
//! the old one, so that an opening after a crash knows which of two is a leftover ([`tidy`]); a store beside the one in use that no such
//! file speaks of was damaged once, and is set aside instead.
//!
//! The one rule: the old store is whole until CURRENT, which names the new one, is on the disk.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    data_dir,
    store::{Change, Store, StoreError, io_error, sync_path},
    writer::Writer,
};
use crate::edge;

/// Stores with more live data are left as they are while the disk has room: copying would take longer than a writer should wait.
const LIVE_BYTES_MAX: u64 = 4 << 20;
/// Files up to this size are not worth it, or on a disk without room this.
const FILES_BYTES_MIN: u64 = 7 << 20;
const FILES_BYTES_MIN_FULL: u64 = 3 << 19;
/// How many times the live data files may take before they are worth it.
const FILES_TIMES_LIVE: u64 = 3;
/// Bytes copied in one commit.
const COMMIT_BYTES: usize = 256 << 10;

const REPLACES: &str = "replaces";

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Bytes of the files before.
    pub bytes_before: u64,
    /// Bytes of the files after.
    pub bytes_after: u64,
}

/// Why the files should be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// They need not be so large.
    Tidiness,
    /// Capture pauses for want of room on the disk: it may take longer.
    Room,
}

/// Whether files of that size are worth copying the live part.
pub(super) fn is_worth_it(need: Need, live_bytes: u64, files_bytes: u64) -> bool {
    let (live_max, files_min) = match need {
        Need::Tidiness => (LIVE_BYTES_MAX, FILES_BYTES_MIN),
        Need::Room => (u64::MAX, FILES_BYTES_MIN_FULL),
    };
    live_bytes <= live_max && files_bytes > files_min && files_bytes / FILES_TIMES_LIVE >= live_bytes
}

/// Bytes of everything in a store, or as many as show that there is more than `max`.
pub(super) fn live_bytes(store: &Store, max: u64) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for entry in store.scan(&[], &[])? {
        let (key, value) = entry?;
        bytes += (key.len() + value.len()) as u64;
        if bytes > max {
            break;
        }
    }
    Ok(bytes)
}

/// Makes a copy of a store beside it, complete and checked, and not yet the one in use. Nobody may write meanwhile. After each commit it tells
/// how many bytes of keys and values are copied.
///
/// # Errors
/// The old store is as it was, and what was begun of the new one is removed.
pub(super) fn copy(outbox: &Path, old: &Store, writer: &Writer, tell: &dyn Fn(u64)) -> Result<Store, StoreError> {
    let number = data_dir::stores(outbox)?.iter().filter_map(|path| data_dir::store_number(path)).max().unwrap_or(0) + 1;
    let path = data_dir::store_path(outbox, number);
    let making = path.with_extension("making");
    let made = make(outbox, old, writer, (&making, &path), tell);
    if made.is_err() {
        // What remains of it is removed at the next opening.
        let _ = std::fs::remove_dir_all(&making);
        let _ = std::fs::remove_dir_all(&path);
    }
    made
}

fn make(
    outbox: &Path,
    old: &Store,
    writer: &Writer,
    (making, path): (&Path, &Path),
    tell: &dyn Fn(u64),
) -> Result<Store, StoreError> {
    remove_folder(making)?;
    let new = Store::open(making)?;
    let (mut change, mut bytes, mut copied_bytes) = (Change::default(), 0, 0);
    for entry in old.scan(&[], &[])? {
        let (key, value) = entry?;
        bytes += key.len() + value.len();
        change.put(key, value);
        if bytes >= COMMIT_BYTES {
            new.commit(std::mem::take(&mut change))?;
            copied_bytes += std::mem::take(&mut bytes) as u64;
            tell(copied_bytes);
        }
    }
    new.commit(change)?;
    tell(copied_bytes + bytes as u64);
    drop(new);
    edge::pass("compact:filled");
    let name = old.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    data_dir::replace_file(&making.join(REPLACES), name.as_bytes())?;
    std::fs::rename(making, path).map_err(io_error(format!("renaming {}", making.display())))?;
    sync_path(outbox)?;
    edge::pass("compact:renamed");
    // Read back from the disk, as the next opening would.
    let new = Store::open(path)?;
    let copied = Writer::load(&new)?;
    if copied.meta() == writer.meta() && copied.streams() == writer.streams() {
        return Ok(new);
    }
    Err(StoreError::Damaged { path: path.into(), what: "a copy of it is not equal to it".into() })
}

/// Makes a copy the one in use, and gives it in place of the old one, which is removed.
///
/// # Errors
/// Nobody knows which of the two will be in use after a crash: neither may be written before it has been opened anew.
pub(super) fn switch(outbox: &Path, old: &mut Store, new: Store) -> Result<(), StoreError> {
    edge::pass("compact:copied");
    data_dir::set_current(outbox, new.path())?;
    edge::pass("compact:current");
    let replaced = std::mem::replace(old, new);
    let path = replaced.path().to_owned();
    drop(replaced);
    remove_replaced(outbox, &path, old.path())
}

/// Removes the store that another one has replaced, and then the word of it.
fn remove_replaced(outbox: &Path, replaced: &Path, by: &Path) -> Result<(), StoreError> {
    remove_folder(replaced)?;
    sync_path(outbox)?;
    edge::pass("compact:removed");
    let word = by.join(REPLACES);
    std::fs::remove_file(&word).map_err(io_error(format!("removing {}", word.display())))?;
    sync_path(by)
}

/// What crashes left beside the store in use: a half-made copy, a complete copy that was not switched to, a replaced store. Anything else
/// is given back, to be set aside.
pub(super) fn tidy(outbox: &Path, in_use: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut others = Vec::new();
    for path in data_dir::unfinished(outbox)? {
        remove_folder(&path)?;
    }
    let replaced = replaces(in_use)?;
    for path in data_dir::stores(outbox)?.into_iter().filter(|path| path != in_use) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let is_copy = replaces(&path)?.as_deref() == in_use.file_name().and_then(|name| name.to_str());
        if replaced.is_some() && replaced == name {
            remove_replaced(outbox, &path, in_use)?;
        } else if is_copy {
            remove_folder(&path)?;
            sync_path(outbox)?;
        } else {
            others.push(path);
        }
    }
    Ok(others)
}

/// Whether a store is a copy of another one that is still there: then that one may be the newer.
pub(super) fn is_unused_copy(outbox: &Path, store: &Path) -> Result<bool, StoreError> {
    Ok(replaces(store)?.is_some_and(|name| outbox.join(name).join("db").is_file()))
}

/// The name of the store that this one is a copy of.
fn replaces(store: &Path) -> Result<Option<String>, StoreError> {
    let file = store.join(REPLACES);
    match std::fs::read(&file) {
        Ok(name) => Ok(Some(String::from_utf8_lossy(&name).trim().to_owned())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(cause) => Err(io_error(format!("reading {}", file.display()))(cause)),
    }
}

pub(super) fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(io_error(format!("removing {}", path.display()))(cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_worth_it_when_little_is_live_in_large_files() {
        let tidy = |live, files| is_worth_it(Need::Tidiness, live, files);
        assert!(tidy(0, 8 << 20));
        assert!(tidy(4 << 20, 40 << 20));
        assert!(!tidy(0, 7 << 20), "the files are small");
        assert!(!tidy(4 << 20, 11 << 20), "much of them is live");
        assert!(!tidy((4 << 20) + 1, 400 << 20), "the writer would wait for long");
    }

    #[test]
    fn on_a_disk_without_room_smaller_files_are_worth_it_and_larger_ones_too() {
        let room = |live, files| is_worth_it(Need::Room, live, files);
        assert!(room(0, 2 << 20) && room(50 << 20, 200 << 20));
        assert!(!room(0, 1 << 20), "an empty store takes half of that");
        assert!(!room(1 << 20, 2 << 20), "much of them is live");
    }
}
