//! A `*_map.conf`: for each server, which central id the old script used for each local one.

use std::collections::HashSet;

use super::{
    super::problem::quoted,
    ini::{Entry, Section},
    same_url,
};
use crate::{
    config::Problem,
    domain::{EntityKind, LocalId, LocalRef, RemoteId},
};

/// What a map file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LegacyMap {
    /// One for each server.
    pub sections: Vec<MapSection>,
    /// Lines that mean nothing, and why.
    pub notes: Vec<String>,
}

/// The mappings for one server. Whether they are right is another matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapSection {
    /// Its line.
    pub line: usize,
    /// The server, as [`LegacyMap::section`] looks it up.
    url: String,
    /// Each entity at most once.
    pub pairs: Vec<(LocalRef, RemoteId)>,
}

impl LegacyMap {
    /// The mappings for a server.
    pub fn section(&self, url: &url::Url) -> Option<&MapSection> {
        let url = same_url(url.as_str());
        self.sections.iter().find(|section| section.url == url)
    }
}

pub(super) fn read(root: &Section, problems: Vec<Problem>) -> LegacyMap {
    let mut notes: Vec<String> = problems.into_iter().map(|problem| problem.what()).collect();
    notes.extend(root.entries.iter().map(|entry| format!("line {}: it stands in no section", entry.line)));
    let mut sections: Vec<MapSection> = Vec::new();
    for section in &root.sections {
        let url = same_url(&section.name);
        if sections.iter().any(|earlier| earlier.url == url) {
            notes.push(format!("line {}: this server has a section already; this one is left out", section.line));
            continue;
        }
        let mut pairs = Vec::new();
        for table in &section.sections {
            match kind(&table.name) {
                Some(kind) => read_pairs(kind, table, &mut pairs, &mut notes),
                // When the old script last sent something for a house: it says nothing of what it lost before.
                None if table.name.eq_ignore_ascii_case("lastupdate") => {}
                None => notes.push(format!("line {}: {} is not known", table.line, quoted(&table.name))),
            }
        }
        sections.push(MapSection { line: section.line, url, pairs });
    }
    LegacyMap { sections, notes }
}

fn kind(name: &str) -> Option<EntityKind> {
    let kinds = [EntityKind::Deployment, EntityKind::House, EntityKind::Location, EntityKind::Room, EntityKind::RoomType];
    kinds.into_iter().find(|kind| kind.table().eq_ignore_ascii_case(name))
}

fn read_pairs(kind: EntityKind, table: &Section, pairs: &mut Vec<(LocalRef, RemoteId)>, notes: &mut Vec<String>) {
    let mut read: Vec<(LocalRef, RemoteId)> = Vec::new();
    let mut twice: HashSet<LocalRef> = HashSet::new();
    for entry in &table.entries {
        match pair(kind, entry) {
            None => notes.push(format!("line {}: {kind} {} has no central id", entry.line, quoted(&entry.key))),
            Some((what, id)) => match read.iter().find(|(known, _)| *known == what) {
                Some((_, first)) if *first != id => {
                    notes.push(format!("line {}: {what} has two central ids, {first} and {id}; neither is taken", entry.line));
                    twice.insert(what);
                }
                Some(_) => {}
                None => read.push((what, id)),
            },
        }
    }
    pairs.extend(read.into_iter().filter(|(what, _)| !twice.contains(what)));
}

fn pair(kind: EntityKind, entry: &Entry) -> Option<(LocalRef, RemoteId)> {
    let id: i64 = entry.key.trim().parse().ok()?;
    let central: i64 = if entry.value.is_list { None } else { entry.value.text.trim().parse().ok() }?;
    Some((LocalRef { kind, id: LocalId(id) }, RemoteId(central)))
}
