//! Callers of all kinds: one that panics when it is called back, and many that write to the inbox
//! while the owner commits. None of them takes the store away from the others.

use std::sync::mpsc::channel;

use crate::desk::{Desk, one, url};
use foldback_store::{Commit, Expected, InboxCommand, open, open_existing};
use serde_json::json;

#[test]
fn a_caller_that_panics_when_called_back_ends_nothing_but_itself() {
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    let (tell, told) = channel();
    // All in one group: what was queued behind the panicking one is told as well.
    for i in 0..10u64 {
        let tell = tell.clone();
        let commit = Commit { epoch: desk.epoch, ..one("a", Expected::Exact(i)) };
        let done = move |result: Result<Vec<_>, _>| {
            assert!(i % 3 != 1, "a caller that panics");
            tell.send((i, result.is_ok())).unwrap();
        };
        desk.store.commit(commit, Box::new(done));
    }
    drop(tell);
    let called: Vec<(u64, bool)> = told.iter().collect();
    assert_eq!(called, [0, 2, 3, 5, 6, 8, 9].map(|i| (i, true)), "the others, in order");
    assert_eq!(desk.append("a", Expected::Exact(10), vec![crate::desk::event("x")]).unwrap().last, 11);
    desk.is_sound();
    drop(desk);
    assert_eq!(open(&url(&dir)).unwrap().read("a", 0, usize::MAX).unwrap().len(), 11, "all are on disk");
}

#[test]
fn many_clients_write_to_the_inbox_while_the_owner_commits() {
    const CLIENTS: usize = 6;
    const EACH: usize = 30;
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            // Each as a process of its own would: through a connection that is not the owner's.
            let store = open_existing(&url(&dir)).unwrap();
            scope.spawn(move || {
                for i in 0..EACH {
                    let id = format!("{client}-{i}");
                    let body = json!({"n": i});
                    let command = InboxCommand { id, shard: 0, actor: "a client".into(), body };
                    store.send(command.clone()).expect("nobody is too busy for it");
                    store.send(command).expect("nor to be told once more");
                }
            });
        }
        let (mut version, mut answered) = (0, 0);
        while answered < CLIENTS * EACH {
            let consumed: Vec<_> =
                desk.store.commands(0).unwrap().into_iter().map(|c| (c.id, json!("done"))).collect();
            answered += consumed.len();
            let commit = Commit { consumed, ..one("a", Expected::Exact(version)) };
            desk.commit(commit).expect("the owner is never too busy either");
            version += 1;
        }
    });
    assert_eq!(desk.store.commands(0).unwrap(), []);
    for client in 0..CLIENTS {
        for i in 0..EACH {
            assert_eq!(
                desk.store.answer(&format!("{client}-{i}")).unwrap(),
                Some(json!("done")),
                "each once"
            );
        }
    }
    desk.is_sound();
}
