//! The requests that only look, on an open outbox and on the copy of a damaged one.
//!
//! The one rule: what is looked at may be sent in the same moment. That is no damage, and no row is shown twice.
//!
//! Each page is a step ([`Beside::step`]), from the store to the lines of an answer, off the async threads. Who reads them is waited for in none.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Answer, Answers, Beside, Detail, Failure, FailureKind, Filter, Group, QueueError, Record, Records, Refers, Told};
use crate::{
    domain::{Cell, Freshness, Micros, Rows, Seq, Stream},
    outbox::{Outbox, Parked, Reason, StoreError, remains::Remains, verbs::ParkedPlace},
};

/// Records that are read at a time.
const PAGE_ROWS: usize = 2_000;
/// Records in one line of an answer.
const LINE_ROWS: usize = 500;
/// Parked chunks that are read at a time.
const PAGE_CHUNKS: usize = 32;
/// Groups that are told apart; what comes beyond is counted together.
const GROUPS_MAX: usize = 500;
/// Progress is told after so many more rows.
const PROGRESS_ROWS: u64 = 50_000;

/// One record as it is shown.
pub fn record(rows: &Rows, row: usize, seq: Option<Seq>) -> Record {
    let cell = |place| match rows.cell(place, row) {
        // As a value of JSON it is an f64: the one that reads as the shortest form does, not as all its digits.
        Cell::Float(value) => value.to_string().parse::<f64>().map_or(Value::Null, Value::from),
        cell => serde_json::to_value(cell).unwrap_or(Value::Null),
    };
    let cells = (0..rows.columns().len()).map(cell).collect();
    Record { seq, cells, reason: None, parked_at: None }
}

/// Does work off the async threads.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, QueueError> {
    tokio::task::spawn_blocking(work).await.map_err(|defect| QueueError::told(FailureKind::Other, defect.to_string()))
}

/// The meant ones of some rows, at most `left` of them, as the lines of an answer.
fn lines(filter: &Filter, rows: &Rows, left: u64, as_record: impl Fn(usize) -> Record) -> Vec<Records> {
    let mut places = filter.places(rows);
    places.truncate(usize::try_from(left).unwrap_or(usize::MAX));
    let line = |some: &[usize]| Records { stream: rows.stream(), rows: some.iter().map(|row| as_record(*row)).collect() };
    places.chunks(LINE_ROWS).map(line).collect()
}

/// Gives them, and how many rows that were.
async fn give_lines(answers: &Answers, lines: Vec<Records>) -> Result<u64, QueueError> {
    let mut given = 0;
    for line in lines {
        given += line.rows.len() as u64;
        answers.give(Answer::Records(line)).await?;
    }
    Ok(given)
}

/// How far a walk has come, told now and then.
struct Walk<'a> {
    answers: &'a Answers,
    done: u64,
    told: u64,
    of: u64,
}

impl<'a> Walk<'a> {
    fn new(answers: &'a Answers, of: u64) -> Self {
        Self { answers, done: 0, told: 0, of }
    }

    async fn went(&mut self, rows: u64) -> Result<(), QueueError> {
        self.done += rows;
        if self.done - self.told >= PROGRESS_ROWS {
            self.told = self.done;
            self.answers.give(Answer::Progress(self.done, Some(self.of.max(self.done)))).await?;
        }
        Ok(())
    }
}

