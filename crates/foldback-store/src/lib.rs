//! Foldback's log: what is remembered, and how it is asked for.
//!
//! This crate knows SQL and bytes; it does not know what an event means. It never folds, never
//! decides, and never starts work. What is acknowledged is on disk.

mod contract;

pub use contract::*;
