//! The projector: reads the feed, lets the projections fold it, and writes their rows together with
//! the place they have read to. It runs beside the loop, as the shard's owner, and never before it:
//! a workflow does not wait for a view of it.
//!
//! Invariant: rows and checkpoint are one commit, compared and set under the owner's epoch. So each
//! event is in the rows exactly once, whoever dies when.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use foldback_core::projection::{Projection, Rows, built_in};
use foldback_store::{Commit, CommitError, Store, StoreError, StoreResult};
use serde_json::Value;

use crate::load::decode;

/// Events folded into one commit: many events of one workflow change its row once.
const PAGE: usize = 8_192;

/// Rows kept in memory, of each projection, so that a busy one is not read again for each page.
const KEPT_ROWS: usize = 20_000;

/// How often the feed is looked at when it had nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long the owner waits, before it gives up the shard, for its views to be up to date.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// The projections of a shard, folded as its owner.
pub struct Projector {
    store: Arc<dyn Store>,
    shard: u32,
    epoch: u64,
    kept: Vec<Kept>,
}

/// A projection, how far it has read, and the rows it touched lately.
struct Kept {
    projection: Box<dyn Projection>,
    at: u64,
    table: Table,
}

struct Table {
    store: Arc<dyn Store>,
    shard: u32,
    name: String,
    rows: HashMap<String, Row>,
    failed: Option<StoreError>,
}

#[derive(Default)]
struct Row {
    value: Value,
    is_changed: bool,
}

impl Projector {
    /// The built-in projections of a shard that the caller owns under this epoch.
    ///
    /// # Errors
    /// When the store fails.
    pub fn new(store: Arc<dyn Store>, shard: u32, epoch: u64) -> StoreResult<Projector> {
        let mut projector = Projector { store, shard, epoch, kept: Vec::new() };
        for projection in built_in() {
            let table = Table {
                store: projector.store.clone(),
                shard,
                name: projection.name().to_owned(),
                rows: HashMap::new(),
                failed: None,
            };
            let at = projector.store.checkpoint(shard, &table.name)?;
            projector.kept.push(Kept { projection, at, table });
        }
        Ok(projector)
    }

    /// Folds what the feed has next, one page at most, and writes it. How many events that were: 0
    /// when the rows are up to date.
    ///
    /// # Errors
    /// When the store fails, or the shard has another owner: that one's projector goes on.
    pub fn step(&mut self) -> StoreResult<usize> {
        let from = self.kept.iter().map(|kept| kept.at).min().unwrap_or(u64::MAX);
        let page = self.store.feed(self.shard, from, PAGE)?;
        let Some(last) = page.last().map(|recorded| recorded.position) else { return Ok(0) };
        for recorded in &page {
            // What this build cannot read is in no row; its workflow is quarantined, which `list` and
            // `audit` say.
            let Ok(event) = decode(recorded) else { continue };
            for kept in self.kept.iter_mut().filter(|kept| kept.at < recorded.position) {
                kept.projection.see(&recorded.workflow_id, &event, &mut kept.table);
            }
        }
        let mut commit = Commit { shard: self.shard, epoch: self.epoch, ..Commit::default() };
        for kept in &mut self.kept {
            kept.table.hand_over(&mut commit)?;
            commit.checkpoints.push((kept.table.name.clone(), kept.at, last.max(kept.at)));
            kept.at = last.max(kept.at);
        }
        self.write(commit)?;
        Ok(page.len())
    }

    fn write(&self, commit: Commit) -> StoreResult<()> {
        let (done, told) = channel();
        self.store.commit(commit, Box::new(move |result| drop(done.send(result))));
        let lost = |message: String| StoreError { message, hint: None, is_input: false };
        match told.recv().map_err(|_| lost("the store's writer is gone".into()))? {
            Ok(_) => Ok(()),
            Err(CommitError::Failed(error)) => Err(error),
            Err(other) => Err(lost(format!("the projections stopped: {other:?}"))),
        }
    }
}

impl Rows for Table {
    fn change(&mut self, key: &str, how: &mut dyn FnMut(&mut Value)) {
        if !self.rows.contains_key(key) {
            let value = self.store.projection_row(self.shard, &self.name, key).unwrap_or_else(|error| {
                self.failed.get_or_insert(error);
                None
            });
            self.rows.insert(key.to_owned(), Row { value: value.unwrap_or_default(), is_changed: false });
        }
        if let Some(row) = self.rows.get_mut(key) {
            how(&mut row.value);
            row.is_changed = true;
        }
    }
}

impl Table {
    /// Adds the changed rows to a commit.
    fn hand_over(&mut self, commit: &mut Commit) -> StoreResult<()> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        for (key, row) in self.rows.iter_mut().filter(|(_, row)| row.is_changed) {
            row.is_changed = false;
            commit.projection_rows.push((self.name.clone(), key.clone(), Some(row.value.clone())));
        }
        if self.rows.len() > KEPT_ROWS {
            self.rows.clear();
        }
        Ok(())
    }
}

/// A projector on a thread of its own, until it is told to finish.
pub struct Projecting {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Projecting {
    /// Begins. A projector that fails ends: the rows stay as of its last commit, and the next owner's
    /// goes on from there. What made it fail stops the loop too, and is told there.
    pub fn begin(store: Arc<dyn Store>, shard: u32, epoch: u64) -> Projecting {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = Builder::new().name("foldback-projector".into()).spawn(move || {
            let _told_by_the_loop = Projector::new(store, shard, epoch).and_then(|one| follow(one, &told));
        });
        Projecting { stop, thread: thread.ok() }
    }

    /// Lets it catch up, a second at most, and ends it.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _panicked = thread.join();
        }
    }
}

fn follow(mut projector: Projector, stop: &AtomicBool) -> StoreResult<()> {
    let mut seen = None;
    let mut give_up = None;
    loop {
        if stop.load(Ordering::Relaxed) {
            let until = *give_up.get_or_insert_with(|| Instant::now() + FINISH_WITHIN);
            if projector.step()? == 0 || Instant::now() > until {
                return Ok(());
            }
            continue;
        }
        let changes = Some(projector.store.change_counter()?);
        if changes == seen || projector.step()? == 0 {
            seen = changes;
            std::thread::park_timeout(LOOK_EVERY);
        }
    }
}
