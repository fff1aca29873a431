//! The law book: which fact may stand where. Asked before an event is written and again after it
//! is read. It changes nothing and never panics; a log that breaks it quarantines one workflow.

use std::fmt;
use std::ops::Bound;

use crate::Version;
use crate::change::Changes;
use crate::event::{ENGINE_TYPES, Event, Fact, Found};
use crate::key::Key;
use crate::limits;
use crate::state::{End, Entry, EntryBody, Step, StepStatus, WorkflowState};
use crate::step::Effect;

/// A fact that may not stand where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Illegal {
    /// The version at which the law is broken.
    pub version: Version,
    /// The type of the offending event.
    pub event_type: String,
    /// Which law.
    pub reason: String,
}

impl fmt::Display for Illegal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at version {} is against the law: {}", self.event_type, self.version, self.reason)
    }
}

impl std::error::Error for Illegal {}

impl WorkflowState {
    /// Whether `event` may follow this state.
    ///
    /// # Errors
    /// Which law it breaks.
    pub fn admits(&self, event: &Event) -> Result<(), Illegal> {
        self.in_order(event).and_then(|()| self.admits_fact(&event.fact)).map_err(|reason| Illegal {
            version: event.version,
            event_type: event.fact.event_type().to_owned(),
            reason,
        })
    }

    fn in_order(&self, event: &Event) -> Result<(), String> {
        if event.version != self.version + 1 {
            return Err(format!("versions have no gaps; {} was due", self.version + 1));
        }
        if event.timestamp < self.now {
            return Err("times never go back within a workflow".into());
        }
        if event.clock.is_some_and(|clock| clock >= event.timestamp) {
            return Err("a clock is written only where it is before the timestamp".into());
        }
        Ok(())
    }

    /// Whether a fact may follow this state, its envelope aside.
    pub(crate) fn admits_fact(&self, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::WorkflowStarted(_) if self.version > 0 => {
                Err("a workflow starts once, as its first event".into())
            }
            // It would be read back as something else than a domain event.
            Fact::Recorded { event_type, .. } if ENGINE_TYPES.contains(&&**event_type) => {
                Err(format!("`{event_type}` is a type of the engine's own"))
            }
            Fact::Recorded { event_type, .. } if event_type.is_empty() => Err("an event has a type".into()),
            // Domain events stand anywhere: in a running workflow, after its end, in a stream
            // that is no workflow at all.
            Fact::Recorded { key: None, .. } if self.to_arm.is_some() => {
                Err("the undo of what has just been done is armed first".into())
            }
            Fact::WorkflowStarted(_) | Fact::Recorded { key: None, .. } => Ok(()),
            _ if !self.is_started() => Err("the workflow has not started".into()),
            Fact::WorkflowReopened { back_to: Some(version), .. }
                if self.rewound.map(|(there, _)| there) != Some(*version) =>
            {
                Err(format!("the state at version {version} is not at hand"))
            }
            Fact::WorkflowReopened { .. } if self.is_compensating() => Err("it is being taken back".into()),
            Fact::WorkflowReopened { changes, .. } => match self.end {
                Some(End::Failed { .. } | End::Parked { .. }) => {
                    changes.as_ref().map_or(Ok(()), |changes| self.may_change(changes))
                }
                Some(End::Completed { .. }) => Err("the workflow has completed".into()),
                Some(End::Cancelled { .. }) => Err("the workflow was cancelled".into()),
                None => Err("the workflow has not ended".into()),
            },
            Fact::WorkflowForked(forked) => match (&self.end, forked.lineage.cut == self.version) {
                (Some(_), _) => Err("nothing goes on behind the end of a workflow".into()),
                (None, false) => Err(format!("it was cut at version {}, not here", forked.lineage.cut)),
                (None, true) => self.may_change(&forked.changes),
            },
            Fact::WorkflowCancelled { .. } if self.end.is_some() => Err("the workflow has ended".into()),
            _ if self.to_arm.is_some() && !matches!(fact, Fact::UndoArmed(_)) => {
                Err("the undo of what has just been done is armed first".into())
            }
            Fact::WorkflowPaused { .. } if self.pause.is_some() => Err("it is paused already".into()),
            Fact::WorkflowUnpaused { .. } if self.pause.is_none() => Err("it is not paused".into()),
            Fact::AttemptStarted { .. } | Fact::TimerFired { .. } | Fact::UndoStarted(_)
                if self.pause.is_some() =>
            {
                Err("the workflow is paused: nothing begins".into())
            }
            Fact::UndoArmed(_)
            | Fact::UndoStarted(_)
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. } => self.admits_undo(fact),
            _ if self.end.is_some() && !is_late_report(fact) && !self.goes_on(fact) => {
                Err("the workflow has ended".into())
            }

