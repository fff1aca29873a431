//! How an event changes the state. `apply` copies: it computes nothing, compares nothing with the
//! world, and has an answer for every fact. Whether a fact may stand where it stands is
//! `admits`'s matter, asked before.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::Micros;
use crate::budget::Budget;
use crate::change::{Changes, Follows, Rules};
use crate::event::{Event, Fact, Found, SignalReceived, StepAsked, TaskKind, Undo, Verdict};
use crate::key::Key;
use crate::limits;
use crate::listen::Signal;
use crate::state::{Cursor, End, Entry, EntryBody, Pause, Spent, Step, StepStatus, WorkflowState};
use crate::step::{Effect, Failure, Recovery, Usage, error_type};
use crate::undo::ToArm;
use crate::value::{Request, Slot};

fn first_with_prefix<T>(map: &BTreeMap<Key, T>, prefix: &str) -> Option<Key> {
    let (key, _) = map.range::<str, _>((Bound::Included(prefix), Bound::Unbounded)).next()?;
    key.as_str().starts_with(prefix).then(|| key.clone())
}

/// The failure of a `write` that may not be performed in a fork.
pub(crate) fn denied(key: &Key, reason: &str) -> Failure {
    Failure::new(error_type::AUTHORIZATION, 403, "The write was denied", reason).at(key)
}

