//! `cancel`, `compensate`, `pause`, `unpause`, `signal`: what is asked for wrongly is refused with its reason, by
//! a definition that runs shell steps in a directory of its own.

use crate::world::World;
use serde_json::json;

const TRIP: &str = "
document: { dsl: '1.0.3', namespace: t, name: trip, version: '1.0.0', metadata: { foldback: { recovery: retry, budget: { steps: 9 } } } }
do:
  - book:
      run: { shell: { command: 'echo booked >> trip.txt' } }
      metadata: { foldback: { undo: [ { unbook: { run: { shell: { command: 'echo unbooked >> trip.txt' } } } } ] } }
  - ask: { listen: { to: { one: { with: { type: go } } } } }
";

fn trip(world: &World) {
    std::fs::write(world.dir.path().join("trip.yaml"), TRIP).expect("a definition");
    assert_eq!(world.run(&["run", "trip.yaml", "--id", "t"]).code, 0);
}

#[test]
fn what_cannot_be_ended_answered_or_raised_is_refused_with_a_hint() {
    let world = World::empty();
    trip(&world);
    let rows: [(&[&str], &str); 13] = [
        (&["cancel", "nobody"], "nobody"),
        (&["compensate", "t"], "has not ended"),
        (&["compensate", "nobody"], "nobody"),
        (&["compensate", "t", "--from", "2", "--down-to", "3"], "nothing lies between"),
        (&["compensate", "t", "--down-to", "99"], "99"),
        (&["unpause", "t"], "is not paused"),
        (&["unpause", "t", "--budget", "steps"], "raises no budget"),
        (&["unpause", "t", "--budget", "dollars=3"], "raises no budget"),
        (&["unpause", "t", "--budget", "steps=-3"], "raises no budget"),
        (&["signal", "nobody", "go"], "nobody"),
        (&["signal", "t", "StepAsked"], "cannot be the name of a signal"),
        (&["signal", "t", ""], "cannot be the name of a signal"),
        (&["signal", "t", "go", "{"], "the data"),
    ];
    for (command, message) in rows {
        let ran = world.run(command);
        assert_eq!(ran.code, 2, "{command:?}: {}", ran.err);
        assert!(ran.err.contains(message), "{command:?}: {}", ran.err);
        assert!(ran.err.contains("hint: "), "{command:?}: {}", ran.err);
    }
    assert_eq!(world.run(&["list", "--json"]).document(0)["status"], "waiting");
}

#[test]
fn who_is_cancelled_takes_back_and_is_not_cancelled_answered_or_retried_again() {
    let world = World::empty();
    trip(&world);
    let ended = world.run(&["cancel", "t", "--reason", "rain", "--json"]);
    assert_eq!(ended.document(0)["status"], "compensated");
    let book = std::fs::read_to_string(world.dir.path().join("trip.txt")).expect("what was done");
    assert_eq!(book, "booked\nunbooked\n");
    for (command, message) in [
        (&["cancel", "t"][..], "has ended already"),
        (&["signal", "t", "go"], "has ended already"),
        (&["pause", "t"], "has ended already"),
        (&["compensate", "t"], "nothing that `t` did can be taken back"),
        (&["retry", "t"], "did not fail"),
    ] {
        let ran = world.run(command);
        assert_eq!(ran.code, 2, "{command:?}: {}", ran.err);
        assert!(ran.err.contains(message), "{command:?}: {}", ran.err);
    }
    let shown = world.run(&["show", "t", "--json"]).document(0);
    assert_eq!(shown["effects"][0]["standing"], "undone");
    // At an earlier version it could still have been taken back.
    let then = world.run(&["show", "t", "--at", "ask", "--json"]).document(0);
    assert_eq!(then["effects"][0]["standing"], "armed");
    let state = world.run(&["state", "t", "--at", "ask", "--json"]).document(0);
    assert_eq!(
        (state["undos"].as_array().map(Vec::len), &state["undos"][0]["key"]),
        (Some(1), &json!("book"))
    );
    assert_eq!(world.run(&["verify", "t"]).code, 0);
    assert_eq!(world.run(&["audit"]).code, 0);
}

const ORDER: &str = "
document: { dsl: '1.0.3', namespace: t, name: order, version: '1.0.0' }
do:
  - one: { set: { n: 1 } }
  - two: { set: { n: 2 } }
  - book:
      run: { shell: { command: 'echo booked >> trip.txt' } }
      metadata: { foldback: { undo: [ { unbook: { run: { shell: { command: 'echo unbooked >> trip.txt' } } } } ] } }
";

