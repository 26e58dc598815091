//! The way to a queue: over the daemon's socket, to the files, or to a copy of them.
//!
//! The one rule: whichever way it is, the answers are the same.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use super::copy;
use crate::{
    cli::{CliError, Context, narrowed, owner},
    config::{Config, Destination},
    daemon,
    outbox::{self, DataDir, DataDirError, Outbox, StoreError},
    queue::{
        Answer, Answers, Beside, Call, Failure, FailureKind, QueueError, Request, Surroundings, Told, VERSION, act,
        rewind::{self, Drained},
        steps,
    },
    status::{self, Sender, board},
};

/// How long a daemon may take from owning its data to answering, and the pause between looks.
const STARTING_MAX: Duration = Duration::from_secs(5);
const STARTING_PAUSE: Duration = Duration::from_millis(100);

/// How long the daemon may say nothing: many times [`HEARD_EVERY`], for a machine that is busy.
const DAEMON_PATIENCE: Duration = Duration::from_secs(30);

/// Its niceness then.
const NICENESS: i32 = 15;

/// The way to the queues of one data directory.
pub struct Way<'a> {
    context: &'a Context,
    config: &'a Config,
    to: To,
}

enum To {
    Daemon,
    /// Ours, while nobody else runs; `None` when nothing has ever run there.
    Files(Option<DataDir>),
}

impl<'a> Way<'a> {
    /// Finds it.
    pub fn find(context: &'a Context, config: &'a Config) -> Result<Self, CliError> {
        let began = Instant::now();
        let to = loop {
            match connect(&config.status.socket) {
                Ok(_) => {
                    give_way();
                    break To::Daemon;
                }
                Err(cause) if cause.kind() == ErrorKind::TimedOut => return Err(silent(config)),
                // Where data_dir is ours, it is another one's daemon that listens there: the lock tells whether somebody serves this one.
                Err(cause) if cause.kind() == ErrorKind::PermissionDenied && !owner::owns(&config.gateway.data_dir) => {
                    let what =
                        format!("may not open {}: run this as the daemon's user or as root", config.status.socket.display());
                    return Err(CliError::Unreachable { what, cause: None });
                }
                Err(_) => {}
            }
            match own_or(config, || format!("and does not answer at {}", config.status.socket.display())) {
                // One that has just been started owns its data before it answers.
                Err(CliError::Unreachable { .. }) if began.elapsed() < STARTING_MAX => std::thread::sleep(STARTING_PAUSE),
                owned => break To::Files(owned?),
            }
        };
        Ok(Self { context, config, to })
    }

    /// Finds it and starts the log, with the destinations that a command is for: the one that is `named`, or all that can be asked.
    pub fn to(context: &'a Context, config: &'a Config, named: Option<&str>) -> Result<(Self, Vec<&'a Destination>), CliError> {
        let destinations = narrowed(config, named)?;
        context.start_log(config);
        let way = Self::find(context, config)?;
        let destinations = way.within_reach(destinations, named);
        Ok((way, destinations))
    }

