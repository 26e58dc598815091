//! From a request to its answer.
//!
//! The one rule: a change runs in a task of its own, so that a client that leaves in the middle cuts nothing in half.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, Method, Request, Response, Uri, header},
};
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::{
    Manner,
    answer::{Answer, respond},
    body, catalog, cell,
    query::{Span, selection},
    receipt,
    refusal::Refusal,
    store::{Attempts, Store},
    tables::Table,
    upsert::{self, Origin, Told},
};
use crate::wire::{
    PLAIN_HEADER,
    run::{self, GENERATION_HEADER, Run, SOURCE_HEADER},
};

/// How many KiB of bodies are held at once (I7). Slow links hold theirs for long, so they count by size, not by number.
const BODIES_KIB_MAX: usize = 256 << 10;
/// How many bodies are inflated and stored at once (I7): each may grow to 64 MiB.
const INFLATED_MAX: usize = 4;
/// How often people are told that the database fails.
const ALARM_INTERVAL: Duration = Duration::from_mins(1);

/// What every request needs.
#[derive(Debug)]
pub(super) struct Central {
    store: Arc<Store>,
    manner: Manner,
    bodies: Arc<Semaphore>,
    inflated: Semaphore,
    address: String,
    alarmed: Mutex<Option<Instant>>,
}

impl Central {
    /// Serves a database; `address` stands in for a missing Host header.
    pub(super) fn new(store: Arc<Store>, manner: Manner, address: String) -> Self {
        Self {
            store,
            manner,
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            inflated: Semaphore::new(INFLATED_MAX),
            address,
            alarmed: Mutex::new(None),
        }
    }

    /// Tells people that the database fails, at most once in [`ALARM_INTERVAL`].
    fn alarm(&self, cause: &sqlx::Error) {
        let mut alarmed = self.alarmed.lock().unwrap_or_else(PoisonError::into_inner);
        if alarmed.is_none_or(|at| at.elapsed() >= ALARM_INTERVAL) {
            *alarmed = Some(Instant::now());
            tracing::error!(error = %cause, "the receiver's database cannot serve: check its disk; until then requests are refused");
        }
    }
}

/// Answers any request.
pub(super) async fn serve(State(central): State<Arc<Central>>, request: Request<Body>) -> Response<Body> {
    let outcome = answer(&central, request).await;
    if let Err(Refusal::Unavailable(cause) | Refusal::Unclear(cause)) = &outcome {
        central.alarm(cause);
    }
    respond(outcome, central.manner)
}

async fn answer(central: &Arc<Central>, request: Request<Body>) -> Result<Answer, Refusal> {
    let (head, body) = request.into_parts();
    match head.method {
        Method::GET | Method::HEAD => match word(head.uri.path(), central.manner)? {
            Some(word) => get(central, &word, &head.uri, &head.headers).await,
            None => Ok(Answer::Page),
        },
        Method::POST | Method::PUT => change(central, head.method, head.uri, head.headers, body).await,
        Method::DELETE if !central.manner.is_legacy() => match word(head.uri.path(), central.manner)? {
            Some(word) => delete(central, &word, &head.uri).await,
            None => Ok(Answer::Page),
        },
        other => Err(Refusal::Method(format!("{other} is not understood: it is one of GET, POST, PUT and DELETE"))),
    }
}

