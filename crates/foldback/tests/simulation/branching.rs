//! Callers who fork a workflow wherever it stands, let one that failed go back, and say what becomes of a
//! write that is held. They prepare it as a person's command does, from what is on disk at that moment.
//!
//! Their dice are their own: a seed without forks is what it was before there were any.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldback::core::change::{Policy, Said, SaidTarget, Writes};
use foldback::core::cut::Wish as Wanted;
use foldback::core::{EntryBody, Fact, Hash, Key, StepStatus, Verdict};
use foldback::engine::{
    BranchError, Branching, Command, Prepared, events_of, prepare_fork, prepare_retry, state_at,
};
use foldback::programs::Definitions;
use foldback::store::{Filter, WorkflowRow};
use serde_json::{Value, json};

use crate::callers::{Callers, State, Wish};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::fronts::KIND;
use crate::story::Story;
use crate::world::World;

/// Why a person is told that something cannot be forked or go back so: it is his to know.
const REASONS: [&str; 4] =
    ["lies behind the failure", "is the past of its parent", "has not failed", "did not fail"];

pub struct Branches {
    dice: Dice,
    forks: u64,
    backs: u64,
    /// Whether a write may be denied. A document of `document` may lead back to one until it succeeds.
    denies: bool,
    /// Of workflows that hold a write, whether nobody ever comes for it.
    neglected: BTreeMap<Arc<str>, bool>,
    /// Logs as they were when they were forked: the workflow, and the hash of each event.
    pub parents: Vec<(Arc<str>, Vec<Hash>)>,
}

impl Branches {
    pub fn new(story: &Story, dice: Dice) -> Branches {
        let (forks, backs) = (story.forks, story.backs);
        let denies = story.undoing.is_empty();
        Branches { dice, forks, backs, denies, neglected: BTreeMap::new(), parents: Vec::new() }
    }

    fn policy(&mut self) -> Policy {
        match [Policy::Reuse, Policy::Ask, Policy::Stub, Policy::Deny, Policy::Live][self.dice.below(5)] {
            Policy::Deny if !self.denies => Policy::Ask,
            policy => policy,
        }
    }

    /// What is to be changed, of steps that were asked for.
    fn wanted(&mut self, asked: &[(Key, Value)]) -> Wanted {
        let mut wanted = Wanted { model_kind: KIND.to_owned(), ..Wanted::default() };
        if self.dice.one_in(2) {
            wanted.writes.policy = self.policy();
        }
        if asked.is_empty() {
            return wanted;
        }
        if self.dice.one_in(4) {
            let key = asked[self.dice.below(asked.len())].0.clone();
            wanted.writes = Writes { by_key: [(key, self.policy())].into(), ..wanted.writes };
        }
        if self.dice.one_in(4) {
            let key = asked[self.dice.below(asked.len())].0.to_string();
            wanted.rerun.push(if self.dice.one_in(3) { "*".to_owned() } else { key });
        }
        // Two tries of one write are one effect, and so are their undos: neither is edited alone.
        let asked: Vec<_> = asked.iter().filter(|(key, _)| !key.is_aside()).collect();
        if self.dice.one_in(2) && !asked.is_empty() {
            let (key, request) = asked[self.dice.below(asked.len())];
            wanted.edits.push(self.edit(key, request));
        }
        wanted
    }

    /// An edit of one member of a request, also of one that says how the world is to treat it.
    fn edit(&mut self, key: &Key, request: &Value) -> Said {
        let inside = if request.get("body").is_some() { "/body" } else { "" };
        // A server that does not honour keys is only safe with a person: it is never edited to be one.
        let (name, value) = match self.dice.below(8) {
            0..=2 => ("sum", json!(self.dice.below(1_000))),
            3 => ("fails", json!(self.dice.below(3))),
            4 => ("hopeless", json!(self.dice.one_in(2))),
            5 => ("keyed", json!(true)),
            6 => ("slack", json!(self.dice.below(2))),
            _ => ("tone", json!({ "of": self.dice.below(10) })),
        };
        let target = match self.dice.one_in(8) {
            true => SaidTarget::Models,
            false => SaidTarget::Request(key.clone()),
        };
        // What a step of the whole kind is told must suit a try of a block too.
        Said { target, path: format!("{inside}/{name}"), value: Ok(value) }
    }
}

impl Callers {
    /// Whether somebody thinks of branching now.
    pub fn may_branch(&mut self) -> bool {
        let branches = &mut self.branches;
        (branches.forks > 0 || branches.backs > 0) && branches.dice.one_in(6)
    }

    /// Whether there are forks, or workflows that went back.
    pub fn are_branching(&self) -> bool {
        !self.branches.parents.is_empty() || self.has_gone_back()
    }

    /// How many reads go well before one that does not.
    pub fn good_reads(&mut self) -> u32 {
        match self.are_branching() {
            true => self.branches.dice.below(12) as u32,
            false => 0,
        }
    }

    /// Whether nobody ever says what becomes of the writes that a workflow holds.
    pub fn is_neglected(&self, id: &str) -> bool {
        self.branches.neglected.get(id).copied().unwrap_or(false)
    }

