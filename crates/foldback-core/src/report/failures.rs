//! The failures on the way of a workflow: attempts that were followed by another, errors that were caught,
//! ends that were reopened. How it ended is none of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use crate::event::{Event, Fact, TaskKind};
use crate::step::Failure;
use crate::{Key, Version};

/// Failures that are kept of the begin, and of the end, of many.
const KEPT_MAX: usize = 20;

/// A failure that did not end its workflow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PastFailure {
    /// The version that says so.
    pub version: Version,
    /// The key of what failed.
    pub key: Option<Key>,
    /// Why it failed.
    pub error: Failure,
    /// The answer that was rejected, where that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Arc<Value>>,
    /// What followed: `tried again`, `another model`, `caught`, `retried`, `passed by` or `reopened`.
    pub then: &'static str,
}

/// Failures that are gathered while a log is read event by event: the first and the last ones, and their
/// number.
#[derive(Clone, Debug, Default)]
pub struct PastFailures {
    /// Their number.
    pub count: u64,
    first: Vec<PastFailure>,
    last: VecDeque<PastFailure>,
    /// Errors that a block is about to judge, by the key of the decision.
    judged: BTreeMap<Key, (Version, Failure)>,
    /// Steps that failed for good, until it is known what followed.
    failed: BTreeMap<Key, (Version, Failure)>,
    end: Option<(Version, Failure)>,
}

impl PastFailures {
    /// Reads the next event, with its values at hand.
    pub fn read(&mut self, event: &Event) {
        let version = event.version;
        match &event.fact {
            Fact::AttemptFailed(failed) => self.push(PastFailure {
                version,
                key: Some(failed.key.clone()),
                error: failed.error.plain(),
                rejected: failed.rejected.as_ref().map(|slot| slot.get()),
                then: if failed.variant.is_some() { "another model" } else { "tried again" },
            }),
            Fact::StepFailed(failed) => {
                self.failed.insert(failed.key.clone(), (version, failed.error.plain()));
            }
            Fact::TaskStarted { key, kind: TaskKind::Shape, input, .. }
                if key.as_str().ends_with("!catch") =>
            {
                let failure: Failure = serde_json::from_value((*input.get()).clone()).unwrap_or_default();
                self.judged.insert(key.clone(), (version, failure));
            }
            Fact::DecisionMade(made) => {
                let Some((version, error)) = self.judged.remove(&made.key) else { return };
                let key = error.key.clone();
                let then = match &*made.chosen {
                    "caught" => "caught",
                    "retry" => "retried",
                    // It goes on outward, to another block or to the end.
                    _ => return,
                };
                let known = key.as_ref().and_then(|key| self.failed.remove(key));
                let version = known.map_or(version, |(version, _)| version);
                self.push(PastFailure { version, key, error, rejected: None, then });
            }
            Fact::WorkflowFailed { error } => {
                let known = error.key.as_ref().and_then(|key| self.failed.remove(key));
                self.end = Some((known.map_or(version, |(version, _)| version), error.plain()));
            }
            Fact::WorkflowReopened { .. } => {
                if let Some((version, error)) = self.end.take() {
                    let key = error.key.clone();
                    self.push(PastFailure { version, key, error, rejected: None, then: "reopened" });
                }
            }
            Fact::WorkflowCompleted { .. } => {
                // Of branches that raced, and lost.
                for (key, (version, error)) in std::mem::take(&mut self.failed) {
                    let key = Some(key);
                    self.push(PastFailure { version, key, error, rejected: None, then: "passed by" });
                }
            }
            Fact::WorkflowStarted(_)
            | Fact::StepAsked(_)
            | Fact::AttemptStarted { .. }
            | Fact::StepCompleted(_)
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::StepCancelled { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed(_)
            | Fact::UndoStarted(_)
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowForked(_)
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalReceived(_)
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::WorkflowParked { .. } => {}
        }
    }

    fn push(&mut self, failure: PastFailure) {
        self.count += 1;
        if self.first.len() < KEPT_MAX {
            return self.first.push(failure);
        }
        if self.last.len() == KEPT_MAX {
            self.last.pop_front();
        }
        self.last.push_back(failure);
    }

    /// Those that are kept, in order.
    pub fn kept(&self) -> impl Iterator<Item = &PastFailure> {
        self.first.iter().chain(&self.last)
    }

    /// How many between the first and the last ones are only counted.
    pub fn left_out(&self) -> u64 {
        self.count - self.first.len() as u64 - self.last.len() as u64
    }
}
