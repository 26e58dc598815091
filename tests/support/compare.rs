//! Counts what was lost, doubled or changed on the way, by SQL alone: the receiver's SQLite tables are copied into the source's MariaDB
//! as `central_*`, and joins say the rest.

use std::{fmt, path::Path};

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::{Database, Schema};

/// How both ends stand to each other, in rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub readings: Counts,
    pub node_states: Counts,
    /// Readings that arrived with another value.
    pub wrong_values: i64,
    /// Readings that arrived in another room, or in none.
    pub wrong_rooms: i64,
}

/// For one table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub source: i64,
    pub arrived: i64,
    pub lost: i64,
    pub duplicated: i64,
    /// Rows at the centre that the source never had.
    pub foreign: i64,
}

impl Counts {
    fn is_equal(&self) -> bool {
        self.source == self.arrived && self.lost == 0 && self.duplicated == 0 && self.foreign == 0
    }
}

impl Comparison {
    /// Whether every row of the source is at the centre exactly once, as it was.
    pub fn is_equal(&self) -> bool {
        self.readings.is_equal() && self.node_states.is_equal() && self.wrong_values == 0 && self.wrong_rooms == 0
    }

    /// Panics with the whole table unless [`is_equal`](Self::is_equal).
    #[track_caller]
    pub fn assert_equal(&self) {
        assert!(self.is_equal(), "both ends differ:\n{self}");
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:12} {:>9} {:>9} {:>9} {:>10} {:>9}", "", "source", "arrived", "lost", "duplicated", "foreign")?;
        for (name, counts) in [("readings", &self.readings), ("node states", &self.node_states)] {
            let Counts { source, arrived, lost, duplicated, foreign } = counts;
            writeln!(f, "{name:12} {source:9} {arrived:9} {lost:9} {duplicated:10} {foreign:9}")?;
        }
        write!(f, "wrong values {}, wrong rooms {}", self.wrong_values, self.wrong_rooms)
    }
}

/// Whether a comparison would be equal, for whoever asks again and again. As long as not as many rows are there as at the source it cannot be, and
/// counting them costs a small part of what it takes to compare them.
pub async fn is_equal(source: &Database, receiver: &Path) -> bool {
    !are_fewer(source, receiver).await && compare(source, receiver).await.is_equal()
}

/// Whether fewer rows of either table are there than at the source.
pub async fn are_fewer(source: &Database, receiver: &Path) -> bool {
    const COUNTS: &str = "SELECT (SELECT COUNT(*) FROM Reading), (SELECT COUNT(*) FROM NodeState)";
    let options = SqliteConnectOptions::new().filename(receiver).read_only(true).disable_statement_logging();
    let mut central = options.connect().await.unwrap_or_else(|error| panic!("{}: {error}", receiver.display()));
    let there: (i64, i64) =
        sqlx::query_as(COUNTS).fetch_one(&mut central).await.unwrap_or_else(|error| panic!("central: {error}"));
    let here: (i64, i64) = sqlx::query_as(COUNTS).fetch_one(source.admin()).await.unwrap();
    there.0 < here.0 || there.1 < here.1
}

/// Compares a source with the receiver's SQLite file.
pub async fn compare(source: &Database, receiver: &Path) -> Comparison {
    let options = SqliteConnectOptions::new().filename(receiver).read_only(true).disable_statement_logging();
    let mut central = options.connect().await.unwrap_or_else(|error| panic!("{}: {error}", receiver.display()));
    copy(source, &mut central).await;
    Comparison {
        readings: readings(source).await,
        node_states: node_states(source).await,
        wrong_values: wrong_values(source).await,
        wrong_rooms: if source.schema().reading_location { wrong_rooms(source).await } else { 0 },
    }
}

/// A table that is copied.
struct Copied {
    name: &'static str,
    /// Its columns as named at the centre, with their types here.
    columns: Vec<(&'static str, &'static str)>,
    index: &'static str,
}

fn tables(schema: Schema) -> [Copied; 5] {
    let value = if schema.double_value { "DOUBLE" } else { "FLOAT" };
    let time = "DATETIME(6)";
    let int = "BIGINT";
    let text = "VARCHAR(255) CHARACTER SET utf8mb3";
    [
        Copied {
            name: "Reading",
            columns: vec![("time", time), ("nodeId", int), ("type", int), ("locationId", int), ("value", value)],
            index: ", INDEX (time, nodeId, type)",
        },
        Copied {
            name: "NodeState",
            columns: vec![("time", time), ("nodeId", int), ("parent", int), ("localtime", int), ("seq_num", int), ("rssi", int)],
            index: "",
        },
        Copied { name: "Location", columns: vec![("id", int), ("houseId", int), ("roomId", int)], index: ", INDEX (id)" },
        Copied { name: "House", columns: vec![("id", int), ("address", text)], index: ", INDEX (id)" },
        Copied { name: "Room", columns: vec![("id", int), ("name", text)], index: ", INDEX (id)" },
    ]
}

