//! The source against a real server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use packhorse::{
    domain::{Position, Stream},
    mysql::{MysqlSource, Options},
    ports::{PageRequest, Source},
};
use support::{Database, Mariadb, Schema};

#[tokio::test]
#[ignore = "a measurement"]
async fn speed_of_pages() {
    let db = Database::create(Mariadb::shared(), Schema::classic()).await;
    let begin = std::time::Instant::now();
    let loaded = support::load_greenhouse(&db, 400_000).await;
    println!("loaded {loaded:?} in {:?}", begin.elapsed());
    let mut source = MysqlSource::new(Options::new(db.url())).unwrap();
    for stream in Stream::ALL {
        for _ in 0..2 {
            let begin = std::time::Instant::now();
            let (mut rows, mut after) = (0, Position::Start);
            loop {
                let page = source.page(&PageRequest { stream, after, before: None, limit: 10_000 }).await.unwrap();
                if page.is_empty() {
                    break;
                }
                rows += page.len();
                after = page.id_position(page.len() - 1).or_else(|| page.key_position(page.len() - 1)).unwrap();
            }
            println!("{rows} {} in {:?}: {:.0}/s", stream.plural(), begin.elapsed(), rows as f64 / begin.elapsed().as_secs_f64());
        }
    }
}
