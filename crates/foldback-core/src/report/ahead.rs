//! What a log says later of what stands before: read first by whoever reads a log without holding it.

use std::collections::HashMap;

use super::back::Backs;
use crate::event::{Event, Fact};
use crate::{Key, Version};

/// The event type that alone leaves events behind.
pub const REOPENED: &str = "WorkflowReopened";
/// The event type with which a fork begins.
pub const FORKED: &str = "WorkflowForked";

/// What is said late in a log.
#[derive(Clone, Debug, Default)]
pub struct Ahead {
    backs: Backs,
    late: HashMap<Key, u32>,
}

impl Ahead {
    /// Reads an event. Only those of the types [`REOPENED`] and [`FORKED`] matter.
    pub fn read(&mut self, event: &Event) {
        self.backs.read(event);
        for key in Ahead::late(&event.fact) {
            *self.late.entry(key.clone()).or_default() += 1;
        }
    }

    /// Whether a reopening went back.
    pub fn goes_back(&self) -> bool {
        !self.backs.is_empty()
    }

    /// Whether an event still counts: no reopening left it behind, or a later one went back to it.
    pub fn is_kept(&self, version: Version) -> bool {
        self.backs.has_taken(Version::MAX, version)
    }

    pub(super) fn backs(&self) -> Backs {
        self.backs.clone()
    }

    /// The keys of which a fact says something behind their end, each as often as it does.
    pub(super) fn late(fact: &Fact) -> impl Iterator<Item = &Key> {
        let goes_back = fact.goes_back_to().is_some();
        let again: &[Key] = match fact {
            Fact::WorkflowForked(forked) => &forked.again,
            Fact::WorkflowReopened { again, .. } if goes_back => again,
            Fact::WorkflowStarted(_)
            | Fact::StepAsked(_)
            | Fact::AttemptStarted { .. }
            | Fact::AttemptFailed(_)
            | Fact::StepCompleted(_)
            | Fact::StepFailed(_)
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::StepCancelled { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
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
            | Fact::WorkflowReopened { .. }
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
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => &[],
        };
        let outputs = fact.changes().into_iter().flat_map(|changes| &changes.outputs);
        again.iter().chain(outputs.map(|given| &given.key))
    }

    pub(super) fn late_keys(&self) -> HashMap<Key, u32> {
        self.late.clone()
    }
}
