//! The catalog: nine small tables, read at one moment.
//!
//! The one rule: one snapshot. A node that points to a location which was made between two reads would lose its room.

use futures_util::TryStreamExt as _;
use sqlx::{Executor as _, MySqlConnection, Row as _, mysql::MySqlRow};

use super::{
    decode::{any_float, any_int, any_time},
    fault::Trouble,
    query::quoted,
    schema::Schema,
};
use crate::{
    domain::{
        Catalog, Deployment, Entity, EntityKind, House, LocalId, LocalRef, Location, Micros, Node, NodeType, Room, RoomType,
        Sensor, SensorType,
    },
    ports::SourceError,
};

/// More than any deployment has; a table of readings under a catalog name must not fill the memory.
const ROWS_MAX: usize = 1_000_000;

/// A column of a catalog table.
pub(super) struct CatalogColumn {
    pub name: &'static str,
    /// Without it the table cannot be used; all others may be missing and are then NULL.
    pub needed: bool,
}

const fn needed(name: &'static str) -> CatalogColumn {
    CatalogColumn { name, needed: true }
}

const fn may_lack(name: &'static str) -> CatalogColumn {
    CatalogColumn { name, needed: false }
}

static SENSOR_TYPE: &[CatalogColumn] = &[
    needed("id"),
    needed("name"),
    may_lack("code"),
    may_lack("units"),
    may_lack("c0"),
    may_lack("c1"),
    may_lack("c2"),
    may_lack("c3"),
];
static ROOM_TYPE: &[CatalogColumn] = &[needed("id"), needed("name")];
static ROOM: &[CatalogColumn] = &[needed("id"), may_lack("roomTypeId"), needed("name")];
static DEPLOYMENT: &[CatalogColumn] =
    &[needed("id"), needed("name"), may_lack("description"), may_lack("startDate"), may_lack("endDate")];
static HOUSE: &[CatalogColumn] =
    &[needed("id"), may_lack("deploymentId"), needed("address"), may_lack("startDate"), may_lack("endDate")];
static LOCATION: &[CatalogColumn] = &[needed("id"), needed("houseId"), needed("roomId")];
static NODE_TYPE: &[CatalogColumn] = &[
    needed("id"),
    may_lack("name"),
    may_lack("time"),
    may_lack("seq"),
    may_lack("updated_seq"),
    may_lack("period"),
    may_lack("blink"),
    may_lack("configured"),
];
static NODE: &[CatalogColumn] = &[needed("id"), may_lack("locationId"), may_lack("nodeTypeId")];
static SENSOR: &[CatalogColumn] =
    &[needed("id"), needed("sensorTypeId"), needed("nodeId"), may_lack("calibrationSlope"), may_lack("calibrationOffset")];

/// The columns of a kind's table, in the order in which [`entity`] reads them.
pub(super) fn columns(kind: EntityKind) -> &'static [CatalogColumn] {
    match kind {
        EntityKind::SensorType => SENSOR_TYPE,
        EntityKind::RoomType => ROOM_TYPE,
        EntityKind::Room => ROOM,
        EntityKind::Deployment => DEPLOYMENT,
        EntityKind::House => HOUSE,
        EntityKind::Location => LOCATION,
        EntityKind::NodeType => NODE_TYPE,
        EntityKind::Node => NODE,
        EntityKind::Sensor => SENSOR,
    }
}

/// Reads all of it.
pub(super) async fn read(connection: &mut MySqlConnection, schema: &Schema) -> Result<Catalog, Trouble> {
    connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let mut catalog = Catalog::new();
    for kind in EntityKind::ALL {
        if let Some(present) = schema.catalog.get(&kind) {
            read_kind(connection, kind, present, &mut catalog).await?;
        }
    }
    // On the way here any error gives the connection up, and the transaction with it.
    connection.execute("COMMIT").await?;
    Ok(catalog)
}

