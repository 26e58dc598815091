//! The status page: one document, nothing from elsewhere, whole without JavaScript. Pure.
//!
//! The one rule: whatever comes from outside (names, errors, rows, log lines) is text, never markup.

use std::fmt::Write as _;

use super::{
    DestinationStatus, Figures, State,
    capture::CaptureState,
    chart::{self, PERIODS, Period, Series},
    history::Minute,
    lines::Line,
    sentence::{clock, number, span},
    web::{Depth, Look},
};
use crate::{
    config::units::show_bytes,
    domain::{Micros, Stream},
    queue::Group,
};

/// What is shown.
pub struct View<'a> {
    /// The gateway's label.
    pub label: &'a str,
    /// Each destination.
    pub looks: &'a [Look],
    /// Its history, and what is parked there, in the same order.
    pub depth: &'a [Depth],
    /// Why it is not healthy.
    pub sick: &'a [String],
    /// The last lines of the log, the newest first.
    pub lines: &'a [Line],
    /// The gateway's clock.
    pub now: Micros,
    /// What our own style and script are known by.
    pub nonce: &'a str,
}

/// Text as it may stand in a document, also in an attribute.
fn text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// The document.
pub fn html(view: &View<'_>) -> String {
    let mut out = String::with_capacity(64 << 10);
    let stuck = |look: &&Look| class(&look.status) == "bad";
    let stuck: Vec<_> = view.looks.iter().filter(stuck).map(|look| text(&look.status.destination)).collect();
    let worst = if view.sick.is_empty() && stuck.is_empty() { "" } else { "! " };
    // Writing to a String does not fail.
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{worst}packhorse on {label}</title><link rel=\"icon\" href=\"data:,\">\
         <noscript><meta http-equiv=\"refresh\" content=\"30\"></noscript>\
         <style nonce=\"{nonce}\">{}</style></head><body><a class=\"skip\" href=\"#content\">To the content</a><p id=\"news\" class=\"skip\" role=\"status\"></p><main id=\"content\">\
         <header><h1>packhorse on {label}</h1><p id=\"seen\">As of {now}, version {}</p>",
        include_str!("page.css"),
        env!("CARGO_PKG_VERSION"),
        label = text(view.label),
        nonce = view.nonce,
        now = clock_with_seconds(view.now),
    );
    // Health is about time, and `/healthz` tells it; that a human is needed is known sooner.
    if !stuck.is_empty() {
        let _ = write!(out, "<p class=\"bad\">A human is needed: see {}.</p>", stuck.join(", "));
    } else if view.sick.is_empty() && view.looks.iter().any(|look| class(&look.status) == "warn") {
        out.push_str("<p class=\"warn\">Healthy so far, but not everything goes on: see below.</p>");
    } else if view.sick.is_empty() {
        out.push_str("<p class=\"good\">Healthy: there is progress wherever there is work.</p>");
    }
    for sick in view.sick {
        let _ = write!(out, "<p class=\"bad\">Not healthy: {}</p>", text(sick));
    }
    out.push_str("</header>");
    for (place, look) in view.looks.iter().enumerate() {
        let none = Depth::default();
        destination(&mut out, place, look, view.depth.get(place).unwrap_or(&none), view.now);
    }
    log(&mut out, view);
    let _ = writeln!(out, "</main><script nonce=\"{}\">{}</script></body></html>", view.nonce, include_str!("page.js"));
    out
}

fn clock_with_seconds(now: Micros) -> String {
    format!("{} UTC", now.cut_to_second().to_string().replace('T', " "))
}

/// How bad it is.
fn class(status: &DestinationStatus) -> &'static str {
    match (status.state, status.capture.state) {
        (State::Stuck | State::Closed, _) | (_, CaptureState::Stuck) => "bad",
        (State::Waiting | State::Paused | State::Stopped, _) | (_, CaptureState::Waiting | CaptureState::Paused) => "warn",
        (State::Idle | State::Sending | State::Syncing | State::Starting, CaptureState::Running | CaptureState::Unknown) => {
            "good"
        }
    }
}

