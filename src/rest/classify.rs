//! From what happened to one request to what it means: the table of docs/wire-contract.md.
//!
//! The one rule: nothing but a valid success counts as one, and nothing that the server may have read counts as not stored (I8).

use std::time::Duration;

use crate::{
    domain::{Outcome, Trace, Verdict},
    wire,
};

/// A server's wish to be left alone is followed up to this long.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// A refusal of one request counts as its own fault from this many in a row on, when the server has accepted others before.
const REFUSALS_MIN: u32 = 3;
/// The same, when the server has accepted others meanwhile.
const REFUSALS_MIN_ACCEPTED_SINCE: u32 = 2;
/// So many breaks in a row of one request, while smaller ones pass, are put down to its size.
const BREAKS_MIN: u32 = 3;

/// Why there was no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoConnection {
    /// Nobody listens there.
    Refused,
    /// The name has no address.
    Dns,
    /// No agreement on TLS: a certificate, a name, a clock, a version.
    Tls,
    /// No way to that host.
    Unreachable,
    /// Nobody answered in time.
    Timeout,
}

/// What a body looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// JSON of whatever shape.
    Json,
    /// A page for people.
    Html,
    /// Anything else, also nothing.
    Other,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The status code.
    pub code: u16,
    /// What the body is.
    pub body: Body,
    /// Whether status and body are what the contract says for a success of this call.
    pub meets_contract: bool,
    /// The body's beginning in one line, without secrets.
    pub excerpt: String,
    /// Where a redirect leads to, without secrets.
    pub location: Option<String>,
    /// What the server wishes; not yet clamped.
    pub retry_after: Option<Duration>,
}

/// What happened to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server answered completely.
    Status(Status),
    /// A packhorse receiver refuses some rows, by their places, and has stored all others.
    RowsRefused {
        /// The status code.
        code: u16,
        /// Why, without secrets.
        detail: String,
    },
    /// A packhorse receiver has lost rows that it had taken, and stored nothing.
    RowsLost {
        /// What it said, without secrets.
        detail: String,
    },
    /// There was no connection, so not a byte of the request can have been read.
    NoConnection {
        /// Why.
        kind: NoConnection,
        /// The error, without secrets.
        detail: String,
    },
    /// The connection ended after the request may have been read, and before an answer.
    BrokenAfterSend {
        /// The error, without secrets.
        detail: String,
    },
    /// No answer in time, after the request may have been read.
    TimedOutAfterSend {
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer began and did not end as announced, or not in time.
    Truncated {
        /// The status that it began with.
        code: u16,
        /// The error, without secrets.
        detail: String,
    },
    /// The answer was longer than anything that the contract knows.
    TooLong {
        /// The status that it began with.
        code: u16,
        /// How much of it was read.
        bytes_max: usize,
    },
}

/// What was asked for, as far as it matters for what an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A list; nothing is stored.
    Read,
    /// One catalog object is stored. Its caller always looks before it stores again.
    Store,
    /// Several rows are stored, all or none.
    Bulk,
    /// One row is stored by the bulk call.
    SingleRow,
}

/// When the server has accepted another request of the same call, last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Not yet.
    Never,
    /// Before this request was first answered 500, or broke.
    Before,
    /// After that.
    Since,
}

/// What is known from before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What was asked for.
    pub kind: Kind,
    /// How often in a row this very request was answered 500, this time included.
    pub refusals: u32,
    /// How often in a row this very request broke or timed out, this time included.
    pub breaks: u32,
    /// Whether the server has accepted another request of the same call.
    pub accepted: Accepted,
    /// Whether it has accepted a smaller request of the same call.
    pub accepted_smaller: bool,
    /// Whether the configured URL's path ends in `/rest/`, as the contract has it.
    pub url_ends_in_rest: bool,
}

/// What an answer means, with advice that says what to do.
pub fn classify(answer: &Answer, evidence: &Evidence) -> Outcome {
    let outcome = meaning(answer, evidence);
    match (answer, outcome.verdict) {
        // Whoever answers in the server's place may do so when the server has taken the request: a verdict says what to do, not who spoke.
        (Answer::Status(_) | Answer::TooLong { .. }, Verdict::NotStored | Verdict::Misconfigured) => {
            outcome.leaving(Trace::Possible)
        }
        (Answer::NoConnection { .. } | Answer::BrokenAfterSend { .. } | Answer::TimedOutAfterSend { .. }, _) => {
            outcome.of_silence()
        }
        _ => outcome,
    }
}

fn meaning(answer: &Answer, evidence: &Evidence) -> Outcome {
    match answer {
        Answer::Status(status) => of_status(status, evidence),
        Answer::RowsRefused { code, detail } => {
            let advice = format!("the receiver refuses some rows, and has stored the others (status {code}: {detail})");
            Outcome::new(Verdict::Refused, advice).leaving(Trace::Possible)
        }
        Answer::RowsLost { detail } => Outcome::new(
            Verdict::NotStored,
            format!("the receiver has lost rows that it had taken; they are captured and sent again by themselves ({detail})"),
        ),
        Answer::NoConnection { kind, detail } => Outcome::new(Verdict::NotStored, format!("{} ({detail})", no_connection(*kind))),
        Answer::BrokenAfterSend { detail } => broken(&format!("the connection broke before an answer ({detail})"), evidence),
        Answer::TimedOutAfterSend { after } => broken(
            &format!(
                "no answer within {} s; if the server is just slow, raise the answer deadline or send fewer rows a request",
                after.as_secs()
            ),
            evidence,
        ),
        Answer::Truncated { code, detail } => Outcome::new(
            Verdict::Unknown,
            format!("the answer (status {code}) was cut short ({detail}); nothing to do unless it stays"),
        ),
        Answer::TooLong { code, bytes_max } => Outcome::new(
            Verdict::Misconfigured,
            format!("an answer (status {code}) of more than {bytes_max} bytes is not the contract's; {}", url_advice(evidence)),
        ),
    }
}

