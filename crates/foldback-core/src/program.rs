//! Programs: who asks. A program looks at a state and answers with what it wants next. It does no
//! I/O, reads no clock and holds nothing that the state does not: a kept [`Run`] and one started
//! afresh agree at every version.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Version;
use crate::budget::Measure;
use crate::event::{TaskKind, Undo, UndoStarted};
use crate::key::Key;
use crate::redact::Redaction;
use crate::state::{End, StepStatus, WorkflowState};
use crate::step::{Effect, Failure, Recovery, RetryPolicy};

/// A recipe that a workflow follows. Two exist: the OWS interpreter and Rust code.
pub trait Program: Send + Sync {
    /// A run of this program for a workflow in this state.
    fn start(&self, state: &WorkflowState) -> Box<dyn Run>;

    /// Whether it has a step of this key (`[*]` for any index), where that can be told without running it.
    fn has_step(&self, _key: &Key) -> Option<bool> {
        None
    }

    /// The meaning of the expressions that it evaluates (see [`crate::event::DIALECT`]); `None` where it
    /// evaluates none.
    fn dialect(&self) -> Option<u32> {
        None
    }

    /// What is redacted of everything that comes into its workflows.
    fn redaction(&self) -> Redaction {
        Redaction::default()
    }
}

/// One workflow's program under way. Lives on its engine's loop thread.
pub trait Run {
    /// What the program wants next, given this state. Called again after its asks were recorded,
    /// until it waits, ends or diverges; so it may ask for one thing at a time or for many.
    fn turn(&mut self, state: &WorkflowState) -> Turn;

    /// What the program wants next to take something back. [`Turn::Ends`] says that it is taken back, or
    /// why it cannot be. Asks name keys inside `undo.key.undo()`.
    fn undo(&mut self, _state: &WorkflowState, undo: &UndoStarted) -> Turn {
        Turn::Diverged(Divergence {
            key: undo.key.clone(),
            recorded: format!("`{}` takes it back", undo.handler),
            asked: "the program has no such handler".into(),
        })
    }

    /// What the program wants next to find out whether a `write` happened whose outcome is unknown. What
    /// it ends with says so: `{landed: OUTPUT}`, `{didnt: true}`, or anything else where it cannot be
    /// told. Asks name keys inside `key.reconcile()`.
    fn reconcile(&mut self, _state: &WorkflowState, key: &Key) -> Turn {
        Turn::Diverged(Divergence {
            key: key.clone(),
            recorded: "its outcome is to be looked for".into(),
            asked: "the program has no tasks for it".into(),
        })
    }

    /// Whether a signal that nothing takes yet is one of several that something waits for together.
    fn keeps(&mut self, _state: &WorkflowState, _signal: Version) -> bool {
        false
    }

    /// Whether what was done is taken back when the workflow fails or is cancelled; else a person says.
    fn compensates(&self) -> bool {
        true
    }

    /// The handler that takes back a domain event of this type, where there is one.
    fn undoes_event(&self, _event_type: &str) -> Option<Arc<str>> {
        None
    }

    /// How many jumps back may meet no step and no wait; `None`: any number. One more fails the task that
    /// it leads to: the program finds the failure as the input of [`Key::failed`] of that task.
    fn jumps_max(&self) -> Option<u64> {
        None
    }

    /// Whether the values of facts at this key may be erased one day, so that they are kept beside
    /// the log however short they are. The same at every version.
    fn is_erasable(&self, _key: &Key) -> bool {
        false
    }

    /// Whether what a signal of this name says may be erased one day. The same at every version.
    fn hears_apart(&self, _name: &str) -> bool {
        self.is_erasable(&Key::root())
    }

    /// What the expressions of a task get, in the state just before it begins or fails. For people alone:
    /// nothing is decided by it, so erased values may read as their markers. `None` where the program
    /// does not come to this task, or cannot say.
    fn sees(&mut self, _state: &WorkflowState, _key: &Key) -> Option<Seen> {
        None
    }

    /// The keys whose facts made the workflow fail, or an undo: forgotten when a person reopens it, or wants
    /// it taken back again, so that the program meets these places anew. The step that the failure names, and
    /// what failed in the undo that is stuck, unless a program knows more.
    fn failures(&self, state: &WorkflowState) -> Vec<Key> {
        let has_failed = |key: &&Key| {
            let step = state.step(key);
            let answer = state.entries.get(*key).and_then(|entry| entry.body.failed_answer());
            answer.is_some()
                || step.is_some_and(|step| matches!(step.status, StepStatus::Failed | StepStatus::Cancelled))
        };
        let named = match &state.end {
            Some(End::Failed { error }) => error.key.as_ref(),
            Some(_) | None => None,
        };
        let scope = state.stuck().map(|(undo, _)| undo.key.undo());
        let is_there = |key: &&Key| scope.as_ref().is_some_and(|scope| key.is_inside(scope));
        let in_undo = state.entries.keys().filter(is_there);
        named.into_iter().chain(in_undo).filter(has_failed).cloned().collect()
    }
}

/// A task as its own expressions see it. See [`Run::sees`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Seen {
    /// The kind of task or step, as its definition writes it: `set`, `switch`, `http`.
    pub kind: Arc<str>,
    /// The task's input: `.` of its expressions.
    pub input: Arc<Value>,
    /// The task that gave that input, whatever passed it on since; `None` where it is the input of the scope
    /// around.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Key>,
    /// The values at which its expressions look, by path, each short enough to be read.
    pub values: Map<String, Value>,
    /// Paths before a `//` that gave nothing: the value after it was taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<String>,
    /// The place of the task in its definition (JSON pointer).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<Arc<str>>,
}

