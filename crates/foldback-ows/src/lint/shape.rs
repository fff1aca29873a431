//! Shapes: what is known of a value before anything runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::jq::{Sketch, StaticPath, Step};
use crate::template::Template;

/// What is known of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shape {
    /// Nothing: anything may be there.
    Unknown,
    /// Null, or nothing yet.
    Null,
    /// These members and no others, though some may be missing.
    Object(Object),
    Text,
    /// A number, a boolean, a list.
    Other,
    /// What the last iteration of this loop gave.
    Last(Box<Shape>, Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Object {
    pub members: BTreeMap<String, Shape>,
    /// The `set` that made it, where one did.
    pub maker: Option<Maker>,
}

/// A `set`, and whether the data that it replaced may have held a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Maker {
    /// The task, as a JSON pointer.
    pub task: Arc<str>,
    /// The names before it; `None` where anything may have been there.
    pub before: Option<Vec<String>>,
}

/// Shapes deeper than this are not kept, so that going round a loop comes to an end.
const DEPTH_MAX: usize = 4;

/// Members that are followed. Of an object with more nothing is known, so that one to which each of ten
/// thousand tasks adds a member is not copied ten thousand times.
pub(super) const MEMBERS_MAX: usize = 64;

impl Shape {
    pub fn object(members: BTreeMap<String, Shape>) -> Shape {
        Shape::made(members, None)
    }

    pub fn made(members: BTreeMap<String, Shape>, maker: Option<Maker>) -> Shape {
        match members.len() <= MEMBERS_MAX {
            true => Shape::Object(Object { members, maker }),
            false => Shape::Unknown,
        }
    }

    /// One or the other.
    pub fn or(self, other: Shape) -> Shape {
        match (self, other) {
            (a, b) if a == b => a,
            (Shape::Null, shape) | (shape, Shape::Null) => shape,
            (Shape::Last(shape, _), other) | (other, Shape::Last(shape, _)) => shape.or(other),
            (Shape::Object(a), Shape::Object(b)) => {
                let maker = if a.maker == b.maker { a.maker } else { None };
                let mut members = a.members;
                for (name, shape) in b.members {
                    let merged = members.remove(&name).map_or(shape.clone(), |known| known.or(shape));
                    members.insert(name, merged);
                }
                Shape::made(members, maker)
            }
            _ => Shape::Unknown,
        }
    }

    /// `self + other`.
    fn plus(self, other: Shape) -> Shape {
        match (self, other) {
            (Shape::Null, shape) | (shape, Shape::Null) => shape,
            (Shape::Last(shape, _), other) => shape.plus(other),
            (shape, Shape::Last(other, _)) => shape.plus(*other),
            (Shape::Object(a), Shape::Object(b)) => {
                let mut members = a.members;
                members.extend(b.members);
                Shape::object(members)
            }
            (Shape::Text, Shape::Text) => Shape::Text,
            _ => Shape::Unknown,
        }
    }

    fn flattened(self, depth: usize) -> Shape {
        match self {
            Shape::Object(_) if depth == 0 => Shape::Unknown,
            Shape::Object(Object { members, maker }) => {
                let members = members.into_iter().map(|(n, shape)| (n, shape.flattened(depth - 1))).collect();
                Shape::Object(Object { members, maker })
            }
            Shape::Last(shape, of) => Shape::Last(Box::new(shape.flattened(depth)), of),
            other => other,
        }
    }

    /// Itself, not where it comes from.
    fn bare(&self) -> &Shape {
        match self {
            Shape::Last(shape, _) => shape.bare(),
            shape => shape,
        }
    }

    /// The names of its members, where these are known.
    pub fn names(&self) -> Option<Vec<String>> {
        match self.bare() {
            Shape::Object(object) => Some(object.members.keys().cloned().collect()),
            Shape::Null | Shape::Text | Shape::Other => Some(Vec::new()),
            Shape::Unknown | Shape::Last(..) => None,
        }
    }
}

/// Where a path leads nowhere: how many steps of it hold, and what is there.
pub(super) struct Miss<'s> {
    pub depth: usize,
    pub name: String,
    pub there: &'s Shape,
}

/// Follows a path; an error where it certainly comes to nothing.
pub(super) fn follow<'s>(shape: &'s Shape, steps: &[Step]) -> Result<&'s Shape, Miss<'s>> {
    static UNKNOWN: Shape = Shape::Unknown;
    let mut at = shape;
    for (depth, step) in steps.iter().enumerate() {
        let Step::Member(name) = step else {
            return Ok(&UNKNOWN);
        };
        at = match at.bare() {
            Shape::Unknown | Shape::Null | Shape::Other | Shape::Last(..) => return Ok(&UNKNOWN),
            Shape::Object(object) => match object.members.get(name) {
                Some(inside) => inside,
                None => return Err(Miss { depth, name: name.clone(), there: at.bare() }),
            },
            Shape::Text => return Err(Miss { depth, name: name.clone(), there: at.bare() }),
        };
    }
    Ok(at)
}

/// What an expression sees where a path begins: the value of its variable, or its input.
pub(super) type See<'a> = &'a dyn Fn(&StaticPath) -> Shape;

/// The shape that a template gives.
pub(super) fn of_template(template: &Template, see: See<'_>) -> Shape {
    let shape = match template {
        Template::Constant(value) => of_value(value),
        Template::Expression(filter) => of_sketch(&filter.sketch, see),
        Template::Object(members) => Shape::object(
            members.iter().map(|(name, member)| (name.clone(), of_template(member, see))).collect(),
        ),
        Template::List(_) => Shape::Other,
        Template::Secret(_) => Shape::Unknown,
    };
    shape.flattened(DEPTH_MAX)
}

fn of_sketch(sketch: &Sketch, see: See<'_>) -> Shape {
    match sketch {
        Sketch::Unknown => Shape::Unknown,
        Sketch::Path(path) => {
            let from = see(path);
            follow(&from, &path.steps).map_or(Shape::Unknown, Clone::clone)
        }
        Sketch::Object(members) => {
            Shape::object(members.iter().map(|(name, inner)| (name.clone(), of_sketch(inner, see))).collect())
        }
        Sketch::Text => Shape::Text,
        Sketch::Other => Shape::Other,
        Sketch::Sum(left, right) => of_sketch(left, see).plus(of_sketch(right, see)),
        Sketch::Either(left, right) => of_sketch(left, see).or(of_sketch(right, see)),
    }
}

fn of_value(value: &Value) -> Shape {
    match value {
        Value::Null => Shape::Null,
        Value::String(_) => Shape::Text,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => Shape::Other,
        Value::Object(map) => {
            Shape::object(map.iter().map(|(name, value)| (name.clone(), of_value(value))).collect())
        }
    }
}

/// The shape of what fits a JSON Schema: known only where it allows no other members.
pub(super) fn of_schema(schema: &Value) -> Shape {
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false))
        && schema.get("patternProperties").is_none();
    match (schema.get("properties"), schema.get("type").and_then(Value::as_str)) {
        (Some(Value::Object(members)), Some("object")) if is_closed => {
            Shape::object(members.iter().map(|(name, inner)| (name.clone(), of_schema(inner))).collect())
        }
        _ => Shape::Unknown,
    }
}
