//! Which tables and columns this database has. Schemas in the field differ, and information_schema knows.
//!
//! The one rule: what is not seen is asked for once more before it is called missing, because information_schema also hides what we have
//! no right to read, and a hidden column must not look like one that is NULL throughout.

use std::collections::HashMap;

use sqlx::{MySqlConnection, Row as _};

use super::{catalog, fault::Trouble, query::quoted};
use crate::{
    domain::{ColumnKind, EntityKind, Stream, StreamSpec},
    ports::{Order, SourceError, SourceSchema, SourceStream},
};

/// A stream's table as it is here.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub stream: Stream,
    pub order: Order,
    /// For each column of the description, whether it is read.
    read: Vec<bool>,
}

impl Table {
    pub(super) fn spec(&self) -> &'static StreamSpec {
        self.stream.spec()
    }

    pub(super) fn name(&self, place: usize) -> &'static str {
        self.spec().columns[place].name
    }

    /// Whether a column is read.
    pub(super) fn reads(&self, place: usize) -> bool {
        self.read[place]
    }

    /// Places of the columns that are read, in the order in which they are selected.
    pub(super) fn selected(&self) -> impl Iterator<Item = usize> {
        (0..self.read.len()).filter(|&place| self.read[place])
    }

    /// Columns of the description that this table lacks, or that are not read here, besides its id.
    pub(super) fn lacking(&self) -> Vec<&'static str> {
        let spec = self.spec();
        (0..self.read.len())
            .filter(|&place| !self.read[place] && spec.row_id != Some(place))
            .map(|place| self.name(place))
            .collect()
    }

    /// Places of the columns that a page is ordered by.
    pub(super) fn paging(&self) -> impl Iterator<Item = usize> {
        let spec = self.spec();
        let (id, key) = match self.order {
            Order::Id => (spec.row_id, &[][..]),
            Order::Key => (None, spec.key),
        };
        id.into_iter().chain(key.iter().copied())
    }

    #[cfg(test)]
    pub(super) fn whole(stream: Stream, order: Order) -> Self {
        Self { stream, order, read: vec![true; stream.spec().columns.len()] }
    }
}

/// What was found out about the database.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    version: String,
    reading: Table,
    node_state: Table,
    /// For each catalog table that is there, its columns, in lower case.
    pub catalog: HashMap<EntityKind, Vec<String>>,
}

impl Schema {
    pub(super) fn table(&self, stream: Stream) -> &Table {
        match stream {
            Stream::Reading => &self.reading,
            Stream::NodeState => &self.node_state,
        }
    }

    pub(super) fn told(&self) -> SourceSchema {
        let streams = Stream::ALL.map(|stream| SourceStream { stream, order: self.table(stream).order });
        SourceSchema { streams: streams.to_vec(), version: self.version.clone() }
    }
}

/// Looks at everything.
pub(super) async fn look(connection: &mut MySqlConnection) -> Result<Schema, Trouble> {
    let mut look = Look::begin(connection).await?;
    let version = look.version.clone();
    let reading = look.stream(Stream::Reading).await?;
    let node_state = look.stream(Stream::NodeState).await?;
    let mut catalog = HashMap::new();
    for kind in EntityKind::ALL {
        if let Some(columns) = look.catalog(kind).await? {
            catalog.insert(kind, columns);
        }
    }
    Ok(Schema { version, reading, node_state, catalog })
}

/// A column as information_schema tells of it, all in lower case.
struct Found {
    name: String,
    data_type: String,
    in_primary_key: bool,
    auto_increment: bool,
}

/// One look, table by table.
pub(super) struct Look<'c> {
    pub connection: &'c mut MySqlConnection,
    pub version: String,
    /// By table name; in lower case where the server compares names that way.
    tables: HashMap<String, Vec<Found>>,
    any_case: bool,
}

impl<'c> Look<'c> {
    pub(super) async fn begin(connection: &'c mut MySqlConnection) -> Result<Self, Trouble> {
        let row = sqlx::query("SELECT VERSION(), @@lower_case_table_names <> 0").fetch_one(&mut *connection).await?;
        let (version, any_case) = (row.try_get_unchecked(0)?, row.try_get_unchecked(1)?);
        let rows = sqlx::query(
            "SELECT table_name, column_name, data_type, column_key, extra FROM information_schema.columns \
             WHERE table_schema = DATABASE() ORDER BY table_name, ordinal_position LIMIT 10000",
        )
        .fetch_all(&mut *connection)
        .await?;
        let mut tables: HashMap<String, Vec<Found>> = HashMap::new();
        for row in rows {
            let text = |place: usize| row.try_get_unchecked::<String, _>(place);
            let table = if any_case { text(0)?.to_lowercase() } else { text(0)? };
            tables.entry(table).or_default().push(Found {
                name: text(1)?.to_lowercase(),
                data_type: text(2)?.to_lowercase(),
                in_primary_key: text(3)? == "PRI",
                auto_increment: text(4)?.contains("auto_increment"),
            });
        }
        Ok(Self { connection, version, tables, any_case })
    }

