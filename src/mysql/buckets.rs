//! What is asked of a stream's table by time: counts and checksums of each node and hour, and the rows of one such bucket. Pure.
//!
//! The one rule: every condition begins with a plain range on the time, so that the time's index bounds what is read; the position up to
//! which rows count only thins out what that range holds.

use super::{
    query::{Ask, Bind, Question, quoted, to_bind},
    schema::Table,
};
use crate::{
    domain::{Micros, Position},
    ports::{BucketRequest, Buckets, Order, SourceError},
};

/// The time of the first row from a time on.
pub(super) fn first_time(table: &Table, from: Option<Micros>) -> Question {
    let time = time(table);
    let mut ask = Ask::select(&time, table);
    from_time(&mut ask, &time, from);
    ask.text(&format!(" ORDER BY {time}"));
    ask.limit(1);
    ask.done()
}

/// Node, hour, rows and checksum of each bucket.
pub(super) fn buckets(table: &Table, range: &Buckets) -> Result<Question, SourceError> {
    let spec = table.spec();
    let (time, node) = (time(table), quoted(table.name(spec.key[1])));
    let hour = format!("CAST(FLOOR({}/3600000000) AS SIGNED)", micros(&time));
    let columns = format!("{node}, {hour}, COUNT(*), {}", checksum(table, Order::Key));
    let mut ask = Ask::select(&columns, table);
    from_time(&mut ask, &time, range.from);
    ask.condition(&format!("{time} < ?"));
    ask.bind(Bind::Time(to_bind(range.to)));
    ask.condition(&format!("{node} IS NOT NULL"));
    upto(&mut ask, table, &range.upto)?;
    ask.text(" GROUP BY 1, 2 ORDER BY 1, 2");
    Ok(ask.done())
}

/// Some rows of one bucket.
pub(super) fn rows(table: &Table, request: &BucketRequest) -> Result<Question, SourceError> {
    let spec = table.spec();
    let (time, node) = (time(table), quoted(table.name(spec.key[1])));
    let last = match table.order {
        Order::Id => spec.row_id.unwrap_or(spec.key[1]),
        Order::Key => spec.key[spec.key.len() - 1],
    };
    let last = quoted(table.name(last));
    let columns = table.selected().map(|place| quoted(table.name(place))).collect::<Vec<_>>().join(", ");
    let mut ask = Ask::select(&columns, table);
    match &request.after {
        Position::Key { time: after, rest } if rest.len() == 1 => {
            let after = Bind::Time(to_bind(*after));
            ask.condition(&format!("{time} >= ? AND ({time} > ? OR {last} > ?)"));
            ask.bind(after);
            ask.bind(after);
            ask.bind(Bind::Int(rest[0]));
        }
        Position::Start | Position::Id(_) | Position::Key { .. } => {
            from_time(&mut ask, &time, Some(Micros::of_hour(request.hour)));
        }
    }
    ask.condition(&format!("{time} < ?"));
    ask.bind(Bind::Time(to_bind(Micros::of_hour(request.hour.saturating_add(1)))));
    ask.condition(&format!("{node} = ?"));
    ask.bind(Bind::Int(request.node));
    upto(&mut ask, table, &request.upto)?;
    ask.text(&format!(" ORDER BY {time}, {last}"));
    ask.limit(u64::from(request.limit));
    Ok(ask.done())
}

pub(super) fn time(table: &Table) -> String {
    quoted(table.name(table.spec().key[0]))
}

pub(super) fn micros(time: &str) -> String {
    format!("TIMESTAMPDIFF(MICROSECOND,'1970-01-01',{time})")
}

/// The checksum of some rows, as [`Rows::key_hash`](crate::domain::Rows::key_hash) makes it.
pub(super) fn checksum(table: &Table, order: Order) -> String {
    let (id, checked) = table.spec().hashed(order);
    let text = id.iter().chain(checked).map(|&place| key_text(table, place)).collect::<Vec<_>>().join(",'/',");
    format!("BIT_XOR(CRC32(CONCAT({text}))*CRC32(CONCAT({text})))")
}

