//! The contract of a store: the words in which the engine speaks to the log.
//!
//! Invariants that every store keeps, and `conformance` checks:
//! * versions of a workflow are 1, 2, 3 … without gaps (a fork goes on from its cut); positions of
//!   a shard are given out densely and in commit order;
//! * a commit is written whole or not at all, and only under the shard's present epoch;
//! * a commit that fails, fails alone: what was queued with it from others is written;
//! * `done` is called after the data is on disk, in the order in which commits were queued;
//! * nothing that was written is ever changed; what may be forgotten, and how, says
//!   [`crate::forgetting`].

use std::fmt;
use std::sync::Arc;

use foldback_core::value::Payload;
use foldback_core::{EventId, Hash, Micros, Version};
use serde_json::Value;

use crate::forgetting::{Forget, Tombstone};
use crate::projections::{Projected, ProjectionRow};

/// What the caller expects of a workflow's log before an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Any,
    /// That there is none yet.
    NoStream,
    /// That there is one.
    StreamExists,
    /// That its last version is this one (0: there is none yet).
    Exact(Version),
}

/// An event to be appended. Version, position and hashes are the store's to give.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// Its id.
    pub id: EventId,
    /// Whether the caller supplied the id, so that a repeat returns the first result. Ids that we
    /// make ourselves are unique by their making and need no index.
    pub is_id_supplied: bool,
    /// Its type.
    pub event_type: Arc<str>,
    /// The version of its shape.
    pub schema_version: u32,
    /// Its payload, JSON text.
    pub payload: String,
    /// Microseconds since 1970.
    pub timestamp: Micros,
    /// The stimulus that caused it.
    pub causation_id: Option<EventId>,
    /// What ties it to events elsewhere.
    pub correlation_id: Option<EventId>,
    /// Who wrote it.
    pub actor: Arc<str>,
    /// How the payload is coded: `json`.
    pub codec: Arc<str>,
    /// The key that sealed the payload.
    pub key_id: Option<Arc<str>>,
}

/// An event as the log holds it: the whole envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Its place in its shard's log.
    pub position: u64,
    /// Its workflow, by its text id.
    pub workflow_id: Arc<str>,
    /// Its place in its workflow's log.
    pub version: Version,
    /// What was appended.
    pub event: NewEvent,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The hash of the payload as stored.
    pub payload_hash: Hash,
    /// The chain hash.
    pub hash: Hash,
}

/// The row of a workflow that an append begins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewWorkflow {
    /// Whose it is.
    pub tenant: String,
    /// The hash of its definition; `None` for a stream that is no workflow.
    pub definition: Option<Hash>,
    /// What a person calls the definition.
    pub name: String,
    /// The hash of its input.
    pub input_hash: Option<Hash>,
    /// For a fork: parent, cut, and the parent's hash there.
    pub parent: Option<(String, Version, Hash)>,
}

/// Events to be appended to one workflow.
#[derive(Clone, Debug)]
pub struct Append {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// What must hold before.
    pub expected: Expected,
    /// The events, in order.
    pub events: Vec<NewEvent>,
    /// The row to make if the workflow is new; a row with defaults is made when there is none.
    pub begins: Option<NewWorkflow>,
    /// The workflow's status from here on, where it changes.
    pub status: Option<&'static str>,
}

/// A definition, kept by the hash of its canonical JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The hash of `canonical`.
    pub hash: Hash,
    /// `ows` or `rust`.
    pub kind: String,
    /// What a person calls it.
    pub name: String,
    /// Canonical JSON, every external reference resolved.
    pub canonical: String,
    /// The source as given.
    pub source: String,
}

/// A cached fold. Trusted only if it proves itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The workflow.
    pub workflow_id: Arc<str>,
    /// The version it was taken at.
    pub version: Version,
    /// The hash of the event at that version.
    pub event_hash: Hash,
    /// The shape of the state.
    pub state_schema: u32,
    /// The hash of `state`.
    pub fingerprint: Hash,
    /// The state's bytes.
    pub state: Vec<u8>,
}

