//! The database: a SQLite file, or a MySQL or MariaDB server, behind one layer. Statements are the same for both but for what
//! [`Dialect`] says.
//!
//! The one rule: a commit is on the disk before anyone hears of it (I2), and a look and the store that follows it are one step.

mod dialect;
mod migrations;
mod mysql;
mod sqlite;

use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::{AssertSqlSafe, MySql, Sqlite, pool::PoolConnection};

pub(super) use dialect::Dialect;

use super::{
    Manner, ReceiverError,
    cell::{Cell, Cells},
    refusal::Refusal,
    tables::Kind,
};

/// How long a request waits for a connection. Before that sqlx says nothing of it: under load it would be a warning for each request.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a change that met another one is made again.
const ATTEMPTS_MAX: u32 = 10;
/// The pause before it is, for each attempt so far; so long at most.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// The open database.
#[derive(Debug)]
pub(super) enum Store {
    /// A file. Its one writer takes every change in turn.
    Sqlite(sqlite::File),
    /// A server. Changes go side by side.
    Mysql(mysql::Server),
}

impl Store {
    /// Opens the database, creates its tables where they are missing, and checks that a commit is durable.
    pub(super) async fn open(url: &str, manner: Manner) -> Result<Self, ReceiverError> {
        // Before anything is quoted: another kind of URL may hold a password.
        if url.starts_with("sqlite:") {
            sqlite::open(url, manner).await.map(Self::Sqlite)
        } else if !url.starts_with("mysql:") && !url.starts_with("mariadb:") {
            Err(ReceiverError::NotADatabase)
        } else if manner.is_legacy() {
            Err(ReceiverError::LegacyOnServer)
        } else {
            mysql::open(url).await.map(Self::Mysql)
        }
    }

    /// Begins a change.
    pub(super) async fn change(&self) -> Result<Step, Refusal> {
        match self {
            Self::Sqlite(file) => Step::begin(Line::Sqlite(file.writer.acquire().await?), "BEGIN IMMEDIATE").await,
            Self::Mysql(server) => Step::begin(Line::Mysql(server.writers.acquire().await?), "START TRANSACTION").await,
        }
    }

    /// Begins a change, in turn when it met another one before: those that meet then wait for each other.
    pub(super) async fn change_after(&self, attempts: &Attempts) -> Result<Step, Refusal> {
        if attempts.failed == 0 { self.change().await } else { self.change_in_turn().await }
    }

    /// Begins a change during which no other change of this kind begins: for a look that decides what is stored.
    pub(super) async fn change_in_turn(&self) -> Result<Step, Refusal> {
        let mut step = self.change().await?;
        if step.dialect() == Dialect::Mysql {
            step.fetch("SELECT id FROM packhorse_turn FOR UPDATE".to_owned(), [], &[Kind::Int]).await?;
        }
        Ok(step)
    }

    /// Begins a look at one unchanging state of the database.
    pub(super) async fn look(&self) -> Result<Step, Refusal> {
        match self {
            Self::Sqlite(file) => Step::begin(Line::Sqlite(file.readers.acquire().await?), "BEGIN").await,
            Self::Mysql(server) => {
                let line = Line::Mysql(server.readers.acquire().await?);
                Step::begin(line, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await
            }
        }
    }

    /// Waits for the last change and closes the database.
    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(file) => {
                file.readers.close().await;
                file.writer.close().await;
            }
            Self::Mysql(server) => {
                server.readers.close().await;
                server.writers.close().await;
            }
        }
    }
}

/// How often a change was made that met another one: a server's deadlocks end one of the two, and it is made again.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
}

impl Attempts {
    /// Whether a change is to be made again, after a pause.
    pub(super) async fn again<T>(&mut self, outcome: &Result<T, Refusal>) -> bool {
        let Err(Refusal::Unavailable(error)) = outcome else { return false };
        self.failed += 1;
        if self.failed == ATTEMPTS_MAX || !mysql::is_contention(error) {
            return false;
        }
        tracing::debug!(%error, attempt = self.failed, "a change met another one; it is made again");
        tokio::time::sleep(ATTEMPT_PAUSE.mul_f64(f64::from(self.failed) * rand::random::<f64>())).await;
        true
    }
}

/// A connection of either kind.
enum Line {
    Sqlite(PoolConnection<Sqlite>),
    Mysql(PoolConnection<MySql>),
}

/// A transaction. Unless it is ended it is undone, and its connection is closed with it.
///
/// SQLite itself ends a transaction on a full disk or an I/O error; sqlx's own type goes on counting it as open, and its connection would
/// refuse every later one. A connection that saw a failure is therefore never used again.
pub(super) struct Step {
    line: Option<Line>,
}

