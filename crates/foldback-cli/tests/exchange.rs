//! A workflow leaves one store and comes into another: the same bytes both ways, and a file that
//! was changed, cut or made up is refused.

mod world;

use std::sync::Arc;

use foldback::exchange::{ExchangeError, Imported, export, import};
use foldback::store::Store;
use serde_json::json;
use world::{World, article, published, write};

fn memory() -> Arc<dyn Store> {
    foldback::store::open("memory:").expect("a store")
}

fn exported(store: &dyn Store, id: &str) -> Vec<u8> {
    let row = store.workflow(id).expect("the store answers").expect("the workflow is there");
    let mut file = Vec::new();
    export(store, &row, &mut file).expect("it is exported");
    file
}

fn imported(store: &dyn Store, file: &[u8]) -> Result<Imported, ExchangeError> {
    import(store, &mut &*file)
}

fn a_file() -> Vec<u8> {
    let store = memory();
    write(&*store, "done", &article("done", &published()), Some("completed"));
    exported(&*store, "done")
}

#[test]
fn what_was_imported_is_exported_as_the_same_bytes() {
    let (from, to) = (World::filled(), World::empty());
    for (id, status) in [("done", "completed"), ("failed", "failed"), ("unknown", "unknown")] {
        let file = from.run(&["export", id]);
        assert_eq!(file.code, 0, "{file:?}");
        let path = to.dir.path().join("file.jsonl");
        std::fs::write(&path, &file.out).expect("it is written");
        let told = to.run(&["--json", "import", "file.jsonl"]).document(0);
        let events = from.run(&["events", id, "--json"]).lines(0).len();
        assert_eq!((&told["workflow_id"], &told["status"]), (&json!(id), &json!(status)));
        assert_eq!((&told["version"], &told["events"]), (&json!(events), &json!(events)));
        assert!(to.run(&["export", id]).out == file.out, "{id} comes out as it went in");
        // The same file once more changes nothing; through memory it is the same too.
        let again = to.run(&["import", "file.jsonl"]);
        assert!(again.code == 0 && again.err.contains("already here"), "{again:?}");
        let store = memory();
        imported(&*store, file.out.as_bytes()).expect("it is imported");
        assert!(exported(&*store, id) == file.out.as_bytes());
    }
    let audit = to.run(&["audit", "--json"]).document(0);
    assert_eq!((&audit["workflows"], &audit["problems"]), (&json!(3), &json!([])));
    assert_eq!(to.run(&["list", "--json"]).lines(0).len(), 3);
}

#[test]
fn a_changed_byte_is_refused_wherever_it_stands() {
    let file = a_file();
    let store = memory();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= if at % 2 == 0 { 1 } else { 0x20 };
        let told = imported(&*store, &changed);
        assert!(matches!(told, Err(ExchangeError::Refused { .. })), "byte {at}: {told:?}");
    }
    assert_eq!(store.workflow("done"), Ok(None), "nothing was written");
    imported(&*store, &file).expect("unchanged it is imported");
}

#[test]
fn a_file_that_no_export_wrote_is_refused_with_its_line() {
    let file = String::from_utf8(a_file()).expect("UTF-8");
    let lines: Vec<&str> = file.split_inclusive('\n').collect();
    let count = lines.len();
    let swapped = [&lines[..2], &[lines[3], lines[2]], &lines[4..]].concat().concat();
    let doubled = [&lines[..3], &lines[2..]].concat().concat();
    let deep = format!("{}{}\n", lines[0], "[".repeat(100_000));
    let table: Vec<(String, Vec<u8>, String)> = vec![
        ("empty".into(), Vec::new(), "line 1: the file ends".into()),
        ("other".into(), b"{\"a\": 1}\n".to_vec(), "line 1: this is no export".into()),
        ("newer".into(), file.replacen(":1,", ":2,", 1).into(), "line 1: format 2 is not known".into()),
        ("swapped".into(), swapped.into(), "line 3: ".into()),
        ("doubled".into(), doubled.into(), "line 4: version 1 stands where version 2".into()),
        ("deep".into(), deep.into(), "line 2: ".into()),
        ("types".into(), format!("{}{{\"definition\":7}}\n", lines[0]).into(), "line 2: ".into()),
        ("latin-1".into(), [lines[0].as_bytes(), b"\xe9\n"].concat(), "line 2: byte 1 is not UTF-8".into()),
        ("more".into(), format!("{file}\n").into(), format!("line {}: something stands", count + 1)),
        ("spaces".into(), file.replacen(":1,", ": 1,", 1).into(), "line 1: it is not spelled".into()),
    ];
    let cut = (1..count).map(|n| {
        ("cut".to_owned(), lines[..n].concat().into_bytes(), format!("line {}: the file ends", n + 1))
    });
    let store = memory();
    for (name, bytes, wanted) in table.into_iter().chain(cut) {
        let told = imported(&*store, &bytes).expect_err(&name).to_string();
        assert!(told.starts_with(&wanted), "{name}: {told}");
    }
    assert_eq!(store.workflow("done"), Ok(None), "nothing was written");
}

#[test]
fn another_log_of_the_same_id_is_refused_and_so_is_a_file_that_is_not_there() {
    let (from, to) = (World::filled(), World::empty());
    write(&*to.store(), "done", &article("done", &world::refused()), Some("failed"));
    std::fs::write(to.dir.path().join("file"), from.run(&["export", "done"]).out).expect("it is written");
    for (words, wanted) in [
        (["import", "file"], "another log of `done`"),
        (["import", "nothing"], "cannot be read"),
        (["import", "."], "is a directory"),
        (["export", "dome"], "no workflow `dome`"),
    ] {
        let ran = to.run(&words);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(wanted) && ran.err.contains("hint: "), "{ran:?}");
    }
    let held = to.store();
    let _owner = held.acquire(0, "a test").expect("the store answers").expect("nobody owns it");
    std::fs::write(to.dir.path().join("file"), from.run(&["export", "failed"]).out).expect("it is written");
    let ran = to.run(&["import", "file"]);
    assert!(ran.code == 2 && ran.err.contains("another process owns the store"), "{ran:?}");
}
