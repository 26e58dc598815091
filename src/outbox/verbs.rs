//! What operators may ask of an outbox beside what the two loops do: look through it while it is drained, check it, take parked rows out of
//! it, append rows of the source once more.
//!
//! The one rule: looking never holds up the loops. Only what changes something takes the writer, for one commit of bounded size.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
    sync::Arc,
};

use super::{
    Captured, LedgerChange, Outbox, StoreError, StreamState, codec, data_dir, format, lock, off_thread, parked, read_run,
    sidecar::Keeper, store::Store, writer::Writer,
};
use crate::domain::{Entity, Freshness, Generation, LocalId, LocalRef, Micros, Rows, Seq, Stream};

/// Parked chunks that are changed in one commit.
const TAKE_CHUNKS_MAX: usize = 16;

/// Rows of one parked chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    pub(super) key: Vec<u8>,
    /// Of the whole value: another one there is not what was looked at.
    pub(super) digest: u32,
    /// Their places in the chunk, ascending.
    pub rows: Vec<usize>,
}

impl Pick {
    /// Whether its chunk was there before that number was given to another.
    pub fn is_before(&self, next_parked: u64) -> bool {
        format::number_of_parked_key(&self.key).is_some_and(|number| number < next_parked)
    }

    /// Bytes that [`note`](Self::note) writes.
    pub fn noted_bytes(&self) -> usize {
        3 * size_of::<u32>() + self.key.len() + self.rows.len() * size_of::<u32>()
    }

    /// Writes it down for [`noted`](Self::noted): for as long as this process lives.
    pub fn note(&self, to: &mut impl Write) -> io::Result<()> {
        for number in [self.digest, self.key.len() as u32, self.rows.len() as u32] {
            to.write_all(&number.to_le_bytes())?;
        }
        to.write_all(&self.key)?;
        self.rows.iter().try_for_each(|row| to.write_all(&(*row as u32).to_le_bytes()))
    }

    /// Reads one; `None` where no other was noted.
    pub fn noted(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        if from.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut number = [0; size_of::<u32>()];
        let mut next = |from: &mut dyn BufRead| from.read_exact(&mut number).map(|()| u32::from_le_bytes(number));
        let (digest, key_bytes, rows) = (next(from)?, next(from)?, next(from)?);
        let mut key = vec![0; key_bytes as usize];
        from.read_exact(&mut key)?;
        let rows = (0..rows).map(|_| next(from).map(|row| row as usize)).collect::<io::Result<_>>()?;
        Ok(Some(Self { key, digest, rows }))
    }
}

/// What becomes of picked rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They are appended anew at the tail.
    Return,
    /// They are dropped; whoever asks for it has exported them (I5).
    Discard,
}

/// A parked chunk with what is needed to pick rows of it.
#[derive(Clone, Debug)]
pub struct ParkedRows {
    /// Why, since when.
    pub parked: format::Parked,
    /// The rows.
    pub rows: Rows,
    /// All of them, picked.
    pub pick: Pick,
}

/// Where a walk through parked chunks stands.
pub type ParkedPlace = Vec<u8>;

/// A run of records as it was found.
#[derive(Clone, Debug)]
pub struct Page {
    /// The seq of the first row.
    pub first: Seq,
    /// When they were captured (of the first row).
    pub captured_at: Micros,
    /// Whether they may have arrived before.
    pub freshness: Freshness,
    /// The rows.
    pub rows: Rows,
}

impl Page {
    /// The seq after the last row.
    pub fn end(&self) -> Seq {
        self.first.plus(self.rows.len() as u64)
    }
}

