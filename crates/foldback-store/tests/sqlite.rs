//! The SQLite store passes the conformance suite.

use std::cell::RefCell;

use foldback_store::{conformance, open};

fn url(dir: &tempfile::TempDir) -> String {
    format!("sqlite:{}", dir.path().join("foldback.db").display())
}

#[test]
fn conforms() {
    let dirs = RefCell::new(Vec::new());
    conformance::run(&|| {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&url(&dir)).unwrap();
        dirs.borrow_mut().push(dir);
        store
    });
}

#[test]
fn conforms_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    conformance::run_reopened(&|| open(&url(&dir)).unwrap());
}
