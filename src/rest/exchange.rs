//! One request and its answer over reqwest: every failure becomes an [`Answer`].
//!
//! The one rule: only an error that says that no connection came about is [`Answer::NoConnection`]; after that the server may have read
//! the request.

use std::{error::Error, io, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::{Response, Url, header, tls::TlsInfo};
use tokio::time::{Instant, timeout};

use super::{
    Auth,
    calls::{Call, Success},
    classify::{Answer, Body, NoConnection, Status},
    client::Wired,
    retry_after,
    upload::{Meter, Stall, Uploaded},
};
use crate::{
    domain::{RefusedRow, Seq, Told},
    edge,
    wire::{self, RefusedRows, RunAnswer, run::SEEN_HEADER},
};

/// However it moves, a body has no more time than it takes at this rate (I7).
pub(super) const BYTES_PER_SECOND_MIN: u64 = 500;
/// An answer with a list is read up to this size.
pub(super) const LIST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A row in a list whose number of rows is bounded; one takes about 117, ours with its identity about 230.
const ROW_BYTES_MAX: usize = 512;
/// Any other answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// A receiver's answer about each row of a run: at worst every other row is refused.
const RUN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// No more rows than these are taken from one run of an answer: a request has fewer.
const REFUSED_ROWS_MAX: usize = 1_000_000;
/// So much of an answer is shown to people.
const EXCERPT_CHARS: usize = 160;

/// What is the same for all requests.
pub(super) struct Terms<'a> {
    pub(super) auth: &'a Auth,
    pub(super) secrets: &'a [String],
    pub(super) connect_deadline: Duration,
    pub(super) answer_deadline: Duration,
    /// As long as some of a body waits here, something of it must move within this time.
    pub(super) stall_deadline: Duration,
    pub(super) headers: header::HeaderMap,
    /// An answer with a list is read up to this size.
    pub(super) list_bytes_max: usize,
}

/// An answer with what only the caller can use of it.
pub(super) struct Exchanged {
    pub(super) answer: Answer,
    /// The body of an answer that meets the contract.
    pub(super) json: serde_json::Value,
    /// Whether a packhorse receiver's header was on it; `None` without an answer.
    pub(super) is_packhorse: Option<bool>,
    /// The server's clock, by its Date header; whole seconds.
    pub(super) date: Option<DateTime<Utc>>,
    /// The server's own certificate, DER, where the client keeps it.
    pub(super) certificate: Option<Vec<u8>>,
    /// What the answer says of the range that was asked for.
    pub(super) content_range: Option<String>,
    /// What a packhorse receiver told of a run.
    pub(super) told: Option<Told>,
    /// Bytes of the answer's body.
    pub(super) body_bytes: u64,
    /// How long the request's body was on its way.
    pub(super) uploaded: Uploaded,
}

impl From<Answer> for Exchanged {
    fn from(answer: Answer) -> Self {
        Self {
            answer,
            json: serde_json::Value::Null,
            is_packhorse: None,
            date: None,
            certificate: None,
            content_range: None,
            told: None,
            body_bytes: 0,
            uploaded: Uploaded::default(),
        }
    }
}

/// Sends a call and reads its whole answer, within the deadlines.
pub(super) async fn exchange(wired: &Wired, url: Url, call: &Call, terms: &Terms<'_>) -> Exchanged {
    let mut request = wired.client.request(call.method.clone(), url).headers(terms.headers.clone());
    request = match terms.auth {
        Auth::None => request,
        Auth::Bearer(token) => request.bearer_auth(token),
        Auth::Basic { user, password } => request.basic_auth(user, Some(password)),
    };
    if let Some(rows_max) = call.rows_max {
        request = request.header(header::RANGE, format!("items=0-{rows_max}"));
    }
    let Some(body) = &call.body else {
        let deadline = terms.connect_deadline + terms.answer_deadline;
        return match timeout(deadline, request.send()).await {
            Err(_) => Answer::TimedOutAfterSend { after: deadline }.into(),
            Ok(sent) => answered(sent, call, terms).await,
        };
    };
    let (meter, metered) = Meter::body(body.bytes.clone().into());
    request = request.header(header::CONTENT_TYPE, body.content_type).body(reqwest::Body::wrap(metered));
    let stall = Stall { sending: terms.stall_deadline, answering: terms.answer_deadline };
    let deadline = terms.connect_deadline + terms.answer_deadline + time_at_least(call.body_bytes());
    let sent = tokio::select! {
        sent = timeout(deadline, request.send()) => sent.map_err(|_| deadline),
        waited = meter.stalls(&wired.lines, stall) => Err(waited),
    };
    let uploaded = meter.uploaded();
    match sent {
        Err(after) => Exchanged { uploaded, ..Answer::TimedOutAfterSend { after }.into() },
        Ok(sent) => Exchanged { uploaded, ..answered(sent, call, terms).await },
    }
}

async fn answered(sent: Result<Response, reqwest::Error>, call: &Call, terms: &Terms<'_>) -> Exchanged {
    match sent {
        Err(error) => failed(error, terms).into(),
        Ok(response) => read(response, call, terms).await,
    }
}

