//! What lies beside the log: rows of workflows, payloads, definitions, inbox, wake-ups,
//! checkpoints, projections, snapshots.

use std::sync::Arc;

use foldback_core::Hash;
use foldback_core::value::Payload;
use serde_json::{Value, json};

use super::{Case, Desk, append, events, supplied};
use crate::contract::*;

pub(super) const CASES: &[Case] = &[
    ("the row of a workflow", workflow_row),
    ("lists: newest first, filtered, limited", lists),
    ("payloads are kept once, by their hash", payloads),
    ("definitions are left as they are", definitions),
    ("a command is delivered once and answered once", inbox),
    ("an answer and its events are one", answered_with_events),
    ("wake-ups are set, moved and taken away", wakeups),
    ("checkpoints are compared and set", checkpoints),
    ("rows of projections", projections),
    ("snapshots at or before a version", snapshots),
    ("every change is seen", changes),
];

fn begin(id: &str, begins: NewWorkflow, status: Option<&'static str>) -> Commit {
    let append = Append { begins: Some(begins), status, ..append(id, Expected::NoStream, events(2)) };
    Commit { appends: vec![append], ..Commit::default() }
}

fn status(id: &str, status: &'static str) -> Commit {
    let append = Append { status: Some(status), ..append(id, Expected::StreamExists, events(1)) };
    Commit { appends: vec![append], ..Commit::default() }
}

fn workflow_row(desk: &Desk) {
    let begins = NewWorkflow {
        tenant: "acme".into(),
        definition: Some(Hash::of_bytes(b"d")),
        name: "article".into(),
        input_hash: Some(Hash::of_bytes(b"i")),
        parent: None,
    };
    let commit = begin("a", begins.clone(), None);
    let started_at = commit.appends[0].events[0].timestamp;
    desk.commit(commit).unwrap();
    let row = desk.store.workflow("a").unwrap().unwrap();
    let expected = WorkflowRow {
        workflow_id: "a".into(),
        shard: 0,
        tenant: begins.tenant,
        definition: begins.definition,
        name: begins.name,
        input_hash: begins.input_hash,
        parent: None,
        status: "running".into(),
        version: 2,
        started_at,
        wake_at: None,
    };
    assert_eq!(row, expected);
    desk.commit(status("a", "completed")).unwrap();
    let row = desk.store.workflow("a").unwrap().unwrap();
    assert_eq!(row, WorkflowRow { status: "completed".into(), version: 3, ..expected });
    // A stream that is no workflow has a row too.
    desk.append("plain", Expected::Any, events(1)).unwrap();
    let row = desk.store.workflow("plain").unwrap().unwrap();
    assert_eq!((row.definition, row.name.as_str(), row.version), (None, "", 1));
    assert_eq!(desk.store.workflow("nobody").unwrap(), None);
}

