//! `retry`, by the real binary: it goes on from the step that failed, says who and why, sends a write
//! again under its key, survives SIGKILL, and reopens nothing that did not fail.

use std::time::{Duration, Instant};

use crate::world::World;
use serde_json::{Value, json};

/// `first` writes a line; `second` fails until there is a file `mended`, and writes its key each time;
/// `third` writes a line, and kills the process that performs it where there is a file `dies`.
const PIPELINE: &str = "
document: { dsl: '1.0.3', namespace: test, name: three, version: '1.0.0' }
do:
- first: { run: { shell: { command: 'echo first >> done' } } }
- second: { run: { shell: { command: 'echo $FOLDBACK_IDEMPOTENCY_KEY >> keys; cat mended' } } }
- third: { run: { shell: { command: 'echo third >> done; if [ -e dies ]; then rm dies; kill -9 $PPID; fi; echo over' } }, metadata: { foldback: { recovery: retry } } }
";

fn read(world: &World, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(world.dir.path().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("it is written");
}

fn failed(id: &str) -> World {
    let world = World::empty();
    put(&world, "three.yaml", PIPELINE);
    fails(&world, id);
    world
}

fn fails(world: &World, id: &str) {
    let ran = world.run(&["run", "three.yaml", "--id", id, "--json"]);
    assert_eq!(ran.document(1)["error"]["key"], "second", "{ran:?}");
}

#[test]
fn it_goes_on_from_the_step_that_failed_and_says_who_and_why() {
    let world = failed("w");
    let told = world.run(&["retry", "w", "--json"]);
    assert_eq!(told.document(1)["status"], "failed", "nothing was mended: {told:?}");
    put(&world, "mended", "well");
    let told = world.run(&["retry", "w", "--reason", "the disk was full", "--json"]).document(0);
    assert_eq!((&told["status"], &told["output"]), (&json!("completed"), &json!("over")));
    assert_eq!(read(&world, "done"), ["first", "third"], "nothing was done twice");
    let keys = read(&world, "keys");
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "one write, one key: {keys:?}");

    let events = world.run(&["events", "w", "--json"]).lines(0);
    let reopened: Vec<&Value> = events.iter().filter(|e| e["type"] == "WorkflowReopened").collect();
    let said: Vec<&Value> = reopened.iter().map(|e| &e["payload"]).collect();
    assert_eq!(
        json!(said),
        json!([{"reason": "", "again": ["second"]}, {"reason": "the disk was full", "again": ["second"]}])
    );
    assert!(reopened.iter().all(|e| e["actor"] != "engine"), "{reopened:?}");
    let steps = world.run(&["steps", "w", "--json"]).lines(0);
    let rows: Vec<_> =
        steps.iter().map(|s| (s["key"].as_str().unwrap(), s["status"].as_str().unwrap())).collect();
    assert_eq!(
        rows,
        [
            ("first", "completed"),
            ("second", "failed"),
            ("second", "failed"),
            ("second", "completed"),
            ("third", "completed")
        ],
        "nothing is erased"
    );
    // The failure that is meant is the last one.
    let first_failure = world.run(&["state", "w", "--at", "second", "--json"]).document(0);
    let last_failure = world.run(&["state", "w", "--at", "failure", "--json"]).document(0);
    assert!(first_failure["version"].as_u64() < last_failure["version"].as_u64());
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
    assert_eq!(world.run(&["verify", "w", "--json"]).document(0)["matched"], true);
    let row = rusqlite::Connection::open(world.path()).expect("the file").query_row(
        "SELECT value ->> 'ended' FROM workflow_projections WHERE projection = 'workflows' AND key = 'w'",
        [],
        |row| row.get::<_, String>(0),
    );
    assert_eq!(row.expect("a row"), "completed");
}

#[test]
fn a_process_that_dies_while_it_goes_on_leaves_it_to_the_next() {
    let world = failed("w");
    put(&world, "mended", "well");
    put(&world, "dies", "");
    assert_eq!(world.run(&["retry", "w"]).code, -1, "the third step kills it");
    assert_eq!(world.run(&["resume", "w", "--json"]).document(0)["status"], "completed");
    assert_eq!(read(&world, "done"), ["first", "third", "third"], "only what was interrupted is done again");
}