#[test]
fn a_range_in_which_nothing_can_be_undone_is_refused_and_changes_nothing() {
    let world = World::empty();
    std::fs::write(world.dir.path().join("order.yaml"), ORDER).expect("a definition");
    assert_eq!(world.run(&["run", "order.yaml", "--id", "o"]).code, 0);
    let before = world.run(&["events", "o", "--json"]).out;
    for range in [&["--from", "3"][..], &["--down-to", "book:end"], &["--from", "two", "--down-to", "1"]] {
        let ran = world.run(&[&["compensate", "o"][..], range].concat());
        assert_eq!((ran.code, &*ran.out), (2, ""), "{range:?}: {}", ran.err);
        assert!(ran.err.contains("nothing that `o` did can be undone with --"), "{range:?}: {}", ran.err);
        assert!(ran.err.contains("hint: `foldback compensate o --dry-run`"), "{range:?}: {}", ran.err);
        let planned = world.run(&[&["compensate", "o", "--dry-run"][..], range].concat());
        assert_eq!(planned.code, 0, "{}", planned.err);
        assert!(planned.err.contains("nothing to undo"), "{range:?}: {planned:?}");
    }
    assert_eq!(world.run(&["events", "o", "--json"]).out, before, "nothing was written");
    let planned = world.run(&["compensate", "o", "--dry-run"]);
    assert!(planned.out.contains("undo  book") && planned.err.is_empty(), "{planned:?}");
    assert_eq!(world.run(&["compensate", "o"]).code, 0);
    assert_eq!(world.run(&["list", "--json"]).document(0)["status"], "compensated");
}

#[test]
fn a_fork_takes_back_nothing_of_its_parent() {
    let world = World::empty();
    trip(&world);
    assert_eq!(world.run(&["fork", "t", "--detach"]).code, 0);
    let ended = world.run(&["cancel", "t~1", "--json"]);
    assert_eq!(ended.document(0)["status"], "cancelled");
    let book = std::fs::read_to_string(world.dir.path().join("trip.txt")).expect("what was done");
    assert_eq!(book, "booked\n");
    let shown = world.run(&["show", "t~1", "--json"]).document(0);
    assert_eq!(
        (&shown["effects"][0]["standing"], &shown["effects"][0]["why"]),
        (&json!("parents"), &json!("t"))
    );
}

#[test]
fn a_paused_workflow_begins_nothing_until_it_is_told() {
    let world = World::empty();
    trip(&world);
    let paused = world.run(&["pause", "t", "--json"]);
    assert_eq!(paused.document(0)["status"], "paused");
    assert!(world.run(&["state", "t"]).out.contains("for a signal: go"));
    // Who pauses again waits for the same.
    assert_eq!(world.run(&["pause", "t"]).code, 0);
    assert_eq!(world.run(&["signal", "t", "go", "7"]).code, 0);
    assert_eq!(world.run(&["resume", "t", "--json"]).document(0)["status"], "paused");
    let ended = world.run(&["unpause", "t", "--json"]);
    let ended = ended.document(0);
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!([7])));
}

const HELD: &str = "
document: { dsl: '1.0.3', namespace: t, name: held, version: '1.0.0', metadata: { foldback: { on_failure: hold } } }
do:
  - block:
      try:
        - book:
            run: { shell: { command: 'echo booked >> trip.txt' } }
            metadata: { foldback: { undo: [ { unbook: { run: { shell: { command: 'test -e ok && echo unbooked >> trip.txt' } } } } ] } }
        - boom: { run: { shell: { command: 'exit 1' } } }
      catch: { do: [ { sorry: { run: { shell: { command: 'echo sorry >> trip.txt' } } } } ] }
      metadata: { foldback: { compensate: true } }
";

#[test]
fn a_block_that_could_not_be_taken_back_is_so_by_a_retry() {
    let world = World::empty();
    std::fs::write(world.dir.path().join("held.yaml"), HELD).expect("a definition");
    assert_eq!(world.run(&["run", "held.yaml", "--id", "h"]).code, 1);
    assert_eq!(world.run(&["retry", "h"]).code, 1);
    std::fs::write(world.dir.path().join("ok"), "").expect("a mended world");
    let ended = world.run(&["retry", "h", "--json"]);
    assert_eq!(ended.document(0)["status"], "completed", "{}", ended.err);
    let book = std::fs::read_to_string(world.dir.path().join("trip.txt")).expect("what was done");
    assert_eq!(book, "booked\nunbooked\nsorry\n");
    assert_eq!(world.run(&["verify", "h"]).code, 0);
}

