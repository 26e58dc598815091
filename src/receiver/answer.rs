//! What goes back to the client, in either manner.
//!
//! The one rule: every answer of the packhorse manner carries the receiver's header; none of the legacy manner does.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};

use super::{Manner, catalog::Stored, cell, refusal::Refusal, tables::Table, upsert::RunStored};
use crate::wire::{RECEIVER_HEADER, RECEIVER_VERSION, RunAnswer, run::SEEN_HEADER};

/// Marks a response after which the connection ends without a word in the headers, as the legacy server does after a failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct HangUp;

/// A success.
#[derive(Debug)]
pub(super) enum Answer {
    /// 200 with JSON.
    Found {
        /// The JSON.
        json: String,
        /// `Content-Range`, where a range was asked for.
        range: Option<String>,
    },
    /// 201 with the stored object and its address.
    Stored {
        /// Its table.
        table: &'static Table,
        /// Itself.
        stored: Stored,
        /// The host that the client asked.
        host: String,
    },
    /// 201 for a whole bulk.
    StoredBulk,
    /// 201 for a run, 207 when some of its rows are refused, with what became of each.
    StoredRun(RunStored),
    /// 200: the page of gateways.
    Gateways(String),
    /// 200: the counters.
    Metrics(String),
    /// 200: the database answers.
    Healthy,
    /// 200 with how many rows were deleted.
    Deleted(u64),
    /// The legacy server's answer to a missing trailing slash.
    Page,
}

/// The response that an outcome is in a manner.
pub(super) fn respond(outcome: Result<Answer, Refusal>, manner: Manner) -> Response<Body> {
    let mut response = match outcome {
        Ok(answer) => success(answer, manner),
        Err(refusal) if manner.is_legacy() => legacy_failure(&refusal),
        Err(refusal) => failure(&refusal),
    };
    if !manner.is_legacy() {
        response.headers_mut().insert(RECEIVER_HEADER, HeaderValue::from_static(RECEIVER_VERSION));
    }
    response
}

fn success(answer: Answer, manner: Manner) -> Response<Body> {
    match answer {
        Answer::Found { json, range } => {
            let mut response = with(StatusCode::OK, "application/json", json);
            set(&mut response, header::CONTENT_RANGE, range);
            response
        }
        Answer::Stored { table, stored, host } => {
            let mut json = String::new();
            cell::write_row(&mut json, table, &stored.cells, manner);
            let mut response = with(StatusCode::CREATED, "application/json", json);
            set(&mut response, header::LOCATION, Some(format!("http://{host}/rest/{}/{}", table.word(), stored.id)));
            response
        }
        Answer::StoredRun(RunStored { answer, seen }) => {
            let status = if answer.refused.is_empty() { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
            of_run(status, &answer, seen)
        }
        Answer::Gateways(page) => {
            let mut response = with(StatusCode::OK, "text/html; charset=UTF-8", page);
            let policy = "default-src 'none'; style-src 'unsafe-inline'";
            set(&mut response, header::CONTENT_SECURITY_POLICY, Some(policy.to_owned()));
            response
        }
        Answer::Metrics(text) => with(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", text),
        Answer::Healthy => with(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        Answer::Deleted(rows) => with(StatusCode::OK, "application/json", format!("{{\"deleted\":{rows}}}")),
        Answer::StoredBulk => with(StatusCode::CREATED, "application/json", "[]".to_owned()),
        Answer::Page => {
            let page = "<!DOCTYPE html>\n<html><head><title>cogent-house</title></head><body></body></html>\n";
            with(StatusCode::OK, "text/html; charset=UTF-8", page.to_owned())
        }
    }
}

fn of_run(status: StatusCode, answer: &RunAnswer, seen: Option<i64>) -> Response<Body> {
    let json = serde_json::to_string(answer).unwrap_or_default();
    let mut response = with(status, "application/json", json);
    tell_seen(&mut response, seen);
    response
}

fn tell_seen(response: &mut Response<Body>, seen: Option<i64>) {
    let seen = seen.map_or_else(|| "none".to_owned(), |seen| seen.to_string());
    set(response, header::HeaderName::from_static(SEEN_HEADER), Some(seen));
}

fn failure(refusal: &Refusal) -> Response<Body> {
    if let Refusal::Run { answer, seen, .. } = refusal {
        return of_run(refusal.status(), answer, *seen);
    }
    let text = cell::json_text(&refusal.to_string(), Manner::Packhorse);
    let mut response = with(refusal.status(), "application/json", format!("{{\"error\":{text}}}"));
    match refusal {
        Refusal::Unauthorized => set(&mut response, header::WWW_AUTHENTICATE, Some("Basic realm=\"packhorse\"".to_owned())),
        Refusal::Busy => set(&mut response, header::RETRY_AFTER, Some("2".to_owned())),
        Refusal::RowsLost { seen, .. } => tell_seen(&mut response, *seen),
        _ => {}
    }
    response
}

fn legacy_failure(refusal: &Refusal) -> Response<Body> {
    if let Refusal::LegacyKey(text) = refusal {
        let text = cell::json_text(&format!("Error: {text}"), Manner::Legacy);
        return with(StatusCode::INTERNAL_SERVER_ERROR, "application/json", format!("[{text}]"));
    }
    let text = "A server error occurred.  Please contact the administrator.".to_owned();
    let mut response = with(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", text);
    response.extensions_mut().insert(HangUp);
    response
}

fn with(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn set(response: &mut Response<Body>, name: header::HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        response.headers_mut().insert(name, value);
    }
}
