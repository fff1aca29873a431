//! What must hold when all is over, whatever happened on the way. It asks the store alone, as somebody
//! who comes later does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldback::core::state::End;
use foldback::core::step::idempotency_key;
use foldback::core::{Effect, Fact, Hash, Key, Verdict, WorkflowState};
use foldback::engine::{Programs, events_of, state_at, verify_own};
use foldback::store::{Filter, Recorded, Store, WorkflowRow};

use crate::callers::{Callers, NOTED};
use crate::disk::Disk;
use crate::lives::{Archive, Ask, View};
use crate::sim::waits_for_a_person;
use crate::story::Story;
use crate::taken;
use crate::world::World;

/// What a seed came to.
#[derive(Debug, PartialEq)]
pub struct Came {
    /// How each workflow ended, in a word.
    pub ends: BTreeMap<Arc<str>, String>,
    /// The hash of all chain hashes in the order of positions: of every byte in the log.
    pub digest: Hash,
    pub events: u64,
    pub counts: Counts,
    /// Workflows that went back.
    pub went_back: BTreeSet<Arc<str>>,
}

impl Came {
    /// How the workflows ended that somebody started and that never went back: a fork depends on the
    /// moment at which it is made.
    pub fn steady(&self) -> BTreeMap<&str, &str> {
        let ends = self.ends.iter().map(|(id, end)| (&**id, &**end));
        ends.filter(|(id, _)| !id.contains('~') && !self.went_back.contains(*id)).collect()
    }
}

/// How much of what happened, so that nobody takes nothing for something.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub seeds: u64,
    /// Seeds with a fork, or with a workflow that went back.
    pub branched: u64,
    pub forks: u64,
    /// Forks of forks.
    pub grandchildren: u64,
    /// How often a workflow went back.
    pub backs: u64,
    /// Outcomes that were taken from a past.
    pub taken: u64,
    pub held: u64,
    /// Writes that somebody, or a policy, allowed.
    pub released: u64,
    /// Forks that wait for somebody who never comes.
    pub waiting: u64,
    /// What was taken back, and how often that failed for good.
    pub undone: u64,
    pub stuck: u64,
    /// Words of people who ended, paused or took back a workflow.
    pub cancelled: u64,
    pub paused: u64,
    pub said: u64,
    /// Budgets that were used up.
    pub used_up: u64,
    pub regretted: u64,
    /// How often one was retried behind having been taken back.
    pub redone: u64,
}

impl Counts {
    /// Adds those of another seed.
    pub fn add(&mut self, other: &Counts) {
        self.seeds += other.seeds;
        self.branched += other.branched;
        self.forks += other.forks;
        self.grandchildren += other.grandchildren;
        self.backs += other.backs;
        self.taken += other.taken;
        self.held += other.held;
        self.released += other.released;
        self.waiting += other.waiting;
        self.undone += other.undone;
        self.stuck += other.stuck;
        self.cancelled += other.cancelled;
        self.paused += other.paused;
        self.said += other.said;
        self.used_up += other.used_up;
        self.regretted += other.regretted;
        self.redone += other.redone;
    }

    fn see(&mut self, id: &Arc<str>, fact: &Fact) {
        match fact {
            Fact::WorkflowForked(_) => {
                self.forks += 1;
                self.grandchildren += u64::from(id.matches('~').count() > 1);
            }
            Fact::WorkflowReopened { back_to: Some(_), .. } => {
                self.backs += 1;
                self.redone += u64::from(self.undone > 0);
            }
            Fact::UndoCompleted { .. } => self.undone += 1,
            Fact::UndoFailed { .. } => self.stuck += 1,
            Fact::WorkflowCancelled { .. } => self.cancelled += 1,
            Fact::WorkflowPaused { .. } => self.paused += 1,
            Fact::BudgetExceeded { .. } => self.used_up += 1,
            Fact::SignalTaken { signals, .. } => self.said += signals.len() as u64,
            Fact::CompensationRequested { .. } => self.regretted += 1,
            Fact::StepReused(_) => self.taken += 1,
            Fact::WriteHeld { .. } => self.held += 1,
            Fact::WriteSettled { verdict: Verdict::Live, .. } => self.released += 1,
            _ => {}
        }
    }
}

