//! Where capture stands in one table of the source.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Micros;

/// A place between rows, in the order in which a table is paged. Everything up to and including it has been captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Position {
    /// Before the first row.
    Start,
    /// After the row with this auto-increment id.
    Id(i64),
    /// After the row with this key: its time, then its further key columns in key order.
    Key {
        /// The time of that row.
        time: Micros,
        /// Its further key columns.
        rest: Vec<i64>,
    },
}

impl Position {
    /// Whether it lies behind another one in paging order; never where the two are of tables that are paged otherwise.
    pub fn is_after(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Id(_) | Self::Key { .. }, Self::Start) => true,
            (Self::Id(one), Self::Id(other)) => one > other,
            (Self::Key { time, rest }, Self::Key { time: other, rest: others }) => (time, rest) > (other, others),
            (Self::Start, _) | (Self::Id(_), Self::Key { .. }) | (Self::Key { .. }, Self::Id(_)) => false,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("the beginning"),
            Self::Id(id) => write!(f, "id {id}"),
            Self::Key { time, rest } => {
                write!(f, "{time}")?;
                rest.iter().try_for_each(|part| write!(f, "/{part}"))
            }
        }
    }
}
