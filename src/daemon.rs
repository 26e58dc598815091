//! Open, connect, join the loops, stop.
//!
//! One pipeline for each destination, supervised alone: what befalls one ends nobody else's loop. A pipeline whose outbox fails is closed
//! and opened again after a while.
//!
//! The one rule: every loop is joined before this returns, and what a loop was doing when it was stopped is safe to be cut off anywhere.

pub mod service;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::{self, CaptureError, CaptureReport, Sending, Until},
    config::{self, Config},
    domain::{Epoch, Micros, Retry},
    edge::scaled,
    mysql::{self, MysqlSource},
    outbox::{DataDir, DataDirError, OpenOptions, Outbox, Snapshot, StoreError},
    ports::{Source, SourceError},
    queue::rewind::{Drained, Limits},
    rest::{self, RestError, RestSink},
    sender::{self, helm::Helm},
    status::{
        board::{Board, Desk, Slot},
        sampler,
        socket::{Socket, SocketError},
        web::{self, Site},
    },
};

/// Rows in a page of capture.
const PAGE_ROWS_MAX: u32 = 10_000;
/// Rows in a request, at most; a fast link gets fewer.
const REQUEST_ROWS_MAX: usize = 50_000;
/// The longest wait for a source that is away, and before a failed outbox is opened again.
const LOCAL_BACKOFF_MAX: Duration = Duration::from_mins(1);

/// How long a stop may take: what has not ended then is cut off, which is as safe as a power loss. With the threads' own end it stays below 10 s.
const STOP_MAX: Duration = Duration::from_secs(7);

/// How long to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Until stopped.
    Daemon,
    /// Until every row that is there now has been delivered, or stopped.
    Once,
}

/// What one destination's pipeline came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The destination.
    pub destination: String,
    /// What its outbox holds at the end; `None` when it did not open.
    pub outbox: Option<Snapshot>,
    /// What capture had to say, when it ended by itself.
    pub captured: Option<CaptureReport>,
    /// What ended it early.
    pub error: Option<PipelineError>,
}

impl Summary {
    /// Of a pipeline that has nothing else to say.
    fn of(destination: &str, error: PipelineError) -> Self {
        Self { destination: destination.to_owned(), outbox: None, captured: None, error: Some(error) }
    }
}

/// Why a pipeline ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PipelineError {
    /// Its outbox does not open or work.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The source cannot be reached or read.
    #[error(transparent)]
    Source(Arc<SourceError>),
    /// A file that its settings name is of no use: it waits for an operator and a reload, and its outbox keeps what is in it.
    #[error("it cannot be set up")]
    Setup(#[source] Arc<RestError>),
    /// It did not end in time after a stop, and was cut off. Everything committed is on the disk.
    #[error("it did not end in time, and was cut off")]
    Late,
    /// A defect: a loop panicked. Everything committed is on the disk.
    #[error("a defect stopped it: {0}")]
    Defect(String),
}

/// Why nothing could be started.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The source's settings.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The settings of every destination; this is the first one.
    #[error("destination '{name}'")]
    Destination {
        /// Which one.
        name: String,
        /// The cause.
        #[source]
        cause: RestError,
    },
}

