//! Redaction: what is taken out of everything that comes in from outside, before it is judged. So no
//! event, and nothing that is made of events, ever holds it; what flows on is the redacted value.
//!
//! A rule is a JSON path or a pattern. Invariants: a rule reads one value at a time and remembers
//! nothing; what it costs grows with the value and the rules, never with their product in depth; what
//! stands in the place of something is not matched by a rule again. What it never does: guess what is
//! worth hiding, or look into bytes that are encoded once more.
//!
//! The rooms: this one (rules, and what they do to values and texts), `path` (JSON paths), `world`
//! (what they do to the words of the world).

use std::borrow::Cow;
use std::sync::Arc;

use regex::{Captures, Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::limits;

mod path;
mod world;

use path::Path;

/// A rule as a person writes it: either a `path` or a `pattern`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleText {
    /// A JSON path: `$.customer.email`, `$..ssn`, `$.items[*].card`, `$['odd name']`.
    pub path: Option<String>,
    /// A regular expression.
    pub pattern: Option<String>,
    /// What stands in the place of what is found; `[redacted]`, or `[redacted NAME]`, unless said.
    pub replace: Option<String>,
    /// What a person calls the rule.
    pub name: Option<String>,
}

/// A rule that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRule {
    /// Which of its members is wrong; `None` for the rule as a whole.
    pub member: Option<&'static str>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

impl BadRule {
    fn of(member: &'static str, message: impl Into<String>, hint: impl Into<String>) -> BadRule {
        BadRule { member: Some(member), message: message.into(), hint: hint.into() }
    }
}

#[derive(Debug)]
struct Rule {
    finds: Finds,
    replace: String,
}

#[derive(Debug)]
enum Finds {
    /// Values at a place. The pattern finds the same member in the text of an error, where an answer is
    /// often quoted.
    At(Path, Option<Regex>),
    /// Texts that look so.
    Like(Regex),
}

/// How a replacement begins, unless its rule says another.
const MARK: &str = "[redacted";

/// Rules that hold together. Cheap to copy.
#[derive(Clone, Debug, Default)]
pub struct Redaction {
    rules: Vec<Arc<Rule>>,
}

impl Redaction {
    /// The redaction of these rules.
    ///
    /// # Errors
    /// The first rule that cannot be used, by its place in the list.
    pub fn of(rules: &[RuleText]) -> Result<Redaction, (usize, BadRule)> {
        if rules.len() > limits::REDACT_RULES_MAX {
            let message = format!("more than {} rules", limits::REDACT_RULES_MAX);
            let hint = "a pattern can hold alternatives: a|b".to_owned();
            return Err((limits::REDACT_RULES_MAX, BadRule { member: None, message, hint }));
        }
        let mut redaction = Redaction::default();
        for (at, text) in rules.iter().enumerate() {
            redaction.rules.push(Arc::new(rule(text).map_err(|bad| (at, bad))?));
        }
        for (at, rule) in redaction.rules.iter().enumerate() {
            if redaction.text(&rule.replace) != rule.replace {
                let hint = "write a `replace` that no pattern finds, such as [redacted]";
                let message = "what it puts in its place is found by a rule again";
                return Err((at, BadRule::of("replace", message, hint)));
            }
        }
        Ok(redaction)
    }

    /// These rules, and then others.
    pub fn and(&self, others: &Redaction) -> Redaction {
        Redaction { rules: self.rules.iter().chain(&others.rules).cloned().collect() }
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// A value without what the rules find. A number that a pattern finds becomes a text.
    pub fn value(&self, mut value: Value) -> Value {
        let mut has_patterns = false;
        for rule in &self.rules {
            match &rule.finds {
                Finds::At(path, _) => path.strike(&mut value, &rule.replace),
                Finds::Like(_) => has_patterns = true,
            }
        }
        if has_patterns { self.texts(value) } else { value }
    }

    /// What stands in the place of the value that a path leads to, where a rule may name that place. The
    /// path is that of the members of it; `None` is an item of a list.
    pub fn replacement_at(&self, members: &[Option<&str>]) -> Option<&str> {
        let rule = self.rules.iter().find(|rule| match &rule.finds {
            Finds::At(path, _) => path.may_be(members),
            Finds::Like(_) => false,
        });
        rule.map(|rule| rule.replace.as_str())
    }

    /// Whether a value holds what was put in the place of something that a rule found: one of these rules, or
    /// one that says nothing of its own.
    pub fn is_marked(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => {
                let mut marks = self.rules.iter().map(|rule| rule.replace.as_str());
                text.contains(MARK) || marks.any(|mark| !mark.is_empty() && text.contains(mark))
            }
            Value::Array(items) => items.iter().any(|item| self.is_marked(item)),
            Value::Object(members) => members.values().any(|member| self.is_marked(member)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// A text without what the patterns find.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        for rule in &self.rules {
            if let Finds::Like(pattern) = &rule.finds {
                clean = replaced(pattern, clean, |_| rule.replace.clone());
            }
        }
        clean
    }

    /// As [`Redaction::text`], for a text in which JSON may be quoted: members that a path names are
    /// found by their name.
    fn quoting(&self, text: &str) -> String {
        let mut clean = self.text(text);
        for rule in &self.rules {
            if let Finds::At(_, Some(member)) = &rule.finds {
                clean = replaced(member, clean, |found| format!("{}\"{}\"", &found[1], rule.replace));
            }
        }
        clean.into_owned()
    }

    /// The patterns over every text in a value: strings, names, and numbers as they are written.
    fn texts(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text).into_owned()),
            Value::Number(number) => {
                let text = number.to_string();
                match self.text(&text) {
                    clean if clean == text => Value::Number(number),
                    clean => Value::String(clean.into_owned()),
                }
            }
            Value::Array(items) => Value::Array(items.into_iter().map(|item| self.texts(item)).collect()),
            Value::Object(map) => {
                let mut clean = Map::new();
                for (name, value) in map {
                    let name = free_name(&clean, self.text(&name).into_owned());
                    clean.insert(name, self.texts(value));
                }
                Value::Object(clean)
            }
            Value::Null | Value::Bool(_) => value,
        }
    }
}

