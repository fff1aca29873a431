//! `fork`, and `retry` that goes back, by the real binary: what is shared, taken, performed and held; what
//! the parent is afterwards; what is refused, and how.

use crate::world::World;
use serde_json::{Value, json};

/// Looks (`collect`, `render`) and writes (`publish`, `announce`); each leaves a line of what it did.
const PIPELINE: &str = r#"
document: { dsl: '1.0.3', namespace: test, name: report, version: '1.0.0' }
do:
- collect:
    run: { shell: { command: 'echo "collect $TOPIC" >> looked; echo "about $TOPIC"', environment: { TOPIC: '${ .topic }' } } }
    metadata: { foldback: { effect: read } }
- gate:
    switch:
    - go: { when: 'contains("about")', then: render }
    - stop: { then: end }
- render:
    run: { shell: { command: 'echo "render $TEXT" >> looked; echo "$STYLE: $TEXT"; [ ! -e breaks ]', environment: { STYLE: plain, TEXT: '${ . }' } } }
    metadata: { foldback: { effect: read } }
- publish:
    run: { shell: { command: 'echo "publish $TEXT $FOLDBACK_IDEMPOTENCY_KEY" >> written; echo 7', environment: { TEXT: '${ . }' } } }
- announce:
    run: { shell: { command: 'echo announce >> written; echo ok', environment: { } } }
"#;

