//! Models as a person meets them on the command line: a server that is down, an answer that is cut.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::servers::{Answers, Server};
use crate::world::World;
use serde_json::json;

/// One model call, to the provider `local`.
fn asking(url: &str, more: &str) -> World {
    let world = World::empty();
    let write = |name: &str, text: &str| std::fs::write(world.dir.path().join(name), text).expect("written");
    write(
        "a.yaml",
        &format!(
            "document: {{ dsl: '1.0.3', namespace: test, name: a, version: '1.0.0' }}\n\
             do:\n  - draft: {{ call: llm, with: {{ model: local/tiny, template: Write.{more} }} }}\n"
        ),
    );
    write("foldback.toml", &format!("[providers.local]\nkind = \"openai\"\nbase_url = \"{url}/v1\"\n"));
    world
}

#[test]
fn a_server_that_is_down_is_told_with_its_hint_at_once_and_asked_twice() {
    let world = asking(&Server::refusing(), "");
    let began = Instant::now();
    let ran = world.run(&["run", "a.yaml", "--id", "w"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let first =
        ran.err.lines().position(|line| line.contains("attempt 1 failed: 503 Not reachable: provider"));
    let hint =
        ran.err.lines().position(|line| line.contains("hint: start the server, or correct `base_url`"));
    assert_eq!(first.map(|at| at + 1), hint, "{}", ran.err);
    assert!(!ran.err.contains("attempt 2 failed") && ran.err.contains("502 Not reachable"), "{}", ran.err);
    let steps = world.run(&["steps", "w", "--json"]).document(0);
    assert_eq!((&steps["attempts"], &steps["error"]["status"]), (&json!(2), &json!(502)), "{steps}");
}

#[test]
fn a_fallback_answers_and_is_named_and_an_unknown_one_is_refused_before_the_first_event() {
    let server = Server::that(Answers::Streams(WHOLE));
    let world = asking(&Server::refusing(), ", fallback: [second/small]");
    let config = world.dir.path().join("foldback.toml");
    let first = std::fs::read_to_string(&config).expect("read");
    let ran = world.run(&["run", "a.yaml", "--id", "w"]);
    assert!(ran.code == 2 && ran.err.contains("a.yaml:") && ran.err.contains("`second`"), "{ran:?}");
    assert_eq!(world.run(&["list", "--json"]).out, "", "nothing began");

    let second = format!(
        "[providers.second]\nkind = \"openai\"\nbase_url = \"{}/v1\"\nprices = \"openai\"\n",
        server.url
    );
    std::fs::write(&config, first + &second).expect("written");
    let ran = world.run(&["run", "a.yaml", "--id", "w"]);
    assert!(ran.code == 0 && ran.err.contains("fallback 1 is asked"), "{ran:?}");
    let steps = world.run(&["steps", "w", "--json"]).document(0);
    assert_eq!(
        (&steps["variant"], &steps["model"]),
        (&json!(1), &json!("gpt-4o-mini-2024-07-18")),
        "{steps}"
    );
    assert_eq!(steps["micro_usd"], 150, "by the prices of the one that answered: {steps}");
    let shown = world.run(&["show", "w"]).out;
    assert!(shown.contains("llm gpt-4o-mini-2024-07-18 fallback 1"), "{shown}");
}

#[test]
fn a_pdf_from_a_server_goes_to_a_model_and_lies_in_the_store_as_the_bytes_it_is() {
    let pdf: Vec<u8> = b"%PDF-1.7\n".iter().copied().chain((0..9_000u32).map(|i| (i * 31) as u8)).collect();
    let (files, model) = (
        Server::that(Answers::Bytes("Application/PDF; version=1.7", pdf.clone())),
        Server::that(Answers::Streams(WHOLE)),
    );
    let world = asking(&model.url, ", attachments: ['${ $steps.fetch }']");
    let path = world.dir.path().join("a.yaml");
    let source = std::fs::read_to_string(&path).expect("read");
    let fetch =
        format!("do:\n  - fetch: {{ call: http, with: {{ method: GET, endpoint: '{}/a.pdf' }} }}", files.url);
    std::fs::write(&path, source.replace("do:", &fetch)).expect("written");
    world.run(&["run", "a.yaml", "--id", "w", "--json"]).document(0);

    let kept = rusqlite::Connection::open(world.path()).expect("the file");
    let kept: Vec<(String, Vec<u8>)> = kept
        .prepare("SELECT media_type, bytes FROM payloads WHERE media_type <> 'application/json'")
        .and_then(|mut rows| rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .expect("it is read");
    assert!(kept == [("application/pdf".to_owned(), pdf)], "once, though two steps hold it");
    let steps = world.run(&["steps", "w", "--json"]).lines(0);
    let given = steps[0]["output"].as_str().expect("a text");
    assert!(given.starts_with("data:application/pdf;base64,JVBERi0xLjcK"), "{}", &given[..60]);
    assert_eq!(steps[1]["input"]["attachments"][0], given);

    let (file, other) = (world.run(&["export", "w"]), World::empty());
    std::fs::write(other.dir.path().join("w.jsonl"), &file.out).expect("written");
    other.run(&["--json", "import", "w.jsonl"]).document(0);
    assert!(other.run(&["export", "w"]).out == file.out, "it comes out as it went in");
    assert_eq!(other.run(&["audit", "--json"]).document(0)["problems"], json!([]));
}

const WHOLE: &str = "data: {\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once upon a time\"},\"finish_reason\":\"stop\"}]}\n\n\
data: {\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[],\"usage\":{\"prompt_tokens\":1000,\"completion_tokens\":0,\"total_tokens\":1000}}\n\n\
data: [DONE]\n\n";

const CUT: &str = "data: {\"model\":\"tiny-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once upon\"},\"finish_reason\":null}]}\n\n\
data: {\"model\":\"tiny-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}]}\n\n\
data: {\"model\":\"tiny-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n\
data: [DONE]\n\n";

#[test]
fn a_cut_that_was_asked_for_is_shown_and_one_that_was_not_is_a_failure() {
    let server = Server::that(Answers::Streams(CUT));
    let world = asking(&server.url, ", max_tokens: 2");
    let ran = world.run(&["run", "a.yaml", "--id", "w"]);
    assert!(ran.code == 0 && ran.err.contains("cut at max_tokens"), "{ran:?}");
    let steps = world.run(&["steps", "w", "--json"]).document(0);
    assert_eq!(steps["finish_reason"], "length", "{steps}");
    let shown = world.run(&["show", "w"]).out;
    assert!(shown.contains("cut at max_tokens") && shown.contains("no price known"), "{shown}");

    let world = asking(&server.url, "");
    let ran = world.run(&["run", "a.yaml", "--id", "w"]);
    assert!(ran.code == 1 && ran.err.contains("422 The answer was cut short"), "{ran:?}");
    assert!(ran.err.contains("hint: set `max_tokens`"), "{}", ran.err);
    assert_eq!(world.run(&["steps", "w", "--json"]).document(0)["tokens"]["output"], 2);
}

/// What a call used whose process was killed under it, nobody knows: the log says that it is missing.
#[test]
fn a_call_that_was_lost_with_its_process_is_told_and_how_long_it_may_have_run() {
    let silent = Server::that(Answers::Never);
    let world = asking(&silent.url, "");
    let mut run = world
        .command(&["run", "a.yaml", "--id", "w"])
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let begun = Instant::now();
    // On disk, and at the server.
    while silent.requests() == 0 || !world.run(&["events", "w"]).out.contains("StepAsked") {
        assert!(begun.elapsed() < Duration::from_secs(30), "it asks");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    run.kill().expect("it is killed");
    run.wait().expect("it ends");

    let server = Server::that(Answers::Streams(WHOLE));
    let config = format!("[providers.local]\nkind = \"openai\"\nbase_url = \"{}/v1\"\n", server.url);
    std::fs::write(world.dir.path().join("foldback.toml"), config).expect("written");
    let ended = world.run(&["resume", "w", "--json"]).document(0);
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!("Once upon a time")));

    let events = world.run(&["events", "w", "--json"]).lines(0);
    let again: Vec<_> = events.iter().filter(|event| event["type"] == "AttemptStarted").collect();
    assert_eq!(again.len(), 1, "{events:#?}");
    let (lost, most) = (&again[0]["payload"]["lost"], begun.elapsed().as_millis());
    let at_most_ms = lost["at_most_ms"].as_u64().unwrap_or_else(|| panic!("{lost}"));
    assert!((300..=most as u64).contains(&at_most_ms), "{lost} of {most} ms");
    assert_eq!(lost["attempt"], 1, "{lost}");
    assert!(lost["reason"].as_str().is_some_and(|why| why.contains("the process ended")), "{lost}");

    let shown = world.run(&["show", "w"]).out;
    assert!(shown.contains("2 attempts, 1 lost with its process"), "{shown}");
    let steps = world.run(&["steps", "w", "--json"]).document(0);
    assert_eq!((&steps["attempts"], &steps["lost_attempts"]), (&json!(2), &json!(1)), "{steps}");
}

/// A document says how often its steps are tried; a model's 500 is worth it as a 503 is.
#[test]
fn a_server_that_falls_over_is_asked_again_as_often_as_the_document_says() {
    let server = Server::that(Answers::Error);
    let world = asking(&server.url, "");
    let path = world.dir.path().join("a.yaml");
    let source = std::fs::read_to_string(&path).expect("read");
    let with = "version: '1.0.0', metadata: { foldback: { attempts: 2 } } }";
    std::fs::write(&path, source.replace("version: '1.0.0' }", with)).expect("written");
    let ran = world.run(&["run", "a.yaml", "--id", "w"]);
    assert!(ran.code == 1 && ran.err.contains("attempt 1 failed: 500 Internal Server Error"), "{ran:?}");
    let steps = world.run(&["steps", "w", "--json"]).document(0);
    assert_eq!((&steps["attempts"], server.requests()), (&json!(2), 2), "{steps}");
}

const UNTOLD: &str = "data: {\"model\":\"tiny-1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"<think>hm</think>Once upon a time\"},\"finish_reason\":\"stop\"}]}\n\n\
data: [DONE]\n\n";

/// A budget holds also where a server does not tell what it used: it is estimated, and said to be.
#[test]
fn a_budget_of_tokens_holds_where_nobody_tells_them() {
    let server = Server::that(Answers::Streams(UNTOLD));
    let world = asking(&server.url, "");
    let source = "document: { dsl: '1.0.3', namespace: test, name: a, version: '1.0.0', metadata: { foldback: { budget: { tokens: 8 } } } }\n\
        do:\n  - draft: { call: llm, with: { model: local/tiny, template: Write. } }\n\
        \x20 - again: { call: llm, with: { model: local/tiny, template: Write. } }\n";
    std::fs::write(world.dir.path().join("a.yaml"), source).expect("written");
    let ran = world.run(&["run", "a.yaml", "--id", "w", "--json"]);
    assert_eq!(ran.document(0)["status"], "paused", "{ran:?}");
    assert!(ran.err.contains("`tiny-1` did not say all that it used: tokens are estimated"), "{}", ran.err);
    assert_eq!(server.requests(), 1);
    let steps = world.run(&["steps", "w", "--json"]).lines(0);
    assert_eq!((&steps[0]["is_estimated"], &steps[0]["found_in"]), (&json!(true), &json!("think")));
    assert_eq!((&steps[0]["output"], &steps[0]["tokens"]["output"]), (&json!("Once upon a time"), &json!(9)));
    let shown = world.run(&["show", "w"]).out;
    assert!(shown.contains("tokens estimated") && shown.contains("answer from think"), "{shown}");
}

/// A budget in money counts by prices; where there are none it says so, before and while it runs.
#[test]
fn a_budget_in_money_says_which_calls_it_cannot_count() {
    let server = Server::that(Answers::Streams(WHOLE));
    let world = asking(&server.url, "");
    let source = "document: { dsl: '1.0.3', namespace: test, name: a, version: '1.0.0', metadata: { foldback: { budget: { micro_usd: 500 } } } }\n\
        do:\n  - draft: { call: llm, with: { model: local/tiny, template: Write. } }\n\
        \x20 - again: { call: llm, with: { model: local/tiny, template: Write. } }\n";
    std::fs::write(world.dir.path().join("a.yaml"), source).expect("written");
    let warned = "a budget in money does not count `local/tiny`: no price is known";
    let checked = world.run(&["check", "a.yaml"]);
    assert!(checked.code == 0 && checked.err.contains(warned), "{checked:?}");
    assert!(
        checked.err.contains("a.yaml:1:") && checked.err.contains("[providers.local.prices]"),
        "{checked:?}"
    );
    assert_eq!(world.run(&["check", "a.yaml", "--strict"]).code, 1);
    let ran = world.run(&["run", "a.yaml", "--id", "w"]);
    assert!(ran.code == 0 && ran.err.contains(warned), "{ran:?}");
    let told = ran.err.matches("its calls do not count in the budget of money").count();
    assert_eq!(told, 1, "once is enough: {}", ran.err);

    // With prices of one's own it counts, and holds: 1,000 tokens at 0.6 dollars a million.
    let config = world.dir.path().join("foldback.toml");
    let with = std::fs::read_to_string(&config).expect("read")
        + "[providers.local.prices]\ninput_usd_per_million_tokens = 0.6\noutput_usd_per_million_tokens = 2\n";
    std::fs::write(&config, with).expect("written");
    let ran = world.run(&["run", "a.yaml", "--id", "v", "--json"]);
    assert_eq!(ran.document(0)["status"], "paused", "{ran:?}");
    assert!(!ran.err.contains("no price"), "{}", ran.err);
    let steps = world.run(&["steps", "v", "--json"]).lines(0);
    assert_eq!(steps[0]["micro_usd"], 600, "{}", steps[0]);
    let events = world.run(&["events", "v", "--json"]).out;
    assert!(events.contains("\"price_source\":\"foldback.toml\""), "{events}");
}

/// What stays on this machine goes through no proxy, whatever the environment says.
#[test]
fn a_model_on_this_machine_is_asked_without_a_proxy() {
    let server = Server::that(Answers::Streams(WHOLE));
    let world = asking(&server.url, "");
    let dead = Server::refusing();
    let mut run = world.command(&["run", "a.yaml", "--id", "w"]);
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        run.env(name, &dead);
    }
    let ran = run.env_remove("NO_PROXY").env_remove("no_proxy").output().expect("it runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

/// A configuration that came with a folder: no key leaves for where it points, not even to be tried.
#[test]
fn a_configuration_that_was_found_leads_no_key_away() {
    let world = asking("http://gateway.invalid", "");
    let config = world.dir.path().join("foldback.toml");
    let source = std::fs::read_to_string(&config).expect("read") + "api_key_env = \"CANARY_KEY\"\n";
    std::fs::write(&config, source).expect("written");
    let keyed = |args: &[&str]| {
        let ran =
            world.command(args).env("CANARY_KEY", "sk-canary-4711").env_remove("FOLDBACK_CONFIG").output();
        let ran = ran.expect("it runs");
        let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
        assert!(!text.contains("canary-4711"), "{text}");
        (ran.status.code(), text)
    };
    let hint = "`--config foldback.toml` or set FOLDBACK_CONFIG=foldback.toml";
    let (code, told) = keyed(&["run", "a.yaml", "--id", "w"]);
    assert!(
        code == Some(2) && told.contains("the key in CANARY_KEY is not sent to http://gateway.invalid/v1/"),
        "{told}"
    );
    assert!(told.contains(hint), "{told}");
    assert_eq!(world.run(&["list", "--json"]).out, "", "nothing began");
    let (code, told) = keyed(&["doctor"]);
    assert!(code == Some(1) && told.contains("is not sent to") && told.contains(hint), "{told}");

    let missing = world.command(&["doctor"]).env("FOLDBACK_CONFIG", "no.toml").output().expect("it runs");
    let told = String::from_utf8_lossy(&missing.stdout).into_owned();
    assert!(
        missing.status.code() == Some(1) && told.contains("no.toml"),
        "the variable names a file: {told}"
    );
}
