//! What a person changes when a workflow is forked, or reopened at an earlier version: edits, what
//! becomes of writes, what is to run again, and where recorded outcomes are taken from.
//!
//! [`Changes`] is what was said, as the log keeps it. [`Rules`] is what of it holds from there on, as
//! the state keeps it. Nothing here performs anything; whether an outcome is taken is judged by
//! [`crate::reuse`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hash::Hash;
use crate::key::Key;
use crate::program::StepAsk;
use crate::step::{Failure, error_type};
use crate::value::Slot;
use crate::{Version, limits};

pub mod parse;

pub use parse::{Said, SaidTarget, Unreadable};

/// Which asks an edit changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// The step of this key; `[*]` in it stands for every iteration or branch.
    Key(Key),
    /// Every step of this kind.
    Kind(Arc<str>),
}

impl Target {
    /// Whether a step is meant.
    pub fn means(&self, key: &Key, kind: &str) -> bool {
        match self {
            Target::Key(pattern) => is_like(pattern.as_str(), key.as_str()),
            Target::Kind(wanted) => **wanted == *kind,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Key(key) => key.fmt(f),
            Target::Kind(_) => f.write_str("*"),
        }
    }
}

/// Whether a key is the one that a pattern names, where `[*]` stands for any index.
fn is_like(pattern: &str, key: &str) -> bool {
    let mut rest = key;
    let mut parts = pattern.split("[*]");
    let Some(left) = parts.next().and_then(|first| rest.strip_prefix(first)) else { return false };
    rest = left;
    for part in parts {
        let Some(inside) = rest.strip_prefix('[') else { return false };
        let digits = inside.len() - inside.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let after = inside[digits..].strip_prefix(']').filter(|_| digits > 0);
        let Some(left) = after.and_then(|after| after.strip_prefix(part)) else { return false };
        rest = left;
    }
    rest.is_empty()
}

/// A change of a request: holds for each ask that is made from here on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Edit {
    /// Whose request.
    pub target: Target,
    /// Which place in it, a JSON pointer; never empty.
    pub path: String,
    /// What is put there.
    pub value: Slot,
}

/// An output put in the place of the one that a completed step gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GivenOutput {
    /// The step, completed at the cut.
    pub key: Key,
    /// The whole output, as it is to be from here on.
    pub output: Slot,
}

/// What becomes of a `write` whose outcome cannot be taken from the past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// An unchanged one has its recorded outcome; any other waits for a person.
    #[default]
    Reuse,
    /// Each one waits for a person, also where nothing changed.
    Ask,
    /// Nothing happens; it is taken for done, and gives `null`.
    Stub,
    /// Nothing happens; the step fails (403).
    Deny,
    /// It is performed.
    Live,
}

impl Policy {
    /// The word of it.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Reuse => "reuse",
            Policy::Ask => "ask",
            Policy::Stub => "stub",
            Policy::Deny => "deny",
            Policy::Live => "live",
        }
    }

    /// The policy of a word.
    pub fn of(word: &str) -> Option<Policy> {
        [Policy::Reuse, Policy::Ask, Policy::Stub, Policy::Deny, Policy::Live]
            .into_iter()
            .find(|policy| policy.as_str() == word)
    }
}

/// What becomes of writes: for all, and by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writes {
    /// For every write that is not named.
    pub policy: Policy,
    /// By key; `[*]` stands for any index.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub by_key: BTreeMap<Key, Policy>,
}

impl Writes {
    /// The policy for a step.
    pub fn of(&self, key: &Key) -> Policy {
        let exact = self.by_key.get(key);
        let like = || self.by_key.iter().find(|(pattern, _)| is_like(pattern.as_str(), key.as_str()));
        exact.or_else(|| like().map(|(_, policy)| policy)).copied().unwrap_or(self.policy)
    }

    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Writes::default()
    }
}

/// Where recorded outcomes are taken from: the versions above `after`, up to `up_to`, of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The workflow: the parent, or itself before it was reopened.
    pub workflow: Arc<str>,
    /// The cut.
    pub after: Version,
    /// How far its log went then.
    pub up_to: Version,
}

/// A definition that is followed from here on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Follows {
    /// Its hash.
    pub definition: Hash,
    /// What a person calls it.
    pub name: String,
    /// The file that it was loaded from, by its whole path, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// What a person changed, as the log keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// Where recorded outcomes are taken from.
    pub past: Past,
    /// Edits of requests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<Edit>,
    /// Outputs put in the place of recorded ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<GivenOutput>,
    /// The input, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Slot>,
    /// What becomes of writes.
    #[serde(default, skip_serializing_if = "Writes::is_default")]
    pub writes: Writes,
    /// Steps that run again though nothing about them changed; `*` for all, `[*]` for any index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rerun: Vec<String>,
    /// Another definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Follows>,
}

impl Changes {
    /// No changes: recorded outcomes are taken from this past.
    pub fn none(past: Past) -> Changes {
        Changes {
            past,
            edits: Vec::new(),
            outputs: Vec::new(),
            input: None,
            writes: Writes::default(),
            rerun: Vec::new(),
            follows: None,
        }
    }

