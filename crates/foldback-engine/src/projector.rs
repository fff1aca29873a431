//! The projector: reads the feed, lets the projections fold it, and writes their rows together with
//! the place they have read to. It runs beside the loop, as the shard's owner, and never before it:
//! a workflow does not wait for a view of it.
//!
//! Invariants: rows and checkpoint are one commit, compared and set under the owner's epoch, so each
//! event is in the rows exactly once, whoever dies when. A new version of a projection is made beside
//! the live one, under a name of its own, and takes its place in one commit: readers see one complete
//! version. One that fails stands still at the event, and says so; the others go on.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use foldback_core::Event;
use foldback_core::projection::{Projection, built_in};
use foldback_store::{Commit, CommitError, ProjectionFailure, ProjectionRow, Recorded, Store};
use foldback_store::{StoreError, StoreResult};

use crate::Programs;
use crate::load::{decode, fill_seen};
use table::Table;

mod orders;
mod table;

pub(crate) use orders::{Letter, is_order};
pub use orders::{Order, OrderAnswer, Ordered, unknown};

/// Events folded into one commit: many events of one workflow change its row once.
const PAGE: usize = 8_192;

/// How often the feed is looked at when it had nothing new.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long the owner waits, before it gives up the shard, for its views to be up to date.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// How long a projector that the store failed waits before it begins anew.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Projections of a user evaluate expressions, which need room on the stack.
const STACK_BYTES: usize = 16 * 1024 * 1024;

/// The projections of a shard, folded as its owner.
pub struct Projector {
    store: Arc<dyn Store>,
    programs: Arc<dyn Programs>,
    shard: u32,
    epoch: u64,
    tracks: Vec<Track>,
    /// Versions begun by this projector: part of the names under which their rows stand.
    serial: u64,
    /// Rows of versions that nobody refers to any more, under which names.
    strays: Vec<String>,
    /// The change counter when the inbox was looked at.
    inbox_seen: Option<u64>,
    page: usize,
}

/// A version of a projection, how far it has read, and the rows it touched lately.
struct Track {
    row: ProjectionRow,
    /// What folds it; `None` where this build cannot.
    projection: Option<Box<dyn Projection>>,
    at: u64,
    /// Whether there was nothing behind it when it last read.
    is_at_end: bool,
    table: Table,
}

impl Track {
    fn is_folded(&self) -> bool {
        self.projection.is_some() && self.row.failure.is_none()
    }
}

impl Projector {
    /// The projections of a shard that the caller owns under this epoch. Built-in ones that the store
    /// does not know yet, or knows in another version, are begun.
    ///
    /// # Errors
    /// When the store fails, or the shard has another owner.
    pub fn new(
        store: Arc<dyn Store>,
        programs: Arc<dyn Programs>,
        shard: u32,
        epoch: u64,
    ) -> StoreResult<Projector> {
        let (tracks, strays) = (Vec::new(), Vec::new());
        let mut projector = Projector {
            store,
            programs,
            shard,
            epoch,
            tracks,
            serial: 0,
            strays,
            inbox_seen: None,
            page: PAGE,
        };
        projector.register_built_in()?;
        projector.take_up()?;
        Ok(projector)
    }

    /// With another number of events to a page: for tests that stop it between two.
    #[doc(hidden)]
    pub fn with_page(self, page: usize) -> Projector {
        Projector { page, ..self }
    }

    fn register_built_in(&mut self) -> StoreResult<()> {
        let known = self.store.projections()?;
        let mut commit = self.commit();
        for projection in built_in() {
            let (name, version) = (projection.name(), projection.version());
            let mut versions: Vec<_> = known.iter().filter(|row| row.name == name).cloned().collect();
            if versions.iter().any(|row| row.version == version) {
                continue;
            }
            let is_first = versions.is_empty();
            versions.retain(|row| row.is_live);
            versions.push(ProjectionRow {
                name: name.to_owned(),
                is_live: is_first,
                version: version.to_owned(),
                source: String::new(),
                rows: if is_first { name.to_owned() } else { self.fresh_rows(name) },
                failure: None,
            });
            commit.projections.push((name.to_owned(), versions));
        }
        if commit.projections.is_empty() { Ok(()) } else { self.write(commit) }
    }

