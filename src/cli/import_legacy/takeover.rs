//! Putting right mappings into a destination's outbox.
//!
//! The one rule: a mapping enters together with the entities that it stands for, so that the first sync looks at it again; and an outbox
//! in which something has happened is left as it is.

use std::path::Path;

use super::outside::{Found, Server};
use crate::{
    catalog::{Standing, with_all_they_need},
    cli::{CliError, Context},
    config::Config,
    domain::{Catalog, Epoch, Freshness, LocalRef, Micros, Position, RemoteId, Rows, Stream},
    outbox::{Captured, DataDir, OpenOptions, Outbox, StoreError},
};

/// Takes over what is right, for each destination. Gives what came of it, a line each: that it cannot be done is no obstacle either.
pub(super) fn take_over(config: &Config, found: &Found, context: &Context) -> Result<Vec<String>, CliError> {
    let Ok(source) = &found.source else { return Ok(Vec::new()) };
    let right = |server: &Server| match server {
        Server::Looked(looked) => {
            looked.standings.iter().filter(|(.., it)| *it == Standing::Right).map(|&(what, id, _)| (what, id)).collect()
        }
        Server::Off | Server::NoSource | Server::Silent(_) => Vec::new(),
    };
    let wanted: Vec<(&str, Vec<(LocalRef, RemoteId)>)> = config
        .destinations
        .iter()
        .zip(&found.servers)
        .map(|(destination, server)| (destination.name.as_str(), right(server)))
        .filter(|(_, pairs)| !pairs.is_empty())
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let data_dir = match DataDir::own_for_a_command(&config.gateway.data_dir, rand::random) {
        Ok(data_dir) => data_dir,
        Err(error) => {
            let text = crate::chain(&error);
            return Ok(vec![format!("no mapping is taken over, packhorse finds the ids itself at its first sync: {text}")]);
        }
    };
    let mut lines = Vec::new();
    for (name, pairs) in wanted {
        let options = OpenOptions { destination: name.to_owned(), source: data_dir.source(), epoch: Epoch(rand::random()) };
        let path = data_dir.outbox(name);
        let count = pairs.len();
        let taken = context.block_on(async { Ok(into_outbox(&path, options, &source.catalog, pairs).await) })?;
        lines.push(match taken {
            Ok(true) => format!("{name}: {count} mappings are taken over into {}", path.display()),
            Ok(false) => format!("{name}: its outbox has mappings of its own; it is left as it is"),
            Err(error) => format!("{name}: no mapping is taken over, packhorse finds the ids itself: {}", crate::chain(&error)),
        });
    }
    Ok(lines)
}

async fn into_outbox(
    path: &Path,
    options: OpenOptions,
    catalog: &Catalog,
    pairs: Vec<(LocalRef, RemoteId)>,
) -> Result<bool, StoreError> {
    let outbox = Outbox::open(path, &options)?;
    let snapshot = outbox.snapshot();
    let is_new =
        snapshot.mappings.is_empty() && snapshot.catalog.is_empty() && snapshot.streams.iter().all(|stream| !stream.started);
    if is_new {
        let catalog = with_all_they_need(catalog, pairs.iter().map(|(what, _)| *what));
        let rows = Rows::empty(Stream::Reading);
        let at = Micros(chrono::Utc::now().timestamp_micros());
        outbox.append(Captured { rows, watermark: Position::Start, catalog, freshness: Freshness::New, at }).await?;
        outbox.map(pairs.into_iter().map(|(what, id)| (what, Some(id))).collect()).await?;
    }
    Ok(is_new)
}
