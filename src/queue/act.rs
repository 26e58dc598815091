//! The requests that change something: parked rows return, sending pauses, files are made smaller. [`discard`](super::discard) has its own
//! place.
//!
//! The one rule: what changes is changed a step at a time, with a rest after it beside the loops. How much is parked bounds nothing here.

use std::{path::Path, pin::pin};

use tokio::sync::watch;

use super::{Answer, Answers, Beside, Filter, QueueError, Run, Surroundings, Told};
use crate::{
    config::units,
    domain::Micros,
    outbox::{
        Outbox,
        data_dir::{self, PAUSED},
        verbs::{Fate, ParkedPlace, ParkedRows, Pick},
    },
};

/// Parked chunks that are read at a time.
const PAGE_CHUNKS: usize = 32;
/// Chunks that are changed at a time: one commit.
const STEP_CHUNKS: usize = 16;

/// In what is told how far compaction is.
const KIB: u64 = 1 << 10;

/// Whether an operator paused the sending of an outbox.
pub fn is_paused(folder: &Path) -> bool {
    folder.join(PAUSED).exists()
}

/// Writes down that sending is paused: it stays so through a restart. Blocks.
pub fn pause(folder: &Path, now: Micros) -> Result<(), QueueError> {
    let text = format!("sending was paused by an operator at {now} UTC; `packhorse queue resume` removes this\n");
    data_dir::replace_file(&folder.join(PAUSED), text.as_bytes()).map_err(QueueError::Store)
}

/// Takes that back, for good: a power loss does not bring it again. Blocks.
pub fn resume(folder: &Path) -> Result<(), QueueError> {
    data_dir::remove_file(&folder.join(PAUSED)).map_err(QueueError::Store)
}

/// Of some parked chunks those with meant rows, which are picked.
pub(super) fn meant(filter: &Filter, chunks: Vec<ParkedRows>) -> Vec<ParkedRows> {
    let pick = |mut chunk: ParkedRows| {
        chunk.pick.rows = if filter.takes_reason(&chunk.parked.reason) { filter.places(&chunk.rows) } else { Vec::new() };
        (!chunk.pick.rows.is_empty()).then_some(chunk)
    };
    chunks.into_iter().filter_map(pick).collect()
}

/// The rows of some picks.
pub(super) fn rows_of(picks: &[Pick]) -> u64 {
    picks.iter().map(|pick| pick.rows.len() as u64).sum()
}

/// How many parked rows are meant.
pub(super) async fn count(outbox: &Outbox, filter: &Filter, beside: &Beside, answers: &Answers) -> Result<u64, QueueError> {
    let mut rows = 0;
    let mut place = Some(ParkedPlace::new());
    while let Some(from) = place {
        let (chunks, next) = beside.step(outbox.parked_rows(from, PAGE_CHUNKS)).await?;
        rows += meant(filter, chunks).iter().map(|chunk| chunk.pick.rows.len() as u64).sum::<u64>();
        answers.give(Answer::Progress(rows, None)).await?;
        place = next;
    }
    Ok(rows)
}

/// What to say of those that were not.
pub(super) fn changed_meanwhile(picked: u64, taken: u64) -> String {
    match picked - taken {
        0 => String::new(),
        rest => format!(
            "; {rest} were left alone, because they changed meanwhile or are of a source that was replaced since: look again"
        ),
    }
}

/// Makes the files as small as what they hold. Capture and acks wait meanwhile, as when a daemon does it by itself. Tells how
/// many KiB are copied.
pub async fn compact(outbox: &Outbox, answers: &Answers) -> Result<(), QueueError> {
    let (far, mut seen) = watch::channel((0, 0));
    let mut work = pin!(outbox.compact(move |copied, all| _ = far.send_replace((copied, all))));
    // Who does not read is not waited for: it goes on by itself.
    let compacted = loop {
        tokio::select! {
            compacted = &mut work => break compacted?,
            Ok(()) = seen.changed() => {
                let (copied, all) = *seen.borrow_and_update();
                answers.give(Answer::Progress(copied / KIB, Some(all / KIB))).await?;
            }
        }
    };
    let [before, after] = [compacted.bytes_before, compacted.bytes_after].map(units::show_bytes);
    let text = format!("{before} before, {after} now");
    answers.give(Answer::Told(Told { text, rows: 0, wrong: Vec::new() })).await
}

/// Appends parked rows anew, page by page. Those that come back meanwhile, or are parked only then, wait for another call.
pub async fn retry(
    outbox: &Outbox,
    filter: &Filter,
    run: Run,
    around: Surroundings<'_>,
    answers: &Answers,
) -> Result<(), QueueError> {
    if run == Run::Dry {
        let rows = count(outbox, filter, around.beside, answers).await?;
        let text = format!("{rows} parked rows would be tried again");
        return answers.give(Answer::Told(Told { text, rows, wrong: Vec::new() })).await;
    }
    let (mut picked, mut taken) = (0, 0);
    let end = outbox.snapshot().notes.next_parked;
    let mut place = Some(ParkedPlace::new());
    while let Some(from) = place {
        let (chunks, next) = around.beside.step(outbox.parked_rows(from, PAGE_CHUNKS)).await?;
        let picks: Vec<Pick> =
            meant(filter, chunks).into_iter().map(|chunk| chunk.pick).filter(|pick| pick.is_before(end)).collect();
        for some in picks.chunks(STEP_CHUNKS) {
            taken += around.beside.step(outbox.take(some, Fate::Return)).await?;
            picked += rows_of(some);
            answers.give(Answer::Progress(picked, None)).await?;
        }
        place = next;
    }
    tracing::info!(outbox = %outbox.path().display(), rows = taken, "an operator lets parked rows return");
    let text = format!("{taken} parked rows are tried again{}", changed_meanwhile(picked, taken));
    answers.give(Answer::Told(Told { text, rows: taken, wrong: Vec::new() })).await
}
