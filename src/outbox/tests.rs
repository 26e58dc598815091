use super::*;
use crate::domain::{Column, EntityKind, Node, RemoteId, SourceId};

mod lost;

const AT: Micros = Micros(1_700_000_000_000_000);

fn options() -> OpenOptions {
    OpenOptions { destination: "here".into(), source: SourceId(9), epoch: Epoch(77) }
}

fn open(dir: &Path) -> Outbox {
    Outbox::open(dir, &options()).unwrap()
}

/// Readings whose value is their number, of node `number % 3`.
fn readings(numbers: std::ops::Range<i64>) -> Rows {
    let int = |value: &dyn Fn(i64) -> Option<i64>| Column::Int(numbers.clone().map(value).collect());
    let location = |number: i64| (number % 2 == 0).then_some(4);
    Rows::new(
        Stream::Reading,
        vec![
            int(&|number| Some(number * 1_000_000)),
            int(&|number| Some(number % 3)),
            int(&|_| Some(0)),
            int(&location),
            Column::Float(numbers.clone().map(|number| Some(number as f32)).collect()),
        ],
    )
}

fn captured(numbers: std::ops::Range<i64>) -> Captured {
    let watermark = Position::Key { time: Micros(numbers.end * 1_000_000), rest: vec![0, 0] };
    Captured { rows: readings(numbers), watermark, catalog: Vec::new(), freshness: Freshness::New, at: AT }
}

async fn lease(outbox: &Outbox, rows_max: usize) -> Option<Batch> {
    let cursor = outbox.snapshot().stream(Stream::Reading).cursor;
    outbox.lease(Stream::Reading, cursor, rows_max).await.unwrap()
}

fn node(id: i64) -> LocalRef {
    LocalRef { kind: EntityKind::Node, id: LocalId(id) }
}

fn balance(state: &StreamState) {
    assert_eq!(state.next.0, state.pending() + state.acked + state.parked_ever, "I5: {state:?}");
}

#[tokio::test]
async fn what_was_appended_is_there_after_reopening_with_its_watermark() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..5_000)).await.unwrap();
    let before = outbox.snapshot();
    drop(outbox);
    let outbox = open(dir.path());
    assert_eq!(outbox.snapshot().streams, before.streams);
    assert_eq!(lease(&outbox, 10_000).await.unwrap().rows, readings(0..5_000));
}

#[tokio::test]
async fn an_outbox_keeps_its_epoch_for_life() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let other = OpenOptions { epoch: Epoch(5), ..options() };
    assert_eq!(Outbox::open(dir.path(), &other).unwrap().snapshot().meta.epoch, Epoch(77));
}

#[tokio::test]
async fn settled_records_go_and_their_chunks_with_them_when_the_cursor_has_passed() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..10_000)).await.unwrap();
    let mut expected = 0;
    while let Some(batch) = lease(&outbox, 777).await {
        assert_eq!(batch.first, Seq(expected));
        assert_eq!(batch.rows, readings(expected as i64..(expected as i64 + batch.rows.len() as i64)));
        expected = batch.end().0;
        outbox.settle(batch, Vec::new(), None, AT).await.unwrap();
        balance(outbox.snapshot().stream(Stream::Reading));
    }
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    assert_eq!((expected, state.acked, state.pending(), state.live_bytes), (10_000, 10_000, 0, 0));
}

#[tokio::test]
async fn the_cursor_may_stand_within_a_chunk_across_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..100)).await.unwrap();
    let batch = lease(&outbox, 37).await.unwrap();
    outbox.settle(batch, Vec::new(), None, AT).await.unwrap();
    drop(outbox);
    let outbox = open(dir.path());
    let batch = lease(&outbox, 1_000).await.unwrap();
    assert_eq!((batch.first, batch.rows), (Seq(37), readings(37..100)));
}

#[tokio::test]
async fn a_batch_dropped_unsettled_is_leased_again() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..10)).await.unwrap();
    let first = lease(&outbox, 10).await.unwrap();
    assert_eq!(lease(&outbox, 10).await.unwrap(), first);
}

