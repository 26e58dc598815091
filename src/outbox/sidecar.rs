//! A small file beside the store that says from where the source would have to be captured again if the store were lost.
//!
//! ```text
//! sidecar = "PS" version:u8  content (bincode)  crc32:u32 le, of everything before it
//! ```
//!
//! It is a lower bound: whatever the store settled after it was written is captured once more, and a destination tells a repeat by its
//! identity (I6). So it is written at every change of epoch or mapping, when it is decided where capture begins, before rows are appended
//! that lie before all that waited, and else now and then.
//!
//! The one rule: it never says more than the store holds on the disk. A store that is behind its sidecar has lost something.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    data_dir::replace_file,
    format::{Meta, StreamState},
    store::{StoreError, io_error},
    writer::Writer,
};
use crate::{
    codec::ChunkHeader,
    domain::{Brought, Entity, LocalRef, Mappings, Position, RemoteId, Rows, Seq, Stream},
    edge,
};

pub(super) const NAME: &str = "sidecar";
const MAGIC: [u8; 2] = *b"PS";
const VERSION: u8 = 2;

/// What it says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sidecar {
    /// What the store is.
    pub(super) meta: Meta,
    /// Each stream, in the order of [`Stream::ALL`].
    pub(super) streams: [Bound; Stream::ALL.len()],
    /// The mapping of the current generation.
    pub(super) mappings: Vec<(LocalRef, RemoteId)>,
    /// What was last brought to the destination: it tells under which names these were made.
    pub(super) brought: Vec<(LocalRef, Entity<RemoteId>)>,
}

/// One stream's lower bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bound {
    /// The next seq.
    pub(super) next: Seq,
    /// The first seq that was not settled.
    pub(super) cursor: Seq,
    /// Whether it had been decided where capture begins.
    pub(super) started: bool,
    /// The place in the source before the oldest record that waited or was parked; the watermark when there was none.
    pub(super) from: Position,
    /// The same for rows that waited alone: from here capture goes on where what was parked can be read.
    pub(super) waiting_from: Position,
}

impl Sidecar {
    /// Writes it: after `Ok` this one is on the disk, and after a crash this one or the one before.
    pub(super) fn write(&self, outbox: &Path) -> Result<(), StoreError> {
        let content = bincode::serde::encode_to_vec(self, bincode::config::standard());
        let content = content.unwrap_or_else(|error| unreachable!("a sidecar encodes: {error}"));
        replace_file(&outbox.join(NAME), &Self::sealed(&content))?;
        edge::pass("sidecar:written");
        Ok(())
    }

    /// Content with what stands before and behind it.
    pub(super) fn sealed(content: &[u8]) -> Vec<u8> {
        let mut bytes = [MAGIC.as_slice(), &[VERSION], content].concat();
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// Reads it; `None` when there is none, or none that can be understood, which is told.
    pub(super) fn read(outbox: &Path) -> Result<Option<Self>, StoreError> {
        let path = outbox.join(NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(io_error(format!("reading {}", path.display()))(cause)),
        };
        let sidecar = Self::decode(&bytes);
        if sidecar.is_none() {
            tracing::warn!(path = %path.display(), "the sidecar is damaged: it is of no help");
        }
        Ok(sidecar)
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if checksum != crc32fast::hash(content).to_le_bytes() || content.get(..3)? != [MAGIC[0], MAGIC[1], VERSION] {
            return None;
        }
        let config = bincode::config::standard().with_limit::<{ 64 << 20 }>();
        bincode::serde::decode_from_slice(&content[3..], config).ok().map(|(sidecar, _)| sidecar)
    }

    /// The same, with the bounds of a store of another life where these are lower.
    #[must_use]
    pub(super) fn lowered_to(mut self, other: &Self) -> Self {
        if self.meta.epoch == other.meta.epoch {
            return self;
        }
        for (bound, other) in self.streams.iter_mut().zip(&other.streams) {
            bound.started |= other.started;
            bound.from = lower(&bound.from, &other.from);
            bound.waiting_from = lower(&bound.waiting_from, &other.waiting_from);
        }
        self
    }

    /// Why a store cannot be the one that this was written for; `None` when it can.
    pub(super) fn contradicts(&self, meta: &Meta, streams: &[StreamState]) -> Option<String> {
        if self.meta.epoch != meta.epoch {
            return Some(format!("it is of epoch {}, its sidecar of epoch {}", meta.epoch, self.meta.epoch));
        }
        let behind = |(stream, (bound, state)): (&Stream, (&Bound, &StreamState))| {
            (state.next < bound.next || state.cursor < bound.cursor).then(|| {
                format!(
                    "its {} end at {} and are settled up to {}, the sidecar knows of {} and {}",
                    stream.plural(),
                    state.next,
                    state.cursor,
                    bound.next,
                    bound.cursor
                )
            })
        };
        Stream::ALL.iter().zip(self.streams.iter().zip(streams)).find_map(behind)
    }
}

/// How long a sidecar may lag behind when nothing but progress has changed.
const LAG_MAX: Duration = Duration::from_mins(1);

/// Writes the sidecar when it is due.
pub(super) struct Keeper {
    at: Instant,
    mappings: Arc<Mappings>,
    brought: Arc<Brought>,
    /// As it stands on the disk.
    written: Sidecar,
}

impl Keeper {
    /// The sidecar was just written.
    pub(super) fn new(writer: &Writer) -> Self {
        Self {
            at: Instant::now(),
            mappings: Arc::clone(writer.mappings()),
            brought: Arc::clone(writer.brought()),
            written: writer.sidecar(),
        }
    }

