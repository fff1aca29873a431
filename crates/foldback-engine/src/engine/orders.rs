//! Commands: what the loop is told to do, each answered once, when its answer is durable.

use std::sync::Arc;

use foldback_core::text::shell_word;
use foldback_core::value::is_too_deep;
use foldback_core::{
    Hash, Key, Owed, Program, Redaction, Run, Status, StepStatus, Stimulus, WorkflowState, limits,
};
use foldback_store::{Append, Commit, Expected, Pruned, WorkflowRow};
use serde_json::Value;

use super::alarms::Wait;
use super::stimuli::With;
use super::{Engine, ReplyTo};
use crate::command::{Accepted, Answer, Command, Refusal, Start};
use crate::live::Live;
use crate::load::{self, LoadError};

impl Engine {
    pub(super) fn command(&mut self, command: Command, actor: &str, from: ReplyTo) {
        if let ReplyTo::Inbox(id) = &from
            && !self.taken.insert(id.clone())
        {
            return;
        }
        let id = command.workflow_id().clone();
        let outcome = match command {
            Command::Start(start) => self.start(start, actor, &from),
            Command::Resume { .. } => self.attach(&id).map(|()| false),
            Command::Retry { reason, back, .. } => self.retry(&id, reason, back, actor, &from),
            Command::Append { expected, events, .. } => self.append(&id, expected, events, actor, &from),
            Command::Fork(fork) => self.fork(*fork, actor, &from),
            Command::Settle { key, verdict, output, .. } => {
                self.settle(&id, key, (verdict, output), actor, &from)
            }
            Command::Pause { reason, .. } => self.pause(&id, reason, actor, &from),
            Command::Unpause { reason, raised, .. } => self.unpause(&id, reason, raised, actor, &from),
            Command::Signal { name, data, event_id, error, .. } => {
                let signal = Stimulus::Signal { name, data, source: None, event_id, error };
                self.signal(&id, signal, actor, &from)
            }
            Command::Event { name, data, source, .. } => {
                match self.hand_event(&id, name, (source, data), actor, &from) {
                    Some(outcome) => outcome,
                    None => return self.rest_if_done(&id),
                }
            }
            Command::Cancel { reason, .. } => self.cancel(&id, reason, actor, &from),
            Command::Compensate { reason, range, .. } => self.compensate(&id, reason, range, actor, &from),
            Command::Resolve { key, landed, .. } => self.resolve(&id, key, landed, actor, &from),
            Command::Record { event_type, data, .. } => self.record(&id, event_type, data, actor, &from),
        };
        self.answered(&id, outcome, from);
        self.rest_if_done(&id);
    }

    /// Answers a command, unless its answer waits for a commit or for a look.
    pub(super) fn answered(&mut self, id: &Arc<str>, outcome: Result<bool, Refusal>, from: ReplyTo) {
        match outcome {
            Ok(true) => {}
            Ok(false) => {
                let status = self.live.get(id).map(|l| l.state.status()).or_else(|| self.stored_status(id));
                let status = status.unwrap_or(Status::Running);
                let accepted = Accepted { status, attached: true, version: None };
                self.reply(id, from, Ok(accepted));
            }
            Err(refusal) => self.reply(id, from, Err(refusal)),
        }
    }

    pub(super) fn stored_status(&self, id: &str) -> Option<Status> {
        let row = self.around.store.workflow(id).ok()??;
        serde_json::from_value(Value::String(row.status)).ok()
    }

