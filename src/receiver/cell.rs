//! One value of a row: read from JSON, bound to a statement, read from the database, written as JSON.
//!
//! The one rule: a number arrives and leaves as the same f64, bit for bit.

use std::fmt::Write as _;

use chrono::NaiveDateTime;
use serde_json::{Map, Value};
use sqlx::{
    MySql, Row as _, Sqlite,
    mysql::{MySqlArguments, MySqlRow},
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use super::{
    Manner,
    refusal::Refusal,
    tables::{Column, Kind, Table},
    time,
};
use crate::domain::Micros;

/// A longer text is refused: no column of the contract holds more than 255 characters.
const TEXT_CHARS_MAX: usize = 1_000;

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// NULL.
    Null,
    /// Whole numbers, and booleans as 1 or 0.
    Int(i64),
    /// Numbers.
    Real(f64),
    /// Text.
    Text(String),
    /// A time, as canonical text.
    Time(String),
}

/// A row, in the order of the columns that the manner knows.
pub(super) type Cells = Vec<Cell>;

impl Cell {
    /// The value of a column in a JSON object; an absent key is NULL.
    pub(super) fn from_json(column: &Column, object: &Map<String, Value>, manner: Manner) -> Result<Self, Refusal> {
        let value = object.get(column.name).unwrap_or(&Value::Null);
        let cell = match (column.kind, value) {
            (_, Value::Null) => Some(Self::Null),
            (Kind::Int, Value::Number(number)) => number.as_i64().map(Self::Int),
            (Kind::Id, Value::Number(number)) if manner.is_legacy() => number.as_i64().map(Self::Int),
            (Kind::Id, Value::Number(number)) => number.as_i64().filter(|id| i32::try_from(*id).is_ok()).map(Self::Int),
            (Kind::Real, Value::Number(number)) => number.as_f64().map(Self::Real),
            (Kind::Bool, Value::Bool(on)) => Some(Self::Int(i64::from(*on))),
            (Kind::Bool, Value::Number(number)) => number.as_i64().filter(|on| matches!(on, 0 | 1)).map(Self::Int),
            (Kind::Time, Value::String(text)) => time::canonical(text.clone(), manner.zone()).ok().map(Self::Time),
            (Kind::Text(_), Value::String(text)) if text.chars().count() <= TEXT_CHARS_MAX => Some(Self::Text(text.clone())),
            _ => None,
        };
        cell.ok_or_else(|| Refusal::Malformed(format!("{} is not {}", column.name, column.kind.wanted())))
    }

    /// What the legacy database keeps of it: whole seconds, and text cut to the column's width.
    #[must_use]
    pub(super) fn cut_as_legacy(self, column: &Column) -> Self {
        match (column.kind, self) {
            (Kind::Time, Self::Time(text)) => Self::Time(time::cut_to_second(text)),
            (Kind::Text(width), Self::Text(text)) => Self::Text(text.chars().take(width).collect()),
            (_, cell) => cell,
        }
    }

