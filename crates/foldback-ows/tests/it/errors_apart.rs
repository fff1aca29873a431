//! What errors of erasable tasks say: it stands beside the log wherever an event repeats it, and a log from
//! before that still folds, verifies and goes on.

use foldback_core::rehearse::{Rehearsal, rehearse, rehearse_with_signals, resume};
use foldback_core::state::End;
use foldback_core::step::error_type;
use foldback_core::verify::verify;
use foldback_core::{Effect, Event, Fact, Failure, Key, Outcome, Slot, Step, WorkflowState};
use foldback_ows::load;
use serde_json::{Value, json};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: t, version: '1.0.0' }\n";
const NAME: &str = "Ann-Ghost-4711";

fn program(body: &str) -> std::sync::Arc<foldback_ows::OwsProgram> {
    let source = format!("{HEAD}{body}");
    load(&source, &|_| Err("no file".into())).unwrap_or_else(|e| panic!("{source}\n{e:?}")).program
}

/// Steps whose key begins or ends with `no` fail, and say whom they know nothing of.
fn world(key: &Key, _: &Step, _: u32) -> Outcome {
    if key.as_str().rsplit('/').next().is_some_and(|name| name.starts_with("no")) {
        let error = Failure::new(error_type::RUNTIME, 500, "Process failed", format!("nothing of {NAME}"));
        return Outcome::Failed { error, retry_after_ms: None, usage: None };
    }
    Outcome::Completed { output: json!({"ok": true}), usage: None }
}

fn input() -> Value {
    json!({"a": "Ann-", "b": "Ghost-4711"})
}

/// The events as a build wrote them that left the details, and the blocks' copies of them, in the log.
fn before(events: &[Event]) -> Vec<Event> {
    let inline = |event: &Event| {
        let mut event = event.clone();
        if let Some(failure) = event.fact.failure_mut() {
            *failure = failure.plain();
        }
        if let Fact::TaskStarted { input, .. } = &mut event.fact {
            *input = Slot::of(input.get());
        }
        if let Fact::DecisionMade(made) = &mut event.fact {
            made.because = Slot::of(made.because.get());
        }
        event
    };
    events.iter().map(inline).collect()
}

fn holds(events: &[Event]) -> Vec<String> {
    let all = events.iter().map(|event| format!("{} {}", event.fact.event_type(), event.encode()));
    all.filter(|text| text.contains(NAME)).collect()
}

const STEP: &str = "call: http, with: { method: get, endpoint: 'http://x.test' }";

#[test]
fn no_event_holds_what_the_error_of_an_erasable_task_says() {
    let marked = "metadata: { foldback: { erasable: true } }";
    let failing = format!("no: {{ {STEP}, {marked} }}");
    let raising = format!(
        "say: {{ raise: {{ error: {{ type: 'http://x.test/e', status: 500, title: t, detail: '${{ .a + .b }}' }} }}, \
         {marked} }}"
    );
    for (what, body, texts) in [
        ("a step", format!("do: [ {failing} ]"), 2),
        ("a step in a marked list", format!("do: [ l: {{ do: [ no: {{ {STEP} }} ], {marked} }} ]"), 2),
        (
            "attempts",
            format!("do: [ no: {{ {STEP}, metadata: {{ foldback: {{ erasable: true, attempts: 2 }} }} }} ]"),
            3,
        ),
        ("a raised error", format!("do: [ {raising} ]"), 1),
        (
            "a block that lets it pass",
            format!(
                "do: [ g: {{ try: [ {failing} ], catch: {{ errors: {{ with: {{ status: 404 }} }} }} }} ]"
            ),
            2,
        ),
        (
            "a block that catches a raised error",
            format!(
                "do: [ g: {{ try: [ l: {{ do: [ {raising} ] }} ], catch: {{ do: [ k: {{ set: {{ a: 1 }} }} ] }} }} ]"
            ),
            0,
        ),
        (
            "a branch",
            format!("do: [ f: {{ fork: {{ branches: [ {raising}, slow: {{ wait: PT1H }} ] }} }} ]"),
            1,
        ),
        (
            "a race",
            format!("do: [ f: {{ fork: {{ compete: true, branches: [ {raising}, {failing} ] }} }} ]"),
            2,
        ),
        (
            "an undo",
            format!(
                "do: [ pay: {{ call: http, with: {{ method: post, endpoint: 'http://x.test' }}, metadata: {{ \
                 foldback: {{ erasable: true, undo: [ no: {{ {STEP} }} ] }} }} }}, stop: {{ raise: {{ error: {{ type: \
                 'http://x.test/e', status: 500, title: t }} }} }} ]"
            ),
            2,
        ),
    ] {
        let program = program(&body);
        let rehearsal = rehearse(&*program, "w", input(), &world);
        assert_eq!(holds(&rehearsal.events), Vec::<String>::new(), "{what}");
        let told = rehearsal.events.iter().filter_map(|event| event.fact.failure()?.detail.as_deref());
        assert_eq!(told.filter(|text| text.contains(NAME)).count(), texts, "{what}: it reads as ever");
        verify(&*program, "w", &rehearsal.events).unwrap_or_else(|at| panic!("{what}: {at:?}"));

        // Values at hand or not, inline or not: it is the same past.
        let old = before(&rehearsal.events);
        assert!(!holds(&old).is_empty(), "{what}: this test can fail");
        verify(&*program, "w", &old).unwrap_or_else(|at| panic!("{what}, from before: {at:?}"));
    }
}

