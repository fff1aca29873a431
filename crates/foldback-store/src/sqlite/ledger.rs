//! The transaction: many commits judged, written, and made durable as one.
//!
//! A commit is judged whole before its first byte is written, so a refused one leaves no trace and
//! needs no savepoint. Every inserted row is counted. An error of SQLite itself ends the writer:
//! after it nobody knows what is on disk, and nothing is tried again.

use std::path::{Path, PathBuf};

use foldback_core::{Hash, value::Payload};
use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::error::{self, sql};
use super::fault;
use super::past::{Heads, Shelf};
use super::schema::{self, Use};
use super::{now, reader, rows};
use crate::contract::{
    Append, Appended, Commit, CommitError, Definition, InboxCommand, NewEvent, Snapshot, StoreError,
    StoreResult,
};
use crate::forgetting::Tombstone;
use crate::judge::{self, Counters, Hashed, Placed, Ruling};
use crate::projections::ProjectionRow;

/// What became of one commit.
pub(crate) type Outcome = Result<Vec<Appended>, CommitError>;

/// The writer's connection, and what it remembers between transactions.
pub(crate) struct Ledger {
    conn: Connection,
    path: PathBuf,
    heads: Heads,
    /// The shard as we left it. Where the file says otherwise, another process owned the store
    /// meanwhile, or a workflow was pruned, and the heads in memory are old.
    left: Shard,
}

pub(crate) const INSERT_EVENT: &str = "INSERT INTO log (position, workflow, version, id, is_id_supplied, type, \
     schema_version, timestamp, causation_id, correlation_id, actor, codec, key_id, payload_hash, hash, payload) \
     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

impl Ledger {
    pub(crate) fn open(path: &Path) -> StoreResult<Ledger> {
        Ok(Ledger {
            conn: schema::connect(path, Use::Write)?,
            path: path.to_owned(),
            heads: Heads::default(),
            left: Shard::default(),
        })
    }

    /// Writes a group of commits in one transaction. On an error not one of them is written.
    ///
    /// Each commit is dropped as soon as its rows are made, while its memory is still at hand: after
    /// the transaction the same would cost half as much as the rows themselves.
    pub(crate) fn write<'a>(&mut self, group: impl Iterator<Item = &'a Hashed>) -> StoreResult<Vec<Outcome>> {
        sql(&self.path, self.conn.execute_batch("BEGIN IMMEDIATE"))?;
        fault::point("begun");
        let written = self.transact(group);
        if written.is_err() {
            // The first error is the one to tell; closing the connection rolls back as well.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        written
    }

    fn transact<'a>(&mut self, group: impl Iterator<Item = &'a Hashed>) -> StoreResult<Vec<Outcome>> {
        let Ledger { conn, path, heads, left } = self;
        let found = sql(path, shard(conn))?;
        if found != *left {
            heads.clear();
        }
        let Shard { epoch, forgotten, counters: before } = found;
        let mut counters = before;
        let mut ruling = Ruling::default();
        let mut outcomes = Vec::with_capacity(group.size_hint().0);
        let mut is_written = false;
        let insert_event = sql(path, conn.prepare_cached(INSERT_EVENT))?;
        let mut pen = Pen { conn, path, insert_event };
        for hashed in group {
            let commit = &hashed.commit;
            if commit.shard != 0 || commit.epoch == 0 || commit.epoch != epoch {
                let actual = if commit.shard == 0 { epoch } else { 0 };
                outcomes.push(Err(CommitError::StaleEpoch { actual }));
                continue;
            }
            match judge::judge(hashed, &mut Shelf { conn, path, heads }, counters, &mut ruling)? {
                Err(refusal) => outcomes.push(Err(refusal)),
                Ok(()) => {
                    pen.commit(commit, &ruling)?;
                    is_written = true;
                    counters = ruling.counters;
                    for (i, head) in ruling.heads.drain(..) {
                        heads.take(&commit.appends[i].workflow_id, head);
                    }
                    outcomes.push(Ok(std::mem::take(&mut ruling.appended)));
                }
            }
        }
        drop(pen);
        if !is_written {
            sql(path, conn.execute_batch("ROLLBACK"))?;
            return Ok(outcomes);
        }
        if counters != before {
            let changed = conn
                .prepare_cached("UPDATE shards SET head = ?, workflows = ? WHERE shard = 0 AND epoch = ?")
                .and_then(|mut update| {
                    update.execute([counters.position as i64, counters.workflows as i64, epoch as i64])
                });
            exactly_one(path, sql(path, changed)?, "the shard's row")?;
        }
        fault::point("counted");
        sql(path, conn.execute_batch("COMMIT"))?;
        fault::point("committed");
        *left = Shard { epoch, forgotten, counters };
        Ok(outcomes)
    }
}

