//! Expressions give what jq gives. What jq 1.8.2 gives is recorded in `jq/recorded.jsonl` by
//! `scripts/jq_reference.py`, so this runs without a jq; where Foldback differs on purpose stands in
//! `jq/differences.txt`, each under the name of its row in `docs/profile.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use foldback_ows::try_outputs;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    program: String,
    input: Value,
    #[serde(default)]
    refused: bool,
    #[serde(default)]
    outputs: Vec<Value>,
    error: Option<String>,
}

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/jq")
}

/// Equal but for the last digits of a float.
fn is_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_f64(), y.as_f64()) {
            (Some(x), Some(y)) => (x - y).abs() <= x.abs().max(y.abs()) * 1e-14,
            _ => x == y,
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_equal(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_equal(a, b)))
        }
        (a, b) => a == b,
    }
}

/// Whether a difference of a random program is one of those that `docs/profile.md` tells of.
fn is_told(case: &Case, difference: &str) -> bool {
    // What says itself on which row it stands.
    let rows = ["JSON has no word for", "has no word in JSON", "of bytes that are no text"];
    rows.iter().any(|row| difference.contains(row))
        || is_swallowed(case)
        || has_a_signed_zero(case)
        || steps_over_a_letter(case)
}

/// What would say itself, and is caught by the program: letters in the place of bytes that are no text, and the
/// message of `fromjson`.
fn is_swallowed(case: &Case) -> bool {
    let theirs = Value::from(case.outputs.clone()).to_string();
    let decodes = ["@base64d", "@urid"].iter().any(|name| case.program.contains(name));
    decodes && theirs.contains('\u{fffd}')
        || case.program.contains("fromjson") && theirs.contains("(while parsing")
}

/// "spelling of numbers": a whole zero has no sign, and in a text that shows. Everything else is the same.
fn has_a_signed_zero(case: &Case) -> bool {
    let Ok((outputs, None)) = try_outputs(&case.program, &case.input) else { return false };
    let unsigned: Vec<Value> = case.outputs.iter().map(without_signed_zeros).collect();
    unsigned != case.outputs && case.error.is_none() && outputs == unsigned
}

fn without_signed_zeros(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let mut parts = text.split("-0");
            let first = parts.next().unwrap_or_default().to_owned();
            let is_more = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit() || c == '.');
            Value::from(
                parts.fold(first, |so_far, rest| so_far + if is_more(rest) { "-0" } else { "0" } + rest),
            )
        }
        Value::Array(items) => items.iter().map(without_signed_zeros).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, value)| (name.clone(), without_signed_zeros(value))).collect()
        }
        other => other.clone(),
    }
}

/// "regular expressions": an empty match steps by letters, in jq by bytes. It needs a letter of several bytes,
/// and one of the random patterns that match nothing there, in a filter that looks for all matches.
fn steps_over_a_letter(case: &Case) -> bool {
    let is_empty_there = |pattern: &str| ["\"\"", "\"[ab]?\""].iter().any(|known| pattern.starts_with(known));
    let looks_on = ["splits(", "scan(", "gsub(", "match("];
    let mut calls = looks_on.iter().flat_map(|name| case.program.split(name).skip(1));
    !case.input.to_string().is_ascii() && calls.any(is_empty_there)
}

/// How an expression differs from jq, if it does.
fn difference(case: &Case) -> Option<String> {
    let (outputs, error) = match try_outputs(&case.program, &case.input) {
        Err(_) if case.refused => return None,
        Err(refused) => return Some(format!("refused: {refused}")),
        // More is understood than by jq: nothing that jq says is said differently.
        Ok(_) if case.refused => return None,
        Ok(found) => found,
    };
    let error = error.map(|error| match error {
        Value::String(text) => text,
        other => other.to_string(),
    });
    let is_same_error = match (&error, &case.error) {
        (Some(ours), Some(theirs)) => {
            ours == theirs
                || serde_json::from_str(ours).ok()
                    == serde_json::from_str::<Value>(theirs).ok().filter(|v| v.is_array() || v.is_object())
        }
        (None, None) => true,
        _ => false,
    };
    let is_same = is_same_error
        && outputs.len() == case.outputs.len()
        && outputs.iter().zip(&case.outputs).all(|(a, b)| is_equal(a, b));
    (!is_same).then(|| {
        let show = |outputs: &[Value], error: &Option<String>| {
            format!(
                "{} {}",
                Value::Array(outputs.to_vec()),
                error.as_ref().map_or(String::new(), |e| format!("error {e}"))
            )
        };
        format!("gave {}\n       jq {}", show(&outputs, &error), show(&case.outputs, &case.error))
    })
}

fn cases(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The programs that differ on purpose, each with the name of its row.
fn differences() -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder().join("differences.txt")).expect("differences.txt");
    let lines = text.lines().filter(|line| !line.starts_with("# "));
    lines
        .filter_map(|line| line.split_once(" | "))
        .map(|(row, case)| (case.to_owned(), row.to_owned()))
        .collect()
}

fn compare(cases: &[Case], is_random: bool) {
    let known = differences();
    let mut wrong = Vec::new();
    let mut seen = Vec::new();
    for case in cases {
        let name = match &case.input {
            Value::Null => case.program.clone(),
            input => format!("{} @@ {input}", case.program),
        };
        match (difference(case), known.get(&name)) {
            (None, None) => {}
            (Some(_), Some(_)) => seen.push(name),
            (Some(what), None) if is_random && is_told(case, &what) => {}
            (Some(what), None) => wrong.push(format!("{name}\n     {what}")),
            (None, Some(row)) => wrong.push(format!("{name}\n     is equal, and stands under `{row}`")),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    // A difference that no recorded program shows says nothing.
    assert!(is_random || seen.len() == known.len(), "{} of {} differences were met", seen.len(), known.len());
}

#[test]
fn expressions_give_what_jq_gives() {
    compare(&cases(&folder().join("recorded.jsonl")), false);
}

/// `scripts/jq_reference.py random 100000 SEED FILE`, then `JQ_CASES=FILE`: `make torture` does both.
#[test]
#[ignore = "needs a file that scripts/jq_reference.py made"]
fn many_random_expressions_give_what_jq_gives() {
    let path = std::env::var("JQ_CASES").expect("JQ_CASES names the file");
    compare(&cases(Path::new(&path)), true);
}

/// Each row that a difference names stands in the profile.
#[test]
fn differences_stand_in_the_profile() {
    let profile = fs::read_to_string(folder().join("../../../../docs/profile.md")).expect("docs/profile.md");
    for (case, row) in differences() {
        assert!(profile.contains(&format!("| {row} |")), "`{row}` ({case}) is no row of docs/profile.md");
    }
}
