//! Forks and retries that go back, over random documents, edits and crashes: what holds of all of them.
//!
//! A seed makes a document, a world that answers by what it is asked, and changes. `FOLDBACK_SEEDS`
//! asks for more seeds, `FOLDBACK_SEED` for one alone; a failing seed is named.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use foldback_core::change::{Changes, GivenOutput, Past, Policy, Said, SaidTarget, Writes};
use foldback_core::cut::{Cut, Cutting, Wish};
use foldback_core::plan::{Plan, plan};
use foldback_core::rehearse::{Logs, Rehearsal, fork, go_back, rehearse, resume_branch};
use foldback_core::state::End;
use foldback_core::step::error_type;
use foldback_core::verify::verify;
use foldback_core::{
    Class, Effect, Event, Fact, Failure, Hash, Key, Lineage, Outcome, Program, Slot, Step, Stimulus, Verdict,
    Version, WorkflowState,
};
use serde_json::{Value, json};

/// Numbers that look random: the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % most
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A random list of tasks, as JSON. Data is `{n}`; each step sends its number and gets another.
fn tasks(dice: &mut Dice, depth: u32, serial: &mut u32) -> Value {
    let count = 1 + dice.below(if depth == 0 { 4 } else { 2 });
    let mut list = Vec::new();
    for _ in 0..count {
        *serial += 1;
        let name = format!("t{serial}");
        let kind = if depth >= 2 { dice.below(5) } else { dice.below(10) };
        let task = match kind {
            0 | 1 => json!({"call": "http", "with": {"method": "GET", "endpoint": "http://x.test/r",
                "query": {"n": "${ .n | tostring }"}}}),
            2 | 3 => json!({"call": "http", "with": {"method": "POST", "endpoint": "http://x.test/w",
                "body": {"n": "${ .n }"}}}),
            4 => json!({"set": {"n": "${ .n + 1 }"}}),
            5 => json!({"for": {"in": "${ [1, 2] }"}, "do": tasks(dice, depth + 1, serial)}),
            6 => json!({"try": tasks(dice, depth + 1, serial), "catch": {"do": [{"s": {"set": {"n": 5}}}]}}),
            7 => {
                let (a, b) = (tasks(dice, depth + 1, serial), tasks(dice, depth + 1, serial));
                json!({"fork": {"branches": [{"a": {"do": a}}, {"b": {"do": b}}]},
                    "output": {"as": "${ {n: ([.[] | .n] | add)} }"}})
            }
            8 => json!({"wait": {"seconds": 30}}),
            _ => {
                let (on, odd) = (tasks(dice, depth + 1, serial), tasks(dice, depth + 1, serial));
                json!({"do": [
                    {"pick": {"switch": [{"even": {"when": "${ .n % 2 == 0 }", "then": "on"}}, {"odd": {"then": "other"}}]}},
                    {"on": {"do": on, "then": "exit"}},
                    {"other": {"do": odd}},
                ]})
            }
        };
        list.push(json!({ name: task }));
    }
    Value::Array(list)
}

fn program(dice: &mut Dice) -> (Arc<dyn Program>, String) {
    let document = json!({
        "document": {"dsl": "1.0.3", "namespace": "test", "name": "t", "version": "1.0.0",
            // A process may die under a write.
            "metadata": {"foldback": {"recovery": "retry"}}},
        "do": tasks(dice, 0, &mut 0),
    });
    let source = document.to_string();
    let loaded = foldback_ows::load(&source, &|_| Err("no files".into()));
    let loaded = loaded.unwrap_or_else(|problems| panic!("{problems:?}\n{source}"));
    (loaded.program, source)
}

/// What was performed: the step and what it was asked, in order.
type Done = RefCell<Vec<(Key, Effect, Hash)>>;

/// The world answers by what it is asked; some questions it cannot answer.
fn answer(done: &Done, faults: u64, key: &Key, step: &Step) -> Outcome {
    done.borrow_mut().push((key.clone(), step.effect, step.request_hash));
    let number = u64::from_le_bytes(step.request_hash.0[..8].try_into().unwrap());
    if number % 100 < faults {
        let error = Failure::new(error_type::COMMUNICATION, 404, "Not Found", "nothing there");
        return Outcome::Failed { error, retry_after_ms: None, usage: None };
    }
    Outcome::Completed { output: json!({"n": number % 1_000}), usage: None }
}

