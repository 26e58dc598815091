//! Which catalog entities rows need: those they point to, and whatever those point to in turn. Pure.
//!
//! The one rule: nothing that a row needs is left out because something else already has it.

use std::collections::{BTreeSet, HashSet};

use crate::domain::{Catalog, Entity, EntityKind, LocalId, LocalRef, Rows};

/// An entity to capture, with its content.
pub(super) type Changed = (LocalRef, Entity<LocalId>);

/// The entities that rows point to themselves.
pub(super) fn roots(rows: &Rows) -> BTreeSet<LocalRef> {
    let mut seen = HashSet::new();
    for row in 0..rows.len() {
        seen.extend(rows.refers(row));
    }
    seen.into_iter().collect()
}

/// Of `roots` and all that they need, what `captured` lacks or has with other content. A node needs its sensors too.
pub(super) fn changed(source: &Catalog, captured: &Catalog, roots: impl Iterator<Item = LocalRef>) -> Vec<Changed> {
    let mut open: Vec<LocalRef> = roots.collect();
    let mut needed = BTreeSet::new();
    let mut nodes = HashSet::new();
    while let Some(what) = open.pop() {
        let Some(entity) = source.get(&what) else { continue };
        if needed.insert(what) {
            open.extend(entity.refers());
            if what.kind == EntityKind::Node {
                nodes.insert(what.id);
            }
        }
    }
    for (what, entity) in source.range(LocalRef { kind: EntityKind::Sensor, id: LocalId(i64::MIN) }..) {
        if let Entity::Sensor(sensor) = entity
            && sensor.node.is_some_and(|node| nodes.contains(&node))
        {
            needed.insert(*what);
            needed.extend(entity.refers().into_iter().filter(|what| source.contains_key(what)));
        }
    }
    let differs = |what: &LocalRef| captured.get(what) != source.get(what);
    needed.into_iter().filter(differs).filter_map(|what| source.get(&what).map(|entity| (what, entity.clone()))).collect()
}
