//! Warnings: what a definition may say, and what is seldom meant.
//!
//! Six looks over a definition that was read without a problem: where no way leads, or none leads out
//! (`flow`), which member no task gives (`data`), which export loses what was there (`context`), which
//! condition compares what is redacted (`redacted`), which secret stands on a command line (`exposed`), and
//! which write would stop for a person after a crash (here). A warning is told only where it is certain: what
//! is not known is trusted. It changes nothing, and what it costs is counted.

mod context;
mod data;
mod exposed;
mod flow;
mod redacted;
mod shape;
mod ways;

use foldback_core::{Effect, Recovery};

use crate::problem::{Problem, Report};
use crate::program::{Body, Definition, StepTask, Task, TaskList};
use crate::tree::Node;

/// What looks like a mistake in a definition that was read from this tree.
pub(crate) fn lint(definition: &Definition, tree: &Node) -> Vec<Problem> {
    let mut told = Told { tree, report: Report::default() };
    each_task(&definition.tasks, &mut |task| {
        if let Body::Step(step) = &task.body {
            stops_for_a_person(task, step, &mut told);
        }
    });
    flow::lint(&definition.tasks, &mut told);
    context::lint(&definition.tasks, &mut told);
    redacted::lint(definition, &mut told);
    data::lint(definition, &mut told);
    exposed::lint(definition, &mut told);
    told.report.warnings
}

/// Warnings, and the tree that knows the places.
struct Told<'t> {
    tree: &'t Node,
    report: Report,
}

impl Told<'_> {
    /// A warning at a place below a task: the first of these members that the task has, or itself.
    fn at(&mut self, task: &Task, below: &[&str], message: String, hint: impl Into<String>) {
        let own = self.tree.find(&task.pointer);
        let place = below.iter().find_map(|name| own?.find(name)).or(own).unwrap_or(self.tree);
        self.warn(place, message, hint);
    }

    fn warn(&mut self, at: &Node, message: String, hint: impl Into<String>) {
        let is_told = |w: &Problem| (w.line, w.column, &w.message) == (at.line, at.column, &message);
        if !self.report.warnings.iter().any(is_told) {
            self.report.warning(at, message, hint);
        }
    }
}

/// All tasks, those inside others too.
fn each_task<'d>(list: &'d TaskList, visit: &mut dyn FnMut(&'d Task)) {
    for task in &list.tasks {
        visit(task);
        lists_in(task).into_iter().for_each(|list| each_task(list, visit));
    }
}

/// The lists of tasks in a task.
fn lists_in(task: &Task) -> Vec<&TaskList> {
    match &task.body {
        Body::Do(list) => vec![list],
        Body::Fork(fork) => vec![&fork.branches],
        Body::For(body) => vec![&body.body],
        Body::Try(block) => std::iter::once(&block.body).chain(&block.handler).collect(),
        Body::Set(_)
        | Body::Switch(_)
        | Body::Raise(_)
        | Body::Wait(_)
        | Body::Emit(_)
        | Body::Listen(_)
        | Body::Step(_) => Vec::new(),
    }
}

fn stops_for_a_person(task: &Task, step: &StepTask, told: &mut Told<'_>) {
    if step.effect != Effect::Write || step.recovery != Recovery::Operator || step.is_recovery_said {
        return;
    }
    told.at(
        task,
        &[],
        format!(
            "`{}` changes the world, and nothing says what to do when the process dies in the middle of it: \
             the workflow will stop there until a person says whether it happened (`foldback resolve`)",
            task.name
        ),
        "say it under metadata.foldback: recovery: retry where doing it twice is harmless (as where the other side \
         honours Idempotency-Key), recovery: operator where the stop is meant, effect: pure or read where it \
         changes nothing",
    );
}