/// The records that wait.
pub async fn list(outbox: &Outbox, filter: &Filter, limit: u64, beside: &Beside, answers: &Answers) -> Result<(), QueueError> {
    let mut walk = Walk::new(answers, outbox.snapshot().pending());
    for stream in Stream::ALL.into_iter().filter(|stream| filter.takes_stream(*stream)) {
        // What comes in meanwhile is not waited for.
        let end = outbox.snapshot().stream(stream).next;
        let (mut from, mut left) = (Seq(0), limit);
        while left > 0 && from < end {
            let rows_max = if filter.takes_all() { left.min(PAGE_ROWS as u64) as usize } else { PAGE_ROWS };
            let step = beside.step(async {
                let Some(page) = outbox.browse(stream, from, rows_max).await? else { return Ok(None) };
                let filter = filter.clone();
                let made = apart(move || {
                    let seq = |row: usize| Some(page.first.plus(row as u64));
                    (page.end(), page.rows.len(), lines(&filter, &page.rows, left, |row| record(&page.rows, row, seq(row))))
                });
                made.await.map(Some)
            });
            let Some((next, rows, lines)) = step.await? else { break };
            from = next;
            left -= give_lines(answers, lines).await?;
            walk.went(rows as u64).await?;
        }
    }
    Ok(())
}

/// The same, of a copy.
pub async fn list_left(remains: &Remains, filter: &Filter, limit: u64, answers: &Answers) -> Result<(), QueueError> {
    for stream in Stream::ALL.into_iter().filter(|stream| filter.takes_stream(*stream)) {
        let mut left = limit;
        for (first, _, rows) in remains.records(stream) {
            let seq = |row: usize| Some(first.plus(row as u64));
            left -= give_lines(answers, lines(filter, &rows, left, |row| record(&rows, row, seq(row)))).await?;
            if left == 0 {
                break;
            }
        }
    }
    Ok(())
}

/// One record.
pub async fn show(outbox: &Outbox, stream: Stream, seq: Seq, answers: &Answers) -> Result<(), QueueError> {
    let snapshot = outbox.snapshot();
    let state = snapshot.stream(stream);
    let absent = |why: String| QueueError::Told(Failure { text: why, kind: FailureKind::Usage });
    if seq < state.cursor {
        return Err(absent(format!("{stream} {seq} does not wait any more: it was delivered or parked")));
    }
    if seq >= state.next {
        return Err(absent(format!("there is no {stream} {seq} yet: the next one is going to be {}", state.next)));
    }
    let page = outbox.browse(stream, seq, 1).await?.filter(|page| page.first == seq);
    let Some(page) = page else { return Err(absent(format!("{stream} {seq} was delivered in this moment"))) };
    let refers = page
        .rows
        .refers(0)
        .map(|what| Refers { entity: what.to_string(), central_id: snapshot.mappings.get(what).map(|id| id.0) });
    let in_flight = snapshot.intent(stream).is_some_and(|intent| (intent.first..intent.end).contains(&seq));
    let detail = Detail {
        stream,
        record: record(&page.rows, 0, Some(seq)),
        captured_at: page.captured_at.to_string(),
        freshness: match page.freshness {
            Freshness::New => "new",
            Freshness::Repeat => "repeat",
        }
        .to_owned(),
        refers: refers.collect(),
        in_flight,
    };
    answers.give(Answer::Detail(Box::new(detail))).await
}

/// What is parked, by reason.
#[derive(Default)]
pub struct Groups(BTreeMap<(Reason, Stream), Parking>);

struct Parking {
    rows: u64,
    oldest: Micros,
    newest: Micros,
    sample: Record,
}

impl Groups {
    /// Adds the meant ones of some parked rows.
    pub fn add(&mut self, filter: &Filter, parked: &Parked, rows: &Rows) {
        if !filter.takes_reason(&parked.reason) {
            return;
        }
        let places = filter.places(rows);
        let Some(first) = places.first() else { return };
        let mut key = (parked.reason.clone(), rows.stream());
        if self.0.len() >= GROUPS_MAX && !self.0.contains_key(&key) {
            key.0 = Reason::Refused("for many other reasons".into());
        }
        let parking = self.0.entry(key).or_insert_with(|| Parking {
            rows: 0,
            oldest: parked.at,
            newest: parked.at,
            sample: record(rows, *first, None),
        });
        parking.rows += places.len() as u64;
        parking.oldest = parking.oldest.min(parked.at);
        parking.newest = parking.newest.max(parked.at);
    }

