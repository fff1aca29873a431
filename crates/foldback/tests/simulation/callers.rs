//! Callers: they start workflows, record domain events and settle unknown outcomes, say it again when
//! a process died before it answered, and remember what they were promised. See `branching` for forks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use foldback::core::step::idempotency_key;
use foldback::core::{EntryBody, Key, Status, StepStatus};
use foldback::engine::engine::{Message, ReplyTo};
use foldback::engine::{Answer, Command, Rest, state_at};
use foldback::store::{Filter, InboxCommand};
use serde_json::{Value, json};

use crate::branching::Branches;
use crate::dice::Dice;
use crate::disk::Disk;
use crate::endings::{Endings, is_news};
use crate::process::Process;
use crate::story::Story;
use crate::world::World;

/// The type of the domain events that callers record.
pub const NOTED: &str = "NOTED";

/// Why a person is told that something cannot be retried any more.
const REOPENED: [&str; 7] = [
    "has completed",
    "has not failed",
    "has moved",
    "was cancelled",
    "not taken back whole",
    "did not fail",
    "was taken back",
];

pub struct Callers {
    dice: Dice,
    pub(crate) wishes: Vec<Wish>,
    pub(crate) branches: Branches,
    pub(crate) endings: Endings,
    serial: u64,
    /// Workflows that were reopened: each is once.
    reopened: BTreeSet<Arc<str>>,
}

/// Something a caller wants to be done, once.
pub(crate) struct Wish {
    pub(crate) command: Command,
    pub(crate) state: State,
}

pub(crate) enum State {
    /// Not said yet, or to be said again.
    Idle,
    /// Said to a process, which owes the answer.
    Said(u64, Receiver<Answer>),
    /// In the inbox under this id.
    Posted(String),
    Done,
}

impl Wish {
    /// Nobody knows whether it was done. It is said again; but a person looks again first.
    fn again(&mut self) {
        self.state = match self.command {
            Command::Resolve { .. } | Command::Settle { .. } => State::Done,
            Command::Start(_)
            | Command::Fork(_)
            | Command::Append { .. }
            | Command::Record { .. }
            | Command::Resume { .. }
            | Command::Cancel { .. }
            | Command::Pause { .. }
            | Command::Unpause { .. }
            | Command::Signal { .. }
            | Command::Event { .. }
            | Command::Compensate { .. }
            | Command::Retry { .. } => State::Idle,
        };
    }
}

impl Callers {
    pub fn new(story: &Story, dice: Dice, branching: Dice, ending: Dice) -> Callers {
        let mut wishes = Vec::new();
        for (start, notes) in story.starts.iter().zip(&story.notes) {
            wishes.push(Wish { command: Command::Start(start.clone()), state: State::Idle });
            for n in 0..*notes {
                let (workflow_id, event_type) = (start.workflow_id.clone(), Arc::from(NOTED));
                let command = Command::Record { workflow_id, event_type, data: json!(n) };
                wishes.push(Wish { command, state: State::Idle });
            }
        }
        let branches = Branches::new(story, branching);
        let endings = Endings::new(story, ending);
        Callers { dice, wishes, branches, endings, serial: 0, reopened: BTreeSet::new() }
    }

    pub fn are_quiet(&self) -> bool {
        self.wishes.iter().all(|wish| matches!(wish.state, State::Done))
    }

    /// Forks that were wanted, and made.
    pub fn forks(&self) -> u64 {
        self.wishes.iter().filter(|wish| matches!(wish.command, Command::Fork(_))).count() as u64
    }

    fn is_started(&self, id: &str) -> bool {
        let is_its = |wish: &&Wish| match &wish.command {
            Command::Start(start) => *start.workflow_id == *id,
            Command::Fork(fork) => *fork.workflow_id == *id,
            _ => false,
        };
        self.wishes.iter().find(is_its).is_some_and(|wish| matches!(wish.state, State::Done))
    }

    /// Somebody says what he wants, to a process or through the inbox; or looks for his answer. All
    /// of them do when `all`.
    pub fn speak(&mut self, to: &mut Process, disk: &Disk, all: bool) -> Result<(), String> {
        let chosen = self.dice.below(self.wishes.len());
        for i in 0..self.wishes.len() {
            if !all && i != chosen {
                continue;
            }
            let begins = matches!(self.wishes[i].command, Command::Start(_) | Command::Fork(_));
            let may_be_said = begins || self.is_started(self.workflow(i));
            match &self.wishes[i].state {
                State::Idle if may_be_said => self.say(i, to, disk)?,
                State::Posted(id) => {
                    if let Some(answer) = disk.store.answer(id).map_err(|e| e.to_string())? {
                        let answer = serde_json::from_value(answer).map_err(|e| e.to_string())?;
                        self.hear(i, answer, disk, false)?;
                    }
                }
                State::Idle | State::Said(..) | State::Done => {}
            }
        }
        self.tidy();
        Ok(())
    }

