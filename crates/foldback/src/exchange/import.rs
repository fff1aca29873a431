//! From a file to the store. Everything is judged before the first byte is written, and it is
//! written in one commit: a workflow is there whole or not at all.
//!
//! It never repairs a file and never guesses. What it holds in memory is bounded by
//! [`limits::IMPORT_MAX_BYTES`].

use std::collections::HashMap;
use std::io::{BufRead, Read};
use std::sync::mpsc::channel;

use foldback_core::{Event, Fact, Hash, Micros, Slot, Status, Version, WorkflowState, limits, state::Owed};
use foldback_engine::load::decode;
use foldback_engine::{LoadError, Start};
use foldback_store::chain::verify_chain;
use foldback_store::{
    Append, Commit, CommitError, Definition, Expected, NewEvent, NewWorkflow, Store, StoreError,
};
use serde::Serialize;
use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};

use super::lines::{self, DefinitionLine, End, EventLine, FORMAT, Header, PayloadLine, Seal};
use super::{Counts, ExchangeError};
use crate::programs::definition_hash;

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
    let read = Reading::of(&mut lines).map_err(|trouble| {
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
    read.write(store)
}

enum Trouble {
    Line(String),
    /// Past a bound.
    TooLong(String),
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
    /// The first line. It is short, so that a file of another kind is known as one at once.
    fn first(&mut self) -> Result<String, Trouble> {
        self.next_within(limits::IMPORT_HEADER_MAX_BYTES, "this is no export of Foldback: its first line")?
            .ok_or_else(|| "the file ends where the header is expected".into())
    }

    /// The next line without its end; `None` behind the last.
    fn next(&mut self) -> Result<Option<String>, Trouble> {
        self.next_within(limits::IMPORT_MAX_BYTES - self.bytes, "the file")
    }

    fn next_within(&mut self, room: usize, what: &str) -> Result<Option<String>, Trouble> {
        self.number += 1;
        let mut line = Vec::new();
        (&mut *self.file).take(room as u64 + 1).read_until(b'\n', &mut line).map_err(Trouble::Io)?;
        if line.len() > room {
            let most = self.bytes + room;
            return Err(Trouble::TooLong(format!("{what} is longer than {most} bytes")));
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
    places: HashMap<Hash, Place>,
    events: Vec<NewEvent>,
    state: WorkflowState,
    chain: Hash,
}

/// Where a value stands.
struct Place {
    /// Its place among the values.
    at: usize,
    /// Whether an event needs it.
    is_needed: bool,
    /// Whether it was found to be JSON.
    is_json: bool,
}

impl Reading {
    fn of(lines: &mut Lines<'_>) -> Result<Reading, Trouble> {
        let line = lines.first()?;
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
        if definition_hash(&definition) != definition.hash {
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
        let most = limits::VALUE_MAX_BYTES;
        if matches!(&value, lines::Value::There(payload) if payload.bytes.len() > most) {
            return Err(Trouble::TooLong(format!("payload {hash} has more than {most} bytes")));
        }
        let place = Place { at: self.values.len(), is_needed: false, is_json: false };
        if self.places.insert(hash, place).is_some() {
            return Err(format!("payload {hash} is there twice").into());
        }
        self.values.push(value);
        Ok(())
    }

    fn event(&mut self, line: EventLine) -> Result<(), Trouble> {
        let most = limits::EVENT_MAX_BYTES;
        if line.payload.len() > most {
            return Err(Trouble::TooLong(format!("the event has more than {most} bytes")));
        }
        let recorded = line.into_recorded(&self.header.workflow_id, &self.header.tenant)?;
        if recorded.version != self.state.version + 1 {
            let (found, wanted) = (recorded.version, self.state.version + 1);
            return Err(format!("version {found} stands where version {wanted} is expected").into());
        }
        verify_chain(self.chain, &recorded)?;
        let mut event = decode(&recorded).map_err(|error| match error {
            LoadError::Quarantined { reason, .. } => reason,
            LoadError::Store(error) => error.message,
            erased @ LoadError::Erased { .. } => erased.to_string(),
        })?;
        for slot in event.fact.slots() {
            self.needs(slot)?;
        }
        if let Some(version) = event.fact.goes_back_to() {
            let base = self.base(version)?;
            self.state.rewind(base);
        }
        self.state.admits(&event).map_err(|illegal| illegal.to_string())?;
        if let Fact::WorkflowStarted(started) = &event.fact {
            if let Some(lineage) = &started.lineage {
                let parent = &lineage.parent;
                return Err(format!(
                    "it is the log of a fork of `{parent}`, and forks cannot be imported yet"
                )
                .into());
            }
            self.begins(started.definition, &started.input)?;
        }
        // Status and wake-up depend on no value. Without values the state stays small, also where a
        // file was made to be large in memory.
        event.fact.slots_mut().into_iter().for_each(|slot| *slot = Slot::null());
        self.state.apply(&event);
        self.chain = recorded.hash;
        self.events.push(recorded.event);
        Ok(())
    }

    /// The state at an earlier version, without values: the log goes back to it.
    fn base(&self, version: Version) -> Result<WorkflowState, Trouble> {
        let before = self.events.iter().take(usize::try_from(version).unwrap_or(usize::MAX));
        let mut events = Vec::new();
        for (written, version) in before.zip(1..) {
            let fact = Fact::decode(&written.event_type, written.schema_version, &written.payload);
            let mut fact = fact.map_err(|e| e.to_string())?;
            fact.slots_mut().into_iter().for_each(|slot| *slot = Slot::null());
            events.push(Event {
                id: written.id,
                version,
                timestamp: written.timestamp,
                causation_id: written.causation_id,
                correlation_id: written.correlation_id,
                actor: written.actor.clone(),
                fact,
            });
        }
        Ok(WorkflowState::folded(&self.header.workflow_id, &events))
    }

    /// What an event refers to must stand before it.
    fn needs(&mut self, slot: &Slot) -> Result<(), Trouble> {
        let Slot::Stored(stored) = slot else { return Ok(()) };
        let Some(place) = self.places.get_mut(&stored.hash) else {
            return Err(format!("payload {} does not stand before the event", stored.hash).into());
        };
        let value = &self.values[place.at];
        let bytes = match value {
            lines::Value::There(payload) => payload.bytes.len() as u64,
            lines::Value::Erased(tombstone) => tombstone.bytes,
        };
        if bytes != stored.bytes {
            return Err(format!("payload {} has another length than its event says", stored.hash).into());
        }
        if let lines::Value::There(payload) = value
            && stored.is_json()
            && !place.is_json
        {
            whole_json(&payload.bytes).map_err(|why| format!("payload {} is no JSON: {why}", stored.hash))?;
            place.is_json = true;
        }
        place.is_needed = true;
        Ok(())
    }

    fn begins(&self, definition: Hash, input: &Slot) -> Result<(), Trouble> {
        if definition != self.header.definition {
            return Err("the header names another definition than the first event".into());
        }
        let value = match input {
            Slot::Inline(value) => (**value).clone(),
            Slot::Stored(stored) => {
                match &self.values[self.places[&stored.hash].at] {
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
        match self.places.iter().find(|(_, place)| !place.is_needed) {
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

/// Whether these bytes are JSON that a reader of the log can read, without making the value: small
/// bytes may be large in memory.
fn whole_json(bytes: &[u8]) -> Result<(), String> {
    serde_json::from_slice::<Looked>(bytes).map(|_| ()).map_err(|error| error.to_string())
}

/// Any JSON value, looked at and let go. Unlike serde's own `IgnoredAny` it is as strict as a reader:
/// about nesting, numbers and texts.
struct Looked;

impl<'de> serde::Deserialize<'de> for Looked {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Looked, D::Error> {
        from.deserialize_any(Looked)
    }
}

impl<'de> Visitor<'de> for Looked {
    type Value = Looked;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_str<E>(self, _: &str) -> Result<Looked, E> {
        Ok(Looked)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Looked, A::Error> {
        while items.next_element::<Looked>()?.is_some() {}
        Ok(Looked)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Looked, A::Error> {
        while members.next_entry::<Looked, Looked>()?.is_some() {}
        Ok(Looked)
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
