//! Who listens, and what is handed to them: in the commit of what is said, or not at all.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Case, Desk, append, event, events};
use crate::contract::*;
use crate::forgetting::{Pruning, Swept};
use foldback_core::Hash;
use foldback_core::value::Payload;

pub(super) const CASES: &[Case] = &[
    ("names that a workflow listens for are set, changed and taken away", set),
    ("an emit is a command for each that listens, by name", emitted),
    ("who begins to listen in a commit is handed what comes behind it", as_of_before),
    ("a refused commit hands on nothing and changes no listener", refused),
    ("a command is sent once by its id, answered or not", sent_once),
    ("several emits lie in their order, also for a workflow that begins later in the queue", ordered),
    ("who listens for nothing known is refused", unknown),
    ("a pruned workflow listens no more", pruned),
    ("what an open command refers to is not swept", not_swept),
    ("an emit to a crowd", crowd),
];

fn names(names: &[&str]) -> Vec<Arc<str>> {
    names.iter().map(|name| Arc::from(*name)).collect()
}

fn listens(id: &str, to: &[&str]) -> Commit {
    Commit { listens: vec![(id.into(), names(to))], ..Commit::default() }
}

fn emit(id: &str, name: &str) -> Emit {
    Emit { name: name.into(), id: id.into(), actor: "workflow:e".into(), body: json!({"command": "event"}) }
}

fn emits(emits: &[(&str, &str)]) -> Commit {
    let emits = emits.iter().map(|(id, name)| emit(id, name)).collect();
    Commit { emits, ..Commit::default() }
}

fn begun(desk: &Desk, ids: &[&str]) {
    for id in ids {
        desk.append(id, Expected::NoStream, events(1)).unwrap();
    }
}

fn inbox(desk: &Desk) -> Vec<String> {
    desk.store.commands(0).unwrap().into_iter().map(|command| command.id).collect()
}

fn set(desk: &Desk) {
    begun(desk, &["b", "a", "c"]);
    let who = |name: &str| desk.store.listeners(0, name).unwrap();
    let what = |id: &str| desk.store.listens(id).unwrap();
    assert_eq!((who("x"), what("a")), (vec![], vec![]));
    desk.commit(listens("a", &["x", "y"])).unwrap();
    desk.commit(listens("b", &["x"])).unwrap();
    assert_eq!(who("x"), names(&["b", "a"]), "in the order in which they began");
    assert_eq!(what("a"), names(&["x", "y"]));
    desk.commit(listens("a", &["y", "z"])).unwrap();
    assert_eq!((who("x"), who("y"), who("z")), (names(&["b"]), names(&["a"]), names(&["a"])));
    desk.commit(listens("a", &[])).unwrap();
    desk.commit(listens("a", &[])).unwrap();
    assert_eq!((what("a"), who("z"), what("nobody")), (vec![], vec![], vec![]));
    assert_eq!(desk.store.listeners(7, "x").unwrap(), vec![]);
    assert_eq!(who("X"), vec![], "a name is a name");
}

fn emitted(desk: &Desk) {
    begun(desk, &["a", "b", "c"]);
    for (id, to) in [("a", &["x", "y"][..]), ("b", &["x"]), ("c", &["xx"])] {
        desk.commit(listens(id, to)).unwrap();
    }
    let before = desk.store.change_counter().unwrap();
    let said = Commit { appends: vec![append("e", Expected::NoStream, events(1))], ..emits(&[("1", "x")]) };
    desk.commit(said).unwrap();
    assert_ne!(desk.store.change_counter().unwrap(), before, "an owner sees it");
    let commands = desk.store.commands(0).unwrap();
    let told: Vec<_> = commands.iter().map(|c| (&*c.id, &*c.actor, &c.body["workflow_id"])).collect();
    assert_eq!(
        told,
        [("1:a", "workflow:e", &json!("a")), ("1:b", "workflow:e", &json!("b"))],
        "by the whole name, in the order in which they began"
    );
    assert_eq!(commands[0].body["command"], "event");
    desk.commit(emits(&[("2", "nobody listens for this")])).unwrap();
    assert_eq!(inbox(desk), ["1:a", "1:b"]);
}

fn as_of_before(desk: &Desk) {
    begun(desk, &["a", "b"]);
    desk.commit(listens("a", &["x"])).unwrap();
    // As of before: `a` is still among them, `b` is not yet.
    let mut both = emits(&[("1", "x")]);
    both.listens = vec![("a".into(), vec![]), ("b".into(), names(&["x"]))];
    desk.commit(both).unwrap();
    assert_eq!(inbox(desk), ["1:a"]);
    // Queued at once, each sees what those before it have done, and nothing of those behind.
    desk.commit_all(vec![
        emits(&[("2", "x")]),
        listens("b", &[]),
        emits(&[("3", "x")]),
        listens("a", &["x"]),
        emits(&[("4", "x")]),
    ]);
    assert_eq!(inbox(desk), ["1:a", "2:b", "4:a"]);
}

