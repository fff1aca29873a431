//! One document of a file, judged whole: spelling, versions, chain, values, definitions, the law.
//!
//! A fork is judged behind the past that it shares: the documents before its own are those of its
//! ancestors, root first. Of events that were judged, what is kept in memory has no values.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use foldback_core::asked::{Hashed, Requests};
use foldback_core::event::clock_of;
use foldback_core::value::{Part, StoredRef};
use foldback_core::{Event, Fact, Hash, Micros, Slot, Version, WorkflowState, json, limits};
use foldback_engine::load::decode;
use foldback_engine::{Fork, LoadError, Start};
use foldback_store::chain::verify_chain;
use foldback_store::{Definition, NewEvent};
use serde_json::Value;

use super::keys::keys;
use super::lines::{self, DefinitionLine, End, EventLine, FORMAT, Header, PayloadLine};
use super::reader::{Lines, Trouble};
use crate::programs::definition_hash;

/// What a document holds.
pub struct Document {
    pub header: Header,
    /// The definition that the header names, and those that are followed later.
    pub definitions: Vec<Definition>,
    pub values: Vec<lines::Value>,
    /// Its own events.
    pub events: Vec<NewEvent>,
    /// The state behind them, without values; but for the input, whose hash stands in its place.
    pub state: WorkflowState,
    /// The chain hash of the last event.
    pub chain: Hash,
    /// The chain hash of each own event.
    hashes: Vec<Hash>,
    places: HashMap<Hash, Place>,
    /// Definitions and values that stand before the next event.
    waiting: Vec<Hash>,
    /// Hashes of the inputs that events bring.
    inputs: BTreeMap<Version, Slot>,
    requests: Requests,
    /// Requests that cannot be compared with their hashes: a part was erased.
    pub unchecked: u64,
}

/// Where a value stands.
struct Place {
    /// Its place among the values.
    at: usize,
    /// Whether it was found to be JSON.
    is_json: bool,
}

#[derive(serde::Deserialize)]
struct Format {
    foldback_export: u32,
}

/// Reads a file: a workflow behind its ancestors.
pub fn documents(lines: &mut Lines<'_>) -> Result<Vec<Document>, Trouble> {
    let mut read = Vec::new();
    while let Some(line) = lines.first()? {
        let mut document = Document::begun(lines, &line, &read)?;
        document.go_on(lines, &read)?;
        read.push(document);
    }
    match read.is_empty() {
        true => Err("the file ends where the header is expected".into()),
        false => Ok(read),
    }
}

impl Document {
    fn begun(lines: &mut Lines<'_>, line: &str, before: &[Document]) -> Result<Document, Trouble> {
        let format = serde_json::from_str::<Format>(line).map_err(|_| match before {
            [] => "this is no export of Foldback",
            _ => "something stands behind the end",
        })?;
        if format.foldback_export != FORMAT {
            let version = format.foldback_export;
            return Err(format!("format {version} is not known to this build of Foldback").into());
        }
        let header: Header = lines.read(line)?;
        let (state, chain) = cut(&header, before)?;
        let mut document = Document {
            header,
            definitions: Vec::new(),
            values: Vec::new(),
            events: Vec::new(),
            state,
            chain,
            hashes: Vec::new(),
            places: HashMap::new(),
            waiting: Vec::new(),
            inputs: BTreeMap::new(),
            requests: before.last().map(|parent| parent.requests.clone()).unwrap_or_default(),
            unchecked: 0,
        };
        let line = lines.must("the definition")?;
        let hash = document.definition(lines.read(&line)?, before)?;
        match hash == document.header.definition {
            true => Ok(document),
            false => Err("this is not the definition that the header names".into()),
        }
    }

