//! Whether a step takes the outcome that was recorded for it in the past that its workflow left: the
//! parent's behind the cut, or its own before it was reopened further back.
//!
//! One rule for plan and engine alike, so that what a plan says is what happens. It performs nothing
//! and reads no log: [`Outcomes`] is shown the events, whoever reads them.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::change::{Policy, Rules};
use crate::decide::Stimulus;
use crate::event::{Event, Fact, Found, StepAsked, Verdict};
use crate::hash::Hash;
use crate::key::Key;
use crate::state::{Step, StepStatus, WorkflowState};
use crate::step::{Effect, Failure, Usage};
use crate::value::Slot;
use crate::{Micros, Version};

/// How a recorded step came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Not at all, within the past.
    Open,
    /// It did what was asked, at this version.
    Completed(Version),
    /// It failed, at this version.
    Failed(Version),
    /// Nobody knows.
    Unknown,
    /// It was done at one version, and taken back at another.
    Undone {
        /// Where it was done.
        done: Version,
        /// Where it was taken back.
        at: Version,
    },
}

/// What a past says of a step, without its values.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Which step kind performed it.
    pub kind: Arc<str>,
    /// What it does to the world.
    pub effect: Effect,
    /// The hash of kind and request.
    pub request_hash: Hash,
    /// How it came out.
    pub ended: Ended,
    /// Cost of its attempts in millionths of a US dollar, as far as prices are known.
    pub micro_usd: u64,
    /// Tokens of its attempts, read and written.
    pub tokens: u64,
    /// Those of them that were written.
    pub output_tokens: u64,
    /// The model that was asked first, where it was one and its name is at hand.
    pub model: Option<Arc<str>>,
    /// When it was asked for.
    pub asked_at: Micros,
    /// For a part of an undo: the version that armed what it takes back.
    pub armed: Option<Version>,
}

/// The steps of a past, by key: every request that was asked of each, the newest ask last. What was done
/// stays done, whatever was asked since.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    by_key: HashMap<Key, Vec<Asked>>,
    /// What is being taken back under a key, by the version that armed it.
    undoing: HashMap<Key, Version>,
}

