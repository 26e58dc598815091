//! Runs of a gateway's outbox: receipts, each row's fate, the highest seq; and what goes wrong between two machines that both keep count.

use packhorse::{receiver::Manner, wire::RunAnswer};
use serde_json::{Value, json};

use super::{
    SOURCE, assert_refused, bulk,
    central::{Answer, Central, zlib},
    reading, readings, seeded, state, states,
};

const OTHER_SOURCE: &str = "fedcba9876543210fedcba9876543210";
const EPOCH: &str = "00000000000000aa";

/// A run of one stream.
#[derive(Clone, Copy)]
struct Sent<'a> {
    taken: Option<&'a str>,
    source: &'a str,
    generation: &'a str,
    epoch: &'a str,
    stream: &'a str,
    first: u64,
    cursor: u64,
}

/// Readings of the usual gateway from a seq on.
fn from(first: u64) -> Sent<'static> {
    Sent { taken: None, source: SOURCE, generation: "0", epoch: EPOCH, stream: "reading", first, cursor: first }
}

fn send(central: &Central, run: Sent<'_>, rows: &Value) -> Answer {
    let end = run.first + rows.as_array().unwrap().len() as u64;
    let (first, end, cursor) = (run.first.to_string(), end.to_string(), run.cursor.to_string());
    let mut headers = vec![
        ("packhorse-source", run.source),
        ("packhorse-generation", run.generation),
        ("packhorse-epoch", run.epoch),
        ("packhorse-stream", run.stream),
        ("packhorse-first", &first),
        ("packhorse-end", &end),
        ("packhorse-cursor", &cursor),
    ];
    headers.extend(run.taken.map(|taken| ("packhorse-taken", taken)));
    central.call("POST", "/rest/bulk/", &headers, Some(&zlib(rows.to_string().as_bytes())))
}

/// Readings of one node, one a minute, from a minute on.
fn minutes(from: u64, count: u64) -> Value {
    (from..from + count).map(|at| reading(&format!("2013-01-01T{:02}:{:02}:00", at / 60, at % 60), 11, 0, at as f64)).collect()
}

fn told(answer: &Answer) -> RunAnswer {
    serde_json::from_slice(&answer.body).unwrap_or_else(|cause| panic!("{cause}: {}", answer.text()))
}

/// A success: how many rows are new, which were there, and the highest seq before.
#[track_caller]
fn assert_took(answer: &Answer, stored: u64, had: &[(u64, u64)], seen: &str) {
    assert_eq!(answer.status, 201, "{}", answer.text());
    let told = told(answer);
    assert_eq!((told.stored, told.had.as_slice(), told.refused.len()), (stored, had, 0));
    assert_eq!(answer.header("packhorse-seen"), Some(seen));
}

fn receipts(central: &Central) -> i64 {
    central.number("SELECT count(*) FROM packhorse_receipt")
}

#[test]
fn an_identical_repeat_is_known_by_its_receipt_and_stores_nothing() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    // What the receipt spares is the look at the rows: with them gone the repeat still counts as stored.
    central.sql("DELETE FROM Reading");
    let repeat = send(&central, from(0), &minutes(0, 5));
    assert_took(&repeat, 0, &[(0, 5)], "4");
    assert!(told(&repeat).repeat);
    assert_eq!(readings(&central), 0);
}

#[test]
fn a_repeat_without_its_receipt_comes_to_the_same_by_the_keys_alone() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    central.sql("DELETE FROM packhorse_receipt");
    let repeat = send(&central, from(0), &minutes(0, 5));
    assert_took(&repeat, 0, &[(0, 5)], "4");
    assert!(!told(&repeat).repeat);
    assert_eq!(readings(&central), 5);
}

#[test]
fn a_deleted_row_that_is_sent_again_is_stored_again() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    assert_eq!(central.call("DELETE", "/rest/reading/?nodeId=11", &[], None).text(), "{\"deleted\":5}");
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "4");
    assert_eq!(readings(&central), 5);
}

