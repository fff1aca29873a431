//! What is fuzzed: five functions that take any bytes and must come back, in bounded time and
//! memory. They panic where a promise is broken, and nowhere else.
//!
//! Two run them: libFuzzer (`fuzz/src/main.rs`, for as long as you like) and a test of the facade
//! (`crates/foldback/tests/it/fuzz.rs`, a few seconds on each change). They touch neither files nor
//! network; the store is one in memory.

pub mod mend;

use std::path::Path;

use foldback::connectors::{Config, check_model, try_rules};
use foldback::core::event::clock_of;
use foldback::core::report;
use foldback::core::{Event, Fact, Hash, Stimulus, Timing, WorkflowState, advance};
use foldback::engine::{Programs, load};
use foldback::exchange::{ExchangeError, export, import};
use foldback::ows;
use foldback::programs::Definitions;
use foldback::store::Store;
use serde_json::{Value, json};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// The targets by name; their seeds lie in `fuzz/corpus/NAME`.
pub const TARGETS: [(&str, Target); 5] =
    [("definition", definition), ("jq", jq), ("event", event), ("import", imported), ("config", config)];

/// A definition is refused with places that exist, or its stored form says the same once more.
pub fn definition(data: &[u8]) {
    let Ok(source) = std::str::from_utf8(data) else { return };
    let files = |path: &str| match path.len() % 3 {
        0 => Err(format!("no such file: {path}")),
        _ => Ok(format!("Write about {{topic}}, as {path} says.")),
    };
    let loaded = match ows::load(source, &files) {
        Ok(loaded) => loaded,
        Err(problems) => {
            assert!(!problems.is_empty(), "a refusal says why");
            let lines = source.split(['\n', '\r']).count() as u32;
            for problem in problems {
                assert!(!problem.message.is_empty() && problem.column >= 1);
                assert!((1..=lines + 1).contains(&problem.line), "line {} of {lines}", problem.line);
            }
            return;
        }
    };
    let value: Value = serde_json::from_str(&loaded.canonical).expect("what is stored is JSON");
    assert_eq!(Hash::of_json(&value), loaded.hash, "it is stored under its own hash");
    let program = ows::from_canonical(&loaded.canonical).expect("what is stored is understood");
    // Its first turn: what it asks for before anything was done.
    let mut state = WorkflowState::empty("fuzz");
    let start = Stimulus::Start {
        definition: loaded.hash,
        name: loaded.name.clone(),
        file: None,
        input: json!({"topic": "lamps", "items": [1, "two", null]}),
        lineage: None,
    };
    let started = step(&mut state, &*program, start);
    let started = started.expect("it begins");
    // A program that panics is parked by the engine; one that begins has no cause to.
    assert!(!started.iter().any(|event| matches!(event.fact, Fact::WorkflowParked { .. })), "{started:?}");
}

/// An expression has a value or an error, the same each time, and no more work than its bound.
pub fn jq(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (expression, input) = text.split_once("\n---\n").unwrap_or((text, ""));
    let input = serde_json::from_str(input).unwrap_or_else(|_| {
        json!({"a": [1, 2.5, -3, "ä€𝄞", null, true], "b": {"c": "x,y", "d": {}}, "n": 9_007_199_254_740_993_i64})
    });
    let (value, work) = ows::try_expression(expression, &input);
    // The payment that passes the bound is refused before what it pays for is done.
    if work > ows::EXPRESSION_WORK_MAX {
        assert!(value.as_ref().is_err_and(|why| why.contains("was stopped")), "{work}: {value:?}");
    }
    if work < ows::EXPRESSION_WORK_MAX / 100 {
        assert_eq!((value, work), ows::try_expression(expression, &input), "it only computes");
    }
}

