//! Whether a commit may be written, and what it becomes: versions, positions, hashes.
//!
//! One law for every store, asked before the first byte of a commit is written, so that a refused
//! commit leaves no trace. It never writes. What lies behind it is seen through [`Past`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use foldback_core::{EventId, Hash, Version};

use crate::chain;
use crate::contract::{Append, Appended, Commit, CommitError, Expected, StoreError, StoreResult};

/// The end of a workflow's log.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The workflow's number: small, given in the order in which workflows begin.
    pub n: u64,
    /// Its last version.
    pub version: Version,
    /// The chain hash there.
    pub hash: Hash,
    /// Whose it is: a part of every hash, and the same for all events of a workflow.
    pub tenant: Arc<str>,
}

/// An event that is in the log, as far as a repeat is compared with it.
pub(crate) struct Written {
    pub id: EventId,
    pub event_type: String,
    pub payload: String,
    pub position: u64,
    pub hash: Hash,
}

/// What was written before, as the judge needs it. Everything of earlier commits is in it, also of
/// those in the same transaction.
pub(crate) trait Past {
    /// The end of a workflow's log; `None` when there is no such workflow.
    fn head(&mut self, workflow_id: &Arc<str>) -> StoreResult<Option<Head>>;
    /// The last version of a workflow that was pruned.
    fn pruned(&mut self, workflow_id: &str) -> StoreResult<Option<Version>>;
    /// The chain hash of a workflow at a version, also in a past that it shares.
    fn hash_at(&mut self, workflow_id: &str, version: Version) -> StoreResult<Option<Hash>>;
    /// Where an event with a supplied id stands: number of its workflow, version.
    fn supplied(&mut self, id: &EventId) -> StoreResult<Option<(u64, Version)>>;
    /// An event of a workflow's own.
    fn written(&mut self, n: u64, version: Version) -> StoreResult<Option<Written>>;
    /// Where a projection's checkpoint is.
    fn checkpoint(&mut self, projection: &str) -> StoreResult<u64>;
    /// Whether a command is there and waits for its answer.
    fn is_open(&mut self, command_id: &str) -> StoreResult<bool>;
}

/// The counters of a shard. They are stored, never derived, so that nothing is given out twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// The last position given.
    pub position: u64,
    /// The last workflow number given.
    pub workflows: u64,
}

/// Where the events of one append go.
#[derive(Debug)]
pub(crate) struct Placed {
    pub n: u64,
    /// Whether the workflow's row is to be made.
    pub is_new: bool,
    pub first_version: Version,
    pub first_position: u64,
}

/// A commit with the hashes that need nothing but itself. They are made before the queue, on the
/// thread of the caller, so that the one thread that writes does not pay for them.
pub(crate) struct Hashed {
    /// What the caller queued.
    pub commit: Commit,
    /// The payload hash of every event, in order.
    payload_hashes: Vec<Hash>,
    /// The first value that stands under a wrong address.
    wrong: Option<Hash>,
}

impl Hashed {
    /// Hashes a commit.
    pub fn of(commit: Commit) -> Hashed {
        let events = commit.appends.iter().flat_map(|append| &append.events);
        let payload_hashes = events.map(|event| Hash::of_bytes(event.payload.as_bytes())).collect();
        let wrong = commit.payloads.iter().find(|payload| Hash::of_bytes(&payload.bytes) != payload.hash);
        Hashed { payload_hashes, wrong: wrong.map(|payload| payload.hash), commit }
    }
}

/// A commit that may be written. The judge fills the same one again and again: a commit is often
/// one event, and should not cost an allocation for each of these lists.
#[derive(Debug, Default)]
pub(crate) struct Ruling {
    /// Append by append; `None` where nothing is written: a repeat, or no event for no workflow.
    pub placed: Vec<Option<Placed>>,
    /// Payload hash and chain hash of every event that is written, in order.
    pub hashes: Vec<(Hash, Hash)>,
    /// What to tell the caller.
    pub appended: Vec<Appended>,
    /// Heads that moved, each with the place of its append in the commit; the latest last. Most
    /// commits move one.
    pub heads: Vec<(usize, Head)>,
    /// The counters after it.
    pub counters: Counters,
    /// The workflow number of each wake-up.
    pub wakeups: Vec<u64>,
    /// The workflow number of each that says what it listens for.
    pub listens: Vec<u64>,
}