/// Runs the pipelines of all enabled destinations until `stop`, or until all is delivered. What comes in at `changes` is the configuration from
/// then on, as far as it can change while running. `board` is where whoever calls this can look at it meanwhile.
///
/// # Errors
/// Only when nothing could be started; what befalls a pipeline is in its [`Summary`].
pub async fn run(
    config: &Config,
    source: &config::Source,
    mode: Mode,
    stop: &CancellationToken,
    mut changes: mpsc::Receiver<Config>,
    board: Arc<Board>,
) -> Result<Vec<Summary>, DaemonError> {
    let data_dir = DataDir::own(&config.gateway.data_dir, rand::random)?;
    let mut fleet = Fleet {
        data_dir,
        mode,
        stop,
        board: Arc::clone(&board),
        lives: BTreeMap::new(),
        ending: BTreeMap::new(),
        refused: BTreeMap::new(),
        tasks: JoinSet::new(),
    };
    fleet.adjust(config, source)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        source = %fleet.data_dir.source(),
        data_dir = %fleet.data_dir.path().display(),
        destinations = fleet.lives.len(),
        "packhorse runs"
    );
    let ended = CancellationToken::new();
    // Whoever waited for the start may ask at once.
    let socket = Socket::bind(&config.status.socket).await;
    service::ready();
    let windows = windows(config, socket, &board, mode, ended.clone());
    let work = async {
        let summaries = fleet.run(&mut changes).await;
        ended.cancel();
        summaries
    };
    let watched = service::watch(Arc::clone(&board), ended.clone());
    let late = async {
        stop.cancelled().await;
        service::stopping();
        sleep(stop_max()).await;
    };
    let mut summaries = tokio::select! {
        (summaries, (), ()) = async { tokio::join!(work, windows, watched) } => summaries,
        () = late => {
            tracing::error!("it does not end in time, and is cut off: everything committed is on the disk");
            let desks = board.desks().into_iter();
            desks.map(|desk| Summary::of(&desk.name, PipelineError::Late)).collect()
        }
    };
    summaries.sort_by(|a, b| a.destination.cmp(&b.destination));
    Ok(summaries)
}

/// Debug builds let the environment change it: for a test of a stop that hangs, and for machines on which everything takes minutes.
fn stop_max() -> Duration {
    #[cfg(debug_assertions)]
    if let Some(seconds) = std::env::var("PACKHORSE_TEST_STOP_MAX_SECONDS").ok().and_then(|text| text.parse().ok()) {
        return Duration::from_secs(seconds);
    }
    STOP_MAX
}

/// Whatever the daemon can be looked at through; that one of them does not open is told and changes nothing else.
async fn windows(config: &Config, socket: Result<Socket, SocketError>, board: &Arc<Board>, mode: Mode, ended: CancellationToken) {
    let socket = async {
        match socket {
            Ok(socket) => socket.serve(Arc::clone(board), ended.clone()).await,
            Err(error) => tracing::warn!(error = crate::chain(&error), "commands cannot reach this daemon"),
        }
    };
    let page = async {
        let site = Site {
            board: Arc::clone(board),
            label: config.gateway.id.clone(),
            token: config.status.token.as_ref().map(|token| token.expose().to_owned()),
            stall_max: config.status.stall_after,
            clock,
            seen: web::Seen::default(),
        };
        match mode {
            // Whoever waits for its end does not look at a page.
            Mode::Once => {}
            Mode::Daemon => web::serve(config.status.listen, site, ended.clone()).await,
        }
    };
    tokio::join!(socket, page, sampler::run(Arc::clone(board), clock, ended.clone()));
}

/// A pipeline as it was started.
struct Life {
    /// What it was started with: another one needs another life.
    settings: (config::Destination, config::Source, String),
    stop: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

/// All pipelines.
struct Fleet<'a> {
    data_dir: DataDir,
    mode: Mode,
    stop: &'a CancellationToken,
    board: Arc<Board>,
    lives: BTreeMap<String, Life>,
    /// The last life of each that is not served any more: cancelled when it has ended.
    ending: BTreeMap<String, CancellationToken>,
    /// Those that cannot be set up and have no life.
    refused: BTreeMap<String, Arc<RestError>>,
    tasks: JoinSet<Summary>,
}

