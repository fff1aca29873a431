//! The state of a workflow: what its events add up to. It is made by folding and by nothing else.
//!
//! What it holds is bounded by the shape of the program, not by the length of the log: a finished
//! scope supersedes the facts inside it, a visit the visits before it, an iteration the
//! iterations before it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::budget::{Budget, Measure};
use crate::change::Rules;
use crate::event::{Event, EventId, Fact, Lineage, TaskKind};
use crate::hash::Hash;
use crate::key::Key;
use crate::listen::Signal;
use crate::lists::Lists;
use crate::step::Failure;
use crate::undo::{Compensation, ToArm};
use crate::value::Slot;
use crate::{Illegal, Micros, Version};

mod owed;
mod step;

pub use owed::{Owed, Status};
pub use step::{Step, StepStatus};

/// The shape of [`WorkflowState`] in snapshots. Raise it with every change of the fold: snapshots
/// of another shape are dropped and the log is folded instead.
pub const STATE_SCHEMA: u32 = 19;

/// The state of one workflow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkflowState {
    /// The workflow's id.
    pub workflow_id: Arc<str>,
    /// The version of the last event folded; 0 before the first.
    pub version: Version,
    /// The time of the last event folded: the only `now` a program sees.
    pub now: Micros,
    /// The time on the machine's clock at that event; before `now` where the clock was set back.
    pub clock: Micros,
    /// When it began.
    pub started_at: Micros,
    /// The id of the last stimulus: the causation of the consequences that follow.
    pub stimulus: Option<EventId>,
    /// The key it spoke of, where it spoke of one: what alone can have changed since the turn before.
    pub stirred: Option<Key>,
    /// Consequences since the last stimulus.
    pub turn_events: u64,
    /// What ties its events to those of its relatives.
    pub correlation_id: Option<EventId>,
    /// The definition it follows.
    pub definition: Hash,
    /// What a person calls the definition.
    pub name: Arc<str>,
    /// The file that the definition was loaded from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Arc<str>>,
    /// Its input.
    pub input: Slot,
    /// Where it comes from, for a fork.
    pub lineage: Option<Lineage>,
    /// `$context`, as the last `export` left it.
    pub context: Slot,
    /// What is known, by key.
    pub entries: BTreeMap<Key, Entry>,
    /// Keys in `entries` that something is owed for: steps not settled, timers not fired.
    pub open: BTreeSet<Key>,
    /// For each open scope: what finished last in it, and the data that goes on from there.
    pub cursors: BTreeMap<Key, Cursor>,
    /// Attempts of steps that were forgotten when the workflow was reopened, until they are asked for
    /// again: attempts of a key are counted on, so that a late report of an earlier one means nothing.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tried: BTreeMap<Key, u32>,
    /// The next visit of tasks whose newest visit was forgotten when the workflow was reopened: it is
    /// made anew under its own key, never under that of an earlier visit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revisits: BTreeMap<Key, u64>,
    /// Jumps back that met no step and no wait, by scope.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jumps: BTreeMap<Key, u64>,
    /// Lists that were asked with lately, which later asks may go on from.
    #[serde(default, skip_serializing_if = "Lists::is_empty")]
    pub lists: Lists,
    /// What holds since it was forked, or reopened at an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Box<Rules>>,
    /// The version whose state this is, and the clock there, between [`WorkflowState::rewind`] and the event that
    /// asked for it.
    #[serde(skip)]
    pub(crate) rewound: Option<(Version, Micros)>,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// The version of the undo armed last and not taken back; each names the one before it.
    pub newest_undo: Option<Version>,
    /// Undos behind the newest that were taken back all the same, each with the one armed before it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub undone: BTreeMap<Version, Option<Version>>,
    /// What has just been done and has an undo: that is armed before anything else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_arm: Option<Box<ToArm>>,
    /// What is being taken back, by scope; under the root, all of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub compensations: BTreeMap<Key, Compensation>,
    /// Whether it was taken back after its end.
    #[serde(default, skip_serializing_if = "is_not")]
    pub is_compensated: bool,
    /// How often it was taken back and gone on with: what is done again then is done under another
    /// idempotency key.
    #[serde(default, skip_serializing_if = "is_first")]
    pub generation: u32,
    /// What may be used, by scope; under the root, by all of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<Key, Budget>,
    /// Why nothing begins, where it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Signals that nothing has taken yet, by the version at which they came.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signals: BTreeMap<Version, Signal>,
    /// What was taken back and may be asked for again while the workflow goes on, by its key without
    /// tries: the generation that it then is. It goes with the outermost block that may be tried again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub redone: BTreeMap<Arc<str>, u32>,
    /// The highest of them, also of those that are gone.
    #[serde(default, skip_serializing_if = "is_first")]
    pub newest_generation: u32,
    /// Steps of which the program's tasks find out whether they happened.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reconciling: BTreeSet<Key>,
    /// What it has used so far.
    pub spent: Spent,
}

