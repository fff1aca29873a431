//! One bit of the file is another, in each byte of its head and in every 127th byte behind it: it is
//! found, or it changed nothing that is read back. Never a panic, never another event, payload,
//! definition or snapshot without a word.
//!
//! What carries no hash of its own is a cache or a word for people: a workflow's name, status and
//! times (`foldback audit` compares them with the log), a definition's name and source, a command that
//! waits in the inbox.

use std::fs;

use crate::desk::{Desk, event, url};
use foldback_core::Hash;
use foldback_core::value::Payload;
use foldback_store::{
    Append, Commit, Definition, Expected, Filter, InboxCommand, NewWorkflow, Recorded, Snapshot, Store,
    StoreResult, WorkflowRow, chain, open_existing,
};
use serde_json::json;

const IDS: [&str; 5] = ["w0", "w1", "w2", "w3", "pinned"];

/// Every log, and the payload.
type Everything = (Vec<Vec<Recorded>>, Vec<Recorded>, Option<Payload>);

fn read(store: &dyn Store, payload: &Hash) -> StoreResult<Everything> {
    let logs = IDS.iter().map(|id| store.read(id, 0, usize::MAX)).collect::<StoreResult<_>>()?;
    Ok((logs, store.feed(0, 0, usize::MAX)?, store.payload(0, payload)?))
}

/// What lies beside the log.
#[derive(Debug, PartialEq)]
struct Beside {
    definition: Option<Definition>,
    snapshot: Option<Snapshot>,
    rows: Vec<WorkflowRow>,
    commands: Vec<InboxCommand>,
}

const CANONICAL: &str = r#"{"do":[{"a":{"set":{"x":1}}}],"document":{"name":"n"}}"#;

fn beside(store: &dyn Store) -> StoreResult<Beside> {
    Ok(Beside {
        definition: store.definition(&Hash::of_bytes(CANONICAL.as_bytes()))?,
        snapshot: store.snapshot("w1", u64::MAX)?,
        rows: store.workflows(&Filter::default())?,
        commands: store.commands(0)?,
    })
}

/// Rows of each kind beside the log.
fn fill(desk: &Desk) {
    let hash = Hash::of_bytes(CANONICAL.as_bytes());
    let definition = Definition {
        hash,
        kind: "ows".into(),
        name: "n 1.0.0".into(),
        canonical: CANONICAL.into(),
        source: "do: ".repeat(100),
    };
    let state = br#"{"version":3,"steps":{}}"#.repeat(40);
    let snapshot = Snapshot {
        workflow_id: "w1".into(),
        version: 3,
        event_hash: desk.store.read("w1", 2, 1).unwrap()[0].hash,
        state_schema: 1,
        fingerprint: Hash::of_bytes(&state),
        state,
    };
    let begins = NewWorkflow {
        tenant: "t".into(),
        definition: Some(hash),
        name: "n 1.0.0".into(),
        input_hash: Some(Hash::of_bytes(b"input")),
        parent: None,
    };
    let append = Append {
        workflow_id: "pinned".into(),
        expected: Expected::NoStream,
        events: vec![event("begun")],
        begins: Some(begins),
        status: Some("waiting"),
    };
    let commit = Commit {
        definitions: vec![definition],
        snapshots: vec![snapshot],
        appends: vec![append],
        wakeups: vec![("pinned".into(), Some(7))],
        ..Commit::default()
    };
    desk.commit(commit).unwrap();
    for i in 0..5 {
        let body = json!({"signal": i, "data": "x".repeat(90)});
        desk.store.send(InboxCommand { id: format!("c{i}"), shard: 0, actor: "me".into(), body }).unwrap();
    }
}

