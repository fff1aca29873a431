//! Pruning: a whole ended workflow goes, a signed-off row stays; and the sweep after it.
//!
//! The row is written first: the triggers let go of nothing that is not signed off. Each workflow is
//! one transaction, so a crash leaves whole workflows and at worst payloads that the next sweep
//! finds.

use std::collections::HashSet;

use foldback_core::Hash;
use rusqlite::types::FromSqlError;
use rusqlite::{Connection, OptionalExtension, params};

use super::erasure::{Verdict, change};
use super::rows;
use crate::forgetting::{NotForgotten, PRUNABLE, Pruned, Pruning, Swept, runs, strike};

pub(super) fn prune(conn: &Connection, pruning: &Pruning) -> Verdict<Pruned> {
    let id = &*pruning.workflow_id;
    let n = conn.query_row("SELECT n FROM workflows WHERE id = ?", [id], |row| row.get::<_, i64>(0));
    let Some(n) = n.optional()? else { return Ok(Err(NotForgotten::NotThere)) };
    let pruned = match signed_off(conn, pruning, n)? {
        Ok(pruned) => pruned,
        Err(refusal) => return Ok(Err(refusal)),
    };
    change(
        conn,
        "INSERT INTO pruned (workflow_id, n, shard, definition, name, parent, cut, status, started_at, ended_at,
             first_version, last_version, hash, positions, pruned_at, actor)
         SELECT id, n, shard, definition, name, parent, cut, status, started_at, ?2, ?3, ?4, ?5, ?6, ?7, ?8
         FROM workflows WHERE n = ?1",
        params![
            n,
            pruned.ended_at,
            pruned.versions.0 as i64,
            pruned.versions.1 as i64,
            pruned.hash.0,
            serde_json::to_string(&pruned.positions).map_err(|e| FromSqlError::Other(Box::new(e)))?,
            pruned.pruned_at,
            pruned.actor,
        ],
    )?;
    change(conn, "DELETE FROM log WHERE workflow = ?", [n])?;
    change(conn, "DELETE FROM workflow_snapshots WHERE workflow_id = ?", [id])?;
    change(conn, "DELETE FROM wakeups WHERE workflow = ?", [n])?;
    change(conn, "DELETE FROM listeners WHERE workflow = ?", [n])?;
    change(conn, "DELETE FROM workflows WHERE n = ?", [n])?;
    // Whoever keeps heads of logs in memory looks anew.
    change(conn, "UPDATE shards SET forgotten = forgotten + 1 WHERE shard = ?", [pruning.shard])?;
    Ok(Ok(pruned))
}