/// The word of an address, as in `/rest/sensortype/`; `None` where the legacy server shows a page instead.
fn word(path: &str, manner: Manner) -> Result<Option<String>, Refusal> {
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

/// Reads the body first, whatever is asked: a client still writing when the connection ends would never see a refusal.
async fn change(central: &Arc<Central>, method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Result<Answer, Refusal> {
    let room = central.bodies.clone().acquire_many_owned(body::kib_max(&body)).await.map_err(|_| stopping())?;
    let body = body::read(&headers, body).await?;
    let Some(word) = word(uri.path(), central.manner)? else { return Ok(Answer::Page) };
    let form =
        headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if central.manner.is_legacy() && form {
        return Err(Refusal::Legacy("a form".to_owned()));
    }
    let central = central.clone();
    let task = async move {
        let answer = take(&central, &word, &method, &uri, &headers, body).await;
        drop(room);
        answer
    };
    tokio::spawn(task).await.map_err(ended)?
}

async fn take(
    central: &Central,
    word: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, Refusal> {
    let manner = central.manner;
    let _place = central.inflated.acquire().await.map_err(|_| stopping())?;
    if word == "bulk" && method == Method::POST {
        return bulk(central, headers, body).await;
    }
    if word == "bulk" {
        return Err(Refusal::Method("bulk takes POST only".to_owned()));
    }
    let table = Table::named(word).ok_or_else(|| unknown(word))?;
    let object: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|cause| Refusal::Malformed(format!("the body is not a JSON object: {cause}")))?;
    let put = match *method {
        Method::PUT if table.takes_put() => Some(number(parameter(&pairs(uri)?, "id")?)?),
        Method::POST if table.posted => None,
        _ => return Err(Refusal::Method(format!("{word} does not take {method}"))),
    };
    let mut attempts = Attempts::default();
    let stored = loop {
        let stored = match put {
            Some(id) => catalog::put(&central.store, table, id, &object, manner).await,
            None => catalog::post(&central.store, table, &object, manner).await,
        };
        if !attempts.again(&stored).await {
            break stored?;
        }
    };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(&central.address).to_owned();
    Ok(Answer::Stored { table, stored, host })
}

async fn bulk(central: &Central, headers: &HeaderMap, body: Bytes) -> Result<Answer, Refusal> {
    let manner = central.manner;
    let told = if manner.is_legacy() { Told::Rows(None) } else { told(headers, &body)? };
    if let Told::Run(run, digest) = &told
        && let Some(repeat) = receipt::repeat(&central.store, run, digest).await?
    {
        return Ok(Answer::StoredRun(repeat));
    }
    let (batch, told) = tokio::task::spawn_blocking(move || {
        let batch = upsert::parse(&body::inflate(body)?, &told, manner)?;
        Ok::<_, Refusal>((batch, told))
    })
    .await
    .map_err(ended)??;
    let mut attempts = Attempts::default();
    loop {
        let stored = upsert::store(&central.store, &batch, &told, manner).await;
        if !attempts.again(&stored).await {
            return Ok(stored?.map_or(Answer::StoredBulk, Answer::StoredRun));
        }
    }
}

/// What a request tells of its rows. Source and generation come together or not at all.
fn told(headers: &HeaderMap, body: &Bytes) -> Result<Told, Refusal> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(run) = Run::parse(text).map_err(Refusal::Malformed)? {
        return Ok(Told::Run(run, receipt::digest(body)));
    }
    match (text(SOURCE_HEADER), text(GENERATION_HEADER)) {
        (None, None) if text(PLAIN_HEADER).is_some() => {
            let why = format!("this is a packhorse receiver: send {SOURCE_HEADER}, {GENERATION_HEADER} and the rows in full");
            Err(Refusal::InFull(why))
        }
        (None, None) => Ok(Told::Rows(None)),
        (Some(source), Some(generation)) => {
            let source = run::source(source).map_err(Refusal::Malformed)?;
            let generation = run::generation(generation).map_err(Refusal::Malformed)?;
            Ok(Told::Rows(Some(Origin { source, generation })))
        }
        _ => Err(Refusal::Malformed(format!("{SOURCE_HEADER} and {GENERATION_HEADER} come together or not at all"))),
    }
}

fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, Refusal> {
    let Query(pairs) =
        Query::try_from_uri(uri).map_err(|cause| Refusal::Malformed(format!("the query string cannot be read: {cause}")))?;
    Ok(pairs)
}

fn parameter<'a>(pairs: &'a [(String, String)], name: &str) -> Result<&'a str, Refusal> {
    let found = pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    found.ok_or_else(|| Refusal::Malformed(format!("the call needs ?{name}=")))
}

fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| Refusal::Malformed(format!("{text:?} is not a number")))
}

fn unknown(word: &str) -> Refusal {
    Refusal::Lost(format!("there is no table {word:?} here"))
}

fn stopping() -> Refusal {
    Refusal::Unavailable(sqlx::Error::PoolClosed)
}

/// A task of ours panicked or was ended: a fault here, not the request's.
fn ended(cause: tokio::task::JoinError) -> Refusal {
    Refusal::Unavailable(sqlx::Error::Io(std::io::Error::other(cause)))
}
