//! The central tables as descriptions: filters, lists and posts are generic over them.
//!
//! The one rule: SQL names come from here and from nowhere else; nothing that a client sends is ever pasted into a statement.

use super::Manner;

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number that fits 64 signed bits.
    Int,
    /// The id of a row: 32 bits in every database of the field.
    Id,
    /// An f64.
    Real,
    /// true or false; stored as 1 or 0.
    Bool,
    /// A time, as canonical text.
    Time,
    /// Text; the legacy database cuts it to this many characters.
    Text(usize),
}

/// One column.
#[derive(Debug, PartialEq)]
pub(super) struct Column {
    /// Its name, in the database and in JSON.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// The table whose id it names.
    pub refers: Option<&'static str>,
    /// Only packhorse's receiver shows and filters it.
    pub ours: bool,
}

/// What a POST does that names a row which is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// There is no identity: each is one more row.
    Another,
    /// The row stays as it is.
    Keep,
    /// The row stays as it is; another content of these columns is a conflict.
    Guard(&'static [&'static str]),
    /// The row takes the new content.
    Replace,
}

/// One table.
#[derive(Debug, PartialEq)]
pub(super) struct Table {
    /// Its name, which is also `__table__`.
    pub name: &'static str,
    /// The columns, in the order in which the legacy server writes them.
    pub columns: &'static [Column],
    /// Before which column `__table__` stands.
    pub mark: usize,
    /// The primary key, which is the default order.
    pub order: &'static [&'static str],
    /// Which columns make two rows one.
    pub identity: &'static [&'static str],
    /// What a repeat does.
    pub repeat: Repeat,
    /// Whether it may be listed.
    pub listed: bool,
    /// Whether a single object may be posted to it.
    pub posted: bool,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, refers: None, ours: false }
}

const fn refers(name: &'static str, to: &'static str) -> Column {
    Column { name, kind: Kind::Id, refers: Some(to), ours: false }
}

const fn ours(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, refers: None, ours: true }
}

/// A catalog table: listed and posted.
const fn catalog(
    name: &'static str,
    columns: &'static [Column],
    mark: usize,
    identity: &'static [&'static str],
    repeat: Repeat,
) -> Table {
    Table { name, columns, mark, order: &["id"], identity, repeat, listed: true, posted: true }
}

