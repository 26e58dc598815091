//! Which rows a server has: counts without rows, and lists of a node's rows in a range of times, compared key by key.
//!
//! Only filters that every server of the contract understands are used: `nodeId=` and two bounds on the time, on whole seconds. What a row
//! is known by depends on the server; the list itself shows which kind it is:
//!
//! | server | a reading | a node state |
//! |---|---|---|
//! | legacy, newer table (no `id` in its node states) | second, node, type | second, node, seq_num, NULL as 0 |
//! | legacy, older table | second, node, type | each is one more; equal in second, node, seq_num and localtime |
//! | packhorse receiver | time, node, type | the source's id of it; without one time, node and seq_num |
//!
//! The one rule: an answer that is not exactly what was asked for is an error. A filter that a server ignored must not make rows look
//! absent or there.

mod identity;

use std::collections::BTreeMap;

use reqwest::header::HeaderMap;
use serde_json::Value;

use self::identity::{Identities, Listed};
use super::{
    RestSink,
    calls::{self, Call},
    locked,
};
use crate::{
    domain::{Micros, Outcome, Rows, Stream, Verdict},
    ports::{Keeping, Presence},
};

const SECOND: i64 = 1_000_000;
/// So many rows are asked about in one list.
const KEYS_MAX: usize = 500;
/// A list is asked for with room for more rows than are expected; when it has still more, its range is halved.
const ROWS_MAX: u64 = 1_000;
/// Rows of one node within one second; more are not a measurement.
const SECOND_ROWS_MAX: u64 = 100_000;
/// Rows further apart than this are asked for in lists of their own: a request costs as much as five rows, and a node has about as many in this
/// time.
const GAP_SECONDS_MAX: i64 = 900;

/// How many rows of a node there are in a range.
pub(super) async fn count(sink: &RestSink, stream: Stream, node: i64, from: Micros, to: Micros) -> Result<u64, Outcome> {
    let call = calls::rows(stream, node, from, to, 0);
    let sound = sink.call(&call, HeaderMap::new()).await?;
    matching(&call, sound.content_range.as_deref())
}

/// Which of these rows the server has.
pub(super) async fn arrived(sink: &RestSink, keys: &Rows) -> Result<Vec<Presence>, Outcome> {
    let stream = keys.stream();
    let mut listed = Vec::new();
    for span in spans(keys) {
        // Halves that are still to be asked for; the depth is bounded by the bits of a time.
        let mut open = vec![span];
        while let Some(span) = open.pop() {
            let rows_max = if span.is_second() { SECOND_ROWS_MAX } else { ROWS_MAX };
            let call = calls::rows(stream, span.node, Micros(span.from * SECOND), Micros(span.to * SECOND), rows_max);
            let sound = sink.call(&call, HeaderMap::new()).await?;
            let matching = matching(&call, sound.content_range.as_deref())?;
            if matching > rows_max {
                let [early, late] = span.halves().ok_or_else(|| odd(&call, &format!("{matching} rows in one second")))?;
                open.extend([late, early]);
                continue;
            }
            let rows = list(&call, stream, &span, &sound.json)?;
            if rows.len() as u64 != matching {
                let why = format!("{} rows came where {matching} match: they changed meanwhile; ask again", rows.len());
                return Err(Outcome::new(Verdict::Unknown, format!("{}: {why}", call.name())));
            }
            note_numbers(sink, stream, &rows);
            listed.extend(rows);
        }
    }
    Ok(Identities::new(stream, sink.is_packhorse.load(std::sync::atomic::Ordering::Relaxed), sink.options.source, listed)
        .of(keys))
}

/// How the server keeps the rows of a stream.
pub(super) async fn keeping(sink: &RestSink, stream: Stream) -> Result<Keeping, Outcome> {
    if sink.is_packhorse.load(std::sync::atomic::Ordering::Relaxed) {
        return Ok(Keeping::Each);
    }
    if stream == Stream::Reading {
        return Ok(Keeping::OneOfASecond);
    }
    if locked(&sink.numbers_states).is_none() {
        let call = calls::any_row(stream);
        let sound = sink.call(&call, HeaderMap::new()).await?;
        let rows = sound.json.as_array().map_or(&[][..], Vec::as_slice);
        if rows.len() > 1 {
            return Err(odd(&call, "more rows came than were asked for: something on the way takes the Range away"));
        }
        if let Some(row) = rows.first() {
            *locked(&sink.numbers_states) = Some(row.get("id").is_some());
        }
    }
    Ok(match *locked(&sink.numbers_states) {
        Some(true) => Keeping::Each,
        Some(false) => Keeping::OneOfASecond,
        None => Keeping::NotYetKnown,
    })
}

fn note_numbers(sink: &RestSink, stream: Stream, rows: &[Listed]) {
    if stream == Stream::NodeState
        && let Some(row) = rows.first()
    {
        *locked(&sink.numbers_states) = Some(row.is_numbered);
    }
}

/// The number of matching rows in `items <offset>-<matching>/<rows in the table>`.
fn matching(call: &Call, content_range: Option<&str>) -> Result<u64, Outcome> {
    let Some(text) = content_range else {
        return Err(odd(call, "the answer has no Content-Range: something on the way takes the Range away"));
    };
    let numbers = text.trim().strip_prefix("items ").and_then(|rest| {
        let (offset, rest) = rest.split_once('-')?;
        let (matching, all) = rest.split_once('/')?;
        Some((offset.trim().parse::<u64>().ok()?, matching.trim().parse::<u64>().ok()?, all.trim().parse::<u64>().ok()?))
    });
    match numbers {
        Some((0, matching, all)) if matching <= all => Ok(matching),
        Some(_) | None => Err(odd(call, &format!("the Content-Range {text:?} is not 'items 0-<matching>/<all>'"))),
    }
}

