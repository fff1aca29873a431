//! Exported files that somebody changed and made the hashes of right again, values that are no
//! text, and forks: what a hash cannot tell is judged by the law.

// Only its forger is needed here.
#[path = "../../../fuzz/src/targets/mend.rs"]
mod mend;

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use base64::Engine as _;
use foldback::code::{Code, Ctx, Ended};
use foldback::core::{Hash, media};
use foldback::engine::{Command, Registry, Session};
use foldback::exchange::{ExchangeError, Imported, export, import};
use foldback::programs::{Definitions, start_code};
use foldback::store::{Append, Commit, Expected, NewEvent, NewWorkflow, Store};
use serde_json::{Value, json};

/// Lines of a log of 25 events with one value beside it: a header, a definition, two events, the
/// value, and the others.
fn waits() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/import/waits.jsonl");
    let text = std::fs::read_to_string(path).expect("the seed is there");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn written(lines: &[Value]) -> Vec<u8> {
    lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes()
}

fn forged(lines: &[Value]) -> Vec<u8> {
    mend::mended(&written(lines)).expect("it begins as an export does")
}

fn memory() -> Arc<dyn Store> {
    foldback::store::open("memory:").expect("memory is at hand")
}

fn imported(store: &dyn Store, file: &[u8]) -> Result<Imported, ExchangeError> {
    import(store, &mut &*file)
}

fn exported(store: &dyn Store, id: &str) -> Result<Vec<u8>, ExchangeError> {
    let row = store.workflow(id).expect("the store answers").expect("the workflow is there");
    let mut file = Vec::new();
    export(store, &row, &mut file).map(|_| file)
}

/// Where the line of an event's version stands: behind the header, the definition and the value.
fn at(version: usize) -> usize {
    version + if version < 3 { 1 } else { 2 }
}

#[test]
fn a_forged_file_is_judged_by_the_law() {
    type Edit = fn(&mut Vec<Value>);
    const VALUE: usize = 4;
    let table: [(&str, Edit, &str); 18] = [
        ("no JSON", |l| valued(l, VALUE, "no JSON"), "line 6: payload"),
        ("JSON too deep", |l| valued(l, VALUE, &"[".repeat(200)), "line 6: payload"),
        (
            "begun twice",
            |l| l.insert(3, l[2].clone()),
            "line 4: WorkflowStarted at version 2 is against the law",
        ),
        ("never begun", |l| drop(l.remove(2)), "line 3: StepAsked at version 1 is against the law"),
        (
            "done twice",
            |l| l.insert(6, l[5].clone()),
            "line 7: StepCompleted at version 4 is against the law",
        ),
        ("ended twice", |l| l.insert(at(25), l[at(25)].clone()), "line 29: WorkflowCompleted at version 26"),
        ("a step is skipped", |l| drop(l.remove(3)), "line 5: StepCompleted at version 2 is against the law"),
        (
            "in another order",
            |l| l.swap(at(11), at(12)),
            "line 14: TimerFired at version 11 is against the law",
        ),
        (
            "back in time",
            |l| l[at(7)]["timestamp"] = json!(1),
            "line 10: TaskStarted at version 7 is against",
        ),
        (
            "a newer shape",
            |l| l[at(2)]["schema_version"] = json!(2),
            "line 4: event of type StepAsked: shape 2",
        ),
        ("no such fields", |l| l[at(2)]["payload"] = json!("{}"), "line 4: event of type StepAsked: missing"),
        ("a value less", |l| drop(l.remove(VALUE)), "line 5: payload 775b0c"),
        ("a value twice", |l| l.insert(VALUE, l[VALUE].clone()), "line 6: payload 775b0c"),
        ("a value of nobody", |l| l.insert(2, value("text", "\"y\"")), "line 30: no event needs payload"),
        ("a text in base64", |l| l.insert(2, value("base64", "YQ==")), "line 3: payload"),
        ("a longer value", |l| l[VALUE]["text"] = json!("\"1\""), "line 6: payload"),
        ("an id of letters", |l| l[at(2)]["causation_id"] = json!("x"), "line 4: \"x\" is no event id"),
        ("an id with a fork's mark", |l| l[0]["workflow_id"] = json!("a~b"), "line 1: "),
    ];
    let store = memory();
    for (name, edit, wanted) in table {
        let mut lines = waits();
        edit(&mut lines);
        let told = match imported(&*store, &forged(&lines)) {
            Err(ExchangeError::Refused { message, hint }) if hint.starts_with("nothing was imported") => {
                message
            }
            other => panic!("{name}: {other:?}"),
        };
        assert!(told.starts_with(wanted), "{name}: {told}");
    }
    assert_eq!(store.workflow("waits"), Ok(None), "nothing was written");
    imported(&*store, &forged(&waits())).expect("the forger's own work is sound");
}

/// Another value, of the length that its event says.
fn valued(lines: &mut [Value], at: usize, text: &str) {
    let length = lines[at]["text"].as_str().expect("a text").len();
    lines[at]["text"] = json!(format!("{text:<length$}"));
}

fn value(kind: &str, text: &str) -> Value {
    json!({"payload": Hash::ZERO.to_hex(), "media_type": "text/plain", kind: text})
}

#[test]
fn a_file_that_is_cut_inside_a_line_is_refused() {
    let file = written(&waits());
    let store = memory();
    for cut in [10, file.len() / 2, file.len() - 1] {
        let told = imported(&*store, &file[..cut]).expect_err("it is cut").to_string();
        assert!(told.ends_with("the file is cut off inside this line"), "{cut}: {told}");
    }
    assert_eq!(store.workflow("waits"), Ok(None));
}