    /// Of some destinations those that can be asked: a daemon does not serve a disabled one, which is then left out unless it is `named`.
    pub fn within_reach<'d>(&self, mut destinations: Vec<&'d Destination>, named: Option<&str>) -> Vec<&'d Destination> {
        destinations.retain(|destination| destination.enabled || named.is_some() || !self.is_daemon());
        destinations
    }

    /// Whether a daemon answers.
    pub fn is_daemon(&self) -> bool {
        matches!(self.to, To::Daemon)
    }

    /// The data directory, where it is ours.
    pub fn data_dir(&self) -> Option<&DataDir> {
        match &self.to {
            To::Daemon => None,
            To::Files(data_dir) => data_dir.as_ref(),
        }
    }

    /// Asks for something of a destination; each answer but the last is handed on as it comes.
    pub fn ask(
        &self,
        destination: &Destination,
        request: Request,
        mut each: impl FnMut(Answer) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut each = |answer| match answer {
            Answer::Failed(failure) => Err(refused(&destination.name, failure)),
            answer => each(answer),
        };
        match &self.to {
            To::Daemon => self.ask_daemon(destination, request, &mut each),
            To::Files(None) if matches!(request, Request::Flush) => Err(refused(&destination.name, nobody_runs())),
            To::Files(None) => each(Answer::Absent),
            To::Files(Some(data_dir)) => self.context.block_on(async {
                let (answers, mut from) = Answers::channel();
                let folder = data_dir.outbox(&destination.name);
                let work = async move {
                    if let Err(error) = self.on_files(&folder, destination, request, &answers).await {
                        // Who has gone has its own error.
                        let _ = answers.give(Answer::Failed(error.failure())).await;
                    }
                };
                let tell = async move {
                    while let Some(answer) = from.recv().await {
                        each(answer)?;
                    }
                    Ok(())
                };
                // Both to their end: a change that was begun is not cut off by a closed output.
                let ((), told) = tokio::join!(work, tell);
                told
            }),
        }
    }

    fn ask_daemon(
        &self,
        destination: &Destination,
        request: Request,
        each: &mut dyn FnMut(Answer) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let path = &self.config.status.socket;
        let away = |cause: io::Error| match cause.kind() {
            // A read that takes too long is called the one here and the other there.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => silent(self.config),
            _ => CliError::Unreachable {
                what: format!("the daemon does not answer at {}", path.display()),
                cause: Some(cause.into()),
            },
        };
        let data_dir = std::path::absolute(&self.config.gateway.data_dir).map_err(away)?;
        let call = Call { version: VERSION, data_dir, destination: destination.name.clone(), request };
        let line = serde_json::to_string(&call).map_err(|cause| away(cause.into()))?;
        let mut stream = connect(path).map_err(away)?;
        stream.set_read_timeout(Some(DAEMON_PATIENCE)).map_err(away)?;
        stream.set_write_timeout(Some(DAEMON_PATIENCE)).map_err(away)?;
        stream.write_all(line.as_bytes()).and_then(|()| stream.write_all(b"\n")).map_err(away)?;
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            lines.read_until(b'\n', &mut line).map_err(away)?;
            if line.is_empty() {
                return Err(away(io::Error::new(ErrorKind::UnexpectedEof, "it stopped in the middle of its answer")));
            }
            let began = Instant::now();
            match serde_json::from_slice(&line).map_err(|cause| away(cause.into()))? {
                Answer::End => return Ok(()),
                Answer::AtWork => {}
                Answer::Records(records) => {
                    each(Answer::Records(records))?;
                    // Both ends of a long look leave the machine to the daemon's loops for most of the time.
                    std::thread::sleep(steps::rest(began.elapsed()));
                }
                answer => each(answer)?,
            }
        }
    }

    async fn on_files(
        &self,
        folder: &Path,
        destination: &Destination,
        request: Request,
        answers: &Answers,
    ) -> Result<(), QueueError> {
        let now = daemon::clock();
        let told =
            async |text: &str| answers.give(Answer::Told(Told { text: text.to_owned(), rows: 0, wrong: Vec::new() })).await;
        match request {
            Request::Pause if folder.is_dir() => {
                act::pause(folder, now)?;
                return told("sending is paused when packhorse runs").await;
            }
            Request::Resume if folder.is_dir() => {
                act::resume(folder)?;
                return told("sending goes on when packhorse runs").await;
            }
            Request::Flush => return Err(QueueError::Told(nobody_runs())),
            _ => {}
        }
        let (opening, only_looks) = (folder.to_owned(), request.only_looks());
        let opened = tokio::task::spawn_blocking(move || {
            if only_looks { copy::open_to_look(&opening) } else { Outbox::open_existing(&opening).map(|outbox| (outbox, None)) }
        });
        // A copy stays until it was looked at.
        let (outbox, _copy) = match opened.await.map_err(|defect| QueueError::told(FailureKind::Other, defect.to_string()))? {
            Ok((Some(outbox), copy)) => (outbox, copy),
            Ok((None, _)) => return answers.give(Answer::Absent).await,
            Err(error @ StoreError::Damaged { .. }) if only_looks => {
                return copy::look_at_what_is_left(folder, destination, request, &error, answers).await;
            }
            Err(error) => return Err(error.into()),
        };
        let done = match request {
            Request::Status => {
                let sender = if act::is_paused(folder) { Sender::Paused } else { Sender::Stopped };
                let status = status::gather(&outbox, sender, now).await?;
                answers.give(Answer::Status(Box::new(status), status::watermarks(&outbox.snapshot()))).await
            }
            Request::Rewind(since) => self.rewind(&outbox, destination, since, answers).await,
            request => {
                let disk_reserve_bytes = self.config.source.as_ref().map_or(0, |source| source.disk_reserve_bytes);
                let around = Surroundings { beside: &Beside::Nobody, now, disk_reserve_bytes };
                board::on_open(&outbox, request, around, answers).await
            }
        };
        // Closing syncs, which takes its time on a slow disk.
        let _ = tokio::task::spawn_blocking(move || drop(outbox)).await;
        done
    }

    async fn rewind(
        &self,
        outbox: &Outbox,
        destination: &Destination,
        since: rewind::Since,
        answers: &Answers,
    ) -> Result<(), QueueError> {
        let source = self.config.need_source().map_err(|error| QueueError::told(FailureKind::Usage, crate::chain(&error)))?;
        let desk = daemon::desk(source, destination, outbox.path(), Drained::No, None);
        let mut source = (desk.connect)().map_err(|error| QueueError::told(FailureKind::Unreachable, crate::chain(&error)))?;
        rewind::run(outbox, &mut *source, since, &desk.limits, answers).await
    }
}