/// What a log means: requests, decisions, outputs and the end; whether an outcome was taken or given
/// is no difference.
fn meaning(rehearsal: &Rehearsal) -> (Vec<String>, Option<End>) {
    let mut facts: Vec<String> = Vec::new();
    for event in foldback_core::report::effective(&rehearsal.events) {
        let told = match &event.fact {
            Fact::StepAsked(e) => format!("asked {} {}", e.key, e.request_hash),
            Fact::StepCompleted(e) => format!("gave {} {}", e.key, e.output.get()),
            Fact::StepFailed(e) => format!("failed {} {}", e.key, e.error.title),
            Fact::StepReused(e) => match (&e.output, &e.error) {
                (Some(output), _) => format!("gave {} {}", e.key, output.get()),
                (None, Some(error)) => format!("failed {} {}", e.key, error.title),
                (None, None) => continue,
            },
            Fact::DecisionMade(e) => format!("decided {} {}", e.key, e.chosen),
            Fact::TaskFinished { key, output, .. } => format!("finished {key} {}", output.get()),
            _ => continue,
        };
        facts.push(told);
    }
    // What was open at a cut is asked for anew.
    facts.sort();
    facts.dedup();
    (facts, rehearsal.state.end.clone())
}

/// Says what is missing and what is too much, not both whole.
fn assert_same(found: &Rehearsal, wanted: &(Vec<String>, Option<End>), text: &dyn Fn() -> String) {
    let (facts, end) = meaning(found);
    let missing: Vec<&String> = wanted.0.iter().filter(|fact| !facts.contains(fact)).collect();
    let more: Vec<&String> = facts.iter().filter(|fact| !wanted.0.contains(fact)).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing {missing:#?}\ntoo much {more:#?}\n{}", text());
    assert_eq!(end, wanted.1, "{}", text());
}

/// Whether a failure may have ended it with other strands at work: how far these came is chance, in the
/// workflow and in each fork of it (decision 72).
fn is_cut_short(source: &str, ended: &Rehearsal) -> bool {
    matches!(ended.state.end, Some(End::Failed { .. })) && source.contains("\"branches\"")
}

fn assert_no_write(done: &Done, text: &dyn Fn() -> String) {
    let written = done.borrow().iter().find(|(_, effect, _)| *effect == Effect::Write).cloned();
    assert_eq!(written, None, "{}", text());
}

struct Case {
    program: Arc<dyn Program>,
    source: String,
    logs: Logs,
    parent: Rehearsal,
    faults: u64,
}

impl Case {
    fn of(seed: u64, faults: u64) -> (Case, Dice) {
        let mut dice = Dice(seed);
        let (program, source) = program(&mut dice);
        let input = json!({"n": dice.below(50)});
        let done = Done::default();
        let parent = rehearse(&*program, "p", input, &|key, step, _| answer(&done, faults, key, step));
        let logs = Logs(BTreeMap::from([("p".into(), parent.events.clone())]));
        (Case { program, source, logs, parent, faults }, dice)
    }

    fn last(&self) -> Version {
        self.parent.events.len() as Version
    }

    /// The last version at which it had not ended.
    fn last_open(&self, at: Version) -> Version {
        let is_end = |event: &Event| {
            matches!(event.fact, Fact::WorkflowCompleted { .. } | Fact::WorkflowFailed { .. })
        };
        let end =
            self.parent.events.iter().find(|event| is_end(event)).map_or(self.last(), |e| e.version - 1);
        at.min(end)
    }

    fn steps(&self) -> Vec<Key> {
        let asked = self.parent.events.iter().filter_map(|event| match &event.fact {
            Fact::StepAsked(asked) => Some(asked.key.clone()),
            _ => None,
        });
        asked.collect()
    }

    fn cut(&self, wish: &Wish, at: Version) -> Option<(Cut, Changes)> {
        let mut cutting = Cutting::of(wish, at).ok()?;
        self.parent.events.iter().for_each(|event| cutting.see(event));
        let cut = cutting.end(&|_| None).ok()?;
        let version = self.last_open(cut.version);
        // An output is edited at its completion only.
        if version != cut.version && !cut.outputs.is_empty() {
            return None;
        }
        let changes = Changes {
            edits: cut.edits.clone(),
            outputs: cut.outputs.clone(),
            input: cut.input.clone(),
            writes: wish.writes.clone(),
            rerun: wish.rerun.clone(),
            ..Changes::none(Past { workflow: "p".into(), after: version, up_to: self.last() })
        };
        Some((Cut { version, ..cut }, changes))
    }

    fn fork(&self, cut: Version, changes: &Changes, done: &Done) -> Rehearsal {
        let world = |key: &Key, step: &Step, _| answer(done, self.faults, key, step);
        fork(&*self.program, &self.logs, ("p", cut, "p~1"), changes.clone(), &world, &|_| None)
    }

    fn plan(&self, cut: Version, changes: &Changes) -> Plan {
        let shared = &self.parent.events[..cut as usize];
        let mut state = WorkflowState::fold("p", shared).unwrap();
        state.workflow_id = "p~1".into();
        let lineage = Lineage { parent: "p".into(), cut, cut_hash: Hash::of_bytes(b"cut") };
        let first = Stimulus::Fork { lineage, changes: Box::new(changes.clone()) };
        let after = foldback_core::decide::after(&state, first.clone(), state.now);
        let mut run = self.program.start(&after);
        plan(state, &mut *run, first, &mut &self.logs).unwrap_or_else(|why| panic!("{why:?}"))
    }

    /// Changes by chance, among those that this log has a place for.
    fn wish(&self, dice: &mut Dice) -> Wish {
        let steps = self.steps();
        let mut wish = Wish { model_kind: "http".into(), ..Wish::default() };
        let policies = [Policy::Reuse, Policy::Ask, Policy::Stub, Policy::Deny, Policy::Live];
        wish.writes = Writes { policy: policies[dice.below(5) as usize], by_key: BTreeMap::new() };
        if steps.is_empty() {
            return wish;
        }
        let key = steps[dice.below(steps.len() as u64) as usize].clone();
        let said = |target, path: &str, value| Said { target, path: path.into(), value: Ok(value) };
        match dice.below(6) {
            0 => {}
            1 => wish.rerun.push(key.to_string()),
            2 => wish.edits.push(said(SaidTarget::Input, "/n", json!(dice.below(50)))),
            3 => wish.edits.push(said(SaidTarget::Output(key), "/n", json!(dice.below(50)))),
            4 => wish.edits.push(said(SaidTarget::Models, "/redirect", json!(true))),
            _ => wish.edits.push(said(SaidTarget::Request(key), "/redirect", json!(true))),
        }
        wish
    }
}

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
            std::panic::resume_unwind(panic);
        }
    }
}

