//! What was heard of an answer so far: its text, why it stopped, what it used, and what went wrong,
//! in the shapes of OpenAI (and all that speak like it), Anthropic and Gemini.
//!
//! Every member has a bound: what a server repeats without end replaces what it said before, is
//! cut, or is refused. It never judges what was heard: see `ending` and `judge`.

use foldback_core::limits;
use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::events::Frame;
use crate::web::first_chars;

/// Characters of a word of the server's: a model's name, a reason, a tool.
const WORD_MAX: usize = 200;

/// Bytes of what a model says in place of an answer.
const REFUSAL_MAX_BYTES: usize = 16 * 1024;

/// Bytes of the JSON of a usage.
const USAGE_MAX_BYTES: usize = 64 * 1024;

/// What was heard so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// The answer.
    pub(super) text: String,
    /// What the model thought, where that is told apart from the answer.
    pub(super) thoughts: String,
    /// The model, as it calls itself.
    pub(super) model: Option<String>,
    /// The usage as the provider gave it, merged over all parts.
    pub(super) usage: Option<Map<String, Value>>,
    /// Why the model stopped.
    pub(super) finish_reason: Option<String>,
    /// What the model said instead of an answer, where it refused in words of their own.
    pub(super) refusal: String,
    /// Why the prompt was not even shown to the model.
    pub(super) blocked: Option<String>,
    /// A tool that the model called in place of an answer.
    pub(super) called: Option<String>,
    /// An error that came in place of an answer, or in the middle of one.
    pub(super) error: Option<Value>,
    /// Whether the server marked the end of its stream.
    pub(super) is_ended: bool,
    /// Whether anything was in the shape of the protocol.
    pub(super) is_known: bool,
}

/// Why what comes cannot be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is longer than its bound.
    TooLong,
    /// It is no JSON.
    NoJson,
}

impl Heard {
    /// Takes one event of a stream; gives the piece of the answer that it carries.
    pub(super) fn frame(&mut self, dialect: Dialect, frame: &Frame) -> Result<String, Trouble> {
        let data = frame.data.trim_start_matches('\u{feff}').trim();
        // Some servers put a comment where data belongs (`data: : PROCESSING`).
        if data.is_empty() || data.starts_with(':') {
            return Ok(String::new());
        }
        if data == "[DONE]" {
            self.is_ended = true;
            return Ok(String::new());
        }
        let values = match serde_json::from_str::<Value>(data) {
            Ok(value) => vec![value],
            // Some send their events line by line, without the empty line between them.
            Err(_) if data.contains('\n') => {
                let lines =
                    data.lines().map(|line| line.trim()).filter(|line| !line.is_empty() && *line != "[DONE]");
                let values: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
                self.is_ended |= data.lines().any(|line| line.trim() == "[DONE]");
                values.map_err(|_| Trouble::NoJson)?
            }
            Err(_) => return Err(Trouble::NoJson),
        };
        let mut piece = String::new();
        for value in &values {
            if frame.name == "error" && value.get("error").is_none() {
                self.error = Some(value.clone());
            }
            piece.push_str(&self.take(dialect, value)?);
        }
        Ok(piece)
    }

    /// Takes one part of an answer, or a whole one; gives the piece of the answer that it carries.
    pub(super) fn take(&mut self, dialect: Dialect, data: &Value) -> Result<String, Trouble> {
        // Google lists the parts of an answer where it does not stream them as events.
        if let Value::Array(parts) = data {
            let pieces: Result<Vec<String>, Trouble> =
                parts.iter().map(|part| self.take(dialect, part)).collect();
            return Ok(pieces?.concat());
        }
        self.note(data);
        let (piece, thought) = match dialect {
            Dialect::Openai => openai(data),
            Dialect::Anthropic => anthropic(data),
            Dialect::Gemini => gemini(data),
        };
        self.is_known |= !piece.is_empty() || !thought.is_empty();
        if self.text.len() + piece.len() > limits::STEP_OUTPUT_MAX_BYTES {
            return Err(Trouble::TooLong);
        }
        self.text.push_str(&piece);
        if self.thoughts.len() + thought.len() <= limits::STEP_OUTPUT_MAX_BYTES {
            self.thoughts.push_str(&thought);
        }
        Ok(piece)
    }

