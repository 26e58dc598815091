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
