//! The writer: one thread that takes what is queued and makes it durable.
//!
//! It drains, it never sleeps for more: while one group is on its way to the disk, the next one
//! gathers. `done` is called in the order of the queue, after the data is on disk. After an error
//! of the store every later commit is refused; nothing is tried again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::fault;
use super::ledger::Ledger;
use crate::contract::{Appended, Commit, CommitError, Done, StoreError};
use crate::judge::Hashed;

/// Commits in one transaction.
const GROUP_MAX_COMMITS: usize = 4_096;

/// Bytes of payload in one transaction, about.
const GROUP_MAX_BYTES: usize = 8 * 1024 * 1024;

type Job = (Hashed, Done);

/// A handle on the thread. Dropping it waits until everything queued is written.
pub(crate) struct Writer {
    queue: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread. A file that cannot be opened is told to each commit.
    pub(crate) fn start(path: PathBuf) -> Result<Writer, StoreError> {
        let (queue, jobs) = channel();
        let thread = thread::Builder::new()
            .name("foldback-writer".into())
            .spawn(move || serve(&path, &jobs))
            .map_err(|e| StoreError {
                message: format!("cannot start the thread that writes: {e}"),
                hint: None,
                is_input: false,
            })?;
        Ok(Writer { queue: Some(queue), thread: Some(thread) })
    }

    /// Queues a commit.
    pub(crate) fn push(&self, commit: Commit, done: Done) {
        let Some(queue) = &self.queue else { return };
        if let Err(refused) = queue.send((Hashed::of(commit), done)) {
            let (_, done) = refused.0;
            done(Err(CommitError::Failed(StoreError {
                message: "the thread that writes has ended".into(),
                hint: Some("run the command again".into()),
                is_input: false,
            })));
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        // A `done` may hold the last handle on the store: a thread cannot wait for itself.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

fn serve(path: &Path, jobs: &Receiver<Job>) {
    let mut ledger = Ledger::open(path);
    let mut commits = Vec::new();
    let mut waiting = Vec::new();
    while let Ok((commit, done)) = jobs.recv() {
        let mut bytes = weight(&commit.commit);
        commits.push(commit);
        waiting.push(done);
        while commits.len() < GROUP_MAX_COMMITS && bytes < GROUP_MAX_BYTES {
            let Ok((commit, done)) = jobs.try_recv() else { break };
            bytes += weight(&commit.commit);
            commits.push(commit);
            waiting.push(done);
        }
        let written = match &mut ledger {
            Ok(open) => open.write(commits.drain(..)),
            Err(error) => Err(error.clone()),
        };
        match written {
            Ok(outcomes) => {
                for (done, outcome) in waiting.drain(..).zip(outcomes) {
                    tell(done, outcome);
                    fault::point("told");
                }
            }
            Err(error) => {
                // The connection is closed here, and the error stays.
                ledger = Err(error.clone());
                commits.clear();
                waiting.drain(..).for_each(|done| tell(done, Err(CommitError::Failed(error.clone()))));
            }
        }
    }
}

/// Calls back. One that panics has told who reads stderr; its commit is on disk or refused whatever
/// becomes of the caller, and the others of the group are told.
fn tell(done: Done, outcome: Result<Vec<Appended>, CommitError>) {
    let _told = catch_unwind(AssertUnwindSafe(|| done(outcome)));
}

/// About how many bytes a commit adds to a transaction.
fn weight(commit: &Commit) -> usize {
    let events = commit.appends.iter().flat_map(|append| &append.events);
    events.map(|event| event.payload.len() + 200).sum::<usize>()
        + commit.payloads.iter().map(|payload| payload.bytes.len()).sum::<usize>()
        + commit.snapshots.iter().map(|snapshot| snapshot.state.len()).sum::<usize>()
}