fn destination(out: &mut String, place: usize, look: &Look, depth: &Depth, now: Micros) {
    let status = &look.status;
    let name = text(&status.destination);
    let _ = write!(
        out,
        "<section aria-labelledby=\"d{place}\"><h2 id=\"d{place}\">{name}</h2><p class=\"state {}\">{}</p>",
        class(status),
        text(&status.sentence)
    );
    if let Some(trouble) = status.last_error.as_ref().filter(|_| matches!(status.state, State::Waiting | State::Stuck)) {
        let _ = write!(out, "<p class=\"note\">{}</p>", text(&trouble.text));
    }
    if let Some(advice) = status.capture.state.advice() {
        let _ = write!(out, "<p class=\"note\">{}</p>", text(advice));
    }
    let unknown = || "unknown".to_owned();
    let mut facts: Vec<(String, String)> = Vec::new();
    for stream in Stream::ALL {
        let of = status.streams.iter().find(|of| of.stream == stream);
        facts.push((stream.plural().to_owned() + " waiting", of.map_or_else(unknown, |of| number(of.pending))));
        let delivered = of.and_then(|of| of.acked).map_or_else(unknown, number);
        facts.push((stream.plural().to_owned() + " delivered", delivered));
    }
    facts.sort_by_key(|(term, _)| term.ends_with("delivered"));
    facts.push(("parked".to_owned(), status.parked.map_or_else(unknown, number)));
    let none = || if status.pending == Some(0) { "none waits".to_owned() } else { unknown() };
    facts.push(("oldest waits for".to_owned(), status.oldest_age_seconds.map_or_else(none, span)));
    facts.push((
        "rows a second".to_owned(),
        status.rows_per_second.map_or_else(|| "unknown".to_owned(), |rate| format!("{rate:.0}")),
    ));
    let last = status.last_success.as_deref().and_then(|at| at.parse().ok());
    let never = || if status.figures == Figures::Outbox { "never".to_owned() } else { unknown() };
    facts.push(("last delivery".to_owned(), last.map_or_else(never, |at| clock(at, now))));
    let took =
        look.traffic.last_took.map_or_else(|| "unknown".to_owned(), |took| format!("{} ms", number(took.as_millis() as u64)));
    facts.push(("round trip".to_owned(), took));
    facts.push(("on the disk".to_owned(), status.disk_bytes.map_or_else(unknown, show_bytes)));
    out.push_str("<dl>");
    for (term, value) in facts {
        let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", text(&term), text(&value));
    }
    out.push_str("</dl>");
    let minute = u32::try_from(now.0 / 60_000_000).unwrap_or(0);
    for period in PERIODS {
        let open = if period.minutes == 60 { " open" } else { "" };
        let _ = write!(
            out,
            "<details id=\"d{place}-{0}\"{open}><summary>Last {0}<span class=\"skip\"> of {name}</span></summary><div class=\"charts\">{1}</div></details>",
            period.name,
            charts(&depth.minutes, period, minute)
        );
    }
    match &depth.parked {
        Some(groups) => parked(out, place, groups),
        None => out.push_str("<p class=\"note\">There are too many parked rows to sort them by reason here: <code>packhorse queue parked list</code> does.</p>"),
    }
    conflicts(out, look);
    out.push_str("</section>");
}

fn charts(minutes: &[Minute], period: Period, now: u32) -> String {
    let points = chart::points(minutes, period, now);
    let values = |of: fn(&Minute) -> u64| points.iter().map(|point| point.as_ref().map(of)).collect::<Vec<_>>();
    let one = |title: &str, unit: &str, name: &str, of: fn(&Minute) -> u64| {
        chart::lines(title, period, unit, &[Series { name, class: "a", values: values(of) }])
    };
    // Where nothing went out, nothing was measured.
    let round_trip = |minute: &Minute| (minute.requests > 0).then_some(u64::from(minute.round_trip_ms));
    let round_trips = points.iter().map(|point| point.as_ref().and_then(round_trip)).collect();
    let round_trips = [Series { name: "round trip", class: "a", values: round_trips }];
    let rows = [
        Series { name: "captured", class: "a", values: values(|minute| minute.captured) },
        Series { name: "delivered", class: "b", values: values(|minute| minute.delivered) },
    ];
    [
        chart::timeline(minutes, period, now),
        one("Rows waiting", "", "rows", |minute| minute.pending),
        chart::lines("Rows captured and delivered", period, "", &rows),
        one("Bytes sent", " B", "bytes", |minute| minute.bytes),
        chart::lines("Round trip", period, " ms", &round_trips),
        one("Errors", "", "errors", |minute| u64::from(minute.errors)),
    ]
    .concat()
}

/// Its roles are written out: on a narrow screen each row is a block of lines, and then browsers take it for no table any more.
const HEAD: &str = "<table role=\"table\"><thead role=\"rowgroup\"><tr role=\"row\">\
    <th role=\"columnheader\" scope=\"col\" class=\"number\">Rows</th><th role=\"columnheader\" scope=\"col\">Stream</th>\
    <th role=\"columnheader\" scope=\"col\">Since (UTC)</th><th role=\"columnheader\" scope=\"col\">Why</th>\
    <th role=\"columnheader\" scope=\"col\">A sample</th></tr></thead>";

fn parked(out: &mut String, place: usize, groups: &[Group]) {
    if groups.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<details id=\"d{place}-parked\" open><summary>Parked rows</summary><div id=\"d{place}-rows\" class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Parked rows\">{HEAD}<tbody role=\"rowgroup\">"
    );
    for group in groups {
        let columns = group.stream.spec().columns.iter().map(|column| column.name);
        let sample: Vec<_> = columns
            .zip(&group.sample.cells)
            .map(|(name, cell)| format!("{name} {}", cell.to_string().trim_matches('"')))
            .collect();
        let since: String = group.oldest.chars().take(16).collect();
        let _ = write!(
            out,
            "<tr role=\"row\"><td role=\"cell\" class=\"number\" data-head=\"Rows\">{}</td><td role=\"cell\" data-head=\"Stream\">{}</td><td role=\"cell\" data-head=\"Since (UTC)\">{}</td>\
             <td role=\"cell\" data-head=\"Why\">{}</td><td role=\"cell\" data-head=\"A sample\">{}</td></tr>",
            number(group.rows),
            group.stream,
            text(&since.replace('T', " ")),
            text(&group.reason),
            text(&sample.join(", "))
        );
    }
    out.push_str("</tbody></table></div><p class=\"note\">Held rows return by themselves when the catalog allows it. For refused ones: <code>packhorse queue parked list</code>, then <code>retry</code> or <code>discard</code>.</p></details>");
}