#[tokio::test]
async fn the_intent_of_the_next_request_survives_with_the_ack_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..100)).await.unwrap();
    let batch = lease(&outbox, 40).await.unwrap();
    let next = outbox.lease(Stream::Reading, batch.end(), 40).await.unwrap().unwrap().intent(Extent::Whole);
    outbox.settle(batch, Vec::new(), Some(next), AT).await.unwrap();
    drop(outbox);
    let intent = Intent { stream: Stream::Reading, first: Seq(40), end: Seq(80), extent: Extent::Whole };
    assert_eq!(open(dir.path()).snapshot().intents, [Some(intent), None]);
}

#[tokio::test]
async fn each_stream_keeps_its_own_intent() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..100)).await.unwrap();
    let states = Intent { stream: Stream::NodeState, first: Seq(0), end: Seq(9), extent: Extent::Parts };
    outbox.intend(states).await.unwrap();
    let batch = lease(&outbox, 40).await.unwrap();
    outbox.intend(batch.intent(Extent::Whole)).await.unwrap();
    outbox.settle(batch, Vec::new(), None, AT).await.unwrap();
    drop(outbox);
    assert_eq!(open(dir.path()).snapshot().intents, [None, Some(states)]);
}

#[tokio::test]
async fn held_rows_return_at_the_tail_once_and_survive_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..9_000)).await.unwrap();
    let batch = lease(&outbox, 9_000).await.unwrap();
    let held: Vec<usize> = (0..9_000).filter(|row| row % 3 == 1).collect();
    let expected = batch.rows.pick(&held);
    let aside = vec![SetAside { reason: Reason::Held(node(1)), rows: held }];
    outbox.settle(batch, aside, None, AT).await.unwrap();
    drop(outbox);

    let outbox = open(dir.path());
    assert_eq!(outbox.snapshot().held[&node(1)].rows, 3_000);
    assert_eq!(outbox.snapshot().parked(), 3_000);
    assert_eq!(outbox.return_held(node(2)).await.unwrap(), 0);
    assert_eq!(outbox.return_held(node(1)).await.unwrap(), 3_000);
    assert_eq!(outbox.return_held(node(1)).await.unwrap(), 0);
    let batch = lease(&outbox, 10_000).await.unwrap();
    assert_eq!((batch.first, &batch.rows), (Seq(9_000), &expected));
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    balance(&state);
    assert_eq!((state.parked_now(), state.parked_ever, state.acked), (0, 3_000, 6_000));
    assert!(outbox.snapshot().held.is_empty());
}

#[tokio::test]
async fn a_trickle_of_held_rows_shares_chunks_in_its_order_and_returns_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    for number in 0..600 {
        outbox.append(captured(number..number + 1)).await.unwrap();
        let batch = lease(&outbox, 1).await.unwrap();
        let aside = vec![SetAside { reason: Reason::Held(node(number % 2)), rows: vec![0] }];
        outbox.settle(batch, aside, None, AT).await.unwrap();
    }
    let held = outbox.snapshot().held;
    for held in held.values() {
        assert_eq!(held.rows, 300);
        assert!(held.chunks <= 10, "{held:?}");
    }
    let bytes: u64 = held.values().map(|held| held.bytes).sum();
    drop(outbox);
    let outbox = open(dir.path());
    assert_eq!(outbox.snapshot().held, held, "counted alike when it is opened");
    assert!(bytes < 600 * 16, "{bytes} bytes for 600 rows");
    for even in [0, 1] {
        assert_eq!(outbox.return_held(node(even)).await.unwrap(), 300);
    }
    let mut returned = Rows::empty(Stream::Reading);
    while let Some(batch) = lease(&outbox, 1_000).await {
        returned.extend(batch.rows.clone());
        outbox.settle(batch, Vec::new(), None, AT).await.unwrap();
    }
    let numbers: Vec<i64> = (0..600).step_by(2).chain((0..600).skip(1).step_by(2)).collect();
    assert_eq!((0..600).map(|row| returned.int(0, row).unwrap() / 1_000_000).collect::<Vec<_>>(), numbers);
    assert!(outbox.snapshot().held.is_empty());
    balance(outbox.snapshot().stream(Stream::Reading));
}

