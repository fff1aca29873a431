//! Forks and retries on the real engine: of workflows that still run, from another process, on both
//! stores; what they write, and what they leave alone.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foldback::Engine;
use foldback::code::{Code, Ctx, Done, Ended, Work};
use foldback::core::change::{Policy, Said, Writes};
use foldback::core::cut::Wish;
use foldback::core::{Effect, Fact, Failure, Outcome, Status};
use foldback::engine::{Call, Command, Performing, Registry, Session, StepKind, events_of};
use foldback::library::{Change, Error};
use foldback::programs::{Definitions, start_code};
use foldback::store::Store;
use serde_json::{Value, json};

/// Counts what it does, and does not answer a `slow` question before it is let go.
struct World {
    done: Arc<AtomicU32>,
    gate: Arc<Mutex<Receiver<()>>>,
}

impl StepKind for World {
    fn perform(&self, call: Call) -> Performing {
        self.done.fetch_add(1, Ordering::Relaxed);
        let (gate, is_slow) = (self.gate.clone(), call.request["slow"] == true);
        Box::pin(async move {
            if is_slow {
                let waited =
                    tokio::task::spawn_blocking(move || gate.lock().is_ok_and(|gate| gate.recv().is_ok()));
                let _let_go = waited.await;
            }
            Outcome::Completed { output: json!({"did": call.request}), usage: None }
        })
    }
}

async fn three(mut ctx: Ctx, input: Value) -> Ended {
    let slow = input["slow"].clone();
    let look = ctx.step("look", Work::new("world", Effect::Read, json!({"style": "plain"}))).await?;
    let wrote =
        ctx.step("write", Work::new("world", Effect::Write, json!({"of": look, "slow": slow}))).await?;
    ctx.step("tell", Work::new("world", Effect::Read, json!({"of": wrote}))).await
}

/// Books, and then fails as long as the input says so.
async fn books(mut ctx: Ctx, input: Value) -> Ended {
    let booked = Work::new("world", Effect::Write, json!({"book": 1})).undo("cancel", json!({}));
    ctx.step("book", booked).await?;
    match input["fails"].as_bool() {
        Some(true) => Err(Failure::new("full", 500, "no room", "none is left")),
        _ => Ok(json!("booked")),
    }
}

async fn cancels(mut ctx: Ctx, _done: Done) -> Ended {
    ctx.step("cancel", Work::new("world", Effect::Write, json!({"cancel": 1}))).await
}

fn programs() -> Definitions {
    let books = Code::new(books).undo("cancel", cancels);
    Definitions::default().with_code("three", "1", Code::new(three)).with_code("books", "1", books)
}

struct Rig {
    engine: Engine,
    done: Arc<AtomicU32>,
    let_go: Sender<()>,
    folder: tempfile::TempDir,
    url: String,
}

fn rig(is_memory: bool) -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let url = match is_memory {
        true => "memory:".to_owned(),
        false => format!("sqlite:{}", folder.path().join("test.db").display()),
    };
    let (let_go, gate) = channel();
    let done = Arc::new(AtomicU32::new(0));
    let world = World { done: done.clone(), gate: Arc::new(Mutex::new(gate)) };
    let store = foldback::store::open(&url).unwrap();
    let engine = Engine::with(store, Registry::default().with("world", world), programs()).unwrap();
    Rig { engine, done, let_go, folder, url }
}

fn edited(path: &str, writes: Policy) -> Change {
    let mut wish = Wish { edits: vec![Said::parse(path).unwrap()], ..Wish::default() };
    wish.writes = Writes { policy: writes, ..Writes::default() };
    Change { wish, ..Change::default() }
}

fn hashes(store: &dyn Store, id: &str) -> Vec<String> {
    store.read(id, 0, 1_000).unwrap().iter().map(|recorded| recorded.hash.to_hex()).collect()
}

#[test]
fn a_fork_writes_a_few_rows_and_leaves_its_parent_alone() {
    for is_memory in [true, false] {
        let Rig { engine, done, folder: _folder, .. } = rig(is_memory);
        engine.run(start_code("three", "1", "p", json!({}))).unwrap();
        assert_eq!(done.load(Ordering::Relaxed), 3);
        let before = hashes(&**engine.store(), "p");
        let plan = engine.plan_fork("p", edited("look:style=\"bold\"", Policy::Reuse)).unwrap();
        let forked = engine.fork("p", edited("look:style=\"bold\"", Policy::Reuse)).unwrap();
        assert_eq!(forked.plan, plan);
        assert_eq!((&*forked.outcome.workflow_id, forked.outcome.status), ("p~1", Status::Waiting));
        assert_eq!(done.load(Ordering::Relaxed), 4, "only the step that was edited");
        let own = engine.store().read("p~1", plan.cut, 1_000).unwrap();
        assert!(
            own.len() <= 8 && own.iter().all(|recorded| &*recorded.workflow_id == "p~1"),
            "{}",
            own.len()
        );
        assert_eq!(hashes(&**engine.store(), "p"), before);
        assert_eq!(engine.verify("p~1").unwrap().parting, None);
        assert!(!engine.diff("p", "p~1").unwrap().is_same);
        // A fork of it that changes nothing ends where it does, and does nothing.
        let again = engine.fork("p~1", Change::default()).unwrap();
        assert_eq!((again.outcome.status, done.load(Ordering::Relaxed)), (Status::Waiting, 4));
        assert!(engine.store().check().unwrap().is_empty());
    }
}

