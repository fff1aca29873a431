//! The law as stories: given these facts, when the world says this, then these facts follow, or a
//! refusal. And the scopes that supersede their inside.

use std::sync::Arc;

use foldback_core::program::StepAsk;
use foldback_core::step::error_type;
use foldback_core::text::line;
use foldback_core::{
    Ask, Divergence, Effect, EntryBody, Event, EventId, Fact, Failure, Hash, Illegal, Key, Outcome, Recovery,
    RetryPolicy, Run, Slot, Status, StepStatus, Stimulus, TaskKind, Timing, Turn, WorkflowState, advance,
    limits,
};
use serde_json::{Value, json};

/// A program that answers with what the story gives it, then waits.
struct Script(Vec<Turn>);

impl Run for Script {
    fn turn(&mut self, _state: &WorkflowState) -> Turn {
        if self.0.is_empty() { Turn::Waits } else { self.0.remove(0) }
    }
}

struct Story {
    state: WorkflowState,
    serial: u128,
    now: i64,
}

impl Story {
    fn begun() -> Story {
        let mut story = Story { state: WorkflowState::empty("w"), serial: 0, now: 1_000_000 };
        let start = Stimulus::Start {
            definition: Hash::of_bytes(b"d"),
            name: "d".into(),
            file: None,
            input: json!(1),
            lineage: None,
        };
        story.when(start, vec![]).unwrap();
        story
    }

    fn when(&mut self, stimulus: Stimulus, answers: Vec<Turn>) -> Result<Vec<Event>, Illegal> {
        self.now += 1_000;
        let timing = Timing { now: self.now, actor: Arc::from("test"), room: 1_000 };
        let mut ids = || {
            self.serial += 1;
            EventId(self.serial.to_be_bytes())
        };
        let mut state = self.state.clone();
        let batch = advance(&mut state, &mut Script(answers), stimulus, &timing, &mut ids)?;
        self.state = state;
        Ok(batch.events)
    }

    /// The program asks for a step, which starts.
    fn asked(effect: Effect, recovery: Recovery, retry: Option<RetryPolicy>) -> Story {
        let mut story = Story::begun();
        let mut ask = StepAsk::new(Key::from("a"), "http", effect, json!({"uri": "x"}));
        (ask.recovery, ask.retry) = (recovery, retry);
        story.when(Stimulus::Continue, vec![Turn::Asks(vec![Ask::Step(Box::new(ask))])]).unwrap();
        story
    }

    fn report(&mut self, attempt: u32, outcome: Outcome) -> String {
        let key = Key::from("a");
        text(&self.when(Stimulus::Report { key, attempt, outcome, latency_ms: 1 }, vec![]).unwrap())
    }
}

fn text(events: &[Event]) -> String {
    events.iter().map(|e| line(&e.fact)).collect::<Vec<_>>().join("\n")
}

fn failed(status: u16, retry_after_ms: Option<u64>) -> Outcome {
    Outcome::Failed {
        error: Failure::new(error_type::COMMUNICATION, status, "no", "x"),
        retry_after_ms,
        usage: None,
    }
}

