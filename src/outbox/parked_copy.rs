//! A second copy of what the source may not be able to give again: rows that were set aside, and the catalog entities that they need.
//!
//! ```text
//! parked-copy = entry*
//! entry       = "PK" version:u8 kind:u8 (0 put, 1 removed)  key-length:u16 le  value-length:u32 le  key  value  crc32:u32 le, of all before
//! ```
//!
//! It lies in the folder of the store, is written at its end alone, and repeats the keys and values of [`format::is_kept_twice`]: each one
//! before it is committed, and that it has gone after that has been committed. So it may know more than the store, never less. Of two entries of
//! one key the later one counts. Where sled cannot read its file any more, a new life begins with what is here (`salvage`).
//!
//! What counts no more is dropped by writing the file anew, so that it stays smaller than twice what is parked (I7).
//!
//! The one rule: an entry that cannot be read ends nothing: those behind it are searched for.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::{
    format,
    store::{Entry, StoreError, forget_cached_pages, io_error, sync_path},
};
use crate::edge;

const NAME: &str = "parked-copy";
const MAGIC: [u8; 3] = *b"PK\x01";
const HEAD_BYTES: usize = 10;
const CHECKSUM_BYTES: usize = 4;
const ENTRY_BYTES_MAX: usize = HEAD_BYTES + format::KEPT_KEY_BYTES_MAX + format::KEPT_VALUE_BYTES_MAX + CHECKSUM_BYTES;
/// How much of the file is looked at in one piece.
const WINDOW_BYTES: usize = 256 << 10;
/// So much may be of no account before the file is written anew.
const STALE_BYTES_MIN: u64 = 16 << 10;

/// How long the copy in a store's folder is.
pub(super) fn bytes(store: &Path) -> u64 {
    std::fs::metadata(store.join(NAME)).map_or(0, |found| found.len())
}

/// A key, and its value or that it has gone.
pub(super) type Kept = (Vec<u8>, Option<Vec<u8>>);

/// Where an entry lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    offset: u64,
    bytes: u64,
    value_bytes: usize,
    /// Of the value.
    digest: u32,
}

/// What a copy holds, to be read.
#[derive(Debug)]
pub(super) struct ParkedCopy {
    file: File,
    places: BTreeMap<Vec<u8>, Place>,
    /// Where the last entry ends that can be read.
    end: u64,
}

impl ParkedCopy {
    /// Opens the copy in a store's folder for reading; `None` where there is none.
    pub(super) fn read(store: &Path) -> Result<Option<Self>, StoreError> {
        match File::open(store.join(NAME)) {
            Ok(file) => Self::of(file, store).map(Some),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(cause) => Err(io_error(format!("opening {}", store.join(NAME).display()))(cause)),
        }
    }

    fn of(file: File, store: &Path) -> Result<Self, StoreError> {
        let mut copy = Self { file, places: BTreeMap::new(), end: 0 };
        copy.index().map_err(io_error(format!("reading {}", store.join(NAME).display())))?;
        Ok(copy)
    }

    fn index(&mut self) -> io::Result<()> {
        let mut window = Vec::new();
        let (mut begins, mut file) = (0_u64, &self.file);
        loop {
            let wanted = WINDOW_BYTES + ENTRY_BYTES_MAX - window.len();
            let is_end = file.take(wanted as u64).read_to_end(&mut window)? < wanted;
            let looked_at = if is_end { window.len() } else { WINDOW_BYTES };
            let mut at = 0;
            while at < looked_at {
                let Some(Parsed { key, value, bytes }) = parse(&window[at..]) else {
                    at += 1;
                    continue;
                };
                let offset = begins + at as u64;
                match value {
                    Some(value) => {
                        let digest = crc32fast::hash(value);
                        let place = Place { offset, bytes: bytes as u64, value_bytes: value.len(), digest };
                        self.places.insert(key.to_vec(), place);
                    }
                    None => drop(self.places.remove(key)),
                }
                at += bytes;
                self.end = begins + at as u64;
            }
            if is_end {
                return Ok(());
            }
            begins += at as u64;
            window.drain(..at);
            file = &self.file;
        }
    }

    /// Keys with a prefix.
    pub(super) fn keys(&self, prefix: &[u8]) -> impl Iterator<Item = &Vec<u8>> {
        self.places.range(prefix.to_vec()..).map(|(key, _)| key).take_while(move |key| key.starts_with(prefix))
    }

