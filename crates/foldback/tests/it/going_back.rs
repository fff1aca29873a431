//! Going back to before what was taken back, on the real engine: what was done once and undone is another
//! effect the next time, what was being taken back is so anew, and no word of a person is lost.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foldback::Engine;
use foldback::code::{Code, Ctx, Done, Ended, Work};
use foldback::core::step::error_type;
use foldback::core::{Effect, Event, Fact, Failure, Outcome, Status};
use foldback::engine::{Call, Command, Performing, Registry, StepKind, events_of};
use foldback::library::{Change, Outcome as Rest};
use foldback::programs::{Definitions, start_code, start_document};
use serde_json::{Value, json};

/// Answers all but the steps of these names, which fail; keeps each idempotency key.
#[derive(Clone)]
struct Server {
    keys: Arc<Mutex<Vec<String>>>,
    fails: Arc<Mutex<Vec<&'static str>>>,
}

impl StepKind for Server {
    fn perform(&self, call: Call) -> Performing {
        self.keys.lock().unwrap().extend(call.idempotency_key.clone());
        let fails = self.fails.lock().unwrap().contains(&call.key.name());
        Box::pin(async move {
            if fails {
                let error = Failure::new(error_type::COMMUNICATION, 500, "It failed", "as told");
                return Outcome::Failed { error, retry_after_ms: None, usage: None };
            }
            Outcome::Completed { output: json!({"id": call.idempotency_key}), usage: None }
        })
    }
}

struct Rig {
    engine: Arc<Engine>,
    server: Server,
}

/// Runs a document's tasks, beside what its `metadata.foldback` says, as the workflow `w`.
fn ran(tasks: Value, ours: Value, fails: &[&'static str]) -> (Rig, Rest) {
    let document = json!({
        "document": {"dsl": "1.0.3", "namespace": "test", "name": "t", "version": "1.0.0", "metadata": {"foldback": ours}},
        "do": tasks,
    });
    let loaded = foldback::ows::load(&document.to_string(), &|_| Err("no files".into())).expect("it loads");
    let server = Server { keys: Arc::default(), fails: Arc::new(Mutex::new(fails.to_vec())) };
    let store = foldback::store::open("memory:").unwrap();
    let kinds = Registry::default().with("http", server.clone());
    let engine = Arc::new(Engine::with(store, kinds, Definitions::default()).unwrap());
    let rest = engine.run(start_document(&loaded, "w", json!({}))).unwrap();
    (Rig { engine, server }, rest)
}

impl Rig {
    fn events(&self) -> Vec<Event> {
        events_of(&**self.engine.store(), "w", 0).unwrap()
    }

    /// The newest event that is so.
    fn last(&self, is: impl Fn(&Fact) -> bool) -> u64 {
        self.events().iter().rev().find(|event| is(&event.fact)).expect("there is one").version
    }

    fn fail(&self, names: &[&'static str]) {
        *self.server.fails.lock().unwrap() = names.to_vec();
    }

    /// The keys under which it wrote since somebody asked: none twice.
    fn sent(&self) -> BTreeSet<String> {
        let sent: Vec<String> = self.server.keys.lock().unwrap().drain(..).collect();
        let keys: BTreeSet<String> = sent.iter().cloned().collect();
        assert_eq!(keys.len(), sent.len(), "{sent:?}");
        keys
    }

    /// Lets it go back. One that comes to no rest fails the test, and does not hold it up.
    fn goes_back(&self, change: Change) -> Rest {
        let (engine, (rested, rest)) = (self.engine.clone(), channel());
        std::thread::spawn(move || drop(rested.send(engine.retry("w", change))));
        rest.recv_timeout(Duration::from_secs(30)).expect("it comes to rest").unwrap()
    }
}

fn to(version: u64) -> Change {
    Change { at: Some(version), ..Change::default() }
}

fn write() -> Value {
    let undo = json!([{"back": {"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/undo",
        "body": {"id": "${ $write.output.id }"}}}}]);
    json!({"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/do"},
        "metadata": {"foldback": {"undo": undo}}})
}

fn bad() -> Value {
    json!({"call": "http", "with": {"method": "GET", "endpoint": "http://x.test/bad"}})
}

/// Also where it goes back to where that was under way the first time, and is not asked for anew.
#[test]
fn what_was_taken_back_is_done_under_another_key() {
    let both = json!({"fork": {"branches": [{"a": write()}, {"b": write()}]}});
    let (rig, rest) = ran(json!([{"both": both}, {"bad": bad()}]), json!({}), &["bad"]);
    assert_eq!(rest.status, Status::Compensated);
    let first = rig.sent();
    rig.fail(&["a", "b"]);
    assert_eq!(rig.goes_back(Change::default()).status, Status::Failed);
    let second = rig.sent();
    rig.fail(&[]);
    let under_way = rig.events().iter().take_while(|e| !matches!(e.fact, Fact::StepCompleted(_))).count();
    assert_eq!(rig.goes_back(to(under_way as u64)).status, Status::Completed);
    assert_eq!((first.len(), second.len()), (4, 2), "two writes and two undos, and the writes again");
    assert!(second.is_disjoint(&first), "{first:?} {second:?}");
    assert_eq!(rig.sent(), second, "what failed is sent again");
}

