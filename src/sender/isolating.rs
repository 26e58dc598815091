//! Carries a search for refused rows out: what [`isolate`](super::isolate) says is sent, until it is known what is at fault.
//!
//! What was accepted meanwhile is settled with the rest at the end. A crash in between, or trouble of another kind, throws the search away:
//! the intent says that each row may have arrived, so a destination that would keep a repeat twice is asked for each, and the search begins
//! anew with what is absent.
//!
//! The one rule (I8): what cannot be told apart from a server at fault parks nothing.

use std::collections::BTreeSet;

use super::{
    Sender, Standing,
    doubt::{Doubt, Sent},
    isolate::{Isolation, Repeats, Step, Traits},
    prepare::{self, Prepared},
};
use crate::{
    domain::{EntityKind, Freshness, Outcome, Rows, Seq, Trace, Verdict},
    outbox::{Batch, Extent, Reason, Snapshot, StoreError},
};

/// So many records behind a batch are looked through for one that proves the server well, and so many of them are sent.
const BEYOND_ROWS: usize = 500;
const BEYOND_TRIES: usize = 8;
/// So many when the server was at fault the last time.
const BEYOND_TRIES_AGAIN: usize = 2;

/// What came of sending a record from beyond the batch.
enum Beyond {
    /// One was accepted.
    Accepted,
    /// There is none, or none was accepted.
    Nothing,
    /// Trouble of another kind.
    Trouble(Outcome),
}

impl Sender<'_> {
    /// Finds out which rows of a batch the server refuses, parks them, and settles it.
    pub(super) async fn isolate(
        &mut self,
        batch: Batch,
        mut prepared: Prepared,
        failures: usize,
    ) -> Result<Option<Batch>, StoreError> {
        let stream = batch.rows.stream();
        let snapshot = self.outbox.snapshot();
        let sent = prepared.sent.clone();
        // A legacy server does not write what is there already: with its disk full it would accept that.
        let repeats = if self.sink.is_packhorse() { Repeats::Harmless } else { Repeats::Forbidden };
        self.intend(&batch, Extent::Parts).await?;
        let mut search =
            Isolation::new(sent.iter().map(|row| traits(&batch.rows, *row)).collect(), repeats, failures, String::new());
        let (mut requests, mut is_any_accepted) = (0_u32, false);
        let tries = if failures == 0 { BEYOND_TRIES } else { BEYOND_TRIES_AGAIN };
        let mut beyond = self.front(stream).doubt.as_ref().map_or(batch.end(), |doubt| doubt.end.max(batch.end()));
        let ended = loop {
            let places = match search.step() {
                Step::Send(places) => places,
                Step::Beyond => match self.send_beyond(&mut beyond, tries, &batch, &snapshot).await? {
                    Beyond::Accepted => {
                        search.accepted();
                        continue;
                    }
                    Beyond::Nothing => {
                        search.no_control();
                        continue;
                    }
                    Beyond::Trouble(outcome) => break Err(outcome),
                },
                Step::Found(found) => break Ok(found),
                Step::Undecided(why) => break Err(at_fault(&why)),
            };
            let rows: Vec<usize> = {
                let mut rows: Vec<usize> = places.iter().map(|place| sent[*place]).collect();
                rows.sort_unstable();
                rows
            };
            let outcome = self.deliver(&batch, &rows, &snapshot).await.outcome;
            requests += 1;
            match (outcome.verdict, outcome.trace) {
                (Verdict::Accepted, _) => {
                    is_any_accepted = true;
                    search.accepted();
                }
                (Verdict::Refused, _) | (Verdict::Unknown, Trace::Unlikely) => search.refused(&outcome.advice),
                (Verdict::TooLarge, _) => {
                    self.pace.too_large(rows.len());
                    break Err(outcome);
                }
                (Verdict::NotStored | Verdict::Unknown | Verdict::Misconfigured, _) => break Err(outcome),
            }
        };
        match ended {
            Ok(found) => {
                for (places, why) in found {
                    let rows: Vec<usize> = places.iter().map(|place| sent[*place]).collect();
                    tracing::warn!(%stream, rows = rows.len(), requests, why, "refused rows are parked; the others were accepted");
                    prepared.park(&rows, &Reason::Refused(why));
                }
                self.front_mut(stream).standing = Standing::Well;
                self.all_well();
                self.settle(batch, &prepared).await
            }
            Err(outcome) => {
                let patience = self.patience(sent.len());
                let front = self.front_mut(stream);
                if is_any_accepted || outcome.trace != Trace::Nothing {
                    let end = front.doubt.as_ref().map_or(batch.end(), |doubt| doubt.end.max(batch.end()));
                    front.doubt = Some(Doubt { end, sent: Sent::Each });
                    front.ready = tokio::time::Instant::now() + patience;
                }
                front.standing = match outcome.verdict {
                    Verdict::Misconfigured => Standing::ServerDoubted(failures + 1),
                    Verdict::Accepted | Verdict::NotStored | Verdict::Unknown | Verdict::TooLarge | Verdict::Refused => {
                        Standing::RowsDoubted
                    }
                };
                self.wait_out(&outcome).await?;
                self.doubt_mappings(outcome.verdict == Verdict::Misconfigured);
                Ok(None)
            }
        }
    }
}

