//! Lists of every table, and single objects that are posted or put.
//!
//! The one rule: a look and the store that follows it stand in one change, so that the same thing posted twice at once is stored once.

use futures_util::TryStreamExt as _;
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, SqliteConnection, sqlite::SqliteRow};

use super::{
    Manner,
    cell::{Cell, Cells, cells_of},
    query::{Selection, Span},
    refusal::Refusal,
    store::{Store, fetch},
    tables::{Repeat, Table, quoted},
};

/// More rows than this do not come in one answer (I7).
const ANSWER_ROWS_MAX: i64 = 500_000;

/// Some rows of a table, and what was there to see.
#[derive(Debug)]
pub(super) struct Listed {
    /// The rows.
    pub rows: Vec<Cells>,
    /// With a range: how many rows match, and how many the table has.
    pub counts: Option<(i64, i64)>,
}

/// Lists the rows of a table.
pub(super) async fn list(
    store: &Store,
    table: &'static Table,
    selection: Selection,
    span: Option<Span>,
    manner: Manner,
) -> Result<Listed, Refusal> {
    let mut step = store.look().await?;
    let look = step.open()?;
    let Selection { condition, mut cells, order } = selection;
    let counts = if span.is_some() {
        let matching = format!("SELECT count(*) FROM \"{}\" WHERE {condition}", table.name);
        let all = format!("SELECT count(*) FROM \"{}\"", table.name);
        Some((count(look, matching, cells.clone()).await?, count(look, all, Vec::new()).await?))
    } else {
        None
    };
    let span = span.unwrap_or(Span { from: 0, count: i64::MAX });
    let columns = quoted(table.columns(manner).map(|column| column.name));
    let sql = format!("SELECT {columns} FROM \"{}\" WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?", table.name);
    cells.push(Cell::Int(span.count.min(ANSWER_ROWS_MAX + 1)));
    cells.push(Cell::Int(span.from));
    let mut rows = Vec::new();
    {
        let query = cells.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, cell| cell.bind(query));
        let mut found = query.fetch(look);
        while let Some(row) = found.try_next().await? {
            rows.push(decode(table, &row, manner)?);
        }
    }
    step.end().await?;
    if rows.len() as i64 > ANSWER_ROWS_MAX {
        let advice = format!("more than {ANSWER_ROWS_MAX} rows match: ask for fewer with a header such as Range: items=0-10000");
        return Err(Refusal::TooLarge(advice));
    }
    Ok(Listed { rows, counts })
}

fn decode(table: &'static Table, row: &SqliteRow, manner: Manner) -> Result<Cells, sqlx::Error> {
    table.columns(manner).enumerate().map(|(place, column)| Cell::from_row(column, row, place)).collect()
}

async fn count(look: &mut SqliteConnection, sql: String, cells: Cells) -> Result<i64, Refusal> {
    let rows = fetch(look, sql, cells).await?;
    Ok(rows.first().map_or(Ok(0), |row| sqlx::Row::try_get(row, 0))?)
}

/// The newest time of the readings of a house, by its address.
pub(super) async fn last_of_house(store: &Store, address: &str) -> Result<Option<String>, Refusal> {
    let mut step = store.look().await?;
    let newest = "SELECT max((SELECT max(time) FROM Reading WHERE locationId = Location.id)) FROM Location \
                  WHERE houseId IN (SELECT id FROM House WHERE address = ?)";
    let newest = sqlx::query_scalar(newest).bind(address).fetch_one(step.open()?).await?;
    step.end().await?;
    Ok(newest)
}

/// The newest time of the readings of a node.
pub(super) async fn last_of_node(store: &Store, node: i64) -> Result<Option<String>, Refusal> {
    let mut step = store.look().await?;
    let newest = "SELECT max(time) FROM Reading WHERE nodeId = ?";
    let newest = sqlx::query_scalar(newest).bind(node).fetch_one(step.open()?).await?;
    step.end().await?;
    Ok(newest)
}

/// What a single object is stored as.
#[derive(Debug)]
pub(super) struct Stored {
    /// Its id.
    pub id: i64,
    /// The row that the answer shows.
    pub cells: Cells,
}

