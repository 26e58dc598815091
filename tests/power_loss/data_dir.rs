//! The data directory's identity survives power loss, or was never there; it is never garbled.

use packhorse::{
    domain::{Micros, SourceId},
    queue::act,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    block_on,
    disk::{Cut, Survives},
    lossy_fs::{Machine, is_available},
    seed,
    trial::{Tally, Trial},
};

#[test]
fn the_source_id_survives_a_power_loss_at_every_change_or_is_made_anew() {
    if !is_available() {
        return;
    }
    let (mut chance, mut tally, mut owned, mut cut) = (StdRng::seed_from_u64(seed()), Tally::default(), 0, 0);
    block_on(async {
        for survives in [Survives::Nothing, Survives::Prefix, Survives::Reordered] {
            for change in 1.. {
                let mut trial = Trial::new(chance.random(), &mut tally);
                let life = trial.machine.boot();
                trial.machine.arm(Cut::AtChange(change));
                let done = trial.own(&life.path().join("data/deep")).await.unwrap().is_some();
                trial.machine.cut_power();
                drop(life);
                trial.machine.lose_power(survives, chance.random());
                let life = trial.machine.boot();
                trial
                    .own(&life.path().join("data/deep"))
                    .await
                    .unwrap_or_else(|failure| panic!("{failure} ({survives:?}, {change})"));
                cut += 1;
                if done {
                    owned += 1;
                    break;
                }
            }
        }
    });
    println!("source id: {cut} power losses, {owned} of them after it was reported; none lost or garbled");
    assert_eq!(owned, 3);
}

/// A process that was killed between the rename and the fsync of the folder leaves a name that is seen and not durable.
#[test]
fn a_source_id_that_was_found_is_durable_too() {
    if !is_available() {
        return;
    }
    let mut tally = Tally::default();
    block_on(async {
        let mut trial = Trial::new(1, &mut tally);
        let life = trial.machine.boot();
        let data = life.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("source-id"), format!("{}\n", SourceId(77))).unwrap();
        std::fs::File::open(data.join("source-id")).unwrap().sync_all().unwrap();
        trial.expect_source(SourceId(77));
        drop(trial.own(&data).await.unwrap());
        drop(life);
        trial.machine.lose_power(Survives::Nothing, 0);
        let life = trial.machine.boot();
        trial.own(&life.path().join("data")).await.unwrap_or_else(|failure| panic!("{failure}"));
    });
}

/// A gateway would stand still after its operator has let it go on, or send what is to be kept back.
#[test]
fn a_pause_and_its_end_survive_a_power_loss_once_they_are_told() {
    if !is_available() {
        return;
    }
    let mut machine = Machine::new();
    let life = machine.boot();
    let outbox = life.path().join("central");
    std::fs::create_dir(&outbox).unwrap();
    std::fs::File::open(life.path()).unwrap().sync_all().unwrap();
    act::pause(&outbox, Micros(0)).unwrap();
    let after_power_loss = |machine: &mut Machine, life| {
        drop(life);
        machine.lose_power(Survives::Nothing, 0);
        machine.boot()
    };
    let life = after_power_loss(&mut machine, life);
    assert!(act::is_paused(&life.path().join("central")), "the pause is lost");
    act::resume(&life.path().join("central")).unwrap();
    let life = after_power_loss(&mut machine, life);
    assert!(!act::is_paused(&life.path().join("central")), "the pause is back");
    // One that was killed after removing the marker and before it was durable is repeated.
    act::pause(&life.path().join("central"), Micros(0)).unwrap();
    std::fs::remove_file(life.path().join("central/paused")).unwrap();
    act::resume(&life.path().join("central")).unwrap();
    let life = after_power_loss(&mut machine, life);
    assert!(!act::is_paused(&life.path().join("central")), "the pause is back after a second end");
}
