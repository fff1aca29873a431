//! The law of forks, and of workflows that go back: which fact may stand where.

use std::sync::Arc;

use foldback_core::change::{Changes, Past};
use foldback_core::decide::advance;
use foldback_core::program::StepAsk;
use foldback_core::state::End;
use foldback_core::text::line;
use foldback_core::{
    Ask, Divergence, Effect, Event, EventId, Failure, Hash, Illegal, Key, Lineage, Outcome, Recovery, Run,
    Slot, Status, StepStatus, Stimulus, Timing, Turn, Verdict, WorkflowState,
};
use serde_json::json;

/// Asks for the write `a`, once, and ends with what became of it.
struct Once;

impl Run for Once {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        let key = Key::from("a");
        match state.step(&key) {
            None => {
                let mut ask = StepAsk::new(key, "http", Effect::Write, json!({"uri": "x"}));
                ask.recovery = Recovery::Retry;
                Turn::Asks(vec![Ask::Step(Box::new(ask))])
            }
            Some(step) => match step.status {
                StepStatus::Completed => Turn::Ends(Ok(json!("done"))),
                StepStatus::Failed => Turn::Ends(Err(step.error.clone().unwrap_or_default())),
                StepStatus::Pending | StepStatus::Running | StepStatus::Held => Turn::Waits,
                other => Turn::Diverged(Divergence {
                    key,
                    recorded: format!("{other:?}"),
                    asked: "another".into(),
                }),
            },
        }
    }
}

struct Story {
    state: WorkflowState,
    events: Vec<Event>,
}

impl Story {
    fn begun() -> Story {
        let mut story = Story { state: WorkflowState::empty("p"), events: Vec::new() };
        let (definition, name, input) = (Hash::of_bytes(b"d"), "d".to_owned(), json!(1));
        story.say(Stimulus::Start { definition, name, file: None, input, lineage: None }).unwrap();
        story
    }

    fn say(&mut self, stimulus: Stimulus) -> Result<String, Illegal> {
        let mut serial = self.state.version as u128;
        let mut ids = || {
            serial += 1;
            EventId(serial.to_be_bytes())
        };
        let timing = Timing { now: self.state.now + 1_000, actor: Arc::from("test"), room: 10 };
        let mut state = self.state.clone();
        let batch = advance(&mut state, &mut Once, stimulus, &timing, &mut ids)?;
        self.state = state;
        self.events.extend(batch.events.iter().cloned());
        Ok(batch.events.iter().map(|event| line(&event.fact)).collect::<Vec<_>>().join("\n"))
    }

    /// The fork of a workflow at version 1.
    fn forked() -> Story {
        let parent = Story::begun();
        let shared = parent.events[..1].to_vec();
        let mut story = Story { state: WorkflowState::fold("p", &shared).unwrap(), events: shared };
        story.state.workflow_id = "p~1".into();
        let told = story.say(fork(1)).unwrap();
        assert!(told.contains("StepAsked") && told.ends_with("(not started)"), "{told}");
        story
    }
}

fn changes(to: u64) -> Changes {
    Changes::none(Past { workflow: "p".into(), after: to, up_to: 9 })
}

fn fork(cut: u64) -> Stimulus {
    let lineage = Lineage { parent: "p".into(), cut, cut_hash: Hash::ZERO };
    Stimulus::Fork { lineage, changes: Box::new(changes(cut)) }
}

fn settle(verdict: Verdict) -> Stimulus {
    Stimulus::Settle { key: "a".into(), verdict, output: Some(json!(7)), reason: "said".into() }
}

#[test]
fn no_write_of_a_fork_is_performed_without_a_word() {
    let mut story = Story::forked();
    let begin = || Stimulus::Begin { key: "a".into() };
    let refused = story.say(begin()).unwrap_err();
    assert!(refused.reason.contains("nobody said"), "{refused}");
    story.say(Stimulus::Hold { key: "a".into(), reason: "another request".into() }).unwrap();
    assert_eq!(story.state.status(), Status::Waiting);
    assert_eq!(story.say(begin()), Ok(String::new()), "it is held");
    story.say(settle(Verdict::Live)).unwrap();
    assert!(story.say(settle(Verdict::Live)).is_err(), "it is settled once");
    assert!(story.say(begin()).unwrap().contains("attempt 1"));
    let outcome = Outcome::Completed { output: json!(1), usage: None };
    let told = story.say(Stimulus::Report { key: "a".into(), attempt: 1, outcome, latency_ms: 1 }).unwrap();
    assert!(told.ends_with("WorkflowCompleted \"done\""), "{told}");
    assert_eq!(WorkflowState::fold("p~1", &story.events).as_ref(), Ok(&story.state));
}

#[test]
fn a_write_that_is_stubbed_gives_what_was_said_and_one_that_is_denied_fails() {
    let mut story = Story::forked();
    story.say(settle(Verdict::Stub)).unwrap();
    assert!(matches!(story.state.end, Some(End::Completed { .. })));
    assert_eq!(story.state.spent.steps, 0, "nothing was done");
    let mut story = Story::forked();
    let told = story.say(settle(Verdict::Deny)).unwrap();
    assert!(told.ends_with("WorkflowFailed    a: 403 The write was denied"), "{told}");
}

