//! The loop: one closed enum of messages, one synchronous handler. It performs nothing itself; it
//! reads a workflow when it takes it up, queues commits, and starts performers.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use foldback_core::{Key, Micros, Outcome, Owed, Stimulus, Version, WorkflowState};
use foldback_store::{Appended, CommitError, InboxCommand, Ownership, Store, StoreError};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::Programs;
use crate::command::{Answer, Command};
use crate::ids::EventIds;
use crate::kind::{Registry, Remains};
use crate::live::Live;
use crate::machine::{Clocks, Machine};
use crate::projector::is_order;
use crate::session::{Observer, Rest};

pub(crate) mod alarms;
mod attempts;
mod branches;
mod endings;
mod events;
mod orders;
mod orphans;
mod sleep;
mod stimuli;
mod streams;

use alarms::Alarms;
pub(crate) use branches::may_reopen;

/// Messages handled between two looks at the alarms.
const ROUND: usize = 256;

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
        /// Told once, when the workflow rests after this command.
        watch: Option<Sender<Rest>>,
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
        /// Which flight it was: [`crate::Attempt::flight`].
        flight: u64,
    },
    /// An attempt whose engine died was looked for.
    Looked {
        /// The workflow.
        workflow_id: Arc<str>,
        /// The step.
        key: Key,
        /// Which attempt.
        attempt: u32,
        /// What is left of it.
        remains: Remains,
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
    /// Say when all that was said before is taken up.
    TakenUp(Sender<()>),
    /// Say when all that was said before is carried out and on disk.
    Settle(Sender<()>),
    /// Start nothing new; go on taking commands.
    StartNothing,
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
    /// The clock, chance, and where attempts run.
    pub machine: Arc<dyn Machine>,
    /// Sees what is durable, and progress as it comes.
    pub observer: Option<Arc<dyn Observer>>,
}

/// An attempt under way.
struct Flight {
    /// Its number.
    number: u64,
    /// How many files it keeps open.
    files: usize,
    /// What tells it to stop.
    stop: oneshot::Sender<()>,
}

/// The loop of one shard's owner.
pub struct Engine {
    around: Surroundings,
    shard: u32,
    ownership: Ownership,
    inbox: Receiver<Message>,
    to_self: Sender<Message>,
    live: HashMap<Arc<str>, Live>,
    /// Attempts under way.
    in_flight: HashMap<(Arc<str>, Key, u32), Flight>,
    /// Files that they keep open, all together.
    files: usize,
    /// Flights so far.
    flights: u64,
    /// Attempts of each workflow in flight.
    flying: HashMap<Arc<str>, usize>,
    /// Looks for what attempts of other engines left running.
    looks: orphans::Looks,
    alarms: Alarms,
    /// Workflows that are not in memory, each with the moment of the steady clock at which it is brought back.
    asleep: BinaryHeap<Reverse<(Micros, Arc<str>)>>,
    /// What waits for room.
    pending: VecDeque<(Arc<str>, Owed)>,
    /// Attempts that wait for their commit.
    promised: usize,
    /// Workflows whose turn was cut: they go on when they are on disk.
    cut: HashSet<Arc<str>>,
    watchers: HashMap<Arc<str>, Vec<Sender<Rest>>>,
    /// Inbox commands taken up in this engine's life: each is carried out once.
    taken: HashSet<String>,
    /// The last versions of streams that were appended to lately: ahead of the disk by what is under way.
    streams: HashMap<Arc<str>, Version>,
    /// How many times a workflow was brought into memory.
    incarnations: u64,
    /// Commits queued and not yet on disk.
    under_way: usize,
    /// Those who wait until nothing is under way.
    settling: Vec<Sender<()>>,
    ids: EventIds,
    is_winding_down: bool,
    /// Whether commands are taken and no work is begun.
    starts_nothing: bool,
    failure: Option<StoreError>,
}

