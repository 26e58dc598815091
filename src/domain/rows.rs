//! Rows of one stream, by columns: the one shape in which they travel from the source to the wire.

use std::fmt::{self, Write as _};

use serde::{Serialize, Serializer};

use super::{ColumnKind, LocalId, LocalRef, Micros, Order, Position, Stream};

/// The values of one column, one for each row; `None` is NULL.
#[derive(Clone, Debug)]
pub enum Column {
    /// Times (as microseconds) and integers.
    Int(Vec<Option<i64>>),
    /// FLOAT.
    Float(Vec<Option<f32>>),
    /// DOUBLE.
    Double(Vec<Option<f64>>),
}

impl Column {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::Int(values) => values.len(),
            Self::Float(values) => values.len(),
            Self::Double(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn pick(&self, rows: &[usize]) -> Self {
        match self {
            Self::Int(values) => Self::Int(rows.iter().map(|&row| values[row]).collect()),
            Self::Float(values) => Self::Float(rows.iter().map(|&row| values[row]).collect()),
            Self::Double(values) => Self::Double(rows.iter().map(|&row| values[row]).collect()),
        }
    }

    fn slice(&self, from: usize, to: usize) -> Self {
        match self {
            Self::Int(values) => Self::Int(values[from..to].to_vec()),
            Self::Float(values) => Self::Float(values[from..to].to_vec()),
            Self::Double(values) => Self::Double(values[from..to].to_vec()),
        }
    }
}

/// Equal bit for bit: a NaN equals itself, and 0.0 differs from -0.0.
impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.map(f32::to_bits) == b.map(f32::to_bits))
            }
            (Self::Double(a), Self::Double(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.map(f64::to_bits) == b.map(f64::to_bits))
            }
            (Self::Int(_) | Self::Float(_) | Self::Double(_), _) => false,
        }
    }
}

/// One value of a row, for people and for JSON.
#[derive(Clone, Copy, Debug)]
pub enum Cell {
    /// NULL.
    Null,
    /// A time.
    Time(Micros),
    /// An integer.
    Int(i64),
    /// A FLOAT, in its shortest form.
    Float(f32),
    /// A DOUBLE, in its shortest form.
    Double(f64),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            Self::Time(at) => at.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Double(value) => value.fmt(f),
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_none(),
            Self::Time(at) => serializer.collect_str(at),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f32(*value),
            Self::Double(value) => serializer.serialize_f64(*value),
        }
    }
}

/// Rows of one stream, in the order of capture. The columns stand in the order of the stream's description and are equally long.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    stream: Stream,
    columns: Vec<Column>,
}

impl Rows {
    /// Takes columns in the order of the stream's description.
    ///
    /// # Panics
    /// When their number, kinds or lengths do not fit the description: whoever builds rows knows it.
    pub fn new(stream: Stream, columns: Vec<Column>) -> Self {
        let specs = stream.spec().columns;
        assert_eq!(columns.len(), specs.len(), "{stream}: one column for each in the description");
        assert!(columns.windows(2).all(|pair| pair[0].len() == pair[1].len()), "{stream}: columns of one length");
        for (column, spec) in columns.iter().zip(specs) {
            let fits = matches!(column, Column::Int(_)) != matches!(spec.kind, ColumnKind::Number);
            assert!(fits, "{stream}.{}: a column of the described kind", spec.name);
        }
        Self { stream, columns }
    }

    /// No rows; number columns as FLOAT.
    pub fn empty(stream: Stream) -> Self {
        let column = |spec: &super::ColumnSpec| match spec.kind {
            ColumnKind::Time | ColumnKind::Int => Column::Int(Vec::new()),
            ColumnKind::Number => Column::Float(Vec::new()),
        };
        Self { stream, columns: stream.spec().columns.iter().map(column).collect() }
    }

    /// Whose rows they are.
    pub fn stream(&self) -> Stream {
        self.stream
    }

    /// The columns, in the order of the description.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many rows.
    pub fn len(&self) -> usize {
        self.columns[0].len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The integer (or time, in microseconds) at a column and row.
    ///
    /// # Panics
    /// When the column is a number column.
    pub fn int(&self, column: usize, row: usize) -> Option<i64> {
        match &self.columns[column] {
            Column::Int(values) => values[row],
            Column::Float(_) | Column::Double(_) => panic!("{}: column {column} holds no integers", self.stream),
        }
    }

    /// Any value, by its column's place.
    pub fn cell(&self, column: usize, row: usize) -> Cell {
        let kind = self.stream.spec().columns[column].kind;
        let value = match &self.columns[column] {
            Column::Int(values) if kind == ColumnKind::Time => values[row].map(|value| Cell::Time(Micros(value))),
            Column::Int(values) => values[row].map(Cell::Int),
            Column::Float(values) => values[row].map(Cell::Float),
            Column::Double(values) => values[row].map(Cell::Double),
        };
        value.unwrap_or(Cell::Null)
    }

    /// The place of the first column whose value in this row JSON cannot say: NaN, infinity, or a time outside of the years 1 to 9999.
    pub fn beyond_json(&self, row: usize) -> Option<usize> {
        (0..self.columns.len()).find(|column| match self.cell(*column, row) {
            Cell::Time(at) => !at.has_four_digit_year(),
            Cell::Float(value) => !value.is_finite(),
            Cell::Double(value) => !value.is_finite(),
            Cell::Null | Cell::Int(_) => false,
        })
    }

    /// The row's time; NULL is possible where the table is keyed by an id.
    pub fn time(&self, row: usize) -> Option<Micros> {
        self.int(self.stream.spec().key[0], row).map(Micros)
    }

    /// The catalog entities that a row points to.
    pub fn refers(&self, row: usize) -> impl Iterator<Item = LocalRef> + '_ {
        self.stream.spec().columns.iter().enumerate().filter_map(move |(place, spec)| {
            let kind = spec.refers?;
            Some(LocalRef { kind, id: LocalId(self.int(place, row)?) })
        })
    }

