//! Programs in Rust, rehearsed: the log they leave, and `crash_anywhere`.

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::rehearse::{crash_anywhere, rehearse, resume};
use foldback::core::step::{Outcome, RetryPolicy};
use foldback::core::{Effect, Failure, Key, Program, Status, Step};
use serde_json::{Value, json};

fn read(request: Value) -> Work {
    Work::new("http", Effect::Read, request)
}

/// Answers each step with its key and the attempt; `flaky` fails twice, `broken` always.
fn world(key: &Key, step: &Step, attempt: u32) -> Outcome {
    let failed = |status| Outcome::Failed {
        error: Failure::new("t", status, "no", "no"),
        retry_after_ms: None,
        usage: None,
    };
    match key.name() {
        "flaky" if step.unknowns == 0 && step.error.is_none() => failed(503),
        "broken" => failed(500),
        "reject" if step.repairs == 0 => Outcome::Rejected {
            output: json!("bad"),
            error: Failure::new("t", 400, "schema", "x"),
            usage: None,
        },
        "lost" if step.unknowns == 0 => Outcome::Unknown { reason: "connection broke".into() },
        _ => {
            let _ = attempt;
            Outcome::Completed {
                output: json!({"key": key.as_str(), "score": key.as_str().len()}),
                usage: None,
            }
        }
    }
}

async fn straight(mut ctx: Ctx, input: Value) -> Ended {
    let a = ctx.step("a", read(json!({"q": input}))).await?;
    let b = ctx.step("a", read(json!({"q": a["score"]}))).await?;
    let sum = ctx.compute("sum", || json!(a["score"].as_i64().unwrap() + b["score"].as_i64().unwrap()));
    ctx.record("note", "SUMMED", json!({"sum": sum}));
    ctx.sleep("nap", 1_000).await?;
    let word = if ctx.decide("big", sum.as_i64() > Some(3), json!({"sum": sum})) { "big" } else { "small" };
    ctx.step("say", Work::new("http", Effect::Write, json!({"word": word}))).await
}

async fn side_by_side(mut ctx: Ctx, _input: Value) -> Ended {
    let notes = ctx
        .each("review", vec!["ann", "bob", "cyd"], async |mut ctx, who| {
            let ask = ctx.step("ask", read(json!({"who": who}))).await?;
            if ctx.decide("again", who == "bob", json!({"who": who})) {
                return ctx.step("ask", read(json!({"who": who, "again": true}))).await;
            }
            Ok(ask)
        })
        .await?;
    let inner = ctx
        .each("outer", vec![1, 2], async |mut ctx, n| {
            ctx.each("inner", vec![10 * n, 10 * n + 1], async |mut ctx, m| {
                ctx.step("leaf", read(json!(m))).await
            })
            .await
        })
        .await?;
    Ok(json!([notes, inner]))
}

async fn hard_times(mut ctx: Ctx, _input: Value) -> Ended {
    let retry = RetryPolicy { attempts: 3, delay_ms: 10, max_delay_ms: 10, ..Default::default() };
    ctx.step("flaky", read(json!({})).retry(retry)).await?;
    ctx.step("reject", read(json!({})).retry(RetryPolicy::model())).await?;
    ctx.step("lost", Work::new("http", Effect::Write, json!({})).recovery(foldback::core::Recovery::Retry))
        .await?;
    let caught = ctx.step("broken", read(json!({}))).await.map_err(|e| e.title);
    if ctx.decide("give up", caught.is_err(), json!({"caught": caught})) {
        return Err(Failure::new("t", 500, "gave up", "it was broken"));
    }
    Ok(Value::Null)
}

#[test]
fn going_on_from_every_prefix_ends_the_same_way() {
    let programs: [(&str, &dyn Program); 3] = [
        ("straight", &Code::new(straight)),
        ("side by side", &Code::new(side_by_side)),
        ("hard times", &Code::new(hard_times)),
    ];
    for (name, program) in programs {
        // `write`s without `recovery: retry` stop at an unknown outcome when their process dies
        // under them, so the straight program is cut only where none is in flight.
        let retry_all = |key: &Key, step: &Step, attempt: u32| world(key, step, attempt);
        if name == "straight" {
            let whole = rehearse(program, "w", json!(1), &retry_all);
            assert_eq!(whole.state.status(), Status::Completed, "{name}");
            continue;
        }
        let whole = crash_anywhere(program, json!(1), &retry_all);
        assert!(whole.state.status().is_ended(), "{name}");
    }
}