    fn found(&self, table: &str) -> &[Found] {
        let found = if self.any_case { self.tables.get(&table.to_lowercase()) } else { self.tables.get(table) };
        found.map_or(&[], Vec::as_slice)
    }

    pub(super) async fn stream(&mut self, stream: Stream) -> Result<Table, Trouble> {
        let spec = stream.spec();
        if self.found(spec.table).is_empty() && !self.exists(spec.table, "1").await? {
            return Err(self.missing_table(spec.table).into());
        }
        let mut read = Vec::with_capacity(spec.columns.len());
        let mut unseen = None;
        for column in spec.columns {
            let found = self.found(spec.table).iter().find(|found| found.name.eq_ignore_ascii_case(column.name));
            let seen =
                found.map(|found| check_type(spec.table, column.name, column.kind, &found.data_type)).transpose()?.is_some();
            let there = seen || self.exists(spec.table, &quoted(column.name)).await?;
            if there && !seen {
                unseen = Some(column.name);
            }
            if !there && !column.optional {
                return Err(missing_column(spec.table, column.name).into());
            }
            read.push(there);
        }
        // While a table is altered, information_schema may leave it out: then nobody knows what identifies its rows.
        if let Some(column) = unseen {
            let advice =
                format!("information_schema does not show {}.{column}, which is there; is the table being altered?", spec.table);
            return Err(SourceError::Query { advice, cause: None }.into());
        }
        let by_id = spec.row_id.filter(|&place| read[place] && self.identifies(spec.table, spec.columns[place].name));
        if by_id.is_some() {
            return Ok(Table { stream, order: Order::Id, read });
        }
        if let Some(&place) = spec.key.iter().find(|&&place| !read[place]) {
            return Err(missing_column(spec.table, spec.columns[place].name).into());
        }
        // An id that does not identify rows would be taken for a position: it is left unread.
        if let Some(place) = spec.row_id {
            read[place] = false;
        }
        Ok(Table { stream, order: Order::Key, read })
    }

    /// The columns of a catalog table, or `None` when the table is not there and need not be.
    pub(super) async fn catalog(&mut self, kind: EntityKind) -> Result<Option<Vec<String>>, Trouble> {
        let table = kind.table();
        if self.found(table).is_empty() && !self.exists(table, "1").await? {
            let needed = matches!(kind, EntityKind::Node | EntityKind::SensorType);
            return if needed { Err(self.missing_table(table).into()) } else { Ok(None) };
        }
        let mut columns = Vec::new();
        for column in catalog::columns(kind) {
            let seen = self.found(table).iter().any(|found| found.name.eq_ignore_ascii_case(column.name));
            if seen || self.exists(table, &quoted(column.name)).await? {
                columns.push(column.name.to_lowercase());
            } else if column.needed {
                return Err(missing_column(table, column.name).into());
            }
        }
        Ok(Some(columns))
    }

    /// Whether something that information_schema does not show is there all the same. A missing right is an error.
    pub(super) async fn exists(&mut self, table: &str, column: &str) -> Result<bool, Trouble> {
        let sql = format!("SELECT {column} FROM {} LIMIT 0", quoted(table));
        let asked = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_optional(&mut *self.connection).await.map_err(Trouble::from);
        match asked {
            Ok(_) => Ok(true),
            Err(trouble) if matches!(trouble.number(), Some(1146 | 1054)) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// Whether an id column is the whole primary key or counts up by itself.
    fn identifies(&self, table: &str, id: &str) -> bool {
        let found = self.found(table);
        let keys = found.iter().filter(|column| column.in_primary_key).count();
        found
            .iter()
            .any(|column| column.name.eq_ignore_ascii_case(id) && (column.auto_increment || (column.in_primary_key && keys == 1)))
    }

    fn missing_table(&self, table: &str) -> SourceError {
        let other_case = self.tables.keys().find(|name| name.eq_ignore_ascii_case(table));
        let advice = match other_case {
            Some(other) => format!("there is no table {table}, but one named {other}; rename it: names are case-sensitive here"),
            None => format!("there is no table {table}; is this the cogent-house database?"),
        };
        SourceError::Schema { advice }
    }
}

fn missing_column(table: &str, column: &str) -> SourceError {
    SourceError::Schema { advice: format!("table {table} has no column {column}; is it of the cogent-house schema?") }
}

fn check_type(table: &str, column: &str, kind: ColumnKind, data_type: &str) -> Result<(), SourceError> {
    let (fits, wanted) = match kind {
        ColumnKind::Time => (matches!(data_type, "datetime" | "timestamp"), "DATETIME"),
        ColumnKind::Int => (matches!(data_type, "tinyint" | "smallint" | "mediumint" | "int" | "bigint"), "an integer"),
        ColumnKind::Number => (matches!(data_type, "float" | "double" | "decimal"), "FLOAT or DOUBLE"),
    };
    if fits {
        return Ok(());
    }
    Err(SourceError::Schema { advice: format!("column {table}.{column} is of type {data_type}; it should be {wanted}") })
}
