//! A log as a comparison holds it: of each step and decision its key and a fingerprint of what is compared.
//! So two long logs are compared in the memory of their keys; what differs is read once more, whole.
//!
//! Invariant: two items with one fingerprint do not differ. Two with different ones may still mean the same
//! (a whole number and a float); the comparison of what was read once more decides.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;

use super::{Facet, Facets, Item, Past, Totals, is_done};
use crate::event::Event;
use crate::report::{Ahead, Lasting, Rows, StateView, StepReport, Tokens, decisions, state_view};
use crate::state::WorkflowState;
use crate::{Hash, Key, Version};

/// A step or a decision in outline.
struct Light {
    key: Key,
    version: Version,
    print: Hash,
}

/// An outline that is drawn while a log is read event by event, its values at hand.
pub struct Outlining {
    workflow_id: Arc<str>,
    ahead: Ahead,
    /// Of every event: what was spent along the way.
    spent: Rows,
    /// Of the events that still count: what the workflow came to.
    kept: Option<Rows>,
    outline: Outline,
    lasting: Lasting,
}

/// An outline that is drawn.
#[derive(Default)]
pub struct Outline {
    pub(super) view: Option<StateView>,
    items: Vec<Light>,
    pub(super) totals: Totals,
    /// What steps used that this log recorded, by the version of their end.
    used: HashMap<Version, (Tokens, u64)>,
    /// Outcomes that were taken from a log: whose, and from which version.
    reused: Vec<(Arc<str>, Version)>,
    workflow_id: Arc<str>,
}

impl Outlining {
    /// An outline of a workflow of which it is known what is said late.
    pub fn new(workflow_id: &str, ahead: &Ahead) -> Outlining {
        let workflow_id: Arc<str> = Arc::from(workflow_id);
        Outlining {
            outline: Outline { workflow_id: workflow_id.clone(), ..Outline::default() },
            workflow_id,
            spent: Rows::knowing(ahead),
            kept: ahead.goes_back().then(|| Rows::knowing(ahead)),
            ahead: ahead.clone(),
            lasting: Lasting::default(),
        }
    }

    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        self.lasting.read(event);
        self.spent.read(event);
        for report in self.spent.ready() {
            self.outline.spend(&report);
            if self.kept.is_none() {
                self.outline.step(report);
            }
        }
        if !self.ahead.is_kept(event.version) {
            return;
        }
        if let Some(kept) = &mut self.kept {
            kept.read(event);
            for report in kept.ready() {
                self.outline.step(report);
            }
        }
        for made in decisions([event]) {
            self.outline.item(Item::Decision(made));
        }
    }

    /// The outline, with the state that the log led to.
    pub fn finish(mut self, state: &WorkflowState) -> Outline {
        for report in self.spent.finish() {
            self.outline.spend(&report);
            if self.kept.is_none() {
                self.outline.step(report);
            }
        }
        for report in self.kept.into_iter().flat_map(Rows::finish) {
            self.outline.step(report);
        }
        let mut outline = self.outline;
        outline.workflow_id = self.workflow_id;
        outline.totals.duration_ms = self.lasting.ms();
        outline.view = Some(state_view(state));
        outline.settle();
        outline
    }

    pub(super) fn of(past: Past<'_>) -> (Outline, Ahead) {
        let mut ahead = Ahead::default();
        past.events.iter().for_each(|event| ahead.read(event));
        let mut outlining = Outlining::new(past.workflow_id, &ahead);
        past.events.iter().for_each(|event| outlining.read(event));
        (outlining.finish(&WorkflowState::folded(past.workflow_id, past.events)), ahead)
    }
}

impl Outline {
    fn spend(&mut self, report: &StepReport) {
        let micro_usd = report.micro_usd.unwrap_or(0);
        self.totals.steps += u64::from(is_done(report));
        self.totals.tokens.add(report.tokens);
        self.totals.micro_usd = self.totals.micro_usd.saturating_add(micro_usd);
        if let (Some(version), true) = (report.ended_version, report.tokens != Tokens::default()) {
            self.used.insert(version, (report.tokens, micro_usd));
        }
        if let Some(from) = &report.reused {
            self.reused.push((from.workflow.clone(), from.version));
        }
    }

    fn step(&mut self, report: StepReport) {
        self.item(Item::Step(Box::new(report)));
    }

    fn item(&mut self, item: Item) {
        let (key, version) = (item.key().clone(), item.version());
        self.items.push(Light { key, version, print: print(&item.facets()) });
    }

    /// In the order of the log. A step that was asked anew stands where it was asked last.
    fn settle(&mut self) {
        self.items.sort_by_key(|item| item.version);
        let last: HashMap<Key, Version> =
            self.items.iter().map(|item| (item.key.clone(), item.version)).collect();
        self.items.retain(|item| last.get(&item.key) == Some(&item.version));
    }

