//! Appending: what is expected, what is repeated, what fails alone, what order it all has.

use std::sync::mpsc;

use foldback_core::{EventId, Hash};

use super::{Case, Desk, append, event, events, only, supplied, verify_from};
use crate::contract::*;

pub(super) const CASES: &[Case] = &[
    ("the matrix of what is expected", expected_matrix),
    ("an append of several workflows is whole or not at all", whole_or_not),
    ("two appends to one workflow in one commit", two_in_one),
    ("a repeat returns the first result", repeats),
    ("a repeat in part, or with other content, is refused", false_repeats),
    ("a repeat is known by the caller's ids alone", mixed_repeats),
    ("an append without events", without_events),
    ("positions are dense and done comes in order", order),
    ("the feed skips nothing, in pages", feed_pages),
    ("reading in pages", read_pages),
    ("a stale epoch writes not a byte", epoch_fence),
    ("a commit that fails, fails alone", fails_alone),
    ("what is queued behind a refusal", behind_a_refusal),
    ("done may commit again", done_commits),
    ("large payloads and all of Unicode", large_and_strange),
    ("the envelope comes back whole", envelope),
    ("events that share nothing stand beside each other", unlike_neighbours),
    ("the chain holds, and says where it does not", chain),
];

fn expected_matrix(desk: &Desk) {
    use Expected::{Any, Exact, NoStream, StreamExists};
    // What is expected; whether it holds of no workflow, of one at version 1, of one at version 3.
    let table: [(Expected, [bool; 3]); 6] = [
        (Any, [true, true, true]),
        (NoStream, [true, false, false]),
        (StreamExists, [false, true, true]),
        (Exact(0), [true, false, false]),
        (Exact(1), [false, true, false]),
        (Exact(3), [false, false, true]),
    ];
    for (row, (expected, holds)) in table.into_iter().enumerate() {
        for (column, (holds, before)) in holds.into_iter().zip([0, 1, 3]).enumerate() {
            let id = format!("w{row}-{column}");
            if before > 0 {
                desk.append(&id, Any, events(before)).expect("any");
            }
            let result = desk.append(&id, expected, events(2));
            if holds {
                let appended = result.unwrap_or_else(|e| panic!("{expected:?} at {before}: {e:?}"));
                assert_eq!((appended.first, appended.last), (before as u64 + 1, before as u64 + 2));
                assert_eq!(desk.version(&id), before as u64 + 2);
            } else {
                let actual = before as u64;
                assert_eq!(result, Err(CommitError::Conflict { workflow_id: id.as_str().into(), actual }));
                assert_eq!(desk.version(&id), actual, "{expected:?} at {before} left something");
            }
        }
    }
    desk.is_sound();
}

fn whole_or_not(desk: &Desk) {
    desk.append("a", Expected::NoStream, events(1)).unwrap();
    let both = |b: Expected| Commit {
        appends: vec![append("a", Expected::Exact(1), events(1)), append("b", b, events(2))],
        ..Commit::default()
    };
    let refused = desk.commit(both(Expected::StreamExists));
    assert_eq!(refused, Err(CommitError::Conflict { workflow_id: "b".into(), actual: 0 }));
    assert_eq!((desk.version("a"), desk.version("b")), (1, 0));
    assert_eq!(desk.store.workflow("b").unwrap(), None, "a refused workflow leaves no row");
    let appended = desk.commit(both(Expected::NoStream)).unwrap();
    assert_eq!((appended[0].position, appended[1].position), (2, 4));
    desk.is_sound();
}

fn two_in_one(desk: &Desk) {
    let appends = vec![
        append("a", Expected::NoStream, events(2)),
        append("b", Expected::Any, events(1)),
        append("a", Expected::Exact(2), events(1)),
    ];
    let appended = desk.commit(Commit { appends, ..Commit::default() }).unwrap();
    assert_eq!(appended.iter().map(|a| (a.first, a.last)).collect::<Vec<_>>(), [(1, 2), (1, 1), (3, 3)]);
    verify_from(Hash::ZERO, &desk.log("a"));
    desk.is_sound();
}

