//! What each step was asked, what it answered, and what was decided: one row a step, in the
//! order in which they were asked. Visits, tries and iterations have keys of their own and so
//! rows of their own.
//!
//! Never looks at a state: a row is made of what the log says about its key, so rows of scopes
//! that the state forgot long ago are here too.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{Moment, Tokens, null};
use crate::change::Changes;
use crate::event::{Event, Fact, Found, StepAsked, TaskKind, Verdict};
use crate::step::{Effect, Failure, Usage};
use crate::value::Slot;
use crate::{Key, Micros, Version};

/// Where a step stands, in the words that scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReportedStatus {
    /// Asked for; no attempt has begun.
    Pending,
    /// An attempt has begun, or the next one is due.
    Running,
    /// Did what was asked.
    Completed,
    /// Failed for good.
    Failed,
    /// Given up: the program wanted it no more (`cancelled` says why), or its workflow ended before
    /// it began, or before its next attempt.
    Cancelled,
    /// Nobody knows whether it happened.
    Unknown,
    /// Its outcome was taken from another workflow.
    Reused,
}

impl ReportedStatus {
    /// The word that scripts rely on.
    pub fn as_str(self) -> &'static str {
        match self {
            ReportedStatus::Pending => "pending",
            ReportedStatus::Running => "running",
            ReportedStatus::Completed => "completed",
            ReportedStatus::Failed => "failed",
            ReportedStatus::Cancelled => "cancelled",
            ReportedStatus::Unknown => "unknown",
            ReportedStatus::Reused => "reused",
        }
    }
}

/// An attempt that did not end its step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptReport {
    /// Which attempt, from 1.
    pub attempt: u32,
    /// The version that says so.
    pub version: Version,
    /// Why it failed.
    pub error: Failure,
    /// The answer that was rejected, where that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Arc<Value>>,
    /// How long it was waited before the next one, in ms.
    pub delay_ms: u64,
    /// Which variant of the request it was: 0, or the place of a fallback, from 1.
    pub variant: u32,
}

/// Where an outcome was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReusedFrom {
    /// In whose log.
    pub workflow: Arc<str>,
    /// At which version.
    pub version: Version,
}

/// What the log says about one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepReport {
    /// Its name.
    pub key: Key,
    /// Which step kind performs it; `set` and `compute` for what the program computes itself.
    pub kind: Arc<str>,
    /// What it does to the world.
    pub effect: Effect,
    /// Where it stands.
    pub status: ReportedStatus,
    /// Attempts begun.
    pub attempts: u32,
    /// Attempts whose process died under them, or that were cut off: what they used is in none of the
    /// figures.
    pub lost_attempts: u32,
    /// What it was asked: the request as recorded.
    pub input: Arc<Value>,
    /// What it answered.
    pub output: Arc<Value>,
    /// Why it failed, or why its last attempt did.
    pub error: Option<Failure>,
    /// Why the program gave it up. A `write` that was under way has an outcome all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled: Option<String>,
    /// The version of its ask.
    pub asked_version: Version,
    /// The version with which its first attempt began.
    pub started_version: Option<Version>,
    /// The version with which it completed or failed.
    pub ended_version: Option<Version>,
    /// From the begin of the first attempt to its end, delays included, in ms.
    pub duration_ms: Option<u64>,
    /// Tokens of all attempts.
    pub tokens: Tokens,
    /// The cost of all attempts; `None` where something was used and no price is known.
    pub micro_usd: Option<u64>,
    /// Whether an attempt used something whose price is not known: the cost is at least this.
    pub is_unpriced: bool,
    /// When it was asked.
    pub asked_at: Moment,
    /// How long the last attempt took, in ms, as its performer saw it.
    pub latency_ms: Option<u64>,
    /// The model that answered, as it calls itself.
    pub model: Option<String>,
    /// Which variant of the request was tried last: 0, or the place of a fallback, from 1.
    pub variant: u32,
    /// Why the model stopped.
    pub finish_reason: Option<String>,
    /// The place in what the model wrote from which the answer was taken, where it was not the text itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_in: Option<String>,
    /// Whether tokens of an attempt are estimated, since its provider did not tell them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_estimated: bool,
    /// When the next attempt is due, while it backs off.
    pub due: Option<Moment>,
    /// Where its outcome was taken from, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reused: Option<ReusedFrom>,
    /// Why it waits for a person, as a `write` of a fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// What became of it, as a `write` whose outcome could not be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub settled: Option<Verdict>,
    /// Attempts that did not end it.
    pub failed_attempts: Vec<AttemptReport>,
    /// What the task made of the output, where it shaped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shaped: Option<Arc<Value>>,
}