impl Fleet<'_> {
    /// Starts what is new, ends what is no longer there, and gives what has changed another life. A destination that cannot be set up goes on as
    /// it was, or waits, and holds up no other.
    ///
    /// # Errors
    /// When none can be set up, or the source's settings are of no use; nothing has changed then.
    fn adjust(&mut self, config: &Config, source: &config::Source) -> Result<(), DaemonError> {
        let wanted: Vec<_> = config.destinations.iter().filter(|destination| destination.enabled).collect();
        // All of them first, so that settings of which none is of use change nothing.
        let (mut changed, mut refused) = (Vec::new(), Vec::new());
        for destination in &wanted {
            let settings = ((*destination).clone(), source.clone(), config.gateway.id.clone());
            if self.lives.get(&destination.name).is_some_and(|life| life.settings == settings) {
                continue;
            }
            let helm = self.board.desks().iter().find(|desk| desk.name == destination.name).map(|desk| Arc::clone(&desk.helm));
            match Pipeline::new(config, source, destination, &self.data_dir, self.mode, helm.clone()) {
                Ok(pipeline) => changed.push((pipeline, settings)),
                Err(DaemonError::Destination { name, cause }) => {
                    let folder = self.data_dir.outbox(&name);
                    refused.push((Arc::new(desk(source, destination, &folder, Drained::Yes, helm)), cause));
                }
                Err(error @ (DaemonError::DataDir(_) | DaemonError::Source(_))) => return Err(error),
            }
        }
        if refused.len() == wanted.len()
            && let Some((desk, cause)) = (!refused.is_empty()).then(|| refused.swap_remove(0))
        {
            return Err(DaemonError::Destination { name: desk.name.clone(), cause });
        }
        let known = self.lives.keys().chain(self.refused.keys());
        let gone: Vec<_> = known.filter(|name| !wanted.iter().any(|destination| destination.name == **name)).cloned().collect();
        for name in gone {
            tracing::info!(destination = name, "is not served any more");
            self.board.remove(&name);
            if let Some(life) = self.lives.remove(&name) {
                life.stop.cancel();
                self.ending.insert(name, life.ended);
            }
        }
        self.refused.clear();
        for (desk, cause) in refused {
            self.refuse(desk, cause);
        }
        for (pipeline, settings) in changed {
            let before = match self.lives.remove(&pipeline.desk.name) {
                Some(life) => {
                    life.stop.cancel();
                    Some(life.ended)
                }
                None => self.ending.remove(&pipeline.desk.name),
            };
            let life = Life { settings, stop: self.stop.child_token(), ended: CancellationToken::new() };
            self.board.put(Arc::clone(&pipeline.desk));
            let (stop, ended, name) = (life.stop.clone(), life.ended.clone(), pipeline.desk.name.clone());
            self.tasks.spawn(async move {
                // Two lives of one outbox do not overlap.
                if let Some(before) = before {
                    before.cancelled().await;
                }
                let summary = revive(Arc::new(pipeline), stop).await;
                ended.cancel();
                summary
            });
            self.lives.insert(name, life);
        }
        Ok(())
    }

    /// A destination that cannot be set up: it goes on as it was, or is shown as one that is not served.
    fn refuse(&mut self, desk: Arc<Desk>, cause: RestError) {
        let (name, error) = (desk.name.clone(), crate::chain(&cause));
        if self.lives.contains_key(&name) {
            tracing::error!(
                destination = name,
                error,
                "this destination's new settings cannot be used: it goes on with the old ones"
            );
            return;
        }
        tracing::error!(destination = name, error, "this destination cannot be set up: it waits for a reload, the others go on");
        desk.set(Slot::Closed(format!("it cannot be set up: {error}")));
        desk.pulse.rest("waiting for a reload");
        self.board.put(desk);
        self.refused.insert(name, Arc::new(cause));
    }

    /// Until every pipeline has ended.
    async fn run(&mut self, changes: &mut mpsc::Receiver<Config>) -> Vec<Summary> {
        let mut summaries = BTreeMap::new();
        let mut open = true;
        loop {
            tokio::select! {
                ended = self.tasks.join_next() => match ended {
                    None => break,
                    Some(Ok(summary)) => { summaries.insert(summary.destination.clone(), summary); }
                    // A pipeline's own defects are caught where it is revived.
                    Some(Err(defect)) => tracing::error!(%defect, "a pipeline was lost"),
                },
                config = changes.recv(), if open && !self.stop.is_cancelled() => match config {
                    None => open = false,
                    Some(config) => self.change(&config),
                },
            }
        }
        for (destination, cause) in std::mem::take(&mut self.refused) {
            summaries.insert(destination.clone(), Summary::of(&destination, PipelineError::Setup(cause)));
        }
        summaries.into_values().collect()
    }

    /// A new configuration; one that cannot be used leaves everything as it is.
    fn change(&mut self, config: &Config) {
        let adjusted = config.need_source().map_err(|error| crate::chain(&error)).and_then(|source| {
            if !config.destinations.iter().any(|destination| destination.enabled) {
                return Err("no [[destination]] is enabled".to_owned());
            }
            self.adjust(config, source).map_err(|error| crate::chain(&error))
        });
        match adjusted {
            Ok(()) => tracing::info!(destinations = self.lives.len(), "the configuration was reloaded"),
            Err(error) => tracing::error!(error, "the new configuration cannot be used: the old one stays"),
        }
        service::ready();
    }
}

