//! A turn of many facts is written in batches, and between two of them the loop hears: an interrupt, a
//! termination, `cancel` and `pause` from another terminal. What was not written is owed to whoever resumes.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_foldback");

/// A loop that meets nobody, and takes minutes.
const LONG: &str = "document: { dsl: '1.0.3', namespace: test, name: long, version: '1.0.0' }\n\
                    do:\n- l: { for: { in: '[range(200000)]' }, do: [ s: { set: { n: '${ $item }' } } ] }\n";

fn foldback(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).args(arguments).env_remove("FOLDBACK_STORE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn events(folder: &Path) -> i64 {
    let Ok(store) = rusqlite::Connection::open(folder.join("foldback.db")) else { return 0 };
    store.query_row("SELECT count(*) FROM workflow_events", [], |row| row.get(0)).unwrap_or(0)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} did not happen within 60 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until it has written more, and so is in the middle of its turn.
fn in_the_middle(folder: &Path, what: &str) {
    let before = events(folder);
    wait_until(what, || events(folder) > before + 4_000);
}

fn ends(mut child: Child, what: &str) -> Output {
    wait_until(what, || child.try_wait().expect("a process").is_some());
    child.wait_with_output().expect("its output")
}

fn status(folder: &Path) -> String {
    let output = foldback(folder, &["--json", "list"]).output().expect("it runs");
    let row: Value = serde_json::from_slice(&output.stdout).expect("a row");
    row["status"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn between_two_batches_of_a_turn_it_hears_signals_and_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    std::fs::write(folder.join("long.yaml"), LONG).expect("a file");
    let mut run = foldback(folder, &["run", "long.yaml", "--id", "l"]).spawn().expect("it runs");
    for signal in ["-INT", "-TERM"] {
        in_the_middle(folder, "its beginning");
        let id = run.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill runs").success());
        ends(run, signal);
        assert_eq!(status(folder), "running", "{signal}: it is owed the rest of its turn");
        run = foldback(folder, &["resume", "l"]).spawn().expect("it runs");
    }
    for (command, told) in [("pause", "paused"), ("unpause", ""), ("cancel", "cancelled")] {
        if command == "unpause" {
            run = foldback(folder, &["unpause", "l"]).spawn().expect("it runs");
            continue;
        }
        in_the_middle(folder, "its going on");
        let output = ends(foldback(folder, &[command, "l"]).spawn().expect("it runs"), command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        wait_until(command, || run.try_wait().expect("a process").is_some());
        assert_eq!(status(folder), told);
    }
    assert!(events(folder) < 500_000, "it was stopped in the middle");
    let audit = foldback(folder, &["audit"]).output().expect("it runs");
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stderr));
}
