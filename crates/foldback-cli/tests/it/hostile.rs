//! A machine and files that wish us ill: imports made to be large, a full disk, a sync that fails, a
//! store that is cut off, a directory that may not be written. Each ends with its exit code and a hint.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Ran, World, published, write};

/// Runs the binary with at most so much memory, and gives it `input` piece by piece.
fn bounded(world: &World, kilobytes: u64, words: &str, input: impl Iterator<Item = Vec<u8>> + Send) -> Ran {
    let line = format!("ulimit -v {kilobytes}; exec \"$0\" {words}");
    let mut child = Command::new("sh")
        .args(["-c", &line, env!("CARGO_BIN_EXE_foldback")])
        .current_dir(world.dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in input {
                // It stops listening as soon as it knows.
                if stdin.write_all(&piece).is_err() {
                    break;
                }
            }
        });
        Ran::of(child.wait_with_output().expect("it ends"))
    })
}

#[test]
fn a_file_made_to_be_large_is_refused_within_bounded_memory() {
    const MEGABYTE: usize = 1 << 20;
    let (from, to) = (World::filled(), World::empty());
    let file = from.run(&["export", "done"]).out;
    let head: String = file.split_inclusive('\n').take(2).collect();
    let line = |bytes: &str| bytes.as_bytes().repeat(MEGABYTE / bytes.len());
    // What stands before, the megabyte that is repeated, how often; what is told.
    let table = [
        (
            "a first line of 1 GB",
            "",
            line("x"),
            1_024,
            "line 1: this is no export of Foldback: its first line",
        ),
        ("a third line of 1 GB", &*head, line("x"), 1_024, "line 3: the file is longer than"),
        ("brackets in brackets", &*head, line("["), 1_024, "line 3: the file is longer than"),
        ("10,000,000 short lines", &*head, line("{}\n"), 30, "line 3: it is neither an event"),
        ("10,000,000 headers", "", line(head.split_inclusive('\n').next().expect("one")), 2_000, "line 2: "),
        ("nothing but line breaks", "", line("\n"), 64, "line 1: this is no export"),
    ];
    for (name, before, megabyte, times, wanted) in table {
        let pieces = std::iter::once(before.as_bytes().to_vec()).chain(std::iter::repeat_n(megabyte, times));
        let ran = bounded(&to, 1_200_000, "import -", pieces);
        assert_eq!(ran.code, 2, "{name}: {ran:?}");
        assert!(
            ran.err.contains(wanted) && ran.err.contains("hint: nothing was imported"),
            "{name}: {ran:?}"
        );
    }
    // A whole line of brackets, and the same inside an event.
    let deep = "[".repeat(50 * MEGABYTE);
    for (event, wanted) in
        [(format!("{{\"event\":{deep}\n"), "line 3: "), (format!("{{\"end\":{deep}\n"), "line 3: ")]
    {
        let ran =
            bounded(&to, 1_200_000, "import -", [head.clone().into_bytes(), event.into_bytes()].into_iter());
        assert!(ran.code == 2 && ran.err.contains(wanted), "{ran:?}");
    }
    assert_eq!(to.run(&["list", "--json"]).out, "", "nothing was imported");
}

