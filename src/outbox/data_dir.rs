//! The data directory: one owner at a time, one source id for good, a folder for each destination.
//!
//! ```text
//! <data_dir>/lock                      held by the owner, for as long as it runs; its process id inside
//! <data_dir>/source-id                 the random identity of this gateway's database
//! <data_dir>/<destination>/CURRENT     the name of the store in use
//! <data_dir>/<destination>/gen-N/      stores; compaction makes the next one and switches CURRENT to it
//! <data_dir>/<destination>/sidecar      from where the source is captured again if the store is lost
//! <data_dir>/<destination>/ballast      bytes to give up when the disk is full
//! <data_dir>/<destination>/aside/       damaged stores; nothing reads them, and nothing deletes them
//! <data_dir>/<destination>/paused        an operator paused sending
//! <data_dir>/<destination>/history       a week's figures of each minute, for the status page
//! <data_dir>/<destination>/discarded/    parked rows that an operator discarded, exported; nothing deletes them but what was cut off (.part)
//! <data_dir>/<destination>/gen-N.making/    a store before its first commit, or all of its copy, is on the disk; nothing in it counts
//! <data_dir>/<destination>~dropped/     what an interrupted removal left: rubbish
//! ```
//!
//! The one rule: what is here and cannot be understood is left where it is, or renamed; it is never deleted but by whoever types its name.

use std::{
    fs::{File, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::store::{StoreError, fsync, io_error, sync_path};
use crate::domain::SourceId;

/// The file in an outbox's folder that says that an operator paused it.
pub const PAUSED: &str = "paused";
/// The file in an outbox's folder with the figures of the status page.
pub const HISTORY: &str = "history";
/// The folder in an outbox's folder that takes what is discarded.
pub const DISCARDED: &str = "discarded";
/// The end of the names of files there that are not whole: whoever was killed while writing one has dropped nothing of it.
pub const PART: &str = "part";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another packhorse owns it.
    #[error("{path} is in use by another packhorse{}: stop that one first", holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process id that the owner wrote down.
        holder: Option<String>,
    },
    /// It does not exist or cannot be written.
    #[error("cannot use data_dir {path}: give this user the right to write there, or set gateway.data_dir")]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The identity in it is not one.
    #[error(
        "{path} does not hold a source id (32 hexadecimal digits): restore it from a backup; a new one would make every row a new row"
    )]
    SourceId {
        /// The file.
        path: PathBuf,
    },
}

/// The data directory, owned by this process until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    source: SourceId,
    /// The lock ends with this handle.
    _lock: File,
}

impl DataDir {
    /// Becomes the owner for as long as the daemon runs; makes the directory and the source id where they are not there yet. Blocks a while where a
    /// command owns it.
    pub fn own(path: &Path, new_source_id: impl FnOnce() -> u128) -> Result<Self, DataDirError> {
        Self::own_as(path, Owner::Daemon, new_source_id)
    }

    /// The same for a command, which is waited for by who comes meanwhile.
    pub fn own_for_a_command(path: &Path, new_source_id: impl FnOnce() -> u128) -> Result<Self, DataDirError> {
        Self::own_as(path, Owner::Command, new_source_id)
    }

    fn own_as(path: &Path, owner: Owner, new_source_id: impl FnOnce() -> u128) -> Result<Self, DataDirError> {
        let unusable = |cause| DataDirError::Unusable { path: path.into(), cause };
        make_folder(path).map_err(unusable)?;
        let lock = lock(path, owner)?;
        let source = source_id(path, new_source_id)?;
        Ok(Self { path: path.into(), source, _lock: lock })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The identity of this gateway's database.
    pub fn source(&self) -> SourceId {
        self.source
    }

    /// The folder of a destination's outbox.
    pub fn outbox(&self, destination: &str) -> PathBuf {
        self.path.join(destination)
    }
}

/// So long the lock is waited for: somebody may just be looking whether it is held.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// So long a command is waited for: most of them open the outboxes, look and are gone.
const COMMAND_MAX: Duration = Duration::from_secs(20);
/// The pause between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// What a command writes behind its process id.
const FOR_A_COMMAND: &str = " for a command";

/// Who owns a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// The daemon, until it is stopped.
    Daemon,
    /// A command, until it is done.
    Command,
}

impl Owner {
    fn words(self) -> &'static str {
        match self {
            Self::Daemon => "",
            Self::Command => FOR_A_COMMAND,
        }
    }
}

