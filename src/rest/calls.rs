//! Each call of the contract as a method, a target and a body; no network in here.
//!
//! The one rule: a filter that the legacy server would misread is left out, because a superset can be compared and a miss cannot.

use reqwest::Method;
use serde_json::Value;

use super::{address::quote_plus, classify::Kind};
use crate::{
    domain::{Entity, EntityKind, Micros, RemoteId, Stream},
    ports::{Ask, PushStatus, RemoteEntity, Summary},
    wire,
};

/// What a success of a call looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// 200 and a list.
    List,
    /// 201 and the stored object.
    Object,
    /// 201 and a list, which is empty.
    Stored,
}

/// One request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Below the base, with its query.
    pub(super) target: String,
    pub(super) body: Option<Body>,
    pub(super) success: Success,
    pub(super) kind: Kind,
    /// A list call: at most so many rows are asked for, by a Range.
    pub(super) rows_max: Option<u64>,
}

/// A body with its type.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: &'static str,
}

impl Body {
    fn json(value: &Value) -> Self {
        Self { bytes: value.to_string().into_bytes(), content_type: "application/json" }
    }

    /// Without a Content-Encoding: the legacy server inflates by itself, and something on the way might too.
    pub(super) fn zlib(bytes: Vec<u8>) -> Self {
        Self { bytes, content_type: "application/octet-stream" }
    }
}

impl Call {
    /// The call's name in advice and evidence: without its query, which may name a house.
    pub(super) fn name(&self) -> String {
        format!("{} {}", self.method, self.target.split('?').next().unwrap_or_default())
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.bytes.len())
    }
}

fn path(kind: EntityKind) -> String {
    format!("{}/", kind.table().to_ascii_lowercase())
}

pub(super) fn asked(ask: &Ask) -> EntityKind {
    match ask {
        Ask::All(kind) => *kind,
        Ask::House { .. } => EntityKind::House,
        Ask::Location { .. } => EntityKind::Location,
        Ask::Sensors { .. } => EntityKind::Sensor,
    }
}

pub(super) fn find(ask: &Ask) -> Call {
    let filters = match ask {
        Ask::All(_) => Vec::new(),
        Ask::House { deployment, address } => {
            let address = address.as_deref().filter(|address| can_filter(address));
            vec![("deploymentId", number(*deployment)), ("address", address.map(quote_plus))]
        }
        Ask::Location { house, room } => vec![("houseId", number(*house)), ("roomId", number(*room))],
        Ask::Sensors { node } => vec![("nodeId", number(Some(*node)))],
    };
    let query: Vec<String> = filters.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value?))).collect();
    let path = path(asked(ask));
    let target = if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) };
    Call { method: Method::GET, target, body: None, success: Success::List, kind: Kind::Read, rows_max: None }
}

/// Any one node state: what it looks like tells a legacy server's kind.
pub(super) fn first_node_state() -> Call {
    let target = "nodestate/?".into();
    Call { method: Method::GET, target, body: None, success: Success::List, kind: Kind::Read, rows_max: Some(1) }
}

/// Asks for nothing, so that nearly nothing comes back.
pub(super) fn reach() -> Call {
    Call {
        method: Method::GET,
        target: path(EntityKind::RoomType),
        body: None,
        success: Success::List,
        kind: Kind::Read,
        rows_max: Some(0),
    }
}

fn number(id: Option<RemoteId>) -> Option<String> {
    id.map(|id| id.to_string())
}

/// The legacy server cuts values at the last `_`, takes `*` as a wildcard, and skips `None`.
fn can_filter(address: &str) -> bool {
    let trimmed = address.trim();
    !trimmed.is_empty() && !trimmed.eq_ignore_ascii_case("none") && !address.contains(['_', '*'])
}

