//! `packhorse queue status`: how much waits, and since when.

use std::{fmt::Write as _, time::Duration};

use clap::Args;

use super::{
    Way, cannot_look,
    table::{self, Align, Table},
    unowned,
};
use crate::{
    cli::{CliError, Context, Exit, narrowed, say},
    config::{Config, Destination, units},
    daemon,
    domain::{Position, Stream},
    mysql::{self, MysqlSource},
    outbox::look,
    ports::{Order, PageRequest, Source as _, SourceError},
    queue::{Answer, Request},
    status::{self, DestinationStatus, Figures, State},
};

/// How long the source may take to say what it still has.
const SOURCE_DEADLINE: Duration = Duration::from_secs(3);
/// Rows behind the watermark are counted up to this many.
const BEHIND_MAX: u64 = 1_000_000;

/// Flags of `queue status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Exit with 1 when the oldest row has waited longer, or the source could not be read for longer, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub alarm_age: Option<Duration>,
    /// Exit with 1 when more rows than this wait
    #[arg(long, value_name = "ROWS")]
    pub alarm_depth: Option<u64>,
    /// Exit with 2 when either of that has lasted longer
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub critical_age: Option<Duration>,
    /// Show it again and again, every 2s or as often as this says, until Ctrl-C
    #[arg(long, value_name = "DURATION", value_parser = units::duration, num_args = 0..=1, default_missing_value = "2s")]
    pub watch: Option<Duration>,
}

/// Shows the state of each outbox.
pub fn run(args: &StatusArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    context.start_log(&config);
    let Some(pause) = args.watch else {
        let (exit, text) = once(args, context, &config, &destinations)?;
        return say(&if args.json { text } else { fitted(text) }).map(|()| exit);
    };
    loop {
        let text = match once(args, context, &config, &destinations) {
            Ok((_, text)) => text,
            // The daemon may come back.
            Err(error @ (CliError::Unreachable { .. } | CliError::Failed { .. })) => format!("{}\n", crate::chain(&error)),
            Err(error) => return Err(error),
        };
        // On a terminal from its top on, elsewhere one after the other.
        let clear = if table::width().is_some() { "\x1b[H\x1b[2J" } else { "" };
        say(&format!("{clear}{}", if args.json { text } else { fitted(text) }))?;
        std::thread::sleep(pause);
    }
}

/// Where the values stand in the answer for people.
const VALUES: usize = 16;

/// No wider than the terminal, where it goes to one.
fn fitted(text: String) -> String {
    match table::width() {
        Some(width) => table::folded(&text, width, VALUES),
        None => text,
    }
}

/// One look, and what it says.
fn once(
    args: &StatusArgs,
    context: &Context,
    config: &Config,
    destinations: &[&Destination],
) -> Result<(Exit, String), CliError> {
    let mut found = Vec::new();
    let (mut missing, mut disabled) = (Vec::new(), Vec::new());
    let way = Way::find(context, config)?;
    for destination in destinations {
        let mut answered = None;
        // One that is disabled is no trouble of the daemon's.
        let asked = if way.is_daemon() && !destination.enabled {
            Ok(())
        } else {
            way.ask(destination, Request::Status, |answer| {
                if let Answer::Status(status, marks) = answer {
                    answered = Some((*status, marks));
                }
                Ok(())
            })
        };
        match asked {
            Ok(()) => {}
            // The others are shown all the same.
            Err(CliError::Usage(why)) if args.destination.is_none() => {
                answered = Some((status::of_closed(&destination.name, &why, None, daemon::clock()), Vec::new()));
            }
            Err(error @ CliError::Failed { .. }) => {
                let why = crate::chain(&error);
                answered = Some((status::of_closed(&destination.name, &why, None, daemon::clock()), Vec::new()));
            }
            Err(error) => return Err(error),
        }
        match answered {
            None if !destination.enabled => disabled.push(destination.name.as_str()),
            None => missing.push(destination.name.as_str()),
            Some((mut status, marks)) => {
                context.block_on(async {
                    add_lag(config, &marks, &mut status).await;
                    Ok(())
                })?;
                found.push(status);
            }
        }
    }
    let has_run = way.is_daemon() || way.data_dir().is_some();
    drop(way);
    // Whoever asks for one destination asks for nothing else.
    let unowned = if has_run && args.destination.is_none() {
        let data_dir = &config.gateway.data_dir;
        unowned(config, data_dir).map_err(|cause| cannot_look(data_dir, cause))?
    } else {
        Vec::new()
    };
    let kept = match disabled.as_slice() {
        [_, ..] if has_run => {
            look::outboxes(&config.gateway.data_dir).map_err(|cause| cannot_look(&config.gateway.data_dir, cause))?
        }
        [] | [_, ..] => Vec::new(),
    };
    let disabled: Vec<(&str, bool)> = disabled.into_iter().map(|name| (name, kept.iter().any(|kept| kept == name))).collect();
    let alarms: Vec<String> = found.iter().flat_map(|status| status::alarms(status, args.alarm_age, args.alarm_depth)).collect();
    let critical: Vec<String> = found.iter().flat_map(|status| status::alarms(status, args.critical_age, None)).collect();
    let text = if args.json {
        let told: Vec<_> = alarms.iter().chain(&critical).collect();
        let disabled: Vec<_> = (disabled.iter())
            .map(|(name, has_outbox)| serde_json::json!({ "destination": name, "has_outbox": has_outbox }))
            .collect();
        let told = serde_json::json!({
            "destinations": found, "without_outbox": missing, "disabled": disabled, "unowned": unowned, "alarms": told
        });
        format!("{told}\n")
    } else {
        // Monitoring shows the first line.
        let mut text = String::new();
        for alarm in &critical {
            let _ = writeln!(text, "CRITICAL {alarm}");
        }
        for alarm in &alarms {
            let _ = writeln!(text, "ALARM {alarm}");
        }
        text.extend(found.iter().map(as_text));
        for name in missing {
            let _ = writeln!(text, "{name}: no outbox yet, `packhorse run` makes it");
        }
        for (name, has_outbox) in disabled {
            let kept = if has_outbox {
                "; its outbox keeps what is in it, which is not sent: enable it, or stop packhorse to look into it"
            } else {
                ", and it has no outbox"
            };
            let _ = writeln!(text, "{name}: disabled in the configuration{kept}");
        }
        for name in unowned {
            let _ = writeln!(
                text,
                "{name}: an outbox that no destination owns; configure it again, or packhorse queue drop --name {name}"
            );
        }
        text
    };
    let is_closed = found.iter().any(|status| status.state == State::Closed || status.figures == Figures::Unknown);
    let exit = if !critical.is_empty() {
        Exit::Usage
    } else if is_closed || !alarms.is_empty() {
        Exit::Left
    } else {
        Exit::Done
    };
    Ok((exit, text))
}