/// Stores a posted object, or finds the one that it repeats.
pub(super) async fn post(
    store: &Store,
    table: &'static Table,
    object: Map<String, Value>,
    manner: Manner,
) -> Result<Stored, Refusal> {
    let mut cells = cells_of(table, &object, manner)?;
    if table.name == "Pushstatus" {
        let now = crate::domain::Micros::from_datetime(chrono::Utc::now().naive_utc());
        set(table, &mut cells, "time", Cell::Text(now.to_string()), manner);
    }
    if manner.is_legacy() {
        return post_legacy(store, table, cells, manner).await;
    }
    if let Some(named) = object.get(crate::wire::TABLE_KEY).filter(|named| named.as_str().and_then(Table::named) != Some(table)) {
        return Err(Refusal::Malformed(format!("{} is posted to {}/", cut(named), table.word())));
    }
    if !table.has_global_id() {
        set(table, &mut cells, "id", Cell::Null, manner);
    } else if get(table, &cells, "id", manner) == Cell::Null {
        return Err(Refusal::Malformed(format!("a {} needs its id", table.name)));
    }
    let mut step = store.change().await?;
    let change = step.open()?;
    check_references(change, table, &cells, manner).await?;
    let found = find(change, table, &cells, manner).await?;
    let stored = match (found, table.repeat) {
        (None, _) => insert(change, table, cells.clone(), cells, manner).await?,
        (Some(there), Repeat::Keep | Repeat::Another) => there,
        (Some(there), Repeat::Guard(columns)) => {
            for name in columns {
                let (here, posted) = (get(table, &there.cells, name, manner), get(table, &cells, name, manner));
                if here != posted {
                    let text = format!("{} {} has {name} {here:?} here, not {posted:?}: a conflict", table.name, there.id);
                    return Err(Refusal::Conflict(text));
                }
            }
            there
        }
        (Some(there), Repeat::Replace) => {
            set(table, &mut cells, "id", Cell::Int(there.id), manner);
            replace(change, table, there.id, cells, manner).await?
        }
    };
    step.end().await?;
    Ok(stored)
}

/// The legacy server stores whatever its keys and references allow, and shows the object as it came.
async fn post_legacy(store: &Store, table: &'static Table, cells: Cells, manner: Manner) -> Result<Stored, Refusal> {
    if table.name == "House" && matches!(get(table, &cells, "address", manner), Cell::Text(text) if !text.is_ascii()) {
        return Err(Refusal::Legacy("an address with a letter beyond ASCII".to_owned()));
    }
    let mut step = store.change().await?;
    let change = step.open()?;
    check_references(change, table, &cells, manner).await?;
    let kept = table.columns(manner).zip(cells.clone()).map(|(column, cell)| cell.cut_as_legacy(column)).collect();
    let stored = insert(change, table, kept, cells, manner).await?;
    step.end().await?;
    Ok(stored)
}

/// Replaces a row by a whole object: what the object lacks becomes NULL.
pub(super) async fn put(
    store: &Store,
    table: &'static Table,
    id: i64,
    object: Map<String, Value>,
    manner: Manner,
) -> Result<Stored, Refusal> {
    let mut cells = cells_of(table, &object, manner)?;
    match get(table, &cells, "id", manner) {
        Cell::Int(named) if named != id && !manner.is_legacy() => {
            return Err(Refusal::Malformed(format!("the address says id {id}, the object says {named}")));
        }
        _ => set(table, &mut cells, "id", Cell::Int(id), manner),
    }
    let mut step = store.change().await?;
    let change = step.open()?;
    check_references(change, table, &cells, manner).await?;
    if !manner.is_legacy()
        && let Some(other) = find(change, table, &cells, manner).await?
        && other.id != id
    {
        return Err(Refusal::Conflict(format!(
            "{} {} is that one already: there are no two of one identity",
            table.name, other.id
        )));
    }
    let by_id = format!("SELECT count(*) FROM \"{}\" WHERE id = ?", table.name);
    let stored = if count(change, by_id, vec![Cell::Int(id)]).await? > 0 {
        replace(change, table, id, cells, manner).await?
    } else if table.has_global_id() || manner.is_legacy() {
        insert(change, table, cells.clone(), cells, manner).await?
    } else {
        return Err(Refusal::Missing(format!("there is no {} {id} here", table.name)));
    };
    step.end().await?;
    Ok(stored)
}

