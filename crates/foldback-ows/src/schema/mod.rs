//! Schemas: what an input, an output or a context must look like, as JSON Schema.
//!
//! A [`Schema`] is compiled when a definition is loaded. It never fetches anything: a `$ref` stays
//! inside its document. Patterns run in linear time, and the work of a check is counted before it
//! begins (`weigh`), so that neither a schema nor a value can make a workflow hang.

mod survey;
mod weigh;

use foldback_core::Failure;
use foldback_core::step::error_type;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

/// Bytes of a compiled pattern. A pattern takes up to its size for each character of a text.
const PATTERN_MAX_BYTES: usize = 256 * 1024;

/// Misses that an error tells, and how long each of them may be, in characters.
const MISSES_MAX: usize = 5;
const MISS_MAX_CHARS: usize = 300;

/// Misses that are looked at to choose those that are told.
const MISSES_SEEN_MAX: usize = 50;

/// A compiled schema.
pub(crate) struct Schema {
    document: Value,
    validator: Validator,
}

/// Why a document is no schema, and where in it (a JSON pointer).
#[derive(Debug)]
pub(crate) struct Fault {
    pub pointer: String,
    pub message: String,
    pub hint: String,
}

impl Schema {
    /// Compiles a document.
    pub fn new(document: Value) -> Result<Schema, Fault> {
        let draft = draft(&document)?;
        survey::survey(&document)?;
        let patterns = PatternOptions::regex().size_limit(PATTERN_MAX_BYTES);
        let options = jsonschema::options()
            .with_draft(draft)
            // A format is a note for people: what is to be checked is said by `pattern` and others.
            .should_validate_formats(false)
            .with_pattern_options(patterns);
        match options.build(&document) {
            Ok(validator) => Ok(Schema { document, validator }),
            Err(why) => Err(Fault {
                // What is wrong with a schema is a place in it, seen as an instance of its own schema.
                pointer: why.instance_path().to_string(),
                message: format!("this is no JSON Schema: {}", shortened(&why.to_string())),
                hint: hint_of(&document, &why.instance_path().to_string()),
            }),
        }
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    /// What of the schema the value misses; nothing when it fits.
    pub fn miss(&self, value: &Value) -> Option<String> {
        self.told(value, false)
    }

    /// As [`Schema::miss`]; `hides` leaves the values themselves out.
    fn told(&self, value: &Value, hides: bool) -> Option<String> {
        if let Err(why) = weigh::weigh(&self.document, value) {
            return Some(why);
        }
        if self.validator.is_valid(value) {
            return None;
        }
        let told = |miss: jsonschema::ValidationError<'_>| {
            let place = miss.instance_path().to_string();
            let text = if hides { miss.masked().to_string() } else { miss.to_string() };
            let text = shortened(&text);
            if place.is_empty() { text } else { format!("{place}: {text}") }
        };
        let mut misses: Vec<String> =
            self.validator.iter_errors(value).take(MISSES_SEEN_MAX).map(told).collect();
        // In an order of their own: an error is a fact, and has to read the same each time.
        misses.sort();
        misses.dedup();
        let more = misses.len().saturating_sub(MISSES_MAX);
        misses.truncate(MISSES_MAX);
        let text = misses.join("; ");
        Some(if more == 0 { text } else { format!("{text}; and {more} more") })
    }

    /// The error of a value that misses the schema: `what` it is, such as "The input". An error stands
    /// in the log itself, so that a value that may be erased (`hides`) is not in it.
    pub fn failure(&self, what: &str, value: &Value, hides: bool) -> Option<Failure> {
        let why = self.told(value, hides)?;
        Some(Failure::new(error_type::VALIDATION, 400, &format!("{what} misses its schema"), why))
    }
}

/// The draft that a document names; 2020-12 where it names none.
fn draft(document: &Value) -> Result<Draft, Fault> {
    const DRAFTS: [(&str, Draft); 3] = [
        ("://json-schema.org/draft-07/schema", Draft::Draft7),
        ("://json-schema.org/draft/2019-09/schema", Draft::Draft201909),
        ("://json-schema.org/draft/2020-12/schema", Draft::Draft202012),
    ];
    let Some(named) = document.get("$schema") else {
        return Ok(Draft::Draft202012);
    };
    let text = named.as_str().unwrap_or_default().trim_end_matches('#');
    let found = DRAFTS.iter().find(|(uri, _)| {
        text.strip_prefix("https").or_else(|| text.strip_prefix("http")).is_some_and(|rest| rest == *uri)
    });
    found.map(|(_, draft)| *draft).ok_or_else(|| Fault {
        pointer: "/$schema".to_owned(),
        message: format!("the draft {} is not known here", shortened(&named.to_string())),
        hint: "draft-07, 2019-09 and 2020-12 are known; without `$schema` it is 2020-12".to_owned(),
    })
}

fn hint_of(document: &Value, pointer: &str) -> String {
    match document.pointer(pointer) {
        Some(Value::String(text)) if pointer.ends_with("/pattern") => {
            format!(
                "`{}` has to be a regular expression without look-around and back-references",
                shortened(text)
            )
        }
        Some(_) | None => "see json-schema.org for what may stand here".to_owned(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MISS_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
