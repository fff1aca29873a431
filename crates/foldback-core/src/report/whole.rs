//! One step, task or decision whole: everything that its log and its program say about it.
//!
//! Made of the few events that speak of its key and of what the program sees there ([`Seen`]); it never
//! looks at a state and never renders a prompt, which is its connector's matter.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use super::rows::millis_between;
use super::{
    AttemptReport, DecisionReport, Edited, ReportedStatus, ReusedFrom, StepReport, Tokens, decisions, null,
    steps,
};
use crate::event::{Event, Fact, TaskKind, Verdict};
use crate::program::Seen;
use crate::step::{Effect, Failure};
use crate::{Key, Micros, Version};

/// A step, a task or a decision, whole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Whole {
    /// Its key.
    pub key: Key,
    /// The kind of step or task, as a definition writes it; empty where nothing says it.
    pub kind: Arc<str>,
    /// What it does to the world; `None` where it is no step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
    /// Where it stands.
    pub status: ReportedStatus,
    /// The task's input: `.` of its expressions.
    pub input: Arc<Value>,
    /// The task whose end gave that input; `None` where it is the input of the scope around.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_from: Option<Key>,
    /// The values at which its expressions look, by path.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub values: Map<String, Value>,
    /// Paths before a `//` that gave nothing: the value after it was taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// Of a loop: the items that it runs over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<Value>,
    /// Of an iteration: the item that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<Value>,
    /// The request as recorded; `null` where it asks nothing of the world.
    pub request: Arc<Value>,
    /// Places in the request at which a secret is filled in when it is sent, and the secret's name; there
    /// the request reads `null`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The messages that a model is sent, `{role, content}`. Filled in by whoever knows the step kind.
    pub messages: Vec<Value>,
    /// The answer as it came, before the task shaped it.
    pub answer: Arc<Value>,
    /// The output, as the tasks behind it see it.
    pub output: Arc<Value>,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts that did not end it, each with the answer that was rejected.
    pub failed_attempts: Vec<AttemptReport>,
    /// Why it failed, or why its last attempt did.
    pub error: Option<Failure>,
    /// Decisions made at its key.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<DecisionReport>,
    /// Its place in the source of its definition, `file:line:column`. Filled in by whoever has the source.
    pub place: Option<String>,
    /// Its place in the definition, as a JSON pointer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The version of its ask, or of the first fact about it.
    pub asked_version: Option<Version>,
    /// The version with which it completed or failed.
    pub ended_version: Option<Version>,
    /// From its begin to its end, in ms.
    pub duration_ms: Option<u64>,
    /// Tokens of all attempts.
    pub tokens: Tokens,
    /// The cost of all attempts, where it is known.
    pub micro_usd: Option<u64>,
    /// The model that answered, as it calls itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Why the model stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Where its outcome was taken from, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused: Option<ReusedFrom>,
    /// Why it waits for a person, as a `write` of a fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// What became of it, as a `write` whose outcome could not be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<Verdict>,
    /// A part that a person changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited: Option<Edited>,
    /// Who gave the answer, where it is no performer: see [`StepReport::answered`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered: Option<&'static str>,
}

/// Whether [`whole`] needs a fact to tell of a key.
pub fn concerns(key: &Key, fact: &Fact) -> bool {
    fact.key().is_none_or(|found| found == key || found.unmarked() == *key)
        || failure_at(key, fact).is_some()
        || begins_iteration(key, fact)
}

/// Whether a fact says what an iteration begins with: the begin of its loop, or the end of the iteration before.
fn begins_iteration(key: &Key, fact: &Fact) -> bool {
    let Some((scope, index)) = key.itemed() else { return false };
    match fact {
        Fact::TaskStarted { key: found, kind: TaskKind::For, .. } => *found == scope,
        Fact::TaskFinished { key: found, kind: TaskKind::Iteration, .. } => {
            index > 0 && *found == scope.item(index - 1)
        }
        _ => false,
    }
}

/// The failure of this key that a fact holds: of the workflow, of a branch, or of a block.
pub fn failure_at(key: &Key, fact: &Fact) -> Option<Failure> {
    let failure = match fact {
        Fact::WorkflowFailed { error } => error.plain(),
        Fact::TaskStarted { key: at, kind: TaskKind::Shape, input, .. }
            if at.as_str().ends_with("!failed") || at.as_str().ends_with("!catch") =>
        {
            serde_json::from_value((*input.get()).clone()).ok()?
        }
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
        | Fact::WorkflowCompleted { .. }
        | Fact::WorkflowParked { .. } => return None,
    };
    (failure.key.as_ref() == Some(key)).then_some(failure)
}

