//! What the suites of the main job stand on: a filled source, a central receiver in some manner, and the link between.

use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, sqlite::SqliteConnectOptions};

use tokio::time::{Instant, sleep};

use super::{
    Comparison, Database, Mariadb, Proxy, Schema, compare,
    compare::are_fewer,
    gateway::{Central, Gateway},
    greenhouse::load_catalog,
    load_greenhouse,
};

/// Both ends, and the link between.
pub struct Scene {
    pub dir: tempfile::TempDir,
    pub source: Database,
    pub central: Central,
    pub proxy: Proxy,
}

impl Scene {
    /// `None`, with a message, where the data for tests is not there.
    pub async fn set(schema: Schema, manner: &'static str, readings: usize) -> Option<Self> {
        let source = Database::create(Mariadb::shared(), schema).await;
        load_greenhouse(&source, readings).await?;
        Some(Self::around(source, manner).await)
    }

    /// With a catalog, and no row yet.
    pub async fn without_rows(schema: Schema, manner: &'static str) -> Self {
        Self::on(Mariadb::shared(), schema, manner).await
    }

    /// The same on a database server of its own.
    pub async fn on(server: &Mariadb, schema: Schema, manner: &'static str) -> Self {
        let source = Database::create(server, schema).await;
        load_catalog(&source).await;
        Self::around(source, manner).await
    }

    async fn around(source: Database, manner: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let central = Central::start(dir.path(), manner).await;
        let proxy = Proxy::start(central.addr).await;
        Self { dir, source, central, proxy }
    }

    /// One with this destination alone, over the link.
    pub fn gateway(&self) -> Gateway {
        Gateway::new(&self.dir.path().join("gateway"), self.source.url(), self.proxy.addr())
    }

    /// How both ends stand to each other; printed.
    pub async fn compare(&self) -> Comparison {
        let comparison = compare(&self.source, self.central.database()).await;
        println!("{comparison}");
        comparison
    }

    /// Waits until both ends are equal.
    pub async fn wait_until_equal(&self, what: &str) {
        let began = Instant::now();
        loop {
            let patience_left = began.elapsed() < Duration::from_mins(4);
            if !patience_left || !are_fewer(&self.source, self.central.database()).await {
                let comparison = compare(&self.source, self.central.database()).await;
                if comparison.is_equal() {
                    return;
                }
                // Rows that are there twice stay so.
                assert!(
                    comparison.readings.duplicated + comparison.node_states.duplicated == 0,
                    "{what}:
{comparison}"
                );
                assert!(
                    patience_left,
                    "{what}:
{comparison}"
                );
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Changes the central database behind the receiver's back.
    pub async fn central_sql(&mut self, sql: &str) -> u64 {
        self.central.kill();
        let mut file = SqliteConnectOptions::new().filename(self.central.database()).foreign_keys(false).connect().await.unwrap();
        let done = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut file).await.unwrap().rows_affected();
        file.close().await.unwrap();
        self.central.restart().await;
        done
    }
}

/// A program's exit code, with what it said where it is another one.
#[track_caller]
pub fn assert_exit(output: &std::process::Output, code: i32) {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{text}");
}
