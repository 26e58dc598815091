//! `packhorse import-legacy`: from the files of the old push script to a packhorse.toml and checked mappings.
//!
//! ```text
//! synchronise.conf, *_map.conf ─▶ read ─▶ look at source and servers ─▶ write packhorse.toml ─▶ take over what is right
//! ```
//!
//! The one rule: without `--output` nothing on the disk changes; with it nothing is written unless all of the old files was understood, and
//! no mapping is taken over that was not seen to be right on both ends.

mod outside;
mod takeover;
mod written;

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use clap::Args;

use self::{outside::Server, written::Written};
use super::{CliError, Context, Exit, logging, say};
use crate::{
    catalog::Standing,
    config::{
        Config, ConfigError, LogLevel,
        legacy::{self, Legacy, LegacyMap},
        units,
    },
    domain::{EntityKind, LocalRef, Micros, RemoteId, Stream},
    rest::look::Server as Kind,
};

/// What a row costs on the wire, in bytes, more or less.
const ROW_BYTES: u64 = 9;
/// What a node state takes in a list.
const LISTED_BYTES: u64 = 140;
/// So many mappings that are not right are told one by one.
const TOLD_MAX: usize = 40;

/// Flags of `import-legacy`.
#[derive(Debug, Args)]
pub struct ImportLegacyArgs {
    /// The old script's synchronise.conf
    #[arg(value_name = "FILE")]
    conf: PathBuf,
    /// A map file, instead of the one beside FILE; may be repeated
    #[arg(long, value_name = "FILE")]
    map: Vec<PathBuf>,
    /// Write the configuration here, and what is right of the mappings into the data directory; without it only look, and print
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite files that are there
    #[arg(long)]
    yes: bool,
    /// With which rows each destination begins: beginning, now, or a time (UTC)
    #[arg(long, value_name = "START", default_value = "beginning", value_parser = start)]
    start: String,
    /// Where the outboxes are going to live [default: /var/lib/packhorse]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Ask neither the database nor the servers: take over no mapping, count no rows
    #[arg(long)]
    offline: bool,
}

fn start(text: &str) -> Result<String, String> {
    match text {
        "beginning" | "now" => Ok(text.to_owned()),
        time => match time.strip_suffix('Z').unwrap_or(time).parse::<Micros>() {
            Ok(time) => Ok(time.to_string()),
            Err(_) => Err("write beginning, now, or a time in UTC such as 2024-01-31T00:00:00".to_owned()),
        },
    }
}

/// Reads, looks, writes, and says what came of it.
pub fn run(args: &ImportLegacyArgs, context: &Context) -> Result<Exit, CliError> {
    logging::start(logging::level(&context.global, LogLevel::Error), context.global.log_format);
    let mut report = Report::default();
    let old = legacy::load_conf(&args.conf)?;
    for note in &old.notes {
        report.line(&format!("{}: {note}", args.conf.display()));
    }
    let maps = maps(args, &old, &mut report)?;
    let written = Written::new(&args.conf, &old, args.output.as_deref(), &args.start, args.data_dir.as_deref())?;
    // What will be written must mean something to us before anything is.
    let meant = Config::from_text(&written.without_secrets(), "that this would write", [])?;
    let files = args.output.as_deref().map_or_else(Vec::new, |output| written.files(output));
    if let Some((taken, ..)) = files.iter().find(|(path, ..)| !args.yes && path.symlink_metadata().is_ok()) {
        return Err(CliError::Usage(format!("{} is there already; --yes overwrites it", taken.display())));
    }
    let found = if args.offline {
        report.line("nothing outside was asked: no mapping is taken over, packhorse finds the ids itself at its first sync");
        None
    } else {
        let found = context.block_on(async { Ok(outside::look(&old, &maps, &meant).await) })?;
        report.found(&found, &old, &maps);
        Some(found)
    };
    if let Some(output) = &args.output {
        for (path, text, mode) in &files {
            put(path, text, *mode).map_err(|cause| CliError::Failed {
                what: format!("cannot write {}", path.display()),
                cause: Some(cause.into()),
            })?;
            report.line(&format!("{} is written", path.display()));
        }
        let config = Config::load(Some(output), [])?;
        if let Some(found) = &found {
            for line in takeover::take_over(&config, found, context)? {
                report.line(&line);
            }
        }
        report.line(&format!("next: packhorse --config {} check", output.display()));
        say(&report.0)?;
    } else {
        say(&written.text())?;
        let _ = io::stderr().write_all(report.0.as_bytes());
    }
    Ok(Exit::Done)
}

