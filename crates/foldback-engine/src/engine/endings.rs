//! Ending a workflow from outside, and taking back what it did.

use std::sync::Arc;

use foldback_core::{Owed, Status, Stimulus, Version};

use super::stimuli::With;
use super::{Engine, ReplyTo};
use crate::command::Refusal;

impl Engine {
    /// Ends a workflow by a person's word.
    pub(super) fn cancel(
        &mut self,
        id: &Arc<str>,
        reason: String,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let status = self.live.get(id).map(|live| live.state.status());
        let has_ended = self.live.get(id).is_some_and(|live| live.state.end.is_some());
        if let (Some(status), true) = (status, has_ended) {
            let hint = match status {
                Status::Completed | Status::Failed => {
                    format!("`foldback compensate {id}` takes back what it did")
                }
                _ => format!("`foldback show {id}` says where it stands"),
            };
            return Err(Refusal::new(format!("`{id}` has ended already: it is {}", status.as_str()), hint));
        }
        self.say_or_refuse(id, Stimulus::Cancel { reason }, actor, from)
    }

    /// Takes back what a workflow did that has ended.
    pub(super) fn compensate(
        &mut self,
        id: &Arc<str>,
        reason: String,
        (from_version, down_to): (Option<Version>, Option<Version>),
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let Some(live) = self.live.get(id) else {
            return Err(Refusal::unknown_workflow(id));
        };
        let state = &live.state;
        if state.end.is_none() {
            return Err(Refusal::new(
                format!("`{id}` has not ended: it is {}", state.status().as_str()),
                format!("`foldback cancel {id}` ends it and takes back what it did"),
            ));
        }
        // Whoever asks twice for what is under way waits for it.
        if state.is_compensating() && state.stuck().is_none() {
            return Ok(false);
        }
        if state.newest_undo.is_none() {
            return Err(Refusal::new(
                format!("nothing that `{id}` did can be taken back"),
                format!("`foldback show {id}` lists what it did, and what became of it"),
            ));
        }
        let again = live.failed_undos();
        let stimulus = Stimulus::Compensate { reason, from: from_version, down_to, again };
        self.say_or_refuse(id, stimulus, actor, from)
    }

    fn say_or_refuse(
        &mut self,
        id: &Arc<str>,
        stimulus: Stimulus,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        let with = With { definitions: Vec::new(), answer: Some(from.clone()) };
        self.say_with(id, stimulus, actor, with)
            .map_err(|e| Refusal::new(e.to_string(), "`foldback show` says where the workflow stands"))?;
        Ok(true)
    }

    /// Compensations that go on now that all before them is on disk.
    pub(super) fn owe_undos(&mut self, id: &Arc<str>) {
        let Some(live) = self.live.get(id).filter(|live| !live.state.compensations.is_empty()) else {
            return;
        };
        let owed = live.state.owes().into_iter().filter(|owed| matches!(owed, Owed::Undo(_)));
        self.pending.extend(owed.map(|owed| (id.clone(), owed)));
    }
}
