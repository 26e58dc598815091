//! Whole houses: a catalog, and a packet of every node at each interval, in bulk up to now or as time goes.

mod catalog;
mod node;
mod sensors;

use std::collections::BTreeMap;

use sqlx::MySqlConnection;

use self::{
    node::{Node, Packet},
    sensors::{Sensor, value},
};
use super::{
    Houses, HousesPace, Report,
    bulk::{Bulk, State},
    now_seconds, seconds,
};
use crate::{domain::Micros, mysql::fault::Trouble};

/// How often a live run looks at the clock.
const TICK: std::time::Duration = std::time::Duration::from_millis(500);

pub(super) async fn make(
    connection: &mut MySqlConnection,
    houses: &Houses,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report, Trouble> {
    let interval = seconds(houses.interval).num_seconds();
    let now = now_seconds(connection).await?;
    let end = houses.until.map_or(now, |until| until.0.div_euclid(1_000_000).min(now));
    let begin = match houses.pace {
        HousesPace::Backlog => {
            let span = (houses.days.clamp(0.0, 36_500.0) * 86_400.0) as i64;
            (end - span).div_euclid(interval) * interval
        }
        HousesPace::Live | HousesPace::Rate(_) => now,
    };
    let nodes = catalog::make(connection, houses, begin, interval).await?;
    let bulk = Bulk::new(connection, progress);
    let writer = Writer { bulk, nodes, sensors: catalog::sensors(houses), seed: houses.seed, under_way: BTreeMap::new() };
    match houses.pace {
        HousesPace::Backlog => writer.backlog(begin, end, interval).await,
        HousesPace::Live => writer.live(now, Due::Interval(interval)).await,
        HousesPace::Rate(rows) => {
            let packets = f64::from(rows) / (catalog::sensors(houses).len() + 1) as f64;
            writer.live(now, Due::Rate { packets_per_second: packets, credit: 0.0, next: 0 }).await
        }
    }
}

struct Writer<'c> {
    bulk: Bulk<'c>,
    nodes: Vec<Node>,
    sensors: &'static [Sensor],
    seed: u64,
    /// Packets that arrive late, by when; with node and moment, so that each is there.
    under_way: BTreeMap<(i64, usize, i64), Packet>,
}

/// Which nodes send at a moment.
enum Due {
    /// Each at its own moment of every interval.
    Interval(i64),
    /// One after another, so many a second.
    Rate { packets_per_second: f64, credit: f64, next: usize },
}

impl Writer<'_> {
    /// In the order of time, so that the server only appends. What is still under way at the end arrives at the end.
    async fn backlog(mut self, begin: i64, end: i64, interval: i64) -> Result<Report, Trouble> {
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|&place| self.nodes[place].phase);
        let mut slot = begin;
        while slot <= end {
            for &place in &order {
                let at = slot + self.nodes[place].phase;
                self.arrive(at).await?;
                if at >= self.nodes[place].begin && at <= end {
                    self.send(place, at).await?;
                }
            }
            slot += interval;
        }
        self.arrive(i64::MAX).await?;
        Ok(self.bulk.finish().await?)
    }

    /// Until the future is dropped; each second is committed.
    async fn live(mut self, mut last: i64, mut due: Due) -> Result<Report, Trouble> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = now_seconds(self.bulk.connection()).await?;
            // A second holds one packet of a node.
            if now <= last {
                continue;
            }
            for (place, at) in due.between(last, now, &self.nodes) {
                self.send(place, at).await?;
            }
            self.arrive(now).await?;
            self.bulk.commit().await?;
            last = now;
        }
    }

    async fn send(&mut self, place: usize, at: i64) -> Result<(), Trouble> {
        let Some(packet) = self.nodes[place].packet(at) else { return Ok(()) };
        if packet.arrives > at {
            self.under_way.insert((packet.arrives, place, at), packet);
            return Ok(());
        }
        self.write(place, &packet).await
    }

    async fn arrive(&mut self, until: i64) -> Result<(), Trouble> {
        while let Some(first) = self.under_way.first_entry().filter(|first| first.key().0 <= until) {
            let ((_, place, _), packet) = first.remove_entry();
            self.write(place, &packet).await?;
        }
        Ok(())
    }

    async fn write(&mut self, place: usize, packet: &Packet) -> Result<(), Trouble> {
        let Node { id, location, room, parent, .. } = self.nodes[place];
        let Packet { at, dated, localtime, seq_num, rssi, .. } = *packet;
        let dated = Micros(dated * 1_000_000);
        for sensor in self.sensors {
            let value = value(sensor.curve, room, id, at, self.seed);
            self.bulk.reading(dated, id, sensor.id, Some(location), value).await?;
        }
        self.bulk
            .state(dated, &State { node: id, parent: Some(parent), localtime, seq_num: Some(seq_num), rssi: Some(rssi) })
            .await?;
        Ok(())
    }
}

impl Due {
    /// The nodes that send after `last` and up to `now`, by their places, with the moment of each.
    fn between(&mut self, last: i64, now: i64, nodes: &[Node]) -> Vec<(usize, i64)> {
        match self {
            Self::Interval(interval) => {
                let at = |node: &Node| (now - node.phase).div_euclid(*interval) * *interval + node.phase;
                let due = |(place, node): (usize, &Node)| (at(node) > last && at(node) >= node.begin).then(|| (place, at(node)));
                nodes.iter().enumerate().filter_map(due).collect()
            }
            Self::Rate { packets_per_second, credit, next } => {
                // What a node could not send in its second is not made up for.
                *credit = (*credit + *packets_per_second * (now - last) as f64).min(nodes.len() as f64);
                let count = credit.floor();
                *credit -= count;
                let first = *next;
                *next = (first + count as usize) % nodes.len().max(1);
                (0..count as usize).map(|step| ((first + step) % nodes.len(), now)).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Flaws, *};

    #[test]
    fn at_a_rate_nodes_take_turns_and_none_sends_twice_in_a_second() {
        let nodes: Vec<Node> = (0..4).map(|id| Node::new(id, 1, 0, 1, 300, 0, Flaws::None)).collect();
        let mut due = Due::Rate { packets_per_second: 1.5, credit: 0.0, next: 0 };
        let places: Vec<Vec<usize>> =
            (1..5).map(|now| due.between(now - 1, now, &nodes).into_iter().map(|(place, _)| place).collect()).collect();
        assert_eq!(places, [vec![0], vec![1, 2], vec![3], vec![0, 1]]);
        assert_eq!(due.between(4, 1_000, &nodes).len(), 4);
    }

    #[test]
    fn at_an_interval_each_node_sends_once_in_it_at_its_moment() {
        let nodes: Vec<Node> = (0..40).map(|id| Node::new(id, 1, 0, 1, 60, 3, Flaws::Real)).collect();
        let mut due = Due::Interval(60);
        let mut sent: Vec<(usize, i64)> = (6_001..=6_060).flat_map(|now| due.between(now - 1, now, &nodes)).collect();
        sent.sort_unstable();
        assert_eq!(sent.iter().map(|(place, _)| *place).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
        assert!(sent.iter().all(|(place, at)| at.rem_euclid(60) == nodes[*place].phase));
    }
}
