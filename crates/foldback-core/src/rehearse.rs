//! Rehearsals: a program run to its end against a scripted world, without an engine, and the
//! property that the whole design stands on: *from every prefix of its log, a workflow goes on to
//! the same end*. Programs and engines test themselves with it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use crate::decide::after;
use crate::event::{Class, Event, EventId, Fact};
use crate::hash::Hash;
use crate::key::Key;
use crate::program::Program;
use crate::state::{End, Owed, Step, WorkflowState};
use crate::step::Outcome;
use crate::undo::{self, Armed};
use crate::verify::verify;
use crate::{Micros, Stimulus, Timing, advance};

mod branch;

pub use branch::{Logs, Person, fork, go_back, resume_branch};

/// How the scripted world answers: the step's key, the step as asked, and which attempt it is.
pub type World<'a> = &'a dyn Fn(&Key, &Step, u32) -> Outcome;

/// How long the scripted world takes for a step, in ms; `None` if it never answers.
pub type Pace<'a> = &'a dyn Fn(&Key) -> Option<u64>;

/// Every answer takes a millisecond.
const AT_ONCE: Pace<'static> = &|_| Some(1);

/// A log that was made by rehearsing.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// The log.
    pub events: Vec<Event>,
    /// The state at its end.
    pub state: WorkflowState,
}

/// The world of a rehearsal.
#[derive(Clone, Copy)]
struct Stage<'a> {
    world: World<'a>,
    pace: Pace<'a>,
    /// Logs in which outcomes are recorded.
    logs: Option<&'a Logs>,
    /// What a person says of a write that is held.
    person: Person<'a>,
    /// What is said to the workflow, in order, each once it has nothing to do but wait.
    signals: &'a [(&'a str, Value)],
}

impl<'a> Stage<'a> {
    fn of(world: World<'a>, pace: Pace<'a>) -> Stage<'a> {
        Stage { world, pace, logs: None, person: &|_| None, signals: &[] }
    }
}

/// Runs a program from its start until it ends, or waits for a person.
///
/// # Panics
/// When the program asks for what the law forbids, or does not end after a million stimuli.
pub fn rehearse(program: &dyn Program, workflow_id: &str, input: Value, world: World<'_>) -> Rehearsal {
    begin(program, workflow_id, input, Stage::of(world, AT_ONCE))
}

/// As [`rehearse`], in a world that takes its time.
///
/// # Panics
/// As [`rehearse`].
pub fn rehearse_at_pace(
    program: &dyn Program,
    workflow_id: &str,
    input: Value,
    world: World<'_>,
    pace: Pace<'_>,
) -> Rehearsal {
    begin(program, workflow_id, input, Stage::of(world, pace))
}

/// As [`rehearse_at_pace`], in a world that speaks: each signal (its name and its data) is said when the
/// workflow has nothing to do but wait.
///
/// # Panics
/// As [`rehearse`].
pub fn rehearse_with_signals(
    program: &dyn Program,
    workflow_id: &str,
    input: Value,
    world: World<'_>,
    pace: Pace<'_>,
    signals: &[(&str, Value)],
) -> Rehearsal {
    begin(program, workflow_id, input, Stage { signals, ..Stage::of(world, pace) })
}

fn begin(program: &dyn Program, workflow_id: &str, input: Value, stage: Stage<'_>) -> Rehearsal {
    let state = WorkflowState::empty(workflow_id);
    let start = Stimulus::Start {
        definition: Hash::of_bytes(b"rehearsal"),
        name: "rehearsal".into(),
        file: None,
        input,
        lineage: None,
    };
    go_on(program, Vec::new(), state, start, stage)
}

/// Folds a log and goes on from it, as a process does that finds it after a crash.
///
/// # Panics
/// As [`rehearse`], and when the log breaks the law.
pub fn resume(program: &dyn Program, workflow_id: &str, events: &[Event], world: World<'_>) -> Rehearsal {
    go_on_from(program, workflow_id, events, Stage::of(world, AT_ONCE))
}

fn go_on_from(program: &dyn Program, workflow_id: &str, events: &[Event], stage: Stage<'_>) -> Rehearsal {
    let state = WorkflowState::fold(workflow_id, events).expect("the log obeys the law");
    go_on(program, events.to_vec(), state, Stimulus::Continue, stage)
}

/// Reopens a workflow that failed, and goes on in a world that was mended.
///
/// # Panics
/// As [`resume`], and when it has not failed.
pub fn reopen(program: &dyn Program, workflow_id: &str, events: &[Event], world: World<'_>) -> Rehearsal {
    let state = WorkflowState::fold(workflow_id, events).expect("the log obeys the law");
    let again = program.start(&state).failures(&state);
    let reopen = Stimulus::Reopen { reason: "mended".into(), again, back_to: None, changes: None };
    go_on(program, events.to_vec(), state, reopen, Stage::of(world, AT_ONCE))
}

