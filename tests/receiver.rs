//! The receiver over the wire, on a SQLite file: what it stores, what it refuses, what it finds again, in the packhorse manner and, where
//! they differ, in the legacy ones. `receiver_mariadb.rs` holds it to the same on a server.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "receiver/access.rs"]
mod access;
#[path = "support/central.rs"]
mod central;
#[path = "receiver/common.rs"]
mod common;
#[path = "receiver/deletes.rs"]
mod deletes;
#[path = "receiver/fuzz.rs"]
mod fuzz;
#[path = "receiver/gateways.rs"]
mod gateways;
#[path = "receiver/hostile.rs"]
mod hostile;
#[path = "receiver/legacy.rs"]
mod legacy;
#[path = "receiver/life.rs"]
mod life;
#[path = "receiver/lists.rs"]
mod lists;
#[path = "receiver/objects.rs"]
mod objects;
#[path = "receiver/readings.rs"]
mod readings;
#[path = "receiver/runs.rs"]
mod runs;
#[path = "receiver/states.rs"]
mod states;

use central::Central;
use common::*;
use packhorse::receiver::Manner;

const KEEPS_NEGATIVE_ZERO: bool = true;

fn fresh(manner: Manner) -> Central {
    Central::start(manner)
}
