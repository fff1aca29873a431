//! A narrow machine: few open files. What does not fit at once comes later; what cannot work at all is
//! said, and nothing panics.
#![cfg(unix)]

use std::process::{Command, Stdio};

use crate::world::{Ran, World};

/// Runs the binary where it may open so many files.
fn with_files(world: &World, files: u32, words: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_foldback")]);
    command.args(words).current_dir(world.dir.path()).env_remove("FOLDBACK_STORE").stdin(Stdio::null());
    Ran::of(command.output().expect("it runs"))
}

#[test]
fn steps_at_once_are_as_many_as_there_are_files_for() {
    let world = World::empty();
    let branches: String = (0..40)
        .map(|n| {
            format!("        - b{n}: {{ run: {{ shell: {{ command: 'sleep 0.1; echo {n} >> done' }} }} }}\n")
        })
        .collect();
    let head = "document: { dsl: '1.0.3', namespace: t, name: wide, version: '1.0.0' }\ndo:\n  - all:\n      \
                fork:\n        branches:\n";
    let text = format!("{head}{}", branches.replace("        - ", "          - "));
    std::fs::write(world.dir.path().join("wide.yaml"), text).expect("a definition");
    let ran = with_files(&world, 100, &["run", "wide.yaml", "--id", "w", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let done = std::fs::read_to_string(world.dir.path().join("done")).unwrap_or_default();
    assert_eq!(done.lines().count(), 40);
    assert!(!ran.err.contains("No room"), "none was begun in vain: {}", ran.err);
}

#[test]
fn however_few_files_there_are_nothing_panics_and_the_reason_is_said() {
    let world = World::empty();
    let text = "document: { dsl: '1.0.3', namespace: t, name: one, version: '1.0.0' }\ndo:\n  \
                - go: { run: { shell: { command: 'echo gone' } } }\n";
    std::fs::write(world.dir.path().join("one.yaml"), text).expect("a definition");
    // With fewer than five the binary itself does not start.
    for files in 5..=72 {
        let id = format!("f{files}");
        for words in [&["run", "one.yaml", "--id", &id][..], &["list"], &["doctor"]] {
            let ran = with_files(&world, files, words);
            assert!(!ran.err.contains("panicked"), "{files} {words:?}: {}", ran.err);
            if ran.code != 0 {
                assert_eq!(ran.code, 3, "{files} {words:?}: {}", ran.err);
                assert!(ran.err.contains("ulimit -n"), "{files} {words:?}: {}", ran.err);
            }
        }
    }
    assert_eq!(with_files(&world, 80, &["run", "one.yaml", "--id", "enough"]).code, 0);
}
