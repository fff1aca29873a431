//! Golden events: one file per event type and version of its shape, read forever and only ever
//! added to. A shape that changes gets a new version and a new file; the old file stays.
//! `TYPE.vN.WORD.json` has fields that came later and may be absent.
//!
//! `FOLDBACK_BLESS=1 cargo test -p foldback-core --test golden` writes files that do not exist
//! yet. It never overwrites one.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use foldback_core::change::{Edit, Follows, GivenOutput, Past, Policy, Target, Writes};
use foldback_core::event::{
    AttemptFailed, DecisionMade, ENGINE_TYPES, Raised, SignalReceived, StepAsked, StepCompleted, StepFailed,
    StepReused, UndoArmed, UndoStarted, WorkflowForked, WorkflowStarted, clock_of,
};
use foldback_core::step::error_type;
use foldback_core::value::{Part, Request, StoredRef};
use foldback_core::{
    Changes, Effect, Event, EventId, Fact, Failure, Found, Hash, Key, Lineage, Lost, Measure, Recovery,
    RetryPolicy, Slot, TaskKind, Undo, Usage, Verdict,
};
use serde_json::json;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Every fact with every field set.
fn full() -> Vec<Fact> {
    let key = Key::from("refine[1]/critique#2");
    let stored =
        Slot::Stored(StoredRef { hash: Hash::of_bytes(b"x"), bytes: 2_000, media_type: None, value: None });
    let image = Slot::Stored(StoredRef {
        hash: Hash::of_bytes(b"y"),
        bytes: 9,
        media_type: Some("image/png".into()),
        value: None,
    });
    let error = Failure {
        error_type: error_type::COMMUNICATION.into(),
        status: 503,
        title: "Service Unavailable".into(),
        detail: Some("try later".into()),
        instance: Some("/do/0/critique".into()),
        key: Some(key.clone()),
        non_retryable: false,
    };
    let usage = Usage {
        model: "smollm2".into(),
        input_tokens: 153,
        output_tokens: 35,
        micro_usd: Some(12),
        price_source: Some("genai-prices 1".into()),
        finish_reason: Some("stop".into()),
        raw: Some(json!({"prompt_tokens": 153})),
        is_estimated: false,
        found_in: None,
    };
    let request = Request {
        parts: [
            ("model".to_owned(), Part::One(Slot::of(json!("a/b")))),
            ("system".to_owned(), Part::One(stored.clone())),
            (
                "messages".to_owned(),
                Part::Many(vec![stored.clone(), Slot::of(json!({"role": "user"})), image]),
            ),
        ]
        .into(),
    };
    vec![
        Fact::WorkflowStarted(WorkflowStarted {
            definition: Hash::of_bytes(b"definition"),
            name: "article 0.1.0".into(),
            file: None,
            input: Slot::of(json!({"topic": "lamps"})),
            lineage: Some(Lineage { parent: "a".into(), cut: 7, cut_hash: Hash::of_bytes(b"cut") }),
            dialect: 1,
        }),
        Fact::StepAsked(Box::new(StepAsked {
            key: key.clone(),
            kind: "llm".into(),
            request,
            request_hash: Hash::of_bytes(b"request"),
            program_hash: None,
            effect: Effect::Write,
            recovery: Some(Recovery::Retry),
            timeout_ms: Some(60_000),
            retry: Some(first_policy()),
            secrets: [("/headers/X-Key".to_owned(), "token".to_owned())].into(),
            instance: Some("/do/0/critique".into()),
            finishes: true,
            starts: true,
            undo: None,
            given: None,
        })),
        Fact::AttemptStarted { key: key.clone(), attempt: 2, lost: None },
        Fact::AttemptFailed(Box::new(AttemptFailed {
            key: key.clone(),
            attempt: 1,
            error: error.clone(),
            delay_ms: 500,
            due: 1_700_000_000_500_000,
            rejected: Some(Slot::of(json!("not json"))),
            usage: Some(usage.clone()),
            unknown: true,
            variant: None,
        })),
        Fact::StepCompleted(Box::new(StepCompleted {
            key: key.clone(),
            attempt: 2,
            output: Slot::of(json!({"verdict": "revise"})),
            latency_ms: 1_150,
            usage: Some(usage.clone()),
        })),
        Fact::StepFailed(Box::new(StepFailed {
            key: key.clone(),
            attempt: 2,
            error: error.clone(),
            rejected: Some(stored.clone()),
            usage: Some(usage),
        })),
        Fact::OutcomeUnknown { key: key.clone(), attempt: 1, reason: "the connection broke".into() },
        Fact::OutcomeResolved { key: key.clone(), landed: Some(Slot::of(json!({"id": 7}))) },
        Fact::StepCancelled { key: key.clone(), attempt: Some(2), reason: "`refine` ran out of time".into() },
        Fact::TimerSet { key: key.clone(), due: 1_700_000_000_000_000, finishes: true, limits: false },
        Fact::TimerFired { key: key.clone() },
        Fact::TimerCancelled { key: key.clone(), reason: "`refine` ran out of time".into() },
        Fact::DecisionMade(Box::new(DecisionMade {
            key: key.mark("if"),
            chosen: "run".into(),
            options: vec!["run".into(), "skip".into()],
            because: Slot::of(json!({".score": 0.4})),
            finishes: true,
        })),
        Fact::TaskStarted {
            key: key.clone(),
            kind: TaskKind::For,
            input: Slot::of(json!({"items": [1]})),
            collects: false,
        },
        Fact::TaskFinished {
            key: key.clone(),
            kind: TaskKind::Iteration,
            output: Slot::of(json!(1)),
            context: Some(Slot::of(json!({"seen": 1}))),
        },
        Fact::UndoArmed(Box::new(UndoArmed {
            key: key.clone(),
            handler: "".into(),
            undo: Slot::of(json!({"delete": 7})),
            output: None,
            previous: Some(3),
            generation: 0,
        })),
        Fact::UndoStarted(Box::new(UndoStarted {
            key: key.clone(),
            armed: 7,
            scope: Key::root(),
            handler: "/do/0/charge".into(),
            undo: Some(Slot::of(json!({"input": 1}))),
            output: Some(Slot::of(json!({"id": 7}))),
            previous: Some(3),
            generation: 0,
        })),
        Fact::UndoCompleted { key: key.clone(), armed: 7, scope: Key::root() },
        Fact::UndoFailed { key: key.clone(), armed: 7, scope: "refine".into(), error: error.clone() },
        Fact::CompensationStarted { scope: Key::root(), because: "it failed".into() },
        Fact::CompensationRequested {
            reason: "the customer called".into(),
            from: Some(40),
            down_to: Some(7),
            again: vec!["a!undo/b".into()],
        },
        Fact::CompensationEnded { scope: "refine".into() },
        Fact::WorkflowCancelled { reason: "no longer wanted".into() },
        Fact::WorkflowPaused { reason: "until monday".into() },
        Fact::WorkflowUnpaused {
            reason: "it is monday".into(),
            raised: vec![Raised { scope: "refine".into(), measure: Measure::Tokens, limit: 20_000 }],
        },
        Fact::BudgetSet {
            key: key.clone(),
            limits: [
                (Measure::Tokens, 10_000),
                (Measure::MicroUsd, 5_000),
                (Measure::WallMs, 60_000),
                (Measure::Steps, 100),
            ]
            .into(),
        },
        Fact::BudgetWarned { scope: Key::root(), measure: Measure::MicroUsd, spent: 4_000, limit: 5_000 },
        Fact::BudgetExceeded { scope: key.clone(), measure: Measure::Steps, spent: 100, limit: 100 },
        Fact::SignalReceived(Box::new(SignalReceived {
            name: "approval".into(),
            data: Slot::of(json!({"approved": true})),
            source: Some("another".into()),
            event_id: None,
            error: None,
        })),
        Fact::ListenStarted {
            key: key.clone(),
            names: vec!["approval".into(), "refusal".into()],
            wants: Slot::of(json!({"join": "any"})),
        },
        Fact::SignalTaken { key: key.clone(), signals: vec![7, 9] },
        Fact::SignalRefused { key: key.clone(), signal: 8, reason: "`approved` is missing".into() },
        Fact::OutcomeReconciled {
            key: key.clone(),
            found: Found::Landed,
            landed: Some(Slot::of(json!({"id": 7}))),
            reason: "it was found".into(),
        },
        Fact::Recorded {
            event_type: Arc::from("CONTENT_GENERATED"),
            key: Some(key.clone()),
            data: Slot::of(json!({"words": 120})),
            handler: None,
        },
        Fact::WorkflowCompleted { output: stored },
        Fact::WorkflowFailed { error },
        Fact::WorkflowReopened {
            reason: "the server is back".into(),
            again: vec![key.clone(), key.mark("catch")],
            back_to: None,
            changes: None,
        },
        Fact::WorkflowForked(Box::new(WorkflowForked {
            lineage: Lineage { parent: "a".into(), cut: 7, cut_hash: Hash::of_bytes(b"cut") },
            again: vec!["announce".into()],
            changes: changes(),
        })),
        Fact::StepReused(Box::new(StepReused {
            key: key.clone(),
            workflow: "a".into(),
            version: 9,
            output: Some(Slot::of(json!({"id": 7}))),
            error: None,
        })),
        Fact::WriteHeld { key: key.clone(), reason: "its request is another".into() },
        Fact::WriteSettled {
            key: key.clone(),
            verdict: Verdict::Stub,
            output: Some(Slot::of(json!({"id": 7}))),
            reason: "said by a person".into(),
        },
        Fact::WorkflowParked { key, recorded: "llm request a".into(), asked: "http request b".into() },
    ]
}

