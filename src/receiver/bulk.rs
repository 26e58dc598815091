//! The bulk call's JSON list, read straight into typed rows.
//!
//! The one rule: every object is checked before any is stored, and a refusal names the object by its place in the list, from 0.

use std::collections::BTreeSet;

use serde::{
    Deserialize, Deserializer as _,
    de::{Error as _, SeqAccess, Visitor},
};

use super::{Manner, places::Refused, refusal::Refusal, time};

/// A longer list is refused (I7).
const ROWS_MAX: usize = 500_000;

/// One reading.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    /// Its place in the list.
    pub place: usize,
    /// Canonical.
    pub time: String,
    /// Its node.
    pub node: i64,
    /// Its sensor type.
    pub kind: i64,
    /// Its location.
    pub location: Option<i64>,
    /// What was measured.
    pub value: Option<f64>,
}

/// One node state.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Its place in the list.
    pub place: usize,
    /// Canonical. Without a local id it is there.
    pub time: Option<String>,
    /// Its node. Without a local id it is there.
    pub node: Option<i64>,
    /// The node that it sends through.
    pub parent: Option<i64>,
    /// The node's own clock.
    pub localtime: Option<i64>,
    /// Its number.
    pub seq_num: Option<i64>,
    /// Signal strength.
    pub rssi: Option<i64>,
    /// Its id in the gateway's database, where the request tells whose that is.
    pub local_id: Option<i64>,
}

/// One sensor of a node.
#[derive(Clone, Debug)]
pub(super) struct Sensor {
    /// Its place in the list.
    pub place: usize,
    /// What it measures.
    pub kind: Option<i64>,
    /// Its node.
    pub node: Option<i64>,
    /// Calibration.
    pub slope: Option<f64>,
    /// Calibration.
    pub offset: Option<f64>,
}

/// Everything in one bulk request, by table.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Readings, in their order.
    pub readings: Vec<Reading>,
    /// Node states, in their order.
    pub states: Vec<State>,
    /// Sensors, in their order.
    pub sensors: Vec<Sensor>,
    /// How many rows the list has.
    pub count: usize,
    /// Which ids the rows point to.
    pub references: BTreeSet<(&'static str, i64)>,
    /// Rows that are of no use as they are. Only with [`Each::Judged`]; else they refuse the request.
    pub refused: Refused,
}

/// What one bad row does to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    /// It refuses all of them.
    Together,
    /// Nothing: each is judged alone.
    Judged,
}

impl Reading {
    /// What it points to.
    pub(super) fn references(&self) -> impl Iterator<Item = (&'static str, i64)> + use<> {
        [("Node", Some(self.node)), ("SensorType", Some(self.kind)), ("Location", self.location)].into_iter().filter_map(pointed)
    }
}

impl State {
    /// What it points to.
    pub(super) fn references(&self) -> impl Iterator<Item = (&'static str, i64)> + use<> {
        pointed(("Node", self.node)).into_iter()
    }
}

impl Sensor {
    /// What it points to.
    pub(super) fn references(&self) -> impl Iterator<Item = (&'static str, i64)> + use<> {
        [("SensorType", self.kind), ("Node", self.node)].into_iter().filter_map(pointed)
    }
}

fn pointed((table, id): (&'static str, Option<i64>)) -> Option<(&'static str, i64)> {
    Some((table, id?))
}

/// Any object of a bulk. Other keys are ignored.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "__table__")]
    table: String,
    time: Option<String>,
    #[serde(rename = "nodeId")]
    node: Option<i64>,
    #[serde(rename = "type")]
    kind: Option<i64>,
    #[serde(rename = "locationId")]
    location: Option<i64>,
    value: Option<f64>,
    parent: Option<i64>,
    localtime: Option<i64>,
    seq_num: Option<i64>,
    rssi: Option<i64>,
    #[serde(rename = "localId")]
    local_id: Option<i64>,
    #[serde(rename = "sensorTypeId")]
    sensor_type: Option<i64>,
    #[serde(rename = "calibrationSlope")]
    slope: Option<f64>,
    #[serde(rename = "calibrationOffset")]
    offset: Option<f64>,
}

/// Reads a JSON list. `identified` says that the request tells whose local ids these are; without it they mean nothing.
pub(super) fn parse(json: &[u8], manner: Manner, identified: bool, each: Each) -> Result<Batch, Refusal> {
    let mut rows = Rows { batch: Batch::default(), manner, identified, each, too_many: false };
    let mut json = serde_json::Deserializer::from_slice(json);
    let read = json.deserialize_seq(&mut rows).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(rows.batch),
        Err(_) if rows.too_many => Err(Refusal::TooLarge(format!("more than {ROWS_MAX} rows: send fewer at a time"))),
        Err(cause) => Err(Refusal::Malformed(cause.to_string())),
    }
}

struct Rows {
    batch: Batch,
    manner: Manner,
    identified: bool,
    each: Each,
    too_many: bool,
}

