//! What a packhorse client tells of a bulk request, and what a packhorse receiver tells of each of its rows.
//!
//! The one rule: both sides read and write it here. Numbers of rows are places in the request's list, from 0.

use serde::{Deserialize, Serialize};

use crate::domain::{Epoch, Generation, Seq, SourceId, Stream};

/// Request header, packhorse receivers only: the source id, 32 hexadecimal digits.
pub const SOURCE_HEADER: &str = "packhorse-source";
/// Request header, packhorse receivers only: the source generation, decimal.
pub const GENERATION_HEADER: &str = "packhorse-generation";
/// Request header, packhorse receivers only: the outbox's epoch, 16 hexadecimal digits.
pub const EPOCH_HEADER: &str = "packhorse-epoch";
/// Request header, packhorse receivers only: the stream, `reading` or `nodestate`.
pub const STREAM_HEADER: &str = "packhorse-stream";
/// Request header, packhorse receivers only: the run's first seq, decimal.
pub const FIRST_HEADER: &str = "packhorse-first";
/// Request header, packhorse receivers only: the seq after the run's last, decimal.
pub const END_HEADER: &str = "packhorse-end";
/// Request header, packhorse receivers only: the first seq that is not settled, decimal; receipts of earlier ones are no longer needed.
pub const CURSOR_HEADER: &str = "packhorse-cursor";
/// Request header, packhorse receivers only, where there is one: the highest seq of the epoch and stream that this receiver has taken, decimal. One
/// that does not know of it has lost rows: it stores nothing, and says so with [`LOST_STATUS`].
pub const TAKEN_HEADER: &str = "packhorse-taken";
/// 412 Precondition Failed: the receiver has lost rows that it had taken, and [`SEEN_HEADER`] says which it still has. Nothing was stored.
pub const LOST_STATUS: u16 = 412;
/// On every answer to a run: the highest seq of its epoch and stream that the receiver had seen before it, decimal, or `none`.
pub const SEEN_HEADER: &str = "packhorse-seen";

/// The run of records that a bulk request stands for, as its headers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Whose rows.
    pub source: SourceId,
    /// Which database stood behind it.
    pub generation: Generation,
    /// Which life of the outbox.
    pub epoch: Epoch,
    /// Of which stream.
    pub stream: Stream,
    /// The first seq.
    pub first: Seq,
    /// The seq after the last.
    pub end: Seq,
    /// The first seq that is not settled.
    pub cursor: Seq,
    /// The highest seq that the receiver has taken, as far as the client knows.
    pub taken: Option<Seq>,
}

impl Run {
    /// The headers that tell it.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            (SOURCE_HEADER, self.source.to_string()),
            (GENERATION_HEADER, self.generation.0.to_string()),
            (EPOCH_HEADER, self.epoch.to_string()),
            (STREAM_HEADER, self.stream.name().to_owned()),
            (FIRST_HEADER, self.first.to_string()),
            (END_HEADER, self.end.to_string()),
            (CURSOR_HEADER, self.cursor.to_string()),
        ];
        headers.extend(self.taken.map(|taken| (TAKEN_HEADER, taken.to_string())));
        headers
    }

    /// Reads the headers of a request; `None` when none of a run's own is there.
    ///
    /// # Errors
    /// What is wrong with them, for people.
    pub fn parse<'h>(header: impl Fn(&str) -> Option<&'h str>) -> Result<Option<Self>, String> {
        let own = [EPOCH_HEADER, STREAM_HEADER, FIRST_HEADER, END_HEADER, CURSOR_HEADER];
        if own.iter().all(|name| header(name).is_none()) {
            return Ok(None);
        }
        let needed = |name: &str| header(name).ok_or_else(|| format!("{name} is missing: a run's headers come together"));
        let seq = |name: &str| {
            let number: Result<i64, _> = needed(name)?.parse();
            number.ok().and_then(|number| u64::try_from(number).ok()).map(Seq).ok_or_else(|| format!("{name} is not a seq"))
        };
        let stream = needed(STREAM_HEADER)?;
        let run = Self {
            source: source(needed(SOURCE_HEADER)?)?,
            generation: generation(needed(GENERATION_HEADER)?)?,
            epoch: hexadecimal(needed(EPOCH_HEADER)?, 16)
                .and_then(|text| u64::from_str_radix(text, 16).ok())
                .map(Epoch)
                .ok_or_else(|| format!("{EPOCH_HEADER} is not 16 hexadecimal digits"))?,
            stream: Stream::ALL
                .into_iter()
                .find(|known| known.name() == stream)
                .ok_or_else(|| format!("{STREAM_HEADER} is neither reading nor nodestate"))?,
            first: seq(FIRST_HEADER)?,
            end: seq(END_HEADER)?,
            cursor: seq(CURSOR_HEADER)?,
            taken: header(TAKEN_HEADER).map(|_| seq(TAKEN_HEADER)).transpose()?,
        };
        if run.first >= run.end || run.cursor > run.first {
            return Err(format!("{CURSOR_HEADER}, {FIRST_HEADER} and {END_HEADER} must ascend, and a run is not empty"));
        }
        Ok(Some(run))
    }
}