/// Runs a pipeline in a task of its own: a defect that ends it is told, and as a daemon it is begun again.
async fn revive(pipeline: Arc<Pipeline>, stop: CancellationToken) -> Summary {
    loop {
        let mut lives = JoinSet::new();
        let (alive, stop_it) = (Arc::clone(&pipeline), stop.clone());
        lives.spawn(async move { alive.supervise(&stop_it).await });
        let defect = match lives.join_next().await {
            Some(Ok(summary)) => return summary,
            Some(Err(defect)) => defect.to_string(),
            None => "it ended without a word".to_owned(),
        };
        pipeline.desk.pulse.enter("waiting to begin again", LOCAL_BACKOFF_MAX + service::STEP_MAX);
        pipeline.desk.set(Slot::Closed(format!("a defect stopped it: {defect}")));
        tracing::error!(destination = pipeline.name, defect, "a defect stopped this pipeline; what was committed is on the disk");
        if pipeline.mode == Mode::Once || stop.is_cancelled() {
            return Summary::of(&pipeline.name, PipelineError::Defect(defect));
        }
        tokio::select! {
            () = sleep(LOCAL_BACKOFF_MAX) => {}
            () = stop.cancelled() => {}
        }
    }
}

struct Pipeline {
    name: String,
    path: std::path::PathBuf,
    desk: Arc<Desk>,
    mode: Mode,
    open: OpenOptions,
    source: mysql::Options,
    sink: Arc<RestSink>,
    capture: capture::Options,
    sender: sender::Options,
    backoff_min: Duration,
}

impl Pipeline {
    fn new(
        config: &Config,
        source: &config::Source,
        destination: &config::Destination,
        data_dir: &DataDir,
        mode: Mode,
        helm: Option<Arc<Helm>>,
    ) -> Result<Self, DaemonError> {
        let name = destination.name.clone();
        let sink = RestSink::new(rest_options(destination, data_dir.source()));
        let sink = sink.map_err(|cause| DaemonError::Destination { name: name.clone(), cause })?;
        let mut source_options = mysql_options(source);
        // A bad url is told now, not by a loop that tries it for ever.
        MysqlSource::new(source_options.clone())?;
        let path = data_dir.outbox(&name);
        let desk = Arc::new(desk(source, destination, &path, Drained::Yes, helm));
        source_options.pulse = Some(Arc::clone(&desk.pulse));
        Ok(Self {
            path,
            mode,
            open: OpenOptions { destination: name.clone(), source: data_dir.source(), epoch: Epoch(rand::random()) },
            name,
            source: source_options,
            sink: Arc::new(sink),
            capture: capture::Options {
                poll_interval: scaled(source.poll_interval),
                settle: scaled(source.settle),
                page_rows_max: PAGE_ROWS_MAX,
                outbox_bytes_max: destination.outbox_max_bytes,
                disk_reserve_bytes: source.disk_reserve_bytes,
                audit_horizon: source.audit_horizon,
                audit_interval: source.audit_interval,
                start: match destination.start {
                    config::Start::Beginning => capture::Start::Beginning,
                    config::Start::Now => capture::Start::Now,
                    config::Start::At(time) => capture::Start::At(time),
                },
                sent_before: destination.sent_before,
                sending: if desk.helm.is_paused() { Sending::Paused } else { Sending::On },
                intake: Arc::clone(&desk.intake),
                clock,
            },
            sender: sender::Options {
                request_rows_max: REQUEST_ROWS_MAX,
                request_bytes_max: destination.request_max_bytes,
                backoff_max: scaled(destination.backoff_max),
                linger: scaled(destination.linger),
                pushstatus_interval: scaled(destination.pushstatus_interval),
                label: config.gateway.id.clone(),
                clock,
                new_epoch: || Epoch(rand::random()),
                helm: Arc::clone(&desk.helm),
            },
            backoff_min: scaled(destination.backoff_min),
            desk,
        })
    }

