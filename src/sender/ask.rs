//! Asking what has arrived, before anything is sent to a server that cannot tell a repeat for free.
//!
//! | what the batch is | asked | what it means |
//! |---|---|---|
//! | one request of an unknown outcome, or of an intent found at start | its witnesses | all or nothing |
//! | several requests of unknown outcome, or a part of what was asked for in vain | each row | what is absent is sent |
//! | rows that were captured before, where a repeat is not free | each row | the same |
//! | the first new rows of a life | three of them | that they are there: this outbox is an older image of itself, and all that waits may have been sent |
//! | rows that may meet another of the same second there | these rows | they are parked |
//!
//! A packhorse receiver knows each row by its own identity (I6) and is never asked.
//!
//! The one rule: when the asking fails, nothing is sent.

use tokio::time::sleep_until;

use super::{
    Sender, collide,
    doubt::{self, Doubt, Sent, Testimony},
    front::Opening,
    prepare::Prepared,
};
use crate::{
    domain::{Freshness, Outcome, Rows, Stream},
    outbox::{Batch, Doubted, Reason, StoreError},
    ports::{Keeping, Presence},
};

/// Each row is asked for in batches of at most so many, so that a poor link gets somewhere.
pub(super) const EACH_ROWS_MAX: usize = 2_000;

/// So many of the first rows of a life are asked for.
const OPENING_ROWS: usize = 3;

