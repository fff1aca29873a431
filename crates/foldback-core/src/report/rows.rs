//! The rows of `steps`, made while a log is read event by event. A row that nothing more is said of can be
//! handed out as soon as all before it were, so that a log of any length needs the memory of what is open in it,
//! and of what was asked behind the first row that is open: those rows are kept.
//!
//! Invariants: rows are handed out in the order of their asks; a row that was handed out is the one that
//! [`super::steps`] gives for the whole log, as long as [`Ahead`] has read that log before. However many rows
//! are kept, an event looks at those that it speaks of.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use super::back::Backs;
use super::steps::{AttemptReport, Edited, ReportedStatus, ReusedFrom, StepReport};
use super::{Ahead, Moment, Tokens, null};
use crate::change::Changes;
use crate::event::{Event, Fact, Found, StepAsked, TaskKind, Verdict};
use crate::step::{Effect, Failure, Usage};
use crate::value::Slot;
use crate::{Key, Micros, Version};

/// One row with what only its making needs.
#[derive(Clone)]
struct Row {
    report: StepReport,
    started_at: Option<Micros>,
    /// Attempts of the rows of this key before it: the step was asked for again.
    attempts_before: u32,
    /// Whether an attempt had an unknown outcome and was sent again.
    is_in_doubt: bool,
    /// Whether an attempt may have done something that nobody knew of then: what is given up after that may still
    /// be asked about.
    was_unknown: bool,
    /// Whether the workflow went back to before its ask: nothing more is said of it.
    is_left: bool,
    /// Whether the end of its task follows the end of the step, and says what was made of the output.
    awaits_shape: bool,
    /// The version at which it came, or at which a scope around ended without it.
    shaped: Option<Version>,
    /// The last version that said something of it.
    touched: Version,
    /// The row as it was before each reopening behind which something was said of it.
    before: Vec<(Version, Row)>,
}

/// Rows that are being made.
#[derive(Default)]
pub struct Rows {
    /// In the order of their asks.
    rows: BTreeMap<u64, Row>,
    next: u64,
    /// The newest row of a key.
    of_key: HashMap<Key, u64>,
    /// Rows whose task may still say what was made of their output, by key: the end of a scope looks at those
    /// inside it alone.
    awaiting: BTreeSet<(Key, u64)>,
    /// Rows that ends of scopes looked at.
    #[cfg(test)]
    visited: u64,
    /// Inputs of tasks that a `TaskStarted` recorded, until the task's own fact takes them.
    inputs: HashMap<Key, (Slot, Version, Micros)>,
    /// Attempts of rows that were handed out and may be asked for again, with the version of their ask.
    tried: HashMap<Key, Vec<(u32, Version)>>,
    /// Data of signals that nothing has taken yet, or the failure that one reports.
    signals: BTreeMap<Version, (Slot, Option<Failure>)>,
    /// How often something is still said of a key behind its end.
    expected: HashMap<Key, u32>,
    /// The reopenings of the whole log that go back.
    backs: Backs,
    /// The version that was read last.
    version: Version,
    /// The last reopening that went back.
    reopened: Version,
    is_ended: bool,
}

impl Rows {
    /// Rows of a log of which it is known what is said late.
    pub fn knowing(ahead: &Ahead) -> Rows {
        Rows { expected: ahead.late_keys(), backs: ahead.backs(), ..Rows::default() }
    }

    /// The number of rows that are held.
    pub fn held(&self) -> usize {
        self.rows.len()
    }

    /// The input of a value that the program is about to compute, where the log does not say it.
    pub fn give_input(&mut self, key: &Key, input: Arc<Value>, version: Version, at: Micros) {
        self.inputs.entry(key.clone()).or_insert((Slot::Inline(input), version, at));
    }

    /// Whether the input of a computed value is known.
    pub fn has_input(&self, key: &Key) -> bool {
        self.inputs.contains_key(key)
    }

    /// The rows before the first of which more may be said.
    pub fn ready(&mut self) -> Vec<StepReport> {
        let mut ready = Vec::new();
        while let Some((&at, row)) = self.rows.first_key_value()
            && self.is_over(row)
        {
            ready.extend(self.remove(at));
        }
        ready
    }

