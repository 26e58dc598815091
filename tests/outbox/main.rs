//! The outbox on real files, seen from outside: its size, its disk, and what damage leaves of it.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod compaction;
mod damage;
mod ends;
mod figures;
mod image;
#[expect(dead_code, reason = "shared with the power-loss suite, which uses more of it")]
#[path = "../power_loss/shadow.rs"]
mod shadow;
#[expect(dead_code, reason = "shared with the power-loss suite, which uses more of it")]
#[path = "../power_loss/workload.rs"]
mod workload;
