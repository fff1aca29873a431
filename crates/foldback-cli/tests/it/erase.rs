//! `erase`, by the real binary on real runs: the value goes, its tombstone stays, and every command
//! still answers.

use crate::world::{Ran, World};
use serde_json::{Value, json};

const NAME: &str = "Ann-Ghost-4711";

/// A step that answers with the workflow's `who`, and one that is asked with that answer. `marked` is
/// what the document and the first step say of themselves.
fn greeting(world: &World, document: &str, first: &str) {
    let text = format!(
        "document: {{ dsl: '1.0.3', namespace: test, name: greeting, version: '1.0.0'{document} }}\n\
         do:\n\
         - find:\n\
         \x20   run: {{ shell: {{ command: 'printf %s \"$WHO\"', environment: {{ WHO: '${{ .who }}' }} }} }}\n\
         \x20   metadata: {{ foldback: {{ effect: read{first} }} }}\n\
         - greet:\n\
         \x20   run: {{ shell: {{ command: 'printf \"hello %s\" \"$WHO\"', environment: {{ WHO: '${{ . }}' }} }} }}\n\
         \x20   metadata: {{ foldback: {{ effect: read }} }}\n"
    );
    std::fs::write(world.dir.path().join("greeting.yaml"), text).expect("it is written");
}

fn run(world: &World, id: &str) {
    let input = json!({"who": NAME}).to_string();
    let ran = world.run(&["run", "greeting.yaml", "--id", id, "--input", &input]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

const ERASABLE: &str = ", metadata: { foldback: { erasable: true } }";

/// Whether any file of the store holds the text.
pub fn is_on_disk(world: &World, text: &str) -> bool {
    let holds = |bytes: Vec<u8>| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    let files = std::fs::read_dir(world.dir.path()).expect("a directory");
    let paths = files.map(|file| file.expect("a file").path());
    paths
        .filter(|path| path.to_string_lossy().contains("foldback.db"))
        .any(|path| holds(std::fs::read(path).expect("it is read")))
}

pub fn erased(world: &World, words: &[&str]) -> Value {
    let mut all = vec!["--json", "erase"];
    all.extend(words);
    world.run(&all).document(0)["plan"].clone()
}

#[test]
fn a_marked_value_goes_its_tombstone_stays_and_everything_can_be_read() {
    let world = World::empty();
    greeting(&world, "", ", erasable: true");
    run(&world, "a");
    let plan = world.run(&["erase", "a", "find:output", "--dry-run"]);
    assert!(plan.code == 0 && plan.err.contains("1 would be erased"), "{plan:?}");
    assert!(plan.err.contains("StepAsked greet holds texts of it"), "what flowed on is told: {plan:?}");
    assert!(plan.err.contains("WorkflowStarted holds texts of it"), "where it came from too: {plan:?}");
    assert!(world.run(&["steps", "a"]).out.contains(&format!("\"{NAME}\"")), "nothing was touched");

    let ran = world.run(&["erase", "a", "find:output", "--reason", "asked to"]);
    assert!(ran.code == 0 && ran.err.contains("1 erased"), "{ran:?}");
    let audit = world.run(&["audit", "--json"]).document(0);
    assert_eq!((&audit["erased"], &audit["problems"]), (&json!(1), &json!([])));
    assert!(world.run(&["audit"]).out.contains("1 values erased, nothing is broken"));

    for command in ["steps", "state", "show", "events", "replay", "decisions", "export"] {
        let ran = world.run(&[command, "a"]);
        assert_eq!(ran.code, 0, "{command}: {ran:?}");
        assert!(!ran.err.contains("missing"), "{command}: {ran:?}");
    }
    let steps = world.run(&["steps", "a"]);
    assert!(steps.out.contains("[erased 20") && steps.out.contains("asked to]"), "{steps:?}");
    let marker = &world.run(&["--json", "steps", "a"]).lines(0)[0]["output"]["erased"];
    assert_eq!((&marker["reason"], &marker["bytes"]), (&json!("asked to"), &json!(NAME.len() + 2)));
    assert!(marker["at"].as_str().is_some_and(|at| at.starts_with("20")), "{marker}");
    assert!(marker["by"].is_string(), "{marker}");
    let events = world.run(&["--json", "events", "a"]).lines(0);
    let completed = events.iter().find(|event| event["type"] == "StepCompleted").expect("it is there");
    assert!(completed["payload"]["output"]["erased"].is_object(), "{completed}");

    let again = world.run(&["erase", "a", "find:output", "--reason", "other"]);
    assert!(again.code == 0 && again.err.contains("0 erased"), "{again:?}");
    assert!(
        again.out.contains("was erased before: [erased 20") && again.out.contains("asked to]"),
        "{again:?}"
    );
}

#[test]
fn a_marked_document_can_lose_every_value_and_still_be_audited_carried_and_asked_for() {
    let (world, other) = (World::empty(), World::empty());
    greeting(&world, ERASABLE, "");
    run(&world, "a");
    assert!(is_on_disk(&world, NAME), "this test can fail");
    let before = world.run(&["export", "a"]).out;
    for target in [":input", "find:request", "find:output", "greet", ":output"] {
        erased(&world, &["a", target]);
    }
    let rest = erased(&world, &["a", "greet", "--dry-run"]);
    assert_eq!((&rest["remains"], &rest["inline"]), (&json!([]), &json!([])));
    assert!(!is_on_disk(&world, NAME), "no file of the store holds it");
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));

    // To another store and back: the same bytes, tombstones included.
    let file = world.run(&["export", "a"]);
    assert!(file.code == 0 && !file.out.contains(NAME) && file.out.contains("\"erased\":{"), "{file:?}");
    std::fs::write(other.dir.path().join("file"), &file.out).expect("it is written");
    assert_eq!(other.run(&["import", "file"]).code, 0);
    assert_eq!(other.run(&["export", "a"]).out, file.out);
    assert_eq!(other.run(&["audit", "--json"]).document(0)["erased"], json!(5));
    assert!(other.run(&["state", "a"]).out.contains("[erased 20"));

    // It has ended: who asks for it again is told so, with what is left of it.
    let input = json!({"who": NAME}).to_string();
    for words in
        [&["--json", "resume", "a"][..], &["--json", "run", "greeting.yaml", "--id", "a", "--input", &input]]
    {
        let told = world.run(words).document(0);
        assert_eq!(told["status"], json!("completed"), "{told}");
        assert!(told["output"]["erased"].is_object(), "{told}");
    }
    // A file from before the erasing brings the values back: it is a backup like any other.
    let third = World::empty();
    std::fs::write(third.dir.path().join("file"), &before).expect("it is written");
    assert_eq!(third.run(&["import", "file"]).code, 0);
    assert_eq!(third.run(&["export", "a"]).out, before);
}

