use super::*;

const FRESH: Evidence = Evidence {
    kind: Kind::Bulk,
    refusals: 0,
    breaks: 0,
    accepted: Accepted::Never,
    accepted_smaller: false,
    url_ends_in_rest: true,
};

fn status(code: u16, body: Body) -> Answer {
    Answer::Status(Status { code, body, meets_contract: false, excerpt: String::new(), location: None, retry_after: None })
}

fn success(code: u16) -> Answer {
    Answer::Status(Status {
        code,
        body: Body::Json,
        meets_contract: true,
        excerpt: "[]".into(),
        location: None,
        retry_after: None,
    })
}

fn broken() -> Answer {
    Answer::BrokenAfterSend { detail: "reset".into() }
}

/// The table of docs/wire-contract.md, row by row: what happened, what was known, what it means, and a word of the advice.
fn table() -> Vec<(Answer, Evidence, Verdict, &'static str)> {
    let no = |kind| Answer::NoConnection { kind, detail: "detail".into() };
    let single = Evidence { kind: Kind::SingleRow, ..FRESH };
    let read = Evidence { kind: Kind::Read, ..FRESH };
    let store = Evidence { kind: Kind::Store, ..FRESH };
    vec![
        (success(201), FRESH, Verdict::Accepted, "201"),
        (success(200), read, Verdict::Accepted, "200"),
        (no(NoConnection::Refused), FRESH, Verdict::NotStored, "listens"),
        (no(NoConnection::Dns), FRESH, Verdict::NotStored, "resolved"),
        (no(NoConnection::Tls), FRESH, Verdict::NotStored, "certificate"),
        (no(NoConnection::Unreachable), FRESH, Verdict::NotStored, "link"),
        (no(NoConnection::Timeout), FRESH, Verdict::NotStored, "firewall"),
        (status(421, Body::Json), FRESH, Verdict::NotStored, "by itself"),
        (status(429, Body::Other), FRESH, Verdict::NotStored, "by itself"),
        (status(425, Body::Other), FRESH, Verdict::NotStored, "by itself"),
        (status(503, Body::Html), FRESH, Verdict::NotStored, "by itself"),
        (broken(), FRESH, Verdict::Unknown, "broke"),
        (Answer::TimedOutAfterSend { after: Duration::from_mins(1) }, FRESH, Verdict::Unknown, "60 s"),
        (Answer::Truncated { code: 201, detail: "end".into() }, FRESH, Verdict::Unknown, "cut short"),
        (status(201, Body::Json), FRESH, Verdict::Unknown, "contract"),
        (status(201, Body::Other), FRESH, Verdict::Unknown, "contract"),
        (status(408, Body::Other), FRESH, Verdict::Unknown, "slow"),
        (status(500, Body::Other), FRESH, Verdict::Unknown, "log"),
        (status(500, Body::Json), FRESH, Verdict::Unknown, "log"),
        (status(502, Body::Html), FRESH, Verdict::Unknown, "log"),
        (status(504, Body::Html), FRESH, Verdict::Unknown, "log"),
        (status(507, Body::Other), FRESH, Verdict::Unknown, "log"),
        (status(200, Body::Html), FRESH, Verdict::Misconfigured, "page"),
        (status(201, Body::Html), FRESH, Verdict::Misconfigured, "page"),
        (status(200, Body::Json), FRESH, Verdict::Misconfigured, "url"),
        (status(204, Body::Other), FRESH, Verdict::Misconfigured, "url"),
        (status(200, Body::Other), read, Verdict::Misconfigured, "url"),
        (status(301, Body::Html), FRESH, Verdict::Misconfigured, "redirect"),
        (status(302, Body::Other), FRESH, Verdict::Misconfigured, "redirect"),
        (status(401, Body::Other), FRESH, Verdict::Misconfigured, "token"),
        (status(403, Body::Json), FRESH, Verdict::Misconfigured, "right"),
        (status(404, Body::Json), FRESH, Verdict::Misconfigured, "url"),
        (status(405, Body::Other), FRESH, Verdict::Misconfigured, "url"),
        (status(407, Body::Html), FRESH, Verdict::Misconfigured, "proxy"),
        (status(400, Body::Html), FRESH, Verdict::Misconfigured, "url"),
        (status(511, Body::Html), FRESH, Verdict::Misconfigured, "network"),
        (status(101, Body::Other), FRESH, Verdict::Misconfigured, "url"),
        (Answer::TooLong { code: 200, bytes_max: 65_536 }, FRESH, Verdict::Misconfigured, "65536"),
        (status(413, Body::Html), single, Verdict::Misconfigured, "single"),
        (status(413, Body::Html), FRESH, Verdict::TooLarge, "too large"),
        (broken(), Evidence { breaks: 3, accepted_smaller: true, ..FRESH }, Verdict::TooLarge, "smaller"),
        (broken(), Evidence { breaks: 2, accepted_smaller: true, ..FRESH }, Verdict::Unknown, "broke"),
        (broken(), Evidence { breaks: 9, ..FRESH }, Verdict::Unknown, "broke"),
        (broken(), Evidence { breaks: 9, accepted_smaller: true, ..single }, Verdict::Unknown, "broke"),
        (Answer::RowsLost { detail: "lost".into() }, FRESH, Verdict::NotStored, "captured and sent again"),
        (Answer::RowsRefused { code: 207, detail: "no Node 9".into() }, FRESH, Verdict::Refused, "status 207: no Node 9"),
        (status(400, Body::Other), FRESH, Verdict::Refused, "refuses"),
        (status(409, Body::Json), FRESH, Verdict::Refused, "refuses"),
        (status(422, Body::Json), FRESH, Verdict::Refused, "refuses"),
        (
            status(500, Body::Other),
            Evidence { refusals: 3, accepted: Accepted::Before, ..FRESH },
            Verdict::Refused,
            "accepts others",
        ),
        (
            status(500, Body::Json),
            Evidence { refusals: 2, accepted: Accepted::Since, ..FRESH },
            Verdict::Refused,
            "accepts others",
        ),
        (status(500, Body::Json), Evidence { refusals: 2, accepted: Accepted::Before, ..FRESH }, Verdict::Unknown, "log"),
        (status(500, Body::Json), Evidence { refusals: 99, ..FRESH }, Verdict::Unknown, "log"),
        (status(502, Body::Json), Evidence { refusals: 9, accepted: Accepted::Since, ..FRESH }, Verdict::Unknown, "log"),
        (status(500, Body::Other), store, Verdict::Refused, "error to this request"),
        (status(502, Body::Other), store, Verdict::Unknown, "log"),
    ]
}

