//! A part of the source that is captured once more, because a receiver has lost what it took; and the end of what may have been sent by another
//! copy of this outbox.
//!
//! The watermark stays where it is (I4): the rows are repeats, and where this stands is in the commits of its rows (I1).

use super::{Capture, CaptureError, TURN_PAGES, check_order, position};
use crate::{
    domain::{Freshness, Micros, Order},
    outbox::{Again, Captured, Image},
    ports::{PageRequest, SourceStream},
};

/// What became of a turn.
pub(super) enum Turned {
    /// Nothing is left to be captured once more.
    Done,
    /// There is more.
    More,
    /// There is no room for the next page, for this reason.
    Full(&'static str),
    /// The source is another one now.
    Changed,
}

impl Capture<'_> {
    /// Where rows may have been sent by another copy of this outbox, that is so up to the present end of the source.
    pub(super) async fn bound_the_doubt(&mut self, streams: &[SourceStream], now: Micros) -> Result<(), CaptureError> {
        for SourceStream { stream, order } in streams {
            match self.outbox.snapshot().stream(*stream).elsewhere.image {
                Image::Only => continue,
                Image::Doubted => {}
            }
            let last = self.source.last(*stream, matches!(order, Order::Key).then_some(now)).await?;
            tracing::info!(%stream, up_to = %last, "what is in the source up to here may have been sent: it is asked for first");
            self.outbox.doubt_up_to(*stream, last).await?;
        }
        Ok(())
    }

    /// Some pages of what is captured once more.
    pub(super) async fn capture_again(&mut self, stream: &SourceStream) -> Result<Turned, CaptureError> {
        for _ in 0..TURN_PAGES {
            let Some(Again { after, up_to }) = self.outbox.snapshot().stream(stream.stream).elsewhere.again.clone() else {
                return Ok(Turned::Done);
            };
            if let Some(why) = self.outbox.why_full(self.options.outbox_bytes_max, self.options.disk_reserve_bytes).await? {
                return Ok(Turned::Full(why));
            }
            // Told where the new rows of the table are read.
            check_order(stream, &after)?;
            let mut request = PageRequest { stream: stream.stream, after, before: None, limit: self.options.page_rows_max };
            let page = self.page_or_part(&mut request).await?;
            if !self.is_last_row_there(stream).await? {
                return Ok(Turned::Changed);
            }
            let (fetched, mut within) = (page.len(), 0);
            while within < fetched && !position(stream, &page, within)?.is_after(&up_to) {
                within += 1;
            }
            let is_last = within < fetched || fetched < request.limit as usize;
            let after = match within.checked_sub(1) {
                Some(last) if !is_last => Some(position(stream, &page, last)?),
                Some(_) | None => None,
            };
            let rows = if within == fetched { page } else { page.slice(0, within) };
            let catalog = self.needed(&rows).await?;
            let watermark = self.outbox.snapshot().stream(stream.stream).watermark.clone();
            let captured = Captured { rows, watermark, catalog, freshness: Freshness::Repeat, at: (self.options.clock)() };
            self.outbox.record_again(captured, after).await?;
        }
        Ok(Turned::More)
    }
}
