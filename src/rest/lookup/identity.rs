//! Rows of a server's list, and which rows of ours they are. Pure.
//!
//! The one rule: a listed row answers for one row of ours at most.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::{
    domain::{Cell, Micros, Rows, SourceId, Stream},
    ports::Presence,
    wire::LOCAL_ID_KEY,
};

/// A row as a server lists it, as far as its identity goes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) time: Micros,
    pub(super) node: i64,
    /// The type of a reading, the seq_num of a node state.
    third: Option<i64>,
    localtime: Option<i64>,
    content: Content,
    /// Whether the server numbers its rows: the older table of legacy servers does.
    pub(super) is_numbered: bool,
    /// The source's id, where a packhorse receiver tells it and whose it is.
    local_id: Option<(String, i64)>,
}

impl Listed {
    /// Reads an object of a list.
    pub(super) fn read(stream: Stream, object: &Value) -> Result<Self, String> {
        let object = object.as_object().ok_or("it is no object")?;
        let third = match stream {
            Stream::Reading => Some(needed(object, "type")?),
            Stream::NodeState => number(object, "seq_num")?,
        };
        let time = object.get("time").and_then(Value::as_str).and_then(|text| text.parse().ok()).ok_or("its time is no time")?;
        let source = object.get("source").and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            time,
            node: needed(object, "nodeId")?,
            third,
            localtime: number(object, "localtime")?,
            content: Content::of_object(object),
            is_numbered: object.contains_key("id"),
            local_id: source.zip(number(object, LOCAL_ID_KEY)?),
        })
    }
}

/// What a row says beside its key, as far as it tells rows of one key apart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Content {
    value: Option<f64>,
    parent: Option<i64>,
    localtime: Option<i64>,
    rssi: Option<i64>,
}

impl Content {
    fn of_object(object: &Map<String, Value>) -> Self {
        let int = |key| object.get(key).and_then(Value::as_i64);
        Self {
            value: object.get("value").and_then(Value::as_f64),
            parent: int("parent"),
            localtime: int("localtime"),
            rssi: int("rssi"),
        }
    }

    fn of_row(rows: &Rows, row: usize) -> Self {
        let mut content = Self::default();
        for (place, column) in rows.stream().spec().columns.iter().enumerate() {
            match (column.name, rows.cell(place, row)) {
                ("value", Cell::Float(value)) => content.value = Some(f64::from(value)),
                ("value", Cell::Double(value)) => content.value = Some(value),
                ("parent", Cell::Int(number)) => content.parent = Some(number),
                ("localtime", Cell::Int(number)) => content.localtime = Some(number),
                ("rssi", Cell::Int(number)) => content.rssi = Some(number),
                _ => {}
            }
        }
        content
    }

    /// Whether the two can be of one row. A legacy server tells a FLOAT by six digits.
    fn can_be(&self, other: &Self) -> bool {
        let differs = |one: Option<i64>, other: Option<i64>| one.zip(other).is_some_and(|(one, other)| one != other);
        let is_far =
            self.value.zip(other.value).is_some_and(|(one, other)| (one - other).abs() > 1e-5 * one.abs().max(other.abs()));
        !is_far
            && !differs(self.parent, other.parent)
            && !differs(self.localtime, other.localtime)
            && !differs(self.rssi, other.rssi)
    }
}

fn number(object: &Map<String, Value>, key: &str) -> Result<Option<i64>, String> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_i64().map(Some).ok_or_else(|| format!("its {key} is no whole number")),
    }
}

fn needed(object: &Map<String, Value>, key: &str) -> Result<i64, String> {
    number(object, key)?.ok_or_else(|| format!("it has no {key}"))
}

/// What a server knows a row by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Time, node and type or seq_num, as the server keeps them: it has one row of each.
    Natural(Micros, i64, Option<i64>),
    /// The same and localtime: it has as many as were sent.
    Each(Micros, i64, Option<i64>, Option<i64>),
    /// The source's id of it, and its time and node.
    Local(i64, Micros, i64),
}

impl Key {
    /// Whether the server keeps one row of a key.
    fn is_unique(&self) -> bool {
        match self {
            Self::Natural(..) | Self::Local(..) => true,
            Self::Each(..) => false,
        }
    }
}

/// How a server knows the rows of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A packhorse receiver.
    Packhorse,
    /// A legacy server that keeps one row of a key.
    Merging,
    /// A legacy server that keeps each row.
    Each,
}

/// What a server listed, ready to be asked.
pub(super) struct Identities {
    kind: Kind,
    stream: Stream,
    listed: HashMap<Key, usize>,
    /// Of rows of which the server keeps one a key.
    contents: HashMap<Key, Content>,
}

