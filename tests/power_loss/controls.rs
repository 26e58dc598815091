//! Negative controls: durability broken on purpose must be found out, and so must a model that expects the wrong thing.

use std::process::Command;

use packhorse::domain::{EntityKind, LocalId, LocalRef, Micros, Position, RemoteId, Stream};

use crate::{
    block_on,
    disk::{self, Disk, Node, Survives},
    lossy_fs::is_available,
    seed,
    shadow::State,
    trial::{Moment, Tally, Trial},
};

/// Runs a test of this binary in a process of its own, with the store's own fdatasync left out.
fn with_plain_flush(test: &str) -> (bool, String) {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("PACKHORSE_TEST_PLAIN_FLUSH", "1")
        .env("PACKHORSE_CYCLES", "20")
        .env_remove("PACKHORSE_LONG")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
    assert!(said.contains("running 1 test"), "{said}");
    (run.status.success(), said)
}

#[test]
fn with_the_plain_flush_of_sled_the_suite_reports_losses() {
    if !is_available() {
        return;
    }
    for test in [
        "cycles::the_outbox_survives_power_loss_at_random_moments",
        "cycles::every_fsync_from_creation_through_the_first_commits_may_be_the_last",
        "model::the_outbox_does_what_the_model_says",
    ] {
        let (passed, said) = with_plain_flush(test);
        assert!(!passed && said.contains("LOST"), "{test} does not notice that nothing is fsynced:\n{said}");
        let finding = said.lines().find(|line| line.starts_with("LOST")).unwrap_or_default();
        println!("{test} with the plain flush: {finding}");
    }
}

#[test]
fn with_the_plain_flush_rows_that_were_reported_durable_are_gone() {
    if !is_available() {
        return;
    }
    let (passed, said) = with_plain_flush("controls::rows_survive_the_loss_of_everything_unsynced");
    assert!(!passed && said.contains("LOST"), "{said}");
}

#[test]
fn rows_survive_the_loss_of_everything_unsynced() {
    if !is_available() {
        return;
    }
    let mut tally = Tally::default();
    block_on(async {
        let mut trial = Trial::new(5, &mut tally);
        trial.live(Moment::Idle, 40, Survives::Nothing).await.unwrap();
        let size = trial.durable().unwrap().size();
        assert!(size > 100, "there is something to lose");
        trial.check().await.unwrap_or_else(|failure| panic!("{failure}"));
    });
}

/// Each way in which an outbox may come up wrong, as a model that expects something else.
#[test]
fn a_state_that_differs_in_anything_is_reported() {
    if !is_available() {
        return;
    }
    let seed = seed();
    let somewhere = LocalRef { kind: EntityKind::House, id: LocalId(1) };
    let tampers: [fn(&mut State, LocalRef); 8] = [
        |state, _| state.pending[0] = state.pending[0].slice(1, state.pending[0].len()),
        |state, _| {
            let last = state.pending[0].len() - 1;
            let mut times: Vec<_> = (0..=last).map(|row| state.pending[0].int(0, row)).collect();
            times[last] = times[last].map(|time| time ^ 1);
            state.pending[0] = state.pending[0].clone().with_ints(0, times);
        },
        |state, _| state.streams[usize::from(Stream::Reading.number())].watermark = Position::Start,
        |state, _| state.streams[usize::from(Stream::NodeState.number())].acked += 1,
        |state, what| {
            state.mappings.insert(what, RemoteId(1));
        },
        |state, what| state.create_intent = Some(what),
        |state, _| state.intents = [None; Stream::ALL.len()],
        |state, _| state.last_trouble = Some((Micros(-1), "never".into())),
    ];
    let mut tally = Tally::default();
    block_on(async {
        for (number, tamper) in tampers.into_iter().enumerate() {
            let mut trial = Trial::new(seed, &mut tally);
            // As long as the state has something of everything.
            while !trial
                .durable()
                .is_some_and(|state| state.intents.iter().any(Option::is_some) && !state.pending(Stream::Reading).is_empty())
            {
                trial.live(Moment::Idle, 10, Survives::Nothing).await.unwrap_or_else(|failure| panic!("{failure}"));
            }
            trial.tamper(|state| tamper(state, somewhere));
            let failure = trial.check().await.expect_err(&format!("tamper {number} is not noticed"));
            assert!(failure.to_string().starts_with("LOST"), "{failure}");
        }
    });
}

#[test]
fn the_disk_keeps_what_was_fsynced_and_forgets_the_rest() {
    let mut disk = Disk::new();
    let made = disk.create(disk::ROOT, "a".as_ref(), disk::file()).unwrap();
    disk.write(made, 0, b"synced").unwrap();
    disk.fsync(made, 1).unwrap();
    disk.write(made, 3, b"???").unwrap();
    disk.fsync(disk::ROOT, 2).unwrap();
    let nameless = disk.create(disk::ROOT, "b".as_ref(), disk::file()).unwrap();
    disk.write(nameless, 0, b"content without a name").unwrap();
    disk.fsync(nameless, 3).unwrap();
    disk.rename(disk::ROOT, "a".as_ref(), disk::ROOT, "c".as_ref()).unwrap();
    disk.lose_power(Survives::Nothing, 0);
    assert_eq!(disk.look_up(disk::ROOT, "a".as_ref()), Ok(made));
    assert!(disk.look_up(disk::ROOT, "b".as_ref()).is_err() && disk.look_up(disk::ROOT, "c".as_ref()).is_err());
    assert!(matches!(disk.node(made), Ok(Node::File { current, .. }) if current == b"synced"));
}

#[test]
fn a_reordered_loss_tears_writes_at_sectors_and_keeps_any_of_them() {
    let mut patterns = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut disk = Disk::new();
        let made = disk.create(disk::ROOT, "a".as_ref(), disk::file()).unwrap();
        disk.write(made, 0, &[0; 2_048]).unwrap();
        disk.fsync(made, 1).unwrap();
        disk.fsync(disk::ROOT, 2).unwrap();
        disk.write(made, 100, &[1; 1_500]).unwrap();
        disk.lose_power(Survives::Reordered, seed);
        let Ok(Node::File { current, .. }) = disk.node(made) else { panic!("a file") };
        let sectors: Vec<u8> = [100, 511, 512, 1_023, 1_024, 1_535, 1_536, 1_599].iter().map(|&at| current[at]).collect();
        assert!(sectors.chunks(2).all(|pair| pair[0] == pair[1]), "torn within a sector: {sectors:?}");
        patterns.insert(sectors);
    }
    assert_eq!(patterns.len(), 16, "every combination of the four sectors turns up");
}
