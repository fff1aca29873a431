//! Redaction, by the real binary: what a rule finds is in no file, no answer and no error, whichever
//! way it came in. Rules that cannot be used are refused where they stand.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::world::World;
use serde_json::json;

const MAIL: &str = "ann.ghost@example.org";
const SSN: &str = "078-05-1120";
const CARD: &str = "4929123412341234";

/// The document hides members called `ssn`; the configuration hides addresses and card numbers.
fn rules(world: &World, tasks: &str) {
    let head = "document: { dsl: '1.0.3', namespace: test, name: private, version: '1.0.0', metadata: { foldback: \
                { redact: [ { path: '$..ssn', name: ssn } ] } } }\ndo:\n";
    let write = |name: &str, text: String| {
        std::fs::write(world.dir.path().join(name), text).expect("it is written");
    };
    write("private.yaml", format!("{head}{tasks}"));
    write("answer", format!("of {MAIL}, card {CARD}\n"));
    write("error", format!("{{\"ssn\": \"{SSN}\"}} {MAIL}\n"));
    let config =
        "[[redact]]\nname = \"mail\"\npattern = '[\\w.]+@[\\w.]+'\n[[redact]]\npattern = '\\d{16}'\n";
    write("foldback.toml", config.to_owned());
}

fn input() -> String {
    json!({"customer": {"ssn": SSN, "mails": [MAIL]}, "note": format!("{MAIL} paid with {CARD}")}).to_string()
}

/// None of it is in any file of the store.
fn is_clean(world: &World) {
    for file in std::fs::read_dir(world.dir.path()).expect("a directory") {
        let path = file.expect("a file").path();
        if path.to_string_lossy().contains("foldback.db") {
            let bytes = std::fs::read(&path).expect("it is read");
            for secret in [MAIL, SSN, CARD] {
                let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "{secret} is in {}", path.display());
            }
        }
    }
}

/// The answers lie in files: a definition is stored as it is, and is no place for a person's data.
const ASK: &str = "- ask:\n    run: { shell: { command: 'echo mail=$WHO; cat answer; cat answer >&2', \
                   environment: { WHO: '${ .customer.mails[0] }' } }, return: all }\n";

#[test]
fn what_comes_in_is_redacted_before_it_is_written_and_the_redacted_value_flows_on() {
    let world = World::empty();
    rules(&world, ASK);
    let ran = world.run(&["--json", "run", "private.yaml", "--id", "a", "--input", &input()]);
    let told = ran.document(0);
    assert_eq!(
        told["output"]["stdout"],
        json!("mail=[redacted mail]\nof [redacted mail], card [redacted]"),
        "{told}"
    );
    assert_eq!(told["output"]["stderr"], json!("of [redacted mail], card [redacted]"));
    let state = world.run(&["--json", "state", "a"]).document(0);
    let wanted = json!({"ssn": "[redacted ssn]", "mails": ["[redacted mail]"]});
    assert_eq!(
        (&state["input"]["customer"], &state["input"]["note"]),
        (&wanted, &json!("[redacted mail] paid with [redacted]"))
    );
    is_clean(&world);
    for command in ["events", "steps", "export", "replay", "show"] {
        for words in [&[command, "a"][..], &["--json", command, "a"]] {
            let ran = world.run(words);
            assert!(
                [MAIL, SSN, CARD].iter().all(|secret| !ran.out.contains(secret) && !ran.err.contains(secret)),
                "{ran:?}"
            );
        }
    }
    // The same input attaches, since it is redacted before it is compared; another is refused.
    assert_eq!(world.run(&["run", "private.yaml", "--id", "a", "--input", &input()]).code, 0);
    assert_eq!(world.run(&["run", "private.yaml", "--id", "a", "--input", "{}"]).code, 2);
    // The rules are pinned with the definition: the file is not asked again.
    std::fs::remove_file(world.dir.path().join("private.yaml")).expect("it is gone");
    assert_eq!(world.run(&["audit"]).code, 0);
}

