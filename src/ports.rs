//! The only two seams: where rows come from ([`Source`]) and where they go ([`Sink`]).
//!
//! The one rule: an adapter decides nothing about retries, parking or progress. It says what happened, with advice, and returns.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::{
    Catalog, Entity, EntityKind, Epoch, Generation, Micros, Outcome, Position, RemoteId, Rows, Seq, SourceId, Stream, Tallies,
};

pub use crate::domain::Order;

/// A stream as this source has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStream {
    /// Which one.
    pub stream: Stream,
    /// How it is paged.
    pub order: Order,
}

/// One page to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The stream.
    pub stream: Stream,
    /// Rows after this position.
    pub after: Position,
    /// For streams paged by key: only rows with an earlier time (the settle horizon). Ignored for streams paged by id.
    pub before: Option<Micros>,
    /// At most this many rows.
    pub limit: u32,
}

/// Which rows of a stream to count: a range of times, and of these only the rows that capture has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Rows from this time on; `None` from the first one that is a date.
    pub from: Option<Micros>,
    /// Rows before this time. A caller keeps the range to days, not years: the answer has a bucket for each node and hour in it.
    pub to: Micros,
    /// Only rows up to and including this position in paging order: the watermark. With `Start` there are none.
    pub upto: Position,
}

/// The rows of one node in one hour. Rows without a time or a node are in no bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket {
    /// The node.
    pub node: i64,
    /// Hours since 1970, [`Micros::hour`].
    pub hour: i64,
    /// How many rows.
    pub rows: u64,
    /// The same for the same rows in any order: [`Rows::key_checksum`].
    pub checksum: u64,
}

/// Some rows of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketRequest {
    /// The stream.
    pub stream: Stream,
    /// The bucket's node.
    pub node: i64,
    /// The bucket's hour, since 1970.
    pub hour: i64,
    /// Only rows up to and including this position in paging order, as in [`Buckets`].
    pub upto: Position,
    /// Rows after this one, [`Rows::bucket_position`] of the last row of the page before; `Start` for the first page.
    pub after: Position,
    /// At most this many rows.
    pub limit: u32,
}

/// A part of a stream's table, in whole places (hours, or blocks of ids), and of that only what capture is concerned with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The stream.
    pub stream: Stream,
    /// The first place.
    pub from: i64,
    /// The place after the last.
    pub to: i64,
    /// Only rows after this position.
    pub floor: Position,
    /// Only rows up to and including this position; `None`: all of them.
    pub upto: Option<Position>,
}

/// Which slots to count. A caller bounds the span: the answer has a tally for each slot in it, and costs what a scan of it costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TallyRequest {
    /// Where.
    pub span: Span,
    /// How many places a slot is wide; the span begins and ends at multiples of it.
    pub unit: i64,
}

/// Some rows of one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRequest {
    /// The places of the slot.
    pub span: Span,
    /// Its node; of no account where the table is paged by id.
    pub node: i64,
    /// Rows after this one, [`Rows::slot_position`] of the last row of the page before; `Start` for the first page.
    pub after: Position,
    /// At most this many rows.
    pub limit: u32,
}

/// What the source is, found out at connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSchema {
    /// The streams it has.
    pub streams: Vec<SourceStream>,
    /// For people: the server's version.
    pub version: String,
}