    fn go_on(&mut self, lines: &mut Lines<'_>, before: &[Document]) -> Result<(), Trouble> {
        loop {
            let line = lines.must("an event or the end")?;
            if line.starts_with(r#"{"event":"#) {
                self.event(lines.read(&line)?, before)?;
            } else if line.starts_with(r#"{"payload":"#) {
                self.payload(lines.read(&line)?, before)?;
            } else if line.starts_with(r#"{"definition":"#) {
                let hash = self.definition(lines.read(&line)?, before)?;
                self.waiting.push(hash);
            } else if line.starts_with(r#"{"end":"#) {
                let seal = lines.seal.0;
                return self.end(&lines.read(&line)?, seal);
            } else {
                return Err("it is neither an event, a payload, a definition nor the end".into());
            }
        }
    }

    /// The version behind which its own events stand.
    fn cut(&self) -> Version {
        self.header.lineage.as_ref().map_or(0, |lineage| lineage.cut)
    }

    fn definition(&mut self, line: DefinitionLine, before: &[Document]) -> Result<Hash, Trouble> {
        let definition = Definition::from(line);
        let hash = definition.hash;
        if definition_hash(&definition) != hash {
            return Err("the definition does not match its hash".into());
        }
        if self.definitions.iter().any(|known| known.hash == hash) {
            return Err(format!("definition {hash} is there twice").into());
        }
        // A store has one of each hash, which does not cover the source.
        let mut others = before.iter().flat_map(|document| &document.definitions);
        if others.any(|other| other.hash == hash && *other != definition) {
            return Err(format!("definition {hash} is another one in a document before").into());
        }
        self.definitions.push(definition);
        Ok(hash)
    }

    fn payload(&mut self, line: PayloadLine, before: &[Document]) -> Result<(), Trouble> {
        let hash = line.payload;
        let value = line.into_value().map_err(|why| format!("payload {hash}: {why}"))?;
        let most = limits::VALUE_MAX_BYTES;
        if matches!(&value, lines::Value::Erased(tombstone) if !limits::MOMENTS.contains(&tombstone.at)) {
            return Err(format!("payload {hash}: it was not erased in the years 1970 to 9999").into());
        }
        if matches!(&value, lines::Value::There(payload) if payload.bytes.len() > most) {
            return Err(Trouble::TooLong(format!("payload {hash} has more than {most} bytes")));
        }
        let place = Place { at: self.values.len(), is_json: false };
        if self.places.insert(hash, place).is_some() {
            return Err(format!("payload {hash} is there twice").into());
        }
        // A store has one of each hash, there or erased.
        let other = |document: &Document| {
            document.places.get(&hash).is_some_and(|place| document.values[place.at] != value)
        };
        if before.iter().any(other) {
            return Err(format!("payload {hash} is another one in a document before").into());
        }
        self.values.push(value);
        self.waiting.push(hash);
        Ok(())
    }

    fn event(&mut self, line: EventLine, before: &[Document]) -> Result<(), Trouble> {
        let most = limits::EVENT_MAX_BYTES;
        if line.payload.len() > most {
            return Err(Trouble::TooLong(format!("the event has more than {most} bytes")));
        }
        let recorded = line.into_recorded(&self.header.workflow_id, &self.header.tenant)?;
        let version = self.state.version + 1;
        if recorded.version != version {
            let found = recorded.version;
            return Err(format!("version {found} stands where version {version} is expected").into());
        }
        verify_chain(self.chain, &recorded)?;
        json::check(recorded.event.payload.as_bytes()).map_err(|why| format!("its payload: {why}"))?;
        let mut event = decode(&recorded).map_err(|error| match error {
            LoadError::Quarantined { reason, .. } => reason,
            LoadError::Store(error) => error.message,
            erased @ LoadError::Erased { .. } => erased.to_string(),
        })?;
        is_in_time(&event)?;
        if let Some(key) = keys(&event.fact).into_iter().find(|key| key.contains(char::is_control)) {
            return Err(format!("the key {key:?} holds control characters").into());
        }
        self.needs(&event.fact)?;
        self.is_what_was_hashed(&event, before)?;
        self.is_its_own(&event.fact, before)?;
        if let Some(version) = event.fact.goes_back_to() {
            let base = folded(before, Some(self), version)?;
            self.state.rewind(base);
        }
        self.state.admits(&event).map_err(|illegal| illegal.to_string())?;
        // Status and wake-up depend on no value. Without values the state stays small, also where a
        // file was made to be large in memory.
        if let Some(slot) = input_of(&mut event.fact) {
            let hash = self.hash_of(slot)?;
            self.inputs.insert(version, hash);
        }
        self.take_values(&mut event);
        self.state.apply(&event);
        if self.events.is_empty() {
            self.begins()?;
        }
        self.chain = recorded.hash;
        self.hashes.push(recorded.hash);
        self.events.push(recorded.event);
        Ok(())
    }

