//! Who hears what a workflow records: what rides in the commit of an event, so that the event and its
//! delivery are one fact on disk.
//!
//! It never looks for those who listen elsewhere: they are found where the commit is written.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldback_core::{Event, Fact, Slot, WorkflowState};
use foldback_store::{Commit, Emit};

use crate::command::Command;

/// What a workflow in memory listens for, as far as its last batch.
pub(crate) struct Ears {
    names: Vec<Arc<str>>,
    /// Whether the store is known to say the same.
    is_told: bool,
}

impl Ears {
    /// Of a workflow that was just brought into memory. A fork listens for what its parent listened for
    /// at the cut, and the store does not know it yet.
    pub fn of(state: &WorkflowState) -> Ears {
        let names = state.listens_for();
        Ears { is_told: names.is_empty(), names }
    }

    /// Puts into the commit of these events whom they are handed to, and what is listened for behind them.
    pub fn ride(&mut self, state: &WorkflowState, events: &[Event], commit: &mut Commit) {
        // Whoever listens by the store's rows is found there. These are the workflow's own that are not in
        // them: of a fork, which speaks to nobody but itself, all of them.
        let is_fork = state.lineage.is_some();
        let mut own: BTreeSet<Arc<str>> = BTreeSet::new();
        if is_fork || !self.is_told {
            own.extend(self.names.iter().cloned());
        }
        for event in events {
            if let Fact::ListenStarted { names, .. } = &event.fact {
                own.extend(names.iter().cloned());
            }
            let Fact::Recorded { event_type, key: Some(_), data, .. } = &event.fact else { continue };
            let emit = emit(state, event, event_type, data);
            if own.contains(event_type) {
                commit.sends.push(emit.to(&state.workflow_id, commit.shard));
            }
            if !is_fork {
                commit.emits.push(emit);
            }
        }
        let names = state.listens_for();
        if names != self.names || !self.is_told {
            commit.listens.push((state.workflow_id.clone(), names.clone()));
            *self = Ears { names, is_told: true };
        }
    }
}

fn emit(state: &WorkflowState, event: &Event, name: &Arc<str>, data: &Slot) -> Emit {
    let id = &state.workflow_id;
    // To whom it goes is added for each of them.
    let command = Command::Event {
        workflow_id: Arc::from(""),
        name: name.clone(),
        data: data.clone(),
        source: id.clone(),
    };
    Emit {
        name: name.clone(),
        id: event.id.to_string(),
        actor: format!("workflow:{id}"),
        body: serde_json::to_value(command).expect("a command has a JSON text"),
    }
}
