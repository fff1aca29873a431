//! The view `steps` says of every log what the report of `foldback-core` says of it; of a fork it shows the
//! steps that stand in its own log.

use crate::desk::{Desk, event};
use foldback_core::event::{AttemptFailed, StepAsked, StepCompleted, StepFailed, StepReused, Verdict};
use foldback_core::report::steps;
use foldback_core::step::error_type;
use foldback_core::value::Request;
use foldback_core::{Effect, Event, EventId, Fact, Failure, Hash, Key, Slot, Usage};
use foldback_store::{Append, Commit, Expected, NewEvent};
use proptest::prelude::*;
use proptest::test_runner::TestRng;
use rusqlite::Connection;
use serde_json::{Value, json};

const COLUMNS: &str =
    "json_array(key, kind, effect, status, attempts, asked_version, started_version, ended_version,
    asked_at, duration_ms, input_tokens, output_tokens, micro_usd, model)";

/// What a log says, fact by fact; the clock goes on by chance.
struct Scribe {
    rng: TestRng,
    at: i64,
    facts: Vec<(i64, Fact)>,
    /// Attempts of each key so far: they are counted on when it is asked again.
    attempts: std::collections::HashMap<String, u32>,
}

impl Scribe {
    fn dice(&mut self, sides: u32) -> u32 {
        self.rng.random_range(0..sides)
    }

    fn write(&mut self, fact: Fact) {
        self.at += i64::from(self.dice(5_000_000));
        self.facts.push((self.at, fact));
    }

    fn usage(&mut self) -> Option<Usage> {
        (self.dice(3) > 0).then(|| Usage {
            model: ["small", "large"][self.dice(2) as usize].into(),
            input_tokens: self.dice(100).into(),
            output_tokens: self.dice(9).into(),
            micro_usd: (self.dice(3) > 0).then(|| self.dice(50).into()),
            ..Usage::default()
        })
    }

    fn start(&mut self, key: &Key) -> u32 {
        let attempt = self.attempts.entry(key.to_string()).or_default();
        *attempt += 1;
        let attempt = *attempt;
        self.write(Fact::AttemptStarted { key: key.clone(), attempt, lost: None });
        attempt
    }

    /// One ask and a course that its law allows.
    fn step(&mut self, key: &str) {
        let key = Key::from(key);
        let effect = [Effect::Pure, Effect::Read, Effect::Write][self.dice(3) as usize];
        let starts = self.dice(2) == 0;
        self.write(Fact::StepAsked(Box::new(StepAsked {
            key: key.clone(),
            kind: "llm".into(),
            request: Request::from_json(json!({"prompt": "x"}), &[]),
            request_hash: Hash::ZERO,
            program_hash: None,
            effect,
            recovery: None,
            timeout_ms: None,
            retry: None,
            secrets: Default::default(),
            instance: None,
            finishes: true,
            starts,
            undo: None,
            given: None,
        })));
        let mut attempt = match starts {
            true => {
                let attempts = self.attempts.entry(key.to_string()).or_default();
                *attempts += 1;
                *attempts
            }
            false if self.dice(8) == 0 => return,
            false if self.dice(8) == 0 => return self.cancel(&key, None),
            false if self.dice(6) == 0 => return self.reuse(key),
            false if effect == Effect::Write && self.dice(2) == 0 && !self.hold(&key) => return,
            false => self.start(&key),
        };
        let (mut is_in_doubt, mut is_cancelled) = (false, false);
        loop {
            let error = Failure::new(error_type::RUNTIME, 500, "no", "no");
            match self.dice(7) {
                0 => return,
                1 => {
                    let usage = self.usage();
                    let output = Slot::of(json!("out"));
                    let done = StepCompleted { key, attempt, output, latency_ms: 3, usage };
                    return self.write(Fact::StepCompleted(Box::new(done)));
                }
                2 => {
                    let usage = self.usage();
                    let failed = StepFailed { key, attempt, error, rejected: None, usage };
                    return self.write(Fact::StepFailed(Box::new(failed)));
                }
                3 if !is_cancelled => {
                    let unknown = effect == Effect::Write && self.dice(2) == 0;
                    is_in_doubt |= unknown;
                    let usage = self.usage();
                    let (due, rejected, variant) = (self.at + 1_000_000, None, None);
                    let failed = AttemptFailed {
                        key: key.clone(),
                        attempt,
                        error,
                        delay_ms: 1,
                        due,
                        rejected,
                        usage,
                        unknown,
                        variant,
                    };
                    self.write(Fact::AttemptFailed(Box::new(failed)));
                    match self.dice(5) {
                        0 => return,
                        1 if !is_in_doubt => return self.cancel(&key, None),
                        _ => attempt = self.start(&key),
                    }
                }
                4 if effect == Effect::Write => {
                    self.write(Fact::OutcomeUnknown { key: key.clone(), attempt, reason: "lost".into() });
                    let landed = match self.dice(3) {
                        0 => return,
                        1 => Some(Slot::of(json!("landed"))),
                        _ => None,
                    };
                    let is_over = landed.is_some() || is_cancelled;
                    self.write(Fact::OutcomeResolved { key: key.clone(), landed });
                    if is_over || self.dice(4) == 0 {
                        return;
                    }
                    attempt = self.start(&key);
                }
                5 if !is_cancelled => {
                    self.cancel(&key, Some(attempt));
                    if effect != Effect::Write {
                        return;
                    }
                    is_cancelled = true;
                }
                _ => {}
            }
        }
    }

