//! OpenAI's chat completions, which most servers of models speak.

use serde_json::{Value, json};

use super::{Written, insert, schema};
use crate::config::under;
use crate::llm::model::{ChatRequest, Message, Role};

pub(super) fn write(base: &str, question: &ChatRequest, key: Option<&str>, streams: bool) -> Written {
    let system = question.system.iter().map(|text| json!({"role": "system", "content": text}));
    let messages: Vec<Value> = system.chain(question.messages.iter().map(message)).collect();
    let mut body = json!({"model": question.model, "stream": streams, "messages": messages});
    let format = question.schema.as_ref().map(|schema| {
        let schema = schema::strict(schema, true);
        json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}})
    });
    insert(&mut body, "response_format", format);
    insert(&mut body, "stream_options", streams.then(|| json!({"include_usage": true})));
    insert(&mut body, "temperature", question.temperature);
    insert(&mut body, "seed", question.seed);
    let bound = if counts_thinking(&question.model) { "max_completion_tokens" } else { "max_tokens" };
    insert(&mut body, bound, question.max_tokens);
    // Without a key no header is sent at all: some local servers refuse a made-up one.
    let headers = key.map(|key| ("authorization", format!("Bearer {key}"))).into_iter().collect();
    Written { url: under(base, "chat/completions"), headers, body }
}

/// Whether a model is one of those that refuse `max_tokens`, since their bound covers their thinking.
fn counts_thinking(model: &str) -> bool {
    let number =
        |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse::<u32>().ok());
    let is_late_gpt = model.strip_prefix("gpt-").and_then(number).is_some_and(|n| n >= 5);
    is_late_gpt || model.strip_prefix('o').and_then(number).is_some()
}

fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    };
    if message.attachments.is_empty() {
        return json!({"role": role, "content": message.content});
    }
    let mut parts = vec![json!({"type": "text", "text": message.content})];
    for (at, attachment) in message.attachments.iter().enumerate() {
        let data = format!("data:{};base64,{}", attachment.media_type, attachment.base64);
        parts.push(match attachment.media_type.starts_with("image/") {
            true => json!({"type": "image_url", "image_url": {"url": data}}),
            // A file must have a name.
            false => json!({"type": "file", "file": {"filename": format!("attachment-{}.pdf", at + 1), "file_data": data}}),
        });
    }
    json!({"role": role, "content": parts})
}

#[cfg(test)]
mod tests {
    use super::counts_thinking;

    #[test]
    fn models_by_the_name_of_their_bound() {
        for (model, expected) in [
            ("gpt-5-mini", true),
            ("gpt-5.2", true),
            ("gpt-10", true),
            ("o3", true),
            ("o4-mini", true),
            ("gpt-4o-mini", false),
            ("gpt-oss-20b", false),
            ("olmo-2", false),
            ("llama3", false),
        ] {
            assert_eq!(counts_thinking(model), expected, "{model}");
        }
    }
}