#[test]
fn how_an_attempt_may_end() {
    use Effect::{Pure, Read, Write};
    let policy = |statuses: Vec<u16>| {
        Some(RetryPolicy {
            attempts: 2,
            statuses,
            delay_ms: 100,
            max_delay_ms: 100,
            repairs: 1,
            ..RetryPolicy::default()
        })
    };
    let done = || Outcome::Completed { output: json!(7), usage: None };
    let rejected = || Outcome::Rejected {
        output: json!("bad"),
        error: Failure::new("t", 400, "schema", "x"),
        usage: None,
    };
    let hopeless = || Outcome::Failed {
        error: Failure::new(error_type::COMMUNICATION, 500, "no", "x").non_retryable(),
        retry_after_ms: None,
        usage: None,
    };
    let unknown = || Outcome::Unknown { reason: "gone".into() };
    let deep = || {
        let output = (0..=limits::VALUE_DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));
        Outcome::Completed { output, usage: None }
    };
    let operator = Recovery::Operator;
    // effect, recovery, policy, outcome, what is written begins with
    let cases: Vec<(Effect, Recovery, Option<RetryPolicy>, Outcome, &str)> = vec![
        (Read, operator, None, done(), "StepCompleted     a  attempt 1 -> 7"),
        (Write, operator, None, done(), "StepCompleted"),
        // An answer that could not be read back from the log is none; a write may have happened.
        (Read, operator, None, deep(), "StepFailed        a  attempt 1 500 A value nests too deep"),
        (Write, operator, None, deep(), "OutcomeUnknown    a  attempt 1: the answer nests deeper than 100"),
        // Nothing is tried again without a policy, nor what the policy does not name.
        (Read, operator, None, failed(503, None), "StepFailed"),
        (Read, operator, policy(vec![429]), failed(500, None), "StepFailed"),
        (
            Read,
            operator,
            policy(vec![429]),
            failed(429, None),
            "AttemptFailed     a  attempt 1 429 no; again in",
        ),
        (Write, operator, policy(vec![]), failed(500, None), "AttemptFailed"),
        // Nor what is known not to help, whatever a policy says.
        (Read, operator, policy(vec![]), hopeless(), "StepFailed"),
        (Write, operator, policy(vec![500]), hopeless(), "StepFailed"),
        // What a server asks for is honoured, up to a day.
        (
            Read,
            operator,
            policy(vec![]),
            failed(429, Some(9_000)),
            "AttemptFailed     a  attempt 1 429 no; again in 9000 ms",
        ),
        (
            Read,
            operator,
            policy(vec![]),
            failed(429, Some(u64::MAX)),
            "AttemptFailed     a  attempt 1 429 no; again in 86400000 ms",
        ),
        (
            Read,
            operator,
            policy(vec![]),
            rejected(),
            "AttemptFailed     a  attempt 1 400 schema; again in 0 ms",
        ),
        (Read, operator, None, rejected(), "StepFailed"),
        // Only of a write is an outcome unknown: what only looks, looks once more, or as its policy says.
        (Pure, operator, None, unknown(), "AttemptFailed     a  attempt 1 503 No answer; again in 0 ms"),
        (Read, operator, None, unknown(), "AttemptFailed     a  attempt 1 503 No answer; again in 0 ms"),
        (Read, operator, policy(vec![429]), unknown(), "StepFailed        a  attempt 1 503 No answer"),
        (Write, operator, policy(vec![]), unknown(), "OutcomeUnknown    a  attempt 1: gone"),
        (Write, Recovery::Retry, None, unknown(), "AttemptFailed"),
    ];
    for (effect, recovery, policy, outcome, wanted) in cases {
        let said = format!("{effect:?} {recovery:?} {policy:?} {outcome:?}");
        let mut story = Story::asked(effect, recovery, policy);
        let found = story.report(1, outcome);
        assert!(found.starts_with(wanted), "{said}\n  wanted {wanted}\n  found  {found}");
    }
}

