//! Taking back: what a workflow did in the world, newest first.
//!
//! A `write` that completes arms its undo by a fact of its own, which names the one armed before it: a
//! chain through the log, of which the state keeps only the newest. Compensation walks that chain. It
//! performs nothing itself: each undo is tasks of the program, in a scope of their own (`charge!undo`),
//! whose steps are durable like all others.
//!
//! Invariants: what is not known to have happened is not taken back; a compensation goes on only when
//! no `write` it may concern is in doubt; what was taken back is in the chain no more.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Version;
use crate::decide::Stimulus;
use crate::event::{Fact, Found, TaskKind, UndoArmed, UndoStarted};
use crate::key::Key;
use crate::state::{End, EntryBody, Status, StepStatus, WorkflowState};
use crate::step::{Failure, error_type};
use crate::value::Slot;

/// A compensation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compensation {
    /// What was armed after this version is not taken back.
    pub from: Version,
    /// What was armed up to this version is not taken back.
    pub down_to: Version,
    /// Where the walk goes on.
    pub next: Option<Version>,
    /// What is being taken back.
    pub current: Option<Box<UndoStarted>>,
    /// Why that could not be taken back.
    pub failed: Option<Failure>,
    /// Whether a person took it back instead.
    #[serde(default, skip_serializing_if = "is_not")]
    pub is_by_hand: bool,
}

fn is_not(flag: &bool) -> bool {
    !flag
}

impl Compensation {
    /// Every slot that it holds, to be filled.
    pub(crate) fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.current.iter_mut().flat_map(|undo| undo.undo.iter_mut().chain(undo.output.iter_mut()))
    }

    /// The undo under way, where it goes on by itself.
    fn under_way(&self) -> Option<&UndoStarted> {
        self.current.as_deref().filter(|_| self.failed.is_none())
    }
}

/// What has just been done and has an undo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToArm {
    /// The step, or the place that recorded a domain event.
    pub key: Key,
    /// What takes it back.
    pub handler: Arc<str>,
    /// What the handler is given, beside the output.
    pub undo: Slot,
    /// What the step answered.
    pub output: Option<Slot>,
    /// How often what stands there was taken back before.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
}

fn is_first(generation: &u32) -> bool {
    *generation == 0
}

/// An undo that was armed, as it was read from the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Armed {
    /// What was armed.
    pub undo: UndoArmed,
    /// Whether a value that it needs was erased.
    pub is_erased: bool,
}

/// How a version of the log is read: the undo that was armed there.
pub type ReadArmed<'a, E> = &'a mut dyn FnMut(Version) -> Result<Armed, E>;

impl WorkflowState {
    /// Whether the whole of it is being taken back.
    pub fn is_compensating(&self) -> bool {
        self.compensations.contains_key(&Key::root())
    }

    /// Whether something behind its end is still to be known or taken back.
    pub(crate) fn is_being_settled(&self) -> bool {
        let is_cancelled = matches!(self.end, Some(End::Cancelled { .. }));
        !self.compensations.is_empty() || (is_cancelled && self.holds_doubt(&Key::root()))
    }

    /// Why it is stuck, where it is: what could not be taken back, and the reason.
    pub fn stuck(&self) -> Option<(&UndoStarted, &Failure)> {
        let compensation = self.compensations.get(&Key::root())?;
        Some((compensation.current.as_deref()?, compensation.failed.as_ref()?))
    }

    /// Whether this is the key of the undo that could not be taken back, `charge!undo`: a person may have
    /// done it by hand.
    pub fn is_stuck_at(&self, key: &Key) -> bool {
        self.stuck().is_some_and(|(undo, _)| undo.key.undo() == *key)
    }

    pub(crate) fn compensating_status(&self) -> Status {
        let is_unknown = |key: &Key| {
            let step = self.step(key).filter(|step| step.status == StepStatus::Unknown);
            step.is_some() && !self.reconciling.contains(key)
        };
        let moves = |key: &Key| self.may_move(key) && !is_unknown(key);
        if self.open.iter().any(is_unknown) && !self.open.iter().any(moves) {
            return Status::Unknown;
        }
        match self.stuck() {
            Some(_) => Status::Stuck,
            None => Status::Compensating,
        }
    }

    /// Whether what stands at this key goes on by itself: the workflow has not ended, or this is a part
    /// of what takes it back.
    pub fn may_move(&self, key: &Key) -> bool {
        self.end.is_none() || self.undo_around(key).is_some() || self.is_reconciled_by(key)
    }

