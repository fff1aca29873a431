//! The world outside: what attempts do to it, what it answers, and a ledger of every write by its
//! idempotency key. It answers late, twice, after it was given up, or never; what is on its way when
//! a process dies may still land.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;

use foldback::core::step::error_type;
use foldback::core::{Effect, Failure, Hash, Outcome};
use foldback::engine::engine::Message;
use foldback::engine::{Attempt, Call};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::disk::Durable;
use crate::errands::errand_of;
use crate::ledger::Happened;

/// A step of a workflow.
pub type Place = (Arc<str>, String);

/// What took effect under one idempotency key.
pub struct Applied {
    pub place: Place,
    /// How often.
    pub times: u64,
    pub answer: Value,
}

/// An attempt on its way: sent, perhaps landed, not over.
pub struct Flight {
    /// The process that waits for it; `None` once that is dead.
    pub process: Option<u64>,
    pub attempt: Attempt,
    to: Sender<Message>,
    /// What becomes of it, once it has reached the world.
    outcome: Option<Outcome>,
    /// Whether a report was sent, so that a further one is late.
    is_over: bool,
}

impl Flight {
    fn place(&self) -> Place {
        (self.attempt.call.workflow_id.clone(), self.attempt.call.key.to_string())
    }
}

pub struct World {
    pub(crate) dice: Dice,
    /// Whether reads answer otherwise each time.
    is_volatile: bool,
    /// By idempotency key.
    pub applied: BTreeMap<String, Applied>,
    /// What documents that take back had done and taken back, by workflow, in its order.
    pub order: BTreeMap<Arc<str>, Vec<Happened>>,
    /// Known failures given to a step as planned, and ones that were added.
    pub(crate) failed: BTreeMap<Place, (u64, u64)>,
    /// Which workflow sent under each idempotency key.
    keys: BTreeMap<String, Arc<str>>,
    /// Attempts begun.
    pub begun: BTreeMap<Place, u64>,
    pub flights: Vec<Flight>,
    /// Whether there is but one process.
    pub is_one_alive: bool,
    /// What should not have been.
    pub wrong: Vec<String>,
}

impl World {
    pub fn new(dice: Dice, is_volatile: bool) -> World {
        World {
            dice,
            is_volatile,
            applied: BTreeMap::new(),
            order: BTreeMap::new(),
            failed: BTreeMap::new(),
            keys: BTreeMap::new(),
            begun: BTreeMap::new(),
            flights: Vec::new(),
            is_one_alive: true,
            wrong: Vec::new(),
        }
    }

    /// An attempt begins: may it?
    pub fn begin(
        &mut self,
        process: u64,
        is_owner: bool,
        attempt: Attempt,
        to: Sender<Message>,
        durable: &Durable,
        is_told: bool,
    ) {
        let call = &attempt.call;
        let place = (call.workflow_id.clone(), call.key.to_string());
        let what = format!("{} `{}` attempt {}", place.0, place.1, call.attempt);
        let start = (place.0.clone(), place.1.clone(), call.attempt);
        let steps = durable.steps.of(&place.0);
        // One that has lost its shard knows nothing of what the workflow went back to since.
        let is_started = match is_owner {
            true => steps.started.contains(&(place.1.clone(), call.attempt)),
            false => durable.started.contains(&start),
        };
        let is_ahead = is_owner && steps.has_failed && call.effect != Effect::Write;
        if (call.effect == Effect::Write || call.attempt > 1) && !is_started && !is_ahead {
            self.wrong.push(format!("{what} began before its start was durable"));
        }
        let is_free = match is_owner {
            true => !steps.is_ruled || steps.released.contains(&place.1),
            false => !durable.forks.contains(&place.0) || durable.released.contains(&place),
        };
        if call.effect == Effect::Write && !is_free {
            self.wrong.push(format!("{what}: a write, and nobody said that it may be performed here"));
        }
        if !is_told {
            self.wrong.push(format!("{what} ran ahead of the first commit after a fold"));
        }
        // One that has lost its shard without knowing may look again; it cannot write it down.
        if is_owner && steps.completed.contains(&place.1) {
            self.wrong.push(format!("{what} began though the step had completed"));
        }
        if is_owner && steps.taken.contains(&place.1) {
            self.wrong.push(format!("{what} began though its outcome had been taken from a past"));
        }
        if is_owner && steps.given_up.contains(&place.1) && !is_ahead {
            self.wrong.push(format!("{what} began though the step had been given up"));
        }
        if (call.effect == Effect::Write) != call.idempotency_key.is_some() {
            self.wrong.push(format!("{what}: an idempotency key belongs to a write, and each has one"));
        }
        if let Some(key) = &call.idempotency_key {
            let whose = self.keys.entry(key.clone()).or_insert_with(|| place.0.clone());
            if *whose != place.0 {
                self.wrong.push(format!("{what} is sent under an idempotency key of {whose}"));
            }
        }
        let is_there = |flight: &&Flight| {
            flight.process == Some(process)
                && !flight.is_over
                && flight.place() == place
                && flight.attempt.call.attempt == call.attempt
        };
        if call.effect == Effect::Write && self.flights.iter().any(|flight| is_there(&flight)) {
            self.wrong.push(format!("{what} began twice at once"));
        }
        *self.begun.entry(place).or_default() += 1;
        self.flights.push(Flight { process: Some(process), attempt, to, outcome: None, is_over: false });
    }

