//! `packhorse run`: the daemon.

use std::time::Duration;

use clap::Args;

use super::{CliError, Context, Exit};
use crate::config::units;

/// Flags of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Capture what is there, send until nothing waits, and end: 0, or 1 when rows are left
    #[arg(long)]
    once: bool,
    /// With --once: end after this time at the latest, such as 60s
    #[arg(long, value_name = "DURATION", requires = "once", value_parser = units::duration)]
    deadline: Option<Duration>,
}

/// How the daemon is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until it is told to stop.
    Daemon,
    /// Until everything that was there at the start has been sent.
    Once {
        /// The longest time that this may take.
        deadline: Option<Duration>,
    },
}

impl RunArgs {
    fn mode(&self) -> Mode {
        if self.once { Mode::Once { deadline: self.deadline } } else { Mode::Daemon }
    }
}

/// Runs the daemon until SIGTERM or SIGINT, or once.
pub fn run(args: &RunArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let source = config.need_source()?;
    let destinations = config.need_destinations()?;
    context.start_log(&config);
    let mode = args.mode();
    tracing::debug!(gateway = %config.gateway.id, source = %source.url, destinations = destinations.len(), ?mode, "configured");
    // ENGINE: context.block_on(daemon::run(config, mode, stop on signals)).
    Err(CliError::NotBuilt("run"))
}
