//! `packhorse receiver`: the reference receiver.

use std::net::SocketAddr;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{CliError, Context, Exit, say, stop_on_signals};
use crate::{
    chain,
    config::{Config, Receiver, database_url},
    receiver::{self, Manner, Options, ReceiverError},
};

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
    #[arg(long, hide = true, default_value_t = Manner::Packhorse)]
    manner: Manner,
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
    // Until tokens are enforced, a list of them must not open the receiver to others.
    if !settings.listen.ip().is_loopback() {
        return Err(CliError::Usage(
            "this version of the receiver listens on loopback addresses only: tokens are not enforced yet".into(),
        ));
    }
    context.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        let options = Options { listen: settings.listen, database: settings.database.expose().to_string(), manner: args.manner };
        let receiver = receiver::Receiver::bind(options).await.map_err(failed)?;
        tracing::info!(listen = %receiver.local_addr(), database = %settings.database, "the receiver runs");
        say(&format!("listening on http://{}/rest/\n", receiver.local_addr()))?;
        receiver.run(stop).await.map_err(failed)
    })?;
    Ok(Exit::Done)
}

fn failed(error: ReceiverError) -> CliError {
    match error {
        error @ (ReceiverError::NotADatabase | ReceiverError::LegacyOnServer | ReceiverError::OtherManner { .. }) => {
            CliError::Usage(chain(&error))
        }
        error @ ReceiverError::Server { .. } => {
            CliError::Unreachable { what: "the receiver does not start".to_owned(), cause: Some(Box::new(error)) }
        }
        error @ (ReceiverError::Database { .. }
        | ReceiverError::NotDurable { .. }
        | ReceiverError::Foreign { .. }
        | ReceiverError::Migrate { .. }
        | ReceiverError::Listen { .. }
        | ReceiverError::Create { .. }) => {
            CliError::Failed { what: "the receiver does not start".to_owned(), cause: Some(Box::new(error)) }
        }
    }
}
