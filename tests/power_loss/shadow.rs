//! What an outbox must hold: a plain model of it, and the same read out of a real one, to be compared.
//!
//! The one rule: the model computes by itself; nothing in it is copied from the outbox that it checks.

use std::collections::{BTreeMap, BTreeSet};

use packhorse::{
    domain::{Catalog, Entity, Epoch, LocalId, LocalRef, Micros, Position, RemoteId, Rows, Seq, Stream},
    outbox::{Elsewhere, Intent, Outbox, Reason, StoreError, StreamState, verbs::Fate},
};

/// Everything about an outbox that a reader can see.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub epoch: Epoch,
    /// Without `live_bytes`, which only the codec knows, and what is known of rows elsewhere, which hangs on chunks.
    pub streams: [StreamState; Stream::ALL.len()],
    pub pending: [Rows; Stream::ALL.len()],
    pub parked: BTreeMap<(Reason, Stream), Rows>,
    pub catalog: Catalog,
    pub mappings: BTreeMap<LocalRef, RemoteId>,
    pub intents: [Option<Intent>; Stream::ALL.len()],
    pub create_intent: Option<LocalRef>,
    pub last_success: Option<Micros>,
    pub last_trouble: Option<(Micros, String)>,
}

/// One change of an outbox; each is one commit.
#[derive(Clone, Debug)]
pub enum Change {
    Start {
        stream: Stream,
        position: Position,
    },
    Append {
        rows: Rows,
        watermark: Position,
        catalog: Vec<(LocalRef, Entity<LocalId>)>,
        at: Micros,
    },
    Settle {
        stream: Stream,
        count: usize,
        aside: Vec<(Reason, Vec<usize>)>,
        next: Option<Intent>,
        at: Micros,
    },
    ReturnHeld(LocalRef),
    /// Of what is parked for a reason, each row in so many of the first ones.
    Take {
        reason: Reason,
        stream: Stream,
        of_the_first: usize,
        every: usize,
        fate: Fate,
    },
    Map(Vec<(LocalRef, Option<RemoteId>)>),
    Intend(Intent),
    IntendCreate(Option<LocalRef>),
    NoteTrouble {
        at: Micros,
        trouble: String,
    },
    /// Changes nothing that can be seen.
    Compact,
}

fn place(stream: Stream) -> usize {
    usize::from(stream.number())
}

impl State {
    /// An outbox that was just made.
    pub fn fresh(epoch: Epoch) -> Self {
        Self {
            epoch,
            streams: Stream::ALL.map(|_| StreamState::new()),
            pending: Stream::ALL.map(Rows::empty),
            parked: BTreeMap::new(),
            catalog: Catalog::new(),
            mappings: BTreeMap::new(),
            intents: [None; Stream::ALL.len()],
            create_intent: None,
            last_success: None,
            last_trouble: None,
        }
    }

    pub fn stream(&self, stream: Stream) -> &StreamState {
        &self.streams[place(stream)]
    }

    pub fn pending(&self, stream: Stream) -> &Rows {
        &self.pending[place(stream)]
    }

    /// Rows and other things in it that can be lost.
    pub fn size(&self) -> usize {
        let rows: usize = self.pending.iter().chain(self.parked.values()).map(Rows::len).sum();
        rows + self.catalog.len() + self.mappings.len()
    }

    /// Something that waits or is parked here, that is not parked in `new`, and that capture from where `new` stands would not find again.
    pub fn not_captured_from(&self, new: &Self) -> Option<String> {
        for stream in Stream::ALL {
            let begin = &new.stream(stream).watermark;
            if self.stream(stream).started && !new.stream(stream).started {
                return Some(format!("knowing where {stream} begins"));
            }
            let one = |rows: &Rows, row: usize| format!("{:?}", rows.slice(row, row + 1));
            let of = |state: &Self| state.parked.values().filter(|rows| rows.stream() == stream).cloned().collect::<Vec<_>>();
            let kept: BTreeSet<String> =
                of(new).iter().flat_map(|rows| (0..rows.len()).map(|row| one(rows, row)).collect::<Vec<_>>()).collect();
            let parked = of(self);
            for (rows, kept) in parked.iter().map(|rows| (rows, Some(&kept))).chain([(self.pending(stream), None)]) {
                let missed = |row: &usize| {
                    if kept.is_some_and(|kept| kept.contains(&one(rows, *row))) {
                        return false;
                    }
                    let (id, time) = (rows.id_position(*row), rows.time(*row));
                    match begin {
                        Position::Start => false,
                        Position::Id(begin) => !matches!(id, Some(Position::Id(id)) if id > *begin),
                        Position::Key { time: begin, .. } => time.is_none_or(|time| time <= *begin),
                    }
                };
                if let Some(row) = (0..rows.len()).find(missed) {
                    return Some(format!("{stream} at {:?}, which begins at {begin}", rows.time(row)));
                }
            }
        }
        None
    }

