//! Commands that go on from another place than the end of a log: a fork, and a workflow that is
//! reopened. And what becomes of a `write` that such a workflow holds back.
//!
//! Nothing of a parent is ever written here.

use std::sync::Arc;

use foldback_core::change::Past;
use foldback_core::decide::after;
use foldback_core::state::End;
use foldback_core::text::shell_word;
use foldback_core::{
    Changes, Hash, Key, Lineage, Owed, Status, StepStatus, Stimulus, Verdict, WorkflowState,
};
use serde_json::Value;

use super::orders::{unreadable, unusable};
use super::stimuli::With;
use super::{Engine, ReplyTo};
use crate::command::{Back, Followed, Fork, Refusal};
use crate::load;

impl Engine {
    /// Begins a fork on the state of its parent at the cut.
    pub(super) fn fork(&mut self, fork: Fork, actor: &str, from: &ReplyTo) -> Result<bool, Refusal> {
        let Fork { workflow_id: id, parent, cut, mut changes, definition } = fork;
        Fork::check_id(&id, &parent)?;
        if self.live.contains_key(&id) || self.row(&id)?.is_some() || self.pruned(&id)?.is_some() {
            let hint =
                format!("`foldback show {id}` shows it; fork again for another one", id = shell_word(&id));
            let refusal = Refusal::new(format!("workflow `{id}` exists already"), hint);
            return Err(Refusal { is_taken: true, ..refusal });
        }
        let row = self.known_row(&parent)?;
        let store = self.around.store.clone();
        let state = match load::state_to_go_on(&*store, &parent, Some(cut)) {
            Ok(Some(state)) if state.version == cut && state.is_started() => state,
            Ok(_) => {
                return Err(Refusal::new(
                    format!("version {cut} of `{parent}` is out of range"),
                    format!("its log holds versions 1 to {}", row.version),
                ));
            }
            Err(error) => return Err(unreadable(&parent, &error)),
        };
        let cut_hash = load::hash_at(&*store, &parent, cut).map_err(|error| unreadable(&parent, &error))?;
        changes.past = Past { workflow: parent.clone(), after: cut, up_to: row.version };
        let program = self.followed(&id, &state.definition, definition.as_ref(), &changes)?;
        let redaction = self.around.programs.redaction().and(&program.redaction());
        let stimulus = Stimulus::Fork {
            lineage: Lineage { parent: parent.to_string(), cut, cut_hash },
            changes: Box::new(changes),
        };
        let mut state = state;
        state.workflow_id = id.clone();
        let forked = after(&state, redaction.stimulus(stimulus.clone()), state.now);
        let run = program.start(&forked);
        self.hold(&id, state, run, redaction, Status::Running);
        let with = With {
            definitions: definition.iter().map(Followed::stored).collect(),
            answer: Some(from.clone()),
        };
        if let Err(illegal) = self.say_with(&id, stimulus, actor, with) {
            self.forget(&id);
            return Err(Refusal::new(illegal.to_string(), "`foldback fork --dry-run` shows the plan"));
        }
        self.owe_from(&id, &forked);
        Ok(true)
    }

