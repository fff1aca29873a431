//! The plan of a fork or of a retry: what is taken from the past, what runs again, what becomes of each
//! write. It is the thing itself, without performers: the program is asked, and outcomes are taken by
//! the rule by which the engine takes them, until only what has to be performed is left.
//!
//! What stands behind a step that is performed depends on its answer. There the plan goes on as if it
//! answered as before, and calls what it meets *depending*: it takes its recorded outcome where its
//! request stays the same, and is performed where it does not.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;

use crate::decide::{Stimulus, Timing};
use crate::event::{EventId, Verdict};
use crate::program::Run;
use crate::reuse::{Asked, Ended, Recorded, first_taken, word_to};
use crate::state::{EntryBody, Owed, Step, WorkflowState};
use crate::step::Effect;
use crate::{Illegal, Key, Version, advance};

/// What becomes of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedWrite {
    /// The step.
    pub key: Key,
    /// `reuse` (its recorded outcome is taken), `ask` (a person has to say), `stub`, `deny` or `live`.
    pub action: &'static str,
    /// `always`, or `changed`: only where its request is another than the recorded one; else its
    /// recorded outcome is taken.
    pub when: &'static str,
}

/// A wait that starts over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedWait {
    /// The task that waits.
    pub key: Key,
    /// How long, in milliseconds.
    pub ms: u64,
}

/// Steps of a plan that ask the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedCalls {
    /// The one that is asked: a model, the host of an address, or else the kind of step.
    pub to: String,
    /// How many of them are performed.
    pub count: u64,
    /// How many more of them may be: those whose request may turn out to be another one.
    pub depending: u64,
    /// What was recorded as the cost of those that are performed, in millionths of a US dollar; where
    /// another model is asked than there, what its prices make of the recorded tokens.
    pub estimated_micro_usd: u64,
    /// Their tokens, as recorded.
    pub estimated_tokens: u64,
    /// How many of those that are performed ask another model than there, and one whose price is not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub unpriced: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A call of another model than the one that was asked there: what it costs was not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AskedAnew {
    to: String,
    input_tokens: u64,
    output_tokens: u64,
    is_performed: bool,
}

/// What a fork or a retry will do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plan {
    /// The last version that is shared.
    pub cut: Version,
    /// Steps whose recorded outcome is taken.
    pub reused: Vec<Key>,
    /// Of these, the ones that had failed: they fail again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reused_failures: Vec<Key>,
    /// Steps that are performed: the first ones that are, and each further one that an edit touches, as
    /// far as the flow stays what it was.
    pub rerun: Vec<Key>,
    /// Writes that were done and taken back since: of these, nothing is taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<Key>,
    /// Steps behind those: reused where their request stays the same, else performed.
    pub depending: Vec<Key>,
    /// Steps whose answer is not known, so that nothing can be said of what lies behind them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_behind: Vec<Key>,
    /// Waits for a moment: each starts over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits: Vec<PlannedWait>,
    /// Waits for a signal: each waits for a new one, so the plan cannot tell what follows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listens: Vec<Key>,
    /// Each write, and what becomes of it.
    pub writes: Vec<PlannedWrite>,
    /// Writes that were done behind the cut and that nothing asks for any more: they stay done.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_done: Vec<Key>,
    /// How many steps are performed, by whom they ask.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<PlannedCalls>,
    /// What was recorded as the cost of all that may be performed, in millionths of a US dollar; see
    /// [`Plan::price`].
    pub estimated_micro_usd: u64,
    /// Tokens, as recorded.
    pub estimated_tokens: u64,
    /// How many of them ask another model than there, and one whose price is not known.
    #[serde(skip_serializing_if = "is_zero")]
    pub unpriced: u64,
    #[serde(skip)]
    asked_anew: Vec<AskedAnew>,
}

/// Why no plan can be made.
#[derive(Clone, Debug, PartialEq)]
pub enum Unplanned<E> {
    /// The workflow does not go on so.
    Illegal(Illegal),
    /// The past cannot be read.
    Unread(E),
}