fn lists(desk: &Desk) {
    let definition = |text: &str| Some(Hash::of_bytes(text.as_bytes()));
    for (id, name, status) in [
        ("a", "article", None),
        ("b", "article", Some("waiting")),
        ("c", "review", Some("completed")),
        ("d", "review", Some("failed")),
        ("e", "review", Some("paused")),
        ("f", "order 1.0.0", None),
        ("g", "order 1.1.0", Some("failed")),
    ] {
        let begins =
            NewWorkflow { name: name.into(), definition: definition(name), ..NewWorkflow::default() };
        desk.commit(begin(id, begins, status)).unwrap();
    }
    desk.commit(status("b", "cancelled")).unwrap();
    let list = |filter: Filter| -> String {
        let rows = desk.store.workflows(&filter).unwrap();
        rows.iter().map(|row| &*row.workflow_id).collect::<Vec<_>>().join(" ")
    };
    let all = Filter::default;
    let of = |wanted: &str| Filter { definition: Some(wanted.into()), ..all() };
    assert_eq!(list(all()), "g f e d c b a");
    assert_eq!(list(Filter { limit: 2, ..all() }), "g f");
    assert_eq!(list(Filter { status: Some("running".into()), ..all() }), "f a");
    assert_eq!(list(Filter { status: Some("waiting".into()), ..all() }), "");
    assert_eq!(list(Filter { only_unfinished: true, ..all() }), "f e a");
    assert_eq!(list(Filter { only_unfinished: true, limit: 1, ..all() }), "f");
    assert_eq!(list(of("review")), "e d c");
    assert_eq!(list(Filter { only_unfinished: true, ..of("article") }), "a");
    let hash = Hash::of_bytes(b"article").to_hex();
    assert_eq!(list(of(&hash)), "b a");
    assert_eq!(list(of(&hash[..7])), "b a");
    assert_eq!(list(of(&hash[..7].to_uppercase())), "b a");
    assert_eq!(list(of(&hash[..3])), "", "too short to be a hash");
    assert_eq!(list(of("revie")), "", "a name is given whole");
    assert_eq!(list(of("order")), "g f", "a name alone means all its versions");
    assert_eq!(list(of("order 1.1.0")), "g");
    assert_eq!(list(of("order 1")), "", "a version is given whole");
    assert_eq!(list(of("%")), "");
    assert_eq!(list(of("")), "");
}

fn payload(bytes: &[u8]) -> Payload {
    Payload { hash: Hash::of_bytes(bytes), media_type: "image/png".into(), bytes: bytes.into() }
}

fn payloads(desk: &Desk) {
    let (small, large) = (payload(b"\x00\xff"), payload(&vec![7; 3 * 1024 * 1024]));
    for _ in 0..2 {
        let payloads = vec![small.clone(), large.clone(), small.clone()];
        desk.commit(Commit { payloads, ..Commit::default() }).unwrap();
    }
    for kept in [&small, &large] {
        assert!(desk.store.payload(0, &kept.hash).unwrap().as_ref() == Some(kept));
    }
    assert_eq!(desk.store.payload(1, &small.hash).unwrap(), None);
    assert_eq!(desk.store.payload(0, &Hash::ZERO).unwrap(), None);
    // One under a wrong address is refused with all that comes with it, and the store goes on.
    let wrong = Payload { hash: Hash::ZERO, ..small };
    let commit = Commit { payloads: vec![wrong], ..status("a", "running") };
    desk.append("a", Expected::NoStream, events(1)).unwrap();
    assert!(matches!(desk.commit(commit), Err(CommitError::Failed(e)) if e.is_input));
    assert_eq!(desk.version("a"), 1);
    desk.append("a", Expected::Exact(1), events(1)).unwrap();
    desk.is_sound();
}

fn definitions(desk: &Desk) {
    let first = Definition {
        hash: Hash::of_bytes(b"{}"),
        kind: "ows".into(),
        name: "article".into(),
        canonical: "{}".into(),
        source: "# one\n{}".into(),
    };
    let second = Definition { source: "# two\n{}".into(), ..first.clone() };
    desk.commit(Commit { definitions: vec![first.clone()], ..Commit::default() }).unwrap();
    desk.commit(Commit { definitions: vec![second], ..Commit::default() }).unwrap();
    assert_eq!(desk.store.definition(&first.hash).unwrap(), Some(first));
    assert_eq!(desk.store.definition(&Hash::ZERO).unwrap(), None);
}

fn command(id: &str, body: Value) -> InboxCommand {
    InboxCommand { id: id.into(), shard: 0, actor: "me".into(), body }
}

fn consume(id: &str, answer: Value) -> Commit {
    Commit { consumed: vec![(id.into(), answer)], ..Commit::default() }
}