fn odd(call: &Call, why: &str) -> Outcome {
    let advice = format!("{}: {why}; is this a server of the cogent-house contract?", call.name());
    Outcome::new(Verdict::Misconfigured, advice)
}

/// The rows of a list, each of them of the node and within the times that were asked for.
fn list(call: &Call, stream: Stream, span: &Span, json: &Value) -> Result<Vec<Listed>, Outcome> {
    let rows = json.as_array().map_or(&[][..], Vec::as_slice);
    let each = rows.iter().map(|object| {
        let row = Listed::read(stream, object).map_err(|why| odd(call, &format!("a row cannot be read: {why}")))?;
        let is_asked_for = row.node == span.node && (span.from..span.to).contains(&row.time.0.div_euclid(SECOND));
        if is_asked_for { Ok(row) } else { Err(odd(call, "a row came that was not asked for: the filters are ignored")) }
    });
    each.collect()
}

/// A range of whole seconds of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    node: i64,
    from: i64,
    /// Exclusive.
    to: i64,
}

impl Span {
    fn is_second(&self) -> bool {
        self.to - self.from <= 1
    }

    fn halves(self) -> Option<[Self; 2]> {
        let middle = self.from + (self.to - self.from) / 2;
        (!self.is_second()).then_some([Self { to: middle, ..self }, Self { from: middle, ..self }])
    }
}

/// The ranges to ask for so that every row lies in one: as few as can be, without long stretches that nobody asks about.
fn spans(keys: &Rows) -> Vec<Span> {
    let mut seconds: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in 0..keys.len() {
        if let (Some((node, _)), Some(time)) = (keys.bucket(row), keys.time(row)) {
            seconds.entry(node).or_default().push(time.0.div_euclid(SECOND));
        }
    }
    let mut spans = Vec::new();
    for (node, mut seconds) in seconds {
        seconds.sort_unstable();
        let mut keys = 0;
        let mut open: Option<Span> = None;
        for second in seconds {
            let fits = |span: &Span| second < span.to || (second - span.to < GAP_SECONDS_MAX && keys < KEYS_MAX);
            match &mut open {
                Some(span) if fits(span) => {
                    span.to = second + 1;
                    keys += 1;
                }
                _ => {
                    spans.extend(open.replace(Span { node, from: second, to: second + 1 }));
                    keys = 1;
                }
            }
        }
        spans.extend(open);
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Column;

    fn readings(keys: &[(i64, i64)]) -> Rows {
        let ints = |value: &dyn Fn(&(i64, i64)) -> i64| Column::Int(keys.iter().map(|key| Some(value(key))).collect());
        let columns = vec![
            ints(&|key| key.0 * SECOND + 250_000),
            ints(&|key| key.1),
            ints(&|_| 0),
            ints(&|_| 1),
            Column::Float(vec![None; keys.len()]),
        ];
        Rows::new(Stream::Reading, columns)
    }

    #[test]
    fn rows_close_to_each_other_share_a_list_and_distant_ones_do_not() {
        let span = |node, from, to| Span { node, from, to };
        let keys = readings(&[(300, 1), (0, 1), (600, 1), (10_000, 1), (5, 2), (5, 2)]);
        assert_eq!(spans(&keys), [span(1, 0, 601), span(1, 10_000, 10_001), span(2, 5, 6)]);
        assert_eq!(spans(&readings(&[])), []);
    }

    #[test]
    fn a_list_stays_short_and_yet_holds_all_of_a_second() {
        let keys: Vec<(i64, i64)> = (0..2_000).map(|row| (row / 3, 7)).collect();
        let found = spans(&readings(&keys));
        assert!(found.len() >= 4, "{found:?}");
        assert!(found.windows(2).all(|pair| pair[0].to <= pair[1].from), "{found:?}");
        assert_eq!((found[0].from, found[found.len() - 1].to), (0, 667));
    }

    #[test]
    fn halves_end_at_one_second() {
        let mut span = Span { node: 1, from: -3, to: 4 };
        let mut depth = 0;
        while let Some([early, late]) = span.halves() {
            assert_eq!((early.from, early.to, late.to), (span.from, late.from, span.to));
            span = late;
            depth += 1;
        }
        assert!(span.is_second() && depth == 3);
    }

    #[test]
    fn only_a_whole_content_range_from_the_first_row_is_a_count() {
        let call = calls::rows(Stream::Reading, 1, Micros(0), Micros(1), 0);
        assert_eq!(matching(&call, Some("items 0-2599/9127")).unwrap(), 2599);
        assert_eq!(matching(&call, Some("items 0-0/0")).unwrap(), 0);
        for odd in [
            None,
            Some(""),
            Some("items 5-6/7"),
            Some("items 0-9/8"),
            Some("items 0-9/*"),
            Some("bytes 0-9/10"),
            Some("items 0-9"),
        ] {
            assert_eq!(matching(&call, odd).unwrap_err().verdict, Verdict::Misconfigured, "{odd:?}");
        }
    }
}