pub(super) static TABLES: [Table; 12] = [
    catalog(
        "Deployment",
        &[
            column("startDate", Kind::Time),
            column("endDate", Kind::Time),
            column("description", Kind::Text(255)),
            column("id", Kind::Id),
            column("name", Kind::Text(255)),
        ],
        3,
        &["name"],
        Repeat::Keep,
    ),
    catalog(
        "House",
        &[
            column("startDate", Kind::Time),
            column("endDate", Kind::Time),
            refers("deploymentId", "Deployment"),
            column("address", Kind::Text(255)),
            refers("serverid", "Server"),
            column("id", Kind::Id),
        ],
        2,
        &["address", "deploymentId"],
        Repeat::Keep,
    ),
    catalog("RoomType", &[column("id", Kind::Id), column("name", Kind::Text(20))], 0, &["name"], Repeat::Keep),
    catalog(
        "Room",
        &[refers("roomTypeId", "RoomType"), column("id", Kind::Id), column("name", Kind::Text(20))],
        1,
        &["name"],
        Repeat::Keep,
    ),
    catalog(
        "Location",
        &[refers("roomId", "Room"), refers("houseId", "House"), column("id", Kind::Id)],
        0,
        &["houseId", "roomId"],
        Repeat::Keep,
    ),
    catalog(
        "NodeType",
        &[
            column("name", Kind::Text(20)),
            column("time", Kind::Time),
            column("seq", Kind::Int),
            column("updated_seq", Kind::Int),
            column("period", Kind::Int),
            column("blink", Kind::Bool),
            column("configured", Kind::Text(10)),
            column("id", Kind::Id),
        ],
        0,
        &["id"],
        Repeat::Guard(&["name"]),
    ),
    catalog(
        "Node",
        &[refers("locationId", "Location"), column("id", Kind::Id), refers("nodeTypeId", "NodeType")],
        0,
        &["id"],
        Repeat::Replace,
    ),
    catalog(
        "SensorType",
        &[
            column("code", Kind::Text(50)),
            column("name", Kind::Text(255)),
            column("c3", Kind::Real),
            column("units", Kind::Text(20)),
            column("c2", Kind::Real),
            column("c1", Kind::Real),
            column("c0", Kind::Real),
            column("id", Kind::Id),
        ],
        2,
        &["id"],
        Repeat::Guard(&["name", "code", "units"]),
    ),
    catalog(
        "Sensor",
        &[
            refers("sensorTypeId", "SensorType"),
            refers("nodeId", "Node"),
            column("calibrationSlope", Kind::Real),
            column("calibrationOffset", Kind::Real),
            column("id", Kind::Id),
        ],
        0,
        &["nodeId", "sensorTypeId"],
        Repeat::Replace,
    ),
    Table {
        name: "Pushstatus",
        columns: &[
            column("hostname", Kind::Text(25)),
            column("version", Kind::Text(20)),
            column("time", Kind::Time),
            column("id", Kind::Int),
            column("localtime", Kind::Time),
        ],
        mark: 0,
        order: &["id"],
        identity: &[],
        repeat: Repeat::Another,
        listed: false,
        posted: true,
    },
    Table {
        name: "Reading",
        columns: &[
            refers("nodeId", "Node"),
            column("value", Kind::Real),
            refers("locationId", "Location"),
            column("time", Kind::Time),
            refers("type", "SensorType"),
        ],
        mark: 0,
        order: &["time", "nodeId", "type"],
        identity: &["time", "nodeId", "type"],
        repeat: Repeat::Replace,
        listed: true,
        posted: false,
    },
    Table {
        name: "NodeState",
        columns: &[
            column("parent", Kind::Int),
            column("seq_num", Kind::Int),
            refers("nodeId", "Node"),
            column("time", Kind::Time),
            column("rssi", Kind::Int),
            column("id", Kind::Int),
            column("localtime", Kind::Int),
            ours("source", Kind::Text(32)),
            ours("generation", Kind::Int),
            ours("localId", Kind::Int),
        ],
        mark: 2,
        order: &["id"],
        identity: &["time", "nodeId", "seq_num"],
        repeat: Repeat::Replace,
        listed: true,
        posted: false,
    },
];

impl Table {
    /// The table of that name, in any case.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// Its columns that a manner knows.
    pub(super) fn columns(&self, manner: Manner) -> impl Iterator<Item = &'static Column> + use<> {
        let without_id = manner == Manner::Legacy && self.name == "NodeState";
        self.columns
            .iter()
            .filter(move |column| (!column.ours || manner == Manner::Packhorse) && !(without_id && column.name == "id"))
    }

    /// What these columns hold.
    pub(super) fn kinds(&self, manner: Manner) -> Vec<Kind> {
        self.columns(manner).map(|column| column.kind).collect()
    }

    /// The column of that name.
    pub(super) fn column(&self, name: &str, manner: Manner) -> Option<&'static Column> {
        self.columns(manner).find(|column| column.name == name)
    }

    /// Whether its id means the same on every server: a post brings it along.
    pub(super) fn has_global_id(&self) -> bool {
        self.identity == ["id"]
    }

    /// Whether a whole object may be put over a row. Types may not: rows of every gateway hang on their meaning. Nor may rooms and
    /// locations, which all of them share.
    pub(super) fn takes_put(&self) -> bool {
        matches!(self.name, "Node" | "Deployment" | "House" | "Sensor")
    }

    /// The word in its address, and in the Location of what was stored.
    pub(super) fn word(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}

/// Column names as a list in SQL.
pub(super) fn quoted<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}
