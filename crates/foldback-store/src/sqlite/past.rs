//! What the judge sees of a SQLite store: heads in memory, everything else by its index.
//!
//! Only the writer has one, inside its transaction, so that what it sees includes the commits
//! written just before. It never writes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use foldback_core::{EventId, Hash, Version};
use rusqlite::{Connection, OptionalExtension, params};

use super::error::sql;
use super::rows;
use crate::contract::StoreResult;
use crate::judge::{self, Head, Past, Written};

/// Heads kept in memory. Past it all are let go: they are one look into the index away.
const HEADS_MAX: usize = 65_536;

/// The ends of the logs that were written lately.
#[derive(Default)]
pub(crate) struct Heads(HashMap<Arc<str>, Head>);

impl Heads {
    /// Forgets all: somebody else may have written.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes over where a commit moved a workflow's head.
    pub(crate) fn take(&mut self, workflow_id: &Arc<str>, head: Head) {
        // Most are known: to count up and down an `Arc` that the caller's thread uses at the same
        // time costs more than to look twice.
        if let Some(known) = self.0.get_mut(workflow_id) {
            *known = head;
            return;
        }
        if self.0.len() >= HEADS_MAX {
            self.0.clear();
        }
        self.0.insert(workflow_id.clone(), head);
    }
}

/// The past, as a transaction sees it.
pub(crate) struct Shelf<'a> {
    pub conn: &'a Connection,
    pub path: &'a Path,
    pub heads: &'a mut Heads,
}

impl Past for Shelf<'_> {
    fn head(&mut self, workflow_id: &Arc<str>) -> StoreResult<Option<Head>> {
        if let Some(head) = self.heads.0.get(workflow_id) {
            return Ok(Some(head.clone()));
        }
        let find = || {
            let mut find = self.conn.prepare_cached(
                "SELECT n, tenant, version, hash FROM workflows JOIN log ON log.workflow = n
                 WHERE workflows.id = ? ORDER BY version DESC LIMIT 1",
            )?;
            find.query_row([&**workflow_id], |row| {
                Ok(Head {
                    n: rows::count(row, 0)?,
                    tenant: judge::tenant(row.get_ref(1)?.as_str()?),
                    version: rows::count(row, 2)?,
                    hash: rows::hash(row, 3)?,
                })
            })
            .optional()
        };
        sql(self.path, find())
    }

    fn pruned(&mut self, workflow_id: &str) -> StoreResult<Option<Version>> {
        let find = || {
            let mut find =
                self.conn.prepare_cached("SELECT last_version FROM pruned WHERE workflow_id = ?")?;
            find.query_row([workflow_id], |row| rows::count(row, 0)).optional()
        };
        sql(self.path, find())
    }

    fn hash_at(&mut self, workflow_id: &str, version: Version) -> StoreResult<Option<Hash>> {
        let segments = super::reader::segments(self.conn, workflow_id, version);
        let Some(segments) = sql(self.path, segments)? else { return Ok(None) };
        if version == 0 {
            return Ok(Some(Hash::ZERO));
        }
        let Some(segment) = segments.iter().find(|s| s.from < version && version <= s.to) else {
            return Ok(None);
        };
        let find = || {
            let mut find =
                self.conn.prepare_cached("SELECT hash FROM log WHERE workflow = ? AND version = ?")?;
            find.query_row([segment.n as i64, version as i64], |row| rows::hash(row, 0)).optional()
        };
        sql(self.path, find())
    }

    fn supplied(&mut self, id: &EventId) -> StoreResult<Option<(u64, Version)>> {
        let find = || {
            let mut find = self
                .conn
                .prepare_cached("SELECT workflow, version FROM log WHERE id = ? AND is_id_supplied = 1")?;
            find.query_row([&id.0[..]], |row| Ok((rows::count(row, 0)?, rows::count(row, 1)?))).optional()
        };
        sql(self.path, find())
    }

    fn written(&mut self, n: u64, version: Version) -> StoreResult<Option<Written>> {
        let find = || {
            let mut find = self.conn.prepare_cached(
                "SELECT id, type, payload, position, hash FROM log WHERE workflow = ? AND version = ?",
            )?;
            find.query_row([n as i64, version as i64], |row| {
                Ok(Written {
                    id: rows::event_id(row, 0)?,
                    event_type: row.get(1)?,
                    payload: row.get(2)?,
                    position: rows::count(row, 3)?,
                    hash: rows::hash(row, 4)?,
                })
            })
            .optional()
        };
        sql(self.path, find())
    }

    fn checkpoint(&mut self, projection: &str) -> StoreResult<u64> {
        sql(self.path, super::reader::checkpoint(self.conn, 0, projection))
    }

    fn is_open(&mut self, command_id: &str) -> StoreResult<bool> {
        let find = || {
            let mut find = self.conn.prepare_cached("SELECT answer IS NULL FROM inbox WHERE id = ?")?;
            find.query_row(params![command_id], |row| row.get(0)).optional()
        };
        Ok(sql(self.path, find())?.unwrap_or(false))
    }
}
