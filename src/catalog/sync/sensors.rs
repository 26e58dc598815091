//! The sensors of nodes, with their calibration. No row points to a sensor, so whatever befalls them holds nothing.
//!
//! The one rule: a sensor has no identity but its node and type, and the calls that store it store a repeat as one more; so what the server
//! has of a node is looked at before anything is sent, except when the node was made a moment ago.

use std::collections::BTreeMap;

use super::{Done, Misconfigured, Run, SyncError};
use crate::{
    catalog::{
        plan::translated,
        sensors::{SensorPlan, plan_sensors},
    },
    domain::{Entity, EntityKind, LocalRef, Outcome, RemoteId, Verdict},
    ports::Ask,
};

/// Sensors in one request, at most.
const SENSORS_MAX: usize = 500;

/// Sensors with the destination's ids.
type Sensors = Vec<(LocalRef, Entity<RemoteId>)>;

impl Run<'_> {
    /// Brings sensors that are new or whose calibration has changed here.
    pub(super) async fn sensors(&mut self) -> Result<(), SyncError> {
        let mut add = Sensors::new();
        let mut is_listed = true;
        for (node, sensors) in self.open_sensors() {
            let is_new = self.synced.created.contains(&node);
            if !is_new && !is_listed {
                continue;
            }
            let there = if is_new {
                Vec::new()
            } else {
                match self.ask(&Ask::Sensors { node: RemoteId::from(node.id) }, Misconfigured::OfThisKind).await? {
                    Done::Done(mut there) => {
                        let node = Some(RemoteId::from(node.id));
                        there.retain(|one| matches!(&one.entity, Entity::Sensor(sensor) if sensor.node == node));
                        there
                    }
                    Done::Faulty(outcome) => {
                        let why = &outcome.advice;
                        self.synced.notes.push(format!("sensors of nodes that are there already are not brought: {why}"));
                        is_listed = false;
                        continue;
                    }
                }
            };
            let SensorPlan { same, update, add: new } = plan_sensors(&sensors, &there, self.known.brought);
            let mut done = same;
            for (what, entity) in update {
                if self.update(what, &entity).await? {
                    done.push(what);
                }
            }
            self.settle(&[], &sensors.iter().filter(|(what, _)| done.contains(what)).cloned().collect::<Sensors>()).await?;
            add.extend(sensors.into_iter().filter(|(what, _)| new.contains(what)));
        }
        for some in add.chunks(SENSORS_MAX) {
            self.add_sensors(some).await?;
        }
        Ok(())
    }

    /// Sensors of mapped nodes, by node, of those where anything is to be done; of several of one node and type the last one counts.
    fn open_sensors(&self) -> BTreeMap<LocalRef, Sensors> {
        let mut by_key = BTreeMap::<(LocalRef, Option<RemoteId>), (LocalRef, Entity<RemoteId>)>::new();
        for (what, entity) in self.captured.iter().filter(|(what, _)| what.kind == EntityKind::Sensor) {
            let Entity::Sensor(sensor) = entity else { continue };
            let Ok(Entity::Sensor(ours)) = translated(*what, entity, &self.synced.mappings) else { continue };
            let Some(node) = sensor.node.map(|id| LocalRef { kind: EntityKind::Node, id }) else { continue };
            by_key.insert((node, ours.sensor_type), (*what, Entity::Sensor(ours)));
        }
        let mut sensors = BTreeMap::<LocalRef, Sensors>::new();
        for ((node, _), (what, ours)) in by_key {
            let is_known = self.known.brought.get(&what) == Some(&ours) && !self.synced.created.contains(&node);
            if !is_known && self.synced.refused.get(&what) != Some(&ours) {
                sensors.entry(node).or_default().push((what, ours));
            }
        }
        sensors
    }

    /// Stores sensors that are not there. Where some are refused together, each is tried alone.
    async fn add_sensors(&mut self, sensors: &[(LocalRef, Entity<RemoteId>)]) -> Result<(), SyncError> {
        let Some(outcome) = self.put(sensors).await? else { return self.settle(&[], sensors).await };
        for one in sensors.chunks(1) {
            let alone = if outcome.verdict == Verdict::Unknown || sensors.len() == 1 {
                Some(outcome.clone())
            } else {
                self.put(one).await?
            };
            match alone {
                None => self.settle(&[], one).await?,
                Some(outcome) => {
                    let what = one[0].0;
                    self.synced.notes.push(format!("{what} is not taken: {}", outcome.advice));
                    // After no answer too: a repeat could make a second one.
                    self.synced.refused.insert(what, one[0].1.clone());
                }
            }
        }
        Ok(())
    }

    /// Sends sensors; `None` when they were taken.
    async fn put(&mut self, sensors: &[(LocalRef, Entity<RemoteId>)]) -> Result<Option<Outcome>, SyncError> {
        let entities: Vec<_> = sensors.iter().map(|(_, sensor)| sensor.clone()).collect();
        let answer = self.timed(self.sink.put_sensors(&entities)).await;
        Ok(match self.judge(answer, Misconfigured::OfThisKind).await? {
            Done::Done(()) => None,
            Done::Faulty(outcome) => Some(outcome),
        })
    }
}
