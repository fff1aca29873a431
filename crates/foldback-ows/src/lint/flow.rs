//! Tasks and cases that no way leads to, loops that no way leads out of, and a switch that falls into the
//! task of one of its cases.
//!
//! It follows `then`, cases and handlers through each list; conditions are not evaluated, but for
//! those that are a plain `true` or `false`.

use std::collections::HashMap;

use foldback_core::limits;

use super::ways::{Ways, always_matches, is_constant};
use super::{Told, each_task, lists_in};
use crate::program::{Body, Case, Delay, Flow, Task, TaskList, TryTask};

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

fn tasks(list: &TaskList, told: &mut Told<'_>) {
    let ways = Ways::of(list);
    ways.groups.iter().filter(|group| ways.goes_round(group)).for_each(|g| circle(list, &ways, g, told));
    let mut before_is_reached = true;
    for (index, (task, is_reached)) in list.tasks.iter().zip(ways.reached()).enumerate() {
        if let (Body::Switch(cases), Some(next)) = (&task.body, list.tasks.get(index + 1)) {
            falls_through(task, cases, (index + 1, next), told);
        }
        if let Body::Try(block) = &task.body {
            tries(task, block, told);
        }
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

/// Tasks that lead to each other for ever, and never let the world speak.
fn circle(list: &TaskList, ways: &Ways, group: &[usize], told: &mut Told<'_>) {
    let leads_out = |index: &usize| {
        ways.leaves[*index] || ways.after[*index].iter().any(|to| group.binary_search(to).is_err())
    };
    if group.iter().any(|index| leads_out(index) || !is_instant(&list.tasks[*index])) {
        return;
    }
    let leads_back = |index: &&usize| ways.after[**index].iter().any(|to| to <= *index);
    let Some(last) = group.iter().rfind(leads_back) else { return };
    let first = &list.tasks[group[0]].name;
    told.at(
        &list.tasks[*last],
        &["/then"],
        format!(
            "this leads back to `{first}` again and again: no way leads out, and no step or wait stands between; \
             past {} rounds it fails with an error of type `runaway`",
            limits::JUMPS_MAX
        ),
        "put a wait or a step into the loop, or a `switch` with a case that leads out of it",
    );
}

/// Whether a task ends in the turn in which it begins, and leads nowhere but on.
fn is_instant(task: &Task) -> bool {
    match &task.body {
        Body::Set(_) | Body::Switch(_) | Body::Emit(_) => true,
        Body::Do(_) | Body::For(_) | Body::Fork(_) | Body::Try(_) => {
            let inside = || lists_in(task).into_iter().flat_map(|list| &list.tasks);
            inside().all(|task| is_instant(task) && !ends_all(task))
        }
        Body::Raise(_) | Body::Wait(_) | Body::Listen(_) | Body::Step(_) => false,
    }
}

fn ends_all(task: &Task) -> bool {
    let cases = match &task.body {
        Body::Switch(cases) => cases.as_slice(),
        _ => &[],
    };
    task.then == Flow::End || cases.iter().any(|case| case.then == Flow::End)
}

/// A block that fails again in the same way, is tried again at once, and has no bound.
fn tries(task: &Task, block: &TryTask, told: &mut Told<'_>) {
    let Some(retry) = &block.retry else { return };
    let has_delay =
        !matches!(retry.delay, None | Some(Delay::Ms(0))) || retry.jitter.is_some_and(|(_, to)| to > 0);
    let is_bounded = retry.count.is_some()
        || [&retry.when, &retry.except_when, &block.when, &block.except_when].iter().any(|w| w.is_some());
    let mut is_the_same = true;
    each_task(&block.body, &mut |task| {
        is_the_same &= (is_instant(task)
            || !matches!(task.body, Body::Wait(_) | Body::Listen(_) | Body::Step(_)))
            && task.export.is_none();
    });
    if has_delay || is_bounded || !is_the_same {
        return;
    }
    told.at(
        task,
        &["/catch/retry"],
        format!(
            "`{}` is tried again at once and without a limit, and nothing in it waits: what failed fails again, and past \
             {} tries it fails with an error of type `runaway`",
            task.name,
            limits::JUMPS_MAX
        ),
        "write limit: { attempt: { count: 3 } }, and a delay: { seconds: 1 } where waiting may help",
    );
}

/// A switch without a case that always holds goes on with the next task, which is another case's.
fn falls_through(task: &Task, cases: &[Case], (index, next): (usize, &Task), told: &mut Told<'_>) {
    let Some(case) = cases.iter().find(|case| case.then == Flow::To(index)) else { return };
    if always_matches(cases) || task.then != Flow::Continue {
        return;
    }
    told.at(
        task,
        &["/switch"],
        format!(
            "where no case holds, `{}` goes on with `{}` all the same: it is the next task, and the one that the case \
             `{}` leads to",
            task.name, next.name, case.name
        ),
        "add a default, a case without `when`: - otherwise: { then: … } (a task, or continue, exit, end)",
    );
}

fn switch(task: &Task, cases: &[Case], told: &mut Told<'_>) {
    let always = cases.iter().position(|case| is_constant(case, &["true"]));
    let mut known: HashMap<&str, &Case> = HashMap::new();
    for (i, case) in cases.iter().enumerate() {
        let same = case.when.as_ref().and_then(|_| known.get(case.when_text.as_str()).copied());
        if case.when.is_some() {
            known.entry(&case.when_text).or_insert(case);
        }
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
