//! `packhorse receiver`: the reference receiver.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::{CliError, Context, Exit};
use crate::config::{Config, Receiver, database_url};

/// Flags of `receiver`; each goes before its key in `[receiver]`.
#[derive(Debug, Args)]
pub struct ReceiverArgs {
    /// Listen here [default: 127.0.0.1:6543]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Store here: sqlite:///path/to/file or mysql://user:password@host/database
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// Answer like a server of that kind; for tests
    #[arg(long, hide = true, value_enum, default_value_t = Manner::Packhorse)]
    manner: Manner,
}

/// Whose habits the receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manner {
    /// Its own.
    Packhorse,
    /// Those of the newer legacy server, with its faults.
    Legacy,
}

impl ReceiverArgs {
    /// What the configuration and the flags mean together.
    fn settings(&self, config: &Config) -> Result<Receiver, CliError> {
        // Flags can stand for the whole section.
        let flags_suffice = config.receiver.is_none() && self.database.is_some();
        let mut receiver = if flags_suffice { Config::default_receiver() } else { config.need_receiver()?.clone() };
        if let Some(listen) = self.listen {
            receiver.listen = listen;
        }
        if let Some(text) = &self.database {
            // Never quoted: it may hold a password.
            receiver.database = database_url(text).map_err(|wrong| {
                CliError::Usage(format!("--database: {wrong}; write sqlite:///path/to/file or mysql://user@host/database"))
            })?;
        }
        match receiver.open_to_all() {
            Some(wrong) => Err(CliError::Usage(format!("{wrong}; write tokens_file in [receiver], or listen on 127.0.0.1"))),
            None => Ok(receiver),
        }
    }
}

/// Runs the receiver until SIGTERM or SIGINT.
pub fn run(args: &ReceiverArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config_if_any()?;
    let settings = args.settings(&config)?;
    context.start_log(&config);
    tracing::debug!(listen = %settings.listen, database = %settings.database, manner = ?args.manner, "configured");
    // ENGINE: context.block_on(receiver::serve(settings, args.manner, stop on signals)).
    Err(CliError::NotBuilt("receiver"))
}
