//! Reading: never on the writer's connection, and never a lock that it would wait for.

use std::collections::HashMap;
use std::sync::Arc;

use foldback_core::value::Payload;
use foldback_core::{EventId, Hash, Version};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use serde_json::Value;

use super::rows::{self, EVENT_COLUMNS, Shared, WORKFLOW_COLUMNS};
use crate::contract::{Definition, Filter, InboxCommand, Recorded, Snapshot, WorkflowRow};
use crate::filter::{ENDED, may_be_hash};
use crate::projections::{ProjectionFailure, ProjectionRow, projection_of};

/// A part of a workflow's past: the events of one row of `workflows` with `from < version <= to`.
#[derive(Debug)]
pub(crate) struct Segment {
    pub n: u64,
    pub workflow_id: Arc<str>,
    pub tenant: Arc<str>,
    pub from: Version,
    pub to: Version,
}

/// A workflow's past up to a version, oldest part first: its own events, before them its parent's
/// up to the cut, and so on; a fork may cut in what it shares itself. `None` when there is no such
/// workflow.
pub(crate) fn segments(
    conn: &Connection,
    workflow_id: &str,
    up_to: Version,
) -> rusqlite::Result<Option<Vec<Segment>>> {
    let mut find = conn.prepare_cached("SELECT n, id, tenant, cut, parent FROM workflows WHERE id = ?")?;
    let mut segments: Vec<Segment> = Vec::new();
    let mut next = Some(workflow_id.to_owned());
    while let Some(id) = next.take() {
        let found = find.query_row([&id], |row| {
            let segment = Segment {
                n: rows::count(row, 0)?,
                workflow_id: row.get_ref(1)?.as_str()?.into(),
                tenant: row.get_ref(2)?.as_str()?.into(),
                from: rows::count(row, 3)?,
                to: segments.last().map_or(up_to, |child| child.from.min(child.to)),
            };
            Ok((segment, row.get::<_, Option<String>>(4)?))
        });
        let Some((segment, parent)) = found.optional()? else { break };
        // A parent began before its fork. Anything else is a damaged file that would never end.
        if segments.last().is_some_and(|child| segment.n >= child.n) {
            break;
        }
        next = parent.filter(|_| segment.from > 0);
        segments.push(segment);
    }
    segments.reverse();
    Ok((!segments.is_empty()).then_some(segments))
}

/// Events of a workflow with a version above `after`, in order.
pub(crate) fn read(
    conn: &Connection,
    workflow_id: &str,
    after: Version,
    limit: usize,
) -> rusqlite::Result<Vec<Recorded>> {
    let Some(segments) = segments(conn, workflow_id, i64::MAX as u64)? else { return Ok(Vec::new()) };
    let mut find = conn.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS} FROM log WHERE workflow = ? AND version > ? AND version <= ?
         ORDER BY version LIMIT ?"
    ))?;
    let mut shared = Shared::default();
    let mut events = Vec::new();
    for segment in segments.iter().filter(|segment| segment.to > after) {
        let left = limit - events.len();
        let bounds = [segment.n, segment.from.max(after), segment.to, left as u64];
        let mut found = find.query(params_from_iter(bounds.map(integer)))?;
        while let Some(row) = found.next()? {
            events.push(recorded(row, &mut shared, &segment.workflow_id, &segment.tenant)?);
        }
        if events.len() >= limit {
            break;
        }
    }
    Ok(events)
}

