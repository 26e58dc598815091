//! Who may come in: tokens, each bound to its gateway, and TLS.

use std::{fs, path::Path};

use packhorse::{
    domain::{EntityKind, SourceId, Verdict},
    ports::{Ask, Sink as _},
    receiver::{Options, TlsFiles},
    rest::{Auth, RestSink},
};
use serde_json::json;

use super::{
    SEED, SOURCE, assert_refused, assert_stored,
    central::{Answer, Central},
    reading, readings,
};

const OTHER_SOURCE: &str = "fedcba9876543210fedcba9876543210";
const FIRST: &str = "token-of-the-first";
const SECOND: &str = "token-of-the-second";
const PEOPLE: &str = "token-of-the-people";

/// A receiver with these tokens.
fn guarded(dir: &Path, tokens: &str) -> Central {
    let tokens_file = dir.join("tokens");
    fs::write(&tokens_file, tokens).unwrap();
    let central = Central::with(|options| Options { tokens_file: Some(tokens_file), ..options });
    central.sql(SEED);
    central
}

fn both() -> String {
    format!("first {FIRST}\nsecond {SECOND}\noperator {PEOPLE}\n")
}

/// A reading of a source, sent with a token.
fn send(central: &Central, token: &str, source: Option<&str>, minute: u32) -> Answer {
    let authorization = format!("Bearer {token}");
    let mut headers = vec![("Authorization", authorization.as_str())];
    if let Some(source) = source {
        headers.extend([("packhorse-source", source), ("packhorse-generation", "0")]);
    }
    let rows = json!([reading(&format!("2013-01-01T00:{minute:02}:00"), 11, 0, 1.0)]).to_string();
    central.call("POST", "/rest/bulk/", &headers, Some(rows.as_bytes()))
}

#[test]
fn without_a_token_nothing_is_told_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let central = guarded(dir.path(), &both());
    for target in ["/rest/sensortype/", "/rest/reading/", "/", "/metrics", "/rest/nonsense/"] {
        let answer = central.get(target);
        assert_refused(&answer, 401, "token");
        assert!(answer.header("www-authenticate").is_some());
    }
    assert_refused(&send(&central, "token-of-the-fourth", None, 1), 401, "token");
    let large = vec![b' '; 3 << 20];
    assert_refused(&central.post("/rest/bulk/", &large), 401, "token");
    assert_eq!(central.get("/healthz").status, 200);
    assert_eq!(readings(&central), 0);
}

#[test]
fn a_token_belongs_to_the_source_that_used_it_first() {
    let dir = tempfile::tempdir().unwrap();
    let central = guarded(dir.path(), &both());
    assert_stored(&send(&central, FIRST, Some(SOURCE), 1));
    assert_refused(&send(&central, FIRST, Some(OTHER_SOURCE), 2), 403, "first");
    // Nor may another token speak for that source.
    assert_refused(&send(&central, SECOND, Some(SOURCE), 3), 403, "second");
    assert_stored(&send(&central, SECOND, Some(OTHER_SOURCE), 4));
    assert_stored(&send(&central, FIRST, Some(SOURCE), 5));
    let report = [("Authorization", &*format!("Bearer {FIRST}")), ("packhorse-source", OTHER_SOURCE)];
    assert_refused(&central.call("POST", "/rest/pushstatus/", &report, Some(b"{}")), 403, "first");
    assert_eq!(readings(&central), 3);
    assert_eq!(central.number("SELECT count(*) FROM packhorse_gateway WHERE token LIKE 'token%'"), 0);
}

#[test]
fn a_refused_first_request_does_not_bind_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let central = guarded(dir.path(), &both());
    let authorization = format!("Bearer {FIRST}");
    let headers = [("Authorization", authorization.as_str()), ("packhorse-source", SOURCE), ("packhorse-generation", "0")];
    let rows = json!([reading("2013-01-01T00:05:00", 99, 0, 1.0)]).to_string();
    assert_refused(&central.call("POST", "/rest/bulk/", &headers, Some(rows.as_bytes())), 422, "99");
    assert_stored(&send(&central, FIRST, Some(OTHER_SOURCE), 1));
}