    /// Whether this key stands among the tasks that find out whether a step happened.
    fn is_reconciled_by(&self, key: &Key) -> bool {
        self.reconciling.iter().any(|step| {
            let scope = step.reconcile();
            *key == scope || key.is_inside(&scope)
        })
    }

    /// The undo under way in whose tasks this key stands.
    pub(crate) fn undo_around(&self, key: &Key) -> Option<&UndoStarted> {
        if self.compensations.is_empty() {
            return None;
        }
        self.undos_under_way().find(|undo| {
            let scope = undo.key.undo();
            *key == scope || key.is_inside(&scope)
        })
    }

    /// Undos under way, by their scopes.
    pub fn undos_under_way(&self) -> impl Iterator<Item = &UndoStarted> {
        self.compensations.values().filter_map(Compensation::under_way)
    }

    /// Scopes whose compensation goes on with the next undo.
    pub(crate) fn owed_undos(&self) -> impl Iterator<Item = Key> {
        let owed = self.compensations.iter().filter(|(scope, compensation)| {
            compensation.current.is_none() && compensation.failed.is_none() && self.may_take_back(scope)
        });
        owed.map(|(scope, _)| scope.clone())
    }

    /// Whether the next undo of a scope may begin: nothing there is in doubt, and the whole waits for its
    /// parts.
    fn may_take_back(&self, scope: &Key) -> bool {
        !self.holds_doubt(scope) && (!scope.is_root() || self.compensations.len() == 1)
    }

    /// Whether a `write` is open there of which nobody knows yet whether it happened.
    fn holds_doubt(&self, scope: &Key) -> bool {
        let is_there = |key: &Key| scope.is_root() || key.is_inside(scope);
        self.open.iter().any(|key| is_there(key) && self.step(key).is_some_and(|step| step.is_in_doubt()))
    }

    /// The fact by which what has just been done arms its undo.
    pub(crate) fn arming(&self) -> Option<Fact> {
        let ToArm { key, handler, undo, output, generation } = (**self.to_arm.as_ref()?).clone();
        let previous = self.newest_undo;
        let armed = UndoArmed { key, handler, undo, output, previous, generation };
        Some(Fact::UndoArmed(Box::new(armed)))
    }