impl Identities {
    pub(super) fn new(stream: Stream, is_packhorse: bool, source: SourceId, listed: Vec<Listed>) -> Self {
        let kind = match stream {
            _ if is_packhorse => Kind::Packhorse,
            // A table of which nothing is seen counts as the older one.
            Stream::NodeState if listed.iter().all(|row| row.is_numbered) => Kind::Each,
            Stream::Reading | Stream::NodeState => Kind::Merging,
        };
        let source = source.to_string();
        let mut these = Self { kind, stream, listed: HashMap::new(), contents: HashMap::new() };
        for row in listed {
            let key = match (kind, &row.local_id) {
                (Kind::Packhorse, Some((of, id))) if *of == source => Key::Local(*id, row.time, row.node),
                // Another gateway's row; ours it cannot be.
                (Kind::Packhorse, Some(_)) => continue,
                (Kind::Packhorse | Kind::Merging | Kind::Each, _) => these.key(row.time, row.node, row.third, row.localtime),
            };
            if kind == Kind::Merging {
                these.contents.insert(key.clone(), row.content);
            }
            *these.listed.entry(key).or_default() += 1;
        }
        these
    }

    fn key(&self, time: Micros, node: i64, third: Option<i64>, localtime: Option<i64>) -> Key {
        match (self.kind, self.stream) {
            (Kind::Packhorse, _) => Key::Natural(time, node, third),
            (Kind::Merging, Stream::Reading) => Key::Natural(time.cut_to_second(), node, third),
            // The newer table's key has no NULL.
            (Kind::Merging, Stream::NodeState) => Key::Natural(time.cut_to_second(), node, Some(third.unwrap_or(0))),
            (Kind::Each, _) => Key::Each(time.cut_to_second(), node, third, localtime),
        }
    }

    /// Whether each of these rows is among what was listed.
    pub(super) fn of(mut self, keys: &Rows) -> Vec<Presence> {
        let mut seen = HashSet::new();
        // Readings of whole seconds are told apart by their key.
        let has_fraction = |row| keys.time(row).is_some_and(|time| time != time.cut_to_second());
        if self.stream == Stream::Reading && !(0..keys.len()).any(has_fraction) {
            self.contents.clear();
        }
        (0..keys.len()).map(|row| self.presence(keys, row, &mut seen)).collect()
    }

