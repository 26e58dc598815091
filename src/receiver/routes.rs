//! From a request to its answer.
//!
//! The one rule: who may not come in is told before anything of the request is looked at.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, Method, Request, Response, Uri, header, request::Parts},
};

use super::{
    Manner,
    answer::{Answer, respond},
    body, catalog, cell,
    central::Central,
    gateways, page,
    query::{Span, selection},
    refusal::Refusal,
    store::Attempts,
    tables::{Kind, Table},
    take,
    tokens::Caller,
};

/// How long a list may take.
const LIST_MAX: Duration = Duration::from_mins(2);
/// How long the database may take to say that it is well.
const HEALTH_MAX: Duration = Duration::from_secs(3);

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Answers any request, and logs it: without its query, which may name a house.
pub(super) async fn serve(State(central): State<Arc<Central>>, request: Request<Body>) -> Response<Body> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.clone(), head.uri.path().to_owned());
    let peer = head.extensions.get::<Peer>().map(|peer| peer.0.to_string()).unwrap_or_default();
    let caller = caller(&central, &head.headers);
    let name = caller.as_ref().map_or("?", Caller::name).to_owned();
    let outcome = match central.requests.try_acquire() {
        Ok(_place) => answer(&central, caller, head, body).await,
        Err(_) => Err(Refusal::Busy),
    };
    if let Err(Refusal::Unavailable(cause) | Refusal::Unclear(cause)) = &outcome {
        central.alarm(cause);
    }
    let response = respond(outcome, central.manner);
    let (status, took) = (response.status().as_u16(), began.elapsed());
    central.metrics.request(method.as_str(), status, took);
    let took_ms = took.as_millis() as u64;
    tracing::info!(%peer, gateway = name, %method, path = &path[..path.floor_char_boundary(80)], status, took_ms, "request");
    response
}

/// Whose request it is; `None` for a stranger.
fn caller(central: &Central, headers: &HeaderMap) -> Option<Caller> {
    match central.tokens() {
        Some(tokens) => tokens.caller(headers),
        None => Some(Caller::Anybody),
    }
}

async fn answer(central: &Arc<Central>, caller: Option<Caller>, head: Parts, body: Body) -> Result<Answer, Refusal> {
    let Parts { method, uri, headers, .. } = head;
    let is_look = method == Method::GET || method == Method::HEAD;
    let ours = !central.manner.is_legacy();
    if ours && is_look && uri.path() == "/healthz" {
        return healthy(central).await;
    }
    let Some(caller) = caller else {
        // A client still writing when the connection ends would never see the refusal.
        body::discard(body).await;
        return Err(Refusal::Unauthorized);
    };
    if ours && is_look && matches!(uri.path(), "/" | "/metrics") {
        for_people(&caller)?;
        let gateways = gateways::list(&central.store).await?;
        return Ok(match uri.path() {
            "/" => Answer::Gateways(page::write(&gateways)),
            _ => Answer::Metrics(central.metrics.text(&gateways)),
        });
    }
    match method {
        Method::GET | Method::HEAD => match word(uri.path(), central.manner)? {
            Some(word) => {
                let list = tokio::time::timeout(LIST_MAX, get(central, &word, &uri, &headers)).await;
                list.map_err(|_| Refusal::TooSlow(format!("the list took more than {} s: ask for less", LIST_MAX.as_secs())))?
            }
            None => Ok(Answer::Page),
        },
        Method::POST | Method::PUT => take::change(central, caller, method, uri, headers, body).await,
        Method::DELETE if ours => match word(uri.path(), central.manner)? {
            Some(word) => {
                for_people(&caller)?;
                delete(central, &word, &uri).await
            }
            None => Ok(Answer::Page),
        },
        other => Err(Refusal::Method(format!("{other} is not understood: it is one of GET, POST, PUT and DELETE"))),
    }
}

fn for_people(caller: &Caller) -> Result<(), Refusal> {
    match caller {
        Caller::Anybody | Caller::Operator => Ok(()),
        Caller::Gateway { .. } => {
            Err(Refusal::Forbidden("this takes the token called operator in the tokens file, not a gateway's".to_owned()))
        }
    }
}

async fn healthy(central: &Central) -> Result<Answer, Refusal> {
    let look = async {
        let mut look = central.store.look().await?;
        look.one("SELECT 1".to_owned(), [], Kind::Int).await?;
        look.end().await
    };
    let looked = tokio::time::timeout(HEALTH_MAX, look).await;
    looked.unwrap_or_else(|_| Err(Refusal::Unavailable(sqlx::Error::PoolTimedOut)))?;
    Ok(Answer::Healthy)
}

