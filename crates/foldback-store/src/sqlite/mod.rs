//! The SQLite store: one file, one shard, one writer.
//!
//! Writing is the writer's thread alone; reading goes over connections of its own, so that neither
//! waits for the other. A process that does not own the store writes only to the inbox.

mod check;
mod erasure;
mod error;
mod fault;
mod ledger;
mod lock;
mod past;
mod place;
mod reader;
mod retention;
mod rows;
mod schema;
mod views;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use foldback_core::value::Payload;
use foldback_core::{EventId, Hash, Micros, Version};
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::contract::*;
use crate::filter;
use crate::projections::{Projected, ProjectionRow};
use error::sql;
pub(crate) use ledger::INSERT_EVENT;
use place::Place;
pub(crate) use schema::{Missing, WRITE_PRAGMAS, ddl};
use schema::{Use, connect};
use writer::Writer;

/// Connections kept open for the next reader.
const READERS_KEPT: usize = 4;

/// The store.
pub(crate) struct Sqlite {
    place: Arc<Place>,
    identity: String,
    /// Started with the first commit: a process that only looks has none.
    writer: OnceLock<Result<Writer, StoreError>>,
    readers: Mutex<Vec<Connection>>,
    /// For the inbox and the epoch.
    teller: Mutex<Option<Connection>>,
    /// Sees every change, since it makes none itself.
    watcher: Mutex<Option<Connection>>,
}

impl Sqlite {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &str, missing: Missing) -> StoreResult<Sqlite> {
        let place = schema::prepare(Path::new(path), missing)?;
        Ok(Sqlite {
            identity: schema::identity(&place.path)?,
            place: Arc::new(place),
            writer: OnceLock::new(),
            readers: Mutex::default(),
            teller: Mutex::default(),
            watcher: Mutex::default(),
        })
    }

    /// Reads on a connection that no other thread is using.
    fn reading<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> StoreResult<T> {
        let kept = lock(&self.readers).pop();
        let conn = match kept {
            Some(conn) => conn,
            None => connect(&self.place.path, Use::Read)?,
        };
        let found = sql(&self.place.path, read(&conn));
        let mut readers = lock(&self.readers);
        if readers.len() < READERS_KEPT {
            readers.push(conn);
        }
        found
    }

    /// Writes a row or two beside the log, durably.
    fn telling<T>(&self, tell: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> StoreResult<T> {
        let mut teller = lock(&self.teller);
        self.place.still_there()?;
        let conn = match &mut *teller {
            Some(conn) => conn,
            none => none.insert(connect(&self.place.path, Use::Tell)?),
        };
        let written = (|| {
            // At once for writing: a transaction that reads first may find itself too old to write.
            conn.execute_batch("BEGIN IMMEDIATE")?;
            let told = tell(conn)?;
            conn.execute_batch("COMMIT")?;
            Ok(told)
        })();
        if written.is_err() {
            // Closing rolls back.
            *teller = None;
        }
        sql(&self.place.path, written)
    }
}

