//! Schemas that fit and miss, schemas that are none, and schemas that mean harm.

use serde_json::{Value, json};

use super::Schema;

fn fault(document: Value) -> String {
    let fault = Schema::new(document).err().expect("it is refused");
    assert!(!fault.hint.is_empty());
    format!("{} {}", fault.pointer, fault.message)
}

#[test]
fn a_miss_names_its_place() {
    let schema = Schema::new(json!({
        "type": "object",
        "properties": {"topic": {"type": "string", "pattern": "^[a-z]+$"}, "n": {"type": "integer", "minimum": 1}},
        "required": ["topic"],
        "additionalProperties": false,
    }))
    .expect("a schema");
    assert_eq!(schema.miss(&json!({"topic": "lamps", "n": 1})), None);
    for (value, part) in [
        (json!({}), "\"topic\" is a required property"),
        (json!({"topic": 1}), "/topic: 1 is not of type \"string\""),
        (json!({"topic": "Lamps"}), "/topic: \"Lamps\" does not match"),
        (json!({"topic": "a", "n": 0, "m": 1}), "/n: 0 is less than the minimum of 1; Additional"),
        (json!([]), "[] is not of type \"object\""),
    ] {
        let miss = schema.miss(&value).expect("a miss");
        assert!(miss.contains(part), "{value}: {miss}");
    }
    let failure = schema.failure("The input", &json!({}), false).expect("a failure");
    assert_eq!((failure.status, &*failure.title), (400, "The input misses its schema"));
    let hidden = schema.failure("The input", &json!({"topic": "PRIVATE"}), true).and_then(|f| f.detail);
    let hidden = hidden.expect("a failure");
    assert!(hidden.starts_with("/topic: value does not match") && !hidden.contains("PRIVATE"), "{hidden}");
}

#[test]
fn what_is_no_schema_is_refused_at_its_place() {
    for (document, part) in [
        (json!({"type": "objekt"}), "/type this is no JSON Schema"),
        (json!({"properties": {"a": {"minimum": "x"}}}), "/properties/a/minimum "),
        (json!({"properties": {"a": {"pattern": "(a"}}}), "/properties/a/pattern "),
        (json!({"properties": {"a": {"pattern": "(?=a)b"}}}), "/properties/a/pattern "),
        (json!({"pattern": "((a{1,100}){1,100}){1,100}"}), "/pattern "),
        (json!(17), " this is no JSON Schema"),
        (json!({"$schema": "http://json-schema.org/draft-04/schema#"}), "/$schema the draft"),
        (json!({"items": {"$ref": "https://example.com/a.json"}}), "/items/$ref `https"),
        (json!({"items": {"$ref": "other.json"}}), "/items/$ref `other.json` stands in another"),
        (json!({"$ref": "#/$defs/none"}), "/$ref `#/$defs/none` names nothing"),
        (json!({"$dynamicRef": "#x"}), "/$dynamicRef `$dynamicRef` is not supported"),
        (json!({"$defs": {"a": {"$id": "b"}}}), "/$defs/a/$id a schema inside"),
        (json!({"$ref": "#"}), " this schema leads back to itself"),
        (json!({"anyOf": [{"type": "string"}, {"$ref": "#"}]}), " this schema leads back to itself"),
    ] {
        let found = fault(document.clone());
        assert!(found.starts_with(part), "{document}: {found}");
    }
    // A property may be called like a keyword.
    Schema::new(json!({"properties": {"$ref": {"type": "string"}, "$id": {}, "items": {}}}))
        .expect("a schema");
    Schema::new(json!({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{}]}))
        .expect("a schema");
}

/// Each schema is small, and would take ages where nothing counts.
#[test]
fn a_hostile_schema_does_not_hang() {
    let doubling = |word: &str, n: usize| {
        let reference = |i: usize| json!({"$ref": format!("#/$defs/a{i}")});
        let mut defs: serde_json::Map<String, Value> = (0..n)
            .map(|i| {
                let twice = match word {
                    "allOf" | "anyOf" => json!({word: [reference(i + 1), reference(i + 1)]}),
                    word => json!({word: {"x": reference(i + 1), "y": reference(i + 1)}}),
                };
                (format!("a{i}"), twice)
            })
            .collect();
        defs.insert(format!("a{n}"), json!({"type": "string"}));
        json!({"$ref": "#/$defs/a0", "$defs": defs})
    };
    let deep = |n: usize| (0..n).fold(json!("end"), |inner, _| json!({"x": inner}));
    for word in ["allOf", "anyOf", "properties"] {
        let schema = Schema::new(doubling(word, 30)).expect("a schema");
        let is_too_much = schema.miss(&deep(30)).is_some_and(|miss| miss.contains("too much work"));
        assert_eq!(is_too_much, word != "properties", "{word}");
    }
    let chain: serde_json::Map<String, Value> = (0..20_000)
        .map(|i| (format!("a{i}"), json!({"$ref": format!("#/$defs/a{}", (i + 1) % 20_000)})))
        .collect();
    assert!(fault(json!({"$ref": "#/$defs/a0", "$defs": chain})).contains("more than 64"));
    // Two branches that both lead back: twice the work with each level of the value.
    let tree = json!({"anyOf": [
        {"properties": {"x": {"$ref": "#"}}, "required": ["y"]},
        {"properties": {"x": {"$ref": "#"}}, "required": ["z"]},
    ]});
    let tree = Schema::new(tree).expect("a schema");
    assert!(tree.miss(&deep(8)).expect("a miss").contains("not valid under any"));
    assert!(tree.miss(&deep(90)).expect("a miss").contains("too much work"));
    let slow = Schema::new(json!({"pattern": "^(a+)+$"})).expect("a schema");
    assert!(slow.miss(&Value::from(format!("{}!", "a".repeat(50_000)))).is_some());
    assert!(slow.miss(&Value::from("a".repeat(1_000_000))).expect("a miss").contains("too much work"));
}

/// As deep as values go, on a thread as small as the engine's.
#[test]
fn a_deep_value_fits_the_stack() {
    let list =
        Schema::new(json!({"allOf": [{"allOf": [{"properties": {"x": {"$ref": "#"}}}]}]})).expect("a schema");
    let deep = (0..100).fold(json!("end"), |inner, _| json!({"x": inner}));
    let run = move || (list.miss(&deep), list.miss(&json!({"x": deep.clone()})));
    let thread = std::thread::Builder::new().stack_size(1024 * 1024).spawn(run).expect("a thread");
    assert_eq!(thread.join().expect("it ends"), (None, None));
}
