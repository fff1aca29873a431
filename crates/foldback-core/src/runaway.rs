//! Runaway loops: jumps back that meet no step and no wait, so that nothing outside ever speaks.
//!
//! A jump back is the next visit of a task (`draft#2`) to which a task of an earlier visit leads, or
//! the next try of a block (`post!2`). The fold counts them, by the list of tasks in which they happen
//! and by each list around it; a step or a wait inside a list sets its count back to nothing. An
//! iteration of a `for` keeps its counts to itself: there are as many as there are items.
//!
//! Invariants: only [`advance`](crate::advance) judges, where new events are made. A log that holds more
//! jumps than [`crate::limits::JUMPS_MAX`] folds and verifies like any other.

use crate::event::{Class, Fact, TaskKind};
use crate::key::Key;
use crate::state::WorkflowState;
use crate::step::{Failure, error_type};
use crate::value::Slot;

/// A jump back.
struct Jump {
    /// The task that it leads to.
    task: Key,
    /// The innermost scope that counts it: the list in which the task stands, or the block itself.
    scope: Key,
}

impl WorkflowState {
    /// Counts jumps back, and forgets them where a step or a wait is met. To be called before the fact
    /// is applied: afterwards no visit is new.
    pub(crate) fn count_jumps(&mut self, fact: &Fact) {
        let is_wait = matches!(
            fact,
            Fact::StepAsked(_)
                | Fact::TimerSet { limits: false, .. }
                | Fact::ListenStarted { .. }
                | Fact::SignalTaken { .. }
        );
        // A jump to a step or a wait is forgotten at once, with all that were counted around it.
        if !is_wait && let Some(Jump { scope, .. }) = self.jump_of(fact) {
            for scope in counting(scope) {
                *self.jumps.entry(scope).or_insert(0) += 1;
            }
        }
        if self.jumps.is_empty() {
            return;
        }
        if matches!(fact, Fact::WorkflowForked(_) | Fact::WorkflowReopened { .. }) {
            self.jumps.clear();
        } else if let (true, Some(key)) = (is_wait || fact.class() == Class::Stimulus, fact.key()) {
            self.jumps.retain(|scope, _| key != scope && !key.is_inside(scope));
        }
    }

    /// The jump back that this fact is the first to tell of.
    fn jump_of(&self, fact: &Fact) -> Option<Jump> {
        if fact.class() == Class::Stimulus {
            return None;
        }
        let key = fact.key()?;
        if !key.last().contains(['#', '!']) {
            return None;
        }
        let task = key.unmarked();
        if let Fact::TaskStarted { kind: TaskKind::Try, .. } = fact
            && task != *key
        {
            return Some(Jump { scope: task.clone(), task });
        }
        let (first, visit) = task.visited();
        if visit < 2 || self.newest_visit(&first).is_some_and(|(_, known)| known >= visit) {
            return None;
        }
        let scope = task.parent();
        let before = self.cursors.get(&scope)?.last.visited().1;
        (before < visit).then_some(Jump { task, scope })
    }
}

/// The scopes that count a jump: its own and those around it, up to an iteration of a `for` or to
/// what stands beside the flow.
fn counting(scope: Key) -> impl Iterator<Item = Key> {
    std::iter::successors(Some(scope), |scope| {
        let around = scope.parent();
        let is_whole = scope.is_root() || scope.itemed().is_some();
        (!is_whole && scope.is_aside() == around.is_aside()).then_some(around)
    })
}

/// The fact that takes the place of one more jump back, where there were too many: the failure of the
/// task that it leads to, as a fact, so that a block around it can catch it.
pub(crate) fn in_place_of(state: &WorkflowState, fact: &Fact, jumps_max: u64) -> Option<Fact> {
    if state.jumps.is_empty() {
        return None;
    }
    let Jump { task, scope } = state.jump_of(fact)?;
    let is_too_many = |scope| state.jumps.get(&scope).is_some_and(|jumps| *jumps >= jumps_max);
    if !counting(scope).any(is_too_many) {
        return None;
    }
    let detail = format!(
        "the flow led back more than {jumps_max} times without a step or a wait; give the loop one of them, or a \
         way out"
    );
    let failure = Failure::new(error_type::RUNAWAY, 500, "The loop never waits", detail).at(&task);
    let input = Slot::of(serde_json::to_value(&failure).unwrap_or_default());
    Some(Fact::TaskStarted { key: task.failed(), kind: TaskKind::Shape, input, collects: false })
}