#[test]
fn the_same_bounds_with_other_rows_are_not_a_repeat() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    assert_took(&send(&central, from(0), &minutes(100, 5)), 5, &[], "4");
    assert_eq!(readings(&central), 10);
}

#[test]
fn an_overlap_stores_what_is_new_and_tells_what_was_there() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    assert_took(&send(&central, from(3), &minutes(3, 5)), 3, &[(0, 2)], "4");
    assert_eq!(readings(&central), 8);
}

#[test]
fn a_row_that_is_twice_in_one_run_is_stored_once_and_told() {
    let central = seeded(Manner::Packhorse);
    let row = reading("2013-01-01T00:05:00", 11, 0, 1.0);
    assert_took(&send(&central, from(0), &json!([row, row, row])), 1, &[(1, 3)], "none");
    assert_eq!(readings(&central), 1);
}

#[test]
fn a_large_run_with_scattered_repeats_tells_each_of_them() {
    let central = seeded(Manner::Packhorse);
    let all = minutes(0, 1_400);
    let every_seventh: Value = all.as_array().unwrap().iter().step_by(7).cloned().collect();
    assert_took(&send(&central, from(0), &every_seventh), 200, &[], "none");
    let had: Vec<(u64, u64)> = (0..200).map(|at| (at * 7, at * 7 + 1)).collect();
    assert_took(&send(&central, from(200), &all), 1_200, &had, "199");
    assert_eq!(readings(&central), 1_400);
}

#[test]
fn refused_rows_are_told_by_place_and_the_others_are_stored() {
    let central = seeded(Manner::Packhorse);
    let mut nowhere = reading("2013-01-01T00:09:00", 11, 0, 1.0);
    nowhere["locationId"] = json!(999);
    let mut timeless = reading("2013-01-01T00:09:00", 11, 0, 1.0);
    timeless["time"] = Value::Null;
    let rows = json!([
        reading("2013-01-01T00:05:00", 11, 0, 1.0),
        reading("2013-01-01T00:05:00", 99, 0, 1.0),
        reading("2013-01-01T00:06:00", 99, 77, 1.0),
        nowhere,
        reading("2013-01-01T00:06:00+01:00", 11, 0, 1.0),
        timeless,
        reading("2013-01-01T00:06:00", 11, 0, 1.0)
    ]);
    let answer = send(&central, from(0), &rows);
    assert_eq!((answer.status, answer.header("packhorse-receiver")), (207, Some("1")), "{}", answer.text());
    let RunAnswer { stored, had, refused, error, .. } = told(&answer);
    assert_eq!((stored, had.as_slice()), (2, &[][..]));
    let rows_of = |reason: &str| {
        refused.iter().find(|it| it.reason.contains(reason)).unwrap_or_else(|| panic!("{reason}: {refused:?}")).rows.clone()
    };
    assert_eq!(rows_of("no Node 99 here"), [(1, 3)]);
    assert_eq!(rows_of("no SensorType 77 here"), [(2, 3)]);
    assert_eq!(rows_of("no Location 999 here"), [(3, 4)]);
    assert_eq!(rows_of("its time is not one such as"), [(4, 5)]);
    assert_eq!(rows_of("needs its time"), [(5, 6)]);
    assert!(error.unwrap().contains("no Node 99 here (rows 1, 2)"));
    assert_eq!((readings(&central), receipts(&central)), (2, 0));
    // Once the node is there, the same request is stored in full; without it nothing had said that it was.
    central.sql("INSERT INTO Node (id) VALUES (99)");
    let again = send(&central, from(0), &rows);
    assert_eq!((again.status, told(&again).stored, told(&again).had), (207, 1, vec![(0, 1), (6, 7)]));
}

