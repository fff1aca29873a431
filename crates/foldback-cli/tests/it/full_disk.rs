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
