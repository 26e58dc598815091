//! `packhorse reconcile`: compares the rows of the source and of each destination, and queues what is missing.

mod show;

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use clap::Args;

use super::{
    CliError, Context, Exit, asked, narrowed,
    progress::{self, Verbosity},
    queue, say,
};
use crate::{
    chain,
    config::{self, Destination, Start},
    daemon,
    domain::{Micros, Verdict},
    mysql::MysqlSource,
    outbox::{DataDir, Outbox},
    ports::SourceError,
    reconcile::{self, Options, Progress, Purpose, ReconcileError, Report, Survey},
    rest::RestSink,
};

/// The pause before an unanswered question is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// Flags of `reconcile`.
#[derive(Debug, Args)]
pub struct ReconcileArgs {
    /// Only rows from the hour of this time on, such as 2015-08-01 or 2015-08-01T10:00:00 (UTC)
    #[arg(long, value_name = "TIME")]
    pub since: Option<Micros>,
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Queue what is missing, so that `run` sends it
    #[arg(long)]
    pub mend: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Do not ask before it begins
    #[arg(long)]
    pub yes: bool,
}

/// What became of a destination.
enum Came {
    Compared(Report),
    NoOutbox,
    Declined,
}

/// Compares each destination; one that does not answer does not keep the others from being compared.
pub fn run(args: &ReconcileArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let source = config.need_source()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    for destination in destinations.iter().filter(|destination| destination.enabled || args.destination.is_some()) {
        check_start(args, destination)?;
    }
    context.start_log(&config);
    let data_dir = queue::own(&config)?;
    let mut exits = vec![Exit::Done];
    let mut found = Vec::new();
    for destination in destinations {
        if !destination.enabled && args.destination.is_none() {
            tell(&format!("{0}: disabled, so it is not asked; --destination {0} compares it all the same", destination.name));
            continue;
        }
        let came = match &data_dir {
            Some(data_dir) => context.block_on(compare(args, source, destination, data_dir, Verbosity::of(&context.global))),
            None => Ok(Came::NoOutbox),
        };
        match came {
            Ok(Came::Compared(report)) => {
                exits.push(if report.is_mended() { Exit::Done } else { Exit::Left });
                if args.json {
                    found.push(show::as_json(&destination.name, &report));
                } else {
                    say(&show::as_text(&destination.name, &report))?;
                }
            }
            Ok(Came::NoOutbox) => {
                exits.push(Exit::Left);
                tell(&format!(
                    "{}: no outbox yet, so nothing was captured that could be compared; `packhorse run` makes it",
                    destination.name
                ));
            }
            Ok(Came::Declined) => exits.push(Exit::Left),
            Err(error) => {
                exits.push(error.exit());
                tell(&format!("error: {}: {}", destination.name, chain(&error)));
            }
        }
    }
    if args.json {
        say(&format!("{}\n", serde_json::json!({ "destinations": found })))?;
    }
    Ok(exits.into_iter().max_by_key(|exit| exit.code()).unwrap_or(Exit::Done))
}

/// Where a destination began is not written down for `start = "now"`; rows before it are not missing.
fn check_start(args: &ReconcileArgs, destination: &Destination) -> Result<(), CliError> {
    match (destination.start, args.since) {
        (Start::Now, None) => Err(CliError::Usage(format!(
            "destination '{}' began with the rows of the moment in which it was made (start = \"now\"): say with --since TIME from when on \
             it is to be compared",
            destination.name
        ))),
        (Start::Now | Start::Beginning | Start::At(_), _) => Ok(()),
    }
}

