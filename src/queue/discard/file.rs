//! The file that discarded rows stand in, on its way.
//!
//! ```text
//! TIME.jsonl.part ─ whole, fsync ─▶ TIME.partly.jsonl ─ its rows are dropped ─▶ TIME.jsonl
//! ```
//!
//! - `.part`: not all of it is written, and nothing of it was dropped. Whoever writes it removes it when cut off, and the next opening of the
//!   outbox does after a crash.
//! - `.partly.jsonl`: whole. Some of its rows may be parked still, because dropping them was cut off or because they changed meanwhile.
//! - `.jsonl`: whole, and all of its rows were dropped.
//!
//! The one rule (I5): a row is dropped only when it stands in a file that is whole and on the disk, name and all.
//!
//! Everything here blocks.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    domain::{Micros, Rows},
    edge,
    outbox::{
        Parked, data_dir, look,
        verbs::{ParkedRows, Pick},
    },
    queue::look::record,
};

/// So many bytes are brought to the disk at a time: a commit of the outbox waits for what others left in the file system.
const UNSYNCED_BYTES_MAX: u64 = 1 << 20;

/// Why an export is not written further; nothing was dropped, and nothing of it stays.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The disk refuses.
    #[error("the export to {path} failed, so nothing was discarded: {cause}")]
    Disk {
        /// The file.
        path: PathBuf,
        /// The cause.
        cause: io::Error,
    },
    /// It would take what capture and delivery need.
    #[error(
        "the export to {path} would leave less than disk_reserve free, so nothing was discarded: make room on that disk, or discard fewer \
         rows at a time (--stream, --node, --since, --before)"
    )]
    Reserve {
        /// The file.
        path: PathBuf,
    },
}

/// A file that goes with this value, unless it is kept.
#[derive(Debug)]
struct Unwanted(Option<PathBuf>);

impl Unwanted {
    fn keep(&mut self) {
        self.0 = None;
    }

    fn remove(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Unwanted {
    fn drop(&mut self) {
        let Some(path) = self.0.take() else { return };
        // Removing a large file takes its time, and whoever drops this may be where loops run. Where the runtime ends before, the next opening of
        // the outbox removes it.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || std::fs::remove_file(path))),
            Err(_) => drop(std::fs::remove_file(path)),
        }
    }
}

/// An export that is being written.
#[derive(Debug)]
pub struct Part {
    path: PathBuf,
    unwanted: Unwanted,
    lines: BufWriter<File>,
    unsynced_bytes: u64,
    /// What of which chunk stands in it, in the same order: a file without a name, since nothing bounds how many there are (I7).
    picks: BufWriter<File>,
    rows: u64,
    disk_reserve_bytes: u64,
}

impl Part {
    /// Begins one in that folder, which is made if it is not there.
    pub fn begin(folder: &Path, now: Micros, disk_reserve_bytes: u64) -> Result<Self, ExportError> {
        let mut at = now;
        loop {
            let path = folder.join(name(at));
            let failed = |cause| ExportError::Disk { path: path.clone(), cause };
            std::fs::create_dir_all(folder).map_err(failed)?;
            let part = with_end(&path, data_dir::PART);
            let taken = path.exists() || partly(&path).exists();
            let made = if taken { Err(io::ErrorKind::AlreadyExists.into()) } else { File::create_new(&part) };
            match made {
                // Of the same moment: a clock may go back, and an export is never overwritten.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => at = Micros(at.0 + 1),
                Err(error) => return Err(failed(error)),
                Ok(file) => {
                    let unwanted = Unwanted(Some(part.clone()));
                    let picks = without_name(&with_end(&path, &format!("picks.{}", data_dir::PART))).map_err(failed)?;
                    return Ok(Self {
                        unwanted,
                        lines: BufWriter::new(file),
                        unsynced_bytes: 0,
                        picks: BufWriter::new(picks),
                        rows: 0,
                        disk_reserve_bytes,
                        path,
                    });
                }
            }
        }
    }