fn inbox(desk: &Desk) {
    for (id, body) in [("2", json!({"b": [1]})), ("1", json!("a")), ("3", json!(null))] {
        desk.store.send(command(id, body)).unwrap();
    }
    desk.store.send(command("2", json!("another body is left out"))).unwrap();
    desk.store.send(InboxCommand { shard: 5, ..command("4", json!(0)) }).unwrap();
    let open =
        || -> Vec<String> { desk.store.commands(0).unwrap().into_iter().map(|command| command.id).collect() };
    assert_eq!(open(), ["2", "1", "3"], "oldest first");
    assert_eq!(desk.store.commands(0).unwrap()[0], command("2", json!({"b": [1]})));
    assert_eq!(desk.store.answer("1").unwrap(), None);
    desk.commit(consume("1", json!({"ok": true}))).unwrap();
    assert_eq!(desk.store.answer("1").unwrap(), Some(json!({"ok": true})));
    assert_eq!(open(), ["2", "3"]);
    let answered = |id: &str| Err(CommitError::CommandAnswered { id: id.into() });
    assert_eq!(desk.commit(consume("1", json!("again"))), answered("1"));
    assert_eq!(desk.commit(consume("nobody", json!(1))), answered("nobody"));
    let mut twice = consume("2", json!(1));
    twice.consumed.push(("2".into(), json!(2)));
    assert_eq!(desk.commit(twice), answered("2"));
    // Sent again after it was answered: still delivered once.
    desk.store.send(command("1", json!("a"))).unwrap();
    assert_eq!(open(), ["2", "3"]);
    assert_eq!(desk.store.answer("1").unwrap(), Some(json!({"ok": true})));
}

fn answered_with_events(desk: &Desk) {
    desk.store.send(command("c", json!("go"))).unwrap();
    let both =
        |expected| Commit { appends: vec![append("a", expected, events(1))], ..consume("c", json!("gone")) };
    assert!(desk.commit(both(Expected::Exact(4))).is_err());
    assert_eq!(desk.store.answer("c").unwrap(), None, "a refused commit answers nobody");
    let results = desk.commit_all(vec![both(Expected::Any), both(Expected::Any)]);
    assert!(results[0].1.is_ok());
    assert_eq!(results[1].1, Err(CommitError::CommandAnswered { id: "c".into() }));
    assert_eq!(desk.version("a"), 1, "a command is never done twice");
}

fn wakeups(desk: &Desk) {
    let wake = |id: &str, at| Commit { wakeups: vec![(id.into(), at)], ..Commit::default() };
    let wake_at = || desk.store.workflow("a").unwrap().unwrap().wake_at;
    let mut first = begin("a", NewWorkflow::default(), None);
    first.wakeups = vec![("a".into(), Some(70))];
    desk.commit(first).unwrap();
    assert_eq!(wake_at(), Some(70));
    desk.commit(wake("a", Some(90))).unwrap();
    assert_eq!(wake_at(), Some(90));
    desk.commit(wake("a", None)).unwrap();
    assert_eq!(wake_at(), None);
    desk.commit(wake("a", None)).unwrap();
    let unknown = desk.commit(wake("nobody", Some(1)));
    assert_eq!(unknown, Err(CommitError::Conflict { workflow_id: "nobody".into(), actual: 0 }));
}

fn checkpoints(desk: &Desk) {
    let set = |before, after| Commit {
        checkpoints: vec![("p".into(), before, after)],
        projection_rows: vec![("p".into(), "sum".into(), Some(json!(after)))],
        ..Commit::default()
    };
    let sum = || desk.store.projection("p").unwrap();
    desk.append("a", Expected::Any, events(9)).unwrap();
    assert_eq!(desk.store.checkpoint(0, "p").unwrap(), 0);
    desk.commit(set(0, 4)).unwrap();
    let moved = |actual| Err(CommitError::CheckpointMoved { projection: "p".into(), actual });
    assert_eq!(desk.commit(set(0, 9)), moved(4));
    assert_eq!(sum(), [("sum".to_owned(), json!(4))], "rows and checkpoint are one");
    desk.commit(set(4, 9)).unwrap();
    assert_eq!(desk.store.checkpoint(0, "p").unwrap(), 9);
    assert_eq!(desk.store.checkpoint(0, "other").unwrap(), 0);
    assert_eq!(desk.store.checkpoint(3, "p").unwrap(), 0);
    // A rebuild starts again from nothing.
    desk.commit(set(9, 0)).unwrap();
    assert_eq!(desk.store.checkpoint(0, "p").unwrap(), 0);
    let mut twice = set(0, 1);
    twice.checkpoints.push(("p".into(), 1, 2));
    desk.commit(twice).unwrap();
    assert_eq!(desk.store.checkpoint(0, "p").unwrap(), 2);
}

