//! A log as a tree: scopes nest by the path of their keys, with steps, decisions and timers as
//! leaves, in the order in which they came.
//!
//! A scope that the log never names (an iteration, a try) is there all the same as soon as
//! something inside it is. What a scope used is the sum of what lies in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::steps::{millis_between, steps};
use super::{Moment, ReportedStatus, ReusedFrom, StepReport, Tokens, effective};
use crate::event::{Event, Fact, TaskKind, Verdict};
use crate::step::{Effect, Failure};
use crate::{Key, Micros, Version};

/// A scope or a leaf.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TreeNode {
    /// Its key.
    pub key: Key,
    /// What of the key its parent does not say: `fetch`, `[3]`, `!2`.
    pub label: String,
    /// What it is.
    #[serde(flatten)]
    pub what: What,
    /// Where it stands.
    pub status: ReportedStatus,
    /// The version of the first fact about it.
    pub version: Version,
    /// From its begin to its end, in ms; `None` while it lasts.
    pub duration_ms: Option<u64>,
    /// Tokens used, with all that lies in it.
    pub tokens: Tokens,
    /// The cost as far as prices are known, with all that lies in it.
    pub micro_usd: u64,
    /// What lies in it, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<TreeNode>,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "what", rename_all = "lowercase")]
#[allow(clippy::large_enum_variant)] // most nodes are steps
pub enum What {
    /// A task with others inside.
    Scope {
        /// Which kind of task, where the log says so.
        task: Option<TaskKind>,
    },
    /// A step, or a value that the program computed.
    Step {
        /// Which step kind.
        kind: Arc<str>,
        /// What it does to the world.
        effect: Effect,
        /// Attempts begun.
        attempts: u32,
        /// Attempts whose process died under them.
        lost_attempts: u32,
        /// The model that answered.
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// Which variant of the request was tried last: 0, or the place of a fallback, from 1.
        variant: u32,
        /// Why the model stopped.
        #[serde(skip_serializing_if = "Option::is_none")]
        finish_reason: Option<String>,
        /// The place in what the model wrote from which the answer was taken, where it was not the text itself.
        #[serde(skip_serializing_if = "Option::is_none")]
        found_in: Option<String>,
        /// Whether tokens are estimated.
        #[serde(skip_serializing_if = "is_false")]
        is_estimated: bool,
        /// Whether something was used whose price is not known, so that the cost is at least this.
        #[serde(skip_serializing_if = "is_false")]
        is_unpriced: bool,
        /// Why it failed, or why its last attempt did.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
        /// When the next attempt is due.
        #[serde(skip_serializing_if = "Option::is_none")]
        due: Option<Moment>,
        /// Where its outcome was taken from, if it was.
        #[serde(skip_serializing_if = "Option::is_none")]
        reused: Option<ReusedFrom>,
        /// Why it waits for a person, as a `write` of a fork.
        #[serde(skip_serializing_if = "Option::is_none")]
        held: Option<String>,
        /// What became of it, as a `write` whose outcome could not be taken.
        #[serde(skip_serializing_if = "Option::is_none")]
        settled: Option<Verdict>,
    },
    /// A choice.
    Decision {
        /// What was chosen.
        chosen: String,
        /// Out of what.
        options: Vec<String>,
        /// The values that decided it.
        because: Arc<Value>,
    },
    /// A wait for a moment.
    Timer {
        /// The moment.
        due: Moment,
    },
    /// A wait for signals.
    Listen {
        /// Their names.
        names: Vec<Arc<str>>,
    },
    /// A domain event that the workflow recorded.
    Event {
        /// Its type.
        event_type: Arc<str>,
    },
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// The tree of a log: what stands at the top, in order.
///
/// What a reopening left behind has no place in it: it shows what the workflow went on from.
pub fn tree(events: &[Event]) -> Vec<TreeNode> {
    let events = effective(events);
    let reports = steps(events.iter().copied());
    let mut growing = Growing { reports: reports.into_iter().map(Some).collect(), ..Growing::default() };
    for (at, report) in growing.reports.iter().enumerate() {
        let version = report.as_ref().map_or(0, |r| r.asked_version);
        growing.row_of.insert(version, at);
    }
    for event in events {
        growing.read(event);
    }
    let top = std::mem::take(&mut growing.top);
    let end = growing.end;
    top.into_iter().map(|at| growing.take(at, end)).collect()
}

/// How the workflow, or the scope around a node, ended: whether well.
type Ended = Option<bool>;

struct Twig {
    key: Key,
    /// How much of the key its parent says.
    said: usize,
    what: What,
    version: Version,
    began: Micros,
    ended: Option<Micros>,
    is_cancelled: bool,
    /// True where the signal that it waited for reports a failure.
    has_failed: bool,
    report: Option<StepReport>,
    children: Vec<usize>,
}

#[derive(Default)]
struct Growing {
    reports: Vec<Option<StepReport>>,
    /// The row of `reports` whose first fact has this version.
    row_of: HashMap<Version, usize>,
    twigs: Vec<Twig>,
    of_key: HashMap<Key, usize>,
    /// Signals that report a failure.
    failing: HashSet<Version>,
    /// When the limits were set that have no node of their own.
    limits: HashMap<Key, Micros>,
    top: Vec<usize>,
    end: Ended,
}

impl Growing {
    fn read(&mut self, event: &Event) {
        match &event.fact {
            Fact::StepAsked(asked) => self.step(&asked.key, event),
            Fact::TaskStarted { key, kind: TaskKind::Set | TaskKind::Compute, .. } => self.step(key, event),
            Fact::TaskStarted { key, kind: TaskKind::Shape, .. } if !key.is_root() => {
                self.twig(key, event);
            }
            Fact::TaskFinished { key, kind: TaskKind::Set | TaskKind::Compute, .. } => self.step(key, event),
            Fact::TaskStarted { key, kind, .. } if !key.is_root() => {
                let at = self.twig(key, event);
                self.twigs[at].what = What::Scope { task: Some(*kind) };
                // Where a delay stood before, it is over now and the try begins.
                self.twigs[at].ended = None;
            }
            Fact::TaskFinished { key, kind: TaskKind::Shape, .. } => {
                // A wait whose time ran out ends with its task.
                if let Some(&at) = self.of_key.get(key)
                    && matches!(self.twigs[at].what, What::Listen { .. })
                {
                    self.twigs[at].ended.get_or_insert(event.clock());
                    self.twigs[at].is_cancelled = false;
                }
            }
            Fact::TaskFinished { key, kind, .. } if !key.is_root() && *kind != TaskKind::Shape => {
                let at = self.twig(key, event);
                if matches!(self.twigs[at].what, What::Scope { .. }) {
                    self.twigs[at].what = What::Scope { task: Some(*kind) };
                }
                self.twigs[at].ended = Some(event.clock());
            }
            Fact::DecisionMade(made) => {
                let what = What::Decision {
                    chosen: made.chosen.clone(),
                    options: made.options.clone(),
                    because: made.because.get(),
                };
                let at = self.leaf(&made.key, event, what);
                self.twigs[at].ended = Some(event.clock());
            }
            // A limit is worth a line only when it cut something off.
            Fact::TimerSet { key, limits: true, .. } => drop(self.limits.insert(key.clone(), event.clock())),
            Fact::TimerSet { key, due, .. } => {
                let at = self.leaf(key, event, What::Timer { due: Moment(*due) });
                self.waits_anew(at);
            }
            Fact::ListenStarted { key, names, .. } => {
                let at = self.leaf(key, event, What::Listen { names: names.clone() });
                self.waits_anew(at);
            }
            Fact::SignalReceived(signal) => {
                if signal.error.is_some() {
                    self.failing.insert(event.version);
                }
            }
            Fact::SignalTaken { key, signals } => {
                if let Some(&at) = self.of_key.get(key) {
                    self.twigs[at].ended = Some(event.clock());
                    self.twigs[at].has_failed = signals.iter().any(|signal| self.failing.contains(signal));
                }
            }
            Fact::TimerFired { key } => {
                let at = match self.of_key.get(key) {
                    Some(&at) => at,
                    None => self.limit(key, event),
                };
                self.twigs[at].ended = Some(event.clock());
            }
            Fact::TimerCancelled { key, .. } => {
                if let Some(&at) = self.of_key.get(key) {
                    self.twigs[at].is_cancelled = true;
                    self.twigs[at].ended.get_or_insert(event.clock());
                }
            }
            Fact::WorkflowCompleted { .. } => self.end = Some(true),
            Fact::WorkflowFailed { .. } | Fact::WorkflowCancelled { .. } | Fact::WorkflowParked { .. } => {
                self.end = Some(false);
            }
            Fact::UndoStarted(undo) => {
                let at = self.twig(&undo.key.undo(), event);
                self.twigs[at].what = What::Scope { task: Some(TaskKind::Do) };
            }
            Fact::UndoCompleted { key, .. } => {
                let at = self.twig(&key.undo(), event);
                self.twigs[at].ended = Some(event.clock());
            }
            Fact::WorkflowReopened { .. } => self.end = None,
            Fact::Recorded { event_type, key: Some(key), .. } => {
                let what = What::Event { event_type: event_type.clone() };
                let at = self.leaf(key, event, what);
                self.twigs[at].ended = Some(event.clock());
            }
            // What these say of a step is in its report; the rest has no place in a tree.
            Fact::AttemptStarted { .. }
            | Fact::AttemptFailed(_)
            | Fact::StepCompleted(_)
            | Fact::StepFailed(_)
            | Fact::OutcomeUnknown { .. }
            | Fact::OutcomeResolved { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::StepCancelled { .. }
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::WorkflowForked(_)
            | Fact::WorkflowStarted(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::UndoArmed(_)
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalRefused { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::Recorded { .. } => {}
        }
    }

    fn step(&mut self, key: &Key, event: &Event) {
        let Some(report) = self.row_of.get(&event.version).and_then(|&row| self.reports[row].take()) else {
            return;
        };
        let what = What::Step {
            kind: report.kind.clone(),
            effect: report.effect,
            attempts: report.attempts,
            lost_attempts: report.lost_attempts,
            model: report.model.clone(),
            variant: report.variant,
            finish_reason: report.finish_reason.clone(),
            found_in: report.found_in.clone(),
            is_estimated: report.is_estimated,
            is_unpriced: report.is_unpriced,
            error: report.error.clone(),
            due: report.due,
            reused: report.reused.clone(),
            held: report.held.clone(),
            settled: report.settled,
        };
        let at = self.leaf(key, event, what);
        self.twigs[at].report = Some(report);
    }

    /// What was given up there, before the workflow was reopened, is waited for again.
    fn waits_anew(&mut self, at: usize) {
        self.twigs[at].ended = None;
        self.twigs[at].is_cancelled = false;
        self.twigs[at].has_failed = false;
    }

    /// The node of a limit that cut something off: it has run since it was set.
    fn limit(&mut self, key: &Key, event: &Event) -> usize {
        let at = self.leaf(key, event, What::Timer { due: Moment(event.clock()) });
        if let Some(set) = self.limits.get(key) {
            self.twigs[at].began = *set;
        }
        at
    }

    /// The node of a leaf. A mark on a leaf (`review!if`) does not make a scope of what it marks;
    /// the delay before a further try (`post!2`) belongs to the block.
    fn leaf(&mut self, key: &Key, event: &Event, what: What) -> usize {
        let is_try =
            key.last().rsplit('!').next().is_some_and(|mark| mark.bytes().all(|b| b.is_ascii_digit()));
        let scope = if is_try { enclosing(key) } else { enclosing(&key.unmarked()) };
        let at = self.twig_in(key, scope.as_ref(), event);
        self.twigs[at].what = what;
        at
    }

    fn twig(&mut self, key: &Key, event: &Event) -> usize {
        self.twig_in(key, enclosing(key).as_ref(), event)
    }

    /// The node of a key, made with every scope around it where it is new.
    fn twig_in(&mut self, key: &Key, scope: Option<&Key>, event: &Event) -> usize {
        if let Some(&at) = self.of_key.get(key) {
            return at;
        }
        // From the outside in, so that a deep key needs no recursion.
        let mut missing = Vec::new();
        let mut above = scope.cloned();
        while let Some(key) = above.take_if(|key| !self.of_key.contains_key(key)) {
            above = enclosing(&key);
            missing.push(key);
        }
        for key in missing.into_iter().rev() {
            let scope = enclosing(&key);
            self.plant(&key, scope.as_ref(), event);
        }
        self.plant(key, scope, event)
    }

    fn plant(&mut self, key: &Key, scope: Option<&Key>, event: &Event) -> usize {
        let at = self.twigs.len();
        self.twigs.push(Twig {
            key: key.clone(),
            said: scope.map_or(0, |scope| scope.as_str().len()),
            what: What::Scope { task: None },
            version: event.version,
            began: event.clock(),
            ended: None,
            is_cancelled: false,
            has_failed: false,
            report: None,
            children: Vec::new(),
        });
        self.of_key.insert(key.clone(), at);
        match scope.and_then(|scope| self.of_key.get(scope)) {
            Some(&parent) => self.twigs[parent].children.push(at),
            None => self.top.push(at),
        }
        at
    }

    fn take(&mut self, at: usize, around: Ended) -> TreeNode {
        let children = std::mem::take(&mut self.twigs[at].children);
        let own = if self.twigs[at].ended.is_some() { Some(true) } else { around };
        let children: Vec<TreeNode> = children.into_iter().map(|child| self.take(child, own)).collect();
        let report = self.twigs[at].report.take();
        let twig = &self.twigs[at];
        let (mut tokens, mut micro_usd) = (Tokens::default(), 0u64);
        for child in &children {
            tokens.add(child.tokens);
            micro_usd = micro_usd.saturating_add(child.micro_usd);
        }
        let (status, duration_ms) = match &report {
            Some(report) => {
                tokens.add(report.tokens);
                micro_usd = micro_usd.saturating_add(report.micro_usd.unwrap_or(0));
                (report.status, report.duration_ms)
            }
            None if twig.is_cancelled => (ReportedStatus::Cancelled, None),
            None if twig.has_failed => {
                (ReportedStatus::Failed, twig.ended.map(|to| millis_between(twig.began, to)))
            }
            None => (
                standing(twig.ended.is_some(), around, &children),
                twig.ended.map(|to| millis_between(twig.began, to)),
            ),
        };
        TreeNode {
            label: twig.key.as_str()[twig.said..].trim_start_matches('/').to_owned(),
            key: twig.key.clone(),
            what: twig.what.clone(),
            status,
            version: twig.version,
            duration_ms,
            tokens,
            micro_usd,
            children,
        }
    }
}

/// Where something stands that has no report of its own: a scope, a decision, a timer.
fn standing(is_ended: bool, around: Ended, children: &[TreeNode]) -> ReportedStatus {
    let last = children.last().map(|child| child.status);
    match (is_ended, around) {
        (true, _) => ReportedStatus::Completed,
        (false, Some(true)) if last == Some(ReportedStatus::Failed) => ReportedStatus::Failed,
        (false, Some(true)) if last == Some(ReportedStatus::Cancelled) => ReportedStatus::Cancelled,
        (false, Some(true)) => ReportedStatus::Completed,
        (false, Some(false)) if children.iter().any(|c| c.status == ReportedStatus::Failed) => {
            ReportedStatus::Failed
        }
        (false, Some(false)) => ReportedStatus::Cancelled,
        (false, None) if children.iter().any(|c| c.status == ReportedStatus::Unknown) => {
            ReportedStatus::Unknown
        }
        (false, None) => ReportedStatus::Running,
    }
}

/// The scope around a key by its text alone: `read[3]` of `read[3]/fetch`, `read` of `read[3]`,
/// `post` of `post!2`. `None` at the top.
fn enclosing(key: &Key) -> Option<Key> {
    let text = key.as_str();
    match text.rfind(['/', '[', '!']) {
        None | Some(0) => None,
        Some(at) => Some(Key::new(&text[..at])),
    }
}
