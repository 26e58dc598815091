//! What the daemon serves over HTTP: the status page, `/status.json`, `/metrics`, `/healthz`. Reading only.
//!
//! The one rule: whoever connects, however many and with whatever, capture and delivery do not notice: heads are bounded, slow ones are cut off,
//! of too many connections the oldest goes, and what takes a while to look up is looked up once for all who ask.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State as Shared,
    http::{HeaderMap, Request, StatusCode, header, uri::Authority},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    DestinationStatus,
    board::Board,
    history::{self, Minute},
    lines, metrics, page,
};
use crate::{
    domain::Micros,
    queue::{Filter, Group, look},
    sender::helm::Traffic,
};

/// Connections at once; the oldest makes room for one more.
const CONNECTIONS_MAX: usize = 128;
/// How long a head may take, and an idle connection is kept.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a connection may last: pages are small.
const CONNECTION_MAX: Duration = Duration::from_mins(2);
/// The longest head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Groups of parked rows that are shown of a destination.
const GROUPS_MAX: usize = 20;
/// How long they may take to be gathered.
const GROUPING_MAX: Duration = Duration::from_secs(5);
/// What was looked up is good for so long.
const FRESH: Duration = Duration::from_secs(2);
/// The pause after the address could not be had.
const LISTEN_PAUSE: Duration = Duration::from_secs(10);

/// What is served, and how.
pub struct Site {
    /// The destinations.
    pub board: Arc<Board>,
    /// The gateway's label.
    pub label: String,
    /// Whoever asks must show it, where there is one.
    pub token: Option<String>,
    /// `/healthz` fails when there is work and no progress for so long.
    pub stall_max: Duration,
    /// The gateway's clock.
    pub clock: fn() -> Micros,
    /// What was looked up last, and when.
    pub seen: Seen,
}

/// What takes a while to look up of each destination, for whoever asks soon after.
pub type Seen = Mutex<Option<(Instant, Arc<Vec<Depth>>)>>;

/// What takes a while to look up of a destination.
#[derive(Debug, Default)]
pub struct Depth {
    /// Its history, a minute each.
    pub minutes: Vec<Minute>,
    /// Its parked rows by reason; `None` where there are too many to go through for a page.
    pub parked: Option<Vec<Group>>,
}

/// One destination as it was looked at.
pub struct Look {
    /// The figures.
    pub status: DestinationStatus,
    /// What requests came to.
    pub traffic: Traffic,
    /// How long there has been work and no progress.
    pub stalled: Duration,
    /// Entities that the destination could not be given, each with the reason.
    pub conflicts: Vec<(String, String)>,
}

impl Site {
    /// Looks at every destination.
    pub async fn look(&self) -> Vec<Look> {
        let now = (self.clock)();
        let mut looks = Vec::new();
        for desk in self.board.desks() {
            looks.push(Look {
                status: desk.status(now).await,
                traffic: desk.helm.traffic(),
                stalled: desk.stalled(),
                conflicts: desk.helm.conflicts(),
            });
        }
        looks
    }

    /// Why it is not healthy; nothing when it is.
    pub fn sick(&self, looks: &[Look]) -> Vec<String> {
        let stalled = looks.iter().filter(|look| look.stalled >= self.stall_max);
        let told = stalled.map(|look| {
            let span = super::sentence::span_of(look.stalled);
            format!("{}: no progress for {span}: {}", look.status.destination, look.status.sentence)
        });
        told.collect()
    }

    /// The history of every destination, and what is parked there. Whoever asks meanwhile gets the same.
    async fn depth(&self, now: Micros) -> Arc<Vec<Depth>> {
        let mut seen = self.seen.lock().await;
        if let Some((at, depth)) = &*seen
            && at.elapsed() < FRESH
        {
            return Arc::clone(depth);
        }
        let to = u32::try_from(now.0 / 60_000_000).unwrap_or(0);
        let mut found = Vec::new();
        for desk in self.board.desks() {
            let folder = desk.folder.clone();
            let read = tokio::task::spawn_blocking(move || history::read(&folder, to.saturating_sub(history::MINUTES), to));
            let minutes = read.await.unwrap_or_default();
            let beside = desk.beside();
            let groups = desk.while_open(async |outbox| look::groups(&outbox, &Filter::default(), &beside).await);
            let parked = match timeout(GROUPING_MAX, groups).await {
                Ok(Some(Ok(mut groups))) => {
                    groups.truncate(GROUPS_MAX);
                    Some(groups)
                }
                // It closed, or does not open.
                Ok(None) => Some(Vec::new()),
                Ok(Some(Err(_))) | Err(_) => None,
            };
            found.push(Depth { minutes, parked });
        }
        let depth = Arc::new(found);
        *seen = Some((Instant::now(), Arc::clone(&depth)));
        depth
    }
}

/// The routes.
fn router(site: Arc<Site>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/status.json", get(status))
        .route("/metrics", get(figures))
        .route("/healthz", get(health))
        .fallback(async || (StatusCode::NOT_FOUND, "there is /, /status.json, /metrics and /healthz\n"))
        .layer(from_fn_with_state(Arc::clone(&site), admitted))
        .with_state(site)
}

