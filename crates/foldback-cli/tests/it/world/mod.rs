//! The small world of these tests: logs made by rehearsing a script, written to a store on disk,
//! and the binary run on it. No engine, no network, no clock.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::mpsc::channel;

use foldback::core::change::Past;
use foldback::core::event::WorkflowForked;
use foldback::core::program::StepAsk;
use foldback::core::rehearse::rehearse;
use foldback::core::step::error_type;
use foldback::core::{
    Ask, Changes, Effect, Event, Fact, Failure, Hash, Key, Lineage, Outcome, Program, Run, Step, StepStatus,
    TaskKind, Turn, Usage, WorkflowState,
};
use foldback::store::{Append, Commit, Definition, Expected, NewEvent, NewWorkflow, Ownership, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A program that asks for one thing after the other and fails when a step does.
pub struct Script(pub Vec<Ask>);

struct ScriptRun(std::vec::IntoIter<Ask>, Option<Key>);

impl Program for Script {
    fn start(&self, _: &WorkflowState) -> Box<dyn Run> {
        Box::new(ScriptRun(self.0.clone().into_iter(), None))
    }
}

impl Run for ScriptRun {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        if !state.open.is_empty() {
            return Turn::Waits;
        }
        let failed = self.1.take().and_then(|key| {
            let step = state.step(&key)?;
            (step.status == StepStatus::Failed).then(|| step.error.clone())?
        });
        if let Some(error) = failed {
            return Turn::Ends(Err(error));
        }
        let Some(ask) = self.0.next() else {
            return Turn::Ends(Ok(json!({"page": 7})));
        };
        if let Ask::Step(step) = &ask {
            self.1 = Some(step.key.clone());
        }
        Turn::Asks(vec![ask])
    }
}

/// A step that is asked with a request.
pub fn step(key: &str, kind: &str, effect: Effect, request: Value) -> Ask {
    Ask::Step(Box::new(StepAsk::new(Key::from(key), kind, effect, request)))
}

/// A loop of one draft and one decision, then a `write` whose outcome the test chooses.
pub fn article(id: &str, publishing: &Outcome) -> Vec<Event> {
    let open =
        |key: &str| Ask::Start { key: Key::from(key), kind: TaskKind::For, input: Arc::new(json!({})) };
    let close = |key: &str, kind: TaskKind| Ask::Finish {
        key: Key::from(key),
        kind,
        output: Arc::new(json!("out")),
        context: None,
    };
    let long = "a prompt of some length; ".repeat(80);
    let script = Script(vec![
        Ask::Finish {
            key: Key::from("plan"),
            kind: TaskKind::Set,
            output: Arc::new(json!({"topic": "rust"})),
            context: Some(Arc::new(json!({"topic": "rust"}))),
        },
        open("refine"),
        step("refine[0]/draft", "llm", Effect::Read, json!({"prompt": long})),
        Ask::Decide {
            key: Key::from("refine[0]/decide"),
            chosen: "publish".into(),
            options: vec!["publish".into(), "revise".into()],
            because: json!({".verdict": "good"}),
            finishes: true,
        },
        close("refine[0]", TaskKind::Iteration),
        close("refine", TaskKind::For),
        step(
            "publish",
            "http",
            Effect::Write,
            json!({"method": "POST", "title": "hostile \u{1b}[31mred\u{1b}[0m \u{9b}2J"}),
        ),
    ]);
    let publishing = publishing.clone();
    let world = move |key: &Key, _: &Step, _: u32| match key.as_str() {
        "publish" => publishing.clone(),
        _ => Outcome::Completed {
            output: json!({"text": "a draft"}),
            usage: Some(Usage {
                model: "small".into(),
                input_tokens: 120,
                output_tokens: 30,
                micro_usd: Some(4_200),
                finish_reason: Some("stop".into()),
                ..Usage::default()
            }),
        },
    };
    rehearse(&script, id, json!({"topic": "rust"}), &world).events
}

/// It was published.
pub fn published() -> Outcome {
    Outcome::Completed { output: json!({"id": 7}), usage: None }
}

/// It was refused, with a detail that a terminal would obey.
pub fn refused() -> Outcome {
    let detail = "the server said \u{1b}]0;title\u{7}no\nand nothing more";
    let error = Failure::new(error_type::COMMUNICATION, 500, "Internal Server Error", detail);
    Outcome::Failed { error, retry_after_ms: None, usage: None }
}

/// Nobody knows.
pub fn unknown() -> Outcome {
    Outcome::Unknown { reason: "the connection broke".into() }
}

/// A directory with a store.
pub struct World {
    /// Where it lies.
    pub dir: TempDir,
}