#[test]
fn a_log_with_details_inline_is_folded_as_it_was_and_ends_with_them_set_apart() {
    let program =
        program(&format!("do: [ no: {{ {STEP}, metadata: {{ foldback: {{ erasable: true }} }} }} ]"));
    let rehearsal = rehearse(&*program, "w", input(), &world);
    let mut old = before(&rehearsal.events);
    let text = old.iter().map(Event::encode).collect::<Vec<_>>();
    assert!(text.iter().any(|text| text.contains(&format!("\"detail\":\"nothing of {NAME}\""))), "{text:#?}");
    let state = WorkflowState::fold("w", &old).expect("it obeys the law");
    assert!(serde_json::to_string(&state).expect("JSON").contains(NAME), "nothing is moved that was written");
    // A process that finds it before its end puts apart what it writes.
    old.pop();
    let Rehearsal { state, events, .. } = resume(&*program, "w", &old, &world);
    let Some(Event { fact: Fact::WorkflowFailed { error }, .. }) = events.last() else { panic!("it fails") };
    assert!(matches!(error.slots().next(), Some(Slot::Stored(_))), "{error:?}");
    assert!(matches!(&state.end, Some(End::Failed { error }) if error.detail.as_deref().is_some()));
}

#[test]
fn a_signal_stands_apart_where_a_marked_task_listens_for_it_by_whichever_way() {
    let listen =
        |marked: &str| format!("hear: {{ listen: {{ to: {{ one: {{ with: {{ type: go }} }} }} }}{marked} }}");
    let marked = ", metadata: { foldback: { erasable: true } }";
    for (body, is_apart) in [
        (format!("do: [ {} ]", listen("")), false),
        (format!("do: [ {} ]", listen(marked)), true),
        (format!("do: [ l: {{ do: [ {} ]{marked} }} ]", listen("")), true),
        (
            format!(
                "do: [ g: {{ try: [ a: {{ set: {{ x: 1 }} }} ], catch: {{ do: [ {} ] }} }}, {} ]",
                listen(marked),
                listen("")
            ),
            true,
        ),
        (format!("do: [ other: {{ set: {{ x: 1 }}{marked} }}, {} ]", listen("")), false),
    ] {
        let program = program(&body);
        let signals = [("go", json!({"who": NAME}))];
        let rehearsal = rehearse_with_signals(&*program, "w", input(), &world, &|_| Some(1), &signals);
        let heard = rehearsal.events.iter().find(|event| matches!(event.fact, Fact::SignalReceived(_)));
        let heard = heard.expect("it is said").encode();
        assert_eq!(!heard.contains(NAME), is_apart, "{body}: {heard}");
    }
}

#[test]
fn what_a_step_without_the_mark_says_stays_in_the_log() {
    let program = program(&format!("do: [ no: {{ {STEP} }} ]"));
    let rehearsal = rehearse(&*program, "w", input(), &world);
    assert_eq!(holds(&rehearsal.events).len(), 2, "the step, and the workflow");
    let asked = rehearsal.events.iter().find_map(|event| match &event.fact {
        Fact::StepAsked(asked) => Some(asked.effect),
        _ => None,
    });
    assert_eq!(asked, Some(Effect::Read));
}
