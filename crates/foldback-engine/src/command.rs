//! Commands: what one says to an owner, the same from the next function and from another
//! process's inbox; and the answers.

use std::sync::Arc;

use foldback_core::event::Raised;
use foldback_core::{Changes, Failure, Hash, Key, Redaction, Slot, Status, Verdict, Version, limits};
use foldback_store::{Definition, Pruned, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A command to the owner of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Command {
    /// Start a workflow, or attach to the one that was started alike.
    Start(Start),
    /// Go on with an unfinished workflow.
    Resume {
        /// The workflow.
        workflow_id: Arc<str>,
    },
    /// Reopen a workflow that failed or was parked, and go on from there.
    Retry {
        /// The workflow.
        workflow_id: Arc<str>,
        /// Why, for the log.
        reason: String,
        /// From an earlier version on, and with changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        back: Option<Box<Back>>,
    },
    /// Append domain events to a stream, or record them in a workflow.
    Append {
        /// The stream.
        workflow_id: Arc<str>,
        /// What must hold before.
        expected: Expect,
        /// Type and data of each, in order.
        events: Vec<(Arc<str>, Value)>,
    },
    /// Begin a fork of another workflow's past.
    Fork(Box<Fork>),
    /// Say what becomes of a `write` that waits for it.
    Settle {
        /// The workflow.
        workflow_id: Arc<str>,
        /// The step.
        key: Key,
        /// What becomes of it.
        verdict: Verdict,
        /// What it is taken to have given, for a stub.
        output: Option<Value>,
    },
    /// Let nothing more begin.
    Pause {
        /// The workflow.
        workflow_id: Arc<str>,
        /// Why, for the log.
        reason: String,
    },
    /// Let it go on.
    Unpause {
        /// The workflow.
        workflow_id: Arc<str>,
        /// Why, for the log.
        reason: String,
        /// Budgets that are raised.
        raised: Vec<Raised>,
    },
    /// Say something to a workflow.
    Signal {
        /// The workflow.
        workflow_id: Arc<str>,
        /// The signal's name.
        name: Arc<str>,
        /// Its data.
        data: Value,
        /// The sender's id for it: however often it is sent, it is heard once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        event_id: Option<Arc<str>>,
        /// The failure that it reports in place of data: the wait that takes it fails with this.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Box<Failure>>,
    },
    /// Hand a workflow an event that another one recorded, and that it listens for. The engine's own
    /// word: it lies in the inbox from the commit of the event on.
    Event {
        /// Who listens.
        workflow_id: Arc<str>,
        /// The event's type.
        name: Arc<str>,
        /// What was recorded, redacted by the rules of who recorded it. What is long, or may be erased,
        /// lies beside the log once for all who are handed it.
        data: Slot,
        /// Who recorded it.
        source: Arc<str>,
    },
    /// End a workflow.
    Cancel {
        /// The workflow.
        workflow_id: Arc<str>,
        /// Why, for the log.
        reason: String,
    },
    /// Take back what a workflow did.
    Compensate {
        /// The workflow.
        workflow_id: Arc<str>,
        /// Why, for the log.
        reason: String,
        /// What of it: armed after the second version, and not after the first.
        range: (Option<Version>, Option<Version>),
    },
    /// Settle an unknown outcome.
    Resolve {
        /// The workflow.
        workflow_id: Arc<str>,
        /// The step.
        key: Key,
        /// Its output if it landed; `None` if it did not happen.
        landed: Option<Value>,
    },
    /// Record a domain event.
    Record {
        /// The workflow.
        workflow_id: Arc<str>,
        /// The event's type.
        event_type: Arc<str>,
        /// Its data.
        data: Value,
    },
}

/// What the caller of an append expects of the log before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// Nothing.
    Any,
    /// That there is none yet.
    NoStream,
    /// That there is one.
    StreamExists,
    /// That this is its last version; 0: there is none yet.
    Exact(Version),
}

impl Expect {
    /// Whether it holds of a log with this last version; 0: there is none.
    pub fn holds(self, version: Version) -> bool {
        match self {
            Expect::Any => true,
            Expect::NoStream => version == 0,
            Expect::StreamExists => version > 0,
            Expect::Exact(expected) => version == expected,
        }
    }
}