    fn is_over(&self, row: &Row) -> bool {
        let is_given_up = matches!(row.report.status, ReportedStatus::Cancelled | ReportedStatus::Unknown);
        let may_be_asked_about = row.was_unknown && is_given_up;
        let has_ended = row.report.ended_version.is_some() && !may_be_asked_about;
        let is_over = row.is_left || (has_ended && !row.may_be_shaped());
        is_over && !self.expected.contains_key(&row.report.key) && !self.may_return(row)
    }

    /// Whether a later reopening goes back to where a row is there, and is another than it is now.
    fn may_return(&self, row: &Row) -> bool {
        self.backs.behind(self.version).any(|state| {
            self.backs.has_taken(state, row.report.asked_version)
                && (row.is_left || !self.backs.has_taken(state, row.touched))
        })
    }

    /// The rows as the state at an earlier version knows them, right before the reopening that is read.
    fn go_back(&mut self, state: Version) {
        let backs = &self.backs;
        self.reopened = self.version;
        self.of_key.clear();
        for (&at, row) in &mut self.rows {
            row.is_left = !backs.has_taken(state, row.report.asked_version);
            if row.is_left {
                continue;
            }
            while let Some((reopened, _)) = row.before.last()
                && !backs.has_taken(state, *reopened)
                && let Some((_, mut was)) = row.before.pop()
            {
                was.before = std::mem::take(&mut row.before);
                *row = was;
            }
            if row.shaped.is_some_and(|shaped| !backs.has_taken(state, shaped)) {
                // It is said once more.
                row.touch(self.version, self.version);
                row.shaped = None;
                if row.awaits_shape {
                    self.awaiting.insert((row.report.key.clone(), at));
                }
            }
            self.of_key.insert(row.report.key.clone(), at);
        }
    }

    /// The newest row of a key, by its place.
    pub(super) fn newest(&self, key: &Key) -> Option<(u64, &StepReport)> {
        let at = *self.of_key.get(key)?;
        self.rows.get(&at).map(|row| (at, &row.report))
    }

    /// Whether nothing more is said of a row.
    pub(super) fn is_over_at(&self, at: u64) -> bool {
        self.rows.get(&at).is_none_or(|row| self.is_over(row))
    }