impl WorkflowState {
    /// Applies one event. Total: any event changes the state in its one way or not at all.
    pub fn apply(&mut self, event: &Event) {
        self.version = event.version;
        let last = self.clock;
        self.now = self.now.max(event.timestamp);
        self.clock = event.clock();
        self.count_from(self.clock);
        match event.fact.class() {
            crate::Class::Stimulus => {
                self.stimulus = Some(event.id);
                self.stirred = event.fact.key().cloned();
                self.turn_events = 0;
            }
            crate::Class::Consequence => self.turn_events += 1,
        }
        self.count_jumps(&event.fact);
        match &event.fact {
            Fact::WorkflowStarted(started) => {
                self.started_at = event.timestamp;
                self.correlation_id = event.correlation_id.or(Some(event.id));
                self.definition = started.definition;
                self.file = started.file.as_deref().map(Arc::from);
                self.name = Arc::from(&*started.name);
                self.input = started.input.clone();
                self.lineage = started.lineage.clone();
            }
            Fact::StepAsked(asked) => self.step_asked(asked, event),
            Fact::AttemptStarted { key, attempt, lost } => {
                self.spent.lost_attempts += u64::from(lost.is_some());
                self.with_step(key, |step| {
                    if step.status == StepStatus::Running {
                        step.interruptions += 1;
                    }
                    step.status = StepStatus::Running;
                    step.attempts = *attempt;
                    step.began = Some(event.clock());
                    step.due = None;
                });
            }
            Fact::AttemptFailed(failed) => {
                self.spend(&failed.key, failed.usage.as_ref());
                self.with_step(&failed.key, |step| {
                    step.status = StepStatus::Backoff;
                    step.due = Some(failed.due);
                    step.delay = failed.due.saturating_sub(event.clock()).max(0);
                    if failed.error.error_type == error_type::NO_ROOM {
                        // Nothing was begun: a repair round still has its answer, and nothing is counted. What a
                        // dead engine may have sent before stays in doubt.
                        match step.effect == Effect::Write && step.interruptions > 0 {
                            true => step.unknowns += 1,
                            false => step.attempts_before += 1,
                        }
                        return;
                    }
                    step.error = Some(failed.error.clone());
                    step.rejected = failed.rejected.clone();
                    step.repairs += u32::from(failed.rejected.is_some());
                    step.unknowns += u32::from(failed.unknown);
                    if let Some(variant) = failed.variant {
                        step.variant = variant;
                        step.attempts_before = step.attempts.saturating_sub(step.interruptions);
                        (step.repairs, step.unknowns) = (0, 0);
                    }
                });
            }
            Fact::StepCompleted(done) => {
                self.spend(&done.key, done.usage.as_ref());
                self.step_completed(&done.key, &done.output);
            }
            Fact::StepFailed(failed) => {
                self.spend(&failed.key, failed.usage.as_ref());
                self.failed(&failed.key, failed.error.clone());
            }
            Fact::OutcomeUnknown { key, .. } => {
                let mut has_tasks = false;
                self.with_step(key, |step| {
                    step.status = StepStatus::Unknown;
                    has_tasks = step.recovery == Some(Recovery::Reconcile)
                        && step.unknowns < limits::UNKNOWN_ATTEMPTS_MAX;
                });
                if has_tasks {
                    self.reconciling.insert(key.clone());
                }
            }
            Fact::OutcomeResolved { key, .. } if self.is_stuck_at(key) => self.undone_by_hand(),
            Fact::OutcomeResolved { key, landed } => {
                self.reconciled(key);
                self.settled(key, landed.as_ref());
            }
            Fact::OutcomeReconciled { key, found, landed, .. } => {
                self.reconciled(key);
                match found {
                    Found::Landed => self.settled(key, Some(landed.as_ref().unwrap_or(&Slot::null()))),
                    Found::Didnt => self.settled(key, None),
                    Found::Unknown => {}
                }
            }
            Fact::StepCancelled { key, attempt, .. } => self.step_cancelled(key, *attempt),
            Fact::TimerSet { key, due, finishes, limits } => {
                let (due, finishes, limits) = (*due, *finishes, *limits);
                let delay = due.saturating_sub(event.clock()).max(0);
                let body = EntryBody::Timer { due, delay, fired: false, finishes, limits };
                self.enter(key, event.version, body);
            }
            Fact::TimerFired { key } => self.timer_fired(key),
            Fact::TimerCancelled { key, .. } => self.forget(key),
            Fact::DecisionMade(made) => {
                let chosen = EntryBody::Decided { chosen: Arc::from(&*made.chosen) };
                self.enter(&made.key, event.version, chosen.clone());
                if made.finishes {
                    let task = made.key.unmarked();
                    if task != made.key {
                        self.enter(&task, event.version, chosen);
                    }
                    self.advance_cursor(&task, None);
                }
            }
            Fact::TaskStarted { key, kind, input, collects } => {
                self.supersede_earlier_try(key);
                let collected = collects.then(Vec::new);
                let body = EntryBody::Started { kind: *kind, iterations: 0, last: None, collected };
                self.enter(key, event.version, body);
                if let Some(entry) = self.entries.get_mut(key) {
                    entry.input = Some(input.clone());
                }
            }
            Fact::TaskFinished { key, kind, output, context } => {
                self.task_finished(key, *kind, output, event.version);
                if let Some(context) = context {
                    self.context = context.clone();
                }
            }
            Fact::UndoArmed(armed) => self.undo_armed(&armed.key, event.version),
            Fact::UndoStarted(started) => self.undo_started(started),
            Fact::UndoCompleted { key, armed, scope } => {
                self.undo_completed(scope, *armed);
                self.supersede_inside(&key.undo());
                self.forget(&key.undo());
            }
            Fact::UndoFailed { scope, error, .. } => self.undo_failed(scope, error),
            Fact::CompensationStarted { scope, .. } => {
                self.begin_compensation(scope, None, None);
                if !scope.is_root() {
                    let body = EntryBody::begun(TaskKind::Shape);
                    self.enter(&scope.mark("compensation"), event.version, body);
                }
            }
            Fact::CompensationRequested { from, down_to, again, .. } => {
                self.retrying(again);
                self.begin_compensation(&Key::root(), *from, *down_to);
            }
            Fact::CompensationEnded { scope } => {
                self.compensation_ended(scope);
                self.compensation_over(scope);
            }
            Fact::WorkflowPaused { reason } => {
                self.pause = Some(Pause { reason: reason.clone(), since: event.clock(), budget: None });
            }
            Fact::WorkflowUnpaused { raised, .. } => {
                self.raise(raised);
                if let Some(pause) = self.pause.take() {
                    self.postpone_limits(event.clock(), pause.since);
                }
            }
            Fact::BudgetSet { key, limits } => {
                let (spent, warned) = (BTreeMap::new(), Default::default());
                let budget = Budget { limits: limits.clone(), spent, since: event.clock(), warned };
                self.budgets.insert(key.clone(), budget);
            }
            Fact::BudgetWarned { scope, measure, .. } => {
                if let Some(budget) = self.budgets.get_mut(scope) {
                    budget.warned.insert(*measure);
                }
            }
            Fact::BudgetExceeded { scope, measure, spent, limit } => {
                let reason = format!("{spent} of {limit} {} are used", measure.as_str());
                let budget = Some((scope.clone(), *measure));
                self.pause = Some(Pause { reason, since: event.clock(), budget });
            }
            Fact::SignalReceived(received) => {
                let SignalReceived { name, data, source, error, .. } = (**received).clone();
                self.signals.insert(event.version, Signal { name, data, source, error });
            }
            Fact::ListenStarted { key, names, wants } => {
                let (names, wants) = (names.clone(), wants.clone());
                let body = EntryBody::Listening { names, wants, heard: None };
                self.enter(key, event.version, body);
            }
            Fact::SignalTaken { key, signals } => {
                let taken: Vec<Signal> =
                    signals.iter().filter_map(|version| self.signals.remove(version)).collect();
                if let Some(Entry { body: EntryBody::Listening { heard, .. }, .. }) =
                    self.entries.get_mut(key)
                {
                    *heard = Some(taken);
                }
                self.open.remove(key);
            }
            Fact::SignalRefused { signal, .. } => drop(self.signals.remove(signal)),
            Fact::WorkflowCancelled { reason } => {
                self.end = Some(End::Cancelled { reason: reason.clone() });
                self.pause = None;
                self.leave_parts();
                self.give_all_up();
            }
            // A domain event is a fact for its readers; the state keeps only that it was recorded. But
            // one under a mark (`K!event`) belongs to the task `K`, whose output is made of it.
            Fact::Recorded { key: None, data, handler, .. } => {
                // It has no key of its own: its version names it.
                let key = Key::root().child("event").item(event.version);
                self.arm_event_next(key, data, handler);
            }
            Fact::Recorded { key: Some(key), data, handler, .. } => {
                self.arm_event_next(key.clone(), data, handler);
                let kept = if key.unmarked() == *key { Slot::null() } else { data.clone() };
                self.task_finished(key, TaskKind::Record, &kept, event.version);
            }
            Fact::WorkflowCompleted { output } => {
                self.entries.clear();
                self.cursors.clear();
                self.open.clear();
                self.redone.clear();
                self.revisits.clear();
                self.jumps.clear();
                self.end = Some(End::Completed { output: output.clone() });
            }
            Fact::WorkflowReopened { again, back_to, changes, .. } => {
                let is_compensated = std::mem::take(&mut self.is_compensated);
                self.generation += u32::from(is_compensated);
                // All that was taken back behind the place where it goes on may be asked for again.
                if is_compensated || back_to.is_some() {
                    self.generation = self.generation.max(self.newest_generation);
                    self.redone.clear();
                }
                match back_to {
                    None => {
                        self.meet_anew(again);
                        self.reopen(again);
                    }
                    Some(_) => self.renew(again),
                }
                let last = self.rewound.take().map_or(last, |(_, then)| then);
                self.postpone_limits(event.clock(), last);
                changes.iter().for_each(|changes| self.change(changes));
            }
            Fact::WorkflowForked(forked) => {
                self.lineage = Some(forked.lineage.clone());
                // What its parent used and may undo is the parent's.
                self.spent = Spent::default();
                for budget in self.budgets.values_mut() {
                    budget.spent.clear();
                    budget.warned.clear();
                }
                (self.newest_undo, self.to_arm) = (None, None);
                self.undone.clear();
                (self.generation, self.newest_generation) = (0, 0);
                self.redone.clear();
                self.renew(&forked.again);
                self.postpone_limits(event.clock(), last);
                self.change(&forked.changes);
            }
            Fact::StepReused(reused) => match &reused.output {
                Some(output) => self.completed(&reused.key, output),
                None => self.failed(&reused.key, reused.error.clone().unwrap_or_default()),
            },
            Fact::WriteHeld { key, .. } => self.with_step(key, |step| step.status = StepStatus::Held),
            Fact::WriteSettled { key, verdict, output, reason } => match verdict {
                Verdict::Live => self.with_step(key, |step| {
                    step.status = StepStatus::Pending;
                    step.is_released = true;
                }),
                Verdict::Stub => self.completed(key, output.as_ref().unwrap_or(&Slot::null())),
                Verdict::Deny => self.failed(key, denied(key, reason)),
            },
            Fact::WorkflowFailed { error } => {
                self.end = Some(End::Failed { error: error.clone() });
                self.leave_parts();
            }
            Fact::WorkflowParked { key, recorded, asked } => {
                self.end =
                    Some(End::Parked { key: key.clone(), recorded: recorded.clone(), asked: asked.clone() });
            }
        }
    }

