//! What the store holds: one tree of keys and values.
//!
//! ```text
//! m                                    -> Meta: format version, epoch, source id, destination
//! s stream                             -> StreamState: next, cursor, watermark, counts, what is known of its rows elsewhere
//! c stream first-seq                   -> pending chunk
//! h kind local-id parked-id            -> parked chunk, held until that entity is mapped
//! r parked-id                          -> parked chunk, refused until an operator decides
//! e generation kind local-id           -> catalog entity
//! k generation kind local-id           -> its central id
//! b generation kind local-id           -> what was last brought to the destination of it, with central ids
//! i stream                             -> Intent: the run of that stream that the next request carries, and all else that may have arrived
//! j                                    -> CreateIntent: the entity that is being created at the destination
//! g stream                             -> LedgerState: floor, borders of days and months, the walk through the whole table
//! l stream place node                  -> ledger entry: width, rows, checksum of their keys
//! a stream place node                  -> the same, of rows that were captured ahead of the watermark
//! n                                    -> Notes: last success, last trouble, the next parked id
//! ```
//!
//! Numbers in keys are big-endian, so that keys sort as numbers do; local ids have their sign bit flipped for the same reason.
//!
//! The one rule: a change of anything here is a new [`FORMAT_VERSION`], and a store of another version is left alone and told.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{elsewhere::Elsewhere, ledger::Side};
use crate::domain::{EntityKind, Epoch, Generation, LocalId, LocalRef, Micros, Position, Seq, Slot, SourceId, Stream};

/// The version of keys and values in the store.
pub const FORMAT_VERSION: u16 = 3;

/// What a store is, written in its first commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// [`FORMAT_VERSION`] of the program that made it. Stays the first field in every version.
    pub format_version: u16,
    /// Its life.
    pub epoch: Epoch,
    /// Whose rows it holds.
    pub source: SourceId,
    /// The destination's name in the configuration.
    pub destination: String,
    /// Which database stands behind the source now.
    pub generation: Generation,
}

/// Where one stream stands. I5: next = pending + acked + parked ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// The seq of the next record to be appended.
    pub next: Seq,
    /// The first seq that is not yet settled.
    pub cursor: Seq,
    /// Where capture stands.
    pub watermark: Position,
    /// Whether it has been decided where capture begins (`start` in the configuration).
    pub started: bool,
    /// Records that the destination took.
    pub acked: u64,
    /// Records that were ever set aside.
    pub parked_ever: u64,
    /// Of these, those appended anew.
    pub returned: u64,
    /// Of these, those dropped by an operator.
    pub discarded: u64,
    /// Encoded bytes of pending chunks.
    pub live_bytes: u64,
    /// What is known of its rows elsewhere.
    pub elsewhere: Elsewhere,
}

impl Default for StreamState {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamState {
    /// A stream in which nothing has happened yet.
    pub fn new() -> Self {
        Self {
            next: Seq(0),
            cursor: Seq(0),
            watermark: Position::Start,
            started: false,
            acked: 0,
            parked_ever: 0,
            returned: 0,
            discarded: 0,
            live_bytes: 0,
            elsewhere: Elsewhere::default(),
        }
    }

    /// Records that wait to be delivered.
    pub fn pending(&self) -> u64 {
        self.next.since(self.cursor)
    }

    /// Records that were captured: what was appended but for rows that had been set aside and returned.
    pub fn captured(&self) -> u64 {
        self.next.0.saturating_sub(self.returned)
    }

    /// Records that are set aside now.
    pub fn parked_now(&self) -> u64 {
        self.parked_ever - self.returned - self.discarded
    }
}

/// How the rows of a run were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// All of them in one request, or none: as a bulk is atomic, they arrived together or not at all.
    Whole,
    /// Some of them, or in several requests: each may have arrived or not.
    Parts,
}

