//! Charts as SVG, drawn from the history. Pure.
//!
//! The one rule: a chart says in words what it shows, for those who do not see it, and a gap in the figures is a gap in the line.

use std::fmt::Write as _;

use super::{
    history::Minute,
    sentence::{number, span},
};

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 80.0;

/// A stretch of time that is shown.
#[derive(Clone, Copy, Debug)]
pub struct Period {
    /// Its name.
    pub name: &'static str,
    /// Its length, minutes.
    pub minutes: u32,
    /// Minutes that make one point.
    pub bucket: u32,
}

/// Hour, day and week.
pub const PERIODS: [Period; 3] = [
    Period { name: "hour", minutes: 60, bucket: 1 },
    Period { name: "day", minutes: 24 * 60, bucket: 15 },
    Period { name: "week", minutes: 7 * 24 * 60, bucket: 120 },
];

impl Period {
    /// The minutes of a bucket, from one on up to another (exclusive). Before 1970 there are none: a gateway without a clock begins there.
    fn bucket(self, place: u32, now: u32) -> (u32, u32) {
        let at = |place: u32| {
            let minute = (u64::from(now) + u64::from(place * self.bucket)).saturating_sub(self.minutes.into());
            u32::try_from(minute).unwrap_or(now)
        };
        (at(place), at(place + 1))
    }
}

/// What several minutes come to.
fn sum(minutes: &[Minute]) -> Option<Minute> {
    let mut all = *minutes.last()?;
    for minute in &minutes[..minutes.len() - 1] {
        all.pending = all.pending.max(minute.pending);
        all.captured += minute.captured;
        all.delivered += minute.delivered;
        all.bytes += minute.bytes;
        all.errors += minute.errors;
        all.requests += minute.requests;
        all.round_trip_ms = all.round_trip_ms.max(minute.round_trip_ms);
    }
    Some(all)
}

/// A point for each bucket; `None` where nothing was seen.
pub fn points(minutes: &[Minute], period: Period, now: u32) -> Vec<Option<Minute>> {
    let count = period.minutes / period.bucket;
    let bucket = |place: u32| {
        let (begin, end) = period.bucket(place, now);
        let within = minutes.partition_point(|minute| minute.at < begin)..minutes.partition_point(|minute| minute.at < end);
        sum(&minutes[within])
    };
    (0..count).map(bucket).collect()
}

/// One line of a chart.
pub struct Series<'a> {
    /// What it is.
    pub name: &'a str,
    /// Its class, which gives the colour.
    pub class: &'a str,
    /// Its values.
    pub values: Vec<Option<u64>>,
}

/// A chart of one or two lines on one scale.
pub fn lines(title: &str, period: Period, unit: &str, series: &[Series<'_>]) -> String {
    let max = series.iter().flat_map(|series| series.values.iter().flatten()).max().copied().unwrap_or(0);
    let is_empty = series.iter().all(|series| series.values.iter().all(Option::is_none));
    let told: Vec<_> = series
        .iter()
        .map(|series| {
            let last = series.values.iter().rev().flatten().next();
            let most = series.values.iter().flatten().max();
            match (last, most) {
                (Some(last), Some(most)) => {
                    format!("{} {}{unit} last, {}{unit} at most", series.name, number(*last), number(*most))
                }
                _ => format!("{}: nothing seen yet", series.name),
            }
        })
        .collect();
    let told = told.join("; ");
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}, last {}: {told}\">\
         <line class=\"axis\" x1=\"0\" y1=\"79\" x2=\"{WIDTH}\" y2=\"79\"/>",
        period.name
    );
    // Writing to a String does not fail.
    for series in series {
        let step = WIDTH / series.values.len().max(2) as f64;
        let mut path = String::new();
        let mut is_down = false;
        for (place, value) in series.values.iter().enumerate() {
            match value {
                Some(value) => {
                    let y = HEIGHT - 2.0 - (HEIGHT - 8.0) * (*value as f64 / max.max(1) as f64);
                    let x = step * (place as f64 + 0.5);
                    // A single point is a short stroke.
                    let _ = if is_down { write!(path, "L{x:.1} {y:.1}") } else { write!(path, "M{x:.1} {y:.1}h.1") };
                    is_down = true;
                }
                None => is_down = false,
            }
        }
        let _ = write!(svg, "<path class=\"{}\" d=\"{path}\"/>", series.class);
    }
    let words = if is_empty {
        "nothing seen yet".to_owned()
    } else if let [_] = series {
        told
    } else {
        // Which line is which.
        let keyed = series.iter().zip(told.split("; "));
        let keyed = keyed.map(|(series, told)| format!("<span class=\"key {}\"></span>{told}", series.class));
        keyed.collect::<Vec<_>>().join("<br>")
    };
    let _ = write!(svg, "</svg>{}<p class=\"told\">{words}</p></figure>", ends(period));
    svg
}

