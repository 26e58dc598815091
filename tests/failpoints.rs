//! The daemon ends at every edge that the source names, at several passes of each, and nothing is lost or doubled. An edge that the run
//! never passes is a failure of this test, so that it cannot pass by not crashing.
//!
//! `PACKHORSE_LONG` crashes at more passes; `PACKHORSE_EDGES=take:` only at the edges whose names begin so.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use packhorse::edge;
use support::{Scene, Schema, assert_exit, gateway::Gateway};
use tokio::time::sleep;

/// Passes of an edge before the one that ends the process.
fn passes() -> &'static [usize] {
    if std::env::var_os("PACKHORSE_LONG").is_some() { &[0, 1, 2, 3, 5, 8, 13] } else { &[0, 3] }
}

/// What must happen for an edge to be passed at all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// New rows.
    Rows,
    /// No data directory.
    FreshOutbox,
    /// A store that does not open.
    DamagedStore,
    /// Entities that the destination does not have.
    NewEntities,
    /// Rows that point to what the destination does not take, and then takes.
    HeldRows,
    /// Parked rows, and an operator who lets them return or discards them.
    Operator,
}

fn needs(edge: &str) -> Needs {
    match edge {
        "make:store" | "make:renamed" | "make:sidecar" | "make:current" | "start:committed" => Needs::FreshOutbox,
        "aside:renamed" => Needs::DamagedStore,
        "create:intended" | "create:sent" | "map:committed" | "sidecar:written" | "copy:synced" | "copy:rewritten" => {
            Needs::NewEntities
        }
        "park:encoded" | "return:encoded" | "return:committed" => Needs::HeldRows,
        "take:encoded" | "take:committed" | "discard:written" | "discard:renamed" | "discard:taken" => Needs::Operator,
        _ => Needs::Rows,
    }
}

struct Trial {
    scene: Scene,
    gateway: Gateway,
    /// Counts what was inserted, so that no two rows are equal.
    made: u32,
}

impl Trial {
    async fn set(manner: &'static str, schema: Schema) -> Option<Self> {
        let scene = Scene::set(schema, manner, 2_000).await?;
        let gateway = scene.gateway().with_request_max("4KiB").with_source("poll_interval", "100ms");
        Some(Self { scene, gateway, made: 0 })
    }

