//! The [`Disk`] as a file system that programs can use, over FUSE.
//!
//! Each life of the machine is a mount of its own at a fresh place, so that no page cache outlives a power loss. Within a life the kernel
//! keeps its pages as it does for any disk, also those whose fsync failed.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use rustix::mount::UnmountFlags;

use crate::disk::{self, Cut, Disk, Fault, Ino, Node, Survives};

/// Names and sizes change only through the mount itself.
const TTL: Duration = Duration::from_hours(1);

/// A machine with a disk that forgets.
pub struct Machine {
    disk: Arc<Mutex<Disk>>,
    places: tempfile::TempDir,
    mounts: u64,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new() -> Self {
        Self { disk: Arc::new(Mutex::new(Disk::new())), places: tempfile::tempdir().unwrap(), mounts: 0 }
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }

    /// Mounts what survived.
    pub fn boot(&mut self) -> Life {
        self.try_boot().expect("mounting worked before")
    }

    fn try_boot(&mut self) -> io::Result<Life> {
        self.mounts += 1;
        let place = self.places.path().join(format!("life-{}", self.mounts));
        std::fs::create_dir(&place)?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("lossy".into())];
        let fs = LossyFs { disk: Arc::clone(&self.disk), life: self.disk().life(), handles: AtomicU64::new(1) };
        let session = fuser::spawn_mount(fs, &place, &config)?;
        Ok(Life { place, session: Some(session) })
    }

    pub fn arm(&self, cut: Cut) {
        self.disk().arm(cut);
    }

    pub fn set_fault(&self, fault: Option<Fault>) {
        self.disk().set_fault(fault);
    }

    pub fn cut_power(&self) {
        self.disk().cut_power();
    }

    pub fn lose_power(&self, survives: Survives, seed: u64) {
        self.disk().lose_power(survives, seed);
    }
}

/// Whether such a machine can be built here; says why not.
pub fn is_available() -> bool {
    let tried = if Path::new("/dev/fuse").exists() {
        Machine::new().try_boot().map(drop)
    } else {
        Err(io::Error::new(io::ErrorKind::NotFound, "there is no /dev/fuse"))
    };
    if let Err(why) = &tried {
        println!("SKIPPED: no power loss without a FUSE file system: {why} (mounting needs root, or fusermount3)");
    }
    tried.is_ok()
}

/// One mount; unmounted when it is dropped, whoever still has files open there.
pub struct Life {
    place: PathBuf,
    session: Option<BackgroundSession>,
}

impl Life {
    pub fn path(&self) -> &Path {
        &self.place
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // As root: even while a background thread still holds a file, whose requests end here. Without root, fuser asks fusermount.
        let _ = rustix::mount::unmount(&self.place, UnmountFlags::FORCE | UnmountFlags::DETACH);
        drop(self.session.take());
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

struct LossyFs {
    disk: Arc<Mutex<Disk>>,
    life: u64,
    handles: AtomicU64,
}

impl LossyFs {
    fn with<T>(&self, work: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut disk = lock(&self.disk);
        disk.request(self.life)?;
        work(&mut disk)
    }

    fn handle(&self) -> FileHandle {
        FileHandle(self.handles.fetch_add(1, Ordering::Relaxed))
    }
}

fn attr(disk: &Disk, ino: Ino) -> Result<FileAttr, Errno> {
    let (kind, perm, size) = match disk.node(ino)? {
        Node::File { current, .. } => (FileType::RegularFile, 0o644, current.len() as u64),
        Node::Folder { .. } => (FileType::Directory, 0o755, 0),
    };
    let epoch = SystemTime::UNIX_EPOCH;
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: epoch,
        mtime: epoch,
        ctime: epoch,
        crtime: epoch,
        kind,
        perm,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    })
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

fn answer_attr(reply: ReplyAttr, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for LossyFs {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(reply, self.with(|disk| disk.look_up(parent.0, name).and_then(|ino| attr(disk, ino))));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer_attr(reply, self.with(|disk| attr(disk, ino.0)));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let result = self.with(|disk| {
            if let Some(size) = size {
                disk.resize(ino.0, size as usize)?;
            }
            attr(disk, ino.0)
        });
        answer_attr(reply, result);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let result = self.with(|disk| disk.create(parent.0, name, disk::folder()).and_then(|ino| attr(disk, ino)));
        answer_entry(reply, result);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.with(|disk| disk.remove(parent.0, name)));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.with(|disk| disk.remove(parent.0, name)));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        answer(reply, self.with(|disk| disk.rename(parent.0, name, newparent.0, newname)));
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let allowed = self.with(|disk| if flags.acc_mode() == OpenAccMode::O_RDONLY { Ok(()) } else { disk.open_to_write() });
        match allowed {
            Ok(()) => reply.opened(self.handle(), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.with(|disk| disk.create(parent.0, name, disk::file()).and_then(|ino| attr(disk, ino))) {
            Ok(attr) => reply.created(&TTL, &attr, Generation(0), self.handle(), FopenFlags::FOPEN_KEEP_CACHE),
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let result = self.with(|disk| match disk.node(ino.0)? {
            Node::File { current, .. } => {
                let from = (offset as usize).min(current.len());
                let to = (from + size as usize).min(current.len());
                Ok(current[from..to].to_vec())
            }
            Node::Folder { .. } => Err(Errno::EISDIR),
        });
        match result {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let result = self.with(|disk| disk.write(ino.0, offset as usize, bytes));
        if result.is_err() && lock(&self.disk).fault() == Some(Fault::WriteFailsLate) {
            std::thread::sleep(Duration::from_millis(30));
        }
        match result {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    /// Called at each close(), where it makes nothing durable. Unknown here, so that the kernel does not ask: a process that ends with
    /// files still open would wait for the answer of its own threads, which are gone.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.with(|disk| disk.fsync(ino.0, handle.0)));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(self.handle(), FopenFlags::empty());
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer(reply, self.with(|disk| disk.fsync(ino.0, handle.0)));
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let result = self.with(|disk| match disk.node(ino.0)? {
            Node::Folder { current, .. } => current
                .iter()
                .map(|(name, &ino)| attr(disk, ino).map(|attr| (attr.kind, ino, name.clone())))
                .collect::<Result<Vec<_>, _>>(),
            Node::File { .. } => Err(Errno::ENOTDIR),
        });
        match result {
            Ok(entries) => {
                for (place, (kind, ino, name)) in entries.into_iter().enumerate().skip(offset as usize) {
                    if reply.add(INodeNo(ino), place as u64 + 1, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let blocks = 1 << 20;
        reply.statfs(blocks, blocks, blocks, blocks, blocks, 4_096, 255, 4_096);
    }
}