    /// A row that is parked here and not in `new`, for the same reason; more may be parked there.
    pub fn parked_and_not_in(&self, new: &Self) -> Option<String> {
        let all = |rows: &Rows| (0..rows.len()).map(|row| format!("{:?}", rows.slice(row, row + 1))).collect::<Vec<_>>();
        self.parked.iter().find_map(|(key, rows)| {
            let kept: BTreeSet<String> = new.parked.get(key).map(all).unwrap_or_default().into_iter().collect();
            let missing = all(rows).into_iter().find(|row| !kept.contains(row));
            missing.map(|row| format!("a parked row ({}): {row}", key.0))
        })
    }

    /// The same state with only those parked rows that both have.
    pub fn parked_in_both(&self, other: &Self) -> Self {
        let both = self.parked.iter().filter(|(key, rows)| other.parked.get(key).is_some_and(|there| there.len() >= rows.len()));
        Self { parked: both.map(|(key, rows)| (key.clone(), rows.clone())).collect(), ..self.clone() }
    }

    /// The entities for which rows are held.
    pub fn held(&self) -> impl Iterator<Item = LocalRef> {
        self.parked.keys().filter_map(|(reason, _)| match reason {
            Reason::Held(what) => Some(*what),
            Reason::Refused(_) => None,
        })
    }

    /// The state after a change.
    #[must_use]
    pub fn after(&self, change: &Change) -> Self {
        let mut new = self.clone();
        match change {
            Change::Start { stream, position } => {
                let state = &mut new.streams[place(*stream)];
                if !state.started {
                    state.started = true;
                    state.watermark = position.clone();
                }
            }
            Change::Append { rows, watermark, catalog, .. } => {
                new.append(rows.clone());
                new.streams[place(rows.stream())].watermark = watermark.clone();
                new.catalog.extend(catalog.iter().cloned());
            }
            Change::Settle { stream, count, aside, next, at } => new.settle(*stream, *count, aside, *next, *at),
            Change::ReturnHeld(what) => {
                for stream in Stream::ALL {
                    if let Some(rows) = new.parked.remove(&(Reason::Held(*what), stream)) {
                        new.streams[place(stream)].returned += rows.len() as u64;
                        new.append(rows);
                    }
                }
            }
            Change::Take { reason, stream, of_the_first, every, fate } => new.take(reason, *stream, *of_the_first, *every, *fate),
            Change::Map(pairs) => {
                for (what, id) in pairs {
                    match id {
                        Some(id) => new.mappings.insert(*what, *id),
                        None => new.mappings.remove(what),
                    };
                    new.create_intent = new.create_intent.filter(|intended| intended != what);
                }
            }
            Change::Intend(intent) => new.intents[place(intent.stream)] = Some(*intent),
            Change::IntendCreate(what) => new.create_intent = *what,
            Change::NoteTrouble { at, trouble } => new.last_trouble = Some((*at, trouble.clone())),
            Change::Compact => {}
        }
        new
    }

    /// What is left of the first ones goes behind the others.
    fn take(&mut self, reason: &Reason, stream: Stream, of_the_first: usize, every: usize, fate: Fate) {
        let key = (reason.clone(), stream);
        let Some(rows) = self.parked.remove(&key) else { return };
        let first = rows.len().min(of_the_first);
        let (taken, left): (Vec<usize>, Vec<usize>) = (0..first).partition(|row| row % every == 0);
        let mut stays = rows.slice(first, rows.len());
        stays.extend(rows.pick(&left));
        if !stays.is_empty() {
            self.parked.insert(key, stays);
        }
        let state = &mut self.streams[place(stream)];
        match fate {
            Fate::Return => {
                state.returned += taken.len() as u64;
                self.append(rows.pick(&taken));
            }
            Fate::Discard => state.discarded += taken.len() as u64,
        }
    }

    fn append(&mut self, rows: Rows) {
        let state = &mut self.streams[place(rows.stream())];
        state.next = Seq(state.next.0 + rows.len() as u64);
        self.pending[place(rows.stream())].extend(rows);
    }

