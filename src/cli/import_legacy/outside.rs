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
    domain::{Catalog, LocalRef, Position, RemoteId, SourceId, Stream},
    mysql::{self, MysqlSource},
    ports::{PageRequest, Source as _, SourceError, SourceStream},
    rest::{self, RestSink},
};

/// Counting stops here.
const ROWS_MAX: u64 = 1_000_000_000;
/// A count of a full table takes its time on a small machine.
const COUNT_DEADLINE: std::time::Duration = std::time::Duration::from_mins(5);

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
    /// Which kind of server it is: that decides what it makes of a repeated node state.
    pub kind: rest::look::Server,
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
    Ok(Source { catalog: source.catalog().await?, rows })
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
    let kind = sink.server().await.map_err(|outcome| outcome.to_string())?;
    Ok(Looked { standings: catalog::confirm(pairs, &source.catalog, &central), kind })
}
