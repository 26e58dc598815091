//! Removing the outbox of a destination that nobody wants any more.
//!
//! ```text
//! <data_dir>/<destination>/  ─ rename ─▶  <data_dir>/<destination>~dropped/  ─ remove ─▶  (nothing)
//! ```
//!
//! The one rule: what is half removed never has a destination's name (`~` is in none), so that nobody takes it for an outbox, and least of
//! all for a fresh one. The rename decides; whoever is interrupted after it goes on with removing.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    DataDir, StoreError,
    store::{io_error, sync_path},
};

/// The end of a folder's name that is being removed.
const DROPPED: &str = "~dropped";

/// Of which outbox a folder is what an interrupted removal left.
pub(super) fn dropped_name(folder: &str) -> Option<&str> {
    folder.strip_suffix(DROPPED)
}

/// The names of outboxes whose removal was interrupted, in order.
pub(super) fn interrupted(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data_dir)? {
        let folder = entry?.file_name();
        found.extend(folder.to_str().and_then(dropped_name).map(str::to_owned));
    }
    found.sort();
    Ok(found)
}

impl DataDir {
    /// Removes an outbox with everything in its folder, also what was set aside. After `Ok` nothing of it is there; after an error either
    /// all of it is there, or what is left is found by [`DataDir::finish_removals`].
    ///
    /// # Errors
    /// When the folder is a symbolic link, whose target is not ours to remove, or the disk refuses.
    pub fn remove_outbox(&self, name: &str) -> Result<(), StoreError> {
        let (folder, dropped) = (self.outbox(name), self.dropped(name));
        let meta = fs::symlink_metadata(&folder).map_err(io_error(format!("looking at {}", folder.display())))?;
        if !meta.is_dir() {
            return Err(io_error(format!("{} is not a folder but a link or a file, which is left as it is", folder.display()))(
                io::ErrorKind::NotADirectory.into(),
            ));
        }
        remove(&dropped)?;
        fs::rename(&folder, &dropped).map_err(io_error(format!("renaming {}", folder.display())))?;
        sync_path(self.path())?;
        remove(&dropped)?;
        sync_path(self.path())
    }

    /// Goes on with removals that were interrupted. Gives the names of the outboxes that these were.
    pub fn finish_removals(&self) -> Result<Vec<String>, StoreError> {
        let names = interrupted(self.path()).map_err(io_error(format!("listing {}", self.path().display())))?;
        for name in &names {
            remove(&self.dropped(name))?;
        }
        if !names.is_empty() {
            sync_path(self.path())?;
        }
        Ok(names)
    }

    fn dropped(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}{DROPPED}"))
    }
}

fn remove(folder: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(folder) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(io_error(format!("removing {}", folder.display()))(cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::look;

    /// All that an outbox's folder may hold.
    const FILES: [&str; 7] = [
        "CURRENT",
        "sidecar",
        "gen-000001/db",
        "aside/gen-000000-before-1/db",
        "history",
        "paused",
        "discarded/2026-01-01T000000-000000.jsonl",
    ];

    /// A data directory with an outbox as files alone.
    fn with_outbox() -> (tempfile::TempDir, DataDir) {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::own(dir.path(), || 5).unwrap();
        let outbox = data_dir.outbox("former");
        fs::create_dir_all(outbox.join("gen-000001")).unwrap();
        fs::create_dir_all(outbox.join("aside/gen-000000-before-1")).unwrap();
        fs::create_dir_all(outbox.join("discarded")).unwrap();
        for file in FILES {
            fs::write(outbox.join(file), "x").unwrap();
        }
        (dir, data_dir)
    }

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_outbox_goes_with_all_that_is_in_its_folder_and_nothing_else_does() {
        let (dir, data_dir) = with_outbox();
        fs::create_dir(dir.path().join("other")).unwrap();
        data_dir.remove_outbox("former").unwrap();
        assert_eq!(names(dir.path()), ["lock", "other", "source-id"]);
        assert!(data_dir.remove_outbox("former").is_err(), "there is none any more");
    }

    #[test]
    fn wherever_a_removal_is_interrupted_it_is_no_outbox_and_is_gone_on_with() {
        // A folder is removed entry by entry: each of these may be left.
        for left in FILES.into_iter().chain([""]) {
            let (dir, data_dir) = with_outbox();
            let half = dir.path().join("former~dropped");
            fs::rename(data_dir.outbox("former"), &half).unwrap();
            for file in FILES {
                if file != left {
                    fs::remove_file(half.join(file)).unwrap();
                }
            }
            assert_eq!(look::outboxes(dir.path()).unwrap(), Vec::<String>::new(), "{left:?}");
            assert_eq!(look::interrupted_removals(dir.path()).unwrap(), ["former"], "{left:?}");
            // A new outbox of that name may be dropped as well before anyone has gone on.
            fs::create_dir(data_dir.outbox("former")).unwrap();
            data_dir.remove_outbox("former").unwrap();
            assert_eq!(names(dir.path()), ["lock", "source-id"], "{left:?}");
            fs::create_dir(&half).unwrap();
            assert_eq!(data_dir.finish_removals().unwrap(), ["former"]);
            assert_eq!(names(dir.path()), ["lock", "source-id"], "{left:?}");
        }
    }

    #[test]
    fn each_thing_that_an_operator_left_in_a_folder_makes_it_one_that_can_be_dropped() {
        for file in ["history", "paused", "discarded"] {
            let dir = tempfile::tempdir().unwrap();
            let data_dir = DataDir::own(dir.path(), || 5).unwrap();
            fs::create_dir(data_dir.outbox("former")).unwrap();
            assert_eq!(look::outboxes(dir.path()).unwrap(), Vec::<String>::new());
            fs::write(data_dir.outbox("former").join(file), "x").unwrap();
            assert_eq!(look::outboxes(dir.path()).unwrap(), ["former"], "{file}");
        }
    }

    #[test]
    fn a_link_is_left_as_it_is() {
        let (dir, data_dir) = with_outbox();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("CURRENT"), "x").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("linked")).unwrap();
        assert!(data_dir.remove_outbox("linked").is_err());
        assert!(elsewhere.path().join("CURRENT").exists() && dir.path().join("linked").exists());
    }
}