/// Every promise, about every workflow.
pub fn judge(story: &Story, disk: &Disk, world: &World, callers: &Callers) -> Result<Came, String> {
    let store = &*disk.store;
    let problems = store.check().map_err(|e| e.to_string())?;
    insist(problems.is_empty(), || format!("the store finds {problems:?}"))?;
    let rows = store.workflows(&Filter::default()).map_err(|e| e.to_string())?;
    let (mut counts, mut went_back) = (Counts { seeds: 1, ..Counts::default() }, BTreeSet::new());
    for row in &rows {
        let cut = row.parent.as_ref().map_or(0, |(_, cut, _)| *cut);
        let events = events_of(store, &row.workflow_id, cut).map_err(|e| e.to_string())?;
        let backs = counts.backs;
        events.iter().for_each(|event| counts.see(&row.workflow_id, &event.fact));
        if counts.backs > backs {
            went_back.insert(row.workflow_id.clone());
        }
    }
    counts.branched = u64::from(counts.forks + counts.backs > 0);
    let doubled = world.doubled(&went_back);
    insist(doubled.is_empty(), || doubled.join("\n"))?;
    // What was taken back is done again under another.
    let mut may_have_many = went_back.clone();
    may_have_many
        .extend(rows.iter().map(|row| row.workflow_id.clone()).filter(|id| story.facts(id).is_some()));
    let with_many_keys = world.with_many_keys(&may_have_many);
    insist(with_many_keys.is_empty(), || with_many_keys.join("\n"))?;

    let feed = store.feed(0, 0, usize::MAX).map_err(|e| e.to_string())?;
    // A fork's own events begin behind its cut.
    let cuts = rows.iter().filter_map(|row| Some((&*row.workflow_id, row.parent.as_ref()?.1)));
    let mut last: BTreeMap<&str, u64> = cuts.collect();
    let (mut written, mut hashes) = (BTreeSet::new(), Vec::new());
    for (recorded, position) in feed.iter().zip(1..) {
        let version = last.entry(&*recorded.workflow_id).or_default();
        *version += 1;
        insist(recorded.position == position && recorded.version == *version, || {
            format!("{} version {} at {position}", recorded.workflow_id, recorded.version)
        })?;
        hashes.extend_from_slice(&recorded.hash.0);
        written.insert((recorded.workflow_id.clone(), recorded.version, recorded.hash));
    }
    let lost = disk.durable().acknowledged.iter().find(|there| !written.contains(*there)).cloned();
    insist(lost.is_none(), || format!("{lost:?} was acknowledged and is not there"))?;

    let mut ends = BTreeMap::new();
    let expected = story.starts.len() as u64 + counts.forks;
    insist(rows.len() as u64 == expected && counts.forks == callers.forks(), || {
        format!("{} workflows, {} of them forks", rows.len(), counts.forks)
    })?;
    for (parent, was) in &callers.branches.parents {
        let is = store.read(parent, 0, was.len()).map_err(|e| e.to_string())?;
        let is_same = is.len() == was.len() && is.iter().zip(was).all(|(is, was)| is.hash == *was);
        insist(is_same, || format!("{parent} is not what it was when it was forked"))?;
    }
    let (mut asked, mut archive) = (BTreeSet::new(), Archive::default());
    for row in &rows {
        let id = &row.workflow_id;
        let started = story.starts.iter().zip(&story.notes).find(|(start, _)| start.workflow_id == *id);
        shares_its_past(store, row)?;
        let notes = started.map(|(_, notes)| *notes);
        insist(started.is_some() != row.parent.is_some(), || format!("nobody began {id}"))?;
        let state = match story.facts(id) {
            Some(facts) => taken::workflow(disk, world, callers, id, facts, &went_back, &mut asked)?,
            None => workflow(disk, world, row, notes, &mut asked, &mut archive)?,
        };
        agrees(story, disk, &state)?;
        insist(row.status == state.status().as_str(), || format!("{id}: the row says {}", row.status))?;
        let end = match &state.end {
            Some(End::Completed { output }) => format!("completed {}", output.get()),
            Some(End::Failed { error }) => format!("failed {}", error.status),
            Some(End::Cancelled { .. }) if story.facts(id).is_some() => "cancelled".to_owned(),
            None if callers.is_neglected(id) && waits_for_a_person(&state) => {
                counts.waiting += 1;
                "waiting".to_owned()
            }
            other => return Err(format!("{id} ended as {other:?}")),
        };
        ends.insert(id.clone(), end);
    }
    let unasked = world.applied.iter().find(|(key, _)| !asked.contains(*key));
    insist(unasked.is_none(), || {
        let place = unasked.map(|(_, applied)| &applied.place);
        format!("a write took effect under a key that nobody asked with: {place:?}")
    })?;
    let digest = Hash::of_bytes(&hashes);
    Ok(Came { ends, digest, events: feed.len() as u64, counts, went_back })
}

