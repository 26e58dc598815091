//! From a batch to what is sent of it: ids translated, and rows that must not be sent picked out. Pure.
//!
//! The one rule: a row is sent with the central id of everything it points to, or not at all.

use std::collections::BTreeMap;

use crate::{
    domain::{Cell, LocalRef, Mappings, SourceId},
    outbox::{Batch, Reason, SetAside},
    ports::{Bounds, Delivery},
};

/// What is to become of each row of a batch, by their places in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Prepared {
    /// What is sent, ascending; may be empty.
    pub sent: Vec<usize>,
    /// What is parked when the batch is settled. What is in neither is acked with it.
    pub aside: BTreeMap<usize, Reason>,
}

impl Prepared {
    /// These rows are there already, whatever was to become of them.
    pub fn leave(&mut self, there: &[usize]) {
        self.sent.retain(|row| there.binary_search(row).is_err());
        for row in there {
            self.aside.remove(row);
        }
    }

    /// These rows are parked in place of being sent.
    pub fn park(&mut self, rows: &[usize], reason: &Reason) {
        self.sent.retain(|row| rows.binary_search(row).is_err());
        self.aside.extend(rows.iter().map(|row| (*row, reason.clone())));
    }

    /// Whether rows wait for something of the catalog.
    pub fn holds(&self) -> bool {
        self.aside.values().any(|reason| matches!(reason, Reason::Held(_)))
    }

    /// What is parked, by reason.
    pub fn set_aside(&self) -> Vec<SetAside> {
        let mut by_reason = BTreeMap::<&Reason, Vec<usize>>::new();
        for (row, reason) in &self.aside {
            by_reason.entry(reason).or_default().push(*row);
        }
        by_reason.into_iter().map(|(reason, rows)| SetAside { reason: reason.clone(), rows }).collect()
    }
}

/// Decides which rows of a batch can be sent.
pub fn prepare(batch: &Batch, mappings: &Mappings) -> Prepared {
    let mut prepared = Prepared { sent: Vec::with_capacity(batch.rows.len()), aside: BTreeMap::new() };
    for row in 0..batch.rows.len() {
        match reason(batch, row, mappings) {
            None => prepared.sent.push(row),
            Some(reason) => drop(prepared.aside.insert(row, reason)),
        }
    }
    prepared
}

/// Rows of a batch with the destination's ids. What they point to is mapped.
pub fn translate(batch: &Batch, sent: &[usize], mappings: &Mappings, source: SourceId) -> Delivery {
    let rows = &batch.rows;
    let mut translated = if sent.len() == rows.len() { rows.clone() } else { rows.pick(sent) };
    for (place, spec) in rows.stream().spec().columns.iter().enumerate() {
        let Some(kind) = spec.refers else { continue };
        let central = |row: &usize| {
            let local = LocalRef { kind, id: crate::domain::LocalId(rows.int(place, *row)?) };
            mappings.get(local).map(|id| id.0)
        };
        translated = translated.with_ints(place, sent.iter().map(central).collect());
    }
    let (first, end) = (batch.first, batch.end());
    let bounds = Bounds { source, generation: batch.generation, epoch: batch.epoch, first, end, cursor: first, taken: None };
    Delivery { bounds, rows: translated }
}

