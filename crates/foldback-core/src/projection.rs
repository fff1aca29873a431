//! Projections: folds over the events of many workflows, kept as rows that a person queries.
//!
//! A projection sees each event once, in the order of the feed, and changes rows that it names by
//! key. It never reads a clock, a store or another projection, so the same feed gives the same
//! rows, or fails at the same event; who runs it, and how rows and place are written as one, is the engine's.
//!
//! The rows of the ones that are built in are a contract, like the columns of a table: fields may
//! be added, never renamed.

use serde_json::{Map, Value, json};

use crate::event::{Event, Fact};
use crate::report::iso;
use crate::step::Usage;

/// A fold over the events of many workflows.
pub trait Projection: Send {
    /// Its name in `workflow_projections`.
    fn name(&self) -> &str;
    /// Which version of it this is: where it is another one, the rows are made anew.
    fn version(&self) -> &str;
    /// Whether it looks at events of this type. Others are not shown to it.
    fn wants(&self, _event_type: &str) -> bool {
        true
    }
    /// Whether it looks at values that may lie beside the log: they are at hand then.
    fn needs_values(&self) -> bool {
        false
    }
    /// What an event changes.
    ///
    /// # Errors
    /// Why it cannot be folded, for a person. No row was changed by this event then.
    fn see(&mut self, workflow_id: &str, event: &Event, rows: &mut dyn Rows) -> Result<(), String>;
}

/// The rows of one projection.
pub trait Rows {
    /// Changes the row of a key; it is `null` where there is none yet, and taken away where it becomes
    /// `null`.
    fn change(&mut self, key: &str, how: &mut dyn FnMut(&mut Value));
}

/// The projections that each store keeps: `workflows`, `model_usage`, `decisions`.
pub fn built_in() -> Vec<Box<dyn Projection>> {
    vec![Box::new(Workflows), Box::new(ModelUsage), Box::new(Decisions)]
}

/// One row a workflow: what it is, how far it came, what it used. Key: its id.
///
/// `{definition, definition_hash, version, started_at, ended, ended_at, steps, failed_steps,
/// input_tokens, output_tokens, micro_usd}`; times are ISO 8601 in UTC, `ended` is `completed`,
/// `failed`, `cancelled`, `compensated`, `parked` or null. `undone` counts what was taken back. A fork has `{parent, cut, changes, reused_steps}` too, and counts only
/// what it did itself.
struct Workflows;

impl Projection for Workflows {
    fn name(&self) -> &str {
        "workflows"
    }

    fn version(&self) -> &str {
        "2"
    }

    fn see(&mut self, workflow_id: &str, event: &Event, rows: &mut dyn Rows) -> Result<(), String> {
        rows.change(workflow_id, &mut |row| {
            let row = fields(row);
            match &event.fact {
                Fact::WorkflowStarted(started) => {
                    row.insert("definition".into(), json!(started.name));
                    row.insert("definition_hash".into(), json!(started.definition));
                    row.insert("started_at".into(), json!(iso(event.timestamp)));
                    row.insert("ended".into(), Value::Null);
                }
                Fact::WorkflowForked(forked) => {
                    row.insert("started_at".into(), json!(iso(event.timestamp)));
                    row.insert("parent".into(), json!(forked.lineage.parent));
                    row.insert("cut".into(), json!(forked.lineage.cut));
                    row.insert("changes".into(), json!(forked.changes.told()));
                    row.insert("ended".into(), Value::Null);
                }
                Fact::StepReused(_) => add(row, "reused_steps", 1),
                Fact::StepCompleted(_) => add(row, "steps", 1),
                Fact::StepFailed(_) => add(row, "failed_steps", 1),
                Fact::WorkflowCompleted { .. } => end(row, "completed", event),
                Fact::WorkflowFailed { .. } => end(row, "failed", event),
                Fact::WorkflowParked { .. } => end(row, "parked", event),
                Fact::WorkflowCancelled { .. } => end(row, "cancelled", event),
                Fact::UndoCompleted { .. } => add(row, "undone", 1),
                Fact::CompensationEnded { scope } if scope.is_root() => end(row, "compensated", event),
                Fact::CompensationEnded { .. } => {}
                Fact::WorkflowReopened { .. } => {
                    row.insert("ended".into(), Value::Null);
                    row.remove("ended_at");
                }
                Fact::StepAsked(_)
                | Fact::AttemptStarted { .. }
                | Fact::AttemptFailed(_)
                | Fact::OutcomeUnknown { .. }
                | Fact::OutcomeResolved { .. }
                | Fact::OutcomeReconciled { .. }
                | Fact::StepCancelled { .. }
                | Fact::TimerSet { .. }
                | Fact::TimerFired { .. }
                | Fact::TimerCancelled { .. }
                | Fact::DecisionMade(_)
                | Fact::TaskStarted { .. }
                | Fact::TaskFinished { .. }
                | Fact::UndoArmed(_)
                | Fact::WorkflowPaused { .. }
                | Fact::WorkflowUnpaused { .. }
                | Fact::BudgetSet { .. }
                | Fact::BudgetWarned { .. }
                | Fact::BudgetExceeded { .. }
                | Fact::SignalReceived(_)
                | Fact::ListenStarted { .. }
                | Fact::SignalTaken { .. }
                | Fact::SignalRefused { .. }
                | Fact::UndoStarted(_)
                | Fact::UndoFailed { .. }
                | Fact::CompensationStarted { .. }
                | Fact::CompensationRequested { .. }
                | Fact::WriteHeld { .. }
                | Fact::WriteSettled { .. }
                | Fact::Recorded { .. } => {}
            }
            if let Some(usage) = event.fact.usage() {
                spend(row, usage);
            }
            row.insert("version".into(), json!(event.version));
        });
        Ok(())
    }
}