/// A fork without edits, cut anywhere, means what its parent means, and performs nothing: each outcome
/// is there. And a log of it that is cut anywhere goes on to the same end.
#[test]
fn a_fork_without_edits_is_its_parent_again_and_performs_nothing() {
    let reused = RefCell::new(0);
    each_seed(60, |seed| {
        let (case, mut dice) = Case::of(seed, 6);
        let wanted = meaning(&case.parent);
        for cut in 1..=case.last_open(case.last()) {
            let done = Done::default();
            let none = Changes::none(Past { workflow: "p".into(), after: cut, up_to: case.last() });
            let forked = case.fork(cut, &none, &done);
            let text = || format!("{}\n{}", case.source, foldback_core::text::render(&forked.events));
            if is_cut_short(&case.source, &case.parent) && case.source.contains("\"wait\"") {
                assert_no_write(&done, &text);
                continue;
            }
            assert_same(&forked, &wanted, &|| format!("cut at {cut}\n{}", text()));
            assert!(done.borrow().is_empty(), "cut at {cut} performs {:?}\n{}", done.borrow(), text());
            *reused.borrow_mut() +=
                forked.events.iter().filter(|e| matches!(e.fact, Fact::StepReused(_))).count();
            // A process may die anywhere in it.
            if dice.one_in(4) {
                let own = cut as usize + 1..forked.events.len();
                for at in own {
                    let before = &forked.events[..at];
                    let world = |key: &Key, step: &Step, _| answer(&done, case.faults, key, step);
                    let resumed =
                        resume_branch(&*case.program, &case.logs, ("p~1", before), &world, &|_| None);
                    assert_same(&resumed, &wanted, &|| format!("cut at {cut}, died at {at}\n{}", text()));
                    assert!(done.borrow().is_empty(), "died at {at}: performs {:?}", done.borrow());
                }
            }
        }
    });
    assert!(*reused.borrow() > 500, "only {} outcomes were taken", reused.borrow());
}

