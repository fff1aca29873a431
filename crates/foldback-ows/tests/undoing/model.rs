//! What taking back means, said once more without the engine: a list of what is done and can be taken
//! back, and for each walk the newest of them that is its to take. It reads a log event by event and
//! says of the first that is not as it must be why it is not. It decides nothing and calls nothing of
//! `undo` or `decide`.

use std::collections::{BTreeMap, BTreeSet};

use foldback_core::event::{Found, UndoStarted};
use foldback_core::{Effect, Event, Fact, Key, Slot, Status, Version};

use crate::document::Facts;

/// What is done and can be taken back.
#[derive(Clone, Debug, PartialEq)]
pub struct Armed {
    /// Where its undo is armed: right behind its outcome.
    at: Version,
    key: Key,
    /// What identifies the effect.
    id: String,
}

#[derive(Debug)]
struct Walk {
    from: Version,
    down_to: Version,
    /// What is being taken back.
    current: Option<Version>,
    has_failed: bool,
}

pub struct Model<'a> {
    facts: &'a Facts,
    /// Oldest first.
    pub armed: Vec<Armed>,
    walks: BTreeMap<Key, Walk>,
    /// Writes that were sent and of which nobody knows.
    in_doubt: BTreeSet<Key>,
    end: Option<Status>,
    is_compensated: bool,
    /// Effects that stand and could be taken back.
    pub standing: BTreeSet<String>,
    /// What was taken back, in order, and by which walk.
    pub undone: Vec<(Key, String)>,
    writes: BTreeSet<Key>,
    /// An outcome whose undo has to be the next event.
    due: Option<Armed>,
}

