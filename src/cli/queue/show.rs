//! `packhorse queue show`: one record.

use std::fmt::Write as _;

use clap::Args;

use super::{Way, list};
use crate::{
    cli::{CliError, Context, Exit, narrowed, say},
    config::Destination,
    domain::{Seq, Stream},
    queue::{Answer, Detail, Request},
};

/// Flags of `queue show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The stream: reading or nodestate
    #[arg(value_name = "STREAM")]
    pub stream: Stream,
    /// The record's seq, as `queue list` shows it
    #[arg(value_name = "SEQ")]
    pub seq: u64,
    /// Of this destination; needed where there are several
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows it.
pub fn run(args: &ShowArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    let destination: &Destination = match destinations.as_slice() {
        [one] => one,
        _ => {
            return Err(CliError::Usage(
                "there are several destinations, each with seqs of its own: name one with --destination".to_owned(),
            ));
        }
    };
    context.start_log(&config);
    let mut exit = Exit::Left;
    Way::find(context, &config)?.ask(destination, Request::Show(args.stream, Seq(args.seq)), |answer| match answer {
        Answer::Detail(detail) => {
            exit = Exit::Done;
            say(&if args.json { as_json(&destination.name, &detail) } else { as_text(&destination.name, &detail) })
        }
        Answer::Absent if args.json => Ok(()),
        Answer::Absent => say(&format!("{}: no outbox yet, `packhorse run` makes it\n", destination.name)),
        _ => Ok(()),
    })?;
    Ok(exit)
}

fn as_text(destination: &str, detail: &Detail) -> String {
    let seq = detail.record.seq.map_or_else(String::new, |seq| seq.to_string());
    let mut text = format!("{destination}: {} {seq}\n", detail.stream);
    // Writing to a String does not fail.
    for (column, cell) in detail.stream.spec().columns.iter().zip(&detail.record.cells) {
        let _ = writeln!(text, "  {:12} {}", column.name, list::cell(cell));
    }
    let _ = writeln!(text, "  {:12} {} UTC ({})", "captured at", detail.captured_at, detail.freshness);
    let _ = writeln!(text, "  {:12} {}", "in flight", if detail.in_flight { "yes" } else { "no" });
    for refers in &detail.refers {
        let there = refers.central_id.map_or_else(|| "not known there yet".to_owned(), |id| format!("{id} there"));
        let _ = writeln!(text, "  {:12} {}: {there}", "points to", refers.entity);
    }
    text
}

fn as_json(destination: &str, detail: &Detail) -> String {
    let value = serde_json::json!({
        "destination": destination,
        "stream": detail.stream,
        "seq": detail.record.seq,
        "record": list::value(detail.stream, &detail.record),
        "captured_at": detail.captured_at,
        "freshness": detail.freshness,
        "in_flight": detail.in_flight,
        "refers": detail.refers,
    });
    format!("{value}\n")
}
