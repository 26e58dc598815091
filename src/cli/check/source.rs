//! What `check` says of the source: whether it can be reached and read, what its tables are like, and its clock.

use std::time::Duration;

use super::{Finding, clock_finding};
use crate::{
    cli::Exit,
    config, daemon,
    domain::{EntityKind, Stream},
    mysql::{
        self, MysqlSource,
        doctor::{self, Examination, StreamFound},
    },
    ports::{Order, SourceError},
};

const SOURCE: &str = "source";
/// For all questions together; connecting has a deadline of its own.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) async fn findings(source: &config::Source) -> Vec<Finding> {
    let options = mysql::Options { deadline: DEADLINE, ..daemon::mysql_options(source) };
    if let Err(error) = MysqlSource::new(options.clone()) {
        return vec![told(&error).exiting(Exit::Usage)];
    }
    match doctor::examine(&options, daemon::clock).await {
        Ok(found) => of_examination(source, &found),
        Err(error) => vec![told(&error)],
    }
}

/// An error in its own words; whether the database cannot be reached, or does not let us in or read, decides the exit code as in `run`.
fn told(error: &SourceError) -> Finding {
    let finding = Finding::trouble(SOURCE, error.to_string());
    match error {
        SourceError::Unreachable { .. } | SourceError::Denied { .. } => finding.exiting(Exit::Unreachable),
        SourceError::Schema { .. } | SourceError::Row { .. } | SourceError::Query { .. } => finding,
    }
}

fn of_examination(source: &config::Source, found: &Examination) -> Vec<Finding> {
    let mut findings = vec![Finding::ok(SOURCE, format!("{}: logged in, version {}", source.url, found.version))];
    for table in &found.streams {
        match &table.found {
            Ok(found) => findings.extend(of_stream(table.stream, found)),
            Err(error) => findings.push(told(error)),
        }
    }
    findings.extend(of_catalog(found));
    if let Some(error) = &found.ended {
        findings.push(told(error));
    }
    if !found.version.is_empty() {
        findings.push(clock_finding(SOURCE, "the database's", rounded_seconds(found.clock_ahead_micros)));
    }
    findings
}

fn rounded_seconds(micros: i64) -> i64 {
    (micros as f64 / 1e6).round() as i64
}

fn of_stream(stream: Stream, found: &StreamFound) -> Vec<Finding> {
    let (table, plural) = (stream.spec().table, stream.plural());
    let order = match found.order {
        Order::Id => "in the order of its id".to_owned(),
        Order::Key => {
            let spec = stream.spec();
            let key: Vec<&str> = spec.key.iter().map(|&place| spec.columns[place].name).collect();
            format!("in the order of its key ({})", key.join(", "))
        }
    };
    let lacking = match found.lacking.as_slice() {
        [] => String::new(),
        columns => format!("; it has no {}, which is sent as NULL", columns.join(", ")),
    };
    let mut findings = vec![Finding::ok(SOURCE, format!("{plural}: table {table} can be read, {order}{lacking}"))];
    if found.unreadable > 0 {
        let rows = found.unreadable;
        let text = format!("{plural}: {rows} rows of table {table} have a time that is not a date, and cannot be forwarded");
        findings.push(Finding::problem(SOURCE, text, "correct their time in the source"));
    }
    findings
}

/// One line for all tables that are as they should be, and one for each that is not.
fn of_catalog(found: &Examination) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut read = Vec::new();
    for table in &found.catalog {
        match &table.found {
            Ok(Some(lacking)) if lacking.is_empty() => read.push(table.kind.table().to_owned()),
            Ok(Some(lacking)) => read.push(format!("{} (without {})", table.kind.table(), lacking.join(", "))),
            Ok(None) if table.kind == EntityKind::NodeType => {
                findings.push(Finding::ok(SOURCE, "there is no table NodeType: nodes have no type here"));
            }
            Ok(None) => {
                let text = format!("there is no table {}; rows that point into it are held", table.kind.table());
                findings.push(Finding::warning(SOURCE, text));
            }
            Err(error) => findings.push(told(error)),
        }
    }
    if !read.is_empty() {
        findings.insert(0, Finding::ok(SOURCE, format!("catalog: {} can be read", read.join(", "))));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::check::finding::exit, mysql::doctor::StreamTable};

    #[test]
    fn each_table_is_told_apart_and_the_rest_goes_on() {
        let url = config::mysql_url("mysql://chuser:hunter2@h/ch").unwrap();
        let config = config::Config::from_text("[source]\nurl = \"mysql://h/d\"\n", "x", []).unwrap();
        let source = config::Source { url, ..config.source.unwrap() };
        let denied = SourceError::Denied { advice: "SELECT command denied; GRANT SELECT ON x".into(), cause: None };
        let found = Examination {
            version: "10.11".into(),
            clock_ahead_micros: -7_000_000,
            streams: vec![
                StreamTable { stream: Stream::Reading, found: Err(denied) },
                StreamTable {
                    stream: Stream::NodeState,
                    found: Ok(StreamFound { order: Order::Id, lacking: vec!["rssi"], unreadable: 3 }),
                },
            ],
            catalog: Vec::new(),
            ended: None,
        };
        let findings = of_examination(&source, &found);
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "ok       source: mysql://chuser:***@h/ch: logged in, version 10.11",
                "problem  source: the source database refuses: SELECT command denied; GRANT SELECT ON x",
                "ok       source: node states: table NodeState can be read, in the order of its id; it has no rssi, which is sent as NULL",
                "problem  source: node states: 3 rows of table NodeState have a time that is not a date, and cannot be forwarded; \
                 correct their time in the source",
                "warning  source: the database's clock is 7 s behind this machine's; set both by NTP: timedatectl tells how this one stands",
            ]
        );
        assert_eq!(exit(&findings), Exit::Unreachable);
    }
}