async fn read_kind(
    connection: &mut MySqlConnection,
    kind: EntityKind,
    present: &[String],
    catalog: &mut Catalog,
) -> Result<(), Trouble> {
    let select = |column: &CatalogColumn| {
        if present.iter().any(|name| name.eq_ignore_ascii_case(column.name)) { quoted(column.name) } else { "NULL".to_owned() }
    };
    let list: Vec<_> = columns(kind).iter().map(select).collect();
    let sql = format!("SELECT {} FROM {}", list.join(", "), quoted(kind.table()));
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let row = CatalogRow { kind, row: &row };
        let id = row.id(0)?.ok_or_else(|| row.fault(0, "is NULL"))?;
        catalog.insert(LocalRef { kind, id }, entity(&row)?);
        if catalog.len() > ROWS_MAX {
            let advice = format!("the catalog tables hold more than {ROWS_MAX} rows, the last of them in {kind}; what fills it?");
            return Err(SourceError::Query { advice, cause: None }.into());
        }
    }
    Ok(())
}

/// One row of a kind's table, with its columns in the order of [`columns`].
struct CatalogRow<'r> {
    kind: EntityKind,
    row: &'r MySqlRow,
}

impl CatalogRow<'_> {
    fn fault(&self, at: usize, why: &str) -> SourceError {
        let id = any_int(self.row, 0).ok().flatten().map_or_else(|| "?".to_owned(), |id| id.to_string());
        SourceError::Row { advice: format!("{} row with id {id}: column {} {why}", self.kind, columns(self.kind)[at].name) }
    }

    fn id(&self, at: usize) -> Result<Option<LocalId>, SourceError> {
        Ok(self.int(at)?.map(LocalId))
    }

    fn int(&self, at: usize) -> Result<Option<i64>, SourceError> {
        any_int(self.row, at).map_err(|why| self.fault(at, &why))
    }

    fn float(&self, at: usize) -> Result<Option<f32>, SourceError> {
        any_float(self.row, at).map_err(|why| self.fault(at, &why))
    }

    fn text(&self, at: usize) -> Result<Option<String>, SourceError> {
        let text: Option<String> =
            self.row.try_get_unchecked(at).map_err(|error| self.fault(at, &format!("is not text ({error})")))?;
        Ok(text.map(|text| cut(text, TEXT_CHARS_MAX)))
    }

    fn time(&self, at: usize) -> Option<Micros> {
        any_time(self.row, at)
    }
}

/// An entity is kept as one small value, so a text is bounded: the schema's own columns hold 255 characters at most.
const TEXT_CHARS_MAX: usize = 1_000;

fn cut(mut text: String, chars_max: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(chars_max) {
        text.truncate(at);
    }
    text
}

fn entity(row: &CatalogRow<'_>) -> Result<Entity<LocalId>, SourceError> {
    Ok(match row.kind {
        EntityKind::SensorType => Entity::SensorType(SensorType {
            name: row.text(1)?,
            code: row.text(2)?,
            units: row.text(3)?,
            coefficients: [row.float(4)?, row.float(5)?, row.float(6)?, row.float(7)?],
        }),
        EntityKind::RoomType => Entity::RoomType(RoomType { name: row.text(1)? }),
        EntityKind::Room => Entity::Room(Room { room_type: row.id(1)?, name: row.text(2)? }),
        EntityKind::Deployment => {
            Entity::Deployment(Deployment { name: row.text(1)?, description: row.text(2)?, start: row.time(3), end: row.time(4) })
        }
        EntityKind::House => {
            Entity::House(House { deployment: row.id(1)?, address: row.text(2)?, start: row.time(3), end: row.time(4) })
        }
        EntityKind::Location => Entity::Location(Location { house: row.id(1)?, room: row.id(2)? }),
        EntityKind::NodeType => Entity::NodeType(NodeType {
            name: row.text(1)?,
            time: row.time(2),
            seq: row.int(3)?,
            updated_seq: row.int(4)?,
            period: row.int(5)?,
            blink: row.int(6)?.map(|blink| blink != 0),
            configured: row.text(7)?,
        }),
        EntityKind::Node => Entity::Node(Node { location: row.id(1)?, node_type: row.id(2)? }),
        EntityKind::Sensor => Entity::Sensor(Sensor {
            sensor_type: row.id(1)?,
            node: row.id(2)?,
            calibration_slope: row.float(3)?,
            calibration_offset: row.float(4)?,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(cut("Gewächshaus".into(), 4), "Gewä");
        assert_eq!(cut("Haus".into(), 4), "Haus");
    }
}
