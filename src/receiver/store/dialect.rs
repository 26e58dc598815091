//! Where SQLite and MySQL want a statement written differently. Names are quoted alike: the server is told to understand `"`.
//!
//! The one rule: what stands here changes the wording of a statement, never what it does.

/// The language of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::receiver) enum Dialect {
    /// SQLite.
    Sqlite,
    /// MySQL and MariaDB.
    Mysql,
}

impl Dialect {
    /// A comparison that takes NULL as a value.
    pub(in crate::receiver) fn same(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("\"{column}\" IS ?"),
            Self::Mysql => format!("\"{column}\" <=> ?"),
        }
    }

    /// What an INSERT does to a row whose key is there: these columns take the new values. `key` is what SQLite wants to be told.
    pub(in crate::receiver) fn upsert(self, key: &str, columns: &[&str]) -> String {
        let sets = columns.iter().map(|column| match self {
            Self::Sqlite => format!("\"{column}\" = excluded.\"{column}\""),
            Self::Mysql => format!("\"{column}\" = VALUES(\"{column}\")"),
        });
        self.on_key(key, &sets.collect::<Vec<_>>().join(", "))
    }

    /// The same with a column that never becomes smaller.
    pub(in crate::receiver) fn upsert_greatest(self, key: &str, column: &str) -> String {
        let set = match self {
            Self::Sqlite => format!("\"{column}\" = max(\"{column}\", excluded.\"{column}\")"),
            Self::Mysql => format!("\"{column}\" = GREATEST(\"{column}\", VALUES(\"{column}\"))"),
        };
        self.on_key(key, &set)
    }

    fn on_key(self, key: &str, sets: &str) -> String {
        match self {
            Self::Sqlite => format!(" ON CONFLICT {key} DO UPDATE SET {sets}"),
            Self::Mysql => format!(" ON DUPLICATE KEY UPDATE {sets}"),
        }
    }
}
