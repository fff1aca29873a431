//! Sleep: a workflow that only waits for a moment is let out of memory, and brought back shortly before
//! it comes. What stays of it is its alarm; its state is where it always was, in the log.

use std::cmp::Reverse;
use std::sync::Arc;

use foldback_core::{Micros, Owed, Status, limits};

use super::Engine;

/// Sleepers brought back between two looks at messages and alarms.
const ROUND: usize = 64;

impl Engine {
    /// Lets a workflow out of memory that waits for a moment far away. Whether it did.
    pub(super) fn falls_asleep(&mut self, id: &Arc<str>) -> bool {
        let clocks = self.clocks();
        let Some(live) = self.live.get(id) else { return false };
        let rings = |owed| match owed {
            Owed::Retry(key, _) | Owed::Timer(key, _) => self.rings_at(id, &live.state, &key, clocks),
            Owed::Start(_) | Owed::Attempt(..) | Owed::Undo(_) => None,
        };
        let Some(at) = live.state.owes().into_iter().filter_map(rings).min() else { return false };
        let is_far = at.saturating_sub(clocks.steady) >= limits::SLEEP_MIN_MS as Micros * 1_000;
        if !is_far || !live.is_settled() || self.flying.contains_key(id) || self.cut.contains(id) {
            return false;
        }
        self.forget(id);
        let ahead = limits::WAKE_AHEAD_MS as Micros * 1_000;
        self.asleep.push(Reverse((at.saturating_sub(ahead), id.clone())));
        true
    }

    /// Brings back those whose moment comes soon: before it is due, so that none waits for the others.
    pub(super) fn wake_sleepers(&mut self) {
        if self.is_winding_down || self.asleep.is_empty() {
            return;
        }
        let steady = self.clocks().steady;
        for _ in 0..ROUND {
            match self.asleep.peek() {
                Some(Reverse((at, _))) if *at <= steady => {}
                _ => return,
            }
            if let Some(Reverse((_, id))) = self.asleep.pop() {
                self.wake(&id);
            }
        }
    }

    /// Brings a workflow back. Where it cannot be read, who waits for it is told why.
    pub(super) fn wake(&mut self, id: &Arc<str>) {
        if let Err(refusal) = self.take_up(id) {
            let status = match refusal.is_quarantined {
                true => Status::Quarantined,
                false => self.stored_status(id).unwrap_or(Status::Running),
            };
            self.tell_watchers(id, status, Some(refusal.message));
        }
        self.rest_if_done(id);
    }
}