/// Whatever is changed: what was performed is what the plan names, no write without a word for it, the
/// log obeys the law, folds to its state, and verifies.
#[test]
fn what_the_plan_says_is_what_happens() {
    let (ran, held) = (RefCell::new(0), RefCell::new(0));
    each_seed(600, |seed| {
        let (case, mut dice) = Case::of(seed, 4);
        let wish = case.wish(&mut dice);
        let at = 1 + dice.below(case.last());
        let Some((cut, changes)) = case.cut(&wish, at) else { return };
        let plan = case.plan(cut.version, &changes);
        let done = Done::default();
        let forked = case.fork(cut.version, &changes, &done);
        let text = || {
            let events = foldback_core::text::render(&forked.events);
            format!("{wish:?}\n{plan:#?}\n{}\n{events}", case.source)
        };
        assert_eq!(plan.cut, cut.version);
        let own = &forked.events[cut.version as usize..];
        let mut taken: BTreeSet<Key> = BTreeSet::new();
        let mut words: BTreeMap<Key, &'static str> = BTreeMap::new();
        for event in own {
            match &event.fact {
                Fact::StepReused(reused) => {
                    taken.insert(reused.key.clone());
                    words.insert(reused.key.clone(), "reuse");
                }
                Fact::WriteHeld { key, .. } => drop(words.insert(key.clone(), "ask")),
                Fact::WriteSettled { key, verdict, .. } => {
                    let word = match verdict {
                        Verdict::Live => "live",
                        Verdict::Stub => "stub",
                        Verdict::Deny => "deny",
                    };
                    words.insert(key.clone(), word);
                }
                _ => {}
            }
        }
        let performed: BTreeSet<Key> = done.borrow().iter().map(|(key, ..)| key.clone()).collect();
        *ran.borrow_mut() += performed.len();
        *held.borrow_mut() += words.values().filter(|word| **word == "ask").count();
        // What is certain happens so; but for what a failure on another strand kept from being asked.
        let asked: BTreeSet<Key> = own
            .iter()
            .filter_map(|e| match &e.fact {
                Fact::StepAsked(asked) => Some(asked.key.clone()),
                _ => None,
            })
            .collect();
        for key in plan.reused.iter().filter(|key| asked.contains(*key)) {
            assert!(taken.contains(key), "`{key}` was to be reused\n{}", text());
        }
        for key in plan.rerun.iter().filter(|key| asked.contains(*key)) {
            assert!(performed.contains(key), "`{key}` was to run again\n{}", text());
        }
        for write in plan.writes.iter().filter(|w| w.when == "always" && asked.contains(&w.key)) {
            assert_eq!(words.get(&write.key), Some(&write.action), "`{}`\n{}", write.key, text());
        }
        for write in plan.writes.iter().filter(|w| w.when == "changed" && asked.contains(&w.key)) {
            let word = words.get(&write.key).copied();
            assert!(
                word == Some(write.action) || word == Some("reuse"),
                "`{}`: {word:?}\n{}",
                write.key,
                text()
            );
        }
        // Nothing runs that was not to be expected: it is named, or lies behind something that is.
        if plan.rerun.is_empty() && plan.depending.is_empty() {
            let unnamed = performed.iter().find(|key| !plan.writes.iter().any(|w| w.key == **key));
            assert_eq!(unnamed, None, "{}", text());
        }
        for (key, effect, _) in done.borrow().iter().filter(|(_, effect, _)| *effect == Effect::Write) {
            assert_eq!(words.get(key), Some(&"live"), "{effect:?} `{key}` without a word\n{}", text());
        }
        let folded = WorkflowState::fold("p~1", &forked.events).unwrap_or_else(|e| panic!("{e}\n{}", text()));
        assert_eq!(folded, forked.state, "{}", text());
        let consequences =
            forked.events.iter().filter(|e| e.fact.class() == Class::Consequence).count() as u64;
        match verify(&*case.program, "p~1", &forked.events) {
            Ok(compared) => assert_eq!(compared, consequences),
            Err(stopped) => panic!("{stopped:#?}\n{}", text()),
        }
    });
    assert!(*ran.borrow() > 80, "only {} steps ran", ran.borrow());
    assert!(*held.borrow() > 20, "only {} writes were held", held.borrow());
}

