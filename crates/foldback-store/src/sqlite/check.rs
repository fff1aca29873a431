//! What is broken below the level of events. A damaged file is a finding, not a failure: whatever
//! SQLite says about it goes into the list, in words.

use std::path::Path;
use std::sync::OnceLock;

use foldback_core::Hash;
use rusqlite::Connection;

use super::schema::{Use, connect, ddl};
use super::{retention, rows};
use crate::forgetting::density;

/// Findings of one kind; more of the same tell nothing new.
const PROBLEMS_MAX: usize = 20;

type Look = fn(&Connection, &mut Vec<String>) -> rusqlite::Result<()>;

/// Looks at everything, and says what is wrong.
pub(crate) fn problems(path: &Path) -> Vec<String> {
    let conn = match connect(path, Use::Read) {
        Ok(conn) => conn,
        Err(error) => return vec![error.message],
    };
    let looks: [(&str, Look); 6] = [
        ("the file", file),
        ("positions", positions),
        ("versions", versions),
        ("payloads", payloads),
        ("rows beside the log", beside),
        ("the tables", tables),
    ];
    let mut problems = Vec::new();
    for (what, look) in looks {
        // Each sees one state of the file, whatever others write meanwhile.
        let looked = conn.execute_batch("BEGIN").and_then(|()| look(&conn, &mut problems));
        if let Err(error) = looked {
            problems.push(format!("{what}: {error}"));
        }
        // Where the error has ended the transaction, there is none to end.
        let _ended = conn.execute_batch("ROLLBACK");
    }
    problems
}

/// Pages, b-trees, indexes against their tables.
fn file(conn: &Connection, problems: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut ask = conn.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        let text: String = row.get(0)?;
        if text != "ok" {
            problems.push(format!("the file: {text}"));
        }
    }
    Ok(())
}

/// What a database holds beside rows: kind, name, and the text of a trigger.
type Thing = (String, String, String);

/// Tables, indexes, views and triggers, each as it is made; and no trigger of somebody else, which could
/// change what is written.
fn tables(conn: &Connection, problems: &mut Vec<String>) -> rusqlite::Result<()> {
    let (wanted, found) = (made()?, things(conn)?);
    for (kind, name, text) in wanted {
        match found.iter().find(|(other, named, _)| (other, named) == (kind, name)) {
            None => problems.push(format!("the {kind} `{name}` is missing")),
            Some((.., other)) if other != text => {
                problems.push(format!("the {kind} `{name}` is not the one that was made"));
            }
            Some(_) => {}
        }
    }
    for (kind, name, _) in &found {
        let is_ours = wanted.iter().any(|(other, named, _)| (other, named) == (kind, name));
        if kind == "trigger" && !is_ours {
            problems.push(format!("there is a trigger `{name}`, which is none of this store's"));
        }
    }
    Ok(())
}

/// What a database holds that this program has just made. It is made once in a process, and kept.
fn made() -> rusqlite::Result<&'static [Thing]> {
    static MADE: OnceLock<Vec<Thing>> = OnceLock::new();
    if let Some(made) = MADE.get() {
        return Ok(made);
    }
    let empty = Connection::open_in_memory()?;
    empty.execute_batch(&ddl())?;
    let made = things(&empty)?;
    Ok(MADE.get_or_init(|| made))
}

/// The text is told of triggers alone: that of a table depends on the program that made it.
fn things(conn: &Connection) -> rusqlite::Result<Vec<Thing>> {
    let mut ask = conn.prepare(
        "SELECT type, name, CASE type WHEN 'trigger' THEN sql ELSE '' END FROM sqlite_schema
         WHERE sql IS NOT NULL ORDER BY type, name",
    )?;
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let things = ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?, words(row.get(2)?))))?;
    things.collect()
}

/// Dense from 1 to the shard's head, but for what is signed off as pruned.
fn positions(conn: &Connection, problems: &mut Vec<String>) -> rusqlite::Result<()> {
    let head = conn.query_row("SELECT head FROM shards WHERE shard = 0", [], |row| rows::count(row, 0))?;
    let (count, first, last) = conn.query_row(
        "SELECT count(*), coalesce(min(position), 1), coalesce(max(position), 0) FROM log NOT INDEXED",
        [],
        |row| Ok((rows::count(row, 0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    )?;
    let pruned = retention::pruned_positions(conn)?;
    if !pruned.is_empty() {
        let mut ask = conn.prepare("SELECT position FROM log NOT INDEXED ORDER BY position")?;
        let there = ask.query_map([], |row| rows::count(row, 0))?.collect::<rusqlite::Result<Vec<u64>>>()?;
        problems.extend(density(head, there, pruned).map(|problem| format!("shard 0: {problem}")));
        return Ok(());
    }
    if last != head as i64 {
        problems.push(format!("shard 0: its head is {head}, its last event is at position {last}"));
    }
    if first != 1 || count as i64 != last {
        problems
            .push(format!("shard 0: {count} events lie at positions {first} to {last}: some are missing"));
    }
    Ok(())
}

/// Without gaps, from 1 or from behind the cut.
fn versions(conn: &Connection, problems: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut ask = conn.prepare(&format!(
        "SELECT coalesce(id, 'workflow number ' || workflow), coalesce(cut, 0), low, high, events
         FROM (SELECT workflow, min(version) AS low, max(version) AS high, count(*) AS events
               FROM log GROUP BY workflow)
         LEFT JOIN workflows ON n = workflow
         WHERE id IS NULL OR low != cut + 1 OR events != high - cut LIMIT {PROBLEMS_MAX}"
    ))?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        let [cut, low, high, events] = [row.get(1)?, row.get(2)?, row.get(3)?, row.get::<_, i64>(4)?];
        let id: String = row.get(0)?;
        problems.push(format!(
            "{id}: {events} events with versions {low} to {high}, where {} to {high} are due",
            cut + 1
        ));
    }
    Ok(())
}

/// Bytes that match their address.
fn payloads(conn: &Connection, problems: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut ask = conn.prepare("SELECT hash, bytes FROM payloads")?;
    let mut rows = ask.query([])?;
    let mut found = 0;
    while let Some(row) = rows.next()? {
        let hash = rows::hash(row, 0)?;
        if Hash::of_bytes(row.get_ref(1)?.as_blob()?) != hash {
            found += 1;
            if found <= PROBLEMS_MAX {
                problems.push(format!("payload {hash}: its bytes do not match its hash"));
            }
        }
    }
    Ok(())
}

/// Workflows without events, forks without parents, checkpoints ahead of the log.
fn beside(conn: &Connection, problems: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut ask = conn.prepare(&format!(
        "SELECT id || ': a workflow without events' FROM workflows
             WHERE NOT EXISTS (SELECT 1 FROM log WHERE workflow = n)
         UNION ALL SELECT fork.id || ': its parent ' || fork.parent || ' is gone' FROM workflows AS fork
             WHERE parent IS NOT NULL AND NOT EXISTS (SELECT 1 FROM workflows AS p WHERE p.id = fork.parent)
         UNION ALL SELECT 'projection ' || projection || ': its checkpoint is ahead of the log' FROM checkpoints
             WHERE position > (SELECT head FROM shards WHERE shards.shard = checkpoints.shard)
         LIMIT {PROBLEMS_MAX}"
    ))?;
    let mut rows = ask.query([])?;
    while let Some(row) = rows.next()? {
        problems.push(row.get(0)?);
    }
    Ok(())
}