/// Attempts under way, by step: which one, and when it reports, if ever.
type Flying = HashMap<Key, (u32, Option<Micros>)>;

fn go_on(
    program: &dyn Program,
    mut events: Vec<Event>,
    mut state: WorkflowState,
    first: Stimulus,
    stage: Stage<'_>,
) -> Rehearsal {
    let mut run = match &first {
        Stimulus::Reopen { .. } | Stimulus::Fork { .. } => {
            program.start(&after(&state, first.clone(), state.now))
        }
        _ => program.start(&state),
    };
    let mut next = Some((first, if state.version == 0 { 1_000 } else { state.now }));
    let mut flying = Flying::new();
    for _ in 0..1_000_000 {
        let spoken = next
            .take()
            .or_else(|| next_signal(&state, &events, stage))
            .or_else(|| from_owed(&state, &events, &mut flying, stage));
        let Some((stimulus, now)) = spoken.or_else(|| branch::settled(&state, stage)) else {
            return Rehearsal { events, state };
        };
        let mut serial = state.version;
        let mut ids = || {
            serial += 1;
            EventId((0xF01D_0000_0000_0000_0000_0000_0000_0000_u128 + u128::from(serial)).to_be_bytes())
        };
        // A crash costs no time: who begins anew reports when the lost one would have, so that times
        // are the same wherever a log was cut.
        let since = match &stimulus {
            Stimulus::Lost { key, .. } => state.step(key).and_then(|step| step.began).unwrap_or(now),
            _ => now,
        };
        let timing = Timing { now, actor: Arc::from("rehearsal"), room: 1_000_000 };
        let batch = advance(&mut state, &mut *run, stimulus, &timing, &mut ids)
            .unwrap_or_else(|illegal| panic!("{illegal}\n{}", crate::text::render(&events)));
        for event in &batch.events {
            let (key, attempt, since) = match &event.fact {
                Fact::StepAsked(asked) if asked.starts => {
                    (&asked.key, state.step(&asked.key).map_or(1, |step| step.attempts), event.timestamp)
                }
                Fact::AttemptStarted { key, attempt, .. } => (key, *attempt, since),
                _ => continue,
            };
            let micros = |ms| i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000);
            let due = (stage.pace)(key).map(|ms: u64| since.saturating_add(micros(ms)));
            flying.insert(key.clone(), (attempt, due));
        }
        events.extend(batch.events);
        if batch.is_cut {
            next = Some((Stimulus::Continue, state.now));
        }
    }
    panic!("no end after a million stimuli");
}

/// The next signal, where nothing but a moment or somebody's word is waited for.
fn next_signal(state: &WorkflowState, events: &[Event], stage: Stage<'_>) -> Option<(Stimulus, Micros)> {
    if stage.signals.is_empty() {
        return None;
    }
    let said = events.iter().filter(|event| matches!(event.fact, Fact::SignalReceived(_))).count();
    let (name, data) = stage.signals.get(said)?;
    let is_busy = state.owes().iter().any(|owed| !matches!(owed, Owed::Timer(..)));
    if is_busy || state.version == 0 || state.end.is_some() {
        return None;
    }
    let (name, data) = (Arc::from(*name), data.clone());
    let signal = Stimulus::Signal { name, data, source: None, event_id: None, error: None };
    Some((signal, state.now))
}

/// The next word of the world, from what the state owes, and when it is said: what is due first.
fn from_owed(
    state: &WorkflowState,
    events: &[Event],
    flying: &mut Flying,
    stage: Stage<'_>,
) -> Option<(Stimulus, Micros)> {
    let owed = state.owes().into_iter().filter_map(|owed| {
        let due = match &owed {
            Owed::Start(_) | Owed::Undo(_) => state.now,
            Owed::Retry(_, due) | Owed::Timer(_, due) => *due,
            Owed::Attempt(key, attempt) => match flying.get(key) {
                Some((flying, due)) if flying == attempt => (*due)?,
                Some(_) | None => state.now,
            },
        };
        Some((due.max(state.now), owed))
    });
    let (now, owed) = owed.min_by_key(|(due, _)| *due)?;
    let stimulus = match owed {
        Owed::Start(key) => branch::word_to(state, key, stage),
        Owed::Retry(key, _) => Stimulus::Begin { key },
        Owed::Timer(key, _) => Stimulus::TimerDue { key },
        Owed::Undo(scope) => undo_word(state, &scope, events),
        Owed::Attempt(key, attempt) => {
            let reports = flying.remove(&key).is_some_and(|(flying, _)| flying == attempt);
            if !reports {
                return Some((Stimulus::Lost { key, attempt, found: None }, now));
            }
            let step = state.step(&key).expect("what is owed is known");
            let outcome = (stage.world)(&key, step, attempt);
            Stimulus::Report { key, attempt, outcome, latency_ms: 1 }
        }
    };
    Some((stimulus, now))
}