/// From when to when a chart goes. Charts say it in words as well.
fn ends(period: Period) -> String {
    format!("<p class=\"ends\" aria-hidden=\"true\"><span>a {} ago</span><span>now</span></p>", period.name)
        .replace("a hour", "an hour")
}

/// When the destination was there: a bar of stretches.
pub fn timeline(minutes: &[Minute], period: Period, now: u32) -> String {
    let count = period.minutes / period.bucket;
    let step = WIDTH / f64::from(count);
    let (mut up, mut down, mut paused) = (0_u64, 0_u64, 0_u64);
    let mut bars = String::new();
    for place in 0..count {
        let (begin, end) = period.bucket(place, now);
        let within = minutes.partition_point(|minute| minute.at < begin)..minutes.partition_point(|minute| minute.at < end);
        let seconds = |of: fn(&Minute) -> u8| minutes[within.clone()].iter().map(|minute| u64::from(of(minute))).sum::<u64>();
        let (there, away, held_up) =
            (seconds(|minute| minute.up_s), seconds(|minute| minute.down_s), seconds(|minute| minute.paused_s));
        up += there;
        down += away;
        paused += held_up;
        let class = match (there, away, held_up) {
            (0, 0, 0) => continue,
            (_, away, _) if away > there.max(held_up) => "down",
            (_, away, _) if away > 0 => "partly",
            (there, _, held_up) if held_up > there => "paused",
            _ => "up",
        };
        // Writing to a String does not fail.
        let _ = write!(
            bars,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"0\" width=\"{:.1}\" height=\"18\"/>",
            step * f64::from(place),
            step + 0.2
        );
    }
    let told = match up + down {
        0 => "nothing seen yet".to_owned(),
        seen => format!(
            "there {}% of the time that was seen, away for {}{}",
            up * 100 / seen,
            span(down),
            if paused > 0 { format!(", paused for {}", span(paused)) } else { String::new() }
        ),
    };
    format!(
        "<figure class=\"wide\"><figcaption>Link</figcaption><svg class=\"bar\" viewBox=\"0 0 {WIDTH} 18\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"Link, last {}: {told}\">{bars}</svg>{}<p class=\"told\">{told}</p></figure>",
        period.name,
        ends(period)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(at: u32, pending: u64) -> Minute {
        Minute { at, pending, captured: 1, up_s: 60, ..Minute::default() }
    }

    #[test]
    fn minutes_are_put_together_and_a_gap_stays_one() {
        let now = 100_000;
        let minutes: Vec<_> = (now - 120..now - 60).map(|at| minute(at, u64::from(at))).collect();
        let day = points(&minutes, PERIODS[1], now);
        assert_eq!(day.len(), 96);
        let seen: Vec<_> = day.iter().flatten().collect();
        assert_eq!(seen.len(), 4);
        assert_eq!((seen[0].captured, seen[0].pending), (15, u64::from(now) - 106), "a sum, and the most that waited");
        assert!(points(&minutes, PERIODS[0], now).iter().all(Option::is_none));
        let svg = lines("Waiting", PERIODS[1], "", &[Series { name: "rows", class: "a", values: vec![Some(1), None, Some(3)] }]);
        assert_eq!(svg.matches('M').count(), 2, "two strokes: {svg}");
        assert!(svg.contains("rows 3 last, 3 at most"), "{svg}");
    }

    #[test]
    fn an_outage_is_seen_in_the_timeline_and_told() {
        let now = 100_000;
        let minutes: Vec<_> = (now - 60..now)
            .map(|at| if at < now - 45 { Minute { at, down_s: 60, ..Minute::default() } } else { minute(at, 0) })
            .collect();
        let bar = timeline(&minutes, PERIODS[0], now);
        assert_eq!((bar.matches("class=\"down\"").count(), bar.matches("class=\"up\"").count()), (15, 45));
        assert!(bar.contains("there 75% of the time that was seen, away for 15 min"), "{bar}");
    }

    #[test]
    fn a_clock_in_1970_and_one_that_jumps_draw_charts_that_end_now() {
        for now in [0, 1, 59, 61, u32::MAX] {
            for period in PERIODS {
                let minutes: Vec<_> = (now.saturating_sub(3)..now).map(|at| minute(at, 7)).collect();
                let points = points(&minutes, period, now);
                assert_eq!(points.len() as u32, period.minutes / period.bucket);
                assert_eq!(points.iter().flatten().map(|point| point.captured).sum::<u64>(), minutes.len() as u64, "{now}");
                assert_eq!(points.last().unwrap().is_some(), now > 0, "the newest is the last one, at {now}");
                assert_eq!(timeline(&minutes, period, now).contains("there 100%"), now > 0, "{now}");
            }
        }
        // It was set back and forth: what lies ahead of now is not shown.
        let minutes: Vec<_> = [5, 6, 100_000, 100_001].map(|at| minute(at, 7)).to_vec();
        assert_eq!(points(&minutes, PERIODS[0], 7).iter().flatten().count(), 2);
        assert_eq!(points(&minutes, PERIODS[0], 100_002).iter().flatten().count(), 2);
    }
}
