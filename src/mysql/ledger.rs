//! What is asked of a stream's table to hold it against the ledger: tallies of slots, and the rows of one. Pure.
//!
//! The one rule: every condition begins with a plain range on what the table is paged by, its primary key, so that no more is read than the range
//! holds.

use super::{
    buckets::{checksum, micros, time},
    query::{Ask, Bind, FIRST_DATE, Question, quoted, to_bind},
    schema::Table,
};
use crate::{
    domain::{Micros, Position, ledger::IDS_PER_PLACE},
    ports::{Order, SlotRequest, SourceError, Span, TallyRequest},
};

/// Node, place, rows and checksum of each slot of a span.
pub(super) fn tallies(table: &Table, request: &TallyRequest) -> Result<Question, SourceError> {
    let columns = match table.order {
        Order::Key => {
            let (time, unit) = (time(table), request.unit);
            let node = quoted(table.name(table.spec().key[1]));
            let place = format!("FLOOR({}/{})*{unit}", micros(&time), unit.saturating_mul(3_600_000_000));
            format!("{node}, CAST({place} AS SIGNED), COUNT(*), {}", checksum(table, Order::Key))
        }
        Order::Id => {
            let id = id(table);
            format!("0, CAST({id} DIV {IDS_PER_PLACE} AS SIGNED), COUNT(*), {}", checksum(table, Order::Id))
        }
    };
    let mut ask = Ask::select(&columns, table);
    within(&mut ask, table, &request.span, None)?;
    ask.text(" GROUP BY 1, 2");
    Ok(ask.done())
}

/// Some rows of one slot, in paging order of its node.
pub(super) fn rows(table: &Table, request: &SlotRequest) -> Result<Question, SourceError> {
    let columns = table.selected().map(|place| quoted(table.name(place))).collect::<Vec<_>>().join(", ");
    let mut ask = Ask::select(&columns, table);
    within(&mut ask, table, &request.span, Some(&request.after))?;
    let spec = table.spec();
    match table.order {
        Order::Id => ask.text(&format!(" ORDER BY {}", id(table))),
        Order::Key => {
            let (time, last) = (time(table), quoted(table.name(spec.key[spec.key.len() - 1])));
            ask.condition(&format!("{} = ?", quoted(table.name(spec.key[1]))));
            ask.bind(Bind::Int(request.node));
            if let Position::Key { time: after, rest } = &request.after
                && let [rest] = rest.as_slice()
            {
                ask.condition(&format!("({time} > ? OR {last} > ?)"));
                ask.bind(Bind::Time(to_bind(*after)));
                ask.bind(Bind::Int(*rest));
            }
            ask.text(&format!(" ORDER BY {time}, {last}"));
        }
    }
    ask.limit(u64::from(request.limit));
    Ok(ask.done())
}

/// The place of the first row at or after a place.
pub(super) fn first_place(table: &Table, from: Option<i64>) -> Question {
    let mut ask = match table.order {
        Order::Id => {
            let mut ask = Ask::select(&format!("CAST({} DIV {IDS_PER_PLACE} AS SIGNED)", id(table)), table);
            ask.condition(&format!("{} >= ?", id(table)));
            ask.bind(Bind::Int(from.unwrap_or(i64::MIN / IDS_PER_PLACE).saturating_mul(IDS_PER_PLACE)));
            ask.text(&format!(" ORDER BY {}", id(table)));
            ask
        }
        Order::Key => {
            let time = time(table);
            let mut ask = Ask::select(&format!("CAST(FLOOR({}/3600000000) AS SIGNED)", micros(&time)), table);
            ask.condition(&format!("{time} >= ?"));
            ask.bind(Bind::Time(from.map_or(FIRST_DATE, |place| to_bind(Micros::of_hour(place)))));
            ask.text(&format!(" ORDER BY {time}"));
            ask
        }
    };
    ask.limit(1);
    ask.done()
}

/// How many ids there are in some ranges, both ends included.
pub(super) fn count_ids(table: &Table, ranges: &[(i64, i64)]) -> Question {
    let mut ask = Ask::select("COUNT(*)", table);
    let each = vec![format!("{} BETWEEN ? AND ?", id(table)); ranges.len()].join(" OR ");
    ask.condition(&format!("({})", if each.is_empty() { "FALSE" } else { &each }));
    for (from, to) in ranges {
        ask.bind(Bind::Int(*from));
        ask.bind(Bind::Int(*to));
    }
    ask.done()
}

/// The column that a table without an id has none of is never asked for: its places are hours.
fn id(table: &Table) -> String {
    quoted(table.name(table.spec().row_id.unwrap_or(table.spec().key[0])))
}

