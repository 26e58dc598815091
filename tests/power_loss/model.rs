//! The outbox as a state machine beside a simple model: any order of appends, leases with acks in part, parking, holding, returning,
//! retrying, discarding, mapping, compacting, reopening, and crashes before and after a sync.
//!
//! `PACKHORSE_MODEL_CASES` sets how many runs. The seeds of failures are kept in `tests/power_loss/proptest-regressions.txt` and run first.

use packhorse::{
    domain::{EntityKind, Epoch, LocalId, LocalRef, Micros, Position, RemoteId, Stream},
    outbox::{DataDir, Extent, Intent, Outbox, Reason, verbs::Fate},
};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner},
};
use rand::{SeedableRng, rngs::StdRng};

use crate::{
    block_on,
    disk::{Cut, Survives},
    lossy_fs::{Life, Machine, is_available},
    shadow::{Change, State, observe},
    trial::{DESTINATION, chain, close, open},
    workload,
};

/// What is done to it; what does not apply in a state is passed over.
#[derive(Clone, Debug)]
enum Op {
    Append {
        stream: Stream,
        rows: usize,
        seed: u64,
    },
    /// Leases a share of what waits and settles it: of every so many rows one is refused, one held.
    Settle {
        stream: Stream,
        share: u8,
        refuse: u8,
        hold: u8,
    },
    ReturnHeld(i64),
    /// Takes rows out of what is parked, by an operator's word.
    Take {
        which: u8,
        every: u8,
        fate: Fate,
    },
    Map(i64, Option<i64>),
    Start(Stream),
    Intend(Stream),
    IntendCreate(Option<i64>),
    Note,
    Compact,
    Reopen,
}

/// One step: an operation, and what becomes of the machine in it.
#[derive(Clone, Debug)]
struct Step {
    op: Op,
    crash: Option<(Moment, Survives)>,
}

#[derive(Clone, Copy, Debug)]
enum Moment {
    BeforeSync(u64),
    AfterSync(u64),
    AtChange(u64),
}

fn streams() -> impl Strategy<Value = Stream> {
    prop_oneof![3 => Just(Stream::Reading), 1 => Just(Stream::NodeState)]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (streams(), prop_oneof![9 => 0_usize..60, 1 => 400_usize..2_000], any::<u64>())
            .prop_map(|(stream, rows, seed)| Op::Append { stream, rows, seed }),
        6 => (streams(), any::<u8>(), 0_u8..6, 0_u8..6)
            .prop_map(|(stream, share, refuse, hold)| Op::Settle { stream, share, refuse, hold }),
        2 => (0_i64..4).prop_map(Op::ReturnHeld),
        3 => (any::<u8>(), 1_u8..4, prop_oneof![Just(Fate::Return), Just(Fate::Discard)])
            .prop_map(|(which, every, fate)| Op::Take { which, every, fate }),
        1 => (0_i64..4, proptest::option::of(0_i64..100)).prop_map(|(id, to)| Op::Map(id, to)),
        1 => streams().prop_map(Op::Start),
        1 => streams().prop_map(Op::Intend),
        1 => proptest::option::of(0_i64..4).prop_map(Op::IntendCreate),
        1 => Just(Op::Note),
        1 => Just(Op::Compact),
        2 => Just(Op::Reopen),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let moment = prop_oneof![
        (1_u64..8).prop_map(Moment::BeforeSync),
        (1_u64..8).prop_map(Moment::AfterSync),
        (1_u64..30).prop_map(Moment::AtChange),
    ];
    let crash = (moment, prop_oneof![Just(Survives::Nothing), Just(Survives::Prefix)]);
    let step = (ops(), proptest::option::weighted(0.2, crash)).prop_map(|(op, crash)| Step { op, crash });
    proptest::collection::vec(step, 1..30)
}

fn node(id: i64) -> LocalRef {
    LocalRef { kind: EntityKind::Node, id: LocalId(id) }
}

/// The change that an operation is in a state; `None` where it does not apply.
fn change(op: &Op, state: &State) -> Option<Change> {
    let at = Micros(7);
    Some(match op {
        Op::Append { stream, rows, seed } => {
            let mut chance = StdRng::seed_from_u64(*seed);
            let rows = workload::rows(*stream, *rows, &mut chance);
            Change::Append { rows, watermark: workload::position(*stream, &mut chance), catalog: Vec::new(), at }
        }
        Op::Settle { stream, share, refuse, hold } => {
            let waiting = state.pending(*stream).len();
            if waiting == 0 {
                return None;
            }
            let count = (waiting * (usize::from(*share) + 1)).div_ceil(256);
            let every = |of: u8, rest: usize| (0..count).filter(move |row| of > 0 && row % (usize::from(of) * 3) == rest);
            let aside =
                [(Reason::Refused("no".into()), every(*refuse, 0)), (Reason::Held(node(i64::from(*hold % 4))), every(*hold, 1))];
            let mut taken = Vec::new();
            let aside = aside.into_iter().map(|(reason, rows)| {
                let rows: Vec<usize> = rows.filter(|row| !taken.contains(row)).collect();
                taken.extend(rows.iter().copied());
                (reason, rows)
            });
            let aside = aside.filter(|(_, rows)| !rows.is_empty()).collect();
            let end = state.stream(*stream).cursor.plus(count as u64);
            let next = (waiting > count).then(|| Intent { stream: *stream, first: end, end: end.plus(1), extent: Extent::Whole });
            Change::Settle { stream: *stream, count, aside, next, at }
        }
        Op::ReturnHeld(id) => Change::ReturnHeld(node(*id)),
        Op::Take { which, every, fate } => {
            let count = state.parked.len();
            let (reason, stream) = state.parked.keys().nth(usize::from(*which).checked_rem(count)?)?.clone();
            Change::Take { reason, stream, of_the_first: usize::MAX, every: usize::from(*every), fate: *fate }
        }
        Op::Map(id, to) => Change::Map(vec![(node(*id), to.map(RemoteId))]),
        Op::Start(stream) => Change::Start { stream: *stream, position: Position::Start },
        Op::Intend(stream) => {
            let first = state.stream(*stream).cursor;
            Change::Intend(Intent { stream: *stream, first, end: first.plus(3), extent: Extent::Whole })
        }
        Op::IntendCreate(id) => Change::IntendCreate(id.map(node)),
        Op::Note => Change::NoteTrouble { at, trouble: "away".into() },
        Op::Compact => Change::Compact,
        Op::Reopen => return None,
    })
}

