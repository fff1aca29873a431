//! One workflow in memory: its state, its run, and what waits for its commits.
//!
//! The state may be ahead of the disk by the commits under way; nothing of that leaves before its
//! commit. When a commit is refused, all of this is dropped and folded anew.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use foldback_core::decide::Ids;
use foldback_core::event::UndoStarted;
use foldback_core::listen::{Heed, heed};
use foldback_core::{
    Batch, Divergence, Effect, EntryBody, Event, EventId, Fact, Found, Hash, Illegal, Key, Micros, Owed,
    Redaction, Run, Status, StepStatus, Stimulus, Timing, Turn, Verdict, Version, WorkflowState, advance,
    limits, reuse, undo,
};
use foldback_store::{Append, Commit, Expected, NewEvent, NewWorkflow, Snapshot, Store};
use serde_json::Value;

use crate::engine::alarms::Wait;
use crate::hearing::Ears;
use crate::kind::Registry;
use crate::load::{LoadError, armed_at};
use crate::pasts::Pasts;

/// An attempt whose start is in the log or on its way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The step.
    pub key: Key,
    /// Which attempt.
    pub attempt: u32,
}

/// One workflow in memory.
pub struct Live {
    /// Which memory of the workflow this is; acknowledgements for an earlier one mean nothing.
    pub incarnation: u64,
    /// The fold.
    pub state: WorkflowState,
    run: Box<dyn Run>,
    /// Steps that were open when the log was folded, until the program has asked for them.
    unasked: BTreeSet<Key>,
    /// Where the program and the log parted over such a step.
    parted: Option<Divergence>,
    /// What is taken out of every word before it is judged.
    pub redaction: Redaction,
    /// Commits queued so far, and how many of them are on disk.
    queued: u64,
    durable: u64,
    /// Attempts that wait for a commit: the number of the commit, and the attempt.
    waiting: VecDeque<(u64, Dispatch)>,
    /// Attempts that were given up, and the number of the commit that says so.
    stopping: Vec<(u64, Dispatch)>,
    /// Whether nothing may run ahead of the disk: until the first commit after a fold.
    is_careful: bool,
    /// The status as the store knows it.
    told_status: Status,
    /// The wake-up as the store knows it; `None` where that is not known here.
    told_wake_at: Option<Option<Micros>>,
    /// What it listens for as the store knows it.
    ears: Ears,
    /// Signals that have an id of their sender's, and the number of the commit that each is on its way in.
    delivering: Vec<(u64, EventId)>,
    /// Events of commits under way, for observers, oldest first.
    unseen: VecDeque<Vec<Event>>,
    /// A state that becomes a snapshot when this commit is on disk, and its version.
    kept: Option<(u64, foldback_core::Version, Vec<u8>)>,
    /// The version from which on a snapshot is worth its bytes.
    next_snapshot: foldback_core::Version,
    /// What is recorded in the pasts that it left.
    pasts: Option<Pasts>,
}

/// What a stimulus led to, for the engine to carry out.
#[derive(Default)]
pub struct Advanced {
    /// To be queued in the store, unless nothing happened.
    pub commit: Option<Commit>,
    /// Attempts that may begin now.
    pub ready: Vec<Dispatch>,
    /// Waits that begin.
    pub alarms: Vec<(Wait, Key)>,
    /// Steps that were asked for and could not start at once.
    pub pending: Vec<Key>,
    /// What was left behind, and is owed again.
    pub owed: Vec<Owed>,
    /// Signals that were refused, by the versions at which they came, and why.
    pub refused: Vec<(foldback_core::Version, String)>,
    /// Whether the turn goes on in a further batch.
    pub is_cut: bool,
}

/// Event types by name, so that an append shares their text.
fn type_text(fact: &Fact) -> Arc<str> {
    thread_local! {
        static TEXTS: std::cell::RefCell<std::collections::HashMap<String, Arc<str>>> = Default::default();
    }
    let name = fact.event_type();
    TEXTS.with_borrow_mut(|texts| match texts.get(name) {
        Some(text) => text.clone(),
        None => texts.entry(name.to_owned()).or_insert_with(|| Arc::from(name)).clone(),
    })
}

