//! SQLite's errors, told to a person: the file, what went wrong, what to do.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

use crate::contract::{StoreError, StoreResult};

/// An error of a store at work.
pub(crate) fn sql<T>(path: &Path, result: rusqlite::Result<T>) -> StoreResult<T> {
    result.map_err(|e| of_work(path, &e))
}

/// An error of a store at work.
pub(crate) fn of_work(path: &Path, error: &rusqlite::Error) -> StoreError {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Some("free some space; what was acknowledged is safe"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Some("another program holds the file; close it and try again")
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            Some("the file is damaged: `foldback audit` says where; keep a copy before anything else")
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Some("make the file and its directory writable")
        }
        Some(ErrorCode::SystemIoFailure) => Some(
            "the disk or its file system failed, or is full, or `ulimit -f` bounds the file; see the system log",
        ),
        _ => None,
    };
    StoreError {
        message: format!("{}: {error}", path.display()),
        hint: hint.map(Into::into),
        is_input: false,
    }
}

/// An error while a file is opened: more often than not, the file is another than was meant.
pub(crate) fn of_opening(path: &Path, error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => StoreError {
            message: format!("{} is no SQLite database", path.display()),
            hint: Some("name another file with --store sqlite:PATH".into()),
            is_input: true,
        },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) if let Some(link) = link_beside(path) => {
            is_link(&link)
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => StoreError {
            message: format!("cannot open {}: {}", path.display(), system_reason(path)),
            hint: Some("check the path and its permissions".into()),
            is_input: true,
        },
        Some(ErrorCode::ReadOnly) => read_only(path),
        // Not even `audit` gets in.
        Some(ErrorCode::DatabaseCorrupt) => StoreError {
            message: format!("{} is damaged or cut off: {error}", path.display()),
            hint: Some(
                "put back a copy; without one, keep the file: `sqlite3 FILE .recover` saves rows".into(),
            ),
            is_input: false,
        },
        _ => of_work(path, error),
    }
}

/// The write-ahead log of a database, or its index, where a link stands in its place: SQLite follows none.
pub(crate) fn link_beside(path: &Path) -> Option<PathBuf> {
    // SQLite names them by the database's own place.
    let path = std::fs::canonicalize(path).ok()?;
    let beside = ["-wal", "-shm"].map(|end| {
        let mut name = path.clone().into_os_string();
        name.push(end);
        PathBuf::from(name)
    });
    beside.into_iter().find(|path| std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()))
}

/// A link where a file of the store must be.
pub(crate) fn is_link(link: &Path) -> StoreError {
    StoreError {
        message: format!("{} is a link: a store's files are never found through one", link.display()),
        hint: Some(
            "put the file itself there, or remove the link where it leads to nothing of the store".into(),
        ),
        is_input: true,
    }
}

/// A file that cannot be written, where it must be.
pub(crate) fn read_only(path: &Path) -> StoreError {
    StoreError {
        message: format!("{} is read-only", path.display()),
        hint: Some("make the file and its directory writable, or name another with --store".into()),
        is_input: true,
    }
}

/// A file that was not closed by its last owner, where what it left cannot be taken up.
pub(crate) fn not_closed(path: &Path) -> StoreError {
    StoreError {
        message: format!("{} was not closed when it was last used, and is read-only", path.display()),
        hint: Some(
            "make its directory writable, or copy the file and the one ending in -wal to where you may write"
                .into(),
        ),
        is_input: true,
    }
}

/// A row that is not what was written.
pub(crate) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError {
        message: format!("{}: {what}", path.display()),
        hint: Some("`foldback audit` says what is broken".into()),
        is_input: false,
    }
}

/// SQLite says "unable to open database file"; the system knows why. It is asked without opening
/// the file: closing it again would take away the locks that SQLite holds on it in this process.
fn system_reason(path: &Path) -> String {
    match std::fs::metadata(path) {
        // It was to be made.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            "it cannot be made: its directory cannot be written".into()
        }
        Err(e) => e.to_string(),
        Ok(_) => "permission denied, or its directory cannot be written".into(),
    }
}
