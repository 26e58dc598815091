//! `packhorse queue pause`, `resume`, `flush` and `verify`.

use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use super::{Way, each};
use crate::{
    cli::{
        CliError, Context, Exit, asked,
        progress::{Progress, Verbosity},
        say,
    },
    queue::{Answer, Request, Told},
};

/// Flags of the words to a sender.
#[derive(Debug, Args)]
pub struct SteerArgs {
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Do not ask (it never does)
    #[arg(long, hide = true)]
    pub yes: bool,
}

/// What a sender listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Send no more.
    Pause,
    /// Send again.
    Resume,
    /// Try now.
    Flush,
}

/// Says it to each sender.
pub fn run(word: Word, args: &SteerArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, args.destination.as_deref())?;
    let mut progress = Progress::new(None, Verbosity::Quiet);
    each(destinations, |destination| {
        let request = match word {
            Word::Pause => Request::Pause,
            Word::Resume => Request::Resume,
            Word::Flush => Request::Flush,
        };
        way.ask(destination, request, |answer| tell(&destination.name, answer, &mut progress))
    })?;
    Ok(Exit::Done)
}

/// Flags of `queue verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Checks each outbox.
pub fn verify(args: &VerifyArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, args.destination.as_deref())?;
    let mut exit = Exit::Done;
    let mut found = Vec::new();
    let read = each(destinations, |destination| {
        let mut progress = Progress::new(None, Verbosity::of(&context.global));
        way.ask(destination, Request::Verify, |answer| match answer {
            Answer::Told(told) => {
                if !told.wrong.is_empty() {
                    exit = Exit::Left;
                }
                progress.clear();
                if args.json {
                    found.push(json!({ "destination": destination.name, "records": told.rows, "wrong": told.wrong }));
                    return Ok(());
                }
                say(&sentence(&destination.name, &told))
            }
            // Without an outbox there is nothing to check.
            Answer::Absent if args.json => Ok(()),
            other => tell(&destination.name, other, &mut progress),
        })
    });
    if args.json {
        say(&format!("{}\n", json!({ "destinations": found })))?;
    }
    read.map(|()| exit)
}

fn sentence(destination: &str, told: &Told) -> String {
    let mut text = format!("{destination}: {}\n", told.text);
    for wrong in &told.wrong {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{destination}: wrong: {wrong}");
    }
    text
}

/// An answer of something that was done: how far it is, and what came of it.
pub(super) fn tell(destination: &str, answer: Answer, progress: &mut Progress) -> Result<(), CliError> {
    match answer {
        Answer::Progress(done, of) => {
            progress.expect(of);
            // Not what it waited for any more.
            progress.say("");
            progress.at(done);
            Ok(())
        }
        Answer::Waits(why) => {
            progress.waits(destination, &why);
            Ok(())
        }
        Answer::Told(told) => {
            progress.clear();
            say(&sentence(destination, &told))
        }
        Answer::Absent => say(&format!("{destination}: no outbox yet, `packhorse run` makes it\n")),
        _ => Ok(()),
    }
}

/// Whether a person agrees; where nobody can be asked, only `--yes` does.
pub(super) fn agreed(yes: bool, question: &str) -> Result<bool, CliError> {
    if yes {
        return Ok(true);
    }
    match asked(question)? {
        Some(answer) => Ok(matches!(answer.to_lowercase().as_str(), "y" | "yes")),
        None => Err(CliError::Usage("nobody is there to be asked: add --yes".to_owned())),
    }
}
