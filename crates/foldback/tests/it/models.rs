//! A definition with model calls, end to end on a real store, with the scripted provider: what is
//! recorded of each call, the repair round, and what happens when a provider is busy.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use foldback::connectors::{Config, registry};
use foldback::core::{Event, Fact, Status};
use foldback::engine::{Command, Session, events_of};
use foldback::programs::{Definitions, start_document};
use serde_json::{Value, json};

const PIPELINE: &str = "
document: { dsl: '1.0.3', namespace: test, name: review, version: '1.0.0' }
do:
  - draft:
      call: llm
      with:
        model: fake/tiny
        system: You write.
        template: 'Write about {topic}, at length. LONG'
        vars: { topic: '${ .topic }' }
        seed: 7
        max_tokens: 50
  - critique:
      call: llm
      with:
        model: fake/tiny
        template: 'Judge: {text}'
        vars: { text: '${ $steps.draft }' }
        schema:
          type: object
          properties: { verdict: { enum: [publish, revise] } }
          required: [verdict]
";

/// Runs the pipeline with these rules; the status it ends in, and its log.
fn run(rules: &Value) -> (Status, Vec<Event>) {
    let long = "x".repeat(3_000);
    run_document(&PIPELINE.replace("LONG", &long), json!({"topic": "lamps"}), rules)
}

fn run_document(source: &str, input: Value, rules: &Value) -> (Status, Vec<Event>) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let rules = file("rules.json", &rules.to_string());
    let config = format!("[providers.fake]\nkind = \"scripted\"\nfile = {rules:?}\n");
    let config = Config::load(Some(&file("foldback.toml", &config))).unwrap();
    let loaded = foldback::ows::load(source, &|_| Err("no files".into())).unwrap();
    let store = foldback::store::open(&format!("sqlite:{}", folder.path().join("m.db").display())).unwrap();
    let pool = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let session = Session {
        store: store.clone(),
        kinds: registry(&config),
        programs: Arc::new(Definitions::default()),
        pool: pool.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let start = start_document(&loaded, "w", input);
    let rests = session.drive(vec![Command::Start(start)]).unwrap();
    (rests[0].status, events_of(&*store, "w", 0).unwrap())
}

#[test]
fn an_answer_that_misses_its_schema_is_recorded_shown_to_the_model_and_repaired_once() {
    let good = json!("{\"verdict\": \"publish\"}");
    let (status, events) = run(&json!([
        {"contains": "Write about lamps", "answer": "Lamps shine."},
        {"contains": "Judge: Lamps shine.", "answer": "It is great!", "times": 1},
        {"contains": "It is great!", "answer": good},
    ]));
    assert_eq!(status, Status::Completed, "{}", foldback::core::text::render(&events));
    let rejected: Vec<Value> = events
        .iter()
        .filter_map(|e| match &e.fact {
            Fact::AttemptFailed(failed) => Some((*failed.rejected.as_ref()?.get()).clone()),
            _ => None,
        })
        .collect();
    assert_eq!(rejected, [json!("It is great!")]);
    let Some(Fact::WorkflowCompleted { output }) = events.last().map(|e| &e.fact) else {
        panic!("it completed")
    };
    assert_eq!(*output.get(), json!({"verdict": "publish"}));

    // A second bad answer is a failure, and the log holds both.
    let (status, events) = run(&json!([
        {"contains": "Write about lamps", "answer": "Lamps shine."},
        {"answer": "It is great!"},
    ]));
    assert_eq!(status, Status::Failed);
    let Some(Fact::StepFailed(failed)) =
        events.iter().map(|e| &e.fact).find(|f| matches!(f, Fact::StepFailed(_)))
    else {
        panic!("the step failed")
    };
    assert_eq!((failed.attempt, failed.error.short_type()), (2, "validation"));
    assert_eq!(failed.rejected.as_ref().map(|r| (*r.get()).clone()), Some(json!("It is great!")));
}

#[test]
fn a_busy_provider_is_asked_again_when_it_says_and_other_errors_are_not() {
    let (status, events) = run(&json!([
        {"contains": "Write about lamps", "status": 429, "answer": "slow down", "retry_after_ms": 700, "times": 1},
        {"contains": "Write about lamps", "answer": "Lamps shine."},
        {"contains": "Judge", "status": 400, "answer": "no such thing"},
    ]));
    assert_eq!(status, Status::Failed);
    let delays: Vec<u64> = events
        .iter()
        .filter_map(|e| match &e.fact {
            Fact::AttemptFailed(failed) => Some(failed.delay_ms),
            _ => None,
        })
        .collect();
    assert_eq!(delays, [700], "retry-after is honoured, and 400 is not tried again");
}

