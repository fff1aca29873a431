//! The disk of the simulation: a real store, and in front of it, for each process, a shelf on which
//! commits wait until the simulation writes them, refuses them, or lets them go down with their
//! process. It also knows what is durable, event by event, so that what leaves too early is seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldback::core::value::Payload;
use foldback::core::{EventId, Fact, Hash, Version};
use foldback::store::*;
use serde_json::Value;

use crate::journal::{Journal, Mark};

/// What is on disk, as the simulation knows it from the acknowledgements of the real store.
#[derive(Default)]
pub struct Durable {
    /// The last version of each workflow, and its hash.
    pub heads: BTreeMap<Arc<str>, (Version, Hash)>,
    /// Every append that was acknowledged: workflow, last version, hash there.
    pub acknowledged: Vec<(Arc<str>, Version, Hash)>,
    /// Attempts whose start was ever durable: workflow, key, attempt.
    pub started: BTreeSet<(Arc<str>, String, u32)>,
    /// Writes of which it was ever durable that they may be performed.
    pub released: BTreeSet<(Arc<str>, String)>,
    /// What stands of the steps.
    pub steps: Journal,
    /// Workflows that are forks.
    pub forks: BTreeSet<Arc<str>>,
    /// The position given out last.
    pub position: u64,
    /// What should not have been.
    pub wrong: Vec<String>,
}

impl Durable {
    fn take(&mut self, commit: &Commit, appended: &[Appended]) {
        for (append, result) in commit.appends.iter().zip(appended) {
            let id = &append.workflow_id;
            if append.events.is_empty() {
                continue;
            }
            let position = self.position + append.events.len() as u64;
            if result.position != position {
                self.wrong.push(format!("{id}: position {} after {}", result.position, self.position));
            }
            self.position = result.position;
            let before = self.heads.get(id).map_or_else(|| cut_of(append), |head| head.0);
            if result.first != before + 1 || result.last + 1 - result.first != append.events.len() as u64 {
                self.wrong.push(format!("{id}: versions {}..{} after {before}", result.first, result.last));
            }
            self.heads.insert(id.clone(), (result.last, result.hash));
            self.acknowledged.push((id.clone(), result.last, result.hash));
            for (event, version) in append.events.iter().zip(result.first..) {
                self.event(id, version, event);
            }
        }
    }

    fn event(&mut self, id: &Arc<str>, version: Version, event: &NewEvent) {
        if !Mark::TYPES.contains(&&*event.event_type) {
            return;
        }
        let fact = match Fact::decode(&event.event_type, event.schema_version, &event.payload) {
            Ok(fact) => fact,
            Err(error) => return self.wrong.push(format!("{id}: {error}")),
        };
        let Some(mark) = Mark::of(&fact) else { return };
        match &mark {
            Mark::Forked(..) => drop(self.forks.insert(id.clone())),
            Mark::Released(key) => drop(self.released.insert((id.clone(), key.clone()))),
            _ => {}
        }
        let begun = match &mark {
            Mark::Asked(key, true) | Mark::Started(key, _) => Some(key.clone()),
            _ => None,
        };
        self.wrong.extend(self.steps.take(id, version, mark));
        if let Some(key) = begun {
            let attempt = self.steps.attempts(id, &key);
            self.started.insert((id.clone(), key, attempt));
        }
    }
}

/// The version behind which a fork's own events begin; 0 for one that is no fork.
fn cut_of(append: &Append) -> Version {
    let first = append.events.first().filter(|event| &*event.event_type == "WorkflowForked");
    let fact = first.and_then(|e| Fact::decode(&e.event_type, e.schema_version, &e.payload).ok());
    match fact {
        Some(Fact::WorkflowForked(forked)) => forked.lineage.cut,
        _ => 0,
    }
}

/// The real store, and what is known to be in it.
pub struct Disk {
    pub store: Arc<dyn Store>,
    durable: Mutex<Durable>,
}

impl Disk {
    pub fn new(store: Arc<dyn Store>) -> Arc<Disk> {
        Arc::new(Disk { store, durable: Mutex::default() })
    }

    pub fn durable(&self) -> MutexGuard<'_, Durable> {
        lock(&self.durable)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Outcome = Result<Vec<Appended>, CommitError>;

#[derive(Default)]
struct Waiting {
    /// Queued by the engine, not written.
    queued: VecDeque<(Commit, Done)>,
    /// Written or refused; the engine has not been told.
    untold: VecDeque<(Arc<str>, Outcome, Done)>,
    /// Workflows of which the engine was told that something is on disk.
    told: BTreeSet<Arc<str>>,
    /// Whether the engine was told of what it must not survive.
    told_its_end: bool,
    /// After an error of the disk nothing is written any more.
    broken: Option<StoreError>,
}

/// What a read says that fails.
pub const BAD_READ: &str = "simulated: bad read";

/// One process's way to the disk. The process's death takes with it what is not written.
pub struct Shelf {
    disk: Arc<Disk>,
    waiting: Mutex<Waiting>,
    /// So many of the next reads fail,
    pub bad_reads: AtomicU32,
    /// behind so many that do not.
    pub good_reads: AtomicU32,
}

impl Shelf {
    pub fn new(disk: &Arc<Disk>) -> Arc<Shelf> {
        Arc::new(Shelf {
            disk: disk.clone(),
            waiting: Mutex::default(),
            bad_reads: AtomicU32::new(0),
            good_reads: AtomicU32::new(0),
        })
    }

