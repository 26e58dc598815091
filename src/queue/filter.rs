//! Which rows are meant. Pure.
//!
//! The one rule: a filter that is not given leaves every row; several that are given must all hold.

use serde::{Deserialize, Serialize};

use crate::{
    domain::{EntityKind, Micros, Rows, Stream},
    outbox::Reason,
};

/// Which rows are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Of this stream.
    pub stream: Option<Stream>,
    /// Of this node.
    pub node: Option<i64>,
    /// Of this sensor type; rows of a stream without one never are.
    pub sensor_type: Option<i64>,
    /// From this time on (of the row).
    pub since: Option<Micros>,
    /// Before this time (of the row).
    pub before: Option<Micros>,
    /// Parked for a reason that holds these words; case does not count.
    pub reason: Option<String>,
}

impl Filter {
    /// Whether rows of a stream can be meant at all.
    pub fn takes_stream(&self, stream: Stream) -> bool {
        let has_type = stream.spec().columns.iter().any(|column| column.refers == Some(EntityKind::SensorType));
        self.stream.is_none_or(|only| only == stream) && (self.sensor_type.is_none() || has_type)
    }

    /// Whether everything of a stream is meant.
    pub fn takes_all(&self) -> bool {
        let Self { stream: _, node, sensor_type, since, before, reason } = self;
        node.is_none() && sensor_type.is_none() && since.is_none() && before.is_none() && reason.is_none()
    }

    /// The places of the rows that are meant, ascending.
    pub fn places(&self, rows: &Rows) -> Vec<usize> {
        if !self.takes_stream(rows.stream()) {
            return Vec::new();
        }
        (0..rows.len()).filter(|row| self.takes(rows, *row)).collect()
    }

    fn takes(&self, rows: &Rows, row: usize) -> bool {
        let columns = rows.stream().spec().columns;
        let points_to = |kind: EntityKind, id: i64| {
            let place = columns.iter().position(|column| column.refers == Some(kind));
            place.and_then(|place| rows.int(place, row)) == Some(id)
        };
        let time = rows.time(row);
        self.node.is_none_or(|node| points_to(EntityKind::Node, node))
            && self.sensor_type.is_none_or(|kind| points_to(EntityKind::SensorType, kind))
            && self.since.is_none_or(|since| time.is_some_and(|time| time >= since))
            && self.before.is_none_or(|before| time.is_some_and(|time| time < before))
    }

    /// Whether a reason is meant.
    pub fn takes_reason(&self, reason: &Reason) -> bool {
        let words = |words: &String| reason.to_string().to_lowercase().contains(&words.to_lowercase());
        self.reason.as_ref().is_none_or(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Column, LocalId, LocalRef};

    fn rows() -> Rows {
        let ints = |values: &[i64]| Column::Int(values.iter().map(|value| Some(*value)).collect());
        let times = Column::Int(vec![Some(0), Some(10), Some(20), Some(30)]);
        let columns = vec![times, ints(&[1, 2, 1, 2]), ints(&[0, 0, 6, 6]), ints(&[9, 9, 9, 9]), Column::Float(vec![None; 4])];
        Rows::new(Stream::Reading, columns)
    }

    #[test]
    fn each_filter_narrows_and_all_together_do() {
        let none = Filter::default();
        for (filter, expected) in [
            (none.clone(), vec![0, 1, 2, 3]),
            (Filter { node: Some(2), ..none.clone() }, vec![1, 3]),
            (Filter { sensor_type: Some(6), ..none.clone() }, vec![2, 3]),
            (Filter { since: Some(Micros(10)), before: Some(Micros(30)), ..none.clone() }, vec![1, 2]),
            (Filter { node: Some(2), sensor_type: Some(6), ..none.clone() }, vec![3]),
            (Filter { stream: Some(Stream::NodeState), ..none.clone() }, vec![]),
        ] {
            assert_eq!(filter.places(&rows()), expected, "{filter:?}");
        }
        assert!(!Filter { sensor_type: Some(0), ..none }.takes_stream(Stream::NodeState));
    }

    #[test]
    fn words_of_a_reason_are_found_in_any_case() {
        let held = Reason::Held(LocalRef { kind: EntityKind::House, id: LocalId(3) });
        let filter = |words: &str| Filter { reason: Some(words.to_owned()), ..Filter::default() };
        assert!(filter("house 3").takes_reason(&held) && filter("HELD").takes_reason(&held));
        assert!(!filter("refused").takes_reason(&held));
        assert!(filter("refused").takes_reason(&Reason::Refused("a 500".into())));
    }
}
