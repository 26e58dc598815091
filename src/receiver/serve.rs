//! The connections: accepted within bounds, stopped within bounds, and, in the legacy manner, hung up on.
//!
//! The one rule: when the stop is asked for, every connection is gone after [`STOP_MAX`].

use std::{
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, http::Response};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{answer::HangUp, central::Central, routes::Peer, tls::Tls};

/// How long open requests may go on after the stop was asked for.
pub(super) const STOP_MAX: Duration = Duration::from_secs(5);
/// How many connections are served at once (I7).
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take for the head of a request; also how long an idle connection is kept.
const HEAD_MAX: Duration = Duration::from_secs(75);
/// How long a client may take to agree on TLS.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);
/// The pause after a connection could not be accepted (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the stop is asked for, then until the open requests are answered, but not longer than [`STOP_MAX`].
pub(super) async fn serve(listener: TcpListener, router: Router, central: &Arc<Central>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let next = async |places: &Arc<Semaphore>| {
        let place = places.clone().acquire_owned().await.map_err(io::Error::other)?;
        listener.accept().await.map(|(socket, peer)| (socket, Peer(peer), place))
    };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = next(&places) => accepted,
        };
        match accepted {
            Ok((socket, peer, place)) => {
                let (router, stop) = (router.clone(), stop.clone());
                let acceptor = central.tls.as_ref().map(Tls::acceptor);
                connections.spawn(async move {
                    let _ = socket.set_nodelay(true);
                    match acceptor {
                        None => connection(socket, peer, router, stop).await,
                        Some(acceptor) => match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(socket)).await {
                            Ok(Ok(socket)) => connection(socket, peer, router, stop).await,
                            Ok(Err(cause)) => tracing::debug!(error = %cause, peer = %peer.0, "no TLS came about"),
                            Err(_) => tracing::debug!(peer = %peer.0, "no TLS came about in time"),
                        },
                    }
                    drop(place);
                });
            }
            Err(cause) => {
                tracing::warn!(error = %cause, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_MAX, all).await.is_err() {
        connections.shutdown().await;
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send>(socket: S, peer: Peer, router: Router, stop: CancellationToken) {
    let hang_up = Arc::new(AtomicBool::new(false));
    let line = Line { socket, hang_up: hang_up.clone(), written: false, ended: false };
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let (answer, hang_up) = (router.call(request), hang_up.clone());
        async move {
            let response: Response<Body> = answer.await?;
            hang_up.store(response.extensions().get::<HangUp>().is_some(), Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX);
    let mut served = pin!(http.serve_connection(TokioIo::new(line), service));
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(cause) = ended {
        tracing::debug!(error = %cause, "a connection broke off");
    }
}

/// A socket that plays dead once the answer that asked for it is written: hyper then ends the connection, and has announced nothing.
struct Line<S> {
    socket: S,
    hang_up: Arc<AtomicBool>,
    written: bool,
    ended: bool,
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written |= self.hang_up.load(Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(cx);
        self.ended |= self.written && flushed.is_ready();
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.written |= self.hang_up.load(Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
