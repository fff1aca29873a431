//! A machine without room: what cannot begin for want of open files, processes or memory begins later,
//! however often, and never fails its step.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::step::{Failure, RetryPolicy, error_type};
use foldback::core::{Effect, Outcome, Status};
use foldback::engine::{Call, Command, Performing, Registry, Session, StepKind, events_of};
use foldback::programs::{Definitions, start_code};
use serde_json::{Value, json};

/// Has no room for its first attempts; then fails once; then does what is asked.
struct Narrow {
    without_room: u32,
    asked: AtomicU32,
    keys: Mutex<Vec<Option<String>>>,
}

struct Shared(Arc<Narrow>);

impl StepKind for Shared {
    fn perform(&self, call: Call) -> Performing {
        let nth = self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.keys.lock().unwrap().push(call.idempotency_key);
        let failed = |kind, title: &str| Outcome::Failed {
            error: Failure::new(kind, 503, title, "a test"),
            retry_after_ms: None,
            usage: None,
        };
        let outcome = match nth {
            n if n < self.0.without_room => failed(error_type::NO_ROOM, "No room on this machine"),
            n if n == self.0.without_room => failed(error_type::COMMUNICATION, "Service Unavailable"),
            _ => Outcome::Completed { output: call.request, usage: None },
        };
        Box::pin(std::future::ready(outcome))
    }
}

async fn one_write(mut ctx: Ctx, input: Value) -> Ended {
    let twice = RetryPolicy { attempts: 2, delay_ms: 1, max_delay_ms: 1, ..RetryPolicy::default() };
    ctx.step("pay", Work::new("narrow", Effect::Write, input).retry(twice)).await
}

#[test]
fn what_has_no_room_begins_later_and_counts_for_nothing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let narrow = Arc::new(Narrow { without_room: 3, asked: AtomicU32::new(0), keys: Mutex::default() });
    let store = foldback::store::open("memory:").unwrap();
    let session = Session {
        store: store.clone(),
        kinds: Registry::default().with("narrow", Shared(narrow.clone())),
        programs: Arc::new(Definitions::default().with_code("one", "1", Code::new(one_write))),
        pool: runtime.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::new(AtomicBool::new(false)),
    };
    // Two attempts are allowed: one that fails, and one more. Those without room are none of them.
    let rests = session.drive(vec![Command::Start(start_code("one", "1", "w", json!({"n": 1})))]).unwrap();
    let log = foldback::core::text::render(&events_of(&*store, "w", 0).unwrap());
    assert_eq!(rests[0].status, Status::Completed, "{log}");
    assert_eq!(log.matches("No room on this machine; again in").count(), 3, "{log}");
    let keys = narrow.keys.lock().unwrap();
    assert!(keys.len() == 5 && keys.iter().all(|key| key.is_some() && *key == keys[0]), "{keys:?}");
    assert!(
        foldback::engine::verify::verify_own(
            &*store,
            "w",
            &Code::new(one_write),
            &Definitions::default().with_code("one", "1", Code::new(one_write))
        )
        .is_ok_and(|verified| verified.parting.is_none())
    );
}
