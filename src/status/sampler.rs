//! Looks at every destination now and then: for the rate of delivery, for the history, and for whether there is progress.
//!
//! The one rule: it looks at what is in memory, and waits for no disk but to write one record a minute; what else it reads is bounded in time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    board::{Board, Desk},
    history::{self, Minute},
};
use crate::{
    domain::{Micros, Stream},
    outbox::StreamState,
    sender::helm::{Link, Traffic},
};

/// The pause between two looks.
const TICK: Duration = Duration::from_secs(2);
/// Once in so many looks, the first one among them, the figures are kept for a time when the outbox is not open.
const KEEP_TICKS: u64 = 5;
/// How long that may take: a disk that hangs must not keep this from looking.
const KEEPING_MAX: Duration = Duration::from_secs(2);
/// The rate is that of the last so many looks.
const RATE_TICKS: usize = 15;

/// What was seen of a destination.
struct Seen {
    acked: VecDeque<(Instant, u64)>,
    totals: Totals,
    minute: Minute,
}

/// Figures that only grow, in one life of an outbox.
#[derive(Clone, Default)]
struct Totals {
    captured: u64,
    acked: u64,
    settled: u64,
    mapped: u64,
    traffic: Traffic,
}

/// Looks until stopped.
pub async fn run(board: Arc<Board>, clock: fn() -> Micros, stop: CancellationToken) {
    let mut seen = BTreeMap::<String, Seen>::new();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_told = false;
    let mut looks = 0_u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let desks = board.desks();
        for desk in desks.iter().filter(|desk| !seen.contains_key(&desk.name)) {
            begin(desk).await;
        }
        seen.retain(|name, _| desks.iter().any(|desk| desk.name == *name));
        let is_kept = looks.is_multiple_of(KEEP_TICKS);
        looks += 1;
        for desk in desks {
            if is_kept {
                let _ = timeout(KEEPING_MAX, desk.keep(clock())).await;
            }
            let Some(minute) = look(&desk, &mut seen, clock()) else { continue };
            let folder = desk.folder.clone();
            let written = tokio::task::spawn_blocking(move || history::write(&folder, &minute)).await;
            if let Ok(Err(error)) = written
                && !is_told
            {
                is_told = true;
                tracing::warn!(destination = desk.name, %error, "the history for the status page cannot be written");
            }
        }
    }
}

/// Before the first look: a history that is none is not added to.
async fn begin(desk: &Desk) {
    let folder = desk.folder.clone();
    match tokio::task::spawn_blocking(move || history::mend(&folder)).await {
        Ok(Ok(true)) => {
            tracing::warn!(destination = desk.name, "the history for the status page was not what was written: it begins anew");
        }
        Ok(Err(error)) => {
            tracing::warn!(destination = desk.name, %error, "the history for the status page cannot be read");
        }
        Ok(Ok(false)) | Err(_) => {}
    }
}