    /// Takes back the end, and forgets the facts of these keys. A run that is to go on from here is
    /// started afresh from the state as it is then: what has ended does not go on.
    pub fn reopen(&mut self, again: &[Key]) {
        self.end = None;
        self.retrying(again);
        // A block that could not be taken back is so again, as what failed elsewhere is done again.
        let is_unfinished = |key: &Key| {
            let body = self.entries.get(key).map(|entry| &entry.body);
            key.as_str().ends_with("!compensation")
                && !self.compensations.contains_key(&key.unmarked())
                && matches!(body, Some(EntryBody::Started { .. }))
        };
        let unfinished: Vec<Key> = self.entries.keys().filter(|key| is_unfinished(key)).cloned().collect();
        unfinished.iter().for_each(|key| self.forget(key));
    }

    /// Forgets the facts of these keys. Attempts of a step are counted on.
    fn retrying(&mut self, again: &[Key]) {
        for key in again {
            if let Some(step) = self.step(key) {
                self.tried.insert(key.clone(), step.attempts);
            }
            self.forget(key);
            let (task, visit) = key.unmarked().visited();
            if visit > 1 && self.newest_visit(&task).is_none() {
                self.revisits.insert(task, visit);
            }
        }
    }

    /// Steps that failed are met anew where a workflow is reopened, also one whose failure was taken from
    /// the past: it would only be taken again.
    fn meet_anew(&mut self, again: &[Key]) {
        let steps: Vec<Key> = again.iter().filter(|key| self.step(key).is_some()).cloned().collect();
        if let Some(rules) = &mut self.rules {
            rules.anew.extend(steps);
        }
    }

