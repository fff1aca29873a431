//! A workflow leaves one store and comes into another: the same bytes both ways, and a file that
//! was changed, cut or made up is refused.

use std::sync::Arc;

use crate::world::{World, article, published, write};
use foldback::exchange::{ExchangeError, Imported, export, import};
use foldback::store::Store;
use serde_json::json;

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
    write(&*to.store(), "done", &article("done", &crate::world::refused()), Some("failed"));
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

/// Looks twice and writes once; the second look needs a file.
const LETTER: &str = r#"
document: { dsl: '1.0.3', namespace: shop, name: letter, version: '1.0.0' }
do:
- orders:
    run: { shell: { command: 'echo orders >> done; echo lamps' } }
    metadata: { foldback: { effect: read } }
- stock:
    run: { shell: { command: 'echo stock >> done; echo "3 $WHAT"', environment: { WHAT: '${ . }' } } }
    metadata: { foldback: { effect: read } }
- send:
    run: { shell: { command: 'echo "send $TEXT" >> done; echo sent', environment: { TEXT: '${ . }' } } }
"#;

fn put(world: &World, name: &str, text: &str) {
    std::fs::write(world.dir.path().join(name), text).expect("it is written");
}

fn done(world: &World) -> Vec<String> {
    let text = std::fs::read_to_string(world.dir.path().join("done")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_fork_moves_with_its_past_and_goes_on_there() {
    let (from, to) = (World::empty(), World::empty());
    put(&from, "letter.yaml", LETTER);
    assert_eq!(from.run(&["run", "letter.yaml", "--id", "p"]).code, 0);
    let fork = ["fork", "p", "--at", "1", "--rerun", "stock", "--detach", "--json"];
    assert_eq!(from.run(&fork).document(0)["workflow_id"], "p~1");
    let file = from.run(&["export", "p~1"]);
    assert!(file.code == 0 && file.err.contains("before it all of p, whose past it shares"), "{file:?}");
    put(&to, "file", &file.out);
    // A file stands alone.
    let told = to.run(&["--store", "sqlite:none.db", "verify", "file", "--json"]).document(0);
    assert_eq!((&told["workflow_id"], &told["matched"]), (&json!("p~1"), &json!(true)));
    assert!(!to.dir.path().join("none.db").exists());
    let told = to.run(&["import", "file", "--json"]).document(0);
    assert_eq!((&told["workflow_id"], &told["was_there"]), (&json!("p~1"), &json!(false)));
    assert_eq!(told["ancestors"][0]["workflow_id"], "p");
    assert!(to.run(&["export", "p~1"]).out == file.out, "it comes out as it went in");
    let again = to.run(&["import", "file"]);
    assert!(again.err.contains("already here: p (completed)"), "{again:?}");
    assert!(again.err.contains("already here: p~1 (running)"), "{again:?}");
    // It takes what its parent did, also behind the cut, and does what it was told to do again.
    assert_eq!(to.run(&["resume", "p~1", "--json"]).document(0)["status"], "completed");
    assert_eq!(done(&to), ["stock"]);
    assert_eq!(to.run(&["verify", "--json"]).lines(0).len(), 2);
    assert_eq!(to.run(&["audit", "--json"]).document(0)["problems"], json!([]));
    let tree = to.run(&["list", "--tree"]).out;
    assert!(tree.contains("└─ p~1"), "{tree}");
}

#[test]
fn a_workflow_that_follows_another_definition_moves_with_both() {
    let (from, to) = (World::empty(), World::empty());
    put(&from, "broken.yaml", &LETTER.replace("\"3 $WHAT\"", "no; exit 3"));
    put(&from, "letter.yaml", LETTER);
    assert_eq!(from.run(&["run", "broken.yaml", "--id", "p"]).code, 1);
    let retried = from.run(&["retry", "p", "--definition", "letter.yaml", "--json"]).document(0);
    assert_eq!(retried["status"], "completed");
    let file = from.run(&["export", "p"]).out;
    assert_eq!(file.lines().filter(|line| line.starts_with(r#"{"definition""#)).count(), 2);
    put(&to, "file", &file);
    assert_eq!(to.run(&["verify", "file", "--json"]).document(0)["matched"], true);
    assert_eq!(to.run(&["import", "file"]).code, 0);
    assert!(to.run(&["export", "p"]).out == file, "it comes out as it went in");
    assert_eq!(
        to.run(&["verify", "p", "--json"]).document(0)["matched"],
        true,
        "by what it followed, and when"
    );
    // A fork of it follows the second one from its first event on.
    let fork = ["fork", "p", "--rerun", "stock", "--writes", "stub", "--json"];
    assert_eq!(to.run(&fork).document(0)["status"], "completed");
    put(&from, "fork", &to.run(&["export", "p~1"]).out);
    let told = from.run(&["import", "fork"]);
    assert!(told.code == 0 && told.err.contains("already here: p (completed)"), "{told:?}");
    assert_eq!(from.run(&["verify", "p~1", "--json"]).document(0)["matched"], true);
    assert_eq!(from.run(&["audit", "--json"]).document(0)["problems"], json!([]));
}

#[test]
fn what_was_pruned_does_not_come_back_by_an_import() {
    let world = World::filled();
    put(&world, "file", &world.run(&["export", "done"]).out);
    assert_eq!(world.run(&["prune", "--ended-before", "2100-01-01T00:00:00Z"]).code, 0);
    let ran = world.run(&["import", "file"]);
    assert!(ran.code == 2 && ran.err.contains("`done` was pruned from this store"), "{ran:?}");
}

#[test]
fn what_is_named_is_pruned_whatever_its_age_or_nothing_is() {
    let world = World::filled();
    crate::world::branch(&*world.store(), "done~1", ("done", 3));
    let refusals: [(&[&str], &str); 6] = [
        (&["prune"], "the ids of workflows, or --ended-before"),
        (&["prune", "nobody"], "no workflow `nobody`"),
        (&["prune", "failed", "unknown"], "`unknown` has not ended: it is unknown"),
        (&["prune", "failed", "done"], "`done` is the past of done~1"),
        (&["prune", "failed", "done", "done~1"], "`done~1` has not ended: it is running"),
        (&["prune", "failed", "--ended-before", "2000-01-01"], "which is not before --ended-before"),
    ];
    for (words, wanted) in refusals {
        let told = world.run(words);
        assert!(told.code == 2 && told.err.contains(wanted), "{words:?}: {told:?}");
        assert!(told.err.contains("hint: "), "{words:?}: {told:?}");
    }
    assert_eq!(world.run(&["list", "--json"]).lines(0).len(), 4, "nothing was pruned");
    let dry = world.run(&["prune", "failed", "--dry-run", "--json"]).document(0);
    assert_eq!((&dry["pruned"][0]["workflow_id"], &dry["dry_run"]), (&json!("failed"), &json!(true)));
    let told = world.run(&["prune", "failed"]);
    assert!(told.code == 0 && told.err.contains("1 pruned"), "{told:?}");
    for call in
        [&["show", "failed"][..], &["resume", "failed"], &["signal", "failed", "x"], &["retry", "failed"]]
    {
        let told = world.run(call);
        assert!(told.code == 2 && told.err.contains("`failed` was pruned"), "{call:?}: {told:?}");
    }
    let again = world.run(&["prune", "failed"]);
    assert_eq!(again.code, 2, "{again:?}");
    assert_eq!(world.run(&["audit", "--json"]).document(0)["problems"], json!([]));
}

#[test]
fn a_mistyped_command_is_never_taken_for_one_that_takes_away() {
    let world = World::empty();
    for word in ["erse", "ease", "eraser", "rase", "erases", "release", "prunes", "prne", "phrase"] {
        let told = world.run(&[word, "x"]);
        assert_eq!(told.code, 2, "{told:?}");
        assert!(!told.err.contains("'erase'") && !told.err.contains("'prune'"), "{word}: {}", told.err);
    }
    assert!(world.run(&["resum"]).err.contains("'resume'"), "others are");
}
