//! What an expression sees: the values of `$input`, `$context`, `$steps` and the others.
//!
//! Values come from the state and the scopes around a task; nothing is looked up elsewhere, so an
//! expression sees the same on every machine and at every time.

use std::sync::Arc;

use foldback_core::{Key, Redaction};
use serde_json::{Map, Value, json};

use super::{Scope, Walker};
use crate::jq::Wrong;
use crate::program::Task;

use crate::template::Template;

/// What can be seen from where an expression stands.
pub(crate) struct Sight<'a> {
    /// The task, with its key.
    pub task: Option<(&'a Task, &'a Key)>,
    pub scope: Option<&'a Scope<'a>>,
    pub input: &'a Arc<Value>,
    pub output: Option<&'a Arc<Value>>,
    /// Variables that only this expression sees.
    pub variables: &'a [(&'a str, Arc<Value>)],
}

impl<'a> Sight<'a> {
    pub fn of_workflow(input: &'a Arc<Value>, output: Option<&'a Arc<Value>>) -> Sight<'a> {
        Sight { task: None, scope: None, input, output, variables: &[] }
    }

    pub fn of_task(task: &'a Task, key: &'a Key, scope: &'a Scope<'a>, input: &'a Arc<Value>) -> Sight<'a> {
        Sight { task: Some((task, key)), scope: Some(scope), input, output: None, variables: &[] }
    }
}

impl Walker<'_> {
    /// The value of a variable.
    pub(super) fn variable(&self, sight: &Sight<'_>, name: &str) -> Arc<Value> {
        match name {
            "$input" => sight.input.clone(),
            "$output" => sight.output.cloned().unwrap_or_default(),
            "$context" => self.state.context.get(),
            "$steps" => Arc::new(self.steps(sight)),
            "$task" => Arc::new(match sight.task {
                Some((task, key)) => {
                    let began = self.entry(key).map_or(self.state.now, |entry| entry.began);
                    json!({
                        "name": task.name,
                        "key": key,
                        "reference": &*task.pointer,
                        "definition": self.definition.document.pointer(&task.pointer),
                        "input": self.raw.as_deref(),
                        "startedAt": moment(began),
                    })
                }
                None => Value::Null,
            }),
            "$workflow" => Arc::new(json!({
                "id": &*self.state.workflow_id,
                "definition": self.definition.document,
                "input": *self.state.input.get(),
                "startedAt": moment(self.state.started_at),
            })),
            "$runtime" => Arc::new(json!({"name": "foldback"})),
            name => self.bound(sight, name).unwrap_or_default(),
        }
    }

    /// A variable of the loops and handlers around, the innermost first.
    fn bound(&self, sight: &Sight<'_>, name: &str) -> Option<Arc<Value>> {
        let own = sight.variables.iter().rev().find(|(known, _)| *known == name);
        if let Some((_, value)) = own {
            return Some(value.clone());
        }
        let mut scope = sight.scope;
        while let Some(here) = scope {
            if let Some((_, value)) = here.variables.iter().rev().find(|(known, _)| *known == name) {
                return Some(value.clone());
            }
            scope = here.around;
        }
        None
    }

    /// Outputs of the tasks that are over in this scope and those around; the innermost of a name.
    fn steps(&self, sight: &Sight<'_>) -> Value {
        let mut steps = Map::new();
        let mut scope = sight.scope;
        while let Some(here) = scope {
            for task in &here.list.tasks {
                if steps.contains_key(&task.name) {
                    continue;
                }
                let newest = self.state.newest_visit(&here.key.child(&task.name));
                if let Some((key, _)) = newest
                    && self.is_finished(&key)
                    && let Some(output) = self.output_of(&key)
                {
                    steps.insert(task.name.clone(), (*output).clone());
                }
            }
            scope = here.around;
        }
        Value::Object(steps)
    }

    /// Evaluates a template where a task sees it.
    pub(super) fn eval(&self, template: &Template, dot: &Value, sight: &Sight<'_>) -> Result<Value, String> {
        self.note(template, dot, sight);
        template.eval(dot, &|name| self.variable(sight, name)).map_err(|wrong| self.told(wrong, sight))
    }

    /// Why an expression gave no value: without the values themselves where they may be erased one day,
    /// as the error stays in the log.
    pub(super) fn told(&self, wrong: Wrong, sight: &Sight<'_>) -> String {
        let is_erasable = match sight.task {
            Some((_, key)) => self.definition.is_erasable(key),
            None => self.definition.is_erasable(&Key::root()),
        };
        if is_erasable { wrong.plain } else { wrong.message }
    }

    /// Evaluates a condition: everything but `null` and `false` holds.
    pub(super) fn holds(
        &self,
        filter: &crate::jq::Filter,
        dot: &Value,
        sight: &Sight<'_>,
    ) -> Result<bool, String> {
        self.note(filter, dot, sight);
        let value =
            filter.eval(dot, &|name| self.variable(sight, name)).map_err(|wrong| self.told(wrong, sight))?;
        Ok(!matches!(value, Value::Null | Value::Bool(false)))
    }

    /// Why a condition holds or not: its result under `name`, the values it looked at, each short enough to
    /// be read, and which of them were redacted.
    pub(super) fn reasons(
        &self,
        (name, holds): (&str, bool),
        filter: &crate::jq::Filter,
        dot: &Value,
        sight: &Sight<'_>,
    ) -> Map<String, Value> {
        let reasons = filter.reasons(dot, &|name| self.variable(sight, name));
        let mut because = Map::new();
        because.insert(name.to_owned(), Value::Bool(holds));
        let marked = marked(&self.definition.redaction, &reasons);
        let values = reasons.into_iter().map(|(path, value)| (path, shortened(value))).collect();
        because.insert("values".into(), Value::Object(values));
        because.extend(marked.map(|paths| ("redacted".to_owned(), paths)));
        because
    }
}

