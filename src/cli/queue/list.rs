//! `packhorse queue list`: the records that wait.

use std::fmt::Write as _;

use clap::Args;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{failed, open, own};
use crate::{
    cli::{CliError, Context, Exit, narrowed, say},
    domain::{Seq, Stream},
    outbox::{Batch, Outbox},
};

/// Records that are read and shown at a time.
const PAGE_ROWS: usize = 1_000;

/// Flags of `queue list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Only this stream: reading or nodestate
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<Stream>,
    /// At most this many records of each stream
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
}

/// Shows the oldest records of each outbox.
pub fn run(args: &ListArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    context.start_log(&config);
    let data_dir = own(&config)?;
    for destination in destinations {
        let Some(outbox) = data_dir.as_ref().map(|data_dir| open(data_dir, destination)).transpose()?.flatten() else {
            tracing::info!(destination = destination.name, "no outbox yet");
            continue;
        };
        for stream in Stream::ALL.into_iter().filter(|stream| args.stream.is_none_or(|only| only == *stream)) {
            context.block_on(show(&outbox, &destination.name, stream, args))?;
        }
    }
    Ok(Exit::Done)
}

async fn show(outbox: &Outbox, destination: &str, stream: Stream, args: &ListArgs) -> Result<(), CliError> {
    let mut from = outbox.snapshot().stream(stream).cursor;
    let mut left = usize::try_from(args.limit).unwrap_or(usize::MAX);
    let mut first_page = true;
    while let Some(batch) = outbox.lease(stream, from, left.min(PAGE_ROWS)).await.map_err(failed)? {
        from = batch.end();
        left -= batch.rows.len();
        let page = if args.json { as_json(&batch, destination)? } else { as_text(&batch, destination, first_page) };
        say(&page)?;
        first_page = false;
    }
    Ok(())
}

fn as_text(batch: &Batch, destination: &str, with_head: bool) -> String {
    let specs = batch.rows.stream().spec().columns;
    let mut text = String::new();
    // Writing to a String does not fail.
    if with_head {
        let _ = write!(text, "{destination}: {} that wait\n{:>10}", batch.rows.stream().plural(), "seq");
        for spec in specs {
            let _ = write!(text, " {:>width$}", spec.name, width = width(spec.name));
        }
        text.push('\n');
    }
    for row in 0..batch.rows.len() {
        let _ = write!(text, "{:>10}", batch.first.plus(row as u64).0);
        for (place, spec) in specs.iter().enumerate() {
            let _ = write!(text, " {:>width$}", batch.rows.cell(place, row).to_string(), width = width(spec.name));
        }
        text.push('\n');
    }
    text
}

fn width(name: &str) -> usize {
    if name == "time" { 26 } else { 10 }
}

fn as_json(batch: &Batch, destination: &str) -> Result<String, CliError> {
    let mut text = String::new();
    for row in 0..batch.rows.len() {
        let record = Record { batch, destination, row };
        let line = serde_json::to_string(&record)
            .map_err(|cause| CliError::Failed { what: "cannot write a record as JSON".to_owned(), cause: Some(cause.into()) })?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

struct Record<'a> {
    batch: &'a Batch,
    destination: &'a str,
    row: usize,
}

impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rows = &self.batch.rows;
        let seq: Seq = self.batch.first.plus(self.row as u64);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("destination", self.destination)?;
        map.serialize_entry("stream", &rows.stream())?;
        map.serialize_entry("seq", &seq)?;
        for (place, spec) in rows.stream().spec().columns.iter().enumerate() {
            map.serialize_entry(spec.name, &rows.cell(place, self.row))?;
        }
        map.end()
    }
}