impl Outbox {
    /// Records of a stream that wait, from `from` on or from the cursor, where that has passed it; `None` when there are none. What is sent
    /// while this looks is left out.
    pub async fn browse(&self, stream: Stream, from: Seq, rows_max: usize) -> Result<Option<Page>, StoreError> {
        loop {
            let state = self.snapshot().stream(stream).clone();
            let from = from.max(state.cursor);
            match self.read(move |store| read_page(store, stream, from, state.next, rows_max)).await {
                Err(error @ StoreError::Damaged { .. }) => {
                    // It may be sent in this moment: a commit is in the store before it is seen here. Whoever has had the writer since has seen it.
                    let shared = Arc::clone(&self.0);
                    off_thread(move || {
                        drop(lock(&shared.writer));
                        Ok(())
                    })
                    .await?;
                    if self.snapshot().stream(stream).cursor <= from {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    /// When the oldest record of a stream that waits was captured. It may be sent while this looks: then the next one counts.
    pub async fn oldest_captured(&self, stream: Stream) -> Result<Option<Micros>, StoreError> {
        let page = self.browse(stream, Seq(0), 1).await?;
        Ok(page.map(|page| page.captured_at))
    }

    /// Parked chunks from a place on, at most `chunks_max`, and the place after them.
    pub async fn parked_rows(
        &self,
        from: ParkedPlace,
        chunks_max: usize,
    ) -> Result<(Vec<ParkedRows>, Option<ParkedPlace>), StoreError> {
        self.read(move |store| {
            let mut found = Vec::new();
            for prefix in [format::HELD, format::REFUSED] {
                if prefix < from.as_slice() && !from.starts_with(prefix) {
                    continue;
                }
                for entry in store.scan(prefix, from.as_slice().max(prefix))? {
                    let (key, value) = entry?;
                    if found.len() >= chunks_max {
                        return Ok((found, Some(key)));
                    }
                    let (parked, chunk) = parked::split(store, &value)?;
                    let (_, rows) = codec::decode(chunk).map_err(|error| parked::damaged(store, &error))?;
                    let pick = Pick { key, digest: crc32fast::hash(&value), rows: (0..rows.len()).collect() };
                    found.push(ParkedRows { parked, rows, pick });
                }
            }
            Ok((found, None))
        })
        .await
    }

    /// Takes picked rows out of what is parked, in commits of bounded size; gives how many. What has changed since it was picked stays, and what is
    /// of an earlier generation does not return, unless all that it points to is what it was.
    pub async fn take(&self, picks: &[Pick], fate: Fate) -> Result<u64, StoreError> {
        let mut taken = 0;
        for some in picks.chunks(TAKE_CHUNKS_MAX) {
            let (some, path) = (some.to_vec(), self.path().to_owned());
            let change = move |store: &Store, writer: &mut Writer, keeper: &mut Keeper| {
                writer.take(store, &some, fate, |writer, added| {
                    keeper.reach_down_for(&path, writer, added).inspect_err(|_| store.give_up())
                })
            };
            taken += self.change_kept(change).await?;
        }
        Ok(taken)
    }

    /// Appends rows that were captured before, with the catalog that they need and the watermark as it is (I1, I4). The
    /// ledger has counted them, but for late ones, which an audit finds and captures once more: as repeats, then. `false`, and nothing is changed,
    /// where the outbox is not of that generation any more.
    pub async fn append_again(
        &self,
        rows: Rows,
        catalog: Vec<(LocalRef, Entity<LocalId>)>,
        generation: Generation,
        at: Micros,
    ) -> Result<bool, StoreError> {
        let path = self.path().to_owned();
        let change = move |store: &Store, writer: &mut Writer, keeper: &mut Keeper| {
            if writer.meta().generation != generation {
                return Ok(false);
            }
            let stream = rows.stream();
            writer.expect_repeats(store, stream)?;
            let watermark = writer.streams()[usize::from(stream.number())].watermark.clone();
            let captured = Captured { rows, watermark, catalog, freshness: Freshness::Repeat, at };
            keeper.reach_down(&path, writer, &captured.rows).inspect_err(|_| store.give_up())?;
            writer.append(store, &captured, &LedgerChange::default())?;
            Ok(true)
        };
        self.change_kept(change).await
    }

    /// Whether the counts of each stream's state are right, when so many rows of each were found parked (I5). Rows may have been parked or have
    /// returned while these were counted: [`check_parked`](Self::check_parked) knows then.
    pub fn agrees(&self, parked: &[u64; Stream::ALL.len()]) -> bool {
        let snapshot = self.snapshot();
        Stream::ALL.into_iter().zip(parked).all(|(stream, rows)| check_counts(stream, snapshot.stream(stream), *rows).is_empty())
    }

    /// What is wrong with the counts of parked rows: what lies there against what the stream's state says (I5). Holds the writer for as
    /// long as it takes to look at the head of every parked chunk.
    pub async fn check_parked(&self) -> Result<Vec<String>, StoreError> {
        let shared = Arc::clone(&self.0);
        off_thread(move || {
            let guard = lock(&shared.writer);
            let store = shared.store();
            let mut counts = [0_u64; Stream::ALL.len()];
            let mut wrong = Vec::new();
            for prefix in [format::HELD, format::REFUSED] {
                for entry in store.scan(prefix, prefix)? {
                    let (_, value) = entry?;
                    let (parked, chunk) = parked::split(&store, &value)?;
                    match codec::peek(chunk) {
                        Ok(header) if header.count == parked.count && header.stream == parked.stream => {
                            counts[usize::from(header.stream.number())] += u64::from(header.count);
                        }
                        Ok(_) => wrong.push("a parked chunk is not what its head says".to_owned()),
                        Err(error) => wrong.push(format!("a parked chunk: {error}")),
                    }
                }
            }
            for (stream, state) in Stream::ALL.into_iter().zip(guard.0.streams()) {
                wrong.extend(check_counts(stream, state, counts[usize::from(stream.number())]));
            }
            Ok(wrong)
        })
        .await
    }

    /// Where rows lie that were discarded.
    pub fn discarded_folder(&self) -> PathBuf {
        self.path().join(data_dir::DISCARDED)
    }
}

fn read_page(store: &Store, stream: Stream, from: Seq, end: Seq, rows_max: usize) -> Result<Option<Page>, StoreError> {
    let Some(batch) = read_run(store, stream, from, end, rows_max)? else { return Ok(None) };
    let head = store.last_up_to(&format::chunk_prefix(stream), &format::chunk_key(stream, from))?;
    let captured_at = head.and_then(|(_, bytes)| codec::peek(&bytes).ok()).map(|header| header.captured_at);
    let (first, captured_at) = (batch.first, captured_at.unwrap_or(Micros(0)));
    Ok(Some(Page { first, captured_at, freshness: batch.freshness, rows: batch.rows }))
}

/// I5, on the counts of a stream.
fn check_counts(stream: Stream, state: &StreamState, parked: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    if state.next.0 != state.pending() + state.acked + state.parked_ever {
        wrong.push(format!(
            "{}: {} were appended, and {} wait, {} were delivered, {} were ever parked (I5)",
            stream.plural(),
            state.next,
            state.pending(),
            state.acked,
            state.parked_ever
        ));
    }
    if state.parked_now() != parked {
        wrong.push(format!("{}: {} are parked, and there should be {} (I5)", stream.plural(), parked, state.parked_now()));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Column, EntityKind, Epoch, Position, SourceId},
        outbox::{OpenOptions, Reason, SetAside},
    };

    const ROOM: LocalRef = LocalRef { kind: EntityKind::Location, id: LocalId(4) };

    fn open(dir: &std::path::Path) -> Outbox {
        Outbox::open(dir, &OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(77) }).unwrap()
    }

    /// An outbox in which twelve rows are held for a room.
    async fn with_held(dir: &std::path::Path) -> Outbox {
        let outbox = open(dir);
        let numbers = |by: i64| Column::Int((0..12).map(|number| Some(number * by)).collect());
        let values = Column::Float((0..12).map(|number| Some(number as f32)).collect());
        let rows = Rows::new(Stream::Reading, vec![numbers(1_000_000), numbers(1), numbers(0), numbers(0), values]);
        let watermark = Position::Key { time: Micros(12_000_000), rest: vec![0, 0] };
        let at = Micros(0);
        outbox.append(Captured { rows, watermark, catalog: Vec::new(), freshness: Freshness::New, at }).await.unwrap();
        let batch = outbox.lease(Stream::Reading, Seq(0), 12).await.unwrap().unwrap();
        let aside = vec![SetAside { reason: Reason::Held(ROOM), rows: (0..12).collect() }];
        outbox.settle(batch, aside, None, at).await.unwrap();
        outbox
    }

    #[tokio::test]
    async fn a_part_of_a_held_chunk_is_taken_and_the_rest_is_counted_as_when_it_is_opened() {
        for fate in [Fate::Return, Fate::Discard] {
            let dir = tempfile::tempdir().unwrap();
            let outbox = with_held(dir.path()).await;
            let (mut chunks, _) = outbox.parked_rows(ParkedPlace::new(), 10).await.unwrap();
            chunks[0].pick.rows = vec![2, 3, 11];
            let picks = [chunks.remove(0).pick];
            assert_eq!(outbox.take(&picks, fate).await.unwrap(), 3);
            assert_eq!(outbox.take(&picks, fate).await.unwrap(), 0, "it has changed");
            assert_eq!(outbox.check_parked().await.unwrap(), Vec::<String>::new());
            let held = outbox.snapshot().held;
            assert_eq!(held[&ROOM].rows, 9);
            drop(outbox);
            assert_eq!(open(dir.path()).snapshot().held, held, "{fate:?}");
        }
    }

    #[test]
    fn picks_are_read_as_they_were_noted() {
        let pick =
            |key: &[u8], rows: &[usize]| Pick { key: key.to_vec(), digest: u32::MAX - key.len() as u32, rows: rows.to_vec() };
        let picks = [pick(b"refused", &[0, 1, 4_095]), pick(b"", &[]), pick(&[0xff; 700], &[9])];
        let mut noted = Vec::new();
        for pick in &picks {
            pick.note(&mut noted).unwrap();
        }
        assert_eq!(noted.len(), picks.iter().map(Pick::noted_bytes).sum::<usize>());
        let mut from = noted.as_slice();
        let read: Vec<_> = std::iter::from_fn(|| Pick::noted(&mut from).unwrap()).collect();
        assert_eq!(read, picks);
        assert!(Pick::noted(&mut &noted[..noted.len() - 1][..]).is_ok() && Pick::noted(&mut &noted[noted.len() - 1..]).is_err());
    }

    #[tokio::test]
    async fn rows_of_a_source_that_was_replaced_do_not_return_into_rooms_of_the_new_one_but_can_be_discarded() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = with_held(dir.path()).await;
        assert!(outbox.begin_generation([const { Position::Start }; Stream::ALL.len()]).await.unwrap());
        let (chunks, _) = outbox.parked_rows(ParkedPlace::new(), 10).await.unwrap();
        let picks = [chunks[0].pick.clone()];
        assert_eq!(outbox.take(&picks, Fate::Return).await.unwrap(), 0);
        assert_eq!((outbox.snapshot().pending(), outbox.snapshot().parked()), (0, 12));
        assert_eq!(outbox.take(&picks, Fate::Discard).await.unwrap(), 12);
        assert_eq!((outbox.snapshot().pending(), outbox.snapshot().parked()), (0, 0));
    }
}
