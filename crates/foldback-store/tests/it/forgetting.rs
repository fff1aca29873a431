//! Forgetting in a file: what raw SQL is still refused, what is left in the bytes, files of before.

use std::path::Path;

use crate::desk::{Desk, event, url};
use foldback_core::Hash;
use foldback_core::value::Payload;
use foldback_store::{
    Append, Commit, CommitError, Erasure, Expected, InboxCommand, NewEvent, Pruning, chain, open,
    open_existing,
};
use rusqlite::Connection;
use serde_json::json;

fn payload(text: &str) -> Payload {
    Payload { hash: Hash::of_bytes(text.as_bytes()), media_type: "text/plain".into(), bytes: text.into() }
}

fn write(desk: &Desk, id: &str, value: &Payload, status: Option<&'static str>) {
    let mention = NewEvent { payload: format!("{{\"ref\":\"{}\"}}", value.hash), ..event("") };
    let events = vec![mention, event("2")];
    let append = Append { workflow_id: id.into(), expected: Expected::Any, events, begins: None, status };
    let commit = Commit { appends: vec![append], payloads: vec![value.clone()], ..Commit::default() };
    desk.commit(commit).unwrap();
}

fn prune(desk: &Desk, id: &str) {
    let (workflow_id, actor) = (id.into(), "ann".to_owned());
    let pruning = Pruning { shard: 0, epoch: desk.epoch, workflow_id, before: i64::MAX, at: 9, actor };
    desk.store.prune(&pruning).unwrap();
}

fn erase(desk: &Desk, value: &Payload) {
    let (actor, reason) = ("ann".to_owned(), "asked to".to_owned());
    let erasure = Erasure { shard: 0, epoch: desk.epoch, hash: value.hash, at: 9, actor, reason };
    desk.store.erase(&erasure).unwrap();
}

fn raw(dir: &tempfile::TempDir) -> Connection {
    Connection::open(dir.path().join("foldback.db")).unwrap()
}

/// Whether some file of the directory holds these bytes.
fn is_in_the_files(dir: &Path, needle: &[u8]) -> bool {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().any(|file| {
        let bytes = std::fs::read(file).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

#[test]
fn nothing_else_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    let [kept, gone] = ["kept", "gone"].map(payload);
    write(&desk, "kept", &kept, Some("completed"));
    write(&desk, "gone", &gone, Some("completed"));
    erase(&desk, &gone);
    prune(&desk, "gone");
    let conn = raw(&dir);
    for change in [
        "DELETE FROM log",
        "DELETE FROM log WHERE workflow = 1 AND version = 2",
        "UPDATE log SET workflow = 2",
        "UPDATE log SET payload = '{}' WHERE position = 1",
        "DELETE FROM payloads",
        "UPDATE payloads SET bytes = x'00'",
        "UPDATE pruned SET positions = '[]'",
        "DELETE FROM pruned",
        "INSERT INTO workflows (n, id, shard, tenant, name, status, started_at) VALUES (9, 'gone', 0, '', '', 'running', 0)",
    ] {
        let refused = conn.execute(change, []).unwrap_err().to_string();
        assert!(refused.contains("never"), "{change}: {refused}");
    }
    desk.is_sound();
    // A row that signs off nothing that was there, or less than was taken, is found.
    conn.execute_batch("DROP TRIGGER pruned_is_never_updated; UPDATE pruned SET positions = '[[3,3]]'")
        .unwrap();
    let problems = desk.store.check().unwrap();
    assert!(problems[0].contains("its head is 4, its last event is at position 3"), "{problems:?}");
    conn.execute_batch("UPDATE pruned SET positions = '[[2,4]]'").unwrap();
    let problems = desk.store.check().unwrap();
    assert!(problems[0].contains("position 3 was due where positions 2 to 4"), "{problems:?}");
}

#[test]
fn what_is_erased_is_gone_from_the_bytes_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    // One that fits into a page, one that spills over many; both also as a command in the inbox.
    let small = format!("canary-{}", "s".repeat(40));
    let large = format!("CANARY-{}", "l".repeat(100_000));
    for (id, text) in [("small", &small), ("large", &large)] {
        let body = json!({ "input": text });
        desk.store.send(InboxCommand { id: id.into(), shard: 0, actor: "me".into(), body }).unwrap();
        write(&desk, id, &payload(text), Some("completed"));
    }
    write(&desk, "other", &payload("something else"), None);
    let needles = [small.as_bytes(), &large.as_bytes()[..50], &large.as_bytes()[50_000..50_050]];
    for needle in needles {
        assert!(is_in_the_files(dir.path(), needle), "the test sees what is there");
    }
    let answers = ["small", "large"].map(|id| (id.to_owned(), json!("done")));
    desk.commit(Commit { consumed: answers.into(), ..Commit::default() }).unwrap();
    erase(&desk, &payload(&small));
    erase(&desk, &payload(&large));
    for needle in needles {
        assert!(!is_in_the_files(dir.path(), needle), "{:?}", String::from_utf8_lossy(needle));
    }
    assert!(is_in_the_files(dir.path(), b"something else"));
    for id in ["small", "large"] {
        let log = desk.store.read(id, 0, 9).unwrap();
        chain::verify_chain(Hash::ZERO, &log[0]).unwrap();
        chain::verify_chain(log[0].hash, &log[1]).unwrap();
    }
    desk.is_sound();
}

#[test]
fn what_is_pruned_is_gone_from_the_bytes_of_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    let value = payload(&"canary ".repeat(2_000));
    for i in 0..40 {
        let id = format!("w{}", i % 2);
        desk.append(&id, Expected::Any, vec![event(&format!("{} of {id}", "filler ".repeat(90)))]).unwrap();
    }
    write(&desk, "w1", &value, Some("completed"));
    prune(&desk, "w1");
    assert_eq!(desk.store.sweep(0, desk.epoch).unwrap().payloads, 1);
    assert!(!is_in_the_files(dir.path(), b"filler  of w1") && !is_in_the_files(dir.path(), b"canary canary"));
    assert!(is_in_the_files(dir.path(), b"filler  of w0"));
    assert_eq!(desk.store.read("w0", 0, 99).unwrap().len(), 20);
    desk.is_sound();
}

