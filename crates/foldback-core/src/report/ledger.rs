//! The ledger of a workflow: what it did in the world, and what became of each.
//!
//! Made of the log alone, so it is the one of any version. What is taken back, and the steps that take
//! it back, are one line: the effect.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::Version;
use crate::event::{Event, Fact, Found, StepAsked, Undo};
use crate::key::Key;
use crate::step::{Effect as Class, Failure};

/// What became of an effect, in the words that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It can be taken back.
    Armed,
    /// It is being taken back.
    Undoing,
    /// It was taken back.
    Undone,
    /// It could not be taken back; a person is needed.
    Stuck,
    /// It cannot be taken back; its definition says why.
    Irreversible,
    /// Its definition says nothing of how it is taken back.
    Kept,
    /// Nobody knows whether it happened.
    Unknown,
    /// It is another workflow's, whose outcome was taken: that one's to take back.
    Parents,
}

impl Standing {
    /// The word that scripts rely on.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::Armed => "armed",
            Standing::Undoing => "undoing",
            Standing::Undone => "undone",
            Standing::Stuck => "stuck",
            Standing::Irreversible => "irreversible",
            Standing::Kept => "kept",
            Standing::Unknown => "unknown",
            Standing::Parents => "parents",
        }
    }
}

/// A line of the ledger.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Effect {
    /// The step, or the place that recorded the domain event.
    pub key: Key,
    /// Which step kind did it; `event` for a domain event.
    pub kind: Arc<str>,
    /// What became of it.
    pub standing: Standing,
    /// The version that says that it happened, or that nobody knows.
    pub version: Version,
    /// The version that armed its undo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub armed: Option<Version>,
    /// The version that says that it was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undone: Option<Version>,
    /// Why it cannot be taken back, or whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The effects of a log, in the order in which they became known.
pub fn ledger<'a>(workflow_id: &str, events: impl IntoIterator<Item = &'a Event>) -> Vec<Effect> {
    let mut book = Book::new(workflow_id);
    events.into_iter().for_each(|event| book.read(event));
    book.effects
}

/// A ledger that is written while a log is read event by event.
pub struct Book {
    workflow_id: Arc<str>,
    /// The effects so far, in the order in which they became known.
    pub effects: Vec<Effect>,
    /// Writes that were asked for: the step kind, and what is said of taking them back.
    asked: HashMap<Key, (Arc<str>, Option<Box<Undo>>)>,
}

impl Book {
    /// The ledger of a workflow before its first event.
    pub fn new(workflow_id: &str) -> Book {
        Book { workflow_id: Arc::from(workflow_id), effects: Vec::new(), asked: HashMap::new() }
    }

    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        let version = event.version;
        match &event.fact {
            Fact::StepAsked(asked) => self.asked(asked),
            Fact::StepCompleted(done) => self.happened(&done.key, version),
            // That it was done by hand is said of an undo, and the fact behind it says that it is done.
            Fact::OutcomeResolved { key, .. } if key.is_undo() => {}
            Fact::OutcomeResolved { key, landed } | Fact::OutcomeReconciled { key, landed, .. }
                if landed.is_some() =>
            {
                self.happened(key, version);
            }
            Fact::OutcomeResolved { key, .. } | Fact::OutcomeReconciled { key, found: Found::Didnt, .. } => {
                self.settle(key);
            }
            Fact::OutcomeUnknown { key, .. } => self.enter(key, version, Standing::Unknown, None),
            Fact::UndoArmed(armed) => self.armed(&armed.key, version),
            Fact::UndoStarted(undo) => self.stand(undo.armed, Standing::Undoing, None),
            Fact::UndoCompleted { armed, .. } => {
                self.stand(*armed, Standing::Undone, None);
                if let Some(effect) = self.effects.iter_mut().rfind(|effect| effect.armed == Some(*armed)) {
                    effect.undone = Some(version);
                }
            }
            Fact::UndoFailed { armed, error, .. } => self.stand(*armed, Standing::Stuck, Some(told(error))),
            Fact::WorkflowForked(forked) => {
                for effect in &mut self.effects {
                    effect.standing = Standing::Parents;
                    effect.why = Some(forked.lineage.parent.clone());
                }
            }
            Fact::StepReused(reused) if reused.workflow != self.workflow_id && reused.output.is_some() => {
                self.enter(&reused.key, version, Standing::Parents, Some(reused.workflow.to_string()));
            }
            Fact::OutcomeReconciled { .. }
            | Fact::StepReused(_)
            | Fact::WorkflowStarted(_)
            | Fact::AttemptStarted { .. }
            | Fact::AttemptFailed(_)
            | Fact::StepFailed(_)
            | Fact::StepCancelled { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::CompensationStarted { .. }
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalReceived(_)
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowReopened { .. }
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => {}
        }
    }

    fn asked(&mut self, asked: &StepAsked) {
        if asked.effect == Class::Write && !asked.key.is_aside() {
            self.asked.insert(asked.key.clone(), (asked.kind.clone(), asked.undo.clone()));
        }
    }

    fn happened(&mut self, key: &Key, version: Version) {
        self.settle(key);
        let why = match self.asked.get(key).and_then(|(_, undo)| undo.as_deref()) {
            Some(Undo::Irreversible(why)) => Some(why.clone()),
            Some(Undo::By { .. }) | None => None,
        };
        let standing = if why.is_some() { Standing::Irreversible } else { Standing::Kept };
        self.enter(key, version, standing, why);
    }

    /// That nobody knows is over.
    fn settle(&mut self, key: &Key) {
        let open = self.effects.iter().rposition(|e| e.key == *key && e.standing == Standing::Unknown);
        open.map(|at| self.effects.remove(at));
    }

    fn armed(&mut self, key: &Key, version: Version) {
        let known = self.effects.iter_mut().rfind(|e| e.key == *key && e.standing == Standing::Kept);
        match known {
            Some(effect) => (effect.standing, effect.armed) = (Standing::Armed, Some(version)),
            None => {
                self.asked.insert(key.clone(), (Arc::from("event"), None));
                self.enter(key, version, Standing::Armed, None);
                self.effects.last_mut().into_iter().for_each(|effect| effect.armed = Some(version));
            }
        }
    }

    fn stand(&mut self, armed: Version, standing: Standing, why: Option<String>) {
        if let Some(effect) = self.effects.iter_mut().rfind(|effect| effect.armed == Some(armed)) {
            (effect.standing, effect.why) = (standing, why);
        }
    }

    fn enter(&mut self, key: &Key, version: Version, standing: Standing, why: Option<String>) {
        let Some((kind, _)) = self.asked.get(key) else { return };
        let (key, kind) = (key.clone(), kind.clone());
        self.effects.push(Effect { key, kind, standing, version, armed: None, undone: None, why });
    }
}

fn told(error: &Failure) -> String {
    format!("{} {}", error.status, error.title)
}