/// Why a row is not sent; `None` when it is.
fn reason(batch: &Batch, row: usize, mappings: &Mappings) -> Option<Reason> {
    if let Some(what) = batch.rows.refers(row).find(|what| !mappings.contains(*what)) {
        return Some(Reason::Held(what));
    }
    let place = batch.rows.beyond_json(row)?;
    Some(Reason::Refused(match batch.rows.cell(place, row) {
        Cell::Time(time) => format!("its time lies outside the years 1 to 9999, which JSON cannot carry ({time})"),
        Cell::Null | Cell::Int(_) | Cell::Float(_) | Cell::Double(_) => {
            let name = batch.rows.stream().spec().columns[place].name;
            format!("{name} is not a finite number, which JSON cannot carry")
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Column, EntityKind, Epoch, Freshness, Generation, LocalId, RemoteId, Rows, Seq, Stream};

    /// Node, type, location, value.
    type Row = (i64, i64, Option<i64>, f32);

    fn batch(rows: &[Row]) -> Batch {
        let int = |value: &dyn Fn(&Row) -> Option<i64>| Column::Int(rows.iter().map(value).collect());
        let columns = vec![
            Column::Int((0..rows.len() as i64).map(Some).collect()),
            int(&|row| Some(row.0)),
            int(&|row| Some(row.1)),
            int(&|row| row.2),
            Column::Float(rows.iter().map(|row| Some(row.3)).collect()),
        ];
        let rows = Rows::new(Stream::Reading, columns);
        Batch { epoch: Epoch(1), generation: Generation(0), freshness: Freshness::New, first: Seq(100), rows }
    }

    fn of(kind: EntityKind, id: i64) -> LocalRef {
        LocalRef { kind, id: LocalId(id) }
    }

    fn mappings() -> Mappings {
        [
            (of(EntityKind::Node, 1), RemoteId(1)),
            (of(EntityKind::SensorType, 0), RemoteId(0)),
            (of(EntityKind::Location, 4), RemoteId(40)),
        ]
        .into_iter()
        .collect()
    }

    #[test]
    fn locations_become_central_ones_and_null_stays_null() {
        let batch = batch(&[(1, 0, Some(4), 1.0), (1, 0, None, 2.0)]);
        assert_eq!(prepare(&batch, &mappings()), Prepared { sent: vec![0, 1], aside: BTreeMap::new() });
        let delivery = translate(&batch, &[0, 1], &mappings(), SourceId(0));
        assert_eq!((delivery.rows.int(3, 0), delivery.rows.int(3, 1)), (Some(40), None));
    }

    #[test]
    fn a_row_is_held_when_anything_it_points_to_is_not_mapped() {
        let rows = [(1, 0, Some(4), 1.0), (1, 0, Some(5), 2.0), (2, 0, None, 3.0), (1, 7, None, 4.0), (2, 0, Some(5), 5.0)];
        let prepared = prepare(&batch(&rows), &mappings());
        assert_eq!(prepared.sent, [0]);
        assert!(prepared.holds());
        assert_eq!(prepared.aside.keys().copied().collect::<Vec<_>>(), [1, 2, 3, 4]);
        let held = SetAside { reason: Reason::Held(of(EntityKind::Location, 5)), rows: vec![1] };
        assert!(prepared.set_aside().contains(&held));
    }

    #[test]
    fn a_number_that_json_cannot_carry_is_parked_and_the_rest_is_sent() {
        let rows = [(1, 0, None, f32::NAN), (1, 0, None, 1.5), (1, 0, None, f32::INFINITY)];
        let prepared = prepare(&batch(&rows), &mappings());
        assert_eq!(prepared.sent, [1]);
        assert!(!prepared.holds());
        assert!(matches!(&prepared.set_aside()[..], [SetAside { reason: Reason::Refused(_), rows }] if rows == &[0, 2]));
    }

    #[test]
    fn a_time_that_json_cannot_carry_is_parked_and_the_rest_is_sent() {
        let mut odd = batch(&[(1, 0, None, 1.0), (1, 0, None, 2.0)]);
        odd.rows = odd.rows.with_ints(0, vec![Some(-62_167_219_200_000_000), Some(5)]);
        let prepared = prepare(&odd, &mappings());
        assert_eq!(prepared.sent, [1]);
        assert!(matches!(&prepared.set_aside()[..], [SetAside { reason: Reason::Refused(_), rows }] if rows == &[0]));
    }

    #[test]
    fn what_is_there_is_neither_sent_nor_parked() {
        let mut prepared = prepare(&batch(&[(1, 0, None, 1.0), (9, 0, None, 2.0), (1, 0, None, 3.0)]), &mappings());
        prepared.leave(&[0, 1]);
        assert_eq!(prepared, Prepared { sent: vec![2], aside: BTreeMap::new() });
        prepared.park(&[2], &Reason::Refused("why".into()));
        assert_eq!((prepared.sent.len(), prepared.aside.len()), (0, 1));
    }

    #[test]
    fn the_bounds_are_those_of_the_whole_run() {
        let batch = batch(&[(9, 0, None, 1.0), (1, 0, None, 1.5)]);
        let delivery = translate(&batch, &[1], &mappings(), SourceId(3));
        assert_eq!((delivery.bounds.first, delivery.bounds.end, delivery.bounds.source), (Seq(100), Seq(102), SourceId(3)));
        assert_eq!(delivery.rows.len(), 1);
    }
}
