//! Parked rows after the store is lost altogether.

use super::*;

/// An outbox with rows that were set aside months ago and are gone from the source, some of which have returned; what is parked.
async fn with_rows_that_only_it_has(dir: &Path) -> (Vec<ParkedChunk>, Entity<LocalId>) {
    let outbox = open(dir);
    outbox.start(Stream::Reading, Position::Start).await.unwrap();
    let entity = Entity::Node(Node { location: Some(LocalId(4)), node_type: None });
    outbox.append(Captured { catalog: vec![(node(1), entity.clone())], ..captured(0..100) }).await.unwrap();
    let aside = vec![
        SetAside { reason: Reason::Held(node(1)), rows: vec![40, 43] },
        SetAside { reason: Reason::Held(node(2)), rows: vec![1, 2] },
        SetAside { reason: Reason::Refused("no".into()), rows: vec![41] },
    ];
    outbox.settle(lease(&outbox, 100).await.unwrap(), aside, None, AT).await.unwrap();
    assert_eq!(outbox.return_held(node(2)).await.unwrap(), 2);
    outbox.settle(lease(&outbox, 100).await.unwrap(), Vec::new(), None, AT).await.unwrap();
    outbox.append(captured(100..200)).await.unwrap();
    (outbox.parked(10).await.unwrap(), entity)
}

#[tokio::test]
async fn parked_rows_outlive_a_store_that_sled_cannot_open_at_all() {
    for damage in [
        |db: &Path| std::fs::write(db, vec![0x5a; 100_000]),
        |db: &Path| std::fs::write(db, []),
        |db: &Path| std::fs::remove_file(db),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (parked, entity) = with_rows_that_only_it_has(dir.path()).await;
        damage(&dir.path().join("gen-000001/db")).unwrap();
        let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
        assert_eq!(outbox.snapshot().meta.epoch, Epoch(78));
        assert_eq!(outbox.parked(10).await.unwrap(), parked);
        assert_eq!(outbox.snapshot().catalog[&node(1)], entity, "with what they need");
        balance(outbox.snapshot().stream(Stream::Reading));
        // They may be captured a second time, and so arrive before they return.
        assert_eq!(outbox.return_held(node(1)).await.unwrap(), 2);
        let batch = outbox.lease(Stream::Reading, outbox.snapshot().stream(Stream::Reading).cursor, 10).await.unwrap().unwrap();
        assert_eq!((batch.freshness, batch.rows.len()), (Freshness::Repeat, 2));
        drop(outbox);
        // The next loss finds them as well.
        std::fs::write(dir.path().join("gen-000002/db"), vec![0x5a; 100_000]).unwrap();
        let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(79), ..options() }).unwrap();
        assert_eq!((outbox.snapshot().meta.epoch, outbox.snapshot().parked()), (Epoch(79), 1));
    }
}

/// The power goes when the new life and its sidecar are complete and CURRENT names the damaged store still.
#[tokio::test]
async fn parked_rows_outlive_a_crash_between_the_sidecar_of_a_new_life_and_current() {
    let dir = tempfile::tempdir().unwrap();
    let (parked, _) = with_rows_that_only_it_has(dir.path()).await;
    std::fs::write(dir.path().join("gen-000001/db"), vec![0x5a; 100_000]).unwrap();
    drop(Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap());
    let aside = std::fs::read_dir(dir.path().join("aside")).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(aside, dir.path().join("gen-000001")).unwrap();
    std::fs::write(dir.path().join("CURRENT"), "gen-000001\n").unwrap();
    let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(79), ..options() }).unwrap();
    assert_eq!(outbox.snapshot().meta.epoch, Epoch(79));
    assert_eq!(outbox.parked(10).await.unwrap(), parked);
}

#[tokio::test]
async fn a_copy_of_parked_rows_that_is_gone_or_damaged_is_made_anew_beside_a_whole_store() {
    for damage in [
        |copy: &Path| std::fs::write(copy, vec![0x5a; 30_000]),
        |copy: &Path| std::fs::write(copy, []),
        |copy: &Path| std::fs::remove_file(copy),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (parked, _) = with_rows_that_only_it_has(dir.path()).await;
        damage(&dir.path().join("gen-000001/parked-copy")).unwrap();
        let outbox = open(dir.path());
        assert_eq!((outbox.snapshot().meta.epoch, outbox.parked(10).await.unwrap()), (Epoch(77), parked.clone()));
        drop(outbox);
        std::fs::remove_file(dir.path().join("gen-000001/db")).unwrap();
        let outbox = Outbox::open(dir.path(), &OpenOptions { epoch: Epoch(78), ..options() }).unwrap();
        assert_eq!(outbox.parked(10).await.unwrap(), parked);
    }
}
