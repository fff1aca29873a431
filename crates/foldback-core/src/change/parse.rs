//! Edits as a person writes them: `TARGET:PATH=VALUE`. Reading files is the edge's matter: a value
//! `@FILE` comes back as a name.

use std::fmt;

use serde_json::Value;

use super::{Policy, Writes};
use crate::key::Key;

/// How an edit is written, for hints.
pub const FORM: &str =
    "an edit is KEY:PATH=JSON, KEY:output.PATH=JSON, *:PATH=JSON or input:PATH=JSON; @FILE stands for a file";

/// An edit as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// What it changes.
    pub target: SaidTarget,
    /// Where, a JSON pointer; empty for the whole.
    pub path: String,
    /// What is put there: JSON as written, or the name of a file behind `@`.
    pub value: Result<Value, String>,
}

/// What an edit changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaidTarget {
    /// The request of a step.
    Request(Key),
    /// The requests of all model calls.
    Models,
    /// The output of a step.
    Output(Key),
    /// The workflow's input.
    Input,
}

impl fmt::Display for SaidTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SaidTarget::Request(key) => key.fmt(f),
            SaidTarget::Models => f.write_str("*"),
            SaidTarget::Output(key) => write!(f, "{key}:output"),
            SaidTarget::Input => f.write_str("input"),
        }
    }
}

/// A text that is no edit, told to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

fn unreadable<T>(message: impl Into<String>, hint: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable { message: message.into(), hint: hint.into() })
}

impl Said {
    /// Reads `TARGET:PATH=VALUE`.
    ///
    /// ```
    /// use foldback_core::change::{Said, SaidTarget};
    /// let said = Said::parse("critique:output.score=0.4").unwrap();
    /// assert_eq!(said.target, SaidTarget::Output("critique".into()));
    /// assert_eq!((said.path.as_str(), said.value), ("/score", Ok(0.4.into())));
    /// ```
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Said, Unreadable> {
        let Some((left, value)) = text.split_once('=') else {
            return unreadable(format!("`{text}` is no edit: `=` is missing"), FORM);
        };
        let (target, path) = match left.split_once(':') {
            Some((target, path)) => (target.trim(), path.trim()),
            None if left.trim() == "input" => ("input", ""),
            None => return unreadable(format!("`{text}` is no edit: `:` is missing before `=`"), FORM),
        };
        let mut path = pointer(path)?;
        let output = path.strip_prefix("/output").filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let target = match (target, output.map(str::to_owned)) {
            ("", _) => return unreadable(format!("`{text}` is no edit: it names no step"), FORM),
            ("input", _) => SaidTarget::Input,
            ("*", Some(_)) => {
                return unreadable(
                    "the output of every model call cannot be one value",
                    "name the step: KEY:output=JSON",
                );
            }
            ("*", None) => SaidTarget::Models,
            (key, Some(rest)) => {
                path = rest;
                SaidTarget::Output(Key::from(key))
            }
            (key, None) => SaidTarget::Request(Key::from(key)),
        };
        if path.is_empty() && matches!(target, SaidTarget::Request(_) | SaidTarget::Models) {
            let hint = format!("name a member: {target}:template=@prompt.md, {target}:temperature=0");
            return unreadable(format!("`{text}` names no member of the request"), hint);
        }
        Ok(Said { target, path, value: said_value(left, value)? })
    }
}

fn said_value(left: &str, value: &str) -> Result<Result<Value, String>, Unreadable> {
    if let Some(file) = value.strip_prefix('@') {
        if file.is_empty() {
            return unreadable(format!("`{left}=@` names no file"), "write @FILE");
        }
        return Ok(Err(file.to_owned()));
    }
    match crate::json::parse_if_json(value.as_bytes()) {
        Some(Ok(value)) => Ok(Ok(value)),
        Some(Err(error)) => unreadable(
            format!("the value of `{left}` cannot be kept as it is: {error}"),
            "write a number outside 64 bits as a text, and each member once".to_owned(),
        ),
        None => {
            let quoted = Value::String(value.to_owned());
            unreadable(
                format!("the value of `{left}` is not JSON: {value}"),
                format!("a text has quotes of its own: '{left}={quoted}'; a file is @FILE"),
            )
        }
    }
}