    /// Hands out a row.
    pub(super) fn remove(&mut self, at: u64) -> Option<StepReport> {
        let row = self.rows.remove(&at)?;
        let key = &row.report.key;
        if row.awaits_shape {
            self.awaiting.remove(&(key.clone(), at));
        }
        if self.of_key.get(key) == Some(&at) {
            self.of_key.remove(key);
            if matches!(row.report.status, ReportedStatus::Failed | ReportedStatus::Cancelled) {
                let attempts = row.attempts_before + row.report.attempts;
                self.tried.entry(key.clone()).or_default().push((attempts, row.report.asked_version));
            }
        }
        Some(self.closed(row))
    }

    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        let (version, at) = (event.version, event.clock());
        self.version = version;
        self.backs.read(event);
        match &event.fact {
            Fact::StepAsked(asked) => self.asked(asked, version, at),
            Fact::AttemptStarted { key, attempt, lost } => self.with(key, |row| {
                row.report.attempts = attempt.saturating_sub(row.attempts_before);
                row.report.lost_attempts += u32::from(lost.is_some());
                row.report.status = ReportedStatus::Running;
                row.report.due = None;
                row.report.started_version.get_or_insert(version);
                row.started_at.get_or_insert(at);
            }),
            Fact::AttemptFailed(failed) => self.with(&failed.key, |row| {
                row.spend(failed.usage.as_ref());
                row.report.error = Some(failed.error.plain());
                row.is_in_doubt |= failed.unknown;
                row.was_unknown |= failed.unknown || row.report.lost_attempts > 0;
                row.report.due = Some(Moment(failed.due));
                row.report.failed_attempts.push(AttemptReport {
                    attempt: failed.attempt,
                    version,
                    error: failed.error.plain(),
                    rejected: failed.rejected.as_ref().map(Slot::get),
                    delay_ms: failed.delay_ms,
                    variant: row.report.variant,
                });
                row.report.variant = failed.variant.unwrap_or(row.report.variant);
            }),
            Fact::StepCompleted(done) => self.with(&done.key, |row| {
                row.spend(done.usage.as_ref());
                row.report.latency_ms = Some(done.latency_ms);
                row.complete(&done.output, version, at);
            }),
            Fact::StepFailed(failed) => self.with(&failed.key, |row| {
                row.spend(failed.usage.as_ref());
                row.report.error = Some(failed.error.plain());
                if let Some(rejected) = &failed.rejected {
                    row.report.failed_attempts.push(AttemptReport {
                        attempt: failed.attempt,
                        version,
                        error: failed.error.plain(),
                        rejected: Some(rejected.get()),
                        delay_ms: 0,
                        variant: row.report.variant,
                    });
                }
                row.end(ReportedStatus::Failed, version, at);
            }),
            Fact::StepReused(reused) => self.with(&reused.key, |row| {
                row.report.reused =
                    Some(ReusedFrom { workflow: reused.workflow.clone(), version: reused.version });
                row.report.error = reused.error.as_ref().map(Failure::plain);
                row.report.output = reused.output.as_ref().map_or_else(null, Slot::get);
                row.end(ReportedStatus::Reused, version, at);
            }),
            Fact::WriteHeld { key, reason } => self.with(key, |row| row.report.held = Some(reason.clone())),
            Fact::WriteSettled { key, verdict, output, reason } => self.with(key, |row| {
                row.report.held = None;
                row.report.settled = Some(*verdict);
                match verdict {
                    Verdict::Live => {}
                    Verdict::Stub => row.complete(output.as_ref().unwrap_or(&Slot::null()), version, at),
                    Verdict::Deny => {
                        row.report.error = Some(crate::apply::denied(key, reason));
                        row.end(ReportedStatus::Failed, version, at);
                    }
                }
            }),
            Fact::OutcomeUnknown { key, .. } => self.with(key, |row| {
                row.report.status = ReportedStatus::Unknown;
                row.was_unknown = true;
            }),
            Fact::StepCancelled { key, attempt, reason } => {
                self.with(key, |row| row.cancel(*attempt, reason, version, at));
            }
            Fact::OutcomeReconciled { found: Found::Unknown, .. } => {}
            Fact::OutcomeResolved { key, landed } | Fact::OutcomeReconciled { key, landed, .. } => {
                let is_said = matches!(event.fact, Fact::OutcomeResolved { .. });
                self.with(key, |row| match landed {
                    Some(output) if is_said => {
                        row.report.answered = Some("person");
                        row.complete(output, version, at);
                    }
                    Some(output) => row.complete(output, version, at),
                    None if row.report.cancelled.is_some() => row.end(ReportedStatus::Cancelled, version, at),
                    None => row.report.status = ReportedStatus::Pending,
                });
            }
            Fact::TaskStarted { key, kind: TaskKind::Set | TaskKind::Compute | TaskKind::Shape, input, .. }
                // What is marked is a failure on its way, not a task.
                if !key.last().contains('!') =>
            {
                self.inputs.insert(key.clone(), (input.clone(), version, at));
            }
            Fact::TaskFinished { key, kind, output, .. } => match kind {
                TaskKind::Set => self.computed("set", key, output, version, at),
                TaskKind::Compute => self.computed("compute", key, output, version, at),
                TaskKind::Shape => {
                    self.inputs.remove(key);
                    self.with(key, |row| row.shape(output, version, at));
                }
                TaskKind::Do
                | TaskKind::For
                | TaskKind::Iteration
                | TaskKind::Fork
                | TaskKind::Branch
                | TaskKind::Record
                | TaskKind::Try => self.leave(key),
            },
            Fact::WorkflowCompleted { .. } | Fact::WorkflowFailed { .. } | Fact::WorkflowParked { .. } => {
                self.is_ended = true;
            }
            Fact::WorkflowCancelled { reason } => {
                self.is_ended = true;
                for row in self.rows.values_mut().filter(|row| row.is_given_up_with_all()) {
                    row.cancel(
                        (row.report.status == ReportedStatus::Running).then_some(0),
                        reason,
                        version,
                        at,
                    );
                }
            }
            Fact::WorkflowReopened { changes, back_to, again, .. } => {
                self.is_ended = false;
                // What it leaves behind is another story: the step that is asked anew begins its own.
                if let Some(version) = back_to {
                    self.go_back(*version);
                    again.iter().for_each(|key| self.renew(key));
                }
                changes.iter().for_each(|changes| self.given(changes));
                self.heard_late(event);
            }
            Fact::WorkflowForked(forked) => {
                forked.again.iter().for_each(|key| self.renew(key));
                self.given(&forked.changes);
                self.heard_late(event);
            }
            Fact::ListenStarted { key, wants, .. } => self.listens(key, wants, version, at),
            Fact::SignalReceived(signal) => {
                let error = signal.error.as_ref().map(Failure::plain);
                self.signals.insert(version, (signal.data.clone(), error));
            }
            Fact::SignalRefused { signal, .. } => drop(self.signals.remove(signal)),
            Fact::SignalTaken { key, signals } => {
                let taken: Vec<_> = signals.iter().filter_map(|version| self.signals.remove(version)).collect();
                let error = taken.iter().find_map(|(_, error)| error.clone());
                let data = taken.iter().map(|(data, _)| (*data.get()).clone()).collect();
                self.with(key, |row| {
                    row.report.answered = Some("signal");
                    match error {
                        Some(error) => {
                            row.report.error = Some(error);
                            row.end(ReportedStatus::Failed, version, at);
                        }
                        None => row.complete(&Slot::Inline(Arc::new(Value::Array(data))), version, at),
                    }
                });
            }
            Fact::TimerCancelled { key, reason } => self.with(key, |row| {
                if row.report.ended_version.is_none() {
                    row.cancel(None, reason, version, at);
                }
            }),
            Fact::DecisionMade(made) => drop(self.inputs.remove(&made.key.unmarked())),
            Fact::WorkflowStarted(_)
            | Fact::TaskStarted { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::UndoArmed(_)
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::UndoStarted(_)
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::Recorded { .. } => {}
        }
    }