/// What a person changes, with every field set.
fn changes() -> Changes {
    let edit = |target, path: &str, value| Edit { target, path: path.into(), value: Slot::of(value) };
    Changes {
        past: Past { workflow: "a".into(), after: 7, up_to: 40 },
        edits: vec![
            edit(Target::Key("draft".into()), "/template", json!("Write about {topic}.")),
            edit(Target::Kind("llm".into()), "/temperature", json!(0)),
        ],
        outputs: vec![GivenOutput { key: "critique".into(), output: Slot::of(json!({"score": 0.4})) }],
        input: Some(Slot::of(json!({"topic": "lamps"}))),
        writes: Writes { policy: Policy::Deny, by_key: [("publish".into(), Policy::Live)].into() },
        rerun: vec!["draft".into()],
        follows: Some(Follows {
            definition: Hash::of_bytes(b"definition"),
            name: "article 0.2.0".into(),
            file: None,
        }),
    }
}

/// The policy of model calls as it was first: which statuses it names is no part of its shape.
fn first_policy() -> RetryPolicy {
    RetryPolicy { statuses: vec![429, 503], ..RetryPolicy::model() }
}

/// A failure whose detail stands beside the log.
fn failure_apart() -> Failure {
    let mut error = Failure::new(error_type::RUNTIME, 500, "Process failed", "no account of Ann");
    error.set_apart();
    error.at(&Key::new("refine[1]/critique#2"))
}

