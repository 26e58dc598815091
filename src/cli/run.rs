//! `packhorse run`: the daemon.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    CliError, Context, Exit, logging,
    progress::{Progress, Verbosity},
    say, stop_on_signals,
};
use crate::{
    config::{Config, units},
    daemon::{self, DaemonError, Mode, PipelineError, Summary, service},
    domain::Stream,
    outbox::{DataDirError, Snapshot},
    ports::SourceError,
    status::board::Board,
};

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

/// Runs the daemon until SIGTERM or SIGINT, or once.
pub fn run(args: &RunArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let source = config.need_source()?;
    if !config.need_destinations()?.iter().any(|destination| destination.enabled) {
        return Err(CliError::Usage("every [[destination]] is disabled: set enabled = true for one".to_owned()));
    }
    context.start_daemon_log(&config);
    let mode = if args.once { Mode::Once } else { Mode::Daemon };
    let summaries = context.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        let board = Arc::new(Board::new(&config.gateway.data_dir));
        let ran = daemon::run(&config, source, mode, &stop, changes(context, &config)?, Arc::clone(&board));
        let shown = async {
            match mode {
                Mode::Daemon => logging::tell_left_out().await,
                Mode::Once => show_progress(&board, Verbosity::of(&context.global)).await,
            }
        };
        tokio::select! {
            ran = until_deadline(args.deadline, &stop, ran) => ran.map_err(refusal),
            () = shown => unreachable!("it is shown for as long as it runs"),
        }
    })?;
    match mode {
        Mode::Daemon => Ok(if summaries.iter().any(|summary| summary.error.is_some()) { Exit::Left } else { Exit::Done }),
        Mode::Once => {
            say(&summaries.iter().map(sentence).collect::<String>())?;
            Ok(summaries.iter().map(exit).max_by_key(|exit| exit.code()).unwrap_or(Exit::Done))
        }
    }
}

/// At each SIGHUP the configuration is read again; one with problems is told, and the old one stays.
fn changes(context: &Context, running: &Config) -> Result<mpsc::Receiver<Config>, CliError> {
    let failed =
        |cause: std::io::Error| CliError::Failed { what: "cannot listen for signals".to_owned(), cause: Some(cause.into()) };
    let mut hang_up = signal(SignalKind::hangup()).map_err(failed)?;
    let (changes, from) = mpsc::channel(1);
    let (context, running) = (context.clone(), running.clone());
    // It ends with the runtime, or with who is told.
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            tracing::info!("SIGHUP: reading the configuration again");
            service::reloading();
            let config = match context.config() {
                Ok(config) => config,
                Err(error) => {
                    tracing::error!(error = crate::chain(&error), "the new configuration has problems: the old one stays");
                    service::ready();
                    continue;
                }
            };
            for (key, is_same) in [
                ("gateway.data_dir", config.gateway.data_dir == running.gateway.data_dir),
                ("status", config.status == running.status),
                ("log.file", config.log.file == running.log.file),
            ] {
                if !is_same {
                    tracing::warn!(key, "this changes when packhorse is restarted");
                }
            }
            context.change_log(&config);
            if changes.send(config).await.is_err() {
                return;
            }
        }
    });
    Ok(from)
}

/// How often is looked how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows how far delivery has come, of what is captured by now.
async fn show_progress(board: &Board, verbosity: Verbosity) {
    let mut progress = Progress::of(String::new(), "rows", None, verbosity);
    let mut begins = HashMap::new();
    loop {
        let (mut settled, mut pending) = (0, 0);
        for desk in board.desks() {
            let Some(outbox) = desk.outbox() else { continue };
            let snapshot = outbox.snapshot();
            drop(outbox);
            let cursors: u64 = snapshot.streams.iter().map(|stream| stream.cursor.0).sum();
            let begin = begins.entry((desk.name.clone(), snapshot.meta.epoch)).or_insert(cursors);
            settled += cursors.saturating_sub(*begin);
            pending += snapshot.pending();
        }
        if settled + pending > 0 {
            progress.expect(Some(settled + pending));
            progress.at(settled);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn until_deadline<T>(deadline: Option<Duration>, stop: &CancellationToken, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let over = async {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = &mut work => return done,
        () = over => tracing::warn!("the deadline is over"),
    }
    stop.cancel();
    work.await
}

fn refusal(error: DaemonError) -> CliError {
    match error {
        DaemonError::DataDir(
            error @ (DataDirError::InUse { .. } | DataDirError::Unusable { .. } | DataDirError::SourceId { .. }),
        ) => CliError::Failed { what: crate::chain(&error), cause: None },
        error @ (DaemonError::Source(_) | DaemonError::Destination { .. }) => CliError::Usage(crate::chain(&error)),
    }
}

/// What became of a destination, in one line.
fn sentence(summary: &Summary) -> String {
    let name = &summary.destination;
    if let Some(error @ (PipelineError::Setup(_) | PipelineError::Late)) = &summary.error {
        return format!("{name}: {}\n", crate::chain(error));
    }
    let Some(snapshot) = &summary.outbox else {
        return format!("{name}: the outbox did not open\n");
    };
    let streams: Vec<String> = Stream::ALL.into_iter().map(|stream| counts(snapshot, stream)).collect();
    let unreadable = match summary.captured.map_or(0, |captured| captured.unreadable) {
        0 => String::new(),
        rows => format!("; {rows} rows of the source have a time that is not a date"),
    };
    format!("{name}: {}{unreadable}\n", streams.join("; "))
}

fn counts(snapshot: &Snapshot, stream: Stream) -> String {
    let state = snapshot.stream(stream);
    let (name, acked, pending, parked) = (stream.plural(), state.acked, state.pending(), state.parked_now());
    format!("{acked} {name} delivered so far, {pending} wait, {parked} parked")
}

fn exit(summary: &Summary) -> Exit {
    if let Some(PipelineError::Source(error)) = &summary.error
        && matches!(**error, SourceError::Unreachable { .. } | SourceError::Denied { .. })
    {
        return Exit::Unreachable;
    }
    let left = summary.outbox.as_ref().is_none_or(|snapshot| snapshot.pending() > 0 || snapshot.parked() > 0);
    let captured = summary.captured.is_some_and(|captured| captured.complete && captured.unreadable == 0);
    if summary.error.is_some() || left || !captured { Exit::Left } else { Exit::Done }
}
