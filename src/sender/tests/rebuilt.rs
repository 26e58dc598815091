//! A centre that was built anew, so that known ids mean other rooms there: mappings are proved after every outage, hourly, and at start.

use super::*;

/// From now on the two locations have each other's id.
fn rebuild(model: &mut Model) {
    let mut locations: Vec<_> = model.entities.iter_mut().filter(|it| it.entity.kind() == EntityKind::Location).collect();
    let [first, second] = &mut locations[..] else { panic!("two locations") };
    std::mem::swap(&mut first.id, &mut second.id);
}

/// The house that the reading of a second was stored in, by what its location's id means now.
fn address(model: &Model, second: i64) -> String {
    let (location, _) = model.readings[&(second * 1_000_000, 1, 0)];
    let entity = |kind, id| model.entities.iter().find(|it| it.entity.kind() == kind && it.id == id).map(|it| &it.entity);
    let Some(Entity::Location(location)) = entity(EntityKind::Location, RemoteId(location.unwrap())) else { panic!("no room") };
    let Some(Entity::House(house)) = entity(EntityKind::House, location.house.unwrap()) else { panic!("no house") };
    house.address.clone().unwrap()
}

fn assert_rooms(sink: &ModelSink, seconds: std::ops::Range<i64>) {
    sink.with(|model| {
        for second in seconds {
            let expected = if second % 3 == 0 { "Café" } else { "Mill Lane" };
            assert_eq!(address(model, second), expected, "second {second}");
        }
    });
}

/// Ten rows are delivered; the centre is rebuilt and what befalls it happens; then ten more are captured and delivered, all in one life.
async fn meanwhile(sink: &ModelSink, retry: Retry, befalls: impl AsyncFn(&Outbox)) {
    let dir = tempfile::tempdir().unwrap();
    let outbox = open(dir.path());
    let stop = CancellationToken::new();
    let options = options();
    let sending = run(&outbox, sink, &options, None, retry, &stop);
    let story = async {
        outbox.append(captured(0..10)).await.unwrap();
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap();
        assert_rooms(sink, 0..10);
        sink.with(rebuild);
        befalls(&outbox).await;
        outbox.append(captured(10..20)).await.unwrap();
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap();
        stop.cancel();
    };
    let (result, ()) = tokio::join!(sending, story);
    result.unwrap();
}

fn retry(seconds: u64) -> Retry {
    Retry::new(Duration::from_secs(seconds), Duration::from_secs(seconds), Box::new(|| 1.0))
}

#[tokio::test(start_paused = true)]
async fn after_an_hour_the_mappings_are_proved() {
    let sink = ModelSink::default();
    meanwhile(&sink, retry(1), async |_| sleep(MAPPINGS_RECHECK + Duration::from_mins(6)).await).await;
    assert_rooms(&sink, 10..20);
}

#[tokio::test(start_paused = true)]
async fn the_hour_is_what_proves_them() {
    let sink = ModelSink::default();
    meanwhile(&sink, retry(1), async |_| sleep(Duration::from_mins(30)).await).await;
    sink.with(|model| assert_eq!(address(model, 10), "Café", "the control: nobody has told us, and nobody looked"));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_mappings_are_proved() {
    for (seconds, failures) in [(20, 5), (40, 2)] {
        let sink = ModelSink::default();
        let down =
            async |_: &Outbox| sink.with(|model| model.faults.extend((0..failures).map(|_| Fault::Verdict(Verdict::NotStored))));
        meanwhile(&sink, retry(seconds), down).await;
        assert_rooms(&sink, 10..20);
    }
}

#[tokio::test(start_paused = true)]
async fn at_start_the_mappings_are_proved() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    outbox.append(captured(0..10)).await.unwrap();
    drain(&outbox, &sink).await;
    sink.with(rebuild);
    outbox.append(captured(10..20)).await.unwrap();
    drain(&outbox, &sink).await;
    assert_rooms(&sink, 10..20);
}

#[tokio::test(start_paused = true)]
async fn a_location_that_was_corrected_here_is_looked_up_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), ModelSink::default());
    let stop = CancellationToken::new();
    let options = options();
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let sending = run(&outbox, &sink, &options, None, retry, &stop);
    let correcting = async {
        outbox.append(captured(0..10)).await.unwrap();
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap();
        // Location 5 turns out to be in house 3, where location 4 is not any more.
        let location = |house| Entity::Location(Location { house: Some(LocalId(house)), room: None });
        let catalog = vec![(of(EntityKind::Location, 5), location(3)), (of(EntityKind::Location, 4), location(6))];
        outbox.append(Captured { catalog, ..captured(10..20) }).await.unwrap();
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap();
        stop.cancel();
    };
    let (result, ()) = tokio::join!(sending, correcting);
    result.unwrap();
    sink.with(|model| {
        let of_second = |second: i64| model.readings[&(second * 1_000_000, 1, 0)].0;
        assert_eq!(
            (of_second(0), of_second(1)),
            (of_second(13), of_second(12)),
            "each row went to the house it belongs to by then"
        );
    });
}
