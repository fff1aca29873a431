//! The tables, and how a file is opened: made, recognised, or refused.
//!
//! The shape of `log` is the speed of the engine: a small number for a workflow, given out in the
//! order in which workflows begin, so that the one index that every row touches grows at few
//! places. `workflow_events` is the view that people read. Nothing here changes a file that is not
//! ours.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};

use super::error::{self, sql};
use super::place::Place;
use super::{lock, views};
use crate::contract::{StoreError, StoreResult};

/// The shape of the tables below. A store with a higher number was written by a newer program.
pub(crate) const SCHEMA_VERSION: i64 = 4;

/// `Fldb`: says in the file's header whose it is.
const APPLICATION_ID: i64 = 0x466C_6462;

/// How long a connection waits for another process that writes.
pub(crate) const BUSY: Duration = Duration::from_secs(30);

/// How often the lock of a file with older tables is tried, 10 ms apart.
const OLDER_TRIES: u32 = 200;

/// Tables, indexes, triggers.
const TABLES: &str = "
CREATE TABLE shards (
    shard INTEGER PRIMARY KEY,
    head INTEGER NOT NULL,          -- the last position given
    workflows INTEGER NOT NULL,     -- the last workflow number given
    epoch INTEGER NOT NULL,         -- 0: nobody has owned it yet
    owner TEXT,
    forgotten INTEGER NOT NULL DEFAULT 0 -- how many workflows were pruned
) STRICT;
INSERT INTO shards VALUES (0, 0, 0, 0, NULL, 0);