    /// Whether the answer waits for a commit.
    pub(super) fn start(&mut self, start: Start, actor: &str, from: &ReplyTo) -> Result<bool, Refusal> {
        Start::check_id(&start.workflow_id)?;
        if is_too_deep(&start.input) {
            let most = limits::VALUE_DEPTH_MAX;
            return Err(Refusal::new(format!("the input nests deeper than {most} levels"), "flatten it"));
        }
        let id = start.workflow_id.clone();
        let known = match self.live.get(&id) {
            Some(live) => Some((Some(live.state.definition), Some(Hash::of_json(&live.state.input.get())))),
            None => self.row(&id)?.map(|row| (row.definition, row.input_hash)),
        };
        if known.is_some_and(|(definition, _)| definition != Some(start.definition)) {
            return Err(another_start(&id, true));
        }
        if known.is_none()
            && let Some(pruned) = self.pruned(&id)?
        {
            return Err(Refusal {
                hint: "name another id: its idempotency keys would repeat".into(),
                ..Refusal::pruned(&id, &pruned)
            });
        }
        let definition = start.stored_definition();
        let program = self.around.programs.program(&definition).map_err(unusable)?;
        let redaction = self.around.programs.redaction().and(&program.redaction());
        if let Some((_, input_hash)) = known {
            // What stands in the log is redacted, and so is the hash by which an input is known again.
            if input_hash != Some(Hash::of_json(&redaction.value(start.input))) {
                return Err(another_start(&id, false));
            }
            return self.attach(&id).map(|()| false);
        }
        let state = WorkflowState::empty(&id);
        let run = program.start(&state);
        self.hold(&id, state, run, redaction, Status::Running);
        let stimulus = Stimulus::Start {
            definition: start.definition,
            name: start.name,
            file: start.file,
            input: start.input,
            lineage: None,
        };
        let with = With { definitions: vec![definition], answer: Some(from.clone()) };
        if let Err(illegal) = self.say_with(&id, stimulus, actor, with) {
            self.forget(&id);
            return Err(Refusal::new(illegal.to_string(), "check the input"));
        }
        Ok(true)
    }

    pub(super) fn resolve(
        &mut self,
        id: &Arc<str>,
        key: Key,
        landed: Option<Value>,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        self.take_up(id)?;
        let state = self.live.get(id).map(|live| &live.state);
        match state.and_then(|s| s.step(&key)).map(|s| s.status) {
            None if state.is_some_and(|state| state.is_stuck_at(&key)) => {
                if landed.is_none() {
                    return Err(Refusal::new(
                        format!("`{key}` did not happen: it could not be taken back"),
                        format!(
                            "`foldback compensate {id}` tries it again; `landed` says that it is done by hand",
                            id = shell_word(id)
                        ),
                    ));
                }
            }
            // What is still under way may yet happen.
            Some(StepStatus::Unknown) if landed.is_none() => {
                match self.may_not_have_happened(id, &key, (actor, from)) {
                    Some(taken) => taken?,
                    None => return Ok(true),
                }
            }
            Some(StepStatus::Unknown) => {}
            Some(StepStatus::Held) => {
                return Err(Refusal::new(
                    format!("`{key}` was not sent: it is a write that waits to be allowed"),
                    "say `live` to perform it, `stub [JSON]` to go on as if it were done, or `deny`",
                ));
            }
            Some(other) => {
                return Err(Refusal::new(
                    format!(
                        "the outcome of `{key}` is not unknown: it is {}",
                        format!("{other:?}").to_lowercase()
                    ),
                    format!("`foldback steps {id}` shows where each step stands", id = shell_word(id)),
                ));
            }
            None => {
                let stuck = state.and_then(|state| state.stuck()).map(|(undo, _)| undo.key.undo());
                let hint = match stuck {
                    Some(stuck) => {
                        format!(
                            "`foldback resolve {} {} landed` says that what is stuck was done by hand",
                            shell_word(id),
                            shell_word(stuck.as_str())
                        )
                    }
                    None if key.is_undo() => {
                        format!(
                            "no undo of it is stuck; `foldback compensate {id}` takes back what stands",
                            id = shell_word(id)
                        )
                    }
                    None => "`foldback list --status unknown` shows what has to be settled".to_owned(),
                };
                return Err(Refusal::new(format!("`{id}` waits for no outcome of a step `{key}`"), hint));
            }
        }
        let with = With { definitions: Vec::new(), answer: Some(from.clone()) };
        self.say_with(id, Stimulus::Resolve { key, landed }, actor, with)
            .map_err(|e| Refusal::new(e.to_string(), "`foldback show` says where the workflow stands"))?;
        Ok(true)
    }

