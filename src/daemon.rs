//! Open, connect, join the loops, stop.
//!
//! One pipeline for each destination, supervised alone: what befalls one ends nobody else's loop. A pipeline whose outbox fails is closed
//! and opened again after a while.
//!
//! The one rule: every loop is joined before this returns, and what a loop was doing when it was stopped is safe to be cut off anywhere.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::{self, CaptureError, CaptureReport, Until},
    config::{self, Config},
    domain::{Epoch, Micros, Retry},
    edge::scaled,
    mysql::{self, MysqlSource},
    outbox::{DataDir, DataDirError, OpenOptions, Outbox, Snapshot, StoreError},
    ports::SourceError,
    rest::{self, RestError, RestSink},
    sender,
};

/// Rows in a page of capture.
const PAGE_ROWS_MAX: u32 = 10_000;
/// Rows in a request, at most; a fast link gets fewer.
const REQUEST_ROWS_MAX: usize = 50_000;
/// The longest wait for a source that is away, and before a failed outbox is opened again.
const LOCAL_BACKOFF_MAX: Duration = Duration::from_mins(1);

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

/// Why a pipeline ended early.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PipelineError {
    /// Its outbox does not open or work.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// The source cannot be reached or read.
    #[error(transparent)]
    Source(Arc<SourceError>),
    /// A file that its settings name is of no use: it waits for an operator and a restart, and its outbox keeps what is in it.
    #[error("it cannot be set up")]
    Setup(#[source] Arc<RestError>),
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

/// Runs the pipelines of all enabled destinations until `stop`, or until all is delivered.
///
/// # Errors
/// Only when nothing could be started; what befalls a pipeline is in its [`Summary`].
pub async fn run(
    config: &Config,
    source: &config::Source,
    mode: Mode,
    stop: &CancellationToken,
) -> Result<Vec<Summary>, DaemonError> {
    let data_dir = DataDir::own(&config.gateway.data_dir, rand::random)?;
    let mut pipelines = Vec::new();
    let mut refused = Vec::new();
    for destination in config.destinations.iter().filter(|destination| destination.enabled) {
        match Pipeline::new(config, source, destination, &data_dir, mode) {
            Ok(pipeline) => pipelines.push(revive(Arc::new(pipeline), stop.clone())),
            Err(DaemonError::Destination { name, cause }) => refused.push((name, cause)),
            Err(error @ (DaemonError::DataDir(_) | DaemonError::Source(_))) => return Err(error),
        }
    }
    if pipelines.is_empty()
        && let Some((name, cause)) = (!refused.is_empty()).then(|| refused.swap_remove(0))
    {
        return Err(DaemonError::Destination { name, cause });
    }
    for (name, cause) in &refused {
        let error = crate::chain(cause);
        tracing::error!(destination = name, error, "this destination cannot be set up: it waits for a restart, the others go on");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        source = %data_dir.source(),
        data_dir = %data_dir.path().display(),
        destinations = pipelines.len(),
        "packhorse runs"
    );
    let mut summaries = futures_util::future::join_all(pipelines).await;
    summaries.extend(refused.into_iter().map(|(destination, cause)| Summary {
        destination,
        outbox: None,
        captured: None,
        error: Some(PipelineError::Setup(Arc::new(cause))),
    }));
    summaries.sort_by(|a, b| a.destination.cmp(&b.destination));
    Ok(summaries)
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
        tracing::error!(destination = pipeline.name, defect, "a defect stopped this pipeline; what was committed is on the disk");
        if pipeline.mode == Mode::Once || stop.is_cancelled() {
            let error = Some(PipelineError::Defect(defect));
            return Summary { destination: pipeline.name.clone(), outbox: None, captured: None, error };
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
    ) -> Result<Self, DaemonError> {
        let name = destination.name.clone();
        let sink = RestSink::new(rest_options(destination, data_dir.source()));
        let sink = sink.map_err(|cause| DaemonError::Destination { name: name.clone(), cause })?;
        let source_options = mysql_options(source);
        // A bad url is told now, not by a loop that tries it for ever.
        MysqlSource::new(source_options.clone())?;
        Ok(Self {
            path: data_dir.outbox(&name),
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
            },
            backoff_min: scaled(destination.backoff_min),
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
        let outbox = match tokio::task::spawn_blocking(move || Outbox::open(&path, &options)).await {
            Ok(opened) => opened?,
            Err(defect) => std::panic::resume_unwind(defect.into_panic()),
        };
        let result = self.join_loops(&outbox, stop, summary).await;
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

/// How the source is reached.
pub fn mysql_options(source: &config::Source) -> mysql::Options {
    mysql::Options::new(source.url.expose())
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
