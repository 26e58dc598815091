//! What the receiver knows of its gateways: the page, the metrics, and whether it is well.

use packhorse::receiver::Manner;
use serde_json::json;

use super::{SOURCE, assert_refused, assert_stored, reading, seeded};

fn report(figures: &serde_json::Value) -> String {
    json!({"hostname": "<b>house & 17</b>", "version": "packhorse \"0.1\"", "localtime": "2026-11-23T18:27:40", "packhorse": figures})
        .to_string()
}

#[test]
fn a_gateway_that_reports_is_on_the_page_with_its_figures_and_its_words_are_no_markup() {
    let central = seeded(Manner::Packhorse);
    assert!(central.get("/").text().contains("No gateway"));
    let headers = [("packhorse-source", SOURCE)];
    let figures = json!({"depth": 4711, "parked": 12, "lag_seconds": 90, "oldest_age_seconds": 3600});
    let answer = central.call("POST", "/rest/pushstatus/", &headers, Some(report(&figures).as_bytes()));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let page = central.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=UTF-8")));
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    for text in [">4711<", ">12<", ">1m 30s<", ">1h<", SOURCE, "&lt;b&gt;house &amp; 17&lt;/b&gt;", "packhorse &quot;0.1&quot;"] {
        assert!(page.text().contains(text), "{text}: {}", page.text());
    }
    assert!(!page.text().contains("<script") && !page.text().contains("http://"));
}

#[test]
fn rows_alone_show_when_a_gateway_was_last_seen() {
    let central = seeded(Manner::Packhorse);
    let headers = [("packhorse-source", SOURCE), ("packhorse-generation", "0")];
    let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0)]).to_string();
    assert_stored(&central.call("POST", "/rest/bulk/", &headers, Some(rows.as_bytes())));
    let seen = central.string("SELECT seen FROM packhorse_gateway");
    assert!(seen.as_str() > "2024" && central.get("/").text().contains(&seen), "{seen}");
}

#[test]
fn figures_that_are_none_are_refused_and_leave_nothing() {
    let central = seeded(Manner::Packhorse);
    let headers = [("packhorse-source", SOURCE)];
    for figures in [json!("many"), json!({"depth": -1, "parked": 0}), json!({"depth": 1.5, "parked": 0}), json!({"parked": 0})] {
        let answer = central.call("POST", "/rest/pushstatus/", &headers, Some(report(&figures).as_bytes()));
        assert_refused(&answer, 400, "packhorse");
    }
    // What the page shows of a report and its row stand or fall together.
    for (key, value) in [("time", "0000-00-00T00:00:00"), ("localtime", "noon"), ("__table__", "House")] {
        let body = json!({"hostname": "h", "version": "v", key: value, "packhorse": {"depth": 1, "parked": 0}}).to_string();
        let answer = central.call("POST", "/rest/pushstatus/", &headers, Some(body.as_bytes()));
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    }
    let stranger = [("packhorse-source", "me")];
    assert_refused(&central.call("POST", "/rest/pushstatus/", &stranger, Some(b"{}")), 400, "packhorse-source");
    assert_eq!(central.number("SELECT count(*) FROM Pushstatus"), 0);
    assert_eq!(central.number("SELECT count(*) FROM packhorse_gateway"), 0);
}

#[test]
fn the_metrics_count_requests_rows_and_gateways() {
    let central = seeded(Manner::Packhorse);
    let run = [
        ("packhorse-source", SOURCE),
        ("packhorse-generation", "0"),
        ("packhorse-epoch", "00000000000000aa"),
        ("packhorse-stream", "reading"),
        ("packhorse-first", "0"),
        ("packhorse-end", "2"),
        ("packhorse-cursor", "0"),
    ];
    let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0), reading("2013-01-01T00:05:00", 99, 0, 1.0)]).to_string();
    assert_eq!(central.call("POST", "/rest/bulk/", &run, Some(rows.as_bytes())).status, 207);
    let figures = json!({"depth": 5, "parked": 1, "lag_seconds": null});
    central.call("POST", "/rest/pushstatus/", &[("packhorse-source", SOURCE)], Some(report(&figures).as_bytes()));
    let metrics = central.get("/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    for line in [
        "packhorse_receiver_rows_total{fate=\"stored\"} 1".to_owned(),
        "packhorse_receiver_rows_total{fate=\"refused\"} 1".to_owned(),
        "packhorse_receiver_requests_total{method=\"POST\",status=\"207\"} 1".to_owned(),
        format!("packhorse_receiver_gateway_depth{{source=\"{SOURCE}\"}} 5"),
        "# EOF".to_owned(),
    ] {
        assert!(metrics.text().contains(&line), "{line}: {}", metrics.text());
    }
    assert!(!metrics.text().contains("gateway_lag_seconds{"));
}

#[test]
fn it_says_whether_it_is_well() {
    let central = seeded(Manner::Packhorse);
    assert_eq!((central.get("/healthz").status, central.get("/healthz").text()), (200, "ok\n"));
}
