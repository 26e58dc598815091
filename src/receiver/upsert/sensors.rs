//! Sensors of nodes.
//!
//! The one rule: there is one sensor for each node and sensor type; the oldest takes the new calibration.

use super::each::Put;
use crate::receiver::{
    bulk::Sensor,
    cell::{Cell, Cells},
    tables::Kind,
};

/// Stores sensors over those that are there.
pub(super) async fn replace(put: &mut Put<'_>, sensors: &[Sensor]) -> Result<(), sqlx::Error> {
    let dialect = put.dialect();
    let find = format!("SELECT min(id) FROM Sensor WHERE {} AND {}", dialect.same("nodeId"), dialect.same("sensorTypeId"));
    for sensor in sensors {
        let [kind, node, slope, offset] = values(sensor);
        let Some(id) = put.change().one(find.clone(), [node, kind], Kind::Int).await?.int() else {
            insert(put, std::slice::from_ref(sensor)).await?;
            continue;
        };
        let update = "UPDATE Sensor SET calibrationSlope = ?, calibrationOffset = ? WHERE id = ?".to_owned();
        put.change().execute(update, [slope, offset, Cell::Int(id)]).await?;
        put.had.push(sensor.place);
    }
    Ok(())
}

/// Stores sensors whatever is there.
pub(super) async fn insert(put: &mut Put<'_>, sensors: &[Sensor]) -> Result<(), sqlx::Error> {
    let into = "INSERT INTO Sensor (sensorTypeId, nodeId, calibrationSlope, calibrationOffset)";
    put.all(into, sensors, |sensor| -> Cells { values(sensor).to_vec() }, "").await
}

fn values(sensor: &Sensor) -> [Cell; 4] {
    let int = |number: Option<i64>| number.map_or(Cell::Null, Cell::Int);
    let real = |number: Option<f64>| number.map_or(Cell::Null, Cell::Real);
    [int(sensor.kind), int(sensor.node), real(sensor.slope), real(sensor.offset)]
}
