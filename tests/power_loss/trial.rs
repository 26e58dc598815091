//! One machine, its outbox, and power losses one after the other, each checked against what was reported durable before it.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    path::Path,
    time::{Duration, Instant},
};

use packhorse::{
    domain::{Epoch, SourceId},
    outbox::{DataDir, OpenOptions, Outbox, StoreError, verbs::Fate},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    aims,
    disk::{Cut, Survives},
    lossy_fs::{Life, Machine},
    shadow::{Change, State, observe},
    workload,
};

/// Longer than anything here takes: whatever has not answered by then hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Changes in which a cut that aims at one sort of change must have fallen.
const AIMED_CHANGES: usize = 60;
pub const DESTINATION: &str = "here";

/// When the power goes in a life.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// Wherever the cut falls, from the first touch of the disk on.
    Cut(Cut),
    /// In a change of that sort; the cut counts from its beginning.
    Within(Phase, Cut),
    /// Between two commits, after all changes were made.
    Idle,
    /// While the outbox is being closed.
    Close(Cut),
    /// Not at all: the outbox is closed and the machine halts in good order (which syncs nothing).
    Halt,
}

/// What was going on when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Creation,
    Recovery,
    Append,
    Ack,
    Park,
    Return,
    Discard,
    Compaction,
    Other,
    Idle,
    Close,
    Halt,
}

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By a power loss.
    Lost(Phase),
    /// At once: the outbox said that it is damaged (allowed only after a reordered loss).
    Told,
}

/// Why a trial failed: it begins with LOST when something that was reported durable is missing.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happened to how many.
#[derive(Debug, Default)]
pub struct Tally {
    pub losses: BTreeMap<Survives, u64>,
    pub opened: BTreeMap<Survives, u64>,
    pub told: BTreeMap<Survives, u64>,
    /// Outboxes that began a new epoch from their sidecar.
    pub rebuilt: BTreeMap<Survives, u64>,
    pub told_what: BTreeMap<String, u64>,
    pub phases: BTreeMap<Phase, u64>,
    pub commits: u64,
    pub in_flight_applied: u64,
    pub checked: u64,
    pub rows_checked: u64,
    pub fsyncs: u64,
    pub unsynced: u64,
    pub forgotten: u64,
}

impl Tally {
    fn count_disk(&mut self, machine: &Machine) {
        let counts = machine.disk().counts();
        self.fsyncs += counts.fsyncs;
        self.unsynced += counts.unsynced;
        self.forgotten += counts.forgotten;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let losses: u64 = self.losses.values().sum();
        writeln!(f, "{losses} power losses, in {:?}", self.phases)?;
        for (survives, losses) in &self.losses {
            let of = |counts: &BTreeMap<Survives, u64>| counts.get(survives).copied().unwrap_or(0);
            writeln!(
                f,
                "  {survives:?}: {losses} losses; after them {} opened with everything, {} rebuilt, {} told damaged",
                of(&self.opened),
                of(&self.rebuilt),
                of(&self.told)
            )?;
        }
        for (what, times) in &self.told_what {
            writeln!(f, "  told {times} times: {what}")?;
        }
        writeln!(f, "  {} commits reported durable, {} in flight found applied", self.commits, self.in_flight_applied)?;
        writeln!(f, "  {} states compared, {} rows and entities in them", self.checked, self.rows_checked)?;
        write!(
            f,
            "  {} fsyncs; {} operations not fsynced at a loss, {} of them forgotten",
            self.fsyncs, self.unsynced, self.forgotten
        )
    }
}

/// A machine with an outbox, and what must be in it.
pub struct Trial<'a> {
    pub machine: Machine,
    pub tally: &'a mut Tally,
    chance: StdRng,
    /// What was reported durable; `None` before the first `Ok` of an open.
    durable: Option<State>,
    /// The change whose answer was never heard.
    in_flight: Option<State>,
    source: Option<SourceId>,
    /// Source ids and epochs of attempts that may have succeeded unheard.
    sources_tried: Vec<SourceId>,
    epochs_tried: Vec<Epoch>,
    last_loss: Option<Survives>,
    /// Somebody has overwritten sled's file: a new epoch must begin.
    is_store_gone: bool,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.tally.count_disk(&self.machine);
    }
}

