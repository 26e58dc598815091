//! A copy of the ledger beside the store, for when the store is lost.
//!
//! ```text
//! ledger = "PL" version:u8  content (bincode)  crc32:u32 le, of everything before it
//! ```
//!
//! Like the sidecar it is a lower bound: what was captured after it was written is captured once more, as a repeat. Of what it says only the part
//! that lies before the sidecar's place is used: every row there that was captured had been settled (the sidecar reaches down to each one that
//! was not), so that a slot that differs from it holds rows that were committed late, or captured later.
//!
//! The one rule: it is written from what is committed, never from what is about to be.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};

use super::{
    data_dir::replace_file,
    format::Meta,
    ledger::{self, Entry, LedgerState, Repeats, Side},
    store::{Store, StoreError, io_error},
};
use crate::domain::{Position, Stream};

const NAME: &str = "ledger";
const MAGIC: [u8; 2] = *b"PL";
const VERSION: u8 = 1;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LedgerFile {
    /// Of which outbox.
    meta: Meta,
    /// Each stream, in the order of [`Stream::ALL`].
    streams: [(LedgerState, Vec<Entry>); Stream::ALL.len()],
}

impl LedgerFile {
    pub(super) fn of(store: &Store, meta: &Meta, states: &[LedgerState; Stream::ALL.len()]) -> Result<Self, StoreError> {
        let mut streams = Stream::ALL.map(|stream| (states[usize::from(stream.number())].clone(), Vec::new()));
        for (stream, (_, entries)) in Stream::ALL.into_iter().zip(&mut streams) {
            *entries = ledger::read(store, Side::Behind, stream, i64::MIN, usize::MAX)?;
        }
        Ok(Self { meta: meta.clone(), streams })
    }

    /// Writes it, and gives its length: after `Ok` this one is on the disk, and after a crash this one or the one before.
    pub(super) fn write(&self, outbox: &Path) -> Result<u64, StoreError> {
        let mut bytes = [MAGIC.as_slice(), &[VERSION]].concat();
        let content = bincode::serde::encode_to_vec(self, bincode::config::standard());
        bytes.extend(content.unwrap_or_else(|error| unreachable!("a ledger encodes: {error}")));
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        replace_file(&outbox.join(NAME), &bytes)?;
        Ok(bytes.len() as u64)
    }

    /// Reads it; `None` when there is none, or none of this outbox and generation that can be understood, which is told.
    pub(super) fn read(outbox: &Path, meta: &Meta) -> Result<Option<Self>, StoreError> {
        let path = outbox.join(NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(io_error(format!("reading {}", path.display()))(cause)),
        };
        let found =
            Self::decode(&bytes).filter(|found| found.meta.source == meta.source && found.meta.destination == meta.destination);
        if let Some(found) = &found
            && found.meta.generation != meta.generation
        {
            // What is counted there and the rows by which the source is known again are of another database.
            tracing::info!(path = %path.display(), "the copy of the ledger is of another generation of the source: it is of no help");
            return Ok(None);
        }
        if found.is_none() {
            tracing::warn!(path = %path.display(), "the copy of the ledger is damaged: it is of no help");
        }
        Ok(found)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if checksum != crc32fast::hash(content).to_le_bytes() || content.get(..3)? != [MAGIC[0], MAGIC[1], VERSION] {
            return None;
        }
        let config = bincode::config::standard().with_limit::<{ 256 << 20 }>();
        bincode::serde::decode_from_slice(&content[3..], config).ok().map(|(found, _)| found)
    }

    /// What a new life of a stream knows that begins at a place: its state, and the entries that are wholly before that place.
    pub(super) fn before(&self, stream: Stream, from: &Position) -> (LedgerState, Vec<Entry>) {
        let (state, entries) = &self.streams[usize::from(stream.number())];
        let is_before = |entry: &&Entry| from.place().is_some_and(|place| entry.slot.place + i64::from(entry.unit) <= place);
        let state = LedgerState { repeats: Repeats::All, walk: None, walked_at: None, ..state.clone() };
        (state, entries.iter().filter(is_before).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Epoch, Generation, Micros, Slot, SourceId, Tally};

    fn file() -> LedgerFile {
        let meta = Meta {
            format_version: 1,
            epoch: Epoch(5),
            source: SourceId(6),
            destination: "here".into(),
            generation: Generation(0),
        };
        let entry = |place, unit| Entry { slot: Slot { place, node: 7 }, unit, tally: Tally { rows: 3, checksum: 9 << 40 } };
        let state = LedgerState { floor: Some(Position::Start), ..LedgerState::new() };
        LedgerFile { meta, streams: [(state.clone(), vec![entry(0, 24), entry(24, 1), entry(25, 1)]), (state, Vec::new())] }
    }

    #[test]
    fn what_was_written_is_read_by_its_own_outbox_alone() {
        let dir = tempfile::tempdir().unwrap();
        let meta = file().meta;
        assert_eq!(LedgerFile::read(dir.path(), &meta).unwrap(), None);
        file().write(dir.path()).unwrap();
        assert_eq!(LedgerFile::read(dir.path(), &meta).unwrap(), Some(file()));
        assert_eq!(LedgerFile::read(dir.path(), &Meta { generation: Generation(1), ..meta.clone() }).unwrap(), None);
        assert_eq!(LedgerFile::read(dir.path(), &Meta { source: SourceId(7), ..meta }).unwrap(), None);
        let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(LedgerFile::decode(&damaged), None, "byte {at}");
            assert_eq!(LedgerFile::decode(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_new_life_knows_what_lies_wholly_before_its_beginning() {
        let from = |hour| Position::Key { time: Micros(Micros::of_hour(hour).0 + 5), rest: vec![1, 1] };
        let places =
            |hour| file().before(Stream::Reading, &from(hour)).1.iter().map(|entry| entry.slot.place).collect::<Vec<_>>();
        assert_eq!(places(23), Vec::<i64>::new());
        assert_eq!(places(25), [0, 24]);
        assert_eq!(places(26), [0, 24, 25]);
        let (state, entries) = file().before(Stream::Reading, &Position::Start);
        assert_eq!((entries.len(), state.repeats, state.floor), (0, Repeats::All, Some(Position::Start)));
    }
}
