//! Google's `generateContent`, which names the model and how it answers in its path.

use serde_json::{Value, json};

use super::{Written, insert};
use crate::llm::model::{ChatRequest, Message, Role};

pub(super) fn write(base: &str, question: &ChatRequest, key: Option<&str>, streams: bool) -> Written {
    let is_instruction = |message: &&Message| message.role == Role::System;
    let instructions =
        question.messages.iter().filter(is_instruction).map(|message| message.content.as_str());
    let system: Vec<&str> = question.system.as_deref().into_iter().chain(instructions).collect();
    let contents: Vec<Value> =
        question.messages.iter().filter(|message| !is_instruction(message)).map(content).collect();
    let mut body = json!({});
    let system = (!system.is_empty()).then(|| json!({"parts": [{"text": system.join("\n\n")}]}));
    insert(&mut body, "systemInstruction", system);
    body["contents"] = contents.into();
    let mut settings = json!({});
    if let Some(schema) = &question.schema {
        settings["responseMimeType"] = "application/json".into();
        settings["responseJsonSchema"] = schema.clone();
    }
    insert(&mut settings, "temperature", question.temperature);
    insert(&mut settings, "seed", question.seed);
    insert(&mut settings, "maxOutputTokens", question.max_tokens);
    let has_settings = settings.as_object().is_some_and(|settings| !settings.is_empty());
    insert(&mut body, "generationConfig", has_settings.then_some(settings));
    let headers = key.map(|key| ("x-goog-api-key", key.to_owned())).into_iter().collect();
    Written { url: url(base, &question.model, streams), headers, body }
}

fn url(base: &str, model: &str, streams: bool) -> String {
    // Else a name could end the path.
    let model = model.replace('%', "%25").replace('?', "%3F").replace('#', "%23");
    let (action, query) =
        if streams { ("streamGenerateContent", "alt=sse") } else { ("generateContent", "") };
    let (base, more) = base.split_once('?').unwrap_or((base, ""));
    let query: Vec<&str> = [query, more].into_iter().filter(|part| !part.is_empty()).collect();
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    format!("{base}models/{model}:{action}{query}")
}

fn content(message: &Message) -> Value {
    let role = if message.role == Role::Assistant { "model" } else { "user" };
    let text = std::iter::once(json!({"text": message.content}));
    let shown = message.attachments.iter().map(
        |attachment| json!({"inline_data": {"mime_type": attachment.media_type, "data": attachment.base64}}),
    );
    json!({"role": role, "parts": text.chain(shown).collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn addresses_as_a_table() {
        for (base, model, streams, expected) in [
            ("http://x/v1/", "m", true, "http://x/v1/models/m:streamGenerateContent?alt=sse"),
            ("http://x/v1/", "m", false, "http://x/v1/models/m:generateContent"),
            ("http://x/v1/?a=b", "m", true, "http://x/v1/models/m:streamGenerateContent?alt=sse&a=b"),
            ("http://x/v1/", "a?b#c", false, "http://x/v1/models/a%3Fb%23c:generateContent"),
        ] {
            assert_eq!(url(base, model, streams), expected);
        }
    }
}