impl<'a> Trial<'a> {
    pub fn new(seed: u64, tally: &'a mut Tally) -> Self {
        Self {
            machine: Machine::new(),
            tally,
            chance: StdRng::seed_from_u64(seed),
            durable: None,
            in_flight: None,
            source: None,
            sources_tried: Vec::new(),
            epochs_tried: Vec::new(),
            last_loss: None,
            is_store_gone: false,
        }
    }

    /// What was reported durable so far.
    pub fn durable(&self) -> Option<&State> {
        self.durable.as_ref()
    }

    /// For a source id that something else wrote.
    pub fn expect_source(&mut self, source: SourceId) {
        self.source = Some(source);
    }

    /// For the controls: makes the model wrong.
    pub fn tamper(&mut self, tamper: impl FnOnce(&mut State)) {
        tamper(self.durable.as_mut().expect("an outbox"));
    }

    /// A life of the machine: everything is checked, then `changes` changes are made, and the power goes at its moment.
    pub async fn live(&mut self, moment: Moment, changes: usize, survives: Survives) -> Result<End, Failure> {
        let life = self.machine.boot();
        if let Moment::Cut(cut) = moment {
            self.machine.arm(cut);
        }
        let end = self.until_the_end(&life, moment, changes).await?;
        if end == End::Told {
            return Ok(end);
        }
        self.lose(life, end, survives);
        Ok(end)
    }

    fn lose(&mut self, life: Life, end: End, survives: Survives) {
        self.machine.cut_power();
        drop(life);
        let seed = self.chance.random();
        self.machine.lose_power(survives, seed);
        *self.tally.losses.entry(survives).or_default() += 1;
        if let End::Lost(phase) = end {
            *self.tally.phases.entry(phase).or_default() += 1;
        }
        self.last_loss = self.last_loss.max(Some(survives));
    }

    /// A life of the machine in which everything is checked and the outbox compacted; the cut counts from where compaction begins.
    pub async fn compact_until(&mut self, cut: Cut, survives: Survives) -> Result<End, Failure> {
        let life = self.machine.boot();
        let Some(data) = self.own(&life.path().join("data")).await? else {
            return Err(Failure("LOST: there is power, and nobody can be the owner".into()));
        };
        let outbox = match self.open(&data).await? {
            Opened::Checked(outbox) => outbox,
            Opened::NoPower | Opened::Told => return Ok(End::Told),
        };
        self.machine.arm(cut);
        let end = match within(outbox.compact(|_, _| {})).await? {
            Ok(_) => End::Lost(Phase::Idle),
            Err(_) if !self.has_power() => End::Lost(Phase::Compaction),
            Err(error) => return Err(Failure(format!("a healthy disk, and yet: {}", chain(&error)))),
        };
        self.machine.cut_power();
        close(outbox).await?;
        self.lose(life, end, survives);
        Ok(end)
    }