    /// Flights that a process waits for.
    pub fn awaited_by(&self, process: u64) -> Vec<usize> {
        let is_its = |i: &usize| self.flights[*i].process == Some(process) && !self.flights[*i].is_over;
        (0..self.flights.len()).filter(is_its).collect()
    }

    /// Something happens to a flight, whatever the engine would like.
    pub fn disturb(&mut self, i: usize) {
        if self.flights[i].process.is_none() {
            // Nobody waits for it. It lands late, or never.
            let flight = self.flights.swap_remove(i);
            if flight.outcome.is_none() && self.dice.one_in(2) {
                self.reach(&flight.attempt.call);
            }
            return;
        }
        match self.dice.below(10) {
            0 | 1 if self.flights[i].outcome.is_none() => {
                let outcome = self.reach_at(i);
                self.flights[i].outcome = Some(outcome);
            }
            2 => self.cut(i),
            _ => self.answer(i),
        }
    }

    /// The flight ends as it should: it reaches the world, and its report arrives.
    pub fn answer(&mut self, i: usize) {
        let outcome = match self.flights[i].outcome.clone() {
            Some(outcome) => outcome,
            None => self.reach_at(i),
        };
        self.report(i, outcome.clone());
        if !self.flights[i].is_over && self.dice.one_in(8) {
            // The same report will come once more.
            (self.flights[i].is_over, self.flights[i].outcome) = (true, Some(outcome));
        } else {
            self.flights.swap_remove(i);
        }
    }

    /// The engine is told that nothing is known. The flight itself may go on.
    fn cut(&mut self, i: usize) {
        let (call, place) = (&self.flights[i].attempt.call, self.flights[i].place());
        if self.flights[i].is_over {
            return;
        }
        let outcome = match call.effect {
            Effect::Write => Outcome::Unknown { reason: "simulated: connection lost".into() },
            Effect::Pure | Effect::Read => {
                let slack = body_of(&call.request)["slack"].as_u64().unwrap_or(0);
                let (_, added) = self.failed.entry(place).or_default();
                if *added >= slack {
                    return;
                }
                *added += 1;
                failure(error_type::TIMEOUT, 408, "Timeout")
            }
        };
        self.report(i, outcome);
        self.flights[i].is_over = true;
        if self.dice.one_in(3) {
            self.flights.swap_remove(i);
        }
    }

    fn report(&mut self, i: usize, outcome: Outcome) {
        let call = &self.flights[i].attempt.call;
        let latency_ms = 1 + self.dice.below(50) as u64;
        let _gone = self.flights[i].to.send(Message::Report {
            workflow_id: call.workflow_id.clone(),
            key: call.key.clone(),
            attempt: call.attempt,
            outcome,
            latency_ms,
            flight: self.flights[i].attempt.flight,
        });
    }

    fn reach_at(&mut self, i: usize) -> Outcome {
        let call = self.flights[i].attempt.call.clone();
        self.reach(&call)
    }