    /// Rows, the last of them some seconds old.
    async fn insert_rows(&mut self, node: u32) {
        self.made += 1;
        let made = self.made;
        let minutes = 20_000 - 3 * made;
        self.scene
            .source
            .run(&format!(
                "INSERT INTO Reading (time, nodeId, type, locationId, value)
                    SELECT UTC_TIMESTAMP() - INTERVAL {minutes} MINUTE + INTERVAL seq SECOND, {node}, 0, NULL, {made} + seq / 64 FROM seq_0_to_99;
                 INSERT INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi)
                    SELECT UTC_TIMESTAMP() - INTERVAL {minutes} MINUTE + INTERVAL seq SECOND, {node}, 0, {made} * 1000 + seq, seq, -70 FROM seq_0_to_49"
            ))
            .await;
    }

    async fn insert_entities(&mut self) -> u32 {
        self.made += 1;
        let id = 1_000 + self.made;
        self.scene
            .source
            .run(&format!(
                "INSERT INTO House (id, deploymentId, address) VALUES ({id}, 41, 'House {id}');
                 INSERT INTO Location (id, houseId, roomId) VALUES ({id}, {id}, 31);
                 INSERT INTO Node (id, locationId) VALUES ({id}, {id});
                 INSERT INTO Sensor (sensorTypeId, nodeId, calibrationSlope, calibrationOffset) VALUES (0, {id}, 1, 0)"
            ))
            .await;
        id
    }

    /// Runs the daemon until it ends at the edge, while more of what makes it pass there comes in.
    async fn crash_at(&mut self, edge: &str, passes: usize) {
        self.gateway.set_env("FAILPOINTS", format!("compact:wanted=return;copy:wanted=return;{edge}={passes}*off->1*return"));
        let mut running = self.gateway.spawn(&["-q", "run"]);
        let began = Instant::now();
        while !running.ended() {
            assert!(began.elapsed() < Duration::from_mins(3), "the daemon never came to pass {passes} of {edge}");
            match needs(edge) {
                Needs::Rows => self.insert_rows(100).await,
                Needs::NewEntities => {
                    let node = self.insert_entities().await;
                    self.insert_rows(node).await;
                }
                Needs::FreshOutbox | Needs::DamagedStore | Needs::HeldRows | Needs::Operator => {}
            }
            let inserted = Instant::now();
            while !running.ended() && inserted.elapsed() < Duration::from_millis(200) {
                sleep(Duration::from_millis(10)).await;
            }
        }
        let status = running.0.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "it was to abort at {edge}, not {status}");
        self.gateway.set_env("FAILPOINTS", "");
    }

    /// Runs the daemon over a store that does not open until it ends at the edge.
    async fn crash_in_recovery(&mut self, edge: &str) {
        self.insert_rows(100).await;
        damage(&self.gateway.data_dir().join("central"));
        self.crash_at(edge, 0).await;
    }

    async fn finish(&self) {
        assert_exit(&self.gateway.output(&["run", "--once", "--deadline", "120s"]).await, 0);
    }

    async fn one(&mut self, edge: &'static str) {
        for &passes in passes() {
            match needs(edge) {
                Needs::Rows | Needs::NewEntities => self.crash_at(edge, passes).await,
                // These are passed once in the life of an outbox, or once for each stream.
                Needs::FreshOutbox | Needs::DamagedStore | Needs::HeldRows | Needs::Operator if passes > 0 => {}
                Needs::FreshOutbox => {
                    self.finish().await;
                    std::fs::remove_dir_all(self.gateway.data_dir().join("central")).unwrap();
                    self.crash_at(edge, 0).await;
                    // A store is also made in place of one that was lost, and that crashes again.
                    if edge.starts_with("make:") {
                        self.finish().await;
                        self.crash_in_recovery(edge).await;
                        self.crash_in_recovery(edge).await;
                    }
                }
                Needs::DamagedStore => self.crash_in_recovery(edge).await,
                Needs::HeldRows => {
                    self.begin_conflict().await;
                    if edge == "park:encoded" {
                        self.crash_at(edge, 0).await;
                    }
                    assert_exit(&self.gateway.output(&["run", "--once", "--deadline", "60s"]).await, 1);
                    self.end_conflict().await;
                    if edge != "park:encoded" {
                        self.crash_at(edge, 0).await;
                    }
                }
                Needs::Operator => {
                    let verbs: &[_] = if edge.starts_with("discard:") { &["discard"] } else { &["retry", "discard"] };
                    for verb in verbs {
                        self.crash_in_verb(edge, verb).await;
                    }
                }
            }
        }
        println!("{edge}: ended there");
    }

    /// A command on parked rows ends at the edge: they are where they were or where they should go, all of them.
    async fn crash_in_verb(&mut self, edge: &str, verb: &str) {
        self.begin_conflict().await;
        assert_exit(&self.gateway.output(&["run", "--once", "--deadline", "60s"]).await, 1);
        assert_eq!(self.parked_and_pending().await, (100, 0), "before {verb}");
        self.gateway.set_env("FAILPOINTS", format!("{edge}=1*return"));
        let mut args = vec!["queue", "parked", verb, "--all"];
        args.extend((verb == "discard").then_some("--yes"));
        let status = self.gateway.output(&args).await.status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6), "it was to abort at {edge}, not {status}");
        self.gateway.set_env("FAILPOINTS", "");
        let expected = match (edge, verb) {
            ("take:committed", "retry") => (0, 100),
            ("take:committed" | "discard:taken", _) => (0, 0),
            _ => (100, 0),
        };
        assert_eq!(self.parked_and_pending().await, expected, "{verb} ended at {edge}");
        if verb == "discard" {
            // Whether they were dropped or not, the export is whole (I5), or not there as soon as the outbox was opened: a look reads a copy.
            assert_exit(&self.gateway.output(&["queue", "compact"]).await, 0);
            let values = self.exported_values();
            assert_eq!(values.len(), if edge == "discard:written" { 0 } else { 100 }, "{edge}");
            if expected == (0, 0) {
                // Nobody wants them any more: they are not to arrive.
                let gone = self.made * 1_000;
                assert!(values.iter().all(|value| (gone..gone + 100).contains(value)), "{values:?}");
                let query = format!("DELETE FROM Reading WHERE type = 60 AND value >= {gone} AND value < {gone} + 100");
                self.scene.source.run(&query).await;
            }
            std::fs::remove_dir_all(self.discarded()).unwrap();
        }
        self.end_conflict().await;
    }

    async fn parked_and_pending(&self) -> (u64, u64) {
        let output = self.gateway.output(&["queue", "status", "--json"]).await;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |what: &str| status["destinations"][0][what].as_u64().unwrap();
        (count("parked"), count("pending"))
    }

    fn discarded(&self) -> PathBuf {
        self.gateway.data_dir().join("central/discarded")
    }

    /// The values of the one export, if it is there; its name does not say that all of it is gone.
    fn exported_values(&self) -> Vec<u32> {
        let exports: Vec<_> = std::fs::read_dir(self.discarded()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [export] = &exports[..] else {
            assert!(exports.is_empty(), "{exports:?}");
            return Vec::new();
        };
        assert!(export.to_str().unwrap().ends_with(".partly.jsonl"), "{exports:?}");
        let text = std::fs::read_to_string(export).unwrap();
        let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["value"].as_f64().unwrap() as u32;
        text.lines().map(value).collect()
    }

    /// A sensor type means something else at the centre, and there are rows of it.
    async fn begin_conflict(&mut self) {
        self.finish().await;
        self.scene.central_sql("UPDATE SensorType SET name = 'Something else' WHERE id = 60").await;
        self.insert_held().await;
    }

    async fn end_conflict(&mut self) {
        self.scene.central_sql("UPDATE SensorType SET name = 'Black bulb' WHERE id = 60").await;
    }

    async fn insert_held(&mut self) {
        self.made += 1;
        let made = self.made;
        let minutes = 20_000 - 3 * made;
        self.scene
            .source
            .run(&format!(
                "INSERT INTO Reading (time, nodeId, type, value)
                    SELECT UTC_TIMESTAMP() - INTERVAL {minutes} MINUTE + INTERVAL seq SECOND, 100, 60, {made} * 1000 + seq FROM seq_0_to_99"
            ))
            .await;
    }
}

fn damage(outbox: &Path) {
    let name = std::fs::read_to_string(outbox.join("CURRENT")).unwrap();
    let db = outbox.join(name.trim()).join("db");
    let length = std::fs::metadata(&db).unwrap().len();
    std::fs::write(&db, vec![0x5a; length as usize]).unwrap();
}

async fn crash_at_every_edge(manner: &'static str, schema: Schema) {
    let Some(mut trial) = Trial::set(manner, schema).await else { return };
    let wanted = std::env::var("PACKHORSE_EDGES").unwrap_or_default();
    for edge in edge::ALL.iter().filter(|edge| edge.starts_with(&wanted)) {
        trial.one(edge).await;
    }
    trial.finish().await;
    trial.scene.compare().await.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_edge_loses_and_doubles_nothing_at_the_receiver() {
    crash_at_every_edge("packhorse", Schema::classic()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_edge_loses_and_doubles_nothing_at_a_legacy_server() {
    crash_at_every_edge("legacy", Schema::newest()).await;
}