/// A lock whose holder panicked guards connections that are still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a row beside the log was written. Events carry the engine's time, never this one.
fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Store for Sqlite {
    fn commit(&self, commit: Commit, done: Done) {
        match self.writer.get_or_init(|| Writer::start(self.place.clone())) {
            Ok(writer) => writer.push(commit, done),
            Err(error) => done(Err(CommitError::Failed(error.clone()))),
        }
    }

    fn read(&self, workflow_id: &str, after: Version, limit: usize) -> StoreResult<Vec<Recorded>> {
        self.reading(|conn| reader::read(conn, workflow_id, after, limit))
    }

    fn feed(&self, shard: u32, after: u64, limit: usize) -> StoreResult<Vec<Recorded>> {
        if shard != 0 {
            return Ok(Vec::new());
        }
        self.reading(|conn| reader::feed(conn, after, limit))
    }

    fn payload(&self, shard: u32, hash: &Hash) -> StoreResult<Option<Payload>> {
        self.reading(|conn| reader::payload(conn, shard, hash))
    }

    fn definition(&self, hash: &Hash) -> StoreResult<Option<Definition>> {
        self.reading(|conn| reader::definition(conn, hash))
    }

    fn workflow(&self, workflow_id: &str) -> StoreResult<Option<WorkflowRow>> {
        self.reading(|conn| reader::workflow(conn, workflow_id))
    }

    fn workflows(&self, filter: &Filter) -> StoreResult<Vec<WorkflowRow>> {
        self.reading(|conn| reader::workflows(conn, filter))
    }

    fn snapshot(&self, workflow_id: &str, at_most: Version) -> StoreResult<Option<Snapshot>> {
        self.reading(|conn| reader::snapshot(conn, workflow_id, at_most))
    }

    fn projection(&self, projection: &str) -> StoreResult<Vec<(String, Value)>> {
        self.reading(|conn| reader::projection(conn, projection))
    }

    fn projection_row(&self, shard: u32, projection: &str, key: &str) -> StoreResult<Option<Value>> {
        self.reading(|conn| reader::projection_row(conn, shard, projection, key))
    }

    fn checkpoint(&self, shard: u32, projection: &str) -> StoreResult<u64> {
        self.reading(|conn| reader::checkpoint(conn, shard, projection))
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    fn acquire(&self, shard: u32, owner: &str) -> StoreResult<Option<Ownership>> {
        if shard != 0 {
            return Err(filter::no_such_shard(shard));
        }
        let Some(held) = lock::hold(&self.place, owner)? else { return Ok(None) };
        let epoch = self.telling(|conn| {
            conn.query_row(
                "UPDATE shards SET epoch = epoch + 1, owner = ? WHERE shard = 0 RETURNING epoch",
                [owner],
                |row| rows::count(row, 0),
            )
        })?;
        Ok(Some(Ownership { epoch, guard: Box::new(held) }))
    }

    fn supplied(&self, id: &EventId) -> StoreResult<Option<Version>> {
        self.reading(|conn| reader::supplied(conn, id))
    }

    fn is_owned(&self, shard: u32) -> StoreResult<Option<bool>> {
        if shard == 0 { lock::is_taken(&self.place.path) } else { Ok(Some(false)) }
    }

    fn send(&self, command: InboxCommand) -> StoreResult<()> {
        let is_there = self.telling(|conn| {
            conn.execute(
                "INSERT INTO inbox (id, shard, actor, body, sent_at) VALUES (?, ?, ?, ?, ?)
                 ON CONFLICT (id) DO NOTHING",
                params![command.id, command.shard, command.actor, command.body.to_string(), now()],
            )?;
            conn.query_row("SELECT count(*) FROM inbox WHERE id = ?", [&command.id], |row| row.get(0))
        })?;
        if is_there {
            return Ok(());
        }
        Err(error::damaged(&self.place.path, "a command was not stored"))
    }

    fn commands(&self, shard: u32) -> StoreResult<Vec<InboxCommand>> {
        self.reading(|conn| reader::commands(conn, shard))
    }

    fn listeners(&self, shard: u32, name: &str) -> StoreResult<Vec<Arc<str>>> {
        if shard == 0 { self.reading(|conn| reader::listeners(conn, name)) } else { Ok(Vec::new()) }
    }

    fn listens(&self, workflow_id: &str) -> StoreResult<Vec<Arc<str>>> {
        self.reading(|conn| reader::listens(conn, workflow_id))
    }

    fn answer(&self, command_id: &str) -> StoreResult<Option<Value>> {
        self.reading(|conn| reader::answer(conn, command_id))
    }

    fn change_counter(&self) -> StoreResult<u64> {
        let mut watcher = lock(&self.watcher);
        let conn = match &mut *watcher {
            Some(conn) => conn,
            none => none.insert(connect(&self.place.path, Use::Read)?),
        };
        let version = conn
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut ask| ask.query_row([], |row| rows::count(row, 0)));
        sql(&self.place.path, version)
    }

    fn still_there(&self) -> StoreResult<()> {
        self.place.still_there()
    }

    fn check(&self) -> StoreResult<Vec<String>> {
        Ok(check::problems(&self.place.path))
    }
}

impl Projected for Sqlite {
    fn projections(&self) -> StoreResult<Vec<ProjectionRow>> {
        self.reading(reader::projections)
    }

    fn row_count(&self, rows: &str) -> StoreResult<u64> {
        self.reading(|conn| reader::row_count(conn, rows))
    }

    fn strays(&self) -> StoreResult<Vec<String>> {
        self.reading(reader::strays)
    }

    fn head(&self, shard: u32) -> StoreResult<u64> {
        if shard == 0 { self.reading(reader::head) } else { Ok(0) }
    }
}
