//! Runaway loops: a loop that meets no step and no wait fails with an error of type `runaway`, which a
//! block can catch; loops that end, or that meet the world, do not. A log from before that rule still
//! folds and verifies, and goes on under it.

use foldback_core::rehearse::{Rehearsal, rehearse, reopen, resume};
use foldback_core::state::End;
use foldback_core::step::error_type;
use foldback_core::verify::verify;
use foldback_core::{Class, Event, Fact, Key, Outcome, Program, Run, Step, Turn, WorkflowState};
use foldback_ows::load;
use serde_json::{Value, json};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: t, version: '1.0.0' }\ndo:\n";

fn program(body: &str) -> std::sync::Arc<foldback_ows::OwsProgram> {
    let source = format!("{HEAD}{body}");
    load(&source, &|_| Err("no file".into())).unwrap_or_else(|e| panic!("{source}\n{e:?}")).program
}

fn answers(_: &Key, _: &Step, _: u32) -> Outcome {
    Outcome::Completed { output: json!({"ok": true}), usage: None }
}

/// As many jumps as these tests wait for.
const FEW: u64 = 50;

/// The program with another bound: `None` is the program as it was before there was one.
struct Bounded<'p>(&'p dyn Program, Option<u64>);

struct BoundedRun {
    run: Box<dyn Run>,
    jumps_max: Option<u64>,
    turns: u32,
}

impl Program for Bounded<'_> {
    fn start(&self, state: &WorkflowState) -> Box<dyn Run> {
        Box::new(BoundedRun { run: self.0.start(state), jumps_max: self.1, turns: 0 })
    }
}

impl Run for BoundedRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        self.turns += 1;
        assert!(self.turns < 20_000, "it is not stopped");
        self.run.turn(state)
    }

    fn failures(&self, state: &WorkflowState) -> Vec<Key> {
        self.run.failures(state)
    }

    fn jumps_max(&self) -> Option<u64> {
        self.jumps_max
    }
}

/// Runs it to its end and verifies its log, with a bound of [`FEW`].
fn run(body: &str) -> Rehearsal {
    let program = program(body);
    let program = Bounded(&*program, Some(FEW));
    let rehearsal = rehearse(&program, "w", json!({}), &answers);
    verify(&program, "w", &rehearsal.events).unwrap_or_else(|at| panic!("{body}\n{at:?}"));
    rehearsal
}

/// How it ended: its output, or the type of its error with the key.
fn end(state: &WorkflowState) -> Result<Value, (String, String)> {
    match &state.end {
        Some(End::Completed { output }) => Ok((*output.get()).clone()),
        Some(End::Failed { error }) => {
            let name = error.error_type.rsplit('/').next().unwrap_or_default();
            Err((name.to_owned(), error.key.as_ref().map(Key::to_string).unwrap_or_default()))
        }
        other => panic!("it did not end: {other:?}"),
    }
}

/// A loop that leads back `times` times.
fn counted(times: u64) -> String {
    format!(
        "- n: {{ set: {{ n: 0 }} }}\n- up: {{ set: {{ n: '${{ .n + 1 }}' }} }}\n\
         - more: {{ switch: [ again: {{ when: '.n <= {times}', then: up }}, done: {{ then: end }} ] }}\n"
    )
}

#[test]
fn the_last_jump_that_is_let_be_is_that_of_the_bound() {
    assert_eq!(end(&run(&counted(FEW)).state), Ok(json!({"n": FEW + 1})));
    let failed = end(&run(&counted(FEW + 1)).state);
    assert_eq!(failed, Err(("runaway".to_owned(), "up#52".to_owned())));
}

#[test]
fn the_bound_of_a_definition_is_ten_thousand() {
    let program = program("- a: { set: { x: 1 }, then: a }\n");
    let rehearsal = rehearse(&*program, "w", json!({}), &answers);
    assert_eq!(end(&rehearsal.state), Err(("runaway".to_owned(), "a#10002".to_owned())));
    let Some(End::Failed { error }) = &rehearsal.state.end else { unreachable!() };
    assert_eq!((error.error_type.as_str(), error.status), (error_type::RUNAWAY, 500));
    assert!(
        error.detail.as_deref().is_some_and(|detail| detail.contains("more than 10000 times")),
        "{error:?}"
    );
}