    /// The value of a key, where it can be read.
    pub(super) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let place = self.places.get(key)?;
        let mut value = vec![0; place.value_bytes];
        self.file.read_exact_at(&mut value, place.offset + (HEAD_BYTES + key.len()) as u64).ok()?;
        (crc32fast::hash(&value) == place.digest).then_some(value)
    }
}

/// The copy beside a store that is written to.
pub(super) struct Keeping {
    store: PathBuf,
    copy: ParkedCopy,
    live_bytes: u64,
    /// Writing it anew failed at this length: not again before it is much longer.
    failed_at_bytes: u64,
}

impl Keeping {
    /// Opens the copy in a store's folder, and makes it where there is none.
    pub(super) fn open(store: &Path) -> Result<Self, StoreError> {
        let path = store.join(NAME);
        forget_cached_pages(&path)?;
        let is_new = !path.exists();
        let file = File::options().read(true).append(true).create(true).open(&path);
        let copy = ParkedCopy::of(file.map_err(io_error(format!("opening {}", path.display())))?, store)?;
        if is_new {
            sync_path(store)?;
        }
        // What a crash left of the last entry, or damage of more.
        if bytes(store) > copy.end {
            copy.file.set_len(copy.end).map_err(io_error(format!("shortening {}", path.display())))?;
        }
        let live_bytes = copy.places.values().map(|place| place.bytes).sum();
        Ok(Self { store: store.into(), copy, live_bytes, failed_at_bytes: 0 })
    }

    /// Brings it to what the store holds, of which nothing may be missing.
    pub(super) fn mend(&mut self, held: impl Iterator<Item = Result<Entry, StoreError>>) -> Result<(), StoreError> {
        let mut gone = self.copy.places.clone();
        let mut wrong = Vec::new();
        let mut wrong_bytes = 0;
        for entry in held {
            let (key, value) = entry?;
            let known = gone.remove(&key);
            if known.is_none_or(|place| (place.value_bytes, place.digest) != (value.len(), crc32fast::hash(&value))) {
                wrong_bytes += value.len();
                wrong.push((key, Some(value)));
            }
            if wrong_bytes > WINDOW_BYTES {
                self.append(&std::mem::take(&mut wrong))?;
                wrong_bytes = 0;
            }
        }
        wrong.extend(gone.into_keys().map(|key| (key, None)));
        if wrong.is_empty() {
            Ok(())
        } else {
            self.append(&wrong)?;
            self.sync()
        }
    }

    /// Takes up what is going to be committed: after `Ok` it is on the disk.
    pub(super) fn put(&mut self, kept: &[Kept]) -> Result<(), StoreError> {
        let put: Vec<Kept> = kept.iter().filter(|(_, value)| value.is_some()).cloned().collect();
        if put.is_empty() {
            return Ok(());
        }
        self.append(&put)?;
        self.sync()?;
        edge::pass("copy:synced");
        Ok(())
    }

    /// Takes up what has gone, now that this is committed. That it is lost again, or cannot be written, only means that the copy knows more.
    pub(super) fn forget(&mut self, kept: &[Kept]) {
        let gone: Vec<Kept> = kept.iter().filter(|(_, value)| value.is_none()).cloned().collect();
        if !gone.is_empty()
            && let Err(error) = self.append(&gone)
        {
            tracing::debug!(store = %self.store.display(), error = crate::chain(&error), "the copy of parked rows lags behind");
            self.copy.end = bytes(&self.store);
        }
    }

