//! Opening: the store in use, the first one, or a new one in place of one that was lost.
//!
//! A store that does not open, is empty, of another epoch or behind its sidecar is *damaged*. It is set aside by renaming; a new epoch
//! begins with the sidecar's mappings at the sidecar's place in the source, from where everything is captured again that was not settled.
//! Without a sidecar it begins with the first row of the source: rather everything once more than one row less.
//!
//! The one rule: a full or failing disk is not damage, and neither is another version's store or another gateway's: these are left alone.

use std::path::{Path, PathBuf};

use super::{
    ballast, compact, data_dir,
    format::{self, FORMAT_VERSION, Meta, StreamState},
    ledger::{self, LedgerState, Repeats},
    ledger_file::LedgerFile,
    salvage::Salvage,
    sidecar::Sidecar,
    store::{Change, Store, StoreError, io_error, sync_path},
    writer::{OpenOptions, Writer},
};
use crate::{
    domain::{Brought, Generation, Mappings, Stream},
    edge,
};

/// Opens the outbox of a destination, whatever has become of it; on a full disk with what its ballast gives.
pub(super) fn open(outbox: &Path, options: &OpenOptions) -> Result<(Store, Writer), StoreError> {
    ballast::or_without(outbox, || try_open(outbox, options))
}

fn try_open(outbox: &Path, options: &OpenOptions) -> Result<(Store, Writer), StoreError> {
    std::fs::create_dir_all(outbox).map_err(io_error(format!("creating {}", outbox.display())))?;
    outbox.parent().map_or(Ok(()), sync_path)?;
    let sidecar = Sidecar::read(outbox)?;
    if let Some(sidecar) = &sidecar {
        belongs(outbox, &sidecar.meta, options)?;
    }
    let (damage, sidecar) = match in_use(outbox, sidecar.as_ref()) {
        Ok(Found::Whole(store, writer)) => {
            belongs(outbox, writer.meta(), options)?;
            // An outbox that is older than sidecars gets one; one that is behind is brought up to date.
            writer.sidecar().write(outbox)?;
            store.mend_copy()?;
            for path in compact::tidy(outbox, store.path())? {
                set_aside(outbox, &path, options)?;
            }
            return Ok((store, *writer));
        }
        Ok(Found::Nothing) if sidecar.is_none() && !was_in_use(outbox)? => return first(outbox, options),
        Ok(Found::Nothing) if sidecar.is_none() => ("its store and its sidecar are gone".to_owned(), None),
        Ok(Found::Nothing) => ("there is a sidecar and no store".to_owned(), sidecar),
        // Of two lives nobody knows which is the later one: what either would capture is captured again.
        Ok(Found::Contradicted { what, bound }) => (what, sidecar.map(|sidecar| sidecar.lowered_to(&bound))),
        Err(StoreError::Damaged { what, .. }) => (what, sidecar),
        Err(other) => return Err(other),
    };
    ballast::may_be_damage(outbox, &damage)?;
    rebuild(outbox, options, sidecar.as_ref(), &damage)
}

/// Opens the store in use, if there is one, and makes none: for those who come while nobody runs. What [`open`] would set aside is damaged for
/// them as well.
pub(super) fn open_existing(outbox: &Path) -> Result<Option<(Store, Writer)>, StoreError> {
    let sidecar = Sidecar::read(outbox)?;
    let what = match in_use(outbox, sidecar.as_ref())? {
        Found::Whole(store, writer) => return Ok(Some((store, *writer))),
        Found::Nothing if sidecar.is_none() && !was_in_use(outbox)? => return Ok(None),
        Found::Nothing if sidecar.is_none() => "its store and its sidecar are gone".to_owned(),
        Found::Nothing => "there is a sidecar and no store".to_owned(),
        Found::Contradicted { what, .. } => what,
    };
    Err(StoreError::Damaged { path: outbox.into(), what })
}

/// What is in use.
enum Found {
    Nothing,
    Whole(Store, Box<Writer>),
    /// A store that opens, and is not what its sidecar knows; with what its own sidecar would say.
    Contradicted {
        what: String,
        bound: Sidecar,
    },
}

