//! The receiver over the wire, on a MariaDB server: the same tests as on a file, and what only a server can do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

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
#[path = "receiver/lists.rs"]
mod lists;
#[allow(dead_code, reason = "each test binary uses a part of it")]
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "receiver/objects.rs"]
mod objects;
#[path = "receiver/readings.rs"]
mod readings;
#[path = "receiver/runs.rs"]
mod runs;
#[path = "receiver/server.rs"]
mod server;
#[path = "receiver/states.rs"]
mod states;

use std::sync::atomic::{AtomicU32, Ordering};

use central::Central;
use common::*;
use mariadb::Mariadb;
use packhorse::receiver::Manner;

/// MariaDB takes -0.0 for 0.0.
const KEEPS_NEGATIVE_ZERO: bool = false;

/// The packhorse manner on a database of its own; the legacy manners know files only.
fn fresh(manner: Manner) -> Central {
    if manner != Manner::Packhorse {
        return Central::start(manner);
    }
    let server = Mariadb::shared();
    let name = database(server, 1);
    Central::on_server(&server.url("root", "", &name), server.admin(&name))
}

/// A new database on a server that flushes its log as asked.
fn database(server: &Mariadb, flush: u8) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("phr_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let sql = format!(
        "SET GLOBAL innodb_flush_log_at_trx_commit = {flush}; DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET latin1"
    );
    central::on(&server.admin("mysql"), &sql);
    name
}
