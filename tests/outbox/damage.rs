//! Damage of every kind to copies of a filled outbox: it opens with the rows that it had, or is rebuilt from its sidecar with nothing
//! missing and what can be read of the parked rows; never a panic, never a row that was not there, never an empty start.
//!
//! `PACKHORSE_DAMAGES` sets how many, `PACKHORSE_SEED` repeats a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use packhorse::{
    domain::{Epoch, Rows},
    outbox::StoreError,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    ends,
    image::{self, Files, Image},
    shadow::{State, observe},
};

const PAGE: usize = 4_096;
/// Longer than any opening takes.
const PATIENCE: Duration = Duration::from_mins(1);

/// What befalls the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    BitFlip,
    ManyBitFlips,
    Truncated,
    Emptied,
    ZeroedPages,
    GarbagePages,
    Grown,
    Missing,
    OlderFile,
    FileOfAnother,
    ForeignFile,
    LeftoverSnapshot,
    Several,
}

const KINDS: [Kind; 13] = [
    Kind::BitFlip,
    Kind::ManyBitFlips,
    Kind::Truncated,
    Kind::Emptied,
    Kind::ZeroedPages,
    Kind::GarbagePages,
    Kind::Grown,
    Kind::Missing,
    Kind::OlderFile,
    Kind::FileOfAnother,
    Kind::ForeignFile,
    Kind::LeftoverSnapshot,
    Kind::Several,
];

fn flip(content: &mut [u8], times: usize, chance: &mut StdRng) {
    for _ in 0..times {
        if let Some(last) = content.len().checked_sub(1) {
            content[chance.random_range(0..=last)] ^= 1 << chance.random_range(0..8);
        }
    }
}

/// Overwrites some pages of a file.
fn overwrite(content: &mut [u8], chance: &mut StdRng, byte: fn(&mut StdRng) -> u8) {
    for _ in 0..chance.random_range(1..5) {
        let from = chance.random_range(0..=content.len() / PAGE) * PAGE;
        let to = content.len().min(from + PAGE * chance.random_range(1..9));
        content.get_mut(from..to).into_iter().flatten().for_each(|at| *at = byte(chance));
    }
}

/// Does it; gives the name of the file that it was done to.
fn damage(kind: Kind, files: &mut Files, image: &Image, another: &Image, chance: &mut StdRng) -> String {
    if kind == Kind::Several {
        let times = chance.random_range(2..5);
        // An older sidecar is a bound of an older store: beside a damaged one it says less than it should, and nothing shows it.
        let others = KINDS.into_iter().filter(|kind| !matches!(kind, Kind::Several | Kind::OlderFile | Kind::FileOfAnother));
        let others: Vec<Kind> = others.collect();
        let kinds: Vec<Kind> = (0..times).map(|_| *others.choose(chance).unwrap()).collect();
        return kinds.into_iter().map(|kind| damage(kind, files, image, another, chance)).collect::<Vec<_>>().join(", ");
    }
    // Half of it goes where most bytes are.
    let names: Vec<String> = files.keys().cloned().collect();
    let Some(name) = names.iter().find(|name| name.ends_with("/db") && chance.random_bool(0.5)).or_else(|| names.choose(chance))
    else {
        return "nothing".into();
    };
    let folder = name.split('/').next().filter(|_| name.contains('/')).unwrap_or("gen-000001").to_owned();
    let content = files.get_mut(name).unwrap();
    match kind {
        Kind::BitFlip => flip(content, 1, chance),
        Kind::ManyBitFlips => {
            let times = chance.random_range(2..200);
            flip(content, times, chance);
        }
        Kind::Truncated => content.truncate(chance.random_range(0..=content.len())),
        Kind::Emptied => content.clear(),
        Kind::ZeroedPages => overwrite(content, chance, |_| 0),
        Kind::GarbagePages => overwrite(content, chance, StdRng::random),
        Kind::Grown => content.extend((0..chance.random_range(1..2 * PAGE)).map(|_| chance.random::<u8>())),
        Kind::Missing => drop(files.remove(name)),
        Kind::OlderFile => match image.earlier.get(name) {
            Some(older) => content.clone_from(older),
            None => drop(files.remove(name)),
        },
        Kind::FileOfAnother => {
            if let Some(other) = another.files.get(name) {
                content.clone_from(other);
            }
        }
        Kind::ForeignFile => {
            let garbage = (0..chance.random_range(0..300)).map(|_| chance.random()).collect();
            let names = ["readme.txt", "db.bak", "snap.00000000000000FF", "blobs/7", "lock", "replaces", "gen-000001"];
            files.entry(format!("{folder}/{}", names.choose(chance).unwrap())).or_insert(garbage);
        }
        Kind::LeftoverSnapshot => {
            files.insert(format!("{folder}/snap.0000000000000{:03X}.generating", chance.random_range(0..4_096)), vec![7; 90]);
        }
        Kind::Several => unreachable!("is made of others"),
    }
    name.clone()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// As it was.
    Whole,
    /// As it once was, not before what its sidecar knows: the watermark is that of then.
    Older,
    /// A new epoch that misses nothing.
    Rebuilt,
    /// The same, and parked rows were taken over.
    RebuiltWithParked,
    /// A human must decide.
    Told,
}

/// The copy of parked rows that lies beside the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    Whole,
    MaybeDamaged,
}