/// The source id in a header.
///
/// # Errors
/// What is wrong with it, for people.
pub fn source(text: &str) -> Result<SourceId, String> {
    let source = hexadecimal(text, 32).and_then(|text| text.parse().ok());
    source.ok_or_else(|| format!("{SOURCE_HEADER} is not 32 hexadecimal digits"))
}

/// The generation in a header.
///
/// # Errors
/// What is wrong with it, for people.
pub fn generation(text: &str) -> Result<Generation, String> {
    text.parse().map(Generation).map_err(|_| format!("{GENERATION_HEADER} is not a number"))
}

fn hexadecimal(text: &str, digits: usize) -> Option<&str> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

/// What became of each row of a run. A success, 201, refuses none; 207 says that some are stored and some refused, 422 that all are refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAnswer {
    /// How many rows are there now that were not before.
    pub stored: u64,
    /// Rows that were there already, as runs from one place up to another (exclusive).
    pub had: Vec<(u64, u64)>,
    /// Rows that were not stored, by reason. A row may be in several.
    pub refused: Vec<RefusedRows>,
    /// Whether a receipt told that this very request was stored before; `had` is then all of it.
    #[serde(default)]
    pub repeat: bool,
    /// With refused rows: what it is, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Rows that are refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRows {
    /// Why.
    pub reason: String,
    /// Which, as runs from one place up to another (exclusive).
    pub rows: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> Run {
        Run {
            source: SourceId(0xabc),
            generation: Generation(2),
            epoch: Epoch(7),
            stream: Stream::NodeState,
            first: Seq(10),
            end: Seq(12),
            cursor: Seq(10),
            taken: Some(Seq(8)),
        }
    }

    fn parsed(change: (&str, Option<&str>)) -> Result<Option<Run>, String> {
        let headers = run().headers();
        Run::parse(|name| {
            if name == change.0 { change.1 } else { headers.iter().find(|(key, _)| *key == name).map(|(_, text)| text.as_str()) }
        })
    }

    #[test]
    fn a_run_reads_back_from_its_headers() {
        assert_eq!(parsed(("", None)), Ok(Some(run())));
        assert_eq!(parsed((TAKEN_HEADER, None)), Ok(Some(Run { taken: None, ..run() })), "nothing was taken yet");
        assert_eq!(Run::parse(|name| (name == SOURCE_HEADER).then_some("x")), Ok(None));
    }

    #[test]
    fn a_run_with_a_missing_or_odd_header_is_refused_by_name() {
        for (name, _) in run().headers() {
            for text in [None, Some("x"), Some("-1"), Some("99999999999999999999"), Some("")] {
                if (name, text) == (TAKEN_HEADER, None) {
                    continue;
                }
                let error = parsed((name, text)).unwrap_err();
                assert!(error.contains("packhorse-"), "{name} {text:?}: {error}");
            }
        }
        assert!(parsed((END_HEADER, Some("10"))).is_err());
        assert!(parsed((CURSOR_HEADER, Some("11"))).is_err());
    }
}