/// One look; gives a minute that is over.
fn look(desk: &Desk, seen: &mut BTreeMap<String, Seen>, now: Micros) -> Option<Minute> {
    let outbox = desk.outbox();
    let traffic = desk.helm.traffic();
    let at = u32::try_from(now.0 / 60_000_000).unwrap_or(0);
    let seen_before = seen.contains_key(&desk.name);
    let before = seen.entry(desk.name.clone()).or_insert_with(|| Seen {
        acked: VecDeque::new(),
        totals: Totals::default(),
        minute: Minute { at, ..Minute::default() },
    });
    let mut pending = before.minute.pending;
    let mut totals = Totals { traffic, mapped: desk.helm.mapped(), ..before.totals.clone() };
    let is_open = outbox.is_some();
    if let Some(outbox) = outbox {
        let snapshot = outbox.snapshot();
        let states = Stream::ALL.map(|stream| snapshot.stream(stream).clone());
        pending = snapshot.pending();
        totals.captured = states.iter().map(StreamState::captured).sum();
        totals.acked = states.iter().map(|state| state.acked).sum();
        totals.settled = states.iter().map(|state| state.cursor.0).sum();
    }
    let is_new_life = totals.captured < before.totals.captured || totals.settled < before.totals.settled;
    if !seen_before || is_new_life {
        before.totals = totals.clone();
        before.acked.clear();
    }
    // Work, and whether it goes on: before rows can be settled, what they point to is mapped.
    let has_moved = totals.settled != before.totals.settled || totals.mapped != before.totals.mapped;
    desk.progress(pending, has_moved);
    before.acked.push_back((Instant::now(), totals.acked));
    while before.acked.len() > RATE_TICKS {
        before.acked.pop_front();
    }
    let rate = before.acked.front().zip(before.acked.back()).and_then(|((from, first), (to, last))| {
        let seconds = (*to - *from).as_secs_f64();
        (seconds >= 1.0).then(|| last.saturating_sub(*first) as f64 / seconds)
    });
    desk.set_rate(rate);
    let finished = (before.minute.at != at).then_some(before.minute);
    if finished.is_some() {
        before.minute = Minute { at, ..Minute::default() };
    }
    let (old, minute) = (&before.totals, &mut before.minute);
    let requests = totals.traffic.all().saturating_sub(old.traffic.all());
    let took = totals.traffic.took.saturating_sub(old.traffic.took);
    if requests > 0 {
        let all = u64::from(minute.round_trip_ms) * u64::from(minute.requests) + took.as_millis() as u64;
        minute.requests += requests as u32;
        minute.round_trip_ms = (all / u64::from(minute.requests)) as u32;
    }
    minute.pending = pending;
    minute.captured += totals.captured.saturating_sub(old.captured);
    minute.delivered += totals.acked.saturating_sub(old.acked);
    minute.bytes += totals.traffic.body_bytes.saturating_sub(old.traffic.body_bytes);
    minute.errors += totals.traffic.failed().saturating_sub(old.traffic.failed()) as u32;
    let seconds = TICK.as_secs() as u8;
    // Where nobody tried, nobody knows.
    let counted = match desk.helm.link() {
        _ if !is_open => None,
        _ if desk.helm.is_paused() => Some(&mut minute.paused_s),
        _ if desk.helm.trouble().is_some() => Some(&mut minute.down_s),
        Link::Unknown => None,
        Link::Down => Some(&mut minute.down_s),
        Link::Up => Some(&mut minute.up_s),
    };
    if let Some(counted) = counted {
        *counted = (*counted + seconds).min(60);
    }
    before.totals = totals;
    finished
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Epoch, Heard, SourceId},
        outbox::{OpenOptions, Outbox},
        ports::SourceError,
        queue::rewind::{Drained, Limits},
        status::board::Slot,
    };

    /// A desk whose outbox is open.
    fn desk(folder: &std::path::Path) -> Desk {
        let limits = Limits { outbox_bytes_max: u64::MAX, disk_reserve_bytes: 0, drained: Drained::Yes, clock: || Micros(0) };
        let connect = Box::new(|| Err(SourceError::Unreachable { advice: "away".into(), cause: None }));
        let desk = Desk::new("here", folder, limits, connect, None);
        let options = OpenOptions { destination: "here".into(), source: SourceId(1), epoch: Epoch(1) };
        desk.set(Slot::Open(Outbox::open(folder, &options).unwrap()));
        desk
    }

    #[tokio::test]
    async fn the_link_is_there_or_away_only_as_somebody_found_it() {
        let dir = tempfile::tempdir().unwrap();
        let (desk, mut seen, mut minute) = (desk(dir.path()), BTreeMap::new(), 0);
        // One look, and what came of the minute: seconds of up, down and paused.
        let mut looked = |desk: &Desk| {
            look(desk, &mut seen, Micros(minute * 60_000_000));
            minute += 1;
            let over = look(desk, &mut seen, Micros(minute * 60_000_000)).unwrap();
            // The second look falls into the next minute.
            seen.clear();
            (over.up_s, over.down_s, over.paused_s, over.errors)
        };
        assert_eq!(looked(&desk), (0, 0, 0, 0), "nobody was asked yet");
        desk.helm.heard(Heard::Answer);
        assert_eq!(looked(&desk), (2, 0, 0, 0));
        desk.helm.heard(Heard::Nothing);
        assert_eq!(looked(&desk), (0, 2, 0, 0), "no error of a request with rows");
        desk.helm.pause();
        assert_eq!(looked(&desk), (0, 0, 2, 0));
        desk.helm.resume();
        desk.helm.heard(Heard::Answer);
        desk.set(Slot::Closed("the disk fails".into()));
        assert_eq!(looked(&desk), (0, 0, 0, 0), "nobody asks");
    }

    #[tokio::test(start_paused = true)]
    async fn a_catalog_that_is_being_mapped_is_progress_and_one_that_is_not_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (desk, mut seen) = (desk(dir.path()), BTreeMap::new());
        let outbox = desk.outbox().unwrap();
        let int = || crate::domain::Column::Int(vec![Some(1)]);
        let columns = vec![int(), int(), int(), int(), crate::domain::Column::Float(vec![Some(1.5)])];
        let rows = crate::domain::Rows::new(Stream::Reading, columns);
        let (watermark, freshness) = (crate::domain::Position::Start, crate::domain::Freshness::New);
        let captured = crate::outbox::Captured { rows, watermark, catalog: Vec::new(), freshness, at: Micros(0) };
        outbox.append(captured).await.unwrap();
        for minute in 0..40 {
            tokio::time::advance(Duration::from_mins(1)).await;
            if minute < 20 {
                desk.helm.has_mapped();
            }
            look(&desk, &mut seen, Micros(minute * 60_000_000));
            if minute == 19 {
                assert!(desk.stalled() < Duration::from_mins(1), "an entity each minute");
            }
        }
        assert_eq!(desk.stalled(), Duration::from_mins(20), "and none for as long as that");
    }
}