/// Facts with fields that came later and may be absent, each with a word for its file's name.
fn with_later_fields() -> Vec<(&'static str, Fact)> {
    let lost = Some(Lost { attempt: 2, at_most_ms: 3_100, reason: "the process ended".into() });
    let key = Key::new("refine[1]/critique#2");
    let asked = StepAsked {
        key: key.clone(),
        kind: "llm".into(),
        request: Request::from_json(json!({"model": "a/b", "fallback": ["c/d"]}), &[]),
        request_hash: Hash::of_bytes(b"request"),
        program_hash: None,
        effect: Effect::Read,
        recovery: None,
        timeout_ms: None,
        retry: Some(RetryPolicy {
            variants: 1,
            variant_statuses: vec![402, 404, 408, 429, 500, 502, 503, 504],
            ..first_policy()
        }),
        secrets: Default::default(),
        instance: None,
        finishes: true,
        starts: true,
        undo: None,
        given: None,
    };
    let asked_plainly = asked.clone();
    let passed_by = AttemptFailed {
        key: key.clone(),
        attempt: 6,
        error: Failure::new(error_type::COMMUNICATION, 503, "Service Unavailable", "try later"),
        delay_ms: 0,
        due: 1_700_000_000_000_000,
        rejected: None,
        usage: None,
        unknown: false,
        variant: Some(1),
    };
    let limit = Fact::TimerSet {
        key: "refine!timeout".into(),
        due: 1_700_000_000_000_000,
        finishes: false,
        limits: true,
    };
    let guessed = StepCompleted {
        key: key.clone(),
        attempt: 1,
        output: Slot::of(json!({"verdict": "revise"})),
        latency_ms: 1_150,
        usage: Some(Usage {
            model: "smollm2".into(),
            input_tokens: 153,
            output_tokens: 35,
            is_estimated: true,
            found_in: Some("think, fence".into()),
            ..Usage::default()
        }),
    };
    let hopeless = StepFailed {
        key: key.clone(),
        attempt: 1,
        error: Failure::new(error_type::COMMUNICATION, 502, "Empty answer", "not a word").non_retryable(),
        rejected: None,
        usage: None,
    };
    let started = WorkflowStarted {
        definition: Hash::of_bytes(b"definition"),
        name: "article 0.1.0".into(),
        file: Some("/home/me/article.yaml".into()),
        input: Slot::of(json!({"topic": "lamps"})),
        lineage: None,
        dialect: 1,
    };
    let mut followed = changes();
    followed.follows = followed.follows.map(|f| Follows { file: Some("/home/me/article.yaml".into()), ..f });
    let reopened = Fact::WorkflowReopened {
        reason: "mended".into(),
        again: Vec::new(),
        back_to: Some(7),
        changes: Some(Box::new(followed)),
    };
    vec![
        ("found", Fact::StepCompleted(Box::new(guessed))),
        ("final", Fact::StepFailed(Box::new(hopeless))),
        ("file", Fact::WorkflowStarted(started)),
        ("file", reopened),
        ("lost", Fact::AttemptStarted { key, attempt: 3, lost }),
        ("alternatives", Fact::StepAsked(Box::new(asked))),
        ("alternative", Fact::AttemptFailed(Box::new(passed_by))),
        ("limit", limit),
        (
            "collects",
            Fact::TaskStarted {
                key: "each".into(),
                kind: TaskKind::For,
                input: Slot::of(json!({"input": null, "items": [1]})),
                collects: true,
            },
        ),
        (
            "back",
            Fact::WorkflowReopened {
                reason: "another prompt".into(),
                again: vec!["a".into()],
                back_to: Some(7),
                changes: Some(Box::new(changes())),
            },
        ),
        (
            "edited",
            Fact::StepAsked(Box::new(StepAsked {
                program_hash: Some(Hash::of_bytes(b"asked")),
                ..asked_plainly.clone()
            })),
        ),
        (
            "undo",
            Fact::StepAsked(Box::new(StepAsked {
                effect: Effect::Write,
                recovery: Some(Recovery::Reconcile),
                undo: Some(Box::new(Undo::By {
                    handler: "/do/0/charge".into(),
                    given: Slot::of(json!({"input": 1, "with": {"order": 7}})),
                })),
                given: Some(Slot::of(json!(1))),
                ..asked_plainly.clone()
            })),
        ),
        (
            "dialect",
            Fact::WorkflowStarted(WorkflowStarted {
                definition: Hash::of_bytes(b"definition"),
                name: "article 0.1.0".into(),
                input: Slot::of(json!({"topic": "lamps"})),
                file: None,
                lineage: None,
                dialect: 2,
            }),
        ),
        (
            "irreversible",
            Fact::StepAsked(Box::new(StepAsked {
                effect: Effect::Write,
                recovery: Some(Recovery::Operator),
                undo: Some(Box::new(Undo::Irreversible("the letter is in the post".into()))),
                ..asked_plainly.clone()
            })),
        ),
        (
            "handled",
            Fact::Recorded {
                event_type: Arc::from("CONTENT_GENERATED"),
                key: Some("told!event".into()),
                data: Slot::of(json!({"words": 120})),
                handler: Some("on_compensate/CONTENT_GENERATED".into()),
            },
        ),
        (
            "armed",
            Fact::UndoArmed(Box::new(UndoArmed {
                key: "charge".into(),
                handler: "/do/0/charge".into(),
                undo: Slot::of(json!({"input": 1})),
                output: Some(Slot::of(json!({"id": 7}))),
                previous: None,
                generation: 0,
            })),
        ),
        (
            "armed_again",
            Fact::UndoArmed(Box::new(UndoArmed {
                key: "trip!2/charge".into(),
                handler: "/do/0/charge".into(),
                undo: Slot::of(json!({"input": 1})),
                output: Some(Slot::of(json!({"id": 8}))),
                previous: None,
                generation: 1,
            })),
        ),
        (
            "again",
            Fact::UndoStarted(Box::new(UndoStarted {
                key: "trip!2/charge".into(),
                armed: 7,
                scope: "trip".into(),
                handler: "/do/0/charge".into(),
                undo: Some(Slot::of(json!({"input": 1}))),
                output: Some(Slot::of(json!({"id": 8}))),
                previous: None,
                generation: 1,
            })),
        ),
        ("apart", Fact::WorkflowFailed { error: failure_apart() }),
        (
            "apart",
            Fact::StepFailed(Box::new(StepFailed {
                key: "critique".into(),
                attempt: 1,
                error: failure_apart(),
                rejected: None,
                usage: None,
            })),
        ),
        (
            "grown",
            Fact::StepAsked(Box::new(StepAsked {
                request: Request {
                    parts: [(
                        "messages".to_owned(),
                        Part::Grown { before: 41, first: 12, more: vec![Slot::of(json!({"role": "user"}))] },
                    )]
                    .into(),
                },
                ..asked_plainly.clone()
            })),
        ),
        (
            "failed",
            Fact::StepReused(Box::new(StepReused {
                key: "a".into(),
                workflow: "p".into(),
                version: 3,
                output: None,
                error: Some(Failure::new(error_type::COMMUNICATION, 404, "Not Found", "gone")),
            })),
        ),
        (
            "identified",
            Fact::SignalReceived(Box::new(SignalReceived {
                name: "paid".into(),
                data: Slot::null(),
                source: None,
                event_id: Some("evt_1".into()),
                error: Some(Failure::new(error_type::COMMUNICATION, 402, "Payment Required", "no money")),
            })),
        ),
        ("pending", Fact::StepCancelled { key: "a".into(), attempt: None, reason: "lost the race".into() }),
    ]
}