    /// A task's time does not run while nobody works at it: between a failure and its mending, between
    /// a cut and the begin of a fork.
    fn postpone_limits(&mut self, now: Micros, since: Micros) {
        // A clock that was set back in between tells of no time that passed.
        let by = now.saturating_sub(since).max(0);
        for budget in self.budgets.values_mut() {
            budget.since = budget.since.saturating_add(by);
        }
        for key in &self.open {
            if let Some(Entry { body: EntryBody::Timer { due, fired: false, limits: true, .. }, .. }) =
                self.entries.get_mut(key)
            {
                *due = due.saturating_add(by);
            }
        }
    }

    /// A budget or a pause that began at a time that the clock has yet to come to began now: a clock that was
    /// fast and was put right must not keep budgets from counting.
    fn count_from(&mut self, now: Micros) {
        self.budgets.values_mut().for_each(|budget| budget.since = budget.since.min(now));
        self.pause.iter_mut().for_each(|pause| pause.since = pause.since.min(now));
    }

    /// What was open where a past was cut is owed anew: nobody's attempt is this workflow's. What had
    /// been given up is over.
    fn renew(&mut self, open: &[Key]) {
        (self.end, self.pause) = (None, None);
        self.tried.clear();
        self.leave_what_stands_beside();
        let generation = self.generation;
        for key in open {
            self.with_step(key, |step| {
                step.generation = generation;
                step.status = if step.is_given_up { StepStatus::Cancelled } else { StepStatus::Pending };
                (step.attempts, step.interruptions, step.repairs) = (0, 0, 0);
                (step.unknowns, step.variant, step.attempts_before) = (0, 0, 0);
                (step.began, step.due, step.rejected, step.error) = (None, None, None, None);
                step.is_released = false;
            });
        }
    }