/// What a part of an undo did is not done again, however often the workflow is reopened.
#[test]
fn an_undo_that_was_left_half_done_goes_on_under_its_keys() {
    let post = |name: &str| json!({name: {"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/undo"}}});
    let mut hotel = write();
    hotel["metadata"]["foldback"]["undo"] = json!([post("refund"), post("tell")]);
    let full = json!({"raise": {"error": {"type": "runtime", "status": 500}}});
    let trip = json!({"try": [{"hotel": hotel}, {"full": full}], "catch": {"do": [{"sorry": {"set": {"ok": true}}}]},
        "metadata": {"foldback": {"compensate": true}}});
    let room = json!({"try": [{"room": write()}, {"none": full}], "catch": {"do": [{"sorry": {"set": {"ok": true}}}]},
        "metadata": {"foldback": {"compensate": true}}});
    let (rig, rest) = ran(json!([{"other": room}, {"trip": trip}]), json!({"on_failure": "hold"}), &["tell"]);
    assert_eq!(rest.status, Status::Failed);
    let first = rig.sent();
    assert_eq!(first.len(), 5, "a room and its undo, a hotel, its refund, and one that failed");
    rig.fail(&[]);
    assert_eq!(rig.goes_back(to(1)).status, Status::Completed);
    let (sent, again) = (rig.sent(), 3);
    assert_eq!(sent.len(), again, "the room, its undo, and the rest of the hotel's, which is refunded once");
    assert_eq!(sent.intersection(&first).count(), 1, "what had failed");
}