/// The shard's row, as far as it tells whether somebody else was here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Shard {
    epoch: u64,
    /// How many workflows were pruned.
    forgotten: u64,
    counters: Counters,
}

fn shard(conn: &Connection) -> rusqlite::Result<Shard> {
    let mut find =
        conn.prepare_cached("SELECT epoch, head, workflows, forgotten FROM shards WHERE shard = 0")?;
    find.query_row([], |row| {
        Ok(Shard {
            epoch: rows::count(row, 0)?,
            forgotten: rows::count(row, 3)?,
            counters: Counters { position: rows::count(row, 1)?, workflows: rows::count(row, 2)? },
        })
    })
}

/// A row that SQLite says it wrote and did not is the worst of all errors: it is counted.
fn exactly_one(path: &Path, changed: usize, what: &str) -> StoreResult<()> {
    if changed == 1 {
        return Ok(());
    }
    Err(error::damaged(path, &format!("{changed} rows were written for {what}, not one")))
}

/// What writes the rows of a commit.
struct Pen<'c> {
    conn: &'c Connection,
    path: &'c Path,
    insert_event: CachedStatement<'c>,
}

impl Pen<'_> {
    fn commit(&mut self, commit: &Commit, ruling: &Ruling) -> StoreResult<()> {
        let mut hashes = ruling.hashes.iter();
        for (append, placed) in commit.appends.iter().zip(&ruling.placed) {
            if let Some(placed) = placed {
                self.append(append, placed, &mut hashes)?;
            }
        }
        for payload in &commit.payloads {
            self.payload(payload)?;
        }
        for tombstone in &commit.tombstones {
            self.tombstone(tombstone)?;
        }
        for definition in &commit.definitions {
            self.definition(definition)?;
        }
        for ((_, at), n) in commit.wakeups.iter().zip(&ruling.wakeups) {
            match at {
                Some(at) => self.one(
                    "INSERT INTO wakeups (workflow, at) VALUES (?, ?)
                     ON CONFLICT (workflow) DO UPDATE SET at = excluded.at",
                    params![*n as i64, at],
                    "a wake-up",
                )?,
                None => {
                    self.execute("DELETE FROM wakeups WHERE workflow = ?", params![*n as i64])?;
                }
            }
        }
        self.heard(commit, ruling)?;
        for (id, answer) in &commit.consumed {
            self.one(
                // What it said is a fact by now, or was refused: its values are kept in one place.
                "UPDATE inbox SET answer = ?, answered_at = ?, body = 'null'
                 WHERE id = ? AND answer IS NULL",
                params![answer.to_string(), now(), id],
                "an answer",
            )?;
        }
        for (projection, _, after) in &commit.checkpoints {
            self.one(
                "INSERT INTO checkpoints (projection, shard, position) VALUES (?, 0, ?)
                 ON CONFLICT (projection, shard) DO UPDATE SET position = excluded.position",
                params![projection, *after as i64],
                "a checkpoint",
            )?;
        }
        for (projection, key, value) in &commit.projection_rows {
            match value {
                Some(value) => self.one(
                    "INSERT INTO projection_rows (projection, shard, key, value) VALUES (?, 0, ?, ?)
                     ON CONFLICT (projection, shard, key) DO UPDATE SET value = excluded.value",
                    params![projection, key, value.to_string()],
                    "a row of a projection",
                )?,
                None => {
                    self.execute(
                        "DELETE FROM projection_rows WHERE projection = ? AND shard = 0 AND key = ?",
                        params![projection, key],
                    )?;
                }
            }
        }
        for (name, versions) in &commit.projections {
            self.projection(name, versions)?;
        }
        for (rows, most) in &commit.let_go {
            self.let_go(rows, *most)?;
        }
        commit.snapshots.iter().try_for_each(|snapshot| self.snapshot(snapshot))
    }

    /// Who is handed what, and who listens for what from here on.
    fn heard(&self, commit: &Commit, ruling: &Ruling) -> StoreResult<()> {
        for emit in &commit.emits {
            for workflow_id in sql(self.path, reader::listeners(self.conn, &emit.name))? {
                self.send(&emit.to(&workflow_id, commit.shard))?;
            }
        }
        commit.sends.iter().try_for_each(|command| self.send(command))?;
        for ((_, names), n) in commit.listens.iter().zip(&ruling.listens) {
            self.execute("DELETE FROM listeners WHERE workflow = ?", params![*n as i64])?;
            for name in names {
                self.one(
                    "INSERT INTO listeners (name, workflow) VALUES (?, ?)",
                    params![&**name, *n as i64],
                    "a listener",
                )?;
            }
        }
        Ok(())
    }

    /// Puts a command into the inbox, unless it is there: its id says which one it is.
    fn send(&self, command: &InboxCommand) -> StoreResult<()> {
        let InboxCommand { id, shard, actor, body } = command;
        let changed = self.execute(
            "INSERT INTO inbox (id, shard, actor, body, sent_at) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (id) DO NOTHING",
            params![id, shard, actor, body.to_string(), now()],
        )?;
        if changed == 1 {
            return Ok(());
        }
        let there =
            self.conn.prepare_cached("SELECT 1 FROM inbox WHERE id = ?").and_then(|mut s| s.exists([id]));
        exactly_one(self.path, usize::from(sql(self.path, there)?), "a command")
    }

    fn append<'h>(
        &mut self,
        append: &Append,
        placed: &Placed,
        hashes: &mut impl Iterator<Item = &'h (Hash, Hash)>,
    ) -> StoreResult<()> {
        if placed.is_new {
            self.workflow(append, placed.n)?;
        } else if let Some(status) = append.status {
            self.one(
                "UPDATE workflows SET status = ? WHERE n = ?",
                params![status, placed.n as i64],
                "a workflow's status",
            )?;
        }
        let places = (placed.first_position..).zip(placed.first_version..);
        for ((event, (position, version)), hashes) in append.events.iter().zip(places).zip(hashes) {
            self.event(event, placed.n, position, version, hashes)?;
        }
        Ok(())
    }

    fn event(
        &mut self,
        event: &NewEvent,
        n: u64,
        position: u64,
        version: u64,
        (payload_hash, hash): &(Hash, Hash),
    ) -> StoreResult<()> {
        let changed = self.insert_event.execute(params![
            position as i64,
            n as i64,
            version as i64,
            &event.id.0[..],
            event.is_id_supplied,
            &*event.event_type,
            event.schema_version,
            event.timestamp,
            event.causation_id.as_ref().map(|id| &id.0[..]),
            event.correlation_id.as_ref().map(|id| &id.0[..]),
            &*event.actor,
            &*event.codec,
            event.key_id.as_deref(),
            &payload_hash.0[..],
            &hash.0[..],
            &event.payload,
        ]);
        fault::point("event");
        exactly_one(self.path, sql(self.path, changed)?, "an event")
    }

    fn workflow(&self, append: &Append, n: u64) -> StoreResult<()> {
        let begins = append.begins.clone().unwrap_or_default();
        let (parent, cut, cut_hash) = match begins.parent {
            Some((parent, cut, hash)) => (Some(parent), cut, Some(hash)),
            None => (None, 0, None),
        };
        self.one(
            "INSERT INTO workflows (n, id, shard, tenant, definition, name, input_hash, parent, cut, cut_hash,
                 status, started_at) VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            params![
                n as i64,
                &*append.workflow_id,
                begins.tenant,
                begins.definition.map(|hash| hash.0),
                begins.name,
                begins.input_hash.map(|hash| hash.0),
                parent,
                cut as i64,
                cut_hash.map(|hash| hash.0),
                append.status.unwrap_or("running"),
                append.events.first().map_or(0, |event| event.timestamp),
            ],
            "a workflow",
        )
    }

    /// What was erased here too keeps its own tombstone.
    fn tombstone(&self, tombstone: &Tombstone) -> StoreResult<()> {
        let Tombstone { hash, media_type, bytes, at, actor, reason } = tombstone;
        let changed = self.execute(
            "INSERT INTO tombstones (shard, hash, media_type, bytes, erased_at, actor, reason)
             VALUES (0, ?, ?, ?, ?, ?, ?) ON CONFLICT (shard, hash) DO NOTHING",
            params![hash.0, media_type, *bytes as i64, at, actor, reason],
        )?;
        if changed == 1 {
            return Ok(());
        }
        self.is_there(
            "SELECT bytes FROM tombstones WHERE shard = 0 AND hash = ?",
            hash,
            usize::try_from(*bytes).unwrap_or(usize::MAX),
            "tombstone",
        )
    }

    /// A value that is there already is left as it is; that it is there is looked at, since
    /// "nothing to do" and "nothing done" look alike.
    fn payload(&self, payload: &Payload) -> StoreResult<()> {
        let changed = self.execute(
            "INSERT INTO payloads (shard, hash, media_type, bytes) VALUES (0, ?, ?, ?)
             ON CONFLICT (shard, hash) DO NOTHING",
            params![payload.hash.0, payload.media_type, payload.bytes],
        )?;
        if changed == 1 {
            return Ok(());
        }
        self.is_there(
            "SELECT length(bytes) FROM payloads WHERE shard = 0 AND hash = ?",
            &payload.hash,
            payload.bytes.len(),
            "payload",
        )
    }

    fn definition(&self, definition: &Definition) -> StoreResult<()> {
        let changed = self.execute(
            "INSERT INTO definitions (hash, kind, name, canonical, source) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (hash) DO NOTHING",
            params![
                definition.hash.0,
                definition.kind,
                definition.name,
                definition.canonical,
                definition.source
            ],
        )?;
        if changed == 1 {
            return Ok(());
        }
        self.is_there(
            "SELECT octet_length(canonical) FROM definitions WHERE hash = ?",
            &definition.hash,
            definition.canonical.len(),
            "definition",
        )
    }

    /// Says anew what is known of a projection.
    fn projection(&self, name: &str, versions: &[ProjectionRow]) -> StoreResult<()> {
        self.execute("DELETE FROM projections WHERE name = ?", params![name])?;
        for version in versions {
            let failure = version.failure.as_ref();
            let event = failure.and_then(|failure| failure.event.as_ref());
            self.one(
                "INSERT INTO projections (name, is_live, version, source, rows, failure,
                     failed_workflow_id, failed_version) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                params![
                    name,
                    version.is_live,
                    version.version,
                    version.source,
                    version.rows,
                    failure.map(|failure| &failure.message),
                    event.map(|(workflow_id, _)| &**workflow_id),
                    event.map(|(_, version)| *version as i64),
                ],
                "a projection",
            )?;
        }
        Ok(())
    }

    fn let_go(&self, rows: &str, most: usize) -> StoreResult<()> {
        let gone = self.execute(
            "DELETE FROM projection_rows WHERE projection = ?1 AND shard = 0 AND key IN
                 (SELECT key FROM projection_rows WHERE projection = ?1 AND shard = 0 LIMIT ?2)",
            params![rows, most as i64],
        )?;
        if gone < most {
            self.execute("DELETE FROM checkpoints WHERE projection = ? AND shard = 0", params![rows])?;
        }
        Ok(())
    }

    fn snapshot(&self, snapshot: &Snapshot) -> StoreResult<()> {
        self.one(
            "INSERT INTO workflow_snapshots (workflow_id, version, event_hash, state_schema, fingerprint, state)
             VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT (workflow_id, version) DO UPDATE SET event_hash = excluded.event_hash,
                 state_schema = excluded.state_schema, fingerprint = excluded.fingerprint,
                 state = excluded.state",
            params![
                &*snapshot.workflow_id,
                snapshot.version as i64,
                snapshot.event_hash.0,
                snapshot.state_schema,
                snapshot.fingerprint.0,
                snapshot.state,
            ],
            "a snapshot",
        )
    }

    fn execute(&self, statement: &str, values: impl rusqlite::Params) -> StoreResult<usize> {
        let changed = self.conn.prepare_cached(statement).and_then(|mut s| s.execute(values));
        fault::point("statement");
        sql(self.path, changed)
    }

    fn one(&self, statement: &str, values: impl rusqlite::Params, what: &str) -> StoreResult<()> {
        exactly_one(self.path, self.execute(statement, values)?, what)
    }

    fn is_there(&self, query: &str, hash: &Hash, length: usize, what: &str) -> StoreResult<()> {
        let found = self
            .conn
            .prepare_cached(query)
            .and_then(|mut query| query.query_row([&hash.0], |row| row.get::<_, i64>(0)).optional());
        if sql(self.path, found)? == i64::try_from(length).ok() {
            return Ok(());
        }
        Err(StoreError {
            message: format!("{}: {what} {hash} is there with other bytes", self.path.display()),
            hint: Some("`foldback audit` says what is broken".into()),
            is_input: false,
        })
    }
}
