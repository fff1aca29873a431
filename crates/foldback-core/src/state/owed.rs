//! What a state owes, and the word for where it stands: both are read from the state, and kept nowhere.
//!
//! There is no list of work beside this. Who is paused is owed nothing that begins; who has ended only what
//! takes back or makes known what it did.

use serde::{Deserialize, Serialize};

use super::{End, EntryBody, Step, StepStatus, WorkflowState};
use crate::Micros;
use crate::key::Key;
use crate::step::{Effect, Recovery};

/// Where a workflow stands, as people and scripts read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Something is owed: a step, a retry, a turn.
    Running,
    /// Only a moment or a person can move it.
    Waiting,
    /// Nothing begins until a person says so.
    Paused,
    /// It ended well.
    Completed,
    /// It ended badly.
    Failed,
    /// A person ended it.
    Cancelled,
    /// What it did is being taken back.
    Compensating,
    /// What it did was taken back.
    Compensated,
    /// What it did could not be taken back whole.
    Stuck,
    /// A step's outcome has to be settled by a person.
    Unknown,
    /// Its program and its log parted.
    Parked,
    /// Its log breaks the law.
    Quarantined,
}

impl Status {
    /// The word that scripts rely on.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Waiting => "waiting",
            Status::Paused => "paused",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
            Status::Compensating => "compensating",
            Status::Compensated => "compensated",
            Status::Stuck => "stuck",
            Status::Unknown => "unknown",
            Status::Parked => "parked",
            Status::Quarantined => "quarantined",
        }
    }

    /// Whether a workflow in this state will never move again unless it is reopened.
    pub fn is_ended(self) -> bool {
        match self {
            Status::Completed
            | Status::Failed
            | Status::Cancelled
            | Status::Compensated
            | Status::Parked
            | Status::Quarantined => true,
            Status::Running
            | Status::Waiting
            | Status::Paused
            | Status::Unknown
            | Status::Compensating
            | Status::Stuck => false,
        }
    }
}

/// One thing that a state owes: what the engine derives its work from.
#[derive(Clone, Debug, PartialEq)]
pub enum Owed {
    /// A step whose first attempt has not begun.
    Start(Key),
    /// A step whose attempt has begun. If nobody here performs it, its process died.
    Attempt(Key, u32),
    /// A step that backs off, and when its next attempt is due.
    Retry(Key, Micros),
    /// A timer, and when it is due.
    Timer(Key, Micros),
    /// The next undo of the compensation of this scope: its event has to be read.
    Undo(Key),
}

impl WorkflowState {
    /// Where the workflow stands.
    pub fn status(&self) -> Status {
        match &self.end {
            Some(_) if self.is_being_settled() => self.compensating_status(),
            Some(_) if self.is_compensated => Status::Compensated,
            Some(End::Completed { .. }) => Status::Completed,
            Some(End::Failed { .. }) => Status::Failed,
            Some(End::Cancelled { .. }) => Status::Cancelled,
            Some(End::Parked { .. }) => Status::Parked,
            None if self.pause.is_some() => Status::Paused,
            None => self.open_status(),
        }
    }

    fn open_status(&self) -> Status {
        let (mut unknown, mut waits) = (false, false);
        for key in &self.open {
            let Some(entry) = self.entries.get(key) else {
                continue;
            };
            match &entry.body {
                EntryBody::Step(step) => match step.status {
                    StepStatus::Unknown => unknown |= !self.reconciling.contains(key),
                    StepStatus::Held => waits = true,
                    StepStatus::Pending | StepStatus::Running | StepStatus::Backoff => {
                        return Status::Running;
                    }
                    StepStatus::Completed | StepStatus::Failed | StepStatus::Cancelled => {}
                },
                EntryBody::Timer { fired: false, .. } | EntryBody::Listening { heard: None, .. } => {
                    waits = true;
                }
                EntryBody::Timer { .. }
                | EntryBody::Listening { .. }
                | EntryBody::Started { .. }
                | EntryBody::Decided { .. }
                | EntryBody::Finished { .. } => {}
            }
        }
        match (unknown, waits) {
            (true, _) => Status::Unknown,
            (_, true) => Status::Waiting,
            _ => Status::Running,
        }
    }

