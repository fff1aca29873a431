//! Forks, and workflows that go back, in a rehearsal: outcomes are taken from logs in memory, by the
//! rule by which the engine takes them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use super::{AT_ONCE, Rehearsal, Stage, World, go_on};
use crate::change::{Changes, Past};
use crate::event::{Event, Lineage, Verdict};
use crate::hash::Hash;
use crate::program::Program;
use crate::reuse::{Asked, Outcome, Outcomes, Recorded, word};
use crate::state::{StepStatus, WorkflowState};
use crate::{Key, Micros, Stimulus, Version};

/// What a person says of a write that is held; `None` if nobody comes.
pub type Person<'a> = &'a dyn Fn(&Key) -> Option<Verdict>;

/// Logs by the id of their workflow, each from version 1 on.
#[derive(Clone, Debug, Default)]
pub struct Logs(pub BTreeMap<Arc<str>, Vec<Event>>);

impl Logs {
    fn of(&self, workflow: &str) -> &[Event] {
        self.0.get(workflow).map_or(&[], Vec::as_slice)
    }

    fn outcomes(&self, past: &Past) -> Outcomes {
        let log = self.of(&past.workflow);
        let cut = log.partition_point(|event| event.version <= past.after);
        let mut outcomes = Outcomes::behind(&WorkflowState::folded(&past.workflow, &log[..cut]));
        let behind = log[cut..].iter().take_while(|event| event.version <= past.up_to);
        behind.for_each(|event| outcomes.see(event));
        outcomes
    }
}

impl Recorded for &Logs {
    type Error = Infallible;

    fn asked(&mut self, state: &WorkflowState, key: &Key) -> Result<Vec<Vec<Asked>>, Infallible> {
        let pasts = state.rules.iter().flat_map(|rules| &rules.pasts);
        Ok(pasts.map(|past| self.outcomes(past).of(key).to_vec()).collect())
    }

    fn writes(&mut self, state: &WorkflowState) -> Result<Vec<Key>, Infallible> {
        let newest = state.rules.as_ref().and_then(|rules| rules.pasts.first());
        Ok(newest.map(|past| self.outcomes(past).writes().cloned().collect()).unwrap_or_default())
    }

    fn outcome(
        &mut self,
        state: &WorkflowState,
        past: usize,
        version: Version,
    ) -> Result<Option<Outcome>, Infallible> {
        let past = state.rules.as_ref().and_then(|rules| rules.pasts.get(past));
        let found = past.and_then(|past| {
            let event = self.of(&past.workflow).iter().find(|event| event.version == version)?;
            Outcome::of(&past.workflow, event)
        });
        Ok(found)
    }
}

/// The word to a step that is asked for.
pub(super) fn word_to(state: &WorkflowState, key: Key, stage: Stage<'_>) -> Stimulus {
    let Some(mut logs) = stage.logs else { return Stimulus::Begin { key } };
    match word(state, &key, &mut logs) {
        Ok(stimulus) => stimulus,
        Err(never) => match never {},
    }
}

/// What a person says, where nothing else moves the workflow.
pub(super) fn settled(state: &WorkflowState, stage: Stage<'_>) -> Option<(Stimulus, Micros)> {
    let is_held = |key: &&Key| state.step(key).is_some_and(|step| step.status == StepStatus::Held);
    let key = state.open.iter().find(is_held)?.clone();
    let verdict = (stage.person)(&key)?;
    Some((Stimulus::Settle { key, verdict, output: None, reason: "said".into() }, state.now))
}

/// Forks a workflow of `logs` at a version, and lets the fork run to its end.
///
/// # Panics
/// When there is no such workflow, or its program asks for what the law forbids.
pub fn fork(
    program: &dyn Program,
    logs: &Logs,
    (parent, cut, id): (&str, Version, &str),
    changes: Changes,
    world: World<'_>,
    person: Person<'_>,
) -> Rehearsal {
    let log = logs.of(parent);
    let shared = log[..log.partition_point(|event| event.version <= cut)].to_vec();
    let mut state = WorkflowState::fold(parent, &shared).expect("the log obeys the law");
    state.workflow_id = Arc::from(id);
    let lineage = Lineage { parent: parent.into(), cut, cut_hash: Hash::of_bytes(b"cut") };
    let past = Past { workflow: parent.into(), after: cut, up_to: log.len() as Version };
    let first = Stimulus::Fork { lineage, changes: Box::new(Changes { past, ..changes }) };
    let stage = Stage { logs: Some(logs), person, ..Stage::of(world, AT_ONCE) };
    go_on(program, shared, state, first, stage)
}

/// Reopens a workflow that failed, at an earlier version, and lets it run to its end.
///
/// # Panics
/// As [`fork`].
pub fn go_back(
    program: &dyn Program,
    logs: &Logs,
    (id, to): (&str, Version),
    changes: Changes,
    world: World<'_>,
    person: Person<'_>,
) -> Rehearsal {
    let log = logs.of(id).to_vec();
    let mut state = WorkflowState::fold(id, &log).expect("the log obeys the law");
    let base = WorkflowState::fold(id, &log[..log.partition_point(|event| event.version <= to)]);
    let base = base.expect("the log obeys the law");
    let past = Past { workflow: id.into(), after: to, up_to: state.version };
    let again = base.open_in_flow();
    state.rewind(base);
    let changes = Some(Box::new(Changes { past, ..changes }));
    let first = Stimulus::Reopen { reason: "mended".into(), again, back_to: Some(to), changes };
    let stage = Stage { logs: Some(logs), person, ..Stage::of(world, AT_ONCE) };
    go_on(program, log, state, first, stage)
}

/// Folds a log of such a workflow and goes on from it, as a process does that finds it after a crash.
///
/// # Panics
/// As [`fork`].
pub fn resume_branch(
    program: &dyn Program,
    logs: &Logs,
    (id, events): (&str, &[Event]),
    world: World<'_>,
    person: Person<'_>,
) -> Rehearsal {
    let state = WorkflowState::fold(id, events).expect("the log obeys the law");
    let stage = Stage { logs: Some(logs), person, ..Stage::of(world, AT_ONCE) };
    go_on(program, events.to_vec(), state, Stimulus::Continue, stage)
}
