//! packhorse carries sensor readings and node states from a gateway's local MySQL to a central REST server, over links that come and go, on
//! machines that lose power.
//!
//! ```text
//!  local MySQL      capture              outbox (sled)              sender             destination
//!  ┌────────┐ poll ┌─────────┐ append  ┌──────────────────┐ lease ┌────────┐ deliver ┌─────────────┐
//!  │ source │ ───▶ │ capture │ ──────▶ │ pending, parked  │ ────▶ │ sender │ ──────▶ │ REST server │
//!  └────────┘      └─────────┘ rows,   │ watermark,cursor │ ◀──── └────────┘ ◀────── └─────────────┘
//!                              catalog,│ intent           │ ack / park      verdict         ▲
//!                              water-  │ catalog, id map  │                                 │
//!                              mark    └──────────────────┘ ◀──────── catalog sync ─────────┘
//! ```
//!
//! One such pipeline for each destination, independent of every other.
//!
//! The invariants, cited by number in comments and tests:
//!
//! - I1 Rows, the catalog entities they need and the watermark that covers them enter in one transaction.
//! - I2 A commit is on the disk before anyone acts on it.
//! - I3 Seq is dense and never reused within an epoch.
//! - I4 The watermark never moves back silently.
//! - I5 next = pending + acked + ever parked; parked now = ever parked - returned - discarded.
//! - I6 A record keeps its natural identity on every attempt.
//! - I7 Everything is bounded: page, chunk, request, attempt time, memory, disk.
//! - I8 Only a record's own fault parks it.
//!
//! Read in this order: [`domain`] (the language), [`ports`] (the two seams), [`capture`], [`outbox`], [`sender`] (the main path),
//! [`catalog`], then the adapters [`mysql`] and [`rest`], and [`daemon`], which joins it all. [`receiver`] is the other end;
//! [`reconcile`] compares both.

pub mod capture;
pub mod catalog;
pub mod cli;
pub mod codec;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod edge;
pub mod mysql;
pub mod outbox;
pub mod ports;
pub mod pulse;
pub mod queue;
pub mod receiver;
pub mod reconcile;
pub mod rest;
pub mod sender;
pub mod status;
pub mod wire;

use std::{error::Error, fmt::Write as _};

/// An error and its causes on one line; a cause that the error before it has told is not told again.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        if !text.ends_with(&error.to_string()) {
            // Writing to a String does not fail.
            let _ = write!(text, ": {error}");
        }
        cause = error.source();
    }
    text
}
