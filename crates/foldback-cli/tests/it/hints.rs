//! What is printed is obeyed by nobody: no terminal, and no shell into which a person copies a hint. Names of
//! workflows and tasks come from other people.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::world::World;

/// A name that ends a quoted word, runs a command, and turns the line around.
const HOSTILE: &str = "it's $(touch pwned) `touch pwned`; touch pwned \u{202e}dik";

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("written");
}

/// The commands that a text names between backticks or behind `next:`.
fn commands(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let mut rest = line;
        while let Some(at) = rest.find("`foldback ").or_else(|| rest.find("  foldback ")) {
            let command = &rest[at..].trim_start_matches([' ', '`']);
            // A name may hold a backtick itself, inside quotes.
            let (mut is_quoted, mut end) = (false, command.len());
            let mut letters = command.char_indices().peekable();
            while let Some((i, c)) = letters.next() {
                match c {
                    '\\' => drop(letters.next()),
                    '\'' => is_quoted = !is_quoted,
                    '`' if !is_quoted => {
                        end = i;
                        break;
                    }
                    ' ' if !is_quoted && command[i..].starts_with("  ") => {
                        end = i;
                        break;
                    }
                    _ => {}
                }
            }
            found.push(command[..end].to_owned());
            rest = &command[end..];
        }
    }
    found
}

/// Runs a command in a shell in which `foldback` only says which words it was given.
fn words(world: &World, command: &str) -> Vec<String> {
    let bin = world.dir.path().join("bin");
    std::fs::create_dir_all(&bin).expect("a folder");
    let program = bin.join("foldback");
    std::fs::write(&program, "#!/bin/sh\nfor word in \"$@\"; do printf '%s\\0' \"$word\"; done\n")
        .expect("written");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let output =
        Command::new("bash").args(["-c", command]).current_dir(world.dir.path()).env("PATH", path).output();
    let output = output.expect("a shell");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_terminator('\0').map(str::to_owned).collect()
}

fn is_clean(text: &str) {
    let obeyed = |c: &char| {
        c.is_control() && *c != '\n' || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
    };
    assert_eq!(text.chars().find(obeyed), None, "{text:?}");
}

#[test]
fn a_hostile_key_or_id_is_neither_obeyed_by_a_terminal_nor_by_a_shell() {
    let world = World::empty();
    let name = serde_json::Value::from(HOSTILE).to_string();
    let document = format!(
        "document: {{ dsl: '1.0.3', namespace: t, name: d, version: '1.0.0' }}\ndo:\n\
         - first: {{ run: {{ shell: {{ command: 'echo 1' }} }}, metadata: {{ foldback: {{ effect: read }} }} }}\n\
         - {name}: {{ run: {{ shell: {{ command: 'echo \"$N\"', environment: {{ N: '${{ . }}' }} }} }} }}\n\
         - last: {{ run: {{ shell: {{ command: 'exit 1' }} }} }}\n"
    );
    put(&world, "d.yaml", &document);
    let id = "an 'id' of $(touch pwned) and `more`";
    let mut told = Vec::new();
    let failed = world.run(&["run", "d.yaml", "--id", id]);
    assert!(failed.code == 1 && failed.err.contains("failed"), "{failed:?}");
    told.push(failed);
    for words in [
        &["show", id][..],
        &["steps", id],
        &["events", id],
        &["replay", id],
        &["show", id, HOSTILE],
        &["state", id, "--at", HOSTILE],
        &["steps", id, "nothing like it"],
        &["pause", id],
        &["signal", id, "x"],
        &["resolve", id, HOSTILE, "landed"],
        &["run", "d.yaml", "--id", id, "--input", "1"],
        // A write whose request is another is held, and its key stands in the hints.
        &["fork", id, "--edit", "first:output=2"],
        &["list"],
    ] {
        told.push(world.run(words));
    }
    let fork = format!("{id}~1");
    told.push(world.run(&["show", &fork]));
    let mut keys = 0;
    for ran in &told {
        is_clean(&ran.out);
        is_clean(&ran.err);
        for command in commands(&ran.err).into_iter().chain(commands(&ran.out)) {
            if !command.contains("id") {
                continue;
            }
            let words = words(&world, &command);
            let given = &words[1];
            assert!(given == id || *given == fork, "{command}: {words:?}");
            if words[0] == "resolve" {
                assert_eq!(words[2], HOSTILE, "{command}");
                keys += 1;
            }
        }
    }
    assert!(keys >= 2, "the hints of the held write name its key: {told:?}");
    assert!(!world.dir.path().join("pwned").exists(), "a hint ran a command");
}

