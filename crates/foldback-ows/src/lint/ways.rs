//! Ways through a list of tasks: which task may come after which, where a way leads out, and which tasks
//! lead to each other. All of it in time linear in the tasks and their ways.

use crate::program::{Body, Case, Flow, Task, TaskList};

/// The ways through one list.
pub(super) struct Ways {
    /// By index: the tasks that may come next.
    pub after: Vec<Vec<usize>>,
    /// By index: whether a way leads out of the list.
    pub leaves: Vec<bool>,
    /// Tasks that lead to each other stand in one group; a group stands before those that it leads to.
    pub groups: Vec<Vec<usize>>,
}

impl Ways {
    pub fn of(list: &TaskList) -> Ways {
        let (mut after, mut leaves) = (Vec::new(), Vec::new());
        for (index, task) in list.tasks.iter().enumerate() {
            let targets = flows(task).into_iter().map(|flow| target(list, index, flow));
            let targets: Vec<Option<usize>> = targets.collect();
            leaves.push(targets.contains(&None));
            let mut targets: Vec<usize> = targets.into_iter().flatten().collect();
            targets.sort_unstable();
            targets.dedup();
            after.push(targets);
        }
        let groups = groups(&after);
        Ways { after, leaves, groups }
    }

    /// By index: whether some way leads there from the first task.
    pub fn reached(&self) -> Vec<bool> {
        let mut reached = vec![false; self.after.len()];
        let mut open = vec![0];
        while let Some(index) = open.pop() {
            if !std::mem::replace(&mut reached[index], true) {
                open.extend(&self.after[index]);
            }
        }
        reached
    }

    /// Whether each way leads on to a later task.
    pub fn leads_on_only(&self) -> bool {
        self.after.iter().enumerate().all(|(index, after)| after.iter().all(|to| *to > index))
    }

    /// Whether the tasks of a group may come again.
    pub fn goes_round(&self, group: &[usize]) -> bool {
        match group {
            [index] => self.after[*index].contains(index),
            group => group.len() > 1,
        }
    }
}

/// Where it may go after a task.
fn flows(task: &Task) -> Vec<Flow> {
    let mut flows: Vec<Flow> = match &task.body {
        Body::Raise(_) => Vec::new(),
        Body::Switch(cases) => {
            let mut flows: Vec<Flow> = reached_cases(cases).map(|case| case.then).collect();
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

pub(super) fn is_constant(case: &Case, words: &[&str]) -> bool {
    case.when.is_some() && words.contains(&case.when_text.as_str())
}

/// The cases that may be chosen.
fn reached_cases(cases: &[Case]) -> impl Iterator<Item = &Case> {
    let end = cases.iter().position(|case| is_constant(case, &["true"]));
    let cases = cases.iter().enumerate().filter(move |(i, case)| match end {
        Some(end) => *i <= end && case.when.is_some(),
        None => true,
    });
    cases.map(|(_, case)| case).filter(|case| !is_constant(case, &["false", "null"]))
}

pub(super) fn always_matches(cases: &[Case]) -> bool {
    cases.iter().any(|case| case.when.is_none() || is_constant(case, &["true"]))
}

/// Tarjan's algorithm, without recursion: a list may be as long as a definition.
fn groups(after: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let mut number = vec![NEW; after.len()];
    let mut low = vec![NEW; after.len()];
    let mut is_open = vec![false; after.len()];
    let (mut next, mut open, mut groups) = (0, Vec::new(), Vec::new());
    for root in 0..after.len() {
        if number[root] != NEW {
            continue;
        }
        // A task, and how many of its ways were followed.
        let mut path = vec![(root, 0)];
        while let Some((index, followed)) = path.pop() {
            if followed == 0 {
                (number[index], low[index], is_open[index]) = (next, next, true);
                next += 1;
                open.push(index);
            } else {
                let behind = after[index][followed - 1];
                if is_open[behind] {
                    low[index] = low[index].min(low[behind]);
                }
            }
            if let Some(to) = after[index].get(followed) {
                path.push((index, followed + 1));
                if number[*to] == NEW {
                    path.push((*to, 0));
                }
                continue;
            }
            if low[index] == number[index] {
                let at = open.iter().rposition(|other| *other == index).unwrap_or(0);
                let mut group = open.split_off(at);
                group.iter().for_each(|member| is_open[*member] = false);
                group.sort_unstable();
                groups.push(group);
            }
        }
    }
    groups.reverse();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_lead_to_each_other_are_one_group() {
        let after = vec![vec![1], vec![2, 3], vec![1], vec![4], vec![5], vec![4, 6], vec![], vec![7]];
        let found = groups(&after);
        assert_eq!(found, [vec![7], vec![0], vec![1, 2], vec![3], vec![4, 5], vec![6]]);
    }

    #[test]
    fn a_long_way_back_needs_no_deep_stack() {
        let last = 200_000;
        let mut after: Vec<Vec<usize>> = (1..=last).map(|next| vec![next]).collect();
        after.push(vec![0]);
        assert_eq!(groups(&after).len(), 1);
    }
}
