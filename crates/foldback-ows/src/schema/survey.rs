//! A look over a schema before it is compiled: where its references lead, and how deep it goes.
//!
//! It refuses what could not be checked within bounds or without the network, and never looks at a
//! value. Invariants of a schema that passed: each `$ref` names a place of the same document, and
//! no place is reached again without going deeper into the value.

use std::collections::HashMap;

use serde_json::Value;

use super::Fault;

/// Schemas that may apply to one and the same value through each other.
const CHAIN_MAX: usize = 64;

/// What a keyword holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Schema,
    List,
    Map,
    /// A schema, or before 2020-12 a list of them.
    SchemaOrList,
}

/// To which values the schemas of a keyword apply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum To {
    /// To the same value.
    Same,
    /// To its members or items.
    Inside,
    /// To none, until a `$ref` names them.
    None,
}

/// The keywords that hold schemas.
pub(super) const KEYWORDS: [(&str, Holds, To); 24] = [
    ("allOf", Holds::List, To::Same),
    ("anyOf", Holds::List, To::Same),
    ("oneOf", Holds::List, To::Same),
    ("not", Holds::Schema, To::Same),
    ("if", Holds::Schema, To::Same),
    ("then", Holds::Schema, To::Same),
    ("else", Holds::Schema, To::Same),
    ("dependentSchemas", Holds::Map, To::Same),
    ("dependencies", Holds::Map, To::Same),
    ("properties", Holds::Map, To::Inside),
    ("patternProperties", Holds::Map, To::Inside),
    ("additionalProperties", Holds::Schema, To::Inside),
    ("unevaluatedProperties", Holds::Schema, To::Inside),
    ("propertyNames", Holds::Schema, To::Inside),
    ("items", Holds::SchemaOrList, To::Inside),
    ("prefixItems", Holds::List, To::Inside),
    ("additionalItems", Holds::Schema, To::Inside),
    ("unevaluatedItems", Holds::Schema, To::Inside),
    ("contains", Holds::Schema, To::Inside),
    ("contentSchema", Holds::Schema, To::None),
    ("$defs", Holds::Map, To::None),
    ("definitions", Holds::Map, To::None),
    ("$ref", Holds::Schema, To::Same),
    ("$schema", Holds::Schema, To::None),
];

/// The schema that a `$ref` names: `#`, or `#/…`.
pub(super) fn target<'s>(root: &'s Value, reference: &str) -> Option<&'s Value> {
    let pointer = reference.strip_prefix('#')?;
    if pointer.contains('%') || !(pointer.is_empty() || pointer.starts_with('/')) {
        return None;
    }
    root.pointer(pointer)
}

/// Takes a schema's place below (made only where it is wanted), the schema, and to what it applies.
type Visit<'v, 's> = &'v mut dyn FnMut(&dyn Fn() -> String, &'s Value, To);

