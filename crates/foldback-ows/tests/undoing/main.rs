//! What taking back means, over random workflows: a model in a few lines against the real program,
//! `decide`, `apply` and the law, in a world that does each write once.
//!
//! A seed makes a document, the fate of each write, deaths of the process, and the words of a person.
//! `FOLDBACK_SEEDS` asks for more seeds, `FOLDBACK_SEED` for one alone; a failing seed is named, with
//! its document and its log. No engine and no store take part: the
//! simulation of the engine has these documents, and this model, too.

mod dice;
mod document;
mod drive;
mod ledger;
mod model;
mod world;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use foldback_core::change::{Changes, Past, Policy, Writes};
use foldback_core::rehearse::{Logs, crash_anywhere};
use foldback_core::step::error_type;
use foldback_core::verify::verify;
use foldback_core::{
    Event, Fact, Failure, Hash, Key, Lineage, Outcome, Status, Step, Stimulus, Version, WorkflowState, text,
};
use serde_json::json;

use dice::Dice;
use document::{Document, Shape, document};
use drive::{Drive, Trouble};
use ledger::{Happened, agrees, left};
use model::Model;
use world::{Luck, World};

const WHOLE: Shape = Shape { branches: true, recoveries: true, limits: true, listens: false, budgets: false };
const LUCK: Luck = Luck { fails: 5, breaks: 8, undo_fails: 8 };

fn seeds(usual: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("FOLDBACK_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("FOLDBACK_SEEDS").unwrap_or(usual)).collect(),
    }
}

fn each_seed(usual: u64, test: impl Fn(u64)) {
    for seed in seeds(usual) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("seed {seed} fails: FOLDBACK_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// Runs a test of a drive, and shows what there is to see where it fails.
fn shown<T>(document: &Document, drive: &mut Drive<'_>, test: impl FnOnce(&mut Drive<'_>) -> T) -> T {
    match catch_unwind(AssertUnwindSafe(|| test(drive))) {
        Ok(value) => value,
        Err(panic) => {
            eprintln!("{}\n{}", document.loaded.source, text::render(&drive.events));
            resume_unwind(panic)
        }
    }
}

/// The log is as the model says, event by event.
fn judged<'a>(document: &'a Document, events: &[Event]) -> Model<'a> {
    let mut model = Model::of(&document.facts);
    for event in events {
        if let Err(why) = model.see(event) {
            panic!("version {}: {} {why}", event.version, event.fact.event_type());
        }
    }
    model
}

fn assert_world(document: &Document, model: &Model<'_>, order: &[Happened], left: &BTreeSet<String>) {
    if let Err(why) = agrees(&document.facts, model, order, left) {
        panic!("{why}");
    }
}

/// What was sent.
fn sent(happened: &Happened) -> String {
    let (Happened::Done { key, .. } | Happened::Undone { key, .. }) = happened;
    key.to_string()
}

fn assert_log(document: &Document, drive: &Drive<'_>) {
    let id = &drive.state.workflow_id;
    let folded = WorkflowState::fold(id, &drive.events).unwrap_or_else(|illegal| panic!("{illegal}"));
    assert_eq!(folded, drive.state, "the fold of the log is the state that wrote it");
    // What a fork shares with its parent names the parent.
    let names_itself =
        document.loaded.source.contains("emit") || document.loaded.source.contains("reconcile");
    let is_others = drive.state.lineage.is_some() && names_itself;
    if is_others || (drive.was_torn && document.facts.has_branches) {
        return;
    }
    if let Err(stopped) = verify(drive.program, id, &drive.events) {
        panic!("{stopped:#?}");
    }
}

#[derive(Debug, Default)]
struct Seen {
    undone: usize,
    compensated: usize,
    crashes: u32,
    scoped: usize,
    failed_undos: usize,
}

impl Seen {
    fn add(&mut self, model: &Model<'_>, drive: &Drive<'_>) {
        self.undone += model.undone.len();
        self.compensated += usize::from(drive.state.status() == Status::Compensated);
        self.crashes += drive.crashes;
        let count = |is: fn(&Fact) -> bool| drive.events.iter().filter(|event| is(&event.fact)).count();
        self.scoped += count(|fact| matches!(fact, Fact::UndoStarted(e) if !e.scope.is_root()));
        self.failed_undos += count(|fact| matches!(fact, Fact::UndoFailed { .. }));
    }
}

