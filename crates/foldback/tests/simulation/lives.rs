//! What must hold of workflows that were forked or went back: what a log says at a version of its own
//! life, and what the pasts that it left say of a step. It reads the events alone, and knows the rule in
//! its own words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldback::core::change::{Past, Policy, Writes};
use foldback::core::{Changes, Effect, Event, Fact, Hash, Key, StepStatus, Verdict, Version};
use foldback::engine::{events_of, state_at};
use foldback::store::Store;
use serde_json::{Value, json};

use crate::world::body_of;

/// A step as it was asked for.
#[derive(Clone)]
pub struct Ask {
    pub effect: Effect,
    pub request_hash: Hash,
    /// The hash of the request as its performer gets it.
    pub of: String,
    /// Whether its server honours idempotency keys.
    pub is_keyed: bool,
}

/// What holds since it was forked or went back.
#[derive(Clone)]
pub struct Rule {
    writes: Writes,
    rerun: Vec<String>,
    /// The newest first.
    pasts: Vec<Past>,
    /// Met anew since: no failure is taken for them.
    anew: BTreeSet<Key>,
}

/// What a log says up to a version.
#[derive(Clone, Default)]
pub struct View {
    pub asked: BTreeMap<String, Ask>,
    pub cancelled: BTreeSet<Key>,
    pub rule: Option<Rule>,
    /// What a person asked for and was not yet sent.
    released: BTreeSet<Key>,
}

impl View {
    fn at(events: &[Event], version: Version) -> View {
        let mut view = View::default();
        for event in events.iter().take_while(|event| event.version <= version) {
            view.see(event, events);
        }
        view
    }

    /// Takes in the next event of a log.
    pub fn see(&mut self, event: &Event, log: &[Event]) {
        match &event.fact {
            Fact::StepAsked(asked) => {
                let request = asked.request.to_json();
                let ask = Ask {
                    effect: asked.effect,
                    request_hash: asked.request_hash,
                    of: Hash::of_json(&request).to_hex(),
                    is_keyed: body_of(&request)["keyed"] == json!(true),
                };
                self.released.remove(&asked.key);
                self.asked.insert(asked.key.to_string(), ask);
            }
            Fact::StepCancelled { key, .. } => drop(self.cancelled.insert(key.clone())),
            Fact::WriteSettled { key, verdict: Verdict::Live, .. } => {
                self.released.insert(key.clone());
            }
            Fact::WorkflowForked(forked) => self.change(&forked.changes),
            Fact::WorkflowReopened { back_to, changes, again, .. } => {
                match back_to {
                    Some(version) => *self = View::at(log, *version),
                    // What was given up may be asked for anew.
                    None => {
                        self.cancelled.clear();
                        if let Some(rule) = &mut self.rule {
                            rule.anew.extend(again.iter().cloned());
                        }
                    }
                }
                changes.iter().for_each(|changes| self.change(changes));
            }
            _ => {}
        }
    }

    fn change(&mut self, changes: &Changes) {
        let mut pasts = vec![changes.past.clone()];
        pasts.extend(self.rule.iter().flat_map(|rule| rule.pasts.clone()));
        self.rule = Some(Rule {
            writes: changes.writes.clone(),
            rerun: changes.rerun.clone(),
            pasts,
            anew: BTreeSet::new(),
        });
        self.released.clear();
    }
}

/// How a step came out in a past.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Came {
    Not,
    Well(Version),
    Badly(Version),
    Unknown,
}

impl Came {
    /// Whether the world was changed, or may have been.
    fn is_settled(self) -> bool {
        matches!(self, Came::Well(_) | Came::Unknown)
    }
}

/// The work that a step was asked to do.
type Work = (Effect, Hash);

/// What came of each work that a step was asked to do, the one that was asked for last at the end.
type Steps = BTreeMap<Key, Vec<(Work, Came)>>;

/// Reads pasts, each once.
#[derive(Default)]
pub struct Archive {
    known: BTreeMap<(Arc<str>, Version, Version), Steps>,
    logs: BTreeMap<Arc<str>, Vec<Event>>,
}