/// A machine with an open outbox, and what must be in it.
struct Run {
    machine: Machine,
    life: Life,
    data: DataDir,
    outbox: Outbox,
    state: State,
}

impl Run {
    async fn boot(mut machine: Machine, states: &[State]) -> Result<Self, String> {
        let life = machine.boot();
        let data = DataDir::own(&life.path().join("data"), || 7).map_err(|error| chain(&error))?;
        let opened = open(&data, Epoch(1)).await.map_err(|failure| failure.to_string())?;
        let outbox = opened.map_err(|error| format!("LOST: it does not open: {}", chain(&error)))?;
        let found = observe(&outbox).await.map_err(|error| format!("LOST: it cannot be read: {}", chain(&error)))?;
        let differences: Vec<_> = states.iter().map(|state| state.difference(&found)).collect();
        if differences.iter().all(Option::is_some) {
            return Err(format!("LOST: {differences:?}"));
        }
        Ok(Self { machine, life, data, outbox, state: found })
    }

    async fn reopen(self) -> Result<Self, String> {
        let Self { machine, life, data, outbox, state } = self;
        close(outbox).await.map_err(|failure| failure.to_string())?;
        let outbox = open(&data, Epoch(1)).await.map_err(|failure| failure.to_string())?.map_err(|error| chain(&error))?;
        let found = observe(&outbox).await.map_err(|error| chain(&error))?;
        match state.difference(&found) {
            None => Ok(Self { machine, life, data, outbox, state }),
            Some(difference) => Err(format!("LOST: by reopening: {difference}")),
        }
    }

    async fn step(mut self, step: &Step) -> Result<Self, String> {
        let change = match change(&step.op, &self.state) {
            Some(change) => Some(workload::fitted(&self.outbox, change).await),
            None => None,
        };
        let after = change.as_ref().map_or_else(|| self.state.clone(), |change| self.state.after(change));
        if let Some((moment, _)) = step.crash {
            self.machine.arm(match moment {
                Moment::BeforeSync(n) => Cut::BeforeFsync(n),
                Moment::AfterSync(n) => Cut::AfterFsync(n),
                Moment::AtChange(n) => Cut::AtChange(n),
            });
        }
        let made = match change {
            Some(change) => workload::make(&self.outbox, change).await,
            None => Ok(()),
        };
        let expected = match (made, step.crash) {
            (Ok(()), _) => vec![after],
            (Err(_), Some(_)) if !self.machine.disk().is_powered() => vec![self.state.clone(), after],
            (Err(error), _) => return Err(format!("a healthy disk, and yet: {}", chain(&error))),
        };
        let Some((_, survives)) = step.crash else {
            self.state = expected.into_iter().next().unwrap_or(self.state);
            return if matches!(step.op, Op::Reopen) { self.reopen().await } else { Ok(self) };
        };
        let Self { machine, life, data, outbox, .. } = self;
        machine.cut_power();
        close(outbox).await.map_err(|failure| failure.to_string())?;
        drop((data, life));
        machine.lose_power(survives, 11);
        Self::boot(machine, &expected).await
    }
}

async fn run(steps: &[Step]) -> Result<(), String> {
    let mut run = Run::boot(Machine::new(), &[State::fresh(Epoch(1))]).await?;
    for (number, step) in steps.iter().enumerate() {
        run = run.step(step).await.map_err(|failure| format!("{failure} (step {number}, {step:?})"))?;
    }
    let run = run.reopen().await?;
    assert_eq!(run.outbox.path(), run.data.outbox(DESTINATION));
    close(run.outbox).await.map_err(|failure| failure.to_string())
}

#[test]
fn the_outbox_does_what_the_model_says() {
    if !is_available() {
        return;
    }
    let given = std::env::var("PACKHORSE_MODEL_CASES").ok().map(|cases| cases.parse().unwrap());
    let cases = given.unwrap_or(if crate::is_long() { 3_000 } else { 150 });
    let is_control = std::env::var_os("PACKHORSE_TEST_PLAIN_FLUSH").is_some();
    let failure_persistence: Option<Box<dyn proptest::test_runner::FailurePersistence>> =
        (!is_control).then(|| Box::new(FileFailurePersistence::Direct("tests/power_loss/proptest-regressions.txt")) as Box<_>);
    let config = Config { cases, failure_persistence, max_shrink_iters: if is_control { 0 } else { 300 }, ..Config::default() };
    let mut totals = (0, 0);
    let result = {
        let totals = std::cell::RefCell::new(&mut totals);
        TestRunner::new(config).run(&steps(), |steps| {
            let mut totals = totals.borrow_mut();
            totals.0 += steps.len();
            totals.1 += steps.iter().filter(|step| step.crash.is_some()).count();
            block_on(run(&steps)).map_err(TestCaseError::fail)
        })
    };
    println!("model: {cases} runs, {} steps, {} crashes among them", totals.0, totals.1);
    if let Err(failure) = result {
        println!("LOST: {failure}");
        panic!("{failure}");
    }
}