/// The store's write unit.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// The shard.
    pub shard: u32,
    /// The epoch under which the caller owns it.
    pub epoch: u64,
    /// Events, workflow by workflow.
    pub appends: Vec<Append>,
    /// Values that lie beside the log.
    pub payloads: Vec<Payload>,
    /// What stands in the place of values that were erased elsewhere: for an import. Where the value
    /// itself is there, it stays.
    pub tombstones: Vec<Tombstone>,
    /// Definitions; ones that are known already are left as they are.
    pub definitions: Vec<Definition>,
    /// When each workflow is to be woken next; `None` takes the wake-up away.
    pub wakeups: Vec<(Arc<str>, Option<Micros>)>,
    /// What is handed to every workflow that listens, as of before this commit.
    pub emits: Vec<Emit>,
    /// Commands that go into the inbox. One whose id is there already is left as it is.
    pub sends: Vec<InboxCommand>,
    /// All names that a workflow listens for from here on, where they change.
    pub listens: Vec<(Arc<str>, Vec<Arc<str>>)>,
    /// Commands from the inbox that this commit answers: id and answer.
    pub consumed: Vec<(String, Value)>,
    /// Compare-and-set checkpoints of projections: name, position before, position after.
    pub checkpoints: Vec<(String, u64, u64)>,
    /// Rows of projections: name, key, value (`None` deletes).
    pub projection_rows: Vec<(String, String, Option<Value>)>,
    /// What is known of projections from here on: a name, and every version of it. None: it is gone.
    pub projections: Vec<(String, Vec<ProjectionRow>)>,
    /// Rows of projections to be let go: under which name, and how many at most. Where
    /// there were fewer, their checkpoint goes too.
    pub let_go: Vec<(String, usize)>,
    /// Snapshots.
    pub snapshots: Vec<Snapshot>,
}

/// A command for every workflow that listens for a name. Who that is, is found where the commit is
/// written, between the commits before it and those behind it: one that begins to listen later is
/// handed nothing, and none is missed. In the inbox it is one small row for each of them, with the id
/// `ID:WORKFLOW`, so that nobody is handed it twice; rows of several emits lie in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Emit {
    /// The name that is listened for.
    pub name: Arc<str>,
    /// What the id of each command begins with.
    pub id: String,
    /// Who sends it.
    pub actor: String,
    /// What it says: a JSON object, to which the store adds the `workflow_id`. It is written once for
    /// each of them, so what is large lies beside it as a payload.
    pub body: Value,
}

impl Emit {
    /// The command for one of those who listen.
    pub fn to(&self, workflow_id: &str, shard: u32) -> InboxCommand {
        let mut body = self.body.clone();
        body["workflow_id"] = Value::from(workflow_id);
        InboxCommand { id: format!("{}:{workflow_id}", self.id), shard, actor: self.actor.clone(), body }
    }
}

/// What became of one append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The version of its first event.
    pub first: Version,
    /// The version of its last event.
    pub last: Version,
    /// The chain hash of its last event.
    pub hash: Hash,
    /// The position of its last event.
    pub position: u64,
    /// Whether this is the result of an earlier append with the same ids.
    pub is_repeat: bool,
}

/// Why a commit was not written. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// The log is not where the caller expected it.
    Conflict {
        /// Which workflow.
        workflow_id: Arc<str>,
        /// Its last version; 0 when there is none.
        actual: Version,
    },
    /// A supplied id is taken by another event, or only a part of the ids is known.
    IdTaken {
        /// The id.
        id: EventId,
    },
    /// The shard has another owner now.
    StaleEpoch {
        /// The present epoch.
        actual: u64,
    },
    /// A projection's checkpoint is not where the caller expected it.
    CheckpointMoved {
        /// Which projection.
        projection: String,
        /// Where it is.
        actual: u64,
    },
    /// A command that this commit answers was answered before, or is not there.
    CommandAnswered {
        /// The command's id.
        id: String,
    },
    /// The store failed. After this nothing is written any more: the process must end.
    Failed(StoreError),
}

/// Called once, from the store's own thread, when a commit is on disk or refused.
pub type Done = Box<dyn FnOnce(Result<Vec<Appended>, CommitError>) + Send>;

/// A workflow's row.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkflowRow {
    /// Its id.
    pub workflow_id: Arc<str>,
    /// Its shard.
    pub shard: u32,
    /// Whose it is.
    pub tenant: String,
    /// The hash of its definition.
    pub definition: Option<Hash>,
    /// What a person calls the definition.
    pub name: String,
    /// The hash of its input.
    pub input_hash: Option<Hash>,
    /// For a fork: parent, cut, and the parent's hash there.
    pub parent: Option<(String, Version, Hash)>,
    /// Its status as last written; `running` until something else was.
    pub status: String,
    /// Its last version.
    pub version: Version,
    /// When its first event was written.
    pub started_at: Micros,
    /// When it is to be woken next.
    pub wake_at: Option<Micros>,
}

/// Which workflows to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only with this status.
    pub status: Option<String>,
    /// Only ones that have not ended (not completed, failed, cancelled, compensated, parked or
    /// quarantined).
    pub only_unfinished: bool,
    /// Only of this definition: its name, or the beginning of its hash (at least four digits).
    pub definition: Option<String>,
    /// At most this many; 0 for all.
    pub limit: usize,
}

