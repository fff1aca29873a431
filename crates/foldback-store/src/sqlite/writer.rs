//! The writer: one thread that takes what is queued and makes it durable, and one that tells it.
//!
//! It drains, it never sleeps for more: while one group is on its way to the disk, the next one
//! gathers, and the callers of the one before are told. `done` is called in the order of the queue,
//! after the data is on disk. After an error of the store every later commit is refused; nothing is
//! tried again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use super::fault;
use super::ledger::{Ledger, Outcome};
use super::place::Place;
use crate::contract::{Commit, CommitError, Done, StoreError};
use crate::judge::Hashed;

/// Commits in one transaction.
const GROUP_MAX_COMMITS: usize = 4_096;

/// Bytes of payload in one transaction, about.
const GROUP_MAX_BYTES: usize = 8 * 1024 * 1024;

type Job = (Hashed, Done);

/// What became of a group.
struct Written {
    group: Vec<Job>,
    outcomes: Result<Vec<Outcome>, StoreError>,
}

/// A handle on the threads. Dropping it waits until everything queued is written and told.
pub(crate) struct Writer {
    queue: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Writer {
    /// Starts the threads. A file that cannot be opened is told to each commit.
    pub(crate) fn start(place: Arc<Place>) -> Result<Writer, StoreError> {
        let (queue, jobs) = channel();
        let (written, news) = channel();
        let writes = start("foldback-writer", move || serve(&place, &jobs, &written))?;
        let tells = start("foldback-teller", move || news.into_iter().for_each(tell_group))?;
        Ok(Writer { queue: Some(queue), threads: vec![writes, tells] })
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
        let of_others = |thread: &JoinHandle<()>| thread.thread().id() != thread::current().id();
        for thread in self.threads.drain(..).filter(of_others) {
            let _ = thread.join();
        }
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    thread::Builder::new().name(name.into()).spawn(run).map_err(|e| StoreError {
        message: format!("cannot start the thread {name}: {e}"),
        hint: None,
        is_input: false,
    })
}

fn serve(place: &Place, jobs: &Receiver<Job>, written: &Sender<Written>) {
    let mut ledger = Ledger::open(&place.path);
    while let Ok(first) = jobs.recv() {
        let mut bytes = weight(&first.0.commit);
        let mut group = vec![first];
        while group.len() < GROUP_MAX_COMMITS && bytes < GROUP_MAX_BYTES {
            let Ok(job) = jobs.try_recv() else { break };
            bytes += weight(&job.0.commit);
            group.push(job);
        }
        let outcomes = match &mut ledger {
            Ok(open) => place
                .still_there()
                .and_then(|()| open.write(group.iter().map(|(commit, _)| commit)))
                .inspect(|_| place.written()),
            Err(error) => Err(error.clone()),
        };
        if let Err(error) = &outcomes {
            // The connection is closed here, and the error stays.
            ledger = Err(error.clone());
        }
        // Who tells outlives who writes.
        let _ = written.send(Written { group, outcomes });
    }
}

/// Tells the callers of a group in their order, and frees what they had sent: a tenth of the writer's
/// time, had it to do this itself.
fn tell_group(Written { group, outcomes }: Written) {
    match outcomes {
        Ok(outcomes) => {
            for ((_, done), outcome) in group.into_iter().zip(outcomes) {
                tell(done, outcome);
                fault::point("told");
            }
        }
        Err(error) => {
            group.into_iter().for_each(|(_, done)| tell(done, Err(CommitError::Failed(error.clone()))))
        }
    }
}

/// Calls back. One that panics has told who reads stderr; its commit is on disk or refused whatever
/// becomes of the caller, and the others of the group are told.
fn tell(done: Done, outcome: Outcome) {
    let _told = catch_unwind(AssertUnwindSafe(|| done(outcome)));
}

/// About how many bytes a commit adds to a transaction.
fn weight(commit: &Commit) -> usize {
    let events = commit.appends.iter().flat_map(|append| &append.events);
    events.map(|event| event.payload.len() + 200).sum::<usize>()
        + commit.payloads.iter().map(|payload| payload.bytes.len()).sum::<usize>()
        + commit.snapshots.iter().map(|snapshot| snapshot.state.len()).sum::<usize>()
}