/// Beside a daemon this program gets what processor time nobody else wants.
fn give_way() {
    // Where that is not allowed it is only faster than it should be.
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Connects to the daemon. The kernel lets whoever connects wait for ever where too many wait before.
fn connect(path: &Path) -> io::Result<UnixStream> {
    let (tell, told) = mpsc::channel();
    let path = path.to_owned();
    std::thread::spawn(move || tell.send(UnixStream::connect(path)));
    told.recv_timeout(DAEMON_PATIENCE).unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

/// A daemon is there, and says nothing.
fn silent(config: &Config) -> CliError {
    let owner = outbox::look::owner(&config.gateway.data_dir).ok().flatten();
    let owner = owner.filter(|pid| !pid.is_empty()).map(|pid| format!(" (process {pid})")).unwrap_or_default();
    let what = format!(
        "packhorse{owner} takes calls at {} and has said nothing for {} s: it hangs, or was stopped in the middle; its log says more, and a \
         restart loses nothing",
        config.status.socket.display(),
        DAEMON_PATIENCE.as_secs()
    );
    CliError::Unreachable { what, cause: None }
}

fn nobody_runs() -> Failure {
    Failure { text: "packhorse is stopped: start it, and it tries at once".to_owned(), kind: FailureKind::Unreachable }
}

fn refused(destination: &str, failure: Failure) -> CliError {
    let Failure { text, kind } = failure;
    match kind {
        FailureKind::Usage => CliError::Usage(text),
        FailureKind::Unreachable => CliError::Unreachable { what: format!("{destination}: {text}"), cause: None },
        FailureKind::Outbox => {
            CliError::Failed { what: format!("{destination}: cannot read the outbox"), cause: Some(text.into()) }
        }
        FailureKind::Remains => CliError::Damaged { what: format!("{destination}: {text}") },
        FailureKind::Other => CliError::Failed { what: format!("{destination}: {text}"), cause: None },
    }
}

/// A data directory whose daemon is stopped, for a command that a running daemon does not take; `None` when nothing has ever run there.
pub fn own(config: &Config) -> Result<Option<DataDir>, CliError> {
    own_or(config, || "and this command works while it is stopped".to_owned())
}

/// The same; in use, with a word on that.
fn own_or(config: &Config, and: impl FnOnce() -> String) -> Result<Option<DataDir>, CliError> {
    let path = &config.gateway.data_dir;
    if !path.join("source-id").exists() {
        return match std::fs::metadata(path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                Err(CliError::Failed { what: format!("cannot look into data_dir {}", path.display()), cause: Some(cause.into()) })
            }
            Ok(_) | Err(_) => Ok(None),
        };
    }
    match DataDir::own_for_a_command(path, rand::random) {
        Ok(data_dir) => Ok(Some(data_dir)),
        Err(DataDirError::InUse { path, holder }) => {
            let holder = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
            let what = format!("packhorse{holder} is running on {}, {}", path.display(), and());
            Err(CliError::Unreachable { what, cause: None })
        }
        Err(other) => Err(CliError::Failed { what: crate::chain(&other), cause: None }),
    }
}
