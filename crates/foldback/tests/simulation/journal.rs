//! What stands of each workflow's steps, as far as its log is on disk: which have an outcome, which were
//! given up, which writes may be performed. It follows a fork to its parent, and a workflow that went
//! back to where it went; it asks nothing of the engine's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldback::core::{Fact, Key, Verdict, Version};

/// What an event says of the steps.
#[derive(Clone, Debug)]
pub enum Mark {
    Asked(String, bool),
    Started(String, u32),
    Completed(String),
    /// Its outcome was taken from a past.
    Taken(String),
    GivenUp(String),
    /// A write may be performed.
    Released(String),
    /// Reopened where it stood, or at an earlier version.
    Reopened(Option<Version>),
    Forked(Arc<str>, Version),
    Failed,
    /// A step may be done again, as it was taken back, and so may all that stands beside the flow there.
    Over {
        again: Option<String>,
        beside: Key,
    },
}

impl Mark {
    /// The types that say something of the steps.
    pub const TYPES: [&str; 12] = [
        "StepAsked",
        "AttemptStarted",
        "StepCompleted",
        "StepReused",
        "StepCancelled",
        "WriteSettled",
        "WorkflowReopened",
        "WorkflowForked",
        "WorkflowFailed",
        "UndoFailed",
        "UndoCompleted",
        "OutcomeReconciled",
    ];

    pub fn of(fact: &Fact) -> Option<Mark> {
        Some(match fact {
            Fact::StepAsked(asked) => Mark::Asked(asked.key.to_string(), asked.starts),
            Fact::AttemptStarted { key, attempt, .. } => Mark::Started(key.to_string(), *attempt),
            Fact::StepCompleted(done) => Mark::Completed(done.key.to_string()),
            Fact::StepReused(reused) => Mark::Taken(reused.key.to_string()),
            Fact::StepCancelled { key, .. } => Mark::GivenUp(key.to_string()),
            Fact::WriteSettled { key, verdict: Verdict::Live, .. } => Mark::Released(key.to_string()),
            Fact::WorkflowReopened { back_to, .. } => Mark::Reopened(*back_to),
            Fact::WorkflowFailed { .. } => Mark::Failed,
            Fact::WorkflowForked(forked) => {
                Mark::Forked(Arc::from(&*forked.lineage.parent), forked.lineage.cut)
            }
            // A part that could not be taken back may be so once more, with the whole.
            Fact::UndoFailed { key, scope, .. } if !scope.is_root() => {
                Mark::Over { again: None, beside: key.undo() }
            }
            Fact::UndoCompleted { key, .. } => {
                Mark::Over { again: Some(key.to_string()), beside: key.undo() }
            }
            Fact::OutcomeReconciled { key, .. } => Mark::Over { again: None, beside: key.reconcile() },
            _ => return None,
        })
    }
}

/// What stands at a version.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Steps that did what was asked.
    pub completed: BTreeSet<String>,
    /// Steps whose outcome was taken from a past.
    pub taken: BTreeSet<String>,
    /// Steps that were given up: none begins another attempt.
    pub given_up: BTreeSet<String>,
    /// Attempts that began here, since it was forked or went back.
    pub started: BTreeSet<(String, u32)>,
    /// Steps that began here, since it was forked or reopened.
    begun: BTreeSet<String>,
    /// Whether it was forked, or went back: from there on a write needs a word.
    pub is_ruled: bool,
    /// Writes that have it.
    pub released: BTreeSet<String>,
    /// Whether it has failed: what only looks may begin ahead of the commit that reopens it.
    pub has_failed: bool,
}

/// The marks of all workflows, in the order of their logs.
#[derive(Default)]
pub struct Journal {
    marks: BTreeMap<Arc<str>, Vec<(Version, Mark)>>,
    now: BTreeMap<Arc<str>, Standing>,
    nothing: Standing,
}

impl Journal {
    /// What stands of a workflow now.
    pub fn of(&self, id: &str) -> &Standing {
        self.now.get(id).unwrap_or(&self.nothing)
    }

