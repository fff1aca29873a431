//! A step kind of one's own: its secrets are named, filled in, and masked in all that it gives back.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::step::{Failure, Usage};
use foldback::core::{Effect, Event, Key, Outcome, RetryPolicy};
use foldback::engine::{Call, Command, Observer, Performing, Registry, Session, StepKind};
use foldback::programs::{Definitions, start_code};
use serde_json::{Value, json};

/// A variable that every test process has, used as a secret.
const SECRET: &str = "cargo_manifest_dir";

/// Another one, used as the key of a provider.
const KEY: &str = "CARGO_PKG_DESCRIPTION";

fn canary() -> String {
    std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo")
}

fn key() -> String {
    std::env::var(KEY).expect("set by cargo")
}

/// Gives back all it knows, in whatever way it is asked to, and keeps what it was sent.
#[derive(Clone, Default)]
struct Blabs {
    seen: Arc<Mutex<Vec<Value>>>,
}

impl StepKind for Blabs {
    fn perform(&self, call: Call) -> Performing {
        self.seen.lock().unwrap().push(call.request.clone());
        let told = format!("{} {}", call.request, key());
        for piece in told.as_bytes().chunks(3) {
            (call.progress)(std::str::from_utf8(piece).unwrap());
        }
        let usage = Some(Usage {
            model: told.clone(),
            finish_reason: Some(told.clone()),
            raw: Some(json!({"told": told})),
            ..Usage::default()
        });
        let error = Failure::new("own", 500, &told, told.clone());
        let outcome = match call.request["how"].as_str() {
            Some("completed") => Outcome::Completed { output: json!({"a": [told], told.clone(): 1}), usage },
            Some("failed") => Outcome::Failed { error, retry_after_ms: None, usage },
            Some("rejected") => Outcome::Rejected { output: json!(told), error, usage },
            Some("out of budget") => Outcome::OutOfBudget { usage },
            _ => Outcome::Unknown { reason: told },
        };
        Box::pin(std::future::ready(outcome))
    }
}

const WAYS: [&str; 5] = ["completed", "failed", "rejected", "out of budget", "unknown"];

async fn program(mut ctx: Ctx, _: Value) -> Ended {
    for way in WAYS {
        let request = json!({"how": way, "headers": {}});
        let work = Work::new("blabs", Effect::Read, request).secret("/headers/x~1key", SECRET);
        let repaired = RetryPolicy { repairs: 1, ..RetryPolicy::default() };
        let _ended = ctx.step(way, if way == "rejected" { work.retry(repaired) } else { work }).await;
    }
    Ok(Value::Null)
}

#[derive(Default)]
struct Watches(Mutex<String>);

impl Observer for Watches {
    fn committed(&self, _: &str, _: &[Event]) {}

    fn progress(&self, _: &str, _: &Key, text: &str) {
        self.0.lock().unwrap().push_str(text);
    }
}

#[test]
fn secrets_reach_a_kind_of_ones_own_and_leave_it_masked() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("test.db");
    let store = foldback::store::open(&format!("sqlite:{}", path.display())).unwrap();
    let (kind, watches) = (Blabs::default(), Arc::new(Watches::default()));
    let session = Session {
        store: store.clone(),
        kinds: Registry::default().with("blabs", kind.clone()).hiding([KEY.to_owned()]),
        programs: Arc::new(Definitions::default().with_code("ways", "1", Code::new(program))),
        pool: runtime.handle().clone(),
        observer: Some(watches.clone()),
        actor: Arc::from("test"),
        stop: Arc::new(AtomicBool::new(false)),
    };
    session.drive(vec![Command::Start(start_code("ways", "1", "w", Value::Null))]).unwrap();

    let seen = kind.seen.lock().unwrap().clone();
    for way in WAYS {
        assert!(seen.iter().any(|seen| seen["how"] == way), "{way} was performed: {seen:?}");
    }
    assert!(seen.iter().all(|seen| seen["headers"]["x/key"] == canary()), "{seen:?}");

    let told = watches.0.lock().unwrap().clone();
    let shown = format!("[secret {SECRET}]");
    assert!(told.contains(&shown) && told.contains(&format!("[{KEY}]")), "{told}");
    let events = foldback::engine::events_of(&*store, "w", 0).unwrap();
    let log = foldback::core::text::render(&events);
    drop((session, store));
    for bytes in [told.into_bytes(), log.into_bytes(), std::fs::read(&path).unwrap()] {
        for hidden in [canary(), key()] {
            assert!(!bytes.windows(hidden.len()).any(|part| part == hidden.as_bytes()), "`{hidden}` left");
        }
    }
}

#[test]
fn a_secret_without_a_place_in_the_request_is_told() {
    let work = |pointer: &'static str| {
        Code::new(move |mut ctx: Ctx, _| async move {
            let work = Work::new("blabs", Effect::Read, json!({"how": "completed", "list": []}));
            ctx.step("a", work.secret(pointer, SECRET)).await
        })
    };
    for (pointer, is_place) in [("/key", true), ("/a/b", false), ("/list/0", false)] {
        let programs = Definitions::default().with_code("place", "1", work(pointer));
        let kinds = Registry::default().with("blabs", Blabs::default());
        let store = foldback::store::open("memory:").unwrap();
        let engine = foldback::Engine::with(store, kinds, programs).unwrap();
        let ended = engine.run(start_code("place", "1", "w", Value::Null)).unwrap();
        let detail = ended.error.and_then(|error| error.detail).unwrap_or_default();
        assert_eq!(detail.is_empty(), is_place, "{pointer}: {detail}");
        assert!(is_place || detail.contains(&format!("no place at `{pointer}`")), "{pointer}: {detail}");
    }
}