    /// The groups, the largest first.
    pub fn into_list(self) -> Vec<Group> {
        let group = |((reason, stream), parking): ((Reason, Stream), Parking)| Group {
            kind: match reason {
                Reason::Held(_) => "held",
                Reason::Refused(_) => "refused",
            }
            .to_owned(),
            reason: reason.to_string(),
            stream,
            rows: parking.rows,
            oldest: parking.oldest.to_string(),
            newest: parking.newest.to_string(),
            sample: parking.sample,
        };
        let mut groups: Vec<_> = self.0.into_iter().map(group).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.rows));
        groups
    }
}

/// What is parked of an open outbox.
pub async fn groups(outbox: &Outbox, filter: &Filter, beside: &Beside) -> Result<Vec<Group>, QueueError> {
    let mut groups = Groups::default();
    let mut place = Some(ParkedPlace::new());
    while let Some(from) = place {
        let step = beside.step(async {
            let (chunks, next) = outbox.parked_rows(from, PAGE_CHUNKS).await?;
            let filter = filter.clone();
            let added = apart(move || {
                for chunk in &chunks {
                    groups.add(&filter, &chunk.parked, &chunk.rows);
                }
                groups
            });
            Ok::<_, QueueError>((added.await?, next))
        });
        (groups, place) = step.await?;
    }
    Ok(groups.into_list())
}

fn parked_record(parked: &Parked, rows: &Rows, row: usize) -> Record {
    Record { reason: Some(parked.reason.to_string()), parked_at: Some(parked.at.to_string()), ..record(rows, row, None) }
}

/// The parked rows themselves.
pub async fn parked_show(
    outbox: &Outbox,
    filter: &Filter,
    limit: u64,
    beside: &Beside,
    answers: &Answers,
) -> Result<(), QueueError> {
    let mut walk = Walk::new(answers, outbox.snapshot().parked());
    let mut place = Some(ParkedPlace::new());
    let mut left = limit;
    while let Some(from) = place.filter(|_| left > 0) {
        let (chunks, next) = beside.step(outbox.parked_rows(from, PAGE_CHUNKS)).await?;
        for chunk in chunks {
            let rows = chunk.rows.len() as u64;
            if filter.takes_reason(&chunk.parked.reason) {
                let filter = filter.clone();
                let made = beside
                    .step(apart(move || lines(&filter, &chunk.rows, left, |row| parked_record(&chunk.parked, &chunk.rows, row))));
                left -= give_lines(answers, made.await?).await?;
            }
            walk.went(rows).await?;
        }
        place = next;
    }
    Ok(())
}

/// The same, of a copy.
pub async fn parked_show_left(remains: &Remains, filter: &Filter, limit: u64, answers: &Answers) -> Result<(), QueueError> {
    let mut left = limit;
    for (parked, rows) in remains.parked() {
        if filter.takes_reason(&parked.reason) {
            left -= give_lines(answers, lines(filter, &rows, left, |row| parked_record(&parked, &rows, row))).await?;
        }
    }
    Ok(())
}