/// Tells of a key from the events that concern it ([`concerns`]): of the first ask behind `after`, or of the
/// last one. `None` where neither the log nor the program knows it.
pub fn whole(key: &Key, events: &[Event], after: Option<Version>, seen: Option<Seen>) -> Option<Whole> {
    let mut rows: Vec<StepReport> = steps(events);
    rows.retain(|row| row.key == *key);
    let row = match after.and_then(|after| rows.iter().position(|row| row.asked_version > after)) {
        Some(at) => Some(rows.swap_remove(at)),
        None => rows.pop(),
    };
    let task = Task::read(key, events, after.unwrap_or(0));
    if row.is_none() && seen.is_none() && task.first.is_none() && task.error.is_none() {
        return None;
    }
    let mut told = match row {
        Some(row) => of_row(row),
        None => task.whole(key),
    };
    if let Some(error) = task.error {
        // What came behind the answer failed: its shaping, or a schema.
        told.status = ReportedStatus::Failed;
        told.output = null();
        told.error = told.error.or(Some(error));
    }
    told.secrets = secrets_of(told.asked_version, events);
    told.decisions = task.decisions;
    told.items = task.items;
    told.item = task.item;
    told.pointer = told.error.as_ref().and_then(|error| error.instance.clone());
    if let Some(seen) = seen {
        told.kind = seen.kind;
        told.input = seen.input;
        told.input_from = seen.from;
        told.values = seen.values;
        told.fallbacks = seen.fallbacks;
        told.pointer = told.pointer.or(seen.instance.map(|at| at.to_string()));
    }
    Some(told)
}

/// The secrets of the ask at a version.
fn secrets_of(version: Option<Version>, events: &[Event]) -> BTreeMap<String, String> {
    let asked = events.iter().find(|event| Some(event.version) == version);
    let Some(Fact::StepAsked(asked)) = asked.map(|event| &event.fact) else { return BTreeMap::new() };
    asked.secrets.clone()
}

fn of_row(row: StepReport) -> Whole {
    let is_asked = !matches!(&*row.kind, "set" | "compute" | "listen");
    let (request, input) = if is_asked { (row.input, null()) } else { (null(), row.input) };
    let is_done = matches!(row.status, ReportedStatus::Completed | ReportedStatus::Reused);
    let output = row.shaped.unwrap_or_else(|| if is_done { row.output.clone() } else { null() });
    Whole {
        effect: is_asked.then_some(row.effect),
        kind: row.kind,
        status: row.status,
        input,
        request,
        answer: row.output,
        output,
        attempts: row.attempts,
        failed_attempts: row.failed_attempts,
        error: row.error,
        asked_version: Some(row.asked_version),
        ended_version: row.ended_version,
        duration_ms: row.duration_ms,
        tokens: row.tokens,
        micro_usd: row.micro_usd,
        model: row.model,
        finish_reason: row.finish_reason,
        reused: row.reused,
        held: row.held,
        settled: row.settled,
        edited: row.edited,
        answered: row.answered,
        ..Whole::of(&row.key)
    }
}

impl Whole {
    fn of(key: &Key) -> Whole {
        Whole {
            key: key.clone(),
            kind: Arc::from(""),
            effect: None,
            status: ReportedStatus::Pending,
            input: null(),
            input_from: None,
            values: Map::new(),
            fallbacks: Vec::new(),
            items: None,
            item: None,
            request: null(),
            secrets: BTreeMap::new(),
            messages: Vec::new(),
            answer: null(),
            output: null(),
            attempts: 0,
            failed_attempts: Vec::new(),
            error: None,
            decisions: Vec::new(),
            place: None,
            pointer: None,
            asked_version: None,
            ended_version: None,
            duration_ms: None,
            tokens: Tokens::default(),
            micro_usd: Some(0),
            model: None,
            finish_reason: None,
            reused: None,
            held: None,
            settled: None,
            edited: None,
            answered: None,
        }
    }
}

/// What the log says of a key that is no step.
#[derive(Default)]
struct Task {
    first: Option<Version>,
    ended: Option<Version>,
    kind: Option<&'static str>,
    input: Option<Arc<Value>>,
    items: Option<Value>,
    item: Option<Value>,
    collects: bool,
    began_at: Option<Micros>,
    duration_ms: Option<u64>,
    output: Option<Arc<Value>>,
    error: Option<Failure>,
    decisions: Vec<DecisionReport>,
}