impl Outcomes {
    /// Outcomes behind a cut, at which this was the state: what was open there may have come out
    /// behind it.
    pub fn behind(state: &WorkflowState) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for key in state.open_steps() {
            let Some(step) = state.step(&key) else { continue };
            let at = step.began.unwrap_or(state.clock);
            let model = step.request.text("model");
            let mut asked = asked(&step.kind, step.effect, step.request_hash, at, model);
            if step.status == StepStatus::Unknown {
                asked.ended = Ended::Unknown;
            }
            outcomes.by_key.insert(key, vec![asked]);
        }
        outcomes
    }

    /// Takes in the next event of the past.
    pub fn see(&mut self, event: &Event) {
        match &event.fact {
            Fact::StepAsked(step) => self.asked(step, event.timestamp),
            Fact::StepCompleted(done) => self.end(&done.key, Ended::Completed(event.version), &done.usage),
            Fact::StepFailed(failed) => self.end(&failed.key, Ended::Failed(event.version), &failed.usage),
            Fact::AttemptFailed(failed) => {
                self.with(&failed.key, |step| step.spend(failed.usage.as_ref()));
            }
            Fact::StepReused(reused) => {
                let ended = if reused.output.is_some() { Ended::Completed } else { Ended::Failed };
                self.end(&reused.key, ended(event.version), &None);
            }
            Fact::OutcomeUnknown { key, .. } => self.end(key, Ended::Unknown, &None),
            Fact::OutcomeResolved { key, landed: Some(_) } => {
                self.end(key, Ended::Completed(event.version), &None);
            }
            Fact::OutcomeResolved { key, landed: None } => self.end(key, Ended::Open, &None),
            Fact::OutcomeReconciled { key, found, .. } => match found {
                Found::Landed => self.end(key, Ended::Completed(event.version), &None),
                Found::Didnt => self.end(key, Ended::Open, &None),
                Found::Unknown => {}
            },
            Fact::UndoStarted(undo) => drop(self.undoing.insert(undo.key.clone(), undo.armed)),
            Fact::UndoCompleted { key, .. } => self.with(key, |step| {
                if let Ended::Completed(done) = step.ended {
                    step.ended = Ended::Undone { done, at: event.version };
                }
            }),
            // What was made up, or forbidden, is no outcome: nothing was done. What was done before was.
            Fact::WriteSettled { key, verdict: Verdict::Stub | Verdict::Deny, .. } => {
                self.nothing_was_done(key)
            }
            Fact::WriteSettled { verdict: Verdict::Live, .. }
            | Fact::WriteHeld { .. }
            | Fact::WorkflowStarted(_)
            | Fact::WorkflowForked(_)
            | Fact::WorkflowReopened { .. }
            | Fact::AttemptStarted { .. }
            | Fact::StepCancelled { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed(_)
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalReceived(_)
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => {}
        }
    }

    /// What the past says of a step: each request that was asked of it, the newest last.
    pub fn of(&self, key: &Key) -> &[Asked] {
        self.by_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// Writes that were done, or may have been.
    pub fn writes(&self) -> impl Iterator<Item = &Key> {
        let is_done = |asked: &Asked| {
            asked.effect == Effect::Write && matches!(asked.ended, Ended::Completed(_) | Ended::Unknown)
        };
        self.by_key.iter().filter(move |(_, asks)| asks.iter().any(is_done)).map(|(key, _)| key)
    }

    fn asked(&mut self, step: &StepAsked, at: Micros) {
        let armed = step.key.undone().and_then(|done| self.undoing.get(&done).copied());
        let model = step.request.text("model");
        let new = Asked { armed, ..asked(&step.kind, step.effect, step.request_hash, at, model) };
        let asks = self.by_key.entry(step.key.clone()).or_default();
        let known = asks.iter().position(|asked| {
            (&asked.kind, asked.effect, asked.request_hash) == (&new.kind, new.effect, new.request_hash)
        });
        match known.map(|at| asks.remove(at)) {
            // Asked for once more: what is known of it stays until there is more.
            Some(known) if known.is_settled() && known.armed == armed => asks.push(known),
            Some(_) | None => asks.push(new),
        }
    }

    fn end(&mut self, key: &Key, ended: Ended, usage: &Option<Usage>) {
        self.with(key, |step| {
            // What was done is not undone by another try that failed.
            if !matches!((step.ended, ended), (Ended::Completed(_), Ended::Failed(_) | Ended::Open)) {
                step.ended = ended;
            }
            step.spend(usage.as_ref());
        });
    }

    fn nothing_was_done(&mut self, key: &Key) {
        if let Some(asks) = self.by_key.get_mut(key)
            && asks.last().is_some_and(|asked| !asked.is_settled())
        {
            asks.pop();
        }
    }

    fn with(&mut self, key: &Key, change: impl FnOnce(&mut Asked)) {
        if let Some(step) = self.by_key.get_mut(key).and_then(|asks| asks.last_mut()) {
            change(step);
        }
    }
}

fn asked(
    kind: &Arc<str>,
    effect: Effect,
    request_hash: Hash,
    asked_at: Micros,
    model: Option<Arc<str>>,
) -> Asked {
    Asked {
        kind: kind.clone(),
        effect,
        request_hash,
        ended: Ended::Open,
        micro_usd: 0,
        tokens: 0,
        output_tokens: 0,
        model,
        asked_at,
        armed: None,
    }
}

impl Asked {
    fn spend(&mut self, usage: Option<&Usage>) {
        if let Some(usage) = usage {
            self.micro_usd = self.micro_usd.saturating_add(usage.micro_usd.unwrap_or(0));
            self.tokens = self.tokens.saturating_add(usage.input_tokens.saturating_add(usage.output_tokens));
            self.output_tokens = self.output_tokens.saturating_add(usage.output_tokens);
        }
    }

    /// Whether the world was changed by it, or may have been.
    fn is_settled(&self) -> bool {
        matches!(self.ended, Ended::Completed(_) | Ended::Unknown)
    }

    /// Whether it is the same work: kind, effect and request.
    fn is_same(&self, step: &Step) -> bool {
        self.kind == step.kind && self.effect == step.effect && self.request_hash == step.request_hash
    }
}

/// What becomes of a step that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// It has the outcome that stands at this version of the past with this number.
    Take(usize, Version),
    /// It is performed.
    Run,
    /// A policy says what becomes of it.
    Settle(Verdict, String),
    /// A person has to say.
    Hold(String),
}

