//! Every bound of the contract, in one file: the same everywhere, counted and never timed, and past
//! it there is an error that names it. (What one expression may cost is jq's own matter: see
//! `foldback-ows`, `jq/bounds.rs`.)

use std::ops::RangeInclusive;

use crate::Micros;

/// A value whose JSON is longer than this many bytes is stored once, by its hash, beside the log.
/// Measured (BENCHMARKS.md, rows `value-*`): at this size a value that stands in three events, as
/// the output of a step usually does, costs less by reference.
pub const INLINE_MAX_BYTES: usize = 1_024;

/// The longest JSON value (bytes) that an event may carry or refer to.
pub const VALUE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// Bytes in a workflow id. Ids are file names, URL segments and terminal columns.
pub const WORKFLOW_ID_MAX_BYTES: usize = 200;

/// Bytes in a key. A key grows with nesting, not with iterations.
pub const KEY_MAX_BYTES: usize = 1_024;

/// Consequences in one batch. A turn that asks for more is cut here and goes on in the next
/// batch, so that a loop of a million `set`s neither fills the memory nor one transaction.
pub const BATCH_MAX_EVENTS: usize = 4_096;

/// Consequences that one stimulus may have over all its batches. Past it the workflow fails: a
/// loop without a step or a wait never lets the world speak again.
pub const TURN_MAX_EVENTS: u64 = 5_000_000;

/// Jumps back in a list of tasks (a `then` that leads to an earlier task, a further try without delay)
/// that meet no step and no wait. Past it the task fails with an error of type `runaway`. A finite `for` is
/// not counted.
pub const JUMPS_MAX: u64 = 10_000;

/// How often a step may be interrupted (its process died under it) before it is not started
/// again: a step that kills the process on each start must not do so for ever.
pub const INTERRUPTIONS_MAX: u32 = 25;

/// Attempts of a `write` whose outcome is unknown under `recovery: retry`, before a person is
/// asked.
pub const UNKNOWN_ATTEMPTS_MAX: u32 = 10;

/// The first and the longest delay between two attempts of a step whose connection broke, in ms.
pub const UNKNOWN_BACKOFF_MS: (u64, u64) = (100, 10_000);

/// The first and the longest delay until an attempt is begun again for which this machine had no room, in ms.
pub const NO_ROOM_BACKOFF_MS: (u64, u64) = (250, 10_000);

/// The longest delay between two attempts, in ms (one day), whatever a policy computes.
pub const RETRY_DELAY_MAX_MS: u64 = 24 * 3_600 * 1_000;

/// A budget of which this much (percent) is used is warned of.
pub const BUDGET_WARNING_PERCENT: u64 = 80;

/// Signals that a workflow keeps for whatever may listen one day. Past it, more are refused.
pub const SIGNALS_KEPT_MAX: usize = 1_000;

/// Bytes of the data of all signals that a workflow keeps. Past it, more are refused.
pub const SIGNALS_KEPT_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes in the name of a signal.
pub const SIGNAL_NAME_MAX_BYTES: usize = 256;

/// The longest id that a sender may give a signal.
pub const SIGNAL_ID_MAX_BYTES: usize = 512;

/// How often a session, before it ends, hands on to others what was emitted in it and by those it was
/// handed to. What is left then lies in the inbox, and nothing of it is lost: two workflows that answer
/// each other for ever do not keep a `run` from ending. (How many hear one event has no bound: each of
/// them is one row in the commit of the event, and what is longer than [`INLINE_MAX_BYTES`] lies beside
/// it once. Measured: 100,000 rows of a kilobyte are 0.9 s of the store's writer, and no memory.)
pub const HANDED_ON_MAX: usize = 16;

/// Moments that a log may tell, in microseconds since 1970: to the end of the year 9999, the last that ISO 8601
/// writes. What is due may be later: a wait has no bound.
pub const MOMENTS: RangeInclusive<Micros> = 0..=253_402_300_799_999_999;

/// Commits that may be under way when a model call starts: a crash repeats at most this many.
pub const RUN_AHEAD_MODEL: u32 = 1;

/// Commits that may be under way when another `read` or `pure` step starts.
pub const RUN_AHEAD_OTHER: u32 = 4;

/// Steps in flight in one process, where it may open as many files as they need. More are owed and start
/// as others end.
pub const IN_FLIGHT_MAX: usize = 4_096;

