//! The REST sink: the [`Sink`] port over the cogent-house HTTP contract.
//!
//! The one rule: every call ends with an [`Outcome`] from [`classify::classify`]; nothing here retries, waits out or parks. A connection
//! on which anything but a sound answer came is not used again: legacy servers close it after a 500 without saying so.

mod address;
mod calls;
mod certificate;
pub mod classify;
mod client;
mod exchange;
mod lines;
pub mod look;
mod lookup;
mod memory;
mod retry_after;
mod upload;

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use reqwest::header;
use tokio::time::Instant;

use crate::{
    domain::{Entity, EntityKind, Heard, Micros, Outcome, RemoteId, Rows, SourceId, Stream, Told, Verdict},
    edge,
    ports::{Ask, Bounds, Delivered, Delivery, Keeping, Presence, PushStatus, RemoteEntity, Sink, Summary, Traffic},
    wire,
};
use address::Address;
use calls::Call;
use classify::Answer;
pub use client::proxy_of_environment;
use client::{Recipe, Wired, basic};
use exchange::{Exchanged, Terms};
use memory::Memory;

/// For the answer to a question that only asks whether somebody is there.
const REACH_DEADLINE: Duration = Duration::from_secs(15);

/// How the server knows us.
#[derive(Clone, PartialEq, Eq)]
pub enum Auth {
    /// It does not.
    None,
    /// By a token.
    Bearer(String),
    /// By a user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer(***)",
            Self::Basic { .. } => "Basic(***)",
        })
    }
}

/// What a REST sink is made of.
#[derive(Clone)]
pub struct Options {
    /// The base of the contract's calls, `https://host/rest/`; the last slash may be missing. A user and password in it are taken for
    /// [`Auth::Basic`].
    pub url: String,
    /// How the server knows us.
    pub auth: Auth,
    /// Certificates of authorities, PEM; when given, these alone are trusted, else the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Our certificate and its key, PEM, for servers that ask for one.
    pub client_identity_pem: Option<Vec<u8>>,
    /// A proxy for everything, `http://user:password@host:port`; see [`proxy_of_environment`].
    pub proxy: Option<String>,
    /// Bulk bodies of more bytes are not sent: they are `TooLarge`.
    pub request_bytes_max: u64,
    /// For name, TCP and TLS together.
    pub connect_deadline: Duration,
    /// For an answer to begin once the whole request is on its way, and for each piece of it.
    pub answer_deadline: Duration,
    /// For something of a request's body to move. However it moves, all of it has a second for each 500 bytes.
    pub stall_deadline: Duration,
    /// Whose rows these are; told to packhorse receivers only.
    pub source: SourceId,
}

impl Options {
    /// The connect deadline that suits most links.
    pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
    /// The answer deadline that suits most servers.
    pub const ANSWER_DEADLINE: Duration = Duration::from_mins(1);
    /// The stall deadline that suits most links.
    pub const STALL_DEADLINE: Duration = Duration::from_secs(30);
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("auth", &self.auth).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Why a REST sink cannot be made; a human is needed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The address is unusable.
    #[error("the url is unusable: {why}")]
    Url {
        /// Why, without the address itself, which may hold a password.
        why: String,
    },
    /// A certificate or key is unusable.
    #[error("{what} is unusable: {why}; it must be PEM")]
    Certificate {
        /// Which one.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// The proxy's address is unusable.
    #[error("the proxy's address is unusable: it should look like http://host:port")]
    Proxy,
    /// A token, user or password holds characters that no header can carry.
    #[error("the credentials hold a line break or another control character: look at the end of the secret's file")]
    Credentials,
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {why}")]
    Client {
        /// Why.
        why: String,
    },
}

/// A REST server as a destination. One request at a time is the caller's business; more do no harm.
pub struct RestSink {
    address: Address,
    options: Options,
    /// What must not be shown when the server repeats it.
    secrets: Vec<String>,
    /// What clients are made of.
    recipe: Recipe,
    client: Mutex<Wired>,
    memory: Mutex<Memory>,
    is_packhorse: AtomicBool,
    /// Whether a legacy server numbers its node states, which the older table does; as last seen.
    numbers_states: Mutex<Option<bool>>,
    requests: AtomicU64,
    body_bytes: AtomicU64,
}

/// A sound answer.
struct Sound {
    json: serde_json::Value,
    content_range: Option<String>,
    told: Option<Told>,
}

impl fmt::Debug for RestSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestSink").field("options", &self.options).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RestSink {
    /// A sink that has not yet connected.
    ///
    /// # Errors
    /// When the address, a certificate, the proxy or the credentials are unusable.
    pub fn new(options: Options) -> Result<Self, RestError> {
        // Err means that somebody has installed one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (address, auth) = Address::parse(&options.url, options.auth.clone())?;
        let mut secrets = match &auth {
            Auth::None => Vec::new(),
            Auth::Bearer(token) => vec![token.clone()],
            Auth::Basic { user, password } => vec![password.clone(), basic(user, password)],
        };
        if secrets.iter().any(|secret| secret.contains(char::is_control)) {
            return Err(RestError::Credentials);
        }
        secrets.extend(options.proxy.as_deref().map(proxy_secrets).unwrap_or_default());
        let secrets = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
        let options = Options { url: String::new(), auth, ..options };
        let recipe = Recipe::new(&options, &address)?;
        let client = Mutex::new(recipe.build()?);
        let sink = Self {
            address,
            options,
            secrets,
            recipe,
            client,
            memory: Mutex::default(),
            is_packhorse: AtomicBool::new(false),
            numbers_states: Mutex::new(None),
            requests: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
        };
        // That there is a host.
        sink.peer()?;
        Ok(sink)
    }

