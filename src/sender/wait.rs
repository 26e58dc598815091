//! Waiting out trouble with the destination.
//!
//! Where nobody answers the way there is gone, and a long backoff would waste the beginning of a link that is back. Then it is *probed*: a
//! question that costs some 300 bytes, or one packet while there is no link, every half minute or so. Where somebody answers and says no, the
//! backoff alone counts: a server at fault is not to be asked more often.
//!
//! The one rule: every wait is drawn by chance, so that gateways that lost their server at the same moment do not come back at the same
//! moment (docs/decisions/0015).

use std::time::Duration;

use tokio::time::Instant;

use super::{Sender, scaled};
use crate::{
    domain::{Heard, Outcome, Trace, Verdict},
    outbox::StoreError,
};

/// Between two probes there is no more time than twice that, and as much on average.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);
/// After an outage that lasted longer the work begins again after a wait that is drawn too: up to a thirtieth of the outage.
const LONG_OUTAGE: Duration = Duration::from_mins(5);
const START_SHARE: u32 = 30;
const START_MAX: Duration = Duration::from_secs(15);

/// How a wait passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// In silence.
    Silent(Duration),
    /// In silence for so long, then until a probe finds somebody.
    Probing(Duration),
}

/// How to wait after an outcome. `backoff` was drawn by chance; the server was last as slow as `slowest`.
fn wait(outcome: &Outcome, backoff: Duration, backoff_max: Duration, slowest: Duration) -> Wait {
    let least = match outcome.verdict {
        Verdict::Misconfigured => backoff_max / 10,
        // The server may still be busy with what it may have read.
        _ if outcome.trace != Trace::Nothing => slowest * 3,
        Verdict::Accepted | Verdict::NotStored | Verdict::Unknown | Verdict::TooLarge | Verdict::Refused => Duration::ZERO,
    };
    if outcome.heard == Heard::Nothing && backoff > scaled(PROBE_INTERVAL) {
        return Wait::Probing(least);
    }
    Wait::Silent(backoff.max(least).max(outcome.retry_after.unwrap_or_default()))
}

/// The longest wait before the work begins again after an outage.
fn start_within(outage: Duration) -> Duration {
    if outage < scaled(LONG_OUTAGE) { Duration::ZERO } else { (outage / START_SHARE).min(scaled(START_MAX)) }
}