    /// A whole number.
    pub(super) fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Null | Self::Real(_) | Self::Text(_) | Self::Time(_) => None,
        }
    }

    /// A text or time.
    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Time(text) => Some(text),
            Self::Null | Self::Int(_) | Self::Real(_) => None,
        }
    }

    /// Binds it to the next place of a statement for SQLite.
    pub(super) fn bind_sqlite(self, query: Query<'_, Sqlite, SqliteArguments>) -> Query<'_, Sqlite, SqliteArguments> {
        match self {
            Self::Null => query.bind(None::<i64>),
            Self::Int(number) => query.bind(number),
            Self::Real(number) => query.bind(number),
            Self::Text(text) | Self::Time(text) => query.bind(text),
        }
    }

    /// Binds it to the next place of a statement for MySQL.
    pub(super) fn bind_mysql(self, query: Query<'_, MySql, MySqlArguments>) -> Query<'_, MySql, MySqlArguments> {
        match self {
            Self::Null => query.bind(None::<i64>),
            Self::Int(number) => query.bind(number),
            Self::Real(number) => query.bind(number),
            Self::Text(text) => query.bind(text),
            // Canonical text is always a time.
            Self::Time(text) => query.bind(time::datetime(&text)),
        }
    }

    /// Reads it from a place of a row of SQLite.
    pub(super) fn from_sqlite(kind: Kind, row: &SqliteRow, place: usize) -> Result<Self, sqlx::Error> {
        Ok(match kind {
            Kind::Int | Kind::Id | Kind::Bool => row.try_get_unchecked::<Option<i64>, _>(place)?.map_or(Self::Null, Self::Int),
            Kind::Real => row.try_get_unchecked::<Option<f64>, _>(place)?.map_or(Self::Null, Self::Real),
            Kind::Time => row.try_get_unchecked::<Option<String>, _>(place)?.map_or(Self::Null, Self::Time),
            Kind::Text(_) => row.try_get_unchecked::<Option<String>, _>(place)?.map_or(Self::Null, Self::Text),
        })
    }

    /// Reads it from a place of a row of MySQL.
    pub(super) fn from_mysql(kind: Kind, row: &MySqlRow, place: usize) -> Result<Self, sqlx::Error> {
        Ok(match kind {
            Kind::Int | Kind::Id | Kind::Bool => row.try_get_unchecked::<Option<i64>, _>(place)?.map_or(Self::Null, Self::Int),
            Kind::Real => row.try_get_unchecked::<Option<f64>, _>(place)?.map_or(Self::Null, Self::Real),
            Kind::Time => {
                let time = row.try_get_unchecked::<Option<NaiveDateTime>, _>(place)?;
                time.map_or(Self::Null, |time| Self::Time(Micros::from_datetime(time).to_string()))
            }
            Kind::Text(_) => row.try_get_unchecked::<Option<String>, _>(place)?.map_or(Self::Null, Self::Text),
        })
    }
}

impl Kind {
    /// What a value of it must be, for people.
    fn wanted(self) -> String {
        match self {
            Self::Int => "a whole number of at most 64 bits or null".to_owned(),
            Self::Id => "a whole number of at most 32 bits or null".to_owned(),
            Self::Real => "a number or null".to_owned(),
            Self::Bool => "true, false or null".to_owned(),
            Self::Time => "a time such as 2013-01-01T00:05:00, UTC, or null".to_owned(),
            Self::Text(_) => format!("a text of at most {TEXT_CHARS_MAX} characters or null"),
        }
    }
}

/// The cells of an object, in the order of the columns that the manner knows.
pub(super) fn cells_of(table: &'static Table, object: &Map<String, Value>, manner: Manner) -> Result<Cells, Refusal> {
    table.columns(manner).map(|column| Cell::from_json(column, object, manner)).collect()
}

/// Writes a row as a JSON object.
pub(super) fn write_row(out: &mut String, table: &'static Table, cells: &[Cell], manner: Manner) {
    let style = Style::of(manner);
    out.push('{');
    let mut first = true;
    let mark = &table.columns[table.mark].name;
    for (column, cell) in table.columns(manner).zip(cells) {
        if column.name == *mark {
            write_key(out, &mut first, crate::wire::TABLE_KEY, style);
            write_text(out, table.name, style);
        }
        write_key(out, &mut first, column.name, style);
        match (cell, column.kind) {
            (Cell::Null, _) => out.push_str("null"),
            (Cell::Int(number), Kind::Bool) => out.push_str(if *number == 0 { "false" } else { "true" }),
            (Cell::Int(number), _) => write!(out, "{number}").unwrap_or_default(),
            (Cell::Real(number), _) => write_number(out, *number),
            (Cell::Text(text) | Cell::Time(text), _) => write_text(out, text, style),
        }
    }
    out.push('}');
}

/// Writes rows as a JSON list.
pub(super) fn write_rows(table: &'static Table, rows: &[Cells], manner: Manner) -> String {
    let mut out = String::with_capacity(2 + rows.len() * 128);
    out.push('[');
    for (place, cells) in rows.iter().enumerate() {
        if place > 0 {
            out.push_str(Style::of(manner).comma());
        }
        write_row(&mut out, table, cells, manner);
    }
    out.push(']');
    out
}

/// A text as JSON in a manner's style.
pub(super) fn json_text(text: &str, manner: Manner) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    write_text(&mut out, text, Style::of(manner));
    out
}

/// How JSON is spaced and escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// No blanks, UTF-8.
    Compact,
    /// As Python's json.dumps writes it: blanks after commas and colons, ASCII only.
    Python,
}

impl Style {
    fn of(manner: Manner) -> Self {
        match manner {
            Manner::Packhorse => Self::Compact,
            Manner::Legacy | Manner::LegacyOldNodeState => Self::Python,
        }
    }

    fn comma(self) -> &'static str {
        match self {
            Self::Compact => ",",
            Self::Python => ", ",
        }
    }
}

fn write_key(out: &mut String, first: &mut bool, key: &str, style: Style) {
    if !std::mem::take(first) {
        out.push_str(style.comma());
    }
    write_text(out, key, style);
    out.push_str(match style {
        Style::Compact => ":",
        Style::Python => ": ",
    });
}

fn write_text(out: &mut String, text: &str, style: Style) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{0}'..='\u{1f}' => write!(out, "\\u{:04x}", u32::from(letter)).unwrap_or_default(),
            _ if letter.is_ascii() || style == Style::Compact => out.push(letter),
            _ => {
                for unit in letter.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}").unwrap_or_default();
                }
            }
        }
    }
    out.push('"');
}

/// The shortest digits that name the number, spelled as Python's repr does: 18.25, 1e-07, 0.0.
fn write_number(out: &mut String, number: f64) {
    if !number.is_finite() {
        out.push_str("null");
        return;
    }
    let size = number.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, power) = power.strip_prefix('-').map_or(('+', power), |power| ('-', power));
        write!(out, "{digits}e{sign}{power:0>2}").unwrap_or_default();
    } else {
        write!(out, "{number:?}").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_spelled_as_python_spells_it_and_reads_back_bit_for_bit() {
        for (number, text) in [
            (1e-7, "1e-07"),
            (18.25, "18.25"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (123_457.0, "123457.0"),
            (0.0001, "0.0001"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (1.5e300, "1.5e+300"),
            (5e-324, "5e-324"),
        ] {
            let mut out = String::new();
            write_number(&mut out, number);
            assert_eq!(out, text);
            assert_eq!(serde_json::from_str::<f64>(&out).unwrap().to_bits(), number.to_bits());
        }
    }

    #[test]
    fn the_legacy_manner_writes_ascii_only() {
        assert_eq!(json_text("é\u{1f600}\u{1}\"", Manner::Legacy), "\"\\u00e9\\ud83d\\ude00\\u0001\\\"\"");
        assert_eq!(json_text("é", Manner::Packhorse), "\"é\"");
    }
}