#[test]
fn a_writer_that_remembers_a_pruned_workflow_begins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    write(&desk, "a", &payload("x"), Some("failed"));
    let before = desk.store.feed(0, 0, 9).unwrap().len();
    prune(&desk, "a");
    let conflict = Err(CommitError::Conflict { workflow_id: "a".into(), actual: 2 });
    assert_eq!(desk.append("a", Expected::Exact(2), vec![event("3")]), conflict);
    assert_eq!((before, desk.store.feed(0, 0, 9).unwrap().len()), (2, 0));
    desk.is_sound();
}

#[test]
fn a_store_of_version_1_opens_and_works() {
    let dir = tempfile::tempdir().unwrap();
    let conn = raw(&dir);
    conn.execute_batch(include_str!("../schemas/1.sql")).unwrap();
    // As version 1 wrote it: two events of one workflow, an answered command with its values.
    let hash = payload("kept").hash;
    conn.execute_batch(
        "INSERT INTO inbox (id, shard, actor, body, sent_at, answer) VALUES ('1', 0, 'me', '\"canary-in-the-inbox\"', 0, '1')",
    )
    .unwrap();
    conn.execute(
        "INSERT INTO payloads (shard, hash, media_type, bytes) VALUES (0, ?, 'text/plain', ?)",
        rusqlite::params![hash.0, b"kept"],
    )
    .unwrap();
    drop(conn);

    let desk = Desk::take(open_existing(&url(&dir)).unwrap());
    write(&desk, "a", &payload("kept"), Some("completed"));
    assert_eq!(desk.store.payload(0, &hash).unwrap(), Some(payload("kept")));
    erase(&desk, &payload("kept"));
    prune(&desk, "a");
    assert!(!is_in_the_files(dir.path(), b"canary-in-the-inbox"));
    assert!(raw(&dir).execute("DELETE FROM payloads", []).is_ok(), "there is none any more");
    desk.is_sound();
    drop(desk);
    Desk::take(open(&url(&dir)).unwrap()).is_sound();

    assert_eq!(tables(&dir), tables_of_a_new_store());
}

fn tables(dir: &tempfile::TempDir) -> Vec<String> {
    let conn = raw(dir);
    let mut ask =
        conn.prepare("SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite_%' ORDER BY name").unwrap();
    ask.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn tables_of_a_new_store() -> Vec<String> {
    let fresh = tempfile::tempdir().unwrap();
    open(&url(&fresh)).unwrap();
    tables(&fresh)
}

/// As version 2 left it: one workflow of five events, and what the projections made of it.
fn of_version_2() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    raw(&dir).execute_batch(include_str!("../schemas/2.sql")).unwrap();
    dir
}

#[test]
fn a_store_of_version_2_keeps_its_projections() {
    let dir = of_version_2();
    let store = open_existing(&url(&dir)).unwrap();
    assert_eq!(tables(&dir), tables_of_a_new_store());
    let known: Vec<_> =
        store.projections().unwrap().into_iter().map(|row| (row.name, row.rows, row.is_live)).collect();
    let live = |name: &str| (name.to_owned(), name.to_owned(), true);
    assert_eq!(known, [live("decisions"), live("model_usage"), live("workflows")]);
    assert_eq!(store.projection("workflows").unwrap().len(), 1);
    let ask = |sql: &str| raw(&dir).query_row(sql, [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(ask("SELECT key || ' ' || status FROM steps"), "score completed");
    assert_eq!(ask("SELECT definition FROM workflow_summaries"), "triage 1.0.0");
    assert_eq!(ask("SELECT chosen FROM decisions"), "short");
    assert_eq!(ask("SELECT key FROM workflow_projections WHERE projection = 'workflows'"), "a");
    Desk::take(store).is_sound();
}

#[test]
fn a_store_of_version_3_is_told_who_listens() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    write(&desk, "a", &payload("kept"), None);
    drop(desk);
    // All that version 4 has and version 3 had not.
    raw(&dir).execute_batch("DROP TABLE listeners; PRAGMA user_version = 3;").unwrap();
    assert_ne!(tables(&dir), tables_of_a_new_store());
    let desk = Desk::take(open_existing(&url(&dir)).unwrap());
    assert_eq!(tables(&dir), tables_of_a_new_store());
    let listens = vec![("a".into(), vec!["x".into()])];
    desk.commit(Commit { listens, ..Commit::default() }).unwrap();
    assert_eq!(desk.store.listeners(0, "x").unwrap(), ["a".into()]);
    assert_eq!(desk.store.read("a", 0, 9).unwrap().len(), 2, "its log is as it was");
    desk.is_sound();
}

#[test]
fn tables_are_not_changed_under_an_older_program() {
    let dir = of_version_2();
    let lock = dir.path().join("foldback.db-lock");
    let held = std::fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    let Err(refused) = open_existing(&url(&dir)) else { panic!("it was opened") };
    assert!(refused.message.contains("in use by an older foldback"), "{refused}");
    assert!(refused.is_input && refused.hint.is_some());
    drop(held);
    assert!(open_existing(&url(&dir)).is_ok());
}