fn read(world: &World, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(world.dir.path().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("it is written");
}

/// A workflow `p` that ran to its end; its effects are forgotten, so that only later ones count.
fn completed() -> World {
    let world = World::empty();
    put(&world, "report.yaml", PIPELINE);
    let ran = world.run(&["run", "report.yaml", "--id", "p", "--input", r#"{"topic": "lamps"}"#, "--json"]);
    assert_eq!(ran.document(0)["output"], "ok");
    assert_eq!((read(&world, "looked").len(), read(&world, "written").len()), (2, 2));
    put(&world, "looked", "");
    put(&world, "written", "");
    world
}

/// One that failed at `render`.
fn failed() -> World {
    let world = World::empty();
    put(&world, "report.yaml", PIPELINE);
    put(&world, "breaks", "");
    let ran = world.run(&["run", "report.yaml", "--id", "p", "--input", r#"{"topic": "lamps"}"#, "--json"]);
    assert_eq!(ran.document(1)["error"]["key"], "render");
    std::fs::remove_file(world.dir.path().join("breaks")).unwrap();
    put(&world, "looked", "");
    world
}

fn hashes(world: &World, id: &str) -> Vec<Value> {
    world.run(&["events", id, "--json"]).lines(0).into_iter().map(|event| event["hash"].clone()).collect()
}

fn statuses(world: &World, id: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = world.run(&["steps", id, "--json"]).lines(0);
    steps.iter().map(|step| (text(&step["key"]), text(&step["status"]))).collect()
}

#[test]
fn an_edit_cuts_and_the_rest_is_taken_or_done_again() {
    let world = completed();
    let before = hashes(&world, "p");
    let edit = r#"render:environment.STYLE="bold""#;
    let plan = world.run(&["fork", "p", "--edit", edit, "--dry-run", "--json"]).document(0);
    assert_eq!(plan["plan"]["rerun"], json!(["render"]));
    assert_eq!(plan["plan"]["depending"], json!(["publish", "announce"]));
    let asks = |key: &str| json!({"key": key, "action": "ask", "when": "changed"});
    assert_eq!(plan["plan"]["writes"], json!([asks("publish"), asks("announce")]));
    assert!(world.run(&["list", "--json"]).lines(0).len() == 1, "a dry run makes nothing");

    let forked = world.run(&["fork", "p", "--edit", edit, "--json"]).document(0);
    assert_eq!((&forked["workflow_id"], &forked["status"]), (&json!("p~1"), &json!("waiting")));
    assert_eq!(forked["plan"], plan["plan"], "what the dry run said");
    assert_eq!(read(&world, "looked"), ["render about lamps"], "only what was edited ran");
    assert!(read(&world, "written").is_empty(), "nothing was written to the world");
    let shown = world.run(&["show", "p~1"]).out;
    assert!(shown.contains("a fork of p, cut at version 4, with render:environment.STYLE"), "{shown}");
    assert!(shown.contains("resolve p~1 publish live"), "{shown}");
    let state = world.run(&["state", "p~1", "--json"]).document(0);
    assert_eq!(state["waits"], json!([{"key": "publish", "for": "decision"}]));

    let told = world.run(&["resolve", "p~1", "publish", "live", "--json"]).document(0);
    assert_eq!(told["status"], "completed");
    let written = read(&world, "written");
    assert!(written.len() == 1 && written[0].starts_with("publish bold: about lamps"), "{written:?}");
    let has = |key: &str, status: &str| (key.to_owned(), status.to_owned());
    assert_eq!(
        statuses(&world, "p~1"),
        [
            has("collect", "completed"),
            has("render", "completed"),
            has("publish", "completed"),
            has("announce", "reused")
        ]
    );
    assert_eq!(hashes(&world, "p"), before, "the parent is what it was");
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
    assert_eq!(world.run(&["verify", "p", "p~1", "--json"]).lines(0).len(), 2);
    let diff = world.run(&["diff", "p", "p~1", "--json"]);
    assert_eq!(diff.document(1)["first"]["key"], "render");
}

#[test]
fn what_becomes_of_a_write_is_what_the_policy_says() {
    let edit = r#"render:environment.STYLE="bold""#;
    let cases: [(&[&str], &str, &str, usize); 7] = [
        (&[], "waiting", "pending", 0),
        (&["--writes", "stub"], "completed", "completed", 0),
        (&["--writes", "deny"], "failed", "failed", 0),
        (&["--writes", "live"], "completed", "completed", 1),
        (&["--writes", "reuse,publish=live"], "completed", "completed", 1),
        (&["--writes", "live,publish=stub"], "completed", "completed", 0),
        // The one is performed, the other is asked about though nothing of it changed.
        (&["--writes", "ask,publish=live"], "waiting", "completed", 1),
    ];
    for (policy, status, publish, written) in cases {
        let world = completed();
        let call = [&["fork", "p", "--edit", edit, "--json"][..], policy].concat();
        let code = if status == "failed" { 1 } else { 0 };
        let told = world.run(&call).document(code);
        assert_eq!(told["status"], status, "{policy:?}: {told}");
        let found = statuses(&world, "p~1").into_iter().find(|(key, _)| key == "publish");
        assert_eq!(found.map(|(_, status)| status).as_deref(), Some(publish), "{policy:?}");
        assert_eq!(read(&world, "written").len(), written, "{policy:?}");
    }
}

#[test]
fn outputs_inputs_and_definitions_are_edited_too() {
    let world = completed();
    // An output: right behind its completion.
    let told = world.run(&["fork", "p", "--edit", r#"collect:output="nothing""#, "--json"]).document(0);
    assert_eq!((&told["status"], &told["output"]), (&json!("completed"), &json!("nothing")), "{told}");
    assert_eq!(told["plan"]["cut"], 3);
    assert_eq!(world.run(&["decisions", "p~1", "--json"]).lines(0)[0]["chosen"], "stop");
    assert!(read(&world, "looked").is_empty());
    // The input: from version 1 on.
    let told = world.run(&["fork", "p", "--edit", r#"input:topic="cups""#, "--writes", "stub", "--json"]);
    assert_eq!(told.document(0)["plan"]["cut"], 1);
    assert_eq!(read(&world, "looked"), ["collect cups", "render about cups"]);
    let state = world.run(&["state", "p~2", "--json"]).document(0);
    assert_eq!(state["input"], json!({"topic": "cups"}));
    // Another definition: the past fits up to where they part.
    put(&world, "new.yaml", &PIPELINE.replace("$STYLE: $TEXT", "<b>$TEXT</b>").replace("1.0.0", "2.0.0"));
    let told = world.run(&["fork", "p", "--definition", "new.yaml", "--writes", "stub", "--json"]);
    assert_eq!(told.document(0)["plan"]["cut"], 4);
    let written = world.run(&["steps", "p~3", "--json"]).lines(0);
    assert_eq!(written[1]["output"], "<b>about lamps</b>");
    let refused = world.run(&["fork", "p", "--definition", "new.yaml", "--at", "publish"]);
    assert_eq!(refused.code, 2);
    assert!(refused.err.contains("part at version 5, render"), "{}", refused.err);
    // A fork of a fork, and the whole family verifies, each by what it followed.
    let told = world.run(&["fork", "p~3", "--at", "-2", "--json"]).document(0);
    assert_eq!((&told["workflow_id"], &told["status"]), (&json!("p~3~1"), &json!("completed")));
    for line in world.run(&["verify", "--json"]).lines(0) {
        assert_eq!(line["matched"], true, "{line}");
    }
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
    let tree = world.run(&["list", "--tree"]).out;
    assert!(tree.contains("└─ p~3") || tree.contains("├─ p~3"), "{tree}");
    assert!(tree.contains("input"), "a branch says what changed in it: {tree}");
}

#[test]
fn a_fork_is_left_to_another_process_and_survives_its_death() {
    let world = completed();
    let told = world.run(&["fork", "p", "--at", "1", "--rerun", "collect", "--detach", "--json"]).document(0);
    assert_eq!((&told["workflow_id"], &told["status"]), (&json!("p~1"), &json!("running")));
    assert!(read(&world, "looked").is_empty(), "nothing was started");
    let told = world.run(&["resume", "p~1", "--json"]).document(0);
    assert_eq!(told["status"], "completed");
    assert_eq!(read(&world, "looked"), ["collect lamps"], "what was told to run again, and nothing else");
    assert!(read(&world, "written").is_empty());
}

#[test]
fn a_retry_goes_back_to_what_its_change_touches() {
    let world = failed();
    let edit = r#"collect:environment.TOPIC="cups""#;
    let plan = world.run(&["retry", "p", "--edit", edit, "--dry-run", "--json"]).document(0);
    assert_eq!((&plan["plan"]["cut"], &plan["plan"]["rerun"]), (&json!(1), &json!(["collect"])));
    let told =
        world.run(&["retry", "p", "--edit", edit, "--reason", "the wrong topic", "--json"]).document(0);
    assert_eq!((&told["workflow_id"], &told["status"]), (&json!("p"), &json!("completed")));
    assert_eq!(read(&world, "looked"), ["collect cups", "render about cups"]);
    assert_eq!(read(&world, "written").len(), 2, "its own writes that were never done are simply done");
    let events = world.run(&["events", "p", "--json"]).lines(0);
    let reopened = events.iter().find(|event| event["type"] == "WorkflowReopened").unwrap();
    assert_eq!(reopened["payload"]["reason"], "the wrong topic");
    assert_eq!(reopened["payload"]["back_to"], 1);
    assert_eq!(reopened["payload"]["changes"]["edits"][0]["value"], "cups");
    assert_eq!(world.run(&["verify", "p", "--json"]).document(0)["matched"], true);
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
    // From a step: what lies behind is asked again, and takes what is recorded.
    let world = failed();
    let told = world.run(&["retry", "p", "--from", "collect", "--json"]).document(0);
    assert_eq!(told["status"], "completed");
    assert_eq!(read(&world, "looked"), ["render about lamps"]);
    let has = |key: &str, status: &str| (key.to_owned(), status.to_owned());
    assert!(statuses(&world, "p").contains(&has("collect", "reused")));
}

#[test]
fn a_retry_follows_a_mended_definition() {
    let world = World::empty();
    put(&world, "report.yaml", &PIPELINE.replace("[ ! -e breaks ]", "exit 3"));
    let ran = world.run(&["run", "report.yaml", "--id", "p", "--input", r#"{"topic": "lamps"}"#]);
    assert_eq!(ran.code, 1);
    put(&world, "mended.yaml", PIPELINE);
    let told = world.run(&["retry", "p", "--definition", "mended.yaml", "--json"]).document(0);
    assert_eq!(told["status"], "completed");
    assert_eq!(read(&world, "looked"), ["collect lamps", "render about lamps", "render about lamps"]);
    assert_eq!(
        world.run(&["verify", "p", "--json"]).document(0)["matched"],
        true,
        "by what it followed, and when"
    );
}

#[test]
fn what_has_no_place_is_refused_with_a_way_out() {
    let world = completed();
    let broken = failed();
    put(&world, "bad.json", "{");
    let cases: [(&World, &[&str], i32, &[&str]); 30] = [
        (&world, &["fork", "nobody"], 2, &["no workflow `nobody`"]),
        (&world, &["fork", "p", "--at", "0"], 2, &["version 0", "versions 1 to 11"]),
        (&world, &["fork", "p", "--at", "99"], 2, &["version 99", "versions 1 to 11"]),
        (&world, &["fork", "p", "--at", "-99"], 2, &["out of range", "versions 1 to 11"]),
        (&world, &["fork", "p", "--at", "rendr"], 2, &["nothing in this log is called `rendr`", "`render`"]),
        (&world, &["fork", "p", "--at", "failure"], 2, &["has not failed"]),
        (&world, &["fork", "p", "--edit", "render"], 2, &["`=` is missing", "KEY:PATH=JSON"]),
        (
            &world,
            &["fork", "p", "--edit", "render:environment.STYLE=bold"],
            2,
            &["is not JSON", "'render:environment.STYLE=\"bold\"'"],
        ),
        (
            &world,
            &["fork", "p", "--edit", "rendr:command=\"x\""],
            2,
            &["no step `rendr`", "did you mean `render`?"],
        ),
        (&world, &["fork", "p", "--edit", "gate:output=1"], 2, &["no step `gate`"]),
        (
            &world,
            &["fork", "p", "--edit", "render:output=1", "--at", "3"],
            2,
            &["`render` never completed", "up to version 3"],
        ),
        (
            &world,
            &["fork", "p", "--edit", "render:command.x=1"],
            2,
            &["has no place in the request of `render`"],
        ),
        (&world, &["fork", "p", "--edit", "render:output.x.y=1"], 2, &["has no place"]),
        (
            &world,
            &["fork", "p", "--edit", "render:command=1", "--edit", "render:command=2"],
            2,
            &["two edits change `render:command`"],
        ),
        (
            &world,
            &["fork", "p", "--edit", "render:output=1", "--edit", "render:command=\"x\""],
            2,
            &["cannot both run again and have another output"],
        ),
        (
            &world,
            &["fork", "p", "--edit", "render:output=1", "--rerun", "render"],
            2,
            &["cannot both run again"],
        ),
        (
            &world,
            &["fork", "p", "--edit", "render:output=1", "--edit", "collect:output=2"],
            2,
            &["fork twice"],
        ),
        (
            &world,
            &["fork", "p", "--edit", "render:output=1", "--edit", "input=1"],
            2,
            &["lies behind the cut at version 1", "fork twice"],
        ),
        (&world, &["fork", "p", "--edit", "render:command=@nowhere"], 2, &["nowhere"]),
        (&world, &["fork", "p", "--edit", "render:command=@bad.json"], 2, &["bad.json:1:", "not JSON"]),
        (&world, &["fork", "p", "--edit", "*:output=1"], 2, &["every model call"]),
        (
            &world,
            &["fork", "p", "--edit", "*:tempature=1"],
            2,
            &["a model call has no `tempature`", "`temperature`"],
        ),
        (&world, &["fork", "p", "--rerun", "nothing"], 2, &["no step `nothing`"]),
        (
            &world,
            &["fork", "p", "--writes", "publish"],
            2,
            &["`publish` is no policy", "reuse, ask, stub, deny or live"],
        ),
        (&world, &["fork", "p", "--definition", "nowhere.yaml"], 2, &["nowhere.yaml"]),
        (&world, &["retry", "p", "--from", "render"], 2, &["has completed"]),
        (&broken, &["retry", "p", "--from", "publish"], 2, &["nothing in this log is called `publish`"]),
        (&broken, &["retry", "p", "--from", "-1"], 2, &["lies behind the failure"]),
        (
            &broken,
            &["retry", "p", "--writes", "live"],
            2,
            &["--writes has no meaning", "--from, --edit, --rerun or --definition"],
        ),
        (&world, &["retry", "p", "--dry-run"], 2, &["has completed"]),
    ];
    for (world, call, code, says) in cases {
        let before = world.run(&["list", "--json"]).out;
        let told = world.run(call);
        assert_eq!(told.code, code, "{call:?}: {told:?}");
        for text in says {
            assert!(told.err.contains(text), "{call:?} does not say {text:?}:\n{}", told.err);
        }
        assert!(told.err.contains("hint: "), "{call:?}:\n{}", told.err);
        assert_eq!(world.run(&["list", "--json"]).out, before, "{call:?} made something");
    }
}

#[test]
fn nothing_goes_on_from_a_broken_past_and_no_held_write_is_settled_otherwise() {
    let world = completed();
    world.run(&["fork", "p", "--edit", r#"render:environment.STYLE="bold""#]);
    for (call, says) in [
        (&["resolve", "p~1", "publish", "landed"][..], "waits to be allowed"),
        (&["resolve", "p~1", "announce", "live"], "holds no write `announce`"),
        (&["resolve", "p~1", "publish", "live", "7"], "has no output"),
        (&["retry", "p~1"], "has not failed"),
    ] {
        let told = world.run(call);
        assert_eq!(told.code, 2, "{call:?}: {told:?}");
        assert!(told.err.contains(says) && told.err.contains("hint: "), "{call:?}:\n{}", told.err);
    }
    assert!(read(&world, "written").is_empty());
    let sql = "DROP TRIGGER log_is_never_updated;
        UPDATE log SET payload = replace(payload, 'about lamps', 'about tombs') WHERE version = 3;";
    crate::world::tamper(&world.path(), sql);
    let told = world.run(&["fork", "p", "--at", "5"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.err.contains("quarantined") && told.err.contains("hint: "), "{}", told.err);
    // What shares the broken past does not go on either.
    let told = world.run(&["resolve", "p~1", "publish", "live"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(read(&world, "written").is_empty());
}
