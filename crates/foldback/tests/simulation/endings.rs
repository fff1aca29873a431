//! Callers who end a workflow, pause it, let it go on, say something to it, or take back what it did, at any
//! moment.
//!
//! Their dice are their own: a seed without them is what it was.

use std::sync::Arc;

use foldback::core::event::Raised;
use foldback::core::{Measure, Status};
use foldback::engine::{Command, state_at};
use foldback::store::{Filter, WorkflowRow};
use serde_json::json;

use crate::callers::{Callers, State, Wish};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::story::Story;

/// Why a person is told that something cannot be so any more: it is his to know.
const REASONS: [&str; 7] = [
    "has ended already",
    "has not ended",
    "is not paused",
    "can be taken back",
    "may not follow",
    "is over its budget",
    "are used already",
];

pub struct Endings {
    dice: Dice,
    words: u64,
    /// Signals that were sent: each has another number.
    serial: u64,
    /// Signals that were taken, as whoever sent them was told: the workflow, and the number.
    pub taken: Vec<(Arc<str>, u64)>,
}

impl Endings {
    pub fn new(story: &Story, dice: Dice) -> Endings {
        Endings { dice, words: story.words, serial: 0, taken: Vec::new() }
    }

    fn signal(&mut self, workflow_id: Arc<str>, name: &str) -> Command {
        self.serial += 1;
        Command::Signal {
            workflow_id,
            name: name.into(),
            data: json!(self.serial),
            event_id: None,
            error: None,
        }
    }
}

/// Whether a refusal says what has become of a workflow meanwhile.
pub fn is_news(message: &str) -> bool {
    REASONS.iter().any(|reason| message.contains(reason))
}

impl Callers {
    /// Somebody ends a workflow, or pauses it, or takes it back. Says what, if anything.
    pub fn meddle(&mut self, disk: &Disk) -> Result<Option<String>, String> {
        if self.endings.words == 0 || !self.endings.dice.one_in(4) {
            return Ok(None);
        }
        let rows = disk.store.workflows(&Filter::default()).map_err(|e| e.to_string())?;
        if rows.is_empty() {
            return Ok(None);
        }
        self.endings.words -= 1;
        let row = &rows[self.endings.dice.below(rows.len())];
        let (workflow_id, reason) = (row.workflow_id.clone(), "enough".to_owned());
        let command = match self.endings.dice.below(6) {
            0 => Command::Pause { workflow_id, reason },
            1 | 2 => Command::Cancel { workflow_id, reason },
            3 => self.endings.signal(workflow_id, "go"),
            4 => self.endings.signal(workflow_id, "ok"),
            _ => self.compensation(row),
        };
        let said = format!("somebody wants {command:?}");
        self.wishes.push(Wish { command, state: State::Idle });
        Ok(Some(said))
    }

    fn compensation(&mut self, row: &WorkflowRow) -> Command {
        let dice = &mut self.endings.dice;
        let version = |dice: &mut Dice| dice.one_in(2).then(|| dice.within(1, row.version));
        let range = (version(dice), version(dice));
        Command::Compensate { workflow_id: row.workflow_id.clone(), reason: "regret".into(), range }
    }

    /// A person lets go on what is paused, takes back what is stuck, and, by chance, what has ended and
    /// left something standing. Says whether there was something.
    pub fn put_right(&mut self, disk: &Disk) -> Result<bool, String> {
        let rows = disk.store.workflows(&Filter::default()).map_err(|e| e.to_string())?;
        let mut any = false;
        for row in rows {
            let workflow_id = row.workflow_id.clone();
            let is = |status: Status| row.status == status.as_str();
            let command = if is(Status::Paused) {
                let raised = self.raised(disk, &workflow_id)?;
                Command::Unpause { workflow_id, reason: "go on".into(), raised }
            } else if is(Status::Stuck) {
                Command::Compensate { workflow_id, reason: "again".into(), range: (None, None) }
            } else if (is(Status::Completed) || is(Status::Failed)) && self.regrets(disk, &workflow_id)? {
                self.compensation(&row)
            } else {
                continue;
            };
            self.wishes.push(Wish { command, state: State::Idle });
            any = true;
        }
        Ok(any)
    }

    /// A little more of what is used up, where that is why somebody paused.
    fn raised(&mut self, disk: &Disk, id: &Arc<str>) -> Result<Vec<Raised>, String> {
        let state = state_at(&*disk.store, id, None).map_err(|e| e.to_string())?.ok_or("no log")?;
        let Some((scope, measure)) = state.pause.as_ref().and_then(|pause| pause.budget.clone()) else {
            return Ok(Vec::new());
        };
        let used = state.budgets.get(&scope).map_or(0, |budget| budget.used(measure, state.now));
        let more = if measure == Measure::WallMs { 600_000 } else { self.endings.dice.within(1, 4) };
        Ok(vec![Raised { scope, measure, limit: used + more }])
    }

    /// Somebody answers whoever waits for it. What waits there already is not said once more. Says whether
    /// there was somebody to answer.
    pub fn speak_up(&mut self, disk: &Disk) -> Result<bool, String> {
        let filter = Filter { status: Some(Status::Waiting.as_str().into()), ..Filter::default() };
        let mut any = false;
        for row in disk.store.workflows(&filter).map_err(|e| e.to_string())? {
            let state = state_at(&*disk.store, &row.workflow_id, None).map_err(|e| e.to_string())?;
            let state = state.ok_or("a row without a log")?;
            let is_kept = |name: &Arc<str>| state.signals.values().any(|signal| signal.name == *name);
            if let Some(name) = state.listens_for().iter().find(|name| !is_kept(name)) {
                let command = self.endings.signal(row.workflow_id, name);
                self.wishes.push(Wish { command, state: State::Idle });
                any = true;
            }
        }
        Ok(any)
    }

    /// Whether somebody wants taken back what is left: each time with a word less to say.
    fn regrets(&mut self, disk: &Disk, id: &Arc<str>) -> Result<bool, String> {
        let Endings { words, dice, .. } = &mut self.endings;
        if *words == 0 {
            return Ok(false);
        }
        *words -= 1;
        let state = state_at(&*disk.store, id, None).map_err(|e| e.to_string())?;
        Ok(state.is_some_and(|state| state.newest_undo.is_some()) && dice.one_in(2))
    }
}