/// The next undo, read from the log of a rehearsal.
fn undo_word(state: &WorkflowState, scope: &Key, events: &[Event]) -> Stimulus {
    let mut read = |version| {
        let armed = events.iter().find_map(|event| match &event.fact {
            Fact::UndoArmed(armed) if event.version == version => Some((**armed).clone()),
            _ => None,
        });
        Ok::<_, std::convert::Infallible>(Armed { undo: armed.expect("it was armed"), is_erased: false })
    };
    let Ok(word) = undo::next(state, scope, &mut read);
    word
}

/// The property: for every prefix of the log of a rehearsal, folding it and going on leads to the
/// same end, the same decisions and the same requests; and the log verifies, as do those
/// that were cut between two batches.
///
/// # Panics
/// At the first prefix that does not, with both logs.
pub fn crash_anywhere(program: &dyn Program, input: Value, world: World<'_>) -> Rehearsal {
    crash_anywhere_at_pace(program, input, world, AT_ONCE)
}

/// As [`crash_anywhere`], in a world that takes its time.
///
/// # Panics
/// As [`crash_anywhere`].
pub fn crash_anywhere_at_pace(
    program: &dyn Program,
    input: Value,
    world: World<'_>,
    pace: Pace<'_>,
) -> Rehearsal {
    crash_anywhere_with_signals(program, input, world, pace, &[])
}

/// As [`crash_anywhere_at_pace`], in a world that speaks: see [`rehearse_with_signals`].
///
/// # Panics
/// As [`crash_anywhere`].
pub fn crash_anywhere_with_signals(
    program: &dyn Program,
    input: Value,
    world: World<'_>,
    pace: Pace<'_>,
    signals: &[(&str, Value)],
) -> Rehearsal {
    let stage = Stage { signals, ..Stage::of(world, pace) };
    let whole = begin(program, "w", input, stage);
    let wanted = meaning(&whole);
    verified(program, &whole);
    for cut in 1..=whole.events.len() {
        let resumed = go_on_from(program, "w", &whole.events[..cut], stage);
        let found = meaning(&resumed);
        assert!(
            found == wanted,
            "going on from version {cut} ends otherwise\nwanted {wanted:#?}\nfound {found:#?}\n{}\n--- went on:\n{}",
            crate::text::render(&whole.events),
            crate::text::render(&resumed.events),
        );
        let folded = WorkflowState::fold("w", &resumed.events).expect("what was written obeys the law");
        assert_eq!(folded, resumed.state, "the fold of the log is the state that wrote it (cut at {cut})");
        // Where no process dies, inside a turn, branches may go on in another order.
        if whole.events.get(cut).is_none_or(|next| next.fact.class() == Class::Stimulus) {
            verified(program, &resumed);
        }
    }
    whole
}

/// What a program wrote, it derives again.
fn verified(program: &dyn Program, rehearsal: &Rehearsal) {
    let said = rehearsal.events.iter().filter(|e| e.fact.class() == Class::Consequence).count() as u64;
    match verify(program, "w", &rehearsal.events) {
        Ok(compared) => assert_eq!(compared, said),
        Err(stopped) => panic!("{stopped:#?}\n{}", crate::text::render(&rehearsal.events)),
    }
}

/// What a log means, whoever died on the way: requests, decisions, outputs and the end.
fn meaning(rehearsal: &Rehearsal) -> (Vec<String>, Option<End>) {
    let mut facts: Vec<String> = rehearsal
        .events
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::StepAsked(e) => Some(format!("asked {} {}", e.key, e.request_hash)),
            Fact::StepCompleted(e) => Some(format!("completed {} {}", e.key, e.output.get())),
            Fact::StepFailed(e) => Some(format!("failed {} {}", e.key, e.error.title)),
            Fact::StepCancelled { key, .. } => Some(format!("gave up {key}")),
            Fact::TimerCancelled { key, .. } => Some(format!("gave up {key}")),
            Fact::DecisionMade(e) => Some(format!("decided {} {}", e.key, e.chosen)),
            Fact::TaskFinished { key, output, .. } => Some(format!("finished {key} {}", output.get())),
            Fact::Recorded { event_type, data, .. } => Some(format!("recorded {event_type} {}", data.get())),
            Fact::SignalTaken { key, .. } => Some(format!("took {key}")),
            Fact::SignalRefused { key, reason, .. } => Some(format!("refused {key} {reason}")),
            Fact::BudgetExceeded { scope, .. } => Some(format!("over {scope}")),
            Fact::OutcomeReconciled { key, found, .. } => Some(format!("found {key} {found:?}")),
            Fact::UndoArmed(e) => Some(format!("armed {} {}", e.key, e.undo.get())),
            Fact::UndoCompleted { key, .. } => Some(format!("took {key} back")),
            Fact::UndoFailed { key, error, .. } => {
                Some(format!("could not take {key} back: {}", error.title))
            }
            _ => None,
        })
        .collect();
    // Branches side by side may report in another order.
    facts.sort();
    (facts, rehearsal.state.end.clone())
}
