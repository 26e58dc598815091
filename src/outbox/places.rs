//! Where in the source the rows of each chunk come from, kept in memory: the sidecar's lower bound is taken from it.
//!
//! The one rule: it knows every chunk of the store, pending and parked; one left out could be lost with the store.

use std::collections::BTreeMap;

use crate::domain::{Seq, Stream};

/// The lowest place (id or time) of each chunk's rows.
#[derive(Debug, Default)]
pub(super) struct Places {
    pending: [BTreeMap<Seq, i64>; Stream::ALL.len()],
    /// By the number of the parked chunk.
    parked: BTreeMap<u64, (Stream, i64)>,
}

impl Places {
    /// The lowest place of all rows of a stream that are not settled for good.
    pub(super) fn lowest(&self, stream: Stream) -> Option<i64> {
        let parked = self.parked.values().filter(|(of, _)| *of == stream).map(|(_, lowest)| *lowest);
        self.pending[usize::from(stream.number())].values().copied().chain(parked).min()
    }

    /// The lowest place of the rows of a stream that wait.
    pub(super) fn lowest_pending(&self, stream: Stream) -> Option<i64> {
        self.pending[usize::from(stream.number())].values().copied().min()
    }

    pub(super) fn add_pending(&mut self, stream: Stream, first: Seq, lowest: i64) {
        self.pending[usize::from(stream.number())].insert(first, lowest);
    }

    pub(super) fn remove_pending(&mut self, stream: Stream, first: Seq) {
        self.pending[usize::from(stream.number())].remove(&first);
    }

    pub(super) fn add_parked(&mut self, number: u64, stream: Stream, lowest: i64) {
        self.parked.insert(number, (stream, lowest));
    }

    pub(super) fn remove_parked(&mut self, number: u64) {
        self.parked.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_place_is_that_of_pending_and_parked_rows_of_the_stream() {
        let mut places = Places::default();
        assert_eq!(places.lowest(Stream::Reading), None);
        places.add_pending(Stream::Reading, Seq(0), 70);
        places.add_pending(Stream::Reading, Seq(9), 50);
        places.add_pending(Stream::NodeState, Seq(0), 1);
        places.add_parked(3, Stream::Reading, 40);
        assert_eq!((places.lowest(Stream::Reading), places.lowest_pending(Stream::Reading)), (Some(40), Some(50)));
        places.remove_parked(3);
        assert_eq!(places.lowest(Stream::Reading), Some(50));
        places.remove_pending(Stream::Reading, Seq(9));
        assert_eq!((places.lowest(Stream::Reading), places.lowest(Stream::NodeState)), (Some(70), Some(1)));
    }
}
