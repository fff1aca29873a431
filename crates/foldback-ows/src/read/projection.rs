//! Reading of a projection's file: a name, the types of the events it looks at, and two expressions.

use std::collections::BTreeSet;

use foldback_core::event::ENGINE_TYPES;
use foldback_core::limits;
use foldback_core::projection::built_in;
use foldback_core::report::nearest;
use serde_json::Value;

use super::Reader;
use super::value::{inside, place_of};
use crate::jq::Filter;
use crate::problem::{Problem, Report};
use crate::tree::Node;

const MEMBERS: [&str; 6] = ["name", "version", "description", "events", "key", "reduce"];

/// What a file says of a projection.
pub(crate) struct Described {
    pub name: String,
    /// Where it names one.
    pub version: Option<String>,
    pub events: BTreeSet<String>,
    pub key: Filter,
    pub reduce: Filter,
}

/// Reads a projection.
pub(crate) fn read(root: &Node) -> (Option<Described>, Report) {
    let mut reader = Reader::new();
    let described = reader.projection(root);
    (described, reader.report)
}

impl Reader<'_> {
    fn projection(&mut self, root: &Node) -> Option<Described> {
        const WHAT: &str = "a projection";
        self.map(root, WHAT)?;
        self.only(root, WHAT, &MEMBERS);
        let name = self.required(root, WHAT, "name").and_then(|node| self.name_of_projection(node));
        let version = root.get("version").map(|node| self.version(node));
        if let Some(description) = root.get("description") {
            self.text(description, "`description`");
        }
        let events = self.required(root, WHAT, "events").map(|node| self.event_types(node));
        let key = self.required(root, WHAT, "key").and_then(|node| self.over_event(node, "`key`"));
        let reduce = self.required(root, WHAT, "reduce").and_then(|node| self.over_event(node, "`reduce`"));
        Some(Described {
            name: name?,
            version: version.flatten(),
            events: events?,
            key: key?,
            reduce: reduce?,
        })
    }

    fn name_of_projection(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "`name`")?;
        let is_word = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !is_word || name.len() > limits::PROJECTION_NAME_MAX_BYTES {
            let hint = "small letters, digits and `_`, a letter first, 64 at most: spend_by_author";
            self.report.hinted(node, format!("`{name}` cannot be the name of a projection"), hint);
            return None;
        }
        if built_in().iter().any(|known| known.name() == name) {
            self.report.hinted(
                node,
                format!("`{name}` is a projection that every store has"),
                "give yours another name",
            );
            return None;
        }
        Some(name.to_owned())
    }

    /// What a person calls a version: `2` is as good as `"2"`.
    fn version(&mut self, node: &Node) -> Option<String> {
        let text = match node.as_scalar() {
            Some(Value::Number(number)) => number.to_string(),
            _ => self.text(node, "`version`")?.to_owned(),
        };
        if text.is_empty() || text.len() > limits::PROJECTION_NAME_MAX_BYTES {
            self.report.problem(node, "`version` has 1 to 64 bytes");
            return None;
        }
        Some(text)
    }

    fn event_types(&mut self, node: &Node) -> BTreeSet<String> {
        let items = self.list(node, "`events`");
        if node.as_list().is_some() && (items.is_empty() || items.len() > limits::PROJECTION_EVENTS_MAX) {
            let message = format!("`events` names 1 to {} types of events", limits::PROJECTION_EVENTS_MAX);
            self.report.hinted(
                node,
                message,
                "for example [StepCompleted, StepFailed]; `foldback events ID` shows which there are",
            );
        }
        let mut types = BTreeSet::new();
        for item in items {
            let Some(name) = self.text(item, "a type of event") else { continue };
            if !ENGINE_TYPES.contains(&name)
                && let Some(near) = nearest(name, ENGINE_TYPES)
            {
                let hint = format!("did you mean `{near}`?");
                self.report.warning(
                    item,
                    format!("`{name}` is a domain event: no event of the engine is called so"),
                    hint,
                );
            }
            types.insert(name.to_owned());
        }
        types
    }

    /// An expression that sees the event as `$event`, with or without `${ }`.
    fn over_event(&mut self, node: &Node, what: &str) -> Option<Filter> {
        let text = self.text(node, what)?;
        let (start, inner) = inside(text).unwrap_or((0, text));
        match Filter::new(inner, &["$event"]) {
            Ok(filter) => Some(filter),
            Err(fault) => {
                let (line, column) = place_of(node, start + fault.offset);
                let message = format!("{what} is wrong: {}", fault.message);
                let hint = fault.hint.or_else(|| Some("an expression in jq; the event is $event".to_owned()));
                self.report.problems.push(Problem {
                    line,
                    column,
                    pointer: node.pointer.to_string(),
                    message,
                    hint,
                });
                None
            }
        }
    }
}
