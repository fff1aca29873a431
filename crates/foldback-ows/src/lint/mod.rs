//! Warnings: what a definition may say, and what is seldom meant.
//!
//! Seven looks over a definition that was read without a problem: where no way leads, or none leads out
//! (`flow`), which member no task gives (`data`), which export loses what was there (`context`), which
//! condition compares what is redacted (`redacted`), which secret stands on a command line (`exposed`), which
//! write would stop for a person after a crash, and which says one idempotency key for all its runs (here). A warning is told only where it is certain: what
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
            one_key_for_all(task, step, &mut told);
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

fn one_key_for_all(task: &Task, step: &StepTask, told: &mut Told<'_>) {
    let headers = told.tree.find(&task.pointer).and_then(|own| own.find("/with/headers"));
    let is_own = |name: &str| name.eq_ignore_ascii_case("idempotency-key");
    let own = headers.and_then(Node::as_map).unwrap_or_default().iter().find(|member| is_own(&member.name));
    let Some(own) = own.filter(|_| step.effect == Effect::Write) else { return };
    if own.value.as_str().is_some_and(|text| !text.contains("${")) {
        told.warn(
            &own.value,
            format!(
                "`{}` sends the same idempotency key in every run: a server that honours it does it once, and never again",
                task.name
            ),
            "leave it out: each write has a key of its own, the same for all its attempts",
        );
    }
}
