//! Projections in jq: what they make of an event, and what they cannot be talked into.

use std::collections::BTreeMap;

use foldback_core::projection::{Projection, Rows};
use foldback_core::{Event, EventId, Fact, Slot, limits};
use foldback_ows::load_projection;
use serde_json::{Value, json};

#[derive(Default)]
struct Table(BTreeMap<String, Value>);

impl Rows for Table {
    fn change(&mut self, key: &str, how: &mut dyn FnMut(&mut Value)) {
        how(self.0.entry(key.to_owned()).or_default());
    }
}

fn event(version: u64, data: Value) -> Event {
    Event {
        clock: None,
        id: EventId([7; 16]),
        version,
        timestamp: 86_400_000_000,
        causation_id: None,
        correlation_id: None,
        actor: "shop".into(),
        fact: Fact::Recorded { event_type: "SOLD".into(), key: None, data: Slot::of(data), handler: None },
    }
}

/// What a projection makes of these events, and how it ends.
fn fold(key: &str, reduce: &str, data: &[Value]) -> (Vec<(String, Value)>, Result<(), String>) {
    let file = json!({"name": "p", "events": ["SOLD"], "key": key, "reduce": reduce}).to_string();
    let mut projection = load_projection(&file).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut table = Table::default();
    let end = data
        .iter()
        .enumerate()
        .try_for_each(|(i, data)| projection.see("w", &event(i as u64 + 1, data.clone()), &mut table));
    (table.0.into_iter().filter(|(_, row)| !row.is_null()).collect(), end)
}

#[test]
fn rows_by_key_row_by_row() {
    let data =
        [json!({"item": "a", "n": 1}), json!({"item": "b", "n": 2}), json!({"item": "a", "n": 3}), json!({})];
    let rows = |key: &str, reduce: &str| {
        let (rows, end) = fold(key, reduce, &data);
        end.unwrap();
        rows
    };
    let row = |key: &str, value: Value| (key.to_owned(), value);
    assert_eq!(rows(".payload.item", ". + $event.payload.n"), [row("a", json!(4)), row("b", json!(2))]);
    assert_eq!(rows(".payload.n", "1").len(), 3, "a number is a key; null passes the event by");
    assert_eq!(rows(".workflow_id", "(. // 0) + 1"), [row("w", json!(4))]);
    assert_eq!(
        rows("$event.workflow_id", "[$event.version, $event.type, $event.actor, $event.timestamp]"),
        [row("w", json!([4, "SOLD", "shop", "1970-01-02T00:00:00.000000Z"]))]
    );
    assert_eq!(
        rows(".payload.item", "if . == null then 1 else null end"),
        [row("b", json!(1))],
        "null takes a row away"
    );
    assert_eq!(rows("${ .payload.item }", "${ 7 }").len(), 2, "with braces as without");
    assert_eq!(
        rows(".payload.item", "$event | .position, .hash | select(. != null)"),
        [],
        "no places, no hashes"
    );
}

#[test]
fn what_cannot_be_folded_says_why_and_changes_nothing() {
    let before = json!({"item": "a", "bad": false});
    let bad = json!({"item": "a", "bad": true});
    let long = limits::PROJECTION_ROW_MAX_BYTES;
    for (key, reduce, why) in [
        (
            "if .payload.bad then [1] else \"a\" end",
            "1",
            "`key` gives a list, where a key is a text or a number",
        ),
        ("if .payload.bad then \"\" else \"a\" end", "1", "`key` gives a text of 0 bytes"),
        (
            "if .payload.bad then \"x\" * 2000 else \"a\" end",
            "1",
            "`key` gives a text of 2000 bytes; a key has 1 to 1024",
        ),
        ("if .payload.bad then error(\"mine\") else \"a\" end", "1", "`key`: mine"),
        (
            "\"a\"",
            "if $event.payload.bad then [range(1e12)] else 1 end",
            "`reduce`: the expression was stopped",
        ),
        (
            "\"a\"",
            "if $event.payload.bad then def f: f; f else 1 end",
            "`reduce`: the expression was stopped",
        ),
        (
            "\"a\"",
            &format!("if $event.payload.bad then \"x\" * {long} else 1 end"),
            "`reduce` makes a row of more than 256 KiB",
        ),
        (
            "\"a\"",
            "if $event.payload.bad then (1, 2) else 1 end",
            "`reduce`: the expression gives more than one value",
        ),
    ] {
        let (rows, end) = fold(key, reduce, &[before.clone(), bad.clone()]);
        let said = end.unwrap_err();
        assert!(said.contains(why), "{said}");
        assert_eq!(rows, [("a".to_owned(), json!(1))], "{said}");
    }
}

#[test]
fn a_version_is_what_it_is_called_or_what_it_says() {
    let version = |text: &str| load_projection(text).unwrap().version().to_owned();
    const REST: &str = "name: p\nevents: [A]\nkey: '1'\nreduce: '1'\n";
    assert_eq!(version(&format!("{REST}version: 2\n")), "2");
    assert_eq!(version(&format!("{REST}version: two\n")), "two");
    assert_eq!(version(REST), version(&format!("# another comment\n{REST}")), "made of the content");
    assert_ne!(version(REST), version(&REST.replace("reduce: '1'", "reduce: '2'")));
    for wrong in
        ["version: ''", "version: true", &format!("version: {}", "x".repeat(65)), "events: [A, 1]", "name: 9"]
    {
        let text = match wrong.split_once(':').unwrap().0 {
            "version" => format!("{REST}{wrong}\n"),
            "events" => REST.replace("events: [A]", wrong),
            _ => REST.replace("name: p", wrong),
        };
        assert!(load_projection(&text).is_err(), "{text}");
    }
}