impl Sender<'_> {
    /// Sends single records from `from` on, of different nodes, until one is accepted. They count as what may have arrived, so that they are
    /// asked for when it is their turn.
    async fn send_beyond(
        &mut self,
        from: &mut Seq,
        tries: usize,
        batch: &Batch,
        snapshot: &Snapshot,
    ) -> Result<Beyond, StoreError> {
        let Some(behind) = self.outbox.lease(batch.rows.stream(), *from, BEYOND_ROWS).await? else { return Ok(Beyond::Nothing) };
        if behind.freshness == Freshness::Repeat {
            return Ok(Beyond::Nothing);
        }
        let rows = &behind.rows;
        let is_whole_second = |row: usize| rows.time(row).is_some_and(|time| time == time.cut_to_second());
        let mut nodes = BTreeSet::new();
        let mut chosen = prepare::prepare(&behind, &snapshot.mappings).sent;
        chosen.retain(|row| is_whole_second(*row) && rows.bucket(*row).is_some_and(|(node, _)| nodes.insert(node)));
        for row in chosen.into_iter().take(tries) {
            let end = behind.first.plus(row as u64 + 1);
            *from = end;
            let before = self.front_mut(rows.stream()).doubt.replace(Doubt { end, sent: Sent::Each });
            self.intend(batch, Extent::Parts).await?;
            let outcome = self.deliver(&behind, &[row], snapshot).await.outcome;
            match (outcome.verdict, outcome.trace) {
                (Verdict::Accepted, _) => return Ok(Beyond::Accepted),
                (Verdict::Refused, _) | (Verdict::Unknown, Trace::Unlikely) => self.front_mut(rows.stream()).doubt = before,
                (Verdict::NotStored | Verdict::Unknown | Verdict::Misconfigured | Verdict::TooLarge, _) => {
                    return Ok(Beyond::Trouble(outcome));
                }
            }
        }
        Ok(Beyond::Nothing)
    }
}

/// What a server may refuse many rows for at once.
fn traits(rows: &Rows, row: usize) -> Traits {
    let mut traits = [None; 3];
    for what in rows.refers(row) {
        match what.kind {
            EntityKind::Location => traits[0] = Some(what.id.0),
            EntityKind::Node => traits[1] = Some(what.id.0),
            EntityKind::SensorType => traits[2] = Some(what.id.0),
            EntityKind::RoomType
            | EntityKind::Room
            | EntityKind::Deployment
            | EntityKind::House
            | EntityKind::NodeType
            | EntityKind::Sensor => {}
        }
    }
    traits
}

fn at_fault(why: &str) -> Outcome {
    let advice = format!(
        "the server refuses single records too and accepts none of the others: nothing is parked; look at its log, its disk and its database ({why})"
    );
    Outcome::new(Verdict::Misconfigured, advice)
}
