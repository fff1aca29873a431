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

/// Writes a workflow, up to the end that its log has now, to `out`.
///
/// # Errors
/// It is no workflow or a fork, something of it is missing, or the store or `out` fails.
pub fn export(store: &dyn Store, row: &WorkflowRow, out: &mut dyn Write) -> Result<Counts, ExchangeError> {
    let id = &row.workflow_id;
    if let Some((parent, ..)) = &row.parent {
        return Err(ExchangeError::refused(
            format!("`{id}` is a fork, and forks cannot be exported yet"),
            format!("`foldback export {parent}` writes the workflow that it was forked from"),
        ));
    }
    let definition = row.definition.map(|hash| store.definition(&hash)).transpose()?.flatten();
    let Some(definition) = definition else {
        return Err(ExchangeError::refused(
            format!("`{id}` has no definition in this store"),
            "`foldback audit` tells what is missing",
        ));
    };
    let mut writing = Writing { out, seal: Seal::new(), told: HashSet::new() };
    writing.line(&Header::of(row, definition.hash))?;
    writing.line(&DefinitionLine::from(definition))?;
    let (mut last, mut chain): (Version, Hash) = (0, Hash::ZERO);
    while last < row.version {
        let limit = (row.version - last).min(PAGE as u64) as usize;
        let page = store.read(id, last, limit)?;
        if page.is_empty() {
            return Err(ExchangeError::refused(
                format!("the log of `{id}` ends at version {last}, its row says {}", row.version),
                "`foldback audit` tells what is missing",
            ));
        }
        for recorded in &page {
            writing.event(store, row.shard, recorded)?;
            (last, chain) = (recorded.version, recorded.hash);
        }
    }
    let counts = Counts { events: last, payloads: writing.told.len() as u64 };
    let lines = writing.seal.0;
    writing.line(&End { end: last, payloads: counts.payloads, chain, lines })?;
    out.flush()?;
    Ok(counts)
}

struct Writing<'a> {
    out: &'a mut dyn Write,
    seal: Seal,
    /// Values that are in the file.
    told: HashSet<Hash>,
}

impl Writing<'_> {
    fn line(&mut self, line: &impl Serialize) -> Result<(), ExchangeError> {
        let text = serde_json::to_vec(line).map_err(std::io::Error::from)?;
        self.seal.take(&text);
        self.out.write_all(&text)?;
        self.out.write_all(b"\n")?;
        Ok(())
    }

    /// An event, behind the values that it is the first to need.
    fn event(&mut self, store: &dyn Store, shard: u32, recorded: &Recorded) -> Result<(), ExchangeError> {
        for slot in decode(recorded)?.fact.slots() {
            let Slot::Stored(stored) = slot else { continue };
            if !self.told.insert(stored.hash) {
                continue;
            }
            if let Some(payload) = store.payload(shard, &stored.hash)? {
                self.line(&PayloadLine::from(payload))?;
                continue;
            }
            let tombstone = store.tombstone(shard, &stored.hash)?.ok_or_else(|| {
                ExchangeError::refused(
                    format!("version {}: payload {} is missing", recorded.version, stored.hash),
                    "`foldback audit` tells what is missing",
                )
            })?;
            self.line(&PayloadLine::from(tombstone))?;
        }
        self.line(&EventLine::from(recorded))
    }
}
