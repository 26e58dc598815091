//! `packhorse queue`: what waits to be sent.

pub mod list;
pub mod status;

use clap::{Args, Subcommand};

use super::{CliError, Context, Exit};

/// Flags of `queue`.
#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Show depth, bytes and age of what waits, for each destination
    Status(status::StatusArgs),
    /// Show records that wait, decoded, the oldest first
    List(list::ListArgs),
}

/// Carries out one of them.
pub fn run(args: &QueueArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        QueueCommand::Status(args) => status::run(args, context),
        QueueCommand::List(args) => list::run(args, context),
    }
}
