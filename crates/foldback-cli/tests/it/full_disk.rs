//! A disk that takes nothing more: whatever only reads goes on, and says what it says otherwise.
#![cfg(unix)]

use std::process::Command;

use crate::world::{Ran, World};

/// Runs the binary where no file can be made longer.
fn full(world: &World, words: &[&str]) -> Ran {
    let binary = env!("CARGO_BIN_EXE_foldback");
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!("trap '' XFSZ; ulimit -f 0; exec '{binary}' {}", quoted.join(" "));
    let mut command = Command::new("sh");
    command.args(["-c", &script]).current_dir(world.dir.path()).env_remove("FOLDBACK_STORE");
    Ran::of(command.output().expect("sh runs"))
}

#[test]
fn what_only_reads_reads_on() {
    let world = World::filled();
    world.run(&["list"]);
    let commands: [&[&str]; 11] = [
        &["list"],
        &["show", "done"],
        &["events", "done"],
        &["replay", "done"],
        &["state", "done"],
        &["steps", "done"],
        &["decisions", "done"],
        &["diff", "done", "failed"],
        &["export", "done"],
        &["audit"],
        &["projection", "list"],
    ];
    for words in commands {
        let (before, then) = (world.run(words), full(&world, words));
        assert_eq!((then.code, &then.out), (before.code, &before.out), "{words:?}: {then:?}");
    }
    // What would write says so.
    let refused = full(&world, &["resume", "unknown"]);
    assert!(refused.code >= 2 && refused.err.contains("hint: "), "{refused:?}");
}

/// A file that may not grow is an error with a word; its signal would end the process without one.
#[test]
fn a_file_that_may_not_grow_is_told() {
    let world = World::empty();
    let text = "document: { dsl: '1.0.3', namespace: t, name: big, version: '1.0.0' }\ndo:\n- a: { for: { each: i, in: \
                '[range(200)]' }, do: [ b: { run: { shell: { command: 'head -c 20000 /dev/urandom | base64' } }, \
                metadata: { foldback: { effect: read } } } ] }\n";
    std::fs::write(world.dir.path().join("big.yaml"), text).expect("a definition");
    let told = Command::new("sh")
        .args(["-c", "ulimit -f 2000; exec \"$0\" run big.yaml --id w", env!("CARGO_BIN_EXE_foldback")])
        .current_dir(world.dir.path())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(3), "{said}");
    assert!(said.contains("error: ") && said.contains("`ulimit -f` bounds the file"), "{said}");
}
