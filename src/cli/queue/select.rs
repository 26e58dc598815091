//! Which rows a queue command means.

use clap::Args;

use crate::{
    domain::{Micros, Stream},
    queue::Filter,
};

/// Filters; several that are given must all hold.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Which rows")]
pub struct Select {
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Only this stream: reading or nodestate
    #[arg(long, value_name = "STREAM")]
    pub stream: Option<Stream>,
    /// Only rows of this node
    #[arg(long, value_name = "ID")]
    pub node: Option<i64>,
    /// Only readings of this sensor type
    #[arg(long = "type", value_name = "ID")]
    pub sensor_type: Option<i64>,
    /// Only rows of this time and later, UTC, such as 2026-01-31T12:00:00
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<Micros>,
    /// Only rows of before this time, UTC
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub before: Option<Micros>,
}

impl Select {
    /// The filter that they make, with words of a reason.
    pub fn filter(&self, reason: Option<&str>) -> Filter {
        Filter {
            stream: self.stream,
            node: self.node,
            sensor_type: self.sensor_type,
            since: self.since,
            before: self.before,
            reason: reason.map(str::to_owned),
        }
    }
}

/// A time of the command line: UTC, with or without a Z.
pub fn time(text: &str) -> Result<Micros, String> {
    let text = text.trim();
    text.strip_suffix('Z')
        .unwrap_or(text)
        .parse()
        .map_err(|_| "this is not a time: write 2026-01-31T12:00:00 or 2026-01-31, in UTC".to_owned())
}
