//! `packhorse datagen`: sample data into a source database.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::{
    CliError, Context, Exit, logging,
    progress::{Progress, Verbosity},
    say, stop_on_signals,
};
use crate::{
    chain,
    config::{LogLevel, mysql_url, units},
    domain::Micros,
    mysql::datagen::{
        DatagenError, DatagenOptions, Flaws, FromCsv, Houses, HousesPace, Pace, Ramps, Report, Shape, csv::CsvError, datagen,
    },
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
    /// Write as time goes: a packet of each node every gap, as a gateway does
    #[arg(long)]
    pub live: bool,
    /// Write whole houses instead of the two ramps; 0 writes the ramps
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with_all = ["count", "states_every"], value_parser = clap::value_parser!(u32).range(..=HOUSES_MAX))]
    pub houses: u32,
    /// Days of packets for each house, up to now
    #[arg(long, value_name = "N", default_value_t = 1, requires = "houses", conflicts_with_all = ["live", "rate"], value_parser = clap::value_parser!(u32).range(..=DAYS_MAX))]
    pub days: u32,
    /// The last moment of those days, such as 2026-01-31 (UTC) [default: now]
    #[arg(long, value_name = "TIME", requires = "houses", conflicts_with_all = ["live", "rate"])]
    pub until: Option<Micros>,
    /// Sensors of each node: temperature, humidity, battery, CO2, light, power, in this order
    #[arg(long, value_name = "N", default_value_t = 5, requires = "houses", value_parser = clap::value_parser!(u32).range(1..=6))]
    pub sensors: u32,
    /// What befalls nodes and packets of houses: real (losses, late packets, restarts, wrong clocks) or none
    #[arg(long, value_name = "FLAWS", default_value = "real", requires = "houses", value_enum, hide_possible_values = true)]
    pub flaws: FlawsArg,
    /// Another number gives other houses; the same one the same rows
    #[arg(long, value_name = "N", default_value_t = 0, requires = "houses")]
    pub seed: u64,
    /// Write so many rows a second, with --houses until stopped, and dated now
    #[arg(long, value_name = "ROWS", conflicts_with = "live", value_parser = clap::value_parser!(u32).range(1..))]
    pub rate: Option<u32>,
    /// Write the readings of a file instead: lines of time,node,sensor,value and maybe seq; - for standard input, unpacks .xz
    #[arg(long, value_name = "FILE", conflicts_with_all = ["houses", "count", "gap", "states_every", "live"])]
    pub from_csv: Option<PathBuf>,
}

const HOUSES_MAX: i64 = 100_000;
const DAYS_MAX: i64 = 36_500;
/// Rooms, and so nodes, of each house.
const ROOMS: u32 = 4;

/// The flaws, on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FlawsArg {
    /// Every packet comes in time.
    None,
    /// As in the field.
    Real,
}

impl DatagenArgs {
    fn options(&self) -> Result<DatagenOptions, CliError> {
        let shape = match &self.from_csv {
            Some(path) => Shape::Csv(FromCsv { path: path.clone(), rows_per_second: self.rate }),
            None if self.houses > 0 => Shape::Houses(self.houses()?),
            None if self.rate.is_some() => {
                return Err(CliError::Usage("--rate: it needs --houses N or --from-csv FILE".to_owned()));
            }
            None => Shape::Ramps(self.ramps()?),
        };
        Ok(DatagenOptions { create_tables: self.create_tables, shape })
    }

    fn ramps(&self) -> Result<Ramps, CliError> {
        let pace = match (self.live, self.count) {
            (true, 0) => Pace::Live { count: None },
            (true, count) => Pace::Live { count: Some(count) },
            (false, 0) => return Err(CliError::Usage("--count: 0 never ends, which needs --live".to_owned())),
            (false, count) => Pace::Backlog { count },
        };
        Ok(Ramps { gap: self.gap()?, states_every: self.states_every, pace })
    }

    fn houses(&self) -> Result<Houses, CliError> {
        let pace = match self.rate {
            Some(rate) => HousesPace::Rate(rate),
            None if self.live => HousesPace::Live,
            None => HousesPace::Backlog,
        };
        // Both columns hold a packet of each node a second.
        let rows_max = u64::from(self.houses) * u64::from(ROOMS * (self.sensors + 1));
        if let Some(rate) = self.rate.filter(|rate| u64::from(*rate) > rows_max) {
            let enough = u64::from(rate).div_ceil(u64::from(ROOMS * (self.sensors + 1)));
            let what = format!("--rate: {} houses give {rows_max} rows a second at most; write --houses {enough}", self.houses);
            return Err(CliError::Usage(what));
        }
        let flaws = match self.flaws {
            FlawsArg::None => Flaws::None,
            FlawsArg::Real => Flaws::Real,
        };
        let (days, sensors, seed, until) = (f64::from(self.days), self.sensors, self.seed, self.until);
        let (houses, interval) = (self.houses, self.gap()?);
        Ok(Houses { houses, rooms: ROOMS, sensors, days, until, interval, seed, flaws, pace, ..Houses::default() })
    }

    fn gap(&self) -> Result<Duration, CliError> {
        if self.gap < Duration::from_secs(1) {
            return Err(CliError::Usage("--gap: the tables hold whole seconds; write 1s or more".to_owned()));
        }
        Ok(self.gap)
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
        Shape::Csv(_)
        | Shape::Ramps(Ramps { pace: Pace::Live { count: None }, .. })
        | Shape::Houses(Houses { pace: HousesPace::Live | HousesPace::Rate(_), .. }) => None,
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
    let Report { readings, node_states, first, last, passed_over } = report;
    let passed = match passed_over {
        0 => String::new(),
        packets => format!("; {packets} packets were passed over, because rows of their node reach beyond them already"),
    };
    match (first, last) {
        (Some(first), Some(last)) => {
            format!("{readings} readings and {node_states} node states, from {first} to {last}{passed}\n")
        }
        (None, _) | (_, None) if *passed_over > 0 => format!("nothing to add{passed}\n"),
        (None, _) | (_, None) => "nothing to add: the rows reach up to now already\n".to_owned(),
    }
}

fn failed(error: DatagenError) -> CliError {
    let what = "cannot write samples".to_owned();
    match error {
        DatagenError::Csv(error @ CsvError::Line { .. }) => CliError::Usage(error.to_string()),
        DatagenError::Csv(error @ CsvError::File { .. }) => CliError::Usage(chain(&error)),
        DatagenError::Database(error @ (SourceError::Unreachable { .. } | SourceError::Denied { .. })) => {
            CliError::Unreachable { what, cause: Some(Box::new(error)) }
        }
        DatagenError::Database(error @ (SourceError::Schema { .. } | SourceError::Row { .. } | SourceError::Query { .. })) => {
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
