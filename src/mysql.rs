//! The source: a cogent-house database in MySQL or MariaDB, read over one connection.
//!
//! The one rule: a row is either handed over exactly as it is stored or it is an error that names it; nothing is skipped, rounded or
//! guessed. A page that would hold such a row is an error as a whole; a smaller limit gets the rows before it. Hence prepared statements only (the text protocol rounds FLOAT to six digits), and dates that are not dates are errors.
//!
//! ```text
//! Source calls ─▶ link (connection, session, deadlines) ─▶ query (what to ask) ─▶ decode (rows into columns)
//!                   └─ schema (which tables and columns are there)      catalog (nine small tables at one moment)
//!                   └─ fault (what an error means, and what to do about it)
//! ```

mod buckets;
mod catalog;
pub mod clear;
pub mod datagen;
mod decode;
pub mod doctor;
mod fault;
mod ledger;
mod link;
mod query;
mod schema;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use sqlx::{MySqlConnection, Row};

use self::{
    decode::Decoder,
    fault::Trouble,
    link::Link,
    query::{Bind, Question},
    schema::Table,
};
use crate::{
    domain::{Catalog, Micros, Position, Rows, Slot, Stream, Tallies, Tally},
    ports::{Bucket, BucketRequest, Buckets, Order, PageRequest, SlotRequest, Source, SourceError, SourceSchema, TallyRequest},
    pulse::Pulse,
};

/// Where the source is and how long it may take.
#[derive(Clone)]
pub struct Options {
    /// `mysql://user:password@host:port/database`; `?socket=/path` for a Unix socket, `?ssl-mode=` and `?ssl-ca=` for TLS.
    pub url: String,
    /// How long one query may take before its connection is given up.
    pub deadline: Duration,
    /// How long connecting and looking at the schema may take.
    pub connect_deadline: Duration,
    /// Beats with each question.
    pub pulse: Option<Arc<Pulse>>,
}

impl Options {
    /// The usual deadlines: 30 s a query, 10 s to connect.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), deadline: Duration::from_secs(30), connect_deadline: Duration::from_secs(10), pulse: None }
    }
}

/// Shows everything but the URL, which holds the password.
impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("deadline", &self.deadline)
            .field("connect_deadline", &self.connect_deadline)
            .finish_non_exhaustive()
    }
}

/// A MySQL or MariaDB database as a [`Source`]. It connects at the first call, and anew at the first call after any error.
#[derive(Debug)]
pub struct MysqlSource {
    link: Link,
}

impl MysqlSource {
    /// Reads the URL; nothing is connected yet.
    ///
    /// # Errors
    /// [`SourceError::Denied`] when the URL cannot be used, without any part of it that could be a password.
    pub fn new(options: Options) -> Result<Self, SourceError> {
        Ok(Self { link: Link::new(options)? })
    }
}

/// Runs `$work` on a live connection under the deadline, and keeps the connection only when it succeeded: after an error nobody knows
/// what is still under way on it. A future that is dropped half-way takes the connection with it.
macro_rules! ask {
    ($self:ident, $what:expr, |$live:ident| $work:expr) => {{
        let mut taken = $self.link.take().await?;
        let outcome = {
            let $live = &mut taken;
            tokio::time::timeout($self.link.deadline(), $work).await
        };
        $self.link.settle(taken, $what, outcome)
    }};
}

#[async_trait]
impl Source for MysqlSource {
    async fn connect(&mut self) -> Result<SourceSchema, SourceError> {
        self.link.look().await
    }

    async fn now(&mut self) -> Result<Micros, SourceError> {
        ask!(self, "asking for its clock", |live| now(&mut live.connection))
    }

    async fn page(&mut self, request: &PageRequest) -> Result<Rows, SourceError> {
        ask!(self, "reading a page", |live| page(&mut live.connection, live.schema.table(request.stream), request))
    }

    async fn last(&mut self, stream: Stream, before: Option<Micros>) -> Result<Position, SourceError> {
        ask!(self, "looking for the last row", |live| last(&mut live.connection, live.schema.table(stream), before))
    }

    async fn count_after(&mut self, request: &PageRequest, cap: u64) -> Result<u64, SourceError> {
        ask!(self, "counting rows", |live| {
            let table = live.schema.table(request.stream);
            async { count(&mut live.connection, &query::count_after(table, request, cap)?).await }
        })
    }

    async fn first_time(&mut self, stream: Stream, from: Option<Micros>) -> Result<Option<Micros>, SourceError> {
        ask!(self, "looking for the first row", |live| {
            let question = buckets::first_time(live.schema.table(stream), from);
            first_time(&mut live.connection, question)
        })
    }

    async fn buckets(&mut self, stream: Stream, range: &Buckets) -> Result<Vec<Bucket>, SourceError> {
        ask!(self, "counting rows by node and hour", |live| {
            let question = buckets::buckets(live.schema.table(stream), range);
            async { count_buckets(&mut live.connection, &question?).await }
        })
    }

    async fn bucket_rows(&mut self, request: &BucketRequest) -> Result<Rows, SourceError> {
        ask!(self, "reading the rows of an hour", |live| {
            let table = live.schema.table(request.stream);
            async { rows(&mut live.connection, table, &buckets::rows(table, request)?, request.limit).await }
        })
    }

    async fn tallies(&mut self, request: &TallyRequest) -> Result<Tallies, SourceError> {
        ask!(self, "counting rows", |live| {
            let question = ledger::tallies(live.schema.table(request.span.stream), request);
            async { tallies(&mut live.connection, &question?).await }
        })
    }