/// A column of the key as [`Rows::key_hash`](crate::domain::Rows::key_hash) writes it.
fn key_text(table: &Table, place: usize) -> String {
    if !table.reads(place) {
        return "'NULL'".to_owned();
    }
    let name = quoted(table.name(place));
    let value = if place == table.spec().key[0] { micros(&name) } else { name };
    format!("IFNULL(CAST({value} AS CHAR),'NULL')")
}

fn from_time(ask: &mut Ask, time: &str, from: Option<Micros>) {
    ask.condition(&format!("{time} >= ?"));
    ask.bind(Bind::Time(from.map_or(super::query::FIRST_DATE, to_bind)));
}

/// Rows up to a position, inclusive, in paging order.
fn upto(ask: &mut Ask, table: &Table, upto: &Position) -> Result<(), SourceError> {
    let spec = table.spec();
    let names: Vec<String> = table.paging().map(|place| quoted(table.name(place))).collect();
    match (table.order, upto) {
        (Order::Id | Order::Key, Position::Start) => ask.condition("FALSE"),
        (Order::Id, Position::Id(id)) => {
            // Not `id <= ?`: nearly every row is, and the server must not take the id's index for it.
            ask.condition(&format!("{} + 0 <= ?", names[0]));
            ask.bind(Bind::Int(*id));
        }
        (Order::Key, Position::Key { time, rest }) if rest.len() == 2 && names.len() == 3 => {
            let [first, second, third] = [&names[0], &names[1], &names[2]];
            ask.condition(&format!("({first} < ? OR ({first} = ? AND ({second} < ? OR ({second} = ? AND {third} <= ?))))"));
            for bind in [Bind::Time(to_bind(*time)), Bind::Time(to_bind(*time)), Bind::Int(rest[0]), Bind::Int(rest[0])] {
                ask.bind(bind);
            }
            ask.bind(Bind::Int(rest[1]));
        }
        (Order::Id | Order::Key, Position::Id(_) | Position::Key { .. }) => {
            return Err(SourceError::Schema {
                advice: format!(
                    "table {} is no longer paged as it was when capture stood at {upto}: its id came or went",
                    spec.table
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Stream;

    fn binds(question: &Question) -> usize {
        assert_eq!(question.sql.matches('?').count(), question.binds.len(), "{}", question.sql);
        question.binds.len()
    }

    #[test]
    fn buckets_are_counted_within_a_range_of_times_and_up_to_a_position() {
        let table = Table::whole(Stream::Reading, Order::Key);
        let upto = Position::Key { time: Micros(5), rest: vec![3, 4] };
        let question = buckets(&table, &Buckets { from: Some(Micros(0)), to: Micros(9), upto }).unwrap();
        assert!(
            question.sql.contains(" WHERE `time` >= ? AND `time` < ? AND `nodeId` IS NOT NULL AND (`time` < ? OR (`time` = ?")
        );
        assert_eq!(binds(&question), 7);
        let none = buckets(&table, &Buckets { from: None, to: Micros(9), upto: Position::Start }).unwrap();
        assert!(none.sql.contains("FALSE"), "{}", none.sql);
    }

    #[test]
    fn a_table_without_an_id_pages_a_bucket_by_the_rest_of_its_key() {
        let after = Position::Key { time: Micros(5), rest: vec![4] };
        for (order, name, upto) in
            [(Order::Id, "id", Position::Id(9)), (Order::Key, "seq_num", Position::Key { time: Micros(9), rest: vec![1, 2] })]
        {
            let table = Table::whole(Stream::NodeState, order);
            let request = BucketRequest { stream: Stream::NodeState, node: 1, hour: 0, upto, after: after.clone(), limit: 7 };
            let question = rows(&table, &request).unwrap();
            assert!(question.sql.contains(&format!("WHERE `time` >= ? AND (`time` > ? OR `{name}` > ?)")), "{}", question.sql);
            assert!(question.sql.ends_with(&format!("ORDER BY `time`, `{name}` LIMIT ?")), "{}", question.sql);
            binds(&question);
        }
    }

    #[test]
    fn a_position_of_the_other_kind_is_an_error() {
        let table = Table::whole(Stream::NodeState, Order::Key);
        let range = Buckets { from: None, to: Micros(9), upto: Position::Id(1) };
        assert!(matches!(buckets(&table, &range), Err(SourceError::Schema { .. })));
    }
}
