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
    let fences = fences(rest);
    let (place, candidates) = match fences.is_empty() {
        false => {
            (FENCE, fences.into_iter().filter_map(|inner| foldback_core::json::parse(inner).ok()).collect())
        }
        true => (PROSE, documents(rest)),
    };
    let mut candidates: Vec<Value> = candidates;
    candidates.dedup();
    match candidates.len() {
        0 => Err(format!("the answer is no JSON: {first}")),
        1 => {
            how.push(place);
            Ok(Found { value: candidates.remove(0), how })
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

/// What stands in the Markdown fences of a text; the last one may lack its end.
fn fences(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("```") {
        // Behind the fence may stand what it holds: json, JSON, json5.
        let word = after.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(after.len());
        let inner = &after[word..];
        let (inner, next) = inner.split_once("```").unwrap_or((inner, ""));
        found.push(inner.trim());
        rest = next;
    }
    found
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
