//! Carries a search for refused rows out: what [`isolate`](super::isolate) says is sent, until it is known what is at fault.
//!
//! What was accepted meanwhile is settled with the rest at the end. A crash in between, or trouble of another kind, throws the search away:
//! the intent says that each row may have arrived, so a destination that would keep a repeat twice is asked for each, and the search begins
//! anew with what is absent.
//!
//! The one rule (I8): what cannot be told apart from a server at fault parks nothing.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Sender, Standing,
    doubt::{Doubt, Sent},
    isolate::{self, Found, Isolation, Repeats, Step, Traits},
    prepare::{self, Prepared},
};
use crate::{
    domain::{EntityKind, Freshness, Outcome, Rows, Seq, Trace, Verdict},
    outbox::{Batch, Extent, Reason, Snapshot, StoreError},
    ports::Delivered,
};

/// So many records behind a batch are looked through for one that proves the server well, and so many of them are sent.
const BEYOND_ROWS: usize = 500;
const BEYOND_TRIES: usize = 8;
/// So many when the server was at fault the last time.
const BEYOND_TRIES_AGAIN: usize = 2;

/// Why a search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The rows were refused together.
    Refused,
    /// So many searches before ended undecided.
    Again(usize),
    /// Rows like some of them were at fault before.
    Suspecting,
}

/// So many groups that were at fault are remembered (I7).
const CONVICTS_MAX: usize = 1_000;

/// What came of sending a record from beyond the batch.
enum Beyond {
    /// One was accepted.
    Accepted,
    /// There is none, or none was accepted.
    Nothing,
    /// Trouble of another kind.
    Trouble(Delivered),
}

