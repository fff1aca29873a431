//! Stories about reports: a small program is rehearsed, and what the reports say of its log is
//! compared as text.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::program::{Ask, Program, Run, StepAsk, Turn};
use crate::rehearse::{Rehearsal, rehearse};
use crate::state::{Step, StepStatus, WorkflowState};
use crate::step::{Effect, Failure, Outcome, Recovery, RetryPolicy, Usage, error_type};
use crate::{Event, Key, TaskKind, Version};

/// A program that asks for one thing after the other and fails when a step does.
pub(super) struct Script(pub(super) Vec<Ask>);

struct ScriptRun(std::vec::IntoIter<Ask>, Option<Key>);

impl Program for Script {
    fn start(&self, _: &WorkflowState) -> Box<dyn Run> {
        Box::new(ScriptRun(self.0.clone().into_iter(), None))
    }
}

impl Run for ScriptRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        if !state.open.is_empty() {
            return Turn::Waits;
        }
        if let Some(error) = self.1.take().and_then(|key| failure_of(state.step(&key)?)) {
            return Turn::Ends(Err(error));
        }
        let Some(ask) = self.0.next() else {
            return Turn::Ends(Ok(json!("the end")));
        };
        if let Ask::Step(step) = &ask {
            self.1 = Some(step.key.clone());
        }
        Turn::Asks(vec![ask])
    }
}

fn failure_of(step: &Step) -> Option<Failure> {
    (step.status == StepStatus::Failed).then(|| step.error.clone())?
}

pub(super) fn step(key: &str, kind: &str, effect: Effect) -> Ask {
    let mut ask = StepAsk::new(Key::from(key), kind, effect, json!({"prompt": format!("do {key}")}));
    ask.recovery = Recovery::Operator;
    if kind == "llm" {
        ask.retry = Some(RetryPolicy { delay_ms: 2_000, max_delay_ms: 2_000, ..RetryPolicy::model() });
    }
    Ask::Step(Box::new(ask))
}

pub(super) fn set(key: &str, value: Value) -> Ask {
    Ask::Finish { key: Key::from(key), kind: TaskKind::Set, output: Arc::new(value), context: None }
}

pub(super) fn open(key: &str, kind: TaskKind) -> Ask {
    Ask::Start { key: Key::from(key), kind, input: Arc::new(json!({"n": 1})) }
}

pub(super) fn close(key: &str, kind: TaskKind) -> Ask {
    Ask::Finish { key: Key::from(key), kind, output: Arc::new(json!("out")), context: None }
}

fn decide(key: &str, chosen: &str, because: Value) -> Ask {
    let options = vec!["publish".to_owned(), "revise".to_owned()];
    Ask::Decide { key: Key::from(key), chosen: chosen.to_owned(), options, because, finishes: true }
}

/// Drafts twice in a loop (the first attempt meets a 429), decides, waits, publishes.
fn article(publishing: fn() -> Outcome) -> Rehearsal {
    let script = Script(vec![
        set("plan", json!({"topic": "rust"})),
        open("refine", TaskKind::For),
        step("refine[0]/draft", "llm", Effect::Read),
        decide("refine[0]/check", "revise", json!({"score": 0.4})),
        close("refine[0]", TaskKind::Iteration),
        step("refine[1]/draft", "llm", Effect::Read),
        decide("refine[1]/check", "publish", json!({"score": 0.9})),
        close("refine[1]", TaskKind::Iteration),
        close("refine", TaskKind::For),
        Ask::Timer { key: Key::from("pause"), delay_ms: 5_000, finishes: true, limits: false },
        step("publish", "http", Effect::Write),
    ]);
    let world = move |key: &Key, _: &Step, attempt: u32| match (key.as_str(), attempt) {
        ("refine[0]/draft", 1) => Outcome::Failed {
            error: Failure::new(error_type::COMMUNICATION, 429, "Too Many Requests", "slow down"),
            retry_after_ms: None,
            usage: None,
        },
        ("publish", _) => publishing(),
        (key, _) => Outcome::Completed { output: json!({"text": key}), usage: Some(usage(key)) },
    };
    rehearse(&script, "w", json!({"topic": "rust"}), &world)
}