/// Events of the shard with a position above `after`, in order.
pub(crate) fn feed(conn: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<Recorded>> {
    let mut find = conn.prepare_cached(&format!(
        "SELECT {EVENT_COLUMNS}, workflow FROM log WHERE position > ? ORDER BY position LIMIT ?"
    ))?;
    let mut name = conn.prepare_cached("SELECT id, tenant FROM workflows WHERE n = ?")?;
    let mut names: HashMap<i64, (Arc<str>, Arc<str>)> = HashMap::new();
    let mut shared = Shared::default();
    let mut events = Vec::new();
    let mut found = find.query([integer(after), integer(limit as u64)])?;
    while let Some(row) = found.next()? {
        let n: i64 = row.get(15)?;
        let (workflow_id, tenant) = match names.get(&n) {
            Some(known) => known.clone(),
            None => {
                let fresh: (Arc<str>, Arc<str>) = name.query_row([n], |row| {
                    Ok((row.get_ref(0)?.as_str()?.into(), row.get_ref(1)?.as_str()?.into()))
                })?;
                names.insert(n, fresh.clone());
                fresh
            }
        };
        events.push(recorded(row, &mut shared, &workflow_id, &tenant)?);
    }
    Ok(events)
}

fn recorded(
    row: &Row<'_>,
    shared: &mut Shared,
    workflow_id: &Arc<str>,
    tenant: &Arc<str>,
) -> rusqlite::Result<Recorded> {
    Ok(Recorded {
        position: rows::count(row, 0)?,
        workflow_id: workflow_id.clone(),
        version: rows::count(row, 1)?,
        event: rows::event(row, shared)?,
        tenant: tenant.clone(),
        payload_hash: rows::hash(row, 13)?,
        hash: rows::hash(row, 14)?,
    })
}

/// A number as SQLite takes it; one beyond its integers means "all".
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A payload by its hash.
pub(crate) fn payload(conn: &Connection, shard: u32, hash: &Hash) -> rusqlite::Result<Option<Payload>> {
    let mut find =
        conn.prepare_cached("SELECT media_type, bytes FROM payloads WHERE shard = ? AND hash = ?")?;
    find.query_row(params![shard, hash.0], |row| {
        Ok(Payload { hash: *hash, media_type: row.get(0)?, bytes: row.get(1)? })
    })
    .optional()
}

/// A definition by its hash.
pub(crate) fn definition(conn: &Connection, hash: &Hash) -> rusqlite::Result<Option<Definition>> {
    let mut find =
        conn.prepare_cached("SELECT kind, name, canonical, source FROM definitions WHERE hash = ?")?;
    find.query_row([hash.0], |row| {
        Ok(Definition {
            hash: *hash,
            kind: row.get(0)?,
            name: row.get(1)?,
            canonical: row.get(2)?,
            source: row.get(3)?,
        })
    })
    .optional()
}

/// A workflow's row.
pub(crate) fn workflow(conn: &Connection, workflow_id: &str) -> rusqlite::Result<Option<WorkflowRow>> {
    let mut find =
        conn.prepare_cached(&format!("SELECT {WORKFLOW_COLUMNS} FROM workflows WHERE workflows.id = ?"))?;
    find.query_row([workflow_id], rows::workflow).optional()
}

/// Every status that occurs, found by a few steps along the index instead of a walk over the table.
const STATUSES: &str = "WITH RECURSIVE seen (s) AS (
    SELECT min(status) FROM workflows
    UNION ALL SELECT (SELECT min(status) FROM workflows WHERE status > s) FROM seen WHERE s IS NOT NULL)";

/// Workflows, newest first.
pub(crate) fn workflows(conn: &Connection, filter: &Filter) -> rusqlite::Result<Vec<WorkflowRow>> {
    let mut query = format!("SELECT {WORKFLOW_COLUMNS} FROM workflows WHERE true");
    let mut values: Vec<String> = Vec::new();
    if let Some(status) = &filter.status {
        query.push_str(" AND status = ?");
        values.push(status.clone());
    }
    if filter.only_unfinished {
        let ended = ENDED.map(|status| format!("'{status}'")).join(", ");
        query.push_str(&format!(
            " AND status IN ({STATUSES} SELECT s FROM seen WHERE s IS NOT NULL AND s NOT IN ({ended}))"
        ));
    }
    if let Some(wanted) = &filter.definition {
        // `order 1.0.0` is found by its name with its version, and by its name alone.
        query.push_str(
            " AND (name = ? OR substr(name, 1, length(?)) = ? OR substr(hex(definition), 1, length(?)) = ?)",
        );
        let and_version = format!("{wanted} ");
        values.extend([wanted.clone(), and_version.clone(), and_version]);
        // A name that cannot be a hash must not match one: no hash begins with a dash.
        let digits = if may_be_hash(wanted) { wanted.to_ascii_uppercase() } else { "-".into() };
        values.extend([digits.clone(), digits]);
    }
    query.push_str(" ORDER BY n DESC");
    if filter.limit > 0 {
        query.push_str(&format!(" LIMIT {}", filter.limit));
    }
    let mut find = conn.prepare_cached(&query)?;
    find.query_map(params_from_iter(values), rows::workflow)?.collect()
}

/// The newest snapshot of a workflow at or before a version.
pub(crate) fn snapshot(
    conn: &Connection,
    workflow_id: &str,
    at_most: Version,
) -> rusqlite::Result<Option<Snapshot>> {
    let mut find = conn.prepare_cached(
        "SELECT version, event_hash, state_schema, fingerprint, state FROM workflow_snapshots
         WHERE workflow_id = ? AND version <= ? ORDER BY version DESC LIMIT 1",
    )?;
    find.query_row(params![workflow_id, integer(at_most)], |row| {
        Ok(Snapshot {
            workflow_id: workflow_id.into(),
            version: rows::count(row, 0)?,
            event_hash: rows::hash(row, 1)?,
            state_schema: row.get(2)?,
            fingerprint: rows::hash(row, 3)?,
            state: row.get(4)?,
        })
    })
    .optional()
}

/// The name under which the rows stand that readers of a projection (`?1`) see. In one statement with
/// the rows themselves: between two, they could be exchanged.
const LIVE: &str = "coalesce((SELECT rows FROM projections WHERE name = ?1 AND is_live), ?1)";

/// Rows of a projection, in the order of keys.
pub(crate) fn projection(conn: &Connection, projection: &str) -> rusqlite::Result<Vec<(String, Value)>> {
    let mut find = conn.prepare_cached(&format!(
        "SELECT key, value FROM projection_rows WHERE projection = {LIVE} ORDER BY key, shard"
    ))?;
    find.query_map([projection], |row| Ok((row.get(0)?, rows::json(row, 1)?)))?.collect()
}

