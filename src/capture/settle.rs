//! The settle horizon of tables that are paged by id: an id is taken only once it has been seen for the settle time, so that transactions
//! that were given lower ids and commit a little later are not passed. Pure. (Longer transactions are the audit's matter.)

use std::{collections::VecDeque, time::Duration};

use crate::domain::Micros;

/// Sightings are thinned out beyond this many.
const SIGHTINGS_MAX: usize = 1_000;

/// The highest ids that were seen of one stream, and when.
#[derive(Debug, Default)]
pub(super) struct IdHorizon {
    seen: VecDeque<(Micros, i64)>,
    settled: Option<i64>,
}

impl IdHorizon {
    /// Notes the highest id there is by the database's clock; gives the highest one that has settled.
    pub(super) fn note(&mut self, now: Micros, highest: i64, settle: Duration) -> Option<i64> {
        // A clock that was set back: what was seen before tells nothing.
        if self.seen.back().is_some_and(|(at, _)| *at > now) {
            self.seen.clear();
        }
        if self.seen.back().is_none_or(|(_, id)| *id != highest) && self.seen.len() < SIGHTINGS_MAX {
            self.seen.push_back((now, highest));
        }
        while let Some((at, id)) = self.seen.front()
            && *at <= now.minus(settle)
        {
            self.settled = Some(*id);
            if self.seen.len() == 1 {
                break;
            }
            self.seen.pop_front();
        }
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_micros(10);

    #[test]
    fn an_id_settles_when_it_has_been_seen_for_the_settle_time() {
        let mut horizon = IdHorizon::default();
        assert_eq!(horizon.note(Micros(0), 7, SETTLE), None);
        assert_eq!(horizon.note(Micros(5), 9, SETTLE), None);
        assert_eq!(horizon.note(Micros(10), 12, SETTLE), Some(7));
        assert_eq!(horizon.note(Micros(14), 12, SETTLE), Some(7));
        assert_eq!(horizon.note(Micros(15), 12, SETTLE), Some(9));
        assert_eq!(horizon.note(Micros(100), 12, SETTLE), Some(12));
        assert_eq!(horizon.note(Micros(200), 13, SETTLE), Some(12));
        assert_eq!(horizon.note(Micros(210), 13, SETTLE), Some(13));
    }

    #[test]
    fn without_a_settle_time_every_id_is_taken_at_once() {
        assert_eq!(IdHorizon::default().note(Micros(0), 7, Duration::ZERO), Some(7));
    }

    #[test]
    fn a_clock_set_back_waits_anew_and_keeps_what_had_settled() {
        let mut horizon = IdHorizon::default();
        horizon.note(Micros(1_000), 7, SETTLE);
        assert_eq!(horizon.note(Micros(1_010), 9, SETTLE), Some(7));
        assert_eq!(horizon.note(Micros(500), 9, SETTLE), Some(7));
        assert_eq!(horizon.note(Micros(510), 9, SETTLE), Some(9));
    }
}
