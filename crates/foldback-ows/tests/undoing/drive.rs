//! A driver: it gives a workflow to the world, word by word, as an engine does, and kills it, cancels
//! it and takes it back by chance. All that it knows of a workflow is what its state owes.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use foldback_core::decide::after;
use foldback_core::rehearse::Logs;
use foldback_core::state::Owed;
use foldback_core::undo::{self, Armed};
use foldback_core::{
    Event, EventId, Fact, Hash, Key, Micros, Program, Run, Status, StepStatus, Stimulus, Timing, Verdict,
    Version, WorkflowState, advance, reuse,
};
use serde_json::json;

use crate::dice::Dice;
use crate::world::{Fate, Luck, World};

/// What befalls a workflow, one in so many words; 0 for never.
#[derive(Clone, Copy)]
pub struct Trouble {
    pub crashes: u64,
    pub cancels: u64,
    pub luck: Luck,
    /// Whether a person takes back what is left to be taken back.
    pub compensates: bool,
}

/// A workflow under way.
pub struct Drive<'a> {
    pub program: &'a dyn Program,
    pub trouble: Trouble,
    pub events: Vec<Event>,
    pub state: WorkflowState,
    run: Box<dyn Run>,
    /// Attempts under way here: which one, when it reports, what it comes to.
    flying: HashMap<Key, (u32, Micros, Fate)>,
    logs: Option<&'a Logs>,
    /// Whether a batch was cut in two: branches may then go on in another order than by the book.
    pub was_torn: bool,
    pub crashes: u32,
}

impl<'a> Drive<'a> {
    /// A workflow that has not begun, and the word that begins it.
    pub fn new(program: &'a dyn Program, id: &str, trouble: Trouble) -> (Drive<'a>, Stimulus) {
        let state = WorkflowState::empty(id);
        let first = Stimulus::Start {
            definition: Hash::of_bytes(b"undoing"),
            name: "undoing".into(),
            file: None,
            input: json!({}),
            lineage: None,
        };
        (Drive::at(program, trouble, Vec::new(), state, None, &first), first)
    }

