//! What a fork takes from its parent: a stubbed write gives what the parent's gave, and a comparison calls
//! reused tokens neither spent again nor saved.

use crate::world::World;
use serde_json::json;

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("written");
}

/// A look, a write made of it, and a value made of what the write gave.
const ORDER: &str = "document: { dsl: '1.0.3', namespace: t, name: order, version: '1.0.0' }
do:
- look: { run: { shell: { command: 'echo 1' } }, metadata: { foldback: { effect: read } } }
- send: { run: { shell: { command: 'echo \"{\\\"id\\\": 7, \\\"n\\\": $N}\"', environment: { N: '${ . }' } } } }
- note: { set: { sent: '${ fromjson | .id }' } }
";

#[test]
fn a_stubbed_write_gives_what_the_parents_gave_unless_told_otherwise() {
    let world = World::empty();
    put(&world, "order.yaml", ORDER);
    assert_eq!(world.run(&["run", "order.yaml", "--id", "w"]).code, 0);
    // By policy.
    let forked = world.run(&["fork", "w", "--edit", "look:output=2", "--writes", "stub", "--json"]);
    assert_eq!(forked.document(0)["output"], json!({"sent": 7}), "{forked:?}");
    // By a person, with and without another output.
    for (id, words, sent) in [
        ("w~2", &["resolve", "w~2", "send", "stub", "--json"][..], json!(7)),
        ("w~3", &["resolve", "w~3", "send", "stub", "\"{\\\"id\\\": 9}\"", "--json"], json!(9)),
    ] {
        let held = world.run(&["fork", "w", "--edit", "look:output=2", "--json"]);
        assert_eq!(
            (&held.document(0)["workflow_id"], &held.document(0)["status"]),
            (&json!(id), &json!("waiting"))
        );
        let settled = world.run(words);
        assert_eq!(settled.document(0)["output"], json!({"sent": sent}), "{settled:?}");
    }
}

#[test]
fn reused_tokens_are_neither_spent_again_nor_saved() {
    let world = World::empty();
    put(&world, "foldback.toml", "[providers.desk]\nkind = \"scripted\"\nfile = \"rules.toml\"\n");
    put(
        &world,
        "rules.toml",
        "[[rules]]\ncontains = \"second\"\nanswer = \"two words\"\n\n[[rules]]\nanswer = \"one of many words\"\n",
    );
    put(
        &world,
        "d.yaml",
        "document: { dsl: '1.0.3', namespace: t, name: d, version: '1.0.0' }\ndo:\n\
         - first: { call: llm, with: { model: desk/m, template: 'the first' } }\n\
         - second: { call: llm, with: { model: desk/m, template: 'the second' } }\n\
         - third: { call: llm, with: { model: desk/m, template: 'the third' } }\n",
    );
    assert_eq!(world.run(&["run", "d.yaml", "--id", "w"]).code, 0);
    let forked = world.run(&["fork", "w", "--edit", "first:template=\"another first\""]);
    assert_eq!(forked.code, 0, "{forked:?}");
    let totals = world.run(&["diff", "w", "w~1", "--json"]).document(1)["totals"].clone();
    let sum = |side: &str, what: &str| totals[side][what]["output"].as_u64().unwrap_or(0);
    assert!(sum("b", "reused_tokens") > 0 && sum("a", "reused_tokens") == 0, "{totals}");
    assert_eq!(sum("a", "tokens"), sum("b", "tokens") + sum("b", "reused_tokens"), "{totals}");
    let text = world.run(&["diff", "w", "w~1"]).out;
    let row = text.lines().find(|line| line.starts_with("tokens out")).unwrap_or_default();
    assert!(row.ends_with(" 0") && text.contains("out reused"), "{text}");
}

#[test]
fn texts_with_little_in_common_are_shown_whole() {
    let world = World::empty();
    let (one, other) = (
        "The parcel was sent on Monday and is on the way to the customer, who waits for it at home.",
        "A refund of the whole price is granted, since the goods were broken; a voucher comes by mail.",
    );
    for (id, text) in [("a", one), ("b", other)] {
        put(
            &world,
            "d.yaml",
            &format!(
                "document: {{ dsl: '1.0.3', namespace: t, name: d, version: '1.0.0' }}\ndo:\n- say: {{ set: {{ text: '{text}' }} }}\n"
            ),
        );
        assert_eq!(world.run(&["run", "d.yaml", "--id", id]).code, 0);
    }
    let text = world.run(&["diff", "a", "b"]).out;
    assert!(text.contains(one) && text.contains(other) && !text.contains("[-"), "{text}");
}