    fn settle(&mut self, stream: Stream, count: usize, aside: &[(Reason, Vec<usize>)], next: Option<Intent>, at: Micros) {
        let rows = self.pending(stream).clone();
        let mut parked = 0;
        for (reason, places) in aside {
            parked += places.len() as u64;
            let entry = self.parked.entry((reason.clone(), stream)).or_insert_with(|| Rows::empty(stream));
            entry.extend(rows.pick(places));
        }
        let state = &mut self.streams[place(stream)];
        state.cursor = Seq(state.cursor.0 + count as u64);
        state.acked += count as u64 - parked;
        state.parked_ever += parked;
        if count as u64 > parked {
            self.last_success = Some(at);
        }
        self.pending[place(stream)] = rows.slice(count, rows.len());
        self.intents[place(stream)] = None;
        if let Some(next) = next {
            self.intents[place(next.stream)] = Some(next);
        }
    }

    /// The first thing in which a state that was found differs from this one; `None` when they are equal.
    pub fn difference(&self, found: &Self) -> Option<String> {
        let differs = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
            Some(format!("{what}: {ours:?} was expected, {theirs:?} was found"))
        };
        if self == found {
            None
        } else if self.epoch != found.epoch {
            differs("epoch", &self.epoch, &found.epoch)
        } else if self.streams != found.streams {
            differs("states of the streams", &self.streams, &found.streams)
        } else if self.pending != found.pending {
            differs("pending rows", &self.pending.each_ref().map(Rows::len), &found.pending.each_ref().map(Rows::len))
        } else if self.parked != found.parked {
            let counts = |state: &Self| state.parked.iter().map(|(key, rows)| (key.clone(), rows.len())).collect::<Vec<_>>();
            differs("parked rows", &counts(self), &counts(found))
        } else if self.catalog != found.catalog {
            differs("catalog", &self.catalog.len(), &found.catalog.len())
        } else if self.mappings != found.mappings {
            differs("mappings", &self.mappings, &found.mappings)
        } else {
            let rest = |state: &Self| {
                (state.intents, state.create_intent, state.last_success, state.last_trouble.as_ref().map(|(at, _)| *at))
            };
            differs("intents and notes", &rest(self), &rest(found))
        }
    }
}

/// Reads everything out of an outbox, and checks on the way what must hold in itself (I3, I5, counts of held rows).
pub async fn observe(outbox: &Outbox) -> Result<State, StoreError> {
    let snapshot = outbox.snapshot();
    let mut pending = Stream::ALL.map(Rows::empty);
    for stream in Stream::ALL {
        let state = snapshot.stream(stream);
        let mut from = state.cursor;
        while let Some(batch) = outbox.lease(stream, from, 5_000).await? {
            assert_eq!((batch.first, batch.epoch), (from, snapshot.meta.epoch), "I3: {stream}");
            from = batch.end();
            pending[place(stream)].extend(batch.rows);
        }
        assert_eq!(from, state.next, "I3: {stream} is dense from the cursor to next");
        assert_eq!(state.next.0, state.pending() + state.acked + state.parked_ever, "I5: {state:?}");
        assert_eq!(state.live_bytes == 0, state.pending() == 0, "live bytes: {state:?}");
    }
    let mut parked = BTreeMap::<(Reason, Stream), Rows>::new();
    for chunk in outbox.parked(usize::MAX).await? {
        let stream = chunk.rows.stream();
        parked.entry((chunk.parked.reason, stream)).or_insert_with(|| Rows::empty(stream)).extend(chunk.rows);
    }
    for stream in Stream::ALL {
        let rows: u64 = parked.iter().filter(|((_, of), _)| *of == stream).map(|(_, rows)| rows.len() as u64).sum();
        assert_eq!(rows, snapshot.stream(stream).parked_now(), "I5: parked {}", stream.plural());
    }
    let mut held = BTreeMap::<LocalRef, u64>::new();
    for ((reason, _), rows) in &parked {
        if let Reason::Held(what) = reason {
            *held.entry(*what).or_default() += rows.len() as u64;
        }
    }
    assert_eq!(
        snapshot.held.iter().map(|(what, held)| (*what, held.rows)).collect::<BTreeMap<_, _>>(),
        held,
        "counts of held rows"
    );
    Ok(State {
        epoch: snapshot.meta.epoch,
        streams: snapshot.streams.map(|state| StreamState { live_bytes: 0, elsewhere: Elsewhere::default(), ..state }),
        pending,
        parked,
        catalog: (*snapshot.catalog).clone(),
        mappings: snapshot.mappings.iter().collect(),
        intents: snapshot.intents,
        create_intent: snapshot.create_intent.map(|intent| intent.what),
        last_success: snapshot.notes.last_success,
        last_trouble: snapshot.notes.last_trouble,
    })
}
