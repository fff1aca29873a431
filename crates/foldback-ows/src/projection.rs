//! Projections that a person writes: which events, which row each belongs to, and how it changes that
//! row, in jq under the counted budget of every expression.
//!
//! What an expression sees is the event and the row, and nothing else, so the same log gives the same
//! rows. It sees the event as `foldback events --json` prints it, but for its position and hash: they
//! differ between a log and its copy.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldback_core::projection::{Projection, Rows};
use foldback_core::report::iso;
use foldback_core::{Event, EventId, Hash, limits};
use serde_json::Value;

use crate::problem::Problem;
use crate::read::{Described, read_projection};
use crate::tree;

/// A projection of a user.
pub struct JqProjection {
    described: Described,
    version: String,
    /// The members of an event that the expressions look at; `None` for all. Others are not made.
    members: Option<BTreeSet<String>>,
    warnings: Vec<Problem>,
}

/// Reads the file of a projection, YAML or JSON.
///
/// # Errors
/// Everything that is wrong with it, each with line and column.
pub fn load_projection(source: &str) -> Result<JqProjection, Vec<Problem>> {
    let tree = tree::parse(source).map_err(|problem| vec![of_projection(problem)])?;
    let (described, mut report) = read_projection(&tree);
    report.problems.sort_by_key(|problem| (problem.line, problem.column));
    let Some(described) = described.filter(|_| report.problems.is_empty()) else {
        return Err(report.problems);
    };
    let by_content = || Hash::of_json(&tree.to_value()).to_hex()[..12].to_owned();
    let version = described.version.clone().unwrap_or_else(by_content);
    let members = members(&described);
    Ok(JqProjection { described, version, members, warnings: report.warnings })
}

fn members(Described { key, reduce, .. }: &Described) -> Option<BTreeSet<String>> {
    let named =
        [key, reduce].map(|filter| filter.members_of("$event").unwrap_or_else(|| Some(BTreeSet::new())));
    [key.members_of_input()]
        .into_iter()
        .chain(named)
        .try_fold(BTreeSet::new(), |all, some| Some(&all | &some?))
}

/// The tree speaks of definitions; an empty file of a projection needs another hint.
fn of_projection(problem: Problem) -> Problem {
    match problem.message.as_str() {
        "the definition is empty" => Problem {
            message: "the projection is empty".into(),
            hint: Some("it has `name`, `events`, `key` and `reduce`".into()),
            ..problem
        },
        _ => problem,
    }
}

impl JqProjection {
    /// What is allowed and looks like a mistake.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// An event as `foldback events --json` shows it, but for what only its place in a store says; as
    /// much of it as is looked at.
    fn shown(&self, workflow_id: &str, event: &Event) -> Value {
        let id = |id: EventId| Value::from(id.to_string());
        let members: [(&str, &dyn Fn() -> Value); 9] = [
            ("id", &|| id(event.id)),
            ("workflow_id", &|| workflow_id.into()),
            ("version", &|| event.version.into()),
            ("type", &|| event.fact.event_type().into()),
            ("payload", &|| event.fact.plain()),
            ("timestamp", &|| iso(event.timestamp).into()),
            ("actor", &|| (*event.actor).into()),
            ("causation_id", &|| event.causation_id.map(id).into()),
            ("correlation_id", &|| event.correlation_id.map(id).into()),
        ];
        let is_seen = |name: &str| self.members.as_ref().is_none_or(|members| members.contains(name));
        let seen = members.iter().filter(|(name, _)| is_seen(name));
        Value::Object(seen.map(|(name, value)| ((*name).to_owned(), value())).collect())
    }

    /// The key of the row that an event belongs to; `None` where it belongs to none.
    fn key(&self, event: &Arc<Value>) -> Result<Option<String>, String> {
        let key = self.described.key.eval(event, &|_| event.clone()).map_err(|e| format!("`key`: {e}"))?;
        let key = match key {
            Value::Null => return Ok(None),
            Value::String(text) => text,
            Value::Number(number) => number.to_string(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
                return Err(format!("`key` gives {}, where a key is a text or a number", kind(&key)));
            }
        };
        if key.is_empty() || key.len() > limits::KEY_MAX_BYTES {
            return Err(format!(
                "`key` gives a text of {} bytes; a key has 1 to {}",
                key.len(),
                limits::KEY_MAX_BYTES
            ));
        }
        Ok(Some(key))
    }

    fn reduced(&self, row: &Value, event: &Arc<Value>) -> Result<Value, String> {
        let row =
            self.described.reduce.eval(row, &|_| event.clone()).map_err(|e| format!("`reduce`: {e}"))?;
        let most = limits::PROJECTION_ROW_MAX_BYTES;
        if length(&row) > most {
            return Err(format!("`reduce` makes a row of more than {} KiB", most / 1024));
        }
        Ok(row)
    }
}

impl Projection for JqProjection {
    fn name(&self) -> &str {
        &self.described.name
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn wants(&self, event_type: &str) -> bool {
        self.described.events.contains(event_type)
    }

    fn needs_values(&self) -> bool {
        true
    }

    fn see(&mut self, workflow_id: &str, event: &Event, rows: &mut dyn Rows) -> Result<(), String> {
        let event = Arc::new(self.shown(workflow_id, event));
        let Some(key) = self.key(&event)? else { return Ok(()) };
        let mut failed = None;
        rows.change(&key, &mut |row| match self.reduced(row, &event) {
            Ok(reduced) => *row = reduced,
            Err(message) => failed = Some(message),
        });
        failed.map_or(Ok(()), Err)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Bytes of the JSON of a value, as if nothing in its texts had to be escaped.
fn length(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| length(item) + 1).sum::<usize>(),
        Value::Object(map) => {
            2 + map.iter().map(|(name, value)| name.len() + 4 + length(value)).sum::<usize>()
        }
    }
}
