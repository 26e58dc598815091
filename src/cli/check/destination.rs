//! What `check` says of a destination: the way to it, what answers there, and its clock.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use url::Host;

use super::{Finding, clock_finding};
use crate::{
    chain,
    cli::Exit,
    config::Destination,
    daemon,
    domain::SourceId,
    rest::{
        RestSink,
        look::{Answered, Look, Server},
    },
};

/// A certificate that ends sooner should be renewed.
const CERTIFICATE_DAYS_MIN: i64 = 14;

pub(super) async fn findings(destination: &Destination) -> Vec<Finding> {
    let subject = format!("destination {}", destination.name);
    if !destination.enabled {
        return vec![Finding::ok(subject, "disabled, not looked at")];
    }
    let mut findings = Vec::new();
    if destination.url.scheme() == "http" && !is_loopback(destination) {
        let text = format!("{} is plain http: everybody on the way can read and change what is sent; use https", destination.url);
        findings.push(Finding::warning(&subject, text));
    }
    // A look tells nobody whose rows these are.
    let looked = match RestSink::new(daemon::rest_options(destination, SourceId(0))) {
        Ok(sink) => sink.look(daemon::clock).await,
        Err(error) => Err(error),
    };
    match looked {
        Ok(look) => findings.extend(of_look(&subject, &look, Utc::now())),
        Err(error) => findings.push(Finding::trouble(&subject, chain(&error)).exiting(Exit::Usage)),
    }
    findings
}

fn is_loopback(destination: &Destination) -> bool {
    match destination.url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn of_look(subject: &str, look: &Look, now: DateTime<Utc>) -> Vec<Finding> {
    let whose = if look.by_proxy { "the proxy's " } else { "" };
    let host = look.peer.rsplit_once(':').map_or(look.peer.as_str(), |(host, _)| host);
    let mut findings = Vec::new();
    match &look.addresses {
        Err(error) => {
            let text = format!("{whose}name {host} cannot be resolved ({error})");
            findings.push(Finding::problem(subject, text, "is the link up, and is the name right?"));
        }
        Ok(addresses) if host.parse::<IpAddr>().is_err() => {
            let mut ips: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            ips.dedup();
            findings.push(Finding::ok(subject, format!("{whose}name {host} is {}", ips.join(", "))));
        }
        Ok(_) => {}
    }
    match &look.tcp {
        None => {}
        Some(Ok((address, took))) => {
            findings.push(Finding::ok(subject, format!("{whose}address {address} takes connections ({} ms)", took.as_millis())));
        }
        Some(Err(error)) => {
            let error = error.strip_prefix(&format!("{}: ", look.peer)).unwrap_or(error);
            let advice = "is the server running, is the port right, and does a firewall let it through?";
            findings.push(Finding::problem(subject, format!("{whose}{} takes no connection ({error})", look.peer), advice));
        }
    }
    if let Some(answered) = &look.answered {
        findings.extend(of_answer(subject, answered, now));
    }
    findings
}

fn of_answer(subject: &str, answered: &Answered, now: DateTime<Utc>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(until) = answered.certificate_until {
        findings.push(of_certificate(subject, until, now));
    }
    match &answered.sensor_types {
        Ok(count) => {
            let took = answered.took.as_millis();
            let text = format!("GET sensortype/ brought {count} sensor types ({took} ms); it is {}", kind(answered.server));
            findings.push(Finding::ok(subject, text));
        }
        Err(outcome) if answered.tls_failed => findings.push(Finding::trouble(subject, &outcome.advice)),
        Err(outcome) => findings.push(Finding::trouble(subject, format!("GET sensortype/: {}", outcome.advice))),
    }
    if let Some(seconds) = answered.clock_ahead_seconds {
        findings.push(clock_finding(subject, "the server's", seconds));
    }
    findings
}

const fn kind(server: Server) -> &'static str {
    match server {
        Server::Packhorse => "a packhorse receiver",
        Server::LegacyNewer => "a legacy server that merges a repeated node state (newer NodeState table)",
        Server::LegacyOlder => "a legacy server that stores a repeated node state twice (older NodeState table)",
        Server::Legacy => "a legacy server; without a node state there it cannot be told which",
        Server::Unknown => "of an unknown kind",
    }
}

fn of_certificate(subject: &str, until: DateTime<Utc>, now: DateTime<Utc>) -> Finding {
    let days = (until - now).num_days();
    let text = format!("its certificate is trusted, and valid until {} ({days} days)", until.format("%Y-%m-%d"));
    if days < CERTIFICATE_DAYS_MIN {
        Finding::warning(subject, format!("{text}; have it renewed in time"))
    } else {
        Finding::ok(subject, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Level;

    #[test]
    fn a_certificate_that_ends_soon_is_a_warning() {
        let now: DateTime<Utc> = "2026-11-24T06:00:00Z".parse().unwrap();
        let found = of_certificate("destination x", "2026-12-07T06:00:00Z".parse().unwrap(), now);
        assert_eq!((found.level, found.advice.as_deref()), (Level::Warning, Some("have it renewed in time")));
        let found = of_certificate("destination x", "2026-12-08T06:00:00Z".parse().unwrap(), now);
        assert_eq!(found.level, Level::Ok);
        assert_eq!(found.text, "its certificate is trusted, and valid until 2026-12-08 (14 days)");
    }
}