impl World {
    /// A directory without a store.
    pub fn empty() -> World {
        World { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    /// A store with three workflows: `done`, `failed` and `unknown`.
    pub fn filled() -> World {
        let world = World::empty();
        let store = world.store();
        for (id, outcome, status) in [
            ("done", published(), "completed"),
            ("failed", refused(), "failed"),
            ("unknown", unknown(), "unknown"),
        ] {
            write(&*store, id, &article(id, &outcome), Some(status));
        }
        world
    }

    /// The store's file.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("foldback.db")
    }

    /// The store, made where there is none.
    pub fn store(&self) -> Arc<dyn Store> {
        foldback::store::open(&format!("sqlite:{}", self.path().display())).expect("a store")
    }

    /// The binary in this directory, with these words.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foldback"));
        command.args(words).current_dir(self.dir.path());
        for name in
            ["FOLDBACK_STORE", "COLUMNS", "NO_COLOR", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY"]
        {
            command.env_remove(name);
        }
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, words: &[&str]) -> Ran {
        Ran::of(self.command(words).output().expect("the binary runs"))
    }
}

/// What a run printed, and its exit code.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// What was printed as one JSON value a line; the exit code must be this one.
    pub fn lines(&self, code: i32) -> Vec<Value> {
        assert_eq!(self.code, code, "{self:?}");
        self.out.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// What was printed as one JSON document.
    pub fn document(&self, code: i32) -> Value {
        let mut lines = self.lines(code);
        assert_eq!(lines.len(), 1, "{self:?}");
        lines.remove(0)
    }
}

/// Appends events to a workflow and waits until they are on disk.
pub fn write(store: &dyn Store, id: &str, events: &[Event], status: Option<&'static str>) {
    let first = events.first().expect("some events");
    let begins = match &first.fact {
        Fact::WorkflowStarted(started) => Some(NewWorkflow {
            definition: Some(started.definition),
            name: "rehearsal".into(),
            input_hash: Some(Hash::of_json(&started.input.get())),
            ..NewWorkflow::default()
        }),
        _ => None,
    };
    append(store, id, events, begins, status);
}

/// Begins a fork of an [`article`], and leaves it there.
pub fn branch(store: &dyn Store, id: &str, (parent, cut): (&str, u64)) {
    let cut_hash = store.read(parent, cut - 1, 1).expect("it is read")[0].hash;
    let events = article(id, &published());
    let Fact::WorkflowStarted(started) = &events[0].fact else { panic!("it begins") };
    let begins = NewWorkflow {
        definition: Some(started.definition),
        name: started.name.clone(),
        input_hash: Some(Hash::of_json(&started.input.get())),
        parent: Some((parent.into(), cut, cut_hash)),
        ..NewWorkflow::default()
    };
    let lineage = Lineage { parent: parent.into(), cut, cut_hash };
    let past = Past { workflow: parent.into(), after: cut, up_to: cut };
    let forked = WorkflowForked { lineage, again: Vec::new(), changes: Changes::none(past) };
    let mut event = events[cut as usize].clone();
    event.fact = Fact::WorkflowForked(Box::new(forked));
    append(store, id, &[event], Some(begins), Some("running"));
}

fn append(
    store: &dyn Store,
    id: &str,
    events: &[Event],
    begins: Option<NewWorkflow>,
    status: Option<&'static str>,
) {
    let ownership = own(store);
    let first = events.first().expect("some events");
    let payloads =
        events.iter().flat_map(|event| event.fact.slots()).filter_map(|slot| slot.payload()).collect();
    let append = Append {
        workflow_id: Arc::from(id),
        expected: Expected::Exact(first.version - 1),
        events: events.iter().map(|event| new_event(id, event)).collect(),
        begins,
        status,
    };
    let definition = Definition {
        hash: Hash::of_bytes(b"rehearsal"),
        kind: "rust".into(),
        name: "rehearsal".into(),
        canonical: "rehearsal".into(),
        source: String::new(),
    };
    let commit = Commit {
        shard: 0,
        epoch: ownership.epoch,
        appends: vec![append],
        payloads,
        definitions: vec![definition],
        ..Commit::default()
    };
    let (tell, told) = channel();
    store.commit(commit, Box::new(move |result| drop(tell.send(result))));
    told.recv().expect("the store answers").expect("it is written");
}

/// Takes the shard. A child that another test starts just now holds a copy of every lock of this
/// process, until it is the binary: so this is tried for a while.
fn own(store: &dyn Store) -> Ownership {
    for _ in 0..500 {
        if let Some(ownership) = store.acquire(0, "a test").expect("the store answers") {
            return ownership;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("somebody else owns the shard");
}

fn new_event(id: &str, event: &Event) -> NewEvent {
    // A rehearsal numbers its ids from 1; here they also have to differ between workflows.
    let own = |id_of: foldback::core::EventId| {
        let mut bytes = id_of.0;
        bytes[4..8].copy_from_slice(&Hash::of_bytes(id.as_bytes()).0[..4]);
        foldback::core::EventId(bytes)
    };
    NewEvent {
        id: own(event.id),
        timestamp: event.timestamp.saturating_add(1_700_000_000_000_000),
        causation_id: event.causation_id.map(own),
        correlation_id: event.correlation_id.map(own),
        ..foldback::engine::new_event(event)
    }
}

/// Changes a file of the store behind its back.
pub fn tamper(path: &Path, sql: &str) {
    let connection = rusqlite::Connection::open(path).expect("the file opens");
    connection.execute_batch(sql).expect("it is changed");
}
