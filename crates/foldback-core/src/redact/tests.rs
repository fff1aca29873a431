//! Rules as tables.

use serde_json::json;

use super::*;
use crate::decide::Stimulus;
use crate::step::{Failure, Outcome, Usage, error_type};
use crate::{Hash, Key};

fn path(path: &str) -> RuleText {
    RuleText { path: Some(path.into()), ..RuleText::default() }
}

fn pattern(pattern: &str) -> RuleText {
    RuleText { pattern: Some(pattern.into()), ..RuleText::default() }
}

fn of(rules: &[RuleText]) -> Redaction {
    Redaction::of(rules).expect("good rules")
}

#[test]
fn a_path_finds_its_values_and_no_others() {
    let value = json!({
        "a": {"b": "x", "c": ["y", {"b": "z"}]}, "b": 1, "n": null, "odd name": true, "l": [[1, 2], [3]]
    });
    let r = "[redacted]";
    let table = [
        ("$", json!(r)),
        (
            "$.b",
            json!({"a": {"b": "x", "c": ["y", {"b": "z"}]}, "b": r, "n": null, "odd name": true, "l": [[1, 2], [3]]}),
        ),
        (
            "$.a.b",
            json!({"a": {"b": r, "c": ["y", {"b": "z"}]}, "b": 1, "n": null, "odd name": true, "l": [[1, 2], [3]]}),
        ),
        (
            "$..b",
            json!({"a": {"b": r, "c": ["y", {"b": r}]}, "b": r, "n": null, "odd name": true, "l": [[1, 2], [3]]}),
        ),
        (
            "$.a..b",
            json!({"a": {"b": r, "c": ["y", {"b": r}]}, "b": 1, "n": null, "odd name": true, "l": [[1, 2], [3]]}),
        ),
        (
            "$.a.c[*]",
            json!({"a": {"b": "x", "c": [r, r]}, "b": 1, "n": null, "odd name": true, "l": [[1, 2], [3]]}),
        ),
        (
            "$.a.c[1].b",
            json!({"a": {"b": "x", "c": ["y", {"b": r}]}, "b": 1, "n": null, "odd name": true, "l": [[1, 2], [3]]}),
        ),
        (
            "$['odd name']",
            json!({"a": {"b": "x", "c": ["y", {"b": "z"}]}, "b": 1, "n": null, "odd name": r, "l": [[1, 2], [3]]}),
        ),
        ("$[\"n\"]", value.clone()),
        (
            "$.l..[0]",
            json!({"a": {"b": "x", "c": ["y", {"b": "z"}]}, "b": 1, "n": null, "odd name": true, "l": [r, [r]]}),
        ),
        ("$.*", json!({"a": r, "b": r, "n": null, "odd name": r, "l": r})),
        ("$.nothing.here", value.clone()),
    ];
    for (text, wanted) in table {
        assert_eq!(of(&[path(text)]).value(value.clone()), wanted, "{text}");
    }
}

#[test]
fn many_dots_cost_no_more_than_a_walk() {
    let mut deep = json!("x");
    for _ in 0..100 {
        deep = json!({"a": deep, "b": [1, 2, 3]});
    }
    let rule = path("$..a..a..a..a..a..a..a..a..zzz");
    assert_eq!(of(&[rule]).value(deep.clone()), deep);
}

#[test]
fn a_pattern_finds_texts_names_and_numbers() {
    let rules = [
        RuleText { name: Some("card".into()), ..pattern(r"\b\d{16}\b") },
        RuleText { replace: Some("<mail>".into()), ..pattern(r"[a-z]+@[a-z.]+") },
    ];
    let value = json!({
        "ann@example.org": "write to ann@example.org, bob@x.y", "bob@example.org": 4111111111111111u64,
        "text": "4111111111111111", "n": 41, "ok": [true, null]
    });
    let wanted = json!({
        "<mail>": "write to <mail>, <mail>", "<mail> 2": "[redacted card]",
        "text": "[redacted card]", "n": 41, "ok": [true, null]
    });
    let redaction = of(&rules);
    let once = redaction.value(value);
    assert_eq!(once, wanted);
    assert_eq!(redaction.value(once.clone()), once, "what is redacted is redacted");
    assert_eq!(of(&[pattern("x*")]).value(json!("axxb")), json!("a[redacted]b"), "no match of nothing");
}

