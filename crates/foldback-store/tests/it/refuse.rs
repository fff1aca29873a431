//! What is no store, what is damaged, and what a killed process leaves behind.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::desk::{Desk, event, one, url};
use foldback_core::Hash;
use foldback_core::value::Payload;
use foldback_store::{Commit, Expected, StoreError, open, open_existing};
use rusqlite::Connection;

/// The error of both ways to open a path.
fn refused(path: &Path) -> StoreError {
    let url = format!("sqlite:{}", path.display());
    let error = open(&url).err().expect("refused");
    assert_eq!(open_existing(&url).err().as_ref(), Some(&error));
    assert!(error.is_input, "{error}");
    assert!(error.message.contains(&*path.to_string_lossy()), "{error} names the file");
    assert!(error.hint.is_some(), "{error} says what to do");
    error
}

#[test]
fn what_is_no_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    fs::write(&text, "not a database, and longer than its header of a hundred bytes ".repeat(9)).unwrap();
    let before = fs::read(&text).unwrap();
    assert!(refused(&text).message.contains("no SQLite database"));
    assert_eq!(fs::read(&text).unwrap(), before);

    let foreign = dir.path().join("foreign.db");
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let before = fs::read(&foreign).unwrap();
    assert!(refused(&foreign).message.contains("of another program"));
    assert_eq!(fs::read(&foreign).unwrap(), before);

    let newer = dir.path().join("newer.db");
    drop(open(&newer.display().to_string()).unwrap());
    Connection::open(&newer).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    assert!(refused(&newer).message.contains("newer foldback (store version 99"));

    assert!(refused(dir.path()).message.contains("is a directory"));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 3, "nothing was left beside them");
}

#[test]
fn a_store_that_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let error = open_existing(&url(&dir)).err().unwrap();
    assert!(error.is_input && error.message.ends_with("foldback.db does not exist"), "{error}");
    assert!(error.hint.unwrap().contains("`foldback run FILE` makes it"));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "looking makes no file");

    fs::write(dir.path().join("foldback.db"), "").unwrap();
    assert!(open_existing(&url(&dir)).err().unwrap().message.ends_with("holds no store"));
    assert_eq!(fs::read(dir.path().join("foldback.db")).unwrap(), b"");
    open(&url(&dir)).expect("an empty file is as good as none");
    open_existing(&url(&dir)).expect("and now there is one");

    let error = open(&format!("sqlite:{}", dir.path().join("no/such/a.db").display())).err().unwrap();
    assert!(error.is_input && error.message.contains("there is no directory"), "{error}");
}

#[test]
fn kinds_of_stores() {
    for url in ["postgres://h/db", "postgresql://h/db", "mysql://h/db", "sqlite:", ""] {
        let error = open(url).err().unwrap();
        assert!(error.is_input && error.hint.is_some(), "{url}: {error}");
    }
    let dir = tempfile::tempdir().unwrap();
    for (i, prefix) in ["sqlite:", "sqlite://", ""].into_iter().enumerate() {
        let path = dir.path().join(format!("{i} ?mode=memory#%41.db"));
        open(&format!("{prefix}{}", path.display())).unwrap();
        assert!(path.is_file(), "{} is a path, not a URI", path.display());
    }
    open("memory:").unwrap();
}

#[test]
fn many_open_a_new_file_at_once() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..8).map(|_| scope.spawn(|| open(&url(&dir)).map(|_| ()))).collect();
        for opened in opened {
            opened.join().unwrap().unwrap();
        }
    });
    Desk::at(&dir).is_sound();
}

