//! The command line: one file for each command, which parses, calls the engine and says what came of it.
//!
//! The one rule: standard output carries answers, standard error carries the log and the one error; the exit code is an [`Exit`].

pub mod check;
pub mod cleardb;
pub mod datagen;
pub mod import_legacy;
pub mod interrupt;
pub mod logging;
pub mod owner;
pub mod pages;
pub mod progress;
pub mod queue;
pub mod receiver;
pub mod reconcile;
pub mod run;

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};

use crate::{
    chain,
    config::{Config, ConfigError, Destination},
};
use logging::LogFormat;
use tokio_util::sync::CancellationToken;

/// The exit codes, for scripts and service managers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: something is wrong, or something is left.
    Left,
    /// 2: usage or configuration.
    Usage,
    /// 3: the daemon or the database cannot be reached.
    Unreachable,
}

impl Exit {
    /// The number.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Left => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it should; the variant decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// There is no usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command line asks for something that cannot be; the text says what to write.
    #[error("{0}")]
    Usage(String),
    /// The daemon or a database does not answer.
    #[error("{what}")]
    Unreachable {
        /// What, and what to do.
        what: String,
        /// The cause.
        #[source]
        cause: Option<Box<dyn Error + Send + Sync>>,
    },
    /// Something else went wrong.
    #[error("{what}")]
    Failed {
        /// What, and what to do.
        what: String,
        /// The cause.
        #[source]
        cause: Option<Box<dyn Error + Send + Sync>>,
    },
    /// An outbox is damaged; what can still be read of it was given.
    #[error("{what}")]
    Damaged {
        /// What, and what to do.
        what: String,
    },
    /// Standard output is closed or full.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
}

impl CliError {
    /// The exit code that it leads to.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::Usage(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Failed { .. } | Self::Damaged { .. } | Self::Output(_) => Exit::Left,
        }
    }
}

/// Forward sensor readings and node states from the local MySQL to central servers, over links that come and go.
#[derive(Debug, Parser)]
#[command(name = "packhorse", version, after_help = EXIT_CODES, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 something is wrong or left; 2 usage or configuration; 3 cannot reach the daemon or the \
                          database.\nEnvironment: PACKHORSE_<SECTION>_<KEY> overrides a key of the configuration.";

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration [default: /etc/packhorse/packhorse.toml, then config/packhorse.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Log more: -v each request, -vv everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Log less: -q what should be looked at, -qq what needs a human
    #[arg(short, long, global = true, action = ArgAction::Count, conflicts_with = "verbose")]
    pub quiet: u8,
    /// How the log is written to standard error: text or json
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text, hide_possible_values = true)]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: capture, catalog sync, send
    Run(run::RunArgs),
    /// Look at configuration, source and destinations like a doctor; one line each, with advice
    Check(check::CheckArgs),
    /// Look at what waits to be sent
    Queue(queue::QueueArgs),
    /// Compare the rows of the source and of each destination, and mend the difference
    Reconcile(reconcile::ReconcileArgs),
    /// Run the reference receiver: the REST interface over SQLite or MySQL
    Receiver(receiver::ReceiverArgs),
    /// Write sample data into a source database
    Datagen(datagen::DatagenArgs),
    /// Empty the tables of a test database
    Cleardb(cleardb::CleardbArgs),
    /// Turn the old push script's files into a configuration and checked mappings
    ImportLegacy(import_legacy::ImportLegacyArgs),
    /// Print completions for a shell
    Completions(pages::CompletionsArgs),
    /// Print the man page, or write one for each command into a folder
    Man(pages::ManArgs),
}

/// How long threads without a caller are waited for at the end.
const THREADS_END: Duration = Duration::from_secs(2);

/// What a command may use of the world outside.
#[derive(Clone, Debug)]
pub struct Context {
    /// The options of every command.
    pub global: Global,
    env: Vec<(String, String)>,
}

impl Context {
    /// The configuration, checked. Root becomes the owner of the data directory that it names, once its secrets are read.
    pub fn config(&self) -> Result<Config, CliError> {
        let config = Config::load(self.global.config.as_deref(), self.env.iter().cloned())?;
        // A reload comes from within the runtime: who we are was settled before that began.
        if tokio::runtime::Handle::try_current().is_err() {
            owner::become_owner_of(&config.gateway.data_dir)?;
        }
        Ok(config)
    }

    /// The configuration, or what an empty file means where none was named and none is there.
    pub fn config_if_any(&self) -> Result<Config, CliError> {
        match Config::load(self.global.config.as_deref(), self.env.iter().cloned()) {
            Err(ConfigError::NotFound) => Ok(Config::from_text("", "(none)", self.env.iter().cloned())?),
            other => Ok(other?),
        }
    }

