//! What Rust code takes back, listens for and finds out: functions beside the flow, cut after every event.

use std::sync::Arc;

use foldback::code::{Code, Ctx, Done, Ended, Work};
use foldback::core::rehearse::{Rehearsal, crash_anywhere_with_signals, rehearse};
use foldback::core::step::Outcome;
use foldback::core::{Effect, Fact, Failure, Key, Measure, Recovery, Status, Step, text};
use serde_json::{Value, json};

fn post(what: &str) -> Work {
    Work::new("http", Effect::Write, json!({"post": what})).recovery(Recovery::Retry)
}

/// Answers each step with what it posts; `broken` fails, `torn` is lost the first time.
fn world(key: &Key, step: &Step, _attempt: u32) -> Outcome {
    match key.name() {
        "broken" => {
            Outcome::Failed { error: Failure::new("t", 500, "no", "no"), retry_after_ms: None, usage: None }
        }
        "torn" if step.unknowns == 0 => Outcome::Unknown { reason: "the connection broke".into() },
        _ => Outcome::Completed { output: json!({"did": step.request.to_json()["post"]}), usage: None },
    }
}

async fn order(mut ctx: Ctx, input: Value) -> Ended {
    ctx.step("reserve", post("reserve").undo("release", json!({"room": 7}))).await?;
    ctx.record("told", "ORDER_PLACED", json!({"order": input}));
    let answer = ctx.listen("ask", "approval").await?;
    ctx.step("letter", post("letter").irreversible("it is in the post")).await?;
    ctx.each("each", vec![1, 2], async |mut ctx, n| {
        ctx.step("charge", post(&format!("charge {n}")).undo("refund", json!(n))).await
    })
    .await?;
    match answer["fails"].as_bool() {
        Some(true) => ctx.step("broken", Work::new("http", Effect::Read, json!({}))).await,
        _ => Ok(answer),
    }
}

/// Two steps, of which the second sees what the first gave.
async fn release(mut ctx: Ctx, done: Done) -> Ended {
    let found = ctx.step("look", Work::new("http", Effect::Read, json!({"post": "look"}))).await?;
    ctx.step(
        "release",
        post(&format!("release {} {} {}", done.given["room"], done.output["did"], found["did"])),
    )
    .await
}

async fn refund(mut ctx: Ctx, done: Done) -> Ended {
    ctx.step("refund", post(&format!("refund {}", done.given))).await
}

async fn withdraw(mut ctx: Ctx, done: Done) -> Ended {
    ctx.step("withdraw", post(&format!("withdraw {}", done.given["order"]))).await
}

fn program() -> impl foldback::core::Program {
    Code::new(order)
        .undo("release", release)
        .undo("refund", refund)
        .on_compensate("ORDER_PLACED", withdraw)
        .budget(Measure::Steps, 100)
}

