//! Ownership: a lock on a file beside the store, free the moment its holder dies.
//!
//! The lock says who may be the owner; the epoch, raised with each taking, keeps out who only
//! believes to be. The lock file is never removed: a lock on a removed file excludes nobody. It is
//! opened through no link, and nothing that is not a line of ours is taken out of it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::error;
use super::place::{Identity, Place};
use crate::contract::{StoreError, StoreResult};

/// How long somebody who looks whether the lock is taken may be in the way.
const LOOK: Duration = Duration::from_millis(5);

/// The longest line that is taken for one of ours.
const LINE_MAX_BYTES: u64 = 4096;

/// The lock file of a store: `foldback.db-lock`.
pub(crate) fn place(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-lock");
    name.into()
}

/// A store's lock, until it is dropped.
pub(crate) struct Held {
    place: Arc<Place>,
    _file: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the file is closed: whoever has it next may be of this process too.
        self.place.locked(None);
    }
}

/// Takes the lock of a place and notes which file it is, or says that another has it.
pub(crate) fn hold(place: &Arc<Place>, owner: &str) -> StoreResult<Option<Held>> {
    let Some(file) = take(&place.path, owner)? else { return Ok(None) };
    let identity = file.metadata().map_err(|e| cannot_lock(&place.path, &e))?;
    place.locked(Some(Identity::of(&identity)));
    Ok(Some(Held { place: place.clone(), _file: file }))
}

/// Takes the lock, or says that another has it.
pub(crate) fn take(path: &Path, owner: &str) -> StoreResult<Option<File>> {
    let failed = |e: std::io::Error| cannot_lock(path, &e);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    through_no_link(&mut options, path);
    let mut file = options.open(place(path)).map_err(failed)?;
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
    if holds_our_line(&mut file) {
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = writeln!(file, "{owner} (process {})", std::process::id());
    }
    Ok(Some(file))
}

/// True while somebody has the lock; `None` where this process may not look. Nothing is made or written; a
/// process that takes the lock in this very moment has to try again, as [`take`] does.
pub(crate) fn is_taken(path: &Path) -> StoreResult<Option<bool>> {
    let place = place(path);
    let failed = |e: std::io::Error| StoreError {
        message: format!("cannot look at {}: {e}", place.display()),
        hint: None,
        is_input: false,
    };
    let mut options = OpenOptions::new();
    options.read(true);
    through_no_link(&mut options, path);
    let file = match options.open(&place) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Some(false)),
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(false)),
        Err(TryLockError::WouldBlock) => Ok(Some(true)),
        Err(TryLockError::Error(e)) => Err(failed(e)),
    }
}

/// A lock file is made as open to others as the database is, and not found through a link: that would
/// lock, and make, a file elsewhere.
#[cfg(unix)]
fn through_no_link(options: &mut OpenOptions, path: &Path) {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    let mode = std::fs::metadata(path).map_or(0o600, |database| database.mode() & 0o666);
    options.mode(mode).custom_flags(libc::O_NOFOLLOW);
}

#[cfg(not(unix))]
fn through_no_link(_options: &mut OpenOptions, _path: &Path) {}

/// Whether a lock file is empty, or holds the line of an owner before.
fn holds_our_line(file: &mut File) -> bool {
    let mut line = String::new();
    let read = (&*file).take(LINE_MAX_BYTES + 1).read_to_string(&mut line);
    let is_line = line.ends_with(")\n") && line.contains(" (process ") && line.lines().count() == 1;
    read.is_ok_and(|bytes| bytes as u64 <= LINE_MAX_BYTES) && (line.is_empty() || is_line)
}

fn cannot_lock(path: &Path, error: &std::io::Error) -> StoreError {
    let place = place(path);
    let is_link = std::fs::symlink_metadata(&place).is_ok_and(|found| found.is_symlink());
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => error::read_only(path),
        _ if is_link => StoreError {
            message: format!("{} is a link: a lock file is never found through one", place.display()),
            hint: Some("remove the link; the lock file is made anew".into()),
            is_input: false,
        },
        _ => StoreError {
            message: format!("cannot lock {}: {error}", place.display()),
            hint: Some("the file system must know locks".into()),
            is_input: false,
        },
    }
}
