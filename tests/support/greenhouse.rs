//! Real data: the log of a greenhouse's base station, with a catalog around it as a gateway would have one.

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use sqlx::{AssertSqlSafe, MySqlConnection};

use super::Database;

/// What a load put into the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub readings: u64,
    pub node_states: u64,
}

/// Ids that a fresh central database would not give by itself; nodes 1 and 2 live in one house, 3 and 10 in another, 11 in a third.
/// Node 100 has no location, and node 3 moves from the kitchen to the bathroom midway.
const CATALOG: &str = "
    INSERT INTO Deployment (id, name, description, startDate) VALUES (41, 'Greenhouse', 'pilot', '2015-08-01'), (43, 'Elsewhere', NULL, '2014-01-01');
    INSERT INTO House (id, deploymentId, address, startDate) VALUES (207, 41, '1 Greenhouse Row', '2015-08-01'), (203, 41, '2 Greenhouse Row', '2015-08-01'), (211, 43, '3 Other Street', NULL);
    INSERT INTO RoomType (id, name) VALUES (17, 'Living'), (13, 'Wet');
    INSERT INTO Room (id, roomTypeId, name) VALUES (31, 17, 'Bedroom'), (37, 13, 'Kitchen'), (33, 13, 'Bathroom');
    INSERT INTO Location (id, houseId, roomId) VALUES (509, 207, 31), (503, 207, 37), (521, 203, 37), (507, 203, 33), (533, 203, 31), (501, 211, 31);
    INSERT INTO SensorType (id, name, code, units, c0, c1, c2, c3) VALUES
        (0, 'Temperature', 'T', 'deg.C', -39.6, 0.01, 0, 0), (2, 'Humidity', 'H', '%RH', -2.0468, 0.0367, -0.0000015955, 0),
        (6, 'Battery Voltage', 'BAT', 'V', 0, 0.0732421875, 0, 0), (60, 'Black bulb', 'BB', 'V', 0, 1, 0, 0),
        (61, 'Airflow', 'AF', 'V', 0, 1, 0, 0), (62, 'Solar', 'SOL', 'V', 0, 1, 0, 0);
    INSERT INTO Node (id, locationId) VALUES (1, 509), (2, 503), (3, 507), (10, 533), (11, 501), (100, NULL);
    INSERT INTO Sensor (id, sensorTypeId, nodeId, calibrationSlope, calibrationOffset)
        SELECT 7000 + 100 * Node.id + SensorType.id, SensorType.id, Node.id, 1.0125, -0.1 FROM Node, SensorType;
";

fn sensor_type(name: &str) -> Option<u32> {
    Some(match name {
        "temperature" => 0,
        "humidity" => 2,
        "voltage" => 6,
        "adc0_blackbulb" => 60,
        "adc1_airflow" => 61,
        "adc2_solar" => 62,
        _ => return None,
    })
}

/// The folder of data for tests: `PACKHORSE_SHARED`, else `shared` beside the project.
pub fn shared() -> PathBuf {
    std::env::var_os("PACKHORSE_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from)
}

/// The catalog alone, without rows.
pub async fn load_catalog(database: &Database) {
    database.run(CATALOG).await;
}

/// Loads the catalog and whole packets until `readings_max` readings were offered. `None`, with a message, where the data is not there.
pub async fn load_greenhouse(database: &Database, readings_max: usize) -> Option<Loaded> {
    let path = shared().join("data/cogent_greenhouse.csv.xz");
    if !path.exists() {
        eprintln!("skipped: {} is not there (set PACKHORSE_SHARED)", path.display());
        return None;
    }
    load_catalog(database).await;
    let mut xz = Command::new("xz").arg("-dc").arg(&path).stdout(Stdio::piped()).spawn().expect("xz runs (package xz-utils)");
    let mut load = Load::begin(database, readings_max).await;
    let mut last: Option<Packet> = None;
    for line in BufReader::new(xz.stdout.take().unwrap()).lines().skip(1) {
        let line = line.unwrap();
        let [time, node, sensor, value, seq] = *line.split(',').collect::<Vec<_>>() else { panic!("five fields in {line}") };
        let same = last.as_ref().is_some_and(|packet| packet.time == time && packet.node == node && packet.seq == seq);
        if !same {
            if let Some(packet) = last.take() {
                load.add(&packet).await;
            }
            if load.offered >= readings_max {
                break;
            }
        }
        let packet =
            last.get_or_insert_with(|| Packet { time: time.into(), node: node.into(), seq: seq.into(), ..Packet::default() });
        match sensor {
            "parent" => value.clone_into(&mut packet.parent),
            "rssi" => value.clone_into(&mut packet.rssi),
            _ => packet
                .values
                .push((sensor_type(sensor).unwrap_or_else(|| panic!("a sensor type for {sensor}")), value.to_owned())),
        }
    }
    if let Some(packet) = last {
        load.add(&packet).await;
    }
    let _ = xz.kill();
    let _ = xz.wait();
    Some(load.finish().await)
}

/// What one radio packet brought.
#[derive(Default)]
struct Packet {
    time: String,
    node: String,
    seq: String,
    parent: String,
    rssi: String,
    values: Vec<(u32, String)>,
}

/// Rows on their way into the database, a thousand a statement, in big transactions.
struct Load<'d> {
    database: &'d Database,
    connection: sqlx::pool::PoolConnection<sqlx::MySql>,
    readings_max: usize,
    offered: usize,
    packets: i64,
    readings: Vec<String>,
    states: Vec<String>,
    loaded: Loaded,
}

