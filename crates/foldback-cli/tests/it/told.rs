//! What a person is told of a run who has read the pages only: rows of the tree, single steps, and what a command
//! that was said a little wrong answers. By the real binary; no network.

use std::time::Duration;

use crate::world::World;
use serde_json::{Value, json};

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("written");
}

/// A store with a workflow `w` of these tasks, run until it rests.
fn ran(tasks: &str, input: &str, code: i32) -> World {
    let world = World::empty();
    let head = "document: { dsl: '1.0.3', namespace: test, name: order, version: '1.0.0' }\ndo:\n";
    put(&world, "d.yaml", &format!("{head}{tasks}"));
    let ran = world.run(&["run", "d.yaml", "--id", "w", "--input", input]);
    assert_eq!(ran.code, code, "{ran:?}");
    world
}

/// The node of a key, wherever it stands in a tree.
fn node<'a>(nodes: &'a Value, key: &str) -> Option<&'a Value> {
    nodes.as_array()?.iter().find_map(|found| match found["key"] == key {
        true => Some(found),
        false => node(&found["children"], key),
    })
}

fn tree(world: &World, id: &str) -> Value {
    world.run(&["show", id, "--json"]).document(0)["tree"].clone()
}

/// Fails twice, then does not.
const POLL: &str = "- poll:
    try: [ get: { run: { shell: { command: 'echo x >> tries; [ $(wc -l < tries) -ge 3 ]' } }, metadata: { foldback: { effect: read } } } ]
    catch: { retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 5 } } } }
";

#[test]
fn a_try_that_failed_is_marked_so_and_its_decision_is_over() {
    let world = ran(POLL, "{}", 0);
    let nodes = tree(&world, "w");
    let status = |key: &str| node(&nodes, key).expect(key)["status"].clone();
    assert_eq!(
        (status("poll"), status("poll!2"), status("poll!3")),
        (json!("completed"), json!("failed"), json!("completed"))
    );
    let shown = world.run(&["show", "w"]).out;
    assert!(shown.contains("✗ try 2") && shown.contains("✓ try 3"), "{shown}");
    let decision = world.run(&["show", "w", "poll!catch"]).out;
    assert!(decision.contains("completed") && !decision.contains("running"), "{decision}");
    assert!(decision.contains("decided  retry  out of caught, uncaught, retry"), "{decision}");
}