    /// What stands beside the text.
    fn note(&mut self, data: &Value) {
        let at = |pointers: &[&str]| {
            pointers.iter().find_map(|p| data.pointer(p).filter(|value| !value.is_null()))
        };
        let word =
            |pointers: &[&str]| at(pointers).and_then(Value::as_str).map(|word| first_chars(word, WORD_MAX));
        if let Some(model) = word(&["/model", "/message/model", "/modelVersion"]) {
            self.model = Some(model);
        }
        if let Some(reason) = word(&[
            "/choices/0/finish_reason",
            "/delta/stop_reason",
            "/stop_reason",
            "/candidates/0/finishReason",
        ]) {
            self.finish_reason = Some(reason);
            self.is_known = true;
        }
        self.is_ended |= data.get("type").is_some_and(|kind| kind == "message_stop");
        let is_answer = data["message"].is_object() || data["content"].is_array();
        self.is_known |= is_answer || at(&["/choices/0", "/candidates/0"]).is_some();
        // Anthropic tells the input at the start and the output at the end; others repeat it all.
        for pointer in ["/message/usage", "/usage", "/usageMetadata"] {
            if let Some(Value::Object(usage)) = data.pointer(pointer) {
                let mut merged = self.usage.clone().unwrap_or_default();
                merged
                    .extend(usage.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())));
                if serde_json::to_string(&merged).is_ok_and(|text| text.len() <= USAGE_MAX_BYTES) {
                    self.usage = Some(merged);
                }
            }
        }
        if let Some(said) =
            at(&["/choices/0/delta/refusal", "/choices/0/message/refusal"]).and_then(Value::as_str)
            && self.refusal.len() + said.len() <= REFUSAL_MAX_BYTES
        {
            self.refusal.push_str(said);
        }
        if let Some(said) = word(&["/delta/stop_details/explanation", "/stop_details/explanation"]) {
            self.refusal = said;
        }
        if let Some(why) = word(&["/promptFeedback/blockReason"]) {
            self.blocked = Some(why);
        }
        if let Some(name) = word(&[
            "/choices/0/delta/tool_calls/0/function/name",
            "/choices/0/message/tool_calls/0/function/name",
            "/content_block/name",
            "/content/0/name",
            "/candidates/0/content/parts/0/functionCall/name",
        ]) {
            self.called = Some(name);
        }
        let says =
            |error: &&Value| error.is_object() || error.as_str().is_some_and(|words| !words.is_empty());
        if let Some(error) = at(&["/error", "/choices/0/error"]).filter(says) {
            self.error = Some(error.clone());
        } else if data.get("object").is_some_and(|kind| kind == "error") {
            self.error = Some(data.clone());
        }
    }
}

/// Text that is told as it is, or as a list of parts: the answer, and what was thought.
fn parts(content: &Value) -> (String, String) {
    match content {
        Value::String(text) => (text.clone(), String::new()),
        Value::Array(parts) => {
            let (mut text, mut thoughts) = (String::new(), String::new());
            for part in parts {
                let said = |name: &str| part.get(name).and_then(Value::as_str).unwrap_or_default();
                match part.get("type").and_then(Value::as_str) {
                    Some("text" | "output_text") => text.push_str(said("text")),
                    Some("thinking") => thoughts.push_str(said("thinking")),
                    _ => {}
                }
            }
            (text, thoughts)
        }
        _ => (String::new(), String::new()),
    }
}

fn openai(data: &Value) -> (String, String) {
    let choice = &data["choices"][0];
    let message = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
    let (mut text, mut thoughts) = parts(&message["content"]);
    if let Some(said) = choice["text"].as_str() {
        text.push_str(said);
    }
    let thought = message["reasoning_content"].as_str().or_else(|| message["reasoning"].as_str());
    thoughts.push_str(thought.unwrap_or_default());
    (text, thoughts)
}

fn anthropic(data: &Value) -> (String, String) {
    let said = |pointer: &str| data.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    match data.get("type").and_then(Value::as_str) {
        Some("content_block_start") => (said("/content_block/text"), said("/content_block/thinking")),
        // A part of a block that is no text (a tool's arguments, a citation) has neither.
        Some("content_block_delta") => (said("/delta/text"), said("/delta/thinking")),
        Some("message") | None => parts(&data["content"]),
        Some(_) => (String::new(), String::new()),
    }
}

fn gemini(data: &Value) -> (String, String) {
    let (mut text, mut thoughts) = (String::new(), String::new());
    for part in data["candidates"][0]["content"]["parts"].as_array().into_iter().flatten() {
        let is_thought = part["thought"].as_bool() == Some(true);
        let to = if is_thought { &mut thoughts } else { &mut text };
        to.push_str(part["text"].as_str().unwrap_or_default());
    }
    (text, thoughts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_merged_as_the_provider_gave_it() {
        let mut heard = Heard::default();
        for part in [
            json!({"type": "message_start", "message": {"model": "claude", "usage": {"input_tokens": 5, "output_tokens": 1}}}),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}),
        ] {
            heard.take(Dialect::Anthropic, &part).expect("short");
        }
        assert_eq!(heard.usage.map(Value::Object), Some(json!({"input_tokens": 5, "output_tokens": 9})));
        assert_eq!(
            (heard.model.as_deref(), heard.finish_reason.as_deref()),
            (Some("claude"), Some("end_turn"))
        );
    }

    #[test]
    fn what_a_server_repeats_without_end_stays_small() {
        let mut heard = Heard::default();
        for n in 0..3_000 {
            let part = json!({"model": "m".repeat(5_000), "usage": {format!("n{n}"): "x".repeat(100)},
                "choices": [{"delta": {"refusal": "y".repeat(100), "content": ""}, "finish_reason": "z".repeat(5_000)}]});
            heard.take(Dialect::Openai, &part).expect("short");
        }
        let held = format!("{heard:?}").len();
        assert!(held < 200_000, "{held} bytes are held");
    }
}
