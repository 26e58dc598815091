//! A look at a destination for people: name, connection, certificate, what answers there, and its clock. It stores nothing there.
//!
//! The one rule: a look has deadlines of its own, so that a destination that hangs is a finding and not a wait.

use std::{net::SocketAddr, time::Duration};

use chrono::{DateTime, Utc};
use reqwest::header;
use tokio::time::{Instant, timeout};

use super::{
    RestError, RestSink,
    calls::{self, Call},
    certificate,
    classify::{Accepted, Answer, Evidence, Kind, classify},
    client::Wired,
    exchange::{self, Exchanged, Terms},
};
use crate::{
    domain::{EntityKind, Micros, Outcome, Verdict},
    ports::{Ask, Sink as _},
};

/// For a name's addresses.
const NAME_DEADLINE: Duration = Duration::from_secs(8);
/// For all connections that are tried together.
const TCP_DEADLINE: Duration = Duration::from_secs(8);
/// For one request and its whole answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(12);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// A catalog list is some kilobytes.
const LIST_BYTES_MAX: usize = 1024 * 1024;

/// What a look found, as far as it got.
#[derive(Debug)]
pub struct Look {
    /// The host and port that are connected to: the server's, or the proxy's before it.
    pub peer: String,
    /// Whether that is a proxy.
    pub by_proxy: bool,
    /// The addresses of its name.
    pub addresses: Result<Vec<SocketAddr>, String>,
    /// The address that took a connection, and how long that took; `None` when there was no address to try.
    pub tcp: Option<Result<(SocketAddr, Duration), String>>,
    /// What was answered; `None` without a connection.
    pub answered: Option<Answered>,
}

/// What `GET sensortype/` brought.
#[derive(Debug)]
pub struct Answered {
    /// How many sensor types the server has, or what its answer means.
    pub sensor_types: Result<usize, Outcome>,
    /// Whether there was no agreement on TLS.
    pub tls_failed: bool,
    /// Which kind of server it is.
    pub server: Server,
    /// How far its clock is ahead of ours, seconds, by its Date header; exact to about a second.
    pub clock_ahead_seconds: Option<i64>,
    /// Until when its certificate is valid.
    pub certificate_until: Option<DateTime<Utc>>,
    /// How long the answer took.
    pub took: Duration,
}

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// A packhorse receiver.
    Packhorse,
    /// A legacy server whose node states have a key: a repeat is merged.
    LegacyNewer,
    /// A legacy server whose node states have an id of their own: a repeat is stored twice.
    LegacyOlder,
    /// A legacy server without a node state to tell by.
    Legacy,
    /// It does not answer as the contract says.
    Unknown,
}