#[test]
fn a_run_of_which_every_row_is_refused_is_422_and_leaves_nothing() {
    let central = seeded(Manner::Packhorse);
    let rows = json!([reading("2013-01-01T00:05:00", 99, 0, 1.0), reading("2013-01-01T00:06:00", 98, 0, 1.0)]);
    let answer = send(&central, from(0), &rows);
    assert_refused(&answer, 422, "no Node 98 here (row 1)");
    assert_eq!(told(&answer).refused.len(), 2);
    assert_eq!(answer.header("packhorse-seen"), Some("none"));
    assert_eq!((readings(&central), central.number("SELECT count(*) FROM packhorse_run")), (0, 0));
}

#[test]
fn a_legacy_client_still_gets_all_or_nothing() {
    let central = seeded(Manner::Packhorse);
    let rows = json!([reading("2013-01-01T00:05:00", 11, 0, 1.0), reading("2013-01-01T00:05:00", 99, 0, 1.0)]);
    assert_refused(&bulk(&central, &rows), 422, "row 1");
    assert_eq!(readings(&central), 0);
}

#[test]
fn a_run_with_a_hole_is_taken_and_so_is_the_held_row_that_comes_later() {
    let central = seeded(Manner::Packhorse);
    // Seqs 0 to 4, of which the third row is held back.
    let mut rows = minutes(0, 5);
    let held = rows.as_array_mut().unwrap().remove(2);
    let (first, end) = ("0", "5");
    let headers = [
        ("packhorse-source", SOURCE),
        ("packhorse-generation", "0"),
        ("packhorse-epoch", EPOCH),
        ("packhorse-stream", "reading"),
        ("packhorse-first", first),
        ("packhorse-end", end),
        ("packhorse-cursor", first),
    ];
    assert_took(&central.call("POST", "/rest/bulk/", &headers, Some(rows.to_string().as_bytes())), 4, &[], "none");
    assert_took(&send(&central, from(5), &minutes(5, 5)), 5, &[], "4");
    // It returned to the tail, under a new seq.
    assert_took(&send(&central, from(10), &json!([held])), 1, &[], "9");
    assert_eq!(readings(&central), 10);
}

#[test]
fn receipts_behind_the_cursor_and_of_earlier_epochs_go() {
    let central = seeded(Manner::Packhorse);
    for at in 0..4 {
        send(&central, Sent { cursor: 0, ..from(at * 5) }, &minutes(at * 5, 5));
    }
    assert_eq!(receipts(&central), 4);
    send(&central, from(20), &minutes(20, 5));
    assert_eq!(receipts(&central), 1);
    send(&central, Sent { stream: "nodestate", ..from(0) }, &json!([state("2013-01-01T00:05:00", 11, None)]));
    assert_eq!(receipts(&central), 2);
    send(&central, Sent { epoch: "00000000000000bb", ..from(0) }, &minutes(30, 5));
    assert_eq!(receipts(&central), 2);
    assert_eq!(central.number("SELECT count(*) FROM packhorse_receipt WHERE epoch = '00000000000000bb'"), 1);
}

/// Both have sent seqs 0 to 4; then each goes on by itself, with the same numbers for other rows.
#[test]
fn two_gateways_cloned_from_one_image_lose_nothing_and_one_of_them_is_told() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    let [one, other] = [11, 12].map(|node| -> Value {
        (5..10).map(|at| reading(&format!("2013-01-01T00:{at:02}:00"), node, 0, f64::from(at))).collect()
    });
    assert_took(&send(&central, from(5), &one), 5, &[], "4");
    // The other's `next` is 10 as well; that 9 was seen already is how it knows.
    assert_took(&send(&central, from(5), &other), 5, &[], "9");
    assert_eq!(readings(&central), 15);

    let states_of = |node: i64| -> Value {
        (1..=3)
            .map(|id| {
                let mut row = state(&format!("2013-01-01T00:0{id}:00"), node, Some(id));
                row["localId"] = json!(id);
                row
            })
            .collect()
    };
    let run = Sent { stream: "nodestate", ..from(0) };
    assert_took(&send(&central, run, &states_of(11)), 3, &[], "none");
    assert_took(&send(&central, run, &states_of(12)), 3, &[], "2");
    assert_eq!(states(&central), 6);
}

