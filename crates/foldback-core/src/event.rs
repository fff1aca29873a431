//! Events: the facts of a workflow, and the envelope around each.
//!
//! Every fact is by its type a *stimulus* (the world spoke) or a *consequence* (the program
//! answered). A consequence's causation is its stimulus. The list below is closed but for
//! [`Fact::Recorded`], a domain event under its own type name. A shape, once written, is read
//! forever: see `tests/golden`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::budget::Measure;
use crate::change::Changes;
use crate::hash::Hash;
use crate::key::Key;
use crate::step::{Effect, Failure, Recovery, RetryPolicy, Usage};
use crate::value::{Request, Slot};
use crate::{Micros, Version};

mod asking;
mod wire;

pub use wire::{DecodeError, ENGINE_TYPES, clock_of};

/// The id of an event: a UUIDv7 when we make it, any UUID when a caller supplies it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub [u8; 16]);

impl EventId {
    /// The id of a signal for which its sender has an id. It depends on the workflow and on that id alone, so
    /// the store refuses a second one.
    pub fn of_signal(workflow_id: &str, event_id: &str) -> EventId {
        // No workflow's id holds a line feed.
        let hash = Hash::of_bytes(format!("signal\n{workflow_id}\n{event_id}").as_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.0[..16]);
        // A UUID of version 8: made of whatever its maker likes.
        id[6] = 0x80 | (id[6] & 0x0F);
        id[8] = 0x80 | (id[8] & 0x3F);
        EventId(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EventId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<EventId, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let number = u128::from_str_radix(&digits, 16).map_err(serde::de::Error::custom)?;
        Ok(EventId(number.to_be_bytes()))
    }
}

/// One fact in a workflow's log, with the envelope that the fold needs. The parts that only the
/// store knows (position, hashes) are the store's.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Its place in its workflow's log, from 1.
    pub version: Version,
    /// When it was written. Never before the event that stands before it.
    pub timestamp: Micros,
    /// The stimulus that caused it; `None` for a stimulus.
    pub causation_id: Option<EventId>,
    /// What ties events of one affair together: the id of the first workflow's first event.
    pub correlation_id: Option<EventId>,
    /// Who wrote it: `engine`, or who sent the command.
    pub actor: Arc<str>,
    /// The time on the machine's clock, where that was before the event that stands before this one.
    pub clock: Option<Micros>,
    /// What happened.
    pub fact: Fact,
}

impl Event {
    /// The time on the machine's clock when it was written: delays count from here. The timestamp may be
    /// later, since timestamps never go back within a workflow.
    pub fn clock(&self) -> Micros {
        self.clock.unwrap_or(self.timestamp)
    }
}

/// Whether the world spoke or the program answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The world spoke: started, a step reported, a timer fired, a command.
    Stimulus,
    /// The program answered: asked, decided, ended.
    Consequence,
}

/// What kind of task a [`Fact::TaskStarted`] or [`Fact::TaskFinished`] speaks of. It settles what
/// finishing supersedes in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// A list of tasks.
    Do,
    /// A loop; its iterations come one after the other.
    For,
    /// One iteration of a loop; finishing it leaves only its output, in the loop.
    Iteration,
    /// Branches side by side.
    Fork,
    /// One branch; its output stays until the branches join.
    Branch,
    /// A block whose failures may be caught.
    Try,
    /// A computed value.
    Set,
    /// A computation in Rust.
    Compute,
    /// A domain event that the program recorded.
    Record,
    /// A step, a decision or a wait whose output was shaped after it ended.
    Shape,
}

/// Where a fork comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// The parent's id.
    pub parent: String,
    /// The last version that both share.
    pub cut: Version,
    /// The parent's hash there.
    pub cut_hash: Hash,
}

