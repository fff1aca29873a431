//! A store in memory: the short reference, and what tests run on.
//!
//! It keeps every promise of the contract but the one about the disk. What it does is written to
//! be read, not to be fast.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use foldback_core::value::Payload;
use foldback_core::{EventId, Hash, Version};
use serde_json::Value;

use crate::contract::*;
use crate::filter;
use crate::forgetting::{Pruned, Tombstone, density};
use crate::judge::{self, Counters, Hashed, Head, Past, Ruling, Written};
use crate::projections::{Projected, ProjectionRow, projection_of};

mod forgetting;

/// The store.
pub(crate) struct Memory {
    identity: String,
    inner: Mutex<Inner>,
    queue: Mutex<Queue>,
    is_owned: Arc<AtomicBool>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Commit, Done)>,
    /// Whether a thread is at work on the queue. Another only adds to it, so that `done` is called
    /// in order, and may itself queue a commit.
    is_served: bool,
}

#[derive(Default)]
struct Inner {
    epoch: u64,
    /// By position.
    log: BTreeMap<u64, Recorded>,
    /// By number.
    workflows: BTreeMap<u64, Stream>,
    /// What was given out last.
    counters: Counters,
    pruned: BTreeMap<Arc<str>, Pruned>,
    tombstones: BTreeMap<Hash, Tombstone>,
    numbers: BTreeMap<Arc<str>, u64>,
    supplied: BTreeMap<EventId, (u64, Version)>,
    payloads: BTreeMap<Hash, Payload>,
    definitions: BTreeMap<Hash, Definition>,
    checkpoints: BTreeMap<String, u64>,
    rows: BTreeMap<(String, String), Value>,
    projections: BTreeMap<String, Vec<ProjectionRow>>,
    snapshots: BTreeMap<(Arc<str>, Version), Snapshot>,
    inbox: Vec<(InboxCommand, Option<Value>)>,
    /// Names that are listened for, each with the number of who does.
    listeners: BTreeSet<(Arc<str>, u64)>,
    changes: u64,
}

struct Stream {
    row: WorkflowRow,
    /// The positions of its own events.
    own: Vec<u64>,
}

impl Stream {
    /// The version that its own events start behind.
    fn cut(&self) -> Version {
        self.row.parent.as_ref().map_or(0, |(_, cut, _)| *cut)
    }
}

