//! Events of one workflow that another listens for: handed to each that listened when they were
//! committed, once, in order, and whatever dies in between.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use foldback::code::{Code, Ctx, Ended};
use foldback::core::{Event, EventId, Fact, Failure, Slot, Status, WorkflowState};
use foldback::engine::command::Answer;
use foldback::engine::engine::{Engine as Loop, Message, ReplyTo, Surroundings, from_inbox};
use foldback::engine::machine::ThisMachine;
use foldback::engine::{Command, Registry, Session, Start, events_of, state_at};
use foldback::exchange::{export, import};
use foldback::library::{Change, Engine, Signal};
use foldback::programs::{Definitions, start_code, start_document};
use foldback::store::{Append, Commit, Expected, InboxCommand, NewEvent, Ownership, Store};
use serde_json::{Value, json};

fn document(id: &str, tasks: &str) -> Start {
    let head = "document: { dsl: '1.0.3', namespace: test, name: NAME, version: '0.1.0' }\n";
    let source = format!("{}{tasks}", head.replace("NAME", id.trim_end_matches(char::is_numeric)));
    let loaded = foldback::ows::load(&source, &|path| Err(format!("no file {path}")));
    start_document(&loaded.unwrap_or_else(|problems| panic!("{problems:?}")), id, json!({}))
}

/// One that emits a `word` with this data, and another one behind it for each further one.
fn speaker(id: &str, words: &[Value]) -> Start {
    let emit = |(i, word): (usize, &Value)| {
        format!("  - say{i}: {{ emit: {{ event: {{ with: {{ type: word, data: {word} }} }} }} }}\n")
    };
    document(id, &format!("do:\n{}", words.iter().enumerate().map(emit).collect::<String>()))
}

const LISTEN: &str = "{ listen: { to: { one: { with: { type: word } } } } }";

fn listener(id: &str) -> Start {
    document(id, &format!("do:\n  - hear: {LISTEN}\n"))
}

/// A store in a folder, and a thread pool.
struct Rig {
    runtime: tokio::runtime::Runtime,
    folder: tempfile::TempDir,
}