/// Why the source did not answer; what capture does about it hangs on the variant.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// No connection, or it broke, or a deadline ran out. It may come back by itself.
    #[error("cannot reach the source database: {advice}")]
    Unreachable {
        /// What happened and what to do.
        advice: String,
        /// The cause.
        #[source]
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It does not let us in or does not let us read. A human is needed; it is tried again slowly.
    #[error("the source database refuses: {advice}")]
    Denied {
        /// What happened and what to do.
        advice: String,
        /// The cause.
        #[source]
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A table or column that we need is missing or of an unusable type. A human is needed; it is tried again slowly.
    #[error("the source's schema does not fit: {advice}")]
    Schema {
        /// What is missing and what to do.
        advice: String,
    },
    /// A row cannot be decoded. It is never skipped: the stream stops here until it is mended.
    #[error("a row of the source cannot be read: {advice}")]
    Row {
        /// Which row, which column, why, and what to do.
        advice: String,
    },
    /// A query failed for another reason. It is tried again.
    #[error("a query of the source failed: {advice}")]
    Query {
        /// What happened and what to do.
        advice: String,
        /// The cause.
        #[source]
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// A database that rows are captured from. Each call has a deadline of its own; a connection on which one ran out is closed.
#[async_trait]
pub trait Source: Send {
    /// Connects where there is no live connection, and looks at the schema. Cheap when connected.
    async fn connect(&mut self) -> Result<SourceSchema, SourceError>;

    /// The database's own idea of now, UTC.
    async fn now(&mut self) -> Result<Micros, SourceError>;

    /// The next rows after a position, in paging order; fewer than the limit only when there are no more for now.
    async fn page(&mut self, request: &PageRequest) -> Result<Rows, SourceError>;

    /// The position of the last row of a stream in paging order, or `Start` when it is empty. With `before`: the last position that no row
    /// at or after that time lies before (where rows are paged by id, older rows may lie behind it as well).
    async fn last(&mut self, stream: Stream, before: Option<Micros>) -> Result<Position, SourceError>;

    /// How many rows of a stream lie after a position (and before a time): for people, may be capped at `cap`.
    async fn count_after(&mut self, request: &PageRequest, cap: u64) -> Result<u64, SourceError>;

    /// The time of the first row of a stream at or after `from`; `None` when there is none. Rows without a time do not count.
    async fn first_time(&mut self, stream: Stream, from: Option<Micros>) -> Result<Option<Micros>, SourceError>;

    /// How many rows each node has in each hour, with a checksum of their keys, by node and hour. Costs what a scan of the range costs.
    async fn buckets(&mut self, stream: Stream, range: &Buckets) -> Result<Vec<Bucket>, SourceError>;

    /// Rows of one bucket by time and then the rest of their key (the id, where the table is paged by it); fewer than the limit only when
    /// there are no more.
    async fn bucket_rows(&mut self, request: &BucketRequest) -> Result<Rows, SourceError>;

    /// How many rows each slot of a span has, with a checksum of their keys.
    async fn tallies(&mut self, request: &TallyRequest) -> Result<Tallies, SourceError>;

    /// Rows of one slot, in order; fewer than the limit only when there are no more.
    async fn slot_rows(&mut self, request: &SlotRequest) -> Result<Rows, SourceError>;

    /// The place of the first row at or after a place (of all with `None`); `None` when there is none.
    async fn first_place(&mut self, stream: Stream, from: Option<i64>) -> Result<Option<i64>, SourceError>;

    /// How many rows have an id in one of these ranges, both ends included; for streams paged by id.
    async fn count_ids(&mut self, stream: Stream, ranges: &[(i64, i64)]) -> Result<u64, SourceError>;

    /// The whole catalog, read in one transaction.
    async fn catalog(&mut self) -> Result<Catalog, SourceError>;

    /// Rows of a stream that no page can hold, because their time is not a date (`0000-00-00`): their number.
    async fn unreadable(&mut self, stream: Stream) -> Result<u64, SourceError>;
}

/// The run of records that a request stands for, as its headers tell a server that understands them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Whose rows.
    pub source: SourceId,
    /// Which database stood behind it.
    pub generation: Generation,
    /// Which life of the outbox.
    pub epoch: Epoch,
    /// The first seq of the run.
    pub first: Seq,
    /// The seq after its last.
    pub end: Seq,
    /// What comes before it is settled, and needs no receipt; at most `first`.
    pub cursor: Seq,
    /// The highest seq of that epoch that the destination took, where it is one that says so.
    pub taken: Option<Seq>,
}

/// Rows ready to be sent: every reference in them is the destination's.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The run that they come from; rows of it that are held back are missing among them.
    pub bounds: Bounds,
    /// The rows, with central ids.
    pub rows: Rows,
}

/// A catalog entity as a destination has it.
#[derive(Clone, Debug, PartialEq)]
pub struct RemoteEntity {
    /// Its id there.
    pub id: RemoteId,
    /// Its content, with that destination's ids.
    pub entity: Entity<RemoteId>,
}

/// Which entities of a kind to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// All of a kind: sensor types, room types, rooms, deployments, node types, nodes.
    All(EntityKind),
    /// The houses with an address in a deployment. A superset may come back: compare before use.
    House {
        /// The central deployment.
        deployment: Option<RemoteId>,
        /// The address.
        address: Option<String>,
    },
    /// The sensors of a node.
    Sensors {
        /// The node.
        node: RemoteId,
    },
    /// The location of a room in a house; without a room all of a house. A superset may come back: compare before use.
    Location {
        /// The central house.
        house: Option<RemoteId>,
        /// The central room.
        room: Option<RemoteId>,
    },
}

