//! A bulk's rows into the database: all of them in one change, or none.
//!
//! The one rule: rows are stored by their identity (I6), so a repeat of a request changes nothing.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection, query_builder::Separated};

use super::{
    Manner,
    bulk::{Batch, Reading, Sensor, State},
    refusal::Refusal,
    store::Store,
};
use crate::domain::{Generation, SourceId};

/// How many rows one statement stores. Few sizes, so that the prepared statements are few and are used again.
const STATEMENT_ROWS: [usize; 6] = [1024, 256, 64, 16, 4, 1];

/// Whose local ids the node states of a request carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The gateway's database.
    pub source: SourceId,
    /// Which database stood behind it.
    pub generation: Generation,
}

/// Stores a batch, durably, or refuses all of it.
pub(super) async fn store(store: &Store, batch: Batch, origin: Option<Origin>, manner: Manner) -> Result<(), Refusal> {
    if manner.is_legacy() {
        check_seconds(&batch.readings)?;
    }
    let mut step = store.change().await?;
    let change = step.open()?;
    check_references(change, &batch, manner).await?;
    store_readings(change, &batch.readings).await?;
    match manner {
        Manner::Packhorse => {
            let (identified, natural): (Vec<&State>, Vec<&State>) =
                batch.states.iter().partition(|state| state.local_id.is_some());
            if let Some(origin) = origin {
                adopt(change, &identified, origin).await?;
                follow(change, &identified, origin).await?;
            }
            store_states(change, &identified, origin, ON_IDENTITY).await?;
            store_states(change, &natural, None, ON_NATURAL_KEY).await?;
            replace_sensors(change, &batch.sensors).await?;
        }
        Manner::Legacy => {
            let (numbered, bare): (Vec<&State>, Vec<&State>) = batch.states.iter().partition(|state| state.seq_num.is_some());
            let zeroed: Vec<State> = bare.into_iter().map(zeroed).collect();
            store_states(change, &numbered, None, ON_NATURAL_KEY).await?;
            store_states(change, &zeroed.iter().collect::<Vec<_>>(), None, "").await.map_err(repeated)?;
        }
        Manner::LegacyOldNodeState => store_states(change, &batch.states.iter().collect::<Vec<_>>(), None, "").await?,
    }
    if manner.is_legacy() {
        insert_sensors(change, &batch.sensors).await?;
    }
    step.end().await
}

const ON_IDENTITY: &str = " ON CONFLICT (source, generation, localId) WHERE localId IS NOT NULL DO UPDATE SET time = excluded.time, \
     nodeId = excluded.nodeId, parent = excluded.parent, localtime = excluded.localtime, seq_num = excluded.seq_num, rssi = excluded.rssi";
const ON_NATURAL_KEY: &str = " ON CONFLICT (time, nodeId, ifnull(seq_num, 0), seq_num IS NULL) WHERE localId IS NULL DO UPDATE SET \
     parent = excluded.parent, localtime = excluded.localtime, rssi = excluded.rssi";

