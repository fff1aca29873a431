//! The place of a store: the names of its files, and whether they still name the files that were opened.
//!
//! A database that is moved, removed or replaced under its owner takes every later commit with it, a
//! write-ahead log that is cut takes those that were told to be durable, and a lock file that is replaced excludes nobody. Both go on without an error; so the owner compares.
//!
//! Invariant: no file is opened here. Closing it would take away the locks that SQLite holds on it in this
//! process.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::lock;
use crate::contract::{StoreError, StoreResult};

/// The file that a name stood for: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64, u64);

impl Identity {
    #[cfg(unix)]
    pub(crate) fn of(file: &Metadata) -> Identity {
        use std::os::unix::fs::MetadataExt;
        Identity(file.dev(), file.ino())
    }

    /// Where the system has no inodes, every file is the same: nothing is noticed.
    #[cfg(not(unix))]
    pub(crate) fn of(_file: &Metadata) -> Identity {
        Identity(0, 0)
    }
}

/// Up to here SQLite itself cuts a write-ahead log that grew longer, in bytes; the writer's connection is
/// set so.
pub(crate) const LOG_KEPT_BYTES: u64 = 64 * 1024 * 1024;

/// A file beside the database: while a connection that wrote is open, it is never shorter than it was.
struct Beside {
    path: PathBuf,
    identity: Identity,
    bytes: u64,
}

/// A store's files, by name and by what stood there.
pub(crate) struct Place {
    /// The database, without links.
    pub(crate) path: PathBuf,
    database: Identity,
    /// The lock file, while this store is owned here.
    lock: Mutex<Option<Identity>>,
    /// The write-ahead log and its index, once something was written here.
    log: Mutex<Vec<Beside>>,
}

impl Place {
    /// The place of a database that was found at a path without links.
    pub(crate) fn of(path: PathBuf) -> StoreResult<Place> {
        let found = std::fs::symlink_metadata(&path);
        let database = Identity::of(&found.map_err(|e| gone(&path, &e.to_string()))?);
        Ok(Place { path, database, lock: Mutex::default(), log: Mutex::default() })
    }

    /// Notes the lock file that is held; `None` when it is let go. Whoever owned the store meanwhile may
    /// have cut its log.
    pub(crate) fn locked(&self, held: Option<Identity>) {
        *super::lock(&self.lock) = held;
        super::lock(&self.log).clear();
    }

    /// Notes the write-ahead log and its index, which exist from the first write of a connection until its end.
    /// Without the index two processes would each make one, and write over each other.
    pub(crate) fn written(&self) {
        let mut log = super::lock(&self.log);
        if log.is_empty() {
            let names = ["-wal", "-shm"].map(|ending| beside(&self.path, ending));
            let found = names.into_iter().filter_map(|path| {
                let found = std::fs::symlink_metadata(&path).ok()?;
                Some(Beside { path, identity: Identity::of(&found), bytes: kept(found.len()) })
            });
            log.extend(found);
        }
    }

    /// Cuts the write-ahead log, by the owner's own word; nobody compares meanwhile.
    pub(crate) fn cutting<T>(&self, cut: impl FnOnce() -> T) -> T {
        let mut log = super::lock(&self.log);
        let done = cut();
        log.iter_mut().for_each(|file| file.bytes = 0);
        done
    }

    /// Whether each name still stands for the file that was opened, and none of these was cut short.
    ///
    /// # Errors
    /// One does not: nothing may be written, and nothing that changes the world may be begun.
    pub(crate) fn still_there(&self) -> StoreResult<()> {
        let held = super::lock(&self.lock).map(|held| (lock::place(&self.path), held));
        is_there(&self.path, self.database, 0)?;
        if let Some((path, identity)) = held {
            is_there(&path, identity, 0)?;
        }
        for file in &mut *super::lock(&self.log) {
            // As long as it is now it stays, but for what its owner cuts.
            file.bytes = kept(is_there(&file.path, file.identity, file.bytes)?);
        }
        Ok(())
    }
}

/// A name still stands for a file, which is not shorter than it was: how long it is, in bytes.
fn is_there(path: &Path, identity: Identity, bytes: u64) -> StoreResult<u64> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if Identity::of(&found) != identity => Err(gone(path, "another file has its name now")),
        Ok(found) if found.len() < bytes => {
            Err(gone(path, &format!("it was cut from {bytes} to {} bytes", found.len())))
        }
        Ok(found) => Ok(found.len()),
        Err(error) => Err(gone(path, &error.to_string())),
    }
}

/// How much of so long a file nobody but its owner may take away, in bytes.
fn kept(bytes: u64) -> u64 {
    bytes.min(LOG_KEPT_BYTES)
}

/// The name of a file beside a database.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn gone(path: &Path, why: &str) -> StoreError {
    StoreError {
        message: format!("{} was moved, removed, replaced or cut while it was in use: {why}", path.display()),
        hint: Some(
            "nothing was written since; put the files of the store back under their names, then `foldback resume`"
                .into(),
        ),
        is_input: false,
    }
}

#[cfg(test)]
mod tests {
    use super::LOG_KEPT_BYTES;
    use crate::sqlite::schema::WRITE_PRAGMAS;

    #[test]
    fn a_log_is_kept_as_long_as_sqlite_keeps_it() {
        assert!(
            WRITE_PRAGMAS.contains(&format!("journal_size_limit = {LOG_KEPT_BYTES};")),
            "{WRITE_PRAGMAS}"
        );
    }
}
