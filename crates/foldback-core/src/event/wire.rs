//! Events on the wire: facts to and from their stored JSON. The type stands in the envelope, the
//! payload holds the fields alone. Golden files pin every shape that was ever written.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Event, Fact, Found, Lost, Raised, TaskKind, Verdict};
use crate::budget::Measure;
use crate::change::Changes;
use crate::key::Key;
use crate::step::Failure;
use crate::value::Slot;
use crate::{Micros, Version};

/// The fields of the variants that are written inline in the enum, for reading.
mod shape {
    use super::*;

    #[derive(Deserialize)]
    pub struct AttemptStarted {
        pub key: Key,
        pub attempt: u32,
        #[serde(default)]
        pub lost: Option<Lost>,
    }
    #[derive(Deserialize)]
    pub struct OutcomeUnknown {
        pub key: Key,
        pub attempt: u32,
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct OutcomeResolved {
        pub key: Key,
        #[serde(default)]
        pub landed: Option<Slot>,
    }
    #[derive(Deserialize)]
    pub struct StepCancelled {
        pub key: Key,
        #[serde(default)]
        pub attempt: Option<u32>,
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct TimerSet {
        pub key: Key,
        pub due: Micros,
        #[serde(default)]
        pub finishes: bool,
        #[serde(default)]
        pub limits: bool,
    }
    #[derive(Deserialize)]
    pub struct TimerCancelled {
        pub key: Key,
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct TimerFired {
        pub key: Key,
    }
    #[derive(Deserialize)]
    pub struct TaskStarted {
        pub key: Key,
        pub kind: TaskKind,
        pub input: Slot,
        #[serde(default)]
        pub collects: bool,
    }
    #[derive(Deserialize)]
    pub struct TaskFinished {
        pub key: Key,
        pub kind: TaskKind,
        pub output: Slot,
        #[serde(default)]
        pub context: Option<Slot>,
    }
    #[derive(Deserialize)]
    pub struct OutcomeReconciled {
        pub key: Key,
        pub found: Found,
        #[serde(default)]
        pub landed: Option<Slot>,
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct UndoCompleted {
        pub key: Key,
        pub armed: Version,
        #[serde(default = "Key::root")]
        pub scope: Key,
    }
    #[derive(Deserialize)]
    pub struct UndoFailed {
        pub key: Key,
        pub armed: Version,
        #[serde(default = "Key::root")]
        pub scope: Key,
        pub error: Failure,
    }
    #[derive(Deserialize)]
    pub struct CompensationStarted {
        pub scope: Key,
        pub because: String,
    }
    #[derive(Deserialize)]
    pub struct CompensationRequested {
        pub reason: String,
        #[serde(default)]
        pub from: Option<Version>,
        #[serde(default)]
        pub down_to: Option<Version>,
        pub again: Vec<Key>,
    }
    #[derive(Deserialize)]
    pub struct CompensationEnded {
        pub scope: Key,
    }
    #[derive(Deserialize)]
    pub struct WorkflowCancelled {
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct Recorded {
        #[serde(default)]
        pub key: Option<Key>,
        pub data: Slot,
        #[serde(default)]
        pub handler: Option<Arc<str>>,
    }
    #[derive(Deserialize)]
    pub struct WorkflowReopened {
        pub reason: String,
        pub again: Vec<Key>,
        #[serde(default)]
        pub back_to: Option<Version>,
        #[serde(default)]
        pub changes: Option<Box<Changes>>,
    }
    #[derive(Deserialize)]
    pub struct WriteHeld {
        pub key: Key,
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct WriteSettled {
        pub key: Key,
        pub verdict: Verdict,
        #[serde(default)]
        pub output: Option<Slot>,
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct WorkflowPaused {
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct WorkflowUnpaused {
        pub reason: String,
        #[serde(default)]
        pub raised: Vec<Raised>,
    }
    #[derive(Deserialize)]
    pub struct BudgetSet {
        pub key: Key,
        pub limits: BTreeMap<Measure, u64>,
    }
    #[derive(Deserialize)]
    pub struct OfBudget {
        pub scope: Key,
        pub measure: Measure,
        pub spent: u64,
        pub limit: u64,
    }
    #[derive(Deserialize)]
    pub struct ListenStarted {
        pub key: Key,
        pub names: Vec<Arc<str>>,
        pub wants: Slot,
    }
    #[derive(Deserialize)]
    pub struct SignalTaken {
        pub key: Key,
        pub signals: Vec<Version>,
    }
    #[derive(Deserialize)]
    pub struct SignalRefused {
        pub key: Key,
        pub signal: Version,
        pub reason: String,
    }
    #[derive(Deserialize)]
    pub struct WorkflowCompleted {
        pub output: Slot,
    }
    #[derive(Deserialize)]
    pub struct WorkflowFailed {
        pub error: Failure,
    }
    #[derive(Deserialize)]
    pub struct WorkflowParked {
        pub key: Key,
        pub recorded: String,
        pub asked: String,
    }
}

/// An event that this build cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// The event's type.
    pub event_type: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event of type {}: {}", self.event_type, self.reason)
    }
}

impl std::error::Error for DecodeError {}

/// The types that are the engine's own: a domain event may not take one of these names.
pub const ENGINE_TYPES: [&str; 41] = [
    "WorkflowStarted",
    "StepAsked",
    "AttemptStarted",
    "AttemptFailed",
    "StepCompleted",
    "StepFailed",
    "OutcomeUnknown",
    "OutcomeResolved",
    "OutcomeReconciled",
    "StepCancelled",
    "TimerSet",
    "TimerFired",
    "TimerCancelled",
    "DecisionMade",
    "TaskStarted",
    "TaskFinished",
    "UndoArmed",
    "UndoStarted",
    "UndoCompleted",
    "UndoFailed",
    "CompensationStarted",
    "CompensationRequested",
    "CompensationEnded",
    "WorkflowCancelled",
    "WorkflowPaused",
    "WorkflowUnpaused",
    "BudgetSet",
    "BudgetWarned",
    "BudgetExceeded",
    "SignalReceived",
    "ListenStarted",
    "SignalTaken",
    "SignalRefused",
    "WorkflowCompleted",
    "WorkflowFailed",
    "WorkflowParked",
    "WorkflowReopened",
    "WorkflowForked",
    "StepReused",
    "WriteHeld",
    "WriteSettled",
];

impl Event {
    /// The payload as JSON text: that of the fact, then `clock` where it differs from the timestamp.
    pub fn encode(&self) -> String {
        let mut payload = self.fact.encode();
        if let Some(clock) = self.clock
            && payload.pop() == Some('}')
        {
            payload.push_str(&format!("{CLOCK}{clock}}}"));
        }
        payload
    }
}

/// How `clock` is written: always as the last member of a payload.
const CLOCK: &str = ",\"clock\":";

/// The time on the machine's clock that a payload holds beside its fact.
pub fn clock_of(payload: &str) -> Option<Micros> {
    #[derive(Deserialize)]
    struct OfClock {
        #[serde(default)]
        clock: Option<Micros>,
    }
    // Few have one, and reading all of every payload once more would halve the speed of a fold.
    let before = payload.rfind(CLOCK).filter(|at| payload.len() - at <= CLOCK.len() + 21)?;
    let digits = payload[before + CLOCK.len()..].strip_suffix('}')?;
    digits.parse::<Micros>().ok()?;
    serde_json::from_str::<OfClock>(payload).ok()?.clock
}

impl Fact {
    /// The payload of the fact as JSON text.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).expect("a fact has a JSON text")
    }

