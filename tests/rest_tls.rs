//! The REST sink over TLS: whom it trusts, how it shows itself, and that a refusal of a certificate counts as not stored.

#![expect(clippy::unwrap_used, reason = "a failing test is to panic")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[path = "support/forward.rs"]
mod forward;

use forward::Forward;
use packhorse::{
    domain::{EntityKind, Outcome, SourceId, Verdict},
    ports::{Ask, Sink},
    rest::{Auth, Options, RestSink},
};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

const AUTHORITY: &[u8] = include_bytes!("tls/ca.pem");
const SERVER: &[u8] = include_bytes!("tls/server.pem");
const CLIENT: &[u8] = include_bytes!("tls/client.pem");

/// A server that answers every request with an empty list and then closes; it counts those that it could read.
struct Server {
    port: u16,
    read: Arc<AtomicUsize>,
    handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
    /// So many requests more are answered by an error.
    errors: Arc<AtomicUsize>,
}

impl Server {
    fn start(asks_for_certificate: bool) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if asks_for_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(AUTHORITY).unwrap()).unwrap();
            builder
                .with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_slice(SERVER).unwrap()];
        let config = Arc::new(builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(SERVER).unwrap()).unwrap());
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let read = Arc::new(AtomicUsize::new(0));
        let of_thread = read.clone();
        let (handshakes, errors) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (their_handshakes, their_errors) = (handshakes.clone(), errors.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream);
                let mut head = Vec::new();
                let mut piece = [0; 1024];
                while !head.windows(4).any(|four| four == b"\r\n\r\n") {
                    match stream.read(&mut piece) {
                        Ok(count) if count > 0 => head.extend_from_slice(&piece[..count]),
                        Ok(_) | Err(_) => break,
                    }
                }
                if head.is_empty() {
                    continue;
                }
                of_thread.fetch_add(1, Ordering::SeqCst);
                their_handshakes.lock().unwrap().extend(stream.conn.handshake_kind());
                let is_error = their_errors.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
                let status = if is_error { "500 Internal Server Error" } else { "200 OK" };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]"
                );
                let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.flush());
            }
        });
        Self { port, read, handshakes, errors }
    }

    fn sink(&self, host: &str, ca: Option<&[u8]>, client: Option<&[u8]>) -> RestSink {
        let options = Options {
            url: format!("https://{host}:{}/rest/", self.port),
            auth: Auth::None,
            ca_pem: ca.map(<[u8]>::to_vec),
            client_identity_pem: client.map(<[u8]>::to_vec),
            proxy: None,
            request_bytes_max: 1 << 20,
            connect_deadline: Duration::from_secs(5),
            answer_deadline: Duration::from_secs(5),
            stall_deadline: Options::STALL_DEADLINE,
            source: SourceId(1),
        };
        RestSink::new(options).unwrap()
    }

    async fn asked_by(&self, host: &str, ca: Option<&[u8]>, client: Option<&[u8]>) -> Result<(), Outcome> {
        self.sink(host, ca, client).find(&Ask::All(EntityKind::Room)).await.map(drop)
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_server_of_the_configured_authority_is_trusted_and_no_other() {
    let server = Server::start(false);
    assert_eq!(server.asked_by("localhost", Some(AUTHORITY), None).await, Ok(()));
    assert_eq!(server.read(), 1);
    // Another authority, and a name that the certificate does not have.
    for (host, authority) in [("localhost", SERVER), ("127.0.0.2", AUTHORITY)] {
        let Err(outcome) = server.asked_by(host, Some(authority), None).await else { panic!("{host} was trusted") };
        assert!(outcome.verdict == Verdict::NotStored && outcome.advice.contains("no TLS connection; check"), "{outcome}");
    }
    assert_eq!(server.read(), 1);
}

#[tokio::test]
async fn a_new_connection_goes_on_with_the_session_of_an_earlier_one_also_after_trouble() {
    let server = Server::start(false);
    let sink = server.sink("localhost", Some(AUTHORITY), None);
    let ask = async || sink.find(&Ask::All(EntityKind::Room)).await.is_ok();
    assert!(ask().await && ask().await);
    // An error makes the sink leave its client for a new one.
    server.errors.store(1, Ordering::SeqCst);
    assert!(!ask().await && ask().await);
    let (full, resumed) = (HandshakeKind::Full, HandshakeKind::Resumed);
    assert_eq!(*server.handshakes.lock().unwrap(), [full, resumed, resumed, resumed]);
    // Another sink knows nothing of it.
    server.asked_by("localhost", Some(AUTHORITY), None).await.unwrap();
    assert_eq!(server.handshakes.lock().unwrap().last(), Some(&full));
}

#[tokio::test]
async fn a_server_that_misses_our_certificate_has_read_nothing() {
    let server = Server::start(true);
    let outcome = server.asked_by("localhost", Some(AUTHORITY), None).await.unwrap_err();
    assert!(outcome.verdict == Verdict::NotStored && outcome.advice.contains("certificate"), "{outcome}");
    assert_eq!(server.read(), 0);
    assert_eq!(server.asked_by("localhost", Some(AUTHORITY), Some(CLIENT)).await, Ok(()));
    assert_eq!(server.read(), 1);
}

#[tokio::test]
async fn a_look_tells_until_when_the_certificate_is_valid_and_whom_it_is_not_trusted_by() {
    let server = Server::start(false);
    let clock = || packhorse::domain::Micros(0);
    let look = server.sink("localhost", Some(AUTHORITY), None).look(clock).await.unwrap();
    let answered = look.answered.unwrap();
    assert_eq!(answered.certificate_until.unwrap().to_rfc3339(), "2126-10-31T06:20:29+00:00");
    assert_eq!((answered.sensor_types, answered.tls_failed), (Ok(0), false));

    let look = server.sink("localhost", Some(SERVER), None).look(clock).await.unwrap();
    let answered = look.answered.unwrap();
    assert!(answered.tls_failed && answered.certificate_until.is_none(), "{answered:?}");
}

#[tokio::test]
async fn tls_goes_through_a_proxy_that_sees_the_name_alone() {
    let server = Server::start(false);
    let proxy = Forward::start(([127, 0, 0, 1], server.port).into()).await;
    let options = Options {
        url: "https://localhost:6543/rest/".into(),
        auth: Auth::Bearer("a-token-of-some-length".into()),
        ca_pem: Some(AUTHORITY.to_vec()),
        client_identity_pem: None,
        proxy: Some(format!("http://me:hu%40sh@{}", proxy.addr())),
        request_bytes_max: 1 << 20,
        connect_deadline: Duration::from_secs(5),
        answer_deadline: Duration::from_secs(5),
        stall_deadline: Options::STALL_DEADLINE,
        source: SourceId(1),
    };
    RestSink::new(options).unwrap().find(&Ask::All(EntityKind::Room)).await.unwrap();
    let heads = proxy.heads();
    assert!(heads.len() == 1 && heads[0].starts_with("CONNECT localhost:6543 "), "{heads:?}");
    // me:hu@sh
    assert!(heads[0].contains("Basic bWU6aHVAc2g=") && !heads[0].contains("a-token"), "{heads:?}");
}
