//! Rows of the wire into columns of [`Rows`], bit for bit.
//!
//! The one rule: a value that does not fit is an error that names the row. In particular a zero date is not NULL, though the driver
//! says so.

use chrono::NaiveDateTime;
use sqlx::{Column as _, Decode, MySql, Row as _, TypeInfo as _, ValueRef as _, mysql::MySqlRow};

use super::schema::Table;
use crate::{
    domain::{Column, ColumnKind, Micros, Rows},
    ports::{Order, SourceError},
};

/// Rows reserved at once; a page that is longer grows.
const RESERVED_MAX: usize = 16_384;

/// How the values of a column lie on the wire; the answer itself says so, not what was once found in information_schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    Time,
    Signed,
    Unsigned,
    Float,
    Double,
    Decimal,
}

impl Wire {
    fn of(kind: ColumnKind, type_name: &str) -> Option<Self> {
        Some(match (kind, type_name) {
            (ColumnKind::Time, "DATETIME" | "TIMESTAMP") => Self::Time,
            (ColumnKind::Int, "BOOLEAN" | "TINYINT" | "SMALLINT" | "MEDIUMINT" | "INT" | "BIGINT") => Self::Signed,
            (ColumnKind::Int, name) if name.ends_with(" UNSIGNED") => Self::Unsigned,
            (ColumnKind::Number, "FLOAT") => Self::Float,
            (ColumnKind::Number, "DOUBLE") => Self::Double,
            (ColumnKind::Number, "DECIMAL") => Self::Decimal,
            (ColumnKind::Time | ColumnKind::Int | ColumnKind::Number, _) => return None,
        })
    }
}

/// A column of the description that is read.
struct Reader {
    /// Its place in the description.
    place: usize,
    wire: Wire,
    /// NULL is an error: pages are ordered by it.
    paging: bool,
}

/// Gathers the rows of one page.
pub(super) struct Decoder {
    table: Table,
    readers: Vec<Reader>,
    columns: Vec<Column>,
    rows: usize,
}

impl Decoder {
    /// For rows like this one.
    pub(super) fn new(table: &Table, row: &MySqlRow, limit: usize) -> Result<Self, SourceError> {
        let specs = table.spec().columns;
        let mut readers = Vec::with_capacity(specs.len());
        for (place, column) in table.selected().zip(row.columns()) {
            let name = column.type_info().name();
            let wire = Wire::of(specs[place].kind, name).ok_or_else(|| SourceError::Schema {
                advice: format!("column {}.{} is of type {name}, which cannot be read", table.spec().table, specs[place].name),
            })?;
            readers.push(Reader { place, wire, paging: table.paging().any(|paging| paging == place) });
        }
        let reserve = limit.min(RESERVED_MAX);
        let columns = specs.iter().enumerate().map(|(place, spec)| {
            let wire = readers.iter().find(|reader| reader.place == place).map(|reader| reader.wire);
            match (spec.kind, wire) {
                (ColumnKind::Time | ColumnKind::Int, _) => Column::Int(Vec::with_capacity(reserve)),
                (ColumnKind::Number, Some(Wire::Double | Wire::Decimal)) => Column::Double(Vec::with_capacity(reserve)),
                (ColumnKind::Number, _) => Column::Float(Vec::with_capacity(reserve)),
            }
        });
        Ok(Self { table: table.clone(), columns: columns.collect(), readers, rows: 0 })
    }

    /// Adds a row.
    pub(super) fn push(&mut self, row: &MySqlRow) -> Result<(), SourceError> {
        for (at, reader) in self.readers.iter().enumerate() {
            let column = &mut self.columns[reader.place];
            let pushed = match (column, reader.wire) {
                (Column::Float(values), _) => float(row, at).map(|value| values.push(value)),
                (Column::Double(values), wire) => double(row, at, wire).map(|value| values.push(value)),
                (Column::Int(values), wire) => match int(row, at, wire) {
                    Ok(None) if reader.paging => Err("is NULL, though pages are ordered by it".to_owned()),
                    value => value.map(|value| values.push(value)),
                },
            };
            pushed.map_err(|why| unreadable(&self.table, row, reader.place, &why))?;
        }
        self.rows += 1;
        Ok(())
    }

    /// The page.
    pub(super) fn finish(mut self) -> Rows {
        for column in &mut self.columns {
            // Columns that this schema lacks.
            if column.is_empty() {
                match column {
                    Column::Int(values) => values.resize(self.rows, None),
                    Column::Float(values) => values.resize(self.rows, None),
                    Column::Double(values) => values.resize(self.rows, None),
                }
            }
        }
        Rows::new(self.table.stream, self.columns)
    }
}