    /// Reopens a workflow: its run begins anew from the state, and what was owed before is owed again.
    pub(super) fn retry(
        &mut self,
        id: &Arc<str>,
        reason: String,
        back: Option<Box<Back>>,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let Some(live) = self.live.get(id) else {
            return Err(Refusal::unknown_workflow(id));
        };
        may_reopen(id, &live.state, back.is_some())?;
        let (again, mut definition) = (live.failures(), live.state.definition);
        let mut base = None;
        let (stimulus, followed) = match back {
            None => (Stimulus::Reopen { reason, again, back_to: None, changes: None }, None),
            Some(back) => {
                let Back { to, from, changes, definition: followed } = *back;
                let (earlier, stimulus) = self.way_back(id, reason, (to, from), changes)?;
                definition = earlier.definition;
                base = Some(earlier);
                (stimulus, followed)
            }
        };
        let changes = match &stimulus {
            Stimulus::Reopen { changes: Some(changes), .. } => (**changes).clone(),
            _ => Changes::none(Past { workflow: id.clone(), after: 0, up_to: 0 }),
        };
        let program = self.followed(id, &definition, followed.as_ref(), &changes)?;
        let redaction = self.around.programs.redaction().and(&program.redaction());
        let Some(live) = self.live.get_mut(id) else {
            return Err(Refusal::unknown_workflow(id));
        };
        // From here on nothing fails but the word itself.
        base.into_iter().for_each(|base| live.state.rewind(base));
        let reopened = after(&live.state, redaction.stimulus(stimulus.clone()), live.state.now);
        live.redaction = redaction;
        live.restart(program.start(&reopened));
        let with =
            With { definitions: followed.iter().map(Followed::stored).collect(), answer: Some(from.clone()) };
        if let Err(illegal) = self.say_with(id, stimulus, actor, with) {
            // The state may have gone back already.
            self.forget(id);
            return Err(Refusal::new(illegal.to_string(), "`foldback show` says where the workflow stands"));
        }
        self.owe_from(id, &reopened);
        Ok(true)
    }

    /// Takes over what was owed when the command was said: steps of before, and every timer as it is
    /// due now. What the turn asked for since is under way already.
    fn owe_from(&mut self, id: &Arc<str>, before: &WorkflowState) {
        let is_timer = |owed: &Owed| matches!(owed, Owed::Timer(..));
        let mut owed: Vec<Owed> = before.owes().into_iter().filter(|owed| !is_timer(owed)).collect();
        let now = self.live.get(id).map(|live| live.state.owes()).unwrap_or_default();
        owed.extend(now.into_iter().filter(is_timer));
        self.owe(id, owed);
    }

    /// The state to which a workflow that has ended goes back, and the word that reopens it there.
    fn way_back(
        &self,
        id: &Arc<str>,
        reason: String,
        (to, from): (u64, u64),
        mut changes: Changes,
    ) -> Result<(WorkflowState, Stimulus), Refusal> {
        let Some(live) = self.live.get(id) else {
            return Err(Refusal::unknown_workflow(id));
        };
        let version = live.state.version;
        if version != from || self.flying.contains_key(id) || !live.state.owes().is_empty() {
            return Err(Refusal::new(
                format!("`{id}` has moved since the plan was made: it stands at version {version}"),
                "its steps in flight have reported meanwhile; run the command again",
            ));
        }
        if live.state.lineage.as_ref().is_some_and(|lineage| to <= lineage.cut) {
            return Err(Refusal::new(
                format!("version {to} of `{id}` is its parent's past"),
                "fork the parent there instead",
            ));
        }
        let base = load::state_to_go_on(&*self.around.store, id, Some(to)).map_err(|e| unreadable(id, &e))?;
        let Some(base) = base.filter(|base| base.version == to && base.end.is_none() && to < version) else {
            return Err(Refusal::new(
                format!("`{id}` cannot go on from version {to}"),
                "name a version before the failure",
            ));
        };
        let again = base.open_in_flow();
        changes.past = Past { workflow: id.clone(), after: to, up_to: version };
        let changes = Some(Box::new(changes));
        Ok((base, Stimulus::Reopen { reason, again, back_to: Some(to), changes }))
    }

    /// The program that is followed from here on: of the definition that comes with the command, or
    /// of the one that was followed before.
    fn followed(
        &mut self,
        id: &Arc<str>,
        before: &Hash,
        with: Option<&Followed>,
        changes: &Changes,
    ) -> Result<Arc<dyn foldback_core::Program>, Refusal> {
        match (with, &changes.follows) {
            (Some(followed), Some(follows)) if followed.hash == follows.definition => {
                self.around.programs.program(&followed.stored()).map_err(unusable)
            }
            (None, None) => self.program_of(id, before),
            _ => Err(Refusal::new(
                "the command brings another definition than it names",
                "are both processes of the same version?",
            )),
        }
    }