fn projections(desk: &Desk) {
    let rows = |rows: &[(&str, &str, Option<Value>)]| Commit {
        projection_rows: rows.iter().map(|(p, k, v)| ((*p).into(), (*k).into(), v.clone())).collect(),
        ..Commit::default()
    };
    desk.commit(rows(&[
        ("p", "b", Some(json!(1))),
        ("p", "a", Some(json!({"x": null}))),
        ("q", "a", Some(json!("other"))),
    ]))
    .unwrap();
    desk.commit(rows(&[("p", "b", Some(json!(2))), ("p", "none", None)])).unwrap();
    let read = |p: &str| desk.store.projection(p).unwrap();
    assert_eq!(read("p"), [("a".to_owned(), json!({"x": null})), ("b".to_owned(), json!(2))]);
    let one = |shard, p: &str, key: &str| desk.store.projection_row(shard, p, key).unwrap();
    assert_eq!(one(0, "p", "b"), Some(json!(2)));
    assert_eq!(one(0, "q", "a"), Some(json!("other")));
    assert_eq!([one(0, "q", "b"), one(0, "p", "none"), one(1, "p", "b")], [None, None, None]);
    desk.commit(rows(&[("p", "a", None)])).unwrap();
    assert_eq!(read("p"), [("b".to_owned(), json!(2))]);
    assert_eq!(read("q").len(), 1);
    assert_eq!(read("nothing"), []);
}

fn snapshots(desk: &Desk) {
    let snapshot = |version, state: &[u8]| Snapshot {
        workflow_id: Arc::from("a"),
        version,
        event_hash: Hash::of_bytes(b"e"),
        state_schema: 1,
        fingerprint: Hash::of_bytes(state),
        state: state.into(),
    };
    desk.append("a", Expected::Any, events(9)).unwrap();
    for (version, state) in [(3, b"three"), (8, b"eight")] {
        let snapshots = vec![snapshot(version, state)];
        desk.commit(Commit { snapshots, ..Commit::default() }).unwrap();
    }
    let at_most = |version| desk.store.snapshot("a", version).unwrap();
    assert_eq!(at_most(2), None);
    assert_eq!(at_most(3), Some(snapshot(3, b"three")));
    assert_eq!(at_most(7), Some(snapshot(3, b"three")));
    assert_eq!(at_most(u64::MAX), Some(snapshot(8, b"eight")));
    assert_eq!(desk.store.snapshot("b", 9).unwrap(), None);
    // Taken anew at the same version, the newer one stands.
    desk.commit(Commit { snapshots: vec![snapshot(8, b"again")], ..Commit::default() }).unwrap();
    assert_eq!(at_most(9), Some(snapshot(8, b"again")));
}

fn changes(desk: &Desk) {
    let mut before = desk.store.change_counter().unwrap();
    let mut changed = |what: &str| {
        let after = desk.store.change_counter().unwrap();
        assert_ne!(after, before, "{what} is seen");
        assert_eq!(desk.store.change_counter().unwrap(), after, "nothing happened meanwhile");
        before = after;
    };
    desk.append("a", Expected::Any, events(1)).unwrap();
    changed("an append");
    desk.append("a", Expected::Any, vec![supplied(1, "x")]).unwrap();
    changed("another append");
    desk.store.send(command("c", json!(1))).unwrap();
    changed("a command");
    desk.commit(consume("c", json!(2))).unwrap();
    changed("an answer");
}
