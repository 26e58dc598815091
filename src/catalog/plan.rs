//! What must be done so that the captured entities of one kind exist at the destination. Pure.
//!
//! The one rule: an entity is never mapped to one with another identity; where that cannot be had, it is held with a reason. An entity that
//! points to one that is not mapped waits for it, except where it can stand without: a node is made without its location or type rather than
//! not at all, because its node states need nothing but the node; it gets them by an update once they are mapped.

use std::collections::HashMap;

use super::identity::{Identity, conflict, is_mangled, name};
use crate::{
    domain::{Catalog, Entity, EntityKind, LocalId, LocalRef, Mappings, Node, RemoteId},
    ports::RemoteEntity,
};

/// An entity that is not mapped for now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The entity.
    pub what: LocalRef,
    /// Why, and what to do about it, as a lower-case fragment.
    pub why: String,
}

/// What to do for the entities of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// These exist; nothing is to be done but to remember it.
    pub mapped: Vec<(LocalRef, RemoteId)>,
    /// These do not exist. Of several with one identity only the first is named: the others are found when it is there.
    pub create: Vec<LocalRef>,
    /// These exist with another content than ours and get this one; they are in `mapped` too.
    pub update: Vec<(LocalRef, RemoteEntity)>,
    /// These cannot be mapped now.
    pub held: Vec<Held>,
    /// What a person might want to know.
    pub notes: Vec<String>,
}

/// Plans one kind, after all kinds before it: `mappings` holds what is mapped of those, `known` what this kind was mapped to before, which
/// says no more than which of several with one identity it was.
pub fn plan(kind: EntityKind, captured: &Catalog, central: &[RemoteEntity], mappings: &Mappings, known: &Mappings) -> Plan {
    let there = There::new(central, known);
    let mut plan = Plan::default();
    let mut wanted: HashMap<Identity, LocalRef> = HashMap::new();
    for (what, entity) in captured.iter().filter(|(what, _)| what.kind == kind) {
        match entity {
            Entity::SensorType(_) | Entity::NodeType(_) => plan.global(*what, entity, &there),
            Entity::Node(node) => plan.node(*what, node, &there, mappings),
            Entity::RoomType(_) | Entity::Room(_) | Entity::Deployment(_) | Entity::House(_) | Entity::Location(_) => {
                plan.by_content(*what, entity, &there, mappings, &mut wanted);
            }
            // Sensors have no identity that the destination could be asked for: they travel with their new node.
            Entity::Sensor(_) => {}
        }
    }
    plan
}

/// The central entities, ready to be looked up.
struct There<'a> {
    known: &'a Mappings,
    by_id: HashMap<RemoteId, &'a RemoteEntity>,
    by_content: HashMap<Identity, Vec<&'a RemoteEntity>>,
}

impl<'a> There<'a> {
    fn new(central: &'a [RemoteEntity], known: &'a Mappings) -> Self {
        let mut by_content: HashMap<Identity, Vec<&RemoteEntity>> = HashMap::new();
        for entity in central {
            if let Some(identity) = Identity::of(&entity.entity) {
                by_content.entry(identity).or_default().push(entity);
            }
        }
        Self { known, by_id: central.iter().map(|entity| (entity.id, entity)).collect(), by_content }
    }
}

/// An entity with the destination's references, or why it must wait.
pub(super) fn translated(what: LocalRef, entity: &Entity<LocalId>, mappings: &Mappings) -> Result<Entity<RemoteId>, Held> {
    if let Entity::Node(node) = entity {
        return Ok(Entity::Node(translated_node(node, mappings)));
    }
    entity.translate(|kind, id| {
        let to = LocalRef { kind, id };
        mappings.get(to).ok_or_else(|| Held { what, why: format!("{what} waits for {to}") })
    })
}

fn translated_node(node: &Node<LocalId>, mappings: &Mappings) -> Node<RemoteId> {
    let get = |kind, id: Option<LocalId>| mappings.get(LocalRef { kind, id: id? });
    Node { location: get(EntityKind::Location, node.location), node_type: get(EntityKind::NodeType, node.node_type) }
}

impl Plan {
    /// Sensor types and node types: the id says which, and name, code and units must agree.
    fn global(&mut self, what: LocalRef, entity: &Entity<LocalId>, there: &There<'_>) {
        let id = RemoteId::from(what.id);
        match there.by_id.get(&id) {
            None => self.create.push(what),
            Some(found) => match conflict(entity, &found.entity) {
                None => self.mapped.push((what, id)),
                Some(difference) => self.held.push(Held {
                    what,
                    why: format!("{what} means something else at the destination ({difference}): make them equal on one side"),
                }),
            },
        }
    }

    fn node(&mut self, what: LocalRef, node: &Node<LocalId>, there: &There<'_>, mappings: &Mappings) {
        let id = RemoteId::from(what.id);
        let Some(found) = there.by_id.get(&id) else {
            self.create.push(what);
            return;
        };
        self.mapped.push((what, id));
        let Entity::Node(central) = &found.entity else { return };
        let ours = translated_node(node, mappings);
        // The whole object is replaced, so what we do not know stays as it is there; a type that is set there is never changed.
        let next = Node { location: ours.location.or(central.location), node_type: central.node_type.or(ours.node_type) };
        if next != *central {
            self.update.push((what, RemoteEntity { id, entity: Entity::Node(next) }));
        }
    }

    fn by_content(
        &mut self,
        what: LocalRef,
        entity: &Entity<LocalId>,
        there: &There<'_>,
        mappings: &Mappings,
        wanted: &mut HashMap<Identity, LocalRef>,
    ) {
        let translated = translated(what, entity, mappings);
        // A room is known by its name alone, so it can be found although its type is not mapped.
        let sought = match (&translated, entity) {
            (Ok(entity), _) => entity.clone(),
            (Err(_), Entity::Room(room)) if room.name.is_some() => {
                Entity::Room(crate::domain::Room { room_type: None, name: room.name.clone() })
            }
            (Err(held), _) => {
                self.held.push(held.clone());
                return;
            }
        };
        let Some(identity) = Identity::of(&sought) else { return };
        if let Some(found) =
            there.by_content.get(&identity).and_then(|found| self.choose(what, &sought, found, there.known.get(what)))
        {
            self.mapped.push((what, found));
            return;
        }
        if let Some(id) = there.known.get(what)
            && there.by_id.get(&id).is_some_and(|there| is_mangled(&sought, &there.entity))
        {
            // It was made under this id, by a server whose character set lacks some of its letters: made anew it would not be found either.
            self.mapped.push((what, id));
            return;
        }
        match translated {
            Err(held) => self.held.push(held),
            Ok(_) if wanted.contains_key(&identity) => {}
            Ok(_) => {
                wanted.insert(identity, what);
                self.create.push(what);
            }
        }
    }

    /// Among several of one identity: the one that rows went to before, then one written exactly alike, then the oldest.
    fn choose(
        &mut self,
        what: LocalRef,
        sought: &Entity<RemoteId>,
        found: &[&RemoteEntity],
        known: Option<RemoteId>,
    ) -> Option<RemoteId> {
        let chosen = found.iter().min_by_key(|one| (Some(one.id) != known, name(&one.entity) != name(sought), one.id))?.id;
        if found.len() > 1 {
            let ids: Vec<String> = found.iter().map(|one| one.id.to_string()).collect();
            self.notes.push(format!("{what} is there {} times (ids {}): {chosen} is used", found.len(), ids.join(", ")));
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests;