    /// What was being taken back or looked for is the past's own matter.
    fn leave_what_stands_beside(&mut self) {
        for key in std::mem::take(&mut self.reconciling) {
            self.supersede_inside(&key.reconcile());
            self.forget(&key.reconcile());
        }
        for scope in self.leave_compensations() {
            self.compensation_over(&scope);
        }
    }

    /// Blocks that were being taken back are so from the beginning: what they did is still to be taken back.
    pub(crate) fn take_back_anew(&mut self) {
        for scope in self.leave_compensations() {
            self.forget(&scope.mark("compensation"));
        }
    }

    /// Forgets what was being taken back. Says of which blocks.
    fn leave_compensations(&mut self) -> Vec<Key> {
        let compensations = std::mem::take(&mut self.compensations);
        for undo in compensations.values().filter_map(|compensation| compensation.current.as_ref()) {
            self.supersede_inside(&undo.key.undo());
            self.forget(&undo.key.undo());
        }
        compensations.into_keys().collect()
    }

    /// The program goes on behind what was taken back.
    fn compensation_over(&mut self, scope: &Key) {
        if let Some(entry) = self.entries.get_mut(&scope.mark("compensation")) {
            entry.body = EntryBody::Finished { kind: TaskKind::Shape, output: Slot::null() };
        }
    }

    /// Nobody looks any more whether a step happened.
    fn reconciled(&mut self, key: &Key) {
        if self.reconciling.remove(key) {
            self.supersede_inside(&key.reconcile());
            self.forget(&key.reconcile());
        }
    }

    /// An outcome that was unknown is known: what it gave, or that it did not happen.
    fn settled(&mut self, key: &Key, landed: Option<&Slot>) {
        match landed {
            Some(output) => self.step_completed(key, output),
            None => self.with_step(key, |step| {
                step.status = if step.is_given_up { StepStatus::Cancelled } else { StepStatus::Pending };
                step.unknowns += 1;
            }),
        }
    }

    fn step_asked(&mut self, asked: &StepAsked, event: &Event) {
        let tried = self.tried.remove(&asked.key).unwrap_or(0);
        // The law has seen that it can be made whole.
        let request = self.lists.whole(&asked.request);
        self.lists.note(event.version, &request);
        let step = Step {
            kind: asked.kind.clone(),
            request,
            request_hash: asked.request_hash,
            program_hash: asked.program_hash,
            effect: asked.effect,
            recovery: asked.recovery,
            timeout_ms: asked.timeout_ms,
            retry: asked.retry.clone(),
            secrets: asked.secrets.clone(),
            instance: asked.instance.clone(),
            finishes: asked.finishes,
            undo: asked.undo.clone(),
            given: asked.given.clone(),
            generation: self.generation_of(&asked.key),
            status: if asked.starts { StepStatus::Running } else { StepStatus::Pending },
            is_given_up: false,
            is_released: false,
            attempts: tried + u32::from(asked.starts),
            interruptions: 0,
            repairs: 0,
            unknowns: 0,
            variant: 0,
            attempts_before: tried,
            began: asked.starts.then_some(event.clock()),
            due: None,
            delay: 0,
            output: None,
            rejected: None,
            error: None,
        };
        self.enter(&asked.key, event.version, EntryBody::Step(Box::new(step)));
    }

    /// What a person changed holds from here on.
    fn change(&mut self, changes: &Changes) {
        self.rules = Some(Box::new(Rules::after(self.rules.as_deref(), changes)));
        if let Some(input) = &changes.input {
            self.input = input.clone();
        }
        if let Some(Follows { definition, name, file }) = &changes.follows {
            (self.definition, self.name) = (*definition, Arc::from(&**name));
            self.file = file.as_deref().map(Arc::from);
        }
        for given in &changes.outputs {
            self.completed(&given.key, &given.output);
        }
    }

    fn step_completed(&mut self, key: &Key, output: &Slot) {
        self.spent.steps += 1;
        self.spend_at(key, None, 1);
        let (mut undo, mut generation) = (None, 0);
        self.with_step(key, |step| (undo, generation) = (step.undo.take(), step.generation));
        self.completed(key, output);
        if let Some(Undo::By { handler, given }) = undo.map(|undo| *undo) {
            let output = Some(output.clone());
            let (key, generation) = (key.clone(), generation);
            self.to_arm = Some(Box::new(ToArm { key, handler, undo: given, output, generation }));
        }
    }

