//! Erasing: a tombstone where a payload was, and its bytes gone from the files.
//!
//! SQLite overwrites what it deletes here (`secure_delete`), and the write-ahead log is folded into
//! the file and cut to nothing, so that no page of before is left in it. What a file system keeps
//! of a file that was cut is not ours to say.

use foldback_core::Hash;
use rusqlite::{Connection, OptionalExtension, Params, params};

use super::error::sql;
use super::schema::{Use, connect};
use super::{Sqlite, fault, retention, rows};
use crate::contract::{StoreError, StoreResult};
use crate::forgetting::{Erasure, Forget, NotForgotten, Pruned, Pruning, Swept, Tombstone};

impl Forget for Sqlite {
    fn erase(&self, erasure: &Erasure) -> Result<Tombstone, NotForgotten> {
        let tombstone = self.forgetting(erasure.shard, erasure.epoch, |conn| erase(conn, erasure))?;
        self.leave_no_trace()?;
        Ok(tombstone)
    }

    fn tombstone(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Tombstone>> {
        self.reading(|conn| tombstone(conn, shard, hash))
    }

    fn prune(&self, pruning: &Pruning) -> Result<Pruned, NotForgotten> {
        self.forgetting(pruning.shard, pruning.epoch, |conn| retention::prune(conn, pruning))
    }

    fn pruned(&self, workflow_id: &str) -> StoreResult<Option<Pruned>> {
        self.reading(|conn| retention::pruned(conn, workflow_id))
    }

    fn sweep(&self, shard: u32, epoch: u64) -> Result<Swept, NotForgotten> {
        let swept = self.forgetting(shard, epoch, |conn| retention::sweep(conn, shard).map(Ok))?;
        self.leave_no_trace()?;
        Ok(swept)
    }
}

/// What one transaction came to: SQLite's own error, or a refusal that leaves no trace.
pub(super) type Verdict<T> = rusqlite::Result<Result<T, NotForgotten>>;

impl Sqlite {
    /// Forgets in one transaction, under the shard's present epoch.
    fn forgetting<T>(
        &self,
        shard: u32,
        epoch: u64,
        forget: impl FnOnce(&Connection) -> Verdict<T>,
    ) -> Result<T, NotForgotten> {
        let conn = connect(&self.place.path, Use::Forget)?;
        self.place.still_there()?;
        sql(&self.place.path, conn.execute_batch("BEGIN IMMEDIATE"))?;
        fault::point("forgetting");
        // Whatever ends this function early closes the connection, which rolls back.
        let present = conn
            .query_row("SELECT epoch FROM shards WHERE shard = ?", [shard], |row| rows::count(row, 0))
            .optional();
        let actual = sql(&self.place.path, present)?.unwrap_or(0);
        if epoch == 0 || epoch != actual {
            return Err(NotForgotten::StaleEpoch { actual });
        }
        let forgotten = sql(&self.place.path, forget(&conn))??;
        sql(&self.place.path, conn.execute_batch("COMMIT"))?;
        fault::point("forgotten");
        Ok(forgotten)
    }

    /// Folds the write-ahead log into the file, and cuts it to nothing.
    fn leave_no_trace(&self) -> StoreResult<()> {
        let conn = connect(&self.place.path, Use::Forget)?;
        let cut = || conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        let is_busy = self.place.cutting(cut);
        if !sql(&self.place.path, is_busy)? {
            return Ok(());
        }
        Err(StoreError {
            message: format!(
                "{}: erased, but another program reads an older state of it, so that its write-ahead log still \
                 holds the bytes",
                self.place.path.display()
            ),
            hint: Some("close the other program and give the command again".into()),
            is_input: false,
        })
    }
}

/// One statement that changes rows, and behind it a place where a test ends the process.
pub(super) fn change(conn: &Connection, statement: &str, values: impl Params) -> rusqlite::Result<usize> {
    let changed = conn.execute(statement, values)?;
    fault::point("forgetting");
    Ok(changed)
}

fn erase(conn: &Connection, erasure: &Erasure) -> Verdict<Tombstone> {
    let Erasure { shard, hash, at, actor, reason, .. } = erasure;
    let found = conn
        .query_row(
            "SELECT media_type, length(bytes) FROM payloads WHERE shard = ? AND hash = ?",
            params![shard, hash.0],
            |row| Ok((row.get::<_, String>(0)?, rows::count(row, 1)?)),
        )
        .optional()?;
    let Some((media_type, bytes)) = found else {
        return Ok(tombstone(conn, *shard, hash)?.ok_or(NotForgotten::NotThere));
    };
    // A value that was erased before and came anew has one already: the latest word stands.
    change(
        conn,
        "INSERT OR REPLACE INTO tombstones (shard, hash, media_type, bytes, erased_at, actor, reason)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![shard, hash.0, media_type, bytes as i64, at, actor, reason],
    )?;
    change(conn, "DELETE FROM payloads WHERE shard = ? AND hash = ?", params![shard, hash.0])?;
    change(
        conn,
        "DELETE FROM workflow_snapshots WHERE instr(state, ?) > 0",
        params![hash.to_hex().into_bytes()],
    )?;
    Ok(Ok(Tombstone {
        hash: *hash,
        media_type,
        bytes,
        at: *at,
        actor: actor.clone(),
        reason: reason.clone(),
    }))
}

/// The tombstone of a payload that is not there.
fn tombstone(conn: &Connection, shard: u32, hash: &Hash) -> rusqlite::Result<Option<Tombstone>> {
    let mut find = conn.prepare_cached(
        "SELECT media_type, bytes, erased_at, actor, reason FROM tombstones AS t WHERE shard = ?1 AND hash = ?2
         AND NOT EXISTS (SELECT 1 FROM payloads AS p WHERE p.shard = ?1 AND p.hash = ?2)",
    )?;
    find.query_row(params![shard, hash.0], |row| {
        Ok(Tombstone {
            hash: *hash,
            media_type: row.get(0)?,
            bytes: rows::count(row, 1)?,
            at: row.get(2)?,
            actor: row.get(3)?,
            reason: row.get(4)?,
        })
    })
    .optional()
}