impl Memory {
    pub(crate) fn new() -> Memory {
        static STORES: AtomicU64 = AtomicU64::new(0);
        let nth = STORES.fetch_add(1, Ordering::Relaxed);
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let identity = format!("memory {} {started} {nth}", std::process::id());
        Memory { identity, inner: Mutex::default(), queue: Mutex::default(), is_owned: Arc::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn stream(&self, workflow_id: &str) -> Option<&Stream> {
        self.numbers.get(workflow_id).map(|n| &self.workflows[n])
    }

    fn event(&self, workflow_id: &str, version: Version) -> Option<&Recorded> {
        let mut stream = self.stream(workflow_id)?;
        while version <= stream.cut() {
            stream = self.stream(&stream.row.parent.as_ref()?.0)?;
        }
        let place = stream.own.get((version - stream.cut()).checked_sub(1)? as usize)?;
        self.log.get(place)
    }

    /// The name under which the rows stand that readers of a projection see.
    fn live<'a>(&'a self, projection: &'a str) -> &'a str {
        let versions = self.projections.get(projection).map_or(&[][..], Vec::as_slice);
        versions.iter().find(|version| version.is_live).map_or(projection, |live| &live.rows)
    }

    fn listeners(&self, name: &str) -> Vec<Arc<str>> {
        let of_name = self.listeners.range((Arc::from(name), 0)..).take_while(|(of, _)| **of == *name);
        of_name.filter_map(|(_, n)| self.workflows.get(n)).map(|s| s.row.workflow_id.clone()).collect()
    }

    fn send(&mut self, command: InboxCommand) {
        if !self.inbox.iter().any(|(known, _)| known.id == command.id) {
            self.inbox.push((command, None));
            self.changes += 1;
        }
    }

    fn let_go(&mut self, name: String, most: usize) {
        let keys: Vec<_> = self.rows.keys().filter(|(rows, _)| *rows == name).take(most).cloned().collect();
        for key in &keys {
            self.rows.remove(key);
        }
        if keys.len() < most {
            self.checkpoints.remove(&name);
        }
    }

    fn commit(&mut self, commit: Commit) -> Result<Vec<Appended>, CommitError> {
        if commit.shard != 0 || commit.epoch == 0 || commit.epoch != self.epoch {
            let actual = if commit.shard == 0 { self.epoch } else { 0 };
            return Err(CommitError::StaleEpoch { actual });
        }
        let mut ruling = Ruling::default();
        let hashed = Hashed::of(commit);
        judge::judge(&hashed, self, self.counters, &mut ruling).map_err(CommitError::Failed)??;
        Ok(self.write(hashed.commit, ruling))
    }

    fn write(&mut self, commit: Commit, ruling: Ruling) -> Vec<Appended> {
        self.counters = ruling.counters;
        let mut hashes = ruling.hashes.into_iter();
        for (append, placed) in commit.appends.into_iter().zip(ruling.placed) {
            let Some(placed) = placed else { continue };
            if placed.is_new {
                let begins = append.begins.unwrap_or_default();
                self.numbers.insert(append.workflow_id.clone(), placed.n);
                let stream = Stream {
                    row: WorkflowRow {
                        workflow_id: append.workflow_id.clone(),
                        shard: 0,
                        tenant: begins.tenant,
                        definition: begins.definition,
                        name: begins.name,
                        input_hash: begins.input_hash,
                        parent: begins.parent,
                        status: "running".into(),
                        version: 0,
                        started_at: append.events[0].timestamp,
                        wake_at: None,
                    },
                    own: Vec::new(),
                };
                self.workflows.insert(placed.n, stream);
            }
            let Some(stream) = self.workflows.get_mut(&placed.n) else { continue };
            let versions = placed.first_version..;
            let positions = placed.first_position..;
            for (((event, (payload_hash, hash)), version), position) in
                append.events.into_iter().zip(hashes.by_ref()).zip(versions).zip(positions)
            {
                if event.is_id_supplied {
                    self.supplied.insert(event.id, (placed.n, version));
                }
                stream.own.push(position);
                stream.row.version = version;
                let recorded = Recorded {
                    position,
                    workflow_id: append.workflow_id.clone(),
                    version,
                    event,
                    tenant: stream.row.tenant.as_str().into(),
                    payload_hash,
                    hash,
                };
                self.log.insert(position, recorded);
            }
            if let Some(status) = append.status {
                stream.row.status = status.into();
            }
        }
        for tombstone in commit.tombstones {
            self.tombstones.entry(tombstone.hash).or_insert(tombstone);
        }
        for payload in commit.payloads {
            self.payloads.entry(payload.hash).or_insert(payload);
        }
        for definition in commit.definitions {
            self.definitions.entry(definition.hash).or_insert(definition);
        }
        for ((_, at), n) in commit.wakeups.into_iter().zip(ruling.wakeups) {
            if let Some(stream) = self.workflows.get_mut(&n) {
                stream.row.wake_at = at;
            }
        }
        for emit in commit.emits {
            for workflow_id in self.listeners(&emit.name) {
                self.send(emit.to(&workflow_id, 0));
            }
        }
        for command in commit.sends {
            self.send(command);
        }
        for ((_, names), n) in commit.listens.into_iter().zip(ruling.listens) {
            self.listeners.retain(|(_, of)| *of != n);
            self.listeners.extend(names.into_iter().map(|name| (name, n)));
        }
        for (id, answer) in commit.consumed {
            if let Some(command) = self.inbox.iter_mut().find(|(command, _)| command.id == id) {
                command.0.body = Value::Null;
                command.1 = Some(answer);
            }
        }
        for (projection, _, after) in commit.checkpoints {
            self.checkpoints.insert(projection, after);
        }
        for (projection, key, value) in commit.projection_rows {
            match value {
                Some(value) => self.rows.insert((projection, key), value),
                None => self.rows.remove(&(projection, key)),
            };
        }
        for (name, versions) in commit.projections {
            match versions.is_empty() {
                true => self.projections.remove(&name),
                false => self.projections.insert(name, versions),
            };
        }
        for (name, most) in commit.let_go {
            self.let_go(name, most);
        }
        for snapshot in commit.snapshots {
            self.snapshots.insert((snapshot.workflow_id.clone(), snapshot.version), snapshot);
        }
        self.changes += 1;
        ruling.appended
    }
}

impl Past for Inner {
    fn head(&mut self, workflow_id: &Arc<str>) -> StoreResult<Option<Head>> {
        let Some(n) = self.numbers.get(workflow_id) else { return Ok(None) };
        let stream = &self.workflows[n];
        Ok(stream.own.last().map(|place| Head {
            n: *n,
            version: stream.row.version,
            hash: self.log[place].hash,
            tenant: stream.row.tenant.as_str().into(),
        }))
    }

    fn pruned(&mut self, workflow_id: &str) -> StoreResult<Option<Version>> {
        Ok(self.pruned.get(workflow_id).map(|pruned| pruned.versions.1))
    }

    fn hash_at(&mut self, workflow_id: &str, version: Version) -> StoreResult<Option<Hash>> {
        if version == 0 {
            return Ok(self.stream(workflow_id).map(|_| Hash::ZERO));
        }
        Ok(self.event(workflow_id, version).map(|recorded| recorded.hash))
    }

    fn supplied(&mut self, id: &EventId) -> StoreResult<Option<(u64, Version)>> {
        Ok(self.supplied.get(id).copied())
    }

    fn written(&mut self, n: u64, version: Version) -> StoreResult<Option<Written>> {
        let stream = &self.workflows[&n];
        let place = version.checked_sub(stream.cut() + 1).and_then(|i| stream.own.get(i as usize));
        Ok(place.map(|place| &self.log[place]).map(|recorded| Written {
            id: recorded.event.id,
            event_type: recorded.event.event_type.to_string(),
            payload: recorded.event.payload.clone(),
            position: recorded.position,
            hash: recorded.hash,
        }))
    }

    fn checkpoint(&mut self, projection: &str) -> StoreResult<u64> {
        Ok(self.checkpoints.get(projection).copied().unwrap_or(0))
    }

    fn is_open(&mut self, command_id: &str) -> StoreResult<bool> {
        Ok(self.inbox.iter().any(|(command, answer)| command.id == command_id && answer.is_none()))
    }
}

impl Store for Memory {
    fn commit(&self, commit: Commit, done: Done) {
        let mut queue = self.queue();
        queue.waiting.push_back((commit, done));
        if queue.is_served {
            return;
        }
        queue.is_served = true;
        while let Some((commit, done)) = queue.waiting.pop_front() {
            drop(queue);
            let result = self.inner().commit(commit);
            done(result);
            queue = self.queue();
        }
        queue.is_served = false;
    }

    fn read(&self, workflow_id: &str, after: Version, limit: usize) -> StoreResult<Vec<Recorded>> {
        let inner = self.inner();
        let last = inner.stream(workflow_id).map_or(0, |stream| stream.row.version);
        let events = (after + 1..=last).take(limit).filter_map(|v| inner.event(workflow_id, v));
        Ok(events.cloned().collect())
    }

    fn feed(&self, shard: u32, after: u64, limit: usize) -> StoreResult<Vec<Recorded>> {
        let inner = self.inner();
        let events = inner.log.range(after.saturating_add(1)..).filter(|_| shard == 0);
        Ok(events.take(limit).map(|(_, recorded)| recorded.clone()).collect())
    }

    fn payload(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Payload>> {
        Ok(self.inner().payloads.get(hash).filter(|_| shard == 0).cloned())
    }

    fn definition(&self, hash: &Hash) -> StoreResult<Option<Definition>> {
        Ok(self.inner().definitions.get(hash).cloned())
    }

    fn workflow(&self, workflow_id: &str) -> StoreResult<Option<WorkflowRow>> {
        Ok(self.inner().stream(workflow_id).map(|stream| stream.row.clone()))
    }

    fn workflows(&self, filter: &Filter) -> StoreResult<Vec<WorkflowRow>> {
        let limit = if filter.limit == 0 { usize::MAX } else { filter.limit };
        let inner = self.inner();
        let rows = inner.workflows.values().rev().map(|stream| &stream.row);
        Ok(rows.filter(|row| filter::passes(filter, row)).take(limit).cloned().collect())
    }

    fn snapshot(&self, workflow_id: &str, at_most: Version) -> StoreResult<Option<Snapshot>> {
        let key = |version| (Arc::<str>::from(workflow_id), version);
        let inner = self.inner();
        Ok(inner.snapshots.range(key(0)..=key(at_most)).next_back().map(|(_, s)| s.clone()))
    }

    fn projection(&self, projection: &str) -> StoreResult<Vec<(String, Value)>> {
        let inner = self.inner();
        let live = inner.live(projection);
        let rows = inner.rows.iter().filter(|((name, _), _)| name == live);
        Ok(rows.map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn projection_row(&self, shard: u32, projection: &str, key: &str) -> StoreResult<Option<Value>> {
        let inner = self.inner();
        let row = inner.rows.get(&(inner.live(projection).to_owned(), key.to_owned()));
        Ok(row.filter(|_| shard == 0).cloned())
    }

    fn checkpoint(&self, shard: u32, projection: &str) -> StoreResult<u64> {
        if shard == 0 { self.inner().checkpoint(projection) } else { Ok(0) }
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn acquire(&self, shard: u32, _owner: &str) -> StoreResult<Option<Ownership>> {
        if shard != 0 {
            return Err(filter::no_such_shard(shard));
        }
        if self.is_owned.swap(true, Ordering::SeqCst) {
            return Ok(None);
        }
        let mut inner = self.inner();
        inner.epoch += 1;
        Ok(Some(Ownership { epoch: inner.epoch, guard: Box::new(Held(self.is_owned.clone())) }))
    }

    fn supplied(&self, id: &EventId) -> StoreResult<Option<Version>> {
        Ok(self.inner().supplied.get(id).map(|(_, version)| *version))
    }

    fn is_owned(&self, shard: u32) -> StoreResult<Option<bool>> {
        Ok(Some(shard == 0 && self.is_owned.load(Ordering::SeqCst)))
    }

    fn send(&self, command: InboxCommand) -> StoreResult<()> {
        self.inner().send(command);
        Ok(())
    }

    fn commands(&self, shard: u32) -> StoreResult<Vec<InboxCommand>> {
        let inner = self.inner();
        let open = inner.inbox.iter().filter(|(c, answer)| c.shard == shard && answer.is_none());
        Ok(open.map(|(command, _)| command.clone()).collect())
    }

    fn listeners(&self, shard: u32, name: &str) -> StoreResult<Vec<Arc<str>>> {
        Ok(if shard == 0 { self.inner().listeners(name) } else { Vec::new() })
    }

    fn listens(&self, workflow_id: &str) -> StoreResult<Vec<Arc<str>>> {
        let inner = self.inner();
        let n = inner.numbers.get(workflow_id);
        let its = inner.listeners.iter().filter(|(_, of)| Some(of) == n);
        Ok(its.map(|(name, _)| name.clone()).collect())
    }

    fn answer(&self, command_id: &str) -> StoreResult<Option<Value>> {
        let inner = self.inner();
        let command = inner.inbox.iter().find(|(command, _)| command.id == command_id);
        Ok(command.and_then(|(_, answer)| answer.clone()))
    }

    fn change_counter(&self) -> StoreResult<u64> {
        Ok(self.inner().changes)
    }

    fn check(&self) -> StoreResult<Vec<String>> {
        let inner = self.inner();
        let pruned = inner.pruned.values().flat_map(|pruned| pruned.positions.clone()).collect();
        let positions = density(inner.counters.position, inner.log.keys().copied(), pruned);
        let positions = positions.into_iter().map(|problem| format!("shard 0: {problem}"));
        let payloads = inner.payloads.values().filter(|p| Hash::of_bytes(&p.bytes) != p.hash);
        let payloads = payloads.map(|p| format!("payload {}: its bytes do not match its hash", p.hash));
        let ahead = inner.checkpoints.iter().filter(|(_, at)| **at > inner.counters.position);
        let ahead = ahead.map(|(name, _)| format!("projection {name}: its checkpoint is ahead of the log"));
        Ok(positions.chain(payloads).chain(ahead).collect())
    }
}

impl Projected for Memory {
    fn projections(&self) -> StoreResult<Vec<ProjectionRow>> {
        let mut all: Vec<_> = self.inner().projections.values().flatten().cloned().collect();
        all.sort_by(|a, b| (&a.name, !a.is_live).cmp(&(&b.name, !b.is_live)));
        Ok(all)
    }

    fn row_count(&self, rows: &str) -> StoreResult<u64> {
        Ok(self.inner().rows.keys().filter(|(name, _)| name == rows).count() as u64)
    }

    fn strays(&self) -> StoreResult<Vec<String>> {
        let inner = self.inner();
        let is_stray = |rows: &&String| {
            let versions = inner.projections.get(projection_of(rows));
            versions.is_some_and(|versions| versions.iter().all(|version| version.rows != **rows))
        };
        Ok(inner.checkpoints.keys().filter(is_stray).cloned().collect())
    }

    fn head(&self, shard: u32) -> StoreResult<u64> {
        Ok(if shard == 0 { self.inner().counters.position } else { 0 })
    }
}

/// Ownership of the only shard, until it is dropped.
struct Held(Arc<AtomicBool>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
