//! Rows that were set aside: in chunks, under the reason that they wait for.
//!
//! The one rule: a row leaves here only in the transaction that appends it anew, or by an operator's `discard`.

use std::collections::BTreeMap;

use super::{
    format::{self, Notes, PARKED_CHUNK_BYTES_MAX, Parked, REASON_BYTES_MAX, Reason},
    places::Places,
    store::{Change, Store, StoreError},
};
use crate::{
    codec::{self, Run},
    domain::{LocalRef, Rows, Stream},
};

/// How much waits for one entity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldRows {
    /// Rows.
    pub rows: u64,
    /// Chunks that they lie in.
    pub chunks: u64,
    /// Encoded bytes.
    pub bytes: u64,
}

/// A parked chunk, decoded.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedChunk {
    /// Why and since when.
    pub parked: Parked,
    /// The rows.
    pub rows: Rows,
}

/// Where a walk through the parked chunks stands; the default is the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedCursor(Vec<u8>);

/// A held chunk smaller than this takes in what is held next: a trickle must not become an entry for each row, and rewriting a large one for
/// each row of a trickle would wear out a disk.
const JOIN_BYTES_MAX: usize = 2_000;

/// What parking did.
#[derive(Debug, Default)]
pub(super) struct Parking {
    /// The number and the lowest place of each chunk that was written.
    pub(super) chunks: Vec<(u64, i64)>,
    /// The chunk before, which took in some of the rows: what it took until then.
    joined_bytes: Option<u64>,
    bytes: u64,
}

impl Parking {
    /// Counts it.
    pub(super) fn note(&self, held: &mut HeldRows, rows: u64) {
        held.rows += rows;
        held.chunks += self.chunks.len() as u64 - u64::from(self.joined_bytes.is_some());
        held.bytes = held.bytes + self.bytes - self.joined_bytes.unwrap_or(0);
    }
}

/// Adds rows to a change as parked chunks, joined to a small one that waits for the same. Of one reason and stream only once in a change: a
/// second time would join the same chunk, and undo the first.
pub(super) fn park(
    store: &Store,
    change: &mut Change,
    run: &Run,
    rows: &Rows,
    reason: &Reason,
    notes: &mut Notes,
) -> Result<Parking, StoreError> {
    Ok(match small_chunk(store, run, rows, reason)? {
        Some(small) => {
            let parking = write(change, &small.run, &small.rows, reason, notes, Some(small.number));
            Parking { joined_bytes: Some(small.bytes), ..parking }
        }
        None => write(change, run, rows, reason, notes, None),
    })
}

/// Adds rows to a change as parked chunks of their own.
pub(super) fn park_apart(change: &mut Change, run: &Run, rows: &Rows, reason: &Reason, notes: &mut Notes) {
    write(change, run, rows, reason, notes, None);
}

/// The first chunk takes the place of the one that is `joined`.
fn write(change: &mut Change, run: &Run, rows: &Rows, reason: &Reason, notes: &mut Notes, mut joined: Option<u64>) -> Parking {
    let mut reason = reason.clone();
    if let Reason::Refused(why) = &mut reason {
        shorten(why);
    }
    let mut parking = Parking::default();
    for chunk in codec::encode(run, rows, PARKED_CHUNK_BYTES_MAX) {
        let parked = Parked { stream: rows.stream(), count: chunk.header.count, at: run.captured_at, reason: reason.clone() };
        let value = [format::to_bytes(&parked), chunk.bytes].concat();
        let number = joined.take().unwrap_or_else(|| {
            notes.next_parked += 1;
            notes.next_parked - 1
        });
        parking.bytes += value.len() as u64;
        parking.chunks.push((number, chunk.header.lowest));
        change.put(format::parked_key(&reason, number), value);
    }
    parking
}

/// A small chunk with more rows behind its own.
struct Small {
    number: u64,
    bytes: u64,
    run: Run,
    rows: Rows,
}

