//! The readings of a file, with a catalog around them: a house called as the file, a room for each node.

use std::{collections::HashMap, path::Path, time::Duration};

use sqlx::MySqlConnection;

use super::{
    Ended, FromCsv, Report,
    bulk::{Bulk, OrNull, State},
    csv::{self, CsvError, Packet},
    found_or_made, now, run,
};
use crate::{domain::Micros, mysql::fault::Trouble};

const DEPLOYMENT: &str = "Sample deployment";
/// Nodes that have a name and no number are numbered from here on, and sensor types from there on.
const NODES_FROM: i64 = 1_000;
const TYPES_FROM: i64 = 100;
/// Room.name holds so much.
const ROOM_CHARS: usize = 20;
/// Rows at a rate are committed so often.
const TICK: Duration = Duration::from_millis(250);

/// A node of the file, as it is in the database.
#[derive(Clone, Copy)]
struct Placed {
    id: u32,
    location: Option<i64>,
    /// Its last row from before: what is not later is there already.
    last: Option<Micros>,
}

pub(super) async fn make(
    connection: &mut MySqlConnection,
    file: &FromCsv,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report, Ended> {
    let now = Micros::from_datetime(now(connection).await?);
    let house = house(connection, &file.path).await?;
    let has_fraction = has_fraction(connection).await?;
    let mut batches = csv::packets(&file.path);
    let mut bulk = Bulk::new(connection, progress);
    let (mut nodes, mut kinds) = (HashMap::<String, Placed>::new(), HashMap::<String, u32>::new());
    let mut pace = file.rows_per_second.map(Pace::new);
    let mut passed_over = 0;
    while let Some(batch) = batches.recv().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => {
                // What stands before the wrong line stays.
                bulk.commit().await?;
                return Err(Ended::Csv(error));
            }
        };
        for packet in batch {
            let Some(time) = packet.time else { continue };
            let time = if has_fraction { time } else { time.cut_to_second() };
            if time > now {
                bulk.commit().await?;
                return Err(Ended::Csv(wrong(&file.path, &packet, format!("{time} lies in the future, which no reading does"))));
            }
            let node = match nodes.get(&packet.node) {
                Some(node) => *node,
                None => *nodes.entry(packet.node.clone()).or_insert(place(bulk.connection(), house, &packet.node).await?),
            };
            if node.last.is_some_and(|last| time <= last) {
                passed_over += 1;
                continue;
            }
            for (sensor, value) in &packet.values {
                let kind = match kinds.get(sensor) {
                    Some(kind) => *kind,
                    None => *kinds.entry(sensor.clone()).or_insert(sensor_type(bulk.connection(), sensor).await?),
                };
                bulk.reading(time, node.id, kind, node.location, OrNull(*value)).await?;
            }
            if packet.seq.is_some() || packet.parent.is_some() || packet.rssi.is_some() {
                let localtime = time.0.div_euclid(1_000);
                let Packet { parent, seq: seq_num, rssi, .. } = packet;
                bulk.state(time, &State { node: node.id, parent, localtime, seq_num, rssi }).await?;
            }
            if let Some(pace) = &mut pace
                && pace.is_full(packet.values.len() + 1)
            {
                bulk.commit().await?;
                pace.next().await;
            }
        }
    }
    Ok(Report { passed_over, ..bulk.finish().await? })
}

fn wrong(path: &Path, packet: &Packet, what: String) -> CsvError {
    CsvError::Line { path: path.to_owned(), line: packet.line, what }
}

/// So many rows in each tick.
struct Pace {
    ticks: tokio::time::Interval,
    rows_per_tick: f64,
    credit: f64,
}

impl Pace {
    fn new(rows_per_second: u32) -> Self {
        let rows_per_tick = f64::from(rows_per_second) * TICK.as_secs_f64();
        Self { ticks: tokio::time::interval(TICK), rows_per_tick, credit: rows_per_tick }
    }

    fn is_full(&mut self, rows: usize) -> bool {
        self.credit -= rows as f64;
        self.credit <= 0.0
    }

    async fn next(&mut self) {
        while self.credit <= 0.0 {
            self.ticks.tick().await;
            self.credit += self.rows_per_tick;
        }
    }
}

/// Whether times keep a fraction of a second here: else the server would round them, up as well.
async fn has_fraction(connection: &mut MySqlConnection) -> Result<bool, sqlx::Error> {
    let sql = "SELECT CAST(COALESCE(MIN(DATETIME_PRECISION), 0) AS SIGNED) FROM information_schema.COLUMNS \
               WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN ('Reading', 'NodeState') AND COLUMN_NAME = 'time'";
    let precision: i64 = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(precision == 6)
}

/// The house that stands for the file, and the room type of its rooms.
#[derive(Clone, Copy)]
struct House {
    id: i64,
    room_type: i64,
}