/// The process that owns a data directory, as it wrote itself down; `None` when that cannot be read.
fn holder(file: &mut File) -> Option<(String, Owner)> {
    let mut text = String::new();
    file.rewind().and_then(|()| file.read_to_string(&mut text)).ok()?;
    let (pid, owner) = match text.strip_suffix(FOR_A_COMMAND) {
        Some(pid) => (pid, Owner::Command),
        None => (text.as_str(), Owner::Daemon),
    };
    Some((pid.trim().to_owned(), owner)).filter(|(pid, _)| !pid.is_empty())
}

/// Makes a folder and those above it, and their names durable: what is fsynced in a folder is lost with the folder's own name.
fn make_folder(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists()).count();
    std::fs::create_dir_all(path)?;
    // Once more than was missing: a process that was killed here may have made the folder and not its name durable.
    for (made, above) in path.ancestors().skip(1).take(missing.max(1)).enumerate() {
        match fsync(above) {
            // A folder that was there before, in one that this user may not even read.
            Err(error) if made >= missing && error.kind() == io::ErrorKind::PermissionDenied => {}
            result => result?,
        }
    }
    Ok(())
}

fn lock(path: &Path, owner: Owner) -> Result<File, DataDirError> {
    let unusable = |cause| DataDirError::Unusable { path: path.into(), cause };
    let options = File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock"));
    let mut file = options.map_err(unusable)?;
    let began = Instant::now();
    let taken = loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let patience = match holder(&mut file) {
                    Some((_, Owner::Command)) => COMMAND_MAX,
                    Some((_, Owner::Daemon)) | None => LOOK_MAX,
                };
                if began.elapsed() > patience {
                    break Err(TryLockError::WouldBlock);
                }
                std::thread::sleep(LOCK_PAUSE);
            }
            taken => break taken,
        }
    };
    match taken {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = holder(&mut file).map(|(pid, _)| pid);
            return Err(DataDirError::InUse { path: path.into(), holder });
        }
        Err(TryLockError::Error(cause)) => return Err(unusable(cause)),
    }
    // The process id is for people; that it cannot be written (a full disk) must not stop the owner.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}{}", std::process::id(), owner.words()));
    Ok(file)
}

fn source_id(path: &Path, new: impl FnOnce() -> u128) -> Result<SourceId, DataDirError> {
    if let Some(known) = read_source_id(path)? {
        // Whoever wrote it may have been killed before its name was durable.
        fsync(path).map_err(|cause| DataDirError::Unusable { path: path.into(), cause })?;
        return Ok(known);
    }
    let source = SourceId(new());
    replace_file(&path.join("source-id"), format!("{source}\n").as_bytes()).map_err(|error| match error {
        StoreError::Io { cause, .. } => DataDirError::Unusable { path: path.into(), cause },
        other => DataDirError::Unusable { path: path.into(), cause: io::Error::other(other) },
    })?;
    Ok(source)
}

/// The source id that was made at the first run; `None` before it.
pub(super) fn read_source_id(path: &Path) -> Result<Option<SourceId>, DataDirError> {
    let file = path.join("source-id");
    match std::fs::read_to_string(&file) {
        Ok(text) if text.trim().len() == 32 => text.parse().map(Some).map_err(|_| DataDirError::SourceId { path: file }),
        Ok(_) => Err(DataDirError::SourceId { path: file }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(DataDirError::SourceId { path: file }),
        Err(cause) => Err(DataDirError::Unusable { path: path.into(), cause }),
    }
}

/// Writes a small file so that after a crash there is the old content or the new one, and after `Ok` the new one.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let temporary = path.with_extension("new");
    let written = File::create(&temporary).and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()));
    written.map_err(io_error(format!("writing {}", temporary.display())))?;
    std::fs::rename(&temporary, path).map_err(io_error(format!("renaming {}", temporary.display())))?;
    path.parent().map_or(Ok(()), sync_path)
}

/// Removes a file, if it is there, so that after `Ok` it stays away.
pub(crate) fn remove_file(path: &Path) -> Result<(), StoreError> {
    let Some(folder) = path.parent().filter(|folder| folder.as_os_str().is_empty() || folder.exists()) else { return Ok(()) };
    match std::fs::remove_file(path) {
        // Whoever removed it may have been killed before that was durable.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error(format!("removing {}", path.display()))(error));
        }
        Ok(()) | Err(_) => {}
    }
    sync_path(folder)
}

/// The folder of the store in use, under a destination's folder; `None` when there never was one.
pub(super) fn current(outbox: &Path) -> Result<Option<PathBuf>, StoreError> {
    let file = outbox.join("CURRENT");
    let name = match std::fs::read_to_string(&file) {
        Ok(name) => name,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::IsADirectory) => {
            return Err(StoreError::Damaged { path: outbox.into(), what: format!("CURRENT does not name a store: {error}") });
        }
        Err(cause) => return Err(io_error(format!("reading {}", file.display()))(cause)),
    };
    let store = outbox.join(name.trim());
    let damaged = |what: String| Err(StoreError::Damaged { path: outbox.into(), what });
    if !is_store_name(name.trim()) {
        return damaged(format!("CURRENT does not name a store: {:?}", name.trim()));
    }
    if !store.join("db").is_file() {
        return damaged(format!("CURRENT names {}, which is not there", name.trim()));
    }
    Ok(Some(store))
}

