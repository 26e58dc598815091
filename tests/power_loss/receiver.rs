//! The receiver's database on the same disk: what was answered with 201 is there after a power loss, and of a bulk there is all or nothing.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    block_on,
    disk::{Cut, Survives},
    is_long,
    lossy_fs::{Life, Machine, is_available},
    seed,
    support::gateway::{Running, free_port, packhorse},
};

const READINGS: u64 = 20;
const STATES: u64 = 6;

/// A receiver on the disk's present life.
struct Centre {
    /// Ends before the disk under it does.
    program: Running,
    life: Life,
    base: String,
    client: reqwest::Client,
}

/// What has become of each bulk, by number.
#[derive(Default)]
struct Told {
    sent: u64,
    acked: Vec<u64>,
    has_catalog: bool,
}

impl Centre {
    /// `None` when the power went before it answered.
    async fn start(machine: &mut Machine) -> Option<Self> {
        let life = machine.boot();
        let addr = free_port();
        let mut command = packhorse();
        command.args(["-q", "--config", "/dev/null", "receiver", "--listen", &addr.to_string(), "--database"]);
        command.arg(format!("sqlite://{}", life.path().join("central.db").display()));
        let program = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // The second call finds one; there is no TLS here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        let mut centre = Self { program, life, base: format!("http://{addr}/rest/"), client };
        let began = Instant::now();
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            if !machine.disk().is_powered() || centre.program.ended() {
                assert!(!machine.disk().is_powered(), "the receiver does not start on {}", centre.life.path().display());
                return None;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "the receiver does not come up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(centre)
    }

    async fn post(&self, path: &str, body: &Value) -> bool {
        let sent = self.client.post(format!("{}{path}", self.base)).body(body.to_string()).send().await;
        matches!(sent, Ok(answer) if answer.status() == 201)
    }

    /// How many rows of a table came with a bulk.
    async fn count(&self, table: &str, number: u64) -> Option<u64> {
        let (from, to) = (time(number, 0), time(number + 1, 0));
        let url = format!("{}{table}/?nodeId=1&time=ge_{from}&time=lt_{to}", self.base);
        let answer = self.client.get(url).send().await.ok()?.bytes().await.ok()?;
        let list: Value = serde_json::from_slice(&answer).ok()?;
        Some(list.as_array()?.len() as u64)
    }
}

/// Bulks are a minute apart.
fn time(number: u64, second: u64) -> String {
    let at = chrono::DateTime::from_timestamp(1_700_000_000 / 60 * 60 + 60 * number as i64 + second as i64, 0).unwrap();
    at.format("%Y-%m-%dT%H:%M:%S").to_string()
}

fn bulk(number: u64) -> Value {
    let readings =
        (0..READINGS).map(|row| json!({"__table__": "Reading", "time": time(number, row), "nodeId": 1, "type": 0, "value": row}));
    let states = (0..STATES).map(|row| {
        json!({"__table__": "NodeState", "time": time(number, row), "nodeId": 1, "parent": 0, "localtime": row, "seq_num": row, "rssi": -70})
    });
    readings.chain(states).collect()
}

/// Sends until the power goes.
async fn fill(centre: &Centre, machine: &Machine, told: &mut Told, bulks_max: u64) {
    if !told.has_catalog {
        let kind = json!({"__table__": "SensorType", "id": 0, "name": "Temperature", "code": "T", "units": "deg.C"});
        let node = json!({"__table__": "Node", "id": 1, "locationId": null, "nodeTypeId": null});
        // After a loss one of them may be there already, and is refused.
        centre.post("sensortype/", &kind).await;
        told.has_catalog = centre.post("node/", &node).await;
    }
    for _ in 0..bulks_max {
        if !machine.disk().is_powered() {
            return;
        }
        let number = told.sent;
        told.sent += 1;
        if centre.post("bulk/", &bulk(number)).await {
            told.acked.push(number);
        }
    }
}

/// What is missing or partial; how many bulks were looked at.
async fn check(centre: &Centre, told: &Told) -> Result<u64, String> {
    for number in 0..told.sent {
        let counts = (centre.count("reading", number).await, centre.count("nodestate", number).await);
        let (Some(readings), Some(states)) = counts else { return Err(format!("bulk {number} cannot be asked for")) };
        let is_acked = told.acked.binary_search(&number).is_ok();
        match (readings, states) {
            (READINGS, STATES) => {}
            (0, 0) if !is_acked => {}
            (readings, states) => {
                let what = if is_acked { "was acked" } else { "is all or nothing" };
                return Err(format!("bulk {number} {what}, and {readings} readings and {states} node states are there"));
            }
        }
    }
    Ok(told.sent)
}

async fn losses(seed: u64, losses: u64) -> Result<(), String> {
    let mut chance = StdRng::seed_from_u64(seed);
    let (mut acked, mut looked_at, mut cut_at_start) = (0, 0, 0);
    let mut done = 0;
    while done < losses {
        let survives = [Survives::Nothing, Survives::Prefix, Survives::Reordered][chance.random_range(0..3)];
        let mut machine = Machine::new();
        let mut told = Told::default();
        for _ in 0..8.min(losses - done) {
            // While it starts and makes its tables; among the first bulks; and when SQLite has moved its log into the database.
            let (changes, bulks) = match chance.random_range(0..6) {
                0 | 1 => (60, 10),
                2 => (6_000, 500),
                _ => (600, 80),
            };
            let cut = match chance.random_range(0..3) {
                0 => Cut::AtChange(chance.random_range(1..changes)),
                1 => Cut::BeforeFsync(chance.random_range(1..bulks)),
                _ => Cut::AfterFsync(chance.random_range(1..bulks)),
            };
            machine.arm(cut);
            match Centre::start(&mut machine).await {
                None => cut_at_start += 1,
                Some(centre) => fill(&centre, &machine, &mut told, bulks).await,
            }
            machine.cut_power();
            machine.lose_power(survives, chance.random());
            done += 1;
        }
        let centre = Centre::start(&mut machine).await.ok_or("it does not start though there is power")?;
        looked_at += check(&centre, &told).await.map_err(|what| format!("{what} ({survives:?})"))?;
        acked += told.acked.len();
    }
    println!(
        "{done} power losses ({cut_at_start} while it started), {looked_at} bulks looked at, {acked} of them acked: none lost"
    );
    if acked == 0 { Err("nothing was acked: the losses came too early to prove anything".into()) } else { Ok(()) }
}

#[test]
fn what_the_receiver_has_answered_survives_power_loss() {
    if !is_available() {
        return;
    }
    let result = block_on(losses(seed(), if is_long() { 300 } else { 24 }));
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

/// The negative control: a database of which somebody has taken the fsyncs away.
#[test]
fn with_a_database_that_does_not_sync_the_same_losses_lose_bulks() {
    if !is_available() {
        return;
    }
    let lost = block_on(async {
        for round in 0..10 {
            let mut machine = Machine::new();
            let mut told = Told::default();
            let centre = Centre::start(&mut machine).await.unwrap();
            // What a disk does that lies about its flushes: they are answered, and nothing is kept.
            machine.disk().lie_about_fsyncs();
            fill(&centre, &machine, &mut told, 30).await;
            machine.cut_power();
            drop(centre);
            machine.lose_power(Survives::Nothing, round);
            let found = match Centre::start(&mut machine).await {
                Some(centre) => check(&centre, &told).await,
                None => Err("it does not start".into()),
            };
            if found.is_err() {
                return true;
            }
        }
        false
    });
    assert!(lost, "the control must fail");
}