    /// Why the whole of a workflow that has ended is to be taken back now, where its program wants it.
    pub(crate) fn reason_to_compensate(&self) -> Option<&'static str> {
        let is_settled = self.is_compensated || self.is_compensating() || self.newest_undo.is_none();
        match &self.end {
            Some(End::Failed { .. }) if !is_settled => Some("it failed"),
            Some(End::Cancelled { .. }) if !is_settled => Some("it was cancelled"),
            Some(_) | None => None,
        }
    }

    pub(crate) fn begin_compensation(
        &mut self,
        scope: &Key,
        from: Option<Version>,
        down_to: Option<Version>,
    ) {
        let compensation = Compensation {
            from: from.unwrap_or(Version::MAX),
            down_to: down_to.unwrap_or(0),
            next: self.newest_undo,
            current: None,
            failed: None,
            is_by_hand: false,
        };
        self.compensations.insert(scope.clone(), compensation);
    }

    pub(crate) fn undo_started(&mut self, started: &UndoStarted) {
        if let Some(compensation) = self.compensations.get_mut(&started.scope) {
            compensation.next = started.previous;
            compensation.current = Some(Box::new(started.clone()));
        }
    }

    /// A person took back what the program could not.
    pub(crate) fn undone_by_hand(&mut self) {
        if let Some(compensation) = self.compensations.get_mut(&Key::root()) {
            (compensation.failed, compensation.is_by_hand) = (None, true);
        }
    }

    /// What was armed while something is being taken back is taken back too: it was under way.
    pub(crate) fn undo_armed(&mut self, key: &Key, version: Version) {
        self.newest_undo = Some(version);
        self.to_arm = None;
        let has_ended = self.end.is_some();
        for (scope, compensation) in &mut self.compensations {
            // Behind the end a part only ends what it is in the middle of.
            if scope.is_root() || (key.is_inside(scope) && !has_ended) {
                compensation.next = Some(version);
            }
        }
    }

    /// What was taken back leaves the chain, and with it all right behind it that left before.
    pub(crate) fn undo_completed(&mut self, scope: &Key, armed: Version) {
        let current = self.compensations.get_mut(scope).and_then(|compensation| {
            compensation.is_by_hand = false;
            compensation.current.take()
        });
        let previous = current.as_ref().and_then(|undo| undo.previous);
        if let Some(undo) = current {
            self.may_be_done_again(scope, &undo);
        }
        self.undone.insert(armed, previous);
        while let Some(newest) = self.newest_undo
            && let Some(before) = self.undone.remove(&newest)
        {
            self.newest_undo = before;
            // Nobody remembers any more that it was taken back: no walk may come by it.
            for compensation in self.compensations.values_mut().filter(|c| c.next == Some(newest)) {
                compensation.next = before;
            }
        }
    }

    /// A further try of a block around it may ask for the same again: that is then another effect. Where
    /// all is taken back, nothing is asked for before the workflow is reopened, as another generation.
    fn may_be_done_again(&mut self, scope: &Key, undo: &UndoStarted) {
        let next = self.generation.max(undo.generation) + 1;
        self.newest_generation = self.newest_generation.max(next);
        if !scope.is_root() {
            let known = self.redone.entry(Arc::from(undo.key.without_tries())).or_default();
            *known = next.max(*known);
        }
    }

    /// Which generation a step is that is asked for now: see [`WorkflowState::generation`]. What takes
    /// something back goes with what it takes back, however often the workflow was reopened since.
    pub fn generation_of(&self, key: &Key) -> u32 {
        if let Some(undo) = self.undo_around(key) {
            return undo.generation;
        }
        let redone = (!self.redone.is_empty()).then(|| self.redone.get(&*key.without_tries())).flatten();
        redone.copied().unwrap_or(0).max(self.generation)
    }

    /// What stood in a scope that has finished is not asked for again, unless a block around it is tried
    /// again.
    pub(crate) fn forget_redone(&mut self, scope: &Key) {
        if self.redone.is_empty() || self.is_in_open_try(scope) {
            return;
        }
        let scope = scope.without_tries();
        let is_inside =
            |key: &str| key.strip_prefix(&*scope).is_some_and(|rest| rest.starts_with(['/', '!', '[']));
        self.redone.retain(|key, _| !is_inside(key));
    }

    fn is_in_open_try(&self, key: &Key) -> bool {
        let text = key.as_str();
        text.match_indices('/').any(|(at, _)| {
            let around = self.entries.get(&Key::new(&text[..at]).unmarked()).map(|entry| &entry.body);
            matches!(around, Some(EntryBody::Started { kind: TaskKind::Try, .. }))
        })
    }

    pub(crate) fn undo_failed(&mut self, scope: &Key, error: &Failure) {
        let Some(compensation) = self.compensations.get_mut(scope) else { return };
        compensation.failed = Some(error.clone());
        // Its time does not run while nobody works at it: who goes on has all of it.
        let inside = compensation.current.as_ref().map(|undo| undo.key.undo());
        let is_running =
            |key: &&Key| self.is_limit(key) && inside.as_ref().is_some_and(|inside| key.is_inside(inside));
        let limits: Vec<Key> = self.open.iter().filter(is_running).cloned().collect();
        limits.iter().for_each(|key| self.forget(key));
        if self.end.is_some() {
            self.leave_parts();
        }
    }

    /// Behind the end all is a matter of the whole, which goes by the newest; a part only ends what it is
    /// in the middle of.
    pub(crate) fn leave_parts(&mut self) {
        self.compensations.retain(|scope, part| scope.is_root() || part.under_way().is_some());
        for (_, part) in self.compensations.iter_mut().filter(|(scope, _)| !scope.is_root()) {
            part.next = None;
        }
    }

    pub(crate) fn compensation_ended(&mut self, scope: &Key) {
        self.compensations.remove(scope);
        self.is_compensated |= scope.is_root();
    }

    /// Whether a fact of this kind may follow.
    pub(crate) fn admits_undo(&self, fact: &Fact) -> Result<(), String> {
        let of = |scope: &Key| {
            self.compensations.get(scope).ok_or_else(|| "nothing is being taken back there".to_owned())
        };
        let is_current = |scope: &Key, key: &Key, armed: Version| match of(scope)?.under_way() {
            Some(undo) if undo.key == *key && undo.armed == armed => Ok(()),
            _ => Err(format!("`{key}` is not being taken back")),
        };
        match fact {
            Fact::UndoArmed(armed) if armed.previous != self.newest_undo => {
                Err("an undo names the one armed before it".into())
            }
            Fact::UndoArmed(armed) => match &self.to_arm {
                Some(done) if done.key == armed.key => Ok(()),
                Some(_) | None => Err(format!("`{}` was not done just now", armed.key)),
            },
            Fact::UndoStarted(started) => {
                let compensation = of(&started.scope)?;
                let is_next = compensation.current.is_none()
                    && compensation.failed.is_none()
                    && compensation.next.is_some_and(|next| started.armed <= next)
                    && started.armed > compensation.down_to
                    && started.armed <= compensation.from
                    && !self.undone.contains_key(&started.armed);
                match (is_next, self.may_take_back(&started.scope)) {
                    (true, true) => Ok(()),
                    (true, false) => Err("a write is under way that has to be known first".into()),
                    (false, _) => Err(format!("`{}` is not the next to be taken back", started.key)),
                }
            }
            Fact::UndoCompleted { key, armed, scope } => {
                is_current(scope, key, *armed)?;
                let inside = key.undo();
                match self.open.iter().find(|open| open.is_inside(&inside)) {
                    Some(open) => Err(format!("`{open}` is still open")),
                    None => Ok(()),
                }
            }
            Fact::UndoFailed { key, armed, scope, .. } => is_current(scope, key, *armed),
            Fact::CompensationStarted { scope, .. } if self.compensations.contains_key(scope) => {
                Err("it is being taken back already".into())
            }
            Fact::CompensationStarted { scope, .. } if scope.is_root() != self.end.is_some() => {
                Err("all of a workflow is taken back once it has ended, and a part before".into())
            }
            Fact::CompensationStarted { .. } => Ok(()),
            Fact::CompensationRequested { .. } => match (&self.end, self.is_compensating(), self.stuck()) {
                (None, ..) => Err("the workflow has not ended".into()),
                (Some(_), true, None) => Err("it is being taken back already".into()),
                (Some(_), ..) => Ok(()),
            },
            Fact::CompensationEnded { scope } => match of(scope)?.current {
                None if self.may_take_back(scope) => Ok(()),
                Some(_) | None => Err("something is still being taken back".into()),
            },
            _ => Err("this is no part of taking back".into()),
        }
    }
}

