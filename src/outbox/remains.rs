//! What can still be read of an outbox that does not open: on a copy, because opening writes.
//!
//! The copy is opened as a store first, without holding it to its counts. Where even that fails, or where it opens as less than the sidecar knows
//! of, its file is searched for chunks, which say themselves what they are and are checksummed. Which of them had been delivered already is then
//! known from the sidecar alone, up to a minute late.
//!
//! The one rule: the damaged files are only read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{
    data_dir,
    format::{self, Parked, StreamState},
    parked,
    sidecar::{self, Bound, Sidecar},
    store::{Store, StoreError, io_error},
};
use crate::{
    codec::{self, CHUNK_BYTES_MAX},
    domain::{Epoch, Micros, Rows, Seq, Stream},
};

/// How much of a file is searched at a time.
const WINDOW: usize = 1 << 20;

/// What is left.
pub struct Remains {
    origin: Origin,
    /// Chunks of records that wait, each with the number of its rows.
    chunks: BTreeMap<(Stream, Seq), Found>,
    parked: Vec<Vec<u8>>,
    /// What the sidecar knows.
    epoch: Option<Epoch>,
    cursors: [Seq; Stream::ALL.len()],
    ends: [Seq; Stream::ALL.len()],
    /// Values that cannot be understood.
    lost: u64,
    copy: PathBuf,
}

enum Origin {
    Store(Store),
    File(File),
    Nothing,
}

#[derive(Clone, Copy)]
struct Found {
    offset: u64,
    length: usize,
    rows: u32,
    captured_at: Micros,
}

/// What is known of a damaged outbox as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Records that wait and can be read, by stream.
    pub pending: [u64; Stream::ALL.len()],
    /// When the oldest of them was captured.
    pub oldest: Option<Micros>,
    /// Rows that are parked and can be read, by stream.
    pub parked: [u64; Stream::ALL.len()],
    /// Chunks that cannot be read.
    pub lost_chunks: u64,
}

impl Remains {
    /// Copies the store in use of a destination's folder into a folder of its own below `scratch`, and looks at what is there. Blocks.
    pub fn open(outbox: &Path, scratch: &Path) -> Result<Self, StoreError> {
        let sidecar = Sidecar::read(outbox)?;
        let current = data_dir::current(outbox).ok().flatten();
        let store = match current {
            Some(store) => Some(store),
            None => data_dir::stores(outbox)?.pop(),
        };
        let copy = scratch.join(format!("packhorse-copy-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        let known = |of: fn(&Bound) -> Seq| {
            Stream::ALL
                .map(|stream| sidecar.as_ref().map_or(Seq(0), |sidecar| of(&sidecar.streams[usize::from(stream.number())])))
        };
        let (cursors, ends) = (known(|bound| bound.cursor), known(|bound| bound.next));
        let mut remains = Self {
            origin: Origin::Nothing,
            chunks: BTreeMap::new(),
            parked: Vec::new(),
            epoch: sidecar.map(|sidecar| sidecar.meta.epoch),
            cursors,
            ends,
            lost: 0,
            copy: copy.clone(),
        };
        let Some(store) = store else { return Ok(remains) };
        copy_files(&store, &copy).map_err(io_error(format!("copying {} to {}", store.display(), copy.display())))?;
        match Store::open(&copy) {
            Ok(store) => {
                if remains.index(&store).is_ok() {
                    remains.origin = Origin::Store(store);
                } else {
                    remains.chunks.clear();
                    remains.parked.clear();
                }
            }
            Err(StoreError::Io { context, cause }) => return Err(StoreError::Io { context, cause }),
            Err(_) => {}
        }
        // Opening the first copy may have changed it.
        let file = store.join("db");
        let is_all = matches!(remains.origin, Origin::Store(_)) && !remains.is_short();
        if !is_all && file.is_file() {
            remains.search_for_more(&file).map_err(io_error(format!("reading {}", file.display())))?;
        }
        Ok(remains)
    }

    /// Whether there should be more than was found: sled opens a damaged log as what it held before the damage.
    fn is_short(&self) -> bool {
        Stream::ALL.into_iter().any(|stream| {
            let end = self.chunks.range((stream, Seq(0))..=(stream, Seq(u64::MAX))).next_back();
            let end =
                end.map_or(self.cursors[usize::from(stream.number())], |((_, first), found)| first.plus(u64::from(found.rows)));
            end < self.ends[usize::from(stream.number())]
        })
    }

    /// Searches a file, and takes what it holds where that is more. Parked rows are only known by a store.
    fn search_for_more(&mut self, file: &Path) -> io::Result<()> {
        let rows = |chunks: &BTreeMap<_, Found>| chunks.values().map(|found| u64::from(found.rows)).sum::<u64>();
        let of_store = std::mem::take(&mut self.chunks);
        let file = self.search(file)?;
        if matches!(self.origin, Origin::Nothing) || rows(&self.chunks) > rows(&of_store) {
            self.origin = Origin::File(file);
        } else {
            self.chunks = of_store;
        }
        Ok(())
    }

    /// Why this is not all, for people.
    pub fn left(&self) -> Left {
        let mut left =
            Left { pending: Stream::ALL.map(|_| 0), oldest: None, parked: Stream::ALL.map(|_| 0), lost_chunks: self.lost };
        for ((stream, first), found) in &self.chunks {
            let from = self.cursors[usize::from(stream.number())].max(*first);
            left.pending[usize::from(stream.number())] += first.plus(u64::from(found.rows)).since(from);
            left.oldest = left.oldest.into_iter().chain([found.captured_at]).min();
        }
        for value in &self.parked {
            if let Some((parked, _)) = format::from_bytes::<Parked>(value) {
                left.parked[usize::from(parked.stream.number())] += u64::from(parked.count);
            }
        }
        left
    }

    /// The life of the outbox, as its sidecar says.
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// The records of a stream that can be read, a chunk after the other.
    pub fn records(&self, stream: Stream) -> impl Iterator<Item = (Seq, Micros, Rows)> + '_ {
        let cursor = self.cursors[usize::from(stream.number())];
        self.chunks.range((stream, Seq(0))..=(stream, Seq(u64::MAX))).filter_map(move |((_, first), found)| {
            let bytes = self.bytes(stream, *first, found)?;
            let (header, rows) = codec::decode(&bytes).ok()?;
            let skip = cursor.since(*first) as usize;
            let rows = if skip == 0 { rows } else { rows.slice(skip, rows.len()) };
            Some((first.plus(skip as u64), header.captured_at, rows))
        })
    }