impl Step {
    async fn begin(line: Line, statement: &'static str) -> Result<Self, Refusal> {
        let mut step = Self { line: Some(line) };
        match step.line()? {
            Line::Sqlite(line) => sqlx::raw_sql(statement).execute(&mut **line).await.map(drop)?,
            Line::Mysql(line) => sqlx::raw_sql(statement).execute(&mut **line).await.map(drop)?,
        }
        Ok(step)
    }

    fn line(&mut self) -> Result<&mut Line, sqlx::Error> {
        self.line.as_mut().ok_or(sqlx::Error::PoolClosed)
    }

    /// What its statements must look like.
    pub(super) fn dialect(&self) -> Dialect {
        match self.line {
            Some(Line::Mysql(_)) => Dialect::Mysql,
            Some(Line::Sqlite(_)) | None => Dialect::Sqlite,
        }
    }

    /// Runs a statement; how many rows it touched, and the id that it gave the last of them.
    pub(super) async fn execute(&mut self, sql: String, cells: impl IntoIterator<Item = Cell>) -> Result<Done, sqlx::Error> {
        let query = AssertSqlSafe(sql);
        match self.line()? {
            Line::Sqlite(line) => {
                let query = cells.into_iter().fold(sqlx::query(query), |query, cell| cell.bind_sqlite(query));
                let done = query.execute(&mut **line).await?;
                Ok(Done { rows: done.rows_affected(), id: done.last_insert_rowid() })
            }
            Line::Mysql(line) => {
                let query = cells.into_iter().fold(sqlx::query(query), |query, cell| cell.bind_mysql(query));
                let done = query.execute(&mut **line).await?;
                Ok(Done { rows: done.rows_affected(), id: i64::try_from(done.last_insert_id()).unwrap_or(i64::MAX) })
            }
        }
    }

    /// The rows that a statement answers, whose columns are of these kinds.
    pub(super) async fn fetch(
        &mut self,
        sql: String,
        cells: impl IntoIterator<Item = Cell>,
        kinds: &[Kind],
    ) -> Result<Vec<Cells>, sqlx::Error> {
        let query = AssertSqlSafe(sql);
        let mut rows = Vec::new();
        match self.line()? {
            Line::Sqlite(line) => {
                let query = cells.into_iter().fold(sqlx::query(query), |query, cell| cell.bind_sqlite(query));
                let mut found = query.fetch(&mut **line);
                while let Some(row) = found.try_next().await? {
                    rows.push(each(kinds, |kind, place| Cell::from_sqlite(kind, &row, place))?);
                }
            }
            Line::Mysql(line) => {
                let query = cells.into_iter().fold(sqlx::query(query), |query, cell| cell.bind_mysql(query));
                let mut found = query.fetch(&mut **line);
                while let Some(row) = found.try_next().await? {
                    rows.push(each(kinds, |kind, place| Cell::from_mysql(kind, &row, place))?);
                }
            }
        }
        Ok(rows)
    }

    /// The one value of the one row that a statement answers; NULL without a row.
    pub(super) async fn one(
        &mut self,
        sql: String,
        cells: impl IntoIterator<Item = Cell>,
        kind: Kind,
    ) -> Result<Cell, sqlx::Error> {
        let rows = self.fetch(sql, cells, &[kind]).await?;
        Ok(rows.into_iter().flatten().next().unwrap_or(Cell::Null))
    }

    /// The number that a statement counts.
    pub(super) async fn count(&mut self, sql: String, cells: impl IntoIterator<Item = Cell>) -> Result<i64, sqlx::Error> {
        Ok(self.one(sql, cells, Kind::Int).await?.int().unwrap_or(0))
    }

    /// Ends it well; a change is on the disk afterwards.
    ///
    /// # Errors
    /// `Unavailable` when nothing of it is there afterwards; `Unclear` when the server went away meanwhile and nobody knows.
    pub(super) async fn end(mut self) -> Result<(), Refusal> {
        match self.line()? {
            Line::Sqlite(line) => sqlx::raw_sql("COMMIT").execute(&mut **line).await.map(drop)?,
            Line::Mysql(line) => {
                let done = sqlx::raw_sql("COMMIT").execute(&mut **line).await;
                done.map_err(
                    |error| {
                        if mysql::is_contention(&error) { Refusal::Unavailable(error) } else { Refusal::Unclear(error) }
                    },
                )?;
            }
        }
        self.line = None;
        Ok(())
    }
}

fn each(kinds: &[Kind], read: impl Fn(Kind, usize) -> Result<Cell, sqlx::Error>) -> Result<Cells, sqlx::Error> {
    kinds.iter().enumerate().map(|(place, kind)| read(*kind, place)).collect()
}

impl Drop for Step {
    fn drop(&mut self) {
        match &mut self.line {
            Some(Line::Sqlite(line)) => line.close_on_drop(),
            Some(Line::Mysql(line)) => line.close_on_drop(),
            None => {}
        }
    }
}

/// What a statement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Done {
    /// How many rows it touched.
    pub rows: u64,
    /// The id that the database gave to the last row it inserted.
    pub id: i64,
}
