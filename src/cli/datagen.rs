//! `packhorse datagen`: sample data into a source database.

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::{
    CliError, Context, Exit, logging,
    progress::{Progress, Verbosity},
    say, stop_on_signals,
};
use crate::{
    config::{LogLevel, mysql_url, units},
    mysql::datagen::{DatagenOptions, Houses, Pace, Ramps, Report, Shape, datagen},
    ports::SourceError,
};

/// Flags of `datagen`.
#[derive(Debug, Args)]
pub struct DatagenArgs {
    /// The database to write into: mysql://user:password@host/database
    #[arg(long, value_name = "URL")]
    pub url: String,
    /// Make the tables that are missing, in the classic schema
    #[arg(long)]
    pub create_tables: bool,
    /// Readings of each node, the last of them now; 101 are one ramp. With --live 0 never ends
    #[arg(long, value_name = "N", default_value_t = 101)]
    pub count: u64,
    /// Time between two readings of a node, such as 5min
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = units::duration)]
    pub gap: Duration,
    /// Readings of a node between two of its node states; 0 writes none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub states_every: u32,
    /// Write as time goes, a reading of each node every gap, as a gateway does
    #[arg(long)]
    pub live: bool,
    /// Write whole houses instead of the two ramps; 0 writes the ramps
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["count", "states_every", "live"])]
    pub houses: u32,
    /// Days of readings for each house
    #[arg(long, value_name = "N", default_value_t = 1, requires = "houses")]
    pub days: u32,
}

impl DatagenArgs {
    fn options(&self) -> Result<DatagenOptions, CliError> {
        if self.gap < Duration::from_secs(1) {
            return Err(CliError::Usage("--gap: the tables hold whole seconds; write 1s or more".to_owned()));
        }
        let pace = match (self.live, self.count) {
            (true, 0) => Pace::Live { count: None },
            (true, count) => Pace::Live { count: Some(count) },
            (false, 0) => return Err(CliError::Usage("--count: 0 never ends, which needs --live".to_owned())),
            (false, count) => Pace::Backlog { count },
        };
        let shape = if self.houses > 0 {
            let (houses, days, interval) = (self.houses, f64::from(self.days), self.gap);
            Shape::Houses(Houses { houses, days, interval, ..Houses::default() })
        } else {
            Shape::Ramps(Ramps { gap: self.gap, states_every: self.states_every, pace })
        };
        Ok(DatagenOptions { create_tables: self.create_tables, shape })
    }
}

/// Writes the rows.
pub fn run(args: &DatagenArgs, context: &Context) -> Result<Exit, CliError> {
    // Never quoted: it may hold a password.
    let url = mysql_url(&args.url)
        .map_err(|wrong| CliError::Usage(format!("--url: {wrong}; write mysql://user:password@host/database")))?;
    let options = args.options()?;
    logging::start(logging::level(&context.global, LogLevel::Info), context.global.log_format);
    tracing::debug!(%url, ?options, "samples");
    let verbosity = if context.global.quiet > 0 { Verbosity::Quiet } else { Verbosity::Usual };
    let written = context.block_on(async {
        let stop = CancellationToken::new();
        stop_on_signals(&stop)?;
        let mut progress = Progress::new(expected(&options.shape), verbosity);
        let mut rows = 0;
        let work = datagen(url.expose(), &options, |so_far| {
            rows = so_far;
            progress.at(so_far);
        });
        let written = tokio::select! {
            report = work => Some(report.map_err(failed)?),
            () = stop.cancelled() => None,
        };
        Ok(written.map_or_else(|| format!("stopped after about {rows} rows\n"), |report| sentence(&report)))
    })?;
    say(&written)?;
    Ok(Exit::Done)
}

/// About how many rows there will be.
fn expected(shape: &Shape) -> Option<u64> {
    match shape {
        Shape::Ramps(Ramps { pace: Pace::Live { count: None }, .. }) => None,
        Shape::Ramps(Ramps { states_every, pace: Pace::Live { count: Some(count) } | Pace::Backlog { count }, .. }) => {
            let states = count.checked_div(u64::from(*states_every)).unwrap_or(0);
            Some(count.saturating_add(states).saturating_mul(2))
        }
        Shape::Houses(houses) => {
            let packets = houses.days * 86_400.0 / houses.interval.as_secs_f64() + 1.0;
            Some(packets as u64 * u64::from(houses.houses * houses.rooms) * u64::from(houses.sensors + 1))
        }
    }
}

fn sentence(report: &Report) -> String {
    let Report { readings, node_states, first, last } = report;
    match (first, last) {
        (Some(first), Some(last)) => format!("{readings} readings and {node_states} node states, from {first} to {last}\n"),
        (None, _) | (_, None) => "nothing to add: the rows reach up to now already\n".to_owned(),
    }
}

fn failed(error: SourceError) -> CliError {
    let what = "cannot write samples".to_owned();
    match error {
        error @ (SourceError::Unreachable { .. } | SourceError::Denied { .. }) => {
            CliError::Unreachable { what, cause: Some(Box::new(error)) }
        }
        error @ (SourceError::Schema { .. } | SourceError::Row { .. } | SourceError::Query { .. }) => {
            CliError::Failed { what, cause: Some(Box::new(error)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_as_many_rows_are_expected_as_there_will_be() {
        let ramps = |states_every, pace| Shape::Ramps(Ramps { gap: Duration::from_secs(1), states_every, pace });
        assert_eq!(expected(&ramps(1, Pace::Backlog { count: 101 })), Some(404));
        assert_eq!(expected(&ramps(0, Pace::Live { count: Some(5) })), Some(10));
        assert_eq!(expected(&ramps(1, Pace::Live { count: None })), None);
        let houses = Houses { houses: 2, rooms: 4, sensors: 4, days: 1.0, ..Houses::default() };
        assert_eq!(expected(&Shape::Houses(houses)), Some(289 * 2 * 4 * 5));
    }
}
