//! Carrying the plan out, kind by kind, through the [`Sink`] port.
//!
//! The one rule: an entity's own fault holds that entity alone, and only when a probe right after it shows that the server is well; anything
//! else ends the sync with its outcome, and the next sync looks first. Every await may be the last: whoever wants to stop drops the future.

mod look;
mod sensors;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    Held, Known,
    follow::as_brought,
    plan::{Given, awaited_type, plan, translated},
};
use crate::{
    domain::{Catalog, Entity, EntityKind, LocalRef, Mappings, Outcome, RemoteId, Verdict},
    edge,
    ports::{Ask, RemoteEntity, Sink},
};

/// A journal could not be written; nothing is sent after that.
#[derive(Debug, thiserror::Error)]
#[error("the journal of the catalog cannot be written")]
pub struct JournalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where intents and mappings are made durable before anyone acts on them (I2).
#[async_trait]
pub trait Journal: Send {
    /// On return it is on disk that this entity may exist from now on. After a crash with such an intent, wait out what the server may still
    /// be doing before the next sync; `slowest` is the slowest answer of this one so far.
    async fn about_to_create(&mut self, what: LocalRef, slowest: Duration) -> Result<(), JournalError>;

    /// On return these mappings, and what was brought to the destination, are on disk, and the intents of these entities are settled.
    async fn settled(
        &mut self,
        mapped: &[(LocalRef, RemoteId)],
        brought: &[(LocalRef, Entity<RemoteId>)],
    ) -> Result<(), JournalError>;
}

/// How much is looked up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// What is not mapped yet, or has changed here since it was brought there.
    Unmapped,
    /// Everything captured: at start, after an outage, and now and then. A centre that was rebuilt must not put rows into another room.
    All,
}

/// Contents that the server did not take for entities that are there; they are not offered to it again.
pub type Refused = BTreeMap<LocalRef, Entity<RemoteId>>;

/// How to sync.
#[derive(Clone, Debug, PartialEq)]
pub struct SyncOptions {
    /// How much is looked up again.
    pub recheck: Recheck,
    /// What an earlier sync found refused.
    pub refused: Refused,
    /// Entities that are not created: every try so far ended without an answer. They are mapped when they are found.
    pub given_up: BTreeSet<LocalRef>,
}

/// What a sync came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Synced {
    /// Everything that is mapped now; it replaces what was known before, of which parts may have gone.
    pub mappings: Mappings,
    /// What is captured and not mapped, and why.
    pub held: Vec<Held>,
    /// What was created.
    pub created: Vec<LocalRef>,
    /// What was updated.
    pub updated: Vec<LocalRef>,
    /// What the server does not take, for the next sync.
    pub refused: Refused,
    /// What a person might want to know.
    pub notes: Vec<String>,
    /// The slowest answer.
    pub slowest: Duration,
}

/// Why a sync ended early. What was mapped until then is in the journal; rows must not be sent by mappings that a failed
/// [`Recheck::All`] was to prove.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The destination; after `Unknown` wait at least three times the slowest answer before the next sync.
    #[error("the catalog cannot be brought to the destination: {outcome}")]
    Sink {
        /// What it answered.
        outcome: Outcome,
        /// The entity whose creation got no answer, when it was that.
        unanswered: Option<LocalRef>,
        /// The slowest answer, the failed one included.
        slowest: Duration,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Brings the captured entities to the destination.
///
/// # Errors
/// [`SyncError::Sink`] when the destination does not answer as it should, for a reason that is no single entity's; an `Unknown` outcome of a
/// create is always one.
pub async fn sync(
    sink: &dyn Sink,
    captured: &Catalog,
    known: Known<'_>,
    options: &SyncOptions,
    journal: &mut dyn Journal,
) -> Result<Synced, SyncError> {
    let synced = Synced { refused: options.refused.clone(), ..Synced::default() };
    let mut run = Run { sink, captured: Cow::Borrowed(captured), known, options, journal, synced };
    if options.recheck == Recheck::Unmapped {
        run.synced.mappings = known.mappings.clone();
    } else {
        // What is mapped and not captured now cannot be looked at; no row that is still to be sent needs it.
        run.synced.mappings = known.mappings.iter().filter(|(what, _)| !captured.contains_key(what)).collect();
    }
    for kind in EntityKind::ALL {
        if kind == EntityKind::Sensor {
            run.sensors().await?;
        } else {
            run.kind(kind).await?;
        }
    }
    Ok(run.synced)
}

struct Run<'a> {
    sink: &'a dyn Sink,
    /// What is to be brought there: everything captured, without node types where the server has none.
    captured: Cow<'a, Catalog>,
    known: Known<'a>,
    options: &'a SyncOptions,
    journal: &'a mut dyn Journal,
    synced: Synced,
}