#[test]
fn words_of_forks_mean_nothing_elsewhere() {
    let reuse = || Stimulus::Reuse {
        key: "a".into(),
        workflow: "p".into(),
        version: 3,
        outcome: Ok(Slot::of(json!(1))),
    };
    let hold = || Stimulus::Hold { key: "a".into(), reason: String::new() };
    let mut story = Story::begun();
    for word in [reuse(), hold(), settle(Verdict::Live), fork(7), fork(1)] {
        assert!(story.say(word.clone()).is_err(), "{word:?}");
    }
    let mut story = Story::forked();
    story.say(reuse()).unwrap();
    assert!(matches!(story.state.end, Some(End::Completed { .. })));
    assert!(story.say(reuse()).is_err(), "an outcome is taken once");
    assert!(story.say(fork(story.state.version)).is_err(), "nothing goes on behind an end");
}

fn reopen(back_to: u64) -> Stimulus {
    let changes = Some(Box::new(changes(back_to)));
    Stimulus::Reopen { reason: String::new(), again: Vec::new(), back_to: Some(back_to), changes }
}

#[test]
fn who_goes_back_needs_the_state_that_was_there() {
    let mut story = Story::begun();
    let outcome =
        || Outcome::Failed { error: Failure::new("t", 404, "no", "no"), retry_after_ms: None, usage: None };
    let report = |attempt| Stimulus::Report { key: "a".into(), attempt, outcome: outcome(), latency_ms: 1 };
    story.say(report(1)).unwrap();
    assert_eq!(story.state.status(), Status::Failed);
    assert!(story.say(reopen(1)).unwrap_err().reason.contains("is not at hand"));
    let base = |version: usize| WorkflowState::fold("p", &story.events[..version]).unwrap();
    let (first, second) = (base(1), base(2));
    let mut wrong = Story { state: story.state.clone(), events: story.events.clone() };
    wrong.state.rewind(second);
    assert!(wrong.say(reopen(1)).is_err(), "the state of another version");
    story.state.rewind(first);
    let told = story.say(reopen(1)).unwrap();
    assert!(told.starts_with("WorkflowReopened  back to version 1"), "{told}");
    assert_eq!(story.state.version, 6);
    assert_eq!(WorkflowState::fold("p", &story.events).as_ref(), Ok(&story.state));
    // A log that says so of a version that is not behind it breaks the law.
    let mut forged = story.events.clone();
    if let foldback_core::Fact::WorkflowReopened { back_to, .. } = &mut forged[4].fact {
        *back_to = Some(5);
    }
    assert!(WorkflowState::fold("p", &forged).is_err());
}

#[test]
fn a_fork_never_goes_back_into_its_parents_past() {
    let mut story = Story::forked();
    story.say(settle(Verdict::Deny)).unwrap();
    let base = WorkflowState::fold("p~1", &story.events[..1]).unwrap();
    story.state.rewind(base);
    assert!(story.say(reopen(1)).is_err(), "it would forget that it is a fork, and what holds in it");
}

#[test]
fn many_ways_back_cost_no_more_than_their_log() {
    // Each goes back to right behind the one before: to fold the one again for the other would double
    // the work with each.
    let mut story = Story::begun();
    for round in 0..40u64 {
        let attempt = 1;
        let outcome =
            Outcome::Failed { error: Failure::new("t", 404, "no", "no"), retry_after_ms: None, usage: None };
        if round > 0 {
            story.say(settle(Verdict::Live)).unwrap();
            story.say(Stimulus::Begin { key: "a".into() }).unwrap();
        }
        story.say(Stimulus::Report { key: "a".into(), attempt, outcome, latency_ms: 1 }).unwrap();
        let back = |event: &&Event| event.fact.goes_back_to().is_some();
        let to = story.events.iter().rfind(back).map_or(1, |event| event.version);
        let base = WorkflowState::fold("p", &story.events[..to as usize]).unwrap();
        story.state.rewind(base);
        story.say(reopen(to)).unwrap();
    }
    assert_eq!(WorkflowState::fold("p", &story.events).as_ref(), Ok(&story.state));
}

#[test]
fn a_step_that_is_owed_anew_is_told_as_it_is_here() {
    use foldback_core::report::{ReportedStatus, steps};
    let mut story = Story::begun();
    let outcome =
        Outcome::Failed { error: Failure::new("t", 404, "no", "no"), retry_after_ms: None, usage: None };
    story.say(Stimulus::Report { key: "a".into(), attempt: 1, outcome, latency_ms: 1 }).unwrap();
    assert_eq!(steps(&story.events)[0].status, ReportedStatus::Failed);
    // At version 2 it was under way: going back there, it is owed anew.
    let base = WorkflowState::fold("p", &story.events[..2]).unwrap();
    let again = base.open_steps();
    story.state.rewind(base);
    let changes = Some(Box::new(changes(2)));
    story.say(Stimulus::Reopen { reason: String::new(), again, back_to: Some(2), changes }).unwrap();
    let told = steps(&story.events);
    assert_eq!((told.len(), told[0].status, told[0].attempts), (1, ReportedStatus::Pending, 0));
    assert_eq!((told[0].ended_version, &told[0].error), (None, &None));
    story.say(settle(Verdict::Live)).unwrap();
    story.say(Stimulus::Begin { key: "a".into() }).unwrap();
    let told = steps(&story.events);
    assert_eq!((told[0].status, told[0].attempts), (ReportedStatus::Running, 1));
}
