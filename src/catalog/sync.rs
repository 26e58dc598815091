//! Carrying the plan out, kind by kind, through the [`Sink`] port.
//!
//! The one rule: an entity's own fault holds that entity alone, and only when a probe right after it shows that the server is well; anything
//! else ends the sync with its outcome, and the next sync looks first. Every await may be the last: whoever wants to stop drops the future.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    Held,
    plan::{plan, translated},
};
use crate::{
    domain::{Catalog, Entity, EntityKind, LocalId, LocalRef, Mappings, Node, Outcome, RemoteId, Verdict},
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
    /// be doing before the next sync, and pass the intent to it.
    async fn about_to_create(&mut self, what: LocalRef) -> Result<(), JournalError>;

    /// On return these mappings are on disk, and the intents of these entities are settled.
    async fn mapped(&mut self, pairs: &[(LocalRef, RemoteId)]) -> Result<(), JournalError>;
}

/// How much is looked up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recheck {
    /// What is not mapped yet, and nodes, whose location may have changed.
    Unmapped,
    /// Everything captured: at start, after an outage, and now and then. A centre that was rebuilt must not put rows into another room.
    All,
}

/// How to sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncOptions {
    /// How much is looked up again.
    pub recheck: Recheck,
    /// Entities that an earlier sync was about to create and that were not mapped since. A node among them that is found now counts as created
    /// by us, so that its sensors follow.
    pub intents: BTreeSet<LocalRef>,
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
    known: &Mappings,
    options: &SyncOptions,
    journal: &mut dyn Journal,
) -> Result<Synced, SyncError> {
    let mut run = Run { sink, captured, known, options, journal, synced: Synced::default() };
    if options.recheck == Recheck::Unmapped {
        run.synced.mappings = known.clone();
    } else {
        // What is mapped and not captured now cannot be looked at; no row that is still to be sent needs it.
        run.synced.mappings = known.iter().filter(|(what, _)| !captured.contains_key(what)).collect();
    }
    for kind in EntityKind::ALL {
        run.kind(kind).await?;
    }
    Ok(run.synced)
}

struct Run<'a> {
    sink: &'a dyn Sink,
    captured: &'a Catalog,
    known: &'a Mappings,
    options: &'a SyncOptions,
    journal: &'a mut dyn Journal,
    synced: Synced,
}

/// Whether the house that a node is in has an end.
fn has_ended(node: &Node<LocalId>, captured: &Catalog) -> bool {
    let at = |kind, id: Option<LocalId>| captured.get(&LocalRef { kind, id: id? });
    let Some(Entity::Location(location)) = at(EntityKind::Location, node.location) else { return false };
    matches!(at(EntityKind::House, location.house), Some(Entity::House(house)) if house.end.is_some())
}

/// What became of something that concerns a single entity.
enum Done<T> {
    Done(T),
    /// Its own fault; the server is well.
    Faulty(Outcome),
}

