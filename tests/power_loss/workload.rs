//! Random changes of an outbox, as capture and sender make them; the same seed makes the same ones.

use packhorse::{
    domain::{Column, Entity, EntityKind, Freshness, LocalId, LocalRef, Micros, Node, Position, RemoteId, Rows, Stream},
    outbox::{
        Captured, CreateIntent, Extent, Intent, Outbox, Reason, SetAside, StoreError,
        verbs::{Fate, ParkedPlace, Pick},
    },
};
use rand::{Rng, rngs::StdRng};

use crate::shadow::{Change, State};

const NODES: i64 = 4;

pub fn node(id: i64) -> LocalRef {
    LocalRef { kind: EntityKind::Node, id: LocalId(id) }
}

/// Rows with values that no two pages share.
pub fn rows(stream: Stream, count: usize, chance: &mut StdRng) -> Rows {
    let mut ints = |from: i64, to: i64, null: f64| {
        let value = |_| (!chance.random_bool(null)).then(|| chance.random_range(from..to));
        Column::Int((0..count).map(value).collect())
    };
    let columns = match stream {
        Stream::Reading => {
            let mut columns = vec![ints(0, 1 << 50, 0.0), ints(0, NODES, 0.0), ints(0, 9, 0.0), ints(0, 5, 0.2)];
            columns.push(Column::Float((0..count).map(|_| Some(f32::from_bits(chance.random()))).collect()));
            columns
        }
        Stream::NodeState => vec![
            ints(0, 1 << 40, 0.0),
            ints(0, 1 << 50, 0.1),
            ints(0, NODES, 0.0),
            ints(0, NODES, 0.5),
            ints(0, 1 << 32, 0.0),
            ints(0, 256, 0.3),
            ints(-100, 0, 0.3),
        ],
    };
    Rows::new(stream, columns)
}

/// Where capture may stand.
pub fn position(stream: Stream, chance: &mut StdRng) -> Position {
    match stream {
        Stream::Reading => {
            Position::Key { time: Micros(chance.random_range(0..1 << 50)), rest: vec![chance.random_range(0..9); 2] }
        }
        Stream::NodeState => Position::Id(chance.random_range(0..1 << 40)),
    }
}

fn append(stream: Stream, chance: &mut StdRng, at: Micros) -> Change {
    let count = match chance.random_range(0..10) {
        0 => 0,
        1 => chance.random_range(500..3_000),
        _ => chance.random_range(1..200),
    };
    let entity = |chance: &mut StdRng| {
        let it = Node { location: Some(LocalId(chance.random_range(0..1_000))), node_type: None };
        (node(chance.random_range(-NODES..NODES)), Entity::Node(it))
    };
    let catalog = (0..chance.random_range(0..3)).map(|_| entity(chance)).collect();
    Change::Append { rows: rows(stream, count, chance), watermark: position(stream, chance), catalog, at }
}

fn extent(chance: &mut StdRng) -> Extent {
    if chance.random_bool(0.5) { Extent::Whole } else { Extent::Parts }
}

/// A settlement of a part of what waits; some of it may be set aside.
pub fn settle(state: &State, stream: Stream, chance: &mut StdRng, at: Micros) -> Change {
    let waiting = state.pending(stream).len();
    let count = chance.random_range(1..=waiting.min(1_500));
    let mut refused = Vec::new();
    let mut held: Vec<Vec<usize>> = vec![Vec::new(); NODES as usize];
    if chance.random_bool(0.4) {
        let reference = if stream == Stream::Reading { 1 } else { 2 };
        for row in 0..count {
            match chance.random_range(0..12) {
                0 => refused.push(row),
                1 => held[state.pending(stream).int(reference, row).unwrap() as usize].push(row),
                _ => {}
            }
        }
    }
    let held = held.into_iter().enumerate().map(|(id, rows)| (Reason::Held(node(id as i64)), rows));
    let refused = (Reason::Refused("does not fit".into()), refused);
    let aside = held.chain([refused]).filter(|(_, rows)| !rows.is_empty()).collect();
    let end = state.stream(stream).cursor.plus(count as u64);
    let rest = (waiting - count) as u64;
    let extent = extent(chance);
    let next = (rest > 0 && chance.random_bool(0.7)).then(|| Intent { stream, first: end, end: end.plus(rest.min(500)), extent });
    Change::Settle { stream, count, aside, next, at }
}

/// Some of what is parked for a reason.
///
/// # Panics
/// When nothing is.
pub fn take(state: &State, chance: &mut StdRng, fate: Fate) -> Change {
    let (reason, stream) = state.parked.keys().nth(chance.random_range(0..state.parked.len())).unwrap().clone();
    Change::Take { reason, stream, of_the_first: usize::MAX, every: chance.random_range(1..4), fate }
}

/// That many readings, in one commit.
pub fn append_rows(count: usize, chance: &mut StdRng) -> Change {
    let watermark = position(Stream::Reading, chance);
    Change::Append { rows: rows(Stream::Reading, count, chance), watermark, catalog: Vec::new(), at: Micros(0) }
}

