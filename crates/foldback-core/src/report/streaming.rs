//! Readers of long logs hold what is open and what is shown, never the log.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::event::{EventId, StepAsked, StepCompleted, TaskKind, WorkflowStarted};
use crate::step::{Effect, Usage};
use crate::value::{Request, Slot};
use crate::{Event, Fact, Hash, Key, Version};

const ITERATIONS: u64 = 100_000;

/// The facts of a loop of so many iterations with one model call each, whose output is shaped or not.
fn facts(iterations: u64, is_shaped: bool) -> impl Iterator<Item = Fact> {
    let all = Key::from("all");
    let started = WorkflowStarted {
        definition: Hash::ZERO,
        name: "loop 1".to_owned(),
        input: Slot::null(),
        lineage: None,
        file: None,
        dialect: 1,
    };
    let begin = [
        Fact::WorkflowStarted(started),
        Fact::TaskStarted { key: all.clone(), kind: TaskKind::For, input: Slot::null(), collects: false },
    ];
    let rounds = (0..iterations).flat_map(move |i| {
        let (round, key) = (all.item(i), all.item(i).child("ask"));
        let output = Slot::of(json!({"n": i}));
        let usage = Usage {
            model: "m".into(),
            input_tokens: 2,
            output_tokens: 1,
            micro_usd: Some(3),
            ..Usage::default()
        };
        [
            asked(&key, !is_shaped),
            Fact::StepCompleted(Box::new(StepCompleted {
                key,
                attempt: 1,
                output: output.clone(),
                latency_ms: 1,
                usage: Some(usage),
            })),
            Fact::TaskFinished { key: round, kind: TaskKind::Iteration, output, context: None },
        ]
    });
    begin.into_iter().chain(rounds)
}

fn asked(key: &Key, finishes: bool) -> Fact {
    Fact::StepAsked(Box::new(StepAsked {
        key: key.clone(),
        kind: Arc::from("llm"),
        request: Request::whole(json!({})),
        request_hash: Hash::ZERO,
        program_hash: None,
        effect: Effect::Read,
        recovery: None,
        timeout_ms: None,
        retry: None,
        secrets: Default::default(),
        instance: None,
        finishes,
        starts: true,
        undo: None,
        given: None,
    }))
}

fn events() -> impl Iterator<Item = Event> {
    versioned(facts(ITERATIONS, false))
}

fn versioned(facts: impl Iterator<Item = Fact>) -> impl Iterator<Item = Event> {
    facts.enumerate().map(|(at, fact)| Event {
        id: EventId((at as u128).to_be_bytes()),
        version: at as Version + 1,
        timestamp: at as i64 * 1_000,
        clock: None,
        causation_id: None,
        correlation_id: None,
        actor: Arc::from("engine"),
        fact,
    })
}

#[test]
fn a_loop_of_a_hundred_thousand_iterations_is_shown_by_its_ends_and_its_sums() {
    let mut growing = Growing::new(20, &Ahead::default());
    let mut most = 0;
    for event in events() {
        growing.read(&event);
        most = most.max(growing.held());
    }
    assert!(most < 100, "{most} nodes were held");
    let grown = growing.finish();
    let all = &grown.nodes[0];
    assert_eq!(all.children.len(), 40);
    assert_eq!((all.children[19].label.as_str(), all.children[39].label.as_str()), ("[19]", "[99999]"));
    let left_out = all.left_out.expect("the iterations between are counted");
    assert_eq!((left_out.after, left_out.nodes, left_out.failed), (20, ITERATIONS - 40, 0));
    assert_eq!((all.tokens.input, all.micro_usd), (2 * ITERATIONS, 3 * ITERATIONS), "all of them are summed");
}

#[test]
fn the_rows_of_a_long_log_are_handed_out_while_it_is_read() {
    let (mut rows, mut most, mut handed) = (Rows::default(), 0, 0);
    for event in events() {
        rows.read(&event);
        most = most.max(rows.held());
        handed += rows.ready().len() as u64;
    }
    assert!(most < 10, "{most} rows were held");
    assert_eq!(handed + rows.finish().len() as u64, ITERATIONS);
}

/// A loop of computed values is one turn: no stimulus comes between its facts.
#[test]
fn rows_are_handed_out_in_a_turn_that_never_waits_for_the_world() {
    let all = Key::from("all");
    let (mut rows, mut most, mut handed, mut version) = (Rows::default(), 0, 0, 0);
    for i in 0..ITERATIONS / 10 {
        let (round, output) = (all.item(i), Slot::of(json!(i)));
        for (key, kind) in [(round.child("add"), TaskKind::Set), (round, TaskKind::Iteration)] {
            version += 1;
            rows.read(&Event {
                id: EventId(u128::from(version).to_be_bytes()),
                version,
                timestamp: 0,
                clock: None,
                causation_id: None,
                correlation_id: None,
                actor: Arc::from("engine"),
                fact: Fact::TaskFinished { key, kind, output: output.clone(), context: None },
            });
            most = most.max(rows.held());
            handed += rows.ready().len() as u64;
        }
    }
    assert!(most < 10, "{most} rows were held");
    assert_eq!(handed, ITERATIONS / 10);
}

/// What the ends of scopes look at is what lies in them, however many rows are kept.
#[test]
fn a_long_log_that_is_kept_whole_is_read_once() {
    const KEPT: u64 = 20_000;
    let mut growing = Growing::new(usize::MAX, &Ahead::default());
    versioned(facts(KEPT, true)).for_each(|event| growing.read(&event));
    let visited = growing.rows().visited();
    assert_eq!((growing.rows().held() as u64, visited), (KEPT, KEPT), "held and visited");
    assert_eq!(growing.finish().nodes[0].children.len() as u64, KEPT);
}

/// Rows come in the order of their asks: those behind one that is open are kept until it ends.
#[test]
fn rows_behind_one_that_is_open_are_kept_until_it_ends() {
    const KEPT: u64 = 20_000;
    let open = Key::from("open");
    let done =
        StepCompleted { key: open.clone(), attempt: 1, output: Slot::null(), latency_ms: 1, usage: None };
    let facts = [asked(&open, true)].into_iter().chain(facts(KEPT, true));
    let mut rows = Rows::default();
    let mut events = versioned(facts.chain([Fact::StepCompleted(Box::new(done))])).peekable();
    let mut handed = Vec::new();
    while let Some(event) = events.next() {
        rows.read(&event);
        handed.extend(rows.ready());
        assert!(events.peek().is_none() || handed.is_empty(), "version {} hands out", event.version);
    }
    assert_eq!((handed.len() as u64, rows.held()), (KEPT + 1, 0));
    assert_eq!((handed[0].key.as_str(), handed[1].key.as_str()), ("open", "all[0]/ask"));
    assert_eq!(rows.visited(), KEPT, "each was looked at once");
}