/// Makes a plan: `first` is the word that forks or reopens, said to the state at the cut.
///
/// # Errors
/// The word may not stand there, or the past cannot be read.
pub fn plan<R: Recorded + ?Sized>(
    mut state: WorkflowState,
    run: &mut dyn Run,
    first: Stimulus,
    recorded: &mut R,
) -> Result<Plan, Unplanned<R::Error>> {
    let cut = match &first {
        Stimulus::Reopen { back_to: Some(version), .. } => *version,
        _ => state.version,
    };
    let mut planning = Planning {
        plan: Plan { cut, ..Plan::default() },
        waiting: BTreeSet::new(),
        is_assumed: false,
        serial: 0,
    };
    planning.say(&mut state, run, first).map_err(Unplanned::Illegal)?;
    loop {
        while planning.moves(&mut state, run, recorded)? {}
        planning.is_assumed = true;
        if !planning.assume(&mut state, run, recorded)? {
            return planning.done(&state, recorded).map_err(Unplanned::Unread);
        }
    }
}

impl Plan {
    /// Prices the calls that ask another model than the one that was asked there: `price` says what so many
    /// tokens, read and written, cost of a model. Without this they are counted as `unpriced`.
    pub fn price(&mut self, price: impl Fn(&str, u64, u64) -> Option<u64>) {
        for call in std::mem::take(&mut self.asked_anew) {
            let is_measured = call.input_tokens > 0 || call.output_tokens > 0;
            let cost = price(&call.to, call.input_tokens, call.output_tokens).filter(|_| is_measured);
            let Some(cost) = cost else { continue };
            self.unpriced -= 1;
            self.estimated_micro_usd = self.estimated_micro_usd.saturating_add(cost);
            if call.is_performed {
                let calls = self.calls_to(call.to);
                calls.unpriced -= 1;
                calls.estimated_micro_usd = calls.estimated_micro_usd.saturating_add(cost);
            }
        }
    }

    fn calls_to(&mut self, to: String) -> &mut PlannedCalls {
        let at = self.calls.iter().position(|calls| calls.to == to).unwrap_or_else(|| {
            self.calls.push(PlannedCalls {
                to,
                count: 0,
                depending: 0,
                estimated_micro_usd: 0,
                estimated_tokens: 0,
                unpriced: 0,
            });
            self.calls.len() - 1
        });
        &mut self.calls[at]
    }
}

/// The one that a step asks: its model, the host of its address, or else its kind.
fn addressee(step: &Step) -> String {
    let request = step.request.to_json();
    if let Some(model) = request["model"].as_str() {
        return model.to_owned();
    }
    let endpoint = request["endpoint"].as_str().or_else(|| request["endpoint"]["uri"].as_str());
    let host = endpoint.and_then(|address| address.split_once("://")?.1.split(['/', '?', '#']).next());
    // What stands before an `@` is a name and a password.
    let host = host.map(|host| host.rsplit('@').next().unwrap_or(host)).filter(|host| !host.is_empty());
    host.map_or_else(|| step.kind.to_string(), |host| format!("{} {host}", step.kind))
}

/// A step that asks another model than the one that was asked there.
fn asked_anew(step: &Step, past: &Asked, is_performed: bool) -> Option<AskedAnew> {
    let to = step.request.text("model")?;
    let is_another = match &past.model {
        Some(model) => *model != to,
        // Its request cannot be read; what nobody changed asks the same one.
        None => step.program_hash.is_some(),
    };
    is_another.then(|| AskedAnew {
        to: to.to_string(),
        input_tokens: past.tokens.saturating_sub(past.output_tokens),
        output_tokens: past.output_tokens,
        is_performed,
    })
}

struct Planning {
    plan: Plan,
    /// Steps that are asked for and are not answered here.
    waiting: BTreeSet<Key>,
    /// Whether something was taken to answer as it did before.
    is_assumed: bool,
    serial: u128,
}

impl Planning {
    fn say(
        &mut self,
        state: &mut WorkflowState,
        run: &mut dyn Run,
        stimulus: Stimulus,
    ) -> Result<(), Illegal> {
        // Nothing begins at once: each step is put on the plan before.
        let timing = Timing { now: state.now, actor: Arc::from("plan"), room: 0 };
        let serial = &mut self.serial;
        let mut ids = || {
            *serial += 1;
            EventId(serial.to_be_bytes())
        };
        let mut batch = advance(state, run, stimulus, &timing, &mut ids)?;
        while batch.is_cut {
            batch = advance(state, run, Stimulus::Continue, &timing, &mut ids)?;
        }
        Ok(())
    }

