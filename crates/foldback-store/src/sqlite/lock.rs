//! Ownership: a lock on a file beside the store, free the moment its holder dies.
//!
//! The lock says who may be the owner; the epoch, raised with each taking, keeps out who only
//! believes to be. The lock file is never removed: a lock on a removed file excludes nobody.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error;
use crate::contract::{StoreError, StoreResult};

/// How long somebody who looks whether the lock is taken may be in the way.
const LOOK: Duration = Duration::from_millis(5);

/// The lock file of a store: `foldback.db-lock`.
pub(crate) fn place(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    name.into()
}

/// Takes the lock, or says that another has it.
pub(crate) fn take(path: &Path, owner: &str) -> StoreResult<Option<File>> {
    let place = place(path);
    let failed = |e: std::io::Error| match e.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => error::read_only(path),
        _ => StoreError {
            message: format!("cannot lock {}: {e}", place.display()),
            hint: Some("the file system must know locks".into()),
            is_input: false,
        },
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&place)
        .map_err(failed)?;
    let tried = match file.try_lock() {
        // It may be somebody who only looks: that takes no time.
        Err(TryLockError::WouldBlock) => {
            std::thread::sleep(LOOK);
            file.try_lock()
        }
        other => other,
    };
    match tried {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    // For people who look: who has it. Nothing depends on it.
    let _ = file.set_len(0).and_then(|()| file.rewind());
    let _ = writeln!(file, "{owner} (process {})", std::process::id());
    Ok(Some(file))
}

/// Whether somebody has the lock. Nothing is made or written; who takes the lock in this very moment has
/// to try again, as [`take`] does.
pub(crate) fn is_taken(path: &Path) -> StoreResult<bool> {
    let place = place(path);
    let failed = |e: std::io::Error| StoreError {
        message: format!("cannot look at {}: {e}", place.display()),
        hint: None,
        is_input: false,
    };
    let file = match File::open(&place) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed(e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}