/// What was read beside the log is what was written, or proves itself to be something else, or is of
/// the few things that nothing is derived from.
fn proves_itself(now: &Beside, right: &Beside, offset: usize) {
    if let (Some(now), Some(right)) = (&now.definition, &right.definition) {
        let is_its_hash = Hash::of_bytes(now.canonical.as_bytes()) == now.hash;
        assert!(!is_its_hash || now.canonical == right.canonical, "offset {offset}: another definition");
    }
    if let (Some(now), Some(right)) = (&now.snapshot, &right.snapshot) {
        // It is used only where all of these match, the last against the log.
        let is_trusted = Hash::of_bytes(&now.state) == now.fingerprint
            && now.state_schema == right.state_schema
            && (now.version, now.event_hash) == (right.version, right.event_hash);
        assert!(!is_trusted || now.state == right.state, "offset {offset}: another state");
    }
    for (now, right) in now.rows.iter().zip(&right.rows) {
        let cached = WorkflowRow {
            name: right.name.clone(),
            status: right.status.clone(),
            started_at: right.started_at,
            wake_at: right.wake_at,
            ..now.clone()
        };
        // Id and tenant are in the chain, which `is_whole` looks at; the others a hash or a count names.
        let is_named = cached == *right
            || now.workflow_id != right.workflow_id
            || now.tenant != right.tenant
            || now.shard != right.shard
            || now.definition != right.definition
            || now.input_hash != right.input_hash;
        assert!(is_named, "offset {offset}: {now:?}");
    }
}

fn is_whole(log: &[Recorded]) -> bool {
    let mut previous = Hash::ZERO;
    log.iter().all(|recorded| {
        let is_right = chain::verify_chain(previous, recorded).is_ok();
        previous = recorded.hash;
        is_right
    })
}

#[test]
fn a_flipped_byte_is_found_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foldback.db");
    let desk = Desk::at(&dir);
    for version in 0..12 {
        for id in &IDS[..4] {
            let events = vec![event(&format!("{id} at {version}, {}", "x".repeat(60)))];
            desk.append(id, Expected::Exact(version), events).unwrap();
        }
    }
    let bytes: Vec<u8> = (0..9_000).map(|i| (i % 251) as u8).collect();
    let payload = Payload { hash: Hash::of_bytes(&bytes), media_type: "text/plain".into(), bytes };
    let hash = payload.hash;
    desk.commit(Commit { payloads: vec![payload], ..Commit::default() }).unwrap();
    fill(&desk);
    let right = read(&*desk.store, &hash).unwrap();
    let right_beside = beside(&*desk.store).unwrap();
    assert!(right_beside.definition.is_some() && right_beside.snapshot.is_some());
    assert_eq!((right_beside.rows.len(), right_beside.commands.len()), (5, 5));
    drop(desk);

    let whole = fs::read(&path).unwrap();
    assert_eq!(whole.len() % 4096, 0);
    // The head of the file byte by byte; then all pages in steps that meet each kind of place.
    let offsets = (0..110).chain((110..whole.len()).step_by(127));
    let (mut found, mut quarantined, mut harmless, mut otherwise) = (0, 0, 0, 0);
    for (offset, round) in offsets.zip(0u32..) {
        let mut bytes = whole.clone();
        bytes[offset] ^= 1 << (round % 8);
        fs::write(&path, &bytes).unwrap();
        let store = match open_existing(&url(&dir)) {
            Ok(store) => store,
            Err(error) => {
                assert!(error.message.contains("foldback.db"), "offset {offset}: {error}");
                found += 1;
                continue;
            }
        };
        let problems = store.check().unwrap();
        let now = read(&*store, &hash);
        match beside(&*store) {
            _ if !problems.is_empty() => {}
            Err(_) => found += 1,
            Ok(now) if now == right_beside => {}
            Ok(now) => {
                proves_itself(&now, &right_beside, offset);
                otherwise += 1;
            }
        }
        match now {
            _ if !problems.is_empty() => found += 1,
            Err(_) => found += 1,
            Ok(now) if now == right => harmless += 1,
            Ok((logs, ..)) => {
                // The file is in order; a log is not. It is one, and the others are what they were.
                let broken: Vec<usize> = (0..IDS.len()).filter(|i| !is_whole(&logs[*i])).collect();
                assert_eq!(broken.len(), 1, "offset {offset} of {}: read otherwise, unnoticed", whole.len());
                let others = (0..IDS.len()).filter(|i| !broken.contains(i));
                others.for_each(|i| assert_eq!(logs[i], right.0[i], "offset {offset}"));
                quarantined += 1;
            }
        }
    }
    assert!(found > 100 && quarantined > 50 && harmless > 50, "{found} {quarantined} {harmless}");
    assert!(otherwise > 10, "{otherwise} flips hit what lies beside the log");
}
