//! The pure core of Foldback.
//!
//! A workflow is an append-only log of [`Event`]s. Its [`WorkflowState`] is a fold over them. A
//! [`Program`] looks at the state and *asks*; [`advance`] judges and writes facts; the engine,
//! which lives in another crate, does what is owed and reports back as a [`Stimulus`].
//!
//! What this crate never does: read a clock, draw a random number, touch a file or a socket, or
//! start a task. Time and ids come in as arguments. `scripts/check-pure.sh` fails the build if
//! that changes.
//!
//! The rooms, in reading order: [`event`] (the facts), [`state`] (what they add up to), `apply`
//! (how), `admits` (the law book), [`program`] (who asks), [`decide`] (who judges).

pub mod asked;
pub mod budget;
pub mod change;
pub mod cut;
pub mod decide;
pub mod event;
pub mod hash;
pub mod json;
pub mod key;
pub mod limits;
pub mod listen;
pub mod lists;
pub mod media;
pub mod plan;
pub mod program;
pub mod projection;
pub mod redact;
pub mod rehearse;
pub mod report;
pub mod reuse;
pub mod state;
pub mod step;
pub mod text;
pub mod undo;
pub mod value;
pub mod verify;

mod admits;
mod apply;
mod detail;
mod runaway;

pub use admits::Illegal;
pub use budget::Measure;
pub use change::{Changes, Rules};
pub use decide::{Batch, Ids, Stimulus, Timing, advance};
pub use detail::Detail;
pub use event::{Class, DecodeError, Event, EventId, Fact, Found, Lineage, Lost, TaskKind, Undo, Verdict};
pub use hash::Hash;
pub use key::Key;
pub use program::{Ask, Divergence, Program, Run, Seen, Turn};
pub use redact::Redaction;
pub use state::{Cursor, Entry, EntryBody, Owed, Status, Step, StepStatus, WorkflowState};
pub use step::{Effect, Failure, Outcome, Recovery, RetryPolicy, Usage};
pub use value::{Part, Request, Slot, StoredRef};

/// A moment: microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;
/// The place of an event in its workflow's log: 1, 2, 3 … without gaps.
pub type Version = u64;
