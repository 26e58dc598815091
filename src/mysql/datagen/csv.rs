//! Files of readings, a line each:
//!
//! ```text
//! time,node,sensor,value,seq          seq may be missing; other columns are passed over
//! 2015-08-03T08:39:56.25Z,11,temperature,36.62,15
//! 2015-08-03T08:39:56.25Z,11,rssi,-71,15
//! ```
//!
//! Consecutive lines with the same time, node and seq are one packet. The sensors `parent` and `rssi` belong to the packet's node state, as
//! does `seq`. Times are UTC; an empty value is NULL.
//!
//! The one rule: a line that does not say what it should is told with its number, and nothing after it is read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tokio::sync::mpsc;

use crate::domain::Micros;

/// Longer lines are of another kind of file.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// Packets that are handed over at once, and how often before the reader waits.
const BATCH_PACKETS: usize = 500;
const BATCHES_MAX: usize = 4;

/// Why a file is not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum CsvError {
    /// The file does not open, or breaks off.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A line is wrong.
    #[error("{} line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What is wrong, and what should stand there.
        what: String,
    },
}

/// What one radio packet brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Packet {
    pub line: u64,
    pub time: Option<Micros>,
    pub node: String,
    pub seq: Option<i64>,
    pub parent: Option<u32>,
    pub rssi: Option<i64>,
    /// By the sensors' names.
    pub values: Vec<(String, Option<f64>)>,
}

/// Reads a file on a thread of its own. The last thing that comes may be an error.
pub(super) fn packets(path: &Path) -> mpsc::Receiver<Result<Vec<Packet>, CsvError>> {
    let (send, receive) = mpsc::channel(BATCHES_MAX);
    let path = path.to_owned();
    std::thread::spawn(move || {
        let mut batch = Vec::new();
        let read = read(&path, |packet| {
            batch.push(packet);
            // Nobody listens any more when the work was stopped.
            batch.len() < BATCH_PACKETS || send.blocking_send(Ok(std::mem::take(&mut batch))).is_ok()
        });
        let _ = send.blocking_send(Ok(batch));
        if let Err(error) = read {
            let _ = send.blocking_send(Err(error));
        }
    });
    receive
}

/// Where lines come from: a file, standard input, or what unpacks the file.
struct Input {
    lines: Box<dyn BufRead>,
    unpacks: Option<Child>,
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(unpacks) = &mut self.unpacks {
            let _ = unpacks.kill();
            let _ = unpacks.wait();
        }
    }
}

fn open(path: &Path) -> io::Result<Input> {
    if path == Path::new("-") {
        return Ok(Input { lines: Box::new(io::stdin().lock()), unpacks: None });
    }
    let file = File::open(path)?;
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(Input { lines: Box::new(BufReader::new(file)), unpacks: None });
    }
    let started = Command::new("xz").args(["-dc"]).stdin(file).stdout(Stdio::piped()).spawn();
    let mut unpacks =
        started.map_err(|cause| io::Error::new(cause.kind(), format!("xz does not start ({cause}): install xz-utils")))?;
    let unpacked = unpacks.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok(Input { lines: Box::new(BufReader::new(unpacked)), unpacks: Some(unpacks) })
}

