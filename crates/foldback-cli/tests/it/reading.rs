//! The commands that read, run on stores that were filled by rehearsing: shapes, exit codes, and
//! what a person sees.

use crate::world::{World, branch, tamper};
use serde_json::{Value, json};

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().expect("an object").keys().map(String::as_str).collect()
}

fn has_all(value: &Value, wanted: &[&str]) {
    for field in wanted {
        assert!(value.get(field).is_some(), "{field} is missing in {:?}", fields(value));
    }
}

#[test]
fn steps_have_the_shape_that_scripts_rely_on() {
    let world = World::filled();
    let steps = world.run(&["steps", "done", "--json"]).lines(0);
    let told: Vec<(&str, &str, &str, &str)> = steps
        .iter()
        .map(|s| {
            let text = |field: &str| s[field].as_str().expect(field);
            (text("key"), text("kind"), text("effect"), text("status"))
        })
        .collect();
    assert_eq!(
        told,
        [
            ("plan", "set", "pure", "completed"),
            ("refine[0]/draft", "llm", "read", "completed"),
            ("publish", "http", "write", "completed"),
        ]
    );
    for step in &steps {
        has_all(
            step,
            &[
                "key",
                "kind",
                "effect",
                "status",
                "attempts",
                "input",
                "output",
                "error",
                "asked_version",
                "started_version",
                "ended_version",
                "duration_ms",
                "tokens",
                "micro_usd",
            ],
        );
    }
    let draft = &steps[1];
    assert_eq!(draft["tokens"], json!({"input": 120, "output": 30}));
    assert_eq!(draft["micro_usd"], 4_200);
    assert_eq!(draft["output"], json!({"text": "a draft"}));
    let prompt = draft["input"]["prompt"].as_str().expect("the whole prompt, inlined from beside the log");
    assert_eq!(prompt.len(), 80 * "a prompt of some length; ".len());
    let failed = world.run(&["steps", "failed", "--json"]).lines(0);
    assert_eq!(failed[2]["status"], "failed");
    assert_eq!(failed[2]["error"]["status"], 500);
    assert_eq!(failed[2]["error"]["key"], "publish");
}

#[test]
fn decisions_and_events_have_the_shape_that_scripts_rely_on() {
    let world = World::filled();
    let decisions = world.run(&["decisions", "done", "--json"]).lines(0);
    assert_eq!(
        decisions,
        [json!({
            "version": 6,
            "key": "refine[0]/decide",
            "chosen": "publish",
            "options": ["publish", "revise"],
            "because": {".verdict": "good"},
        })]
    );
    let events = world.run(&["--json", "events", "done"]).lines(0);
    assert_eq!(events.len(), 11);
    for (at, event) in events.iter().enumerate() {
        has_all(event, &["position", "id", "workflow_id", "version", "type", "payload", "timestamp", "hash"]);
        assert_eq!(event["version"], at as u64 + 1);
        assert_eq!(event["hash"].as_str().map(str::len), Some(64));
        let time = event["timestamp"].as_str().expect("a time");
        assert!(time.len() == 27 && time.starts_with("2023-11-14T") && time.ends_with('Z'), "{time}");
    }
    assert_eq!(events[0]["payload"]["input"], json!({"topic": "rust"}));
    assert!(
        events[3]["payload"]["request"]["prompt"].as_str().is_some_and(|p| p.len() > 1_024),
        "values are inlined"
    );
    assert_eq!(world.run(&["events", "done", "--to", "3", "--json"]).lines(0).len(), 3);
    assert_eq!(world.run(&["events", "done", "--to", "-2", "--json"]).lines(0).len(), 10);
}

#[test]
fn the_state_is_what_it_was_at_any_version() {
    let world = World::filled();
    let at = |words: &[&str]| world.run(&[&["state", "--json"], words].concat()).document(0);
    let end = at(&["done"]);
    has_all(
        &end,
        &[
            "workflow_id",
            "version",
            "status",
            "input",
            "context",
            "output",
            "pending",
            "waits",
            "undos",
            "spent",
        ],
    );
    assert_eq!((&end["status"], &end["output"]), (&json!("completed"), &json!({"page": 7})));
    assert_eq!(end["spent"]["micro_usd"], 4_200);
    let table = [
        ("1", 1),
        ("-1", 11),
        ("plan:end", 2),
        ("refine[0]/draft", 3),
        ("refine[0]/draft:end", 5),
        ("refine", 2),
        ("publish", 8),
        ("2023-11-14T22:13:20.001000Z", 4),
        ("2100-01-01", 11),
    ];
    for (text, version) in table {
        assert_eq!(at(&["done", "--at", text])["version"], version, "--at {text}");
    }
    let failure = at(&["failed", "--at", "failure"]);
    assert_eq!((&failure["version"], &failure["status"]), (&json!(8), &json!("running")));
    assert_eq!(failure["context"], json!({"topic": "rust"}));
    let asked = at(&["failed", "--at", "9"]);
    assert_eq!(asked["pending"][0]["key"], "publish");
    let unknown = at(&["unknown"]);
    assert_eq!((&unknown["status"], &unknown["waits"][0]["key"]), (&json!("unknown"), &json!("publish")));
}