impl RestSink {
    /// Looks once. Ends within about 40 seconds, whatever the destination does.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub async fn look(&self, clock: fn() -> Micros) -> Result<Look, RestError> {
        let client = self.recipe.build_for_a_look(TCP_DEADLINE)?;
        let (host, port, by_proxy) = self.peer()?;
        let peer = format!("{host}:{port}");
        let addresses = addresses(&host, port).await;
        let tcp = match &addresses {
            Ok(addresses) => Some(connect(addresses).await),
            Err(_) => None,
        };
        let answered = match &tcp {
            Some(Ok(_)) => Some(self.ask(&client, clock).await),
            Some(Err(_)) | None => None,
        };
        Ok(Look { peer, by_proxy, addresses, tcp, answered })
    }

    /// Whom a connection goes to.
    pub(super) fn peer(&self) -> Result<(String, u16, bool), RestError> {
        let of = |url: &reqwest::Url| {
            let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
            Some((host, url.port_or_known_default()?))
        };
        match &self.options.proxy {
            Some(proxy) => {
                let url = reqwest::Url::parse(proxy).map_err(|_| RestError::Proxy)?;
                of(&url).map(|(host, port)| (host, port, true)).ok_or(RestError::Proxy)
            }
            None => of(&self.address.join(""))
                .map(|(host, port)| (host, port, false))
                .ok_or(RestError::Url { why: "it has no host".into() }),
        }
    }

    async fn ask(&self, client: &Wired, clock: fn() -> Micros) -> Answered {
        let call = calls::find(&Ask::All(EntityKind::SensorType));
        let began = Instant::now();
        let sent = clock();
        let exchanged = self.exchange_for_a_look(client, &call).await;
        let (took, came) = (began.elapsed(), clock());
        let outcome = classify(&exchanged.answer, &self.evidence());
        let is_list = outcome.verdict == Verdict::Accepted;
        let server = match (is_list, exchanged.is_packhorse) {
            (true, Some(true)) => Server::Packhorse,
            (true, _) => {
                let exchanged = self.exchange_for_a_look(client, &calls::first_node_state()).await;
                legacy_kind(&exchanged.json)
            }
            (false, _) => Server::Unknown,
        };
        let tls_failed = matches!(exchanged.answer, Answer::NoConnection { kind: super::classify::NoConnection::Tls, .. });
        Answered {
            sensor_types: if is_list { Ok(exchanged.json.as_array().map_or(0, Vec::len)) } else { Err(outcome) },
            tls_failed,
            server,
            clock_ahead_seconds: exchanged.date.map(|date| ahead_seconds(date, sent, came)),
            certificate_until: exchanged.certificate.as_deref().and_then(certificate::not_after),
            took,
        }
    }

    /// Which kind of server it is.
    ///
    /// # Errors
    /// What the destination's answer came to, when it is none.
    pub async fn server(&self) -> Result<Server, Outcome> {
        let states = self.stored(&calls::first_node_state()).await?;
        Ok(if self.is_packhorse() { Server::Packhorse } else { legacy_kind(&states) })
    }

    async fn exchange_for_a_look(&self, client: &Wired, call: &Call) -> Exchanged {
        let terms = Terms {
            auth: &self.options.auth,
            secrets: &self.secrets,
            connect_deadline: Duration::ZERO,
            answer_deadline: ANSWER_DEADLINE,
            stall_deadline: ANSWER_DEADLINE,
            headers: header::HeaderMap::new(),
            list_bytes_max: LIST_BYTES_MAX,
        };
        let exchanged = timeout(ANSWER_DEADLINE, exchange::exchange(client, self.address.join(&call.target), call, &terms));
        exchanged.await.unwrap_or_else(|_| Answer::TimedOutAfterSend { after: ANSWER_DEADLINE }.into())
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            kind: Kind::Read,
            refusals: 0,
            breaks: 0,
            accepted: Accepted::Never,
            accepted_smaller: false,
            url_ends_in_rest: self.address.ends_in_rest(),
        }
    }
}

/// A legacy server's kind, by its first node state: those of the older one carry an id.
fn legacy_kind(states: &serde_json::Value) -> Server {
    let first = states.as_array().and_then(|list| list.first()).and_then(|first| first.as_object());
    match first {
        Some(state) if state.contains_key("id") => Server::LegacyOlder,
        Some(_) => Server::LegacyNewer,
        None => Server::Legacy,
    }
}

async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let found = match timeout(NAME_DEADLINE, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("no answer within {} s", NAME_DEADLINE.as_secs())),
    };
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

/// Connects to one address after another until one answers.
async fn connect(addresses: &[SocketAddr]) -> Result<(SocketAddr, Duration), String> {
    let mut last = String::new();
    let tried = async {
        for address in addresses {
            let began = Instant::now();
            match tokio::net::TcpStream::connect(address).await {
                Ok(_) => return Some((*address, began.elapsed())),
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        None
    };
    match timeout(TCP_DEADLINE, tried).await {
        Ok(Some(connected)) => Ok(connected),
        Ok(None) => Err(last),
        Err(_) => Err(format!("no answer within {} s", TCP_DEADLINE.as_secs())),
    }
}

/// The header has whole seconds, cut off, and was written between asking and answer: within that span the clocks agree.
fn ahead_seconds(date: DateTime<Utc>, sent: Micros, came: Micros) -> i64 {
    let second = |at: Micros| at.0.div_euclid(1_000_000);
    let date = date.timestamp();
    if date < second(sent) { date - second(sent) } else { (date - second(came)).max(0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_within_the_span_of_the_call_agrees() {
        let at = |seconds: f64| Micros((seconds * 1e6) as i64);
        let date = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        for (seconds, ahead) in [(100, 0), (101, 0), (102, 0), (99, -1), (90, -10), (103, 1), (700, 598)] {
            assert_eq!(ahead_seconds(date(seconds), at(100.9), at(102.1)), ahead, "{seconds}");
        }
    }
}
