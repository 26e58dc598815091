//! The gateways that showed themselves: whose token, when last seen, what they said of themselves.
//!
//! The one rule: one token, one source id. A source id changes its token only when the old one is no longer in the tokens file.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::{
    cell::Cell,
    refusal::Refusal,
    store::{Step, Store},
    tables::Kind,
    tokens::{Caller, Tokens},
};
use crate::{
    domain::{Micros, SourceId},
    ports::{PushStatus, Summary},
};

/// More gateways than this are not listed (I7).
const LISTED_MAX: i64 = 10_000;
/// How often it is told that two machines share a source id, for as long as they do.
const COLLISION_TOLD_EVERY: Duration = Duration::from_mins(10);

/// Which tokens were found bound to which sources, so that not every request has to ask.
#[derive(Debug, Default)]
pub(super) struct Bound {
    known: Mutex<HashSet<(String, SourceId)>>,
}

impl Bound {
    /// Forgets all: the tokens file was read again.
    pub(super) fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Refuses a caller whose token is another gateway's; binds the token when this is its first use.
    pub(super) async fn check(
        &self,
        change: &mut Step,
        caller: &Caller,
        source: SourceId,
        tokens: &Tokens,
    ) -> Result<(), Refusal> {
        let Caller::Gateway { name, hash } = caller else { return Ok(()) };
        if self.is_known(caller, source) {
            return Ok(());
        }
        let of_token = "SELECT source FROM packhorse_gateway WHERE token = ?".to_owned();
        let holder = change.one(of_token, [Cell::Text(hash.clone())], Kind::Text(32)).await?.text();
        if holder.as_deref().is_some_and(|holder| holder != source.to_string()) {
            return Err(Refusal::Forbidden(format!("the token of {name} belongs to another gateway: give each its own")));
        }
        let of_source = "SELECT token FROM packhorse_gateway WHERE source = ?".to_owned();
        let own = change.one(of_source, [Cell::Text(source.to_string())], Kind::Text(64)).await?.text();
        if own.as_deref().is_some_and(|own| own != hash.as_str() && tokens.holds(own)) {
            let text = format!(
                "this gateway has a token of its own, which is not that of {name}: use it, or take it out of the tokens file"
            );
            return Err(Refusal::Forbidden(text));
        }
        let upsert = change.dialect().upsert("(source)", &["token", "name"]);
        let sql = format!("INSERT INTO packhorse_gateway (source, token, name) VALUES (?, ?, ?){upsert}");
        change.execute(sql, [Cell::Text(source.to_string()), Cell::Text(hash.clone()), Cell::Text(name.clone())]).await?;
        Ok(())
    }

    /// Whether a caller's token was found bound to this source.
    pub(super) fn is_known(&self, caller: &Caller, source: SourceId) -> bool {
        match caller {
            Caller::Anybody | Caller::Operator => true,
            Caller::Gateway { hash, .. } => {
                self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(&(hash.clone(), source))
            }
        }
    }

    /// Notes what a change that is on the disk now has bound.
    pub(super) fn note(&self, caller: &Caller, source: SourceId) {
        if let Caller::Gateway { hash, .. } = caller {
            self.known.lock().unwrap_or_else(PoisonError::into_inner).insert((hash.clone(), source));
        }
    }
}

/// Notes that a gateway was seen.
pub(super) async fn seen(change: &mut Step, source: SourceId) -> Result<(), sqlx::Error> {
    let upsert = change.dialect().upsert("(source)", &["seen"]);
    let sql = format!("INSERT INTO packhorse_gateway (source, seen) VALUES (?, ?){upsert}");
    change.execute(sql, [Cell::Text(source.to_string()), Cell::Time(now())]).await.map(drop)
}

