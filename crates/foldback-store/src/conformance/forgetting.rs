//! Forgetting: tombstones, signed-off rows, and everything else left as it was.

use foldback_core::Hash;
use foldback_core::value::Payload;

use super::{Case, Desk, append, event, events, only, supplied, verify_from};
use crate::contract::*;
use crate::forgetting::*;

pub(super) const CASES: &[Case] = &[
    ("an erased payload leaves a tombstone, and the chain holds", erased),
    ("an erased payload takes its snapshots along", snapshots),
    ("a tombstone can come with a commit, and gives way to the value", imported),
    ("a value that comes anew after it was erased is there", anew),
    ("a pruned workflow leaves one signed-off row", pruned),
    ("a pruned id never begins again", never_again),
    ("readers go over the positions of a pruned workflow", holes),
    ("what is not to be pruned stays", stays),
    ("a parent stays while a fork lives", forks),
    ("a sweep takes what no event refers to, and nothing else", swept),
    ("only the owner forgets", owner),
];

const LATER: i64 = i64::MAX;

fn payload(text: &str) -> Payload {
    Payload { hash: Hash::of_bytes(text.as_bytes()), media_type: "text/plain".into(), bytes: text.into() }
}

/// An event that refers to a payload.
fn mention(payload: &Payload) -> NewEvent {
    NewEvent { payload: format!("{{\"output\":{{\"ref\":\"{}\",\"bytes\":1}}}}", payload.hash), ..event("") }
}

fn write(desk: &Desk, id: &str, payloads: &[Payload], status: &'static str) {
    let count = desk.version(id);
    let mut list = payloads.iter().map(mention).collect::<Vec<_>>();
    list.extend(events(2));
    let append = Append { status: Some(status), ..append(id, Expected::Exact(count), list) };
    desk.commit(Commit { appends: vec![append], payloads: payloads.to_vec(), ..Commit::default() }).unwrap();
}

fn erase(desk: &Desk, payload: &Payload) -> Result<Tombstone, NotForgotten> {
    let (actor, reason) = ("ann".to_owned(), "asked to".to_owned());
    desk.store.erase(&Erasure { shard: 0, epoch: desk.epoch, hash: payload.hash, at: 99, actor, reason })
}

fn prune(desk: &Desk, id: &str, before: i64) -> Result<Pruned, NotForgotten> {
    let workflow_id = id.into();
    desk.store.prune(&Pruning {
        shard: 0,
        epoch: desk.epoch,
        workflow_id,
        before,
        at: 99,
        actor: "ann".into(),
    })
}

fn sweep(desk: &Desk) -> u64 {
    desk.store.sweep(0, desk.epoch).expect("swept").payloads
}

fn is_whole(desk: &Desk) {
    assert_eq!(desk.store.check().expect("check"), Vec::<String>::new());
}

fn erased(desk: &Desk) {
    let (gone, kept) = (payload("a name"), payload("another"));
    write(desk, "a", &[gone.clone(), kept.clone()], "running");
    let before = desk.log("a");
    assert_eq!(desk.store.tombstone(0, &gone.hash).unwrap(), None);
    let tombstone = erase(desk, &gone).unwrap();
    let expected = Tombstone {
        hash: gone.hash,
        media_type: "text/plain".into(),
        bytes: 6,
        at: 99,
        actor: "ann".into(),
        reason: "asked to".into(),
    };
    assert_eq!(tombstone, expected);
    assert_eq!(desk.store.payload(0, &gone.hash).unwrap(), None);
    assert_eq!(desk.store.tombstone(0, &gone.hash).unwrap(), Some(expected.clone()));
    assert_eq!(desk.store.payload(0, &kept.hash).unwrap(), Some(kept));
    assert_eq!(desk.log("a"), before, "the log is as it was");
    verify_from(Hash::ZERO, &before);
    // A second time, nothing changes; what never was cannot be erased.
    let again = desk.store.erase(&Erasure {
        shard: 0,
        epoch: desk.epoch,
        hash: gone.hash,
        at: 100,
        actor: "bob".into(),
        reason: String::new(),
    });
    assert_eq!(again, Ok(expected));
    assert_eq!(erase(desk, &payload("never")), Err(NotForgotten::NotThere));
    desk.append("a", Expected::Exact(4), events(1)).unwrap();
    desk.is_sound();
}