#[test]
fn errors_unknown_outcomes_and_what_a_person_says_are_redacted_too() {
    let world = World::empty();
    rules(
        &world,
        "- send:\n    run: { shell: { command: 'sleep 9' } }\n    timeout: { after: PT0.1S }\n\
         - fail:\n    run: { shell: { command: 'cat error >&2; exit 3' } }\n",
    );
    assert_eq!(world.run(&["run", "private.yaml", "--id", "a", "--input", &input()]).code, 1);
    let landed = json!({"ssn": SSN, "to": MAIL}).to_string();
    let ran = world.run(&["resolve", "a", "send", "landed", &landed]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("[redacted ssn]") && ran.err.contains("[redacted mail]"), "{ran:?}");
    assert!(!ran.err.contains(SSN) && !ran.err.contains(MAIL), "{ran:?}");
    let steps = world.run(&["--json", "steps", "a"]).lines(0);
    assert_eq!(steps[0]["output"], json!({"ssn": "[redacted ssn]", "to": "[redacted mail]"}));
    is_clean(&world);
}

#[test]
fn a_command_lies_redacted_in_the_inbox() {
    let world = World::empty();
    rules(&world, ASK);
    let store = world.store();
    let owner = store.acquire(0, "a test").expect("the store answers").expect("nobody owns it");
    let mut command = world.command(&["run", "private.yaml", "--id", "a", "--input", &input()]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let begun = Instant::now();
    let commands = loop {
        let commands = store.commands(0).expect("the store answers");
        if !commands.is_empty() {
            break commands;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "no command came");
        std::thread::sleep(Duration::from_millis(20));
    };
    let body = commands[0].body.to_string();
    assert!(body.contains("[redacted mail]") && body.contains("[redacted ssn]"), "{body}");
    is_clean(&world);
    // The lock falls free: the child takes over and ends; the same input is known again.
    drop(owner);
    assert!(child.wait().expect("it ends").success());
    assert_eq!(world.run(&["run", "private.yaml", "--id", "a", "--input", &input()]).code, 0);
    is_clean(&world);
}

#[test]
fn rules_that_cannot_be_used_are_refused_where_they_stand() {
    let world = World::empty();
    let document = |rule: &str| {
        format!(
            "document:\n  dsl: '1.0.3'\n  namespace: test\n  name: bad\n  version: '1.0.0'\n  metadata:\n    foldback:\n      \
             redact:\n        - {rule}\ndo:\n  - a: {{ set: {{ x: 1 }} }}\n"
        )
    };
    for (rule, place, wanted) in [
        ("{ pattern: '(a' }", "bad.yaml:9:23: ", "`pattern` is no regular expression: unclosed group"),
        ("{ path: customer }", "bad.yaml:9:19: ", "`$` is expected at character 1"),
        ("{ name: x }", "bad.yaml:9:11: ", "a rule has either a `path` or a `pattern`"),
        ("{ path: $.a, patern: b }", "bad.yaml:9:24: ", "did you mean `pattern`?"),
        ("{ path: 7 }", "bad.yaml:9:19: ", "is a text, not a number"),
        ("everything", "bad.yaml:9:11: ", "is an object"),
    ] {
        std::fs::write(world.dir.path().join("bad.yaml"), document(rule)).expect("it is written");
        for command in ["check", "run"] {
            let ran = world.run(&[command, "bad.yaml"]);
            let told = format!("{}{}", ran.out, ran.err);
            assert_eq!(ran.code, 2, "{rule}: {ran:?}");
            assert!(told.contains(place) && told.contains(wanted), "{rule}: {told}");
        }
    }
    std::fs::write(world.dir.path().join("good.yaml"), document("{ path: $.a }")).expect("it is written");
    for (config, wanted) in [
        (
            "\n[[redact]]\npattern = \"(a\"\n",
            "foldback.toml:2: [[redact]] `pattern` is no regular expression",
        ),
        ("[[redact]]\npath = \"$.a\"\n[[redact]]\n", "foldback.toml:3: [[redact]] a rule has either"),
        ("[[redact]]\npatern = \"a\"\n", "foldback.toml:2: "),
        ("[redact]\npattern = \"a\"\n", "foldback.toml:1: "),
    ] {
        std::fs::write(world.dir.path().join("foldback.toml"), config).expect("it is written");
        let ran = world.run(&["run", "good.yaml"]);
        assert!(ran.code == 2 && ran.err.contains(wanted) && ran.err.contains("hint: "), "{config}: {ran:?}");
    }
}