/// Notes that a run came of an epoch that the gateway had given up for another one.
pub(super) async fn collided(change: &mut Step, source: SourceId) -> Result<(), sqlx::Error> {
    let before = "SELECT collided FROM packhorse_gateway WHERE source = ?".to_owned();
    let before = change.one(before, [Cell::Text(source.to_string())], Kind::Time).await?.text();
    let is_news = before.and_then(|at| at.parse::<Micros>().ok()).is_none_or(|at| clock().since(at) >= COLLISION_TOLD_EVERY);
    if is_news {
        tracing::warn!(
            %source,
            "two machines send under one source id, as clones of one image do: all rows of both are kept; take the data_dir of one of them away, so \
             that it begins with an id of its own"
        );
        let sql = "UPDATE packhorse_gateway SET collided = ? WHERE source = ?".to_owned();
        change.execute(sql, [Cell::Time(now()), Cell::Text(source.to_string())]).await?;
    }
    Ok(())
}

/// Notes what a gateway says of itself.
pub(super) async fn report(
    change: &mut Step,
    source: SourceId,
    status: &PushStatus,
    summary: Option<&Summary>,
) -> Result<(), sqlx::Error> {
    seen(change, source).await?;
    let name = "UPDATE packhorse_gateway SET hostname = ?, version = ?, told = ? WHERE source = ?".to_owned();
    let texts = [status.hostname.clone(), status.version.clone()].map(Cell::Text);
    change.execute(name, texts.into_iter().chain([Cell::Time(now()), Cell::Text(source.to_string())])).await?;
    if let Some(summary) = summary {
        let sql = "UPDATE packhorse_gateway SET depth = ?, parked = ?, lag_seconds = ?, oldest_age_seconds = ? WHERE source = ?";
        let number = |number: Option<u64>| number.and_then(|number| i64::try_from(number).ok()).map_or(Cell::Null, Cell::Int);
        let Summary { depth, parked, lag_seconds, oldest_age_seconds } = *summary;
        let numbers = [Some(depth), Some(parked), lag_seconds, oldest_age_seconds].map(number);
        change.execute(sql.to_owned(), numbers.into_iter().chain([Cell::Text(source.to_string())])).await?;
    }
    Ok(())
}

/// A gateway as it last showed itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gateway {
    /// 32 hexadecimal digits.
    pub source: String,
    /// As the tokens file calls it.
    pub name: Option<String>,
    /// When its last request came, UTC.
    pub seen: Option<String>,
    /// Its label.
    pub hostname: Option<String>,
    /// Its program.
    pub version: Option<String>,
    /// When it last spoke of itself, UTC.
    pub told: Option<String>,
    /// Records that wait there.
    pub depth: Option<i64>,
    /// Records that are set aside there.
    pub parked: Option<i64>,
    /// How far its capture is behind its database.
    pub lag_seconds: Option<i64>,
    /// How long its oldest record has waited.
    pub oldest_age_seconds: Option<i64>,
    /// When it was last noted that two machines send under its source id, UTC.
    pub collided: Option<String>,
}

/// All gateways, those first that were not seen for longest.
pub(super) async fn list(store: &Store) -> Result<Vec<Gateway>, Refusal> {
    let kinds = [
        Kind::Text(32),
        Kind::Text(255),
        Kind::Time,
        Kind::Text(255),
        Kind::Text(255),
        Kind::Time,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Int,
        Kind::Time,
    ];
    let sql = "SELECT source, name, seen, hostname, version, told, depth, parked, lag_seconds, oldest_age_seconds, collided \
               FROM packhorse_gateway ORDER BY seen, source LIMIT ?";
    let mut look = store.look().await?;
    let rows = look.fetch(sql.to_owned(), [Cell::Int(LISTED_MAX)], &kinds).await?;
    look.end().await?;
    let read = |row: Vec<Cell>| {
        let [source, name, seen, hostname, version, told, depth, parked, lag, oldest, collided] =
            <[Cell; 11]>::try_from(row).ok()?;
        Some(Gateway {
            source: source.text()?,
            name: name.text(),
            seen: seen.text(),
            hostname: hostname.text(),
            version: version.text(),
            told: told.text(),
            depth: depth.int(),
            parked: parked.int(),
            lag_seconds: lag.int(),
            oldest_age_seconds: oldest.int(),
            collided: collided.text(),
        })
    };
    Ok(rows.into_iter().filter_map(read).collect())
}

fn clock() -> Micros {
    Micros::from_datetime(chrono::Utc::now().naive_utc())
}

fn now() -> String {
    clock().to_string()
}
