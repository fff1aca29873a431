//! Verifying: a program against recorded stimuli. Every consequence is derived anew and compared with
//! the one in the log; nothing is performed and nothing is written.
//!
//! Invariants: the walk begins at version 1 and never looks ahead. What is compared is the meaning of
//! a fact ([`Fact::StepAsked`]: key, kind, effect and request; a decision: what was chosen), not its
//! spelling, and not what may change without another past: retries, timeouts, places in the source; under
//! another definition than its own, also what becomes of a write in doubt and how it is taken back.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::asked::is_same_undo;
use crate::decide::{answer, lawful, runaway};
use crate::event::{Class, Event, Fact, StepAsked, Undo};
use crate::program::{Program, Run};
use crate::state::WorkflowState;
use crate::value::{Request, Slot};
use crate::{Hash, Illegal, Key, Micros, Version, limits};

/// Where a program and its log part first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parting {
    /// The version at which the log says something else than the program.
    pub version: Version,
    /// The key of which it is said; the program's, where the log says nothing of the kind.
    pub key: Option<Key>,
    /// What the log says there: a type and what of it differs; `null` where it says nothing.
    pub recorded: Value,
    /// What the program says there; `null` where it waits.
    pub derived: Value,
}

/// From where on a log cannot be compared with a program: it began when expressions meant something
/// else, and the first consequence that the program would have said differently has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Uncompared {
    /// The version from which on nothing is compared.
    pub from: Version,
    /// How many consequences are not.
    pub count: u64,
    /// The meaning of expressions that the log began with, and the program's.
    pub dialects: (u32, u32),
    /// What the first of them says, and what the program would.
    pub first: Box<Parting>,
}

/// Why a walk stopped.
#[derive(Clone, Debug, PartialEq)]
pub enum Stopped {
    /// The program says something else than the log.
    Parted(Box<Parting>),
    /// The log breaks the law: no program could have written it.
    Illegal(Illegal),
}

/// What a walk needs beside the events.
pub trait Library {
    /// Brings a value that is not at hand. Who cannot leaves it as it is.
    fn bring(&mut self, slot: &mut Slot);

    /// The state at an earlier version of the same log, its values at hand: a workflow that was
    /// reopened went back to it.
    fn base(&mut self, version: Version) -> WorkflowState;

    /// The program of a definition that the workflow follows from here on; `None` where another
    /// definition is put to the test in its place.
    fn program(&mut self, _definition: &Hash) -> Option<Arc<dyn Program>> {
        None
    }
}

/// A log whose values are all at hand.
impl Library for &[Event] {
    fn bring(&mut self, _slot: &mut Slot) {}

    fn base(&mut self, version: Version) -> WorkflowState {
        let before = self.partition_point(|event| event.version <= version);
        WorkflowState::folded("", &self[..before])
    }
}

/// A walk along a log. Give it each event in order, then say that there are no more.
pub struct Verification<'a> {
    program: &'a dyn Program,
    /// What it follows since it was forked or reopened with another definition.
    follows: Option<Arc<dyn Program>>,
    run: Box<dyn Run>,
    state: WorkflowState,
    /// Whose the parts of the log are that are still to come, each from where it was forked.
    whose: VecDeque<Arc<str>>,
    /// Derived, and not yet met in the log.
    due: VecDeque<Fact>,
    /// Facts since the last place where a batch may have been cut.
    batch: usize,
    compared: u64,
    /// The meaning of expressions that the log began with.
    dialect: u32,
    uncompared: Option<Uncompared>,
    /// Whether it is what the workflow itself followed.
    is_own: bool,
}