impl Task {
    fn read(key: &Key, events: &[Event], after: Version) -> Task {
        let mut task = Task { decisions: decisions(events), ..Task::default() };
        let is_meant = |made: &Key| made == key || made.unmarked() == *key;
        task.decisions.retain(|made| is_meant(&made.key) && made.version > after);
        let is_told = |event: &&Event| event.version > after || begins_iteration(key, &event.fact);
        for event in events.iter().filter(is_told) {
            if let Fact::WorkflowReopened { .. } = &event.fact {
                (task.error, task.ended) = (None, None);
            }
            if let Some(failure) = failure_at(key, &event.fact) {
                (task.error, task.ended) = (Some(failure), Some(event.version));
            } else if event.fact.key().is_some_and(|found| found == key || found.unmarked() == *key) {
                task.first.get_or_insert(event.version);
                task.fact(key, event);
            } else if begins_iteration(key, &event.fact) {
                task.iteration(key, event);
            } else if event.fact.key().is_some_and(|found| found.is_inside(key)) {
                // What is inside an iteration begins it: no fact of its own does.
                task.first.get_or_insert(event.version);
            }
        }
        task
    }

    /// What an iteration begins with: the loop's input, or the output of the iteration before.
    fn iteration(&mut self, key: &Key, event: &Event) {
        self.began_at = Some(event.clock());
        match &event.fact {
            Fact::TaskStarted { input, collects, .. } => {
                let input = input.get();
                let index = key.itemed().and_then(|(_, index)| usize::try_from(index).ok());
                self.item = index.and_then(|index| input.get("items")?.get(index)).cloned();
                self.input = input.get("input").map(|inner| Arc::new(inner.clone()));
                self.collects = *collects;
            }
            Fact::TaskFinished { output, .. } if !self.collects => self.input = Some(output.get()),
            _ => {}
        }
    }

    fn fact(&mut self, key: &Key, event: &Event) {
        let is_own = event.fact.key() == Some(key);
        match &event.fact {
            Fact::TaskStarted { kind, input, .. } if is_own => {
                self.kind = word(*kind).or(self.kind);
                let input = input.get();
                self.items = input.get("items").filter(|_| *kind == TaskKind::For).cloned();
                self.input = match (&self.items, input.get("input")) {
                    (Some(_), Some(inner)) => Some(Arc::new(inner.clone())),
                    _ => Some(input),
                };
            }
            Fact::TaskFinished { kind, output, .. } if is_own => {
                self.kind = word(*kind).or(self.kind);
                (self.output, self.ended) = (Some(output.get()), Some(event.version));
                self.duration_ms = self.began_at.map(|began| millis_between(began, event.clock()));
            }
            // The decision that is asked about (`poll!catch`), or one that ends its task.
            Fact::DecisionMade(made) if is_own || made.finishes => {
                if is_own && key.unmarked() != *key {
                    self.kind = self.kind.or(Some("decision"));
                }
                self.ended = Some(event.version);
            }
            Fact::TimerSet { limits: false, .. } if is_own => self.kind = Some("wait"),
            Fact::TimerFired { .. } if is_own => self.ended = Some(event.version),
            Fact::Recorded { .. } => self.kind = self.kind.or(Some("emit")),
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
            | Fact::WorkflowReopened { .. }
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
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => {}
        }
    }

    fn whole(&self, key: &Key) -> Whole {
        let status = match (self.ended, self.first) {
            (Some(_), _) => ReportedStatus::Completed,
            (None, Some(_)) => ReportedStatus::Running,
            (None, None) => ReportedStatus::Pending,
        };
        let output = self.output.clone().unwrap_or_else(null);
        Whole {
            kind: Arc::from(self.kind.unwrap_or("")),
            status,
            input: self.input.clone().unwrap_or_else(null),
            answer: output.clone(),
            output,
            asked_version: self.first,
            ended_version: self.ended,
            duration_ms: self.duration_ms,
            ..Whole::of(key)
        }
    }
}

/// The word of a definition for a kind of task; `None` for what only shapes a value.
fn word(kind: TaskKind) -> Option<&'static str> {
    match kind {
        TaskKind::Do => Some("do"),
        TaskKind::For => Some("for"),
        TaskKind::Iteration => Some("iteration"),
        TaskKind::Fork => Some("fork"),
        TaskKind::Branch => Some("branch"),
        TaskKind::Try => Some("try"),
        TaskKind::Set => Some("set"),
        TaskKind::Compute => Some("compute"),
        TaskKind::Record => Some("emit"),
        TaskKind::Shape => None,
    }
}