/// Up to its cut a fork's log is its parent's, event by event; what follows stands behind that.
fn shares_its_past(store: &dyn Store, row: &WorkflowRow) -> Result<(), String> {
    let Some((parent, cut, cut_hash)) = &row.parent else { return Ok(()) };
    let id = &row.workflow_id;
    let shared = store.read(id, 0, *cut as usize).map_err(|e| e.to_string())?;
    let theirs = store.read(parent, 0, *cut as usize).map_err(|e| e.to_string())?;
    let is_same = |(a, b): (&Recorded, &Recorded)| {
        (&a.workflow_id, a.version, a.hash) == (&b.workflow_id, b.version, b.hash)
    };
    let holds = shared.len() as u64 == *cut
        && theirs.len() == shared.len()
        && shared.iter().zip(&theirs).all(is_same)
        && theirs.last().is_some_and(|last| last.hash == *cut_hash);
    insist(holds, || format!("{id}: its past is not the one of {parent} up to {cut}"))?;
    let own = store.read(id, *cut, usize::MAX).map_err(|e| e.to_string())?;
    insist(own.iter().all(|r| r.workflow_id == *id), || format!("{id}: another's event behind its cut"))
}

/// What its program makes of all that happened to it is what its log says.
fn agrees(story: &Story, disk: &Disk, state: &WorkflowState) -> Result<(), String> {
    let (store, id) = (&*disk.store, &state.workflow_id);
    let definition = store.definition(&state.definition).map_err(|e| e.to_string())?;
    let program = story.programs.program(&definition.ok_or("no definition")?)?;
    let walked = verify_own(store, id, &*program, &*story.programs).map_err(|e| format!("{id}: {e}"))?;
    insist(walked.parting.is_none(), || format!("{id} does not verify: {:?}", walked.parting))
}