    /// Answers one step or timer that nobody has to perform. Whether there was one.
    fn moves<R: Recorded + ?Sized>(
        &mut self,
        state: &mut WorkflowState,
        run: &mut dyn Run,
        recorded: &mut R,
    ) -> Result<bool, Unplanned<R::Error>> {
        let owes = state.owes();
        let starts = owes.iter().filter_map(|owed| match owed {
            Owed::Start(key) if !self.waiting.contains(key) => Some(key.clone()),
            Owed::Start(_) | Owed::Attempt(..) | Owed::Retry(..) | Owed::Timer(..) | Owed::Undo(_) => None,
        });
        let starts: Vec<Key> = starts.collect();
        let first = first_taken(state, &starts, recorded).map_err(Unplanned::Unread)?;
        for owed in first.map(Owed::Start).into_iter().chain(owes) {
            let stimulus = match owed {
                Owed::Start(key) if !self.waiting.contains(&key) => {
                    match self.judged(state, &key, recorded).map_err(Unplanned::Unread)? {
                        Some(stimulus) => stimulus,
                        None => continue,
                    }
                }
                // A wait passes; what limits a task that runs again is not taken to run out.
                Owed::Timer(key, due) if !is_limit(state, &key) => {
                    let ms = u64::try_from(due.saturating_sub(state.now)).unwrap_or(0) / 1_000;
                    self.plan.waits.push(PlannedWait { key: key.clone(), ms });
                    state.now = state.now.max(due);
                    Stimulus::TimerDue { key }
                }
                // A plan ends where taking back would begin.
                Owed::Start(_) | Owed::Attempt(..) | Owed::Retry(..) | Owed::Timer(..) | Owed::Undo(_) => {
                    continue;
                }
            };
            self.say(state, run, stimulus).map_err(Unplanned::Illegal)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Puts a step on the plan. The word that answers it, where nobody has to perform it.
    fn judged<R: Recorded + ?Sized>(
        &mut self,
        state: &WorkflowState,
        key: &Key,
        recorded: &mut R,
    ) -> Result<Option<Stimulus>, R::Error> {
        let is_write = state.step(key).is_some_and(|step| step.effect == Effect::Write);
        let stimulus = word_to(state, key, recorded)?;
        let (action, is_answered) = match &stimulus {
            Stimulus::Reuse { .. } => ("reuse", true),
            Stimulus::Settle { verdict: Verdict::Stub, .. } => ("stub", true),
            Stimulus::Settle { verdict: Verdict::Deny, .. } => ("deny", true),
            Stimulus::Settle { verdict: Verdict::Live, .. } => ("live", false),
            Stimulus::Hold { .. } => ("ask", false),
            // A retry from the step that failed takes nothing from a past: its writes are performed.
            _ if is_write && state.rules.is_none() => ("live", false),
            _ => ("run", false),
        };
        // What an edit touches is performed, however the steps before it answer.
        let is_touched = state.step(key).is_some_and(|step| step.program_hash.is_some())
            || state.rules.as_ref().is_some_and(|rules| rules.reruns(key));
        let is_depending = self.is_assumed && (action == "reuse" || !is_touched);
        let is_performed = !is_depending && !is_answered && (!is_write || action == "live");
        if is_depending {
            self.plan.depending.push(key.clone());
        } else if action == "reuse" {
            self.plan.reused.push(key.clone());
            if let Stimulus::Reuse { outcome: Err(_), .. } = &stimulus {
                self.plan.reused_failures.push(key.clone());
            }
        } else if is_performed {
            self.plan.rerun.push(key.clone());
        }
        if is_write && !is_answered {
            let asked = recorded.asked(state, key)?;
            if asked.iter().flat_map(|asks| asks.last()).any(|a| matches!(a.ended, Ended::Undone { .. })) {
                self.plan.undone.push(key.clone());
            }
        }
        if is_write {
            let (action, when) = match (self.is_assumed, action) {
                (true, "reuse") => (changed_action(state, key), "changed"),
                (_, action) => (action, "always"),
            };
            self.plan.writes.push(PlannedWrite { key: key.clone(), action, when });
        }
        if self.is_assumed || !is_answered {
            let spent = recorded.asked(state, key)?.into_iter().find_map(|mut asks| asks.pop());
            let anew = spent.as_ref().and_then(|asked| asked_anew(state.step(key)?, asked, is_performed));
            let (micro_usd, tokens) = spent.map_or((0, 0), |asked: Asked| (asked.micro_usd, asked.tokens));
            let micro_usd = if anew.is_some() { 0 } else { micro_usd };
            self.plan.estimated_micro_usd = self.plan.estimated_micro_usd.saturating_add(micro_usd);
            self.plan.estimated_tokens = self.plan.estimated_tokens.saturating_add(tokens);
            if let Some(step) = state.step(key).filter(|_| is_performed || is_depending) {
                let calls = self.plan.calls_to(addressee(step));
                if is_performed {
                    calls.count += 1;
                    calls.estimated_micro_usd = calls.estimated_micro_usd.saturating_add(micro_usd);
                    calls.estimated_tokens = calls.estimated_tokens.saturating_add(tokens);
                    calls.unpriced += u64::from(anew.is_some());
                } else {
                    calls.depending += 1;
                }
            }
            self.plan.unpriced += u64::from(anew.is_some());
            self.plan.asked_anew.extend(anew);
        }
        if !is_answered {
            self.waiting.insert(key.clone());
            return Ok(None);
        }
        Ok(Some(stimulus))
    }

    /// Takes steps that have to be performed to answer as they did before. Whether one was.
    fn assume<R: Recorded + ?Sized>(
        &mut self,
        state: &mut WorkflowState,
        run: &mut dyn Run,
        recorded: &mut R,
    ) -> Result<bool, Unplanned<R::Error>> {
        for key in self.waiting.clone() {
            let asked = recorded.asked(state, &key).map_err(Unplanned::Unread)?;
            let all = asked.iter().enumerate().flat_map(|(i, asks)| asks.iter().rev().map(move |a| (i, a)));
            let known = all.into_iter().find_map(|(i, asked)| match asked.ended {
                Ended::Completed(version) | Ended::Undone { done: version, .. } => Some((i, version)),
                Ended::Failed(_) | Ended::Open | Ended::Unknown => None,
            });
            let outcome = match known {
                Some((i, version)) => recorded.outcome(state, i, version).map_err(Unplanned::Unread)?,
                None => None,
            };
            let Some(outcome) = outcome else { continue };
            let crate::reuse::Outcome { workflow, version, outcome } = outcome;
            let stimulus = Stimulus::Reuse { key: key.clone(), workflow, version, outcome };
            if self.say(state, run, stimulus).is_ok() {
                self.waiting.remove(&key);
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Planning {
    /// The plan, with what nothing can be said of.
    fn done<R: Recorded + ?Sized>(
        mut self,
        state: &WorkflowState,
        recorded: &mut R,
    ) -> Result<Plan, R::Error> {
        if state.end.is_none() {
            self.plan.unknown_behind = self.waiting.iter().cloned().collect();
            self.plan.listens = listening(state);
        }
        let is_met = |key: &Key| self.plan.writes.iter().any(|write| write.key == *key);
        // Where the end is not known, nobody can say what will be asked for.
        if self.plan.unknown_behind.is_empty() && self.plan.listens.is_empty() {
            let mut left: Vec<Key> = recorded.writes(state)?.into_iter().filter(|key| !is_met(key)).collect();
            left.sort_unstable();
            self.plan.left_done = left;
        }
        Ok(self.plan)
    }
}

/// What becomes of a write whose request turns out to be another one.
fn changed_action(state: &WorkflowState, key: &Key) -> &'static str {
    use crate::change::Policy;
    match state.rules.as_ref().map(|rules| rules.writes.of(key)).unwrap_or_default() {
        Policy::Reuse | Policy::Ask => "ask",
        policy @ (Policy::Stub | Policy::Deny | Policy::Live) => policy.as_str(),
    }
}

/// Tasks that wait for a signal.
fn listening(state: &WorkflowState) -> Vec<Key> {
    let waits = |body: &EntryBody| matches!(body, EntryBody::Listening { heard: None, .. });
    let open = state.entries.iter().filter(|(_, entry)| waits(&entry.body));
    let mut open: Vec<Key> = open.map(|(key, _)| key.clone()).collect();
    open.sort_unstable();
    open
}

fn is_limit(state: &WorkflowState, key: &Key) -> bool {
    let body = state.entries.get(key).map(|entry| &entry.body);
    matches!(body, Some(EntryBody::Timer { limits: true, .. }))
}