    /// The position after a row by its auto-increment id; `None` where it has none.
    pub fn id_position(&self, row: usize) -> Option<Position> {
        self.int(self.stream.spec().row_id?, row).map(Position::Id)
    }

    /// The position after a row by its natural key; `None` where a part of it is NULL.
    pub fn key_position(&self, row: usize) -> Option<Position> {
        let rest = self.stream.spec().key[1..].iter().map(|&place| self.int(place, row)).collect::<Option<Vec<_>>>()?;
        Some(Position::Key { time: self.time(row)?, rest })
    }

    /// The position after a row within its hour of one node: its time, then its id, or the last part of its key where it has none. `None` where
    /// a part is NULL.
    pub fn bucket_position(&self, row: usize) -> Option<Position> {
        let spec = self.stream.spec();
        let id = spec.row_id.and_then(|place| self.int(place, row));
        let rest = id.or_else(|| self.int(*spec.key.last()?, row))?;
        Some(Position::Key { time: self.time(row)?, rest: vec![rest] })
    }

    /// The position after a row within its slot: its id where the table is paged by it, else as in its hour of one node.
    pub fn slot_position(&self, row: usize, order: Order) -> Option<Position> {
        match order {
            Order::Id => self.id_position(row),
            Order::Key => self.bucket_position(row),
        }
    }

    /// The node and the hour that a row belongs to; `None` without a time or a node.
    pub fn bucket(&self, row: usize) -> Option<(i64, i64)> {
        Some((self.int(self.stream.spec().key[1], row)?, self.time(row)?.hour()))
    }

    /// A checksum of the rows' keys that does not depend on their order: the XOR of [`key_hash`](Self::key_hash) of each, without ids.
    pub fn key_checksum(&self) -> u64 {
        let mut text = String::new();
        (0..self.len()).fold(0, |sum, row| sum ^ self.key_hash(row, Order::Key, &mut text))
    }

    /// A hash of a row's key: the square of the CRC32 of its text. The square, because the XOR of plain CRC32s is blind for grids. The text is
    /// the time in microseconds since 1970 and the stream's further [`checked`](super::StreamSpec::checked) columns, in decimal, with `/`
    /// between them, and `NULL` for what is NULL or not in the table: `1356998700000000/837/0`; where the table is paged by id, the id and the
    /// [`checked_by_id`](super::StreamSpec::checked_by_id) columns.
    /// `text` is room to write in, whatever it held.
    pub fn key_hash(&self, row: usize, order: Order, text: &mut String) -> u64 {
        text.clear();
        let (id, checked) = self.stream.spec().hashed(order);
        for &place in id.iter().chain(checked) {
            if !text.is_empty() {
                text.push('/');
            }
            // Writing to a String does not fail.
            let _ = match self.int(place, row) {
                Some(number) => write!(text, "{number}"),
                None => write!(text, "NULL"),
            };
        }
        let crc = u64::from(crc32fast::hash(text.as_bytes()));
        crc * crc
    }

    /// The smallest id among some rows, or the smallest time (microseconds) where a row has no id; `i64::MIN` where one has neither.
    pub fn lowest(&self, rows: std::ops::Range<usize>) -> i64 {
        let spec = self.stream.spec();
        let place = |row| spec.row_id.and_then(|id| self.int(id, row)).or_else(|| self.int(spec.key[0], row));
        rows.map(|row| place(row).unwrap_or(i64::MIN)).min().unwrap_or(i64::MIN)
    }

    /// The rows at these places, in this order.
    #[must_use]
    pub fn pick(&self, rows: &[usize]) -> Self {
        Self { stream: self.stream, columns: self.columns.iter().map(|column| column.pick(rows)).collect() }
    }

    /// The rows from one place up to another (exclusive).
    #[must_use]
    pub fn slice(&self, from: usize, to: usize) -> Self {
        Self { stream: self.stream, columns: self.columns.iter().map(|column| column.slice(from, to)).collect() }
    }

    /// Whether other rows can be added: of the same stream, with numbers of the same width.
    pub fn fits(&self, other: &Self) -> bool {
        let alike = |(mine, theirs): (&Column, &Column)| std::mem::discriminant(mine) == std::mem::discriminant(theirs);
        self.stream == other.stream && self.columns.iter().zip(&other.columns).all(alike)
    }

    /// Adds other rows at the end.
    ///
    /// # Panics
    /// When they do not [fit](Self::fits), unless there are none here yet.
    pub fn extend(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        for (mine, theirs) in self.columns.iter_mut().zip(other.columns) {
            match (mine, theirs) {
                (Column::Int(mine), Column::Int(theirs)) => mine.extend(theirs),
                (Column::Float(mine), Column::Float(theirs)) => mine.extend(theirs),
                (Column::Double(mine), Column::Double(theirs)) => mine.extend(theirs),
                (Column::Int(_) | Column::Float(_) | Column::Double(_), _) => panic!("{}: rows of one shape", self.stream),
            }
        }
    }

    /// The rows with the integers of one column replaced.
    ///
    /// # Panics
    /// When there is not one value for each row.
    #[must_use]
    pub fn with_ints(mut self, column: usize, values: Vec<Option<i64>>) -> Self {
        assert_eq!(values.len(), self.len(), "one value for each row");
        self.columns[column] = Column::Int(values);
        self
    }
}