/// What so many bytes take at the smallest rate.
fn time_at_least(bytes: usize) -> Duration {
    edge::scaled(Duration::from_secs(bytes as u64 / BYTES_PER_SECOND_MIN))
}

fn failed(error: reqwest::Error, terms: &Terms<'_>) -> Answer {
    let error = error.without_url();
    let detail = shown(&chain(&error), terms.secrets);
    if error.is_connect() {
        return Answer::NoConnection { kind: kind(&error), detail };
    }
    // With TLS 1.3 the server's refusal of our certificate comes after the handshake; it reads no request after it.
    if causes(&error).filter_map(tls_error).any(refuses_certificate) {
        return Answer::NoConnection { kind: NoConnection::Tls, detail };
    }
    Answer::BrokenAfterSend { detail }
}

fn kind(error: &reqwest::Error) -> NoConnection {
    if error.is_timeout() {
        return NoConnection::Timeout;
    }
    if error.is_dns() {
        return NoConnection::Dns;
    }
    for cause in causes(error) {
        if tls_error(cause).is_some() {
            return NoConnection::Tls;
        }
        match cause.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return NoConnection::Refused,
            Some(io::ErrorKind::TimedOut) => return NoConnection::Timeout,
            Some(io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                return NoConnection::Tls;
            }
            Some(_) | None => {}
        }
    }
    NoConnection::Unreachable
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        error.source()
    })
}

/// rustls's errors travel inside of I/O errors, of one or of several, whose `source` skips them.
fn tls_error<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut inner = cause;
    while let Some(next) = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        inner = next;
    }
    inner.downcast_ref::<rustls::Error>()
}

/// Other alerts may come at any time, also after a request.
fn refuses_certificate(error: &rustls::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let alerts = [
        Alert::CertificateRequired,
        Alert::NoCertificate,
        Alert::BadCertificate,
        Alert::UnsupportedCertificate,
        Alert::CertificateRevoked,
        Alert::CertificateExpired,
        Alert::CertificateUnknown,
        Alert::UnknownCA,
        Alert::AccessDenied,
    ];
    matches!(error, rustls::Error::AlertReceived(alert) if alerts.contains(alert))
}

fn chain(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

async fn read(mut response: Response, call: &Call, terms: &Terms<'_>) -> Exchanged {
    let (code, success) = (response.status().as_u16(), call.success);
    let text = |name: header::HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let is_packhorse = Some(response.headers().contains_key(wire::RECEIVER_HEADER));
    let location = text(header::LOCATION).map(|to| shown(&without_secrets(&to), terms.secrets));
    let retry_after = text(header::RETRY_AFTER).and_then(|text| retry_after::parse(&text, Utc::now()));
    let content_range = text(header::CONTENT_RANGE);
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
    // No answer is asked for compressed: one that says it is was not written for us.
    let is_plain = text(header::CONTENT_ENCODING).is_none_or(|encoding| encoding.trim().eq_ignore_ascii_case("identity"));
    let seen = response.headers().get(SEEN_HEADER).and_then(|seen| seen.to_str().ok()).map(str::to_owned);
    let date = text(header::DATE).and_then(|text| retry_after::date(&text));
    let certificate = response.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).map(<[u8]>::to_vec);

    let bytes_max = match (success, call.rows_max) {
        (Success::List, Some(rows)) if code == 200 => usize::try_from(rows)
            .unwrap_or(terms.list_bytes_max)
            .saturating_mul(ROW_BYTES_MAX)
            .saturating_add(ANSWER_BYTES_MAX)
            .min(terms.list_bytes_max),
        (Success::List, None) if code == 200 => terms.list_bytes_max,
        (Success::Stored, _) if seen.is_some() => RUN_BYTES_MAX,
        (Success::List | Success::Object | Success::Stored, _) => ANSWER_BYTES_MAX,
    };
    let bytes = match body(&mut response, bytes_max, terms).await {
        Ok(bytes) => bytes,
        Err(Unread::TooLong) => {
            return Exchanged { is_packhorse, date, certificate, ..Answer::TooLong { code, bytes_max }.into() };
        }
        Err(Unread::Cut(detail)) => {
            return Exchanged {
                is_packhorse,
                date,
                certificate,
                ..Answer::Truncated { code, detail: shown(&detail, terms.secrets) }.into()
            };
        }
    };
    let json: Option<serde_json::Value> = serde_json::from_slice(&bytes).ok();
    let body = match &json {
        // A JSON text under a page's type is no page: the legacy server is not to be trusted with types.
        Some(json) if json.is_array() || json.is_object() => Body::Json,
        _ if content_type.starts_with("text/html") || starts_like_html(&bytes) => Body::Html,
        Some(_) => Body::Json,
        None => Body::Other,
    };
    let run = json.clone().filter(|_| is_packhorse == Some(true) && seen.is_some() && success == Success::Stored);
    let run = run.and_then(|json| serde_json::from_value::<RunAnswer>(json).ok());
    let has_lost = is_packhorse == Some(true) && code == wire::run::LOST_STATUS && seen.is_some();
    let told = match (&run, seen) {
        (Some(run), Some(seen)) => Some(told(code, &seen, run)),
        (None, Some(seen)) if has_lost => Some(told(code, &seen, &RunAnswer::default())),
        (Some(_) | None, _) => None,
    };
    let meets_contract = is_plain
        && json.as_ref().is_some_and(|json| match success {
            Success::List => code == 200 && json.is_array(),
            Success::Object => code == 201 && json.is_object(),
            // An empty list; one with words in it is an error that calls itself a success, and one under a page's type is not from the server.
            Success::Stored => {
                let stored_all = run.as_ref().is_some_and(|run| run.refused.is_empty());
                let is_empty = json.as_array().is_some_and(Vec::is_empty);
                code == 201 && (stored_all || is_empty) && !content_type.starts_with("text/html")
            }
        });
    let excerpt = if meets_contract { String::new() } else { shown(&String::from_utf8_lossy(&bytes), terms.secrets) };
    let answer = match run {
        Some(run) if is_plain && matches!(code, 207 | 422) && !run.refused.is_empty() => {
            Answer::RowsRefused { code, detail: shown(&run.error.unwrap_or_default(), terms.secrets) }
        }
        None if has_lost => Answer::RowsLost { detail: excerpt },
        Some(_) | None => Answer::Status(Status { code, body, meets_contract, excerpt, location, retry_after }),
    };
    let body_bytes = bytes.len() as u64;
    let json = json.filter(|_| meets_contract).unwrap_or_default();
    let uploaded = Uploaded::default();
    Exchanged { answer, json, is_packhorse, date, certificate, content_range, told, body_bytes, uploaded }
}