impl<'a> Verification<'a> {
    /// A walk from version 1. A fork says whose past it shares, the eldest first: what happened there
    /// happened to them, and a program may have said by which id.
    pub fn of(program: &'a dyn Program, ancestors: Vec<Arc<str>>, workflow_id: &str) -> Verification<'a> {
        let mut whose = VecDeque::from(ancestors);
        whose.push_back(Arc::from(workflow_id));
        let state = WorkflowState::empty(&whose.pop_front().unwrap_or_default());
        let run = program.start(&state);
        let due = VecDeque::new();
        let (follows, uncompared) = (None, None);
        Verification {
            program,
            follows,
            run,
            state,
            whose,
            due,
            batch: 0,
            compared: 0,
            dialect: 1,
            uncompared,
            is_own: false,
        }
    }

    /// The program is what the workflow itself followed: what becomes of a write in doubt, and how it is taken
    /// back, is the same too.
    pub fn of_its_own(self) -> Verification<'a> {
        Verification { is_own: true, ..self }
    }

    /// The next event. Values of stimuli, and of consequences that read otherwise than what was
    /// derived, are brought.
    ///
    /// # Errors
    /// Here the program and the log part, or the log breaks the law.
    pub fn take(&mut self, mut event: Event, library: &mut dyn Library) -> Result<(), Stopped> {
        if let Fact::WorkflowStarted(started) = &event.fact {
            self.dialect = started.dialect;
        }
        if self.uncompared.is_none()
            && let Err(stopped) = self.compare(&mut event, library)
        {
            self.uncompared = Some(self.excused(event.version, stopped)?);
            self.compared -= u64::from(event.fact.class() == Class::Consequence);
        }
        if let Some(uncompared) = &mut self.uncompared {
            uncompared.count += u64::from(event.fact.class() == Class::Consequence);
        }
        let had_ended = self.state.end.is_some();
        let is_fork = matches!(event.fact, Fact::WorkflowForked(_));
        self.state.take(&event, &mut |version| Ok(library.base(version))).map_err(Stopped::Illegal)?;
        if let Some(id) = is_fork.then(|| self.whose.pop_front()).flatten() {
            self.state.workflow_id = id;
        }
        if self.state.end.is_some() != had_ended {
            // What a turn asks for behind its end is not written.
            self.due.clear();
        }
        self.batch += 1;
        let begins = matches!(
            event.fact,
            Fact::WorkflowStarted(_) | Fact::WorkflowForked(_) | Fact::WorkflowReopened { .. }
        );
        if begins && self.uncompared.is_none() {
            self.begin(library);
        }
        Ok(())
    }

    /// A log that began with another meaning of expressions says nothing against the program.
    fn excused(&self, from: Version, stopped: Stopped) -> Result<Uncompared, Stopped> {
        let program = self.follows.as_deref().unwrap_or(self.program);
        match (stopped, program.dialect()) {
            (Stopped::Parted(first), Some(dialect)) if dialect != self.dialect => {
                Ok(Uncompared { from, count: 0, dialects: (self.dialect, dialect), first })
            }
            (stopped, _) => Err(stopped),
        }
    }

    /// Compares a consequence; brings the values of a stimulus.
    fn compare(&mut self, event: &mut Event, library: &mut dyn Library) -> Result<(), Stopped> {
        if event.fact.class() == Class::Stimulus {
            match event.fact {
                // A cut lies where a person wants it: the parent had more to say there.
                Fact::WorkflowForked(_) => self.due.clear(),
                _ => self.nothing_is_due(event)?,
            }
            event.fact.slots_mut().into_iter().for_each(|slot| library.bring(slot));
            self.batch = 0;
        } else {
            self.compared += 1;
            let derived = self.derived(event.clock());
            event.fact = self.compared(event, derived, library)?;
        }
        Ok(())
    }

    /// Begins a run from the state: one that has ended does not go on, and one of another definition
    /// knows nothing of what came before.
    fn begin(&mut self, library: &mut dyn Library) {
        if let Some(program) = library.program(&self.state.definition) {
            self.follows = Some(program);
        }
        self.run = match &self.follows {
            Some(program) => program.start(&self.state),
            None => self.program.start(&self.state),
        };
    }

