//! Late rows and wrong clocks, in virtual time.

use std::{collections::BTreeMap, fmt::Write as _};

use super::*;

const HOUR: i64 = 3_600;

/// Each reading's second, node and type, with how often it entered as new and how often as a repeat.
async fn entered(outbox: &Outbox) -> BTreeMap<(i64, i64, i64), (u32, u32)> {
    let mut found = BTreeMap::new();
    let mut from = outbox.snapshot().stream(Stream::Reading).cursor;
    while let Some(batch) = outbox.lease(Stream::Reading, from, usize::MAX).await.unwrap() {
        for row in 0..batch.rows.len() {
            let at = |column| batch.rows.int(column, row).unwrap();
            let times: &mut (u32, u32) = found.entry((at(0) / 1_000_000, at(1), at(2))).or_default();
            match batch.freshness {
                Freshness::New => times.0 += 1,
                Freshness::Repeat => times.1 += 1,
            }
        }
        from = batch.end();
    }
    found
}

/// Everything entered, and as new not more than once.
async fn assert_all_entered(outbox: &Outbox, source: &Scripted) -> BTreeMap<(i64, i64, i64), (u32, u32)> {
    let entered = entered(outbox).await;
    for row in &source.readings {
        assert!(entered.contains_key(&(row.0, row.1, row.2)), "{row:?} is missing");
    }
    assert!(entered.values().all(|(new, _)| *new <= 1), "a row entered as new twice: {entered:?}");
    entered
}

/// A reading every ten minutes, from one time up to another.
fn every_ten_minutes(from: i64, to: i64) -> impl Iterator<Item = Reading> {
    (from..to).step_by(600).map(|second| (second, 1, 0, None))
}

#[tokio::test(start_paused = true)]
async fn a_late_row_enters_alone_and_as_new() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 900 * 24 * HOUR, NOW).step_by(72).collect());
    source.states = (1..=3_000).filter(|id| id % 100 != 0).collect();
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    for ago in [5, 3 * HOUR, 20 * 24 * HOUR, 365 * 24 * HOUR, 890 * 24 * HOUR] {
        source.readings.push((NOW - ago - 1, 1, 0, None));
    }
    source.states.push(100);
    let late_options = Options { clock: || Micros((NOW + 8 * 24 * HOUR) * 1_000_000), ..options() };
    catch_up(&mut source, &outbox, &late_options).await.unwrap();
    let entered = assert_all_entered(&outbox, &source).await;
    assert!(entered.values().all(|times| *times == (1, 0)), "each once, and as new");
    assert_eq!(outbox.snapshot().stream(Stream::NodeState).next.0, source.states.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_loses_nothing_and_says_of_repeats_that_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 10 * HOUR, NOW).collect());
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    for back in [2 * HOUR, 50 * HOUR, 90 * 24 * HOUR] {
        source.clock = -back;
        source.began = Instant::now();
        let next = NOW - back;
        source.readings.extend(every_ten_minutes(next + 7, next + 60));
        catch_up(&mut source, &outbox, &options()).await.unwrap();
        let watermark = outbox.snapshot().stream(Stream::Reading).watermark.clone();
        assert!(!watermark.is_after(&Position::Key { time: Micros((next + 120) * 1_000_000), rest: vec![9, 9] }), "{watermark}");
        // Time goes on, and passes what was captured before.
        for hours in 1..4 {
            source.clock = hours * HOUR - back;
            source.readings.push((next + hours * HOUR - 30, 2, 0, None));
            source.readings.sort_unstable();
            catch_up(&mut source, &outbox, &options()).await.unwrap();
        }
        assert_all_entered(&outbox, &source).await;
    }
}

