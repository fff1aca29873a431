//! Who judges. [`advance`] takes one stimulus, writes what it means, lets the program answer, and
//! writes what it asks: one stimulus, one turn, one batch.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::change::{Changes, Rules, Target};
use crate::event::{
    DIALECT, DecisionMade, Event, EventId, Fact, Found, SignalReceived, StepAsked, StepReused, TaskKind,
    UndoArmed, UndoStarted, WorkflowForked, WorkflowStarted,
};
use crate::key::Key;
use crate::limits;
use crate::program::{Ask, Divergence, Run, StepAsk, Turn};
use crate::state::{StepStatus, WorkflowState};
use crate::step::{Effect, Failure, Recovery, error_type};
use crate::undo::{self, Armed};
use crate::value::{Request, Slot, is_too_deep};
use crate::{Illegal, Micros};

mod attempt;
mod stimulus;

use attempt::Attempt;
pub use stimulus::Stimulus;

/// When it is said, by whom, and what the engine can do now.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The clock of the machine. It may stand before the workflow's last fact: timestamps are lifted to
    /// that, delays count from here.
    pub now: Micros,
    /// Who speaks.
    pub actor: Arc<str>,
    /// How many steps may start now; the others wait until [`Stimulus::Begin`].
    pub room: usize,
}

/// Where event ids come from: the edge, since a core has no dice.
pub type Ids<'a> = &'a mut dyn FnMut() -> EventId;

/// What one stimulus led to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The events, in order; already applied to the state.
    pub events: Vec<Event>,
    /// Whether the turn was cut by [`limits::BATCH_MAX_EVENTS`]: say [`Stimulus::Continue`] next.
    pub is_cut: bool,
}

/// Judges a stimulus, applies what it means, lets the program answer until it waits or ends.
///
/// A program that panics, or asks for what the law forbids, parks its workflow with one event that
/// says why; what the stimulus meant, and what was asked before, stands.
///
/// # Errors
/// The stimulus may not stand here. The state is untouched.
pub fn advance(
    state: &mut WorkflowState,
    run: &mut dyn Run,
    stimulus: Stimulus,
    timing: &Timing,
    ids: Ids<'_>,
) -> Result<Batch, Illegal> {
    let mut batch = Batch::default();
    let mut room = timing.room;
    let engine = Arc::from("engine");
    let now = timing.now;
    if let Some(fact) = judge(state, stimulus, now, room > 0) {
        let refused =
            |reason| Illegal { version: state.version + 1, event_type: fact.event_type().to_owned(), reason };
        state.admits_fact(&fact).map_err(refused)?;
        if holds_too_deep(&fact) {
            return Err(refused(format!("a value nests deeper than {} levels", limits::VALUE_DEPTH_MAX)));
        }
        let fact = erasable(run, with_handler(state, run, fact));
        write(state, &mut batch, fact, None, now, &timing.actor, ids);
    }
    if !state.is_started() {
        return Ok(batch);
    }
    loop {
        if batch.events.len() >= limits::BATCH_MAX_EVENTS {
            batch.is_cut = true;
            break;
        }
        let Some(facts) = answer(state, run, now, &mut room) else { break };
        for fact in facts {
            let had_ended = state.end.is_some();
            let fact = runaway(state, run, &fact).unwrap_or(fact);
            let fact = lawful(state, run, fact);
            write(state, &mut batch, fact, state.stimulus, now, &engine, ids);
            // What has just been done is armed before the next is said.
            if let Some(armed) = state.arming() {
                let armed = lawful(state, run, armed);
                write(state, &mut batch, armed, state.stimulus, now, &engine, ids);
            }
            // What a turn asks for behind its end is not written.
            if state.end.is_some() != had_ended {
                break;
            }
        }
    }
    Ok(batch)
}