/// The paging columns of a row that holds nothing else, in paging order.
pub(super) fn key(table: &Table, row: &MySqlRow) -> Result<Vec<i64>, SourceError> {
    let each = table.paging().enumerate().map(|(at, place)| {
        let name = row.column(at).type_info().name();
        let value = match Wire::of(table.spec().columns[place].kind, name) {
            Some(wire) => int(row, at, wire),
            None => Err(format!("is of type {name}")),
        };
        value.and_then(|value| value.ok_or_else(|| "is NULL, though pages are ordered by it".to_owned())).map_err(|why| {
            SourceError::Row { advice: format!("{} of the last row of {} {why}", table.name(place), table.spec().table) }
        })
    });
    each.collect()
}

fn int(row: &MySqlRow, at: usize, wire: Wire) -> Result<Option<i64>, String> {
    let raw = row.try_get_raw(at).map_err(|error| error.to_string())?;
    if raw.is_null() {
        // The driver calls a zero date NULL; only its bytes tell them apart.
        let zero_date = wire == Wire::Time && <&[u8] as Decode<MySql>>::decode(raw).is_ok();
        return if zero_date { Err("is 0000-00-00, which is not a date; set a real one".to_owned()) } else { Ok(None) };
    }
    match wire {
        Wire::Time => match <NaiveDateTime as Decode<MySql>>::decode(raw) {
            Ok(at) => Ok(Some(Micros::from_datetime(at).0)),
            Err(error) => Err(format!("is not a date ({error}); set a real one")),
        },
        Wire::Signed => <i64 as Decode<MySql>>::decode(raw).map(Some).map_err(|error| error.to_string()),
        Wire::Unsigned => {
            let value = <u64 as Decode<MySql>>::decode(raw).map_err(|error| error.to_string())?;
            i64::try_from(value).map(Some).map_err(|_| format!("is {value}, more than 64 signed bits hold"))
        }
        Wire::Float | Wire::Double | Wire::Decimal => Err("is not an integer".to_owned()),
    }
}

fn float(row: &MySqlRow, at: usize) -> Result<Option<f32>, String> {
    row.try_get_unchecked(at).map_err(|error| error.to_string())
}

fn double(row: &MySqlRow, at: usize, wire: Wire) -> Result<Option<f64>, String> {
    if wire == Wire::Decimal {
        let text: Option<&str> = row.try_get_unchecked(at).map_err(|error| error.to_string())?;
        return text.map(|text| text.parse().map_err(|_| format!("is '{text}', which is not a number"))).transpose();
    }
    row.try_get_unchecked(at).map_err(|error| error.to_string())
}

/// An integer of a catalog column, whatever its width.
pub(super) fn any_int(row: &MySqlRow, at: usize) -> Result<Option<i64>, String> {
    match row.column(at).type_info().name() {
        "NULL" => Ok(None),
        "BIT" => {
            let bits: Option<u64> = row.try_get_unchecked(at).map_err(|error| error.to_string())?;
            Ok(bits.and_then(|bits| i64::try_from(bits).ok()))
        }
        name => match Wire::of(ColumnKind::Int, name) {
            Some(wire) => int(row, at, wire),
            None => Err(format!("is of type {name}; it should be an integer")),
        },
    }
}

/// A FLOAT of a catalog column; a DOUBLE or DECIMAL is rounded to the nearest.
pub(super) fn any_float(row: &MySqlRow, at: usize) -> Result<Option<f32>, String> {
    match row.column(at).type_info().name() {
        "NULL" => Ok(None),
        name => match Wire::of(ColumnKind::Number, name) {
            Some(Wire::Float) => float(row, at),
            Some(wire) => Ok(double(row, at, wire)?.map(|value| value as f32)),
            None => Ok(any_int(row, at)?.map(|value| value as f32)),
        },
    }
}

/// A date of a catalog column. What is not a date counts as none: it is only told to people.
pub(super) fn any_time(row: &MySqlRow, at: usize) -> Option<Micros> {
    let at: Option<NaiveDateTime> = row.try_get(at).ok()?;
    at.map(Micros::from_datetime)
}

/// Says which row, by whatever of its key can be read.
fn unreadable(table: &Table, row: &MySqlRow, place: usize, why: &str) -> SourceError {
    let spec = table.spec();
    let named = |wanted: usize| {
        let at = table.selected().position(|selected| selected == wanted)?;
        let wire = Wire::of(spec.columns[wanted].kind, row.column(at).type_info().name())?;
        let value = int(row, at, wire).ok().flatten()?;
        let shown = if wire == Wire::Time { Micros(value).to_string() } else { value.to_string() };
        Some(format!("{} {shown}", spec.columns[wanted].name))
    };
    let id = match table.order {
        Order::Id => spec.row_id,
        Order::Key => None,
    };
    let which: Vec<_> = id.into_iter().chain(spec.key.iter().copied()).filter_map(named).collect();
    SourceError::Row {
        advice: format!("{} row with {}: column {} {why}", spec.table, which.join(", "), spec.columns[place].name),
    }
}
