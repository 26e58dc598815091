//! How large the next request is. Pure.
//!
//! A size is bytes of a body. It is the least of
//!
//! - 15 s of link, by what was measured; what takes 10 to 20 s is left as it is,
//! - the rows that the server stores in 5 s, by what was measured,
//! - what something on the way has let through, where it has refused more (413),
//! - the configured bound, and twice what was accepted before.
//!
//! Nothing of it outlives the program: a request too many after a start finds a limit again, and yesterday's link is not today's
//! (docs/decisions/0014).
//!
//! The one rule: whatever happens, the next request holds at least one row.

use std::time::Duration;

use crate::domain::Stream;

/// The first request is about as large, so that it tells something of an unknown link soon.
const START_BYTES: u64 = 32 * 1024;
/// What the link or an unknown outcome calls for does not go below this: smaller requests over a poor link cost more than they gain.
const BYTES_MIN: u64 = 4 * 1024;
/// And what the server's time calls for not below so many rows.
const SERVER_ROWS_MIN: usize = 500;
/// More rows than these are sent in one request only where the link is what takes the time: else they gain nothing, and take memory.
const PLAIN_ROWS: usize = 10_000;
/// What a row takes as long as none was sent.
const ROW_BYTES: f64 = 10.0;
/// Requests of fewer rows tell nothing of what a row takes among many.
const TELLING_ROWS: usize = 100;
/// Uploads are not measured more finely than that, seconds.
const UPLOAD_MIN: f64 = 0.02;
/// After an unknown outcome a larger request is tried only after so many accepted ones in a row.
const CALM: u32 = 3;
/// A limit that was learnt is tried again after this many accepted requests, and after twice as many each time that it still holds.
const PROBE_AFTER: u32 = 20;
const PROBE_AFTER_MAX: u32 = 2_000;

/// How long a request is to take.
#[derive(Clone, Copy, Debug)]
pub struct Aim {
    /// On the link; a third more or less is as good.
    pub link: Duration,
    /// At the server, at most.
    pub server: Duration,
}

impl Default for Aim {
    fn default() -> Self {
        Self { link: Duration::from_secs(15), server: Duration::from_secs(5) }
    }
}

/// What an accepted request tells.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Rows in it.
    pub rows: usize,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// How long the body was on its way.
    pub uploaded: Duration,
    /// How long the answer took from then on.
    pub answered: Duration,
}

/// The size of requests, learnt from what link and destination take.
#[derive(Clone, Debug)]
pub struct Pace {
    aim: Aim,
    rows_max: usize,
    body_bytes_max: u64,
    size: u64,
    /// What a row of each stream takes.
    row_bytes: [f64; Stream::ALL.len()],
    /// Bytes a second that the link carried.
    goodput: Option<f64>,
    /// Seconds that the server takes for a row more.
    row_time: f64,
    /// Rows of the smallest request, and the seconds that its answer took.
    smallest: Option<(usize, f64)>,
    /// Accepted requests until a larger one is tried.
    calm: u32,
    /// What was refused for its size was larger than this.
    limit: u64,
    /// The largest request that was accepted.
    proven: u64,
    accepted_at_limit: u32,
    probe_after: u32,
    /// The limit was raised on trial.
    is_probing: bool,
    /// Rows and bytes of the last request.
    last: (usize, u64),
    /// As many rows as these were too large, and nothing was accepted since.
    too_many: Option<usize>,
}

impl Pace {
    /// Begins small.
    pub fn new(rows_max: usize, body_bytes_max: u64, aim: Aim) -> Self {
        Self {
            aim,
            rows_max: rows_max.max(1),
            body_bytes_max: body_bytes_max.max(1),
            size: START_BYTES.min(body_bytes_max.max(1)),
            row_bytes: [ROW_BYTES; Stream::ALL.len()],
            goodput: None,
            row_time: 0.0,
            smallest: None,
            calm: 0,
            limit: u64::MAX,
            proven: 0,
            accepted_at_limit: 0,
            probe_after: PROBE_AFTER,
            is_probing: false,
            last: (0, 0),
            too_many: None,
        }
    }

    /// Rows of a stream for the next request, at most.
    pub fn rows(&self, stream: Stream) -> usize {
        let row_bytes = self.row_bytes[usize::from(stream.number())];
        // A body is some percent larger or smaller than it was reckoned.
        let bound = self.body_bytes_max.min(self.limit) as f64 * (15.0 / 16.0);
        let fitting = (bound.min(self.size as f64) / row_bytes) as usize;
        let is_long =
            self.goodput.is_some_and(|goodput| PLAIN_ROWS as f64 * row_bytes / goodput >= self.aim.link.as_secs_f64() / 15.0);
        let rows_max = if is_long { self.rows_max } else { self.rows_max.min(PLAIN_ROWS) };
        let stored = ((self.aim.server.as_secs_f64() / self.row_time) as usize).max(SERVER_ROWS_MIN);
        let fewer = self.too_many.map_or(usize::MAX, |rows| rows * 3 / 4);
        fitting.min(rows_max).min(stored).min(fewer).max(1)
    }