/// What follows from the state, and from the program's next turn; `None` where it waits. A completed
/// write arms its undo before anything else is said; then come the tasks of undos under way.
pub(crate) fn answer(
    state: &WorkflowState,
    run: &mut dyn Run,
    now: Micros,
    room: &mut usize,
) -> Option<Vec<Fact>> {
    if let Some(fact) = state.arming().or_else(|| state.of_budgets(now)) {
        return Some(vec![fact]);
    }
    // Who is paused hears what the world says, and answers later.
    if state.pause.is_some() {
        return None;
    }
    for undo in state.undos_under_way() {
        if let Some(facts) = answer_of_undo(state, run, undo, now, room) {
            return Some(facts);
        }
    }
    for key in &state.reconciling {
        if let Some(facts) = answer_of_reconcile(state, run, key, now, room) {
            return Some(facts);
        }
    }
    if state.end.is_some() {
        let because = state.reason_to_compensate().filter(|_| run.compensates())?.to_owned();
        return Some(vec![Fact::CompensationStarted { scope: Key::root(), because }]);
    }
    Some(match turn_of(state, &mut |state| run.turn(state)) {
        Turn::Waits => return None,
        _ if state.turn_events > limits::TURN_MAX_EVENTS => {
            vec![Fact::WorkflowFailed { error: endless() }]
        }
        Turn::Asks(asks) => asks.into_iter().map(|ask| consequence(state, ask, now, room)).collect(),
        Turn::Ends(Ok(output)) => vec![Fact::WorkflowCompleted { output: Slot::of(output) }],
        Turn::Ends(Err(error)) => vec![Fact::WorkflowFailed { error }],
        Turn::Diverged(at) => {
            vec![Fact::WorkflowParked { key: at.key, recorded: at.recorded, asked: at.asked }]
        }
    })
}

/// A domain event with what takes it back, where its program takes such events back.
fn with_handler(state: &WorkflowState, run: &dyn Run, mut fact: Fact) -> Fact {
    if let Fact::Recorded { event_type, key, handler, .. } = &mut fact
        && state.is_started()
        && state.end.is_none()
        && !key.as_ref().is_some_and(Key::is_aside)
    {
        *handler = run.undoes_event(event_type);
    }
    fact
}

/// What the next turn of an undo's tasks leads to; `None` where it waits.
fn answer_of_undo(
    state: &WorkflowState,
    run: &mut dyn Run,
    undo: &UndoStarted,
    now: Micros,
    room: &mut usize,
) -> Option<Vec<Fact>> {
    let (key, armed, scope) = (undo.key.clone(), undo.armed, undo.scope.clone());
    let failed =
        |key, error: Failure| vec![Fact::UndoFailed { key, armed, scope: undo.scope.clone(), error }];
    if state.compensations.get(&scope).is_some_and(|compensation| compensation.is_by_hand) {
        return Some(vec![Fact::UndoCompleted { key, armed, scope }]);
    }
    if undo.undo.is_none() {
        let error = undo::erased(&key);
        return Some(failed(key, error));
    }
    Some(match turn_of(state, &mut |state| run.undo(state, undo)) {
        Turn::Waits => return None,
        _ if state.turn_events > limits::TURN_MAX_EVENTS => failed(key, endless()),
        Turn::Asks(asks) => asks.into_iter().map(|ask| consequence(state, ask, now, room)).collect(),
        Turn::Ends(Ok(_)) => vec![Fact::UndoCompleted { key, armed, scope }],
        Turn::Ends(Err(error)) => failed(key, error),
        Turn::Diverged(at) => {
            let detail = format!("at `{}` the log says: {}; the program: {}", at.key, at.recorded, at.asked);
            let title = "The program knows no way to take it back";
            let error = Failure::new(error_type::CONFIGURATION, 500, title, detail).at(&key);
            failed(key, error)
        }
    })
}

/// What the next turn of the tasks leads to that find out whether a step happened; `None` where they wait.
fn answer_of_reconcile(
    state: &WorkflowState,
    run: &mut dyn Run,
    key: &Key,
    now: Micros,
    room: &mut usize,
) -> Option<Vec<Fact>> {
    let (found, landed, reason) = match turn_of(state, &mut |state| run.reconcile(state, key)) {
        Turn::Waits => return None,
        Turn::Asks(asks) if state.turn_events <= limits::TURN_MAX_EVENTS => {
            return Some(asks.into_iter().map(|ask| consequence(state, ask, now, room)).collect());
        }
        Turn::Asks(_) => (Found::Unknown, None, "what looked for it never waits".to_owned()),
        Turn::Ends(Ok(answer)) => undo::found(&answer),
        Turn::Ends(Err(error)) => {
            let reason = format!("what looked for it failed: {} {}", error.status, error.title);
            (Found::Unknown, None, reason)
        }
        Turn::Diverged(at) => (Found::Unknown, None, format!("the program cannot look for it: {}", at.asked)),
    };
    Some(vec![Fact::OutcomeReconciled { key: key.clone(), found, landed, reason }])
}

/// The failure that takes the place of a consequence which jumps back once too often.
pub(crate) fn runaway(state: &WorkflowState, run: &dyn Run, fact: &Fact) -> Option<Fact> {
    crate::runaway::in_place_of(state, fact, run.jumps_max()?)
}

