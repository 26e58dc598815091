//! Rows into a table by as few statements as can be, and which of them were there already.
//!
//! The one rule: what is new costs no look. Only when the database finds a key that is there already are the keys looked for.

use std::{
    collections::{BTreeMap, HashSet},
    hash::Hash,
};

use crate::receiver::{
    cell::{Cell, Cells},
    store::{Dialect, Step},
    tables::Kind,
};

/// How many rows one statement stores, and how many values one asks for. Few sizes, so that the prepared statements are few and are used
/// again.
const STATEMENT_ROWS: [usize; 6] = [1024, 256, 64, 16, 4, 1];

/// How rows of a table are looked for: by a number (a node, mostly) and another value, in an index.
pub(super) struct Found<T, K> {
    /// The number, and the value; `None` for a row that can only be new.
    pub by: fn(&T) -> Option<(i64, String)>,
    /// A statement up to the number; the values are asked for by its first column.
    pub sql: &'static str,
    /// What it answers; the first is what the values are compared with.
    pub kinds: &'static [Kind],
    /// The key of what it answered.
    pub key: fn(i64, &[Cell]) -> Option<K>,
}

/// A change that stores rows.
pub(super) struct Put<'a> {
    change: &'a mut Step,
    /// The places of rows that were there already.
    pub had: Vec<usize>,
}

impl<'a> Put<'a> {
    pub(super) fn new(change: &'a mut Step) -> Self {
        Self { change, had: Vec::new() }
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.change.dialect()
    }

    pub(super) fn change(&mut self) -> &mut Step {
        self.change
    }

    /// Stores rows; `upsert` is what is done with one whose key is there, and `find` how such keys are found.
    #[expect(clippy::too_many_arguments, reason = "a table's whole description, said once for each table")]
    pub(super) async fn rows<T, K: Eq + Hash>(
        &mut self,
        into: &str,
        mut rows: &[T],
        place: fn(&T) -> usize,
        cells: impl Fn(&T) -> Cells,
        upsert: &str,
        key: impl Fn(&T) -> K,
        find: Found<T, K>,
    ) -> Result<(), sqlx::Error> {
        for size in STATEMENT_ROWS {
            while rows.len() >= size {
                let (now, later) = rows.split_at(size);
                rows = later;
                match self.insert(into, now, &cells, "").await {
                    Ok(()) => continue,
                    // The statement is undone, the change goes on.
                    Err(error) if is_repeat(&error) => {}
                    Err(error) => return Err(error),
                }
                let mut there = self.found(now, &find).await?;
                for row in now {
                    if !there.insert(key(row)) {
                        self.had.push(place(row));
                    }
                }
                self.insert(into, now, &cells, upsert).await?;
            }
        }
        Ok(())
    }

    /// Stores rows without a look; `end` says what is done with a key that is there.
    pub(super) async fn all<T>(
        &mut self,
        into: &str,
        mut rows: &[T],
        cells: impl Fn(&T) -> Cells,
        end: &str,
    ) -> Result<(), sqlx::Error> {
        for size in STATEMENT_ROWS {
            while rows.len() >= size {
                let (now, later) = rows.split_at(size);
                rows = later;
                self.insert(into, now, &cells, end).await?;
            }
        }
        Ok(())
    }

    async fn insert<T>(&mut self, into: &str, rows: &[T], cells: impl Fn(&T) -> Cells, end: &str) -> Result<(), sqlx::Error> {
        let values: Vec<Cell> = rows.iter().flat_map(&cells).collect();
        let one = format!("({})", vec!["?"; values.len() / rows.len().max(1)].join(", "));
        let sql = format!("{into} VALUES {}{end}", vec![one.as_str(); rows.len()].join(", "));
        self.change.execute(sql, values).await.map(drop)
    }

    async fn found<T, K: Eq + Hash>(&mut self, rows: &[T], find: &Found<T, K>) -> Result<HashSet<K>, sqlx::Error> {
        let mut groups: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (number, value) in rows.iter().filter_map(find.by) {
            groups.entry(number).or_default().push(value);
        }
        let first = find.sql.trim_start_matches("SELECT ").split([',', ' ']).next().unwrap_or_default();
        let mut there = HashSet::new();
        for (number, values) in groups {
            for values in asked(&values) {
                let sql = format!("{} AND {first} IN ({})", find.sql, vec!["?"; values.len()].join(", "));
                let values = values.into_iter().map(|value| match find.kinds.first() {
                    Some(Kind::Time) => Cell::Time(value),
                    _ => value.parse().map_or(Cell::Null, Cell::Int),
                });
                let answered = self.change.fetch(sql, [Cell::Int(number)].into_iter().chain(values), find.kinds).await?;
                there.extend(answered.iter().filter_map(|cells| (find.key)(number, cells)));
            }
        }
        Ok(there)
    }
}

fn is_repeat(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// Values in lists of few sizes: the last value fills a list up.
pub(super) fn asked<V: Clone>(values: &[V]) -> Vec<Vec<V>> {
    let lists = values.chunks(256).map(|list| {
        let size = STATEMENT_ROWS.into_iter().rev().find(|size| *size >= list.len()).unwrap_or(list.len());
        let mut list = list.to_vec();
        if let Some(last) = list.last().cloned() {
            list.resize(size, last);
        }
        list
    });
    lists.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_few_sizes_and_hold_every_value() {
        for count in [0_usize, 1, 2, 5, 17, 65, 256, 257, 1_000] {
            let values: Vec<usize> = (0..count).collect();
            let lists = asked(&values);
            assert!(lists.iter().all(|list| STATEMENT_ROWS.contains(&list.len())), "{count}");
            assert_eq!(lists.iter().flatten().copied().collect::<HashSet<_>>().len(), count);
        }
    }
}
