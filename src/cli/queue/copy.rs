//! Looks at the copy of an outbox, in the temporary directory.
//!
//! Opening writes: a log that is damaged is cut where the damage begins, and what lies behind it is gone. So a look opens a copy, and only an
//! outbox that is large is opened where it is.
//!
//! The one rule: a look at a damaged outbox leaves it as it is.

use std::{
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{
    cli::interrupt::Undone,
    config::Destination,
    daemon,
    outbox::{
        Outbox, StoreError,
        remains::{self, Remains},
    },
    queue::{Answer, Answers, Detail, FailureKind, QueueError, Request, Told, look},
    status,
};

/// A copy of more than this takes longer than a look should, and memory where the temporary directory lies there.
const COPY_BYTES_MAX: u64 = 64 << 20;

fn scratch() -> io::Result<Undone> {
    let name = format!("packhorse-look-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let scratch = Undone::new(std::env::temp_dir().join(name));
    std::fs::DirBuilder::new().mode(0o700).create(scratch.path()).map(|()| scratch)
}

/// Opens an outbox for a look while nobody runs: a copy, which goes with what is given beside it. Blocks.
pub(super) fn open_to_look(folder: &Path) -> Result<(Option<Outbox>, Option<Undone>), StoreError> {
    if let Some(scratch) = copied(folder) {
        match Outbox::open_existing(scratch.path()) {
            Ok(Some(outbox)) => return Ok((Some(outbox), Some(scratch))),
            Err(StoreError::Damaged { path, what }) => {
                let path = path.strip_prefix(scratch.path()).map_or_else(|_| PathBuf::from(folder), |place| folder.join(place));
                return Err(StoreError::Damaged { path, what });
            }
            // Nothing to be cut, or nothing that a copy can tell.
            Ok(None) | Err(_) => {}
        }
    }
    Outbox::open_existing(folder).map(|outbox| (outbox, None))
}

/// A copy, where that is no great matter and there is room.
fn copied(folder: &Path) -> Option<Undone> {
    let scratch = scratch().ok()?;
    remains::copy_outbox(folder, scratch.path(), COPY_BYTES_MAX).ok()?.then_some(scratch)
}

/// What can be told of a damaged outbox, from a copy.
pub(super) async fn look_at_what_is_left(
    folder: &Path,
    destination: &Destination,
    request: Request,
    damage: &StoreError,
    answers: &Answers,
) -> Result<(), QueueError> {
    let why = crate::chain(damage);
    let scratch = scratch().map_err(|cause| {
        let text = format!("{why}; no copy could be read: cannot make a folder in {}: {cause}", std::env::temp_dir().display());
        QueueError::told(FailureKind::Outbox, text)
    })?;
    let (copied, into) = (folder.to_owned(), scratch.path().to_owned());
    let copy = tokio::task::spawn_blocking(move || Remains::open(&copied, &into)).await;
    let copy = copy.map_err(|defect| QueueError::told(FailureKind::Other, defect.to_string()))?;
    let remains = copy.map_err(|error| {
        QueueError::told(FailureKind::Outbox, format!("{why}; no copy could be read: {}", crate::chain(&error)))
    })?;
    match request {
        Request::Status => {
            let status = status::of_closed(&destination.name, &why, Some(&remains), daemon::clock());
            return answers.give(Answer::Status(Box::new(status), Vec::new())).await;
        }
        Request::Verify => {
            let left = remains.left();
            let rows = left.pending.iter().chain(&left.parked).sum();
            let text = format!("{rows} records can still be read of a copy");
            return answers.give(Answer::Told(Told { text, rows, wrong: vec![why] })).await;
        }
        Request::List(filter, limit) => look::list_left(&remains, &filter, limit, answers).await?,
        Request::ParkedShow(filter, limit) => look::parked_show_left(&remains, &filter, limit, answers).await?,
        Request::ParkedList(filter) => {
            let mut groups = look::Groups::default();
            remains.parked().for_each(|(parked, rows)| groups.add(&filter, &parked, &rows));
            answers.give(Answer::Groups(groups.into_list())).await?;
        }
        Request::Show(stream, seq) => {
            let found = remains.records(stream).find(|(first, _, rows)| (*first..first.plus(rows.len() as u64)).contains(&seq));
            if let Some((first, captured_at, rows)) = found {
                let detail = Detail {
                    stream,
                    record: look::record(&rows, seq.since(first) as usize, Some(seq)),
                    captured_at: captured_at.to_string(),
                    freshness: "unknown".to_owned(),
                    refers: Vec::new(),
                    in_flight: false,
                };
                answers.give(Answer::Detail(Box::new(detail))).await?;
            }
        }
        Request::Retry(..)
        | Request::Discard(..)
        | Request::Pause
        | Request::Resume
        | Request::Flush
        | Request::Compact
        | Request::Rewind(_) => {}
    }
    // What was shown is not all that there should be.
    Err(QueueError::told(FailureKind::Remains, format!("{why}; what can still be read of a copy was shown")))
}
