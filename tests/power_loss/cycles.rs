//! The outbox survives power loss: at random moments, and at every fsync and every change of its creation and its recovery.

use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    aims, block_on,
    disk::{Cut, Survives},
    is_long,
    lossy_fs::is_available,
    seed,
    trial::{End, Failure, Moment, Phase, Tally, Trial},
};

/// Power losses that one disk goes through at most, before a new one is taken.
const LOSSES_PER_DISK_MAX: u64 = 30;

fn moment(chance: &mut StdRng) -> Moment {
    match chance.random_range(0..10) {
        0 => Moment::Cut(Cut::AtChange(chance.random_range(1..12))),
        1 | 2 => Moment::Cut(Cut::AtChange(chance.random_range(1..200))),
        3 | 4 => Moment::Cut(Cut::BeforeFsync(chance.random_range(1..50))),
        5 | 6 => Moment::Cut(Cut::AfterFsync(chance.random_range(1..50))),
        7 => Moment::Idle,
        8 => Moment::Close(Cut::AtChange(chance.random_range(1..4))),
        _ => Moment::Halt,
    }
}

/// Every other loss is at a random moment; the others aim at each state in turn.
async fn random_cycles(seed: u64, cycles: u64, tally: &mut Tally) -> Result<(), Failure> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while done < cycles {
        // Two disks keep an order in what they write, the third does not: what it holds may be beyond sled.
        let reordering = chance.random_range(0..3) == 0;
        let mut trial = Trial::new(chance.random(), tally);
        for life in 0..chance.random_range(1..=LOSSES_PER_DISK_MAX).min(cycles - done) {
            let aim = (done % 2 == 0).then(|| aims::ALL[(done / 2) as usize % aims::ALL.len()]);
            let is_fresh = life == 0;
            let is_possible = match aim {
                Some(Phase::Creation) => trial.durable().is_none(),
                Some(Phase::Recovery) => trial.durable().is_some(),
                _ => true,
            };
            if !is_possible && !is_fresh {
                break;
            }
            let aim = aim.filter(|_| is_possible);
            let survives = match (reordering, chance.random_bool(0.5)) {
                (true, _) => Survives::Reordered,
                (false, true) => Survives::Nothing,
                (false, false) => Survives::Prefix,
            };
            // Now and then enough for sled to fill segments, and to use freed ones again.
            let changes = if chance.random_bool(0.1) { chance.random_range(0..600) } else { chance.random_range(0..60) };
            let moment = match aim {
                Some(aim) => aims::at(aim, &mut chance),
                None => moment(&mut chance),
            };
            if trial.live(moment, changes, survives).await? == End::Told {
                break;
            }
            done += 1;
        }
        trial.check().await?;
    }
    Ok(())
}