    /// Every slot.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        let edits = self.edits.iter().map(|edit| &edit.value);
        edits.chain(self.outputs.iter().map(|given| &given.output)).chain(&self.input)
    }

    /// Every slot, to be filled.
    pub fn slots_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        let edits = self.edits.iter_mut().map(|edit| &mut edit.value);
        edits.chain(self.outputs.iter_mut().map(|given| &mut given.output)).chain(&mut self.input)
    }

    /// What changed, in a few words each: `draft:template`, `critique:output`, `input`, `rerun draft`.
    pub fn told(&self) -> Vec<String> {
        let edits = self.edits.iter().map(|edit| format!("{}:{}", edit.target, parse::dotted(&edit.path)));
        let outputs = self.outputs.iter().map(|given| format!("{}:output", given.key));
        let input = self.input.iter().map(|_| "input".to_owned());
        let follows = self.follows.iter().map(|follows| format!("definition {}", follows.name));
        let rerun = self.rerun.iter().map(|key| format!("rerun {key}"));
        edits.chain(outputs).chain(input).chain(follows).chain(rerun).collect()
    }
}

/// What holds since a workflow was forked or reopened at an earlier version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rules {
    /// Edits of requests, in the order in which they are made.
    pub edits: Vec<Edit>,
    /// What becomes of writes.
    pub writes: Writes,
    /// Steps that run again.
    pub rerun: Vec<String>,
    /// Where recorded outcomes are taken from: the newest past first.
    pub pasts: Vec<Past>,
    /// Steps that were met anew when the workflow was reopened: no recorded failure is taken for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anew: Vec<Key>,
}

impl Rules {
    /// What holds after further changes: earlier edits go on to hold, what becomes of writes and
    /// what runs again is said anew.
    pub fn after(before: Option<&Rules>, changes: &Changes) -> Rules {
        let mut rules = before.cloned().unwrap_or_default();
        rules
            .edits
            .retain(|old| !changes.edits.iter().any(|new| old.target == new.target && old.path == new.path));
        rules.edits.extend(changes.edits.iter().cloned());
        rules.writes = changes.writes.clone();
        rules.rerun = changes.rerun.clone();
        rules.anew.clear();
        rules.pasts.insert(0, changes.past.clone());
        rules
    }

    /// Whether a person told a step to run again.
    pub fn reruns(&self, key: &Key) -> bool {
        self.rerun.iter().any(|pattern| pattern == "*" || is_like(pattern, key.as_str()))
    }

    /// Makes the edits that mean this ask. The hash of what the program asked, where one did.
    ///
    /// # Errors
    /// An edit that has no place in this request.
    pub fn edit(&self, ask: &mut StepAsk) -> Result<Option<Hash>, Failure> {
        let asked = ask.request_hash();
        for edit in self.edits.iter().filter(|edit| edit.target.means(&ask.key, &ask.kind)) {
            put(&mut ask.request, &edit.path, (*edit.value.get()).clone()).map_err(|detail| {
                let detail = format!("{}:{}: {detail}", edit.target, parse::dotted(&edit.path));
                let title = "The edit has no place in the request";
                Failure::new(error_type::VALIDATION, 400, title, detail).at(&ask.key)
            })?;
            let inside = format!("{}/", edit.path);
            ask.secrets.retain(|at, _| *at != edit.path && !at.starts_with(&inside));
        }
        Ok((ask.request_hash() != asked).then_some(asked))
    }
}

/// Puts a value at a JSON pointer. Members that are missing on the way are made; places in a list
/// must be there.
///
/// # Errors
/// The way leads through something that has no such place, in words.
pub fn put(value: &mut Value, path: &str, new: Value) -> Result<(), String> {
    let mut at = &mut *value;
    for part in path.split('/').skip(1) {
        let name = part.replace("~1", "/").replace("~0", "~");
        if at.is_null() {
            *at = Value::Object(Default::default());
        }
        at = match at {
            Value::Object(map) => map.entry(name).or_insert(Value::Null),
            Value::Array(items) => {
                let count = items.len();
                let index = name.parse::<usize>().ok();
                index
                    .and_then(|index| items.get_mut(index))
                    .ok_or_else(|| format!("`{name}` is no place in a list of {count}"))?
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(format!("there is no `{name}` in {at}"));
            }
            // It was made an object just now.
            Value::Null => return Err(format!("there is no `{name}` in null")),
        };
    }
    *at = new;
    match crate::value::is_too_deep(value) {
        true => Err(format!("it would nest deeper than {} levels", limits::VALUE_DEPTH_MAX)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pattern_means_keys() {
        let cases = [
            ("draft", "draft", true),
            ("draft", "draft#2", false),
            ("refine[*]/critique", "refine[12]/critique", true),
            ("refine[*]/critique", "refine[]/critique", false),
            ("refine[*]/critique", "refine[1]/critic", false),
            ("a[*]/b[*]", "a[0]/b[3]", true),
            ("a[*]", "a[0]/b", false),
        ];
        for (pattern, key, wanted) in cases {
            assert_eq!(is_like(pattern, key), wanted, "{pattern} {key}");
        }
    }

    #[test]
    fn a_value_is_put_where_the_path_leads() {
        let cases = [
            (json!({"a": 1}), "/a", Ok(json!({"a": 9}))),
            (json!({"a": 1}), "/b/c", Ok(json!({"a": 1, "b": {"c": 9}}))),
            (json!({"a": [1, 2]}), "/a/1", Ok(json!({"a": [1, 9]}))),
            (json!({"a": [1, 2]}), "/a/2", Err("`2` is no place in a list of 2".to_owned())),
            (json!({"a": "x"}), "/a/b", Err("there is no `b` in \"x\"".to_owned())),
            (json!(null), "", Ok(json!(9))),
        ];
        for (mut value, path, wanted) in cases {
            let was = value.clone();
            let found = put(&mut value, path, json!(9)).map(|()| value);
            assert_eq!(found, wanted, "{was} {path}");
        }
    }
}