    fn failed(&mut self, key: &Key, error: Failure) {
        self.with_step(key, |step| {
            step.status = StepStatus::Failed;
            step.error = Some(error);
            (step.rejected, step.given, step.undo) = (None, None, None);
            step.request = Request::default();
        });
    }

    fn completed(&mut self, key: &Key, output: &Slot) {
        let mut finishes = false;
        self.with_step(key, |step| {
            step.status = StepStatus::Completed;
            step.output = Some(output.clone());
            (step.rejected, step.given) = (None, None);
            step.request = Request::default();
            finishes = step.finishes;
        });
        if finishes {
            self.advance_cursor(key, Some(output));
        }
    }

    /// A domain event that its program takes back is armed next.
    fn arm_event_next(&mut self, key: Key, data: &Slot, handler: &Option<Arc<str>>) {
        if let Some(handler) = handler.clone() {
            let (undo, generation) = (data.clone(), self.generation_of(&key));
            self.to_arm = Some(Box::new(ToArm { key, handler, undo, output: None, generation }));
        }
    }

    /// Every step is given up but those that take something back.
    fn give_all_up(&mut self) {
        for key in self.open_in_flow() {
            let under_way = self.step(&key).filter(|step| step.status == StepStatus::Running);
            let attempt = under_way.map(|step| step.attempts);
            self.step_cancelled(&key, attempt);
        }
    }

    /// A `write` that may have happened is still waited for; all else is over.
    fn step_cancelled(&mut self, key: &Key, attempt: Option<u32>) {
        let mut is_cut_off = false;
        self.with_step(key, |step| {
            step.is_given_up = true;
            if !step.is_in_doubt() {
                is_cut_off = attempt.is_some();
                step.status = StepStatus::Cancelled;
                step.due = None;
                step.rejected = None;
                step.request = Request::default();
            }
        });
        self.spent.lost_attempts += u64::from(is_cut_off);
    }

    fn timer_fired(&mut self, timer: &Key) {
        if let Some(Entry { body: EntryBody::Timer { fired, finishes, .. }, .. }) =
            self.entries.get_mut(timer)
        {
            *fired = true;
            let finishes = *finishes;
            self.open.remove(timer);
            if finishes {
                self.advance_cursor(timer, None);
            }
        }
    }

    fn task_finished(&mut self, key: &Key, kind: TaskKind, output: &Slot, version: u64) {
        match kind {
            TaskKind::Iteration => {
                self.forget_redone(key);
                self.supersede_inside(key);
                self.forget(key);
                if let Some((scope, index)) = key.itemed()
                    && let Some(Entry {
                        body: EntryBody::Started { iterations, last, collected, .. }, ..
                    }) = self.entries.get_mut(&scope)
                {
                    *iterations = index + 1;
                    *last = Some(output.clone());
                    collected.iter_mut().for_each(|collected| collected.push(output.clone()));
                }
                return;
            }
            TaskKind::Do | TaskKind::For | TaskKind::Fork | TaskKind::Branch | TaskKind::Try => {
                self.forget_redone(key);
                self.supersede_inside(key);
            }
            TaskKind::Set | TaskKind::Compute | TaskKind::Record | TaskKind::Shape => {}
        }
        self.enter(key, version, EntryBody::Finished { kind, output: output.clone() });
        if !matches!(kind, TaskKind::Branch | TaskKind::Record) {
            let before = self.cursors.get(&key.parent());
            let gave = before.filter(|cursor| cursor.data.as_ref() == Some(output));
            // An `export` of what passes data on says the data once more.
            let gave = gave.filter(|_| kind == TaskKind::Shape).and_then(|cursor| cursor.gave.clone());
            self.advance_cursor(key, Some(output));
            if gave.is_some()
                && let Some(cursor) = self.cursors.get_mut(&key.parent())
            {
                cursor.gave = gave;
            }
        }
    }

