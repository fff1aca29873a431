//! From a file to the store. Everything is judged before the first byte is written, and each
//! workflow is written in one commit: it is there whole or not at all. Of a fork, its ancestors are
//! written before it, root first; those that the store has already are left as they are.
//!
//! It never repairs a file and never guesses. What it holds in memory is bounded by
//! [`foldback_core::limits::IMPORT_MAX_BYTES`].

use std::io::BufRead;
use std::sync::mpsc::channel;

use foldback_core::{Status, Version};
use foldback_store::{Append, Commit, CommitError, Expected, NewWorkflow, Store, StoreError};

use super::document::{Document, documents};
use super::lines;
use super::reader::{Lines, Trouble};
use super::{Counts, ExchangeError};

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The workflow.
    pub workflow_id: String,
    /// Its status, by its log.
    pub status: Status,
    /// Its last version.
    pub version: Version,
    /// What its document holds: of a fork, the events that are its own.
    pub counts: Counts,
    /// Requests that could not be compared with their hashes, because a part was erased.
    pub unchecked: u64,
    /// Whether the store had the same log before, so that nothing was written; of an ancestor, also
    /// whether it had more.
    pub is_known: bool,
    /// The workflows whose past it shares, root first.
    pub ancestors: Vec<Imported>,
}

/// Reads a workflow that [`export`](super::export()) wrote, and its ancestors where it is a fork.
///
/// # Errors
/// The file is not exactly what an export writes, a log breaks the law, the store has another
/// workflow of that id, another process owns the store, or the store or `file` fails. Nothing was
/// written then; but where a store fails, or finds an event's supplied id in another workflow,
/// ancestors may be there, whole.
pub fn import(store: &dyn Store, file: &mut dyn BufRead) -> Result<Imported, ExchangeError> {
    let mut lines = Lines::of(file);
    let read = documents(&mut lines).map_err(|trouble| {
        let refused = |what: String, hint| ExchangeError::refused(format!("line {}: {what}", lines.number), hint);
        match trouble {
            Trouble::Line(what) => {
                refused(what, "nothing was imported; export the workflow anew where it comes from")
            }
            Trouble::TooLong(what) => refused(
                what,
                "nothing was imported; what is larger moves with its store: copy the database while nobody uses it",
            ),
            Trouble::Io(error) => ExchangeError::Io(error),
        }
    })?;
    let last = read.len() - 1;
    let known = read.iter().enumerate().map(|(at, document)| is_known(store, document, at < last));
    let known = known.collect::<Result<Vec<bool>, _>>()?;
    let told = read.iter().zip(&known).map(|(document, is_known)| told(document, *is_known));
    let mut told: Vec<Imported> = told.collect();
    write(
        store,
        read.into_iter().zip(known).filter(|(_, is_known)| !is_known).map(|(document, _)| document),
    )?;
    let imported = told.pop().map(|imported| Imported { ancestors: told, ..imported });
    imported.ok_or_else(|| ExchangeError::refused("the file is empty", "name a file that an export wrote"))
}

fn told(document: &Document, is_known: bool) -> Imported {
    Imported {
        workflow_id: document.header.workflow_id.clone(),
        status: document.state.status(),
        version: document.state.version,
        counts: Counts { events: document.events.len() as u64, payloads: document.values.len() as u64 },
        unchecked: document.unchecked,
        is_known,
        ancestors: Vec::new(),
    }
}

/// Whether the store has this very log; of an ancestor it may have more. Another log of the same id
/// is refused.
fn is_known(store: &dyn Store, document: &Document, is_ancestor: bool) -> Result<bool, ExchangeError> {
    let (id, version) = (&document.header.workflow_id, document.state.version);
    let elsewhere = "import into another store with --store";
    let Some(row) = store.workflow(id)? else {
        return match store.pruned(id)? {
            None => Ok(false),
            Some(_) => Err(ExchangeError::refused(
                format!("`{id}` was pruned from this store, and an id that was pruned never begins again"),
                elsewhere,
            )),
        };
    };
    let there = store.read(id, version - 1, 1)?;
    let has_it = there.first().is_some_and(|recorded| recorded.hash == document.chain);
    if has_it && (row.version == version || is_ancestor) {
        return Ok(true);
    }
    Err(ExchangeError::refused(
        format!("the store has another log of `{id}`, at version {}", row.version),
        elsewhere,
    ))
}

fn write(store: &dyn Store, documents: impl Iterator<Item = Document>) -> Result<(), ExchangeError> {
    let mut documents = documents.peekable();
    if documents.peek().is_none() {
        return Ok(());
    }
    let Some(ownership) = store.acquire(0, "import")? else {
        return Err(ExchangeError::refused(
            "another process owns the store",
            "import when it is done, or into another store with --store",
        ));
    };
    for document in documents {
        let (tell, told) = channel();
        store.commit(commit(document, ownership.epoch), Box::new(move |result| drop(tell.send(result))));
        match told.recv() {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(not_written(error)),
            Err(_) => {
                return Err(ExchangeError::Store(StoreError {
                    message: "the store went away".into(),
                    hint: None,
                    is_input: false,
                }));
            }
        }
    }
    Ok(())
}

fn commit(document: Document, epoch: u64) -> Commit {
    let workflow_id = document.state.workflow_id.clone();
    let (mut payloads, mut tombstones) = (Vec::new(), Vec::new());
    for value in document.values {
        match value {
            lines::Value::There(payload) => payloads.push(payload),
            lines::Value::Erased(tombstone) => tombstones.push(tombstone),
        }
    }
    let header = document.header;
    let append = Append {
        workflow_id: workflow_id.clone(),
        expected: Expected::NoStream,
        events: document.events,
        begins: Some(NewWorkflow {
            tenant: header.tenant,
            definition: Some(header.definition),
            name: header.name,
            input_hash: header.input_hash,
            parent: header.lineage.map(|lineage| (lineage.parent, lineage.cut, lineage.cut_hash)),
        }),
        status: Some(document.state.status().as_str()),
    };
    Commit {
        shard: 0,
        epoch,
        appends: vec![append],
        payloads,
        tombstones,
        definitions: document.definitions,
        wakeups: vec![(workflow_id.clone(), document.state.wake_at())],
        listens: vec![(workflow_id, document.state.listens_for())],
        ..Commit::default()
    }
}

fn not_written(error: CommitError) -> ExchangeError {
    match error {
        CommitError::Failed(error) => ExchangeError::Store(error),
        CommitError::IdTaken { id } => ExchangeError::refused(
            format!("the store has another event with the id {id}"),
            "import into another store with --store",
        ),
        other => {
            ExchangeError::refused(format!("the store changed meanwhile: {other:?}"), "import once more")
        }
    }
}
