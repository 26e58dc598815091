//! The requests that change something: parked rows return or are discarded, sending pauses.
//!
//! The one rule (I5): rows are discarded only after a file with all of them is on the disk.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{Answer, Answers, FailureKind, Filter, QueueError, Run, Told, look};
use crate::{
    config::units,
    domain::{Micros, Rows},
    outbox::{
        Outbox, Parked,
        data_dir::{self, PAUSED},
        verbs::{Fate, ParkedPlace, Pick},
    },
};

/// Parked chunks that are read at a time.
const PAGE_CHUNKS: usize = 32;
/// Chunks that are changed between two words on how far it is.
const STEP_CHUNKS: usize = 64;

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

/// The meant rows among what is parked, picked.
async fn pick(
    outbox: &Outbox,
    filter: &Filter,
    mut each: impl FnMut(&Parked, &Rows, &[usize]) -> io::Result<()>,
) -> Result<Vec<Pick>, QueueError> {
    let mut picks = Vec::new();
    let mut place = Some(ParkedPlace::new());
    while let Some(from) = place {
        let (chunks, next) = outbox.parked_rows(from, PAGE_CHUNKS).await?;
        for chunk in chunks.into_iter().filter(|chunk| filter.takes_reason(&chunk.parked.reason)) {
            let rows = filter.places(&chunk.rows);
            if !rows.is_empty() {
                each(&chunk.parked, &chunk.rows, &rows).map_err(|error| {
                    QueueError::told(FailureKind::Other, format!("the export failed, so nothing was discarded: {error}"))
                })?;
                let mut pick = chunk.pick;
                pick.rows = rows;
                picks.push(pick);
            }
        }
        place = next;
    }
    Ok(picks)
}

fn rows_of(picks: &[Pick]) -> u64 {
    picks.iter().map(|pick| pick.rows.len() as u64).sum()
}

async fn take(outbox: &Outbox, picks: &[Pick], fate: Fate, answers: &Answers) -> Result<u64, QueueError> {
    let (mut taken, mut done, of) = (0, 0, rows_of(picks));
    for some in picks.chunks(STEP_CHUNKS) {
        taken += outbox.take(some, fate).await?;
        done += rows_of(some);
        answers.give(Answer::Progress(done, Some(of))).await?;
    }
    Ok(taken)
}

fn changed_meanwhile(picked: u64, taken: u64) -> String {
    match picked - taken {
        0 => String::new(),
        rest => format!(
            "; {rest} were left alone, because they changed meanwhile or are of a source that was replaced since: look again"
        ),
    }
}

/// Makes the files as small as what they hold. Capture and acks wait meanwhile, as when a daemon does it by itself.
pub async fn compact(outbox: &Outbox, answers: &Answers) -> Result<(), QueueError> {
    let compacted = outbox.compact().await?;
    let [before, after] = [compacted.bytes_before, compacted.bytes_after].map(units::show_bytes);
    let text = format!("{before} before, {after} now");
    answers.give(Answer::Told(Told { text, rows: 0, wrong: Vec::new() })).await
}

/// Appends parked rows anew.
pub async fn retry(outbox: &Outbox, filter: &Filter, run: Run, answers: &Answers) -> Result<(), QueueError> {
    let picks = pick(outbox, filter, |_, _, _| Ok(())).await?;
    let picked = rows_of(&picks);
    let (rows, text) = match run {
        Run::Dry => (picked, format!("{picked} parked rows would be tried again")),
        Run::Real => {
            let taken = take(outbox, &picks, Fate::Return, answers).await?;
            tracing::info!(outbox = %outbox.path().display(), rows = taken, "an operator lets parked rows return");
            (taken, format!("{taken} parked rows are tried again{}", changed_meanwhile(picked, taken)))
        }
    };
    answers.give(Answer::Told(Told { text, rows, wrong: Vec::new() })).await
}

/// Exports parked rows, then drops them.
pub async fn discard(outbox: &Outbox, filter: &Filter, run: Run, now: Micros, answers: &Answers) -> Result<(), QueueError> {
    if run == Run::Dry {
        let rows = rows_of(&pick(outbox, filter, |_, _, _| Ok(())).await?);
        let text = format!("{rows} parked rows would be exported to {} and discarded", outbox.discarded_folder().display());
        return answers.give(Answer::Told(Told { text, rows, wrong: Vec::new() })).await;
    }
    let folder = outbox.discarded_folder();
    let path = export_path(&folder, now);
    let failed = |error: io::Error| {
        QueueError::told(
            FailureKind::Other,
            format!("the export to {} failed, so nothing was discarded: {error}", path.display()),
        )
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let mut file = BufWriter::new(File::create_new(&path).map_err(failed)?);
    let written = pick(outbox, filter, |parked, rows, places| {
        places.iter().try_for_each(|row| writeln!(file, "{}", exported(parked, rows, *row)))
    })
    .await
    .and_then(|picks| {
        let whole = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        whole.and_then(|()| sync(&folder)).and_then(|()| sync(outbox.path())).map_err(failed)?;
        Ok(picks)
    });
    let picks = match written {
        Ok(picks) if !picks.is_empty() => picks,
        // Half an export is of no use to anybody.
        other => {
            let _ = std::fs::remove_file(&path);
            other?;
            let text = "no parked row is meant by this".to_owned();
            return answers.give(Answer::Told(Told { text, rows: 0, wrong: Vec::new() })).await;
        }
    };
    let picked = rows_of(&picks);
    let taken = take(outbox, &picks, Fate::Discard, answers).await?;
    tracing::warn!(outbox = %outbox.path().display(), rows = taken, export = %path.display(), "an operator discarded parked rows");
    let text = format!(
        "{taken} parked rows were discarded; they are exported in {}{}",
        path.display(),
        changed_meanwhile(picked, taken)
    );
    answers.give(Answer::Told(Told { text, rows: taken, wrong: Vec::new() })).await
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn export_path(folder: &Path, now: Micros) -> PathBuf {
    folder.join(format!("{}-{:06}.jsonl", now.cut_to_second().to_string().replace(':', ""), now.0.rem_euclid(1_000_000)))
}

/// A line of the export: the row as `queue list --json` shows it, and why it was parked.
fn exported(parked: &Parked, rows: &Rows, row: usize) -> Value {
    let mut line = Map::new();
    line.insert("stream".into(), rows.stream().name().into());
    line.insert("parked_at".into(), parked.at.to_string().into());
    line.insert("reason".into(), parked.reason.to_string().into());
    let cells = look::record(rows, row, None).cells;
    line.extend(rows.stream().spec().columns.iter().map(|column| column.name.to_owned()).zip(cells));
    Value::Object(line)
}
