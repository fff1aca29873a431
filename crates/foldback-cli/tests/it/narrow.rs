//! A narrow machine: few open files. What does not fit at once comes later; what cannot work at all is
//! said, and nothing panics.
#![cfg(unix)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::servers::{Answers, Server};
use crate::world::{Ran, World};

/// Runs the binary where it may open so many files.
fn with_files(world: &World, files: u32, words: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {files}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_foldback")]);
    command.args(words).current_dir(world.dir.path()).env_remove("FOLDBACK_STORE").stdin(Stdio::null());
    Ran::of(command.output().expect("it runs"))
}

#[test]
fn steps_at_once_are_as_many_as_there_are_files_for() {
    let world = World::empty();
    let branches: String = (0..40)
        .map(|n| {
            format!("        - b{n}: {{ run: {{ shell: {{ command: 'sleep 0.1; echo {n} >> done' }} }} }}\n")
        })
        .collect();
    let head = "document: { dsl: '1.0.3', namespace: t, name: wide, version: '1.0.0' }\ndo:\n  - all:\n      \
                fork:\n        branches:\n";
    let text = format!("{head}{}", branches.replace("        - ", "          - "));
    std::fs::write(world.dir.path().join("wide.yaml"), text).expect("a definition");
    let ran = with_files(&world, 100, &["run", "wide.yaml", "--id", "w", "--json"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let done = std::fs::read_to_string(world.dir.path().join("done")).unwrap_or_default();
    assert_eq!(done.lines().count(), 40);
    assert!(!ran.err.contains("No room"), "none was begun in vain: {}", ran.err);
}

#[test]
fn however_few_files_there_are_nothing_panics_and_the_reason_is_said() {
    let world = World::empty();
    let text = "document: { dsl: '1.0.3', namespace: t, name: one, version: '1.0.0' }\ndo:\n  \
                - go: { run: { shell: { command: 'echo gone' } } }\n";
    std::fs::write(world.dir.path().join("one.yaml"), text).expect("a definition");
    // With fewer than five the binary itself does not start.
    for files in 5..=72 {
        let id = format!("f{files}");
        for words in [&["run", "one.yaml", "--id", &id][..], &["list"], &["doctor"]] {
            let ran = with_files(&world, files, words);
            assert!(!ran.err.contains("panicked"), "{files} {words:?}: {}", ran.err);
            if ran.code != 0 {
                assert_eq!(ran.code, 3, "{files} {words:?}: {}", ran.err);
                assert!(ran.err.contains("ulimit -n"), "{files} {words:?}: {}", ran.err);
            }
        }
    }
    assert_eq!(with_files(&world, 80, &["run", "one.yaml", "--id", "enough"]).code, 0);
}

/// The files run out while the engine lives: what it cannot open for comes later, and counts for nothing.
#[cfg(target_os = "linux")]
#[test]
fn a_call_without_a_file_to_spare_is_made_later() {
    let page = Server::that(Answers::Bytes("application/json", b"{\"n\": 1}".to_vec()));
    let model = Server::that(Answers::Streams(SAYS));
    let world = World::empty();
    let put = |name: &str, text: String| std::fs::write(world.dir.path().join(name), text).expect("a file");
    put("foldback.toml", format!("[providers.mine]\nkind = \"openai\"\nbase_url = \"{}/v1\"\n", model.url));
    let tasks = format!(
        "  - first: {{ wait: {{ seconds: 1 }} }}\n  \
         - get: {{ call: http, with: {{ method: get, endpoint: '{}/n' }} }}\n  \
         - second: {{ wait: {{ seconds: 1 }} }}\n  \
         - ask: {{ call: llm, with: {{ model: mine/m, template: Write. }} }}\n",
        page.url
    );
    put(
        "calls.yaml",
        format!("document: {{ dsl: '1.0.3', namespace: t, name: c, version: '1.0.0' }}\ndo:\n{tasks}"),
    );
    let mut run = world.command(&["run", "calls.yaml", "--id", "w"]);
    let mut run = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary runs");
    let id = run.id().to_string();
    let allow = |files: usize| {
        let ran = Command::new("prlimit").args(["--pid", &id, &format!("--nofile={files}:")]).status();
        assert!(ran.expect("it is of util-linux").success());
    };
    let logged = |types: &str, key: &str| {
        let log = world.run(&["events", "w", "--json"]).out;
        log.lines().any(|line| line.contains(types) && line.contains(&format!("\"key\":\"{key}\"")))
    };
    for (wait, call, server) in [("first", "get", &page), ("second", "ask", &model)] {
        until(wait, || logged("TimerSet", wait));
        until(call, || {
            // The next file would get the first number that is free; what was open until now may be closed.
            allow((0..).find(|n| !std::path::Path::new(&format!("/proc/{id}/fd/{n}")).exists()).unwrap_or(0));
            logged("No room on this machine", call)
        });
        assert_eq!(server.requests(), 0, "{call}");
        allow(1024);
    }
    assert!(run.wait().expect("a child").success());
    assert_eq!((page.requests(), model.requests()), (1, 1));
}

/// What a model's server streams.
const SAYS: &str = "data: {\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once\"},\
\"finish_reason\":\"stop\"}]}\n\ndata: {\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":1,\
\"completion_tokens\":1,\"total_tokens\":2}}\n\ndata: [DONE]\n\n";

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} did not come within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}
