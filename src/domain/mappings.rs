//! Which entity of the source is which at the destination.

use std::collections::{BTreeMap, btree_map};

use serde::{Deserialize, Serialize};

use super::{LocalRef, RemoteId};

/// Local entities with their central ids, in order. An entity that is not in it is not mapped, and rows that point to it are held.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mappings(BTreeMap<LocalRef, RemoteId>);

impl Mappings {
    /// The central id of an entity.
    pub fn get(&self, what: LocalRef) -> Option<RemoteId> {
        self.0.get(&what).copied()
    }

    /// Whether an entity has one.
    pub fn contains(&self, what: LocalRef) -> bool {
        self.0.contains_key(&what)
    }

    /// Maps an entity; gives the id that it had before.
    pub fn insert(&mut self, what: LocalRef, id: RemoteId) -> Option<RemoteId> {
        self.0.insert(what, id)
    }

    /// Forgets an entity; gives the id that it had.
    pub fn remove(&mut self, what: LocalRef) -> Option<RemoteId> {
        self.0.remove(&what)
    }

    /// Everything that is mapped.
    pub fn iter(&self) -> Iter<'_> {
        Iter(self.0.iter())
    }

    /// How many entities are mapped.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The pairs of a [`Mappings`].
#[derive(Debug)]
pub struct Iter<'a>(btree_map::Iter<'a, LocalRef, RemoteId>);

impl Iterator for Iter<'_> {
    type Item = (LocalRef, RemoteId);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(what, id)| (*what, *id))
    }
}

impl<'a> IntoIterator for &'a Mappings {
    type Item = (LocalRef, RemoteId);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<(LocalRef, RemoteId)> for Mappings {
    fn from_iter<T: IntoIterator<Item = (LocalRef, RemoteId)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}
