//! Erasing values of a workflow: which lie beside the log, where else they stand, and what still
//! holds them afterwards.
//!
//! Invariants: a plan touches nothing; what is carried out is what was planned; the log is never
//! rewritten, so a value that stands inline in it stays. What it never does: look for a value in
//! another spelling, in other workflows (but for the same value by its address), or in a backup.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use foldback_core::report::nearest;
use foldback_core::text::shell_word;
use foldback_core::{Event, Fact, Hash, Key, Micros, Slot, Version};
use foldback_engine::{LoadError, events_of};
use foldback_store::forgetting::mentions;
use foldback_store::{Erasure, NotForgotten, Ownership, Store, StoreError, Tombstone, WorkflowRow};
use serde::Serialize;
use serde_json::Value;

/// Texts with fewer bytes are not looked for in other events: they stand in every second one.
const SOUGHT_MIN_BYTES: usize = 8;

/// Which of a key's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What it was given: a task's input, the values of a decision, the workflow's input.
    Input,
    /// What it gave: an answer, a rejected one too, what its error says, and what the task made of it.
    Output,
    /// What a step asked.
    Request,
}

/// What is to be erased: `KEY`, `KEY:input`, `KEY:output` or `KEY:request`. The empty key is the
/// workflow itself. A step's input is its request, as in its report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose values.
    pub key: Key,
    /// Which of them; all when `None`.
    pub side: Option<Side>,
}

impl From<&str> for Target {
    fn from(text: &str) -> Target {
        let sides = [("input", Side::Input), ("output", Side::Output), ("request", Side::Request)];
        let found = text.rsplit_once(':').and_then(|(key, word)| {
            let (_, side) = sides.iter().find(|(name, _)| *name == word)?;
            Some(Target { key: Key::from(key), side: Some(*side) })
        });
        found.unwrap_or_else(|| Target { key: Key::from(text), side: None })
    }
}

impl Target {
    /// `answered` says which wait took which signal: for that one the signal is what it gave.
    fn is_meant(&self, event: &Event, side: Side, answered: &BTreeMap<Version, Key>) -> bool {
        let is_side = |side: Side| match self.side {
            None => true,
            Some(Side::Input) => matches!(side, Side::Input | Side::Request),
            Some(wanted) => wanted == side,
        };
        let is_own = event.fact.key().map_or(self.key.is_root(), |key| *key == self.key);
        let gave = match &event.fact {
            Fact::SignalReceived(_) => answered.get(&event.version),
            // It repeats what that task says.
            Fact::WorkflowFailed { error } => error.key.as_ref(),
            _ => None,
        };
        (is_own && is_side(side)) || (gave == Some(&self.key) && is_side(Side::Output))
    }
}

/// One place in the log that holds a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The event.
    pub version: Version,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The key it speaks of.
    pub key: Key,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { version, event_type, key } = self;
        write!(f, "version {version} {event_type}")?;
        if key.is_root() { Ok(()) } else { write!(f, " {key}") }
    }
}

impl Place {
    fn of(event: &Event) -> Place {
        Place {
            version: event.version,
            event_type: event.fact.event_type().to_owned(),
            key: event.fact.key().cloned().unwrap_or_else(Key::root),
        }
    }
}

/// One value that is erased.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Doomed {
    /// Its address.
    pub payload: Hash,
    /// How many bytes it has.
    pub bytes: u64,
    /// Where this workflow holds it: all of these read as erased.
    pub places: Vec<Place>,
    /// Other workflows that hold the very same value, with their number of events: it is erased for
    /// them too.
    pub elsewhere: Vec<Elsewhere>,
    /// Whether it was erased before.
    pub is_erased: bool,
}

/// See [`Doomed::elsewhere`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// How many of its events hold the value.
    pub events: u64,
}

/// What an erasing would do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// What is erased.
    pub values: Vec<Doomed>,
    /// Meant, and inline in the log: they stay.
    pub inline: Vec<Place>,
    /// Events of this workflow in which texts of the erased values stand on, inline or as a part of
    /// another value.
    pub remains: Vec<Place>,
}

/// Why nothing was planned or erased.
#[derive(Debug)]
pub enum EraseError {
    /// What was asked for cannot be erased.
    Refused {
        /// Why.
        message: String,
        /// What to do next.
        hint: String,
    },
    /// The store failed.
    Store(StoreError),
}

impl From<StoreError> for EraseError {
    fn from(error: StoreError) -> EraseError {
        EraseError::Store(error)
    }
}

impl From<LoadError> for EraseError {
    fn from(error: LoadError) -> EraseError {
        match error {
            LoadError::Store(error) => EraseError::Store(error),
            other => refused(other.to_string(), "`foldback audit` tells what is wrong with a log"),
        }
    }
}

