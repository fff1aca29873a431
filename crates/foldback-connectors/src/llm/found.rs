//! Finding the JSON in what a model wrote: models put it into a Markdown fence, behind their
//! thoughts, behind a sentence. It is taken where there is one way to take it, and how it was found
//! is told. It never mends JSON, and never chooses between two answers.

use serde::de::IgnoredAny;
use serde_json::Value;

/// The beginning and the end of what a model thinks aloud.
const THOUGHTS: (&str, &str) = ("<think>", "</think>");

/// JSON, and how it was found: by nothing where it is all that was written.
#[derive(Debug, PartialEq)]
pub(super) struct Found {
    pub(super) value: Value,
    pub(super) how: Vec<&'static str>,
}

/// Behind what the model thought aloud.
pub(super) const THINK: &str = "think";
/// In a Markdown fence.
const FENCE: &str = "fence";
/// Among words.
const PROSE: &str = "prose";
/// In what a server tells as the model's thoughts, apart from an empty answer.
pub(super) const REASONING: &str = "reasoning";

/// The JSON in a text.
///
/// # Errors
/// There is none, or more than one could be meant: why.
pub(super) fn json(text: &str) -> Result<Found, String> {
    let whole = text.trim_start_matches('\u{feff}').trim();
    let first = match foldback_core::json::parse(whole) {
        Ok(value) => return Ok(Found { value, how: Vec::new() }),
        Err(why) => why,
    };
    // What is thought aloud may hold drafts of the answer.
    let (rest, is_behind) = behind_thoughts(whole);
    if rest.starts_with(THOUGHTS.0) {
        return Err(format!("the answer is no JSON: the model thought, and did not answer ({first})"));
    }
    let mut how = if is_behind { vec![THINK] } else { Vec::new() };
    if is_behind && let Ok(value) = foldback_core::json::parse(rest) {
        return Ok(Found { value, how });
    }
    let (place, mut candidates) = match fenced(rest) {
        Some(found) => (FENCE, found?),
        None => (PROSE, documents(rest)),
    };
    let mut distinct: Vec<Value> = Vec::new();
    for value in candidates.drain(..) {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    match distinct.len() {
        0 => Err(format!("the answer is no JSON: {first}")),
        1 => {
            how.push(place);
            Ok(Found { value: distinct.remove(0), how })
        }
        n => Err(format!("the answer holds {n} JSON values, and only one can be meant")),
    }
}

/// A text without the thoughts before it; they end in the text where they did not begin in it, as the
/// prompt of some models begins them.
fn behind_thoughts(text: &str) -> (&str, bool) {
    match text.rsplit_once(THOUGHTS.1) {
        Some((_, rest)) => (rest.trim(), true),
        None => (text, false),
    }
}

/// An answer in words without the thoughts before it; `None` where none stand there.
pub(super) fn words(text: &str) -> Option<&str> {
    let (_, rest) = text.trim_start().strip_prefix(THOUGHTS.0)?.split_once(THOUGHTS.1)?;
    Some(rest.trim())
}

/// What could be meant by a text with Markdown fences; `None` where it has none. What stands beside a fence that
/// can be read, or in one that cannot, is not taken: but it speaks against what is.
///
/// # Errors
/// A fence can be read, and something beside it looks like an answer and cannot.
fn fenced(text: &str) -> Option<Result<Vec<Value>, String>> {
    let (fences, words) = fences(text);
    if fences.is_empty() {
        return None;
    }
    let (mut values, mut beside) = (Vec::new(), words);
    for fence in fences {
        match foldback_core::json::parse(fence.inner) {
            Ok(value) => values.push(value),
            // Code in another language is no answer, also where it holds brackets.
            Err(_) if fence.may_hold_json() => beside.push(fence.inner),
            Err(_) => {}
        }
    }
    if !values.is_empty() {
        for part in beside {
            match rivals(part) {
                Some(found) => values.extend(found),
                None => {
                    let told = "the answer holds JSON in a fence, and beside it some that cannot be read";
                    return Some(Err(told.to_owned()));
                }
            }
        }
    }
    Some(Ok(values))
}

/// A Markdown fence.
struct Fence<'a> {
    /// What it says it holds: json, JSON, json5, python; or nothing.
    language: &'a str,
    /// What it holds.
    inner: &'a str,
}

impl Fence<'_> {
    fn may_hold_json(&self) -> bool {
        self.language.is_empty() || self.language.to_ascii_lowercase().starts_with("json")
    }
}

/// The Markdown fences of a text, the last of which may lack its end; and what stands outside of them.
fn fences(text: &str) -> (Vec<Fence<'_>>, Vec<&str>) {
    let (mut found, mut words, mut rest) = (Vec::new(), Vec::new(), text);
    while let Some((before, after)) = rest.split_once("```") {
        words.push(before);
        let word = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let (language, inner) = after.split_at(word);
        let (inner, next) = inner.split_once("```").unwrap_or((inner, ""));
        found.push(Fence { language, inner: inner.trim() });
        rest = next;
    }
    words.push(rest);
    (found, words)
}

