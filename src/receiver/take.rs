//! What is posted and put: read, checked, stored.
//!
//! The one rule: a change runs in a task of its own, so that a client that leaves in the middle cuts nothing in half.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, Method, Uri, header},
};
use serde_json::{Map, Value};

use super::{
    answer::Answer,
    body,
    catalog::{self, Stored},
    central::{Central, ROWS_MAX},
    gateways, receipt,
    refusal::Refusal,
    routes::{ended, number, pairs, parameter, stopping, unknown, word},
    store::Attempts,
    tables::Table,
    tokens::Caller,
    upsert::{self, Gate, Origin, Told},
};
use crate::{
    domain::{Micros, SourceId},
    ports::PushStatus,
    wire::{
        self, PLAIN_HEADER,
        run::{self, GENERATION_HEADER, Run, SOURCE_HEADER},
    },
};

/// Reads the body first, whatever is asked: a client still writing when the connection ends would never see a refusal.
pub(super) async fn change(
    central: &Arc<Central>,
    caller: Caller,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Answer, Refusal> {
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
        let answer = take(&central, &caller, &word, &method, &uri, &headers, body).await;
        drop(room);
        answer
    };
    tokio::spawn(task).await.map_err(ended)?
}

async fn take(
    central: &Central,
    caller: &Caller,
    word: &str,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<Answer, Refusal> {
    let manner = central.manner;
    if word == "bulk" && method == Method::POST {
        return bulk(central, caller, headers, body).await;
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
    let source = text(headers, SOURCE_HEADER).filter(|_| !manner.is_legacy());
    let source = source.map(run::source).transpose().map_err(Refusal::Malformed)?;
    let host = text(headers, header::HOST.as_str()).unwrap_or(&central.address).to_owned();
    if let (Some(source), "pushstatus") = (source, word) {
        let stored = report(central, caller, source, table, &object).await?;
        return Ok(Answer::Stored { table, stored, host });
    }
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
    Ok(Answer::Stored { table, stored, host })
}

/// What a gateway says of itself: the report as a row and what the page shows of it, in one change, so that a refused report leaves nothing.
async fn report(
    central: &Central,
    caller: &Caller,
    source: SourceId,
    table: &'static Table,
    object: &Map<String, Value>,
) -> Result<Stored, Refusal> {
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().chars().take(100).collect();
    let status = PushStatus { hostname: word("hostname"), version: word("version"), localtime: Micros(0) };
    let summary = wire::summary_from_json(object).map_err(|error| Refusal::Malformed(error.to_string()))?;
    let cells = catalog::posted(table, object, central.manner)?;
    let tokens = central.tokens().unwrap_or_default();
    let mut attempts = Attempts::default();
    loop {
        let done = async {
            let mut change = central.store.change_after(&attempts).await?;
            central.bound.check(&mut change, caller, source, &tokens).await?;
            gateways::report(&mut change, source, &status, summary.as_ref()).await?;
            let stored = catalog::post_within(&mut change, table, cells.clone(), central.manner).await?;
            change.end().await?;
            Ok(stored)
        };
        let done = done.await;
        if !attempts.again(&done).await {
            return done;
        }
    }
}

async fn bulk(central: &Central, caller: &Caller, headers: &HeaderMap, body: Bytes) -> Result<Answer, Refusal> {
    let manner = central.manner;
    let told = if manner.is_legacy() { Told::Rows(None) } else { told(headers, &body)? };
    if let Told::Run(run, digest) = &told
        && central.bound.is_known(caller, run.source)
        && let Some(repeat) = receipt::repeat(&central.store, run, digest).await?
    {
        central.metrics.run(&repeat.answer);
        return Ok(Answer::StoredRun(repeat));
    }
    let reading = central.inflated.acquire().await.map_err(|_| stopping())?;
    let (batch, told) = tokio::task::spawn_blocking(move || {
        let batch = upsert::parse(&body::inflate(body)?, &told, manner)?;
        Ok::<_, Refusal>((batch, told))
    })
    .await
    .map_err(ended)??;
    let rows = u32::try_from(batch.count.min(ROWS_MAX)).unwrap_or(u32::MAX);
    let _rows = central.rows.acquire_many(rows).await.map_err(|_| stopping())?;
    drop(reading);
    let tokens = central.tokens().unwrap_or_default();
    let gate = Gate { caller, tokens: &tokens, bound: &central.bound };
    let mut attempts = Attempts::default();
    let stored = loop {
        let stored = upsert::store(&central.store, &attempts, &batch, &told, &gate, manner).await;
        if !attempts.again(&stored).await {
            break stored?;
        }
    };
    if let Some(origin) = told.origin() {
        central.bound.note(caller, origin.source);
    }
    Ok(match stored {
        Some(stored) => {
            central.metrics.run(&stored.answer);
            Answer::StoredRun(stored)
        }
        None => Answer::StoredBulk,
    })
}

/// What a request tells of its rows. Source and generation come together or not at all.
fn told(headers: &HeaderMap, body: &Bytes) -> Result<Told, Refusal> {
    let text = |name: &str| text(headers, name);
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

/// A header as text; one that is no text reads as empty.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}