/// A row that is parked and was never parked for that reason in any of these states.
fn parked_nowhere(found: &State, history: &[State]) -> Option<String> {
    let all = |rows: &Rows| (0..rows.len()).map(|row| format!("{:?}", rows.slice(row, row + 1))).collect::<Vec<_>>();
    found.parked.iter().find_map(|(key, rows)| {
        let known: BTreeSet<String> = history.iter().filter_map(|state| state.parked.get(key)).flat_map(all).collect();
        all(rows).into_iter().find(|row| !known.contains(row))
    })
}

async fn open(path: &std::path::Path, epoch: u64) -> Result<State, StoreError> {
    let path = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || ends::open(&path, epoch));
    let outbox = tokio::time::timeout(PATIENCE, opened).await.expect("it opens or fails in time").expect("no panic")?;
    let found = observe(&outbox).await;
    tokio::task::spawn_blocking(move || drop(outbox)).await.expect("no panic");
    found
}

/// What becomes of files, of which the copy of parked rows may be damaged or not; an error is what must not be.
async fn judge(files: &Files, image: &Image, epoch: u64, copy: Copy) -> Result<Outcome, String> {
    let dir = tempfile::tempdir().unwrap();
    image::write(files, dir.path());
    let found = match open(dir.path(), epoch).await {
        Ok(found) => found,
        // Noticed only while it was read; the daemon opens it again.
        Err(StoreError::Damaged { .. } | StoreError::Closed) => match open(dir.path(), epoch).await {
            Ok(found) => found,
            Err(error) => return Err(format!("it does not come up: {error}")),
        },
        Err(StoreError::Foreign { .. } | StoreError::Format { .. }) => return Ok(Outcome::Told),
        Err(error) => return Err(format!("it does not open: {error}: {:?}", std::error::Error::source(&error))),
    };
    let again = open(dir.path(), epoch + 1).await.map_err(|error| format!("it does not open again: {error}"))?;
    if let Some(difference) = found.difference(&again) {
        return Err(format!("it is another one when it is opened again: {difference}"));
    }
    let last = image.last();
    if found.epoch == last.epoch {
        return match image.history.iter().rposition(|state| state.difference(&found).is_none()) {
            Some(at) if at + 1 == image.history.len() => Ok(Outcome::Whole),
            Some(_) => Ok(Outcome::Older),
            None => Err(format!("it was never like this: {}", last.difference(&found).unwrap_or_default())),
        };
    }
    if found.epoch != Epoch(epoch) {
        return Err(format!("the epoch {} was never given", found.epoch));
    }
    if let Some(missing) = last.not_captured_from(&found) {
        return Err(format!("rebuilt without {missing}"));
    }
    if let Some(wrong) = parked_nowhere(&found, &image.history) {
        return Err(format!("rebuilt with a parked row that never was: {wrong}"));
    }
    if copy == Copy::Whole
        && let Some(missing) = last.parked_and_not_in(&found)
    {
        return Err(format!("rebuilt without {missing}, which the copy has"));
    }
    if found.pending.iter().any(|rows| !rows.is_empty()) {
        return Err("rebuilt with rows that wait".into());
    }
    Ok(if found.parked.is_empty() { Outcome::Rebuilt } else { Outcome::RebuiltWithParked })
}

fn damages() -> usize {
    let given = std::env::var("PACKHORSE_DAMAGES").ok().map(|damages| damages.parse().unwrap());
    given.unwrap_or(if ends::is_long() { 5_000 } else { 260 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_of_every_kind_loses_nothing_and_invents_nothing() {
    let seed = std::env::var("PACKHORSE_SEED").ok().map_or_else(rand::random, |seed| seed.parse().unwrap());
    println!("PACKHORSE_SEED={seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let mut images = Vec::new();
    for number in 0..6 {
        images.push(Image::fill(chance.random::<u32>().into(), 30 + 20 * number, number % 2 == 0).await);
    }
    for image in &images {
        assert_eq!(judge(&image.files, image, 5, Copy::Whole).await, Ok(Outcome::Whole), "without damage");
    }
    let mut counts = BTreeMap::<Kind, BTreeMap<Outcome, usize>>::new();
    for number in 0..damages() {
        let (image, another) = (images.choose(&mut chance).unwrap(), images.choose(&mut chance).unwrap());
        let (kind, mut files) = (KINDS[number % KINDS.len()], image.files.clone());
        let name = damage(kind, &mut files, image, another, &mut chance);
        // A foreign file may take the place of its folder.
        let copy = if name.contains("parked-copy") || matches!(kind, Kind::Several | Kind::ForeignFile) {
            Copy::MaybeDamaged
        } else {
            Copy::Whole
        };
        let outcome = judge(&files, image, u64::MAX / 2, copy).await;
        let outcome = outcome.unwrap_or_else(|wrong| panic!("damage {number}, {kind:?} of {name}: {wrong}"));
        *counts.entry(kind).or_default().entry(outcome).or_default() += 1;
    }
    let total = |outcome| counts.values().filter_map(|counts| counts.get(&outcome)).sum::<usize>();
    println!("{} damaged outboxes:", damages());
    for (kind, counts) in &counts {
        println!("  {kind:?}: {counts:?}");
    }
    assert!(total(Outcome::Whole) > 0 && total(Outcome::Rebuilt) + total(Outcome::RebuiltWithParked) > 0, "both happen");
}
