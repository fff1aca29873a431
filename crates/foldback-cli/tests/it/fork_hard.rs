//! Forks and ways back, as they were once broken: each test is a way that somebody found to have a write
//! done twice, a limit run out while nobody worked, or something told that was not so.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::servers::{Answers, Server};
use crate::world::World;
use serde_json::{Value, json};

/// Looks, writes, looks; the last one fails until it is mended.
const PIPELINE: &str = r#"
document: { dsl: '1.0.3', namespace: test, name: three, version: '1.0.0' }
do:
- a: { run: { shell: { command: 'echo $V', environment: { V: one } } }, metadata: { foldback: { effect: read } } }
- pay: { run: { shell: { command: 'echo "paid $V" >> paid; [ ! -e refuse ]', environment: { V: '${ . }' } } } }
- b: { run: { shell: { command: '[ -e mended ] && echo over' } }, metadata: { foldback: { effect: read } } }
"#;

fn read(world: &World, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(world.dir.path().join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("it is written");
}

fn failed() -> World {
    let world = World::empty();
    put(&world, "three.yaml", PIPELINE);
    let ran = world.run(&["run", "three.yaml", "--id", "r", "--json"]);
    assert_eq!(ran.document(1)["error"]["key"], "b");
    assert_eq!(read(&world, "paid"), ["paid one"]);
    world
}

#[test]
fn what_was_done_stays_done_whatever_was_said_since() {
    let edit = r#"a:environment.V="two""#;
    // Another payment was denied, or made up, or tried and refused; then the first one is wanted again.
    let between: [&[&[&str]]; 5] = [
        &[&["retry", "r", "--edit", edit], &["resolve", "r", "pay", "deny"]],
        &[&["retry", "r", "--edit", edit, "--writes", "deny"]],
        &[&["retry", "r", "--edit", edit, "--writes", "stub"]],
        &[&["retry", "r", "--edit", edit, "--writes", "live"]],
        // The very same payment, once more.
        &[&["retry", "r", "--rerun", "pay", "--writes", "deny"]],
    ];
    for calls in between {
        let world = failed();
        if calls[0].contains(&"live") {
            put(&world, "refuse", "");
        }
        calls.iter().for_each(|call| drop(world.run(call)));
        let others = read(&world, "paid").len();
        put(&world, "mended", "");
        let told = world.run(&["retry", "r", "--edit", r#"a:environment.V="one""#, "--json"]);
        assert_eq!(told.document(0)["output"], "over", "{calls:?}");
        assert_eq!(read(&world, "paid").len(), others, "{calls:?}: paid again");
        let steps = world.run(&["steps", "r", "--json"]).lines(0);
        let last = steps.iter().rfind(|step| step["key"] == "pay").unwrap();
        assert_eq!((&last["status"], &last["reused"]["version"]), (&json!("reused"), &json!(5)), "{calls:?}");
    }
}

/// A limit of one second that was not used up: the time between does not count.
#[test]
fn a_limit_waits_while_nobody_works() {
    let body = "
- timed:
    timeout: { after: { seconds: 2 } }
    do:
    - b: { run: { shell: { command: 'echo b' } }, metadata: { foldback: { effect: read } } }
    - c: { run: { shell: { command: '[ -e mended ] && echo c' } }, metadata: { foldback: { effect: read } } }
";
    let head = PIPELINE.split("do:").next().unwrap();
    let world = World::empty();
    put(&world, "timed.yaml", &format!("{head}do:{body}"));
    assert_eq!(world.run(&["run", "timed.yaml", "--id", "t"]).code, 1);
    assert_eq!(world.run(&["run", "timed.yaml", "--id", "u"]).code, 1);
    std::thread::sleep(Duration::from_millis(2_300));
    put(&world, "mended", "");
    assert_eq!(world.run(&["retry", "t", "--json"]).document(0)["output"], "c");
    assert_eq!(world.run(&["retry", "u", "--from", "timed/b", "--json"]).document(0)["output"], "c");
    std::thread::sleep(Duration::from_millis(2_300));
    assert_eq!(world.run(&["fork", "t", "--at", "timed/b", "--json"]).document(0)["output"], "c");
    let edit = r#"timed/b:command="echo again""#;
    assert_eq!(world.run(&["fork", "t", "--edit", edit, "--json"]).document(0)["output"], "c");
    // And it does run out while somebody does.
    put(&world, "slow.yaml", &format!("{head}do:{}", body.replace("echo b'", "sleep 5'")));
    let begun = Instant::now();
    assert_eq!(world.run(&["run", "slow.yaml", "--id", "s", "--json"]).document(1)["error"]["status"], 408);
    assert!(begun.elapsed() < Duration::from_secs(5));
    for id in ["t", "u", "t~1", "t~2", "s"] {
        assert_eq!(world.run(&["verify", id, "--json"]).document(0)["matched"], true, "{id}");
    }
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
}

/// While another process owns the store, a command with values reaches it through the inbox.
#[test]
fn values_reach_the_process_that_owns_the_store() {
    let world = failed();
    put(&world, "slow.yaml", &PIPELINE.replace("echo $V", "sleep 4"));
    let mut owner = world
        .command(&["run", "slow.yaml", "--id", "s"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let patience = Instant::now() + Duration::from_secs(20);
    while !world.run(&["list", "--json"]).lines(0).iter().any(|row| row["workflow_id"] == "s") {
        assert!(Instant::now() < patience, "the owner is at work");
    }
    let long = "x".repeat(3_000);
    let told = world.run(&[
        "fork",
        "r",
        "--edit",
        &format!("a:environment.V={:?}", long),
        "--writes",
        "stub",
        "--json",
    ]);
    assert_eq!(told.document(1)["error"]["key"], "b", "it was carried out, and failed where its parent did");
    let steps = world.run(&["steps", "r~1", "--json"]).lines(0);
    assert_eq!(steps[0]["output"], Value::String(long));
    let told = world.run(&["retry", "r", "--edit", r#"b:command="echo mended""#, "--json"]).document(0);
    assert_eq!(told["output"], "mended");
    owner.kill().expect("it is ended");
    owner.wait().expect("it has ended");
    assert_eq!(read(&world, "paid"), ["paid one"]);
}

#[test]
fn a_plan_says_where_its_knowledge_ends_and_what_is_left_done() {
    let world = failed();
    // `b` never gave anything: who knows what follows.
    let plan = world.run(&["fork", "r", "--rerun", "b", "--dry-run", "--json"]).document(0);
    assert_eq!(plan["plan"]["unknown_behind"], json!(["b"]), "{plan}");
    // A write whose name is gone stays done, and is named.
    put(&world, "other.yaml", &PIPELINE.replace("- pay:", "- charge:"));
    put(&world, "mended", "");
    world.run(&["retry", "r"]);
    let plan = world.run(&["fork", "r", "--definition", "other.yaml", "--dry-run", "--json"]).document(0);
    assert_eq!(plan["plan"]["writes"], json!([{"key": "charge", "action": "ask", "when": "always"}]));
    let told = world.run(&["fork", "r", "--definition", "other.yaml", "--writes", "stub", "--dry-run"]).out;
    assert!(told.contains("left done") && told.contains("pay"), "{told}");
    // What is asked about whatever it asks is no matter of a change.
    let call = ["fork", "r", "--at", "1", "--writes", "ask", "--rerun", "a", "--dry-run", "--json"];
    let plan = world.run(&call).document(0);
    assert_eq!(plan["plan"]["writes"][0], json!({"key": "pay", "action": "ask", "when": "always"}));
}

#[test]
fn a_plan_says_what_is_waited_for_anew() {
    let world = World::empty();
    put(
        &world,
        "waits.yaml",
        r#"
document: { dsl: '1.0.3', namespace: test, name: waits, version: '1.0.0' }
do:
- pause: { wait: { milliseconds: 20 } }
- look: { run: { shell: { command: 'echo one' } }, metadata: { foldback: { effect: read } } }
- approve: { listen: { to: { one: { with: { type: approved } } } } }
- pay: { run: { shell: { command: 'echo paid >> paid' } } }
"#,
    );
    world.run(&["run", "waits.yaml", "--id", "w"]);
    let told = world.run(&["signal", "w", "approved"]);
    assert_eq!((told.code, read(&world, "paid").len()), (0, 1), "{told:?}");
    let plan = &world.run(&["fork", "w", "--at", "1", "--dry-run", "--json"]).document(0)["plan"];
    assert_eq!(plan["waits"], json!([{"key": "pause", "ms": 20}]), "{plan}");
    assert_eq!((&plan["listens"], &plan["reused"]), (&json!(["approve"]), &json!(["look"])), "{plan}");
    // Nobody can say whether the payment is asked for behind an answer that is not there yet.
    assert_eq!((&plan["writes"], plan.get("left_done")), (&json!([]), None), "{plan}");
    let told = world.run(&["fork", "w", "--at", "1", "--dry-run"]).out;
    assert!(told.contains("pause  (each starts over; the longest takes 20 ms)"), "{told}");
    assert!(told.contains("approve  (each waits for a new signal"), "{told}");
}

#[test]
fn a_slip_of_the_pen_is_no_licence() {
    let world = failed();
    for (call, says) in [
        (&["fork", "r", "--writes", "live,pya=deny"][..], "no step `pya`"),
        (&["fork", "r", "--edit", "a[*]:command=\"x\""], "no step `a[*]`"),
        (&["fork", "r", "--edit", "a#*:command=\"x\""], "no step `a#*`"),
        (&["fork", "r", "--rerun", "a[*"], "no step `a[*`"),
    ] {
        let told = world.run(call);
        assert_eq!(told.code, 2, "{call:?}: {told:?}");
        assert!(told.err.contains(says) && told.err.contains("hint: "), "{call:?}:\n{}", told.err);
    }
    assert_eq!(read(&world, "paid").len(), 1);
}

#[test]
fn a_failure_that_was_taken_is_a_failure() {
    let world = World::empty();
    let head = PIPELINE.split("do:").next().unwrap();
    put(
        &world,
        "caught.yaml",
        &format!(
            "{head}do:
- tried:
    try: [ bad: {{ run: {{ shell: {{ command: 'exit 3' }} }}, metadata: {{ foldback: {{ effect: read }} }} }} ]
    catch: {{ do: [ well: {{ set: {{ all: well }} }} ] }}
"
        ),
    );
    assert_eq!(world.run(&["run", "caught.yaml", "--id", "p"]).code, 0);
    let forked = world.run(&["fork", "p", "--at", "1", "--json"]).document(0);
    assert_eq!(forked["plan"]["reused_failures"], json!(["tried/bad"]));
    let told = world.run(&["diff", "p", "p~1", "--json"]);
    assert_eq!(told.document(0)["same"], true);
}

#[test]
fn what_is_put_into_the_place_of_an_erasable_value_is_erasable() {
    let world = World::empty();
    let erasable = "metadata: { foldback: { effect: read, erasable: true } }";
    put(&world, "er.yaml", &PIPELINE.replacen("metadata: { foldback: { effect: read } }", erasable, 1));
    put(&world, "mended", "");
    world.run(&["run", "er.yaml", "--id", "e"]);
    world.run(&["fork", "e", "--edit", r#"a:environment.V="a-private-word""#, "--writes", "stub"]);
    let log = world.run(&["events", "e~1", "--json"]).out;
    assert!(log.contains("a-private-word"), "it is shown in its place");
    let store = world.store();
    let raw: Vec<String> = store.read("e~1", 0, 99).unwrap().into_iter().map(|e| e.event.payload).collect();
    let forked = raw.iter().find(|payload| payload.contains("lineage")).unwrap();
    assert!(!forked.contains("a-private-word"), "it lies beside the log: {forked}");
}

#[test]
fn a_fork_that_took_a_failure_is_mended_by_a_retry() {
    let world = failed();
    let forked = world.run(&["fork", "r", "--json"]).document(1);
    assert_eq!(forked["error"]["key"], "b", "a fork without changes fails as its parent did");
    assert_eq!(world.run(&["retry", "r~1", "--json"]).document(1)["error"]["key"], "b", "nothing was mended");
    put(&world, "mended", "");
    assert_eq!(world.run(&["retry", "r~1", "--json"]).document(0)["output"], "over");
    assert_eq!(read(&world, "paid"), ["paid one"], "what its parent did is not done again");
    assert_eq!(world.run(&["verify", "r~1", "--json"]).document(0)["matched"], true);
}

#[test]
fn the_plan_counts_each_call_that_a_pattern_touches_and_says_who_is_asked() {
    let world = World::empty();
    let flow = "
document: { dsl: '1.0.3', namespace: test, name: many, version: '1.0.0' }
do:
- each:
    for: { each: item, in: '${ [range(5)] }' }
    do:
    - ask: { call: llm, with: { model: local/tiny, template: Think., temperature: 1 } }
    - look: { run: { shell: { command: 'echo seen', environment: { V: '${ . }' } } }, metadata: { foldback: { effect: read } } }
- sum: { call: llm, with: { model: local/large, template: 'Sum {it}.', vars: { it: '${ . }' } } }
";
    put(&world, "many.yaml", flow);
    put(&world, "foldback.toml", "[providers.local]\nkind = \"scripted\"\nfile = \"answers.json\"\n");
    put(&world, "answers.json", r#"{"rules": [{"answer": "well"}]}"#);
    let ran = world.run(&["run", "many.yaml", "--id", "m"]);
    assert_eq!(ran.code, 0, "{}", ran.err);

    let edit = "each[*]/ask:temperature=0";
    let plan = world.run(&["fork", "m", "--edit", edit, "--dry-run", "--json"]).document(0);
    let asks: Vec<String> = (0..5).map(|n| format!("each[{n}]/ask")).collect();
    assert_eq!(plan["plan"]["rerun"], json!(asks));
    let calls = plan["plan"]["calls"].as_array().expect("calls");
    let of = |to: &str| {
        let found = calls.iter().find(|calls| calls["to"] == to);
        found.map(|calls| (calls["count"].clone(), calls["depending"].clone()))
    };
    assert_eq!(of("local/tiny"), Some((json!(5), json!(0))), "{calls:?}");
    assert_eq!(of("local/large"), Some((json!(0), json!(1))), "{calls:?}");
    assert_eq!(of("shell"), Some((json!(0), json!(5))), "{calls:?}");
    let told = world.run(&["fork", "m", "--edit", edit, "--dry-run"]).out;
    assert!(told.contains("run again    5  each[0]/ask, each[1]/ask"), "{told}");
    assert!(told.contains("calls        5  local/tiny"), "{told}");
    assert!(told.contains("calls        0  shell  (and 5 where the request changes)"), "{told}");

    // What the plan says is what happens: the model answers as before, and all else is reused.
    assert_eq!(world.run(&["fork", "m", "--edit", edit]).code, 0);
    let steps = world.run(&["steps", "m~1", "--json"]).lines(0);
    let performed = steps.iter().filter(|step| step["status"] == "completed");
    let performed: Vec<_> = performed.map(|step| step["key"].as_str().unwrap_or_default()).collect();
    assert_eq!(performed, asks, "{steps:?}");

    let bare = world.run(&["fork", "m", "--edit", "ask:temperature=0", "--dry-run"]);
    assert_eq!(bare.code, 2, "{}", bare.err);
    assert!(bare.err.contains("has no step `ask`"), "{}", bare.err);
    assert!(bare.err.contains("hint: name where it stands: `each[*]/ask` means 5 of them"), "{}", bare.err);
}

#[test]
fn a_plan_prices_the_model_that_an_edit_names() {
    let server = Server::that(Answers::Streams(
        "data: {\"model\":\"tiny\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once\"},\"finish_reason\":\"stop\"}]}\n\n\
         data: {\"model\":\"tiny\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":100,\"total_tokens\":1100}}\n\n\
         data: [DONE]\n\n",
    ));
    let world = World::empty();
    let flow = "
document: { dsl: '1.0.3', namespace: test, name: priced, version: '1.0.0' }
do:
- draft: { call: llm, with: { model: local/tiny, template: Write. } }
- again: { call: llm, with: { model: local/tiny, template: Write again. } }
";
    put(&world, "priced.yaml", flow);
    let prices = |model: &str, usd: u32| {
        format!(
            "[providers.local.prices.models.{model}]\ninput_usd_per_million_tokens = {usd}\n\
             output_usd_per_million_tokens = {usd}0\n"
        )
    };
    let provider = format!("[providers.local]\nkind = \"openai\"\nbase_url = \"{}/v1\"\n", server.url);
    put(&world, "foldback.toml", &(provider + &prices("tiny", 1) + &prices("large", 5)));
    let ran = world.run(&["run", "priced.yaml", "--id", "p"]);
    assert_eq!(ran.code, 0, "{ran:?}");

    // 1,000 tokens read and 100 written: 2,000 millionths of the small model, 10,000 of the large one.
    let plan = |edit: &str| world.run(&["fork", "p", "--edit", edit, "--dry-run", "--json"]).document(0);
    let shown = |edit: &str| world.run(&["fork", "p", "--edit", edit, "--dry-run"]).out;
    let same = plan("again:temperature=0");
    assert_eq!(same["plan"]["estimated_micro_usd"], 2_000, "as recorded: {same}");
    assert_eq!(same["plan"].get("unpriced"), None, "{same}");
    let large = plan("again:model=\"local/large\"");
    assert_eq!(
        large["plan"]["estimated_micro_usd"], 10_000,
        "by the price of the model that is asked: {large}"
    );
    let call = &large["plan"]["calls"][0];
    assert_eq!(
        (&call["to"], &call["estimated_micro_usd"]),
        (&json!("local/large"), &json!(10_000)),
        "{large}"
    );
    assert!(shown("again:model=\"local/large\"").contains("1  local/large  $0.01 and 1100 tokens"));

    let edit = "again:model=\"local/other\"";
    let other = plan(edit);
    assert_eq!(other["plan"]["estimated_micro_usd"], 0, "not the price of another model: {other}");
    assert_eq!((&other["plan"]["unpriced"], &other["plan"]["calls"][0]["unpriced"]), (&json!(1), &json!(1)));
    let text = shown(edit);
    assert!(text.contains("local/other  1100 tokens  price unknown"), "{text}");
    assert!(text.contains("cost         price unknown: 1 ask another model than there"), "{text}");
    // Some are known, some are not.
    let both = ["fork", "p", "--edit", edit, "--edit", "draft:model=\"local/large\"", "--dry-run"];
    let text = world.run(&both).out;
    assert!(
        text.contains("$0.01 and 2200 tokens at most, as recorded, and calls whose price is unknown"),
        "{text}"
    );
}
