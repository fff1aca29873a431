//! Two terminals on one file: real processes, real SIGKILL. The second hands its workflow over,
//! follows it, and takes the store when the first is gone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_foldback");

/// `n` steps of 100 ms each, each of which leaves a line in a file: what ran, and how often.
fn pipeline(folder: &Path, n: usize) -> PathBuf {
    let file = folder.join(format!("steps{n}.yaml"));
    let steps: String = (0..n)
        .map(|i| {
            format!(
                "  - step{i}:\n      run: {{ shell: {{ command: 'sleep 0.1; echo $FOLDBACK_WORKFLOW_ID step{i} >> \"{}\"; echo done' }} }}\n      metadata: {{ foldback: {{ recovery: retry }} }}\n",
                folder.join("ran").display()
            )
        })
        .collect();
    let head = "document: { dsl: '1.0.3', namespace: test, name: steps, version: '1.0.0' }\ndo:\n";
    std::fs::write(&file, format!("{head}{steps}")).unwrap();
    file
}

fn foldback(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).args(arguments).env_remove("FOLDBACK_STORE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(folder: &Path, file: &Path, id: &str) -> Child {
    foldback(folder, &["--json", "run", file.to_str().unwrap(), "--id", id]).spawn().unwrap()
}

fn document(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.trim())
        .unwrap_or_else(|e| panic!("{e}: {text}\n{}", String::from_utf8_lossy(&output.stderr)))
}

fn completed_steps(folder: &Path, id: &str) -> usize {
    let output = foldback(folder, &["--json", "steps", id]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .filter(|line| serde_json::from_str::<Value>(line).is_ok_and(|s| s["status"] == "completed"))
        .count()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not happen within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often each step of a workflow ran.
fn ran(folder: &Path, id: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join("ran")).unwrap_or_default();
    let mut ran: Vec<String> =
        text.lines().filter_map(|l| l.strip_prefix(&format!("{id} "))).map(str::to_owned).collect();
    ran.sort();
    ran
}

#[test]
fn two_runs_at_once_both_end_and_each_sees_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), 5);
    let (a, b) = (start(folder.path(), &file, "a"), start(folder.path(), &file, "b"));
    for (child, id) in [(a, "a"), (b, "b")] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let document = document(&output);
        assert_eq!(
            (&document["workflow_id"], &document["status"]),
            (&Value::from(id), &Value::from("completed"))
        );
        let progress = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(progress.contains("step4"), "it follows what another process drives:\n{progress}");
        assert_eq!(ran(folder.path(), id).len(), 5);
    }
    let audit = foldback(folder.path(), &["--json", "audit"]).output().unwrap();
    assert!(audit.status.success(), "{}", String::from_utf8_lossy(&audit.stdout));
}

#[test]
fn a_list_does_not_wait_for_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), 10);
    let mut run = start(folder.path(), &file, "a");
    wait_until("the first step", || completed_steps(folder.path(), "a") > 0);
    let list = foldback(folder.path(), &["--json", "list"]).output().unwrap();
    assert!(list.status.success());
    assert_eq!(document(&list)["status"], "running");
    assert!(run.try_wait().unwrap().is_none(), "the run goes on");
    assert!(run.wait().unwrap().success());
}

#[test]
fn a_run_that_waits_on_another_takes_over_when_that_one_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), 10);
    let mut first = start(folder.path(), &file, "a");
    wait_until("the first step", || completed_steps(folder.path(), "a") > 0);
    let second = start(folder.path(), &file, "b");
    wait_until("the handing over", || completed_steps(folder.path(), "b") > 0);
    first.kill().unwrap();
    first.wait().unwrap();
    let output = second.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(document(&output)["status"], "completed");
    // The second drove what was its own; the first's waits until somebody goes on with it.
    assert!(completed_steps(folder.path(), "a") < 10);
    let before = completed_steps(folder.path(), "a");
    let resumed = foldback(folder.path(), &["--json", "resume"]).output().unwrap();
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert_eq!(completed_steps(folder.path(), "a"), 10);
    for id in ["a", "b"] {
        let mut once = ran(folder.path(), id);
        let runs = once.len();
        once.dedup();
        assert_eq!(once.len(), 10);
        assert!(runs <= 11, "only the step under way at the kill may run again: {runs}");
    }
    assert!(before > 0);
}

#[test]
fn the_same_id_from_two_terminals_is_one_workflow() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), 6);
    let children = [
        start(folder.path(), &file, "a"),
        start(folder.path(), &file, "a"),
        start(folder.path(), &file, "a"),
    ];
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(document(&output)["status"], "completed");
    }
    assert_eq!(ran(folder.path(), "a").len(), 6, "each step ran once");
}

#[test]
fn a_command_that_nobody_can_read_is_answered_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), 1);
    assert!(start(folder.path(), &file, "a").wait().unwrap().success());
    let store = rusqlite::Connection::open(folder.path().join("foldback.db")).unwrap();
    for (id, body) in [("x", "not json"), ("y", "{\"command\": \"dance\"}")] {
        let insert = "INSERT INTO inbox (id, shard, actor, body, sent_at) VALUES (?, 0, 'test', ?, 0)";
        store.execute(insert, [id, body]).unwrap();
    }
    let output = start(folder.path(), &file, "b").wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let open = "SELECT count(*) FROM inbox WHERE answer IS NULL";
    assert_eq!(store.query_row(open, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
}

/// The second Ctrl-C ends at once, and takes along what a step started; nobody takes its death for an
/// answer.
#[test]
fn the_second_interrupt_leaves_no_process_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sleeps.yaml");
    let text = "document: { dsl: '1.0.3', namespace: test, name: sleeps, version: '1.0.0' }\ndo:\n  \
                - sleep: { run: { shell: { command: 'sleep 600 & echo $! > child; wait' } } }\n";
    std::fs::write(&file, text).unwrap();
    let mut run = start(folder.path(), &file, "s");
    let child = folder.path().join("child");
    let read = || std::fs::read_to_string(&child).unwrap_or_default().trim().to_owned();
    wait_until("the step", || !read().is_empty());
    let interrupt = |id: u32| {
        assert!(Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap().success());
    };
    interrupt(run.id());
    std::thread::sleep(Duration::from_millis(300));
    assert!(run.try_wait().unwrap().is_none(), "the first lets the step report");
    interrupt(run.id());
    assert_eq!(run.wait().unwrap().code(), Some(130));
    // A process that has ended is gone, or a zombie that nobody has collected yet.
    let lives = |id: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
    };
    wait_until("its end", || !lives(&read()));
    let state = document(&foldback(folder.path(), &["--json", "state", "s"]).output().unwrap());
    assert_eq!(state["status"], "running", "no failure is recorded: {state}");
}

#[test]
fn forks_that_nobody_named_get_an_id_each_however_many_are_made_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = pipeline(folder.path(), 1);
    assert!(start(folder.path(), &file, "a").wait_with_output().unwrap().status.success());
    let fork = ["--json", "fork", "a", "--at", "1", "--detach"];
    let children: Vec<Child> = (0..8).map(|_| foldback(folder.path(), &fork).spawn().unwrap()).collect();
    let mut ids: Vec<String> = children
        .into_iter()
        .map(|child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            document(&output)["workflow_id"].as_str().unwrap().to_owned()
        })
        .collect();
    ids.sort();
    assert_eq!(ids, (1..=8).map(|n| format!("a~{n}")).collect::<Vec<_>>());
}