#[tokio::test]
async fn refused_rows_stay_with_a_shortened_reason() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..10)).await.unwrap();
    let batch = lease(&outbox, 10).await.unwrap();
    let aside = vec![SetAside { reason: Reason::Refused("ü".repeat(4_000)), rows: vec![3, 4] }];
    outbox.settle(batch, aside, None, AT).await.unwrap();
    drop(outbox);
    let parked = open(dir.path()).parked(10).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0].rows, readings(3..5));
    assert!(
        matches!(&parked[0].parked.reason, Reason::Refused(why) if why.len() <= format::REASON_BYTES_MAX && why.starts_with('ü'))
    );
}

#[tokio::test]
async fn parked_chunks_are_paged_through_held_ones_first_and_each_once() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..12)).await.unwrap();
    let batch = lease(&outbox, 12).await.unwrap();
    let reasons = [Reason::Refused("no".into()), Reason::Held(node(2)), Reason::Held(node(1)), Reason::Refused("no".into())];
    let aside =
        reasons.into_iter().zip([0, 3, 6, 9]).map(|(reason, row)| SetAside { reason, rows: vec![row, row + 1] }).collect();
    outbox.settle(batch, aside, None, AT).await.unwrap();
    let all = outbox.parked(10).await.unwrap();
    assert_eq!(all.len(), 4);
    for chunks_max in 1..6 {
        let (mut paged, mut cursor) = (Vec::new(), Some(ParkedCursor::default()));
        while let Some(from) = cursor {
            let (page, next) = outbox.parked_page(from, chunks_max).await.unwrap();
            assert!(page.len() <= chunks_max);
            paged.extend(page);
            cursor = next;
        }
        assert_eq!(paged, all, "{chunks_max} at a time");
    }
}

#[tokio::test]
async fn catalog_and_mappings_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    let entity = Entity::Node(Node { location: Some(LocalId(4)), node_type: None });
    outbox.append(Captured { catalog: vec![(node(-3), entity.clone())], ..captured(0..1) }).await.unwrap();
    let intent = CreateIntent { what: node(-3), patience_ms: 7_000 };
    outbox.intend_create(Some(intent)).await.unwrap();
    drop(outbox);
    let outbox = open(dir.path());
    assert_eq!(outbox.snapshot().create_intent, Some(intent));
    outbox.map(vec![(node(-3), Some(RemoteId(50))), (node(8), Some(RemoteId(8)))]).await.unwrap();
    let brought = Entity::Node(Node { location: Some(RemoteId(40)), node_type: None });
    let both = vec![(node(-3), brought.clone()), (node(8), brought.clone())];
    outbox.map_as(Generation(0), Vec::new(), both).await.unwrap();
    outbox.map(vec![(node(8), None)]).await.unwrap();
    drop(outbox);
    let snapshot = open(dir.path()).snapshot();
    assert_eq!(*snapshot.brought, [(node(-3), brought)].into(), "what is no longer mapped is no longer known as brought");
    assert_eq!(snapshot.catalog[&node(-3)], entity);
    assert_eq!(snapshot.mappings.iter().collect::<Vec<_>>(), [(node(-3), RemoteId(50))]);
    assert_eq!(snapshot.create_intent, None);
}

#[tokio::test]
async fn where_capture_begins_is_decided_once() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.start(Stream::NodeState, Position::Id(5)).await.unwrap();
    outbox.start(Stream::NodeState, Position::Id(900)).await.unwrap();
    assert_eq!(outbox.snapshot().stream(Stream::NodeState).watermark, Position::Id(5));
}