    /// Makes or changes the entry of a key. A later visit supersedes the earlier one.
    fn enter(&mut self, key: &Key, since: u64, body: EntryBody) {
        let is_open = match &body {
            EntryBody::Step(_) => true,
            EntryBody::Timer { fired, .. } => !fired,
            EntryBody::Listening { heard, .. } => heard.is_none(),
            EntryBody::Started { .. } | EntryBody::Decided { .. } | EntryBody::Finished { .. } => false,
        };
        if is_open {
            self.open.insert(key.clone());
        }
        if let Some(entry) = self.entries.get_mut(key) {
            if !is_open {
                self.open.remove(key);
            }
            entry.body = body;
            return;
        }
        let (base, visit) = key.unmarked().visited();
        if visit > 1 {
            self.revisits.remove(&base);
            let before = base.visit(visit - 1);
            self.supersede_inside(&before);
            self.forget(&before);
        }
        self.entries.insert(key.clone(), Entry { input: None, since, began: self.now, body });
    }

    /// A later try of a block supersedes the tries before it.
    fn supersede_earlier_try(&mut self, key: &Key) {
        let block = key.unmarked();
        let Some(n) =
            key.as_str()[block.as_str().len()..].strip_prefix('!').and_then(|n| n.parse::<u64>().ok())
        else {
            return;
        };
        if n == 2 {
            self.remove_below(&format!("{block}/"));
            self.cursors.remove(&block);
        } else {
            let before = block.mark(n - 1);
            self.supersede_inside(&before);
            self.forget(&before);
        }
    }

    /// Removes all that is known inside a key: below it, its items, its tries and marks. What
    /// begins with `#` is another visit, not inside.
    fn supersede_inside(&mut self, scope: &Key) {
        self.cursors.remove(scope);
        let is_inside = |key: &Key| {
            let rest = key.as_str().strip_prefix(scope.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['!', '/', '[']))
        };
        self.compensations.retain(|key, _| key.is_root() || !is_inside(key));
        self.budgets.retain(|key, _| key.is_root() || !is_inside(key));
        self.jumps.retain(|key, _| key.is_root() || !is_inside(key));
        self.revisits.retain(|key, _| !is_inside(key));
        for delimiter in ['!', '/', '['] {
            self.remove_below(&format!("{scope}{delimiter}"));
        }
    }

    fn remove_below(&mut self, prefix: &str) {
        while let Some(key) = first_with_prefix(&self.entries, prefix) {
            self.forget(&key);
        }
        while let Some(key) = first_with_prefix(&self.cursors, prefix) {
            self.cursors.remove(&key);
        }
    }

    pub(crate) fn forget(&mut self, key: &Key) {
        self.entries.remove(key);
        self.open.remove(key);
    }

    fn advance_cursor(&mut self, finished: &Key, data: Option<&Slot>) {
        if !self.open.is_empty() {
            // A limit goes with what it limits.
            let limit = finished.mark("timeout");
            if self.is_limit(&limit) {
                self.forget(&limit);
            }
        }
        if finished.is_root() {
            return;
        }
        let cursor = self.cursors.entry(finished.parent()).or_insert_with(|| Cursor {
            last: finished.clone(),
            data: None,
            gave: None,
        });
        cursor.last = finished.clone();
        if let Some(data) = data {
            (cursor.data, cursor.gave) = (Some(data.clone()), Some(finished.clone()));
        }
    }

    fn with_step(&mut self, key: &Key, change: impl FnOnce(&mut Step)) {
        if let Some(Entry { body: EntryBody::Step(step), .. }) = self.entries.get_mut(key) {
            change(step);
            if step.status.is_settled() {
                self.open.remove(key);
            }
        }
    }

    fn spend(&mut self, key: &Key, usage: Option<&Usage>) {
        self.spend_at(key, usage, 0);
        if let Some(usage) = usage {
            self.spent.input_tokens = self.spent.input_tokens.saturating_add(usage.input_tokens);
            self.spent.output_tokens = self.spent.output_tokens.saturating_add(usage.output_tokens);
            self.spent.micro_usd = self.spent.micro_usd.saturating_add(usage.micro_usd.unwrap_or(0));
        }
    }
}