impl Rig {
    fn new() -> Rig {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Rig { runtime: runtime.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    fn store(&self) -> Arc<dyn Store> {
        foldback::store::open(&format!("sqlite:{}", self.folder.path().join("test.db").display())).unwrap()
    }

    /// A process that says these commands and stays until their workflows rest.
    fn drive(&self, commands: Vec<Command>) -> Vec<Status> {
        self.drive_with(Definitions::default(), commands)
    }

    fn drive_with(&self, programs: Definitions, commands: Vec<Command>) -> Vec<Status> {
        let session = Session {
            store: self.store(),
            kinds: Registry::default(),
            programs: Arc::new(programs),
            pool: self.runtime.handle().clone(),
            observer: None,
            actor: Arc::from("test"),
            stop: Arc::new(AtomicBool::new(false)),
        };
        session.drive(commands).unwrap().into_iter().map(|rest| rest.status).collect()
    }

    fn run(&self, start: Start) -> Status {
        self.drive(vec![Command::Start(start)])[0]
    }

    fn log(&self, id: &str) -> Vec<Event> {
        events_of(&*self.store(), id, 0).unwrap()
    }

    /// The data of each signal that came to a workflow, and from whom.
    fn came(&self, id: &str) -> Vec<(Value, String)> {
        let signals = self.log(id).into_iter().filter_map(|event| match event.fact {
            Fact::SignalReceived(signal) => {
                Some((signal.data.get()["data"].clone(), event.actor.to_string()))
            }
            _ => None,
        });
        signals.collect()
    }

    fn status(&self, id: &str) -> Status {
        state_at(&*self.store(), id, None).unwrap().unwrap().status()
    }

    fn output(&self, id: &str) -> Value {
        self.log(id)
            .into_iter()
            .find_map(|event| match event.fact {
                Fact::WorkflowCompleted { output } => Some((*output.get()).clone()),
                _ => None,
            })
            .unwrap_or_else(|| panic!("`{id}` is {:?}", self.status(id)))
    }

    fn inbox(&self) -> Vec<String> {
        self.store().commands(0).unwrap().into_iter().map(|command| command.id).collect()
    }

    /// A process whose loop a test drives by its rounds: it looks into its inbox when it is told to.
    fn owner(&self) -> Owner {
        let store = self.store();
        let Ownership { epoch, guard } = store.acquire(0, "test").unwrap().expect("nobody has it");
        let around = Surroundings {
            store: store.clone(),
            kinds: Registry::default(),
            programs: Arc::new(Definitions::default()),
            machine: Arc::new(ThisMachine::new(self.runtime.handle().clone())),
            observer: None,
        };
        let (engine, to) = Loop::new(around, 0, Ownership { epoch, guard });
        Owner { store, epoch, engine, to }
    }
}

/// A process that dies when it is dropped: what it had not committed is gone.
struct Owner {
    store: Arc<dyn Store>,
    epoch: u64,
    engine: Loop,
    to: Sender<Message>,
}

impl Owner {
    /// Says a command, and goes on until all that follows of it is on disk.
    fn say(&mut self, command: Command) -> Answer {
        let (reply, answer): (_, Receiver<Answer>) = channel();
        let (actor, from) = (Arc::from("test"), ReplyTo::Caller(reply));
        self.to.send(Message::Command { command, actor, from, watch: None }).unwrap();
        self.settle();
        answer.recv().unwrap()
    }

    fn settle(&mut self) {
        let (tell, told) = channel();
        self.to.send(Message::Settle(tell)).unwrap();
        let begun = Instant::now();
        while told.try_recv().is_err() {
            assert!(self.engine.round().is_none() && begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn look_into_the_inbox(&mut self) {
        let rows = self.store.commands(0).unwrap();
        from_inbox(rows, &self.to, &mut |row, reason| panic!("{row:?} cannot be read: {reason}"));
        self.settle();
    }
}

#[test]
fn a_run_hands_its_event_to_one_that_waits_elsewhere() {
    let rig = Rig::new();
    assert_eq!(rig.run(listener("b")), Status::Waiting);
    assert_eq!(rig.store().listeners(0, "word").unwrap(), ["b".into()]);
    assert_eq!(rig.run(speaker("a", &[json!({"n": 1})])), Status::Completed);
    assert_eq!(rig.output("b"), json!([{"n": 1}]));
    assert_eq!(rig.came("b"), [(json!({"n": 1}), "workflow:a".to_owned())]);
    let Some(Fact::SignalReceived(signal)) =
        rig.log("b").into_iter().map(|e| e.fact).find(|fact| matches!(fact, Fact::SignalReceived(_)))
    else {
        panic!("a signal came")
    };
    assert_eq!(signal.source.as_deref(), Some("a"));
    assert_eq!(
        (signal.data.get()["specversion"].clone(), signal.data.get()["type"].clone()),
        ("1.0".into(), "word".into())
    );
    assert_eq!((rig.inbox(), rig.store().listens("b").unwrap()), (vec![], vec![]));
}

#[test]
fn in_one_engine_with_one_that_has_more_to_do() {
    let rig = Rig::new();
    let busy = document(
        "b",
        &format!(
            "do:\n  - both: {{ fork: {{ branches: [ {{ hear: {LISTEN} }}, {{ rest: {{ wait: {{ milliseconds: 400 }} }} }} ] }} }}\n"
        ),
    );
    let later = document(
        "a",
        "do:\n  - rest: { wait: { milliseconds: 60 } }\n  - say: { emit: { event: { with: { type: word, data: 7 } } } }\n",
    );
    let ends = rig.drive(vec![Command::Start(busy), Command::Start(later)]);
    assert_eq!(ends, [Status::Completed, Status::Completed]);
    assert_eq!(rig.came("b"), [(json!(7), "workflow:a".to_owned())]);
}

#[test]
fn each_that_listens_and_the_workflow_itself() {
    let rig = Rig::new();
    for start in [
        listener("b"),
        listener("c"),
        document("other", &format!("do:\n  - hear: {}\n", LISTEN.replace("word", "words"))),
    ] {
        assert_eq!(rig.run(start), Status::Waiting);
    }
    let both = document(
        "a",
        &format!(
            "do:\n  - both: {{ fork: {{ branches: [ {{ hear: {LISTEN} }}, \
             {{ say: {{ emit: {{ event: {{ with: {{ type: word, data: 1 }} }} }} }} }} ] }} }}\n"
        ),
    );
    assert_eq!(rig.run(both), Status::Waiting, "its own event comes back to it by the inbox");
    for id in ["a", "b", "c"] {
        assert_eq!((rig.status(id), rig.came(id).len()), (Status::Completed, 1), "{id}");
    }
    assert_eq!((rig.status("other"), rig.came("other").len()), (Status::Waiting, 0));
    assert_eq!(rig.inbox(), Vec::<String>::new());
}

#[test]
fn what_nothing_there_has_a_use_for_is_not_kept() {
    let rig = Rig::new();
    let picky = "do:\n  - hear: { listen: { to: { one: { with: { type: word }, correlate: { order: { from: '${ .data.order }', expect: '17' } } } } } }\n";
    rig.run(document("b", picky));
    rig.run(speaker("a", &[json!({"order": "16"})]));
    assert_eq!((rig.status("b"), rig.came("b").len(), rig.inbox().len()), (Status::Waiting, 0, 0));
    let mut wanted = speaker("c", &[json!({"order": "17"})]);
    wanted.workflow_id = "c".into();
    rig.run(wanted);
    assert_eq!((rig.status("b"), rig.came("b").len()), (Status::Completed, 1));
}

#[test]
fn of_several_that_are_waited_for_together_the_first_is_kept() {
    let rig = Rig::new();
    rig.run(document("b", "do:\n  - hear: { listen: { to: { all: [ { with: { type: word } }, { with: { type: sign } } ] } } }\n"));
    rig.run(speaker("a", &[json!(1)]));
    assert_eq!((rig.status("b"), rig.came("b").len()), (Status::Waiting, 1));
    rig.run(document("c", "do:\n  - say: { emit: { event: { with: { type: sign, data: 2 } } } }\n"));
    assert_eq!(rig.output("b"), json!([1, 2]));
}

#[test]
fn in_the_order_in_which_they_were_recorded() {
    let rig = Rig::new();
    let three = (0..5).map(|i| format!("  - hear{i}: {LISTEN}\n")).collect::<String>();
    rig.run(document("b", &format!("do:\n{three}")));
    rig.run(speaker("a", &[json!(1), json!(2), json!(3)]));
    rig.run(speaker("c", &[json!(4), json!(5)]));
    let data: Vec<Value> = rig.came("b").into_iter().map(|(data, _)| data).collect();
    assert_eq!(data, [1, 2, 3, 4, 5]);
    assert_eq!(rig.status("b"), Status::Completed);
}

#[test]
fn nothing_of_before_it_listened() {
    let rig = Rig::new();
    let mut owner = rig.owner();
    owner.say(Command::Start(speaker("a", &[json!(1)]))).unwrap();
    owner.say(Command::Start(listener("b"))).unwrap();
    owner.look_into_the_inbox();
    drop(owner);
    assert_eq!((rig.status("b"), rig.came("b").len(), rig.inbox().len()), (Status::Waiting, 0, 0));
    // Of a batch that says a word, listens for it, and says it again, the second is heard.
    let own = document(
        "c",
        &format!(
            "do:\n  - say: {{ emit: {{ event: {{ with: {{ type: own, data: 1 }} }} }} }}\n  - both: {{ fork: {{ branches: [ {{ hear: {} }}, \
             {{ say: {{ emit: {{ event: {{ with: {{ type: own, data: 2 }} }} }} }} }} ] }} }}\n",
            LISTEN.replace("word", "own")
        ),
    );
    rig.run(own);
    assert_eq!(rig.came("c"), [(json!(2), "workflow:c".to_owned())]);
}

#[test]
fn killed_between_the_event_and_its_delivery() {
    let rig = Rig::new();
    for life in 0..3 {
        let (a, b) = (format!("a{life}"), format!("b{life}"));
        let mut owner = rig.owner();
        owner.say(Command::Start(listener(&b))).unwrap();
        owner.say(Command::Start(speaker(&a, &[json!(life)]))).unwrap();
        assert_eq!((rig.inbox().len(), rig.came(&b).len()), (1, 0), "on disk, and not yet handed over");
        if life == 1 {
            // It took it from the inbox and died before anything of that was committed.
            from_inbox(owner.store.commands(0).unwrap(), &owner.to, &mut |_, _| {});
        }
        drop(owner);
        if life == 2 {
            rig.drive(vec![Command::Cancel { workflow_id: b.as_str().into(), reason: "enough".into() }]);
            assert_eq!((rig.status(&b), rig.inbox().len()), (Status::Cancelled, 0), "that is no error");
            continue;
        }
        rig.drive(vec![Command::Resume { workflow_id: b.as_str().into() }]);
        rig.drive(vec![Command::Resume { workflow_id: b.as_str().into() }]);
        assert_eq!((rig.came(&b).len(), rig.output(&b)), (1, json!([life])));
        assert_eq!(rig.inbox(), Vec::<String>::new());
    }
}

#[test]
fn a_refused_commit_hands_on_nothing() {
    let rig = Rig::new();
    let mut owner = rig.owner();
    owner.say(Command::Start(listener("b"))).unwrap();
    let waits = "do:\n  - go: { listen: { to: { one: { with: { type: go } } } } }\n  - say: { emit: { event: { with: { type: word, data: 1 } } } }\n  - on: { listen: { to: { one: { with: { type: on } } } } }\n  - rest: { wait: { seconds: 3 } }\n";
    // Beside the wait for a word it waits for a moment, not far away, so that it stays in memory.
    let a = document(
        "a",
        &format!(
            "do:\n  - both:\n      fork:\n        branches:\n          - rest: {{ wait: {{ seconds: 3 }} }}\n          - talk:\n              do:\n{}",
            waits["do:\n".len()..].lines().map(|line| format!("              {line}\n")).collect::<String>()
        ),
    );
    owner.say(Command::Start(a)).unwrap();
    // Somebody writes behind its back: what it queues next is refused.
    let version = owner.engine.state("a").expect("in memory").version;
    let fact =
        Fact::Recorded { event_type: "NOTED".into(), key: None, data: Slot::of(json!(1)), handler: None };
    let noted = NewEvent {
        id: EventId([9; 16]),
        is_id_supplied: false,
        event_type: "NOTED".into(),
        schema_version: fact.schema_version(),
        payload: fact.encode(),
        timestamp: owner.engine.state("a").expect("in memory").now,
        causation_id: None,
        correlation_id: None,
        actor: "somebody".into(),
        codec: "json".into(),
        key_id: None,
    };
    let append = Append {
        workflow_id: "a".into(),
        expected: Expected::Exact(version),
        events: vec![noted],
        begins: None,
        status: None,
    };
    let (tell, told) = channel();
    owner.store.commit(
        Commit { epoch: owner.epoch, appends: vec![append], ..Commit::default() },
        Box::new(move |result| tell.send(result).unwrap()),
    );
    told.recv().unwrap().unwrap();
    let go = || Command::Signal {
        workflow_id: "a".into(),
        name: "go".into(),
        data: Value::Null,
        event_id: None,
        error: None,
    };
    owner.say(go()).unwrap_err();
    assert_eq!((rig.inbox().len(), rig.store().listens("a").unwrap()), (0, vec!["go".into()]));
    owner.say(go()).unwrap();
    assert_eq!((rig.inbox().len(), rig.store().listens("a").unwrap()), (1, vec!["on".into()]));
    owner.look_into_the_inbox();
    drop(owner);
    assert_eq!(rig.output("b"), json!([1]));
    assert_eq!(rig.came("b").len(), 1);
}

#[test]
fn what_is_long_lies_beside_the_log_once() {
    let rig = Rig::new();
    let text = "a long word ".repeat(2_000);
    let mut owner = rig.owner();
    for id in ["b1", "b2"] {
        owner.say(Command::Start(listener(id))).unwrap();
    }
    owner.say(Command::Start(speaker("a", &[json!(text)]))).unwrap();
    let rows = owner.store.commands(0).unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.body.to_string().len() < 500), "{rows:?}");
    owner.look_into_the_inbox();
    drop(owner);
    assert_eq!([rig.output("b1"), rig.output("b2")], [json!([text]), json!([text])]);
}

#[test]
fn a_thousand_words_that_nothing_takes_do_not_lock_out_the_one_that_is_waited_for() {
    let rig = Rig::new();
    let mut owner = rig.owner();
    owner.say(Command::Start(listener("b"))).unwrap();
    let mut say = |name: &str| {
        let (workflow_id, name, data) = ("b".into(), name.into(), json!(7));
        owner.say(Command::Signal { workflow_id, name, data, event_id: None, error: None })
    };
    for _ in 0..1_000 {
        say("other").unwrap();
    }
    assert!(say("other").unwrap_err().message.contains("keeps 1000 signals"));
    say("word").unwrap();
    drop(owner);
    assert_eq!(rig.output("b"), json!([7]));
}

#[test]
fn by_the_rules_of_who_hears_it() {
    let rig = Rig::new();
    let head = "document: { dsl: '1.0.3', namespace: test, name: shy, version: '0.1.0', metadata: { foldback: { redact: [{ pattern: 'word-[0-9]+' }] } } }\n";
    let source = format!("{head}do:\n  - hear: {LISTEN}\n");
    let loaded = foldback::ows::load(&source, &|path| Err(format!("no file {path}")));
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:?}"));
    rig.run(start_document(&loaded, "b", json!({})));
    rig.run(listener("c"));
    rig.run(speaker("a", &[json!("word-17")]));
    assert!(!format!("{:?}", rig.came("b")).contains("word-17"), "{:?}", rig.came("b"));
    assert_eq!(rig.came("c")[0].0, "word-17");
}

async fn hears(mut ctx: Ctx, _input: Value) -> Ended {
    ctx.listen("hear", "word").await
}

async fn says(mut ctx: Ctx, input: Value) -> Ended {
    ctx.record("say", "word", input);
    Ok(Value::Null)
}

#[test]
fn rust_code_that_this_process_does_not_have_is_handed_it_by_one_that_does() {
    let rig = Rig::new();
    let all = || {
        Definitions::default().with_code("hears", "1", Code::new(hears)).with_code(
            "says",
            "1",
            Code::new(says),
        )
    };
    rig.drive_with(all(), vec![Command::Start(start_code("hears", "1", "b", Value::Null))]);
    let only = Definitions::default().with_code("says", "1", Code::new(says));
    rig.drive_with(only, vec![Command::Start(start_code("says", "1", "a", json!({"n": 1})))]);
    assert_eq!((rig.status("b"), rig.inbox().len()), (Status::Waiting, 1), "it is not lost");
    rig.drive_with(all(), vec![Command::Resume { workflow_id: "b".into() }]);
    assert_eq!((rig.output("b"), rig.inbox().len()), (json!({"n": 1}), 0));
}

#[test]
fn a_fork_speaks_to_nobody_but_itself() {
    let rig = Rig::new();
    let engine = Engine::with(rig.store(), Registry::default(), Definitions::default()).unwrap();
    engine.run(speaker("a", &[json!(1)])).unwrap();
    rig.run(listener("b"));
    let forked = engine.fork("a", Change { at: Some(1), ..Change::default() }).unwrap();
    assert_eq!(forked.outcome.status, Status::Completed);
    assert_eq!((rig.status("b"), rig.came("b").len(), rig.inbox().len()), (Status::Waiting, 0, 0));
    // One that listens is handed what others say from its beginning on.
    let forked = engine.fork("b", Change::default()).unwrap();
    assert_eq!(forked.outcome.status, Status::Waiting);
    let listeners = rig.store().listeners(0, "word").unwrap();
    assert_eq!(listeners, ["b".into(), forked.outcome.workflow_id.clone()]);
    rig.run(speaker("c", &[json!(2)]));
    for id in ["b", &*forked.outcome.workflow_id] {
        assert_eq!(rig.came(id), [(json!(2), "workflow:c".to_owned())], "{id}");
    }
}

#[test]
fn two_that_answer_each_other_for_ever_let_a_run_end() {
    let rig = Rig::new();
    let loops = |id: &str, hears: &str, says: &str| {
        document(
            id,
            &format!(
                "do:\n  - hear: {{ listen: {{ to: {{ one: {{ with: {{ type: {hears} }} }} }} }} }}\n  - say: {{ emit: {{ event: {{ with: {{ type: {says}, data: 1 }} }} }}, then: hear }}\n"
            ),
        )
    };
    rig.run(loops("ping", "pong", "ping"));
    rig.run(loops("pong", "ping", "pong"));
    rig.run(document("a", "do:\n  - say: { emit: { event: { with: { type: ping, data: 1 } } } }\n"));
    let (ping, pong) = (rig.came("ping").len(), rig.came("pong").len());
    assert!(ping >= 2 && (ping == pong || ping + 1 == pong), "{ping} {pong}");
    assert_eq!(rig.inbox().len(), 1, "it goes on with whoever drives them next");
}

#[test]
fn one_that_was_imported_listens_where_it_is() {
    let (rig, other) = (Rig::new(), Rig::new());
    rig.run(listener("b"));
    let mut file = Vec::new();
    let row = rig.store().workflow("b").unwrap().expect("it is there");
    export(&*rig.store(), &row, &mut file).unwrap();
    import(&*other.store(), &mut file.as_slice()).unwrap();
    assert_eq!(other.store().listens("b").unwrap(), ["word".into()]);
    other.run(speaker("a", &[json!(1)]));
    assert_eq!((other.output("b"), rig.status("b")), (json!([1]), Status::Waiting));
}

/// However often a signal with an id is sent: while the first is on its way, from the inbox, and to another
/// process. `other` is what nothing takes, so that each one that is heard stays.
#[test]
fn a_signal_with_an_id_is_heard_once() {
    let rig = Rig::new();
    let signal = |id: &str, data: Value| Command::Signal {
        workflow_id: "b".into(),
        name: "other".into(),
        data,
        event_id: Some(id.into()),
        error: None,
    };
    let mut owner = rig.owner();
    owner.say(Command::Start(listener("b"))).unwrap();
    let (reply, answers) = channel();
    for n in 0..3 {
        let (command, actor, from) = (signal("e1", json!(n)), "test".into(), ReplyTo::Caller(reply.clone()));
        owner.to.send(Message::Command { command, actor, from, watch: None }).unwrap();
    }
    owner.settle();
    let attached: Vec<bool> = answers.try_iter().map(|answer: Answer| answer.unwrap().attached).collect();
    assert_eq!(attached, [false, true, true]);
    let body = serde_json::to_value(signal("e1", json!(3))).unwrap();
    let (id, actor) = ("a webhook's".to_owned(), "another process".to_owned());
    owner.store.send(InboxCommand { id: id.clone(), shard: 0, actor, body }).unwrap();
    owner.look_into_the_inbox();
    assert_eq!(owner.store.answer(&id).unwrap().unwrap()["Ok"]["attached"], json!(true));
    drop(owner);

    let mut owner = rig.owner();
    assert!(owner.say(signal("e1", json!(4))).unwrap().attached, "also by a process that begins");
    assert!(!owner.say(signal("e2", json!(5))).unwrap().attached);
    assert!(owner.say(signal("", json!(6))).unwrap_err().message.contains("event id"));
    let other = Command::Signal {
        workflow_id: "c".into(),
        name: "other".into(),
        data: json!(7),
        event_id: Some("e1".into()),
        error: None,
    };
    owner.say(Command::Start(listener("c"))).unwrap();
    assert!(!owner.say(other).unwrap().attached, "another workflow hears it for itself");
    drop(owner);
    let heard = |id: &str| {
        let heard = rig.log(id).into_iter().filter_map(|event| match event.fact {
            Fact::SignalReceived(signal) => Some((*signal.data.get()).clone()),
            _ => None,
        });
        heard.collect::<Vec<Value>>()
    };
    assert_eq!((heard("b"), heard("c")), (vec![json!(0), json!(5)], vec![json!(7)]));
    WorkflowState::fold("b", &rig.log("b")).unwrap();
}

async fn asks(mut ctx: Ctx, _input: Value) -> Ended {
    match ctx.listen("ask", "paid").await {
        Ok(paid) => Ok(json!({ "paid": paid })),
        Err(error) => Ok(json!({ "failed": error.title, "at": error.key })),
    }
}

async fn insists(mut ctx: Ctx, _input: Value) -> Ended {
    ctx.listen("ask", "paid").await
}

/// In Rust an answer that is a failure is an error of the wait; one that nobody handles is asked for anew
/// by a retry.
#[test]
fn an_answer_may_be_a_failure() {
    let programs = Definitions::default().with_code("asks", "1", Code::new(asks)).with_code(
        "insists",
        "1",
        Code::new(insists),
    );
    let engine =
        Engine::with(foldback::store::open("memory:").unwrap(), Registry::default(), programs).unwrap();
    let declined = || Failure::new("communication", 402, "Declined", "no money");
    engine.run(start_code("asks", "1", "a", json!({}))).unwrap();
    let ended = engine.deliver("a", Signal::new("paid").event_id("e1").failed(declined())).unwrap();
    assert_eq!(*ended.output.unwrap(), json!({"failed": "Declined", "at": "ask"}));
    assert_eq!(engine.deliver("a", Signal::new("paid").event_id("e1")).unwrap().status, Status::Completed);

    engine.run(start_code("insists", "1", "b", json!({}))).unwrap();
    let ended = engine.deliver("b", Signal::new("paid").failed(declined())).unwrap();
    assert_eq!((ended.status, ended.error.unwrap().status), (Status::Failed, 402));
    assert_eq!(engine.retry("b", Change::default()).unwrap().status, Status::Waiting);
    let ended = engine.deliver("b", Signal::new("paid").data(json!(7))).unwrap();
    assert_eq!(*ended.output.unwrap(), json!(7));
    assert!(engine.verify("b").unwrap().parting.is_none());
}