    /// Reads a fact from its type, the version of its shape and its payload.
    ///
    /// Every type but the engine's own is a domain event. A shape that is newer than this build
    /// is refused: guessing at a fact is worse than stopping.
    pub fn decode(event_type: &str, schema_version: u32, payload: &str) -> Result<Fact, DecodeError> {
        fn read<'a, T: Deserialize<'a>>(payload: &'a str) -> Result<T, String> {
            serde_json::from_str(payload).map_err(|e| e.to_string())
        }
        let fail = |reason: String| DecodeError { event_type: event_type.to_owned(), reason };
        if schema_version != 1 {
            return Err(fail(format!("shape {schema_version} is not known to this build of Foldback")));
        }
        let fact = match event_type {
            "WorkflowStarted" => read(payload).map(Fact::WorkflowStarted),
            "StepAsked" => read(payload).map(Fact::StepAsked),
            "AttemptFailed" => read(payload).map(Fact::AttemptFailed),
            "StepCompleted" => read(payload).map(Fact::StepCompleted),
            "StepFailed" => read(payload).map(Fact::StepFailed),
            "DecisionMade" => read(payload).map(Fact::DecisionMade),
            "AttemptStarted" => read(payload).map(|shape::AttemptStarted { key, attempt, lost }| {
                Fact::AttemptStarted { key, attempt, lost }
            }),
            "OutcomeUnknown" => read(payload).map(|shape::OutcomeUnknown { key, attempt, reason }| {
                Fact::OutcomeUnknown { key, attempt, reason }
            }),
            "OutcomeResolved" => read(payload)
                .map(|shape::OutcomeResolved { key, landed }| Fact::OutcomeResolved { key, landed }),
            "OutcomeReconciled" => {
                read(payload).map(|shape::OutcomeReconciled { key, found, landed, reason }| {
                    Fact::OutcomeReconciled { key, found, landed, reason }
                })
            }
            "StepCancelled" => read(payload).map(|shape::StepCancelled { key, attempt, reason }| {
                Fact::StepCancelled { key, attempt, reason }
            }),
            "TimerSet" => read(payload).map(|shape::TimerSet { key, due, finishes, limits }| {
                Fact::TimerSet { key, due, finishes, limits }
            }),
            "TimerCancelled" => read(payload)
                .map(|shape::TimerCancelled { key, reason }| Fact::TimerCancelled { key, reason }),
            "TimerFired" => read(payload).map(|shape::TimerFired { key }| Fact::TimerFired { key }),
            "TaskStarted" => read(payload).map(|shape::TaskStarted { key, kind, input, collects }| {
                Fact::TaskStarted { key, kind, input, collects }
            }),
            "TaskFinished" => read(payload).map(|shape::TaskFinished { key, kind, output, context }| {
                Fact::TaskFinished { key, kind, output, context }
            }),
            "UndoArmed" => read(payload).map(Fact::UndoArmed),
            "UndoStarted" => read(payload).map(Fact::UndoStarted),
            "UndoCompleted" => read(payload)
                .map(|shape::UndoCompleted { key, armed, scope }| Fact::UndoCompleted { key, armed, scope }),
            "UndoFailed" => read(payload).map(|shape::UndoFailed { key, armed, scope, error }| {
                Fact::UndoFailed { key, armed, scope, error }
            }),
            "CompensationStarted" => read(payload).map(|shape::CompensationStarted { scope, because }| {
                Fact::CompensationStarted { scope, because }
            }),
            "CompensationRequested" => {
                read(payload).map(|shape::CompensationRequested { reason, from, down_to, again }| {
                    Fact::CompensationRequested { reason, from, down_to, again }
                })
            }
            "CompensationEnded" => {
                read(payload).map(|shape::CompensationEnded { scope }| Fact::CompensationEnded { scope })
            }
            "WorkflowCancelled" => {
                read(payload).map(|shape::WorkflowCancelled { reason }| Fact::WorkflowCancelled { reason })
            }
            "WorkflowForked" => read(payload).map(Fact::WorkflowForked),
            "StepReused" => read(payload).map(Fact::StepReused),
            "WriteHeld" => {
                read(payload).map(|shape::WriteHeld { key, reason }| Fact::WriteHeld { key, reason })
            }
            "WriteSettled" => read(payload).map(|shape::WriteSettled { key, verdict, output, reason }| {
                Fact::WriteSettled { key, verdict, output, reason }
            }),
            "WorkflowReopened" => {
                read(payload).map(|shape::WorkflowReopened { reason, again, back_to, changes }| {
                    Fact::WorkflowReopened { reason, again, back_to, changes }
                })
            }
            "WorkflowPaused" => {
                read(payload).map(|shape::WorkflowPaused { reason }| Fact::WorkflowPaused { reason })
            }
            "WorkflowUnpaused" => read(payload)
                .map(|shape::WorkflowUnpaused { reason, raised }| Fact::WorkflowUnpaused { reason, raised }),
            "BudgetSet" => {
                read(payload).map(|shape::BudgetSet { key, limits }| Fact::BudgetSet { key, limits })
            }
            "BudgetWarned" => read(payload).map(|shape::OfBudget { scope, measure, spent, limit }| {
                Fact::BudgetWarned { scope, measure, spent, limit }
            }),
            "BudgetExceeded" => read(payload).map(|shape::OfBudget { scope, measure, spent, limit }| {
                Fact::BudgetExceeded { scope, measure, spent, limit }
            }),
            "SignalReceived" => read(payload).map(Fact::SignalReceived),
            "ListenStarted" => read(payload)
                .map(|shape::ListenStarted { key, names, wants }| Fact::ListenStarted { key, names, wants }),
            "SignalTaken" => {
                read(payload).map(|shape::SignalTaken { key, signals }| Fact::SignalTaken { key, signals })
            }
            "SignalRefused" => read(payload).map(|shape::SignalRefused { key, signal, reason }| {
                Fact::SignalRefused { key, signal, reason }
            }),
            "WorkflowCompleted" => {
                read(payload).map(|shape::WorkflowCompleted { output }| Fact::WorkflowCompleted { output })
            }
            "WorkflowFailed" => {
                read(payload).map(|shape::WorkflowFailed { error }| Fact::WorkflowFailed { error })
            }
            "WorkflowParked" => read(payload).map(|shape::WorkflowParked { key, recorded, asked }| {
                Fact::WorkflowParked { key, recorded, asked }
            }),
            domain => read(payload).map(|shape::Recorded { key, data, handler }| Fact::Recorded {
                event_type: Arc::from(domain),
                key,
                data,
                handler,
            }),
        };
        fact.map_err(fail)
    }
}

/// The payload with every slot replaced by its value: what `events --json` and people read. Slots
/// that are not at hand read `null`.
impl Fact {
    /// See the impl's documentation.
    pub fn plain(&self) -> Value {
        if let Fact::Recorded { data, .. } = self {
            return (*data.get()).clone();
        }
        let mut value: Value = serde_json::from_str(&self.encode()).expect("what we encode is JSON");
        let open = |slot: &Slot| (*slot.get()).clone();
        match self {
            Fact::WorkflowStarted(e) => value["input"] = open(&e.input),
            Fact::StepAsked(e) => {
                value["request"] = e.request.to_json();
                if let Some(given) = e.undo.as_ref().and_then(|undo| undo.given()) {
                    value["undo"]["by"]["given"] = open(given);
                }
                e.given.iter().for_each(|s| value["given"] = open(s));
            }
            Fact::AttemptFailed(e) => e.rejected.iter().for_each(|s| value["rejected"] = open(s)),
            Fact::StepCompleted(e) => value["output"] = open(&e.output),
            Fact::StepFailed(e) => e.rejected.iter().for_each(|s| value["rejected"] = open(s)),
            Fact::OutcomeResolved { landed, .. } | Fact::OutcomeReconciled { landed, .. } => {
                landed.iter().for_each(|s| value["landed"] = open(s));
            }
            Fact::DecisionMade(e) => value["because"] = open(&e.because),
            Fact::TaskStarted { input, .. } => value["input"] = open(input),
            Fact::TaskFinished { output, context, .. } => {
                value["output"] = open(output);
                context.iter().for_each(|s| value["context"] = open(s));
            }
            Fact::UndoArmed(e) => {
                value["undo"] = open(&e.undo);
                e.output.iter().for_each(|s| value["output"] = open(s));
            }
            Fact::UndoStarted(e) => {
                e.undo.iter().for_each(|s| value["undo"] = open(s));
                e.output.iter().for_each(|s| value["output"] = open(s));
            }
            Fact::WorkflowCompleted { output } => value["output"] = open(output),
            Fact::SignalReceived(e) => value["data"] = open(&e.data),
            Fact::ListenStarted { wants, .. } => value["wants"] = open(wants),
            Fact::StepReused(e) => e.output.iter().for_each(|s| value["output"] = open(s)),
            Fact::WriteSettled { output, .. } => output.iter().for_each(|s| value["output"] = open(s)),
            Fact::WorkflowForked(e) => open_changes(&mut value["changes"], &e.changes),
            Fact::WorkflowReopened { changes, .. } => {
                changes.iter().for_each(|changes| open_changes(&mut value["changes"], changes));
            }
            Fact::Recorded { .. }
            | Fact::AttemptStarted { .. }
            | Fact::OutcomeUnknown { .. }
            | Fact::StepCancelled { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::WriteHeld { .. }
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
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
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => {}
        }
        if let Some(detail) = self.failure().and_then(|failure| failure.detail.as_ref()) {
            value["error"]["detail"] = open(detail.slot());
        }
        value
    }
}

fn open_changes(value: &mut Value, changes: &Changes) {
    let open = |slot: &Slot| (*slot.get()).clone();
    for (i, edit) in changes.edits.iter().enumerate() {
        value["edits"][i]["value"] = open(&edit.value);
    }
    for (i, given) in changes.outputs.iter().enumerate() {
        value["outputs"][i]["output"] = open(&given.output);
    }
    changes.input.iter().for_each(|slot| value["input"] = open(slot));
}