    /// Somebody wants a fork, or that a workflow goes back. Says what, if anything.
    pub fn branch(&mut self, disk: &Disk, programs: &Definitions) -> Result<Option<String>, String> {
        let rows = disk.store.workflows(&Filter::default()).map_err(|e| e.to_string())?;
        let may_go_back = |row: &&WorkflowRow| ["failed", "compensated"].contains(&&*row.status);
        let failed: Vec<&WorkflowRow> = rows.iter().filter(may_go_back).collect();
        let branches = &mut self.branches;
        if branches.backs > 0 && !failed.is_empty() && (branches.forks == 0 || branches.dice.one_in(2)) {
            branches.backs -= 1;
            let row = failed[branches.dice.below(failed.len())];
            return self.go_back(row, disk, programs).map(Some);
        }
        if branches.forks > 0 && !rows.is_empty() {
            branches.forks -= 1;
            let row = &rows[branches.dice.below(rows.len())];
            return self.fork(row, disk, programs).map(Some);
        }
        Ok(None)
    }

    fn fork(&mut self, row: &WorkflowRow, disk: &Disk, programs: &Definitions) -> Result<String, String> {
        let parent = row.workflow_id.clone();
        let at = (!self.branches.dice.one_in(4)).then(|| self.branches.dice.within(1, row.version));
        let branching = self.branching(&parent, at, disk)?;
        let Some(prepared) = prepared(prepare_fork(&*disk.store, programs, &branching))? else {
            return Ok(format!("{parent} cannot be forked so"));
        };
        let there = disk.store.read(&parent, 0, usize::MAX).map_err(|e| e.to_string())?;
        self.branches.parents.push((parent.clone(), there.iter().map(|recorded| recorded.hash).collect()));
        let id: Arc<str> = format!("{parent}~{}", self.branches.parents.len()).into();
        let cut = prepared.cut;
        self.wishes.push(Wish { command: prepared.fork(id.clone()), state: State::Idle });
        Ok(format!(
            "somebody forks {parent}, which is {}, at {cut} as {id}: {:?}",
            row.status, branching.wish
        ))
    }

    fn go_back(&mut self, row: &WorkflowRow, disk: &Disk, programs: &Definitions) -> Result<String, String> {
        let id = row.workflow_id.clone();
        let at = (!self.branches.dice.one_in(4)).then(|| self.branches.dice.within(1, row.version));
        let branching = self.branching(&id, at, disk)?;
        let Some(prepared) = prepared(prepare_retry(&*disk.store, programs, &branching))? else {
            return Ok(format!("{id} cannot go back so"));
        };
        let cut = prepared.cut;
        self.wishes.push(Wish { command: prepared.retry("from further back"), state: State::Idle });
        Ok(format!("somebody lets {id} go back to {cut}: {:?}", branching.wish))
    }

    fn branching(&mut self, id: &Arc<str>, at: Option<u64>, disk: &Disk) -> Result<Branching, String> {
        let events = events_of(&*disk.store, id, 0).map_err(|e| e.to_string())?;
        let mut asked = Vec::new();
        for event in &events {
            if let Fact::StepAsked(step) = &event.fact {
                asked.push((step.key.clone(), step.request.to_json()));
            }
        }
        let wish = self.branches.wanted(&asked);
        Ok(Branching { workflow_id: id.clone(), at, wish, definition: None })
    }

    /// A person looks for writes that are held, and says what becomes of one. Says whether there was one.
    pub fn settle(&mut self, disk: &Disk, world: &mut World) -> Result<bool, String> {
        if !self.are_branching() {
            return Ok(false);
        }
        let filter = Filter { only_unfinished: true, ..Filter::default() };
        let mut any = false;
        for row in disk.store.workflows(&filter).map_err(|e| e.to_string())? {
            let id = row.workflow_id;
            let state = state_at(&*disk.store, &id, None).map_err(|e| e.to_string())?;
            let state = state.ok_or("a row without a log")?;
            for (key, entry) in &state.entries {
                let is_held = matches!(&entry.body, EntryBody::Step(s) if s.status == StepStatus::Held);
                if !is_held || self.is_settling(&id, key) || self.neglects(&id) {
                    continue;
                }
                let Branches { dice, denies, .. } = &mut self.branches;
                if dice.one_in(2) {
                    // He makes sure first that nothing of it is on its way.
                    world.settle(&(id.clone(), key.to_string()));
                }
                let (verdict, output) = match dice.below(4) {
                    0 if *denies => (Verdict::Deny, None),
                    1 => (Verdict::Stub, dice.one_in(2).then(|| json!({ "value": 7 }))),
                    _ => (Verdict::Live, None),
                };
                let command = Command::Settle { workflow_id: id.clone(), key: key.clone(), verdict, output };
                self.wishes.push(Wish { command, state: State::Idle });
                any = true;
            }
        }
        Ok(any)
    }

    fn neglects(&mut self, id: &Arc<str>) -> bool {
        let Branches { neglected, dice, .. } = &mut self.branches;
        *neglected.entry(id.clone()).or_insert_with(|| dice.one_in(8))
    }

    fn has_gone_back(&self) -> bool {
        self.wishes.iter().any(|wish| matches!(wish.command, Command::Retry { back: Some(_), .. }))
    }

    fn is_settling(&self, id: &str, of: &Key) -> bool {
        self.wishes.iter().any(|wish| {
            matches!(&wish.command, Command::Settle { workflow_id, key, .. } if **workflow_id == *id && key == of)
        })
    }
}

/// What was prepared; nothing where a person was told why not.
fn prepared(prepared: Result<Prepared, BranchError>) -> Result<Option<Prepared>, String> {
    match prepared {
        Ok(prepared) => Ok(Some(prepared)),
        Err(BranchError::Refused(refusal))
            if REASONS.iter().any(|reason| refusal.message.contains(reason)) =>
        {
            Ok(None)
        }
        Err(error) => Err(format!("not prepared: {error:?}")),
    }
}
