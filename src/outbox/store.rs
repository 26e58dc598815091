//! sled behind one door: open, read, commit. Nothing else in packhorse names it.
//!
//! What sled 0.34.7 does not do by itself is done here: its `flush` ends in `sync_file_range`, so each commit is followed by an fdatasync
//! of its file through a handle of our own; what it creates is fsynced once; its panics and leftovers at open are caught and cleared;
//! after an error it is not used again until it has been reopened; a flush that an error left waiting is woken ([`Waker`]).
//!
//! The one rule (I2): [`Store::commit`] returns `Ok` only when everything in it is on the disk.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    format,
    parked_copy::{self, Keeping, Kept},
};
use crate::edge;

/// Memory for sled's page cache; its default is 1 GB.
const CACHE_BYTES: u64 = 16 << 20;

/// sled's background threads hold its lock for a moment after the last handle is dropped.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How often is looked whether a call waits in vain.
const WAKE_EVERY: Duration = Duration::from_secs(1);

/// Why a store did not open or work. The files are as they were.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or its file system.
    #[error("the disk under the outbox failed: {context}")]
    Io {
        /// What was being done.
        context: String,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// The files are not what a store leaves behind.
    #[error(
        "the outbox at {path} is damaged: {what}; nothing was changed: `packhorse run` sets it aside and captures its rows from the source again"
    )]
    Damaged {
        /// Its folder.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Written by another version of this program.
    #[error(
        "the outbox at {path} has format version {found}, this program knows version {known}: run the packhorse that wrote it, or let it drain first"
    )]
    Format {
        /// Its folder.
        path: PathBuf,
        /// The version found.
        found: u16,
        /// The version known.
        known: u16,
    },
    /// It holds the rows of another source or for another destination.
    #[error("the outbox at {path} is not ours: {what}; give this destination another name, or this gateway its own data_dir")]
    Foreign {
        /// Its folder.
        path: PathBuf,
        /// Whose it is.
        what: String,
    },
    /// An earlier error closed it; it has to be reopened.
    #[error("the outbox was closed after an earlier error")]
    Closed,
    /// Another process holds it.
    #[error("the outbox at {path} is in use by another process")]
    InUse {
        /// Its folder.
        path: PathBuf,
    },
}

/// A key with its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// An atomic change: all of it is stored, or nothing.
#[derive(Default)]
pub(super) struct Change {
    batch: sled::Batch,
    /// What of it goes into the copy of parked rows too; of one key only what it does last.
    kept: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Change {
    pub(super) fn put(&mut self, key: impl AsRef<[u8]>, value: Vec<u8>) {
        if format::is_kept_twice(key.as_ref(), &value) {
            self.kept.insert(key.as_ref().to_vec(), Some(value.clone()));
        }
        self.batch.insert(key.as_ref(), value);
    }

    pub(super) fn remove(&mut self, key: impl AsRef<[u8]>) {
        if format::is_kept_twice(key.as_ref(), &[]) {
            self.kept.insert(key.as_ref().to_vec(), None);
        }
        self.batch.remove(key.as_ref());
    }
}

/// An open store.
pub(super) struct Store {
    path: PathBuf,
    /// `None` only while it is being dropped.
    db: Option<sled::Db>,
    /// The same file as sled's, for the fdatasync that sled does not do.
    file: File,
    /// After an error sled may hold what is not on the disk, and a second fdatasync would report a success that is none.
    failed: AtomicBool,
    waker: Waker,
    /// Opened when there is something to write into it.
    copy: Mutex<Option<Box<Keeping>>>,
}

impl Store {
    /// Opens the store in a folder, which is created when it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let fresh = !path.join("db").exists();
        remove_unfinished_snapshots(path)?;
        forget_cached_pages(&path.join("db"))?;
        // Without its background flusher, which only logs errors: every commit flushes.
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = match open_sled(&config) {
            Ok(db) => db,
            Err(OpenFailure::Io(cause)) if is_locked(&cause) => {
                return Err(StoreError::InUse { path: path.into() });
            }
            Err(OpenFailure::Io(cause)) => return Err(io_error(format!("opening {}", path.display()))(cause)),
            Err(OpenFailure::Damage(first)) if !fresh => {
                // A snapshot only shortens the way; without it sled reads its whole log.
                tracing::warn!(path = %path.display(), cause = first, "the outbox did not open: trying again without its snapshots");
                set_snapshots_aside(path)?;
                open_sled(&config).map_err(|second| match second {
                    OpenFailure::Io(cause) => io_error(format!("opening {}", path.display()))(cause),
                    OpenFailure::Damage(what) => StoreError::Damaged { path: path.into(), what },
                })?
            }
            Err(OpenFailure::Damage(what)) => return Err(StoreError::Damaged { path: path.into(), what }),
        };
        let file = File::open(path.join("db")).map_err(io_error("opening the store's file"))?;
        let waker = Waker::start(config).map_err(io_error("starting a thread"))?;
        let store = Self { path: path.into(), db: Some(db), file, failed: AtomicBool::new(false), waker, copy: Mutex::default() };
        store.sync_creation()?;
        Ok(store)
    }