#[tokio::test]
async fn a_lease_sees_nothing_beyond_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    assert_eq!(lease(&outbox, 10).await, None);
    outbox.append(captured(0..10)).await.unwrap();
    assert_eq!(outbox.lease(Stream::Reading, Seq(10), 10).await.unwrap(), None);
}

#[tokio::test]
async fn numbers_of_two_widths_do_not_share_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..10)).await.unwrap();
    let mut columns = readings(10..20).columns().to_vec();
    columns[4] = Column::Double(vec![Some(18.04); 10]);
    outbox.append(Captured { rows: Rows::new(Stream::Reading, columns), ..captured(10..20) }).await.unwrap();
    assert_eq!(lease(&outbox, 100).await.unwrap().rows.len(), 10);
}

#[tokio::test]
#[should_panic(expected = "I5")]
async fn an_ack_out_of_order_is_a_broken_invariant() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..10)).await.unwrap();
    let batch = outbox.lease(Stream::Reading, Seq(5), 3).await.unwrap().unwrap();
    outbox.settle(batch, Vec::new(), None, AT).await.unwrap();
}

#[test]
fn a_second_handle_to_the_same_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    assert!(matches!(Outbox::open(dir.path(), &options()), Err(StoreError::InUse { .. })));
}

#[test]
fn an_outbox_of_another_source_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let other = OpenOptions { source: SourceId(10), ..options() };
    for _ in 0..2 {
        assert!(matches!(Outbox::open(dir.path(), &other), Err(StoreError::Foreign { .. })));
    }
    drop(open(dir.path()));
}

#[test]
fn a_store_of_another_format_version_is_told_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let store = Store::open(&dir.path().join("gen-000001")).unwrap();
    let mut meta = store.get(format::META).unwrap().unwrap();
    meta[0] = 200;
    let mut change = store::Change::default();
    change.put(format::META, meta);
    store.commit(change).unwrap();
    drop(store);
    for _ in 0..2 {
        let error = Outbox::open(dir.path(), &options()).err().unwrap();
        assert!(matches!(error, StoreError::Format { found: 200, .. }), "{error}");
    }
}

/// Where a new epoch begins, when 200 readings were appended, 150 acked of them and one of the acked ones parked at second 40.
async fn damage_and_open(damage: impl FnOnce(&Path)) -> Snapshot {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    outbox.append(captured(0..100)).await.unwrap();
    outbox.append(captured(100..200)).await.unwrap();
    let batch = lease(&outbox, 150).await.unwrap();
    let aside = vec![SetAside { reason: Reason::Refused("no".into()), rows: vec![140] }];
    outbox.settle(batch, aside, None, AT).await.unwrap();
    // A change of mappings brings the sidecar up to date.
    outbox.map_as(Generation(0), vec![(node(8), RemoteId(80))], vec![(node(8), as_brought())]).await.unwrap();
    outbox.append(captured(200..300)).await.unwrap();
    drop(outbox);
    damage(dir.path());
    let reopened = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
    let snapshot = reopened.snapshot();
    drop(reopened);
    let again = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(79), ..options() }).unwrap();
    assert_eq!(again.snapshot().meta.epoch, snapshot.meta.epoch, "what was rebuilt opens");
    snapshot
}

fn as_brought() -> Entity<RemoteId> {
    Entity::Node(Node { location: Some(RemoteId(40)), node_type: None })
}

fn assert_rebuilt(snapshot: &Snapshot) {
    assert_rebuilt_with(snapshot, 0);
}

fn assert_rebuilt_with(snapshot: &Snapshot, parked: u64) {
    assert_eq!(snapshot.meta.epoch, Epoch(78), "a new life");
    let state = snapshot.stream(Stream::Reading);
    balance(state);
    assert_eq!(state.parked_now(), parked, "parked rows that were taken over");
    let before_140 = Position::Key { time: Micros(100 * 1_000_000 - 1), rest: vec![i64::MAX, i64::MAX] };
    assert_eq!((&state.watermark, state.started, state.next), (&before_140, true, Seq(parked)));
    assert_eq!(snapshot.mappings.get(node(8)), Some(RemoteId(80)), "what is known of the destination stays known");
    assert_eq!(snapshot.brought.get(&node(8)), Some(&as_brought()));
}