/// Whoever hears events drops what has come already, by its id.
#[test]
fn an_event_that_was_taken_back_is_told_as_another() {
    let told = json!({"emit": {"event": {"with": {"type": "TOLD"}}}});
    let look = json!({"call": "http", "with": {"method": "GET", "endpoint": "http://x.test/look"}});
    let ours = json!({"on_compensate": {"TOLD": [{"look": look}]}});
    let (rig, rest) = ran(json!([{"told": told}, {"bad": bad()}]), ours, &["bad"]);
    assert_eq!(rest.status, Status::Compensated);
    rig.goes_back(Change::default());
    let ids: BTreeSet<String> = rig
        .events()
        .iter()
        .filter_map(|event| match &event.fact {
            Fact::Recorded { data, .. } => Some(data.get()["id"].to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
}

async fn books(mut ctx: Ctx, _input: Value) -> Ended {
    ctx.step("book", Work::new("http", Effect::Write, json!({})).undo("cancel", json!({}))).await?;
    ctx.step("bad", Work::new("http", Effect::Read, json!({}))).await
}

async fn cancels(mut ctx: Ctx, _done: Done) -> Ended {
    ctx.step("look", Work::new("http", Effect::Read, json!({}))).await?;
    let done = ctx.step("cancel", Work::new("http", Effect::Write, json!({}))).await;
    // A failure of its own names no step.
    done.map_err(|error| Failure::new("not cancelled", 500, "It stays booked", error.title))
}

/// In Rust as in a document: what failed is done anew, what was done is not.
#[test]
fn who_is_stuck_goes_on_once_the_world_is_mended() {
    let server = Server { keys: Arc::default(), fails: Arc::new(Mutex::new(vec!["bad", "cancel"])) };
    let store = foldback::store::open("memory:").unwrap();
    let kinds = Registry::default().with("http", server.clone());
    let programs = Definitions::default().with_code("books", "1", Code::new(books).undo("cancel", cancels));
    let engine = Engine::with(store, kinds, programs).unwrap();
    assert_eq!(engine.run(start_code("books", "1", "w", json!({}))).unwrap().status, Status::Stuck);
    let again = || engine.compensate("w", (None, None), "again").unwrap().status;
    assert_eq!((again(), server.keys.lock().unwrap().len()), (Status::Stuck, 3));
    server.fails.lock().unwrap().clear();
    assert_eq!((again(), server.keys.lock().unwrap().len()), (Status::Compensated, 4));
    let looks = events_of(&**engine.store(), "w", 0).unwrap();
    let looks = looks.iter().filter(|e| matches!(&e.fact, Fact::StepAsked(e) if e.key.name() == "look"));
    assert_eq!(looks.count(), 1);
}

/// What cannot be taken back by the program may be by a person: who says so has the rest taken back.
#[test]
fn what_was_taken_back_by_hand_is_taken_back() {
    let ours = json!({});
    let (rig, rest) =
        ran(json!([{"first": write()}, {"then": write()}, {"bad": bad()}]), ours, &["bad", "back"]);
    assert_eq!(rest.status, Status::Stuck);
    let resolve = |key: &str, landed| {
        let command = Command::Resolve { workflow_id: "w".into(), key: key.into(), landed };
        rig.engine.drive(command).map(|rest| rest.status).map_err(|error| error.to_string())
    };
    for (key, landed, why) in [
        ("first!undo", Some(json!(null)), "waits for no outcome"),
        ("none!undo", Some(json!(null)), "waits for no outcome"),
        ("then", Some(json!(null)), "is not unknown"),
        ("then!undo", None, "could not be taken back"),
    ] {
        let told = resolve(key, landed).expect_err(key);
        assert!(told.contains(why), "{key}: {told}");
    }
    rig.fail(&[]);
    let sent = rig.sent().len();
    assert_eq!(resolve("then!undo", Some(json!(null))), Ok(Status::Compensated));
    assert_eq!((sent, rig.sent().len()), (3, 1), "what was done by hand is not done again");
    assert!(rig.engine.verify("w").unwrap().parting.is_none());
    assert_eq!(
        resolve("then!undo", Some(json!(null))).map_err(|why| why.contains("waits for no outcome")),
        Err(true)
    );
}

/// The limits of an undo that is stuck do not run, and do not stand in a person's way.
#[test]
fn a_stuck_undo_has_no_time_that_runs_out() {
    let mut first = write();
    let slow = json!({"do": [{"back": {"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/undo"}}}],
        "timeout": {"after": {"milliseconds": 300}}});
    first["metadata"]["foldback"]["undo"] = json!([{"slow": slow}]);
    for by_hand in [false, true] {
        let fails = ["bad", "back"];
        let (rig, rest) = ran(json!([{"first": first}, {"bad": bad()}]), json!({}), &fails);
        assert_eq!(rest.status, Status::Stuck);
        std::thread::sleep(Duration::from_millis(400));
        rig.fail(&[]);
        let rest = match by_hand {
            true => {
                let (key, landed) = ("first!undo".into(), Some(json!(null)));
                rig.engine.drive(Command::Resolve { workflow_id: "w".into(), key, landed })
            }
            false => rig.engine.compensate("w", (None, None), "again"),
        };
        assert_eq!(rest.unwrap().status, Status::Compensated, "by hand: {by_hand}");
    }
}

/// What a block took back, and its handler answered, is over: nobody has to go back before that.
#[test]
fn what_a_block_took_back_is_no_bound_for_going_back() {
    let full = json!({"raise": {"error": {"type": "runtime", "status": 500}}});
    let trip = json!({"try": [{"hotel": write()}, {"full": full}], "catch": {"do": [{"sorry": {"set": {"ok": true}}}]},
        "metadata": {"foldback": {"compensate": true}}});
    let (rig, rest) = ran(json!([{"trip": trip}, {"bad": bad()}]), json!({"on_failure": "hold"}), &["bad"]);
    assert_eq!((rest.status, rig.sent().len()), (Status::Failed, 2));
    rig.fail(&[]);
    let before = rig.last(|fact| matches!(fact, Fact::StepAsked(e) if e.key.as_str() == "bad")) - 1;
    assert_eq!(rig.goes_back(to(before)).status, Status::Completed);
    assert_eq!(rig.sent().len(), 0);
}

#[test]
fn a_block_that_was_being_taken_back_is_so_anew() {
    let full = json!({"raise": {"error": {"type": "runtime", "status": 500}}});
    let look = json!({"call": "http", "with": {"method": "GET", "endpoint": "http://x.test/look"}});
    let trip = json!({"try": [{"look": look}, {"full": full}], "catch": {"do": [{"bad": bad()}]},
        "metadata": {"foldback": {"compensate": true}}});
    let (rig, rest) = ran(json!([{"trip": trip}]), json!({}), &["bad"]);
    assert_eq!(rest.status, Status::Failed);
    let begins = rig.last(|fact| matches!(fact, Fact::CompensationStarted { .. }));
    assert_eq!(rig.goes_back(to(begins)).status, Status::Failed);
    rig.fail(&[]);
    assert_eq!(rig.goes_back(to(begins)).status, Status::Completed);
}

#[test]
fn what_was_said_and_not_taken_is_heard_behind_it() {
    let listen = |name: &str| json!({"listen": {"to": {"one": {"with": {"type": name}}}}});
    let (rig, rest) =
        ran(json!([{"ask": listen("begin")}, {"bad": bad()}, {"hear": listen("go")}]), json!({}), &["bad"]);
    assert_eq!(rest.status, Status::Waiting);
    rig.engine.signal("w", "go", json!("early")).unwrap();
    assert_eq!(rig.engine.signal("w", "begin", json!(1)).unwrap().status, Status::Failed);
    rig.fail(&[]);
    assert_eq!(rig.goes_back(to(1)).status, Status::Waiting, "what was taken there is asked for anew");
    let rest = rig.engine.signal("w", "begin", json!(2)).unwrap();
    assert_eq!((rest.status, rest.output.as_deref()), (Status::Completed, Some(&json!(["early"]))));
}