async fn compare(
    args: &ReconcileArgs,
    source: &config::Source,
    destination: &Destination,
    data_dir: &DataDir,
    verbosity: Verbosity,
) -> Result<Came, CliError> {
    let name = &destination.name;
    let Some(outbox) = queue::open(data_dir, destination)? else { return Ok(Came::NoOutbox) };
    let begin = match destination.start {
        Start::At(time) => Some(time),
        Start::Beginning | Start::Now => None,
    };
    let options = Options {
        // Whoever names a time means it, also one before the destination began.
        since: args.since.or(begin),
        purpose: if args.mend { Purpose::Mend } else { Purpose::Look },
        outbox_bytes_max: destination.outbox_max_bytes,
        disk_reserve_bytes: source.disk_reserve_bytes,
        pause: PAUSE,
        clock: || Micros(chrono::Utc::now().timestamp_micros()),
    };
    let sink = RestSink::new(daemon::rest_options(destination, data_dir.source()))
        .map_err(|error| CliError::Usage(format!("destination '{name}': {}", chain(&error))))?;
    let mut source = MysqlSource::new(daemon::mysql_options(source)).map_err(|error| refused(error.into()))?;
    let mut shown = Shown::new(name, verbosity);
    let survey = Survey::new(&mut source, &outbox, &options, &mut |progress| shown.progress(progress)).await;
    let survey = shown.cleared(survey).map_err(refused)?;
    tell(&format!("{name}: {}", show::quote(&survey)));
    if !args.yes && asked("Go on? [y/N]")?.is_some_and(|answer| !matches!(answer.to_lowercase().as_str(), "y" | "yes")) {
        return Ok(Came::Declined);
    }
    let mut shown = Shown::new(name, verbosity);
    let report = reconcile::run(&survey, &mut source, &sink, &outbox, &options, &mut |progress| shown.progress(progress)).await;
    let report = shown.cleared(report).map_err(refused)?;
    close(outbox).await;
    Ok(Came::Compared(report))
}

/// Closing syncs, which takes its time on a slow disk.
async fn close(outbox: Outbox) {
    let _ = tokio::task::spawn_blocking(move || drop(outbox)).await;
}

fn refused(error: ReconcileError) -> CliError {
    let is_away = match &error {
        ReconcileError::Source(SourceError::Unreachable { .. } | SourceError::Denied { .. }) => true,
        ReconcileError::Destination(outcome) => outcome.verdict == Verdict::NotStored,
        ReconcileError::Source(_) | ReconcileError::Store(_) | ReconcileError::Replaced { .. } | ReconcileError::Full { .. } => {
            false
        }
    };
    let what = error.to_string();
    let cause = match error {
        ReconcileError::Store(cause) => Some(cause.into()),
        ReconcileError::Source(_)
        | ReconcileError::Destination(_)
        | ReconcileError::Replaced { .. }
        | ReconcileError::Full { .. } => None,
    };
    if is_away { CliError::Unreachable { what, cause } } else { CliError::Failed { what, cause } }
}

/// A line for people, beside the answer. That nobody reads it is no error.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// How far it is: a bar for each phase on a terminal, lines elsewhere.
struct Shown {
    name: String,
    verbosity: Verbosity,
    phase: Option<(&'static str, progress::Progress)>,
}

impl Shown {
    fn new(name: &str, verbosity: Verbosity) -> Self {
        Self { name: name.to_owned(), verbosity, phase: None }
    }

    fn progress(&mut self, progress: Progress) {
        let (what, unit, done, of, words) = match progress {
            Progress::Counted(stream, time) => {
                ("counting the source", "slices", None, None, format!("{} up to {time} ", stream.plural()))
            }
            Progress::Compared(done, all) => ("comparing counts", "nodes", Some(done), Some(all as u64), String::new()),
            Progress::LookedInto(done, all) => {
                ("looking into hours that differ", "hours", Some(done), Some(all as u64), String::new())
            }
        };
        if self.phase.as_ref().is_none_or(|(phase, _)| *phase != what) {
            let label = format!("{}: {what}: ", self.name);
            if self.verbosity == Verbosity::Usual && !io::stderr().is_terminal() {
                tell(label.trim_end_matches(": "));
            }
            self.phase = Some((what, progress::Progress::of(label, unit, of, self.verbosity)));
        }
        if let Some((_, shown)) = &mut self.phase {
            shown.say(&words);
            if let Some(done) = done {
                shown.at(done as u64);
            }
        }
    }

    fn cleared<T>(self, outcome: T) -> T {
        drop(self.phase);
        outcome
    }
}
