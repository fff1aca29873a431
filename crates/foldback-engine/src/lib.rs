//! Foldback's engine: one loop that does what states owe.

pub mod kind;

pub use kind::{Call, Performing, Progress, Registry, StepKind};