/// How a workflow that is reopened goes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Back {
    /// The version at which it goes on.
    pub to: Version,
    /// The version at which it was seen to have failed: what came since was not planned for.
    pub from: Version,
    /// What is changed.
    pub changes: Changes,
    /// The definition that it follows from there, where that is another.
    pub definition: Option<Followed>,
}

/// See [`Command::Fork`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fork {
    /// The fork's id: `PARENT~…`.
    pub workflow_id: Arc<str>,
    /// Whose past it shares.
    pub parent: Arc<str>,
    /// The last version that is shared.
    pub cut: Version,
    /// What is changed.
    pub changes: Changes,
    /// The definition that it follows, where that is another.
    pub definition: Option<Followed>,
}

/// A definition that is followed from a cut on, whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Followed {
    /// Its hash.
    pub hash: Hash,
    /// `ows` or `rust`.
    pub kind: String,
    /// What a person calls it.
    pub name: String,
    /// Its canonical JSON.
    pub canonical: String,
    /// Its source as given.
    pub source: String,
    /// The file that it was loaded from, by its whole path, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

impl Followed {
    /// The definition as the store keeps it.
    pub fn stored(&self) -> Definition {
        Definition {
            hash: self.hash,
            kind: self.kind.clone(),
            name: self.name.clone(),
            canonical: self.canonical.clone(),
            source: self.source.clone(),
        }
    }
}

impl From<Start> for Followed {
    fn from(start: Start) -> Followed {
        let Start { definition, kind, name, canonical, source, file, .. } = start;
        Followed { hash: definition, kind, name, canonical, source, file }
    }
}

/// See [`Command::Start`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The workflow's id.
    pub workflow_id: Arc<str>,
    /// The hash of the definition.
    pub definition: Hash,
    /// `ows` or `rust`.
    pub kind: String,
    /// What a person calls the definition.
    pub name: String,
    /// The definition's canonical JSON.
    pub canonical: String,
    /// Its source as given.
    pub source: String,
    /// The file that it was loaded from, by its whole path, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The workflow's input.
    pub input: Value,
}

impl Start {
    /// The definition as the store keeps it.
    pub fn stored_definition(&self) -> Definition {
        Definition {
            hash: self.definition,
            kind: self.kind.clone(),
            name: self.name.clone(),
            canonical: self.canonical.clone(),
            source: self.source.clone(),
        }
    }

    /// Whether the id can be a workflow's: 1 to 200 bytes, no control characters, no white space
    /// at its ends, no `~` (forks are named with it), no `-` at its beginning (a command line takes it
    /// for an option).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_id(id: &str) -> Result<(), Refusal> {
        let wrong = if id.is_empty() {
            "is empty"
        } else if id.len() > limits::WORKFLOW_ID_MAX_BYTES {
            "is longer than 200 bytes"
        } else if id.chars().any(char::is_control) || id.trim() != id {
            "holds control characters, or white space at its ends"
        } else if id.contains('~') {
            "holds `~`, which names forks"
        } else if id.starts_with('-') {
            "begins with `-`, as options do"
        } else {
            return Ok(());
        };
        let hint = "an id is a text of 1 to 200 bytes; of letters, digits, `-`, `_` and `.` it needs no quotes in a shell";
        Err(Refusal::new(format!("workflow id {id:?} {wrong}"), hint))
    }
}

impl Fork {
    /// Whether a fork of `parent` may be called `id`: a family lies on one shard by the part of its ids
    /// before the first `~`.
    ///
    /// # Errors
    /// It may not.
    pub fn check_id(id: &str, parent: &str) -> Result<(), Refusal> {
        let tail = id.strip_prefix(parent).and_then(|tail| tail.strip_prefix('~')).unwrap_or_default();
        let is_plain =
            !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        match is_plain && id.len() <= limits::WORKFLOW_ID_MAX_BYTES {
            true => Ok(()),
            false => Err(Refusal::new(
                format!("a fork of `{parent}` cannot be called {id:?}"),
                format!(
                    "a fork is named `{parent}~…`, with letters and digits behind the `~`, 200 bytes at most"
                ),
            )),
        }
    }
}