impl Live {
    /// A workflow in memory, whose status in the store is `told_status`.
    pub fn new(
        incarnation: u64,
        state: WorkflowState,
        run: Box<dyn Run>,
        redaction: Redaction,
        told_status: Status,
    ) -> Live {
        Live {
            incarnation,
            redaction,
            told_wake_at: (state.version == 0).then_some(None),
            ears: Ears::of(&state),
            unasked: state.open_steps().into_iter().collect(),
            parted: None,
            next_snapshot: state.version + limits::SNAPSHOT_MIN_EVENTS,
            state,
            run,
            queued: 0,
            durable: 0,
            waiting: VecDeque::new(),
            stopping: Vec::new(),
            is_careful: true,
            told_status,
            delivering: Vec::new(),
            unseen: VecDeque::new(),
            kept: None,
            pasts: None,
        }
    }

    /// What made the workflow fail.
    pub fn failures(&self) -> Vec<Key> {
        self.run.failures(&self.state)
    }

    /// Puts a run in place of one that has ended.
    pub fn restart(&mut self, run: Box<dyn Run>) {
        self.run = run;
        (self.unasked, self.parted) = (self.state.open_steps().into_iter().collect(), None);
    }

    /// Whether a step was found in the log, and its program has not asked for it.
    pub fn is_unasked(&self, key: &Key) -> bool {
        self.unasked.contains(key)
    }

    /// The steps that were found in the log, and that its program has not asked for.
    pub fn unasked(&self) -> &BTreeSet<Key> {
        &self.unasked
    }

    /// Takes note of which of the steps that may begin the program does not ask for; it asks for the others.
    pub fn asked(&mut self, parted: BTreeMap<Key, Divergence>) {
        let state = &self.state;
        self.unasked.retain(|key| parted.contains_key(key) || !state.may_move(key));
        self.parted = parted.into_values().next();
    }

    /// The word to a step that is asked for: that it begins, or what becomes of it instead.
    ///
    /// # Errors
    /// What was recorded cannot be read.
    pub fn word(&mut self, key: &Key, store: &Arc<dyn Store>) -> Result<Stimulus, LoadError> {
        let pasts = self.pasts.get_or_insert_with(|| Pasts::new(store.clone()));
        reuse::word(&self.state, key, pasts)
    }

    /// The output of a write that is stubbed, where nobody says another.
    ///
    /// # Errors
    /// What was recorded cannot be read.
    pub fn stub_output(&mut self, key: &Key, store: &Arc<dyn Store>) -> Result<Option<Value>, LoadError> {
        let pasts = self.pasts.get_or_insert_with(|| Pasts::new(store.clone()));
        reuse::stub_output(&self.state, key, pasts)
    }

    /// What use the program has for another workflow's event, were it said now.
    pub fn heed(&mut self, event: Stimulus, now: Micros) -> Heed {
        heed(&self.state, &mut *self.run, self.redaction.stimulus(event), now)
    }

    /// What failed in an undo, and is met anew when it is tried again.
    pub fn failed_undos(&self) -> Vec<Key> {
        let of_undos = |key: &Key| key.undone().is_some();
        self.run.failures(&self.state).into_iter().filter(of_undos).collect()
    }

