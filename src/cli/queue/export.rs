//! `packhorse queue export`: records as CSV or JSON Lines.
//!
//! The one rule: the file is there under its name only when it is whole and on the disk.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Way, each, list, select::Select};
use crate::{
    cli::{
        CliError, Context, Exit,
        interrupt::Undone,
        progress::{Progress, Verbosity},
    },
    domain::Stream,
    queue::{Answer, Records, Request},
};

/// Flags of `queue export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which records.
    #[command(flatten)]
    pub select: Select,
    /// The parked rows instead of those that wait
    #[arg(long)]
    pub parked: bool,
    /// With --parked: only rows whose reason holds these words
    #[arg(long, value_name = "WORDS", requires = "parked")]
    pub reason: Option<String>,
    /// csv or jsonl
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Jsonl, hide_possible_values = true)]
    pub format: Format,
    /// Write into this file instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A head and a line for each record
    Csv,
    /// One JSON object a line
    Jsonl,
}

/// Exports.
pub fn run(args: &ExportArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let (way, destinations) = Way::to(context, &config, args.select.destination.as_deref())?;
    let mut target = Target::open(args.output.as_deref())?;
    let mut export = Export { format: args.format, select: &args.select, headed: false, rows: 0 };
    let mut progress = Progress::new(None, Verbosity::of(&context.global));
    let read = each(destinations, |destination| {
        let filter = args.select.filter(args.reason.as_deref());
        let request = if args.parked { Request::ParkedShow(filter, u64::MAX) } else { Request::List(filter, u64::MAX) };
        way.ask(destination, request, |answer| match answer {
            Answer::Absent => {
                tracing::info!(destination = destination.name, "no outbox yet");
                Ok(())
            }
            Answer::Records(records) => target.write(&export.lines(&destination.name, &records)),
            Answer::Progress(done, of) => {
                progress.expect(of);
                progress.at(done);
                Ok(())
            }
            _ => Ok(()),
        })
    });
    drop(progress);
    // What can still be read of a damaged one is worth a file; a part of a whole one is not.
    if !matches!(read, Ok(()) | Err(CliError::Damaged { .. })) {
        return read.map(|()| Exit::Left);
    }
    if !export.headed && args.format == Format::Csv {
        target.write(&export.head())?;
    }
    target.finish()?;
    if let Some(path) = &args.output {
        tracing::info!(file = %path.display(), rows = export.rows, "exported");
    }
    read.map(|()| Exit::Done)
}

struct Export<'a> {
    format: Format,
    select: &'a Select,
    headed: bool,
    rows: u64,
}

impl Export<'_> {
    fn lines(&mut self, destination: &str, records: &Records) -> String {
        self.rows += records.rows.len() as u64;
        if self.format == Format::Jsonl {
            let lines = records.rows.iter().map(|record| list::json(destination, records.stream, record) + "\n");
            return lines.collect();
        }
        let mut text = String::new();
        if !self.headed {
            self.headed = true;
            text = self.head();
        }
        let names = self.columns();
        for record in &records.rows {
            let own = |name: &str| records.stream.spec().columns.iter().position(|column| column.name == name);
            let mut cells = vec![destination.to_owned(), records.stream.name().to_owned()];
            cells.push(record.seq.map_or_else(String::new, |seq| seq.to_string()));
            cells.extend([&record.parked_at, &record.reason].map(|cell| cell.clone().unwrap_or_default()));
            cells.extend(names.iter().map(|name| own(name).map_or_else(String::new, |place| cell(&record.cells[place]))));
            text += &line(&cells);
        }
        text
    }

    fn head(&self) -> String {
        let names = ["destination", "stream", "seq", "parked_at", "reason"].into_iter().chain(self.columns());
        line(&names.map(str::to_owned).collect::<Vec<_>>())
    }

    /// The columns of all streams that are meant, each once.
    fn columns(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        let filter = self.select.filter(None);
        for stream in Stream::ALL.into_iter().filter(|stream| filter.takes_stream(*stream)) {
            let new: Vec<_> =
                stream.spec().columns.iter().map(|column| column.name).filter(|name| !names.contains(name)).collect();
            names.extend(new);
        }
        names
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A line of CSV (RFC 4180, but for the line's end).
fn line(cells: &[String]) -> String {
    let quoted = |cell: &String| {
        if cell.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.clone() }
    };
    format!("{}\n", cells.iter().map(quoted).collect::<Vec<_>>().join(","))
}

/// Where the export goes.
enum Target {
    Stdout(io::StdoutLock<'static>),
    /// A device or a pipe, which has no content of its own.
    Stream(File, PathBuf),
    File {
        file: BufWriter<File>,
        making: Undone,
        path: PathBuf,
    },
}

impl Target {
    fn open(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::Stdout(io::stdout().lock())) };
        let there = std::fs::metadata(path).map(|found| found.file_type());
        let path = match &there {
            Ok(kind) if kind.is_dir() => {
                return Err(CliError::Usage(format!("{} is a folder: name a file in it", path.display())));
            }
            Ok(kind) if !kind.is_file() => {
                let file = File::options().write(true).open(path).map_err(|cause| failed(path, cause))?;
                return Ok(Self::Stream(file, path.to_owned()));
            }
            // Behind a link.
            Ok(_) => std::fs::canonicalize(path).map_err(|cause| failed(path, cause))?,
            Err(_) => path.to_owned(),
        };
        let mut making = path.as_os_str().to_owned();
        making.push(format!(".{}.part", std::process::id()));
        let making = Undone::new(PathBuf::from(making));
        let file = File::create_new(making.path()).map_err(|cause| failed(&path, cause))?;
        Ok(Self::File { file: BufWriter::new(file), making, path })
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        match self {
            Self::Stdout(out) => out.write_all(text.as_bytes()).map_err(CliError::Output),
            Self::Stream(file, path) => file.write_all(text.as_bytes()).map_err(|cause| failed(path, cause)),
            Self::File { file, path, .. } => file.write_all(text.as_bytes()).map_err(|cause| failed(path, cause)),
        }
    }

    fn finish(mut self) -> Result<(), CliError> {
        match &mut self {
            Self::Stdout(out) => out.flush().map_err(CliError::Output),
            Self::Stream(..) => Ok(()),
            Self::File { file, making, path } => {
                let whole = file
                    .flush()
                    .and_then(|()| file.get_ref().sync_all())
                    .and_then(|()| std::fs::rename(making.path(), &path))
                    .and_then(|()| sync_folder(path));
                whole.map_err(|cause| failed(path, cause))
            }
        }
    }
}

/// So that the file's name is on the disk as well.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn failed(path: &Path, cause: io::Error) -> CliError {
    let what = format!("the export to {} failed, and left no file; the queue is as it was", path.display());
    CliError::Failed { what, cause: Some(cause.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_with_commas_quotes_and_line_ends_are_quoted() {
        let cells = ["a", "b,c", "d\"e", "f\ng", ""].map(str::to_owned);
        assert_eq!(line(&cells), "a,\"b,c\",\"d\"\"e\",\"f\ng\",\n");
    }
}
