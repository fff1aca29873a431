//! The growing of a tree: what each event plants in it, and what is counted instead of kept where a scope
//! has more children than a person looks at.
//!
//! Invariant: what is held grows with what is open and with what is kept, never with the log.

use std::collections::{HashMap, HashSet};

use super::rows::millis_between;
use super::tree::{LeftOut, Over};
use super::{Ahead, Moment, ReportedStatus, Rows, TreeNode, What};
use crate::event::{Event, Fact, TaskKind};
use crate::value::Slot;
use crate::{Key, Micros, Version};

/// Items of a loop that a node holds.
const OVER_MAX: usize = 5;

/// The choice of a `try` to begin another one.
const RETRY: &str = "retry";
/// The choice of a `try` to fail with its error.
const UNCAUGHT: &str = "uncaught";

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
    /// Of a further try of a block: true where it failed and another one followed.
    is_tried_again: bool,
    /// Of a further try of a block: true where it failed, and the block with it.
    is_uncaught: bool,
    /// Its row among the steps.
    row: Option<u64>,
    children: Vec<usize>,
    left_out: Option<LeftOut>,
    left_context: Vec<String>,
}

/// A tree that is finished.
#[derive(Debug)]
pub struct Grown {
    /// What stands at the top, in order.
    pub nodes: Vec<TreeNode>,
    /// What stands at the top and is only counted.
    pub left_out: Option<LeftOut>,
}

/// A tree that grows while a log is read event by event.
pub struct Growing {
    rows: Rows,
    ahead: Ahead,
    /// How many of the first and of the last children of a scope are kept.
    keep: usize,
    twigs: HashMap<usize, Twig>,
    next: usize,
    of_key: HashMap<Key, usize>,
    /// Signals that report a failure, until they are taken.
    failing: HashSet<Version>,
    /// When the limits were set that have no node of their own.
    limits: HashMap<Key, Micros>,
    top: Vec<usize>,
    top_left_out: Option<LeftOut>,
    context: Slot,
    end: Ended,
}

impl Growing {
    /// A tree of a log of which it is known what is said late. Of the children of a scope, the first and
    /// the last `keep` are kept, and those between them counted once they are over.
    pub fn new(keep: usize, ahead: &Ahead) -> Growing {
        Growing {
            rows: Rows::knowing(ahead),
            ahead: ahead.clone(),
            keep,
            twigs: HashMap::new(),
            next: 0,
            of_key: HashMap::new(),
            failing: HashSet::new(),
            limits: HashMap::new(),
            top: Vec::new(),
            top_left_out: None,
            context: Slot::null(),
            end: None,
        }
    }

    /// The number of nodes that are held.
    pub fn held(&self) -> usize {
        self.twigs.len()
    }

