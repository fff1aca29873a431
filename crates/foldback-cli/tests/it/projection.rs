//! `projection` and `list`, as a person at a terminal and a script meet them: real processes on one file.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::{Ran, World, article, published, write};
use serde_json::{Value, json};

const STEPS: &str = "name: steps_by_key
version: 1
events: [StepCompleted]
key: .payload.key
reduce: '{ times: ((.times // 0) + 1) }'
";

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).unwrap();
}

/// Steps of 100 ms each.
fn pipeline(steps: usize) -> String {
    let step = |i: usize| format!("  - s{i}:\n      run: {{ shell: {{ command: 'sleep 0.1' }} }}\n");
    let steps: String = (0..steps).map(step).collect();
    format!("document: {{ dsl: '1.0.3', namespace: test, name: slow, version: '1.0.0' }}\ndo:\n{steps}")
}

fn standing(world: &World, name: &str) -> Value {
    let all = world.run(&["--json", "projection", "list"]).lines(0);
    all.into_iter().find(|one| one["name"] == name).unwrap_or(Value::Null)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not happen within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn one_is_added_while_another_process_owns_the_store() {
    let world = World::empty();
    put(&world, "slow.yaml", &pipeline(25));
    put(&world, "steps.yaml", STEPS);
    let mut owner = world.command(&["run", "slow.yaml", "--id", "w"]);
    let mut owner = owner.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the run", || world.path().exists() && world.run(&["list"]).out.contains("slow"));
    let added = world.run(&["--json", "projection", "add", "steps.yaml"]).document(0);
    assert_eq!(
        (&added["name"], &added["state"], &added["version"]),
        (&json!("steps_by_key"), &json!("live"), &json!("1"))
    );
    assert!(owner.try_wait().unwrap().is_none(), "the owner runs on: it was the owner who added it");
    assert!(owner.wait().unwrap().success());
    // It was folded to the end, and nobody had to ask for it.
    let store = world.store();
    assert_eq!(store.projection("steps_by_key").unwrap().len(), 25);
    drop(store);
    let told = standing(&world, "steps_by_key");
    assert_eq!((&told["lag"], &told["rows"], &told["failure"]), (&json!(0), &json!(25), &Value::Null));
    let rows = world.run(&["--json", "projection", "show", "steps_by_key"]).lines(0);
    assert_eq!(rows[0], json!({"key": "s0", "value": {"times": 1}}));
}

#[test]
fn one_that_fails_is_told_with_its_event_and_goes_on_after_the_mend() {
    let world = World::filled();
    put(
        &world,
        "steps.yaml",
        &STEPS.replace("(.times // 0) + 1", "(.times // 0) + $event.payload.output.text"),
    );
    let added = world.run(&["projection", "add", "steps.yaml"]);
    assert_eq!(added.code, 1, "{added:?}");
    assert!(added.out.contains("steps_by_key 1: failed, 0 rows"), "{added:?}");
    assert!(
        added.err.contains("stands still at version 5 of done: `reduce`: number (0) and string (\""),
        "{added:?}"
    );
    assert!(added.err.contains("hint: `foldback events done --to 5`"), "{added:?}");
    let told = standing(&world, "steps_by_key");
    let failure = &told["failure"];
    assert_eq!(
        (&told["state"], &failure["workflow_id"], &failure["version"]),
        (&json!("failed"), &json!("done"), &json!(5))
    );
    assert_eq!(standing(&world, "workflows")["lag"], 0, "the others go on");
    let listed = world.run(&["projection", "list"]);
    assert!(
        listed.out.contains("failed") && listed.err.contains("stands still at version 5 of done"),
        "{listed:?}"
    );
    let shown = world.run(&["projection", "show", "steps_by_key"]);
    assert_eq!((shown.code, shown.err.contains("stands still")), (0, true), "{shown:?}");

    put(&world, "steps.yaml", STEPS);
    let mended = world.run(&["projection", "add", "steps.yaml"]);
    assert_eq!((mended.code, mended.out.as_str()), (0, "steps_by_key 1: live, 2 rows\n"), "{mended:?}");
    let again = world.run(&["projection", "add", "steps.yaml"]);
    assert_eq!((again.code, again.out.as_str()), (0, "steps_by_key 1: live, 2 rows, as it was\n"));
    for name in ["workflows", "steps_by_key"] {
        let rebuilt = world.run(&["--json", "projection", "rebuild", name]).document(0);
        assert_eq!((&rebuilt["state"], &rebuilt["lag"]), (&json!("live"), &json!(0)));
    }
    assert_eq!(world.run(&["audit"]).code, 0);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let world = World::filled();
    let good = STEPS;
    let files: [(String, &str, &str); 13] = [
        (good.replace(".payload.key", ".payload.key |"), "p.yaml:4:20: `key` is wrong", "in jq"),
        (good.replace("+ 1", "+ $evnt"), "p.yaml:5:36: `reduce` is wrong", "did you mean `$event`?"),
        (
            good.replace("key:", "keys:"),
            "p.yaml:4:1: a projection has no member `keys`",
            "did you mean `key`?",
        ),
        (
            good.replace("events: [StepCompleted]", "events: []"),
            "p.yaml:3:9: `events` names 1 to 100",
            "StepFailed",
        ),
        (good.replace("[StepCompleted]", "StepCompleted"), "p.yaml:3:9: `events` is a list, not a text", ""),
        (good.replace("steps_by_key", "Steps"), "p.yaml:1:7: `Steps` cannot be the name", "small letters"),
        (
            good.replace("steps_by_key", "workflows"),
            "p.yaml:1:7: `workflows` is a projection that every",
            "another name",
        ),
        (good.replace("steps_by_key", "a#1"), "p.yaml:1:7: `a#1` cannot be", "letters"),
        (good.replace("version: 1", "version: [1]"), "p.yaml:2:10: `version` is a text", ""),
        (good.replace("name: steps_by_key\n", ""), "p.yaml:1:1: a projection needs `name`", ""),
        ("- a\n".into(), "p.yaml:1:1: a projection is an object, not a list", ""),
        (String::new(), "p.yaml:1:1: the projection is empty", "`reduce`"),
        ("name: [\n".into(), "p.yaml:2:1: this is not YAML", "brackets"),
    ];
    for (text, message, hint) in files {
        put(&world, "p.yaml", &text);
        let ran = world.run(&["projection", "add", "p.yaml"]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{text}\n{ran:?}");
        assert!(ran.err.contains(message) || message.contains("not YAML"), "{message}\n{}", ran.err);
        assert!(ran.err.contains("hint: "), "{}", ran.err);
        assert!(ran.err.contains(hint) || hint == "brackets", "{hint}\n{}", ran.err);
    }
    put(&world, "near.yaml", &good.replace("StepCompleted", "StepComplete"));
    let near = world.run(&["projection", "add", "near.yaml"]);
    assert!(
        near.code == 0 && near.err.contains("near.yaml:3:10: warning: `StepComplete` is a domain event"),
        "{near:?}"
    );
    for (words, message, hint) in [
        (&["projection", "add", "none.yaml"][..], "none.yaml: No such file", "docs/sql.md"),
        (&["projection", "rebuild", "workflow"], "no projection `workflow`", "did you mean `workflows`?"),
        (&["projection", "show", "zebra"], "no projection `zebra`", "decisions, model_usage"),
        (&["projection"], "Usage", ""),
        (&["--store", "sqlite:none.db", "projection", "list"], "none.db does not exist", "run FILE"),
    ] {
        let ran = world.run(words);
        assert!(ran.code == 2 && ran.err.contains(message) && ran.err.contains(hint), "{words:?} {ran:?}");
    }
}

/// A store whose projections have not seen the newest workflow.
fn behind() -> World {
    let world = World::filled();
    assert_eq!(world.run(&["list"]).code, 0);
    write(&*world.store(), "new", &article("new", &published()), Some("completed"));
    world
}

fn timed(run: impl FnOnce() -> Ran) -> (Ran, Duration) {
    let begun = Instant::now();
    (run(), begun.elapsed())
}

#[test]
fn a_list_without_an_owner_brings_its_figures_up_itself() {
    let world = behind();
    let rows = world.run(&["--json", "list"]).lines(0);
    assert_eq!((&rows[0]["workflow_id"], &rows[0]["steps"]), (&json!("new"), &json!(2)));
    assert_eq!(
        (&rows[0]["micro_usd"], &rows[0]["tokens"]),
        (&json!(4200), &json!({"input": 120, "output": 30}))
    );
}

#[test]
fn a_list_beside_an_owner_that_does_not_get_on_waits_a_second_and_says_so() {
    let world = behind();
    let store = world.store();
    let held = store.acquire(0, "one who holds the shard and does nothing").unwrap().unwrap();
    let (ran, took) = timed(|| world.run(&["list", "--status", "completed"]));
    assert_eq!(ran.code, 0);
    assert!(ran.err.contains("the rows of `workflows` are 11 events behind the log"), "{}", ran.err);
    assert!((Duration::from_millis(950)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert!(ran.out.contains("new"), "the status itself is never behind: {}", ran.out);
    drop(held);
    let (ran, _) = timed(|| world.run(&["list"]));
    assert_eq!(ran.err, "", "the shard is free, and the rows are there");
}

#[test]
fn a_list_that_may_write_nothing_says_at_once_how_far_it_is_behind() {
    let world = behind();
    let copy = world.dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    std::fs::copy(world.path(), copy.join("foldback.db")).unwrap();
    // A lock that is a directory cannot be taken, by root neither.
    std::fs::create_dir(copy.join("foldback.db-lock")).unwrap();
    let (ran, took) = timed(|| world.run(&["--store", "sqlite:copy/foldback.db", "list"]));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("11 events behind"), "{ran:?}");
    assert!(took < Duration::from_millis(900), "{took:?}");
    assert!(Path::new(&copy).join("foldback.db-lock").is_dir());
}

#[test]
fn a_rebuild_that_was_killed_goes_on_where_it_stood() {
    const EVENTS: u64 = 20_000;
    let world = World::empty();
    let event = |version| foldback::core::Event {
        clock: None,
        id: foldback::core::EventId(u128::from(version).to_be_bytes()),
        version,
        timestamp: 0,
        causation_id: None,
        correlation_id: None,
        actor: "shop".into(),
        fact: foldback::core::Fact::Recorded {
            event_type: "SOLD".into(),
            key: None,
            data: json!({"item": version % 7}).into(),
            handler: None,
        },
    };
    write(&*world.store(), "shop", &(1..=EVENTS).map(event).collect::<Vec<_>>(), None);
    put(&world, "sold.yaml", "name: sold\nevents: [SOLD]\nkey: .payload.item\nreduce: '(. // 0) + 1'\n");
    assert_eq!(world.run(&["projection", "add", "sold.yaml"]).code, 0);
    let before = world.run(&["--json", "projection", "show", "sold"]).lines(0);
    assert_eq!(before.iter().map(|row| row["value"].as_u64().unwrap()).sum::<u64>(), EVENTS);

    let store = world.store();
    let next = || store.projections().unwrap().into_iter().find(|row| row.name == "sold" && !row.is_live);
    // A quick machine is through before it can be killed: then once more.
    let killed = || {
        let mut rebuild = world.command(&["projection", "rebuild", "sold"]);
        let mut rebuild = rebuild.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the rebuild", || {
            next().is_some_and(|row| store.checkpoint(0, &row.rows).unwrap() > 0)
                || rebuild.try_wait().unwrap().is_some()
        });
        rebuild.kill().unwrap();
        rebuild.wait().unwrap();
        next()
    };
    let half = (0..20).find_map(|_| killed()).expect("it was killed in the midst");
    let place = store.checkpoint(0, &half.rows).unwrap();
    assert!(0 < place && place < EVENTS, "{place}");
    drop(store);
    let told = standing(&world, "sold");
    assert_eq!(
        (&told["state"], &told["lag"], &told["next"]["failure"]),
        (&json!("rebuilding"), &json!(0), &Value::Null)
    );
    assert_eq!(
        world.run(&["--json", "projection", "show", "sold"]).lines(0),
        before,
        "readers see the whole one"
    );
    // The same order again joins what is under way.
    let done = world.run(&["--json", "projection", "rebuild", "sold"]).document(0);
    assert_eq!((&done["state"], &done["rows"], &done["next"]), (&json!("live"), &json!(7), &Value::Null));
    let store = world.store();
    assert!(
        store.projections().unwrap().iter().any(|row| row.rows == half.rows && row.is_live),
        "the one begun before"
    );
    assert_eq!(world.run(&["--json", "projection", "show", "sold"]).lines(0), before);
}
