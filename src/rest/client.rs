//! The HTTP client as the contract needs it, built as often as it is wanted.
//!
//! The one rule: it follows nothing and repeats nothing; and what TLS remembers of a server outlives each client, so that a new connection
//! over a poor link need not shake hands in full.

use std::{error::Error, sync::Arc, time::Duration};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Client, ClientBuilder, Url};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tower::util::MapResponseLayer;

use super::{Options, RestError, address::Address, lines::Lines};

/// A connection on which nothing comes is asked whether it still stands after this time, so many times, this far apart.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A client, and the connections that it opens.
#[derive(Clone)]
pub(super) struct Wired {
    pub(super) client: Client,
    pub(super) lines: Lines,
}

/// What every client of one destination is made of.
#[derive(Clone)]
pub(super) struct Recipe {
    connect_deadline: Duration,
    stall_deadline: Duration,
    /// Its sessions are shared by all that is built from it; none where nothing goes over TLS.
    tls: Option<ClientConfig>,
    proxy: Option<reqwest::Proxy>,
    #[cfg(test)]
    pub(super) names: Option<Arc<dyn reqwest::dns::Resolve>>,
}

impl Recipe {
    /// Reads certificates, keys and the proxy's address.
    pub(super) fn new(options: &Options, address: &Address) -> Result<Self, RestError> {
        let proxy = options.proxy.as_deref().map(|proxy| reqwest::Proxy::all(proxy).map_err(|_| RestError::Proxy)).transpose()?;
        // Without TLS no authorities are needed, and a machine that has none can still be served.
        let has_tls = address.is_https() || options.proxy.as_ref().is_some_and(|proxy| proxy.starts_with("https:"));
        Ok(Self {
            connect_deadline: options.connect_deadline,
            stall_deadline: options.stall_deadline,
            tls: if has_tls { Some(tls(options)?) } else { check(options)? },
            proxy,
            #[cfg(test)]
            names: None,
        })
    }

    /// A client without connections, which asks for the server's address anew.
    pub(super) fn build(&self) -> Result<Wired, RestError> {
        finish(self.builder())
    }

    /// The same, which keeps the certificate that a server showed with each of its answers.
    pub(super) fn build_for_a_look(&self, connect_deadline: Duration) -> Result<Wired, RestError> {
        finish(self.builder().tls_info(true).connect_timeout(connect_deadline))
    }