            Fact::StepAsked(asked) => {
                if asked.key.as_str().len() > limits::KEY_MAX_BYTES {
                    return Err(format!("a key has at most {} bytes", limits::KEY_MAX_BYTES));
                }
                if asked.starts && self.pause.is_some() {
                    return Err("the workflow is paused: nothing begins".into());
                }
                if asked.starts && self.rules.is_some() {
                    return Err("a step starts at once only where no outcome may be taken for it".into());
                }
                self.lists.has(&asked.request)?;
                if asked.effect != Effect::Write && asked.undo.is_some() {
                    return Err("only a write has an undo".into());
                }
                if (asked.effect == Effect::Write) != asked.recovery.is_some() {
                    return Err("a recovery belongs to a write, and each write has one".into());
                }
                self.is_free(&asked.key)
            }
            Fact::AttemptStarted { key, attempt, lost } => {
                let step = self.known_step(key)?;
                if step.is_given_up {
                    return Err(format!("`{key}` was given up: it begins no further attempt"));
                }
                if lost.is_some() && step.status != StepStatus::Running {
                    return Err(format!("no attempt of `{key}` is under way that could be lost"));
                }
                if self.rules.is_some() && step.effect == Effect::Write && !step.is_released {
                    return Err(format!("nobody said that the write `{key}` may be performed here"));
                }
                match step.status {
                    StepStatus::Pending | StepStatus::Running | StepStatus::Backoff => {
                        expect_attempt(*attempt, step.attempts + 1)
                    }
                    StepStatus::Completed
                    | StepStatus::Held
                    | StepStatus::Failed
                    | StepStatus::Cancelled
                    | StepStatus::Unknown => Err(format!("`{key}` is {:?}", step.status)),
                }
            }
            Fact::AttemptFailed(e) => {
                let step = self.is_running(&e.key, e.attempt)?;
                if step.is_given_up {
                    return Err(format!("`{}` was given up: it has no further attempt", e.key));
                }
                let variants = step.retry.as_ref().map_or(0, |policy| policy.variants);
                match e.variant {
                    Some(variant) if variant != step.variant + 1 || variant > variants => {
                        Err(format!("variant {variant} of `{}` does not follow {}", e.key, step.variant))
                    }
                    Some(_) | None => Ok(()),
                }
            }
            Fact::StepCompleted(e) => self.is_running(&e.key, e.attempt).map(drop),
            Fact::StepFailed(e) => self.is_running(&e.key, e.attempt).map(drop),
            Fact::OutcomeUnknown { key, attempt, .. } => {
                let step = self.known_step(key)?;
                if step.effect != Effect::Write {
                    return Err("only the outcome of a write can be unknown".into());
                }
                // Given up while it waited to be sent again: what was sent before stays in doubt.
                let goes_no_further = step.is_given_up || !self.may_move(key);
                if goes_no_further && step.status == StepStatus::Backoff && step.is_in_doubt() {
                    return expect_attempt(*attempt, step.attempts);
                }
                self.is_running(key, *attempt).map(drop)
            }
            Fact::StepCancelled { key, attempt, .. } => {
                let step = self.known_step(key)?;
                match step.status {
                    _ if step.is_given_up => Err(format!("`{key}` was given up already")),
                    StepStatus::Pending | StepStatus::Held | StepStatus::Backoff if attempt.is_none() => {
                        Ok(())
                    }
                    StepStatus::Running if *attempt == Some(step.attempts) => Ok(()),
                    StepStatus::Pending | StepStatus::Held | StepStatus::Backoff | StepStatus::Running => {
                        Err("a cancellation names the attempt that is under way, if one is".into())
                    }
                    StepStatus::Completed
                    | StepStatus::Failed
                    | StepStatus::Cancelled
                    | StepStatus::Unknown => Err(format!("`{key}` is {:?}", step.status)),
                }
            }
            Fact::OutcomeResolved { key, landed } if self.is_stuck_at(key) => {
                match (landed, self.open.iter().find(|open| open.is_inside(key))) {
                    (Some(_), None) => Ok(()),
                    (Some(_), Some(open)) => Err(format!("`{open}` is still open")),
                    (None, _) => Err("what could not be taken back is tried again by `compensate`".into()),
                }
            }
            Fact::OutcomeResolved { key, .. } => match self.known_step(key)?.status {
                StepStatus::Unknown => Ok(()),
                _ => Err(format!("the outcome of `{key}` is not unknown")),
            },
            Fact::OutcomeReconciled { key, found, landed, .. } => {
                let inside = key.reconcile();
                if !self.reconciling.contains(key) {
                    return Err(format!("nobody looks whether `{key}` happened"));
                }
                if (*found == Found::Landed) != landed.is_some() {
                    return Err("what landed gave something, and nothing else did".into());
                }
                match self.open.iter().find(|open| open.is_inside(&inside)) {
                    Some(open) => Err(format!("`{open}` is still open")),
                    None => Ok(()),
                }
            }
            Fact::StepReused(reused) => {
                let step = self.under_rules(&reused.key)?;
                match (step.status, reused.output.is_some() == reused.error.is_none()) {
                    (_, false) => Err("a step gave an output or failed".into()),
                    (StepStatus::Pending, true) => Ok(()),
                    (status, true) => Err(format!("`{}` is {status:?}", reused.key)),
                }
            }
            Fact::WriteHeld { key, .. } => match self.under_rules(key)? {
                step if step.effect != Effect::Write => Err("only a write is held".into()),
                step if step.status == StepStatus::Pending && !step.is_released => Ok(()),
                step => Err(format!("`{key}` is {:?}", step.status)),
            },
            Fact::WriteSettled { key, .. } => match self.under_rules(key)? {
                step if step.effect != Effect::Write => Err("only a write is settled so".into()),
                step if matches!(step.status, StepStatus::Pending | StepStatus::Held)
                    && !step.is_released =>
                {
                    Ok(())
                }
                step => Err(format!("`{key}` is {:?}", step.status)),
            },
            Fact::TimerSet { key, .. } => self.is_free(key),
            Fact::TimerCancelled { key, .. }
                if matches!(
                    self.entries.get(key),
                    Some(Entry { body: EntryBody::Listening { heard: None, .. }, .. })
                ) =>
            {
                Ok(())
            }
            Fact::TimerFired { key } | Fact::TimerCancelled { key, .. } => match self.entries.get(key) {
                Some(Entry { body: EntryBody::Timer { fired: false, .. }, .. }) => Ok(()),
                _ => Err(format!("no timer `{key}` is set")),
            },
            Fact::DecisionMade(made) => {
                if !made.options.contains(&made.chosen) {
                    return Err(format!("`{}` is not among the options", made.chosen));
                }
                self.is_free(&made.key)
            }
            Fact::TaskStarted { key, .. } => match self.entries.get(key).map(|e| &e.body) {
                // A further try of a block begins where its delay ended.
                None | Some(EntryBody::Timer { fired: true, .. }) => Ok(()),
                Some(_) => Err(format!("`{key}` is known already")),
            },
            Fact::TaskFinished { key, .. } => self.may_finish(key),
            Fact::Recorded { key: Some(key), .. } => self.is_free(key),
            Fact::WorkflowCompleted { .. } => match self.open.iter().find(|key| !self.is_limit(key)) {
                Some(key) => Err(format!("`{key}` is still open")),
                None => Ok(()),
            },
            Fact::WorkflowUnpaused { raised, .. } => self.may_raise(raised),
            Fact::BudgetExceeded { .. } if self.pause.is_some() => Err("it is paused already".into()),
            Fact::BudgetSet { key, .. } if self.budgets.contains_key(key) => {
                Err(format!("`{key}` has its budget already"))
            }
            Fact::BudgetWarned { scope, .. } | Fact::BudgetExceeded { scope, .. }
                if !self.budgets.contains_key(scope) =>
            {
                Err(format!("`{scope}` has no budget"))
            }
            Fact::WorkflowPaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. } => Ok(()),
            Fact::ListenStarted { key, .. } => self.is_free(key),
            Fact::SignalReceived(_) | Fact::SignalTaken { .. } | Fact::SignalRefused { .. } => {
                self.admits_signal(fact)
            }
            Fact::WorkflowCancelled { .. } | Fact::WorkflowFailed { .. } | Fact::WorkflowParked { .. } => {
                Ok(())
            }
        }
    }

    /// Whether a fact belongs to tasks that go on behind the end.
    fn goes_on(&self, fact: &Fact) -> bool {
        fact.key().is_some_and(|key| self.may_move(key))
    }

    /// A step whose outcome may be taken from elsewhere.
    fn under_rules(&self, key: &Key) -> Result<&Step, String> {
        let step = self.known_step(key)?;
        match self.rules {
            Some(_) => Ok(step),
            None => Err("the workflow is no fork, and was not reopened with changes".into()),
        }
    }

    /// Only what completes with the last event has an output that can be another: behind it somebody
    /// has seen the one that was.
    fn may_change(&self, changes: &Changes) -> Result<(), String> {
        let is_last = |key: &Key| self.turn_events == 0 && self.stirred.as_ref() == Some(key);
        let is_completed =
            |key: &Key| is_last(key) && self.step(key).is_some_and(|s| s.status == StepStatus::Completed);
        match changes.outputs.iter().find(|given| !is_completed(&given.key)) {
            Some(given) => Err(format!("`{}` does not complete there", given.key)),
            None => Ok(()),
        }
    }

    fn known_step(&self, key: &Key) -> Result<&Step, String> {
        self.step(key).ok_or_else(|| format!("no step `{key}` was asked for"))
    }

    fn is_running(&self, key: &Key, attempt: u32) -> Result<&Step, String> {
        let step = self.known_step(key)?;
        if step.status != StepStatus::Running {
            return Err(format!("`{key}` is {:?}, not running", step.status));
        }
        expect_attempt(attempt, step.attempts).map(|()| step)
    }

    /// A key may be asked for once; a task whose input was recorded counts as not yet asked for.
    fn is_free(&self, key: &Key) -> Result<(), String> {
        match self.entries.get(key).map(|e| &e.body) {
            None | Some(EntryBody::Started { .. }) => Ok(()),
            Some(_) => Err(format!("`{key}` is known already")),
        }
    }

    fn may_finish(&self, key: &Key) -> Result<(), String> {
        match self.entries.get(key).map(|e| &e.body) {
            Some(EntryBody::Finished { .. }) => {
                return Err(format!("`{key}` has finished already"));
            }
            Some(EntryBody::Step(step)) if !step.status.is_settled() => {
                return Err(format!("the step `{key}` is {:?}", step.status));
            }
            Some(EntryBody::Timer { fired: false, .. }) => {
                return Err(format!("the timer `{key}` has not fired"));
            }
            None
            | Some(
                EntryBody::Step(_)
                | EntryBody::Timer { .. }
                | EntryBody::Listening { .. }
                | EntryBody::Started { .. }
                | EntryBody::Decided { .. },
            ) => {}
        }
        let inside = ['!', '/', '['].into_iter().find_map(|delimiter| {
            let prefix = format!("{key}{delimiter}");
            self.open
                .range::<str, _>((Bound::Included(&*prefix), Bound::Unbounded))
                .take_while(|open| open.as_str().starts_with(&prefix))
                .find(|open| !self.is_limit(open))
        });
        match inside {
            Some(open) => Err(format!("`{open}` inside it is still open")),
            None => Ok(()),
        }
    }
}

/// What may still be said of a workflow that ended: how its steps in flight came out.
fn is_late_report(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::StepCompleted(_)
            | Fact::StepFailed(_)
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::OutcomeReconciled { .. }
    )
}

fn expect_attempt(attempt: u32, due: u32) -> Result<(), String> {
    match attempt == due {
        true => Ok(()),
        false => Err(format!("attempt {due} was due, not {attempt}")),
    }
}
