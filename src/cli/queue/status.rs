//! `packhorse queue status`: how much waits, and since when.

use std::{fmt::Write as _, time::Duration};

use clap::Args;

use super::{cannot_look, failed, open, own, unowned};
use crate::{
    cli::{CliError, Context, Exit, narrowed, say},
    config::{Config, units},
    daemon,
    domain::{Position, Stream},
    mysql::{self, MysqlSource},
    outbox::Snapshot,
    ports::{Order, PageRequest, Source as _, SourceError},
    status::{self, DestinationStatus},
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
    /// Exit with 1 when the oldest row has waited longer, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub alarm_age: Option<Duration>,
    /// Exit with 1 when more rows than this wait
    #[arg(long, value_name = "ROWS")]
    pub alarm_depth: Option<u64>,
}

/// Shows the state of each outbox.
pub fn run(args: &StatusArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    context.start_log(&config);
    let mut found = Vec::new();
    let mut missing = Vec::new();
    let data_dir = own(&config)?;
    for destination in destinations {
        let Some(outbox) = data_dir.as_ref().map(|data_dir| open(data_dir, destination)).transpose()?.flatten() else {
            missing.push(destination.name.as_str());
            continue;
        };
        found.push(context.block_on(async {
            let mut status = status::gather(&outbox, daemon::clock()).await.map_err(failed)?;
            add_lag(&config, &outbox.snapshot(), &mut status).await;
            Ok(status)
        })?);
    }
    // Whoever asks for one destination asks for nothing else.
    let unowned = match (&data_dir, &args.destination) {
        (Some(data_dir), None) => unowned(&config, data_dir.path()).map_err(|cause| cannot_look(data_dir.path(), cause))?,
        (_, Some(_)) | (None, _) => Vec::new(),
    };
    let alarms: Vec<String> = found.iter().flat_map(|status| status::alarms(status, args.alarm_age, args.alarm_depth)).collect();
    if args.json {
        say(&format!(
            "{}\n",
            serde_json::json!({ "destinations": found, "without_outbox": missing, "unowned": unowned, "alarms": alarms })
        ))?;
    } else {
        let mut text: String = found.iter().map(as_text).collect();
        for name in missing {
            let _ = writeln!(text, "{name}: no outbox yet, `packhorse run` makes it");
        }
        for name in unowned {
            let _ = writeln!(
                text,
                "{name}: an outbox that no destination owns; configure it again, or packhorse queue drop --name {name}"
            );
        }
        for alarm in &alarms {
            let _ = writeln!(text, "ALARM {alarm}");
        }
        say(&text)?;
    }
    Ok(if alarms.is_empty() { Exit::Done } else { Exit::Left })
}

/// Asks the source what lies behind the watermarks; without an answer the lag stays unknown.
async fn add_lag(config: &Config, snapshot: &Snapshot, status: &mut DestinationStatus) {
    let Some(source) = &config.source else { return };
    let options =
        mysql::Options { deadline: SOURCE_DEADLINE, connect_deadline: SOURCE_DEADLINE, ..daemon::mysql_options(source) };
    let asked = async {
        let mut source = MysqlSource::new(options)?;
        for SourceStreamLag { stream, after, order } in wanted(&mut source, snapshot).await? {
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

async fn wanted(source: &mut MysqlSource, snapshot: &Snapshot) -> Result<Vec<SourceStreamLag>, SourceError> {
    let streams = source.connect().await?.streams;
    let lag = |stream: crate::ports::SourceStream| {
        let after = snapshot.stream(stream.stream).watermark.clone();
        SourceStreamLag { stream: stream.stream, after, order: stream.order }
    };
    Ok(streams.into_iter().map(lag).collect())
}

fn as_text(status: &DestinationStatus) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{} (epoch {})", status.destination, status.epoch);
    let oldest = status
        .oldest_age_seconds
        .map(|seconds| format!(", the oldest for {}", units::show_duration(Duration::from_secs(seconds))));
    let _ = writeln!(
        text,
        "  waiting       {} records, {} encoded{}",
        status.pending,
        units::show_bytes(status.pending_bytes),
        oldest.unwrap_or_default()
    );
    let _ = writeln!(text, "  parked        {} records", status.parked);
    for held in &status.held {
        let _ = writeln!(text, "                {} held until {} is mapped", held.rows, held.entity);
    }
    let _ = writeln!(text, "  on disk       {}", units::show_bytes(status.disk_bytes));
    let _ = writeln!(text, "  last success  {}", status.last_success.as_deref().unwrap_or("never"));
    if let Some(trouble) = &status.last_error {
        let _ = writeln!(text, "  last error    {} {}", trouble.since, trouble.text);
    }
    let _ = writeln!(text, "  {:10} {:>10} {:>12} {:>8} {:>10}  watermark", "stream", "waiting", "delivered", "parked", "behind");
    for stream in &status.streams {
        let behind = match stream.behind_source {
            None => "?".to_owned(),
            Some(rows) if rows >= BEHIND_MAX => format!(">={BEHIND_MAX}"),
            Some(rows) => rows.to_string(),
        };
        let _ = writeln!(
            text,
            "  {:10} {:>10} {:>12} {:>8} {:>10}  {}",
            stream.stream.name(),
            stream.pending,
            stream.acked,
            stream.parked,
            behind,
            stream.watermark
        );
    }
    text
}
