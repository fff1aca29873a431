//! The raw frames of a streamed answer: what the library's own events leave out or normalise. The
//! usage as the provider gave it, the model as it calls itself, why it stopped, and errors that
//! come in the middle.

use std::sync::{Mutex, MutexGuard, PoisonError};

use genai::chat::{ChatFrameSink, FrameCtx, RawFrameRef};
use serde_json::{Map, Value};

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The model, as it calls itself.
    pub(super) model: Option<String>,
    /// The usage as the provider gave it, merged over all frames.
    pub(super) usage: Option<Map<String, Value>>,
    /// Why the model stopped.
    pub(super) finish_reason: Option<String>,
    /// What the model said instead of an answer, where it refused in words of their own.
    pub(super) refusal: String,
    /// Why the prompt was not even shown to the model.
    pub(super) blocked: Option<String>,
    /// A tool that the model called in place of an answer.
    pub(super) called: Option<String>,
    /// Whether the last frame carries a part of a content block that is no text.
    pub(super) is_foreign: bool,
    /// An error that came in place of a frame.
    pub(super) error: Option<Value>,
    /// Frames with data.
    pub(super) frames: u64,
    /// Pieces of the answer without data: comments, or a body that is no stream of events.
    pub(super) blanks: u64,
}

impl Seen {
    /// Takes what a frame, or a whole answer, tells beside its text. Knows the shapes of OpenAI
    /// (and all that speak like it), Anthropic and Gemini.
    pub(super) fn take(&mut self, data: &Value) {
        let at = |pointers: &[&str]| {
            pointers.iter().find_map(|p| data.pointer(p).filter(|value| !value.is_null()))
        };
        let text = |pointers: &[&str]| at(pointers).and_then(Value::as_str).map(str::to_owned);
        if let Some(model) = text(&["/model", "/message/model", "/modelVersion"]) {
            self.model = Some(model);
        }
        if let Some(reason) = text(&[
            "/choices/0/finish_reason",
            "/delta/stop_reason",
            "/stop_reason",
            "/candidates/0/finishReason",
        ]) {
            self.finish_reason = Some(reason);
        }
        // Anthropic tells the input at the start and the output at the end; others repeat it all.
        for pointer in ["/message/usage", "/usage", "/usageMetadata"] {
            if let Some(Value::Object(usage)) = data.pointer(pointer) {
                let known = self.usage.get_or_insert_default();
                known.extend(usage.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())));
            }
        }
        if let Some(said) = text(&["/choices/0/delta/refusal", "/choices/0/message/refusal"]) {
            self.refusal.push_str(&said);
        }
        if let Some(said) = text(&["/delta/stop_details/explanation", "/stop_details/explanation"]) {
            self.refusal = said;
        }
        if let Some(why) = text(&["/promptFeedback/blockReason"]) {
            self.blocked = Some(why);
        }
        if let Some(name) = text(&[
            "/choices/0/delta/tool_calls/0/function/name",
            "/choices/0/message/tool_calls/0/function/name",
            "/content_block/name",
            "/candidates/0/content/parts/0/functionCall/name",
        ]) {
            self.called = Some(name);
        }
        let part = data.pointer("/delta/type").and_then(Value::as_str);
        self.is_foreign = part.is_some_and(|part| part != "text_delta");
        if let Some(error) = at(&["/error"]) {
            self.error = Some(error.clone());
        }
    }

    /// A count of tokens under any of its names.
    pub(super) fn tokens(&self, names: &[&str]) -> Option<u64> {
        let usage = self.usage.as_ref()?;
        names.iter().find_map(|name| usage.get(*name).and_then(Value::as_u64))
    }
}

/// Collects what the frames of one stream tell.
#[derive(Debug, Default)]
pub(super) struct Frames(Mutex<Seen>);

impl Frames {
    /// What was seen so far.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChatFrameSink for Frames {
    fn on_frame(&self, _: &FrameCtx, frame: RawFrameRef<'_>) {
        let mut seen = self.seen();
        if frame.data.is_empty() {
            seen.blanks += 1;
            return;
        }
        seen.frames += 1;
        if let Some(data) = frame.json() {
            seen.take(&data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_is_merged_as_the_provider_gave_it() {
        let mut seen = Seen::default();
        seen.take(&json!({"type": "message_start", "message": {"model": "claude", "usage": {"input_tokens": 5, "output_tokens": 1}}}));
        seen.take(&json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 9}}));
        assert_eq!(
            seen.usage.as_ref().map(|u| json!(u)),
            Some(json!({"input_tokens": 5, "output_tokens": 9}))
        );
        assert_eq!(
            (seen.model.as_deref(), seen.finish_reason.as_deref()),
            (Some("claude"), Some("end_turn"))
        );
        assert_eq!(seen.tokens(&["prompt_tokens", "input_tokens"]), Some(5));
    }
}
