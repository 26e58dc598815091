//! Sample data for a source database: the old tool's two ramps, whole houses, or the readings of a file.
//!
//! The one rule: it only adds. It never deletes or changes a row, never writes a time in the future of the database, and goes on where
//! an earlier run stopped.

mod bulk;
pub mod csv;
mod from_csv;
mod houses;
mod ramps;
mod tables;

use std::{path::PathBuf, time::Duration};

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
    /// Houses with rooms, nodes and several sensors each.
    Houses(Houses),
    /// The readings of a file.
    Csv(FromCsv),
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
    /// How far back a backlog begins.
    pub days: f64,
    /// Where a backlog ends; now when it is `None` or later than now.
    pub until: Option<Micros>,
    /// The time between two packets of a node: one reading of each sensor and one node state. At least 1 s.
    pub interval: Duration,
    /// Nodes are numbered from here.
    pub first_node: u32,
    /// Decides values and flaws: the same seed gives the same rows for the same moments.
    pub seed: u64,
    /// What befalls nodes and packets.
    pub flaws: Flaws,
    /// When rows are written.
    pub pace: HousesPace,
}

/// What befalls nodes and packets on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaws {
    /// Every packet comes, at the full interval.
    #[default]
    None,
    /// As in the field: packets get lost or arrive up to an hour late, nodes fall silent for hours, start again and then are in 1970, and
    /// some clocks are minutes behind.
    Real,
}

/// When the rows of houses are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HousesPace {
    /// At once, up to now.
    #[default]
    Backlog,
    /// As time goes, a packet of each node every interval, until the future is dropped.
    Live,
    /// So many rows a second, dated now, until the future is dropped. At most a packet of each node a second.
    Rate(u32),
}

/// The readings of a file in the form `time,node,sensor,value`, with or without `seq`; what a line means stands on top of [`csv`].
#[derive(Clone, Debug)]
pub struct FromCsv {
    /// The file; `-` is standard input, and a name that ends with `.xz` is unpacked.
    pub path: PathBuf,
    /// So many rows a second, else all at once.
    pub rows_per_second: Option<u32>,
}

impl Default for Houses {
    fn default() -> Self {
        Self {
            houses: 3,
            rooms: 4,
            sensors: 4,
            days: 7.0,
            until: None,
            interval: Duration::from_mins(5),
            first_node: 1_000,
            seed: 0,
            flaws: Flaws::None,
            pace: HousesPace::Backlog,
        }
    }
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Readings added.
    pub readings: u64,
    /// Node states added.
    pub node_states: u64,
    /// Packets of a file that were not added, because rows of their node reach beyond them already.
    pub passed_over: u64,
    /// The time of the first row added, if any.
    pub first: Option<Micros>,
    /// The time of the last row added, if any.
    pub last: Option<Micros>,
}

impl Report {
    fn spans(&mut self, at: Micros) {
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = Some(self.last.map_or(at, |last| last.max(at)));
    }
}

/// Why not all samples were written. What was committed before stays.
#[derive(Debug, thiserror::Error)]
pub enum DatagenError {
    /// The database.
    #[error(transparent)]
    Database(#[from] SourceError),
    /// The file.
    #[error(transparent)]
    Csv(#[from] csv::CsvError),
}

/// Anything that ends the work early.
enum Ended {
    Trouble(Trouble),
    Csv(csv::CsvError),
}

impl<T: Into<Trouble>> From<T> for Ended {
    fn from(trouble: T) -> Self {
        Self::Trouble(trouble.into())
    }
}

/// Makes sample rows in the database that the URL names; its user needs the rights INSERT and SELECT, and CREATE for missing tables.
/// `progress` hears how many readings and node states have been added so far. What was committed stays when the future is dropped.
///
/// # Errors
/// As of a source: it cannot be reached, a right is missing, or the tables are of another schema. And as of a file that is no such table.
pub async fn datagen(url: &str, options: &DatagenOptions, mut progress: impl FnMut(u64) + Send) -> Result<Report, DatagenError> {
    let (to, place) = link::destination(url)?;
    let work = async {
        let mut connection = MySqlConnection::connect_with(&to).await?;
        // The rows are consistent by construction; checking each against its node is most of the cost of a bulk.
        connection.execute("SET SESSION foreign_key_checks = 0").await?;
        if options.create_tables {
            tables::create(&mut connection).await?;
        }
        Ok(match &options.shape {
            Shape::Ramps(ramps) => ramps::make(&mut connection, ramps, &mut progress).await?,
            Shape::Houses(houses) => houses::make(&mut connection, houses, &mut progress).await?,
            Shape::Csv(file) => from_csv::make(&mut connection, file, &mut progress).await?,
        })
    };
    work.await.map_err(|ended: Ended| match ended {
        Ended::Trouble(trouble) => trouble.told(&place).into(),
        Ended::Csv(error) => error.into(),
    })
}

/// The database's now, in whole seconds after 1970.
async fn now_seconds(connection: &mut MySqlConnection) -> Result<i64, sqlx::Error> {
    Ok(now(connection).await?.and_utc().timestamp())
}

/// A time as SQL wants it, with a fraction only where there is one.
fn text_of(time: Micros) -> String {
    time.to_string().replacen('T', " ", 1)
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

/// The id of the row whose first `identity` assignments hold, made with all of them when there is none.
async fn found_or_made(
    connection: &mut MySqlConnection,
    table: &str,
    assignments: &str,
    identity: usize,
) -> Result<i64, Trouble> {
    let same: Vec<_> = assignments.split(", ").take(identity).collect();
    let find = format!("SELECT CAST(MIN(id) AS SIGNED) FROM {table} WHERE {}", same.join(" AND "));
    let found: Option<i64> = sqlx::query_scalar(AssertSqlSafe(find.clone())).fetch_one(&mut *connection).await?;
    if let Some(id) = found {
        return Ok(id);
    }
    run(connection, format!("INSERT INTO {table} SET {assignments}")).await?;
    Ok(sqlx::query_scalar(AssertSqlSafe(find)).fetch_one(connection).await?)
}
