//! The engine on a real SQLite file: sessions that own, hand over and take over; steps that fail,
//! hang and panic; what is durable and when.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::step::{Failure, RetryPolicy};
use foldback::core::{Effect, Event, Fact, Key, Outcome, Recovery, Status};
use foldback::engine::{
    Call, Command, Observer, Performing, Registry, Session, SessionError, StepKind, events_of, state_at,
};
use foldback::programs::{Definitions, start_code};
use foldback::store::{Filter, Store};
use serde_json::{Value, json};

/// A step kind made of a function.
struct Does<F>(F);

impl<F: Fn(Call) -> Performing + Send + Sync> StepKind for Does<F> {
    fn files(&self) -> usize {
        0
    }

    fn perform(&self, call: Call) -> Performing {
        (self.0)(call)
    }
}

fn done(output: Value) -> Performing {
    Box::pin(std::future::ready(Outcome::Completed { output, usage: None }))
}

fn panic_now() {
    panic!("in a step");
}

struct Rig {
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Rig { runtime, folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Arc<dyn Store> {
        foldback::store::open(&format!("sqlite:{}", self.folder.path().join("test.db").display())).unwrap()
    }

    fn session(&self, store: &Arc<dyn Store>, kinds: Registry, programs: Definitions) -> Session {
        Session {
            store: store.clone(),
            kinds,
            programs: Arc::new(programs),
            pool: self.runtime.handle().clone(),
            observer: None,
            actor: Arc::from("test"),
            stop: Arc::new(AtomicBool::new(false)),
        }
    }
}

fn echo() -> Registry {
    Registry::default().with("echo", Does(|call: Call| done(call.request)))
}

async fn three(mut ctx: Ctx, input: Value) -> Ended {
    let a = ctx.step("a", Work::new("echo", Effect::Read, json!({"in": input}))).await?;
    let b = ctx.step("b", Work::new("echo", Effect::Write, json!({"in": a}))).await?;
    ctx.step("c", Work::new("echo", Effect::Pure, json!({"in": b}))).await
}

fn programs() -> Definitions {
    Definitions::default().with_code("three", "1", Code::new(three))
}

fn start(id: &str, input: Value) -> Command {
    Command::Start(start_code("three", "1", id, input))
}

fn statuses(store: &dyn Store) -> Vec<(String, String)> {
    let rows = store.workflows(&Filter::default()).unwrap();
    let mut found: Vec<_> = rows.into_iter().map(|r| (r.workflow_id.to_string(), r.status)).collect();
    found.sort();
    found
}

#[test]
fn a_workflow_runs_to_its_end_and_its_log_folds_to_it() {
    let rig = Rig::new();
    let store = rig.store();
    let rests = rig.session(&store, echo(), programs()).drive(vec![start("w", json!(7))]).unwrap();
    assert_eq!(rests[0].status, Status::Completed);
    let state = state_at(&*store, "w", None).unwrap().unwrap();
    assert_eq!(state.status(), Status::Completed);
    assert_eq!(statuses(&*store), [("w".to_owned(), "completed".to_owned())]);
    let text = foldback::core::text::render(&events_of(&*store, "w", 0).unwrap());
    assert_eq!(text.lines().count(), 8, "two events a step:\n{text}");
}

#[test]
fn the_same_id_attaches_or_is_refused() {
    let rig = Rig::new();
    let store = rig.store();
    let session = rig.session(&store, echo(), programs());
    session.drive(vec![start("w", json!(7))]).unwrap();
    let before = events_of(&*store, "w", 0).unwrap();
    assert_eq!(session.drive(vec![start("w", json!(7))]).unwrap()[0].status, Status::Completed);
    for (command, wanted) in [
        (start("w", json!(8)), "with another input"),
        (Command::Start(start_code("three", "2", "w", json!(7))), "with another definition"),
        (start("a~1", json!(8)), "~"),
        (start("", json!(8)), "is empty"),
        (Command::Resume { workflow_id: Arc::from("x") }, "no workflow"),
    ] {
        match session.drive(vec![command]) {
            Err(SessionError::Refused(refusal)) => {
                assert!(refusal.message.contains(wanted), "{refusal:?}")
            }
            other => panic!("{wanted}: {other:?}"),
        }
    }
    assert_eq!(events_of(&*store, "w", 0).unwrap(), before, "a refused command leaves no trace");
}

#[test]
fn a_write_starts_when_its_start_is_on_disk_and_keeps_its_idempotency_key() {
    let rig = Rig::new();
    let store = rig.store();
    let seen: Arc<Mutex<Vec<(u32, String)>>> = Arc::default();
    let (keys, on_disk) = (seen.clone(), store.clone());
    let kinds = Registry::default().with(
        "echo",
        Does(move |call: Call| {
            // What another connection reads is what is durable.
            let log = events_of(&*on_disk, &call.workflow_id, 0).unwrap();
            let is_there = log.iter().any(|e| match &e.fact {
                Fact::StepAsked(asked) => asked.key == call.key && asked.starts && call.attempt == 1,
                Fact::AttemptStarted { key, attempt, .. } => *key == call.key && *attempt == call.attempt,
                _ => false,
            });
            assert!(is_there, "attempt {} of {} began before its start was on disk", call.attempt, call.key);
            keys.lock()
                .unwrap()
                .push((call.attempt, call.idempotency_key.clone().expect("a write has a key")));
            match call.attempt {
                1 => Box::pin(std::future::ready(Outcome::Unknown { reason: "cut".into() })),
                _ => done(json!(1)),
            }
        }),
    );
    async fn post(mut ctx: Ctx, _input: Value) -> Ended {
        ctx.step("p", Work::new("echo", Effect::Write, json!({})).recovery(Recovery::Retry)).await
    }
    let programs = Definitions::default().with_code("three", "1", Code::new(post));
    let rests = rig.session(&store, kinds, programs).drive(vec![start("w", json!(0))]).unwrap();
    assert_eq!(rests[0].status, Status::Completed);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().map(|(attempt, _)| *attempt).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(seen[0].1, seen[1].1);
}

#[test]
fn steps_that_hang_panic_or_are_unknown_end_as_failures() {
    let rig = Rig::new();
    let store = rig.store();
    let kinds =
        Registry::default().with("hangs", Does(|_| Box::pin(std::future::pending()) as Performing)).with(
            "panics",
            Does(|_| {
                Box::pin(async {
                    panic_now();
                    Outcome::Unknown { reason: String::new() }
                }) as Performing
            }),
        );
    async fn each_kind(mut ctx: Ctx, input: Value) -> Ended {
        let kind = input.as_str().unwrap_or_default().to_owned();
        ctx.step("s", Work::new(&kind, Effect::Read, json!({})).timeout_ms(50)).await
    }
    let session =
        rig.session(&store, kinds, Definitions::default().with_code("three", "1", Code::new(each_kind)));
    for (kind, wanted) in [("hangs", "Timeout"), ("panics", "broke off"), ("nosuch", "Unknown step kind")] {
        let rests = session.drive(vec![start(kind, json!(kind))]).unwrap();
        assert_eq!(rests[0].status, Status::Failed, "{kind}");
        let state = state_at(&*store, kind, None).unwrap().unwrap();
        assert!(format!("{:?}", state.end).contains(wanted), "{kind}: {:?}", state.end);
    }
}

#[test]
fn a_program_that_panics_or_asks_for_nonsense_parks_and_the_others_go_on() {
    async fn broken(mut ctx: Ctx, input: Value) -> Ended {
        let a = ctx.step("a", Work::new("echo", Effect::Read, json!({"in": input}))).await?;
        assert!(a["in"] != json!("panic"), "this program cannot count");
        if a["in"] == json!("twice") {
            ctx.choose("odd", "c", &["a", "b"], json!({}));
        }
        Ok(a)
    }
    let rig = Rig::new();
    let store = rig.store();
    let programs = Definitions::default().with_code("three", "1", Code::new(broken));
    let session = rig.session(&store, echo(), programs);
    let rests = session
        .drive(vec![start("p", json!("panic")), start("t", json!("twice")), start("w", json!(1))])
        .unwrap();
    let found: Vec<Status> = rests.iter().map(|r| r.status).collect();
    assert_eq!(found, [Status::Parked, Status::Parked, Status::Completed]);
    let events = events_of(&*store, "p", 0).unwrap();
    let Some(Fact::WorkflowParked { asked, .. }) = events.last().map(|e| &e.fact) else {
        panic!("{events:?}")
    };
    assert!(asked.contains("cannot count"), "{asked}");
}

#[test]
fn retries_wait_as_their_policy_says() {
    let rig = Rig::new();
    let store = rig.store();
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let kinds = Registry::default().with(
        "echo",
        Does(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => {
                let error = Failure::new("t", 503, "busy", "x");
                Box::pin(std::future::ready(Outcome::Failed { error, retry_after_ms: None, usage: None }))
            }
            _ => done(json!("ok")),
        }),
    );
    async fn retried(mut ctx: Ctx, _input: Value) -> Ended {
        let policy = RetryPolicy { attempts: 3, delay_ms: 40, max_delay_ms: 80, ..Default::default() };
        ctx.step("s", Work::new("echo", Effect::Read, json!({})).retry(policy)).await
    }
    let session =
        rig.session(&store, kinds, Definitions::default().with_code("three", "1", Code::new(retried)));
    let begun = Instant::now();
    assert_eq!(session.drive(vec![start("w", json!(0))]).unwrap()[0].status, Status::Completed);
    let waited: u64 = events_of(&*store, "w", 0)
        .unwrap()
        .iter()
        .filter_map(|e| match &e.fact {
            Fact::AttemptFailed(failed) => Some(failed.delay_ms),
            _ => None,
        })
        .sum();
    assert!((60..=120).contains(&waited) && begun.elapsed() >= Duration::from_millis(waited), "{waited}");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// Stops its session when a step of a workflow was asked for.
struct StopAt(&'static str, Arc<AtomicBool>);

impl Observer for StopAt {
    fn committed(&self, _workflow_id: &str, events: &[Event]) {
        if events.iter().any(|e| e.fact.key().is_some_and(|k| k.as_str() == self.0)) {
            self.1.store(true, Ordering::SeqCst);
        }
    }
    fn progress(&self, _workflow_id: &str, _key: &Key, _text: &str) {}
}

#[test]
fn a_stopped_session_lets_its_steps_report_and_the_next_goes_on() {
    let rig = Rig::new();
    let store = rig.store();
    let performed: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = performed.clone();
    let kinds = Registry::default().with(
        "echo",
        Does(move |call: Call| {
            let log = log.clone();
            Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(60)).await;
                log.lock().unwrap().push(call.key.to_string());
                Outcome::Completed { output: json!(1), usage: None }
            }) as Performing
        }),
    );
    let mut session = rig.session(&store, kinds, programs());
    session.observer = Some(Arc::new(StopAt("b", session.stop.clone())));
    let rests = session.drive(vec![start("w", json!(1))]).unwrap();
    assert_eq!(rests[0].status, Status::Running);
    session.observer = None;
    session.stop.store(false, Ordering::SeqCst);
    let rests = session.drive(vec![Command::Resume { workflow_id: Arc::from("w") }]).unwrap();
    assert_eq!(rests[0].status, Status::Completed);
    assert_eq!(*performed.lock().unwrap(), ["a", "b", "c"], "no step ran twice");
}