fn snapshots(desk: &Desk) {
    let (gone, kept) = (payload("a name"), payload("another"));
    write(desk, "a", &[gone.clone(), kept.clone()], "running");
    let log = desk.log("a");
    let snapshot = |version: usize, of: &Payload| {
        let state = format!("{{\"input\":{{\"ref\":\"{}\"}}}}", of.hash).into_bytes();
        let event_hash = log[version - 1].hash;
        let fingerprint = Hash::of_bytes(&state);
        let workflow_id = "a".into();
        Snapshot { workflow_id, version: version as u64, event_hash, state_schema: 1, fingerprint, state }
    };
    let snapshots = vec![snapshot(2, &kept), snapshot(3, &gone)];
    desk.commit(Commit { snapshots, ..Commit::default() }).unwrap();
    erase(desk, &gone).unwrap();
    assert_eq!(desk.store.snapshot("a", 9).unwrap(), Some(snapshot(2, &kept)));
}

fn imported(desk: &Desk) {
    let (gone, there) = (payload("a name"), payload("another"));
    write(desk, "a", std::slice::from_ref(&there), "running");
    let tombstone = |of: &Payload, actor: &str| Tombstone {
        hash: of.hash,
        media_type: of.media_type.clone(),
        bytes: of.bytes.len() as u64,
        at: 7,
        actor: actor.into(),
        reason: "asked to".into(),
    };
    let import = |id: &str, tombstones| {
        let appends = vec![append(id, Expected::NoStream, vec![mention(&gone)])];
        desk.commit(Commit { appends, tombstones, ..Commit::default() }).unwrap();
    };
    import("b", vec![tombstone(&gone, "ann"), tombstone(&there, "ann")]);
    assert_eq!(desk.store.tombstone(0, &gone.hash).unwrap(), Some(tombstone(&gone, "ann")));
    assert_eq!(desk.store.tombstone(0, &there.hash).unwrap(), None, "the value is there");
    assert_eq!(desk.store.payload(0, &there.hash).unwrap(), Some(there.clone()));
    import("c", vec![tombstone(&gone, "bob")]);
    assert_eq!(
        desk.store.tombstone(0, &gone.hash).unwrap(),
        Some(tombstone(&gone, "ann")),
        "the first stays"
    );
    desk.is_sound();
}

fn anew(desk: &Desk) {
    let value = payload("a name");
    write(desk, "a", std::slice::from_ref(&value), "running");
    erase(desk, &value).unwrap();
    write(desk, "b", std::slice::from_ref(&value), "running");
    assert_eq!(desk.store.payload(0, &value.hash).unwrap(), Some(value.clone()));
    assert_eq!(desk.store.tombstone(0, &value.hash).unwrap(), None, "it is there");
    erase(desk, &value).unwrap();
    assert_eq!(desk.store.payload(0, &value.hash).unwrap(), None);
    assert_eq!(mentions(&*desk.store, 0, &value.hash).unwrap(), [("a".into(), 1), ("b".into(), 1)]);
    desk.is_sound();
}

fn pruned(desk: &Desk) {
    write(desk, "a", &[], "running");
    write(desk, "b", &[], "running");
    write(desk, "a", &[], "completed");
    let (before, b) = (desk.log("a"), desk.log("b"));
    let definition =
        NewWorkflow { definition: Some(Hash::of_bytes(b"d")), name: "d 1".into(), ..NewWorkflow::default() };
    let begun = Append { begins: Some(definition), ..append("c", Expected::NoStream, events(1)) };
    desk.commit(Commit { appends: vec![begun], ..Commit::default() }).unwrap();
    let row = prune(desk, "a", LATER).unwrap();
    let expected = Pruned {
        workflow_id: "a".into(),
        definition: None,
        name: String::new(),
        parent: None,
        status: "completed".into(),
        started_at: before[0].event.timestamp,
        ended_at: before[3].event.timestamp,
        versions: (1, 4),
        hash: before[3].hash,
        positions: vec![(1, 2), (5, 6)],
        pruned_at: 99,
        actor: "ann".into(),
    };
    assert_eq!(row, expected);
    assert_eq!(desk.store.pruned("a").unwrap(), Some(expected));
    assert_eq!(desk.store.pruned("b").unwrap(), None);
    assert_eq!((desk.log("a"), desk.store.workflow("a").unwrap()), (Vec::new(), None));
    assert_eq!(desk.log("b"), b, "others are as they were, each at its position");
    let left = desk.store.workflows(&Filter::default()).unwrap();
    assert_eq!(left.iter().map(|row| &*row.workflow_id).collect::<Vec<_>>(), ["c", "b"]);
    assert_eq!(prune(desk, "a", LATER), Err(NotForgotten::NotThere));
    is_whole(desk);
}