/// Polls for so long, as the daemon does.
async fn go_on(source: &mut Scripted, outbox: &Outbox, time: Duration) {
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    let timer = tokio::spawn(async move {
        sleep(time).await;
        stopper.cancel();
    });
    let options = Options { poll_interval: (time / 200).max(options().poll_interval), ..options() };
    run(source, outbox, &options, Until::Stopped, retry(), &stop).await.unwrap();
    timer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_counted_by_the_day_or_the_month_stays_known_when_the_clock_goes_back_before_it_and_comes_again() {
    for ago in [100, 700] {
        let dir = tempfile::tempdir().unwrap();
        let outbox = outbox(dir.path());
        let begin = NOW - ago * 24 * HOUR;
        // Not in the first hour of its day, nor on the first day of its month.
        let old = every_ten_minutes(begin - begin % (720 * HOUR) + 255 * HOUR, begin - begin % (720 * HOUR) + 257 * HOUR);
        let mut source = Scripted::new(old.chain(every_ten_minutes(NOW - HOUR, NOW)).collect());
        catch_up(&mut source, &outbox, &options()).await.unwrap();
        let widest = outbox.ledger(Side::Behind, Stream::Reading, i64::MIN, 9).await.unwrap()[0].unit;
        assert_eq!(widest, if ago == 100 { 24 } else { 720 });
        // It comes again at any moment, also in the middle of the audit of what lies ahead.
        for (back, seconds) in [(ago + 100, 5), (0, 60), (ago + 40, 15), (0, 5), (ago + 40, 7_200), (0, 7_200)] {
            source.clock = -back * 24 * HOUR;
            source.began = Instant::now();
            go_on(&mut source, &outbox, Duration::from_secs(seconds)).await;
            let entered = assert_all_entered(&outbox, &source).await;
            assert!(entered.values().all(|(new, _)| *new == 1), "{entered:?}");
        }
    }
}

/// One random play: the clock jumps to anywhere again and again, rows come with its time or with the true one, and polls go on between for seconds or
/// for hours.
async fn play_with_the_clock(seed: u64) {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    let mut chance = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 2 * HOUR, NOW).collect());
    let offsets = [
        0,
        0,
        0,
        90,
        -90,
        40 * 60,
        -3 * HOUR,
        30 * HOUR,
        -50 * HOUR,
        -40 * 24 * HOUR,
        70 * 24 * HOUR,
        -500 * 24 * HOUR,
        900 * 24 * HOUR,
    ];
    let mut play = format!("seed {seed}:");
    for _ in 0..chance.random_range(4..14) {
        if chance.random_bool(0.6) {
            source.clock = offsets[chance.random_range(0..offsets.len())];
            source.began = Instant::now();
        }
        let now = NOW + source.clock + source.began.elapsed().as_secs() as i64;
        let at = if chance.random_bool(0.8) { now } else { NOW - chance.random_range(0..50) * HOUR };
        let node = chance.random_range(1..3);
        let steps = chance.random_range(0..8);
        source.readings.extend((0..steps).map(|step| (at - step * 20, node, 0, None)));
        source.readings.sort_unstable();
        source.readings.dedup();
        let seconds = if chance.random_bool(0.7) { chance.random_range(1..40) } else { chance.random_range(60..30_000) };
        let _ = write!(play, " clock {:+} s, {steps} rows at {:+} s, {seconds} s;", source.clock, at - NOW);
        go_on(&mut source, &outbox, Duration::from_secs(seconds)).await;
        let entered = entered(&outbox).await;
        assert!(entered.values().all(|(new, _)| *new <= 1), "a row entered as new twice: {play} {entered:?}");
    }
    // The clock stays right, and a day later everything is there.
    source.clock = 0;
    source.began = Instant::now();
    go_on(&mut source, &outbox, Duration::from_hours(26)).await;
    let entered = assert_all_entered(&outbox, &source).await;
    assert!(entered.values().all(|(_, repeats)| *repeats <= 60), "{play} {entered:?}");
}