#[test]
fn what_an_unpause_asks_for_is_begun_once_and_not_taken_for_lost() {
    let world = World::empty();
    let flow = "
document: { dsl: '1.0.3', namespace: t, name: p, version: '1.0.0' }
do:
  - ask: { listen: { to: { one: { with: { type: go } } } } }
  - next: { run: { shell: { command: 'echo next >> trip.txt' } } }
";
    std::fs::write(world.dir.path().join("p.yaml"), flow).expect("a definition");
    for command in [&["run", "p.yaml", "--id", "p"][..], &["pause", "p"], &["signal", "p", "go", "1"]] {
        assert_eq!(world.run(command).code, 0, "{command:?}");
    }
    let ended = world.run(&["unpause", "p", "--json"]);
    assert_eq!(ended.document(0)["status"], "completed", "{}", ended.err);
    let book = std::fs::read_to_string(world.dir.path().join("trip.txt")).expect("what was done");
    assert_eq!(book, "next\n");
}

#[test]
fn what_is_named_by_its_end_stays_or_is_the_first_to_be_taken_back() {
    let world = World::empty();
    let step = |name: &str| {
        format!(
            "  - {name}: {{ run: {{ shell: {{ command: 'true' }} }}, metadata: {{ foldback: {{ undo: \
             [ {{ back: {{ run: {{ shell: {{ command: 'echo {name} >> trip.txt' }} }} }} }} ] }} }} }}\n"
        )
    };
    let head = "document: { dsl: '1.0.3', namespace: t, name: e, version: '1.0.0' }\ndo:\n";
    let flow = format!("{head}{}{}{}", step("a"), step("b"), step("c"));
    std::fs::write(world.dir.path().join("e.yaml"), flow).expect("a definition");
    assert_eq!(world.run(&["run", "e.yaml", "--id", "e"]).code, 0);
    let walk = ["compensate", "e", "--from", "b:end", "--down-to", "a:end"];
    assert_eq!(world.run(&walk).code, 0);
    let book = std::fs::read_to_string(world.dir.path().join("trip.txt")).expect("what was undone");
    assert_eq!(book, "b\n");
}

#[test]
fn an_answer_that_comes_late_finds_that_the_time_has_run_out() {
    let world = World::empty();
    let flow = "
document: { dsl: '1.0.3', namespace: t, name: l, version: '1.0.0' }
do:
  - ask:
      listen: { to: { one: { with: { type: go } } } }
      timeout: { after: { milliseconds: 100 } }
      metadata: { foldback: { default: 'nobody' } }
  - rest: { listen: { to: { one: { with: { type: end } } } }, output: { as: '${ $steps.ask }' } }
";
    std::fs::write(world.dir.path().join("l.yaml"), flow).expect("a definition");
    let flow = flow.replace("milliseconds: 100", "hours: 1");
    std::fs::write(world.dir.path().join("early.yaml"), flow).expect("a definition");
    for (file, id, answer) in [("l.yaml", "late", json!(["nobody"])), ("early.yaml", "early", json!([1]))] {
        assert_eq!(world.run(&["run", file, "--id", id]).code, 0);
        std::thread::sleep(std::time::Duration::from_millis(150));
        assert_eq!(world.run(&["signal", id, "go", "1"]).code, 0);
        let ended = world.run(&["signal", id, "end", "1", "--json"]);
        assert_eq!(ended.document(0)["output"], answer, "{}", ended.err);
    }
}

#[test]
fn a_retry_does_again_what_an_event_stood_for() {
    let world = World::empty();
    let flow = "
document:
  dsl: '1.0.3'
  namespace: t
  name: e
  version: '1.0.0'
  metadata: { foldback: { recovery: retry, on_compensate: { MADE: [ { unmake: { run: { shell: { command: 'echo unmade >> trip.txt' } } } } ] } } }
do:
  - made: { emit: { event: { with: { type: MADE, source: 'https://x.test', data: { n: 1 } } } } }
  - check: { run: { shell: { command: 'test -e ok' } } }
";
    std::fs::write(world.dir.path().join("e.yaml"), flow).expect("a definition");
    assert_eq!(world.run(&["run", "e.yaml", "--id", "e"]).code, 1);
    std::fs::write(world.dir.path().join("ok"), "").expect("a mended world");
    assert_eq!(world.run(&["retry", "e"]).code, 0);
    let shown = world.run(&["show", "e", "--json"]).document(0);
    let standings: Vec<_> = shown["effects"].as_array().expect("effects").iter().collect();
    let of_event = standings.iter().filter(|effect| effect["key"] == "made!event");
    let of_event: Vec<_> = of_event.map(|effect| effect["standing"].clone()).collect();
    assert_eq!(of_event, [json!("undone"), json!("armed")]);
    assert_eq!(world.run(&["compensate", "e"]).code, 0);
    let book = std::fs::read_to_string(world.dir.path().join("trip.txt")).expect("what was undone");
    assert_eq!(book, "unmade\nunmade\n");
}