#[test]
fn a_second_session_hands_over_follows_and_takes_over() {
    let rig = Rig::new();
    let (first_store, second_store) = (rig.store(), rig.store());
    let slow = |millis: u64| {
        Registry::default().with(
            "echo",
            Does(move |call: Call| {
                Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    Outcome::Completed { output: call.request, usage: None }
                }) as Performing
            }),
        )
    };
    let first = rig.session(&first_store, slow(40), programs());
    // Longer than the first session's own work: it must be finished by the second.
    async fn long(mut ctx: Ctx, _input: Value) -> Ended {
        for _ in 0..20 {
            ctx.step("n", Work::new("echo", Effect::Read, json!({}))).await?;
        }
        Ok(json!("long"))
    }
    let with_long = || programs().with_code("long", "1", Code::new(long));
    let first = Session { programs: Arc::new(with_long()), ..first };
    let second = rig.session(&second_store, slow(10), with_long());
    let ends = std::thread::scope(|scope| {
        let own = scope.spawn(|| first.drive(vec![start("short", json!(1))]).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        let handed = scope
            .spawn(|| second.drive(vec![Command::Start(start_code("long", "1", "long", json!(0)))]).unwrap());
        (own.join().unwrap(), handed.join().unwrap())
    });
    assert_eq!((ends.0[0].status, ends.1[0].status), (Status::Completed, Status::Completed));
    let epochs = second_store.acquire(0, "test").unwrap().expect("free").epoch;
    assert_eq!(epochs, 3, "the second took over once");
    let events = events_of(&*second_store, "long", 0).unwrap();
    let completed = events.iter().filter(|e| matches!(e.fact, Fact::StepCompleted(_))).count();
    assert_eq!(completed, 20);
}