/// A path as a person writes it, as a JSON pointer: `vars.topic`, `messages[0].content`, or a pointer
/// itself.
fn pointer(path: &str) -> Result<String, Unreadable> {
    if path.is_empty() || path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let mut pointer = String::new();
    for part in path.split('.') {
        let (name, mut indexes) = part.split_at(part.find('[').unwrap_or(part.len()));
        if name.is_empty() {
            return unreadable(format!("`{path}` is no path: a name is missing"), "a path is a.b[0].c");
        }
        pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        while !indexes.is_empty() {
            let inside = indexes.strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let Some((index, rest)) = inside.filter(|(index, _)| index.parse::<usize>().is_ok()) else {
                return unreadable(format!("`{path}` is no path: `{indexes}`"), "a path is a.b[0].c");
            };
            pointer = format!("{pointer}/{index}");
            indexes = rest;
        }
    }
    Ok(pointer)
}

/// A JSON pointer as a person reads it: `vars.topic`.
pub fn dotted(pointer: &str) -> String {
    let names = pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~"));
    names.collect::<Vec<_>>().join(".")
}

impl Writes {
    /// Reads `POLICY` or `POLICY,KEY=POLICY,…`.
    ///
    /// ```
    /// use foldback_core::change::{Policy, Writes};
    /// let writes = Writes::parse("reuse,publish=live").unwrap();
    /// assert_eq!(writes.of(&"publish".into()), Policy::Live);
    /// assert_eq!(writes.of(&"announce".into()), Policy::Reuse);
    /// ```
    ///
    /// # Errors
    /// A word that is no policy, or a key that is named twice.
    pub fn parse(text: &str) -> Result<Writes, Unreadable> {
        const POLICIES: &str = "a policy is reuse, ask, stub, deny or live; by key: reuse,publish=live";
        let policy = |word: &str| match Policy::of(word.trim()) {
            Some(policy) => Ok(policy),
            None => unreadable(format!("`{}` is no policy for writes", word.trim()), POLICIES),
        };
        let mut writes = Writes::default();
        let mut is_said = false;
        for part in text.split(',') {
            match part.rsplit_once('=') {
                Some((key, word)) if !key.trim().is_empty() => {
                    let policy = policy(word)?;
                    if writes.by_key.insert(Key::from(key.trim()), policy).is_some() {
                        return unreadable(format!("`{}` is named twice in --writes", key.trim()), POLICIES);
                    }
                }
                Some(_) => return unreadable(format!("`{part}` names no step"), POLICIES),
                None if is_said => {
                    return unreadable(format!("`{text}` has two policies for all writes"), POLICIES);
                }
                None => (writes.policy, is_said) = (policy(part)?, true),
            }
        }
        Ok(writes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn edits_are_read_as_they_are_written() {
        use SaidTarget::{Input, Models, Output, Request};
        let cases = [
            ("draft:template=@new.md", Request("draft".into()), "/template", Err("new.md".to_owned())),
            ("critique:output.score=0.4", Output("critique".into()), "/score", Ok(json!(0.4))),
            ("critique:output={\"a\":1}", Output("critique".into()), "", Ok(json!({"a": 1}))),
            ("*:temperature=0", Models, "/temperature", Ok(json!(0))),
            ("input:topic=\"a=b\"", Input, "/topic", Ok(json!("a=b"))),
            ("input=[1]", Input, "", Ok(json!([1]))),
            (
                "a[0]/b:messages[1].content=\"x\"",
                Request("a[0]/b".into()),
                "/messages/1/content",
                Ok(json!("x")),
            ),
            ("x:/odd.name=1", Request("x".into()), "/odd.name", Ok(json!(1))),
            ("x:outputs=1", Request("x".into()), "/outputs", Ok(json!(1))),
        ];
        for (text, target, path, value) in cases {
            assert_eq!(Said::parse(text), Ok(Said { target, path: path.into(), value }), "{text}");
        }
    }

    #[test]
    fn what_is_no_edit_says_why() {
        let cases = [
            ("draft", "`=` is missing"),
            ("draft=1", "`:` is missing"),
            (":a=1", "names no step"),
            ("draft:=1", "names no member"),
            ("*:output=1", "every model call"),
            ("draft:model=gpt", "is not JSON"),
            ("draft:a..b=1", "a name is missing"),
            ("draft:a[x]=1", "is no path"),
            ("draft:a=@", "names no file"),
        ];
        for (text, wanted) in cases {
            let message = Said::parse(text).unwrap_err().message;
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }

    #[test]
    fn policies_are_read_or_refused() {
        for (text, wanted) in [
            ("publish", "is no policy"),
            ("reuse,live", "two policies"),
            ("a=live,a=deny", "named twice"),
            ("=live", "names no step"),
            ("", "is no policy"),
        ] {
            let message = Writes::parse(text).unwrap_err().message;
            assert!(message.contains(wanted), "{text}: {message}");
        }
    }
}
