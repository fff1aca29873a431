//! Two workflows side by side: where they first part, and what differs at each key.
//!
//! A step or a decision is found again by its key, never by its place: branches that ran in another
//! order are no difference. Ids, moments, numbers of attempts and the place of a task in its
//! definition are not compared, for they say nothing of what was done; a workflow that was reopened
//! is compared by what it came to, and an outcome that was taken from another workflow counts as
//! completed. Domain events are not compared either: they carry ids and moments of their own.
//!
//! **Time, tokens and cost never make two workflows differ**: no two runs repeat them. They stand
//! beside the answer as [`Comparison::totals`] and [`Comparison::figures`].
//!
//! Invariants: a log is the same as itself; `diff(b, a)` is the mirror of `diff(a, b)`, the first
//! divergence included. Never folds on its own: it compares what the other reports say.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::{DecisionReport, ReportedStatus, StateView, StepReport, Tokens};
use crate::event::Event;
use crate::step::{Effect, Failure};
use crate::{Hash, Key, Status, Version};

mod outline;
mod values;

pub use outline::{Detailing, Details, Outline, Outlining};
pub use values::{Compared, PathChange, Word};

/// A workflow up to a version.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// Its id.
    pub workflow_id: &'a str,
    /// Its events from version 1 on, with their values at hand: what is not at hand reads `null`.
    pub events: &'a [Event],
}

/// What two workflows have in common and what not.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The one.
    pub a: Side,
    /// The other.
    pub b: Side,
    /// Whether nothing differs but time, tokens and cost.
    #[serde(rename = "same")]
    pub is_same: bool,
    /// Where they part first.
    pub first: Option<First>,
    /// What differs: the workflow's input, the keys in the order of `a`, the workflow's end.
    pub differences: Vec<Difference>,
    /// Steps and decisions that only the one has, in its order.
    pub only_in_a: Vec<Key>,
    /// Steps and decisions that only the other has, in its order.
    pub only_in_b: Vec<Key>,
    /// Steps and decisions that both have and that do not differ.
    pub equal: usize,
    /// What the steps that differ took.
    pub figures: Vec<StepFigures>,
    /// What both used, and for how long.
    pub totals: Both<Totals>,
}

/// One of the two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// Its id.
    pub workflow_id: Arc<str>,
    /// The version up to which it is compared.
    pub version: Version,
    /// Where it stood then.
    pub status: Status,
}

/// The same thing of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Both<T> {
    /// Of the one.
    pub a: T,
    /// Of the other.
    pub b: T,
}

/// Where two workflows part first: the input, else the place that comes first in either log, else
/// the end. Of two places that come equally soon it is the one whose key sorts first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct First {
    /// The step or decision; the empty key is the workflow itself.
    pub key: Key,
    /// What of it.
    pub what: Facet,
}

/// What of a step, a decision or a workflow differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Facet {
    /// Which step kind performs it; `decision` for a decision.
    Kind,
    /// What it does to the world.
    Effect,
    /// The request, as recorded.
    Request,
    /// The input of a workflow or of a value that the program computed.
    Input,
    /// Where it stands.
    Status,
    /// Why it failed.
    Error,
    /// Why it was given up.
    Cancelled,
    /// What it answered, or the workflow gave.
    Output,
    /// What the task made of the output.
    Shaped,
    /// Which model answered, where both logs say it.
    Model,
    /// What was chosen.
    Chosen,
    /// Out of what.
    Options,
    /// The values that decided it.
    Because,
    /// The other has none of it.
    OnlyInA,
    /// The one has none of it.
    OnlyInB,
}

