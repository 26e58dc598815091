//! What a comparison found, for people and for machines.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::{
    config::units,
    domain::{Micros, Stream},
    reconcile::{Difference, MissingRow, Report, Survey, cost::Cost},
};

/// Lines of differences and of missing rows that a text shows.
const LINES_MAX: usize = 100;

/// What it is going to cost, in one sentence.
pub(super) fn quote(survey: &Survey) -> String {
    let quote = survey.quote();
    format!(
        "{} rows to compare; equal sides cost {}, each hour of a node that differs up to {} more, in all at most {}",
        survey.rows(),
        cost(quote.equal),
        cost(quote.each_gap),
        cost(quote.most)
    )
}

fn cost(cost: Cost) -> String {
    format!("{} requests (about {})", cost.requests, units::show_bytes(cost.bytes))
}

pub(super) fn as_text(destination: &str, report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{destination}\n  {:10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "stream", "source", "distinct", "there", "waiting", "parked", "missing", "surplus", "queued"
    );
    for it in &report.streams {
        let _ = writeln!(
            text,
            "  {:10} {:>10} {:>10} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8}",
            it.stream.name(),
            it.source,
            it.source - it.merged,
            it.there,
            it.waiting,
            it.parked,
            it.missing,
            it.surplus,
            it.queued
        );
    }
    for difference in report.differences.iter().take(LINES_MAX) {
        let Difference { stream, node, from, to, source, there, missing, surplus } = difference;
        let (from, to) = (Micros::of_hour(*from), Micros::of_hour(*to));
        let _ = writeln!(
            text,
            "  {stream} of node {node} from {from} to {to}: source {source}, there {there}, missing {missing}, surplus {surplus}"
        );
    }
    more(&mut text, report.differences.len(), "ranges differ");
    for row in report.missing.iter().take(LINES_MAX) {
        let _ = writeln!(text, "  missing: {}", named(row));
    }
    let missing: u64 = report.streams.iter().map(|it| it.missing).sum();
    more(&mut text, missing as usize, "rows are missing");
    if report.streams.iter().any(|it| it.surplus > 0) {
        text.push_str("  surplus rows can hide missing ones of the same node from a comparison of counts: compare shorter periods with --since\n");
    }
    let _ = writeln!(
        text,
        "  asked {} requests, {} of bodies",
        report.traffic.requests,
        units::show_bytes(report.traffic.body_bytes)
    );
    text
}

fn more(text: &mut String, all: usize, what: &str) {
    if all > LINES_MAX {
        let _ = writeln!(text, "  and {} more {what}; --json names more", all - LINES_MAX);
    }
}

fn third(stream: Stream) -> &'static str {
    let spec = stream.spec();
    spec.columns[spec.key[2]].name
}

fn named(row: &MissingRow) -> String {
    let or_null = |number: Option<i64>| number.map_or_else(|| "NULL".to_owned(), |number| number.to_string());
    let time = row.time.map_or_else(|| "NULL".to_owned(), |time| time.to_string());
    format!("{} {time} node {} {} {}", row.stream, or_null(row.node), third(row.stream), or_null(row.third))
}

pub(super) fn as_json(destination: &str, report: &Report) -> Value {
    let streams: Vec<Value> = report
        .streams
        .iter()
        .map(|it| {
            json!({
                "stream": it.stream, "source": it.source, "distinct": it.source - it.merged, "there": it.there, "waiting": it.waiting,
                "parked": it.parked, "missing": it.missing, "surplus": it.surplus, "queued": it.queued,
            })
        })
        .collect();
    let differences: Vec<Value> = report
        .differences
        .iter()
        .map(|it| {
            json!({
                "stream": it.stream, "node": it.node, "from": Micros::of_hour(it.from).to_string(), "to": Micros::of_hour(it.to).to_string(),
                "source": it.source, "there": it.there, "missing": it.missing, "surplus": it.surplus,
            })
        })
        .collect();
    let missing: Vec<Value> = report
        .missing
        .iter()
        .map(|row| {
            json!({
                "stream": row.stream, "time": row.time.map(|time| time.to_string()), "nodeId": row.node, third(row.stream): row.third,
            })
        })
        .collect();
    json!({
        "destination": destination, "mended": report.is_mended(), "streams": streams, "differences": differences, "missing": missing,
        "requests": report.traffic.requests, "body_bytes": report.traffic.body_bytes,
    })
}
