//! What the documents of `document` ask of the world: to do something, to take it back, to look. Each write
//! is done once by its idempotency key, and what was done and taken back is kept in its order.

use foldback::core::step::error_type;
use foldback::core::{Hash, Outcome};
use foldback::engine::Call;
use serde_json::{Value, json};

use crate::ledger::Happened;
use crate::world::{Applied, World, failure};

/// What is asked for; nothing of this for a step of a recipe.
#[derive(Clone, Copy)]
pub enum Errand {
    Do,
    Undo,
    /// Whether a write happened.
    Find,
    Look,
}

pub fn errand_of(request: &Value) -> Option<Errand> {
    match request["uri"].as_str()?.strip_prefix("http://x.test/")? {
        "do" => Some(Errand::Do),
        "undo" => Some(Errand::Undo),
        "done" => Some(Errand::Find),
        _ => Some(Errand::Look),
    }
}

impl World {
    /// The request reaches the world: `answer` is what each answer holds.
    pub fn run_errand(&mut self, errand: Errand, call: &Call, mut answer: Value) -> Outcome {
        match errand {
            Errand::Do | Errand::Undo => self.write(errand, call, answer),
            Errand::Find => {
                let key = call.request["query"]["key"].as_str().unwrap_or_default();
                self.settle_key(key);
                match self.truth(key) {
                    Some(first) => answer["landed"] = first,
                    None if self.is_one_alive => answer["didnt"] = json!(true),
                    // Whoever lost the shard and does not know may still send it.
                    None => answer["cannot_tell"] = json!(true),
                }
                Outcome::Completed { output: answer, usage: None }
            }
            Errand::Look => {
                // What leads back to itself comes to an end.
                let may_fail = !call.key.as_str().contains("#3") && !call.key.is_aside();
                if may_fail && self.dice.one_in(6) {
                    return failure(error_type::COMMUNICATION, 404, "Not there");
                }
                answer["seen"] = json!(1);
                Outcome::Completed { output: answer, usage: None }
            }
        }
    }

    fn write(&mut self, errand: Errand, call: &Call, mut answer: Value) -> Outcome {
        let key = call.idempotency_key.clone().unwrap_or_default();
        answer["id"] = json!(key);
        if !self.applied.contains_key(&key) {
            if self.refuses(call, &key) {
                return failure(error_type::COMMUNICATION, 409, "Refused");
            }
            let place = (call.workflow_id.clone(), call.key.to_string());
            let applied = Applied { place, times: 1, answer: answer.clone() };
            self.applied.insert(key.clone(), applied);
            let happened = match errand {
                Errand::Undo => {
                    let id = call.request["body"]["id"].as_str().unwrap_or_default().to_owned();
                    Happened::Undone { key: call.key.clone(), id }
                }
                Errand::Do | Errand::Find | Errand::Look => Happened::Done { key: call.key.clone(), id: key },
            };
            self.order.entry(call.workflow_id.clone()).or_default().push(happened);
        }
        Outcome::Completed { output: answer, usage: None }
    }

    /// A write that is refused is so each time: what was sent before and comes late must not happen
    /// behind a failure that the log knows. What takes back is refused once, and then goes.
    fn refuses(&mut self, call: &Call, key: &str) -> bool {
        let chance = Hash::of_bytes(key.as_bytes()).0[0];
        if !call.key.is_aside() {
            return chance.is_multiple_of(6) && !call.key.as_str().contains("#3");
        }
        let place = (call.workflow_id.clone(), key.to_owned());
        let (given, _) = self.failed.entry(place).or_default();
        let refuses = chance.is_multiple_of(8) && *given == 0;
        *given += u64::from(refuses);
        refuses
    }
}