    /// Commits not written, and ones that the engine has not been told of.
    pub fn waiting(&self) -> (usize, usize) {
        let waiting = lock(&self.waiting);
        (waiting.queued.len(), waiting.untold.len())
    }

    /// Writes the next commits, in one group. Says how many the store refused as of a stale epoch.
    pub fn write(&self, most: usize) -> usize {
        let mut waiting = lock(&self.waiting);
        let count = most.min(waiting.queued.len());
        let group: Vec<_> = waiting.queued.drain(..count).collect();
        if let Some(error) = waiting.broken.clone() {
            waiting.untold.extend(group.into_iter().map(|(c, done)| (subject(&c), failed(&error), done)));
            return 0;
        }
        let written = self.submit(group);
        let is_stale = |outcome: &Outcome| matches!(outcome, Err(CommitError::StaleEpoch { .. }));
        let stale = written.iter().filter(|(_, outcome, _)| is_stale(outcome)).count();
        waiting.untold.extend(written);
        stale
    }

    fn submit(&self, group: Vec<(Commit, Done)>) -> Vec<(Arc<str>, Outcome, Done)> {
        let (say, told) = channel();
        let mut dones = Vec::with_capacity(group.len());
        for (commit, done) in group {
            let (say, kept) = (say.clone(), commit.clone());
            let done_there = Box::new(move |outcome| drop(say.send((kept, outcome))));
            self.disk.store.commit(commit, done_there);
            dones.push(done);
        }
        drop(say);
        let mut durable = self.disk.durable();
        let outcomes = told.into_iter().map(|(commit, outcome): (Commit, Outcome)| {
            if let Ok(appended) = &outcome {
                durable.take(&commit, appended);
            }
            (subject(&commit), outcome)
        });
        outcomes.zip(dones).map(|((subject, outcome), done)| (subject, outcome, done)).collect()
    }

    /// Whether the engine was told that anything of a workflow is on disk.
    pub fn has_told_of(&self, workflow_id: &str) -> bool {
        lock(&self.waiting).told.contains(workflow_id)
    }

    /// Whether the engine was told of what it must not survive.
    pub fn told_its_end(&self) -> bool {
        lock(&self.waiting).told_its_end
    }

    /// Tells the engine what became of its oldest commits, in their order.
    pub fn tell(&self, most: usize) {
        for _ in 0..most {
            let mut waiting = lock(&self.waiting);
            let Some((subject, outcome, done)) = waiting.untold.pop_front() else { return };
            match &outcome {
                Ok(_) => drop(waiting.told.insert(subject)),
                Err(CommitError::StaleEpoch { .. } | CommitError::Failed(_)) => waiting.told_its_end = true,
                Err(_) => {}
            }
            drop(waiting);
            done(outcome);
        }
    }

    /// The next commit fails alone, as one does whose log is not where it was expected. What is
    /// queued behind it for the same workflow then fails by itself.
    pub fn refuse(&self) {
        let mut waiting = lock(&self.waiting);
        let Some((commit, done)) = waiting.queued.pop_front() else { return };
        let Some(append) = commit.appends.first() else {
            return waiting.queued.push_front((commit, done));
        };
        let workflow_id = append.workflow_id.clone();
        let actual = self.disk.durable().heads.get(&workflow_id).map_or(0, |head| head.0);
        let refused = Err(CommitError::Conflict { workflow_id: workflow_id.clone(), actual });
        waiting.untold.push_back((workflow_id, refused, done));
    }

    /// The disk fails under the next commit, which may or may not be on it; nothing is written after.
    pub fn break_down(&self, landed: bool) {
        let mut waiting = lock(&self.waiting);
        let Some(next) = waiting.queued.pop_front() else { return };
        let error =
            StoreError { message: "simulated: no space left on device".into(), hint: None, is_input: false };
        if landed && waiting.broken.is_none() {
            for (subject, _, done) in self.submit(vec![next]) {
                waiting.untold.push_back((subject, failed(&error), done));
            }
        } else {
            waiting.untold.push_back((subject(&next.0), failed(&error), next.1));
        }
        waiting.broken = Some(error);
    }

