//! Sample data for a source database: the old tool's two ramps, or whole houses in bulk.
//!
//! The one rule: it only adds. It never deletes or changes a row, never writes a time in the future of the database, and goes on where
//! an earlier run stopped.

mod bulk;
mod houses;
mod ramps;
mod tables;

use std::time::Duration;

use chrono::{NaiveDateTime, TimeDelta};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, MySqlConnection};

use super::{fault::Trouble, link};
use crate::{domain::Micros, ports::SourceError};

/// What to make.
#[derive(Clone, Debug)]
pub struct DatagenOptions {
    /// Make the tables of the classic cogent-house schema where they are missing.
    pub create_tables: bool,
    /// The rows to make.
    pub shape: Shape,
}

/// The kinds of sample data.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Node 37 rising from 0 to 100 and node 38 falling from 100 to 0, over and over.
    Ramps(Ramps),
    /// Houses with rooms, nodes and several sensors each, in bulk.
    Houses(Houses),
}

/// The old tool's ramps.
#[derive(Clone, Debug)]
pub struct Ramps {
    /// The time between two readings of a node.
    pub gap: Duration,
    /// How many readings of a node lie between two of its node states; 0 for none.
    pub states_every: u32,
    /// How fast, and how many.
    pub pace: Pace,
}

impl Default for Ramps {
    fn default() -> Self {
        Self { gap: Duration::from_secs(1), states_every: 10, pace: Pace::Backlog { count: 1_000 } }
    }
}

/// When readings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once: so many readings of each node, the last of them now. Where earlier rows leave less room before now, fewer.
    Backlog {
        /// Readings of each node.
        count: u64,
    },
    /// One reading of each node every gap of real time, as a gateway would write it.
    Live {
        /// Readings of each node; `None` for endless, until the future is dropped.
        count: Option<u64>,
    },
}

/// Whole houses: a node in each room, each with every sensor type. Addresses are `1 Sample Street` and so on; what is there already is
/// used again, and its rows go on where they stopped.
#[derive(Clone, Debug)]
pub struct Houses {
    /// How many houses.
    pub houses: u32,
    /// Rooms of each, with one node in each room; at most 8.
    pub rooms: u32,
    /// Sensor types of each node; at most 6.
    pub sensors: u32,
    /// How far back rows begin.
    pub days: f64,
    /// The time between two packets of a node: one reading of each sensor and one node state. At least 1 s.
    pub interval: Duration,
    /// Nodes are numbered from here.
    pub first_node: u32,
}

impl Default for Houses {
    fn default() -> Self {
        Self { houses: 3, rooms: 4, sensors: 4, days: 7.0, interval: Duration::from_mins(5), first_node: 1_000 }
    }
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Readings added.
    pub readings: u64,
    /// Node states added.
    pub node_states: u64,
    /// The time of the first row added, if any.
    pub first: Option<Micros>,
    /// The time of the last row added, if any.
    pub last: Option<Micros>,
}

impl Report {
    fn spans(&mut self, from: NaiveDateTime, to: NaiveDateTime) {
        let (from, to) = (Micros::from_datetime(from), Micros::from_datetime(to));
        self.first = Some(self.first.map_or(from, |first| first.min(from)));
        self.last = Some(self.last.map_or(to, |last| last.max(to)));
    }
}

/// Makes sample rows in the database that the URL names; its user needs the rights INSERT and SELECT, and CREATE for missing tables.
/// `progress` hears how many readings and node states have been added so far. What was committed stays when the future is dropped.
///
/// # Errors
/// As of a source: it cannot be reached, a right is missing, or the tables are of another schema.
pub async fn datagen(url: &str, options: &DatagenOptions, mut progress: impl FnMut(u64) + Send) -> Result<Report, SourceError> {
    let (to, place) = link::destination(url)?;
    let work = async {
        let mut connection = MySqlConnection::connect_with(&to).await?;
        // The rows are consistent by construction; checking each against its node is most of the cost of a bulk.
        connection.execute("SET SESSION foreign_key_checks = 0").await?;
        if options.create_tables {
            tables::create(&mut connection).await?;
        }
        match &options.shape {
            Shape::Ramps(ramps) => ramps::make(&mut connection, ramps, &mut progress).await,
            Shape::Houses(houses) => houses::make(&mut connection, houses, &mut progress).await,
        }
    };
    work.await.map_err(|trouble: Trouble| trouble.told(&place))
}

/// The database's now, to the second.
async fn now(connection: &mut MySqlConnection) -> Result<NaiveDateTime, sqlx::Error> {
    sqlx::query_scalar("SELECT UTC_TIMESTAMP()").fetch_one(connection).await
}

async fn run(connection: &mut MySqlConnection, sql: String) -> Result<u64, sqlx::Error> {
    // Made of our own words and numbers.
    Ok(sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?.rows_affected())
}

/// Whole seconds of a duration, at least one: DATETIME holds no fraction.
fn seconds(duration: Duration) -> TimeDelta {
    TimeDelta::seconds(i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2_000).clamp(1, i64::from(u32::MAX)))
}
