//! Disasters, for real: the process is killed between any two statements of what it commits or
//! forgets; the system refuses a write or a sync. A child process suffers, its parent opens what is
//! left.
//!
//! What was acknowledged is there, nothing is there by half, and the next owner goes on.
#![allow(clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use crate::desk::{Desk, event, url};
use foldback_core::Hash;
use foldback_core::value::Payload;
use foldback_store::{
    Append, Commit, CommitError, Definition, Emit, Erasure, Expected, InboxCommand, NewEvent, NotForgotten,
    Pruning, Snapshot, Store, Tombstone, chain, open,
};
use serde_json::json;

/// How many commits a process makes at most. The commands that they answer are sent before.
const COMMITS: u64 = 36;

/// Commit number `k`: all kinds of rows, each saying which commit they are of.
fn rich(k: u64) -> Commit {
    let append = |id: &str| Append {
        workflow_id: id.into(),
        expected: Expected::Exact(2 * (k - 1)),
        events: vec![event(&format!("{id} {k} one")), event(&format!("{id} {k} two"))],
        begins: None,
        status: Some("waiting"),
    };
    let bytes = format!("payload {k}").into_bytes();
    Commit {
        appends: vec![append("a"), append("b")],
        payloads: vec![Payload { hash: Hash::of_bytes(&bytes), media_type: "text/plain".into(), bytes }],
        wakeups: vec![("a".into(), Some(k as i64))],
        emits: vec![Emit {
            name: format!("{}", k - 1).into(),
            id: format!("emit {k}"),
            actor: "me".into(),
            body: json!({"k": k}),
        }],
        listens: vec![("a".into(), vec![format!("{k}").into()])],
        checkpoints: vec![("p".into(), k - 1, k)],
        projection_rows: vec![("p".into(), "commits".into(), Some(json!(k)))],
        snapshots: vec![Snapshot {
            workflow_id: "a".into(),
            version: 2 * k,
            event_hash: Hash::ZERO,
            state_schema: 1,
            fingerprint: Hash::ZERO,
            state: vec![1],
        }],
        definitions: vec![definition(k)],
        tombstones: vec![tombstone(k)],
        consumed: vec![(format!("command {k}"), json!(k))],
        ..Commit::default()
    }
}

fn definition(k: u64) -> Definition {
    let canonical = format!("canonical {k}");
    let hash = Hash::of_bytes(canonical.as_bytes());
    Definition { hash, kind: "ows".into(), name: format!("d {k}"), canonical, source: format!("source {k}") }
}

/// Of a value that was erased elsewhere.
fn tombstone(k: u64) -> Tombstone {
    Tombstone {
        hash: Hash::of_bytes(format!("erased {k}").as_bytes()),
        media_type: "text/plain".into(),
        bytes: k,
        at: 1,
        actor: "ann".into(),
        reason: format!("reason {k}"),
    }
}

/// Sends the commands that commits from this one on answer. One that is there is left as it is.
fn send_commands(store: &dyn Store, ks: std::ops::Range<u64>) {
    for k in ks {
        let (id, actor) = (format!("command {k}"), "me".to_owned());
        store.send(InboxCommand { id, shard: 0, actor, body: json!({ "k": k }) }).unwrap();
    }
}

/// Not a test of its own: the process that suffers. It commits three at a time, and prints what
/// became of each; once the store failed it tries three more and ends.
#[test]
#[ignore = "run by the tests of this file"]
fn suffers() {
    let Ok(store) = std::env::var("FOLDBACK_TEST_STORE") else { return };
    let desk = Desk::take(open(&store).unwrap());
    let mut next = desk.store.checkpoint(0, "p").unwrap() + 1;
    let end = next + COMMITS;
    send_commands(&*desk.store, next..end);
    if let Ok(armed) = std::env::var("SHIM_ARMED") {
        fs::write(armed, "").unwrap();
    }
    let mut failures = 0;
    while failures < 6 && next < end {
        for (k, result) in (next..).zip(desk.commit_all((next..next + 3).map(rich).collect())) {
            match result {
                Ok(_) => println!("\nacknowledged {k}"),
                Err(CommitError::Failed(error)) => {
                    failures += 1;
                    println!("\nfailed {error}; hint: {}", error.hint.as_deref().unwrap_or("none"));
                }
                Err(other) => println!("\nunexpected {other:?}"),
            }
        }
        next += 3;
    }
}