#[test]
fn an_older_image_put_back_is_told_the_highest_seq_and_what_it_sends_again_is_known() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 10)), 10, &[], "none");
    // The image is of seq 5; its database has other rows since. Its own next is 8, and 9 was seen.
    assert_took(&send(&central, from(5), &minutes(20, 3)), 3, &[], "9");
    // It begins a new epoch, and captures from its sidecar.
    let new = Sent { epoch: "00000000000000bb", ..from(0) };
    assert_took(&send(&central, new, &minutes(0, 5)), 0, &[(0, 5)], "none");
    assert_took(&send(&central, Sent { first: 5, cursor: 5, ..new }, &minutes(20, 3)), 0, &[(0, 3)], "4");
    assert_eq!(readings(&central), 13);
}

#[test]
fn node_states_that_an_older_image_numbers_anew_are_kept_beside_those_of_the_same_number() {
    let central = seeded(Manner::Packhorse);
    let numbered = |id: i64, minute: i64| {
        let mut row = state(&format!("2013-01-01T00:{minute:02}:00"), 11, Some(minute));
        row["localId"] = json!(id);
        row
    };
    let run = Sent { stream: "nodestate", ..from(0) };
    assert_took(&send(&central, run, &json!([numbered(1, 1), numbered(2, 2), numbered(3, 3)])), 3, &[], "none");
    // The database was put back to before id 2: its next state gets that id. Its generation may be noticed to be another, or not.
    let new = Sent { epoch: "00000000000000bb", ..run };
    assert_took(&send(&central, new, &json!([numbered(1, 1), numbered(2, 12)])), 1, &[(0, 1)], "none");
    let noticed = Sent { epoch: "00000000000000cc", generation: "1", ..run };
    assert_took(&send(&central, noticed, &json!([numbered(1, 1), numbered(2, 12), numbered(3, 13)])), 1, &[(0, 2)], "none");
    assert_eq!(states(&central), 5);
}

#[test]
fn an_old_epoch_is_judged_by_its_keys_and_by_its_own_highest_seq() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    let new = Sent { epoch: "00000000000000bb", ..from(0) };
    assert_took(&send(&central, new, &minutes(0, 8)), 3, &[(0, 5)], "none");
    // Something of the old epoch was on its way for long.
    assert_took(&send(&central, from(3), &minutes(3, 7)), 2, &[(0, 5)], "4");
    assert_took(&send(&central, Sent { first: 8, cursor: 8, ..new }, &minutes(10, 2)), 2, &[], "7");
    assert_eq!(readings(&central), 12);
}

/// The backup is what the database was after seq 4.
#[test]
fn a_receiver_restored_from_a_backup_tells_that_it_has_seen_less_than_it_accepted() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    let highest = central.number("SELECT highest FROM packhorse_run");
    assert_took(&send(&central, from(5), &minutes(5, 5)), 5, &[], "4");
    central.sql(&format!(
        "DELETE FROM Reading WHERE value > 4; UPDATE packhorse_run SET highest = {highest}; DELETE FROM packhorse_receipt WHERE first_seq > 0"
    ));
    // The gateway's cursor is 10, and 4 is the highest that is known: it captures again from there.
    let answer = send(&central, from(10), &minutes(10, 5));
    assert_took(&answer, 5, &[], "4");
    assert_took(&send(&central, from(15), &minutes(4, 11)), 5, &[(0, 1), (6, 11)], "14");
    assert_eq!(readings(&central), 15);
}