    /// Outputs that a person put in the place of recorded ones.
    fn given(&mut self, changes: &Changes) {
        for given in &changes.outputs {
            self.with(&given.key, |row| {
                let was = Some(std::mem::replace(&mut row.report.output, given.output.get()));
                row.report.edited = Some(Edited { what: "output", was });
            });
        }
    }

    fn heard_late(&mut self, event: &Event) {
        for key in Ahead::late(&event.fact) {
            if let Some(count) = self.expected.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.expected.remove(key);
                }
            }
        }
    }

    fn asked(&mut self, asked: &StepAsked, version: Version, at: Micros) {
        self.inputs.remove(&asked.key);
        let edited = asked.program_hash.map(|_| Edited { what: "request", was: None });
        let report = StepReport {
            effect: asked.effect,
            status: if asked.starts { ReportedStatus::Running } else { ReportedStatus::Pending },
            attempts: u32::from(asked.starts),
            input: Arc::new(asked.request.to_json()),
            started_version: asked.starts.then_some(version),
            edited,
            ..blank(&asked.key, &asked.kind, version, at)
        };
        let before = self.of_key.get(&asked.key).and_then(|at| self.rows.get(at));
        let before = before.map(|row| row.attempts_before + row.report.attempts);
        let tried = self.tried.get(&asked.key).into_iter().flatten().rev();
        let tried = tried.copied().find(|(_, asked)| self.backs.has_taken(version, *asked));
        let tried = tried.map(|(attempts, _)| attempts);
        let started_at = asked.starts.then_some(at);
        let attempts_before = before.or(tried).unwrap_or(0);
        let awaits_shape = !asked.finishes;
        self.push(Row { started_at, attempts_before, awaits_shape, ..Row::new(report) });
    }

    /// A value that the program computed: asked, begun and done in one fact.
    fn computed(&mut self, kind: &str, key: &Key, output: &Slot, version: Version, at: Micros) {
        let (input, asked_version, asked_at) = self
            .inputs
            .remove(key)
            .map_or_else(|| (null(), version, at), |(slot, v, at)| (slot.get(), v, at));
        let report = StepReport {
            status: ReportedStatus::Completed,
            attempts: 1,
            input,
            output: output.get(),
            started_version: Some(asked_version),
            ended_version: Some(version),
            duration_ms: Some(millis_between(asked_at, at)),
            ..blank(key, &Arc::from(kind), asked_version, asked_at)
        };
        self.push(Row { started_at: Some(asked_at), ..Row::new(report) });
    }

    /// A wait for signals.
    fn listens(&mut self, key: &Key, wants: &Slot, version: Version, at: Micros) {
        self.inputs.remove(key);
        let report = StepReport {
            status: ReportedStatus::Running,
            attempts: 1,
            input: wants.get(),
            started_version: Some(version),
            ..blank(key, &Arc::from("listen"), version, at)
        };
        self.push(Row { started_at: Some(at), awaits_shape: true, ..Row::new(report) });
    }

    /// A scope ended: nothing more is made of what lies in it.
    fn leave(&mut self, scope: &Key) {
        if self.awaiting.is_empty() {
            return;
        }
        let mut inside = Vec::new();
        for begin in scope.begins_inside() {
            let behind = self.awaiting.range((Key::new(begin.as_str()), 0)..);
            inside.extend(behind.take_while(|(key, _)| key.as_str().starts_with(&begin)).cloned());
        }
        #[cfg(test)]
        {
            self.visited += inside.len() as u64;
        }
        for place in inside {
            self.awaiting.remove(&place);
            if let Some(row) = self.rows.get_mut(&place.1) {
                row.touch(self.version, self.reopened);
                row.shaped = Some(self.version);
            }
        }
    }

    /// Owes the newest row of a key anew.
    fn renew(&mut self, key: &Key) {
        self.with(key, Row::renew);
        if let Some(&at) = self.of_key.get(key)
            && self.rows.get(&at).is_some_and(|row| row.awaits_shape)
        {
            self.awaiting.insert((key.clone(), at));
        }
    }

    /// How many rows ends of scopes have looked at.
    #[cfg(test)]
    pub(super) fn visited(&self) -> u64 {
        self.visited
    }

    fn push(&mut self, mut row: Row) {
        row.touched = self.version;
        self.of_key.insert(row.report.key.clone(), self.next);
        if row.awaits_shape {
            self.awaiting.insert((row.report.key.clone(), self.next));
        }
        self.rows.insert(self.next, row);
        self.next += 1;
    }

    fn with(&mut self, key: &Key, change: impl FnOnce(&mut Row)) {
        if let Some(row) = self.of_key.get(key).and_then(|at| self.rows.get_mut(at)) {
            row.touch(self.version, self.reopened);
            change(row);
        }
    }

    /// The rows that were not handed out yet.
    pub fn finish(mut self) -> Vec<StepReport> {
        let rows = std::mem::take(&mut self.rows);
        rows.into_values().map(|row| self.closed(row)).collect()
    }

    /// An ended workflow starts nothing more; what was under way may still report.
    fn closed(&self, row: Row) -> StepReport {
        let mut report = row.report;
        let is_waiting = report.status == ReportedStatus::Pending || report.due.is_some();
        let is_open = is_waiting || &*report.kind == "listen";
        if (self.is_ended || row.is_left)
            && is_open
            && !report.key.is_aside()
            && report.ended_version.is_none()
        {
            report.status = ReportedStatus::Cancelled;
            report.due = None;
        }
        report
    }
}

