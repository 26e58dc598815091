//! `packhorse queue compact`: makes the files of outboxes as small as what they hold.
//!
//! The one rule: whoever owns the outbox does it. A daemon also does it by itself when it is worth it.

use clap::Args;

use super::{Way, steer::tell};
use crate::{
    cli::{
        CliError, Context, Exit,
        progress::{Progress, Verbosity},
    },
    queue::Request,
};

/// Flags of `queue compact`.
#[derive(Debug, Args)]
pub struct CompactArgs {
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
}

/// Compacts each outbox.
pub fn run(args: &CompactArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, args.destination.as_deref())?;
    for destination in destinations {
        let mut progress = Progress::of(format!("{}: ", destination.name), "KiB", None, Verbosity::of(&context.global));
        way.ask(destination, Request::Compact, |answer| tell(&destination.name, answer, &mut progress))?;
    }
    Ok(Exit::Done)
}
