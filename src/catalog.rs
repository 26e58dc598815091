//! The catalog: making the entities that rows point to exist at a destination, and remembering under which ids.
//!
//! [`plan()`] decides, purely, from what was captured and what is there; [`sync()`] looks, asks the plan, and carries it out.
//!
//! [`confirm()`] holds mappings that the old push script kept against both ends, before any of them is taken over.
//!
//! The one rule: look before storing. Nothing is created whose absence was not seen in this very sync, and the intent to create is durable
//! before the request goes out; so a lost answer never makes a second house.

mod confirm;
mod follow;
mod identity;
mod plan;
#[cfg(test)]
mod properties;
mod sensors;
mod sync;

pub use confirm::{Central, Standing, confirm, look, with_all_they_need};
pub use plan::{Given, Held, Known, Plan, plan};
pub use sync::{Journal, JournalError, Recheck, Refused, SyncError, SyncOptions, Synced, sync};

use crate::{domain::Micros, ports::PushStatus};

/// The destination's columns hold so many characters; a longer version is an error on strict servers.
const HOSTNAME_CHARS_MAX: usize = 25;
const VERSION_CHARS_MAX: usize = 20;

/// A status report that fits its columns.
pub fn push_status(label: &str, version: &str, now: Micros) -> PushStatus {
    let cut = |text: &str, chars_max| text.chars().take(chars_max).collect();
    PushStatus { hostname: cut(label, HOSTNAME_CHARS_MAX), version: cut(version, VERSION_CHARS_MAX), localtime: now }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_report_fits_its_columns() {
        let status = push_status("Gewächshaus an der langen Straße", "1.1.8 : 6.18.44-fc-v669", Micros(0));
        assert_eq!((status.hostname.as_str(), status.version.as_str()), ("Gewächshaus an der langen", "1.1.8 : 6.18.44-fc-v"));
    }
}
