//! The work of checking a value, counted before it is done.
//!
//! A walk of schema and value together that follows every way and checks nothing, so that it never
//! counts less than a check may take. It stops at its bound: a schema whose branches lead back to
//! itself may apply more often than there is time, whatever its size.

use serde_json::Value;

use super::survey::{To, inside};

/// How often a schema may apply; about a second of work.
const WORK_MAX: u64 = 500_000;

/// What a byte costs that a pattern looks at, in schemas.
const PATTERN_BYTE: u64 = 4;

/// Schemas inside each other, each value's included: what fits a thread's stack with ease.
const DEPTH_MAX: usize = 500;

/// Whether the value can be checked within bounds; the error says which one it breaks.
pub(super) fn weigh(schema: &Value, value: &Value) -> Result<(), String> {
    Scale { root: schema, left: WORK_MAX }.add(schema, value, 0)
}

struct Scale<'s> {
    root: &'s Value,
    left: u64,
}

impl<'s> Scale<'s> {
    fn count(&mut self, work: u64) -> Result<(), String> {
        match self.left.checked_sub(work) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err("the value was not checked: it takes too much work with this schema".to_owned()),
        }
    }

    fn add(&mut self, schema: &'s Value, value: &Value, depth: usize) -> Result<(), String> {
        self.count(1)?;
        let Value::Object(words) = schema else {
            return Ok(());
        };
        if depth > DEPTH_MAX {
            return Err("the value was not checked: it nests too deep for this schema".to_owned());
        }
        self.own(schema, value)?;
        // What is left unevaluated is found by checking everything else once more.
        let is_twice =
            ["unevaluatedProperties", "unevaluatedItems"].iter().any(|word| words.contains_key(*word));
        for _ in 0..=usize::from(is_twice) {
            let mut same: Vec<&'s Value> = Vec::new();
            inside(self.root, schema, &mut |_, held, to| {
                if to == To::Same {
                    same.push(held);
                }
            });
            for held in same {
                self.add(held, value, depth + 1)?;
            }
            match value {
                Value::Object(members) => {
                    for (name, member) in members {
                        self.member(schema, name, member, depth)?;
                    }
                }
                Value::Array(items) => {
                    for (i, item) in items.iter().enumerate() {
                        self.item(schema, i, item, depth)?;
                    }
                }
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
            }
        }
        Ok(())
    }

    /// The work of the words that hold no schemas.
    fn own(&mut self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(Value::Array(values)) = schema.get("enum") {
            self.count(values.len() as u64)?;
        }
        match value {
            Value::String(text) if schema.get("pattern").is_some() => {
                self.count(text.len() as u64 * PATTERN_BYTE)
            }
            Value::String(text) => self.count(text.len() as u64 / 64),
            Value::Array(items) => self.count(items.len() as u64 / 16),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn member(&mut self, schema: &'s Value, name: &str, member: &Value, depth: usize) -> Result<(), String> {
        let known = schema.get("properties").and_then(|known| known.get(name));
        if let Some(known) = known {
            self.add(known, member, depth + 1)?;
        }
        if let Some(Value::Object(patterns)) = schema.get("patternProperties") {
            for held in patterns.values() {
                self.count(name.len() as u64 * PATTERN_BYTE)?;
                self.add(held, member, depth + 1)?;
            }
        }
        if let Some(names) = schema.get("propertyNames") {
            self.add(names, &Value::from(name), depth + 1)?;
        }
        for word in ["additionalProperties", "unevaluatedProperties"] {
            if let (None, Some(held)) = (known, schema.get(word)) {
                self.add(held, member, depth + 1)?;
            }
        }
        Ok(())
    }

    fn item(&mut self, schema: &'s Value, at: usize, item: &Value, depth: usize) -> Result<(), String> {
        for word in ["items", "prefixItems", "additionalItems", "unevaluatedItems", "contains"] {
            match schema.get(word) {
                Some(Value::Array(each)) => {
                    if let Some(held) = each.get(at) {
                        self.add(held, item, depth + 1)?;
                    }
                }
                Some(held) => self.add(held, item, depth + 1)?,
                None => {}
            }
        }
        Ok(())
    }
}