#[test]
fn what_a_dead_process_leaves_behind() {
    // That something was lost, and perhaps paid for, is said; nothing else in the log would.
    const AGAIN: &str =
        "AttemptStarted    a  attempt 2; lost: the process ended while attempt 1 was under way";
    let lost = |attempt| Stimulus::Lost { key: Key::from("a"), attempt, found: None };
    for (effect, recovery, wanted) in [
        (Effect::Pure, Recovery::Operator, AGAIN),
        (Effect::Read, Recovery::Operator, AGAIN),
        (Effect::Write, Recovery::Retry, AGAIN),
        (
            Effect::Write,
            Recovery::Operator,
            "OutcomeUnknown    a  attempt 1: the process ended while attempt 1 was under way",
        ),
    ] {
        let mut story = Story::asked(effect, recovery, None);
        assert_eq!(text(&story.when(lost(1), vec![]).unwrap()), wanted, "{effect:?} {recovery:?}");
        assert!(story.when(lost(1), vec![]).unwrap().is_empty(), "a doubled word means nothing");
    }
    // A step that kills its process each time is not started for ever.
    for (effect, wanted) in [(Effect::Read, "StepFailed"), (Effect::Write, "OutcomeUnknown")] {
        let mut story = Story::asked(effect, Recovery::Retry, None);
        let mut attempt = 1;
        let end = loop {
            let found = text(&story.when(lost(attempt), vec![]).unwrap());
            if !found.starts_with("AttemptStarted") {
                break found;
            }
            attempt += 1;
        };
        assert!(end.starts_with(wanted), "{end}");
        assert_eq!(attempt, limits::INTERRUPTIONS_MAX + 1);
    }
}

#[test]
fn interruptions_are_no_attempts_of_a_policy() {
    let policy = RetryPolicy { attempts: 2, delay_ms: 1, max_delay_ms: 1, ..Default::default() };
    let mut story = Story::asked(Effect::Read, Recovery::Operator, Some(policy));
    for attempt in 1..=3 {
        story.when(Stimulus::Lost { key: Key::from("a"), attempt, found: None }, vec![]).unwrap();
    }
    assert!(story.report(4, failed(500, None)).starts_with("AttemptFailed"), "the first that failed");
    story.now += 1_000_000;
    story.when(Stimulus::Begin { key: Key::from("a") }, vec![]).unwrap();
    assert!(story.report(5, failed(500, None)).starts_with("StepFailed"), "the second, and the last");
}

#[test]
fn an_attempt_that_a_person_found_not_to_have_happened_is_none_of_a_policy() {
    let policy = RetryPolicy { attempts: 2, delay_ms: 1, max_delay_ms: 1, ..Default::default() };
    let mut story = Story::asked(Effect::Write, Recovery::Operator, Some(policy));
    let key = || Key::from("a");
    story.when(Stimulus::Lost { key: key(), attempt: 1, found: None }, vec![]).unwrap();
    story.when(Stimulus::Resolve { key: key(), landed: None }, vec![]).unwrap();
    story.when(Stimulus::Begin { key: key() }, vec![]).unwrap();
    assert!(story.report(2, failed(503, None)).starts_with("AttemptFailed"), "the first that failed");
    story.now += 1_000_000;
    story.when(Stimulus::Begin { key: key() }, vec![]).unwrap();
    assert!(story.report(3, failed(503, None)).starts_with("StepFailed"), "the second, and the last");
}

#[test]
fn a_late_report_of_an_earlier_attempt_means_nothing() {
    let done = || Outcome::Completed { output: json!("stale"), usage: None };
    let mut story = Story::asked(Effect::Read, Recovery::Operator, None);
    story.when(Stimulus::Lost { key: Key::from("a"), attempt: 1, found: None }, vec![]).unwrap();
    for attempt in [0, 1, 3] {
        assert_eq!(story.report(attempt, done()), "", "attempt {attempt}");
    }
    assert!(story.report(2, done()).starts_with("StepCompleted"));
    assert_eq!(story.report(2, done()), "", "the same report twice");
}

#[test]
fn an_unknown_outcome_is_settled_by_a_person() {
    for (landed, wanted, status) in [
        (Some(json!({"id": 7})), "OutcomeResolved   a  landed -> {\"id\":7}", Status::Running),
        (None, "OutcomeResolved   a  did not happen", Status::Running),
    ] {
        let mut story = Story::asked(Effect::Write, Recovery::Operator, None);
        let resolve = Stimulus::Resolve { key: Key::from("a"), landed: landed.clone() };
        assert!(story.when(resolve.clone(), vec![]).is_err(), "what runs is not unknown");
        story.report(1, Outcome::Unknown { reason: "gone".into() });
        assert_eq!(story.state.status(), Status::Unknown);
        assert_eq!(text(&story.when(resolve.clone(), vec![]).unwrap()), wanted);
        assert_eq!(story.state.status(), status);
        assert!(story.when(resolve, vec![]).is_err(), "once");
        if landed.is_none() {
            let begun = story.when(Stimulus::Begin { key: Key::from("a") }, vec![]).unwrap();
            assert_eq!(text(&begun), "AttemptStarted    a  attempt 2");
        }
    }
}