CREATE TABLE workflows (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    shard INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    definition BLOB,
    name TEXT NOT NULL,
    input_hash BLOB,
    parent TEXT,
    cut INTEGER NOT NULL DEFAULT 0,
    cut_hash BLOB,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;
CREATE INDEX workflows_by_status ON workflows (status);

CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    workflow INTEGER NOT NULL,
    version INTEGER NOT NULL,
    id BLOB NOT NULL,
    is_id_supplied INTEGER NOT NULL,
    type TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    causation_id BLOB,
    correlation_id BLOB,
    actor TEXT NOT NULL,
    codec TEXT NOT NULL,
    key_id TEXT,
    payload_hash BLOB NOT NULL,
    hash BLOB NOT NULL,
    payload TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX log_by_version ON log (workflow, version);
CREATE UNIQUE INDEX log_by_supplied_id ON log (id) WHERE is_id_supplied = 1;

CREATE TRIGGER log_is_never_updated BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only: an event is never changed'); END;
CREATE TABLE workflow_snapshots (
    workflow_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    event_hash BLOB NOT NULL,
    state_schema INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (workflow_id, version)
) STRICT;

-- Under a name of their own for each version: readers see those of the live one, as
-- `workflow_projections`.
CREATE TABLE projection_rows (
    projection TEXT NOT NULL,
    shard INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (projection, shard, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    projection TEXT NOT NULL,
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (projection, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE definitions (
    hash BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    canonical TEXT NOT NULL,
    source TEXT NOT NULL
) STRICT;
CREATE TRIGGER definitions_are_never_updated BEFORE UPDATE ON definitions
BEGIN SELECT RAISE(ABORT, 'a definition is kept by its hash and never changed'); END;

CREATE TABLE payloads (
    shard INTEGER NOT NULL,
    hash BLOB NOT NULL,
    media_type TEXT NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (shard, hash)
) STRICT;
CREATE TRIGGER payloads_are_never_updated BEFORE UPDATE ON payloads
BEGIN SELECT RAISE(ABORT, 'a payload is kept by its hash and never changed'); END;

CREATE TABLE inbox (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    shard INTEGER NOT NULL,
    actor TEXT NOT NULL,
    body TEXT NOT NULL,
    sent_at INTEGER NOT NULL,
    answer TEXT,
    answered_at INTEGER
) STRICT;
CREATE INDEX inbox_open ON inbox (shard, n) WHERE answer IS NULL;

CREATE TABLE wakeups (
    workflow INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
";

/// What has to do with forgetting, since version 2. The log lets go of a workflow only once it is
/// signed off in `pruned`, and payloads only once they have a tombstone.
const FORGETTING: &str = "
CREATE TABLE tombstones (
    shard INTEGER NOT NULL,
    hash BLOB NOT NULL,
    media_type TEXT NOT NULL,
    bytes INTEGER NOT NULL,         -- how many there were
    erased_at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (shard, hash)
) STRICT;

CREATE TABLE pruned (
    workflow_id TEXT NOT NULL PRIMARY KEY,
    n INTEGER NOT NULL UNIQUE,
    shard INTEGER NOT NULL,
    definition BLOB,
    name TEXT NOT NULL,
    parent TEXT,
    cut INTEGER NOT NULL,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    first_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL,
    hash BLOB NOT NULL,             -- the chain hash of its last event
    positions TEXT NOT NULL,        -- those that are empty since, as JSON: [[first, last], ...]
    pruned_at INTEGER NOT NULL,
    actor TEXT NOT NULL
) STRICT;
CREATE TRIGGER pruned_is_never_updated BEFORE UPDATE ON pruned
BEGIN SELECT RAISE(ABORT, 'what was signed off is never changed'); END;
CREATE TRIGGER pruned_is_never_deleted BEFORE DELETE ON pruned
BEGIN SELECT RAISE(ABORT, 'what was signed off is never deleted'); END;

CREATE INDEX workflows_by_parent ON workflows (parent) WHERE parent IS NOT NULL;
CREATE TRIGGER a_pruned_workflow_never_begins_again BEFORE INSERT ON workflows
WHEN EXISTS (SELECT 1 FROM pruned WHERE workflow_id = new.id)
BEGIN SELECT RAISE(ABORT, 'a pruned workflow never begins again'); END;

CREATE TRIGGER log_is_never_deleted BEFORE DELETE ON log
WHEN NOT EXISTS (SELECT 1 FROM pruned WHERE n = old.workflow)
BEGIN SELECT RAISE(ABORT, 'the log is append-only: an event is never deleted'); END;
CREATE TRIGGER payloads_are_never_deleted BEFORE DELETE ON payloads
WHEN NOT EXISTS (SELECT 1 FROM tombstones WHERE shard = old.shard AND hash = old.hash)
BEGIN SELECT RAISE(ABORT, 'a payload is never deleted, but for a tombstone'); END;
";

/// Which projections there are, since version 3.
const PROJECTIONS: &str = "
CREATE TABLE projections (
    name TEXT NOT NULL,
    is_live INTEGER NOT NULL,       -- 0: made beside the live one, to take its place
    version TEXT NOT NULL,
    source TEXT NOT NULL,           -- its file; empty for what is built in
    rows TEXT NOT NULL,             -- the name under which its rows and its checkpoint stand
    failure TEXT,                   -- why it stands still, if it does
    failed_workflow_id TEXT,
    failed_version INTEGER,
    PRIMARY KEY (name, is_live)
) STRICT, WITHOUT ROWID;
";

/// Who listens for what, since version 4: an event is handed to these without reading a log. No
/// program that wrote older tables knew how to listen.
const LISTENERS: &str = "
CREATE TABLE listeners (
    name TEXT NOT NULL,
    workflow INTEGER NOT NULL,
    PRIMARY KEY (name, workflow)
) STRICT, WITHOUT ROWID;
CREATE INDEX listeners_by_workflow ON listeners (workflow);
";

/// From version 1 to 2.
const TO_2: &str = "
ALTER TABLE shards ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
DROP TRIGGER log_is_never_deleted;
UPDATE inbox SET body = 'null' WHERE answer IS NOT NULL;
";

/// From version 2 to 3, before [`PROJECTIONS`] and the views.
/// Views that are made anew.
const REPORTS_BEFORE_4: &str = "DROP VIEW steps; DROP VIEW workflow_summaries; DROP VIEW model_usage; \
     DROP VIEW decisions; DROP VIEW workflow_projections;";

const TO_3: &str = "ALTER TABLE workflow_projections RENAME TO projection_rows;";

/// From version 2 to 3, behind them: rows that are there are of the first version.
const KNOWN_IN_3: &str = "INSERT INTO projections (name, is_live, version, source, rows)
    SELECT projection, 1, '1', '', projection FROM checkpoints;";

/// Everything that a new file gets.
pub(crate) fn ddl() -> String {
    format!("{TABLES}{FORGETTING}{PROJECTIONS}{LISTENERS}{}{}", views::events(), views::REPORTS)
}

/// What to do where there is no store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Make one.
    Create,
    /// Say so.
    Refuse,
}

/// Finds or makes the store at a path; returns its place without links, which every later
/// connection, and the lock, goes by.
pub(crate) fn prepare(path: &Path, missing: Missing) -> StoreResult<Place> {
    look_at(path, missing)?;
    if missing == Missing::Create {
        make_for_its_owner(path);
    }
    let at = |e: rusqlite::Error| error::of_opening(path, &e);
    let conn = match missing {
        Missing::Create => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let conn =
                Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_CREATE).map_err(at)?;
            conn.busy_timeout(BUSY).map_err(at)?;
            conn
        }
        Missing::Refuse => to_be_read(path)?,
    };
    match kind_of(&conn).map_err(at)? {
        Kind::Ours(SCHEMA_VERSION) => {}
        Kind::Ours(1..SCHEMA_VERSION) => {
            if conn.is_readonly(MAIN_DB).map_err(at)? {
                return Err(to_be_brought_up(path));
            }
            let _nobody_else = to_itself(path)?;
            bring_up(&conn).map_err(at)?;
        }
        Kind::Ours(version) => return Err(of_another_version(path, version)),
        Kind::Foreign => {
            return Err(StoreError {
                message: format!("{} is a SQLite database of another program", path.display()),
                hint: Some("name another file with --store sqlite:PATH".into()),
                is_input: true,
            });
        }
        Kind::Empty if missing == Missing::Refuse => return Err(no_store(path, "holds no store")),
        Kind::Empty => {
            if conn.is_readonly(MAIN_DB).map_err(at)? {
                return Err(error::read_only(path));
            }
            create(&conn).map_err(at)?;
        }
    }
    if missing == Missing::Create && conn.is_readonly(MAIN_DB).map_err(at)? {
        return Err(error::read_only(path));
    }
    let canonical = std::fs::canonicalize(path).map_err(|e| StoreError {
        message: format!("cannot open {}: {e}", path.display()),
        hint: None,
        is_input: false,
    })?;
    Place::of(canonical)
}

/// Makes an empty file that only its owner may read and write: SQLite gives the files beside it the
/// same. Where it cannot be made, SQLite says why in a moment.
fn make_for_its_owner(path: &Path) {
    // Closing a file takes away every lock of this process on it: no other thread may have found it yet.
    static MAKING: Mutex<()> = Mutex::new(());
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let _made = options.open(path);
    }
}

/// The file itself, wherever it is moved on this machine: its device, its number there, and when it was
/// made. A copy is another file.
pub(crate) fn identity(path: &Path) -> StoreResult<String> {
    let file = std::fs::metadata(path).map_err(|e| StoreError {
        message: format!("cannot look at {}: {e}", path.display()),
        hint: None,
        is_input: false,
    })?;
    let made = file.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    #[cfg(unix)]
    let place = {
        use std::os::unix::fs::MetadataExt;
        format!("{} {}", file.dev(), file.ino())
    };
    #[cfg(not(unix))]
    let place = path.display().to_string();
    Ok(format!("sqlite {place} {}", made.as_nanos()))
}

/// Refuses what SQLite would answer with "unable to open database file" or worse, an empty file.
fn look_at(path: &Path, missing: Missing) -> StoreResult<()> {
    if path.is_dir() {
        return Err(StoreError {
            message: format!("{} is a directory, not a store", path.display()),
            hint: Some(format!("name a file: --store sqlite:{}", path.join("foldback.db").display())),
            is_input: true,
        });
    }
    use std::io::ErrorKind;
    match std::fs::metadata(path) {
        Ok(found) => return has_one_name(path, &found),
        // Nobody knows whether it is there.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => return Err(cannot_look(path, &e)),
        Err(e) if missing == Missing::Refuse && e.kind() != ErrorKind::NotFound => {
            return Err(cannot_look(path, &e));
        }
        Err(_) if missing == Missing::Refuse => return Err(no_store(path, "does not exist")),
        Err(_) => {}
    }
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() && !dir.is_dir() => Err(StoreError {
            message: format!("cannot make {}: there is no directory {}", path.display(), dir.display()),
            hint: Some("make the directory first, or check --store".into()),
            is_input: true,
        }),
        _ => Ok(()),
    }
}

