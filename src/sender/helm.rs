//! How an operator sees and steers a sender: what it is doing, what it has come to, and the three words it listens to (pause, resume, flush).
//!
//! The one rule: nothing here decides about rows. A pause only keeps the next request from going out, a flush only ends a wait.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{
    domain::{Heard, Micros, Outcome, Stream, Verdict},
    ports::Delivered,
};

/// What a sender is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has not begun.
    Starting,
    /// It brings the destination's catalog in step.
    Syncing,
    /// A request is in flight.
    Sending {
        /// Of this stream.
        stream: Stream,
        /// With so many rows.
        rows: usize,
        /// Since when.
        since: Micros,
    },
    /// Nothing waits, or a trickle is being gathered.
    Idle,
    /// It waits for the next try.
    Waiting {
        /// What the last try came to.
        outcome: Outcome,
        /// When it tries again.
        until: Micros,
    },
    /// An operator paused it.
    Paused,
    /// It has ended.
    Stopped,
}

/// What requests came to since the program started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests with rows, by what they came to, in the order of [`VERDICTS`].
    pub requests: [u64; VERDICTS.len()],
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// How long all of them took together.
    pub took: Duration,
    /// How long the last one that was answered took.
    pub last_took: Option<Duration>,
    /// When the last request was accepted.
    pub accepted_at: Option<Micros>,
}

/// Every verdict, in the order of [`Traffic::requests`].
pub const VERDICTS: [Verdict; 6] =
    [Verdict::Accepted, Verdict::NotStored, Verdict::Unknown, Verdict::Misconfigured, Verdict::TooLarge, Verdict::Refused];

impl Traffic {
    /// All requests.
    pub fn all(&self) -> u64 {
        self.requests.iter().sum()
    }

    /// Those that were not accepted.
    pub fn failed(&self) -> u64 {
        self.requests[1..].iter().sum()
    }
}

/// Nothing gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Since when.
    pub since: Micros,
    /// What the last try came to.
    pub verdict: Verdict,
}

/// Shared by a sender and those who look at it and steer it; it outlives the sender.
#[derive(Debug)]
pub struct Helm {
    doing: watch::Sender<Doing>,
    is_paused: watch::Sender<bool>,
    flush: Notify,
    traffic: Mutex<Traffic>,
    trouble: Mutex<Option<Trouble>>,
    conflicts: Mutex<Vec<(String, String)>>,
    told_at: Mutex<Instant>,
    mapped: AtomicU64,
    link: Mutex<Link>,
}

/// What the last question to the destination found of the way there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// None was asked yet.
    #[default]
    Unknown,
    /// Somebody answered, whatever they said.
    Up,
    /// Nobody did.
    Down,
}

impl Default for Helm {
    fn default() -> Self {
        Self {
            doing: watch::Sender::new(Doing::Starting),
            is_paused: watch::Sender::new(false),
            flush: Notify::new(),
            traffic: Mutex::default(),
            trouble: Mutex::default(),
            conflicts: Mutex::default(),
            told_at: Mutex::new(Instant::now()),
            mapped: AtomicU64::new(0),
            link: Mutex::default(),
        }
    }
}

impl Helm {
    /// What the sender is doing now.
    pub fn doing(&self) -> Doing {
        self.doing.borrow().clone()
    }