impl<'d> Load<'d> {
    async fn begin(database: &'d Database, readings_max: usize) -> Self {
        let mut connection = database.admin().acquire().await.unwrap();
        execute(&mut connection, "SET time_zone = '+00:00'; START TRANSACTION".into()).await;
        let loaded = Loaded { readings: 0, node_states: 0 };
        let (readings, states) = (Vec::new(), Vec::new());
        Self { database, connection, readings_max, offered: 0, packets: 0, readings, states, loaded }
    }

    async fn add(&mut self, packet: &Packet) {
        let schema = self.database.schema();
        let time = packet.time.trim_end_matches('Z').replace('T', " ");
        let time = if schema.fraction { time } else { time.split('.').next().unwrap().to_owned() };
        let node = &packet.node;
        let half = self.offered >= self.readings_max / 2;
        let location = match (node.as_str(), half) {
            ("1", _) => "509",
            ("2", _) => "503",
            ("3", false) => "521",
            ("3", true) => "507",
            ("10", _) => "533",
            ("11", _) => "501",
            _ => "NULL",
        };
        for (kind, value) in &packet.values {
            let location = if schema.reading_location { format!(",{location}") } else { String::new() };
            self.readings.push(format!("('{time}',{node},{kind},{value}{location})"));
        }
        self.offered += packet.values.len();
        self.packets += 1;
        let or_null = |text: &str| if text.is_empty() { "NULL".to_owned() } else { text.to_owned() };
        let seq_num = if schema.seq_num { format!(",{}", packet.seq) } else { String::new() };
        let rssi = if schema.rssi { format!(",{}", or_null(&packet.rssi)) } else { String::new() };
        let (parent, localtime) = (or_null(&packet.parent), 1_000_000 + self.packets * 307_200);
        self.states.push(format!("('{time}',{node},{parent},{localtime}{seq_num}{rssi})"));
        if self.readings.len() >= 1_000 {
            self.flush().await;
        }
        if self.packets % 10_000 == 0 {
            execute(&mut self.connection, "COMMIT; START TRANSACTION".into()).await;
        }
    }

    async fn flush(&mut self) {
        let schema = self.database.schema();
        if !self.readings.is_empty() {
            let columns = if schema.reading_location { "time,nodeId,type,value,locationId" } else { "time,nodeId,type,value" };
            let sql = format!("INSERT IGNORE INTO Reading ({columns}) VALUES {}", self.readings.join(","));
            self.loaded.readings += execute(&mut self.connection, sql).await;
        }
        if !self.states.is_empty() {
            let seq_num = if schema.seq_num { ",seq_num" } else { "" };
            let rssi = if schema.rssi { ",rssi" } else { "" };
            let columns = format!("time,nodeId,parent,`localtime`{seq_num}{rssi}");
            let sql = format!("INSERT IGNORE INTO NodeState ({columns}) VALUES {}", self.states.join(","));
            self.loaded.node_states += execute(&mut self.connection, sql).await;
        }
        self.readings.clear();
        self.states.clear();
    }

    async fn finish(mut self) -> Loaded {
        self.flush().await;
        execute(&mut self.connection, "COMMIT".into()).await;
        self.loaded
    }
}

async fn execute(connection: &mut MySqlConnection, sql: String) -> u64 {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.unwrap().rows_affected()
}