/// Refuses a database with several names: each would have a lock, and a write-ahead log, of its own.
#[cfg(unix)]
fn has_one_name(path: &Path, found: &std::fs::Metadata) -> StoreResult<()> {
    let names = std::os::unix::fs::MetadataExt::nlink(found);
    if names <= 1 {
        return Ok(());
    }
    Err(StoreError {
        message: format!(
            "{} has {names} names (hard links): two processes could own it at once",
            path.display()
        ),
        hint: Some("remove the other names (`find DIR -samefile FILE` lists them), or copy the file".into()),
        is_input: true,
    })
}

#[cfg(not(unix))]
fn has_one_name(_path: &Path, _found: &std::fs::Metadata) -> StoreResult<()> {
    Ok(())
}

fn of_another_version(path: &Path, version: i64) -> StoreError {
    let whose = if version > SCHEMA_VERSION { "a newer" } else { "an older" };
    StoreError {
        message: format!(
            "{} was written by {whose} foldback (store version {version}, this one knows {SCHEMA_VERSION})",
            path.display()
        ),
        hint: Some("use that foldback, or name another file with --store".into()),
        is_input: true,
    }
}

fn to_be_brought_up(path: &Path) -> StoreError {
    StoreError {
        message: format!("{} was written by an older foldback and is read-only", path.display()),
        hint: Some("make it writable once, so that its tables are brought up to date; or open a copy".into()),
        is_input: true,
    }
}

