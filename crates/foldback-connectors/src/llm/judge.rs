//! Judging an answer: whether it is what was asked for.

use foldback_core::step::error_type;
use foldback_core::{Failure, Outcome, Usage};
use jsonschema::Validator;
use serde_json::Value;

use super::found::{self, Found};
use super::model::Answer;
use crate::request::wrong;

/// Misses of a schema that a failure tells.
const MISSES_MAX: usize = 5;

/// What an answer is measured by.
pub(super) struct Judge {
    schema: Option<Validator>,
    /// The bound on tokens that the author set.
    bound: Option<u32>,
}

impl Judge {
    /// A judge by a JSON Schema; without one every answer is accepted as text.
    ///
    /// # Errors
    /// A schema that is none. References to other documents are not fetched, and are errors.
    pub(super) fn of(schema: Option<&Value>, bound: Option<u32>) -> Result<Judge, Failure> {
        let refused = |why: jsonschema::ValidationError<'_>| {
            wrong("llm", &format!("`schema` at `{}`: {why}", why.instance_path()))
        };
        let schema = schema.map(|schema| jsonschema::validator_for(schema).map_err(refused)).transpose()?;
        Ok(Judge { schema, bound })
    }

    /// The outcome of an answer.
    pub(super) fn judge(&self, answer: Answer) -> Outcome {
        let Some(validator) = &self.schema else {
            return self.judge_text(answer);
        };
        let Answer { text, thoughts, mut usage, is_cut, .. } = answer;
        if text.trim().is_empty()
            && let Some(Found { value, how }) = self.thought(&thoughts).filter(|_| !is_cut)
        {
            usage.found_in = Some([vec![found::REASONING], how].concat().join(", "));
            return Outcome::Completed { output: value, usage: Some(usage) };
        }
        let (output, why) = match found::json(&text) {
            Ok(Found { value, how }) => {
                usage.found_in = (!how.is_empty()).then(|| how.join(", "));
                match misses(validator, &value) {
                    None => return Outcome::Completed { output: value, usage: Some(usage) },
                    Some(why) => (value, why),
                }
            }
            Err(why) if text.trim().is_empty() => {
                (Value::String(text), format!("the answer is empty ({why})"))
            }
            Err(why) => (Value::String(text), why),
        };
        let usage = Some(usage);
        let why = if is_cut {
            format!("the answer was cut at its bound of tokens; {why}; hint: {}", self.more_room())
        } else {
            why
        };
        let error = Failure::new(error_type::VALIDATION, 400, "The answer misses its schema", why);
        Outcome::Rejected { output, error, usage }
    }
}

impl Judge {
    /// What keeps to the schema of what a model thought: its server told the answer as a thought.
    fn thought(&self, thoughts: &str) -> Option<Found> {
        let validator = self.schema.as_ref()?;
        found::json(thoughts).ok().filter(|found| misses(validator, &found.value).is_none())
    }

    /// Text is right as it is, so long as there is some and nobody cut it unasked.
    fn judge_text(&self, answer: Answer) -> Outcome {
        let Answer { text, mut usage, is_cut, called, .. } = answer;
        let text = match found::words(&text) {
            Some(words) => {
                usage.found_in = Some(found::THINK.to_owned());
                words.to_owned()
            }
            None => text,
        };
        // Asking the same again would end in the same way, at the same cost.
        let failed = |kind: &str, status: u16, title: &str, detail: String, usage: Usage| Outcome::Failed {
            error: Failure::new(kind, status, title, detail).non_retryable(),
            retry_after_ms: None,
            usage: Some(usage),
        };
        let is_empty = text.trim().is_empty();
        if is_cut && (is_empty || self.bound.is_none()) {
            let detail = format!(
                "the model was cut short after {} tokens and {} characters; hint: {}",
                usage.output_tokens,
                text.chars().count(),
                self.more_room()
            );
            return failed(error_type::RUNTIME, 422, "The answer was cut short", detail, usage);
        }
        if is_empty {
            let detail = match called {
                Some(tool) => format!(
                    "the model called the tool `{}` and said nothing; hint: say in the prompt that it is to answer in words",
                    crate::web::first_chars(&tool, 60)
                ),
                None => "the model ended its answer without a word; hint: a retry in `catch` asks it again"
                    .to_owned(),
            };
            return failed(error_type::COMMUNICATION, 502, "Empty answer", detail, usage);
        }
        Outcome::Completed { output: Value::String(text), usage: Some(usage) }
    }