    /// Adds rows, each by its chunk and its place in that.
    pub fn add(&mut self, chunks: &[ParkedRows], rows: &[(usize, usize)]) -> Result<(), ExportError> {
        let mut text = String::new();
        for (chunk, row) in rows {
            let chunk = &chunks[*chunk];
            text += &line(&chunk.parked, &chunk.rows, *row).to_string();
            text.push('\n');
        }
        self.check_room(text.len() as u64)?;
        self.rows += rows.len() as u64;
        self.unsynced_bytes += text.len() as u64;
        let is_due = self.unsynced_bytes >= UNSYNCED_BYTES_MAX;
        let written = self.lines.write_all(text.as_bytes());
        let written = if is_due { written.and_then(|()| sync(&mut self.lines)) } else { written };
        written.map_err(|cause| self.failed(cause))?;
        if is_due {
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// Notes what was picked of each of these chunks, all of which stands in it.
    pub fn note(&mut self, chunks: &[ParkedRows]) -> Result<(), ExportError> {
        let bytes: usize = chunks.iter().map(|chunk| chunk.pick.noted_bytes()).sum();
        self.check_room(bytes as u64)?;
        let noted = chunks.iter().try_for_each(|chunk| chunk.pick.note(&mut self.picks));
        noted.map_err(|cause| self.failed(cause))
    }

    /// Rows that stand in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// It is whole: from here on its rows may be dropped.
    pub fn finish(mut self) -> Result<Whole, ExportError> {
        let finished = self.try_finish();
        let (unwanted, picks) = finished.map_err(|cause| self.failed(cause))?;
        self.unwanted.keep();
        edge::pass("discard:renamed");
        Ok(Whole { path: self.path, unwanted, picks, rows: self.rows, is_begun: false })
    }

    fn try_finish(&mut self) -> io::Result<(Unwanted, BufReader<File>)> {
        sync(&mut self.lines)?;
        self.picks.flush()?;
        let mut picks = self.picks.get_ref().try_clone()?;
        picks.rewind()?;
        edge::pass("discard:written");
        let whole = partly(&self.path);
        std::fs::rename(with_end(&self.path, data_dir::PART), &whole)?;
        let unwanted = Unwanted(Some(whole));
        // The folder may have been made for this.
        let folder = self.path.parent().unwrap_or(Path::new("."));
        sync_folder(folder)?;
        sync_folder(folder.parent().unwrap_or(Path::new(".")))?;
        Ok((unwanted, BufReader::new(picks)))
    }

    fn check_room(&mut self, bytes: u64) -> Result<(), ExportError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        if look::may_grow(folder, bytes, self.disk_reserve_bytes) {
            return Ok(());
        }
        self.unwanted.remove();
        Err(ExportError::Reserve { path: self.path.clone() })
    }

    fn failed(&mut self, cause: io::Error) -> ExportError {
        self.unwanted.remove();
        ExportError::Disk { path: self.path.clone(), cause }
    }

    /// Nobody wants it.
    pub fn abandon(mut self) {
        self.unwanted.remove();
    }
}

/// An export that is whole and on the disk.
#[derive(Debug)]
pub struct Whole {
    path: PathBuf,
    /// Until the first of its rows is dropped.
    unwanted: Unwanted,
    picks: BufReader<File>,
    rows: u64,
    is_begun: bool,
}

impl Whole {
    /// Rows that stand in it.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next picks of what stands in it, at most so many; none at the end. From the first on it stays.
    pub fn next(&mut self, picks_max: usize) -> io::Result<Vec<Pick>> {
        let mut picks = Vec::new();
        while picks.len() < picks_max {
            let Some(pick) = Pick::noted(&mut self.picks)? else { break };
            picks.push(pick);
        }
        self.unwanted.keep();
        self.is_begun = true;
        Ok(picks)
    }

    /// So many of its rows were dropped, and that was all. Gives its path from now on.
    pub fn ended(mut self, dropped: u64) -> PathBuf {
        self.is_begun = false;
        edge::pass("discard:taken");
        let (before, after) = (partly(&self.path), self.path.clone());
        if dropped < self.rows {
            return before;
        }
        match std::fs::rename(&before, &after) {
            Ok(()) => {
                // Its other name is no lie either.
                let _ = self.path.parent().map(sync_folder);
                after
            }
            Err(error) => {
                tracing::warn!(export = %before.display(), %error, "all rows of this export were discarded, and it could not be renamed");
                before
            }
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        if self.is_begun {
            tracing::warn!(
                export = %partly(&self.path).display(),
                "discarding was cut off: some rows of this export are parked still; the same command again discards them"
            );
        }
    }
}

/// TIME.jsonl of a moment.
fn name(at: Micros) -> String {
    format!("{}-{:06}.jsonl", at.cut_to_second().to_string().replace(':', ""), at.0.rem_euclid(1_000_000))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

fn partly(path: &Path) -> PathBuf {
    path.with_extension("partly.jsonl")
}

/// A file that is gone when it is closed, however that comes.
fn without_name(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}

fn sync(file: &mut BufWriter<File>) -> io::Result<()> {
    file.flush()?;
    file.get_ref().sync_data()
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A line of the export: the row as `queue list --json` shows it, and why it was parked.
fn line(parked: &Parked, rows: &Rows, row: usize) -> Value {
    let mut line = Map::new();
    line.insert("stream".into(), rows.stream().name().into());
    line.insert("parked_at".into(), parked.at.to_string().into());
    line.insert("reason".into(), parked.reason.to_string().into());
    let cells = record(rows, row, None).cells;
    line.extend(rows.stream().spec().columns.iter().map(|column| column.name.to_owned()).zip(cells));
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn an_export_has_a_name_of_its_own_also_when_the_clock_went_back() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || Part::begin(dir.path(), Micros(7), 0).unwrap();
        let first = begin().finish().unwrap();
        let mut second = begin().finish().unwrap();
        assert_eq!(first.ended(0), dir.path().join("1970-01-01T000000-000007.jsonl"));
        second.next(1).unwrap();
        drop((second, begin()));
        let _third = begin();
        let expected =
            ["1970-01-01T000000-000007.jsonl", "1970-01-01T000000-000008.partly.jsonl", "1970-01-01T000000-000009.jsonl.part"];
        assert_eq!(names(dir.path()), expected);
    }

    #[test]
    fn an_export_goes_when_it_is_cut_off_before_any_row_of_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        drop(Part::begin(dir.path(), Micros(7), 0).unwrap());
        drop(Part::begin(dir.path(), Micros(7), 0).unwrap().finish().unwrap());
        assert_eq!(names(dir.path()), [""; 0]);
    }
}
