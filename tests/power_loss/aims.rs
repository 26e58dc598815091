//! Power losses that aim at a state of the outbox, so that none of them is left to chance.

use packhorse::{
    domain::{LocalRef, Micros, RemoteId, Stream},
    outbox::{Reason, verbs::Fate},
};
use rand::{Rng, rngs::StdRng};

use crate::{
    disk::Cut,
    shadow::{Change, State},
    trial::{Moment, Phase},
    workload::{append_rows, node, settle, take},
};

/// Every state in which the power may go.
pub const ALL: [Phase; 12] = [
    Phase::Creation,
    Phase::Recovery,
    Phase::Append,
    Phase::Ack,
    Phase::Park,
    Phase::Return,
    Phase::Discard,
    Phase::Compaction,
    Phase::Other,
    Phase::Idle,
    Phase::Close,
    Phase::Halt,
];

/// A moment in that state: commits have an fsync and a change at least, creation and opening some more, compaction many.
pub fn at(phase: Phase, chance: &mut StdRng) -> Moment {
    match phase {
        Phase::Creation | Phase::Recovery => Moment::Cut(Cut::AtChange(chance.random_range(1..5))),
        Phase::Append | Phase::Ack | Phase::Park | Phase::Return | Phase::Discard | Phase::Other => {
            let cuts = [Cut::BeforeFsync(1), Cut::AfterFsync(1), Cut::AtChange(1), Cut::AtChange(2)];
            Moment::Within(phase, cuts[chance.random_range(0..cuts.len())])
        }
        Phase::Compaction => Moment::Within(phase, Cut::AtChange(chance.random_range(1..30))),
        Phase::Idle => Moment::Idle,
        Phase::Close => Moment::Close(Cut::AtChange(1)),
        Phase::Halt => Moment::Halt,
    }
}

/// A change of one sort, or one that makes it possible.
pub fn towards(phase: Phase, state: &State, chance: &mut StdRng) -> Change {
    let (stream, at) = (Stream::Reading, Micros(chance.random_range(0..1 << 50)));
    let held: Vec<LocalRef> = state.held().collect();
    match phase {
        Phase::Discard if !state.parked.is_empty() => take(state, chance, Fate::Discard),
        Phase::Ack | Phase::Park | Phase::Return | Phase::Discard if state.pending(stream).len() < 2 => append_rows(100, chance),
        Phase::Ack => match settle(state, stream, chance, at) {
            Change::Settle { stream, count, next, at, .. } => Change::Settle { stream, count, aside: Vec::new(), next, at },
            other => other,
        },
        Phase::Return if !state.parked.is_empty() && chance.random_bool(0.5) => take(state, chance, Fate::Return),
        Phase::Return if !held.is_empty() => Change::ReturnHeld(held[chance.random_range(0..held.len())]),
        Phase::Park | Phase::Return | Phase::Discard => {
            let what = node(state.pending(stream).int(1, 0).unwrap());
            let aside = vec![(Reason::Held(what), vec![0]), (Reason::Refused("does not fit".into()), vec![1])];
            Change::Settle { stream, count: 2, aside, next: None, at }
        }
        Phase::Compaction => Change::Compact,
        Phase::Other if chance.random_bool(0.5) => {
            Change::Map(vec![(node(chance.random_range(0..4)), Some(RemoteId(chance.random_range(0..100))))])
        }
        Phase::Other => Change::NoteTrouble { at, trouble: "the server was away".into() },
        Phase::Append | Phase::Creation | Phase::Recovery | Phase::Idle | Phase::Close | Phase::Halt => {
            append_rows(chance.random_range(1..200), chance)
        }
    }
}