fn refused(message: impl Into<String>, hint: impl Into<String>) -> EraseError {
    EraseError::Refused { message: message.into(), hint: hint.into() }
}

/// Plans what is erased where a person means `target`.
///
/// # Errors
/// The workflow has no such key, nothing of it can be erased, or the store fails.
pub fn plan(store: &dyn Store, row: &WorkflowRow, target: &Target) -> Result<Plan, EraseError> {
    let id = &row.workflow_id;
    let events = events_of(store, id, 0)?;
    let mut plan = Plan::default();
    let mut hashes: Vec<Hash> = Vec::new();
    let answered = answered(&events);
    for event in &events {
        for (side, slot) in sides(&event.fact) {
            match slot {
                _ if !target.is_meant(event, side, &answered) => {}
                Slot::Stored(stored) if hashes.contains(&stored.hash) => {}
                Slot::Stored(stored) => hashes.push(stored.hash),
                Slot::Inline(value) if holds_nothing(value) => {}
                Slot::Inline(_) => plan.inline.push(Place::of(event)),
            }
        }
    }
    plan.inline.dedup();
    let mut sought = BTreeSet::new();
    for hash in &hashes {
        let doomed = doomed(store, row, &events, hash)?;
        if !doomed.is_erased {
            texts_at(&events, hash, &mut sought);
        }
        plan.values.push(doomed);
    }
    for event in events.iter().filter(|_| !sought.is_empty()) {
        let mut fact = event.fact.clone();
        // What is erased with it is no rest.
        for slot in fact.slots_mut() {
            if matches!(slot, Slot::Stored(stored) if hashes.contains(&stored.hash)) {
                *slot = Slot::null();
            }
        }
        if holds(&fact.plain(), &sought) {
            plan.remains.push(Place::of(event));
        }
    }
    match (plan.values.first(), plan.inline.first()) {
        (Some(_), _) => Ok(plan),
        (None, Some(place)) => Err(refused(
            format!("what is meant stands inline in the log of `{id}` ({place}) and cannot be erased"),
            "`metadata.foldback.erasable: true` on the task, or on the document, keeps the values of later runs \
             where they can be erased; `foldback prune` takes away whole workflows",
        )),
        (None, None) => Err(nothing(&events, id, target)),
    }
}

/// Which wait took which signal.
fn answered(events: &[Event]) -> BTreeMap<Version, Key> {
    let taken = events.iter().filter_map(|event| match &event.fact {
        Fact::SignalTaken { key, signals } => Some(signals.iter().map(|signal| (*signal, key.clone()))),
        _ => None,
    });
    taken.flatten().collect()
}

fn doomed(store: &dyn Store, row: &WorkflowRow, events: &[Event], hash: &Hash) -> Result<Doomed, EraseError> {
    let holds = |slot: &Slot| matches!(slot, Slot::Stored(stored) if stored.hash == *hash);
    let places: Vec<&Event> = events.iter().filter(|e| e.fact.slots().into_iter().any(holds)).collect();
    let bytes = places.iter().flat_map(|event| event.fact.slots()).find_map(|slot| match slot {
        Slot::Stored(stored) if stored.hash == *hash => Some(stored.bytes),
        Slot::Stored(_) | Slot::Inline(_) => None,
    });
    let elsewhere = mentions(store, row.shard, hash)?
        .into_iter()
        .filter(|(id, _)| *id != row.workflow_id)
        .map(|(workflow_id, events)| Elsewhere { workflow_id, events })
        .collect();
    Ok(Doomed {
        payload: *hash,
        bytes: bytes.unwrap_or_default(),
        places: places.into_iter().map(Place::of).collect(),
        elsewhere,
        is_erased: store.tombstone(row.shard, hash)?.is_some(),
    })
}

fn nothing(events: &[Event], id: &str, target: &Target) -> EraseError {
    let keys: BTreeSet<&str> = events.iter().filter_map(|event| event.fact.key()).map(Key::as_str).collect();
    let key = target.key.as_str();
    if keys.contains(key) || key.is_empty() {
        return refused(
            format!("`{id}` has no such value at `{key}`"),
            format!("`foldback steps {} --json` shows what each step got and gave", shell_word(id)),
        );
    }
    let hint = match nearest(key, keys.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            format!(
                "`foldback steps {}` shows the keys; `:input` and `:output` are the workflow's own",
                shell_word(id)
            )
        }
    };
    refused(format!("`{id}` has no key `{key}`"), hint)
}