fn repeats(desk: &Desk) {
    let batch = || vec![supplied(1, "one"), supplied(2, "two")];
    let first = desk.append("a", Expected::NoStream, batch()).unwrap();
    assert!(!first.is_repeat);
    desk.append("a", Expected::Exact(2), events(3)).unwrap();
    // The ids are looked at before the version is judged, also after later appends.
    for expected in [Expected::NoStream, Expected::Exact(0), Expected::Exact(5), Expected::Any] {
        let again = desk.append("a", expected, batch()).unwrap();
        assert_eq!(again, Appended { is_repeat: true, ..first.clone() });
    }
    assert_eq!(desk.version("a"), 5);
    // A repeat is no obstacle for what is committed with it.
    let appends = vec![append("a", Expected::NoStream, batch()), append("b", Expected::NoStream, events(1))];
    let both = desk.commit(Commit { appends, ..Commit::default() }).unwrap();
    assert_eq!((both[0].is_repeat, both[1].is_repeat, both[1].last), (true, false, 1));
    desk.is_sound();
}

fn false_repeats(desk: &Desk) {
    desk.append("a", Expected::Any, vec![supplied(1, "one"), supplied(2, "two")]).unwrap();
    desk.append("b", Expected::Any, vec![supplied(3, "three")]).unwrap();
    let other_type = NewEvent { event_type: "Else".into(), ..supplied(1, "one") };
    let refused = [
        ("a", vec![supplied(1, "one"), supplied(9, "new")]),
        ("a", vec![supplied(9, "new"), supplied(2, "two")]),
        ("a", vec![supplied(1, "other")]),
        ("a", vec![other_type]),
        ("a", vec![supplied(2, "two"), supplied(1, "one")]),
        ("b", vec![supplied(1, "one")]),
        ("new", vec![supplied(1, "one")]),
        ("a", vec![supplied(7, "seven"), supplied(7, "seven")]),
    ];
    let before = desk.feed();
    for (id, batch) in refused {
        let result = desk.append(id, Expected::Any, batch.clone());
        assert!(matches!(result, Err(CommitError::IdTaken { .. })), "{batch:?} on {id}: {result:?}");
    }
    let taken = desk.append("a", Expected::Any, vec![supplied(9, "new"), supplied(2, "two")]);
    assert_eq!(taken, Err(CommitError::IdTaken { id: EventId([2; 16]) }));
    // The first of a batch alone is a repeat of what is there, in one piece.
    assert!(desk.append("a", Expected::Any, vec![supplied(1, "one")]).unwrap().is_repeat);
    assert_eq!(desk.feed(), before);
}

fn mixed_repeats(desk: &Desk) {
    // A caller's event, with what the engine made of it. The engine's ids are new each time.
    let batch = || vec![supplied(1, "asked"), event("decided"), event("done")];
    let first = desk.append("a", Expected::NoStream, batch()).unwrap();
    let again = desk.append("a", Expected::Exact(3), batch()).unwrap();
    assert_eq!(again, Appended { is_repeat: true, ..first });
    assert_eq!(desk.version("a"), 3);
}

fn without_events(desk: &Desk) {
    let empty = |expected, status| Commit {
        appends: vec![Append { status, ..append("a", expected, Vec::new()) }],
        ..Commit::default()
    };
    // It checks what is expected, and never begins a workflow.
    assert_eq!(only(desk.commit(empty(Expected::NoStream, None)).unwrap()).last, 0);
    assert_eq!(desk.store.workflow("a").unwrap(), None);
    assert!(desk.commit(empty(Expected::Exact(1), None)).is_err());
    desk.append("a", Expected::NoStream, events(2)).unwrap();
    assert_eq!(only(desk.commit(empty(Expected::Exact(2), Some("paused"))).unwrap()).last, 2);
    assert_eq!(desk.store.workflow("a").unwrap().unwrap().status, "paused");
    assert_eq!(desk.version("a"), 2);
    desk.is_sound();
}

fn order(desk: &Desk) {
    let commits = (0..300).map(|i| Commit {
        appends: vec![append(&format!("w{}", i % 7), Expected::Any, events(i % 3 + 1))],
        ..Commit::default()
    });
    let results = desk.commit_all(commits.collect());
    assert_eq!(results.len(), 300);
    let mut last = 0;
    for (i, (queued, result)) in results.into_iter().enumerate() {
        assert_eq!(queued, i, "done is called in the order of the queue");
        let appended = only(result.unwrap());
        assert_eq!(appended.position, last + (i as u64 % 3 + 1));
        last = appended.position;
    }
    desk.is_sound();
}