fn usage(key: &str) -> Usage {
    Usage {
        model: "small".into(),
        input_tokens: 100,
        output_tokens: 20,
        micro_usd: (key != "refine[1]/draft").then_some(7),
        finish_reason: Some("stop".into()),
        ..Usage::default()
    }
}

fn done() -> Outcome {
    Outcome::Completed { output: json!({"id": 7}), usage: None }
}

fn refused() -> Outcome {
    let error = Failure::new(error_type::COMMUNICATION, 500, "Internal Server Error", "no");
    Outcome::Failed { error, retry_after_ms: None, usage: None }
}

fn lost() -> Outcome {
    Outcome::Unknown { reason: "the connection broke".into() }
}

fn rows(events: &[Event]) -> String {
    let mut text = String::new();
    for row in steps(events) {
        let version = |v: Option<Version>| v.map_or("-".to_owned(), |v| v.to_string());
        let _ = writeln!(
            text,
            "{} {} {} {} x{} {}/{}/{} {}+{} ${} in={} out={}",
            row.key,
            row.kind,
            format!("{:?}", row.effect).to_lowercase(),
            row.status.as_str(),
            row.attempts,
            row.asked_version,
            version(row.started_version),
            version(row.ended_version),
            row.tokens.input,
            row.tokens.output,
            row.micro_usd.map_or("?".to_owned(), |n| n.to_string()),
            row.input,
            row.output,
        );
    }
    text
}

fn outline(nodes: &[TreeNode], depth: usize, text: &mut String) {
    for node in nodes {
        let what = match &node.what {
            What::Scope { task, .. } => task.map_or("scope".into(), |t| format!("{t:?}").to_lowercase()),
            What::Step { kind, .. } => kind.to_string(),
            What::Decision { chosen, .. } => format!("chose {chosen}"),
            What::Timer { .. } => "timer".into(),
            What::Listen { .. } => "listen".into(),
            What::Event { event_type } => format!("event {event_type}"),
        };
        let _ = writeln!(
            text,
            "{:indent$}{} {what} {} {}t ${}",
            "",
            node.label,
            node.status.as_str(),
            node.tokens.input,
            node.micro_usd,
            indent = depth * 2
        );
        outline(&node.children, depth + 1, text);
    }
}

fn drawn(events: &[Event]) -> String {
    let mut text = String::new();
    outline(&tree(events), 0, &mut text);
    text
}

#[test]
fn each_step_has_a_row_with_what_it_got_and_gave() {
    assert_eq!(
        rows(&article(done).events),
        r#"plan set pure completed x1 2/2/2 0+0 $0 in=null out={"topic":"rust"}
refine[0]/draft llm read completed x2 4/4/7 100+20 $7 in={"prompt":"do refine[0]/draft"} out={"text":"refine[0]/draft"}
refine[1]/draft llm read completed x1 10/10/11 100+20 $? in={"prompt":"do refine[1]/draft"} out={"text":"refine[1]/draft"}
publish http write completed x1 17/17/18 0+0 $0 in={"prompt":"do publish"} out={"id":7}
"#
    );
}

#[test]
fn what_a_row_holds_at_an_earlier_version_is_what_was_true_then() {
    let events = article(done).events;
    let at = |version: usize| steps(&events[..version]).pop().expect("a row");
    let first = at(4);
    assert_eq!((first.status, first.attempts), (ReportedStatus::Running, 1));
    let backing_off = at(5);
    assert_eq!(backing_off.status, ReportedStatus::Running);
    assert_eq!(backing_off.failed_attempts.len(), 1);
    assert!(backing_off.due.is_some() && backing_off.ended_version.is_none());
    let second = at(6);
    assert_eq!((second.attempts, second.due), (2, None));
    let completed = at(7);
    assert_eq!((completed.error, completed.due), (None, None));
    let delay_ms = completed.failed_attempts[0].delay_ms;
    assert!(delay_ms > 0 && completed.duration_ms >= Some(delay_ms), "delays are part of the duration");
}