/// The row that a workflow would leave, or why it stays.
fn signed_off(conn: &Connection, pruning: &Pruning, n: i64) -> Verdict<Pruned> {
    let mut ask = conn.prepare("SELECT id FROM workflows WHERE parent = ? ORDER BY n")?;
    let forks: Vec<String> =
        ask.query_map([&*pruning.workflow_id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut ask = conn
        .prepare("SELECT position, version, hash, timestamp FROM log WHERE workflow = ? ORDER BY version")?;
    let mut events = ask.query([n])?;
    let (mut positions, mut first, mut last) = (Vec::new(), None, None);
    while let Some(row) = events.next()? {
        positions.push(rows::count(row, 0)?);
        let version = rows::count(row, 1)?;
        first.get_or_insert(version);
        last = Some((version, rows::hash(row, 2)?, row.get::<_, i64>(3)?));
    }
    let (Some(first), Some((last, hash, ended_at))) = (first, last) else {
        return Ok(Err(NotForgotten::NotThere));
    };
    let pruned = conn.query_row(
        "SELECT definition, name, parent, cut, status, started_at FROM workflows WHERE n = ?",
        [n],
        |row| {
            let parent = row.get::<_, Option<String>>(2)?;
            Ok(Pruned {
                workflow_id: pruning.workflow_id.clone(),
                definition: rows::hash_or_none(row, 0)?,
                name: row.get(1)?,
                parent: parent
                    .map(|parent| Ok::<_, rusqlite::Error>((parent, rows::count(row, 3)?)))
                    .transpose()?,
                status: row.get(4)?,
                started_at: row.get(5)?,
                ended_at,
                versions: (first, last),
                hash,
                positions: runs(positions),
                pruned_at: pruning.at,
                actor: pruning.actor.clone(),
            })
        },
    )?;
    Ok(if !PRUNABLE.contains(&pruned.status.as_str()) {
        Err(NotForgotten::NotEnded { status: pruned.status })
    } else if ended_at >= pruning.before {
        Err(NotForgotten::TooYoung { ended_at })
    } else if !forks.is_empty() {
        Err(NotForgotten::HasForks { forks })
    } else {
        Ok(pruned)
    })
}

/// The signed-off row of a workflow.
pub(super) fn pruned(conn: &Connection, workflow_id: &str) -> rusqlite::Result<Option<Pruned>> {
    let mut find = conn.prepare_cached(
        "SELECT definition, name, parent, cut, status, started_at, ended_at, first_version, last_version, hash,
             positions, pruned_at, actor FROM pruned WHERE workflow_id = ?",
    )?;
    find.query_row([workflow_id], |row| {
        let parent = row.get::<_, Option<String>>(2)?;
        Ok(Pruned {
            workflow_id: workflow_id.into(),
            definition: rows::hash_or_none(row, 0)?,
            name: row.get(1)?,
            parent: parent
                .map(|parent| Ok::<_, rusqlite::Error>((parent, rows::count(row, 3)?)))
                .transpose()?,
            status: row.get(4)?,
            started_at: row.get(5)?,
            ended_at: row.get(6)?,
            versions: (rows::count(row, 7)?, rows::count(row, 8)?),
            hash: rows::hash(row, 9)?,
            positions: read_runs(row.get_ref(10)?.as_str()?)?,
            pruned_at: row.get(11)?,
            actor: row.get(12)?,
        })
    })
    .optional()
}

/// Every position that is empty because its workflow was pruned, as runs in no order.
pub(super) fn pruned_positions(conn: &Connection) -> rusqlite::Result<Vec<(u64, u64)>> {
    let mut ask = conn.prepare("SELECT positions FROM pruned")?;
    let mut found = ask.query([])?;
    let mut positions = Vec::new();
    while let Some(row) = found.next()? {
        positions.extend(read_runs(row.get_ref(0)?.as_str()?)?);
    }
    Ok(positions)
}

fn read_runs(text: &str) -> rusqlite::Result<Vec<(u64, u64)>> {
    serde_json::from_str(text).map_err(|e| FromSqlError::Other(Box::new(e)).into())
}

/// Takes away payloads and tombstones whose address stands in no event.
pub(super) fn sweep(conn: &Connection, shard: u32) -> rusqlite::Result<Swept> {
    let mut ask = conn.prepare(
        "SELECT hash FROM payloads WHERE shard = ?1 UNION SELECT hash FROM tombstones WHERE shard = ?1",
    )?;
    let known = ask.query_map([shard], |row| rows::hash(row, 0))?;
    let mut orphans = known.collect::<rusqlite::Result<HashSet<Hash>>>()?;
    if orphans.is_empty() {
        return Ok(Swept::default());
    }
    let mut ask = conn.prepare("SELECT payload FROM log NOT INDEXED")?;
    let mut events = ask.query([])?;
    while let Some(row) = events.next()? {
        strike(&mut orphans, row.get_ref(0)?.as_str()?);
    }
    // What is on its way to a workflow stands in no log yet.
    let mut ask = conn.prepare("SELECT body FROM inbox WHERE answer IS NULL")?;
    let mut open = ask.query([])?;
    while let Some(row) = open.next()? {
        strike(&mut orphans, row.get_ref(0)?.as_str()?);
    }
    let mut swept = Swept::default();
    for hash in orphans {
        let bytes = conn
            .query_row(
                "SELECT length(bytes) FROM payloads WHERE shard = ? AND hash = ?",
                params![shard, hash.0],
                |row| rows::count(row, 0),
            )
            .optional()?;
        if let Some(bytes) = bytes {
            swept.payloads += 1;
            swept.bytes += bytes;
            // For the trigger: a payload goes behind a tombstone, if only for this moment.
            change(
                conn,
                "INSERT OR REPLACE INTO tombstones (shard, hash, media_type, bytes, erased_at, actor, reason)
                 VALUES (?, ?, '', 0, 0, '', 'swept')",
                params![shard, hash.0],
            )?;
            change(conn, "DELETE FROM payloads WHERE shard = ? AND hash = ?", params![shard, hash.0])?;
        }
        change(conn, "DELETE FROM tombstones WHERE shard = ? AND hash = ?", params![shard, hash.0])?;
    }
    Ok(swept)
}