    /// A workflow whose past is `events`, and that goes on with `first`.
    pub fn at(
        program: &'a dyn Program,
        trouble: Trouble,
        events: Vec<Event>,
        state: WorkflowState,
        logs: Option<&'a Logs>,
        first: &Stimulus,
    ) -> Drive<'a> {
        let run = match first {
            Stimulus::Fork { .. } => program.start(&after(&state, first.clone(), state.now)),
            _ => program.start(&state),
        };
        let flying = HashMap::new();
        Drive { program, trouble, events, state, run, flying, logs, was_torn: false, crashes: 0 }
    }

    /// Goes on until nothing moves it.
    pub fn go_on(&mut self, first: Stimulus, world: &mut World, dice: &mut Dice) {
        let mut next = Some((first, self.state.now.max(1_000)));
        for _ in 0..20_000 {
            let word = next.take().or_else(|| self.chance(dice)).or_else(|| self.owed(world, dice));
            let Some((stimulus, now)) = word.or_else(|| self.person(world, dice)) else { return };
            let before = self.events.len();
            self.say(stimulus, now);
            if self.trouble.crashes > 0 && dice.one_in(self.trouble.crashes) {
                self.crash(before, dice);
                next = Some((Stimulus::Continue, self.state.now));
                continue;
            }
            self.perform(before, world, dice);
        }
        panic!("no end after 20000 words");
    }

    fn say(&mut self, stimulus: Stimulus, now: Micros) {
        let mut serial = self.state.version;
        let mut ids = || {
            serial += 1;
            EventId((0xF01D_0000_u128 + u128::from(serial)).to_be_bytes())
        };
        let timing = Timing { now, actor: Arc::from("drive"), room: 1_000 };
        let said = format!("{stimulus:?}");
        let batch = advance(&mut self.state, &mut *self.run, stimulus, &timing, &mut ids)
            .unwrap_or_else(|illegal| panic!("{illegal}: {said}"));
        self.events.extend(batch.events);
    }

    /// The process dies: a part of the last batch may be lost with it, all before is on disk.
    fn crash(&mut self, before: usize, dice: &mut Dice) {
        let written = self.events.len() - before;
        let is_first = before == 0 || self.begins_at(before);
        let least = usize::from(is_first).min(written);
        let kept =
            if dice.one_in(2) { written } else { least + dice.below((written - least + 1) as u64) as usize };
        // To lose a whole batch is to lose nothing that anybody saw.
        self.was_torn |= kept > 0 && kept < written;
        self.events.truncate(before + kept);
        let id = self.state.workflow_id.clone();
        self.state = WorkflowState::fold(&id, &self.events).unwrap_or_else(|illegal| panic!("{illegal}"));
        self.state.workflow_id = id;
        self.run = self.program.start(&self.state);
        self.flying.clear();
        self.crashes += 1;
    }

    fn begins_at(&self, at: usize) -> bool {
        matches!(self.events.get(at).map(|event| &event.fact), Some(Fact::WorkflowForked(_)))
    }

    /// What the last batch began is under way.
    fn perform(&mut self, before: usize, world: &mut World, dice: &mut Dice) {
        for event in &self.events[before..] {
            let key = match &event.fact {
                Fact::StepAsked(asked) if asked.starts => &asked.key,
                Fact::AttemptStarted { key, .. } => key,
                _ => continue,
            };
            let Some(step) = self.state.step(key).filter(|step| step.status == StepStatus::Running) else {
                continue;
            };
            let fate = world.begin(&self.state.workflow_id, key, step, self.trouble.luck, dice);
            let most = if dice.one_in(4) { 20_000 } else { 200 };
            let takes = (1 + dice.below(most)) as i64 * 1_000;
            self.flying.insert(key.clone(), (step.attempts, event.timestamp + takes, fate));
        }
    }

    /// A person says what becomes of a write that is held, or ends it all, at any moment.
    fn chance(&mut self, dice: &mut Dice) -> Option<(Stimulus, Micros)> {
        if self.logs.is_some()
            && dice.one_in(2)
            && let Some(settle) = self.settle()
        {
            return Some(settle);
        }
        let may = self.trouble.cancels > 0 && self.state.end.is_none() && dice.one_in(self.trouble.cancels);
        may.then(|| (Stimulus::Cancel { reason: "enough".into() }, self.state.now))
    }

    /// What is owed and due first.
    fn owed(&mut self, world: &mut World, dice: &mut Dice) -> Option<(Stimulus, Micros)> {
        let due = self.state.owes().into_iter().map(|owed| {
            let due = match &owed {
                Owed::Start(_) | Owed::Undo(_) => self.state.now,
                Owed::Retry(_, due) | Owed::Timer(_, due) => *due,
                Owed::Attempt(key, attempt) => match self.flying.get(key) {
                    Some((flying, due, _)) if flying == attempt => *due,
                    Some(_) | None => self.state.now,
                },
            };
            (due.max(self.state.now), owed)
        });
        let mut due: Vec<(Micros, Owed)> = due.collect();
        due.sort_by_key(|(due, _)| *due);
        // What is due at one moment comes in any order.
        let together = due.iter().take_while(|(at, _)| *at == due[0].0).count();
        if together == 0 {
            return None;
        }
        let (now, owed) = due.swap_remove(dice.below(together as u64) as usize);
        Some((self.word(owed, world), now))
    }

    fn word(&mut self, owed: Owed, world: &mut World) -> Stimulus {
        match owed {
            Owed::Start(key) => match self.logs {
                Some(mut logs) => match reuse::word(&self.state, &key, &mut logs) {
                    Ok(word) => word,
                    Err(never) => match never {},
                },
                None => Stimulus::Begin { key },
            },
            Owed::Retry(key, _) => Stimulus::Begin { key },
            Owed::Timer(key, _) => Stimulus::TimerDue { key },
            Owed::Undo(scope) => self.undo(&scope),
            Owed::Attempt(key, attempt) => {
                let known = self.flying.remove(&key).filter(|(flying, ..)| *flying == attempt);
                match (known, self.state.step(&key)) {
                    (Some((_, _, fate)), Some(step)) => {
                        let outcome = world.end(&self.state.workflow_id, &key, step, fate);
                        Stimulus::Report { key, attempt, outcome, latency_ms: 1 }
                    }
                    (Some(_) | None, _) => Stimulus::Lost { key, attempt, found: None },
                }
            }
        }
    }

    fn undo(&self, scope: &Key) -> Stimulus {
        let mut read = |version: Version| {
            let event = &self.events[version as usize - 1];
            match &event.fact {
                Fact::UndoArmed(armed) => {
                    Ok::<_, Infallible>(Armed { undo: (**armed).clone(), is_erased: false })
                }
                other => panic!("nothing is armed at {version}: {other:?}"),
            }
        };
        let Ok(word) = undo::next(&self.state, scope, &mut read);
        word
    }

    /// What a person does where nothing else moves it.
    fn person(&mut self, world: &World, dice: &mut Dice) -> Option<(Stimulus, Micros)> {
        let now = self.state.now;
        let is_unknown = |key: &&Key| self.state.step(key).is_some_and(|s| s.status == StepStatus::Unknown);
        if let Some(key) = self.state.open.iter().find(is_unknown).cloned() {
            let step = self.state.step(&key)?;
            let landed = world.landed(&self.state.workflow_id, &key, step);
            return Some((Stimulus::Resolve { key, landed }, now));
        }
        self.settle().or_else(|| self.take_back(dice).map(|word| (word, now)))
    }

    /// What is held may be done.
    fn settle(&self) -> Option<(Stimulus, Micros)> {
        let is_held = |key: &&Key| self.state.step(key).is_some_and(|step| step.status == StepStatus::Held);
        let key = self.state.open.iter().find(is_held).filter(|_| self.state.end.is_none())?.clone();
        let settle = Stimulus::Settle { key, verdict: Verdict::Live, output: None, reason: "said".into() };
        Some((settle, self.state.now))
    }

    fn take_back(&mut self, dice: &mut Dice) -> Option<Stimulus> {
        let is_stuck = self.state.status() == Status::Stuck;
        let is_left = self.state.end.is_some() && self.state.newest_undo.is_some();
        if !self.trouble.compensates || !is_left {
            return None;
        }
        let of_undos = |key: &Key| key.undone().is_some();
        let again = self.run.failures(&self.state).into_iter().filter(of_undos).collect();
        let last = self.events.len() as Version;
        // A part first, by chance; all that is left in the end.
        let (mut from, mut down_to) = (None, None);
        if !is_stuck && dice.one_in(2) {
            from = dice.one_in(2).then(|| 1 + dice.below(last));
            down_to = dice.one_in(2).then(|| dice.below(last));
        }
        Some(Stimulus::Compensate { reason: "said".into(), from, down_to, again })
    }
}