#[test]
fn an_export_into_a_pipe_that_closes_ends_quietly() {
    let world = World::filled();
    let mut child = world
        .command(&["export", "done"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().expect("it ends"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "as `export ID | head -1` does");
}

/// Imported in the middle of its work, it goes on there and ends as it would have.
#[test]
fn an_unfinished_workflow_goes_on_where_it_was_imported() {
    let (from, to) = (World::empty(), World::empty());
    let text = "document: { dsl: '1.0.3', namespace: test, name: waits, version: '1.0.0' }\ndo:\n  \
                - first: { set: { n: 1 } }\n  - pause: { wait: { seconds: 2 } }\n  \
                - second: { set: { n: '${ .n + 1 }', first: '${ $steps.first.n }' } }\n";
    fs::write(from.dir.path().join("waits.yaml"), text).expect("it is written");
    let mut run =
        from.command(&["run", "waits.yaml", "--id", "w"]).stderr(Stdio::null()).spawn().expect("it runs");
    let begun = Instant::now();
    while !from.run(&["events", "w", "--json"]).out.contains("TimerSet") {
        assert!(begun.elapsed() < Duration::from_secs(30), "it waits");
        std::thread::sleep(Duration::from_millis(20));
    }
    run.kill().expect("it is killed");
    run.wait().expect("it ended");
    let file = from.run(&["export", "w"]);
    assert_eq!(file.code, 0, "{file:?}");
    fs::write(to.dir.path().join("w.jsonl"), &file.out).expect("it is written");
    let told = to.run(&["--json", "import", "w.jsonl"]).document(0);
    assert_eq!(told["status"], "waiting", "{told}");
    let ended = to.run(&["--json", "resume", "w"]).document(0);
    assert_eq!((&ended["status"], &ended["output"]["n"]), (&"completed".into(), &2.into()), "{ended}");
    assert_eq!(ended["output"]["first"], 1, "{ended}");
    // Only what came before is in the file: the same log, as far as it goes.
    assert!(to.run(&["export", "w"]).out.starts_with(file.out.rsplit_once("{\"end\"").expect("an end").0));
    let audit = to.run(&["audit", "--json"]).document(0);
    assert_eq!(audit["problems"], serde_json::json!([]));
}

/// Builds the shim of the store's tests; `None`, said aloud, where there is no C compiler.
#[allow(clippy::print_stdout)]
fn shim(dir: &Path) -> Option<PathBuf> {
    let out = dir.join("shim.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../foldback-store/tests/shim.c");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&out).args([source, "-ldl"]).status();
    if cfg!(target_os = "linux") && built.is_ok_and(|status| status.success()) {
        return Some(out);
    }
    println!("SKIPPED: failing system calls need Linux and `cc`");
    None
}

#[test]
fn a_disk_that_fails_is_exit_code_3_and_leaves_nothing_by_half() {
    let tools = tempfile::tempdir().expect("a directory");
    let Some(shim) = shim(tools.path()) else { return };
    let sets: String =
        (0..20).map(|i| format!("  - s{i}: {{ run: {{ shell: {{ command: 'true' }} }} }}\n")).collect();
    let steps = format!(
        "document: {{ dsl: '1.0.3', namespace: t, name: steps, version: '1.0.0', \
         metadata: {{ foldback: {{ recovery: retry }} }} }}\ndo:\n{sets}"
    );
    let from = World::filled();
    let file = from.run(&["export", "done"]).out;
    // The words, the call that fails, its error (5 is EIO, 28 ENOSPC), after how many calls; what is told.
    type Case = (&'static [&'static str], &'static str, u32, u32, &'static str, &'static str);
    let table: [Case; 5] = [
        (&["import", "file"], "write", 28, 0, "foldback.db: d", "full"),
        (&["import", "file"], "write", 28, 12, "foldback.db: d", "full"),
        (&["import", "file"], "sync", 5, 1, "disk I/O error", "see the system log"),
        (&["run", "steps.yaml", "--id", "r"], "sync", 5, 6, "disk I/O error", "see the system log"),
        (&["run", "steps.yaml", "--id", "r"], "write", 28, 30, "foldback.db: d", "full"),
    ];
    for (words, call, errno, after, told, hint) in table {
        let what = format!("{words:?} {call} {errno} after {after}");
        let world = World::empty();
        write(&*world.store(), "before", &crate::world::article("before", &published()), Some("completed"));
        fs::write(world.dir.path().join("file"), &file).expect("it is written");
        fs::write(world.dir.path().join("steps.yaml"), &steps).expect("it is written");
        fs::write(tools.path().join("armed"), "").expect("it is written");
        let mut command = world.command(words);
        command.env("LD_PRELOAD", &shim).env("SHIM_ARMED", tools.path().join("armed")).env("SHIM_CALL", call);
        command
            .env("SHIM_ERRNO", errno.to_string())
            .env("SHIM_AFTER", after.to_string())
            .env("SHIM_TIMES", "99999");
        let ran = Ran::of(command.output().expect("the binary runs"));
        assert_eq!(ran.code, 3, "{what}: {ran:?}");
        assert!(ran.err.contains(told) && ran.err.contains(hint), "{what}: {ran:?}");
        assert!(ran.err.contains("foldback.db"), "{what} names the file: {ran:?}");
        // What is left is sound, holds nothing by half, and goes on.
        let audit = world.run(&["audit", "--json"]).document(0);
        assert_eq!(audit["problems"], serde_json::json!([]), "{what}");
        if words[0] == "import" {
            assert_eq!(audit["workflows"], 1, "{what}: nothing was imported");
            assert_eq!(world.run(&["import", "file"]).code, 0, "{what}: and now it is");
        } else {
            let ended = world.run(&["--json", "run", "steps.yaml", "--id", "r"]).lines(0);
            assert_eq!(ended[0]["status"], "completed", "{what}: it goes on");
        }
    }
}

#[test]
fn a_store_that_was_cut_off_is_told_with_a_way_out() {
    let world = World::filled();
    let whole = fs::read(world.path()).expect("it is read");
    for left in [4_096 + 100, whole.len() / 2, whole.len() - 4_096] {
        fs::write(world.path(), &whole[..left]).expect("it is written");
        for words in [&["list"][..], &["audit"], &["show", "done"], &["export", "done"], &["resume"]] {
            let ran = world.run(words);
            assert_eq!(ran.code, 3, "{left} bytes, {words:?}: {ran:?}");
            assert!(ran.err.contains("damaged or cut off") && ran.err.contains("put back a copy"), "{ran:?}");
            assert!(!ran.err.contains("audit"), "the hint leads in a circle: {ran:?}");
        }
        assert_eq!(fs::read(world.path()).expect("it is read").len(), left, "it is left as it is");
    }
}

/// The binary as somebody who may only read; `None`, said aloud, where that cannot be.
#[allow(clippy::print_stdout)]
fn as_a_stranger(world: &World, words: &[&str]) -> Option<Ran> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if id.stdout.trim_ascii() != b"0" {
        return Some(world.run(words));
    }
    // Root may write anywhere. The binary is put where a stranger may read it.
    let binary = world.dir.path().join("bin/foldback");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(binary).args(words);
    command.current_dir(world.dir.path()).env_remove("FOLDBACK_STORE");
    match command.output() {
        Ok(output) => Some(Ran::of(output)),
        Err(error) => {
            println!("SKIPPED: as root this needs setpriv: {error}");
            None
        }
    }
}

