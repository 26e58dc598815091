//! `packhorse queue list`: the records that wait.

use clap::Args;

use crate::{
    cli::{CliError, Context, Exit, narrowed},
    domain::Stream,
};

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
    tracing::debug!(destinations = destinations.len(), stream = ?args.stream, limit = args.limit, "configured");
    // ENGINE: open each outbox under config.gateway.data_dir and say() its records as text or JSON.
    Err(CliError::NotBuilt("queue list"))
}