    /// The word by which a compensation goes on.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn next_undo(&self, scope: &Key, store: &dyn Store) -> Result<Stimulus, LoadError> {
        undo::next(&self.state, scope, &mut |version| armed_at(store, &self.state.workflow_id, version))
    }

    /// Says a stimulus to the workflow.
    ///
    /// # Errors
    /// The law forbids it, or what the program answered: the caller drops this workflow.
    pub fn say(
        &mut self,
        stimulus: Stimulus,
        timing: &Timing,
        ids: Ids<'_>,
        kinds: &Registry,
        is_observed: bool,
    ) -> Result<Advanced, Illegal> {
        let before = self.state.version;
        let Batch { events, is_cut } = match &self.parted {
            None => advance(&mut self.state, &mut *self.run, stimulus, timing, ids)?,
            Some(at) => {
                let mut run = Parted { at, run: &mut *self.run };
                advance(&mut self.state, &mut run, stimulus, timing, ids)?
            }
        };
        let mut advanced = Advanced { is_cut, ..Advanced::default() };
        if events.is_empty() {
            return Ok(advanced);
        }
        self.queued += 1;
        let mut wakes = false;
        for event in &events {
            if let (false, Fact::StepAsked(asked)) = (self.unasked.is_empty(), &event.fact) {
                self.unasked.remove(&asked.key);
            }
            wakes |= self.take_up(event, kinds, &mut advanced);
            if is_id_supplied(&event.fact) {
                self.delivering.push((self.queued, event.id));
            }
        }
        if events.iter().any(|event| matches!(event.fact, Fact::UndoStarted(_))) {
            advanced.owed = self.owed_by_undos(before);
        }
        advanced.commit = Some(self.commit_of(&events, before, wakes));
        self.keep_state_if_due();
        if is_observed {
            self.unseen.push_back(events);
        }
        advanced.ready.extend(self.release());
        Ok(advanced)
    }

    /// What an undo left behind when it was begun before, and that moves again now.
    fn owed_by_undos(&self, before: foldback_core::Version) -> Vec<Owed> {
        let is_old = |key: &Key| {
            key.undone().is_some() && self.state.entries.get(key).is_some_and(|entry| entry.since <= before)
        };
        let owed = self.state.owes().into_iter().filter(|owed| match owed {
            Owed::Start(key) | Owed::Attempt(key, _) | Owed::Retry(key, _) | Owed::Timer(key, _) => {
                is_old(key)
            }
            Owed::Undo(_) => false,
        });
        owed.collect()
    }

    /// What one fact means for the engine. True where there may be something to wake for since.
    fn take_up(&mut self, event: &Event, kinds: &Registry, advanced: &mut Advanced) -> bool {
        match &event.fact {
            Fact::StepAsked(asked) if asked.starts => {
                let ahead = match asked.effect {
                    // The output-commit rule: all before a write, and its own start, are on disk.
                    Effect::Write => 0,
                    Effect::Pure | Effect::Read if self.is_careful => 0,
                    Effect::Pure | Effect::Read => {
                        kinds.get(&asked.kind).map_or(0, |k| u64::from(k.run_ahead()))
                    }
                };
                let attempt = self.state.step(&asked.key).map_or(1, |step| step.attempts);
                let dispatch = Dispatch { key: asked.key.clone(), attempt };
                self.waiting.push_back((self.queued.saturating_sub(ahead), dispatch));
                false
            }
            Fact::StepAsked(asked) => {
                advanced.pending.push(asked.key.clone());
                false
            }
            // A further attempt is counted on disk before it runs: a step that kills the process
            // must not do so for ever.
            Fact::AttemptStarted { key, attempt, .. } => {
                self.waiting.push_back((self.queued, Dispatch { key: key.clone(), attempt: *attempt }));
                true
            }
            Fact::AttemptFailed(failed) => {
                let wait = Wait { due: failed.due, delay: failed.due.saturating_sub(event.clock()) };
                advanced.alarms.push((wait, failed.key.clone()));
                true
            }
            // Not before it is on disk: until then nothing has cut the attempt off.
            Fact::StepCancelled { key, attempt: Some(attempt), .. } => {
                self.stopping.push((self.queued, Dispatch { key: key.clone(), attempt: *attempt }));
                true
            }
            Fact::StepCancelled { attempt: None, .. } | Fact::TimerCancelled { .. } => true,
            Fact::TimerSet { key, due, .. } => {
                let wait = Wait { due: *due, delay: due.saturating_sub(event.clock()) };
                advanced.alarms.push((wait, key.clone()));
                true
            }
            Fact::OutcomeResolved { key, landed: None }
            | Fact::OutcomeReconciled { key, found: Found::Didnt, .. } => {
                advanced.pending.push(key.clone());
                false
            }
            Fact::WorkflowCancelled { .. } => {
                let given_up = self.state.entries.iter().filter_map(|(key, entry)| match &entry.body {
                    EntryBody::Step(step) if step.status == StepStatus::Cancelled => {
                        Some((self.queued, Dispatch { key: key.clone(), attempt: step.attempts }))
                    }
                    _ => None,
                });
                self.stopping.extend(given_up);
                true
            }
            Fact::WriteSettled { key, verdict: Verdict::Live, .. } => {
                advanced.pending.push(key.clone());
                false
            }
            Fact::SignalRefused { signal, reason, .. } => {
                advanced.refused.push((*signal, reason.clone()));
                false
            }
            Fact::TimerFired { .. }
            | Fact::WorkflowReopened { .. }
            | Fact::WorkflowForked(_)
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetExceeded { .. } => true,
            Fact::WorkflowStarted(_)
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::StepCompleted(_)
            | Fact::StepFailed(_)
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed(_)
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::SignalReceived(_)
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::UndoStarted(_)
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => false,
        }
    }

    fn commit_of(&mut self, events: &[Event], before: u64, wakes: bool) -> Commit {
        let status = self.state.status();
        let changed = (status != self.told_status).then(|| status.as_str());
        self.told_status = status;
        let payloads = events.iter().flat_map(|e| e.fact.slots()).filter_map(|slot| slot.payload()).collect();
        let append = Append {
            workflow_id: self.state.workflow_id.clone(),
            expected: if before == 0 { Expected::NoStream } else { Expected::Exact(before) },
            events: events.iter().map(new_event).collect(),
            begins: events.iter().find_map(|event| begins(&self.state, event)),
            status: changed,
        };
        let mut wakeups = Vec::new();
        // What is woken for may also go without a fact of its own: a limit with its task, a delay
        // with a late report.
        if wakes || self.told_wake_at != Some(None) {
            let wake_at = self.state.wake_at();
            if self.told_wake_at.replace(wake_at) != Some(wake_at) {
                wakeups.push((self.state.workflow_id.clone(), wake_at));
            }
        }
        let mut commit = Commit { appends: vec![append], payloads, wakeups, ..Commit::default() };
        self.ears.ride(&self.state, events, &mut commit);
        commit
    }

    /// One more commit is on disk. Returns what may begin now, and the events that may be shown.
    pub fn committed(&mut self) -> (Vec<Dispatch>, Vec<Event>) {
        self.durable += 1;
        let durable = self.durable;
        self.delivering.retain(|(commit, _)| *commit > durable);
        self.is_careful = false;
        (self.release(), self.unseen.pop_front().unwrap_or_default())
    }

    /// Attempts that were given up, now that this is on disk.
    pub fn stopped(&mut self) -> Vec<Dispatch> {
        let durable = self.durable;
        self.stopping.extract_if(.., |(commit, _)| *commit <= durable).map(|(_, attempt)| attempt).collect()
    }

    fn release(&mut self) -> Vec<Dispatch> {
        let mut ready = Vec::new();
        // Not a queue to be stopped at its head: a read behind a write may begin before it.
        self.waiting.retain(|(commit, dispatch)| {
            let is_ready = *commit <= self.durable;
            if is_ready {
                ready.push(dispatch.clone());
            }
            !is_ready
        });
        ready
    }

    /// Keeps the state for a snapshot, when enough was written since the last: it becomes one when its
    /// last event is on disk. Not whenever the disk has caught up: a busy workflow never rests.
    fn keep_state_if_due(&mut self) {
        let version = self.state.version;
        if self.kept.is_some() || version < self.next_snapshot {
            return;
        }
        let Ok(state) = serde_json::to_vec(&self.state) else { return };
        // As many events as would weigh as much as this snapshot, at some 300 bytes an event.
        self.next_snapshot = version + limits::SNAPSHOT_MIN_EVENTS.max(state.len() as u64 / 300);
        self.kept = Some((self.queued, version, state));
    }

    /// The snapshot whose last event has just come to the disk, with the hash it has there.
    pub fn snapshot(&mut self, event_hash: Hash) -> Option<Snapshot> {
        let (_, version, state) = self.kept.take_if(|(commit, ..)| *commit == self.durable)?;
        Some(Snapshot {
            workflow_id: self.state.workflow_id.clone(),
            version,
            event_hash,
            state_schema: foldback_core::state::STATE_SCHEMA,
            fingerprint: Hash::of_bytes(&state),
            state,
        })
    }

    /// Attempts that wait for their commit.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether this attempt is one of them.
    pub fn is_waiting(&self, key: &Key, attempt: u32) -> bool {
        self.waiting.iter().any(|(_, dispatch)| dispatch.key == *key && dispatch.attempt == attempt)
    }

    /// True while a signal of this id is on its way to the disk.
    pub fn is_delivering(&self, id: &EventId) -> bool {
        self.delivering.iter().any(|(_, delivering)| delivering == id)
    }

    /// Whether all commits are on disk.
    pub fn is_settled(&self) -> bool {
        self.queued == self.durable
    }
}