fn is_first(generation: &u32) -> bool {
    *generation == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn no_secrets(map: &std::collections::BTreeMap<String, String>) -> bool {
    map.is_empty()
}

/// What happened. Each variant's doc says who writes it; `docs/events.md` says what it changes and
/// which states refuse it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)] // the type stands in the envelope, the payload holds the fields alone
#[allow(missing_docs)] // the fields of each variant are named by the table in docs/events.md
pub enum Fact {
    /// Stimulus, version 1: a workflow began.
    WorkflowStarted(WorkflowStarted),
    /// Consequence: the program asks for a step.
    StepAsked(Box<StepAsked>),
    /// Stimulus, the engine's own: an attempt after the first begins (or a first one that did
    /// not begin at once).
    AttemptStarted {
        key: Key,
        attempt: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        lost: Option<Lost>,
    },
    /// Stimulus: an attempt failed and the step's policy grants another.
    AttemptFailed(Box<AttemptFailed>),
    /// Stimulus: the step did what was asked.
    StepCompleted(Box<StepCompleted>),
    /// Stimulus: the step failed for good.
    StepFailed(Box<StepFailed>),
    /// Stimulus: nobody knows whether a `write` happened.
    OutcomeUnknown { key: Key, attempt: u32, reason: String },
    /// Consequence: the program's tasks found out what became of an unknown outcome, or could not.
    OutcomeReconciled {
        key: Key,
        found: Found,
        #[serde(skip_serializing_if = "Option::is_none")]
        landed: Option<Slot>,
        reason: String,
    },
    /// Consequence: the program gave a step up. What had not begun, waited for its next attempt, or
    /// only looked at the world ends with this; a `write` under way is waited for, and has no
    /// further attempt. `attempt` is the one that was under way.
    StepCancelled {
        key: Key,
        #[serde(skip_serializing_if = "Option::is_none")]
        attempt: Option<u32>,
        reason: String,
    },
    /// Stimulus: a person settled an unknown outcome. With an output it landed; without, not. Of an undo
    /// that is stuck (`charge!undo`), which landed: it was done by hand.
    OutcomeResolved {
        key: Key,
        #[serde(skip_serializing_if = "Option::is_none")]
        landed: Option<Slot>,
    },
    /// Consequence: the program waits for a moment.
    TimerSet {
        key: Key,
        due: Micros,
        #[serde(skip_serializing_if = "is_false")]
        finishes: bool,
        /// Whether it limits the task of its unmarked key: it holds no scope open, and goes when
        /// that task ends.
        #[serde(skip_serializing_if = "is_false")]
        limits: bool,
    },
    /// Stimulus: the moment came.
    TimerFired { key: Key },
    /// Consequence: the program no longer waits for that moment.
    TimerCancelled { key: Key, reason: String },
    /// Consequence: a choice.
    DecisionMade(Box<DecisionMade>),
    /// Consequence: a scope was entered, or a task's input was computed.
    TaskStarted {
        /// The task.
        key: Key,
        /// What kind of task.
        kind: TaskKind,
        /// Its input.
        input: Slot,
        /// Whether it is a loop whose output is the list of its iterations' outputs.
        #[serde(skip_serializing_if = "is_false")]
        collects: bool,
    },
    /// Consequence: a task ended with an output; what lies inside it is superseded.
    TaskFinished {
        key: Key,
        kind: TaskKind,
        output: Slot,
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<Slot>,
    },
    /// Consequence: a completed `write`, or a domain event, armed its undo.
    UndoArmed(Box<UndoArmed>),
    /// Stimulus, the engine's own: what was armed is being taken back. It holds all that its handler
    /// sees, so that a fold needs no other event.
    UndoStarted(Box<UndoStarted>),
    /// Consequence: what was armed at this version is taken back.
    UndoCompleted {
        key: Key,
        armed: Version,
        #[serde(skip_serializing_if = "Key::is_root")]
        scope: Key,
    },
    /// Consequence: what was armed at this version could not be taken back.
    UndoFailed {
        key: Key,
        armed: Version,
        #[serde(skip_serializing_if = "Key::is_root")]
        scope: Key,
        error: Failure,
    },
    /// Consequence: what was done inside a scope (the root: all of it) is to be taken back.
    CompensationStarted { scope: Key, because: String },
    /// Stimulus: a person wants what was done taken back: all that was armed after `down_to` and not
    /// after `from`. Of an undo that failed, the facts of these keys are forgotten: they are met anew.
    CompensationRequested {
        reason: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Version>,
        #[serde(skip_serializing_if = "Option::is_none")]
        down_to: Option<Version>,
        again: Vec<Key>,
    },
    /// Stimulus, the engine's own: nothing is left to be taken back there.
    CompensationEnded { scope: Key },
    /// Stimulus: a person ends the workflow. What had not begun, or only looked at the world, ends with
    /// it; a `write` under way is waited for.
    WorkflowCancelled { reason: String },
    /// Consequence (or a caller's append, then without a key): a domain event under its own type.
    Recorded {
        #[serde(skip)]
        event_type: Arc<str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        key: Option<Key>,
        data: Slot,
        /// What takes it back, where its program takes such events back.
        #[serde(skip_serializing_if = "Option::is_none")]
        handler: Option<Arc<str>>,
    },
    /// Stimulus: a person reopens a workflow that failed or was parked. The facts of these keys are
    /// forgotten, so that their places are met anew. With `back_to` the state is first the one at that
    /// version, and the keys are the steps that were open there, which are owed anew; what lies between
    /// stands in the log, and its outcomes are taken by the rules of a fork.
    WorkflowReopened {
        reason: String,
        again: Vec<Key>,
        #[serde(skip_serializing_if = "Option::is_none")]
        back_to: Option<Version>,
        #[serde(skip_serializing_if = "Option::is_none")]
        changes: Option<Box<Changes>>,
    },
    /// Stimulus: the first event of a fork. The past up to the cut is the parent's.
    WorkflowForked(Box<WorkflowForked>),
    /// Stimulus: a step takes the outcome that was recorded for it in the past that it left.
    StepReused(Box<StepReused>),
    /// Stimulus: a `write` of a fork waits for a person: its outcome cannot be taken from the past.
    WriteHeld { key: Key, reason: String },
    /// Stimulus: what becomes of a `write` whose outcome cannot be taken: by a person, or by a policy.
    WriteSettled {
        key: Key,
        verdict: Verdict,
        #[serde(skip_serializing_if = "Option::is_none")]
        output: Option<Slot>,
        reason: String,
    },
    /// Stimulus: a person wants nothing more to begin.
    WorkflowPaused { reason: String },
    /// Stimulus: a person lets it go on, with budgets that are raised.
    WorkflowUnpaused {
        reason: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        raised: Vec<Raised>,
    },
    /// Consequence: a scope that has begun (the root: the workflow) may use so much.
    BudgetSet { key: Key, limits: BTreeMap<Measure, u64> },
    /// Consequence: a budget comes to its end.
    BudgetWarned { scope: Key, measure: Measure, spent: u64, limit: u64 },
    /// Consequence: a budget is used up, and something waits to begin: the workflow is paused.
    BudgetExceeded { scope: Key, measure: Measure, spent: u64, limit: u64 },
    /// Stimulus: somebody says something to the workflow.
    SignalReceived(Box<SignalReceived>),
    /// Consequence: the program waits for signals of these names. `wants` is for people: how they are
    /// joined, and what an answer must look like.
    ListenStarted { key: Key, names: Vec<Arc<str>>, wants: Slot },
    /// Consequence: these signals are what was waited for.
    SignalTaken { key: Key, signals: Vec<Version> },
    /// Consequence: a signal is not what was waited for, and is dropped.
    SignalRefused { key: Key, signal: Version, reason: String },
    /// Consequence: the program ended well.
    WorkflowCompleted { output: Slot },
    /// Consequence: the program ended badly.
    WorkflowFailed { error: Failure },
    /// Consequence: the program asks for something else than the log says it asked for.
    WorkflowParked { key: Key, recorded: String, asked: String },
}

/// See [`Fact::WorkflowStarted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowStarted {
    /// The hash of the definition it follows.
    pub definition: Hash,
    /// What a person calls the definition.
    pub name: String,
    /// The file that it was loaded from, by its whole path, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Its input.
    pub input: Slot,
    /// Where it comes from, for a fork.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// The meaning of expressions when it began: see [`DIALECT`]. Logs that do not say are of the first.
    #[serde(default = "first_dialect", skip_serializing_if = "is_first_dialect")]
    pub dialect: u32,
}