/// Two names that are redacted to the same one are two still.
fn free_name(taken: &Map<String, Value>, name: String) -> String {
    if !taken.contains_key(&name) {
        return name;
    }
    let numbered = (2..).map(|n| format!("{name} {n}")).find(|name| !taken.contains_key(name));
    numbered.unwrap_or(name)
}

/// A match of nothing hides nothing.
fn replaced<'a>(pattern: &Regex, text: Cow<'a, str>, with: impl Fn(&Captures<'_>) -> String) -> Cow<'a, str> {
    let with = |found: &Captures<'_>| if found[0].is_empty() { String::new() } else { with(found) };
    match pattern.replace_all(&text, with) {
        Cow::Borrowed(_) => text,
        Cow::Owned(clean) => Cow::Owned(clean),
    }
}

fn rule(text: &RuleText) -> Result<Rule, BadRule> {
    let replace = match (&text.replace, &text.name) {
        (Some(replace), _) => replace.clone(),
        (None, Some(name)) => format!("{MARK} {name}]"),
        (None, None) => format!("{MARK}]"),
    };
    if replace.len() > limits::REDACT_TEXT_MAX_BYTES {
        let message = format!("is longer than {} bytes", limits::REDACT_TEXT_MAX_BYTES);
        return Err(BadRule::of("replace", message, "say in a word what stood there"));
    }
    let finds = match (&text.path, &text.pattern) {
        (Some(path), None) => {
            let path = Path::parse(path)?;
            let member = path.last_name().map(quoted_member).transpose()?;
            Finds::At(path, member)
        }
        (None, Some(pattern)) => Finds::Like(regex(pattern)?),
        (Some(_), Some(_)) | (None, None) => {
            let message = "a rule has either a `path` or a `pattern`".to_owned();
            let hint = "path = \"$..email\", or pattern = '\\d{3}-\\d{2}-\\d{4}'".to_owned();
            return Err(BadRule { member: None, message, hint });
        }
    };
    Ok(Rule { finds, replace })
}

fn regex(pattern: &str) -> Result<Regex, BadRule> {
    let bad = |message: String, hint: &str| BadRule::of("pattern", message, hint);
    if pattern.is_empty() || pattern.len() > limits::REDACT_TEXT_MAX_BYTES {
        let message = format!("is empty or longer than {} bytes", limits::REDACT_TEXT_MAX_BYTES);
        return Err(bad(message, "a pattern is a regular expression"));
    }
    RegexBuilder::new(pattern).size_limit(limits::REDACT_REGEX_MAX_BYTES).build().map_err(|error| match error
    {
        regex::Error::CompiledTooBig(_) => {
            bad("is too large a regular expression".into(), "repeat less: {1000} counts a thousand times")
        }
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            let what = last.trim_start_matches("error: ").to_owned();
            bad(format!("is no regular expression: {what}"), "write it between '…', where a backslash is one")
        }
    })
}

/// Finds `"name": value` in a text, where the value is no list and no object; a text that was cut off
/// inside it too.
fn quoted_member(name: &str) -> Result<Regex, BadRule> {
    let name = regex::escape(&Value::from(name).to_string());
    let value = r#"(?:"(?:[^"\\]|\\.)*"?|-?[0-9][0-9.eE+-]*|true|false)"#;
    regex(&format!(r"({name}\s*:\s*){value}"))
}

#[cfg(test)]
mod tests;