fn never_again(desk: &Desk) {
    let ids = vec![supplied(7, "one"), supplied(8, "two")];
    let first = Append { status: Some("failed"), ..append("a", Expected::NoStream, ids.clone()) };
    desk.commit(Commit { appends: vec![first], ..Commit::default() }).unwrap();
    prune(desk, "a", LATER).unwrap();
    for expected in
        [Expected::Any, Expected::NoStream, Expected::StreamExists, Expected::Exact(0), Expected::Exact(2)]
    {
        let conflict = Err(CommitError::Conflict { workflow_id: "a".into(), actual: 2 });
        assert_eq!(desk.append("a", expected, events(1)), conflict, "{expected:?}");
    }
    assert!(desk.append("a", Expected::NoStream, ids).is_err(), "nor by a repeat");
    assert_eq!(desk.append("b", Expected::NoStream, events(1)).unwrap().position, 3, "positions go on");
    is_whole(desk);
}

fn holes(desk: &Desk) {
    for id in ["a", "b", "c"] {
        write(desk, id, &[], "completed");
    }
    prune(desk, "b", LATER).unwrap();
    let mut seen = Vec::new();
    loop {
        let page = desk.store.feed(0, seen.last().copied().unwrap_or(0), 1).unwrap();
        let Some(event) = page.first() else { break };
        assert!(seen.last() < Some(&event.position), "a reader of pages comes to an end");
        seen.push(event.position);
    }
    assert_eq!(seen, [1, 2, 5, 6], "no reader waits for 3");
    // Neither at the end of the log, nor in what comes after it.
    prune(desk, "c", LATER).unwrap();
    assert_eq!(desk.feed().len(), 2);
    is_whole(desk);
    assert_eq!(desk.append("d", Expected::NoStream, events(1)).unwrap().position, 7);
    assert_eq!(desk.store.feed(0, 2, 9).unwrap().len(), 1);
    desk.commit(Commit { checkpoints: vec![("p".into(), 0, 7)], ..Commit::default() }).unwrap();
    prune(desk, "a", LATER).unwrap();
    is_whole(desk);
}

fn stays(desk: &Desk) {
    for (id, status) in
        [("run", "running"), ("wait", "waiting"), ("unknown", "unknown"), ("done", "completed")]
    {
        write(desk, id, &[], status);
    }
    let feed = desk.feed();
    for id in ["run", "wait", "unknown"] {
        let status = desk.store.workflow(id).unwrap().unwrap().status;
        assert_eq!(prune(desk, id, LATER), Err(NotForgotten::NotEnded { status }));
    }
    let ended_at = desk.log("done")[1].event.timestamp;
    assert_eq!(prune(desk, "done", ended_at), Err(NotForgotten::TooYoung { ended_at }));
    assert_eq!(prune(desk, "nobody", LATER), Err(NotForgotten::NotThere));
    assert_eq!(plan(&*desk.store, ended_at).unwrap(), Plan::default());
    let planned = plan(&*desk.store, ended_at + 1).unwrap().prunable;
    let (row, at) = only(planned);
    assert_eq!((&*row.workflow_id, at), ("done", ended_at));
    assert_eq!(desk.feed(), feed);
    prune(desk, "done", ended_at + 1).unwrap();
    is_whole(desk);
}

