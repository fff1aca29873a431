//! Processes of steps that outlive their engine: real processes, real SIGKILL. Whatever a step had
//! started is found and ended before a person is asked and before anything begins again, so that the
//! effect happens once.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::World;

/// A definition of one step `pay` that runs a command.
fn paying(world: &World, file: &str, command: &str, metadata: &str) {
    let text = format!(
        "document: {{ dsl: '1.0.3', namespace: t, name: pay, version: '1.0.0' }}\ndo:\n  - pay:\n      run:\n        \
         shell:\n          command: |\n            {command}\n      {metadata}\n"
    );
    std::fs::write(world.dir.path().join(file), text).expect("a definition");
}

fn begin(world: &World, file: &str, id: &str) -> Child {
    let mut command = world.command(&["run", file, "--id", id]);
    command.env("FOLDBACK", env!("CARGO_BIN_EXE_foldback"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it runs")
}

/// Starts it, and kills the engine once the step has left this file.
fn killed_once(world: &World, file: &str, id: &str, left: &str) {
    let mut run = begin(world, file, id);
    await_file(&world.dir.path().join(left));
    run.kill().expect("it is killed");
    run.wait().expect("it has ended");
}

fn await_file(path: &Path) {
    let begun = Instant::now();
    while std::fs::read_to_string(path).unwrap_or_default().trim().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn text(world: &World, file: &str) -> String {
    std::fs::read_to_string(world.dir.path().join(file)).unwrap_or_default()
}

fn send(signal: &str, child: &Child) {
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
}

/// The ways in which a process can be out of its engine's sight. Each leaves a line in `begun`, and pays
/// once somebody says GO.
const WAYS: [(&str, &str); 6] = [
    ("in its group", "echo $$ >> begun; GO; echo paid >> paid"),
    ("in a session of its own", "setsid sh -c 'echo $$ >> begun; GO; echo paid >> paid' & wait"),
    (
        "its parents gone",
        "(setsid sh -c '(echo $$ >> begun; GO; echo paid >> paid) &' &); sleep 0.1; exec sleep 1",
    ),
    ("its environment cleared", "env -i setsid sh -c 'echo $$ >> begun; GO; echo paid >> paid' & wait"),
    ("its first thread ended", "exec python3 headless.py"),
    ("several", "for i in 1 2 3; do (GO; echo paid >> paid) & done; echo $$ >> begun; wait"),
];

/// A process whose first thread ends, and another one of which pays.
const HEADLESS: &str = "import ctypes, os, threading, time
def work():
    with open('begun', 'a') as file:
        file.write(f'{os.getpid()}\\n')
    while not os.path.exists('go'):
        time.sleep(0.02)
    with open('paid', 'a') as file:
        file.write('paid\\n')
    os._exit(0)
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
";

/// A workflow for each of the ways, whose engine was killed once its step had begun.
fn killed(metadata: &str) -> Vec<(&'static str, World)> {
    let world = |(way, command): &(&'static str, &str)| {
        let world = World::empty();
        let command = command.replace("GO", "until [ -e go ]; do sleep 0.02; done");
        std::fs::write(world.dir.path().join("headless.py"), HEADLESS).expect("a script");
        paying(&world, "pay.yaml", &command, metadata);
        killed_once(&world, "pay.yaml", "p", "begun");
        (*way, world)
    };
    WAYS.iter().map(world).collect()
}

/// Lets whatever still waits pay.
fn go(worlds: &[(&str, World)]) {
    for (_, world) in worlds {
        std::fs::write(world.dir.path().join("go"), "").expect("a file");
    }
    std::thread::sleep(Duration::from_millis(500));
}

#[test]
fn what_a_killed_engine_left_running_is_ended_before_a_person_is_asked() {
    let worlds = killed("");
    for (way, world) in &worlds {
        let asked = world.run(&["resume", "p"]);
        assert_eq!(asked.code, 1, "{way}: {}", asked.err);
        assert!(asked.err.contains("its process was ended (pid "), "{way}: {}", asked.err);
        assert_eq!(world.run(&["list", "--json"]).document(0)["status"], "unknown", "{way}");
    }
    go(&worlds);
    for (way, world) in &worlds {
        assert_eq!(text(world, "paid"), "", "{way}: it was paid behind our back");
    }
    // It did not happen, says who has looked; so it happens once.
    let paid = worlds[0].1.run(&["resolve", "p", "pay", "didnt"]);
    assert_eq!(paid.code, 0, "{}", paid.err);
    assert_eq!(text(&worlds[0].1, "paid"), "paid\n");
}

#[test]
fn what_a_killed_engine_left_running_is_ended_before_it_begins_again() {
    let worlds = killed("metadata: { foldback: { recovery: retry } }");
    let begin_again = |(_, world): &(&str, World)| {
        let mut command = world.command(&["resume", "p"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
    };
    let resumed: Vec<Child> = worlds.iter().map(begin_again).collect();
    for (way, world) in &worlds {
        let begun = Instant::now();
        while text(world, "begun").lines().count() < 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{way} does not begin again");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    go(&worlds);
    for (run, (way, world)) in resumed.into_iter().zip(&worlds) {
        let ran = crate::world::Ran::of(run.wait_with_output().expect("it ends"));
        assert_eq!(ran.code, 0, "{way}: {}", ran.err);
        let wanted = if *way == "several" { 3 } else { 1 };
        assert_eq!(text(world, "paid").lines().count(), wanted, "{way}");
        let events = world.run(&["events", "p", "--json"]).out;
        assert!(events.contains("its process was ended (pid "), "{way}: {events}");
    }
}

/// An engine runs inside a step of another, and both are killed: the outer one's successor finds what the
/// inner one had begun, which nobody else may ever look for.
#[test]
fn what_an_engine_inside_a_step_left_running_is_ended_by_the_outer_ones_successor() {
    let world = World::empty();
    let begun = "setsid sh -c 'echo $FOLDBACK_ATTEMPT >> begun; until [ -e go ]; do sleep 0.02; done; \
                 echo paid >> paid' & wait";
    paying(&world, "inner.yaml", begun, "");
    let outer = "if [ -e again ]; then echo done; exit; fi; echo $$ > engine; \
                 exec \"$FOLDBACK\" --store sqlite:inner.db run inner.yaml --id i";
    paying(&world, "outer.yaml", outer, "metadata: { foldback: { recovery: retry } }");
    let mut run = begin(&world, "outer.yaml", "o");
    await_file(&world.dir.path().join("begun"));
    let marks = text(&world, "begun").trim().to_owned();
    run.kill().expect("it is killed");
    run.wait().expect("it has ended");
    let inner = text(&world, "engine").trim().to_owned();
    assert!(Command::new("kill").args(["-KILL", &inner]).status().expect("kill runs").success());
    std::thread::sleep(Duration::from_millis(200));

    // Only what the inner engine had begun is left.
    std::fs::write(world.dir.path().join("again"), "").expect("a file");
    let resumed = world.run(&["resume", "o"]);
    assert_eq!(resumed.code, 0, "{}", resumed.err);
    let events = world.run(&["events", "o", "--json"]).out;
    assert!(events.contains("its process was ended (pid "), "{events}");
    std::fs::write(world.dir.path().join("go"), "").expect("a file");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(text(&world, "paid"), "", "it was paid behind our back");
    // Each name stands alone, the outer one first.
    let marks: Vec<&str> = marks.split(':').collect();
    assert!(
        marks.len() == 2 && marks[0] != marks[1] && marks.iter().all(|mark| mark.len() == 32),
        "{marks:?}"
    );
}

/// The other way round: the inner engine dies alone, and its successor runs inside the same step. It ends
/// what the inner one had begun, and not the step that it runs in.
#[test]
fn a_successor_inside_a_step_ends_what_was_its_own_and_not_the_step() {
    let world = World::empty();
    let begun = "if [ -e begun ]; then echo done; exit; fi; echo $$ > begun; \
                 until [ -e go ]; do sleep 0.02; done; echo paid >> paid";
    paying(&world, "inner.yaml", begun, "metadata: { foldback: { recovery: retry } }");
    let engine = "\"$FOLDBACK\" --store sqlite:inner.db";
    let outer = format!(
        "{engine} run inner.yaml --id i & until [ -s begun ]; do sleep 0.02; done; kill -KILL $!; \
         {engine} resume i > resumed 2>&1; {engine} events i --json > events; echo over"
    );
    paying(&world, "outer.yaml", &outer, "");
    let mut run = begin(&world, "outer.yaml", "o");
    assert_eq!(run.wait().expect("it ends").code(), Some(0), "{}", text(&world, "resumed"));
    let events = text(&world, "events");
    assert!(events.contains("its process was ended (pid "), "{events}");
    std::fs::write(world.dir.path().join("go"), "").expect("a file");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(text(&world, "paid"), "", "it was paid behind our back");
}

#[test]
fn what_cannot_be_ended_holds_its_workflow_up() {
    let world = World::empty();
    // The step itself goes on with its workflow: what would have to be ended is whoever looks.
    let command = "echo $$ > begun; until [ -e go ]; do sleep 0.02; done; \
                   \"$FOLDBACK\" resume p > inner 2>&1; echo exit $? >> inner";
    paying(&world, "pay.yaml", command, "");
    killed_once(&world, "pay.yaml", "p", "begun");
    std::fs::write(world.dir.path().join("go"), "").expect("a file");
    let begun = Instant::now();
    while !text(&world, "inner").contains("exit") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", text(&world, "inner"));
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = text(&world, "begun").trim().to_owned();
    let inner = text(&world, "inner");
    assert!(inner.contains(&format!("attempt 1 of `pay` still runs (pid {pid})")), "{inner}");
    assert!(inner.contains("exit 1"), "{inner}");
    let events = world.run(&["events", "p"]).out;
    assert!(!events.contains("OutcomeUnknown"), "nobody is asked before: {events}");
    // It has ended by itself meanwhile.
    let asked = world.run(&["resume", "p"]);
    assert!(asked.err.contains("no process with its FOLDBACK_ATTEMPT"), "{}", asked.err);
    assert_eq!(world.run(&["list", "--json"]).document(0)["status"], "unknown");
}

/// Another strand of its workflow goes on beside it, so that the workflow stays in memory: nothing is said of
/// the step all the while.
#[test]
fn what_cannot_be_ended_is_held_up_beside_another_strand() {
    let world = World::empty();
    let definition = "document: { dsl: '1.0.3', namespace: t, name: pay, version: '1.0.0' }
do:
  - both:
      fork:
        branches:
          - pay:
              run:
                shell:
                  command: |
                    echo $$ > begun; until [ -e go ]; do sleep 0.02; done
                    \"$FOLDBACK\" resume p > inner 2>&1; echo exit $? >> inner
          - nap: { run: { shell: { command: 'sleep 0.7; echo up >> napped' } }, metadata: { foldback: { effect: read } } }
";
    std::fs::write(world.dir.path().join("pay.yaml"), definition).expect("a definition");
    killed_once(&world, "pay.yaml", "p", "begun");
    std::fs::write(world.dir.path().join("go"), "").expect("a file");
    await_file(&world.dir.path().join("inner"));
    let begun = Instant::now();
    while !text(&world, "inner").contains("exit") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", text(&world, "inner"));
        std::thread::sleep(Duration::from_millis(20));
    }
    let (inner, events) = (text(&world, "inner"), world.run(&["events", "p"]).out);
    assert!(inner.contains("still runs (pid ") && inner.contains("exit 1"), "{inner}");
    assert_eq!(text(&world, "napped"), "up\n", "the other strand went on: {inner}");
    assert!(!events.contains("OutcomeUnknown"), "nobody is asked before: {events}");
}

/// Its time runs out, and what it started in a session of its own goes on.
const SLOW: &str = "if [ -e begun ]; then echo paid >> paid; exit; fi; echo $$ > begun; \
                    setsid sh -c 'sleep 2; echo paid >> paid' & wait";

#[test]
fn who_says_that_it_did_not_happen_is_told_that_it_was_under_way() {
    let world = World::empty();
    paying(&world, "pay.yaml", SLOW, "timeout: { after: { milliseconds: 300 } }");
    assert_eq!(world.run(&["run", "pay.yaml", "--id", "p"]).code, 1);
    assert_eq!(world.run(&["list", "--json"]).document(0)["status"], "unknown");
    let refused = world.run(&["resolve", "p", "pay", "didnt"]);
    assert_eq!(refused.code, 2, "{}", refused.err);
    assert!(refused.err.contains("attempt 1 of `pay` was still under way"), "{}", refused.err);
    assert!(refused.err.contains("its process was ended (pid "), "{}", refused.err);
    let paid = world.run(&["resolve", "p", "pay", "didnt"]);
    assert_eq!(paid.code, 0, "{}", paid.err);
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(text(&world, "paid"), "paid\n");
}

#[test]
fn what_ran_out_of_time_is_ended_before_it_is_sent_again() {
    let world = World::empty();
    let metadata =
        "timeout: { after: { milliseconds: 300 } }\n      metadata: { foldback: { recovery: retry } }";
    paying(&world, "pay.yaml", SLOW, metadata);
    let ran = world.run(&["run", "pay.yaml", "--id", "p"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(text(&world, "paid"), "paid\n");
}

#[test]
fn a_closed_terminal_stops_as_a_termination_does_unless_it_is_ignored() {
    let world = World::empty();
    let flow = "document: { dsl: '1.0.3', namespace: t, name: two, version: '1.0.0' }\ndo:\n  \
                - one: { run: { shell: { command: 'echo begun > \"one.$FOLDBACK_WORKFLOW_ID\"; sleep 0.5' } } }\n  \
                - two: { run: { shell: { command: 'echo begun > \"two.$FOLDBACK_WORKFLOW_ID\"' } } }\n";
    std::fs::write(world.dir.path().join("two.yaml"), flow).expect("a definition");
    for signal in ["HUP", "TERM"] {
        let mut run = begin(&world, "two.yaml", signal);
        await_file(&world.dir.path().join(format!("one.{signal}")));
        send(&format!("-{signal}"), &run);
        if signal == "HUP" {
            // A shell and the kernel both send it.
            std::thread::sleep(Duration::from_millis(100));
            send("-HUP", &run);
        }
        assert_eq!(run.wait().expect("it ends").code(), Some(1), "{signal}");
        assert_eq!(text(&world, &format!("two.{signal}")), "", "{signal}: nothing more begins");
        let steps = world.run(&["steps", signal, "--json"]).lines(0);
        assert_eq!(steps[0]["status"], "completed", "{signal}: the step in flight reports: {steps:?}");
    }
    let line = "trap '' HUP; exec \"$0\" run two.yaml --id nohup";
    let mut run = Command::new("sh");
    run.args(["-c", line, env!("CARGO_BIN_EXE_foldback")]).current_dir(world.dir.path());
    run.env_remove("FOLDBACK_STORE").stdout(Stdio::null()).stderr(Stdio::null());
    let mut run = run.spawn().expect("it runs");
    await_file(&world.dir.path().join("one.nohup"));
    send("-HUP", &run);
    assert_eq!(run.wait().expect("it ends").code(), Some(0));
    assert_eq!(text(&world, "two.nohup"), "begun\n");
}