impl<'a> Model<'a> {
    pub fn of(facts: &'a Facts) -> Model<'a> {
        Model {
            facts,
            armed: Vec::new(),
            walks: BTreeMap::new(),
            in_doubt: BTreeSet::new(),
            end: None,
            is_compensated: false,
            standing: BTreeSet::new(),
            undone: Vec::new(),
            writes: BTreeSet::new(),
            due: None,
        }
    }

    /// The next event, or why it may not stand there.
    pub fn see(&mut self, event: &Event) -> Result<(), String> {
        let due = self.due.take();
        match &event.fact {
            Fact::UndoArmed(armed) => match due {
                Some(due) if armed.key == due.key => self.armed.push(due),
                Some(_) | None => return Err(format!("`{}` was not done just now", armed.key)),
            },
            // What was done before is its parent's.
            Fact::WorkflowForked(_) => *self = Model::of(self.facts),
            _ if due.is_some() => return Err("the undo of what was done just now was to be armed".into()),
            Fact::StepAsked(asked) => {
                self.begins(&asked.key)?;
                if asked.effect == Effect::Write {
                    self.writes.insert(asked.key.clone());
                    self.may_have_begun(&asked.key, asked.starts);
                }
            }
            Fact::AttemptStarted { key, .. } => self.may_have_begun(key, true),
            Fact::AttemptFailed(failed) if !failed.unknown => drop(self.in_doubt.remove(&failed.key)),
            Fact::StepFailed(failed) => drop(self.in_doubt.remove(&failed.key)),
            Fact::StepCompleted(done) => self.is_done(&done.key, &done.output, event.version),
            Fact::OutcomeResolved { key, landed: Some(output) }
            | Fact::OutcomeReconciled { key, found: Found::Landed, landed: Some(output), .. } => {
                self.is_done(key, output, event.version);
            }
            Fact::OutcomeResolved { key, landed: None }
            | Fact::OutcomeReconciled { key, found: Found::Didnt, .. } => drop(self.in_doubt.remove(key)),
            Fact::Recorded { key: Some(key), data, .. } => {
                self.begins(key)?;
                self.is_done(key, data, event.version);
            }
            Fact::TaskStarted { key, .. } | Fact::TaskFinished { key, .. } | Fact::TimerSet { key, .. } => {
                self.begins(key)?;
            }
            Fact::CompensationStarted { scope, .. } => self.walk_begins(scope)?,
            Fact::CompensationRequested { from, down_to, .. } => {
                self.walk(Key::root(), from.unwrap_or(Version::MAX), down_to.unwrap_or(0));
            }
            Fact::UndoStarted(started) => self.undo_started(started)?,
            Fact::UndoCompleted { key, armed, scope } => self.undo_completed(key, *armed, scope)?,
            Fact::UndoFailed { armed, scope, .. } => {
                self.current(scope, *armed)?.has_failed = true;
                if self.end.is_some() && !scope.is_root() {
                    self.walks.remove(scope);
                }
            }
            Fact::CompensationEnded { scope } => self.walk_ends(scope)?,
            Fact::WorkflowFailed { .. } => self.ends(Status::Failed),
            Fact::WorkflowCancelled { .. } => self.ends(Status::Cancelled),
            Fact::WorkflowCompleted { .. } => self.ends(Status::Completed),
            Fact::WorkflowReopened { back_to, .. } => self.reopened(back_to.is_some()),
            Fact::WorkflowParked { recorded, asked, .. } => {
                return Err(format!("it was parked: recorded {recorded}, asked {asked}"));
            }
            _ => {}
        }
        Ok(())
    }

    /// What was done and not taken back can be, also where it went back to before that.
    fn reopened(&mut self, goes_back: bool) {
        (self.end, self.is_compensated) = (None, false);
        if goes_back {
            self.walks.clear();
            self.in_doubt.clear();
        }
    }

    /// Where it stands when nothing moves any more.
    pub fn status(&self) -> Result<Status, String> {
        let root = self.walks.get(&Key::root());
        match (&self.end, root) {
            (None, _) => Err("it does not end".into()),
            (Some(_), Some(walk)) if walk.has_failed => Ok(Status::Stuck),
            (Some(_), Some(_)) => Err("what it did is not taken back to its end".into()),
            (Some(_), None) if self.is_compensated => Ok(Status::Compensated),
            (Some(Status::Failed | Status::Cancelled), None)
                if !self.facts.holds && !self.armed.is_empty() =>
            {
                Err("what it did is not taken back".into())
            }
            (Some(end), None) => Ok(*end),
        }
    }

    fn may_have_begun(&mut self, key: &Key, begins: bool) {
        if begins && self.writes.contains(key) {
            self.in_doubt.insert(key.clone());
        }
    }

    fn is_done(&mut self, key: &Key, output: &Slot, version: Version) {
        self.in_doubt.remove(key);
        let is_undoable = self.facts.takes_back(key).is_some() && !key.is_aside();
        if is_undoable {
            let output = output.get();
            let id = output["id"].as_str().unwrap_or_default().to_owned();
            self.standing.insert(id.clone());
            self.due = Some(Armed { at: version + 1, key: key.clone(), id });
        }
    }

    /// The newest that is this walk's to take.
    fn next(&self, scope: &Key) -> Option<&Armed> {
        let walk = self.walks.get(scope)?;
        self.armed
            .iter()
            .rev()
            .find(|armed| is_done_in(&armed.key, scope) && armed.at <= walk.from && armed.at > walk.down_to)
    }

    /// Nothing of a handler begins while something that its block did stands.
    fn begins(&self, key: &Key) -> Result<(), String> {
        let text = key.as_str();
        for (at, mark) in text.match_indices("!catch/") {
            let block = block_of(&text[..at]);
            if !self.facts.compensates.contains(block.name()) {
                continue;
            }
            let handler = &text[..at + mark.len()];
            let stands =
                |armed: &&Armed| is_done_in(&armed.key, &block) && !armed.key.as_str().starts_with(handler);
            if let Some(armed) = self.armed.iter().find(stands) {
                return Err(format!("`{key}` begins while `{}` stands", armed.key));
            }
        }
        Ok(())
    }

    fn walk_begins(&mut self, scope: &Key) -> Result<(), String> {
        let may = match (&self.end, scope.is_root()) {
            (Some(Status::Failed | Status::Cancelled), true) => !self.facts.holds && !self.armed.is_empty(),
            (None, false) => self.facts.compensates.contains(scope.name()),
            (None | Some(_), _) => false,
        };
        if !may || self.is_compensated {
            return Err(format!("nothing is to be taken back of `{scope}`"));
        }
        self.walk(scope.clone(), Version::MAX, 0);
        Ok(())
    }

    fn walk(&mut self, scope: Key, from: Version, down_to: Version) {
        self.walks.insert(scope, Walk { from, down_to, current: None, has_failed: false });
    }

    fn undo_started(&mut self, started: &UndoStarted) -> Result<(), String> {
        let scope = &started.scope;
        if let Some(key) = self.in_doubt.iter().find(|key| is_done_in(key, scope)) {
            return Err(format!("nobody knows yet whether `{key}` happened"));
        }
        if scope.is_root() && self.walks.len() > 1 {
            return Err("a part is still being taken back".into());
        }
        match self.next(scope) {
            Some(next) if (next.at, &next.key) == (started.armed, &started.key) => {}
            next => return Err(format!("next to be taken back is {next:?}")),
        }
        match self.walks.get_mut(scope) {
            Some(walk) if walk.current.is_none() && !walk.has_failed => walk.current = Some(started.armed),
            Some(_) | None => return Err("another undo is under way".into()),
        }
        Ok(())
    }

    fn current(&mut self, scope: &Key, armed: Version) -> Result<&mut Walk, String> {
        let walk = self.walks.get_mut(scope).filter(|walk| walk.current == Some(armed) && !walk.has_failed);
        walk.ok_or_else(|| format!("what was armed at {armed} is not being taken back"))
    }

    fn undo_completed(&mut self, key: &Key, armed: Version, scope: &Key) -> Result<(), String> {
        self.current(scope, armed)?.current = None;
        let Some(at) = self.armed.iter().position(|known| known.at == armed && known.key == *key) else {
            return Err(format!("`{key}` is taken back already"));
        };
        let Armed { id, .. } = self.armed.remove(at);
        self.standing.remove(&id);
        self.undone.push((scope.clone(), id));
        Ok(())
    }

    fn walk_ends(&mut self, scope: &Key) -> Result<(), String> {
        if let Some(next) = self.next(scope) {
            return Err(format!("`{}` still stands", next.key));
        }
        let walk = self.walks.remove(scope).ok_or("nothing was being taken back")?;
        self.is_compensated |= scope.is_root();
        match walk.current {
            None => Ok(()),
            Some(armed) => Err(format!("what was armed at {armed} is being taken back")),
        }
    }

    fn ends(&mut self, end: Status) {
        self.end = Some(end);
        // Behind the end a part takes nothing more, but ends what it is in the middle of.
        self.walks.retain(|_, walk| walk.current.is_some() && !walk.has_failed);
        self.walks.values_mut().for_each(|walk| walk.from = 0);
    }
}

/// The block of a handler: `a/b` of `a/b!2`.
fn block_of(text: &str) -> Key {
    let start = text.rfind('/').map_or(0, |at| at + 1);
    let end = text[start..].find('!').map_or(text.len(), |at| start + at);
    Key::new(&text[..end])
}

/// Whether it was done in a block: in the block itself or in one of its tries, in no other visit.
fn is_done_in(key: &Key, scope: &Key) -> bool {
    scope.is_root()
        || key.as_str().strip_prefix(scope.as_str()).is_some_and(|rest| rest.starts_with(['/', '!']))
}