    /// What an event refers to stands before it, and what stands right before it is what no other event
    /// needed: an export puts it there.
    fn needs(&mut self, fact: &Fact) -> Result<(), Trouble> {
        let mut waiting = std::mem::take(&mut self.waiting).into_iter().peekable();
        if let Some(follows) = fact.changes().and_then(|changes| changes.follows.as_ref()) {
            let hash = follows.definition;
            if !self.definitions.iter().any(|known| known.hash == hash) {
                return Err(format!("definition {hash} does not stand before the event").into());
            }
            waiting.next_if_eq(&hash);
        }
        for slot in fact.slots() {
            let Slot::Stored(stored) = slot else { continue };
            self.needs_value(stored)?;
            waiting.next_if_eq(&stored.hash);
        }
        match waiting.next() {
            Some(hash) => {
                Err(format!("{} stands before an event that does not need it", self.named(&hash)).into())
            }
            None => Ok(()),
        }
    }

    fn named(&self, hash: &Hash) -> String {
        let kind = if self.places.contains_key(hash) { "payload" } else { "definition" };
        format!("{kind} {hash}")
    }

    fn needs_value(&mut self, stored: &StoredRef) -> Result<(), Trouble> {
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
            json::check(&payload.bytes)
                .map_err(|why| format!("payload {} is no JSON: {why}", stored.hash))?;
            place.is_json = true;
        }
        Ok(())
    }

    /// Whether the request of a step is the one whose hash stands beside it.
    fn is_what_was_hashed(&mut self, event: &Event, before: &[Document]) -> Result<(), Trouble> {
        let (places, values) = (&self.places, &self.values);
        let bring = &mut |slot: &mut Slot| -> Result<(), Trouble> {
            let Slot::Stored(stored) = slot else { return Ok(()) };
            // A list goes on from one whose items stand in a document before.
            let own = places.get(&stored.hash).map(|place| &values[place.at]);
            let mut others = before.iter().rev();
            let value = own.or_else(|| others.find_map(|document| document.value(&stored.hash)));
            if let (None, Some(lines::Value::There(payload))) = (&stored.value, value) {
                let read = stored.read(&payload.bytes).map_err(|error| error.to_string())?;
                stored.value = Some(Arc::new(read));
            }
            Ok(())
        };
        match self.requests.see(event, bring)? {
            None | Some(Hashed::Same) => Ok(()),
            Some(Hashed::NotAtHand) => {
                self.unchecked += 1;
                Ok(())
            }
            Some(Hashed::Other) => Err("the request of the step does not match its hash".into()),
            Some(Hashed::TooLong) => {
                let most = limits::REQUEST_MAX_BYTES;
                Err(Trouble::TooLong(format!("the request of the step has more than {most} bytes")))
            }
        }
    }

    fn value(&self, hash: &Hash) -> Option<&lines::Value> {
        self.places.get(hash).map(|place| &self.values[place.at])
    }

    /// Whether an event speaks of the past that the header names, and of no other's.
    fn is_its_own(&self, fact: &Fact, before: &[Document]) -> Result<(), Trouble> {
        let lineage = match fact {
            Fact::WorkflowStarted(started) => started.lineage.as_ref(),
            Fact::WorkflowForked(forked) => Some(&forked.lineage),
            _ => None,
        };
        let said = self.header.lineage.as_ref();
        match (self.events.is_empty(), lineage) {
            (true, _) if lineage != said => {
                return Err("the header names another parent than the first event".into());
            }
            (false, Some(_)) => return Err("it begins a fork, and is no first event".into()),
            _ => {}
        }
        let Some(changes) = fact.changes() else { return Ok(()) };
        let past = &changes.past;
        let (whose, end) = match (lineage, before.last()) {
            (Some(_), Some(parent)) => (&parent.header.workflow_id, parent.state.version),
            _ => (&self.header.workflow_id, self.state.version),
        };
        let after = lineage.map(|lineage| lineage.cut).or(fact.goes_back_to());
        let is_there = *past.workflow == **whose && Some(past.after) == after && past.up_to <= end;
        if is_there && past.after <= past.up_to {
            return Ok(());
        }
        let (workflow, after, up_to) = (&past.workflow, past.after, past.up_to);
        Err(format!("it takes from versions {after} to {up_to} of `{workflow}`, which is no past of it")
            .into())
    }

    /// The hash of an input, in a slot; `null` where it was erased.
    fn hash_of(&self, input: &Slot) -> Result<Slot, Trouble> {
        let hash = match input {
            Slot::Inline(value) => Hash::of_json(value),
            Slot::Stored(stored) => match &self.values[self.places[&stored.hash].at] {
                lines::Value::There(payload) => {
                    Hash::of_json(&stored.read(&payload.bytes).map_err(|error| error.to_string())?)
                }
                lines::Value::Erased(_) => return Ok(Slot::null()),
            },
        };
        Ok(Slot::Inline(Value::String(hash.to_hex()).into()))
    }

    fn take_values(&self, event: &mut Event) {
        match &mut event.fact {
            Fact::StepAsked(asked) => asked.request.parts.values_mut().for_each(take_part),
            fact => fact.slots_mut().into_iter().for_each(|slot| *slot = Slot::null()),
        }
        if let (Some(slot), Some(hash)) = (input_of(&mut event.fact), self.inputs.get(&event.version)) {
            *slot = hash.clone();
        }
    }

    /// Whether the header says what holds behind the first event.
    fn begins(&self) -> Result<(), Trouble> {
        if self.state.definition != self.header.definition {
            return Err("the header names another definition than the first event".into());
        }
        // Whether an erased input is the one that the header names, nobody can tell any more.
        let input = self.state.input.get();
        match (self.header.input_hash, input.as_str()) {
            (None, Some(_)) => Err("the header names no input, and the first event has one".into()),
            (Some(said), Some(hash)) if said.to_hex() != hash => {
                Err("the header names another input than the first event".into())
            }
            (_, Some(_) | None) => Ok(()),
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
        match self.waiting.first() {
            Some(hash) => Err(format!("no event needs {}", self.named(hash)).into()),
            None => Ok(()),
        }
    }

    /// Where a version stands among its own events, if it is one of them.
    fn at(&self, version: Version) -> Option<usize> {
        let at = version.checked_sub(self.cut() + 1)?;
        usize::try_from(at).ok().filter(|at| *at < self.events.len())
    }

    fn hash_at(&self, version: Version) -> Option<Hash> {
        self.at(version).map(|at| self.hashes[at])
    }

    /// An own event again, as it was applied.
    fn again(&self, version: Version) -> Result<Option<Event>, Trouble> {
        let Some(written) = self.at(version).map(|at| &self.events[at]) else { return Ok(None) };
        let fact = Fact::decode(&written.event_type, written.schema_version, &written.payload);
        let mut event = Event {
            id: written.id,
            version,
            timestamp: written.timestamp,
            causation_id: written.causation_id,
            correlation_id: written.correlation_id,
            actor: written.actor.clone(),
            clock: clock_of(&written.payload),
            fact: fact.map_err(|error| error.to_string())?,
        };
        self.take_values(&mut event);
        Ok(Some(event))
    }
}