    /// The newest attempt of a step that began.
    pub fn attempts(&self, id: &str, key: &str) -> u32 {
        self.of(id).attempts(key)
    }

    /// Takes in an event that is on disk. What should not have been is said.
    pub fn take(&mut self, id: &Arc<str>, version: Version, mark: Mark) -> Option<String> {
        let mut standing = self.now.remove(id).unwrap_or_default();
        let wrong = self.apply(id, &mut standing, &mark);
        self.now.insert(id.clone(), standing);
        self.marks.entry(id.clone()).or_default().push((version, mark));
        wrong
    }

    fn at(&self, id: &Arc<str>, version: Version) -> Standing {
        let mut standing = Standing::default();
        let marks = self.marks.get(id).into_iter().flatten();
        for (_, mark) in marks.take_while(|(at, _)| *at <= version) {
            self.apply(id, &mut standing, mark);
        }
        // A fork's own marks begin behind its cut: what lies before it is its parent's.
        match self.marks.get(id).and_then(|marks| marks.first()) {
            Some((_, Mark::Forked(parent, cut))) if version <= *cut => self.at(parent, version),
            _ => standing,
        }
    }

    fn apply(&self, id: &Arc<str>, standing: &mut Standing, mark: &Mark) -> Option<String> {
        let wrong = |is_wrong: bool, what: String| is_wrong.then_some(what);
        match mark {
            Mark::Asked(key, starts) => {
                standing.taken.remove(key);
                standing.released.remove(key);
                if *starts {
                    // Reopened, a step is asked for again, and its attempts are counted on.
                    let next = standing.attempts(key) + 1;
                    standing.started.insert((key.clone(), next));
                    standing.begun.insert(key.clone());
                }
                None
            }
            Mark::Started(key, attempt) => {
                standing.started.insert((key.clone(), *attempt));
                standing.begun.insert(key.clone());
                wrong(standing.taken.contains(key), format!("{id}: `{key}` began, and its outcome was taken"))
            }
            Mark::Completed(key) => {
                let is_new = standing.completed.insert(key.clone());
                wrong(!is_new, format!("{id}: `{key}` completed twice"))
            }
            Mark::Taken(key) => {
                standing.taken.insert(key.clone());
                let is_done = standing.completed.contains(key) || standing.begun.contains(key);
                wrong(is_done, format!("{id}: the outcome of `{key}` was taken, and it was performed here"))
            }
            Mark::GivenUp(key) => {
                standing.given_up.insert(key.clone());
                None
            }
            Mark::Released(key) => {
                standing.released.insert(key.clone());
                None
            }
            Mark::Failed => {
                standing.has_failed = true;
                None
            }
            // What was given up may be asked for anew.
            Mark::Reopened(None) => {
                standing.has_failed = false;
                standing.given_up.clear();
                standing.begun.clear();
                None
            }
            Mark::Reopened(Some(version)) => {
                *standing = self.at(id, *version).anew();
                None
            }
            Mark::Over { again, beside } => {
                let is_over =
                    |key: &String| Some(key) == again.as_ref() || Key::new(&**key).is_inside(beside);
                standing.completed.retain(|key| !is_over(key));
                standing.taken.retain(|key| !is_over(key));
                None
            }
            Mark::Forked(parent, cut) => {
                *standing = self.at(parent, *cut).anew();
                None
            }
        }
    }
}

impl Standing {
    fn attempts(&self, key: &str) -> u32 {
        let of_key = (key.to_owned(), 0)..=(key.to_owned(), u32::MAX);
        self.started.range(of_key).next_back().map_or(0, |(_, attempt)| *attempt)
    }

    /// Attempts that were under way are nobody's any more, and no write may be performed.
    fn anew(self) -> Standing {
        let Standing { completed, taken, given_up, .. } = self;
        Standing { completed, taken, given_up, is_ruled: true, ..Standing::default() }
    }
}