fn end(row: &mut Map<String, Value>, how: &str, event: &Event) {
    row.insert("ended".into(), json!(how));
    row.insert("ended_at".into(), json!(iso(event.timestamp)));
}

/// What models were asked and what they cost, a row a model and day (UTC). Key: `DAY MODEL`.
///
/// `{day, model, calls, input_tokens, output_tokens, micro_usd, unpriced_calls}`. A call whose answer
/// was rejected counts: it is paid for. One that was lost with its process is in no row.
struct ModelUsage;

impl Projection for ModelUsage {
    fn name(&self) -> &str {
        "model_usage"
    }

    fn version(&self) -> &str {
        "1"
    }

    fn wants(&self, event_type: &str) -> bool {
        matches!(event_type, "AttemptFailed" | "StepCompleted" | "StepFailed")
    }

    fn see(&mut self, _: &str, event: &Event, rows: &mut dyn Rows) -> Result<(), String> {
        let Some(usage) = event.fact.usage() else { return Ok(()) };
        let day = &iso(event.timestamp)[..10];
        rows.change(&format!("{day} {}", usage.model), &mut |row| {
            let row = fields(row);
            row.insert("day".into(), json!(day));
            row.insert("model".into(), json!(usage.model));
            add(row, "calls", 1);
            add(row, "unpriced_calls", u64::from(usage.micro_usd.is_none()));
            spend(row, usage);
        });
        Ok(())
    }
}

/// What was decided, a row a decision. Key: `WORKFLOW@VERSION`, ten digits, so that keys sort.
///
/// `{workflow_id, version, at, key, chosen, options}`; the values behind it stand in the log.
struct Decisions;

impl Projection for Decisions {
    fn name(&self) -> &str {
        "decisions"
    }

    fn version(&self) -> &str {
        "1"
    }

    fn wants(&self, event_type: &str) -> bool {
        event_type == "DecisionMade"
    }

    fn see(&mut self, workflow_id: &str, event: &Event, rows: &mut dyn Rows) -> Result<(), String> {
        let Fact::DecisionMade(made) = &event.fact else { return Ok(()) };
        rows.change(&format!("{workflow_id}@{:010}", event.version), &mut |row| {
            *row = json!({
                "workflow_id": workflow_id,
                "version": event.version,
                "at": iso(event.timestamp),
                "key": made.key,
                "chosen": made.chosen,
                "options": made.options,
            });
        });
        Ok(())
    }
}

fn spend(row: &mut Map<String, Value>, usage: &Usage) {
    add(row, "input_tokens", usage.input_tokens);
    add(row, "output_tokens", usage.output_tokens);
    add(row, "micro_usd", usage.micro_usd.unwrap_or(0));
}

fn fields(row: &mut Value) -> &mut Map<String, Value> {
    if !row.is_object() {
        *row = Value::Object(Map::new());
    }
    row.as_object_mut().expect("it was made an object just now")
}