/// A part of a request without its values. Of lists, a later ask may go on from the one that begins
/// alike: what differed still differs.
fn take_part(part: &mut Part) {
    match part {
        Part::One(slot) => *slot = Slot::null(),
        Part::Many(slots) | Part::Grown { more: slots, .. } => {
            for slot in slots {
                let hash = match slot {
                    Slot::Inline(value) => Hash::of_json(value),
                    Slot::Stored(stored) => stored.hash,
                };
                let [a, b, c, d, e, f, g, h, ..] = hash.0;
                *slot = Slot::Inline(Value::from(u64::from_le_bytes([a, b, c, d, e, f, g, h])).into());
            }
        }
    }
}

/// Where the log of a document begins: at nothing, or at its parent's state and hash at the cut.
fn cut(header: &Header, before: &[Document]) -> Result<(WorkflowState, Hash), Trouble> {
    let id = &header.workflow_id;
    let (lineage, parent) = match (&header.lineage, before.last()) {
        (None, None) => {
            Start::check_id(id).map_err(|refusal| refusal.message)?;
            return Ok((WorkflowState::empty(id), Hash::ZERO));
        }
        (None, Some(parent)) => {
            let parent = &parent.header.workflow_id;
            return Err(format!("`{id}` is no fork of `{parent}`, behind which it stands").into());
        }
        (Some(lineage), parent) => {
            let parent = parent.filter(|parent| parent.header.workflow_id == lineage.parent);
            (lineage, parent.ok_or_else(|| stands_alone(id, &lineage.parent))?)
        }
    };
    let (cut, whose) = (lineage.cut, &lineage.parent);
    Fork::check_id(id, whose).map_err(|refusal| refusal.message)?;
    match owner(before, cut).and_then(|owner| owner.hash_at(cut)) {
        Some(hash) if hash == lineage.cut_hash => {}
        Some(_) => {
            return Err(format!("`{whose}` has another hash at version {cut}, where `{id}` left it").into());
        }
        None => {
            let end = parent.state.version;
            return Err(format!("`{id}` left `{whose}` at version {cut}, and that has 1 to {end}").into());
        }
    }
    let mut state = folded(before, None, cut)?;
    state.workflow_id = id.as_str().into();
    Ok((state, lineage.cut_hash))
}