async fn house(connection: &mut MySqlConnection, path: &Path) -> Result<House, Trouble> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = if path == "-" { "standard input" } else { name.split('.').next().unwrap_or_default() };
    let deployment = found_or_made(connection, "Deployment", &format!("name = '{DEPLOYMENT}'"), 1).await?;
    let room_type = found_or_made(connection, "RoomType", "name = 'Sample'", 1).await?;
    let find = "SELECT CAST(MIN(id) AS SIGNED) FROM House WHERE address = ? AND deploymentId = ?";
    let find = |name: &str| sqlx::query_scalar::<_, Option<i64>>(find).bind(name.to_owned()).bind(deployment);
    if let Some(id) = find(name).fetch_one(&mut *connection).await? {
        return Ok(House { id, room_type });
    }
    let add = sqlx::query("INSERT INTO House (address, deploymentId) VALUES (?, ?)").bind(name.to_owned()).bind(deployment);
    let id = add.execute(connection).await?.last_insert_id() as i64;
    Ok(House { id, room_type })
}

/// The node that a name or a number stands for; made, in a room of its own, when it is not there.
async fn place(connection: &mut MySqlConnection, house: House, name: &str) -> Result<Placed, Trouble> {
    let number: Option<u32> = name.parse().ok();
    let room = number.map_or_else(|| name.to_owned(), |number| format!("Node {number}"));
    let room: String = room.chars().take(ROOM_CHARS).collect();
    let by_room = "SELECT CAST(Node.id AS SIGNED) FROM Node JOIN Location ON Location.id = Node.locationId \
                   JOIN Room ON Room.id = Location.roomId WHERE Location.houseId = ? AND Room.name = ? ORDER BY Node.id LIMIT 1";
    let known: Option<i64> = match number {
        Some(number) => {
            sqlx::query_scalar("SELECT CAST(id AS SIGNED) FROM Node WHERE id = ?")
                .bind(number)
                .fetch_optional(&mut *connection)
                .await?
        }
        None => sqlx::query_scalar(by_room).bind(house.id).bind(&room).fetch_optional(&mut *connection).await?,
    };
    let id = if let Some(id) = known {
        id
    } else {
        let room = room_of(connection, house, &room).await?;
        let location = found_or_made(connection, "Location", &format!("houseId = {}, roomId = {room}", house.id), 2).await?;
        let next = format!("SELECT CAST(GREATEST({NODES_FROM}, COALESCE(MAX(id), 0) + 1) AS SIGNED) FROM Node");
        let id = match number {
            Some(number) => i64::from(number),
            None => sqlx::query_scalar(sqlx::AssertSqlSafe(next)).fetch_one(&mut *connection).await?,
        };
        run(connection, format!("INSERT INTO Node (id, locationId) VALUES ({id}, {location})")).await?;
        id
    };
    let location = sqlx::query_scalar("SELECT CAST(locationId AS SIGNED) FROM Node WHERE id = ?");
    let location: Option<i64> = location.bind(id).fetch_one(&mut *connection).await?;
    let mut last = None;
    for table in ["Reading", "NodeState"] {
        let latest = format!("SELECT CAST(MAX(time) AS DATETIME(6)) FROM {table} WHERE nodeId = {id}");
        let latest: Option<chrono::NaiveDateTime> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(latest)).fetch_one(&mut *connection).await?;
        last = last.max(latest.map(Micros::from_datetime));
    }
    Ok(Placed { id: id as u32, location, last })
}

async fn room_of(connection: &mut MySqlConnection, house: House, name: &str) -> Result<i64, Trouble> {
    let find = "SELECT CAST(MIN(id) AS SIGNED) FROM Room WHERE name = ? AND roomTypeId = ?";
    let found: Option<i64> = sqlx::query_scalar(find).bind(name).bind(house.room_type).fetch_one(&mut *connection).await?;
    if let Some(id) = found {
        return Ok(id);
    }
    let add = sqlx::query("INSERT INTO Room (name, roomTypeId) VALUES (?, ?)").bind(name).bind(house.room_type);
    Ok(add.execute(connection).await?.last_insert_id() as i64)
}

/// The sensor type of that name; made when there is none.
async fn sensor_type(connection: &mut MySqlConnection, name: &str) -> Result<u32, Trouble> {
    let find = "SELECT CAST(MIN(id) AS SIGNED) FROM SensorType WHERE name = ?";
    let found: Option<i64> = sqlx::query_scalar(find).bind(name).fetch_one(&mut *connection).await?;
    if let Some(id) = found {
        return Ok(id as u32);
    }
    let next = format!("SELECT CAST(GREATEST({TYPES_FROM}, COALESCE(MAX(id), 0) + 1) AS SIGNED) FROM SensorType");
    let id: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(next)).fetch_one(&mut *connection).await?;
    let code: String = name.chars().take(3).collect::<String>().to_uppercase();
    let add = sqlx::query("INSERT INTO SensorType (id, name, code) VALUES (?, ?, ?)").bind(id).bind(name).bind(code);
    add.execute(connection).await?;
    Ok(id as u32)
}
