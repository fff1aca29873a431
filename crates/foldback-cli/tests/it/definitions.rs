//! Definitions from anywhere: what a person names is read with a bound, whatever it is; what a definition
//! names lies in its folder. And what `check` shows of a problem that `run` does not.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{Ran, World};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: test, name: files, version: '1.0.0' }\n";
const OK: &str = "do:\n  - one: { set: { x: 1 } }\n";

/// A shell line in the world's folder, with the binary as `$F`.
fn line(world: &World, line: &str) -> Ran {
    let mut shell = Command::new("bash");
    shell.args(["-c", line]).current_dir(world.dir.path()).env("F", env!("CARGO_BIN_EXE_foldback"));
    shell.env_remove("FOLDBACK_STORE").env_remove("FOLDBACK_CONFIG").stdin(Stdio::null());
    Ran::of(shell.output().expect("a shell"))
}

#[test]
fn what_a_person_names_is_read_with_a_bound_whatever_it_is() {
    let world = World::empty();
    let prompts = world.dir.path().join("prompts");
    fs::create_dir(&prompts).expect("made");
    fs::write(prompts.join("a.md"), "say hi").expect("written");
    fs::write(world.dir.path().join("ok.yaml"), format!("{HEAD}{OK}")).expect("written");
    let asks = "do:\n  - one: { call: llm, with: { model: ollama/x, template: { file: prompts/a.md } } }\n";
    fs::write(world.dir.path().join("asks.yaml"), format!("{HEAD}{asks}")).expect("written");
    let began = Instant::now();
    for (typed, code, wanted) in [
        ("$F check /dev/zero", 2, "/dev/zero: is larger than 4 MiB"),
        ("$F run /dev/zero", 2, "/dev/zero: is larger than 4 MiB"),
        ("$F run ok.yaml --input @/dev/zero", 2, "/dev/zero: is larger than 64 MiB"),
        ("yes | $F run ok.yaml --input -", 2, "standard input: is larger than 64 MiB"),
        ("$F run ok.yaml; $F projection add /dev/zero", 2, "/dev/zero: is larger than 4 MiB"),
        ("mkfifo pipe; cat ok.yaml > pipe & $F check pipe", 0, ""),
        ("$F run <(cat ok.yaml) --id by-substitution", 0, "completed"),
        ("$F check /dev/stdin < ok.yaml", 0, ""),
        // From a pipe, files are those of the folder that we are in.
        ("cat asks.yaml | $F check /dev/stdin", 0, ""),
        ("$F check <(cat asks.yaml)", 0, ""),
    ] {
        let ran = line(&world, typed);
        assert_eq!(ran.code, code, "{typed}: {ran:?}");
        assert!(ran.err.contains(wanted), "{typed}: {wanted:?} is missing in {ran:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn what_a_definition_names_lies_in_its_folder_or_where_a_named_configuration_allows() {
    let world = World::empty();
    let home = world.dir.path();
    for folder in ["flows", "flows/prompts", "shared"] {
        fs::create_dir(home.join(folder)).expect("made");
    }
    fs::write(home.join("flows/prompts/a.md"), "say hi").expect("written");
    fs::write(home.join("shared/b.md"), "say hi").expect("written");
    fs::write(home.join("shared/in.json"), "{}").expect("written");
    symlink("prompts/a.md", home.join("flows/inside.md")).expect("linked");
    symlink("../shared/b.md", home.join("flows/outside.md")).expect("linked");
    symlink("/proc/self/environ", home.join("flows/environ")).expect("linked");
    assert_eq!(line(&world, "mkfifo flows/pipe").code, 0);
    let allowing = "[definitions]\nfolders = [\"shared\"]\n";
    fs::write(home.join("named.toml"), allowing).expect("written");

    let template = |file: &str| {
        format!("do:\n  - one: {{ call: llm, with: {{ model: ollama/x, template: {{ file: {file} }} }} }}\n")
    };
    let script = "do:\n  - one: { run: { script: { language: python, source: { endpoint: 'file:///etc/hostname' } } }, metadata: { foldback: { effect: read } } }\n";
    let schema =
        "input: { schema: { resource: { endpoint: ../shared/in.json } } }\ndo:\n  - one: { set: { x: 1 } }\n";
    let outside = "lies outside the definition's folder";
    for (definition, plain, allowed) in [
        (template("prompts/a.md"), "", ""),
        (template("./prompts/../inside.md"), "", ""),
        (template("../shared/b.md"), outside, ""),
        (template("outside.md"), outside, ""),
        (schema.to_owned(), outside, ""),
        (template("/proc/self/environ"), outside, outside),
        (template("environ"), outside, outside),
        (template("../named.toml"), outside, outside),
        (script.to_owned(), outside, outside),
        (template("pipe"), "no regular file", "no regular file"),
        (template("prompts"), "no regular file", "no regular file"),
        (template("no.md"), "No such file", "No such file"),
    ] {
        fs::write(home.join("flows/a.yaml"), format!("{HEAD}{definition}")).expect("written");
        let found = home.join("foldback.toml");
        for (typed, wanted) in [
            ("$F check flows/a.yaml", plain),
            ("cd flows; $F check a.yaml", plain),
            ("$F --config named.toml check flows/a.yaml", allowed),
            // One that was merely found may have come with the definition.
            ("cp named.toml foldback.toml; $F check flows/a.yaml", plain),
        ] {
            let ran = line(&world, typed);
            let code = if wanted.is_empty() { 0 } else { 2 };
            assert_eq!(ran.code, code, "{typed}: {definition}: {ran:?}");
            assert!(ran.err.contains(wanted), "{typed}: {definition}: {ran:?}");
            let _ = fs::remove_file(&found);
        }
    }
}

/// A log may come from a stranger: of what it names as the file of its definition, only a regular file is
/// opened.
#[test]
fn what_a_log_names_is_read_only_where_it_is_a_regular_file() {
    let world = World::empty();
    let fails = "do:\n  - one: { run: { shell: { command: 'false' } } }\n";
    for (made, note) in [
        ("true", false),
        ("echo >> w.yaml; sed -i s/false/true/ w.yaml", true),
        ("rm w.yaml; mkfifo w.yaml", false),
        ("rm w.yaml; ln -s /dev/ptmx w.yaml", false),
        ("rm w.yaml; mkdir w.yaml", false),
        ("rm w.yaml", false),
    ] {
        let _ = fs::remove_file(world.path());
        assert_eq!(line(&world, "rm -rf w.yaml").code, 0);
        fs::write(world.dir.path().join("w.yaml"), format!("{HEAD}{fails}")).expect("written");
        assert_eq!(line(&world, "$F run w.yaml --id w").code, 1, "{made}");
        // Nobody writes to the pipe: whoever opened it would wait for ever.
        let ran = line(&world, &format!("{made}; timeout -k 1 20 $F retry w"));
        assert_eq!(ran.code, 1, "{made}: {ran:?}");
        assert_eq!(ran.err.contains("w.yaml has changed"), note, "{made}: {ran:?}");
    }
}

/// What merely lies in the folder is looked at before it is opened: nothing waits for a pipe, reads the
/// terminal, or tells what stands elsewhere.
#[test]
fn a_configuration_that_was_found_is_a_regular_file_of_the_folder() {
    let world = World::empty();
    let home = world.dir.path();
    fs::write(home.join("a.yaml"), format!("{HEAD}do:\n  - one: {{ set: {{ x: 1 }} }}\n")).expect("written");
    fs::create_dir(home.join("here")).expect("made");
    fs::write(home.join("here/fine.toml"), "[definitions]\nfolders = []\n").expect("written");
    fs::write(home.join("secret"), "password = \"hunter2\"\n").expect("written");
    assert_eq!(line(&world, "mkfifo quiet").code, 0);
    let commands = ["run ../a.yaml", "check ../a.yaml", "doctor"];
    for (made, wanted) in [
        ("mkfifo foldback.toml", Some("foldback.toml: it is no regular file")),
        ("mkfifo pipe; ln -s pipe foldback.toml", Some("foldback.toml: it is no regular file")),
        (
            "ln -s ../secret foldback.toml",
            Some("foldback.toml: it leads out of this folder, and nobody named it"),
        ),
        ("ln -s /dev/stdin foldback.toml", Some("foldback.toml: it ")),
        ("mkdir foldback.toml", Some("foldback.toml: it is no regular file")),
        ("ln -s nowhere foldback.toml", None),
        ("ln -s fine.toml foldback.toml", None),
        ("cp fine.toml foldback.toml", None),
    ] {
        assert_eq!(line(&world, &format!("cd here; {made}")).code, 0, "{made}");
        for command in commands {
            // Its standard input is open, and says nothing.
            let ran = line(&world, &format!("cd here; timeout 20 $F {command} 0<> ../quiet"));
            let told = format!("{}{}", ran.out, ran.err);
            assert_ne!(ran.code, 124, "{made}: {command} waits: {told}");
            assert!(!told.contains("password") && !told.contains("hunter2"), "{made}: {told}");
            match wanted {
                Some(wanted) => {
                    assert!(ran.code != 0 && told.contains(wanted), "{made}: {command}: {told}");
                    assert!(told.contains("--config or FOLDBACK_CONFIG"), "{made}: {command}: {told}");
                }
                None => assert!(!told.contains("foldback.toml: "), "{made}: {command}: {told}"),
            }
        }
        assert_eq!(line(&world, "rm -r here/foldback.toml; rm -f here/pipe").code, 0, "{made}");
    }
}

#[test]
fn check_says_more_than_run() {
    let world = World::empty();
    let wide = format!("  - two: {{ set: {{ y: '{}' }}, thn: end }}\n", "é".repeat(200));
    let body = format!(
        "do:\n  - one: {{ sett: {{ x: 1 }} }}\n{wide}  - three: {{ set: 1 }}\n  - four: {{ wait: 1 }}\n"
    );
    fs::write(world.dir.path().join("a.yaml"), format!("{HEAD}{body}")).expect("written");
    let (run, check) = (line(&world, "$F run a.yaml"), line(&world, "$F check a.yaml"));
    assert_eq!((run.code, check.code), (2, 2), "{run:?}");
    let hints = |ran: &Ran| ran.err.matches("did you mean").count();
    assert!(run.err.contains("`foldback check a.yaml` shows each line, with every hint"), "{run:?}");
    assert!(hints(&check) >= 2 && check.err.len() > run.err.len(), "{check:?}");
    for shown in ["  3 |   - one: { sett: { x: 1 } }\n    |            ^\n", "thn: end }\n"] {
        assert!(check.err.contains(shown) && !run.err.contains(shown), "{shown:?}: {}", check.err);
    }
    // The mark stands under the member, in a line of which a part is shown.
    let lines: Vec<&str> = check.err.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.contains("thn: end }") && line.starts_with("  4 |"))
        .expect("line 4");
    let column = |line: &str, of: char| line.chars().position(|c| c == of);
    assert_eq!(
        column(lines[at + 1], '^'),
        lines[at].find("thn").map(|byte| lines[at][..byte].chars().count())
    );
    assert!(lines[at].chars().count() <= 110, "{}", lines[at]);
}
