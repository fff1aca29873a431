//! From a file to the store. Everything is judged before the first byte is written, and it is
//! written in one commit: a workflow is there whole or not at all.
//!
//! It never repairs a file and never guesses. What it holds in memory is bounded by
//! [`limits::IMPORT_MAX_BYTES`].

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::sync::mpsc::channel;

use foldback_core::{Fact, Hash, Micros, Slot, Status, Version, WorkflowState, limits, state::Owed};
use foldback_engine::load::decode;
use foldback_engine::{LoadError, Start};
use foldback_store::chain::verify_chain;
use foldback_store::{
    Append, Commit, CommitError, Definition, Expected, NewEvent, NewWorkflow, Store, StoreError,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lines::{self, DefinitionLine, End, EventLine, FORMAT, Header, PayloadLine, Seal};
use super::{Counts, ExchangeError};

/// What became of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The workflow.
    pub workflow_id: String,
    /// Its status, by its log.
    pub status: Status,
    /// What the file holds.
    pub counts: Counts,
    /// Whether the store had the same log before, so that nothing was written.
    pub is_known: bool,
}

/// Reads a workflow that [`export`](super::export()) wrote.
///
/// # Errors
/// The file is not exactly what an export writes, its log breaks the law, the store has another
/// workflow of that id, another process owns the store, or the store or `file` fails.
pub fn import(store: &dyn Store, file: &mut dyn BufRead) -> Result<Imported, ExchangeError> {
    let mut lines = Lines { file, number: 0, bytes: 0, seal: Seal::new() };
    let read = Reading::of(&mut lines).map_err(|trouble| match trouble {
        Trouble::Line(what) => ExchangeError::refused(
            format!("line {}: {what}", lines.number),
            "nothing was imported; export the workflow anew where it comes from",
        ),
        Trouble::Io(error) => ExchangeError::Io(error),
    })?;
    read.write(store)
}

enum Trouble {
    Line(String),
    Io(std::io::Error),
}

impl From<String> for Trouble {
    fn from(what: String) -> Trouble {
        Trouble::Line(what)
    }
}

impl From<&str> for Trouble {
    fn from(what: &str) -> Trouble {
        Trouble::Line(what.to_owned())
    }
}

struct Lines<'a> {
    file: &'a mut dyn BufRead,
    number: u64,
    bytes: usize,
    seal: Seal,
}

impl Lines<'_> {
    /// The next line without its end; `None` behind the last.
    fn next(&mut self) -> Result<Option<String>, Trouble> {
        self.number += 1;
        let mut line = Vec::new();
        let room = limits::IMPORT_MAX_BYTES - self.bytes;
        (&mut *self.file).take(room as u64 + 1).read_until(b'\n', &mut line).map_err(Trouble::Io)?;
        if line.len() > room {
            let max = limits::IMPORT_MAX_BYTES;
            return Err(format!("the file is longer than {max} bytes, more than can be imported").into());
        }
        if line.is_empty() {
            return Ok(None);
        }
        self.bytes += line.len();
        if line.pop() != Some(b'\n') {
            return Err("the file is cut off inside this line".into());
        }
        match String::from_utf8(line) {
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(format!("byte {} is not UTF-8", error.utf8_error().valid_up_to() + 1).into()),
        }
    }

    fn must(&mut self, what: &str) -> Result<String, Trouble> {
        self.next()?.ok_or_else(|| format!("the file ends where {what} is expected").into())
    }

    /// A line as data. It has one spelling alone, so that the next export writes the same bytes.
    fn read<T: Serialize + DeserializeOwned>(&mut self, line: &str) -> Result<T, Trouble> {
        let read: T = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if serde_json::to_string(&read).map_err(|error| error.to_string())? != line {
            return Err("it is not spelled as an export spells it".into());
        }
        self.seal.take(line.as_bytes());
        Ok(read)
    }
}

struct Reading {
    header: Header,
    definition: Definition,
    values: Vec<lines::Value>,
    /// Place in `values`, and whether an event needs it.
    places: HashMap<Hash, (usize, bool)>,
    events: Vec<NewEvent>,
    state: WorkflowState,
    chain: Hash,
}