/// The next change of an outbox in that state.
pub fn next(state: &State, chance: &mut StdRng) -> Change {
    let at = Micros(chance.random_range(0..1 << 50));
    let stream = if chance.random_bool(0.7) { Stream::Reading } else { Stream::NodeState };
    // What is held is not left to grow beyond what returns in one commit.
    let held: Vec<LocalRef> = state.held().collect();
    if !held.is_empty() && chance.random_bool(0.25) {
        return Change::ReturnHeld(held[chance.random_range(0..held.len())]);
    }
    if chance.random_bool(0.03) {
        return Change::Compact;
    }
    if !state.parked.is_empty() && chance.random_bool(0.1) {
        let fate = if chance.random_bool(0.5) { Fate::Return } else { Fate::Discard };
        return take(state, chance, fate);
    }
    match chance.random_range(0..20) {
        0..7 if !state.pending(stream).is_empty() => settle(state, stream, chance, at),
        0..16 => append(stream, chance, at),
        16 => {
            let id = |chance: &mut StdRng| chance.random_bool(0.8).then(|| RemoteId(chance.random_range(0..1_000)));
            Change::Map((0..chance.random_range(1..4)).map(|what| (node(what), id(chance))).collect())
        }
        17 => {
            let first = state.stream(stream).cursor;
            let end = first.plus(chance.random_range(1..50));
            Change::Intend(Intent { stream, first, end, extent: extent(chance) })
        }
        18 => Change::IntendCreate(chance.random_bool(0.6).then(|| node(chance.random_range(0..NODES)))),
        _ if chance.random_bool(0.5) => Change::Start { stream, position: position(stream, chance) },
        _ => Change::NoteTrouble { at, trouble: "the server was away".into() },
    }
}

/// Chunks that are changed in one commit.
const TAKE_CHUNKS_MAX: usize = 16;

/// The chunks that are parked for a reason, whole.
async fn parked_for(outbox: &Outbox, reason: &Reason, stream: Stream) -> Result<Vec<Pick>, StoreError> {
    let (chunks, _) = outbox.parked_rows(ParkedPlace::new(), usize::MAX).await?;
    let chunks = chunks.into_iter().filter(|chunk| chunk.parked.reason == *reason && chunk.parked.stream == stream);
    Ok(chunks.map(|chunk| chunk.pick).collect())
}

/// The change, of as many rows as one commit takes: after a new life has begun, repeats wait beside new rows, which share no batch, and
/// how many chunks there are only the outbox knows.
pub async fn fitted(outbox: &Outbox, change: Change) -> Change {
    let (stream, count, aside, next, at) = match change {
        Change::Settle { stream, count, aside, next, at } => (stream, count, aside, next, at),
        Change::Take { reason, stream, of_the_first, every, fate } => {
            // Where it cannot be read it cannot be changed either.
            let chunks = parked_for(outbox, &reason, stream).await.unwrap_or_default();
            let rows: usize = chunks.iter().take(TAKE_CHUNKS_MAX).map(|chunk| chunk.rows.len()).sum();
            return Change::Take { reason, stream, of_the_first: of_the_first.min(rows), every, fate };
        }
        other => return other,
    };
    let cursor = outbox.snapshot().stream(stream).cursor;
    let leased = match outbox.lease(stream, cursor, count).await {
        Ok(Some(batch)) => batch.rows.len(),
        // It fails for good when it is made.
        Ok(None) | Err(_) => count,
    };
    if leased == count {
        return Change::Settle { stream, count, aside, next, at };
    }
    let within = |rows: Vec<usize>| rows.into_iter().filter(|row| *row < leased).collect::<Vec<_>>();
    let aside = aside.into_iter().map(|(reason, rows)| (reason, within(rows))).filter(|(_, rows)| !rows.is_empty()).collect();
    Change::Settle { stream, count: leased, aside, next: None, at }
}

/// Makes a change; `Ok` means that the outbox reported it durable.
pub async fn make(outbox: &Outbox, change: Change) -> Result<(), StoreError> {
    match change {
        Change::Start { stream, position } => outbox.start(stream, position).await,
        Change::Append { rows, watermark, catalog, at } => {
            outbox.append(Captured { rows, watermark, catalog, freshness: Freshness::New, at }).await
        }
        Change::Settle { stream, count, aside, next, at } => {
            let cursor = outbox.snapshot().stream(stream).cursor;
            let batch = outbox.lease(stream, cursor, count).await?.expect("records that the model says are pending");
            assert_eq!(batch.rows.len(), count, "a lease gives what is asked for");
            let aside = aside.into_iter().map(|(reason, rows)| SetAside { reason, rows }).collect();
            outbox.settle(batch, aside, next, at).await
        }
        Change::Take { reason, stream, of_the_first, every, fate } => {
            let mut from = 0;
            let mut picks = Vec::new();
            for mut chunk in parked_for(outbox, &reason, stream).await? {
                let to = from + chunk.rows.len();
                if to > of_the_first {
                    break;
                }
                chunk.rows = (from..to).filter(|row| row % every == 0).map(|row| row - from).collect();
                picks.push(chunk);
                from = to;
            }
            let wanted = of_the_first.div_ceil(every) as u64;
            let taken = outbox.take(&picks, fate).await?;
            assert_eq!(taken, wanted, "all that was picked");
            Ok(())
        }
        Change::ReturnHeld(what) => outbox.return_held(what).await.map(drop),
        Change::Map(pairs) => outbox.map(pairs).await,
        Change::Intend(intent) => outbox.intend(intent).await,
        Change::IntendCreate(what) => outbox.intend_create(what.map(|what| CreateIntent { what, patience_ms: 5_000 })).await,
        Change::NoteTrouble { at, trouble } => outbox.note_trouble(at, trouble).await,
        Change::Compact => outbox.compact(|_, _| {}).await.map(drop),
    }
}