#[tokio::test]
async fn a_store_that_is_gone_is_rebuilt_from_the_sidecar_and_never_starts_from_now() {
    assert_rebuilt(&damage_and_open(|dir| std::fs::remove_dir_all(dir.join("gen-000001")).unwrap()).await);
}

#[tokio::test]
async fn a_store_that_became_empty_is_set_aside_and_rebuilt() {
    let empty = |dir: &Path| {
        std::fs::remove_dir_all(dir.join("gen-000001")).unwrap();
        drop(Store::open(&dir.join("gen-000001")).unwrap());
    };
    assert_rebuilt(&damage_and_open(empty).await);
}

#[tokio::test]
async fn a_store_with_a_missing_chunk_is_set_aside_and_rebuilt() {
    let lose_a_chunk = |dir: &Path| {
        let store = Store::open(&dir.join("gen-000001")).unwrap();
        let mut change = store::Change::default();
        change.remove(format::chunk_key(Stream::Reading, Seq(200)));
        store.commit(change).unwrap();
    };
    // What was parked lies behind the place where capture begins, and may be gone from the source all the same.
    assert_rebuilt_with(&damage_and_open(lose_a_chunk).await, 1);
}

#[tokio::test]
async fn an_older_store_is_behind_its_sidecar_and_rebuilt() {
    let older = |dir: &Path| {
        let store = Store::open(&dir.join("gen-000001")).unwrap();
        let mut change = store::Change::default();
        change.put(format::stream_key(Stream::Reading), format::to_bytes(&StreamState { started: true, ..StreamState::new() }));
        for first in [0, 100, 200] {
            change.remove(format::chunk_key(Stream::Reading, Seq(first)));
        }
        store.commit(change).unwrap();
    };
    // What was parked since is not known: capture begins before all that was parked, and what is readable is kept all the same.
    assert_rebuilt_with(&damage_and_open(older).await, 1);
}

#[tokio::test]
async fn parked_rows_of_a_damaged_store_go_on_in_the_new_life() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    let entity = Entity::Node(Node { location: Some(LocalId(4)), node_type: None });
    outbox.append(Captured { catalog: vec![(node(1), entity.clone())], ..captured(0..100) }).await.unwrap();
    let batch = lease(&outbox, 100).await.unwrap();
    let aside = vec![
        SetAside { reason: Reason::Held(node(1)), rows: vec![40, 43] },
        SetAside { reason: Reason::Refused("no".into()), rows: vec![41] },
    ];
    outbox.settle(batch, aside, None, AT).await.unwrap();
    outbox.append(captured(100..200)).await.unwrap();
    outbox.map(vec![(node(8), Some(RemoteId(80)))]).await.unwrap();
    let parked = outbox.parked(10).await.unwrap();
    drop(outbox);
    let store = Store::open(&dir.path().join("gen-000001")).unwrap();
    let mut change = store::Change::default();
    change.remove(format::chunk_key(Stream::Reading, Seq(100)));
    store.commit(change).unwrap();
    drop(store);

    let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    let before_100 = Position::Key { time: Micros(100 * 1_000_000 - 1), rest: vec![i64::MAX, i64::MAX] };
    assert_eq!(state.watermark, before_100, "what waited is captured again, what was parked before it is not");
    assert_eq!((state.next, state.cursor, state.parked_ever, state.parked_now()), (Seq(3), Seq(3), 3, 3));
    balance(&state);
    assert_eq!(outbox.parked(10).await.unwrap(), parked);
    assert_eq!(outbox.snapshot().catalog[&node(1)], entity);
    outbox.append(captured(100..200)).await.unwrap();
    assert_eq!(outbox.return_held(node(1)).await.unwrap(), 2);
    balance(outbox.snapshot().stream(Stream::Reading));
    let expected = [readings(100..200), readings(40..41), readings(43..44)];
    let mut from = Seq(3);
    for rows in expected {
        let batch = outbox.lease(Stream::Reading, from, rows.len()).await.unwrap().unwrap();
        assert_eq!(batch.rows, rows);
        from = batch.end();
    }
    drop(outbox);
    let again = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(79), ..options() }).unwrap();
    assert_eq!(again.snapshot().meta.epoch, Epoch(78));
    assert_eq!(again.snapshot().parked(), 1);
}