/// Gives each packet to `packet` until that says that it is enough.
fn read(path: &Path, mut packet: impl FnMut(Packet) -> bool) -> Result<(), CsvError> {
    let failed = |cause| CsvError::File { path: path.to_owned(), cause };
    let mut input = open(path).map_err(failed)?;
    let (mut columns, mut last, mut number) = (None, None::<Packet>, 0);
    loop {
        let mut bytes = Vec::new();
        number += 1;
        let read = input.lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes).map_err(failed)?;
        if read == 0 {
            break;
        }
        let wrong = |what: String| CsvError::Line { path: path.to_owned(), line: number, what };
        if read as u64 == LINE_BYTES_MAX {
            return Err(wrong(format!("it has more than {LINE_BYTES_MAX} bytes: this is no table of readings")));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is no text: this is no table of readings".to_owned()))?;
        let text = text.trim_start_matches('\u{feff}').trim();
        if text.is_empty() {
            continue;
        }
        let Some(columns) = &columns else {
            columns = Some(Columns::of(text).map_err(wrong)?);
            continue;
        };
        let line = columns.line(text).map_err(wrong)?;
        match &mut last {
            Some(last) if last.time == Some(line.time) && last.node == line.node && last.seq == line.seq => {
                last.add(&line).map_err(wrong)?;
            }
            _ => {
                let mut next = Packet {
                    line: number,
                    time: Some(line.time),
                    node: line.node.to_owned(),
                    seq: line.seq,
                    ..Packet::default()
                };
                next.add(&line).map_err(wrong)?;
                if last.replace(next).is_some_and(|done| !packet(done)) {
                    return Ok(());
                }
            }
        }
    }
    if let Some(done) = last
        && !packet(done)
    {
        return Ok(());
    }
    match input.unpacks.as_mut().map(Child::wait) {
        None => Ok(()),
        Some(Ok(status)) if status.success() => Ok(()),
        Some(Ok(status)) => Err(failed(io::Error::other(format!("xz ended with {status}: the file is damaged")))),
        Some(Err(cause)) => Err(failed(cause)),
    }
}

/// The places of the columns.
struct Columns {
    time: usize,
    node: usize,
    sensor: usize,
    value: usize,
    seq: Option<usize>,
}

/// One line's fields.
struct Line<'a> {
    time: Micros,
    node: &'a str,
    sensor: &'a str,
    value: &'a str,
    seq: Option<i64>,
}

impl Columns {
    fn of(head: &str) -> Result<Self, String> {
        let names: Vec<String> = head.split(',').map(|name| name.trim().to_lowercase()).collect();
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let needed = |wanted: &str| {
            place(wanted)
                .ok_or_else(|| format!("there is no column {wanted}; the first line must name time, node, sensor and value"))
        };
        Ok(Self {
            time: needed("time")?,
            node: needed("node")?,
            sensor: needed("sensor")?,
            value: needed("value")?,
            seq: place("seq"),
        })
    }

    fn line<'a>(&self, text: &'a str) -> Result<Line<'a>, String> {
        let fields: Vec<&str> = text.split(',').map(str::trim).collect();
        let field = |place: usize| fields.get(place).copied().ok_or_else(|| format!("it has {} fields only", fields.len()));
        let time = field(self.time)?;
        let without_zone = time.strip_suffix('Z').unwrap_or(time);
        let at: Micros =
            without_zone.parse().map_err(|_| format!("{time:?} is not a time in UTC such as 2015-08-03T08:39:56Z"))?;
        let node = field(self.node)?;
        let sensor = field(self.sensor)?;
        if node.is_empty() || sensor.is_empty() {
            return Err("its node or its sensor has no name".to_owned());
        }
        let seq = match self.seq.map(field).transpose()? {
            None | Some("") => None,
            Some(seq) => Some(whole(seq)?),
        };
        Ok(Line { time: at, node, sensor, value: field(self.value)?, seq })
    }
}

impl Packet {
    fn add(&mut self, line: &Line<'_>) -> Result<(), String> {
        match (line.sensor, line.value) {
            ("parent" | "rssi", "") => {}
            ("parent", value) => {
                self.parent = Some(u32::try_from(whole(value)?).map_err(|_| format!("{value:?} is not a node's number"))?);
            }
            ("rssi", value) => self.rssi = Some(whole(value)?),
            (sensor, "") => self.values.push((sensor.to_owned(), None)),
            (sensor, value) => {
                let number = value.parse().ok().filter(|number: &f64| number.is_finite());
                let number = number.ok_or_else(|| format!("{value:?} is not a finite number"))?;
                self.values.push((sensor.to_owned(), Some(number)));
            }
        }
        Ok(())
    }
}

