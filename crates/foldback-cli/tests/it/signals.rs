//! `signal`: what a webhook says again and again is heard once, and an answer may be a failure.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::World;
use serde_json::{Value, json};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: t, name: signals, version: '1.0.0' }\ndo:\n";
const ASK: &str = "{ listen: { to: { one: { with: { type: go } } } } }";

fn put(world: &World, name: &str, tasks: &str) {
    std::fs::write(world.dir.path().join(name), format!("{HEAD}{tasks}")).expect("a definition");
}

fn events(world: &World, id: &str, of_type: &str) -> Vec<Value> {
    let all = world.run(&["events", id, "--json"]).lines(0);
    all.into_iter().filter(|event| event["type"] == of_type).collect()
}

fn status(world: &World, id: &str) -> Value {
    world.run(&["state", id, "--json"]).document(0)["status"].clone()
}

#[test]
fn a_webhook_that_repeats_itself_is_heard_once() {
    let world = World::empty();
    put(&world, "two.yaml", &format!("  - first: {ASK}\n  - second: {ASK}\n"));
    assert_eq!(world.run(&["run", "two.yaml", "--id", "w"]).code, 0);
    let go = |id: &str, data: &str| world.run(&["signal", "w", "go", data, "--event-id", id]);
    for data in ["1", "1", "2"] {
        let said = go("evt_1", data);
        assert_eq!((said.code, status(&world, "w")), (0, json!("waiting")), "{said:?}");
    }
    assert_eq!(events(&world, "w", "SignalReceived").len(), 1);
    assert_eq!(events(&world, "w", "SignalReceived")[0]["payload"]["event_id"], "evt_1");
    // One without an id is another one each time.
    assert_eq!(go("evt_2", "3").code, 0);
    assert_eq!(status(&world, "w"), "completed");
    let late = go("evt_2", "4");
    assert_eq!((late.code, late.out.trim()), (0, "[\n  3\n]"), "{late:?}");
    assert_eq!(world.run(&["signal", "w", "go", "5", "--event-id", "evt_3"]).code, 2, "it has ended");
    assert_eq!(world.run(&["audit"]).code, 0);
}

/// One id is one signal: what else is sent under it is not swallowed.
#[test]
fn another_signal_under_a_known_id_is_refused() {
    let world = World::empty();
    let form = "{ listen: { to: { one: { with: { type: form } } } }, metadata: { foldback: { schema: { type: object, \
                required: [ok] } } } }";
    put(&world, "w.yaml", &format!("  - first: {ASK}\n  - form: {form}\n"));
    assert_eq!(world.run(&["run", "w.yaml", "--id", "w"]).code, 0);
    let say = |name: &str, data: &str, id: &str| world.run(&["signal", "w", name, data, "--event-id", id]);
    assert_eq!(say("go", "1", "e1").code, 0);
    let other = say("form", "{\"ok\": 1}", "e1");
    assert!(other.code == 2 && other.err.contains("is a signal `go`, not `form`"), "{other:?}");
    assert_eq!(say("form", "{\"bad\": 1}", "e2").code, 2);
    let again = say("form", "{\"ok\": 1}", "e2");
    assert!(again.code == 2 && again.err.contains("was refused: "), "{again:?}");
    assert!(again.err.contains("under an id of its own"), "{again:?}");
    assert_eq!(say("form", "{\"ok\": 1}", "e3").code, 0);
    assert_eq!(status(&world, "w"), "completed");
}

/// Going back forgets what was heard since, and the log still has the id: whoever repeats it is not told that it
/// was heard, while the wait goes on for ever.
#[test]
fn a_webhook_is_told_what_going_back_left_behind() {
    let world = World::empty();
    let fails = "{ run: { shell: { command: 'test -e ok' } } }";
    put(
        &world,
        "w.yaml",
        &format!("  - zero: {ASK}\n  - first: {ASK}\n  - second: {ASK}\n  - step: {fails}\n"),
    );
    assert_eq!(world.run(&["run", "w.yaml", "--id", "w"]).code, 0);
    let go = |id: &str| world.run(&["signal", "w", "go", "1", "--event-id", id]);
    let back = |key: &str| world.run(&["retry", "w", "--from", key]);
    assert_eq!((go("zero").code, go("one").code, go("two").code), (0, 0, 1));
    assert_eq!((back("second").code, status(&world, "w")), (0, json!("waiting")));
    // What was heard before the place that it went back to is heard.
    assert_eq!((go("zero").code, go("one").code), (0, 0));
    let left = go("two");
    let heard = events(&world, "w", "SignalReceived")[2]["version"].clone();
    assert_eq!(left.code, 2, "{left:?}");
    let told = format!("`w` heard `two` at version {heard}, which going back left behind");
    assert!(left.err.contains(&told) && left.err.contains("send it under another id"), "{left:?}");
    assert_eq!(status(&world, "w"), json!("waiting"));
    std::fs::write(world.dir.path().join("ok"), "").expect("a file");
    assert_eq!((go("three").code, status(&world, "w")), (0, json!("completed")));
    // Nothing waits any more.
    assert_eq!((go("two").code, go("three").code), (0, 0));
}