/// What is known about one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The task's input, where it was recorded.
    pub input: Option<Slot>,
    /// The version of the fact that made this entry.
    pub since: Version,
    /// The time of that fact.
    pub began: Micros,
    /// What is known.
    pub body: EntryBody,
}

/// See [`Entry`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EntryBody {
    /// An open scope, or a task whose input was computed.
    Started {
        /// What kind of task.
        kind: TaskKind,
        /// Iterations finished, for a loop.
        iterations: u64,
        /// The output of the last iteration.
        last: Option<Slot>,
        /// The outputs of all of them, where the loop collects them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        collected: Option<Vec<Slot>>,
    },
    /// A step.
    Step(Box<Step>),
    /// A wait for a moment.
    Timer {
        /// When it is due, by the clock of the machine that set it.
        due: Micros,
        /// The delay that it was set with, in microseconds.
        delay: Micros,
        /// Whether it has fired.
        fired: bool,
        /// Whether firing finishes the task.
        finishes: bool,
        /// Whether it limits the task of its unmarked key.
        limits: bool,
    },
    /// A wait for signals.
    Listening {
        /// Their names.
        names: Vec<Arc<str>>,
        /// How they are joined, and what an answer must look like.
        wants: Slot,
        /// What was taken, once it was.
        heard: Option<Vec<Signal>>,
    },
    /// A decision.
    Decided {
        /// What was chosen.
        chosen: Arc<str>,
    },
    /// A task that ended.
    Finished {
        /// What kind of task.
        kind: TaskKind,
        /// Its output.
        output: Slot,
    },
}

/// Why nothing begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// In words.
    pub reason: String,
    /// Since when.
    pub since: Micros,
    /// The budget that is used up, where that is why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<(Key, Measure)>,
}

/// What finished last in a scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// The key that finished.
    pub last: Key,
    /// The data that goes on from there; `None` when nothing in this scope has given any yet.
    pub data: Option<Slot>,
    /// The key that gave that data. What finished since only passed it on: a `switch`, a `wait`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gave: Option<Key>,
}

/// How a workflow ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum End {
    /// Well.
    Completed {
        /// What it gave.
        output: Slot,
    },
    /// Badly.
    Failed {
        /// Why.
        error: Failure,
    },
    /// By a person.
    Cancelled {
        /// Why.
        reason: String,
    },
    /// Its program and its log parted.
    Parked {
        /// At which key.
        key: Key,
        /// What the log says.
        recorded: String,
        /// What the program asked.
        asked: String,
    },
}

/// What a workflow has used so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    /// Steps completed.
    pub steps: u64,
    /// Tokens read by models.
    pub input_tokens: u64,
    /// Tokens written by models.
    pub output_tokens: u64,
    /// Cost in millionths of a US dollar, as far as prices are known.
    pub micro_usd: u64,
    /// Attempts whose end nobody saw: their process died, or they were cut off. What they used is not
    /// in the figures above.
    #[serde(default, skip_serializing_if = "is_none")]
    pub lost_attempts: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

fn is_first(generation: &u32) -> bool {
    *generation == 0
}

fn is_not(flag: &bool) -> bool {
    !*flag
}

impl EntryBody {
    /// A task that has begun.
    pub fn begun(kind: TaskKind) -> EntryBody {
        EntryBody::Started { kind, iterations: 0, last: None, collected: None }
    }
}

impl WorkflowState {
    /// The state of a workflow without events.
    pub fn empty(workflow_id: &str) -> WorkflowState {
        WorkflowState {
            workflow_id: Arc::from(workflow_id),
            version: 0,
            now: 0,
            clock: 0,
            started_at: 0,
            stimulus: None,
            stirred: None,
            turn_events: 0,
            correlation_id: None,
            definition: Hash::ZERO,
            file: None,
            name: Arc::from(""),
            input: Slot::null(),
            lineage: None,
            context: Slot::null(),
            entries: BTreeMap::new(),
            open: BTreeSet::new(),
            cursors: BTreeMap::new(),
            tried: BTreeMap::new(),
            revisits: BTreeMap::new(),
            jumps: BTreeMap::new(),
            lists: Lists::default(),
            rules: None,
            rewound: None,
            end: None,
            newest_undo: None,
            undone: BTreeMap::new(),
            to_arm: None,
            compensations: BTreeMap::new(),
            is_compensated: false,
            generation: 0,
            redone: BTreeMap::new(),
            newest_generation: 0,
            reconciling: BTreeSet::new(),
            budgets: BTreeMap::new(),
            pause: None,
            signals: BTreeMap::new(),
            spent: Spent::default(),
        }
    }

