//! A node and its packets, with all that befalls them in the field. Pure.
//!
//! The one rule: the same seed and the same moments give the same packets.

use super::super::Flaws;
use super::sensors::{dice, fraction};

const DAY: i64 = 86_400;

/// A node, where it stands, and how it fares.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub id: u32,
    pub location: i64,
    /// Its place among the rooms.
    pub room: usize,
    /// The node that its packets go through, 1 for the base station.
    pub parent: u32,
    /// The first moment that is not there yet.
    pub begin: i64,
    /// Seconds after a full interval at which it sends.
    pub phase: i64,
    /// Its clock is behind by so many seconds.
    pub behind: i64,
    seed: u64,
    flaws: Flaws,
    interval: i64,
    booted: i64,
    seq_num: i64,
    /// So many packets are going to be dated 1970, because its clock is not set.
    unset: u8,
}

/// One packet: a reading of each sensor, and a node state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// When it was measured.
    pub at: i64,
    /// The time that it carries.
    pub dated: i64,
    /// When it reaches the gateway; later than `at` when it waited on the way.
    pub arrives: i64,
    pub localtime: i64,
    pub seq_num: i64,
    pub rssi: i64,
}

/// What is thrown for.
#[derive(Clone, Copy)]
enum Throw {
    Phase = 101,
    Clock,
    Losing,
    Lost,
    Late,
    LateBy,
    Silent,
    SilentFrom,
    Restart,
    Unset,
    Rssi,
}

impl Node {
    pub(super) fn new(id: u32, location: i64, room: usize, parent: u32, interval: i64, seed: u64, flaws: Flaws) -> Self {
        let mut node = Self {
            id,
            location,
            room,
            parent,
            begin: 0,
            phase: 0,
            behind: 0,
            seed,
            flaws,
            interval,
            booted: 0,
            seq_num: 0,
            unset: 0,
        };
        if flaws == Flaws::Real {
            node.phase = node.whole(Throw::Phase, 0, interval);
            // One in nine has a clock that was never set right.
            if node.whole(Throw::Clock, 0, 9) == 0 {
                node.behind = 120 + node.whole(Throw::Clock, 1, 600);
            }
        }
        node
    }

    /// It begins to send at a moment.
    pub(super) fn begins(&mut self, at: i64) {
        (self.begin, self.booted) = (at, at);
    }

    /// What it sends at a moment; nothing when that gets lost.
    pub(super) fn packet(&mut self, at: i64) -> Option<Packet> {
        if self.flaws == Flaws::Real {
            let a_day = self.interval as f32 / DAY as f32;
            if self.throw(Throw::Restart, at) < 0.05 * a_day {
                (self.booted, self.seq_num) = (at, 0);
                self.unset = if self.throw(Throw::Unset, at) < 0.3 { 2 } else { 0 };
            }
        }
        let seq_num = self.seq_num;
        self.seq_num = (self.seq_num + 1) % 256;
        let far = i64::from(self.id % 7) * 4;
        let rssi = -52 - far - self.whole(Throw::Rssi, at, 6);
        let packet = Packet { at, dated: at - self.behind, arrives: at, localtime: (at - self.booted) * 1_000, seq_num, rssi };
        match self.flaws {
            Flaws::None => Some(packet),
            Flaws::Real => self.flawed(packet),
        }
    }

    fn flawed(&mut self, mut packet: Packet) -> Option<Packet> {
        let at = packet.at;
        if self.unset > 0 {
            self.unset -= 1;
            // A moment of its own, so that it is not taken for another packet.
            packet.dated = 1 + self.whole(Throw::Unset, at, DAY - 1);
        }
        let losing = if self.whole(Throw::Losing, 0, 8) == 0 { 0.2 } else { 0.01 + 0.05 * self.throw(Throw::Losing, 1) };
        if self.is_silent(at) || self.throw(Throw::Lost, at) < losing {
            return None;
        }
        if self.throw(Throw::Late, at) < 0.02 {
            packet.arrives = at + 60 + self.whole(Throw::LateBy, at, 3_600);
        }
        Some(packet)
    }

    /// On one day in fifty it is not heard for some hours.
    fn is_silent(&self, at: i64) -> bool {
        let (day, second) = (at.div_euclid(DAY), at.rem_euclid(DAY));
        let from = self.whole(Throw::SilentFrom, day, 16 * 3_600);
        let hours = 1 + self.whole(Throw::SilentFrom, -day, 8);
        self.throw(Throw::Silent, day) < 0.02 && (from..from + hours * 3_600).contains(&second)
    }

    fn throw(&self, what: Throw, at: i64) -> f32 {
        fraction(dice(self.seed, [i64::from(self.id), at, what as i64]))
    }

    fn whole(&self, what: Throw, at: i64, below: i64) -> i64 {
        (dice(self.seed, [i64::from(self.id), at, what as i64]) >> 1) as i64 % below.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: i64 = 1_700_000_100;

    fn nodes(seed: u64, flaws: Flaws) -> Vec<Node> {
        (1_000..1_040)
            .map(|id| {
                let mut node = Node::new(id, 1, 0, 1, 300, seed, flaws);
                node.begins(BEGIN);
                node
            })
            .collect()
    }

    /// Sixty days of forty nodes.
    fn packets(seed: u64, flaws: Flaws) -> Vec<(u32, Option<Packet>)> {
        nodes(seed, flaws)
            .into_iter()
            .flat_map(|mut node| (0..60 * 288).map(|step| (node.id, node.packet(BEGIN + step * 300))).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn without_flaws_every_packet_comes_in_time_and_in_turn() {
        for (index, (_, packet)) in packets(1, Flaws::None).into_iter().enumerate() {
            let packet = packet.unwrap();
            let step = index as i64 % (60 * 288);
            assert_eq!((packet.dated, packet.arrives, packet.seq_num), (packet.at, packet.at, step % 256));
            assert_eq!(packet.localtime, step * 300_000);
        }
    }

    #[test]
    fn with_flaws_each_of_them_befalls_some_packets_and_most_are_well() {
        let all = packets(1, Flaws::Real);
        let count =
            |what: &dyn Fn(&Packet) -> bool| all.iter().filter_map(|(_, packet)| packet.as_ref()).filter(|it| what(it)).count();
        let share = |count: usize| count as f32 / all.len() as f32;
        let lost = all.iter().filter(|(_, packet)| packet.is_none()).count();
        assert!((0.02..0.15).contains(&share(lost)), "lost {}", share(lost));
        assert!((0.01..0.03).contains(&share(count(&|it| it.arrives > it.at))), "late");
        assert!((0.02..0.3).contains(&share(count(&|it| it.dated < it.at && it.dated > DAY))), "clocks behind");
        assert!((5..2_000).contains(&count(&|it| it.dated <= DAY)), "1970");
        let restarted = count(&|it| it.localtime == 0);
        assert!((60..400).contains(&restarted), "{restarted} restarts in 2,400 days");
        assert!(all.iter().filter_map(|(_, it)| it.as_ref()).all(|it| it.dated <= it.at && it.arrives >= it.at));
    }

    #[test]
    fn the_same_seed_gives_the_same_packets_and_another_seed_others() {
        assert_eq!(packets(3, Flaws::Real), packets(3, Flaws::Real));
        assert_ne!(packets(3, Flaws::Real), packets(4, Flaws::Real));
    }
}
