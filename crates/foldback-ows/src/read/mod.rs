//! From the tree to the program: what a definition may say, checked to the last member.
//!
//! Every problem is gathered, none stops the reading. What is not supported is refused by name,
//! with what to use instead; nothing is ignored in silence. It reads no file: references were
//! resolved before (see `resolve`).

mod call;
mod catch;
mod document;
mod duration;
mod emit;
mod limits;
mod listen;
mod llm;
mod names;
mod projection;
mod run;
mod side;
mod task;
mod value;

pub(crate) use duration::to_ms as duration_ms;
pub(crate) use emit::TEXTS as EVENT_TEXTS;
pub(crate) use projection::{Described, read as read_projection};
pub(crate) use side::given;

use std::collections::BTreeMap;

use foldback_core::{Recovery, Redaction};

use crate::problem::Report;
use crate::program::{Definition, Limits};
use crate::tree::{Member, Node};
use foldback_core::report::nearest;

/// Variables that every expression may name.
const VARIABLES: [&str; 6] = ["$context", "$input", "$steps", "$task", "$workflow", "$runtime"];

/// What is known while a definition is read.
pub(crate) struct Reader<'a> {
    pub report: Report,
    /// Literal models, with their place.
    pub models: Vec<(String, u32, u32)>,
    /// Names of secrets that the definition declares.
    pub secrets: Vec<String>,
    functions: BTreeMap<&'a str, &'a Node>,
    errors: BTreeMap<&'a str, &'a Node>,
    retries: BTreeMap<&'a str, &'a Node>,
    timeouts: BTreeMap<&'a str, &'a Node>,
    /// The document's own recovery for writes, where it sets one.
    recovery: Option<Recovery>,
    /// The attempts that a step of the document has, where it sets them.
    attempts: Option<u32>,
    /// Budgets in money, by their place.
    pub money: Vec<(u32, u32)>,
    /// What the workflow may use.
    budget_of_all: Limits,
    /// Whether a person says what becomes of what was done when it fails.
    holds: bool,
    /// The document's own rules of redaction.
    redaction: Redaction,
    /// Variables of the loops and handlers around, with their `$`.
    bound: Vec<String>,
    /// Whether an expression looks at the definition itself.
    sees_definition: bool,
    /// Names of the tasks in the lists around, the innermost last.
    lists: Vec<std::rc::Rc<names::Names>>,
    /// Bytes of the keys so far, at the most.
    key_bytes: usize,
    /// The tasks that are read run beside the flow, and see what was recorded alone.
    side: Option<side::Side>,
}

/// What was read, with what was found on the way.
pub(crate) struct Reading {
    pub definition: Option<Definition>,
    pub report: Report,
    pub models: Vec<(String, u32, u32)>,
    pub money: Vec<(u32, u32)>,
    pub secrets: Vec<String>,
    pub name: String,
}

/// Reads a whole definition.
pub(crate) fn read(root: &Node) -> Reading {
    let mut reader = Reader::new();
    let (definition, name) = reader.document(root);
    let Reader { mut report, models, money, secrets, .. } = reader;
    report.problems.sort_by_key(|problem| (problem.line, problem.column));
    let definition = definition.filter(|_| report.problems.is_empty());
    Reading { definition, report, models, money, secrets, name }
}

impl<'a> Reader<'a> {
    fn new() -> Reader<'a> {
        Reader {
            report: Report::default(),
            models: Vec::new(),
            secrets: Vec::new(),
            functions: BTreeMap::new(),
            errors: BTreeMap::new(),
            retries: BTreeMap::new(),
            timeouts: BTreeMap::new(),
            recovery: None,
            attempts: None,
            money: Vec::new(),
            budget_of_all: Limits::new(),
            holds: false,
            redaction: Redaction::default(),
            bound: Vec::new(),
            lists: Vec::new(),
            sees_definition: false,
            key_bytes: 0,
            side: None,
        }
    }

    /// The members of a node that must be an object.
    fn map<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n [Member]> {
        let members = node.as_map();
        if members.is_none() {
            self.report.problem(node, format!("{what} is an object, not {}", node.kind()));
        }
        members
    }

    /// The text of a node that must be one.
    fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        let text = node.as_str();
        if text.is_none() {
            let hint = match node.as_scalar() {
                Some(value) if !value.is_null() => format!("put it into quotes: '{value}'"),
                _ => "write a text".to_owned(),
            };
            self.report.hinted(node, format!("{what} is a text, not {}", node.kind()), hint);
        }
        text
    }

    /// A whole number of a node that must be one.
    fn number(&mut self, node: &Node, what: &str) -> Option<u64> {
        let number = node.as_scalar().and_then(serde_json::Value::as_u64);
        if number.is_none() {
            self.report.problem(node, format!("{what} is a whole number, not {}", node.kind()));
        }
        number
    }

    /// Refuses members that are not known, each with the nearest known name.
    fn only(&mut self, node: &Node, what: &str, known: &[&str]) {
        for member in node.as_map().unwrap_or_default() {
            if !known.contains(&member.name.as_str()) {
                let hint = match nearest(&member.name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", known.join(", ")),
                };
                let at = member.value.at(member.key);
                self.report.hinted(&at, format!("{what} has no member `{}`", member.name), hint);
            }
        }
    }

    /// A member that must be there.
    fn required<'n>(&mut self, node: &'n Node, what: &str, name: &str) -> Option<&'n Node> {
        let member = node.get(name);
        if member.is_none() && node.as_map().is_some() {
            self.report.problem(node, format!("{what} needs `{name}`"));
        }
        member
    }

    /// One of a few words.
    fn word<'w>(&mut self, node: &Node, what: &str, words: &[&'w str]) -> Option<&'w str> {
        let text = self.text(node, what)?;
        let word = words.iter().find(|word| **word == text).copied();
        if word.is_none() {
            let hint = nearest(text, words.iter().copied())
                .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            self.report.hinted(
                node,
                format!("{what} cannot be `{text}`"),
                format!("one of: {}{hint}", words.join(", ")),
            );
        }
        word
    }

    /// Refuses a member that is not supported.
    fn refuse(&mut self, node: &Node, name: &str, what: &str, hint: &str) {
        if let Some(member) = node.member(name) {
            let at = member.value.at(member.key);
            self.report.hinted(&at, format!("{what} is not supported"), hint);
        }
    }
}
