//! What a disk keeps when the power goes: a model of files, folders, and what of them was fsynced.
//!
//! Everything exists twice: as programs see it now (`current`), and as it is on the platter (`durable`). In between lie the operations that
//! nobody has fsynced yet, in order. An fsync of a file moves its writes to the platter, an fsync of a folder its names; and nothing else
//! does. A file whose content is durable is still lost with its name.
//!
//! The one rule: only [`Disk::fsync`] and [`Disk::lose_power`] touch what is durable.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::{OsStr, OsString},
};

use fuser::Errno;
use rand::{Rng, SeedableRng, rngs::StdRng};

pub type Ino = u64;
pub const ROOT: Ino = 1;
const SECTOR: usize = 512;

pub type Names = BTreeMap<OsString, Ino>;

/// A file or a folder, as it is seen and as it is on the platter.
#[derive(Debug)]
pub enum Node {
    File { current: Vec<u8>, durable: Vec<u8> },
    Folder { current: Names, durable: Names },
}

/// What was done and not fsynced.
#[derive(Debug, Clone)]
enum Unsynced {
    Write { ino: Ino, offset: usize, bytes: Vec<u8> },
    Resize { ino: Ino, len: usize },
    Enter { folder: Ino, name: OsString, ino: Ino },
    Leave { folder: Ino, name: OsString },
    Move { folder: Ino, from: OsString, to: OsString, ino: Ino },
}

impl Unsynced {
    /// Whose fsync makes it durable.
    fn owner(&self) -> Ino {
        match self {
            Self::Write { ino, .. } | Self::Resize { ino, .. } => *ino,
            Self::Enter { folder, .. } | Self::Leave { folder, .. } | Self::Move { folder, .. } => *folder,
        }
    }
}

/// Which operations survive that were not fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survives {
    /// None: exactly what was fsynced.
    Nothing,
    /// Those before a random moment, the last write torn at a sector.
    Prefix,
    /// Each or not, by chance, and single sectors of writes.
    Reordered,
}

/// When the power goes by itself.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// Instead of the n-th fsync from now (1: the next).
    BeforeFsync(u64),
    /// When the n-th fsync from now is on the platter and before its caller hears of it.
    AfterFsync(u64),
    /// Instead of the n-th change from now, of whatever kind.
    AtChange(u64),
}

/// What the disk answers instead of doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// EIO at an fsync. As in Linux, the pages are gone from then on: a second fsync succeeds, and they are not on the platter.
    FsyncFails,
    /// EIO at a write.
    WriteFails,
    /// EIO at a write, when its caller has been waiting for a while.
    WriteFailsLate,
    /// ENOSPC at a write and a new name.
    Full,
    /// EROFS at any change.
    ReadOnly,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub fsyncs: u64,
    pub changes: u64,
    pub losses: u64,
    /// Operations that were not fsynced when the power went.
    pub unsynced: u64,
    /// Of these, those of which nothing survived.
    pub forgotten: u64,
}

/// The disk of one machine, over all of its lives.
#[derive(Debug)]
pub struct Disk {
    nodes: HashMap<Ino, Node>,
    unsynced: Vec<Unsynced>,
    next_ino: Ino,
    /// Counts power losses: a mount of an earlier life hears only EIO.
    life: u64,
    powered: bool,
    cut: Option<Cut>,
    fault: Option<Fault>,
    counts: Counts,
    /// Handles whose fsync failed, and whether one of them was asked again: the second answer would be a lie.
    failed_handles: HashSet<u64>,
    retried_fsync: bool,
    /// Fsyncs are answered and nothing is kept, as by a disk that lies.
    lying: bool,
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

impl Disk {
    pub fn new() -> Self {
        let root = Node::Folder { current: Names::new(), durable: Names::new() };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            unsynced: Vec::new(),
            next_ino: ROOT + 1,
            life: 0,
            powered: true,
            cut: None,
            fault: None,
            counts: Counts::default(),
            failed_handles: HashSet::new(),
            retried_fsync: false,
            lying: false,
        }
    }

    pub fn life(&self) -> u64 {
        self.life
    }

    pub fn counts(&self) -> Counts {
        self.counts
    }

    pub fn is_powered(&self) -> bool {
        self.powered
    }

    pub fn retried_fsync(&self) -> bool {
        self.retried_fsync
    }