/// The answer of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Turn {
    /// Record these, then ask again. Never empty.
    Asks(Vec<Ask>),
    /// Nothing to ask until the world speaks.
    Waits,
    /// The program is done.
    Ends(Result<Value, Failure>),
    /// The log says something else than the program asks for.
    Diverged(Divergence),
}

/// Where a program and its log part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The key at which they part.
    pub key: Key,
    /// What the log says.
    pub recorded: String,
    /// What the program asks.
    pub asked: String,
}

/// One thing a program asks for. Each becomes one consequence in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Work done outside the fold.
    Step(Box<StepAsk>),
    /// To be woken `delay_ms` after the last fact.
    Timer {
        /// Names the wait.
        key: Key,
        /// How long, in ms.
        delay_ms: u64,
        /// Whether firing finishes the task `key`.
        finishes: bool,
        /// Whether it limits the task of its unmarked key, and goes with it.
        limits: bool,
    },
    /// To give up a step or a timer that is open. A `write` under way is still waited for.
    Cancel {
        /// The step or the timer.
        key: Key,
        /// Why.
        reason: String,
    },
    /// A choice to be recorded.
    Decide {
        /// Names the decision.
        key: Key,
        /// What was chosen.
        chosen: String,
        /// Out of what.
        options: Vec<String>,
        /// The values that decided it.
        because: Value,
        /// Whether it finishes the task of its unmarked key.
        finishes: bool,
    },
    /// A scope is entered, or a task's input was computed.
    Start {
        /// The task.
        key: Key,
        /// What kind of task.
        kind: TaskKind,
        /// Its input; for a loop `{"input": …, "items": […]}` is the program's own matter.
        input: Arc<Value>,
    },
    /// A loop is entered whose output is the list of its iterations' outputs.
    Collect {
        /// The loop.
        key: Key,
        /// Its input, as for [`Ask::Start`].
        input: Arc<Value>,
    },
    /// A task ended.
    Finish {
        /// The task.
        key: Key,
        /// What kind of task.
        kind: TaskKind,
        /// Its output.
        output: Arc<Value>,
        /// The new `$context`, where the task exports one.
        context: Option<Arc<Value>>,
    },
    /// A domain event.
    Record {
        /// Names the place that records it, so that it is recorded once.
        key: Key,
        /// Its type, such as `CONTENT_GENERATED`.
        event_type: Arc<str>,
        /// Its data.
        data: Value,
    },
    /// So much may be used by a scope that has begun, or by the workflow.
    Budget {
        /// The scope; the root is the workflow.
        key: Key,
        /// How much.
        limits: std::collections::BTreeMap<Measure, u64>,
    },
    /// To be told of signals of these names.
    Listen {
        /// Names the wait.
        key: Key,
        /// The names.
        names: Vec<Arc<str>>,
        /// How they are joined, and what an answer must look like, for people.
        wants: Value,
    },
    /// Signals are what was waited for: they are taken.
    Take {
        /// The wait.
        key: Key,
        /// The versions at which they came.
        signals: Vec<Version>,
    },
    /// A signal is not what was waited for: it is dropped.
    Refuse {
        /// The wait.
        key: Key,
        /// The version at which it came.
        signal: Version,
        /// Why.
        reason: String,
    },
    /// What was done inside a scope is to be taken back, before the program goes on.
    Compensate {
        /// The scope.
        scope: Key,
        /// Why.
        because: String,
    },
}

/// The ask for a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepAsk {
    /// Names the step.
    pub key: Key,
    /// Which step kind performs it.
    pub kind: Arc<str>,
    /// What it asks: a JSON object, each member a part.
    pub request: Value,
    /// Members of `request` that are lists of values stored on their own (a chat's messages).
    pub lists: &'static [&'static str],
    /// What it does to the world.
    pub effect: Effect,
    /// What happens when its outcome is unknown; ignored unless it is a `write`.
    pub recovery: Recovery,
    /// How long one attempt may take, in ms; the default of [`crate::limits`] when `None`.
    pub timeout_ms: Option<u64>,
    /// When it is tried again.
    pub retry: Option<RetryPolicy>,
    /// JSON pointers in `request` that the performer fills with a secret, by its name.
    pub secrets: std::collections::BTreeMap<String, String>,
    /// Where the task stands in its definition (JSON pointer).
    pub instance: Option<Arc<str>>,
    /// Whether its completion finishes the task `key`.
    pub finishes: bool,
    /// How it is taken back once it has completed; ignored unless it is a `write`.
    pub undo: Option<Undo>,
    /// What those see that find out whether it happened, beside the request; ignored unless its recovery
    /// is [`Recovery::Reconcile`].
    pub given: Option<Arc<Value>>,
}

impl StepAsk {
    /// A step without retries, timeout or secrets whose completion finishes its task.
    pub fn new(key: Key, kind: &str, effect: Effect, request: Value) -> StepAsk {
        StepAsk {
            key,
            kind: Arc::from(kind),
            request,
            lists: &[],
            effect,
            recovery: Recovery::Operator,
            timeout_ms: None,
            retry: None,
            secrets: Default::default(),
            instance: None,
            finishes: true,
            undo: None,
            given: None,
        }
    }

    /// The hash by which two asks are the same: kind, request and the names of secrets, by meaning.
    pub fn request_hash(&self) -> crate::Hash {
        request_hash(&self.kind, &self.request, &self.secrets)
    }
}

/// The hash of kind, request and the names of secrets, by meaning.
pub fn request_hash(kind: &str, request: &Value, secrets: &BTreeMap<String, String>) -> crate::Hash {
    let secrets: Vec<u8> =
        secrets.iter().flat_map(|(at, name)| format!("{at}={name}\n").into_bytes()).collect();
    crate::Hash::of_parts(&[kind.as_bytes(), crate::hash::canonical_json(request).as_bytes(), &secrets])
}