async fn admitted(Shared(site): Shared<Arc<Site>>, request: Request<Body>, next: Next) -> Response {
    if site.token.as_ref().is_some_and(|token| !shows(request.headers(), token)) {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"packhorse: the token is the password\"")];
        return (StatusCode::UNAUTHORIZED, ask, "a token is needed\n").into_response();
    }
    if site.token.is_none() && request.headers().get(header::HOST).is_some_and(|host| !is_ours(host.as_bytes())) {
        let text = "this name is not known here: ask for the address itself or for localhost, or set status.token_file\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in
        [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")]
    {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// Whether a page is asked for by an address or as localhost. Any other name may be somebody's who had it resolve to this machine, so that a browser
/// here reads the page for them.
fn is_ours(host: &[u8]) -> bool {
    let Ok(authority) = std::str::from_utf8(host).unwrap_or_default().parse::<Authority>() else { return false };
    let host = authority.host().trim_end_matches('.');
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

/// Whether a request shows the token, as a bearer or as the password of a browser's question.
fn shows(headers: &HeaderMap, token: &str) -> bool {
    let Some(given) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else { return false };
    let is_token = |given: &[u8]| {
        // As long for any guess of this length.
        given.len() == token.len() && given.iter().zip(token.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    };
    match given.split_once(' ') {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("bearer") => is_token(given.trim().as_bytes()),
        Some((scheme, given)) if scheme.eq_ignore_ascii_case("basic") => {
            let login = from_base64(given.trim()).unwrap_or_default();
            login.iter().position(|byte| *byte == b':').is_some_and(|colon| is_token(&login[colon + 1..]))
        }
        _ => false,
    }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for c in text.trim_end_matches('=').bytes() {
        bits = (bits << 6) | u32::from(value(c)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(bytes)
}

async fn root(Shared(site): Shared<Arc<Site>>) -> Response {
    let now = (site.clock)();
    let looks = site.look().await;
    let depth = site.depth(now).await;
    let nonce = format!("{:032x}", rand::random::<u128>());
    let html = page::html(&page::View {
        label: &site.label,
        looks: &looks,
        depth: &depth,
        sick: &site.sick(&looks),
        lines: &lines::last(),
        now,
        nonce: &nonce,
    });
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()), (header::CONTENT_SECURITY_POLICY, policy)], html)
        .into_response()
}

async fn status(Shared(site): Shared<Arc<Site>>) -> Response {
    let looks = site.look().await;
    let sick = site.sick(&looks);
    let destinations: Vec<_> = looks.iter().map(|look| &look.status).collect();
    Json(json!({ "healthy": sick.is_empty(), "sick": sick, "destinations": destinations })).into_response()
}

async fn figures(Shared(site): Shared<Arc<Site>>) -> Response {
    let looks = site.look().await;
    let text = metrics::text(&looks, site.sick(&looks).is_empty());
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn health(Shared(site): Shared<Arc<Site>>) -> Response {
    let sick = site.sick(&site.look().await);
    if sick.is_empty() {
        return "ok\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, sick.join("\n") + "\n").into_response()
}

/// Listens, as soon as the address can be had, and serves until stopped.
pub async fn serve(listen: SocketAddr, site: Site, stop: CancellationToken) {
    let listener = tokio::select! {
        listener = bound(listen) => listener,
        () = stop.cancelled() => return,
    };
    let router = router(Arc::new(site));
    let mut connections = JoinSet::new();
    let mut oldest = VecDeque::<AbortHandle>::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {
                oldest.retain(|connection| !connection.is_finished());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                if oldest.len() >= CONNECTIONS_MAX
                    && let Some(connection) = oldest.pop_front()
                {
                    connection.abort();
                }
                oldest.push_back(connections.spawn(connection(socket, router.clone())));
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the status page could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

/// An interface may come up after packhorse.
async fn bound(listen: SocketAddr) -> TcpListener {
    let mut is_told = false;
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => {
                let address = listener.local_addr().unwrap_or(listen);
                tracing::info!(page = %format!("http://{address}/"), "the status page is served");
                return listener;
            }
            Err(error) if is_told => tracing::debug!(%listen, %error, "the status page cannot be served yet"),
            Err(error) => {
                is_told = true;
                tracing::warn!(%listen, %error, "the status page cannot be served: it is tried again; or set status.listen");
            }
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

async fn connection(socket: TcpStream, router: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_MAX).max_buf_size(HEAD_BYTES_MAX);
    let served = http.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    // Whoever breaks off, or takes too long, is nobody's loss.
    let _ = timeout(CONNECTION_MAX, served).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_ours_is_told_from_an_address() {
        for ours in ["127.0.0.1:9130", "localhost:9130", "LOCALHOST", "localhost.:9130", "[::1]:9130", "[::1]", "192.168.4.1"] {
            assert!(is_ours(ours.as_bytes()), "{ours}");
        }
        for other in ["rebind.example:9130", "127.0.0.1.example", "localhost.example:9130", "", ":9130", "[::1", "\u{fffd}"] {
            assert!(!is_ours(other.as_bytes()), "{other}");
        }
        assert!(!is_ours(b"\xff\xfe"));
    }

    #[test]
    fn a_token_is_shown_as_a_bearer_or_as_a_password() {
        let is_shown = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            shows(&headers, "let-me-in")
        };
        assert!(is_shown("Bearer let-me-in") && is_shown("Basic YW55Ym9keTpsZXQtbWUtaW4="));
        for wrong in
            ["Bearer let-me-i", "Bearer let-me-inn", "Bearer ", "let-me-in", "Basic bGV0LW1lLWlu", "Basic %", "Digest let-me-in"]
        {
            assert!(!is_shown(wrong), "{wrong}");
        }
        assert!(!shows(&HeaderMap::new(), "let-me-in"));
    }
}