/// The fact as it may be written here: itself, or why not.
pub(crate) fn lawful(state: &WorkflowState, run: &dyn Run, fact: Fact) -> Fact {
    let fact = with_handler(state, run, fact);
    let fact = if holds_too_deep(&fact) { too_deep(&fact) } else { fact };
    let fact = match state.admits_fact(&fact) {
        Ok(()) => fact,
        Err(reason) => broke_the_law(&fact, &reason),
    };
    erasable(run, fact)
}

/// A turn is a person's code. Its panic costs its workflow, not the process.
pub(crate) fn turn_of(state: &WorkflowState, turn: &mut dyn FnMut(&WorkflowState) -> Turn) -> Turn {
    catch_unwind(AssertUnwindSafe(|| turn(state))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Turn::Diverged(Divergence {
            key: Key::root(),
            recorded: "a program that answers".into(),
            asked: format!("it panicked: {text}"),
        })
    })
}

/// What its definition lets a person erase is kept where it can be erased.
fn erasable(run: &dyn Run, mut fact: Fact) -> Fact {
    let is_apart = match &fact {
        Fact::SignalReceived(signal) => run.hears_apart(&signal.name),
        fact => run.is_erasable(fact.key().unwrap_or(&Key::root())),
    };
    if is_apart {
        fact.set_apart();
    }
    // What failed says so at its own key and, last, at the workflow's.
    if let Some(failure) = fact.failure_mut()
        && failure.key.as_ref().is_some_and(|key| run.is_erasable(key))
    {
        failure.set_apart();
    }
    // What a person puts into a step's place is the step's.
    if let Some(changes) = fact.changes_mut() {
        for edit in &mut changes.edits {
            if matches!(&edit.target, Target::Key(key) if run.is_erasable(key)) {
                edit.value.set_apart();
            }
        }
        for given in changes.outputs.iter_mut().filter(|given| run.is_erasable(&given.key)) {
            given.output.set_apart();
        }
    }
    fact
}

fn broke_the_law(fact: &Fact, reason: &str) -> Fact {
    Fact::WorkflowParked {
        key: fact.key().cloned().unwrap_or_else(Key::root),
        recorded: "a log that obeys the law".into(),
        asked: format!("{}: {reason}", fact.event_type()),
    }
}

fn endless() -> Failure {
    let detail = format!(
        "more than {} facts followed one stimulus; give the loop a step, a wait or an end",
        limits::TURN_MAX_EVENTS
    );
    Failure::new(error_type::RUNTIME, 500, "The program never waits", detail)
}

/// Whether a fact holds a value that nests deeper than a log can be read back.
fn holds_too_deep(fact: &Fact) -> bool {
    fact.slots().iter().any(|slot| slot.value().is_some_and(|value| is_too_deep(value)))
}

/// What becomes of a consequence that [`holds_too_deep`].
fn too_deep(fact: &Fact) -> Fact {
    let error = nesting(format!("what follows nests deeper than {} levels", limits::VALUE_DEPTH_MAX));
    Fact::WorkflowFailed { error: fact.key().map_or(error.clone(), |key| error.at(key)) }
}

fn nesting(detail: String) -> Failure {
    Failure::new(error_type::RUNTIME, 500, "A value nests too deep", detail)
}

fn write(
    state: &mut WorkflowState,
    batch: &mut Batch,
    fact: Fact,
    causation_id: Option<EventId>,
    now: Micros,
    actor: &Arc<str>,
    ids: Ids<'_>,
) {
    let timestamp = now.max(state.now);
    let own_id = fact.signal_id(&state.workflow_id);
    let event = Event {
        id: own_id.unwrap_or_else(ids),
        version: state.version + 1,
        timestamp,
        clock: (now < timestamp).then_some(now),
        causation_id,
        correlation_id: state.correlation_id,
        actor: actor.clone(),
        fact,
    };
    debug_assert_eq!(state.admits(&event), Ok(()));
    let short = match &event.fact {
        Fact::StepAsked(asked) if !state.lists.is_empty() => Some(asked.shortened(&state.lists)),
        _ => None,
    };
    // The state has the values at hand; the log holds what is new.
    state.apply(&event);
    batch.events.push(match short {
        Some(asked) => Event { fact: Fact::StepAsked(Box::new(asked)), ..event },
        None => event,
    });
}

