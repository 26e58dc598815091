//! The outbox on real files, seen from outside: its size, its disk, and what damage leaves of it.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod compaction;
mod ends;