/// What CURRENT names, whether it is there or not.
pub(super) fn current_name(outbox: &Path) -> Option<String> {
    let name = std::fs::read_to_string(outbox.join("CURRENT")).ok()?;
    Some(name.trim().to_owned()).filter(|name| is_store_name(name))
}

/// Makes a store the one in use.
pub(super) fn set_current(outbox: &Path, store: &Path) -> Result<(), StoreError> {
    let name = store.file_name().unwrap_or_default().to_string_lossy();
    replace_file(&outbox.join("CURRENT"), format!("{name}\n").as_bytes())
}

/// Stores under a destination's folder, oldest first.
pub(super) fn stores(outbox: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let is_store = |path: &PathBuf| path.file_name().is_some_and(|name| is_store_name(&name.to_string_lossy()));
    Ok(listed(outbox)?.into_iter().filter(is_store).collect())
}

fn listed(outbox: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match std::fs::read_dir(outbox) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(format!("listing {}", outbox.display()))(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.map_err(io_error(format!("listing {}", outbox.display())))?;
    paths.sort();
    Ok(paths)
}

/// Stores under a destination's folder that were never finished.
pub(super) fn unfinished(outbox: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let is_making = |path: &PathBuf| {
        let is_store = path.file_stem().is_some_and(|stem| is_store_name(&stem.to_string_lossy()));
        is_store && path.extension().is_some_and(|end| end == "making")
    };
    Ok(listed(outbox)?.into_iter().filter(is_making).collect())
}

/// Removes exports that were cut off before any row of them was dropped. That it fails is no reason not to open an outbox.
pub(super) fn remove_parts(outbox: &Path) {
    let is_part = |path: &PathBuf| path.extension().is_some_and(|end| end == PART);
    let parts = listed(&outbox.join(DISCARDED)).unwrap_or_default().into_iter().filter(is_part);
    for part in parts {
        match std::fs::remove_file(&part) {
            Ok(()) => tracing::info!(file = %part.display(), "an export that was cut off is removed: its rows are parked still"),
            Err(error) => tracing::warn!(file = %part.display(), %error, "an export that was cut off cannot be removed"),
        }
    }
}

/// The folder for the `number`th store.
pub(super) fn store_path(outbox: &Path, number: usize) -> PathBuf {
    outbox.join(format!("gen-{number:06}"))
}

/// Which store a folder is.
pub(super) fn store_number(path: &Path) -> Option<usize> {
    path.file_name()?.to_str()?.strip_prefix("gen-")?.parse().ok()
}

fn is_store_name(name: &str) -> bool {
    name.strip_prefix("gen-").is_some_and(|number| number.len() == 6 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_id_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::own(dir.path(), || 5).unwrap().source();
        assert_eq!(DataDir::own(dir.path(), || 6).unwrap().source(), first);
    }

    #[test]
    fn a_second_owner_is_refused_and_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let _owner = DataDir::own(dir.path(), || 5).unwrap();
        let error = DataDir::own(dir.path(), || 6).unwrap_err();
        assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn a_command_that_looks_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let looking = DataDir::own_for_a_command(dir.path(), || 5).unwrap();
        assert_eq!(super::super::look::owner(dir.path()).unwrap(), Some(std::process::id().to_string()));
        let looks = std::thread::spawn(move || {
            std::thread::sleep(2 * LOOK_MAX);
            drop(looking);
        });
        let daemon = DataDir::own(dir.path(), || 6).unwrap();
        looks.join().unwrap();
        assert_eq!(daemon.source(), SourceId(5));
    }

    #[test]
    fn a_garbled_source_id_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["", "123", "zz", "0000000000000000000000000000000g"] {
            std::fs::write(dir.path().join("source-id"), content).unwrap();
            assert!(matches!(DataDir::own(dir.path(), || 6), Err(DataDirError::SourceId { .. })), "{content:?}");
            assert_eq!(std::fs::read_to_string(dir.path().join("source-id")).unwrap(), content);
        }
    }

    #[test]
    fn a_current_that_names_nothing_is_damage_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        for content in ["gen-000001", "../elsewhere", ""] {
            std::fs::write(dir.path().join("CURRENT"), content).unwrap();
            assert!(matches!(current(dir.path()), Err(StoreError::Damaged { .. })), "{content:?}");
        }
    }
}