impl Facet {
    /// The word that scripts rely on.
    pub fn as_str(self) -> &'static str {
        match self {
            Facet::Kind => "kind",
            Facet::Effect => "effect",
            Facet::Request => "request",
            Facet::Input => "input",
            Facet::Status => "status",
            Facet::Error => "error",
            Facet::Cancelled => "cancelled",
            Facet::Output => "output",
            Facet::Shaped => "shaped",
            Facet::Model => "model",
            Facet::Chosen => "chosen",
            Facet::Options => "options",
            Facet::Because => "because",
            Facet::OnlyInA => "only_in_a",
            Facet::OnlyInB => "only_in_b",
        }
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The step or decision; the empty key is the workflow itself.
    pub key: Key,
    /// What of it.
    pub what: Facet,
    /// What the one has; `None` where it has none.
    pub a: Option<Arc<Value>>,
    /// What the other has.
    pub b: Option<Arc<Value>>,
    /// How they differ, looked at closely.
    #[serde(flatten)]
    pub compared: Compared,
}

/// What a step took in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepFigures {
    /// The step.
    pub key: Key,
    /// In the one.
    pub a: Figures,
    /// In the other.
    pub b: Figures,
}

/// What a step took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Tokens of all attempts.
    pub tokens: Tokens,
    /// The cost of all attempts; `None` where no price is known.
    pub micro_usd: Option<u64>,
    /// From the begin of the first attempt to its end, in ms.
    pub duration_ms: Option<u64>,
}

/// What a workflow used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Steps completed.
    pub steps: u64,
    /// Tokens read and written by models.
    pub tokens: Tokens,
    /// The cost, as far as prices are known.
    pub micro_usd: u64,
    /// From its first event to the last one compared, in ms.
    pub duration_ms: u64,
    /// Tokens that recorded outcomes had used which were taken: neither spent again nor saved, as far as
    /// either log says it.
    pub reused_tokens: Tokens,
    /// What these had cost, as far as prices are known.
    pub reused_micro_usd: u64,
}

/// Compares two workflows, each up to the version with which its events end.
pub fn diff(a: Past<'_>, b: Past<'_>) -> Comparison {
    let ((one, one_ahead), (other, other_ahead)) = (Outlining::of(a), Outlining::of(b));
    let wanted = one.wanted(&other);
    let details = (Detailing::of(a, &wanted, &one_ahead), Detailing::of(b, &wanted, &other_ahead));
    compare((one, details.0), (other, details.1))
}

/// Compares two workflows by their outlines, and by what was read once more: [`Outline::wanted`].
pub fn compare((a, a_details): (Outline, Details), (b, b_details): (Outline, Details)) -> Comparison {
    let (one, other) = (Read::of(&a), Read::of(&b));
    let mut found = Found::default();
    let began = found.compare(&Key::root(), vec![one.input()], vec![other.input()]);
    let equal = found.items((&a, &a_details), (&b, &b_details));
    let ended = found.compare(&Key::root(), one.end(), other.end());
    let root = |what| First { key: Key::root(), what };
    let first = began
        .map(root)
        .or_else(|| found.earliest.take().map(|earliest| earliest.first))
        .or_else(|| ended.map(root));
    let totals = |outline: &Outline, beside: &Outline| {
        let (reused_tokens, reused_micro_usd) = outline.reused(beside);
        Totals { reused_tokens, reused_micro_usd, ..outline.totals }
    };
    Comparison {
        is_same: first.is_none(),
        first,
        differences: found.differences,
        only_in_a: found.only_in_a,
        only_in_b: found.only_in_b,
        equal,
        figures: found.figures,
        totals: Both { a: totals(&a, &b), b: totals(&b, &a) },
        a: one.side,
        b: other.side,
    }
}

/// What is compared of one thing: each facet that it has, in the order in which it is told.
type Facets = Vec<(Facet, Option<Arc<Value>>)>;

/// One log, as far as the workflow itself is compared.
struct Read {
    side: Side,
    input: Arc<Value>,
    output: Option<Arc<Value>>,
    error: Option<Failure>,
}

impl Read {
    fn of(outline: &Outline) -> Read {
        let view: StateView = outline.view.clone().expect("an outline that is finished has its state");
        Read {
            side: Side { workflow_id: view.workflow_id, version: view.version, status: view.status },
            input: view.input,
            output: (view.status == Status::Completed).then_some(view.output),
            error: view.error,
        }
    }

