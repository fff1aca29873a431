//! Exported files that somebody changed and made the hashes of right again, values that are no
//! text, and forks: what a hash cannot tell is judged by the law.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;

use base64::Engine as _;
use foldback::code::{Code, Ctx, Ended, Work};
use foldback::core::rehearse::rehearse;
use foldback::core::{Effect, Fact, Hash, Key, Outcome, Step, media};
use foldback::engine::{Command, Registry, Session, new_event};
use foldback::exchange::{ExchangeError, Imported, export, import};
use foldback::programs::{Definitions, start_code};
use foldback::store::{Append, Commit, Definition, Expected, NewEvent, NewWorkflow, Store};
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
    crate::fuzz::targets::mend::mended(&written(lines)).expect("it begins as an export does")
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
    let table: [(&str, Edit, &str); 32] = [
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
        ("a value of nobody", |l| l.insert(2, value("text", "\"y\"")), "line 4: payload ac38f0"),
        ("a text in base64", |l| l.insert(2, value("base64", "YQ==")), "line 3: payload"),
        ("a longer value", |l| l[VALUE]["text"] = json!("\"1\""), "line 6: payload"),
        ("an id of letters", |l| l[at(2)]["causation_id"] = json!("x"), "line 4: \"x\" is no event id"),
        (
            "a request that is not its hash",
            |l| said(&mut l[at(2)], "head -200", "head -201"),
            "line 4: the request of the step does not match its hash",
        ),
        ("another codec", |l| l[at(2)]["codec"] = json!("zstd"), "line 4: its payload is coded as `zstd`"),
        ("a seal", |l| l[at(2)]["key_id"] = json!("k1"), "line 4: its payload is sealed with the key `k1`"),
        (
            "a key that a terminal would obey",
            |l| said(&mut l[at(2)], "\"key\":\"long\"", "\"key\":\"lo\\u001b[2Jng\""),
            "line 4: the key \"lo\\u{1b}[2Jng\" holds control characters",
        ),
        (
            "a value of a request that is not its hash",
            |l| said(&mut l[at(2)], "\"stdout\"", "\"stderr\""),
            "line 4: the request of the step does not match its hash",
        ),
        (
            "a member twice",
            |l| said(&mut l[at(14)], "{\"n\":1}", "{\"n\":1,\"a\":1,\"a\":2}"),
            "line 17: its payload: the member \"a\" stands twice in one object at line 1 column ",
        ),
        (
            "a number outside 64 bits",
            |l| said(&mut l[at(14)], "{\"n\":1}", "{\"n\":123456789012345678901234567890}"),
            "line 17: its payload: the number 123456789012345678901234567890 is outside 64 bits at line 1 column ",
        ),
        ("due before all time", |l| due(l, i64::MIN), "line 14: it is due before the year 1970"),
        ("before all time", |l| times(l, i64::MIN), "line 3: its time is not in the years 1970 to 9999"),
        ("before 1970", |l| times(l, -1), "line 3: its time is not in the years 1970 to 9999"),
        ("after all time", |l| times(l, i64::MAX), "line 3: its time is not in the years 1970 to 9999"),
        (
            "a clock before 1970",
            |l| said(&mut l[at(3)], "\"latency_ms\":16}", "\"latency_ms\":16,\"clock\":-1}"),
            "line 6: its time is not in the years 1970 to 9999",
        ),
        (
            "erased before 1970",
            |l| {
                let erased = json!({"bytes": 2027, "at": -1, "actor": "a", "reason": "r"});
                l[VALUE] = json!({"payload": l[VALUE]["payload"], "media_type": "application/json", "erased": erased});
            },
            "line 5: payload 775b0c5e34b97ba19f8ba1ea0e69d0709c81e020c130498e0b4fdeba041d3a7c: it was not erased in",
        ),
        (
            "no input in the header",
            |l| l[0]["input_hash"] = json!(null),
            "line 3: the header names no input, and the first event has one",
        ),
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
    // Somebody may wait for as long as he likes.
    let mut lines = waits();
    due(&mut lines, i64::MAX);
    imported(&*memory(), &forged(&lines)).expect("an engine writes such a log");
}

/// The moment at which the one timer is due.
fn due(lines: &mut [Value], at_last: i64) {
    said(&mut lines[at(11)], "\"due\":1795491501228514", &format!("\"due\":{at_last}"));
}

