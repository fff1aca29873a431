//! A store whose shard a test owns.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use foldback_core::EventId;
use foldback_store::{Append, Appended, Commit, CommitError, Expected, NewEvent, Ownership, Store, open};

/// A store, and our ownership of it.
pub struct Desk {
    pub epoch: u64,
    guard: Mutex<Box<dyn Send>>,
    pub store: Arc<dyn Store>,
}

/// Where a directory's store lies.
pub fn url(dir: &tempfile::TempDir) -> String {
    format!("sqlite:{}", dir.path().join("foldback.db").display())
}

impl Desk {
    /// Opens the directory's store and takes it.
    pub fn at(dir: &tempfile::TempDir) -> Desk {
        Desk::take(open(&url(dir)).unwrap())
    }

    /// Takes a store.
    pub fn take(store: Arc<dyn Store>) -> Desk {
        let ownership = store.acquire(0, "test").unwrap().expect("nobody has it");
        Desk::of(store, ownership)
    }

    pub fn of(store: Arc<dyn Store>, ownership: Ownership) -> Desk {
        Desk { epoch: ownership.epoch, guard: Mutex::new(ownership.guard), store }
    }

    /// Lets the shard go; the store stays open.
    pub fn give_up(self) -> (Arc<dyn Store>, u64) {
        drop(self.guard);
        (self.store, self.epoch)
    }

    /// Leaves the lock held for as long as the process lives.
    pub fn give_up_epoch(self) -> (Arc<dyn Store>, u64) {
        std::mem::forget(self.guard);
        (self.store, self.epoch)
    }

    pub fn commit(&self, commit: Commit) -> Result<Vec<Appended>, CommitError> {
        self::commit(&*self.store, Commit { epoch: self.epoch, ..commit })
    }

    /// Queues all at once.
    pub fn commit_all(&self, commits: Vec<Commit>) -> Vec<Result<Vec<Appended>, CommitError>> {
        let (tell, told) = mpsc::channel();
        for commit in commits {
            let tell = tell.clone();
            let commit = Commit { epoch: self.epoch, ..commit };
            self.store.commit(commit, Box::new(move |result| tell.send(result).unwrap()));
        }
        drop(tell);
        told.iter().collect()
    }

    pub fn append(
        &self,
        id: &str,
        expected: Expected,
        events: Vec<NewEvent>,
    ) -> Result<Appended, CommitError> {
        let append = Append { workflow_id: id.into(), expected, events, begins: None, status: None };
        let commit = Commit { appends: vec![append], ..Commit::default() };
        self.commit(commit).map(|mut appended| appended.remove(0))
    }

    /// Positions are dense, and nothing is broken.
    pub fn is_sound(&self) {
        assert_eq!(self.store.check().unwrap(), Vec::<String>::new());
    }
}

/// A commit of one event.
pub fn one(id: &str, expected: Expected) -> Commit {
    let append =
        Append { workflow_id: id.into(), expected, events: vec![event("x")], begins: None, status: None };
    Commit { appends: vec![append], ..Commit::default() }
}

/// Commits, and waits.
pub fn commit(store: &dyn Store, commit: Commit) -> Result<Vec<Appended>, CommitError> {
    let (tell, told) = mpsc::channel();
    store.commit(commit, Box::new(move |result| tell.send(result).unwrap()));
    told.recv().unwrap()
}

/// An event with an id of our own making.
pub fn event(payload: &str) -> NewEvent {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    NewEvent {
        id: EventId(id),
        is_id_supplied: false,
        event_type: "StepCompleted".into(),
        schema_version: 1,
        payload: format!("{payload:?}"),
        timestamp: 1_700_000_000_000_000,
        causation_id: None,
        correlation_id: None,
        actor: "engine".into(),
        codec: "json".into(),
        key_id: None,
    }
}