#[test]
fn the_log_holds_the_request_as_data_and_what_the_call_used() {
    let (_, events) = run(&json!([
        {"contains": "Write about lamps", "answer": "Lamps shine."},
        {"answer": {"verdict": "revise"}},
    ]));
    let asked = events.iter().find_map(|e| match &e.fact {
        Fact::StepAsked(asked) if asked.key.as_str() == "draft" => Some(asked),
        _ => None,
    });
    let asked = asked.expect("draft was asked");
    let request = asked.request.to_json();
    assert_eq!(request["vars"], json!({"topic": "lamps"}));
    assert_eq!((&request["seed"], &request["model"]), (&json!(7), &json!("fake/tiny")));
    // The long prompt lies beside the log, once; the event holds its hash.
    assert!(asked.request.slots().any(|slot| slot.payload().is_some()));
    let stored = events.iter().find(|e| matches!(&e.fact, Fact::StepAsked(_))).unwrap().fact.encode();
    assert!(stored.len() < 1_500, "{} bytes", stored.len());
    let completed = events.iter().find_map(|e| match &e.fact {
        Fact::StepCompleted(done) => done.usage.as_ref(),
        _ => None,
    });
    assert!(completed.is_some_and(|usage| usage.output_tokens > 0), "{completed:?}");
}

/// Three models, of which the first does not exist any more and the second is overloaded.
const FALLBACK: &str = "
document: { dsl: '1.0.3', namespace: test, name: fallback, version: '1.0.0' }
do:
  - draft:
      call: llm
      with:
        model: fake/old
        fallback: [fake/busy, '${ .third }']
        template: Write.
      metadata: { foldback: { attempts: 1 } }
";

#[test]
fn the_next_model_is_asked_and_the_log_says_which_one_answered() {
    let loaded = foldback::ows::load(FALLBACK, &|_| Err("no files".into())).unwrap();
    let literal: Vec<&str> = loaded.models.iter().map(|(model, ..)| model.as_str()).collect();
    assert_eq!(literal, ["fake/old", "fake/busy"], "what is checked before the first event");
    let rules = json!([
        {"model": "old", "status": 404, "answer": "no such model"},
        {"model": "busy", "status": 503, "answer": "overloaded"},
        {"answer": "Lamps shine."},
    ]);
    let (status, events) = run_document(FALLBACK, json!({"third": "fake/tiny"}), &rules);
    assert_eq!(status, Status::Completed, "{}", foldback::core::text::render(&events));
    let report = foldback::core::report::steps(&events).remove(0);
    assert_eq!((report.attempts, report.variant, report.model.as_deref()), (3, 2, Some("tiny")));
    let variants: Vec<u32> = report.failed_attempts.iter().map(|attempt| attempt.variant).collect();
    assert_eq!(variants, [0, 1]);
    // The list is part of what was asked: another list is another request.
    assert_eq!(report.input["fallback"], json!(["fake/busy", "fake/tiny"]));
    let hash = |source: &str| {
        let (_, events) = run_document(source, json!({"third": "fake/tiny"}), &rules);
        events.iter().find_map(|event| match &event.fact {
            Fact::StepAsked(asked) => Some(asked.request_hash),
            _ => None,
        })
    };
    assert_ne!(hash(FALLBACK), hash(&FALLBACK.replace("fake/busy, ", "")));
}

#[test]
fn an_attachment_is_stored_once_however_many_calls_show_it() {
    let source = "
document: { dsl: '1.0.3', namespace: test, name: images, version: '1.0.0' }
do:
  - first: { call: llm, with: { model: fake/tiny, template: What is it?, attachments: ['${ $workflow.input.image }'] } }
  - second: { call: llm, with: { model: fake/tiny, template: Is it red?, attachments: ['${ $workflow.input.image }'] } }
";
    let image = format!("data:image/png;base64,{}", "AAAA".repeat(1_000));
    let (status, events) = run_document(source, json!({ "image": image }), &json!([{"answer": "A lamp."}]));
    assert_eq!(status, Status::Completed, "{}", foldback::core::text::render(&events));
    let mut shown = Vec::new();
    for event in &events {
        if let Fact::StepAsked(asked) = &event.fact {
            assert_eq!(asked.request.to_json()["attachments"], json!([image]));
            assert!(event.fact.encode().len() < 1_000, "the event holds its hash alone");
            shown.extend(asked.request.slots().filter_map(|slot| slot.payload()).map(|payload| payload.hash));
        }
    }
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0], shown[1], "one payload for both");
}
