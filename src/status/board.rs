//! What of the running daemon can be looked at and steered: its destinations, each with its outbox while that is open, and its helm.
//!
//! The one rule: who looks here holds up nobody. An outbox is handed out as one more handle, and taken back from here before it is closed.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{RwLock, watch},
    time::{Instant, timeout},
};

use super::{DestinationStatus, Sender, gather, of_closed, watermarks};
use crate::{
    domain::Micros,
    outbox::Outbox,
    ports::{Source, SourceError},
    pulse::Pulse,
    queue::{self, Answer, Answers, Beside, FailureKind, QueueError, Request, Surroundings, Told, act, discard, look, rewind},
    sender::helm::Helm,
};

/// How long a request waits for an outbox that is being opened.
const OPENING_MAX: Duration = Duration::from_secs(5);
/// How long an outbox that closes waits for requests to let go of it: only a commit that one of them began keeps them.
const LETTING_GO_MAX: Duration = Duration::from_secs(5);

/// Makes a connection to the source.
pub type Connect = Box<dyn Fn() -> Result<Box<dyn Source>, SourceError> + Send + Sync>;

/// An outbox of the daemon.
#[derive(Clone)]
pub enum Slot {
    /// It is being opened.
    Opening,
    /// It is open.
    Open(Outbox),
    /// It does not open, or its pipeline has ended, for this reason.
    Closed(String),
}

/// One destination of the daemon.
pub struct Desk {
    /// Its name.
    pub name: String,
    /// Its outbox's folder.
    pub folder: PathBuf,
    /// Where its sender is seen and steered.
    pub helm: Arc<Helm>,
    /// The sign of life of its capture and of who opens its outbox.
    pub pulse: Arc<Pulse>,
    /// What bounds its outbox.
    pub limits: rewind::Limits,
    /// The way to the source, for what reads it again.
    pub connect: Connect,
    slot: watch::Sender<Slot>,
    /// Read by each request that works on its outbox.
    in_use: RwLock<()>,
    rate: Mutex<Option<f64>>,
    /// When there was progress last, or no work.
    went_on: Mutex<Instant>,
}

impl Desk {
    /// A destination whose outbox is still to be opened; with the helm of its life before, where it had one.
    pub fn new(name: &str, folder: &Path, limits: rewind::Limits, connect: Connect, helm: Option<Arc<Helm>>) -> Self {
        let helm = helm.unwrap_or_default();
        if act::is_paused(folder) {
            helm.pause();
        }
        Self {
            name: name.to_owned(),
            folder: folder.to_owned(),
            helm,
            pulse: Arc::new(Pulse::new("beginning", Duration::from_hours(1))),
            limits,
            connect,
            slot: watch::Sender::new(Slot::Opening),
            in_use: RwLock::default(),
            rate: Mutex::new(None),
            went_on: Mutex::new(Instant::now()),
        }
    }

    /// What has become of its outbox.
    pub fn set(&self, slot: Slot) {
        self.slot.send_replace(slot);
    }

    /// Its outbox closes, for this reason. Returns when the requests that work on it have ended: the next life cannot open it before.
    pub async fn close(&self, why: String) {
        self.set(Slot::Closed(why));
        let _ = timeout(LETTING_GO_MAX, self.in_use.write()).await;
    }

    /// Waits until its outbox closes, and says why.
    async fn closes(&self) -> QueueError {
        let mut slot = self.slot.subscribe();
        let why = match slot.wait_for(|slot| !matches!(slot, Slot::Open(_))).await.as_deref() {
            Ok(Slot::Closed(why)) => why.clone(),
            Ok(Slot::Opening | Slot::Open(_)) | Err(_) => "it is opened again".to_owned(),
        };
        let text = format!("the outbox was closed before this was done ({why}): repeat this command when it is open again");
        QueueError::told(FailureKind::Other, text)
    }

    /// Its outbox, if that is open now.
    pub fn outbox(&self) -> Option<Outbox> {
        match &*self.slot.borrow() {
            Slot::Open(outbox) => Some(outbox.clone()),
            Slot::Opening | Slot::Closed(_) => None,
        }
    }

    /// Rows that it delivers a second, of late.
    pub fn rate(&self) -> Option<f64> {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has measured that.
    pub fn set_rate(&self, rate: Option<f64>) {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner) = rate;
    }