    fn reuse(&mut self, key: Key) {
        let error = (self.dice(2) == 0).then(|| Failure::new(error_type::RUNTIME, 500, "no", "no"));
        let output = error.is_none().then(|| Slot::of(json!("theirs")));
        let reused = StepReused { key, workflow: "parent".into(), version: 9, output, error };
        self.write(Fact::StepReused(Box::new(reused)));
    }

    /// A `write` of a fork waits for a person; whether it is to be performed.
    fn hold(&mut self, key: &Key) -> bool {
        self.write(Fact::WriteHeld { key: key.clone(), reason: "a fork".into() });
        let verdict = match self.dice(4) {
            0 => return false,
            1 => Verdict::Stub,
            2 => Verdict::Deny,
            _ => Verdict::Live,
        };
        let reason = String::new();
        self.write(Fact::WriteSettled { key: key.clone(), verdict, output: None, reason });
        verdict == Verdict::Live
    }

    fn cancel(&mut self, key: &Key, attempt: Option<u32>) {
        self.write(Fact::StepCancelled { key: key.clone(), attempt, reason: "given up".into() });
    }
}

fn log(rng: TestRng) -> (Vec<Event>, Option<&'static str>) {
    let mut scribe =
        Scribe { rng, at: 1_700_000_000_000_000, facts: Vec::new(), attempts: Default::default() };
    for _ in 0..1 + scribe.dice(6) {
        let key = format!("k{}", scribe.dice(3));
        scribe.step(&key);
        if scribe.dice(4) == 0 {
            scribe.write(Fact::WorkflowFailed { error: Failure::new(error_type::RUNTIME, 500, "no", "no") });
            scribe.write(Fact::WorkflowReopened {
                reason: String::new(),
                again: vec![Key::from(&*key)],
                back_to: None,
                changes: None,
            });
        }
    }
    let status = match scribe.dice(3) {
        0 => None,
        _ => {
            scribe.write(Fact::WorkflowCompleted { output: Slot::null() });
            Some("completed")
        }
    };
    let event = |(i, (timestamp, fact)): (usize, (i64, Fact))| Event {
        clock: None,
        id: EventId([0; 16]),
        version: i as u64 + 1,
        timestamp,
        causation_id: None,
        correlation_id: None,
        actor: "test".into(),
        fact,
    };
    (scribe.facts.into_iter().enumerate().map(event).collect(), status)
}

fn append(id: &str, events: Vec<(String, i64, String)>, status: Option<&'static str>) -> Append {
    let written = |(event_type, timestamp, payload): (String, i64, String)| NewEvent {
        event_type: event_type.as_str().into(),
        payload,
        timestamp,
        ..event("")
    };
    let events = events.into_iter().map(written).collect();
    Append { workflow_id: id.into(), expected: Expected::NoStream, events, begins: None, status }
}

fn rows(conn: &Connection, id: &str) -> Vec<Value> {
    let mut ask = conn
        .prepare(&format!("SELECT {COLUMNS} FROM steps WHERE workflow_id = ? ORDER BY asked_version"))
        .unwrap();
    let texts = ask.query_map([id], |row| row.get::<_, String>(0)).unwrap();
    texts.map(|text| serde_json::from_str(&text.unwrap()).unwrap()).collect()
}

