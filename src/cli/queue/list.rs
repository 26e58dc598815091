//! `packhorse queue list`: the records that wait.

use clap::Args;
use serde_json::{Map, Value};

use super::{
    Way, each,
    select::Select,
    table::{self, Align, Table},
};
use crate::{
    cli::{CliError, Context, Exit, say},
    domain::Stream,
    queue::{Answer, Record, Records, Request},
};

/// Flags of `queue list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Which records.
    #[command(flatten)]
    pub select: Select,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// At most this many records of each stream
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
}

/// Shows the oldest records of each outbox.
pub fn run(args: &ListArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, args.select.destination.as_deref())?;
    each(destinations, |destination| {
        let mut shown = Shown::new(&destination.name, "that wait", args.json);
        way.ask(destination, Request::List(args.select.filter(None), args.limit), |answer| shown.answer(answer))?;
        shown.end()
    })?;
    Ok(Exit::Done)
}

/// Records on their way to standard output.
pub(super) struct Shown<'a> {
    destination: &'a str,
    /// What they are: "that wait", "that are parked".
    what: &'a str,
    json: bool,
    headed: Option<Stream>,
    /// Whether it was said why there are none.
    is_told: bool,
}

impl<'a> Shown<'a> {
    pub(super) fn new(destination: &'a str, what: &'a str, json: bool) -> Self {
        Self { destination, what, json, headed: None, is_told: false }
    }

    pub(super) fn answer(&mut self, answer: Answer) -> Result<(), CliError> {
        match answer {
            Answer::Absent if self.json => tracing::info!(destination = self.destination, "no outbox yet"),
            Answer::Absent => {
                self.is_told = true;
                say(&format!("{}: no outbox yet, `packhorse run` makes it\n", self.destination))?;
            }
            Answer::Records(records) if self.json => {
                let lines = records.rows.iter().map(|record| json(self.destination, records.stream, record) + "\n");
                say(&lines.collect::<String>())?;
            }
            Answer::Records(records) => {
                let mut text = String::new();
                let mut heads = Heads::Above;
                if self.headed.replace(records.stream) != Some(records.stream) {
                    heads = Heads::New;
                    text = format!("{}: {} {}\n", self.destination, records.stream.plural(), self.what);
                }
                say(&(text + &as_table(&records, &heads)))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// People are told that there was nothing; for machines no line says it.
    pub(super) fn end(&self) -> Result<(), CliError> {
        if self.json || self.is_told || self.headed.is_some() {
            return Ok(());
        }
        say(&format!("{}: no rows {} are meant by this\n", self.destination, self.what))
    }
}

/// Whether the heads of a table have been shown.
enum Heads {
    New,
    Above,
}

fn as_table(records: &Records, heads_are: &Heads) -> String {
    let has_seq = records.rows.iter().any(|record| record.seq.is_some());
    let columns = records.stream.spec().columns.iter().map(|column| (column.name, Align::Right));
    let why = [("parked at", Align::Left), ("why", Align::Left)];
    let heads =
        [("seq", Align::Right)].into_iter().filter(|_| has_seq).chain(columns).chain(why.into_iter().filter(|_| !has_seq));
    let mut table = Table::new(heads);
    for record in &records.rows {
        let seq = record.seq.map(|seq| seq.to_string()).into_iter();
        let why = [&record.parked_at, &record.reason].into_iter().flatten().cloned();
        table.row(seq.chain(record.cells.iter().map(cell)).chain(why).collect());
    }
    match heads_are {
        Heads::New => table.to_text(table::width()),
        Heads::Above => table.to_more_text(table::width()),
    }
}

/// A value for people.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A record as one line of JSON, its columns in the order of the table.
pub(super) fn json(destination: &str, stream: Stream, record: &Record) -> String {
    let mut map: Vec<(&str, Value)> = vec![("destination", destination.into()), ("stream", stream.name().into())];
    map.extend(record.seq.map(|seq| ("seq", seq.0.into())));
    map.extend(record.parked_at.as_deref().map(|at| ("parked_at", at.into())));
    map.extend(record.reason.as_deref().map(|why| ("reason", why.into())));
    map.extend(stream.spec().columns.iter().zip(&record.cells).map(|(column, cell)| (column.name, cell.clone())));
    // A map of serde_json sorts its keys; people look for the time first.
    let parts: Vec<_> = map.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", parts.join(","))
}

/// The same as a value, for what holds other things beside.
pub(super) fn value(stream: Stream, record: &Record) -> Value {
    let columns = stream.spec().columns.iter().zip(&record.cells).map(|(column, cell)| (column.name.to_owned(), cell.clone()));
    Value::Object(columns.collect::<Map<_, _>>())
}