    /// There are no more events. How many consequences were compared; all agreed.
    ///
    /// # Errors
    /// The program goes on where the log ends.
    pub fn end(&mut self) -> Result<u64, Stopped> {
        let (version, now) = (self.state.version + 1, self.state.clock);
        if self.uncompared.is_none()
            && let Some(fact) = self.left_over()
        {
            let stopped = parted(version, None, Some(&fact), now);
            self.uncompared = Some(self.excused(version, stopped)?);
        }
        Ok(self.compared)
    }

    /// From where on nothing was compared, if so: the log began with another meaning of expressions.
    pub fn uncompared(&self) -> Option<&Uncompared> {
        self.uncompared.as_ref()
    }

    /// How many consequences were compared so far.
    pub fn compared_so_far(&self) -> u64 {
        self.compared
    }

    fn nothing_is_due(&mut self, event: &Event) -> Result<(), Stopped> {
        match self.left_over() {
            Some(fact) => Err(parted(event.version, Some(&event.fact), Some(&fact), self.state.clock)),
            None => Ok(()),
        }
    }

    /// What the program would say before the world speaks. Where a batch may have been cut it is not
    /// asked: the world may have spoken in between, and the program goes on behind it.
    fn left_over(&mut self) -> Option<Fact> {
        if self.due.is_empty() && self.batch >= limits::BATCH_MAX_EVENTS {
            return None;
        }
        self.derived(self.state.clock)
    }

    /// The next consequence by the program.
    fn derived(&mut self, now: Micros) -> Option<Fact> {
        if !self.state.is_started() {
            return None;
        }
        if let Some(armed) = self.state.arming() {
            return Some(lawful(&self.state, &*self.run, armed));
        }
        if self.due.is_empty() {
            if self.batch >= limits::BATCH_MAX_EVENTS {
                self.batch = 0;
            }
            let mut room = usize::MAX;
            self.due = answer(&self.state, &mut *self.run, now, &mut room)?.into();
        }
        let fact = self.due.pop_front()?;
        Some(lawful(&self.state, &*self.run, fact))
    }

    /// The consequence to go on with: the derived one, whose values are all at hand, where it means
    /// what was recorded.
    fn compared(
        &self,
        event: &Event,
        derived: Option<Fact>,
        library: &mut dyn Library,
    ) -> Result<Fact, Stopped> {
        let now = event.clock();
        let Some(derived) = derived else {
            let mut recorded = event.fact.clone();
            recorded.slots_mut().into_iter().for_each(|slot| library.bring(slot));
            return Err(parted(event.version, Some(&recorded), None, now));
        };
        if let (Fact::StepAsked(recorded), Fact::StepAsked(asked)) = (&event.fact, &derived) {
            let is_same = recorded.key == asked.key
                && recorded.request_hash == asked.request_hash
                && recorded.secrets == asked.secrets
                && (&recorded.kind, recorded.effect) == (&asked.kind, asked.effect)
                && (!self.is_own || is_on_same_terms(recorded, asked));
            // The hash stands beside the request, and does not speak for it.
            if is_same && self.is_same_request(&recorded.request, &asked.request, library) {
                // The attempts that follow in the log went by the policy that was recorded.
                let mut recorded = recorded.clone();
                let given = recorded.undo.iter_mut().filter_map(|undo| undo.given_mut());
                given.chain(&mut recorded.given).for_each(|slot| library.bring(slot));
                return Ok(Fact::StepAsked(recorded));
            }
        } else if event.fact == derived {
            return Ok(derived);
        }
        let mut recorded = event.fact.clone();
        if let Fact::StepAsked(asked) = &mut recorded {
            asked.request = self.state.lists.whole(&asked.request);
        }
        recorded.slots_mut().into_iter().for_each(|slot| library.bring(slot));
        let said = meaning(&recorded, now);
        if said == meaning(&derived, now) {
            return Ok(derived);
        }
        // Where new events are made a runaway loop is stopped; a log from before that rule goes on.
        let stopped = runaway(&self.state, &*self.run, &derived);
        let stopped = stopped.map(|fact| lawful(&self.state, &*self.run, fact));
        match stopped.filter(|stopped| said == meaning(stopped, now)) {
            Some(stopped) => Ok(stopped),
            None => Err(parted(event.version, Some(&recorded), Some(&derived), now)),
        }
    }

