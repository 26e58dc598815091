//! What the ledger and the source say of a slot, and what follows from it. Pure.
//!
//! The one rule: rows are called new only when the rest is proven to be exactly what was captured: as many, with that checksum. Where there is no
//! such proof, the whole slot is captured again.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    domain::{
        Slot, Stream, Tallies, Tally,
        ledger::{Coarse, DAY, MONTH},
    },
    outbox::{Entry, Side},
};

/// Places in a slice: thirty-one days, or as many blocks of ids.
const SLICE_PLACES: i64 = 31 * DAY;

/// A part of the ledger that is held against the source in one go: no entry reaches over its borders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) from: i64,
    /// Exclusive.
    pub(super) to: i64,
    /// How wide a slot is of which nothing is known.
    pub(super) unit: i64,
    /// Rows that the ledger knows of.
    pub(super) rows: u64,
}

/// The first part of a way that has rows on either side, with some `rows_max` rows at most. The entries are given from a slot's width before the
/// way on, and the first place `there` is with rows at the source. Behind the watermark entries are as wide as `coarse` says; ahead of it some may
/// be wider, and lie over others. `None` where nothing is left.
pub(super) fn cut(known: &[Entry], there: Option<i64>, way: Range<i64>, coarse: Coarse, rows_max: u64) -> Option<Cut> {
    let end_of = |entry: &Entry| entry.slot.place + i64::from(entry.unit);
    let first_known = known.iter().find(|entry| end_of(entry) > way.start).map(|entry| entry.slot.place);
    let from = first_known.into_iter().chain(there).min().filter(|from| *from < way.end)?;
    let (from, unit) = (coarse.align(from), coarse.unit(from));
    let limit = way.end.min(coarse.next_border(from).unwrap_or(i64::MAX)).min(from.saturating_add(SLICE_PLACES.max(unit)));
    let (mut to, mut rows) = (from + unit, 0);
    for entry in known.iter().filter(|entry| entry.slot.place >= from) {
        let place = entry.slot.place;
        // Where nothing is known for a day, nobody knows what is there.
        if place >= to && (place >= limit || place > to + DAY || rows + entry.tally.rows > rows_max) {
            break;
        }
        to = to.max(end_of(entry));
        rows += entry.tally.rows;
    }
    Some(Cut { from, to, unit, rows })
}

/// A slot in which the source has other rows than were captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) slot: Slot,
    pub(super) unit: i64,
    /// What was captured.
    pub(super) known: Tally,
    /// What is there.
    pub(super) there: Tally,
}

/// Where ledger and source differ. Slots of the source are as wide as those of the ledger, or narrower where the ledger's are of days or months.
pub(super) fn differences(ledger: &[Entry], mut source: Tallies, unit: i64) -> Vec<Difference> {
    let mut found = BTreeMap::new();
    for entry in ledger {
        let Slot { place, node } = entry.slot;
        let wide = i64::from(entry.unit);
        let within: Vec<Slot> = if wide == unit {
            vec![entry.slot]
        } else {
            source
                .range(Slot { place, node: i64::MIN }..Slot { place: place + wide, node: i64::MIN })
                .map(|(slot, _)| *slot)
                .filter(|slot| slot.node == node)
                .collect()
        };
        let there = within.iter().filter_map(|slot| source.remove(slot)).fold(Tally::default(), Tally::and);
        if there != entry.tally {
            found.insert(entry.slot, Difference { slot: entry.slot, unit: wide, known: entry.tally, there });
        }
    }
    for (slot, there) in source {
        found.insert(slot, Difference { slot, unit, known: Tally::default(), there });
    }
    found.into_values().collect()
}

/// Which rows of a slot are new, given the hash of each in order: the one run of them without which the rest is what was captured. `None` when there
/// is no such run, or more than one.
pub(super) fn newcomers(hashes: &[u64], known: Tally) -> Option<Range<usize>> {
    let mut all = Tally::default();
    for hash in hashes {
        all.add(*hash);
    }
    let added = all.since(known)?;
    let length = usize::try_from(added.rows).ok().filter(|length| *length > 0)?;
    let mut run = hashes[..length].iter().fold(0, |sum, hash| sum ^ hash);
    let mut found = None;
    for from in 0..=hashes.len() - length {
        if from > 0 {
            run ^= hashes[from - 1] ^ hashes[from + length - 1];
        }
        if run == added.checksum && found.replace(from..from + length).is_some() {
            return None;
        }
    }
    found
}

/// The place before a slot at which wide slots of its region begin.
pub(super) fn widest_before(place: i64) -> i64 {
    place.saturating_sub(MONTH.max(DAY))
}

/// The first pause before a slot is captured as a whole once more.
const PAUSE_MIN: Duration = Duration::from_mins(1);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_hours(24);
/// Slots that are remembered.
const SLOTS_MAX: usize = 10_000;

/// Growing pauses for slots that are captured again as a whole and keep changing, so that what is sent stays in proportion to their rows.
#[derive(Debug, Default)]
pub(super) struct Patience {
    slots: HashMap<(Stream, Side, Slot), (Instant, Duration)>,
}

impl Patience {
    /// Whether a slot's turn has come.
    pub(super) fn is_over(&self, stream: Stream, side: Side, slot: Slot, now: Instant) -> bool {
        self.slots.get(&(stream, side, slot)).is_none_or(|(until, _)| *until <= now)
    }

