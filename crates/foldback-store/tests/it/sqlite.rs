//! The SQLite store: the conformance suite, and what only a file can show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::desk::{Desk, event, url};
use foldback_core::{EventId, Hash};
use foldback_store::{
    Commit, CommitError, Expected, InboxCommand, NewEvent, Recorded, Store, chain, conformance, open,
};
use rusqlite::Connection;
use serde_json::json;

#[test]
fn conforms() {
    let dirs = RefCell::new(Vec::new());
    conformance::run(&|| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&url(&dir)).unwrap();
        dirs.borrow_mut().push(dir);
        store
    });
}

#[test]
fn conforms_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run_reopened(&|| open(&url(&dir)).unwrap());
}

/// Two workflows, six events.
fn small(dir: &tempfile::TempDir) -> Desk {
    let desk = Desk::at(dir);
    for version in 0..3 {
        for id in ["a", "b"] {
            desk.append(id, Expected::Exact(version), vec![event(&format!("{id}{version}"))]).unwrap();
        }
    }
    desk
}

fn file(dir: &tempfile::TempDir) -> Connection {
    Connection::open(dir.path().join("foldback.db")).unwrap()
}

#[test]
fn what_was_written_is_never_changed() {
    let dir = tempfile::tempdir().unwrap();
    let desk = small(&dir);
    let bytes = b"kept".to_vec();
    let payload = foldback_core::value::Payload {
        hash: Hash::of_bytes(&bytes),
        media_type: "text/plain".into(),
        bytes,
    };
    desk.commit(Commit { payloads: vec![payload], ..Commit::default() }).unwrap();
    let conn = file(&dir);
    for change in [
        "UPDATE log SET payload = '{}' WHERE position = 1",
        "UPDATE log SET version = 9",
        "DELETE FROM log WHERE position = 6",
        "DELETE FROM log",
        "UPDATE payloads SET bytes = x'00'",
    ] {
        let refused = conn.execute(change, []).unwrap_err().to_string();
        assert!(refused.contains("never"), "{change}: {refused}");
    }
    assert!(conn.execute("UPDATE workflow_events SET payload = '{}'", []).is_err(), "a view is for reading");
    desk.is_sound();
}

#[test]
fn the_log_is_read_with_plain_sql_by_its_index() {
    let dir = tempfile::tempdir().unwrap();
    let _desk = small(&dir);
    let conn = file(&dir);
    for query in [
        "SELECT * FROM workflow_events WHERE workflow_id = 'a' ORDER BY version",
        "SELECT * FROM workflow_events WHERE workflow_id = 'a' AND version > 1 ORDER BY version DESC LIMIT 1",
        "SELECT * FROM workflow_events WHERE position > 2 ORDER BY position",
    ] {
        let mut ask = conn.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let plan: Vec<String> = ask.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect();
        let plan = plan.join("; ");
        assert!(!plan.contains("SCAN") && !plan.contains("TEMP B-TREE"), "{query}: {plan}");
    }
    let columns: Vec<String> = conn
        .prepare("SELECT * FROM workflow_events")
        .unwrap()
        .column_names()
        .into_iter()
        .map(Into::into)
        .collect();
    assert_eq!(
        columns.join(" "),
        "position id workflow_id version type schema_version payload timestamp causation_id correlation_id actor \
         tenant codec key_id payload_hash hash"
    );
}

