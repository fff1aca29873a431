//! Reading of `listen`: which signals are waited for, and what an answer must look like.

use std::sync::Arc;

use foldback_core::event::ENGINE_TYPES;
use foldback_core::limits;
use serde_json::Value;

use super::Reader;
use super::value::{Allow, inside};
use crate::program::{Correlation, EventFilter, Join, ListenTask, Wanted};
use crate::schema::Schema;
use crate::tree::Node;

/// Attributes of an event that a filter may name.
const ATTRIBUTES: [&str; 5] = ["type", "data", "source", "subject", "id"];

impl Reader<'_> {
    pub(super) fn listen(&mut self, node: &Node, own: &Node) -> Option<ListenTask> {
        self.map(own, "`listen`")?;
        self.only(own, "`listen`", &["to", "read"]);
        self.refuse(
            node,
            "foreach",
            "`foreach` of `listen`",
            "listen to one in a list of tasks that leads back to it with `then`",
        );
        let reads_envelope = match own.get("read") {
            Some(read) => self.word(read, "`read`", &["data", "envelope", "raw"]) != Some("data"),
            None => false,
        };
        let to = self.required(own, "`listen`", "to")?;
        let (join, filters) = self.strategy(to)?;
        let ours = node.find("/metadata/foldback");
        let (schema, schema_text) = match ours.and_then(|ours| ours.get("schema")) {
            Some(schema) => (self.answer_schema(schema), Some(schema.to_value())),
            None => (None, None),
        };
        let default = ours.and_then(|ours| ours.get("default")).map(|default| {
            if node.get("timeout").is_none() {
                let hint = "say how long it waits: timeout: { after: { hours: 24 } }";
                self.report.hinted(default, "`default` is for a wait whose time runs out", hint);
            }
            self.template(default, Allow::Expressions)
        });
        Some(ListenTask { join, filters, reads_envelope, schema, schema_text, default })
    }

    fn strategy(&mut self, to: &Node) -> Option<(Join, Vec<EventFilter>)> {
        const KINDS: [(&str, Join); 3] = [("one", Join::One), ("any", Join::Any), ("all", Join::All)];
        self.map(to, "`to`")?;
        self.only(to, "`to`", &["one", "any", "all", "until"]);
        self.refuse(
            to,
            "until",
            "`until`",
            "listen to one in a list of tasks that leads back to it with `then`, and stop with a `switch`",
        );
        let given: Vec<_> = KINDS.iter().filter(|(name, _)| to.get(name).is_some()).collect();
        let [(name, join)] = given.as_slice() else {
            self.report.hinted(
                to,
                "`to` says one of `one`, `any` and `all`",
                "to: { one: { with: { type: … } } }",
            );
            return None;
        };
        let node = to.get(name)?;
        let nodes: Vec<&Node> = match join {
            Join::One => vec![node],
            Join::Any | Join::All => self.list(node, &format!("`{name}`")).iter().collect(),
        };
        if nodes.is_empty() && node.as_list().is_some() {
            let hint = "name the types that are waited for";
            self.report.hinted(node, "a wait for any signal at all is not supported", hint);
        }
        let filters: Vec<EventFilter> = nodes.iter().filter_map(|node| self.event_filter(node)).collect();
        (filters.len() == nodes.len()).then_some((*join, filters))
    }

    fn event_filter(&mut self, node: &Node) -> Option<EventFilter> {
        self.map(node, "a filter")?;
        self.only(node, "a filter", &["with", "correlate"]);
        let with = self.required(node, "a filter", "with")?;
        self.map(with, "`with`")?;
        self.only(with, "`with`", &ATTRIBUTES);
        let name = self.required(with, "a filter", "type").and_then(|node| self.signal_name(node));
        let mut wanted = Vec::new();
        for attribute in ATTRIBUTES.into_iter().filter(|attribute| *attribute != "type") {
            let Some(node) = with.get(attribute) else { continue };
            let is_expression = node.as_str().is_some_and(|text| inside(text).is_some());
            let holds = match is_expression {
                true => self
                    .expression(node, &format!("`{attribute}`"), Allow::Expressions)
                    .map(|filter| Wanted::Holds(Box::new(filter))),
                false => Some(Wanted::Is(node.to_value())),
            };
            wanted.extend(holds.map(|holds| (attribute.to_owned(), holds)));
        }
        let correlate = node.get("correlate").map(|node| self.correlations(node)).unwrap_or_default();
        Some(EventFilter { name: name?, with: wanted, correlate })
    }

    fn signal_name(&mut self, node: &Node) -> Option<Arc<str>> {
        let text = self.text(node, "`type`")?;
        let hint = "write it out: it is the NAME of `foldback signal ID NAME`";
        if inside(text).is_some() {
            self.report.hinted(node, "the type that is waited for cannot be computed", hint);
        } else if text.is_empty()
            || text.len() > limits::SIGNAL_NAME_MAX_BYTES
            || ENGINE_TYPES.contains(&text)
        {
            self.report.hinted(node, format!("`{text}` cannot be the type of a signal"), hint);
        }
        Some(Arc::from(text))
    }

    fn correlations(&mut self, node: &Node) -> Vec<Correlation> {
        let members = self.map(node, "`correlate`").unwrap_or_default();
        let mut correlations = Vec::new();
        for member in members {
            let what = format!("the correlation `{}`", member.name);
            if self.map(&member.value, &what).is_none() {
                continue;
            }
            self.only(&member.value, &what, &["from", "expect"]);
            let Some(node) = self.required(&member.value, &what, "from") else { continue };
            let Some(from) = self.expression(node, "`from`", Allow::Expressions) else { continue };
            if from.members_of_input().is_some_and(|members| members.is_empty()) {
                let hint = "take it from the event: from: '${ .data.order }'";
                self.report.hinted(
                    node,
                    format!("{what} looks at nothing of the event: it can never match"),
                    hint,
                );
            }
            let expect = member.value.get("expect").map(|node| self.template(node, Allow::Expressions));
            if expect.as_ref().and_then(|expect| expect.as_constant()).is_some_and(Value::is_null) {
                let hint = "leave `expect` out to take what the first event has";
                self.report.hinted(node, format!("{what} expects nothing: it can never match"), hint);
            }
            correlations.push(Correlation { name: member.name.clone(), from, expect });
        }
        correlations
    }

    /// `metadata.foldback.schema` of a `listen`: JSON Schema of the data.
    fn answer_schema(&mut self, node: &Node) -> Option<Schema> {
        self.map(node, "`schema`")?;
        match Schema::new(node.to_value()) {
            Ok(schema) => Some(schema),
            Err(fault) => {
                let at = node.find(&fault.pointer).unwrap_or(node);
                self.report.hinted(at, fault.message, fault.hint);
                None
            }
        }
    }
}