    /// A request went out, whatever becomes of it.
    pub fn sent(&mut self, stream: Stream, rows: usize, body_bytes: u64) {
        self.last = (rows, body_bytes);
        if rows >= TELLING_ROWS && body_bytes > 0 {
            self.row_bytes[usize::from(stream.number())] = body_bytes as f64 / rows as f64;
        }
    }

    /// A request was accepted.
    pub fn accepted(&mut self, stream: Stream, sample: &Sample) {
        let Sample { rows, body_bytes, .. } = *sample;
        let is_full = rows >= self.rows(stream) / 4 * 3;
        self.too_many = None;
        self.prove(body_bytes);
        self.measure(sample, is_full);
        self.calm = self.calm.saturating_sub(1);
        let Some(goodput) = self.goodput else { return };
        let aim = self.aim.link.as_secs_f64();
        let takes = self.size as f64 / goodput;
        if takes > aim * 4.0 / 3.0 {
            self.size = (goodput * aim) as u64;
        } else if takes < aim * 2.0 / 3.0 && is_full && self.calm == 0 && self.more_than_any(sample) < aim {
            self.size = self.size.saturating_mul(2).min((goodput * aim) as u64);
        }
        let most = self.body_bytes_max.min(self.limit);
        self.size = self.size.clamp(BYTES_MIN.min(most), most);
    }

    /// Seconds that a request took but for what the smallest one waited for its answer; nothing when it is not twice as large as that one. What
    /// lies in a buffer on the way looks as if it had arrived: then the answer takes the time that the link does, which looks faster than it is.
    fn more_than_any(&self, sample: &Sample) -> f64 {
        match self.smallest {
            Some((rows, least)) if sample.rows >= rows * 2 => {
                sample.uploaded.as_secs_f64() + (sample.answered.as_secs_f64() - least).max(0.0)
            }
            Some(_) | None => 0.0,
        }
    }

    fn prove(&mut self, body_bytes: u64) {
        if self.is_probing && body_bytes > self.proven {
            self.is_probing = false;
            self.probe_after = PROBE_AFTER;
        }
        self.proven = self.proven.max(body_bytes);
        if self.limit < self.body_bytes_max && body_bytes >= self.limit / 4 * 3 {
            self.accepted_at_limit += 1;
            if self.accepted_at_limit >= self.probe_after {
                self.accepted_at_limit = 0;
                self.is_probing = true;
                self.limit = self.limit.saturating_mul(2);
            }
        }
    }

    /// Fixed costs weigh on a small request, so that one tells of the link at least, and never how slow it is.
    fn measure(&mut self, sample: &Sample, is_full: bool) {
        let uploaded = sample.uploaded.as_secs_f64();
        let rate = (sample.body_bytes as f64 / uploaded.max(UPLOAD_MIN)).max(1.0);
        let aim = self.aim.link.as_secs_f64();
        self.goodput = Some(match self.goodput {
            None => rate,
            Some(_) if uploaded > aim * 2.0 => rate,
            Some(before) if rate > before || is_full || uploaded > aim / 8.0 => f64::midpoint(before, rate),
            Some(before) => before,
        });
        let answered = sample.answered.as_secs_f64();
        match self.smallest {
            Some((rows, _)) if sample.rows > rows && sample.rows < rows * 2 => {}
            // What a server takes for any request at all says nothing of how many rows it manages.
            Some((rows, least)) if sample.rows > rows => {
                let row_time = ((answered - least) / (sample.rows - rows) as f64).max(0.0);
                self.row_time = if self.row_time > 0.0 { f64::midpoint(self.row_time, row_time) } else { row_time };
            }
            Some(_) | None => self.smallest = Some((sample.rows, answered)),
        }
    }

    /// A request of this many rows was too large. `false` when no smaller one is worth trying at once: one of this size was accepted
    /// before, so that it is not its size that is at fault now.
    pub fn too_large(&mut self, rows: usize) -> bool {
        self.calm = CALM;
        self.accepted_at_limit = 0;
        self.too_many = (rows > 1).then_some(rows);
        let body_bytes = match self.last {
            (of_rows, body_bytes) if of_rows == rows && body_bytes > 0 => body_bytes,
            _ => (rows as f64 * ROW_BYTES) as u64,
        };
        if body_bytes <= self.proven {
            // Or the server was given another limit: that is found in time.
            self.proven = body_bytes / 4 * 3;
            self.size = (body_bytes / 2).clamp(1, self.limit.min(self.body_bytes_max));
            return false;
        }
        if self.is_probing {
            self.is_probing = false;
            self.probe_after = (self.probe_after * 2).min(PROBE_AFTER_MAX);
            self.limit = self.proven.max(1);
        } else {
            self.limit = self.limit.min(body_bytes - 1).max(1);
        }
        self.size = u64::midpoint(self.proven, body_bytes).clamp(1, self.limit.min(self.body_bytes_max));
        true
    }

    /// The outcome of a request is unknown: smaller ones have better chances.
    pub fn slow_down(&mut self) {
        self.calm = CALM;
        let before = if self.last.1 > 0 { self.size.min(self.last.1) } else { self.size };
        self.size = (before / 2).max(BYTES_MIN).min(self.size).max(1);
    }
}

#[cfg(test)]
mod tests;