#[test]
fn a_step_that_fails_or_whose_outcome_nobody_knows_says_so() {
    for (outcome, status) in [
        (refused as fn() -> Outcome, ReportedStatus::Failed),
        (lost, ReportedStatus::Unknown),
        (done, ReportedStatus::Completed),
    ] {
        let rehearsal = article(outcome);
        let last = steps(&rehearsal.events).pop().expect("a row");
        assert_eq!(last.status, status);
        assert_eq!(last.error.is_some(), status == ReportedStatus::Failed);
    }
}

#[test]
fn a_step_that_never_began_before_the_end_is_cancelled() {
    // The log is cut while the first draft backs off, and the workflow fails there.
    let mut events = article(done).events;
    events.truncate(5);
    let mut failed = article(refused).events.pop().expect("its end");
    (failed.version, failed.timestamp) = (6, events[4].timestamp);
    events.push(failed);
    assert_eq!(steps(&events).pop().expect("a row").status, ReportedStatus::Cancelled);
    let state = WorkflowState::fold("w", &events).expect("it obeys the law");
    assert_eq!(state_view(&state).pending, Vec::new());
}

#[test]
fn decisions_say_what_was_chosen_out_of_what_and_why() {
    let events = article(done).events;
    let found = serde_json::to_value(decisions(&events)).expect("JSON");
    assert_eq!(
        found,
        json!([
            {"version": 8, "key": "refine[0]/check", "chosen": "revise", "options": ["publish", "revise"], "because": {"score": 0.4}},
            {"version": 12, "key": "refine[1]/check", "chosen": "publish", "options": ["publish", "revise"], "because": {"score": 0.9}},
        ])
    );
}

#[test]
fn scopes_nest_and_sum_up_what_lies_in_them() {
    assert_eq!(
        drawn(&article(refused).events),
        "\
plan set completed 0t $0
refine for completed 200t $7
  [0] iteration completed 100t $7
    draft llm completed 100t $7
    check chose revise completed 0t $0
  [1] iteration completed 100t $0
    draft llm completed 100t $0
    check chose publish completed 0t $0
pause timer completed 0t $0
publish http failed 0t $0
"
    );
    // Cut in the middle of the second iteration.
    let cut = drawn(&article(done).events[..10]);
    assert!(cut.contains("refine for running"), "{cut}");
    assert!(cut.contains("  [1] scope running"), "{cut}");
    assert!(cut.contains("    draft llm running"), "{cut}");
}

#[test]
fn marks_on_leaves_are_leaves_and_tries_are_scopes() {
    let script = Script(vec![
        decide("review!if", "publish", json!(1)),
        open("post", TaskKind::Try),
        step("post/send", "llm", Effect::Read),
        Ask::Timer { key: Key::from("post!2"), delay_ms: 10, finishes: false, limits: false },
        open("post!2", TaskKind::Try),
        step("post!2/send", "llm", Effect::Read),
        close("post", TaskKind::Try),
        step("draft", "llm", Effect::Read),
        step("draft#2", "llm", Effect::Read),
        Ask::Record { key: Key::from("tell"), event_type: Arc::from("DRAFTED"), data: json!({"n": 2}) },
    ]);
    let rehearsal = rehearse(&script, "w", json!(null), &|_, _, _| done());
    assert_eq!(
        drawn(&rehearsal.events),
        "\
review!if chose publish completed 0t $0
post try completed 0t $0
  send llm completed 0t $0
  !2 try completed 0t $0
    send llm completed 0t $0
draft llm completed 0t $0
draft#2 llm completed 0t $0
tell event DRAFTED completed 0t $0
"
    );
}