#[test]
fn a_damaged_store_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("foldback.db");
    let desk = Desk::at(&dir);
    for i in 0..300 {
        desk.append(&format!("w{}", i % 3), Expected::Any, vec![event(&"x".repeat(200))]).unwrap();
    }
    let bytes = b"right".to_vec();
    let payload = Payload { hash: Hash::of_bytes(&bytes), media_type: "text/plain".into(), bytes };
    desk.commit(Commit { payloads: vec![payload], ..Commit::default() }).unwrap();
    desk.is_sound();
    drop(desk);

    let damage = |sql: &str| {
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let problems = open_existing(&url(&dir)).unwrap().check().unwrap();
        assert!(!problems.is_empty(), "{sql}");
        problems.join("\n")
    };
    let found = damage("DROP TRIGGER payloads_are_never_updated; UPDATE payloads SET bytes = x'00'");
    assert!(found.contains("its bytes do not match its hash"), "{found}");
    let found = damage("DROP TRIGGER log_is_never_deleted; DELETE FROM log WHERE position = 100");
    assert!(found.contains("299 events lie at positions 1 to 300"), "{found}");
    assert!(found.contains("w0: 99 events with versions 1 to 100"), "{found}");
    let found = damage("UPDATE shards SET head = 400");
    assert!(found.contains("its head is 400, its last event is at position 300"), "{found}");

    // Bytes turned over in the middle of the file: findings or an error, never a panic.
    let whole = fs::read(&path).unwrap();
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        for byte in &mut bytes[page * 4096..page * 4096 + 200] {
            *byte ^= 0x5A;
        }
        fs::write(&path, bytes).unwrap();
        let Ok(store) = open_existing(&url(&dir)) else { continue };
        assert!(!store.check().unwrap().is_empty());
        let _ = store.feed(0, 0, 999);
        let _ = store.read("w1", 0, 999);
        let _ = store.workflows(&foldback_store::Filter::default());
    }
}

#[test]
fn what_was_taken_out_of_the_tables_or_put_into_them_is_found() {
    for (sql, wanted) in [
        ("DROP TABLE inbox", "the table `inbox` is missing"),
        ("DROP TABLE wakeups", "the table `wakeups` is missing"),
        ("DROP TABLE workflow_snapshots", "the table `workflow_snapshots` is missing"),
        ("DROP INDEX inbox_open", "the index `inbox_open` is missing"),
        ("DROP VIEW steps", "the view `steps` is missing"),
        ("DROP TRIGGER log_is_never_deleted", "the trigger `log_is_never_deleted` is missing"),
        (
            "DROP TRIGGER log_is_never_updated;
             CREATE TRIGGER log_is_never_updated BEFORE UPDATE ON log WHEN 0 BEGIN SELECT 1; END",
            "the trigger `log_is_never_updated` is not the one that was made",
        ),
        (
            "CREATE TRIGGER helpful AFTER INSERT ON log BEGIN UPDATE shards SET owner = 'me'; END",
            "there is a trigger `helpful`, which is none of this store's",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        Desk::at(&dir).append("a", Expected::NoStream, vec![event("1")]).unwrap();
        Connection::open(dir.path().join("foldback.db")).unwrap().execute_batch(sql).unwrap();
        let problems = open_existing(&url(&dir)).unwrap().check().unwrap();
        assert!(problems.iter().any(|problem| problem == wanted), "{sql}: {problems:?}");
    }
    // Tables of one's own are nobody's business.
    let dir = tempfile::tempdir().unwrap();
    let desk = Desk::at(&dir);
    let own = "CREATE TABLE mine (x); CREATE INDEX my_index ON log (type); CREATE VIEW my_view AS SELECT 1";
    Connection::open(dir.path().join("foldback.db")).unwrap().execute_batch(own).unwrap();
    desk.is_sound();
}

/// Not a test of its own: the process that [`a_killed_process_loses_nothing_it_acknowledged`]
/// kills. It appends for ever, and prints each version that was acknowledged.
#[test]
#[ignore = "run by a_killed_process_loses_nothing_it_acknowledged"]
#[allow(clippy::print_stdout)]
fn appends_until_killed() {
    let Ok(store) = std::env::var("FOLDBACK_TEST_STORE") else { return };
    let desk = Desk::take(open(&store).unwrap());
    loop {
        let results = desk.commit_all((0..3).map(|_| one("a", Expected::Any)).collect());
        for result in results {
            println!("acknowledged {}", result.unwrap()[0].last);
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["refuse::appends_until_killed", "--exact", "--ignored", "--nocapture"])
            .env("FOLDBACK_TEST_STORE", url(&dir))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        while acknowledged < before + 100 * round {
            let line = lines.next().expect("it goes on").unwrap();
            if let Some((_, version)) = line.split_once("acknowledged ") {
                acknowledged = version.parse().unwrap();
            }
        }
        assert!(open(&url(&dir)).unwrap().acquire(0, "too early").unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        let desk = Desk::at(&dir);
        let log = desk.store.read("a", 0, usize::MAX).unwrap();
        assert!(log.len() as u64 >= acknowledged, "{} of {acknowledged}", log.len());
        assert_eq!(desk.epoch, 2 * round, "each taking raises the epoch");
        desk.is_sound();
        before = log.len() as u64;
    }
}
