//! The loop: one closed enum of messages, one synchronous handler. It performs nothing itself; it
//! reads a workflow when it takes it up, queues commits, and starts performers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use foldback_core::{
    Divergence, Hash, Illegal, Key, Micros, Outcome, Owed, Run, Status, StepStatus, Stimulus,
    Timing, Turn, WorkflowState, limits, step,
};
use foldback_store::{
    Appended, Commit, CommitError, InboxCommand, Ownership, Store, StoreError, WorkflowRow,
};
use serde_json::Value;

use crate::Programs;
use crate::command::{Accepted, Answer, Command, Refusal, Start};
use crate::ids::{self, EventIds};
use crate::kind::{Call, Registry};
use crate::live::{Dispatch, Live};
use crate::load::{self, LoadError};
use crate::perform::perform;
use crate::session::{Observer, Rest};

/// Everything the loop can be told.
pub enum Message {
    /// A command, from this process or from the inbox.
    Command {
        /// What it says.
        command: Command,
        /// Who sent it.
        actor: Arc<str>,
        /// Who is owed the answer.
        from: ReplyTo,
    },
    /// An attempt ended.
    Report {
        /// The workflow.
        workflow_id: Arc<str>,
        /// The step.
        key: Key,
        /// Which attempt.
        attempt: u32,
        /// How.
        outcome: Outcome,
        /// How long it took, in ms.
        latency_ms: u64,
    },
    /// A commit is on disk, or was refused.
    Committed {
        /// The workflow.
        workflow_id: Arc<str>,
        /// Which memory of the workflow queued it.
        incarnation: u64,
        /// What became of it.
        result: Result<Vec<Appended>, CommitError>,
        /// What to tell whom, now that it is durable.
        answer: Option<(ReplyTo, Answer)>,
    },
    /// Somebody waits until a workflow rests.
    Watch {
        /// The workflow.
        workflow_id: Arc<str>,
        /// Told once.
        reply: Sender<Rest>,
    },
    /// Start nothing new; end when nothing is in flight.
    WindDown,
}

/// Who is owed the answer to a command.
#[derive(Clone)]
pub enum ReplyTo {
    /// A function in this process.
    Caller(Sender<Answer>),
    /// A row of the inbox.
    Inbox(String),
    /// Nobody.
    Nobody,
}

/// What the loop needs of its surroundings.
pub struct Surroundings {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Performs steps.
    pub kinds: Registry,
    /// Makes programs.
    pub programs: Arc<dyn Programs>,
    /// Where performers run.
    pub pool: tokio::runtime::Handle,
    /// Sees what is durable, and progress as it comes.
    pub observer: Option<Arc<dyn Observer>>,
}

/// The loop of one shard's owner.
pub struct Engine {
    around: Surroundings,
    shard: u32,
    ownership: Ownership,
    inbox: Receiver<Message>,
    to_self: Sender<Message>,
    live: HashMap<Arc<str>, Live>,
    in_flight: HashSet<(Arc<str>, Key, u32)>,
    /// Attempts of each workflow in flight.
    flying: HashMap<Arc<str>, usize>,
    alarms: BinaryHeap<Reverse<(Micros, Arc<str>, Key)>>,
    /// Steps that wait for room.
    pending: VecDeque<(Arc<str>, Key)>,
    watchers: HashMap<Arc<str>, Vec<Sender<Rest>>>,
    /// Inbox commands taken up in this engine's life: each is carried out once.
    taken: HashSet<String>,
    /// How many times a workflow was brought into memory.
    incarnations: u64,
    /// Commits queued and not yet on disk.
    under_way: usize,
    ids: EventIds,
    is_winding_down: bool,
    failure: Option<StoreError>,
}

impl Engine {
    /// An engine for a shard that this process owns, and where to speak to it.
    pub fn new(
        around: Surroundings,
        shard: u32,
        ownership: Ownership,
    ) -> (Engine, Sender<Message>) {
        let (to_self, inbox) = channel();
        let engine = Engine {
            around,
            shard,
            ownership,
            inbox,
            to_self: to_self.clone(),
            live: HashMap::new(),
            in_flight: HashSet::new(),
            flying: HashMap::new(),
            alarms: BinaryHeap::new(),
            pending: VecDeque::new(),
            watchers: HashMap::new(),
            taken: HashSet::new(),
            incarnations: 0,
            under_way: 0,
            ids: EventIds::new(),
            is_winding_down: false,
            failure: None,
        };
        (engine, to_self)
    }

