//! A link that is away for minutes to days, as it was recorded at rural sites: it is found again soon, for little, and everything arrives.

use std::path::PathBuf;

use super::*;
use crate::ports::{PushStatus, Traffic};

/// How long it takes to find out that nobody answers.
const SILENCE: Duration = Duration::from_secs(10);

/// A destination that cannot be reached at times, seconds from the beginning.
struct Away {
    there: ModelSink,
    began: Instant,
    outages: Vec<(u64, u64)>,
    /// When somebody answered, and when nobody did, seconds.
    answered: Mutex<Vec<u64>>,
    silent: Mutex<Vec<u64>>,
    probes: Mutex<usize>,
}

impl Away {
    fn new(outages: Vec<(u64, u64)>) -> Self {
        let (answered, silent, probes) = <(Mutex<_>, Mutex<_>, Mutex<_>)>::default();
        Self { there: ModelSink::default(), began: Instant::now(), outages, answered, silent, probes }
    }

    async fn reached(&self) -> Result<(), Outcome> {
        let second = self.began.elapsed().as_secs();
        if self.outages.iter().any(|(from, lasts)| (*from..from + lasts).contains(&second)) {
            self.silent.lock().unwrap().push(second);
            sleep(SILENCE).await;
            return Err(Outcome::new(Verdict::NotStored, "there is no way to the server").of_silence());
        }
        self.answered.lock().unwrap().push(second);
        Ok(())
    }
}

#[async_trait]
impl Sink for Away {
    async fn deliver(&self, delivery: &Delivery) -> Delivered {
        match self.reached().await {
            Ok(()) => self.there.deliver(delivery).await,
            Err(outcome) => {
                Delivered { outcome, body_bytes: 1_000, took: SILENCE, uploaded: Duration::ZERO, answered: Duration::ZERO }
            }
        }
    }

    async fn find(&self, ask: &Ask) -> Result<Vec<RemoteEntity>, Outcome> {
        self.reached().await?;
        self.there.find(ask).await
    }

    async fn create(&self, id: Option<RemoteId>, entity: &Entity<RemoteId>) -> Result<RemoteEntity, Outcome> {
        self.reached().await?;
        self.there.create(id, entity).await
    }

    async fn update(&self, entity: &RemoteEntity) -> Result<(), Outcome> {
        self.reached().await?;
        self.there.update(entity).await
    }

    async fn put_sensors(&self, sensors: &[Entity<RemoteId>]) -> Result<(), Outcome> {
        self.reached().await?;
        self.there.put_sensors(sensors).await
    }

    async fn count(&self, _: Stream, _: i64, _: Micros, _: Micros) -> Result<u64, Outcome> {
        unreachable!("the sender counts nothing")
    }

    async fn arrived(&self, keys: &Rows) -> Result<Vec<Presence>, Outcome> {
        self.reached().await?;
        self.there.arrived(keys).await
    }

    async fn keeping(&self, stream: Stream) -> Result<Keeping, Outcome> {
        self.reached().await?;
        self.there.keeping(stream).await
    }

    async fn reach(&self) -> Result<(), Outcome> {
        *self.probes.lock().unwrap() += 1;
        self.reached().await
    }

    fn traffic(&self) -> Traffic {
        Traffic::default()
    }

    async fn push_status(&self, status: &PushStatus) -> Result<(), Outcome> {
        self.reached().await?;
        self.there.push_status(status).await
    }

    async fn push_summary(&self, status: &PushStatus, summary: &Summary) -> Result<(), Outcome> {
        self.reached().await?;
        self.there.push_summary(status, summary).await
    }

    fn is_packhorse(&self) -> bool {
        self.there.is_packhorse()
    }
}

/// Lets a gateway work through outages, with ten rows an hour.
async fn through(outages: Vec<(u64, u64)>, jitter: f64) -> Away {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), Away::new(outages));
    let hours = sink.outages.iter().map(|(from, lasts)| from + lasts).max().unwrap_or(0) as i64 / 3_600 + 2;
    let (options, stop) = (Options { backoff_max: Duration::from_mins(5), ..options() }, CancellationToken::new());
    let retry = Retry::new(Duration::from_secs(1), Duration::from_mins(5), Box::new(move || jitter));
    let sending = run(&outbox, &sink, &options, None, retry, &stop);
    let appending = async {
        for hour in 0..hours {
            outbox.append(captured(hour * 10..(hour + 1) * 10)).await.unwrap();
            sleep(Duration::from_hours(1)).await;
        }
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap();
        stop.cancel();
    };
    let (result, ()) = tokio::join!(sending, appending);
    result.unwrap();
    assert_all_there_once(&sink.there, 0..hours * 10);
    assert_eq!(outbox.snapshot().stream(Stream::Reading).parked_ever, 0);
    sink
}