/// Judges a commit that stands behind `counters`. The outer error is the store's own failure, the
/// inner one the refusal; what is then in `ruling` means nothing.
pub(crate) fn judge(
    hashed: &Hashed,
    past: &mut impl Past,
    counters: Counters,
    ruling: &mut Ruling,
) -> StoreResult<Result<(), CommitError>> {
    ruling.placed.clear();
    ruling.hashes.clear();
    ruling.heads.clear();
    ruling.wakeups.clear();
    ruling.listens.clear();
    ruling.appended = Vec::with_capacity(hashed.commit.appends.len());
    ruling.counters = counters;
    match (Bench { past, supplied: HashSet::new(), ruling }).commit(hashed) {
        Ok(()) => Ok(Ok(())),
        Err(Verdict::Refused(error)) => Ok(Err(error)),
        Err(Verdict::Broken(error)) => Err(error),
    }
}

/// Whose a workflow is, kept once where it is nobody's in particular: most are.
pub(crate) fn tenant(text: &str) -> Arc<str> {
    static NOBODY: LazyLock<Arc<str>> = LazyLock::new(|| "".into());
    if text.is_empty() { NOBODY.clone() } else { text.into() }
}

enum Verdict {
    Refused(CommitError),
    Broken(StoreError),
}

impl From<StoreError> for Verdict {
    fn from(error: StoreError) -> Verdict {
        Verdict::Broken(error)
    }
}

impl From<CommitError> for Verdict {
    fn from(error: CommitError) -> Verdict {
        Verdict::Refused(error)
    }
}

struct Bench<'a, P> {
    past: &'a mut P,
    /// Supplied ids of this commit: a commit that repeats itself is refused.
    supplied: HashSet<EventId>,
    ruling: &'a mut Ruling,
}

