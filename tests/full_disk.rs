//! The real program on disks that are full: capture pauses, sending goes on and makes room, a restart works, everything goes on when there
//! is room, and nothing is lost or doubled (counted by SQL).
//!
//! `PACKHORSE_DISK_CYCLES` sets how often a disk is filled, `PACKHORSE_TEST_SEED` repeats a run's choices.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

use std::{
    fs::File,
    path::PathBuf,
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use support::{
    Database, Mariadb, Proxy, Schema, SmallDisk, assert_exit, compare,
    gateway::{Central, Gateway, Running},
    greenhouse,
    small_disk::Kind,
};
use tokio::time::sleep;

const RESERVE_BYTES: u64 = 1 << 20;

/// A source, a receiver on the large disk, a link, and a gateway whose data lies on a small one.
struct Scene {
    log: PathBuf,
    _dir: tempfile::TempDir,
    disk: SmallDisk,
    source: Database,
    central: Central,
    proxy: Proxy,
    gateway: Gateway,
    readings: u64,
    daemon: Option<Running>,
}

impl Scene {
    async fn on(disk: SmallDisk) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let source = Database::create(Mariadb::shared(), Schema { double_value: true, ..Schema::classic() }).await;
        greenhouse::load_catalog(&source).await;
        let central = Central::start(dir.path(), "packhorse").await;
        let proxy = Proxy::start(central.addr).await;
        let gateway = Gateway::new(&disk.path().join("gateway"), source.url(), proxy.addr());
        let log = dir.path().join("log");
        File::create(&log).unwrap();
        Self { log, _dir: dir, disk, source, central, proxy, gateway, readings: 0, daemon: None }
    }

    /// More rows in the source, of the past.
    async fn add(&mut self, readings: u64) {
        let (from, to) = (self.readings, self.readings + readings - 1);
        let rows = format!(
            "INSERT INTO Reading (time, nodeId, type, locationId, value)
                 SELECT '2020-01-01' + INTERVAL seq SECOND, IF(seq % 2, 1, 100), 0, IF(seq % 2, 509, NULL), RAND() FROM seq_{from}_to_{to};
             INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                 SELECT '2020-01-01' + INTERVAL seq SECOND, 1, 0, seq, seq % 256, -70 FROM seq_{from}_to_{to} WHERE seq % 20 = 0"
        );
        self.source.run(&rows).await;
        self.readings += readings;
    }

    fn start(&mut self) {
        let log = File::options().append(true).open(&self.log).unwrap();
        let child = self.gateway.command(&["run"]).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.daemon = Some(Running(child));
    }

    fn kill(&mut self) {
        self.assert_runs();
        self.daemon.take().unwrap().kill();
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn assert_runs(&mut self) {
        let ended = self.daemon.as_mut().is_some_and(Running::ended);
        assert!(!ended, "the daemon ended:\n{}", self.said());
    }

    /// Waits until the log has so many lines with these words.
    async fn says(&mut self, words: &str, times: usize) {
        let began = Instant::now();
        while self.said().matches(words).count() < times {
            self.assert_runs();
            assert!(began.elapsed() < Duration::from_mins(2), "it does not say {words:?} {times} times:\n{}", self.said());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Rows that have arrived, as the receiver's file says.
    async fn arrived(&self) -> u64 {
        use sqlx::{ConnectOptions as _, Connection as _};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.central.database()).read_only(true);
        let mut file = options.connect().await.unwrap();
        let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM Reading").fetch_one(&mut file).await.unwrap();
        file.close().await.unwrap();
        rows as u64
    }

    /// Waits until at least so many readings have arrived.
    async fn arrive(&mut self, readings: u64) {
        let began = Instant::now();
        while self.arrived().await < readings {
            self.assert_runs();
            let patience = Duration::from_mins(3);
            assert!(began.elapsed() < patience, "only {} of {readings} arrive:\n{}", self.arrived().await, self.said());
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until all rows of the source are captured, of which so many readings cannot have left yet.
    async fn captures(&mut self, readings: u64) {
        let began = Instant::now();
        loop {
            self.assert_runs();
            let output = self.gateway.output(&["queue", "status", "--json"]).await;
            let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let streams = &status["destinations"][0]["streams"];
            let in_step = (0..2).all(|stream| streams[stream]["behind_source"].as_u64() == Some(0));
            if in_step && streams[0]["pending"].as_u64().is_some_and(|pending| pending >= readings) {
                return;
            }
            assert!(began.elapsed() < Duration::from_mins(3), "{readings} readings are not captured: {status}\n{}", self.said());
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Everything arrives by itself; afterwards nothing is left, lost or doubled, and no epoch was begun anew.
    async fn ends_well(mut self) -> String {
        self.arrive(self.readings).await;
        let (status, took) = self.daemon.take().unwrap().terminate().await;
        // With 1 when it was just waiting to open the outbox again.
        assert!(status.code().is_some_and(|code| code <= 1) && took < Duration::from_secs(20), "{status} after {took:?}");
        assert_exit(&self.gateway.output(&["run", "--once", "--deadline", "120s"]).await, 0);
        compare(&self.source, self.central.database()).await.assert_equal();
        let said = self.said();
        assert!(!said.contains("panicked") && !said.contains("defect"), "{said}");
        assert!(!said.contains("is set aside") && !self.outbox().join("aside").exists(), "a full disk is no damage:\n{said}");
        said
    }

    fn outbox(&self) -> PathBuf {
        self.gateway.data_dir().join("central")
    }
}

fn cycles() -> u64 {
    let given = std::env::var("PACKHORSE_DISK_CYCLES").ok().map(|cycles| cycles.parse().unwrap());
    given.unwrap_or(if std::env::var_os("PACKHORSE_LONG").is_some() { 40 } else { 4 })
}

/// Filled from within, by rows that cannot be sent: capture keeps the reserve and pauses; sending makes room for the rest.
async fn from_within(kind: Kind) {
    // The journal takes a part of ext4. So many readings would take 7 MiB on either, and 3 are kept free.
    let mebibytes = if kind == Kind::Ext4 { 10 } else { 8 };
    let Some(disk) = SmallDisk::mount(kind, mebibytes) else { return };
    let mut scene = Scene::on(disk).await;
    scene.add(320_000).await;
    scene.proxy.cut().await;
    scene.start();
    scene.says("capture pauses", 1).await;
    sleep(Duration::from_secs(1)).await;
    let free = scene.disk.free_bytes();
    println!("{kind:?}: paused with {free} bytes free");
    assert!(free >= RESERVE_BYTES, "disk_reserve holds: {free}");
    assert!(free < 4 << 20, "it fills what it may: {free}");
    scene.proxy.restore().await;
    scene.says("capture goes on", 1).await;
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filled_from_within_on_ext4() {
    from_within(Kind::Ext4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filled_from_within_on_tmpfs() {
    from_within(Kind::Tmpfs).await;
}

/// Filled from outside to the last byte, at any moment and again and again, with the daemon killed and begun again on the full disk.
async fn from_outside(kind: Kind) {
    let seed = std::env::var("PACKHORSE_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PACKHORSE_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let Some(disk) = SmallDisk::mount(kind, 16) else { return };
    let mut scene = Scene::on(disk).await;
    scene.add(3_000).await;
    scene.start();
    scene.arrive(1).await;
    let cycles = cycles();
    for cycle in 0..cycles {
        scene.proxy.cut().await;
        let added = random.random_range(5_000..30_000);
        scene.add(added).await;
        // Every other time when all of it has been captured.
        let captured = cycle % 2 == 0;
        if captured {
            scene.captures(added).await;
        } else {
            sleep(Duration::from_millis(random.random_range(0..2_500))).await;
        }
        let filler = scene.disk.fill(0);
        assert_eq!(scene.disk.free_bytes() >> 12, 0, "it is full");
        let restarted = random.random_bool(0.5);
        if restarted {
            scene.kill();
            scene.start();
        }
        scene.proxy.restore().await;
        if captured {
            // It arrives though the disk is full.
            scene.arrive(scene.readings).await;
        }
        sleep(Duration::from_millis(random.random_range(0..2_000))).await;
        if random.random_bool(0.3) {
            // And whatever became free meanwhile is taken as well.
            scene.disk.fill(0);
            sleep(Duration::from_millis(random.random_range(500..2_000))).await;
        }
        scene.assert_runs();
        std::fs::remove_file(filler).unwrap();
        println!(
            "{kind:?} cycle {cycle}: captured {captured}, restarted {restarted}, {} of {} arrived",
            scene.arrived().await,
            scene.readings
        );
        scene.arrive(scene.readings).await;
    }
    let said = scene.ends_well().await;
    println!("{kind:?}: full {cycles} times; {} times told", said.matches("the disk is full").count());
    assert!(said.contains("the disk is full"), "it is told:\n{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn filled_from_outside_on_ext4() {
    from_outside(Kind::Ext4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filled_from_outside_on_tmpfs() {
    from_outside(Kind::Tmpfs).await;
}

/// No file can be made any more, though there is room.
async fn without_names(kind: Kind) {
    let Some(disk) = SmallDisk::with_inodes(kind, 16, 64) else { return };
    let mut scene = Scene::on(disk).await;
    scene.add(5_000).await;
    scene.start();
    scene.arrive(5_000).await;
    scene.proxy.cut().await;
    scene.add(20_000).await;
    sleep(Duration::from_secs(2)).await;
    let names = scene.disk.fill_names();
    scene.kill();
    scene.start();
    sleep(Duration::from_secs(1)).await;
    scene.proxy.restore().await;
    scene.add(1_000).await;
    scene.says("the disk is full", 1).await;
    sleep(Duration::from_secs(3)).await;
    scene.assert_runs();
    let arrived = scene.arrived().await;
    println!("{kind:?}: {arrived} of {} arrived without a name to spare", scene.readings);
    std::fs::remove_dir_all(names).unwrap();
    scene.ends_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_to_spare_on_ext4() {
    without_names(Kind::Ext4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_name_to_spare_on_tmpfs() {
    without_names(Kind::Tmpfs).await;
}

/// The bound on what waits holds, give or take the page with which it is reached.
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_keeps_to_outbox_max() {
    let Some(disk) = SmallDisk::mount(Kind::Tmpfs, 32) else { return };
    let mut scene = Scene::on(disk).await;
    let config = std::fs::read_to_string(scene.gateway.config()).unwrap();
    std::fs::write(scene.gateway.config(), config.replace("linger = ", "outbox_max = \"1MiB\"\nlinger = ")).unwrap();
    // Half as much again as the bound.
    scene.add(200_000).await;
    scene.proxy.cut().await;
    scene.start();
    scene.says("outbox_max is reached", 1).await;
    sleep(Duration::from_secs(1)).await;
    let status = scene.disk.free_bytes();
    assert!(status > 24 << 20, "no more than outbox_max was taken: {status} bytes are free");
    scene.kill();
    let output = scene.gateway.output(&["queue", "status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = status["destinations"][0]["pending_bytes"].as_u64().unwrap();
    assert!((1 << 20..(1 << 20) + 200_000).contains(&bytes), "{bytes} encoded bytes wait");
    scene.start();
    scene.proxy.restore().await;
    scene.ends_well().await;
}

/// An export of discarded rows is many times as large as they were: it stops before capture would have to.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_discarded_rows_takes_nothing_from_capture_and_the_ballast() {
    let Some(disk) = SmallDisk::mount(Kind::Tmpfs, 14) else { return };
    let mut scene = Scene::on(disk).await;
    // Rows of a node that the catalog does not have are held for it: some 15 MB as JSON Lines.
    let rows = "SET FOREIGN_KEY_CHECKS = 0;
        INSERT INTO Reading (time, nodeId, type, value) SELECT '2020-01-01' + INTERVAL seq SECOND, 4242, 0, seq FROM seq_1_to_100000";
    scene.source.run(rows).await;
    scene.start();
    let began = Instant::now();
    let parked = async || {
        let output = scene.gateway.output(&["queue", "status", "--json"]).await;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        status["destinations"][0]["parked"].as_u64().unwrap_or(0)
    };
    while parked().await < 100_000 {
        assert!(began.elapsed() < Duration::from_mins(3), "{} are parked:\n{}", parked().await, scene.said());
        sleep(Duration::from_millis(200)).await;
    }
    let free = scene.disk.free_bytes();
    assert!((RESERVE_BYTES + (5 << 20)..12 << 20).contains(&free), "it would not be begun, or would fit: {free} bytes are free");
    let mut command = scene.gateway.command(&["-q", "queue", "parked", "discard", "--all", "--yes"]);
    let discarding = std::thread::spawn(move || command.output().unwrap());
    let mut least_free = free;
    while !discarding.is_finished() {
        least_free = least_free.min(scene.disk.free_bytes());
        sleep(Duration::from_millis(1)).await;
    }
    let output = discarding.join().unwrap();
    assert_exit(&output, 1);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("less than disk_reserve free, so nothing was discarded"), "{said}");
    println!("{free} bytes were free, and never less than {least_free}");
    assert!(least_free >= RESERVE_BYTES + (2 << 20) && least_free < free - (1 << 20), "{least_free} of {free} were free");
    assert_eq!((parked().await, scene.outbox().join("discarded").read_dir().unwrap().count()), (100_000, 0));
    scene.add(1_000).await;
    scene.arrive(1_000).await;
    let said = scene.said();
    assert!(!said.contains("the disk is full") && !said.contains("capture pauses"), "{said}");
    assert!(scene.outbox().join("ballast").exists(), "{said}");
}