/// A place that cannot be looked at: a directory that one may not enter, a name through a file.
fn cannot_look(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError {
        message: format!("cannot open {}: {error}", path.display()),
        hint: Some(
            "check the path, and that you may enter its directory; or name another with --store".into(),
        ),
        is_input: true,
    }
}

fn no_store(path: &Path, what: &str) -> StoreError {
    StoreError {
        message: format!("{} {what}", path.display()),
        hint: Some("`foldback run FILE` makes it; is --store right?".into()),
        is_input: true,
    }
}

enum Kind {
    Ours(i64),
    Foreign,
    Empty,
}

fn kind_of(conn: &Connection) -> rusqlite::Result<Kind> {
    let number = |pragma: &str| conn.query_row(pragma, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    if application == APPLICATION_ID {
        return Ok(Kind::Ours(number("PRAGMA user_version")?));
    }
    let things = number("SELECT count(*) FROM sqlite_schema")?;
    if application == 0 && things > 0 && number("PRAGMA application_id")? == APPLICATION_ID {
        // Another process made the tables between our two looks.
        return kind_of(conn);
    }
    Ok(if application == 0 && things == 0 { Kind::Empty } else { Kind::Foreign })
}

/// Makes the tables, unless another process was quicker.
fn create(conn: &Connection) -> rusqlite::Result<()> {
    write_ahead(conn)?;
    conn.execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
    if matches!(kind_of(conn)?, Kind::Empty) {
        conn.execute_batch(&ddl())?;
        conn.execute_batch(&format!(
            "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
        ))?;
    }
    conn.execute_batch("COMMIT")
}

/// Takes the lock of a store whose tables are to be changed: an older program that has it writes by the
/// shape that it knows. Another of ours is done in a moment.
fn to_itself(path: &Path) -> StoreResult<std::fs::File> {
    let canonical = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for _ in 0..OLDER_TRIES {
        if let Some(held) = lock::take(&canonical, "bringing the tables up")? {
            return Ok(held);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(StoreError {
        message: format!("{} is in use by an older foldback, whose tables it has", path.display()),
        hint: Some("wait until that process has ended; then the tables are brought up to date".into()),
        is_input: true,
    })
}

/// Brings older tables up to date, unless another process was quicker. What stands in them stays as
/// it is.
fn bring_up(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; BEGIN IMMEDIATE")?;
    let Kind::Ours(from) = kind_of(conn)? else { return conn.execute_batch("ROLLBACK") };
    if from < 2 {
        conn.execute_batch(TO_2)?;
        conn.execute_batch(FORGETTING)?;
    }
    if from < 3 {
        conn.execute_batch(&[TO_3, PROJECTIONS, views::REPORTS, KNOWN_IN_3].concat())?;
    }
    if from < 4 {
        conn.execute_batch(LISTENERS)?;
    }
    if from == 3 {
        // Views hold nothing: what they say of newer events comes with them.
        conn.execute_batch(&[REPORTS_BEFORE_4, views::REPORTS].concat())?;
    }
    conn.execute_batch(&format!("PRAGMA user_version = {SCHEMA_VERSION};"))?;
    conn.execute_batch("COMMIT")
}

/// Switches a new file to a write-ahead log. SQLite does not wait for others here, so we do.
fn write_ahead(conn: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        match conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0)) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < 500 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.map(|_| ()),
        }
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Appending: the writer's.
    Write,
    /// A few rows beside the log: inbox and epoch.
    Tell,
    /// Erasing and pruning.
    Forget,
    /// Reading.
    Read,
}