fn forks(desk: &Desk) {
    write(desk, "p", &[], "completed");
    let cut_hash = desk.log("p")[0].hash;
    let fork = |id: &str, parent: &str, status| {
        let begins = NewWorkflow { parent: Some((parent.into(), 1, cut_hash)), ..NewWorkflow::default() };
        let append =
            Append { begins: Some(begins), status: Some(status), ..append(id, Expected::Any, events(1)) };
        desk.commit(Commit { appends: vec![append], ..Commit::default() }).unwrap();
    };
    fork("p~1", "p", "completed");
    fork("p~1~1", "p~1", "running");
    write(desk, "q", &[], "failed");
    let ids = |plan: Plan| {
        let prunable: Vec<String> =
            plan.prunable.iter().map(|(row, _)| row.workflow_id.to_string()).collect();
        let kept: Vec<String> =
            plan.kept.iter().map(|(id, forks)| format!("{id} for {}", forks.join(" "))).collect();
        (prunable, kept)
    };
    let planned = ids(plan(&*desk.store, LATER).unwrap());
    assert_eq!(planned, (vec!["q".to_owned()], vec!["p~1 for p~1~1".to_owned(), "p for p~1".to_owned()]));
    let past = desk.log("p~1~1");
    assert_eq!(prune(desk, "p", LATER), Err(NotForgotten::HasForks { forks: vec!["p~1".into()] }));
    assert_eq!(prune(desk, "p~1", LATER), Err(NotForgotten::HasForks { forks: vec!["p~1~1".into()] }));
    assert_eq!(desk.log("p~1~1"), past);
    verify_from(Hash::ZERO, &past);
    // Once the last of them has ended, the family goes in one run, forks first.
    write(desk, "p~1~1", &[], "completed");
    let planned = plan(&*desk.store, LATER).unwrap();
    for (row, _) in &planned.prunable {
        prune(desk, &row.workflow_id, LATER).unwrap();
    }
    assert_eq!(ids(planned).0, ["q", "p~1~1", "p~1", "p"]);
    assert_eq!(desk.feed(), []);
    let row = desk.store.pruned("p~1").unwrap().unwrap();
    assert_eq!((row.parent, row.versions), (Some(("p".into(), 1)), (2, 2)));
    is_whole(desk);
}

fn swept(desk: &Desk) {
    let [own, shared, erased, elsewhere] = ["own", "shared", "erased", "elsewhere"].map(payload);
    write(desk, "a", &[own.clone(), shared.clone(), erased.clone()], "completed");
    write(desk, "b", &[shared.clone(), elsewhere.clone()], "completed");
    erase(desk, &erased).unwrap();
    assert_eq!(sweep(desk), 0, "everything is referred to");
    assert!(desk.store.tombstone(0, &erased.hash).unwrap().is_some());
    prune(desk, "a", LATER).unwrap();
    assert_eq!(desk.store.sweep(0, desk.epoch), Ok(Swept { payloads: 1, bytes: 3 }));
    assert_eq!(desk.store.payload(0, &own.hash).unwrap(), None);
    assert_eq!(desk.store.tombstone(0, &erased.hash).unwrap(), None);
    for kept in [shared, elsewhere] {
        assert_eq!(desk.store.payload(0, &kept.hash).unwrap(), Some(kept));
    }
    is_whole(desk);
}

fn owner(desk: &Desk) {
    let value = payload("a name");
    write(desk, "a", std::slice::from_ref(&value), "completed");
    for epoch in [0, desk.epoch + 1, desk.epoch - 1] {
        let stale = NotForgotten::StaleEpoch { actual: desk.epoch };
        let (hash, actor) = (value.hash, "ann".to_owned());
        let erasure = Erasure { shard: 0, epoch, hash, at: 1, actor: actor.clone(), reason: String::new() };
        assert_eq!(desk.store.erase(&erasure), Err(stale.clone()));
        let pruning = Pruning { shard: 0, epoch, workflow_id: "a".into(), before: LATER, at: 1, actor };
        assert_eq!(desk.store.prune(&pruning), Err(stale.clone()));
        assert_eq!(desk.store.sweep(0, epoch), Err(stale));
    }
    assert_eq!(desk.store.payload(0, &value.hash).unwrap(), Some(value));
    desk.is_sound();
}