fn report(title: &str, tally: &Tally, result: Result<(), Failure>) {
    println!("{title}: {tally}");
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

#[test]
fn the_outbox_survives_power_loss_at_random_moments() {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let result = block_on(random_cycles(seed, crate::cycles(), &mut tally));
    report("power loss at random moments", &tally, result);
    for phase in aims::ALL {
        assert!(tally.phases.contains_key(&phase), "the power never went in {phase:?}");
    }
}

/// A new disk for each moment, from its first fsync (change) to where the first commits are made.
async fn from_the_first(seed: u64, cut: impl Fn(u64) -> Cut, variants: &[Survives], tally: &mut Tally) -> Result<(), Failure> {
    for survives in variants {
        for moment in 1.. {
            let mut trial = Trial::new(seed.wrapping_add(moment), tally);
            let at = |failure: Failure| Failure(format!("{failure} ({survives:?}, {:?})", cut(moment)));
            let end = trial.live(Moment::Cut(cut(moment)), 5, *survives).await.map_err(at)?;
            trial.check().await.map_err(at)?;
            if end == End::Lost(Phase::Idle) {
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn every_fsync_from_creation_through_the_first_commits_may_be_the_last() {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let variants = [Survives::Nothing, Survives::Prefix, Survives::Reordered];
    let result = block_on(async {
        from_the_first(seed, Cut::BeforeFsync, &variants, &mut tally).await?;
        from_the_first(seed, Cut::AfterFsync, &variants, &mut tally).await
    });
    report("power loss at every fsync of creation", &tally, result);
}

#[test]
fn every_change_of_creation_may_be_the_last() {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let rounds = if is_long() { 5 } else { 1 };
    let result = block_on(async {
        for round in 0..rounds {
            let seed = seed.wrapping_add(round << 32);
            from_the_first(seed, Cut::AtChange, &[Survives::Prefix, Survives::Reordered], &mut tally).await?;
        }
        Ok(())
    });
    report("power loss at every change of creation", &tally, result);
}

/// One disk: filled, and then the power goes at the first change of opening it, at the second, and so on, each time again.
async fn through_recovery(seed: u64, survives: Survives, tally: &mut Tally) -> Result<(), Failure> {
    let mut trial = Trial::new(seed, tally);
    for round in 0..3 {
        let mut end = trial.live(Moment::Cut(Cut::AtChange(150 + 40 * round)), 60, survives).await?;
        for change in 1.. {
            if matches!(end, End::Told | End::Lost(Phase::Idle)) {
                break;
            }
            end = trial.live(Moment::Cut(Cut::AtChange(change)), 0, survives).await?;
        }
        if end == End::Told {
            return Ok(());
        }
    }
    trial.check().await
}

#[test]
fn recovery_itself_may_be_interrupted_at_every_change_again_and_again() {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let result = block_on(async {
        for survives in [Survives::Nothing, Survives::Prefix, Survives::Reordered] {
            through_recovery(seed, survives, &mut tally).await.map_err(|failure| Failure(format!("{failure} ({survives:?})")))?;
        }
        Ok(())
    });
    report("power loss during recovery", &tally, result);
}

/// One disk: filled, and then the power goes at the first moment of compacting it, at the second, and so on, each time again.
async fn through_compaction(seed: u64, cut: fn(u64) -> Cut, survives: Survives, tally: &mut Tally) -> Result<(), Failure> {
    let mut trial = Trial::new(seed, tally);
    if trial.live(Moment::Idle, 80, Survives::Nothing).await? == End::Told {
        return Ok(());
    }
    for moment in 1.. {
        match trial.compact_until(cut(moment), survives).await? {
            End::Told => return Ok(()),
            End::Lost(Phase::Idle) => break,
            End::Lost(_) => {}
        }
    }
    trial.check().await
}

#[test]
fn compaction_may_be_interrupted_at_every_fsync_and_every_change() {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let cuts: [fn(u64) -> Cut; 3] = [Cut::BeforeFsync, Cut::AfterFsync, Cut::AtChange];
    let result = block_on(async {
        for survives in [Survives::Nothing, Survives::Prefix, Survives::Reordered] {
            for cut in cuts {
                let done = through_compaction(seed, cut, survives, &mut tally).await;
                done.map_err(|failure| Failure(format!("{failure} ({survives:?}, {:?})", cut(0))))?;
            }
        }
        Ok(())
    });
    report("power loss during compaction", &tally, result);
    assert!(tally.phases.get(&Phase::Compaction).is_some_and(|losses| *losses > 30), "it was interrupted");
}

/// One disk: power losses in changes of one sort, and after some of them sled's file is gone altogether.
async fn without_the_store(seed: u64, phase: Phase, survives: Survives, tally: &mut Tally) -> Result<(), Failure> {
    let mut trial = Trial::new(seed, tally);
    let cuts = [
        Cut::BeforeFsync(1),
        Cut::AfterFsync(1),
        Cut::BeforeFsync(2),
        Cut::AfterFsync(2),
        Cut::AtChange(1),
        Cut::AtChange(2),
        Cut::AtChange(3),
    ];
    trial.live(Moment::Within(Phase::Park, Cut::AfterFsync(9)), 30, Survives::Nothing).await?;
    for cut in cuts {
        let at = |failure: Failure| Failure(format!("{failure} ({phase:?}, {survives:?}, {cut:?})"));
        trial.live(Moment::Within(phase, cut), 3, survives).await.map_err(at)?;
        trial.destroy_stores().map_err(|error| Failure(format!("{error}")))?;
        trial.check().await.map_err(at)?;
    }
    Ok(())
}

#[test]
fn what_was_parked_survives_power_loss_followed_by_the_loss_of_the_store() {
    if !is_available() {
        return;
    }
    let (seed, mut tally) = (seed(), Tally::default());
    let rounds = if is_long() { 8 } else { 1 };
    let result = block_on(async {
        for round in 0..rounds {
            for phase in [Phase::Append, Phase::Park, Phase::Return, Phase::Discard, Phase::Compaction] {
                for survives in [Survives::Nothing, Survives::Prefix, Survives::Reordered] {
                    without_the_store(seed.wrapping_add(round), phase, survives, &mut tally).await?;
                }
            }
        }
        Ok(())
    });
    let rebuilt: u64 = tally.rebuilt.values().sum();
    report("power loss, and then no store", &tally, result);
    assert!(rebuilt >= 100 * rounds, "they were rebuilt");
}