fn trouble(dice: &mut Dice) -> Trouble {
    let some = |dice: &mut Dice, n: u64| if dice.one_in(2) { 0 } else { n };
    let luck = Luck { undo_fails: some(dice, LUCK.undo_fails), breaks: some(dice, LUCK.breaks), ..LUCK };
    Trouble { crashes: some(dice, 6), cancels: some(dice, 30), luck, compensates: dice.one_in(2) }
}

/// Whatever befalls a workflow: what it did is taken back as the model says, and nothing else.
#[test]
fn what_is_taken_back_is_what_the_model_says() {
    let seen = RefCell::new(Seen::default());
    each_seed(300, |seed| {
        let mut dice = Dice(seed);
        let document = document(&mut dice, WHOLE);
        let trouble = trouble(&mut dice);
        let mut world = World::default();
        let (mut drive, first) = Drive::new(&*document.loaded.program, "p", trouble);
        shown(&document, &mut drive, |drive| {
            drive.go_on(first, &mut world, &mut dice);
            let model = judged(&document, &drive.events);
            assert_eq!(Ok(drive.state.status()), model.status());
            assert!(!trouble.compensates || model.armed.is_empty(), "something is left");
            assert_world(&document, &model, &world.order, &left(&world.order));
            assert_log(&document, drive);
            seen.borrow_mut().add(&model, drive);
        });
    });
    let seen = seen.borrow();
    if seeds(300).len() >= 300 {
        assert!(
            seen.undone > 200 && seen.compensated > 40 && seen.crashes > 100,
            "too little happens: {seen:?}"
        );
        assert!(seen.scoped > 20 && seen.failed_undos > 10, "too little happens: {seen:?}");
    }
}

/// A fork owns what it did, and takes back nothing else: not what its parent did, nor what it took
/// from its parent's past.
#[test]
fn a_fork_takes_back_what_it_did_and_nothing_of_its_parent() {
    let seen = RefCell::new(Seen::default());
    each_seed(150, |seed| {
        let mut dice = Dice(seed ^ 0xF02C);
        let document = document(&mut dice, WHOLE);
        let trouble = trouble(&mut dice);
        let calm = Trouble { crashes: 0, cancels: 0, compensates: false, ..trouble };
        let mut world = World::default();
        let (mut parent, first) = Drive::new(&*document.loaded.program, "p", calm);
        shown(&document, &mut parent, |parent| parent.go_on(first, &mut world, &mut dice));
        let is_end = |event: &Event| {
            matches!(event.fact, Fact::WorkflowCompleted { .. } | Fact::WorkflowFailed { .. })
        };
        let most = parent.events.iter().position(is_end).unwrap_or(parent.events.len()) as u64;
        let cut: Version = 1 + dice.below(most);
        let (done, before) = (world.order.len(), left(&world.order));
        let logs = Logs(BTreeMap::from([("p".into(), parent.events.clone())]));
        let (mut fork, first) = fork(&document, &logs, cut, trouble, &mut dice);
        shown(&document, &mut fork, |fork| {
            fork.go_on(first, &mut world, &mut dice);
            let model = judged(&document, &fork.events);
            assert_eq!(Ok(fork.state.status()), model.status());
            assert_world(&document, &model, &world.order[done..], &left(&world.order));
            let now = left(&world.order);
            let lost: Vec<&String> = before.difference(&now).collect();
            assert!(lost.is_empty(), "a fork took back {lost:?}, which is its parent's");
            assert_log(&document, fork);
            seen.borrow_mut().add(&model, fork);
        });
    });
    if seeds(150).len() >= 150 {
        assert!(seen.borrow().undone > 20, "too little happens: {:?}", seen.borrow());
    }
}