/// A recorded choice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecisionReport {
    /// The version that records it.
    pub version: Version,
    /// Its name.
    pub key: Key,
    /// What was chosen.
    pub chosen: String,
    /// Out of what.
    pub options: Vec<String>,
    /// The values that decided it.
    pub because: Arc<Value>,
}

/// The decisions of a log, in order.
pub fn decisions<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<DecisionReport> {
    let report = |event: &Event| match &event.fact {
        Fact::DecisionMade(made) => Some(DecisionReport {
            version: event.version,
            key: made.key.clone(),
            chosen: made.chosen.clone(),
            options: made.options.clone(),
            because: made.because.get(),
        }),
        _ => None,
    };
    events.into_iter().filter_map(report).collect()
}

/// The steps of a log, in the order of their asks. Values computed by the program (`set`,
/// `compute`) stand among them as steps that are done at once.
pub fn steps<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<StepReport> {
    let mut rows = Rows::default();
    for event in events {
        rows.read(event);
    }
    rows.finish()
}

/// One row with what only its making needs.
struct Row {
    report: StepReport,
    started_at: Option<Micros>,
    /// Attempts of the rows of this key before it: the step was asked for again.
    attempts_before: u32,
    /// Whether an attempt had an unknown outcome and was sent again.
    is_in_doubt: bool,
}

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    /// The newest row of a key.
    of_key: HashMap<Key, usize>,
    /// Inputs of tasks that a `TaskStarted` recorded, until the task's own fact takes them.
    inputs: HashMap<Key, (Slot, Version, Micros)>,
    is_ended: bool,
}

