//! `packhorse queue parked`: rows that were set aside.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Way, each,
    list::{self, Shown},
    select::Select,
    steer::{agreed, tell},
    table::{self, Align, Table},
};
use crate::{
    cli::{
        CliError, Context, Exit,
        progress::{Progress, Verbosity},
        say,
    },
    queue::{Answer, Group, Request, Run},
};

/// Flags of `queue parked`.
#[derive(Debug, Args)]
pub struct ParkedArgs {
    #[command(subcommand)]
    command: ParkedCommand,
}

#[derive(Debug, Subcommand)]
enum ParkedCommand {
    /// Show what is parked, by reason, with a sample of each
    List(LookArgs),
    /// Show the parked rows themselves
    Show(ShowArgs),
    /// Try parked rows again: they go to the end of the queue
    Retry(ChangeArgs),
    /// Drop parked rows for good; they are exported first
    Discard(ChangeArgs),
}

/// Which parked rows, for looking.
#[derive(Debug, Args)]
pub struct LookArgs {
    #[command(flatten)]
    select: Select,
    /// Only rows whose reason holds these words
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The same, for the rows themselves.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    look: LookArgs,
    /// At most this many rows
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u64,
}

/// Which parked rows, for changing them.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    #[command(flatten)]
    select: Select,
    /// Only rows whose reason holds these words
    #[arg(long, value_name = "WORDS")]
    reason: Option<String>,
    /// Every parked row; instead of a filter
    #[arg(long, conflicts_with_all = ["stream", "node", "sensor_type", "since", "before", "reason"])]
    all: bool,
    /// Only count what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Carries out one of them.
pub fn run(args: &ParkedArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        ParkedCommand::List(args) => groups(args, context),
        ParkedCommand::Show(args) => rows(args, context),
        ParkedCommand::Retry(args) => change(Change::Retry, args, context),
        ParkedCommand::Discard(args) => change(Change::Discard, args, context),
    }
}

fn groups(args: &LookArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, args.select.destination.as_deref())?;
    let mut found = Vec::new();
    let shown = each(destinations, |destination| {
        let mut of_this = Vec::new();
        let asked = way.ask(destination, Request::ParkedList(args.select.filter(args.reason.as_deref())), |answer| {
            if let Answer::Groups(groups) = answer {
                of_this = groups;
            }
            Ok(())
        });
        if args.json {
            found.extend(of_this.iter().map(|group| as_json(&destination.name, group)));
        } else {
            say(&as_text(&destination.name, &of_this))?;
        }
        asked
    });
    if args.json {
        say(&format!("{}\n", json!({ "groups": found })))?;
    }
    shown.map(|()| Exit::Done)
}

fn as_text(destination: &str, groups: &[Group]) -> String {
    if groups.is_empty() {
        return format!("{destination}: nothing is parked\n");
    }
    let mut table = Table::new([
        ("rows", Align::Right),
        ("stream", Align::Left),
        ("since", Align::Left),
        ("why", Align::Left),
        ("sample", Align::Left),
    ]);
    for group in groups {
        table.row(vec![
            group.rows.to_string(),
            group.stream.name().to_owned(),
            group.oldest.chars().take(19).collect(),
            group.reason.clone(),
            group.sample.cells.iter().map(list::cell).collect::<Vec<_>>().join(" "),
        ]);
    }
    format!(
        "{destination}: {} rows are parked\n{}",
        groups.iter().map(|group| group.rows).sum::<u64>(),
        table.to_text(table::width())
    )
}

fn as_json(destination: &str, group: &Group) -> serde_json::Value {
    json!({
        "destination": destination,
        "kind": group.kind,
        "reason": group.reason,
        "stream": group.stream,
        "rows": group.rows,
        "oldest": group.oldest,
        "newest": group.newest,
        "sample": list::value(group.stream, &group.sample),
    })
}

fn rows(args: &ShowArgs, context: &Context) -> Result<Exit, CliError> {
    let look = &args.look;
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, look.select.destination.as_deref())?;
    each(destinations, |destination| {
        let mut shown = Shown::new(&destination.name, "that are parked", look.json);
        let request = Request::ParkedShow(look.select.filter(look.reason.as_deref()), args.limit);
        way.ask(destination, request, |answer| shown.answer(answer))?;
        shown.end()
    })?;
    Ok(Exit::Done)
}

#[derive(Clone, Copy)]
enum Change {
    Retry,
    Discard,
}

fn change(what: Change, args: &ChangeArgs, context: &Context) -> Result<Exit, CliError> {
    let filter = args.select.filter(args.reason.as_deref());
    if !args.all && filter.takes_all() && filter.stream.is_none() {
        return Err(CliError::Usage("say which rows: --reason WORDS, another filter, or --all".to_owned()));
    }
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, args.select.destination.as_deref())?;
    for destination in destinations {
        let request = |run| match what {
            Change::Retry => Request::Retry(filter.clone(), run),
            Change::Discard => Request::Discard(filter.clone(), run),
        };
        let run = if args.dry_run { Run::Dry } else { Run::Real };
        if let (Change::Discard, Run::Real) = (what, run) {
            let mut question = String::new();
            way.ask(destination, request(Run::Dry), |answer| {
                if let Answer::Told(told) = answer {
                    question = format!("{}: {}. Go on? [y/N]", destination.name, told.text);
                }
                Ok(())
            })?;
            if !question.is_empty() && !agreed(args.yes, &question)? {
                return Ok(Exit::Left);
            }
        }
        let mut progress = Progress::new(None, Verbosity::of(&context.global));
        way.ask(destination, request(run), |answer| tell(&destination.name, answer, &mut progress))?;
    }
    Ok(Exit::Done)
}