    async fn slot_rows(&mut self, request: &SlotRequest) -> Result<Rows, SourceError> {
        ask!(self, "reading rows again", |live| {
            let table = live.schema.table(request.span.stream);
            async { rows(&mut live.connection, table, &ledger::rows(table, request)?, request.limit).await }
        })
    }

    async fn first_place(&mut self, stream: Stream, from: Option<i64>) -> Result<Option<i64>, SourceError> {
        ask!(self, "looking for the first row", |live| {
            let question = ledger::first_place(live.schema.table(stream), from);
            first_place(&mut live.connection, question)
        })
    }

    async fn count_ids(&mut self, stream: Stream, ranges: &[(i64, i64)]) -> Result<u64, SourceError> {
        ask!(self, "looking for late ids", |live| {
            let table = live.schema.table(stream);
            async { count(&mut live.connection, &ledger::count_ids(table, ranges)).await }
        })
    }

    async fn catalog(&mut self) -> Result<Catalog, SourceError> {
        ask!(self, "reading the catalog", |live| catalog::read(&mut live.connection, &live.schema))
    }

    async fn unreadable(&mut self, stream: Stream) -> Result<u64, SourceError> {
        ask!(self, "counting unreadable rows", |live| {
            let table = live.schema.table(stream);
            async { count(&mut live.connection, &query::unreadable(table)).await }
        })
    }
}

async fn now(connection: &mut MySqlConnection) -> Result<Micros, Trouble> {
    let now = sqlx::query_scalar("SELECT UTC_TIMESTAMP(6)").fetch_one(connection).await?;
    Ok(Micros::from_datetime(now))
}

async fn page(connection: &mut MySqlConnection, table: &Table, request: &PageRequest) -> Result<Rows, Trouble> {
    rows(connection, table, &query::page(table, request)?, request.limit).await
}

async fn rows(connection: &mut MySqlConnection, table: &Table, question: &Question, limit: u32) -> Result<Rows, Trouble> {
    let mut rows = prepared(question).fetch(connection);
    let mut decoder: Option<Decoder> = None;
    while let Some(row) = rows.try_next().await? {
        let decoder = match &mut decoder {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new(table, &row, limit as usize)?),
        };
        decoder.push(&row)?;
    }
    Ok(decoder.map_or_else(|| Rows::empty(table.stream), Decoder::finish))
}

async fn first_time(connection: &mut MySqlConnection, question: Question) -> Result<Option<Micros>, Trouble> {
    let first: Option<chrono::NaiveDateTime> = match prepared(&question).fetch_optional(connection).await? {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    Ok(first.map(Micros::from_datetime))
}

async fn count_buckets(connection: &mut MySqlConnection, question: &Question) -> Result<Vec<Bucket>, Trouble> {
    let mut rows = prepared(question).fetch(connection);
    let mut found = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let counted = |place| row.try_get_unchecked::<i64, _>(place);
        found.push(Bucket {
            node: counted(0)?,
            hour: counted(1)?,
            rows: u64::try_from(counted(2)?).unwrap_or(0),
            checksum: row.try_get_unchecked(3)?,
        });
    }
    Ok(found)
}

async fn first_place(connection: &mut MySqlConnection, question: Question) -> Result<Option<i64>, Trouble> {
    let found: Option<Option<i64>> =
        prepared(&question).fetch_optional(connection).await?.map(|row| row.try_get(0)).transpose()?;
    Ok(found.flatten())
}

async fn tallies(connection: &mut MySqlConnection, question: &Question) -> Result<Tallies, Trouble> {
    let mut rows = prepared(question).fetch(connection);
    let mut found = Tallies::new();
    while let Some(row) = rows.try_next().await? {
        let counted = |place| row.try_get_unchecked::<i64, _>(place);
        let rows = u64::try_from(counted(2)?).unwrap_or(0);
        found.insert(Slot { node: counted(0)?, place: counted(1)? }, Tally { rows, checksum: row.try_get_unchecked(3)? });
    }
    Ok(found)
}

async fn last(connection: &mut MySqlConnection, table: &Table, before: Option<Micros>) -> Result<Position, Trouble> {
    if let (Order::Id, Some(time)) = (table.order, before) {
        let first: Option<i64> = prepared(&query::first_id_from(table, time)).fetch_one(&mut *connection).await?.try_get(0)?;
        if let Some(first) = first {
            return Ok(Position::Id(first - 1));
        }
    }
    let Some(row) = prepared(&query::last(table, before)).fetch_optional(connection).await? else {
        return Ok(Position::Start);
    };
    let ints = decode::key(table, &row)?;
    Ok(match (table.order, ints.as_slice()) {
        (Order::Key, [time, rest @ ..]) => Position::Key { time: Micros(*time), rest: rest.to_vec() },
        (Order::Id, [id]) => Position::Id(*id),
        (Order::Key | Order::Id, _) => Position::Start,
    })
}

async fn count(connection: &mut MySqlConnection, question: &Question) -> Result<u64, Trouble> {
    let counted: i64 = prepared(question).fetch_one(connection).await?.try_get(0)?;
    Ok(u64::try_from(counted).unwrap_or(0))
}

fn prepared(question: &Question) -> sqlx::query::Query<'_, sqlx::MySql, sqlx::mysql::MySqlArguments> {
    // The text is made of names in our own descriptions; every value is bound.
    let query = sqlx::query(sqlx::AssertSqlSafe(question.sql.as_str()));
    question.binds.iter().fold(query, |query, bind| match bind {
        Bind::Int(value) => query.bind(*value),
        Bind::Time(value) => query.bind(*value),
    })
}
