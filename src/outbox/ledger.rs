//! The ledger: how many rows with which keys were captured in each slot of the source's tables.
//!
//! It changes in the commit of the rows that it counts (I1), so that at any moment it says exactly what was captured: a slot whose rows at the
//! source are others holds rows that were committed late. What capture does about that stands on top of `capture/audit.rs`.
//!
//! Slots of the last weeks are hours; older ones are merged to days and then to months, so that fifty nodes of ten years are some sixty thousand
//! entries (docs/performance.md).
//!
//! The one rule: no entry is guessed. It is added to by rows that enter, set by rows that were all read, and merged with its neighbours; else it
//! stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    format,
    store::{Change, Store, StoreError},
};
use crate::domain::{
    Micros, Position, Slot, Stream, Tallies, Tally,
    ledger::{Coarse, DAY, MONTH},
    witness::Witness,
};

/// Entries that are merged or moved in one commit.
const STEP_ENTRIES: usize = 2_000;

/// Rows that were captured, but ahead of the watermark, are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Of the watermark, in paging order.
    Behind,
    /// Of the watermark: rows dated in the future, and those that it stood behind before the database's clock was set back.
    Ahead,
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which slot.
    pub slot: Slot,
    /// How many places it is wide.
    pub unit: u16,
    /// What was captured of it.
    pub tally: Tally,
}

/// What a commit changes in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerChange {
    /// Rows that enter in the same commit, by their narrowest slots: they are added.
    pub add: Tallies,
    /// Slots of which all rows were read: what they hold.
    pub set: Vec<(Side, Entry)>,
}

/// Which rows may have been captured before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Repeats {
    /// None that the ledger does not know.
    None,
    /// All that are in the source when it is next reached: an earlier life of this outbox may have sent them.
    All,
    /// Those up to and including this position.
    UpTo(Position),
}

impl Repeats {
    /// Whether a row at this position may have been captured in an earlier life.
    pub fn cover(&self, position: &Position) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::UpTo(last) => !position.is_after(last),
        }
    }

    /// The same, and those up to this position as well.
    #[must_use]
    pub fn and_up_to(&self, position: &Position) -> Self {
        if self.cover(position) { self.clone() } else { Self::UpTo(position.clone()) }
    }
}

/// What is known of a stream's ledger as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerState {
    /// Rows up to this position are of no concern: where this destination began. `None` when it was lost with a store.
    pub floor: Option<Position>,
    /// Which rows may have been captured in an earlier life.
    pub repeats: Repeats,
    /// From where on slots are hours, days, months.
    pub coarse: Coarse,
    /// The next place of the walk through the whole table; `None` when none is under way.
    pub walk: Option<i64>,
    /// When the last such walk ended (gateway's clock).
    pub walked_at: Option<Micros>,
    /// Some rows that were captured, the oldest first: by them the source is known.
    pub witnesses: Vec<Witness>,
}

impl LedgerState {
    /// Of a stream in which nothing has happened yet.
    pub fn new() -> Self {
        Self { floor: None, repeats: Repeats::None, coarse: Coarse::NOTHING, walk: None, walked_at: None, witnesses: Vec::new() }
    }
}

impl Default for LedgerState {
    fn default() -> Self {
        Self::new()
    }
}

/// Adds what a commit changes in the ledger to it.
pub(super) fn put(
    store: &Store,
    change: &mut Change,
    stream: Stream,
    coarse: Coarse,
    ledger: &LedgerChange,
) -> Result<(), StoreError> {
    let mut added = Tallies::new();
    for (slot, tally) in &ledger.add {
        let wide = Slot { place: coarse.align(slot.place), node: slot.node };
        let sum = added.entry(wide).or_default();
        *sum = sum.and(*tally);
    }
    for (slot, tally) in added {
        let key = format::ledger_key(Side::Behind, stream, slot);
        let before =
            store.get(&key)?.map(|value| decode(store, &value)).transpose()?.map_or_else(Tally::default, |(_, tally)| tally);
        put_entry(change, &key, coarse.unit(slot.place) as u16, before.and(tally));
    }
    for (side, entry) in &ledger.set {
        put_entry(change, &format::ledger_key(*side, stream, entry.slot), entry.unit, entry.tally);
    }
    Ok(())
}

/// Entries as they were, into a store that has none.
pub(super) fn restore(change: &mut Change, stream: Stream, entries: &[Entry]) {
    for entry in entries {
        put_entry(change, &format::ledger_key(Side::Behind, stream, entry.slot), entry.unit, entry.tally);
    }
}

fn put_entry(change: &mut Change, key: &[u8], unit: u16, tally: Tally) {
    if tally.rows == 0 {
        change.remove(key);
    } else {
        change.put(key, format::to_bytes(&(unit, tally)));
    }
}

fn decode(store: &Store, value: &[u8]) -> Result<(u16, Tally), StoreError> {
    let damaged = || StoreError::Damaged { path: store.path().into(), what: "an entry of the ledger does not decode".into() };
    format::from_bytes(value).map(|(entry, _)| entry).ok_or_else(damaged)
}

fn entry(store: &Store, key: &[u8], value: &[u8]) -> Result<Entry, StoreError> {
    let damaged = || StoreError::Damaged { path: store.path().into(), what: "a key of the ledger is not one".into() };
    let slot = format::parse_ledger_key(key).ok_or_else(damaged)?;
    let (unit, tally) = decode(store, value)?;
    Ok(Entry { slot, unit, tally })
}

