//! A week of figures, a record a minute, in a small ring file beside the outbox: for the charts.
//!
//! ```text
//! file   = 10,080 records of 64 bytes; a minute has its place: minutes since 1970 modulo 10,080
//! record = "PHH1"  minute:u32  pending captured delivered bytes:u64  requests errors round_trip_ms:u32
//!          up_s down_s paused_s:u8  zeros  crc32:u32   (all little-endian)
//! ```
//!
//! The one rule: nothing hangs on it. A record that is torn or of another week is no record; a file that cannot be written is told once.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use crate::outbox::data_dir;

const MAGIC: [u8; 4] = *b"PHH1";
const RECORD_BYTES: usize = 64;
/// A week of minutes.
pub const MINUTES: u32 = 7 * 24 * 60;

/// The file is never longer.
const FILE_BYTES_MAX: u64 = MINUTES as u64 * RECORD_BYTES as u64;

/// What one minute came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// Minutes since 1970.
    pub at: u32,
    /// Rows that waited at its end.
    pub pending: u64,
    /// Rows that were captured in it.
    pub captured: u64,
    /// Rows that were delivered in it.
    pub delivered: u64,
    /// Bytes of request bodies.
    pub bytes: u64,
    /// Requests that came back.
    pub requests: u32,
    /// Of these, those that were not accepted.
    pub errors: u32,
    /// How long one took, on the average.
    pub round_trip_ms: u32,
    /// Seconds in which the destination was there.
    pub up_s: u8,
    /// Seconds in which it was not.
    pub down_s: u8,
    /// Seconds in which an operator had paused it.
    pub paused_s: u8,
}

impl Minute {
    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(self.at.to_le_bytes());
        for number in [self.pending, self.captured, self.delivered, self.bytes] {
            bytes.extend(number.to_le_bytes());
        }
        for number in [self.requests, self.errors, self.round_trip_ms] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend([self.up_s, self.down_s, self.paused_s]);
        bytes.resize(RECORD_BYTES - 4, 0);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().unwrap_or([0; RECORD_BYTES])
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (content, checksum) = bytes.split_at_checked(RECORD_BYTES - 4)?;
        if !content.starts_with(&MAGIC) || checksum != crc32fast::hash(content).to_le_bytes() {
            return None;
        }
        let long = |at: usize| content.get(at..at + 8).and_then(|part| part.try_into().ok()).map(u64::from_le_bytes);
        let short = |at: usize| content.get(at..at + 4).and_then(|part| part.try_into().ok()).map(u32::from_le_bytes);
        Some(Self {
            at: short(4)?,
            pending: long(8)?,
            captured: long(16)?,
            delivered: long(24)?,
            bytes: long(32)?,
            requests: short(40)?,
            errors: short(44)?,
            round_trip_ms: short(48)?,
            up_s: content[52],
            down_s: content[53],
            paused_s: content[54],
        })
    }
}

/// Where the history of an outbox lies.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(data_dir::HISTORY)
}

/// Begins anew a file that is not what it was written as: of a length that it cannot have, or without a single good record. Gives whether it did. A
/// torn record among good ones is only left out.
pub fn mend(folder: &Path) -> io::Result<bool> {
    let path = path(folder);
    let length = match path.metadata() {
        Ok(found) => found.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_possible = length <= FILE_BYTES_MAX && length.is_multiple_of(RECORD_BYTES as u64);
    if is_possible
        && (length == 0 || std::fs::read(&path)?.chunks(RECORD_BYTES).any(|record| Minute::from_bytes(record).is_some()))
    {
        return Ok(false);
    }
    File::options().write(true).open(&path)?.set_len(0)?;
    Ok(true)
}

/// Writes a minute into its place.
pub fn write(folder: &Path, minute: &Minute) -> io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path(folder))?;
    file.write_all_at(&minute.to_bytes(), u64::from(minute.at % MINUTES) * RECORD_BYTES as u64)
}

