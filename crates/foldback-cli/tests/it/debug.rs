//! What a person finds who looks for the cause of a failure: the step that failed, whole, whatever kind of
//! task it is; what went wrong on the way; what nobody answered. By the real binary.

use crate::world::World;
use serde_json::{Value, json};

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("written");
}

/// A workflow of these tasks, run to its end under the id `w`.
fn ran(tasks: &str, input: &str) -> World {
    ran_in("", tasks, input)
}

fn ran_in(metadata: &str, tasks: &str, input: &str) -> World {
    let world = World::empty();
    let document = format!(
        "document: {{ dsl: '1.0.3', namespace: test, name: d, version: '1.0.0'{metadata} }}\ndo:\n{tasks}"
    );
    put(&world, "d.yaml", &document);
    let ran = world.run(&["run", "d.yaml", "--id", "w", "--input", input]);
    assert!(ran.code < 2, "{ran:?}");
    world
}

fn step_at(world: &World, at: &str) -> Value {
    world.run(&["state", "w", "--at", at, "--json"]).document(0)["step"].clone()
}

/// Each kind of task that can fail: its tasks, and what is seen of it: key, kind, input, a value at which its
/// expression looked, line and column, and a part of the error.
#[test]
fn what_the_failing_thing_got_is_shown_whatever_it_is() {
    let cases = [
        (
            "a step",
            "- one: { set: { n: 1 } }\n- two: { run: { shell: { command: 'exit 3', environment: { N: '${ .n }' } } } }\n",
            ("two", "shell", json!({"n": 1}), ".n", json!(1), "4:3", "exit code 3"),
        ),
        (
            "an expression of `set`",
            "- one: { set: { n: 1 } }\n- two: { set: { x: '${ .n + .who.name }' } }\n- three: { set: { y: '${ .x + {} }' } }\n",
            ("three", "set", json!({"x": 1}), ".x", json!(1), "5:3", "cannot"),
        ),
        (
            "a condition of `switch`",
            "- one: { set: { n: 1 } }\n- two: { switch: [{ big: { when: '.n.x > 1', then: end } }] }\n",
            ("two", "switch", json!({"n": 1}), ".n", json!(1), "4:3", "cannot"),
        ),
        (
            "an `if`",
            "- one: { set: { n: 1 } }\n- two: { if: '${ .n | length | .x }', set: { m: 2 } }\n",
            ("two", "set", json!({"n": 1}), ".n", json!(1), "4:3", "cannot"),
        ),
        (
            "a request",
            "- one: { set: { n: [1] } }\n- two: { run: { shell: { command: 'true', environment: { N: '${ .n + 1 }' } } } }\n",
            ("two", "shell", json!({"n": [1]}), ".n", json!([1]), "4:3", "cannot"),
        ),
        (
            "an iteration",
            "- all:\n    for: { each: x, in: '[1, \"a\"]' }\n    do:\n    - add: { set: { sum: '${ $x + 1 }' } }\n",
            ("all[1]/add", "set", json!({"sum": 2}), "$x", json!("a"), "6:7", "cannot"),
        ),
        (
            "a branch beside others",
            "- both:\n    fork:\n      branches:\n      - a: { set: { n: '${ .n + {} }' } }\n      - b: { run: { shell: { command: 'sleep 0.2' } } }\n",
            ("both/a", "set", json!({"n": 7}), ".n", json!(7), "6:9", "cannot"),
        ),
        (
            "the shaping of an output",
            "- one: { run: { shell: { command: 'echo 5' } }, output: { as: '${ . + {} }' } }\n",
            ("one", "shell", json!({"n": 7}), ".", json!(null), "3:3", "cannot"),
        ),
    ];
    for (name, tasks, (key, kind, input, path, value, place, error)) in cases {
        let world = ran(tasks, "{\"n\": 7}");
        let step = step_at(&world, "failure");
        let told = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
        assert_eq!((told("key").as_str(), told("kind").as_str()), (key, kind), "{name}: {step}");
        assert_eq!(told("status"), "failed", "{name}: {step}");
        assert_eq!(step["input"], input, "{name}: {step}");
        if path != "." {
            assert_eq!(step["values"][path], value, "{name}: {step}");
        }
        assert!(told("place").ends_with(&format!("d.yaml:{place}")), "{name}: {step}");
        let detail = step["error"]["detail"].as_str().unwrap_or_default();
        assert!(detail.to_lowercase().contains(error), "{name}: {step}");
        // The same thing by its key, and as text.
        for command in ["steps", "show"] {
            let one = world.run(&[command, "w", key, "--json"]).document(0);
            assert_eq!((&one["error"], &one["input"]), (&step["error"], &step["input"]), "{name}: {one}");
        }
        let text = world.run(&["state", "w", "--at", "failure"]).out;
        assert!(text.contains(key) && text.contains(&told("place")), "{name}: {text}");
    }
}