/// What else could be meant beside a fence that can be read. `None` where something begins like an answer, and
/// is cut or is no JSON. A list that is none is a word in brackets, such as a link.
fn rivals(text: &str) -> Option<Vec<Value>> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '[']) {
        let here = &rest[at..];
        let mut reading = serde_json::Deserializer::from_str(here).into_iter::<IgnoredAny>();
        match reading.next() {
            Some(Ok(_)) => {
                let (document, behind) = here.split_at(reading.byte_offset());
                found.push(foldback_core::json::parse(document).ok()?);
                rest = behind;
            }
            Some(Err(why)) if here.starts_with('[') && !why.is_eof() => rest = &here[1..],
            Some(Err(_)) | None => return None,
        }
    }
    Some(found)
}

/// The objects and lists that stand among the words of a text.
fn documents(text: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '[']) {
        let here = &rest[at..];
        let mut reading = serde_json::Deserializer::from_str(here).into_iter::<IgnoredAny>();
        let is_whole = matches!(reading.next(), Some(Ok(_)));
        let (document, behind) = here.split_at(reading.byte_offset());
        match foldback_core::json::parse(document) {
            Ok(value) if is_whole => {
                rest = behind;
                found.push(value);
            }
            // Half an answer is none, and what is inside it is not the answer either.
            _ => return Vec::new(),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_by_where_they_stand() {
        let one = || json!({"n": 1});
        for (text, expected) in [
            ("{\"n\": 1}", Ok((one(), vec![]))),
            ("\u{feff} {\"n\": 1}\n", Ok((one(), vec![]))),
            ("\"text\"", Ok((json!("text"), vec![]))),
            ("```json\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            ("```JSON\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            ("```\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            ("```{\"n\": 1}```", Ok((one(), vec![FENCE]))),
            ("```json\n{\"n\": 1}\n", Ok((one(), vec![FENCE]))),
            ("Here it is:\n```json\n{\"n\": 1}\n```\nEnjoy!", Ok((one(), vec![FENCE]))),
            ("Sure! {\"n\": 1} as you wished.", Ok((one(), vec![PROSE]))),
            ("<think>{\"n\": 2}?</think>{\"n\": 1}", Ok((one(), vec![THINK]))),
            ("{\"n\": 2}?\n</think>\n\n{\"n\": 1}", Ok((one(), vec![THINK]))),
            ("<think>hm</think>\n```json\n{\"n\": 1}\n```", Ok((one(), vec![THINK, FENCE]))),
            ("```json\n{\"n\": 1}\n```\n```json\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            ("```json\n{\"n\": 1}\n```\n```json\n{\"n\": 2}\n```", Err("holds 2 JSON values")),
            ("{\"n\": 1} or {\"n\": 2}", Err("holds 2 JSON values")),
            ("<think>{\"n\": 1}", Err("did not answer")),
            ("{\"n\": 1, \"in\": {\"n\": 2}", Err("is no JSON")),
            ("```json\n{\"n\": \n", Err("is no JSON")),
            ("no", Err("is no JSON")),
            // Beside a fence that can be read.
            ("```json\n{\"n\": 1}\n```\nBetter:\n```json\n{\"n\":", Err("cannot be read")),
            ("```json\n{\"n\": 1}\n```\nBetter:\n```\n{n: 2}\n```", Err("cannot be read")),
            ("```json\n{\"n\": 1}\n```\nBetter: {\"n\": 2", Err("cannot be read")),
            ("```json\n{\"n\": 1}\n```\nBetter: [{\"n\": 2}, oh", Err("holds 2 JSON values")),
            ("```json\n{\"n\": 1}\n```\nBetter: {\"n\": 2}", Err("holds 2 JSON values")),
            ("```python [1,2]```\nResult: {\"n\": 1}", Err("holds 2 JSON values")),
            ("```\nx = {\"n\": 2}\n```\n```json\n{\"n\": 1}\n```", Err("holds 2 JSON values")),
            ("{\"n\": 1}: \n```json\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            ("As [told](http://x.test/):\n```json\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            ("```sh\nnpm i\n```\n```json\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            ("```js\nif (x) { go() }\n```\n```json\n{\"n\": 1}\n```", Ok((one(), vec![FENCE]))),
            // In none that can be read.
            ("```python\nprint(1)\n```\nResult: {\"n\": 1}", Err("is no JSON")),
        ] {
            match (json(text), expected) {
                (Ok(found), Ok((value, how))) => assert_eq!((found.value, found.how), (value, how), "{text}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn words_by_where_they_stand() {
        for (text, expected) in [
            ("<think>hm</think>\n\nHello.", Some("Hello.")),
            ("Hello.", None),
            ("Use <think>…</think> like this.", None),
            ("<think>hm</think>", Some("")),
            ("<think>hm", None),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }
}
