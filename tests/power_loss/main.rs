//! Power loss: the outbox on a disk that keeps only what was fsynced.
//!
//! - [`disk`] is the disk: what is seen, what is on the platter, and what is lost between; [`lossy_fs`] mounts it.
//! - [`shadow`] is what an outbox must hold; [`workload`] changes it as capture and sender do.
//! - [`trial`] lets the power go and compares, [`aims`] says in which state; [`cycles`], [`errors`], [`data_dir`], [`discard`], [`receiver`] and [`controls`] are the tests.
//!
//! `PACKHORSE_SEED` repeats a run, `PACKHORSE_CYCLES` sets its length, `PACKHORSE_LONG=1` makes it a long one.
//!
//! The one rule: a check that cannot fail is a defect; [`controls`] breaks durability on purpose and wants to be told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod aims;
mod controls;
mod cycles;
mod data_dir;
mod discard;
mod disk;
mod errors;
mod lossy_fs;
mod model;
mod receiver;
mod shadow;
#[path = "../support/mod.rs"]
mod support;
mod trial;
mod workload;

/// The seed of this run, which is printed.
fn seed() -> u64 {
    let given = std::env::var("PACKHORSE_SEED").ok().map(|seed| seed.parse().expect("PACKHORSE_SEED is a number"));
    let seed = given.unwrap_or_else(rand::random);
    println!("PACKHORSE_SEED={seed}");
    seed
}

/// How many power losses at random moments.
fn cycles() -> u64 {
    let given = std::env::var("PACKHORSE_CYCLES").ok().map(|cycles| cycles.parse().expect("PACKHORSE_CYCLES is a number"));
    given.unwrap_or(if is_long() { 600 } else { 40 })
}

fn is_long() -> bool {
    std::env::var_os("PACKHORSE_LONG").is_some()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let result = runtime.block_on(work);
    // Not waiting for a call that hangs: the test has told of it.
    runtime.shutdown_background();
    result
}
