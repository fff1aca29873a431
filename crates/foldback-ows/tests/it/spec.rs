//! What the specification says of loops, limits and descriptors, and what our profile adds: each document
//! runs to its end, from every prefix of its log to the same one.

use foldback_core::rehearse::{Rehearsal, crash_anywhere, crash_anywhere_at_pace, rehearse};
use foldback_core::state::End;
use foldback_core::{EntryBody, Fact, Key, Outcome, Step, WorkflowState};
use foldback_ows::load;
use serde_json::{Value, json};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: t, version: '1.0.0' }\n";

fn echo(_: &Key, step: &Step, _: u32) -> Outcome {
    Outcome::Completed { output: step.request.to_json()["query"].clone(), usage: None }
}

fn program(body: &str) -> std::sync::Arc<foldback_ows::OwsProgram> {
    let source = format!("{HEAD}{body}");
    load(&source, &|_| Err("no file".into())).unwrap_or_else(|e| panic!("{source}\n{e:?}")).program
}

fn run(body: &str, input: Value) -> Rehearsal {
    crash_anywhere(&*program(body), input, &echo)
}

fn output(rehearsal: &Rehearsal) -> Value {
    match &rehearsal.state.end {
        Some(End::Completed { output }) => (*output.get()).clone(),
        other => panic!("{other:?}"),
    }
}

const COLLECT: &str = "metadata: { foldback: { collect: true } }";
const CALL: &str = "c: { call: http, with: { method: get, endpoint: 'http://x', query: { n: '${ $item }', of: '${ .of }' } } }";

#[test]
fn a_loop_that_collects_gives_the_list_of_its_outputs() {
    for (what, body, input, wanted) in [
        (
            "steps, each with the loop's input",
            format!("do:\n- l: {{ for: {{ in: .items }}, do: [ {CALL} ], {COLLECT} }}\n"),
            json!({"items": [1, 2, 3], "of": "x"}),
            json!([{"n": 1, "of": "x"}, {"n": 2, "of": "x"}, {"n": 3, "of": "x"}]),
        ),
        (
            "nothing to loop over",
            format!("do:\n- l: {{ for: {{ in: .items }}, do: [ {CALL} ], {COLLECT} }}\n"),
            json!({"items": []}),
            json!([]),
        ),
        (
            "without it, the last one",
            format!("do:\n- l: {{ for: {{ in: .items }}, do: [ {CALL} ] }}\n"),
            json!({"items": [1, 2], "of": "x"}),
            json!({"n": 2, "of": "x"}),
        ),
        (
            "until `while` says so; it sees the output before",
            format!("do:\n- l: {{ for: {{ in: .items }}, while: '.n != 2', do: [ {CALL} ], {COLLECT} }}\n"),
            json!({"items": [1, 2, 3], "of": "x"}),
            json!([{"n": 1, "of": "x"}, {"n": 2, "of": "x"}]),
        ),
        (
            "an iteration that is left early; output.as sees the list",
            format!(
                "do:\n- l: {{ for: {{ in: .items }}, do: [ s: {{ if: '$item == 2', set: {{ odd: 1 }}, then: exit }}, {CALL} ], \
                 output: {{ as: '${{ map(.n // .odd) }}' }}, {COLLECT} }}\n"
            ),
            json!({"items": [5, 2, 3]}),
            json!([5, 1, 3]),
        ),
        (
            "a loop in a loop, in a block that is tried again",
            format!(
                "do:\n- t:\n    try:\n    - o: {{ for: {{ each: out, in: '[1, 2]' }}, do: [ l: {{ for: {{ in: .items }}, do: [ {CALL} ], {COLLECT} }}, \
                 m: {{ set: '${{ map(.n) }}' }} ], {COLLECT} }}\n    catch: {{ retry: {{ limit: {{ attempt: {{ count: 1 }} }} }} }}\n"
            ),
            json!({"items": [7, 8]}),
            json!([[7, 8], [7, 8]]),
        ),
        (
            "in the order of its items, where a jump leads back inside",
            format!(
                "do:\n- l: {{ for: {{ in: .items }}, do: [ {CALL}, b: {{ switch: [ again: {{ when: '.again', then: c }}, \
                 on: {{ then: exit }} ] }} ], {COLLECT} }}\n"
            ),
            json!({"items": [3, 1]}),
            json!([{"n": 3, "of": null}, {"n": 1, "of": null}]),
        ),
    ] {
        let body = body.replace("\\\n", "");
        assert_eq!(output(&run(&body, input)), wanted, "{what}");
    }
}

