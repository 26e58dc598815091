//! How far a request's body has come: what was taken from us, less what the kernel still holds because the other side has not acknowledged it.
//!
//! A body of a few hundred kilobytes goes into the kernel's buffer at once, and may lie there for minutes. `/proc/self/net/tcp` says how much of it
//! does; where it cannot be read, what was taken counts as moved.
//!
//! The one rule: only the lack of any movement ends an attempt early, never its length.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::Read as _,
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

/// A body is taken in pieces of so many bytes. The HTTP client buffers some 16 of them, which look as if they had moved.
const PIECE_BYTES: usize = 1_024;
/// So often it is looked how far a body has come, at first and at last.
const LOOK_FIRST: Duration = Duration::from_millis(10);
const LOOK_LAST: Duration = Duration::from_millis(500);
/// No more of the kernel's table is read than that (I7): a gateway has some dozens of lines of 150 bytes.
const TABLE_BYTES_MAX: u64 = 4 << 20;

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

    /// Ends when nothing has moved for too long, and gives for how long. `port` is that of the other side.
    pub(super) async fn stalls(&self, port: u16, stall: Stall) -> Duration {
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
            let held = tokio::task::spawn_blocking(move || held_by_kernel(port)).await.ok().flatten().unwrap_or(0);
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

/// Bytes that this process has sent to a port and that were not acknowledged; `None` where the kernel does not tell.
fn held_by_kernel(port: u16) -> Option<u64> {
    let own: Vec<String> = fs::read_dir("/proc/self/fd")
        .ok()?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = |path: &str| {
        let mut text = String::new();
        File::open(path).ok()?.take(TABLE_BYTES_MAX).read_to_string(&mut text).ok()?;
        Some(held(&text, port, &own))
    };
    // Without IPv6 there is no second table.
    Some(table("/proc/self/net/tcp")? + table("/proc/self/net/tcp6").unwrap_or(0))
}

/// The send queues of these sockets that lead to a port, added up. The columns: number, local and remote address, state, send and receive
/// queue, timer, retransmissions, user, timeout, inode; numbers are hexadecimal but for the last three.
fn held(table: &str, port: u16, own: &[String]) -> u64 {
    let queue = |line: &str| {
        let mut columns = line.split_whitespace();
        let to = columns.nth(2)?.rsplit(':').next()?;
        let queue = columns.nth(1)?.split(':').next()?;
        let inode = columns.nth(4)?;
        let is_it = u16::from_str_radix(to, 16).ok()? == port && own.iter().any(|one| one == inode);
        is_it.then(|| u64::from_str_radix(queue, 16).ok()).flatten()
    };
    table.lines().filter_map(queue).sum()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpSocket},
    };

    use super::*;

    #[test]
    fn only_our_own_sockets_to_that_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:198F 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0000 100 0 0 10 0
   1: 0100007F:A1B2 0100007F:198F 01 00001000:00000000 00:00000000 00000000     0        0 222 1 0000 20 4 30 10 -1
   2: 0100007F:A1B3 0100007F:198F 01 00000001:00000000 00:00000000 00000000     0        0 333 1 0000 20 4 30 10 -1
   3: 0100007F:A1B4 0100007F:0050 01 00000500:00000000 00:00000000 00000000     0        0 222 1 0000 20 4 30 10 -1
   4: nonsense";
        let own = ["222".to_owned(), "444".to_owned()];
        assert_eq!(held(table, 0x198f, &own), 0x1000);
        assert_eq!(held(table, 0x198f, &["222".to_owned(), "333".to_owned()]), 0x1001);
        assert_eq!(held(table, 81, &own), 0);
    }

    #[tokio::test]
    async fn what_the_other_side_does_not_read_is_held_by_the_kernel() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4_096).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener: TcpListener = socket.listen(1).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut client = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(&vec![7; 200_000]).await.unwrap();
        let held = held_by_kernel(port).expect("this kernel tells");
        assert!(held > 50_000 && held <= 200_000, "{held}");
        let mut read = vec![0; 200_000];
        server.read_exact(&mut read).await.unwrap();
        while held_by_kernel(port) != Some(0) {
            sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_from_stalls_and_one_that_moves_does_not() {
        let stall = Stall { sending: Duration::from_secs(30), answering: Duration::from_mins(1) };
        let (meter, mut body) = Meter::body(Bytes::from(vec![0; 100 * PIECE_BYTES]));
        let mut take = || {
            let taken = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
            assert!(matches!(taken, Poll::Ready(Some(Ok(_)))));
        };
        let began = Instant::now();
        let stalled = {
            let mut stalls = std::pin::pin!(meter.stalls(1, stall));
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
        let (meter, mut body) = Meter::body(Bytes::from_static(b"short"));
        assert_eq!(body.size_hint().exact(), Some(5));
        let _ = Pin::new(&mut body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
        assert!(body.is_end_stream());
        assert_eq!(meter.stalls(1, stall).await, stall.answering);
        let Uploaded { at_least, at_most } = meter.uploaded();
        assert!(at_least.is_zero() && at_most < Duration::from_secs(1));
    }
}
