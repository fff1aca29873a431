//! `erase` of what errors say, by the real binary: the text of a failed task, and that of a signal that
//! reports a failure, wherever the log repeats it.

use crate::erase::{erased, is_on_disk};
use crate::world::World;
use serde_json::{Value, json};

/// Halves of it stand in the definitions, never the whole: where it is found, an error has said it.
const NAME: &str = "Ann-Ghost-4711";

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: failing, version: '1.0.0' }\ndo:\n";

fn write(world: &World, text: &str) {
    std::fs::write(world.dir.path().join("failing.yaml"), text).expect("it is written");
}

/// A step that fails twice with a name in what it says, inside a block that judges the error and does
/// not catch it.
fn failing(world: &World, marked: &str) {
    let text = format!(
        "{HEAD}- guard:\n\
         \x20   try:\n\
         \x20   - refuse:\n\
         \x20       run: {{ shell: {{ command: 'printf \"no account of Ann-%s\\n\" Ghost-4711 >&2; exit 3' }} }}\n\
         \x20       metadata: {{ foldback: {{ effect: read, attempts: 2{marked} }} }}\n\
         \x20   catch: {{ errors: {{ with: {{ status: 404 }} }}, do: [ {{ keep: {{ set: {{ a: 1 }} }} }} ] }}\n"
    );
    write(world, &text);
}

/// Whether the marker of an erased value stands where the detail of an error did.
fn is_marker(error: &Value) -> bool {
    error["detail"]["erased"]["reason"] == json!("asked to")
}

#[test]
fn what_the_error_of_a_marked_task_says_can_be_erased_wherever_it_is_repeated() {
    let (world, other) = (World::empty(), World::empty());
    failing(&world, ", erasable: true");
    let ran = world.run(&["run", "failing.yaml", "--id", "a"]);
    assert!(ran.code == 1 && ran.err.contains(NAME), "a person who runs it reads it: {ran:?}");
    assert!(is_on_disk(&world, NAME), "this test can fail");
    for command in ["show", "steps", "state"] {
        let ran = world.run(&[command, "a", "--full"]);
        assert!(ran.out.contains(NAME), "{command}: {ran:?}");
        assert!(world.run(&["--json", command, "a"]).out.contains(NAME), "{command}");
    }
    let events = world.run(&["--json", "events", "a"]).lines(0);
    let failed = events.iter().filter(|event| event["payload"]["error"]["detail"].is_string());
    assert_eq!(failed.count(), 3, "a failed attempt, the step, the workflow: {events:#?}");
    assert_eq!(world.run(&["verify", "a"]).code, 0);
    let whole = world.run(&["export", "a"]).out;

    // What the block judged is a value of its own, and is named.
    let plan = world.run(&["erase", "a", "refuse", "--dry-run"]);
    assert_eq!(plan.code, 2, "the key of a task inside a block is whole: {plan:?}");
    let plan = world.run(&["erase", "a", "guard/refuse", "--dry-run"]);
    assert!(plan.code == 0 && plan.out.contains("StepFailed guard/refuse"), "{plan:?}");
    assert!(plan.out.contains("WorkflowFailed"), "{plan:?}");
    assert!(plan.err.contains("TaskStarted guard!catch holds texts of it"), "{plan:?}");
    assert!(!plan.err.contains("inline"), "{plan:?}");
    for target in ["guard/refuse", "guard!catch"] {
        let plan = erased(&world, &["a", target, "--reason", "asked to"]);
        assert_eq!(plan["inline"], json!([]), "{target}: {plan}");
    }
    let rest = erased(&world, &["a", "guard/refuse", "--dry-run"]);
    assert_eq!((&rest["remains"], &rest["inline"]), (&json!([]), &json!([])));

    assert!(!is_on_disk(&world, NAME), "no file of the store holds it");
    let file = world.run(&["export", "a"]);
    assert!(file.code == 0 && !file.out.contains(NAME) && file.out.contains("\"erased\":{"), "{file:?}");
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
    for command in ["show", "steps", "events", "state", "decisions", "replay", "diff"] {
        let words: &[&str] = match command {
            "diff" => &[command, "a", "a"],
            _ => &[command, "a"],
        };
        let ran = world.run(words);
        assert!(!ran.out.contains(NAME) && !ran.err.contains(NAME), "{command}: {ran:?}");
        assert!(!ran.err.contains("missing"), "{command}: {ran:?}");
    }
    for command in ["show", "steps", "state"] {
        let ran = world.run(&[command, "a", "--full"]);
        assert!(ran.out.contains("[erased 20") && ran.out.contains("asked to]"), "{command}: {ran:?}");
    }
    assert!(is_marker(&world.run(&["--json", "steps", "a"]).lines(0)[0]["error"]));
    let page = world.run(&["--json", "show", "a"]).document(0);
    assert!(is_marker(&page["error"]) && is_marker(&page["failures"][0]["error"]), "{page:#}");
    assert!(is_marker(&world.run(&["--json", "state", "a"]).document(0)["error"]));
    let again = world.run(&["--json", "resume", "a"]).document(1);
    assert!(is_marker(&again["error"]), "{again}");
    let events = world.run(&["--json", "events", "a"]).lines(0);
    assert_eq!(events.iter().filter(|event| is_marker(&event["payload"]["error"])).count(), 3);

    // To another store and back: the same bytes, tombstones included.
    std::fs::write(other.dir.path().join("file"), &file.out).expect("it is written");
    assert_eq!(other.run(&["import", "file"]).code, 0);
    assert_eq!(other.run(&["export", "a"]).out, file.out);
    let third = World::empty();
    std::fs::write(third.dir.path().join("file"), &whole).expect("it is written");
    assert_eq!(third.run(&["import", "file"]).code, 0);
    assert_eq!(third.run(&["export", "a"]).out, whole, "with its texts, where they were exported");
}

