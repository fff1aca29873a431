//! The commands that read, where something is wrong: with what is asked for, with the log, with
//! the reader; and logs that still grow.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::{Ran, World, article, published, tamper, write};
use foldback::core::{Fact, Key};
use serde_json::Value;

#[test]
fn a_log_that_breaks_the_law_is_quarantined_and_still_readable() {
    let world = World::empty();
    let mut events = article("w", &published());
    // A completion of a step that nobody asked for, well chained.
    if let Fact::StepCompleted(done) = &mut events[4].fact {
        done.key = Key::from("nobody/asked");
    }
    write(&*world.store(), "w", &events, None);
    assert_eq!(world.run(&["events", "w", "--json"]).lines(0).len(), 11);
    assert_eq!(world.run(&["events", "w", "--to", "6", "--json"]).lines(0).len(), 6);
    for command in ["state", "show"] {
        let ran = world.run(&[command, "w", "--json"]);
        assert_eq!(ran.document(1)["status"], "quarantined", "{command}");
        assert!(ran.err.contains("version 5") && ran.err.contains("hint:"), "{}", ran.err);
    }
    for command in ["steps", "decisions", "replay"] {
        let ran = world.run(&[command, "w"]);
        assert!(ran.code == 1 && ran.err.contains("quarantined"), "{command}: {ran:?}");
    }
    let before = world.run(&["state", "w", "--at", "3", "--json"]);
    assert_eq!(before.document(0)["status"], "running");
    assert_eq!(world.run(&["state", "w", "--at", "7"]).code, 2);
    let audit = world.run(&["audit", "--json"]).document(1);
    assert_eq!(audit["problems"][0]["version"], 5);
    // Whoever tries to run it says so in its row, for the lists.
    let ran = world.run(&["resume", "w"]);
    assert!(ran.code == 1 && ran.err.contains("quarantined"), "{ran:?}");
    let listed = world.run(&["list", "--status", "quarantined", "--json"]).lines(0);
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(world.run(&["events", "w", "--json"]).lines(0).len(), 11, "nothing was appended");
}

/// Two that wait, each left by a process that was killed; one of the two is changed behind its back.
#[test]
fn of_two_unfinished_ones_the_broken_is_quarantined_and_the_other_goes_on() {
    let world = World::empty();
    let definition = "document: { dsl: '1.0.3', namespace: test, name: a, version: '1.0.0' }\n\
                      do:\n  - first: { set: { word: whole } }\n  - pause: { wait: { seconds: 2 } }\n  \
                      - last: { set: { word: '${ .word }' } }\n";
    std::fs::write(world.dir.path().join("a.yaml"), definition).expect("written");
    for id in ["broken", "whole"] {
        let words = ["run", "a.yaml", "--id", id];
        let mut run = world.command(&words).stderr(Stdio::null()).spawn().expect("the binary runs");
        let begun = Instant::now();
        while world.run(&["list", "--status", "waiting", "--json"]).out.matches(id).count() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it waits");
            std::thread::sleep(Duration::from_millis(20));
        }
        run.kill().expect("it is killed");
        run.wait().expect("it ends");
    }
    tamper(
        &world.path(),
        "DROP TRIGGER log_is_never_updated;
         UPDATE log SET payload = replace(payload, 'whole', 'other') WHERE payload LIKE '%whole%'
             AND workflow = (SELECT n FROM workflows WHERE id = 'broken');",
    );
    let ran = world.run(&["resume", "--json"]);
    let ended = ran.lines(1);
    let status = |id: &str| ended.iter().find(|ended| ended["workflow_id"] == id).map(|e| &e["status"]);
    assert_eq!(status("whole"), Some(&Value::from("completed")), "{ran:?}");
    assert!(ran.err.contains("`broken` is quarantined: version 2"), "{ran:?}");
    for (id, status) in [("broken", "quarantined"), ("whole", "completed")] {
        let listed = world.run(&["list", "--status", status, "--json"]).document(0);
        assert_eq!(listed["workflow_id"], id);
    }
    let audit = world.run(&["audit", "--json"]).document(1);
    let problems = audit["problems"].as_array().expect("a list");
    let of_workflows: Vec<_> = problems.iter().filter(|problem| !problem["workflow_id"].is_null()).collect();
    assert!(of_workflows.len() == 1 && of_workflows[0]["workflow_id"] == "broken", "{audit}");
    assert!(audit.to_string().contains("the trigger `log_is_never_updated` is missing"), "{audit}");
}

