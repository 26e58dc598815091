//! What is remembered of a gateway's runs: the highest seq that was seen, and receipts of requests that are stored in full.
//!
//! The one rule: a receipt is written in the transaction that stores its rows, and only when every one of them is stored. It spares an
//! identical repeat the work and decides nothing else: without it the natural keys come to the same (I6).

use sha2::{Digest as _, Sha256};

use super::{
    cell::Cell,
    gateways,
    refusal::Refusal,
    store::{Step, Store},
    tables::Kind,
    upsert::RunStored,
};
use crate::wire::{Run, RunAnswer};

/// What a request's body is known by.
pub(super) fn digest(body: &[u8]) -> String {
    hexadecimal(&Sha256::digest(body))
}

/// Bytes as text.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The answer to a run that is stored already, if this is one.
pub(super) async fn repeat(store: &Store, run: &Run, digest: &str) -> Result<Option<RunStored>, Refusal> {
    let mut look = store.look().await?;
    let sql = "SELECT row_count FROM packhorse_receipt WHERE source = ? AND epoch = ? AND stream = ? AND first_seq = ? AND end_seq = ? AND digest = ?";
    let cells = of(run).into_iter().chain([seq(run.first.0), seq(run.end.0), Cell::Text(digest.to_owned())]);
    let rows = look.one(sql.to_owned(), cells, Kind::Int).await?.int();
    let seen = if rows.is_some() { highest(&mut look, run).await? } else { None };
    look.end().await?;
    let rows = rows.map(|rows| u64::try_from(rows).unwrap_or(0));
    Ok(rows.map(|rows| {
        let had = if rows == 0 { Vec::new() } else { vec![(0, rows)] };
        RunStored { answer: RunAnswer { had, repeat: true, ..RunAnswer::default() }, seen }
    }))
}

/// The highest seq that was seen of a run's epoch and stream.
pub(super) async fn highest(step: &mut Step, run: &Run) -> Result<Option<i64>, sqlx::Error> {
    let sql = "SELECT highest FROM packhorse_run WHERE source = ? AND epoch = ? AND stream = ?";
    Ok(step.one(sql.to_owned(), of(run), Kind::Int).await?.int())
}

/// Refuses a run of a client that knows of rows which are no longer here, until it has taken note of that.
pub(super) async fn nothing_lost(step: &mut Step, run: &Run) -> Result<(), Refusal> {
    let Some(taken) = run.taken else { return Ok(()) };
    let seen = highest(step, run).await?;
    match seen {
        Some(seen) if seen.unsigned_abs() >= taken.0 => Ok(()),
        Some(_) | None => Err(Refusal::RowsLost { taken: taken.0, seen }),
    }
}

/// Whether a run comes of an epoch before the one that the gateway began last: then two machines share its source id, or something was on its
/// way for long.
async fn is_superseded(change: &mut Step, run: &Run) -> Result<bool, sqlx::Error> {
    let own = "SELECT began FROM packhorse_run WHERE source = ? AND epoch = ? AND stream = ?";
    let Some(own) = change.one(own.to_owned(), of(run), Kind::Int).await?.int() else { return Ok(false) };
    let [source, _, stream] = of(run);
    Ok(latest(change, source, stream).await?.is_some_and(|latest| own < latest))
}

async fn latest(change: &mut Step, source: Cell, stream: Cell) -> Result<Option<i64>, sqlx::Error> {
    let sql = "SELECT MAX(began) FROM packhorse_run WHERE source = ? AND stream = ?";
    Ok(change.one(sql.to_owned(), [source, stream], Kind::Int).await?.int())
}

/// Notes that a run was seen, and forgets the receipts that the client needs no more: those before its cursor, and those of other epochs
/// when this one is new.
pub(super) async fn note(change: &mut Step, run: &Run) -> Result<(), sqlx::Error> {
    let is_new = highest(change, run).await?.is_none();
    let [source, _, stream] = of(run);
    let began = latest(change, source, stream).await?.unwrap_or(0) + 1;
    if !is_new && is_superseded(change, run).await? {
        gateways::collided(change, run.source).await?;
    }
    let upsert = change.dialect().upsert_greatest("(source, epoch, stream)", "highest");
    let sql = format!("INSERT INTO packhorse_run (source, epoch, stream, highest, began) VALUES (?, ?, ?, ?, ?){upsert}");
    change.execute(sql, of(run).into_iter().chain([seq(run.end.0 - 1), Cell::Int(began)])).await?;
    let settled = "DELETE FROM packhorse_receipt WHERE source = ? AND epoch = ? AND stream = ? AND end_seq <= ?";
    change.execute(settled.to_owned(), of(run).into_iter().chain([seq(run.cursor.0)])).await?;
    if is_new {
        let [source, epoch, stream] = of(run);
        let older = "DELETE FROM packhorse_receipt WHERE source = ? AND epoch <> ? AND stream = ?";
        change.execute(older.to_owned(), [source, epoch, stream]).await?;
    }
    Ok(())
}

/// Writes the receipt of a run of which every row is stored.
pub(super) async fn write(change: &mut Step, run: &Run, rows: usize, digest: &str) -> Result<(), sqlx::Error> {
    let upsert = change.dialect().upsert("(source, epoch, stream, first_seq)", &["end_seq", "row_count", "digest"]);
    let sql = format!(
        "INSERT INTO packhorse_receipt (source, epoch, stream, first_seq, end_seq, row_count, digest) VALUES (?, ?, ?, ?, ?, ?, ?){upsert}"
    );
    let more = [seq(run.first.0), seq(run.end.0), seq(rows as u64), Cell::Text(digest.to_owned())];
    change.execute(sql, of(run).into_iter().chain(more)).await.map(drop)
}

fn of(run: &Run) -> [Cell; 3] {
    [Cell::Text(run.source.to_string()), Cell::Text(run.epoch.to_string()), Cell::Text(run.stream.name().to_owned())]
}

/// A run's seqs were read as numbers of 63 bits.
fn seq(number: u64) -> Cell {
    Cell::Int(i64::try_from(number).unwrap_or(i64::MAX))
}