    async fn until_the_end(&mut self, life: &Life, moment: Moment, changes: usize) -> Result<End, Failure> {
        // Towards what it aims at it needs a change or two more, and one that is long enough for the cut.
        let aimed = if matches!(moment, Moment::Within(..)) { AIMED_CHANGES } else { 0 };
        let path = life.path().join("data");
        let opening = if self.durable.is_some() { Phase::Recovery } else { Phase::Creation };
        let Some(data) = self.own(&path).await? else { return Ok(End::Lost(opening)) };
        let mut outbox = match self.open(&data).await? {
            Opened::Checked(outbox) => outbox,
            Opened::NoPower => return Ok(End::Lost(opening)),
            Opened::Told => return Ok(End::Told),
        };
        let (mut made, mut is_armed) = (0, false);
        while made < changes + aimed {
            made += 1;
            if aimed == 0 && self.chance.random_bool(0.04) {
                close(outbox).await?;
                outbox = match self.open(&data).await? {
                    Opened::Checked(outbox) => outbox,
                    Opened::NoPower => return Ok(End::Lost(Phase::Recovery)),
                    Opened::Told => return Err(Failure("LOST: damaged by closing and opening it".into())),
                };
            }
            let before = self.durable.clone().expect("opened");
            let change = match moment {
                Moment::Within(towards, _) if made > changes => aims::towards(towards, &before, &mut self.chance),
                _ => workload::next(&before, &mut self.chance),
            };
            let change = within(workload::fitted(&outbox, change)).await?;
            let phase = phase(&change);
            if let Moment::Within(towards, cut) = moment
                && made > changes
                && phase == towards
                && !is_armed
            {
                self.machine.arm(cut);
                is_armed = true;
            }
            let after = before.after(&change);
            match within(workload::make(&outbox, change)).await? {
                Ok(()) => {
                    self.tally.commits += 1;
                    self.durable = Some(after);
                }
                Err(error) if self.has_power() => return Err(Failure(format!("a healthy disk, and yet: {}", chain(&error)))),
                Err(_) => {
                    self.in_flight = Some(after);
                    close(outbox).await?;
                    return Ok(End::Lost(phase));
                }
            }
        }
        match moment {
            Moment::Close(cut) => {
                self.machine.arm(cut);
                close(outbox).await?;
                Ok(End::Lost(if self.has_power() { Phase::Halt } else { Phase::Close }))
            }
            Moment::Within(..) => Err(Failure(format!("the power never went in {moment:?}"))),
            Moment::Cut(_) | Moment::Idle => {
                self.machine.cut_power();
                close(outbox).await?;
                Ok(End::Lost(Phase::Idle))
            }
            Moment::Halt => {
                close(outbox).await?;
                Ok(End::Lost(Phase::Halt))
            }
        }
    }

    pub fn has_power(&self) -> bool {
        self.machine.disk().is_powered()
    }

    /// Becomes the owner of the data directory and compares the source id; `None` when the power went.
    pub async fn own(&mut self, path: &Path) -> Result<Option<DataDir>, Failure> {
        let new = SourceId(self.chance.random());
        self.sources_tried.push(new);
        let path = path.to_owned();
        match off_thread(move || DataDir::own(&path, || new.0)).await? {
            Ok(data) => {
                let found = data.source();
                let expected = self.source.map_or(self.sources_tried.contains(&found), |source| source == found);
                if !expected {
                    return Err(Failure(format!("LOST: the source id: {:?} became {found}", self.source)));
                }
                self.source = Some(found);
                Ok(Some(data))
            }
            Err(_) if !self.has_power() => Ok(None),
            Err(error) => Err(Failure(format!("LOST: the data directory: {}", chain(&error)))),
        }
    }

    async fn open(&mut self, data: &DataDir) -> Result<Opened, Failure> {
        let epoch = Epoch(self.chance.random());
        self.epochs_tried.push(epoch);
        let outbox = match open(data, epoch).await? {
            Ok(outbox) => outbox,
            Err(error) => return self.not_opened(&error),
        };
        let found = match within(observe(&outbox)).await? {
            Ok(found) => found,
            Err(error) => {
                close(outbox).await?;
                // That it was opened is a promise all the same: the epoch is on the disk, and it is empty.
                return self.not_opened(&error);
            }
        };
        self.compare(found)?;
        Ok(Opened::Checked(outbox))
    }

    fn not_opened(&mut self, error: &StoreError) -> Result<Opened, Failure> {
        if !self.has_power() {
            return Ok(Opened::NoPower);
        }
        if self.last_loss == Some(Survives::Reordered) {
            *self.tally.told.entry(Survives::Reordered).or_default() += 1;
            *self.tally.told_what.entry(kind(error)).or_default() += 1;
            return Ok(Opened::Told);
        }
        let size = self.durable.as_ref().map_or(0, State::size);
        Err(Failure(format!("LOST: an outbox that held {size} rows and entities does not open: {}", chain(error))))
    }