/// The last chunk that is held for the same reason and of the same stream, if there is room in it.
fn small_chunk(store: &Store, run: &Run, rows: &Rows, reason: &Reason) -> Result<Option<Small>, StoreError> {
    let Reason::Held(what) = reason else { return Ok(None) };
    let mut up_to = u64::MAX;
    // The streams may take turns.
    for _ in Stream::ALL {
        let last = store.last_up_to(&format::held_prefix(*what), &format::parked_key(reason, up_to))?;
        let Some((key, value)) = last else { return Ok(None) };
        let number = format::number_of_parked_key(&key).unwrap_or_default();
        let (parked, chunk) = split(store, &value)?;
        if parked.stream == rows.stream() {
            if value.len() >= JOIN_BYTES_MAX {
                return Ok(None);
            }
            let (header, mut joined) = codec::decode(chunk).map_err(|error| damaged(store, &error))?;
            let (epoch, generation, freshness) = (header.epoch, header.generation, header.freshness);
            if (epoch, generation, freshness) != (run.epoch, run.generation, run.freshness) || !joined.fits(rows) {
                return Ok(None);
            }
            joined.extend(rows.clone());
            let run = Run { epoch, generation, first: header.first, captured_at: parked.at, freshness };
            return Ok(Some(Small { number, bytes: value.len() as u64, run, rows: joined }));
        }
        let Some(before) = number.checked_sub(1) else { return Ok(None) };
        up_to = before;
    }
    Ok(None)
}

/// Cuts a text to what a parked value has room for.
pub(super) fn shorten(text: &mut String) {
    if text.len() > REASON_BYTES_MAX {
        let cut = (0..=REASON_BYTES_MAX).rev().find(|&cut| text.is_char_boundary(cut)).unwrap_or(0);
        text.truncate(cut);
    }
}

/// A parked value's head and its chunk.
pub(super) fn split<'a>(store: &Store, value: &'a [u8]) -> Result<(Parked, &'a [u8]), StoreError> {
    parse(value).ok_or_else(|| StoreError::Damaged { path: store.path().into(), what: "a parked value does not decode".into() })
}

/// The same, of bytes of whatever origin.
pub(super) fn parse(value: &[u8]) -> Option<(Parked, &[u8])> {
    let (parked, used) = format::from_bytes::<Parked>(value)?;
    Some((parked, &value[used..]))
}

/// Looks at everything parked: what is held, by what it waits for; every chunk must be whole.
pub(super) fn survey(store: &Store, places: &mut Places) -> Result<BTreeMap<LocalRef, HeldRows>, StoreError> {
    let mut held = BTreeMap::<LocalRef, HeldRows>::new();
    for prefix in [format::HELD, format::REFUSED] {
        for entry in store.scan(prefix, prefix)? {
            let (key, value) = entry?;
            let (parked, chunk) = split(store, &value)?;
            let header = codec::peek(chunk).map_err(|error| damaged(store, &error))?;
            let number = format::number_of_parked_key(&key)
                .ok_or_else(|| StoreError::Damaged { path: store.path().into(), what: "a parked key is not one".into() })?;
            places.add_parked(number, header.stream, header.lowest);
            if let Reason::Held(what) = parked.reason {
                let entry = held.entry(what).or_default();
                entry.rows += u64::from(parked.count);
                entry.chunks += 1;
                entry.bytes += value.len() as u64;
            }
        }
    }
    Ok(held)
}

/// A parked chunk that does not decode.
pub(super) fn damaged(store: &Store, error: &codec::CodecError) -> StoreError {
    StoreError::Damaged { path: store.path().into(), what: format!("a parked chunk: {error}") }
}

/// Takes one chunk of rows out of the count.
pub(super) fn forget(held: &mut BTreeMap<LocalRef, HeldRows>, what: LocalRef, rows: u64, bytes: u64) {
    if let Some(entry) = held.get_mut(&what) {
        entry.rows -= rows;
        entry.chunks -= 1;
        entry.bytes -= bytes;
        if entry.chunks == 0 {
            held.remove(&what);
        }
    }
}

/// Parked chunks from a place on, held ones first, and the place after them; `None` there when no more follow.
pub(super) fn page(
    store: &Store,
    from: &ParkedCursor,
    chunks_max: usize,
) -> Result<(Vec<ParkedChunk>, Option<ParkedCursor>), StoreError> {
    let mut found = Vec::new();
    for prefix in [format::HELD, format::REFUSED] {
        if prefix < from.0.as_slice() && !from.0.starts_with(prefix) {
            continue;
        }
        for entry in store.scan(prefix, from.0.as_slice().max(prefix))? {
            let (key, value) = entry?;
            if found.len() >= chunks_max {
                return Ok((found, Some(ParkedCursor(key))));
            }
            let (parked, chunk) = split(store, &value)?;
            let (_, rows) = codec::decode(chunk)
                .map_err(|error| StoreError::Damaged { path: store.path().into(), what: format!("a parked chunk: {error}") })?;
            found.push(ParkedChunk { parked, rows });
        }
    }
    Ok((found, None))
}

/// Parked chunks, held ones first.
pub(super) fn list(store: &Store, chunks_max: usize) -> Result<Vec<ParkedChunk>, StoreError> {
    page(store, &ParkedCursor::default(), chunks_max).map(|(chunks, _)| chunks)
}
