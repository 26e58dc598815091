//! What the service manager hears: ready, alive, reloading, stopping, and a line of status. Without one (`NOTIFY_SOCKET`) nothing of it happens.
//!
//! The one rule: "alive" is said only while every pipeline takes its steps in time. A runtime that hangs says nothing, as this is a task in it; one
//! loop that hangs keeps it silent, too: then the manager ends the process and starts it again, which is always safe.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::intake::Cause,
    status::board::{Board, Desk},
};

/// How long a pipeline may take until it gets to opening its outbox.
pub(super) const BEGINNING_MAX: Duration = Duration::from_hours(1);
/// How long an outbox may take to open. A damaged one is read through and set aside meanwhile.
pub(super) const OPENING_MAX: Duration = Duration::from_mins(30);
/// How long one step of capture may take besides its pauses: a question to the source ends after half a minute, so the rest is a disk that
/// hardly writes.
pub(super) const STEP_MAX: Duration = Duration::from_mins(10);
/// How long a request may be in flight, or a look at the destination's catalog take: the largest body by default at the least rate that is borne
/// takes 2 h 20 min.
const IN_FLIGHT_MAX: Duration = Duration::from_hours(3);
/// Without a watchdog the status is told so often.
const STATUS_EVERY: Duration = Duration::from_mins(1);

/// It does its work: after the start, and after each reload.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration again; [`ready`] follows, whatever came of it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "there is no monotonic clock"),
    }
}

/// It is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Also without a manager: then it does nothing.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// Shortens a limit where a test of a debug build wants that.
pub(super) fn limit(usual: Duration) -> Duration {
    #[cfg(debug_assertions)]
    if let Some(ms) = std::env::var("PACKHORSE_TEST_STEP_MAX_MS").ok().and_then(|text| text.parse().ok()) {
        return Duration::from_millis(ms);
    }
    usual
}

/// Says that it is alive, as often as the manager wants it, while it is; until stopped.
pub(super) async fn watch(board: Arc<Board>, stop: CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    let mut ticks = interval(watchdog.map_or(STATUS_EVERY, |patience| patience / 2).max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut stuck_before) = (String::new(), Vec::new());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let desks = board.desks();
        let stuck: Vec<String> = desks.iter().filter_map(|desk| stuck(desk)).collect();
        if stuck.is_empty() && watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
        if stuck != stuck_before && !stuck.is_empty() {
            tracing::error!(
                stuck = stuck.join("; "),
                "a loop is stuck: the service manager is not told any more that all is well"
            );
        }
        let status = if stuck.is_empty() {
            desks.iter().map(|desk| line(desk)).collect::<Vec<_>>().join("; ")
        } else {
            format!("stuck: {}", stuck.join("; "))
        };
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        stuck_before = stuck;
    }
}

/// What of a destination is overdue.
fn stuck(desk: &Desk) -> Option<String> {
    let sender = desk.helm.busy_for().filter(|busy| *busy > IN_FLIGHT_MAX);
    let sender = sender.map(|_| format!("sending: no answer for more than {} s", IN_FLIGHT_MAX.as_secs()));
    desk.pulse.stuck().or(sender).map(|what| format!("{}: {what}", desk.name))
}

/// A destination in a few words, from memory alone.
fn line(desk: &Desk) -> String {
    let Some(outbox) = desk.outbox() else { return format!("{}: its outbox is not open", desk.name) };
    let snapshot = outbox.snapshot();
    let parked = match snapshot.parked() {
        0 => String::new(),
        rows => format!(", {rows} parked"),
    };
    let trouble = if desk.helm.is_paused() {
        ", paused"
    } else if desk.helm.trouble().is_some() {
        ", the destination does not take them"
    } else {
        ""
    };
    let halted = match desk.intake.halt().map(|halt| halt.cause) {
        None => "",
        Some(Cause::Source | Cause::SourceNeedsAHuman) => ", the source cannot be read",
        Some(Cause::Room) => ", capture pauses",
    };
    format!("{}: {} rows wait{parked}{trouble}{halted}", desk.name, snapshot.pending())
}
