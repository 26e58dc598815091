//! `/metrics`: the figures in OpenMetrics form.
//!
//! The one rule: they are made anew from the same look as the page and the JSON, so that no two of them disagree.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{Figures, State, web::Look};
use crate::{domain::Stream, sender::helm::VERDICTS};

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// The content type that goes with it.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All figures as text.
pub fn text(looks: &[Look], is_healthy: bool) -> String {
    let mut registry = Registry::with_prefix("packhorse");
    let gauge = |registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>| {
        let family = Gauges::default();
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
            None => registry.register(name, help, family.clone()),
        }
        family
    };
    let counter = |registry: &mut Registry, name: &str, help: &str, unit: Option<Unit>| {
        let family = Counters::default();
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family.clone()),
            None => registry.register(name, help, family.clone()),
        }
        family
    };
    let rows = || Some(Unit::Other("rows".to_owned()));
    let (bytes, seconds) = (|| Some(Unit::Bytes), || Some(Unit::Seconds));
    let all = &mut registry;
    all.register("build", "The program", Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_owned())]));
    let healthy = gauge(all, "healthy", "1 while there is progress wherever there is work, as /healthz says", None);
    let pending = gauge(all, "outbox_pending", "Rows that wait to be sent", rows());
    let parked = gauge(all, "outbox_parked", "Rows that are set aside", rows());
    let pending_bytes = gauge(all, "outbox_pending", "Encoded bytes of the rows that wait", bytes());
    let disk = gauge(all, "outbox_disk", "Bytes of the outbox's files", bytes());
    let age = gauge(all, "outbox_oldest_age", "How long the oldest row has waited; 0 when none waits", seconds());
    let captured = counter(all, "captured", "Rows captured in this life of the outbox, each once", rows());
    let delivered = counter(all, "delivered", "Rows that the destination took in this life of the outbox", rows());
    let source_up =
        gauge(all, "source_up", "1 while every table of the source can be read, else 0; absent while that is not known", None);
    let halted = gauge(
        all,
        "capture_halted",
        "How long rows have not been captured, because the source cannot be read or there is no room; 0 while they are",
        seconds(),
    );
    let requests = counter(all, "requests", "Requests with rows since the start, by what they came to", None);
    let body = counter(all, "request_body", "Bytes of request bodies since the start", bytes());
    let took = counter(all, "request_duration", "How long all requests took together since the start", seconds());
    let last_took = gauge(all, "request_last_duration", "How long the last accepted request took", seconds());
    let success = gauge(all, "last_success_timestamp", "When the destination last took something", seconds());
    let next_try = gauge(all, "next_try", "Until the next try; absent when none is waited for", seconds());
    let state = gauge(all, "sender_state", "1 for what the sender is doing", None);

    healthy.get_or_create(&Vec::new()).set(f64::from(u8::from(is_healthy)));
    for look in looks {
        let status = &look.status;
        let of = |more: &[(&'static str, &str)]| -> Labels {
            let own = [("destination", status.destination.clone())].into_iter();
            own.chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
        };
        for stream in Stream::ALL {
            let labels = of(&[("stream", stream.name())]);
            let Some(figures) = status.streams.iter().find(|figures| figures.stream == stream) else { continue };
            pending.get_or_create(&labels).set(figures.pending as f64);
            parked.get_or_create(&labels).set(figures.parked as f64);
            if let Some(rows) = figures.captured {
                captured.get_or_create(&labels).inc_by(rows as f64);
            }
            if let Some(rows) = figures.acked {
                delivered.get_or_create(&labels).inc_by(rows as f64);
            }
        }
        if let Some(bytes) = status.pending_bytes {
            pending_bytes.get_or_create(&of(&[])).set(bytes as f64);
        }
        if let Some(bytes) = status.disk_bytes {
            disk.get_or_create(&of(&[])).set(bytes as f64);
        }
        if status.figures != Figures::Unknown {
            age.get_or_create(&of(&[])).set(status.oldest_age_seconds.unwrap_or(0) as f64);
        }
        if let Some(is_up) = status.capture.state.is_source_up() {
            source_up.get_or_create(&of(&[])).set(f64::from(u8::from(is_up)));
            halted.get_or_create(&of(&[])).set(status.capture.for_seconds.unwrap_or(0) as f64);
        }
        for (verdict, count) in VERDICTS.iter().zip(look.traffic.requests) {
            let verdict = verdict.to_string().replace(' ', "_");
            requests.get_or_create(&of(&[("verdict", &verdict)])).inc_by(count as f64);
        }
        body.get_or_create(&of(&[])).inc_by(look.traffic.body_bytes as f64);
        took.get_or_create(&of(&[])).inc_by(look.traffic.took.as_secs_f64());
        if let Some(took) = look.traffic.last_took {
            last_took.get_or_create(&of(&[])).set(took.as_secs_f64());
        }
        if let Some(at) = status.last_success.as_deref().and_then(|at| at.parse::<crate::domain::Micros>().ok()) {
            success.get_or_create(&of(&[])).set(at.0 as f64 / 1e6);
        }
        if let Some(wait) = status.next_try_seconds {
            next_try.get_or_create(&of(&[])).set(wait as f64);
        }
        for known in State::ALL {
            state.get_or_create(&of(&[("state", known.name())])).set(f64::from(u8::from(known == status.state)));
        }
    }
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = encode(&mut text, &registry);
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        sender::helm::Traffic,
        status::{
            capture::{CaptureState, CaptureStatus},
            of_closed,
        },
    };

    fn look(capture: CaptureStatus) -> Look {
        let status = crate::status::DestinationStatus { capture, ..of_closed("here", "", None, crate::domain::Micros(0)) };
        Look { status, traffic: Traffic::default(), stalled: Duration::ZERO, conflicts: Vec::new() }
    }

    fn figures(text: &str, name: &str) -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with(&format!("packhorse_{name}{{")));
        lines.filter_map(|line| line.rsplit(' ').next()).map(str::to_owned).collect()
    }

    #[test]
    fn whether_the_source_is_up_is_absent_until_somebody_knows() {
        for (state, up, halted) in [
            (CaptureState::Unknown, vec![], vec![]),
            (CaptureState::Running, vec!["1.0"], vec!["0.0"]),
            (CaptureState::Stuck, vec!["0.0"], vec!["77.0"]),
            (CaptureState::Paused, vec!["1.0"], vec!["77.0"]),
        ] {
            let for_seconds = (state == CaptureState::Stuck || state == CaptureState::Paused).then_some(77);
            let text = text(&[look(CaptureStatus { state, for_seconds, ..CaptureStatus::default() })], true);
            assert_eq!(figures(&text, "source_up"), up, "{state:?} {text}");
            assert_eq!(figures(&text, "capture_halted_seconds"), halted, "{state:?} {text}");
        }
    }

    #[test]
    fn of_an_outbox_that_is_not_known_there_are_no_figures_rather_than_zeros() {
        let text = text(&[look(CaptureStatus::default())], true);
        for name in [
            "outbox_pending_rows",
            "outbox_parked_rows",
            "outbox_oldest_age_seconds",
            "outbox_disk_bytes",
            "delivered_rows_total",
            "captured_rows_total",
        ] {
            assert_eq!(figures(&text, name), Vec::<String>::new(), "{name} {text}");
        }
        assert!(text.contains("packhorse_sender_state{destination=\"here\",state=\"closed\"} 1.0"), "{text}");
    }

    #[test]
    fn the_documentation_lists_exactly_the_metrics_that_are_served() {
        // With every figure there can be.
        let mut look = look(CaptureStatus { state: CaptureState::Running, ..CaptureStatus::default() });
        look.traffic.last_took = Some(Duration::from_millis(5));
        let stream = crate::status::StreamStatus {
            stream: Stream::Reading,
            pending: 0,
            acked: Some(0),
            captured: Some(0),
            parked: 0,
            cursor: None,
            next: None,
            watermark: String::new(),
            behind_source: None,
            oldest_captured_at: None,
        };
        look.status = crate::status::DestinationStatus {
            figures: Figures::Outbox,
            pending_bytes: Some(0),
            disk_bytes: Some(0),
            next_try_seconds: Some(0),
            last_success: Some(crate::domain::Micros(0).to_string()),
            streams: vec![stream],
            ..look.status
        };
        let text = text(&[look], true);
        let kinds: std::collections::BTreeMap<_, _> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        let rows: Vec<String> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' '))
            .map(|(name, help)| {
                let end = match kinds[name] {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                format!("| `{name}{end}` | {} | {help} |", kinds[name])
            })
            .collect();
        let documented: Vec<&str> =
            include_str!("../../docs/operations.md").lines().filter(|line| line.starts_with("| `packhorse_")).collect();
        assert_eq!(documented, rows, "docs/operations.md differs; the rows should be:\n{}", rows.join("\n"));
    }
}