#[test]
fn a_version_is_found_by_number_name_time_and_failure() {
    let done = article(done).events;
    let failed = article(refused).events;
    let cases: [(&str, &[Event], Result<Version, &str>); 19] = [
        ("1", &done, Ok(1)),
        ("19", &done, Ok(19)),
        ("20", &done, Err("version 20 is out of range")),
        ("0", &done, Err("version 0 is out of range")),
        ("-1", &done, Ok(19)),
        ("-19", &done, Ok(1)),
        ("-20", &done, Err("version -20 is out of range")),
        ("99999999999999999999", &done, Err("`99999999999999999999` is no version: the number is too large")),
        ("-x", &done, Err("`-x` is no version")),
        ("", &done, Err("a version is missing")),
        ("failure", &done, Err("the workflow has not failed")),
        ("failure", &failed, Ok(16)),
        ("plan", &done, Ok(1)),
        ("plan:end", &done, Ok(2)),
        ("refine[0]/draft:end", &done, Ok(7)),
        ("refine[1]", &done, Ok(9)),
        ("refine:end", &done, Ok(14)),
        ("publish:end", &done[..17], Err("`publish` has not ended")),
        ("publsh", &done, Err("nothing in this log is called `publsh`")),
    ];
    for (text, events, wanted) in cases {
        let found = VersionSpec::parse(text).and_then(|spec| spec.resolve(events));
        assert_eq!(found.as_ref().copied().map_err(|e| e.message.as_str()), wanted, "{text}");
    }
    let unknown = VersionSpec::parse("publsh").and_then(|spec| spec.resolve(&done)).expect_err("unknown");
    assert_eq!(unknown.hint, "did you mean `publish`?");
    let at = |micros| VersionSpec::Time(micros).resolve(&done);
    assert_eq!(at(done[4].timestamp), Ok(5));
    assert_eq!(at(done[4].timestamp - 1), Ok(4));
    assert_eq!(at(i64::MAX), Ok(19));
    assert!(at(0).is_err());
}

#[test]
fn a_failure_without_a_step_is_just_before_the_end() {
    let mut events = article(refused).events;
    let last = events.len() as Version;
    if let Some(Event { fact: crate::Fact::WorkflowFailed { error }, .. }) = events.last_mut() {
        error.key = Some(Key::from("plan"));
    }
    assert_eq!(VersionSpec::Failure.resolve(&events), Ok(last - 1));
}

#[test]
fn the_view_of_a_state_names_what_it_waits_for() {
    let events = article(lost).events;
    let view = |version: usize| {
        let state = WorkflowState::fold("w", &events[..version]).expect("it obeys the law");
        serde_json::to_value(state_view(&state)).expect("JSON")
    };
    let backing_off = view(5);
    assert_eq!(backing_off["status"], "running");
    assert_eq!(backing_off["pending"][0]["status"], "backoff");
    assert_eq!(backing_off["pending"][0]["due"].as_str().map(str::len), Some(27));
    let sleeping = view(15);
    assert_eq!((&sleeping["status"], &sleeping["waits"][0]["for"]), (&json!("waiting"), &json!("timer")));
    let unknown = view(events.len());
    assert_eq!(unknown["status"], "unknown");
    assert_eq!(unknown["waits"], json!([{"key": "publish", "for": "outcome"}]));
    assert_eq!(unknown["spent"]["input_tokens"], 200);
    for field in ["workflow_id", "version", "input", "context", "output", "pending", "undos"] {
        assert!(unknown.get(field).is_some(), "{field}");
    }
}

#[test]
fn what_an_event_changed_is_told_in_short_lines() {
    let events = article(done).events;
    let mut state = WorkflowState::empty("w");
    let mut text = String::new();
    for event in events.iter() {
        let before = state.clone();
        state.apply(event);
        if matches!(event.version, 2 | 4 | 6 | 8 | 9 | 11 | 14 | 19) {
            let _ = writeln!(text, "{}: {}", event.version, changes(&before, &state).join("; "));
        }
    }
    assert_eq!(
        text,
        r#"2: + plan: set finished with {"topic":"rust"}; ~ goes on after plan with {"topic":"rust"}
4: + refine[0]/draft: llm running
6: ~ refine[0]/draft: llm backoff until 1970-01-01T00:00:01.320000Z → llm running, attempt 2
8: + refine[0]/check: decided revise; ~ goes on after refine[0]/check in refine[0] with {"text":"refine[0]/draft"}
9: ~ refine: for open → for open, 1 done; - superseded: refine[0]/check, refine[0]/draft
11: ~ refine[1]/draft: llm running → llm completed; ~ goes on after refine[1]/draft in refine[1] with {"text":"refine[1]/draft"}; ~ spent +1 step, +100 tokens in, +20 tokens out
14: ~ refine: for open, 2 done → for finished with "out"; ~ goes on after refine with "out"
19: - superseded: pause, plan, publish, refine; = completed with "the end"
"#
    );
}