/// Carries out a plan. Each value is erased in a transaction of its own.
///
/// # Errors
/// The store failed; what was erased before that stays erased.
pub fn erase(
    store: &dyn Store,
    plan: &Plan,
    owned: &Ownership,
    at: Micros,
    actor: &str,
    reason: &str,
) -> Result<Vec<Tombstone>, EraseError> {
    let erase_one = |doomed: &Doomed| {
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        let erasure = Erasure { shard: 0, epoch: owned.epoch, hash: doomed.payload, at, actor, reason };
        store.erase(&erasure).map_err(|why| match why {
            NotForgotten::Failed(error) => EraseError::Store(error),
            NotForgotten::NotThere => refused(
                format!("payload {} is missing", doomed.payload),
                "`foldback audit` tells what is damaged",
            ),
            why => refused(format!("payload {}: {why:?}", doomed.payload), "give the command again"),
        })
    };
    plan.values.iter().map(erase_one).collect()
}

/// Every slot of a fact, with the side it is on.
fn sides(fact: &Fact) -> Vec<(Side, &Slot)> {
    let side = match fact {
        Fact::WorkflowStarted(_) | Fact::TaskStarted { .. } | Fact::DecisionMade(_) => Side::Input,
        Fact::WorkflowForked(_) | Fact::WorkflowReopened { .. } | Fact::SignalReceived(_) => Side::Input,
        Fact::StepAsked(_) | Fact::UndoArmed(_) | Fact::UndoStarted(_) => Side::Request,
        Fact::AttemptStarted { .. }
        | Fact::AttemptFailed(_)
        | Fact::StepCompleted(_)
        | Fact::StepFailed(_)
        | Fact::OutcomeUnknown { .. }
        | Fact::OutcomeResolved { .. }
        | Fact::OutcomeReconciled { .. }
        | Fact::UndoCompleted { .. }
        | Fact::UndoFailed { .. }
        | Fact::CompensationStarted { .. }
        | Fact::CompensationRequested { .. }
        | Fact::CompensationEnded { .. }
        | Fact::WorkflowPaused { .. }
        | Fact::WorkflowUnpaused { .. }
        | Fact::BudgetSet { .. }
        | Fact::BudgetWarned { .. }
        | Fact::BudgetExceeded { .. }
        | Fact::ListenStarted { .. }
        | Fact::SignalTaken { .. }
        | Fact::SignalRefused { .. }
        | Fact::WorkflowCancelled { .. }
        | Fact::StepCancelled { .. }
        | Fact::TimerSet { .. }
        | Fact::TimerFired { .. }
        | Fact::TimerCancelled { .. }
        | Fact::TaskFinished { .. }
        | Fact::Recorded { .. }
        | Fact::WorkflowCompleted { .. }
        | Fact::WorkflowFailed { .. }
        | Fact::StepReused(_)
        | Fact::WriteHeld { .. }
        | Fact::WriteSettled { .. }
        | Fact::WorkflowParked { .. } => Side::Output,
    };
    fact.slots().into_iter().map(|slot| (side, slot)).collect()
}

fn holds_nothing(value: &Value) -> bool {
    matches!(Slot::apart(Arc::new(value.clone())), Slot::Inline(_))
}

/// The texts of a value that is about to be erased.
fn texts_at(events: &[Event], hash: &Hash, into: &mut BTreeSet<String>) {
    let is_it = |slot: &&Slot| matches!(slot, Slot::Stored(stored) if stored.hash == *hash);
    let slot = events.iter().flat_map(|event| event.fact.slots()).find(is_it);
    if let Some(value) = slot.and_then(Slot::value) {
        texts(value, into);
    }
}

fn texts(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if text.len() >= SOUGHT_MIN_BYTES => drop(into.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(map) => map.values().for_each(|item| texts(item, into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn holds(value: &Value, sought: &BTreeSet<String>) -> bool {
    match value {
        Value::String(text) => sought.iter().any(|sought| text.contains(sought.as_str())),
        Value::Array(items) => items.iter().any(|item| holds(item, sought)),
        Value::Object(map) => map.values().any(|item| holds(item, sought)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_key_with_or_without_a_side() {
        let table = [
            ("draft", "draft", None),
            ("draft:output", "draft", Some(Side::Output)),
            ("a[0]/b#2:request", "a[0]/b#2", Some(Side::Request)),
            (":input", "", Some(Side::Input)),
            ("", "", None),
            ("odd:name", "odd:name", None),
            ("odd:name:input", "odd:name", Some(Side::Input)),
        ];
        for (text, key, side) in table {
            assert_eq!(Target::from(text), Target { key: Key::from(key), side }, "{text}");
        }
    }
}