/// A report of which nothing is known but the ask.
fn blank(key: &Key, kind: &Arc<str>, version: Version, at: Micros) -> StepReport {
    StepReport {
        key: key.clone(),
        kind: kind.clone(),
        effect: Effect::Pure,
        status: ReportedStatus::Pending,
        attempts: 0,
        lost_attempts: 0,
        input: null(),
        output: null(),
        error: None,
        cancelled: None,
        asked_version: version,
        started_version: None,
        ended_version: None,
        duration_ms: None,
        tokens: Tokens::default(),
        micro_usd: Some(0),
        is_unpriced: false,
        asked_at: Moment(at),
        latency_ms: None,
        model: None,
        variant: 0,
        finish_reason: None,
        found_in: None,
        is_estimated: false,
        due: None,
        reused: None,
        held: None,
        settled: None,
        failed_attempts: Vec::new(),
        shaped: None,
        edited: None,
        answered: None,
    }
}

impl Row {
    fn new(report: StepReport) -> Row {
        Row {
            report,
            started_at: None,
            attempts_before: 0,
            is_in_doubt: false,
            was_unknown: false,
            is_left: false,
            awaits_shape: false,
            shaped: None,
            touched: 0,
            before: Vec::new(),
        }
    }

    /// Something is about to be said of it: the first time behind a reopening it is kept as it was.
    fn touch(&mut self, version: Version, reopened: Version) {
        if self.touched < reopened {
            let was = Row { before: Vec::new(), ..self.clone() };
            self.before.push((reopened, was));
        }
        self.touched = version;
    }