    /// Before rows are appended: where some of them lie before everything that waited when the sidecar was written (late rows, rows that
    /// are mended), it is written anew, for it must remain a lower bound of what the commit brings.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is to be appended.
    pub(super) fn reach_down(&mut self, outbox: &Path, writer: &Writer, rows: &Rows) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let lowest = rows.lowest(0..rows.len());
        self.reach_down_to(outbox, writer, |stream| (stream == rows.stream()).then_some(lowest))
    }

    /// The same, before chunks are pending again that were parked.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is to be appended.
    pub(super) fn reach_down_for(&mut self, outbox: &Path, writer: &Writer, chunks: &[ChunkHeader]) -> Result<(), StoreError> {
        self.reach_down_to(outbox, writer, |stream| {
            chunks.iter().filter(|chunk| chunk.stream == stream).map(|chunk| chunk.lowest).min()
        })
    }

    /// The same, before a part of the source is to be captured once more.
    ///
    /// # Errors
    /// When it cannot be written; then nothing is to be changed.
    pub(super) fn reach_down_before(
        &mut self,
        outbox: &Path,
        writer: &Writer,
        stream: Stream,
        after: &Position,
    ) -> Result<(), StoreError> {
        let mut sidecar = writer.sidecar();
        let bound = &mut sidecar.streams[usize::from(stream.number())];
        for from in [&mut bound.from, &mut bound.waiting_from] {
            if from.is_after(after) {
                *from = after.clone();
            }
        }
        sidecar.write(outbox)?;
        *self = Self { written: sidecar, ..Self::new(writer) };
        Ok(())
    }

    fn reach_down_to(
        &mut self,
        outbox: &Path,
        writer: &Writer,
        lowest: impl Fn(Stream) -> Option<i64>,
    ) -> Result<(), StoreError> {
        let lowered = |bound: &Bound, lowest: i64| Bound {
            from: position_before(Some(lowest), &bound.from),
            waiting_from: position_before(Some(lowest), &bound.waiting_from),
            ..bound.clone()
        };
        let mut sidecar = writer.sidecar();
        let mut is_low_enough = true;
        for stream in Stream::ALL {
            let Some(lowest) = lowest(stream) else { continue };
            let place = usize::from(stream.number());
            is_low_enough &= lowered(&self.written.streams[place], lowest) == self.written.streams[place];
            sidecar.streams[place] = lowered(&sidecar.streams[place], lowest);
        }
        if is_low_enough {
            return Ok(());
        }
        sidecar.write(outbox)?;
        *self = Self { written: sidecar, ..Self::new(writer) };
        Ok(())
    }

    /// After a commit: writes the sidecar when mappings have changed or it lags behind. That it cannot be written is told and is no
    /// failure: the one before is still a lower bound.
    pub(super) fn keep(&mut self, outbox: &Path, writer: &Writer) {
        // Where capture begins is decided once: a new life that did not know it would decide anew, and may leave a gap.
        let begun = self.written.streams.iter().zip(writer.streams()).all(|(bound, state)| bound.started == state.started);
        let is_same = Arc::ptr_eq(writer.mappings(), &self.mappings) && Arc::ptr_eq(writer.brought(), &self.brought);
        if begun && is_same && self.at.elapsed() < LAG_MAX {
            return;
        }
        self.write(outbox, writer);
    }