/// What the answer to a run tells: the highest seq, and each row that is refused.
fn told(code: u16, seen: &str, run: &RunAnswer) -> Told {
    let mut refused: Vec<RefusedRow> = Vec::new();
    for RefusedRows { reason, rows } in &run.refused {
        let rows = rows.iter().flat_map(|(from, to)| *from..*to).take(REFUSED_ROWS_MAX);
        refused.extend(rows.map(|row| RefusedRow { row: row as usize, reason: format!("status {code}: {reason}") }));
    }
    refused.sort_by_key(|refused| refused.row);
    refused.dedup_by_key(|refused| refused.row);
    Told { seen: seen.parse().ok().map(Seq), refused }
}

enum Unread {
    TooLong,
    Cut(String),
}

/// Reads a body up to a size. A body may take as long as it moves: each piece has the answer deadline, and all of it the smallest rate.
async fn body(response: &mut Response, bytes_max: usize, terms: &Terms<'_>) -> Result<Vec<u8>, Unread> {
    let began = Instant::now();
    let mut bytes = Vec::new();
    loop {
        let allowed = terms.answer_deadline + time_at_least(bytes.len());
        let left = allowed.saturating_sub(began.elapsed()).min(terms.answer_deadline);
        match timeout(left, response.chunk()).await {
            Err(_) => return Err(Unread::Cut(format!("it stalled after {} bytes", bytes.len()))),
            Ok(Err(error)) => return Err(Unread::Cut(chain(&error.without_url()))),
            Ok(Ok(None)) => return Ok(bytes),
            Ok(Ok(Some(piece))) if bytes.len() + piece.len() > bytes_max => return Err(Unread::TooLong),
            Ok(Ok(Some(piece))) => bytes.extend_from_slice(&piece),
        }
    }
}

fn starts_like_html(bytes: &[u8]) -> bool {
    let start = bytes.trim_ascii_start();
    let start = String::from_utf8_lossy(&start[..start.len().min(16)]).to_ascii_lowercase();
    start.starts_with("<!doctype") || start.starts_with("<html") || start.starts_with("<head")
}

/// An address without user, query and fragment.
fn without_secrets(location: &str) -> String {
    let end = location.find(['?', '#']).unwrap_or(location.len());
    let plain = &location[..end];
    match (plain.find("://"), plain.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}{}", &plain[..scheme + 3], &plain[at + 1..]),
        _ => plain.to_owned(),
    }
}

/// A text's beginning as one line for people, with secrets struck out: a server's error page may repeat our request.
fn shown(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), "***");
    }
    let line: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()).collect();
    let line = line.join(" ");
    match line.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_one_short_line_without_secrets() {
        let secrets = ["hush".to_owned()];
        assert_eq!(shown("Error:\n\t Authorization: Bearer hush\u{7}\r\n", &secrets), "Error: Authorization: Bearer ***");
        assert_eq!(shown(&"ä".repeat(500), &secrets).chars().count(), EXCERPT_CHARS + 3);
        assert_eq!(without_secrets("https://u:p@h/login?token=x#y"), "https://h/login");
        assert_eq!(without_secrets("/login?u=a@b"), "/login");
    }

    #[test]
    fn html_is_known_by_its_beginning() {
        assert!(starts_like_html(b"  <!DOCTYPE html><p>") && starts_like_html(b"<HTML>") && !starts_like_html(b"[1]"));
    }
}
