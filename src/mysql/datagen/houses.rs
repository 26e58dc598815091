//! Whole houses in bulk: a catalog, and a packet of every node at each interval up to now.

use chrono::{NaiveDateTime, TimeDelta};
use sqlx::MySqlConnection;

use super::{
    Houses, Report,
    bulk::{Bulk, State},
    now, run, seconds,
};
use crate::mysql::fault::Trouble;

const DEPLOYMENT: &str = "Sample deployment";
const ROOMS: [(&str, &str); 8] = [
    ("Living Room", "Living"),
    ("Kitchen", "Wet"),
    ("Bedroom", "Sleeping"),
    ("Bathroom", "Wet"),
    ("Study", "Living"),
    ("Second Bedroom", "Sleeping"),
    ("Hall", "Living"),
    ("Loft", "Other"),
];
/// Global id, name, code, units, middle and swing of the values.
const SENSORS: [(u32, &str, &str, &str, f32, f32); 6] = [
    (0, "Temperature", "T", "deg.C", 19.0, 4.0),
    (2, "Humidity", "H", "%RH", 55.0, 15.0),
    (6, "Battery Voltage", "BAT", "V", 2.9, 0.1),
    (8, "CO2", "CO2", "ppm", 700.0, 300.0),
    (40, "Power", "POW", "W", 400.0, 350.0),
    (43, "Light", "LIG", "lux", 300.0, 300.0),
];

/// A node and where it stands.
struct Placed {
    node: u32,
    location: i64,
    /// The first packet that is not there yet.
    begin: NaiveDateTime,
    seq_num: i64,
}

pub(super) async fn make(
    connection: &mut MySqlConnection,
    houses: &Houses,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report, Trouble> {
    let interval = seconds(houses.interval);
    let now = now(connection).await?;
    let span = TimeDelta::seconds((houses.days.clamp(0.0, 36_500.0) * 86_400.0) as i64);
    let begin = now - span + TimeDelta::seconds(span.num_seconds() % interval.num_seconds());
    let sensors = &SENSORS[..SENSORS.len().min(houses.sensors as usize)];
    let mut nodes = catalog(connection, houses, begin, interval).await?;
    let mut bulk = Bulk::new(connection, progress);
    let mut time = begin;
    // In the order of the primary key, so that the server only appends.
    while time <= now {
        for placed in nodes.iter_mut().filter(|placed| placed.begin <= time) {
            for &(kind, .., middle, swing) in sensors {
                bulk.reading(time, placed.node, kind, Some(placed.location), sample(time, placed.node, kind, middle, swing))
                    .await?;
            }
            let localtime = (time - begin).num_milliseconds();
            let rssi = -50 - i64::from(placed.node % 40);
            bulk.state(time, &State { node: placed.node, parent: 1, localtime, seq_num: placed.seq_num, rssi }).await?;
            placed.seq_num = (placed.seq_num + 1) % 256;
        }
        time += interval;
    }
    Ok(bulk.finish().await?)
}

/// A daily wave with some noise, in hundredths; the same for the same place and time.
fn sample(time: NaiveDateTime, node: u32, kind: u32, middle: f32, swing: f32) -> f32 {
    let at = time.and_utc().timestamp();
    let day = (at.rem_euclid(86_400) as f32) / 86_400.0 * std::f32::consts::TAU;
    let mixed = (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ (u64::from(node) << 32 | u64::from(kind)).wrapping_mul(0xD1B5_4A32_D192_ED03);
    let noise = (mixed >> 40) as f32 / 16_777_216.0 - 0.5;
    let value = middle + swing * (0.8 * (day - f32::from(node as u8)).sin() + 0.2 * noise);
    (value * 100.0).round() / 100.0
}

/// Makes what is missing of the catalog; the nodes with their places.
async fn catalog(
    connection: &mut MySqlConnection,
    houses: &Houses,
    begin: NaiveDateTime,
    interval: TimeDelta,
) -> Result<Vec<Placed>, Trouble> {
    for (id, name, code, units, ..) in SENSORS {
        run(
            connection,
            format!("INSERT IGNORE INTO SensorType (id, name, code, units) VALUES ({id}, '{name}', '{code}', '{units}')"),
        )
        .await?;
    }
    let deployment = found_or_made(connection, "Deployment", &format!("name = '{DEPLOYMENT}', startDate = '{begin}'"), 1).await?;
    let rooms = ROOMS.len().min(houses.rooms as usize);
    let mut room_ids = Vec::with_capacity(rooms);
    for (name, kind) in &ROOMS[..rooms] {
        let kind = found_or_made(connection, "RoomType", &format!("name = '{kind}'"), 1).await?;
        room_ids.push(found_or_made(connection, "Room", &format!("name = '{name}', roomTypeId = {kind}"), 2).await?);
    }
    let mut placed = Vec::new();
    for house in 0..houses.houses {
        let address = format!("address = '{} Sample Street', deploymentId = {deployment}, startDate = '{begin}'", house + 1);
        let house_id = found_or_made(connection, "House", &address, 2).await?;
        for (place, room) in room_ids.iter().enumerate() {
            let location = found_or_made(connection, "Location", &format!("houseId = {house_id}, roomId = {room}"), 2).await?;
            let node = houses.first_node + house * ROOMS.len() as u32 + place as u32;
            let made = run(connection, format!("INSERT IGNORE INTO Node (id, locationId) VALUES ({node}, {location})")).await?;
            if made > 0 {
                for (kind, ..) in &SENSORS[..SENSORS.len().min(houses.sensors as usize)] {
                    let row = format!("({kind}, {node}, 1, 0)");
                    run(
                        connection,
                        format!("INSERT INTO Sensor (sensorTypeId, nodeId, calibrationSlope, calibrationOffset) VALUES {row}"),
                    )
                    .await?;
                }
            }
            let last: Option<NaiveDateTime> = sqlx::query_scalar("SELECT MAX(time) FROM Reading WHERE nodeId = ? AND type = 0")
                .bind(node)
                .fetch_one(&mut *connection)
                .await?;
            placed.push(Placed { node, location, begin: last.map_or(begin, |last| last + interval), seq_num: 0 });
        }
    }
    Ok(placed)
}

/// The id of the row whose first `identity` assignments hold, made with all of them when there is none.
async fn found_or_made(
    connection: &mut MySqlConnection,
    table: &str,
    assignments: &str,
    identity: usize,
) -> Result<i64, Trouble> {
    let same: Vec<_> = assignments.split(", ").take(identity).collect();
    let find = format!("SELECT CAST(MIN(id) AS SIGNED) FROM {table} WHERE {}", same.join(" AND "));
    let found: Option<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(find.clone())).fetch_one(&mut *connection).await?;
    if let Some(id) = found {
        return Ok(id);
    }
    run(connection, format!("INSERT INTO {table} SET {assignments}")).await?;
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(find)).fetch_one(connection).await?)
}