/// The run of records that a request carries: on disk before the request is sent, so that after a crash it is known which rows may
/// have arrived. It covers all that may have arrived of its stream, however small the requests become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The stream.
    pub stream: Stream,
    /// The first seq of the run.
    pub first: Seq,
    /// The seq after its last.
    pub end: Seq,
    /// How they were sent.
    pub extent: Extent,
}

/// An entity that is being created at the destination: on disk before the request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateIntent {
    /// The entity.
    pub what: LocalRef,
    /// How long the server may be busy with it, by what it took for others: a later life of this program waits that out before it looks
    /// whether the entity is there.
    pub patience_ms: u32,
}

/// Why rows are parked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// An entity that they point to has no counterpart at the destination (yet). They return by themselves.
    Held(LocalRef),
    /// They cannot be delivered as they are; they wait for an operator. What was said of them, shortened.
    Refused(String),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Held(what) => write!(f, "held until {what} is mapped"),
            Self::Refused(why) => write!(f, "refused: {why}"),
        }
    }
}

/// What stands before the chunk in a parked value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The stream of its rows.
    pub stream: Stream,
    /// How many.
    pub count: u32,
    /// When they were parked (gateway's clock).
    pub at: Micros,
    /// Why.
    pub reason: Reason,
}

/// Reasons are cut to this many bytes, so that a parked value stays within [`codec::CHUNK_BYTES_MAX`](crate::codec::CHUNK_BYTES_MAX).
pub const REASON_BYTES_MAX: usize = 500;
/// What a parked chunk itself may take.
pub const PARKED_CHUNK_BYTES_MAX: usize = crate::codec::CHUNK_BYTES_MAX - 2 * REASON_BYTES_MAX;

/// What people want to know and no decision hangs on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// When the destination last took something.
    pub last_success: Option<Micros>,
    /// The last trouble with the destination, and when it began.
    pub last_trouble: Option<(Micros, String)>,
    /// The number of the next parked chunk.
    pub next_parked: u64,
}

pub(super) const META: &[u8] = b"m";
pub(super) const CREATE_INTENT: &[u8] = b"j";
pub(super) const NOTES: &[u8] = b"n";
pub(super) const HELD: &[u8] = b"h";
pub(super) const REFUSED: &[u8] = b"r";
pub(super) const ENTITIES: &[u8] = b"e";
pub(super) const MAPPINGS: &[u8] = b"k";
pub(super) const BROUGHT: &[u8] = b"b";

/// Longer keys and values than these are not ours.
pub(super) const KEPT_KEY_BYTES_MAX: usize = 64;
pub(super) const KEPT_VALUE_BYTES_MAX: usize = 65_536;
/// What is kept in the copy of parked rows too.
pub(super) const KEPT_TWICE: [&[u8]; 4] = [ENTITIES, HELD, META, REFUSED];

/// Whether an entry is kept in the copy of parked rows too, because the source may not be able to give it again: parked rows, the entities that
/// they need, and whose they are.
pub(super) fn is_kept_twice(key: &[u8], value: &[u8]) -> bool {
    let fits = key.len() <= KEPT_KEY_BYTES_MAX && value.len() <= KEPT_VALUE_BYTES_MAX;
    fits && (key == META || [ENTITIES, HELD, REFUSED].iter().any(|prefix| key.starts_with(prefix)))
}

pub(super) fn stream_key(stream: Stream) -> [u8; 2] {
    [b's', stream.number()]
}

pub(super) fn intent_key(stream: Stream) -> [u8; 2] {
    [b'i', stream.number()]
}

pub(super) fn chunk_prefix(stream: Stream) -> [u8; 2] {
    [b'c', stream.number()]
}

pub(super) fn chunk_key(stream: Stream, first: Seq) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&chunk_prefix(stream));
    key[2..].copy_from_slice(&first.0.to_be_bytes());
    key
}

pub(super) fn first_of_chunk_key(key: &[u8]) -> Option<Seq> {
    Some(Seq(u64::from_be_bytes(key.get(2..10)?.try_into().ok()?)))
}