    /// A request reaches the world: it takes effect, and gets its answer.
    fn reach(&mut self, call: &Call) -> Outcome {
        let place = (call.workflow_id.clone(), call.key.to_string());
        let mut answer = json!({ "attempt": call.attempt, "of": Hash::of_json(&call.request).to_hex() });
        if let Some(errand) = errand_of(&call.request) {
            return self.run_errand(errand, call, answer);
        }
        let body = body_of(&call.request);
        let number = |name: &str| body[name].as_u64().unwrap_or(0);
        let is_keyed = body["keyed"] == json!(true);
        if let Some(first) = call.idempotency_key.as_ref().and_then(|key| self.applied.get(key))
            && is_keyed
        {
            answer["value"] = first.answer["value"].clone();
            return Outcome::Completed { output: answer, usage: None };
        }
        if body["hopeless"] == json!(true) {
            return failure(error_type::COMMUNICATION, 404, "Not there");
        }
        let nth = body["nth"].as_u64().unwrap_or_else(|| try_of(&place.1));
        let (given, _) = self.failed.entry(place.clone()).or_default();
        if nth <= number("tries") || *given < number("fails") {
            *given += 1;
            self.overtake(call);
            return failure(error_type::COMMUNICATION, 503, "Busy");
        }
        let value = match call.effect {
            Effect::Read if self.is_volatile => self.dice.roll() % 1_000,
            Effect::Pure | Effect::Read | Effect::Write => {
                u64::from(u16::from_le_bytes([Hash::of_json(body).0[0], Hash::of_json(body).0[1]])) % 1_000
            }
        };
        answer["value"] = json!(value);
        if let Some(key) = &call.idempotency_key {
            let applied = self.applied.entry(key.clone()).or_insert_with(|| Applied {
                place,
                times: 0,
                answer: answer.clone(),
            });
            applied.times += 1;
        }
        Outcome::Completed { output: answer, usage: None }
    }

    /// A process is dead: nobody waits for its flights.
    pub fn orphan(&mut self, process: u64) {
        self.flights.retain(|flight| flight.process != Some(process) || flight.outcome.is_none());
        for flight in self.flights.iter_mut().filter(|flight| flight.process == Some(process)) {
            flight.process = None;
        }
    }

    /// A person makes sure what became of a step: what is still on its way lands now or never.
    pub fn settle(&mut self, place: &Place) {
        while let Some(i) = self.flights.iter().position(|flight| flight.place() == *place) {
            let flight = self.flights.swap_remove(i);
            if flight.outcome.is_none() && self.dice.one_in(2) {
                self.reach(&flight.attempt.call);
            }
        }
    }

    /// A server that has refused an attempt does not do what comes later of one before it (decision 90).
    fn overtake(&mut self, call: &Call) {
        for flight in &mut self.flights {
            let earlier = &flight.attempt.call;
            let is_same =
                earlier.idempotency_key.is_some() && earlier.idempotency_key == call.idempotency_key;
            if is_same && earlier.attempt < call.attempt && flight.outcome.is_none() {
                flight.outcome = Some(Outcome::Unknown { reason: "simulated: overtaken".into() });
            }
        }
    }

    /// Somebody asks whether a write happened: what is on its way under its key lands now or never.
    pub(crate) fn settle_key(&mut self, idempotency_key: &str) {
        for i in 0..self.flights.len() {
            let Flight { attempt, outcome, .. } = &self.flights[i];
            if outcome.is_some() || attempt.call.idempotency_key.as_deref() != Some(idempotency_key) {
                continue;
            }
            let lost = Outcome::Unknown { reason: "simulated: lost on the way".into() };
            let outcome = if self.dice.one_in(2) { self.reach_at(i) } else { lost };
            self.flights[i].outcome = Some(outcome);
        }
    }

    /// What a person finds: the answer of a write that landed.
    pub fn truth(&self, idempotency_key: &str) -> Option<Value> {
        self.applied.get(idempotency_key).map(|applied| applied.answer.clone())
    }

    /// Writes that took effect more than once. Of those of a workflow that went back, `judge` counts what
    /// its log says.
    pub fn doubled(&self, went_back: &BTreeSet<Arc<str>>) -> Vec<String> {
        let doubled = self.applied.values().filter(|a| a.times != 1 && !went_back.contains(&a.place.0));
        doubled.map(|a| format!("{} `{}` took effect {} times", a.place.0, a.place.1, a.times)).collect()
    }

    /// Steps for which more than one idempotency key took effect: in a workflow that went back, a step
    /// may be asked otherwise than before.
    pub fn with_many_keys(&self, went_back: &BTreeSet<Arc<str>>) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let again = self.applied.values().filter(|applied| !seen.insert(applied.place.clone()));
        let again = again.filter(|applied| !went_back.contains(&applied.place.0));
        again.map(|a| format!("{} `{}` took effect under two keys", a.place.0, a.place.1)).collect()
    }
}

/// What the plan of a step says: a document's call carries it as its body.
pub fn body_of(request: &Value) -> &Value {
    request.get("body").unwrap_or(request)
}

/// Which try of the block around it a step belongs to, from 1.
fn try_of(key: &str) -> u64 {
    let marks = key.split('!').skip(1).filter_map(|mark| {
        let digits: String = mark.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    marks.last().unwrap_or(1)
}

pub(crate) fn failure(error_type: &str, status: u16, title: &str) -> Outcome {
    let error = Failure::new(error_type, status, title, "simulated");
    Outcome::Failed { error, retry_after_ms: None, usage: None }
}
