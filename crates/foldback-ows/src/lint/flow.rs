//! Tasks and cases that no way leads to.
//!
//! It follows `then`, cases and handlers through each list; conditions are not evaluated, but for
//! those that are a plain `true` or `false`.

use std::collections::BTreeSet;

use super::{Told, lists_in};
use crate::program::{Body, Case, Flow, Task, TaskList};

pub(super) fn lint(list: &TaskList, told: &mut Told<'_>) {
    tasks(list, told);
    inner(list, told);
}

fn inner(list: &TaskList, told: &mut Told<'_>) {
    for task in &list.tasks {
        if let Body::Switch(cases) = &task.body {
            switch(task, cases, told);
        }
        for inside in lists_in(task) {
            // Branches stand beside each other: each of them is reached.
            match &task.body {
                Body::Fork(_) => inner(inside, told),
                _ => lint(inside, told),
            }
        }
    }
}

/// Where it may go after a task.
fn flows(task: &Task) -> Vec<Flow> {
    let mut flows: Vec<Flow> = match &task.body {
        Body::Raise(_) => Vec::new(),
        Body::Switch(cases) => {
            let mut flows: Vec<Flow> = reached(cases).map(|case| case.then).collect();
            if !always_matches(cases) {
                flows.push(task.then);
            }
            flows
        }
        Body::Try(block) => std::iter::once(task.then).chain(block.then).collect(),
        Body::Do(_)
        | Body::For(_)
        | Body::Fork(_)
        | Body::Set(_)
        | Body::Wait(_)
        | Body::Emit(_)
        | Body::Listen(_)
        | Body::Step(_) => {
            vec![task.then]
        }
    };
    if task.condition.is_some() {
        flows.push(Flow::Continue);
    }
    flows
}

/// The index that a flow leads to; none where it leads out of the list.
fn target(list: &TaskList, index: usize, flow: Flow) -> Option<usize> {
    let to = match flow {
        Flow::Continue => index + 1,
        Flow::To(to) => to,
        Flow::Exit | Flow::End => return None,
    };
    (to < list.tasks.len()).then_some(to)
}

/// Indices to which it may go after the task of this index.
pub(super) fn after(list: &TaskList, index: usize) -> BTreeSet<usize> {
    flows(&list.tasks[index]).into_iter().filter_map(|flow| target(list, index, flow)).collect()
}

/// Whether it may go out of the list after the task of this index.
pub(super) fn leaves(list: &TaskList, index: usize) -> bool {
    flows(&list.tasks[index]).into_iter().any(|flow| target(list, index, flow).is_none())
}

/// The tasks that some way from the task of this index leads to.
pub(super) fn reachable(list: &TaskList, from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut open = vec![from];
    while let Some(index) = open.pop() {
        open.extend(after(list, index).into_iter().filter(|to| found.insert(*to)));
    }
    found
}

fn tasks(list: &TaskList, told: &mut Told<'_>) {
    let mut reached = reachable(list, 0);
    reached.insert(0);
    let mut before_is_reached = true;
    for (index, task) in list.tasks.iter().enumerate() {
        let is_reached = reached.contains(&index);
        // Of several in a row the first says it all.
        if !is_reached && before_is_reached {
            let before = &list.tasks[index - 1].name;
            told.at(
                task,
                &[],
                format!(
                    "`{}` is never reached: `{before}` always goes elsewhere, and nothing leads here",
                    task.name
                ),
                format!("lead to it with then: {}, or leave it out", task.name),
            );
        }
        before_is_reached = is_reached;
    }
}

fn is_constant(case: &Case, words: &[&str]) -> bool {
    case.when.is_some() && words.contains(&case.when_text.as_str())
}

/// The cases that may be chosen.
fn reached(cases: &[Case]) -> impl Iterator<Item = &Case> {
    let end = cases.iter().position(|case| is_constant(case, &["true"]));
    let cases = cases.iter().enumerate().filter(move |(i, case)| match end {
        Some(end) => *i <= end && case.when.is_some(),
        None => true,
    });
    cases.map(|(_, case)| case).filter(|case| !is_constant(case, &["false", "null"]))
}

fn always_matches(cases: &[Case]) -> bool {
    cases.iter().any(|case| case.when.is_none() || is_constant(case, &["true"]))
}

fn switch(task: &Task, cases: &[Case], told: &mut Told<'_>) {
    let always = cases.iter().position(|case| is_constant(case, &["true"]));
    for (i, case) in cases.iter().enumerate() {
        let same = cases[..i].iter().find(|before| case.when.is_some() && before.when_text == case.when_text);
        let (why, hint) = match (always, same) {
            (Some(always), _) if always < i || (case.when.is_none() && always != i) => (
                format!("`{}` before it always holds", cases[always].name),
                "give that one a condition, or leave `when` out of it: then it is the default".to_owned(),
            ),
            _ if is_constant(case, &["false", "null"]) => {
                ("its condition never holds".to_owned(), "leave the case out".to_owned())
            }
            (_, Some(before)) => (
                format!("`{}` before it has the same condition", before.name),
                "change one of the two conditions".to_owned(),
            ),
            (_, None) => continue,
        };
        let place = format!("/switch/{i}/{}", case.name.replace('~', "~0").replace('/', "~1"));
        told.at(task, &[&place], format!("the case `{}` is never reached: {why}", case.name), hint);
    }
}