/// Rules over a step of a workflow that is under [`crate::Rules`]; `recorded` is what each of its pasts
/// says of the step, the newest past first.
///
/// A failure of its own past is never taken: a workflow is reopened to get beyond it. A failure of a
/// parent's is an outcome like any other.
pub fn rule(state: &WorkflowState, key: &Key, recorded: &[Vec<Asked>]) -> Ruling {
    let (Some(rules), Some(step)) = (&state.rules, state.step(key)) else { return Ruling::Run };
    if step.is_released || step.status != StepStatus::Pending {
        return Ruling::Run;
    }
    if key.is_aside() {
        return rule_beside(state, key, step, recorded);
    }
    let policy = rules.writes.of(key);
    let is_write = step.effect == Effect::Write;
    let is_own = |past: usize| *rules.pasts[past].workflow == *state.workflow_id;
    let all =
        || recorded.iter().enumerate().flat_map(|(past, asks)| asks.iter().rev().map(move |a| (past, a)));
    let reruns = rules.reruns(key);
    let is_met_anew = rules.anew.contains(key);
    let is_asked_about = is_write && policy == Policy::Ask;
    if !reruns && !is_asked_about {
        // The newest past that knows this very work.
        for (past, asked) in all().filter(|(_, asked)| asked.is_same(step)) {
            match asked.ended {
                Ended::Completed(version) => return Ruling::Take(past, version),
                Ended::Failed(version) if !is_own(past) && !is_met_anew => {
                    return Ruling::Take(past, version);
                }
                // Not beyond what nobody knows.
                Ended::Unknown => break,
                // What is not so any more is no outcome to go on from.
                Ended::Undone { .. } => break,
                Ended::Failed(_) | Ended::Open => {}
            }
        }
    }
    if !is_write {
        return Ruling::Run;
    }
    let done = all().find(|(_, asked)| asked.is_settled());
    let is_taken_back =
        |(past, asked): (usize, &Asked)| is_own(past) && matches!(asked.ended, Ended::Undone { .. });
    if done.is_none() && policy == Policy::Reuse && all().next().is_some_and(is_taken_back) {
        return Ruling::Settle(Verdict::Live, "it was taken back before".to_owned());
    }
    // Its own writes that were never done, or are known to have failed, are simply gone on with.
    if state.lineage.is_none() && done.is_none() && policy == Policy::Reuse {
        return Ruling::Settle(Verdict::Live, "it was not done before".to_owned());
    }
    let reason = why_not_taken(step, done.or_else(|| all().next()), reruns, rules);
    match policy {
        Policy::Reuse | Policy::Ask => Ruling::Hold(reason),
        Policy::Stub => Ruling::Settle(Verdict::Stub, reason),
        Policy::Deny => Ruling::Settle(Verdict::Deny, reason),
        Policy::Live => Ruling::Settle(Verdict::Live, reason),
    }
}