/// What became of something that concerns a single entity.
enum Done<T> {
    Done(T),
    /// Its own fault; the server is well.
    Faulty(Outcome),
}

/// What an outcome that asks for a human may mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misconfigured {
    /// That nothing goes: the sync ends.
    Everything,
    /// That the server does not have or take this kind of thing at all.
    OfThisKind,
}

impl Run<'_> {
    async fn kind(&mut self, kind: EntityKind) -> Result<(), SyncError> {
        let mut open: BTreeSet<LocalRef> = self.captured.keys().copied().filter(|what| what.kind == kind).collect();
        self.drop_implausible(&open);
        open.retain(|what| self.is_open(*what));
        if open.is_empty() {
            return Ok(());
        }
        let mut central = self.look(kind, &mut open).await?;
        // More than one round only where several entities share an identity: the later ones find what the first one made.
        loop {
            let given = Given { captured: &self.captured, central: &central, mappings: &self.synced.mappings, known: self.known };
            let plan = plan(kind, &open, &given);
            let is_last = plan.create.is_empty() && plan.update.is_empty();
            self.synced.notes.extend(plan.notes);
            for held in plan.held {
                self.hold(&mut open, held.what, held.why);
            }
            let mut behind = BTreeSet::new();
            for (what, entity) in plan.update {
                if self.update(what, &entity).await? {
                    central.retain(|one| one.id != entity.id);
                    central.push(entity);
                } else {
                    behind.insert(what);
                }
            }
            self.remember(&plan.mapped, &behind).await?;
            for (what, _) in plan.mapped {
                open.remove(&what);
            }
            for what in plan.create {
                central.extend(self.create(what, &mut open).await?);
            }
            if is_last || open.is_empty() {
                return Ok(());
            }
        }
    }

    /// Whether there is anything to be done for an entity of a kind whose turn it is.
    fn is_open(&self, what: LocalRef) -> bool {
        let Some(entity) = self.captured.get(&what) else { return false };
        let brought = self.known.brought.get(&what);
        let has_changed = as_brought(what, entity, &self.synced.mappings, brought).is_some_and(|now| brought != Some(&now));
        let waits = matches!(entity, Entity::Node(node) if awaited_type(node, &self.captured, &self.synced.mappings).is_some());
        !self.synced.mappings.contains(what) || has_changed || waits
    }

    /// A mapping stands only as long as what the entity points to is where it was.
    fn drop_implausible(&mut self, of_kind: &BTreeSet<LocalRef>) {
        for what in of_kind.iter().filter(|what| what.kind != EntityKind::Node) {
            let moved = |to: LocalRef| self.synced.mappings.get(to) != self.known.mappings.get(to);
            if self.captured.get(what).is_some_and(|entity| entity.refers().into_iter().any(moved)) {
                self.synced.mappings.remove(*what);
            }
        }
    }

    fn hold(&mut self, open: &mut BTreeSet<LocalRef>, what: LocalRef, why: String) {
        open.remove(&what);
        self.synced.mappings.remove(what);
        self.synced.held.push(Held { what, why });
    }

    /// Creates one entity and maps it; gives it back as we know it, so that others of its identity find it.
    async fn create(&mut self, what: LocalRef, open: &mut BTreeSet<LocalRef>) -> Result<Option<RemoteEntity>, SyncError> {
        let Some(entity) = self.captured.get(&what).filter(|_| open.remove(&what)) else { return Ok(None) };
        let entity = match translated(what, entity, &self.synced.mappings) {
            Ok(entity) => entity,
            Err(held) => {
                self.hold(open, what, held.why);
                return Ok(None);
            }
        };
        if self.options.given_up.contains(&what) {
            let why = format!("no try to create {what} got an answer: look at the server's log for what it does with it");
            self.hold(open, what, why);
            return Ok(None);
        }
        self.journal.about_to_create(what, self.synced.slowest).await?;
        let id = what.kind.has_global_id().then(|| RemoteId::from(what.id));
        let made = self.timed(self.sink.create(id, &entity)).await;
        edge::pass("create:sent");
        let misconfigured = if what.kind == EntityKind::NodeType { Misconfigured::OfThisKind } else { Misconfigured::Everything };
        match made {
            // It may be there by and by: only a new look, after a wait, may lead to another attempt.
            Err(outcome) if outcome.verdict == Verdict::Unknown => {
                Err(SyncError::Sink { outcome, unanswered: Some(what), slowest: self.synced.slowest })
            }
            made => match self.judge(made, misconfigured).await? {
                Done::Faulty(outcome) => {
                    self.hold(open, what, format!("{what} cannot be created: {}", outcome.advice));
                    Ok(None)
                }
                Done::Done(made) => {
                    self.synced.created.push(what);
                    let brought = self.followed(what, &entity);
                    self.settle(&[(what, made.id)], &brought).await?;
                    Ok(Some(RemoteEntity { id: made.id, entity }))
                }
            },
        }
    }

    fn followed(&self, what: LocalRef, as_sent: &Entity<RemoteId>) -> Vec<(LocalRef, Entity<RemoteId>)> {
        let is_followed =
            self.captured.get(&what).is_some_and(|entity| as_brought(what, entity, &self.synced.mappings, None).is_some());
        if is_followed { vec![(what, as_sent.clone())] } else { Vec::new() }
    }

    /// Remembers what was found; of those that are `behind` the content of before, because theirs could not be changed.
    async fn remember(&mut self, mapped: &[(LocalRef, RemoteId)], behind: &BTreeSet<LocalRef>) -> Result<(), SyncError> {
        let (mut news, mut brought) = (Vec::new(), Vec::new());
        for (what, id) in mapped {
            let before = self.known.mappings.get(*what);
            if before != Some(*id) {
                news.push((*what, *id));
            }
            if let Some(before) = before.filter(|before| before != id) {
                self.synced.notes.push(format!("{what} was {before} at the destination and is {id} now"));
            }
            let Some(entity) = self.captured.get(what).filter(|_| !behind.contains(what)) else { continue };
            let known = self.known.brought.get(what);
            let now = as_brought(*what, entity, &self.synced.mappings, known);
            brought.extend(now.filter(|now| known != Some(now)).map(|now| (*what, now)));
        }
        for (what, id) in mapped {
            self.synced.mappings.insert(*what, *id);
        }
        self.settle(&news, &brought).await
    }

    async fn settle(
        &mut self,
        mapped: &[(LocalRef, RemoteId)],
        brought: &[(LocalRef, Entity<RemoteId>)],
    ) -> Result<(), SyncError> {
        if mapped.is_empty() && brought.is_empty() {
            return Ok(());
        }
        self.journal.settled(mapped, brought).await?;
        for (what, id) in mapped {
            self.synced.mappings.insert(*what, *id);
        }
        Ok(())
    }

    /// Whether an update was made. One that is not taken leaves the entity as it is there, mapped: its rows do not suffer.
    async fn update(&mut self, what: LocalRef, entity: &RemoteEntity) -> Result<bool, SyncError> {
        if self.synced.refused.get(&what) == Some(&entity.entity) {
            return Ok(false);
        }
        let answer = self.timed(self.sink.update(entity)).await;
        let outcome = match self.judge(answer, Misconfigured::OfThisKind).await? {
            Done::Done(()) => {
                self.synced.refused.remove(&what);
                self.synced.updated.push(what);
                return Ok(true);
            }
            Done::Faulty(outcome) => outcome,
        };
        self.synced.notes.push(format!("{what} keeps its old content at the destination: {}", outcome.advice));
        // What got no answer is offered again: a repeat changes nothing.
        if outcome.verdict != Verdict::Unknown {
            self.synced.refused.insert(what, entity.entity.clone());
        }
        Ok(false)
    }

    async fn timed<T>(&mut self, call: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = call.await;
        self.synced.slowest = self.synced.slowest.max(began.elapsed());
        answer
    }

    fn failed(&self, outcome: Outcome) -> SyncError {
        SyncError::Sink { outcome, unanswered: None, slowest: self.synced.slowest }
    }

    /// Whether a failure is a single entity's own: a short question right after it shows whether the server is well.
    async fn judge<T>(&mut self, answer: Result<T, Outcome>, misconfigured: Misconfigured) -> Result<Done<T>, SyncError> {
        let outcome = match answer {
            Ok(it) => return Ok(Done::Done(it)),
            Err(outcome) => outcome,
        };
        let may_be_own_fault = match outcome.verdict {
            Verdict::Refused | Verdict::Unknown | Verdict::TooLarge => true,
            Verdict::Misconfigured => misconfigured == Misconfigured::OfThisKind,
            Verdict::NotStored | Verdict::Accepted => false,
        };
        if !may_be_own_fault {
            return Err(self.failed(outcome));
        }
        match self.timed(self.sink.find(&Ask::All(EntityKind::RoomType))).await {
            Ok(_) => Ok(Done::Faulty(outcome)),
            Err(probe) => Err(self.failed(probe)),
        }
    }
}

#[cfg(test)]
mod tests;