#[test]
fn an_unknown_outcome_stops_until_a_person_resolves_it() {
    let rig = Rig::new();
    let store = rig.store();
    let kinds = Registry::default().with(
        "echo",
        Does(|call: Call| match (call.effect, call.attempt) {
            (Effect::Write, 1) => Box::pin(std::future::ready(Outcome::Unknown { reason: "cut".into() })),
            _ => done(json!(call.attempt)),
        }),
    );
    let session = rig.session(&store, kinds, programs());
    for (id, landed, wanted) in [("y", Some(json!("it did")), json!("it did")), ("n", None, json!(2))] {
        assert_eq!(session.drive(vec![start(id, json!(1))]).unwrap()[0].status, Status::Unknown);
        assert!(statuses(&*store).contains(&(id.to_owned(), "unknown".to_owned())));
        let wrong = Command::Resolve { workflow_id: Arc::from(id), key: Key::from("a"), landed: None };
        assert!(matches!(session.drive(vec![wrong]), Err(SessionError::Refused(_))));
        let resolve = Command::Resolve { workflow_id: Arc::from(id), key: Key::from("b"), landed };
        assert_eq!(session.drive(vec![resolve]).unwrap()[0].status, Status::Completed);
        let events = events_of(&*store, id, 0).unwrap();
        let asked = events.iter().find_map(|e| match &e.fact {
            Fact::StepAsked(asked) if asked.key.as_str() == "c" => Some(asked.request.to_json()),
            _ => None,
        });
        assert_eq!(asked.unwrap()["in"], wanted);
    }
}

