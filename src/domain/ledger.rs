//! What was captured, counted: so many rows with such keys in each slot of a table. Pure.
//!
//! A *slot* is what is counted together: the rows of one node in one hour (later one day, then thirty), or a block of ids where a table is paged by id.
//!
//! The one rule: a checksum of rows is the XOR of a hash of each, and that hash is *not* linear. CRC32 alone is: the XOR of the CRC32s of two times
//! with two types each is 0, always, and a gateway stores just such grids (docs/decisions/0011).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Micros, Position, Rows};

/// How a stream's table is paged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// By the auto-increment id; the time plays no part.
    Id,
    /// By the natural key, whose first column is the time.
    Key,
}

/// Ids in one slot of a table that is paged by id.
pub const IDS_PER_PLACE: i64 = 1_024;
/// A day and thirty of them, in places of a table that is paged by time.
pub const DAY: i64 = 24;
/// See [`DAY`].
pub const MONTH: i64 = 720;

/// A place before every other.
pub const FIRST: i64 = -(1 << 40);

/// Which slot: where it begins in the table, and of which node it holds the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// Hours since 1970, or the id divided by [`IDS_PER_PLACE`].
    pub place: i64,
    /// The node; 0 where slots are blocks of ids.
    pub node: i64,
}

/// How many rows, and a checksum of their keys that does not depend on their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub rows: u64,
    /// The XOR of [`Rows::key_hash`] of each.
    pub checksum: u64,
}

impl Tally {
    /// With one more row.
    pub fn add(&mut self, hash: u64) {
        self.rows += 1;
        self.checksum ^= hash;
    }

    /// With the rows of another one, which are other rows.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, checksum: self.checksum ^ other.checksum }
    }

    /// What was added since an earlier tally, if nothing was taken away; `None` when there are fewer rows than then.
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self { rows: self.rows.checked_sub(earlier.rows)?, checksum: self.checksum ^ earlier.checksum })
    }
}

/// Tallies by slot.
pub type Tallies = BTreeMap<Slot, Tally>;

/// Where the ledger of a table paged by time is kept by the day and by the month: everything before these hours. Tables paged by id have blocks
/// alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coarse {
    /// By the day before this hour, a multiple of [`DAY`].
    pub days_before: i64,
    /// By the month before this hour, a multiple of [`MONTH`], and not after `days_before`.
    pub months_before: i64,
}

impl Coarse {
    /// Nothing is.
    pub const NOTHING: Self = Self { days_before: i64::MIN, months_before: i64::MIN };

    /// What should be, so many hours before a time: two days behind the audit horizon, and four hundred days.
    pub fn of(now: Micros, horizon_hours: i64) -> Self {
        let days_before = (now.hour() - horizon_hours).div_euclid(DAY) * DAY - 2 * DAY;
        let months_before = (days_before.min(now.hour() - 400 * DAY)).div_euclid(MONTH) * MONTH;
        Self { days_before, months_before }
    }

    /// How many places a slot spans that holds this place.
    pub fn unit(self, place: i64) -> i64 {
        if place < self.months_before {
            MONTH
        } else if place < self.days_before {
            DAY
        } else {
            1
        }
    }

    /// Where the slot begins that holds this place.
    pub fn align(self, place: i64) -> i64 {
        let unit = self.unit(place);
        place.div_euclid(unit) * unit
    }

    /// The next place after this one from which on slots have another width; `None` when they stay as they are.
    pub fn next_border(self, place: i64) -> Option<i64> {
        [self.months_before, self.days_before].into_iter().find(|border| place < *border)
    }
}

impl Position {
    /// The place (hour or block of ids) that the row before it lies in; `None` at the beginning.
    pub fn place(&self) -> Option<i64> {
        match self {
            Self::Start => None,
            Self::Id(id) => Some(id.div_euclid(IDS_PER_PLACE)),
            Self::Key { time, .. } => Some(time.hour()),
        }
    }
}

/// Counts rows by slot: hours of nodes, or blocks of ids. Rows without a place are in none.
pub fn count(rows: &Rows, order: Order) -> Tallies {
    let mut tallies = Tallies::new();
    // Rows of one slot come together: it is looked for only when it changes.
    let mut text = String::new();
    for row in 0..rows.len() {
        if let Some(slot) = slot(rows, row, order) {
            tallies.entry(slot).or_default().add(rows.key_hash(row, order, &mut text));
        }
    }
    tallies
}