    /// Sends one call.
    async fn exchange(&self, call: &Call, headers: header::HeaderMap, answer_deadline: Duration) -> Exchanged {
        let terms = Terms {
            auth: &self.options.auth,
            secrets: &self.secrets,
            connect_deadline: self.options.connect_deadline,
            answer_deadline,
            stall_deadline: self.options.stall_deadline,
            headers,
            list_bytes_max: exchange::LIST_BYTES_MAX,
        };
        let client = locked(&self.client).clone();
        let exchanged = exchange::exchange(&client, self.address.join(&call.target), call, &terms).await;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.body_bytes.fetch_add(exchanged.body_bytes + call.body_bytes() as u64, Ordering::Relaxed);
        self.leave_unsound(&exchanged.answer);
        exchanged
    }

    /// What came of a call. An error is never `Accepted`.
    fn judge(&self, call: &Call, exchanged: Exchanged) -> Result<Sound, Outcome> {
        let Exchanged { answer, json, is_packhorse, content_range, told, .. } = exchanged;
        let mut memory = locked(&self.memory);
        let evidence = memory.evidence(call, &answer, self.address.ends_in_rest());
        let mut outcome = classify::classify(&answer, &evidence);
        memory.note(call, outcome.verdict);
        drop(memory);
        self.learn(is_packhorse, outcome.verdict);
        if outcome.verdict == Verdict::Accepted {
            return Ok(Sound { json, content_range, told });
        }
        outcome.told = told.map(Box::new);
        outcome.advice = format!("{}: {}", call.name(), outcome.advice);
        Err(outcome)
    }

    /// Sends one call and says what came of it.
    async fn call(&self, call: &Call, headers: header::HeaderMap) -> Result<Sound, Outcome> {
        let exchanged = self.exchange(call, headers, self.options.answer_deadline).await;
        self.judge(call, exchanged)
    }

    /// A proxy's error lacks the header although the receiver stands behind it, so only a success can take the mark away. That a success was
    /// somebody else's does no harm: a receiver refuses rows in the plain form of a client that could say them in full, for rows must not
    /// change their identity between two attempts (I6).
    fn learn(&self, is_packhorse: Option<bool>, verdict: Verdict) {
        match is_packhorse {
            Some(true) => self.is_packhorse.store(true, Ordering::Relaxed),
            Some(false) if verdict == Verdict::Accepted => self.is_packhorse.store(false, Ordering::Relaxed),
            Some(false) | None => {}
        }
    }