#[test]
fn what_breaks_the_law_is_refused_and_leaves_no_trace() {
    let ask = |ask: Ask| vec![Turn::Asks(vec![ask])];
    let step = |key: &str| Ask::Step(Box::new(StepAsk::new(Key::from(key), "http", Effect::Read, json!({}))));
    let finish = |key: &str| Ask::Finish {
        key: Key::from(key),
        kind: TaskKind::Do,
        output: Arc::new(json!(1)),
        context: None,
    };
    let decide = Ask::Decide {
        key: "d".into(),
        chosen: "x".into(),
        options: vec!["y".into()],
        because: Value::Null,
        finishes: true,
    };
    let cases: Vec<(&str, Stimulus, Vec<Turn>, &str)> = vec![
        (
            "a second start",
            Stimulus::Start {
                definition: Hash::ZERO,
                name: String::new(),
                file: None,
                input: json!(1),
                lineage: None,
            },
            vec![],
            "starts once",
        ),
        ("a key asked for twice", Stimulus::Continue, ask(step("a")), "known already"),
        (
            "an ask under a settled name",
            Stimulus::Continue,
            vec![Turn::Asks(vec![finish("z"), step("z")])],
            "known already",
        ),
        ("finishing over an open step", Stimulus::Continue, ask(finish("a")), "Running"),
        ("ending over an open step", Stimulus::Continue, vec![Turn::Ends(Ok(json!(1)))], "still open"),
        ("a choice that is no option", Stimulus::Continue, ask(decide), "not among the options"),
        (
            "a domain event under a name of the engine's",
            Stimulus::Continue,
            ask(Ask::Record { key: "r".into(), event_type: "TimerFired".into(), data: json!(1) }),
            "the engine's own",
        ),
        ("a timer that nobody set", Stimulus::TimerDue { key: "t".into() }, vec![], "no timer"),
        ("a word to an unknown step", Stimulus::Resolve { key: "b".into(), landed: None }, vec![], "no step"),
    ];
    for (name, stimulus, answers, wanted) in cases {
        let mut story = Story::asked(Effect::Read, Recovery::Operator, None);
        let before = story.state.clone();
        if answers.is_empty() {
            // The world's mistake: refused, and no trace of it.
            let illegal = story.when(stimulus, answers).expect_err(name);
            assert!(illegal.reason.contains(wanted), "{name}: {illegal}");
            assert_eq!(story.state, before, "{name}");
        } else {
            // The program's mistake: one event that says so, and nothing of what it asked.
            let parked = text(&story.when(stimulus, answers).expect(name));
            assert!(parked.lines().last().is_some_and(|l| l.contains(wanted)), "{name}: {parked}");
            assert_eq!(story.state.status(), Status::Parked, "{name}");
        }
    }
}

#[test]
fn after_the_end_only_late_reports_and_domain_events_are_written() {
    let mut story = Story::asked(Effect::Write, Recovery::Operator, None);
    let parted = Divergence { key: "a".into(), recorded: "x".into(), asked: "y".into() };
    story.when(Stimulus::Continue, vec![Turn::Diverged(parted)]).unwrap();
    assert_eq!(story.state.status(), Status::Parked);
    let again = story.when(Stimulus::Continue, vec![Turn::Ends(Ok(json!(1)))]).unwrap();
    assert!(again.is_empty(), "a workflow that ended has no more turns");
    let late = Stimulus::Report {
        key: "a".into(),
        attempt: 1,
        outcome: Outcome::Completed { output: json!(1), usage: None },
        latency_ms: 1,
    };
    assert!(text(&story.when(late, vec![]).unwrap()).starts_with("StepCompleted"));
    let domain = Stimulus::Record { event_type: Arc::from("NOTED"), data: json!(1) };
    let noted = story.when(domain, vec![]).unwrap();
    assert_eq!(noted[0].causation_id, None, "a caller's event is nobody's consequence");
    assert_eq!(story.state.status(), Status::Parked);
}

