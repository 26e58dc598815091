//! The real program on a disk that answers with errors (a FUSE file system of the power-loss suite): each is told and survived in the same
//! process, no fsync is asked for again through a handle on which it failed, and nothing that was reported durable is lost.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod support;

#[expect(dead_code, reason = "shared with the power-loss suite, which uses more of it")]
#[path = "power_loss/disk.rs"]
mod disk;
#[expect(dead_code, reason = "shared with the power-loss suite, which uses more of it")]
#[path = "power_loss/lossy_fs.rs"]
mod lossy_fs;

use std::{
    fs::File,
    time::{Duration, Instant},
};

use disk::{Fault, Survives};
use lossy_fs::{Machine, is_available};
use support::{
    Database, Mariadb, Proxy, Schema, assert_exit, compare,
    gateway::{Central, Gateway, Running},
    greenhouse, is_equal,
};
use tokio::time::sleep;

/// Readings that are added before each fault.
const READINGS: u64 = 3_000;

async fn add(source: &Database, from: u64) {
    let rows = format!(
        "INSERT INTO Reading (time, nodeId, type, locationId, value)
             SELECT '2020-01-01' + INTERVAL seq SECOND, IF(seq % 2, 1, 100), 0, IF(seq % 2, 509, NULL), RAND()
             FROM seq_{from}_to_{};
         INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
             SELECT '2020-01-01' + INTERVAL seq SECOND, 1, 0, seq, seq % 256, -70 FROM seq_{from}_to_{} WHERE seq % 20 = 0",
        from + READINGS - 1,
        from + READINGS - 1
    );
    source.run(&rows).await;
}

async fn survives(faults: [Fault; 2]) {
    if !is_available() {
        return;
    }
    let (dir, mut machine) = (tempfile::tempdir().unwrap(), Machine::new());
    let source = Database::create(Mariadb::shared(), Schema { double_value: true, ..Schema::classic() }).await;
    greenhouse::load_catalog(&source).await;
    let central = Central::start(dir.path(), "packhorse").await;
    let proxy = Proxy::start(central.addr).await;
    let life = machine.boot();
    let gateway = Gateway::new(&life.path().join("gateway"), source.url(), proxy.addr());
    // Whoever made the folder above data_dir has made its name durable.
    File::open(life.path()).unwrap().sync_all().unwrap();
    let log = dir.path().join("log");
    let file = File::create(&log).unwrap();
    let mut daemon = Running(gateway.command(&["run"]).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap());
    let said = || std::fs::read_to_string(&log).unwrap();
    let arrives = async || {
        let began = Instant::now();
        while !is_equal(&source, central.database()).await {
            assert!(began.elapsed() < Duration::from_mins(4), "not everything arrives:\n{}", said());
            sleep(Duration::from_millis(200)).await;
        }
    };
    add(&source, 0).await;
    arrives().await;
    for (round, fault) in (1..).zip(faults) {
        // Rows that wait, and then a disk that fails while more of them come and while they are sent.
        proxy.cut().await;
        add(&source, 2 * round * READINGS).await;
        sleep(Duration::from_secs(2)).await;
        machine.set_fault(Some(fault));
        add(&source, (2 * round + 1) * READINGS).await;
        proxy.restore().await;
        let began = Instant::now();
        while said().matches("the outbox failed: it is opened again until it works").count() < round as usize {
            assert!(began.elapsed() < Duration::from_mins(2), "{fault:?} is not told:\n{}", said());
            sleep(Duration::from_millis(100)).await;
        }
        sleep(Duration::from_secs(3)).await;
        assert!(!daemon.ended(), "{fault:?} ended it:\n{}", said());
        machine.set_fault(None);
        arrives().await;
        assert!(!machine.disk().retried_fsync(), "a second fsync of what failed would report a success that is none");
    }
    assert!(!said().contains("is set aside"), "an error of the disk is no damage:\n{}", said());
    assert!(!said().contains("panicked"), "{}", said());
    // What was reported durable is there when everything is forgotten that was not fsynced.
    daemon.kill();
    machine.cut_power();
    drop(life);
    machine.lose_power(Survives::Nothing, 0);
    let life = machine.boot();
    let gateway = Gateway::new(&life.path().join("gateway"), source.url(), proxy.addr());
    assert_exit(&gateway.output(&["run", "--once", "--deadline", "240s"]).await, 0);
    compare(&source, central.database()).await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_fsyncs_and_writes_are_survived_in_the_same_process() {
    survives([Fault::FsyncFails, Fault::WriteFails]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_and_one_that_becomes_read_only_are_survived_in_the_same_process() {
    survives([Fault::Full, Fault::ReadOnly]).await;
}
