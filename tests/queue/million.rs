//! A million readings that wait and are drained: what queue commands take meanwhile, and what they cost capture and delivery. Ignored:
//! it measures, and takes minutes. The command stands in docs/performance.md.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    process::{Child, Stdio},
};

use super::*;

/// So many wait at first.
const READINGS_AT_FIRST: u64 = 4_800_000;
/// It is measured while at least so many wait.
const MILLION: u64 = 1_000_000;
/// How long each stretch is measured; one beside a command lies between two without.
const STRETCH: Duration = Duration::from_secs(2);
/// New readings that come in every half second.
const LIVE_ROWS: u64 = 500;

/// Between two of the same.
const PAUSE: Duration = Duration::from_millis(100);

/// Each is asked again and again.
const COMMANDS: [&[&str]; 6] = [
    &["queue", "status", "--watch", "1s"],
    &["queue", "verify"],
    &["queue", "export", "--format", "csv"],
    &["queue", "list", "--limit", "20"],
    &["queue", "list", "--node", "100", "--since", "2026-01-02", "--limit", "20"],
    &["queue", "parked", "list"],
];

#[derive(Clone, Copy)]
struct Figures {
    captured: u64,
    delivered: u64,
    pending: u64,
}

/// Rows a second in one stretch.
#[derive(Clone, Copy)]
struct Rates {
    captured: f64,
    delivered: f64,
}

#[derive(Default)]
struct Measured {
    /// Rates beside the command, as a share of those of the stretches before and after.
    shares: Vec<Rates>,
    took: Vec<Duration>,
}

struct Drain {
    scene: Scene,
}

