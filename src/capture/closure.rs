//! Which catalog entities rows need: those they point to, and whatever those point to in turn. Pure.
//!
//! The one rule: nothing that a row needs is left out because something else already has it.

use std::collections::{BTreeSet, HashSet};

use crate::domain::{Catalog, Entity, EntityKind, LocalId, LocalRef, Micros, Rows};

/// An entity to capture, with its content.
pub(super) type Changed = (LocalRef, Entity<LocalId>);

/// The entities that rows point to themselves.
pub(super) fn roots(rows: &Rows) -> BTreeSet<LocalRef> {
    let mut seen = HashSet::new();
    for row in 0..rows.len() {
        seen.extend(rows.refers(row));
    }
    seen.into_iter().collect()
}

/// What is kept in step at a destination though no row points to it yet: deployments and houses that go on, or ended at or after `since`,
/// their locations, and the nodes there or nowhere. Where there are no deployments, houses by the same rule alone.
pub(super) fn active(source: &Catalog, since: Option<Micros>) -> Vec<LocalRef> {
    let goes_on = |end: Option<Micros>| end.is_none_or(|end| since.is_some_and(|since| end >= since));
    let any_deployment = source.keys().any(|what| what.kind == EntityKind::Deployment);
    let mut active = HashSet::new();
    // In the order of kinds: what an entity points to has been looked at before it.
    for (what, entity) in source {
        let is_active = |kind, id: Option<LocalId>| id.is_some_and(|id| active.contains(&LocalRef { kind, id }));
        let keep = match entity {
            Entity::Deployment(it) => goes_on(it.end),
            Entity::House(it) => goes_on(it.end) && (!any_deployment || is_active(EntityKind::Deployment, it.deployment)),
            Entity::Location(it) => is_active(EntityKind::House, it.house),
            Entity::Node(it) => it.location.is_none() || is_active(EntityKind::Location, it.location),
            Entity::SensorType(_) | Entity::RoomType(_) | Entity::Room(_) | Entity::NodeType(_) | Entity::Sensor(_) => false,
        };
        if keep {
            active.insert(*what);
        }
    }
    let mut active: Vec<_> = active.into_iter().collect();
    active.sort_unstable();
    active
}

/// Of `roots` and all that they need, what `captured` lacks or has with other content. A node needs its sensors too.
pub(super) fn changed(source: &Catalog, captured: &Catalog, roots: impl Iterator<Item = LocalRef>) -> Vec<Changed> {
    let mut open: Vec<LocalRef> = roots.collect();
    let mut needed = BTreeSet::new();
    let mut nodes = HashSet::new();
    while let Some(what) = open.pop() {
        let Some(entity) = source.get(&what) else { continue };
        if needed.insert(what) {
            open.extend(entity.refers());
            if what.kind == EntityKind::Node {
                nodes.insert(what.id);
            }
        }
    }
    for (what, entity) in source.range(LocalRef { kind: EntityKind::Sensor, id: LocalId(i64::MIN) }..) {
        if let Entity::Sensor(sensor) = entity
            && sensor.node.is_some_and(|node| nodes.contains(&node))
        {
            needed.insert(*what);
            needed.extend(entity.refers().into_iter().filter(|what| source.contains_key(what)));
        }
    }
    let differs = |what: &LocalRef| captured.get(what) != source.get(what);
    needed.into_iter().filter(differs).filter_map(|what| source.get(&what).map(|entity| (what, entity.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Deployment, House, Location, Node};

    fn of(kind: EntityKind, id: i64) -> LocalRef {
        LocalRef { kind, id: LocalId(id) }
    }

    fn deployment(end: Option<i64>) -> Entity<LocalId> {
        Entity::Deployment(Deployment { name: None, description: None, start: None, end: end.map(Micros) })
    }

    fn house(deployment: Option<i64>, end: Option<i64>) -> Entity<LocalId> {
        Entity::House(House { deployment: deployment.map(LocalId), address: None, start: None, end: end.map(Micros) })
    }

    fn actives(source: &Catalog, since: Option<i64>, kind: EntityKind) -> Vec<i64> {
        active(source, since.map(Micros)).into_iter().filter(|what| what.kind == kind).map(|what| what.id.0).collect()
    }

    #[test]
    fn houses_that_ended_before_or_whose_deployment_did_are_left_out() {
        let source: Catalog = [
            (of(EntityKind::Deployment, 1), deployment(None)),
            (of(EntityKind::Deployment, 2), deployment(Some(50))),
            (of(EntityKind::House, 1), house(Some(1), None)),
            (of(EntityKind::House, 2), house(Some(1), Some(50))),
            (of(EntityKind::House, 3), house(Some(1), Some(100))),
            (of(EntityKind::House, 4), house(Some(2), None)),
            (of(EntityKind::House, 5), house(None, None)),
        ]
        .into();
        assert_eq!(actives(&source, Some(100), EntityKind::House), [1, 3]);
        assert_eq!(actives(&source, None, EntityKind::House), [1]);
        assert_eq!(actives(&source, Some(40), EntityKind::Deployment), [1, 2]);
    }

    #[test]
    fn without_deployments_houses_count_by_their_own_end() {
        let source: Catalog =
            [(of(EntityKind::House, 1), house(None, None)), (of(EntityKind::House, 2), house(Some(9), Some(5)))].into();
        assert_eq!(actives(&source, Some(6), EntityKind::House), [1]);
        assert_eq!(actives(&source, Some(5), EntityKind::House), [1, 2]);
    }

    #[test]
    fn nodes_of_active_houses_and_nodes_that_are_nowhere_are_kept_in_step() {
        let location = |house| Entity::Location(Location { house: Some(LocalId(house)), room: None });
        let node = |location: Option<i64>| Entity::Node(Node { location: location.map(LocalId), node_type: None });
        let source: Catalog = [
            (of(EntityKind::House, 1), house(None, None)),
            (of(EntityKind::House, 2), house(None, Some(5))),
            (of(EntityKind::Location, 1), location(1)),
            (of(EntityKind::Location, 2), location(2)),
            (of(EntityKind::Node, 1), node(Some(1))),
            (of(EntityKind::Node, 2), node(Some(2))),
            (of(EntityKind::Node, 3), node(None)),
        ]
        .into();
        assert_eq!(actives(&source, Some(6), EntityKind::Node), [1, 3]);
        assert_eq!(actives(&source, Some(6), EntityKind::Location), [1]);
    }
}