/// What a gateway says of itself now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushStatus {
    /// The gateway's label, at most 25 characters.
    pub hostname: String,
    /// The program's version, at most 20 characters.
    pub version: String,
    /// The gateway's clock.
    pub localtime: Micros,
}

/// A gateway's figures for one destination, told to a packhorse receiver beside its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records that wait.
    pub depth: u64,
    /// Records that are set aside.
    pub parked: u64,
    /// How long ago capture had all that was in the source then, seconds; `None` while it has not come to the end since the start.
    pub lag_seconds: Option<u64>,
    /// How long the oldest record has waited, seconds; `None` when none waits.
    pub oldest_age_seconds: Option<u64>,
}

/// What a bulk request came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The verdict on all rows together.
    pub outcome: Outcome,
    /// Bytes of the request's body.
    pub body_bytes: u64,
    /// How long the answer took.
    pub took: Duration,
    /// How much of that the body was on its way, at most.
    pub uploaded: Duration,
    /// How long the destination may have been at work on it, at most.
    pub answered: Duration,
}

/// Whether a destination has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has.
    There,
    /// It has not.
    Absent,
    /// The destination keeps one row a key, and has another one with the key of this one; or another of the rows that were asked about has
    /// that key.
    Merged,
}

/// How many rows of a stream a destination keeps where several of ours are one to it: of one second, node, and type or seq_num.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Each.
    Each,
    /// One, with NULL the same as 0.
    OneOfASecond,
    /// That shows with its first row.
    NotYetKnown,
}

/// What questions have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests sent.
    pub requests: u64,
    /// Bytes of bodies, both ways. Heads are not counted.
    pub body_bytes: u64,
}

/// A destination. Every call ends by itself: with an answer, or by a deadline.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Sends rows. The outcome is `Accepted` only for a valid success for all of them.
    async fn deliver(&self, delivery: &Delivery) -> Delivered;

    /// Asks for entities. An error is never `Accepted`.
    async fn find(&self, ask: &Ask) -> Result<Vec<RemoteEntity>, Outcome>;

    /// Creates an entity; `id` only for kinds with a global id. Gives it back as stored, with its id there.
    async fn create(&self, id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Result<RemoteEntity, Outcome>;

    /// Replaces an entity's content; columns that the destination has beside stay as they are there.
    async fn update(&self, entity: &RemoteEntity) -> Result<(), Outcome>;

    /// Stores the sensors of nodes. They have no call of their own: they travel as a bulk.
    async fn put_sensors(&self, sensors: &[Entity<RemoteId>]) -> Result<(), Outcome>;

    /// How many rows of a node there are from a time up to another (exclusive); both on whole seconds. One request, no rows.
    async fn count(&self, stream: Stream, node: i64, from: Micros, to: Micros) -> Result<u64, Outcome>;

    /// Which of these rows, of one stream and in any order, the destination has: an answer for each. A destination that stores a repeat
    /// as one more row answers for as many equal ones as it has. Rows without a time or a node are taken as absent.
    ///
    /// Costs about one request for each node and hour among the rows, and a list entry for each row that is there.
    async fn arrived(&self, keys: &Rows) -> Result<Vec<Presence>, Outcome>;

    /// How the destination keeps the rows of a stream. Costs a request at most, the first time.
    async fn keeping(&self, stream: Stream) -> Result<Keeping, Outcome>;

    /// Whether anybody answers there, for as little as that costs. An error when nobody does.
    async fn reach(&self) -> Result<(), Outcome> {
        Ok(())
    }

    /// What all calls together have cost.
    fn traffic(&self) -> Traffic;

    /// Reports the gateway's status.
    async fn push_status(&self, status: &PushStatus) -> Result<(), Outcome>;

    /// The same with figures, for a destination that understands them; any other is told the status alone.
    async fn push_summary(&self, status: &PushStatus, summary: &Summary) -> Result<(), Outcome> {
        let _ = summary;
        self.push_status(status).await
    }

    /// Whether the destination has shown itself to be a packhorse receiver.
    fn is_packhorse(&self) -> bool;
}