/// The store in use.
fn in_use(outbox: &Path, sidecar: Option<&Sidecar>) -> Result<Found, StoreError> {
    let current = data_dir::current(outbox)?;
    let is_current = current.is_some();
    let path = match current {
        Some(path) => path,
        // Complete, and the power went before it was made the one in use.
        None => match newest(outbox)? {
            Some(path) => path,
            None => return Ok(Found::Nothing),
        },
    };
    let store = Store::open(&path)?;
    let writer = Writer::load(&store)?;
    if let Some(what) = sidecar.and_then(|sidecar| sidecar.contradicts(writer.meta(), writer.streams())) {
        return Ok(Found::Contradicted { what, bound: writer.sidecar() });
    }
    if !is_current {
        data_dir::set_current(outbox, &path)?;
    }
    Ok(Found::Whole(store, Box::new(writer)))
}

/// Whether an outbox has been here before, by what is only made beside one that works.
fn was_in_use(outbox: &Path) -> Result<bool, StoreError> {
    Ok(outbox.join("aside").exists() || ballast::is_there(outbox) || !data_dir::stores(outbox)?.is_empty())
}

/// The newest store that is no copy which was never switched to.
fn newest(outbox: &Path) -> Result<Option<PathBuf>, StoreError> {
    for path in data_dir::stores(outbox)?.into_iter().rev() {
        if path.join("db").is_file() && !compact::is_unused_copy(outbox, &path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn belongs(outbox: &Path, meta: &Meta, options: &OpenOptions) -> Result<(), StoreError> {
    if meta.source == options.source && meta.destination == options.destination {
        return Ok(());
    }
    let what = format!(
        "it belongs to source {} and destination '{}', this is source {} and destination '{}'",
        meta.source, meta.destination, options.source, options.destination
    );
    Err(StoreError::Foreign { path: outbox.into(), what })
}

fn first(outbox: &Path, options: &OpenOptions) -> Result<(Store, Writer), StoreError> {
    let meta = meta(options, Generation(0));
    let writer = Writer::new(meta, Stream::ALL.map(|_| StreamState::new()), Mappings::default(), Brought::new());
    make(outbox, 1, writer, &Salvage::none(), &Life::First)
}

/// Begins a new epoch where the sidecar says, with what can be read of the parked rows, and sets the damaged store aside.
fn rebuild(outbox: &Path, options: &OpenOptions, sidecar: Option<&Sidecar>, damage: &str) -> Result<(Store, Writer), StoreError> {
    let old = data_dir::stores(outbox)?;
    let salvage = Salvage::survey(&folders(outbox)?, sidecar, options)?;
    let begin = |stream: Stream| {
        let started = sidecar.is_none_or(|sidecar| sidecar.streams[usize::from(stream.number())].started);
        StreamState { watermark: salvage.begin(stream).clone(), started, ..StreamState::new() }
    };
    let generation = sidecar.map_or(Generation(0), |sidecar| sidecar.meta.generation);
    let mappings = sidecar.map(|sidecar| sidecar.mappings.iter().copied().collect()).unwrap_or_default();
    let brought = sidecar.map(|sidecar| sidecar.brought.iter().cloned().collect()).unwrap_or_default();
    let number = old.last().and_then(|path| data_dir::store_number(path)).unwrap_or(0) + 1;
    let writer = Writer::new(meta(options, generation), Stream::ALL.map(begin), mappings, brought);
    let saved = LedgerFile::read(outbox, writer.meta())?;
    let (store, writer) = make(outbox, number, writer, &salvage, &Life::AfterLoss(saved.map(Box::new)))?;
    drop(salvage);
    tracing::error!(
        outbox = %outbox.display(), damage, epoch = %writer.meta().epoch,
        readings_from = %writer.streams()[0].watermark, node_states_from = %writer.streams()[1].watermark,
        parked_rows_kept = writer.streams().iter().map(StreamState::parked_now).sum::<u64>(),
        "the outbox is damaged: it is set aside, and the source is captured again from here"
    );
    for path in old {
        set_aside(outbox, &path, options)?;
    }
    Ok((store, writer))
}

/// The folders of stores, the one in use first and else the newest.
fn folders(outbox: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let current = data_dir::current_name(outbox).map(|name| outbox.join(name));
    let others = data_dir::stores(outbox)?.into_iter().rev().filter(|path| Some(path) != current.as_ref());
    Ok(current.clone().into_iter().filter(|path| path.is_dir()).chain(others).collect())
}

fn meta(options: &OpenOptions, generation: Generation) -> Meta {
    Meta {
        format_version: FORMAT_VERSION,
        epoch: options.epoch,
        source: options.source,
        destination: options.destination.clone(),
        generation,
    }
}

/// Which life of an outbox begins.
enum Life {
    /// The first one.
    First,
    /// One in place of a store that was lost, with the copy of its ledger if there is one.
    AfterLoss(Option<Box<LedgerFile>>),
}

/// Makes a store under another name, which it loses when its first commit is on the disk: what a crash leaves of the making may not even
/// open, and holds nothing that anyone was told of. The sidecar goes before CURRENT: a crash between them makes one more new epoch from
/// the same place.
fn make(
    outbox: &Path,
    number: usize,
    mut content: Writer,
    salvage: &Salvage,
    life: &Life,
) -> Result<(Store, Writer), StoreError> {
    let path = data_dir::store_path(outbox, number);
    let making = path.with_extension("making");
    compact::remove_folder(&making)?;
    let store = Store::open(&making)?;
    let taken = salvage.copy(&store, content.meta().epoch)?;
    content.take_over(taken.parked, taken.next_parked);
    content.write_to(&store)?;
    match life {
        Life::First => {}
        Life::AfterLoss(saved) => restore_ledgers(&store, &content, saved.as_deref())?,
    }
    drop(store);
    edge::pass("make:store");
    std::fs::rename(&making, &path).map_err(io_error(format!("renaming {}", making.display())))?;
    sync_path(outbox)?;
    edge::pass("make:renamed");
    let store = Store::open(&path)?;
    let writer = Writer::load(&store)?;
    writer.sidecar().write(outbox)?;
    edge::pass("make:sidecar");
    data_dir::set_current(outbox, &path)?;
    edge::pass("make:current");
    Ok((store, writer))
}

/// Entries that are restored in one commit.
const RESTORE_ENTRIES: usize = 5_000;

/// What an earlier life captured is known as far as the copy of its ledger tells; whatever else is in the source may have been captured.
fn restore_ledgers(store: &Store, content: &Writer, saved: Option<&LedgerFile>) -> Result<(), StoreError> {
    for stream in Stream::ALL {
        let from = &content.streams()[usize::from(stream.number())].watermark;
        let nothing = || (LedgerState { repeats: Repeats::All, ..LedgerState::new() }, Vec::new());
        let (state, entries) = saved.map_or_else(nothing, |saved| saved.before(stream, from));
        for some in entries.chunks(RESTORE_ENTRIES) {
            let mut change = Change::default();
            ledger::restore(&mut change, stream, some);
            store.commit(change)?;
        }
        let mut change = Change::default();
        change.put(format::ledger_state_key(stream), format::to_bytes(&state));
        store.commit(change)?;
    }
    Ok(())
}

/// Renames a store out of the way; nothing of it is deleted.
fn set_aside(outbox: &Path, path: &PathBuf, options: &OpenOptions) -> Result<(), StoreError> {
    let aside = outbox.join("aside");
    std::fs::create_dir_all(&aside).map_err(io_error(format!("creating {}", aside.display())))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let to = aside.join(format!("{name}-before-{}", options.epoch));
    std::fs::rename(path, &to).map_err(io_error(format!("renaming {}", path.display())))?;
    edge::pass("aside:renamed");
    sync_path(&aside)?;
    sync_path(outbox)
}
