//! `packhorse queue`: what waits to be sent, seen and steered.
//!
//! The one rule: the owner of the data directory is the only one who opens its outboxes, because opening writes. So a running daemon is asked
//! over its socket, and only where none runs the files are opened; damaged ones are looked at as a copy.

pub mod compact;
mod copy;
pub mod drop;
pub mod export;
pub mod list;
pub mod parked;
pub mod repair;
pub mod rewind;
pub mod select;
pub mod show;
pub mod status;
pub mod steer;
pub mod table;
mod way;

use std::{io, path::Path};

use clap::{Args, Subcommand};

pub(super) use self::way::{Way, own};
use super::{CliError, Context, Exit};
use crate::{
    config::{Config, Destination},
    outbox::{DataDir, Outbox, StoreError, look},
};

/// Flags of `queue`.
#[derive(Debug, Args)]
pub struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Show state, depth, bytes and age of what waits, for each destination
    Status(status::StatusArgs),
    /// Show records that wait, decoded, the oldest first
    List(list::ListArgs),
    /// Make the files of an outbox as small as what they hold
    Compact(compact::CompactArgs),
    /// Show one record, and what it points to
    Show(show::ShowArgs),
    /// Write records that wait, or are parked, as CSV or JSON Lines
    Export(export::ExportArgs),
    /// Look at rows that were set aside; let them return, or discard them
    Parked(parked::ParkedArgs),
    /// Send no more; capture goes on
    Pause(steer::SteerArgs),
    /// Send again after a pause
    Resume(steer::SteerArgs),
    /// Try now, without waiting for the next try
    Flush(steer::SteerArgs),
    /// Check every checksum, seq and count
    Verify(steer::VerifyArgs),
    /// Set a damaged outbox aside, and capture its rows from the source again
    Repair(repair::RepairArgs),
    /// Capture a period again
    Rewind(rewind::RewindArgs),
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
        QueueCommand::Show(args) => show::run(args, context),
        QueueCommand::Export(args) => export::run(args, context),
        QueueCommand::Parked(args) => parked::run(args, context),
        QueueCommand::Pause(args) => steer::run(steer::Word::Pause, args, context),
        QueueCommand::Resume(args) => steer::run(steer::Word::Resume, args, context),
        QueueCommand::Flush(args) => steer::run(steer::Word::Flush, args, context),
        QueueCommand::Verify(args) => steer::verify(args, context),
        QueueCommand::Repair(args) => repair::run(args, context),
        QueueCommand::Rewind(args) => rewind::run(args, context),
    }
}

fn cannot_look(data_dir: &Path, cause: io::Error) -> CliError {
    CliError::Failed { what: format!("cannot look into data_dir {}", data_dir.display()), cause: Some(cause.into()) }
}

/// Does the same for each destination: one that is in trouble holds up no other. Its trouble is the command's own when all are done.
pub(super) fn each<'d>(
    destinations: impl IntoIterator<Item = &'d Destination>,
    mut one: impl FnMut(&'d Destination) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut first = Ok(());
    for destination in destinations {
        match one(destination) {
            Ok(()) => {}
            // Nobody listens any more, or nobody answers.
            Err(error @ (CliError::Output(_) | CliError::Unreachable { .. } | CliError::Config(_))) => return Err(error),
            Err(error) if first.is_ok() => first = Err(error),
            Err(error) => tracing::error!(destination = destination.name, error = crate::chain(&error), "not done"),
        }
    }
    first
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