impl Reading {
    fn of(lines: &mut Lines<'_>) -> Result<Reading, Trouble> {
        let line = lines.must("the header")?;
        let format = serde_json::from_str::<Format>(&line).map_err(|_| "this is no export of Foldback")?;
        if format.foldback_export != FORMAT {
            let version = format.foldback_export;
            return Err(format!("format {version} is not known to this build of Foldback").into());
        }
        let header: Header = lines.read(&line)?;
        Start::check_id(&header.workflow_id).map_err(|refusal| refusal.message)?;
        let line = lines.must("the definition")?;
        let definition = Definition::from(lines.read::<DefinitionLine>(&line)?);
        if definition.hash != header.definition {
            return Err("this is not the definition that the header names".into());
        }
        if Hash::of_bytes(definition.canonical.as_bytes()) != definition.hash {
            return Err("the definition does not match its hash".into());
        }
        let state = WorkflowState::empty(&header.workflow_id);
        let mut reading = Reading {
            header,
            definition,
            values: Vec::new(),
            places: HashMap::new(),
            events: Vec::new(),
            state,
            chain: Hash::ZERO,
        };
        loop {
            let line = lines.must("an event or the end")?;
            if line.starts_with(r#"{"event":"#) {
                reading.event(lines.read(&line)?)?;
            } else if line.starts_with(r#"{"payload":"#) {
                reading.payload(lines.read(&line)?)?;
            } else if line.starts_with(r#"{"end":"#) {
                let seal = lines.seal.0;
                reading.end(&lines.read(&line)?, seal)?;
                break;
            } else {
                return Err("it is neither an event, a payload nor the end".into());
            }
        }
        match lines.next()? {
            None => Ok(reading),
            Some(_) => Err("something stands behind the end".into()),
        }
    }

    fn payload(&mut self, line: PayloadLine) -> Result<(), Trouble> {
        let hash = line.payload;
        let value = line.into_value().map_err(|why| format!("payload {hash}: {why}"))?;
        if self.places.insert(hash, (self.values.len(), false)).is_some() {
            return Err(format!("payload {hash} is there twice").into());
        }
        self.values.push(value);
        Ok(())
    }

    fn event(&mut self, line: EventLine) -> Result<(), Trouble> {
        let recorded = line.into_recorded(&self.header.workflow_id, &self.header.tenant)?;
        if recorded.version != self.state.version + 1 {
            let (found, wanted) = (recorded.version, self.state.version + 1);
            return Err(format!("version {found} stands where version {wanted} is expected").into());
        }
        verify_chain(self.chain, &recorded)?;
        let event = decode(&recorded).map_err(|error| match error {
            LoadError::Quarantined { reason, .. } => reason,
            LoadError::Store(error) => error.message,
            erased @ LoadError::Erased { .. } => erased.to_string(),
        })?;
        for slot in event.fact.slots() {
            self.needs(slot)?;
        }
        self.state.admits(&event).map_err(|illegal| illegal.to_string())?;
        if let Fact::WorkflowStarted(started) = &event.fact {
            self.begins(started.definition, &started.input)?;
        }
        self.state.apply(&event);
        self.chain = recorded.hash;
        self.events.push(recorded.event);
        Ok(())
    }

    /// What an event refers to must stand before it.
    fn needs(&mut self, slot: &Slot) -> Result<(), Trouble> {
        let Slot::Stored(stored) = slot else { return Ok(()) };
        let Some((place, is_needed)) = self.places.get_mut(&stored.hash) else {
            return Err(format!("payload {} does not stand before the event", stored.hash).into());
        };
        let bytes = match &self.values[*place] {
            lines::Value::There(payload) => payload.bytes.len() as u64,
            lines::Value::Erased(tombstone) => tombstone.bytes,
        };
        if bytes != stored.bytes {
            return Err(format!("payload {} has another length than its event says", stored.hash).into());
        }
        *is_needed = true;
        Ok(())
    }