/// A workflow that failed and goes back ends where its fork would, except that its own failures are
/// tried again; from every version, and whoever dies on the way.
#[test]
fn a_retry_that_goes_back_ends_as_if_nothing_had_failed() {
    let went_back = RefCell::new(0);
    each_seed(150, |seed| {
        let (case, mut dice) = Case::of(seed, 25);
        if !matches!(case.parent.state.end, Some(End::Failed { .. })) {
            return;
        }
        // The world is mended.
        let mended = Done::default();
        let world = |key: &Key, step: &Step, _| answer(&mended, 0, key, step);
        let input = (*case.parent.state.input.get()).clone();
        // What a caught failure was answered with stays: only the whole of a world without faults is
        // another story.
        let whole = rehearse(&*case.program, "p", input, &world);
        let had_caught =
            case.parent.events.iter().filter(|e| matches!(e.fact, Fact::StepFailed(_))).count() > 1;
        for to in 1..=case.last_open(case.last()) {
            let none = Changes::none(Past { workflow: "p".into(), after: to, up_to: case.last() });
            let before: BTreeSet<(Key, Hash)> = done_in(&case.parent.events);
            mended.borrow_mut().clear();
            let back = go_back(&*case.program, &case.logs, ("p", to), none, &world, &|_| Some(Verdict::Live));
            let text = || format!("to {to}\n{}\n{}", case.source, foldback_core::text::render(&back.events));
            *went_back.borrow_mut() += 1;
            for (key, _, hash) in mended.borrow().iter() {
                let again = before.contains(&(key.clone(), *hash));
                assert!(!again, "`{key}` was done, and is done again\n{}", text());
            }
            assert_eq!(WorkflowState::fold("p", &back.events).as_ref(), Ok(&back.state), "{}", text());
            if let Err(stopped) = verify(&*case.program, "p", &back.events) {
                panic!("{stopped:#?}\n{}", text());
            }
            // From before every failure it is as if there had been none.
            let first_failed = case.parent.events.iter().find(|e| matches!(e.fact, Fact::StepFailed(_)));
            let is_before = first_failed.is_none_or(|failed| to < asked_at(&case.parent.events, failed));
            if !had_caught && is_before {
                assert_eq!(meaning(&back).1, whole.state.end, "{}", text());
            }
            if dice.one_in(6) {
                for at in case.last() as usize + 1..back.events.len() {
                    let resumed =
                        resume_branch(&*case.program, &case.logs, ("p", &back.events[..at]), &world, &|_| {
                            Some(Verdict::Live)
                        });
                    assert_same(&resumed, &meaning(&back), &|| {
                        format!("died at {at}\n{}\n{}", text(), foldback_core::text::render(&resumed.events))
                    });
                }
            }
        }
    });
    assert!(*went_back.borrow() > 80, "only {} retries", went_back.borrow());
}