/// The slot of a row, as narrow as slots get.
pub fn slot(rows: &Rows, row: usize, order: Order) -> Option<Slot> {
    match order {
        Order::Id => rows.id_position(row)?.place().map(|place| Slot { place, node: 0 }),
        Order::Key => rows.bucket(row).map(|(node, place)| Slot { place, node }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Column, Stream};

    fn readings(keys: &[(i64, i64, i64)]) -> Rows {
        let int = |value: &dyn Fn(&(i64, i64, i64)) -> i64| Column::Int(keys.iter().map(|key| Some(value(key))).collect());
        let columns = vec![
            int(&|key| key.0 * 300_000_000),
            int(&|key| key.1),
            int(&|key| key.2),
            Column::Int(vec![None; keys.len()]),
            Column::Float(vec![None; keys.len()]),
        ];
        Rows::new(Stream::Reading, columns)
    }

    fn checksum(keys: &[(i64, i64, i64)]) -> u64 {
        readings(keys).key_checksum()
    }

    #[test]
    fn grids_of_times_and_types_have_checksums_of_their_own() {
        let grid = |times: std::ops::Range<i64>, types: std::ops::Range<i64>| -> Vec<_> {
            times.flat_map(|time| types.clone().map(move |kind| (time, 7, kind))).collect()
        };
        let grids =
            [grid(0..2, 0..2), grid(2..4, 0..2), grid(0..12, 0..8), grid(12..24, 0..8), grid(0..16, 0..4), grid(0..64, 0..8)];
        let mut seen: Vec<u64> = grids.iter().map(|keys| checksum(keys)).collect();
        assert!(seen.iter().all(|sum| *sum != 0), "{seen:?}");
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), grids.len());
        // The plain CRC32 does not tell them apart: what the rule is there for.
        let plain = |keys: &[(i64, i64, i64)]| {
            keys.iter().fold(0, |sum, key| {
                sum ^ crc32fast::hash(format!("{}/{}/{}", 1_356_998_400_000_000 + key.0 * 300_000_000, key.1, key.2).as_bytes())
            })
        };
        assert_eq!((plain(&grids[0]), plain(&grids[1])), (0, 0));
    }

    #[test]
    fn what_was_added_is_told_from_what_was_there() {
        let all = count(&readings(&[(0, 1, 0), (1, 1, 0), (2, 1, 0)]), Order::Key);
        let slot = Slot { place: 0, node: 1 };
        let early = count(&readings(&[(0, 1, 0)]), Order::Key)[&slot];
        let late = count(&readings(&[(1, 1, 0), (2, 1, 0)]), Order::Key)[&slot];
        assert_eq!(all[&slot].since(early), Some(late));
        assert_eq!(early.and(late), all[&slot]);
        assert_eq!(early.since(all[&slot]), None);
    }

    #[test]
    fn old_places_are_wide_and_every_border_lies_between_slots() {
        let now: Micros = "2026-11-24T09:00:00".parse().unwrap();
        let coarse = Coarse::of(now, 720);
        assert!(coarse.months_before < coarse.days_before && coarse.days_before < now.hour() - 720);
        assert_eq!((coarse.months_before % MONTH, coarse.days_before % DAY), (0, 0));
        assert_eq!(coarse.unit(now.hour()), 1);
        assert_eq!(coarse.unit(coarse.days_before - 1), DAY);
        assert_eq!(coarse.unit(coarse.months_before - 1), MONTH);
        assert_eq!(coarse.next_border(coarse.months_before - 1), Some(coarse.months_before));
        assert_eq!(coarse.next_border(coarse.months_before), Some(coarse.days_before));
        assert_eq!(coarse.next_border(coarse.days_before), None);
        assert_eq!(coarse.align(coarse.days_before - 1), coarse.days_before - DAY);
        assert_eq!(Coarse::NOTHING.unit(i64::MIN + 5), 1);
    }

    #[test]
    fn states_are_counted_in_blocks_of_ids() {
        let columns = [Some(1_023), Some(0), Some(7), None, None, None, None].map(|value| Column::Int(vec![value; 2]));
        let mut columns: Vec<Column> = columns.into();
        columns[0] = Column::Int(vec![Some(1_023), Some(1_024)]);
        let rows = Rows::new(Stream::NodeState, columns);
        let tallies = count(&rows, Order::Id);
        assert_eq!(tallies.keys().map(|slot| (slot.place, slot.node)).collect::<Vec<_>>(), [(0, 0), (1, 0)]);
        assert_eq!(count(&rows, Order::Key).len(), 1);
    }
}
