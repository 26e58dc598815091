//! What must be done so that the captured entities of one kind exist at the destination. Pure.
//!
//! The one rule: an entity is never mapped to one with another identity; where that cannot be had, it is held with a reason. An entity that
//! points to one that is not mapped waits for it, except where it can stand without: a node is made without its location rather than not at
//! all, because its node states need nothing but the node; it gets it by an update once it is mapped. For its type it waits: what its rows
//! mean hangs on it.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::{
    follow::merged,
    identity::{Identity, conflict, is_mangled, name},
};
use crate::{
    domain::{Brought, Catalog, Entity, EntityKind, House, LocalId, LocalRef, Mappings, Node, RemoteId, Room},
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

/// What earlier syncs left. A mapping says no more than which of several it was, and, together with what was brought under it, which one
/// was renamed here.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The central ids.
    pub mappings: &'a Mappings,
    /// What was last brought to the destination under them.
    pub brought: &'a Brought,
}

impl<'a> Known<'a> {
    /// What was last brought under an id; nothing when it is not the one that was mapped.
    fn brought_as(&self, what: LocalRef, id: RemoteId) -> Option<&'a Entity<RemoteId>> {
        self.mappings.get(what).filter(|known| *known == id).and_then(|_| self.brought.get(&what))
    }
}

/// What a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Everything captured.
    pub captured: &'a Catalog,
    /// What is there of the kind.
    pub central: &'a [RemoteEntity],
    /// What is mapped of the kinds before.
    pub mappings: &'a Mappings,
    /// What earlier syncs left.
    pub known: Known<'a>,
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

/// Plans the open entities of one kind, after all kinds before it. Sensors have a plan of their own.
pub fn plan(kind: EntityKind, open: &BTreeSet<LocalRef>, given: &Given<'_>) -> Plan {
    let there = There::new(kind, given);
    let mut plan = Plan::default();
    let mut wanted = Wanted::default();
    for (what, entity) in open.iter().filter_map(|what| Some((*what, given.captured.get(what)?))) {
        match entity {
            Entity::SensorType(_) | Entity::NodeType(_) => plan.global(what, entity, &there),
            Entity::Node(node) => plan.node(what, node, given, &there),
            Entity::RoomType(_) | Entity::Room(_) | Entity::Deployment(_) | Entity::House(_) | Entity::Location(_) => {
                plan.by_content(what, entity, given, &there, &mut wanted);
            }
            Entity::Sensor(_) => {}
        }
    }
    // A room of that name is about to be there.
    plan.held.retain(|held| !wanted.rooms.get(&held.what).is_some_and(|identity| wanted.new.contains(identity)));
    plan
}

/// What will be there when this plan has been carried out.
#[derive(Default)]
struct Wanted {
    new: HashSet<Identity>,
    /// Central entities that are given another identity.
    renamed: HashSet<RemoteId>,
    /// Rooms that wait for their type, with what they would be found by.
    rooms: HashMap<LocalRef, Identity>,
}

/// The central entities, ready to be looked up.
struct There<'a> {
    by_id: HashMap<RemoteId, &'a RemoteEntity>,
    by_content: HashMap<Identity, Vec<&'a RemoteEntity>>,
    /// The identities that entities of this kind have here now, and how many have each.
    here: HashMap<Identity, usize>,
}

impl<'a> There<'a> {
    fn new(kind: EntityKind, given: &Given<'a>) -> Self {
        let mut by_content: HashMap<Identity, Vec<&RemoteEntity>> = HashMap::new();
        for entity in given.central {
            if let Some(identity) = Identity::of(&entity.entity) {
                by_content.entry(identity).or_default().push(entity);
            }
        }
        let by_id = given.central.iter().map(|entity| (entity.id, entity)).collect();
        let of_kind = given.captured.iter().filter(|(what, _)| what.kind == kind);
        let identities = of_kind.filter_map(|(what, entity)| Identity::of(&translated(*what, entity, given.mappings).ok()?));
        let mut here: HashMap<Identity, usize> = HashMap::new();
        for identity in identities {
            *here.entry(identity).or_default() += 1;
        }
        Self { by_id, by_content, here }
    }
}