fn child(dir: &tempfile::TempDir, env: &[(&str, String)]) -> Output {
    run("suffers", dir, env)
}

/// Runs a test of this file that is none of its own, on a directory's store.
fn run(name: &str, dir: &tempfile::TempDir, env: &[(&str, String)]) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .arg(format!("disaster::{name}"))
        .args(["--exact", "--ignored", "--nocapture"])
        .env("FOLDBACK_TEST_STORE", url(dir))
        .envs(env.iter().map(|(name, value)| (*name, value.as_str())))
        .output()
        .unwrap()
}

fn lines<'o>(out: &'o str, word: &str) -> Vec<&'o str> {
    out.lines().filter_map(|line| line.strip_prefix(word)).map(str::trim).collect()
}

/// Opens what is left: each commit whole or not at all, none that was acknowledged is missing, and
/// it goes on. Returns how many are there.
fn survived(dir: &tempfile::TempDir, out: &str, what: &str) -> u64 {
    let acknowledged = lines(out, "acknowledged ").last().map_or(0, |k| k.parse::<u64>().unwrap());
    let desk = Desk::at(dir);
    let store: &dyn Store = &*desk.store;
    desk.is_sound();
    let there = store.checkpoint(0, "p").unwrap();
    assert!(there >= acknowledged, "{what}: {acknowledged} were acknowledged, {there} are there");
    for id in ["a", "b"] {
        let log = store.read(id, 0, usize::MAX).unwrap();
        assert_eq!(log.len() as u64, 2 * there, "{what}: {id}");
        let mut previous = Hash::ZERO;
        for (recorded, i) in log.iter().zip(0u64..) {
            chain::verify_chain(previous, recorded).unwrap();
            previous = recorded.hash;
            let said = format!("{:?}", format!("{id} {} {}", i / 2 + 1, ["one", "two"][i as usize % 2]));
            assert_eq!(recorded.event.payload, said, "{what}");
        }
    }
    for k in 1..=there + 1 {
        let hash = Hash::of_bytes(format!("payload {k}").as_bytes());
        assert_eq!(store.payload(0, &hash).unwrap().is_some(), k <= there, "{what}: payload {k}");
        let (definition, tombstone, is_there) = (definition(k), tombstone(k), k <= there);
        let found = store.definition(&definition.hash).unwrap();
        assert_eq!(found, is_there.then_some(definition), "{what}: definition {k}");
        let found = store.tombstone(0, &tombstone.hash).unwrap();
        assert_eq!(found, is_there.then_some(tombstone), "{what}: tombstone {k}");
        let answer = store.answer(&format!("command {k}")).unwrap();
        assert_eq!(answer, is_there.then(|| json!(k)), "{what}: the answer to command {k}");
    }
    let rows = store.projection("p").unwrap();
    assert_eq!(rows.first().map_or(0, |(_, k)| k.as_u64().unwrap()), there, "{what}: the projection");
    assert_eq!(store.snapshot("a", u64::MAX).unwrap().map_or(0, |s| s.version), 2 * there, "{what}");
    let handed = store.commands(0).unwrap().into_iter().filter(|c| c.id.starts_with("emit"));
    let handed: Vec<String> = handed.map(|command| command.id).collect();
    assert_eq!(handed, (2..=there).map(|k| format!("emit {k}:a")).collect::<Vec<_>>(), "{what}: emits");
    let listens: Vec<Arc<str>> = (there > 0).then(|| there.to_string().into()).into_iter().collect();
    assert_eq!(store.listens("a").unwrap(), listens, "{what}: what is listened for");
    let wake_at = store.workflow("a").unwrap().and_then(|row| row.wake_at);
    assert_eq!(wake_at.unwrap_or(0) as u64, there, "{what}: the wake-up");
    send_commands(store, there + 1..there + 2);
    desk.commit(rich(there + 1)).unwrap_or_else(|e| panic!("{what}: it goes on: {e:?}"));
    desk.is_sound();
    there
}