    /// Runs, and opens again what failed.
    async fn supervise(&self, stop: &CancellationToken) -> Summary {
        let mut summary = Summary { destination: self.name.clone(), outbox: None, captured: None, error: None };
        let mut retry = retry(Duration::from_secs(1), LOCAL_BACKOFF_MAX);
        let mut told = String::new();
        loop {
            let began = Instant::now();
            let error = match self.run(stop, &mut summary).await {
                Ok(()) => return summary,
                Err(error) => error,
            };
            let text = crate::chain(&error);
            self.desk.set(Slot::Closed(text.clone()));
            if self.mode == Mode::Once || stop.is_cancelled() {
                tracing::error!(destination = self.name, error = text, "the outbox failed");
                summary.error = Some(PipelineError::Store(Arc::new(error)));
                return summary;
            }
            if began.elapsed() > LOCAL_BACKOFF_MAX {
                retry.reset();
                told.clear();
            }
            let wait = retry.next_wait();
            self.desk.pulse.enter("waiting to open its outbox again", wait + service::limit(service::STEP_MAX));
            if told == text {
                tracing::debug!(destination = self.name, again_in_seconds = wait.as_secs(), "the outbox failed again");
            } else {
                tracing::error!(
                    destination = self.name,
                    error = text,
                    again_in_seconds = wait.as_secs(),
                    "the outbox failed: it is opened again until it works"
                );
                told = text;
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {
                    summary.error = Some(PipelineError::Store(Arc::new(error)));
                    return summary;
                }
            }
        }
    }

    async fn run(&self, stop: &CancellationToken, summary: &mut Summary) -> Result<(), StoreError> {
        // Each store that is made gets a life of its own, also the second one of this process (I3).
        let options = OpenOptions { epoch: Epoch(rand::random()), ..self.open.clone() };
        let path = self.path.clone();
        self.desk.set(Slot::Opening);
        self.desk.pulse.enter("opening its outbox", service::OPENING_MAX);
        let outbox = match tokio::task::spawn_blocking(move || Outbox::open(&path, &options)).await {
            Ok(opened) => opened?,
            Err(defect) => std::panic::resume_unwind(defect.into_panic()),
        };
        self.desk.set(Slot::Open(outbox.clone()));
        let pause = self.capture.poll_interval.max(LOCAL_BACKOFF_MAX);
        self.desk.pulse.enter("capturing", service::limit(pause + service::STEP_MAX));
        let result = loop {
            let result = self.join_loops(&outbox, stop, summary).await;
            // With an end: what a receiver turns out to have lost, when everything was captured, is still to be captured once more.
            let is_lost = outbox.snapshot().streams.iter().any(|state| state.elsewhere.again.is_some());
            let goes_on = result.is_ok() && summary.captured.is_some_and(|report| report.complete) && !stop.is_cancelled();
            if self.mode == Mode::Daemon || !is_lost || !goes_on {
                break result;
            }
        };
        let why = match &result {
            Ok(()) => "packhorse is stopping, or has new settings for it".to_owned(),
            Err(error) => crate::chain(error),
        };
        self.desk.close(why).await;
        summary.outbox = Some(outbox.snapshot());
        // Closing syncs, which takes its time on a slow disk.
        let _ = tokio::task::spawn_blocking(move || drop(outbox)).await;
        result
    }