impl Rows {
    fn read(&mut self, event: &Event) {
        let (version, at) = (event.version, event.clock());
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
                row.report.error = Some(failed.error.clone());
                row.is_in_doubt |= failed.unknown;
                row.report.due = Some(Moment(failed.due));
                row.report.failed_attempts.push(AttemptReport {
                    attempt: failed.attempt,
                    version,
                    error: failed.error.clone(),
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
                row.report.error = Some(failed.error.clone());
                if let Some(rejected) = &failed.rejected {
                    row.report.failed_attempts.push(AttemptReport {
                        attempt: failed.attempt,
                        version,
                        error: failed.error.clone(),
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
                row.report.error = reused.error.clone();
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
            Fact::OutcomeUnknown { key, .. } => {
                self.with(key, |row| row.report.status = ReportedStatus::Unknown)
            }
            Fact::StepCancelled { key, attempt, reason } => {
                self.with(key, |row| row.cancel(*attempt, reason, version, at));
            }
            Fact::OutcomeReconciled { found: Found::Unknown, .. } => {}
            Fact::OutcomeResolved { key, landed } | Fact::OutcomeReconciled { key, landed, .. } => {
                self.with(key, |row| match landed {
                    Some(output) => row.complete(output, version, at),
                    None if row.report.cancelled.is_some() => row.end(ReportedStatus::Cancelled, version, at),
                    None => row.report.status = ReportedStatus::Pending,
                });
            }
            Fact::TaskStarted {
                key,
                kind: TaskKind::Set | TaskKind::Compute | TaskKind::Shape,
                input,
                ..
            } => {
                self.inputs.insert(key.clone(), (input.clone(), version, at));
            }
            Fact::TaskFinished { key, kind, output, .. } => match kind {
                TaskKind::Set => self.computed("set", key, output, version, at),
                TaskKind::Compute => self.computed("compute", key, output, version, at),
                TaskKind::Shape => self.with(key, |row| row.report.shaped = Some(output.get())),
                TaskKind::Do
                | TaskKind::For
                | TaskKind::Iteration
                | TaskKind::Fork
                | TaskKind::Branch
                | TaskKind::Record
                | TaskKind::Try => {}
            },
            Fact::WorkflowCompleted { .. } | Fact::WorkflowFailed { .. } | Fact::WorkflowParked { .. } => {
                self.is_ended = true;
            }
            Fact::WorkflowCancelled { reason } => {
                self.is_ended = true;
                for row in self.rows.iter_mut().filter(|row| row.is_given_up_with_all()) {
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
                    let rows = &self.rows;
                    self.of_key.retain(|_, at| rows[*at].report.asked_version <= *version);
                    again.iter().for_each(|key| self.with(key, Row::renew));
                }
                changes.iter().for_each(|changes| self.given(changes));
            }
            Fact::WorkflowForked(forked) => {
                forked.again.iter().for_each(|key| self.with(key, Row::renew));
                self.given(&forked.changes);
            }
            Fact::WorkflowStarted(_)
            | Fact::TaskStarted { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
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
            self.with(&given.key, |row| row.report.output = given.output.get());
        }
    }

    fn asked(&mut self, asked: &StepAsked, version: Version, at: Micros) {
        self.inputs.remove(&asked.key);
        let report = StepReport {
            key: asked.key.clone(),
            kind: asked.kind.clone(),
            effect: asked.effect,
            status: if asked.starts { ReportedStatus::Running } else { ReportedStatus::Pending },
            attempts: u32::from(asked.starts),
            lost_attempts: 0,
            input: Arc::new(asked.request.to_json()),
            output: null(),
            error: None,
            cancelled: None,
            asked_version: version,
            started_version: asked.starts.then_some(version),
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
        };
        let before = self.of_key.get(&asked.key).map(|&at| &self.rows[at]);
        let attempts_before = before.map_or(0, |row| row.attempts_before + row.report.attempts);
        let started_at = asked.starts.then_some(at);
        self.push(Row { report, started_at, attempts_before, is_in_doubt: false });
    }

    /// A value that the program computed: asked, begun and done in one fact.
    fn computed(&mut self, kind: &str, key: &Key, output: &Slot, version: Version, at: Micros) {
        let (input, asked_version, asked_at) = self
            .inputs
            .remove(key)
            .map_or_else(|| (null(), version, at), |(slot, v, at)| (slot.get(), v, at));
        let report = StepReport {
            key: key.clone(),
            kind: Arc::from(kind),
            effect: Effect::Pure,
            status: ReportedStatus::Completed,
            attempts: 1,
            lost_attempts: 0,
            input,
            output: output.get(),
            error: None,
            cancelled: None,
            asked_version,
            started_version: Some(asked_version),
            ended_version: Some(version),
            duration_ms: Some(millis_between(asked_at, at)),
            tokens: Tokens::default(),
            micro_usd: Some(0),
            is_unpriced: false,
            asked_at: Moment(asked_at),
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
        };
        self.push(Row { report, started_at: Some(asked_at), attempts_before: 0, is_in_doubt: false });
    }

    fn push(&mut self, row: Row) {
        self.of_key.insert(row.report.key.clone(), self.rows.len());
        self.rows.push(row);
    }

    fn with(&mut self, key: &Key, change: impl FnOnce(&mut Row)) {
        if let Some(&at) = self.of_key.get(key) {
            change(&mut self.rows[at]);
        }
    }

    fn finish(self) -> Vec<StepReport> {
        let is_ended = self.is_ended;
        let close = |row: Row| {
            let mut report = row.report;
            // An ended workflow starts nothing more; what was under way may still report.
            let is_waiting = report.status == ReportedStatus::Pending || report.due.is_some();
            if is_ended && is_waiting && !report.key.is_aside() && report.ended_version.is_none() {
                report.status = ReportedStatus::Cancelled;
                report.due = None;
            }
            report
        };
        self.rows.into_iter().map(close).collect()
    }
}

impl Row {
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
        (self.started_at, self.attempts_before, self.is_in_doubt) = (None, 0, false);
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