    fn append(&mut self, entries: &[Kept]) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        for (key, value) in entries {
            let offset = self.copy.end + bytes.len() as u64;
            let before = bytes.len();
            encode(&mut bytes, key, value.as_deref());
            let forgotten = match value {
                Some(value) => {
                    let place = Place {
                        offset,
                        bytes: (bytes.len() - before) as u64,
                        value_bytes: value.len(),
                        digest: crc32fast::hash(value),
                    };
                    self.live_bytes += place.bytes;
                    self.copy.places.insert(key.clone(), place)
                }
                None => self.copy.places.remove(key),
            };
            self.live_bytes -= forgotten.map_or(0, |place| place.bytes);
        }
        (&self.copy.file).write_all(&bytes).map_err(io_error(format!("writing {}", self.store.join(NAME).display())))?;
        self.copy.end += bytes.len() as u64;
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.copy.file.sync_data().map_err(io_error(format!("fdatasync of {}", self.store.join(NAME).display())))
    }

    /// Whether so much of it counts no more that it should be written anew.
    pub(super) fn is_stale(&self) -> bool {
        let is_worth_it = self.copy.end > 2 * self.live_bytes + STALE_BYTES_MIN && self.copy.end >= 2 * self.failed_at_bytes;
        is_worth_it || edge::is_wanted("copy:wanted")
    }

    /// Writes it anew with what the store holds.
    ///
    /// # Errors
    /// Nobody knows which of the two files will be there after a crash: neither may be written to before the store has been opened anew.
    pub(super) fn rewrite(&mut self, held: impl Iterator<Item = Result<Entry, StoreError>>) -> Result<(), StoreError> {
        let new = self.store.join(NAME).with_extension("new");
        if let Err(error) = write(&new, held) {
            // On a full disk: the one in use is as good as it was.
            tracing::debug!(store = %self.store.display(), error = crate::chain(&error), "the copy of parked rows stays as long as it is");
            let _ = std::fs::remove_file(&new);
            self.failed_at_bytes = self.copy.end;
            return Ok(());
        }
        std::fs::rename(&new, self.store.join(NAME)).map_err(io_error(format!("renaming {}", new.display())))?;
        sync_path(&self.store)?;
        edge::pass("copy:rewritten");
        *self = Self::open(&self.store)?;
        Ok(())
    }
}

fn write(path: &Path, held: impl Iterator<Item = Result<Entry, StoreError>>) -> Result<(), StoreError> {
    let failed = || io_error(format!("writing {}", path.display()));
    let mut file = BufWriter::new(File::create(path).map_err(failed())?);
    let mut bytes = Vec::new();
    for entry in held {
        let (key, value) = entry?;
        bytes.clear();
        encode(&mut bytes, &key, Some(&value));
        file.write_all(&bytes).map_err(failed())?;
    }
    file.into_inner().map_err(|error| failed()(error.into_error()))?.sync_all().map_err(failed())
}

fn encode(bytes: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let from = bytes.len();
    bytes.extend(MAGIC);
    bytes.push(u8::from(value.is_none()));
    let value = value.unwrap_or_default();
    bytes.extend((key.len() as u16).to_le_bytes());
    bytes.extend((value.len() as u32).to_le_bytes());
    bytes.extend(key);
    bytes.extend(value);
    let checksum = crc32fast::hash(&bytes[from..]);
    bytes.extend(checksum.to_le_bytes());
}

/// An entry as it lies in a file.
struct Parsed<'a> {
    key: &'a [u8],
    /// `None`: it has gone.
    value: Option<&'a [u8]>,
    /// Its length.
    bytes: usize,
}

