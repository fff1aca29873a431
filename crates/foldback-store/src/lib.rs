//! Foldback's log: what is remembered, and how it is asked for.
//!
//! This crate knows SQL and bytes; it does not know what an event means. It never folds, never
//! decides, and never starts work. What is acknowledged is on disk.
//!
//! The rooms: `contract` (the words), `judge` (whether a commit may be written, and what it
//! becomes; the same for every store), [`chain`] (whether a log is what was written),
//! [`forgetting`] (what may be taken out again, and what stands in its place), `projections` (which
//! there are), `memory`
//! (the short reference), `sqlite` (the store), [`conformance`] (the cases that every store
//! passes), [`raw`] (what the bare database can do, to measure against).

use std::sync::Arc;

pub mod chain;
pub mod conformance;
pub mod forgetting;
pub mod raw;

mod contract;
mod filter;
mod judge;
mod memory;
mod projections;
mod sqlite;

pub use contract::*;
pub use forgetting::{Erasure, Forget, NotForgotten, Pruned, Pruning, Swept, Tombstone};
pub use projections::{Projected, ProjectionFailure, ProjectionRow};

/// Opens a store, and makes it where there is none: `sqlite:PATH` (or just a path), or `memory:`.
///
/// # Errors
/// When the place is no store of ours, cannot be written, or is of a kind that is not known.
pub fn open(url: &str) -> StoreResult<Arc<dyn Store>> {
    match place_of(url)? {
        Place::Memory => Ok(Arc::new(memory::Memory::new())),
        Place::Sqlite(path) => Ok(Arc::new(sqlite::Sqlite::open(path, sqlite::Missing::Create)?)),
    }
}

/// Opens a store that is there already: what commands that only look use, so that a mistyped path
/// makes no empty file.
///
/// # Errors
/// As [`open`], and when there is no store at the place.
pub fn open_existing(url: &str) -> StoreResult<Arc<dyn Store>> {
    match place_of(url)? {
        Place::Memory => Ok(Arc::new(memory::Memory::new())),
        Place::Sqlite(path) => Ok(Arc::new(sqlite::Sqlite::open(path, sqlite::Missing::Refuse)?)),
    }
}

enum Place<'a> {
    Memory,
    Sqlite(&'a str),
}

fn place_of(url: &str) -> StoreResult<Place<'_>> {
    let refuse =
        |message: String, hint: &str| Err(StoreError { message, hint: Some(hint.into()), is_input: true });
    if url == "memory:" || url == ":memory:" {
        return Ok(Place::Memory);
    }
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return refuse(
            "PostgreSQL stores are not built yet".into(),
            "use sqlite:PATH; PostgreSQL comes in a later chapter",
        );
    }
    let path = match url.strip_prefix("sqlite:") {
        // `sqlite://a.db` and `sqlite:///home/a.db` are what other tools write.
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        // A one-letter scheme may be a drive; a path with a colon can be written `sqlite:a:b`.
        None if url.split_once(':').is_some_and(|(scheme, _)| {
            scheme.len() > 1 && scheme.chars().all(|c| c.is_ascii_alphabetic())
        }) =>
        {
            return refuse(format!("unknown kind of store: {url}"), "use sqlite:PATH or memory:");
        }
        None => url,
    };
    if path.is_empty() {
        return refuse(
            format!("no path in the store {url:?}"),
            "write sqlite:PATH, for example sqlite:foldback.db",
        );
    }
    Ok(Place::Sqlite(path))
}
