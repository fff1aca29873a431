//! Templates: values of a definition with expressions at their leaves.
//!
//! A template is read once and evaluated against an input and a lookup of variables. A secret is
//! never a value here: its place reads null, and its name is noted beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::jq::{Filter, Lookup, Wrong};

/// A value that may hold expressions.
pub(crate) enum Template {
    Constant(Arc<Value>),
    Expression(Box<Filter>),
    /// The name of a secret, which only the performer of a step resolves.
    Secret(String),
    Object(Vec<(String, Template)>),
    List(Vec<Template>),
}

/// Where in a request (JSON pointer) which secret is put, by its name.
pub(crate) type Secrets = BTreeMap<String, String>;

impl Template {
    pub fn constant(value: Value) -> Template {
        Template::Constant(Arc::new(value))
    }

    /// The value, in a place where no secret may stand.
    pub fn eval(&self, input: &Value, lookup: Lookup<'_>) -> Result<Value, Wrong> {
        self.eval_at(input, lookup, "", &mut Secrets::new())
    }

    /// The value at a place of a request; secrets inside it are noted.
    pub fn eval_at(
        &self,
        input: &Value,
        lookup: Lookup<'_>,
        at: &str,
        secrets: &mut Secrets,
    ) -> Result<Value, Wrong> {
        Ok(match self {
            Template::Constant(value) => (**value).clone(),
            Template::Expression(filter) => filter.eval(input, lookup)?,
            Template::Secret(name) => {
                secrets.insert(at.to_owned(), name.clone());
                Value::Null
            }
            Template::Object(members) => {
                let mut map = Map::with_capacity(members.len());
                for (name, member) in members {
                    let inside = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                    map.insert(name.clone(), member.eval_at(input, lookup, &inside, secrets)?);
                }
                Value::Object(map)
            }
            Template::List(items) => {
                let item = |(i, item): (usize, &Template)| {
                    item.eval_at(input, lookup, &format!("{at}/{i}"), secrets)
                };
                Value::Array(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
        })
    }

    /// The constant that it is, if it is one.
    pub fn as_constant(&self) -> Option<&Value> {
        match self {
            Template::Constant(value) => Some(value),
            Template::Expression(_) | Template::Secret(_) | Template::Object(_) | Template::List(_) => None,
        }
    }
}

/// A URI with `{name}` places that take top-level members of the input.
pub(crate) enum Uri {
    Whole(Template),
    Parts(Vec<UriPart>),
}

/// A piece of a [`Uri`].
pub(crate) enum UriPart {
    Text(String),
    Name(String),
}

impl Uri {
    pub fn eval(&self, input: &Value, lookup: Lookup<'_>) -> Result<Value, Wrong> {
        let parts = match self {
            Uri::Whole(template) => {
                let value = template.eval(input, lookup)?;
                return match value {
                    Value::String(_) => Ok(value),
                    other => Err(Wrong {
                        message: format!("an endpoint is a text, not {other}"),
                        plain: "an endpoint is a text".into(),
                    }),
                };
            }
            Uri::Parts(parts) => parts,
        };
        let mut text = String::new();
        for part in parts {
            match part {
                UriPart::Text(plain) => text.push_str(plain),
                UriPart::Name(name) => match input.get(name) {
                    Some(Value::String(value)) => percent_encode(value, &mut text),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                        percent_encode(&value.to_string(), &mut text)
                    }
                    Some(_) | None => {
                        return Err(Wrong::from(format!(
                            "the endpoint needs `{{{name}}}`, and the task's input has no such text or number"
                        )));
                    }
                },
            }
        }
        Ok(Value::String(text))
    }
}

fn percent_encode(value: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}