/// What was posted, in the order in which it was asked for.
fn posted(story: &Rehearsal) -> Vec<String> {
    let asked = story.events.iter().filter_map(|event| match &event.fact {
        Fact::StepAsked(asked) if asked.effect == Effect::Write => {
            Some(asked.request.to_json()["post"].clone())
        }
        _ => None,
    });
    asked.map(|what| what.as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn what_a_failed_run_did_is_taken_back_newest_first_wherever_it_is_cut() {
    let signals = [("approval", json!({"fails": true}))];
    let story = crash_anywhere_with_signals(&program(), json!(9), &world, &|_| Some(1), &signals);
    assert_eq!(story.state.status(), Status::Compensated, "{}", text::render(&story.events));
    let expected = [
        "reserve",
        "letter",
        "charge 1",
        "charge 2",
        "refund 2",
        "refund 1",
        "withdraw 9",
        "release 7 \"reserve\" \"look\"",
    ];
    assert_eq!(posted(&story), expected);
}

#[test]
fn an_answer_that_came_early_is_taken_and_nothing_is_taken_back_of_what_went_well() {
    let signals = [("approval", json!({"fails": false})), ("approval", json!({"fails": true}))];
    let story = crash_anywhere_with_signals(&program(), json!(9), &world, &|_| Some(1), &signals);
    assert_eq!(story.state.status(), Status::Completed);
    assert_eq!(posted(&story).len(), 4);
}

#[test]
fn code_that_holds_leaves_it_to_a_person_and_one_without_the_function_is_stuck() {
    async fn fails(mut ctx: Ctx, _input: Value) -> Ended {
        ctx.step("reserve", post("reserve").undo("release", json!({}))).await?;
        ctx.step("broken", Work::new("http", Effect::Read, json!({}))).await
    }
    let held = rehearse(&Code::new(fails).undo("release", release).hold(), "w", json!({}), &world);
    assert_eq!((held.state.status(), held.state.newest_undo), (Status::Failed, Some(4)));
    let stuck = rehearse(&Code::new(fails), "w", json!({}), &world);
    assert_eq!(stuck.state.status(), Status::Stuck);
    assert!(stuck.state.stuck().is_some_and(|(undo, _)| undo.key == Key::from("reserve")));
}

#[test]
fn a_function_finds_out_whether_a_write_happened() {
    async fn pay(mut ctx: Ctx, _input: Value) -> Ended {
        ctx.step("torn", post("pay").reconcile("look", json!({"order": 7}))).await
    }
    for (answer, status, attempts) in [
        (json!({"landed": "P-1"}), Status::Completed, 1),
        (json!({"didnt": true}), Status::Completed, 2),
        (json!("who knows"), Status::Unknown, 1),
    ] {
        let answer = Arc::new(answer);
        let told = answer.clone();
        let look = move |mut ctx: Ctx, done: Done| {
            let told = told.clone();
            async move {
                assert_eq!(done.given, json!({"order": 7}));
                assert!(done.idempotency_key.is_some_and(|key| key.len() == 32));
                ctx.step("look", Work::new("http", Effect::Read, json!({}))).await?;
                Ok((*told).clone())
            }
        };
        let story = rehearse(&Code::new(pay).undo("look", look), "w", json!({}), &world);
        assert_eq!(story.state.status(), status, "{answer}: {}", text::render(&story.events));
        let begun = story.events.iter().filter(|event| match &event.fact {
            Fact::StepAsked(asked) => asked.key == Key::from("torn"),
            Fact::AttemptStarted { key, .. } => *key == Key::from("torn"),
            _ => false,
        });
        assert_eq!(begun.count(), attempts, "{answer}");
    }
}

#[test]
fn a_long_loop_of_writes_keeps_a_small_state_and_takes_every_one_back() {
    async fn many(mut ctx: Ctx, n: Value) -> Ended {
        let all = (0..n.as_u64().unwrap_or_default()).collect();
        ctx.each("each", all, async |mut ctx, n| {
            ctx.step("charge", post(&format!("charge {n}")).undo("refund", json!(n))).await
        })
        .await?;
        ctx.step("broken", Work::new("http", Effect::Read, json!({}))).await
    }
    // What is armed is a chain through the log, so a held failure with all of it armed is the largest state.
    let held = |n: u64| {
        let program = Code::new(many).undo("refund", refund).hold();
        let story = rehearse(&program, "w", json!(n), &world);
        assert_eq!(story.state.status(), Status::Failed);
        serde_json::to_vec(&story.state).expect("JSON").len()
    };
    let (few, lots) = (held(10), held(1_000));
    assert!(lots < few + 64, "{few} bytes with 10 writes, {lots} with 1,000");
    let story = rehearse(&Code::new(many).undo("refund", refund), "w", json!(1_000), &world);
    assert_eq!(story.state.status(), Status::Compensated);
    let of = |what: &dyn Fn(&Fact) -> Option<Key>| -> Vec<Key> {
        story.events.iter().filter_map(|event| what(&event.fact)).collect()
    };
    let mut armed = of(&|fact| match fact {
        Fact::UndoArmed(undo) => Some(undo.key.clone()),
        _ => None,
    });
    let undone = of(&|fact| match fact {
        Fact::UndoCompleted { key, .. } => Some(key.clone()),
        _ => None,
    });
    armed.reverse();
    assert!(armed.len() == 1_000 && armed == undone, "{} armed, {} undone", armed.len(), undone.len());
}