#[test]
fn the_chain_can_be_recomputed_from_the_view() {
    let dir = tempfile::tempdir().unwrap();
    let desk = small(&dir);
    let ids = NewEvent {
        causation_id: Some(EventId([0xAB; 16])),
        correlation_id: Some(EventId([0x01; 16])),
        key_id: Some("k".into()),
        ..event("with ids")
    };
    desk.append("a", Expected::Exact(3), vec![ids]).unwrap();
    let conn = file(&dir);
    let mut ask =
        conn.prepare("SELECT * FROM workflow_events WHERE workflow_id = 'a' ORDER BY version").unwrap();
    let id = |text: String| {
        let hex = text.replace('-', "");
        assert_eq!(text.len(), 36, "{text} is a UUID");
        let byte = |i: usize| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap();
        EventId(std::array::from_fn(byte))
    };
    let read = |row: &rusqlite::Row<'_>| {
        let event = NewEvent {
            id: id(row.get("id")?),
            is_id_supplied: false,
            event_type: row.get::<_, String>("type")?.into(),
            schema_version: row.get("schema_version")?,
            payload: row.get("payload")?,
            timestamp: row.get("timestamp")?,
            causation_id: row.get::<_, Option<String>>("causation_id")?.map(id),
            correlation_id: row.get::<_, Option<String>>("correlation_id")?.map(id),
            actor: row.get::<_, String>("actor")?.into(),
            codec: row.get::<_, String>("codec")?.into(),
            key_id: row.get::<_, Option<String>>("key_id")?.map(Into::into),
        };
        Ok(Recorded {
            position: row.get::<_, i64>("position")? as u64,
            workflow_id: row.get::<_, String>("workflow_id")?.into(),
            version: row.get::<_, i64>("version")? as u64,
            event,
            tenant: row.get::<_, String>("tenant")?.into(),
            payload_hash: row.get::<_, String>("payload_hash")?.parse().unwrap(),
            hash: row.get::<_, String>("hash")?.parse().unwrap(),
        })
    };
    let log: Vec<Recorded> = ask.query_map([], read).unwrap().map(Result::unwrap).collect();
    assert_eq!(log, desk.store.read("a", 0, 99).unwrap());
    let mut previous = Hash::ZERO;
    for recorded in &log {
        chain::verify_chain(previous, recorded).unwrap();
        previous = recorded.hash;
    }
}

#[test]
fn a_reader_follows_eight_writers_and_sees_each_position_once() {
    const WRITERS: u64 = 8;
    const EACH: u64 = 150;
    let dir = tempfile::tempdir().unwrap();
    let desk = Arc::new(Desk::at(&dir));
    let other_process = open(&url(&dir)).unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let (follower, over) = (other_process.clone(), is_over.clone());
    let follower = thread::spawn(move || {
        let (mut seen, mut after, mut counter) = (Vec::new(), 0, 0);
        loop {
            let is_last = over.load(Ordering::SeqCst);
            let changed = follower.change_counter().unwrap();
            if changed != counter || is_last {
                counter = changed;
                while let Some(last) = {
                    let page = follower.feed(0, after, 50).unwrap();
                    seen.extend(page.iter().map(|r| (r.position, r.workflow_id.clone(), r.version)));
                    page.last().map(|r| r.position)
                } {
                    after = last;
                }
            }
            if is_last {
                return seen;
            }
        }
    });
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let desk = desk.clone();
            scope.spawn(move || {
                for i in 0..EACH {
                    // One log that all write to, and one of each writer's own.
                    desk.append("shared", Expected::Any, vec![event("x")]).unwrap();
                    desk.append(&format!("w{writer}"), Expected::Exact(i), vec![event("y")]).unwrap();
                }
            });
        }
        // Commands of another process find their gap between the commits.
        for i in 0..20 {
            let command = InboxCommand { id: format!("c{i}"), shard: 0, actor: "me".into(), body: json!(i) };
            other_process.send(command).unwrap();
        }
    });
    is_over.store(true, Ordering::SeqCst);
    let seen = follower.join().unwrap();
    let positions: Vec<u64> = seen.iter().map(|(position, ..)| *position).collect();
    assert_eq!(positions, (1..=WRITERS * EACH * 2).collect::<Vec<_>>());
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for (_, id, version) in &seen {
        let last = versions.entry(id).or_default();
        *last += 1;
        assert_eq!(version, last, "{id} in order");
    }
    assert_eq!(versions["shared"], WRITERS * EACH);
    assert_eq!(desk.store.commands(0).unwrap().len(), 20);
    desk.is_sound();
}