/// What nothing had taken stays when a workflow goes back, and is heard then.
#[test]
fn a_webhook_that_came_early_is_heard_behind_going_back() {
    let world = World::empty();
    let fails = "{ run: { shell: { command: 'test -e ok' } } }";
    put(&world, "w.yaml", &format!("  - first: {ASK}\n  - step: {fails}\n  - second: {ASK}\n"));
    assert_eq!(world.run(&["run", "w.yaml", "--id", "w"]).code, 0);
    let go = |id: &str| world.run(&["signal", "w", "go", "1", "--event-id", id]);
    let early = world.run(&["signal", "w", "later", "1", "--event-id", "early"]);
    assert_eq!((early.code, go("one").code), (0, 1));
    std::fs::write(world.dir.path().join("ok"), "").expect("a file");
    assert_eq!(
        (world.run(&["retry", "w", "--from", "first"]).code, status(&world, "w")),
        (0, json!("waiting"))
    );
    let again = world.run(&["signal", "w", "later", "1", "--event-id", "early"]);
    assert_eq!((again.code, events(&world, "w", "SignalReceived").len()), (0, 2), "{again:?}");
    assert_eq!(go("one").code, 2);
}

/// Beside a process that owns the store, the commands of several others lie in the inbox.
#[test]
fn a_webhook_is_heard_once_from_several_processes_at_once() {
    let world = World::empty();
    let long = "{ run: { shell: { command: 'sleep 3' } } }";
    put(&world, "busy.yaml", &format!("  - ask: {ASK}\n  - step: {long}\n  - again: {ASK}\n"));
    assert_eq!(world.run(&["run", "busy.yaml", "--id", "w"]).code, 0);
    let send = |id: &str| {
        let mut command = world.command(&["signal", "w", "go", "1", "--event-id", id]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary runs")
    };
    let mut owner = send("evt_1");
    let begun = Instant::now();
    while !world.run(&["steps", "w", "--json"]).out.contains("running") {
        assert!(begun.elapsed() < Duration::from_secs(20), "the step does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut others = [send("evt_1"), send("evt_2"), send("evt_1"), send("evt_2")];
    assert!(owner.wait().expect("a child").success());
    for other in &mut others {
        assert!(other.wait().expect("a child").success());
    }
    let heard = events(&world, "w", "SignalReceived");
    let ids: Vec<&Value> = heard.iter().map(|event| &event["payload"]["event_id"]).collect();
    assert_eq!(ids, [&json!("evt_1"), &json!("evt_2")]);
    assert_eq!(status(&world, "w"), "completed");
}

#[test]
fn an_answer_that_is_a_failure_is_caught_or_ends_it() {
    let world = World::empty();
    let handler = "catch: { as: error, do: [ { told: { set: { why: '${ $error.title }', status: '${ $error.status }' } } } ] }";
    put(
        &world,
        "caught.yaml",
        &format!(
            "  - pay:\n      try:\n        - ask:\n            listen: {{ to: {{ all: [ {{ with: {{ type: go }} }}, {{ with: {{ type: on }} }} ] }} }}\n            \
                  timeout: {{ after: {{ hours: 1 }} }}\n            metadata: {{ foldback: {{ default: 1 }} }}\n      {handler}\n"
        ),
    );
    put(&world, "bare.yaml", &format!("  - ask: {ASK}\n"));
    for (id, error, output) in [
        (
            "object",
            r#"{"status": 402, "title": "Declined", "detail": "no money"}"#,
            json!({"why": "Declined", "status": 402}),
        ),
        ("text", "the bank said no", json!({"why": "`go` was answered by a failure", "status": 500})),
    ] {
        assert_eq!(world.run(&["run", "caught.yaml", "--id", id]).code, 0);
        let said = world.run(&["signal", id, "go", "--error", error, "--json"]);
        assert_eq!(said.document(0)["output"], output);
        assert_eq!(world.run(&["verify", id]).code, 0);
    }
    assert_eq!(world.run(&["run", "bare.yaml", "--id", "w"]).code, 0);
    let said =
        world.run(&["signal", "w", "go", "--error", r#"{"type": "timeout", "status": 504}"#, "--json"]);
    let error = said.document(1)["error"].clone();
    assert_eq!(
        (&error["status"], &error["key"], &error["instance"]),
        (&json!(504), &json!("ask"), &json!("/do/0/ask"))
    );
    assert!(error["type"].as_str().is_some_and(|kind| kind.ends_with("/types/timeout")), "{error}");
    let page = world.run(&["show", "w"]).out;
    assert!(page.contains("✗ ask"), "{page}");
    // A retry waits anew, and a better answer completes it.
    assert_eq!(world.run(&["retry", "w", "--json"]).document(0)["status"], "waiting");
    assert_eq!(world.run(&["signal", "w", "go", "7", "--json"]).document(0)["status"], "completed");

    for (words, message) in [
        (&["--error", r#"{"status": 7}"#][..], "from 100 to 599"),
        (&["--error", r#"{"reason": "no"}"#], "has no `reason`"),
        (&["--error", "[1]"], "is no error"),
        (&["--error", "no", "--event-id", ""], "event id"),
        (&["1", "--error", "no"], "cannot be used with"),
    ] {
        assert_eq!(world.run(&["run", "bare.yaml", "--id", "open"]).code, 0);
        let ran = world.run(&[&["signal", "open", "go"], words].concat());
        assert!(ran.code == 2 && ran.err.contains(message), "{words:?}: {ran:?}");
    }
}