#[test]
fn each_row_of_the_table_has_its_verdict_and_its_advice() {
    for (answer, evidence, verdict, word) in table() {
        let outcome = classify(&answer, &evidence);
        assert_eq!(outcome.verdict, verdict, "{answer:?} with {evidence:?}: {outcome}");
        assert!(outcome.advice.contains(word), "{answer:?}: '{word}' is not in '{}'", outcome.advice);
        assert_eq!(outcome.retry_after, None);
    }
}

#[test]
fn only_a_success_that_meets_the_contract_is_accepted() {
    for code in 100..=999 {
        for body in [Body::Json, Body::Html, Body::Other] {
            for kind in [Kind::Read, Kind::Store, Kind::Bulk, Kind::SingleRow] {
                let evidence =
                    Evidence { kind, refusals: 9, breaks: 9, accepted: Accepted::Since, accepted_smaller: true, ..FRESH };
                assert_ne!(classify(&status(code, body), &evidence).verdict, Verdict::Accepted, "{code} {body:?}");
            }
        }
    }
}

#[test]
fn not_stored_is_said_only_of_what_cannot_have_been_read_or_was_turned_away() {
    for code in 100..=999 {
        let is_turned_away = matches!(code, 421 | 425 | 429 | 503);
        assert_eq!(classify(&status(code, Body::Other), &FRESH).verdict == Verdict::NotStored, is_turned_away, "{code}");
    }
}

#[test]
fn a_servers_wish_is_followed_up_to_an_hour() {
    for (wish, followed) in [(Some(7), Some(7)), (Some(999_999), Some(3600)), (None, None)] {
        let mut answer = status(503, Body::Other);
        if let Answer::Status(status) = &mut answer {
            status.retry_after = wish.map(Duration::from_secs);
        }
        assert_eq!(classify(&answer, &FRESH).retry_after, followed.map(Duration::from_secs));
    }
}

#[test]
fn an_address_that_does_not_end_in_rest_is_told() {
    let evidence = Evidence { url_ends_in_rest: false, ..FRESH };
    for answer in [status(200, Body::Html), status(404, Body::Html), status(405, Body::Other)] {
        assert!(classify(&answer, &evidence).advice.contains("ends in /rest/"));
        assert!(!classify(&answer, &FRESH).advice.contains("ends in /rest/"));
    }
}
