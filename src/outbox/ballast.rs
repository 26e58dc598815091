//! Bytes (and a file) that the disk keeps for the outbox: given up when the disk is full, so that it can be opened and drained.
//!
//! sled cannot open on a disk that is full to the last byte, nor store an ack, which is what would make room. Measured on ext4 and tmpfs
//! with up to 1,500,000 readings waiting, opening and draining took up to 870 KiB (docs/durability.md).
//!
//! The one rule: while it is given up nothing is captured, or capture would use up what the acks need.

use std::{
    fs::File,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{look, store::StoreError};

/// What it takes from the disk.
const BYTES: u64 = 2 << 20;
/// So much more must be free before it is made anew: a disk that is almost full stays with what it has.
const SPARE_BYTES: u64 = 1 << 20;
/// What one more page may take of the disk: two of sled's segments and a sidecar.
const PAGE_BYTES: u64 = 2 << 20;

/// What the outbox needs of a disk beside the reserve, so that nothing has to wait: the ballast can be made, and a page captured.
pub(super) const BESIDE_THE_RESERVE_BYTES: u64 = BYTES + SPARE_BYTES + PAGE_BYTES;

/// What the disk has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// For another page.
    Enough,
    /// Another page might leave less than the reserve.
    OnlyTheReserve,
    /// For acks at best: there was no room for the ballast.
    None,
}

fn path(outbox: &Path) -> PathBuf {
    outbox.join("ballast")
}

/// Whether it was made and not given up.
pub(super) fn is_there(outbox: &Path) -> bool {
    path(outbox).exists()
}

/// Gives it up; `false` when there was none.
pub(super) fn give_up(outbox: &Path) -> bool {
    let given_up = std::fs::remove_file(path(outbox)).is_ok();
    if given_up {
        tracing::warn!(outbox = %outbox.display(), "the disk is full: its ballast is given up, nothing is captured until there is room again");
    }
    given_up
}

/// Does something that the disk may be too full for, and once more with what the ballast gives.
pub(super) fn or_without<T>(outbox: &Path, work: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    match work() {
        Err(error) if is_full(&error) && give_up(outbox) => work(),
        done => done,
    }
}

/// What did not open on a disk without room may only have lacked room: that is told, and is no damage.
pub(super) fn may_be_damage(outbox: &Path, what: &str) -> Result<(), StoreError> {
    match look::disk(outbox) {
        Ok(disk) if disk.free_bytes < SPARE_BYTES || disk.free_inodes == Some(0) => {
            let context = format!("opening {} on a full disk ({what})", outbox.display());
            Err(StoreError::Io { context, cause: io::ErrorKind::StorageFull.into() })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether an error is that of a full disk.
pub(super) fn is_full(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { cause, .. } if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

/// Looks what there is room for, and makes the ballast where it is missing and the disk has room for it.
pub(super) fn room(outbox: &Path, reserve_bytes: u64) -> Room {
    // A disk that does not say how much is free is told full when it is.
    let Ok(disk) = look::disk(outbox) else { return Room::Enough };
    let is_there = std::fs::metadata(path(outbox)).is_ok_and(|found| found.len() == BYTES && found.blocks() * 512 >= BYTES);
    if !is_there {
        if disk.free_bytes < BYTES + SPARE_BYTES {
            return Room::None;
        }
        if let Err(error) = make(outbox) {
            tracing::debug!(outbox = %outbox.display(), %error, "the ballast cannot be made");
            let _ = std::fs::remove_file(path(outbox));
            return Room::None;
        }
    }
    let free_bytes = look::disk(outbox).map_or(disk.free_bytes, |disk| disk.free_bytes);
    if disk.free_inodes == Some(0) {
        return Room::None;
    }
    if free_bytes < reserve_bytes.saturating_add(PAGE_BYTES) { Room::OnlyTheReserve } else { Room::Enough }
}

/// Takes real blocks: a hole would be no ballast.
fn make(outbox: &Path) -> io::Result<()> {
    let mut file = File::create(path(outbox))?;
    match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BYTES) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
            for _ in 0..BYTES >> 13 {
                file.write_all(&[0x5a; 1 << 13])?;
            }
            file.sync_data()
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_of_real_blocks_and_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(room(dir.path(), 0), Room::Enough);
        assert!(std::fs::metadata(path(dir.path())).unwrap().blocks() * 512 >= BYTES);
        assert!(give_up(dir.path()));
        assert!(!give_up(dir.path()));
        // A hole of its size is none.
        File::create(path(dir.path())).unwrap().set_len(BYTES).unwrap();
        assert_eq!(room(dir.path(), 0), Room::Enough);
        assert!(std::fs::metadata(path(dir.path())).unwrap().blocks() * 512 >= BYTES);
        assert_eq!(room(dir.path(), u64::MAX), Room::OnlyTheReserve);
    }
}