/// A run that has parted from its log over one step: it says so where it comes to the step, in the flow or
/// in what takes something back, and goes on elsewhere.
struct Parted<'a> {
    at: &'a Divergence,
    run: &'a mut dyn Run,
}

impl Parted<'_> {
    fn unless_inside(&mut self, scope: &Key, turn: impl FnOnce(&mut dyn Run) -> Turn) -> Turn {
        if self.at.key.is_inside(scope) { Turn::Diverged(self.at.clone()) } else { turn(&mut *self.run) }
    }
}

impl Run for Parted<'_> {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        if self.at.key.is_aside() { self.run.turn(state) } else { Turn::Diverged(self.at.clone()) }
    }

    fn undo(&mut self, state: &WorkflowState, undo: &UndoStarted) -> Turn {
        self.unless_inside(&undo.key.undo(), |run| run.undo(state, undo))
    }

    fn reconcile(&mut self, state: &WorkflowState, key: &Key) -> Turn {
        self.unless_inside(&key.reconcile(), |run| run.reconcile(state, key))
    }

    fn keeps(&mut self, state: &WorkflowState, signal: Version) -> bool {
        self.run.keeps(state, signal)
    }

    fn compensates(&self) -> bool {
        self.run.compensates()
    }

    fn undoes_event(&self, event_type: &str) -> Option<Arc<str>> {
        self.run.undoes_event(event_type)
    }

    fn is_erasable(&self, key: &Key) -> bool {
        self.run.is_erasable(key)
    }

    fn hears_apart(&self, name: &str) -> bool {
        self.run.hears_apart(name)
    }

    fn failures(&self, state: &WorkflowState) -> Vec<Key> {
        self.run.failures(state)
    }
}

