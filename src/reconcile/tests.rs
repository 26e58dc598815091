use super::*;

fn difference(hour: i64, missing: u64, surplus: u64) -> Difference {
    let stream = Stream::Reading;
    Difference { stream, node: 1, from: hour, to: hour + 1, source: 12, there: 12 + surplus - missing, missing, surplus }
}

#[test]
fn neighbouring_hours_are_told_as_one_range_and_equal_ones_not_at_all() {
    let mut report = Report::default();
    for each in [difference(1, 2, 0), difference(2, 1, 3), difference(3, 0, 0), difference(4, 1, 0)] {
        report.add(each);
    }
    let whole = Difference { to: 3, source: 24, there: 24, missing: 3, surplus: 3, ..difference(1, 0, 0) };
    assert_eq!(report.differences, [whole, difference(4, 1, 0)]);
    assert_eq!((report.streams[0].missing, report.streams[0].surplus), (4, 3));
}

#[test]
fn it_is_mended_when_all_that_is_missing_is_queued_and_nothing_is_surplus() {
    let mut report = Report::default();
    assert!(report.is_mended());
    report.add(difference(1, 2, 0));
    assert!(!report.is_mended());
    report.totals(Stream::Reading).queued = 2;
    assert!(report.is_mended());
    report.add(difference(3, 0, 1));
    assert!(!report.is_mended());
}

fn options() -> Options {
    let pause = Duration::from_secs(1);
    Options { since: None, purpose: Purpose::Look, outbox_bytes_max: 0, disk_reserve_bytes: 0, pause, clock: || Micros(0) }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_again_a_few_times_and_a_wrong_one_is_not() {
    for (verdict, tries) in [(Verdict::Unknown, 3), (Verdict::NotStored, 3), (Verdict::Misconfigured, 1), (Verdict::Refused, 1)] {
        let asked = std::cell::Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            Err::<(), _>(Outcome::new(verdict, "scripted"))
        };
        assert!(
            matches!(answered(&options(), ask).await, Err(ReconcileError::Destination(outcome)) if outcome.verdict == verdict)
        );
        assert_eq!(asked.get(), tries, "{verdict}");
    }
    let asked = std::cell::Cell::new(0);
    let second = async || {
        asked.set(asked.get() + 1);
        if asked.get() < 2 { Err(Outcome::new(Verdict::Unknown, "lost")) } else { Ok(7) }
    };
    assert_eq!(answered(&options(), second).await.unwrap(), 7);
}
