//! Ending a workflow from outside, and taking back what it did.

use std::sync::Arc;

use foldback_core::event::{ENGINE_TYPES, Raised};
use foldback_core::listen::Heed;
use foldback_core::text::shell_word;
use foldback_core::value::is_too_deep;
use foldback_core::{EventId, Owed, Status, Stimulus, Version, WorkflowState, limits};
use foldback_store::Commit;

use super::orders::unreadable;
use super::stimuli::With;
use super::{Engine, ReplyTo};
use crate::command::{Accepted, Answer, Refusal};
use crate::load;

/// Where a signal is that was sent before.
enum Delivered {
    /// On its way to the log.
    UnderWay,
    /// In the log, at this version.
    At(Version),
}

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
        let state = self.live.get(id).map(|live| &live.state);
        if let Some(state) = state.filter(|state| state.end.is_some()) {
            return Err(ended(id, state.status(), state.newest_undo.is_some()));
        }
        let held_back = state.map(WorkflowState::owes_once_unpaused).unwrap_or_default();
        self.say_or_refuse(id, Stimulus::Cancel { reason }, actor, from)?;
        // With the pause ends what it held back: of a write that was lost in it is found out.
        let owed = self.live.get(id).map(|live| live.state.owes()).unwrap_or_default();
        self.owe(id, held_back.into_iter().filter(|held| owed.contains(held)).collect());
        Ok(true)
    }

    /// Lets nothing more begin.
    pub(super) fn pause(
        &mut self,
        id: &Arc<str>,
        reason: String,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let state = self.live.get(id).map(|live| &live.state);
        if state.is_some_and(|state| state.end.is_some()) {
            let status = state.as_ref().map_or(Status::Running, |state| state.status());
            let can_undo = state.is_some_and(|state| state.newest_undo.is_some());
            return Err(ended(id, status, can_undo));
        }
        if state.is_some_and(|state| state.pause.is_some()) {
            return Ok(false);
        }
        self.say_or_refuse(id, Stimulus::Pause { reason }, actor, from)
    }

    /// Lets a paused workflow go on, with budgets that are raised.
    pub(super) fn unpause(
        &mut self,
        id: &Arc<str>,
        reason: String,
        raised: Vec<Raised>,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let Some(live) = self.live.get(id) else {
            return Err(Refusal::unknown_workflow(id));
        };
        let Some(pause) = &live.state.pause else {
            return Err(Refusal::new(
                format!("`{id}` is not paused: it is {}", live.state.status().as_str()),
                format!("`foldback show {id}` says where it stands", id = shell_word(id)),
            ));
        };
        if let Some((scope, measure)) = &pause.budget
            && !raised.iter().any(|raised| (&raised.scope, &raised.measure) == (scope, measure))
        {
            let place = if scope.is_root() { String::new() } else { format!("{scope}:") };
            return Err(Refusal::new(
                format!("`{id}` is over its budget: {}", pause.reason),
                format!(
                    "raise it: `foldback unpause {} --budget {}`",
                    shell_word(id),
                    shell_word(format!("{place}{}=N", measure.as_str()))
                ),
            ));
        }
        live.state.may_raise(&raised).map_err(|why| {
            Refusal::new(
                why,
                format!("`foldback show {id}` says what is used of each budget", id = shell_word(id)),
            )
        })?;
        // What the pause held back, and not what the turn after it asks for: that is on its way.
        let held_back = live.state.owes_once_unpaused();
        self.say_or_refuse(id, Stimulus::Unpause { reason, raised }, actor, from)?;
        self.owe(id, held_back);
        self.fire_due();
        Ok(true)
    }

    /// Says something to a workflow. What nothing listens for is kept for whatever may listen one day.
    pub(super) fn signal(
        &mut self,
        id: &Arc<str>,
        signal: Stimulus,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        let Stimulus::Signal { name, data, event_id, .. } = &signal else { return Ok(false) };
        if name.is_empty() || name.len() > limits::SIGNAL_NAME_MAX_BYTES || ENGINE_TYPES.contains(&&**name) {
            let most = limits::SIGNAL_NAME_MAX_BYTES;
            return Err(Refusal::new(
                format!("`{name}` cannot be the name of a signal"),
                format!("a name has 1 to {most} bytes, and is no type of the engine's own"),
            ));
        }
        if is_too_deep(data) {
            let most = limits::VALUE_DEPTH_MAX;
            return Err(Refusal::new(format!("the data nests deeper than {most} levels"), "flatten it"));
        }
        if let Some(event_id) = event_id {
            if event_id.is_empty() || event_id.len() > limits::SIGNAL_ID_MAX_BYTES {
                let most = limits::SIGNAL_ID_MAX_BYTES;
                return Err(Refusal::new(
                    format!("an event id has 1 to {most} bytes; this one has {}", event_id.len()),
                    "send the id that the sender gave it, or leave --event-id out",
                ));
            }
            if let Some(delivered) = self.delivered(id, &EventId::of_signal(id, event_id))? {
                self.attach(id)?;
                if let Delivered::At(version) = delivered {
                    self.is_the_same(id, name, event_id, version)?;
                    self.is_still_heard(id, event_id, version)?;
                }
                return Ok(self.answer_in_turn(id, from));
            }
        }
        self.take_up(id)?;
        // An answer that comes late finds that the time has run out.
        self.fire_due();
        let now = self.clocks().wall;
        let Some(live) = self.live.get_mut(id) else {
            return Err(Refusal::unknown_workflow(id));
        };
        if live.state.end.is_some() {
            return Err(ended(id, live.state.status(), live.state.newest_undo.is_some()));
        }
        // What is taken at once takes no room.
        let bytes = serde_json::to_vec(data).map_or(0, |json| json.len() as u64);
        if !live.state.may_keep(bytes) && live.heed(signal.clone(), now) != Heed::Now {
            return Err(keeps_too_many(id, &live.state));
        }
        self.say_or_refuse(id, signal, actor, from)
    }

    /// Where this signal is: in the log, or on its way there.
    fn delivered(&self, id: &Arc<str>, event: &EventId) -> Result<Option<Delivered>, Refusal> {
        if self.live.get(id).is_some_and(|live| live.is_delivering(event)) {
            return Ok(Some(Delivered::UnderWay));
        }
        let known = self.around.store.supplied(event);
        let known = known.map_err(|e| Refusal::new(e.to_string(), "try again"))?;
        Ok(known.map(Delivered::At))
    }

    /// One id is one signal: who sends another under it, or an answer anew that was refused, is told so.
    fn is_the_same(
        &self,
        id: &Arc<str>,
        name: &str,
        event_id: &str,
        version: Version,
    ) -> Result<(), Refusal> {
        let (known, refused) =
            load::signal_at(&*self.around.store, id, version).map_err(|error| unreadable(id, &error))?;
        let why = match refused {
            _ if *known != *name => format!("is a signal `{known}`, not `{name}`"),
            Some(reason) => format!("was refused: {reason}"),
            None => return Ok(()),
        };
        Err(Refusal::new(
            format!("what `{id}` heard under the id `{event_id}`, at version {version}, {why}"),
            "send this one under an id of its own",
        ))
    }

    /// Whoever sends a signal again waits for nothing where it was heard, and going back left that behind.
    fn is_still_heard(&self, id: &Arc<str>, event_id: &str, version: Version) -> Result<(), Refusal> {
        // Who never went back has no rules, and who has ended hears nothing any more.
        let may_have_lost = |state: &WorkflowState| state.end.is_none() && state.rules.is_some();
        if !self.live.get(id).is_some_and(|live| may_have_lost(&live.state)) {
            return Ok(());
        }
        match load::is_left_behind(&*self.around.store, id, version) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Refusal::new(
                format!("`{id}` heard `{event_id}` at version {version}, which going back left behind"),
                "send it under another id",
            )),
            Err(error) => Err(unreadable(id, &error)),
        }
    }

    /// Answers a command that changes nothing, once all that was written before it is on disk.
    fn answer_in_turn(&mut self, id: &Arc<str>, from: &ReplyTo) -> bool {
        let status = self.live.get(id).map(|live| live.state.status()).or_else(|| self.stored_status(id));
        let accepted = Accepted { status: status.unwrap_or(Status::Running), attached: true, version: None };
        let answer: Answer = Ok(accepted);
        let mut commit = Commit::default();
        if let ReplyTo::Inbox(command) = from {
            commit.consumed.push((command.clone(), serde_json::to_value(&answer).unwrap_or_default()));
        }
        self.queue(id.clone(), 0, commit, Some((from.clone(), answer)));
        true
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
                format!("`foldback cancel {id}` ends it and takes back what it did", id = shell_word(id)),
            ));
        }
        // Whoever asks twice for what is under way waits for it.
        if state.is_compensating() && state.stuck().is_none() {
            return Ok(false);
        }
        if state.newest_undo.is_none() {
            return Err(Refusal::new(
                format!("nothing that `{id}` did can be taken back"),
                format!("`foldback show {id}` lists what it did, and what became of it", id = shell_word(id)),
            ));
        }
        let again = live.failed_undos();
        let stimulus = Stimulus::Compensate { reason, from: from_version, down_to, again };
        self.say_or_refuse(id, stimulus, actor, from)
    }

    pub(super) fn say_or_refuse(
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

pub(super) fn keeps_too_many(id: &str, state: &WorkflowState) -> Refusal {
    Refusal::new(
        format!(
            "`{id}` keeps {} signals that nothing has taken: {} of them, or {} MiB, are the most",
            state.signals.len(),
            limits::SIGNALS_KEPT_MAX,
            limits::SIGNALS_KEPT_MAX_BYTES / (1024 * 1024)
        ),
        format!("`foldback show {id}` says what it listens for", id = shell_word(id)),
    )
}

fn ended(id: &str, status: Status, can_undo: bool) -> Refusal {
    let hint = match status {
        Status::Completed | Status::Failed if can_undo => {
            format!("`foldback compensate {id}` takes back what it did", id = shell_word(id))
        }
        _ => format!("`foldback show {id}` says where it stands", id = shell_word(id)),
    };
    Refusal::new(format!("`{id}` has ended already: it is {}", status.as_str()), hint)
}
