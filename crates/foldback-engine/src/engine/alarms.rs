//! Alarms: when the waits of workflows are over, by the clock that nobody sets.
//!
//! Invariants: a wait that is set here ends after its delay, however the time of day is set meanwhile, and
//! also where its workflow is let out of memory and folded anew. A wait that an earlier process set is over
//! when the time of day says so, but after one more delay at the latest.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use foldback_core::{Key, Micros, limits};

use crate::machine::Clocks;

/// A wait, as its workflow's state knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// When it is over, by the time of day where it was set.
    pub due: Micros,
    /// The delay that it was set with.
    pub delay: Micros,
}

/// When an alarm rings by the steady clock, of which wait of which workflow, and when that is due.
type Alarm = (Micros, Arc<str>, Key, Micros);

/// The alarms of an engine.
#[derive(Default)]
pub(super) struct Alarms {
    /// The one that rings next is on top.
    set: BinaryHeap<Reverse<Alarm>>,
    /// How far the time of day was ahead of the steady clock when it was looked at last.
    ahead: Option<Micros>,
    /// Alarms of which the time of day does not tell when they ring: it was set since, or stands so far back
    /// that it would be after more than their delay. When each is due, and when it rings.
    kept: HashMap<(Arc<str>, Key), (Micros, Micros)>,
}

impl Alarms {
    /// Sees whether the time of day was set since the last look.
    pub(super) fn look(&mut self, clocks: Clocks) {
        let ahead = clocks.wall.saturating_sub(clocks.steady);
        let known = *self.ahead.get_or_insert(ahead);
        if ahead.abs_diff(known) < limits::CLOCK_JUMP_MIN_MS * 1_000 {
            return;
        }
        self.ahead = Some(ahead);
        for Reverse((at, id, key, due)) in &self.set {
            self.kept.entry((id.clone(), key.clone())).or_insert((*due, *at));
        }
    }

    /// When a wait is over, by the steady clock.
    pub(super) fn moment(&self, id: &Arc<str>, key: &Key, wait: Wait, clocks: Clocks) -> Micros {
        if !self.kept.is_empty()
            && let Some((due, at)) = self.kept.get(&(id.clone(), key.clone()))
            && *due == wait.due
        {
            return *at;
        }
        let left = wait.due.saturating_sub(clocks.wall).clamp(0, wait.delay.max(0));
        clocks.steady.saturating_add(left)
    }

    /// Sets an alarm for a wait.
    pub(super) fn set(&mut self, id: &Arc<str>, key: Key, wait: Wait, clocks: Clocks) {
        let at = self.moment(id, &key, wait, clocks);
        if wait.due.saturating_sub(clocks.wall) > wait.delay {
            self.kept.insert((id.clone(), key.clone()), (wait.due, at));
        }
        self.set.push(Reverse((at, id.clone(), key, wait.due)));
    }

    /// When the next one rings, by the steady clock.
    pub(super) fn next(&self) -> Option<Micros> {
        self.set.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes one that rings now: whose it is, and when it was due.
    pub(super) fn ringing(&mut self, steady: Micros) -> Option<(Arc<str>, Key, Micros)> {
        self.next().filter(|at| *at <= steady)?;
        let Reverse((_, id, key, due)) = self.set.pop()?;
        Some((id, key, due))
    }

    /// One that rang was answered.
    pub(super) fn answered(&mut self, id: &Arc<str>, key: &Key, due: Micros) {
        if self.kept.is_empty() {
            return;
        }
        let place = (id.clone(), key.clone());
        if self.kept.get(&place).is_some_and(|(kept, _)| *kept == due) {
            self.kept.remove(&place);
        }
    }
}