impl Sender<'_> {
    /// Tells the trouble when it is news, and waits, or until somebody wants a try now.
    pub(super) async fn wait_out(&mut self, outcome: &Outcome) -> Result<(), StoreError> {
        let wait = wait(outcome, self.retry.next_wait(), self.options.backoff_max, self.slowest);
        let next_try = match wait {
            Wait::Silent(wait) => wait,
            Wait::Probing(first) => first + scaled(PROBE_INTERVAL),
        };
        let text = outcome.to_string();
        if self.trouble.as_ref().is_none_or(|(told, _)| *told != text) {
            match outcome.verdict {
                Verdict::Misconfigured | Verdict::Refused => {
                    tracing::error!(outcome = text, next_try_seconds = next_try.as_secs(), "delivery waits");
                }
                Verdict::Accepted | Verdict::NotStored | Verdict::Unknown | Verdict::TooLarge => {
                    tracing::warn!(outcome = text, next_try_seconds = next_try.as_secs(), "delivery waits");
                }
            }
            self.outbox.note_trouble((self.options.clock)(), text.clone()).await?;
            let since = self.trouble.take().map_or_else(Instant::now, |(_, since)| since);
            self.trouble = Some((text, since));
        }
        match wait {
            Wait::Silent(wait) => self.rest(outcome, wait).await,
            Wait::Probing(first) => self.probe(outcome, first).await,
        }
        Ok(())
    }

    async fn rest(&self, outcome: &Outcome, wait: Duration) {
        self.options.helm.wait(outcome, (self.options.clock)(), wait).await;
    }

    /// Asks whether somebody is there until somebody is, or an operator pauses it; `first` must pass before.
    async fn probe(&mut self, outcome: &Outcome, first: Duration) {
        let mut before = first;
        loop {
            let wait = before + self.retry.within(scaled(PROBE_INTERVAL) * 2);
            self.rest(outcome, wait).await;
            if self.options.helm.is_paused() {
                // Nothing goes out, nor is anybody asked. What comes after the pause is the next try.
                return;
            }
            before = Duration::ZERO;
            match self.sink.reach().await {
                Ok(()) => {
                    self.options.helm.heard(Heard::Answer);
                    break;
                }
                Err(outcome) => tracing::debug!(%outcome, "nobody answers yet"),
            }
        }
        let outage = self.trouble.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let within = start_within(outage);
        tracing::debug!(outage_seconds = outage.as_secs(), begins_within_seconds = within.as_secs(), "somebody answers");
        if !within.is_zero() {
            let wait = self.retry.within(within);
            self.rest(outcome, wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::domain::Retry;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn only_where_nobody_answers_it_is_probed() {
        let away = Outcome::new(Verdict::NotStored, "nobody listens").of_silence();
        let busy = Outcome { retry_after: Some(S(90)), ..Outcome::new(Verdict::NotStored, "later") }.leaving(Trace::Possible);
        let unknown = Outcome::new(Verdict::Unknown, "status 502");
        let silent = Outcome::new(Verdict::Unknown, "no answer").of_silence();
        let wrong = Outcome::new(Verdict::Misconfigured, "a page");
        let refused = Outcome::new(Verdict::Refused, "a row");
        for (outcome, backoff, slowest, expected) in [
            (&away, 1, 9, Wait::Silent(S(1))),
            (&away, 30, 0, Wait::Silent(S(30))),
            (&away, 31, 0, Wait::Probing(S(0))),
            (&silent, 20, 8, Wait::Silent(S(24))),
            (&silent, 31, 8, Wait::Probing(S(24))),
            (&busy, 200, 2, Wait::Silent(S(200))),
            (&busy, 31, 2, Wait::Silent(S(90))),
            (&unknown, 1, 2, Wait::Silent(S(6))),
            (&unknown, 100, 2, Wait::Silent(S(100))),
            (&wrong, 1, 0, Wait::Silent(S(30))),
            (&wrong, 250, 0, Wait::Silent(S(250))),
            (&refused, 250, 0, Wait::Silent(S(250))),
        ] {
            assert_eq!(wait(outcome, S(backoff), S(300), S(slowest)), expected, "{outcome} {backoff}");
        }
    }

    #[test]
    fn after_a_long_outage_the_start_is_spread() {
        for (outage, within) in [(0, 0), (299, 0), (300, 10), (450, 15), (86_400, 15)] {
            assert_eq!(start_within(S(outage)), S(within), "{outage}");
        }
    }

    /// When the gateways' requests arrive at a server that was away for so long, seconds after its return; by the decisions of this file and of
    /// [`Retry`] alone.
    fn requests_after(outage: f64, gateways: u64) -> Vec<f64> {
        let away = Outcome::new(Verdict::NotStored, "nobody listens").of_silence();
        let mut requests = Vec::new();
        for gateway in 0..gateways {
            let mut random = StdRng::seed_from_u64(gateway);
            // Each sends every ten seconds, and so notices.
            let mut now = -outage + random.random_range(0.0..10.0_f64.min(outage));
            let mut retry = Retry::new(S(1), S(300), Box::new(move || random.random()));
            let noticed = now;
            while now < 0.0 {
                match wait(&away, retry.next_wait(), S(300), Duration::ZERO) {
                    Wait::Silent(wait) => now += wait.as_secs_f64(),
                    Wait::Probing(_) => {
                        while now < 0.0 {
                            now += retry.within(PROBE_INTERVAL * 2).as_secs_f64();
                        }
                        requests.push(now);
                        let within = start_within(Duration::from_secs_f64(now - noticed));
                        now += retry.within(within).as_secs_f64();
                    }
                }
            }
            // After a minute of trouble the catalog is looked at: twelve questions, one after the other.
            let questions = if now - noticed >= 60.0 { 12 } else { 0 };
            requests.extend((0..=questions).map(|place| now + 0.1 * f64::from(place)));
        }
        requests
    }

    #[test]
    fn three_hundred_gateways_do_not_run_down_a_server_that_comes_back() {
        const GATEWAYS: u64 = 300;
        for outage in [2.0, 10.0, 30.0, 59.0, 120.0, 300.0, 3_600.0, 28_800.0] {
            let requests = requests_after(outage, GATEWAYS);
            let mut seconds = BTreeMap::<i64, usize>::new();
            for at in &requests {
                *seconds.entry(*at as i64).or_default() += 1;
            }
            let peak = seconds.values().max().copied().unwrap_or_default();
            let last = seconds.keys().max().copied().unwrap_or_default();
            println!("{outage} s away: {} requests, at most {peak} in a second, the last after {last} s", requests.len());
            // All at once they would be 300 in the first second, or 3,900 where the catalog is looked at.
            assert!(peak <= 250, "{outage} s away: {peak} in a second");
            assert!(last <= 100, "{outage} s away: the last one after {last} s");
        }
    }
}