#[test]
fn loops_without_a_step_or_a_wait_are_stopped_wherever_they_are() {
    let step = "call: http, with: { method: get, endpoint: 'http://x.test' }";
    let slow = format!("s: {{ {step} }}");
    let count = "c: { set: { n: '${ (.n // 0) + 1 }' } }";
    let on = |last: u64| {
        format!("o: {{ switch: [ on: {{ when: '.n < {last}', then: c }}, off: {{ then: exit }} ] }}")
    };
    let (endless, many) = (on(1_000_000), on(40));
    for (what, body, key) in [
        ("two sets", "- a: { set: { x: 1 } }\n- b: { set: { x: 2 }, then: a }\n".to_owned(), "a#52"),
        ("one set", "- a: { set: { x: 1 }, then: a }\n".to_owned(), "a#52"),
        ("an event", "- a: { emit: { event: { with: { source: 'http://x', type: t } } }, then: a }\n".into(), "a#52"),
        ("a condition", "- a: { if: 'true', set: { x: 1 }, then: a }\n".to_owned(), "a#52"),
        ("shaped input", "- a: { input: { from: '${ {} }' }, set: { x: 1 }, then: a }\n".to_owned(), "a#52"),
        ("with a limit of its own", "- a: { do: [ s: { set: { x: 1 } } ], timeout: { after: { hours: 1 } }, then: a }\n".into(), "a#52"),
        ("behind a step", format!("- {slow}\n- a: {{ set: {{ x: 1 }}, then: a }}\n"), "a#52"),
        ("in a list inside", format!("- d: {{ do: [ {count}, {endless} ] }}\n"), "d/c#52"),
        (
            "lists that end, in one that does not",
            format!("- d: {{ set: {{ n: 0 }} }}\n- e: {{ do: [ {count}, {many} ] }}\n- f: {{ set: {{ n: 0 }}, then: d }}\n"),
            "e#2/c#12",
        ),
        ("an iteration", format!("- l: {{ for: {{ in: '[1, 2]' }}, do: [ {count}, {endless} ] }}\n"), "l[0]/c#52"),
        (
            "a branch, beside one that meets the world again and again",
            format!(
                "- f: {{ fork: {{ branches: [ spins: {{ do: [ {count}, {endless} ] }}, \
                 works: {{ for: {{ in: '[range(8)]' }}, do: [ {slow} ] }} ] }} }}\n"
            ),
            "f/spins/c#52",
        ),
        (
            "tries without delay",
            "- t: { try: [ r: { raise: { error: { type: x, status: 500 } } } ], catch: { retry: {} } }\n".to_owned(),
            "t",
        ),
        (
            "tries without delay, of what is no step yet",
            "- t: { try: [ s: { set: { x: '${ error(\"no\") }' } } ], catch: { retry: { backoff: { linear: {} } } } }\n"
                .to_owned(),
            "t",
        ),
    ] {
        let rehearsal = run(&body);
        assert_eq!(end(&rehearsal.state), Err(("runaway".to_owned(), key.to_owned())), "{what}");
        assert!(rehearsal.events.len() < 1_000, "{what}: {} events", rehearsal.events.len());
        assert!(rehearsal.state.jumps.len() < 8, "{what}: {:?}", rehearsal.state.jumps);
    }
}

#[test]
fn loops_that_meet_the_world_or_end_are_let_be() {
    let step = "call: http, with: { method: get, endpoint: 'http://x.test' }";
    let times = FEW + 5;
    let last = json!(times);
    let back = format!(
        "back: {{ switch: [ again: {{ when: '$context < {times}', then: a }}, done: {{ then: end }} ] }}"
    );
    let counts = "export: { as: '${ ($context // 0) + 1 }' }, output: { as: $context }";
    for (what, body) in [
        ("a step", format!("- a: {{ {step}, {counts} }}\n- {back}\n- z: {{ set: {{}} }}\n")),
        ("a wait", format!("- a: {{ wait: {{ milliseconds: 1 }}, {counts} }}\n- {back}\n")),
        (
            "a finite for",
            format!(
                "- l: {{ for: {{ in: '[range({times})]' }}, do: [ s: {{ set: '${{ $index + 1 }}' }} ] }}\n"
            ),
        ),
        (
            "jumps in a finite for",
            format!(
                "- l:\n    for: {{ in: '[range({times})]' }}\n    do:\n    - s: {{ set: '${{ $index + 1 }}' }}\n\
                 \x20   - b: {{ switch: [ once: {{ when: '$task.key | endswith(\"b\")', then: s }}, no: {{ then: exit }} ] }}\n"
            ),
        ),
        (
            "tries with a delay",
            format!(
                "- t:\n    try:\n    - r: {{ if: '$context != {times}', raise: {{ error: {{ type: x, status: 500 }} }} }}\n\
                 \x20   - s: {{ set: '${{ {times} }}' }}\n    catch: {{ errors: {{ with: {{ status: 500 }} }}, \
                 retry: {{ delay: {{ milliseconds: 1 }}, limit: {{ attempt: {{ count: {times} }} }} }}, do: [ d: {{ set: '${{ {times} }}' }} ] }}\n"
            ),
        ),
    ] {
        let body = body.replace("- z: { set: {} }\n", "");
        let rehearsal = run(&body);
        let ended = end(&rehearsal.state);
        assert!(ended.is_ok(), "{what}: {ended:?}");
        if what != "a step" && what != "a wait" {
            assert_eq!(ended, Ok(last.clone()), "{what}");
        }
    }
}

