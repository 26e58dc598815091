//! Lists of every table, and single objects that are posted or put.
//!
//! The one rule: a look and the store that follows it stand in one change, so that the same thing posted twice at once is stored once.

use serde_json::{Map, Value};

use super::{
    Manner,
    cell::{Cell, Cells, cells_of},
    query::{Selection, Span},
    refusal::Refusal,
    store::{Step, Store},
    tables::{Kind, Repeat, Table, quoted},
};

/// More rows than this do not come in one answer (I7).
const ANSWER_ROWS_MAX: i64 = 500_000;
/// So many rows of a table are counted for a Content-Range; of a larger one it says at least so many.
const COUNTED_MAX: i64 = 100_000;

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
    let mut look = store.look().await?;
    let Selection { condition, mut cells, order, .. } = selection;
    let counts = if span.is_some() {
        let matching = format!("SELECT count(*) FROM \"{}\" WHERE {condition}", table.name);
        let matching = look.count(matching, cells.clone()).await?;
        // Counting a large table reads all of it.
        let all = format!("SELECT count(*) FROM (SELECT 1 FROM \"{}\" LIMIT {COUNTED_MAX}) AS some", table.name);
        Some((matching, look.count(all, []).await?.max(matching)))
    } else {
        None
    };
    let span = span.unwrap_or(Span { from: 0, count: i64::MAX });
    let columns = quoted(table.columns(manner).map(|column| column.name));
    let sql = format!("SELECT {columns} FROM \"{}\" WHERE {condition} ORDER BY {order} LIMIT ? OFFSET ?", table.name);
    cells.push(Cell::Int(span.count.min(ANSWER_ROWS_MAX + 1)));
    cells.push(Cell::Int(span.from));
    let rows = look.fetch(sql, cells, &table.kinds(manner)).await?;
    look.end().await?;
    if rows.len() as i64 > ANSWER_ROWS_MAX {
        let advice = format!("more than {ANSWER_ROWS_MAX} rows match: ask for fewer with a header such as Range: items=0-10000");
        return Err(Refusal::TooLarge(advice));
    }
    Ok(Listed { rows, counts })
}

/// The newest time of the readings of a house, by its address.
pub(super) async fn last_of_house(store: &Store, address: &str) -> Result<Option<String>, Refusal> {
    let newest = "SELECT max((SELECT max(time) FROM Reading WHERE locationId = Location.id)) FROM Location \
                  WHERE houseId IN (SELECT id FROM House WHERE address = ?)";
    newest_time(store, newest, Cell::Text(address.to_owned())).await
}

/// The newest time of the readings of a node.
pub(super) async fn last_of_node(store: &Store, node: i64) -> Result<Option<String>, Refusal> {
    newest_time(store, "SELECT max(time) FROM Reading WHERE nodeId = ?", Cell::Int(node)).await
}

async fn newest_time(store: &Store, sql: &str, of: Cell) -> Result<Option<String>, Refusal> {
    let mut look = store.look().await?;
    let newest = look.one(sql.to_owned(), [of], Kind::Time).await?;
    look.end().await?;
    Ok(newest.text())
}

/// Deletes the rows that are selected; how many. All of them, or none when something else points to one of them.
pub(super) async fn delete(store: &Store, table: &'static Table, selection: &Selection) -> Result<u64, Refusal> {
    if !selection.narrows {
        return Err(Refusal::Malformed("a DELETE says which rows, as in ?id=5: it never takes a whole table".to_owned()));
    }
    let mut change = store.change_in_turn().await?;
    let sql = format!("DELETE FROM \"{}\" WHERE {}", table.name, selection.condition);
    let done = change.execute(sql, selection.cells.iter().cloned()).await;
    let done = done.map_err(|error| match error.as_database_error() {
        Some(cause) if cause.is_foreign_key_violation() => {
            Refusal::Conflict(format!("other rows point to what was to be deleted from {}: delete those first", table.name))
        }
        _ => Refusal::Unavailable(error),
    })?;
    if !table.posted {
        // A row that is sent again after this must be stored again: no receipt may say that it is there.
        change.execute("DELETE FROM packhorse_receipt".to_owned(), []).await?;
    }
    change.end().await?;
    Ok(done.rows)
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
    object: &Map<String, Value>,
    manner: Manner,
) -> Result<Stored, Refusal> {
    let cells = posted(table, object, manner)?;
    if manner.is_legacy() {
        return post_legacy(store, table, cells, manner).await;
    }
    let mut change = store.change_in_turn().await?;
    let stored = post_within(&mut change, table, cells, manner).await?;
    change.end().await?;
    Ok(stored)
}

/// The cells of a posted object, when it may be stored as far as it tells itself.
pub(super) fn posted(table: &'static Table, object: &Map<String, Value>, manner: Manner) -> Result<Cells, Refusal> {
    let mut cells = cells_of(table, object, manner)?;
    if table.name == "Pushstatus" {
        let now = crate::domain::Micros::from_datetime(chrono::Utc::now().naive_utc());
        set(table, &mut cells, "time", Cell::Time(now.to_string()), manner);
    }
    if manner.is_legacy() {
        return Ok(cells);
    }
    if let Some(named) = object.get(crate::wire::TABLE_KEY).filter(|named| named.as_str().and_then(Table::named) != Some(table)) {
        return Err(Refusal::Malformed(format!("{} is posted to {}/", cut(named), table.word())));
    }
    if !table.has_global_id() {
        set(table, &mut cells, "id", Cell::Null, manner);
    } else if get(table, &cells, "id", manner) == Cell::Null {
        return Err(Refusal::Malformed(format!("a {} needs its id", table.name)));
    }
    Ok(cells)
}