/// One time for all events.
fn times(lines: &mut [Value], time: i64) {
    for line in lines.iter_mut().filter(|line| line.get("timestamp").is_some()) {
        line["timestamp"] = json!(time);
    }
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

/// Runs the workflow `w` of a program `only`.
fn driven(store: &Arc<dyn Store>, code: impl foldback::core::Program + 'static, input: Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let session = Session {
        store: store.clone(),
        kinds: Registry::default(),
        programs: Arc::new(Definitions::default().with_code("only", "1", code)),
        pool: runtime.handle().clone(),
        observer: None,
        actor: Arc::from("test"),
        stop: Arc::default(),
    };
    session.drive(vec![Command::Start(start_code("only", "1", "w", input))]).expect("it runs");
}

/// A definition that is code is pinned by its name and version, not by the hash of a document.
#[test]
fn a_workflow_of_a_rust_program_comes_back() {
    async fn only(mut ctx: Ctx, input: Value) -> Ended {
        ctx.choose("which", "a", &["a", "b"], json!({"n": input}));
        Ok(json!({"n": input}))
    }
    let store = memory();
    driven(&store, Code::new(only), json!(7));
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

/// What a program starts with may be a picture: it lies beside the log as its bytes.
#[test]
fn a_workflow_that_began_with_a_picture_comes_back() {
    async fn only(_: Ctx, _: Value) -> Ended {
        Ok(json!(1))
    }
    let store = memory();
    let picture = json!(media::write("image/png", &[0xff; 4_000]));
    driven(&store, Code::new(only), picture);
    let file = exported(&*store, "w").expect("it is exported");
    assert!(
        String::from_utf8_lossy(&file).contains(r#""media_type":"image/png","base64""#),
        "beside the log"
    );
    let other = memory();
    imported(&*other, &file).expect("it comes back");
    assert!(exported(&*other, "w").expect("it is exported") == file);
}

/// Two conversations side by side. Each ask goes on from the list of the one before in its own, which a
/// judge that takes all values for alike would not find.
#[test]
fn conversations_side_by_side_come_back() {
    async fn talks(mut ctx: Ctx, _: Value) -> Ended {
        for turn in [9, 10, 12] {
            for who in ["ann", "bob"] {
                let messages: Vec<Value> = (0..turn).map(|n| json!({"of": who, "n": n})).collect();
                ctx.step(who, Work::new("llm", Effect::Read, json!({"messages": messages}))).await?;
            }
        }
        Ok(json!(1))
    }
    let answer = |_: &Key, _: &Step, _: u32| Outcome::Completed { output: json!("yes"), usage: None };
    let events = rehearse(&Code::new(talks), "t", json!(0), &answer).events;
    let Fact::WorkflowStarted(started) = &events[0].fact else { panic!("it begins") };
    let store = memory();
    let definition = Definition {
        hash: started.definition,
        kind: "rust".into(),
        name: started.name.clone(),
        canonical: "rehearsal".into(),
        source: String::new(),
    };
    let append = Append {
        workflow_id: "t".into(),
        expected: Expected::NoStream,
        events: events.iter().map(new_event).collect(),
        begins: Some(NewWorkflow {
            definition: Some(started.definition),
            name: started.name.clone(),
            input_hash: Some(Hash::of_json(&started.input.get())),
            ..NewWorkflow::default()
        }),
        status: Some("completed"),
    };
    let payloads = events.iter().flat_map(|event| event.fact.slots()).filter_map(|slot| slot.payload());
    let commit = Commit { payloads: payloads.collect(), definitions: vec![definition], ..Commit::default() };
    committed(&*store, Commit { appends: vec![append], ..commit });
    let file = exported(&*store, "t").expect("it is exported");
    assert!(String::from_utf8_lossy(&file).contains(r#"\"before\":"#), "an ask goes on from another");
    let other = memory();
    imported(&*other, &file).expect("it comes back");
    assert!(exported(&*other, "t").expect("it is exported") == file);
}

/// A family of four: `a` went back under another definition, `a~1` went back too and waits, `a~1~1`
/// follows a third definition, and `a~1~1~1` left it in the past that it shares with `a`.
const FAMILY: [(&str, usize); 4] = [("a", 0), ("a~1", 20), ("a~1~1", 38), ("a~1~1~1", 46)];

fn family() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/import/forks.jsonl");
    let text = std::fs::read_to_string(path).expect("the seed is there");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn appended(store: &dyn Store, append: Append) {
    committed(store, Commit { appends: vec![append], ..Commit::default() });
}

fn committed(store: &dyn Store, commit: Commit) {
    let owner = store.acquire(0, "a test").expect("it answers").expect("nobody has it");
    let (tell, told) = channel();
    store.commit(Commit { epoch: owner.epoch, ..commit }, Box::new(move |result| drop(tell.send(result))));
    told.recv().expect("it answers").expect("it is written");
}

/// Domain events at the end of a workflow's log.
fn reviewed(store: &dyn Store, id: &str) {
    let row = store.workflow(id).expect("it answers").expect("it is there");
    let last = store.read(id, row.version - 1, 1).expect("it answers").remove(0);
    let mut bytes = last.event.id.0;
    bytes[15] ^= 0xff;
    let event = NewEvent {
        id: foldback::core::EventId(bytes),
        event_type: "REVIEWED".into(),
        payload: r#"{"data":{"inline":1}}"#.into(),
        ..last.event
    };
    appended(
        store,
        Append {
            workflow_id: id.into(),
            expected: Expected::Exact(row.version),
            events: vec![event],
            begins: None,
            status: None,
        },
    );
}

#[test]
fn a_fork_comes_back_behind_its_ancestors() {
    let lines = family();
    let file = written(&lines);
    let dir = tempfile::tempdir().expect("a directory");
    for url in ["memory:".to_owned(), format!("sqlite:{}", dir.path().join("a.db").display())] {
        let store = foldback::store::open(&url).expect("a store");
        let told = imported(&*store, &file).unwrap_or_else(|e| panic!("{url}: {e}"));
        let known = |told: &Imported| -> Vec<(String, u64, u64, bool)> {
            let all = told.ancestors.iter().chain([told]);
            all.map(|one| (one.workflow_id.clone(), one.version, one.counts.events, one.is_known)).collect()
        };
        let told_of = |is_known: bool| {
            [("a", 15, 15), ("a~1", 14, 11), ("a~1~1", 16, 4), ("a~1~1~1", 10, 7)]
                .map(|(id, version, events)| (id.to_owned(), version, events, is_known))
        };
        assert_eq!(known(&told), told_of(false), "{url}");
        assert_eq!(store.workflow("a~1").unwrap().unwrap().status, "waiting");
        // Each is exported as the documents up to its own.
        for (at, (id, _)) in FAMILY.iter().enumerate() {
            let end = FAMILY.get(at + 1).map_or(lines.len(), |(_, begins)| *begins);
            assert!(exported(&*store, id).expect("it is exported") == written(&lines[..end]), "{url}: {id}");
        }
        let again = imported(&*store, &file).expect("it is there");
        assert_eq!(known(&again), told_of(true), "{url}");
        // The law and the chain hold from the first event of the root.
        for (id, _) in FAMILY {
            foldback::engine::load::state_at(&*store, id, None).expect("it is folded");
        }
    }
}

#[test]
fn ancestors_that_are_there_are_left_as_they_are_and_others_of_their_names_refuse_the_file() {
    let lines = family();
    let file = written(&lines);
    let store = memory();
    imported(&*store, &written(&lines[..FAMILY[2].1])).expect("two of them");
    // Their logs went on meanwhile.
    reviewed(&*store, "a");
    reviewed(&*store, "a~1");
    let told = imported(&*store, &file).expect("they have what the file says, and more");
    assert_eq!(told.ancestors.iter().map(|one| one.is_known).collect::<Vec<_>>(), [true, true, false]);
    let version = |id: &str| store.workflow(id).unwrap().map(|row| row.version);
    assert_eq!((version("a"), version("a~1"), version("a~1~1~1")), (Some(16), Some(15), Some(10)));
    // The one that is imported is there as the file has it, or not at all.
    reviewed(&*store, "a~1~1~1");
    let told = imported(&*store, &file).expect_err("it went on").to_string();
    assert_eq!(told, "the store has another log of `a~1~1~1`, at version 11");
    // Another `a`, and one that is behind.
    for edit in [|l: &mut Vec<Value>| drop(l.remove(18)), |l: &mut Vec<Value>| l[18]["actor"] = json!("x")] {
        let mut other = lines[..FAMILY[1].1].to_vec();
        edit(&mut other);
        let store = memory();
        imported(&*store, &forged(&other)).expect("it is an `a` too");
        let told = imported(&*store, &file).expect_err("it is another").to_string();
        assert!(told.starts_with("the store has another log of `a`, at version 1"), "{told}");
        assert_eq!(store.workflows(&Default::default()).unwrap().len(), 1, "nothing was written");
    }
}

/// Which ids a store has, only its commit tells.
#[test]
fn what_a_store_refuses_leaves_whole_ancestors_and_comes_in_once_more() {
    let (mut other, mut lines) = (waits(), family());
    other[at(2)]["is_id_supplied"] = json!(true);
    let forked = FAMILY[1].1 + 3;
    for name in ["id", "is_id_supplied"] {
        lines[forked][name] = other[at(2)][name].clone();
    }
    let store = memory();
    imported(&*store, &forged(&other)).expect("it has the id");
    let file = forged(&lines);
    let told = imported(&*store, &file).expect_err("the id is taken").to_string();
    assert!(told.starts_with("the store has another event with the id"), "{told}");
    assert_eq!(store.workflow("a~1"), Ok(None));
    assert!(exported(&*store, "a").expect("it is whole") == forged(&lines[..FAMILY[1].1]));
    let told = imported(&*store, &forged(&family())).expect("the fork that it has no quarrel with");
    assert_eq!(told.ancestors.iter().map(|one| one.is_known).collect::<Vec<_>>(), [true, false, false]);
}

#[test]
fn a_file_of_forks_that_somebody_made_up_is_refused_with_its_line() {
    type Edit = fn(&mut Vec<Value>);
    const ONE: usize = FAMILY[1].1;
    const TWO: usize = FAMILY[2].1;
    let table: [(&str, Edit, &str); 23] = [
        (
            "swapped",
            |l| l[..TWO].rotate_left(ONE),
            "line 1: `a~1` is a fork of `a`, whose document must stand",
        ),
        ("alone", |l| drop(l.drain(..ONE)), "line 1: `a~1` is a fork of `a`, whose document must stand"),
        (
            "one is missing",
            |l| drop(l.drain(ONE..TWO)),
            "line 21: `a~1~1` is a fork of `a~1`, whose document",
        ),
        ("a parent twice", |l| twice(l, 0, ONE), "line 21: `a` is no fork of `a`, behind which it stands"),
        (
            "a fork twice",
            |l| twice(l, ONE, TWO),
            "line 39: `a~1` is a fork of `a`, whose document must stand",
        ),
        ("of itself", |l| l[ONE]["lineage"]["parent"] = json!("a~1"), "line 21: `a~1` is a fork of `a~1`"),
        (
            "as its parent",
            |l| l[ONE]["workflow_id"] = json!("a"),
            "line 21: a fork of `a` cannot be called \"a\"",
        ),
        ("of no family", |l| l[ONE]["workflow_id"] = json!("b~1"), "line 21: a fork of `a` cannot be called"),
        ("no lineage", |l| l[ONE]["lineage"] = json!(null), "line 21: it is not spelled as"),
        (
            "beyond",
            |l| l[ONE]["lineage"]["cut"] = json!(16),
            "line 21: `a~1` left `a` at version 16, and that has",
        ),
        (
            "far beyond",
            |l| l[ONE]["lineage"]["cut"] = json!(1u64 << 60),
            "line 21: `a~1` left `a` at version 115292",
        ),
        (
            "before",
            |l| l[ONE]["lineage"]["cut"] = json!(0),
            "line 21: `a~1` left `a` at version 0, and that has",
        ),
        ("elsewhere", |l| l[ONE]["lineage"]["cut"] = json!(2), "line 24: the header names another parent"),
        (
            "begins otherwise",
            |l| drop(l.drain(ONE + 2..ONE + 4)),
            "line 24: the header names another parent than the first event",
        ),
        (
            "forked twice",
            |l| l.insert(ONE + 4, l[ONE + 3].clone()),
            "line 25: it begins a fork, and is no first",
        ),
        (
            "another's past",
            |l| said(&mut l[ONE + 3], "\"workflow\":\"a\"", "\"workflow\":\"b\""),
            "line 24: it takes",
        ),
        (
            "a past to come",
            |l| said(&mut l[ONE + 3], "\"up_to\":15", "\"up_to\":16"),
            "line 24: it takes from versions",
        ),
        ("another definition", |l| l[TWO + 1] = l[ONE + 1].clone(), "line 41: definition 231e37"),
        ("another source", |l| l[ONE + 1]["source"] = json!("x"), "line 22: definition b7d3ef"),
        ("of another kind", |l| l[TWO + 3]["media_type"] = json!("text/x"), "line 42: payload 656693"),
        ("a definition less", |l| drop(l.remove(9)), "line 10: definition 167c2b"),
        ("a definition twice", |l| l.insert(10, l[9].clone()), "line 11: definition 167c2b"),
        ("a definition too early", |l| l.swap(8, 9), "line 10: definition 167c2b"),
    ];
    for (name, edit, wanted) in table {
        let mut lines = family();
        edit(&mut lines);
        refused(name, &forged(&lines), wanted);
    }
    refused("behind the end", &[written(&family()), b"{}\n".to_vec()].concat(), "line 57: something stands");
    let long = format!("{}{}\n", String::from_utf8(written(&family())).unwrap(), " ".repeat(1 << 21));
    refused("a long line", long.as_bytes(), "line 57: the first line of a document is longer than 1048576");
    // Without a forger: the parent is another one.
    let mut lines = family();
    lines[ONE]["lineage"]["cut_hash"] = json!(Hash::ZERO.to_hex());
    refused(
        "another hash",
        &written(&lines),
        "line 21: `a` has another hash at version 3, where `a~1` left it",
    );
    let lines = family();
    let other = forged(&[&[lines[0].clone()], &lines[1..3], &[actor(&lines[3])], &lines[4..ONE]].concat());
    let other = [other, written(&lines[ONE..])].concat();
    refused("another parent", &other, "line 21: `a` has another hash at version 3, where `a~1` left it");
    imported(&*memory(), &forged(&family())).expect("the forger's own work is sound");
}

/// A key that a terminal would obey is refused wherever an event names it.
#[test]
fn a_key_of_a_stranger_is_looked_at_wherever_it_stands() {
    const FORKED: usize = FAMILY[1].1 + 3;
    const REOPENED: usize = FAMILY[1].1 + 9;
    let given = r#""outputs":[{"key":"orders","output":{"inline":"1"}}]"#;
    let edit = r#""edits":[{"target":{"key":"draft"},"path":"/x","value":{"inline":1}}]"#;
    let error = r#""instance":"/do/1/draft","key":"draft""#;
    for (line, before, after) in [
        (FORKED, r#""again":[]"#, r#""again":["KEY"]"#.to_owned()),
        (FORKED, r#""target":{"key":"draft"}"#, r#""target":{"key":"KEY"}"#.to_owned()),
        (FORKED, r#""edits":"#, format!("{},\"edits\":", given.replace("orders", "KEY"))),
        (FORKED, r#"{"policy":"stub"}"#, r#"{"policy":"stub","by_key":{"KEY":"deny"}}"#.to_owned()),
        (FORKED, r#"{"policy":"stub"}"#, r#"{"policy":"stub"},"rerun":["KEY"]"#.to_owned()),
        (REOPENED, r#""up_to":8}"#, format!("\"up_to\":8}},{}", edit.replace("draft", "KEY"))),
        (REOPENED, r#""up_to":8}"#, format!("\"up_to\":8}},{}", given.replace("orders", "KEY"))),
        (7, error, error.replace("\"draft\"", "\"KEY\"")),
        (8, error, error.replace("\"draft\"", "\"KEY\"")),
    ] {
        let mut lines = family();
        let member = |text: &str| text.replace("KEY", "lo\\u001b[2Jng");
        said(&mut lines[line], before, &member(&after));
        let wanted = format!("line {}: the key \"lo\\u{{1b}}[2Jng\" holds control characters", line + 1);
        refused(&after, &forged(&lines), &wanted);
    }
}

/// A value stands right before the first event that needs it, so that one log has one file.
#[test]
fn a_value_that_stands_too_early_is_refused() {
    let mut lines = waits();
    lines.swap(3, 4);
    refused("a value", &forged(&lines), "line 5: payload 775b0c");
}

fn refused(name: &str, file: &[u8], wanted: &str) {
    let store = memory();
    match imported(&*store, file) {
        Err(ExchangeError::Refused { message, hint }) if hint.starts_with("nothing was imported") => {
            assert!(message.starts_with(wanted), "{name}: {message}");
        }
        other => panic!("{name}: {other:?}"),
    }
    assert!(store.workflows(&Default::default()).unwrap().is_empty(), "{name}: nothing was written");
}

fn twice(lines: &mut Vec<Value>, from: usize, to: usize) {
    let document = lines[from..to].to_vec();
    lines.splice(to..to, document);
}

fn said(line: &mut Value, before: &str, after: &str) {
    let text = line["payload"].as_str().expect("a text");
    assert!(text.contains(before), "{text}");
    line["payload"] = json!(text.replace(before, after));
}

fn actor(line: &Value) -> Value {
    let mut line = line.clone();
    line["actor"] = json!("somebody else");
    line
}
