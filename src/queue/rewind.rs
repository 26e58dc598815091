//! Capturing a period again: its rows are read from the source once more and appended as repeats, with the watermark as it is.
//!
//! So nothing that runs is disturbed (I4), and a rewind that is cut off is simply begun again: a destination tells a repeat by its identity (I6).
//! It waits while the outbox is full (I7), for the sender makes room.
//!
//! The one rule: rows beyond the watermark are capture's, not ours, and so is everything in another database than the one that was captured.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Answer, Answers, FailureKind, QueueError, Told};
use crate::{
    capture,
    domain::{Micros, Position, Rows},
    outbox::Outbox,
    ports::{Order, PageRequest, Source, SourceError, SourceStream},
};

/// Rows in a page.
const PAGE_ROWS: u32 = 10_000;
/// Rows are counted up to this many, for the progress.
const COUNT_MAX: u64 = 10_000_000;
/// How often is looked whether there is room again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often is told that it waits for room.
const WAITING_IS_TOLD: Duration = Duration::from_secs(10);

/// From where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Since {
    /// The source's first row.
    Beginning,
    /// Rows of this time and later.
    At(Micros),
}

/// What bounds it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nothing is appended while pending records take this many encoded bytes.
    pub outbox_bytes_max: u64,
    /// Bytes of the disk that are left to others.
    pub disk_reserve_bytes: u64,
    /// Whether somebody drains the outbox meanwhile.
    pub drained: Drained,
    /// The gateway's clock.
    pub clock: fn() -> Micros,
}

/// Whether somebody drains the outbox meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// A sender does: room is waited for.
    Yes,
    /// Nobody does: a full outbox ends it.
    No,
}

fn refused(error: &SourceError) -> QueueError {
    let kind = match error {
        SourceError::Unreachable { .. } | SourceError::Denied { .. } => FailureKind::Unreachable,
        SourceError::Schema { .. } | SourceError::Row { .. } | SourceError::Query { .. } => FailureKind::Other,
    };
    QueueError::told(kind, crate::chain(error))
}

/// Whether a row's place lies behind (or at) the watermark, so that it was captured before.
fn is_behind(place: &Position, watermark: &Position) -> bool {
    match (place, watermark) {
        (Position::Id(id), Position::Id(mark)) => id <= mark,
        (Position::Key { time, rest }, Position::Key { time: mark, rest: mark_rest }) => (time, rest) <= (mark, mark_rest),
        _ => false,
    }
}

fn place(stream: &SourceStream, rows: &Rows, row: usize) -> Option<Position> {
    match stream.order {
        Order::Id => rows.id_position(row),
        Order::Key => rows.key_position(row),
    }
}