/// Names the values of a condition that were redacted before it saw them: it compared what stands in
/// their place.
fn marked(redaction: &Redaction, reasons: &[(String, Value)]) -> Option<Value> {
    let marked = reasons.iter().filter(|(_, value)| redaction.is_marked(value));
    let paths: Vec<Value> = marked.map(|(path, _)| Value::from(path.as_str())).collect();
    (!paths.is_empty()).then_some(Value::Array(paths))
}

/// A value, or a note in its place when it is long.
pub(super) fn shortened(value: Value) -> Value {
    const REASON_MAX_BYTES: usize = 2_048;
    let length = value.to_string().len();
    match &value {
        _ if length <= REASON_MAX_BYTES => value,
        Value::Array(items) => Value::from(format!("(an array of {} items, {length} bytes)", items.len())),
        Value::Object(map) => Value::from(format!("(an object of {} members, {length} bytes)", map.len())),
        Value::String(text) => {
            Value::from(format!("{}… ({length} bytes)", text.chars().take(200).collect::<String>()))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// A moment as the specification describes one.
fn moment(micros: i64) -> Value {
    let seconds = micros.div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let millis = micros.rem_euclid(1_000_000) / 1_000;
    let text = format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    );
    json!({"iso8601": text, "epoch": {"seconds": seconds, "milliseconds": micros.div_euclid(1_000)}})
}

/// The date of a day since 1970-01-01: years are counted from March, so that a leap day ends one.
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_OF_400_YEARS: i64 = 146_097;
    // 0000-03-01 lies so many days before 1970-01-01.
    let since_march = days + 719_468;
    let (era, day_of_era) =
        (since_march.div_euclid(DAYS_OF_400_YEARS), since_march.rem_euclid(DAYS_OF_400_YEARS));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_read_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599, "2025-12-31T23:59:59.000Z"),
            (-1, "1969-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(moment(seconds * 1_000_000)["iso8601"], text);
        }
    }
}