    /// Folds events onto nothing. Each is judged before it is applied.
    ///
    /// # Errors
    /// The first event that breaks the law: the workflow is then to be quarantined.
    pub fn fold(workflow_id: &str, events: &[Event]) -> Result<WorkflowState, Illegal> {
        WorkflowState::fold_slice(workflow_id, events, &WorkflowState::admits)
    }

    /// As [`WorkflowState::fold`], of events that were judged when they were read.
    pub fn folded(workflow_id: &str, events: &[Event]) -> WorkflowState {
        let state = WorkflowState::fold_slice(workflow_id, events, &|_, _| Ok(()));
        state.unwrap_or_else(|_| WorkflowState::empty(workflow_id))
    }

    fn fold_slice(
        workflow_id: &str,
        events: &[Event],
        judge: &dyn Fn(&WorkflowState, &Event) -> Result<(), Illegal>,
    ) -> Result<WorkflowState, Illegal> {
        // States that a later event goes back to.
        let wanted: BTreeSet<Version> = events.iter().filter_map(|e| e.fact.goes_back_to()).collect();
        let mut kept: BTreeMap<Version, WorkflowState> = BTreeMap::new();
        let mut state = WorkflowState::empty(workflow_id);
        for event in events {
            if let Some(base) = event.fact.goes_back_to().and_then(|version| kept.get(&version)) {
                state.rewind(base.clone());
            }
            judge(&state, event)?;
            state.apply(event);
            if wanted.contains(&state.version) {
                kept.insert(state.version, state.clone());
            }
        }
        Ok(state)
    }

    /// Judges one event, and applies it. Where it goes back to an earlier version, `base` brings the
    /// state that was there.
    ///
    /// # Errors
    /// The event breaks the law (the state is then of no further use), or `base` fails.
    pub fn take<E: From<Illegal>>(
        &mut self,
        event: &Event,
        base: &mut dyn FnMut(Version) -> Result<WorkflowState, E>,
    ) -> Result<(), E> {
        if let Some(version) = event.fact.goes_back_to()
            && version <= self.version
        {
            self.rewind(base(version)?);
        }
        self.admits(event)?;
        self.apply(event);
        Ok(())
    }

    /// Makes the lists of an event whole that is about to be applied: it may hold only what is new in them.
    pub fn complete(&self, event: &mut Event) {
        if let Fact::StepAsked(asked) = &mut event.fact
            && !self.lists.is_empty()
        {
            asked.request = self.lists.whole(&asked.request);
        }
    }

    /// Makes this the state of an earlier version, but for what is not taken back: the version, the
    /// time, the end that is to be reopened, what was spent, which undos are armed and which were taken
    /// back, and the signals that nothing has taken. Only for a [`crate::Fact::WorkflowReopened`] that goes
    /// back there, and right before it.
    pub fn rewind(&mut self, mut base: WorkflowState) {
        base.take_back_anew();
        base.signals.append(&mut self.signals);
        // What was forked stays a fork: behind its cut lies another's past.
        let rewound = Some((base.version, base.clock)).filter(|_| base.lineage == self.lineage);
        *self = WorkflowState {
            version: self.version,
            now: self.now,
            clock: self.clock,
            workflow_id: self.workflow_id.clone(),
            end: self.end.take(),
            newest_undo: self.newest_undo,
            undone: std::mem::take(&mut self.undone),
            // It was armed since, in the log that is gone back over.
            to_arm: None,
            is_compensated: self.is_compensated,
            generation: self.generation,
            redone: std::mem::take(&mut self.redone),
            newest_generation: self.newest_generation,
            spent: std::mem::take(&mut self.spent),
            rewound,
            ..base
        };
    }

    /// Steps that are not settled: what is owed anew in a fork cut here, or in a workflow reopened here.
    pub fn open_steps(&self) -> Vec<Key> {
        self.open.iter().filter(|key| self.step(key).is_some()).cloned().collect()
    }

    /// Those of the flow alone: what stands beside it is begun anew where a workflow goes back.
    pub fn open_in_flow(&self) -> Vec<Key> {
        self.open_steps().into_iter().filter(|key| !key.is_aside()).collect()
    }

    /// The step of this key.
    pub fn step(&self, key: &Key) -> Option<&Step> {
        match self.entries.get(key) {
            Some(Entry { body: EntryBody::Step(step), .. }) => Some(step),
            _ => None,
        }
    }