    fn presence(&mut self, keys: &Rows, row: usize, seen: &mut HashSet<Key>) -> Presence {
        let spec = keys.stream().spec();
        let (Some((node, _)), Some(time)) = (keys.bucket(row), keys.time(row)) else { return Presence::Absent };
        let local = spec.row_id.and_then(|place| keys.int(place, row)).filter(|_| self.kind == Kind::Packhorse);
        let local = local.map(|id| Key::Local(id, time, node));
        let localtime = match keys.stream() {
            Stream::Reading => None,
            Stream::NodeState => keys.int(spec.checked[3], row),
        };
        let natural = self.key(time, node, keys.int(spec.key[2], row), localtime);
        if self.contents.get(&natural).is_some_and(|there| !there.can_be(&Content::of_row(keys, row))) {
            return Presence::Merged;
        }
        // A state that was sent before the server was known as a receiver has no id there.
        for key in local.iter().chain([&natural]) {
            if let Some(left) = self.listed.get_mut(key).filter(|left| **left > 0) {
                *left -= 1;
                seen.insert(key.clone());
                return Presence::There;
            }
        }
        let own = local.unwrap_or(natural);
        if !seen.insert(own.clone()) && own.is_unique() { Presence::Merged } else { Presence::Absent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Column;
    use serde_json::json;

    const OURS: SourceId = SourceId(7);

    /// (id, microseconds, seq_num, localtime) of node 1.
    type State = (Option<i64>, i64, Option<i64>, i64);

    fn states(rows: &[State]) -> Rows {
        let ints = |value: &dyn Fn(&State) -> Option<i64>| Column::Int(rows.iter().map(value).collect());
        let columns = vec![
            ints(&|row| row.0),
            ints(&|row| Some(row.1)),
            ints(&|_| Some(1)),
            ints(&|_| None),
            ints(&|row| Some(row.3)),
            ints(&|row| row.2),
            ints(&|_| None),
        ];
        Rows::new(Stream::NodeState, columns)
    }

    fn listed(rows: &[Value]) -> Vec<Listed> {
        rows.iter().map(|row| Listed::read(Stream::NodeState, row).unwrap()).collect()
    }

    fn state(second: i64, seq_num: &Value, localtime: i64) -> Value {
        json!({"time": Micros(second * 1_000_000).to_string(), "nodeId": 1, "seq_num": seq_num, "localtime": localtime})
    }

    fn with(mut row: Value, more: &[(&str, Value)]) -> Value {
        for (key, value) in more {
            row[*key] = value.clone();
        }
        row
    }

    fn ask(is_packhorse: bool, there: &[Value], rows: &[State]) -> Vec<Presence> {
        Identities::new(Stream::NodeState, is_packhorse, OURS, listed(there)).of(&states(rows))
    }

    use Presence::{Absent, Merged, There};

    #[test]
    fn the_newer_table_keeps_one_state_of_a_second_and_number() {
        let there = [state(5, &json!(0), 50), state(6, &json!(4), 60)];
        let rows = [
            (None, 5_250_000, None, 50),
            (None, 5_500_000, Some(0), 50),
            (None, 6_000_000, Some(4), 60),
            (None, 7_000_000, Some(1), 0),
            (None, 7_900_000, Some(1), 1),
        ];
        assert_eq!(ask(false, &there, &rows), [There, Merged, There, Absent, Merged]);
        // What is in its place is another one.
        assert_eq!(ask(false, &there, &[(None, 5_250_000, None, 51), (None, 5_500_000, Some(0), 50)]), [Merged, There]);
    }

    #[test]
    fn of_readings_of_one_second_the_one_that_is_there_is_known_by_its_value() {
        let read = |value: &Value| {
            let row = json!({"time": "1970-01-01T00:00:05", "nodeId": 1, "type": 0, "value": value});
            vec![Listed::read(Stream::Reading, &row).unwrap()]
        };
        let ints = |values: [i64; 2]| Column::Int(values.map(Some).to_vec());
        let rows = |times: [i64; 2]| {
            let values = Column::Float(vec![Some(18.123_457), Some(19.0)]);
            Rows::new(Stream::Reading, vec![ints(times), ints([1, 1]), ints([0, 0]), ints([1, 1]), values])
        };
        let fractions = rows([5_250_000, 5_750_000]);
        // A legacy server tells six digits.
        for (there, expected) in
            [(json!(18.1235), [There, Merged]), (json!(19.0), [Merged, There]), (json!(null), [There, Merged])]
        {
            assert_eq!(Identities::new(Stream::Reading, false, OURS, read(&there)).of(&fractions), expected, "{there}");
        }
        // Without a fraction the key is enough, whatever the value has become.
        let whole = rows([5_000_000, 6_000_000]);
        assert_eq!(Identities::new(Stream::Reading, false, OURS, read(&json!(7.0))).of(&whole), [There, Absent]);
    }

    #[test]
    fn the_older_table_answers_for_as_many_equal_states_as_it_has() {
        let numbered = |row| with(row, &[("id", json!(9))]);
        let there =
            [numbered(state(5, &Value::Null, 50)), numbered(state(5, &Value::Null, 50)), numbered(state(5, &Value::Null, 51))];
        let same = (Some(1), 5_000_000, None, 50);
        assert_eq!(ask(false, &there, &[same, same, same, (Some(4), 5_000_000, None, 51)]), [There, There, Absent, There]);
    }

    #[test]
    fn a_receiver_tells_states_apart_by_the_sources_id() {
        let told = |row, source: SourceId, id: i64| {
            with(row, &[("id", json!(9)), ("source", json!(source.to_string())), ("localId", json!(id))])
        };
        let there = [
            told(state(5, &json!(1), 50), OURS, 11),
            told(state(5, &json!(1), 50), SourceId(8), 12),
            with(state(6, &Value::Null, 60), &[("id", json!(9)), ("source", Value::Null), ("localId", Value::Null)]),
        ];
        let rows = [
            (Some(11), 5_000_000, Some(1), 50),
            (Some(12), 5_000_000, Some(1), 50),
            (Some(13), 6_000_000, None, 60),
            (Some(14), 6_000_000, Some(0), 60),
        ];
        assert_eq!(ask(true, &there, &rows), [There, Absent, There, Absent]);
    }

    #[test]
    fn a_reading_is_known_by_its_second_at_a_legacy_server_and_by_its_time_at_a_receiver() {
        let ints = |values: [i64; 3]| Column::Int(values.map(Some).to_vec());
        let columns = vec![
            ints([5_000_000, 5_250_000, 9_000_000]),
            ints([1, 1, 1]),
            ints([0, 0, 0]),
            ints([1, 1, 1]),
            Column::Float(vec![None; 3]),
        ];
        let rows = Rows::new(Stream::Reading, columns);
        let there =
            || vec![Listed::read(Stream::Reading, &json!({"time": "1970-01-01T00:00:05", "nodeId": 1, "type": 0})).unwrap()];
        assert_eq!(Identities::new(Stream::Reading, false, OURS, there()).of(&rows), [There, Merged, Absent]);
        assert_eq!(Identities::new(Stream::Reading, true, OURS, there()).of(&rows), [There, Absent, Absent]);
    }

    #[test]
    fn what_is_no_row_is_an_error_and_never_an_absent_one() {
        for bad in [json!(1), json!({}), json!({"time": "x", "nodeId": 1}), json!({"time": "2013-01-01T00:00:00", "nodeId": "1"})]
        {
            assert!(Listed::read(Stream::NodeState, &bad).is_err(), "{bad}");
        }
        assert!(Listed::read(Stream::Reading, &json!({"time": "2013-01-01T00:00:00", "nodeId": 1})).is_err());
    }
}
