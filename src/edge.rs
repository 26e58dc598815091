//! Named places at which a test may end the process: before, between and after the steps that must hold together.
//!
//! Nothing of it is in a program that is built without the feature `failpoints`. With it, `FAILPOINTS="ack:committed=2*off->1*return"` ends
//! the process at the third pass of that edge (the crate `fail` reads it), and the file that `PACKHORSE_TEST_EDGES` names always holds the
//! edge that each operation passed last, so that whoever kills the process from outside can tell where it stood.
//!
//! The one rule: a name is `operation:step` and stands in the source once. [`ALL`] lists them; a test crashes at each.

/// Every edge, in the order of a row's life.
pub const ALL: &[&str] = &[
    "make:store",
    "make:renamed",
    "make:sidecar",
    "make:current",
    "start:committed",
    "append:encoded",
    "copy:synced",
    "copy:rewritten",
    "commit:flushed",
    "commit:synced",
    "append:committed",
    "sidecar:written",
    "intent:committed",
    "deliver:sending",
    "deliver:answered",
    "ack:encoded",
    "park:encoded",
    "ack:committed",
    "create:intended",
    "create:sent",
    "map:committed",
    "return:encoded",
    "return:committed",
    "take:encoded",
    "take:committed",
    "discard:written",
    "discard:renamed",
    "discard:taken",
    "aside:renamed",
    "compact:filled",
    "compact:renamed",
    "compact:copied",
    "compact:current",
    "compact:removed",
];

/// Passes an edge; does not return when a test wants the process to end here.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass(_name: &'static str) {}

/// Passes an edge; does not return when a test wants the process to end here.
#[cfg(feature = "failpoints")]
pub fn pass(name: &'static str) {
    debug_assert!(ALL.contains(&name), "{name} is not listed");
    note(name);
    fail::fail_point!(name, |_| std::process::abort());
}

/// Whether a test wants something done that is not due: `FAILPOINTS="compact:wanted=10%return"`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn is_wanted(_name: &'static str) -> bool {
    false
}

/// Whether a test wants something done that is not due: `FAILPOINTS="compact:wanted=10%return"`.
#[cfg(feature = "failpoints")]
pub fn is_wanted(name: &'static str) -> bool {
    fail::fail_point!(name, |_| true);
    false
}

/// Bytes of an operation's line in the file of edges.
pub const LINE_BYTES: usize = 32;

/// The operation that an edge belongs to.
pub fn operation(name: &str) -> &str {
    name.split(':').next().unwrap_or_default()
}

/// Writes the name over the one before it of the same operation, each of which has a line of its own: several may be under way. A write of
/// so few bytes is whole whenever the process ends.
#[cfg(feature = "failpoints")]
fn note(name: &str) {
    use std::{fs::File, os::unix::fs::FileExt as _, sync::OnceLock};

    static PASSED: OnceLock<Option<File>> = OnceLock::new();
    let passed = PASSED.get_or_init(|| {
        let path = std::env::var_os("PACKHORSE_TEST_EDGES")?;
        File::options().create(true).truncate(false).write(true).open(path).ok()
    });
    if let Some(file) = passed {
        let line = ALL.iter().position(|edge| operation(edge) == operation(name)).unwrap_or_default();
        let _ = file.write_all_at(format!("{name:<31}\n").as_bytes(), (line * LINE_BYTES) as u64);
    }
}

/// Reads what a test wants from the environment; it stands until the value is dropped.
#[cfg(feature = "failpoints")]
pub fn obey<'a>() -> fail::FailScenario<'a> {
    fail::FailScenario::setup()
}

/// How much faster than in life time passes for this program's own waits: a recorded link is replayed at the same speed. Always 1 but in builds
/// for tests, where `PACKHORSE_TEST_SPEED_UP` says it.
pub fn speed_up() -> u32 {
    #[cfg(any(debug_assertions, feature = "failpoints"))]
    {
        static SPEED_UP: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
        *SPEED_UP.get_or_init(|| {
            let text = std::env::var("PACKHORSE_TEST_SPEED_UP").ok();
            text.and_then(|text| text.parse().ok()).filter(|times| (1..=10).contains(times)).unwrap_or(1)
        })
    }
    #[cfg(not(any(debug_assertions, feature = "failpoints")))]
    1
}

/// A wait of this program, as long as it is with [`speed_up`].
pub fn scaled(wait: std::time::Duration) -> std::time::Duration {
    wait / speed_up()
}
