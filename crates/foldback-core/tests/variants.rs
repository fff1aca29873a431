//! Variants of a request as stories: when the attempts of one are spent the next is tried, and a log
//! that was cut anywhere goes on with the right one.

use foldback_core::program::StepAsk;
use foldback_core::rehearse::{crash_anywhere, rehearse};
use foldback_core::report::steps;
use foldback_core::step::error_type;
use foldback_core::text::render;
use foldback_core::{
    Ask, Effect, Event, Fact, Failure, Key, Outcome, Program, RetryPolicy, Run, Step, StepStatus, Turn,
    WorkflowState,
};
use serde_json::json;

/// A program of one step that has two more variants, each with two attempts.
struct OneStep(RetryPolicy);

struct OneRun(RetryPolicy);

impl Program for OneStep {
    fn start(&self, _: &WorkflowState) -> Box<dyn Run> {
        Box::new(OneRun(self.0.clone()))
    }
}

impl Run for OneRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        let key = Key::from("draft");
        let Some(step) = state.step(&key) else {
            let mut ask =
                StepAsk::new(key, "llm", Effect::Read, json!({"model": "a/b", "fallback": ["c/d"]}));
            ask.retry = Some(self.0.clone());
            return Turn::Asks(vec![Ask::Step(Box::new(ask))]);
        };
        match step.status {
            StepStatus::Completed => {
                Turn::Ends(Ok((*step.output.clone().unwrap_or_else(foldback_core::Slot::null).get()).clone()))
            }
            StepStatus::Failed => Turn::Ends(Err(step.error.clone().unwrap_or_default())),
            StepStatus::Pending
            | StepStatus::Running
            | StepStatus::Backoff
            | StepStatus::Cancelled
            | StepStatus::Held
            | StepStatus::Unknown => Turn::Waits,
        }
    }
}

fn policy() -> RetryPolicy {
    RetryPolicy { attempts: 2, delay_ms: 1, max_delay_ms: 1_000, ..RetryPolicy::model_or(2) }
}

fn failed(status: u16, retry_after_ms: Option<u64>) -> Outcome {
    let error = Failure::new(error_type::COMMUNICATION, status, "no", "x");
    Outcome::Failed { error, retry_after_ms, usage: None }
}

fn completed(step: &Step) -> Outcome {
    Outcome::Completed { output: json!({"answered": step.variant}), usage: None }
}

/// Who was tried, attempt by attempt: the variant of each.
fn tried(events: &[Event]) -> Vec<u32> {
    let report = steps(events).remove(0);
    let mut tried: Vec<u32> = report.failed_attempts.iter().map(|attempt| attempt.variant).collect();
    tried.push(report.variant);
    tried
}

#[test]
fn each_variant_has_its_own_attempts_and_a_log_cut_anywhere_goes_on_with_the_right_one() {
    let world = |_: &Key, step: &Step, _: u32| match step.variant {
        0 => failed(503, None),
        1 => failed(429, None),
        _ => completed(step),
    };
    let whole = crash_anywhere(&OneStep(policy()), json!({}), &world);
    assert_eq!(tried(&whole.events), [0, 0, 1, 1, 2], "{}", render(&whole.events));
    let ended = whole.events.last().map(|event| &event.fact);
    assert!(
        matches!(ended, Some(Fact::WorkflowCompleted { output }) if *output.get() == json!({"answered": 2}))
    );
}

#[test]
fn what_leads_to_the_next_variant_as_a_table() {
    for (status, retry_after_ms, expected) in [
        // Not there at all: no second attempt, the next at once.
        (404, None, vec![0, 1]),
        (408, None, vec![0, 1]),
        // A prompt that this one has no room for.
        (413, None, vec![0, 1]),
        // A server that fell over, or is not reached, may be back in a moment.
        (500, None, vec![0, 0, 1]),
        (502, None, vec![0, 0, 1]),
        (503, None, vec![0, 0, 1]),
        (504, None, vec![0, 0, 1]),
        // Who asks for more patience than the policy has is passed by.
        (429, Some(5_000), vec![0, 1]),
        (429, Some(500), vec![0, 0, 1]),
        // A refusal, a key that is refused, a request that is wrong: the next would say the same.
        (422, None, vec![0]),
        (401, None, vec![0]),
        (400, None, vec![0]),
    ] {
        let world = |_: &Key, step: &Step, _: u32| match step.variant {
            0 => failed(status, retry_after_ms),
            _ => completed(step),
        };
        let whole = rehearse(&OneStep(policy()), "w", json!({}), &world);
        assert_eq!(tried(&whole.events), expected, "{status}: {}", render(&whole.events));
    }
}

#[test]
fn what_is_known_not_to_help_is_not_tried_again_and_the_next_variant_is() {
    let world = |_: &Key, step: &Step, _: u32| match (step.variant, failed(503, None)) {
        (0, Outcome::Failed { error, retry_after_ms, usage }) => {
            Outcome::Failed { error: error.non_retryable(), retry_after_ms, usage }
        }
        (_, _) => completed(step),
    };
    let whole = crash_anywhere(&OneStep(policy()), json!({}), &world);
    assert_eq!(tried(&whole.events), [0, 1], "{}", render(&whole.events));
}

#[test]
fn a_variant_has_its_own_repair_round_and_the_last_failure_is_told() {
    let world = |_: &Key, step: &Step, _: u32| match (step.variant, step.rejected.is_some()) {
        (0, true) => failed(503, None),
        (_, false) => Outcome::Rejected {
            output: json!("nonsense"),
            error: Failure::new(error_type::VALIDATION, 400, "misses", "x"),
            usage: None,
        },
        (_, true) => completed(step),
    };
    // One attempt each: the repair round of the first variant fails, the second has one too.
    let policy = RetryPolicy { attempts: 1, ..policy() };
    let whole = crash_anywhere(&OneStep(policy.clone()), json!({}), &world);
    assert_eq!(tried(&whole.events), [0, 0, 1, 1], "{}", render(&whole.events));

    let world = |_: &Key, step: &Step, _: u32| failed(if step.variant == 2 { 504 } else { 503 }, None);
    let whole = crash_anywhere(&OneStep(policy), json!({}), &world);
    assert_eq!(tried(&whole.events), [0, 1, 2]);
    let ended = whole.events.last().map(|event| &event.fact);
    assert!(matches!(ended, Some(Fact::WorkflowFailed { error }) if error.status == 504));
}

#[test]
fn variants_are_tried_in_order_or_the_log_is_against_the_law() {
    let world = |_: &Key, _: &Step, _: u32| failed(404, None);
    let mut events = rehearse(&OneStep(policy()), "w", json!({}), &world).events;
    let at =
        events.iter().position(|event| matches!(event.fact, Fact::AttemptFailed(_))).expect("one failed");
    for (variant, is_legal) in [(1, true), (2, false), (0, false), (9, false)] {
        if let Fact::AttemptFailed(failed) = &mut events[at].fact {
            failed.variant = Some(variant);
        }
        let folded = WorkflowState::fold("w", &events[..=at]);
        assert_eq!(folded.is_ok(), is_legal, "variant {variant}");
    }
}