/// The meaning that expressions of a definition have in this build. It is raised when one of them could
/// give something else than before: 1 was jq as jaq reads it, 2 is jq as jq 1.8 does.
pub const DIALECT: u32 = 2;

fn first_dialect() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_first_dialect(dialect: &u32) -> bool {
    *dialect == 1
}

/// See [`Fact::WorkflowForked`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowForked {
    /// Where it comes from.
    pub lineage: Lineage,
    /// Steps that were open at the cut, and are owed anew.
    pub again: Vec<Key>,
    /// What is changed in it.
    pub changes: Changes,
}

/// See [`Fact::StepReused`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepReused {
    /// The step.
    pub key: Key,
    /// In whose log the outcome stands.
    pub workflow: Arc<str>,
    /// At which version.
    pub version: Version,
    /// What the step gave; `None` where it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Slot>,
    /// Why it failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What becomes of a `write` of a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is performed.
    Live,
    /// It is taken for done, with an output that was said; nothing happens.
    Stub,
    /// It fails; nothing happens.
    Deny,
}

/// What was found out about an unknown outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Found {
    /// It happened.
    Landed,
    /// It did not happen: it is sent again.
    Didnt,
    /// It cannot be told: a person is asked.
    Unknown,
}

/// See [`Fact::StepAsked`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepAsked {
    /// The step's name.
    pub key: Key,
    /// Which step kind performs it: `http`, `llm`, `shell`, …
    pub kind: Arc<str>,
    /// What it asks, as data.
    pub request: Request,
    /// The hash of kind and request, by meaning.
    pub request_hash: Hash,
    /// The hash of what the program asked, where an edit changed the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program_hash: Option<Hash>,
    /// What it does to the world.
    pub effect: Effect,
    /// What happens when its outcome is unknown. Only a `write` has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// How long one attempt may take, in ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Where in the request (JSON pointer) which secret is put by the performer, by name.
    #[serde(default, skip_serializing_if = "no_secrets")]
    pub secrets: std::collections::BTreeMap<String, String>,
    /// Where the task stands in its definition (JSON pointer), for errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Arc<str>>,
    /// Whether its completion finishes the task of this key, or a `TaskFinished` follows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub finishes: bool,
    /// Whether the first attempt starts with this fact.
    #[serde(default, skip_serializing_if = "is_false")]
    pub starts: bool,
    /// How it is taken back once it has completed. Only a `write` has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Box<Undo>>,
    /// What those see that find out whether it happened, beside the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Slot>,
}

