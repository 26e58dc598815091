//! What has changed here since an entity was last brought to the destination. Pure.
//!
//! The one rule: only what changed here is carried over. Whatever else differs at the destination was put there by somebody, perhaps by
//! another gateway of the same deployment, and stays.

use super::plan::{translated, translated_node};
use crate::domain::{Deployment, Entity, House, LocalId, LocalRef, Mappings, Node, RemoteId, Sensor};

/// What is remembered of an entity when it is in step; `None` for kinds whose content is not followed, and while it waits for another.
///
/// A node whose location or type is not mapped for now is remembered with the one that it had `before`: that it waits is no change.
pub(super) fn as_brought(
    what: LocalRef,
    entity: &Entity<LocalId>,
    mappings: &Mappings,
    before: Option<&Entity<RemoteId>>,
) -> Option<Entity<RemoteId>> {
    match entity {
        Entity::Deployment(_) | Entity::House(_) | Entity::Sensor(_) => translated(what, entity, mappings).ok(),
        Entity::Node(node) => {
            let ours = translated_node(node, mappings);
            let before = match before {
                Some(Entity::Node(before)) => before.clone(),
                Some(_) | None => Node { location: None, node_type: None },
            };
            let (location, node_type) = (ours.location.or(before.location), ours.node_type.or(before.node_type));
            Some(Entity::Node(Node { location, node_type }))
        }
        Entity::SensorType(_) | Entity::RoomType(_) | Entity::Room(_) | Entity::Location(_) | Entity::NodeType(_) => None,
    }
}

/// The central entity with what changed here between `before` and now; everything else is as it is `there`.
pub(super) fn merged(before: &Entity<RemoteId>, now: &Entity<RemoteId>, there: &Entity<RemoteId>) -> Entity<RemoteId> {
    match (before, now, there) {
        // Without a name everything else is the identity.
        (_, Entity::Deployment(Deployment { name: None, .. }) | Entity::House(House { address: None, .. }), _) => now.clone(),
        (Entity::Deployment(before), Entity::Deployment(now), Entity::Deployment(there)) => Entity::Deployment(Deployment {
            name: newer(&before.name, &now.name, &there.name),
            description: newer(&before.description, &now.description, &there.description),
            start: newer(&before.start, &now.start, &there.start),
            end: newer(&before.end, &now.end, &there.end),
        }),
        (Entity::House(before), Entity::House(now), Entity::House(there)) => Entity::House(House {
            deployment: newer(&before.deployment, &now.deployment, &there.deployment),
            address: newer(&before.address, &now.address, &there.address),
            start: newer(&before.start, &now.start, &there.start),
            end: newer(&before.end, &now.end, &there.end),
        }),
        (Entity::Sensor(before), Entity::Sensor(now), Entity::Sensor(there)) => Entity::Sensor(Sensor {
            calibration_slope: newer(&before.calibration_slope, &now.calibration_slope, &there.calibration_slope),
            calibration_offset: newer(&before.calibration_offset, &now.calibration_offset, &there.calibration_offset),
            ..there.clone()
        }),
        // Nodes have rules of their own, nothing else is followed, and two kinds are never compared.
        (
            Entity::SensorType(_)
            | Entity::RoomType(_)
            | Entity::Room(_)
            | Entity::Deployment(_)
            | Entity::House(_)
            | Entity::Location(_)
            | Entity::NodeType(_)
            | Entity::Node(_)
            | Entity::Sensor(_),
            _,
            there,
        ) => there.clone(),
    }
}

fn newer<T: Clone + PartialEq>(before: &T, now: &T, there: &T) -> T {
    if now == before { there.clone() } else { now.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Micros;

    fn deployment(name: &str, description: Option<&str>, end: Option<i64>) -> Entity<RemoteId> {
        let (name, description) = (Some(name.to_owned()), description.map(str::to_owned));
        Entity::Deployment(Deployment { name, description, start: Some(Micros(1)), end: end.map(Micros) })
    }

    #[test]
    fn what_changed_here_is_carried_over_and_what_changed_there_stays() {
        let before = deployment("pilot", Some("first"), None);
        let now = deployment("pilot", Some("first"), Some(9));
        let there = deployment("Pilot", Some("theirs"), None);
        assert_eq!(merged(&before, &now, &there), deployment("Pilot", Some("theirs"), Some(9)));
        assert_eq!(merged(&before, &before, &there), there);
        assert_eq!(merged(&now, &before, &now), deployment("pilot", Some("first"), None), "an end that was taken back");
    }

    #[test]
    fn where_both_sides_changed_one_thing_this_side_wins() {
        let there = deployment("pilot", Some("theirs"), None);
        let now = deployment("pilot", Some("ours"), None);
        assert_eq!(merged(&deployment("pilot", None, None), &now, &there), now);
    }
}
