//! Rehearsals: a program run to its end against a scripted world, without an engine, and the
//! property that the whole design stands on: *from every prefix of its log, a workflow goes on to
//! the same end*. Programs and engines test themselves with it.

use std::sync::Arc;

use serde_json::Value;

use crate::event::{Event, EventId, Fact};
use crate::hash::Hash;
use crate::key::Key;
use crate::program::Program;
use crate::state::{End, Owed, Step, WorkflowState};
use crate::step::Outcome;
use crate::{Stimulus, Timing, advance};

/// How the scripted world answers: the step's key, the step as asked, and which attempt it is.
pub type World<'a> = &'a dyn Fn(&Key, &Step, u32) -> Outcome;

/// A log that was made by rehearsing.
#[derive(Debug, Clone)]
pub struct Rehearsal {
    /// The log.
    pub events: Vec<Event>,
    /// The state at its end.
    pub state: WorkflowState,
}

/// Runs a program from its start until it ends, or waits for a person.
///
/// # Panics
/// When the program asks for what the law forbids, or does not end after a million stimuli.
pub fn rehearse(program: &dyn Program, workflow_id: &str, input: Value, world: World<'_>) -> Rehearsal {
    let state = WorkflowState::empty(workflow_id);
    let start = Stimulus::Start {
        definition: Hash::of_bytes(b"rehearsal"),
        name: "rehearsal".into(),
        input,
        lineage: None,
    };
    go_on(program, Vec::new(), state, start, world)
}

/// Folds a log and goes on from it, as a process does that finds it after a crash.
///
/// # Panics
/// As [`rehearse`], and when the log breaks the law.
pub fn resume(program: &dyn Program, workflow_id: &str, events: &[Event], world: World<'_>) -> Rehearsal {
    let state = WorkflowState::fold(workflow_id, events).expect("the log obeys the law");
    go_on(program, events.to_vec(), state, Stimulus::Continue, world)
}

fn go_on(
    program: &dyn Program,
    mut events: Vec<Event>,
    mut state: WorkflowState,
    first: Stimulus,
    world: World<'_>,
) -> Rehearsal {
    let mut run = program.start(&state);
    let mut next = Some(first);
    let mut in_flight: Vec<(Key, u32)> = Vec::new();
    for _ in 0..1_000_000 {
        let Some(stimulus) = next.take().or_else(|| from_owed(&state, &mut in_flight, world)) else {
            return Rehearsal { events, state };
        };
        let mut serial = state.version;
        let mut ids = || {
            serial += 1;
            EventId((0xF01D_0000_0000_0000_0000_0000_0000_0000_u128 + u128::from(serial)).to_be_bytes())
        };
        let now = match &stimulus {
            Stimulus::TimerDue { .. } | Stimulus::Begin { .. } => state.now + 86_400_000_000,
            // A crash costs no time, so that times are the same wherever a log was cut.
            Stimulus::Continue | Stimulus::Lost { .. } => state.now,
            _ => state.now + 1_000,
        };
        let timing = Timing { now, actor: Arc::from("rehearsal"), room: 1_000_000 };
        let batch = advance(&mut state, &mut *run, stimulus, &timing, &mut ids)
            .unwrap_or_else(|illegal| panic!("{illegal}\n{}", crate::text::render(&events)));
        for event in &batch.events {
            match &event.fact {
                Fact::StepAsked(asked) if asked.starts => in_flight.push((asked.key.clone(), 1)),
                Fact::AttemptStarted { key, attempt, .. } => in_flight.push((key.clone(), *attempt)),
                _ => {}
            }
        }
        events.extend(batch.events);
        if batch.is_cut {
            next = Some(Stimulus::Continue);
        }
    }
    panic!("no end after a million stimuli");
}

/// The next word of the world, from what the state owes.
fn from_owed(state: &WorkflowState, in_flight: &mut Vec<(Key, u32)>, world: World<'_>) -> Option<Stimulus> {
    let owed = state.owes().into_iter().next()?;
    Some(match owed {
        Owed::Start(key) | Owed::Retry(key, _) => Stimulus::Begin { key },
        Owed::Timer(key, _) => Stimulus::TimerDue { key },
        Owed::Attempt(key, attempt) => {
            let position = in_flight.iter().position(|flying| *flying == (key.clone(), attempt));
            let Some(position) = position else {
                return Some(Stimulus::Lost { key, attempt });
            };
            in_flight.swap_remove(position);
            let step = state.step(&key).expect("what is owed is known");
            let outcome = world(&key, step, attempt);
            Stimulus::Report { key, attempt, outcome, latency_ms: 1 }
        }
    })
}

/// The property: for every prefix of the log of a rehearsal, folding it and going on leads to the
/// same end, the same decisions and the same requests.
///
/// # Panics
/// At the first prefix that does not, with both logs.
pub fn crash_anywhere(program: &dyn Program, input: Value, world: World<'_>) -> Rehearsal {
    let whole = rehearse(program, "w", input, world);
    let wanted = meaning(&whole);
    for cut in 1..=whole.events.len() {
        let resumed = resume(program, "w", &whole.events[..cut], world);
        let found = meaning(&resumed);
        assert!(
            found == wanted,
            "going on from version {cut} ends otherwise\nwanted {wanted:#?}\nfound {found:#?}\n{}\n--- went on:\n{}",
            crate::text::render(&whole.events),
            crate::text::render(&resumed.events),
        );
        let folded = WorkflowState::fold("w", &resumed.events).expect("what was written obeys the law");
        assert_eq!(folded, resumed.state, "the fold of the log is the state that wrote it (cut at {cut})");
    }
    whole
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
            Fact::DecisionMade(e) => Some(format!("decided {} {}", e.key, e.chosen)),
            Fact::TaskFinished { key, output, .. } => Some(format!("finished {key} {}", output.get())),
            Fact::Recorded { event_type, data, .. } => Some(format!("recorded {event_type} {}", data.get())),
            _ => None,
        })
        .collect();
    // Branches side by side may report in another order.
    facts.sort();
    (facts, rehearsal.state.end.clone())
}