/// True for an event whose id is its sender's, so that the store writes it once.
fn is_id_supplied(fact: &Fact) -> bool {
    matches!(fact, Fact::SignalReceived(signal) if signal.event_id.is_some())
}

/// An event as a store appends it.
pub fn new_event(event: &Event) -> NewEvent {
    thread_local! {
        static JSON: Arc<str> = Arc::from("json");
    }
    NewEvent {
        id: event.id,
        is_id_supplied: is_id_supplied(&event.fact),
        event_type: type_text(&event.fact),
        schema_version: event.fact.schema_version(),
        payload: event.encode(),
        timestamp: event.timestamp,
        causation_id: event.causation_id,
        correlation_id: event.correlation_id,
        actor: event.actor.clone(),
        codec: JSON.with(Arc::clone),
        key_id: None,
    }
}

/// The row that an event begins: a workflow's first, or a fork's.
fn begins(state: &WorkflowState, event: &Event) -> Option<NewWorkflow> {
    let lineage = match &event.fact {
        Fact::WorkflowStarted(started) => started.lineage.as_ref(),
        Fact::WorkflowForked(forked) => Some(&forked.lineage),
        _ => return None,
    };
    Some(NewWorkflow {
        tenant: String::new(),
        definition: Some(state.definition),
        name: state.name.to_string(),
        input_hash: Some(Hash::of_json(&state.input.get())),
        parent: lineage.map(|l| (l.parent.clone(), l.cut, l.cut_hash)),
    })
}