#[test]
fn who_erases_from_what_goes_on_is_told_what_that_costs() {
    let world = World::empty();
    let flow = TRIP.replace("recovery: retry,", "recovery: retry, erasable: true,");
    let flow = flow.replace("echo booked >> trip.txt", "echo booked | tee -a trip.txt");
    std::fs::write(world.dir.path().join("trip.yaml"), flow).expect("a definition");
    assert_eq!(world.run(&["run", "trip.yaml", "--id", "t"]).code, 0);
    let erased = world.run(&["erase", "t", "book:output", "--dry-run"]);
    assert_eq!(erased.code, 0, "{}", erased.err);
    assert!(erased.err.contains("`t` is waiting: where it needs"), "{}", erased.err);
    assert!(erased.err.contains("hint: `foldback cancel t` before"), "{}", erased.err);
    assert_eq!(world.run(&["cancel", "t"]).code, 0);
    let erased = world.run(&["erase", "t", "book:output", "--reason", "asked for"]);
    assert!(erased.code == 0 && !erased.err.contains("hint"), "{}", erased.err);
}

#[test]
fn who_is_stuck_is_told_why_and_what_goes_on_not_what_it_gave() {
    let world = World::empty();
    let flow = TRIP.replace("echo unbooked", "test -e ok && echo unbooked");
    std::fs::write(world.dir.path().join("trip.yaml"), flow).expect("a definition");
    assert_eq!(world.run(&["run", "trip.yaml", "--id", "t"]).code, 0);
    assert_eq!(world.run(&["signal", "t", "go", "7"]).code, 0);
    for command in [&["compensate", "t"][..], &["resume", "t"]] {
        let stuck = world.run(command);
        assert_eq!((stuck.code, &*stuck.out), (1, ""), "{command:?}: {}", stuck.err);
        assert!(stuck.err.contains("error: book could not be taken back: 500"), "{}", stuck.err);
        assert!(stuck.err.contains("compensate t` goes on there"), "{}", stuck.err);
    }
    std::fs::write(world.dir.path().join("ok"), "").expect("a mended world");
    let ended = world.run(&["compensate", "t"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(!ended.err.contains("error:"), "{}", ended.err);
}

#[test]
fn who_takes_a_failed_run_back_is_told_that_it_was_and_not_of_its_failure_again() {
    let world = World::empty();
    let flow = TRIP.replace("recovery: retry,", "recovery: retry, on_failure: hold,");
    let flow = flow
        .replace("listen: { to: { one: { with: { type: go } } } }", "run: { shell: { command: 'exit 1' } }");
    std::fs::write(world.dir.path().join("trip.yaml"), flow).expect("a definition");
    let failed = world.run(&["run", "trip.yaml", "--id", "t"]);
    assert!(failed.code == 1 && failed.err.contains("error: 500"), "{}", failed.err);
    let ended = world.run(&["compensate", "t"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("t was taken back") && !ended.err.contains("error:"), "{}", ended.err);
}

#[test]
fn after_a_crash_in_a_compensation_each_command_says_what_it_waits_for() {
    let world = World::empty();
    // The first undo kills the engine in the middle; nobody knows whether it happened.
    let unbook = "[ -e killed ] || { touch killed; kill -9 $PPID; sleep 5; }; echo unbooked >> trip.txt";
    let flow = TRIP.replace("echo unbooked >> trip.txt", unbook).replace("recovery: retry, ", "");
    let flow = flow
        .replace("listen: { to: { one: { with: { type: go } } } }", "run: { shell: { command: 'exit 1' } }");
    std::fs::write(world.dir.path().join("trip.yaml"), flow).expect("a definition");
    world.command(&["run", "trip.yaml", "--id", "t"]).output().expect("it is killed");
    for command in [&["compensate", "t"][..], &["resume", "t"], &["resume", "t"]] {
        let ran = world.run(command);
        assert_eq!(ran.code, 1, "{command:?}: {}", ran.err);
        assert!(ran.err.contains("waits for the outcome of book!undo/unbook"), "{command:?}: {}", ran.err);
        assert!(ran.err.contains("resolve t 'book!undo/unbook' landed"), "{command:?}: {}", ran.err);
        assert!(!ran.err.contains("error: 500"), "{command:?}: the old failure is no news: {}", ran.err);
        assert!(!ran.err.contains("retry t"), "{command:?}: {}", ran.err);
    }
    let ended = world.run(&["resolve", "t", "book!undo/unbook", "didnt"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let book = std::fs::read_to_string(world.dir.path().join("trip.txt")).expect("what was done");
    assert_eq!(book, "booked\nunbooked\n");
}