/// The map files that are named, else the one beside the configuration. One that was named must be of use.
fn maps(args: &ImportLegacyArgs, old: &Legacy, report: &mut Report) -> Result<Vec<LegacyMap>, CliError> {
    let mut maps = Vec::new();
    for path in &args.map {
        let map = legacy::load_map(path)?;
        if !old.locations.iter().any(|location| map.section(&location.url).is_some()) {
            let (map, conf) = (path.display(), args.conf.display());
            let what = format!(
                "{map} holds mappings for other servers: none of its sections is a resturl of {conf}; look for another map"
            );
            return Err(CliError::Usage(what));
        }
        report.map(path, &map);
        maps.push(map);
    }
    if args.map.is_empty() {
        let beside = args.conf.parent().unwrap_or(Path::new(""));
        // Older versions of the script wrote a capital letter.
        let names = [old.source.map_name.clone(), old.source.map_name.replace("_map.conf", "_Map.conf")];
        match names.iter().map(|name| beside.join(name)).find(|path| path.exists()) {
            None => {
                report
                    .line(&format!("there is no map file {}; packhorse finds the ids itself", beside.join(&names[0]).display()));
            }
            Some(path) => match legacy::load_map(&path) {
                Ok(map) => {
                    report.map(&path, &map);
                    maps.push(map);
                }
                // The script may have been cut off while it wrote.
                Err(error @ (ConfigError::Problems { .. } | ConfigError::Unreadable { .. })) => {
                    report.line(&format!("no mapping is taken from {}: {}", path.display(), crate::chain(&error)));
                }
                Err(other) => return Err(other.into()),
            },
        }
    }
    Ok(maps)
}

/// Writes a file so that after a crash there is the old content or the new one.
fn put(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    // One that a crash left may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// What the command has to say, a line each.
#[derive(Default)]
struct Report(String);

impl Report {
    fn line(&mut self, text: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{text}");
    }

    fn map(&mut self, path: &Path, map: &LegacyMap) {
        for note in &map.notes {
            self.line(&format!("{}: {note}", path.display()));
        }
    }

    fn found(&mut self, found: &outside::Found, old: &Legacy, maps: &[LegacyMap]) {
        match &found.source {
            Ok(source) => {
                let rows: u64 = source.rows.iter().map(|(_, rows)| rows).sum();
                let counts: Vec<_> = source.rows.iter().map(|(stream, rows)| format!("{rows} {}", stream.plural())).collect();
                let bytes = units::show_bytes(rows * ROW_BYTES);
                self.line(&format!("{}: {} are to be sent; about {bytes} to each server", old.source.url, counts.join(" and ")));
            }
            Err(error) => self.line(&format!("{error}; so no mapping is taken over, and no row is counted")),
        }
        for (location, server) in old.locations.iter().zip(&found.servers) {
            let name = &location.name;
            let mapped = maps.iter().find_map(|map| map.section(&location.url)).map_or(0, |section| section.pairs.len());
            match server {
                Server::Off => self.line(&format!("{name}: it is off, so it was not asked; nothing is taken over for it")),
                Server::NoSource => {}
                Server::Silent(outcome) => {
                    self.line(&format!(
                        "{name}: {outcome}; of its {mapped} old mappings none is taken over, packhorse finds the ids itself at its first sync"
                    ));
                }
                Server::Looked(looked) => {
                    self.standings(name, &looked.standings);
                    self.node_states(name, looked.kind, &found.source);
                }
            }
        }
    }

    fn standings(&mut self, name: &str, standings: &[(LocalRef, RemoteId, Standing)]) {
        let wrong: Vec<_> = standings.iter().filter(|(.., standing)| *standing != Standing::Right).collect();
        if standings.is_empty() {
            return self
                .line(&format!("{name}: there are no old mappings for it; packhorse finds the ids itself at its first sync"));
        }
        let right = standings.len() - wrong.len();
        self.line(&format!(
            "{name}: {right} of {} old mappings are right; the others are dropped, and found anew at its first sync",
            standings.len()
        ));
        for (what, id, standing) in wrong.iter().take(TOLD_MAX) {
            let text = match standing {
                Standing::Right => continue,
                Standing::NotHere => format!("{what} = {id}: the local database has no such {}", what.kind),
                Standing::Wrong { why, instead: Some(instead) } => format!("{what} = {id}: {why}; it is {instead} there"),
                Standing::Wrong { why, instead: None } if matches!(what.kind, EntityKind::House | EntityKind::Deployment) => {
                    format!(
                        "{what} = {id}: {why}; if it was renamed, rename it on one side before the first run, else it is made there a second time"
                    )
                }
                Standing::Wrong { why, instead: None } => format!("{what} = {id}: {why}; it is made there when it is needed"),
            };
            self.line(&format!("  {text}"));
        }
        if wrong.len() > TOLD_MAX {
            self.line(&format!("  and {} more", wrong.len() - TOLD_MAX));
        }
    }

    /// What becomes of the node states that the old script has sent already.
    fn node_states(&mut self, name: &str, kind: Kind, source: &Result<outside::Source, String>) {
        let states = source.as_ref().map_or(0, |source| {
            source.rows.iter().filter(|(stream, _)| *stream == Stream::NodeState).map(|(_, rows)| *rows).sum::<u64>()
        });
        match kind {
            Kind::LegacyOlder if states > 0 => self.line(&format!(
                "{name}: this server stores a repeated node state as one more row, so each one is asked for before it is sent (about {} for \
                 those that are there). Over a thin link it is cheaper to begin with --start now, to run once, and to let `packhorse reconcile \
                 --since TIME --mend` queue what is missing",
                units::show_bytes(states * LISTED_BYTES)
            )),
            // One without a node state has none that could be there twice.
            Kind::LegacyOlder | Kind::LegacyNewer | Kind::Packhorse | Kind::Legacy | Kind::Unknown => {}
        }
    }
}
