//! A JSON Schema as providers take it for what a model may write: each object is closed, and where
//! a provider insists, each of its properties is required. That narrows what a model writes, never
//! what is accepted: an answer is judged by the schema as its author wrote it.

use serde_json::{Map, Value, json};

/// Members whose value maps names to schemas.
const NAMED: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Members whose value is a schema.
const SINGLE: [&str; 12] = [
    "additionalProperties",
    "unevaluatedProperties",
    "propertyNames",
    "contains",
    "items",
    "additionalItems",
    "unevaluatedItems",
    "not",
    "if",
    "then",
    "else",
    "contentSchema",
];

/// Members whose value lists schemas.
const LISTED: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];

/// The schema for a provider; `requires_all` where each property must be required.
pub(super) fn strict(schema: &Value, requires_all: bool) -> Value {
    let Value::Object(members) = schema else {
        return schema.clone();
    };
    // A reference stands alone.
    if requires_all
        && let Some(reference) = members.get("$ref")
        && members.keys().all(|name| is_note(name))
    {
        return json!({"$ref": reference});
    }
    let mut closed = Map::new();
    for (name, value) in members {
        let all = |items: &Vec<Value>| items.iter().map(|item| strict(item, requires_all)).collect();
        let value = match value {
            Value::Object(named) if NAMED.contains(&name.as_str()) => {
                let each = named.iter().map(|(name, schema)| (name.clone(), strict(schema, requires_all)));
                Value::Object(each.collect())
            }
            Value::Array(items) if LISTED.contains(&name.as_str()) => Value::Array(all(items)),
            value if SINGLE.contains(&name.as_str()) => strict(value, requires_all),
            value => value.clone(),
        };
        // `oneOf` is refused, and a model that writes one value writes any of them.
        let is_widened = name == "oneOf" && !members.contains_key("anyOf");
        closed.insert(if is_widened { "anyOf".to_owned() } else { name.clone() }, value);
    }
    let is_object =
        closed.get("type").is_some_and(|kind| kind == "object") || closed.contains_key("properties");
    if is_object {
        closed.entry("additionalProperties").or_insert(Value::Bool(false));
        let properties = closed.get("properties").and_then(Value::as_object);
        if let Some(properties) = properties.filter(|_| requires_all) {
            let names: Vec<Value> = properties.keys().cloned().map(Value::String).collect();
            let said = closed.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            let more: Vec<Value> = said.into_iter().filter(|name| !names.contains(name)).collect();
            closed.insert("required".to_owned(), Value::Array([names, more].concat()));
        }
    }
    Value::Object(closed)
}

/// A member that says nothing of a value beside a reference.
fn is_note(name: &str) -> bool {
    matches!(name, "$ref" | "title" | "description" | "default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_as_a_table() {
        let given = json!({"type": "object", "required": ["a"], "properties": {
            "a": {"$ref": "#/$defs/x", "description": "said"},
            "b": {"type": "array", "items": {"type": "object", "properties": {"c": {"oneOf": [{"type": "null"}]}}}}},
            "$defs": {"x": {"type": "string", "enum": ["p"]}}});
        let nested = |required: Value| {
            let mut item = json!({"type": "object", "properties": {"c": {"anyOf": [{"type": "null"}]}}, "additionalProperties": false});
            insert_required(&mut item, required);
            json!({"type": "array", "items": item})
        };
        let wide = json!({"type": "object", "required": ["a"], "additionalProperties": false, "properties": {
            "a": {"$ref": "#/$defs/x", "description": "said"}, "b": nested(Value::Null)},
            "$defs": {"x": {"type": "string", "enum": ["p"]}}});
        assert_eq!(strict(&given, false), wide);
        let narrow = json!({"type": "object", "required": ["a", "b"], "additionalProperties": false, "properties": {
            "a": {"$ref": "#/$defs/x"}, "b": nested(json!(["c"]))},
            "$defs": {"x": {"type": "string", "enum": ["p"]}}});
        assert_eq!(strict(&given, true), narrow);
        let open = json!({"type": "object", "additionalProperties": {"type": "string"}});
        assert_eq!(strict(&open, false), open);
        assert_eq!(strict(&json!(true), true), json!(true));
    }

    fn insert_required(schema: &mut Value, required: Value) {
        if !required.is_null() {
            schema["required"] = required;
        }
    }
}