#[test]
fn keys_are_the_same_whether_a_loop_collects_or_not() {
    let keys = |tail: &str| -> Vec<String> {
        let body = format!("do:\n- l: {{ for: {{ in: .items }}, do: [ {CALL} ]{tail} }}\n");
        let asked = run(&body, json!({"items": [1, 2]})).events.into_iter();
        asked.filter_map(|e| e.fact.key().map(|key| format!("{} {}", e.fact.event_type(), key))).collect()
    };
    assert_eq!(keys(""), keys(&format!(", {COLLECT}")));
}

/// What the state holds of a loop in the middle of it.
#[test]
fn a_state_holds_the_outputs_only_where_they_are_collected() {
    let items: Vec<u64> = (0..40).collect();
    let held = |tail: &str| -> (usize, usize) {
        let body = format!(
            "do:\n- l: {{ for: {{ in: .items }}, do: [ s: {{ set: {{ n: '${{ $item }}' }} }} ]{tail} }}\n"
        );
        let program = program(&body);
        let events = rehearse(&*program, "w", json!({"items": items}), &echo).events;
        let middle = events.iter().position(|e| e.fact.key().is_some_and(|key| key.as_str() == "l[30]/s"));
        let state = WorkflowState::folded("w", &events[..middle.expect("it came there")]);
        let collected = match &state.entries["l"].body {
            EntryBody::Started { collected, .. } => collected.as_ref().map_or(0, Vec::len),
            other => panic!("{other:?}"),
        };
        (collected, serde_json::to_vec(&state).expect("a state").len())
    };
    let (without, small) = held("");
    let (with, large) = held(&format!(", {COLLECT}"));
    assert_eq!((without, with), (0, 30));
    assert!(small < large, "{small} {large}");
    let events =
        run(&format!("do:\n- l: {{ for: {{ in: .items }}, do: [ {CALL} ] }}\n"), json!({"items": [1]}))
            .events;
    assert!(!events.iter().any(|e| matches!(e.fact, Fact::TaskStarted { collects: true, .. })));
}

#[test]
fn a_limit_may_be_computed() {
    let slow = |key: &Key| (key.as_str() != "a").then_some(1).or(Some(3_000));
    let call = "call: http, with: { method: get, endpoint: 'http://x', query: { n: 1 } }";
    for (what, body, limit) in [
        ("of a step", format!("do:\n- a: {{ {call}, timeout: {{ after: '${{ .limit }}' }} }}\n"), "a"),
        ("of a step, by its shaped input", format!("do:\n- a: {{ {call}, input: {{ from: '{{ l: .limit }}' }}, timeout: {{ after: '${{ .l }}' }} }}\n"), "a"),
        ("of a scope", "do:\n- d: { do: [ w: { wait: { seconds: 3 } } ], timeout: { after: '${ .limit }' } }\n".into(), "d"),
        ("of a loop", "do:\n- l: { for: { in: '[1]' }, do: [ w: { wait: { seconds: 3 } } ], timeout: { after: '${ $input.limit }' } }\n".into(), "l"),
        ("by name", format!("use: {{ timeouts: {{ t: {{ after: '${{ .limit }}' }} }} }}\ndo:\n- a: {{ {call}, timeout: t }}\n"), "a"),
        ("of the workflow", "timeout: { after: '${ .limit }' }\ndo:\n- w: { wait: { seconds: 3 } }\n".into(), ""),
    ] {
        let program = program(&body);
        let end = |limit: &str| crash_anywhere_at_pace(&*program, json!({"limit": limit}), &echo, &slow).state.end;
        let error = match end("PT2S") {
            Some(End::Failed { error }) => error,
            other => panic!("{what}: {other:?}"),
        };
        assert!(error.error_type.ends_with("/timeout"), "{what}: {error:?}");
        assert_eq!(error.key.as_ref().map_or("", Key::as_str), limit, "{what}");
        assert!(matches!(end("PT5S"), Some(End::Completed { .. })), "{what}");
        let error = match end("soon") {
            Some(End::Failed { error }) => error,
            other => panic!("{what}: {other:?}"),
        };
        assert!(error.error_type.ends_with("/expression"), "{what}: {error:?}");
    }
    // Of a write it bounds each attempt, and so does one that is longer than a step's own bound.
    for (method, after, wanted) in
        [("post", "PT2S", Some(2_000)), ("get", "PT2S", None), ("get", "PT1H", Some(3_600_000))]
    {
        let body = format!(
            "do:\n- a: {{ call: http, with: {{ method: {method}, endpoint: 'http://x' }}, timeout: {{ after: '${{ .limit }}' }} }}\n"
        );
        let done = rehearse(&*program(&body), "w", json!({"limit": after}), &echo);
        let asked = done.events.into_iter().find_map(|e| match e.fact {
            Fact::StepAsked(asked) => Some(asked.timeout_ms),
            _ => None,
        });
        assert_eq!(asked, Some(wanted), "{method} {after}");
    }
}