#[tokio::test]
async fn an_outbox_of_which_only_leftovers_are_there_is_made_anew_from_the_beginning() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    for name in ["CURRENT", "sidecar", "gen-000001/db"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
    assert_eq!((outbox.snapshot().meta.epoch, outbox.snapshot().stream(Stream::Reading).started), (Epoch(78), true));
}

#[tokio::test]
async fn an_outbox_whose_store_and_sidecar_are_gone_does_not_begin_as_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    assert_eq!(outbox.why_full(u64::MAX, 0).await.unwrap(), None);
    drop(outbox);
    for name in ["CURRENT", "sidecar"] {
        std::fs::remove_file(dir.path().join(name)).unwrap();
    }
    std::fs::remove_dir_all(dir.path().join("gen-000001")).unwrap();
    let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
    let state = outbox.snapshot().stream(Stream::Reading).clone();
    assert_eq!((outbox.snapshot().meta.epoch, state.started, state.watermark), (Epoch(78), true, Position::Start));
}

#[tokio::test]
async fn without_a_store_that_opens_and_without_a_sidecar_everything_is_captured_again() {
    let both = |dir: &Path| {
        std::fs::write(dir.join("sidecar"), b"?").unwrap();
        std::fs::remove_dir_all(dir.join("gen-000001")).unwrap();
    };
    let snapshot = damage_and_open(both).await;
    let state = snapshot.stream(Stream::Reading);
    assert_eq!((snapshot.meta.epoch, &state.watermark, state.started), (Epoch(78), &Position::Start, true));
}

#[tokio::test]
async fn rows_from_before_all_that_waited_are_captured_again_too() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    outbox.append(captured(5_000..5_100)).await.unwrap();
    // The sidecar is brought up to date with nothing that waits before second 5,000.
    outbox.map(vec![(node(8), Some(RemoteId(80)))]).await.unwrap();
    outbox.append(Captured { watermark: captured(5_000..5_100).watermark, ..captured(300..310) }).await.unwrap();
    drop(outbox);
    std::fs::remove_dir_all(dir.path().join("gen-000001")).unwrap();
    let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
    let before_300 = Position::Key { time: Micros(300 * 1_000_000 - 1), rest: vec![i64::MAX, i64::MAX] };
    assert_eq!(outbox.snapshot().stream(Stream::Reading).watermark, before_300);
}

#[tokio::test]
async fn what_is_set_aside_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    std::fs::write(dir.path().join("gen-000001/db"), vec![0xa5; 600_000]).unwrap();
    drop(Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap());
    let kept: Vec<_> = std::fs::read_dir(dir.path().join("aside")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    assert!(kept[0].join("db").exists());
}

#[tokio::test]
async fn a_crash_between_the_first_commit_and_current_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..10)).await.unwrap();
    drop(outbox);
    std::fs::remove_file(dir.path().join("CURRENT")).unwrap();
    assert_eq!(open(dir.path()).snapshot().pending(), 10);
}

#[test]
fn a_crash_before_the_first_commit_is_started_over() {
    let dir = tempfile::tempdir().unwrap();
    let making = dir.path().join("gen-000001.making");
    drop(Store::open(&making).unwrap());
    std::fs::write(making.join("conf"), b"half of it").unwrap();
    drop(open(dir.path()));
    assert!(!making.exists());
    drop(open(dir.path()));
}