impl Run<'_> {
    async fn kind(&mut self, kind: EntityKind) -> Result<(), SyncError> {
        if kind == EntityKind::Sensor {
            return Ok(());
        }
        let mut open: Catalog =
            self.captured.iter().filter(|(what, _)| what.kind == kind).map(|(what, entity)| (*what, entity.clone())).collect();
        self.drop_implausible(&open);
        if kind != EntityKind::Node {
            open.retain(|what, _| self.synced.mappings.get(*what).is_none());
        }
        if open.is_empty() {
            return Ok(());
        }
        let mut central = self.look(kind, &mut open).await?;
        if kind == EntityKind::Node {
            self.leave_where_they_are(&mut open, &central);
        }
        // More than one round only where several entities share an identity: the later ones find what the first one made.
        loop {
            let plan = plan(kind, &open, &central, &self.synced.mappings, self.known);
            self.synced.notes.extend(plan.notes);
            self.remember(kind, &plan.mapped).await?;
            for (what, entity) in plan.update {
                self.update(what, &entity).await?;
            }
            for (what, _) in plan.mapped {
                open.remove(&what);
            }
            for held in plan.held {
                self.hold(&mut open, held.what, held.why);
            }
            if plan.create.is_empty() {
                return Ok(());
            }
            for what in plan.create {
                if let Some(made) = self.create(what, &mut open).await? {
                    central.push(made);
                }
            }
        }
    }

    /// A node of a house that is over here may be another gateway's by now: where the destination has it is left alone.
    fn leave_where_they_are(&self, nodes: &mut Catalog, central: &[RemoteEntity]) {
        for there in central {
            let what = LocalRef { kind: EntityKind::Node, id: LocalId(there.id.0) };
            let has_place = matches!(&there.entity, Entity::Node(node) if node.location.is_some());
            if let Some(Entity::Node(node)) = nodes.get_mut(&what)
                && has_place
                && has_ended(node, self.captured)
            {
                node.location = None;
            }
        }
    }

    /// A mapping stands only as long as what the entity points to is where it was.
    fn drop_implausible(&mut self, of_kind: &Catalog) {
        for (what, entity) in of_kind {
            let moved = |to: LocalRef| self.synced.mappings.get(to) != self.known.get(to);
            if what.kind != EntityKind::Node && entity.refers().into_iter().any(moved) {
                self.synced.mappings.remove(*what);
            }
        }
    }

    fn hold(&mut self, open: &mut Catalog, what: LocalRef, why: String) {
        open.remove(&what);
        self.synced.mappings.remove(what);
        self.synced.held.push(Held { what, why });
    }

    /// What is there of a kind. Entities that cannot even be asked for are held.
    async fn look(&mut self, kind: EntityKind, open: &mut Catalog) -> Result<Vec<RemoteEntity>, SyncError> {
        if !matches!(kind, EntityKind::House | EntityKind::Location) {
            // A server need not take node types: nodes can stand without. Any other list that fails is nobody's own fault.
            let ask = Ask::All(kind);
            if kind != EntityKind::NodeType {
                let found = self.timed(self.sink.find(&ask)).await;
                return found.map_err(|outcome| self.failed(outcome));
            }
            return match self.ask(&ask, true).await? {
                Done::Done(found) => Ok(found),
                Done::Faulty(outcome) => {
                    for what in open.keys().copied().collect::<Vec<_>>() {
                        self.hold(open, what, format!("{kind} cannot be listed: {}", outcome.advice));
                    }
                    Ok(Vec::new())
                }
            };
        }
        let mut found: Vec<RemoteEntity> = Vec::new();
        let mut asked: BTreeSet<String> = BTreeSet::new();
        for (what, entity) in open.clone() {
            let Ok(entity) = translated(what, &entity, &self.synced.mappings) else { continue };
            let ask = match entity {
                Entity::House(house) => Ask::House { deployment: house.deployment, address: house.address },
                Entity::Location(location) => Ask::Location { house: location.house, room: location.room },
                Entity::SensorType(_)
                | Entity::RoomType(_)
                | Entity::Room(_)
                | Entity::Deployment(_)
                | Entity::NodeType(_)
                | Entity::Node(_)
                | Entity::Sensor(_) => continue,
            };
            if !asked.insert(format!("{ask:?}")) {
                continue;
            }
            match self.ask(&ask, false).await? {
                Done::Done(some) => found.extend(some),
                Done::Faulty(outcome) => self.hold(open, what, format!("{what} cannot be looked up: {}", outcome.advice)),
            }
        }
        found.sort_by_key(|entity| entity.id);
        found.dedup_by_key(|entity| entity.id);
        Ok(found)
    }

    /// Asks, and asks once more when the server is well and yet did not answer: only what fails twice is the question's own fault.
    async fn ask(&mut self, ask: &Ask, is_optional: bool) -> Result<Done<Vec<RemoteEntity>>, SyncError> {
        let first = self.timed(self.sink.find(ask)).await;
        match self.judge(first, is_optional).await? {
            Done::Done(found) => Ok(Done::Done(found)),
            Done::Faulty(_) => {
                let second = self.timed(self.sink.find(ask)).await;
                self.judge(second, is_optional).await
            }
        }
    }

    /// Creates one entity and maps it; gives it back as we know it, so that others of its identity find it.
    async fn create(&mut self, what: LocalRef, open: &mut Catalog) -> Result<Option<RemoteEntity>, SyncError> {
        let Some(entity) = open.remove(&what) else { return Ok(None) };
        let entity = match translated(what, &entity, &self.synced.mappings) {
            Ok(entity) => entity,
            Err(held) => {
                self.hold(open, what, held.why);
                return Ok(None);
            }
        };
        self.journal.about_to_create(what).await?;
        let id = what.kind.has_global_id().then(|| RemoteId::from(what.id));
        let made = self.timed(self.sink.create(id, &entity)).await;
        edge::pass("create:sent");
        // After an unknown outcome it may be there by and by: only a new look, after a wait, may lead to another attempt.
        let may_probe = what.kind == EntityKind::NodeType;
        match made {
            Err(outcome) if outcome.verdict == Verdict::Unknown => Err(self.failed(outcome)),
            made => match self.judge(made, may_probe).await? {
                Done::Faulty(outcome) => {
                    self.hold(open, what, format!("{what} cannot be created: {}", outcome.advice));
                    Ok(None)
                }
                Done::Done(made) => {
                    self.synced.created.push(what);
                    if what.kind == EntityKind::Node {
                        self.sensors(what).await?;
                    }
                    self.map(&[(what, made.id)]).await?;
                    Ok(Some(RemoteEntity { id: made.id, entity }))
                }
            },
        }
    }

    /// Nodes that an earlier sync made without getting to their sensors are new all the same.
    async fn remember(&mut self, kind: EntityKind, mapped: &[(LocalRef, RemoteId)]) -> Result<(), SyncError> {
        if kind == EntityKind::Node {
            for (what, _) in mapped.iter().filter(|(what, _)| self.options.intents.contains(what)) {
                self.sensors(*what).await?;
            }
        }
        let news: Vec<_> = mapped.iter().copied().filter(|(what, id)| self.known.get(*what) != Some(*id)).collect();
        for (what, id) in mapped {
            self.synced.mappings.insert(*what, *id);
        }
        if news.is_empty() { Ok(()) } else { self.map(&news).await }
    }

    async fn map(&mut self, pairs: &[(LocalRef, RemoteId)]) -> Result<(), SyncError> {
        self.journal.mapped(pairs).await?;
        for (what, id) in pairs {
            self.synced.mappings.insert(*what, *id);
        }
        Ok(())
    }

    /// An update that is refused leaves the entity as it is there, mapped: its rows do not suffer.
    async fn update(&mut self, what: LocalRef, entity: &RemoteEntity) -> Result<(), SyncError> {
        let answer = self.timed(self.sink.update(entity)).await;
        match self.judge(answer, false).await? {
            Done::Done(()) => self.synced.updated.push(what),
            Done::Faulty(outcome) => self.synced.notes.push(format!("{what} keeps its old content there: {}", outcome.advice)),
        }
        Ok(())
    }

    /// The sensors of a new node. They have no identity that could be asked for, so after an unknown outcome they are not sent again.
    async fn sensors(&mut self, node: LocalRef) -> Result<(), SyncError> {
        let mut sensors = Vec::new();
        for (what, entity) in self.captured.iter().filter(|(what, _)| what.kind == EntityKind::Sensor) {
            let mut of_node = false;
            let translated = entity.translate(|kind, id| {
                let to = LocalRef { kind, id };
                of_node |= to == node;
                if to == node { Ok(RemoteId::from(id)) } else { self.synced.mappings.get(to).ok_or(to) }
            });
            match translated {
                Ok(sensor) if of_node => sensors.push(sensor),
                Err(to) if of_node || is_sensor_of(entity, node) => {
                    self.synced.notes.push(format!("{what} of new {node} is left out: {to} is not mapped"));
                }
                Ok(_) | Err(_) => {}
            }
        }
        if sensors.is_empty() {
            return Ok(());
        }
        let answer = self.timed(self.sink.put_sensors(&sensors)).await;
        if let Err(outcome) = &answer
            && outcome.verdict == Verdict::Unknown
        {
            self.synced.notes.push(format!("whether the sensors of new {node} arrived is unknown: {}", outcome.advice));
            return Ok(());
        }
        if let Done::Faulty(outcome) = self.judge(answer, false).await? {
            self.synced.notes.push(format!("the sensors of new {node} are refused: {}", outcome.advice));
        }
        Ok(())
    }

    async fn timed<T>(&mut self, call: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let answer = call.await;
        self.synced.slowest = self.synced.slowest.max(began.elapsed());
        answer
    }

    fn failed(&self, outcome: Outcome) -> SyncError {
        SyncError::Sink { outcome, slowest: self.synced.slowest }
    }

    /// Whether a failure is the entity's own. `is_optional` kinds may also be unknown to the server altogether.
    async fn judge<T>(&mut self, answer: Result<T, Outcome>, is_optional: bool) -> Result<Done<T>, SyncError> {
        let outcome = match answer {
            Ok(it) => return Ok(Done::Done(it)),
            Err(outcome) => outcome,
        };
        let may_be_own_fault = match outcome.verdict {
            Verdict::Refused | Verdict::Unknown | Verdict::TooLarge => true,
            Verdict::Misconfigured => is_optional,
            Verdict::NotStored | Verdict::Accepted => false,
        };
        if !may_be_own_fault {
            return Err(self.failed(outcome));
        }
        match self.timed(self.sink.find(&Ask::All(EntityKind::SensorType))).await {
            Ok(_) => Ok(Done::Faulty(outcome)),
            Err(probe) => Err(self.failed(probe)),
        }
    }
}

fn is_sensor_of(entity: &Entity<LocalId>, node: LocalRef) -> bool {
    entity.refers().contains(&node)
}

#[cfg(test)]
mod tests;