    /// Whether a request that was recorded is the derived one: part by part, where values stand beside the
    /// log by their addresses, and else by what it reads.
    fn is_same_request(&self, recorded: &Request, derived: &Request, library: &mut dyn Library) -> bool {
        let mut whole = self.state.lists.whole(recorded);
        if whole == *derived {
            return true;
        }
        whole.slots_mut().for_each(|slot| library.bring(slot));
        whole.to_json() == derived.to_json()
    }
}

fn is_on_same_terms(recorded: &StepAsked, asked: &StepAsked) -> bool {
    recorded.recovery == asked.recovery && is_same_undo(recorded.undo.as_deref(), asked.undo.as_deref())
}

fn taken_back_by(undo: &Undo) -> &str {
    match undo {
        Undo::By { handler, .. } => handler,
        Undo::Irreversible(why) => why,
    }
}

/// The part of a consequence that is compared. It was written at `now`, by the machine's clock: of a timer the
/// delay is compared, not the time at which it is due.
fn meaning(fact: &Fact, now: Micros) -> Map<String, Value> {
    let value = |slot: &Slot| (*slot.get()).clone();
    let said = match fact {
        Fact::StepAsked(e) => json!({
            "kind": e.kind, "effect": e.effect, "finishes": e.finishes,
            "request": e.request.to_json(), "secrets": e.secrets,
            "recovery": e.recovery, "undo": e.undo.as_deref().map(taken_back_by),
        }),
        Fact::DecisionMade(e) => json!({"chosen": e.chosen, "finishes": e.finishes}),
        Fact::TimerSet { due, finishes, limits, .. } => {
            let delay_ms = due.saturating_sub(now) / 1_000;
            json!({"delay_ms": delay_ms, "finishes": finishes, "limits": limits})
        }
        Fact::TaskStarted { kind, input, collects, .. } => {
            json!({"kind": kind, "input": value(input), "collects": collects})
        }
        Fact::TaskFinished { kind, output, context, .. } => {
            json!({"kind": kind, "output": value(output), "context": context.as_ref().map(value)})
        }
        Fact::Recorded { event_type, data, .. } => json!({"event": &**event_type, "data": value(data)}),
        Fact::UndoArmed(e) => json!({
            "handler": &*e.handler, "undo": value(&e.undo), "output": e.output.as_ref().map(value),
        }),
        Fact::UndoCompleted { armed, .. } => json!({"armed": armed}),
        Fact::UndoFailed { armed, error, .. } => {
            json!({"armed": armed, "status": error.status, "title": error.title})
        }
        Fact::CompensationStarted { scope, .. } => json!({"scope": scope}),
        Fact::BudgetSet { limits, .. } => json!({"limits": limits}),
        Fact::BudgetWarned { scope, measure, spent, limit }
        | Fact::BudgetExceeded { scope, measure, spent, limit } => {
            json!({"scope": scope, "measure": measure, "spent": spent, "limit": limit})
        }
        Fact::ListenStarted { names, wants, .. } => json!({"names": names, "wants": value(wants)}),
        Fact::SignalTaken { signals, .. } => json!({"signals": signals}),
        Fact::SignalRefused { signal, .. } => json!({"signal": signal}),
        Fact::OutcomeReconciled { found, landed, .. } => {
            json!({"found": found, "landed": landed.as_ref().map(value)})
        }
        Fact::WorkflowCompleted { output } => json!({"output": value(output)}),
        // Where the detail stands makes no difference: a log from before details were set apart has it inline.
        Fact::WorkflowFailed { error } => json!({
            "status": error.status, "error": error.error_type, "title": error.title,
            "detail": error.plain().detail,
        }),
        Fact::StepCancelled { attempt, .. } => json!({"attempt": attempt}),
        Fact::TimerCancelled { .. } => json!({}),
        // That it was parked, not in whose words.
        Fact::WorkflowParked { .. } => json!({}),
        // The world's; never derived.
        Fact::WorkflowStarted(_)
        | Fact::AttemptStarted { .. }
        | Fact::AttemptFailed(_)
        | Fact::StepCompleted(_)
        | Fact::StepFailed(_)
        | Fact::OutcomeUnknown { .. }
        | Fact::OutcomeResolved { .. }
        | Fact::WorkflowReopened { .. }
        | Fact::WorkflowForked(_)
        | Fact::StepReused(_)
        | Fact::WriteHeld { .. }
        | Fact::WriteSettled { .. }
        | Fact::UndoStarted(_)
        | Fact::CompensationRequested { .. }
        | Fact::CompensationEnded { .. }
        | Fact::WorkflowCancelled { .. }
        | Fact::WorkflowPaused { .. }
        | Fact::WorkflowUnpaused { .. }
        | Fact::SignalReceived(_)
        | Fact::TimerFired { .. } => json!({}),
    };
    let Value::Object(said) = said else { return Map::new() };
    let mut map = Map::new();
    map.insert("type".into(), json!(fact.event_type()));
    if let Some(key) = fact.key() {
        map.insert("key".into(), json!(key));
    }
    map.extend(said);
    map
}

