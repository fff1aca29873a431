//! A session: what one process does with a store until its own work rests.
//!
//! Each shard has one owner. A session that gets the lock runs the engine; one that does not
//! hands its commands to the inbox, follows the log, and takes over when the lock falls free. So
//! two terminals on one file just work.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Duration;

use foldback_core::{Event, Key, Status, limits};
use foldback_store::{Commit, InboxCommand, Ownership, Store, StoreError};
use serde_json::Value;

use crate::Programs;
use crate::command::{Answer, Command, Refusal};
use crate::engine::{Engine, Message, ReplyTo, Surroundings, from_inbox, is_event};
use crate::ids;
use crate::kind::Registry;
use crate::load;
use crate::machine::ThisMachine;
use crate::projector::Projecting;

/// How often a client looks at the log and the lock, and an owner at its inbox.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The loop runs programs, and a deep expression or a deep value needs room on the stack.
const LOOP_STACK_BYTES: usize = 16 * 1024 * 1024;

/// Sees what happens: durable events, and progress as it comes.
pub trait Observer: Send + Sync {
    /// These events are on disk.
    fn committed(&self, workflow_id: &str, events: &[Event]);
    /// A piece of progress of a step under way. Never durable.
    fn progress(&self, workflow_id: &str, key: &Key, text: &str);
}

/// A workflow that nothing moves any more but a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// Where it stands.
    pub status: Status,
    /// Why, where the log does not say.
    pub reason: Option<String>,
}

/// What can go wrong with a session as a whole.
#[derive(Debug)]
pub enum SessionError {
    /// The store failed.
    Store(StoreError),
    /// A command was refused.
    Refused(Refusal),
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SessionError::Store(error) => error.fmt(f),
            SessionError::Refused(refusal) => f.write_str(&refusal.message),
        }
    }
}

impl std::error::Error for SessionError {}

impl std::convert::From<StoreError> for SessionError {
    fn from(error: StoreError) -> SessionError {
        SessionError::Store(error)
    }
}

impl std::convert::From<Refusal> for SessionError {
    fn from(refusal: Refusal) -> SessionError {
        SessionError::Refused(refusal)
    }
}

/// What one process has on a store.
pub struct Session {
    /// The log.
    pub store: Arc<dyn Store>,
    /// Performs steps.
    pub kinds: Registry,
    /// Makes programs.
    pub programs: Arc<dyn Programs>,
    /// Where performers run.
    pub pool: tokio::runtime::Handle,
    /// Sees what happens.
    pub observer: Option<Arc<dyn Observer>>,
    /// Who speaks, for the envelope's `actor`.
    pub actor: Arc<str>,
    /// Set from outside to stop early: steps in flight report, nothing new starts.
    pub stop: Arc<AtomicBool>,
}

/// One command of this session and what has become of it.
struct Own {
    command: Command,
    inbox_id: String,
    is_sent: bool,
    answer: Option<Answer>,
    rest: Option<Rest>,
    seen: u64,
    /// Whether its answer is all that is waited for.
    is_only_told: bool,
}

impl Session {
    /// Says these commands and stays until each of their workflows rests.
    ///
    /// # Errors
    /// The store failed, or a command was refused (the others are still driven to their rest).
    pub fn drive(&self, commands: Vec<Command>) -> Result<Vec<Rest>, SessionError> {
        let ends = self.drive_each(commands)?;
        Ok(ends.into_iter().collect::<Result<Vec<Rest>, Refusal>>()?)
    }

    /// As [`Session::drive`], with an end for each command: its workflow's rest, or the refusal.
    ///
    /// # Errors
    /// The store failed.
    pub fn drive_each(&self, commands: Vec<Command>) -> Result<Vec<Result<Rest, Refusal>>, SessionError> {
        let mut own: Vec<Own> = commands.into_iter().map(Own::new).collect();
        while !own.iter().all(Own::is_done) && !self.is_stopping() {
            match self.store.acquire(0, &self.actor)? {
                Some(ownership) => self.own(ownership, &mut own)?,
                None => self.be_client(&mut own)?,
            }
        }
        Ok(own.into_iter().map(Own::end).collect())
    }

    /// Says these commands and stays until each is answered: what follows from them is left to whoever
    /// resumes it, or to the process that owns the shard.
    ///
    /// # Errors
    /// The store failed.
    pub fn tell_each(&self, commands: Vec<Command>) -> Result<Vec<Result<Rest, Refusal>>, SessionError> {
        Ok(self.told(commands)?.into_iter().map(Own::end).collect())
    }