/// Reopened, a step is asked for again: its attempts are counted on, its policy begins anew.
#[test]
fn what_is_reopened_counts_its_attempts_on() {
    let policy = RetryPolicy { attempts: 2, delay_ms: 1, max_delay_ms: 1, ..RetryPolicy::default() };
    let mut story = Story::asked(Effect::Read, Recovery::Operator, Some(policy.clone()));
    assert!(story.report(1, failed(500, None)).starts_with("AttemptFailed"));
    story.when(Stimulus::Begin { key: "a".into() }, vec![]).unwrap();
    let error = Failure::new("t", 500, "no", "no").at(&"a".into());
    let late = || Stimulus::Report { key: "a".into(), attempt: 2, outcome: failed(500, None), latency_ms: 1 };
    story.when(late(), vec![Turn::Ends(Err(error))]).unwrap();
    assert_eq!(story.state.status(), Status::Failed);

    let mut ask = StepAsk::new(Key::from("a"), "http", Effect::Read, json!({"uri": "x"}));
    ask.retry = Some(policy);
    let reopen =
        Stimulus::Reopen { reason: "mended".into(), again: vec!["a".into()], back_to: None, changes: None };
    let batch = story.when(reopen.clone(), vec![Turn::Asks(vec![Ask::Step(Box::new(ask))])]).unwrap();
    assert!(text(&batch).starts_with("WorkflowReopened  again [a]; mended\nStepAsked"), "{}", text(&batch));
    assert!(story.when(reopen, vec![]).is_err(), "it has not ended");
    assert!(story.when(late(), vec![]).unwrap().is_empty(), "a report of an earlier attempt, come twice");
    assert_eq!(story.state.step(&"a".into()).map(|step| step.status), Some(StepStatus::Running));
    assert!(story.report(3, failed(500, None)).starts_with("AttemptFailed"), "the first of two");
    story.when(Stimulus::Begin { key: "a".into() }, vec![]).unwrap();
    assert!(story.report(4, failed(500, None)).starts_with("StepFailed"), "the second, and the last");
}

#[test]
fn a_domain_stream_needs_no_workflow() {
    let mut story = Story { state: WorkflowState::empty("s"), serial: 0, now: 0 };
    let domain = |n: u32| Stimulus::Record { event_type: Arc::from("ADDED"), data: json!(n) };
    for n in 0..3 {
        story.when(domain(n), vec![]).unwrap();
    }
    assert_eq!(story.state.version, 3);
    assert!(!story.state.is_started());
    assert!(story.when(Stimulus::TimerDue { key: "t".into() }, vec![]).is_err());
}

#[test]
fn consequences_name_their_stimulus() {
    let mut story = Story::begun();
    let answers =
        vec![Turn::Asks(vec![Ask::Timer { key: "t".into(), delay_ms: 1, finishes: true, limits: false }])];
    let events = story.when(Stimulus::Continue, answers).unwrap();
    assert_eq!(events[0].causation_id, story.state.stimulus);
    let fired = story.when(Stimulus::TimerDue { key: "t".into() }, vec![Turn::Ends(Ok(json!(1)))]).unwrap();
    assert_eq!(fired[0].causation_id, None);
    assert_eq!(fired[1].causation_id, Some(fired[0].id));
    assert!(fired.iter().all(|e| e.correlation_id == story.state.correlation_id));
}