#[test]
fn what_has_no_place_is_a_refusal_with_a_hint() {
    let Rig { engine, folder: _folder, .. } = rig(true);
    engine.run(start_code("three", "1", "p", json!({}))).unwrap();
    let none = Change::default;
    let refusals: [(Result<(), Error>, &str); 6] = [
        (engine.fork("nobody", none()).map(drop), "no workflow"),
        (engine.fork("p", Change { at: Some(0), ..none() }).map(drop), "out of range"),
        (engine.fork("p", Change { at: Some(99), ..none() }).map(drop), "out of range"),
        (engine.retry("p", none()).map(drop), "has completed"),
        (engine.state_at("p", Some(99)).map(drop), "out of range"),
        (
            engine.fork("p", Change { at: Some(2), ..edited("look:output.x=1", Policy::Reuse) }).map(drop),
            "never completed",
        ),
    ];
    for (refused, says) in refusals {
        let Err(Error::Refused(refusal)) = refused else { panic!("{says}: {refused:?}") };
        assert!(refusal.message.contains(says) && !refusal.hint.is_empty(), "{refusal:?}");
    }
}

/// A parent whose write is under way in another session: its fork neither waits for it nor does it.
/// What was taken back is done again by a retry, and then taken back again; nobody goes on as if it stood.
#[test]
fn a_retry_behind_a_compensation_does_again_what_was_taken_back() {
    let rig = rig(true);
    let first = rig.engine.run(start_code("books", "1", "a", json!({"fails": true}))).unwrap();
    assert_eq!((first.status, rig.done.load(Ordering::Relaxed)), (Status::Compensated, 2));
    let again = rig.engine.retry("a", Change::default()).unwrap();
    assert_eq!((again.status, rig.done.load(Ordering::Relaxed)), (Status::Compensated, 4));

    // Whoever gives the command himself has to say where it goes on; what did not fail is not retried.
    let retry = |id: &str| Command::Retry { workflow_id: id.into(), reason: String::new(), back: None };
    let refused = |command| match rig.engine.drive(command) {
        Err(Error::Refused(refusal)) => refusal.message,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(retry("a")), "`a` was taken back: what goes on from its end would build on nothing");
    rig.engine.run(start_code("books", "1", "b", json!({"fails": false}))).unwrap();
    rig.engine.compensate("b", (None, None), "regret").unwrap();
    assert_eq!(refused(retry("b")), "`b` did not fail: it was ended, and taken back");
}

#[test]
fn a_running_workflow_is_forked_by_another_process_up_to_what_is_on_disk() {
    let Rig { engine, done, let_go, url, folder: _folder, .. } = rig(false);
    let engine = Arc::new(engine);
    let owner = {
        let engine = engine.clone();
        std::thread::spawn(move || engine.run(start_code("three", "1", "p", json!({"slow": true}))).unwrap())
    };
    let patience = Instant::now() + Duration::from_secs(30);
    while done.load(Ordering::Relaxed) < 2 {
        assert!(Instant::now() < patience, "the write is under way");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Another handle on the file: a client of the session that owns it, which carries the command out.
    let other = Engine::open(&url, programs()).unwrap();
    let begun = Instant::now();
    let forked = other.fork("p", Change::default()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "it waits for nothing of its parent's");
    assert_eq!(forked.outcome.status, Status::Waiting, "nobody knows yet how the write came out: it is held");
    let held = events_of(&**engine.store(), "p~1", 0).unwrap();
    assert!(held.iter().any(|event| matches!(event.fact, Fact::WriteHeld { .. })), "{held:?}");
    assert_eq!(done.load(Ordering::Relaxed), 2, "nothing was done for the fork");
    let_go.send(()).unwrap();
    assert_eq!(owner.join().unwrap().status, Status::Completed);
    assert_eq!(done.load(Ordering::Relaxed), 3);
    // What its parent did since is not its: its past ends where it was then.
    let later = other.fork("p", Change::default()).unwrap();
    assert_eq!(later.outcome.status, Status::Completed);
    assert_eq!(done.load(Ordering::Relaxed), 3);
}

/// Two forks at once have two names; a command that comes twice makes one.
#[test]
fn a_name_is_given_once() {
    let Rig { engine, folder: _folder, .. } = rig(false);
    engine.run(start_code("three", "1", "p", json!({}))).unwrap();
    let branching = foldback::engine::Branching {
        workflow_id: Arc::from("p"),
        at: Some(1),
        wish: Wish::default(),
        definition: None,
    };
    let prepared = foldback::engine::prepare_fork(&**engine.store(), &programs(), &branching).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let session = Session {
        store: engine.store().clone(),
        kinds: Registry::default(),
        programs: Arc::new(programs()),
        pool: runtime.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::new(AtomicBool::new(false)),
    };
    let commands: Vec<Command> = (0..2).map(|_| prepared.fork(Arc::from("p~1"))).collect();
    let ends = session.drive_each(commands).unwrap();
    let refused: Vec<&String> =
        ends.iter().filter_map(|end| end.as_ref().err()).map(|r| &r.message).collect();
    assert_eq!(refused.len(), 1, "{ends:?}");
    assert!(refused[0].contains("exists already"), "{refused:?}");
    for name in ["q~1", "p", "p~", "p~a b", "p~1~", "p~/"] {
        let end = session.drive_each(vec![prepared.fork(Arc::from(name))]).unwrap().remove(0);
        assert!(end.is_err(), "{name}: {end:?}");
    }
}