    /// Starts the log as `-v`, `-q` and the configuration want it, and logs the configuration's warnings.
    pub fn start_log(&self, config: &Config) {
        logging::start(logging::level(&self.global, config.log.level), self.global.log_format);
        for warning in &config.warnings {
            tracing::warn!(config = %config.origin, "{warning}");
        }
    }

    /// The same for the daemon, which alone writes the log file.
    pub fn start_daemon_log(&self, config: &Config) {
        let level = logging::level(&self.global, config.log.level);
        logging::start_in(config.log.file.as_deref(), level, self.global.log_format);
        self.start_log(config);
    }

    /// Lets the log go on as another configuration wants it.
    pub fn change_log(&self, config: &Config) {
        logging::change(logging::level(&self.global, config.log.level));
        for warning in &config.warnings {
            tracing::warn!(config = %config.origin, "{warning}");
        }
    }

    /// Runs an engine to its end on a runtime of its own.
    pub fn block_on<T>(&self, engine: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|cause| CliError::Failed { what: "cannot start threads".to_owned(), cause: Some(cause.into()) })?;
        let ended = runtime.block_on(engine);
        // A name that nobody resolves keeps its thread for half a minute: whoever asked has given up long ago.
        runtime.shutdown_timeout(THREADS_END);
        ended
    }
}

/// The destinations that `--destination NAME` leaves: all without it.
pub fn narrowed<'c>(config: &'c Config, name: Option<&str>) -> Result<Vec<&'c Destination>, CliError> {
    let all = config.need_destinations()?;
    let Some(name) = name else { return Ok(all.iter().collect()) };
    let found: Vec<_> = all.iter().filter(|destination| destination.name == name).collect();
    if found.is_empty() {
        let known: Vec<_> = all.iter().map(|destination| destination.name.as_str()).collect();
        return Err(CliError::Usage(format!("no destination is called {name:?}; there is {}", known.join(", "))));
    }
    Ok(found)
}

/// Cancels `stop` at the first SIGTERM or SIGINT.
pub fn stop_on_signals(stop: &CancellationToken) -> Result<(), CliError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |cause: io::Error| CliError::Failed { what: "cannot listen for signals".to_owned(), cause: Some(cause.into()) };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = stop.clone();
    // It ends with the runtime; whoever is to be stopped is joined by the caller.
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        stop.cancel();
    });
    Ok(())
}

/// Writes an answer to standard output.
pub fn say(text: &str) -> Result<(), CliError> {
    say_bytes(text.as_bytes())
}

/// The same of what may not be text.
pub fn say_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(CliError::Output)
}

/// Asks a person on the terminal, and gives the line that was typed; `None` where nobody is there to be asked.
pub fn asked(question: &str) -> Result<Option<String>, CliError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let mut line = String::new();
    write!(io::stderr(), "{question} ").and_then(|()| io::stdin().read_line(&mut line)).map_err(CliError::Output)?;
    Ok(Some(line.trim().to_owned()))
}

/// The store panics on damaged files and failing disks; the outbox catches that and says it in its own words, so that the panic's own
/// words are only of interest to who looks for them.
fn quieten_the_store() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.location().is_some_and(|at| at.file().contains("/sled-")) {
            tracing::debug!(%panic, "caught");
        } else {
            told(panic);
        }
    }));
}

/// Parses the command line, carries it out, and prints the error if there is one.
pub fn main() -> Exit {
    quieten_the_store();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, though they come this way. A closed output is nobody's fault.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let context = Context { global: cli.global, env: environment() };
    match carry_out(&cli.command, &context) {
        Ok(exit) => exit,
        // Whoever closed the pipe has seen enough.
        Err(CliError::Output(cause)) if cause.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {}", chain(&error));
            error.exit()
        }
    }
}

fn carry_out(command: &Command, context: &Context) -> Result<Exit, CliError> {
    match command {
        Command::Run(args) => run::run(args, context),
        Command::Check(args) => check::run(args, context),
        Command::Queue(args) => queue::run(args, context),
        Command::Reconcile(args) => reconcile::run(args, context),
        Command::Receiver(args) => receiver::run(args, context),
        Command::Datagen(args) => datagen::run(args, context),
        Command::Cleardb(args) => cleardb::run(args, context),
        Command::ImportLegacy(args) => import_legacy::run(args, context),
        Command::Completions(args) => pages::completions(args, Cli::command()),
        Command::Man(args) => pages::man(args, Cli::command()),
    }
}

/// Our variables; one that is not Unicode keeps what can be read of it.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .map(|(name, text)| (name.to_string_lossy().into_owned(), text.to_string_lossy().into_owned()))
        .filter(|(name, _)| name.starts_with("PACKHORSE_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        let cause = io::Error::other("the cable is out");
        let error = CliError::Unreachable { what: "cannot reach the source".to_owned(), cause: Some(cause.into()) };
        assert_eq!(chain(&error), "cannot reach the source: the cable is out");
        assert_eq!(error.exit(), Exit::Unreachable);
    }
}