#[test]
fn times_never_go_back() {
    let mut story = Story::begun();
    story.now = -5;
    let events = story.when(Stimulus::Record { event_type: Arc::from("X"), data: json!(1) }, vec![]).unwrap();
    assert_eq!(events[0].timestamp, 1_001_000);
}

/// Behind a clock that was set back, timestamps are lifted to the last one, and delays count from the clock.
#[test]
fn what_is_due_counts_from_the_clock() {
    const HOUR: i64 = 3_600_000_000;
    let set = Ask::Timer { key: "t".into(), delay_ms: 2_000, finishes: false, limits: false };
    let policy = RetryPolicy { attempts: 2, delay_ms: 2_000, max_delay_ms: 2_000, ..RetryPolicy::default() };
    for back in [0, HOUR, 24 * HOUR] {
        let mut story = Story::asked(Effect::Read, Recovery::Operator, Some(policy.clone()));
        let lifted = story.state.now.max(story.now - back + 1_000);
        story.now -= back;
        let events = story.when(Stimulus::Continue, vec![Turn::Asks(vec![set.clone()])]).unwrap();
        assert_eq!((events[0].timestamp, events[0].clock()), (lifted, story.now));
        let Fact::TimerSet { due, .. } = events[0].fact else { panic!("{events:?}") };
        assert_eq!(due, story.now + 2_000_000);
        assert_eq!(story.state.waits_until(&"t".into()), Some((due, 2_000_000)));

        let outcome = failed(500, Some(2_000));
        let report = Stimulus::Report { key: "a".into(), attempt: 1, outcome, latency_ms: 1 };
        let events = story.when(report, vec![]).unwrap();
        let Fact::AttemptFailed(failed) = &events[0].fact else { panic!("{events:?}") };
        assert_eq!(failed.due, story.now + failed.delay_ms as i64 * 1_000);
        let wait = story.state.waits_until(&"a".into());
        assert_eq!(wait, Some((failed.due, failed.delay_ms as i64 * 1_000)));
        // That the delay is over is the engine's to know: the clock may have been set once more.
        story.now -= back;
        let begun = story.when(Stimulus::Begin { key: "a".into() }, vec![]).unwrap();
        assert_eq!(begun.len(), 1);
    }
    let Story { state, .. } = Story::begun();
    let ahead = Event { clock: Some(2_000_000), ..first_after(&state) };
    assert!(state.admits(&ahead).unwrap_err().reason.contains("clock"));
}

fn first_after(state: &WorkflowState) -> Event {
    let fact = Fact::Recorded { event_type: Arc::from("X"), key: None, data: Slot::null(), handler: None };
    Event {
        id: EventId([7; 16]),
        version: state.version + 1,
        timestamp: state.now,
        causation_id: None,
        correlation_id: None,
        actor: Arc::from("test"),
        clock: None,
        fact,
    }
}

fn fact(state: &mut WorkflowState, fact: Fact) {
    let event = Event {
        clock: None,
        id: EventId([7; 16]),
        version: state.version + 1,
        timestamp: state.now,
        causation_id: None,
        correlation_id: None,
        actor: Arc::from("test"),
        fact,
    };
    state.admits(&event).unwrap();
    state.apply(&event);
}

fn finished(key: &str, kind: TaskKind, output: Value) -> Fact {
    Fact::TaskFinished { key: key.into(), kind, output: Slot::of(output), context: None }
}

fn started(key: &str, kind: TaskKind) -> Fact {
    Fact::TaskStarted { key: key.into(), kind, input: Slot::of(json!(1)), collects: false }
}