#[test]
fn an_iteration_has_an_input_an_item_and_both_versions() {
    let tasks = "- prices:
    for: { each: item, in: '${ [3, 4] }' }
    do: [ get: { run: { shell: { command: 'echo $N', environment: { N: '${ $item }' } } }, metadata: { foldback: { effect: read } } } ]
";
    let world = ran(tasks, r#"{"sum": 1}"#, 0);
    for (key, item, input) in [("prices[0]", 3, json!({"sum": 1})), ("prices[1]", 4, json!("3"))] {
        let told = world.run(&["show", "w", key, "--json"]).document(0);
        assert_eq!(
            (&told["item"], &told["input"], &told["status"]),
            (&json!(item), &input, &json!("completed")),
            "{key}"
        );
        let at = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{key} has no {name}: {told}"));
        assert!(at("asked_version") < at("ended_version"), "{told}");
        let first = world.run(&["show", "w", &format!("{key}/get"), "--json"]).document(0);
        assert_eq!(told["asked_version"], first["asked_version"]);
    }
    let told = world.run(&["show", "w", "prices[1]"]).out;
    assert!(told.contains("item     4") && told.contains("input    \"3\""), "{told}");
}

#[test]
fn a_wait_that_is_begun_anew_is_measured_from_then() {
    let tasks = "- both:
    fork:
      branches:
        - nap: { wait: { milliseconds: 300 } }
        - work: { run: { shell: { command: 'cat mended' } }, metadata: { foldback: { effect: read } } }
";
    let world = ran(tasks, "{}", 1);
    std::thread::sleep(Duration::from_millis(1_200));
    put(&world, "mended", "well");
    assert_eq!(world.run(&["retry", "w"]).code, 0);
    let nodes = tree(&world, "w");
    let took = node(&nodes, "both/nap").expect("the wait")["duration_ms"].as_u64().expect("it is over");
    assert!((300..1_200).contains(&took), "it took {took} ms: {nodes}");
}

#[test]
fn a_step_that_ran_out_of_time_is_not_a_process_that_died() {
    let tasks = "- slow: { run: { shell: { command: 'sleep 9' } }, timeout: { after: { milliseconds: 200 } }, metadata: { foldback: { effect: read } } }\n";
    let world = ran(tasks, "{}", 1);
    for words in [&["show", "w"][..], &["state", "w"]] {
        let told = world.run(words).out;
        assert!(told.contains("1 attempt used that did not report: cut off"), "{words:?}: {told}");
        assert!(!told.contains("whose process died"), "{told}");
    }
}

#[test]
fn a_retry_of_the_step_that_failed_has_a_plan_and_touches_nothing() {
    let tasks = "- one: { run: { shell: { command: 'echo 1' } } }\n- two: { run: { shell: { command: 'cat mended' } } }\n- three: { set: { n: 3 } }\n";
    let world = ran(tasks, "{}", 1);
    let before = world.run(&["events", "w", "--json"]).out;
    let plan = world.run(&["retry", "w", "--dry-run", "--json"]).document(0)["plan"].clone();
    assert_eq!((&plan["kept"], &plan["rerun"]), (&json!(["one"]), &json!(["two"])), "{plan}");
    assert_eq!(plan["writes"], json!([{"key": "two", "action": "live", "when": "always"}]));
    let told = world.run(&["retry", "w", "--dry-run"]);
    assert!(told.code == 0 && told.out.contains("kept         1  one"), "{told:?}");
    assert!(told.out.contains("two  PERFORMED"), "{told:?}");
    assert_eq!(world.run(&["events", "w", "--json"]).out, before, "nothing was written");
}

#[test]
fn a_fork_began_when_it_was_forked_wherever_one_looks() {
    let world = ran("- one: { run: { shell: { command: 'echo 1' } } }\n", "{}", 0);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(world.run(&["fork", "w"]).code, 0);
    let listed = world.run(&["list", "--json"]).lines(0);
    let fork = listed.iter().find(|row| row["workflow_id"] == "w~1").expect("the fork");
    let shown = world.run(&["show", "w~1", "--json"]).document(0);
    assert_eq!((&shown["started_at"], &shown["spent"]["steps"]), (&fork["started_at"], &fork["steps"]));
    let told = world.run(&["show", "w~1"]).out;
    assert!(told.contains("0 steps of its own"), "{told}");
    let compared = world.run(&["diff", "w", "w~1"]).out;
    assert!(compared.contains("steps, with shared"), "{compared}");
}

const ASKS: &str =
    "- ask: { listen: { to: { one: { with: { type: approval } } } } }\n- total: { set: { total: 3 } }\n";

#[test]
fn a_signal_that_nothing_listens_for_is_kept_and_told() {
    let world = ran(ASKS, "{}", 0);
    let said = world.run(&["signal", "w", "aproval", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("listens only for `approval`; `aproval` is kept"), "{said:?}");
    assert!(said.err.contains("did you mean `approval`?"), "{said:?}");
    let answered = world.run(&["signal", "w", "approval", "1"]);
    assert!(answered.code == 0 && !answered.err.contains("note:"), "{answered:?}");
}

#[test]
fn a_failure_that_answers_a_wait_is_told_as_one() {
    let world = ran(ASKS, "{}", 0);
    let said = world.run(&["signal", "w", "approval", "--error", "no way"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("▸ approval  a failure: 500") && said.err.contains("answered by a failure"),
        "{said:?}"
    );
    assert!(!said.err.contains("✓ ask"), "{said:?}");
}

#[test]
fn the_output_of_what_is_no_step_cannot_be_edited_and_what_to_do_is_said() {
    let world = ran(ASKS, "{}", 0);
    assert_eq!(world.run(&["signal", "w", "approval", "1"]).code, 0);
    for (edit, what, way) in [
        ("total:output.total=3", "`total` is a `set`", "`foldback fork w --definition FILE`"),
        ("ask:output=[2]", "`ask` is a `listen`", "`foldback fork w --at ask`"),
        ("nothing:output=2", "no step `nothing`", "`foldback steps w`"),
    ] {
        let refused = world.run(&["fork", "w", "--edit", edit]);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.err.contains(what) && refused.err.contains(way), "{edit}: {refused:?}");
    }
    assert_eq!(world.run(&["fork", "w", "--at", "ask"]).code, 0, "the command that was named");
}

#[test]
fn what_was_pruned_is_told_as_such() {
    let world = ran("- one: { set: { n: 1 } }\n", "{}", 0);
    let nothing = world.run(&["prune"]);
    assert!(nothing.code == 2 && nothing.err.contains("--ended-before"), "{nothing:?}");
    let planned = world.run(&["prune", "w", "--dry-run", "--json"]).document(0);
    let listed = world.run(&["list", "--json"]).document(0);
    assert_eq!(planned["pruned"][0]["ended_at"], listed["ended_at"], "one form of time");
    assert_eq!(world.run(&["prune", "w"]).code, 0);
    for words in [&["show", "w"][..], &["state", "w"], &["events", "w"], &["prune", "w"]] {
        let told = world.run(words);
        assert!(told.code == 2 && told.err.contains("`w` was pruned at 20"), "{words:?}: {told:?}");
        assert!(!told.err.contains("did you mean"), "{told:?}");
    }
}

#[test]
fn an_id_that_a_command_line_takes_for_an_option_is_refused() {
    let world = ran("- one: { set: { n: 1 } }\n", "{}", 0);
    for (id, why) in [("-x", "begins with `-`"), ("", "is empty"), ("a~b", "`~`"), (" a", "white space")] {
        let refused = world.run(&["run", "d.yaml", &format!("--id={id}")]);
        assert!(refused.code == 2 && refused.err.contains(why), "{id:?}: {refused:?}");
        assert!(refused.err.contains("a text of 1 to 200 bytes"), "{id:?}: {refused:?}");
    }
    for id in ["../x/y", "a@3", "a b"] {
        assert_eq!(world.run(&["run", "d.yaml", "--id", id]).code, 0, "{id}");
        assert_eq!(world.run(&["show", id]).code, 0, "{id}");
    }
}

#[test]
fn a_store_that_cannot_be_looked_at_is_not_one_that_is_missing() {
    let world = ran("- one: { set: { n: 1 } }\n", "{}", 0);
    let told = world.run(&["--store", "sqlite:d.yaml/foldback.db", "list"]);
    assert!(told.code == 2 && told.err.contains("cannot open d.yaml/foldback.db"), "{told:?}");
    assert!(!told.err.contains("does not exist"), "{told:?}");
    let told = world.run(&["--store", "sqlite:none.db", "list"]);
    assert!(told.err.contains("none.db does not exist"), "{told:?}");
}

#[test]
fn a_long_value_of_one_step_is_cut_and_says_how_to_see_all() {
    let world = ran("- long: { set: { text: '${ [range(9000)] | map(\"x\") | join(\"\") }' } }\n", "{}", 0);
    let told = world.run(&["show", "w", "long"]);
    assert!(told.out.contains("more characters; --full prints all"), "{told:?}");
    assert!(told.out.len() < 6_000, "{} bytes", told.out.len());
    assert!(world.run(&["show", "w", "long", "--full"]).out.len() > 9_000);
}

#[test]
fn a_budget_is_raised_by_a_number_in_the_place_of_n() {
    let world = ran(ASKS, "{}", 0);
    let told = world.run(&["unpause", "w", "--budget", "tokens=N"]);
    assert!(
        told.code == 2 && told.err.contains("the new limit") && told.err.contains("tokens=2000"),
        "{told:?}"
    );
}

#[test]
fn a_definition_is_found_by_its_name_alone() {
    let world = ran("- one: { set: { n: 1 } }\n", "{}", 0);
    for wanted in ["order", "order 1.0.0"] {
        assert_eq!(world.run(&["list", "--definition", wanted, "--json"]).lines(0).len(), 1, "{wanted}");
    }
    assert_eq!(world.run(&["list", "--definition", "orde", "--json"]).out, "");
}