fn no_connection(kind: NoConnection) -> &'static str {
    match kind {
        NoConnection::Refused => "nobody listens at that address and port; is the server running, and is the port right?",
        NoConnection::Dns => "the server's name cannot be resolved; is the link up, and is the name in the url right?",
        NoConnection::Tls => {
            "no TLS connection; check the server's certificate and name, this machine's clock, the CA and client certificates configured, and whether it speaks https at that port"
        }
        NoConnection::Unreachable => "there is no way to the server; is the link up?",
        NoConnection::Timeout => {
            "the server did not take the connection in time; is the link up, and does a firewall let it through?"
        }
    }
}

fn broken(what: &str, evidence: &Evidence) -> Outcome {
    let is_several = evidence.kind == Kind::Bulk;
    if is_several && evidence.breaks >= BREAKS_MIN && evidence.accepted_smaller {
        let advice = format!(
            "{what}; smaller requests pass, so this one may be too large for something on the way (it may have been stored all the same)"
        );
        return Outcome::new(Verdict::TooLarge, advice).leaving(Trace::Possible);
    }
    Outcome::new(Verdict::Unknown, what)
}

fn of_status(status: &Status, evidence: &Evidence) -> Outcome {
    let code = status.code;
    let said = if status.excerpt.is_empty() { format!("status {code}") } else { format!("status {code}: {}", status.excerpt) };
    let is_page = status.body == Body::Html;
    let misconfigured = |why: &str| Outcome::new(Verdict::Misconfigured, format!("{why} ({said})"));
    match code {
        200..=299 if status.meets_contract => Outcome::new(Verdict::Accepted, format!("status {code}")),
        200..=299 if is_page => misconfigured(&format!("a page for people instead of JSON; {}", url_advice(evidence))),
        201 => Outcome::new(Verdict::Unknown, format!("a success whose body is not what the contract says ({said})")),
        200..=299 => misconfigured(&format!("a success that the contract does not know; {}", url_advice(evidence))),
        300..=399 => {
            let to = status.location.as_deref().unwrap_or("an unknown place");
            misconfigured(&format!(
                "a redirect to {to}, which is not followed: set the url to the server's own address, or log in to the network"
            ))
        }
        401 => misconfigured(
            "the server asks for credentials, or does not accept those configured: check the token or the user and password",
        ),
        403 => misconfigured("the server knows the credentials and forbids this: ask its owner for the right to write"),
        404 => misconfigured(&format!("there is no such call at this address; {}", url_advice(evidence))),
        407 => misconfigured("the proxy asks for credentials: put them into the proxy's address"),
        413 if evidence.kind != Kind::Bulk => {
            misconfigured("even a single record is too large for the server: raise the limit there or on the proxy before it")
        }
        413 => Outcome::new(Verdict::TooLarge, format!("the request is too large for the server ({said})")),
        425 | 429 | 503 => Outcome {
            retry_after: status.retry_after.map(|wish| wish.min(RETRY_AFTER_MAX)),
            ..Outcome::new(
                Verdict::NotStored,
                format!("the server does not take requests now; it is tried again by itself ({said})"),
            )
        },
        wire::IN_FULL_STATUS => Outcome::new(
            Verdict::NotStored,
            format!(
                "the server wants the request in another form, or is not the one of this name; it is tried again by itself ({said})"
            ),
        ),
        408 => Outcome::new(
            Verdict::Unknown,
            format!("the server gave up waiting for the request; the link may be too slow ({said})"),
        ),
        400 | 409 | 422 if !is_page => {
            Outcome::new(Verdict::Refused, format!("the server refuses something in the request ({said})"))
        }
        400..=499 => misconfigured(&format!("not an answer of the contract; {}", url_advice(evidence))),
        500 if is_own_fault(evidence) => Outcome::new(
            Verdict::Refused,
            format!("the server answers an error to this request and accepts others ({said}); its log says why"),
        )
        .leaving(Trace::Unlikely),
        501 | 505 | 511 => misconfigured(
            "something between here and the server answers in its place: log in to the network, or check the url and the proxy",
        ),
        500..=599 => Outcome::new(
            Verdict::Unknown,
            format!("the server failed, and it is not known at which point; its log says why ({said})"),
        )
        .leaving(if code == 500 && !is_page { Trace::Unlikely } else { Trace::Possible }),
        _ => misconfigured(&format!("not an HTTP status that the contract knows; {}", url_advice(evidence))),
    }
}

/// Whether a 500 is this request's own fault. A single object's always counts as that: its caller proves the server well by another
/// request, and looks before it stores the object again.
fn is_own_fault(evidence: &Evidence) -> bool {
    match evidence.kind {
        Kind::Store => true,
        Kind::Read | Kind::Bulk | Kind::SingleRow => match evidence.accepted {
            Accepted::Never => false,
            Accepted::Before => evidence.refusals >= REFUSALS_MIN,
            Accepted::Since => evidence.refusals >= REFUSALS_MIN_ACCEPTED_SINCE,
        },
    }
}

fn url_advice(evidence: &Evidence) -> &'static str {
    if evidence.url_ends_in_rest {
        "check the url, and whether a login page or proxy answers instead of the server"
    } else {
        "check the url: the contract's calls live under an address that ends in /rest/, and this one does not"
    }
}

#[cfg(test)]
mod tests;