#[test]
fn a_block_catches_it_and_goes_on() {
    let caught = "- t:\n    try:\n    - a: { set: { x: 1 } }\n    - b: { set: { x: 2 }, then: a }\n\
                  \x20   catch: { errors: { with: { type: 'https://serverlessworkflow.io/dsl/errors/types/runaway' } }, \
                  as: e, do: [ s: { set: { status: '${ $e.status }', title: '${ $e.title }', at: '${ $e.instance }' } } ] }\n";
    let output = end(&run(caught).state);
    assert_eq!(output, Ok(json!({"status": 500, "title": "The loop never waits", "at": "/do/0/t/try/0/a"})));
}

#[test]
fn a_log_from_before_folds_verifies_and_goes_on() {
    let times = FEW + 40;
    let program = program(&counted(times));
    let program = Bounded(&*program, Some(FEW));
    let old = rehearse(&Bounded(program.0, None), "w", json!({}), &answers);
    assert_eq!(end(&old.state), Ok(json!({"n": times + 1})));
    let compared = verify(&program, "w", &old.events).unwrap_or_else(|at| panic!("{at:?}"));
    assert_eq!(compared, old.events.len() as u64 - 1);
    // Cut off in the middle, it goes on, and is stopped by its next jump.
    let cut = &old.events[..old.events.len() - 20];
    let later = resume(&program, "w", cut, &answers);
    assert_eq!(end(&later.state).map_err(|(name, _)| name), Err("runaway".to_owned()));
    assert!(later.events.len() < cut.len() + 5);
    verify(&program, "w", &later.events).unwrap_or_else(|at| panic!("{at:?}"));
}

#[test]
fn a_stop_that_came_too_early_is_another_program() {
    let program = program("- a: { set: { x: 1 } }\n- b: { set: { x: 2 }, then: a }\n");
    let program = Bounded(&*program, Some(FEW));
    let whole = run("- a: { set: { x: 1 } }\n- b: { set: { x: 2 }, then: a }\n");
    let at = whole.events.iter().position(|e| e.fact.key().is_some_and(|k| k.as_str() == "a#52!failed"));
    let stop = whole.events[at.expect("it was stopped")].clone();
    let mut early: Vec<Event> = whole.events[..41].to_vec();
    let key = Key::new("a#21").failed();
    let fact = match stop.fact {
        Fact::TaskStarted { kind, input, collects, .. } => Fact::TaskStarted { key, kind, input, collects },
        other => panic!("{other:?}"),
    };
    early.push(Event { version: 42, fact, ..stop });
    assert!(verify(&program, "w", &early).is_err());
}

#[test]
fn from_any_cut_it_comes_to_the_same_stop() {
    let program = program("- a: { set: { x: 1 } }\n- b: { set: { x: 2 }, then: a }\n");
    let program = Bounded(&*program, Some(FEW));
    let whole = rehearse(&program, "w", json!({}), &answers);
    let facts = |events: &[Event]| events.iter().map(|e| e.fact.clone()).collect::<Vec<_>>();
    for cut in 1..whole.events.len() {
        let resumed = resume(&program, "w", &whole.events[..cut], &answers);
        assert_eq!(facts(&resumed.events), facts(&whole.events), "cut at {cut}");
    }
    // A retry gives it as many jumps again, under keys that no visit had before.
    let again = reopen(&program, "w", &whole.events, &answers);
    assert_eq!(end(&again.state), Err(("runaway".to_owned(), "a#103".to_owned())));
    let consequences = again.events.iter().filter(|e| e.fact.class() == Class::Consequence);
    let mut keys: Vec<&str> =
        consequences.filter_map(|e| e.fact.key()).map(Key::as_str).filter(|key| !key.contains('!')).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "a key was used twice");
    let error = match &again.state.end {
        Some(End::Failed { error }) => error.error_type.as_str(),
        _ => "",
    };
    assert_eq!(error, error_type::RUNAWAY);
}