    pub(super) fn record(
        &mut self,
        id: &Arc<str>,
        event_type: Arc<str>,
        data: Value,
        actor: &str,
        from: &ReplyTo,
    ) -> Result<bool, Refusal> {
        if foldback_core::event::ENGINE_TYPES.contains(&&*event_type) || event_type.is_empty() {
            return Err(Refusal::new(
                format!("`{event_type}` is a type of the engine's own"),
                "name a domain event for what happened in your domain, such as CONTENT_GENERATED",
            ));
        }
        self.take_up(id)?;
        let with = With { definitions: Vec::new(), answer: Some(from.clone()) };
        self.say_with(id, Stimulus::Record { event_type, data }, actor, with)
            .map_err(|e| Refusal::new(e.to_string(), "`foldback show` says where the workflow stands"))?;
        Ok(true)
    }

    pub(super) fn row(&mut self, id: &str) -> Result<Option<WorkflowRow>, Refusal> {
        self.around.store.workflow(id).map_err(|e| Refusal::new(e.to_string(), e.hint.unwrap_or_default()))
    }

    /// The row of a workflow that must be there.
    pub(super) fn known_row(&mut self, id: &str) -> Result<WorkflowRow, Refusal> {
        self.row(id)?.ok_or_else(|| Refusal::not_there(&*self.around.store, id))
    }

    pub(super) fn pruned(&mut self, id: &str) -> Result<Option<Pruned>, Refusal> {
        self.around.store.pruned(id).map_err(|e| Refusal::new(e.to_string(), e.hint.unwrap_or_default()))
    }

    /// Brings a workflow into memory and goes on with it: a fold, a turn, and what is owed. The
    /// same act whether it was interrupted, waited, or is merely asked about.
    pub(super) fn take_up(&mut self, id: &Arc<str>) -> Result<(), Refusal> {
        if self.live.contains_key(id) {
            return Ok(());
        }
        let row = self.known_row(id)?;
        let state = match load::state_to_go_on(&*self.around.store, id, None) {
            Ok(Some(state)) if state.is_started() => state,
            Ok(_) => {
                return Err(Refusal::new(
                    format!("`{id}` is a stream of domain events, not a workflow"),
                    "there is nothing to run",
                ));
            }
            Err(error) => {
                if matches!(error, LoadError::Quarantined { .. })
                    && row.status != Status::Quarantined.as_str()
                {
                    self.quarantine(id);
                }
                return Err(unreadable(id, &error));
            }
        };
        let program = self.program_of(id, &state.definition)?;
        self.disown(id, &state);
        let run = program.start(&state);
        let told = serde_json::from_value(Value::String(row.status)).unwrap_or(Status::Running);
        let owed = state.owes();
        let redaction = self.around.programs.redaction().and(&program.redaction());
        self.hold(id, state, run, redaction, told);
        // Before its program says anything new: where it does not ask for what the log owes, the two part.
        if owed.iter().all(|owed| self.is_asked(id, owed)) {
            self.say(id, Stimulus::Continue, "engine");
        }
        self.owe(id, owed);
        Ok(())
    }

    /// Takes over what a folded state owes, beside what its turn has just asked for.
    pub(super) fn owe(&mut self, id: &Arc<str>, owed: Vec<Owed>) {
        let clocks = self.clocks();
        for owed in owed {
            match owed {
                Owed::Attempt(..) | Owed::Start(_) | Owed::Undo(_) => {
                    self.pending.push_back((id.clone(), owed))
                }
                Owed::Retry(key, _) | Owed::Timer(key, _) => {
                    let state = self.live.get(id).map(|live| &live.state);
                    // Where nothing waits there any more, the turn has answered it meanwhile.
                    if let Some((due, delay)) = state.and_then(|state| state.waits_until(&key)) {
                        self.alarms.set(id, key, Wait { due, delay }, clocks);
                    }
                }
            }
        }
    }

