//! Disks that answer with errors instead of losing power: told, survived without a restart, and never a retried fsync.

use packhorse::{
    domain::Stream,
    outbox::{DataDir, Outbox, StoreError},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    block_on,
    disk::{Fault, Survives},
    lossy_fs::is_available,
    seed,
    trial::{Failure, Moment, Phase, Tally, Trial},
    workload,
};

async fn survives_a_fault(fault: Fault, sort: Option<Phase>, seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut trial = Trial::new(seed, tally);
    let life = trial.machine.boot();
    let data = trial.own(&life.path().join("data")).await?.expect("power");
    let outbox = trial.opened(&data).await?;
    trial.change(&outbox, chance.random_range(0..20)).await?;

    let refused = match sort {
        Some(sort) => trial.prepare(&outbox, sort).await?,
        // Larger than the buffer in which sled collects writes.
        None if chance.random_bool(0.6) => workload::append_rows(50_000, &mut chance),
        None => workload::append_rows(chance.random_range(1..1_000), &mut chance),
    };
    trial.machine.set_fault(Some(fault));
    let error = trial.failing_change(&outbox, refused).await?;
    assert!(matches!(error, StoreError::Io { .. } | StoreError::Damaged { .. }), "{error}");
    assert_closed(&outbox).await;
    if chance.random_bool(0.5) {
        // Closed while the disk is still at fault, and opened too early: an error, not the end of the process.
        drop_quietly(outbox).await?;
        if let Ok(outbox) = trial.try_open(&data).await? {
            // A failing fsync is noticed at the first one.
            assert!(fault != Fault::FsyncFails && fault != Fault::ReadOnly, "opened on a disk with {fault:?}");
            drop_quietly(outbox).await?;
        }
        trial.machine.set_fault(None);
    } else {
        trial.machine.set_fault(None);
        assert_closed(&outbox).await;
        drop_quietly(outbox).await?;
    }
    assert!(!trial.machine.disk().retried_fsync(), "a second fsync of what failed would report a success that is none");

    // The same mount, so that the kernel still shows what it could not write.
    let outbox = trial.opened(&data).await?;
    trial.change(&outbox, chance.random_range(1..20)).await?;
    drop_quietly(outbox).await?;
    drop(data);
    trial.machine.cut_power();
    drop(life);
    trial.machine.lose_power(Survives::Nothing, 0);
    trial.check().await?;
    trial.live(Moment::Idle, 10, Survives::Nothing).await?;
    trial.check().await
}

async fn drop_quietly(outbox: Outbox) -> Result<(), Failure> {
    crate::trial::close(outbox).await
}

async fn assert_closed(outbox: &Outbox) {
    let again = outbox.note_trouble(packhorse::domain::Micros(0), "again".into()).await;
    assert!(matches!(again, Err(StoreError::Closed)), "{again:?}");
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    if state.pending() > 0 {
        let read = outbox.lease(Stream::Reading, state.cursor, 1).await;
        assert!(matches!(read, Err(StoreError::Closed)), "{read:?}");
    }
}

/// What a disk refuses: every sort of commit in turn, and rows in between.
const SORTS: [Option<Phase>; 8] =
    [Some(Phase::Ack), None, Some(Phase::Park), None, Some(Phase::Return), Some(Phase::Discard), None, Some(Phase::Other)];

fn on_every_disk_with(fault: Fault) {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let rounds = if crate::is_long() { 40 } else { 8 };
    let result = block_on(async {
        for (round, sort) in (0..rounds).zip(SORTS.into_iter().cycle()) {
            let done = survives_a_fault(fault, sort, seed.wrapping_add(round), &mut tally).await;
            done.map_err(|failure| Failure(format!("{failure} ({fault:?}, {sort:?})")))?;
        }
        Ok::<_, Failure>(())
    });
    println!("{fault:?}: {rounds} times; {tally}");
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn a_failed_fsync_is_told_and_what_it_did_not_write_is_not_taken_for_written() {
    on_every_disk_with(Fault::FsyncFails);
}

#[test]
fn a_failed_write_is_told_and_survived() {
    on_every_disk_with(Fault::WriteFails);
}

#[test]
fn a_write_that_fails_while_a_commit_waits_for_it_is_told_and_survived() {
    on_every_disk_with(Fault::WriteFailsLate);
}

#[test]
fn a_full_disk_is_told_and_survived() {
    on_every_disk_with(Fault::Full);
}

#[test]
fn a_disk_that_became_read_only_is_told_and_survived() {
    on_every_disk_with(Fault::ReadOnly);
}

/// The copy is given up, and the outbox goes on with the store that it has.
async fn survives_a_refused_compaction(fault: Fault, seed: u64, tally: &mut Tally) -> Result<(), Failure> {
    let mut trial = Trial::new(seed, tally);
    let life = trial.machine.boot();
    let data = trial.own(&life.path().join("data")).await?.expect("power");
    let outbox = trial.opened(&data).await?;
    trial.change(&outbox, 20).await?;
    trial.machine.set_fault(Some(fault));
    let refused = outbox.compact(|_, _| {}).await;
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    trial.machine.set_fault(None);
    trial.change(&outbox, 5).await?;
    drop_quietly(outbox).await?;
    drop(data);
    trial.machine.cut_power();
    drop(life);
    trial.machine.lose_power(Survives::Nothing, 0);
    trial.check().await
}

#[test]
fn a_compaction_that_the_disk_refuses_leaves_the_outbox_at_work() {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let rounds = if crate::is_long() { 10 } else { 2 };
    for fault in [Fault::FsyncFails, Fault::WriteFails, Fault::Full, Fault::ReadOnly] {
        for round in 0..rounds {
            let done = block_on(survives_a_refused_compaction(fault, seed.wrapping_add(round), &mut tally));
            done.unwrap_or_else(|failure| panic!("{failure} ({fault:?})"));
        }
    }
    println!("compaction refused: {tally}");
}

#[test]
fn a_data_dir_on_a_read_only_disk_is_told() {
    if !is_available() {
        return;
    }
    let mut tally = Tally::default();
    let mut trial = Trial::new(1, &mut tally);
    let life = trial.machine.boot();
    trial.machine.set_fault(Some(Fault::ReadOnly));
    let error = DataDir::own(&life.path().join("data"), || 7).unwrap_err();
    assert!(error.to_string().contains("cannot use data_dir"), "{error}");
}
