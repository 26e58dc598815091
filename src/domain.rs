//! The language that every other room speaks: sequence numbers, rows, entities, verdicts.
//!
//! The one rule: nothing here does I/O, waits, reads a clock or draws a random number. Whatever a decision needs comes in as a value.

mod entity;
mod freshness;
mod ids;
pub mod ledger;
mod mappings;
mod position;
mod retry;
mod rows;
mod stream;
mod time;
mod verdict;
pub mod witness;

pub use entity::{
    Brought, Catalog, Deployment, Entity, EntityKind, House, LocalRef, Location, Node, NodeType, Room, RoomType, Sensor,
    SensorType,
};
pub use freshness::Freshness;
pub use ids::{Epoch, Generation, LocalId, RemoteId, Seq, SourceId};
pub use ledger::{Order, Slot, Tallies, Tally};
pub use mappings::Mappings;
pub use position::Position;
pub use retry::{Jitter, Retry};
pub use rows::{Cell, Column, Rows};
pub use stream::{ColumnKind, ColumnSpec, Stream, StreamSpec};
pub use time::Micros;
pub use verdict::{Heard, Outcome, RefusedRow, Told, Trace, Verdict};
