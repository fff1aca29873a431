//! How a command ends: well, with "no", or with an error that a person can act upon.
//!
//! The exit codes are a contract: 0 done, 1 the workflow failed or the answer is no, 2 bad usage
//! or input, 3 the store or another part of the machine failed.

use std::fmt;

use foldback::core::report::Unresolved;
use foldback::store::StoreError;

/// The end of a command that did what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The workflow failed, or the answer is no.
    No,
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::No => 1,
        }
    }
}

/// Why a command could not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The exit code.
    pub code: u8,
    /// What is wrong, with the place.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Error {
    /// Bad usage or input: exit code 2.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error { code: 2, message: message.into(), hint: Some(hint.into()) }
    }

    /// The store or another part of the machine failed: exit code 3.
    pub fn machine(message: impl Into<String>) -> Error {
        Error { code: 3, message: message.into(), hint: None }
    }

    /// The answer is no: exit code 1.
    pub fn no(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error { code: 1, message: message.into(), hint: Some(hint.into()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        Error { code: if error.is_input { 2 } else { 3 }, message: error.message, hint: error.hint }
    }
}

impl From<Unresolved> for Error {
    fn from(error: Unresolved) -> Error {
        Error::input(error.message, error.hint)
    }
}