impl Sender<'_> {
    /// Whether rows of a batch belong to what was at fault before.
    pub(super) fn suspects(&self, batch: &Batch, prepared: &Prepared) -> bool {
        let convicts = &self.front(batch.rows.stream()).convicts;
        !convicts.is_empty() && prepared.sent.iter().any(|row| isolate::convict(&traits(&batch.rows, *row), convicts).is_some())
    }

    /// Finds out which rows of a batch the server refuses, parks them, and settles it.
    pub(super) async fn isolate(
        &mut self,
        batch: Batch,
        mut prepared: Prepared,
        begin: Begin,
    ) -> Result<Option<Batch>, StoreError> {
        let stream = batch.rows.stream();
        let snapshot = self.outbox.snapshot();
        let sent = prepared.sent.clone();
        // A legacy server does not write what is there already: with its disk full it would accept that.
        let repeats = if self.sink.is_packhorse() { Repeats::Harmless } else { Repeats::Forbidden };
        self.intend(&batch, Extent::Parts).await?;
        let all: Vec<Traits> = sent.iter().map(|row| traits(&batch.rows, *row)).collect();
        let failures = match begin {
            Begin::Refused | Begin::Suspecting => 0,
            Begin::Again(failures) => failures,
        };
        let mut search = match begin {
            Begin::Refused | Begin::Again(_) => Isolation::new(all.clone(), repeats, failures, String::new()),
            Begin::Suspecting => Isolation::suspecting(all.clone(), repeats, &self.front(stream).convicts),
        };
        let (mut requests, mut is_any_accepted, mut is_taken) = (0_u32, false, false);
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
                    Beyond::Trouble(Delivered { outcome, answered, .. }) => break Err((outcome, answered)),
                },
                Step::Found(found) => break Ok(found),
                Step::Undecided(why) => break Err((at_fault(&why), Duration::ZERO)),
            };
            let rows = rows_of(&sent, &places);
            let Delivered { outcome, answered, .. } = self.deliver(&batch, &rows, &snapshot).await;
            requests += 1;
            match (outcome.verdict, outcome.trace) {
                (Verdict::Accepted, _) => {
                    is_any_accepted = true;
                    is_taken |= outcome.told.is_some();
                    search.accepted();
                }
                (Verdict::Refused, _) | (Verdict::Unknown, Trace::Unlikely) => search.refused(&outcome.advice),
                (Verdict::TooLarge, _) => {
                    self.pace.too_large(rows.len());
                    break Err((outcome, answered));
                }
                (Verdict::NotStored | Verdict::Unknown | Verdict::Misconfigured, _) => break Err((outcome, answered)),
            }
        };
        match ended {
            Ok(found) => {
                let convicts = &mut self.front_mut(stream).convicts;
                convicts.retain(|one| all.iter().all(|traits| isolate::convict(traits, &BTreeSet::from([*one])).is_none()));
                convicts.extend(found.iter().filter_map(|found| found.convict));
                if convicts.len() > CONVICTS_MAX {
                    convicts.clear();
                }
                for Found { rows: places, why, .. } in found {
                    let rows = rows_of(&sent, &places);
                    tracing::warn!(%stream, rows = rows.len(), requests, why, "refused rows are parked; the others were accepted");
                    prepared.park(&rows, &Reason::Refused(why));
                }
                self.front_mut(stream).standing = Standing::Well;
                self.all_well();
                let taken = is_taken.then(|| batch.end().minus_one());
                self.settle(batch, &prepared, taken).await
            }
            Err((outcome, answered)) => {
                // The server may be at work for longer on what went without an answer for long.
                let patience = self.patience(sent.len()).max(answered);
                let front = self.front_mut(stream);
                if is_any_accepted || outcome.trace != Trace::Nothing {
                    let end = front.doubt.as_ref().map_or(batch.end(), |doubt| doubt.end.max(batch.end()));
                    front.doubt = Some(Doubt { end, sent: Sent::Each });
                    front.ready = tokio::time::Instant::now() + patience;
                }
                front.standing = match outcome.verdict {
                    Verdict::Misconfigured => Standing::ServerDoubted(failures + 1),
                    Verdict::Accepted | Verdict::NotStored | Verdict::Unknown | Verdict::TooLarge | Verdict::Refused => {
                        match begin {
                            Begin::Refused | Begin::Again(_) => Standing::RowsDoubted,
                            Begin::Suspecting => Standing::Well,
                        }
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
        let behind = match self.outbox.lease(batch.rows.stream(), *from, BEYOND_ROWS).await? {
            // What is asked for first elsewhere proves nothing.
            Some(behind) if behind.freshness == Freshness::New => behind,
            Some(_) | None => return Ok(self.send_proof(batch, snapshot).await),
        };
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
            // Alone: a receiver takes note of how far a run goes.
            let delivered = self.deliver(&behind.only(row), &[0], snapshot).await;
            match (delivered.outcome.verdict, delivered.outcome.trace) {
                (Verdict::Accepted, _) => return Ok(Beyond::Accepted),
                (Verdict::Refused, _) | (Verdict::Unknown, Trace::Unlikely) => self.front_mut(rows.stream()).doubt = before,
                (Verdict::NotStored | Verdict::Unknown | Verdict::Misconfigured | Verdict::TooLarge, _) => {
                    return Ok(Beyond::Trouble(delivered));
                }
            }
        }
        Ok(self.send_proof(batch, snapshot).await)
    }

    /// Sends once more what a packhorse receiver took before, where nothing else is left that could show it to be well. It writes a repeat all
    /// the same; a legacy server does not, and there is no such row of it.
    async fn send_proof(&mut self, batch: &Batch, snapshot: &Snapshot) -> Beyond {
        let proof = self.front_mut(batch.rows.stream()).proof.take();
        let Some(proof) = proof.filter(|proof| proof.generation == batch.generation) else { return Beyond::Nothing };
        if prepare::prepare(&proof, &snapshot.mappings).sent.is_empty() {
            return Beyond::Nothing;
        }
        let delivered = self.deliver(&proof, &[0], snapshot).await;
        self.front_mut(batch.rows.stream()).proof = Some(proof);
        match (delivered.outcome.verdict, delivered.outcome.trace) {
            (Verdict::Accepted, _) => Beyond::Accepted,
            (Verdict::Refused, _) | (Verdict::Unknown, Trace::Unlikely) => Beyond::Nothing,
            (Verdict::NotStored | Verdict::Unknown | Verdict::Misconfigured | Verdict::TooLarge, _) => Beyond::Trouble(delivered),
        }
    }
}

/// The rows of a batch, ascending, that stand at some places of those that are sent.
fn rows_of(sent: &[usize], places: &[usize]) -> Vec<usize> {
    let mut rows: Vec<usize> = places.iter().map(|place| sent[*place]).collect();
    rows.sort_unstable();
    rows
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
        "the server refuses single records too and accepts none of the others: nothing is parked; look at its log, its disk and its database. If these \
         rows alone are at fault, they are parked as soon as another one of their table is accepted ({why})"
    );
    Outcome::new(Verdict::Misconfigured, advice)
}
