//! What the bare database can do: the figure that the store's own speed is measured against.
//!
//! The same file settings, tables and indexes as the store, the same columns filled; no judging,
//! no hashing, no queue, one thread that does nothing else. It writes to a new file, never to a
//! store.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use crate::contract::{StoreError, StoreResult};
use crate::sqlite::{INSERT_EVENT, WRITE_PRAGMAS, ddl};

/// Workflows that are written in turn.
const WORKFLOWS: usize = 1_000;

/// Events of a workflow, after which another begins: ten steps of two, and both ends.
const EVENTS: i64 = 22;

/// Events of a workflow that are written together.
const TOGETHER: usize = 2;

/// Payloads made before the clock starts.
const PAYLOADS: usize = 4_096;

/// Rows a second into `log` with this many rows in each transaction, for some seconds. 1,000
/// workflows in turn, two rows each, payloads of about 200 bytes that do not compress.
///
/// # Errors
/// When the file is there already, or SQLite fails.
pub fn raw_append_loop(path: &Path, rows_per_tx: usize, seconds: f64) -> StoreResult<f64> {
    if path.exists() {
        return Err(StoreError {
            message: format!("{} is there already", path.display()),
            hint: Some("name a file that is not there: this writes rows that mean nothing".into()),
            is_input: true,
        });
    }
    append_loop(path, rows_per_tx.max(1), Duration::from_secs_f64(seconds.max(0.0))).map_err(|e| StoreError {
        message: format!("{}: {e}", path.display()),
        hint: None,
        is_input: false,
    })
}

/// Commits a second with one row in each: how often the disk can say "written".
///
/// # Errors
/// As [`raw_append_loop`].
pub fn raw_commit_loop(path: &Path, seconds: f64) -> StoreResult<f64> {
    raw_append_loop(path, 1, seconds)
}

fn append_loop(path: &Path, rows_per_tx: usize, time: Duration) -> rusqlite::Result<f64> {
    let conn = Connection::open(path)?;
    conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    conn.execute_batch(WRITE_PRAGMAS)?;
    conn.execute_batch(&ddl())?;
    let payloads = payloads();
    let mut insert = conn.prepare(INSERT_EVENT)?;
    let mut begin = conn.prepare("BEGIN IMMEDIATE")?;
    let mut commit = conn.prepare("COMMIT")?;
    // Of each place: the workflow's number, and its last version.
    let mut places: Vec<(i64, i64)> = (1..=WORKFLOWS as i64).map(|n| (n, 0)).collect();
    let mut next_n = WORKFLOWS as i64;
    let mut position = 0i64;
    let constant = [7u8; 32];
    let start = Instant::now();
    while start.elapsed() < time {
        begin.execute([])?;
        for _ in 0..rows_per_tx {
            let (n, version) = &mut places[position as usize / TOGETHER % WORKFLOWS];
            position += 1;
            if *version == EVENTS {
                next_n += 1;
                (*n, *version) = (next_n, 0);
            }
            *version += 1;
            let mut id = [0u8; 16];
            id[8..].copy_from_slice(&position.to_be_bytes());
            insert.execute(params![
                position,
                *n,
                *version,
                &id[..],
                false,
                "StepCompleted",
                1,
                1_700_000_000_000_000 + position,
                Some(&id[..]),
                Some(&id[..]),
                "engine",
                "json",
                None::<&str>,
                &constant[..],
                &constant[..],
                &payloads[position as usize % PAYLOADS],
            ])?;
        }
        commit.execute([])?;
    }
    Ok(position as f64 / start.elapsed().as_secs_f64())
}

/// Payloads of about 200 bytes, as a step's completion has them.
fn payloads() -> Vec<String> {
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut digits = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        format!("{seed:016x}")
    };
    let payload = |i: usize| {
        let text: String = (0..9).map(|_| digits()).collect();
        format!("{{\"key\":\"step{i:05}\",\"attempt\":1,\"output\":{{\"inline\":{{\"text\":\"{text}\"}}}}}}")
    };
    (0..PAYLOADS).map(payload).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_bare_loop_writes_and_never_over_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("raw.db");
        assert!(super::raw_append_loop(&path, 100, 0.05).unwrap() > 0.0);
        assert!(super::raw_append_loop(&path, 100, 0.05).unwrap_err().is_input);
        assert!(super::raw_commit_loop(&dir.path().join("one.db"), 0.05).unwrap() > 0.0);
        assert_eq!(super::payloads()[0].len(), 207);
    }
}
