//! `diff`, run on stores that were filled by rehearsing: exit codes, the shape that scripts rely on,
//! how two workflows are named, and what a person reads.

use crate::world::{Script, World, article, published, step, write};
use foldback::core::rehearse::rehearse;
use foldback::core::{Ask, Effect, Event, Key, Outcome, Step, Usage};
use serde_json::{Value, json};

/// Drafts and judges: the draft is a text, the judgement a score.
fn judged(id: &str, draft: &str, score: f64) -> Vec<Event> {
    let chosen = if score < 0.5 { "revise" } else { "publish" };
    let mut asks = vec![
        step("draft", "llm", Effect::Read, json!({"model": "x/small", "prompt": "write"})),
        step("critique", "llm", Effect::Read, json!({"model": "x/small", "text": draft})),
        Ask::Decide {
            key: Key::from("check"),
            chosen: chosen.into(),
            options: vec!["publish".into(), "revise".into()],
            because: json!({".score": score}),
            finishes: true,
        },
    ];
    if chosen == "publish" {
        asks.push(step("publish", "http", Effect::Write, json!({"method": "POST"})));
    }
    let draft = draft.to_owned();
    let world = move |key: &Key, _: &Step, _: u32| {
        let output = match key.as_str() {
            "draft" => json!(draft),
            "critique" => json!({"score": score}),
            _ => json!({"id": 7}),
        };
        let usage = Usage {
            model: "small".into(),
            input_tokens: 100,
            output_tokens: draft.len() as u64,
            micro_usd: Some(4_200),
            ..Usage::default()
        };
        Outcome::Completed { output, usage: Some(usage) }
    };
    rehearse(&Script(asks), id, json!({"topic": "rust"}), &world).events
}

fn two() -> World {
    let world = World::empty();
    let store = world.store();
    for (id, draft, score) in [
        ("one", "Rust is a fine language", 0.9),
        ("same", "Rust is a fine language", 0.9),
        ("other", "Rust is a slow language", 0.4),
    ] {
        write(&*store, id, &judged(id, draft, score), Some("completed"));
    }
    drop(store);
    world
}

#[test]
fn the_exit_code_says_whether_they_differ() {
    let world = two();
    let cases = [
        (["one", "one"], 0),
        (["one", "same"], 0),
        (["one", "other"], 1),
        (["one@1", "other@1"], 0),
        (["one@draft", "other@draft"], 0),
        (["one@draft:end", "other@draft:end"], 1),
        (["one@-1", "one"], 0),
        (["one@-2", "one"], 1),
        (["one@2100-01-01", "one"], 0),
        (["nothing", "one"], 2),
        (["one", "one@99"], 2),
    ];
    for (words, code) in cases {
        let ran = world.run(&["diff", words[0], words[1]]);
        assert_eq!(ran.code, code, "{words:?} {ran:?}");
    }
    let failing = World::filled();
    assert_eq!(failing.run(&["diff", "failed@failure", "done@publish"]).code, 0);
    assert_eq!(failing.run(&["diff", "failed", "done"]).code, 1);
}

#[test]
fn the_answer_has_the_shape_that_scripts_rely_on() {
    let world = two();
    let found = world.run(&["diff", "one", "other", "--json"]).document(1);
    assert_eq!(found["a"], json!({"workflow_id": "one", "version": 9, "status": "completed"}));
    assert_eq!((&found["b"]["workflow_id"], &found["b"]["version"]), (&json!("other"), &json!(7)));
    assert_eq!(
        (&found["same"], &found["first"]),
        (&json!(false), &json!({"key": "draft", "what": "output"}))
    );
    let of = |key: &str, what: &str| -> Value {
        let all = found["differences"].as_array().expect("a list");
        all.iter().find(|d| d["key"] == key && d["what"] == what).expect(what).clone()
    };
    let draft = of("draft", "output");
    assert_eq!(draft["a"], "Rust is a fine language");
    assert_eq!(draft["b"], "Rust is a slow language");
    assert_eq!(
        draft["words"],
        json!([{"same": "Rust is a "}, {"removed": "fine"}, {"added": "slow"}, {"same": " language"}])
    );
    assert_eq!(of("critique", "output")["paths"], json!([{"path": "/score", "a": 0.9, "b": 0.4}]));
    assert_eq!(of("check", "chosen")["b"], "revise");
    assert_eq!((&found["only_in_a"], &found["only_in_b"]), (&json!(["publish"]), &json!([])));
    assert_eq!(found["totals"]["a"]["steps"], 3);
    assert_eq!(found["totals"]["b"]["tokens"], json!({"input": 200, "output": 46}));
    assert_eq!(found["totals"]["b"]["micro_usd"], 8_400);
    assert!(found["totals"]["a"]["duration_ms"].is_u64());
    let same = world.run(&["--json", "diff", "one", "same"]).document(0);
    assert_eq!((&same["same"], &same["first"]), (&json!(true), &Value::Null));
    assert_eq!((&same["differences"], &same["equal"]), (&json!([]), &json!(4)));
}