/// The word of an address, as in `/rest/sensortype/`; `None` where the legacy server shows a page instead.
pub(super) fn word(path: &str, manner: Manner) -> Result<Option<String>, Refusal> {
    let word = path.strip_prefix("/rest/").filter(|word| !word.is_empty());
    match word.map(|word| word.strip_suffix('/').ok_or(word)) {
        Some(Ok(word)) => Ok(Some(word.to_ascii_lowercase())),
        _ if manner.is_legacy() && !path.ends_with('/') => Ok(None),
        Some(Err(word)) => {
            Err(Refusal::Lost(format!("nothing is at /rest/{word}: it takes a trailing slash, as in /rest/{word}/")))
        }
        None => Err(Refusal::Lost("nothing is here: the calls are under /rest/, as in /rest/sensortype/".to_owned())),
    }
}

async fn get(central: &Central, word: &str, uri: &Uri, headers: &HeaderMap) -> Result<Answer, Refusal> {
    let (manner, pairs) = (central.manner, pairs(uri)?);
    let newest = match word {
        "lastsync" => {
            let address = parameter(&pairs, "house")?;
            if manner.is_legacy() && !address.is_ascii() {
                return Err(Refusal::Legacy("an address with a letter beyond ASCII".to_owned()));
            }
            catalog::last_of_house(&central.store, address).await?
        }
        "lastnodesync" => catalog::last_of_node(&central.store, number(parameter(&pairs, "node")?)?).await?,
        "bulk" | "pushstatus" => return Err(Refusal::Method(format!("{word} takes POST only"))),
        _ => {
            let table = Table::named(word).filter(|table| table.listed).ok_or_else(|| unknown(word))?;
            let span = headers.get(header::RANGE).and_then(|range| Span::parse(range.to_str().ok()?));
            let listed = catalog::list(&central.store, table, selection(table, &pairs, manner)?, span, manner).await?;
            let range =
                listed.counts.map(|(matching, all)| format!("items {}-{matching}/{all}", span.map_or(0, |span| span.from)));
            return Ok(Answer::Found { json: cell::write_rows(table, &listed.rows, manner), range });
        }
    };
    let json = newest.map_or_else(|| "null".to_owned(), |time| cell::json_text(&time, manner));
    Ok(Answer::Found { json, range: None })
}

/// In a task of its own, as every change.
async fn delete(central: &Arc<Central>, word: &str, uri: &Uri) -> Result<Answer, Refusal> {
    let table = Table::named(word).filter(|table| table.listed).ok_or_else(|| match word {
        "bulk" | "pushstatus" | "lastsync" | "lastnodesync" => Refusal::Method(format!("{word} does not take DELETE")),
        _ => unknown(word),
    })?;
    let selection = selection(table, &pairs(uri)?, central.manner)?;
    let central = central.clone();
    let task = async move {
        let mut attempts = Attempts::default();
        loop {
            let deleted = catalog::delete(&central.store, table, &selection).await;
            if !attempts.again(&deleted).await {
                return deleted;
            }
        }
    };
    tokio::spawn(task).await.map_err(ended)?.map(Answer::Deleted)
}

pub(super) fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Refusal> {
    let Query(pairs) =
        Query::try_from_uri(uri).map_err(|cause| Refusal::Malformed(format!("the query string cannot be read: {cause}")))?;
    Ok(pairs)
}

pub(super) fn parameter<'a>(pairs: &'a [(String, String)], name: &str) -> Result<&'a str, Refusal> {
    let found = pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    found.ok_or_else(|| Refusal::Malformed(format!("the call needs ?{name}=")))
}

pub(super) fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| Refusal::Malformed(format!("{text:.40?} is not a number")))
}

pub(super) fn unknown(word: &str) -> Refusal {
    Refusal::Lost(format!("there is no table {word:.40?} here"))
}

pub(super) fn stopping() -> Refusal {
    Refusal::Unavailable(sqlx::Error::PoolClosed)
}

/// A task of ours panicked or was ended: a fault here, not the request's.
pub(super) fn ended(cause: tokio::task::JoinError) -> Refusal {
    Refusal::Unavailable(sqlx::Error::Io(std::io::Error::other(cause)))
}
