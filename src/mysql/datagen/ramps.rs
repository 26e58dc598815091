//! The old tool's ramps: whoever looks at the rows sees at once whether one is missing.

use chrono::NaiveDateTime;
use sqlx::MySqlConnection;

use super::{
    Pace, Ramps, Report,
    bulk::{Bulk, State},
    now, run, seconds,
};
use crate::{domain::Micros, mysql::fault::Trouble};

const RISING: u32 = 37;
const FALLING: u32 = 38;
/// Values run through 0, 1, .. 100.
const STEPS: u64 = 101;

pub(super) async fn make(
    connection: &mut MySqlConnection,
    ramps: &Ramps,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Report, Trouble> {
    run(connection, format!("INSERT IGNORE INTO Node (id) VALUES ({RISING}), ({FALLING})")).await?;
    run(connection, "INSERT IGNORE INTO SensorType (id, name, code, units) VALUES (0, 'Temperature', 'T', 'deg.C')".to_owned())
        .await?;
    let last = last(connection).await?;
    let now = now(connection).await?;
    let mut bulk = Bulk::new(connection, progress);
    match ramps.pace {
        Pace::Backlog { count } => {
            let gap = seconds(ramps.gap);
            let whole = i32::try_from(count.saturating_sub(1)).unwrap_or(i32::MAX);
            let begin = gap.checked_mul(whole).and_then(|span| now.checked_sub_signed(span));
            let begin = begin.into_iter().chain(last.map(|last| last + gap)).max();
            let mut time = begin.unwrap_or(now);
            let mut step = 0;
            while time <= now && step < count {
                one(&mut bulk, ramps, step, time).await?;
                time += gap;
                step += 1;
            }
        }
        Pace::Live { count } => {
            let mut ticks = tokio::time::interval(ramps.gap.max(std::time::Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let (mut step, mut last) = (0, last);
            while count.is_none_or(|count| step < count) {
                ticks.tick().await;
                let time = super::now(bulk.connection()).await?;
                // A second holds one reading of a node: a faster gap than that waits for the next.
                if last.is_none_or(|last| time > last) {
                    one(&mut bulk, ramps, step, time).await?;
                    bulk.commit().await?;
                    (step, last) = (step + 1, Some(time));
                }
            }
        }
    }
    Ok(bulk.finish().await?)
}

/// The last row of either ramp.
async fn last(connection: &mut MySqlConnection) -> Result<Option<NaiveDateTime>, sqlx::Error> {
    // By the index that starts with the node; MAX over an OR would scan.
    let sql = "SELECT MAX(time) FROM Reading WHERE nodeId = ? AND type = 0";
    let rising: Option<NaiveDateTime> = sqlx::query_scalar(sql).bind(RISING).fetch_one(&mut *connection).await?;
    let falling: Option<NaiveDateTime> = sqlx::query_scalar(sql).bind(FALLING).fetch_one(&mut *connection).await?;
    Ok(rising.max(falling))
}

async fn one(bulk: &mut Bulk<'_>, ramps: &Ramps, step: u64, time: NaiveDateTime) -> Result<(), sqlx::Error> {
    let at = step % STEPS;
    let dated = Micros::from_datetime(time);
    bulk.reading(dated, RISING, 0, None, at as f32).await?;
    bulk.reading(dated, FALLING, 0, None, (STEPS - 1 - at) as f32).await?;
    // The counter begins again with each ramp.
    if ramps.states_every > 0 && at.is_multiple_of(u64::from(ramps.states_every)) {
        let seq_num = i64::try_from(at / u64::from(ramps.states_every)).unwrap_or(0);
        for node in [RISING, FALLING] {
            let localtime = time.and_utc().timestamp();
            bulk.state(dated, &State { node, parent: Some(1), localtime, seq_num: Some(seq_num), rssi: Some(-60) }).await?;
        }
    }
    Ok(())
}