    /// The real store, unless a read is to fail now.
    fn reading(&self) -> StoreResult<&dyn Store> {
        let takes_one = |left: &AtomicU32| {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok()
        };
        if !takes_one(&self.good_reads) && takes_one(&self.bad_reads) {
            return Err(StoreError { message: BAD_READ.into(), hint: None, is_input: false });
        }
        Ok(&*self.disk.store)
    }
}

/// The workflow that a commit adds to; nobody's where it adds none.
fn subject(commit: &Commit) -> Arc<str> {
    commit.appends.first().map_or_else(|| Arc::from(""), |append| append.workflow_id.clone())
}

fn failed(error: &StoreError) -> Outcome {
    Err(CommitError::Failed(error.clone()))
}

impl Store for Shelf {
    fn commit(&self, commit: Commit, done: Done) {
        lock(&self.waiting).queued.push_back((commit, done));
    }
    fn read(&self, workflow_id: &str, after: Version, limit: usize) -> StoreResult<Vec<Recorded>> {
        self.reading()?.read(workflow_id, after, limit)
    }
    fn feed(&self, shard: u32, after: u64, limit: usize) -> StoreResult<Vec<Recorded>> {
        self.reading()?.feed(shard, after, limit)
    }
    fn payload(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Payload>> {
        self.reading()?.payload(shard, hash)
    }
    fn definition(&self, hash: &Hash) -> StoreResult<Option<Definition>> {
        self.reading()?.definition(hash)
    }
    fn workflow(&self, workflow_id: &str) -> StoreResult<Option<WorkflowRow>> {
        self.reading()?.workflow(workflow_id)
    }
    fn workflows(&self, filter: &Filter) -> StoreResult<Vec<WorkflowRow>> {
        self.reading()?.workflows(filter)
    }
    fn snapshot(&self, workflow_id: &str, at_most: Version) -> StoreResult<Option<Snapshot>> {
        self.reading()?.snapshot(workflow_id, at_most)
    }
    fn projection(&self, projection: &str) -> StoreResult<Vec<(String, Value)>> {
        self.reading()?.projection(projection)
    }
    fn projection_row(&self, shard: u32, projection: &str, key: &str) -> StoreResult<Option<Value>> {
        self.reading()?.projection_row(shard, projection, key)
    }
    fn checkpoint(&self, shard: u32, projection: &str) -> StoreResult<u64> {
        self.reading()?.checkpoint(shard, projection)
    }
    fn identity(&self) -> &str {
        self.disk.store.identity()
    }
    fn acquire(&self, shard: u32, owner: &str) -> StoreResult<Option<Ownership>> {
        self.disk.store.acquire(shard, owner)
    }
    fn supplied(&self, id: &EventId) -> StoreResult<Option<Version>> {
        self.disk.store.supplied(id)
    }
    fn is_owned(&self, shard: u32) -> StoreResult<Option<bool>> {
        self.disk.store.is_owned(shard)
    }
    fn send(&self, command: InboxCommand) -> StoreResult<()> {
        self.disk.store.send(command)
    }
    fn commands(&self, shard: u32) -> StoreResult<Vec<InboxCommand>> {
        self.disk.store.commands(shard)
    }
    fn listeners(&self, shard: u32, name: &str) -> StoreResult<Vec<Arc<str>>> {
        self.reading()?.listeners(shard, name)
    }
    fn listens(&self, workflow_id: &str) -> StoreResult<Vec<Arc<str>>> {
        self.reading()?.listens(workflow_id)
    }
    fn answer(&self, command_id: &str) -> StoreResult<Option<Value>> {
        self.disk.store.answer(command_id)
    }
    fn change_counter(&self) -> StoreResult<u64> {
        self.disk.store.change_counter()
    }
    fn check(&self) -> StoreResult<Vec<String>> {
        self.disk.store.check()
    }
}

/// Nothing is forgotten in a simulation; what is asked for goes to the real store.
impl Forget for Shelf {
    fn erase(&self, erasure: &Erasure) -> Result<Tombstone, NotForgotten> {
        self.disk.store.erase(erasure)
    }
    fn tombstone(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Tombstone>> {
        self.disk.store.tombstone(shard, hash)
    }
    fn prune(&self, pruning: &Pruning) -> Result<Pruned, NotForgotten> {
        self.disk.store.prune(pruning)
    }
    fn pruned(&self, workflow_id: &str) -> StoreResult<Option<Pruned>> {
        self.disk.store.pruned(workflow_id)
    }
    fn sweep(&self, shard: u32, epoch: u64) -> Result<Swept, NotForgotten> {
        self.disk.store.sweep(shard, epoch)
    }
}

impl Projected for Shelf {
    fn projections(&self) -> StoreResult<Vec<ProjectionRow>> {
        self.disk.store.projections()
    }
    fn row_count(&self, rows: &str) -> StoreResult<u64> {
        self.disk.store.row_count(rows)
    }
    fn strays(&self) -> StoreResult<Vec<String>> {
        self.disk.store.strays()
    }
    fn head(&self, shard: u32) -> StoreResult<u64> {
        self.disk.store.head(shard)
    }
}
