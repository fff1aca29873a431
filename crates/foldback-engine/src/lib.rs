//! Foldback's engine: one loop that does what states owe.
//!
//! A [`Session`] is what a process has: it owns the shard and drives workflows with an
//! [`engine::Engine`], or it is a client of the process that does, and takes over when that one
//! is gone. The engine knows programs and step kinds by registries alone; it never learns what a
//! model, a socket or a definition file is.
//!
//! Invariants: nothing leaves before its commit; a `write` starts after its start is on disk;
//! all work is derived from states, so there is no second path for recovery; no step kind runs but
//! behind the mask that keeps secrets out of what it gives back ([`veil`]).

pub mod branch;
pub mod command;
pub mod engine;
pub mod kind;
pub mod load;
pub mod machine;
pub mod projections;
pub mod projector;
pub mod session;
pub mod veil;
pub mod verify;

mod asked;
mod hearing;
mod ids;
mod live;
mod pasts;
mod perform;

pub use branch::{BranchError, Branching, Prepared, next_fork_id, plan_retry, prepare_fork, prepare_retry};
pub use command::{Accepted, Answer, Back, Command, Expect, Followed, Fork, Refusal, Start};
pub use ids::text_id;
pub use kind::{Call, Looking, Performing, Progress, Registry, Remains, StepKind};
pub use live::new_event;
pub use load::{LoadError, events_of, hydrate, state_at, state_seen};
pub use machine::{Attempt, Clocks, Look, Machine, ThisMachine};
pub use session::{Observer, Rest, Session, SessionError};
pub use veil::Veiled;
pub use verify::{Verified, verify, verify_own};

use std::sync::Arc;

use foldback_core::projection::Projection;
use foldback_core::{Program, Redaction};
use foldback_store::Definition;

/// Makes programs of definitions.
pub trait Programs: Send + Sync {
    /// The program of a stored definition.
    ///
    /// # Errors
    /// Why it cannot be run here, for a person.
    fn program(&self, definition: &Definition) -> Result<Arc<dyn Program>, String>;

    /// The projection that a file describes.
    ///
    /// # Errors
    /// Why it cannot be folded here, for a person.
    fn projection(&self, _source: &str) -> Result<Box<dyn Projection>, String> {
        Err("this process has no projections but the built-in ones".to_owned())
    }

    /// What is redacted of everything that comes into any workflow here, beside what its definition
    /// says.
    fn redaction(&self) -> Redaction {
        Redaction::default()
    }
}