#[test]
fn a_task_describes_itself() {
    let body = "do:\n- w: { wait: { milliseconds: 2500 } }\n\
                - a:\n    input: { from: '{ shaped: .x }' }\n    metadata: { note: mine }\n\
                \x20   set: '${ { task: $task, dot: ., runtime: $runtime, version: $workflow.definition.document.version } }'\n";
    let output = output(&run(body, json!({"x": 1})));
    assert_eq!(output["dot"], json!({"shaped": 1}));
    assert_eq!(output["version"], "1.0.0");
    assert_eq!(output["runtime"], json!({"name": "foldback"}));
    let task = &output["task"];
    assert_eq!(
        (&task["name"], &task["key"], &task["reference"]),
        (&json!("a"), &json!("a"), &json!("/do/1/a"))
    );
    assert_eq!(task["input"], json!({"x": 1}));
    assert_eq!(task["definition"]["metadata"], json!({"note": "mine"}));
    assert_eq!(task["startedAt"]["epoch"]["milliseconds"], json!(2_501), "{task}");
}

#[test]
fn a_task_that_runs_long_says_when_it_began() {
    let body = "do:\n- a: { do: [ w: { wait: { seconds: 3 } } ], output: { as: '${ $task.startedAt.epoch.milliseconds }' } }\n";
    assert_eq!(output(&run(body, json!({}))), json!(1));
}

#[test]
fn a_decision_says_which_of_its_values_were_redacted() {
    let source = "document: { dsl: '1.0.3', namespace: test, name: t, version: '1.0.0', metadata: { foldback: { redact: \
                  [ { path: $.email, replace: hidden } ] } } }\ndo:\n\
                  - a: { if: '.email == \"a@b\" or .n == 1', set: { x: 1 } }\n\
                  - b: { switch: [ c: { when: '$workflow.input.phone == \"[redacted phone]\"', then: end } ] }\n";
    let loaded = load(source, &|_| Err("no file".into())).unwrap_or_else(|e| panic!("{e:?}"));
    // As they stand in the log, the second by a rule of the configuration.
    let input = json!({"email": "hidden", "phone": "[redacted phone]", "n": 2});
    let events = crash_anywhere(&*loaded.program, input, &echo).events;
    let because: Vec<Value> = events
        .iter()
        .filter_map(|e| match &e.fact {
            Fact::DecisionMade(made) => Some(made.because.get()[0]["redacted"].clone()),
            _ => None,
        })
        .collect();
    assert_eq!(because, [json!([".email"]), json!(["$workflow.input.phone"])]);
}

#[test]
fn one_name_in_two_lists_is_two_tasks() {
    let body = "do:\n- a: { do: [ a: { set: { x: 1 } }, b: { do: [ a: { set: { x: 2 } } ] } ] }\n- b: { set: { all: '${ $steps.a.x }' } }\n";
    assert_eq!(output(&run(body, json!({}))), json!({"all": 2}));
}