/// What a stimulus means here; `None` where it means nothing (a late or doubled word).
fn judge(state: &WorkflowState, stimulus: Stimulus, now: Micros, may_start: bool) -> Option<Fact> {
    match stimulus {
        Stimulus::Start { definition, name, file, input, lineage } => {
            let (input, dialect) = (Slot::of(input), DIALECT);
            let started = WorkflowStarted { definition, name, file, input, lineage, dialect };
            Some(Fact::WorkflowStarted(started))
        }
        Stimulus::Report { key, attempt, outcome, latency_ms } => {
            let step = state.step(&key)?;
            if step.status != StepStatus::Running || step.attempts != attempt {
                return None;
            }
            Some(Attempt { state, key, step, now }.judge(outcome, latency_ms))
        }
        Stimulus::Begin { key } => {
            let step = state.step(&key)?;
            if step.is_given_up || !state.may_move(&key) {
                // It waited to be sent again, and will not be: what was sent stays in doubt.
                let reason = "it was given up before it could be sent again".to_owned();
                return (step.status == StepStatus::Backoff && step.is_in_doubt())
                    .then(|| Fact::OutcomeUnknown { attempt: step.attempts, key, reason });
            }
            // Whether the delay is over is the engine's to know: this clock may have been set meanwhile.
            let is_due = match step.status {
                StepStatus::Pending | StepStatus::Backoff => true,
                StepStatus::Running
                | StepStatus::Completed
                | StepStatus::Failed
                | StepStatus::Cancelled
                | StepStatus::Held
                | StepStatus::Unknown => false,
            };
            (is_due && may_start && state.may_begin(&key, now)).then(|| Fact::AttemptStarted {
                attempt: step.attempts + 1,
                key,
                lost: None,
            })
        }
        Stimulus::Lost { key, attempt, found } => {
            let step = state.step(&key)?;
            if step.status != StepStatus::Running || step.attempts != attempt {
                return None;
            }
            let may_start = may_start && state.pause.is_none();
            Attempt { state, key, step, now }.lost(may_start, found)
        }
        Stimulus::TimerDue { .. } if state.pause.is_some() => None,
        Stimulus::TimerDue { key } => Some(Fact::TimerFired { key }),
        Stimulus::Resolve { key, landed } => {
            Some(Fact::OutcomeResolved { key, landed: landed.map(Slot::of) })
        }
        Stimulus::Reopen { reason, again, back_to, changes } => {
            let changes = changes.map(|changes| Box::new(settled(*changes)));
            Some(Fact::WorkflowReopened { reason, again, back_to, changes })
        }
        Stimulus::Fork { lineage, changes } => {
            let again = state.open_steps();
            Some(Fact::WorkflowForked(Box::new(WorkflowForked {
                lineage,
                again,
                changes: settled(*changes),
            })))
        }
        Stimulus::Reuse { key, workflow, version, outcome } => {
            let (output, error) = match outcome {
                Ok(output) => (Some(output), None),
                Err(error) => (None, Some(error)),
            };
            Some(Fact::StepReused(Box::new(StepReused { key, workflow, version, output, error })))
        }
        Stimulus::Hold { key, reason } => Some(Fact::WriteHeld { key, reason }),
        Stimulus::Settle { key, verdict, output, reason } => {
            Some(Fact::WriteSettled { key, verdict, output: output.map(Slot::of), reason })
        }
        Stimulus::Pause { reason } => Some(Fact::WorkflowPaused { reason }),
        Stimulus::Unpause { reason, raised } => Some(Fact::WorkflowUnpaused { reason, raised }),
        Stimulus::Signal { name, data, source, event_id, error } => {
            let (data, error) = (Slot::of(data), error.map(|error| *error));
            Some(Fact::SignalReceived(Box::new(SignalReceived { name, data, source, event_id, error })))
        }
        Stimulus::Cancel { reason } => Some(Fact::WorkflowCancelled { reason }),
        Stimulus::Compensate { reason, from, down_to, again } => {
            Some(Fact::CompensationRequested { reason, from, down_to, again })
        }
        Stimulus::Undo { scope, version, armed } => {
            let Armed { undo, is_erased } = *armed;
            let UndoArmed { key, handler, undo, output, previous, generation } = undo;
            let (undo, output) = if is_erased { (None, None) } else { (Some(undo), output) };
            let armed = version;
            let started = UndoStarted { key, armed, scope, handler, undo, output, previous, generation };
            Some(Fact::UndoStarted(Box::new(started)))
        }
        Stimulus::EndCompensation { scope } => Some(Fact::CompensationEnded { scope }),
        Stimulus::Record { event_type, data } => {
            Some(Fact::Recorded { event_type, key: None, data: Slot::of(data), handler: None })
        }
        Stimulus::Continue => None,
    }
}