/// Refuses an object that points to rows that are not here.
async fn check_references(
    change: &mut SqliteConnection,
    table: &'static Table,
    cells: &[Cell],
    manner: Manner,
) -> Result<(), Refusal> {
    for (column, cell) in table.columns(manner).zip(cells) {
        let (Some(to), Cell::Int(id)) = (column.refers, cell) else { continue };
        if count(change, format!("SELECT count(*) FROM \"{to}\" WHERE id = ?"), vec![cell.clone()]).await? == 0 {
            return Err(Refusal::Missing(format!("{}.{} {id}: there is no such {to} here", table.name, column.name)));
        }
    }
    Ok(())
}

/// The oldest row with the same identity; NULL is a value in it.
async fn find(
    change: &mut SqliteConnection,
    table: &'static Table,
    cells: &[Cell],
    manner: Manner,
) -> Result<Option<Stored>, Refusal> {
    if table.identity.is_empty() {
        return Ok(None);
    }
    let same = table.identity.iter().map(|name| format!("\"{name}\" IS ?")).collect::<Vec<_>>().join(" AND ");
    let columns = quoted(table.columns(manner).map(|column| column.name));
    let sql = format!("SELECT {columns} FROM \"{}\" WHERE {same} ORDER BY id LIMIT 1", table.name);
    let identity = table.identity.iter().map(|name| get(table, cells, name, manner));
    let rows = fetch(change, sql, identity).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let cells = decode(table, row, manner)?;
    Ok(Some(Stored { id: id_of(table, &cells, manner), cells }))
}

/// Inserts `kept` and answers with `shown`, both under the id that the row gets.
async fn insert(
    change: &mut SqliteConnection,
    table: &'static Table,
    kept: Cells,
    mut shown: Cells,
    manner: Manner,
) -> Result<Stored, Refusal> {
    let columns = quoted(table.columns(manner).map(|column| column.name));
    let places = vec!["?"; kept.len()].join(", ");
    let sql = format!("INSERT INTO \"{}\" ({columns}) VALUES ({places}) RETURNING id", table.name);
    let rows = fetch(change, sql, kept).await.map_err(refused_by_key)?;
    let id = rows.first().map_or(Ok(0), |row| sqlx::Row::try_get(row, 0))?;
    set(table, &mut shown, "id", Cell::Int(id), manner);
    Ok(Stored { id, cells: shown })
}

async fn replace(
    change: &mut SqliteConnection,
    table: &'static Table,
    id: i64,
    cells: Cells,
    manner: Manner,
) -> Result<Stored, Refusal> {
    let sets = table.columns(manner).map(|column| format!("\"{}\" = ?", column.name)).collect::<Vec<_>>().join(", ");
    let sql = format!("UPDATE \"{}\" SET {sets} WHERE id = ?", table.name);
    fetch(change, sql, cells.iter().cloned().chain([Cell::Int(id)])).await?;
    Ok(Stored { id, cells })
}

/// A key that is already there is the request's fault (only the legacy manner runs into one), all else the database's.
fn refused_by_key(error: sqlx::Error) -> Refusal {
    match error.as_database_error() {
        Some(cause) if cause.is_unique_violation() || cause.is_foreign_key_violation() => {
            Refusal::Legacy(cause.message().to_owned())
        }
        _ => Refusal::Unavailable(error),
    }
}

/// The beginning of a value, for people.
fn cut(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

fn get(table: &'static Table, cells: &[Cell], name: &str, manner: Manner) -> Cell {
    table.columns(manner).zip(cells).find(|(column, _)| column.name == name).map_or(Cell::Null, |(_, cell)| cell.clone())
}

fn set(table: &'static Table, cells: &mut [Cell], name: &str, value: Cell, manner: Manner) {
    if let Some((_, cell)) = table.columns(manner).zip(cells).find(|(column, _)| column.name == name) {
        *cell = value;
    }
}

fn id_of(table: &'static Table, cells: &[Cell], manner: Manner) -> i64 {
    match get(table, cells, "id", manner) {
        Cell::Int(id) => id,
        Cell::Null | Cell::Real(_) | Cell::Text(_) => 0,
    }
}