impl Drain {
    /// Asked at the socket, so that the question itself costs next to nothing.
    fn figures(&self) -> Figures {
        let data_dir = self.scene.gateway.data_dir();
        let call =
            serde_json::json!({"version": 1, "data_dir": data_dir, "destination": "central", "request": "status"}).to_string();
        let mut socket = UnixStream::connect(self.scene.dir.path().join("gateway/packhorse.sock")).unwrap();
        socket.write_all((call + "\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let of = |key: &str| answer["status"][0]["streams"][0][key].as_u64().unwrap_or_else(|| panic!("{answer}"));
        Figures { captured: of("next"), delivered: of("acked"), pending: of("pending") }
    }

    async fn rates(&self, meanwhile: impl Future<Output = ()>) -> Rates {
        let (began, before) = (Instant::now(), self.figures());
        meanwhile.await;
        let (after, seconds) = (self.figures(), began.elapsed().as_secs_f64());
        let rate = |from: u64, to: u64| (to - from) as f64 / seconds;
        Rates { captured: rate(before.captured, after.captured), delivered: rate(before.delivered, after.delivered) }
    }

    fn spawn(&self, args: &[&str]) -> Running {
        let child: Child = self.scene.gateway.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Running(child)
    }

    /// Asks for as long as a stretch lasts; what is not answered by then is cut off.
    async fn ask(&self, args: &[&str], took: &mut Vec<Duration>) {
        let began = Instant::now();
        while began.elapsed() < STRETCH {
            let asked = Instant::now();
            let mut command = self.spawn(args);
            while !command.ended() {
                if began.elapsed() >= STRETCH {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
            took.push(asked.elapsed());
            sleep(PAUSE).await;
        }
    }
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and takes minutes"]
async fn queue_commands_while_a_million_readings_wait_and_are_drained() {
    let mut scene = Scene::set().await;
    // Small requests, so that the drain outlasts what is measured.
    scene.gateway = scene.gateway.with_request_max("1KiB");
    let rows = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT '2026-01-02' + INTERVAL seq SECOND, IF(seq % 2, 1, 100), IF(seq % 3, 0, 2), IF(seq % 2, 509, NULL), seq / 7
             FROM seq_1_to_{READINGS_AT_FIRST}"
    );
    scene.source.run(&rows).await;
    let _daemon = scene.gateway.spawn(&["-qq", "run"]);
    let began = Instant::now();
    let all = READINGS_AT_FIRST + READINGS;
    scene.until(&["queue", "status", "--json"], |status| status["destinations"][0]["state"] == "waiting").await;
    let mut drain = Drain { scene };
    while drain.figures().pending < all {
        assert!(began.elapsed() < Duration::from_mins(30));
        sleep(Duration::from_secs(1)).await;
    }
    println!("{all} readings captured in {:.0?}", began.elapsed());
    drain.scene.central.restart().await;
    // While it is drained new rows come in.
    let writes = async {
        for part in 0.. {
            let more = format!(
                "SET @live = {}; INSERT INTO Reading (time, nodeId, type, value)
                 SELECT '2026-03-01' + INTERVAL (@live := @live + 1) SECOND, 1, 0, 1 FROM seq_1_to_{LIVE_ROWS}",
                part * LIVE_ROWS
            );
            drain.scene.source.run(&more).await;
            sleep(Duration::from_millis(500)).await;
        }
    };
    let measure = async {
        // What only begins is not measured.
        sleep(STRETCH).await;
        let mut measured: BTreeMap<usize, Measured> = BTreeMap::new();
        let mut before = drain.rates(sleep(STRETCH)).await;
        let mut alone = vec![before];
        for place in (0..COMMANDS.len()).cycle() {
            if drain.figures().pending < MILLION {
                break;
            }
            let of_this = measured.entry(place).or_default();
            let beside = drain.rates(drain.ask(COMMANDS[place], &mut of_this.took)).await;
            let after = drain.rates(sleep(STRETCH)).await;
            let share = |beside: f64, before: f64, after: f64| beside / f64::midpoint(before, after);
            of_this.shares.push(Rates {
                captured: share(beside.captured, before.captured, after.captured),
                delivered: share(beside.delivered, before.delivered, after.delivered),
            });
            before = after;
            alone.push(after);
        }
        let of = |rates: &[Rates], which: fn(&Rates) -> f64| middle(rates.iter().map(which).collect());
        println!(
            "alone, middle of {} stretches: {:.0} captured and {:.0} delivered a second",
            alone.len(),
            of(&alone, |rates| rates.captured),
            of(&alone, |rates| rates.delivered)
        );
        for (place, Measured { shares, mut took }) in measured {
            took.sort_unstable();
            let answered = match took.as_slice() {
                [] => "none answered within its stretch".to_owned(),
                all => format!(
                    "{} answered, {:.2?} in the middle, {:.2?} at most",
                    all.len(),
                    all[all.len() / 2],
                    all[all.len() - 1]
                ),
            };
            let each: Vec<_> = shares.iter().map(|rates| format!("{:.2}", rates.delivered)).collect();
            println!(
                "{}: captured {:.2}, delivered {:.2} of the rate alone ({}); {answered}",
                COMMANDS[place].join(" "),
                of(&shares, |rates| rates.captured),
                of(&shares, |rates| rates.delivered),
                each.join(" ")
            );
        }
        // Each once to its end.
        for args in &COMMANDS[1..] {
            let (asked, pending) = (Instant::now(), drain.figures().pending);
            code(&drain.scene.gateway.output(args).await, 0);
            println!("{}: {:.2?} with {pending} readings waiting", args.join(" "), asked.elapsed());
        }
    };
    tokio::select! {
        () = measure => {}
        () = writes => {}
    }
    let began = Instant::now();
    // Nothing waits, and nothing comes in any more: the comparison itself takes minutes.
    let mut still = 0;
    let mut captured = 0;
    while still < 5 {
        assert!(began.elapsed() < Duration::from_mins(30));
        sleep(Duration::from_secs(1)).await;
        let now = drain.figures();
        still = if now.captured == captured && now.pending == 0 { still + 1 } else { 0 };
        captured = now.captured;
    }
    drain.scene.comparison().await.assert_equal();
}
