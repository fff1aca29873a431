//! Models as a person meets them on the command line: a server that is down, an answer that is cut.

mod servers;
mod world;

use std::time::{Duration, Instant};

use serde_json::json;
use servers::{Answers, Server};
use world::World;

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
