//! The HTTP contract as types and names, shared by the REST sink and the receiver.
//!
//! The one rule: what stands here is what legacy servers understand; what only our receiver understands is marked so, and is
//! sent only to a server that has shown itself to be one.

/// On every answer of a packhorse receiver; its value is the contract's version.
pub const RECEIVER_HEADER: &str = "packhorse-receiver";
/// The contract version that [`RECEIVER_HEADER`] carries.
pub const RECEIVER_VERSION: &str = "1";

/// Request header of a bulk that is written as legacy servers read it, by a client that could say it in full. A packhorse receiver refuses
/// it with [`IN_FULL_STATUS`]: stored without its identity (I6), a row would be there twice once the client knows whom it talks to.
pub const PLAIN_HEADER: &str = "packhorse-plain";
/// 421 Misdirected Request: the answer's [`RECEIVER_HEADER`] shows who this is; nothing was stored.
pub const IN_FULL_STATUS: u16 = 421;

/// The key of a table's name in each JSON object.
pub const TABLE_KEY: &str = "__table__";
/// Key in a NodeState object, packhorse receivers only: the row's id in the gateway's database. With source and generation it is the
/// record's identity (I6); without it the natural key (time, nodeId, seq_num) is.
pub const LOCAL_ID_KEY: &str = "localId";

mod entity;
mod error;
mod number;
mod rows;
pub mod run;
mod status;
mod time;

pub use entity::{entity_from_json, entity_to_json, list_from_json};
pub use error::WireError;
pub use number::{json_f32, json_f64};
pub use rows::{Manner, bulk_body, deflate, unsendable, write_rows};
pub use run::{RefusedRows, Run, RunAnswer, SOURCE_HEADER};
pub use status::{push_status_to_json, push_summary_to_json, summary_from_json};
pub use time::TimeWriter;
