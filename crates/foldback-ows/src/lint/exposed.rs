//! Secrets on a command line, where every user of the machine reads them while the process runs.

use super::{Told, lists_in};
use crate::program::{Body, Definition, Part, StepTask, StepUndo, Task, TaskList};
use crate::template::Template;

pub(super) fn lint(definition: &Definition, told: &mut Told<'_>) {
    each(&definition.tasks, told);
    definition.on_compensate.iter().for_each(|(_, list)| each(list, told));
}

/// All tasks of a list, also those that undo a step or find out whether it happened.
fn each(list: &TaskList, told: &mut Told<'_>) {
    for task in &list.tasks {
        lists_in(task).into_iter().for_each(|list| each(list, told));
        let Body::Step(step) = &task.body else { continue };
        look(task, step, told);
        if let Some(StepUndo::Tasks { list, .. }) = &step.undo {
            each(list, told);
        }
        step.reconcile.iter().for_each(|list| each(list, told));
    }
}

fn look(task: &Task, step: &StepTask, told: &mut Told<'_>) {
    if !matches!(step.kind, "shell" | "script") {
        return;
    }
    let is_exposed = |name: &str, part: &Part| {
        matches!(name, "arguments" | "command") && matches!(part, Part::Value(value) if holds_secret(value))
    };
    for (name, _) in step.parts.iter().filter(|(name, part)| is_exposed(name, part)) {
        let below = [format!("/run/{}/{name}", step.kind)];
        told.at(
            task,
            &below.each_ref().map(String::as_str),
            format!(
                "the secret in `{name}` of `{}` stands on the command line of its process, where every user of \
                 the machine can read it (`ps`)",
                task.name
            ),
            "give it by `environment: { NAME: ${ $secrets.NAME } }`, or by `stdin`",
        );
    }
}

fn holds_secret(template: &Template) -> bool {
    match template {
        Template::Secret(_) => true,
        Template::Object(members) => members.iter().any(|(_, value)| holds_secret(value)),
        Template::List(items) => items.iter().any(holds_secret),
        Template::Constant(_) | Template::Expression(_) => false,
    }
}