#[test]
fn what_an_error_says_that_was_not_marked_stays_and_is_told() {
    let world = World::empty();
    failing(&world, "");
    assert_eq!(world.run(&["run", "failing.yaml", "--id", "a"]).code, 1);
    let ran = world.run(&["erase", "a", "guard/refuse:output"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("stands inline in the log") && ran.err.contains("erasable: true"), "{ran:?}");
}

#[test]
fn a_fork_takes_a_failure_with_its_text_and_asks_anew_where_that_was_erased() {
    let world = World::empty();
    failing(&world, ", erasable: true");
    assert_eq!(world.run(&["run", "failing.yaml", "--id", "a"]).code, 1);
    // With the text at hand a fork takes the failure, and holds the text where it can be erased.
    let ran = world.run(&["fork", "a", "--at", "1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let events = world.run(&["--json", "events", "a~1"]).lines(0);
    let reused = events.iter().find(|event| event["type"] == "StepReused").expect("it takes the outcome");
    assert!(
        reused["payload"]["error"]["detail"].as_str().is_some_and(|text| text.contains(NAME)),
        "{reused}"
    );
    let plan = erased(&world, &["a", "guard/refuse", "--dry-run"]);
    assert!(plan["values"].to_string().contains("\"a~1\""), "it goes there too: {plan}");
    for (id, target) in [("a", "guard/refuse"), ("a", "guard!catch"), ("a~1", "guard!catch")] {
        erased(&world, &[id, target]);
    }
    assert!(!is_on_disk(&world, NAME), "no file of the store holds it");
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
    let ran = world.run(&["fork", "a", "--at", "1"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let events = world.run(&["--json", "events", "a~2"]).lines(0);
    let types: Vec<_> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert!(types.contains(&"StepFailed") && !types.contains(&"StepReused"), "{types:?}");
}

#[test]
fn what_a_signal_says_to_a_marked_wait_can_be_erased() {
    let said = format!("no account of {NAME}");
    let data = json!({"who": NAME}).to_string();
    for (word, code) in [(&["--error", &*said][..], 1), (&[&*data][..], 0)] {
        // One that listens already, and one that will: the signal comes before, and is kept.
        for is_early in [false, true] {
            let world = World::empty();
            let before =
                if is_early { "- first: { listen: { to: { one: { with: { type: go } } } } }\n" } else { "" };
            write(
                &world,
                &format!(
                    "{HEAD}{before}- hear:\n\
                     \x20   listen: {{ to: {{ one: {{ with: {{ type: answer }} }} }} }}\n\
                     \x20   output: {{ as: '${{ 1 }}' }}\n\
                     \x20   metadata: {{ foldback: {{ erasable: true }} }}\n"
                ),
            );
            world.run(&["run", "failing.yaml", "--id", "a"]);
            let mut words = vec!["signal", "a", "answer"];
            words.extend(word);
            let mut ran = world.run(&words);
            if is_early {
                ran = world.run(&["signal", "a", "go"]);
            }
            assert_eq!(ran.code, code, "{words:?}: {ran:?}");
            assert!(is_on_disk(&world, NAME), "this test can fail");
            assert_eq!(world.run(&["verify", "a"]).code, 0, "{words:?}");
            assert!(world.run(&["steps", "a", "hear"]).out.contains(NAME), "{words:?}");

            let plan = erased(&world, &["a", "hear", "--reason", "asked to"]);
            assert!(plan["values"].to_string().contains("SignalReceived"), "{words:?}: {plan}");
            assert!(!is_on_disk(&world, NAME), "{words:?}, early {is_early}: {plan:#}");
            assert!(!world.run(&["export", "a"]).out.contains(NAME), "{words:?}");
            let steps = world.run(&["steps", "a", "hear"]);
            assert!(steps.out.contains("[erased 20"), "{words:?}: {steps:?}");
            assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
        }
    }
}

#[test]
fn a_text_that_only_people_read_stops_nothing_when_it_is_gone() {
    let world = World::empty();
    let text = format!(
        "{HEAD}- one:\n\
         \x20   run: {{ shell: {{ command: 'true' }} }}\n\
         \x20   metadata: {{ foldback: {{ effect: read }} }}\n\
         - say:\n\
         \x20   raise: {{ error: {{ type: 'http://x.test/e', status: 500, title: t, detail: '${{ $workflow.input.a + $workflow.input.b }}' }} }}\n\
         \x20   metadata: {{ foldback: {{ erasable: true }} }}\n"
    );
    write(&world, &text);
    let ran =
        world.run(&["run", "failing.yaml", "--id", "a", "--input", r#"{"a": "Ann-", "b": "Ghost-4711"}"#]);
    assert!(ran.code == 1 && ran.err.contains(NAME), "{ran:?}");
    erased(&world, &["a", "say", "--reason", "asked to"]);
    assert!(!is_on_disk(&world, NAME), "no file of the store holds it");
    for command in ["state", "show"] {
        let ran = world.run(&[command, "a"]);
        assert!(ran.out.contains("[erased 20") && ran.out.contains("asked to]"), "{command}: {ran:?}");
    }
    assert_eq!(world.run(&["verify", "a"]).code, 0, "nothing is made of it");
    let ran = world.run(&["retry", "a", "--rerun", "one", "--dry-run"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = world.run(&["retry", "a"]);
    assert!(ran.code == 1 && ran.err.contains("failed at say"), "{ran:?}");
    let events = world.run(&["--json", "events", "a"]).lines(0);
    assert_eq!(events.iter().filter(|event| event["type"] == "WorkflowFailed").count(), 2, "it went on");

    // The error of a step is read by the program that goes on from it.
    failing(&world, ", erasable: true");
    assert_eq!(world.run(&["run", "failing.yaml", "--id", "b"]).code, 1);
    erased(&world, &["b", "guard/refuse:output", "--reason", "asked to"]);
    let ran = world.run(&["retry", "b"]);
    assert!(ran.code != 0 && ran.err.contains("erased 20") && ran.err.contains("asked to"), "{ran:?}");
}