impl Archive {
    /// The version of the past from which a step that is asked for here must take its outcome.
    fn owed(
        &mut self,
        store: &dyn Store,
        id: &str,
        rule: &Rule,
        key: &Key,
        ask: &Ask,
    ) -> Result<Option<(Arc<str>, Version)>, String> {
        let is_told = rule.rerun.iter().any(|told| told == "*" || **told == *key.as_str());
        if is_told || (ask.effect == Effect::Write && rule.writes.of(key) == Policy::Ask) {
            return Ok(None);
        }
        let work = (ask.effect, ask.request_hash);
        for past in &rule.pasts {
            let known = self.past(store, past)?.get(key);
            let Some((_, came)) = known.and_then(|asks| asks.iter().find(|(of, _)| *of == work)) else {
                continue;
            };
            match came {
                Came::Well(version) => return Ok(Some((past.workflow.clone(), *version))),
                // It went back to get beyond its own failures.
                Came::Badly(version) if *past.workflow != *id && !rule.anew.contains(key) => {
                    return Ok(Some((past.workflow.clone(), *version)));
                }
                // It may have happened: nobody looks further back.
                Came::Unknown => return Ok(None),
                Came::Badly(_) | Came::Not => {}
            }
        }
        Ok(None)
    }

    fn past(&mut self, store: &dyn Store, past: &Past) -> Result<&Steps, String> {
        let name = (past.workflow.clone(), past.after, past.up_to);
        if !self.known.contains_key(&name) {
            let mut steps = Steps::new();
            let state = state_at(store, &past.workflow, Some(past.after)).map_err(|e| e.to_string())?;
            for key in state.iter().flat_map(|state| state.open_steps()) {
                if let Some(step) = state.as_ref().and_then(|state| state.step(&key)) {
                    let is_unknown = step.status == StepStatus::Unknown;
                    let came = if is_unknown { Came::Unknown } else { Came::Not };
                    steps.insert(key, vec![((step.effect, step.request_hash), came)]);
                }
            }
            for event in self.log(store, &past.workflow)? {
                if event.version <= past.after || event.version > past.up_to {
                    continue;
                }
                let (key, came) = match &event.fact {
                    Fact::StepAsked(e) => {
                        let (asks, work) =
                            (steps.entry(e.key.clone()).or_default(), (e.effect, e.request_hash));
                        let before = asks.iter().position(|(of, _)| *of == work).map(|at| asks.remove(at).1);
                        // What was done stays done, whatever is asked since.
                        let came = before.filter(|came| came.is_settled()).unwrap_or(Came::Not);
                        asks.push((work, came));
                        continue;
                    }
                    Fact::StepCompleted(e) => (&e.key, Came::Well(event.version)),
                    Fact::StepFailed(e) => (&e.key, Came::Badly(event.version)),
                    Fact::StepReused(e) if e.output.is_some() => (&e.key, Came::Well(event.version)),
                    Fact::StepReused(e) => (&e.key, Came::Badly(event.version)),
                    Fact::OutcomeUnknown { key, .. } => (key, Came::Unknown),
                    Fact::OutcomeResolved { key, landed: Some(_) } => (key, Came::Well(event.version)),
                    Fact::OutcomeResolved { key, landed: None } => (key, Came::Not),
                    // Nothing was done; what was done before was.
                    Fact::WriteSettled { key, verdict: Verdict::Stub | Verdict::Deny, .. } => {
                        if let Some(asks) = steps.get_mut(key) {
                            let _none_or_one = asks.pop_if(|(_, came)| !came.is_settled());
                        }
                        continue;
                    }
                    _ => continue,
                };
                // A further try that failed does not undo what was done.
                if let Some((_, before)) = steps.get_mut(key).and_then(|asks| asks.last_mut())
                    && !(matches!(before, Came::Well(_)) && matches!(came, Came::Badly(_) | Came::Not))
                {
                    *before = came;
                }
            }
            self.known.insert(name.clone(), steps);
        }
        Ok(&self.known[&name])
    }

    fn log(&mut self, store: &dyn Store, id: &Arc<str>) -> Result<&[Event], String> {
        if !self.logs.contains_key(id) {
            self.logs.insert(id.clone(), events_of(store, id, 0).map_err(|e| e.to_string())?);
        }
        Ok(&self.logs[id])
    }