/// A command in the inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxCommand {
    /// Its id: delivered once.
    pub id: String,
    /// The shard whose owner it is for.
    pub shard: u32,
    /// Who sent it.
    pub actor: String,
    /// What it says.
    pub body: Value,
}

/// Ownership of a shard, until it is dropped.
pub struct Ownership {
    /// The epoch: one higher than that of any owner before.
    pub epoch: u64,
    /// What holds the lock.
    pub guard: Box<dyn Send>,
}

/// A store that failed, told to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What went wrong, with the place.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Whether it is the caller's input that is wrong (a file that is no database, a store of a
    /// newer version) rather than the machine.
    pub is_input: bool,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

/// A store's answer.
pub type StoreResult<T> = Result<T, StoreError>;

/// A log with what lies beside it. Object-safe; shared between threads.
pub trait Store: Forget + Projected {
    /// Queues a commit. Returns at once; `done` is called when it is on disk or refused.
    fn commit(&self, commit: Commit, done: Done);

    /// Events of a workflow with a version above `after`, in order, at most `limit`. A fork's
    /// past is its parent's, up to the cut.
    fn read(&self, workflow_id: &str, after: Version, limit: usize) -> StoreResult<Vec<Recorded>>;

    /// Events of a shard with a position above `after`, in order, at most `limit`. Where workflows
    /// were pruned, positions are missing, and nobody waits for them.
    fn feed(&self, shard: u32, after: u64, limit: usize) -> StoreResult<Vec<Recorded>>;

    /// A payload by its hash.
    fn payload(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Payload>>;

    /// A definition by its hash.
    fn definition(&self, hash: &Hash) -> StoreResult<Option<Definition>>;

    /// A workflow's row.
    fn workflow(&self, workflow_id: &str) -> StoreResult<Option<WorkflowRow>>;

    /// Workflows, newest first.
    fn workflows(&self, filter: &Filter) -> StoreResult<Vec<WorkflowRow>>;

    /// The newest snapshot of a workflow at or before a version.
    fn snapshot(&self, workflow_id: &str, at_most: Version) -> StoreResult<Option<Snapshot>>;

    /// Rows of a projection: key and value, in the order of keys. Of its live version where it is
    /// registered, all of them as of one moment; else those that stand under this name.
    fn projection(&self, projection: &str) -> StoreResult<Vec<(String, Value)>>;

    /// One row of a projection, as [`Store::projection`] finds it.
    fn projection_row(&self, shard: u32, projection: &str, key: &str) -> StoreResult<Option<Value>>;

    /// How far the rows that stand under this name have read a shard's feed.
    fn checkpoint(&self, shard: u32, projection: &str) -> StoreResult<u64>;

    /// The name of this store on this machine: the same in each process that has it open, another
    /// for another store, also for a copy. An attempt is known by it after its engine has died.
    fn identity(&self) -> &str;

    /// Takes a shard if nobody holds it; raises its epoch. `None` while another does.
    fn acquire(&self, shard: u32, owner: &str) -> StoreResult<Option<Ownership>>;

    /// The version at which an event with this supplied id stands in its workflow, if it was written.
    fn supplied(&self, id: &EventId) -> StoreResult<Option<Version>>;

    /// True while somebody holds a shard, this process or another; `None` where this process may not look.
    /// It is only looked at.
    fn is_owned(&self, shard: u32) -> StoreResult<Option<bool>>;

    /// Puts a command into the inbox. A command whose id is there already is left as it is.
    fn send(&self, command: InboxCommand) -> StoreResult<()>;

    /// Commands of a shard that nobody has answered, oldest first.
    fn commands(&self, shard: u32) -> StoreResult<Vec<InboxCommand>>;

    /// The workflows of a shard that listen for a name, in the order in which they began.
    fn listeners(&self, shard: u32, name: &str) -> StoreResult<Vec<Arc<str>>>;

    /// The names that a workflow listens for, in order, as last written.
    fn listens(&self, workflow_id: &str) -> StoreResult<Vec<Arc<str>>>;

    /// The answer to a command, once there is one.
    fn answer(&self, command_id: &str) -> StoreResult<Option<Value>>;

    /// A number that changes when anything was written, by whomever. Cheap enough to poll.
    fn change_counter(&self) -> StoreResult<u64>;

    /// Whether the store still lies where it was opened. Asked by its owner before each `write` of a
    /// workflow: what a store that was moved away would record of it, nobody would find again.
    ///
    /// # Errors
    /// A file of it was moved, removed, replaced or cut: nothing may be performed any more.
    fn still_there(&self) -> StoreResult<()> {
        Ok(())
    }

    /// What is broken below the level of events (positions that are not dense, a head that does
    /// not match, payloads whose bytes do not match their hash, a damaged file), in words.
    fn check(&self) -> StoreResult<Vec<String>>;
}