/// Calls `visit` with each schema that a keyword of this one holds: its place below, itself, and
/// to what it applies. A `$ref` counts as the schema that it names.
pub(super) fn inside<'s>(root: &'s Value, schema: &'s Value, visit: Visit<'_, 's>) {
    let Value::Object(members) = schema else {
        return;
    };
    for (name, held) in members {
        let Some((_, holds, to)) = KEYWORDS.iter().find(|(keyword, _, _)| keyword == name) else {
            continue;
        };
        match (name.as_str(), holds, held) {
            ("$schema", _, _) => {}
            ("$ref", _, Value::String(reference)) => {
                if let Some(target) = target(root, reference) {
                    visit(&|| reference.clone(), target, *to);
                }
            }
            (_, Holds::List | Holds::SchemaOrList, Value::Array(items)) => {
                for (i, item) in items.iter().enumerate() {
                    visit(&|| format!("/{name}/{i}"), item, *to);
                }
            }
            (_, Holds::Map, Value::Object(map)) => {
                for (key, item) in map {
                    // `dependencies` may list names, and these are no schemas.
                    if !item.is_array() {
                        visit(&|| format!("/{name}/{}", escaped(key)), item, *to);
                    }
                }
            }
            (_, Holds::Schema | Holds::SchemaOrList, item) => visit(&|| format!("/{name}"), item, *to),
            // What is held is wrong; the compiler says so.
            (_, Holds::List | Holds::Map, _) => {}
        }
    }
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Looks over a whole document.
pub(super) fn survey(root: &Value) -> Result<(), Fault> {
    let mut survey = Survey { root, heights: HashMap::new() };
    let mut open: Vec<(String, &Value)> = vec![(String::new(), root)];
    let mut seen: HashMap<usize, ()> = HashMap::new();
    while let Some((pointer, schema)) = open.pop() {
        if seen.insert(address(schema), ()).is_some() {
            continue;
        }
        words(root, &pointer, schema)?;
        survey.height(&pointer, schema, 0)?;
        inside(root, schema, &mut |place, held, _| {
            let place = place();
            let at = match place.strip_prefix('#') {
                Some(target) => target.to_owned(),
                None => format!("{pointer}{place}"),
            };
            open.push((at, held));
        });
    }
    Ok(())
}

fn address(value: &Value) -> usize {
    std::ptr::from_ref(value).addr()
}

/// Words of one schema that are refused.
fn words(root: &Value, pointer: &str, schema: &Value) -> Result<(), Fault> {
    let fault = |word: &str, message: String, hint: &str| {
        Err(Fault { pointer: format!("{pointer}/{word}"), message, hint: hint.to_owned() })
    };
    for word in ["$dynamicRef", "$recursiveRef"] {
        if schema.get(word).is_some() {
            return fault(word, format!("`{word}` is not supported"), "write `$ref`");
        }
    }
    if !pointer.is_empty() && schema.get("$id").is_some_and(Value::is_string) {
        return fault(
            "$id",
            "a schema inside another one has no `$id`".into(),
            "name it by its place: $ref: '#/$defs/NAME'",
        );
    }
    match schema.get("$ref") {
        Some(Value::String(reference)) if target(root, reference).is_none() => {
            let (message, hint) = match reference.starts_with('#') {
                true => (format!("`{reference}` names nothing in this schema"), "write '#/$defs/NAME'"),
                false => (
                    format!("`{reference}` stands in another document, and nothing is fetched"),
                    "copy what it names under `$defs`, and write '#/$defs/NAME'",
                ),
            };
            fault("$ref", message, hint)
        }
        _ => Ok(()),
    }
}

struct Survey<'s> {
    root: &'s Value,
    /// How many schemas apply to one value below a schema, by its address; 0 while it is open.
    heights: HashMap<usize, usize>,
}

impl<'s> Survey<'s> {
    fn height(&mut self, pointer: &str, schema: &'s Value, depth: usize) -> Result<usize, Fault> {
        let fault = |message: &str, hint: &str| Fault {
            pointer: pointer.to_owned(),
            message: message.to_owned(),
            hint: hint.to_owned(),
        };
        let too_long = || {
            fault(
                &format!("more than {CHAIN_MAX} schemas apply to one value through each other"),
                "put them into one",
            )
        };
        match self.heights.get(&address(schema)) {
            Some(0) => {
                return Err(fault(
                    "this schema leads back to itself without looking into the value",
                    "put the `$ref` under `properties` or `items`",
                ));
            }
            Some(height) if depth + height > CHAIN_MAX => return Err(too_long()),
            Some(height) => return Ok(*height),
            None if depth > CHAIN_MAX => return Err(too_long()),
            None => {}
        }
        self.heights.insert(address(schema), 0);
        let mut below: Vec<&Value> = Vec::new();
        inside(self.root, schema, &mut |_, held, to| {
            if to == To::Same {
                below.push(held);
            }
        });
        let mut height = 1;
        for held in below {
            height = height.max(1 + self.height(pointer, held, depth + 1)?);
        }
        self.heights.insert(address(schema), height);
        Ok(height)
    }
}
