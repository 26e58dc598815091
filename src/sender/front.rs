//! How a stream stands at its cursor, as far as this life of the program knows.
//!
//! The one rule: nothing in here is needed after a crash; what is stands in the outbox.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::{collide::Frontier, doubt::Doubt, isolate::Convict, told::Memory};
use crate::{domain::Seq, outbox::Batch};

/// How a stream stands at its cursor.
pub(super) struct Front {
    /// What may have arrived.
    pub(super) doubt: Option<Doubt>,
    /// The server may be busy with it until then.
    pub(super) ready: Instant,
    pub(super) standing: Standing,
    /// What was delivered in this life.
    pub(super) frontier: Frontier,
    /// What was refused as a group when last seen, and is likely to be refused again.
    pub(super) convicts: BTreeSet<Convict>,
    /// The seq after the last that may have been sent.
    pub(super) sent_up_to: Seq,
    /// What a receiver told of its own memory, and is yet to be acted on.
    pub(super) memory: Memory,
    /// What a receiver took of a batch of which it refused other rows.
    pub(super) taken: BTreeSet<Seq>,
    /// For what reasons a receiver refused rows, also after a look at the catalog.
    pub(super) reasons: BTreeSet<String>,
    /// A row that a packhorse receiver took in this life: sent again, it shows whether the receiver is well.
    pub(super) proof: Option<Batch>,
    pub(super) opening: Opening,
}

/// Whether it is known that the first rows that this life sends were not sent by another copy of this outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// They are to be asked for.
    Unproven,
    /// They are not there, or it is known that they may be.
    Proven,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            doubt: None,
            ready: Instant::now(),
            standing: Standing::Well,
            frontier: Frontier::default(),
            convicts: BTreeSet::new(),
            sent_up_to: Seq(0),
            memory: Memory::Agrees,
            taken: BTreeSet::new(),
            reasons: BTreeSet::new(),
            proof: None,
            opening: Opening::Unproven,
        }
    }
}

/// What the refusals of a stream's requests have led to, since one was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// There was none.
    Well,
    /// So many errors (500), which may be the server's own.
    Failing(u32),
    /// The catalog is looked at before anything is sent again.
    CatalogDoubted,
    /// The catalog was in step, and still it was refused: rows are tried apart.
    RowsDoubted,
    /// So many times in a row single records were refused, and none accepted: the server is at fault.
    ServerDoubted(usize),
}