fn stands_alone(id: &str, parent: &str) -> String {
    format!("`{id}` is a fork of `{parent}`, whose document must stand right before it")
}

/// In whose document a version stands, of a past that the last one of these has.
fn owner(family: &[Document], version: Version) -> Option<&Document> {
    let (last, before) = family.split_last()?;
    if version > last.cut() { Some(last) } else { owner(before, version) }
}

/// The state at an earlier version, without values.
fn folded(before: &[Document], last: Option<&Document>, version: Version) -> Result<WorkflowState, Trouble> {
    let mut events = Vec::new();
    for version in 1..=version {
        let own = last.filter(|last| version > last.cut());
        let owner = own.or_else(|| owner(before, version));
        let Some(event) = owner.map(|owner| owner.again(version)).transpose()?.flatten() else { break };
        events.push(event);
    }
    let whose = last.or(before.last()).map_or("", |document| &document.header.workflow_id);
    Ok(WorkflowState::folded(whose, &events))
}

/// Whether all moments of an event are ones that an engine could have seen. When something is due it may be
/// as far away as somebody likes to wait.
fn is_in_time(event: &Event) -> Result<(), String> {
    let due = if let Fact::TimerSet { due, .. } = &event.fact {
        Some(*due)
    } else if let Fact::AttemptFailed(failed) = &event.fact {
        Some(failed.due)
    } else {
        None
    };
    let is_seen = |at: Micros| limits::MOMENTS.contains(&at);
    if !is_seen(event.timestamp) || !is_seen(event.clock()) {
        return Err("its time is not in the years 1970 to 9999".into());
    }
    match due.is_some_and(|due| due < *limits::MOMENTS.start()) {
        true => Err("it is due before the year 1970".into()),
        false => Ok(()),
    }
}

/// The input that an event brings.
fn input_of(fact: &mut Fact) -> Option<&mut Slot> {
    match fact {
        Fact::WorkflowStarted(started) => Some(&mut started.input),
        Fact::WorkflowForked(forked) => forked.changes.input.as_mut(),
        Fact::WorkflowReopened { changes: Some(changes), .. } => changes.input.as_mut(),
        _ => None,
    }
}