pub(super) fn create(id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Call {
    let body = Some(Body::json(&wire::entity_to_json(id, entity)));
    Call { method: Method::POST, target: path(entity.kind()), body, success: Success::Object, kind: Kind::Store, rows_max: None }
}

/// The row that an update replaces.
pub(super) fn row(kind: EntityKind, id: RemoteId) -> Call {
    let target = format!("{}?id={id}", path(kind));
    Call { method: Method::GET, target, body: None, success: Success::List, kind: Kind::Read, rows_max: None }
}

/// Replaces a row: keys of it that the entity does not know stay, because a server makes NULL of what is not sent.
pub(super) fn update(entity: &RemoteEntity, row: &serde_json::Map<String, Value>) -> Call {
    let target = format!("{}?id={}", path(entity.entity.kind()), entity.id);
    let mut object = row.clone();
    if let Value::Object(ours) = wire::entity_to_json(Some(entity.id), &entity.entity) {
        object.extend(ours);
    }
    let body = Some(Body::json(&Value::Object(object)));
    Call { method: Method::PUT, target, body, success: Success::Object, kind: Kind::Store, rows_max: None }
}

pub(super) fn push_status(status: &PushStatus) -> Call {
    status_report(&wire::push_status_to_json(status))
}

/// With figures, for a packhorse receiver.
pub(super) fn push_summary(status: &PushStatus, summary: &Summary) -> Call {
    status_report(&wire::push_summary_to_json(status, summary))
}

fn status_report(object: &Value) -> Call {
    let body = Some(Body::json(object));
    Call { method: Method::POST, target: "pushstatus/".into(), body, success: Success::Object, kind: Kind::Store, rows_max: None }
}

pub(super) fn bulk(zlib: Vec<u8>, rows: usize) -> Call {
    let kind = if rows > 1 { Kind::Bulk } else { Kind::SingleRow };
    Call {
        method: Method::POST,
        target: "bulk/".into(),
        body: Some(Body::zlib(zlib)),
        success: Success::Stored,
        kind,
        rows_max: None,
    }
}

/// At most `rows_max` rows of a node from a time up to another (exclusive). A time holds no `_`, at which legacy servers cut values.
pub(super) fn rows(stream: Stream, node: i64, from: Micros, to: Micros, rows_max: u64) -> Call {
    let table = stream.spec().table.to_ascii_lowercase();
    let [from, to] = [from, to].map(|time| quote_plus(&time.to_string()));
    let target = format!("{table}/?nodeId={node}&time=ge_{from}&time=lt_{to}");
    Call { method: Method::GET, target, body: None, success: Success::List, kind: Kind::Read, rows_max: Some(rows_max) }
}

/// Any one row of a stream.
pub(super) fn any_row(stream: Stream) -> Call {
    let target = format!("{}/", stream.spec().table.to_ascii_lowercase());
    Call { method: Method::GET, target, body: None, success: Success::List, kind: Kind::Read, rows_max: Some(1) }
}

/// The JSON of sensors, for the bulk call.
pub(super) fn sensors(sensors: &[Entity<RemoteId>]) -> Value {
    sensors.iter().map(|sensor| wire::entity_to_json(None, sensor)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(deployment: Option<i64>, address: Option<&str>) -> String {
        find(&Ask::House { deployment: deployment.map(RemoteId), address: address.map(str::to_owned) }).target
    }

    #[test]
    fn an_address_that_the_filter_would_misread_is_left_out() {
        assert_eq!(house(Some(1), Some("Poor House")), "house/?deploymentId=1&address=Poor+House");
        for mangled in [Some("a_b"), Some("a*"), Some("None"), Some("none "), Some(""), Some("  "), None] {
            assert_eq!(house(Some(1), mangled), "house/?deploymentId=1", "{mangled:?}");
            assert_eq!(house(None, mangled), "house/", "{mangled:?}");
        }
        assert_eq!(house(None, Some("Poor House")), "house/?address=Poor+House");
    }

    #[test]
    fn rows_are_asked_for_by_node_and_time() {
        let call = rows(Stream::NodeState, 11, Micros(1_356_998_700_000_000), Micros(1_356_998_701_000_000), 0);
        let range = "time=ge_2013-01-01T00%3A05%3A00&time=lt_2013-01-01T00%3A05%3A01";
        assert_eq!(call.target, format!("nodestate/?nodeId=11&{range}"));
        assert_eq!(call.name(), "GET nodestate/");
    }

    #[test]
    fn lists_and_locations_are_asked_for_with_the_trailing_slash() {
        assert_eq!(find(&Ask::All(EntityKind::SensorType)).target, "sensortype/");
        assert_eq!(find(&Ask::Location { house: Some(RemoteId(1)), room: None }).target, "location/?houseId=1");
        assert_eq!(
            find(&Ask::Location { house: Some(RemoteId(1)), room: Some(RemoteId(6)) }).target,
            "location/?houseId=1&roomId=6"
        );
    }
}
