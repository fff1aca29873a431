//! Anthropic's messages.

use serde_json::{Value, json};

use super::{Written, insert, schema};
use crate::config::under;
use crate::llm::model::{ChatRequest, Message, Role};

/// The version of the protocol, which each request names.
const VERSION: &str = "2023-06-01";

pub(super) fn write(base: &str, question: &ChatRequest, key: Option<&str>, streams: bool) -> Written {
    let is_instruction = |message: &&Message| message.role == Role::System;
    let instructions =
        question.messages.iter().filter(is_instruction).map(|message| message.content.as_str());
    let system: Vec<&str> = question.system.as_deref().into_iter().chain(instructions).collect();
    let messages: Vec<Value> =
        question.messages.iter().filter(|message| !is_instruction(message)).map(message).collect();
    let mut body = json!({"model": question.model, "stream": streams});
    insert(&mut body, "system", (!system.is_empty()).then(|| system.join("\n\n")));
    body["messages"] = messages.into();
    let format = question
        .schema
        .as_ref()
        .map(|schema| json!({"format": {"type": "json_schema", "schema": schema::strict(schema, false)}}));
    insert(&mut body, "output_config", format);
    insert(&mut body, "temperature", question.temperature);
    // The protocol demands a bound.
    body["max_tokens"] = question.max_tokens.unwrap_or_else(|| most_tokens(&question.model)).into();
    let key = key.map(|key| ("x-api-key", key.to_owned()));
    let headers = key.into_iter().chain([("anthropic-version", VERSION.to_owned())]).collect();
    Written { url: under(base, "messages"), headers, body }
}

/// As many tokens as a model may write at most, as far as its name tells; newer ones write more.
fn most_tokens(model: &str) -> u32 {
    let is_one_of = |names: &[&str]| names.iter().any(|name| model.contains(name));
    if is_one_of(&["claude-3-opus", "claude-3-sonnet", "claude-3-haiku"]) {
        4_096
    } else if is_one_of(&["claude-3-5"]) {
        8_192
    } else if is_one_of(&["claude-opus-4-0", "claude-opus-4-1", "claude-opus-4-20"]) {
        32_000
    } else {
        64_000
    }
}

fn message(message: &Message) -> Value {
    let role = if message.role == Role::Assistant { "assistant" } else { "user" };
    if message.attachments.is_empty() {
        return json!({"role": role, "content": message.content});
    }
    let text = std::iter::once(json!({"type": "text", "text": message.content}));
    let shown = message.attachments.iter().map(|attachment| {
        let kind = if attachment.media_type.starts_with("image/") { "image" } else { "document" };
        let source =
            json!({"type": "base64", "media_type": attachment.media_type, "data": attachment.base64});
        json!({"type": kind, "source": source})
    });
    json!({"role": role, "content": text.chain(shown).collect::<Vec<_>>()})
}