    /// What recorded outcomes that were taken had used, as far as either log says it.
    pub(super) fn reused(&self, other: &Outline) -> (Tokens, u64) {
        let (mut tokens, mut micro_usd) = (Tokens::default(), 0u64);
        for (workflow, version) in &self.reused {
            let known = [self, other].into_iter().find(|outline| outline.workflow_id == *workflow);
            // A fork's log begins with its parent's: the version is the same there.
            if let Some((used, cost)) = known.and_then(|outline| outline.used.get(version)) {
                tokens.add(*used);
                micro_usd = micro_usd.saturating_add(*cost);
            }
        }
        (tokens, micro_usd)
    }

    /// The keys in order, each with its fingerprint.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&Key, &Hash)> {
        self.items.iter().map(|item| (&item.key, &item.print))
    }

    /// The keys of which both have something, and not surely the same.
    pub fn wanted(&self, other: &Outline) -> HashSet<Key> {
        let prints: HashMap<&Key, &Hash> = other.keys().collect();
        let differs = |(key, print): &(&Key, &Hash)| prints.get(*key).is_some_and(|known| known != print);
        self.keys().filter(differs).map(|(key, _)| key.clone()).collect()
    }
}

/// The items of some keys, whole, gathered while a log is read once more.
pub struct Detailing<'a> {
    wanted: &'a HashSet<Key>,
    ahead: Ahead,
    rows: Rows,
    items: HashMap<Key, Item>,
}

impl<'a> Detailing<'a> {
    /// Of these keys.
    pub fn new(wanted: &'a HashSet<Key>, ahead: &Ahead) -> Detailing<'a> {
        Detailing { wanted, ahead: ahead.clone(), rows: Rows::knowing(ahead), items: HashMap::new() }
    }

    /// Reads the next event.
    pub fn read(&mut self, event: &Event) {
        if !self.ahead.is_kept(event.version) {
            return;
        }
        self.rows.read(event);
        for report in self.rows.ready() {
            self.note(Item::Step(Box::new(report)));
        }
        for made in decisions([event]) {
            self.note(Item::Decision(made));
        }
    }

    fn note(&mut self, item: Item) {
        let is_newer = self.items.get(item.key()).is_none_or(|known| known.version() < item.version());
        if is_newer && self.wanted.contains(item.key()) {
            self.items.insert(item.key().clone(), item);
        }
    }

    /// What was gathered.
    pub fn finish(mut self) -> Details {
        for report in std::mem::take(&mut self.rows).finish() {
            self.note(Item::Step(Box::new(report)));
        }
        Details(self.items)
    }

    pub(super) fn of(past: Past<'_>, wanted: &HashSet<Key>, ahead: &Ahead) -> Details {
        let mut detailing = Detailing::new(wanted, ahead);
        past.events.iter().for_each(|event| detailing.read(event));
        detailing.finish()
    }
}

/// Steps and decisions that may differ, whole.
pub struct Details(pub(super) HashMap<Key, Item>);

/// The fingerprint of what is compared.
fn print(facets: &Facets) -> Hash {
    let mut bytes = Vec::new();
    for (facet, value) in facets {
        // A model that one log does not name makes no difference.
        if let Some(value) = value
            && *facet != Facet::Model
        {
            bytes.extend_from_slice(facet.as_str().as_bytes());
            add(&mut bytes, value);
        }
    }
    let model = facets.iter().find(|(facet, _)| *facet == Facet::Model).and_then(|(_, value)| value.clone());
    model.iter().for_each(|value| add(&mut bytes, value));
    Hash::of_bytes(&bytes)
}

/// A value by its meaning: members have no order, and a small whole number is also a float.
fn add(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => bytes.push(b'0'),
        Value::Bool(is_true) => bytes.extend_from_slice(&[b'b', u8::from(*is_true)]),
        Value::Number(number) => {
            const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
            match number.as_f64().filter(|float| number.is_f64() || float.abs() < EXACT_MAX) {
                Some(float) => {
                    bytes.push(b'f');
                    bytes.extend_from_slice(&(float + 0.0).to_bits().to_le_bytes());
                }
                None => bytes.extend_from_slice(format!("n{number};").as_bytes()),
            }
        }
        Value::String(text) => {
            bytes.push(b's');
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            bytes.push(b'[');
            bytes.extend_from_slice(&(items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| add(bytes, item));
        }
        Value::Object(members) => {
            bytes.push(b'{');
            bytes.extend_from_slice(&(members.len() as u64).to_le_bytes());
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            for name in names {
                bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
                bytes.extend_from_slice(name.as_bytes());
                add(bytes, &members[name]);
            }
        }
    }
}