#[test]
fn a_loop_of_many_iterations_keeps_a_small_state() {
    let mut story = Story::begun();
    let state = &mut story.state;
    fact(state, started("read", TaskKind::For));
    let mut sizes = Vec::new();
    for i in 0..1_000 {
        fact(state, finished(&format!("read[{i}]/a"), TaskKind::Set, json!(i)));
        fact(state, finished(&format!("read[{i}]/b"), TaskKind::Set, json!(i)));
        fact(state, finished(&format!("read[{i}]"), TaskKind::Iteration, json!(i)));
        sizes.push(state.entries.len() + state.cursors.len());
    }
    assert_eq!(sizes[0], sizes[999]);
    let EntryBody::Started { iterations, last, .. } = &state.entries["read"].body else {
        panic!("the loop is open")
    };
    assert_eq!((*iterations, last.clone()), (1_000, Some(Slot::of(json!(999)))));
    fact(state, finished("read", TaskKind::For, json!("all")));
    assert_eq!(state.entries.keys().map(Key::as_str).collect::<Vec<_>>(), ["read"]);
    assert_eq!(state.cursors[""].data, Some(Slot::of(json!("all"))));
}

#[test]
fn visits_and_tries_supersede_the_ones_before() {
    let mut story = Story::begun();
    let state = &mut story.state;
    for n in 1..=50 {
        let key = Key::from("draft").visit(n);
        fact(state, started(key.as_str(), TaskKind::Do));
        fact(state, finished(&format!("{key}/x"), TaskKind::Set, json!(n)));
        fact(state, finished(key.as_str(), TaskKind::Do, json!(n)));
        assert_eq!(state.newest_visit(&"draft".into()), Some((key, n)));
    }
    assert_eq!(state.entries.len(), 1, "{:?}", state.entries.keys());
    fact(state, started("post", TaskKind::Try));
    fact(state, finished("post/x", TaskKind::Set, json!(1)));
    for n in 2..=50 {
        let key = Key::from("post").mark(n);
        fact(state, started(key.as_str(), TaskKind::Try));
        fact(state, finished(&format!("{key}/x"), TaskKind::Set, json!(n)));
    }
    let left: Vec<&str> = state.entries.keys().map(Key::as_str).collect();
    assert_eq!(left, ["draft#50", "post", "post!50", "post!50/x"]);
}

#[test]
fn the_text_of_an_unknown_value_is_its_hash() {
    let slot = Slot::of(json!("x".repeat(5_000)));
    let text = serde_json::to_string(&slot).unwrap();
    let slot: Slot = serde_json::from_str(&text).unwrap();
    let fact = Fact::WorkflowCompleted { output: slot };
    assert!(line(&fact).starts_with("WorkflowCompleted <5002 bytes "), "{}", line(&fact));
}

/// The program gives the step `a` up.
fn give_up() -> Vec<Turn> {
    vec![Turn::Asks(vec![Ask::Cancel { key: "a".into(), reason: "too late".into() }])]
}

