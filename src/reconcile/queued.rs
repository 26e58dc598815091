//! What the outbox holds of each node and hour: rows that wait or are parked are not missing.
//!
//! The one rule: a row of the outbox is the same as one of the source when its id (where it has one) and its natural key are.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    domain::{Rows, Stream},
    outbox::{Outbox, ParkedCursor, StoreError},
};

/// Records read at a time.
const PAGE_ROWS: usize = 10_000;
/// Parked chunks read at a time.
const PAGE_CHUNKS: usize = 64;

/// A node and an hour of a stream.
pub(super) type Place = (Stream, i64, i64);

/// Rows of the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queued {
    /// Waiting to be sent.
    pub waiting: u64,
    /// Set aside.
    pub parked: u64,
}

/// Where a row of the outbox lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Where {
    Waiting,
    Parked,
}

/// What a row is known by within this gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Identity {
    id: Option<i64>,
    key: [Option<i64>; 4],
}

impl Identity {
    pub(super) fn of(rows: &Rows, row: usize) -> Self {
        let spec = rows.stream().spec();
        let mut key = [None; 4];
        for (part, &place) in key.iter_mut().zip(spec.checked) {
            *part = rows.int(place, row);
        }
        Self { id: spec.row_id.and_then(|place| rows.int(place, row)), key }
    }
}

/// How many rows of each node and hour are in the outbox.
pub(super) async fn count(outbox: &Outbox) -> Result<BTreeMap<Place, Queued>, StoreError> {
    let mut counts = BTreeMap::<Place, Queued>::new();
    each(outbox, |rows, place| {
        for row in 0..rows.len() {
            if let Some((node, hour)) = rows.bucket(row) {
                let entry = counts.entry((rows.stream(), node, hour)).or_default();
                match place {
                    Where::Waiting => entry.waiting += 1,
                    Where::Parked => entry.parked += 1,
                }
            }
        }
    })
    .await?;
    Ok(counts)
}

/// The rows of some nodes and hours that are in the outbox.
pub(super) async fn identities(outbox: &Outbox, wanted: &HashSet<Place>) -> Result<HashMap<Identity, Where>, StoreError> {
    let mut found = HashMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    each(outbox, |rows, place| {
        for row in 0..rows.len() {
            let is_wanted = rows.bucket(row).is_some_and(|(node, hour)| wanted.contains(&(rows.stream(), node, hour)));
            if is_wanted {
                found.insert(Identity::of(rows, row), place);
            }
        }
    })
    .await?;
    Ok(found)
}

async fn each(outbox: &Outbox, mut look: impl FnMut(&Rows, Where)) -> Result<(), StoreError> {
    for stream in Stream::ALL {
        let mut from = outbox.snapshot().stream(stream).cursor;
        while let Some(batch) = outbox.lease(stream, from, PAGE_ROWS).await? {
            from = batch.end();
            look(&batch.rows, Where::Waiting);
        }
    }
    let mut cursor = Some(ParkedCursor::default());
    while let Some(from) = cursor {
        let (chunks, next) = outbox.parked_page(from, PAGE_CHUNKS).await?;
        for chunk in &chunks {
            look(&chunk.rows, Where::Parked);
        }
        cursor = next;
    }
    Ok(())
}
