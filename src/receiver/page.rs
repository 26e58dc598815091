//! The page of gateways, for people: plain HTML, nothing to load from anywhere.
//!
//! The one rule: what a gateway says of itself is text, never markup.

use std::fmt::Write as _;

use super::gateways::Gateway;

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"30\">\
    <meta name=\"viewport\" content=\"width=device-width\"><title>packhorse: gateways</title>\
    <style>body{font-family:sans-serif;margin:1.5em}table{border-collapse:collapse}th,td{padding:.3em .8em;text-align:left;\
    border-bottom:1px solid #ccc}td.n{text-align:right}</style></head><body>\n<h1>Gateways</h1>\n";

/// The page.
pub(super) fn write(gateways: &[Gateway]) -> String {
    let mut page = String::from(HEAD);
    if gateways.is_empty() {
        page.push_str("<p>No gateway has shown itself yet.</p>\n</body></html>\n");
        return page;
    }
    page.push_str(
        "<p>Times are UTC. Lag: how far capture is behind the gateway's database; depth: records that wait there; parked: records that \
         were set aside there.</p>\n<table><tr><th>gateway</th><th>last seen</th><th>lag</th><th>depth</th><th>oldest waits</th>\
         <th>parked</th><th>version</th><th>report</th><th>source id</th><th></th></tr>\n",
    );
    for gateway in gateways {
        let label = gateway.name.as_deref().or(gateway.hostname.as_deref()).unwrap_or("(unnamed)");
        let text = |text: &Option<String>| escaped(text.as_deref().unwrap_or("\u{2013}"));
        let number = |number: Option<i64>| number.map_or_else(|| "\u{2013}".to_owned(), |number| number.to_string());
        let seconds = |seconds: Option<i64>| seconds.map_or_else(|| "\u{2013}".to_owned(), span);
        // Writing to a String does not fail.
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(label),
            text(&gateway.seen),
            seconds(gateway.lag_seconds),
            number(gateway.depth),
            seconds(gateway.oldest_age_seconds),
            number(gateway.parked),
            text(&gateway.version),
            text(&gateway.told),
            escaped(&gateway.source),
            gateway.collided.as_deref().map_or_else(String::new, shared),
        );
    }
    page.push_str("</table>\n</body></html>\n");
    page
}

/// What is said of a source id that two machines use.
fn shared(at: &str) -> String {
    format!(
        "two machines send under this source id, as clones of one image do (last noted {}): take the data_dir of one of them away",
        escaped(at)
    )
}

fn span(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() => out.push('\u{fffd}'),
            letter => out.push(letter),
        }
    }
    out
}