    fn begins(&self, definition: Hash, input: &Slot) -> Result<(), Trouble> {
        if definition != self.header.definition {
            return Err("the header names another definition than the first event".into());
        }
        let value = match input {
            Slot::Inline(value) => (**value).clone(),
            Slot::Stored(stored) => {
                let (place, _) = self.places[&stored.hash];
                match &self.values[place] {
                    lines::Value::There(payload) => {
                        serde_json::from_slice(&payload.bytes).map_err(|error| error.to_string())?
                    }
                    // Whether it is the input that the header names, nobody can tell any more.
                    lines::Value::Erased(_) => return Ok(()),
                }
            }
        };
        match self.header.input_hash {
            Some(hash) if hash != Hash::of_json(&value) => {
                Err("the header names another input than the first event".into())
            }
            _ => Ok(()),
        }
    }

    fn end(&self, end: &End, seal: Hash) -> Result<(), Trouble> {
        if self.events.is_empty() {
            return Err("there is no event".into());
        }
        let payloads = self.values.len() as u64;
        if (end.end, end.payloads, end.chain) != (self.state.version, payloads, self.chain) {
            return Err("the end does not match the lines before it: some are missing or added".into());
        }
        if end.lines != seal {
            return Err("a line was changed: the hash over all lines does not match".into());
        }
        match self.places.iter().find(|(_, (_, is_needed))| !is_needed) {
            Some((hash, _)) => Err(format!("no event needs payload {hash}").into()),
            None => Ok(()),
        }
    }

    fn write(self, store: &dyn Store) -> Result<Imported, ExchangeError> {
        let imported = Imported {
            workflow_id: self.header.workflow_id.clone(),
            status: self.state.status(),
            counts: Counts { events: self.state.version, payloads: self.values.len() as u64 },
            is_known: false,
        };
        if is_known(store, &imported.workflow_id, self.state.version, self.chain)? {
            return Ok(Imported { is_known: true, ..imported });
        }
        let Some(ownership) = store.acquire(0, "import")? else {
            return Err(ExchangeError::refused(
                "another process owns the store",
                "import when it is done, or into another store with --store",
            ));
        };
        let commit = self.into_commit(ownership.epoch);
        let (tell, told) = channel();
        store.commit(commit, Box::new(move |result| drop(tell.send(result))));
        match told.recv() {
            Ok(Ok(_)) => Ok(imported),
            Ok(Err(error)) => Err(not_written(error)),
            Err(_) => Err(ExchangeError::Store(StoreError {
                message: "the store went away".into(),
                hint: None,
                is_input: false,
            })),
        }
    }

    fn into_commit(self, epoch: u64) -> Commit {
        let workflow_id = self.state.workflow_id.clone();
        let (mut payloads, mut tombstones) = (Vec::new(), Vec::new());
        for value in self.values {
            match value {
                lines::Value::There(payload) => payloads.push(payload),
                lines::Value::Erased(tombstone) => tombstones.push(tombstone),
            }
        }
        let append = Append {
            workflow_id: workflow_id.clone(),
            expected: Expected::NoStream,
            events: self.events,
            begins: Some(NewWorkflow {
                tenant: self.header.tenant,
                definition: Some(self.header.definition),
                name: self.header.name,
                input_hash: self.header.input_hash,
                parent: None,
            }),
            status: Some(self.state.status().as_str()),
        };
        Commit {
            shard: 0,
            epoch,
            appends: vec![append],
            payloads,
            tombstones,
            definitions: vec![self.definition],
            wakeups: vec![(workflow_id, wake_at(&self.state))],
            ..Commit::default()
        }
    }
}

#[derive(serde::Deserialize)]
struct Format {
    foldback_export: u32,
}

fn wake_at(state: &WorkflowState) -> Option<Micros> {
    let due = |owed: Owed| match owed {
        Owed::Retry(_, due) | Owed::Timer(_, due) => Some(due),
        Owed::Start(_) | Owed::Attempt(..) => None,
    };
    state.owes().into_iter().filter_map(due).min()
}

/// Whether the store has this very log. Another log of the same id is refused.
fn is_known(store: &dyn Store, id: &str, version: Version, chain: Hash) -> Result<bool, ExchangeError> {
    let Some(row) = store.workflow(id)? else { return Ok(false) };
    let last = store.read(id, version - 1, 1)?;
    if row.version == version && last.first().is_some_and(|recorded| recorded.hash == chain) {
        return Ok(true);
    }
    Err(ExchangeError::refused(
        format!("the store has another log of `{id}`, at version {}", row.version),
        "import into another store with --store",
    ))
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