#[tokio::test]
async fn leftovers_and_damage_of_sled_snapshots_are_cleared_and_every_row_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..5_000)).await.unwrap();
    drop(outbox);
    drop(open(dir.path()));
    let store = dir.path().join("gen-000001");
    std::fs::write(store.join("snap.0000000000000FFF.generating"), b"half").unwrap();
    let mut damaged = 0;
    for entry in std::fs::read_dir(&store).unwrap().map(Result::unwrap) {
        if entry.file_name().to_string_lossy().starts_with("snap.")
            && !entry.file_name().to_string_lossy().ends_with("generating")
        {
            let mut bytes = std::fs::read(entry.path()).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle..].fill(0xa5);
            std::fs::write(entry.path(), bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0, "there is a snapshot to damage");
    assert_eq!(lease(&open(dir.path()), 5_000).await.unwrap().rows, readings(0..5_000));
}

#[tokio::test]
async fn a_snapshot_that_a_running_store_is_writing_is_left_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    let writing = dir.path().join("gen-000001/snap.0000000000000FFF.generating");
    std::fs::write(&writing, b"half").unwrap();
    assert!(matches!(Outbox::open(dir.path(), &options()), Err(StoreError::InUse { .. })));
    assert!(writing.exists());
    drop(outbox);
    drop(open(dir.path()));
    assert!(!writing.exists());
}

#[tokio::test]
async fn new_rows_and_repeats_do_not_share_a_batch_and_stay_what_they_are_when_held() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.append(captured(0..10)).await.unwrap();
    outbox.append(Captured { freshness: Freshness::Repeat, ..captured(10..20) }).await.unwrap();
    let first = outbox.lease(Stream::Reading, Seq(0), 100).await.unwrap().unwrap();
    assert_eq!((first.freshness, first.rows.len()), (Freshness::New, 10));
    outbox.settle(first, Vec::new(), None, AT).await.unwrap();
    let second = outbox.lease(Stream::Reading, Seq(10), 100).await.unwrap().unwrap();
    assert_eq!((second.freshness, second.rows.len()), (Freshness::Repeat, 10));
    let held = SetAside { reason: Reason::Held(node(1)), rows: (0..10).collect() };
    outbox.settle(second, vec![held], None, AT).await.unwrap();
    outbox.return_held(node(1)).await.unwrap();
    let third = outbox.lease(Stream::Reading, Seq(20), 100).await.unwrap().unwrap();
    assert_eq!((third.freshness, third.rows.len()), (Freshness::Repeat, 10));
}

/// Ten readings of node 1 that are held for it, and the entity as it was captured.
async fn held_for_node_1(outbox: &Outbox) -> Entity<LocalId> {
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    let entity = |id: i64| (node(id), Entity::Node(Node { location: None, node_type: None }));
    let rest = [EntityKind::SensorType, EntityKind::Location]
        .map(|kind| LocalRef { kind, id: LocalId(if kind == EntityKind::Location { 4 } else { 0 }) });
    let mut catalog: Vec<_> = (0..3).map(entity).collect();
    // Stand-ins: what counts is that they are equal, or not.
    catalog.extend(rest.map(|what| (what, Entity::Node(Node { location: None, node_type: None }))));
    outbox.append(Captured { catalog, ..captured(300..310) }).await.unwrap();
    let batch = lease(outbox, 100).await.unwrap();
    let held = SetAside { reason: Reason::Held(node(1)), rows: (0..10).collect() };
    outbox.settle(batch, vec![held], None, AT).await.unwrap();
    entity(1).1
}

