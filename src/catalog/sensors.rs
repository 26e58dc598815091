//! What must be done so that the sensors of one node are there with their calibration. Pure.
//!
//! The one rule: a sensor is known by its node and type; where one is there, another is never added.

use std::collections::HashMap;

use super::follow::merged;
use crate::{
    domain::{Brought, Entity, LocalRef, RemoteId},
    ports::RemoteEntity,
};

/// What to do for the sensors of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SensorPlan {
    /// These are there, and nothing changed here that is not there too.
    pub(super) same: Vec<LocalRef>,
    /// These are there, and take what changed here.
    pub(super) update: Vec<(LocalRef, RemoteEntity)>,
    /// These are not there.
    pub(super) add: Vec<LocalRef>,
}

/// Plans the sensors of one node, of different types, against those that the destination has of it. Of several of a type the oldest counts.
pub(super) fn plan_sensors(ours: &[(LocalRef, Entity<RemoteId>)], there: &[RemoteEntity], brought: &Brought) -> SensorPlan {
    let mut by_type: HashMap<Option<RemoteId>, &RemoteEntity> = HashMap::new();
    for one in there {
        let oldest = by_type.entry(sensor_type(&one.entity)).or_insert(one);
        if one.id < oldest.id {
            *oldest = one;
        }
    }
    let mut plan = SensorPlan::default();
    for (what, ours) in ours {
        match (by_type.get(&sensor_type(ours)), brought.get(what)) {
            (None, _) => plan.add.push(*what),
            // What it was before it is known here was put there by somebody else.
            (Some(_), None) => plan.same.push(*what),
            (Some(there), Some(before)) => {
                let next = merged(before, ours, &there.entity);
                if next == there.entity {
                    plan.same.push(*what);
                } else {
                    plan.update.push((*what, RemoteEntity { id: there.id, entity: next }));
                }
            }
        }
    }
    plan
}

fn sensor_type(entity: &Entity<RemoteId>) -> Option<RemoteId> {
    match entity {
        Entity::Sensor(sensor) => sensor.sensor_type,
        Entity::SensorType(_)
        | Entity::RoomType(_)
        | Entity::Room(_)
        | Entity::Deployment(_)
        | Entity::House(_)
        | Entity::Location(_)
        | Entity::NodeType(_)
        | Entity::Node(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EntityKind, LocalId, Sensor};

    fn sensor(sensor_type: i64, slope: f32) -> Entity<RemoteId> {
        Entity::Sensor(Sensor {
            sensor_type: Some(RemoteId(sensor_type)),
            node: Some(RemoteId(9)),
            calibration_slope: Some(slope),
            calibration_offset: None,
        })
    }

    fn local(id: i64) -> LocalRef {
        LocalRef { kind: EntityKind::Sensor, id: LocalId(id) }
    }

    #[test]
    fn what_lacks_is_added_what_changed_here_is_updated_and_what_differs_there_stays() {
        let ours =
            [(local(1), sensor(0, 1.5)), (local(2), sensor(2, 2.0)), (local(3), sensor(6, 3.0)), (local(4), sensor(8, 4.0))];
        let there = [(70, sensor(0, 1.0)), (72, sensor(2, 9.0)), (76, sensor(6, 9.0)), (69, sensor(0, 1.0))]
            .map(|(id, entity)| RemoteEntity { id: RemoteId(id), entity });
        // The first was brought with another slope, the second as it is, the third never.
        let brought = Brought::from([(local(1), sensor(0, 1.0)), (local(2), sensor(2, 2.0))]);
        let plan = plan_sensors(&ours, &there, &brought);
        assert_eq!(plan.add, [local(4)]);
        assert_eq!(plan.update, [(local(1), RemoteEntity { id: RemoteId(69), entity: sensor(0, 1.5) })]);
        assert_eq!(plan.same, [local(2), local(3)]);
    }
}