/// The entries from a place on, in order, at most so many.
pub(super) fn read(store: &Store, side: Side, stream: Stream, from: i64, entries_max: usize) -> Result<Vec<Entry>, StoreError> {
    let first = format::ledger_key(side, stream, Slot { place: from, node: i64::MIN });
    let mut found = Vec::new();
    for pair in store.scan(&format::ledger_prefix(side, stream), &first)?.take(entries_max) {
        let (key, value) = pair?;
        found.push(entry(store, &key, &value)?);
    }
    Ok(found)
}

/// The last entry of a place before this one.
pub(super) fn last_before(store: &Store, side: Side, stream: Stream, place: i64) -> Result<Option<Entry>, StoreError> {
    let Some(before) = place.checked_sub(1) else { return Ok(None) };
    let key = format::ledger_key(side, stream, Slot { place: before, node: i64::MAX });
    let found = store.last_up_to(&format::ledger_prefix(side, stream), &key)?;
    found.map(|(key, value)| entry(store, &key, &value)).transpose()
}

/// Moves the borders of days and months towards a target, and merges what comes to lie before them. Gives the new borders, and whether there
/// is more to do.
pub(super) fn coarsen(
    store: &Store,
    change: &mut Change,
    stream: Stream,
    now: Coarse,
    target: Coarse,
) -> Result<(Coarse, bool), StoreError> {
    let nothing_from = |place: i64| read(store, Side::Behind, stream, place, 1).map(|found| found.is_empty());
    // Back only where there is nothing: what was merged cannot be taken apart.
    if target.months_before < now.months_before || target.days_before < now.days_before {
        return Ok(if nothing_from(target.months_before)? { (target, false) } else { (now, false) });
    }
    let (from, end, unit, is_days) = if now.days_before < target.days_before {
        (now.days_before, target.days_before, DAY, true)
    } else if now.months_before < target.months_before {
        (now.months_before, target.months_before, MONTH, false)
    } else {
        return Ok((now, false));
    };
    let moved = |border| if is_days { Coarse { days_before: border, ..now } } else { Coarse { months_before: border, ..now } };
    let (mut border, mut count) = (from, 0);
    while count < STEP_ENTRIES && border < end {
        let next = read(store, Side::Behind, stream, border, 1)?.pop().map_or(end, |entry| entry.slot.place);
        let begin = next.div_euclid(unit) * unit;
        if begin >= end {
            border = end;
            break;
        }
        border = begin + unit;
        let mut merged = BTreeMap::<i64, Tally>::new();
        for entry in read_within(store, Side::Behind, stream, begin, border)? {
            count += 1;
            change.remove(format::ledger_key(Side::Behind, stream, entry.slot));
            let sum = merged.entry(entry.slot.node).or_default();
            *sum = sum.and(entry.tally);
        }
        for (node, tally) in merged {
            put_entry(change, &format::ledger_key(Side::Behind, stream, Slot { place: begin, node }), unit as u16, tally);
        }
    }
    Ok((moved(border), true))
}

/// All entries from one place up to another (exclusive).
pub(super) fn read_within(store: &Store, side: Side, stream: Stream, from: i64, to: i64) -> Result<Vec<Entry>, StoreError> {
    let first = format::ledger_key(side, stream, Slot { place: from, node: i64::MIN });
    let pairs = store.scan(&format::ledger_prefix(side, stream), &first)?;
    let entries = pairs.map(|pair| pair.and_then(|(key, value)| entry(store, &key, &value)));
    entries.take_while(|found| !matches!(found, Ok(entry) if entry.slot.place >= to)).collect()
}

/// Removes all entries from a place on, and all that are ahead.
pub(super) fn truncate(store: &Store, change: &mut Change, stream: Stream, from: i64) -> Result<(), StoreError> {
    for (side, from) in [(Side::Behind, from), (Side::Ahead, i64::MIN)] {
        for entry in read_within(store, side, stream, from, i64::MAX)? {
            change.remove(format::ledger_key(side, stream, entry.slot));
        }
    }
    Ok(())
}

/// Moves the last entries from a place on to the side ahead. Gives the place from which on everything has been moved.
pub(super) fn retreat(store: &Store, change: &mut Change, stream: Stream, to: i64) -> Result<i64, StoreError> {
    let mut moved = Vec::new();
    let mut place = i64::MAX;
    while let Some(last) = last_before(store, Side::Behind, stream, place)?
        && last.slot.place >= to
        && moved.len() < STEP_ENTRIES
    {
        place = last.slot.place;
        moved.extend(read_within(store, Side::Behind, stream, place, place + 1)?);
    }
    let reached = if moved.len() < STEP_ENTRIES { to } else { place };
    for entry in moved {
        change.remove(format::ledger_key(Side::Behind, stream, entry.slot));
        let key = format::ledger_key(Side::Ahead, stream, entry.slot);
        // What is there already may have been counted when it was older, by the day: none of it gets forgotten.
        let (unit, before) = store.get(&key)?.map_or(Ok((0, Tally::default())), |value| decode(store, &value))?;
        put_entry(change, &key, entry.unit.max(unit), before.and(entry.tally));
    }
    Ok(reached)
}

/// Removes entries ahead that lie before a place: the watermark has passed them.
pub(super) fn forget_ahead(store: &Store, change: &mut Change, stream: Stream, before: i64) -> Result<usize, StoreError> {
    let passed = read(store, Side::Ahead, stream, i64::MIN, STEP_ENTRIES)?;
    let mut count = 0;
    for entry in passed.iter().take_while(|entry| entry.slot.place < before) {
        change.remove(format::ledger_key(Side::Ahead, stream, entry.slot));
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests;
