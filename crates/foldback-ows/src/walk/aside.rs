//! Tasks beside the flow: what takes a step back, and what finds out whether one happened. They are
//! walked as any list is, in a scope of their own that sees nothing of the flow but what was recorded
//! for them.

use std::sync::Arc;

use foldback_core::event::UndoStarted;
use foldback_core::{Ask, EntryBody, Key, Slot, Step, Turn, Undo, WorkflowState, step};
use serde_json::{Value, json};

use super::scribe::Sight;
use super::{Fault, Scope, Walked, Walker, WalkingRun};
use crate::program::{ON_COMPENSATE, StepUndo, Task, TaskList};
use crate::read::given;

impl WalkingRun {
    /// A turn of tasks beside the flow.
    pub(super) fn beside(&self, state: &WorkflowState, walk: impl FnOnce(&mut Walker<'_>) -> Walked) -> Turn {
        let mut walker = Walker::new(&self.definition, state);
        match walk(&mut walker) {
            Walked::Busy if walker.asks.is_empty() => Turn::Waits,
            Walked::Busy => Turn::Asks(walker.asks),
            Walked::Done(data) | Walked::End(data) => Turn::Ends(Ok((*data).clone())),
            Walked::Failed(fault) => Turn::Ends(Err(*fault.failure)),
            Walked::Lost(divergence) => Turn::Diverged(*divergence),
        }
    }
}

impl Walker<'_> {
    pub(super) fn undo(&mut self, undo: &UndoStarted, list: &TaskList) -> Walked {
        let open = |slot: &Option<Slot>| slot.as_ref().map(|slot| (*slot.get()).clone()).unwrap_or_default();
        let (name, recorded) = match undo.handler.strip_prefix(ON_COMPENSATE) {
            // What `emit` recorded is the whole event; what a caller did, its data.
            Some(event_type) => match open(&undo.undo) {
                event if event.get("specversion").is_some() => ("$event", event),
                data => ("$event", json!({"type": event_type, "data": data})),
            },
            None => {
                let mut recorded = json!({"key": undo.key, "output": open(&undo.output)});
                if let (Value::Object(recorded), Value::Object(given)) = (&mut recorded, open(&undo.undo)) {
                    recorded.extend(given);
                }
                ("$write", recorded)
            }
        };
        self.aside(undo.key.undo(), name, recorded, list)
    }

    pub(super) fn reconcile(&mut self, key: &Key, step: &Step, list: &TaskList) -> Walked {
        let id = &self.state.workflow_id;
        let mut recorded = json!({
            "key": key,
            "request": step.request.to_json(),
            "idempotency_key": step::idempotency_key(id, key, &step.request_hash, step.generation),
        });
        if let (Value::Object(recorded), Some(input)) = (&mut recorded, &step.given) {
            recorded.insert("input".into(), (*input.get()).clone());
        }
        self.aside(key.reconcile(), "$write", recorded, list)
    }

    fn aside(&mut self, key: Key, name: &str, recorded: Value, list: &TaskList) -> Walked {
        let input = Arc::new(recorded);
        let variables = vec![(name, input.clone())];
        self.list(&Scope { key, list, input, around: None, variables })
    }

    /// What takes a step back, as it is asked for.
    pub(super) fn undo_ask(
        &self,
        task: &Task,
        key: &Key,
        undo: &StepUndo,
        input: &Arc<Value>,
        scope: &Scope<'_>,
    ) -> Result<Undo, String> {
        match undo {
            StepUndo::Irreversible(why) => Ok(Undo::Irreversible(why.clone())),
            StepUndo::Tasks { with, .. } => {
                let sight = Sight::of_task(task, key, scope, input);
                let with = with.as_ref().map(|with| self.eval(with, input, &sight)).transpose()?;
                let given = Slot::of(given(input, with));
                Ok(Undo::By { handler: task.pointer.clone(), given })
            }
        }
    }

    /// What the block did is taken back before its handler begins. `None` once that is over.
    pub(super) fn taken_back(&mut self, block: &Key, because: &str) -> Option<Walked> {
        match self.body(&block.mark("compensation")) {
            Some(EntryBody::Finished { .. }) => None,
            Some(_) => {
                let failed = self.state.compensations.get(block).and_then(|c| c.failed.clone());
                Some(match failed {
                    Some(failure) => Walked::Failed(Fault { failure: Box::new(failure), is_recorded: true }),
                    None => Walked::Busy,
                })
            }
            None => Some(self.ask(Ask::Compensate { scope: block.clone(), because: because.to_owned() })),
        }
    }
}
