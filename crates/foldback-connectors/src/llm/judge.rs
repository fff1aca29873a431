//! Judging an answer: whether it is what was asked for.

use foldback_core::step::error_type;
use foldback_core::{Failure, Outcome};
use jsonschema::Validator;
use serde_json::Value;

use super::model::Answer;
use crate::request::wrong;

/// Misses of a schema that a failure tells.
const MISSES_MAX: usize = 5;

/// What an answer is measured by.
pub(super) struct Judge(Option<Validator>);

impl Judge {
    /// A judge by a JSON Schema; without one every answer is accepted as text.
    ///
    /// # Errors
    /// A schema that is none. References to other documents are not fetched, and are errors.
    pub(super) fn of(schema: Option<&Value>) -> Result<Judge, Failure> {
        let Some(schema) = schema else {
            return Ok(Judge(None));
        };
        let validator = jsonschema::validator_for(schema)
            .map_err(|why| wrong("llm", &format!("`schema` at `{}`: {why}", why.instance_path())))?;
        Ok(Judge(Some(validator)))
    }

    /// The outcome of an answer.
    pub(super) fn judge(&self, answer: Answer) -> Outcome {
        let Answer { text, usage, is_cut } = answer;
        let usage = Some(usage);
        let Some(validator) = &self.0 else {
            return Outcome::Completed { output: Value::String(text), usage };
        };
        let (output, why) = match serde_json::from_str::<Value>(unfenced(&text)) {
            Ok(value) => match misses(validator, &value) {
                None => {
                    return Outcome::Completed { output: value, usage };
                }
                Some(why) => (value, why),
            },
            Err(why) if text.trim().is_empty() => {
                (Value::String(text), format!("the answer is empty ({why})"))
            }
            Err(why) => (Value::String(text), format!("the answer is no JSON: {why}")),
        };
        let why = if is_cut { format!("the answer was cut at its bound of tokens; {why}") } else { why };
        let error = Failure::new(error_type::VALIDATION, 400, "The answer misses its schema", why);
        Outcome::Rejected { output, error, usage }
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

/// Models without structured output like to put their JSON into a Markdown fence.
fn unfenced(text: &str) -> &str {
    let text = text.trim();
    let inner = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    inner.map_or(text, |inner| inner.strip_prefix("json").unwrap_or(inner))
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
    use foldback_core::Usage;
    use serde_json::json;

    #[test]
    fn answers_as_a_table() {
        let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        let judge = Judge::of(Some(&schema)).expect("a schema");
        for (text, is_cut, expected) in [
            (r#"{"n": 1}"#, false, Ok(json!({"n": 1}))),
            ("```json\n{\"n\": 2}\n```", false, Ok(json!({"n": 2}))),
            (r#"{"n": "x"}"#, false, Err("/n: \"x\" is not of type \"integer\"")),
            ("no", false, Err("the answer is no JSON")),
            ("", false, Err("the answer is empty")),
            (r#"{"n": "#, true, Err("the answer was cut at its bound of tokens; the answer is no JSON")),
        ] {
            let answer = Answer { text: text.to_owned(), usage: Usage::default(), is_cut };
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
    fn a_schema_that_is_none_is_refused() {
        let error = Judge::of(Some(&json!({"type": "objekt"}))).err().expect("a failure");
        assert_eq!(error.error_type, error_type::CONFIGURATION);
        assert!(Judge::of(Some(&json!({"$ref": "https://example.com/schema.json"}))).is_err());
    }
}
