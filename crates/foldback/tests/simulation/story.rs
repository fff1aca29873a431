//! What a seed stands for: workflows, the programs they follow, and how rough the world is.

use std::sync::Arc;

use foldback::core::Program;
use foldback::engine::Start;
use foldback::programs::{Definitions, start_code, start_document};
use serde_json::json;

use crate::dice::Dice;
use crate::fronts;
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
}

impl Story {
    pub fn of(seed: u64) -> Story {
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
