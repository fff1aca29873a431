//! `fork` with `compete: true`: the first branch that completes wins, and the others are given up.
//!
//! Who won is a decision in the log. A branch that fails has lost and one that is skipped never
//! ran; when none is left to win, the fork fails with the error of the branch that stands first, so
//! that it is the same whoever failed first.

use std::sync::Arc;

use foldback_core::{Ask, EntryBody, Key, StepStatus, TaskKind};
use serde_json::{Map, Value};

use super::leaf::SKIP;
use super::{Fault, Scope, Walked, Walker};
use crate::program::{Task, TaskList};

impl Walker<'_> {
    pub(super) fn race(
        &mut self,
        task: &Task,
        key: Key,
        branches: &TaskList,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        if let Some(winner) = self.chosen(&key.mark("winner")) {
            return self.won(task, key, winner, branches, input, scope);
        }
        if let Some(winner) = self.first_of(&key, branches) {
            return self.declare(&key, winner, branches);
        }
        let (mut is_busy, mut failed) = (false, None);
        for branch in &branches.tasks {
            let branch_key = key.child(&branch.name);
            if self.chosen(&branch_key.mark("if")) == Some(SKIP) {
                continue;
            }
            if let Some(fault) = self.recorded_failure(&branch_key) {
                failed = failed.or(Some(fault));
                continue;
            }
            let asked = self.asks.len();
            match self.task(branch, branch_key.clone(), input.clone(), scope) {
                Walked::Busy | Walked::Done(_) => is_busy = true,
                // It has reached the end of the workflow, and so its own.
                Walked::End(_) => return self.declare(&key, &branch.name, branches),
                Walked::Failed(fault @ Fault { is_recorded: true, .. }) => failed = failed.or(Some(fault)),
                Walked::Failed(Fault { failure, is_recorded: false }) => {
                    // The others go on, and what it was computed from may change meanwhile.
                    let failure = Arc::new(serde_json::to_value(failure.plain()).unwrap_or_default());
                    let (key, kind) = (branch_key.failed(), TaskKind::Shape);
                    self.ask(Ask::Start { key, kind, input: failure });
                    is_busy = true;
                }
                Walked::Lost(divergence) => return Walked::Lost(divergence),
            }
            // Once one is about to complete, those behind it begin nothing more.
            if self.asks[asked..].iter().any(|ask| ends(ask, &branch_key)) {
                return Walked::Busy;
            }
        }
        match failed {
            _ if is_busy => Walked::Busy,
            Some(fault) => Walked::Failed(fault),
            // All were skipped.
            None => self.finish(task, key, TaskKind::Fork, input.clone(), &input, scope),
        }
    }

    /// The branch that completed first, by the versions of their ends. What ended by the program's
    /// own word ended before what the world has said since.
    fn first_of<'b>(&self, key: &Key, branches: &'b TaskList) -> Option<&'b str> {
        let completed = branches.tasks.iter().filter_map(|branch| {
            let branch_key = key.child(&branch.name);
            let is_skipped = self.chosen(&branch_key.mark("if")) == Some(SKIP);
            let entry = self.entry(&branch_key).filter(|_| !is_skipped && self.is_finished(&branch_key))?;
            let by_the_world = matches!(entry.body, EntryBody::Step(_) | EntryBody::Timer { .. });
            Some(((by_the_world, entry.since), branch.name.as_str()))
        });
        completed.min().map(|(_, name)| name)
    }

    fn declare(&mut self, key: &Key, winner: &str, branches: &TaskList) -> Walked {
        let mut because = Map::new();
        for branch in &branches.tasks {
            because.insert(branch.name.clone(), Value::from(self.standing(&key.child(&branch.name))));
        }
        // One that reached the end of the workflow completed without an end of its own.
        because.insert(winner.to_owned(), Value::from("completed"));
        self.ask(Ask::Decide {
            key: key.mark("winner"),
            chosen: winner.to_owned(),
            options: branches.tasks.iter().map(|branch| branch.name.clone()).collect(),
            because: Value::Object(because),
            finishes: false,
        })
    }

    /// Where a branch stands, as far as the facts at its own key say.
    fn standing(&self, branch: &Key) -> &'static str {
        let body = self.body(branch);
        let has_failed = matches!(body, Some(EntryBody::Step(step)) if step.status == StepStatus::Failed)
            || matches!(self.body(&branch.mark("timeout")), Some(EntryBody::Timer { fired: true, .. }))
            || self.entry(&branch.failed()).is_some();
        match () {
            () if self.chosen(&branch.mark("if")) == Some(SKIP) => "skipped",
            () if has_failed => "failed",
            () if self.is_finished(branch) => "completed",
            () if self.state.newest_visit(branch).is_some() => "not completed",
            () => "not begun",
        }
    }

    fn won(
        &mut self,
        task: &Task,
        key: Key,
        winner: &str,
        branches: &TaskList,
        input: Arc<Value>,
        scope: &Scope<'_>,
    ) -> Walked {
        let reason = format!("`{winner}` came first");
        let mut is_over = true;
        for loser in branches.tasks.iter().filter(|branch| branch.name != winner) {
            is_over &= self.give_up(&key.child(&loser.name), &reason);
        }
        if !is_over {
            return Walked::Busy;
        }
        let branch_key = key.child(winner);
        if self.is_finished(&branch_key) {
            let output = self.output_of(&branch_key).unwrap_or_else(|| input.clone());
            return self.finish(task, key, TaskKind::Fork, output, &input, scope);
        }
        match branches.position(winner) {
            // It won by leading to the end of the workflow, and leads there again.
            Some(at) => self.task(&branches.tasks[at], branch_key, input, scope),
            None => Walked::Busy,
        }
    }
}

/// Whether an ask ends the task of this key.
fn ends(ask: &Ask, task: &Key) -> bool {
    match ask {
        Ask::Finish { key, .. } => key == task,
        Ask::Decide { key, finishes, chosen, .. } => *finishes && key.unmarked() == *task && chosen != SKIP,
        Ask::Step(_)
        | Ask::Timer { .. }
        | Ask::Cancel { .. }
        | Ask::Start { .. }
        | Ask::Collect { .. }
        | Ask::Record { .. }
        | Ask::Compensate { .. }
        | Ask::Budget { .. }
        | Ask::Listen { .. }
        | Ask::Take { .. }
        | Ask::Refuse { .. } => false,
    }
}