    fn builder(&self) -> ClientBuilder {
        let mut builder = Client::builder()
            .user_agent(concat!("packhorse/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .no_proxy()
            .connect_timeout(self.connect_deadline)
            .pool_max_idle_per_host(1)
            .tcp_keepalive(KEEPALIVE)
            .tcp_keepalive_interval(KEEPALIVE_INTERVAL)
            .tcp_keepalive_retries(KEEPALIVE_RETRIES)
            // What the kernel still holds of a request that was given up is dropped by then, and not delivered later.
            .tcp_user_timeout(self.stall_deadline);
        builder = match &self.tls {
            Some(tls) => builder.tls_backend_preconfigured(tls.clone()),
            None => builder.tls_certs_only([]),
        };
        #[cfg(test)]
        if let Some(names) = &self.names {
            builder = builder.dns_resolver(Arc::clone(names));
        }
        match &self.proxy {
            Some(proxy) => builder.proxy(proxy.clone()),
            None => builder,
        }
    }
}

/// Whom we trust and how we show ourselves.
fn tls(options: &Options) -> Result<ClientConfig, RestError> {
    let builder = ClientConfig::builder();
    let builder = if let Some(roots) = authorities(options)? {
        builder.with_root_certificates(roots)
    } else {
        let of_system = builder.with_platform_verifier();
        of_system.map_err(|error| RestError::Client { why: format!("the system's certificates are unusable: {error}") })?
    };
    let Some(pem) = &options.client_identity_pem else { return Ok(builder.with_no_client_auth()) };
    let unusable = |why: String| RestError::Certificate { what: "the client certificate or its key", why };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| unusable(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| unusable(error.to_string()))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(error.to_string()))
}

fn authorities(options: &Options) -> Result<Option<Arc<RootCertStore>>, RestError> {
    let Some(pem) = options.ca_pem.as_deref() else { return Ok(None) };
    let unusable = |why: String| RestError::Certificate { what: "the CA certificate", why };
    let mut roots = RootCertStore::empty();
    for found in CertificateDer::pem_slice_iter(pem) {
        let found = found.map_err(|error| unusable(error.to_string()))?;
        roots.add(found).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is none in the file".into()));
    }
    Ok(Some(Arc::new(roots)))
}

/// What is configured must be usable even where it is not used.
fn check(options: &Options) -> Result<Option<ClientConfig>, RestError> {
    if options.ca_pem.is_some() || options.client_identity_pem.is_some() {
        return tls(options).map(Some);
    }
    Ok(None)
}

/// The proxy that the environment names for an address, with its user and password: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, and `NO_PROXY`, in
/// lower case too. Never for this machine itself.
pub fn proxy_of_environment(address: &str) -> Option<String> {
    let url = Url::parse(address).ok()?;
    if is_loopback(&url) {
        return None;
    }
    proxy_of(&Matcher::from_env(), address)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn proxy_of(matcher: &Matcher, address: &str) -> Option<String> {
    let proxy = matcher.intercept(&address.parse().ok()?)?;
    let mut url = Url::parse(&proxy.uri().to_string()).ok()?;
    if let Some(header) = proxy.basic_auth() {
        use base64::Engine as _;
        let decoded =
            header.to_str().ok()?.strip_prefix("Basic ").map(|text| base64::engine::general_purpose::STANDARD.decode(text));
        let text = String::from_utf8(decoded?.ok()?).ok()?;
        let (user, password) = text.split_once(':').unwrap_or((&text, ""));
        let _ = url.set_username(user).and_then(|()| url.set_password(Some(password)));
    }
    Some(url.to_string())
}

fn finish(builder: ClientBuilder) -> Result<Wired, RestError> {
    let lines = Lines::default();
    let noting = lines.clone();
    let built = builder.connector_layer(MapResponseLayer::new(move |connection| noting.noted(connection))).build();
    let client = built.map_err(|error| {
        let mut why = error.to_string();
        if let Some(cause) = error.source() {
            why = format!("{why}: {cause}");
        }
        RestError::Client { why }
    })?;
    Ok(Wired { client, lines })
}

/// What Basic authentication sends.
pub(super) fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = format!("{user}:{password}").into_bytes();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let at = |place: usize| u32::from(group.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials_are_known_as_they_travel() {
        for (user, password, text) in [("a", "b", "YTpi"), ("ab", "c", "YWI6Yw=="), ("ab", "cd", "YWI6Y2Q=")] {
            assert_eq!(basic(user, password), text.trim_end_matches('='));
        }
    }

    #[test]
    fn the_environment_names_a_proxy_for_some_addresses() {
        let matcher =
            Matcher::builder().https("http://me:p%40ss@squid:3128").http("squid:8080").no("inner.example, 10.0.0.0/8").build();
        for (address, proxy) in [
            ("https://central.example/rest/", Some("http://me:p%40ss@squid:3128/")),
            ("http://central.example/rest/", Some("http://squid:8080/")),
            ("https://inner.example/rest/", None),
            ("https://a.inner.example/rest/", None),
            ("http://10.1.2.3/rest/", None),
        ] {
            assert_eq!(proxy_of(&matcher, address).as_deref(), proxy, "{address}");
        }
        for (address, is) in
            [("http://localhost:1/", true), ("http://127.0.0.9/", true), ("http://[::1]:1/", true), ("http://a/", false)]
        {
            assert_eq!(is_loopback(&Url::parse(address).unwrap()), is, "{address}");
        }
    }
}
