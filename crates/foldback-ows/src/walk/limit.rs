//! `timeout`: how long a task, or the workflow, may take with all inside it.
//!
//! The limit is a timer in the log, set when the task has begun, so it holds across a crash. When it
//! fires before the task has ended, what is open inside is given up; the task fails when all of that
//! is over. A `write` under way is waited for: whether it happened must be known first.

use foldback_core::step::error_type;
use foldback_core::{Ask, EntryBody, Failure, Key, StepStatus};

use std::sync::Arc;

use serde_json::Value;

use super::scribe::Sight;
use super::{Fault, Scope, Walked, Walker};
use crate::program::{Delay, Limits, Task};

impl Walker<'_> {
    /// Sets the limit of a task that has begun, or heeds it; `None` while there is time. `input` is that of
    /// the task, or of the workflow, as an expression sees it.
    pub(super) fn limit(
        &mut self,
        task: Option<(&Task, &Scope<'_>)>,
        key: &Key,
        limit: &Delay,
        input: &dyn Fn() -> Arc<Value>,
    ) -> Option<Walked> {
        let timer = key.mark("timeout");
        match self.body(&timer) {
            None => {
                let input = input();
                let sight = match task {
                    Some((task, scope)) => Sight::of_task(task, key, scope, &input),
                    None => Sight::of_workflow(&input, None),
                };
                Some(match self.delay_ms(limit, &input, &sight) {
                    Ok(delay_ms) => {
                        self.ask(Ask::Timer { key: timer, delay_ms, finishes: false, limits: true })
                    }
                    Err(detail) => {
                        let title = "The limit `timeout.after` cannot be computed";
                        match task {
                            Some((task, _)) => self.expression_fault(task, key, title, detail),
                            None => Walked::Failed(self.workflow_fault(title, "/timeout/after", detail)),
                        }
                    }
                })
            }
            Some(EntryBody::Timer { fired: true, .. }) => {
                Some(self.out_of_time(task.map(|(task, _)| task), key, limit))
            }
            Some(
                EntryBody::Timer { .. }
                | EntryBody::Listening { .. }
                | EntryBody::Started { .. }
                | EntryBody::Step(_)
                | EntryBody::Decided { .. }
                | EntryBody::Finished { .. },
            ) => None,
        }
    }

    /// Says what a scope that has begun may use, once.
    pub(super) fn budget(&mut self, key: &Key, limits: &Limits) -> Option<Walked> {
        if limits.is_empty() || self.state.budgets.contains_key(key) {
            return None;
        }
        Some(self.ask(Ask::Budget { key: key.clone(), limits: limits.clone() }))
    }

    fn out_of_time(&mut self, task: Option<&Task>, key: &Key, limit: &Delay) -> Walked {
        let what = task.map_or_else(|| "the workflow".to_owned(), |_| format!("`{key}`"));
        if !self.give_up(key, &format!("{what} ran out of time")) {
            return Walked::Busy;
        }
        let detail = match limit {
            Delay::Ms(limit_ms) => format!("{what} did not end within {limit_ms} ms"),
            // What was computed stands in the timer's fact, and is not computed again.
            Delay::Computed(_) => format!("{what} did not end in time"),
        };
        let mut failure = Failure::new(error_type::TIMEOUT, 408, "Timeout", detail);
        failure.key = task.map(|_| key.clone());
        failure.instance = Some(task.map_or_else(|| "/timeout".to_owned(), |task| task.pointer.to_string()));
        // The timer's fact holds it: it reads the same with each turn.
        Walked::Failed(Fault { failure: Box::new(failure), is_recorded: true })
    }

    /// Gives up what is open at a key and inside it. True when nothing there is open any more.
    pub(super) fn give_up(&mut self, scope: &Key, reason: &str) -> bool {
        let mut is_over = true;
        let is_inside = |key: &Key| key == scope || key.is_inside(scope);
        is_over &= !self.is_taken_back_in(scope);
        for key in self.state.open.iter().filter(|key| is_inside(key)) {
            is_over = false;
            // What takes something back in the flow is not the flow's to give up.
            if key.is_aside() && !scope.is_aside() {
                continue;
            }
            let may_ask = match self.body(key) {
                // A person is asked what happened, or it is waited for already.
                Some(EntryBody::Step(step)) => !step.is_given_up && step.status != StepStatus::Unknown,
                Some(
                    EntryBody::Timer { .. }
                    | EntryBody::Listening { .. }
                    | EntryBody::Started { .. }
                    | EntryBody::Decided { .. }
                    | EntryBody::Finished { .. },
                )
                | None => true,
            };
            if may_ask {
                self.ask(Ask::Cancel { key: key.clone(), reason: reason.to_owned() });
            }
        }
        is_over
    }

    /// Gives up what only waits inside a scope, for a moment or for somebody, and the limits of all in which
    /// nothing else is under way. Steps under way go on, within their limits. The branch because of
    /// which is left as it is: it is walked again, and has to lead there again.
    pub(super) fn wait_no_more(&mut self, scope: &Key, because: Option<&Key>, reason: &str) {
        let is_step = |key: &&Key| matches!(self.body(key), Some(EntryBody::Step(_)));
        let steps: Vec<&Key> = self.state.open.iter().filter(is_step).collect();
        let of_branch = |key: &Key| because.is_some_and(|branch| key == branch || key.is_inside(branch));
        let is_left = |key: &Key| of_branch(key) || key.unmarked() == *scope;
        for key in self.state.open.iter().filter(|key| key.is_inside(scope) && !is_left(key)) {
            let limited = key.unmarked();
            let limits_a_step = || steps.iter().any(|step| **step == limited || step.is_inside(&limited));
            let waits = match self.body(key) {
                Some(EntryBody::Timer { fired: true, .. }) => false,
                Some(EntryBody::Timer { limits, .. }) => !limits || !limits_a_step(),
                Some(EntryBody::Listening { heard, .. }) => heard.is_none(),
                Some(
                    EntryBody::Step(_)
                    | EntryBody::Started { .. }
                    | EntryBody::Decided { .. }
                    | EntryBody::Finished { .. },
                )
                | None => false,
            };
            let is_given_up =
                self.asks.iter().any(|ask| matches!(ask, Ask::Cancel { key: other, .. } if other == key));
            if waits && !is_given_up && (scope.is_aside() || !key.is_aside()) {
                self.ask(Ask::Cancel { key: key.clone(), reason: reason.to_owned() });
            }
        }
    }

    /// Whether something is being taken back there: it is taken back to its end, or as far as it can be.
    pub(super) fn is_taken_back_in(&self, scope: &Key) -> bool {
        let mut compensations = self.state.compensations.iter();
        compensations.any(|(key, c)| c.failed.is_none() && (key == scope || key.is_inside(scope)))
    }
}