impl Engine {
    /// An engine for a shard that this process owns, and where to speak to it.
    pub fn new(around: Surroundings, shard: u32, ownership: Ownership) -> (Engine, Sender<Message>) {
        let (to_self, inbox) = channel();
        let engine = Engine {
            ids: EventIds::new(around.machine.seed()),
            around,
            shard,
            ownership,
            inbox,
            to_self: to_self.clone(),
            live: HashMap::new(),
            in_flight: HashMap::new(),
            files: 0,
            flights: 0,
            flying: HashMap::new(),
            looks: orphans::Looks::default(),
            alarms: Alarms::default(),
            asleep: BinaryHeap::new(),
            pending: VecDeque::new(),
            promised: 0,
            cut: HashSet::new(),
            watchers: HashMap::new(),
            taken: HashSet::new(),
            streams: HashMap::new(),
            incarnations: 0,
            under_way: 0,
            settling: Vec::new(),
            is_winding_down: false,
            starts_nothing: false,
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
            if let Some(ended) = self.round() {
                return ended;
            }
            match self.inbox.recv_timeout(self.until_next_alarm()) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// One round of the loop, which never waits: what has come is handled, what is due is done. The
    /// loop's whole work; [`Engine::run`] adds nothing to it but the waiting between two rounds.
    /// Says how the loop ended, once it has.
    pub fn round(&mut self) -> Option<Result<(), StoreError>> {
        // Not for so much at once that alarms would starve.
        for message in self.inbox.try_iter().take(ROUND).collect::<Vec<_>>() {
            self.handle(message);
        }
        self.wake_sleepers();
        self.fire_due();
        self.fill_room();
        if self.under_way == 0 {
            for tell in self.settling.drain(..) {
                let _gone = tell.send(());
            }
        }
        self.is_done().then(|| self.failure.take().map_or(Ok(()), Err))
    }

    /// When the next alarm is due, by the machine's steady clock. Without one, only a message moves anything.
    pub fn next_alarm(&self) -> Option<Micros> {
        let alarm = self.alarms.next();
        let sleeper = self.asleep.peek().map(|Reverse((at, _))| *at);
        alarm.into_iter().chain(sleeper).min().filter(|_| !self.is_winding_down)
    }

    /// The state of a workflow that is in memory; ahead of the disk by what is under way.
    pub fn state(&self, workflow_id: &str) -> Option<&WorkflowState> {
        self.live.get(workflow_id).map(|live| &live.state)
    }

    /// Both clocks, read now.
    fn clocks(&mut self) -> Clocks {
        let clocks = self.around.machine.clocks();
        self.alarms.look(clocks);
        clocks
    }

    fn is_done(&self) -> bool {
        self.failure.is_some() || (self.is_winding_down && self.in_flight.is_empty() && self.under_way == 0)
    }

    fn until_next_alarm(&self) -> Duration {
        let idle = Duration::from_millis(500);
        if !self.pending.is_empty() && self.room() > 0 {
            return Duration::ZERO;
        }
        self.next_alarm().map_or(idle, |at| {
            let left = at.saturating_sub(self.around.machine.clocks().steady);
            Duration::from_micros(u64::try_from(left).unwrap_or(0)).min(idle)
        })
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Command { command, actor, from, watch } => {
                if let Some(watch) = watch {
                    self.watchers.entry(command.workflow_id().clone()).or_default().push(watch);
                }
                self.command(command, &actor, from);
            }
            Message::Report { workflow_id, key, attempt, outcome, latency_ms, flight } => {
                // Of a flight that was let go of, or that has reported before.
                let place = (workflow_id, key, attempt);
                if self.in_flight.get(&place).is_none_or(|under_way| under_way.number != flight) {
                    return;
                }
                let (workflow_id, key, attempt) = place;
                self.landed(&workflow_id, &key, attempt);
                self.say(&workflow_id, Stimulus::Report { key, attempt, outcome, latency_ms }, "engine");
                self.rest_if_done(&workflow_id);
            }
            Message::Looked { workflow_id, key, attempt, remains } => {
                self.looked(&workflow_id, &key, attempt, remains);
            }
            Message::Committed { workflow_id, incarnation, result, answer } => {
                self.committed(&workflow_id, incarnation, result, answer);
            }
            Message::TakenUp(tell) => {
                let _gone = tell.send(());
            }
            Message::Settle(tell) => self.settling.push(tell),
            Message::StartNothing => self.starts_nothing = true,
            Message::WindDown => self.is_winding_down = true,
        }
    }
}

/// Whether a row of the inbox hands a workflow another one's event.
pub fn is_event(body: &Value) -> bool {
    body["command"] == "event"
}

/// Turns rows of the inbox into messages. A row that this build cannot read is answered so.
pub fn from_inbox(
    rows: Vec<InboxCommand>,
    to: &Sender<Message>,
    unreadable: &mut dyn FnMut(InboxCommand, String),
) {
    // What is said to the projections is the projector's to answer.
    for row in rows.into_iter().filter(|row| !is_order(&row.body)) {
        match serde_json::from_value::<Command>(row.body.clone()) {
            Ok(command) => {
                let _gone = to.send(Message::Command {
                    command,
                    actor: Arc::from(&*row.actor),
                    from: ReplyTo::Inbox(row.id),
                    watch: None,
                });
            }
            Err(error) => unreadable(row, error.to_string()),
        }
    }
}