async fn copy(source: &Database, central: &mut SqliteConnection) {
    for Copied { name: table, columns, index } in tables(source.schema()) {
        let declared: Vec<_> = columns.iter().map(|(name, kind)| format!("`{name}` {kind}")).collect();
        let create = format!("CREATE TABLE central_{table} ({}{index}) ENGINE=InnoDB", declared.join(", "));
        source.run(&format!("DROP TABLE IF EXISTS central_{table}; {create}")).await;
        let names: Vec<_> = columns.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        // quote() writes any value as a literal, a REAL with all the digits that it needs.
        let literals: Vec<_> = names.iter().map(|name| format!("quote({name})")).collect();
        let mut rows =
            sqlx::query(AssertSqlSafe(format!("SELECT {} FROM \"{table}\"", literals.join(", ")))).fetch(&mut *central);
        let mut batch = Vec::new();
        loop {
            let row = rows.try_next().await.unwrap_or_else(|error| panic!("central {table}: {error}"));
            if let Some(row) = &row {
                let literal = |at: usize| {
                    let text: String = row.get(at);
                    let is_time = columns[at].1.starts_with("DATETIME");
                    if is_time { text.replacen('T', " ", 1) } else { text.replace('\\', "\\\\") }
                };
                batch.push(format!("({})", (0..columns.len()).map(literal).collect::<Vec<_>>().join(",")));
            }
            if batch.len() >= 2_000 || (row.is_none() && !batch.is_empty()) {
                source.run(&format!("INSERT INTO central_{table} VALUES {}", batch.join(","))).await;
                batch.clear();
            }
            if row.is_none() {
                break;
            }
        }
    }
}

/// A reading is itself by (time, nodeId, type).
const SAME_READING: &str = "c.time = s.time AND c.nodeId = s.nodeId AND c.type = s.type";

async fn readings(source: &Database) -> Counts {
    let arrived = format!("SELECT COUNT(*) FROM Reading s WHERE EXISTS (SELECT 1 FROM central_Reading c WHERE {SAME_READING})");
    let lost = format!("SELECT COUNT(*) FROM Reading s WHERE NOT EXISTS (SELECT 1 FROM central_Reading c WHERE {SAME_READING})");
    let foreign =
        format!("SELECT COUNT(*) FROM central_Reading c WHERE NOT EXISTS (SELECT 1 FROM Reading s WHERE {SAME_READING})");
    let duplicated = "SELECT CAST(COALESCE(SUM(n - 1), 0) AS SIGNED) FROM \
                      (SELECT COUNT(*) AS n FROM central_Reading GROUP BY time, nodeId, type HAVING COUNT(*) > 1) AS d";
    Counts {
        source: source.number("SELECT COUNT(*) FROM Reading").await,
        arrived: source.number(&arrived).await,
        lost: source.number(&lost).await,
        duplicated: source.number(duplicated).await,
        foreign: source.number(&foreign).await,
    }
}

async fn wrong_values(source: &Database) -> i64 {
    let sql = format!("SELECT COUNT(*) FROM Reading s JOIN central_Reading c ON {SAME_READING} WHERE NOT (s.value <=> c.value)");
    source.number(&sql).await
}

async fn wrong_rooms(source: &Database) -> i64 {
    let sql = format!(
        "SELECT COUNT(*) FROM Reading s JOIN central_Reading c ON {SAME_READING}
         LEFT JOIN Location sl ON sl.id = s.locationId LEFT JOIN House sh ON sh.id = sl.houseId LEFT JOIN Room sr ON sr.id = sl.roomId
         LEFT JOIN central_Location cl ON cl.id = c.locationId LEFT JOIN central_House ch ON ch.id = cl.houseId
         LEFT JOIN central_Room cr ON cr.id = cl.roomId
         WHERE NOT (BINARY sh.address <=> BINARY ch.address AND BINARY sr.name <=> BINARY cr.name)
            OR (s.locationId IS NULL) <> (c.locationId IS NULL)"
    );
    source.number(&sql).await
}

/// Node states have no natural key that holds everywhere: equal rows are counted on both sides.
async fn node_states(source: &Database) -> Counts {
    let schema = source.schema();
    let mut key = "time, nodeId, parent, `localtime`".to_owned();
    for (there, name) in [(schema.seq_num, ", seq_num"), (schema.rssi, ", rssi")] {
        key.push_str(if there { name } else { "" });
    }
    source
        .run(&format!(
            "DROP TABLE IF EXISTS compared_NodeState; CREATE TABLE compared_NodeState ENGINE=InnoDB AS
             SELECT {key}, SUM(s) AS s, SUM(c) AS c FROM
                 (SELECT {key}, 1 AS s, 0 AS c FROM NodeState UNION ALL SELECT {key}, 0, 1 FROM central_NodeState) AS both_
             GROUP BY {key}"
        ))
        .await;
    let sum = async |what: &str| {
        source.number(&format!("SELECT CAST(COALESCE(SUM({what}), 0) AS SIGNED) FROM compared_NodeState")).await
    };
    Counts {
        source: source.number("SELECT COUNT(*) FROM NodeState").await,
        arrived: sum("LEAST(s, c)").await,
        lost: sum("GREATEST(s - c, 0)").await,
        duplicated: sum("IF(s > 0, GREATEST(c - s, 0), 0)").await,
        foreign: sum("IF(s = 0, c, 0)").await,
    }
}