/// The attempt before, where its process died under it. What it did, and what it used (a model
/// call is paid for all the same), is in no event: this says that it is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Which attempt.
    pub attempt: u32,
    /// How long it may have been under way, in ms: from its start to this fact, but no longer than
    /// the step's timeout.
    pub at_most_ms: u64,
    /// How it was lost.
    pub reason: String,
}

/// See [`Fact::AttemptFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptFailed {
    /// The step.
    pub key: Key,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// Why.
    pub error: Failure,
    /// The delay until the next attempt, in ms: decided here, once.
    pub delay_ms: u64,
    /// When the next attempt is due.
    pub due: Micros,
    /// The answer that was rejected, where the next attempt is a repair round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Slot>,
    /// What the attempt used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Whether it is only believed to have failed: a `write` with an unknown outcome that its
    /// recovery sends again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unknown: bool,
    /// The variant of the request that the next attempts take, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<u32>,
}

/// See [`Fact::StepCompleted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepCompleted {
    /// The step.
    pub key: Key,
    /// Which attempt, from 1.
    pub attempt: u32,
    /// What it answered.
    pub output: Slot,
    /// How long the attempt took, in ms, as its performer saw it.
    pub latency_ms: u64,
    /// What a model call used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// See [`Fact::StepFailed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepFailed {
    /// The step.
    pub key: Key,
    /// Which attempt was the last, from 1.
    pub attempt: u32,
    /// Why.
    pub error: Failure,
    /// The answer that was rejected, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Slot>,
    /// What the attempt used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A budget that a person raises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Raised {
    /// Of which scope; the root is the workflow.
    #[serde(default = "Key::root", skip_serializing_if = "Key::is_root")]
    pub scope: Key,
    /// Of what.
    pub measure: Measure,
    /// How much there is from now on, in all.
    pub limit: u64,
}

/// See [`Fact::SignalReceived`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalReceived {
    /// Its name: the type of the event.
    pub name: Arc<str>,
    /// Its data.
    pub data: Slot,
    /// The workflow whose event it is, where a person did not send it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Arc<str>>,
    /// The sender's id for it: a second signal with this id is the same signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Arc<str>>,
    /// The failure that it reports: the wait that takes it fails with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// How a `write` is taken back once it has completed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Undo {
    /// By a handler of the program.
    By {
        /// Its name: where the tasks stand in the definition, a registered function, an event type.
        handler: Arc<str>,
        /// What it is given, beside the output.
        given: Slot,
    },
    /// Not at all: why, and what to tell the person.
    Irreversible(String),
}

/// See [`Fact::UndoArmed`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoArmed {
    /// The step, or the place that recorded the domain event.
    pub key: Key,
    /// What takes it back: see [`Undo::By`].
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub handler: Arc<str>,
    /// What the handler is given, beside the output.
    pub undo: Slot,
    /// What the step answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Slot>,
    /// The version of the undo that was armed before and is not taken back; none where this is the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Version>,
    /// How often what stands there was taken back before it was done.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
}

/// See [`Fact::UndoStarted`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UndoStarted {
    /// The step that is taken back.
    pub key: Key,
    /// The version at which its undo was armed.
    pub armed: Version,
    /// Of which compensation this is a part; the root of all.
    #[serde(default = "Key::root", skip_serializing_if = "Key::is_root")]
    pub scope: Key,
    /// What takes it back.
    pub handler: Arc<str>,
    /// What the handler is given, beside the output; `None` where it was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Slot>,
    /// What the step answered; `None` where it was erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Slot>,
    /// The undo that was armed before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Version>,
    /// How often what stands there was taken back before it was done: what takes it back now does not
    /// bear the idempotency key of what took it back then.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
}

/// See [`Fact::DecisionMade`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionMade {
    /// The decision's name: a task's key, or one with a mark such as `!if`.
    pub key: Key,
    /// What was chosen, one of `options`.
    pub chosen: String,
    /// Out of what.
    pub options: Vec<String>,
    /// The values that decided it.
    pub because: Slot,
    /// Whether the decision finishes the task of its (unmarked) key.
    #[serde(default, skip_serializing_if = "is_false")]
    pub finishes: bool,
}