    /// That nothing gets through, also while it is tried again; `None` while all is well.
    pub fn trouble(&self) -> Option<Trouble> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What requests came to.
    pub fn traffic(&self) -> Traffic {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Entities that the destination could not be given, each with the reason, as of the last look.
    pub fn conflicts(&self) -> Vec<(String, String)> {
        self.conflicts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sender found these.
    pub(super) fn set_conflicts(&self, found: Vec<(String, String)>) {
        *self.conflicts.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// How often something of the catalog was brought to the destination and written down.
    pub fn mapped(&self) -> u64 {
        self.mapped.load(Ordering::Relaxed)
    }

    /// Entities are there, and that is on the disk.
    pub(crate) fn has_mapped(&self) {
        self.mapped.fetch_add(1, Ordering::Relaxed);
    }

    /// What the last question found of the way to the destination.
    pub fn link(&self) -> Link {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The destination was asked something, which was heard or not.
    pub(crate) fn heard(&self, heard: Heard) {
        let link = match heard {
            Heard::Nothing => Link::Down,
            Heard::Answer => Link::Up,
        };
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = link;
    }

    /// Whether an operator paused it.
    pub fn is_paused(&self) -> bool {
        *self.is_paused.borrow()
    }

    /// No request goes out any more after the one that is in flight.
    pub fn pause(&self) {
        self.is_paused.send_replace(true);
    }

    /// Requests go out again.
    pub fn resume(&self) {
        self.is_paused.send_replace(false);
    }

    /// Ends a wait for the next try, or for more rows.
    pub fn flush(&self) {
        self.flush.notify_waiters();
    }

    /// How long its last step towards the destination has been under way; `None` while it waits for something of its own accord.
    pub fn busy_for(&self) -> Option<Duration> {
        match &*self.doing.borrow() {
            Doing::Syncing | Doing::Sending { .. } => Some(self.told_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()),
            Doing::Starting | Doing::Idle | Doing::Waiting { .. } | Doing::Paused | Doing::Stopped => None,
        }
    }

    /// The sender says what it is doing.
    pub fn tell(&self, doing: Doing) {
        *self.told_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.doing.send_replace(doing);
    }

    /// The sender waits for its next try: until then, or until somebody wants it now.
    pub(super) async fn wait(&self, outcome: &Outcome, now: Micros, wait: Duration) {
        self.heard(outcome.heard);
        let since = self.trouble().map_or(now, |trouble| trouble.since);
        let trouble = Trouble { since, verdict: outcome.verdict };
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(trouble);
        let until = Micros(now.0.saturating_add(i64::try_from(wait.as_micros()).unwrap_or(i64::MAX)));
        self.tell(Doing::Waiting { outcome: outcome.clone(), until });
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.flushed() => {}
        }
    }

    /// Until somebody wants it now.
    pub(super) async fn flushed(&self) {
        self.flush.notified().await;
    }

    /// Returns at once unless paused; then when it is resumed.
    pub(super) async fn while_paused(&self) {
        if !self.is_paused() {
            return;
        }
        self.tell(Doing::Paused);
        // The sender of the watch is this one: it cannot end first.
        let _ = self.is_paused.subscribe().wait_for(|paused| !paused).await;
    }

    /// The destination answers as it should.
    pub(super) fn all_well(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A request came back.
    pub(super) fn answered(&self, delivered: &Delivered, now: Micros) {
        let verdict = delivered.outcome.verdict;
        self.heard(delivered.outcome.heard);
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = VERDICTS.iter().position(|known| *known == verdict) {
            traffic.requests[place] += 1;
        }
        traffic.body_bytes += delivered.body_bytes;
        traffic.took += delivered.took;
        if verdict == Verdict::Accepted {
            traffic.last_took = Some(delivered.took);
            traffic.accepted_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flush_ends_a_wait_and_a_resume_a_pause() {
        let helm = Helm::default();
        let outcome = Outcome::new(Verdict::NotStored, "the link is down");
        let began = Instant::now();
        tokio::join!(helm.wait(&outcome, Micros(7), Duration::from_hours(1)), async {
            assert_eq!(helm.doing(), Doing::Waiting { outcome: outcome.clone(), until: Micros(3_600_000_007) });
            helm.flush();
        });
        helm.pause();
        tokio::join!(helm.while_paused(), async {
            assert_eq!(helm.doing(), Doing::Paused);
            helm.resume();
        });
        assert!(began.elapsed() < Duration::from_secs(1));
        let trouble = Some(Trouble { since: Micros(7), verdict: Verdict::NotStored });
        assert_eq!(helm.trouble(), trouble, "since the first trouble");
        helm.wait(&outcome, Micros(9), Duration::from_secs(1)).await;
        assert_eq!(helm.trouble(), trouble, "and not since the last");
        helm.all_well();
        assert_eq!(helm.trouble(), None);
    }
}