fn forbid(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("permissions are set");
}

#[test]
fn a_store_that_may_only_be_read_is_read() {
    let world = World::filled();
    let dir = world.dir.path();
    fs::create_dir(dir.join("bin")).expect("it is made");
    fs::copy(env!("CARGO_BIN_EXE_foldback"), dir.join("bin/foldback")).expect("it is copied");
    forbid(&world.path(), 0o444);
    forbid(dir, 0o555);
    let table: [(&[&str], i32, &str); 8] = [
        (&["list"], 0, "done"),
        (&["show", "done"], 0, "publish"),
        (&["events", "done"], 0, "WorkflowCompleted"),
        (&["state", "done", "--json"], 0, "\"completed\""),
        (&["export", "done"], 0, "foldback_export"),
        (&["audit"], 0, "3 workflows"),
        (&["resume", "unknown"], 2, "hint: make the file and its directory writable"),
        (&["import", "/dev/null"], 2, "hint: "),
    ];
    for (words, code, wanted) in table {
        let Some(ran) = as_a_stranger(&world, words) else { return };
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.out.contains(wanted) || ran.err.contains(wanted), "{words:?}: {ran:?}");
    }
    forbid(dir, 0o755);
    assert!(!dir.join("foldback.db-wal").exists(), "nothing was left beside it");
    // A process that was killed left commits in the log beside the file: they cannot be taken up here,
    // and to read without them would be to read an older truth.
    forbid(&world.path(), 0o644);
    let held = rusqlite::Connection::open(world.path()).expect("it opens");
    held.execute_batch("UPDATE shards SET owner = 'nobody'").expect("it is written");
    for name in ["foldback.db", "foldback.db-wal"] {
        fs::copy(dir.join(name), dir.join("bin").join(name)).expect("it is copied");
        forbid(&dir.join("bin").join(name), 0o444);
    }
    drop(held);
    forbid(&dir.join("bin"), 0o555);
    let Some(ran) = as_a_stranger(&world, &["--store", "bin/foldback.db", "list"]) else { return };
    assert!(ran.code == 2 && ran.err.contains("was not closed"), "{ran:?}");
    assert!(ran.err.contains("hint: make its directory writable, or copy"), "{ran:?}");
    forbid(&dir.join("bin"), 0o755);
}

#[test]
fn a_directory_that_may_not_be_entered_or_written_is_told_as_such() {
    let world = World::empty();
    let dir = world.dir.path();
    fs::create_dir(dir.join("bin")).expect("it is made");
    fs::create_dir(dir.join("closed")).expect("it is made");
    fs::copy(env!("CARGO_BIN_EXE_foldback"), dir.join("bin/foldback")).expect("it is copied");
    let document = "document: { dsl: '1.0.3', namespace: t, name: d, version: '1.0.0' }\ndo:\n- one: { set: { n: 1 } }\n";
    fs::write(dir.join("d.yaml"), document).expect("written");
    forbid(&dir.join("closed"), 0o000);
    forbid(dir, 0o555);
    let table: [(&[&str], &str); 3] = [
        (&["--store", "sqlite:closed/foldback.db", "list"], "closed/foldback.db: Permission denied"),
        (&["--store", "sqlite:closed/foldback.db", "run", "d.yaml"], "closed/foldback.db: Permission denied"),
        (&["run", "d.yaml"], "its directory cannot be written"),
    ];
    for (words, wanted) in table {
        let Some(ran) = as_a_stranger(&world, words) else { break };
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.err.contains(wanted) && ran.err.contains("hint: "), "{words:?}: {ran:?}");
    }
    forbid(&dir.join("closed"), 0o755);
    forbid(dir, 0o755);
}
