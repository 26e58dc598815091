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

use super::{DestinationStatus, Sender, State, gather, of_closed, of_last, watermarks};
use crate::{
    capture::intake::{Cause, Intake},
    domain::Micros,
    outbox::Outbox,
    ports::{Source, SourceError},
    pulse::Pulse,
    queue::{
        self, Answer, Answers, Beside, FailureKind, Pace, QueueError, Request, Surroundings, Told, act, discard, look, rewind,
    },
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
    /// Where its capture is seen.
    pub intake: Arc<Intake>,
    /// The sign of life of its capture and of who opens its outbox.
    pub pulse: Arc<Pulse>,
    /// What bounds its outbox.
    pub limits: rewind::Limits,
    /// The way to the source, for what reads it again.
    pub connect: Connect,
    slot: watch::Sender<Slot>,
    /// Read by each request that works on its outbox.
    in_use: RwLock<()>,
    /// Of all who look at its outbox.
    pace: Arc<Pace>,
    rate: Mutex<Option<f64>>,
    /// Its figures as they were last read.
    last: Mutex<Option<DestinationStatus>>,
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
            intake: Arc::default(),
            pulse: Arc::new(Pulse::new("beginning", Duration::from_hours(1))),
            limits,
            connect,
            slot: watch::Sender::new(Slot::Opening),
            in_use: RwLock::default(),
            pace: Arc::default(),
            rate: Mutex::new(None),
            last: Mutex::default(),
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

    /// What a look at its outbox brings; nothing when that is not open, or closes first: the next life could not open it.
    pub async fn while_open<T>(&self, look: impl AsyncFnOnce(Outbox) -> T) -> Option<T> {
        let _in_use = self.in_use.read().await;
        let outbox = self.outbox()?;
        tokio::select! {
            found = look(outbox) => Some(found),
            _ = self.closes() => None,
        }
    }

    /// How fast its outbox may be looked through.
    pub fn beside(&self) -> Beside {
        Beside::Loops(Arc::clone(&self.pace))
    }

    /// Rows that it delivers a second, of late.
    pub fn rate(&self) -> Option<f64> {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has measured that.
    pub fn set_rate(&self, rate: Option<f64>) {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner) = rate;
    }

    /// Somebody has looked whether it goes on: so many rows wait, and some were settled since the last look or not. An outbox that is not open, or
    /// that is empty and has no room, is work without progress; a pause is an operator's own.
    pub fn progress(&self, pending: u64, has_moved: bool) {
        let is_open = matches!(*self.slot.borrow(), Slot::Open(_));
        let has_room = self.intake.halt().is_none_or(|halt| halt.cause != Cause::Room);
        if has_moved || self.helm.is_paused() || (is_open && pending == 0 && has_room) {
            *self.went_on.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    /// How long there has been work and no progress. A source that cannot be read is that too, whatever is sent meanwhile and also during a pause,
    /// which is one of sending.
    pub fn stalled(&self) -> Duration {
        let sending = self.went_on.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        sending.max(self.intake.source_away().unwrap_or_default())
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

    /// Its figures now, or what is known of them while it is not open.
    pub async fn status(&self, now: Micros) -> DestinationStatus {
        match self.open().await {
            Err(why) => self.shut(&why, now),
            Ok(outbox) => match self.read(&outbox, now).await {
                Ok(status) => status,
                Err(why) => self.shut(&why, now),
            },
        }
    }

    /// Reads its figures, so that they are known when it is not open any more.
    pub async fn keep(&self, now: Micros) {
        let _ = self.while_open(async |outbox| self.read(&outbox, now).await).await;
    }

    async fn read(&self, outbox: &Outbox, now: Micros) -> Result<DestinationStatus, String> {
        let sender = Sender::Runs { helm: &self.helm, intake: &self.intake, rows_per_second: self.rate() };
        let status = gather(outbox, sender, now).await.map_err(|error| crate::chain(&error))?;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.clone());
        Ok(status)
    }

    fn shut(&self, why: &str, now: Micros) -> DestinationStatus {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let status = last.map_or_else(|| of_closed(&self.name, why, None, now), |last| of_last(&last, why, now));
        let state = match &*self.slot.borrow() {
            Slot::Opening => State::Starting,
            Slot::Open(_) | Slot::Closed(_) => State::Closed,
        };
        DestinationStatus { state, ..status }
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
                let beside = self.beside();
                let around = Surroundings { beside: &beside, now: (self.limits.clock)(), disk_reserve_bytes };
                on_open(&outbox, request, around, answers).await
            }
        }
    }
}

