//! Snapshots: taken while a long workflow runs, used when they prove themselves, dropped when they
//! do not. Whatever they say, the log wins.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::{Effect, Hash, Outcome, WorkflowState};
use foldback::engine::{Call, Command, Performing, Registry, Session, StepKind, events_of, state_at};
use foldback::programs::{Definitions, start_code};
use foldback::store::{Commit, Snapshot, Store};
use serde_json::{Value, json};

struct Echo;

impl StepKind for Echo {
    fn perform(&self, call: Call) -> Performing {
        let output = call.request;
        Box::pin(std::future::ready(Outcome::Completed { output, usage: None }))
    }
}

async fn long(mut ctx: Ctx, input: Value) -> Ended {
    let mut last = Value::Null;
    for n in 0..input.as_u64().unwrap_or(0) {
        last = ctx.step("n", Work::new("echo", Effect::Pure, json!({ "n": n }))).await?;
    }
    ctx.sleep("rest", 1).await?;
    Ok(last)
}

fn run(store: &Arc<dyn Store>, steps: u64) {
    let pool = tokio::runtime::Runtime::new().unwrap();
    let session = Session {
        store: store.clone(),
        kinds: Registry::default().with("echo", Echo),
        programs: Arc::new(Definitions::default().with_code("long", "1", Code::new(long))),
        pool: pool.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::new(AtomicBool::new(false)),
    };
    session.drive(vec![Command::Start(start_code("long", "1", "w", json!(steps)))]).unwrap();
}

/// The fold of the log alone.
fn folded(store: &dyn Store, at: u64) -> WorkflowState {
    let events = events_of(store, "w", 0).unwrap();
    WorkflowState::fold("w", &events[..events.partition_point(|e| e.version <= at)]).unwrap()
}

fn put(store: &dyn Store, snapshot: Snapshot) {
    let ownership = store.acquire(0, "test").unwrap().expect("free");
    let (done, answer) = std::sync::mpsc::channel();
    let commit = Commit { epoch: ownership.epoch, snapshots: vec![snapshot], ..Commit::default() };
    store.commit(commit, Box::new(move |result| drop(done.send(result))));
    answer.recv().unwrap().unwrap();
}

#[test]
fn a_snapshot_is_trusted_only_if_it_proves_itself() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("s.db").display());
    let store = foldback::store::open(&url).unwrap();
    run(&store, 1_500);
    let snapshot = store.snapshot("w", u64::MAX).unwrap().expect("one was taken");
    assert!(snapshot.version >= 1_000, "{}", snapshot.version);

    // It is used, and agrees with the fold of the log, at its version and after it.
    let last = folded(&*store, u64::MAX).version;
    for at in [snapshot.version - 1, snapshot.version, (snapshot.version + 1).min(last), last] {
        let state = state_at(&*store, "w", Some(at)).unwrap().unwrap();
        assert_eq!(state, folded(&*store, at), "at {at}");
    }

    // A lie that is well made but for one thing is not believed.
    let mut lie: WorkflowState = serde_json::from_slice(&snapshot.state).unwrap();
    lie.spent.steps += 7;
    let state = serde_json::to_vec(&lie).unwrap();
    let good = Snapshot { fingerprint: Hash::of_bytes(&state), state, ..snapshot.clone() };
    let at = snapshot.version;
    let wanted = folded(&*store, at);
    let believed = |snapshot: Snapshot| {
        put(&*store, snapshot);
        state_at(&*store, "w", Some(at)).unwrap().unwrap() != wanted
    };
    assert!(believed(good.clone()), "the test can fail: a perfect forgery is believed");
    let bad = [
        Snapshot { fingerprint: Hash::of_bytes(b"other"), ..good.clone() },
        Snapshot { event_hash: Hash::of_bytes(b"foreign"), ..good.clone() },
        Snapshot { state_schema: good.state_schema + 1, ..good.clone() },
        Snapshot { state: b"{}".to_vec(), fingerprint: Hash::of_bytes(b"{}"), ..good },
    ];
    for snapshot in bad {
        let what = format!("{:?} {:?} {}", snapshot.fingerprint, snapshot.event_hash, snapshot.state_schema);
        assert!(!believed(snapshot), "{what}");
    }
}