    /// Takes up what the registry says. What is folded already is kept.
    fn take_up(&mut self) -> StoreResult<()> {
        let mut before = std::mem::take(&mut self.tracks);
        for mut row in self.store.projections()? {
            if let Some(kept) = before.iter().position(|track| track.row.rows == row.rows) {
                let kept = before.swap_remove(kept);
                self.tracks.push(Track { row, ..kept });
                continue;
            }
            let at = self.store.checkpoint(self.shard, &row.rows)?;
            let projection = match self.make(&row) {
                Ok(projection) => {
                    // It was another build that could not fold it.
                    row.failure = row.failure.filter(|failure| failure.event.is_some());
                    projection
                }
                Err(message) => {
                    row.failure.get_or_insert(ProjectionFailure { message, event: None });
                    None
                }
            };
            let table = Table::new(self.store.clone(), self.shard, row.rows.clone(), at);
            self.tracks.push(Track { row, projection, at, is_at_end: false, table });
        }
        self.record_failures()?;
        self.strays = self.store.strays()?;
        Ok(())
    }

    /// What folds a version. Nothing where it is built in and of another version: that one stands still
    /// until ours, which is made beside it, takes its place.
    fn make(&self, row: &ProjectionRow) -> Result<Option<Box<dyn Projection>>, String> {
        if !row.source.is_empty() {
            return self.programs.projection(&row.source).map(Some);
        }
        Ok(built_in().into_iter().find(|one| one.name() == row.name && one.version() == row.version))
    }

    /// Writes into the registry what of it is another here.
    fn record_failures(&mut self) -> StoreResult<()> {
        let known = self.store.projections()?;
        let is_known = |track: &&Track| known.contains(&track.row);
        let mut commit = self.commit();
        for track in self.tracks.iter().filter(|track| !is_known(track)) {
            commit.projections.push((track.row.name.clone(), self.versions_of(&track.row.name)));
        }
        if commit.projections.is_empty() { Ok(()) } else { self.write(commit) }
    }

    fn versions_of(&self, name: &str) -> Vec<ProjectionRow> {
        self.tracks.iter().map(|track| &track.row).filter(|row| row.name == name).cloned().collect()
    }

    /// Folds what the feed has next, a page at most, and writes it. How much there was to do: 0 when
    /// the rows are up to date.
    ///
    /// # Errors
    /// When the store fails, or the shard has another owner: that one's projector goes on.
    pub fn step(&mut self) -> StoreResult<usize> {
        let mut done = self.take_orders()?;
        // What stands at one place reads one page together. Who is far behind, since it is made anew,
        // has pages of its own, so that nobody waits for it; the foremost come first.
        let folded = self.tracks.iter().filter(|track| track.is_folded());
        let places: BTreeSet<u64> = folded.map(|track| track.at).collect();
        for place in places.into_iter().rev() {
            done += self.fold(place)?;
        }
        Ok(done + self.exchange()? + self.let_go()?)
    }

    /// Folds one page for the tracks that stand at a place. How many events were read.
    fn fold(&mut self, from: u64) -> StoreResult<usize> {
        // Before the page: what is written between the two is in the next one.
        let head = self.store.head(self.shard)?;
        let page = self.store.feed(self.shard, from, self.page)?;
        // Behind the last event nothing may come any more: its workflow was pruned.
        let is_last = page.len() < self.page;
        let end = if is_last { head } else { 0 };
        let mut page: Vec<Seen> = page.into_iter().map(Seen::new).collect();
        let mut commit = self.commit();
        let mut failed = Vec::new();
        for track in self.tracks.iter_mut().filter(|track| track.at == from && track.is_folded()) {
            match fold_page(&*self.store, track, &mut page) {
                true => failed.push(track.row.name.clone()),
                false => track.at = track.at.max(end),
            }
            track.is_at_end = is_last && track.row.failure.is_none();
            track.table.hand_over(&mut commit)?;
            if track.at != from {
                commit.checkpoints.push((track.table.name.clone(), from, track.at));
            }
        }
        for name in failed {
            let versions = self.versions_of(&name);
            commit.projections.push((name, versions));
        }
        if !commit.checkpoints.is_empty() || !commit.projections.is_empty() {
            self.write(commit)?;
        }
        Ok(page.len())
    }