fn feed_pages(desk: &Desk) {
    for i in 0..20 {
        desk.append(&format!("w{}", i % 3), Expected::Any, events(3)).unwrap();
    }
    let all = desk.feed();
    assert_eq!(all.len(), 60);
    let (mut paged, mut after) = (Vec::new(), 0);
    loop {
        let page = desk.store.feed(0, after, 7).unwrap();
        assert!(page.len() <= 7);
        let Some(last) = page.last() else { break };
        assert!(last.position > after, "a reader of pages comes to an end");
        after = last.position;
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(desk.store.feed(0, u64::MAX, 7).unwrap(), []);
}

fn read_pages(desk: &Desk) {
    desk.append("a", Expected::NoStream, events(10)).unwrap();
    desk.append("ab", Expected::NoStream, events(1)).unwrap();
    let versions = |after, limit| -> Vec<u64> {
        desk.store.read("a", after, limit).unwrap().iter().map(|r| r.version).collect()
    };
    assert_eq!(versions(0, 3), [1, 2, 3]);
    assert_eq!(versions(8, 3), [9, 10]);
    assert_eq!(versions(10, 3), [0; 0]);
    assert_eq!(versions(0, 0), [0; 0]);
    assert_eq!(versions(0, usize::MAX).len(), 10);
    assert_eq!(desk.store.read("nobody", 0, 10).unwrap(), []);
}

fn epoch_fence(desk: &Desk) {
    desk.append("a", Expected::NoStream, events(1)).unwrap();
    let before = desk.feed();
    for epoch in [0, desk.epoch - 1, desk.epoch + 1] {
        let commit = Commit {
            epoch,
            appends: vec![Append { status: Some("failed"), ..append("a", Expected::Any, events(1)) }],
            checkpoints: vec![("p".into(), 0, 5)],
            ..Commit::default()
        };
        assert_eq!(desk.commit_as_is(commit), Err(CommitError::StaleEpoch { actual: desk.epoch }));
    }
    assert_eq!(desk.feed(), before);
    assert_eq!(desk.store.workflow("a").unwrap().unwrap().status, "running");
    assert_eq!(desk.store.checkpoint(0, "p").unwrap(), 0);
    assert!(desk.store.acquire(0, "another").unwrap().is_none(), "one owner at a time");
    assert_eq!((desk.store.is_owned(0).unwrap(), desk.store.is_owned(9).unwrap()), (Some(true), Some(false)));
    desk.append("a", Expected::Exact(1), events(1)).unwrap();
}

fn fails_alone(desk: &Desk) {
    desk.append("a", Expected::NoStream, events(1)).unwrap();
    let one = |id: &str, expected| Commit {
        appends: vec![Append { status: Some("waiting"), ..append(id, expected, events(2)) }],
        ..Commit::default()
    };
    let mut stale = one("d", Expected::Any);
    stale.shard = 9;
    let results = desk.commit_all(vec![
        one("b", Expected::NoStream),
        one("a", Expected::NoStream),
        one("c", Expected::NoStream),
        stale,
        one("a", Expected::Exact(1)),
    ]);
    let is_ok: Vec<bool> = results.iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(is_ok, [true, false, true, false, true]);
    assert_eq!((desk.version("a"), desk.version("b"), desk.version("c")), (3, 2, 2));
    assert_eq!(desk.version("d"), 0);
    assert_eq!(desk.feed().len(), 7);
    desk.is_sound();
}

fn behind_a_refusal(desk: &Desk) {
    let one = |expected| Commit { appends: vec![append("a", expected, events(1))], ..Commit::default() };
    // What counts on the refused one is refused too; what counts on nothing is not.
    let results = desk.commit_all(vec![
        one(Expected::Exact(0)),
        one(Expected::Exact(7)),
        one(Expected::Exact(8)),
        one(Expected::Any),
        one(Expected::Exact(2)),
    ]);
    let is_ok: Vec<bool> = results.iter().map(|(_, result)| result.is_ok()).collect();
    assert_eq!(is_ok, [true, false, false, true, true]);
    assert_eq!(desk.version("a"), 3);
    desk.is_sound();
}

fn done_commits(desk: &Desk) {
    let (tell, told) = mpsc::channel();
    let epoch = desk.epoch;
    let of = |id: &str| Commit {
        epoch,
        appends: vec![append(id, Expected::NoStream, events(1))],
        ..Commit::default()
    };
    let (store, second) = (desk.store.clone(), of("b"));
    desk.store.commit(
        of("a"),
        Box::new(move |first| {
            store.commit(second, Box::new(move |second| tell.send((first, second)).unwrap()));
        }),
    );
    let (first, second) = told.recv().unwrap();
    assert_eq!((only(first.unwrap()).position, only(second.unwrap()).position), (1, 2));
}

fn large_and_strange(desk: &Desk) {
    let large = format!("\"{}\"", "x".repeat(9 * 1024 * 1024));
    let strange = "\"\u{0} \\u0000 ' \\\" \u{1F600} e\u{301} \u{202E} \u{FFFF}\"";
    let id = "größe/\u{1F600}'; DROP TABLE log; --";
    let batch: Vec<NewEvent> = [large.as_str(), strange, "", "null"]
        .into_iter()
        .map(|payload| NewEvent { payload: payload.into(), ..event("") })
        .collect();
    desk.append(id, Expected::NoStream, batch.clone()).unwrap();
    let back: Vec<NewEvent> = desk.log(id).into_iter().map(|recorded| recorded.event).collect();
    assert!(back == batch, "what was written is what is read");
    assert_eq!(desk.store.workflow(id).unwrap().unwrap().workflow_id.as_ref(), id);
    verify_from(Hash::ZERO, &desk.log(id));
}

fn envelope(desk: &Desk) {
    let full = NewEvent {
        event_type: "CONTENT_GENERATED".into(),
        schema_version: u32::MAX,
        timestamp: i64::MIN,
        causation_id: Some(EventId([3; 16])),
        correlation_id: Some(EventId([4; 16])),
        actor: "böb".into(),
        codec: "sealed".into(),
        key_id: Some("k1".into()),
        ..supplied(200, "x")
    };
    let begins = NewWorkflow { tenant: "acme".into(), ..NewWorkflow::default() };
    let append = Append { begins: Some(begins), ..append("a", Expected::Any, vec![full.clone()]) };
    let appended = only(desk.commit(Commit { appends: vec![append], ..Commit::default() }).unwrap());
    let recorded = only(desk.log("a"));
    assert_eq!(recorded.event, full);
    assert_eq!(&*recorded.tenant, "acme");
    assert_eq!((recorded.position, recorded.version, recorded.hash), (1, 1, appended.hash));
    assert_eq!(recorded.payload_hash, Hash::of_bytes(full.payload.as_bytes()));
    assert_eq!(only(desk.feed()), recorded);
    verify_from(Hash::ZERO, &[recorded]);
    // The tenant is the workflow's, for every event of it.
    desk.append("a", Expected::Exact(1), events(1)).unwrap();
    assert_eq!(&*desk.log("a")[1].tenant, "acme");
    verify_from(Hash::ZERO, &desk.log("a"));
}

fn unlike_neighbours(desk: &Desk) {
    // Each differs from the one before in one thing, in one commit and over several.
    let plain = || event("x");
    let batch = vec![
        plain(),
        NewEvent { actor: "me".into(), ..plain() },
        NewEvent { codec: "sealed".into(), ..plain() },
        NewEvent { key_id: Some("k".into()), ..plain() },
        plain(),
        NewEvent { schema_version: 2, ..plain() },
        supplied(1, "x"),
        plain(),
        NewEvent { event_type: "Else".into(), causation_id: Some(EventId([1; 16])), ..plain() },
        NewEvent { correlation_id: Some(EventId([2; 16])), ..plain() },
        plain(),
    ];
    desk.append("a", Expected::NoStream, batch.clone()).unwrap();
    let commits = batch.iter().enumerate().map(|(i, event)| {
        let event = NewEvent { id: EventId([100 + i as u8; 16]), ..event.clone() };
        Commit { appends: vec![append("b", Expected::Any, vec![event])], ..Commit::default() }
    });
    for (_, result) in desk.commit_all(commits.collect()) {
        result.unwrap();
    }
    for id in ["a", "b"] {
        let log: Vec<NewEvent> = desk.log(id).into_iter().map(|recorded| recorded.event).collect();
        let expected: Vec<NewEvent> =
            batch.iter().zip(&log).map(|(e, read)| NewEvent { id: read.id, ..e.clone() }).collect();
        assert_eq!(log, expected);
    }
}

fn chain(desk: &Desk) {
    desk.append("a", Expected::Any, events(3)).unwrap();
    desk.append("a", Expected::Any, events(2)).unwrap();
    let log = desk.log("a");
    verify_from(Hash::ZERO, &log);
    let broken = |change: &dyn Fn(&mut Recorded)| {
        let mut recorded = log[2].clone();
        change(&mut recorded);
        crate::chain::verify_chain(log[1].hash, &recorded).expect_err("a change is seen")
    };
    assert!(broken(&|r| r.event.payload.push(' ')).contains("a version 3: the payload"));
    assert!(broken(&|r| r.event.timestamp += 1).contains("a version 3: the hash"));
    assert!(broken(&|r| r.event.actor = "eve".into()).contains("the hash"));
    assert!(broken(&|r| r.tenant = "eve".into()).contains("the hash"));
    assert!(crate::chain::verify_chain(log[0].hash, &log[2]).is_err(), "a missing event is seen");
}
