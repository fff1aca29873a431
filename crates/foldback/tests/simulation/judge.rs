//! What must hold when all is over, whatever happened on the way. It asks the store alone, as somebody
//! who comes later does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldback::core::state::End;
use foldback::core::step::idempotency_key;
use foldback::core::{Effect, Fact, Hash, Key, WorkflowState};
use foldback::engine::{Programs, events_of, state_at, verify};
use foldback::store::Filter;

use crate::callers::NOTED;
use crate::disk::Disk;
use crate::story::Story;
use crate::world::World;

/// What a seed came to.
#[derive(Debug, PartialEq)]
pub struct Came {
    /// How each workflow ended, in a word.
    pub ends: BTreeMap<Arc<str>, String>,
    /// The hash of all chain hashes in the order of positions: of every byte in the log.
    pub digest: Hash,
    pub events: u64,
}

/// Every promise, about every workflow.
pub fn judge(story: &Story, disk: &Disk, world: &World) -> Result<Came, String> {
    let store = &*disk.store;
    let problems = store.check().map_err(|e| e.to_string())?;
    insist(problems.is_empty(), || format!("the store finds {problems:?}"))?;
    insist(world.doubled().is_empty(), || world.doubled().join("\n"))?;
    insist(world.with_many_keys().is_empty(), || world.with_many_keys().join("\n"))?;

    let feed = store.feed(0, 0, usize::MAX).map_err(|e| e.to_string())?;
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut written, mut hashes) = (BTreeSet::new(), Vec::new());
    for (recorded, position) in feed.iter().zip(1..) {
        let version = last.entry(&*recorded.workflow_id).or_default();
        *version += 1;
        insist(recorded.position == position && recorded.version == *version, || {
            format!("{} version {} at {position}", recorded.workflow_id, recorded.version)
        })?;
        hashes.extend_from_slice(&recorded.hash.0);
        written.insert((recorded.workflow_id.clone(), recorded.version, recorded.hash));
    }
    let lost = disk.durable().acknowledged.iter().find(|there| !written.contains(*there)).cloned();
    insist(lost.is_none(), || format!("{lost:?} was acknowledged and is not there"))?;

    let mut ends = BTreeMap::new();
    let rows = store.workflows(&Filter::default()).map_err(|e| e.to_string())?;
    insist(rows.len() == story.starts.len(), || format!("{} workflows", rows.len()))?;
    let mut asked = BTreeSet::new();
    for (row, notes) in story.starts.iter().zip(&story.notes).filter_map(|(start, notes)| {
        Some((rows.iter().find(|row| row.workflow_id == start.workflow_id)?, *notes))
    }) {
        let id = &row.workflow_id;
        let state = workflow(disk, world, id, notes, &mut asked)?;
        agrees(story, disk, &state)?;
        insist(row.status == state.status().as_str(), || format!("{id}: the row says {}", row.status))?;
        let end = match &state.end {
            Some(End::Completed { output }) => format!("completed {}", output.get()),
            Some(End::Failed { error }) => format!("failed {}", error.status),
            other => return Err(format!("{id} ended as {other:?}")),
        };
        ends.insert(id.clone(), end);
    }
    let unasked = world.applied.iter().find(|(key, _)| !asked.contains(*key));
    insist(unasked.is_none(), || {
        let place = unasked.map(|(_, applied)| &applied.place);
        format!("a write took effect under a key that nobody asked with: {place:?}")
    })?;
    let digest = Hash::of_bytes(&hashes);
    Ok(Came { ends, digest, events: feed.len() as u64 })
}

/// What its program makes of all that happened to it is what its log says.
fn agrees(story: &Story, disk: &Disk, state: &WorkflowState) -> Result<(), String> {
    let (store, id) = (&*disk.store, &state.workflow_id);
    let definition = store.definition(&state.definition).map_err(|e| e.to_string())?;
    let program = story.programs.program(&definition.ok_or("no definition")?)?;
    let walked = verify(store, id, &*program).map_err(|e| format!("{id}: {e}"))?;
    insist(walked.parting.is_none(), || format!("{id} does not verify: {:?}", walked.parting))
}

