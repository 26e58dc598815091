//! A bulk's rows into the database, in one change.
//!
//! The one rule: rows are stored by their identity (I6), so a repeat of a request changes nothing.

mod each;
mod sensors;
mod states;

use std::collections::{BTreeSet, HashSet};

use super::{
    Manner, bulk,
    bulk::{Batch, Each, Reading, State},
    cell::Cell,
    gateways::{self, Bound},
    places::{Places, Refused},
    receipt,
    refusal::Refusal,
    store::{Attempts, Step, Store},
    tables::Kind,
    tokens::{Caller, Tokens},
};
use crate::{
    domain::{Generation, SourceId},
    wire::{Run, RunAnswer},
};
use each::{Found, Put, asked};

/// Whose local ids the node states of a request carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The gateway's database.
    pub source: SourceId,
    /// Which database stood behind it.
    pub generation: Generation,
}

/// Who sends rows, and what decides whether they are his to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gate<'a> {
    pub caller: &'a Caller,
    pub tokens: &'a Tokens,
    pub bound: &'a Bound,
}

/// What a request tells of its rows.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// Nothing, or whose they are: all of them are stored or none.
    Rows(Option<Origin>),
    /// Which run of records they are, with the digest of the body: each row is judged alone, and there is a receipt.
    Run(Run, String),
}

impl Told {
    /// Whose local ids these are.
    pub(super) fn origin(&self) -> Option<Origin> {
        match self {
            Self::Rows(origin) => *origin,
            Self::Run(run, _) => Some(Origin { source: run.source, generation: run.generation }),
        }
    }

    /// What one bad row does to the others.
    pub(super) fn each(&self) -> Each {
        match self {
            Self::Rows(_) => Each::Together,
            Self::Run(..) => Each::Judged,
        }
    }
}

/// What became of a run, and the highest seq that was seen before.
#[derive(Debug)]
pub(super) struct RunStored {
    /// Each row's fate.
    pub answer: RunAnswer,
    /// The highest seq of the epoch and stream before this run.
    pub seen: Option<i64>,
}

/// Stores a batch, durably: all of it or nothing, or of a run what can be stored.
pub(super) async fn store(
    store: &Store,
    attempts: &Attempts,
    batch: &Batch,
    told: &Told,
    gate: &Gate<'_>,
    manner: Manner,
) -> Result<Option<RunStored>, Refusal> {
    if manner.is_legacy() {
        check_seconds(&batch.readings)?;
    }
    // Sensors have no key of the database's own: a look decides about them.
    let mut change = if batch.sensors.is_empty() { store.change_after(attempts).await? } else { store.change_in_turn().await? };
    if let Some(origin) = told.origin() {
        gate.bound.check(&mut change, gate.caller, origin.source, gate.tokens).await?;
        gateways::seen(&mut change, origin.source).await?;
    }
    if let Told::Run(run, _) = told {
        receipt::nothing_lost(&mut change, run).await?;
    }
    let mut refused = batch.refused.clone();
    let missing = pointing_nowhere(&mut change, batch).await?;
    let kept;
    let batch = if missing.is_empty() {
        batch
    } else {
        kept = without(batch, &missing, &mut refused);
        &kept
    };
    let seen = match told {
        Told::Rows(_) if refused.is_empty() => None,
        Told::Rows(_) if manner.is_legacy() => return Err(Refusal::LegacyKey(refused.text())),
        Told::Rows(_) => return Err(Refusal::Missing(refused.text())),
        Told::Run(run, _) => receipt::highest(&mut change, run).await?,
    };
    let rows = batch.readings.len() + batch.states.len() + batch.sensors.len();
    let mut put = Put::new(&mut change);
    if manner.is_legacy() {
        store_as_legacy(&mut put, batch, manner).await?;
    } else {
        store_readings(&mut put, &batch.readings).await?;
        states::store(&mut put, &batch.states, told.origin()).await?;
        sensors::replace(&mut put, &batch.sensors).await?;
    }
    let had = Places::of(put.had);
    let Told::Run(run, digest) = told else {
        change.end().await?;
        return Ok(None);
    };
    let stored = (rows - had.count()) as u64;
    if rows == 0 && !refused.is_empty() {
        let text = refused.text();
        let error = Some(text.clone());
        let answer = RunAnswer { stored, had: had.into_runs(), refused: refused.into_wire(), repeat: false, error };
        return Err(Refusal::Run { text, answer: Box::new(answer), seen });
    }
    receipt::note(&mut change, run).await?;
    if refused.is_empty() {
        receipt::write(&mut change, run, batch.count, digest).await?;
    }
    change.end().await?;
    let error = (!refused.is_empty()).then(|| refused.text());
    let answer = RunAnswer { stored, had: had.into_runs(), refused: refused.into_wire(), repeat: false, error };
    Ok(Some(RunStored { answer, seen }))
}