/// What stands beside the flow is about what was done here, and another's past knows nothing of that. What a
/// part of an undo did is not done again, however often the workflow goes back.
fn rule_beside(state: &WorkflowState, key: &Key, step: &Step, recorded: &[Vec<Asked>]) -> Ruling {
    if step.effect != Effect::Write {
        return Ruling::Run;
    }
    let armed = state.undo_around(key).map(|undo| undo.armed);
    let is_own = |past: usize| {
        state.rules.as_ref().is_some_and(|rules| *rules.pasts[past].workflow == *state.workflow_id)
    };
    let own = recorded.iter().enumerate().filter(|(past, _)| is_own(*past));
    let mut of_it = own.flat_map(|(past, asks)| asks.iter().rev().map(move |asked| (past, asked)));
    let known = of_it.find(|(_, asked)| armed.is_some() && asked.armed == armed && asked.is_same(step));
    match known.map(|(past, asked)| (past, asked.ended)) {
        Some((past, Ended::Completed(version))) => Ruling::Take(past, version),
        Some((_, Ended::Unknown)) => Ruling::Hold("nobody knows whether it happened before".to_owned()),
        Some(_) | None => Ruling::Settle(Verdict::Live, "it takes back what was done here".to_owned()),
    }
}

/// Why a write has no recorded outcome to take, for a person.
fn why_not_taken(step: &Step, known: Option<(usize, &Asked)>, reruns: bool, rules: &Rules) -> String {
    let Some((past, asked)) = known else { return "it was never asked for there".to_owned() };
    let there = &rules.pasts[past].workflow;
    match asked.ended {
        Ended::Unknown => format!("nobody knows whether it happened in {there}"),
        Ended::Open => format!("it had not ended in {there}"),
        Ended::Undone { at, .. } => format!("it was taken back in {there}, version {at}"),
        Ended::Completed(_) | Ended::Failed(_) if reruns => "it was told to run again".to_owned(),
        Ended::Completed(version) | Ended::Failed(version) if asked.is_same(step) => {
            format!("it was done in {there}, version {version}")
        }
        Ended::Completed(version) | Ended::Failed(version) => {
            format!("its request is not the one of {there}, version {version}")
        }
    }
}

/// What the pasts of a workflow say, read by whoever has them.
pub trait Recorded {
    /// Why it could not be read.
    type Error;

    /// What each past of the state's rules says of a step, the newest past first; of each, every request
    /// that was asked, the newest last.
    ///
    /// # Errors
    /// The past cannot be read.
    fn asked(&mut self, state: &WorkflowState, key: &Key) -> Result<Vec<Vec<Asked>>, Self::Error>;

    /// Writes that the newest past says were done, or may have been.
    ///
    /// # Errors
    /// The past cannot be read.
    fn writes(&mut self, state: &WorkflowState) -> Result<Vec<Key>, Self::Error>;

    /// The outcome at a version of the past with this number, its value at hand; `None` where the value
    /// was erased.
    ///
    /// # Errors
    /// The past cannot be read.
    fn outcome(
        &mut self,
        state: &WorkflowState,
        past: usize,
        version: Version,
    ) -> Result<Option<Outcome>, Self::Error>;
}

/// A recorded outcome, and where it stands first.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// In whose log.
    pub workflow: Arc<str>,
    /// At which version.
    pub version: Version,
    /// What it was.
    pub outcome: Result<Slot, Failure>,
}

impl Outcome {
    /// The outcome that an event of a workflow's log records, if it records one.
    pub fn of(workflow: &Arc<str>, event: &Event) -> Option<Outcome> {
        let here = |outcome| Outcome { workflow: workflow.clone(), version: event.version, outcome };
        match &event.fact {
            Fact::StepCompleted(done) => Some(here(Ok(done.output.clone()))),
            Fact::StepFailed(failed) => Some(here(Err(failed.error.clone()))),
            Fact::OutcomeResolved { landed: Some(output), .. }
            | Fact::OutcomeReconciled { landed: Some(output), .. } => Some(here(Ok(output.clone()))),
            Fact::StepReused(reused) => Some(Outcome {
                workflow: reused.workflow.clone(),
                version: reused.version,
                outcome: match &reused.output {
                    Some(output) => Ok(output.clone()),
                    None => Err(reused.error.clone().unwrap_or_default()),
                },
            }),
            _ => None,
        }
    }
}