/// Opens a file to read in it, also where neither it nor its directory can be written, or the disk is full:
/// readers of a write-ahead log keep an index beside the file, and where they cannot make one, it is read
/// as a file that nobody writes to. That is true while there is nothing to be taken up from the log.
fn to_be_read(path: &Path) -> StoreResult<Connection> {
    let look = |path: &Path, flags: OpenFlags| -> rusqlite::Result<Connection> {
        let conn = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(BUSY)?;
        conn.query_row("PRAGMA application_id", [], |_| Ok(()))?;
        Ok(conn)
    };
    let refusal = match look(path, OpenFlags::SQLITE_OPEN_READ_WRITE) {
        Ok(conn) => return Ok(conn),
        Err(refusal) => refusal,
    };
    let is_shut = matches!(
        refusal.sqlite_error_code(),
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::DiskFull | ErrorCode::SystemIoFailure)
    );
    if let Some(link) = error::link_beside(path).filter(|_| is_shut) {
        return Err(error::is_link(&link));
    }
    match (is_shut && std::fs::File::open(path).is_ok(), as_uri(path)) {
        (true, Some(_)) if has_log(path) => Err(error::not_closed(path)),
        (true, Some(uri)) => look(&uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
            .map_err(|e| error::of_opening(path, &e)),
        _ => Err(error::of_opening(path, &refusal)),
    }
}

/// Whether commits wait in the write-ahead log.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    std::fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// The path of a file that does not change, as SQLite takes it. `None` where it is not UTF-8.
fn as_uri(path: &Path) -> Option<PathBuf> {
    let path = path.to_str()?.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    Some(format!("file:{path}?immutable=1").into())
}

/// Opens a connection to a store that [`prepare`] found.
pub(crate) fn connect(path: &Path, r#use: Use) -> StoreResult<Connection> {
    let conn = match r#use {
        Use::Read => to_be_read(path)?,
        Use::Write | Use::Tell | Use::Forget => {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            Connection::open_with_flags(path, flags).map_err(|e| error::of_opening(path, &e))?
        }
    };
    let pragmas = match r#use {
        Use::Write => WRITE_PRAGMAS,
        Use::Tell | Use::Forget => "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;",
        Use::Read => "PRAGMA query_only = ON; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;",
    };
    sql(path, conn.busy_handler(Some(wait_a_little)))?;
    sql(path, conn.execute_batch(pragmas))?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// How the writer's connection is set. `raw` measures with the same.
///
/// Full durability: a commit returns when it is on disk. The write-ahead log is folded back into
/// the file every 16 MB, so that pages that change often are written once. What is overwritten is
/// gone: an answered command leaves no copy of its values in the file.
pub(crate) const WRITE_PRAGMAS: &str = "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;
    PRAGMA secure_delete = ON;
    PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -16384; PRAGMA temp_store = MEMORY;
    PRAGMA foreign_keys = OFF;";

/// SQLite's own waiting sleeps longer and longer, and starves beside a busy writer. Every
/// millisecond finds its gap.
fn wait_a_little(tries: i32) -> bool {
    std::thread::sleep(Duration::from_millis(1));
    u128::from(tries.unsigned_abs()) < BUSY.as_millis()
}