/// Refuses rows that point to what is not here, and says which.
async fn check_references(change: &mut SqliteConnection, batch: &Batch, manner: Manner) -> Result<(), Refusal> {
    let mut complaints = Vec::new();
    for table in ["Node", "SensorType", "Location"] {
        let asked: Vec<i64> = batch.references.keys().filter(|(to, _)| *to == table).map(|(_, id)| *id).collect();
        let sql = match table {
            "Node" => "SELECT id FROM Node WHERE id IN (SELECT value FROM json_each(?))",
            "SensorType" => "SELECT id FROM SensorType WHERE id IN (SELECT value FROM json_each(?))",
            _ => "SELECT id FROM Location WHERE id IN (SELECT value FROM json_each(?))",
        };
        if asked.is_empty() {
            continue;
        }
        let here: Vec<i64> = sqlx::query_scalar(sql).bind(json!(asked).to_string()).fetch_all(&mut *change).await?;
        let here: HashSet<i64> = here.into_iter().collect();
        for id in asked.into_iter().filter(|id| !here.contains(id)) {
            complaints.push(format!("there is no {table} {id} here ({})", batch.references[&(table, id)]));
        }
    }
    match (complaints.len(), manner.is_legacy()) {
        (0, _) => Ok(()),
        (_, true) => Err(Refusal::LegacyKey(complaints.join("; "))),
        (count, false) => {
            complaints.truncate(20);
            if count > complaints.len() {
                complaints.push(format!("and {} more", count - complaints.len()));
            }
            Err(Refusal::Missing(complaints.join("; ")))
        }
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

/// Stores rows by as few statements as can be.
async fn store_rows<T>(
    change: &mut SqliteConnection,
    into: &str,
    mut rows: &[T],
    mut bind: impl FnMut(&mut Separated<'_, Sqlite, &'static str>, &T),
    on_conflict: &str,
) -> Result<(), sqlx::Error> {
    for size in STATEMENT_ROWS {
        while rows.len() >= size {
            let (now, later) = rows.split_at(size);
            let mut statement = QueryBuilder::<Sqlite>::new(into);
            statement.push(" VALUES ");
            for (place, row) in now.iter().enumerate() {
                statement.push(if place == 0 { "(" } else { ", (" });
                bind(&mut statement.separated(", "), row);
                statement.push(")");
            }
            statement.push(on_conflict);
            statement.build().execute(&mut *change).await?;
            rows = later;
        }
    }
    Ok(())
}

async fn store_readings(change: &mut SqliteConnection, readings: &[Reading]) -> Result<(), sqlx::Error> {
    let bind = |place: &mut Separated<'_, Sqlite, &'static str>, row: &Reading| {
        place.push_bind(row.time.clone()).push_bind(row.node).push_bind(row.kind).push_bind(row.location).push_bind(row.value);
    };
    let on_conflict = " ON CONFLICT (time, nodeId, type) DO UPDATE SET locationId = excluded.locationId, value = excluded.value";
    store_rows(change, "INSERT INTO Reading (time, nodeId, type, locationId, value)", readings, bind, on_conflict).await
}

async fn store_states(
    change: &mut SqliteConnection,
    states: &[&State],
    origin: Option<Origin>,
    on_conflict: &str,
) -> Result<(), sqlx::Error> {
    let source = origin.map(|origin| origin.source.to_string());
    let generation = origin.map(|origin| i64::from(origin.generation.0));
    let bind = |place: &mut Separated<'_, Sqlite, &'static str>, row: &&State| {
        place.push_bind(row.time.clone()).push_bind(row.node).push_bind(row.parent).push_bind(row.localtime);
        place.push_bind(row.seq_num).push_bind(row.rssi);
        place.push_bind(source.clone()).push_bind(generation).push_bind(row.local_id.filter(|_| origin.is_some()));
    };
    let into = "INSERT INTO NodeState (time, nodeId, parent, localtime, seq_num, rssi, source, generation, localId)";
    store_rows(change, into, states, bind, on_conflict).await
}

/// Gives a state that is here without identity the one that it now comes with: a gateway's first request may have been stored before it
/// knew this receiver for what it is, and its answer lost.
async fn adopt(change: &mut SqliteConnection, states: &[&State], origin: Origin) -> Result<(), sqlx::Error> {
    let any = "SELECT EXISTS (SELECT 1 FROM NodeState WHERE localId IS NULL)";
    if states.is_empty() || !sqlx::query_scalar::<_, bool>(any).fetch_one(&mut *change).await? {
        return Ok(());
    }
    let keys: BTreeMap<_, _> =
        states.iter().map(|state| (state.local_id, json!([state.time, state.node, state.seq_num, state.local_id]))).collect();
    let keys: Vec<_> = keys.into_values().collect();
    let adopt = "UPDATE NodeState SET source = ?1, generation = ?2, localId = told.localId \
        FROM (SELECT value ->> 0 AS time, value ->> 1 AS nodeId, value ->> 2 AS seq_num, value ->> 3 AS localId FROM json_each(?3)) AS told \
        WHERE NodeState.localId IS NULL AND NodeState.time = told.time AND NodeState.nodeId = told.nodeId \
        AND ifnull(NodeState.seq_num, 0) = ifnull(told.seq_num, 0) AND (NodeState.seq_num IS NULL) = (told.seq_num IS NULL) \
        AND NOT EXISTS (SELECT 1 FROM NodeState AS own WHERE own.source = ?1 AND own.generation = ?2 AND own.localId = told.localId)";
    let adopt = sqlx::query(adopt).bind(origin.source.to_string()).bind(i64::from(origin.generation.0));
    adopt.bind(json!(keys).to_string()).execute(change).await?;
    Ok(())
}

/// Gives a state that is here from an earlier generation of the same source the generation that it comes with now, where it is the same in all
/// its columns: a database that was restored from a backup has most of its rows as they were.
async fn follow(change: &mut SqliteConnection, states: &[&State], origin: Origin) -> Result<(), sqlx::Error> {
    if states.is_empty() || origin.generation == Generation(0) {
        return Ok(());
    }
    let told: Vec<_> = states
        .iter()
        .map(|state| json!([state.local_id, state.time, state.node, state.parent, state.localtime, state.seq_num, state.rssi]))
        .collect();
    // The order of the join is forced: each told row is looked up by its identity.
    let follow = "UPDATE OR IGNORE NodeState SET generation = ?2 WHERE rowid IN (SELECT own.rowid FROM json_each(?3) AS told CROSS JOIN NodeState AS own \
        ON own.source = ?1 AND own.generation = ?4 AND own.localId = CAST(told.value ->> 0 AS INTEGER) AND own.localId IS NOT NULL \
        WHERE own.time = told.value ->> 1 AND own.nodeId = told.value ->> 2 AND own.parent IS told.value ->> 3 \
        AND own.localtime IS told.value ->> 4 AND own.seq_num IS told.value ->> 5 AND own.rssi IS told.value ->> 6)";
    let (source, told) = (origin.source.to_string(), json!(told).to_string());
    let any = "SELECT EXISTS (SELECT 1 FROM NodeState WHERE source = ?1 AND generation = ?2 AND localId IS NOT NULL)";
    for earlier in 0..i64::from(origin.generation.0) {
        if sqlx::query_scalar(any).bind(&source).bind(earlier).fetch_one(&mut *change).await? {
            let follow = sqlx::query(follow).bind(&source).bind(i64::from(origin.generation.0));
            follow.bind(&told).bind(earlier).execute(&mut *change).await?;
        }
    }
    Ok(())
}

/// One sensor for each node and sensor type: the oldest takes the new calibration.
async fn replace_sensors(change: &mut SqliteConnection, sensors: &[Sensor]) -> Result<(), sqlx::Error> {
    for sensor in sensors {
        let update = "UPDATE Sensor SET calibrationSlope = ?, calibrationOffset = ? \
                      WHERE id = (SELECT min(id) FROM Sensor WHERE nodeId IS ? AND sensorTypeId IS ?)";
        let update = sqlx::query(update).bind(sensor.slope).bind(sensor.offset).bind(sensor.node).bind(sensor.kind);
        if update.execute(&mut *change).await?.rows_affected() == 0 {
            insert_sensors(change, std::slice::from_ref(sensor)).await?;
        }
    }
    Ok(())
}

async fn insert_sensors(change: &mut SqliteConnection, sensors: &[Sensor]) -> Result<(), sqlx::Error> {
    let bind = |place: &mut Separated<'_, Sqlite, &'static str>, row: &Sensor| {
        place.push_bind(row.kind).push_bind(row.node).push_bind(row.slope).push_bind(row.offset);
    };
    let into = "INSERT INTO Sensor (sensorTypeId, nodeId, calibrationSlope, calibrationOffset)";
    store_rows(change, into, sensors, bind, "").await
}

/// The newer legacy table has no NULL in its key: it keeps 0.
fn zeroed(state: &State) -> State {
    State {
        time: state.time.clone(),
        node: state.node,
        parent: state.parent,
        localtime: state.localtime,
        seq_num: Some(0),
        rssi: state.rssi,
        local_id: None,
    }
}

/// A key that is already there is the request's fault; all else is the database's.
fn repeated(error: sqlx::Error) -> Refusal {
    match error.as_database_error() {
        Some(cause) if cause.is_unique_violation() => Refusal::LegacyKey(cause.message().to_owned()),
        _ => Refusal::Unavailable(error),
    }
}