#[test]
fn a_bad_rule_is_refused_with_its_member_and_a_way_out() {
    let both = RuleText { path: Some("$.a".into()), ..pattern("a") };
    let table = [
        (RuleText::default(), None, "either a `path` or a `pattern`"),
        (both, None, "either a `path` or a `pattern`"),
        (path("customer"), Some("path"), "`$` is expected at character 1"),
        (path("$customer"), Some("path"), "`.` or `[` is expected at character 2"),
        (path("$.a."), Some("path"), "a name is expected at character 5"),
        (
            path("$.ä..[x]"),
            Some("path"),
            "holds a number, `*` or a name in quotes; this one does not at character 6",
        ),
        (path("$['a"), Some("path"), "at character 2"),
        (path("$.a[?(@.b)]"), Some("path"), "holds a number"),
        (path(&format!("$.{}", "a".repeat(5_000))), Some("path"), "longer than"),
        (pattern(""), Some("pattern"), "is empty"),
        (pattern("(a"), Some("pattern"), "is no regular expression: unclosed group"),
        (pattern(r"\w{1000}{1000}"), Some("pattern"), "too large"),
        (RuleText { replace: Some("aba".into()), ..pattern("b") }, Some("replace"), "found by a rule again"),
        (RuleText { replace: Some("x".repeat(5_000)), ..pattern("b") }, Some("replace"), "longer than"),
    ];
    for (rule, member, wanted) in table {
        let (at, bad) = Redaction::of(&[path("$.good"), rule.clone()]).expect_err("a bad rule");
        assert_eq!((at, bad.member), (1, member), "{rule:?}: {bad:?}");
        assert!(bad.message.contains(wanted) && !bad.hint.is_empty(), "{rule:?}: {bad:?}");
    }
    let many = vec![path("$.a"); limits::REDACT_RULES_MAX + 1];
    assert_eq!(Redaction::of(&many).expect_err("too many").0, limits::REDACT_RULES_MAX);
}

#[test]
fn every_word_of_the_world_is_redacted() {
    let redaction = of(&[path("$..ssn"), pattern("canary")]);
    let value = || json!({"ssn": "078-05-1120", "text": "a canary sings"});
    let error = || {
        let detail = r#"400: {"ssn": "078-05-1120", "why":"canary"} then "ssn":"cut 078-05-1120"#;
        Failure::new(error_type::RUNTIME, 500, "canary", detail)
    };
    let usage = || {
        let raw = Some(value());
        Some(Usage { model: "canary".into(), finish_reason: Some("canary".into()), raw, ..Usage::default() })
    };
    let report = |outcome| Stimulus::Report { key: Key::from("k"), attempt: 1, outcome, latency_ms: 0 };
    let words = [
        Stimulus::Start {
            definition: Hash::ZERO,
            name: "n".into(),
            file: None,
            input: value(),
            lineage: None,
        },
        report(Outcome::Completed { output: value(), usage: usage() }),
        report(Outcome::Failed { error: error(), retry_after_ms: None, usage: usage() }),
        report(Outcome::Rejected { output: value(), error: error(), usage: usage() }),
        report(Outcome::Unknown { reason: error().detail.unwrap_or_default().into() }),
        Stimulus::Resolve { key: Key::from("k"), landed: Some(value()) },
        Stimulus::Record { event_type: "E".into(), data: value() },
    ];
    for word in words {
        let before = format!("{word:?}");
        assert!(before.contains("canary") && before.contains("078-05-1120"), "this test can fail: {before}");
        let after = format!("{:?}", redaction.stimulus(word));
        assert!(!after.contains("canary") && !after.contains("078-05-1120"), "{after}");
    }
}
