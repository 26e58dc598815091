//! `packhorse receiver`: the reference receiver.

use std::net::SocketAddr;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{CliError, Context, Exit, say, stop_on_signals};
use crate::{
    chain,
    config::{Config, Receiver, database_url},
    receiver::{self, Manner, Options, ReceiverError, Reload, TlsFiles},
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
    context.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        let Receiver { listen, database, tokens_file, tls } = &settings;
        let tls = tls.clone().map(|(cert_file, key_file)| TlsFiles { cert_file, key_file });
        let scheme = if tls.is_some() { "https" } else { "http" };
        let options = Options { tls, tokens_file: tokens_file.clone(), ..Options::open(*listen, database.expose(), args.manner) };
        let receiver = receiver::Receiver::bind(options).await.map_err(failed)?;
        reload_on_sighup(receiver.reload())?;
        tracing::info!(listen = %receiver.local_addr(), database = %settings.database, "the receiver runs");
        say(&format!("listening on {scheme}://{}/rest/\n", receiver.local_addr()))?;
        receiver.run(stop).await.map_err(failed)
    })?;
    Ok(Exit::Done)
}

/// Reads tokens and certificate again at each SIGHUP.
fn reload_on_sighup(reload: Reload) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed =
        |cause: std::io::Error| CliError::Failed { what: "cannot listen for signals".to_owned(), cause: Some(cause.into()) };
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    // It ends with the runtime.
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match reload.reload() {
                Ok(()) => tracing::info!("SIGHUP: tokens and certificate were read again"),
                Err(error) => tracing::error!(error = chain(&error), "SIGHUP: the old tokens and certificate go on"),
            }
        }
    });
    Ok(())
}

fn failed(error: ReceiverError) -> CliError {
    match error {
        error @ (ReceiverError::NotADatabase
        | ReceiverError::LegacyOnServer
        | ReceiverError::OtherManner { .. }
        | ReceiverError::Tokens(_)
        | ReceiverError::Tls(_)) => CliError::Usage(chain(&error)),
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