    /// Somebody has looked whether it goes on: so many rows wait, and some were settled since the last look or not. An outbox that is not open is
    /// work without progress; a pause is an operator's own.
    pub fn progress(&self, pending: u64, has_moved: bool) {
        let is_open = matches!(*self.slot.borrow(), Slot::Open(_));
        if has_moved || self.helm.is_paused() || (is_open && pending == 0) {
            *self.went_on.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    /// How long there has been work and no progress.
    pub fn stalled(&self) -> Duration {
        self.went_on.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Its outbox, or why it has none; one that is being opened is waited for a while.
    async fn open(&self) -> Result<Outbox, String> {
        let mut slot = self.slot.subscribe();
        let opened = slot.wait_for(|slot| !matches!(slot, Slot::Opening));
        let Ok(Ok(slot)) = timeout(OPENING_MAX, opened).await else {
            return Err("the outbox is being opened, which takes its time: try again".to_owned());
        };
        match &*slot {
            Slot::Open(outbox) => Ok(outbox.clone()),
            Slot::Closed(why) => Err(why.clone()),
            Slot::Opening => Err("the outbox is being opened".to_owned()),
        }
    }

    /// Its figures now.
    pub async fn status(&self, now: Micros) -> DestinationStatus {
        let opened = self.open().await;
        match opened {
            Err(why) => of_closed(&self.name, &why, None, now),
            Ok(outbox) => match gather(&outbox, Sender::Runs(&self.helm, self.rate()), now).await {
                Ok(status) => status,
                Err(error) => of_closed(&self.name, &crate::chain(&error), None, now),
            },
        }
    }

    /// Carries out a request; its last answer is not given here.
    pub async fn carry_out(&self, request: Request, answers: &Answers) -> Result<(), QueueError> {
        let told = async |text: &str| {
            tracing::warn!(destination = self.name, "an operator: {text}");
            answers.give(Answer::Told(Told { text: text.to_owned(), rows: 0, wrong: Vec::new() })).await
        };
        match request {
            Request::Pause => {
                let (folder, helm, now) = (self.folder.clone(), Arc::clone(&self.helm), (self.limits.clock)());
                // The file and what is done by it, both: whoever asked may go away between them.
                queue::off_thread(move || act::pause(&folder, now).map(|()| helm.pause())).await?;
                return told("sending is paused; capture goes on").await;
            }
            Request::Resume => {
                let (folder, helm) = (self.folder.clone(), Arc::clone(&self.helm));
                queue::off_thread(move || act::resume(&folder).map(|()| helm.resume())).await?;
                return told("sending goes on").await;
            }
            Request::Flush => {
                if self.helm.is_paused() {
                    let text = "sending is paused: `packhorse queue resume` first";
                    return Err(QueueError::told(FailureKind::Other, text));
                }
                self.helm.flush();
                return told("what waits is tried now").await;
            }
            Request::Status => {
                let status = self.status((self.limits.clock)()).await;
                let marks = self.outbox().map(|outbox| watermarks(&outbox.snapshot())).unwrap_or_default();
                return answers.give(Answer::Status(Box::new(status), marks)).await;
            }
            _ => {}
        }
        let _in_use = self.in_use.read().await;
        let outbox = self.open().await.map_err(|why| QueueError::told(FailureKind::Outbox, why))?;
        // Long work ends with the life of the outbox that it works on (every step of it is whole): it would keep the next one from opening it.
        tokio::select! {
            done = self.on_outbox(outbox, request, answers) => done,
            closed = self.closes() => Err(closed),
        }
    }

    async fn on_outbox(&self, outbox: Outbox, request: Request, answers: &Answers) -> Result<(), QueueError> {
        match request {
            Request::Rewind(since) => {
                let refused = |error: SourceError| QueueError::told(FailureKind::Unreachable, crate::chain(&error));
                let mut source = (self.connect)().map_err(refused)?;
                rewind::run(&outbox, &mut *source, since, &self.limits, answers).await
            }
            request => {
                let disk_reserve_bytes = self.limits.disk_reserve_bytes;
                let around = Surroundings { beside: Beside::Loops, now: (self.limits.clock)(), disk_reserve_bytes };
                on_open(&outbox, request, around, answers).await
            }
        }
    }
}

/// The requests that need nothing but an open outbox.
pub async fn on_open(outbox: &Outbox, request: Request, around: Surroundings, answers: &Answers) -> Result<(), QueueError> {
    let beside = around.beside;
    match request {
        Request::List(filter, limit) => look::list(outbox, &filter, limit, beside, answers).await,
        Request::Show(stream, seq) => look::show(outbox, stream, seq, answers).await,
        Request::ParkedList(filter) => answers.give(Answer::Groups(look::groups(outbox, &filter, beside).await?)).await,
        Request::ParkedShow(filter, limit) => look::parked_show(outbox, &filter, limit, beside, answers).await,
        Request::Retry(filter, run) => act::retry(outbox, &filter, run, around, answers).await,
        Request::Discard(filter, run) => discard::discard(outbox, &filter, run, around, answers).await,
        Request::Verify => look::verify(outbox, beside, answers).await,
        Request::Compact => act::compact(outbox, answers).await,
        Request::Status | Request::Pause | Request::Resume | Request::Flush | Request::Rewind(_) => {
            unreachable!("these need more than an outbox, and are carried out before")
        }
    }
}

/// All destinations of the daemon.
pub struct Board {
    /// The data directory: requests for another one are refused.
    pub data_dir: PathBuf,
    desks: Mutex<Vec<Arc<Desk>>>,
}

impl Board {
    /// Without a destination.
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned()), desks: Mutex::default() }
    }

    /// Every destination, in the order in which they came.
    pub fn desks(&self) -> Vec<Arc<Desk>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds one, in place of one of its name.
    pub fn put(&self, desk: Arc<Desk>) {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        match desks.iter_mut().find(|known| known.name == desk.name) {
            Some(known) => *known = desk,
            None => desks.push(desk),
        }
    }

    /// Takes one away.
    pub fn remove(&self, name: &str) {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner).retain(|desk| desk.name != name);
    }
}