/// A whole number, also as some loggers write it: 15.0.
fn whole(text: &str) -> Result<i64, String> {
    let number = text.strip_suffix(".0").unwrap_or(text).parse::<i32>();
    number.map(i64::from).map_err(|_| format!("{text:?} is not a whole number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &[u8]) -> Result<Vec<Packet>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("readings.csv");
        std::fs::write(&path, text).unwrap();
        let mut all = Vec::new();
        let read = read(&path, |packet| {
            all.push(packet);
            true
        });
        read.map(|()| all).map_err(|error| error.to_string().replace(&path.display().to_string(), "it"))
    }

    #[test]
    fn lines_of_one_packet_are_one_packet() {
        let text = "\u{feff}time,node,sensor,value,seq\r\n2015-08-03T08:39:56.25Z,11,temperature,36.62,15\r\n\r\n\
                    2015-08-03T08:39:56.25Z,11,parent,1,15\n2015-08-03T08:39:56.25Z,11,rssi,-71.0,15\n2015-08-03T08:39:56.25Z,11,humidity,,15\n\
                    2015-08-03T08:39:56.25Z,11,temperature,36.62,16";
        let packets = of(text.as_bytes()).unwrap();
        assert_eq!(packets.len(), 2);
        let values = vec![("temperature".to_owned(), Some(36.62)), ("humidity".to_owned(), None)];
        let first = Packet {
            line: 2,
            time: Some("2015-08-03T08:39:56.25".parse().unwrap()),
            node: "11".into(),
            seq: Some(15),
            parent: Some(1),
            rssi: Some(-71),
            values,
        };
        assert_eq!(packets[0], first);
        assert_eq!((packets[1].line, packets[1].seq), (7, Some(16)));
    }

    #[test]
    fn names_and_the_order_of_columns_are_free() {
        let packets = of(b"value,place,sensor,node,time\n0.1000000000000001,here,T1,room1,2016-01-11 17:00:00\n").unwrap();
        assert_eq!((packets[0].node.as_str(), packets[0].seq), ("room1", None));
        assert_eq!(packets[0].values, [("T1".to_owned(), Some(0.100_000_000_000_000_1))]);
        assert_eq!(of(b"").unwrap(), []);
        assert_eq!(of(b"time,node,sensor,value\n").unwrap(), []);
    }

    #[test]
    fn a_wrong_line_is_told_with_its_number() {
        let head = "time,node,sensor,value,seq\n2016-01-11T17:00:00,1,t,1,1\n";
        for (line, what) in [
            ("2016-01-11T17:00:00,1,t", "it line 3: it has 3 fields only"),
            ("yesterday,1,t,1,1", "it line 3: \"yesterday\" is not a time in UTC"),
            ("2016-01-11T17:00:00+01:00,1,t,1,1", "is not a time in UTC"),
            ("2016-01-11T17:00:00,1,t,warm,1", "it line 3: \"warm\" is not a finite number"),
            ("2016-01-11T17:00:00,1,t,NaN,1", "is not a finite number"),
            ("2016-01-11T17:00:00,1,t,1e999,1", "is not a finite number"),
            ("2016-01-11T17:00:00,1,t,1,x", "it line 3: \"x\" is not a whole number"),
            ("2016-01-11T17:00:00,1,parent,-1,1", "is not a node's number"),
            ("2016-01-11T17:00:00,1,rssi,99999999999,1", "is not a whole number"),
            ("2016-01-11T17:00:00,,t,1,1", "its node or its sensor has no name"),
        ] {
            let error = of(format!("{head}{line}\n").as_bytes()).unwrap_err();
            assert!(error.contains(what), "{line}: {error}");
        }
        assert!(of(b"time,node,value\n").unwrap_err().contains("it line 1: there is no column sensor"));
        assert!(of(b"\x7fELF\xff\n").unwrap_err().contains("no text"));
        assert!(of("a".repeat(40_000).as_bytes()).unwrap_err().contains("more than 16384 bytes"));
    }
}
