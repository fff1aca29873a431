//! `verify`, by the real binary on real runs: what agrees, where it parts, and what cannot be verified.

use crate::world::{World, tamper};
use serde_json::{Value, json};

const TRIAGE: &str = "
document: { dsl: '1.0.3', namespace: test, name: triage, version: '1.0.0' }
do:
- find:
    run: { shell: { command: 'printf %s \"$WORD\"', environment: { WORD: '${ .word }' } } }
    metadata: { foldback: { effect: read } }
- route:
    switch:
    - long: { when: '(. | length) > 4', then: people }
    - short: { then: robots }
- people: { set: { queue: people }, then: end }
- robots: { set: { queue: robots } }
";

fn ran(source: &str, word: &str) -> World {
    let world = World::empty();
    put(&world, "triage.yaml", source);
    let input = json!({ "word": word }).to_string();
    world.run(&["run", "triage.yaml", "--id", "t", "--input", &input, "--json"]).lines(0);
    world
}

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("it is written");
}

#[test]
fn where_a_changed_definition_parts_as_a_table() {
    let world = ran(TRIAGE, "lamps");
    assert_eq!(
        world.run(&["verify", "t", "--json"]).lines(0),
        [json!({"workflow_id": "t", "matched": true, "recorded": 4, "divergence": null})]
    );
    for (from, to, parting) in [
        // What no fact tells is no difference: a name of a case that was not taken, a timeout, a
        // condition in other words, a task that was not reached.
        ("short:", "brief:", Value::Null),
        ("then: end }", "then: end, timeout: { after: PT5S } }", Value::Null),
        ("(. | length) > 4", "4 < length", Value::Null),
        ("set: { queue: robots }", "set: { queue: nobody }", Value::Null),
        (
            "printf %s",
            "echo",
            json!({"version": 2, "key": "find",
                "recorded": {"type": "StepAsked", "request": {"command": "printf %s \"$WORD\""}},
                "derived": {"type": "StepAsked", "request": {"command": "echo \"$WORD\""}}}),
        ),
        (
            "effect: read",
            "effect: write",
            json!({"version": 2, "key": "find",
                "recorded": {"type": "StepAsked", "effect": "read", "recovery": null},
                "derived": {"type": "StepAsked", "effect": "write", "recovery": "operator"}}),
        ),
        (
            "> 4",
            "> 9",
            json!({"version": 4, "key": "route",
                "recorded": {"type": "DecisionMade", "chosen": "long"}, "derived": {"type": "DecisionMade", "chosen": "short"}}),
        ),
        (
            "queue: people",
            "queue: staff",
            json!({"version": 5, "key": "people",
                "recorded": {"type": "TaskFinished", "output": {"queue": "people"}},
                "derived": {"type": "TaskFinished", "output": {"queue": "staff"}}}),
        ),
        // The log ends, and the program would go on.
        (
            "then: end }",
            "then: continue }",
            json!({"version": 6, "key": "robots",
                "recorded": {"type": "WorkflowCompleted", "output": {"queue": "people"}},
                "derived": {"type": "TaskFinished", "key": "robots", "kind": "set", "output": {"queue": "robots"}, "context": null}}),
        ),
        // Another task stands before it.
        (
            "- route:",
            "- nap: { wait: PT1H }\n- route:",
            json!({"version": 4, "key": "route",
                "recorded": {"type": "DecisionMade", "key": "route", "chosen": "long", "finishes": true},
                "derived": {"type": "TimerSet", "key": "nap", "delay_ms": 3_600_000, "finishes": true, "limits": false}}),
        ),
    ] {
        assert!(TRIAGE.contains(from), "{from}");
        put(&world, "new.yaml", &TRIAGE.replace(from, to));
        let told = world.run(&["verify", "t", "--definition", "new.yaml", "--json"]);
        let matched = parting.is_null();
        let document = told.document(if matched { 0 } else { 1 });
        assert_eq!(
            (&document["matched"], &document["divergence"]),
            (&json!(matched), &parting),
            "{from} → {to}"
        );
        assert_eq!(told.err.contains("hint: what runs keeps the definition"), !matched, "{told:?}");
    }
}

