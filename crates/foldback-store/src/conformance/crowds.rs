//! Many at once, and much: readers and projections beside writers, and a log of 100,000 events.

use std::sync::mpsc;
use std::thread;

use foldback_core::Hash;
use serde_json::json;

use super::{Case, Desk, append, events, only, verify_from};
use crate::contract::*;

pub(super) const CASES: &[Case] = &[
    ("a follower of the feed sees each event once, in order, while many append", followed),
    ("a projection that starts again in the middle counts each event once", projected),
    ("a log of 100,000 events", long),
];

const WRITERS: usize = 3;
const COMMITS: usize = 40;
const TOTAL: u64 = (WRITERS * COMMITS * 2) as u64;

/// Commits, and waits.
fn commit(store: &dyn Store, commit: Commit) -> Result<Vec<Appended>, CommitError> {
    let (tell, told) = mpsc::channel();
    store.commit(commit, Box::new(move |result| tell.send(result).expect("somebody waits")));
    told.recv().expect("done is called")
}

/// Writes [`TOTAL`] events from several threads while `beside` runs on this one.
fn while_many_append<T>(desk: &Desk, beside: impl FnOnce(&dyn Store) -> T) -> T {
    let (store, epoch) = (&*desk.store, desk.epoch);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || {
                for i in 0..COMMITS {
                    let appends =
                        vec![append(&format!("w{writer}"), Expected::Exact(2 * i as u64), events(2))];
                    commit(store, Commit { epoch, appends, ..Commit::default() }).expect("written");
                }
            });
        }
        beside(store)
    })
}

fn followed(desk: &Desk) {
    let seen = while_many_append(desk, |store| {
        let mut seen: Vec<Recorded> = Vec::new();
        while (seen.len() as u64) < TOTAL {
            let after = seen.last().map_or(0, |recorded| recorded.position);
            seen.extend(store.feed(0, after, 7).expect("feed"));
            thread::yield_now();
        }
        seen
    });
    let positions: Vec<u64> = seen.iter().map(|recorded| recorded.position).collect();
    assert_eq!(positions, (1..=TOTAL).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(seen, desk.feed(), "what was seen early is what stays");
    desk.is_sound();
}

fn projected(desk: &Desk) {
    let epoch = desk.epoch;
    while_many_append(desk, |store| {
        thread::scope(|scope| {
            // Two of them: one is always behind, and finds the checkpoint moved.
            for _ in 0..2 {
                scope.spawn(move || while project(store, epoch) < TOTAL {});
            }
        });
    });
    assert_eq!(desk.store.checkpoint(0, "count").expect("checkpoint"), TOTAL);
    assert_eq!(desk.store.projection("count").expect("rows"), [("events".to_owned(), json!(TOTAL))]);
    desk.is_sound();
}

/// One life of a projection: it knows nothing but what the store does, and takes a few steps.
fn project(store: &dyn Store, epoch: u64) -> u64 {
    for _ in 0..5 {
        let before = store.checkpoint(0, "count").expect("checkpoint");
        let rows = store.projection("count").expect("rows");
        let counted = rows.first().map_or(0, |(_, count)| count.as_u64().expect("a number"));
        let page = store.feed(0, before, 11).expect("feed");
        let Some(last) = page.last() else { break };
        let step = Commit {
            epoch,
            checkpoints: vec![("count".into(), before, last.position)],
            projection_rows: vec![(
                "count".into(),
                "events".into(),
                Some(json!(counted + page.len() as u64)),
            )],
            ..Commit::default()
        };
        match commit(store, step) {
            Ok(_) | Err(CommitError::CheckpointMoved { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    store.checkpoint(0, "count").expect("checkpoint")
}

fn long(desk: &Desk) {
    const EVENTS: u64 = 100_000;
    const EACH: u64 = 5_000;
    for i in 0..EVENTS / EACH {
        desk.append("a", Expected::Exact(i * EACH), events(EACH as usize)).expect("written");
    }
    let early = desk.append("a", Expected::Exact(EACH), events(1));
    assert_eq!(early, Err(CommitError::Conflict { workflow_id: "a".into(), actual: EVENTS }));
    let mut previous = Hash::ZERO;
    let mut after = 0;
    loop {
        let page = desk.store.read("a", after, 3_333).expect("read");
        let Some(last) = page.last() else { break };
        verify_from(previous, &page);
        assert_eq!(page[0].version, after + 1);
        (previous, after) = (last.hash, last.version);
    }
    assert_eq!(after, EVENTS);
    let last = only(desk.store.feed(0, EVENTS - 1, 9).expect("feed"));
    assert_eq!((last.version, last.hash), (EVENTS, previous));
    assert_eq!(desk.store.check().expect("check"), Vec::<String>::new());
}