    /// Runs until it has wound down. The shard is free when this returns.
    ///
    /// # Errors
    /// The store failed, or another process owns the shard: nothing more was acknowledged.
    pub fn run(mut self) -> Result<(), StoreError> {
        loop {
            self.fire_due();
            self.fill_room();
            if self.is_done() {
                return self.failure.map_or(Ok(()), Err);
            }
            match self.inbox.recv_timeout(self.until_next_alarm()) {
                Ok(message) => {
                    self.handle(message);
                    // What has come meanwhile is handled in the same round.
                    while let Ok(message) = self.inbox.try_recv() {
                        self.handle(message);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn is_done(&self) -> bool {
        self.failure.is_some()
            || (self.is_winding_down && self.in_flight.is_empty() && self.under_way == 0)
    }

    fn until_next_alarm(&self) -> Duration {
        let idle = Duration::from_millis(500);
        match self.alarms.peek() {
            Some(Reverse((due, ..))) if !self.is_winding_down => {
                Duration::from_micros(u64::try_from(due - ids::now()).unwrap_or(0)).min(idle)
            }
            _ => idle,
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Command {
                command,
                actor,
                from,
            } => self.command(command, &actor, from),
            Message::Report {
                workflow_id,
                key,
                attempt,
                outcome,
                latency_ms,
            } => {
                self.landed(&workflow_id, &key, attempt);
                self.say(
                    &workflow_id,
                    Stimulus::Report {
                        key,
                        attempt,
                        outcome,
                        latency_ms,
                    },
                    "engine",
                );
                self.rest_if_done(&workflow_id);
            }
            Message::Committed {
                workflow_id,
                incarnation,
                result,
                answer,
            } => {
                self.committed(&workflow_id, incarnation, result, answer);
            }
            Message::Watch { workflow_id, reply } => {
                self.watchers
                    .entry(workflow_id.clone())
                    .or_default()
                    .push(reply);
                self.rest_if_done(&workflow_id);
            }
            Message::WindDown => self.is_winding_down = true,
        }
    }

    // ---- commands -------------------------------------------------------------------------

    fn command(&mut self, command: Command, actor: &str, from: ReplyTo) {
        if let ReplyTo::Inbox(id) = &from
            && !self.taken.insert(id.clone())
        {
            return;
        }
        let id = command.workflow_id().clone();
        let outcome = match command {
            Command::Start(start) => self.start(start, actor, &from),
            Command::Resume { .. } => self.take_up(&id).map(|()| false),
            Command::Resolve { key, landed, .. } => self.resolve(&id, key, landed, actor, &from),
            Command::Record {
                event_type, data, ..
            } => self.record(&id, event_type, data, actor, &from),
        };
        match outcome {
            Ok(true) => {} // answered when its commit is on disk
            Ok(false) => {
                let status = self
                    .live
                    .get(&id)
                    .map(|l| l.state.status())
                    .or_else(|| self.stored_status(&id));
                let accepted = Accepted {
                    status: status.unwrap_or(Status::Running),
                    attached: true,
                };
                self.reply(&id, from, Ok(accepted));
            }
            Err(refusal) => self.reply(&id, from, Err(refusal)),
        }
        self.rest_if_done(&id);
    }

    fn stored_status(&self, id: &str) -> Option<Status> {
        let row = self.around.store.workflow(id).ok()??;
        serde_json::from_value(Value::String(row.status)).ok()
    }

    /// Whether the answer waits for a commit.
    fn start(&mut self, start: Start, actor: &str, from: &ReplyTo) -> Result<bool, Refusal> {
        Start::check_id(&start.workflow_id)?;
        let id = start.workflow_id.clone();
        let known = match self.live.get(&id) {
            Some(live) => Some((
                Some(live.state.definition),
                Some(Hash::of_json(&live.state.input.get())),
            )),
            None => self.row(&id)?.map(|row| (row.definition, row.input_hash)),
        };
        if let Some((definition, input_hash)) = known {
            if definition != Some(start.definition)
                || input_hash != Some(Hash::of_json(&start.input))
            {
                return Err(another_start(&id, definition != Some(start.definition)));
            }
            return self.take_up(&id).map(|()| false);
        }
        let definition = start.stored_definition();
        let program = self
            .around
            .programs
            .program(&definition)
            .map_err(unusable)?;
        let state = WorkflowState::empty(&id);
        let run = program.start(&state);
        self.hold(&id, state, run, Status::Running);
        let stimulus = Stimulus::Start {
            definition: start.definition,
            name: start.name,
            input: start.input,
            lineage: None,
        };
        let with = With {
            definitions: vec![definition],
            answer: Some(from.clone()),
        };
        self.say_with(&id, stimulus, actor, with)
            .map_err(|e| Refusal::new(e.to_string(), "this is a bug in the program"))?;
        Ok(true)
    }

    fn resolve(
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
            Some(StepStatus::Unknown) => {}
            Some(other) => {
                return Err(Refusal::new(
                    format!(
                        "the outcome of `{key}` is not unknown: it is {}",
                        format!("{other:?}").to_lowercase()
                    ),
                    format!("`foldback steps {id}` shows where each step stands"),
                ));
            }
            None => {
                return Err(Refusal::new(
                    format!("`{id}` waits for no outcome of a step `{key}`"),
                    "`foldback list --status unknown` shows what has to be settled",
                ));
            }
        }
        let with = With {
            definitions: Vec::new(),
            answer: Some(from.clone()),
        };
        self.say_with(id, Stimulus::Resolve { key, landed }, actor, with)
            .map_err(|e| {
                Refusal::new(
                    e.to_string(),
                    "`foldback show` says where the workflow stands",
                )
            })?;
        Ok(true)
    }

    fn record(
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
        let with = With {
            definitions: Vec::new(),
            answer: Some(from.clone()),
        };
        self.say_with(id, Stimulus::Record { event_type, data }, actor, with)
            .map_err(|e| {
                Refusal::new(
                    e.to_string(),
                    "`foldback show` says where the workflow stands",
                )
            })?;
        Ok(true)
    }

    fn row(&mut self, id: &str) -> Result<Option<WorkflowRow>, Refusal> {
        self.around
            .store
            .workflow(id)
            .map_err(|e| Refusal::new(e.to_string(), e.hint.unwrap_or_default()))
    }

    /// Brings a workflow into memory and goes on with it: a fold, a turn, and what is owed. The
    /// same act whether it was interrupted, waited, or is merely asked about.
    fn take_up(&mut self, id: &Arc<str>) -> Result<(), Refusal> {
        if self.live.contains_key(id) {
            return Ok(());
        }
        let row = self.row(id)?.ok_or_else(|| Refusal::unknown_workflow(id))?;
        let state = match load::state_at(&*self.around.store, id, None) {
            Ok(Some(state)) if state.is_started() => state,
            Ok(_) => {
                return Err(Refusal::new(
                    format!("`{id}` is a stream of domain events, not a workflow"),
                    "there is nothing to run",
                ));
            }
            Err(error) => return Err(unreadable(id, &error)),
        };
        let stored = self
            .around
            .store
            .definition(&state.definition)
            .map_err(|e| Refusal::new(e.to_string(), ""))?;
        let Some(definition) = stored else {
            return Err(Refusal::new(
                format!("the definition {} of `{id}` is missing", state.definition),
                "`foldback audit` shows what is damaged",
            ));
        };
        let program = self
            .around
            .programs
            .program(&definition)
            .map_err(unusable)?;
        let run = program.start(&state);
        let told = serde_json::from_value(Value::String(row.status)).unwrap_or(Status::Running);
        let owed = state.owes();
        self.hold(id, state, run, told);
        self.say(id, Stimulus::Continue, "engine");
        for owed in owed {
            match owed {
                Owed::Attempt(key, attempt) => {
                    // Still performed here when only the memory was dropped.
                    if !self.in_flight.contains(&(id.clone(), key.clone(), attempt)) {
                        self.say(id, Stimulus::Lost { key, attempt }, "engine");
                    }
                }
                Owed::Start(key) => self.pending.push_back((id.clone(), key)),
                Owed::Retry(key, due) | Owed::Timer(key, due) => {
                    self.alarms.push(Reverse((due, id.clone(), key)))
                }
            }
        }
        Ok(())
    }

    fn hold(&mut self, id: &Arc<str>, state: WorkflowState, run: Box<dyn Run>, told: Status) {
        self.incarnations += 1;
        self.live
            .insert(id.clone(), Live::new(self.incarnations, state, run, told));
    }

    fn reply(&mut self, id: &Arc<str>, from: ReplyTo, answer: Answer) {
        match from {
            ReplyTo::Caller(reply) => drop(reply.send(answer)),
            ReplyTo::Nobody => {}
            ReplyTo::Inbox(command) => {
                let body = serde_json::to_value(&answer).unwrap_or_default();
                let commit = Commit {
                    consumed: vec![(command, body)],
                    ..Commit::default()
                };
                self.queue(id.clone(), 0, commit, None);
            }
        }
    }

    // ---- stimuli --------------------------------------------------------------------------

    fn say(&mut self, id: &Arc<str>, stimulus: Stimulus, actor: &str) {
        if let Err(illegal) = self.say_with(id, stimulus, actor, With::default()) {
            self.drop_broken(id, &illegal);
        }
    }

    /// The program asked for what the law forbids, or panicked. Nothing of that was written: the
    /// memory is dropped, and the workflow parks with one event that says why.
    fn drop_broken(&mut self, id: &Arc<str>, illegal: &Illegal) {
        self.live.remove(id);
        let state = match load::state_at(&*self.around.store, id, None) {
            Ok(Some(state)) if state.end.is_none() => state,
            _ => return self.tell_watchers(id, Status::Quarantined, Some(illegal.to_string())),
        };
        let asked = illegal.to_string();
        let divergence = Divergence {
            key: Key::root(),
            recorded: "a log that obeys the law".into(),
            asked,
        };
        self.hold(id, state, Box::new(Parking(divergence)), Status::Running);
        if self
            .say_with(id, Stimulus::Continue, "engine", With::default())
            .is_err()
        {
            self.live.remove(id);
            self.tell_watchers(id, Status::Quarantined, Some(illegal.to_string()));
        }
    }

    fn say_with(
        &mut self,
        id: &Arc<str>,
        stimulus: Stimulus,
        actor: &str,
        with: With,
    ) -> Result<(), Illegal> {
        let Some(live) = self.live.get_mut(id) else {
            return Ok(());
        };
        let timing = Timing {
            now: ids::now(),
            actor: Arc::from(actor),
            may_start: !self.is_winding_down && self.in_flight.len() < limits::IN_FLIGHT_MAX,
        };
        let source = &mut self.ids;
        let now = timing.now;
        let mut next_id = || source.next(now);
        let observed = self.around.observer.is_some();
        let kinds = &self.around.kinds;
        // A person's code runs in here. Its panic costs its workflow, not the process.
        let said = catch_unwind(AssertUnwindSafe(|| {
            live.say(stimulus, &timing, &mut next_id, kinds, observed)
        }));
        let mut advanced = said.unwrap_or_else(|panic| Err(panicked(live, &*panic)))?;
        let incarnation = live.incarnation;
        for (due, key) in advanced.alarms.drain(..) {
            self.alarms.push(Reverse((due, id.clone(), key)));
        }
        for key in advanced.pending.drain(..) {
            self.pending.push_back((id.clone(), key));
        }
        match advanced.commit.take() {
            Some(mut commit) => {
                commit.definitions = with.definitions;
                let status = live.state.status();
                let answer = with.answer.map(|from| {
                    (
                        from,
                        Ok(Accepted {
                            status,
                            attached: false,
                        }),
                    )
                });
                if let Some((ReplyTo::Inbox(command), answer)) = &answer {
                    commit.consumed.push((
                        command.clone(),
                        serde_json::to_value(answer).unwrap_or_default(),
                    ));
                }
                self.queue(id.clone(), incarnation, commit, answer);
            }
            None => {
                if let Some(from) = with.answer {
                    let status = live.state.status();
                    self.reply(
                        id,
                        from,
                        Ok(Accepted {
                            status,
                            attached: false,
                        }),
                    );
                }
            }
        }
        for dispatch in advanced.ready {
            self.dispatch(id, dispatch);
        }
        if advanced.is_cut {
            return self.say_with(id, Stimulus::Continue, "engine", With::default());
        }
        Ok(())
    }

    fn queue(
        &mut self,
        workflow_id: Arc<str>,
        incarnation: u64,
        mut commit: Commit,
        answer: Option<(ReplyTo, Answer)>,
    ) {
        commit.shard = self.shard;
        commit.epoch = self.ownership.epoch;
        self.under_way += 1;
        let to = self.to_self.clone();
        self.around.store.commit(
            commit,
            Box::new(move |result| {
                // The loop may have ended over a failure; then nobody is owed this.
                let _gone = to.send(Message::Committed {
                    workflow_id,
                    incarnation,
                    result,
                    answer,
                });
            }),
        );
    }

    fn committed(
        &mut self,
        id: &Arc<str>,
        incarnation: u64,
        result: Result<Vec<Appended>, CommitError>,
        answer: Option<(ReplyTo, Answer)>,
    ) {
        self.under_way -= 1;
        let appended = match result {
            Ok(appended) => appended,
            Err(error) => return self.refused(id, incarnation, error, answer),
        };
        if let Some((ReplyTo::Caller(reply), answer)) = answer {
            drop(reply.send(answer));
        }
        let (Some(last), Some(live)) = (appended.first(), self.live.get_mut(id)) else {
            return;
        };
        if live.incarnation != incarnation {
            return;
        }
        live.head = Some((last.last, last.hash));
        let (ready, events) = live.committed();
        if let Some(observer) = &self.around.observer
            && !events.is_empty()
        {
            observer.committed(id, &events);
        }
        for dispatch in ready {
            self.dispatch(id, dispatch);
        }
        self.snapshot_if_due(id);
        self.rest_if_done(id);
    }

    /// A commit was not written. The memory that ran ahead of it is dropped and folded anew.
    fn refused(
        &mut self,
        id: &Arc<str>,
        incarnation: u64,
        error: CommitError,
        answer: Option<(ReplyTo, Answer)>,
    ) {
        match error {
            CommitError::Failed(error) => self.failure = Some(error),
            CommitError::StaleEpoch { .. } => {
                self.failure = Some(StoreError {
                    message: "another process took over this store".into(),
                    hint: Some("its lock was lost; run the command again".into()),
                    is_input: false,
                });
            }
            CommitError::Conflict { .. }
            | CommitError::IdTaken { .. }
            | CommitError::CommandAnswered { .. }
            | CommitError::CheckpointMoved { .. } => {
                // What was queued behind the first refusal is refused too: by then the workflow
                // has been folded anew, and that memory stays.
                if self
                    .live
                    .get(id)
                    .is_some_and(|live| live.incarnation == incarnation)
                {
                    self.live.remove(id);
                    if let Err(refusal) = self.take_up(id) {
                        self.tell_watchers(id, Status::Quarantined, Some(refusal.message));
                    }
                    self.rest_if_done(id);
                }
            }
        }
        if let Some((ReplyTo::Caller(reply), _)) = answer {
            let refusal = Refusal::new("the store did not take the command", "try again");
            drop(reply.send(Err(refusal)));
        }
    }

    // ---- attempts -------------------------------------------------------------------------

    fn dispatch(&mut self, id: &Arc<str>, Dispatch { key, attempt }: Dispatch) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        let Some(step) = live.state.step(&key) else {
            return;
        };
        if step.status != StepStatus::Running || step.attempts != attempt {
            return;
        }
        if !self.in_flight.insert((id.clone(), key.clone(), attempt)) {
            return;
        }
        *self.flying.entry(id.clone()).or_insert(0) += 1;
        let is_write = step.effect == foldback_core::Effect::Write;
        let progress = match &self.around.observer {
            Some(observer) => {
                let (observer, id, key) = (observer.clone(), id.clone(), key.clone());
                Arc::new(move |text: &str| observer.progress(&id, &key, text)) as crate::Progress
            }
            None => Arc::new(|_: &str| {}) as crate::Progress,
        };
        let call = Call {
            workflow_id: id.clone(),
            attempt,
            request: step.request.to_json(),
            secrets: step.secrets.clone(),
            effect: step.effect,
            idempotency_key: is_write.then(|| step::idempotency_key(id, &key, &step.request_hash)),
            timeout_ms: step.timeout_ms.unwrap_or(limits::STEP_TIMEOUT_MS),
            rejected: step.rejected.as_ref().map(|slot| {
                (
                    (*slot.get()).clone(),
                    step.error.clone().unwrap_or_default(),
                )
            }),
            progress,
            key,
        };
        let kind = self.around.kinds.get(&step.kind).cloned();
        perform(
            &self.around.pool,
            kind,
            call,
            &step.kind,
            self.to_self.clone(),
        );
    }

    fn landed(&mut self, id: &Arc<str>, key: &Key, attempt: u32) {
        if self.in_flight.remove(&(id.clone(), key.clone(), attempt))
            && let Some(count) = self.flying.get_mut(id)
        {
            *count -= 1;
            if *count == 0 {
                self.flying.remove(id);
            }
        }
    }

    fn fire_due(&mut self) {
        if self.is_winding_down || self.alarms.is_empty() {
            return;
        }
        let now = ids::now();
        while let Some(Reverse((due, ..))) = self.alarms.peek() {
            if *due > now {
                return;
            }
            let Some(Reverse((due, id, key))) = self.alarms.pop() else {
                return;
            };
            let Some(live) = self.live.get(&id) else {
                continue;
            };
            match live.state.entries.get(&key).map(|e| &e.body) {
                Some(foldback_core::EntryBody::Step(step))
                    if step.status == StepStatus::Backoff && step.due == Some(due) =>
                {
                    self.pending.push_back((id, key));
                }
                Some(foldback_core::EntryBody::Timer {
                    due: set,
                    fired: false,
                    ..
                }) if *set == due && live.state.end.is_none() => {
                    self.say(&id, Stimulus::TimerDue { key }, "engine");
                }
                // Superseded meanwhile.
                _ => {}
            }
        }
    }

    /// Begins what waits for room: steps that were pending, and retries that are due.
    fn fill_room(&mut self) {
        while !self.is_winding_down && self.in_flight.len() < limits::IN_FLIGHT_MAX {
            let Some((id, key)) = self.pending.pop_front() else {
                return;
            };
            self.say(&id, Stimulus::Begin { key }, "engine");
        }
    }

    // ---- rest -----------------------------------------------------------------------------

    /// Tells those who wait, and forgets the workflow, once nothing moves it but a person.
    fn rest_if_done(&mut self, id: &Arc<str>) {
        let Some(live) = self.live.get(id) else {
            return;
        };
        let status = live.state.status();
        let moves = matches!(status, Status::Running | Status::Waiting);
        if moves || !live.is_settled() || self.flying.contains_key(id) {
            return;
        }
        self.live.remove(id);
        self.tell_watchers(id, status, None);
    }

    fn tell_watchers(&mut self, id: &Arc<str>, status: Status, reason: Option<String>) {
        for watcher in self.watchers.remove(id).unwrap_or_default() {
            let _gone = watcher.send(Rest {
                workflow_id: id.clone(),
                status,
                reason: reason.clone(),
            });
        }
    }

    fn snapshot_if_due(&mut self, id: &Arc<str>) {
        let Some(live) = self.live.get_mut(id) else {
            return;
        };
        let Some(snapshot) = live.snapshot_if_due() else {
            return;
        };
        let commit = Commit {
            snapshots: vec![snapshot],
            ..Commit::default()
        };
        self.queue(id.clone(), 0, commit, None);
    }
}

/// The run of a workflow whose program broke: it asks to be parked, and nothing else.
struct Parking(Divergence);

impl Run for Parking {
    fn turn(&mut self, _state: &WorkflowState) -> Turn {
        Turn::Diverged(self.0.clone())
    }
}

fn panicked(live: &Live, panic: &(dyn std::any::Any + Send)) -> Illegal {
    let text = panic
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    let reason = format!(
        "the program panicked: {}",
        text.unwrap_or_else(|| "without a word".into())
    );
    Illegal {
        version: live.state.version + 1,
        event_type: "turn".into(),
        reason,
    }
}

/// What else rides in the commit of a stimulus.
#[derive(Default)]
struct With {
    definitions: Vec<foldback_store::Definition>,
    answer: Option<ReplyTo>,
}

fn unusable(reason: String) -> Refusal {
    Refusal::new(
        format!("the definition cannot be run here: {reason}"),
        "`foldback check FILE` says more",
    )
}

fn unreadable(id: &str, error: &LoadError) -> Refusal {
    match error {
        LoadError::Store(error) => {
            Refusal::new(error.to_string(), error.hint.clone().unwrap_or_default())
        }
        LoadError::Quarantined { .. } => Refusal::new(
            format!("`{id}` is quarantined: {error}"),
            format!("`foldback audit {id}` shows what is broken; others go on"),
        ),
    }
}

fn another_start(id: &str, is_definition: bool) -> Refusal {
    let what = if is_definition { "definition" } else { "input" };
    Refusal::new(
        format!("workflow `{id}` exists already, with another {what}"),
        format!("use another --id; `foldback show {id}` shows the one that is there"),
    )
}

/// Turns rows of the inbox into messages. A row that this build cannot read is answered so.
pub fn from_inbox(
    rows: Vec<InboxCommand>,
    to: &Sender<Message>,
    unreadable: &mut dyn FnMut(InboxCommand, String),
) {
    for row in rows {
        match serde_json::from_value::<Command>(row.body.clone()) {
            Ok(command) => {
                let _gone = to.send(Message::Command {
                    command,
                    actor: Arc::from(&*row.actor),
                    from: ReplyTo::Inbox(row.id),
                });
            }
            Err(error) => unreadable(row, error.to_string()),
        }
    }
}
