//! `packhorse queue rewind`: a period is captured again.

use clap::Args;

use super::{
    Way, select,
    steer::{agreed, tell},
};
use crate::{
    cli::{
        CliError, Context, Exit, narrowed,
        progress::{Progress, Verbosity},
    },
    queue::{Request, rewind::Since},
};

/// Flags of `queue rewind`.
#[derive(Debug, Args)]
pub struct RewindArgs {
    /// From this time on, UTC, such as 2026-01-31T12:00:00; or beginning
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Since,
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn since(text: &str) -> Result<Since, String> {
    match text.trim() {
        "beginning" => Ok(Since::Beginning),
        time => select::time(time).map(Since::At).map_err(|wrong| format!("{wrong}; or write beginning")),
    }
}

/// Captures it again.
pub fn run(args: &RewindArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    config.need_source()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    context.start_log(&config);
    let names: Vec<_> = destinations.iter().map(|destination| destination.name.as_str()).collect();
    let from = match args.since {
        Since::Beginning => "the beginning".to_owned(),
        Since::At(time) => format!("{time} UTC"),
    };
    let question = format!("All rows since {from} are sent to {} once more. Go on? [y/N]", names.join(", "));
    if !agreed(args.yes, &question)? {
        return Ok(Exit::Left);
    }
    let way = Way::find(context, &config)?;
    for destination in destinations {
        let mut progress = Progress::new(None, Verbosity::of(&context.global));
        way.ask(destination, Request::Rewind(args.since), |answer| tell(&destination.name, answer, &mut progress))?;
    }
    Ok(Exit::Done)
}
