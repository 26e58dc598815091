//! Node states: which of them are one.
//!
//! The one rule (I6): a state that comes with its id in the gateway's database is known by source, id, time and node; one without by time,
//! node and seq_num, where NULL is a value. Two states that differ in that are never made one.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    Origin,
    each::{Found, Put, asked},
};
use crate::receiver::{
    bulk::State,
    cell::{Cell, Cells},
    tables::Kind,
};

const INTO: &str = "INSERT INTO \"NodeState\" (\"time\", \"nodeId\", \"parent\", \"localtime\", \"seq_num\", \"rssi\", \"source\", \"generation\", \"localId\")";
const ON_IDENTITY: &str = "(source, localId, ifnull(time, ''), ifnull(nodeId, -1)) WHERE localId IS NOT NULL";
const ON_NATURAL_KEY: &str = "(time, nodeId, ifnull(seq_num, 0), seq_num IS NULL) WHERE localId IS NULL";

/// Stores states by their identity.
pub(super) async fn store(put: &mut Put<'_>, states: &[State], origin: Option<Origin>) -> Result<(), sqlx::Error> {
    // In the order of the keys, as readings are.
    let mut states = states.to_vec();
    states.sort_by(|one, other| {
        (one.local_id, &one.time, one.node, one.seq_num).cmp(&(other.local_id, &other.time, other.node, other.seq_num))
    });
    let (identified, natural): (Vec<State>, Vec<State>) =
        states.into_iter().partition(|state| origin.is_some() && state.local_id.is_some());
    if let Some(origin) = origin.filter(|_| !identified.is_empty()) {
        adopt(put, &identified, origin).await?;
        store_identified(put, &identified, origin).await?;
    }
    let upsert = put.dialect().upsert(ON_NATURAL_KEY, &["parent", "localtime", "rssi"]);
    let find = Found {
        by: |state: &State| Some((state.node?, state.time.clone()?)),
        sql: "SELECT time, seq_num FROM NodeState WHERE localId IS NULL AND nodeId = ?",
        kinds: &[Kind::Time, Kind::Int],
        key: |node, cells| Some((cells.first()?.clone().text(), Some(node), cells.get(1)?.int())),
    };
    let key = |state: &State| (state.time.clone(), state.node, state.seq_num);
    put.rows(INTO, &natural, |state| state.place, |state| cells_of(state, None), &upsert, key, find).await
}

async fn store_identified(put: &mut Put<'_>, states: &[State], origin: Origin) -> Result<(), sqlx::Error> {
    let mut there = identities(put, states, origin).await?;
    put.had.extend(states.iter().filter(|state| !there.insert(identity(state))).map(|state| state.place));
    let upsert = put.dialect().upsert(ON_IDENTITY, &["generation", "parent", "localtime", "seq_num", "rssi"]);
    put.all(INTO, states, |state| cells_of(state, Some(origin)), &upsert).await
}

/// Stores states whatever is there.
pub(super) async fn insert(put: &mut Put<'_>, states: &[State]) -> Result<(), sqlx::Error> {
    put.all(INTO, states, |state| cells_of(state, None), "").await
}

fn cells_of(state: &State, origin: Option<Origin>) -> Cells {
    let int = |number: Option<i64>| number.map_or(Cell::Null, Cell::Int);
    vec![
        state.time.clone().map_or(Cell::Null, Cell::Time),
        int(state.node),
        int(state.parent),
        int(state.localtime),
        int(state.seq_num),
        int(state.rssi),
        origin.map_or(Cell::Null, |origin| Cell::Text(origin.source.to_string())),
        int(origin.map(|origin| i64::from(origin.generation.0))),
        int(state.local_id.filter(|_| origin.is_some())),
    ]
}

/// What makes two states of one source one.
type Identity = (i64, Option<String>, Option<i64>);

fn identity(state: &State) -> Identity {
    (state.local_id.unwrap_or_default(), state.time.clone(), state.node)
}

/// Which of the source's states with these local ids are here.
async fn identities(put: &mut Put<'_>, states: &[State], origin: Origin) -> Result<HashSet<Identity>, sqlx::Error> {
    let ids: Vec<i64> = states.iter().filter_map(|state| state.local_id).collect();
    let mut there = HashSet::new();
    for ids in asked(&ids) {
        let places = vec!["?"; ids.len()].join(", ");
        let sql = format!("SELECT localId, time, nodeId FROM NodeState WHERE source = ? AND localId IN ({places})");
        let cells = [Cell::Text(origin.source.to_string())].into_iter().chain(ids.into_iter().map(Cell::Int));
        let rows = put.change().fetch(sql, cells, &[Kind::Int, Kind::Time, Kind::Int]).await?;
        there.extend(rows.into_iter().filter_map(|row| {
            let [id, time, node] = <[Cell; 3]>::try_from(row).ok()?;
            Some((id.int()?, time.text(), node.int()))
        }));
    }
    Ok(there)
}

/// Gives a state that is here without identity the one that it now comes with: a gateway's first request may have been stored before it
/// knew this receiver for what it is, and its answer lost.
async fn adopt(put: &mut Put<'_>, states: &[State], origin: Origin) -> Result<(), sqlx::Error> {
    let any = "SELECT id FROM NodeState WHERE source IS NULL AND localId IS NULL LIMIT 1".to_owned();
    if put.change().one(any, [], Kind::Int).await?.int().is_none() {
        return Ok(());
    }
    let there = identities(put, states, origin).await?;
    let mut times: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for state in states.iter().filter(|state| !there.contains(&identity(state))) {
        if let (Some(node), Some(time)) = (state.node, &state.time) {
            times.entry(node).or_default().push(time.clone());
        }
    }
    let mut bare = HashMap::new();
    for (node, times) in times {
        for times in asked(&times) {
            let places = vec!["?"; times.len()].join(", ");
            let sql =
                format!("SELECT id, time, seq_num FROM NodeState WHERE localId IS NULL AND nodeId = ? AND time IN ({places})");
            let cells = [Cell::Int(node)].into_iter().chain(times.into_iter().map(Cell::Time));
            for row in put.change().fetch(sql, cells, &[Kind::Int, Kind::Time, Kind::Int]).await? {
                let Ok([id, time, seq_num]) = <[Cell; 3]>::try_from(row) else { continue };
                bare.insert((time.text(), Some(node), seq_num.int()), id);
            }
        }
    }
    for state in states.iter().filter(|state| !there.contains(&identity(state))) {
        let Some(id) = bare.remove(&(state.time.clone(), state.node, state.seq_num)) else { continue };
        let sql = "UPDATE NodeState SET source = ?, generation = ?, localId = ? WHERE id = ?".to_owned();
        let source = Cell::Text(origin.source.to_string());
        let generation = Cell::Int(i64::from(origin.generation.0));
        put.change().execute(sql, [source, generation, state.local_id.map_or(Cell::Null, Cell::Int), id]).await?;
    }
    Ok(())
}
