//! What the database and the servers have to say about an old installation.
//!
//! The one rule: whoever does not answer is no obstacle. What could not be asked is told, and nothing is concluded from it.

use crate::{
    catalog::{self, Standing},
    config::{
        Auth, Config, Start,
        legacy::{Legacy, LegacyLocation, LegacyMap},
    },
    daemon,
    domain::{Catalog, LocalRef, Micros, Outcome, Position, RemoteId, SourceId, Stream},
    mysql::{self, MysqlSource},
    ports::{PageRequest, Source as _, SourceError, SourceStream},
    rest::RestSink,
};

/// Counting stops here.
const ROWS_MAX: u64 = 1_000_000_000;
/// A count of a full table takes its time on a small machine.
const COUNT_DEADLINE: std::time::Duration = std::time::Duration::from_mins(5);
/// So many of the first node states are looked for at a server.
const SAMPLE_ROWS: u32 = 100;
/// Of so many nodes at most.
const SAMPLE_NODES_MAX: usize = 10;

/// What was found.
pub(super) struct Found {
    /// The database, or why it could not be asked.
    pub source: Result<Source, String>,
    /// The servers, in the order of the old file.
    pub servers: Vec<Server>,
}

/// What the database has.
pub(super) struct Source {
    /// All of its catalog.
    pub catalog: Catalog,
    /// How many rows there are to send.
    pub rows: Vec<(Stream, u64)>,
    samples: Vec<Sample>,
}

/// Some of the first node states of one node, by their times.
#[derive(Clone, Copy)]
struct Sample {
    node: i64,
    from: Micros,
    to: Micros,
}

/// What became of a server.
pub(super) enum Server {
    /// It is off: nobody wants it asked.
    Off,
    /// The database could not be asked, so there is nothing to compare with.
    NoSource,
    /// It did not answer as it should; why.
    Silent(String),
    /// It answered.
    Looked(Looked),
}

/// What a server has.
pub(super) struct Looked {
    /// Each old mapping, and how it stands.
    pub standings: Vec<(LocalRef, RemoteId, Standing)>,
    /// What it makes of a repeated node state.
    pub node_states: NodeStates,
}

/// What a server makes of a repeated node state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeStates {
    /// It knows it by its key.
    Merged,
    /// It stores one more.
    Stored,
    /// None of those looked for was there.
    Unknown,
}

/// Asks the database, then each server that is on.
pub(super) async fn look(old: &Legacy, maps: &[LegacyMap], meant: &Config) -> Found {
    let start = meant.destinations.first().map_or(Start::Beginning, |destination| destination.start);
    let source = look_at_source(old, start).await.map_err(|error| crate::chain(&error));
    let mut servers = Vec::new();
    for (location, destination) in old.locations.iter().zip(&meant.destinations) {
        servers.push(match &source {
            _ if !location.enabled => Server::Off,
            Err(_) => Server::NoSource,
            Ok(source) => look_at_server(location, destination, maps, source).await.map_or_else(Server::Silent, Server::Looked),
        });
    }
    Found { source, servers }
}

async fn look_at_source(old: &Legacy, start: Start) -> Result<Source, SourceError> {
    let mut url = old.source.url.clone();
    if let Some(password) = &old.source.password {
        // Fails only for a URL without a host.
        let _ = url.set_password(Some(&password.expose().replace('%', "%25")));
    }
    let mut source = MysqlSource::new(mysql::Options { deadline: COUNT_DEADLINE, ..mysql::Options::new(url.as_str()) })?;
    let schema = source.connect().await?;
    let now = source.now().await?;
    let mut rows = Vec::new();
    for SourceStream { stream, order } in schema.streams {
        let after = match start {
            Start::Beginning => Position::Start,
            Start::Now => source.last(stream, matches!(order, crate::ports::Order::Key).then_some(now)).await?,
            Start::At(time) => source.last(stream, Some(time)).await?,
        };
        let request = PageRequest { stream, after, before: None, limit: 1 };
        rows.push((stream, source.count_after(&request, ROWS_MAX).await?));
    }
    let request = PageRequest { stream: Stream::NodeState, after: Position::Start, before: None, limit: SAMPLE_ROWS };
    let page = source.page(&request).await?;
    let columns = Stream::NodeState.spec().key;
    let mut samples: Vec<Sample> = Vec::new();
    for row in 0..page.len() {
        let (Some(node), Some(time)) = (page.int(columns[1], row), page.int(columns[0], row)) else { continue };
        // Servers keep whole seconds.
        let (from, to) = (Micros(time - time.rem_euclid(1_000_000)), Micros(time));
        let is_room = samples.len() < SAMPLE_NODES_MAX;
        match samples.iter_mut().find(|sample| sample.node == node) {
            Some(sample) => *sample = Sample { node, from: sample.from.min(from), to: sample.to.max(to) },
            None if is_room => samples.push(Sample { node, from, to }),
            None => {}
        }
    }
    Ok(Source { catalog: source.catalog().await?, rows, samples })
}

async fn look_at_server(
    location: &LegacyLocation,
    destination: &crate::config::Destination,
    maps: &[LegacyMap],
    source: &Source,
) -> Result<Looked, String> {
    let mut destination = destination.clone();
    if let Some((user, password)) = &location.login {
        destination.auth = Auth::Basic { user: user.clone(), password: password.clone() };
    }
    // Whose rows they are is told with rows alone, and none are sent.
    let sink = RestSink::new(daemon::rest_options(&destination, SourceId(0))).map_err(|error| crate::chain(&error))?;
    let pairs = maps.iter().find_map(|map| map.section(&location.url)).map_or(&[][..], |section| &section.pairs);
    let central = catalog::look(&sink, &source.catalog).await.map_err(|outcome| outcome.to_string())?;
    let node_states = node_states(&sink, &source.samples).await.map_err(|outcome| outcome.to_string())?;
    Ok(Looked { standings: catalog::confirm(pairs, &source.catalog, &central), node_states })
}

/// Looks for node states that the old script has sent, and at what they look like there.
async fn node_states(sink: &RestSink, samples: &[Sample]) -> Result<NodeStates, Outcome> {
    for Sample { node, from, to } in samples {
        match sink.node_states_have_ids(*node, *from, *to).await? {
            Some(true) => return Ok(NodeStates::Stored),
            Some(false) => return Ok(NodeStates::Merged),
            None => {}
        }
    }
    Ok(NodeStates::Unknown)
}
