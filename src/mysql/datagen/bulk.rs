//! Rows on their way into the database: many to a statement, many statements to a transaction.

use std::fmt::{self, Write as _};

use sqlx::MySqlConnection;

use super::{Report, run, text_of};
use crate::domain::Micros;

const ROWS_PER_STATEMENT: usize = 4_000;
const STATEMENTS_PER_TRANSACTION: usize = 25;

/// Gathers rows and writes them. Rows that are there already are left as they are.
pub(super) struct Bulk<'c> {
    connection: &'c mut MySqlConnection,
    progress: &'c mut (dyn FnMut(u64) + Send),
    readings: Statement,
    states: Statement,
    statements: usize,
    report: Report,
    /// The time of the last row, and how SQL writes it: many rows share one.
    time: (Micros, String),
}

struct Statement {
    head: &'static str,
    sql: String,
    rows: usize,
}

impl Statement {
    fn new(head: &'static str) -> Self {
        Self { head, sql: head.to_owned(), rows: 0 }
    }

    /// Where to write the next row.
    fn row(&mut self) -> &mut String {
        if self.rows > 0 {
            self.sql.push(',');
        }
        self.rows += 1;
        &mut self.sql
    }

    fn take(&mut self) -> Option<String> {
        if self.rows == 0 {
            return None;
        }
        self.rows = 0;
        Some(std::mem::replace(&mut self.sql, self.head.to_owned()))
    }
}

/// A number, or NULL.
pub(super) struct OrNull<T>(pub Option<T>);

impl<T: fmt::Display> fmt::Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("NULL"),
        }
    }
}

/// What a node says of itself.
pub(super) struct State {
    pub node: u32,
    pub parent: Option<u32>,
    pub localtime: i64,
    pub seq_num: Option<i64>,
    pub rssi: Option<i64>,
}

impl<'c> Bulk<'c> {
    pub(super) fn new(connection: &'c mut MySqlConnection, progress: &'c mut (dyn FnMut(u64) + Send)) -> Self {
        Self {
            connection,
            progress,
            readings: Statement::new("INSERT IGNORE INTO Reading (time, nodeId, type, locationId, value) VALUES "),
            states: Statement::new("INSERT IGNORE INTO NodeState (time, nodeId, parent, `localtime`, seq_num, rssi) VALUES "),
            statements: 0,
            report: Report::default(),
            time: (Micros(i64::MIN), String::new()),
        }
    }

    pub(super) async fn reading(
        &mut self,
        time: Micros,
        node: u32,
        kind: u32,
        location: Option<i64>,
        value: impl fmt::Display,
    ) -> Result<(), sqlx::Error> {
        let (location, time) = (OrNull(location), self.at(time));
        // Writing to a String cannot fail.
        let _ = write!(self.readings.row(), "('{time}',{node},{kind},{location},{value})");
        self.time.1 = time;
        self.flush_full().await
    }

    pub(super) async fn state(&mut self, time: Micros, state: &State) -> Result<(), sqlx::Error> {
        let State { node, parent, localtime, seq_num, rssi } = *state;
        let (parent, seq_num, rssi, time) = (OrNull(parent), OrNull(seq_num), OrNull(rssi), self.at(time));
        let _ = write!(self.states.row(), "('{time}',{node},{parent},{localtime},{seq_num},{rssi})");
        self.time.1 = time;
        self.flush_full().await
    }

    /// A time as SQL wants it; to be put back.
    fn at(&mut self, time: Micros) -> String {
        if self.time.0 != time {
            self.report.spans(time);
            self.time = (time, text_of(time));
        }
        std::mem::take(&mut self.time.1)
    }

    /// Writes what is gathered, and commits.
    pub(super) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        self.flush().await?;
        if self.statements > 0 {
            run(self.connection, "COMMIT".to_owned()).await?;
            self.statements = 0;
        }
        Ok(())
    }

    /// The connection, between rows.
    pub(super) fn connection(&mut self) -> &mut MySqlConnection {
        self.connection
    }

    pub(super) async fn finish(mut self) -> Result<Report, sqlx::Error> {
        self.commit().await?;
        Ok(self.report)
    }

    async fn flush_full(&mut self) -> Result<(), sqlx::Error> {
        if self.readings.rows < ROWS_PER_STATEMENT && self.states.rows < ROWS_PER_STATEMENT {
            return Ok(());
        }
        if self.statements >= STATEMENTS_PER_TRANSACTION {
            return self.commit().await;
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), sqlx::Error> {
        for readings in [true, false] {
            let statement = if readings { &mut self.readings } else { &mut self.states };
            let Some(sql) = statement.take() else { continue };
            if self.statements == 0 {
                run(self.connection, "START TRANSACTION".to_owned()).await?;
            }
            self.statements += 1;
            let added = run(self.connection, sql).await?;
            *(if readings { &mut self.report.readings } else { &mut self.report.node_states }) += added;
        }
        (self.progress)(self.report.readings + self.report.node_states);
        Ok(())
    }
}
