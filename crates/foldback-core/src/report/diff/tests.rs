//! Two small logs are given; what the comparison says of them is compared as text.

use std::fmt::Write;

use serde_json::json;

use super::super::stories::{Script, set, step};
use super::*;
use crate::program::{Ask, StepAsk};
use crate::rehearse::rehearse;
use crate::state::Step;
use crate::step::{Outcome, Usage, error_type};
use crate::{Fact, limits};

/// What a step of these logs answers: a value, or how it failed.
type Answer = (&'static str, Result<Value, u16>);

/// A log: an input, what is asked, and what is answered to a key; all else is answered with `ok`.
fn log(input: Value, asks: Vec<Ask>, answers: &[Answer]) -> Vec<Event> {
    let world = |key: &Key, _: &Step, _: u32| match answers.iter().find(|(of, _)| *of == key.as_str()) {
        Some((_, Err(status))) => Outcome::Failed {
            error: Failure::new(error_type::COMMUNICATION, *status, "Refused", "no"),
            retry_after_ms: None,
            usage: None,
        },
        Some((_, Ok(output))) => Outcome::Completed { output: output.clone(), usage: Some(used(output)) },
        None => Outcome::Completed { output: json!("ok"), usage: None },
    };
    rehearse(&Script(asks), "w", input, &world).events
}

/// The longer the answer, the dearer.
fn used(output: &Value) -> Usage {
    let length = output.to_string().len() as u64;
    Usage { model: "small".into(), output_tokens: length, micro_usd: Some(length * 7), ..Usage::default() }
}

fn decide(key: &str, chosen: &str, because: Value) -> Ask {
    let options = vec!["publish".to_owned(), "revise".to_owned()];
    Ask::Decide { key: Key::from(key), chosen: chosen.to_owned(), options, because, finishes: true }
}

fn ask(key: &str, request: Value) -> Ask {
    Ask::Step(Box::new(StepAsk::new(Key::from(key), "llm", Effect::Read, request)))
}

fn compared(a: &[Event], b: &[Event]) -> Comparison {
    diff(Past { workflow_id: "w", events: a }, Past { workflow_id: "w", events: b })
}

/// Drafts, judges by a score, publishes.
fn article(prompt: &str, draft: &str, score: f64) -> Vec<Event> {
    let chosen = if score < 0.5 { "revise" } else { "publish" };
    let mut asks = vec![
        set("plan", json!({"topic": "rust"})),
        ask("draft", json!({"model": "x/small", "prompt": prompt})),
        ask("critique", json!({"model": "x/small", "text": draft})),
        decide("check", chosen, json!({"score": score})),
    ];
    if chosen == "publish" {
        asks.push(step("publish", "http", Effect::Write));
    }
    log(
        json!({"n": 1}),
        asks,
        &[("draft", Ok(json!(draft))), ("critique", Ok(json!({"score": score, "why": ["a", "b"]})))],
    )
}

fn named_or_root(key: &Key) -> &str {
    if key.is_root() { "." } else { key.as_str() }
}

fn text_of(words: &[Word]) -> String {
    let piece = |word: &Word| match word {
        Word::Same(text) => text.clone(),
        Word::Removed(text) => format!("[-{text}-]"),
        Word::Added(text) => format!("{{+{text}+}}"),
    };
    words.iter().map(piece).collect()
}

fn told(found: &Comparison) -> String {
    let mut text = String::new();
    if let Some(first) = &found.first {
        let _ = writeln!(text, "first {} {}", named_or_root(&first.key), first.what.as_str());
    }
    let json = |value: &Option<Arc<Value>>| value.as_ref().map_or("-".to_owned(), |value| value.to_string());
    for difference in &found.differences {
        let _ = write!(text, "{} {}:", named_or_root(&difference.key), difference.what.as_str());
        match &difference.compared {
            Compared::Whole {} => {
                let _ = write!(text, " {} → {}", json(&difference.a), json(&difference.b));
            }
            Compared::Words { words } => text.extend([" ", &text_of(words)]),
            Compared::Lengths { a_bytes, b_bytes } => {
                let _ = write!(text, " {a_bytes} bytes → {b_bytes} bytes");
            }
            Compared::Paths { paths, left_out } => {
                for place in paths {
                    let side = |value: &Option<Value>| value.as_ref().map_or("-".into(), Value::to_string);
                    let shown = match &place.words {
                        Some(words) => text_of(words),
                        None => format!("{} → {}", side(&place.a), side(&place.b)),
                    };
                    let _ = write!(text, " {} {shown};", place.path);
                }
                if *left_out > 0 {
                    let _ = write!(text, " and {left_out} more");
                }
            }
        }
        text.push('\n');
    }
    for (title, keys) in [("only in a", &found.only_in_a), ("only in b", &found.only_in_b)] {
        if !keys.is_empty() {
            let keys: Vec<&str> = keys.iter().map(Key::as_str).collect();
            let _ = writeln!(text, "{title}: {}", keys.join(", "));
        }
    }
    let _ = writeln!(text, "{} equal", found.equal);
    text
}

#[test]
fn two_logs_and_what_differs() {
    let good = || article("Write about Rust.", "Rust is a fine language", 0.9);
    let short = |asks: Vec<Ask>, answers: &[Answer]| log(json!({"n": 1}), asks, answers);
    let table = [
        ("nothing differs", good(), good(), "5 equal\n"),
        (
            "an answer, and all that follows from it",
            good(),
            article("Write about Rust.", "Rust is a slow and old language", 0.4),
            "first draft output
draft output: Rust is a [-fine-]{+slow and old+} language
critique request: /text Rust is a [-fine-]{+slow and old+} language;
critique output: /score 0.9 → 0.4;
check chosen: \"publish\" → \"revise\"
check because: /score 0.9 → 0.4;
only in a: publish
1 equal
",
        ),
        (
            "a request",
            good(),
            article("Write on Rust!", "Rust is a fine language", 0.9),
            "first draft request
draft request: /prompt Write [-about-]{+on+} Rust[-.-]{+!+};
4 equal
",
        ),
        (
            "the input alone",
            log(json!({"n": 1, "tags": ["x", "y"]}), vec![], &[]),
            log(json!({"n": 1.0, "tags": ["w", "x", "y"], "a/b~": null}), vec![], &[]),
            "first . input
. input: /tags/0 - → \"w\"; /a~1b~0 - → null;
0 equal
",
        ),
        (
            "how it ended",
            short(vec![ask("a", json!({})), ask("b", json!({}))], &[]),
            short(vec![ask("a", json!({})), ask("b", json!({}))], &[("b", Err(500))]),
            "first b status
b status: \"completed\" → \"failed\"
b error: - → {\"type\":\"https://open-workflow-specification.org/dsl/errors/types/communication\",\"status\":500,\"title\":\"Refused\",\"detail\":\"no\"}
b output: \"ok\" → -
. status: \"completed\" → \"failed\"
. error: - → {\"type\":\"https://open-workflow-specification.org/dsl/errors/types/communication\",\"status\":500,\"title\":\"Refused\",\"detail\":\"no\"}
. output: \"the end\" → -
1 equal
",
        ),
        (
            "another order is no difference, another kind is one",
            short(vec![set("x", json!(1)), set("y", json!(2)), set("z", json!(3))], &[]),
            short(vec![set("y", json!(2)), set("x", json!(1)), ask("z", json!({}))], &[]),
            "first z kind
z kind: \"set\" → \"llm\"
z effect: \"pure\" → \"read\"
z input: null → -
z output:  3 → \"ok\";
z request: - → {}
2 equal
",
        ),
        (
            "the end of both, where one is longer",
            short(vec![set("x", json!(1))], &[]),
            short(vec![set("first", json!(0)), set("x", json!(2)), set("y", json!(2))], &[]),
            "first first only_in_b
x output:  1 → 2;
only in b: first, y
0 equal
",
        ),
    ];
    for (name, a, b, wanted) in table {
        assert_eq!(told(&compared(&a, &b)), wanted, "{name}");
    }
}

/// Logs that differ from each other in every way that there is, cut at every version.
fn logs() -> Vec<Vec<Event>> {
    let whole = [
        article("Write about Rust.", "Rust is a fine language", 0.9),
        article("Write about Rust.", "Rust is a slow and old language", 0.4),
        article("Write on Rust, please", "Rust, a fine old language", 0.9),
        log(json!(null), vec![ask("draft", json!({"model": "x/large"}))], &[("draft", Err(500))]),
        log(json!({"n": 2}), vec![set("draft", json!([1, 2])), decide("plan", "publish", json!(null))], &[]),
        log(
            json!({"n": 2}),
            vec![set("z", json!([1])), set("draft", json!([2, 2])), set("a", json!(1))],
            &[],
        ),
        // The same keys in another order.
        log(json!({"n": 2}), vec![set("draft", json!([3])), set("a", json!(9)), set("z", json!(0))], &[]),
    ];
    let cut = |events: &Vec<Event>| (1..=events.len()).map(|end| events[..end].to_vec()).collect::<Vec<_>>();
    whole.iter().flat_map(cut).collect()
}

/// What a comparison says, seen from the other side; order and words aside.
fn mirrored(found: &Comparison) -> Comparison {
    let mut found = found.clone();
    (found.a, found.b) = (found.b, found.a);
    (found.totals.a, found.totals.b) = (found.totals.b, found.totals.a);
    (found.only_in_a, found.only_in_b) = (found.only_in_b, found.only_in_a);
    if let Some(first) = &mut found.first {
        first.what = match first.what {
            Facet::OnlyInA => Facet::OnlyInB,
            Facet::OnlyInB => Facet::OnlyInA,
            what => what,
        };
    }
    for difference in &mut found.differences {
        (difference.a, difference.b) = (difference.b.take(), difference.a.take());
        if let Compared::Paths { paths, .. } = &mut difference.compared {
            for place in paths {
                (place.a, place.b) = (place.b.take(), place.a.take());
            }
        }
    }
    for figures in &mut found.figures {
        (figures.a, figures.b) = (figures.b, figures.a);
    }
    found
}

fn in_one_order(mut found: Comparison) -> Comparison {
    for difference in &mut found.differences {
        match &mut difference.compared {
            Compared::Words { words } => words.clear(),
            Compared::Paths { paths, .. } => {
                paths.iter_mut().for_each(|place| place.words = None);
                paths.sort_by(|a, b| a.path.cmp(&b.path));
            }
            Compared::Whole {} | Compared::Lengths { .. } => {}
        }
    }
    found.differences.sort_by(|a, b| (&a.key, a.what.as_str()).cmp(&(&b.key, b.what.as_str())));
    found.figures.sort_by(|a, b| a.key.cmp(&b.key));
    found
}

#[test]
fn a_log_is_the_same_as_itself_and_two_mirror_each_other() {
    let logs = logs();
    for (at, a) in logs.iter().enumerate() {
        for (other, b) in logs.iter().enumerate() {
            let (found, back) = (compared(a, b), compared(b, a));
            assert_eq!(in_one_order(mirrored(&found)), in_one_order(back), "{at} and {other}");
            let is_silent =
                found.differences.is_empty() && found.only_in_a.is_empty() && found.only_in_b.is_empty();
            assert_eq!((found.is_same, found.first.is_none()), (is_silent, is_silent), "{at} and {other}");
            assert!(at != other || found.is_same, "{at}: {}", told(&found));
        }
    }
}

#[test]
fn the_words_of_a_comparison_are_both_texts() {
    let texts = [
        "",
        "one",
        "one two",
        "Rust is a fine language.\n\nAnd old.",
        "Rust, is a  slow\tlanguage",
        "漢字 und Wörter, [-x-]{+y+}",
    ];
    for a in texts {
        for b in texts.iter().filter(|b| **b != a) {
            let Compared::Words { words } =
                values::compare(&json!(a), &json!(b), &mut values::Texts::default())
            else {
                panic!("two texts have words")
            };
            let (mut one, mut other) = (String::new(), String::new());
            for word in &words {
                match word {
                    Word::Same(text) => (one.push_str(text), other.push_str(text)).0,
                    Word::Removed(text) => one.push_str(text),
                    Word::Added(text) => other.push_str(text),
                }
            }
            assert_eq!((one.as_str(), other.as_str()), (a, *b));
        }
    }
}

#[test]
fn time_tokens_and_cost_are_told_and_make_no_difference() {
    let a = article("Write about Rust.", "Rust is a fine language", 0.9);
    let mut b = a.clone();
    for (at, event) in b.iter_mut().enumerate() {
        event.timestamp += 5_000_000 * at as i64;
        if let Fact::StepCompleted(done) = &mut event.fact
            && let Some(usage) = &mut done.usage
        {
            (usage.input_tokens, usage.micro_usd) = (usage.input_tokens + 9, None);
        }
    }
    let found = compared(&a, &b);
    assert!(found.is_same && found.figures.is_empty(), "{}", told(&found));
    let (one, other) = (found.totals.a, found.totals.b);
    assert_eq!((one.steps, other.tokens.input), (other.steps, one.tokens.input + 18));
    assert!(other.duration_ms > one.duration_ms + 5_000 && one.micro_usd > 0 && other.micro_usd == 0);
}

#[test]
fn a_workflow_that_was_reopened_is_compared_by_what_it_came_to() {
    let asks = || vec![ask("a", json!({})), ask("b", json!({})), ask("c", json!({}))];
    let straight = log(json!(1), asks(), &[]);
    let failed = log(json!(1), asks(), &[("b", Err(500))]);
    // Asked anew behind its failure, as when a person reopened it.
    let mut reopened = failed[..failed.len() - 1].to_vec();
    let asked = |event: &Event| matches!(&event.fact, Fact::StepAsked(asked) if asked.key.as_str() == "b");
    let again = straight.iter().skip_while(|event| !asked(event)).cloned();
    reopened.extend(again);
    for (at, event) in reopened.iter_mut().enumerate() {
        event.version = at as u64 + 1;
    }
    let found = compared(&reopened, &straight);
    assert_eq!((found.is_same, found.equal), (true, 3), "{}", told(&found));
    assert!(!compared(&reopened, &failed).is_same);
}

#[test]
fn a_step_that_differs_says_what_it_took() {
    let one = article("Write about Rust.", "Rust is a fine language", 0.9);
    let other = article("Write about Rust.", "Rust is fine", 0.9);
    let figures = compared(&one, &other).figures;
    assert_eq!(figures[0].key.as_str(), "draft");
    assert_eq!((figures[0].a.tokens.output, figures[0].b.tokens.output), (25, 14));
    assert_eq!((figures[0].a.micro_usd, figures[0].b.micro_usd), (Some(175), Some(98)));
}

#[test]
fn texts_and_places_beyond_a_bound_are_counted() {
    let long = |word: &str| json!(word.repeat(limits::DIFF_TEXT_MAX_BYTES / word.len() + 1));
    let texts = &mut values::Texts::default();
    assert_eq!(
        values::compare(&long("a "), &json!("a"), texts),
        Compared::Lengths { a_bytes: limits::DIFF_TEXT_MAX_BYTES + 2, b_bytes: 1 }
    );
    let Compared::Paths { paths, .. } = values::compare(&json!([long("a ")]), &json!(["a"]), texts) else {
        panic!("lists have places")
    };
    assert_eq!((paths[0].path.as_str(), &paths[0].words), ("/0", &None));
    let many = |n: usize| json!((0..limits::DIFF_PATHS_MAX + 7).map(|_| n).collect::<Vec<_>>());
    let Compared::Paths { paths, left_out } = values::compare(&many(1), &many(2), texts) else {
        panic!("lists have places")
    };
    assert_eq!((paths.len(), left_out), (limits::DIFF_PATHS_MAX, 7));
    // All texts of a comparison share one bound.
    let texts_of =
        |word: &str| json!((0..limits::DIFF_PATHS_MAX).map(|_| word.repeat(4_000)).collect::<Vec<_>>());
    let texts = &mut values::Texts::default();
    let Compared::Paths { paths, .. } = values::compare(&texts_of("a"), &texts_of("b"), texts) else {
        panic!("lists have places")
    };
    let with_words = paths.iter().filter(|place| place.words.is_some()).count();
    assert_eq!((paths.len(), with_words), (limits::DIFF_PATHS_MAX, limits::DIFF_TEXTS_MAX_BYTES / 8_000));
}

#[test]
fn whole_numbers_are_compared_as_what_they_are() {
    let cases = [
        (json!(1), json!(1.0), true),
        (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), false),
        (json!({"a": 1, "b": [0.5]}), json!({"b": [0.5], "a": 1.0}), true),
        (json!({"a": null}), json!({}), false),
        (json!("1"), json!(1), false),
    ];
    for (a, b, wanted) in cases {
        assert_eq!(values::is_equal(&a, &b), wanted, "{a} {b}");
    }
}
