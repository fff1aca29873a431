//! The cases that every store passes: the contract, as tests that run on any of them.
//!
//! [`run`] makes a fresh store for each case; [`run_reopened`] closes one and opens it again. A
//! case that fails panics with its name. Nothing here knows how a store keeps what it keeps.
//!
//! A store of your own is proven by a test of your own crate, with this one as a dependency:
//!
//! ```
//! # let make_mine = || foldback_store::open("memory:").unwrap();
//! // Each call gives a new, empty store.
//! foldback_store::conformance::run(&|| make_mine());
//! ```
//!
//! and, if it outlives its process, by [`run_reopened`] with a closure that opens the same place
//! each time. What only a disaster shows (a killed process, a full disk, a flipped byte) is for the
//! store's own tests: `tests/it/disaster.rs` and `tests/it/flips.rs` of this crate show how.

mod appends;
mod beside;
mod crowds;
mod exchange;
mod forgetting;
mod forks;
mod listening;
mod reopened;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use foldback_core::{EventId, Hash, Version};

use crate::contract::*;

/// A case: its name, and what it does on a fresh store.
type Case = (&'static str, fn(&Desk));

/// Runs every case, each on a store of its own.
///
/// # Panics
/// When a case fails.
pub fn run(make: &dyn Fn() -> Arc<dyn Store>) {
    let cases = appends::CASES.iter().chain(forks::CASES).chain(beside::CASES);
    for (name, case) in
        cases.chain(crowds::CASES).chain(forgetting::CASES).chain(exchange::CASES).chain(listening::CASES)
    {
        named(name, || case(&Desk::at(make())));
    }
}

/// Runs what must outlive the process: `open` opens the same place each time.
///
/// # Panics
/// When a case fails.
pub fn run_reopened(open: &dyn Fn() -> Arc<dyn Store>) {
    named("everything is there after reopening", || reopened::everything_is_there(open));
}

fn named(name: &str, case: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(case)) {
        // The panic's own message was printed where it happened; this says in which case.
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        match text {
            Some(text) => panic!("conformance case {name:?}: {text}"),
            None => resume_unwind(panic),
        }
    }
}

/// A store whose shard we own.
pub(crate) struct Desk {
    pub store: Arc<dyn Store>,
    pub epoch: u64,
    /// `None` once the desk was given up.
    _guard: Option<Box<dyn Send>>,
}

impl Desk {
    pub fn at(store: Arc<dyn Store>) -> Desk {
        let ownership = store.acquire(0, "conformance").expect("acquire").expect("nobody has it");
        Desk { store, epoch: ownership.epoch, _guard: Some(ownership.guard) }
    }

    /// A commit under our epoch.
    pub fn commit(&self, commit: Commit) -> Result<Vec<Appended>, CommitError> {
        self.commit_as_is(Commit { epoch: self.epoch, ..commit })
    }

    /// A commit under whatever epoch it says.
    pub fn commit_as_is(&self, commit: Commit) -> Result<Vec<Appended>, CommitError> {
        let (tell, told) = mpsc::channel();
        self.store.commit(commit, Box::new(move |result| tell.send(result).expect("somebody waits")));
        told.recv().expect("done is called")
    }

    /// Queues many commits at once; their results, in the order in which `done` was called, each
    /// with its place in the queue.
    pub fn commit_all(&self, commits: Vec<Commit>) -> Vec<(usize, Result<Vec<Appended>, CommitError>)> {
        let (tell, told) = mpsc::channel();
        for (i, commit) in commits.into_iter().enumerate() {
            let tell = tell.clone();
            let commit = Commit { epoch: self.epoch, ..commit };
            self.store.commit(commit, Box::new(move |r| tell.send((i, r)).expect("somebody waits")));
        }
        drop(tell);
        told.iter().collect()
    }

    /// Appends to one workflow.
    pub fn append(
        &self,
        id: &str,
        expected: Expected,
        events: Vec<NewEvent>,
    ) -> Result<Appended, CommitError> {
        self.commit(Commit { appends: vec![append(id, expected, events)], ..Commit::default() }).map(only)
    }

    /// All events of a workflow.
    pub fn log(&self, id: &str) -> Vec<Recorded> {
        self.store.read(id, 0, usize::MAX).expect("read")
    }

    pub fn version(&self, id: &str) -> Version {
        self.log(id).last().map_or(0, |recorded| recorded.version)
    }

    /// Everything that a reader sees of the log.
    pub fn feed(&self) -> Vec<Recorded> {
        self.store.feed(0, 0, usize::MAX).expect("feed")
    }

    /// Positions are dense, and nothing is broken.
    pub fn is_sound(&self) {
        let positions: Vec<u64> = self.feed().iter().map(|recorded| recorded.position).collect();
        assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>(), "dense positions");
        assert_eq!(self.store.check().expect("check"), Vec::<String>::new());
    }
}

/// The only one of a list.
pub(crate) fn only<T>(mut list: Vec<T>) -> T {
    assert_eq!(list.len(), 1);
    list.remove(0)
}

/// An append that begins nothing and changes no status.
pub(crate) fn append(id: &str, expected: Expected, events: Vec<NewEvent>) -> Append {
    Append { workflow_id: id.into(), expected, events, begins: None, status: None }
}

/// An event with an id of our own making.
pub(crate) fn event(payload: &str) -> NewEvent {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    NewEvent {
        id: EventId(id),
        is_id_supplied: false,
        event_type: "StepCompleted".into(),
        schema_version: 1,
        payload: format!("{{\"what\":{payload:?}}}"),
        timestamp: 1_700_000_000_000_000 + number as i64,
        causation_id: None,
        correlation_id: None,
        actor: "engine".into(),
        codec: "json".into(),
        key_id: None,
    }
}

/// An event whose id the caller supplied.
pub(crate) fn supplied(id: u8, payload: &str) -> NewEvent {
    NewEvent { id: EventId([id; 16]), is_id_supplied: true, ..event(payload) }
}

/// Some events.
pub(crate) fn events(count: usize) -> Vec<NewEvent> {
    (0..count).map(|i| event(&format!("event {i}"))).collect()
}

/// Verifies the chain of a log from its first event on.
pub(crate) fn verify_from(mut previous: Hash, log: &[Recorded]) {
    for recorded in log {
        crate::chain::verify_chain(previous, recorded).expect("the chain holds");
        previous = recorded.hash;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_conforms() {
        super::run(&|| crate::open("memory:").unwrap());
    }
}