/// The code handled one failure and passed on another: only that one is asked for again.
#[test]
fn code_that_failed_goes_on_from_the_step_that_its_failure_names() {
    async fn careful(mut ctx: Ctx, input: Value) -> Ended {
        let work = |name: &str| Work::new("echo", Effect::Write, json!({"name": name, "in": input}));
        ctx.step("a", work("a")).await?;
        let handled = ctx.step("b", work("b")).await.is_err();
        ctx.step("c", work("c")).await?;
        Ok(json!({ "handled": handled }))
    }
    let rig = Rig::new();
    let store = rig.store();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (seen, is_mended) = (asked.clone(), Arc::new(AtomicBool::new(false)));
    let mended = is_mended.clone();
    let kinds = Registry::default().with(
        "echo",
        Does(move |call: Call| {
            let name = call.request["name"].as_str().unwrap_or_default().to_owned();
            seen.lock().unwrap().push(name.clone());
            match name == "a" || mended.load(Ordering::SeqCst) {
                true => done(json!(name)),
                false => {
                    let error = Failure::new("down", 500, "Down", "the server is down");
                    Box::pin(std::future::ready(Outcome::Failed { error, retry_after_ms: None, usage: None }))
                }
            }
        }),
    );
    let programs = Definitions::default().with_code("careful", "1", Code::new(careful));
    let session = rig.session(&store, kinds, programs);
    let start = Command::Start(start_code("careful", "1", "w", json!(1)));
    assert_eq!(session.drive(vec![start]).unwrap()[0].status, Status::Failed);
    is_mended.store(true, Ordering::SeqCst);
    let retry = || Command::Retry { workflow_id: Arc::from("w"), reason: "mended".into(), back: None };
    assert_eq!(session.drive(vec![retry()]).unwrap()[0].status, Status::Completed);
    assert_eq!(*asked.lock().unwrap(), ["a", "b", "c", "c"]);
    let state = state_at(&*store, "w", None).unwrap().unwrap();
    let Some(foldback::core::state::End::Completed { output }) = &state.end else { panic!("it completed") };
    assert_eq!(*output.get(), json!({"handled": true}), "what was recorded of `b` stands");
    assert!(matches!(session.drive(vec![retry()]), Err(SessionError::Refused(_))));
    let program = Code::new(careful);
    let verified = foldback::engine::verify(&*store, "w", &program).unwrap();
    assert_eq!(verified.parting, None);
}

