//! How far a request's body has come: what was taken from us, less what the kernel still holds because the other side has not acknowledged it.
//!
//! A body of a few hundred kilobytes goes into the kernel's buffer at once, and may lie there for minutes. `/proc/self/net/tcp` says how much of it
//! does, see [`lines`](super::lines); where it cannot be read, what was taken counts as moved.
//!
//! The one rule: only the lack of any movement ends an attempt early, never its length.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Instant, sleep};

use super::lines::Lines;

/// A body is taken in pieces of so many bytes. The HTTP client buffers some 16 of them, which look as if they had moved.
const PIECE_BYTES: usize = 1_024;
/// So often it is looked how far a body has come, at first and at last.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_LAST: Duration = Duration::from_millis(500);

/// Tells how far one body has come.
#[derive(Clone, Debug)]
pub(super) struct Meter(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    bytes: u64,
    taken: AtomicU64,
    /// When the first piece was taken: there is a connection.
    began: OnceLock<Instant>,
    /// How long it took until all of it had moved, and until when it certainly had not, microseconds.
    uploaded: OnceLock<Duration>,
    unmoved: AtomicU64,
}

/// How long a body was on its way: between two looks it is not known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Uploaded {
    pub(super) at_least: Duration,
    pub(super) at_most: Duration,
}

/// How long nothing may move.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stall {
    /// As long as some of the body waits here.
    pub(super) sending: Duration,
    /// When all of it was taken: the other side may have it, and be at work on it.
    pub(super) answering: Duration,
}

impl Meter {
    /// A body and its meter.
    pub(super) fn body(bytes: Bytes) -> (Self, Metered) {
        let meter = Self(Arc::new(Progress {
            bytes: bytes.len() as u64,
            taken: AtomicU64::new(0),
            began: OnceLock::new(),
            uploaded: OnceLock::new(),
            unmoved: AtomicU64::new(0),
        }));
        (meter.clone(), Metered { left: bytes, meter })
    }

    /// How long all of the body took to move; at worst until now.
    pub(super) fn uploaded(&self) -> Uploaded {
        let until_now = || self.0.began.get().map_or(Duration::ZERO, Instant::elapsed);
        let at_most = self.0.uploaded.get().copied().unwrap_or_else(until_now);
        Uploaded { at_least: Duration::from_micros(self.0.unmoved.load(Ordering::Relaxed)).min(at_most), at_most }
    }

    /// Ends when nothing has moved for too long, and gives for how long. `lines` are those of the client that sends the body.
    pub(super) async fn stalls(&self, lines: &Lines, stall: Stall) -> Duration {
        let (mut moved, mut since, mut pause) = (0, Instant::now(), LOOK_FIRST);
        loop {
            sleep(pause).await;
            pause = (pause * 2).min(LOOK_LAST).min(stall.sending / 4);
            let Some(began) = self.0.began.get() else {
                // Connecting has a deadline of its own.
                since = Instant::now();
                continue;
            };
            let looked = began.elapsed();
            let taken = self.0.taken.load(Ordering::Relaxed);
            let lines = lines.clone();
            let held = tokio::task::spawn_blocking(move || lines.held()).await.ok().flatten().unwrap_or(0);
            let now = taken.saturating_sub(held);
            if now > moved {
                (moved, since) = (now, Instant::now());
            }
            if now >= self.0.bytes {
                let _ = self.0.uploaded.set(began.elapsed());
            } else if self.0.uploaded.get().is_none() {
                self.0.unmoved.store(looked.as_micros() as u64, Ordering::Relaxed);
            }
            let patience = if taken < self.0.bytes { stall.sending } else { stall.answering };
            if since.elapsed() >= patience {
                return patience;
            }
        }
    }
}

/// A body that is metered.
#[derive(Debug)]
pub(super) struct Metered {
    left: Bytes,
    meter: Meter,
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.meter.0.began.get_or_init(Instant::now);
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.left.len().min(PIECE_BYTES);
        let piece = self.left.split_to(length);
        self.meter.0.taken.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_from_stalls_and_one_that_moves_does_not() {
        let stall = Stall { sending: Duration::from_secs(30), answering: Duration::from_mins(1) };
        let lines = Lines::default();
        let (meter, mut body) = Meter::body(Bytes::from(vec![0; 100 * PIECE_BYTES]));
        let mut take = || {
            let taken = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
            assert!(matches!(taken, Poll::Ready(Some(Ok(_)))));
        };
        let began = Instant::now();
        let stalled = {
            let mut stalls = std::pin::pin!(meter.stalls(&lines, stall));
            for _ in 0..5 {
                take();
                let moves = tokio::time::timeout(Duration::from_secs(20), &mut stalls).await;
                assert!(moves.is_err(), "a piece in 20 s is movement");
            }
            stalls.await
        };
        assert_eq!(stalled, stall.sending);
        assert!(began.elapsed() < Duration::from_secs(5 * 20 + 35));
        let Uploaded { at_least, at_most } = meter.uploaded();
        assert!(at_least >= Duration::from_secs(5 * 20) && at_most >= at_least, "it has not ended");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_was_taken_the_answer_is_waited_for() {
        let stall = Stall { sending: Duration::from_secs(1), answering: Duration::from_mins(1) };
        let lines = Lines::default();
        let (meter, mut body) = Meter::body(Bytes::from_static(b"short"));
        assert_eq!(body.size_hint().exact(), Some(5));
        let _ = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(body.is_end_stream());
        assert_eq!(meter.stalls(&lines, stall).await, stall.answering);
        let Uploaded { at_least, at_most } = meter.uploaded();
        assert!(at_least.is_zero() && at_most < Duration::from_secs(1));
    }
}
