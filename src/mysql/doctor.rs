//! A look at the whole source for people: what is there, what is missing, and which right lacks, table by table.
//!
//! The one rule: one table's trouble hides nothing of the others. Only a broken connection, or no answer in time, ends the look.

use sqlx::MySqlConnection;
use tokio::time::timeout;

use super::{
    Options, catalog, count, fault,
    fault::Trouble,
    link::Link,
    now, prepared,
    query::{self, quoted},
    schema::Look,
};
use crate::{
    domain::{EntityKind, Micros, Position, Stream},
    ports::{Order, PageRequest, SourceError},
};

/// What a look found.
#[derive(Debug)]
pub struct Examination {
    /// The server's version.
    pub version: String,
    /// How far the database's clock is ahead of ours, microseconds; negative when it is behind.
    pub clock_ahead_micros: i64,
    /// The streams' tables.
    pub streams: Vec<StreamTable>,
    /// The catalog's tables.
    pub catalog: Vec<CatalogTable>,
    /// What ended the look early.
    pub ended: Option<SourceError>,
}

/// A stream's table.
#[derive(Debug)]
pub struct StreamTable {
    /// Which one.
    pub stream: Stream,
    /// What it is like, or why it cannot be read.
    pub found: Result<StreamFound, SourceError>,
}

/// A stream's table that can be read.
#[derive(Debug)]
pub struct StreamFound {
    /// How it is paged.
    pub order: Order,
    /// Optional columns that it lacks: they are NULL throughout.
    pub lacking: Vec<&'static str>,
    /// Rows whose time is not a date.
    pub unreadable: u64,
}

/// A table of the catalog.
#[derive(Debug)]
pub struct CatalogTable {
    /// Which one.
    pub kind: EntityKind,
    /// Optional columns that it lacks, `None` when the table is missing and need not be there, or why it cannot be read.
    pub found: Result<Option<Vec<&'static str>>, SourceError>,
}

/// Connects, looks at everything once, and changes nothing. It ends within the connect deadline and the deadline together.
///
/// # Errors
/// When there is no connection, or no login.
pub async fn examine(options: &Options, clock: fn() -> Micros) -> Result<Examination, SourceError> {
    let link = Link::new(options.clone())?;
    let mut connection = link.login().await?;
    let mut found =
        Examination { version: String::new(), clock_ahead_micros: 0, streams: Vec::new(), catalog: Vec::new(), ended: None };
    let ended = match timeout(options.deadline, look(&mut connection, &link, clock, &mut found)).await {
        Ok(Ok(())) => None,
        Ok(Err(trouble)) => Some(trouble.told(link.place())),
        Err(_) => Some(fault::too_slow(link.place(), options.deadline, "being looked at")),
    };
    Ok(Examination { ended, ..found })
}

async fn look(
    connection: &mut MySqlConnection,
    link: &Link,
    clock: fn() -> Micros,
    found: &mut Examination,
) -> Result<(), Trouble> {
    let before = clock();
    let database = now(connection).await?;
    let ours = before.0.midpoint(clock().0);
    found.clock_ahead_micros = database.0.saturating_sub(ours);
    let mut look = Look::begin(connection).await?;
    found.version.clone_from(&look.version);
    for stream in Stream::ALL {
        let table = told(look_at_stream(&mut look, stream).await, link)?;
        found.streams.push(StreamTable { stream, found: table });
    }
    for kind in EntityKind::ALL {
        let table = told(look_at_catalog(&mut look, kind).await, link)?;
        found.catalog.push(CatalogTable { kind, found: table });
    }
    Ok(())
}

/// Keeps a table's own trouble with the table, and passes on what befalls the connection.
fn told<T>(found: Result<T, Trouble>, link: &Link) -> Result<Result<T, SourceError>, Trouble> {
    match found.map_err(|trouble| trouble.told(link.place())) {
        Err(error @ SourceError::Unreachable { .. }) => Err(error.into()),
        other => Ok(other),
    }
}

async fn look_at_stream(look: &mut Look<'_>, stream: Stream) -> Result<StreamFound, Trouble> {
    let table = look.stream(stream).await?;
    // The very question that capture asks, for no row: a right that lacks shows here.
    let page = query::page(&table, &PageRequest { stream, after: Position::Start, before: None, limit: 0 })?;
    prepared(&page).fetch_optional(&mut *look.connection).await?;
    let unreadable = count(look.connection, &query::unreadable(&table)).await?;
    Ok(StreamFound { order: table.order, lacking: table.lacking(), unreadable })
}

async fn look_at_catalog(look: &mut Look<'_>, kind: EntityKind) -> Result<Option<Vec<&'static str>>, Trouble> {
    let Some(columns) = look.catalog(kind).await? else { return Ok(None) };
    let selected: Vec<String> = columns.iter().map(|name| quoted(name)).collect();
    look.exists(kind.table(), &selected.join(", ")).await?;
    let known = catalog::columns(kind).iter().map(|column| column.name);
    Ok(Some(known.filter(|name| !columns.iter().any(|there| there.eq_ignore_ascii_case(name))).collect()))
}