fn conflicts(out: &mut String, look: &Look) {
    if look.conflicts.is_empty() {
        return;
    }
    out.push_str("<h3>Catalog conflicts</h3><ul>");
    for (entity, why) in &look.conflicts {
        let rows = look.status.held.iter().find(|held| held.entity == *entity).map_or(0, |held| held.rows);
        let _ = write!(out, "<li><strong>{}</strong>: {}. {} rows are held for it.</li>", text(entity), text(why), number(rows));
    }
    out.push_str("</ul><p class=\"note\">Make both sides agree, here or at the destination; the rows then go by themselves, within 5 minutes or after <code>packhorse queue parked retry</code>.</p>");
}

fn log(out: &mut String, view: &View<'_>) {
    out.push_str("<section aria-labelledby=\"log\"><h2 id=\"log\">Last log lines</h2>");
    if view.lines.is_empty() {
        out.push_str("<p class=\"note\">Nothing yet.</p></section>");
        return;
    }
    out.push_str("<ol class=\"log\">");
    for line in view.lines.iter().take(25) {
        let class = match line.level {
            "ERROR" => "bad",
            "WARN" => "warn",
            _ => "note",
        };
        let _ = write!(
            out,
            "<li>{} <strong class=\"{class}\">{}</strong> {}</li>",
            clock_with_seconds(line.at),
            line.level,
            text(&line.text)
        );
    }
    out.push_str("</ol></section>");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{capture::CaptureStatus, of_closed},
        *,
    };
    use crate::sender::helm::Traffic;

    #[test]
    fn what_comes_from_outside_is_text_and_never_markup() {
        let bad = "<script>alert('x')</script>\" onload=\"&";
        let line = Line { at: Micros(0), level: "ERROR", text: bad.to_owned() };
        let view =
            View { label: bad, looks: &[], depth: &[], sick: &[bad.to_owned()], lines: &[line], now: Micros(0), nonce: "n" };
        let html = html(&view);
        assert!(!html.contains("<script>alert") && !html.contains("\" onload"), "{html}");
        assert_eq!(html.matches("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; onload=&quot;&amp;").count(), 4);
        assert!(!html.contains("http://") && !html.contains("https://"), "nothing comes from elsewhere");
    }

    #[test]
    fn a_page_with_a_destination_that_needs_a_human_does_not_begin_with_all_is_well() {
        let now = Micros(1_800_000_000_000_000);
        let look = |status| Look { status, traffic: Traffic::default(), stalled: Duration::ZERO, conflicts: Vec::new() };
        let closed = look(of_closed("<central>", "damaged", None, now));
        let of = |state, capture| {
            let capture = CaptureStatus { state: capture, ..CaptureStatus::default() };
            look(DestinationStatus { state, capture, ..of_closed("central", "", None, now) })
        };
        let page = |looks: &[Look]| html(&View { label: "house-17", looks, depth: &[], sick: &[], lines: &[], now, nonce: "n" });
        let (bad, good) = (page(&[closed]), page(&[of(State::Idle, CaptureState::Running)]));
        assert!(
            bad.contains("<p class=\"bad\">A human is needed: see &lt;central&gt;.</p>") && bad.contains("<title>! "),
            "{bad}"
        );
        assert!(!bad.contains("Healthy: ") && good.contains("Healthy: ") && !good.contains("A human is needed"), "{good}");
        assert!(page(&[of(State::Idle, CaptureState::Stuck)]).contains("A human is needed: see central"), "of the source");
        for (state, capture) in [(State::Waiting, CaptureState::Running), (State::Idle, CaptureState::Waiting)] {
            let page = page(&[of(state, capture)]);
            assert!(page.contains("Healthy so far") && !page.contains("Healthy: "), "{page}");
        }
    }

    #[test]
    fn where_no_request_came_back_there_is_no_round_trip() {
        let now = 100_000;
        let minute = |at: u32, requests: u32| Minute { at, requests, round_trip_ms: requests * 81, ..Minute::default() };
        let minutes: Vec<_> = (now - 60..now).map(|at| minute(at, u32::from(at % 20 == 7))).collect();
        for period in PERIODS {
            let charts = charts(&minutes, period, now);
            assert!(charts.contains("round trip 81 ms last, 81 ms at most"), "{}: {charts}", period.name);
        }
        let idle: Vec<_> = (now - 60..now).map(|at| minute(at, 0)).collect();
        assert!(charts(&idle, PERIODS[0], now).contains("<p class=\"told\">nothing seen yet</p>"));
    }
}
