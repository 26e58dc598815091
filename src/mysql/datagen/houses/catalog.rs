//! The catalog around the nodes: what is there already is used again.

use sqlx::MySqlConnection;

use super::{
    super::{Houses, found_or_made, run, text_of},
    node::Node,
    sensors::{ROOMS, SENSORS, Sensor},
};
use crate::{domain::Micros, mysql::fault::Trouble};

const DEPLOYMENT: &str = "Sample deployment";

/// The sensors of each node.
pub(super) fn sensors(houses: &Houses) -> &'static [Sensor] {
    &SENSORS[..SENSORS.len().min(houses.sensors as usize)]
}

/// Makes what is missing of the catalog; the nodes, each of which begins at `begin` or behind its last row.
pub(super) async fn make(
    connection: &mut MySqlConnection,
    houses: &Houses,
    begin: i64,
    interval: i64,
) -> Result<Vec<Node>, Trouble> {
    for Sensor { id, name, code, units, .. } in &SENSORS {
        let row = format!("({id}, '{name}', '{code}', '{units}')");
        run(connection, format!("INSERT IGNORE INTO SensorType (id, name, code, units) VALUES {row}")).await?;
    }
    let since = text_of(Micros(begin * 1_000_000));
    let deployment = found_or_made(connection, "Deployment", &format!("name = '{DEPLOYMENT}', startDate = '{since}'"), 1).await?;
    let rooms = &ROOMS[..ROOMS.len().min(houses.rooms as usize)];
    let mut room_ids = Vec::with_capacity(rooms.len());
    for (name, kind, ..) in rooms {
        let kind = found_or_made(connection, "RoomType", &format!("name = '{kind}'"), 1).await?;
        room_ids.push(found_or_made(connection, "Room", &format!("name = '{name}', roomTypeId = {kind}"), 2).await?);
    }
    let mut nodes = Vec::new();
    for house in 0..houses.houses {
        let address = format!("address = '{} Sample Street', deploymentId = {deployment}, startDate = '{since}'", house + 1);
        let house_id = found_or_made(connection, "House", &address, 2).await?;
        let first = houses.first_node + house * ROOMS.len() as u32;
        for (room, room_id) in room_ids.iter().enumerate() {
            let location = found_or_made(connection, "Location", &format!("houseId = {house_id}, roomId = {room_id}"), 2).await?;
            let id = first + room as u32;
            let made = run(connection, format!("INSERT IGNORE INTO Node (id, locationId) VALUES ({id}, {location})")).await?;
            if made > 0 {
                for sensor in sensors(houses) {
                    let row = format!("({}, {id}, 1, 0)", sensor.id);
                    let head = "INSERT INTO Sensor (sensorTypeId, nodeId, calibrationSlope, calibrationOffset) VALUES";
                    run(connection, format!("{head} {row}")).await?;
                }
            }
            // What stands far from the base station is heard through the house's first node.
            let parent = if room < 2 { 1 } else { first };
            let mut node = Node::new(id, location, room, parent, interval, houses.seed, houses.flaws);
            let last: Option<chrono::NaiveDateTime> =
                sqlx::query_scalar("SELECT MAX(time) FROM Reading WHERE nodeId = ? AND type = 0")
                    .bind(id)
                    .fetch_one(&mut *connection)
                    .await?;
            let next = last.map_or(begin, |last| last.and_utc().timestamp() + node.behind + 1);
            node.begins(begin.max(next));
            nodes.push(node);
        }
    }
    Ok(nodes)
}
