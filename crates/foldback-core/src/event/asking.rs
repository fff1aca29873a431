//! What can be asked of any fact: its class, type, key, values, usage and changes. Where each fact
//! could have an answer, each is named: a new one has to be thought of.

use super::{Class, EventId, Fact, Undo};
use crate::Version;
use crate::change::Changes;
use crate::key::Key;
use crate::step::{Failure, Usage};
use crate::value::{Request, Slot};

impl Undo {
    /// What its handler is given, where it has one.
    pub fn given(&self) -> Option<&Slot> {
        match self {
            Undo::By { given, .. } => Some(given),
            Undo::Irreversible(_) => None,
        }
    }

    /// The same, to be filled.
    pub fn given_mut(&mut self) -> Option<&mut Slot> {
        match self {
            Undo::By { given, .. } => Some(given),
            Undo::Irreversible(_) => None,
        }
    }
}

impl Fact {
    /// Whether the world spoke or the program answered.
    pub fn class(&self) -> Class {
        match self {
            Fact::WorkflowStarted(_)
            | Fact::AttemptStarted { .. }
            | Fact::AttemptFailed(_)
            | Fact::StepCompleted(_)
            | Fact::StepFailed(_)
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::WorkflowReopened { .. }
            | Fact::WorkflowForked(_)
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::UndoStarted(_)
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::SignalReceived(_)
            // By its caller; one with a key is its program's.
            | Fact::Recorded { key: None, .. }
            | Fact::TimerFired { .. } => Class::Stimulus,
            Fact::StepAsked(_)
            | Fact::StepCancelled { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed(_)
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::Recorded { key: Some(_), .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => Class::Consequence,
        }
    }

    /// The type under which the event is stored.
    pub fn event_type(&self) -> &str {
        match self {
            Fact::WorkflowStarted(_) => "WorkflowStarted",
            Fact::StepAsked(_) => "StepAsked",
            Fact::AttemptStarted { .. } => "AttemptStarted",
            Fact::AttemptFailed(_) => "AttemptFailed",
            Fact::StepCompleted(_) => "StepCompleted",
            Fact::StepFailed(_) => "StepFailed",
            Fact::OutcomeUnknown { .. } => "OutcomeUnknown",
            Fact::OutcomeResolved { .. } => "OutcomeResolved",
            Fact::OutcomeReconciled { .. } => "OutcomeReconciled",
            Fact::StepCancelled { .. } => "StepCancelled",
            Fact::TimerSet { .. } => "TimerSet",
            Fact::TimerFired { .. } => "TimerFired",
            Fact::TimerCancelled { .. } => "TimerCancelled",
            Fact::DecisionMade(_) => "DecisionMade",
            Fact::TaskStarted { .. } => "TaskStarted",
            Fact::TaskFinished { .. } => "TaskFinished",
            Fact::UndoArmed(_) => "UndoArmed",
            Fact::UndoStarted(_) => "UndoStarted",
            Fact::UndoCompleted { .. } => "UndoCompleted",
            Fact::UndoFailed { .. } => "UndoFailed",
            Fact::CompensationStarted { .. } => "CompensationStarted",
            Fact::CompensationRequested { .. } => "CompensationRequested",
            Fact::CompensationEnded { .. } => "CompensationEnded",
            Fact::WorkflowCancelled { .. } => "WorkflowCancelled",
            Fact::WorkflowPaused { .. } => "WorkflowPaused",
            Fact::WorkflowUnpaused { .. } => "WorkflowUnpaused",
            Fact::BudgetSet { .. } => "BudgetSet",
            Fact::BudgetWarned { .. } => "BudgetWarned",
            Fact::BudgetExceeded { .. } => "BudgetExceeded",
            Fact::SignalReceived(_) => "SignalReceived",
            Fact::ListenStarted { .. } => "ListenStarted",
            Fact::SignalTaken { .. } => "SignalTaken",
            Fact::SignalRefused { .. } => "SignalRefused",
            Fact::Recorded { event_type, .. } => event_type,
            Fact::WorkflowCompleted { .. } => "WorkflowCompleted",
            Fact::WorkflowFailed { .. } => "WorkflowFailed",
            Fact::WorkflowParked { .. } => "WorkflowParked",
            Fact::WorkflowReopened { .. } => "WorkflowReopened",
            Fact::WorkflowForked(_) => "WorkflowForked",
            Fact::StepReused(_) => "StepReused",
            Fact::WriteHeld { .. } => "WriteHeld",
            Fact::WriteSettled { .. } => "WriteSettled",
        }
    }

    /// The key the fact speaks of, where it speaks of one.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Fact::StepAsked(e) => Some(&e.key),
            Fact::AttemptFailed(e) => Some(&e.key),
            Fact::StepCompleted(e) => Some(&e.key),
            Fact::StepFailed(e) => Some(&e.key),
            Fact::DecisionMade(e) => Some(&e.key),
            Fact::StepReused(e) => Some(&e.key),
            Fact::UndoArmed(e) => Some(&e.key),
            Fact::UndoStarted(e) => Some(&e.key),
            Fact::AttemptStarted { key, .. }
            | Fact::OutcomeUnknown { key, .. }
            | Fact::OutcomeResolved { key, .. }
            | Fact::OutcomeReconciled { key, .. }
            | Fact::StepCancelled { key, .. }
            | Fact::TimerSet { key, .. }
            | Fact::TimerFired { key }
            | Fact::TimerCancelled { key, .. }
            | Fact::TaskStarted { key, .. }
            | Fact::TaskFinished { key, .. }
            | Fact::UndoCompleted { key, .. }
            | Fact::UndoFailed { key, .. }
            | Fact::BudgetSet { key, .. }
            | Fact::ListenStarted { key, .. }
            | Fact::SignalTaken { key, .. }
            | Fact::SignalRefused { key, .. }
            | Fact::WriteHeld { key, .. }
            | Fact::WriteSettled { key, .. }
            | Fact::WorkflowParked { key, .. } => Some(key),
            Fact::Recorded { key, .. } => key.as_ref(),
            Fact::WorkflowStarted(_)
            | Fact::WorkflowReopened { .. }
            | Fact::WorkflowForked(_)
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalReceived(_)
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. } => None,
        }
    }

    /// The id of the event, where it is a signal for which its sender has an id.
    pub fn signal_id(&self, workflow_id: &str) -> Option<EventId> {
        let Fact::SignalReceived(signal) = self else { return None };
        signal.event_id.as_ref().map(|id| EventId::of_signal(workflow_id, id))
    }

    /// Every slot of the fact.
    pub fn slots(&self) -> Vec<&Slot> {
        match self {
            Fact::WorkflowStarted(e) => vec![&e.input],
            Fact::StepAsked(e) => {
                let given = e.undo.iter().filter_map(|undo| undo.given());
                e.request.slots().chain(given).chain(&e.given).collect()
            }
            Fact::AttemptFailed(e) => e.rejected.iter().chain(e.error.slots()).collect(),
            Fact::StepCompleted(e) => vec![&e.output],
            Fact::StepFailed(e) => e.rejected.iter().chain(e.error.slots()).collect(),
            Fact::OutcomeResolved { landed, .. } | Fact::OutcomeReconciled { landed, .. } => {
                landed.iter().collect()
            }
            Fact::DecisionMade(e) => vec![&e.because],
            Fact::TaskStarted { input, .. } => vec![input],
            Fact::TaskFinished { output, context, .. } => std::iter::once(output).chain(context).collect(),
            Fact::UndoArmed(e) => std::iter::once(&e.undo).chain(&e.output).collect(),
            Fact::UndoStarted(e) => e.undo.iter().chain(e.output.iter()).collect(),
            Fact::Recorded { data, .. } => vec![data],
            Fact::SignalReceived(e) => {
                std::iter::once(&e.data).chain(e.error.iter().flat_map(Failure::slots)).collect()
            }
            Fact::ListenStarted { wants, .. } => vec![wants],
            Fact::WorkflowCompleted { output } => vec![output],
            Fact::WorkflowForked(e) => e.changes.slots().collect(),
            Fact::WorkflowReopened { changes, .. } => {
                changes.iter().flat_map(|changes| changes.slots()).collect()
            }
            Fact::StepReused(e) => e.output.iter().chain(e.error.iter().flat_map(Failure::slots)).collect(),
            Fact::UndoFailed { error, .. } | Fact::WorkflowFailed { error } => error.slots().collect(),
            Fact::WriteSettled { output, .. } => output.iter().collect(),
            Fact::AttemptStarted { .. }
            | Fact::OutcomeUnknown { .. }
            | Fact::StepCancelled { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::WriteHeld { .. }
            | Fact::UndoCompleted { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::BudgetSet { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::WorkflowParked { .. } => Vec::new(),
        }
    }

    /// Every slot of the fact, to be filled.
    pub fn slots_mut(&mut self) -> Vec<&mut Slot> {
        match self {
            Fact::WorkflowStarted(e) => vec![&mut e.input],
            Fact::StepAsked(e) => {
                let given = e.undo.iter_mut().filter_map(|undo| undo.given_mut());
                e.request.slots_mut().chain(given).chain(&mut e.given).collect()
            }
            Fact::AttemptFailed(e) => e.rejected.iter_mut().chain(e.error.slots_mut()).collect(),
            Fact::StepCompleted(e) => vec![&mut e.output],
            Fact::StepFailed(e) => e.rejected.iter_mut().chain(e.error.slots_mut()).collect(),
            Fact::OutcomeResolved { landed, .. } | Fact::OutcomeReconciled { landed, .. } => {
                landed.iter_mut().collect()
            }
            Fact::DecisionMade(e) => vec![&mut e.because],
            Fact::TaskStarted { input, .. } => vec![input],
            Fact::TaskFinished { output, context, .. } => std::iter::once(output).chain(context).collect(),
            Fact::UndoArmed(e) => std::iter::once(&mut e.undo).chain(&mut e.output).collect(),
            Fact::UndoStarted(e) => e.undo.iter_mut().chain(e.output.iter_mut()).collect(),
            Fact::Recorded { data, .. } => vec![data],
            Fact::SignalReceived(e) => {
                std::iter::once(&mut e.data).chain(e.error.iter_mut().flat_map(Failure::slots_mut)).collect()
            }
            Fact::ListenStarted { wants, .. } => vec![wants],
            Fact::WorkflowCompleted { output } => vec![output],
            Fact::WorkflowForked(e) => e.changes.slots_mut().collect(),
            Fact::WorkflowReopened { changes, .. } => {
                changes.iter_mut().flat_map(|changes| changes.slots_mut()).collect()
            }
            Fact::StepReused(e) => {
                e.output.iter_mut().chain(e.error.iter_mut().flat_map(Failure::slots_mut)).collect()
            }
            Fact::UndoFailed { error, .. } | Fact::WorkflowFailed { error } => error.slots_mut().collect(),
            Fact::WriteSettled { output, .. } => output.iter_mut().collect(),
            Fact::AttemptStarted { .. }
            | Fact::OutcomeUnknown { .. }
            | Fact::StepCancelled { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::WriteHeld { .. }
            | Fact::UndoCompleted { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::BudgetSet { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::WorkflowParked { .. } => Vec::new(),
        }
    }

    /// Puts every value beside the log, where it can be erased.
    pub fn set_apart(&mut self) {
        if let Fact::StepAsked(asked) = self {
            asked.request = Request::whole(asked.request.to_json());
            let given = asked.undo.iter_mut().filter_map(|undo| undo.given_mut());
            given.chain(&mut asked.given).for_each(Slot::set_apart);
            return;
        }
        self.slots_mut().into_iter().for_each(Slot::set_apart);
    }

    /// The failure that the fact tells of, where it tells of one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Fact::AttemptFailed(e) => Some(&e.error),
            Fact::StepFailed(e) => Some(&e.error),
            Fact::SignalReceived(e) => e.error.as_ref(),
            Fact::StepReused(e) => e.error.as_ref(),
            Fact::UndoFailed { error, .. } | Fact::WorkflowFailed { error } => Some(error),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn failure_mut(&mut self) -> Option<&mut Failure> {
        match self {
            Fact::AttemptFailed(e) => Some(&mut e.error),
            Fact::StepFailed(e) => Some(&mut e.error),
            Fact::SignalReceived(e) => e.error.as_mut(),
            Fact::StepReused(e) => e.error.as_mut(),
            Fact::UndoFailed { error, .. } | Fact::WorkflowFailed { error } => Some(error),
            _ => None,
        }
    }

    /// What a model call used, where the fact is the end of one.
    pub fn usage(&self) -> Option<&Usage> {
        match self {
            Fact::AttemptFailed(e) => e.usage.as_ref(),
            Fact::StepCompleted(e) => e.usage.as_ref(),
            Fact::StepFailed(e) => e.usage.as_ref(),
            Fact::WorkflowStarted(_)
            | Fact::StepAsked(_)
            | Fact::AttemptStarted { .. }
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::StepCancelled { .. }
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
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalReceived(_)
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowReopened { .. }
            | Fact::WorkflowForked(_)
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::WorkflowParked { .. } => None,
        }
    }

    /// The version at which a reopened workflow goes on, where that is an earlier one: the fold needs
    /// the state that was there.
    pub fn goes_back_to(&self) -> Option<Version> {
        match self {
            Fact::WorkflowReopened { back_to, .. } => *back_to,
            _ => None,
        }
    }

    /// What a person changed with this fact.
    pub fn changes(&self) -> Option<&Changes> {
        match self {
            Fact::WorkflowReopened { changes, .. } => changes.as_deref(),
            Fact::WorkflowForked(forked) => Some(&forked.changes),
            _ => None,
        }
    }

    /// The same, to be changed before it is written.
    pub(crate) fn changes_mut(&mut self) -> Option<&mut Changes> {
        match self {
            Fact::WorkflowReopened { changes, .. } => changes.as_deref_mut(),
            Fact::WorkflowForked(forked) => Some(&mut forked.changes),
            _ => None,
        }
    }

    /// The version of the fact's shape as it is written today.
    pub fn schema_version(&self) -> u32 {
        1
    }
}