pub(super) fn ledger_state_key(stream: Stream) -> [u8; 2] {
    [b'g', stream.number()]
}

pub(super) fn ledger_prefix(side: Side, stream: Stream) -> [u8; 2] {
    let first = match side {
        Side::Behind => b'l',
        Side::Ahead => b'a',
    };
    [first, stream.number()]
}

pub(super) fn ledger_key(side: Side, stream: Stream, slot: Slot) -> [u8; 18] {
    let mut key = [0; 18];
    key[..2].copy_from_slice(&ledger_prefix(side, stream));
    key[2..10].copy_from_slice(&sortable(LocalId(slot.place)));
    key[10..].copy_from_slice(&sortable(LocalId(slot.node)));
    key
}

pub(super) fn parse_ledger_key(key: &[u8]) -> Option<Slot> {
    let place = unsortable(key.get(2..10)?.try_into().ok()?).0;
    Some(Slot { place, node: unsortable(key.get(10..18)?.try_into().ok()?).0 })
}

fn sortable(id: LocalId) -> [u8; 8] {
    ((id.0 as u64) ^ (1 << 63)).to_be_bytes()
}

fn unsortable(bytes: [u8; 8]) -> LocalId {
    LocalId((u64::from_be_bytes(bytes) ^ (1 << 63)) as i64)
}

pub(super) fn held_prefix(what: LocalRef) -> Vec<u8> {
    [HELD, &[what.kind.number()], &sortable(what.id)].concat()
}

pub(super) fn parked_key(reason: &Reason, number: u64) -> Vec<u8> {
    match reason {
        Reason::Held(what) => [held_prefix(*what).as_slice(), &number.to_be_bytes()].concat(),
        Reason::Refused(_) => [REFUSED, &number.to_be_bytes()].concat(),
    }
}

/// The number stands at the end of the keys of held and of refused rows alike.
pub(super) fn number_of_parked_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.last_chunk()?))
}

pub(super) fn entity_key(prefix: &[u8], generation: Generation, what: LocalRef) -> Vec<u8> {
    [prefix, &generation.0.to_be_bytes(), &[what.kind.number()], &sortable(what.id)].concat()
}

pub(super) fn parse_entity_key(key: &[u8]) -> Option<(Generation, LocalRef)> {
    let generation = Generation(u32::from_be_bytes(key.get(1..5)?.try_into().ok()?));
    let kind = EntityKind::from_number(*key.get(5)?)?;
    let id = unsortable(key.get(6..14)?.try_into().ok()?);
    Some((generation, LocalRef { kind, id }))
}

pub(super) fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    let bytes = bincode::serde::encode_to_vec(value, bincode::config::standard());
    bytes.unwrap_or_else(|error| unreachable!("values of the store encode: {error}"))
}

/// A value and how many bytes it took; `None` for bytes that are not one.
pub(super) fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, usize)> {
    let config = bincode::config::standard().with_limit::<65_536>();
    bincode::serde::decode_from_slice(bytes, config).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_do() {
        let ids = [i64::MIN, -5, -1, 0, 1, 300, i64::MAX].map(|id| LocalRef { kind: EntityKind::Node, id: LocalId(id) });
        let keys = ids.map(|what| entity_key(ENTITIES, Generation(3), what));
        assert!(keys.is_sorted());
        for (key, what) in keys.iter().zip(ids) {
            assert_eq!(parse_entity_key(key), Some((Generation(3), what)));
        }
        let slots = [(-5, 3), (-1, -2), (-1, 7), (400_000, i64::MIN), (400_000, 0)].map(|(place, node)| Slot { place, node });
        let keys = slots.map(|slot| ledger_key(Side::Behind, Stream::Reading, slot));
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| parse_ledger_key(&key).unwrap()), slots);
        assert!(chunk_key(Stream::Reading, Seq(255)) < chunk_key(Stream::Reading, Seq(256)));
        assert_eq!(first_of_chunk_key(&chunk_key(Stream::NodeState, Seq(9))), Some(Seq(9)));
    }
}