#[test]
fn killed_between_any_two_statements() {
    // A commit is four events and some eleven other statements; three are in a group.
    let table: [(&str, &[u64]); 6] = [
        ("begun", &[1, 2, 4]),
        ("event", &[1, 2, 3, 4, 7, 13, 30]),
        ("statement", &[1, 2, 3, 4, 5, 6, 7, 8, 13, 40]),
        ("counted", &[1, 2, 3]),
        ("committed", &[1, 2, 3]),
        ("told", &[1, 2, 3, 5]),
    ];
    for (place, times) in table {
        // One store for all of a place: each process opens what a killed one left.
        let dir = tempfile::tempdir().unwrap();
        let mut before = 0;
        for n in times {
            let ran = child(&dir, &[("FOLDBACK_FAULT", format!("{place}:{n}"))]);
            let out = String::from_utf8_lossy(&ran.stdout);
            assert!(!ran.status.success() && !out.contains("test result"), "{place}:{n} was passed: {out}");
            assert!(!out.contains("failed") && !out.contains("unexpected"), "{place}:{n}: {out}");
            let there = survived(&dir, &out, &format!("{place}:{n}"));
            assert!(there >= before, "{place}:{n}");
            before = there + 1;
        }
    }
}

/// A value that spills over many pages, and one that fits into one.
fn secret() -> Payload {
    let bytes = format!("CANARY-{}", "l".repeat(40_000)).into_bytes();
    Payload { hash: Hash::of_bytes(&bytes), media_type: "text/plain".into(), bytes }
}

fn kept() -> Payload {
    let bytes = b"what is kept".to_vec();
    Payload { hash: Hash::of_bytes(&bytes), media_type: "text/plain".into(), bytes }
}

/// Two workflows: `gone`, that ended, with a snapshot, a wake-up and the secret; `stays`.
fn two_workflows(dir: &tempfile::TempDir) {
    let desk = Desk::at(dir);
    let append = |id: &str, payload: &Payload, status| {
        let mention = NewEvent { payload: format!("{{\"ref\":\"{}\"}}", payload.hash), ..event("") };
        Append {
            workflow_id: id.into(),
            expected: Expected::NoStream,
            events: vec![mention, event("2"), event(&format!("{id} filler {}", "f".repeat(600)))],
            begins: None,
            status,
        }
    };
    let snapshot = |id: &str, state: String| Snapshot {
        workflow_id: id.into(),
        version: 2,
        event_hash: Hash::ZERO,
        state_schema: 1,
        fingerprint: Hash::ZERO,
        state: state.into_bytes(),
    };
    let commit = Commit {
        appends: vec![append("gone", &secret(), Some("completed")), append("stays", &kept(), Some("failed"))],
        payloads: vec![secret(), kept()],
        wakeups: vec![("gone".into(), Some(7)), ("stays".into(), Some(8))],
        listens: vec![("gone".into(), vec!["x".into()]), ("stays".into(), vec!["x".into()])],
        snapshots: vec![
            snapshot("gone", format!("{{\"ref\":\"{}\"}}", secret().hash)),
            snapshot("stays", "{}".into()),
        ],
        ..Commit::default()
    };
    desk.commit(commit).unwrap();
}

fn erase(desk: &Desk) -> Result<Tombstone, NotForgotten> {
    let (actor, reason) = ("ann".to_owned(), "asked to".to_owned());
    desk.store.erase(&Erasure { shard: 0, epoch: desk.epoch, hash: secret().hash, at: 9, actor, reason })
}

fn prune_and_sweep(desk: &Desk) -> Result<(), NotForgotten> {
    let (workflow_id, actor) = ("gone".into(), "ann".to_owned());
    let pruning = Pruning { shard: 0, epoch: desk.epoch, workflow_id, before: i64::MAX, at: 9, actor };
    let pruned = desk.store.prune(&pruning);
    desk.store.sweep(0, desk.epoch)?;
    pruned.map(drop)
}

/// Not a test of its own: the process that forgets.
#[test]
#[ignore = "run by the tests of this file"]
fn forgets() {
    let Ok(store) = std::env::var("FOLDBACK_TEST_STORE") else { return };
    let desk = Desk::take(open(&store).unwrap());
    match std::env::var("FOLDBACK_TEST_FORGETS").as_deref() {
        Ok("erase") => drop(erase(&desk).unwrap()),
        _ => prune_and_sweep(&desk).unwrap(),
    }
    println!("\nforgot");
}