#[test]
fn a_gateway_gets_a_new_token_once_its_old_one_is_gone_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let central = guarded(dir.path(), &both());
    assert_stored(&send(&central, FIRST, Some(SOURCE), 1));
    let file = dir.path().join("tokens");
    fs::write(&file, "this is no tokens file").unwrap();
    assert!(central.reload().unwrap_err().to_string().contains("line 1"));
    assert_stored(&send(&central, FIRST, Some(SOURCE), 2));
    fs::write(&file, "first token-of-the-first-anew\n").unwrap();
    central.reload().unwrap();
    assert_refused(&send(&central, FIRST, Some(SOURCE), 3), 401, "token");
    assert_stored(&send(&central, "token-of-the-first-anew", Some(SOURCE), 3));
    assert_eq!(readings(&central), 3);
}

#[test]
fn the_page_and_deletes_are_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let central = guarded(dir.path(), &both());
    let with = |method: &str, target: &str, token: &str| {
        central.call(method, target, &[("Authorization", &format!("Bearer {token}"))], None)
    };
    for (method, target) in [("GET", "/"), ("GET", "/metrics"), ("DELETE", "/rest/room/?id=2")] {
        assert_refused(&with(method, target, FIRST), 403, "operator");
        assert_eq!(with(method, target, PEOPLE).status, 200, "{target}");
    }
    assert_eq!(with("GET", "/rest/room/", FIRST).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sink_reaches_it_over_tls_with_its_token_and_a_new_certificate_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let pem = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/server.pem");
    let (cert_file, tokens_file) = (dir.path().join("cert.pem"), dir.path().join("tokens"));
    fs::copy(&pem, &cert_file).unwrap();
    fs::write(&tokens_file, both()).unwrap();
    let files = TlsFiles { cert_file: cert_file.clone(), key_file: pem };
    let central = tokio::task::spawn_blocking(move || {
        Central::with(|options| Options { tokens_file: Some(tokens_file), tls: Some(files), ..options })
    });
    let central = central.await.unwrap();
    let sink = |token: &str| {
        RestSink::new(packhorse::rest::Options {
            url: format!("https://127.0.0.1:{}/rest/", central.address.port()),
            auth: Auth::Bearer(token.to_owned()),
            ca_pem: Some(include_bytes!("../tls/ca.pem").to_vec()),
            client_identity_pem: None,
            proxy: None,
            request_bytes_max: 1 << 20,
            connect_deadline: packhorse::rest::Options::CONNECT_DEADLINE,
            answer_deadline: packhorse::rest::Options::ANSWER_DEADLINE,
            stall_deadline: packhorse::rest::Options::STALL_DEADLINE,
            source: SourceId(7),
        })
        .unwrap()
    };
    let good = sink(FIRST);
    assert_eq!(good.find(&Ask::All(EntityKind::Node)).await.unwrap(), []);
    assert!(good.is_packhorse());
    assert_eq!(sink("token-of-the-fourth").find(&Ask::All(EntityKind::Node)).await.unwrap_err().verdict, Verdict::Misconfigured);
    // A certificate that is of no use does not replace the one in use.
    fs::write(&cert_file, "nonsense").unwrap();
    assert!(central.reload().unwrap_err().to_string().contains("cert.pem"));
    assert_eq!(sink(FIRST).find(&Ask::All(EntityKind::Node)).await.unwrap(), []);
    // A client certificate is none of a server's: whoever connects from now on sees it, and leaves.
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls/client.pem"), &cert_file).unwrap();
    assert!(central.reload().is_err(), "certificate and key do not fit");
    tokio::task::spawn_blocking(move || drop(central)).await.unwrap();
}