    /// Whether the end of its task may still say what was made of the output.
    fn may_be_shaped(&self) -> bool {
        let is_wait = &*self.report.kind == "listen";
        let has_answer = matches!(self.report.status, ReportedStatus::Completed | ReportedStatus::Reused);
        let has_failed = self.report.status == ReportedStatus::Failed;
        self.awaits_shape && self.shaped.is_none() && !has_failed && (is_wait || has_answer)
    }

    /// The task made something of the output. A wait of which no signal was taken has given its default.
    fn shape(&mut self, output: &Slot, version: Version, at: Micros) {
        self.shaped = Some(version);
        if &*self.report.kind != "listen" {
            self.report.shaped = Some(output.get());
            return;
        }
        let answered = self.report.answered.take().unwrap_or("default");
        self.report.answered = Some(answered);
        self.report.cancelled = None;
        match answered {
            "signal" if *self.report.output != *output.get() => self.report.shaped = Some(output.get()),
            "signal" => {}
            _ => self.complete(output, version, at),
        }
    }

    fn spend(&mut self, usage: Option<&Usage>) {
        let Some(usage) = usage else { return };
        let report = &mut self.report;
        report.tokens.add(Tokens { input: usage.input_tokens, output: usage.output_tokens });
        report.is_unpriced |= usage.micro_usd.is_none();
        let known = report.micro_usd.unwrap_or(0).saturating_add(usage.micro_usd.unwrap_or(0));
        // What is known is worth saying; nothing known is not the same as free.
        report.micro_usd = (known > 0 || !report.is_unpriced).then_some(known);
        report.model = Some(usage.model.clone());
        report.finish_reason = usage.finish_reason.clone();
        report.found_in = usage.found_in.clone();
        report.is_estimated |= usage.is_estimated;
    }

    fn complete(&mut self, output: &Slot, version: Version, at: Micros) {
        self.report.output = output.get();
        self.report.error = None;
        self.end(ReportedStatus::Completed, version, at);
    }

    /// Whether it goes with its workflow when that is cancelled.
    fn is_given_up_with_all(&self) -> bool {
        let is_open = matches!(self.report.status, ReportedStatus::Pending | ReportedStatus::Running);
        is_open && !self.report.key.is_aside()
    }

    fn cancel(&mut self, attempt: Option<u32>, reason: &str, version: Version, at: Micros) {
        self.report.cancelled = Some(reason.to_owned());
        let is_write = self.report.effect == Effect::Write;
        // What may have changed the world is waited for: under way, or to be sent again in doubt.
        if is_write && (attempt.is_some() || self.is_in_doubt) {
            return;
        }
        self.report.lost_attempts += u32::from(attempt.is_some());
        self.end(ReportedStatus::Cancelled, version, at);
    }

    /// Owed anew: how it came out elsewhere is not said of it here.
    fn renew(&mut self) {
        let report = &mut self.report;
        report.status = ReportedStatus::Pending;
        (report.attempts, report.output, report.error) = (0, null(), None);
        (report.started_version, report.ended_version) = (None, None);
        (report.duration_ms, report.latency_ms, report.due, report.held) = (None, None, None, None);
        report.answered = None;
        (self.started_at, self.attempts_before) = (None, 0);
        (self.is_in_doubt, self.was_unknown) = (false, false);
        // A scope around it that had ended goes on.
        self.shaped = None;
    }

    fn end(&mut self, status: ReportedStatus, version: Version, at: Micros) {
        self.report.status = status;
        self.report.ended_version = Some(version);
        self.report.due = None;
        self.report.duration_ms = self.started_at.map(|started| millis_between(started, at));
    }
}

pub(super) fn millis_between(from: Micros, to: Micros) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0) / 1_000
}