#[test]
fn a_workflow_that_needs_an_erased_value_says_so_and_does_not_go_on() {
    let world = World::empty();
    let text = "document: { dsl: '1.0.3', namespace: test, name: stuck, version: '1.0.0', metadata: { foldback: { \
                erasable: true } } }\ndo:\n- send:\n    run: { shell: { command: 'sleep 9' } }\n    timeout: { \
                after: PT0.1S }\n- tell:\n    set: { who: '${ $workflow.input.who }' }\n";
    std::fs::write(world.dir.path().join("stuck.yaml"), text).expect("it is written");
    let input = json!({"who": NAME}).to_string();
    let ran = world.run(&["--json", "run", "stuck.yaml", "--id", "a", "--input", &input]).document(1);
    assert_eq!(ran["status"], json!("unknown"));
    erased(&world, &["a", ":input", "--reason", "asked to"]);
    for words in [
        &["resume", "a"][..],
        &["resolve", "a", "send", "landed", "null"],
        &["run", "stuck.yaml", "--id", "a", "--input", &input],
    ] {
        let Ran { code, err, .. } = world.run(words);
        assert_eq!(code, 1, "{words:?}: {err}");
        assert!(
            err.contains("`a` cannot go on: its input was erased 20") && err.contains("asked to"),
            "{err}"
        );
        assert!(err.contains("hint: payload "), "{err}");
    }
    assert!(world.run(&["list", "--status", "unknown"]).out.contains("stuck"), "it is where it was");
    assert_eq!(world.run(&["audit"]).code, 0);
}

#[test]
fn what_cannot_be_erased_is_refused_with_a_way_out() {
    let world = World::empty();
    greeting(&world, "", "");
    run(&world, "a");
    for (words, wanted, hint) in [
        (["a", "find:output"], "stands inline in the log", "metadata.foldback.erasable: true"),
        (["a", ":input"], "stands inline in the log", "metadata.foldback.erasable: true"),
        (["a", "fynd"], "`a` has no key `fynd`", "did you mean `find`?"),
        (["a", "greet:input"], "stands inline", "prune"),
        (["b", "find"], "no workflow `b`", "`a`"),
    ] {
        let ran = world.run(&["erase", words[0], words[1]]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(wanted) && ran.err.contains(hint), "{words:?}: {ran:?}");
    }
    let store = world.store();
    let _owner = store.acquire(0, "a test").expect("the store answers").expect("nobody owns it");
    let ran = world.run(&["erase", "a", "find"]);
    assert!(ran.code == 2 && ran.err.contains("another process owns the store"), "{ran:?}");
}

#[test]
fn a_value_that_others_hold_too_is_said_in_the_plan_and_goes_there_too() {
    let world = World::empty();
    greeting(&world, ERASABLE, "");
    run(&world, "a");
    run(&world, "b");
    let plan = erased(&world, &["a", "find:output", "--dry-run"]);
    let value = &plan["values"][0];
    assert_eq!(value["elsewhere"][0]["workflow_id"], json!("b"), "{plan}");
    let text = world.run(&["erase", "a", "find:output"]).out;
    assert!(text.contains("also of b, 1 events: gone there too"), "{text}");
    assert!(world.run(&["steps", "b"]).out.contains("[erased 20"));
    // The requests differ from workflow to workflow in nothing here, and are one value each.
    let request = &erased(&world, &["a", "greet:request", "--dry-run"])["values"];
    assert_eq!(request.as_array().map(Vec::len), Some(1), "{request}");
}