/// Which rows may meet another of their key at the destination.
enum Look {
    /// New ones that may: these are asked for.
    AtTheSeam,
    /// These do; each was asked for.
    Met(Vec<usize>),
}

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
        match self.is_overtaken(batch, prepared).await {
            Ok(false) => {}
            Ok(true) => {
                self.doubt_image(batch).await?;
                return Ok(Asked::Again(EACH_ROWS_MAX));
            }
            Err(outcome) => {
                self.wait_out(&outcome).await?;
                return Ok(Asked::Failed);
            }
        }
        match self.find_out(batch, prepared).await {
            Ok(asked) => Ok(asked),
            Err(outcome) => {
                self.wait_out(&outcome).await?;
                Ok(Asked::Failed)
            }
        }
    }

    /// Whether the first rows that this life sends are there, though they were never sent from here.
    async fn is_overtaken(&mut self, batch: &Batch, prepared: &Prepared) -> Result<bool, Outcome> {
        let front = self.front(batch.rows.stream());
        let is_first = front.opening == Opening::Unproven && front.doubt.is_none() && batch.freshness == Freshness::New;
        if !is_first || prepared.sent.is_empty() {
            return Ok(false);
        }
        let can_be_asked = |row: &usize| doubt::coarse_key(&batch.rows, *row).is_some();
        let first: Vec<usize> = prepared.sent.iter().copied().filter(can_be_asked).take(OPENING_ROWS).collect();
        let answers = if first.is_empty() { Vec::new() } else { self.sink.arrived(&batch.rows.pick(&first)).await? };
        self.front_mut(batch.rows.stream()).opening = Opening::Proven;
        Ok(answers.contains(&Presence::There))
    }

    /// This outbox is an older image of itself, or somebody else sends the same rows: whatever waits is asked for from now on.
    async fn doubt_image(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let text = "rows that were never sent from here are at the destination: data_dir is an older image, or something else sends the same rows. \
                    Whatever waits, is parked or is in the database by now is asked for before it is sent, so that nothing is there twice";
        tracing::warn!(outbox = %self.outbox.path().display(), stream = %batch.rows.stream(), first = %batch.first, "{text}");
        let doubted = self.outbox.doubt().await?;
        self.outbox.note_trouble((self.options.clock)(), text.to_owned()).await?;
        for (stream, Doubted { intent }) in Stream::ALL.into_iter().zip(doubted) {
            let front = self.front_mut(stream);
            front.opening = Opening::Proven;
            if let Some(intent) = intent {
                front.doubt = Some(Doubt { end: intent.end, sent: Sent::Each });
            }
        }
        Ok(())
    }

    /// Whether a repeat of all that is sent of a batch costs no more than a first sending: a server that keeps one node state of a second and
    /// number merges it. One without a number is refused there.
    async fn is_repeat_free(&mut self, batch: &Batch, prepared: &Prepared) -> Result<bool, Outcome> {
        let rows = &batch.rows;
        let number = rows.stream().spec().key[2];
        let is_plain =
            |row: &usize| rows.int(number, *row).is_some() && rows.time(*row).is_some_and(|time| time == time.cut_to_second());
        if rows.stream() == Stream::Reading || !prepared.sent.iter().all(is_plain) {
            return Ok(false);
        }
        Ok(self.sink.keeping(rows.stream()).await? == Keeping::OneOfASecond)
    }

    async fn find_out(&mut self, batch: &Batch, prepared: &mut Prepared) -> Result<Asked, Outcome> {
        let stream = batch.rows.stream();
        if batch.freshness == Freshness::Repeat {
            // A slot that keeps changing is captured again and again, and its rows may lie here side by side.
            prepared.leave(&collide::twins(&batch.rows, &prepared.sent));
        }
        let (front, ready) = (self.front(stream).doubt.clone(), self.front(stream).ready);
        let is_free = front.is_none() && batch.freshness == Freshness::Repeat && self.is_repeat_free(batch, prepared).await?;
        let mut met = Vec::new();
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
                            self.front_mut(stream).doubt = Some(Doubt { end, sent: Sent::Each });
                            return Ok(Asked::Again(EACH_ROWS_MAX));
                        }
                    },
                    Sent::Together(_) | Sent::Each => self.there(&batch.rows, &mut met).await?,
                }
            }
            (None, Freshness::Repeat) if is_free => Vec::new(),
            (None, Freshness::Repeat) if batch.rows.len() > EACH_ROWS_MAX => return Ok(Asked::Again(EACH_ROWS_MAX)),
            (None, Freshness::Repeat) => self.there(&batch.rows, &mut met).await?,
            (None, Freshness::New) => Vec::new(),
        };
        if front.is_some() || !there.is_empty() {
            tracing::info!(%stream, first = %batch.first, rows = batch.rows.len(), there = there.len(), "asked what had arrived");
        }
        prepared.leave(&there);
        met.retain(|row| prepared.sent.binary_search(row).is_ok());
        let is_new = front.is_none() && (batch.freshness == Freshness::New || is_free);
        let look = if is_new { Look::AtTheSeam } else { Look::Met(met) };
        self.tell_apart(batch, prepared, &there, look).await
    }

    /// Parks what the destination cannot hold beside what it has.
    async fn tell_apart(
        &mut self,
        batch: &Batch,
        prepared: &mut Prepared,
        there: &[usize],
        look: Look,
    ) -> Result<Asked, Outcome> {
        let rows = &batch.rows;
        let doubles = collide::doubles(rows, &prepared.sent, there);
        let (mut suspects, met) = match look {
            Look::AtTheSeam => (self.front(rows.stream()).frontier.suspects(rows, &prepared.sent), Vec::new()),
            Look::Met(met) => (Vec::new(), met),
        };
        suspects.retain(|row| doubles.binary_search(row).is_err());
        if doubles.is_empty() && suspects.is_empty() && met.is_empty() {
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
        prepared.park(&met, &reason);
        if !suspects.is_empty() {
            let answers = self.sink.arrived(&rows.pick(&suspects)).await?;
            let with = |wanted: &[Presence]| -> Vec<usize> {
                suspects.iter().zip(&answers).filter(|(_, presence)| wanted.contains(presence)).map(|(row, _)| *row).collect()
            };
            match batch.freshness {
                Freshness::New => prepared.park(&with(&[Presence::There, Presence::Merged]), &reason),
                // It may be there itself.
                Freshness::Repeat => {
                    prepared.park(&with(&[Presence::Merged]), &reason);
                    prepared.leave(&with(&[Presence::There]));
                }
            }
        }
        Ok(Asked::Ready)
    }

    async fn hear(&self, rows: &Rows, sent: &[usize]) -> Result<Testimony, Outcome> {
        let groups = doubt::witnesses(rows, sent, &self.front(rows.stream()).frontier);
        let asked = groups.concat();
        let answers = if asked.is_empty() { Vec::new() } else { self.sink.arrived(&rows.pick(&asked)).await? };
        Ok(doubt::testimony(&groups, &answers))
    }

    /// The rows that are there, ascending; and those in whose place there is another.
    async fn there(&self, rows: &Rows, met: &mut Vec<usize>) -> Result<Vec<usize>, Outcome> {
        let answers = self.sink.arrived(rows).await?;
        let with =
            |wanted: Presence| answers.iter().enumerate().filter(move |(_, presence)| **presence == wanted).map(|(row, _)| row);
        met.extend(with(Presence::Merged));
        Ok(with(Presence::There).collect())
    }
}

/// The negative control of the tests of asking: sends blind, as the old script did. Debug builds only, and only when asked for by the
/// environment.
fn is_sabotaged() -> bool {
    cfg!(debug_assertions) && std::env::var_os("PACKHORSE_TEST_SEND_BLIND").is_some()
}
