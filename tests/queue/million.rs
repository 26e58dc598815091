//! A million readings that wait and are drained: what queue commands take meanwhile, and what they cost capture and delivery. Ignored:
//! it measures, and takes minutes. The command stands in docs/performance.md.

use super::*;

const MILLION: u64 = 1_000_000;
/// How long each stretch is measured.
const STRETCH: Duration = Duration::from_secs(20);

struct Drain {
    scene: Scene,
}

impl Drain {
    async fn figures(&self) -> (u64, u64, u64) {
        let status = self.scene.json(&["queue", "status", "--json"]).await;
        let stream = &status["destinations"][0]["streams"][0];
        let of = |key: &str| stream[key].as_u64().unwrap_or(0);
        (of("acked"), of("next"), of("pending"))
    }

    /// Rows captured and delivered a second while something goes on.
    async fn rates<T>(&self, meanwhile: impl Future<Output = T>) -> (f64, f64, T) {
        let (began, before) = (Instant::now(), self.figures().await);
        let came = meanwhile.await;
        let (after, seconds) = (self.figures().await, began.elapsed().as_secs_f64());
        ((after.1 - before.1) as f64 / seconds, (after.0 - before.0) as f64 / seconds, came)
    }

    /// Asks everything that only looks, again and again; the time that each took.
    async fn ask_all(&self) -> Vec<(String, Vec<Duration>)> {
        let file = self.scene.dir.path().join("export.csv");
        let commands: [&[&str]; 6] = [
            &["queue", "status", "--json"],
            &["queue", "list", "--limit", "20"],
            &["queue", "list", "--node", "100", "--since", "2026-01-02", "--limit", "20"],
            &["queue", "parked", "list"],
            &["queue", "verify"],
            &["-q", "queue", "export", "--format", "csv", "--output", file.to_str().unwrap()],
        ];
        let mut took: Vec<(String, Vec<Duration>)> = commands.iter().map(|args| (args.join(" "), Vec::new())).collect();
        let began = Instant::now();
        while began.elapsed() < STRETCH {
            for (place, args) in commands.iter().enumerate() {
                let asked = Instant::now();
                code(&self.scene.gateway.output(args).await, 0);
                took[place].1.push(asked.elapsed());
            }
        }
        took
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and takes minutes"]
async fn queue_commands_while_a_million_readings_wait_and_are_drained() {
    let mut scene = Scene::set().await;
    // Small requests, so that the drain outlasts what is measured.
    scene.gateway = scene.gateway.with_request_max("8KiB");
    let rows = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT '2026-01-02' + INTERVAL seq SECOND, IF(seq % 2, 1, 100), IF(seq % 3, 0, 2), IF(seq % 2, 509, NULL), seq / 7
             FROM seq_1_to_{MILLION}"
    );
    scene.source.run(&rows).await;
    let _daemon = scene.gateway.spawn(&["-qq", "run"]);
    let began = Instant::now();
    let all = MILLION + READINGS;
    loop {
        let status = scene.json(&["queue", "status", "--json"]).await;
        if status["destinations"][0]["streams"][0]["pending"].as_u64() == Some(all) {
            break;
        }
        assert!(began.elapsed() < Duration::from_mins(30), "{status}");
        sleep(Duration::from_secs(1)).await;
    }
    println!("{all} readings captured in {:.0?}", began.elapsed());
    scene.central.restart().await;
    // While it is drained new rows come in.
    let live = "INSERT INTO Reading (time, nodeId, type, value)
        SELECT '2026-03-01' + INTERVAL (@live := @live + 1) SECOND, 1, 0, 1 FROM seq_1_to_500";
    let drain = Drain { scene };
    let writes = async {
        for part in 0.. {
            let more = format!("SET @live = {}; {live}", part * 500);
            drain.scene.source.run(&more).await;
            sleep(Duration::from_millis(500)).await;
        }
    };
    let measured = async {
        let (captured, delivered, ()) = drain.rates(sleep(STRETCH)).await;
        println!("alone:          {captured:.0} rows captured and {delivered:.0} delivered a second");
        let (captured, delivered, took) = drain.rates(drain.ask_all()).await;
        println!("with commands:  {captured:.0} rows captured and {delivered:.0} delivered a second");
        for (command, mut took) in took {
            took.sort_unstable();
            let middle = took[took.len() / 2];
            println!("{:4} x packhorse {command}: {middle:.2?} in the middle, {:.2?} at most", took.len(), took[took.len() - 1]);
        }
        let (captured, delivered, ()) = drain.rates(sleep(STRETCH)).await;
        println!("alone again:    {captured:.0} rows captured and {delivered:.0} delivered a second");
        println!("{} readings wait yet", drain.figures().await.2);
    };
    tokio::select! {
        () = measured => {}
        () = writes => {}
    }
    let began = Instant::now();
    // Nothing waits, and nothing comes in any more: the comparison itself takes minutes.
    let mut still = 0;
    let mut before = drain.figures().await;
    while still < 5 {
        assert!(began.elapsed() < Duration::from_mins(30), "{before:?}");
        sleep(Duration::from_secs(1)).await;
        let now = drain.figures().await;
        still = if now == before && now.2 == 0 { still + 1 } else { 0 };
        before = now;
    }
    drain.scene.comparison().await.assert_equal();
}
