//! `packhorse queue status`: how much waits, and since when.

use std::time::Duration;

use clap::Args;

use crate::{
    cli::{CliError, Context, Exit, narrowed},
    config::units,
};

/// Flags of `queue status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Exit with 1 when the oldest row has waited longer, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub alarm_age: Option<Duration>,
    /// Exit with 1 when more rows than this wait
    #[arg(long, value_name = "ROWS")]
    pub alarm_depth: Option<u64>,
}

/// Shows the state of each outbox.
pub fn run(args: &StatusArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    context.start_log(&config);
    tracing::debug!(destinations = destinations.len(), data_dir = %config.gateway.data_dir.display(), "configured");
    // ENGINE: open each outbox under config.gateway.data_dir, say() its state as text or JSON, Exit::Left when an alarm is crossed.
    Err(CliError::NotBuilt("queue status"))
}