#[tokio::test(start_paused = true)]
async fn random_plays_with_the_clock_lose_nothing_and_take_nothing_for_new_twice() {
    let plays = if std::env::var_os("PACKHORSE_LONG").is_some() { 2_000 } else { 12 };
    for seed in 0..plays {
        play_with_the_clock(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_come_in_behind_a_watermark_that_a_wrong_clock_carried_far_ahead_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 10 * HOUR, NOW).collect());
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let years = 5 * 365 * 24 * HOUR;
    source.readings.push((NOW + years - HOUR, 1, 0, None));
    source.clock = years;
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    // The nodes' own time was right all the while.
    for hours in 0..6 {
        source.readings.extend(every_ten_minutes(NOW + hours * HOUR, NOW + (hours + 1) * HOUR));
        source.readings.sort_unstable();
        catch_up(&mut source, &outbox, &options()).await.unwrap();
        assert_all_entered(&outbox, &source).await;
    }
    // The clock is put right.
    source.clock = 6 * HOUR;
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    source.clock = 8 * HOUR;
    source.readings.extend(every_ten_minutes(NOW + 6 * HOUR, NOW + 8 * HOUR));
    source.readings.sort_unstable();
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let entered = assert_all_entered(&outbox, &source).await;
    let of_last_hour =
        entered.iter().filter(|(key, times)| key.0 >= NOW + 7 * HOUR && key.0 < NOW + 8 * HOUR && **times == (1, 0));
    assert_eq!(of_last_hour.count(), 6, "as new again, after the hour in which it went back: {entered:?}");
}