/// However often it is asked, and whatever became of the answers, until the client has taken note.
#[test]
fn a_run_of_a_client_that_knows_of_rows_which_are_lost_is_refused_and_stores_nothing() {
    let central = seeded(Manner::Packhorse);
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    assert_took(&send(&central, Sent { taken: Some("4"), ..from(5) }, &minutes(5, 5)), 5, &[], "4");
    central.sql("DELETE FROM Reading WHERE value > 4; UPDATE packhorse_run SET highest = 4; DELETE FROM packhorse_receipt WHERE first_seq > 0");
    for _ in 0..3 {
        let answer = send(&central, Sent { taken: Some("9"), ..from(10) }, &minutes(10, 5));
        assert_eq!(
            (answer.status, answer.header("packhorse-seen"), readings(&central)),
            (412, Some("4"), 5),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains("rows up to seq 9 were stored here"), "{}", answer.text());
    }
    assert_took(&send(&central, from(10), &minutes(10, 5)), 5, &[], "4");
    assert_took(&send(&central, Sent { taken: Some("14"), ..from(15) }, &minutes(5, 5)), 5, &[], "14");
    // Emptied.
    central.sql("DELETE FROM Reading; DELETE FROM packhorse_run; DELETE FROM packhorse_receipt");
    let answer = send(&central, Sent { taken: Some("19"), ..from(20) }, &minutes(20, 5));
    assert_eq!((answer.status, answer.header("packhorse-seen"), readings(&central)), (412, Some("none"), 0));
    assert_refused(&send(&central, Sent { taken: Some("x"), ..from(20) }, &minutes(20, 5)), 400, "packhorse-taken");
}

#[test]
fn an_epoch_that_comes_back_after_another_one_began_is_told_as_two_machines_with_one_id() {
    let central = seeded(Manner::Packhorse);
    let other = Sent { epoch: "00000000000000bb", ..from(0) };
    assert_took(&send(&central, from(0), &minutes(0, 5)), 5, &[], "none");
    // A gateway begins a new epoch: nothing is wrong with that.
    assert_took(&send(&central, other, &minutes(5, 5)), 5, &[], "none");
    assert_took(&send(&central, Sent { first: 5, cursor: 5, ..other }, &minutes(10, 5)), 5, &[], "4");
    assert!(!central.get("/").text().contains("two machines"));
    assert_took(&send(&central, from(5), &minutes(15, 5)), 5, &[], "4");
    let page = central.get("/");
    assert!(page.text().contains("two machines send under this source id"), "{}", page.text());
    assert_eq!(readings(&central), 20);
}

#[test]
fn two_gateways_with_the_same_numbers_do_not_touch_each_others_rows() {
    let central = seeded(Manner::Packhorse);
    let row = |node: i64| {
        let mut row = state("2013-01-01T00:05:00", node, Some(1));
        row["localId"] = json!(1);
        row
    };
    let run = Sent { stream: "nodestate", ..from(0) };
    assert_took(&send(&central, run, &json!([row(11)])), 1, &[], "none");
    // Even the same node at the same second: each gateway heard it.
    let other = Sent { source: OTHER_SOURCE, ..run };
    assert_took(&send(&central, other, &json!([row(11)])), 1, &[], "none");
    assert_took(&send(&central, other, &json!([row(11)])), 0, &[(0, 1)], "0");
    assert_eq!(states(&central), 2);
}

#[test]
fn headers_of_a_run_that_do_not_fit_together_are_refused() {
    let central = seeded(Manner::Packhorse);
    let rows = minutes(0, 1);
    for (run, what) in [
        (Sent { epoch: "xyz", ..from(0) }, "packhorse-epoch"),
        (Sent { stream: "node", ..from(0) }, "packhorse-stream"),
        (Sent { cursor: 5, ..from(0) }, "ascend"),
        (Sent { source: "0", ..from(0) }, "packhorse-source"),
    ] {
        assert_refused(&send(&central, run, &rows), 400, what);
    }
    let only = [("packhorse-epoch", EPOCH)];
    assert_refused(&central.call("POST", "/rest/bulk/", &only, Some(rows.to_string().as_bytes())), 400, "come together");
    assert_eq!(readings(&central), 0);
}
