//! From a batch to what is sent of it: ids translated, and rows that must not be sent picked out. Pure.
//!
//! The one rule: a row is sent with the central id of everything it points to, or not at all.

use std::collections::BTreeMap;

use crate::{
    domain::{Cell, LocalRef, Mappings, SourceId},
    outbox::{Batch, Reason, SetAside},
    ports::{Bounds, Delivery},
};

/// A batch, ready.
#[derive(Debug, PartialEq)]
pub struct Prepared {
    /// What is sent; may be empty.
    pub delivery: Delivery,
    /// What is parked when the batch is settled.
    pub aside: Vec<SetAside>,
}

/// Translates a batch.
pub fn prepare(batch: &Batch, mappings: &Mappings, source: SourceId) -> Prepared {
    let rows = &batch.rows;
    let mut sent = Vec::with_capacity(rows.len());
    let mut aside = BTreeMap::<Reason, Vec<usize>>::new();
    for row in 0..rows.len() {
        match reason(batch, row, mappings) {
            None => sent.push(row),
            Some(reason) => aside.entry(reason).or_default().push(row),
        }
    }
    let mut translated = if sent.len() == rows.len() { rows.clone() } else { rows.pick(&sent) };
    for (place, spec) in rows.stream().spec().columns.iter().enumerate() {
        let Some(kind) = spec.refers else { continue };
        let central = |row: &usize| {
            let local = LocalRef { kind, id: crate::domain::LocalId(rows.int(place, *row)?) };
            mappings.get(local).map(|id| id.0)
        };
        translated = translated.with_ints(place, sent.iter().map(central).collect());
    }
    let bounds = Bounds { source, generation: batch.generation, epoch: batch.epoch, first: batch.first, end: batch.end() };
    let aside = aside.into_iter().map(|(reason, rows)| SetAside { reason, rows }).collect();
    Prepared { delivery: Delivery { bounds, rows: translated }, aside }
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
        let prepared = prepare(&batch(&[(1, 0, Some(4), 1.0), (1, 0, None, 2.0)]), &mappings(), SourceId(0));
        assert_eq!((prepared.delivery.rows.int(3, 0), prepared.delivery.rows.int(3, 1)), (Some(40), None));
        assert!(prepared.aside.is_empty());
    }

    #[test]
    fn a_row_is_held_when_anything_it_points_to_is_not_mapped() {
        let rows = [(1, 0, Some(4), 1.0), (1, 0, Some(5), 2.0), (2, 0, None, 3.0), (1, 7, None, 4.0), (2, 0, Some(5), 5.0)];
        let prepared = prepare(&batch(&rows), &mappings(), SourceId(0));
        assert_eq!(prepared.delivery.rows.len(), 1);
        let mut aside: Vec<usize> = prepared.aside.iter().flat_map(|aside| aside.rows.clone()).collect();
        aside.sort_unstable();
        assert_eq!(aside, [1, 2, 3, 4]);
        assert!(prepared.aside.contains(&SetAside { reason: Reason::Held(of(EntityKind::Location, 5)), rows: vec![1] }));
    }

    #[test]
    fn a_number_that_json_cannot_carry_is_parked_and_the_rest_is_sent() {
        let rows = [(1, 0, None, f32::NAN), (1, 0, None, 1.5), (1, 0, None, f32::INFINITY)];
        let prepared = prepare(&batch(&rows), &mappings(), SourceId(0));
        assert_eq!(prepared.delivery.rows.len(), 1);
        assert!(matches!(&prepared.aside[..], [SetAside { reason: Reason::Refused(_), rows }] if rows == &[0, 2]));
    }

    #[test]
    fn a_time_that_json_cannot_carry_is_parked_and_the_rest_is_sent() {
        let mut odd = batch(&[(1, 0, None, 1.0), (1, 0, None, 2.0)]);
        odd.rows = odd.rows.with_ints(0, vec![Some(-62_167_219_200_000_000), Some(5)]);
        let prepared = prepare(&odd, &mappings(), SourceId(0));
        assert_eq!(prepared.delivery.rows.len(), 1);
        assert!(matches!(&prepared.aside[..], [SetAside { reason: Reason::Refused(_), rows }] if rows == &[0]));
    }

    #[test]
    fn the_bounds_are_those_of_the_whole_run() {
        let bounds = prepare(&batch(&[(9, 0, None, 1.0), (1, 0, None, 1.5)]), &mappings(), SourceId(3)).delivery.bounds;
        assert_eq!((bounds.first, bounds.end, bounds.source), (Seq(100), Seq(102), SourceId(3)));
    }
}