    pub fn arm(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    pub fn lie_about_fsyncs(&mut self) {
        self.lying = true;
    }

    pub fn set_fault(&mut self, fault: Option<Fault>) {
        self.fault = fault;
    }

    /// Takes the power away now; from here on every request is answered by EIO and changes nothing.
    pub fn cut_power(&mut self) {
        self.powered = false;
        self.cut = None;
    }

    /// The machine comes up again with what survived.
    pub fn lose_power(&mut self, survives: Survives, seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let unsynced = std::mem::take(&mut self.unsynced);
        self.counts.losses += 1;
        self.counts.unsynced += unsynced.len() as u64;
        let kept = match survives {
            Survives::Nothing => 0,
            Survives::Prefix => chance.random_range(0..=unsynced.len()),
            Survives::Reordered => unsynced.len(),
        };
        for (place, operation) in unsynced.iter().enumerate() {
            let survivors = if survives == Survives::Reordered {
                by_chance(operation, &mut chance)
            } else if place < kept {
                vec![operation.clone()]
            } else if place == kept && survives == Survives::Prefix {
                torn_at_its_end(operation, &mut chance)
            } else {
                Vec::new()
            };
            self.counts.forgotten += u64::from(survivors.is_empty());
            for survivor in survivors {
                self.make_durable(&survivor);
            }
        }
        self.forget_the_nameless();
        for node in self.nodes.values_mut() {
            match node {
                Node::File { current, durable } => current.clone_from(durable),
                Node::Folder { current, durable } => current.clone_from(durable),
            }
        }
        self.life += 1;
        self.powered = true;
        self.cut = None;
        self.fault = None;
        self.lying = false;
        self.failed_handles.clear();
    }

    fn forget_the_nameless(&mut self) {
        let mut named = HashSet::from([ROOT]);
        let mut open = vec![ROOT];
        while let Some(folder) = open.pop() {
            if let Some(Node::Folder { durable, .. }) = self.nodes.get(&folder) {
                open.extend(durable.values().copied().filter(|ino| named.insert(*ino)));
            }
        }
        self.nodes.retain(|ino, _| named.contains(ino));
    }

    fn make_durable(&mut self, operation: &Unsynced) {
        match (self.nodes.get_mut(&operation.owner()), operation) {
            (Some(Node::File { durable, .. }), Unsynced::Write { offset, bytes, .. }) => put(durable, *offset, bytes),
            (Some(Node::File { durable, .. }), Unsynced::Resize { len, .. }) => durable.resize(*len, 0),
            (Some(Node::Folder { durable, .. }), Unsynced::Enter { name, ino, .. }) => {
                durable.insert(name.clone(), *ino);
            }
            (Some(Node::Folder { durable, .. }), Unsynced::Leave { name, .. }) => {
                durable.remove(name);
            }
            (Some(Node::Folder { durable, .. }), Unsynced::Move { from, to, ino, .. }) => {
                durable.remove(from);
                durable.insert(to.clone(), *ino);
            }
            (node, operation) => unreachable!("{operation:?} of {node:?}"),
        }
    }

    /// Every request comes by here: whether there is power at all.
    pub fn request(&self, life: u64) -> Result<(), Errno> {
        if self.powered && life == self.life { Ok(()) } else { Err(Errno::EIO) }
    }

    /// Every change comes by here; it may be the one at which the power goes.
    fn change(&mut self, refused: &[(Fault, Errno)]) -> Result<(), Errno> {
        if let Some((_, errno)) = refused.iter().find(|(fault, _)| Some(*fault) == self.fault) {
            return Err(*errno);
        }
        self.counts.changes += 1;
        if let Some(Cut::AtChange(left)) = &mut self.cut {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.cut_power();
                return Err(Errno::EIO);
            }
        }
        Ok(())
    }

    pub fn node(&self, ino: Ino) -> Result<&Node, Errno> {
        self.nodes.get(&ino).ok_or(Errno::ENOENT)
    }