/// The entry with which some bytes begin.
fn parse(bytes: &[u8]) -> Option<Parsed<'_>> {
    if bytes.get(..3)? != MAGIC {
        return None;
    }
    let kind = *bytes.get(3)?;
    let key_bytes = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
    let value_bytes = u32::from_le_bytes(bytes.get(6..HEAD_BYTES)?.try_into().ok()?) as usize;
    if kind > 1 || key_bytes > format::KEPT_KEY_BYTES_MAX || value_bytes > format::KEPT_VALUE_BYTES_MAX {
        return None;
    }
    let (key_end, end) = (HEAD_BYTES + key_bytes, HEAD_BYTES + key_bytes + value_bytes);
    let checksum = bytes.get(end..end + CHECKSUM_BYTES)?;
    if checksum != crc32fast::hash(&bytes[..end]).to_le_bytes() {
        return None;
    }
    let value = (kind == 0).then_some(&bytes[key_end..end]);
    Some(Parsed { key: &bytes[HEAD_BYTES..key_end], value, bytes: end + CHECKSUM_BYTES })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(entries: &[(&str, Option<&str>)]) -> Vec<Kept> {
        entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()))).collect()
    }

    fn found(dir: &Path) -> Vec<(String, String)> {
        let copy = ParkedCopy::read(dir).unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        copy.keys(b"").map(|key| (text(key), text(&copy.get(key).unwrap()))).collect()
    }

    fn pairs(entries: &[(&str, &str)]) -> Vec<(String, String)> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn held(entries: &[(&str, &str)]) -> impl Iterator<Item = Result<Entry, StoreError>> {
        let entries: Vec<Entry> =
            entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        entries.into_iter().map(Ok)
    }

    #[test]
    fn the_last_entry_of_a_key_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ParkedCopy::read(dir.path()).unwrap().is_none());
        let mut keeping = Keeping::open(dir.path()).unwrap();
        keeping.put(&kept(&[("h1", Some("one")), ("r2", Some("two")), ("r3", None)])).unwrap();
        keeping.put(&kept(&[("h1", Some("one more"))])).unwrap();
        keeping.forget(&kept(&[("r2", None), ("h9", Some("no"))]));
        assert_eq!(found(dir.path()), pairs(&[("h1", "one more")]));
        keeping = Keeping::open(dir.path()).unwrap();
        keeping.put(&kept(&[("r4", Some("four"))])).unwrap();
        assert_eq!(found(dir.path()), pairs(&[("h1", "one more"), ("r4", "four")]));
    }

    #[test]
    fn it_is_brought_to_what_the_store_holds() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeping = Keeping::open(dir.path()).unwrap();
        keeping.put(&kept(&[("h1", Some("one")), ("h2", Some("two")), ("h3", Some("three"))])).unwrap();
        let store = [("h1", "one"), ("h2", "TWO"), ("r9", "nine")];
        keeping.mend(held(&store)).unwrap();
        assert_eq!(found(dir.path()), pairs(&store));
        let length = std::fs::metadata(dir.path().join(NAME)).unwrap().len();
        Keeping::open(dir.path()).unwrap().mend(held(&store)).unwrap();
        assert_eq!(std::fs::metadata(dir.path().join(NAME)).unwrap().len(), length, "nothing was to be mended");
    }

    /// Wherever a file is cut or changed, what was not touched is found, and what is written afterwards.
    #[test]
    fn damage_costs_what_it_touches() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeping = Keeping::open(dir.path()).unwrap();
        let all = [("h1", "one"), ("h2", "two two"), ("r3", "three three three")];
        for (key, value) in all {
            keeping.put(&kept(&[(key, Some(value))])).unwrap();
        }
        let whole = std::fs::read(dir.path().join(NAME)).unwrap();
        let flipped = |at: usize| {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x41;
            flipped
        };
        let damaged = (0..whole.len())
            .flat_map(|at| [(flipped(at), 1), (whole[..at].to_vec(), 3), ([&whole[..at], &[7; 40], &whole[at..]].concat(), 1)]);
        for (bytes, missing_max) in damaged {
            std::fs::write(dir.path().join(NAME), &bytes).unwrap();
            let before = found(dir.path());
            assert!(before.iter().all(|entry| pairs(&all).contains(entry)), "{before:?}");
            let missing = pairs(&all).iter().filter(|entry| !before.contains(entry)).count();
            assert!(missing <= missing_max, "{missing} are missing of {bytes:?}");
            Keeping::open(dir.path()).unwrap().put(&kept(&[("r4", Some("four"))])).unwrap();
            assert_eq!(found(dir.path()), [before, pairs(&[("r4", "four")])].concat());
        }
    }

    #[test]
    fn it_stays_smaller_than_twice_what_counts_and_a_little() {
        let dir = tempfile::tempdir().unwrap();
        let mut keeping = Keeping::open(dir.path()).unwrap();
        let value = "v".repeat(3_000);
        for round in 0..200 {
            let key = format!("h{}", round % 7);
            keeping.put(&kept(&[(&key, Some(&value))])).unwrap();
            keeping.forget(&kept(&[(&format!("h{}", (round + 3) % 7), None)]));
            if keeping.is_stale() {
                let now: Vec<Entry> = keeping.copy.keys(b"").map(|key| (key.clone(), value.clone().into_bytes())).collect();
                let before = found(dir.path());
                keeping.rewrite(now.into_iter().map(Ok)).unwrap();
                assert_eq!(found(dir.path()), before);
            }
            let length = std::fs::metadata(dir.path().join(NAME)).unwrap().len();
            assert!(length <= 2 * keeping.live_bytes + STALE_BYTES_MIN, "{length} bytes, {} of them count", keeping.live_bytes);
        }
    }
}
