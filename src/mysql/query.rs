//! What is asked of a stream's table: SQL text and the values to bind. Pure.
//!
//! The one rule: the condition of a page starts with a plain range on the first key column. A row constructor alone,
//! `(a, b) > (?, ?)`, makes the server scan from the beginning: a thousand times slower on a full table.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};

use super::schema::Table;
use crate::{
    domain::{Micros, Position},
    ports::{Order, PageRequest, SourceError},
};

/// A value to bind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bind {
    Int(i64),
    Time(NaiveDateTime),
}

/// A prepared statement and its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub sql: String,
    pub binds: Vec<Bind>,
}

/// The first time that is a date. Everything that sorts before it (`0000-00-00`, `0000-01-00`) is none.
pub(super) const FIRST_DATE: NaiveDateTime = match NaiveDate::from_ymd_opt(0, 1, 1) {
    Some(day) => NaiveDateTime::new(day, NaiveTime::MIN),
    None => panic!("the year 0 is a date of chrono's"),
};

/// The next page: rows after a position, in paging order.
pub(super) fn page(table: &Table, request: &PageRequest) -> Result<Question, SourceError> {
    let columns = table.selected().map(|place| quoted(table.name(place))).collect::<Vec<_>>().join(", ");
    let mut ask = Ask::select(&columns, table);
    ask.after(table, &request.after)?;
    ask.before(table, request.before);
    ask.ordered(table, "");
    ask.limit(u64::from(request.limit));
    Ok(ask.done())
}

/// How many rows lie after a position, counted up to `cap`.
pub(super) fn count_after(table: &Table, request: &PageRequest, cap: u64) -> Result<Question, SourceError> {
    let mut ask = Ask::select("1", table);
    ask.after(table, &request.after)?;
    ask.before(table, request.before);
    ask.limit(cap);
    let Question { sql, binds } = ask.done();
    Ok(Question { sql: format!("SELECT COUNT(*) FROM ({sql}) AS some"), binds })
}

/// The key (or id) of the last row.
pub(super) fn last(table: &Table, before: Option<Micros>) -> Question {
    let columns = table.paging().map(|place| quoted(table.name(place))).collect::<Vec<_>>().join(", ");
    let mut ask = Ask::select(&columns, table);
    if table.order == Order::Key {
        ask.since_first_date(table);
    }
    ask.before(table, before);
    ask.ordered(table, " DESC");
    ask.limit(1);
    ask.done()
}

/// The first id of a row at or after a time, for tables paged by id.
pub(super) fn first_id_from(table: &Table, time: Micros) -> Question {
    let columns = table.paging().map(|place| quoted(table.name(place))).collect::<Vec<_>>().join(", ");
    let mut ask = Ask::select(&format!("MIN({columns})"), table);
    ask.condition(&format!("{} >= ?", quoted(table.name(table.spec().key[0]))));
    ask.binds.push(Bind::Time(to_bind(time)));
    ask.done()
}

/// How many rows have a time that is not a date, or none where the time leads the key.
pub(super) fn unreadable(table: &Table) -> Question {
    let time = quoted(table.name(table.spec().key[0]));
    let mut ask = Ask::select("COUNT(*)", table);
    let or_null = match table.order {
        Order::Key => format!(" OR {time} IS NULL"),
        Order::Id => String::new(),
    };
    ask.condition(&format!("({time} < ?{or_null})"));
    ask.binds.push(Bind::Time(FIRST_DATE));
    ask.done()
}

/// A statement in the making.
pub(super) struct Ask {
    sql: String,
    binds: Vec<Bind>,
    conditions: usize,
}

impl Ask {
    pub(super) fn select(columns: &str, table: &Table) -> Self {
        Self { sql: format!("SELECT {columns} FROM {}", quoted(table.spec().table)), binds: Vec::new(), conditions: 0 }
    }

    pub(super) fn condition(&mut self, text: &str) {
        self.sql.push_str(if self.conditions == 0 { " WHERE " } else { " AND " });
        self.sql.push_str(text);
        self.conditions += 1;
    }

    pub(super) fn bind(&mut self, value: Bind) {
        self.binds.push(value);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.sql.push_str(text);
    }

    fn since_first_date(&mut self, table: &Table) {
        self.condition(&format!("{} >= ?", quoted(table.name(table.spec().key[0]))));
        self.binds.push(Bind::Time(FIRST_DATE));
    }

    fn after(&mut self, table: &Table, after: &Position) -> Result<(), SourceError> {
        let spec = table.spec();
        match (table.order, after) {
            (Order::Id, Position::Start) => {}
            (Order::Key, Position::Start) => self.since_first_date(table),
            (Order::Id, Position::Id(id)) => {
                for place in table.paging() {
                    self.condition(&format!("{} > ?", quoted(table.name(place))));
                    self.binds.push(Bind::Int(*id));
                }
            }
            (Order::Key, Position::Key { time, rest }) if rest.len() + 1 == spec.key.len() => {
                let names: Vec<_> = spec.key.iter().map(|&place| quoted(table.name(place))).collect();
                let first = Bind::Time(to_bind(*time));
                self.condition(&format!("{} >= ?", names[0]));
                self.binds.push(first);
                self.condition(&format!("({})", greater(&names)));
                self.binds.push(first);
                // Each further column but the last is compared twice: greater, or equal with the next one greater.
                for (depth, &value) in rest.iter().enumerate() {
                    self.binds.push(Bind::Int(value));
                    if depth + 1 < rest.len() {
                        self.binds.push(Bind::Int(value));
                    }
                }
            }
            (Order::Key | Order::Id, Position::Key { .. } | Position::Id(_)) => {
                return Err(SourceError::Schema {
                    advice: format!(
                        "table {} is no longer paged as it was when capture stood at {after}: its id column came or went; \
                         rewind this stream to a time from which it is to be captured again",
                        spec.table
                    ),
                });
            }
        }
        Ok(())
    }