fn parted(version: Version, recorded: Option<&Fact>, derived: Option<&Fact>, now: Micros) -> Stopped {
    // A stimulus names what the world spoke of, which is not what parts.
    let said = recorded.filter(|fact| fact.class() == Class::Consequence);
    let key = said.and_then(Fact::key).or_else(|| derived.and_then(Fact::key)).cloned();
    let said_at = |fact| meaning(fact, now);
    let (mut a, mut b) = (recorded.map(said_at), derived.map(said_at));
    if let (Some(a), Some(b)) = (&mut a, &mut b) {
        only_unlike(a, b);
    }
    let shown = |map: Option<Map<String, Value>>| map.map_or(Value::Null, Value::Object);
    Stopped::Parted(Box::new(Parting { version, key, recorded: shown(a), derived: shown(b) }))
}

/// Leaves the type, and what differs: in full where the types do.
fn only_unlike(a: &mut Map<String, Value>, b: &mut Map<String, Value>) {
    if a.get("type") != b.get("type") {
        return;
    }
    without_same(a, b, &["type"]);
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (a.get_mut("request"), b.get_mut("request")) {
        without_same(a, b, &[]);
    }
}

fn without_same(a: &mut Map<String, Value>, b: &mut Map<String, Value>, kept: &[&str]) {
    a.retain(|name, value| {
        let is_same = !kept.contains(&name.as_str()) && b.get(name) == Some(value);
        if is_same {
            b.remove(name);
        }
        !is_same
    });
}

/// Verifies a log whose values are all at hand: how many consequences agree.
///
/// # Errors
/// Where the program and the log part, or the log breaks the law.
pub fn verify(program: &dyn Program, workflow_id: &str, events: &[Event]) -> Result<u64, Stopped> {
    let parents = events.iter().filter_map(|event| match &event.fact {
        Fact::WorkflowForked(forked) => Some(Arc::from(forked.lineage.parent.as_str())),
        _ => None,
    });
    let mut walk = Verification::of(program, parents.collect(), workflow_id);
    for event in events {
        walk.take(event.clone(), &mut { events })?;
    }
    walk.end()
}
