//! Exports that replace the context: what an export before them put there is gone.
//!
//! What may come before a task is passed on along the ways of its list, joined where ways meet, so the
//! work is linear in the tasks.

use std::collections::{BTreeMap, BTreeSet};

use super::ways::Ways;
use super::{Told, lists_in};
use crate::jq::Sketch;
use crate::program::{Body, Task, TaskList};
use crate::template::Template;

/// Names of members that are followed. Further ones are lost unnoticed: a warning is missing, none is wrong.
const NAMES_MAX: usize = 64;

/// An export: its place among all, by which the first is found, and the task that makes it.
#[derive(Clone, Copy)]
struct Export<'d> {
    number: usize,
    task: &'d Task,
}

/// What exports may have put into the context.
#[derive(Clone, Default)]
struct Exported<'d> {
    /// The first export of each member.
    members: BTreeMap<String, Export<'d>>,
    /// The first export of which nobody knows what it gives.
    unknown: Option<Export<'d>>,
}

impl<'d> Exported<'d> {
    fn join(&mut self, other: &Exported<'d>) {
        other.members.iter().for_each(|(name, export)| self.give(name, *export));
        self.unknown = self.unknown.into_iter().chain(other.unknown).min_by_key(|export| export.number);
    }

    fn give(&mut self, name: &str, export: Export<'d>) {
        match self.members.get_mut(name) {
            Some(known) if known.number <= export.number => {}
            Some(known) => *known = export,
            None => {
                if self.members.len() < NAMES_MAX {
                    self.members.insert(name.to_owned(), export);
                }
            }
        }
    }
}

/// The exports of a definition, numbered in their order.
#[derive(Default)]
struct Exports<'d> {
    /// By the address of a task: what it exports, with all inside it.
    all_of: BTreeMap<usize, Exported<'d>>,
    count: usize,
}

impl<'d> Exports<'d> {
    fn gather(&mut self, list: &'d TaskList) -> Exported<'d> {
        let mut all = Exported::default();
        for task in &list.tasks {
            let mut own = Exported::default();
            self.count += 1;
            let export = Export { number: self.count, task };
            match task.export.as_ref().map(gives) {
                Some(Some(names)) => names.iter().for_each(|name| own.give(name, export)),
                Some(None) => own.unknown = Some(export),
                None => {}
            }
            for inside in lists_in(task) {
                let inside = self.gather(inside);
                own.join(&inside);
            }
            all.join(&own);
            self.all_of.insert(address(task), own);
        }
        all
    }

    fn of(&self, task: &Task) -> &Exported<'d> {
        static NONE: Exported<'static> = Exported { members: BTreeMap::new(), unknown: None };
        self.all_of.get(&address(task)).unwrap_or(&NONE)
    }

    fn of_list(&self, list: &TaskList) -> Exported<'d> {
        let mut all = Exported::default();
        list.tasks.iter().for_each(|task| all.join(self.of(task)));
        all
    }
}

fn address(task: &Task) -> usize {
    std::ptr::from_ref(task).addr()
}

pub(super) fn lint(list: &TaskList, told: &mut Told<'_>) {
    let mut exports = Exports::default();
    let all = exports.gather(list);
    if all.members.is_empty() && all.unknown.is_none() {
        return;
    }
    tasks(list, &Exported::default(), false, &exports, told);
}

/// `before`: what may be exported before this list. `is_loop`: whether the list runs again.
fn tasks<'d>(
    list: &'d TaskList,
    before: &Exported<'d>,
    is_loop: bool,
    exports: &Exports<'d>,
    told: &mut Told<'_>,
) {
    let ways = Ways::of(list);
    let mut first = before.clone();
    if is_loop {
        first.join(&exports.of_list(list));
    }
    let mut reaching: Vec<Exported<'d>> = vec![first; list.tasks.len()];
    for group in &ways.groups {
        if ways.goes_round(group) {
            let mut all = Exported::default();
            for index in group {
                all.join(&reaching[*index]);
                all.join(exports.of(&list.tasks[*index]));
            }
            group.iter().for_each(|index| reaching[*index].clone_from(&all));
        }
        for index in group {
            let mut out = reaching[*index].clone();
            out.join(exports.of(&list.tasks[*index]));
            ways.after[*index].iter().for_each(|to| reaching[*to].join(&out));
        }
    }
    for (task, mut here) in list.tasks.iter().zip(reaching) {
        let lists = lists_in(task);
        let runs_again = matches!(task.body, Body::Fork(_) | Body::For(_));
        for inside in &lists {
            let mut around = here.clone();
            if matches!(task.body, Body::Try(_)) {
                let others = lists.iter().filter(|list| !std::ptr::eq(**list, *inside));
                others.for_each(|list| around.join(&exports.of_list(list)));
            }
            tasks(inside, &around, runs_again, exports, told);
        }
        lists.into_iter().for_each(|list| here.join(&exports.of_list(list)));
        judge(task, &here, told);
    }
}

fn judge(task: &Task, before: &Exported<'_>, told: &mut Told<'_>) {
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
    let lost = || before.members.iter().filter(|(name, _)| !kept.contains(*name));
    let first = lost().map(|(_, export)| export).chain(&before.unknown).min_by_key(|export| export.number);
    let Some(first) = first else { return };
    let is_unknown = before.unknown.is_some_and(|unknown| unknown.number == first.number);
    let names: Vec<String> = match is_unknown {
        true => vec!["what".to_owned()],
        false => {
            let of_first = lost().filter(|(_, export)| export.number == first.number);
            of_first.map(|(name, _)| format!("`{name}`")).collect()
        }
    };
    told.at(
        task,
        &["/export/as", "/export"],
        format!(
            "this export replaces the whole context: {}{} `{}` exported is gone",
            names.join(", "),
            if is_unknown { "" } else { " that" },
            first.task.name
        ),
        "keep what is there: as: '${ $context + { … } }'",
    );
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