    /// What was found must be what was reported durable, or that with the one change whose answer was never heard.
    fn compare(&mut self, found: State) -> Result<(), Failure> {
        if self.is_store_gone && self.durable.as_ref().is_some_and(|durable| durable.epoch == found.epoch) {
            return Err(Failure("LOST: a store that is gone was not replaced".into()));
        }
        if let Some(durable) = self.durable.take() {
            if found.epoch != durable.epoch && self.epochs_tried.contains(&found.epoch) {
                return self.compare_rebuilt(&durable, found);
            }
            self.durable = Some(durable);
        }
        let expected = match &self.durable {
            Some(durable) => durable.clone(),
            None if self.epochs_tried.contains(&found.epoch) => State::fresh(found.epoch),
            None => return Err(Failure(format!("LOST: the epoch {} was never given", found.epoch))),
        };
        if let Some(difference) = expected.difference(&found) {
            let applied = self.in_flight.as_ref().is_some_and(|in_flight| in_flight.difference(&found).is_none());
            if !applied {
                let unheard = self.in_flight.as_ref().and_then(|in_flight| in_flight.difference(&found));
                let unheard =
                    unheard.map(|difference| format!("; nor is it the commit in flight: {difference}")).unwrap_or_default();
                return Err(Failure(format!("LOST: {difference}{unheard}")));
            }
            self.tally.in_flight_applied += 1;
        }
        self.tally.checked += 1;
        self.tally.rows_checked += found.size() as u64;
        if let Some(survives) = self.last_loss.take() {
            *self.tally.opened.entry(survives).or_default() += 1;
        }
        self.in_flight = None;
        self.durable = Some(found);
        Ok(())
    }

    /// What sled could not keep when the disk lost what it liked: a new epoch must begin where nothing is missing that was not settled,
    /// and know the destination as it was known.
    fn compare_rebuilt(&mut self, durable: &State, found: State) -> Result<(), Failure> {
        if self.last_loss != Some(Survives::Reordered) && !self.is_store_gone {
            return Err(Failure("LOST: an outbox was rebuilt though the disk kept its order".into()));
        }
        let before = self.in_flight.take();
        let known = std::iter::once(durable).chain(&before).any(|state| state.mappings == found.mappings);
        // What was being returned when the power went may be there or not.
        let parked = before.as_ref().map_or_else(|| durable.clone(), |before| durable.parked_in_both(before));
        let missing = durable.not_captured_from(&found).or_else(|| parked.parked_and_not_in(&found));
        if let Some(missing) = missing.or_else(|| (!known).then(|| "mappings".to_owned())) {
            return Err(Failure(format!("LOST: rebuilt without {missing}")));
        }
        *self.tally.rebuilt.entry(self.last_loss.unwrap_or(Survives::Nothing)).or_default() += 1;
        self.last_loss = None;
        self.is_store_gone = false;
        self.durable = Some(found);
        Ok(())
    }

    /// Opens an outbox on a disk that works, and compares.
    pub async fn opened(&mut self, data: &DataDir) -> Result<Outbox, Failure> {
        match self.open(data).await? {
            Opened::Checked(outbox) => Ok(outbox),
            Opened::NoPower | Opened::Told => Err(Failure("LOST: it did not open".into())),
        }
    }

    /// Opens an outbox on a disk that may not work; nothing is compared.
    pub async fn try_open(&mut self, data: &DataDir) -> Result<Result<Outbox, StoreError>, Failure> {
        let epoch = Epoch(self.chance.random());
        self.epochs_tried.push(epoch);
        open(data, epoch).await
    }

    /// Overwrites sled's files, durably.
    pub fn destroy_stores(&mut self) -> std::io::Result<()> {
        let life = self.machine.boot();
        for entry in std::fs::read_dir(life.path().join("data").join(DESTINATION))? {
            let db = entry?.path().join("db");
            if db.is_file() {
                std::fs::write(&db, [0x5a; 9_000])?;
                std::fs::File::open(&db)?.sync_all()?;
                self.is_store_gone = true;
            }
        }
        Ok(())
    }