#[test]
fn a_thousand_workflows_at_once() {
    let rig = Rig::new();
    let store = rig.store();
    let commands = (0..1_000).map(|n| start(&format!("w{n}"), json!(n))).collect();
    let rests = rig.session(&store, echo(), programs()).drive(commands).unwrap();
    assert!(rests.iter().all(|r| r.status == Status::Completed));
    let feed: Vec<u64> = store.feed(0, 0, 100_000).unwrap().iter().map(|r| r.position).collect();
    assert_eq!(feed, (1..=8_000).collect::<Vec<u64>>());
}

#[test]
fn a_command_that_was_answered_by_an_owner_that_is_gone_is_gone_on_with() {
    let rig = Rig::new();
    let store = rig.store();
    // The owner of the moment takes the command, makes it durable with its answer, and is gone
    // before the client looks: played by hand, so that the gap is sure to be there.
    let owner = rig.store().acquire(0, "owner").unwrap().expect("free");
    let client_store = rig.store();
    let client = rig.session(&client_store, echo(), programs());
    let rests = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.drive(vec![start("w", json!(7))]).unwrap());
        let command = loop {
            if let Some(command) = store.commands(0).unwrap().pop() {
                break command;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let Command::Start(order) = serde_json::from_value(command.body).unwrap() else { panic!("a start") };
        let (_, events) = first_batch(&Code::new(three), &order, 0);
        let answer = json!({"Ok": {"status": "running", "attached": false}});
        write(&*store, owner.epoch, &order, &events, Some((command.id, answer)));
        drop(owner);
        waiting.join().unwrap()
    });
    assert_eq!(rests[0].status, Status::Completed);
}

#[test]
fn a_turn_of_many_facts_is_cut_and_goes_on() {
    async fn counts(mut ctx: Ctx, input: Value) -> Ended {
        let mut sum = 0;
        for n in 0..input.as_u64().unwrap_or(0) {
            sum += ctx.compute("n", || json!(n)).as_u64().unwrap_or(0);
        }
        Ok(json!(sum))
    }
    let rig = Rig::new();
    let store = rig.store();
    let session =
        rig.session(&store, echo(), Definitions::default().with_code("three", "1", Code::new(counts)));
    // Rust code asks for all of a turn at once; what is judged before the cut is one batch.
    let rests = session.drive(vec![start("many", json!(20_000)), start("few", json!(3))]).unwrap();
    assert!(rests.iter().all(|rest| rest.status == Status::Completed));
    let state = state_at(&*store, "many", None).unwrap().unwrap();
    assert_eq!(state.version, 20_002);
}

