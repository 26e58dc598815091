//! What can be told of a data directory and its outboxes without owning or opening them.
//!
//! The one rule: nothing here changes what is there. The probe for writing makes a file of a name of its own, and removes it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use super::{DataDirError, StoreError, ballast, data_dir, removal};
use crate::domain::SourceId;

/// The disk under a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that this user may still write.
    pub free_bytes: u64,
    /// Files that may still be made; `None` where the file system does not count them.
    pub free_inodes: Option<u64>,
}

/// The disk under a path that exists.
pub fn disk(path: &Path) -> io::Result<Disk> {
    let found = rustix::fs::statvfs(path)?;
    let free_inodes = (found.f_files > 0).then_some(found.f_favail);
    Ok(Disk { free_bytes: found.f_bavail.saturating_mul(found.f_frsize), free_inodes })
}

/// Whether a file in a folder may grow by so much, so that the disk keeps `reserve_bytes` for others, and capture does not have to pause. A disk
/// that does not say how much is free is told full when it is.
pub fn may_grow(folder: &Path, bytes: u64, reserve_bytes: u64) -> bool {
    let wanted = reserve_bytes.saturating_add(ballast::BESIDE_THE_RESERVE_BYTES).saturating_add(bytes);
    disk(folder).map_or(true, |disk| disk.free_bytes >= wanted)
}

/// Who owns a data directory now, as the owner wrote it down; `None` when nobody does.
///
/// The lock is tried in the shared mode and for an instant; an owner who comes in that instant waits for it.
pub fn owner(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder)?;
            Ok(Some(holder.split_whitespace().next().unwrap_or_default().to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The source id in a data directory; `None` before the first run.
pub fn source_id(path: &Path) -> Result<Option<SourceId>, DataDirError> {
    data_dir::read_source_id(path)
}

/// Whether there is an outbox in a destination's folder.
pub fn has_outbox(data_dir: &Path, destination: &str) -> Result<bool, StoreError> {
    Ok(data_dir::current(&data_dir.join(destination))?.is_some())
}

/// The names of all folders that hold an outbox, or what is left of one, in order.
pub fn outboxes(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data_dir)? {
        let path = entry?.path();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
        if removal::dropped_name(&name).is_none() && is_outbox(&path) {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a folder is an outbox: in use, damaged, one whose making was interrupted, or what an operator has done to one.
fn is_outbox(path: &Path) -> bool {
    let any = |name: &str| path.join(name).symlink_metadata().is_ok();
    let being_made = data_dir::store_path(path, 1).with_extension("making");
    let beside = [data_dir::PAUSED, data_dir::HISTORY, data_dir::DISCARDED].into_iter().any(any);
    any("CURRENT")
        || any("sidecar")
        || beside
        || being_made.is_dir()
        || data_dir::stores(path).is_ok_and(|stores| !stores.is_empty())
}

/// The names of outboxes whose removal was interrupted: the rest of them is still on the disk.
pub fn interrupted_removals(data_dir: &Path) -> io::Result<Vec<String>> {
    removal::interrupted(data_dir)
}

/// How many damaged stores an outbox has set aside.
pub fn set_aside(outbox: &Path) -> usize {
    fs::read_dir(outbox.join("aside")).map_or(0, Iterator::count)
}

/// How many exports of discarded rows lie in an outbox's folder.
pub fn discarded(outbox: &Path) -> usize {
    let is_part = |path: PathBuf| path.extension().is_some_and(|end| end == data_dir::PART);
    let entries = fs::read_dir(outbox.join(data_dir::DISCARDED)).into_iter().flatten().flatten();
    entries.filter(|entry| !is_part(entry.path())).count()
}

/// Whether a file can be made, written and removed in a directory.
pub fn probe(path: &Path) -> io::Result<()> {
    let file = path.join(format!(".packhorse-check-{}", std::process::id()));
    let written = File::create_new(&file).and_then(|mut made| made.write_all(b"packhorse check"));
    match written {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        written => {
            let removed = match fs::remove_file(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                removed => removed,
            };
            written.and(removed)
        }
    }
}

/// The nearest directory above a path that is not there, in which it would be made; an error when it cannot be.
pub fn maker(path: &Path) -> Result<PathBuf, (PathBuf, io::Error)> {
    let absolute = std::path::absolute(path).map_err(|error| (path.to_owned(), error))?;
    let above = absolute.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("/")).to_owned();
    if !above.is_dir() {
        return Err((above, io::ErrorKind::NotADirectory.into()));
    }
    match rustix::fs::access(&above, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => Ok(above),
        Err(error) => Err((above, error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::DataDir;

    #[test]
    fn an_owner_is_seen_and_stays_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner(dir.path()).unwrap(), None);
        let owned = DataDir::own(dir.path(), || 5).unwrap();
        assert_eq!(owner(dir.path()).unwrap(), Some(std::process::id().to_string()));
        assert!(DataDir::own(dir.path(), || 6).is_err());
        drop(owned);
        assert_eq!(owner(dir.path()).unwrap(), None);
    }

    #[test]
    fn who_looks_is_waited_for_and_not_taken_for_an_owner() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::own(dir.path(), || 5).unwrap());
        let looking = File::open(dir.path().join("lock")).unwrap();
        looking.try_lock_shared().unwrap();
        assert_eq!(owner(dir.path()).unwrap(), None);
        let path = dir.path().to_owned();
        let owner = std::thread::spawn(move || DataDir::own(&path, || 6).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(100));
        drop(looking);
        owner.join().unwrap().unwrap();
    }

    #[test]
    fn a_probe_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(probe(&dir.path().join("missing")).is_err());
        assert_eq!(maker(&dir.path().join("a/b/c")).unwrap(), dir.path());
        fs::write(dir.path().join("file"), "").unwrap();
        assert_eq!(maker(&dir.path().join("file/b")).unwrap_err().0, dir.path().join("file"));
    }
}
