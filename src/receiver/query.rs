//! The query string of a list: filters, order, and the range of rows.
//!
//! The one rule: values are bound, never pasted; an unknown column is refused, not ignored.

use super::{
    Manner,
    cell::Cell,
    refusal::Refusal,
    tables::{Column, Kind, Table, quoted},
    time,
};

/// Which rows of a table are asked for.
#[derive(Debug)]
pub(super) struct Selection {
    /// The condition in SQL, its values as `?`.
    pub condition: String,
    /// The values, in order.
    pub cells: Vec<Cell>,
    /// Whether there is a condition at all.
    pub narrows: bool,
    /// The order in SQL.
    pub order: String,
}

/// Rows from an offset up to another (exclusive).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// How many rows are passed over.
    pub from: i64,
    /// How many may come.
    pub count: i64,
}

impl Span {
    /// Reads `items=0-10`, which is rows 0 to 9. An open range, or anything else, is no range.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let (from, to) = header.trim().strip_prefix("items=")?.split_once('-')?;
        let (from, to): (u32, u32) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        Some(Self { from: from.into(), count: to.saturating_sub(from).into() })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    AtLeast,
    Above,
    AtMost,
    Below,
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        match name {
            "ge" => Some(Self::AtLeast),
            "gt" => Some(Self::Above),
            "le" => Some(Self::AtMost),
            "lt" => Some(Self::Below),
            _ => None,
        }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::AtLeast => ">=",
            Self::Above => ">",
            Self::AtMost => "<=",
            Self::Below => "<",
        }
    }
}

/// What the parts of a query string ask of a table.
pub(super) fn selection(table: &'static Table, pairs: &[(String, String)], manner: Manner) -> Result<Selection, Refusal> {
    let mut conditions = Vec::new();
    let mut cells = Vec::new();
    let mut order = String::new();
    for (place, (key, value)) in pairs.iter().enumerate() {
        if let Some(by) = key.strip_prefix("sort(").and_then(|by| by.strip_suffix(')')) {
            if manner.is_legacy() && place + 1 != pairs.len() {
                return Err(Refusal::Malformed("sort() must come last".to_owned()));
            }
            order = sort(table, by, manner)?;
            continue;
        }
        let column = known(table, key, manner)?;
        let condition = if manner.is_legacy() {
            legacy_condition(column, value, &mut cells)?
        } else {
            Some(condition(column, value, &mut cells)?)
        };
        conditions.extend(condition);
    }
    let narrows = !conditions.is_empty();
    if !narrows {
        conditions.push("1 = 1".to_owned());
    }
    order.push_str(&quoted(table.order.iter().copied()));
    Ok(Selection { condition: conditions.join(" AND "), cells, narrows, order })
}

fn known(table: &'static Table, name: &str, manner: Manner) -> Result<&'static Column, Refusal> {
    table.column(name, manner).ok_or_else(|| Refusal::Malformed(format!("{} has no column {name:?}", table.name)))
}

/// `-time` or `+time` (whose plus may have become a blank), as the beginning of an ORDER BY.
fn sort(table: &'static Table, by: &str, manner: Manner) -> Result<String, Refusal> {
    let (direction, name) = match by.strip_prefix('-') {
        Some(name) => ("DESC", name),
        None => ("ASC", by.trim_start_matches(['+', ' '])),
    };
    Ok(format!("\"{}\" {direction}, ", known(table, name, manner)?.name))
}

/// Our own filters: an operator only where one stands in front, exact comparison, `None` finds NULL.
fn condition(column: &Column, value: &str, cells: &mut Vec<Cell>) -> Result<String, Refusal> {
    let (operator, operand) =
        value.split_once('_').and_then(|(name, rest)| Some((Operator::named(name)?, rest))).unwrap_or((Operator::Equal, value));
    let name = column.name;
    if operand == "None" && operator == Operator::Equal {
        return Ok(match column.kind {
            Kind::Text(_) => format!("(\"{name}\" IS NULL OR \"{name}\" = 'None')"),
            Kind::Int | Kind::Id | Kind::Real | Kind::Bool | Kind::Time => format!("\"{name}\" IS NULL"),
        });
    }
    let wrong = || Refusal::Malformed(format!("{name}={value}: the value does not fit the column"));
    cells.push(match column.kind {
        Kind::Int | Kind::Id => Cell::Int(operand.parse().map_err(|_| wrong())?),
        Kind::Real => Cell::Real(operand.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(wrong)?),
        Kind::Bool => Cell::Int(truth(operand).ok_or_else(wrong)?),
        Kind::Time => Cell::Time(time::canonical(operand.to_owned(), time::Zone::Utc).map_err(|_| wrong())?),
        Kind::Text(_) => Cell::Text(operand.to_owned()),
    });
    Ok(format!("\"{name}\" {} ?", operator.sql()))
}

/// The legacy server's filters: the value is what stands behind the last `_`, `None` is skipped, `*` is a wildcard, and texts compare as
/// MySQL compares them. An address with a letter beyond ASCII breaks it.
fn legacy_condition(column: &Column, value: &str, cells: &mut Vec<Cell>) -> Result<Option<String>, Refusal> {
    let (operator, operand) = value.rsplit_once('_').unwrap_or(("", value));
    let operator = Operator::named(operator).unwrap_or(Operator::Equal);
    let name = column.name;
    if operand == "None" {
        return Ok(None);
    }
    if !value.is_ascii() && name == "address" {
        return Err(Refusal::Legacy("an address with a letter beyond ASCII".to_owned()));
    }
    if operand.contains('*') && operator == Operator::Equal && column.kind != Kind::Time {
        let pattern = operand.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_").replace('*', "%");
        cells.push(Cell::Text(pattern));
        return Ok(Some(format!("\"{name}\" LIKE ? ESCAPE '\\'")));
    }
    let operator = operator.sql();
    Ok(Some(match column.kind {
        Kind::Text(_) => {
            cells.push(Cell::Text(operand.to_owned()));
            format!("lower(rtrim(\"{name}\")) {operator} lower(rtrim(?))")
        }
        Kind::Time => {
            let bad = || Refusal::Legacy(format!("{name}={value}: a bad date"));
            cells.push(Cell::Time(time::canonical(operand.to_owned(), time::Zone::Ignored).map_err(|_| bad())?));
            format!("\"{name}\" {operator} ?")
        }
        Kind::Bool => {
            cells.push(Cell::Int(truth(operand).unwrap_or(0)));
            format!("\"{name}\" {operator} ?")
        }
        Kind::Int | Kind::Id | Kind::Real => {
            cells.push(operand.trim().parse().map_or_else(|_| Cell::Real(operand.trim().parse().unwrap_or(0.0)), Cell::Int));
            format!("\"{name}\" {operator} ?")
        }
    }))
}

fn truth(text: &str) -> Option<i64> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" => Some(1),
        "0" | "false" => Some(0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_range_is_a_range() {
        assert_eq!(Span::parse("items=0-10"), Some(Span { from: 0, count: 10 }));
        assert_eq!(Span::parse("items=0-0"), Some(Span { from: 0, count: 0 }));
        assert_eq!(Span::parse("items=7-5"), Some(Span { from: 7, count: 0 }));
        for open in ["items=5-", "items=-5", "bytes=0-10", "items=a-b", "", "items=0-99999999999999999999"] {
            assert_eq!(Span::parse(open), None, "{open}");
        }
    }
}