#[test]
fn an_id_may_hold_what_stands_before_a_version() {
    let world = World::empty();
    let store = world.store();
    for id in ["ann@shop", "ann@shop@1", "bob"] {
        write(&*store, id, &article(id, &published()), Some("completed"));
    }
    drop(store);
    let cases = [
        ("ann@shop", "ann@shop", 11),
        // The whole is an id: it is no version of another.
        ("ann@shop@1", "ann@shop@1", 11),
        ("ann@shop@2", "ann@shop", 2),
        ("ann@shop@1@3", "ann@shop@1", 3),
        ("bob@refine[0]/draft:end", "bob", 5),
    ];
    for (word, id, version) in cases {
        let ran = world.run(&["diff", word, word, "--json"]).document(0);
        assert_eq!((&ran["a"]["workflow_id"], &ran["a"]["version"]), (&json!(id), &json!(version)), "{word}");
    }
}

#[test]
fn what_cannot_be_compared_is_told_with_a_way_out() {
    let world = two();
    let cases = [
        (["one", "othr"], "no workflow `othr`", "did you mean `other`?"),
        (["othr@3", "one"], "no workflow `othr`", "did you mean `other`?"),
        (["one@99", "one"], "99", "hint: "),
        (["one@", "one"], "a version is missing", "a version is N, -N"),
        (["one@crtique", "one"], "nothing in this log is called `crtique`", "did you mean `critique`?"),
        (["one", "other@failure"], "", "hint: "),
        (["@3", "one"], "no workflow", "hint: "),
    ];
    for (words, message, hint) in cases {
        let ran = world.run(&["diff", words[0], words[1]]);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{words:?} {ran:?}");
        assert!(ran.err.contains(message) && ran.err.contains(hint), "{words:?}: {}", ran.err);
        assert!(ran.err.contains("hint: "), "{words:?}: {}", ran.err);
    }
    assert_eq!(world.run(&["diff", "one"]).code, 2);
}

#[test]
fn a_person_reads_where_they_part_first() {
    let world = two();
    let told = world.run(&["diff", "one", "other"]).out;
    assert!(told.starts_with("first: draft  output differs\n"), "{told}");
    let wanted = [
        "\ndraft  ",
        "output    Rust is a [-fine-]{+slow+} language",
        "output    /score  0.9 → 0.4",
        "chosen    publish → revise",
        "because   /.score  0.9 → 0.4",
        "only in A  publish",
        "A  one@9  completed",
        "B  other@7  completed",
        "steps             3        2          -1",
        "cost        $0.0126  $0.0084    -$0.0042",
    ];
    for text in wanted {
        assert!(told.contains(text), "{text:?} is missing in\n{told}");
    }
    assert!(!told.contains('\u{1b}'), "no colours where no terminal is");
    let same = world.run(&["diff", "one", "same"]).out;
    assert!(same.starts_with("first: none, they are the same\n"), "{same}");
    assert!(same.contains("the same   4 steps or decisions"), "{same}");
}

#[test]
fn long_texts_are_clipped_around_what_changed_and_hostile_ones_obeyed_by_nobody() {
    let world = World::empty();
    let store = world.store();
    let filler = "a word and another ".repeat(40);
    for (id, word) in [("a", "\u{1b}[31mred\u{202e}"), ("b", "blue")] {
        write(&*store, id, &judged(id, &format!("{filler}{word} {filler}"), 0.9), Some("completed"));
    }
    drop(store);
    let told = world.run(&["diff", "a", "b"]).out;
    let line = told.lines().find(|line| line.contains("blue")).expect("the change");
    assert!(line.chars().count() < 140 && line.matches('…').count() == 2, "{line}");
    assert!(!told.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{told:?}");
    let long = world.run(&["diff", "a", "b", "--json"]).document(1);
    assert!(
        long["differences"][0]["a"].as_str().is_some_and(|text| text.len() > 1_024),
        "values are inlined"
    );
}

#[test]
fn a_log_that_breaks_the_law_is_said_to() {
    let world = two();
    crate::world::tamper(
        &world.path(),
        "DROP TRIGGER log_is_never_updated;
         UPDATE log SET payload = replace(payload, 'slow', 'fast') WHERE version = 3;",
    );
    let ran = world.run(&["diff", "one", "other", "--json"]);
    assert_eq!(ran.document(1)["b"]["status"], "quarantined");
    assert!(ran.err.contains("quarantined") && ran.err.contains("hint: "), "{}", ran.err);
    assert_eq!(world.run(&["diff", "one@1", "other@1"]).code, 0, "before that nothing is wrong");
}