    /// Makes a change of that sort possible, and gives it.
    pub async fn prepare(&mut self, outbox: &Outbox, towards: Phase) -> Result<Change, Failure> {
        loop {
            let before = self.durable.clone().expect("opened");
            let change = aims::towards(towards, &before, &mut self.chance);
            if phase(&change) == towards {
                return within(workload::fitted(outbox, change)).await;
            }
            self.make(outbox, change).await?;
        }
    }

    async fn make(&mut self, outbox: &Outbox, change: Change) -> Result<(), Failure> {
        let change = within(workload::fitted(outbox, change)).await?;
        let after = self.durable.as_ref().expect("opened").after(&change);
        let made = within(workload::make(outbox, change)).await?;
        made.map_err(|error| Failure(format!("a healthy disk, and yet: {}", chain(&error))))?;
        self.tally.commits += 1;
        self.durable = Some(after);
        Ok(())
    }

    /// Makes changes on a disk that works.
    pub async fn change(&mut self, outbox: &Outbox, changes: usize) -> Result<(), Failure> {
        for _ in 0..changes {
            let before = self.durable.clone().expect("opened");
            let change = workload::next(&before, &mut self.chance);
            self.make(outbox, change).await?;
        }
        Ok(())
    }

    /// Makes a change on a disk that does not work: it must be refused.
    pub async fn failing_change(&mut self, outbox: &Outbox, change: Change) -> Result<StoreError, Failure> {
        let before = self.durable.clone().expect("opened");
        self.in_flight = Some(before.after(&change));
        match within(workload::make(outbox, change)).await? {
            Ok(()) => Err(Failure("LOST: a commit was reported durable by a disk that refused it".into())),
            Err(error) => Ok(error),
        }
    }

    /// Opens, compares, and closes again, without a power loss.
    pub async fn check(&mut self) -> Result<(), Failure> {
        let life = self.machine.boot();
        self.until_the_end(&life, Moment::Halt, 0).await.map(drop)
    }
}

enum Opened {
    Checked(Outbox),
    NoPower,
    Told,
}

pub fn phase(change: &Change) -> Phase {
    match change {
        Change::Append { .. } => Phase::Append,
        Change::Settle { aside, .. } if aside.is_empty() => Phase::Ack,
        Change::Settle { .. } => Phase::Park,
        Change::ReturnHeld(_) | Change::Take { fate: Fate::Return, .. } => Phase::Return,
        Change::Take { fate: Fate::Discard, .. } => Phase::Discard,
        Change::Compact => Phase::Compaction,
        Change::Start { .. } | Change::Map(_) | Change::Intend(_) | Change::IntendCreate(_) | Change::NoteTrouble { .. } => {
            Phase::Other
        }
    }
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn kind(error: &StoreError) -> String {
    match error {
        StoreError::Damaged { what, .. } => format!("damaged: {}", what.chars().take(90).collect::<String>()),
        StoreError::Io { cause, .. } => format!("I/O: {cause}"),
        other @ (StoreError::Format { .. } | StoreError::Foreign { .. } | StoreError::Closed | StoreError::InUse { .. }) => {
            other.to_string()
        }
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let answer = within(tokio::task::spawn_blocking(work)).await?;
    answer.map_err(|panic| Failure(format!("panicked: {panic}")))
}

/// Waits for something that answers, or is said to hang.
pub async fn within<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::time::timeout(PATIENCE, work).await.map_err(|_| Failure(format!("no answer for {PATIENCE:?}")))
}

/// Opens an outbox; waits while background threads of its last handle still hold the lock.
pub async fn open(data: &DataDir, epoch: Epoch) -> Result<Result<Outbox, StoreError>, Failure> {
    let options = OpenOptions { destination: DESTINATION.into(), source: data.source(), epoch };
    let path = data.outbox(DESTINATION);
    let begun = Instant::now();
    loop {
        let (path, options) = (path.clone(), options.clone());
        match off_thread(move || Outbox::open(&path, &options)).await? {
            Err(StoreError::InUse { .. }) if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(5)).await,
            answer => return Ok(answer),
        }
    }
}

/// Drops the last handle, which must neither panic nor hang.
pub async fn close(outbox: Outbox) -> Result<(), Failure> {
    off_thread(move || drop(outbox)).await
}