    /// Puts versions that were made beside the live ones, and have read all, into their place. How many.
    fn exchange(&mut self) -> StoreResult<usize> {
        let mut commit = self.commit();
        let is_whole = |track: &&Track| !track.row.is_live && track.is_at_end && track.is_folded();
        for track in self.tracks.iter().filter(is_whole) {
            let row = ProjectionRow { is_live: true, ..track.row.clone() };
            // Under its checkpoint: nobody else has folded it meanwhile.
            commit.checkpoints.push((row.rows.clone(), track.at, track.at));
            commit.projections.push((row.name.clone(), vec![row]));
        }
        let exchanged = commit.projections.len();
        if exchanged > 0 {
            self.write(commit)?;
            self.take_up()?;
        }
        Ok(exchanged)
    }

    /// Lets go of a page of rows that nobody refers to. How many names had some.
    fn let_go(&mut self) -> StoreResult<usize> {
        let Some(rows) = self.strays.last().cloned() else { return Ok(0) };
        if self.store.row_count(&rows)? < self.page as u64 {
            self.strays.pop();
        }
        let mut commit = self.commit();
        commit.let_go = vec![(rows, self.page)];
        self.write(commit)?;
        Ok(1)
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

/// An event of the feed, decoded once for all who look at it.
struct Seen {
    recorded: Recorded,
    /// `None` inside: this build cannot read it. It is in no row; its workflow is quarantined, which
    /// `list` and `audit` say.
    event: Option<Option<Event>>,
}

impl Seen {
    fn new(recorded: Recorded) -> Seen {
        Seen { recorded, event: None }
    }

    fn event(&mut self) -> Option<&Event> {
        let Seen { recorded, event } = self;
        event.get_or_insert_with(|| decode(recorded).ok()).as_ref()
    }
}

/// Folds a page, up to its end or to the event at which the projection fails; whether it failed.
fn fold_page(store: &dyn Store, track: &mut Track, page: &mut [Seen]) -> bool {
    let Track { row, projection: Some(projection), at, table, .. } = track else { return false };
    let begun = *at;
    for seen in page.iter_mut().filter(|seen| seen.recorded.position > begun) {
        let show = AssertUnwindSafe(|| show(store, &mut **projection, seen, table));
        let shown = catch_unwind(show).unwrap_or_else(|_| Err("it panicked".to_owned()));
        if let Err(message) = shown {
            let event = Some((seen.recorded.workflow_id.clone(), seen.recorded.version));
            row.failure = Some(ProjectionFailure { message, event });
            return true;
        }
        *at = seen.recorded.position;
    }
    false
}

fn show(
    store: &dyn Store,
    projection: &mut dyn Projection,
    seen: &mut Seen,
    table: &mut Table,
) -> Result<(), String> {
    if !projection.wants(&seen.recorded.event.event_type) {
        return Ok(());
    }
    let workflow_id = seen.recorded.workflow_id.clone();
    let Some(event) = seen.event() else { return Ok(()) };
    if !projection.needs_values() {
        return projection.see(&workflow_id, event, table);
    }
    // Of its own, so that a page of long values is not in memory at once.
    let mut event = event.clone();
    for slot in event.fact.slots_mut() {
        fill_seen(store, slot).map_err(|e| e.to_string())?;
    }
    projection.see(&workflow_id, &event, table)
}

/// A projector on a thread of its own, until it is told to finish.
pub struct Projecting {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Projecting {
    /// Begins. Where the store fails, the rows stay as of the last commit, and a projector begins anew
    /// there, here or at the next owner.
    pub fn begin(store: Arc<dyn Store>, programs: Arc<dyn Programs>, shard: u32, epoch: u64) -> Projecting {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let work = move || {
            while let Err(_told_by_the_loop) = Projector::new(store.clone(), programs.clone(), shard, epoch)
                .and_then(|one| follow(one, &told))
            {
                if told.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::park_timeout(AGAIN_AFTER);
            }
        };
        let thread = Builder::new().name("foldback-projector".into()).stack_size(STACK_BYTES).spawn(work);
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