/// The word by which a compensation goes on: the next undo of the chain that is its to take back, or that
/// there is none.
///
/// # Errors
/// The log cannot be read.
pub fn next<E>(state: &WorkflowState, scope: &Key, read: ReadArmed<'_, E>) -> Result<Stimulus, E> {
    let end = Stimulus::EndCompensation { scope: scope.clone() };
    let Some(compensation) = state.compensations.get(scope) else { return Ok(end) };
    let mut at = compensation.next;
    while let Some(version) = at.filter(|version| *version > compensation.down_to) {
        if let Some(previous) = state.undone.get(&version) {
            at = *previous;
            continue;
        }
        let armed = read(version)?;
        let is_ours = scope.is_root() || armed.undo.key.is_inside(scope);
        if is_ours && version <= compensation.from {
            return Ok(Stimulus::Undo { scope: scope.clone(), version, armed: Box::new(armed) });
        }
        at = armed.undo.previous;
    }
    Ok(end)
}

/// What is armed in this state, newest first, as far as `most` of them.
///
/// # Errors
/// The log cannot be read.
pub fn armed<E>(
    state: &WorkflowState,
    most: usize,
    read: ReadArmed<'_, E>,
) -> Result<Vec<(Version, Armed)>, E> {
    let mut found = Vec::new();
    let mut at = state.newest_undo;
    while let Some(version) = at.filter(|_| found.len() < most) {
        if let Some(previous) = state.undone.get(&version) {
            at = *previous;
            continue;
        }
        let armed = read(version)?;
        at = armed.undo.previous;
        found.push((version, armed));
    }
    Ok(found)
}

/// What the tasks that looked whether a `write` happened say by what they gave: `{landed: OUTPUT}`, or
/// `{didnt: true}`; anything else is no answer.
pub(crate) fn found(answer: &serde_json::Value) -> (Found, Option<Slot>, String) {
    if let Some(output) = answer.get("landed") {
        return (Found::Landed, Some(Slot::of(output.clone())), "it was found".to_owned());
    }
    if answer.get("didnt") == Some(&serde_json::Value::Bool(true)) {
        return (Found::Didnt, None, "it was looked for, and is not there".to_owned());
    }
    (Found::Unknown, None, "what looked for it cannot tell".to_owned())
}

/// Why something cannot be taken back whose values were erased.
pub(crate) fn erased(key: &Key) -> Failure {
    let detail = "what it was done with was erased; take it back by hand, then say so";
    Failure::new(error_type::RUNTIME, 410, "What is needed to take it back is gone", detail).at(key)
}
