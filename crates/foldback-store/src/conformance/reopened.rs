//! What must outlive the process.

use std::sync::Arc;

use foldback_core::Hash;
use foldback_core::value::Payload;
use serde_json::json;

use super::{Desk, append, events, supplied, verify_from};
use crate::contract::*;
use crate::projections::ProjectionRow;

pub(super) fn everything_is_there(open: &dyn Fn() -> Arc<dyn Store>) {
    let payload =
        Payload { hash: Hash::of_bytes(b"bytes"), media_type: "text/plain".into(), bytes: b"bytes".into() };
    let projection = ProjectionRow {
        name: "p".into(),
        is_live: true,
        version: "1".into(),
        source: "a file".into(),
        rows: "p#1".into(),
        failure: None,
    };
    let desk = Desk::at(open());
    desk.append("a", Expected::NoStream, vec![supplied(1, "one")]).unwrap();
    desk.append("a", Expected::Exact(1), events(3)).unwrap();
    for id in ["1", "2"] {
        let (id, actor, body) = (id.into(), "me".into(), json!("go"));
        desk.store.send(InboxCommand { id, shard: 0, actor, body }).unwrap();
    }
    desk.commit(Commit {
        appends: vec![Append { status: Some("waiting"), ..append("b", Expected::NoStream, events(2)) }],
        payloads: vec![payload.clone()],
        wakeups: vec![("b".into(), Some(99))],
        listens: vec![("b".into(), vec!["x".into()])],
        consumed: vec![("1".into(), json!("gone"))],
        checkpoints: vec![("p#1".into(), 0, 6)],
        projection_rows: vec![("p#1".into(), "k".into(), Some(json!(1)))],
        projections: vec![("p".into(), vec![projection.clone()])],
        ..Commit::default()
    })
    .unwrap();
    let (feed, rows, epoch) = (desk.feed(), desk.store.workflows(&Filter::default()).unwrap(), desk.epoch);
    drop(desk);

    let desk = Desk::at(open());
    assert!(desk.epoch > epoch, "each owner has a higher epoch");
    assert_eq!(desk.feed(), feed);
    assert_eq!(desk.store.workflows(&Filter::default()).unwrap(), rows);
    assert_eq!(desk.store.payload(0, &payload.hash).unwrap(), Some(payload));
    assert_eq!(desk.store.answer("1").unwrap(), Some(json!("gone")));
    assert_eq!(desk.store.commands(0).unwrap().len(), 1);
    assert_eq!(desk.store.listeners(0, "x").unwrap(), ["b".into()]);
    assert_eq!(desk.store.checkpoint(0, "p#1").unwrap(), 6);
    assert_eq!(desk.store.projection("p").unwrap(), [("k".to_owned(), json!(1))]);
    assert_eq!(desk.store.projections().unwrap(), [projection]);
    // What is known is known, and the counters go on.
    assert!(desk.append("a", Expected::NoStream, vec![supplied(1, "one")]).unwrap().is_repeat);
    let appended = desk.append("a", Expected::Exact(4), events(1)).unwrap();
    assert_eq!((appended.last, appended.position), (5, 7));
    desk.append("c", Expected::NoStream, events(1)).unwrap();
    verify_from(Hash::ZERO, &desk.log("a"));
    // The owner before can write nothing any more.
    let stale = Commit { epoch, appends: vec![append("a", Expected::Any, events(1))], ..Commit::default() };
    assert_eq!(desk.commit_as_is(stale), Err(CommitError::StaleEpoch { actual: desk.epoch }));
    desk.is_sound();
}