/// Checks every checksum, seq and count.
pub async fn verify(outbox: &Outbox, beside: &Beside, answers: &Answers) -> Result<(), QueueError> {
    let snapshot = outbox.snapshot();
    let mut wrong = Vec::new();
    let mut walk = Walk::new(answers, snapshot.pending() + snapshot.parked());
    for stream in Stream::ALL {
        let end = snapshot.stream(stream).next;
        let mut from = Seq(0);
        while from < end {
            match beside.step(outbox.browse(stream, from, PAGE_ROWS)).await {
                Ok(None) => break,
                Ok(Some(page)) => {
                    from = page.end();
                    walk.went(page.rows.len() as u64).await?;
                }
                Err(StoreError::Damaged { what, .. }) => {
                    wrong.push(what);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    let mut place = Some(ParkedPlace::new());
    let mut parked = [0; Stream::ALL.len()];
    let mut as_told = true;
    while let Some(from) = place {
        match beside.step(outbox.parked_rows(from, PAGE_CHUNKS)).await {
            Ok((chunks, next)) => {
                place = next;
                for chunk in &chunks {
                    let (rows, stream) = (chunk.rows.len() as u64, chunk.rows.stream());
                    parked[usize::from(stream.number())] += rows;
                    as_told &= (u64::from(chunk.parked.count), chunk.parked.stream) == (rows, stream);
                }
                walk.went(chunks.iter().map(|chunk| chunk.rows.len() as u64).sum()).await?;
            }
            Err(StoreError::Damaged { what, .. }) => {
                wrong.push(what);
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Only when that is not yet the answer the loops are held up, for a look at the heads alone.
    if !as_told || !outbox.agrees(&parked) {
        match outbox.check_parked().await {
            Ok(more) => wrong.extend(more),
            Err(StoreError::Damaged { what, .. }) => wrong.push(what),
            Err(error) => return Err(error.into()),
        }
    }
    let rows = walk.done;
    let text = if wrong.is_empty() {
        format!("{rows} records read: every checksum, seq and count is right")
    } else {
        format!(
            "{rows} records could be read; the outbox is damaged: `packhorse queue repair`, or `packhorse run`, sets it aside"
        )
    };
    answers.give(Answer::Told(Told { text, rows, wrong })).await
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::Instant;

    use super::*;
    use crate::{
        domain::{Column, Epoch, Position, SourceId},
        outbox::{Captured, OpenOptions},
    };

    const ROWS: i64 = 9_000;

    async fn filled(dir: &std::path::Path) -> Outbox {
        let outbox =
            Outbox::open(dir, &OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(77) }).unwrap();
        let numbers = |by: i64| Column::Int((0..ROWS).map(|number| Some(number * by)).collect());
        let values = Column::Float((0..ROWS).map(|number| Some(number as f32)).collect());
        let rows = Rows::new(Stream::Reading, vec![numbers(1_000_000), numbers(1), numbers(0), numbers(0), values]);
        let watermark = Position::Key { time: Micros(ROWS * 1_000_000), rest: vec![0, 0] };
        let captured = Captured { rows, watermark, catalog: Vec::new(), freshness: Freshness::New, at: Micros(0) };
        outbox.append(captured).await.unwrap();
        outbox
    }

    /// The rows that were shown or checked, and the time that was rested: the clock stands still while there is work.
    async fn looked(look: impl AsyncFnOnce(&Answers) -> Result<(), QueueError>) -> (u64, Duration) {
        let began = Instant::now();
        let (answers, mut from) = Answers::channel();
        let work = async move { look(&answers).await.unwrap() };
        let read = async move {
            let mut rows = 0;
            while let Some(answer) = from.recv().await {
                match answer {
                    Answer::Records(records) => rows += records.rows.len() as u64,
                    Answer::Told(told) => rows += told.rows,
                    _ => {}
                }
            }
            rows
        };
        let ((), rows) = tokio::join!(work, read);
        (rows, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn long_looks_rest_between_their_steps_beside_the_loops_and_never_beside_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = filled(dir.path()).await;
        let all = Filter::default();
        for (beside, rests) in [(Beside::Loops(Arc::default()), 1), (Beside::Nobody, 0)] {
            let (rows, rested) = looked(async |answers| verify(&outbox, &beside, answers).await).await;
            assert_eq!(rows, ROWS as u64);
            let pages = ROWS as u64 / PAGE_ROWS as u64;
            assert!(rested >= Duration::from_millis(pages * rests) && (rests > 0 || rested.is_zero()), "{beside:?}: {rested:?}");
            let (rows, rested) = looked(async |answers| list(&outbox, &all, u64::MAX, &beside, answers).await).await;
            assert_eq!(rows, ROWS as u64);
            assert!(rested >= Duration::from_millis(pages * rests) && (rests > 0 || rested.is_zero()), "{beside:?}: {rested:?}");
        }
    }
}