/// Asks the source what lies behind the watermarks; without an answer the lag stays unknown.
async fn add_lag(config: &Config, marks: &[Position], status: &mut DestinationStatus) {
    let Some(source) = config.source.as_ref().filter(|_| !marks.is_empty()) else { return };
    let options =
        mysql::Options { deadline: SOURCE_DEADLINE, connect_deadline: SOURCE_DEADLINE, ..daemon::mysql_options(source) };
    let asked = async {
        let mut source = MysqlSource::new(options)?;
        for SourceStreamLag { stream, after, order } in wanted(&mut source, marks).await? {
            let fits = matches!(
                (order, &after),
                (_, Position::Start) | (Order::Id, Position::Id(_)) | (Order::Key, Position::Key { .. })
            );
            if !fits {
                continue;
            }
            let request = PageRequest { stream, after, before: None, limit: 0 };
            let rows = source.count_after(&request, BEHIND_MAX).await?;
            if let Some(entry) = status.streams.iter_mut().find(|entry| entry.stream == stream) {
                entry.behind_source = Some(rows);
            }
        }
        Ok::<_, SourceError>(())
    };
    if let Err(error) = asked.await {
        tracing::warn!(error = crate::chain(&error), "the source does not say what it still has");
    }
}

struct SourceStreamLag {
    stream: Stream,
    after: Position,
    order: Order,
}

async fn wanted(source: &mut MysqlSource, marks: &[Position]) -> Result<Vec<SourceStreamLag>, SourceError> {
    let streams = source.connect().await?.streams;
    let lag = |stream: crate::ports::SourceStream| {
        let after = marks.get(usize::from(stream.stream.number())).cloned().unwrap_or(Position::Start);
        SourceStreamLag { stream: stream.stream, after, order: stream.order }
    };
    Ok(streams.into_iter().map(lag).collect())
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn shown(rows: Option<u64>) -> String {
    rows.map_or_else(unknown, |rows| rows.to_string())
}

fn as_text(status: &DestinationStatus) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{} (epoch {})", status.destination, status.epoch);
    let _ = writeln!(text, "  state         {}", status.sentence);
    let oldest = status
        .oldest_age_seconds
        .map(|seconds| format!(", the oldest for {}", units::show_duration(Duration::from_secs(seconds))));
    let _ = writeln!(
        text,
        "  waiting       {} records, {} encoded{}",
        shown(status.pending),
        status.pending_bytes.map_or_else(unknown, units::show_bytes),
        oldest.unwrap_or_default()
    );
    let _ = writeln!(text, "  parked        {} records", shown(status.parked));
    for held in &status.held {
        let _ = writeln!(text, "                {} held until {} is mapped", held.rows, held.entity);
    }
    let _ = writeln!(text, "  on disk       {}", status.disk_bytes.map_or_else(unknown, units::show_bytes));
    let last_success = match status.last_success.as_deref() {
        Some(at) => moment(at),
        None if status.figures == Figures::Outbox => "never".to_owned(),
        None => unknown(),
    };
    let _ = writeln!(text, "  last success  {last_success}");
    if let Some(trouble) = &status.last_error {
        let _ = writeln!(text, "  last error    {}: {}", moment(&trouble.since), trouble.text);
    }
    // As narrow as it can be: it should fit 80 columns.
    let figures = ["waiting", "delivered", "parked", "behind"].map(|head| (head, Align::Right));
    let mut table = Table::new([("stream", Align::Left)].into_iter().chain(figures).chain([("watermark", Align::Left)]));
    for stream in &status.streams {
        let behind = match stream.behind_source {
            None => "?".to_owned(),
            Some(rows) if rows >= BEHIND_MAX => format!(">={BEHIND_MAX}"),
            Some(rows) => rows.to_string(),
        };
        let delivered = stream.acked.map_or_else(|| "?".to_owned(), |rows| rows.to_string());
        let [waiting, parked] = [stream.pending, stream.parked].map(|rows| rows.to_string());
        table.row(vec![stream.stream.name().to_owned(), waiting, delivered, parked, behind, stream.watermark.clone()]);
    }
    for line in table.to_text(None).lines() {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// A time for people, to the second.
fn moment(at: &str) -> String {
    let seconds: String = at.chars().take("2026-01-31T12:00:00".len()).collect();
    format!("{} UTC", seconds.replace('T', " "))
}
