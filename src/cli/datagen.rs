//! `packhorse datagen`: sample data into a source database.

use std::time::Duration;

use clap::Args;

use super::{CliError, Context, Exit, logging};
use crate::config::{LogLevel, mysql_url, units};

/// Flags of `datagen`.
#[derive(Debug, Args)]
pub struct DatagenArgs {
    /// The database to write into: mysql://user:password@host/database
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Readings of each node; 101 are one ramp, 0 never ends
    #[arg(long, value_name = "N", default_value_t = 101)]
    pub count: u64,
    /// Time between two readings of a node, such as 5min
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = units::duration)]
    pub gap: Duration,
    /// Readings of a node between two of its node states; 0 writes none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub states_every: u64,
    /// Readings written a second; 0 as fast as it goes
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub rate: u64,
    /// Write whole houses instead of the two ramps; 0 writes the ramps
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub houses: u32,
    /// Days of readings for each house
    #[arg(long, value_name = "N", default_value_t = 1, requires = "houses")]
    pub days: u32,
}

/// Writes the rows.
pub fn run(args: &DatagenArgs, context: &Context) -> Result<Exit, CliError> {
    // Never quoted: it may hold a password.
    let url = mysql_url(&args.url)
        .map_err(|wrong| CliError::Usage(format!("--url: {wrong}; write mysql://user:password@host/database")))?;
    logging::start(logging::level(&context.global, LogLevel::Info), context.global.log_format);
    tracing::debug!(%url, "configured");
    // ENGINE: context.block_on(datagen::write(url, args)).
    Err(CliError::Usage("datagen".into()))
}
