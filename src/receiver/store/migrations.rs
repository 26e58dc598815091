//! How the tables come into a database, step by step; `_sqlx_migrations` in it says which steps were taken.
//!
//! The one rule: a step that was released stays as it is, to the byte: a database remembers its digest. A new one is a file and a line here.

use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

/// Version, description, statements.
type Step = (i64, &'static str, &'static str);

const SQLITE: &[Step] = &[(1, "tables", include_str!("../migrations/sqlite/0001_tables.sql"))];
const MYSQL: &[Step] = &[(1, "tables", include_str!("../migrations/mysql/0001_tables.sql"))];

/// Of a file.
pub(super) fn sqlite() -> Migrator {
    migrator(SQLITE)
}

/// Of a server.
pub(super) fn mysql() -> Migrator {
    migrator(MYSQL)
}

/// By hand: sqlx's macro for it would compile both of its drivers, and all of SQLite, a second time, for the compiler's own use.
fn migrator(steps: &[Step]) -> Migrator {
    let migration = |&(version, description, sql): &Step| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(steps.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::path::Path;

    use super::*;

    /// A file that is not listed above would be missed by nobody until a statement fails.
    #[tokio::test]
    async fn the_steps_are_the_files() {
        for (ours, folder) in [(sqlite(), "sqlite"), (mysql(), "mysql")] {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/receiver/migrations").join(folder);
            let files = Migrator::new(folder.as_path()).await.unwrap();
            let told = |migrator: &Migrator| {
                let one = |step: &Migration| {
                    (step.version, step.description.to_string(), step.sql.as_str().to_owned(), step.checksum.to_vec())
                };
                migrator.iter().map(one).collect::<Vec<_>>()
            };
            assert!(!told(&ours).is_empty());
            assert_eq!(told(&ours), told(&files), "{}", folder.display());
        }
    }
}