/// The state after a word, had it been said: what a run begins from that goes on behind it.
pub fn after(state: &WorkflowState, stimulus: Stimulus, now: Micros) -> WorkflowState {
    let mut after = state.clone();
    if let Some(fact) = judge(state, stimulus, now, true) {
        let (version, actor) = (state.version + 1, Arc::from("engine"));
        let (id, causation_id, correlation_id) = (EventId([0; 16]), None, state.correlation_id);
        let timestamp = now.max(state.now);
        let clock = (now < timestamp).then_some(now);
        after.apply(&Event { id, version, timestamp, causation_id, correlation_id, actor, clock, fact });
    }
    after
}

/// Each value where its length puts it: inline, or beside the log.
fn settled(mut changes: Changes) -> Changes {
    changes.slots_mut().for_each(|slot| *slot = Slot::of(slot.get()));
    changes
}

/// The fact that an ask becomes.
fn consequence(state: &WorkflowState, ask: Ask, now: Micros, room: &mut usize) -> Fact {
    match ask {
        Ask::Step(ask) => match &state.rules {
            None => {
                let starts = *room > 0 && state.may_begin(&ask.key, now);
                *room = room.saturating_sub(1);
                Fact::StepAsked(Box::new(step_asked(*ask, starts)))
            }
            // Whether it is performed at all is found out before it starts.
            Some(rules) => match edited(rules, *ask) {
                Ok(asked) => Fact::StepAsked(Box::new(asked)),
                Err(error) => Fact::WorkflowFailed { error },
            },
        },
        Ask::Timer { key, delay_ms, finishes, limits } => {
            let delay_us = i64::try_from(delay_ms).unwrap_or(i64::MAX).saturating_mul(1_000);
            Fact::TimerSet { key, due: now.saturating_add(delay_us), finishes, limits }
        }
        Ask::Cancel { key, reason } => match state.step(&key) {
            Some(step) => {
                let attempt = (step.status == StepStatus::Running).then_some(step.attempts);
                Fact::StepCancelled { key, attempt, reason }
            }
            None => Fact::TimerCancelled { key, reason },
        },
        Ask::Decide { key, chosen, options, because, finishes } => {
            Fact::DecisionMade(Box::new(DecisionMade {
                key,
                chosen,
                options,
                because: Slot::of(because),
                finishes,
            }))
        }
        Ask::Start { key, kind, input } => {
            Fact::TaskStarted { key, kind, input: Slot::of(input), collects: false }
        }
        Ask::Collect { key, input } => {
            Fact::TaskStarted { key, kind: TaskKind::For, input: Slot::of(input), collects: true }
        }
        Ask::Finish { key, kind, output, context } => {
            Fact::TaskFinished { key, kind, output: Slot::of(output), context: context.map(Slot::of) }
        }
        Ask::Record { key, event_type, data } => {
            Fact::Recorded { event_type, key: Some(key), data: Slot::of(data), handler: None }
        }
        Ask::Budget { key, limits } => Fact::BudgetSet { key, limits },
        Ask::Listen { key, names, wants } => Fact::ListenStarted { key, names, wants: Slot::of(wants) },
        Ask::Take { key, signals } => Fact::SignalTaken { key, signals },
        Ask::Refuse { key, signal, reason } => Fact::SignalRefused { key, signal, reason },
        Ask::Compensate { scope, because } => Fact::CompensationStarted { scope, because },
    }
}

fn edited(rules: &Rules, mut ask: StepAsk) -> Result<StepAsked, Failure> {
    let program_hash = rules.edit(&mut ask)?;
    Ok(StepAsked { program_hash, ..step_asked(ask, false) })
}

fn step_asked(ask: StepAsk, starts: bool) -> StepAsked {
    StepAsked {
        request_hash: ask.request_hash(),
        program_hash: None,
        key: ask.key,
        kind: ask.kind,
        request: Request::from_json(ask.request, ask.lists),
        effect: ask.effect,
        recovery: (ask.effect == Effect::Write).then_some(ask.recovery),
        timeout_ms: ask.timeout_ms,
        retry: ask.retry,
        secrets: ask.secrets,
        instance: ask.instance,
        finishes: ask.finishes,
        given: ask.given.filter(|_| ask.recovery == Recovery::Reconcile).map(Slot::of),
        undo: ask.undo.map(Box::new).filter(|_| ask.effect == Effect::Write),
        starts,
    }
}
