//! `packhorse queue compact`: makes the files of outboxes as small as what they hold.
//!
//! The one rule: it works on a stopped outbox. A running daemon does the same by itself when it is worth it.

use std::fmt::Write as _;

use clap::Args;

use super::{failed, open, own};
use crate::{
    cli::{CliError, Context, Exit, narrowed, say},
    config::units,
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
    let destinations = narrowed(&config, args.destination.as_deref())?;
    context.start_log(&config);
    let data_dir = own(&config)?;
    let mut text = String::new();
    for destination in destinations {
        let name = &destination.name;
        // Writing to a String does not fail.
        let Some(outbox) = data_dir.as_ref().map(|data_dir| open(data_dir, destination)).transpose()?.flatten() else {
            let _ = writeln!(text, "{name}: no outbox yet, `packhorse run` makes it");
            continue;
        };
        let compacted = context.block_on(async { outbox.compact().await.map_err(failed) })?;
        let [before, after] = [compacted.bytes_before, compacted.bytes_after].map(units::show_bytes);
        let _ = writeln!(text, "{name}: {before} before, {after} now");
    }
    say(&text)?;
    Ok(Exit::Done)
}
