//! What the integration tests stand on: a private MariaDB, a cogent-house database for each test, real data to fill it with, a
//! comparison of both ends, and a link that can be cut.
//!
//! The one rule: nothing here shares code with what it judges. Rows are counted by SQL.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(missing_docs, reason = "not published")]

pub mod compare;
pub mod database;
pub mod forward;
pub mod front;
pub mod gateway;
pub mod greenhouse;
pub mod link;
pub mod mariadb;
pub mod proxy;
pub mod scene;
pub mod small_disk;

pub use compare::{Comparison, compare, is_equal};
pub use database::{Database, Schema};
pub use greenhouse::{Loaded, load_greenhouse};
pub use mariadb::Mariadb;
pub use proxy::Proxy;
pub use scene::{Scene, assert_exit};
pub use small_disk::SmallDisk;

/// The position after a row, as a table with an id or without one is paged.
pub fn position(rows: &packhorse::domain::Rows, row: usize) -> Option<packhorse::domain::Position> {
    rows.id_position(row).or_else(|| rows.key_position(row))
}