#[test]
fn list_and_show_have_their_shapes() {
    let world = World::filled();
    let rows = world.run(&["list", "--json"]).lines(0);
    assert_eq!(rows.len(), 3);
    for row in &rows {
        has_all(row, &["workflow_id", "definition", "status", "version", "started_at"]);
    }
    let count = |words: &[&str]| world.run(&[&["list", "--json"], words].concat()).lines(0).len();
    assert_eq!(count(&["--status", "failed"]), 1);
    assert_eq!(count(&["--status", "parked"]), 0);
    assert_eq!(count(&["--definition", "rehearsal", "--limit", "2"]), 2);
    assert_eq!(count(&["--limit", "0"]), 3);
    let shown = world.run(&["show", "failed", "--json"]).document(0);
    has_all(
        &shown,
        &["workflow_id", "definition", "status", "version", "duration_ms", "spent", "error", "tree"],
    );
    assert_eq!(shown["error"]["key"], "publish");
    assert_eq!(shown["tree"][1]["children"][0]["children"][0]["key"], "refine[0]/draft");
    assert_eq!(world.run(&["show", "failed", "--at", "5", "--json"]).document(0)["status"], "running");
}

#[test]
fn a_person_reads_what_happened_and_what_to_do_next() {
    let world = World::filled();
    let shown = world.run(&["show", "failed"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    let wanted = [
        "failed  rehearsal  failed",
        "✓ plan",
        "✓ refine",
        "└─ ✓ [0]",
        "├─ ✓ draft",
        "└─ ◆ decide",
        "chose publish over revise  because .verdict = \"good\"",
        "120+30 tokens",
        "$0.0042",
        "✗ publish",
        "✗ 500 Internal Server Error at publish  communication",
        "  the server said no",
        "  and nothing more",
        "foldback state failed --at failure",
    ];
    for text in wanted {
        assert!(shown.out.contains(text), "{text:?} is missing in\n{}", shown.out);
    }
    let unknown = world.run(&["show", "unknown"]).out;
    assert!(unknown.contains("foldback resolve unknown publish landed 'JSON'"), "{unknown}");
    let decisions = world.run(&["decisions", "done"]).out;
    assert!(
        decisions
            .contains("refine[0]/decide  chose publish  out of publish, revise  because .verdict = \"good\""),
        "{decisions}"
    );
    let replay = world.run(&["replay", "done"]).out;
    assert!(replay.contains("+ refine[0]/draft: llm running"), "{replay}");
    assert!(replay.contains("= completed with {\"page\":7}"), "{replay}");
    let replayed = world.run(&["replay", "done", "--to", "2", "--json"]).lines(0);
    assert_eq!(replayed.len(), 2);
    assert!(replayed[1]["changes"].as_array().is_some_and(|changes| !changes.is_empty()));
}

#[test]
fn nothing_that_a_log_holds_reaches_a_terminal_as_a_command() {
    let world = World::filled();
    for id in ["failed", "done"] {
        for words in [
            &["show"][..],
            &["events"],
            &["steps"],
            &["state"],
            &["decisions"],
            &["replay"],
            &["steps", "--json"],
        ] {
            let ran = world.run(&[words, &[id]].concat());
            let is_obeyed = |c: char| c.is_control() && c != '\n';
            assert!(!ran.out.chars().any(is_obeyed), "{words:?} {id}: {:?}", ran.out);
            assert!(!ran.err.chars().any(is_obeyed), "{words:?} {id}: {:?}", ran.err);
        }
    }
}

#[test]
fn an_audit_finds_what_was_changed_behind_its_back() {
    let world = World::filled();
    let whole = world.run(&["audit", "--json"]).document(0);
    assert_eq!(whole, json!({"workflows": 3, "events": 32, "erased": 0, "not_checkable": 0, "problems": []}));
    assert_eq!(world.run(&["audit", "done", "--json"]).document(0)["workflows"], 1);

    tamper(&world.path(), "DROP TRIGGER payloads_are_never_deleted; DELETE FROM payloads;");
    let missing = world.run(&["audit", "--json"]).document(1);
    assert!(missing["problems"].to_string().contains("is missing"), "{missing}");
    let steps = world.run(&["steps", "done", "--json"]);
    assert_eq!(steps.lines(0)[1]["input"]["prompt"], Value::Null);
    assert!(steps.err.contains("missing or damaged"), "{}", steps.err);

    let world = World::filled();
    tamper(
        &world.path(),
        "DROP TRIGGER log_is_never_updated;
         UPDATE log SET payload = replace(payload, 'a draft', 'no draft') WHERE version = 5;",
    );
    let changed = world.run(&["audit", "--json"]).document(1);
    let problems = changed["problems"].as_array().expect("a list");
    for id in ["done", "failed", "unknown"] {
        assert!(problems.iter().any(|p| p["workflow_id"] == id && p["version"] == 5), "{changed}");
    }
    let told = world.run(&["audit", "done"]);
    assert_eq!(told.code, 1);
    assert!(told.out.contains("✗ done@5"), "{}", told.out);
}

/// No hash covers a workflow's row: an audit compares it with the log.
#[test]
fn an_audit_finds_a_row_that_says_something_else_than_its_log() {
    let world = World::filled();
    branch(&*world.store(), "done~1", ("done", 3));
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]), "a fork is in order");
    for (sql, words) in [
        ("UPDATE workflows SET status = 'running'", "its row says `running`, its log says `completed`"),
        ("UPDATE workflows SET name = 'other'", "its row names another definition's name"),
        ("UPDATE workflows SET definition = zeroblob(32)", "its row names another definition than"),
        ("UPDATE workflows SET definition = NULL", "its row names another definition than"),
        ("UPDATE workflows SET input_hash = zeroblob(32)", "its row names another input"),
        ("UPDATE workflows SET input_hash = NULL", "its row names another input"),
        ("UPDATE workflows SET started_at = started_at + 1", "its row names another beginning"),
        (
            "INSERT INTO wakeups (workflow, at) VALUES (1, 1700000000000000)",
            "its row says that it wakes 2023-",
        ),
        (
            "INSERT INTO listeners (name, workflow) VALUES ('word', 1)",
            "by its row it listens for word, by its log for nothing",
        ),
        (
            "UPDATE workflows SET cut_hash = zeroblob(32) WHERE id = 'done~1'",
            "its row says that it left `done` here with another hash",
        ),
        ("UPDATE workflows SET cut_hash = zeroblob(32) WHERE id = 'done~1'", "its row names another parent"),
        (
            "UPDATE workflows SET name = 'other' WHERE id = 'done~1'",
            "its row names another definition's name",
        ),
        ("UPDATE workflows SET started_at = 7 WHERE id = 'done~1'", "its row names another beginning"),
        ("UPDATE workflows SET status = 'failed' WHERE id = 'done~1'", "its row says `failed`"),
    ] {
        let copy = World::empty();
        // One file: nothing is left in a write-ahead log when the last connection has closed.
        std::fs::copy(world.path(), copy.path()).expect("a copy");
        let is_whole = sql.contains("WHERE") || !sql.starts_with("UPDATE");
        let one = if is_whole { "" } else { " WHERE id = 'done'" };
        tamper(&copy.path(), &format!("{sql}{one}"));
        let told = copy.run(&["audit", "--json"]).document(1);
        let problems: Vec<_> = told["problems"].as_array().expect("a list").iter().collect();
        let id = if sql.contains("done~1") { "done~1" } else { "done" };
        assert!(problems.iter().all(|problem| problem["workflow_id"] == id), "{sql}: {told}");
        let is_told =
            |problem: &&&Value| problem["problem"].as_str().is_some_and(|told| told.contains(words));
        assert!(problems.iter().any(|problem| is_told(&problem)), "{sql}: {told}");
        assert!(copy.run(&["audit", "failed", "unknown"]).code == 0, "{sql}: the others are in order");
    }
    // Whoever took it up with another build may have quarantined what this one can read.
    tamper(&world.path(), "UPDATE workflows SET status = 'quarantined'");
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
}
