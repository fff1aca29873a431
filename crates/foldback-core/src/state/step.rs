//! A step as the state knows it, and where it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Micros;
use crate::event::Undo;
use crate::hash::Hash;
use crate::step::{Effect, Failure, Recovery, RetryPolicy};
use crate::value::{Request, Slot};

/// A step as the state knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which step kind performs it.
    pub kind: Arc<str>,
    /// What it asks. Emptied when the step has ended: the log keeps it, the state need not.
    pub request: Request,
    /// The hash of kind and request.
    pub request_hash: Hash,
    /// The hash of what the program asked, where an edit changed the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_hash: Option<Hash>,
    /// What it does to the world.
    pub effect: Effect,
    /// What happens when its outcome is unknown.
    pub recovery: Option<Recovery>,
    /// How long one attempt may take, in ms.
    pub timeout_ms: Option<u64>,
    /// When it is tried again.
    pub retry: Option<RetryPolicy>,
    /// Where in the request which secret is put.
    pub secrets: BTreeMap<String, String>,
    /// Where the task stands in its definition.
    pub instance: Option<Arc<str>>,
    /// Whether its completion finishes its task.
    pub finishes: bool,
    /// How it is taken back once it has completed; gone when that is armed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Box<Undo>>,
    /// What those see that find out whether it happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Slot>,
    /// How often what stands here was taken back before it was asked for: part of its idempotency key.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
    /// Where it stands.
    pub status: StepStatus,
    /// Whether the program gave it up: it begins no further attempt.
    pub is_given_up: bool,
    /// Whether a `write` that is under [`Rules`] may be performed: it was said, and is a fact.
    #[serde(default, skip_serializing_if = "is_not")]
    pub is_released: bool,
    /// Attempts begun, with those before the workflow was reopened.
    pub attempts: u32,
    /// Attempts that began without the last one having reported: its process died.
    pub interruptions: u32,
    /// Repair rounds used.
    pub repairs: u32,
    /// Attempts whose outcome was unknown and which were sent again, by their recovery or by a person
    /// who found that they did not happen. None of them counts for the retry policy.
    pub unknowns: u32,
    /// Which variant of its request is tried; 0 is the request as it stands.
    pub variant: u32,
    /// Attempts that reported before this variant's first.
    pub attempts_before: u32,
    /// When the newest attempt began.
    pub began: Option<Micros>,
    /// When the next attempt is due, while it backs off, by the clock of the machine that saw the last fail.
    pub due: Option<Micros>,
    /// The delay before it, in microseconds.
    pub delay: Micros,
    /// What it answered.
    pub output: Option<Slot>,
    /// The answer that was rejected, for a repair round.
    pub rejected: Option<Slot>,
    /// Why it failed, or failed last.
    pub error: Option<Failure>,
}

fn is_first(generation: &u32) -> bool {
    *generation == 0
}

fn is_not(flag: &bool) -> bool {
    !*flag
}

impl Step {
    /// Whether it is what the program asks for with this hash.
    pub fn answers(&self, asked: &Hash) -> bool {
        self.program_hash.as_ref().unwrap_or(&self.request_hash) == asked
    }

    /// Whether it may have changed the world and nobody knows yet: a `write` under way, or one that
    /// would be sent again because its last outcome was unknown.
    pub fn is_in_doubt(&self) -> bool {
        let is_open = match self.status {
            StepStatus::Running | StepStatus::Unknown => true,
            StepStatus::Backoff => self.unknowns > 0,
            StepStatus::Pending
            | StepStatus::Held
            | StepStatus::Completed
            | StepStatus::Failed
            | StepStatus::Cancelled => false,
        };
        self.effect == Effect::Write && is_open
    }

    /// Attempts of this variant that the retry policy counts: not those that were interrupted, were
    /// a repair round, or were sent again because nobody knew.
    pub fn own_attempts(&self) -> u32 {
        let others = self.attempts_before + self.interruptions + self.repairs + self.unknowns;
        self.attempts.saturating_sub(others)
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepStatus {
    /// Asked for; no attempt has begun.
    Pending,
    /// An attempt has begun.
    Running,
    /// Waits for its next attempt.
    Backoff,
    /// Did what was asked.
    Completed,
    /// Failed for good.
    Failed,
    /// Given up by the program before it ended.
    Cancelled,
    /// Nobody knows whether it happened.
    Unknown,
    /// A `write` of a fork that waits for a person to say what becomes of it.
    Held,
}

impl StepStatus {
    /// Whether the step will not change any more by itself or by a person.
    pub fn is_settled(self) -> bool {
        matches!(self, StepStatus::Completed | StepStatus::Failed | StepStatus::Cancelled)
    }
}
