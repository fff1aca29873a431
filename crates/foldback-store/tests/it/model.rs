//! SQLite against memory: any list of operations, and after each one both read the same.

use std::sync::Arc;

use crate::desk::{Desk, event, url};
use foldback_core::{EventId, Hash, Micros};
use foldback_store::{
    Append, Commit, Emit, Expected, Filter, InboxCommand, NewEvent, NewWorkflow, Snapshot, Store, open,
};
use proptest::prelude::*;
use serde_json::json;

const IDS: [&str; 3] = ["a", "b", "f"];

/// An append: workflow, what is expected, events (`Some`: a supplied id, and what it says), status.
type Appending = (usize, Expected, Vec<Option<(u8, bool)>>, bool);

#[derive(Clone, Debug)]
enum Op {
    /// Appends under our epoch, or the one before; `together` has two of them.
    Append {
        first: Appending,
        second: Option<Appending>,
        is_stale: bool,
    },
    /// Begins `f` as a fork of `a` behind a version, knowing its hash or not.
    Fork {
        cut: u64,
        is_hash_right: bool,
    },
    Checkpoint {
        before: u64,
        after: u64,
    },
    Row {
        key: u8,
        value: Option<u8>,
    },
    Wake {
        workflow: usize,
        at: Option<Micros>,
    },
    Listen {
        workflow: usize,
        names: Vec<u8>,
    },
    Emit {
        id: u8,
        name: u8,
    },
    Send {
        id: u8,
    },
    Answer {
        id: u8,
        events: bool,
    },
    Snapshot {
        version: u64,
    },
    Reopen,
}

fn appending() -> impl Strategy<Value = Appending> {
    let expected = prop_oneof![
        3 => Just(Expected::Any),
        1 => Just(Expected::NoStream),
        1 => Just(Expected::StreamExists),
        2 => (0u64..8).prop_map(Expected::Exact),
    ];
    let event = proptest::option::weighted(0.6, (0u8..6, any::<bool>()));
    (0..2usize, expected, proptest::collection::vec(event, 0..4), any::<bool>())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (appending(), proptest::option::of(appending()), proptest::bool::weighted(0.1))
            .prop_map(|(first, second, is_stale)| Op::Append { first, second, is_stale }),
        1 => (0u64..5, any::<bool>()).prop_map(|(cut, is_hash_right)| Op::Fork { cut, is_hash_right }),
        2 => (0u64..4, 0u64..4).prop_map(|(before, after)| Op::Checkpoint { before, after }),
        1 => (0u8..3, any::<Option<u8>>()).prop_map(|(key, value)| Op::Row { key, value }),
        1 => (0..3usize, any::<Option<Micros>>()).prop_map(|(workflow, at)| Op::Wake { workflow, at }),
        1 => (0..3usize, proptest::collection::btree_set(0u8..3, 0..3))
            .prop_map(|(workflow, names)| Op::Listen { workflow, names: names.into_iter().collect() }),
        1 => (0u8..3, 0u8..3).prop_map(|(id, name)| Op::Emit { id, name }),
        1 => (0u8..3).prop_map(|id| Op::Send { id }),
        1 => (0u8..3, any::<bool>()).prop_map(|(id, events)| Op::Answer { id, events }),
        1 => (0u64..9).prop_map(|version| Op::Snapshot { version }),
        1 => Just(Op::Reopen),
    ]
}

fn append((workflow, expected, events, is_paused): &Appending) -> Append {
    let events = events.iter().map(|supplied| match supplied {
        Some((id, says)) => {
            NewEvent { id: EventId([*id + 200; 16]), is_id_supplied: true, ..event(&says.to_string()) }
        }
        None => event("own"),
    });
    Append {
        workflow_id: IDS[*workflow].into(),
        expected: *expected,
        events: events.collect(),
        begins: None,
        status: is_paused.then_some("paused"),
    }
}

