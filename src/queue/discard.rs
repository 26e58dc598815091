//! `parked discard`: parked rows are exported, then dropped.
//!
//! First all that is meant is written, then it is dropped, chunk by chunk, and only what is still what was written: whoever comes between, a
//! crash or the end of the outbox's life leaves every row parked or in a whole file. How the file is named meanwhile is described on top of
//! [`file`].
//!
//! The one rule (I5): no row is dropped but by a pick that the finished export handed out.

mod file;

use std::sync::Arc;

pub use self::file::{ExportError, Part, Whole};
use super::{
    Answer, Answers, Beside, FailureKind, Filter, QueueError, Run, Surroundings, Told,
    act::{changed_meanwhile, count, meant, rows_of},
    off_thread,
};
use crate::outbox::{
    Outbox,
    verbs::{Fate, ParkedPlace, ParkedRows},
};

/// Parked chunks that are read at a time.
const PAGE_CHUNKS: usize = 32;
/// Rows that are written at a time.
const STEP_ROWS: usize = 500;
/// Chunks that are dropped at a time.
const STEP_CHUNKS: usize = 16;

impl From<ExportError> for QueueError {
    fn from(error: ExportError) -> Self {
        Self::told(FailureKind::Other, error.to_string())
    }
}

/// Exports parked rows, then drops them.
pub async fn discard(
    outbox: &Outbox,
    filter: &Filter,
    run: Run,
    around: Surroundings<'_>,
    answers: &Answers,
) -> Result<(), QueueError> {
    if run == Run::Dry {
        let rows = count(outbox, filter, around.beside, answers).await?;
        let text = format!("{rows} parked rows would be exported to {} and discarded", outbox.discarded_folder().display());
        return answers.give(Answer::Told(Told { text, rows, wrong: Vec::new() })).await;
    }
    let Some(whole) = export(outbox, filter, around, answers).await? else {
        let text = "no parked row is meant by this".to_owned();
        return answers.give(Answer::Told(Told { text, rows: 0, wrong: Vec::new() })).await;
    };
    let picked = whole.rows();
    let (whole, taken) = take(outbox, whole, around.beside, answers).await?;
    let path = off_thread(move || Ok(whole.ended(taken))).await?;
    tracing::warn!(outbox = %outbox.path().display(), rows = taken, export = %path.display(), "an operator discarded parked rows");
    let text = format!(
        "{taken} parked rows were discarded; they are exported in {}{}",
        path.display(),
        changed_meanwhile(picked, taken)
    );
    answers.give(Answer::Told(Told { text, rows: taken, wrong: Vec::new() })).await
}

/// Writes all that is meant; `None` when nothing is.
async fn export(
    outbox: &Outbox,
    filter: &Filter,
    around: Surroundings<'_>,
    answers: &Answers,
) -> Result<Option<Whole>, QueueError> {
    let folder = outbox.discarded_folder();
    let mut part = off_thread(move || Ok(Part::begin(&folder, around.now, around.disk_reserve_bytes)?)).await?;
    let mut place = Some(ParkedPlace::new());
    while let Some(from) = place {
        let (chunks, next) = around.beside.step(outbox.parked_rows(from, PAGE_CHUNKS)).await?;
        let chunks = meant(filter, chunks);
        if !chunks.is_empty() {
            part = write(part, chunks, around.beside).await?;
            answers.give(Answer::Progress(part.rows(), None)).await?;
        }
        place = next;
    }
    match part.rows() {
        0 => {
            off_thread(move || {
                part.abandon();
                Ok(None)
            })
            .await
        }
        _ => Ok(Some(around.beside.step(off_thread(move || Ok(part.finish()?))).await?)),
    }
}

/// Writes the picked rows of a page, with what was picked.
async fn write(mut part: Part, chunks: Vec<ParkedRows>, beside: &Beside) -> Result<Part, QueueError> {
    let chunks = Arc::new(chunks);
    let rows: Vec<(usize, usize)> =
        chunks.iter().enumerate().flat_map(|(place, chunk)| chunk.pick.rows.iter().map(move |row| (place, *row))).collect();
    for some in rows.chunks(STEP_ROWS) {
        let (chunks, some) = (Arc::clone(&chunks), some.to_vec());
        part = beside.step(off_thread(move || Ok(part.add(&chunks, &some).map(|()| part)?))).await?;
    }
    off_thread(move || Ok(part.note(&chunks).map(|()| part)?)).await
}

/// Drops the rows of an export; gives how many.
async fn take(outbox: &Outbox, mut whole: Whole, beside: &Beside, answers: &Answers) -> Result<(Whole, u64), QueueError> {
    let (mut taken, mut done, of) = (0, 0, whole.rows());
    loop {
        let picks;
        (whole, picks) = off_thread(move || {
            let read = whole.next(STEP_CHUNKS);
            let picks =
                read.map_err(|error| QueueError::told(FailureKind::Other, format!("what was picked cannot be read: {error}")))?;
            Ok((whole, picks))
        })
        .await?;
        if picks.is_empty() {
            return Ok((whole, taken));
        }
        taken += beside.step(outbox.take(&picks, Fate::Discard)).await?;
        done += rows_of(&picks);
        answers.give(Answer::Progress(done, Some(of))).await?;
    }
}

#[cfg(test)]
mod tests;