/// The word to a step that is asked for: that it begins, or what becomes of it instead. Where the
/// outcome of another step that waits was recorded before its own, the word is to that one: who was
/// first there is first here.
///
/// # Errors
/// The past cannot be read.
pub fn word<R: Recorded + ?Sized>(
    state: &WorkflowState,
    key: &Key,
    recorded: &mut R,
) -> Result<Stimulus, R::Error> {
    if !is_ruled(state, key) {
        return Ok(Stimulus::Begin { key: key.clone() });
    }
    let waiting: Vec<Key> = state.open.iter().filter(|key| is_ruled(state, key)).cloned().collect();
    let first = first_taken(state, &waiting, recorded)?;
    word_to(state, first.as_ref().unwrap_or(key), recorded)
}

fn is_ruled(state: &WorkflowState, key: &Key) -> bool {
    let waits = |step: &Step| step.status == StepStatus::Pending && !step.is_released && !step.is_given_up;
    state.rules.is_some() && state.step(key).is_some_and(waits)
}

/// Of these steps, the one whose outcome is taken and was recorded first.
///
/// # Errors
/// The past cannot be read.
pub fn first_taken<R: Recorded + ?Sized>(
    state: &WorkflowState,
    keys: &[Key],
    recorded: &mut R,
) -> Result<Option<Key>, R::Error> {
    let mut first: Option<((usize, Version), &Key)> = None;
    for key in keys {
        let asked = recorded.asked(state, key)?;
        if let Ruling::Take(past, version) = rule(state, key, &asked)
            && first.is_none_or(|(earliest, _)| (past, version) < earliest)
        {
            first = Some(((past, version), key));
        }
    }
    Ok(first.map(|(_, key)| key.clone()))
}

/// The output of a write that is stubbed, where nobody says another: what the newest past that did it gave,
/// though its request was another one.
///
/// # Errors
/// The past cannot be read.
pub fn stub_output<R: Recorded + ?Sized>(
    state: &WorkflowState,
    key: &Key,
    recorded: &mut R,
) -> Result<Option<Value>, R::Error> {
    let asked = recorded.asked(state, key)?;
    stub(state, &asked, recorded)
}

fn stub<R: Recorded + ?Sized>(
    state: &WorkflowState,
    asked: &[Vec<Asked>],
    recorded: &mut R,
) -> Result<Option<Value>, R::Error> {
    for (past, asks) in asked.iter().enumerate() {
        for asked in asks.iter().rev() {
            let Ended::Completed(version) = asked.ended else { continue };
            let known = recorded.outcome(state, past, version)?;
            if let Some(Outcome { outcome: Ok(output), .. }) = known {
                return Ok(Some((*output.get()).clone()));
            }
        }
    }
    Ok(None)
}

/// The word to this very step.
///
/// # Errors
/// The past cannot be read.
pub fn word_to<R: Recorded + ?Sized>(
    state: &WorkflowState,
    key: &Key,
    recorded: &mut R,
) -> Result<Stimulus, R::Error> {
    let key = key.clone();
    let asked = recorded.asked(state, &key)?;
    Ok(match rule(state, &key, &asked) {
        Ruling::Run => Stimulus::Begin { key },
        Ruling::Hold(reason) => Stimulus::Hold { key, reason },
        Ruling::Settle(verdict, reason) => {
            let output = if verdict == Verdict::Stub { stub(state, &asked, recorded)? } else { None };
            Stimulus::Settle { key, verdict, output, reason }
        }
        Ruling::Take(past, version) => match recorded.outcome(state, past, version)? {
            Some(Outcome { workflow, version, outcome }) => {
                Stimulus::Reuse { key, workflow, version, outcome }
            }
            None if state.step(&key).is_some_and(|step| step.effect == Effect::Write) => {
                Stimulus::Hold { key, reason: "what it gave was erased".into() }
            }
            None => Stimulus::Begin { key },
        },
    })
}
