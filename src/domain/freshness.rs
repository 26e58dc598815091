//! Whether a row can be at a destination already.
//!
//! The one rule: `New` is said only of rows that nobody can have sent before. A repeat may be there, and is asked for before it is sent to
//! a destination that would keep it twice.

use serde::{Deserialize, Serialize};

/// Whether rows were captured for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// They passed the watermark just now.
    #[default]
    New,
    /// They, or some of them, were captured before, in this life of the outbox or in an earlier one, and may have arrived.
    Repeat,
}