#[test]
fn the_view_of_steps_is_the_report_of_steps() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let logs: Vec<_> = (0..400).map(|_| log(runner.new_rng())).collect();
    let text = |event: &Event| (event.fact.event_type().to_owned(), event.timestamp, event.fact.encode());
    let appends = logs
        .iter()
        .enumerate()
        .map(|(i, (events, status))| append(&format!("w{i}"), events.iter().map(text).collect(), *status));
    desk.commit(Commit { appends: appends.collect(), ..Commit::default() }).unwrap();
    let conn = Connection::open(dir.path().join("foldback.db")).unwrap();
    let mut statuses = std::collections::BTreeSet::new();
    for (i, (events, _)) in logs.iter().enumerate() {
        let reported = steps(events).into_iter().map(|step| {
            statuses.insert(step.status.as_str());
            json!([
                step.key,
                step.kind,
                step.effect,
                step.status,
                step.attempts,
                step.asked_version,
                step.started_version,
                step.ended_version,
                step.asked_at,
                step.duration_ms,
                step.tokens.input,
                step.tokens.output,
                step.micro_usd,
                step.model
            ])
        });
        assert_eq!(
            rows(&conn, &format!("w{i}")),
            reported.collect::<Vec<_>>(),
            "{}",
            foldback_core::text::render(events)
        );
    }
    let all = ["cancelled", "completed", "failed", "pending", "reused", "running", "unknown"];
    assert_eq!(statuses.into_iter().collect::<Vec<_>>(), all, "the logs have all that there is");
}

#[test]
fn what_a_fork_asks_itself_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    let asked = |key: &str| {
        let payload = json!({"key": key, "kind": "http", "effect": "write", "starts": false});
        ("StepAsked".to_owned(), 1_000_000, payload.to_string())
    };
    let fact = |kind: &str, payload: Value| (kind.to_owned(), 2_000_000, payload.to_string());
    let settled = |key: &str, verdict: &str| fact("WriteSettled", json!({"key": key, "verdict": verdict}));
    let held = |key: &str| fact("WriteHeld", json!({"key": key, "reason": "a fork writes nothing"}));
    let events = vec![
        fact("WorkflowForked", json!({"parent": "a"})),
        // Of a step that was asked for in the shared past.
        fact("AttemptStarted", json!({"key": "theirs", "attempt": 2})),
        asked("a"),
        fact("StepReused", json!({"key": "a", "workflow": "p", "version": 9, "output": {"inline": 1}})),
        asked("b"),
        held("b"),
        asked("c"),
        held("c"),
        settled("c", "stub"),
        asked("d"),
        held("d"),
        settled("d", "deny"),
        asked("e"),
        held("e"),
        settled("e", "live"),
        asked("f"),
        held("f"),
        settled("f", "live"),
        fact("AttemptStarted", json!({"key": "f", "attempt": 1})),
        fact("StepCompleted", json!({"key": "f", "attempt": 1, "output": {"inline": 1}, "latency_ms": 1})),
    ];
    desk.commit(Commit { appends: vec![append("p~1", events, None)], ..Commit::default() }).unwrap();
    let conn = Connection::open(dir.path().join("foldback.db")).unwrap();
    let told: Vec<String> =
        rows(&conn, "p~1").iter().map(|row| format!("{} {} {}", row[0], row[3], row[7])).collect();
    let expected = [
        r#""a" "reused" 4"#,
        r#""b" "pending" null"#,
        r#""c" "completed" 9"#,
        r#""d" "failed" 12"#,
        r#""e" "pending" null"#,
        r#""f" "completed" 20"#,
    ];
    assert_eq!(told, expected);
}

#[test]
fn the_steps_of_one_workflow_are_found_by_the_index() {
    let dir = tempfile::tempdir().unwrap();
    let _desk = Desk::at(&dir);
    let conn = Connection::open(dir.path().join("foldback.db")).unwrap();
    let mut ask = conn.prepare("EXPLAIN QUERY PLAN SELECT * FROM steps WHERE workflow_id = 'a'").unwrap();
    let plan: Vec<String> = ask.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
    assert!(plan.iter().any(|line| line.contains("log_by_version (workflow=?)")), "{plan:#?}");
    assert!(!plan.iter().any(|line| line.starts_with("SCAN log")), "{plan:#?}");
}
