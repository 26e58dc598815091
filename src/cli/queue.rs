//! `packhorse queue`: what waits to be sent.
//!
//! The one rule: the owner of the data directory is the only one who opens its outboxes, because opening writes.

pub mod compact;
pub mod drop;
pub mod list;
pub mod status;

use std::{io, path::Path};

use clap::{Args, Subcommand};

use super::{CliError, Context, Exit};
use crate::{
    config::{Config, Destination},
    outbox::{DataDir, DataDirError, Outbox, StoreError, look},
};

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
    /// Make the files of a stopped outbox as small as what they hold
    Compact(compact::CompactArgs),
    /// Remove the outbox of a destination that is no longer configured
    Drop(drop::DropArgs),
}

/// Carries out one of them.
pub fn run(args: &QueueArgs, context: &Context) -> Result<Exit, CliError> {
    match &args.command {
        QueueCommand::Status(args) => status::run(args, context),
        QueueCommand::List(args) => list::run(args, context),
        QueueCommand::Compact(args) => compact::run(args, context),
        QueueCommand::Drop(args) => drop::run(args, context),
    }
}

/// A data directory whose daemon is stopped; `None` when nothing has ever run there.
pub(super) fn own(config: &Config) -> Result<Option<DataDir>, CliError> {
    let path = &config.gateway.data_dir;
    if !path.join("source-id").exists() {
        return match std::fs::metadata(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cannot_look(path, cause)),
            Ok(_) | Err(_) => Ok(None),
        };
    }
    match DataDir::own(path, rand::random) {
        Ok(data_dir) => Ok(Some(data_dir)),
        Err(DataDirError::InUse { path, holder }) => {
            let holder = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let what = format!(
                "packhorse{holder} is running on {}: in this version this command works while it is stopped",
                path.display()
            );
            Err(CliError::Unreachable { what, cause: None })
        }
        Err(other) => Err(CliError::Failed { what: crate::chain(&other), cause: None }),
    }
}

fn cannot_look(data_dir: &Path, cause: io::Error) -> CliError {
    CliError::Failed { what: format!("cannot look into data_dir {}", data_dir.display()), cause: Some(cause.into()) }
}

/// Outboxes of no configured destination: the rows in them wait for ever.
pub(super) fn unowned(config: &Config, data_dir: &Path) -> io::Result<Vec<String>> {
    let mut there = look::outboxes(data_dir)?;
    there.retain(|name| config.destinations.iter().all(|destination| destination.name != *name));
    Ok(there)
}

/// A destination's outbox; `None` when there is none yet.
pub(super) fn open(data_dir: &DataDir, destination: &Destination) -> Result<Option<Outbox>, CliError> {
    Outbox::open_existing(&data_dir.outbox(&destination.name)).map_err(failed)
}

pub(super) fn failed(error: StoreError) -> CliError {
    CliError::Failed { what: "cannot read the outbox".to_owned(), cause: Some(Box::new(error)) }
}