impl<P: Past> Bench<'_, P> {
    fn commit(&mut self, hashed: &Hashed) -> Result<(), Verdict> {
        let commit = &hashed.commit;
        let mut hashes = hashed.payload_hashes.as_slice();
        for (i, append) in commit.appends.iter().enumerate() {
            let (own, rest) = hashes.split_at(append.events.len());
            hashes = rest;
            self.append(commit, i, append, own)?;
        }
        for (workflow_id, _) in &commit.wakeups {
            let n = self.number(commit, workflow_id)?;
            self.ruling.wakeups.push(n);
        }
        for (workflow_id, _) in &commit.listens {
            let n = self.number(commit, workflow_id)?;
            self.ruling.listens.push(n);
        }
        let mut moved: HashMap<&str, u64> = HashMap::new();
        for (projection, before, after) in &commit.checkpoints {
            let actual = match moved.get(projection.as_str()) {
                Some(position) => *position,
                None => self.past.checkpoint(projection)?,
            };
            if actual != *before {
                return Err(CommitError::CheckpointMoved { projection: projection.clone(), actual }.into());
            }
            moved.insert(projection, *after);
        }
        for (i, (id, _)) in commit.consumed.iter().enumerate() {
            let is_second = commit.consumed[..i].iter().any(|(earlier, _)| earlier == id);
            if is_second || !self.past.is_open(id)? {
                return Err(CommitError::CommandAnswered { id: id.clone() }.into());
            }
        }
        if let Some(wrong) = hashed.wrong {
            // A value under a wrong address could never be read again: it is refused, though the
            // store itself is well.
            return Err(CommitError::Failed(StoreError {
                message: format!("payload {wrong}: its bytes do not match its hash"),
                hint: Some("the value was damaged before it reached the store".into()),
                is_input: true,
            })
            .into());
        }
        Ok(())
    }

    /// The number of a workflow that is there, or begins in this commit.
    fn number(&mut self, commit: &Commit, workflow_id: &Arc<str>) -> Result<u64, Verdict> {
        match self.head(commit, workflow_id)? {
            Some(head) => Ok(head.n),
            None => Err(CommitError::Conflict { workflow_id: workflow_id.clone(), actual: 0 }.into()),
        }
    }

    fn head(&mut self, commit: &Commit, workflow_id: &Arc<str>) -> StoreResult<Option<Head>> {
        let is_its = |(i, _): &&(usize, Head)| commit.appends[*i].workflow_id == *workflow_id;
        match self.ruling.heads.iter().rev().find(is_its) {
            Some((_, head)) => Ok(Some(head.clone())),
            None => self.past.head(workflow_id),
        }
    }

    fn append(
        &mut self,
        commit: &Commit,
        i: usize,
        append: &Append,
        payload_hashes: &[Hash],
    ) -> Result<(), Verdict> {
        let known = self.head(commit, &append.workflow_id)?;
        if let Some(repeat) = self.repeat(append, known.as_ref().map(|head| head.n))? {
            self.ruling.placed.push(None);
            self.ruling.appended.push(repeat);
            return Ok(());
        }
        let is_new = known.is_none();
        if is_new && let Some(actual) = self.past.pruned(&append.workflow_id)? {
            let workflow_id = append.workflow_id.clone();
            return Err(CommitError::Conflict { workflow_id, actual }.into());
        }
        let mut head = match known {
            Some(head) => head,
            None => self.beginning(append)?,
        };
        let holds = match append.expected {
            Expected::Any => true,
            Expected::NoStream => is_new,
            Expected::StreamExists => !is_new,
            Expected::Exact(version) => head.version == version,
        };
        if !holds {
            let workflow_id = append.workflow_id.clone();
            return Err(CommitError::Conflict { workflow_id, actual: head.version }.into());
        }
        let first_version = head.version + 1;
        let first_position = self.ruling.counters.position + 1;
        for (event, payload_hash) in append.events.iter().zip(payload_hashes) {
            head.version += 1;
            head.hash =
                chain::link(&head.hash, &append.workflow_id, &head.tenant, head.version, event, payload_hash);
            self.ruling.hashes.push((*payload_hash, head.hash));
        }
        self.ruling.counters.position += append.events.len() as u64;
        self.ruling.appended.push(Appended {
            first: first_version,
            last: head.version,
            hash: head.hash,
            position: if append.events.is_empty() { 0 } else { self.ruling.counters.position },
            is_repeat: false,
        });
        if is_new && append.events.is_empty() {
            // A workflow begins with its first event, never with none.
            self.ruling.placed.push(None);
            return Ok(());
        }
        if is_new {
            self.ruling.counters.workflows = head.n;
        }
        self.ruling.placed.push(Some(Placed { n: head.n, is_new, first_version, first_position }));
        self.ruling.heads.push((i, head));
        Ok(())
    }

    /// Where a workflow that is not there yet would begin.
    fn beginning(&mut self, append: &Append) -> Result<Head, Verdict> {
        let begins = append.begins.as_ref();
        let mut head = Head {
            n: self.ruling.counters.workflows + 1,
            version: 0,
            hash: Hash::ZERO,
            tenant: tenant(begins.map_or("", |b| &b.tenant)),
        };
        if let Some((parent, cut, cut_hash)) = begins.and_then(|b| b.parent.as_ref()) {
            // A fork of a past that is not there could never be read.
            if self.past.hash_at(parent, *cut)? != Some(*cut_hash) {
                let parent: Arc<str> = parent.as_str().into();
                let actual = self.past.head(&parent)?.map_or(0, |head| head.version);
                return Err(CommitError::Conflict { workflow_id: parent, actual }.into());
            }
            (head.version, head.hash) = (*cut, *cut_hash);
        }
        Ok(head)
    }

    /// The first result of an append whose supplied ids are known; `None` when none of them is.
    /// Events whose ids we made ourselves are compared by their types alone: they are made anew
    /// each time.
    fn repeat(&mut self, append: &Append, n: Option<u64>) -> Result<Option<Appended>, Verdict> {
        let mut first: Option<Version> = None;
        let (mut known_id, mut is_part) = (None, false);
        for (i, event) in append.events.iter().enumerate().filter(|(_, event)| event.is_id_supplied) {
            let taken = CommitError::IdTaken { id: event.id };
            if !self.supplied.insert(event.id) {
                return Err(taken.into());
            }
            match self.past.supplied(&event.id)? {
                None => is_part = true,
                Some((other, _)) if Some(other) != n => return Err(taken.into()),
                Some((_, version)) => {
                    known_id = Some(event.id);
                    let start = version.checked_sub(i as u64).ok_or_else(|| taken.clone())?;
                    if *first.get_or_insert(start) != start {
                        return Err(taken.into());
                    }
                }
            }
        }
        let (Some(first), Some(n)) = (first, n) else { return Ok(None) };
        if let (true, Some(id)) = (is_part, known_id) {
            return Err(CommitError::IdTaken { id }.into());
        }
        let mut last = None;
        for (event, version) in append.events.iter().zip(first..) {
            let taken = CommitError::IdTaken { id: event.id };
            let Some(written) = self.past.written(n, version)? else { return Err(taken.into()) };
            let is_same = *written.event_type == *event.event_type
                && (!event.is_id_supplied || (written.id == event.id && written.payload == event.payload));
            if !is_same {
                return Err(taken.into());
            }
            last = Some(Appended {
                first,
                last: version,
                hash: written.hash,
                position: written.position,
                is_repeat: true,
            });
        }
        Ok(last)
    }
}
