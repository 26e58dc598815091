//! Asking what has arrived, before anything is sent to a server that cannot tell a repeat for free.
//!
//! | what the batch is | asked | what it means |
//! |---|---|---|
//! | one request of an unknown outcome, or of an intent found at start | its witnesses | all or nothing |
//! | several requests of unknown outcome, or a part of what was asked for in vain | each row | what is absent is sent |
//! | rows that were captured before | each row | the same |
//! | rows that may meet another of the same second there | these rows | they are parked |
//!
//! A packhorse receiver knows each row by its own identity (I6) and is never asked.
//!
//! The one rule: when the asking fails, nothing is sent.

use tokio::time::sleep_until;

use super::{
    Sender, collide,
    doubt::{self, Sent, Testimony},
    prepare::Prepared,
};
use crate::{
    domain::{Freshness, Outcome, Rows},
    outbox::{Batch, Reason, StoreError},
    ports::{Keeping, Presence},
};

/// Each row is asked for in batches of at most so many, so that a poor link gets somewhere.
pub(super) const EACH_ROWS_MAX: usize = 2_000;

/// What was found out about a batch.
pub(super) enum Asked {
    /// What is left in it is to be sent.
    Ready,
    /// It is leased again, with at most so many rows.
    Again(usize),
    /// There was no answer; it was waited.
    Failed,
}

impl Sender<'_> {
    /// Whether this destination is asked at all.
    pub(super) fn asks(&self) -> bool {
        !self.sink.is_packhorse() && !is_sabotaged()
    }

    /// Finds out what of a batch is there, and what must not be sent.
    pub(super) async fn ask(&mut self, batch: &Batch, prepared: &mut Prepared) -> Result<Asked, StoreError> {
        if !self.asks() {
            return Ok(Asked::Ready);
        }
        match self.find_out(batch, prepared).await {
            Ok(asked) => Ok(asked),
            Err(outcome) => {
                self.wait_out(&outcome).await?;
                Ok(Asked::Failed)
            }
        }
    }

    async fn find_out(&mut self, batch: &Batch, prepared: &mut Prepared) -> Result<Asked, Outcome> {
        let stream = batch.rows.stream();
        let (front, ready) = (self.front(stream).doubt.clone(), self.front(stream).ready);
        let there = match (&front, batch.freshness) {
            (Some(doubt), _) => {
                sleep_until(ready).await;
                match &doubt.sent {
                    Sent::Together(sent) if doubt.end == batch.end() => match self.hear(&batch.rows, sent).await? {
                        Testimony::Arrived => sent.clone(),
                        Testimony::Absent => {
                            tracing::info!(%stream, first = %batch.first, rows = sent.len(), "asked: nothing of it had arrived");
                            self.front_mut(stream).doubt = None;
                            return Ok(Asked::Again(self.pace.rows(stream)));
                        }
                        Testimony::Unclear => {
                            let end = doubt.end;
                            self.front_mut(stream).doubt = Some(doubt::Doubt { end, sent: Sent::Each });
                            return Ok(Asked::Again(EACH_ROWS_MAX));
                        }
                    },
                    Sent::Together(_) | Sent::Each => self.there(&batch.rows).await?,
                }
            }
            (None, Freshness::Repeat) if batch.rows.len() > EACH_ROWS_MAX => return Ok(Asked::Again(EACH_ROWS_MAX)),
            (None, Freshness::Repeat) => self.there(&batch.rows).await?,
            (None, Freshness::New) => Vec::new(),
        };
        if front.is_some() || !there.is_empty() {
            tracing::info!(%stream, first = %batch.first, rows = batch.rows.len(), there = there.len(), "asked what had arrived");
        }
        prepared.leave(&there);
        self.tell_apart(batch, prepared, &there, front.is_none()).await
    }

    /// Parks what the destination cannot hold beside what it has.
    async fn tell_apart(
        &mut self,
        batch: &Batch,
        prepared: &mut Prepared,
        there: &[usize],
        is_certain: bool,
    ) -> Result<Asked, Outcome> {
        let rows = &batch.rows;
        let doubles = collide::doubles(rows, &prepared.sent, there);
        let mut suspects = Vec::new();
        if batch.freshness == Freshness::New && is_certain {
            suspects = self.front(rows.stream()).frontier.suspects(rows, &prepared.sent);
            suspects.retain(|row| doubles.binary_search(row).is_err());
        }
        if doubles.is_empty() && suspects.is_empty() {
            return Ok(Asked::Ready);
        }
        match (self.sink.keeping(rows.stream()).await?, doubles.first()) {
            (Keeping::Each, _) | (Keeping::NotYetKnown, None) => return Ok(Asked::Ready),
            // What comes before it shows how the destination keeps rows.
            (Keeping::NotYetKnown, Some(first)) => return Ok(Asked::Again(*first)),
            (Keeping::OneOfASecond, _) => {}
        }
        let reason = Reason::Refused(collide::REASON.to_owned());
        prepared.park(&doubles, &reason);
        if !suspects.is_empty() {
            let met = self.sink.arrived(&rows.pick(&suspects)).await?;
            let met: Vec<usize> =
                suspects.iter().zip(met).filter(|(_, presence)| *presence == Presence::There).map(|(row, _)| *row).collect();
            prepared.park(&met, &reason);
        }
        Ok(Asked::Ready)
    }

    async fn hear(&self, rows: &Rows, sent: &[usize]) -> Result<Testimony, Outcome> {
        let groups = doubt::witnesses(rows, sent, &self.front(rows.stream()).frontier);
        let asked = groups.concat();
        let answers = if asked.is_empty() { Vec::new() } else { self.sink.arrived(&rows.pick(&asked)).await? };
        Ok(doubt::testimony(&groups, &answers))
    }

    /// The rows that are there, ascending.
    async fn there(&self, rows: &Rows) -> Result<Vec<usize>, Outcome> {
        let answers = self.sink.arrived(rows).await?;
        Ok(answers.iter().enumerate().filter(|(_, presence)| **presence == Presence::There).map(|(row, _)| row).collect())
    }
}

/// The negative control of the tests of asking: sends blind, as the old script did. Debug builds only, and only when asked for by the
/// environment.
fn is_sabotaged() -> bool {
    cfg!(debug_assertions) && std::env::var_os("PACKHORSE_TEST_SEND_BLIND").is_some()
}