    /// A slot was captured again as a whole.
    pub(super) fn note(&mut self, stream: Stream, side: Side, slot: Slot, now: Instant) {
        // What was quiet for as long as its pause starts again from the shortest.
        self.slots.retain(|_, (until, pause)| *until + *pause > now);
        if self.slots.len() >= SLOTS_MAX {
            self.slots.clear();
        }
        let entry = self.slots.entry((stream, side, slot)).or_insert((now, PAUSE_MIN / 2));
        let pause = (entry.1 * 2).min(PAUSE_MAX);
        *entry = (now + pause, pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(hashes: &[u64]) -> Tally {
        let mut tally = Tally::default();
        for hash in hashes {
            tally.add(*hash);
        }
        tally
    }

    /// Numbers without structure.
    fn hashes(count: u64) -> Vec<u64> {
        (1..=count).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17).wrapping_mul(0xbf58_476d_1ce4_e5b9)).collect()
    }

    fn entry(place: i64, unit: u16, node: i64, hashes: &[u64]) -> Entry {
        Entry { slot: Slot { place, node }, unit, tally: tally(hashes) }
    }

    #[test]
    fn slots_differ_by_count_or_checksum_and_where_one_side_has_none() {
        let source: Tallies =
            [(1, vec![1, 2]), (2, vec![3]), (4, vec![9])].map(|(place, hashes)| (Slot { place, node: 7 }, tally(&hashes))).into();
        let ledger = [entry(1, 1, 7, &[1, 2]), entry(2, 1, 7, &[4]), entry(3, 1, 7, &[5])];
        let found = differences(&ledger, source, 1);
        assert_eq!(
            found.iter().map(|one| (one.slot.place, one.known.rows, one.there.rows)).collect::<Vec<_>>(),
            [(2, 1, 1), (3, 1, 0), (4, 0, 1)]
        );
    }

    #[test]
    fn a_wide_entry_is_held_against_all_hours_in_it() {
        let source: Tallies = [(24, vec![1]), (30, vec![2, 3]), (48, vec![4])]
            .map(|(place, hashes)| (Slot { place, node: 7 }, tally(&hashes)))
            .into();
        let found = differences(&[entry(24, 24, 7, &[1, 2, 3])], source.clone(), 1);
        assert_eq!(found.iter().map(|one| one.slot.place).collect::<Vec<_>>(), [48]);
        let found = differences(&[entry(24, 24, 7, &[1, 2])], source, 1);
        assert_eq!(
            found.iter().map(|one| (one.slot.place, one.unit, one.there.rows)).collect::<Vec<_>>(),
            [(24, 24, 3), (48, 1, 1)]
        );
    }

    #[test]
    fn a_cut_goes_through_no_entry() {
        let cut =
            |known: &[Entry], there, way| cut(known, there, way, Coarse::NOTHING, 100).map(|cut| (cut.from, cut.to, cut.rows));
        let hours = [entry(50, 1, 7, &[1]), entry(51, 1, 7, &[2]), entry(90, 1, 7, &[3])];
        assert_eq!(cut(&hours, None, 40..99), Some((50, 52, 2)), "a day of nothing ends it");
        assert_eq!(cut(&hours, Some(45), 40..99), Some((45, 52, 2)));
        assert_eq!(cut(&hours, None, 52..99), Some((90, 91, 1)));
        assert_eq!(cut(&hours, None, 91..99), None);
        assert_eq!(cut(&hours, Some(99), 91..99), None);
        // Days and months, from when these hours were old, may begin before the way and reach over its end.
        let wide = [entry(24, 24, 7, &[1]), entry(30, 1, 7, &[1]), entry(47, 1, 8, &[2]), entry(48, 1, 8, &[3])];
        for way in [30..99, 40..99, 40..46] {
            let to = if way.end < 48 { 48 } else { 49 };
            assert_eq!(cut(&wide, Some(45), way.clone()).map(|(from, to, _)| (from, to)), Some((24, to)), "{way:?}");
        }
        assert_eq!(cut(&[entry(0, 720, 7, &[1]), entry(719, 24, 8, &[1])], None, 700..701), Some((0, 743, 2)));
    }

    #[test]
    fn a_run_of_new_rows_is_found_wherever_it_lies() {
        let all = hashes(1_000);
        for (from, length) in [(0, 1), (999, 1), (400, 1), (0, 30), (970, 30), (500, 499), (0, 1_000)] {
            let mut known = all.clone();
            known.drain(from..from + length);
            assert_eq!(newcomers(&all, tally(&known)), Some(from..from + length));
        }
    }

    #[test]
    fn rows_that_are_not_one_run_or_that_replaced_others_are_not_guessed() {
        let all = hashes(100);
        let known: Vec<u64> =
            all.iter().copied().enumerate().filter(|(row, _)| !matches!(row, 10 | 50)).map(|(_, hash)| hash).collect();
        assert_eq!(newcomers(&all, tally(&known)), None);
        assert_eq!(newcomers(&all, tally(&hashes(101))), None);
        assert_eq!(newcomers(&all, tally(&all)), None);
        let replaced: Vec<u64> = hashes(101)[1..].to_vec();
        assert_eq!(newcomers(&all, tally(&replaced)), None);
        // The same row twice: which one is new cannot be told.
        assert_eq!(newcomers(&[5, 7, 5], tally(&[7, 5])), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_keeps_changing_is_captured_again_ever_more_rarely() {
        let mut patience = Patience::default();
        let slot = Slot { place: 1, node: 2 };
        let (begin, mut times) = (Instant::now(), 0);
        for minute in 0..120 {
            let now = begin + Duration::from_mins(minute);
            if patience.is_over(Stream::Reading, Side::Behind, slot, now) {
                patience.note(Stream::Reading, Side::Behind, slot, now);
                times += 1;
            }
        }
        assert_eq!(times, 7);
        // Once it has been quiet, the next difference does not wait.
        assert!(patience.is_over(Stream::Reading, Side::Behind, slot, begin + Duration::from_hours(9)));
    }
}