impl<'de> Visitor<'de> for &mut Rows {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut place = 0;
        loop {
            let item = list.next_element::<Item>().map_err(|cause| A::Error::custom(format!("row {place}: {cause}")))?;
            let Some(item) = item else { return Ok(()) };
            if place == ROWS_MAX {
                self.too_many = true;
                return Err(A::Error::custom("too many rows"));
            }
            if let Err(cause) = self.take(place, item) {
                match self.each {
                    Each::Together => return Err(A::Error::custom(format!("row {place}: {cause}"))),
                    Each::Judged => self.batch.refused.add(&cause, place),
                }
            }
            place += 1;
            self.batch.count = place;
        }
    }
}

impl Rows {
    fn take(&mut self, place: usize, item: Item) -> Result<(), String> {
        let time = item.time.map(|text| self.time(text)).transpose()?;
        if item.table.eq_ignore_ascii_case("Reading") {
            let node = item.node.ok_or("a reading needs its nodeId")?;
            let kind = item.kind.ok_or("a reading needs its type")?;
            let time = time.ok_or("a reading needs its time")?;
            let reading = Reading { place, time, node, kind, location: item.location, value: item.value };
            self.batch.references.extend(reading.references());
            self.batch.readings.push(reading);
        } else if item.table.eq_ignore_ascii_case("NodeState") {
            let local_id = item.local_id.filter(|_| self.identified);
            if local_id.is_none() && self.manner != Manner::LegacyOldNodeState {
                item.node.ok_or("a node state needs its nodeId")?;
                time.as_ref().ok_or("a node state needs its time")?;
            }
            let Item { node, parent, localtime, seq_num, rssi, .. } = item;
            let state = State { place, time, node, parent, localtime, seq_num, rssi, local_id };
            self.batch.references.extend(state.references());
            self.batch.states.push(state);
        } else if item.table.eq_ignore_ascii_case("Sensor") {
            let Item { sensor_type: kind, node, slope, offset, .. } = item;
            let sensor = Sensor { place, kind, node, slope, offset };
            self.batch.references.extend(sensor.references());
            self.batch.sensors.push(sensor);
        } else {
            return Err(format!("a bulk takes Reading, NodeState and Sensor, not {:.40?}", item.table));
        }
        Ok(())
    }

    fn time(&self, text: String) -> Result<String, String> {
        let time = time::canonical(text, self.manner.zone())
            .map_err(|_| "its time is not one such as 2013-01-01T00:05:00, UTC".to_owned())?;
        Ok(if self.manner.is_legacy() { time::cut_to_second(time) } else { time })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::receiver::body::inflate;

    fn text() -> impl Strategy<Value = String> {
        let value = prop_oneof![
            "-?[0-9]{1,25}(\\.[0-9]{1,5})?(e[0-9]{1,4})?",
            "\"\\PC{0,30}\"",
            Just("null".to_owned()),
            "[\\[\\]{},:]{1,9}"
        ];
        let key = prop::sample::select(vec!["__table__", "time", "nodeId", "type", "value", "localId", "seq_num", "x"]);
        let pair = (key, value).prop_map(|(key, value)| format!(",\"{key}\":{value}"));
        let table = prop::sample::select(vec!["Reading", "NodeState", "Sensor", "Room"]);
        let object = (table, prop::collection::vec(pair, 0..6))
            .prop_map(|(table, pairs)| format!("{{\"__table__\":\"{table}\"{}}}", pairs.concat()));
        prop::collection::vec(object, 0..5).prop_map(|objects| format!("[{}]", objects.join(",")))
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_batch_or_a_refusal(bytes in prop::collection::vec(any::<u8>(), 0..300), identified: bool) {
            if let Ok(json) = inflate(bytes.into()) {
                for each in [Each::Together, Each::Judged] {
                    let _ = parse(&json, Manner::Packhorse, identified, each);
                }
            }
        }

        #[test]
        fn a_list_that_is_nearly_right_keeps_every_row_or_says_why(text in text(), identified: bool) {
            for each in [Each::Together, Each::Judged] {
                let Ok(batch) = parse(text.as_bytes(), Manner::Packhorse, identified, each) else { continue };
                let refused = batch.refused.clone().into_wire();
                let refused: u64 = refused.iter().flat_map(|it| &it.rows).map(|(from, to)| to - from).sum();
                let kept = batch.readings.len() + batch.states.len() + batch.sensors.len();
                prop_assert_eq!(kept as u64 + refused, batch.count as u64);
                prop_assert!(each == Each::Judged || refused == 0);
            }
        }

        #[test]
        fn a_cut_or_changed_zlib_stream_is_no_other_body(text in text(), at in any::<prop::sample::Index>(), byte: u8) {
            let whole = crate::wire::deflate(text.as_bytes()).unwrap();
            let back = inflate(whole.clone().into()).unwrap();
            prop_assert_eq!(back.as_ref(), text.as_bytes());
            let at = at.index(whole.len());
            prop_assert!(inflate(whole[..at].to_vec().into()).is_err());
            let mut changed = whole.clone();
            changed[at] = byte;
            if let Ok(inflated) = inflate(changed.clone().into()) && changed != whole {
                // The first two bytes say how it was made; all else is under the checksum, or it is no zlib any more.
                prop_assert!(at < 2 || inflated.as_ref() == text.as_bytes() || inflated == changed);
            }
        }
    }
}