    fn workflow(&self, i: usize) -> &str {
        self.wishes[i].command.workflow_id()
    }

    fn say(&mut self, i: usize, to: &mut Process, disk: &Disk) -> Result<(), String> {
        let command = self.wishes[i].command.clone();
        // To record twice is to record two facts: only the inbox knows a command by its id.
        let is_fact = matches!(command, Command::Record { .. } | Command::Signal { .. });
        let is_posted = is_fact || self.dice.one_in(2);
        if is_posted {
            self.serial += 1;
            let id = format!("command-{}", self.serial);
            let body = serde_json::to_value(&command).map_err(|e| e.to_string())?;
            let row = InboxCommand { id: id.clone(), shard: 0, actor: "caller".into(), body };
            disk.store.send(row).map_err(|e| e.to_string())?;
            self.wishes[i].state = State::Posted(id);
            return Ok(());
        }
        let (reply, answer) = channel();
        let (watch, rest) = channel();
        let (actor, from) = (Arc::from("caller"), ReplyTo::Caller(reply));
        let _gone = to.to.send(Message::Command { command, actor, from, watch: Some(watch) });
        to.watching.push(rest);
        self.wishes[i].state = State::Said(to.serial, answer);
        Ok(())
    }

    /// Hears what a process answered, and what it says of workflows at rest.
    pub fn listen(&mut self, process: &mut Process, disk: &Disk) -> Result<(), String> {
        for i in 0..self.wishes.len() {
            let State::Said(serial, answer) = &self.wishes[i].state else { continue };
            if *serial != process.serial {
                continue;
            }
            match answer.try_recv() {
                Ok(answer) => self.hear(i, answer, disk, process.is_owner())?,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.wishes[i].again(),
            }
        }
        self.tidy();
        let is_owner = process.is_owner();
        for rest in process.watching.iter().filter_map(|watch| watch.try_recv().ok()) {
            is_durable(&rest, disk, is_owner)?;
        }
        Ok(())
    }

    fn hear(&mut self, i: usize, answer: Answer, disk: &Disk, is_fresh: bool) -> Result<(), String> {
        let wish = &mut self.wishes[i];
        match (&answer, &wish.command) {
            (Ok(_), Command::Start(_) | Command::Fork(_)) => {
                let id = wish.command.workflow_id();
                if !disk.durable().heads.contains_key(id) {
                    return Err(format!("{id}: its start was answered before it was durable"));
                }
                wish.state = State::Done;
            }
            (Ok(_), Command::Resolve { workflow_id, key, .. }) => {
                let state = state_at(&*disk.store, workflow_id, None).map_err(|e| e.to_string())?;
                // Heard late, it may be that the next attempt is unknown too.
                if is_fresh && status_of(state.as_ref(), key) == Some(StepStatus::Unknown) {
                    return Err(format!("{workflow_id} `{key}`: resolved, but not durably"));
                }
                wish.state = State::Done;
            }
            (Ok(_), Command::Signal { workflow_id, data, .. }) => {
                self.endings.taken.push((workflow_id.clone(), data.as_u64().unwrap_or(0)));
                wish.state = State::Done;
            }
            (
                Ok(_),
                Command::Record { .. }
                | Command::Resume { .. }
                | Command::Retry { .. }
                | Command::Append { .. }
                | Command::Cancel { .. }
                | Command::Pause { .. }
                | Command::Unpause { .. }
                | Command::Event { .. }
                | Command::Compensate { .. }
                | Command::Settle { .. },
            ) => {
                wish.state = State::Done;
            }
            // It was forked already, by a word that got no answer.
            (Err(refusal), Command::Fork(fork)) if refusal.message.contains("exists already") => {
                if !disk.durable().heads.contains_key(&fork.workflow_id) {
                    return Err(format!("{} is said to be there, and is not", fork.workflow_id));
                }
                wish.state = State::Done;
            }
            // It was reopened already, by a word that got no answer.
            (Err(refusal), Command::Retry { .. })
                if REOPENED.iter().any(|said| refusal.message.contains(said)) =>
            {
                wish.state = State::Done;
            }
            // It has become something else meanwhile, perhaps by a word that got no answer.
            (
                Err(refusal),
                Command::Cancel { .. }
                | Command::Pause { .. }
                | Command::Unpause { .. }
                | Command::Signal { .. }
                | Command::Compensate { .. },
            ) if is_news(&refusal.message) => wish.state = State::Done,
            // What was asked is no longer the question.
            (Err(refusal), Command::Settle { .. })
                if ["holds no write", "was sent"].iter().any(|said| refusal.message.contains(said)) =>
            {
                wish.state = State::Done;
            }
            (Err(refusal), Command::Resolve { .. }) if refusal.message.contains("is not unknown") => {
                wish.state = State::Done;
            }
            (Err(refusal), _)
                if refusal.message.contains("simulated") || refusal.message.contains("did not take") =>
            {
                wish.again();
            }
            (Err(refusal), command) => return Err(format!("refused: {command:?}: {refusal:?}")),
        }
        Ok(())
    }