/// Stores a posted object within a change, which is not ended here.
pub(super) async fn post_within(
    change: &mut Step,
    table: &'static Table,
    mut cells: Cells,
    manner: Manner,
) -> Result<Stored, Refusal> {
    check_references(change, table, &cells, manner).await?;
    let found = find(change, table, &cells, manner).await?;
    Ok(match (found, table.repeat) {
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
    })
}

/// The legacy server stores whatever its keys and references allow, and shows the object as it came.
async fn post_legacy(store: &Store, table: &'static Table, cells: Cells, manner: Manner) -> Result<Stored, Refusal> {
    if table.name == "House" && matches!(get(table, &cells, "address", manner), Cell::Text(text) if !text.is_ascii()) {
        return Err(Refusal::Legacy("an address with a letter beyond ASCII".to_owned()));
    }
    let mut change = store.change_in_turn().await?;
    check_references(&mut change, table, &cells, manner).await?;
    let kept = table.columns(manner).zip(cells.clone()).map(|(column, cell)| cell.cut_as_legacy(column)).collect();
    let stored = insert(&mut change, table, kept, cells, manner).await?;
    change.end().await?;
    Ok(stored)
}

/// Replaces a row by a whole object: what the object lacks becomes NULL.
pub(super) async fn put(
    store: &Store,
    table: &'static Table,
    id: i64,
    object: &Map<String, Value>,
    manner: Manner,
) -> Result<Stored, Refusal> {
    let mut cells = cells_of(table, object, manner)?;
    match get(table, &cells, "id", manner) {
        Cell::Int(named) if named != id && !manner.is_legacy() => {
            return Err(Refusal::Malformed(format!("the address says id {id}, the object says {named}")));
        }
        _ => set(table, &mut cells, "id", Cell::Int(id), manner),
    }
    let mut change = store.change_in_turn().await?;
    check_references(&mut change, table, &cells, manner).await?;
    if !manner.is_legacy()
        && let Some(other) = find(&mut change, table, &cells, manner).await?
        && other.id != id
    {
        return Err(Refusal::Conflict(format!(
            "{} {} is that one already: there are no two of one identity",
            table.name, other.id
        )));
    }
    let by_id = format!("SELECT count(*) FROM \"{}\" WHERE id = ?", table.name);
    let stored = if change.count(by_id, [Cell::Int(id)]).await? > 0 {
        replace(&mut change, table, id, cells, manner).await?
    } else if table.has_global_id() || manner.is_legacy() {
        insert(&mut change, table, cells.clone(), cells, manner).await?
    } else {
        return Err(Refusal::Missing(format!("there is no {} {id} here", table.name)));
    };
    change.end().await?;
    Ok(stored)
}

/// Refuses an object that points to rows that are not here.
async fn check_references(change: &mut Step, table: &'static Table, cells: &[Cell], manner: Manner) -> Result<(), Refusal> {
    for (column, cell) in table.columns(manner).zip(cells) {
        let (Some(to), Cell::Int(id)) = (column.refers, cell) else { continue };
        if change.count(format!("SELECT count(*) FROM \"{to}\" WHERE id = ?"), [cell.clone()]).await? == 0 {
            return Err(Refusal::Missing(format!("{}.{} {id}: there is no such {to} here", table.name, column.name)));
        }
    }
    Ok(())
}

/// The oldest row with the same identity; NULL is a value in it.
async fn find(change: &mut Step, table: &'static Table, cells: &[Cell], manner: Manner) -> Result<Option<Stored>, Refusal> {
    if table.identity.is_empty() {
        return Ok(None);
    }
    let dialect = change.dialect();
    let same = table.identity.iter().map(|name| dialect.same(name)).collect::<Vec<_>>().join(" AND ");
    let columns = quoted(table.columns(manner).map(|column| column.name));
    let sql = format!("SELECT {columns} FROM \"{}\" WHERE {same} ORDER BY id LIMIT 1", table.name);
    let identity: Vec<_> = table.identity.iter().map(|name| get(table, cells, name, manner)).collect();
    let rows = change.fetch(sql, identity, &table.kinds(manner)).await?;
    let Some(cells) = rows.into_iter().next() else { return Ok(None) };
    Ok(Some(Stored { id: id_of(table, &cells, manner), cells }))
}

/// Inserts `kept` and answers with `shown`, both under the id that the row gets.
async fn insert(
    change: &mut Step,
    table: &'static Table,
    kept: Cells,
    mut shown: Cells,
    manner: Manner,
) -> Result<Stored, Refusal> {
    let columns = quoted(table.columns(manner).map(|column| column.name));
    let places = vec!["?"; kept.len()].join(", ");
    let sql = format!("INSERT INTO \"{}\" ({columns}) VALUES ({places})", table.name);
    let named = get(table, &kept, "id", manner).int();
    let done = change.execute(sql, kept).await.map_err(refused_by_key)?;
    let id = named.unwrap_or(done.id);
    set(table, &mut shown, "id", Cell::Int(id), manner);
    Ok(Stored { id, cells: shown })
}

async fn replace(change: &mut Step, table: &'static Table, id: i64, cells: Cells, manner: Manner) -> Result<Stored, Refusal> {
    let sets = table.columns(manner).map(|column| format!("\"{}\" = ?", column.name)).collect::<Vec<_>>().join(", ");
    let sql = format!("UPDATE \"{}\" SET {sets} WHERE id = ?", table.name);
    change.execute(sql, cells.iter().cloned().chain([Cell::Int(id)])).await?;
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
    get(table, cells, "id", manner).int().unwrap_or(0)
}