    /// The rows among the nodes.
    #[cfg(test)]
    pub(super) fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The tree of what was read.
    pub fn finish(mut self) -> Grown {
        let (top, end) = (std::mem::take(&mut self.top), self.end);
        let nodes = top.into_iter().map(|at| self.take(at, end)).collect();
        Grown { nodes, left_out: self.top_left_out }
    }

    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        if !self.ahead.is_kept(event.version) {
            return;
        }
        self.rows.read(event);
        match &event.fact {
            Fact::StepAsked(asked) => self.step(&asked.key, event),
            // It has its row once it is computed.
            Fact::TaskStarted { kind: TaskKind::Set | TaskKind::Compute, .. } => {}
            Fact::TaskStarted { key, kind: TaskKind::Shape, .. } if !key.is_root() => {
                self.twig(key, event);
            }
            Fact::TaskFinished { key, kind: TaskKind::Set | TaskKind::Compute, context, .. } => {
                self.step(key, event);
                self.exported(key, context.as_ref());
            }
            Fact::TaskStarted { key, kind, input, .. } if !key.is_root() => {
                let at = self.twig(key, event);
                self.set(at, |twig| {
                    twig.what = What::Scope { task: Some(*kind), over: over(*kind, input) };
                    // Where a delay stood before, it is over now and the try begins.
                    twig.ended = None;
                });
            }
            Fact::TaskFinished { key, kind: TaskKind::Shape, context, .. } => {
                // A wait whose time ran out ends with its task.
                self.set_of(key, |twig| {
                    if let What::Listen { answered, .. } = &mut twig.what {
                        answered.get_or_insert("default");
                        twig.ended.get_or_insert(event.clock());
                        twig.is_cancelled = false;
                    }
                });
                self.exported(key, context.as_ref());
            }
            Fact::TaskFinished { key, kind, context, .. } if !key.is_root() => {
                let at = self.twig(key, event);
                self.set(at, |twig| {
                    if let What::Scope { task, .. } = &mut twig.what {
                        *task = Some(*kind);
                    }
                    twig.ended = Some(event.clock());
                });
                self.exported(key, context.as_ref());
            }
            Fact::DecisionMade(made) => {
                if let Some(tried) = failed_try(&made.key) {
                    self.set_of(&tried, |twig| {
                        twig.is_tried_again = made.chosen == RETRY;
                        twig.is_uncaught = made.chosen == UNCAUGHT;
                    });
                }
                let what = What::Decision {
                    chosen: made.chosen.clone(),
                    options: made.options.clone(),
                    because: made.because.get(),
                };
                let at = self.leaf(&made.key, event, what);
                self.set(at, |twig| twig.ended = Some(event.clock()));
            }
            // A limit is worth a line only when it cut something off.
            Fact::TimerSet { key, limits: true, .. } => drop(self.limits.insert(key.clone(), event.clock())),
            Fact::TimerSet { key, due, .. } => {
                let at = self.leaf(key, event, What::Timer { due: Moment(*due) });
                self.waits_anew(at, event);
            }
            Fact::ListenStarted { key, names, .. } => {
                let at = self.leaf(key, event, What::Listen { names: names.clone(), answered: None });
                self.waits_anew(at, event);
            }
            Fact::SignalReceived(signal) => {
                if signal.error.is_some() {
                    self.failing.insert(event.version);
                }
            }
            Fact::SignalTaken { key, signals } => {
                let has_failed = signals.iter().filter(|signal| self.failing.remove(signal)).count() > 0;
                self.set_of(key, |twig| {
                    if let What::Listen { answered, .. } = &mut twig.what {
                        *answered = Some("signal");
                    }
                    twig.ended = Some(event.clock());
                    twig.has_failed = has_failed;
                });
            }
            Fact::TimerFired { key } => {
                let at = match self.of_key.get(key) {
                    Some(&at) => at,
                    None => self.limit(key, event),
                };
                self.set(at, |twig| twig.ended = Some(event.clock()));
            }
            Fact::TimerCancelled { key, .. } => self.set_of(key, |twig| {
                twig.is_cancelled = true;
                twig.ended.get_or_insert(event.clock());
            }),
            Fact::WorkflowCompleted { .. } => self.end = Some(true),
            Fact::WorkflowFailed { .. } | Fact::WorkflowCancelled { .. } | Fact::WorkflowParked { .. } => {
                self.end = Some(false);
            }
            Fact::UndoStarted(undo) => {
                let at = self.twig(&undo.key.undo(), event);
                self.set(at, |twig| twig.what = What::Scope { task: Some(TaskKind::Do), over: None });
            }
            Fact::UndoCompleted { key, .. } => {
                let at = self.twig(&key.undo(), event);
                self.set(at, |twig| twig.ended = Some(event.clock()));
            }
            Fact::WorkflowReopened { .. } => {
                self.end = None;
                // The try that failed with its block goes on.
                self.twigs.values_mut().for_each(|twig| twig.is_uncaught = false);
            }
            Fact::Recorded { event_type, key: Some(key), .. } => {
                let what = What::Event { event_type: event_type.clone() };
                let at = self.leaf(key, event, what);
                self.set(at, |twig| twig.ended = Some(event.clock()));
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
        let Some((row, asked)) = self.rows.newest(key).map(|(row, report)| (row, report.asked_version))
        else {
            return;
        };
        let at = self.leaf(key, event, What::Scope { task: None, over: None });
        // Asked for again in the same place: what it was before is another story.
        if let Some(before) = self.twigs.get(&at).and_then(|twig| twig.row).filter(|before| *before != row) {
            self.rows.remove(before);
        }
        self.set(at, |twig| {
            twig.row = Some(row);
            twig.version = twig.version.min(asked);
        });
    }

    /// What was given up there, before the workflow was reopened, is waited for again, from now on.
    fn waits_anew(&mut self, at: usize, event: &Event) {
        self.set(at, |twig| {
            twig.began = event.clock();
            twig.ended = None;
            twig.is_cancelled = false;
            twig.has_failed = false;
        });
    }

    fn set(&mut self, at: usize, change: impl FnOnce(&mut Twig)) {
        if let Some(twig) = self.twigs.get_mut(&at) {
            change(twig);
        }
    }

    fn set_of(&mut self, key: &Key, change: impl FnOnce(&mut Twig)) {
        if let Some(&at) = self.of_key.get(key) {
            self.set(at, change);
        }
    }

    /// A task exported a new `$context`: the names that the one before had, and this one has not.
    fn exported(&mut self, key: &Key, context: Option<&Slot>) {
        let Some(context) = context else { return };
        let before = std::mem::replace(&mut self.context, context.clone()).get();
        let (Some(before), after) = (before.as_object(), context.get()) else { return };
        let has = |name: &String| after.get(name).is_some();
        let left: Vec<String> = before.keys().filter(|name| !has(name)).cloned().collect();
        self.set_of(key, |twig| twig.left_context = left);
    }

    /// The node of a limit that cut something off: it has run since it was set.
    fn limit(&mut self, key: &Key, event: &Event) -> usize {
        let at = self.leaf(key, event, What::Timer { due: Moment(event.clock()) });
        if let Some(began) = self.limits.remove(key) {
            self.set(at, |twig| twig.began = began);
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
        self.set(at, |twig| twig.what = what);
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
        let at = self.next;
        self.next += 1;
        let parent = scope.and_then(|scope| self.of_key.get(scope)).copied();
        let twig = Twig {
            key: key.clone(),
            said: scope.map_or(0, |scope| scope.as_str().len()),
            what: What::Scope { task: None, over: None },
            version: event.version,
            began: event.clock(),
            ended: None,
            is_cancelled: false,
            has_failed: false,
            is_tried_again: false,
            is_uncaught: false,
            row: None,
            children: Vec::new(),
            left_out: None,
            left_context: Vec::new(),
        };
        self.twigs.insert(at, twig);
        self.of_key.insert(key.clone(), at);
        match parent.and_then(|parent| self.twigs.get_mut(&parent)) {
            Some(parent) => parent.children.push(at),
            None => self.top.push(at),
        }
        self.prune(parent);
        at
    }

    /// Counts what stands between the first and the last children of a scope, as far as it is over.
    fn prune(&mut self, parent: Option<usize>) {
        while let Some(at) = self.surplus(parent) {
            let node = self.take(at, None);
            let after = self.keep;
            let left_out = match parent {
                None => {
                    self.top.remove(after);
                    &mut self.top_left_out
                }
                Some(parent) => match self.twigs.get_mut(&parent) {
                    Some(twig) => {
                        twig.children.remove(after);
                        &mut twig.left_out
                    }
                    None => return,
                },
            };
            let left_out = left_out.get_or_insert(LeftOut { after, ..LeftOut::default() });
            left_out.nodes += 1;
            left_out.failed += u64::from(has_failed(&node));
            left_out.tokens.add(node.tokens);
            left_out.micro_usd = left_out.micro_usd.saturating_add(node.micro_usd);
        }
    }

    /// The child that is counted next: the first one behind those that are kept, once it is over.
    fn surplus(&self, parent: Option<usize>) -> Option<usize> {
        let children = match parent {
            None => &self.top,
            Some(parent) => &self.twigs.get(&parent)?.children,
        };
        let is_surplus = children.len() > self.keep.saturating_mul(2);
        children.get(self.keep).copied().filter(|at| is_surplus && self.is_over(*at))
    }

    /// Whether nothing more is said of a node, as far as can be told.
    fn is_over(&self, at: usize) -> bool {
        let Some(twig) = self.twigs.get(&at) else { return true };
        match twig.row {
            Some(row) => self.rows.is_over_at(row),
            None => twig.ended.is_some(),
        }
    }

    /// A node with all below it. Keys nest hundreds deep: those around come first in a list, which is gone
    /// through from its end, and nothing calls itself.
    fn take(&mut self, at: usize, around: Ended) -> TreeNode {
        let (mut all, mut next) = (vec![(at, around)], 0);
        while let Some(&(at, around)) = all.get(next) {
            let twig = self.twigs.get(&at).expect("a child is taken once");
            let own = if twig.ended.is_some() { Some(true) } else { around };
            all.extend(twig.children.iter().map(|child| (*child, own)));
            next += 1;
        }
        let mut made = HashMap::new();
        for (at, around) in all.into_iter().rev() {
            let node = self.node(at, around, &mut made);
            made.insert(at, node);
        }
        made.remove(&at).expect("it is the last that was made")
    }

    /// A node whose children are made.
    fn node(&mut self, at: usize, around: Ended, made: &mut HashMap<usize, TreeNode>) -> TreeNode {
        let twig = self.twigs.remove(&at).expect("a child is taken once");
        if self.of_key.get(&twig.key) == Some(&at) {
            self.of_key.remove(&twig.key);
        }
        if !self.limits.is_empty() {
            self.limits.remove(&twig.key.mark("timeout"));
        }
        let children: Vec<TreeNode> = twig.children.iter().filter_map(|child| made.remove(child)).collect();
        let report = twig.row.and_then(|row| self.rows.remove(row));
        let left_out = twig.left_out.unwrap_or_default();
        let (mut tokens, mut micro_usd) = (left_out.tokens, left_out.micro_usd);
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
            None if twig.has_failed || twig.is_tried_again || twig.is_uncaught => {
                (ReportedStatus::Failed, twig.ended.map(|to| millis_between(twig.began, to)))
            }
            None => (
                standing(twig.ended.is_some(), around, &children),
                twig.ended.map(|to| millis_between(twig.began, to)),
            ),
        };
        TreeNode {
            label: twig.key.as_str()[twig.said..].trim_start_matches('/').to_owned(),
            key: twig.key,
            what: report.map_or(twig.what, What::of_step),
            status,
            version: twig.version,
            duration_ms,
            tokens,
            micro_usd,
            children,
            left_out: twig.left_out,
            left_context: twig.left_context,
        }
    }
}

fn has_failed(node: &TreeNode) -> bool {
    node.status == ReportedStatus::Failed
        || node.children.iter().any(has_failed)
        || node.left_out.is_some_and(|left_out| left_out.failed > 0)
}

/// What a loop runs over, where its program says so.
fn over(kind: TaskKind, input: &Slot) -> Option<Over> {
    if kind != TaskKind::For {
        return None;
    }
    let input = input.value()?;
    let items = input.get("items")?.as_array()?;
    Some(Over { count: items.len(), first: items.iter().take(OVER_MAX).cloned().collect() })
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

/// The further try, `post!2`, whose error a decision judges: `post!2!catch`. The first try is the block itself.
fn failed_try(decision: &Key) -> Option<Key> {
    let tried = decision.as_str().strip_suffix("!catch")?;
    let (_, mark) = tried.rsplit_once('!')?;
    (!mark.is_empty() && mark.bytes().all(|b| b.is_ascii_digit())).then(|| Key::new(tried))
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
