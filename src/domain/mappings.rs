//! Which central id stands for which local entity.

use std::collections::HashMap;

use super::{LocalRef, RemoteId};

/// Local entities and their central ids at one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappings(HashMap<LocalRef, RemoteId>);

impl Mappings {
    /// The central id of an entity.
    pub fn get(&self, what: LocalRef) -> Option<RemoteId> {
        self.0.get(&what).copied()
    }

    /// Whether an entity has one.
    pub fn contains(&self, what: LocalRef) -> bool {
        self.0.contains_key(&what)
    }

    /// Sets the central id of an entity.
    pub fn insert(&mut self, what: LocalRef, id: RemoteId) {
        self.0.insert(what, id);
    }

    /// Forgets an entity.
    pub fn remove(&mut self, what: LocalRef) {
        self.0.remove(&what);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (LocalRef, RemoteId)> + '_ {
        self.0.iter().map(|(what, id)| (*what, *id))
    }
}

impl FromIterator<(LocalRef, RemoteId)> for Mappings {
    fn from_iter<T: IntoIterator<Item = (LocalRef, RemoteId)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}