#[tokio::test]
async fn rows_that_returned_are_captured_again_when_the_store_is_lost_right_after() {
    for by_an_operator in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let outbox = open(dir.path());
        held_for_node_1(&outbox).await;
        outbox.append(captured(5_000..5_010)).await.unwrap();
        // The sidecar says now that nothing waits before second 5,000 but what is parked.
        outbox.map(vec![(node(1), Some(RemoteId(1)))]).await.unwrap();
        assert_eq!(returned(&outbox, by_an_operator).await, 10);
        let tail = outbox.snapshot().stream(Stream::Reading).next;
        drop(outbox);
        let store = Store::open(&dir.path().join("gen-000001")).unwrap();
        let mut change = store::Change::default();
        change.remove(format::chunk_key(Stream::Reading, Seq(tail.0 - 10)));
        store.commit(change).unwrap();
        drop(store);
        let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
        let before_300 = Position::Key { time: Micros(300 * 1_000_000 - 1), rest: vec![i64::MAX, i64::MAX] };
        assert_eq!(outbox.snapshot().stream(Stream::Reading).watermark, before_300, "by an operator: {by_an_operator}");
    }
}

/// Lets all rows return that are held for node 1: because that is mapped, or because an operator wants it.
async fn returned(outbox: &Outbox, by_an_operator: bool) -> u64 {
    if !by_an_operator {
        return outbox.return_held(node(1)).await.unwrap();
    }
    let (chunks, _) = outbox.parked_rows(verbs::ParkedPlace::new(), 10).await.unwrap();
    let picks: Vec<_> = chunks.into_iter().map(|chunk| chunk.pick).collect();
    outbox.take(&picks, verbs::Fate::Return).await.unwrap()
}

#[tokio::test]
async fn held_rows_return_in_another_generation_when_all_that_they_point_to_is_what_it_was() {
    for (is_same, by_an_operator) in [(true, false), (false, false), (true, true), (false, true)] {
        let dir = tempfile::tempdir().unwrap();
        let outbox = open(dir.path());
        held_for_node_1(&outbox).await;
        let before = outbox.snapshot().catalog;
        assert!(outbox.begin_generation([Position::Start, Position::Start]).await.unwrap());
        let mut catalog: Vec<_> = before.iter().map(|(what, entity)| (*what, entity.clone())).collect();
        if !is_same {
            catalog.last_mut().unwrap().1 = Entity::Node(Node { location: Some(LocalId(9)), node_type: None });
        }
        let rows = Rows::empty(Stream::Reading);
        outbox.append(Captured { rows, catalog, ..captured(0..0) }).await.unwrap();
        assert_eq!(returned(&outbox, by_an_operator).await, if is_same { 10 } else { 0 });
        balance(outbox.snapshot().stream(Stream::Reading));
    }
}

#[tokio::test]
async fn what_a_sync_of_an_earlier_generation_finds_out_is_not_taken_for_this_one() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    assert!(outbox.begin_generation([Position::Start, Position::Start]).await.unwrap());
    outbox.map_as(Generation(0), vec![(node(1), RemoteId(10))], Vec::new()).await.unwrap();
    assert!(outbox.snapshot().mappings.is_empty());
    outbox.map_as(Generation(1), vec![(node(1), RemoteId(10))], Vec::new()).await.unwrap();
    assert_eq!(outbox.snapshot().mappings.get(node(1)), Some(RemoteId(10)));
}

#[tokio::test]
async fn where_repeats_are_to_be_expected_a_start_does_not_forget_it() {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    outbox.start_after_another(Stream::NodeState, Position::Id(5)).await.unwrap();
    assert!(
        outbox.append_again(Rows::empty(Stream::NodeState), Vec::new(), outbox.snapshot().meta.generation, AT).await.unwrap()
    );
    assert_eq!(outbox.snapshot().ledger(Stream::NodeState).repeats, Repeats::All);
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    outbox.append(captured(0..10)).await.unwrap();
    assert!(outbox.append_again(captured(0..10).rows, Vec::new(), outbox.snapshot().meta.generation, AT).await.unwrap());
    assert_eq!(outbox.snapshot().ledger(Stream::Reading).repeats, Repeats::UpTo(captured(0..10).watermark));
}