#[test]
fn one_owner_at_a_time_and_the_next_one_knows_what_the_last_one_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (open(&url(&dir)).unwrap(), open(&url(&dir)).unwrap());
    assert_eq!((second.is_owned(0).unwrap(), first.is_owned(0).unwrap()), (Some(false), Some(false)));
    assert!(!dir.path().join("foldback.db-lock").exists(), "to look makes no lock file");
    let ours = first.acquire(0, "first").unwrap().unwrap();
    assert_eq!((second.is_owned(0).unwrap(), first.is_owned(0).unwrap()), (Some(true), Some(true)));
    assert!(second.acquire(0, "second").unwrap().is_none());
    assert!(first.acquire(0, "first again").unwrap().is_none());
    let first = Desk::of(first, ours);
    first.append("a", Expected::NoStream, vec![event("1")]).unwrap();
    let holder = std::fs::read_to_string(dir.path().join("foldback.db-lock")).unwrap();
    assert!(holder.starts_with("first (process "), "{holder}");

    let (first, old_epoch) = first.give_up();
    assert_eq!(second.is_owned(0).unwrap(), Some(false), "free the moment its holder is gone");
    let theirs = second.acquire(0, "second").unwrap().expect("free once its guard is dropped");
    assert!(theirs.epoch > old_epoch);
    let second = Desk::of(second, theirs);
    second.append("a", Expected::Exact(1), vec![event("2"), event("3")]).unwrap();
    second.append("b", Expected::NoStream, vec![event("1")]).unwrap();
    let stale =
        crate::desk::commit(&*first, Commit { epoch: old_epoch, ..crate::desk::one("a", Expected::Any) });
    assert_eq!(stale, Err(CommitError::StaleEpoch { actual: second.epoch }));

    // Back at the first, whose memory of the heads is old by now.
    second.give_up();
    let first = Desk::take(first);
    let conflict = first.append("a", Expected::Exact(1), vec![event("4")]);
    assert_eq!(conflict, Err(CommitError::Conflict { workflow_id: "a".into(), actual: 3 }));
    let appended = first.append("a", Expected::Exact(3), vec![event("4")]).unwrap();
    assert_eq!((appended.last, appended.position), (4, 5));
    first.append("c", Expected::NoStream, vec![event("1")]).unwrap();
    first.is_sound();
}

#[test]
fn after_an_error_of_the_store_nothing_is_written_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let desk = small(&dir);
    let before = desk.store.feed(0, 0, 99).unwrap();
    file(&dir)
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON log WHEN new.type = 'Broken'
             BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END",
        )
        .unwrap();
    let mut broken = crate::desk::one("b", Expected::Any);
    broken.appends[0].events[0].event_type = "Broken".into();
    let results = desk.commit_all(vec![
        crate::desk::one("a", Expected::Any),
        broken,
        crate::desk::one("c", Expected::Any),
    ]);
    let Err(CommitError::Failed(error)) = &results[1] else { panic!("{results:?}") };
    assert!(error.message.contains("foldback.db: the disk is on fire"), "{error}");
    // What shared its transaction failed with it; what came before or after is whole, or refused.
    assert!(matches!(results[2], Err(CommitError::Failed(_))), "{results:?}");
    let written = u64::from(results[0].is_ok());
    file(&dir).execute_batch("DROP TRIGGER broken").unwrap();
    for _ in 0..3 {
        let refused = desk.append("d", Expected::Any, vec![event("x")]);
        assert!(matches!(refused, Err(CommitError::Failed(_))), "nothing is tried again");
    }
    let after = desk.store.feed(0, 0, 99).unwrap();
    assert_eq!(after.len() as u64, before.len() as u64 + written);
    desk.is_sound();
    // Opened anew, it goes on.
    desk.give_up();
    Desk::at(&dir).append("d", Expected::NoStream, vec![event("x")]).unwrap();
}

#[test]
fn dropping_the_store_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    for i in 0..500 {
        let commit = Commit { epoch: desk.epoch, ..crate::desk::one(&format!("w{i}"), Expected::NoStream) };
        desk.store.commit(commit, Box::new(|_| {}));
    }
    desk.give_up();
    assert_eq!(open(&url(&dir)).unwrap().feed(0, 0, 9_999).unwrap().len(), 500);
}

#[test]
fn the_last_handle_may_be_dropped_by_done() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    let (tell, told) = std::sync::mpsc::channel();
    let commit = Commit { epoch: desk.epoch, ..crate::desk::one("a", Expected::NoStream) };
    let (store, epoch) = desk.give_up_epoch();
    let handle: Arc<dyn Store> = store.clone();
    let holds = move |result: Result<_, _>| {
        drop(handle);
        tell.send((epoch, result.is_ok())).unwrap();
    };
    store.commit(commit, Box::new(holds));
    drop(store);
    assert!(told.recv().unwrap().1);
}

/// What another process writes meanwhile is no finding: each look sees one state of the file.
#[test]
fn a_check_beside_a_writer_finds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    desk.append("w", Expected::NoStream, vec![event("first")]).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let checking = scope.spawn(|| {
            let store = open(&url(&dir)).unwrap();
            let found = (0..600).map(|_| store.check().unwrap()).find(|found| !found.is_empty());
            is_over.store(true, Ordering::Relaxed);
            found
        });
        while !is_over.load(Ordering::Relaxed) {
            desk.append("w", Expected::Any, vec![event("next")]).unwrap();
        }
        assert_eq!(checking.join().unwrap(), None);
    });
    desk.is_sound();
}