/// Captures a period again.
pub async fn run(
    outbox: &Outbox,
    source: &mut dyn Source,
    since: Since,
    limits: &Limits,
    answers: &Answers,
) -> Result<(), QueueError> {
    let generation = outbox.snapshot().meta.generation;
    let streams = source.connect().await.map_err(|error| refused(&error))?.streams;
    let mut catalog = source.catalog().await.map_err(|error| refused(&error))?;
    if !capture::is_captured_one(source, outbox, generation).await.map_err(|error| refused(&error))? {
        return Err(replaced(outbox, 0));
    }
    let mut begins = Vec::new();
    let mut expected = 0;
    for stream in streams {
        let watermark = outbox.snapshot().stream(stream.stream).watermark.clone();
        let after = match since {
            Since::Beginning => Position::Start,
            Since::At(time) => source.last(stream.stream, Some(time)).await.map_err(|error| refused(&error))?,
        };
        let ask = |after| PageRequest { stream: stream.stream, after, before: None, limit: 0 };
        if watermark != Position::Start {
            // The count is for the progress alone.
            let from_there = source.count_after(&ask(after.clone()), COUNT_MAX).await.unwrap_or(0);
            let beyond = source.count_after(&ask(watermark.clone()), COUNT_MAX).await.unwrap_or(0);
            expected += from_there.saturating_sub(beyond);
            begins.push((stream, after, watermark));
        }
    }
    let from = match since {
        Since::Beginning => "the beginning".to_owned(),
        Since::At(time) => time.to_string(),
    };
    tracing::warn!(outbox = %outbox.path().display(), since = from, "an operator lets rows be captured again");
    let mut appended = 0;
    for (stream, after, watermark) in begins {
        let mut request = PageRequest { stream: stream.stream, after, before: None, limit: PAGE_ROWS };
        loop {
            room(outbox, limits, appended, answers).await?;
            let page = source.page(&request).await.map_err(|error| refused(&error))?;
            let old = (0..page.len())
                .take_while(|row| place(&stream, &page, *row).is_some_and(|place| is_behind(&place, &watermark)))
                .count();
            let is_last = old < page.len() || page.len() < PAGE_ROWS as usize;
            if old == 0 {
                break;
            }
            if let Some(last) = place(&stream, &page, old - 1) {
                request.after = last;
            }
            let page = if old == page.len() { page } else { page.slice(0, old) };
            let mut needed = capture::needed(&page, &catalog, &outbox.snapshot().catalog);
            if (0..page.len()).any(|row| page.refers(row).any(|what| !catalog.contains_key(&what))) {
                catalog = source.catalog().await.map_err(|error| refused(&error))?;
                needed = capture::needed(&page, &catalog, &outbox.snapshot().catalog);
            }
            let rows = page.len() as u64;
            let is_captured_one = capture::is_captured_one(source, outbox, generation).await.map_err(|error| refused(&error))?;
            if !is_captured_one || !outbox.append_again(page, needed, generation, (limits.clock)()).await? {
                return Err(replaced(outbox, appended));
            }
            appended += rows;
            answers.give(Answer::Progress(appended, Some(expected.max(appended)))).await?;
            if is_last {
                break;
            }
        }
    }
    let text = format!("{appended} rows since {from} were queued again");
    answers.give(Answer::Told(Told { text, rows: appended, wrong: Vec::new() })).await
}

fn replaced(outbox: &Outbox, appended: u64) -> QueueError {
    let text = format!(
        "the database is not the one that {} was captured from: {appended} rows were queued again; `packhorse run` delivers what waits and then \
         takes this database for what it is, after that repeat this command",
        outbox.path().display()
    );
    QueueError::told(FailureKind::Other, text)
}

/// Returns when there is room for another page.
async fn room(outbox: &Outbox, limits: &Limits, appended: u64, answers: &Answers) -> Result<(), QueueError> {
    let mut told: Option<Instant> = None;
    loop {
        let Some(why) = outbox.why_full(limits.outbox_bytes_max, limits.disk_reserve_bytes).await? else { return Ok(()) };
        match limits.drained {
            Drained::Yes => {
                // Also for whoever asked: who hears nothing takes the daemon for dead.
                if told.is_none_or(|at| at.elapsed() >= WAITING_IS_TOLD) {
                    answers.give(Answer::Waits(format!("{why}: waits for room after {appended} rows"))).await?;
                    told = Some(Instant::now());
                }
                tokio::time::sleep(PAUSE).await;
            }
            Drained::No => {
                let text =
                    format!("{why}: {appended} rows were queued again until then; start `packhorse run` and repeat this command");
                return Err(QueueError::told(FailureKind::Other, text));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_up_to_the_watermark_were_captured_before_and_others_were_not() {
        let key = |time, rest: [i64; 2]| Position::Key { time: Micros(time), rest: rest.to_vec() };
        assert!(is_behind(&Position::Id(7), &Position::Id(7)) && !is_behind(&Position::Id(8), &Position::Id(7)));
        assert!(is_behind(&key(5, [1, 2]), &key(5, [1, 2])) && is_behind(&key(4, [9, 9]), &key(5, [1, 2])));
        assert!(!is_behind(&key(5, [1, 3]), &key(5, [1, 2])) && !is_behind(&key(6, [0, 0]), &key(5, [1, 2])));
        assert!(!is_behind(&Position::Id(1), &key(5, [1, 2])), "a table that is keyed otherwise now");
    }
}