    fn input(&self) -> (Facet, Option<Arc<Value>>) {
        (Facet::Input, Some(self.input.clone()))
    }

    fn end(&self) -> Facets {
        vec![
            (Facet::Status, Some(name(self.side.status.as_str()))),
            (Facet::Error, self.error.as_ref().map(cause)),
            (Facet::Output, self.output.clone()),
        ]
    }
}

/// How a step came out, wherever that was recorded.
fn came_out(step: &StepReport) -> ReportedStatus {
    match (step.status, &step.error) {
        (ReportedStatus::Reused, None) => ReportedStatus::Completed,
        (ReportedStatus::Reused, Some(_)) => ReportedStatus::Failed,
        (status, _) => status,
    }
}

/// Whether work outside the fold was done, or its outcome taken.
fn is_done(step: &StepReport) -> bool {
    came_out(step) == ReportedStatus::Completed && !matches!(&*step.kind, "set" | "compute" | "listen")
}

/// What is aligned by its key.
enum Item {
    Step(Box<StepReport>),
    Decision(DecisionReport),
}

impl Item {
    fn key(&self) -> &Key {
        match self {
            Item::Step(step) => &step.key,
            Item::Decision(made) => &made.key,
        }
    }

    /// Its place in its log.
    fn version(&self) -> Version {
        match self {
            Item::Step(step) => step.asked_version,
            Item::Decision(made) => made.version,
        }
    }

    fn facets(&self) -> Facets {
        match self {
            Item::Step(step) => facets_of_step(step),
            Item::Decision(made) => vec![
                (Facet::Kind, Some(name("decision"))),
                (Facet::Chosen, Some(name(&made.chosen))),
                (Facet::Options, Some(Arc::new(Value::from(made.options.clone())))),
                (Facet::Because, Some(made.because.clone())),
            ],
        }
    }

    fn figures(&self) -> Option<Figures> {
        match self {
            Item::Step(step) if !is_computed(step) => Some(Figures {
                tokens: step.tokens,
                micro_usd: step.micro_usd,
                duration_ms: step.duration_ms,
            }),
            Item::Step(_) | Item::Decision(_) => None,
        }
    }
}

/// Whether no performer was asked: the program computed it, or waited for a signal.
fn is_computed(step: &StepReport) -> bool {
    matches!(&*step.kind, "set" | "compute" | "listen")
}

fn facets_of_step(step: &StepReport) -> Facets {
    let effect = match step.effect {
        Effect::Pure => "pure",
        Effect::Read => "read",
        Effect::Write => "write",
    };
    let status = came_out(step);
    vec![
        (Facet::Kind, Some(name(&step.kind))),
        (Facet::Effect, Some(name(effect))),
        (if is_computed(step) { Facet::Input } else { Facet::Request }, Some(step.input.clone())),
        (Facet::Status, Some(name(status.as_str()))),
        (Facet::Error, step.error.as_ref().map(cause)),
        (Facet::Cancelled, step.cancelled.as_deref().map(name)),
        (Facet::Output, (status == ReportedStatus::Completed).then(|| step.output.clone())),
        (Facet::Shaped, step.shaped.clone()),
        (Facet::Model, step.model.as_deref().map(name)),
    ]
}

fn name(text: &str) -> Arc<Value> {
    Arc::new(Value::from(text))
}

/// A failure without its places: its key is the one compared, and where the task stands in its
/// definition says nothing of what went wrong.
fn cause(error: &Failure) -> Arc<Value> {
    let bare = Failure { instance: None, key: None, ..error.plain() };
    Arc::new(serde_json::to_value(bare).unwrap_or_default())
}

/// A divergence with how soon it comes: its place in the log that has it first, then in the other.
struct Earliest {
    at: (usize, usize),
    first: First,
}