/// Whether some file of the directory holds these bytes.
fn is_in_the_files(dir: &Path, needle: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|file| {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}

/// What stands whatever happened: the other workflow, with all that is its.
fn stays(desk: &Desk, what: &str) {
    desk.is_sound();
    let store = &*desk.store;
    assert_eq!(store.read("stays", 0, 9).unwrap().len(), 3, "{what}");
    assert_eq!(store.payload(0, &kept().hash).unwrap(), Some(kept()), "{what}");
    assert_eq!(store.snapshot("stays", 9).unwrap().map(|s| s.version), Some(2), "{what}");
    assert_eq!(store.workflow("stays").unwrap().unwrap().wake_at, Some(8), "{what}");
}

/// Kills a process that forgets at each of a kind of place in turn, until one passes them all; how
/// many killed it. `look` sees what each left.
fn killed_at_each(forgets: &str, place: &str, look: &dyn Fn(&tempfile::TempDir, &str)) -> u64 {
    for n in 1.. {
        let what = format!("{forgets} killed at {place}:{n}");
        let dir = tempfile::tempdir().unwrap();
        two_workflows(&dir);
        let env = [("FOLDBACK_TEST_FORGETS", forgets.to_owned()), ("FOLDBACK_FAULT", format!("{place}:{n}"))];
        let ran = run("forgets", &dir, &env);
        let out = String::from_utf8_lossy(&ran.stdout);
        if ran.status.success() {
            assert!(out.contains("forgot"), "{what}: {out}");
            return n - 1;
        }
        assert!(!out.contains("test result"), "{what}: {out}{}", String::from_utf8_lossy(&ran.stderr));
        look(&dir, &what);
    }
    unreachable!("it comes to an end")
}

#[test]
fn killed_between_any_two_statements_of_an_erasure() {
    let look = |dir: &tempfile::TempDir, what: &str| {
        let desk = Desk::at(dir);
        stays(&desk, what);
        // All of it, or nothing of it.
        let (store, hash) = (&*desk.store, secret().hash);
        let is_erased = store.tombstone(0, &hash).unwrap().is_some();
        assert_eq!(is_erased, what.contains("forgotten"), "{what}");
        assert_eq!(store.payload(0, &hash).unwrap().is_none(), is_erased, "{what}: the value");
        assert_eq!(store.snapshot("gone", 9).unwrap().is_none(), is_erased, "{what}: the snapshot");
        // The command is given again: what was left undone is done now.
        let tombstone = erase(&desk).unwrap_or_else(|why| panic!("{what}: {why:?}"));
        assert_eq!((tombstone.hash, tombstone.at), (hash, 9), "{what}");
        let bytes = secret().bytes;
        for needle in [&bytes[..50], &bytes[20_000..20_050]] {
            assert!(!is_in_the_files(dir.path(), needle), "{what}: the bytes are still there");
        }
        let log = store.read("gone", 0, 9).unwrap();
        assert_eq!(log.len(), 3, "{what}");
        log.iter().fold(Hash::ZERO, |previous, recorded| {
            chain::verify_chain(previous, recorded).unwrap();
            recorded.hash
        });
        assert_eq!(store.workflow("gone").unwrap().unwrap().wake_at, Some(7), "{what}");
        stays(&desk, what);
    };
    // The beginning, the tombstone, the value, the snapshots.
    assert_eq!(killed_at_each("erase", "forgetting", &look), 4);
    assert_eq!(killed_at_each("erase", "forgotten", &look), 1);
}

#[test]
fn killed_between_any_two_statements_of_a_pruning() {
    let look = |dir: &tempfile::TempDir, what: &str| {
        let desk = Desk::at(dir);
        stays(&desk, what);
        let store = &*desk.store;
        let is_pruned = store.pruned("gone").unwrap().is_some();
        let n = what.rsplit(':').next().and_then(|n| n.parse::<u64>().ok()).unwrap();
        assert_eq!(is_pruned, n > PRUNING || what.contains("forgotten"), "{what}");
        assert_eq!(store.workflow("gone").unwrap().is_none(), is_pruned, "{what}: the row");
        assert_eq!(store.read("gone", 0, 9).unwrap().is_empty(), is_pruned, "{what}: the log");
        assert_eq!(store.snapshot("gone", 9).unwrap().is_none(), is_pruned, "{what}: the snapshot");
        assert_eq!(store.listens("gone").unwrap().is_empty(), is_pruned, "{what}: the listener");
        // The command is given again. One that was pruned is not there, and what it left is swept.
        match prune_and_sweep(&desk) {
            Err(NotForgotten::NotThere) => assert!(is_pruned, "{what}"),
            other => assert_eq!((other, is_pruned), (Ok(()), false), "{what}"),
        }
        assert!(store.pruned("gone").unwrap().is_some(), "{what}");
        assert_eq!(store.payload(0, &secret().hash).unwrap(), None, "{what}: the value is swept");
        assert_eq!(store.tombstone(0, &secret().hash).unwrap(), None, "{what}: nothing stands for it");
        for needle in [&secret().bytes[..50], b"gone filler"] {
            assert!(!is_in_the_files(dir.path(), needle), "{what}: the bytes are still there");
        }
        stays(&desk, what);
    };
    /// The beginning, the signed-off row, events, snapshots, wake-up, listener, the row, the shard's counter.
    const PRUNING: u64 = 8;
    // The sweep's: the beginning, a tombstone, the value, the tombstone.
    assert_eq!(killed_at_each("prune", "forgetting", &look), PRUNING + 4);
    assert_eq!(killed_at_each("prune", "forgotten", &look), 2);
}

/// Builds the shim; `None`, said aloud, where there is no C compiler.
fn shim(dir: &Path) -> Option<PathBuf> {
    let out = dir.join("shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/shim.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&out).args([source, "-ldl"]).status();
    if cfg!(target_os = "linux") && built.is_ok_and(|status| status.success()) {
        return Some(out);
    }
    println!("SKIPPED: failing system calls need Linux and `cc`");
    None
}

#[test]
fn a_system_call_that_fails_is_the_end_and_loses_nothing() {
    const EIO: u32 = 5;
    const ENOSPC: u32 = 28;
    const EROFS: u32 = 30;
    const ALWAYS: u32 = 1_000_000;
    let tools = tempfile::tempdir().unwrap();
    let Some(shim) = shim(tools.path()) else { return };
    // The call, its error, after how many calls, how often, whether the first writes a half; what
    // a person is told. A sync that failed once and then succeeds is the trap: the second success
    // says nothing about the first one's data.
    let table = [
        ("sync", EIO, 0, 1, 0, "disk I/O error"),
        ("sync", EIO, 3, 1, 0, "disk I/O error"),
        ("sync", EIO, 7, ALWAYS, 0, "disk I/O error"),
        ("write", EIO, 20, 1, 0, "disk I/O error"),
        ("write", ENOSPC, 0, ALWAYS, 0, "database or disk is full"),
        ("write", ENOSPC, 25, ALWAYS, 0, "database or disk is full"),
        ("write", ENOSPC, 25, ALWAYS, 1, "database or disk is full"),
        ("write", ENOSPC, 40, 1, 0, "database or disk is full"),
        ("write", EROFS, 10, ALWAYS, 0, "disk I/O error"),
    ];
    for (call, errno, after, times, short, told) in table {
        let what = format!("{call} errno {errno} after {after}, {times} times, short {short}");
        let dir = tempfile::tempdir().unwrap();
        let env = [
            ("LD_PRELOAD", shim.display().to_string()),
            ("SHIM_ARMED", dir.path().join("armed").display().to_string()),
            ("SHIM_CALL", call.into()),
            ("SHIM_ERRNO", errno.to_string()),
            ("SHIM_AFTER", after.to_string()),
            ("SHIM_TIMES", times.to_string()),
            ("SHIM_SHORT", short.to_string()),
        ];
        let ran = child(&dir, &env);
        let out = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{what}: {out}{}", String::from_utf8_lossy(&ran.stderr));
        let failed = lines(&out, "failed ");
        assert!(failed.len() >= 4 && !out.contains("unexpected"), "{what}: {out}");
        for error in &failed {
            assert!(
                error.contains(told) && error.contains("foldback.db") && !error.contains("none"),
                "{what}: {error}"
            );
        }
        let after_the_first = out.split_once("failed ").unwrap().1;
        assert_eq!(
            lines(after_the_first, "acknowledged "),
            Vec::<&str>::new(),
            "{what}: nothing is tried again"
        );
        survived(&dir, &out, &what);
    }
}
