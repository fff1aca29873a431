//! `retry`: a document that failed somewhere, is reopened in a mended world, and ends as if nothing had
//! ever failed; from every prefix of its log, and without asking twice for what was done.

use std::cell::RefCell;
use std::collections::BTreeMap;

use foldback_core::rehearse::{Rehearsal, rehearse, reopen, resume};
use foldback_core::state::End;
use foldback_core::step::error_type;
use foldback_core::verify::verify;
use foldback_core::{Event, Fact, Failure, Key, Outcome, Step};
use serde_json::{Value, json};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: t, version: '1.0.0' }\ndo:\n";

/// A task that asks for something.
fn call(name: &str) -> String {
    format!("{name}: {{ call: http, with: {{ method: GET, endpoint: 'https://x.test/{name}' }} }}")
}

/// Bodies, and the keys that fail until they are mended.
fn table() -> Vec<(&'static str, String, &'static [&'static str])> {
    let (a, b, c) = (call("a"), call("b"), call("c"));
    vec![
        ("in a row", format!("- {a}\n- {b}\n- {c}\n"), &["b"]),
        ("the last", format!("- {a}\n- {b}\n"), &["b"]),
        (
            "in a loop",
            format!("- {a}\n- l:\n    for: {{ in: '[1, 2, 3]' }}\n    do:\n    - {b}\n- {c}\n"),
            &["l[1]/b"],
        ),
        (
            "in a visit to which `then` led back",
            format!(
                "- {}\n- s: {{ switch: [ again: {{ when: '$task.key == \"s\"', then: a }}, on: {{ then: c }} ] }}\n- {c}\n",
                call("a")
            ),
            &["a#2"],
        ),
        (
            "in a block to which `then` led back",
            format!(
                "- d: {{ do: [ {a}, {b} ] }}\n- s: {{ switch: [ again: {{ when: '$task.key == \"s\"', then: d }}, on: {{ then: c }} ] }}\n- {c}\n"
            ),
            &["d#2/b"],
        ),
        (
            "not caught",
            format!(
                "- t:\n    try:\n    - {a}\n    - {b}\n    catch: {{ errors: {{ with: {{ status: 404 }} }}, do: [ s: {{ set: {{ x: 1 }} }} ] }}\n- {c}\n"
            ),
            &["t/b"],
        ),
        (
            "in the handler: what it handles stays handled",
            format!("- t:\n    try:\n    - {a}\n    catch: {{ do: [ {b} ] }}\n- {c}\n"),
            &["t/a", "t!catch/b"],
        ),
        (
            "after its tries are used up: in the last of them",
            format!(
                "- t:\n    try:\n    - {a}\n    - {b}\n    catch: {{ retry: {{ limit: {{ attempt: {{ count: 2 }} }} }} }}\n- {c}\n"
            ),
            &["t/b", "t!2/b", "t!3/b"],
        ),
        (
            "a branch",
            format!("- f:\n    fork:\n      branches:\n      - {a}\n      - {b}\n- {c}\n"),
            &["f/b"],
        ),
        (
            "two branches, of which one told its failure",
            format!(
                "- f:\n    fork:\n      branches:\n      - one: {{ do: [ {a} ] }}\n      - two: {{ do: [ {b} ] }}\n- {c}\n"
            ),
            &["f/one/a", "f/two/b"],
        ),
        (
            "every branch of a race",
            format!(
                "- f:\n    fork:\n      compete: true\n      branches:\n      - {a}\n      - {b}\n- {c}\n"
            ),
            &["f/a", "f/b"],
        ),
        (
            "two blocks around it, neither for it",
            format!(
                "- t:\n    try:\n    - u:\n        try:\n        - {a}\n        - {b}\n        catch: {{ errors: {{ with: {{ status: 404 }} }} }}\n    catch: {{ errors: {{ with: {{ status: 405 }} }} }}\n- {c}\n"
            ),
            &["t/u/b"],
        ),
    ]
}

/// A world in which these keys fail, and which notes what it was asked.
fn world<'a>(
    failing: &'a [&'a str],
    asked: &'a RefCell<Vec<String>>,
) -> impl Fn(&Key, &Step, u32) -> Outcome + 'a {
    move |key, _, _| {
        asked.borrow_mut().push(key.to_string());
        match failing.contains(&key.as_str()) {
            true => {
                let error = Failure::new(error_type::COMMUNICATION, 500, "Down", "the server is down");
                Outcome::Failed { error, retry_after_ms: None, usage: None }
            }
            false => Outcome::Completed { output: json!({ "said": key.without_tries() }), usage: None },
        }
    }
}

