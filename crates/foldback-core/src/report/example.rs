//! An example of what a JSON Schema asks for: a first thing to type, not a value that is sure to be valid.

use serde_json::{Map, Value, json};

use crate::limits;

/// A value of the shape that a schema describes, as far as it says so in plain words.
pub fn example(schema: &Value) -> Value {
    of(schema, 0)
}

fn of(schema: &Value, depth: usize) -> Value {
    if let Some(value) = schema.get("const").or_else(|| schema.get("enum")?.get(0)) {
        return value.clone();
    }
    let kind = schema.get("type").and_then(|kind| kind.as_str().or_else(|| kind.get(0)?.as_str()));
    match kind {
        _ if depth > limits::VALUE_DEPTH_MAX => Value::Null,
        Some("boolean") => json!(true),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(0)),
        Some("string") => json!("…"),
        Some("array") => json!([]),
        Some("null") => Value::Null,
        _ => match schema.get("properties").and_then(Value::as_object) {
            Some(properties) => {
                let members = properties.iter().map(|(name, schema)| (name.clone(), of(schema, depth + 1)));
                Value::Object(members.collect::<Map<_, _>>())
            }
            None => json!({}),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_shown_as_it_may_look() {
        let schema = json!({"type": "object", "properties": {
            "approved": {"type": "boolean"}, "why": {"type": "string"}, "by": {"enum": ["ann", "bob"]},
        }});
        assert_eq!(example(&schema), json!({"approved": true, "why": "…", "by": "ann"}));
        assert_eq!(example(&json!({})), json!({}));
    }
}
