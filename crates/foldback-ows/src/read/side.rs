//! Reading of tasks that run beside the flow: those that take a step back, those that find out
//! whether one happened, and those that take a domain event back.
//!
//! They may run long after the flow has moved on, so they see only what was recorded for them; what
//! refers to anything else is refused here.

use serde_json::Value;

use super::value::Allow;
use super::{Reader, VARIABLES};
use crate::jq::Filter;
use crate::program::{Body, StepUndo, TaskList};
use crate::tree::Node;
use foldback_core::{Effect, report::nearest};

/// Variables that stay visible.
const SEEN: [&str; 5] = ["$input", "$steps", "$task", "$workflow", "$runtime"];

/// What tasks beside the flow are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    /// The variable that holds what was recorded, with its `$`.
    variable: &'static str,
    /// Its members.
    members: &'static [&'static str],
    /// Whether they may change the world.
    may_write: bool,
    hint: &'static str,
}

const UNDO: Side = Side {
    variable: "$write",
    members: &["key", "input", "output"],
    may_write: true,
    hint: "an undo sees what was recorded: $write.key, $write.input, $write.output, and $write.with if it says \
           undo: { with: { name: ${ … } }, do: […] }",
};

const UNDO_WITH: Side = Side { members: &["key", "input", "output", "with"], ..UNDO };

const RECONCILE: Side = Side {
    variable: "$write",
    members: &["key", "input", "request", "idempotency_key"],
    may_write: false,
    hint: "what finds out whether a step happened sees $write.key, $write.input, $write.request and \
           $write.idempotency_key",
};

const EVENT: Side = Side {
    variable: "$event",
    members: &["type", "data", "id", "source", "time", "subject"],
    may_write: true,
    hint: "what takes a domain event back sees $event.type and $event.data",
};

impl Reader<'_> {
    /// Variables that every expression may name where it stands.
    pub(super) fn variables(&self) -> &'static [&'static str] {
        if self.side.is_some() { &SEEN } else { &VARIABLES }
    }

    pub(super) fn hint_of_side(&self) -> Option<String> {
        self.side.map(|side| side.hint.to_owned())
    }

    /// `$write.NAME` must be recorded.
    pub(super) fn check_recorded(&mut self, node: &Node, filter: &Filter) {
        let Some(side) = self.side else { return };
        for name in filter.members_of(side.variable).flatten().unwrap_or_default() {
            if side.members.contains(&name.as_str()) {
                continue;
            }
            let hint = match nearest(&name, side.members.iter().copied()) {
                Some(near) => format!("did you mean `{}.{near}`?", side.variable),
                None => side.hint.to_owned(),
            };
            self.report.hinted(node, format!("`{}.{name}` is not recorded", side.variable), hint);
        }
    }

    /// `undo`: tasks, or `{ with: …, do: tasks }`.
    pub(super) fn undo(&mut self, node: &Node) -> Option<StepUndo> {
        if self.side.is_some() {
            self.report.hinted(node, "what takes a step back is not taken back itself", "leave it out");
            return None;
        }
        let (with, list, side) = match node.as_map() {
            None => (None, node, UNDO),
            Some(_) => {
                self.only(node, "`undo`", &["with", "do"]);
                let with = node.get("with").map(|with| {
                    self.map(with, "`with`");
                    self.template(with, Allow::Expressions)
                });
                let side = if with.is_some() { UNDO_WITH } else { UNDO };
                (with, self.required(node, "`undo`", "do")?, side)
            }
        };
        let list = self.side_list(list, "undo", side)?;
        Some(StepUndo::Tasks { with, list })
    }

    /// `irreversible`: why, and what to tell the person.
    pub(super) fn irreversible(&mut self, node: &Node) -> Option<StepUndo> {
        let text = self.text(node, "`irreversible`")?;
        if text.trim().is_empty() {
            let hint = "say why, and what to tell the person: irreversible: the letter is in the post";
            self.report.hinted(node, "`irreversible` says nothing", hint);
        }
        Some(StepUndo::Irreversible(text.to_owned()))
    }

    /// `reconcile`: tasks that only look.
    pub(super) fn reconcile(&mut self, node: &Node) -> Option<TaskList> {
        if self.side.is_some() {
            let hint = "write recovery: retry or recovery: operator here";
            self.report.hinted(node, "what stands beside the flow is not reconciled", hint);
            return None;
        }
        self.side_list(node, "reconcile", RECONCILE)
    }

    /// `on_compensate`: by event type, tasks that take it back.
    pub(super) fn on_compensate(&mut self, node: &Node) -> Vec<(String, TaskList)> {
        let members = self.map(node, "`on_compensate`").unwrap_or_default();
        let mut handlers = Vec::new();
        for member in members {
            let list = self.side_list(&member.value, &format!("on_compensate.{}", member.name), EVENT);
            handlers.extend(list.map(|list| (member.name.clone(), list)));
        }
        handlers
    }

    fn side_list(&mut self, node: &Node, what: &str, side: Side) -> Option<TaskList> {
        let bound = std::mem::replace(&mut self.bound, vec![side.variable.to_owned()]);
        let lists = std::mem::take(&mut self.lists);
        let before = self.side.replace(side);
        let list = self.task_list(node, what);
        (self.bound, self.lists, self.side) = (bound, lists, before);
        list
    }

    /// What a task beside the flow may not do.
    pub(super) fn check_side_task(&mut self, name: &str, node: &Node, body: &Body) {
        let Some(side) = self.side else { return };
        self.refuse(node, "export", "`export` beside the flow", "`$context` is the workflow's; use `output`");
        if let Body::Listen(_) = body {
            let hint = "what cannot be taken back without somebody fails here: it is `stuck`, and `compensate` goes on";
            self.report.hinted(node, format!("`{name}` may not listen: who has ended hears nobody"), hint);
        }
        if let Body::Step(step) = body
            && step.effect == Effect::Write
            && !side.may_write
        {
            let hint = "a call that only looks: method: get, or metadata: { foldback: { effect: read } }";
            self.report.hinted(node, format!("`{name}` may not write: it finds out what happened"), hint);
        }
    }
}

/// What an undo is given, beside the output.
pub(crate) fn given(input: &Value, with: Option<Value>) -> Value {
    let mut given = serde_json::Map::new();
    given.insert("input".into(), input.clone());
    given.extend(with.map(|with| ("with".to_owned(), with)));
    Value::Object(given)
}
