//! Exports that replace the context: what an export before them put there is gone.

use std::collections::BTreeSet;

use super::{Told, flow, lists_in};
use crate::jq::Sketch;
use crate::program::{Body, Task, TaskList};
use crate::template::Template;

/// An export: which task makes it, and the members that it gives, where they are known.
#[derive(Clone)]
struct Export<'d> {
    task: &'d Task,
    gives: Option<BTreeSet<String>>,
}

pub(super) fn lint(list: &TaskList, told: &mut Told<'_>) {
    tasks(list, &[], false, told);
}

/// `before`: exports that may come before this list. `is_loop`: whether the list runs again.
fn tasks<'d>(list: &'d TaskList, before: &[Export<'d>], is_loop: bool, told: &mut Told<'_>) {
    for (index, task) in list.tasks.iter().enumerate() {
        let mut here = before.to_vec();
        for (other, at) in list.tasks.iter().zip(0..) {
            if at != index && (is_loop || flow::reachable(list, at).contains(&index)) {
                gather(other, &mut here);
            }
        }
        let is_beside = matches!(task.body, Body::Fork(_));
        for inside in lists_in(task) {
            let mut around = here.clone();
            if matches!(task.body, Body::Try(_)) {
                gather_all(lists_in(task).into_iter().filter(|l| !std::ptr::eq(*l, inside)), &mut around);
            }
            tasks(inside, &around, is_beside || matches!(task.body, Body::For(_)), told);
        }
        if let Body::For(_) | Body::Do(_) | Body::Fork(_) | Body::Try(_) = &task.body {
            gather_all(lists_in(task).into_iter(), &mut here);
        }
        judge(task, &here, told);
    }
}

fn gather<'d>(task: &'d Task, exports: &mut Vec<Export<'d>>) {
    if let Some(template) = &task.export {
        exports.push(Export { task, gives: gives(template) });
    }
    gather_all(lists_in(task).into_iter(), exports);
}

fn gather_all<'d>(lists: impl Iterator<Item = &'d TaskList>, exports: &mut Vec<Export<'d>>) {
    lists.flat_map(|list| &list.tasks).for_each(|task| gather(task, exports));
}

fn judge(task: &Task, before: &[Export<'_>], told: &mut Told<'_>) {
    let Some(template) = &task.export else {
        return;
    };
    if names_context(template) {
        return;
    }
    // What an expression gives that nobody can see through may hold it all.
    let Some(kept) = gives(template) else {
        return;
    };
    for export in before {
        let lost: Vec<String> = match &export.gives {
            Some(given) => given.difference(&kept).map(|name| format!("`{name}`")).collect(),
            None => vec!["what".to_owned()],
        };
        if lost.is_empty() {
            continue;
        }
        return told.at(
            task,
            &["/export/as", "/export"],
            format!(
                "this export replaces the whole context: {}{} `{}` exported is gone",
                lost.join(", "),
                if export.gives.is_some() { " that" } else { "" },
                export.task.name
            ),
            "keep what is there: as: '${ $context + { … } }'",
        );
    }
}

fn names_context(template: &Template) -> bool {
    match template {
        Template::Expression(filter) => filter.members_of("$context").is_some(),
        Template::Object(members) => members.iter().any(|(_, member)| names_context(member)),
        Template::List(items) => items.iter().any(names_context),
        Template::Constant(_) | Template::Secret(_) => false,
    }
}

/// The members of the object that an export gives.
fn gives(template: &Template) -> Option<BTreeSet<String>> {
    match template {
        Template::Object(members) => Some(members.iter().map(|(name, _)| name.clone()).collect()),
        Template::Constant(value) => Some(value.as_object()?.keys().cloned().collect()),
        Template::Expression(filter) => match &filter.sketch {
            Sketch::Object(members) => Some(members.iter().map(|(name, _)| name.clone()).collect()),
            _ => None,
        },
        Template::List(_) | Template::Secret(_) => None,
    }
}
