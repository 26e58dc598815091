//! Whether the database is still the one that was captured. Some rows that were are looked for again (the newest and the oldest at every poll, all of
//! them where these are not there; within work that takes long once a minute, and after each new connection; the newest after each page).
//!
//! One that was emptied, restored from a backup or replaced gives ids a second time, of rows and of rooms. So it is a new *generation*: what waits of
//! the old one is sent first, with the catalog that it was captured with; then the catalog is captured anew, its mappings are proven by
//! content, and the table is walked through. Parts of it that the ledger proves to be what was captured are not captured again.
//!
//! The one rule: nothing of a new generation enters before all that waits of the old one has been sent.

use tokio::time::Instant;

use super::{Capture, CaptureError, LOOK_AGAIN, audit::Audits};
use crate::{
    domain::{
        Generation, Micros, Order, Position, Stream,
        witness::{self, Sight, Standing, Witness},
    },
    outbox::Outbox,
    ports::{PageRequest, Source, SourceError, SourceStream},
};

/// What the source is found to be.
pub(super) enum Found {
    /// What it was.
    Known,
    /// A new generation, of which nothing may enter yet.
    Waits,
}

/// Whether the source is the database that this generation of an outbox was captured from. Whoever appends rows beside capture asks it after they were
/// read and before they enter: ids, of rows and of rooms, mean something else in another database.
///
/// # Errors
/// The source's.
pub async fn is_captured_one(source: &mut dyn Source, outbox: &Outbox, generation: Generation) -> Result<bool, SourceError> {
    for stream in &source.connect().await?.streams {
        if standing(source, outbox, stream).await? != Standing::Same {
            return Ok(false);
        }
    }
    // The last, so that the witnesses were those of this generation.
    Ok(outbox.snapshot().meta.generation == generation)
}

impl Capture<'_> {
    /// Looks whether the source is what it was, and begins a new generation where it is not and nothing waits.
    pub(super) async fn look_at_generation(&mut self, streams: &[SourceStream], now: Micros) -> Result<Found, CaptureError> {
        let mut standings = Vec::new();
        for stream in streams {
            standings.push((stream.clone(), standing(self.source, self.outbox, stream).await?));
        }
        if standings.iter().all(|(_, standing)| *standing == Standing::Same) {
            self.looked = Some(Instant::now());
            return Ok(Found::Known);
        }
        let snapshot = self.outbox.snapshot();
        if snapshot.pending() > 0 {
            if !std::mem::replace(&mut self.waits_for_sending, true) {
                tracing::warn!(
                    ?standings,
                    waiting = snapshot.pending(),
                    "the source is not the database that it was: what waits of the old one is sent first, the new one keeps its rows"
                );
            }
            return Ok(Found::Waits);
        }
        self.waits_for_sending = false;
        let mut from = Stream::ALL.map(|stream| snapshot.stream(stream).watermark.clone());
        for (SourceStream { stream, order }, standing) in standings {
            let place = &mut from[usize::from(stream.number())];
            let last = self.source.last(stream, matches!(order, Order::Key).then_some(now)).await?;
            tracing::warn!(
                %stream, ?standing, captured_up_to = %place, ends_at = %last,
                "the source is not the database that it was: it is taken as a new generation, and compared in full"
            );
            match standing {
                Standing::Restored if place.is_after(&last) => *place = last,
                Standing::Same | Standing::Restored => {}
                Standing::Replaced => *place = Position::Start,
            }
        }
        if !self.outbox.begin_generation(from).await? {
            // Rows that were held have returned in the meantime.
            return Ok(Found::Waits);
        }
        self.audits = Audits::default();
        self.id_horizons.clear();
        // What is there has still to settle.
        self.started = Some(now);
        self.looked = Some(Instant::now());
        Ok(Found::Known)
    }

    /// Whether the source has become another one in the middle of work that takes long. Looks once a minute, and after each new connection.
    pub(super) async fn has_changed(&mut self) -> Result<bool, CaptureError> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return Ok(false);
        }
        for stream in &self.source.connect().await?.streams {
            if standing(self.source, self.outbox, stream).await? != Standing::Same {
                return Ok(true);
            }
        }
        self.looked = Some(Instant::now());
        Ok(false)
    }

    /// Whether the last row that was captured is where it was. Asked after a page was read and before it enters: then it was read from the same
    /// database, and no row of another one enters between two looks.
    pub(super) async fn is_last_row_there(&mut self, stream: &SourceStream) -> Result<bool, SourceError> {
        match self.outbox.snapshot().ledger(stream.stream).witnesses.last() {
            Some(last) => Ok(sight(self.source, stream, last).await? == Sight::Same),
            None => Ok(true),
        }
    }
}

async fn standing(source: &mut dyn Source, outbox: &Outbox, stream: &SourceStream) -> Result<Standing, SourceError> {
    let witnesses = outbox.snapshot().ledger(stream.stream).witnesses.clone();
    let mut sights = Vec::new();
    for witness in witnesses.last().into_iter().chain(witnesses.first()) {
        sights.push(sight(source, stream, witness).await?);
    }
    if sights.iter().all(|sight| *sight == Sight::Same) {
        return Ok(Standing::Same);
    }
    sights.clear();
    for witness in &witnesses {
        sights.push(sight(source, stream, witness).await?);
    }
    Ok(witness::judge(&sights))
}

async fn sight(source: &mut dyn Source, stream: &SourceStream, witness: &Witness) -> Result<Sight, SourceError> {
    let after = match witness.position.clone() {
        Position::Start => return Ok(Sight::Gone),
        Position::Id(id) => Position::Id(id.saturating_sub(1)),
        Position::Key { time, mut rest } => {
            if let Some(last) = rest.last_mut() {
                *last = last.saturating_sub(1);
            }
            Position::Key { time, rest }
        }
    };
    if matches!((stream.order, &after), (Order::Id, Position::Key { .. }) | (Order::Key, Position::Id(_))) {
        // A table that is paged otherwise now is told where it is read.
        return Ok(Sight::Same);
    }
    let request = PageRequest { stream: stream.stream, after, before: None, limit: 1 };
    let page = match source.page(&request).await {
        // Whatever it is, it is not what was captured.
        Err(SourceError::Row { .. }) => return Ok(Sight::Other),
        page => page?,
    };
    let there = (!page.is_empty()).then(|| super::position(stream, &page, 0)).transpose()?;
    Ok(if there.as_ref() != Some(&witness.position) {
        Sight::Gone
    } else if page.key_hash(0, stream.order, &mut String::new()) == witness.hash {
        Sight::Same
    } else {
        Sight::Other
    })
}