    fn more_room(&self) -> String {
        match self.bound {
            Some(bound) => format!("raise `max_tokens`, now {bound}"),
            None => "set `max_tokens` above the provider's own bound, or ask for less".to_owned(),
        }
    }
}

fn misses(validator: &Validator, value: &Value) -> Option<String> {
    let mut misses = validator.iter_errors(value).map(|miss| {
        let place = miss.instance_path().to_string();
        if place.is_empty() { miss.to_string() } else { format!("{place}: {miss}") }
    });
    let told: Vec<String> = misses.by_ref().take(MISSES_MAX).collect();
    let more = misses.count();
    match (told.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(told.join("; ")),
        (false, more) => Some(format!("{}; and {more} more", told.join("; "))),
    }
}

/// What the model is told in a repair round.
pub(super) fn repair(why: &Failure) -> String {
    let reason = why.detail.as_deref().unwrap_or(&why.title);
    format!(
        "Your answer was rejected: {reason}\n\
         Answer again, corrected, with the JSON only: no explanation and no Markdown."
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(text: &str, is_cut: bool) -> Answer {
        let (text, usage) = (text.to_owned(), Usage::default());
        Answer { text, thoughts: String::new(), usage, is_cut, called: None }
    }

    #[test]
    fn answers_as_a_table() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let judge = Judge::of(Some(&schema), Some(9)).expect("a schema");
        for (text, is_cut, expected) in [
            (r#"{"n": 1}"#, false, Ok(json!({"n": 1}))),
            ("```json\n{\"n\": 2}\n```", false, Ok(json!({"n": 2}))),
            (r#"{"n": "x"}"#, false, Err("/n: \"x\" is not of type \"integer\"")),
            ("no", false, Err("the answer is no JSON")),
            ("", false, Err("the answer is empty")),
            (r#"{"n": "#, true, Err("the answer was cut at its bound of tokens; the answer is no JSON")),
        ] {
            let answer = answer(text, is_cut);
            match (judge.judge(answer), expected) {
                (Outcome::Completed { output, .. }, Ok(expected)) => assert_eq!(output, expected),
                (Outcome::Rejected { error, .. }, Err(part)) => {
                    let detail = error.detail.unwrap_or_default();
                    assert!(detail.contains(part), "{text}: {detail}");
                    assert_eq!(error.error_type, error_type::VALIDATION);
                }
                (outcome, _) => panic!("{text}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn text_that_nobody_asked_to_cut_is_a_failure() {
        for (text, is_cut, bound, expected) in [
            ("Once upon", true, None, Err(422)),
            ("Once upon", true, Some(2), Ok("Once upon")),
            // A bound that leaves no word is not what anybody asked for.
            ("", true, Some(2), Err(422)),
            (" \n", false, None, Err(502)),
            ("Once", false, None, Ok("Once")),
        ] {
            let judge = Judge::of(None, bound).expect("no schema");
            let answer = answer(text, is_cut);
            match (judge.judge(answer), expected) {
                (Outcome::Completed { output, .. }, Ok(expected)) => assert_eq!(output, expected),
                (Outcome::Failed { error, usage: Some(_), .. }, Err(status)) => {
                    assert_eq!(error.status, status, "{text}");
                    assert!(error.detail.is_some_and(|detail| detail.contains("hint: ")));
                }
                (outcome, _) => panic!("{text}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn a_schema_that_is_none_is_refused() {
        let error = Judge::of(Some(&json!({"type": "objekt"})), None).err().expect("a failure");
        assert_eq!(error.error_type, error_type::CONFIGURATION);
        assert!(Judge::of(Some(&json!({"$ref": "https://example.com/schema.json"})), None).is_err());
    }
}