#[tokio::test(start_paused = true)]
async fn rows_of_the_future_are_captured_by_the_audit_and_repeated_when_their_time_comes() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 2 * HOUR, NOW + 30 * HOUR).collect());
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let all = source.readings.len();
    let seen = entered(&outbox).await.len();
    assert!(seen > all - 12 && seen <= all, "all but what lies ahead in this hour: {seen} of {all}");
    assert!(
        !outbox
            .snapshot()
            .stream(Stream::Reading)
            .watermark
            .is_after(&Position::Key { time: Micros((NOW + 60) * 1_000_000), rest: vec![9, 9] })
    );
    for hours in 1..=31 {
        source.clock = hours * HOUR;
        catch_up(&mut source, &outbox, &options()).await.unwrap();
    }
    let entered = assert_all_entered(&outbox, &source).await;
    assert!(entered.values().all(|(new, repeats)| new + repeats <= 2), "{entered:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_there_when_a_lost_store_was_replaced_is_repeated_and_what_comes_later_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 10 * HOUR, NOW).collect());
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    let state = LedgerState { repeats: Repeats::All, floor: None, ..outbox.snapshot().ledger(Stream::Reading).clone() };
    outbox.set_ledger(Stream::Reading, state).await.unwrap();
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    source.clock = HOUR;
    source.readings.extend(every_ten_minutes(NOW, NOW + HOUR));
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let entered = assert_all_entered(&outbox, &source).await;
    assert!(entered.iter().all(|(key, times)| *times == if key.0 < NOW { (0, 1) } else { (1, 0) }), "{entered:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_row_that_an_operator_let_be_captured_again_before_it_was_found_is_found_as_a_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 10 * HOUR, NOW).collect());
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let late = (NOW - 3 * HOUR + 1, 1, 0, None);
    let before = source.readings.clone();
    source.readings.push(late);
    source.readings.sort_unstable();
    // All that is behind the watermark, as a rewind does it.
    let request = PageRequest { stream: Stream::Reading, after: Position::Start, before: None, limit: 10_000 };
    let page = source.page(&request).await.unwrap();
    let behind = (0..page.len())
        .take_while(|row| !page.key_position(*row).unwrap().is_after(&outbox.snapshot().stream(Stream::Reading).watermark))
        .count();
    let (rows, ledger) =
        (page.slice(0, behind), outbox.ledger(Side::Behind, Stream::Reading, i64::MIN, usize::MAX).await.unwrap());
    assert!(outbox.append_again(rows, Vec::new(), outbox.snapshot().meta.generation, Micros(0)).await.unwrap());
    let counted = outbox.ledger(Side::Behind, Stream::Reading, i64::MIN, usize::MAX).await.unwrap();
    assert_eq!(counted, ledger, "nothing is counted twice");
    // What was looked at before is written after: it takes nothing back.
    let state = LedgerState { repeats: Repeats::None, ..outbox.snapshot().ledger(Stream::Reading).clone() };
    outbox.set_ledger(Stream::Reading, state).await.unwrap();
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let entered = assert_all_entered(&outbox, &source).await;
    assert_eq!(entered[&(late.0, late.1, late.2)], (0, 2), "{entered:?}");
    assert!(before.iter().all(|row| entered[&(row.0, row.1, row.2)].0 == 1), "the others are new once: {entered:?}");
    // What comes later is new.
    source.clock = HOUR;
    source.readings.extend(every_ten_minutes(NOW + 1, NOW + HOUR));
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    assert_eq!(assert_all_entered(&outbox, &source).await[&(NOW + 1, 1, 0)], (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_replaced_while_a_poll_lasts_for_hours_is_noticed_before_any_of_its_rows_enters() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new(every_ten_minutes(NOW - 400 * HOUR, NOW).collect());
    source.page_takes = Duration::from_secs(10);
    // Its rows lie between those that were, and go on for as long.
    let other = every_ten_minutes(NOW - 400 * HOUR + 300, NOW).collect();
    source.replaced = Some((Duration::from_secs(400), other));
    let drain = async {
        let (mut sent, mut before) = (0, 0);
        loop {
            let snapshot = outbox.snapshot();
            let state = snapshot.stream(Stream::Reading).clone();
            if snapshot.meta.generation.0 > 0 {
                return (before, sent);
            }
            match outbox.lease(Stream::Reading, state.cursor, usize::MAX).await.unwrap() {
                Some(batch) => {
                    sent += batch.rows.len();
                    before += (0..batch.rows.len())
                        .filter(|row| batch.rows.int(0, *row).unwrap() / 1_000_000 % 600 == (NOW + 300) % 600)
                        .count();
                    outbox.settle(batch, Vec::new(), None, Micros(0)).await.unwrap();
                }
                None => sleep(Duration::from_secs(1)).await,
            }
        }
    };
    let stop = CancellationToken::new();
    let options = options();
    let running = run(&mut source, &outbox, &options, Until::Stopped, retry(), &stop);
    let (of_other, sent) = tokio::select! {
        counted = drain => counted,
        ended = running => panic!("{:?}", ended.map(|_| ())),
    };
    assert!(sent > 7 * 5, "{sent}");
    assert_eq!(of_other, 0, "rows of the other database entered as rows of the old one");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_replaced_between_the_look_at_it_and_the_reading_of_its_catalog_brings_no_entity_into_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = outbox(dir.path());
    let mut source = Scripted::new((0..50).map(|row| (NOW - 36_000 + row * 600, 1, 0, Some(4))).collect());
    catch_up(&mut source, &outbox, &options()).await.unwrap();
    let house = of(EntityKind::House, 3);
    let captured = outbox.snapshot().catalog.get(&house).cloned();
    assert!(captured.is_some());
    // Its house has the same id, and another address.
    let other = Entity::House(House { deployment: None, address: Some("7 Harbour Road".into()), start: None, end: None });
    let reads = source.catalog_reads + 1;
    source.later = Some((reads, house, other));
    source.replaced_at_read = Some((reads, every_ten_minutes(NOW - 400 * HOUR + 300, NOW).collect()));
    go_on(&mut source, &outbox, Duration::from_mins(10)).await;
    assert!(source.replaced_at_read.is_none(), "it was replaced");
    let snapshot = outbox.snapshot();
    // Rows wait, which need what the old one said.
    assert_eq!((snapshot.meta.generation.0, snapshot.catalog.get(&house).cloned()), (0, captured));
}
