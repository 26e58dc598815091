//! The tables that are forwarded, as descriptions. Capture SQL, codec and JSON are generic over them:
//! a third table is one more description, not one more code path.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{EntityKind, Order};

/// One forwarded table; in each outbox it is a log of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Table Reading.
    Reading,
    /// Table NodeState.
    NodeState,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// DATETIME, as [`Micros`](super::Micros).
    Time,
    /// Any integer type that fits 64 signed bits.
    Int,
    /// FLOAT or DOUBLE; each travels at its own width.
    Number,
}

/// One column of a stream.
#[derive(Debug)]
pub struct ColumnSpec {
    /// Its name, in the database and in JSON.
    pub name: &'static str,
    /// What it holds.
    pub kind: ColumnKind,
    /// Schemas in the field lack it; it is then NULL throughout.
    pub optional: bool,
    /// The kind of catalog entity that its values point to.
    pub refers: Option<EntityKind>,
}

/// A stream's table: its columns in order, and what identifies a row.
#[derive(Debug)]
pub struct StreamSpec {
    /// The table's name, which is case-sensitive on Linux.
    pub table: &'static str,
    /// The columns, in the order in which [`Rows`](super::Rows) holds them.
    pub columns: &'static [ColumnSpec],
    /// Places of the natural key's columns, in key order; the first is the time.
    pub key: &'static [usize],
    /// Places of the columns whose text the hash of [`Rows::key_hash`](super::Rows::key_hash) is made of; the first is the
    /// time. The id is not among them, so that tables with and without one agree.
    pub checked: &'static [usize],
    /// The same where the table is paged by id, behind the id. Nothing optional is among them: a column that comes or goes makes no row another one.
    pub checked_by_id: &'static [usize],
    /// Place of the auto-increment id, for tables that may have one. Where the table has it, paging goes by it.
    pub row_id: Option<usize>,
}

impl StreamSpec {
    /// Places of the columns that the hash of a row's key is made of: the id where the table is paged by it, and the others.
    pub fn hashed(&self, order: Order) -> (Option<usize>, &'static [usize]) {
        match order {
            Order::Id => (self.row_id, self.checked_by_id),
            Order::Key => (None, self.checked),
        }
    }
}

const fn column(name: &'static str, kind: ColumnKind) -> ColumnSpec {
    ColumnSpec { name, kind, optional: false, refers: None }
}

const fn optional(name: &'static str, kind: ColumnKind) -> ColumnSpec {
    ColumnSpec { name, kind, optional: true, refers: None }
}

const fn refers(name: &'static str, to: EntityKind, optional: bool) -> ColumnSpec {
    ColumnSpec { name, kind: ColumnKind::Int, optional, refers: Some(to) }
}

static READING: StreamSpec = StreamSpec {
    table: "Reading",
    columns: &[
        column("time", ColumnKind::Time),
        refers("nodeId", EntityKind::Node, false),
        refers("type", EntityKind::SensorType, false),
        refers("locationId", EntityKind::Location, true),
        column("value", ColumnKind::Number),
    ],
    key: &[0, 1, 2],
    checked: &[0, 1, 2],
    checked_by_id: &[0, 1, 2],
    row_id: None,
};

static NODE_STATE: StreamSpec = StreamSpec {
    table: "NodeState",
    columns: &[
        optional("id", ColumnKind::Int),
        column("time", ColumnKind::Time),
        refers("nodeId", EntityKind::Node, false),
        column("parent", ColumnKind::Int),
        column("localtime", ColumnKind::Int),
        optional("seq_num", ColumnKind::Int),
        optional("rssi", ColumnKind::Int),
    ],
    key: &[1, 2, 5],
    checked: &[1, 2, 5, 4],
    checked_by_id: &[1, 2],
    row_id: Some(0),
};

impl Stream {
    /// Every stream, in the order of their numbers on disk.
    pub const ALL: [Self; 2] = [Self::Reading, Self::NodeState];

    /// The description of this stream's table.
    pub fn spec(self) -> &'static StreamSpec {
        match self {
            Self::Reading => &READING,
            Self::NodeState => &NODE_STATE,
        }
    }

    /// The number that stands for it on disk; never reused for another table.
    pub const fn number(self) -> u8 {
        match self {
            Self::Reading => 0,
            Self::NodeState => 1,
        }
    }

    /// The stream with that number on disk.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.number() == number)
    }

    /// Its name on the command line and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::NodeState => "nodestate",
        }
    }

    /// Whether every server knows a repeated record by its key, and keeps one.
    pub const fn is_merged_everywhere(self) -> bool {
        match self {
            Self::Reading => true,
            Self::NodeState => false,
        }
    }

    /// What people call several of its records.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Reading => "readings",
            Self::NodeState => "node states",
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Stream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|stream| stream.name() == text)
            .ok_or_else(|| format!("no stream '{text}': it is one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}