    /// What is parked and can be read.
    pub fn parked(&self) -> impl Iterator<Item = (Parked, Rows)> + '_ {
        self.parked.iter().filter_map(|value| {
            let (parked, used) = format::from_bytes::<Parked>(value)?;
            let (_, rows) = codec::decode(&value[used..]).ok()?;
            Some((parked, rows))
        })
    }

    fn bytes(&self, stream: Stream, first: Seq, found: &Found) -> Option<Vec<u8>> {
        match &self.origin {
            Origin::Store(store) => store.get(&format::chunk_key(stream, first)).ok()?,
            Origin::File(file) => {
                let mut file = file;
                let mut bytes = vec![0; found.length];
                file.seek(SeekFrom::Start(found.offset)).and_then(|_| file.read_exact(&mut bytes)).ok()?;
                Some(bytes)
            }
            Origin::Nothing => None,
        }
    }

    /// Takes what a store that opens holds, good and bad.
    fn index(&mut self, store: &Store) -> Result<(), StoreError> {
        for stream in Stream::ALL {
            let state = store.get(&format::stream_key(stream))?.and_then(|bytes| format::from_bytes::<StreamState>(&bytes));
            if let Some((state, _)) = state {
                let cursor = &mut self.cursors[usize::from(stream.number())];
                *cursor = state.cursor.max(*cursor);
            }
            let prefix = format::chunk_prefix(stream);
            for entry in store.scan(&prefix, &prefix)? {
                let (_, bytes) = entry?;
                match codec::decode(&bytes) {
                    Ok((header, _)) => self.add(&header, 0, bytes.len()),
                    Err(_) => self.lost += 1,
                }
            }
        }
        for prefix in [format::HELD, format::REFUSED] {
            for entry in store.scan(prefix, prefix)? {
                let (_, value) = entry?;
                match parked::split(store, &value) {
                    Ok((_, chunk)) if codec::decode(chunk).is_ok() => self.parked.push(value),
                    Ok(_) | Err(_) => self.lost += 1,
                }
            }
        }
        if self.chunks.is_empty() && self.parked.is_empty() && store.get(format::META)?.is_none() {
            return Err(StoreError::Damaged { path: store.path().into(), what: "it is empty".into() });
        }
        Ok(())
    }

    fn add(&mut self, header: &codec::ChunkHeader, offset: u64, length: usize) {
        let is_settled = header.end() <= self.cursors[usize::from(header.stream.number())];
        if !is_settled && self.epoch.is_none_or(|epoch| epoch == header.epoch) {
            let found = Found { offset, length, rows: header.count, captured_at: header.captured_at };
            self.chunks.insert((header.stream, header.first), found);
        }
    }

    /// Searches a file for chunks.
    fn search(&mut self, path: &Path) -> io::Result<File> {
        let mut file = File::open(path)?;
        let mut window = Vec::new();
        let mut begins = 0;
        loop {
            let wanted = WINDOW + CHUNK_BYTES_MAX - window.len();
            let more = (&mut file).take(wanted as u64).read_to_end(&mut window)?;
            let is_end = more < wanted;
            let searched = if is_end { window.len() } else { WINDOW };
            let mut at = 0;
            while at < searched {
                let Some(length) = codec::length(&window[at..]) else {
                    at += 1;
                    continue;
                };
                if let Ok(header) = codec::peek(&window[at..at + length]) {
                    self.add(&header, begins + at as u64, length);
                }
                at += length;
            }
            if is_end {
                break;
            }
            begins += at as u64;
            window.drain(..at);
        }
        Ok(file)
    }
}

impl Drop for Remains {
    fn drop(&mut self) {
        self.origin = Origin::Nothing;
        if let Err(error) = std::fs::remove_dir_all(&self.copy)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(copy = %self.copy.display(), %error, "the copy of the damaged outbox could not be removed");
        }
    }
}

/// Copies what it takes to open an outbox into a folder that is there; `false`, and nothing is copied, where that is more than so many bytes.
pub fn copy_outbox(outbox: &Path, to: &Path, bytes_max: u64) -> io::Result<bool> {
    let stores = data_dir::stores(outbox).map_err(io::Error::other)?;
    let sizes = stores.iter().flat_map(|store| store.read_dir().into_iter().flatten().flatten());
    if sizes.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum::<u64>() > bytes_max {
        return Ok(false);
    }
    for name in ["CURRENT", sidecar::NAME] {
        match std::fs::copy(outbox.join(name), to.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    for store in stores {
        copy_files(&store, &to.join(store.file_name().unwrap_or_default()))?;
    }
    Ok(true)
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    // sled keeps its large values here; there should be none.
    let blobs = from.join("blobs");
    if blobs.is_dir() {
        copy_files(&blobs, &to.join("blobs"))?;
    }
    Ok(())
}