    /// What sled creates, and the names of it, are on the disk from here on.
    fn sync_creation(&self) -> Result<(), StoreError> {
        self.file.sync_all().map_err(io_error("fsync of the store's file"))?;
        for made in [self.path.join("conf"), self.path.clone()] {
            sync_path(&made)?;
        }
        self.path.parent().map_or(Ok(()), sync_path)
    }

    /// Whether no commit of it has failed.
    pub(super) fn is_well(&self) -> bool {
        !self.failed.load(Ordering::Acquire)
    }

    /// From here on it answers only `Closed`, as after an error of its own.
    pub(super) fn give_up(&self) {
        self.failed.store(true, Ordering::Release);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn db(&self) -> Result<&sled::Db, StoreError> {
        if self.failed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        self.db.as_ref().ok_or(StoreError::Closed)
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let db = self.db()?;
        let value = self.guarded("reading", || db.get(key))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// The entries whose keys begin with `prefix`, in key order, from `from` on (inclusive).
    pub(super) fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<Entry, StoreError>> + use<'_>, StoreError> {
        let prefix = prefix.to_vec();
        let mut range = self.db()?.range(from.to_vec()..);
        Ok(std::iter::from_fn(move || {
            let (key, value) = match self.guarded("reading", || range.next().transpose()) {
                Ok(entry) => entry?,
                Err(error) => return Some(Err(error)),
            };
            key.starts_with(&prefix).then(|| Ok((key.to_vec(), value.to_vec())))
        }))
    }

    /// The last entry whose key is at most `key` and begins with `prefix`.
    pub(super) fn last_up_to(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Entry>, StoreError> {
        let db = self.db()?;
        let entry = self.guarded("reading", || db.range(..=key.to_vec()).next_back().transpose())?;
        Ok(entry.filter(|(key, _)| key.starts_with(prefix)).map(|(key, value)| (key.to_vec(), value.to_vec())))
    }

    /// Stores a change. On `Ok` it is on the disk; on an error nobody knows, and the store answers only `Closed` until it is reopened.
    pub(super) fn commit(&self, change: Change) -> Result<(), StoreError> {
        let Change { batch, kept } = change;
        if kept.is_empty() {
            return self.commit_batch(batch);
        }
        self.db()?;
        let kept: Vec<Kept> = kept.into_iter().collect();
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        self.kept_with(&mut copy, |copy| copy.put(&kept))?;
        self.commit_batch(batch)?;
        self.kept_with(&mut copy, |copy| {
            copy.forget(&kept);
            if copy.is_stale() { copy.rewrite(self.kept_twice()) } else { Ok(()) }
        })
    }

    /// Brings the copy of parked rows to what is here: for a store that has been found whole.
    pub(super) fn mend_copy(&self) -> Result<(), StoreError> {
        let mut copy = self.copy.lock().unwrap_or_else(PoisonError::into_inner);
        self.kept_with(&mut copy, |copy| copy.mend(self.kept_twice()))
    }

    /// Does something with the copy of parked rows; an error in it closes the store.
    fn kept_with(
        &self,
        copy: &mut Option<Box<Keeping>>,
        doing: impl FnOnce(&mut Keeping) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let done = match copy {
            Some(copy) => doing(copy),
            None => Keeping::open(&self.path).and_then(|opened| doing(copy.insert(Box::new(opened)))),
        };
        done.inspect_err(|_| self.give_up())
    }

    /// Everything that is in the copy of parked rows too.
    fn kept_twice(&self) -> impl Iterator<Item = Result<Entry, StoreError>> + use<'_> {
        let of = |prefix: &'static [u8]| match self.scan(prefix, prefix) {
            Ok(entries) => (Some(entries), None),
            Err(error) => (None, Some(Err(error))),
        };
        let all = format::KEPT_TWICE.into_iter().map(of);
        let all = all.flat_map(|(entries, error)| entries.into_iter().flatten().chain(error));
        all.filter(|entry| entry.as_ref().map_or(true, |(key, value)| format::is_kept_twice(key, value)))
    }