/// The requests that need nothing but an open outbox.
pub async fn on_open(outbox: &Outbox, request: Request, around: Surroundings<'_>, answers: &Answers) -> Result<(), QueueError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Column, Epoch, Rows, SourceId, Stream},
        outbox::OpenOptions,
        queue::rewind::{Drained, Limits},
        status::Figures,
    };

    fn away() -> SourceError {
        SourceError::Unreachable { advice: "start it".into(), cause: None }
    }

    fn outbox(folder: &Path) -> Outbox {
        let options = OpenOptions { destination: "here".into(), source: SourceId(1), epoch: Epoch(1) };
        Outbox::open(folder, &options).unwrap()
    }

    fn desk(folder: &Path) -> Desk {
        let limits =
            Limits { outbox_bytes_max: u64::MAX, disk_reserve_bytes: 0, drained: Drained::Yes, clock: || Micros(60_000_000) };
        Desk::new("here", folder, limits, Box::new(|| Err(away())), None)
    }

    /// The sampler looks as long as that.
    async fn looked_at(desk: &Desk, pending: u64, minutes: u64) {
        for _ in 0..minutes {
            tokio::time::advance(Duration::from_mins(1)).await;
            desk.progress(pending, false);
        }
    }

    #[tokio::test]
    async fn an_outbox_that_closes_keeps_its_figures_and_its_rows_grow_older() {
        let dir = tempfile::tempdir().unwrap();
        let desk = desk(dir.path());
        let at = |second: i64| Micros(1_700_000_000_000_000 + second * 1_000_000);
        desk.set(Slot::Closed("the disk fails".into()));
        let unknown = desk.status(at(0)).await;
        assert_eq!((unknown.figures, unknown.pending, unknown.streams.len()), (Figures::Unknown, None, 0), "{unknown:?}");
        let outbox = outbox(dir.path());
        let int = || Column::Int((0..3).map(Some).collect());
        let value = Column::Float(vec![Some(1.5); 3]);
        let columns = Rows::new(Stream::Reading, vec![int(), int(), int(), int(), value]);
        let watermark = crate::domain::Position::Start;
        let freshness = crate::domain::Freshness::New;
        outbox
            .append(crate::outbox::Captured { rows: columns, watermark, catalog: Vec::new(), freshness, at: at(0) })
            .await
            .unwrap();
        desk.set(Slot::Open(outbox.clone()));
        desk.keep(at(10)).await;
        desk.set(Slot::Closed("the disk fails".into()));
        let last = desk.status(at(7_300)).await;
        assert_eq!((last.figures, last.state, last.pending), (Figures::Last, State::Closed, Some(3)), "{last:?}");
        assert_eq!((last.oldest_age_seconds, last.streams[0].captured), (Some(7_300), Some(3)), "{last:?}");
        assert!(last.sentence.starts_with("the disk fails; the figures are those of "), "{}", last.sentence);
        let critical = crate::status::alarms(&last, Some(Duration::from_hours(1)), None);
        assert_eq!(critical.len(), 1, "its alarm does not end: {critical:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_is_away_and_no_room_are_no_progress_although_nothing_waits() {
        let dir = tempfile::tempdir().unwrap();
        let desk = desk(dir.path());
        desk.set(Slot::Open(outbox(dir.path())));
        looked_at(&desk, 0, 60).await;
        assert_eq!(desk.stalled(), Duration::ZERO, "there is nothing to do");
        desk.intake.waits(&away(), Micros(1));
        looked_at(&desk, 0, 20).await;
        assert_eq!(desk.stalled(), Duration::from_mins(20));
        desk.helm.pause();
        looked_at(&desk, 5, 5).await;
        assert_eq!(desk.stalled(), Duration::from_mins(25), "what an operator paused is sending");
        desk.intake.reads();
        assert_eq!(desk.stalled(), Duration::ZERO);
        looked_at(&desk, 5, 20).await;
        assert_eq!(desk.stalled(), Duration::ZERO, "a pause is the operator's own");
        desk.helm.resume();
        desk.intake.pauses("the disk is full", Micros(2));
        looked_at(&desk, 0, 20).await;
        assert_eq!(desk.stalled(), Duration::from_mins(20), "nothing waits, and nothing can enter");
        desk.progress(3, true);
        assert_eq!(desk.stalled(), Duration::ZERO, "what is sent makes room");
        desk.intake.has_room();
        desk.set(Slot::Closed("damaged".into()));
        looked_at(&desk, 0, 20).await;
        assert_eq!(desk.stalled(), Duration::from_mins(20), "an outbox that is not open");
    }
}
