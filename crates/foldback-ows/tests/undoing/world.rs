//! The world: it does each write once by its idempotency key, and remembers what was done and taken
//! back in which order. It knows nothing of workflows.

use std::collections::BTreeMap;

use foldback_core::step::{error_type, idempotency_key};
use foldback_core::{Effect, Failure, Key, Outcome, Step};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::ledger::Happened;

/// How likely it is that something goes wrong, one in so many; 0 for never.
#[derive(Clone, Copy)]
pub struct Luck {
    pub fails: u64,
    pub breaks: u64,
    pub undo_fails: u64,
}

/// What an attempt comes to.
pub enum Fate {
    /// It has an answer, and takes effect when it gives it.
    Answers(Outcome),
    /// It takes effect now; its answer comes later, or never.
    HasLanded(Outcome),
    /// It will take effect with its report.
    Lands { reports: bool },
}

#[derive(Default)]
pub struct World {
    pub order: Vec<Happened>,
    applied: BTreeMap<String, Value>,
    /// How often a write has failed for good, so that it does not fail for ever.
    failures: BTreeMap<String, u64>,
}

impl World {
    /// An attempt begins.
    pub fn begin(&mut self, workflow: &str, key: &Key, step: &Step, luck: Luck, dice: &mut Dice) -> Fate {
        let request = step.request.to_json();
        if step.effect != Effect::Write {
            return Fate::Answers(self.look(key, &request, luck, dice));
        }
        let idem = idempotency_key(workflow, key, &step.request_hash, step.generation);
        if let Some(output) = self.applied.get(&idem) {
            return Fate::Answers(done(output.clone()));
        }
        if self.does_fail(key, &idem, luck, dice) {
            return Fate::Answers(failed(409));
        }
        if luck.breaks > 0 && dice.one_in(luck.breaks) {
            return match dice.below(3) {
                0 => Fate::Answers(broken()),
                1 => {
                    self.land(workflow, key, step);
                    Fate::HasLanded(broken())
                }
                _ => Fate::Lands { reports: false },
            };
        }
        if dice.one_in(2) {
            return Fate::HasLanded(done(self.land(workflow, key, step)));
        }
        Fate::Lands { reports: true }
    }

    /// An attempt ends.
    pub fn end(&mut self, workflow: &str, key: &Key, step: &Step, fate: Fate) -> Outcome {
        match fate {
            Fate::Answers(outcome) | Fate::HasLanded(outcome) => outcome,
            Fate::Lands { reports } => {
                let output = self.land(workflow, key, step);
                if reports { done(output) } else { broken() }
            }
        }
    }

    /// What a write gave, if it took effect: what a person finds who looks.
    pub fn landed(&self, workflow: &str, key: &Key, step: &Step) -> Option<Value> {
        self.applied.get(&idempotency_key(workflow, key, &step.request_hash, step.generation)).cloned()
    }

    fn land(&mut self, workflow: &str, key: &Key, step: &Step) -> Value {
        let idem = idempotency_key(workflow, key, &step.request_hash, step.generation);
        if let Some(output) = self.applied.get(&idem) {
            return output.clone();
        }
        let (key, output) = (key.clone(), json!({ "id": idem }));
        let happened = match key.undone() {
            Some(_) => {
                let body = step.request.to_json()["body"].clone();
                Happened::Undone { key, id: body["id"].as_str().unwrap_or_default().to_owned() }
            }
            None => Happened::Done { key, id: idem.clone() },
        };
        self.order.push(happened);
        self.applied.insert(idem, output.clone());
        output
    }

    fn does_fail(&mut self, key: &Key, idem: &str, luck: Luck, dice: &mut Dice) -> bool {
        let (one_in, most) = if key.is_aside() { (luck.undo_fails, 1) } else { (luck.fails, 3) };
        // What leads back to itself comes to an end.
        let is_spent = key.as_str().contains("#3") || self.failures.get(idem).is_some_and(|n| *n >= most);
        let fails = one_in > 0 && !is_spent && dice.one_in(one_in);
        *self.failures.entry(idem.to_owned()).or_default() += u64::from(fails);
        fails
    }

    fn look(&self, key: &Key, request: &Value, luck: Luck, dice: &mut Dice) -> Outcome {
        if let Some(idem) = request["query"]["key"].as_str() {
            return done(match self.applied.get(idem) {
                Some(output) => json!({ "landed": output }),
                None => json!({ "didnt": true }),
            });
        }
        let may_fail = luck.fails > 0 && !key.as_str().contains("#3") && !key.is_aside();
        if may_fail && dice.one_in(luck.fails) { failed(404) } else { done(json!({"seen": 1})) }
    }
}

fn done(output: Value) -> Outcome {
    Outcome::Completed { output, usage: None }
}

fn failed(status: u16) -> Outcome {
    let error = Failure::new(error_type::COMMUNICATION, status, "It failed", "by chance");
    Outcome::Failed { error, retry_after_ms: None, usage: None }
}

fn broken() -> Outcome {
    Outcome::Unknown { reason: "the connection broke".into() }
}