#[test]
fn no_more_steps_are_in_flight_than_there_is_room_for() {
    let (flying, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (now, peak) = (flying.clone(), most.clone());
    let kinds = Registry::default().with(
        "echo",
        Does(move |_: Call| {
            let (now, peak) = (now.clone(), peak.clone());
            Box::pin(async move {
                let count = now.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(count, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Outcome::Completed { output: json!(1), usage: None }
            }) as Performing
        }),
    );
    async fn wide(mut ctx: Ctx, _input: Value) -> Ended {
        ctx.each("w", (0..300).collect(), async |mut ctx, n: u32| {
            ctx.step("s", Work::new("echo", Effect::Read, json!({ "n": n }))).await
        })
        .await
        .map(|all| json!(all.as_array().map_or(0, Vec::len)))
    }
    let rig = Rig::new();
    let store = rig.store();
    let session = rig.session(&store, kinds, Definitions::default().with_code("three", "1", Code::new(wide)));
    // 6,000 steps of twenty workflows: those of one alone would take a minute to fold.
    let starts = (0..20).map(|n| start(&format!("w{n}"), json!(0))).collect();
    let ended = session.drive(starts).unwrap();
    assert!(ended.iter().all(|rest| rest.status == Status::Completed), "{ended:?}");
    let most = most.load(Ordering::SeqCst) as usize;
    assert!((1_000..=foldback::core::limits::IN_FLIGHT_MAX).contains(&most), "{most} at once");
}

/// What an owner writes that is not the engine: events as the core makes them, in one commit.
fn write(
    store: &dyn Store,
    epoch: u64,
    order: &foldback::engine::Start,
    events: &[Event],
    answer: Option<(String, Value)>,
) {
    let events = events.iter().map(foldback::engine::new_event);
    let begins = foldback::store::NewWorkflow {
        definition: Some(order.definition),
        name: order.name.clone(),
        ..Default::default()
    };
    let append = foldback::store::Append {
        workflow_id: order.workflow_id.clone(),
        expected: foldback::store::Expected::NoStream,
        events: events.collect(),
        begins: Some(begins),
        status: None,
    };
    let commit = foldback::store::Commit {
        epoch,
        appends: vec![append],
        definitions: vec![order.stored_definition()],
        consumed: answer.into_iter().collect(),
        ..Default::default()
    };
    let (done, told) = std::sync::mpsc::channel();
    store.commit(commit, Box::new(move |result| drop(done.send(result))));
    told.recv().unwrap().unwrap();
}

/// A workflow's first batch, as an owner with this much room makes it.
fn first_batch(
    program: &dyn foldback::core::Program,
    order: &foldback::engine::Start,
    room: usize,
) -> (foldback::core::WorkflowState, Vec<Event>) {
    let mut state = foldback::core::WorkflowState::empty(&order.workflow_id);
    let mut run = program.start(&state);
    let stimulus = foldback::core::Stimulus::Start {
        definition: order.definition,
        name: order.name.clone(),
        file: None,
        input: order.input.clone(),
        lineage: None,
    };
    let timing = foldback::core::Timing { now: 1, actor: Arc::from("owner"), room };
    let mut ids = || foldback::core::EventId([9; 16]);
    let batch = foldback::core::advance(&mut state, &mut *run, stimulus, &timing, &mut ids).unwrap();
    (state, batch.events)
}

#[test]
fn a_write_that_was_under_way_when_its_workflow_ended_and_its_process_died_becomes_unknown() {
    struct Diverges;
    impl foldback::core::Run for Diverges {
        fn turn(&mut self, _state: &foldback::core::WorkflowState) -> foldback::core::Turn {
            let (recorded, asked) = ("x".to_owned(), "y".to_owned());
            foldback::core::Turn::Diverged(foldback::core::Divergence { key: Key::root(), recorded, asked })
        }
    }
    async fn posts(mut ctx: Ctx, _input: Value) -> Ended {
        ctx.step("p", Work::new("echo", Effect::Write, json!({}))).await
    }
    let rig = Rig::new();
    let store = rig.store();
    let Command::Start(order) = start("w", json!(0)) else { unreachable!("a start") };
    let (mut state, mut events) = first_batch(&Code::new(posts), &order, 1);
    let timing = foldback::core::Timing { now: 2, actor: Arc::from("owner"), room: 1 };
    let mut ids = || foldback::core::EventId([8; 16]);
    let go_on = foldback::core::Stimulus::Continue;
    events
        .extend(foldback::core::advance(&mut state, &mut Diverges, go_on, &timing, &mut ids).unwrap().events);
    let owner = store.acquire(0, "owner").unwrap().expect("free");
    write(&*store, owner.epoch, &order, &events, None);
    drop(owner);
    let programs = Definitions::default().with_code("three", "1", Code::new(posts));
    let session = rig.session(&store, echo(), programs);
    let rests = session.drive(vec![Command::Resume { workflow_id: Arc::from("w") }]).unwrap();
    assert_eq!(rests[0].status, Status::Parked);
    let state = state_at(&*store, "w", None).unwrap().unwrap();
    assert_eq!(state.step(&Key::from("p")).map(|s| s.status), Some(foldback::core::StepStatus::Unknown));
}