    /// As [`Session::tell_each`], with the answers themselves. A command that was not answered, because
    /// this session was told to stop, has none.
    ///
    /// # Errors
    /// The store failed.
    pub fn answers(&self, commands: Vec<Command>) -> Result<Vec<Answer>, SessionError> {
        Ok(self.told(commands)?.into_iter().filter_map(|one| one.answer).collect())
    }

    fn told(&self, commands: Vec<Command>) -> Result<Vec<Own>, SessionError> {
        let mut own: Vec<Own> = commands.into_iter().map(Own::new).collect();
        own.iter_mut().for_each(|one| one.is_only_told = true);
        while !own.iter().all(Own::is_done) && !self.is_stopping() {
            match self.store.acquire(0, &self.actor)? {
                Some(ownership) => self.own(ownership, &mut own)?,
                None => self.be_client(&mut own)?,
            }
        }
        Ok(own)
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    // ---- as the owner ---------------------------------------------------------------------

    fn own(&self, ownership: Ownership, own: &mut [Own]) -> Result<(), SessionError> {
        let around = Surroundings {
            store: self.store.clone(),
            kinds: self.kinds.clone(),
            programs: self.programs.clone(),
            machine: Arc::new(ThisMachine::new(self.pool.clone())),
            observer: self.observer.clone(),
        };
        let epoch = ownership.epoch;
        // Programs live on the loop's thread and need not be `Send`, so the engine is made there.
        let (hand_over, take) = channel();
        let thread = std::thread::Builder::new()
            .name("foldback-loop".into())
            .stack_size(LOOP_STACK_BYTES)
            .spawn(move || {
                let (engine, to_loop) = Engine::new(around, 0, ownership);
                let _gone = hand_over.send(to_loop);
                engine.run()
            })
            .map_err(|e| machine(format!("no thread for the loop: {e}")))?;
        let to_loop = take.recv().map_err(|_| machine("the loop ended at once".into()))?;
        let views = Projecting::begin(self.store.clone(), self.programs.clone(), 0, epoch);
        if own.iter().all(|one| one.is_only_told) {
            let _gone = to_loop.send(Message::StartNothing);
        }
        let steered = self.steer(&to_loop, epoch, own);
        views.finish();
        let _gone = to_loop.send(Message::WindDown);
        let ended = thread
            .join()
            .map_err(|_| machine("the loop panicked; the log is as of its last commit".into()))?;
        // The loop's own word comes first: it says why the steering lost it.
        ended.map_err(SessionError::Store)?;
        steered
    }

    fn steer(&self, to_loop: &Sender<Message>, epoch: u64, own: &mut [Own]) -> Result<(), SessionError> {
        let mut waits = Vec::new();
        for one in own.iter_mut() {
            // What an owner before us has answered is gone on with. Our epoch keeps out every
            // later answer of it.
            if one.is_sent && one.answer.is_none() {
                one.answer = self.answer_of(one)?;
            }
            if one.is_done() {
                continue;
            }
            if one.is_sent {
                self.show_new(one)?;
            }
            let mut wait = Waiting { one, answer: None, rest: None };
            if !wait.one.is_sent || wait.one.answer.is_some() {
                self.order(&mut wait, to_loop);
            }
            waits.push(wait);
        }
        let mut looks = Looks::default();
        while !waits.iter().all(|wait| wait.one.is_done()) && !self.is_stopping() {
            self.pass_on_inbox(to_loop, epoch, &mut looks)?;
            for wait in &mut waits {
                self.look_at(wait, to_loop)?;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.hand_on(to_loop, epoch)
    }

    /// What this session's workflows said to others is handed to them before it ends: they take it and
    /// begin no steps, which whoever resumes them does. What they say in turn is handed on a few times: two
    /// that answer each other for ever lie in the inbox then, and nothing of it is lost.
    fn hand_on(&self, to_loop: &Sender<Message>, epoch: u64) -> Result<(), SessionError> {
        let mut seen = HashSet::new();
        for _ in 0..limits::HANDED_ON_MAX {
            let mut rows = self.store.commands(0)?;
            rows.retain(|row| is_event(&row.body) && seen.insert(row.id.clone()));
            if rows.is_empty() || self.is_stopping() {
                break;
            }
            let (tell, told) = channel();
            let _gone = to_loop.send(Message::StartNothing);
            self.pass_on(rows, to_loop, epoch);
            let _gone = to_loop.send(Message::Settle(tell));
            // Where the loop has ended, its own word says why.
            let _ended = told.recv();
        }
        Ok(())
    }

    /// Says a command to the loop: the command itself, or to go on where it was answered already.
    fn order(&self, wait: &mut Waiting<'_>, to_loop: &Sender<Message>) {
        let workflow_id = wait.one.command.workflow_id().clone();
        let command = match wait.one.answer.take() {
            Some(_) => Command::Resume { workflow_id },
            None => wait.one.command.clone(),
        };
        let (reply, answer) = channel();
        let (watch, rest) = channel();
        let (actor, from) = (self.actor.clone(), ReplyTo::Caller(reply));
        let _gone = to_loop.send(Message::Command { command, actor, from, watch: Some(watch) });
        (wait.answer, wait.rest) = (Some(answer), Some(rest));
    }

    /// Moves one of our commands along: its answer, then its rest.
    fn look_at(&self, wait: &mut Waiting<'_>, to_loop: &Sender<Message>) -> Result<(), SessionError> {
        if wait.one.answer.is_none() {
            match &wait.answer {
                Some(answer) => wait.one.answer = received(answer)?,
                // The loop takes it from the inbox. Its rest is asked for when it is answered: one
                // from before would say nothing of what the command led to.
                None => {
                    wait.one.answer = self.answer_of(wait.one)?;
                    if matches!(wait.one.answer, Some(Ok(_))) {
                        self.order(wait, to_loop);
                    }
                }
            }
        }
        if let (None, Some(rest)) = (&wait.one.rest, &wait.rest) {
            wait.one.rest = received(rest)?;
        }
        Ok(())
    }

    fn pass_on_inbox(
        &self,
        to_loop: &Sender<Message>,
        epoch: u64,
        looks: &mut Looks,
    ) -> Result<(), SessionError> {
        // An event may lie there for a hundred thousand workflows: what the loop has not come to yet is
        // not read to it again and again.
        if let Some(TryRecvError::Empty) = looks.taken_up.as_ref().and_then(|told| told.try_recv().err()) {
            return Ok(());
        }
        let changes = self.store.change_counter()?;
        if looks.changes == Some(changes) {
            return Ok(());
        }
        self.pass_on(self.store.commands(0)?, to_loop, epoch);
        let (tell, told) = channel();
        let _gone = to_loop.send(Message::TakenUp(tell));
        *looks = Looks { changes: Some(changes), taken_up: Some(told) };
        Ok(())
    }

    fn pass_on(&self, rows: Vec<InboxCommand>, to_loop: &Sender<Message>, epoch: u64) {
        from_inbox(rows, to_loop, &mut |row: InboxCommand, reason| {
            let refusal = Refusal::new(
                format!("the owner of this store cannot read the command: {reason}"),
                "are both processes of the same version?",
            );
            let answer = serde_json::to_value(Answer::Err(refusal)).unwrap_or_default();
            let commit = Commit { shard: 0, epoch, consumed: vec![(row.id, answer)], ..Commit::default() };
            self.store.commit(commit, Box::new(|_| {}));
        });
    }

    // ---- as a client ----------------------------------------------------------------------

    fn be_client(&self, own: &mut [Own]) -> Result<(), SessionError> {
        let waiting_for: HashSet<Arc<str>> =
            own.iter().filter(|o| !o.is_done()).map(|o| o.command.workflow_id().clone()).collect();
        for one in own.iter_mut().filter(|one| !one.is_sent) {
            let body =
                serde_json::to_value(self.redacted(&one.command)?).map_err(|e| machine(e.to_string()))?;
            self.store.send(InboxCommand {
                id: one.inbox_id.clone(),
                shard: 0,
                actor: self.actor.to_string(),
                body,
            })?;
            one.is_sent = true;
        }
        if waiting_for.is_empty() {
            return Ok(());
        }
        for one in own.iter_mut().filter(|one| !one.is_done()) {
            if one.answer.is_none() {
                one.answer = self.answer_of(one)?;
            }
            self.follow(one)?;
        }
        std::thread::sleep(LOOK_EVERY);
        Ok(())
    }

    /// A command as it may lie in the inbox: redacted already. The owner redacts it by its own rules.
    fn redacted(&self, command: &Command) -> Result<Command, SessionError> {
        let definition = match command {
            Command::Start(start) => Some(start.stored_definition()),
            Command::Resume { .. } | Command::Event { .. } => return Ok(command.clone()),
            Command::Fork(_)
            | Command::Settle { .. }
            | Command::Retry { .. }
            | Command::Cancel { .. }
            | Command::Pause { .. }
            | Command::Unpause { .. }
            | Command::Signal { .. }
            | Command::Compensate { .. }
            | Command::Resolve { .. }
            | Command::Append { .. }
            | Command::Record { .. } => {
                let workflow_id = match command {
                    Command::Fork(fork) => &fork.parent,
                    other => other.workflow_id(),
                };
                let hash = self.store.workflow(workflow_id)?.and_then(|row| row.definition);
                hash.map(|hash| self.store.definition(&hash)).transpose()?.flatten()
            }
        };
        let program = definition.and_then(|definition| self.programs.program(&definition).ok());
        let rules = program.map(|program| program.redaction()).unwrap_or_default();
        Ok(command.redacted(&self.programs.redaction().and(&rules)))
    }

    fn answer_of(&self, one: &Own) -> Result<Option<Answer>, SessionError> {
        match self.store.answer(&one.inbox_id)? {
            Some(answer) => Ok(Some(
                serde_json::from_value(answer)
                    .map_err(|e| machine(format!("an answer that cannot be read: {e}")))?,
            )),
            None => Ok(None),
        }
    }

    /// Shows what another process has written since the last look.
    fn show_new(&self, one: &mut Own) -> Result<(), SessionError> {
        let Some(observer) = &self.observer else { return Ok(()) };
        let id = one.command.workflow_id();
        let events = load::events_of(&*self.store, id, one.seen).map_err(|e| machine(e.to_string()))?;
        if let Some(last) = events.last() {
            one.seen = last.version;
            observer.committed(id, &events);
        }
        Ok(())
    }

    /// Shows what was written since the last look, and sees whether the workflow rests.
    fn follow(&self, one: &mut Own) -> Result<(), SessionError> {
        if !matches!(one.answer, Some(Ok(_))) {
            return Ok(());
        }
        let id = one.command.workflow_id().clone();
        // The row before the events: what ends the following must not hide the last of them.
        let Some(row) = self.store.workflow(&id)? else {
            return Ok(());
        };
        self.show_new(one)?;
        let status = serde_json::from_value::<Status>(Value::String(row.status)).unwrap_or(Status::Running);
        // Where no moment is waited for, only a person can move it.
        let moves = match status {
            Status::Waiting if row.wake_at.is_some() => {
                let state = load::state_at(&*self.store, &id, None).map_err(|e| machine(e.to_string()))?;
                state.is_some_and(|state| state.moves_by_time())
            }
            Status::Waiting => false,
            status => matches!(status, Status::Running | Status::Compensating),
        };
        if !moves {
            one.rest = Some(Rest { workflow_id: id, status, reason: None });
        }
        Ok(())
    }
}

impl Own {
    fn new(command: Command) -> Own {
        let inbox_id = ids::text_id().to_string();
        // A fork's past is its parent's, and was shown when it happened.
        let seen = match &command {
            Command::Fork(fork) => fork.cut,
            _ => 0,
        };
        Own { command, inbox_id, is_sent: false, answer: None, rest: None, seen, is_only_told: false }
    }

    fn end(self) -> Result<Rest, Refusal> {
        if let Some(Err(refusal)) = self.answer {
            return Err(refusal);
        }
        let workflow_id = self.command.workflow_id().clone();
        let reason = match (self.is_only_told, self.is_sent && self.answer.is_none()) {
            (_, true) => {
                "stopped, but the command lies with the process that owns the store, which may still \
                 carry it out"
                    .to_owned()
            }
            (true, false) => "nothing was started".to_owned(),
            (false, false) => "stopped".to_owned(),
        };
        let status = match (self.is_only_told, &self.answer) {
            (true, Some(Ok(accepted))) => accepted.status,
            _ => Status::Running,
        };
        Ok(self.rest.unwrap_or(Rest { workflow_id, status, reason: Some(reason) }))
    }

    /// Refused, or carried out and come to rest.
    fn is_done(&self) -> bool {
        match &self.answer {
            Some(Ok(_)) => self.is_only_told || self.rest.is_some(),
            Some(Err(_)) => true,
            None => false,
        }
    }
}

/// What an owner has seen of its inbox.
#[derive(Default)]
struct Looks {
    /// The change counter at the last look.
    changes: Option<u64>,
    /// Told when the loop has taken up what was found then.
    taken_up: Option<Receiver<()>>,
}

/// One of our commands in the hands of the loop.
struct Waiting<'a> {
    one: &'a mut Own,
    /// Where its answer comes from; the inbox's row when `None`.
    answer: Option<Receiver<Answer>>,
    rest: Option<Receiver<Rest>>,
}

fn received<T>(from: &Receiver<T>) -> Result<Option<T>, SessionError> {
    match from.try_recv() {
        Ok(found) => Ok(Some(found)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Disconnected) => Err(lost_loop()),
    }
}

fn machine(message: String) -> SessionError {
    SessionError::Store(StoreError { message, hint: None, is_input: false })
}

fn lost_loop() -> SessionError {
    machine("the loop ended early".into())
}