#[test]
fn a_step_that_was_given_up_ends_at_once_unless_it_may_have_happened() {
    use Effect::{Pure, Read, Write};
    let done = || Outcome::Completed { output: json!(7), usage: None };
    let unknown = || Outcome::Unknown { reason: "gone".into() };
    let many = || Some(RetryPolicy { attempts: 9, ..RetryPolicy::model() });
    for effect in [Pure, Read] {
        let mut story = Story::asked(effect, Recovery::Operator, many());
        let cancelled = text(&story.when(Stimulus::Continue, give_up()).unwrap());
        assert_eq!(cancelled, "StepCancelled     a  attempt 1: too late");
        assert!(story.state.owes().is_empty(), "nothing is owed to it any more");
        assert_eq!(story.state.spent.lost_attempts, 1, "what it used nobody saw");
        assert_eq!(story.report(1, done()), "", "a late report means nothing");
        let lost = Stimulus::Lost { key: "a".into(), attempt: 1, found: None };
        assert_eq!(text(&story.when(lost, vec![]).unwrap()), "");
    }
    // A write under way is waited for, and has no further attempt, however it comes out.
    let lost = || Stimulus::Lost { key: Key::from("a"), attempt: 1, found: None };
    let report = |outcome| Stimulus::Report { key: "a".into(), attempt: 1, outcome, latency_ms: 1 };
    for (recovery, word, wanted) in [
        (Recovery::Retry, report(done()), "StepCompleted     a  attempt 1 -> 7"),
        (Recovery::Retry, report(failed(503, None)), "StepFailed        a  attempt 1 503 no"),
        (Recovery::Retry, report(unknown()), "OutcomeUnknown    a  attempt 1: gone"),
        (Recovery::Retry, lost(), "OutcomeUnknown    a  attempt 1: the process ended"),
        (Recovery::Operator, lost(), "OutcomeUnknown    a  attempt 1: the process ended"),
    ] {
        let mut story = Story::asked(Write, recovery, many());
        story.when(Stimulus::Continue, give_up()).unwrap();
        assert_eq!(story.state.status(), Status::Running, "it is waited for");
        let found = text(&story.when(word, vec![]).unwrap());
        assert!(found.starts_with(wanted), "wanted {wanted}, found {found}");
    }
    // What a person says did not happen is not begun again.
    let mut story = Story::asked(Write, Recovery::Operator, None);
    story.when(Stimulus::Continue, give_up()).unwrap();
    story.report(1, unknown());
    story.when(Stimulus::Resolve { key: "a".into(), landed: None }, vec![]).unwrap();
    assert!(story.state.owes().is_empty());
    // Given up while it waits to be sent again: what was sent before stays in doubt.
    let mut story = Story::asked(Write, Recovery::Retry, None);
    assert!(story.report(1, unknown()).starts_with("AttemptFailed"));
    assert_eq!(text(&story.when(Stimulus::Continue, give_up()).unwrap()), "StepCancelled     a  too late");
    story.now += 60_000_000;
    let settled = text(&story.when(Stimulus::Begin { key: "a".into() }, vec![]).unwrap());
    assert!(settled.starts_with("OutcomeUnknown    a  attempt 1"), "{settled}");
    // A write that has failed and waits for its next attempt did not happen.
    let mut story = Story::asked(Write, Recovery::Operator, many());
    assert!(story.report(1, failed(503, None)).starts_with("AttemptFailed"));
    story.when(Stimulus::Continue, give_up()).unwrap();
    assert!(story.state.owes().is_empty());
    // Once is enough.
    let again = text(&story.when(Stimulus::Continue, give_up()).unwrap());
    assert!(again.contains("given up already"), "{again}");
}

#[test]
fn a_limit_holds_nothing_open_and_goes_with_its_task() {
    let limit = |key: &str| Ask::Timer { key: key.into(), delay_ms: 1_000, finishes: false, limits: true };
    let asks = |asks: Vec<Ask>| vec![Turn::Asks(asks)];
    let start = Ask::Start { key: "s".into(), kind: TaskKind::Do, input: Arc::new(json!(1)) };
    let finish =
        |key: &str, kind| Ask::Finish { key: key.into(), kind, output: Arc::new(json!(1)), context: None };
    let mut story = Story::begun();
    let begin = vec![limit("!timeout"), start, limit("s!timeout"), limit("s/x!timeout")];
    story.when(Stimulus::Continue, asks(begin)).unwrap();
    story.when(Stimulus::Continue, asks(vec![finish("s/x", TaskKind::Set)])).unwrap();
    let owed: Vec<_> = story.state.open.iter().map(Key::as_str).collect();
    assert_eq!(owed, ["!timeout", "s!timeout"], "also that of a task with nothing inside");
    let end = asks(vec![finish("s", TaskKind::Do)]);
    assert!(!text(&story.when(Stimulus::Continue, end).unwrap()).contains("Parked"));
    let owed: Vec<_> = story.state.open.iter().map(Key::as_str).collect();
    assert_eq!(owed, ["!timeout"], "the limit of what has ended is gone");
    assert!(story.when(Stimulus::TimerDue { key: "s!timeout".into() }, vec![]).is_err());
    story.when(Stimulus::Continue, vec![Turn::Ends(Ok(json!(1)))]).unwrap();
    assert_eq!((story.state.status(), story.state.open.len()), (Status::Completed, 0));
}