fn output(rehearsal: &Rehearsal) -> Option<Value> {
    match &rehearsal.state.end {
        Some(End::Completed { output }) => Some((*output.get()).clone()),
        _ => None,
    }
}

#[test]
fn what_was_mended_ends_as_if_it_had_never_failed_and_nothing_is_done_twice() {
    for (name, body, failing) in table() {
        let source = format!("{HEAD}{body}");
        let loaded = foldback_ows::load(&source, &|_| Err("no files".into()))
            .unwrap_or_else(|p| panic!("{name}: {p:?}"));
        let program = foldback_ows::from_canonical(&loaded.canonical).expect("it is read back");
        // What a handler answers stays answered: its step failed in the well world too.
        let answered: &[&str] = if name.starts_with("in the handler") { &failing[..1] } else { &[] };
        let asked = RefCell::default();
        let well = rehearse(&*program, "w", json!({}), &world(answered, &asked));
        let wanted = output(&well).unwrap_or_else(|| panic!("{name}: {:?}", well.state.end));

        asked.borrow_mut().clear();
        let failed = rehearse(&*program, "w", json!({}), &world(failing, &asked));
        assert!(matches!(failed.state.end, Some(End::Failed { .. })), "{name}: {:?}", failed.state.end);
        let mended = reopen(&*program, "w", &failed.events, &world(&[], &asked));
        let text = foldback_core::text::render(&mended.events);
        assert_eq!(output(&mended), Some(wanted.clone()), "{name}\n{text}");
        verify(&*program, "w", &mended.events).unwrap_or_else(|p| panic!("{name}: {p:#?}\n{text}"));

        // What it says to be done again is done again.
        let (before, after) = mended.events.split_at(failed.events.len());
        let is_asked = |events: &[Event], key: &Key| {
            events.iter().any(|e| matches!(&e.fact, Fact::StepAsked(asked) if asked.key == *key))
        };
        let Fact::WorkflowReopened { again, .. } = &after[0].fact else { panic!("{name}: {text}") };
        for key in again.iter().filter(|key| is_asked(before, key)) {
            assert!(is_asked(after, key), "{name}: `{key}` is not asked again\n{text}");
        }

        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        asked.borrow().iter().for_each(|key| *times.entry(key.clone()).or_default() += 1);
        for (key, times) in times {
            // A race is won by the first that comes; only what failed, and made the end, is asked again.
            let most = if failing.contains(&key.as_str()) { 2 } else { 1 };
            assert!(times <= most, "{name}: `{key}` was asked {times} times\n{text}");
        }
        // A process that dies while it goes on leads to the same end.
        let reopened = failed.events.len() + 1;
        for cut in reopened..=mended.events.len() {
            let resumed = resume(&*program, "w", &mended.events[..cut], &world(&[], &RefCell::default()));
            assert_eq!(output(&resumed), Some(wanted.clone()), "{name}, cut at {cut}\n{text}");
        }
    }
}

#[test]
fn what_is_not_mended_fails_again_and_can_be_reopened_again() {
    let (_, body, failing) = table().into_iter().find(|(name, ..)| *name == "not caught").expect("a row");
    let source = format!("{HEAD}{body}");
    let loaded = foldback_ows::load(&source, &|_| Err("no files".into())).expect("it loads");
    let program = foldback_ows::from_canonical(&loaded.canonical).expect("it is read back");
    let asked = RefCell::default();
    let mut failed = rehearse(&*program, "w", json!({}), &world(failing, &asked));
    for _ in 0..3 {
        failed = reopen(&*program, "w", &failed.events, &world(failing, &asked));
        assert!(matches!(failed.state.end, Some(End::Failed { .. })));
    }
    assert_eq!(asked.borrow().iter().filter(|key| *key == "t/b").count(), 4);
    let reopened = failed.events.iter().filter(|e| matches!(e.fact, Fact::WorkflowReopened { .. })).count();
    assert_eq!(reopened, 3);
    verify(&*program, "w", &failed.events).expect("it verifies");
}
