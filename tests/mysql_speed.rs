//! Measurements, not run by default: `cargo test --release --test mysql_speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::time::Instant;

use packhorse::{
    domain::{Position, Stream},
    mysql::{MysqlSource, Options},
    ports::{PageRequest, Source},
};
use support::{Database, Mariadb, Schema, load_greenhouse};

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_pages() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    let begin = Instant::now();
    let Some(loaded) = load_greenhouse(&db, 400_000).await else { return };
    println!("loaded {loaded:?} in {:?}", begin.elapsed());
    let mut source = MysqlSource::new(Options::new(db.url())).unwrap();
    for stream in Stream::ALL {
        for _ in 0..3 {
            let begin = Instant::now();
            let (mut rows, mut after) = (0, Position::Start);
            loop {
                let page = source.page(&PageRequest { stream, after, before: None, limit: 10_000 }).await.unwrap();
                if page.is_empty() {
                    break;
                }
                rows += page.len();
                after = support::position(&page, page.len() - 1).unwrap();
            }
            let per_second = rows as f64 / begin.elapsed().as_secs_f64();
            println!("{rows} {} in {:?}: {per_second:.0} a second", stream.plural(), begin.elapsed());
        }
    }
}
