//! Forks: a past that is shared by reference, and a log of its own behind the cut.

use foldback_core::Hash;

use super::{Case, Desk, append, events, only, verify_from};
use crate::contract::*;

pub(super) const CASES: &[Case] = &[
    ("a fork reads its parent's past and goes on from the cut", past_and_chain),
    ("a fork of a fork", fork_of_a_fork),
    ("a fork from before the first event", from_nothing),
    ("a fork of a past that is not there is refused", of_nothing),
    ("what a fork may expect of its own log", expected),
];

fn fork(id: &str, parent: &str, cut: u64, cut_hash: Hash, expected: Expected, count: usize) -> Commit {
    let begins = NewWorkflow { parent: Some((parent.into(), cut, cut_hash)), ..NewWorkflow::default() };
    let append = Append { begins: Some(begins), ..append(id, expected, events(count)) };
    Commit { appends: vec![append], ..Commit::default() }
}

/// Ids and versions of a log.
fn places(log: &[Recorded]) -> Vec<(&str, u64)> {
    log.iter().map(|recorded| (&*recorded.workflow_id, recorded.version)).collect()
}

fn past_and_chain(desk: &Desk) {
    desk.append("p", Expected::NoStream, events(5)).unwrap();
    let past = desk.log("p");
    let appended = only(desk.commit(fork("p~1", "p", 3, past[2].hash, Expected::NoStream, 2)).unwrap());
    assert_eq!((appended.first, appended.last, appended.position), (4, 5, 7));
    // What the parent does afterwards is not the fork's.
    desk.append("p", Expected::Exact(5), events(4)).unwrap();
    desk.append("p~1", Expected::Exact(5), events(1)).unwrap();
    let log = desk.log("p~1");
    assert_eq!(places(&log), [("p", 1), ("p", 2), ("p", 3), ("p~1", 4), ("p~1", 5), ("p~1", 6)]);
    assert_eq!(log[..3], past[..3]);
    verify_from(Hash::ZERO, &log);
    verify_from(Hash::ZERO, &desk.log("p"));
    assert_eq!(places(&desk.store.read("p~1", 2, 2).unwrap()), [("p", 3), ("p~1", 4)]);
    assert_eq!(places(&desk.store.read("p~1", 4, 9).unwrap()), [("p~1", 5), ("p~1", 6)]);
    let row = desk.store.workflow("p~1").unwrap().unwrap();
    assert_eq!((row.version, row.parent), (6, Some(("p".into(), 3, past[2].hash))));
    desk.is_sound();
}

fn fork_of_a_fork(desk: &Desk) {
    desk.append("p", Expected::NoStream, events(5)).unwrap();
    let cut = |id: &str, version: usize| desk.log(id)[version - 1].hash;
    desk.commit(fork("p~1", "p", 3, cut("p", 3), Expected::Exact(3), 3)).unwrap();
    // One cut in what the fork did itself, one in what it shares.
    desk.commit(fork("p~1~1", "p~1", 5, cut("p~1", 5), Expected::Exact(5), 1)).unwrap();
    desk.commit(fork("p~1~2", "p~1", 2, cut("p", 2), Expected::Exact(2), 1)).unwrap();
    assert_eq!(
        places(&desk.log("p~1~1")),
        [("p", 1), ("p", 2), ("p", 3), ("p~1", 4), ("p~1", 5), ("p~1~1", 6)]
    );
    assert_eq!(places(&desk.log("p~1~2")), [("p", 1), ("p", 2), ("p~1~2", 3)]);
    for id in ["p~1~1", "p~1~2"] {
        verify_from(Hash::ZERO, &desk.log(id));
    }
    desk.is_sound();
}

fn from_nothing(desk: &Desk) {
    desk.append("p", Expected::NoStream, events(2)).unwrap();
    desk.commit(fork("p~1", "p", 0, Hash::ZERO, Expected::Exact(0), 2)).unwrap();
    assert_eq!(places(&desk.log("p~1")), [("p~1", 1), ("p~1", 2)]);
    verify_from(Hash::ZERO, &desk.log("p~1"));
    desk.is_sound();
}

fn of_nothing(desk: &Desk) {
    desk.append("p", Expected::NoStream, events(2)).unwrap();
    let hash = desk.log("p")[0].hash;
    let conflict = |id: &str, actual| Err(CommitError::Conflict { workflow_id: id.into(), actual });
    assert_eq!(desk.commit(fork("f", "nobody", 1, hash, Expected::Any, 1)), conflict("nobody", 0));
    assert_eq!(desk.commit(fork("f", "p", 3, hash, Expected::Any, 1)), conflict("p", 2));
    assert_eq!(desk.commit(fork("f", "p", 2, hash, Expected::Any, 1)), conflict("p", 2));
    assert_eq!(desk.commit(fork("f", "f", 1, hash, Expected::Any, 1)), conflict("f", 0));
    assert_eq!(desk.store.workflow("f").unwrap(), None);
    desk.is_sound();
}

fn expected(desk: &Desk) {
    desk.append("p", Expected::NoStream, events(4)).unwrap();
    let hash = desk.log("p")[1].hash;
    for (i, (expected, holds)) in [
        (Expected::Any, true),
        (Expected::NoStream, true),
        (Expected::Exact(2), true),
        (Expected::Exact(0), false),
        (Expected::Exact(4), false),
        (Expected::StreamExists, false),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("f{i}");
        let result = desk.commit(fork(&id, "p", 2, hash, expected, 1));
        assert_eq!(result.is_ok(), holds, "{expected:?}");
        assert_eq!(desk.version(&id), if holds { 3 } else { 0 });
    }
    // A workflow that is there is not begun a second time.
    let begun = desk.commit(fork("f0", "p", 2, hash, Expected::NoStream, 1));
    assert_eq!(begun, Err(CommitError::Conflict { workflow_id: "f0".into(), actual: 3 }));
    desk.is_sound();
}