/// What the rows point to and is not here.
async fn pointing_nowhere(change: &mut Step, batch: &Batch) -> Result<BTreeSet<(&'static str, i64)>, sqlx::Error> {
    let mut missing = batch.references.clone();
    for table in ["Node", "SensorType", "Location"] {
        let wanted: Vec<i64> = batch.references.iter().filter(|(to, _)| *to == table).map(|(_, id)| *id).collect();
        for ids in asked(&wanted) {
            let sql = format!("SELECT id FROM \"{table}\" WHERE id IN ({})", vec!["?"; ids.len()].join(", "));
            for here in change.fetch(sql, ids.into_iter().map(Cell::Int), &[Kind::Id]).await?.iter().flatten() {
                missing.remove(&(table, here.int().unwrap_or_default()));
            }
        }
    }
    Ok(missing)
}

/// A batch without the rows that point to what is missing; these are refused.
fn without(batch: &Batch, missing: &BTreeSet<(&'static str, i64)>, refused: &mut Refused) -> Batch {
    let mut stays = |place: usize, references: &mut dyn Iterator<Item = (&'static str, i64)>| {
        let mut stays = true;
        for (table, id) in references.filter(|reference| missing.contains(reference)) {
            refused.add(&format!("there is no {table} {id} here"), place);
            stays = false;
        }
        stays
    };
    Batch {
        readings: batch.readings.iter().filter(|row| stays(row.place, &mut row.references())).cloned().collect(),
        states: batch.states.iter().filter(|row| stays(row.place, &mut row.references())).cloned().collect(),
        sensors: batch.sensors.iter().filter(|row| stays(row.place, &mut row.references())).cloned().collect(),
        count: batch.count,
        ..Batch::default()
    }
}

/// The legacy server stumbles over two readings of one node and type in one second of one request.
fn check_seconds(readings: &[Reading]) -> Result<(), Refusal> {
    let mut seen = HashSet::with_capacity(readings.len());
    if readings.iter().all(|reading| seen.insert((&reading.time, reading.node, reading.kind))) {
        Ok(())
    } else {
        Err(Refusal::LegacyKey("two readings of one node and type in one second".to_owned()))
    }
}

const INTO: &str = "INSERT INTO \"Reading\" (\"time\", \"nodeId\", \"type\", \"locationId\", \"value\")";

async fn store_readings(put: &mut Put<'_>, readings: &[Reading]) -> Result<(), sqlx::Error> {
    // In the order of the key: changes that store the same rows then wait for each other instead of locking each other out.
    let mut readings: Vec<&Reading> = readings.iter().collect();
    readings.sort_by_key(|row| (&row.time, row.node, row.kind));
    let cells = |row: &&Reading| {
        vec![
            Cell::Time(row.time.clone()),
            Cell::Int(row.node),
            Cell::Int(row.kind),
            row.location.map_or(Cell::Null, Cell::Int),
            row.value.map_or(Cell::Null, Cell::Real),
        ]
    };
    let upsert = put.dialect().upsert("(time, nodeId, type)", &["locationId", "value"]);
    let key = |row: &&Reading| (row.time.clone(), row.node, row.kind);
    let find = Found {
        by: |row: &&Reading| Some((row.node, row.time.clone())),
        sql: "SELECT time, type FROM Reading WHERE nodeId = ?",
        kinds: &[Kind::Time, Kind::Int],
        key: |node, cells| Some((cells.first()?.clone().text()?, node, cells.get(1)?.int()?)),
    };
    put.rows(INTO, &readings, |row| row.place, cells, &upsert, key, find).await
}

/// As the legacy servers do: by the key of the table that they have.
async fn store_as_legacy(put: &mut Put<'_>, batch: &Batch, manner: Manner) -> Result<(), Refusal> {
    store_readings(put, &batch.readings).await?;
    match manner {
        Manner::LegacyOldNodeState => states::insert(put, &batch.states).await?,
        Manner::Legacy | Manner::Packhorse => {
            let (numbered, bare): (Vec<State>, Vec<State>) =
                batch.states.iter().cloned().partition(|state| state.seq_num.is_some());
            // The newer table has no NULL in its key: it keeps 0.
            let zeroed: Vec<State> = bare.into_iter().map(|state| State { seq_num: Some(0), ..state }).collect();
            states::store(put, &numbered, None).await?;
            states::insert(put, &zeroed).await.map_err(repeated)?;
        }
    }
    sensors::insert(put, &batch.sensors).await?;
    Ok(())
}

/// A key that is already there is the request's fault; all else is the database's.
fn repeated(error: sqlx::Error) -> Refusal {
    match error.as_database_error() {
        Some(cause) if cause.is_unique_violation() => Refusal::LegacyKey(cause.message().to_owned()),
        _ => Refusal::Unavailable(error),
    }
}

/// Reads a request's rows. `told` says how they are judged.
pub(super) fn parse(json: &[u8], told: &Told, manner: Manner) -> Result<Batch, Refusal> {
    bulk::parse(json, manner, told.origin().is_some(), told.each())
}
