//! The files of a store go away under a run: moved, removed, replaced. The run ends at once with exit
//! code 3, and performs no write that nobody would find in the log.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const STEPS: usize = 40;

/// `STEPS` writes, each of which leaves a line in a file.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let ran = folder.path().join("ran");
    let steps: String = (0..STEPS)
        .map(|i| {
            format!(
                "  - step{i}:\n      run: {{ shell: {{ command: 'sleep 0.05; echo step{i} >> \"{}\"' }} }}\n",
                ran.display()
            )
        })
        .collect();
    let head = "document: { dsl: '1.0.3', namespace: test, name: steps, version: '1.0.0',\n  \
                metadata: { foldback: { recovery: retry } } }\ndo:\n";
    fs::write(folder.path().join("steps.yaml"), format!("{head}{steps}")).unwrap();
    folder
}

fn foldback(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foldback"));
    command.current_dir(folder).args(words).env_remove("FOLDBACK_STORE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn ran(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("ran")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn begun(folder: &Path) -> Child {
    let child = foldback(folder, &["run", "steps.yaml", "--id", "w"]).spawn().unwrap();
    let since = Instant::now();
    while ran(folder).len() < 2 {
        assert!(since.elapsed() < Duration::from_secs(30), "no step ran within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_whose_files_go_away_ends_at_once() {
    let harms = [
        "mv foldback.db elsewhere.db",
        "rm foldback.db",
        "cp foldback.db copy; mv copy foldback.db",
        "mv foldback.db real.db; ln -s real.db foldback.db",
        "rm foldback.db-lock",
        "rm foldback.db-lock; touch foldback.db-lock",
        "rm foldback.db-wal",
        ": > foldback.db-wal",
        "rm foldback.db-shm",
        "mkdir away; mv foldback.db* away",
    ];
    let threads = harms.map(|harm| {
        std::thread::spawn(move || {
            let folder = folder();
            let child = begun(folder.path());
            let done = Command::new("sh").args(["-ec", harm]).current_dir(folder.path()).status();
            assert!(done.unwrap().success(), "{harm}");
            let then = ran(folder.path()).len();
            let output = child.wait_with_output().unwrap();
            let (now, told) = (ran(folder.path()).len(), told(&output));
            assert_eq!(output.status.code(), Some(3), "{harm}: {told}");
            assert!(
                told.contains("was moved, removed, replaced or cut while it was in use"),
                "{harm}: {told}"
            );
            assert!(told.contains("hint: "), "{harm}: {told}");
            // One may have been under way.
            assert!(now <= then + 1, "{harm}: {then} had run, then {now} had");
        })
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn what_was_moved_and_put_back_is_gone_on_with() {
    let folder = folder();
    let child = begun(folder.path());
    let (here, away) = (folder.path().join("foldback.db"), folder.path().join("away.db"));
    fs::rename(&here, &away).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(3));
    fs::rename(&away, &here).unwrap();
    let output = foldback(folder.path(), &["resume"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let mut steps = ran(folder.path());
    steps.sort();
    steps.dedup();
    assert_eq!(steps.len(), STEPS, "each ran");
    let audit = foldback(folder.path(), &["audit"]).output().unwrap();
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
}

#[test]
fn a_database_with_two_names_is_refused_by_every_command() {
    let folder = folder();
    fs::write(
        folder.path().join("short.yaml"),
        "document: { dsl: '1.0.3', namespace: t, name: t, version: '1.0.0' }\ndo:\n  - a: { set: { a: 1 } }\n",
    )
    .unwrap();
    let output = foldback(folder.path(), &["run", "short.yaml", "--id", "w"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    fs::hard_link(folder.path().join("foldback.db"), folder.path().join("other.db")).unwrap();
    let commands: [&[&str]; 4] = [
        &["run", "short.yaml", "--id", "v"],
        &["list"],
        &["audit"],
        &["--store", "sqlite:other.db", "run", "short.yaml"],
    ];
    for words in commands {
        let output = foldback(folder.path(), words).output().unwrap();
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {told}");
        assert!(told.contains("has 2 names (hard links)") && told.contains("hint: "), "{words:?}: {told}");
    }
    fs::remove_file(folder.path().join("other.db")).unwrap();
    assert_eq!(foldback(folder.path(), &["list"]).output().unwrap().status.code(), Some(0));
}