fn fork<'a>(
    document: &'a Document,
    logs: &'a Logs,
    cut: Version,
    trouble: Trouble,
    dice: &mut Dice,
) -> (Drive<'a>, Stimulus) {
    let log = &logs.0["p"];
    let shared = log[..cut as usize].to_vec();
    let mut state = WorkflowState::fold("p", &shared).unwrap_or_else(|illegal| panic!("{illegal}"));
    state.workflow_id = "p~1".into();
    let lineage = Lineage { parent: "p".into(), cut, cut_hash: Hash::of_bytes(b"cut") };
    let policy = if dice.one_in(3) { Policy::Reuse } else { Policy::Live };
    let past = Past { workflow: "p".into(), after: cut, up_to: log.len() as Version };
    let writes = Writes { policy, by_key: BTreeMap::new() };
    let rerun = if dice.one_in(2) { vec!["*".to_owned()] } else { Vec::new() };
    let changes = Box::new(Changes { writes, rerun, ..Changes::none(past) });
    let first = Stimulus::Fork { lineage, changes };
    (Drive::at(&*document.loaded.program, trouble, shared, state, Some(logs), &first), first)
}

/// Whoever dies where: from every prefix of a log it goes on to the same end, with the same requests,
/// and the same is taken back. One strand, in a world that answers by what it is asked.
#[test]
fn a_death_anywhere_changes_nothing_of_what_is_taken_back() {
    let undone = RefCell::new(0);
    each_seed(40, |seed| {
        let mut dice = Dice(seed ^ 0xDEAD);
        let document = document(
            &mut dice,
            Shape { branches: false, recoveries: false, limits: false, listens: false, budgets: false },
        );
        let answer = |key: &Key, step: &Step, _| {
            let id = step.request_hash.to_hex()[..8].to_owned() + &key.without_tries();
            let chance = Hash::of_bytes(id.as_bytes()).0[0] % 12;
            let may_fail = !key.as_str().contains("#3") && (chance == 0 || chance == 1 && !key.is_aside());
            match may_fail {
                true => Outcome::Failed {
                    error: Failure::new(error_type::COMMUNICATION, 409, "It failed", "by chance"),
                    retry_after_ms: None,
                    usage: None,
                },
                false => Outcome::Completed { output: json!({ "id": id }), usage: None },
            }
        };
        let whole = crash_anywhere(&*document.loaded.program, json!({}), &answer);
        let model = judged(&document, &whole.events);
        assert_eq!(Ok(whole.state.status()), model.status(), "{}", text::render(&whole.events));
        *undone.borrow_mut() += model.undone.len();
    });
    assert!(seeds(40).len() < 40 || *undone.borrow() > 20, "only {} undos", undone.borrow());
}

/// A write that a block took back is another effect when the block around it is tried again, and so is
/// what takes it back.
#[test]
fn what_was_taken_back_is_done_again_by_the_next_try() {
    let hotel = json!({"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/do"},
        "metadata": {"foldback": {"undo": [{"back": {"call": "http",
            "with": {"method": "POST", "endpoint": "http://x.test/undo"}}}]}}});
    let fail = json!({"raise": {"error": {"type": "runtime", "status": 500}}});
    let trip = json!({"try": [{"hotel": hotel}, {"full": fail}], "catch": {"do": [{"pass": fail}]},
        "metadata": {"foldback": {"compensate": true}}});
    let document = json!({
        "document": {"dsl": "1.0.3", "namespace": "test", "name": "t", "version": "1.0.0"},
        "do": [{"order": {"try": [{"trip": trip}], "catch": {"retry": {"limit": {"attempt": {"count": 1}}}}}}],
    });
    let loaded = foldback_ows::load(&document.to_string(), &|_| Err("no files".into())).expect("it loads");
    let luck = Luck { fails: 0, breaks: 0, undo_fails: 0 };
    let (mut drive, first) =
        Drive::new(&*loaded.program, "p", Trouble { crashes: 0, cancels: 0, luck, compensates: false });
    let mut world = World::default();
    drive.go_on(first, &mut world, &mut Dice(1));
    let keys: Vec<String> = world.order.iter().map(sent).collect();
    let wanted = [
        "order/trip/hotel",
        "order/trip/hotel!undo/back",
        "order!2/trip/hotel",
        "order!2/trip/hotel!undo/back",
    ];
    assert_eq!(keys, wanted, "{}", text::render(&drive.events));
}