/// Another process owns the store: the command goes through the inbox.
#[test]
fn a_second_terminal_hands_its_retry_over() {
    let world = failed("w");
    put(&world, "mended", "well");
    put(
        &world,
        "slow.yaml",
        "document: { dsl: '1.0.3', namespace: test, name: slow, version: '1.0.0' }\ndo:\n\
         - wait: { run: { shell: { command: 'while [ ! -e go ]; do sleep 0.02; done' } } }\n",
    );
    let mut owner = world.command(&["run", "slow.yaml", "--id", "slow"]);
    let mut owner = owner.stdout(std::process::Stdio::null()).spawn().expect("it starts");
    let begun = Instant::now();
    while world.run(&["list", "--status", "running", "--json"]).out.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not begin");
    }
    let told = world.run(&["retry", "w", "--reason", "mended", "--json"]).document(0);
    assert_eq!(told["status"], "completed");
    // A refusal comes back the same way.
    let told = world.run(&["retry", "w"]);
    assert!(told.code == 2 && told.err.contains("has completed"), "{told:?}");
    put(&world, "go", "");
    assert!(owner.wait().expect("it ends").success());
}

#[test]
fn what_did_not_fail_is_not_reopened() {
    let world = World::empty();
    put(&world, "three.yaml", &PIPELINE.replace("recovery: retry", "recovery: operator"));
    put(&world, "mended", "well");
    assert_eq!(world.run(&["run", "three.yaml", "--id", "done"]).code, 0);
    put(&world, "dies", "");
    assert_eq!(world.run(&["run", "three.yaml", "--id", "unknown"]).code, -1);
    assert_eq!(world.run(&["resume", "unknown"]).code, 1);
    for (id, said, hint) in [
        ("done", "`done` has completed", "foldback show done"),
        ("unknown", "`unknown` has not failed: it is unknown", "foldback show unknown"),
        ("Done", "no workflow", "foldback list"),
    ] {
        let told = world.run(&["retry", id]);
        assert!(told.code == 2 && told.err.contains(said) && told.err.contains(hint), "{id}: {told:?}");
    }
}

/// A definition of one step that runs this command.
fn one_step(world: &World, command: &str) {
    let text = format!(
        "document: {{ dsl: '1.0.3', namespace: t, name: one, version: '1.0.0' }}\ndo:\n  - go: {{ run: {{ shell: {{ command: '{command}' }} }} }}\n"
    );
    std::fs::create_dir_all(world.dir.path().join("flows")).expect("a folder");
    std::fs::write(world.dir.path().join("flows/one.yaml"), text).expect("a definition");
}

#[test]
fn who_mends_the_file_and_retries_is_told_that_the_old_definition_goes_on() {
    let world = World::empty();
    one_step(&world, "exit 1");
    assert_eq!(world.run(&["run", "flows/one.yaml", "--id", "r"]).code, 1);
    let unchanged = world.run(&["retry", "r"]);
    assert!(unchanged.code == 1 && !unchanged.err.contains("has changed"), "{}", unchanged.err);

    one_step(&world, "echo mended");
    let hint = "`foldback retry r --definition flows/one.yaml`";
    for command in [&["retry", "r"][..], &["retry", "r", "--from", "1"]] {
        let old = world.run(command);
        assert_eq!(old.code, 1, "{command:?}: {}", old.err);
        assert!(old.err.contains("note: flows/one.yaml has changed"), "{command:?}: {}", old.err);
        assert!(old.err.contains(hint), "{command:?}: {}", old.err);
    }
    let refused = world.run(&["run", "flows/one.yaml", "--id", "r"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("with another definition: flows/one.yaml has changed"), "{}", refused.err);
    assert!(refused.err.contains(hint), "{}", refused.err);

    let mended = world.run(&["retry", "r", "--definition", "flows/one.yaml"]);
    assert_eq!((mended.code, &*mended.out), (0, "\"mended\"\n"), "{}", mended.err);

    // What is known is the file that it follows now; one that is gone is nobody's news.
    one_step(&world, "echo again; exit 1");
    assert_eq!(world.run(&["run", "flows/one.yaml", "--id", "s"]).code, 1);
    std::fs::remove_file(world.dir.path().join("flows/one.yaml")).expect("it is gone");
    let gone = world.run(&["retry", "s"]);
    assert!(gone.code == 1 && !gone.err.contains("has changed"), "{}", gone.err);
}
