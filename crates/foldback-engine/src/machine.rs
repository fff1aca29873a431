//! The machine an engine runs on, as far as it can be another one: its clock, its chance, and where
//! attempts run. The loop asks for all three here and nowhere else, so that a simulation can drive
//! the engine itself through time, crashes and late reports.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use foldback_core::{Key, Micros};

use crate::engine::Message;
use crate::ids;
use crate::kind::{Call, Looking};
use crate::perform::{look, perform};
use crate::veil::Veiled;

/// What an engine runs on.
pub trait Machine: Send + Sync {
    /// Both clocks, read at once.
    fn clocks(&self) -> Clocks;

    /// Chance, for the ids of events. Asked once by each engine.
    fn seed(&self) -> u64;

    /// How many files all attempts together may keep open.
    fn files(&self) -> usize {
        usize::MAX
    }

    /// Starts an attempt and returns at once. What becomes of it is sent to `report_to`.
    fn start(&self, attempt: Attempt, report_to: Sender<Message>);

    /// Looks for what is left of an attempt and returns at once. What is found is sent to `report_to`.
    fn look(&self, look: Look, report_to: Sender<Message>);
}

/// A look for what is left of an attempt whose engine died.
pub struct Look {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// The step.
    pub key: Key,
    /// Which attempt.
    pub attempt: u32,
    /// The look itself.
    pub looking: Looking,
}

/// The two clocks of a machine, read at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// The time of day, in microseconds since 1970. It may be set forward and back; it is what logs hold.
    pub wall: Micros,
    /// Microseconds that have passed since a fixed moment, those in which the machine slept included.
    /// Nobody sets it, and only differences mean anything: delays go by it.
    pub steady: Micros,
}

/// An attempt that is to start now: the log allows it.
pub struct Attempt {
    /// What performs it; `None` when nothing of this name is registered.
    pub kind: Option<Veiled>,
    /// The name of the step kind.
    pub kind_name: Arc<str>,
    /// What is to be performed.
    pub call: Call,
    /// Told when nobody wants it any more: it may stop then, and reports all the same. Dropped
    /// without a word, it means nothing.
    pub stop: tokio::sync::oneshot::Receiver<()>,
    /// The number of this flight in its engine. Its report names it.
    pub flight: u64,
}

/// The machine this process runs on.
pub struct ThisMachine {
    pool: tokio::runtime::Handle,
    files: usize,
}

/// Files that the store, the runtime and the command itself keep open.
const OWN_FILES: usize = 64;

/// How many files this process may open (`ulimit -n`).
fn files_allowed() -> usize {
    #[cfg(unix)]
    if let Some(allowed) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        return usize::try_from(allowed).unwrap_or(usize::MAX);
    }
    usize::MAX
}

impl ThisMachine {
    /// This machine, with the pool on which attempts run.
    pub fn new(pool: tokio::runtime::Handle) -> ThisMachine {
        ThisMachine { pool, files: files_allowed().saturating_sub(OWN_FILES) }
    }
}

impl Machine for ThisMachine {
    fn clocks(&self) -> Clocks {
        Clocks { wall: ids::now(), steady: ids::steady() }
    }

    fn seed(&self) -> u64 {
        ids::seed()
    }

    fn files(&self) -> usize {
        self.files
    }

    fn start(&self, attempt: Attempt, report_to: Sender<Message>) {
        perform(&self.pool, attempt, report_to);
    }

    fn look(&self, at: Look, report_to: Sender<Message>) {
        look(&self.pool, at, report_to);
    }
}
