//! The keys that an event names, wherever it names them: a reader may print each of them. It judges nothing.
//!
//! Every type of event stands here by its name, so that a new one cannot be left out.

use foldback_core::change::Target;
use foldback_core::{Changes, Fact, Failure, Key};

/// The keys that an event names, patterns of keys among them.
pub(super) fn keys(fact: &Fact) -> Vec<&str> {
    let mut found: Vec<&str> = fact.key().map(Key::as_str).into_iter().collect();
    match fact {
        Fact::WorkflowReopened { again, changes, .. } => {
            found.extend(again.iter().map(Key::as_str));
            changes.iter().for_each(|changes| of_changes(changes, &mut found));
        }
        Fact::WorkflowForked(forked) => {
            found.extend(forked.again.iter().map(Key::as_str));
            of_changes(&forked.changes, &mut found);
        }
        Fact::CompensationRequested { again, .. } => found.extend(again.iter().map(Key::as_str)),
        Fact::CompensationStarted { scope, .. }
        | Fact::CompensationEnded { scope }
        | Fact::UndoCompleted { scope, .. }
        | Fact::BudgetWarned { scope, .. }
        | Fact::BudgetExceeded { scope, .. } => found.push(scope.as_str()),
        Fact::UndoFailed { scope, error, .. } => {
            found.push(scope.as_str());
            found.extend(of_failure(error));
        }
        Fact::UndoStarted(started) => found.push(started.scope.as_str()),
        Fact::WorkflowUnpaused { raised, .. } => {
            found.extend(raised.iter().map(|raised| raised.scope.as_str()));
        }
        Fact::AttemptFailed(failed) => found.extend(of_failure(&failed.error)),
        Fact::StepFailed(failed) => found.extend(of_failure(&failed.error)),
        Fact::StepReused(reused) => found.extend(reused.error.iter().filter_map(of_failure)),
        Fact::SignalReceived(signal) => found.extend(signal.error.iter().filter_map(of_failure)),
        Fact::WorkflowFailed { error } => found.extend(of_failure(error)),
        // What these name is their own key, or nothing.
        Fact::WorkflowStarted(_)
        | Fact::StepAsked(_)
        | Fact::AttemptStarted { .. }
        | Fact::StepCompleted(_)
        | Fact::OutcomeUnknown { .. }
        | Fact::OutcomeReconciled { .. }
        | Fact::OutcomeResolved { .. }
        | Fact::StepCancelled { .. }
        | Fact::TimerSet { .. }
        | Fact::TimerFired { .. }
        | Fact::TimerCancelled { .. }
        | Fact::DecisionMade(_)
        | Fact::TaskStarted { .. }
        | Fact::TaskFinished { .. }
        | Fact::UndoArmed(_)
        | Fact::WorkflowCancelled { .. }
        | Fact::Recorded { .. }
        | Fact::WriteHeld { .. }
        | Fact::WriteSettled { .. }
        | Fact::WorkflowPaused { .. }
        | Fact::BudgetSet { .. }
        | Fact::ListenStarted { .. }
        | Fact::SignalTaken { .. }
        | Fact::SignalRefused { .. }
        | Fact::WorkflowCompleted { .. }
        | Fact::WorkflowParked { .. } => {}
    }
    found
}

fn of_failure(error: &Failure) -> Option<&str> {
    error.key.as_ref().map(Key::as_str)
}

fn of_changes<'a>(changes: &'a Changes, found: &mut Vec<&'a str>) {
    found.extend(changes.edits.iter().filter_map(|edit| match &edit.target {
        Target::Key(key) => Some(key.as_str()),
        Target::Kind(_) => None,
    }));
    found.extend(changes.outputs.iter().map(|given| given.key.as_str()));
    found.extend(changes.writes.by_key.keys().map(Key::as_str));
    found.extend(changes.rerun.iter().map(String::as_str));
}
