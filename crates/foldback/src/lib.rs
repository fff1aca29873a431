//! Foldback: an event-sourced engine for AI workflows.
//!
//! The one crate to import. It re-exports the five it is made of and wires them:
//! [`core`] (facts and the fold), [`ows`] (definitions as data), [`store`] (the log), [`engine`]
//! (does what is owed), [`connectors`] (http, models, processes).

pub mod code;
pub mod erasure;
pub mod exchange;
pub mod library;
pub mod programs;
pub mod streams;

pub use foldback_connectors as connectors;
pub use foldback_core as core;
pub use foldback_engine as engine;
pub use foldback_ows as ows;
pub use foldback_store as store;
pub use library::Engine;
pub use streams::EventStore;

/// The code in the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
