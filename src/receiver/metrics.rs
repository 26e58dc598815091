//! What the receiver counts, as OpenMetrics.
//!
//! The one rule: labels are few and ours; nothing that a client sends becomes one but a known gateway's id.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::gateways::Gateway;
use crate::domain::Micros;

/// How a request went.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    status: u32,
}

/// What became of rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fate {
    fate: &'static str,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    source: String,
}

/// The counters.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    rows: Family<Fate, Counter>,
    repeats: Counter,
    depth: Family<Of, Gauge>,
    parked: Family<Of, Gauge>,
    lag: Family<Of, Gauge>,
    seen: Family<Of, Gauge>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("packhorse_receiver");
        let buckets = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];
        let these = Self {
            registry: Registry::default(),
            requests: Family::default(),
            seconds: Histogram::new(buckets),
            rows: Family::default(),
            repeats: Counter::default(),
            depth: Family::default(),
            parked: Family::default(),
            lag: Family::default(),
            seen: Family::default(),
        };
        registry.register("requests", "Requests answered", these.requests.clone());
        registry.register("request_seconds", "Time from a request's head to its answer", these.seconds.clone());
        registry.register("rows", "Rows of runs, by what became of them", these.rows.clone());
        registry.register("repeats", "Requests that were known by their receipt", these.repeats.clone());
        registry.register("gateway_depth", "Records that wait at a gateway", these.depth.clone());
        registry.register("gateway_parked", "Records set aside at a gateway", these.parked.clone());
        registry.register("gateway_lag_seconds", "How far a gateway's capture is behind its database", these.lag.clone());
        registry.register("gateway_seen_seconds", "When a gateway was last seen, since 1970", these.seen.clone());
        Self { registry, ..these }
    }

    /// Counts a request.
    pub(super) fn request(&self, method: &str, status: u16, took: Duration) {
        let method = ["GET", "HEAD", "POST", "PUT", "DELETE"].into_iter().find(|known| *known == method).unwrap_or("other");
        self.requests.get_or_create(&Request { method, status: status.into() }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    /// Counts the rows of a run.
    pub(super) fn run(&self, answer: &crate::wire::RunAnswer) {
        let sum = |runs: &[(u64, u64)]| runs.iter().map(|(from, to)| to.saturating_sub(*from)).sum::<u64>();
        let refused = answer.refused.iter().map(|it| sum(&it.rows)).sum();
        for (fate, rows) in [("stored", answer.stored), ("had", sum(&answer.had)), ("refused", refused)] {
            self.rows.get_or_create(&Fate { fate }).inc_by(rows);
        }
        if answer.repeat {
            self.repeats.inc();
        }
    }

    /// All of it as text, with the gateways as they are now.
    pub(super) fn text(&self, gateways: &[Gateway]) -> String {
        for gauges in [&self.depth, &self.parked, &self.lag, &self.seen] {
            gauges.clear();
        }
        for gateway in gateways {
            let of = Of { source: gateway.source.clone() };
            let seen = gateway.seen.as_deref().and_then(|seen| seen.parse::<Micros>().ok()).map(|seen| seen.0 / 1_000_000);
            let figures = [
                (&self.depth, gateway.depth),
                (&self.parked, gateway.parked),
                (&self.lag, gateway.lag_seconds),
                (&self.seen, seen),
            ];
            for (gauges, figure) in figures {
                if let Some(figure) = figure {
                    gauges.get_or_create(&of).set(figure);
                }
            }
        }
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