    /// One event of a workflow's own, which `view` has not taken in: what it says of its pasts.
    pub fn judge(&mut self, store: &dyn Store, id: &str, view: &View, event: &Event) -> Result<(), String> {
        let Some(rule) = &view.rule else { return Ok(()) };
        let (key, is_taken) = match &event.fact {
            Fact::StepReused(e) => (&e.key, true),
            Fact::AttemptStarted { key, .. } | Fact::WriteHeld { key, .. } => (key, false),
            Fact::WriteSettled { key, .. } if *event.actor == *"engine" => (key, false),
            _ => return Ok(()),
        };
        let what = || format!("{id} version {}: {} of `{key}`", event.version, event.fact.event_type());
        let ask = view.asked.get(key.as_str()).ok_or_else(|| format!("{}: never asked", what()))?;
        let is_write = ask.effect == Effect::Write;
        if matches!(event.fact, Fact::AttemptStarted { .. }) && is_write && !view.released.contains(key) {
            return Err(format!("{}: nobody said that it may be performed", what()));
        }
        let owed = self.owed(store, id, rule, key, ask)?;
        let (Fact::StepReused(reused), true) = (&event.fact, is_taken) else {
            return match owed {
                Some(there) => Err(format!("{}, though its outcome is recorded: {there:?}", what())),
                None => Ok(()),
            };
        };
        let Some((workflow, version)) = owed else {
            return Err(format!("{}: there is no outcome that it may take", what()));
        };
        let named = (reused.workflow.clone(), reused.version);
        let taken = match (&reused.output, &reused.error) {
            (Some(output), None) => Ok((*output.get()).clone()),
            (None, Some(error)) => Err(error.status),
            _ => return Err(format!("{}: neither an output nor a failure", what())),
        };
        let first = self.recorded(store, &workflow, version)?;
        if first.at != named || first.key != *key || first.outcome != taken {
            return Err(format!("{}: {taken:?} of {named:?}, where {first:?} is recorded", what()));
        }
        let there = self.recorded(store, &named.0, named.1)?;
        if there.key != *key || there.outcome != taken {
            return Err(format!("{}: {taken:?} is not {there:?}", what()));
        }
        Ok(())
    }

    fn recorded(&mut self, store: &dyn Store, id: &Arc<str>, version: Version) -> Result<Recorded, String> {
        let here = (whose(store, id, version)?, version);
        let event =
            self.log(store, id)?.iter().find(|event| event.version == version).ok_or("no such version")?;
        Ok(match &event.fact {
            Fact::StepCompleted(e) => {
                Recorded { at: here, key: e.key.clone(), outcome: Ok((*e.output.get()).clone()) }
            }
            Fact::OutcomeResolved { key, landed: Some(output) } => {
                Recorded { at: here, key: key.clone(), outcome: Ok((*output.get()).clone()) }
            }
            Fact::StepFailed(e) => Recorded { at: here, key: e.key.clone(), outcome: Err(e.error.status) },
            Fact::StepReused(e) => Recorded {
                at: (e.workflow.clone(), e.version),
                key: e.key.clone(),
                outcome: match &e.output {
                    Some(output) => Ok((*output.get()).clone()),
                    None => Err(e.error.as_ref().map_or(0, |error| error.status)),
                },
            },
            other => return Err(format!("{id} version {version} is no outcome but {}", other.event_type())),
        })
    }
}

/// An outcome as a log holds it.
#[derive(Debug)]
struct Recorded {
    /// Where it was recorded first.
    at: (Arc<str>, Version),
    key: Key,
    outcome: Result<Value, u16>,
}

/// Whose event a version of a workflow's log is: its own, or that of the one it was forked from.
pub fn whose(store: &dyn Store, id: &str, version: Version) -> Result<Arc<str>, String> {
    let row = store.workflow(id).map_err(|e| e.to_string())?.ok_or_else(|| format!("no row {id}"))?;
    match row.parent {
        Some((parent, cut, _)) if version <= cut => whose(store, &parent, version),
        _ => Ok(row.workflow_id),
    }
}