    /// What was resolved or settled may have to be so again, after another attempt.
    fn tidy(&mut self) {
        let is_over = |wish: &Wish| {
            let is_word = matches!(wish.command, Command::Resolve { .. } | Command::Settle { .. });
            is_word && matches!(wish.state, State::Done)
        };
        self.wishes.retain(|wish| !is_over(wish));
    }

    /// A process died: what it was told and has not answered is said again.
    pub fn lost(&mut self, process: u64) {
        for wish in &mut self.wishes {
            if matches!(wish.state, State::Said(serial, _) if serial == process) {
                wish.again();
            }
        }
        self.tidy();
    }

    /// A person reopens what failed, once each. Says whether there was such a workflow.
    pub fn reopen(&mut self, disk: &Disk) -> Result<bool, String> {
        let filter = Filter { status: Some("failed".into()), ..Filter::default() };
        let mut any = false;
        for row in disk.store.workflows(&filter).map_err(|e| e.to_string())? {
            let workflow_id = row.workflow_id;
            if self.reopened.insert(workflow_id.clone()) {
                let command = Command::Retry { workflow_id, reason: "once more".into(), back: None };
                self.wishes.push(Wish { command, state: State::Idle });
                any = true;
            }
        }
        Ok(any)
    }

    /// A person looks for outcomes that are unknown, finds out what became of them, and wants it to be
    /// written down. Says whether there was one.
    pub fn resolve(&mut self, disk: &Disk, world: &mut World) -> Result<bool, String> {
        let filter = Filter { status: Some("unknown".into()), ..Filter::default() };
        let mut any = false;
        for row in disk.store.workflows(&filter).map_err(|e| e.to_string())? {
            let id = row.workflow_id;
            let is_under_way = |wish: &Wish| matches!(&wish.command, Command::Resolve { workflow_id, .. } if *workflow_id == id);
            if self.wishes.iter().any(is_under_way) {
                continue;
            }
            let state = state_at(&*disk.store, &id, None).map_err(|e| e.to_string())?;
            let state = state.ok_or("a row without a log")?;
            for (key, entry) in &state.entries {
                let EntryBody::Step(step) = &entry.body else { continue };
                if step.status != StepStatus::Unknown {
                    continue;
                }
                world.settle(&(id.clone(), key.to_string()));
                let landed: Option<Value> =
                    world.truth(&idempotency_key(&id, key, &step.request_hash, step.generation));
                let command = Command::Resolve { workflow_id: id.clone(), key: key.clone(), landed };
                self.wishes.push(Wish { command, state: State::Idle });
                any = true;
            }
        }
        Ok(any)
    }
}

fn status_of(state: Option<&foldback::core::WorkflowState>, key: &Key) -> Option<StepStatus> {
    Some(state?.step(key)?.status)
}

/// What is said of a workflow at rest stands in the log.
fn is_durable(rest: &Rest, disk: &Disk, is_owner: bool) -> Result<(), String> {
    if rest.reason.is_some() || !is_owner {
        return Ok(());
    }
    let row = disk.store.workflow(&rest.workflow_id).map_err(|e| e.to_string())?;
    let told = row.map(|row| row.status).unwrap_or_default();
    if told != rest.status.as_str() && rest.status != Status::Quarantined {
        return Err(format!("{} rests as {:?}, on disk it is {told}", rest.workflow_id, rest.status));
    }
    Ok(())
}
