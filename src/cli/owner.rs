//! Root acts as the owner of the data directory: what a command writes there must stay the daemon's own.
//!
//! The one rule: before any thread is started. To the kernel a thread is somebody, and those that it starts are the same.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::{
    fs::{Gid, Uid},
    process::geteuid,
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::CliError;

/// Whether a directory is there and belongs to whom we act as.
pub(super) fn owns(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.uid() == geteuid().as_raw())
}

/// For good, where we are root and the directory is there and another user's.
pub(super) fn become_owner_of(data_dir: &Path) -> Result<(), CliError> {
    let Ok(found) = fs::metadata(data_dir) else { return Ok(()) };
    if !geteuid().is_root() || found.uid() == 0 {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    let done = set_thread_groups(&[gid])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    done.map_err(|cause| CliError::Failed {
        what: format!("cannot act as the owner of {}, user {}", data_dir.display(), found.uid()),
        cause: Some(std::io::Error::from(cause).into()),
    })
}