impl Command {
    /// The command without what the rules find in what it brings.
    pub fn redacted(&self, rules: &Redaction) -> Command {
        let mut command = self.clone();
        match &mut command {
            Command::Start(start) => start.input = rules.value(start.input.take()),
            // By the rules of the target when it is said; it is no caller's.
            Command::Resume { .. } | Command::Event { .. } => {}
            Command::Signal { data, error, .. } => {
                *data = rules.value(data.take());
                *error = error.take().map(|error| Box::new(rules.failure(*error)));
            }
            Command::Cancel { reason, .. }
            | Command::Pause { reason, .. }
            | Command::Unpause { reason, .. }
            | Command::Compensate { reason, .. } => {
                *reason = rules.text(reason).into_owned();
            }
            Command::Retry { reason, back, .. } => {
                *reason = rules.text(reason).into_owned();
                if let Some(back) = back {
                    back.changes = rules.changes(back.changes.clone());
                }
            }
            Command::Fork(fork) => fork.changes = rules.changes(fork.changes.clone()),
            Command::Settle { output, .. } => *output = output.take().map(|output| rules.value(output)),
            Command::Resolve { landed, .. } => *landed = landed.take().map(|output| rules.value(output)),
            Command::Record { data, .. } => *data = rules.value(data.take()),
            Command::Append { events, .. } => {
                events.iter_mut().for_each(|(_, data)| *data = rules.value(data.take()));
            }
        }
        command
    }

    /// The workflow it speaks of.
    pub fn workflow_id(&self) -> &Arc<str> {
        match self {
            Command::Start(start) => &start.workflow_id,
            Command::Fork(fork) => &fork.workflow_id,
            Command::Settle { workflow_id, .. }
            | Command::Append { workflow_id, .. }
            | Command::Resume { workflow_id }
            | Command::Retry { workflow_id, .. }
            | Command::Cancel { workflow_id, .. }
            | Command::Pause { workflow_id, .. }
            | Command::Unpause { workflow_id, .. }
            | Command::Signal { workflow_id, .. }
            | Command::Event { workflow_id, .. }
            | Command::Compensate { workflow_id, .. }
            | Command::Resolve { workflow_id, .. }
            | Command::Record { workflow_id, .. } => workflow_id,
        }
    }
}

/// The answer to a command.
pub type Answer = Result<Accepted, Refusal>;

/// A command that was carried out, durably.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accepted {
    /// The workflow's status.
    pub status: Status,
    /// Whether the workflow was there already.
    pub attached: bool,
    /// The last version that an append wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
}

/// A command that was refused: the caller's mistake, told to a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// Whether the log of the workflow is what is wrong, not the command: it is quarantined.
    #[serde(default)]
    pub is_quarantined: bool,
    /// Whether the workflow needs a value that was erased.
    #[serde(default)]
    pub needs_erased: bool,
    /// Whether the id that a fork would have is another workflow's.
    #[serde(default)]
    pub is_taken: bool,
    /// The last version of a log that is not where an append expected it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflict: Option<Version>,
}

impl Refusal {
    /// A refusal.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
        Refusal {
            message: message.into(),
            hint: hint.into(),
            is_quarantined: false,
            needs_erased: false,
            is_taken: false,
            conflict: None,
        }
    }

    /// The refusal of a command to a workflow whose log was taken away.
    pub fn pruned(id: &str, pruned: &Pruned) -> Refusal {
        Refusal::new(
            format!("`{id}` was pruned: it ended `{}` at version {}", pruned.status, pruned.versions.1),
            "its log is gone; `foldback list` shows what there is",
        )
    }

    /// The refusal of a command to a workflow that a store does not have, or no longer.
    pub fn not_there(store: &dyn Store, id: &str) -> Refusal {
        // Where the store cannot say, the workflow is not there all the same.
        let pruned = store.pruned(id).ok().flatten();
        pruned.map_or_else(|| Refusal::unknown_workflow(id), |pruned| Refusal::pruned(id, &pruned))
    }

    /// The refusal of a command to a workflow that never was there.
    pub fn unknown_workflow(id: &str) -> Refusal {
        Refusal::new(
            format!("no workflow {id:?} in this store"),
            "`foldback list` shows what is there; is --store right?",
        )
    }
}