#[test]
fn a_followed_log_ends_with_its_workflow() {
    let world = World::empty();
    let events = article("w", &published());
    let store = world.store();
    write(&*store, "w", &events[..4], None);
    let mut following = world
        .command(&["events", "w", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut lines = BufReader::new(following.stdout.take().expect("its output")).lines();
    for version in 1..=4 {
        let line: Value = serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
        assert_eq!(line["version"], version);
    }
    write(&*store, "w", &events[4..], Some("completed"));
    assert_eq!(lines.count(), events.len() - 4);
    assert!(following.wait().expect("it ends").success());
}

#[test]
fn a_reader_that_goes_away_ends_the_program_quietly() {
    let world = World::filled();
    for words in [&["events", "done"][..], &["list"], &["--help"]] {
        let mut command = world.command(words);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().expect("its errors").read_to_string(&mut err).expect("text");
        assert!(child.wait().expect("it ends").success(), "{words:?}: {err}");
        assert_eq!(err, "", "{words:?}");
    }
}

#[test]
fn what_is_asked_for_wrongly_exits_with_2_and_a_hint() {
    let world = World::filled();
    std::fs::write(world.dir.path().join("text.db"), "this is no database, it is a text of some length")
        .expect("written");
    let cases: &[(&[&str], &str)] = &[
        (&["show", "dnoe"], "did you mean `done`?"),
        (&["state", "nothing-like-it"], "foldback list"),
        (&["events", "dnoe"], "did you mean `done`?"),
        (&["events", "dnoe", "--follow"], "did you mean `done`?"),
        (&["replay", "dnoe"], "did you mean `done`?"),
        (&["steps", "dnoe"], "did you mean `done`?"),
        (&["decisions", "dnoe"], "did you mean `done`?"),
        (&["audit", "dnoe"], "did you mean `done`?"),
        (&["state", "dnoe", "--json"], "did you mean `done`?"),
        (&["state", "done", "--at", "12"], "versions 1 to 11"),
        (&["state", "done", "--at", "0"], "versions 1 to 11"),
        (&["state", "done", "--at", "-12"], "versions 1 to 11"),
        (&["events", "done", "--to", "12"], "versions 1 to 11"),
        (&["replay", "done", "--to", "99999999999999999999"], "a version is N"),
        (&["show", "done", "--at", "failure"], "has not failed"),
        (&["steps", "done", "--at", "pblish"], "did you mean `publish`?"),
        (&["steps", "unknown", "--at", "publish:end"], "has not ended"),
        (&["steps", "done", "--at", ""], "a version is N"),
        (&["steps", "done", "--at", "1999-01-01"], "it began at"),
        (&["list", "--status", "complete"], "did you mean `completed`?"),
        (&["list", "--status", "x"], "a status is one of"),
        (&["list", "--limit", "-3"], "hint:"),
        (&["list", "--limit", "many"], "foldback list --help"),
        (&["show"], "foldback show --help"),
        (&["show", "done", "extra"], "foldback steps done"),
        (&["show", "done", "extra", "more"], "foldback show --help"),
        (&["show", "done", "--frobnicate"], "foldback show --help"),
        (&["events", "done", "--follow", "--to", "3"], "foldback events --help"),
        (&["fork", "done"], "Rust code"),
        (&["compensates", "done"], "foldback --help"),
        (&["lst"], "foldback --help"),
        (&[], "foldback --help"),
        (&["list", "--store", "sqlite:nowhere.db"], "nowhere.db"),
        (&["show", "done", "--store", "sqlite:nowhere/foldback.db"], "nowhere"),
        (&["list", "--store", "sqlite:text.db"], "text.db"),
        (&["audit", "--store", "text.db"], "text.db"),
        (&["list", "--store", "sqlite:"], "hint:"),
        (&["list", "--store", "mysql://x"], "hint:"),
        (&["list", "--store", "postgres://x"], "hint:"),
        (&["check", "nowhere.yaml"], "nowhere.yaml"),
    ];
    for (words, wanted) in cases {
        let ran = world.run(words);
        assert_eq!(ran.code, 2, "{words:?}: {ran:?}");
        assert!(ran.err.contains("hint:"), "{words:?}: {}", ran.err);
        assert!(ran.err.contains(wanted), "{words:?}: {wanted:?} is missing in {}", ran.err);
        assert_eq!(ran.out, "", "{words:?}");
    }
    assert!(!world.dir.path().join("nowhere.db").exists(), "looking makes no file");
}

#[test]
fn the_store_is_found_by_option_by_environment_and_by_default() {
    let world = World::filled();
    let elsewhere = World::empty();
    let url = format!("sqlite:{}", world.path().display());
    assert_eq!(world.run(&["list", "--json"]).lines(0).len(), 3);
    assert_eq!(elsewhere.run(&["list"]).code, 2);
    assert_eq!(elsewhere.run(&["list", "--json", "--store", &url]).lines(0).len(), 3);
    let by_environment =
        elsewhere.command(&["list", "--json"]).env("FOLDBACK_STORE", &url).output().expect("it runs");
    assert_eq!(Ran::of(by_environment).lines(0).len(), 3);
}