/// One workflow: its state. The idempotency keys of its writes are added to `asked_with`.
fn workflow(
    disk: &Disk,
    world: &World,
    row: &WorkflowRow,
    notes: Option<u64>,
    asked_with: &mut BTreeSet<String>,
    archive: &mut Archive,
) -> Result<WorkflowState, String> {
    let (store, id) = (&*disk.store, &row.workflow_id);
    let cut = row.parent.as_ref().map_or(0, |(_, cut, _)| *cut);
    let events = events_of(store, id, 0).map_err(|e| format!("{id}: {e}"))?;
    let folded = WorkflowState::fold(id, &events).map_err(|e| format!("{id}: {e}"))?;
    let state = state_at(store, id, None).map_err(|e| format!("{id}: {e}"))?.ok_or("no log")?;
    insist(folded == state, || format!("{id}: the fold of its log is not its state"))?;
    crate::streamed::check(id, &events)?;

    let mut view = View::default();
    // By idempotency key: the tries of a block share one.
    let (mut done, mut failed) = (BTreeSet::new(), BTreeMap::new());
    // Writes that were given up, by idempotency key.
    let mut given_up = BTreeMap::new();
    // Of writes whose server does not honour keys, by idempotency key: how often they are known to have
    // taken effect, and how often nobody found out.
    let mut effects: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut went_back = false;
    let mut noted: BTreeMap<String, u64> = BTreeMap::new();
    for event in &events {
        if let Fact::StepAsked(e) = &event.fact
            && e.effect == Effect::Write
        {
            asked_with.insert(idempotency_key(id, &e.key, &e.request_hash, 0));
        }
        // What a fork shares is judged as its parent's.
        if event.version <= cut {
            view.see(event, &events);
            continue;
        }
        archive.judge(store, id, &view, event)?;
        let View { asked, cancelled, .. } = &view;
        // A step that was given up begins no further attempt. One that only looks has ended with that:
        // what it answers late is in no log.
        let goes_on = |key: &Key, begins: bool| {
            let is_write = |key: &Key| asked.get(key.as_str()).is_some_and(|ask| ask.effect == Effect::Write);
            let may_go_on = !cancelled.contains(key) || (is_write(key) && !begins);
            let what = event.fact.event_type();
            insist(may_go_on, || format!("{id} `{key}` was given up, and then there was {what}"))
        };
        match &event.fact {
            Fact::StepCompleted(e) => {
                goes_on(&e.key, false)?;
                let Ask { effect, request_hash, of, is_keyed } = &asked[e.key.as_str()];
                let (output, what) = (e.output.get(), || format!("{id} `{}` attempt {}", e.key, e.attempt));
                insist(output["attempt"] == e.attempt, || {
                    format!("{}: holds the answer to attempt {}", what(), output["attempt"])
                })?;
                insist(output["of"] == of.as_str(), || format!("{}: the answer to another request", what()))?;
                let begun = world.begun.get(&(id.clone(), e.key.to_string())).copied().unwrap_or(0);
                insist(begun >= 1, || format!("{}: never performed", what()))?;
                if *effect == Effect::Write {
                    let key = idempotency_key(id, &e.key, request_hash, 0);
                    insist(world.applied.contains_key(&key), || format!("{}: took no effect", what()))?;
                    effects.entry(key.clone()).or_default().0 += u64::from(!is_keyed);
                    done.insert(key);
                }
            }
            Fact::OutcomeResolved { key, landed } => {
                let Ask { request_hash, is_keyed, .. } = &asked[key.as_str()];
                let key_sent = idempotency_key(id, key, request_hash, 0);
                let is_there = world.applied.contains_key(&key_sent);
                insist(landed.is_none() || is_there, || format!("{id} `{key}`: resolved otherwise"))?;
                let (known, open) = effects.entry(key_sent.clone()).or_default();
                *open = open.saturating_sub(u64::from(!is_keyed));
                if landed.is_some() {
                    *known += u64::from(!is_keyed);
                    done.insert(key_sent);
                }
            }
            Fact::OutcomeUnknown { key, .. } => {
                let Ask { request_hash, is_keyed, .. } = &asked[key.as_str()];
                let key_sent = idempotency_key(id, key, request_hash, 0);
                effects.entry(key_sent).or_default().1 += u64::from(!is_keyed);
            }
            Fact::StepFailed(e) => {
                goes_on(&e.key, false)?;
                let ask = &asked[e.key.as_str()];
                if ask.effect == Effect::Write {
                    failed.insert(idempotency_key(id, &e.key, &ask.request_hash, 0), &e.key);
                }
            }
            Fact::StepCancelled { key, .. } => {
                let ask = &asked[key.as_str()];
                if ask.effect == Effect::Write {
                    given_up.insert(idempotency_key(id, key, &ask.request_hash, 0), key);
                }
            }
            Fact::Recorded { event_type, key: None, data, .. } if **event_type == *NOTED => {
                *noted.entry(data.get().to_string()).or_default() += 1;
            }
            Fact::AttemptStarted { key, .. } => goes_on(key, true)?,
            Fact::AttemptFailed(e) => goes_on(&e.key, true)?,
            Fact::WorkflowReopened { back_to: Some(_), .. } => went_back = true,
            Fact::WorkflowStarted(_)
            | Fact::WorkflowForked(_)
            | Fact::WorkflowReopened { .. }
            | Fact::StepAsked(_)
            | Fact::StepReused(_)
            | Fact::WriteHeld { .. }
            | Fact::WriteSettled { .. }
            | Fact::TimerSet { .. }
            | Fact::TimerFired { .. }
            | Fact::TimerCancelled { .. }
            | Fact::DecisionMade(_)
            | Fact::TaskStarted { .. }
            | Fact::TaskFinished { .. }
            | Fact::OutcomeReconciled { .. }
            | Fact::UndoArmed(_)
            | Fact::WorkflowPaused { .. }
            | Fact::WorkflowUnpaused { .. }
            | Fact::BudgetSet { .. }
            | Fact::BudgetWarned { .. }
            | Fact::BudgetExceeded { .. }
            | Fact::SignalReceived(_)
            | Fact::ListenStarted { .. }
            | Fact::SignalTaken { .. }
            | Fact::SignalRefused { .. }
            | Fact::UndoStarted(_)
            | Fact::UndoCompleted { .. }
            | Fact::UndoFailed { .. }
            | Fact::CompensationStarted { .. }
            | Fact::CompensationRequested { .. }
            | Fact::CompensationEnded { .. }
            | Fact::WorkflowCancelled { .. }
            | Fact::Recorded { .. }
            | Fact::WorkflowCompleted { .. }
            | Fact::WorkflowFailed { .. }
            | Fact::WorkflowParked { .. } => {}
        }
        view.see(event, &events);
    }
    let notes = notes.unwrap_or(0);
    insist(noted.len() as u64 == notes && noted.values().all(|times| *times == 1), || {
        format!("{id}: of {notes} domain events there are {noted:?}")
    })?;
    let is_open = |key: &String| went_back && effects.get(key).is_some_and(|(_, open)| *open > 0);
    for (key, (known, open)) in effects.iter().filter(|(_, (known, open))| went_back && known + open > 0) {
        let times = world.applied.get(key).map_or(0, |applied| applied.times);
        insist((*known..=known + open).contains(&times), || {
            let place = world.applied.get(key).map(|applied| &applied.place);
            format!("{place:?} took effect {times} times, its log says {known}, and {open} unknown")
        })?;
    }
    for (key, step) in failed.iter().filter(|(key, _)| !done.contains(*key) && !is_open(key)) {
        insist(!world.applied.contains_key(key), || format!("{id} `{step}`: failed, and took effect"))?;
    }
    for (key, step) in given_up.iter().filter(|(key, _)| !done.contains(*key) && !is_open(key)) {
        let problem = || format!("{id} `{step}`: given up, and took effect, and the log does not say so");
        insist(!world.applied.contains_key(key), problem)?;
    }
    Ok(state)
}

fn insist(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