    fn names(&mut self, folder: Ino) -> Result<&mut Names, Errno> {
        match self.nodes.get_mut(&folder) {
            Some(Node::Folder { current, .. }) => Ok(current),
            Some(Node::File { .. }) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn content(&mut self, ino: Ino) -> Result<&mut Vec<u8>, Errno> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File { current, .. }) => Ok(current),
            Some(Node::Folder { .. }) => Err(Errno::EISDIR),
            None => Err(Errno::ENOENT),
        }
    }

    pub fn look_up(&mut self, folder: Ino, name: &OsStr) -> Result<Ino, Errno> {
        self.names(folder)?.get(name).copied().ok_or(Errno::ENOENT)
    }

    pub fn create(&mut self, folder: Ino, name: &OsStr, node: Node) -> Result<Ino, Errno> {
        self.change(&[(Fault::Full, Errno::ENOSPC), (Fault::ReadOnly, Errno::EROFS)])?;
        let ino = self.next_ino;
        if self.names(folder)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.names(folder)?.insert(name.into(), ino);
        self.next_ino += 1;
        self.nodes.insert(ino, node);
        self.unsynced.push(Unsynced::Enter { folder, name: name.into(), ino });
        Ok(ino)
    }

    pub fn remove(&mut self, folder: Ino, name: &OsStr) -> Result<(), Errno> {
        self.change(&[(Fault::ReadOnly, Errno::EROFS)])?;
        let ino = self.look_up(folder, name)?;
        if let Some(Node::Folder { current, .. }) = self.nodes.get(&ino)
            && !current.is_empty()
        {
            return Err(Errno::ENOTEMPTY);
        }
        self.names(folder)?.remove(name);
        self.unsynced.push(Unsynced::Leave { folder, name: name.into() });
        Ok(())
    }

    /// Within one folder a rename is atomic; between two it is one operation of each.
    pub fn rename(&mut self, folder: Ino, name: &OsStr, to_folder: Ino, to: &OsStr) -> Result<(), Errno> {
        self.change(&[(Fault::ReadOnly, Errno::EROFS)])?;
        let ino = self.look_up(folder, name)?;
        self.names(folder)?.remove(name);
        self.names(to_folder)?.insert(to.into(), ino);
        if folder == to_folder {
            self.unsynced.push(Unsynced::Move { folder, from: name.into(), to: to.into(), ino });
        } else {
            self.unsynced.push(Unsynced::Enter { folder: to_folder, name: to.into(), ino });
            self.unsynced.push(Unsynced::Leave { folder, name: name.into() });
        }
        Ok(())
    }

    /// Whether a file may be opened for writing.
    pub fn open_to_write(&self) -> Result<(), Errno> {
        if self.fault == Some(Fault::ReadOnly) { Err(Errno::EROFS) } else { Ok(()) }
    }

    pub fn write(&mut self, ino: Ino, offset: usize, bytes: &[u8]) -> Result<(), Errno> {
        self.change(&[
            (Fault::Full, Errno::ENOSPC),
            (Fault::WriteFails, Errno::EIO),
            (Fault::WriteFailsLate, Errno::EIO),
            (Fault::ReadOnly, Errno::EROFS),
        ])?;
        put(self.content(ino)?, offset, bytes);
        self.unsynced.push(Unsynced::Write { ino, offset, bytes: bytes.into() });
        Ok(())
    }

    pub fn resize(&mut self, ino: Ino, len: usize) -> Result<(), Errno> {
        self.change(&[(Fault::ReadOnly, Errno::EROFS)])?;
        self.content(ino)?.resize(len, 0);
        self.unsynced.push(Unsynced::Resize { ino, len });
        Ok(())
    }

    /// An fsync through a handle, of a file or a folder.
    pub fn fsync(&mut self, ino: Ino, handle: u64) -> Result<(), Errno> {
        self.counts.fsyncs += 1;
        if let Some(Cut::BeforeFsync(left)) = &mut self.cut {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.cut_power();
                return Err(Errno::EIO);
            }
        }
        self.change(&[])?;
        self.retried_fsync |= self.failed_handles.contains(&handle);
        if self.fault == Some(Fault::FsyncFails) {
            self.failed_handles.insert(handle);
            self.drop_pages(ino);
            return Err(Errno::EIO);
        }
        if self.lying {
            return Ok(());
        }
        let all = std::mem::take(&mut self.unsynced);
        let (mine, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|operation| operation.owner() == ino);
        self.unsynced = others;
        for operation in &mine {
            self.make_durable(operation);
        }
        if let Some(Cut::AfterFsync(left)) = &mut self.cut {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.cut_power();
                return Err(Errno::EIO);
            }
        }
        Ok(())
    }

    /// The pages of a file whose writing failed: the kernel above may still show them, the disk does not have them. The length stays.
    fn drop_pages(&mut self, ino: Ino) {
        if let Some(Node::File { current, durable }) = self.nodes.get_mut(&ino) {
            self.unsynced.retain(|operation| operation.owner() != ino);
            durable.resize(current.len(), 0);
            current.clone_from(durable);
        }
    }
}

fn by_chance(operation: &Unsynced, chance: &mut StdRng) -> Vec<Unsynced> {
    match operation {
        Unsynced::Write { ino, offset, bytes } => match chance.random_range(0..3) {
            0 => Vec::new(),
            1 => vec![operation.clone()],
            _ => {
                let sectors = sectors(*offset, bytes.len()).filter(|_| chance.random_bool(0.5));
                let write = |(from, to): (usize, usize)| Unsynced::Write {
                    ino: *ino,
                    offset: offset + from,
                    bytes: bytes[from..to].to_vec(),
                };
                sectors.map(write).collect()
            }
        },
        Unsynced::Resize { .. } | Unsynced::Enter { .. } | Unsynced::Leave { .. } | Unsynced::Move { .. } => {
            if chance.random_bool(0.5) { vec![operation.clone()] } else { Vec::new() }
        }
    }
}

fn torn_at_its_end(operation: &Unsynced, chance: &mut StdRng) -> Vec<Unsynced> {
    let Unsynced::Write { ino, offset, bytes } = operation else { return Vec::new() };
    let ends: Vec<usize> = sectors(*offset, bytes.len()).map(|(_, to)| to).collect();
    let kept = chance.random_range(0..=ends.len());
    if kept == 0 {
        return Vec::new();
    }
    vec![Unsynced::Write { ino: *ino, offset: *offset, bytes: bytes[..ends[kept - 1]].to_vec() }]
}

/// A write's parts that lie in one sector each.
fn sectors(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from;
        from = ((offset + start) / SECTOR * SECTOR + SECTOR - offset).min(len);
        (start < len).then_some((start, from))
    })
}

/// A new, empty file.
pub fn file() -> Node {
    Node::File { current: Vec::new(), durable: Vec::new() }
}

/// A new, empty folder.
pub fn folder() -> Node {
    Node::Folder { current: Names::new(), durable: Names::new() }
}