impl There<'_> {
    /// Whether a new name is one that the central entity can be given: nothing else here has it, or has taken over the old one as it was
    /// brought or as it is there.
    fn is_renamed(&self, before: &Entity<RemoteId>, there: &Entity<RemoteId>, now: &Identity) -> bool {
        let having = |identity: &Identity| self.here.get(identity).copied().unwrap_or(0);
        having(now) <= 1 && [before, there].into_iter().filter_map(Identity::of).all(|old| having(&old) == 0)
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

pub(super) fn translated_node(node: &Node<LocalId>, mappings: &Mappings) -> Node<RemoteId> {
    let get = |kind, id: Option<LocalId>| mappings.get(LocalRef { kind, id: id? });
    Node { location: get(EntityKind::Location, node.location), node_type: get(EntityKind::NodeType, node.node_type) }
}

/// The type that a node waits for: one that is known here and not mapped, because it means something else there or cannot be made.
pub(super) fn awaited_type(node: &Node<LocalId>, captured: &Catalog, mappings: &Mappings) -> Option<LocalRef> {
    let node_type = LocalRef { kind: EntityKind::NodeType, id: node.node_type? };
    (captured.contains_key(&node_type) && !mappings.contains(node_type)).then_some(node_type)
}

/// Whether the house that a node is in has an end: it may be another gateway's by now.
fn has_ended(node: &Node<LocalId>, captured: &Catalog) -> bool {
    let at = |kind, id: Option<LocalId>| captured.get(&LocalRef { kind, id: id? });
    let Some(Entity::Location(location)) = at(EntityKind::Location, node.location) else { return false };
    matches!(at(EntityKind::House, location.house), Some(Entity::House(house)) if house.end.is_some())
}

/// Whether a central entity still is the one that was brought there.
fn is_still(before: &Entity<RemoteId>, there: &Entity<RemoteId>) -> bool {
    Identity::of(before) == Identity::of(there) || is_mangled(before, there)
}

/// Whether what was brought points to the same as then. In a centre that was rebuilt an id of before may be another deployment's, and a house
/// of that address in it another house.
fn stands(before: &Entity<RemoteId>, given: &Given<'_>) -> bool {
    let Entity::House(House { deployment: Some(id), .. }) = before else { return true };
    let is_it = |(what, known): (LocalRef, RemoteId)| {
        what.kind == EntityKind::Deployment && known == *id && given.mappings.get(what) == Some(known)
    };
    given.known.mappings.iter().any(is_it)
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

    fn node(&mut self, what: LocalRef, node: &Node<LocalId>, given: &Given<'_>, there: &There<'_>) {
        if let Some(node_type) = awaited_type(node, given.captured, given.mappings) {
            self.held.push(Held { what, why: format!("{what} waits for its type, {node_type}") });
            return;
        }
        let id = RemoteId::from(what.id);
        let Some(found) = there.by_id.get(&id) else {
            self.create.push(what);
            return;
        };
        self.mapped.push((what, id));
        let Entity::Node(central) = &found.entity else { return };
        let ours = translated_node(node, given.mappings);
        let moved_here = match given.known.brought_as(what, id) {
            Some(Entity::Node(before)) => ours.location != before.location,
            Some(_) | None => true,
        };
        let stays = central.location.is_some() && has_ended(node, given.captured);
        let location = if moved_here && !stays { ours.location.or(central.location) } else { central.location };
        // The whole object is replaced, so what we do not know stays as it is there; a type that is set there is never changed.
        let next = Node { location, node_type: central.node_type.or(ours.node_type) };
        if next != *central {
            self.update.push((what, RemoteEntity { id, entity: Entity::Node(next) }));
        }
    }

    fn by_content(
        &mut self,
        what: LocalRef,
        entity: &Entity<LocalId>,
        given: &Given<'_>,
        there: &There<'_>,
        wanted: &mut Wanted,
    ) {
        let translated = translated(what, entity, given.mappings);
        // A room is known by its name alone, so it can be found although its type is not mapped.
        let sought = match (&translated, entity) {
            (Ok(entity), _) => entity.clone(),
            (Err(_), Entity::Room(room)) if room.name.is_some() => {
                Entity::Room(Room { room_type: None, name: room.name.clone() })
            }
            (Err(held), _) => {
                self.held.push(held.clone());
                return;
            }
        };
        let Some(identity) = Identity::of(&sought) else { return };
        let known = given.known.mappings.get(what);
        if let Some(found) = there.by_content.get(&identity).and_then(|found| self.choose(what, &sought, found, known)) {
            self.mapped.push((what, found.id));
            if let Some(before) = given.known.brought_as(what, found.id) {
                self.follow(what, before, &sought, found);
            }
            return;
        }
        if let Some(found) = known.and_then(|id| there.by_id.get(&id)) {
            // It was made under this id, by a server whose character set lacks some of its letters: made anew it would not be found either.
            if is_mangled(&sought, &found.entity) {
                self.mapped.push((what, found.id));
                return;
            }
            match given.known.brought_as(what, found.id) {
                // Renamed here, and still there under the name of before. Where two of ours stood for it and both were renamed, it is the
                // first one's: the other's rows must not go into it under that name.
                Some(before)
                    if is_still(before, &found.entity)
                        && stands(before, given)
                        && there.is_renamed(before, &found.entity, &identity)
                        && !wanted.renamed.contains(&found.id) =>
                {
                    wanted.renamed.insert(found.id);
                    wanted.new.insert(identity);
                    self.mapped.push((what, found.id));
                    self.follow(what, before, &sought, found);
                    return;
                }
                Some(before) if !is_still(before, &found.entity) => self.notes.push(format!(
                    "{what} was {} at the destination, which is {:?} now and not what was brought there: it is looked for by its content",
                    found.id,
                    name(&found.entity).unwrap_or_default()
                )),
                Some(_) | None => {}
            }
        }
        match translated {
            Err(held) => {
                wanted.rooms.insert(what, identity);
                self.held.push(held);
            }
            Ok(_) => {
                if wanted.new.insert(identity) {
                    self.create.push(what);
                }
            }
        }
    }

    fn follow(&mut self, what: LocalRef, before: &Entity<RemoteId>, now: &Entity<RemoteId>, there: &RemoteEntity) {
        // Two of ours may stand for one central entity: the second adds to what the first changes.
        let as_planned = self.update.iter().rev().find(|(_, update)| update.id == there.id).map(|(_, update)| &update.entity);
        let as_planned = as_planned.unwrap_or(&there.entity);
        let next = merged(before, now, as_planned);
        if next != *as_planned {
            self.update.push((what, RemoteEntity { id: there.id, entity: next }));
        }
    }

    /// Among several of one identity: the one that rows went to before, then one written exactly alike, then the oldest.
    fn choose<'t>(
        &mut self,
        what: LocalRef,
        sought: &Entity<RemoteId>,
        found: &[&'t RemoteEntity],
        known: Option<RemoteId>,
    ) -> Option<&'t RemoteEntity> {
        let chosen = found.iter().min_by_key(|one| (Some(one.id) != known, name(&one.entity) != name(sought), one.id))?;
        if found.len() > 1 {
            let ids: Vec<String> = found.iter().map(|one| one.id.to_string()).collect();
            self.notes.push(format!("{what} is there {} times (ids {}): {} is used", found.len(), ids.join(", "), chosen.id));
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests;