/// How long it took, after each outage at whose end something waited, until somebody answered again.
fn found_again(sink: &Away) -> Vec<u64> {
    let (answered, silent) = (sink.answered.lock().unwrap(), sink.silent.lock().unwrap());
    // Probes are not further apart. A status that is not taken, each ten minutes, is not tried again.
    let noticed = |(from, lasts): &(u64, u64)| {
        let last = from + lasts - 75..from + lasts;
        silent.iter().any(|second| last.contains(second))
    };
    let after = |end: u64| answered.iter().copied().find(|second| *second >= end).map(|second| second - end);
    sink.outages.iter().filter(|outage| noticed(outage)).filter_map(|(from, lasts)| after(from + lasts)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_back_after_hours_is_found_within_a_minute_or_so() {
    for jitter in [0.2, 0.5, 0.999] {
        let outage = (1_000, 8 * 3_600);
        let sink = through(vec![outage], jitter).await;
        let found = found_again(&sink);
        assert!(found.len() == 1 && found[0] <= 60 + SILENCE.as_secs(), "{jitter}: {found:?}");
        // By probes of which one costs a packet, and not much more often than each half minute on average.
        let probes = *sink.probes.lock().unwrap() as f64;
        let expected = outage.1 as f64 / (SILENCE.as_secs_f64() + 60.0 * jitter);
        assert!((probes / expected - 1.0).abs() < 0.1, "{jitter}: {probes} probes, expected {expected}");
        assert!(sink.silent.lock().unwrap().len() as f64 - probes < 20.0, "and by hardly anything else");
    }
}

#[tokio::test(start_paused = true)]
async fn the_recorded_outages_of_rural_sites_are_got_over() {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared");
    let shared = std::env::var_os("PACKHORSE_SHARED").map_or(beside, PathBuf::from);
    let path = shared.join("data/uplink/smokeping_rs_outages.csv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        eprintln!("skipped: no outages at {} (set PACKHORSE_SHARED)", path.display());
        return;
    };
    let mut sites = BTreeMap::<&str, Vec<(u64, u64)>>::new();
    for line in text.lines().skip(1) {
        let [site, _, from, lasts] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        sites.entry(site).or_default().push((from.parse().unwrap(), lasts.parse().unwrap()));
    }
    let mut all = Vec::new();
    for (place, outages) in sites.into_values().enumerate() {
        all.extend(found_again(&through(outages, 0.15 + 0.1 * place as f64).await));
    }
    all.sort_unstable();
    println!("{} outages were noticed; found again after {all:?} seconds", all.len());
    assert!(all.len() >= 13, "most of them meet a row: {all:?}");
    assert!(all.iter().all(|seconds| *seconds <= 60 + SILENCE.as_secs()), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_during_an_outage_is_shown_and_ends_the_probes_until_it_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), Away::new(vec![(100, 10 * 3_600)]));
    let (options, stop) = (Options { backoff_max: Duration::from_mins(5), ..options() }, CancellationToken::new());
    let retry = Retry::new(Duration::from_secs(1), Duration::from_mins(5), Box::new(|| 0.9));
    let sending = run(&outbox, &sink, &options, None, retry, &stop);
    let (helm, intake) = (Arc::clone(&options.helm), crate::capture::intake::Intake::default());
    let state = async || {
        let sender = crate::status::Sender::Runs { helm: &helm, intake: &intake, rows_per_second: None };
        let status = crate::status::gather(&outbox, sender, CLOCK).await.unwrap();
        (status.state, status.next_try_seconds)
    };
    let operating = async {
        sleep(Duration::from_secs(200)).await;
        outbox.append(captured(0..10)).await.unwrap();
        sleep(Duration::from_hours(1)).await;
        assert!(*sink.probes.lock().unwrap() > 10 && state().await.0 == crate::status::State::Waiting);
        helm.pause();
        assert_eq!(state().await, (crate::status::State::Paused, None), "at once");
        // One that is under way comes to its end.
        sleep(Duration::from_mins(2)).await;
        let asked = sink.silent.lock().unwrap().len();
        sleep(Duration::from_hours(1)).await;
        assert_eq!((sink.silent.lock().unwrap().len(), helm.doing()), (asked, Doing::Paused), "nobody is asked any more");
        helm.resume();
        sleep(Duration::from_mins(5)).await;
        assert!(sink.silent.lock().unwrap().len() > asked && state().await.0 == crate::status::State::Waiting);
        outbox.watch().wait_for(|snapshot| snapshot.pending() == 0).await.unwrap();
        stop.cancel();
    };
    tokio::join!(sending, operating).0.unwrap();
    assert_all_there_once(&sink.there, 0..10);
}

#[tokio::test(start_paused = true)]
async fn a_status_that_meets_nobody_tells_that_the_link_is_down_and_the_next_one_that_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let (outbox, sink) = (open(dir.path()), Away::new(vec![(500, 1_000)]));
    let (options, stop) = (options(), CancellationToken::new());
    let retry = Retry::new(Duration::from_secs(1), Duration::from_secs(20), Box::new(|| 0.5));
    let sending = run(&outbox, &sink, &options, None, retry, &stop);
    let watching = async {
        let until = async |link: helm::Link| {
            while options.helm.link() != link {
                sleep(Duration::from_secs(1)).await;
            }
        };
        assert_eq!(options.helm.link(), helm::Link::Unknown);
        until(helm::Link::Up).await;
        until(helm::Link::Down).await;
        assert!(options.helm.trouble().is_none() && options.helm.traffic().failed() == 0, "no trouble of rows");
        until(helm::Link::Up).await;
        stop.cancel();
    };
    tokio::join!(sending, watching).0.unwrap();
}