/// A model that answers by rule.
const RULES: &str =
    "[[rules]]\ncontains = \"rejected\"\nanswer = { n = 3 }\n\n[[rules]]\nanswer = { n = 30 }\n";

#[test]
fn a_prompt_is_shown_as_it_was_sent_with_the_answer_that_was_rejected() {
    let world = World::empty();
    put(&world, "foldback.toml", "[providers.desk]\nkind = \"scripted\"\nfile = \"rules.toml\"\n");
    put(&world, "rules.toml", RULES);
    let tasks = "- ask: { call: llm, with: { model: desk/m, system: Be kind., template: 'Count {what}: {{ok}}', \
                 vars: { what: '${ .what }' }, schema: { type: object, properties: { n: { type: integer, maximum: 10 } } } } }\n";
    put(
        &world,
        "d.yaml",
        &format!("document: {{ dsl: '1.0.3', namespace: t, name: d, version: '1.0.0' }}\ndo:\n{tasks}"),
    );
    let ran = world.run(&["run", "d.yaml", "--id", "w", "--input", "{\"what\": \"sheep\"}"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let step = world.run(&["steps", "w", "ask", "--json"]).document(0);
    assert_eq!(
        step["messages"],
        json!([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Count sheep: {ok}"}])
    );
    assert_eq!((&step["answer"], &step["attempts"]), (&json!({"n": 3}), &json!(2)));
    assert_eq!(step["failed_attempts"][0]["rejected"], json!({"n": 30}));
    assert_eq!(step["request"]["vars"], json!({"what": "sheep"}));
    for words in [&["show", "w"][..], &["steps", "w", "--full"], &["show", "w", "ask"]] {
        let text = world.run(words).out;
        assert!(text.contains("maximum of 10") && text.contains("{\"n\":30}"), "{words:?}: {text}");
    }
    let shown = world.run(&["show", "w", "--json"]).document(0);
    assert_eq!(shown["failures"][0]["then"], "tried again", "{shown}");
}

/// Its value is nowhere; its name says why a part of the request reads `null`.
#[test]
fn a_secret_is_named_where_it_stands_in_a_request() {
    let world = World::empty();
    let text = "document: { dsl: '1.0.3', namespace: test, name: d, version: '1.0.0' }\nuse: { secrets: [ token ] }\n\
                do:\n- one: { run: { shell: { command: 'true', environment: { T: '${ $secrets.token }' } } } }\n";
    put(&world, "d.yaml", text);
    world.run(&["run", "d.yaml", "--id", "w"]);
    let step = world.run(&["show", "w", "one", "--json"]).document(0);
    assert_eq!(step["request"]["environment"], json!({"T": null}), "{step}");
    assert_eq!(step["secrets"], json!({"/environment/T": "token"}), "{step}");
    let text = world.run(&["show", "w", "one"]).out;
    assert!(text.contains("secret   token is filled in at /environment/T when it is sent"), "{text}");
}

#[test]
fn values_that_were_redacted_or_erased_are_not_shown_again() {
    let redacting = ", metadata: { foldback: { redact: [{ path: $.secret }] } }";
    let tasks = "- one: { set: { x: '${ .secret.x }' } }\n";
    let world = ran_in(redacting, tasks, "{\"secret\": \"hunter2\"}");
    let step = step_at(&world, "failure");
    assert_eq!(step["input"]["secret"], "[redacted]", "{step}");
    let erasing = ", metadata: { foldback: { erasable: true } }";
    let world = ran_in(erasing, tasks, "{\"secret\": \"hunter2\"}");
    let step = step_at(&world, "failure");
    assert_eq!(step["input"]["secret"], "hunter2", "{step}");
    let erased = world.run(&["erase", "w", ":input"]);
    assert_eq!(erased.code, 0, "{erased:?}");
    for words in [&["state", "w", "--at", "failure", "--json"][..], &["show", "w", "one"]] {
        let told = world.run(words);
        assert!(!told.out.contains("hunter2") && told.out.contains("erased"), "{told:?}");
    }
}

#[test]
fn what_a_debugger_looks_for_stands_where_one_looks() {
    let tasks = "
- name: { set: { who: '${ .name // \"nobody\" }' }, export: { as: '{a: 1, b: 2}' } }
- drop: { set: { n: 1 }, export: { as: '{a: 1}' } }
- legal: { listen: { to: { one: { with: { type: legal } } } }, timeout: { after: { milliseconds: 10 } }, metadata: { foldback: { default: yes } } }
- each: { for: { each: x, in: '[1, 2, 3, 4, 5, 6, 7]' }, do: [{ add: { set: { x: '${ $x }' } } }] }
- block: { try: [{ fail: { run: { shell: { command: 'echo why-it-failed >&2; exit 1' } } } }], catch: { do: [{ after: { set: { ok: true } } }] } }
";
    let world = ran(tasks, "{}");
    // `run` returns at a wait for a person, whose 10 ms may not be over by then.
    std::thread::sleep(std::time::Duration::from_millis(20));
    world.run(&["resume", "w"]);
    let show = world.run(&["show", "w"]).out;
    for part in [
        "$context loses b",
        "nobody answered: its default was taken",
        "over 7 items: 1, 2, 3, 4, 5, …",
        "what failed on the way",
        "block/fail  caught  500 Process failed: exit code 1 why-it-failed",
    ] {
        assert!(show.contains(part), "{part}: {show}");
    }
    let replay = world.run(&["replay", "w"]).out;
    assert!(replay.contains("- $context.b left; it was 2"), "{replay}");
    let steps = world.run(&["steps", "w", "--json"]).lines(0);
    let row = |key: &str| steps.iter().find(|step| step["key"] == key).cloned().unwrap_or_default();
    assert_eq!((&row("legal")["kind"], &row("legal")["answered"]), (&json!("listen"), &json!("default")));
    assert_eq!(row("name")["input"], json!({}), "the input of a `set`: {steps:?}");
    assert_eq!(row("drop")["input"], json!({"who": "nobody"}), "{steps:?}");
    let name = world.run(&["show", "w", "name", "--json"]).document(0);
    assert_eq!((&name["fallbacks"], &name["values"]), (&json!([".name"]), &json!({".name": null})));
    let after = world.run(&["show", "w", "drop", "--json"]).document(0);
    assert_eq!(after["input_from"], "name", "{after}");
    let each = world.run(&["show", "w", "each", "--json"]).document(0);
    assert_eq!(each["items"], json!([1, 2, 3, 4, 5, 6, 7]), "{each}");
    // What is edited in a fork is marked, with what was there.
    let forked = world.run(&["fork", "w", "--edit", "block/fail:output=\"mended\""]);
    assert!(forked.code != 0 || forked.err.contains("forked"), "{forked:?}");
}

#[test]
fn an_edited_output_is_marked_with_its_old_value() {
    let tasks = "- look: { run: { shell: { command: 'echo 1' } }, metadata: { foldback: { effect: read } } }\n\
                 - use: { set: { n: '${ . }' } }\n";
    let world = ran(tasks, "{}");
    let forked = world.run(&["fork", "w", "--edit", "look:output=2"]);
    assert_eq!(forked.code, 0, "{forked:?}");
    let steps = world.run(&["steps", "w~1", "--json"]).lines(0);
    assert_eq!(steps[0]["edited"], json!({"what": "output", "was": "1"}), "{steps:?}");
    for words in [&["show", "w~1"][..], &["show", "w~1", "look"]] {
        let text = world.run(words).out;
        assert!(text.contains("it was \"1\""), "{text}");
    }
    assert!(world.run(&["steps", "w~1"]).out.contains("edited, was \"1\": 2"));
}

#[test]
fn lines_are_as_wide_as_the_terminal_and_whole_with_full() {
    let long = "x".repeat(700);
    let tasks = format!("- one: {{ set: {{ long: '{long}' }} }}\n- two: {{ set: {{ n: 1 }} }}\n");
    let world = ran(&tasks, "{}");
    for words in [&["steps", "w"][..], &["events", "w"], &["replay", "w"]] {
        let narrow = |columns: &str| {
            let output = world.command(words).env("COLUMNS", columns).output().expect("it runs");
            String::from_utf8(output.stdout).expect("text")
        };
        let widest = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        assert!(widest(&narrow("80")) <= 80 && widest(&narrow("200")) > 80, "{words:?}");
        let full = world.run(&[words, &["--full"]].concat()).out;
        assert!(full.contains(&long), "{words:?}: {full}");
    }
}

/// `switch` and `wait` pass data on; an `export` of theirs says it once more. None of them made it.
#[test]
fn a_value_came_from_the_task_that_made_it() {
    let tasks = "
- make: { set: { x: 1 } }
- choose: { switch: [ one: { when: '.x == 1', then: rest } ] }
- other: { set: { x: 2 } }
- rest: { wait: { milliseconds: 1 }, export: { as: '{seen: .x}' } }
- again: { switch: [ one: { when: '.x == 1', then: use } ] }
- use: { set: { y: '${ .x }' } }
- last: { set: { z: '${ .y }' } }
";
    let world = ran(tasks, "{}");
    let from = |key: &str| world.run(&["show", "w", key, "--json"]).document(0)["input_from"].clone();
    for (key, made_by) in
        [("choose", "make"), ("rest", "make"), ("again", "make"), ("use", "make"), ("last", "use")]
    {
        assert_eq!(from(key), made_by, "{key}");
    }
    assert_eq!(from("make"), Value::Null, "the input of the workflow");
    assert!(world.run(&["show", "w", "use"]).out.contains("the output of make"));
}