#[test]
fn every_event_ever_written_is_read() {
    let bless = std::env::var_os("FOLDBACK_BLESS").is_some();
    let first = full().into_iter().map(|fact| (String::new(), fact));
    let later = with_later_fields().into_iter().map(|(word, fact)| (format!(".{word}"), fact));
    for (word, fact) in first.chain(later) {
        let path = folder().join(format!("{}.v{}{word}.json", fact.event_type(), fact.schema_version()));
        if bless && !path.exists() {
            std::fs::write(&path, fact.encode() + "\n").unwrap();
        }
        let golden =
            std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
        assert_eq!(fact.encode(), golden.trim_end(), "{} is written as ever", path.display());
    }
    // Also the files of versions that are no longer written.
    let mut types = BTreeSet::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (event_type, version) = name.strip_suffix(".json").unwrap().rsplit_once(".v").unwrap();
        let version = version.split('.').next().unwrap();
        let text = std::fs::read_to_string(folder().join(&name)).unwrap();
        let fact = Fact::decode(event_type, version.parse().unwrap(), text.trim_end())
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(fact.event_type(), event_type);
        types.insert(event_type.to_owned());
    }
    for engine_type in ENGINE_TYPES {
        assert!(types.contains(engine_type), "{engine_type} has no golden file");
    }
}