    /// Leaves the connection, and every other that is kept, unless the answer was sound; names are then resolved again too.
    fn leave_unsound(&self, answer: &Answer) {
        match answer {
            Answer::Status(status) if status.code < 500 => return,
            Answer::RowsRefused { .. } | Answer::RowsLost { .. } => return,
            Answer::Status(_)
            | Answer::NoConnection { .. }
            | Answer::BrokenAfterSend { .. }
            | Answer::TimedOutAfterSend { .. }
            | Answer::Truncated { .. }
            | Answer::TooLong { .. } => {}
        }
        // What could be built once can be built again; should it fail all the same, the old client is better than none.
        if let Ok(fresh) = self.recipe.build() {
            *locked(&self.client) = fresh;
        }
    }

    /// What only a packhorse receiver is told of a run.
    fn run_headers(&self, bounds: &Bounds, stream: Stream) -> header::HeaderMap {
        let mut headers = header::HeaderMap::new();
        if !self.is_packhorse() {
            headers.insert(wire::PLAIN_HEADER, header::HeaderValue::from_static("1"));
            return headers;
        }
        let Bounds { source, generation, epoch, first, end, cursor, taken } = *bounds;
        let run = wire::Run { source, generation, epoch, stream, first, end, cursor, taken };
        for (name, text) in run.headers() {
            if let Ok(value) = header::HeaderValue::from_str(&text) {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// Whose status it is, for a packhorse receiver.
    fn source_header(&self) -> header::HeaderMap {
        let mut headers = header::HeaderMap::new();
        if self.is_packhorse()
            && let Ok(source) = header::HeaderValue::from_str(&self.options.source.to_string())
        {
            headers.insert(wire::SOURCE_HEADER, source);
        }
        headers
    }

    async fn stored(&self, call: &Call) -> Result<serde_json::Value, Outcome> {
        self.call(call, header::HeaderMap::new()).await.map(|sound| sound.json)
    }
}

/// What a proxy's address holds of secrets, as it is written and as it travels.
fn proxy_secrets(proxy: &str) -> Vec<String> {
    let Ok(url) = reqwest::Url::parse(proxy) else { return Vec::new() };
    let Some(written) = url.password() else { return Vec::new() };
    let plain = |text: &str| address::unquote(text).unwrap_or_else(|_| text.to_owned());
    let (user, password) = (plain(url.username()), plain(written));
    vec![written.to_owned(), basic(&user, &password), password]
}

/// An outcome for an answer that looked right and is not.
fn unreadable(call: &Call, error: &wire::WireError) -> Outcome {
    Outcome::new(
        Verdict::Misconfigured,
        format!("{}: the answer is {error}; is this a server of the cogent-house contract?", call.name()),
    )
}

#[async_trait]
impl Sink for RestSink {
    async fn deliver(&self, delivery: &Delivery) -> Delivered {
        let began = Instant::now();
        let manner = if self.is_packhorse() { wire::Manner::Packhorse } else { wire::Manner::Legacy };
        let rows = &delivery.rows;
        let early = |verdict, advice, body_bytes| {
            let (took, nothing) = (began.elapsed(), Duration::ZERO);
            Delivered { outcome: Outcome::new(verdict, advice), body_bytes, took, uploaded: nothing, answered: nothing }
        };
        let body = match wire::bulk_body(rows, manner) {
            Ok(body) => body,
            Err(error) => return early(Verdict::Refused, format!("not sent: {error}"), 0),
        };
        let body_bytes = body.len() as u64;
        if body_bytes > self.options.request_bytes_max && rows.len() > 1 {
            let advice =
                format!("not sent: {body_bytes} bytes are more than the {} that are allowed", self.options.request_bytes_max);
            return early(Verdict::TooLarge, advice, body_bytes);
        }
        let call = calls::bulk(body, rows.len());
        let headers = self.run_headers(&delivery.bounds, rows.stream());
        // What was needed to write the body is not the destination's time.
        let began = Instant::now();
        let exchanged = self.exchange(&call, headers, self.options.answer_deadline).await;
        let (took, uploaded) = (began.elapsed(), exchanged.uploaded);
        let outcome = match self.judge(&call, exchanged) {
            Ok(sound) => Outcome { told: sound.told.map(Box::new), ..Outcome::new(Verdict::Accepted, "status 201") },
            Err(outcome) => outcome,
        };
        Delivered { outcome, body_bytes, took, uploaded: uploaded.at_most, answered: took.saturating_sub(uploaded.at_least) }
    }

    async fn find(&self, ask: &Ask) -> Result<Vec<RemoteEntity>, Outcome> {
        let call = calls::find(ask);
        let json = self.stored(&call).await?;
        wire::list_from_json(calls::asked(ask), &json).map_err(|error| unreadable(&call, &error))
    }

    async fn create(&self, id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Result<RemoteEntity, Outcome> {
        let call = calls::create(id, entity);
        let json = self.stored(&call).await?;
        let stored = wire::entity_from_json(entity.kind(), &json).map_err(|error| unreadable(&call, &error))?;
        match id {
            Some(id) if id != stored.id => {
                let advice = format!("{}: {} {id} was stored under id {}", call.name(), entity.kind(), stored.id);
                Err(Outcome::new(Verdict::Misconfigured, advice))
            }
            Some(_) | None => Ok(stored),
        }
    }

    async fn update(&self, entity: &RemoteEntity) -> Result<(), Outcome> {
        // A node has no column that we do not know.
        if entity.entity.kind() == EntityKind::Node {
            return self.stored(&calls::update(entity, &serde_json::Map::new())).await.map(drop);
        }
        let call = calls::row(entity.entity.kind(), entity.id);
        let rows = self.stored(&call).await?;
        let row = rows
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(serde_json::Value::as_object)
            .find(|row| row.get("id").and_then(serde_json::Value::as_i64) == Some(entity.id.0));
        let Some(row) = row else {
            return Err(Outcome::new(Verdict::Refused, format!("{}: {} is no longer there", call.name(), entity.id)));
        };
        self.stored(&calls::update(entity, row)).await.map(drop)
    }

    async fn put_sensors(&self, sensors: &[Entity<RemoteId>]) -> Result<(), Outcome> {
        let json = calls::sensors(sensors).to_string();
        let body = wire::deflate(json.as_bytes())
            .map_err(|error| Outcome::new(Verdict::Refused, format!("sensors cannot be written: {error}")))?;
        self.stored(&calls::bulk(body, sensors.len())).await.map(drop)
    }

    async fn count(&self, stream: Stream, node: i64, from: Micros, to: Micros) -> Result<u64, Outcome> {
        lookup::count(self, stream, node, from, to).await
    }

    async fn arrived(&self, keys: &Rows) -> Result<Vec<Presence>, Outcome> {
        lookup::arrived(self, keys).await
    }

    async fn keeping(&self, stream: Stream) -> Result<Keeping, Outcome> {
        lookup::keeping(self, stream).await
    }

    async fn reach(&self) -> Result<(), Outcome> {
        let call = calls::reach();
        let exchanged = self.exchange(&call, header::HeaderMap::new(), edge::scaled(REACH_DEADLINE)).await;
        match self.judge(&call, exchanged) {
            Err(outcome) if outcome.heard == Heard::Nothing => Err(outcome),
            // Whatever it says, somebody is there.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn traffic(&self) -> Traffic {
        Traffic { requests: self.requests.load(Ordering::Relaxed), body_bytes: self.body_bytes.load(Ordering::Relaxed) }
    }

    async fn push_status(&self, status: &PushStatus) -> Result<(), Outcome> {
        self.call(&calls::push_status(status), self.source_header()).await.map(drop)
    }

    async fn push_summary(&self, status: &PushStatus, summary: &Summary) -> Result<(), Outcome> {
        let call = if self.is_packhorse() { calls::push_summary(status, summary) } else { calls::push_status(status) };
        self.call(&call, self.source_header()).await.map(drop)
    }

    fn is_packhorse(&self) -> bool {
        self.is_packhorse.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn options(url: &str) -> Options {
        Options {
            url: url.into(),
            auth: Auth::None,
            ca_pem: None,
            client_identity_pem: None,
            proxy: None,
            request_bytes_max: 1 << 20,
            connect_deadline: Options::CONNECT_DEADLINE,
            answer_deadline: Options::ANSWER_DEADLINE,
            stall_deadline: Options::STALL_DEADLINE,
            source: SourceId(1),
        }
    }

    #[test]
    fn secrets_are_in_no_debug_text_and_in_no_error() {
        let secret = Options {
            auth: Auth::Basic { user: "u".into(), password: "hush".into() },
            proxy: Some("http://u:hush@proxy:1".into()),
            ..options("http://h/rest/")
        };
        assert!(!format!("{secret:?} {:?}", RestSink::new(secret.clone()).unwrap()).contains("hush"));
        let in_url = options("http://u:hush@h/rest/");
        assert!(!format!("{in_url:?} {:?}", RestSink::new(in_url.clone()).unwrap()).contains("hush"));
        for bad in [
            Options { proxy: Some("http://u:hush@[".into()), ..options("http://h/") },
            options("http://u:hush@h:99999/"),
            Options { auth: Auth::Bearer("hush\n".into()), ..options("http://h/") },
        ] {
            let error = RestSink::new(bad).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
        }
    }

    #[test]
    fn what_is_unusable_is_told_at_once() {
        let pem = Some(b"-----BEGIN nonsense".to_vec());
        for (bad, word) in [
            (options("ftp://h/rest/"), "http or https"),
            (Options { ca_pem: pem.clone(), ..options("https://h/") }, "CA certificate"),
            (Options { client_identity_pem: pem, ..options("https://h/") }, "client certificate"),
            (Options { proxy: Some("::".into()), ..options("https://h/") }, "proxy"),
        ] {
            let error = RestSink::new(bad).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    /// Gives one address for every name, until it is told another one.
    struct Names(std::sync::Arc<Mutex<std::net::IpAddr>>);

    impl reqwest::dns::Resolve for Names {
        fn resolve(&self, _: reqwest::dns::Name) -> reqwest::dns::Resolving {
            let addr = std::net::SocketAddr::new(*locked(&self.0), 0);
            Box::pin(async move { Ok(Box::new(std::iter::once(addr)) as reqwest::dns::Addrs) })
        }
    }

    /// Answers every request by an empty list and keeps the connection, until it is stopped; then the port is free.
    async fn list_server(addr: std::net::SocketAddr) -> (std::net::SocketAddr, tokio::task::JoinSet<()>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut head = [0; 4096];
                    // A request without a body comes in one piece.
                    while stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]";
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                });
            }
        });
        (addr, server)
    }

    #[tokio::test]
    async fn a_server_that_moves_to_another_address_is_found_there() {
        let (first, mut server) = list_server("127.0.0.1:0".parse().unwrap()).await;
        let address = std::sync::Arc::new(Mutex::new(first.ip()));
        let mut sink = RestSink::new(options(&format!("http://central.example:{}/rest/", first.port()))).unwrap();
        sink.recipe.names = Some(std::sync::Arc::new(Names(address.clone())));
        *locked(&sink.client) = sink.recipe.build().unwrap();
        let rooms = Ask::All(EntityKind::Room);
        assert!(sink.find(&rooms).await.is_ok() && sink.reach().await.is_ok());

        let second = std::net::SocketAddr::new("127.0.0.2".parse().unwrap(), first.port());
        let (_, _moved) = list_server(second).await;
        *locked(&address) = second.ip();
        server.shutdown().await;
        // The connection that was kept may break under the first question.
        let mut answers = Vec::new();
        while answers.len() < 3 && answers.last() != Some(&true) {
            answers.push(sink.find(&rooms).await.is_ok());
        }
        assert!(answers.len() <= 2 && answers.last() == Some(&true), "{answers:?}");

        // With nobody there any more, nobody is reached.
        *locked(&address) = first.ip();
        *locked(&sink.client) = sink.recipe.build().unwrap();
        assert_eq!(sink.reach().await.unwrap_err().verdict, Verdict::NotStored);
    }

    #[test]
    fn what_a_proxy_repeats_of_its_own_credentials_is_struck_out() {
        let sink =
            RestSink::new(Options { proxy: Some("http://me:hu%40sh@proxy:1".into()), ..options("http://h/rest/") }).unwrap();
        for secret in ["hu%40sh", "hu@sh", "bWU6aHVAc2g"] {
            assert!(sink.secrets.iter().any(|struck| struck == secret), "{secret}: {:?}", sink.secrets);
        }
    }
}
