//! From the store to a file. It reads in pages, so that a long log needs no more memory than a
//! short one; only the hashes of values that were written are kept.

use std::collections::HashSet;
use std::io::Write;

use foldback_core::{Hash, Slot, Version};
use foldback_engine::load::decode;
use foldback_store::{Recorded, Store, WorkflowRow};
use serde::Serialize;

use super::lines::{DefinitionLine, End, EventLine, Header, PayloadLine, Seal};
use super::{Counts, ExchangeError};

/// Events fetched at a time.
const PAGE: usize = 256;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// What is its own.
    pub counts: Counts,
    /// The workflows whose past it shares, root first: they are in the file too, whole.
    pub ancestors: Vec<String>,
}

/// Writes a workflow, up to the end that its log has now, to `out`: behind its ancestors, root first,
/// where it is a fork.
///
/// # Errors
/// It is no workflow, something of it or of an ancestor is missing, or the store or `out` fails.
pub fn export(store: &dyn Store, row: &WorkflowRow, out: &mut dyn Write) -> Result<Exported, ExchangeError> {
    let mut family = vec![row.clone()];
    while let Some((parent, ..)) = family.last().and_then(|row| row.parent.clone()) {
        let found = store.workflow(&parent)?;
        let is_new = |row: &WorkflowRow| family.iter().all(|known| known.workflow_id != row.workflow_id);
        let Some(found) = found.filter(is_new) else {
            return Err(missing(format!("`{parent}`, from which it was forked, is missing")));
        };
        family.push(found);
    }
    let mut counts = Counts::default();
    for row in family.iter().rev() {
        counts = document(store, row, out)?;
    }
    out.flush()?;
    let ancestors = family.iter().skip(1).rev().map(|row| row.workflow_id.to_string()).collect();
    Ok(Exported { counts, ancestors })
}

fn missing(what: String) -> ExchangeError {
    ExchangeError::refused(what, "`foldback audit` tells what is missing")
}

/// Writes the document of one workflow: of a fork, behind its cut.
fn document(store: &dyn Store, row: &WorkflowRow, out: &mut dyn Write) -> Result<Counts, ExchangeError> {
    let id = &row.workflow_id;
    let definition = row.definition.map(|hash| store.definition(&hash)).transpose()?.flatten();
    let Some(definition) = definition else {
        return Err(missing(format!("`{id}` has no definition in this store")));
    };
    let cut = row.parent.as_ref().map_or(0, |(_, cut, _)| *cut);
    let mut writing = Writing {
        out,
        seal: Seal::new(),
        told: HashSet::new(),
        definitions: HashSet::from([definition.hash]),
    };
    writing.line(&Header::of(row, definition.hash))?;
    writing.line(&DefinitionLine::from(definition))?;
    let (mut last, mut chain): (Version, Hash) = (cut, Hash::ZERO);
    while last < row.version {
        let limit = (row.version - last).min(PAGE as u64) as usize;
        let page = store.read(id, last, limit)?;
        if page.is_empty() {
            let said = row.version;
            return Err(missing(format!("the log of `{id}` ends at version {last}, its row says {said}")));
        }
        for recorded in &page {
            writing.event(store, row.shard, recorded)?;
            (last, chain) = (recorded.version, recorded.hash);
        }
    }
    let counts = Counts { events: last - cut, payloads: writing.told.len() as u64 };
    let lines = writing.seal.0;
    writing.line(&End { end: last, payloads: counts.payloads, chain, lines })?;
    Ok(counts)
}

struct Writing<'a> {
    out: &'a mut dyn Write,
    seal: Seal,
    /// Values that are in the document.
    told: HashSet<Hash>,
    /// Definitions that are in it.
    definitions: HashSet<Hash>,
}

impl Writing<'_> {
    fn line(&mut self, line: &impl Serialize) -> Result<(), ExchangeError> {
        let text = serde_json::to_vec(line).map_err(std::io::Error::from)?;
        self.seal.take(&text);
        self.out.write_all(&text)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    /// An event, behind the definition and the values that it is the first to need.
    fn event(&mut self, store: &dyn Store, shard: u32, recorded: &Recorded) -> Result<(), ExchangeError> {
        let fact = decode(recorded)?.fact;
        if let Some(follows) = fact.changes().and_then(|changes| changes.follows.as_ref())
            && self.definitions.insert(follows.definition)
        {
            let (version, hash) = (recorded.version, follows.definition);
            let definition = store.definition(&hash)?;
            let definition = definition
                .ok_or_else(|| missing(format!("version {version}: definition {hash} is missing")))?;
            self.line(&DefinitionLine::from(definition))?;
        }
        for slot in fact.slots() {
            let Slot::Stored(stored) = slot else { continue };
            if !self.told.insert(stored.hash) {
                continue;
            }
            if let Some(payload) = store.payload(shard, &stored.hash)? {
                self.line(&PayloadLine::from(payload))?;
                continue;
            }
            let tombstone = store.tombstone(shard, &stored.hash)?.ok_or_else(|| {
                missing(format!("version {}: payload {} is missing", recorded.version, stored.hash))
            })?;
            self.line(&PayloadLine::from(tombstone))?;
        }
        self.line(&EventLine::from(recorded))
    }
}
