//! What a seed stands for: workflows, the programs they follow, and how rough the world is.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldback::core::Program;
use foldback::engine::Start;
use foldback::programs::{Definitions, start_code, start_document};
use serde_json::json;

use crate::dice::Dice;
use crate::document::{Facts, Shape, document};
use crate::fronts;
use crate::orders::orders;
use crate::recipe::Author;

pub struct Story {
    pub starts: Vec<Start>,
    pub programs: Arc<Definitions>,
    /// Domain events that callers record, by workflow.
    pub notes: Vec<u64>,
    /// Whether reads answer otherwise each time, so that outputs cannot be foretold.
    pub is_volatile: bool,
    /// One move in so many is a fault; 0 for none.
    pub fault_every: u64,
    /// Moves until the faults are off.
    pub moves: u64,
    /// Whether somebody watches what is committed.
    pub is_observed: bool,
    /// How many forks are made at most, and how often a workflow that failed goes back.
    pub forks: u64,
    pub backs: u64,
    /// What is known of the workflows that take back what they did: `model` judges them.
    pub undoing: BTreeMap<Arc<str>, Arc<Known>>,
    /// How often somebody ends one of those, pauses it, says something to it, or takes it back.
    pub words: u64,
}

/// What is known of a workflow that takes back what it did.
pub struct Known {
    pub facts: Facts,
    /// What it follows, for people.
    pub source: String,
}

/// What the documents of those that take back may hold.
const WHOLE: Shape = Shape { branches: true, recoveries: true, limits: true, listens: true, budgets: true };

impl Story {
    pub fn of(seed: u64) -> Story {
        let mut own = Dice::new(seed ^ 0xBAC6_7AC0);
        match own.one_in(3) {
            true => Story::of_taking_back(own),
            false => Story::of_recipes(seed),
        }
    }

    /// What is known of a workflow that takes back; a fork is as the one it was forked from.
    pub fn facts(&self, id: &str) -> Option<&Facts> {
        self.undoing.get(id.split('~').next().unwrap_or(id)).map(|known| &known.facts)
    }

    fn of_taking_back(mut dice: Dice) -> Story {
        let (mut starts, mut undoing) = (Vec::new(), BTreeMap::new());
        let mut programs = Definitions::default();
        for n in 0..dice.within(1, 2) {
            let (name, is_document) = (format!("orders{n}"), dice.one_in(2));
            let (known, loaded) = if is_document {
                let made = document(&mut dice, WHOLE);
                (Known { facts: made.facts, source: made.loaded.source.clone() }, Some(made.loaded))
            } else {
                let (code, facts, source) = orders(&mut dice);
                programs = programs.with_code(&name, "1", Shared(Arc::new(code)));
                (Known { facts, source }, None)
            };
            let known = Arc::new(known);
            for i in 0..dice.within(1, 2) {
                let id = format!("u{n}{i}");
                let start = match &loaded {
                    Some(loaded) => start_document(loaded, &id, json!({})),
                    None => start_code(&name, "1", &id, json!({})),
                };
                undoing.insert(start.workflow_id.clone(), known.clone());
                starts.push(start);
            }
        }
        Story {
            notes: starts.iter().map(|_| 0).collect(),
            starts,
            programs: Arc::new(programs),
            is_volatile: true,
            fault_every: [0, 60, 25, 12][dice.below(4)],
            moves: dice.within(40, 500),
            is_observed: dice.one_in(2),
            forks: if dice.one_in(3) { dice.within(1, 2) } else { 0 },
            backs: if dice.one_in(3) { dice.within(1, 2) } else { 0 },
            undoing,
            words: dice.within(0, 6),
        }
    }

    fn of_recipes(seed: u64) -> Story {
        let mut dice = Dice::new(seed);
        let mut programs = Definitions::default();
        let (mut starts, mut notes) = (Vec::new(), Vec::new());
        for n in 0..dice.within(1, 3) {
            let recipe = Arc::new(Author::draw(&mut dice));
            let name = format!("recipe{n}");
            let document = if dice.one_in(2) {
                let source = fronts::document(&name, &recipe);
                let no_files = |path: &str| Err(format!("no file {path}"));
                Some(foldback::ows::load(&source, &no_files).unwrap_or_else(|e| panic!("{e:#?}\n{source}")))
            } else {
                programs = programs.with_code(&name, "1", Shared(Arc::new(fronts::code(recipe))));
                None
            };
            for i in 0..dice.within(1, 2) {
                let (id, input) = (format!("w{n}{i}"), json!({ "sum": dice.below(100) }));
                starts.push(match &document {
                    Some(loaded) => start_document(loaded, &id, input),
                    None => start_code(&name, "1", &id, input),
                });
                notes.push(if dice.one_in(3) { dice.within(1, 2) } else { 0 });
            }
        }
        let mut story = Story {
            starts,
            programs: Arc::new(programs),
            notes,
            is_volatile: dice.one_in(4),
            fault_every: [0, 60, 25, 12][dice.below(4)],
            moves: dice.within(40, 500),
            is_observed: dice.one_in(2),
            forks: 0,
            backs: 0,
            undoing: BTreeMap::new(),
            words: 0,
        };
        if dice.one_in(3) {
            (story.forks, story.backs) = (dice.within(1, 4), dice.within(1, 3));
        }
        story
    }
}

/// A program that several workflows run.
struct Shared(Arc<dyn Program>);

impl Program for Shared {
    fn start(&self, state: &foldback::core::WorkflowState) -> Box<dyn foldback::core::Run> {
        self.0.start(state)
    }
}