#[test]
fn a_value_that_is_no_text_keeps_its_bytes_and_its_media_type() {
    let bytes = [&b"\x89PNG\r\n\x1a\n\0"[..], &[0xff, 0xfe, 0xc3, 0x28]].concat();
    let hash = Hash::of_bytes(&bytes);
    let mut lines = waits();
    let mut event = lines[2].clone();
    event["type"] = json!("IMAGE_MADE");
    let slot = json!({"ref": hash.to_hex(), "bytes": bytes.len(), "media_type": "image/png"});
    event["payload"] = json!(json!({"key": null, "data": slot}).to_string());
    let coded = base64::engine::general_purpose::STANDARD.encode(&bytes);
    let payload = json!({"payload": hash.to_hex(), "media_type": "image/png", "base64": coded});
    let end = lines.pop().expect("the end");
    // A log that has begun, and has not ended.
    lines.truncate(3);
    lines.extend([payload, event, end]);
    let file = forged(&lines);
    let dir = tempfile::tempdir().expect("a directory");
    for url in ["memory:".to_owned(), format!("sqlite:{}", dir.path().join("a.db").display())] {
        let store = foldback::store::open(&url).expect("a store");
        imported(&*store, &file).unwrap_or_else(|e| panic!("{url}: {e}"));
        let kept = store.payload(0, &hash).expect("it answers").expect("the value is there");
        assert_eq!((kept.media_type.as_str(), &kept.bytes), ("image/png", &bytes));
        assert!(exported(&*store, "waits").expect("it is exported") == file, "{url}: the same bytes");
        let events = foldback::engine::load::events_of(&*store, "waits", 0).expect("it is read");
        assert_eq!(events[1].fact.plain(), json!(media::write("image/png", &bytes)), "{url}");
    }
}

/// A definition that is code is pinned by its name and version, not by the hash of a document.
#[test]
fn a_workflow_of_a_rust_program_comes_back() {
    async fn only(mut ctx: Ctx, input: Value) -> Ended {
        ctx.choose("which", "a", &["a", "b"], json!({"n": input}));
        Ok(json!({"n": input}))
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let store = memory();
    let session = Session {
        store: store.clone(),
        kinds: Registry::default(),
        programs: Arc::new(Definitions::default().with_code("only", "1", Code::new(only))),
        pool: runtime.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::default(),
    };
    session.drive(vec![Command::Start(start_code("only", "1", "w", json!(7)))]).expect("it runs");
    let file = exported(&*store, "w").expect("it is exported");
    let other = memory();
    let told = imported(&*other, &file).expect("it comes back");
    assert_eq!(told.status, foldback::core::Status::Completed);
    assert!(exported(&*other, "w").expect("it is exported") == file);
    // Another name under the same hash is no such code.
    let renamed =
        String::from_utf8(file).expect("UTF-8").replace(r#"\"name\":\"only\""#, r#"\"name\":\"evil\""#);
    let told = imported(&*memory(), renamed.as_bytes()).expect_err("it is other code").to_string();
    assert_eq!(told, "line 2: the definition does not match its hash");
}

/// A fork shares its parent's past; a file holds one workflow alone.
#[test]
fn a_fork_is_not_exported_and_a_file_cannot_bring_one() {
    let store = memory();
    imported(&*store, &written(&waits())).expect("it is imported");
    let owner = store.acquire(0, "a test").expect("it answers").expect("nobody has it");
    let cut = store.read("waits", 1, 1).expect("it answers").remove(0);
    let event =
        NewEvent { event_type: "REVIEWED".into(), payload: r#"{"data":{"inline":1}}"#.into(), ..cut.event };
    let begins = NewWorkflow { parent: Some(("waits".into(), 2, cut.hash)), ..NewWorkflow::default() };
    let append = Append {
        workflow_id: "waits~1".into(),
        expected: Expected::NoStream,
        events: vec![event],
        begins: Some(begins),
        status: None,
    };
    let commit = Commit { epoch: owner.epoch, appends: vec![append], ..Commit::default() };
    let (tell, told) = channel();
    store.commit(commit, Box::new(move |result| drop(tell.send(result))));
    told.recv().expect("it answers").expect("the fork is written");
    match exported(&*store, "waits~1") {
        Err(ExchangeError::Refused { message, hint }) => {
            assert!(message.contains("`waits~1` is a fork"), "{message}");
            assert!(hint.contains("`foldback export waits`"), "the hint names the parent: {hint}");
        }
        other => panic!("{other:?}"),
    }
    let first = |lines: &mut Vec<Value>, payload: fn(&mut Value)| {
        let text = lines[2]["payload"].as_str().expect("a text");
        let mut fact: Value = serde_json::from_str(text).expect("JSON");
        payload(&mut fact);
        lines[2]["payload"] = json!(fact.to_string());
    };
    let mut lines = waits();
    first(&mut lines, |fact| {
        fact["lineage"] = json!({"parent": "other", "cut": 3, "cut_hash": Hash::ZERO.to_hex()});
    });
    let told = imported(&*memory(), &forged(&lines)).expect_err("it is a fork's log").to_string();
    assert_eq!(told, "line 3: it is the log of a fork of `other`, and forks cannot be imported yet");
}
