//! What is there of a kind.
//!
//! The one rule: what could not be looked up counts as unknown, never as absent.

use std::collections::{BTreeSet, HashMap};

use super::{Done, Misconfigured, Run, SyncError, translated};
use crate::{
    domain::{Entity, EntityKind, LocalRef, Outcome, RemoteId, Verdict},
    ports::{Ask, RemoteEntity},
};

impl Run<'_> {
    /// What is there of a kind. Entities that cannot even be asked for are held.
    pub(super) async fn look(&mut self, kind: EntityKind, open: &mut BTreeSet<LocalRef>) -> Result<Vec<RemoteEntity>, SyncError> {
        match kind {
            EntityKind::House | EntityKind::Location => self.look_for_each(open).await,
            EntityKind::NodeType => self.look_for_node_types(open).await,
            // A list that fails is nobody's own fault.
            EntityKind::SensorType
            | EntityKind::RoomType
            | EntityKind::Room
            | EntityKind::Deployment
            | EntityKind::Node
            | EntityKind::Sensor => {
                let found = self.timed(self.sink.find(&Ask::All(kind))).await;
                found.map_err(|outcome| self.failed(outcome))
            }
        }
    }

    /// A server need not have node types: where the list itself does not exist, nothing can be misunderstood, and nodes are made without.
    async fn look_for_node_types(&mut self, open: &mut BTreeSet<LocalRef>) -> Result<Vec<RemoteEntity>, SyncError> {
        let outcome = match self.ask(&Ask::All(EntityKind::NodeType), Misconfigured::OfThisKind).await? {
            Done::Done(found) => return Ok(found),
            Done::Faulty(outcome) => outcome,
        };
        let were_there = self.known.mappings.iter().any(|(what, _)| what.kind == EntityKind::NodeType);
        if were_there && outcome.verdict != Verdict::Misconfigured {
            return Err(self.failed(outcome));
        }
        self.synced.notes.push(format!("the destination has no node types, so nodes are made without: {}", outcome.advice));
        open.clear();
        let captured = self.captured.to_mut();
        captured.retain(|what, _| what.kind != EntityKind::NodeType);
        for entity in captured.values_mut() {
            if let Entity::Node(node) = entity {
                node.node_type = None;
            }
        }
        Ok(Vec::new())
    }

    /// Houses by their address and locations by their house: each question once.
    async fn look_for_each(&mut self, open: &mut BTreeSet<LocalRef>) -> Result<Vec<RemoteEntity>, SyncError> {
        let mut found: Vec<RemoteEntity> = Vec::new();
        let mut asked: HashMap<String, Option<Outcome>> = HashMap::new();
        for what in open.clone() {
            for ask in self.questions(what) {
                let key = format!("{ask:?}");
                if !asked.contains_key(&key) {
                    let fault = match self.ask(&ask, Misconfigured::Everything).await? {
                        Done::Done(some) => {
                            found.extend(some);
                            None
                        }
                        Done::Faulty(outcome) => Some(outcome),
                    };
                    asked.insert(key.clone(), fault);
                }
                if let Some(Some(outcome)) = asked.get(&key) {
                    let why = format!("{what} cannot be looked up: {}", outcome.advice);
                    self.hold(open, what, why);
                    break;
                }
            }
        }
        found.sort_by_key(|entity| entity.id);
        found.dedup_by_key(|entity| entity.id);
        Ok(found)
    }

    /// What to ask for an entity: a house that was renamed here may still be there under its name of before.
    fn questions(&self, what: LocalRef) -> Vec<Ask> {
        let now = self.captured.get(&what).and_then(|entity| translated(what, entity, &self.synced.mappings).ok());
        let Some(now) = now else { return Vec::new() };
        let before = self.known.brought.get(&what).filter(|_| self.known.mappings.contains(what));
        let mut asks: Vec<Ask> = Vec::new();
        for entity in std::iter::once(&now).chain(before) {
            let ask = question(entity);
            asks.extend(ask.filter(|ask| !asks.contains(ask)));
        }
        asks
    }

    /// Asks, and asks once more when the server is well and yet did not answer: only what fails twice is the question's own fault.
    pub(super) async fn ask(&mut self, ask: &Ask, misconfigured: Misconfigured) -> Result<Done<Vec<RemoteEntity>>, SyncError> {
        let first = self.timed(self.sink.find(ask)).await;
        match self.judge(first, misconfigured).await? {
            Done::Done(found) => Ok(Done::Done(found)),
            Done::Faulty(_) => {
                let second = self.timed(self.sink.find(ask)).await;
                self.judge(second, misconfigured).await
            }
        }
    }
}

fn question(entity: &Entity<RemoteId>) -> Option<Ask> {
    match entity {
        Entity::House(house) => Some(Ask::House { deployment: house.deployment, address: house.address.clone() }),
        // All of a house at once: a house has few, and each question costs more than they do.
        Entity::Location(location) => {
            let room = if location.house.is_some() { None } else { location.room };
            Some(Ask::Location { house: location.house, room })
        }
        Entity::SensorType(_)
        | Entity::RoomType(_)
        | Entity::Room(_)
        | Entity::Deployment(_)
        | Entity::NodeType(_)
        | Entity::Node(_)
        | Entity::Sensor(_) => None,
    }
}