#[derive(Default)]
struct Found {
    differences: Vec<Difference>,
    only_in_a: Vec<Key>,
    only_in_b: Vec<Key>,
    figures: Vec<StepFigures>,
    earliest: Option<Earliest>,
    texts: values::Texts,
}

impl Found {
    /// Compares what both did, and counts what does not differ.
    fn items(&mut self, (a, a_details): (&Outline, &Details), (b, b_details): (&Outline, &Details)) -> usize {
        let mut partners: HashMap<&Key, (usize, &Hash)> =
            b.keys().enumerate().map(|(at, (key, print))| (key, (at, print))).collect();
        let mut equal = 0;
        for (at, (key, print)) in a.keys().enumerate() {
            match partners.remove(key) {
                Some((_, partner)) if partner == print => equal += 1,
                Some((other, _)) => {
                    if let (Some(one), Some(two)) = (a_details.0.get(key), b_details.0.get(key)) {
                        equal += usize::from(!self.pair(one, at, two, other));
                    }
                }
                None => {
                    self.only_in_a.push(key.clone());
                    self.diverge((at, at), key, Facet::OnlyInA);
                }
            }
        }
        let mut alone: Vec<(usize, &Key)> = partners.into_iter().map(|(key, (at, _))| (at, key)).collect();
        alone.sort_unstable();
        for (at, key) in alone {
            self.only_in_b.push(key.clone());
            self.diverge((at, at), key, Facet::OnlyInB);
        }
        equal
    }

    /// Compares a step or a decision with its partner; whether they differ.
    fn pair(&mut self, a: &Item, a_at: usize, b: &Item, b_at: usize) -> bool {
        let Some(what) = self.compare(a.key(), a.facets(), b.facets()) else {
            return false;
        };
        self.diverge((a_at.min(b_at), a_at.max(b_at)), a.key(), what);
        if let (Some(one), Some(other)) = (a.figures(), b.figures()) {
            self.figures.push(StepFigures { key: a.key().clone(), a: one, b: other });
        }
        true
    }

    /// Notes each facet that differs; the first of them.
    fn compare(&mut self, key: &Key, a: Facets, mut b: Facets) -> Option<Facet> {
        let before = self.differences.len();
        for (what, one) in a {
            let other = b.iter().position(|(found, _)| *found == what).and_then(|at| b.remove(at).1);
            self.facet(key, what, one, other);
        }
        for (what, other) in b {
            self.facet(key, what, None, other);
        }
        self.differences.get(before).map(|difference| difference.what)
    }

    fn facet(&mut self, key: &Key, what: Facet, a: Option<Arc<Value>>, b: Option<Arc<Value>>) {
        let compared = match (&a, &b) {
            (None, None) => return,
            (Some(one), Some(other)) if values::is_equal(one, other) => return,
            // A reused outcome may not say which model gave it.
            (None, Some(_)) | (Some(_), None) if what == Facet::Model => return,
            (None, Some(_)) | (Some(_), None) => Compared::Whole {},
            (Some(one), Some(other)) => match what {
                Facet::Kind | Facet::Effect | Facet::Status | Facet::Model | Facet::Chosen => {
                    Compared::Whole {}
                }
                Facet::Request
                | Facet::Input
                | Facet::Error
                | Facet::Cancelled
                | Facet::Output
                | Facet::Shaped
                | Facet::Options
                | Facet::Because
                | Facet::OnlyInA
                | Facet::OnlyInB => values::compare(one, other, &mut self.texts),
            },
        };
        self.differences.push(Difference { key: key.clone(), what, a, b, compared });
    }

    fn diverge(&mut self, at: (usize, usize), key: &Key, what: Facet) {
        let is_earlier = self.earliest.as_ref().is_none_or(|known| (at, key) < (known.at, &known.first.key));
        if is_earlier {
            self.earliest = Some(Earliest { at, first: First { key: key.clone(), what } });
        }
    }
}

#[cfg(test)]
mod tests;