    /// What is owed to this workflow: its steps and timers. Everything that the engine does is
    /// derived from here; there is no second list of work.
    pub fn owes(&self) -> Vec<Owed> {
        let mut owed = Vec::new();
        // Whoever is paused begins nothing, and sends nothing again; that the outcome of a write is not
        // known is told all the same.
        let is_paused = self.pause.is_some();
        let is_told = |step: &Step| {
            let is_sent_again = step.recovery == Some(Recovery::Retry);
            step.effect == Effect::Write && step.status == StepStatus::Running && !is_sent_again
        };
        for key in &self.open {
            let Some(entry) = self.entries.get(key) else {
                continue;
            };
            match &entry.body {
                EntryBody::Step(step) => match step.status {
                    // An ended workflow starts nothing; that a write of it has no known outcome must
                    // not be lost.
                    StepStatus::Running | StepStatus::Pending | StepStatus::Backoff
                        if is_paused && !is_told(step) => {}
                    StepStatus::Running if self.may_move(key) || step.effect == Effect::Write => {
                        owed.push(Owed::Attempt(key.clone(), step.attempts))
                    }
                    StepStatus::Pending if self.may_move(key) => owed.push(Owed::Start(key.clone())),
                    StepStatus::Backoff if self.may_move(key) || step.is_in_doubt() => {
                        owed.push(Owed::Retry(key.clone(), step.due.unwrap_or(self.clock)));
                    }
                    StepStatus::Pending
                    | StepStatus::Running
                    | StepStatus::Backoff
                    | StepStatus::Completed
                    | StepStatus::Failed
                    | StepStatus::Cancelled
                    | StepStatus::Held
                    | StepStatus::Unknown => {}
                },
                EntryBody::Timer { due, fired: false, .. } if self.may_move(key) && !is_paused => {
                    owed.push(Owed::Timer(key.clone(), *due));
                }
                EntryBody::Timer { .. }
                | EntryBody::Listening { .. }
                | EntryBody::Started { .. }
                | EntryBody::Decided { .. }
                | EntryBody::Finished { .. } => {}
            }
        }
        owed.extend(self.owed_undos().filter(|_| !is_paused).map(Owed::Undo));
        owed
    }

    /// What a pause holds back.
    pub fn owes_once_unpaused(&self) -> Vec<Owed> {
        let (owed, unpaused) = (self.owes(), WorkflowState { pause: None, ..self.clone() });
        unpaused.owes().into_iter().filter(|later| !owed.contains(later)).collect()
    }

    /// The timer or backing-off step at this key: when it is due, and the delay that it was set with.
    /// `None` where nothing does.
    pub fn waits_until(&self, key: &Key) -> Option<(Micros, Micros)> {
        match &self.entries.get(key)?.body {
            EntryBody::Step(step) if step.status == StepStatus::Backoff => {
                step.due.map(|due| (due, step.delay))
            }
            EntryBody::Timer { due, delay, fired: false, .. } => Some((*due, *delay)),
            EntryBody::Step(_)
            | EntryBody::Timer { .. }
            | EntryBody::Listening { .. }
            | EntryBody::Started { .. }
            | EntryBody::Decided { .. }
            | EntryBody::Finished { .. } => None,
        }
    }

    /// When it has to be woken next, where a moment is what it waits for.
    pub fn wake_at(&self) -> Option<Micros> {
        let due = |owed: Owed| match owed {
            Owed::Retry(_, due) | Owed::Timer(_, due) => Some(due),
            Owed::Start(_) | Owed::Attempt(..) | Owed::Undo(_) => None,
        };
        self.owes().into_iter().filter_map(due).min()
    }

    /// Whether a moment moves it that nobody has to be waited for: a delay, or a wait. Where somebody is,
    /// the time that limits the wait moves nothing before it is due.
    pub fn moves_by_time(&self) -> bool {
        let asks_somebody = self.open.iter().any(|key| {
            matches!(self.entries.get(key).map(|entry| &entry.body), Some(EntryBody::Listening { .. }))
        });
        self.owes().iter().any(|owed| match owed {
            Owed::Retry(..) => true,
            Owed::Timer(key, _) => !asks_somebody || !self.is_limit(key),
            Owed::Start(_) | Owed::Attempt(..) | Owed::Undo(_) => false,
        })
    }

    /// When the time runs out of what stands at this key: by its own limit, or by that of a task around it.
    /// `None` where nothing limits it.
    pub fn deadline(&self, key: &Key) -> Option<Micros> {
        let limits = self.open.iter().filter(|limit| {
            let limited = limit.unmarked();
            self.is_limit(limit) && (limited == *key || key.is_inside(&limited))
        });
        limits.filter_map(|limit| self.waits_until(limit)).map(|(due, _)| due).min()
    }

    /// Whether this key is a timer that limits a task and has not fired: it holds nothing open.
    pub fn is_limit(&self, key: &Key) -> bool {
        let body = self.entries.get(key).map(|entry| &entry.body);
        matches!(body, Some(EntryBody::Timer { limits: true, fired: false, .. }))
    }
}