/// The commit of an operation; `None` for one that is none.
fn commit(op: &Op, memory: &Desk) -> Option<Commit> {
    let mut commit = Commit { epoch: memory.epoch, ..Commit::default() };
    match op {
        Op::Append { first, second, is_stale } => {
            commit.appends = [Some(first), second.as_ref()].into_iter().flatten().map(append).collect();
            commit.epoch -= u64::from(*is_stale);
        }
        Op::Fork { cut, is_hash_right } => {
            let past = memory.store.read("a", 0, *cut as usize).unwrap();
            let right = past.last().filter(|_| *is_hash_right).map_or(Hash::ZERO, |last| last.hash);
            let begins = NewWorkflow { parent: Some(("a".into(), *cut, right)), ..NewWorkflow::default() };
            let forks = append(&(2, Expected::NoStream, vec![None, None], false));
            commit.appends = vec![Append { begins: Some(begins), ..forks }];
        }
        Op::Checkpoint { before, after } => commit.checkpoints = vec![("p".into(), *before, *after)],
        Op::Row { key, value } => {
            commit.projection_rows = vec![("p".into(), key.to_string(), value.map(|v| json!(v)))];
        }
        Op::Wake { workflow, at } => commit.wakeups = vec![(IDS[*workflow].into(), *at)],
        Op::Listen { workflow, names } => {
            let names = names.iter().map(|name| name.to_string().into()).collect();
            commit.listens = vec![(IDS[*workflow].into(), names)];
        }
        Op::Emit { id, name } => {
            let (name, actor) = (name.to_string().into(), "test".to_owned());
            commit.emits = vec![Emit { name, id: format!("e{id}"), actor, body: json!({"id": id}) }];
        }
        Op::Answer { id, events } => {
            commit.consumed = vec![(id.to_string(), json!({"answer": id}))];
            commit.appends.extend(events.then(|| append(&(0, Expected::Any, vec![None], false))));
        }
        Op::Snapshot { version } => {
            commit.snapshots = vec![Snapshot {
                workflow_id: "a".into(),
                version: *version,
                event_hash: Hash::ZERO,
                state_schema: 1,
                fingerprint: Hash::of_bytes(b"state"),
                state: b"state".to_vec(),
            }];
        }
        Op::Send { .. } | Op::Reopen => return None,
    }
    Some(commit)
}

/// Everything that a reader sees.
fn seen(store: &dyn Store) -> Vec<String> {
    let mut seen = vec![
        format!("{:?}", store.feed(0, 0, usize::MAX)),
        format!("{:?}", store.feed(0, 2, 3)),
        format!("{:?}", store.workflows(&Filter::default())),
        format!("{:?}", store.workflows(&Filter { status: Some("paused".into()), ..Filter::default() })),
        format!("{:?}", store.projection("p")),
        format!("{:?}", store.checkpoint(0, "p")),
        format!("{:?}", store.commands(0)),
        format!("{:?}", store.snapshot("a", 4)),
        format!("{:?}", store.check()),
    ];
    for id in IDS {
        seen.push(format!("{:?}", store.read(id, 0, usize::MAX)));
        seen.push(format!("{:?}", store.read(id, 1, 2)));
        seen.push(format!("{:?}", store.listens(id)));
    }
    seen.extend((0..3).map(|name| format!("{:?}", store.listeners(0, &name.to_string()))));
    seen.extend((0..3).map(|id| format!("{:?}", store.answer(&id.to_string()))));
    seen
}

fn again(desk: Desk, reopen: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Desk {
    let (store, _) = desk.give_up();
    Desk::take(reopen(store))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_is_what_memory_is(ops in proptest::collection::vec(op(), 1..30)) {
        let dir = tempfile::tempdir().unwrap();
        let (mut sqlite, mut memory) = (Desk::at(&dir), Desk::take(open("memory:").unwrap()));
        for op in &ops {
            match op {
                Op::Reopen => {
                    sqlite = again(sqlite, |old| { drop(old); open(&url(&dir)).unwrap() });
                    memory = again(memory, |same| same);
                }
                Op::Send { id } => for store in [&sqlite.store, &memory.store] {
                    let (id, body) = (id.to_string(), json!({"id": id}));
                    store.send(InboxCommand { id, shard: 0, actor: "test".into(), body }).unwrap();
                },
                _ => {
                    let commit = commit(op, &memory).expect("a commit");
                    let before = seen(&*memory.store);
                    let told = crate::desk::commit(&*memory.store, commit.clone());
                    prop_assert_eq!(&crate::desk::commit(&*sqlite.store, commit), &told, "{:?}", op);
                    // The reference's own law: a refusal leaves no trace, and positions are dense.
                    if told.is_err() {
                        prop_assert_eq!(seen(&*memory.store), before);
                    }
                    let feed = memory.store.feed(0, 0, usize::MAX).unwrap();
                    prop_assert!(feed.iter().zip(1u64..).all(|(recorded, place)| recorded.position == place));
                }
            }
            prop_assert_eq!(sqlite.epoch, memory.epoch);
            prop_assert_eq!(seen(&*sqlite.store), seen(&*memory.store), "{:?}", op);
        }
    }
}