fn refused(desk: &Desk) {
    begun(desk, &["a", "b"]);
    desk.commit(listens("a", &["x"])).unwrap();
    let mut commit =
        Commit { appends: vec![append("b", Expected::Exact(9), events(1))], ..emits(&[("1", "x")]) };
    commit.sends = vec![InboxCommand { id: "s".into(), shard: 0, actor: "me".into(), body: Value::Null }];
    commit.listens = vec![("b".into(), names(&["x"]))];
    assert!(desk.commit(commit).is_err());
    assert_eq!((inbox(desk), desk.store.listeners(0, "x").unwrap()), (vec![], names(&["a"])));
    let stale = desk.commit_as_is(Commit { epoch: desk.epoch + 1, ..emits(&[("1", "x")]) });
    assert!(stale.is_err());
    assert_eq!(inbox(desk), Vec::<String>::new());
}

fn sent_once(desk: &Desk) {
    begun(desk, &["a"]);
    desk.commit(listens("a", &["x"])).unwrap();
    let send = |id: &str, body: Value| Commit {
        sends: vec![InboxCommand { id: id.into(), shard: 0, actor: "me".into(), body }],
        ..Commit::default()
    };
    desk.commit(send("s", json!(1))).unwrap();
    desk.commit(send("s", json!(2))).unwrap();
    assert_eq!(desk.store.commands(0).unwrap()[0].body, json!(1));
    // One that is sent by its name is not handed over again as one of those who listen.
    let mut twice = emits(&[("1", "x"), ("1", "x")]);
    twice.sends = vec![emit("1", "x").to("a", 0)];
    desk.commit(twice).unwrap();
    assert_eq!(inbox(desk), ["s", "1:a"]);
    let answer = Commit { consumed: vec![("1:a".into(), json!("done"))], ..Commit::default() };
    desk.commit(answer).unwrap();
    desk.commit(emits(&[("1", "x")])).unwrap();
    assert_eq!(inbox(desk), ["s"], "it was answered, and stays so");
    assert_eq!(desk.store.answer("1:a").unwrap(), Some(json!("done")));
}

fn ordered(desk: &Desk) {
    begun(desk, &["a"]);
    let begins = Commit {
        appends: vec![append("new", Expected::NoStream, events(1))],
        listens: vec![("new".into(), names(&["x", "y"]))],
        ..Commit::default()
    };
    desk.commit_all(vec![
        listens("a", &["x", "y"]),
        emits(&[("1", "x"), ("2", "y")]),
        begins,
        emits(&[("3", "y"), ("4", "x")]),
    ]);
    assert_eq!(inbox(desk), ["1:a", "2:a", "3:a", "3:new", "4:a", "4:new"]);
}

fn unknown(desk: &Desk) {
    let unknown = desk.commit(listens("nobody", &["x"]));
    assert_eq!(unknown, Err(CommitError::Conflict { workflow_id: "nobody".into(), actual: 0 }));
    assert_eq!(desk.store.listeners(0, "x").unwrap(), vec![]);
}

fn pruned(desk: &Desk) {
    let ends = Append { status: Some("completed"), ..append("a", Expected::NoStream, events(1)) };
    let commit = Commit { appends: vec![ends], ..listens("a", &["x"]) };
    desk.commit(commit).unwrap();
    let pruning = Pruning {
        shard: 0,
        epoch: desk.epoch,
        workflow_id: "a".into(),
        before: i64::MAX,
        at: 1,
        actor: "me".into(),
    };
    desk.store.prune(&pruning).unwrap();
    assert_eq!((desk.store.listeners(0, "x").unwrap(), desk.store.listens("a").unwrap()), (vec![], vec![]));
    desk.commit(emits(&[("1", "x")])).unwrap();
    assert_eq!(inbox(desk), Vec::<String>::new());
}

fn not_swept(desk: &Desk) {
    begun(desk, &["a"]);
    desk.commit(listens("a", &["x"])).unwrap();
    let bytes = b"\"what was said\"".to_vec();
    let payload = Payload { hash: Hash::of_bytes(&bytes), media_type: "application/json".into(), bytes };
    let mut said = emits(&[("1", "x")]);
    said.emits[0].body["data"] = json!({"ref": payload.hash, "bytes": payload.bytes.len()});
    said.payloads = vec![payload.clone()];
    desk.commit(said).unwrap();
    assert_eq!(desk.store.sweep(0, desk.epoch).unwrap(), Swept::default());
    assert_eq!(desk.store.payload(0, &payload.hash).unwrap().as_ref(), Some(&payload));
    let answer = Commit { consumed: vec![("1:a".into(), json!("done"))], ..Commit::default() };
    desk.commit(answer).unwrap();
    assert_eq!(desk.store.sweep(0, desk.epoch).unwrap().payloads, 1, "nobody needs it any more");
}

fn crowd(desk: &Desk) {
    const CROWD: usize = 2_000;
    let ids: Vec<Arc<str>> = (0..CROWD).map(|i| format!("w{i:05}").into()).collect();
    let commit = Commit {
        appends: ids.iter().map(|id| append(id, Expected::NoStream, vec![event("begins")])).collect(),
        listens: ids.iter().map(|id| (id.clone(), names(&["x"]))).collect(),
        ..Commit::default()
    };
    desk.commit(commit).unwrap();
    desk.commit(emits(&[("1", "x")])).unwrap();
    let expected: Vec<String> = ids.iter().map(|id| format!("1:{id}")).collect();
    assert_eq!(inbox(desk), expected);
}
