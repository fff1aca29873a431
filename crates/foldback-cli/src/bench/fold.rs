//! Rows of the fold: from memory, from stored JSON, and from the file with its chain checked.

use std::path::Path;
use std::time::Instant;

use foldback::code::Code;
use foldback::core::rehearse::rehearse;
use foldback::core::{Event, Fact, Outcome, WorkflowState};
use foldback::engine::load::state_at;
use foldback::engine::new_event;
use foldback::store::{Append, Commit, Expected, Store};
use serde_json::{Value, json};

use super::engine::sequence;
use super::{Row, SECONDS, noise};
use crate::error::Error;

/// Steps of the workflow that is folded.
const STEPS: u64 = 1_000;

/// `fold`, `fold-json`, `fold-file`.
pub fn folds(folder: &Path) -> Result<Vec<Row>, Error> {
    let log = log(STEPS);
    let stored: Vec<(String, String)> =
        log.iter().map(|e| (e.fact.event_type().to_owned(), e.fact.encode())).collect();
    let store = filed(&folder.join("fold.db"), &log)?;
    let broken = |e: String| Error::machine(format!("the log of the bench is broken: {e}"));
    let typed = rate(&|| WorkflowState::fold("w", &log).map_err(|e| broken(e.to_string())))?;
    let decoded = rate(&|| decoded(&log, &stored).map_err(broken))?;
    let filed = rate(&|| from_file(&*store).map_err(broken))?;
    Ok(vec![
        Row::new("fold", typed, "steps/s", "typed events in memory, each judged and applied"),
        Row::new("fold-json", decoded, "steps/s", "the same from their stored JSON"),
        Row::new("fold-file", filed, "steps/s", "the same from the file, the chain checked"),
    ])
}

/// Steps a second.
fn rate(fold: &dyn Fn() -> Result<WorkflowState, Error>) -> Result<f64, Error> {
    let (begun, mut steps) = (Instant::now(), 0.0);
    while begun.elapsed().as_secs_f64() < SECONDS / 2.0 {
        std::hint::black_box(fold()?);
        steps += STEPS as f64;
    }
    Ok(steps / begun.elapsed().as_secs_f64())
}

/// The log of a workflow of so many steps.
pub fn log(steps: u64) -> Vec<Event> {
    let dice = std::cell::Cell::new(7);
    let world = |_: &foldback::core::Key, _: &foldback::core::Step, _: u32| {
        let mut seed = dice.get();
        let output = Value::String(noise(&mut seed));
        dice.set(seed);
        Outcome::Completed { output, usage: None }
    };
    rehearse(&Code::new(sequence), "w", json!(steps), &world).events
}

fn decoded(log: &[Event], stored: &[(String, String)]) -> Result<WorkflowState, String> {
    let mut state = WorkflowState::empty("w");
    for (event, (event_type, payload)) in log.iter().zip(stored) {
        let fact = Fact::decode(event_type, 1, payload).map_err(|e| e.to_string())?;
        let event = Event { fact, actor: event.actor.clone(), ..*event };
        state.admits(&event).map_err(|e| e.to_string())?;
        state.apply(&event);
    }
    Ok(state)
}

/// A store that holds the log.
fn filed(path: &Path, log: &[Event]) -> Result<std::sync::Arc<dyn Store>, Error> {
    let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
    let ownership = store.acquire(0, "bench")?.ok_or_else(|| Error::machine("the bench file is taken"))?;
    let events = log.iter().map(new_event);
    let append = Append {
        workflow_id: "w".into(),
        expected: Expected::NoStream,
        events: events.collect(),
        begins: None,
        status: None,
    };
    let commit = Commit { epoch: ownership.epoch, appends: vec![append], ..Commit::default() };
    let (done, told) = std::sync::mpsc::channel();
    store.commit(commit, Box::new(move |result| drop(done.send(result))));
    let written = told.recv().map_err(|_| Error::machine("the writer is gone"))?;
    written.map_err(|e| Error::machine(format!("a commit failed: {e:?}")))?;
    Ok(store)
}

fn from_file(store: &dyn Store) -> Result<WorkflowState, String> {
    state_at(store, "w", None).map_err(|e| e.to_string())?.ok_or_else(|| "it is not there".to_owned())
}