    /// Whether its first event was folded. A stream of domain events alone never starts.
    pub fn is_started(&self) -> bool {
        self.correlation_id.is_some()
    }

    /// The newest visit of a task, as the state knows it: its key and which visit it is. Earlier
    /// visits are superseded, so there is one at the most.
    pub fn newest_visit(&self, task: &Key) -> Option<(Key, u64)> {
        if self.entries.contains_key(task) || self.first_after(&format!("{task}!")).is_some() {
            return Some((task.clone(), 1));
        }
        let Some(key) = self.first_after(&format!("{task}#")) else {
            let visit = *self.revisits.get(task)?;
            return Some((task.visit(visit), visit));
        };
        let digits = key.as_str()[task.as_str().len() + 1..].split(|c: char| !c.is_ascii_digit()).next()?;
        let visit = digits.parse().ok()?;
        Some((task.visit(visit), visit))
    }

    fn first_after(&self, prefix: &str) -> Option<&Key> {
        let (key, _) = self.entries.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).next()?;
        key.as_str().starts_with(prefix).then_some(key)
    }

    /// Hashes of values that the state refers to and does not have at hand.
    pub fn missing(&mut self) -> Vec<Hash> {
        let mut missing = Vec::new();
        self.visit_slots(&mut |slot| {
            if let Slot::Stored(stored) = slot
                && stored.value.is_none()
            {
                missing.push(stored.hash);
            }
        });
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Calls `visit` with every slot of the state, so that the engine can fill them.
    pub fn visit_slots(&mut self, visit: &mut dyn FnMut(&mut Slot)) {
        self.visit_slots_of_flow(visit);
        self.visit_slots_of_ends(visit);
        self.signals.values_mut().flat_map(Signal::slots_mut).for_each(visit);
    }

    /// Calls `visit` with the details of what ended the workflow, or an undo. People read them; no program does.
    pub fn visit_slots_of_ends(&mut self, visit: &mut dyn FnMut(&mut Slot)) {
        if let Some(End::Failed { error }) = &mut self.end {
            error.slots_mut().for_each(&mut *visit);
        }
        let undos = self.compensations.values_mut().filter_map(|compensation| compensation.failed.as_mut());
        undos.flat_map(Failure::slots_mut).for_each(visit);
    }

    /// As [`WorkflowState::visit_slots`], but for kept signals that nothing listens for: a program looks at
    /// those that it listens for.
    pub fn visit_needed_slots(&mut self, visit: &mut dyn FnMut(&mut Slot)) {
        self.visit_slots_of_flow(visit);
        self.visit_awaited_signals(visit);
    }

    fn visit_slots_of_flow(&mut self, visit: &mut dyn FnMut(&mut Slot)) {
        visit(&mut self.input);
        visit(&mut self.context);
        if let Some(to_arm) = &mut self.to_arm {
            visit(&mut to_arm.undo);
            to_arm.output.iter_mut().for_each(&mut *visit);
        }
        for compensation in self.compensations.values_mut() {
            compensation.slots_mut().for_each(&mut *visit);
        }
        if let Some(rules) = &mut self.rules {
            rules.edits.iter_mut().for_each(|edit| visit(&mut edit.value));
        }
        for cursor in self.cursors.values_mut() {
            cursor.data.iter_mut().for_each(&mut *visit);
        }
        for entry in self.entries.values_mut() {
            entry.input.iter_mut().for_each(&mut *visit);
            match &mut entry.body {
                EntryBody::Started { last, collected, .. } => {
                    last.iter_mut().chain(collected.iter_mut().flatten()).for_each(&mut *visit);
                }
                EntryBody::Step(step) => {
                    step.request.slots_mut().for_each(&mut *visit);
                    step.output.iter_mut().for_each(&mut *visit);
                    step.undo.iter_mut().filter_map(|undo| undo.given_mut()).for_each(&mut *visit);
                    step.given.iter_mut().for_each(&mut *visit);
                    step.rejected.iter_mut().for_each(&mut *visit);
                    step.error.iter_mut().flat_map(Failure::slots_mut).for_each(&mut *visit);
                }
                EntryBody::Finished { output, .. } => visit(output),
                EntryBody::Listening { wants, heard, .. } => {
                    visit(wants);
                    heard.iter_mut().flatten().flat_map(Signal::slots_mut).for_each(&mut *visit);
                }
                EntryBody::Timer { .. } | EntryBody::Decided { .. } => {}
            }
        }
        if let Some(End::Completed { output }) = &mut self.end {
            visit(output);
        }
    }

    /// A hash of all that the state says: two folds that agree have the same.
    pub fn fingerprint(&self) -> Hash {
        Hash::of_bytes(&serde_json::to_vec(self).expect("a state has a JSON text"))
    }
}