    /// Says what becomes of a `write` that is held.
    pub(super) fn settle(
        &mut self,
        id: &Arc<str>,
        key: Key,
        (verdict, output): (Verdict, Option<Value>),
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let state = self.live.get(id).map(|live| &live.state);
        match state.and_then(|s| s.step(&key)).map(|s| s.status) {
            Some(StepStatus::Held) => {}
            Some(StepStatus::Unknown) => {
                return Err(Refusal::new(
                    format!("`{key}` was sent, and nobody knows whether it happened"),
                    "say `landed JSON` (what it answered, or null), or `didnt`",
                ));
            }
            _ => {
                return Err(Refusal::new(
                    format!("`{id}` holds no write `{key}`"),
                    format!("`foldback show {id}` says what it waits for", id = shell_word(id)),
                ));
            }
        }
        let output = match (verdict, output) {
            (Verdict::Stub, None) => {
                let store = self.around.store.clone();
                let known = self.live.get_mut(id).map(|live| live.stub_output(&key, &store));
                known.transpose().map_err(|e| Refusal::new(e.to_string(), "say it: `stub JSON`"))?.flatten()
            }
            (_, output) => output,
        };
        let reason = "said by a person".to_owned();
        let with = With { definitions: Vec::new(), answer: Some(from.clone()) };
        self.say_with(id, Stimulus::Settle { key, verdict, output, reason }, actor, with)
            .map_err(|e| Refusal::new(e.to_string(), "`foldback show` says where the workflow stands"))?;
        Ok(true)
    }
}

/// Whether a workflow may be reopened.
///
/// # Errors
/// It may not, with what goes on instead.
pub(crate) fn may_reopen(id: &str, state: &WorkflowState, goes_back: bool) -> Result<(), Refusal> {
    let has_failed = matches!(state.end, Some(End::Failed { .. } | End::Parked { .. }));
    match state.status() {
        Status::Failed | Status::Parked => Ok(()),
        Status::Compensated if has_failed && goes_back => Ok(()),
        Status::Compensated if has_failed => Err(Refusal::new(
            format!("`{id}` was taken back: what goes on from its end would build on nothing"),
            format!("`foldback retry {id}` goes back to before what was taken back", id = shell_word(id)),
        )),
        Status::Compensated => Err(Refusal::new(
            format!("`{id}` did not fail: it was ended, and taken back"),
            format!(
                "`foldback show {id}` shows where it stands; `foldback fork {id}` branches from it",
                id = shell_word(id)
            ),
        )),
        Status::Completed => Err(Refusal::new(
            format!("`{id}` has completed: there is nothing to go on with"),
            format!(
                "`foldback show {id}` shows what it did; start anew with another --id",
                id = shell_word(id)
            ),
        )),
        Status::Cancelled => Err(Refusal::new(
            format!("`{id}` was cancelled, and does not go on"),
            format!(
                "`foldback fork {id}` branches from before that; or start anew with another --id",
                id = shell_word(id)
            ),
        )),
        status @ (Status::Compensating | Status::Stuck) => Err(Refusal::new(
            format!("`{id}` is {}: what it did is not taken back whole", status.as_str()),
            format!(
                "`foldback compensate {id}` goes on with that; then it can be retried",
                id = shell_word(id)
            ),
        )),
        status @ (Status::Paused
        | Status::Running
        | Status::Waiting
        | Status::Unknown
        | Status::Quarantined) => Err(Refusal::new(
            format!("`{id}` has not failed: it is {}", status.as_str()),
            format!(
                "`foldback resume {id}` goes on with it; `foldback show {id}` says what it waits for",
                id = shell_word(id)
            ),
        )),
    }
}
