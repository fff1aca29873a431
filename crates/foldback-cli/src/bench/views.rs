//! Rows of the views: how fast projections catch up with a log, and how long a list of many workflows
//! takes. The logs are written in few large commits: it is not the writing that is measured.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use foldback::core::{Event, EventId};
use foldback::engine::new_event;
use foldback::engine::projections::catch_up;
use foldback::engine::projector::Projector;
use foldback::store::{Append, Commit, Expected, Filter, NewEvent, NewWorkflow, Store};

use super::engine::views_alone;
use super::{Row, TURNS, fold, mean};
use crate::error::Error;
use crate::list;

/// Workflows of ten steps whose log is caught up with: 220,000 events.
const CAUGHT_UP: usize = 10_000;

/// Workflows that are listed, each of one event.
const LISTED: usize = 1_000_000;

/// Workflows that a list shows, as the command does unless told otherwise.
const SHOWN: usize = 50;

/// Lists that are timed for each status.
const LISTS: usize = 200;

/// One in so many workflows has each status but the last, which all others have.
const STATUSES: [(&str, usize); 4] =
    [("unknown", 100_000), ("waiting", 1_000), ("failed", 10), ("completed", 1)];

/// `catch-up`.
pub fn caught_up(folder: &Path) -> Result<Vec<Row>, Error> {
    let mut rates = Vec::new();
    for turn in 0..TURNS {
        let filled = Filled::new(&folder.join(format!("views{turn}.db")))?;
        let log = fold::log(10);
        filled.write(CAUGHT_UP, 500, &|_| (log.clone(), "completed"))?;
        let mut projector = Projector::new(filled.store.clone(), views_alone(), 0, filled.epoch)?;
        let begun = Instant::now();
        while projector.step()? > 0 {}
        rates.push((CAUGHT_UP * log.len()) as f64 / begun.elapsed().as_secs_f64());
    }
    let note = "the built-in projections, from a file of workflows of ten steps, rows and places on disk";
    Ok(vec![Row::new("catch-up", mean(&rates), "events/s", note)])
}

/// `list`.
pub fn listed(folder: &Path) -> Result<Vec<Row>, Error> {
    let filled = Filled::new(&folder.join("list.db"))?;
    let log = &fold::log(1)[..1];
    let status = |i: usize| {
        STATUSES.iter().find(|(_, each)| i.is_multiple_of(*each)).map_or("completed", |(status, _)| status)
    };
    filled.write(LISTED, 10_000, &|i| (log.to_vec(), status(i)))?;
    let mut projector = Projector::new(filled.store.clone(), views_alone(), 0, filled.epoch)?;
    while projector.step()? > 0 {}
    let Filled { store, _ownership, .. } = filled;
    drop(_ownership);
    let mut worst = (0.0, "");
    for (status, _) in STATUSES {
        let filter = Filter { status: Some(status.to_owned()), limit: SHOWN, ..Filter::default() };
        let mut times = Vec::new();
        for _ in 0..LISTS {
            let begun = Instant::now();
            let behind = catch_up(&store, &views_alone(), "bench", "workflows", Duration::from_secs(1))?;
            let rows = list::with_figures(&*store, &filter)?;
            times.push(begun.elapsed().as_secs_f64());
            if behind.is_err() || rows.is_empty() || rows.iter().any(|(_, figures)| figures.is_null()) {
                return Err(Error::machine(format!("the list of {status} is not what it should be")));
            }
        }
        times.sort_by(f64::total_cmp);
        let p99 = times[LISTS * 99 / 100];
        worst = if p99 > worst.0 { (p99, status) } else { worst };
    }
    let (seconds, status) = worst;
    let note = format!(
        "the newest {SHOWN} by status out of {LISTED} workflows, with their figures; p99 of the worst status, {status}: {:.2} ms",
        seconds * 1e3
    );
    Ok(vec![Row::new("list", 1.0 / seconds, "1/s", note)])
}

/// A store that a bench fills and owns.
struct Filled {
    store: Arc<dyn Store>,
    epoch: u64,
    _ownership: foldback::store::Ownership,
}

impl Filled {
    fn new(path: &Path) -> Result<Filled, Error> {
        let store = foldback::store::open(&format!("sqlite:{}", path.display()))?;
        let ownership =
            store.acquire(0, "bench")?.ok_or_else(|| Error::machine("the bench file is taken"))?;
        Ok(Filled { store, epoch: ownership.epoch, _ownership: ownership })
    }

    /// Writes so many workflows, so many of them in a commit.
    fn write(
        &self,
        count: usize,
        together: usize,
        workflow: &dyn Fn(usize) -> (Vec<Event>, &'static str),
    ) -> Result<(), Error> {
        let (done, told) = channel();
        for from in (0..count).step_by(together) {
            let appends = (from..count.min(from + together)).map(|i| {
                let (events, status) = workflow(i);
                append(i, &events, status)
            });
            let commit = Commit { epoch: self.epoch, appends: appends.collect(), ..Commit::default() };
            let done = done.clone();
            self.store.commit(commit, Box::new(move |result| drop(done.send(result.map(drop)))));
            let written = told.recv().map_err(|_| Error::machine("the writer is gone"))?;
            written.map_err(|e| Error::machine(format!("a commit failed: {e:?}")))?;
        }
        Ok(())
    }
}

fn append(i: usize, events: &[Event], status: &'static str) -> Append {
    let own = |event: &Event| {
        let mut id = EventId(event.id.0);
        id.0[..8].copy_from_slice(&(i as u64).to_be_bytes());
        NewEvent { id, ..new_event(event) }
    };
    let events: Vec<NewEvent> = events.iter().map(own).collect();
    let begins = NewWorkflow { name: format!("bench {}", i % 10), ..NewWorkflow::default() };
    Append {
        workflow_id: format!("w{i:07}").into(),
        expected: Expected::NoStream,
        events,
        begins: Some(begins),
        status: Some(status),
    }
}
