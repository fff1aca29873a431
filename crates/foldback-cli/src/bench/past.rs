//! Rows of the past: any moment of a workflow of a million events, and forks of it.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use foldback::core::cut::Wish;
use foldback::core::program::StepAsk;
use foldback::core::{Ask, Effect, EntryBody, Key, Program, Run, StepStatus, TaskKind, Turn, WorkflowState};
use foldback::engine::engine::{Message, ReplyTo};
use foldback::engine::{Branching, Command, prepare_fork, state_at};
use foldback::programs::{Definitions, start_code};
use foldback::store::Store;
use serde_json::{Value, json};

use super::Row;
use super::engine::engine;
use crate::error::Error;

/// Events of the workflow.
const EVENTS: u64 = 1_000_000;

/// Things that the state knows beside the loop: some 60 KB.
const KNOWN: u64 = 320;

/// Versions that are looked at.
const MOMENTS: u64 = 1_000;

/// Forks that are made.
const FORKS: u64 = 50;

/// A loop of steps; what lies before it stays known.
pub struct Rounds;

impl Program for Rounds {
    fn start(&self, _state: &WorkflowState) -> Box<dyn Run> {
        Box::new(Rounds)
    }
}

impl Run for Rounds {
    fn turn(&mut self, state: &WorkflowState) -> Turn {
        let known = |n: u64| Key::new(format!("known{n:04}"));
        if !state.entries.contains_key(&known(KNOWN - 1)) {
            let finish = |n: u64| Ask::Finish {
                key: known(n),
                kind: TaskKind::Set,
                output: Arc::new(json!({"n": n, "text": "what is known of it, ".repeat(4)})),
                context: None,
            };
            return Turn::Asks((0..KNOWN).map(finish).collect());
        }
        let rounds = Key::from("rounds");
        let Some(EntryBody::Started { iterations, .. }) = state.entries.get(&rounds).map(|e| &e.body) else {
            return Turn::Asks(vec![Ask::Start { key: rounds, kind: TaskKind::For, input: Arc::default() }]);
        };
        if *iterations >= state.input.get().as_u64().unwrap_or(0) {
            return Turn::Ends(Ok(Value::Null));
        }
        let round = rounds.item(*iterations);
        let key = round.child("step");
        match state.step(&key).map(|step| step.status) {
            None => {
                let ask = StepAsk::new(key, "noop", Effect::Pure, json!({"round": iterations}));
                Turn::Asks(vec![Ask::Step(Box::new(ask))])
            }
            Some(StepStatus::Completed) => {
                let output = state.step(&key).and_then(|step| step.output.as_ref()).map(|slot| slot.get());
                let (output, kind) = (output.unwrap_or_default(), TaskKind::Iteration);
                Turn::Asks(vec![Ask::Finish { key: round, kind, output, context: None }])
            }
            Some(_) => Turn::Waits,
        }
    }
}