#[test]
fn a_hint_to_take_back_is_given_only_where_something_can_be() {
    let world = World::empty();
    let document = "document: { dsl: '1.0.3', namespace: t, name: d, version: '1.0.0' }\ndo:\n- one: { set: { n: 1 } }\n";
    put(&world, "d.yaml", document);
    assert_eq!(world.run(&["run", "d.yaml", "--id", "w"]).code, 0);
    for words in [&["cancel", "w"][..], &["pause", "w"], &["signal", "w", "x"]] {
        let ran = world.run(words);
        assert!(
            ran.code == 2 && !ran.err.contains("compensate") && ran.err.contains("foldback show w"),
            "{ran:?}"
        );
    }
    let undoing = "document: { dsl: '1.0.3', namespace: t, name: u, version: '1.0.0' }\ndo:\n\
        - one: { run: { shell: { command: 'true' } }, metadata: { foldback: { undo: [{ back: { set: { n: 0 } } }] } } }\n";
    put(&world, "u.yaml", undoing);
    assert_eq!(world.run(&["run", "u.yaml", "--id", "u"]).code, 0);
    let ran = world.run(&["cancel", "u"]);
    assert!(ran.err.contains("foldback compensate u"), "{ran:?}");
}

/// What a terminal obeys, in the three ways that there are: ESC, one letter for ESC and `[`, and a mark that turns
/// the line around.
const OBEYED: &str = "\u{1b}[31m \u{9b}2J \u{202e}dik";

fn is_obeyed(text: &str) -> bool {
    text.chars().any(|c| c != '\n' && foldback::core::text::is_hidden(c))
}

#[test]
fn a_line_of_progress_holds_nothing_to_obey() {
    let world = World::empty();
    let definition = format!(
        "document: {{ dsl: '1.0.3', namespace: test, name: d, version: '1.0.0' }}\ndo:\n\
         - choose: {{ switch: [ known: {{ when: '.x == \"no\"', then: exit }}, other: {{ then: continue }} ] }}\n\
         - tell: {{ emit: {{ event: {{ with: {{ source: 'urn:a', type: {type_} }} }} }} }}\n\
         - \"ask \u{202e}dik\": {{ call: llm, with: {{ model: desk/tiny, template: Write. }} }}\n",
        // As YAML spells it.
        type_ = r#""ev \u001b[31m \u009b2J \u202edik""#,
    );
    put(&world, "d.yaml", &definition);
    put(&world, "foldback.toml", "[providers.desk]\nkind = \"scripted\"\nfile = \"rules.json\"\n");
    let rules = serde_json::json!([
        {"status": 503, "answer": format!("first {OBEYED}"), "retry_after_ms": 1, "times": 1},
        {"status": 400, "answer": format!("then {OBEYED}")},
    ]);
    put(&world, "rules.json", &rules.to_string());
    let input = serde_json::json!({"x": OBEYED}).to_string();
    let ran = world.run(&["run", "d.yaml", "--id", "w \u{202e}dik", "--input", &input]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in ["◆ choose", "● ev ", "↻ ask dik", "503 Scripted error: first", "✗ ask dik", "then"] {
        assert!(ran.err.contains(part), "{part}: {}", ran.err);
    }
    assert!(!is_obeyed(&ran.err) && !is_obeyed(&ran.out), "{ran:?}");
}

/// A terminal is made by `script`, which every Debian has.
#[test]
fn an_export_is_as_it_is_in_a_file_and_holds_nothing_to_obey_on_a_terminal() {
    let (from, to) = (World::empty(), World::empty());
    put(
        &from,
        "d.yaml",
        "document: { dsl: '1.0.3', namespace: test, name: d, version: '1.0.0' }\ndo:\n- a: { set: { y: '${ .x }' } }\n",
    );
    let input = serde_json::json!({"x": OBEYED}).to_string();
    assert_eq!(from.run(&["run", "d.yaml", "--id", "w", "--input", &input]).code, 0);
    let file = from.run(&["export", "w"]).out;
    assert!(file.contains("\u{9b}2J \u{202e}dik"), "a file and a pipe get it byte for byte");
    let command = format!("'{}' export w", env!("CARGO_BIN_EXE_foldback"));
    let shown = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(from.dir.path())
        .stdin(std::process::Stdio::null())
        .output()
        .expect("`script` makes a terminal");
    let shown = String::from_utf8(shown.stdout).expect("text").replace('\r', "");
    assert!(shown.contains(r"\u001b[31m \u009b2J \u202edik") && !is_obeyed(&shown), "{shown}");
    assert!(shown.contains("note: what a terminal obeys is written as escapes; `foldback export w > FILE`"));
    // Each line means the same. It is spelled otherwise, which `import` tells from what was exported.
    let values = |text: &str| -> Vec<serde_json::Value> {
        let lines = text.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    assert_eq!(values(&shown), values(&file));
    put(&to, "w.jsonl", &file);
    assert_eq!(to.run(&["import", "w.jsonl"]).code, 0);
}
