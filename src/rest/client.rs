//! The HTTP client as the contract needs it.
//!
//! The one rule: it follows nothing, repeats nothing, and takes nothing from the environment.

use std::{error::Error, time::Duration};

use reqwest::{Client, ClientBuilder};

use super::{Options, RestError, address::Address};

/// A client without connections.
pub(super) fn build(options: &Options, address: &Address) -> Result<Client, RestError> {
    finish(builder(options, address)?)
}

/// The same, which keeps the certificate that a server showed with each of its answers.
pub(super) fn build_for_a_look(options: &Options, address: &Address) -> Result<Client, RestError> {
    finish(builder(options, address)?.tls_info(true))
}

fn builder(options: &Options, address: &Address) -> Result<ClientBuilder, RestError> {
    let mut builder = Client::builder()
        .user_agent(concat!("packhorse/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .http1_only()
        .no_proxy()
        .connect_timeout(options.connect_deadline)
        .pool_max_idle_per_host(1)
        .tcp_keepalive(Duration::from_mins(1));
    let certificate = |what, error: reqwest::Error| RestError::Certificate { what, why: error.without_url().to_string() };
    let authorities = options.ca_pem.as_deref().map(|pem| {
        let found = reqwest::Certificate::from_pem_bundle(pem).map_err(|error| certificate("the CA certificate", error))?;
        if found.is_empty() {
            return Err(RestError::Certificate { what: "the CA certificate", why: "there is none in the file".into() });
        }
        Ok(found)
    });
    builder = match authorities.transpose()? {
        Some(found) => builder.tls_certs_only(found),
        // Without TLS no authorities are needed, and a machine that has none can still be served.
        None if !address.is_https() && options.proxy.is_none() => builder.tls_certs_only([]),
        None => builder,
    };
    if let Some(pem) = &options.client_identity_pem {
        let identity =
            reqwest::Identity::from_pem(pem).map_err(|error| certificate("the client certificate or its key", error))?;
        builder = builder.identity(identity);
    }
    if let Some(proxy) = &options.proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy).map_err(|_| RestError::Proxy)?);
    }
    Ok(builder)
}

fn finish(builder: ClientBuilder) -> Result<Client, RestError> {
    builder.build().map_err(|error| {
        let mut why = error.to_string();
        if let Some(cause) = error.source() {
            why = format!("{why}: {cause}");
        }
        RestError::Client { why }
    })
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
}