/// The time on the machine's clock stands behind the fields of any fact.
#[test]
fn a_clock_that_differs_stands_in_the_payload() {
    let bless = std::env::var_os("FOLDBACK_BLESS").is_some();
    let clock = 1_699_996_400_000_000;
    let timer =
        Fact::TimerSet { key: "nap".into(), due: clock + 7_200_000_000, finishes: true, limits: false };
    let said = Fact::Recorded {
        event_type: Arc::from("CONTENT_GENERATED"),
        key: None,
        data: Slot::of(json!({"clock": 7})),
        handler: None,
    };
    for fact in [timer, said] {
        let mut event = Event {
            id: EventId([7; 16]),
            version: 2,
            timestamp: 1_700_000_000_000_000,
            causation_id: None,
            correlation_id: None,
            actor: Arc::from("engine"),
            clock: None,
            fact,
        };
        assert_eq!(event.encode(), event.fact.encode(), "nothing is added where the clock is right");
        assert_eq!((event.clock(), clock_of(&event.encode())), (event.timestamp, None));
        event.clock = Some(clock);
        let path = folder().join(format!("{}.v1.clock.json", event.fact.event_type()));
        if bless && !path.exists() {
            std::fs::write(&path, event.encode() + "\n").unwrap();
        }
        let golden = std::fs::read_to_string(&path).unwrap();
        assert_eq!(event.encode(), golden.trim_end(), "{} is written as ever", path.display());
        assert_eq!((event.clock(), clock_of(golden.trim_end())), (clock, Some(clock)));
        assert_eq!(Fact::decode(event.fact.event_type(), 1, golden.trim_end()), Ok(event.fact));
    }
    // A value of the user's that ends alike is no clock.
    for payload in
        [r#"{"data":{"inline":{"a":1,"clock":7}}}"#, r#"{"data":{"inline":"x,\"clock\":7}"}}"#, "{}", ""]
    {
        assert_eq!(clock_of(payload), None, "{payload}");
    }
}

#[test]
fn what_cannot_be_read_says_so() {
    for (event_type, version, payload) in [
        ("StepCompleted", 1, "{}"),
        ("StepCompleted", 2, r#"{"key":"a","attempt":1,"output":{"inline":1},"latency_ms":1}"#),
        ("StepCompleted", 1, "not json"),
        ("TimerFired", 1, r#"{"key": 7}"#),
        ("CONTENT_GENERATED", 1, "[]"),
    ] {
        let error = Fact::decode(event_type, version, payload).unwrap_err();
        assert_eq!(error.event_type, event_type);
        assert!(!error.reason.is_empty());
    }
    assert!(Failure::new("a/b/timeout", 408, "", "").short_type() == "timeout");
}

/// Hashes that stand in logs and at other people's servers: a change of any of them would break
/// every chain, park every running workflow, or send a write twice.
#[test]
fn hashes_never_change() {
    let link = foldback_core::hash::Link {
        previous: &Hash::of_bytes(b"before"),
        workflow_id: "article-1",
        version: 7,
        id: &[7; 16],
        event_type: "StepCompleted",
        schema_version: 1,
        timestamp: 1_700_000_000_000_000,
        causation_id: &[1; 16],
        correlation_id: &[],
        actor: "engine",
        tenant: "",
        codec: "json",
        key_id: "",
        payload_hash: &Hash::of_bytes(b"{}"),
    };
    let ask = foldback_core::program::StepAsk::new(
        Key::from("try!2/post"),
        "http",
        Effect::Write,
        json!({"uri": "http://x", "method": "POST", "body": {"b": [1, 2.5, null], "a": "ü"}}),
    );
    let found = [
        link.hash().to_hex(),
        ask.request_hash().to_hex(),
        foldback_core::step::idempotency_key("article-1", &ask.key, &ask.request_hash(), 0),
        Hash::of_json(&json!({"b": 1, "a": [true, "x", 1e3]})).to_hex(),
        foldback_core::step::chance("article-1", &ask.key, 2).to_string(),
    ];
    let path = folder().join("../hashes.txt");
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("{} is missing", path.display()));
    assert_eq!(found.join("\n"), golden.trim_end());
}