    fn before(&mut self, table: &Table, before: Option<Micros>) {
        if let (Order::Key, Some(before)) = (table.order, before)
            && before <= Micros::from_datetime(last_date())
        {
            self.condition(&format!("{} < ?", quoted(table.name(table.spec().key[0]))));
            self.binds.push(Bind::Time(to_bind(before)));
        }
    }

    fn ordered(&mut self, table: &Table, direction: &str) {
        let by: Vec<_> = table.paging().map(|place| format!("{}{direction}", quoted(table.name(place)))).collect();
        self.sql.push_str(" ORDER BY ");
        self.sql.push_str(&by.join(", "));
    }

    pub(super) fn limit(&mut self, limit: u64) {
        self.sql.push_str(" LIMIT ?");
        self.binds.push(Bind::Int(i64::try_from(limit).unwrap_or(i64::MAX)));
    }

    pub(super) fn done(self) -> Question {
        Question { sql: self.sql, binds: self.binds }
    }
}

/// `a > ? OR b > ? OR (b = ? AND c > ?)`, given that `a >= ?` holds already.
fn greater(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [first, rest @ ..] => {
            let mut text = format!("{first} > ?");
            if let [.., _] = rest {
                text.push_str(" OR ");
                text.push_str(&lexically(rest));
            }
            text
        }
    }
}

/// `b > ? OR (b = ? AND c > ?)`.
fn lexically(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [only] => format!("{only} > ?"),
        [first, rest @ ..] if rest.len() == 1 => format!("{first} > ? OR ({first} = ? AND {})", lexically(rest)),
        [first, rest @ ..] => format!("{first} > ? OR ({first} = ? AND ({}))", lexically(rest)),
    }
}

fn last_date() -> NaiveDateTime {
    let day = NaiveDate::from_ymd_opt(9999, 12, 31).unwrap_or(NaiveDate::MAX);
    day.and_hms_micro_opt(23, 59, 59, 999_999).unwrap_or(NaiveDateTime::MAX)
}

/// A time as the server can hold it.
pub(super) fn to_bind(at: Micros) -> NaiveDateTime {
    let edge = if at.0 < 0 { FIRST_DATE } else { last_date() };
    at.to_datetime().unwrap_or(edge).clamp(FIRST_DATE, last_date())
}

/// Every name is quoted: `localtime` and `type` are words of SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Stream;

    fn request(stream: Stream, after: Position) -> PageRequest {
        PageRequest { stream, after, before: Some(Micros(1_000_000)), limit: 10 }
    }

    #[test]
    fn a_page_by_key_has_a_plain_range_on_the_time() {
        let table = Table::whole(Stream::Reading, Order::Key);
        let after = Position::Key { time: Micros(0), rest: vec![3, 4] };
        let question = page(&table, &request(Stream::Reading, after)).unwrap();
        assert_eq!(
            question.sql,
            "SELECT `time`, `nodeId`, `type`, `locationId`, `value` FROM `Reading` WHERE `time` >= ? AND (`time` > ? OR `nodeId` > ? \
             OR (`nodeId` = ? AND `type` > ?)) AND `time` < ? ORDER BY `time`, `nodeId`, `type` LIMIT ?"
        );
        let (at, before) = (Bind::Time(to_bind(Micros(0))), Bind::Time(to_bind(Micros(1_000_000))));
        assert_eq!(question.binds, [at, at, Bind::Int(3), Bind::Int(3), Bind::Int(4), before, Bind::Int(10)]);
        assert_eq!(question.sql.matches('?').count(), question.binds.len());
    }

    #[test]
    fn a_page_by_id_takes_no_notice_of_the_time() {
        let table = Table::whole(Stream::NodeState, Order::Id);
        let question = page(&table, &request(Stream::NodeState, Position::Id(7))).unwrap();
        assert!(question.sql.ends_with("FROM `NodeState` WHERE `id` > ? ORDER BY `id` LIMIT ?"), "{}", question.sql);
        assert_eq!(question.binds, [Bind::Int(7), Bind::Int(10)]);
    }

    #[test]
    fn a_longer_key_nests() {
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(greater(&names), "a > ? OR b > ? OR (b = ? AND (c > ? OR (c = ? AND d > ?)))");
        assert_eq!(greater(&names[..2]), "a > ? OR b > ?");
        assert_eq!(greater(&names[..1]), "a > ?");
    }

    #[test]
    fn a_position_of_the_other_kind_is_an_error() {
        let by_key = Table::whole(Stream::NodeState, Order::Key);
        assert!(matches!(page(&by_key, &request(Stream::NodeState, Position::Id(1))), Err(SourceError::Schema { .. })));
        let by_id = Table::whole(Stream::NodeState, Order::Id);
        let key = Position::Key { time: Micros(0), rest: vec![1, 2] };
        assert!(matches!(page(&by_id, &request(Stream::NodeState, key)), Err(SourceError::Schema { .. })));
    }

    #[test]
    fn a_time_beyond_what_the_server_holds_is_bent_to_its_edge() {
        assert_eq!(to_bind(Micros(i64::MIN)), FIRST_DATE);
        assert_eq!(to_bind(Micros(i64::MAX)), last_date());
        let table = Table::whole(Stream::Reading, Order::Key);
        let endless = PageRequest { before: Some(Micros(i64::MAX)), ..request(Stream::Reading, Position::Start) };
        assert!(!page(&table, &endless).unwrap().sql.contains('<'));
    }
}