    fn commit_batch(&self, batch: sled::Batch) -> Result<(), StoreError> {
        let db = self.db()?;
        self.guarded("committing", || {
            self.waker.while_waiting(db, || {
                db.apply_batch(batch)?;
                db.flush()
            })
        })?;
        edge::pass("commit:flushed");
        #[cfg(debug_assertions)]
        if std::env::var_os("PACKHORSE_TEST_PLAIN_FLUSH").is_some() {
            // The negative control of the power-loss tests: sled's flush alone.
            return Ok(());
        }
        self.file.sync_data().map_err(|cause| {
            self.failed.store(true, Ordering::Release);
            io_error("fdatasync of the store's file")(cause)
        })?;
        edge::pass("commit:synced");
        Ok(())
    }

    /// Bytes of its files that become fewer when it is compacted: all but the copy of parked rows.
    pub(super) fn sled_bytes(&self) -> u64 {
        self.disk_bytes().saturating_sub(parked_copy::bytes(&self.path))
    }

    /// Bytes that the store's files take on the disk.
    pub(super) fn disk_bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.metadata().ok()).filter(std::fs::Metadata::is_file).map(|meta| meta.len()).sum()
    }

    /// Runs a call of sled's; an error or a panic in it closes the store.
    fn guarded<T>(&self, doing: &str, call: impl FnOnce() -> sled::Result<T>) -> Result<T, StoreError> {
        let result = caught(call);
        if !matches!(result, Ok(Ok(_))) {
            self.failed.store(true, Ordering::Release);
        }
        match result {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(sled::Error::Io(cause))) => Err(io_error(format!("{doing} {}", self.path.display()))(cause)),
            Ok(Err(other)) => Err(StoreError::Damaged { path: self.path.clone(), what: other.to_string() }),
            Err(panic) => Err(StoreError::Damaged { path: self.path.clone(), what: panic_text(panic.as_ref()) }),
        }
    }
}

impl Drop for Store {
    /// sled syncs when it is dropped and unwraps the result: a failing disk must not end the process.
    fn drop(&mut self) {
        let db = self.db.take();
        let closing = || {
            // What sled would flush by itself, where nobody could wake it. Its error has been told, or nothing hangs on it.
            if let Some(db) = &db {
                let _ = self.waker.while_waiting(db, || db.flush());
            }
            self.waker.stop();
            drop(db);
        };
        if let Err(panic) = caught(closing) {
            tracing::warn!(path = %self.path.display(), cause = panic_text(panic.as_ref()), "closing the outbox failed: what was committed is on the disk");
        }
    }
}

