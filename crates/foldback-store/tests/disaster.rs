//! Disasters, for real: the process is killed between any two statements; the system refuses a
//! write or a sync. A child process suffers, its parent opens what is left.
//!
//! What was acknowledged is there, nothing is there by half, and the next owner goes on.
#![allow(clippy::print_stdout)]

mod desk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use desk::{Desk, event, url};
use foldback_core::Hash;
use foldback_core::value::Payload;
use foldback_store::{Append, Commit, CommitError, Expected, Snapshot, Store, chain, open};
use serde_json::json;

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
        ..Commit::default()
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
    if let Ok(armed) = std::env::var("SHIM_ARMED") {
        fs::write(armed, "").unwrap();
    }
    let mut failures = 0;
    while failures < 6 && next < 400 {
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
    Command::new(std::env::current_exe().unwrap())
        .args(["suffers", "--exact", "--ignored", "--nocapture"])
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
    }
    let rows = store.projection("p").unwrap();
    assert_eq!(rows.first().map_or(0, |(_, k)| k.as_u64().unwrap()), there, "{what}: the projection");
    assert_eq!(store.snapshot("a", u64::MAX).unwrap().map_or(0, |s| s.version), 2 * there, "{what}");
    let wake_at = store.workflow("a").unwrap().and_then(|row| row.wake_at);
    assert_eq!(wake_at.unwrap_or(0) as u64, there, "{what}: the wake-up");
    desk.commit(rich(there + 1)).unwrap_or_else(|e| panic!("{what}: it goes on: {e:?}"));
    desk.is_sound();
    there
}

#[test]
fn killed_between_any_two_statements() {
    // A commit is four events and some eight other statements; three are in a group.
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
