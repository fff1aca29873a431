//! What a log owes that nobody here has asked for: an edited log, put where a crash would have left it.
//! Nothing of it is performed before the program has asked for the same key and the same request.

use std::sync::Arc;
use std::sync::mpsc::channel;

use crate::world::World;
use foldback::core::program::request_hash;
use foldback::store::{Append, Commit, Expected, NewEvent, NewWorkflow, Store};
use serde_json::{Value, json};

const LOOK: &str = "
document: { dsl: '1.0.3', namespace: test, name: look, version: '1.0.0' }
do:
- look:
    run: { shell: { command: 'echo looked >> done; echo found' } }
    metadata: { foldback: { effect: read, erasable: true } }
- pay:
    run: { shell: { command: 'echo paid >> done' } }
    metadata:
      foldback: { recovery: retry, undo: { do: [ { back: { run: { shell: { command: 'echo back >> done' } } } } ] } }
";

/// Another branch changes the context from which the slow one was asked.
const BESIDE: &str = "
document: { dsl: '1.0.3', namespace: test, name: beside, version: '1.0.0' }
do:
- first: { set: { word: before }, export: { as: '${ . }' } }
- both:
    fork:
      branches:
      - slow:
          run: { shell: { command: 'sleep 0.3; echo \"$WORD\" >> done', environment: { WORD: '${ $context.word }' } } }
          metadata: { foldback: { effect: read } }
      - quick: { set: { word: after }, export: { as: '${ . }' } }
";

/// The second visit of a task is under way.
const AGAIN: &str = "
document: { dsl: '1.0.3', namespace: test, name: again, version: '1.0.0' }
do:
- look:
    run: { shell: { command: 'echo looked >> done; wc -l < done' } }
    output: { as: '${ tonumber }' }
    metadata: { foldback: { effect: read } }
- enough: { switch: [ { no: { when: '. < 2', then: look } }, { yes: { then: end } } ] }
";

/// The log of a run up to the last ask for a step, that ask changed by `edit`, in a store of its own.
fn left(source: &str, asked: &str, edit: &dyn Fn(&mut Value)) -> World {
    left_in_dialect(2, source, asked, edit)
}

/// As [`left`], as if it had been written in this dialect.
fn left_in_dialect(dialect: u32, source: &str, asked: &str, edit: &dyn Fn(&mut Value)) -> World {
    let (from, to) = (World::empty(), World::empty());
    std::fs::write(from.dir.path().join("a.yaml"), source).unwrap();
    let ran = from.run(&["run", "a.yaml", "--id", "w"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let (before, after) = (from.store(), to.store());
    let log = before.read("w", 0, 1_000).unwrap();
    let is_ask = |event: &NewEvent| {
        let payload: Value = serde_json::from_str(&event.payload).unwrap();
        &*event.event_type == "StepAsked" && payload["key"] == asked
    };
    // What reports comes behind all that was said when the step was asked for.
    let at = log.iter().rposition(|recorded| is_ask(&recorded.event)).expect("it was asked for");
    let reports = |recorded: &foldback::store::Recorded| &*recorded.event.event_type == "StepCompleted";
    let end = (at..log.len()).find(|at| reports(&log[*at])).expect("it came out");
    let mut events: Vec<NewEvent> = log[..end].iter().map(|recorded| recorded.event.clone()).collect();
    for event in events.iter_mut() {
        let mut payload: Value = serde_json::from_str(&event.payload).unwrap();
        if is_ask(event) {
            edit(&mut payload);
        }
        if dialect == 1
            && let Some(started) = payload.as_object_mut().filter(|_| &*event.event_type == "WorkflowStarted")
        {
            started.remove("dialect");
        }
        event.payload = payload.to_string();
    }
    let row = before.workflow("w").unwrap().unwrap();
    let begins = NewWorkflow {
        definition: row.definition,
        name: row.name,
        input_hash: row.input_hash,
        ..Default::default()
    };
    let mut hashes = Vec::new();
    for recorded in &log {
        let event = foldback::engine::load::decode(recorded).unwrap();
        hashes.extend(event.fact.slots().into_iter().filter_map(|slot| match slot {
            foldback::core::Slot::Stored(stored) => Some(stored.hash),
            foldback::core::Slot::Inline(_) => None,
        }));
    }
    let payloads = hashes.iter().filter_map(|hash| before.payload(0, hash).unwrap()).collect();
    let definition = before.definition(&row.definition.unwrap()).unwrap().unwrap();
    let append = Append {
        workflow_id: Arc::from("w"),
        expected: Expected::NoStream,
        events,
        begins: Some(begins),
        status: Some("running"),
    };
    commit(
        &*after,
        Commit { appends: vec![append], payloads, definitions: vec![definition], ..Commit::default() },
    );
    to
}

fn commit(store: &dyn Store, commit: Commit) {
    let ownership = store.acquire(0, "a test").unwrap().expect("nobody has it");
    let (tell, told) = channel();
    store.commit(
        Commit { epoch: ownership.epoch, ..commit },
        Box::new(move |result| tell.send(result).unwrap()),
    );
    told.recv().unwrap().unwrap();
}

fn done(world: &World) -> String {
    std::fs::read_to_string(world.dir.path().join("done")).unwrap_or_default()
}

/// The request of a step as the log holds it, with another command.
fn other_command(payload: &mut Value) {
    payload["request"]["command"] = json!({"inline": "echo stolen >> done"});
}

/// As [`other_command`], of a step whose request is one value beside the log: named in it instead.
fn hashed_anew(payload: &mut Value) {
    other_command(payload);
    let parts = payload["request"].as_object().unwrap().iter();
    let request: Value = parts.map(|(name, slot)| (name.clone(), slot["inline"].clone())).collect();
    let kind = payload["kind"].as_str().unwrap().to_owned();
    payload["request_hash"] = json!(request_hash(&kind, &request, &Default::default()).to_hex());
}

#[test]
fn what_was_asked_for_is_gone_on_with() {
    for (source, asked, end) in [
        (LOOK, "look", "looked\npaid\n"),
        (LOOK, "pay", "paid\n"),
        (BESIDE, "both/slow", "before\n"),
        (AGAIN, "look#2", "looked\nlooked\n"),
    ] {
        let world = left(source, asked, &|_| {});
        let ran = world.run(&["resume", "w", "--json"]);
        assert_eq!(ran.document(0)["status"], "completed", "{asked}");
        assert_eq!(done(&world), end, "{asked}");
        assert_eq!(world.run(&["verify", "w", "--json"]).document(0)["matched"], true, "{asked}");
        assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]), "{asked}");
    }
}