    pub(super) fn program_of(&mut self, id: &str, definition: &Hash) -> Result<Arc<dyn Program>, Refusal> {
        let stored = self.around.store.definition(definition).map_err(|e| Refusal::new(e.to_string(), ""))?;
        let stored = stored.ok_or_else(|| {
            Refusal::new(
                format!("the definition {definition} of `{id}` is missing"),
                "`foldback audit` shows what is damaged",
            )
        })?;
        self.around.programs.program(&stored).map_err(unusable)
    }

    /// Takes a workflow up, unless it has ended and some of its values were erased: then there is
    /// nothing to go on with, and who asks is told where it stands.
    pub(super) fn attach(&mut self, id: &Arc<str>) -> Result<(), Refusal> {
        let refusal = match self.take_up(id) {
            Err(refusal) if refusal.needs_erased => refusal,
            other => return other,
        };
        match self.stored_status(id).filter(|status| status.is_ended()) {
            Some(status) => {
                self.tell_watchers(id, status, None);
                Ok(())
            }
            None => Err(refusal),
        }
    }

    /// Says in the row that the log is broken, so that lists show it. The log itself is left alone.
    fn quarantine(&mut self, id: &Arc<str>) {
        let append = Append {
            workflow_id: id.clone(),
            expected: Expected::Any,
            events: Vec::new(),
            begins: None,
            status: Some(Status::Quarantined.as_str()),
        };
        self.queue(id.clone(), 0, Commit { appends: vec![append], ..Commit::default() }, None);
    }

    pub(super) fn hold(
        &mut self,
        id: &Arc<str>,
        state: WorkflowState,
        run: Box<dyn Run>,
        redaction: Redaction,
        told: Status,
    ) {
        self.incarnations += 1;
        self.live.insert(id.clone(), Live::new(self.incarnations, state, run, redaction, told));
    }

    pub(super) fn reply(&mut self, id: &Arc<str>, from: ReplyTo, answer: Answer) {
        match from {
            ReplyTo::Caller(reply) => drop(reply.send(answer)),
            ReplyTo::Nobody => {}
            ReplyTo::Inbox(command) => {
                let body = serde_json::to_value(&answer).unwrap_or_default();
                let commit = Commit { consumed: vec![(command, body)], ..Commit::default() };
                self.queue(id.clone(), 0, commit, None);
            }
        }
    }
}

pub(super) fn unusable(reason: String) -> Refusal {
    Refusal::new(format!("the definition cannot be run here: {reason}"), "`foldback check FILE` says more")
}

pub(super) fn unreadable(id: &str, error: &LoadError) -> Refusal {
    match error {
        LoadError::Store(error) => Refusal::new(error.to_string(), error.hint.clone().unwrap_or_default()),
        LoadError::Erased { tombstone, .. } => Refusal {
            message: format!("`{id}` cannot go on: {error}"),
            hint: format!(
                "payload {}: what is erased is gone; start anew with another --id, or import an export from before",
                tombstone.hash
            ),
            is_quarantined: false,
            needs_erased: true,
            is_taken: false,
            conflict: None,
        },
        LoadError::Quarantined { .. } => Refusal {
            message: format!("`{id}` is quarantined: {error}"),
            hint: format!("`foldback audit {id}` shows what is broken; others go on", id = shell_word(id)),
            is_quarantined: true,
            needs_erased: false,
            is_taken: false,
            conflict: None,
        },
    }
}

fn another_start(id: &str, is_definition: bool) -> Refusal {
    let what = if is_definition { "definition" } else { "input" };
    Refusal::new(
        format!("workflow `{id}` exists already, with another {what}"),
        format!("use another --id; `foldback show {id}` shows the one that is there", id = shell_word(id)),
    )
}