    async fn join_loops(&self, outbox: &Outbox, stop: &CancellationToken, summary: &mut Summary) -> Result<(), StoreError> {
        let captured = CancellationToken::new();
        let until = match self.mode {
            Mode::Daemon => Until::Stopped,
            Mode::Once => Until::CaughtUp,
        };
        let capture = async {
            let mut source = match MysqlSource::new(self.source.clone()) {
                Ok(source) => source,
                Err(error) => return Ok(Err(error)),
            };
            let retry = retry(Duration::from_secs(1), LOCAL_BACKOFF_MAX);
            let ended = capture::run(&mut source, outbox, &self.capture, until, retry, stop).await;
            captured.cancel();
            match ended {
                Ok(report) => Ok(Ok(report)),
                Err(CaptureError::Source(error)) => Ok(Err(error)),
                Err(CaptureError::Store(error)) => Err(error),
            }
        };
        let backoff = retry(self.backoff_min, self.sender.backoff_max);
        let waits_for_capture = (self.mode == Mode::Once).then_some(&captured);
        let send = sender::run(outbox, &*self.sink, &self.sender, waits_for_capture, backoff, stop);
        let (captured, ()) = tokio::try_join!(capture, send)?;
        match captured {
            Ok(report) => summary.captured = Some(report),
            Err(error) => {
                tracing::error!(destination = self.name, error = crate::chain(&error), "capture ended");
                summary.error = Some(PipelineError::Source(Arc::new(error)));
            }
        }
        Ok(())
    }
}

/// A destination's desk, as its settings have it.
pub fn desk(
    source: &config::Source,
    destination: &config::Destination,
    folder: &Path,
    drained: Drained,
    helm: Option<Arc<Helm>>,
) -> Desk {
    let limits =
        Limits { outbox_bytes_max: destination.outbox_max_bytes, disk_reserve_bytes: source.disk_reserve_bytes, drained, clock };
    let options = mysql_options(source);
    let connect = Box::new(move || MysqlSource::new(options.clone()).map(|source| Box::new(source) as Box<dyn Source>));
    let desk = Desk::new(&destination.name, folder, limits, connect, helm);
    desk.pulse.enter("beginning", service::limit(service::BEGINNING_MAX));
    desk
}

/// How the source is reached.
pub fn mysql_options(source: &config::Source) -> mysql::Options {
    let options = mysql::Options::new(source.url.expose());
    #[cfg(debug_assertions)]
    if let Some(seconds) = std::env::var("PACKHORSE_TEST_QUERY_DEADLINE_SECONDS").ok().and_then(|text| text.parse().ok()) {
        // A test of a query that hangs takes seconds.
        let deadline = Duration::from_secs(seconds);
        return mysql::Options { deadline, connect_deadline: deadline, ..options };
    }
    options
}

/// How a destination is reached.
pub fn rest_options(destination: &config::Destination, source: crate::domain::SourceId) -> rest::Options {
    let auth = match &destination.auth {
        config::Auth::None => rest::Auth::None,
        config::Auth::Token(token) => rest::Auth::Bearer(token.expose().to_owned()),
        config::Auth::Basic { user, password } => {
            rest::Auth::Basic { user: user.clone(), password: password.expose().to_owned() }
        }
    };
    rest::Options {
        url: destination.url.to_string(),
        auth,
        ca_pem: destination.ca_pem.clone().map(String::into_bytes),
        client_identity_pem: destination.client_identity_pem.as_ref().map(|pem| pem.expose().as_bytes().to_vec()),
        proxy: (destination.proxy.as_ref().map(|proxy| proxy.expose().to_string()))
            .or_else(|| rest::proxy_of_environment(destination.url.as_str())),
        request_bytes_max: destination.request_max_bytes,
        connect_deadline: scaled(rest::Options::CONNECT_DEADLINE),
        answer_deadline: answer_deadline(),
        stall_deadline: answer_deadline().min(scaled(rest::Options::STALL_DEADLINE)),
        source,
    }
}

/// Debug builds let the environment shorten it, so that a test of a server that stalls takes seconds.
fn answer_deadline() -> Duration {
    #[cfg(debug_assertions)]
    if let Some(seconds) = std::env::var("PACKHORSE_TEST_ANSWER_DEADLINE_SECONDS").ok().and_then(|text| text.parse().ok()) {
        return Duration::from_secs(seconds);
    }
    scaled(rest::Options::ANSWER_DEADLINE)
}

fn retry(min: Duration, max: Duration) -> Retry {
    Retry::new(min, max, Box::new(rand::random::<f64>))
}

/// The gateway's clock.
pub fn clock() -> Micros {
    Micros(chrono::Utc::now().timestamp_micros())
}
