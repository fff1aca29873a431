//! What a fact says of the end of an attempt: of which step, what it used, and whether the step is over too.
//! Prints nothing, and keeps nothing.

use foldback::core::{Fact, Key, Usage};

/// What a fact says of the end of an attempt.
pub(super) struct Ended<'f> {
    pub key: &'f Key,
    pub usage: Option<&'f Usage>,
    /// Whether the step is over too.
    pub is_over: bool,
}

/// The attempt that has ended by this fact.
pub(super) fn ended(fact: &Fact) -> Option<Ended<'_>> {
    let ended = |key, usage, is_over| Some(Ended { key, usage, is_over });
    match fact {
        Fact::StepCompleted(e) => ended(&e.key, e.usage.as_ref(), true),
        Fact::StepReused(e) => ended(&e.key, None, true),
        Fact::StepCancelled { key, attempt, .. } => ended(key, None, attempt.is_none()),
        Fact::StepFailed(e) => ended(&e.key, e.usage.as_ref(), false),
        Fact::AttemptFailed(e) => ended(&e.key, e.usage.as_ref(), false),
        Fact::OutcomeUnknown { key, .. }
        | Fact::OutcomeResolved { key, .. }
        | Fact::OutcomeReconciled { key, .. }
        | Fact::WriteHeld { key, .. } => ended(key, None, false),
        Fact::WorkflowStarted(_)
        | Fact::StepAsked(_)
        | Fact::AttemptStarted { .. }
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
        | Fact::WorkflowForked(_)
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
        | Fact::WorkflowParked { .. } => None,
    }
}