/// The minutes from one on up to another (exclusive), as far as they are there; at most a week.
pub fn read(folder: &Path, from: u32, to: u32) -> Vec<Minute> {
    let Ok(file) = File::open(path(folder)) else { return Vec::new() };
    let mut bytes = Vec::new();
    // It may be anything by now, but no more of it is read than there is of ours.
    if file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).is_err() {
        return Vec::new();
    }
    let from = from.max(to.saturating_sub(MINUTES));
    let minute = |at: u32| {
        let place = (at % MINUTES) as usize * RECORD_BYTES;
        bytes.get(place..place + RECORD_BYTES).and_then(Minute::from_bytes).filter(|minute| minute.at == at)
    };
    (from..to).filter_map(minute).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minute(at: u32) -> Minute {
        Minute {
            at,
            pending: u64::from(at) * 3,
            captured: 5,
            delivered: 4,
            bytes: 1 << 40,
            requests: 7,
            errors: 1,
            round_trip_ms: 99,
            up_s: 50,
            down_s: 9,
            paused_s: 1,
        }
    }

    #[test]
    fn minutes_are_read_back_and_those_of_a_week_ago_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let begin = 29_000_000;
        for at in begin..begin + MINUTES + 5 {
            if at % 1_000 < 20 || at >= begin + MINUTES {
                write(dir.path(), &minute(at)).unwrap();
            }
        }
        assert!(std::fs::metadata(path(dir.path())).unwrap().len() <= u64::from(MINUTES) * 64);
        let end = begin + MINUTES + 5;
        assert_eq!(read(dir.path(), end - 5, end), (end - 5..end).map(minute).collect::<Vec<_>>());
        assert_eq!(read(dir.path(), begin, begin + 5), [], "their places hold the newest ones");
        let mut bytes = std::fs::read(path(dir.path())).unwrap();
        let place = ((end - 1) % MINUTES) as usize * 64;
        bytes[place + 20] ^= 1;
        std::fs::write(path(dir.path()), &bytes).unwrap();
        assert_eq!(read(dir.path(), end - 2, end), [minute(end - 2)], "a torn record is none");
        assert_eq!(read(&dir.path().join("nowhere"), 0, 100), []);
    }

    #[test]
    fn a_file_that_is_not_ours_begins_anew_and_a_torn_record_does_not_take_the_others_along() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, at) = (dir.path(), 29_000_000);
        assert!(!mend(folder).unwrap(), "there is none");
        let fill = |bytes: &[u8]| std::fs::write(path(folder), bytes).unwrap();
        let good = || {
            fill(&[]);
            (at..at + 3).for_each(|at| write(folder, &minute(at)).unwrap());
            std::fs::read(path(folder)).unwrap()
        };
        let is_kept = |count: usize| read(folder, at, at + 3).len() == count && !mend(folder).unwrap();
        let mut torn = good();
        assert!(is_kept(3));
        torn[((at % MINUTES) as usize) * RECORD_BYTES + 9] ^= 1;
        fill(&torn);
        assert!(is_kept(2), "the others are good");
        let longer = [good(), vec![7; FILE_BYTES_MAX as usize]].concat();
        for (what, bytes) in [
            ("truncated within a record", good()[..good().len() - 7].to_vec()),
            ("garbage", vec![0xa5; 640]),
            ("of another length", longer),
            ("zeros", vec![0; 6_400]),
        ] {
            fill(&bytes);
            assert!(read(folder, at, at + 3).len() <= 3, "{what}");
            assert!(mend(folder).unwrap() && !mend(folder).unwrap(), "{what}: once");
            write(folder, &minute(at)).unwrap();
            assert_eq!(read(folder, at, at + 3), [minute(at)], "{what}");
        }
    }

    #[test]
    fn a_clock_that_jumps_back_and_forth_overwrites_its_own_minutes_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let times = [29_000_000, 29_000_001, 3, 4, 29_000_002, 0, 29_000_001];
        for at in times {
            write(dir.path(), &minute(at)).unwrap();
        }
        assert!(!mend(dir.path()).unwrap());
        assert_eq!(read(dir.path(), 29_000_000, 29_000_003).len(), 3);
        assert_eq!(read(dir.path(), 0, 5), [0, 3, 4].map(minute), "in 1970");
    }
}
