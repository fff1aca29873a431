//! Rows into values. What comes out of a file is data from outside: a row that is not what was
//! written is an error that names it, never a panic.

use std::sync::Arc;

use foldback_core::{EventId, Hash};
use rusqlite::types::{FromSqlError, ValueRef};
use rusqlite::{Row, RowIndex};
use serde_json::Value;

use crate::contract::{NewEvent, WorkflowRow};

/// The columns of `log` as [`event`] reads them, from 2 on: 0 is the position, 1 the version.
pub(crate) const EVENT_COLUMNS: &str = "position, version, id, is_id_supplied, type, schema_version, payload, timestamp, \
     causation_id, correlation_id, actor, codec, key_id, payload_hash, hash";

/// Bytes of a fixed length.
fn bytes<const N: usize>(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<[u8; N]> {
    let bytes = row.get_ref(column)?.as_blob()?;
    bytes
        .try_into()
        .map_err(|_| FromSqlError::InvalidBlobSize { expected_size: N, blob_size: bytes.len() }.into())
}

/// A hash.
pub(crate) fn hash(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<Hash> {
    bytes(row, column).map(Hash)
}

/// A hash, if there is one.
pub(crate) fn hash_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Hash>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => hash(row, column).map(Some),
    }
}

/// An event's id.
pub(crate) fn event_id(row: &Row<'_>, column: impl RowIndex) -> rusqlite::Result<EventId> {
    bytes(row, column).map(EventId)
}

fn event_id_or_none(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<EventId>> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        _ => event_id(row, column).map(Some),
    }
}

/// A count or a place: never below zero.
pub(crate) fn count(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// JSON that we wrote as text.
pub(crate) fn json(row: &Row<'_>, column: usize) -> rusqlite::Result<Value> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|e| FromSqlError::Other(Box::new(e)).into())
}

/// The few texts that most events share, kept once while many are read.
#[derive(Default)]
pub(crate) struct Shared(Vec<Arc<str>>);

impl Shared {
    fn text(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<str>> {
        /// Types of our own are some thirty; a log may hold any number of a user's.
        const KEPT: usize = 48;
        let text = row.get_ref(column)?.as_str()?;
        if let Some(known) = self.0.iter().find(|known| ***known == *text) {
            return Ok(known.clone());
        }
        let fresh: Arc<str> = text.into();
        if self.0.len() < KEPT {
            self.0.push(fresh.clone());
        }
        Ok(fresh)
    }

    fn text_or_none(&mut self, row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Arc<str>>> {
        match row.get_ref(column)? {
            ValueRef::Null => Ok(None),
            _ => self.text(row, column).map(Some),
        }
    }
}

/// The appended part of an event, from a row of [`EVENT_COLUMNS`].
pub(crate) fn event(row: &Row<'_>, shared: &mut Shared) -> rusqlite::Result<NewEvent> {
    Ok(NewEvent {
        id: event_id(row, 2)?,
        is_id_supplied: row.get(3)?,
        event_type: shared.text(row, 4)?,
        schema_version: row.get(5)?,
        payload: row.get(6)?,
        timestamp: row.get(7)?,
        causation_id: event_id_or_none(row, 8)?,
        correlation_id: event_id_or_none(row, 9)?,
        actor: shared.text(row, 10)?,
        codec: shared.text(row, 11)?,
        key_id: shared.text_or_none(row, 12)?,
    })
}

/// The columns of a workflow's row, as [`workflow`] reads them. Its last version is the one step
/// down the log's index that makes `list` cost nothing per event.
pub(crate) const WORKFLOW_COLUMNS: &str = "workflows.id, shard, tenant, definition, name, input_hash, parent, cut, \
     cut_hash, status, started_at, \
     coalesce((SELECT version FROM log WHERE workflow = workflows.n ORDER BY version DESC LIMIT 1), cut), \
     (SELECT at FROM wakeups WHERE workflow = workflows.n)";

/// A workflow's row.
pub(crate) fn workflow(row: &Row<'_>) -> rusqlite::Result<WorkflowRow> {
    let parent = match (row.get::<_, Option<String>>(6)?, hash_or_none(row, 8)?) {
        (Some(parent), Some(hash)) => Some((parent, count(row, 7)?, hash)),
        _ => None,
    };
    Ok(WorkflowRow {
        workflow_id: row.get_ref(0)?.as_str()?.into(),
        shard: row.get(1)?,
        tenant: row.get(2)?,
        definition: hash_or_none(row, 3)?,
        name: row.get(4)?,
        input_hash: hash_or_none(row, 5)?,
        parent,
        status: row.get(9)?,
        version: count(row, 11)?,
        started_at: row.get(10)?,
        wake_at: row.get(12)?,
    })
}
