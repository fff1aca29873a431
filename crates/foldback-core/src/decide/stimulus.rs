//! The words: what the world, a person or the engine says to a workflow. It says what each means and
//! judges none of them.

use std::sync::Arc;

use serde_json::Value;

use crate::Version;
use crate::change::Changes;
use crate::event::{Lineage, Raised, Verdict};
use crate::hash::Hash;
use crate::key::Key;
use crate::step::{Failure, Outcome};
use crate::undo::Armed;
use crate::value::Slot;

/// What the world says to a workflow.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // one is made for each word and moved once; a box would cost more
pub enum Stimulus {
    /// It begins.
    Start {
        /// The hash of its definition.
        definition: Hash,
        /// What a person calls the definition.
        name: String,
        /// The file that the definition was loaded from, where there was one.
        file: Option<String>,
        /// Its input.
        input: Value,
        /// Where it comes from, for a fork.
        lineage: Option<Lineage>,
    },
    /// An attempt reports.
    Report {
        /// The step.
        key: Key,
        /// Which attempt.
        attempt: u32,
        /// How it ended.
        outcome: Outcome,
        /// How long it took, in ms.
        latency_ms: u64,
    },
    /// An attempt begins: a first one that did not begin at once, or one after a delay.
    Begin {
        /// The step.
        key: Key,
    },
    /// An attempt has begun and nobody performs it: its engine died.
    Lost {
        /// The step.
        key: Key,
        /// Which attempt.
        attempt: u32,
        /// The words for what was found of it, where somebody looked: they become part of the reason.
        found: Option<String>,
    },
    /// A moment came.
    TimerDue {
        /// The timer.
        key: Key,
    },
    /// A person settles an unknown outcome.
    Resolve {
        /// The step.
        key: Key,
        /// Its output if it landed, `None` if it did not happen.
        landed: Option<Value>,
    },
    /// A person reopens a workflow that failed or was parked.
    Reopen {
        /// Why, for the log.
        reason: String,
        /// What is to be forgotten: [`Run::failures`], or what was open where it goes back to.
        again: Vec<Key>,
        /// The version at which it goes on, where that is an earlier one: the state was rewound there.
        back_to: Option<Version>,
        /// What is changed there.
        changes: Option<Box<Changes>>,
    },
    /// A fork begins, on the state of its parent at the cut.
    Fork {
        /// Where it comes from.
        lineage: Lineage,
        /// What is changed.
        changes: Box<Changes>,
    },
    /// A step takes the outcome that was recorded for it.
    Reuse {
        /// The step.
        key: Key,
        /// In whose log it stands.
        workflow: Arc<str>,
        /// At which version.
        version: Version,
        /// What it was.
        outcome: Result<Slot, Failure>,
    },
    /// A `write` waits for a person to say what becomes of it.
    Hold {
        /// The step.
        key: Key,
        /// Why its outcome cannot be taken.
        reason: String,
    },
    /// A policy or a person says what becomes of a `write`.
    Settle {
        /// The step.
        key: Key,
        /// What becomes of it.
        verdict: Verdict,
        /// What it is taken to have given, for a stub.
        output: Option<Value>,
        /// Why.
        reason: String,
    },
    /// A person wants nothing more to begin.
    Pause {
        /// Why.
        reason: String,
    },
    /// A person lets it go on.
    Unpause {
        /// Why.
        reason: String,
        /// Budgets that are raised.
        raised: Vec<Raised>,
    },
    /// Somebody says something to the workflow.
    Signal {
        /// The name.
        name: Arc<str>,
        /// The data.
        data: Value,
        /// The workflow whose event it is, where a person did not send it.
        source: Option<Arc<str>>,
        /// The sender's id for it.
        event_id: Option<Arc<str>>,
        /// The failure that it reports.
        error: Option<Box<Failure>>,
    },
    /// A person ends the workflow.
    Cancel {
        /// Why.
        reason: String,
    },
    /// A person wants what was done taken back.
    Compensate {
        /// Why.
        reason: String,
        /// What was armed after this version is left; `None`: nothing is.
        from: Option<Version>,
        /// What was armed up to this version is left; `None`: nothing is.
        down_to: Option<Version>,
        /// What failed in an undo, and is met anew: [`Run::failures`] there.
        again: Vec<Key>,
    },
    /// The next undo of a compensation, as it was read from the log.
    Undo {
        /// Of which compensation.
        scope: Key,
        /// Where it was armed.
        version: Version,
        /// What was armed there.
        armed: Box<Armed>,
    },
    /// Nothing is left to be taken back there.
    EndCompensation {
        /// Of which compensation.
        scope: Key,
    },
    /// A caller records a domain event.
    Record {
        /// Its type.
        event_type: Arc<str>,
        /// Its data.
        data: Value,
    },
    /// Nothing new: the program is owed a turn. Said to every workflow that was just folded.
    Continue,
}

impl Stimulus {
    /// The step or timer that it speaks to, if it speaks to one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Stimulus::Report { key, .. }
            | Stimulus::Begin { key }
            | Stimulus::Lost { key, .. }
            | Stimulus::TimerDue { key }
            | Stimulus::Resolve { key, .. }
            | Stimulus::Reuse { key, .. }
            | Stimulus::Hold { key, .. }
            | Stimulus::Settle { key, .. } => Some(key),
            Stimulus::Start { .. }
            | Stimulus::Reopen { .. }
            | Stimulus::Fork { .. }
            | Stimulus::Pause { .. }
            | Stimulus::Unpause { .. }
            | Stimulus::Signal { .. }
            | Stimulus::Cancel { .. }
            | Stimulus::Compensate { .. }
            | Stimulus::Undo { .. }
            | Stimulus::EndCompensation { .. }
            | Stimulus::Record { .. }
            | Stimulus::Continue => None,
        }
    }
}
