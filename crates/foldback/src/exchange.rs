//! A workflow as a file: its log, its definition and its values, as JSON lines.
//!
//! Invariants: a file that was imported is exported again byte for byte; every line has exactly
//! one spelling; the last line of a document holds a hash of all bytes of it, so that a file that was
//! cut or changed is noticed. The file of a fork holds the documents of its ancestors before its own.
//! The format is told in `docs/export.md`.
//!
//! The rooms: `lines` (the format), [`export`](fn@export); `reader` (a file, line by line), `document`
//! (its judge), `keys` (what an event names) and [`import`](fn@import).

use std::fmt;

use foldback_engine::LoadError;
use foldback_store::StoreError;

mod document;
mod export;
mod import;
mod keys;
mod lines;
mod reader;

pub use export::{Exported, export};
pub use import::{Imported, import};

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events.
    pub events: u64,
    /// Values that lie beside the log.
    pub payloads: u64,
}

/// Why a workflow could not be exported or imported.
#[derive(Debug)]
pub enum ExchangeError {
    /// The workflow or the file is not fit for it.
    Refused {
        /// Why, with the line of a file.
        message: String,
        /// What to do next.
        hint: String,
    },
    /// The file cannot be read or written.
    Io(std::io::Error),
    /// The store failed.
    Store(StoreError),
}

impl ExchangeError {
    fn refused(message: impl Into<String>, hint: impl Into<String>) -> ExchangeError {
        ExchangeError::Refused { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeError::Refused { message, .. } => f.write_str(message),
            ExchangeError::Io(error) => error.fmt(f),
            ExchangeError::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ExchangeError {}

impl From<StoreError> for ExchangeError {
    fn from(error: StoreError) -> ExchangeError {
        ExchangeError::Store(error)
    }
}

impl From<std::io::Error> for ExchangeError {
    fn from(error: std::io::Error) -> ExchangeError {
        ExchangeError::Io(error)
    }
}

impl From<LoadError> for ExchangeError {
    fn from(error: LoadError) -> ExchangeError {
        match error {
            LoadError::Store(error) => ExchangeError::Store(error),
            erased @ LoadError::Erased { .. } => {
                ExchangeError::refused(erased.to_string(), "what is erased is gone")
            }
            LoadError::Quarantined { version, reason } => ExchangeError::refused(
                format!("version {version}: {reason}"),
                "`foldback audit` tells all that is wrong with a log",
            ),
        }
    }
}