/// A workflow that waits for a moment at least so far away (ms) is let out of memory.
pub const SLEEP_MIN_MS: u64 = 4_000;

/// A difference between the time of day and the steady clock that grows by so much (ms) is a clock that was
/// set; less is one that is being adjusted.
pub const CLOCK_JUMP_MIN_MS: u64 = 1_000;

/// How long before its moment comes it is brought back (ms), so that it is there when it comes.
pub const WAKE_AHEAD_MS: u64 = 2_000;

/// A snapshot is taken when the tail has this many events, and as many bytes as the last
/// snapshot.
pub const SNAPSHOT_MIN_EVENTS: u64 = 1_000;

/// The time an attempt may take unless its step says otherwise, in ms (ten minutes). A step kind may
/// have a shorter one; `docs/profile.md` tells them.
pub const STEP_TIMEOUT_MS: u64 = 600_000;

/// The time an HTTP call may take unless its step says otherwise, in ms (two minutes): no gateway waits
/// longer.
pub const HTTP_TIMEOUT_MS: u64 = 120_000;

/// Bytes of an HTTP answer, a model answer, or a process's output that a step keeps.
pub const STEP_OUTPUT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of one event of a model's stream, and of one line of it.
pub const MODEL_EVENT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a model's stream. An answer comes in many small events, each some fifty times as long as
/// the words that it carries.
pub const MODEL_STREAM_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of the body of a model server's error that are read.
pub const MODEL_ERROR_MAX_BYTES: usize = 64 * 1024;

/// Tokens that one model call can have read or written. No model has a thousandth of it; a server that tells
/// more is not believed, and the tokens are estimated: one such number would use up any budget.
pub const CALL_MAX_TOKENS: u64 = 1_000_000_000;

/// Bytes of the attachments of one model call, all together. Past it every provider refuses.
pub const ATTACHMENTS_MAX_BYTES: usize = 20 * 1024 * 1024;

/// Bytes of a definition file.
pub const DEFINITION_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes of a configuration file, and of a file of scripted answers.
pub const CONFIG_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Nesting of a definition, a JSON value from outside, or a key.
pub const DEPTH_MAX: usize = 128;

/// Nesting of a value in an event. An event wraps its values some levels deep, and what is written
/// must be readable again by parsers that stop at 127.
pub const VALUE_DEPTH_MAX: usize = 100;

/// Bytes of a file that is imported: it is judged whole before it is written in one commit.
pub const IMPORT_MAX_BYTES: usize = 256 * 1024 * 1024;

/// Bytes of the first line of a file that is imported.
pub const IMPORT_HEADER_MAX_BYTES: usize = 1024 * 1024;

/// Bytes of an event's own JSON in a file that is imported. Values of any length lie beside the
/// event; a chat of 100,000 messages is a list of references of this length.
pub const EVENT_MAX_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of a request with all its values, as far as it can be compared with its hash: a few references
/// could otherwise ask for any number of them.
pub const REQUEST_MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Items of a list that goes on from another. A few bytes could otherwise ask for any number of them.
pub const GROWN_LIST_MAX_ITEMS: usize = 10_000;

/// Redaction rules of a document, and of a configuration.
pub const REDACT_RULES_MAX: usize = 100;

/// Bytes of a pattern, a path or a replacement of a redaction rule.
pub const REDACT_TEXT_MAX_BYTES: usize = 4_096;

/// Bytes of memory that a pattern may take once it is compiled: a short text can ask for gigabytes.
pub const REDACT_REGEX_MAX_BYTES: usize = 1024 * 1024;

/// Bytes of a text that is compared word by word; of a longer one only the length is told. The work
/// grows with the square of what differs.
pub const DIFF_TEXT_MAX_BYTES: usize = 16 * 1024;

/// Bytes of all texts that one comparison of two workflows looks at word by word.
pub const DIFF_TEXTS_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Places that are named where two values differ; further ones are counted.
pub const DIFF_PATHS_MAX: usize = 1_000;

/// Bytes of the JSON of one row of a projection. One that gathers events without end would write all
/// of itself again with each of them.
pub const PROJECTION_ROW_MAX_BYTES: usize = 256 * 1024;

/// Bytes in the name of a projection.
pub const PROJECTION_NAME_MAX_BYTES: usize = 64;

/// Event types that one projection names.
pub const PROJECTION_EVENTS_MAX: usize = 100;