fn add(row: &mut Map<String, Value>, field: &str, more: u64) {
    match row.get_mut(field) {
        Some(sum) => *sum = json!(sum.as_u64().unwrap_or(0).saturating_add(more)),
        None => drop(row.insert(field.to_owned(), json!(more))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::event::{DecisionMade, EventId, StepCompleted, StepFailed, WorkflowStarted};
    use crate::step::{Failure, error_type};
    use crate::value::Slot;
    use crate::{Hash, Key};

    #[derive(Default)]
    struct Table(BTreeMap<String, Value>);

    impl Rows for Table {
        fn change(&mut self, key: &str, how: &mut dyn FnMut(&mut Value)) {
            how(self.0.entry(key.to_owned()).or_default());
        }
    }

    fn usage(model: &str, micro_usd: Option<u64>) -> Option<Usage> {
        Some(Usage { model: model.into(), input_tokens: 10, output_tokens: 3, micro_usd, ..Usage::default() })
    }

    fn log() -> Vec<Event> {
        let slot = || Slot::of(json!("x"));
        let facts = vec![
            Fact::WorkflowStarted(WorkflowStarted {
                definition: Hash::ZERO,
                name: "article 1".into(),
                file: None,
                input: slot(),
                lineage: None,
                dialect: 1,
            }),
            Fact::StepCompleted(Box::new(StepCompleted {
                key: Key::from("draft"),
                attempt: 1,
                output: slot(),
                latency_ms: 5,
                usage: usage("small", Some(7)),
            })),
            Fact::DecisionMade(Box::new(DecisionMade {
                key: Key::from("gate"),
                chosen: "again".into(),
                options: vec!["again".into(), "go".into()],
                because: slot(),
                finishes: true,
            })),
            Fact::StepFailed(Box::new(StepFailed {
                key: Key::from("draft#2"),
                attempt: 1,
                error: Failure::new(error_type::RUNTIME, 500, "no", "no"),
                rejected: None,
                usage: usage("small", None),
            })),
            Fact::WorkflowFailed { error: Failure::new(error_type::RUNTIME, 500, "no", "no") },
        ];
        let event = |(n, fact): (usize, Fact)| Event {
            clock: None,
            id: EventId([n as u8; 16]),
            version: n as u64 + 1,
            timestamp: 86_400_000_000 * n as i64,
            causation_id: None,
            correlation_id: None,
            actor: Arc::from("test"),
            fact,
        };
        facts.into_iter().enumerate().map(event).collect()
    }

    #[test]
    fn what_the_built_in_projections_make_of_a_log() {
        let rows = |projection: &mut dyn Projection| {
            let mut table = Table::default();
            log().iter().for_each(|event| projection.see("a", event, &mut table).unwrap());
            table.0.into_iter().map(|(key, row)| format!("{key}: {row}")).collect::<Vec<_>>().join("\n")
        };
        let told: Vec<(String, String)> =
            built_in().iter_mut().map(|one| (one.name().to_owned(), rows(&mut **one))).collect();
        let expected = [
            (
                "workflows",
                format!(
                    r#"a: {{"definition":"article 1","definition_hash":"{}","started_at":"1970-01-01T00:00:00.000000Z","ended":"failed","version":5,"steps":1,"input_tokens":20,"output_tokens":6,"micro_usd":7,"failed_steps":1,"ended_at":"1970-01-05T00:00:00.000000Z"}}"#,
                    Hash::ZERO
                ),
            ),
            (
                "model_usage",
                r#"1970-01-02 small: {"day":"1970-01-02","model":"small","calls":1,"unpriced_calls":0,"input_tokens":10,"output_tokens":3,"micro_usd":7}
1970-01-04 small: {"day":"1970-01-04","model":"small","calls":1,"unpriced_calls":1,"input_tokens":10,"output_tokens":3,"micro_usd":0}"#
                    .to_owned(),
            ),
            (
                "decisions",
                r#"a@0000000003: {"workflow_id":"a","version":3,"at":"1970-01-03T00:00:00.000000Z","key":"gate","chosen":"again","options":["again","go"]}"#
                    .to_owned(),
            ),
        ];
        assert_eq!(told, expected.map(|(name, rows)| (name.to_owned(), rows)));
    }
}