/// One workflow: its state. The idempotency keys of its writes are added to `asked_with`.
fn workflow(
    disk: &Disk,
    world: &World,
    id: &Arc<str>,
    notes: u64,
    asked_with: &mut BTreeSet<String>,
) -> Result<WorkflowState, String> {
    let store = &*disk.store;
    let events = events_of(store, id, 0).map_err(|e| format!("{id}: {e}"))?;
    let folded = WorkflowState::fold(id, &events).map_err(|e| format!("{id}: {e}"))?;
    let state = state_at(store, id, None).map_err(|e| format!("{id}: {e}"))?.ok_or("no log")?;
    insist(folded == state, || format!("{id}: the fold of its log is not its state"))?;

    // By key: the hash of what was asked, and of the request as its performer got it.
    let mut asked: BTreeMap<String, (Effect, Hash, String)> = BTreeMap::new();
    // By idempotency key: the tries of a block share one.
    let (mut done, mut failed) = (BTreeSet::new(), BTreeMap::new());
    // Writes that were given up, by idempotency key; and all steps that were, by key.
    let (mut given_up, mut cancelled) = (BTreeMap::new(), BTreeSet::new());
    let mut noted: BTreeMap<String, u64> = BTreeMap::new();
    for event in &events {
        // A step that was given up begins no further attempt. One that only looks has ended with that:
        // what it answers late is in no log.
        let goes_on = |key: &Key, begins: bool| {
            let is_write = |key: &Key| asked.get(key.as_str()).is_some_and(|(e, ..)| *e == Effect::Write);
            let may_go_on = !cancelled.contains(key) || (is_write(key) && !begins);
            let what = event.fact.event_type();
            insist(may_go_on, || format!("{id} `{key}` was given up, and then there was {what}"))
        };
        match &event.fact {
            Fact::StepAsked(e) => {
                let of = Hash::of_json(&e.request.to_json()).to_hex();
                if e.effect == Effect::Write {
                    asked_with.insert(idempotency_key(id, &e.key, &e.request_hash));
                }
                asked.insert(e.key.to_string(), (e.effect, e.request_hash, of));
            }
            Fact::StepCompleted(e) => {
                goes_on(&e.key, false)?;
                let (effect, request, of) = &asked[e.key.as_str()];
                let (output, what) = (e.output.get(), || format!("{id} `{}` attempt {}", e.key, e.attempt));
                insist(output["attempt"] == e.attempt, || {
                    format!("{}: holds the answer to attempt {}", what(), output["attempt"])
                })?;
                insist(output["of"] == of.as_str(), || format!("{}: the answer to another request", what()))?;
                let begun = world.begun.get(&(id.clone(), e.key.to_string())).copied().unwrap_or(0);
                insist(begun >= 1, || format!("{}: never performed", what()))?;
                if *effect == Effect::Write {
                    let key = idempotency_key(id, &e.key, request);
                    insist(world.applied.contains_key(&key), || format!("{}: took no effect", what()))?;
                    done.insert(key);
                }
            }
            Fact::OutcomeResolved { key, landed } => {
                let (_, request, _) = &asked[key.as_str()];
                let key_sent = idempotency_key(id, key, request);
                let is_there = world.applied.contains_key(&key_sent);
                insist(landed.is_none() || is_there, || format!("{id} `{key}`: resolved otherwise"))?;
                if landed.is_some() {
                    done.insert(key_sent);
                }
            }
            Fact::StepFailed(e) => {
                goes_on(&e.key, false)?;
                let (effect, request, _) = &asked[e.key.as_str()];
                if *effect == Effect::Write {
                    failed.insert(idempotency_key(id, &e.key, request), &e.key);
                }
            }
            Fact::StepCancelled { key, .. } => {
                cancelled.insert(key.clone());
                let (effect, request, _) = &asked[key.as_str()];
                if *effect == Effect::Write {
                    given_up.insert(idempotency_key(id, key, request), key);
                }
            }
            Fact::Recorded { event_type, key: None, data } if **event_type == *NOTED => {
                *noted.entry(data.get().to_string()).or_default() += 1;
            }
            Fact::AttemptStarted { key, .. } => goes_on(key, true)?,
            Fact::AttemptFailed(e) => goes_on(&e.key, true)?,
            Fact::WorkflowStarted(_)
            | Fact::WorkflowForked(_)
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::OutcomeUnknown { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => {}
            // What was given up may be asked for anew.
            Fact::WorkflowReopened { .. } => cancelled.clear(),
        }
    }
    insist(noted.len() as u64 == notes && noted.values().all(|times| *times == 1), || {
        format!("{id}: of {notes} domain events there are {noted:?}")
    })?;
    for (key, step) in failed.iter().filter(|(key, _)| !done.contains(*key)) {
        insist(!world.applied.contains_key(key), || format!("{id} `{step}`: failed, and took effect"))?;
    }
    for (key, step) in given_up.iter().filter(|(key, _)| !done.contains(*key)) {
        let problem = || format!("{id} `{step}`: given up, and took effect, and the log does not say so");
        insist(!world.applied.contains_key(key), problem)?;
    }
    Ok(state)
}

fn insist(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