#[test]
fn an_interrupted_write_stops_where_a_person_sees_it() {
    let program = Code::new(straight);
    let whole = rehearse(&program, "w", json!(1), &world);
    let asked = whole.events.iter().position(|e| e.fact.key().is_some_and(|k| k.as_str() == "say")).unwrap();
    let resumed = resume(&program, "w", &whole.events[..=asked], &world);
    assert_eq!(resumed.state.status(), Status::Unknown);
}

#[test]
fn the_log_reads_as_the_code_does() {
    let text = foldback::core::text::render(&rehearse(&Code::new(straight), "w", json!(1), &world).events);
    let expected = r#"
   1  WorkflowStarted   rehearsal input=1
   2  StepAsked         a  http read {"q":1}
   3  StepCompleted     a  attempt 1 -> {"key":"a","score":1}
   4  StepAsked         a~2  http read {"q":1}
   5  StepCompleted     a~2  attempt 1 -> {"key":"a~2","score":3}
   6  TaskFinished      sum  compute -> 4
   7  SUMMED            note  {"sum":4}
   8  TimerSet          nap
   9  TimerFired        nap
  10  DecisionMade      big  yes out of [yes, no] because {"sum":4}
  11  StepAsked         say  http write {"word":"big"}
  12  StepCompleted     say  attempt 1 -> {"key":"say","score":3}
  13  WorkflowCompleted {"key":"say","score":3}
"#;
    assert_eq!(format!("\n{text}"), expected);
}

#[test]
fn code_that_changed_under_its_log_parks_with_one_event() {
    async fn other(mut ctx: Ctx, _input: Value) -> Ended {
        ctx.step("a", read(json!({"q": "changed"}))).await
    }
    async fn gone(mut ctx: Ctx, _input: Value) -> Ended {
        ctx.step("b", read(json!({}))).await
    }
    let whole = rehearse(&Code::new(straight), "w", json!(1), &world);
    let programs: [(&dyn Program, usize); 3] =
        [(&Code::new(other), 2), (&Code::new(gone), 2), (&Code::new(other), 3)];
    for (program, cut) in programs {
        let resumed = resume(program, "w", &whole.events[..cut], &world);
        assert_eq!(resumed.state.status(), Status::Parked);
        assert_eq!(resumed.events.len(), cut + 1, "one event, also where the changed step had ended");
    }
}

async fn awkward_names(mut ctx: Ctx, _input: Value) -> Ended {
    let write = |n: u32| {
        Work::new("http", Effect::Write, json!({ "n": n })).recovery(foldback::core::Recovery::Retry)
    };
    for (n, name) in
        ["issue #4", "issue #5", "top!1", "top!2", "page[1]", "a/b", "", "x~2", "x", "x"].iter().enumerate()
    {
        ctx.step(name, write(n as u32)).await?;
    }
    // An `each` that fails leaves its branches behind; what comes after must not meet them.
    for round in 0..2 {
        let _caught = ctx
            .each("e", vec![0, 1], async |mut ctx, i| {
                ctx.step(if i == round { "broken" } else { "fine" }, write(10 + i)).await
            })
            .await;
    }
    ctx.step("e", write(99)).await
}

#[test]
fn any_name_is_a_key_of_its_own() {
    let whole = crash_anywhere(&Code::new(awkward_names), json!(1), &world);
    assert_eq!(whole.state.status(), Status::Completed);
    let mut keys: Vec<&str> = whole
        .events
        .iter()
        .filter_map(|e| match &e.fact {
            foldback::core::Fact::StepAsked(asked) => Some(asked.key.as_str()),
            _ => None,
        })
        .collect();
    let asked = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), asked, "{keys:?}");
    assert_eq!(asked, 10 + 4 + 1);
}

#[test]
fn code_that_waits_for_something_else_parks() {
    async fn foreign(_ctx: Ctx, _input: Value) -> Ended {
        std::future::pending().await
    }
    assert_eq!(rehearse(&Code::new(foreign), "w", json!(1), &world).state.status(), Status::Parked);
}