#[test]
fn without_a_name_all_are_verified_and_before_a_deploy_those_that_run() {
    // Who goes to the robots never ends: its process dies under it.
    let dies =
        TRIAGE.replace("{ set: { queue: robots } }", "{ run: { shell: { command: 'kill -9 $PPID' } } }");
    let world = World::empty();
    put(&world, "triage.yaml", &dies);
    for (id, word) in [("t", "lamp"), ("u", "lamps"), ("v", "sun")] {
        let input = json!({ "word": word }).to_string();
        let ran = world.run(&["run", "triage.yaml", "--id", id, "--input", &input, "--json"]);
        assert_eq!(ran.code == 0, id == "u", "{ran:?}");
    }
    let ids = |told: Vec<Value>| {
        let mut ids: Vec<_> =
            told.iter().map(|line| line["workflow_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(world.run(&["verify", "--json"]).lines(0)), ["t", "u", "v"]);
    put(&world, "new.yaml", &dies.replace("> 4", "> 3").replace("1.0.0", "1.1.0"));
    let told = world.run(&["verify", "--definition", "new.yaml", "--json"]).lines(1);
    assert_eq!(ids(told.clone()), ["t", "v"], "`u` has ended");
    let parted: Vec<_> =
        told.iter().filter(|line| line["matched"] == false).map(|l| &l["workflow_id"]).collect();
    assert_eq!(parted, ["t"]);
    put(&world, "other.yaml", &dies.replace("name: triage", "name: other"));
    let told = world.run(&["verify", "--definition", "other.yaml"]);
    assert!(told.code == 0 && told.err.contains("nothing to verify"), "{told:?}");
}

#[test]
fn what_cannot_be_verified_says_why() {
    let world = ran(&TRIAGE.replace("effect: read", "effect: read, erasable: true"), "lamps");
    put(&world, "broken.yaml", "do: 7");
    put(&world, "no.jsonl", "{}");
    for (words, code, said) in [
        (&["verify", "T"][..], 2, "did you mean `t`?"),
        (&["verify", "nowhere.jsonl"], 2, "no workflow `nowhere.jsonl`"),
        (&["verify", "no.jsonl"], 2, "hint: export the workflow anew"),
        (&["verify", "t", "--definition", "broken.yaml"], 2, "broken.yaml:1"),
        (&["verify", "t", "--definition", "none.yaml"], 2, "none.yaml"),
    ] {
        let told = world.run(words);
        assert!(
            told.code == code && told.err.contains(said) && told.err.contains("hint:"),
            "{words:?}: {told:?}"
        );
    }
    // The answer of `find` decided; without it nobody can say what it led to.
    assert_eq!(world.run(&["erase", "t", "find:output", "--reason", "asked"]).code, 0);
    let told = world.run(&["verify", "t"]);
    assert!(
        told.code == 1 && told.out.contains("cannot be verified") && told.out.contains("was erased"),
        "{told:?}"
    );

    let broken = ran(TRIAGE, "lamps");
    let sql = "DROP TRIGGER log_is_never_updated; UPDATE log SET payload = replace(payload, 'long', 'loud')";
    tamper(&broken.path(), sql);
    let told = broken.run(&["verify", "t"]);
    assert!(told.code == 1 && told.out.contains("its log is broken: version 4"), "{told:?}");
}

/// What happened before the cut happened to the parent: it is walked under the parent's name, whatever
/// a program makes of it.
#[test]
fn a_fork_is_verified_where_its_past_says_whose_it_is() {
    let source = "
document: { dsl: '1.0.3', namespace: test, name: triage, version: '1.0.0' }
do:
- mine: { set: { me: '${ $workflow.id }' } }
- told: { emit: { event: { with: { type: TOLD, source: 'https://x.test', data: '${ . }' } } } }
- first: { run: { shell: { command: 'echo 1' } }, metadata: { foldback: { effect: read } } }
- again: { set: { me: '${ $workflow.id }' } }
- second: { run: { shell: { command: 'echo 2' } }, metadata: { foldback: { effect: read } } }
";
    let world = ran(source, "");
    // The last is cut off before what its own parent did began.
    for (fork, cut) in [("t", "first"), ("t~1", "second"), ("t~1", "2")] {
        assert_eq!(world.run(&["fork", fork, "--at", cut]).code, 0);
    }
    for id in ["t", "t~1", "t~1~1", "t~1~2"] {
        let verified = world.run(&["verify", id]);
        assert_eq!(verified.code, 0, "{id}: {}{}", verified.out, verified.err);
    }
}

/// What an undo, or who looks for an outcome, is given may lie beside the log: it is brought to be compared.
#[test]
fn an_undo_whose_values_lie_beside_the_log_is_verified() {
    let source = "
document: { dsl: '1.0.3', namespace: test, name: triage, version: '1.0.0', metadata: { foldback: { erasable: true } } }
do:
- long: { set: { text: '${ [range(500)] | map(tostring) | join(\" \") }' } }
- book:
    run: { shell: { command: 'echo R-1' } }
    metadata:
      foldback:
        recovery: { reconcile: [ { look: { set: { landed: '${ $write.input.text | length }' } } } ] }
        undo: { with: { was: '${ .text }' }, do: [ { cancel: { run: { shell: { command: 'echo cancelled' } } } } ] }
";
    let world = ran(source, "");
    assert_eq!(world.run(&["compensate", "t"]).code, 0);
    let verified = world.run(&["verify", "t"]);
    assert_eq!(verified.code, 0, "{}{}", verified.out, verified.err);
}

/// A log that was written when expressions meant something else: `"\(10 / 2)"` was `5.0`.
#[test]
fn a_log_of_an_older_dialect_goes_on_and_says_what_is_not_compared() {
    let world = World::empty();
    let done = |words: &[&str]| {
        let ran = world.run(words);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    };
    put(&world, "old.jsonl", include_str!("../dialect-1.jsonl"));
    done(&["import", "old.jsonl"]);
    done(&["audit"]);
    let compared = done(&["verify", "page-1", "--json"]).document(0);
    assert_eq!(compared["matched"], true, "{compared}");
    assert_eq!(compared["divergence"], Value::Null, "{compared}");
    let not = &compared["not_compared"];
    assert_eq!(not["first"]["key"], "page", "{compared}");
    assert_eq!(not["first"]["recorded"]["output"], json!({"url": "/page/5.0"}), "{compared}");
    assert_eq!(not["first"]["derived"]["output"], json!({"url": "/page/5"}), "{compared}");
    assert!(not["reason"].as_str().is_some_and(|why| why.contains("dialect 1")), "{compared}");
    let said = done(&["verify", "page-1"]);
    assert!(said.out.contains("not compared: "), "{}", said.out);

    // What was computed is not computed again.
    done(&["signal", "page-1", "approved", r#"{"who": "ada"}"#]);
    let state = done(&["state", "page-1", "--json"]).document(0);
    assert_eq!(state["status"], "completed", "{state}");
    assert_eq!(state["output"], json!({"page": "/page/5.0", "by": "ada"}));
    done(&["audit"]);
    done(&["verify", "page-1"]);
    // What begins now says its dialect.
    put(
        &world,
        "new.yaml",
        "document: { dsl: '1.0.3', namespace: t, name: t, version: '1.0.0' }\ndo:\n- a: { set: { b: 1 } }\n",
    );
    done(&["run", "new.yaml", "--id", "new"]);
    let first = done(&["events", "new", "--json"]).lines(0).remove(0);
    assert_eq!(first["payload"]["dialect"], 2, "{first}");
}