/// `moment`, `fork`, `fork-read`.
pub fn million(folder: &Path) -> Result<Vec<Row>, Error> {
    let store = foldback::store::open(&format!("sqlite:{}", folder.join("million.db").display()))?;
    let rounds = (EVENTS - KNOWN - 2) / 3;
    let running = engine(store.clone())?;
    let (rest, rested) = channel();
    running.say(Command::Start(start_code("rounds", "1", "m", json!(rounds))), &rest);
    rested.recv_timeout(Duration::from_secs(500)).map_err(|_| Error::machine("a million took too long"))?;
    let last = store.workflow("m")?.map_or(0, |row| row.version);
    let mut dice = 7u64;
    let mut any = |most: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        dice % most
    };
    let (mut moments, mut bytes) = (Vec::new(), 0);
    for _ in 0..MOMENTS {
        let version = 1 + any(last);
        let (seconds, state) = moment(&*store, "m", version)?;
        bytes = bytes.max(serde_json::to_vec(&state).map_or(0, |state| state.len()));
        moments.push(seconds);
    }
    let (mut forked, mut rows) = (Vec::new(), 0);
    for n in 1..=FORKS {
        let id: Arc<str> = Arc::from(format!("m~{n}"));
        let begun = Instant::now();
        let at = Some(1 + any(last - 1));
        let branching =
            Branching { workflow_id: Arc::from("m"), at, wish: Wish::default(), definition: None };
        let programs = Definitions::default().with_code("rounds", "1", Rounds);
        let prepared = prepare_fork(&*store, &programs, &branching)
            .map_err(|e| Error::machine(format!("no fork: {e:?}")))?;
        let (reply, answered) = channel();
        let _gone = running.to_loop.send(Message::StartNothing);
        let _gone = running.to_loop.send(Message::Command {
            command: prepared.fork(id.clone()),
            actor: Arc::from("bench"),
            from: ReplyTo::Caller(reply),
            watch: None,
        });
        let answer = answered.recv().map_err(|_| Error::machine("no answer to a fork"))?;
        answer.map_err(|refusal| Error::machine(refusal.message))?;
        forked.push(begun.elapsed().as_secs_f64());
        // Its own row, and its events.
        let row = store.workflow(&id)?.ok_or_else(|| Error::machine("a fork is not there"))?;
        rows = rows.max(1 + row.version - row.parent.map_or(0, |(_, cut, _)| cut));
    }
    running.end()?;
    let deep = deep_fork(&store)?;
    let mut ratios = Vec::new();
    for _ in 0..200 {
        let version = last / 2 + any(last / 2 - 10);
        let (own, _) = moment(&*store, "m", version.min(deep.1))?;
        let (forks, _) = moment(&*store, &deep.0, version.min(deep.1))?;
        ratios.push((own, forks));
    }
    let mean = |pick: fn(&(f64, f64)) -> f64| ratios.iter().map(pick).sum::<f64>() / ratios.len() as f64;
    let (own, forks) = (mean(|r| r.0), mean(|r| r.1));
    let (p99, middle) = (percentile(&mut moments, 99), percentile(&mut moments, 50));
    let (slowest, usual) = (percentile(&mut forked, 99), percentile(&mut forked, 50));
    let snapshots = snapshots(&*store)?;
    Ok(vec![
        Row::new(
            "moment",
            1.0 / p99,
            "1/s",
            format!(
                "the state at {MOMENTS} random versions of {last} events, {} KB at most, {snapshots} snapshots: p99 {:.1} ms, p50 {:.1} ms",
                bytes / 1024,
                p99 * 1e3,
                middle * 1e3
            ),
        ),
        Row::new(
            "fork",
            1.0 / slowest,
            "1/s",
            format!(
                "a fork of it at a random version, durable: p99 {:.1} ms, p50 {:.1} ms, {rows} rows at most",
                slowest * 1e3,
                usual * 1e3
            ),
        ),
        Row {
            ratio: Some(forks / own),
            ..Row::new(
                "fork-read",
                1.0 / forks,
                "1/s",
                format!(
                    "the state of a fork of a fork of a fork at a random version: {:.1} ms; the ratio is its time to its parent's",
                    forks * 1e3
                ),
            )
        },
    ])
}

fn moment(store: &dyn Store, id: &str, version: u64) -> Result<(f64, WorkflowState), Error> {
    let begun = Instant::now();
    let state = state_at(store, id, Some(version)).map_err(|e| Error::machine(e.to_string()))?;
    let state = state.filter(|state| state.version == version);
    let state = state.ok_or_else(|| Error::machine(format!("{id} has no version {version}")))?;
    Ok((begun.elapsed().as_secs_f64(), state))
}

/// A fork of a fork of a fork near the end; its id, and the last version that it has.
fn deep_fork(store: &Arc<dyn Store>) -> Result<(String, u64), Error> {
    let running = engine(store.clone())?;
    let programs = Definitions::default().with_code("rounds", "1", Rounds);
    let mut parent = "m".to_owned();
    for _ in 0..3 {
        let last = store.workflow(&parent)?.map_or(0, |row| row.version);
        let branching = Branching {
            workflow_id: Arc::from(&*parent),
            at: Some(last - 2),
            wish: Wish::default(),
            definition: None,
        };
        let prepared = prepare_fork(&**store, &programs, &branching)
            .map_err(|e| Error::machine(format!("no fork: {e:?}")))?;
        let id = format!("{parent}~99");
        let (reply, answered) = channel();
        let _gone = running.to_loop.send(Message::StartNothing);
        let _gone = running.to_loop.send(Message::Command {
            command: prepared.fork(Arc::from(&*id)),
            actor: Arc::from("bench"),
            from: ReplyTo::Caller(reply),
            watch: None,
        });
        let answer = answered.recv().map_err(|_| Error::machine("no answer to a fork"))?;
        answer.map_err(|refusal| Error::machine(refusal.message))?;
        parent = id;
    }
    running.end()?;
    let last = store.workflow(&parent)?.map_or(0, |row| row.version);
    Ok((parent, last))
}

fn snapshots(store: &dyn Store) -> Result<u64, Error> {
    let (mut count, mut at_most) = (0, u64::MAX);
    while let Some(snapshot) = store.snapshot("m", at_most)? {
        count += 1;
        at_most = snapshot.version.saturating_sub(1);
    }
    Ok(count)
}

fn percentile(seconds: &mut [f64], of_100: usize) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[(seconds.len() * of_100 / 100).min(seconds.len() - 1)]
}