#[test]
fn what_nobody_asked_for_is_not_performed() {
    type Edit = fn(&mut Value);
    // Whether the hash beside the request tells, or only the program does.
    let table: [(&str, &str, Edit, bool); 7] = [
        ("a request that is not its hash", "pay", other_command, true),
        ("another request", "pay", hashed_anew, false),
        (
            "a step that the definition does not have",
            "pay",
            |p| {
                hashed_anew(p);
                p["key"] = json!("ghost");
            },
            false,
        ),
        ("a step that it does not come to yet", "look", |p| p["key"] = json!("pay"), false),
        (
            "another effect",
            "look",
            |p| {
                (p["effect"], p["recovery"]) = (json!("write"), json!("retry"));
            },
            false,
        ),
        ("no undo", "pay", |p| drop(p.as_object_mut().unwrap().remove("undo")), false),
        ("a secret that nobody named", "pay", |p| p["secrets"] = json!({"/command": "HOME"}), true),
    ];
    for (what, asked, edit, is_told_by_hash) in table {
        let world = left(LOOK, asked, &edit);
        let audit = world.run(&["audit", "--json"]);
        let told = audit.document(i32::from(is_told_by_hash))["problems"].to_string();
        assert_eq!(told.contains("does not match the hash beside it"), is_told_by_hash, "{what}: {told}");
        assert_eq!(world.run(&["verify", "w", "--json"]).document(1)["matched"], false, "{what}");

        let file = world.run(&["export", "w"]);
        let to = World::empty();
        std::fs::write(to.dir.path().join("file"), file.out).unwrap();
        let imported = to.run(&["import", "file"]);
        assert_eq!(imported.code, if is_told_by_hash { 2 } else { 0 }, "{what}: {imported:?}");
        assert_eq!(imported.err.contains("does not match its hash"), is_told_by_hash, "{what}: {imported:?}");

        for world in [&world, &to].into_iter().take(if is_told_by_hash { 1 } else { 2 }) {
            let resumed = world.run(&["resume", "w", "--json"]).document(1);
            assert_eq!(resumed["status"], "parked", "{what}: {resumed}");
            assert_eq!(done(world), "", "{what}");
            // Nor is it when it is reopened, and goes on with what its definition asks for.
            assert_ne!(world.run(&["retry", "w", "--json"]).code, 0, "{what}");
            assert!(!done(world).contains("stolen"), "{what}");
        }
    }
}

/// What a person would be asked about is not sent again on the word of an edited log.
#[test]
fn a_recovery_that_nobody_wrote_sends_nothing_again() {
    let asks = LOOK.replace("recovery: retry", "recovery: operator");
    let world = left(&asks, "pay", &|_| {});
    assert_eq!(world.run(&["resume", "w", "--json"]).document(1)["status"], "unknown");
    let world = left(&asks, "pay", &|p| p["recovery"] = json!("retry"));
    assert_eq!(world.run(&["verify", "w", "--json"]).document(1)["matched"], false);
    assert_eq!(world.run(&["resume", "w", "--json"]).document(1)["status"], "parked");
    assert_eq!(done(&world), "");
}

/// A log of an older dialect goes on where its requests are the same in this one, and nowhere else.
#[test]
fn an_older_dialect_is_no_way_around() {
    let world = left_in_dialect(1, LOOK, "pay", &|_| {});
    assert_eq!(world.run(&["resume", "w", "--json"]).document(0)["status"], "completed");
    assert_eq!(done(&world), "paid\n");
    let world = left_in_dialect(1, LOOK, "pay", &hashed_anew);
    assert_eq!(world.run(&["resume", "w", "--json"]).document(1)["status"], "parked");
    assert_eq!(done(&world), "");
}

#[test]
fn what_was_erased_cannot_be_checked_and_is_not_performed() {
    let world = left(LOOK, "look", &|_| {});
    let erased = world.run(&["erase", "w", "look:request"]);
    assert_eq!(erased.code, 0, "{erased:?}");
    let audit = world.run(&["audit", "--json"]).document(0);
    assert_eq!((&audit["not_checkable"], &audit["problems"]), (&json!(1), &json!([])));
    assert!(world.run(&["audit"]).out.contains("1 request not checkable: erased"));
    let resumed = world.run(&["resume", "w"]);
    assert!(resumed.code == 1 && resumed.err.contains("was erased"), "{resumed:?}");
    assert_eq!(done(&world), "");
    let to = World::empty();
    std::fs::write(to.dir.path().join("file"), world.run(&["export", "w"]).out).unwrap();
    let imported = to.run(&["import", "file"]);
    assert!(imported.code == 0 && imported.err.contains("1 request not checkable: erased"), "{imported:?}");
    assert_eq!(to.run(&["resume", "w"]).code, 1);
    assert_eq!(done(&to), "");
}