/// One row of a projection.
pub(crate) fn projection_row(
    conn: &Connection,
    shard: u32,
    projection: &str,
    key: &str,
) -> rusqlite::Result<Option<Value>> {
    let mut find = conn.prepare_cached(&format!(
        "SELECT value FROM projection_rows WHERE projection = {LIVE} AND shard = ?2 AND key = ?3"
    ))?;
    find.query_row(params![projection, shard, key], |row| rows::json(row, 0)).optional()
}

/// How far a projection has read a shard's feed.
pub(crate) fn checkpoint(conn: &Connection, shard: u32, projection: &str) -> rusqlite::Result<u64> {
    let mut find =
        conn.prepare_cached("SELECT position FROM checkpoints WHERE projection = ? AND shard = ?")?;
    Ok(find.query_row(params![projection, shard], |row| rows::count(row, 0)).optional()?.unwrap_or(0))
}

/// Every version of every projection, by name, the live one first.
pub(crate) fn projections(conn: &Connection) -> rusqlite::Result<Vec<ProjectionRow>> {
    let mut find = conn.prepare_cached(
        "SELECT name, is_live, version, source, rows, failure, failed_workflow_id, failed_version
         FROM projections ORDER BY name, is_live DESC",
    )?;
    find.query_map([], |row| {
        let workflow_id: Option<Arc<str>> = row.get(6)?;
        let event = workflow_id.map(|id| Ok::<_, rusqlite::Error>((id, rows::count(row, 7)?))).transpose()?;
        Ok(ProjectionRow {
            name: row.get(0)?,
            is_live: row.get(1)?,
            version: row.get(2)?,
            source: row.get(3)?,
            rows: row.get(4)?,
            failure: row.get::<_, Option<String>>(5)?.map(|message| ProjectionFailure { message, event }),
        })
    })?
    .collect()
}

/// How many rows stand under a name.
pub(crate) fn row_count(conn: &Connection, rows: &str) -> rusqlite::Result<u64> {
    let mut find = conn.prepare_cached("SELECT count(*) FROM projection_rows WHERE projection = ?")?;
    find.query_row([rows], |row| rows::count(row, 0))
}

/// Names under which rows of known projections stand that no version refers to. Rows never stand
/// without a checkpoint, and of these there are few.
pub(crate) fn strays(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut find = conn.prepare_cached("SELECT DISTINCT projection FROM checkpoints ORDER BY projection")?;
    let found: Vec<String> = find.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let known = projections(conn)?;
    let is_stray = |rows: &String| {
        known.iter().any(|version| version.name == projection_of(rows))
            && known.iter().all(|version| version.rows != *rows)
    };
    Ok(found.into_iter().filter(is_stray).collect())
}

/// The position of the last event.
pub(crate) fn head(conn: &Connection) -> rusqlite::Result<u64> {
    let mut find = conn.prepare_cached("SELECT head FROM shards WHERE shard = 0")?;
    find.query_row([], |row| rows::count(row, 0))
}

/// Commands that nobody has answered, oldest first.
pub(crate) fn commands(conn: &Connection, shard: u32) -> rusqlite::Result<Vec<InboxCommand>> {
    let mut find = conn
        .prepare_cached("SELECT id, actor, body FROM inbox WHERE shard = ? AND answer IS NULL ORDER BY n")?;
    find.query_map([shard], |row| {
        // A row that is no JSON is a command that cannot be read, not a store that cannot: its text
        // is handed on, and whoever takes it up answers that.
        let text: String = row.get(2)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Ok(InboxCommand { id: row.get(0)?, shard, actor: row.get(1)?, body })
    })?
    .collect()
}

/// The workflows that listen for a name, in the order in which they began.
pub(crate) fn listeners(conn: &Connection, name: &str) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut find = conn.prepare_cached(
        "SELECT id FROM listeners JOIN workflows ON n = workflow WHERE listeners.name = ? ORDER BY workflow",
    )?;
    find.query_map([name], |row| Ok(row.get_ref(0)?.as_str()?.into()))?.collect()
}

/// The names that a workflow listens for, in order.
pub(crate) fn listens(conn: &Connection, workflow_id: &str) -> rusqlite::Result<Vec<Arc<str>>> {
    let mut find = conn.prepare_cached(
        "SELECT listeners.name FROM listeners JOIN workflows ON n = workflow WHERE id = ? ORDER BY 1",
    )?;
    find.query_map([workflow_id], |row| Ok(row.get_ref(0)?.as_str()?.into()))?.collect()
}

/// The answer to a command, once there is one.
pub(crate) fn answer(conn: &Connection, command_id: &str) -> rusqlite::Result<Option<Value>> {
    let mut find = conn.prepare_cached("SELECT answer FROM inbox WHERE id = ? AND answer IS NOT NULL")?;
    find.query_row([command_id], |row| rows::json(row, 0)).optional()
}

/// The version of an event with a supplied id.
pub(crate) fn supplied(conn: &Connection, id: &EventId) -> rusqlite::Result<Option<Version>> {
    let mut find = conn.prepare_cached("SELECT version FROM log WHERE id = ? AND is_id_supplied = 1")?;
    find.query_row([&id.0[..]], |row| rows::count(row, 0)).optional()
}