/// A stored event is read or refused; what was read is written as one that reads the same.
pub fn event(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((event_type, payload)) = text.split_once('\n') else { return };
    let (event_type, shape) = event_type.split_once(' ').unwrap_or((event_type, "1"));
    let fact = match Fact::decode(event_type, shape.parse().unwrap_or(1), payload) {
        Ok(fact) => fact,
        Err(error) => return assert!(!error.reason.is_empty() && !error.to_string().is_empty()),
    };
    let written = fact.encode();
    let again = Fact::decode(event_type, fact.schema_version(), &written).expect("what we write we read");
    assert_eq!(again.encode(), written, "{event_type} is written in one way");
    assert_eq!(again.event_type(), event_type);
    let _ = (fact.plain(), fact.class(), fact.key(), fact.slots().len());
    let event = Event {
        id: foldback::core::EventId([1; 16]),
        version: 1,
        timestamp: 0,
        causation_id: None,
        correlation_id: None,
        actor: "fuzz".into(),
        clock: clock_of(payload),
        fact,
    };
    assert_eq!(clock_of(&event.encode()), event.clock, "{event_type} keeps its clock");
    // Reports take any events; the fold takes what the law admits.
    reports(std::slice::from_ref(&event));
    let mut state = WorkflowState::empty("fuzz");
    if state.admits(&event).is_ok() {
        state.apply(&event);
        look(&state);
    }
}

/// A file is imported and comes out as it went in, or is refused with its line. Tried twice: as it
/// is, and with its hashes made right, for who can change a file can do that too.
pub fn imported(data: &[u8]) {
    one_import(data);
    if let Some(mended) = mend::mended(data) {
        one_import(&mended);
    }
}

fn one_import(file: &[u8]) {
    let store = foldback::store::open("memory:").expect("memory is at hand");
    let known = match import(&*store, &mut &*file) {
        Ok(known) => known,
        Err(ExchangeError::Refused { message, hint }) => {
            assert!(!message.is_empty() && !hint.is_empty());
            let left = store.workflows(&Default::default()).expect("memory answers");
            return assert!(left.is_empty(), "what is refused leaves nothing");
        }
        Err(error) => panic!("memory does not fail: {error}"),
    };
    let row = store.workflow(&known.workflow_id).expect("memory answers").expect("it was imported");
    let mut out = Vec::new();
    export(&*store, &row, &mut out).expect("what was imported is exported");
    assert!(out == file, "it comes out as it went in");
    let events = load::events_of(&*store, &row.workflow_id, 0).expect("its chain holds");
    reports(&events);
    let mut state = WorkflowState::empty(&row.workflow_id);
    for event in &events {
        let before = state.clone();
        let base = &mut |version| load::replayed(&*store, &row.workflow_id, version);
        state.take(event, base).expect("an import obeys the law");
        report::changes(&before, &state);
    }
    look(&state);
    assert_eq!(state.status(), known.status);
    go_on(&*store, state);
}

/// `resume`, up to what it would ask for.
fn go_on(store: &dyn Store, mut state: WorkflowState) {
    let definition = store.definition(&state.definition).expect("memory answers").expect("it was imported");
    let Ok(program) = Definitions::default().program(&definition) else { return };
    if !state.status().is_ended() {
        step(&mut state, &*program, Stimulus::Continue);
        look(&state);
    }
}

/// One stimulus and what the program answers.
fn step(
    state: &mut WorkflowState,
    program: &dyn foldback::core::Program,
    stimulus: Stimulus,
) -> Option<Vec<Event>> {
    let mut run = program.start(state);
    let timing = Timing { now: 1_700_000_000_000_000, actor: "fuzz".into(), room: 8 };
    let mut next = 0u8;
    let mut ids = || {
        next = next.wrapping_add(1);
        foldback::core::EventId([next; 16])
    };
    advance(state, &mut *run, stimulus, &timing, &mut ids).ok().map(|batch| batch.events)
}

fn reports(events: &[Event]) {
    let _ = (
        report::steps(events),
        report::decisions(events),
        report::undos("w", events),
        report::ledger("w", events),
        report::tree(events),
    );
}

fn look(state: &WorkflowState) {
    let _ = (report::state_view(state), state.owes(), state.status(), state.fingerprint());
}

/// A configuration is read or refused with its line; so are the rules of a scripted model.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // A directory that is not there: a scripted provider's file is not found.
    match Config::parse(text, Path::new("/nowhere/at all/foldback.toml")) {
        Ok(config) => {
            for model in ["openai/gpt-5-mini", "local/x", "a/b/c", "none"] {
                let _ = check_model(&config, model);
            }
        }
        Err(error) => {
            let rest = error.message.strip_prefix("/nowhere/at all/foldback.toml:").expect("the file");
            let line: usize = rest.split(':').next().and_then(|n| n.parse().ok()).expect("the line");
            assert!((1..=text.split('\n').count()).contains(&line) && !error.hint.is_empty());
        }
    }
    let _ = (try_rules(text, false), try_rules(text, true));
}