/// Steps that a log says were done, with what they were asked.
fn done_in(events: &[Event]) -> BTreeSet<(Key, Hash)> {
    let mut asked: BTreeMap<Key, Hash> = BTreeMap::new();
    let mut done = BTreeSet::new();
    for event in events {
        match &event.fact {
            Fact::StepAsked(e) => drop(asked.insert(e.key.clone(), e.request_hash)),
            Fact::StepCompleted(e) => drop(done.insert((e.key.clone(), asked[&e.key]))),
            _ => {}
        }
    }
    done
}

/// The version at which the step that an event speaks of was asked for.
fn asked_at(events: &[Event], of: &Event) -> Version {
    let is_it = |event: &&Event| matches!(&event.fact, Fact::StepAsked(e) if Some(&e.key) == of.fact.key());
    events.iter().find(is_it).map_or(0, |event| event.version)
}

/// A fork of a fork finds outcomes in all the pasts that it left, and owns none of them.
#[test]
fn a_fork_of_a_fork_takes_outcomes_from_both() {
    let chained = RefCell::new(0);
    each_seed(300, |seed| {
        let (mut case, mut dice) = Case::of(seed, 4);
        let Some(key) = case.steps().first().cloned() else { return };
        let value = Ok(json!(true));
        let said = Said { target: SaidTarget::Request(key.clone()), path: "/redirect".into(), value };
        let wish = Wish {
            edits: vec![said],
            writes: Writes { policy: Policy::Stub, by_key: BTreeMap::new() },
            model_kind: "http".into(),
            ..Wish::default()
        };
        let Some((cut, changes)) = case.cut(&wish, case.last()) else { return };
        let first = case.fork(cut.version, &changes, &Done::default());
        case.logs.0.insert("p~1".into(), first.events.clone());
        let up_to = first.events.len() as Version;
        if first.state.end.is_none() {
            return;
        }
        let cuts = cut.version + 1..up_to - 1;
        let Some(again) = cuts.clone().nth(dice.below(cuts.clone().count().max(1) as u64) as usize) else {
            return;
        };
        let done = Done::default();
        let world = |key: &Key, step: &Step, _| answer(&done, case.faults, key, step);
        let none = Changes {
            writes: wish.writes.clone(),
            ..Changes::none(Past { workflow: "p~1".into(), after: again, up_to })
        };
        let second = fork(&*case.program, &case.logs, ("p~1", again, "p~1~1"), none, &world, &|_| None);
        let text = || {
            format!(
                "{}\n{}\n{}",
                case.source,
                foldback_core::text::render(&first.events),
                foldback_core::text::render(&second.events)
            )
        };
        if is_cut_short(&case.source, &first) {
            return assert_no_write(&done, &text);
        }
        assert!(done.borrow().is_empty(), "performs {:?}\n{}", done.borrow(), text());
        assert_eq!(second.state.end, first.state.end, "{}", text());
        assert_eq!(second.state.spent, Default::default(), "{}", text());
        *chained.borrow_mut() += 1;
    });
    assert!(*chained.borrow() > 30, "only {} forks of forks", chained.borrow());
}

#[test]
fn an_output_that_nobody_has_seen_can_be_another_and_no_other() {
    let (case, _) = Case::of(1, 0);
    let completed = case.parent.events.iter().find(|e| matches!(e.fact, Fact::StepCompleted(_))).unwrap();
    let key = completed.fact.key().unwrap().clone();
    let given = |cut: Version| {
        let outputs = vec![GivenOutput { key: key.clone(), output: Slot::of(json!({"n": 1})) }];
        let past = Past { workflow: "p".into(), after: cut, up_to: case.last() };
        let changes = Changes { outputs, ..Changes::none(past) };
        let state = WorkflowState::fold("p", &case.parent.events[..cut as usize]).unwrap();
        let lineage = Lineage { parent: "p".into(), cut, cut_hash: Hash::ZERO };
        let mut run = case.program.start(&state);
        plan(state, &mut *run, Stimulus::Fork { lineage, changes: Box::new(changes) }, &mut &case.logs)
            .map(drop)
    };
    assert!(given(completed.version).is_ok());
    assert!(given(completed.version + 1).is_err(), "somebody has seen it");
    assert!(given(completed.version - 1).is_err(), "it has not completed");
}