    /// When the outbox is closed.
    pub(super) fn finish(&mut self, outbox: &Path, writer: &Writer) {
        if self.written != writer.sidecar() {
            self.write(outbox, writer);
        }
    }

    fn write(&mut self, outbox: &Path, writer: &Writer) {
        match writer.sidecar().write(outbox) {
            Ok(()) => *self = Self::new(writer),
            Err(error) => {
                tracing::warn!(outbox = %outbox.display(), error = crate::chain(&error), "the sidecar could not be written");
                self.at = Instant::now();
            }
        }
    }
}

/// A position before everything at or after `lowest` (an id or a time in microseconds), of the kind that the watermark is, and never
/// after it.
pub(super) fn position_before(lowest: Option<i64>, watermark: &Position) -> Position {
    let Some(lowest) = lowest else { return watermark.clone() };
    match watermark {
        Position::Start => Position::Start,
        Position::Id(id) => Position::Id((*id).min(lowest.saturating_sub(1))),
        Position::Key { time, rest } if lowest > time.0 => Position::Key { time: *time, rest: rest.clone() },
        Position::Key { rest, .. } => {
            Position::Key { time: crate::domain::Micros(lowest.saturating_sub(1)), rest: vec![i64::MAX; rest.len()] }
        }
    }
}

/// The lower of two positions; the beginning, where they are of different kinds.
fn lower(one: &Position, other: &Position) -> Position {
    let is_lower = match (one, other) {
        (Position::Id(one), Position::Id(other)) => one <= other,
        (Position::Key { time: one, rest }, Position::Key { time: other, rest: others }) => (one, rest) <= (other, others),
        (Position::Start | Position::Id(_) | Position::Key { .. }, _) => return Position::Start,
    };
    if is_lower { one.clone() } else { other.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EntityKind, Epoch, Generation, House, LocalId, Micros, SourceId};

    fn sidecar() -> Sidecar {
        let house = LocalRef { kind: EntityKind::House, id: LocalId(3) };
        let bound = Bound { next: Seq(10), cursor: Seq(4), started: true, from: Position::Id(7), waiting_from: Position::Id(9) };
        Sidecar {
            meta: Meta {
                format_version: 1,
                epoch: Epoch(5),
                source: SourceId(6),
                destination: "here".into(),
                generation: Generation(0),
            },
            streams: [bound.clone(), bound],
            mappings: vec![(house, RemoteId(30))],
            brought: vec![(
                house,
                Entity::House(House { deployment: None, address: Some("Mill Lane".into()), start: None, end: None }),
            )],
        }
    }

    #[test]
    fn what_was_written_is_read_and_anything_else_is_not_taken_for_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Sidecar::read(dir.path()).unwrap(), None);
        sidecar().write(dir.path()).unwrap();
        assert_eq!(Sidecar::read(dir.path()).unwrap(), Some(sidecar()));
        let bytes = std::fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Sidecar::decode(&damaged), None, "byte {at}");
            assert_eq!(Sidecar::decode(&bytes[..at]), None, "cut at {at}");
        }
    }

    #[test]
    fn a_store_that_is_behind_or_of_another_life_contradicts_it() {
        let state = |next, cursor| StreamState { next: Seq(next), cursor: Seq(cursor), ..StreamState::new() };
        let meta = sidecar().meta;
        assert_eq!(sidecar().contradicts(&meta, &[state(10, 4), state(11, 9)]), None);
        assert!(sidecar().contradicts(&meta, &[state(10, 4), state(9, 9)]).is_some());
        assert!(sidecar().contradicts(&meta, &[state(10, 3), state(10, 4)]).is_some());
        assert!(sidecar().contradicts(&Meta { epoch: Epoch(1), ..meta }, &[state(10, 4), state(10, 4)]).is_some());
    }

    #[test]
    fn the_position_before_a_place_is_of_the_watermarks_kind_and_not_after_it() {
        let key = |time, rest: &[i64]| Position::Key { time: Micros(time), rest: rest.to_vec() };
        assert_eq!(position_before(None, &Position::Id(9)), Position::Id(9));
        assert_eq!(position_before(Some(5), &Position::Id(9)), Position::Id(4));
        assert_eq!(position_before(Some(50), &Position::Id(9)), Position::Id(9));
        assert_eq!(position_before(Some(50), &key(90, &[1, 2])), key(49, &[i64::MAX, i64::MAX]));
        assert_eq!(position_before(Some(91), &key(90, &[1, 2])), key(90, &[1, 2]));
        assert_eq!(position_before(Some(i64::MIN), &Position::Start), Position::Start);
    }
}