/// Ends waiting that would never end. When a background write fails, sled 0.34.7 notes the error and does not wake those who wait for
/// that write (its pagecache/logger.rs, `exit_reservation`). A second flush sees the error, fails at once, and wakes them.
struct Waker {
    shared: Arc<(Mutex<Waiting>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

enum Waiting {
    Nobody,
    /// A call into this database, which may be waiting for a write.
    Call(sled::Db),
    /// The store is being closed.
    Stopped,
}

impl Waker {
    fn start(config: sled::Config) -> io::Result<Self> {
        let shared = Arc::new((Mutex::new(Waiting::Nobody), Condvar::new()));
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("outbox-waker".into()).spawn(move || {
            let (waiting, changed) = &*theirs;
            let mut now = lock(waiting);
            while !matches!(*now, Waiting::Stopped) {
                now = changed.wait_timeout(now, WAKE_EVERY).unwrap_or_else(PoisonError::into_inner).0;
                if let Waiting::Call(db) = &*now
                    && config.global_error().is_err()
                {
                    let db = db.clone();
                    drop(now);
                    let _ = caught(|| db.flush());
                    drop(db);
                    now = lock(waiting);
                }
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn while_waiting<T>(&self, db: &sled::Db, call: impl FnOnce() -> T) -> T {
        let (waiting, _) = &*self.shared;
        *lock(waiting) = Waiting::Call(db.clone());
        let result = call();
        *lock(waiting) = Waiting::Nobody;
        result
    }

    /// From here on it holds no database any more.
    fn stop(&mut self) {
        let (waiting, changed) = &*self.shared;
        *lock(waiting) = Waiting::Stopped;
        changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Catches a panic of sled's, which is told as an error: it is not printed as well. Panics of our own are printed as ever.
fn caught<T>(call: impl FnOnce() -> T) -> std::thread::Result<T> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let is_sleds = std::thread::current().name().is_some_and(|name| name.starts_with("sled"));
            if is_sleds || IS_CAUGHT.get() {
                tracing::debug!(%panic, "sled panicked");
            } else {
                print(panic);
            }
        }));
    });
    let outer = IS_CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    IS_CAUGHT.set(outer);
    result
}

enum OpenFailure {
    Io(io::Error),
    Damage(String),
}

fn open_sled(config: &sled::Config) -> Result<sled::Db, OpenFailure> {
    let begun = Instant::now();
    loop {
        match try_open_sled(config) {
            Err(OpenFailure::Io(cause)) if is_locked(&cause) && begun.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn is_locked(cause: &io::Error) -> bool {
    cause.to_string().contains("could not acquire lock")
}

fn try_open_sled(config: &sled::Config) -> Result<sled::Db, OpenFailure> {
    match caught(|| config.open()) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(cause))) => Err(OpenFailure::Io(cause)),
        Ok(Err(other)) => Err(OpenFailure::Damage(other.to_string())),
        Err(panic) => Err(OpenFailure::Damage(panic_text(panic.as_ref()))),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("sled panicked").lines().next().unwrap_or_default().to_owned()
}

fn snapshots(path: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io_error(format!("listing {}", path.display()))(error)),
    };
    let names = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let names = names.map_err(io_error(format!("listing {}", path.display())))?;
    Ok(names
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")))
        .collect())
}

/// A crash while sled wrote a snapshot leaves a file that makes it refuse to open.
/// They are of a life that has ended: one that still has the store locked is about to finish them.
fn remove_unfinished_snapshots(path: &Path) -> Result<(), StoreError> {
    let file = match File::open(path.join("db")) {
        Ok(file) => Some(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(cause) => return Err(io_error(format!("opening {}", path.join("db").display()))(cause)),
    };
    // As sled locks it, until the end of this function.
    let lock = file.as_ref().map(|file| rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive));
    if matches!(lock, Some(Err(rustix::io::Errno::WOULDBLOCK))) {
        return Ok(());
    }
    for snapshot in snapshots(path)?.iter().filter(|path| path.extension().is_some_and(|end| end == "generating")) {
        std::fs::remove_file(snapshot).map_err(io_error(format!("removing {}", snapshot.display())))?;
    }
    Ok(())
}

/// After a failed fsync the kernel shows pages as written that the disk does not have, also to the next who opens the file: what is read
/// from here on is what is on the disk. (What is still to be written is not forgotten by this, so it is written first.)
pub(super) fn forget_cached_pages(path: &Path) -> Result<(), StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error(format!("opening {}", path.display()))(error)),
    };
    let forgotten = file.sync_data().and_then(|()| Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?));
    forgotten.map_err(io_error(format!("fdatasync of {}", path.display())))
}

fn set_snapshots_aside(path: &Path) -> Result<(), StoreError> {
    let aside = path.join("aside");
    std::fs::create_dir_all(&aside).map_err(io_error(format!("creating {}", aside.display())))?;
    for snapshot in snapshots(path)? {
        let to = aside.join(snapshot.file_name().unwrap_or_default());
        std::fs::rename(&snapshot, &to).map_err(io_error(format!("moving {}", snapshot.display())))?;
    }
    sync_path(path)
}

pub(super) fn io_error(context: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
    let context = context.into();
    move |cause| StoreError::Io { context, cause }
}

/// Makes a file's content, or a folder's names, durable.
pub(super) fn sync_path(path: &Path) -> Result<(), StoreError> {
    fsync(path).map_err(io_error(format!("fsync of {}", path.display())))
}

/// The same, for those who have errors of their own.
pub(super) fn fsync(path: &Path) -> io::Result<()> {
    // The parent of a relative name is the empty path.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}