/// The rows of a span; with `after` only those that may come after it.
fn within(ask: &mut Ask, table: &Table, span: &Span, after: Option<&Position>) -> Result<(), SourceError> {
    let of_other_kind = |position: &Position| SourceError::Schema {
        advice: format!("table {} is no longer paged as it was when capture stood at {position}", table.spec().table),
    };
    match table.order {
        Order::Id => {
            let mut above = span.from.saturating_mul(IDS_PER_PLACE).saturating_sub(1);
            for position in [Some(&span.floor), after].into_iter().flatten() {
                match position {
                    Position::Start => {}
                    Position::Id(id) => above = above.max(*id),
                    Position::Key { .. } => return Err(of_other_kind(position)),
                }
            }
            let mut upto = span.to.saturating_mul(IDS_PER_PLACE).saturating_sub(1);
            match &span.upto {
                None => {}
                Some(Position::Id(id)) => upto = upto.min(*id),
                Some(Position::Start) => ask.condition("FALSE"),
                Some(position @ Position::Key { .. }) => return Err(of_other_kind(position)),
            }
            ask.condition(&format!("{0} > ? AND {0} <= ?", id(table)));
            ask.bind(Bind::Int(above));
            ask.bind(Bind::Int(upto));
        }
        Order::Key => {
            let time = time(table);
            let from = to_bind(Micros::of_hour(span.from));
            let from = match after {
                Some(Position::Key { time, .. }) => to_bind(*time),
                Some(position @ Position::Id(_)) => return Err(of_other_kind(position)),
                Some(Position::Start) | None => from,
            };
            ask.condition(&format!("{time} >= ? AND {time} < ?"));
            ask.bind(Bind::Time(from));
            ask.bind(Bind::Time(to_bind(Micros::of_hour(span.to))));
            match &span.floor {
                floor @ Position::Key { time, .. } if time.hour() >= span.from => compared(ask, table, ">", floor),
                Position::Start | Position::Key { .. } => {}
                Position::Id(_) => return Err(of_other_kind(&span.floor)),
            }
            match &span.upto {
                Some(Position::Start) => ask.condition("FALSE"),
                Some(upto @ Position::Key { time, .. }) if time.hour() < span.to => compared(ask, table, "<", upto),
                None | Some(Position::Key { .. }) => {}
                Some(position @ Position::Id(_)) => return Err(of_other_kind(position)),
            }
        }
    }
    Ok(())
}

/// Rows after a key (`>`), or up to and including it (`<`).
fn compared(ask: &mut Ask, table: &Table, than: &str, position: &Position) {
    let Position::Key { time, rest } = position else { return };
    let names: Vec<String> = table.spec().key.iter().map(|&place| quoted(table.name(place))).collect();
    let ([first, second, third], [node, kind]) = (names.as_slice(), rest.as_slice()) else { return };
    let or_equal = if than == "<" { "=" } else { "" };
    ask.condition(&format!(
        "({first} {than} ? OR ({first} = ? AND ({second} {than} ? OR ({second} = ? AND {third} {than}{or_equal} ?))))"
    ));
    let time = Bind::Time(to_bind(*time));
    for bind in [time, time, Bind::Int(*node), Bind::Int(*node), Bind::Int(*kind)] {
        ask.bind(bind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Stream;

    fn binds(question: &Question) -> usize {
        assert_eq!(question.sql.matches('?').count(), question.binds.len(), "{}", question.sql);
        question.binds.len()
    }

    fn span(floor: Position, upto: Option<Position>) -> Span {
        Span { stream: Stream::Reading, from: 100, to: 124, floor, upto }
    }

    fn key(hour: i64) -> Position {
        Position::Key { time: Micros::of_hour(hour), rest: vec![3, 4] }
    }

    #[test]
    fn floor_and_watermark_are_conditions_only_where_they_cut_a_span() {
        let table = Table::whole(Stream::Reading, Order::Key);
        let count = |floor, upto| {
            let question = tallies(&table, &TallyRequest { span: span(floor, upto), unit: 24 }).unwrap();
            assert!(question.sql.contains("WHERE `time` >= ? AND `time` < ?"), "{}", question.sql);
            binds(&question)
        };
        assert_eq!(count(Position::Start, Some(key(124))), 2);
        assert_eq!(count(key(99), None), 2);
        assert_eq!(count(key(100), None), 7);
        assert_eq!(count(key(100), Some(key(123))), 12);
    }

    #[test]
    fn blocks_of_ids_are_one_range_of_the_id() {
        let table = Table::whole(Stream::NodeState, Order::Id);
        let span = Span { from: 2, to: 4, ..span(Position::Id(2_100), Some(Position::Id(3_000))) };
        let question = tallies(&table, &TallyRequest { span: span.clone(), unit: 1 }).unwrap();
        assert!(question.sql.ends_with("WHERE `id` > ? AND `id` <= ? GROUP BY 1, 2"), "{}", question.sql);
        assert_eq!(question.binds, [Bind::Int(2_100), Bind::Int(3_000)]);
        let request = SlotRequest { span, node: 0, after: Position::Id(2_500), limit: 7 };
        let question = rows(&table, &request).unwrap();
        assert_eq!(question.binds, [Bind::Int(2_500), Bind::Int(3_000), Bind::Int(7)]);
        assert_eq!(binds(&count_ids(&table, &[(1, 2), (5, 9)])), 4);
        assert_eq!(binds(&count_ids(&table, &[])), 0);
    }

    #[test]
    fn a_slot_is_paged_by_the_rest_of_its_key() {
        let table = Table::whole(Stream::Reading, Order::Key);
        let after = Position::Key { time: Micros::of_hour(101), rest: vec![4] };
        let request = SlotRequest { span: span(Position::Start, None), node: 1, after, limit: 7 };
        let question = rows(&table, &request).unwrap();
        assert!(
            question.sql.ends_with("AND `nodeId` = ? AND (`time` > ? OR `type` > ?) ORDER BY `time`, `type` LIMIT ?"),
            "{}",
            question.sql
        );
        binds(&question);
    }

    #[test]
    fn a_position_of_the_other_kind_is_an_error() {
        let table = Table::whole(Stream::NodeState, Order::Key);
        let request = TallyRequest { span: span(Position::Id(1), None), unit: 1 };
        assert!(matches!(tallies(&table, &request), Err(SourceError::Schema { .. })));
    }
}
