//! What must hold of a workflow that took back what it did: its log is as the model says, event by event,
//! and the world as the log. What was said to it was heard once, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldback::core::step::idempotency_key;
use foldback::core::{Effect, Event, Fact, Version, WorkflowState};
use foldback::engine::{events_of, state_at};

use crate::callers::Callers;
use crate::disk::Disk;
use crate::document::Facts;
use crate::ledger::{agrees, left};
use crate::model::Model;
use crate::world::World;

/// One workflow: its state. The idempotency keys of its writes are added to `asked`.
pub fn workflow(
    disk: &Disk,
    world: &World,
    callers: &Callers,
    id: &Arc<str>,
    facts: &Facts,
    went_back: &BTreeSet<Arc<str>>,
    asked: &mut BTreeSet<String>,
) -> Result<WorkflowState, String> {
    let problem = |what: String| format!("{id}: {what}");
    let events = events_of(&*disk.store, id, 0).map_err(|e| problem(e.to_string()))?;
    let state = state_at(&*disk.store, id, None).map_err(|e| problem(e.to_string()))?.ok_or("no log")?;
    let (mut folded, mut model, mut ear) = (WorkflowState::empty(id), Model::of(facts), Ear::default());
    for event in &events {
        let mut base = |version: Version| WorkflowState::fold(id, &events[..version as usize]);
        folded.take(event, &mut base).map_err(|illegal| problem(illegal.to_string()))?;
        let of_model = model.see(event);
        of_model.map_err(|why| {
            problem(format!("version {}: {} {why}", event.version, event.fact.event_type()))
        })?;
        ear.hear(event, went_back).map_err(problem)?;
        // What was open where it went back is begun anew without being asked for again.
        let begun = match &event.fact {
            Fact::StepAsked(asked) => Some(&asked.key),
            Fact::AttemptStarted { key, .. } => Some(key),
            _ => None,
        };
        let step = begun.and_then(|key| Some((key, folded.step(key)?)));
        if let Some((key, step)) = step.filter(|(_, step)| step.effect == Effect::Write) {
            asked.insert(idempotency_key(id, key, &step.request_hash, step.generation));
        }
    }
    if folded != state {
        return Err(problem("the fold of its log is not its state".into()));
    }
    // One that waits for somebody who never comes has no end; `judge` says whether it may.
    if state.end.is_some() && model.status() != Ok(state.status()) {
        return Err(problem(format!("is {:?}, the model says {:?}", state.status(), model.status())));
    }
    let was_said = callers.endings.taken.iter().filter(|(whose, _)| whose == id);
    if let Some((_, number)) = was_said.clone().find(|(_, number)| !ear.numbers.contains(number)) {
        return Err(problem(format!("signal {number} was taken, and is not in its log")));
    }
    let order = world.order.get(id).map_or(&[][..], |order| order);
    agrees(facts, &model, order, &left(order)).map_err(problem)?;
    Ok(state)
}

/// What was said to a workflow and is not taken.
#[derive(Default)]
struct Ear {
    kept: BTreeMap<Version, Arc<str>>,
    /// What was kept at each version.
    then: BTreeMap<Version, BTreeMap<Version, Arc<str>>>,
    numbers: BTreeSet<u64>,
    /// Events of other workflows: whose, and the name that it gave them.
    events: BTreeSet<(Arc<str>, String)>,
}

impl Ear {
    fn hear(&mut self, event: &Event, went_back: &BTreeSet<Arc<str>>) -> Result<(), String> {
        match &event.fact {
            Fact::SignalReceived(signal) => {
                let said = signal.data.get();
                let is_new = match (&signal.source, said.as_u64()) {
                    (None, Some(number)) => self.numbers.insert(number),
                    // Whoever goes back tells it again, under the name that it had.
                    (Some(source), _) if went_back.contains(source) => true,
                    (Some(source), _) => self.events.insert((source.clone(), said["id"].to_string())),
                    (None, None) => false,
                };
                if !is_new {
                    return Err(format!("{said} came twice"));
                }
                self.kept.insert(event.version, signal.name.clone());
            }
            Fact::SignalTaken { key, signals } => {
                for version in signals {
                    let name = self.kept.get(version).cloned();
                    let name = name.ok_or_else(|| format!("`{key}` took what was not there: {version}"))?;
                    let oldest = self.kept.iter().find(|(_, other)| **other == name);
                    if oldest.map(|(oldest, _)| oldest) != Some(version) {
                        return Err(format!("`{key}` took {version}, and {oldest:?} came first"));
                    }
                    self.kept.remove(version);
                }
            }
            // What nothing has taken stays, and what was there then is there again.
            Fact::WorkflowReopened { back_to: Some(version), .. } => {
                self.kept.extend(self.then.get(version).cloned().unwrap_or_default());
            }
            Fact::SignalRefused { key, signal, reason } => {
                return Err(format!("`{key}` refused {signal}: {reason}"));
            }
            _ => {}
        }
        self.then.insert(event.version, self.kept.clone());
        Ok(())
    }
}
